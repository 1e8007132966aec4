"""The laws of the house: who may import whom, each law with its reason. Read from the sources, not by running them."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FLOORS: dict[str, int] = {
    "cryptod.errors": 0,
    "cryptod.market": 0,
    "cryptod.clock": 0,
    "cryptod.logs": 0,
    "cryptod.protocol": 1,
    "cryptod.settings": 1,
    "cryptod.config": 1,
    "cryptod.store": 1,
    "cryptod.simulator": 1,
    "cryptod.forecast": 2,
    "cryptod.ingest": 2,
    "cryptod.worker.messages": 1,
    "cryptod.training": 3,
    "cryptod.worker": 4,
    "cryptod.daemon": 5,
    "cryptod.__main__": 6,
}
"""Imports go down, or stay on their floor within one package."""

CLIENT = ("cryptod.client", "cryptod.asyncclient", "cryptod.calls", "cryptod.replies")

ONLY_HERE = {
    "ccxt": (("cryptod.ingest.exchange",), "an exchange's oddities are translated in one place"),
    "lmdb": (("cryptod.store",), "transactions and their errors have one owner"),
    "torch": (("cryptod.training",), "the daemon stays small: torch lives in the children"),
    "safetensors": (("cryptod.store",), "checkpoints have one reader and one writer"),
    "aiohttp": (("cryptod.simulator", "cryptod.ingest.exchange"), "nobody else speaks HTTP"),
    "schedule": (("cryptod.daemon.service",), "it reckons in naive local time, and is fenced in"),
}


def modules() -> dict[str, Path]:
    found = {}
    for package in ("cryptod", "ctl"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path
    return found


MODULES = modules()


def imports(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever in the file it stands."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            assert node.module is not None
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":  # by name: what can be read of it
            text = ast.unparse(node.args[0])
            yield from (library for library in ("ccxt", "torch", "lmdb") if library in text)


GRAPH = {name: sorted(set(imports(path))) for name, path in MODULES.items()}


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def floor(name: str) -> tuple[str, int] | None:
    return next(((package, level) for package, level in FLOORS.items() if within(name, package)), None)


def test_imports_go_down_or_stay_within_one_package() -> None:
    wrong = []
    for name, targets in GRAPH.items():
        here = floor(name)
        for target in targets:
            there = floor(target)
            if here is None or there is None or here[0] == there[0]:
                continue
            if there[1] > here[1]:
                wrong.append(f"{name} -> {target}")
    assert wrong == []


def test_there_is_no_circle_of_imports() -> None:
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"circle: {' -> '.join((*path[path.index(name) :], name))}"
        if name in done:
            return
        for target in GRAPH[name]:
            if target in MODULES and target != name:
                visit(target, (*path, name))
        done.add(name)

    for name in GRAPH:
        visit(name, ())


@pytest.mark.parametrize("library", ONLY_HERE)
def test_a_library_has_one_owner(library: str) -> None:
    owners, why = ONLY_HERE[library]
    users = [name for name, targets in GRAPH.items() if any(within(target, library) for target in targets)]
    assert users, f"nobody imports {library} any more: take it out of the table"
    assert [name for name in users if not any(within(name, owner) for owner in owners)] == [], why


def test_only_the_service_its_parts_and_main_read_the_configuration() -> None:
    users = [name for name, targets in GRAPH.items() if "cryptod.config" in targets]
    assert [name for name in users if not (within(name, "cryptod.daemon") or name == "cryptod.__main__")] == []


def test_cryptoctl_and_the_client_need_the_standard_library_and_msgpack_only() -> None:
    """cryptoctl must start fast, and on a machine where everything else is broken."""
    allowed = {*CLIENT, "cryptod", "cryptod.protocol", "cryptod.errors", "msgpack"}
    for name in [*CLIENT, *(name for name in MODULES if within(name, "ctl"))]:
        foreign = [
            target
            for target in GRAPH[name]
            if target not in allowed and not within(target, "ctl") and target.split(".")[0] not in sys.stdlib_module_names
        ]
        assert foreign == [], name


def test_the_clock_is_read_in_one_place_below_the_service() -> None:
    """Time is an argument: a simulated week passes through the same code."""
    readers = []
    for name, path in MODULES.items():
        if within(name, "cryptod.daemon") or within(name, "ctl") or name in ("cryptod.clock", "cryptod.logs", *CLIENT):
            continue
        text = path.read_text()
        if "time.time(" in text or "time_ns(" in text or "datetime.now(" in text or "utcnow(" in text:
            readers.append(name)
    assert readers == []


def loaded(statement: str) -> set[str]:
    """The modules that a fresh interpreter has loaded after a statement."""
    code = f"{statement}; import sys; print(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(result.stdout.split())


def test_importing_the_daemon_loads_neither_torch_nor_ccxt_nor_pandas() -> None:
    found = loaded("import cryptod.daemon.service, cryptod.daemon.handlers, cryptod.worker.pool")
    assert found.isdisjoint({"torch", "ccxt", "pandas", "aiohttp", "rich"})


def test_importing_the_client_loads_neither_numpy_nor_asyncio() -> None:
    found = loaded("import ctl.main, cryptod.client")
    assert found.isdisjoint({"numpy", "asyncio", "msgspec", "structlog", "psutil"})
