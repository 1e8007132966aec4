"""The locks that `make install` installs from: complete, in step with the pins, and with a checksum for every file."""

import importlib.util
import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.test_repository import PINS, requirements

ROOT = Path(__file__).parent.parent
LOCKS = ROOT / "packaging" / "locks"

_spec = importlib.util.spec_from_file_location("lock", LOCKS / "lock.py")
assert _spec is not None
assert _spec.loader is not None
lock = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(lock)

FILES = ("build.txt", "torch.txt", "torch-cpu.txt", "daemon.txt")


def locked(*files: str) -> dict[str, str]:
    return {name: part for file in files for name, part in lock.entries((LOCKS / file).read_text()).items()}


def test_what_is_locked_is_what_is_pinned() -> None:
    pins = {lock.plain(name): release for name, release in PINS.items()}
    for file in FILES:
        found = {name: part.split()[0].split("==")[1].removesuffix("+cpu") for name, part in locked(file).items()}
        accelerators = set(found) - set(pins) if file == "torch.txt" else set()
        assert {name: release for name, release in found.items() if name not in accelerators and release != pins.get(name)} == {}


def test_everything_that_the_daemon_needs_is_locked_whatever_it_needs_it_for() -> None:
    found = locked(*FILES)
    missing = [name for name in (*requirements(""), *requirements("daemon"), "setuptools") if lock.plain(name) not in found]
    for package in locked(*FILES):
        try:
            needs = [Requirement(line) for line in requires(package) or ()]
        except PackageNotFoundError:
            continue  # for another platform or Python
        missing += [
            f"{package}: {need}" for need in needs if (need.marker is None or need.marker.evaluate()) and lock.plain(need.name) not in found
        ]
    assert missing == []


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
