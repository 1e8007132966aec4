"""Writes the locks beside it anew: what `make install` installs, each file of each release with its checksum.

``build.txt``: what builds the packages that come as source; ``torch.txt``: torch, with all that its own builds for graphics cards need;
``torch-cpu.txt``: a build of torch for processors alone, which spares gigabytes, where an index has one; ``daemon.txt``: everything else.
The releases are those of constraints.txt, the checksums those of the package index, asked through `uv`, for every platform and Python
that it has files for. torch-cpu.txt is made anew when ``TORCH_INDEX`` names an index that has such builds, and stays otherwise.

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
HEADER: Final = "# Made by `make lock`; see lock.py beside it. Not to be changed by hand.\n"


def plain(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def compiled(requirements: list[str], *options: str) -> dict[str, str]:
    """Package -> its line and its checksums, as `uv pip compile` gives them."""
    plainly = ["--no-header", "--no-annotate", "--no-emit-index-url", "--quiet"]
    fixed = ["--universal", "--python-version", "3.11", "--generate-hashes", "--constraint", str(ROOT / "constraints.txt")]
    command = ["uv", "pip", "compile", "-", *fixed, *plainly, *options]
    made = subprocess.run(command, input="\n".join(requirements), stdout=subprocess.PIPE, text=True, check=True).stdout
    return entries(made)


def entries(text: str) -> dict[str, str]:
    """Package -> its part of a lock."""
    parts = re.findall(r"^[^\s#].*(?:\n[ \t].*)*", text, re.M)
    return {plain(re.split(r"[=\[ ]", part)[0]): part for part in parts}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--torch-index", default="", help="an index that has builds of torch for processors alone")
    arguments = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = {plain(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *extras["daemon"], *project["build-system"]["requires"]]
    files: dict[str, list[str]] = {"build.txt": [], "torch.txt": [], "daemon.txt": []}
    for name, part in sorted(compiled(wanted).items()):
        if "sys_platform == 'win32'" in part:
            continue  # there is no systemd
        files["build.txt" if name == "setuptools" else "daemon.txt" if name in pinned - {"torch"} else "torch.txt"].append(part)
        if name == "torch" and arguments.torch_index:
            build = f"{part.split()[0]}+cpu"
            files["torch-cpu.txt"] = [compiled([build], "--no-deps", "--default-index", arguments.torch_index)["torch"]]
    for file, parts in files.items():
        (HERE / file).write_text(HEADER + "\n".join(parts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
