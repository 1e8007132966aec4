"""What is needed where: the extras of pyproject.toml beside what is imported, and what an installation does without."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.test_locks import load, lock
from tests.test_repository import requirements

ROOT = Path(__file__).parent.parent
trim = load(ROOT / "packaging/trim.py")
CLIENT = ("cryptod/client.py", "cryptod/asyncclient.py", "cryptod/tables.py")
MODULES = {"prometheus-client": "prometheus_client", "pillow": "PIL", "markdown-it-py": "markdown_it", "cuda-bindings": "cuda"}
"""What a package is imported as, where that is not its name."""


def module(package: str) -> str:
    name = str(lock.plain(package))
    return MODULES.get(name, name.replace("-", "_"))


def imported(path: Path) -> Iterator[str]:
    """The packages of others that a file imports, at its top or later."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        yield from (top for name in names if (top := name.split(".")[0]) not in {*sys.stdlib_module_names, "cryptod", "ctl"})


def test_the_daemons_extra_is_what_the_daemon_imports() -> None:
    files = [path for path in (ROOT / "cryptod").rglob("*.py") if str(path.relative_to(ROOT)) not in CLIENT]
    found = {name for path in files for name in imported(path)}
    assert found | {"ccxt"} == {
        module(name) for name in (*requirements(""), *requirements("daemon"))
    }  # ccxt is imported by a name put together


def test_what_cryptoctl_and_the_client_import_is_in_an_extra_of_theirs() -> None:
    files = [*(ROOT / "ctl").glob("*.py"), *(ROOT / name for name in CLIENT)]
    found = {name for path in files for name in imported(path)}
    extras = [name for extra in ("metrics", "watch", "png", "frames", "parquet") for name in requirements(extra)]
    assert found == {module(name) for name in (*requirements(""), *extras)}


WITHOUT = """
import importlib, io, pkgutil, sys
sys.modules.update(dict.fromkeys({absent!r}))
for package in ("cryptod", "ctl"):
    for found in pkgutil.walk_packages([package], package + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
import ccxt.async_support
from rich.console import Console
from ctl.board import Board, draw
from tests import markets, replies

assert markets.world()[1].done
board = Board()
board.status = {{**replies.STATUS, "serving": replies.MODELS}}
Console(file=io.StringIO(), width=130, force_terminal=True).print(draw(board, 130, 40, replies.NOW))
"""


def test_a_training_and_a_drawing_load_nothing_that_an_installation_leaves_out() -> None:
    absent = sorted([*map(module, lock.NEVER_LOADED), *trim.NEVER_LOADED])
    code = WITHOUT.format(absent=absent)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr[-3000:]


NEEDS = [
    ("prometheus-client", "ctl.metrics.exposition(None, 'prometheus')", "metrics need"),
    ("pillow", "ctl.picture._png([], pathlib.Path('x.png'), None)", "a PNG needs"),
    ("pyarrow", "ctl.export.Parquet(None)", "Parquet needs"),
    ("pandas", "cryptod.tables.frame([])", "frames need"),
]


@pytest.mark.parametrize(("package", "call", "who"), NEEDS)
def test_what_is_not_installed_is_asked_for_by_name_and_for_this_environment(package: str, call: str, who: str) -> None:
    imports = "import sys, pathlib, ctl.metrics, ctl.picture, ctl.export, cryptod.tables"
    code = f"{imports}; sys.modules[{module(package)!r}] = None; {call}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=60)
    words = f"{who} the package {package}, which is not installed (python3 -m pip --python {sys.executable} install {package}"
    assert f"MissingPackage: {words}" in re.sub(r"cryptod\.errors\.", "", done.stderr)
