"""What is in the repository, and what must never be."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOP = {"cryptod", "ctl", "packaging", "etc", "tests", "models", "pyproject.toml", "README.md"}
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
TEXT = {".py", ".md", ".toml", ".txt", ".service", ".socket", ""}
OWNERS = {"cryptod/daemon/service.py", "cryptod/daemon/dispatch.py", "cryptod/daemon/control.py", "cryptod/worker/child.py"}
BESIDE = {"Makefile", ".ci", ".gitignore", "CHANGELOG.md", "LICENSE", "constraints.txt"}


def tracked() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], capture_output=True, cwd=ROOT, check=False)
    if listing.returncode:
        pytest.skip("this is not a git checkout")
    return [ROOT / name for name in listing.stdout.decode().split("\0") if name]


def test_the_top_level_is_the_one_that_was_agreed_on() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} == TOP | BESIDE


def test_no_source_uses_pickle() -> None:
    """What is read from disk or from a socket must not be able to run code."""
    for path in (*(ROOT / "cryptod").rglob("*.py"), *(ROOT / "ctl").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {
                "pickle",
                "cPickle",
                "dill",
                "cloudpickle",
                "joblib",
                "shelve",
                "marshal",
            }, path
        assert "torch.load(" not in path.read_text(), path
        assert "allow_pickle" not in path.read_text(), path


def test_nothing_names_a_folder_of_the_machine_that_it_was_made_on_or_a_package_registry() -> None:
    private = re.compile(r"/(?:work|root|home/[a-z]+)/(?!\.)[a-z]|\b(?:pypi\.org|pythonhosted\.org|npmjs\.org|deb\.debian\.org)\b")
    for path in tracked():
        if (
            path.is_file()
            and path.suffix in {".py", ".md", ".toml", ".txt", ".service", ".socket", ""}
            and path != Path(__file__).resolve()
        ):
            found = private.search(path.read_text(errors="replace"))
            assert found is None, f"{path.relative_to(ROOT)}: {found}"


def test_broad_handlers_stand_in_the_few_places_that_own_a_unit_of_work() -> None:
    """A periodic turn, a control request, a child's top: anywhere else a broad handler hides a defect."""
    places = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "cryptod").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and isinstance(node.type, ast.Name) and node.type.id == "Exception"
    }
    assert places <= OWNERS
