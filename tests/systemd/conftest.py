"""What the tests under systemd stand on: one installation for the whole run, and boxes over it."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.box import Box, missing

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def box_is_possible() -> None:
    if reason := missing():
        pytest.skip(reason)


@pytest.fixture(scope="session")
def installed(box_is_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The tree that ``make install DESTDIR=`` makes; about 35 s, most of it torch.

    ``BOX_INSTALLED`` names one that is there already, for whoever works on these tests; the package itself is put into
    it anew.
    """
    if ready := os.environ.get("BOX_INSTALLED"):
        tree = Path(ready)
        subprocess.run(["cp", "-r", "cryptod", "ctl", *tree.glob("opt/cryptod/lib/python*/site-packages")], cwd=ROOT, check=True)
        for folder, manager in ((ROOT / "packaging/systemd", "system"), (ROOT / "packaging/systemd/user", "user")):
            target = tree / "usr/lib/systemd" / manager
            target.mkdir(parents=True, exist_ok=True)
            subprocess.run(["cp", *folder.glob("*.socket"), *folder.glob("*.service"), target], check=True)
        yield tree
        return
    tree = tmp_path_factory.mktemp("installed")
    made = subprocess.run(["make", "install", f"DESTDIR={tree}"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    yield tree
    shutil.rmtree(tree)  # more than a gigabyte; pytest would keep three of them


@pytest.fixture(scope="module")
def box(installed: Path) -> Iterator[Box]:
    """A machine on which cryptod has just been installed, its user made; nothing is started."""
    with Box(installed) as box:
        box.run("systemd-sysusers cryptod.conf && systemd-tmpfiles --create cryptod.conf && systemctl daemon-reload")
        yield box
