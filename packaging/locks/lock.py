"""Writes the locks beside it anew: what `make install` installs, each file of each release with its checksum.

``build.txt``: what builds the packages that come as source; ``torch.txt``: torch, with all that its own builds for graphics cards need;
``torch-cpu.txt``: a build of torch for processors alone, which spares gigabytes, where an index has one; ``daemon.txt``: everything else.
The releases are those of constraints.txt, the checksums those of the package index, asked through `uv`, for every platform and Python
that it has files for; at the end uv looks whether each of `PYTHONS` finds a file for each of `MACHINES`. torch-cpu.txt is made anew when
``TORCH_INDEX`` names an index that has such builds; without one, or where it cannot be reached, it stays as it is, and that is said.

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
PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14")
MACHINES: Final = ("x86_64", "aarch64")
EXTRAS: Final = ("daemon", "metrics", "watch")
"""What an installation consists of; the other extras are added by those who want them."""
NEVER_LOADED: Final = {
    # torch compiles no models here, and runs on no graphics card.
    *("cuda-bindings", "cuda-pathfinder", "triton", "filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "sympy"),
    # ccxt signs no orders, and the daemon has an event loop of its own.
    *("coincurve", "uvloop"),
    # rich lays out the screen of `watch`, and highlights no source and no Markdown.
    *("markdown-it-py", "mdurl", "pygments"),
}
"""What torch, ccxt and rich name among their needs and nothing here loads. A test trains and draws without."""
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
    needs = [line for extra in EXTRAS for line in extras[extra]]
    wanted = [*project["project"]["dependencies"], *needs, *project["build-system"]["requires"]]
    files: dict[str, list[str]] = {"build.txt": [], "torch.txt": [], "daemon.txt": []}
    for name, part in sorted(compiled(wanted).items()):
        if "sys_platform == 'win32'" in part:
            continue  # there is no systemd
        if name in NEVER_LOADED:
            continue
        files["build.txt" if name == "setuptools" else "daemon.txt" if name in pinned - {"torch"} else "torch.txt"].append(part)
        if name == "torch" and (build := for_processors(part.split()[0], arguments.torch_index)):
            files["torch-cpu.txt"] = [build]
    for file, parts in files.items():
        (HERE / file).write_text(HEADER + "\n".join(parts) + "\n")
    return look()


def for_processors(release: str, index: str) -> str:
    """torch's part of torch-cpu.txt; empty, with a word about it, where ``index`` does not give it."""
    why = "TORCH_INDEX names no index of CPU-only builds"
    if index:
        try:
            return compiled([f"{release}+cpu"], "--no-deps", "--default-index", index)["torch"]
        except subprocess.CalledProcessError:
            why = f"the index {index} did not give {release}+cpu"
    print(f"torch-cpu.txt stays as it is: {why}", file=sys.stderr)
    return ""


def look() -> int:
    """Whether every locked release has a file for each Python on each machine; what uv says where one has not."""
    found = 0
    for python in PYTHONS:
        for machine in MACHINES:
            where = ["--python-version", python, "--python-platform", f"{machine}-manylinux_2_28", "--target", "/nonexistent"]
            only = ["--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-binary", "sdnotify", "--quiet"]
            locks = [option for file in ("build.txt", "torch.txt", "daemon.txt") for option in ("-r", str(HERE / file))]
            done = subprocess.run(["uv", "pip", "install", "--dry-run", *where, *only, *locks], capture_output=True, text=True)
            print(f"Python {python} on {machine}: {'all there' if done.returncode == 0 else done.stderr.strip()}")
            found |= done.returncode
    return found


if __name__ == "__main__":
    sys.exit(main())
