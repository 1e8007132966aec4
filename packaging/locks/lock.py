"""Writes the locks beside it anew: what `make install` installs, each file of each release with its checksum.

``torch.txt``: torch, and the setuptools that builds what comes as source; ``accelerators.txt``: what torch's own builds for graphics
cards need besides, and builds for processors alone do not; ``daemon.txt``: everything else. The releases are those of constraints.txt,
the checksums those of the package index, asked through `uv`, for every platform and Python that it has files for. A build of torch from
another index (``TORCH_INDEX``) has other checksums: they are added when that index is named here, and stay until torch's release changes.

    make lock [TORCH_INDEX=...]
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parent.parent
HASH: Final = re.compile(r"--hash=sha256:[0-9a-f]{64}")
FIRST: Final = ("setuptools", "torch")
HEADER: Final = "# Made by `make lock`; see lock.py beside it. Not to be changed by hand.\n"


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def compiled(requirements: list[str], *options: str) -> dict[str, str]:
    """Package -> its line and its checksums, as `uv pip compile` gives them."""
    fixed = [
        "--universal",
        "--python-version",
        "3.11",
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--no-emit-index-url",
        "--quiet",
    ]
    command = ["uv", "pip", "compile", "-", "--constraint", str(ROOT / "constraints.txt"), *fixed, *options]
    made = subprocess.run(command, input="\n".join(requirements), stdout=subprocess.PIPE, text=True, check=True).stdout
    return entries(made)


def entries(text: str) -> dict[str, str]:
    """Package -> its part of a lock."""
    parts = re.findall(r"^[^\s#].*(?:\n[ \t].*)*", text, re.M)
    return {plain(re.split(r"[=\[ ]", part)[0]): part for part in parts}


def with_hashes(part: str, hashes: set[str]) -> str:
    line = HASH.split(part)[0].rstrip(" \\\n")
    return " \\\n".join((line, *(f"    {one}" for one in sorted(hashes))))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-index", default="", help="an index whose builds of torch are to be allowed too")
    arguments = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = {plain(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    wanted = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["daemon"],
        *project["build-system"]["requires"],
    ]
    found = compiled(wanted)
    torch = found["torch"]
    release = torch.split()[0].partition("+")[0]
    hashes = set(HASH.findall(torch))
    before = entries((HERE / "torch.txt").read_text()).get("torch", "") if (HERE / "torch.txt").exists() else ""
    if before.split()[:1] == [release]:
        hashes |= set(HASH.findall(before))
    if arguments.torch_index:
        hashes |= set(HASH.findall(compiled([release], "--no-deps", "--default-index", arguments.torch_index)["torch"]))
    found["torch"] = with_hashes(torch, hashes)
    parts: dict[str, list[str]] = {"torch.txt": [], "accelerators.txt": [], "daemon.txt": []}
    for name, part in sorted(found.items()):
        if "sys_platform == 'win32'" in part:
            continue  # there is no systemd
        parts["torch.txt" if name in FIRST else "daemon.txt" if name in pinned else "accelerators.txt"].append(part)
    for file, lines in parts.items():
        (HERE / file).write_text(HEADER + "\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
