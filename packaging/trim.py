"""Takes out of a new environment what a service does not load. `make install` runs it with the environment's own Python.

What goes: what packages are installed and compiled with, their tests and stubs, `NEVER_LOADED`, and those shared libraries of torch
and NVIDIA that the dynamic linker has not mapped after a step of training. A build of torch for graphics cards maps most of them as
soon as it is imported, and would open the rest for a card only. At the end a step of training runs in what is left.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

NEVER_LOADED: Final = (
    # torch compiles nothing and exports nothing here.
    *("torch._dynamo", "torch._inductor", "torch.onnx"),
    # ccxt is asked over HTTP for candles.
    *("ccxt.pro", "ccxt.prediction", "ccxt.test"),
)
"""Parts of packages. A test trains and loads every exchange without."""
INSTALLERS: Final = ("pip", "pip-*", "setuptools", "setuptools-*", "_distutils_hack", "distutils-precedence.pth")
UNUSED: Final = ("torch/test", "torch/include", "torch/share", "**/tests", "**/*.pyi", "**/direct_url.json")
HELPER: Final = "torch_shm_manager"
"""The one program in torch/bin that is not a test: tensors in shared memory are freed by it."""
STEP: Final = """
import torch
weights = torch.ones(8, 8, requires_grad=True)
torch.linalg.solve(weights + torch.eye(8), torch.ones(8, 8) @ weights).sum().backward()
print(open("/proc/self/maps").read())
"""


def mapped() -> set[Path]:
    """The files that a process of this environment has mapped after a step of training."""
    done = subprocess.run([sys.executable, "-IB", "-c", STEP], stdout=subprocess.PIPE, text=True, check=True)
    return {Path(line[line.index("/") :]).resolve() for line in done.stdout.splitlines() if "/" in line}


def size(folder: Path) -> int:
    """In MB, as it lies on the disk."""
    return sum(path.lstat().st_blocks for path in folder.rglob("*")) * 512 // 1_000_000


def trim(packages: Path) -> None:
    """Trim what lies in ``packages``, the folder of the environment's packages."""
    kept = mapped()
    gone = [path for pattern in (*INSTALLERS, *UNUSED) for path in packages.glob(pattern)]
    gone += [packages / name.replace(".", "/") for name in NEVER_LOADED]
    gone += [path for path in packages.glob("torch/bin/*") if path.name != HELPER]
    gone += [
        path
        for folder in ("torch/lib", "nvidia")
        for path in (packages / folder).rglob("*")
        if path.is_file() and path.resolve() not in kept
    ]
    for path in gone:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for folder in sorted((packages / "nvidia").rglob("*/"), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()
    mapped()


def main() -> int:
    packages = Path(sysconfig.get_path("platlib"))
    before = size(packages)
    trim(packages)
    print(f"{packages}: {before} MB, of which {size(packages)} MB stay")
    return 0


if __name__ == "__main__":
    sys.exit(main())
