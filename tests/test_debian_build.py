"""The Debian package as packaging/debian/build makes it of a tree: whom it names."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def field(folder: Path, name: str, **environment: str) -> str:
    """A field of the package that is made of an empty tree."""
    stage = folder / "stage"
    (stage / "opt/cryptod/lib/python3.11").mkdir(parents=True, exist_ok=True)
    (stage / "etc/cryptod").mkdir(parents=True, exist_ok=True)
    (stage / "etc/cryptod/cryptod.toml").touch()
    environ = {key: value for key, value in os.environ.items() if key not in ("DEBFULLNAME", "DEBEMAIL")} | environment
    subprocess.run(
        ["sh", "packaging/debian/build", str(stage), "1.0-1", str(folder)], cwd=ROOT, env=environ, check=True, capture_output=True
    )
    (package,) = folder.glob("*.deb")
    return subprocess.run(["dpkg-deb", "-f", str(package), name], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
def test_the_maintainer_of_the_package_is_whoever_built_it(tmp_path: Path) -> None:
    name = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert field(tmp_path, "Maintainer").startswith(f"built here <{name}@")
    told = {"DEBFULLNAME": "Ada & Bob/Sons", "DEBEMAIL": "packages@company.test"}
    assert field(tmp_path, "Maintainer", **told) == "Ada & Bob/Sons <packages@company.test>"
