"""The locks that `make install` installs from: complete, in step with the pins, and with a checksum for every file."""

import importlib.util
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

from tests.test_repository import PINS, requirements

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "packaging" / "locks"


def load(path: Path) -> ModuleType:
    """A program of `make install` as a module: it lies in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lock = load(LOCKS / "lock.py")

FILES = ("build.txt", "torch.txt", "torch-cpu.txt", "daemon.txt")


def locked(*files: str) -> dict[str, str]:
    return {name: part for file in files for name, part in lock.entries((LOCKS / file).read_text()).items()}


def test_what_is_locked_is_what_is_pinned() -> None:
    pins = {lock.plain(name): release for name, release in PINS.items()}
    for file in FILES:
        found = {name: part.split()[0].split("==")[1].removesuffix("+cpu") for name, part in locked(file).items()}
        accelerators = set(found) - set(pins) if file == "torch.txt" else set()
        assert {name: release for name, release in found.items() if name not in accelerators and release != pins.get(name)} == {}


@pytest.mark.parametrize("machine", lock.MACHINES)
@pytest.mark.parametrize("python", lock.PYTHONS)
def test_everything_that_an_installation_needs_is_locked_for_each_python_and_machine(python: str, machine: str) -> None:
    where = {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine, "extra": ""}
    found = {name: Requirement(part.split("\\")[0]) for name, part in locked("build.txt", "torch.txt", "daemon.txt").items()}
    for_this = {name for name, need in found.items() if need.marker is None or need.marker.evaluate(where)}
    wanted = [lock.plain(name) for extra in ("", *lock.EXTRAS) for name in requirements(extra)]
    for package in for_this:
        try:
            needs = [Requirement(line) for line in requires(package) or ()]
        except PackageNotFoundError:
            continue  # of torch's other build
        wanted += [lock.plain(need.name) for need in needs if need.marker is None or need.marker.evaluate(where)]
    assert set(wanted) - for_this - lock.NEVER_LOADED == set()


def test_nothing_is_locked_that_is_never_loaded_or_belongs_to_an_extra_that_is_not_installed() -> None:
    others = {lock.plain(name) for extra in ("png", "frames", "parquet") for name in requirements(extra)}
    assert set(locked(*FILES)) & (lock.NEVER_LOADED | others) == set()


def test_a_torch_for_processors_is_locked_for_each_python_and_machine() -> None:
    assert len(lock.HASH.findall(locked("torch-cpu.txt")["torch"])) >= len(lock.PYTHONS) * len(lock.MACHINES)


@pytest.mark.parametrize("file", FILES)
def test_every_line_is_an_exact_release_with_checksums_and_names_no_place(file: str) -> None:
    text = (LOCKS / file).read_text()
    for name, part in locked(file).items():
        line, *hashes = (piece.strip(" \\") for piece in part.splitlines())
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][\w.+]*( ; .+)?", line), line
        assert hashes, name
        assert all(lock.HASH.fullmatch(one) for one in hashes), name
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


def test_the_installation_takes_nothing_that_is_not_locked() -> None:
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile[makefile.index("\ninstall:") : makefile.index("\nlock:")]
    installs = re.findall(r"-m pip (.+?);", recipe)
    assert installs
    assert "-c constraints.txt" not in recipe
    assert all("$(LOCKED)" in line or "--no-deps --no-build-isolation --no-index ." in line for line in installs), installs
    assert re.search(r"^LOCKED := .*--require-hashes.*--no-deps|^LOCKED := .*--no-deps.*--require-hashes", makefile, re.M)


def test_a_lock_is_read_as_it_is_written() -> None:
    one, other = (f"--hash=sha256:{letter * 64}" for letter in "ab")
    torch, second = f"torch==1.0 \\\n    {one} \\\n    {other}", f"X_y==2 ; python_version < '4' \\\n    {one}"
    assert lock.entries(f"# a line\n{torch}\n{second}\n") == {"torch": torch, "x-y": second}


def test_an_installation_goes_on_where_pytorchs_index_does_not_answer(tmp_path: Path) -> None:
    text = (ROOT / "Makefile").read_text()
    (tmp_path / "Makefile").write_text(re.sub(r"^TORCH_INDEX \?= .*", "TORCH_INDEX ?= http://127.0.0.1:1", text, flags=re.M))
    recipe = f'probe:\n\t@set -e; index="$(call index,{sys.executable})"; echo "index: $$index."\n'
    (tmp_path / "probe.mk").write_text(f"include {tmp_path}/Makefile\n{recipe}")
    done = subprocess.run(["make", "-s", "-f", str(tmp_path / "probe.mk"), "probe"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "index: .\n"
