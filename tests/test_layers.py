"""The floors and the laws of imports, read from the source: imports go down only, and heavy things stay where they belong."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

FLOORS: tuple[tuple[str, ...], ...] = (
    # A module belongs to the longest name that fits; it may import its own part and the floors below.
    ("cryptod.__main__",),
    ("cryptod.backtest",),
    ("cryptod.daemon",),
    ("cryptod.worker",),
    ("cryptod.livepage",),
    ("cryptod.training", "cryptod.report", "cryptod.scorecard"),
    ("cryptod.forecast", "cryptod.ingest"),
    ("cryptod.store", "cryptod.config", "cryptod.simulator"),
    ("cryptod.settings", "cryptod.worker.messages", "cryptod.logs", "cryptod.examination"),
    ("cryptod.market", "cryptod.clock", "cryptod.protocol"),
    ("cryptod.symbol", "cryptod.places", "cryptod.streams"),
    ("cryptod.errors", "cryptod"),
)
CLIENT_FLOORS: tuple[tuple[str, ...], ...] = (
    ("ctl",),
    ("cryptod.client", "cryptod.asyncclient"),
    ("cryptod.calls",),
    ("cryptod.replies", "cryptod.tables", "cryptod.protocol"),
    ("cryptod.symbol", "cryptod.places", "cryptod.streams"),
    ("cryptod.errors", "cryptod"),
)


class Law(NamedTuple):
    """Only modules whose names begin with one of ``homes`` may import ``package``."""

    package: str
    homes: tuple[str, ...]
    reason: str


LAWS = (
    Law("ccxt", ("cryptod.ingest.exchange",), "its exceptions are translated, and its oddities known, in one file"),
    Law("lmdb", ("cryptod.store",), "transactions, map growth and full disks are dealt with in one place"),
    Law("torch", ("cryptod.training",), "it costs 190 MB: only the training child pays them, and gives them back"),
    Law("safetensors", ("cryptod.store",), "weights are read where their checksums are verified"),
    Law("sdnotify", ("cryptod.__main__",), "the service is handed a notifier; tests hand it a fake"),
    Law(
        "aiohttp",
        ("cryptod.simulator", "cryptod.ingest.exchange", "cryptod.ingest.transport"),
        "the daemon opens no port; under ccxt, its errors are known where ccxt's are",
    ),
    Law("schedule", ("cryptod.daemon.service",), "one place dispatches periodic work"),
    Law("rich", ("ctl",), "drawing is the client's business"),
    Law("PIL", ("ctl",), "as rich"),
    Law("multiprocessing", ("cryptod.worker",), "there is one process wall"),
    Law("pickle", (), "loading one runs what it says"),
    Law("marshal", (), "as pickle"),
    Law("shelve", (), "as pickle"),
    Law("dill", (), "as pickle"),
    Law("joblib", (), "as pickle"),
    Law("cryptod.config", ("cryptod.__main__", "cryptod.daemon"), "every class takes the plain values that it needs"),
    Law(
        "cryptod.worker.pool",
        ("cryptod.daemon", "cryptod.backtest"),
        "only the daemon starts children, and the backtest, which stands in for it",
    ),
    Law("cryptod.simulator", ("cryptod.__main__", "cryptod.backtest.history"), "the product must not lean on its own test rig"),
)

LAZY = {"PIL", "pandas", "prometheus_client", "pyarrow", "rich"}
WATCH = {"ctl.board", "ctl.watch"}
"""What the verb `watch` imports when it runs, and no other."""
CLIENT_MAY = {"msgpack", *LAZY, *sys.stdlib_module_names}
"""All that `cryptoctl` and `cryptod.client` import from elsewhere; those of LAZY by the verb alone that needs them."""


class Import(NamedTuple):
    module: str
    """Who imports."""
    target: str
    """What: ``cryptod.market`` for ``from cryptod.market import HOUR``, ``cryptod.store.jobs`` for ``from cryptod.store import jobs``."""
    runs: bool
    """False under TYPE_CHECKING."""
    lazy: bool
    """Within a function."""
    line: int


def modules() -> dict[str, Path]:
    found = {}
    for package in ("cryptod", "ctl"):
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def _imports(module: str, path: Path) -> Iterator[Import]:
    def walk(node: ast.AST, runs: bool, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(module, alias.name, runs, lazy, child.lineno)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}:{child.lineno}: relative imports hide the floor"
                source = child.module or ""
                for alias in child.names:
                    inner = f"{source}.{alias.name}"
                    yield Import(module, inner if inner in MODULES else source, runs, lazy, child.lineno)
            else:
                checking = isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
                inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, runs and not checking, lazy or inside)

    yield from walk(ast.parse(path.read_text()), True, False)


IMPORTS = [found for name, path in MODULES.items() for found in _imports(name, path)]


def within(name: str, part: str) -> bool:
    return name == part or name.startswith(part + ".")


def floor(module: str, floors: tuple[tuple[str, ...], ...]) -> tuple[int, str] | None:
    """(Number of the floor from the top, the part that the module belongs to), or None if it stands on none."""
    fits = [(len(part), number, part) for number, parts in enumerate(floors) for part in parts if within(module, part)]
    if not fits:
        return None
    _, number, part = max(fits)
    return None if part == "cryptod" and module != part else (number, part)


def test_every_module_stands_on_a_floor() -> None:
    assert [name for name in MODULES if floor(name, FLOORS) is None and floor(name, CLIENT_FLOORS) is None] == []


@pytest.mark.parametrize("floors", [FLOORS, CLIENT_FLOORS], ids=["daemon", "client"])
def test_imports_go_down_only(floors: tuple[tuple[str, ...], ...]) -> None:
    wrong = []
    for found in IMPORTS:
        here, there = floor(found.module, floors), floor(found.target, floors)
        if here is None or not (within(found.target, "cryptod") or within(found.target, "ctl")):
            continue
        # Neighbours on one floor may name each other's types, and nothing more.
        if there is None or (there[1] != here[1] and (there[0] < here[0] or (there[0] == here[0] and found.runs))):
            wrong.append(f"{found.module}:{found.line} imports {found.target}")
    assert wrong == []


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.package)
def test_a_package_is_imported_only_where_it_belongs(law: Law) -> None:
    wrong = [
        f"{found.module}:{found.line}"
        for found in IMPORTS
        if within(found.target, law.package) and not any(within(found.module, home) for home in (*law.homes, law.package))
    ]
    assert wrong == [], f"only {law.homes or 'nobody'} may import {law.package}: {law.reason}"


def test_the_clock_is_read_where_time_comes_from_only() -> None:
    allowed = {"cryptod.clock", "cryptod.daemon.service"}
    """The service compares the machine's clock with its monotonic one, to notice that somebody stepped it."""
    wrong = []
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow"):
                wrong += [f"{name}:{node.lineno}"] if name not in allowed and not within(name, "ctl") else []
    assert wrong == []


def test_there_is_no_import_circle() -> None:
    graph: dict[str, set[str]] = {name: set() for name in MODULES}
    for found in IMPORTS:
        if found.runs and found.target in MODULES and found.target != found.module:
            graph[found.module].add(found.target)
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_the_client_needs_the_standard_library_and_msgpack_only() -> None:
    wanted = {name for name in MODULES if floor(name, CLIENT_FLOORS)}
    wrong = []
    for found in IMPORTS:
        if found.module in wanted and not found.target.startswith(("cryptod", "ctl")):
            package = found.target.split(".")[0]
            if package not in CLIENT_MAY or (package in LAZY and found.runs and not found.lazy and found.module not in WATCH):
                wrong.append(f"{found.module}:{found.line} imports {found.target}")
    assert wrong == []


def loaded_by(statement: str) -> set[str]:
    """The top-level packages in a fresh interpreter after a statement."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    ("statement", "never"),
    [
        ("import cryptod.daemon.service", {"torch", "ccxt", "pandas", "aiohttp", "rich"}),
        ("import cryptod.worker.pool", {"torch", "ccxt", "pandas", "numpy", "lmdb"}),
        ("import cryptod.worker.child", {"torch", "ccxt", "pandas"}),
        ("import cryptod.ingest.collector", {"torch", "pandas"}),
        ("import cryptod.scorecard", {"torch", "ccxt", "pandas", "aiohttp"}),
        ("import cryptod.__main__", {"torch", "ccxt", "pandas", "numpy", "lmdb", "aiohttp"}),
        ("import cryptod", {"numpy", "msgspec", "msgpack"}),
        ("import cryptod.client", {"numpy", "msgspec", "torch", "lmdb", "rich", "structlog"}),
        ("import ctl.main", {"numpy", "msgspec", "torch", "lmdb", "rich", "structlog", "prometheus_client", "http"}),
    ],
)
def test_importing_loads_nothing_that_is_not_needed(statement: str, never: set[str]) -> None:
    assert loaded_by(statement) & never == set()
