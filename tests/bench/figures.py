"""What all benchmarks share: a figure with its target, the report of them, calls measured in turns, a house that is warm.

Knows nothing of what is measured. A benchmark is ``tests/bench/bench_NAME.py``, run as ``python -m tests.bench.bench_NAME`` (or
`make bench-NAME`); it ends with `report`, whose last line is one JSON object: name -> {value, unit, target, better, met, peer, ratio}.
"""

from __future__ import annotations

import compileall
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tests.integration.house import START, Daemon, SimulatedExchange, short_folder

ROOT = Path(__file__).parent.parent.parent
WARM_UP = 200
ROUND = 200
"""Calls of one kind before it is the next one's turn."""


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    ``target``: what it has to reach, None where there is nothing to reach. ``peer``: the same figure of what it is compared with, taken
    in the same run, and ``ratio`` = value / peer; where there is a ratio, the target is the ratio's.
    """

    name: str
    value: float
    unit: str
    target: float | None
    better: Literal["lower", "higher"]
    peer: float | None = None
    ratio: float | None = None

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        judged = self.value if self.ratio is None else self.ratio
        return judged <= self.target if self.better == "lower" else judged >= self.target

    def described(self) -> dict[str, Any]:
        found: dict[str, Any] = {"value": _short(self.value), "unit": self.unit, "target": self.target, "better": self.better}
        found["met"] = self.met
        if self.peer is not None and self.ratio is not None:
            found |= {"peer": _short(self.peer), "ratio": round(self.ratio, 3)}
        return found


def beside(name: str, value: float, unit: str, target: float | None, better: Literal["lower", "higher"], peer: float) -> Figure:
    """A figure that is judged by its ratio to the peer's."""
    return Figure(name, value, unit, target, better, peer, value / peer)


def report(figures: Iterable[Figure]) -> None:
    """Print the table and, as the last line, the JSON object; keep both it and the machine in the file that ``BENCH_FILE`` names."""
    figures = list(figures)
    wide = max(len(figure.name) for figure in figures)
    print(f"\n{machine()}\n")
    print(f"{'':<{wide}}  {'measured':>16}  {'peer':>10}  {'ratio':>7}  {'target':>9}")
    for figure in figures:
        peer = "" if figure.peer is None else f"{_short(figure.peer):,}"
        ratio = "" if figure.ratio is None else f"{figure.ratio:.3f}"
        target = "" if figure.target is None else f"{'<=' if figure.better == 'lower' else '>='} {figure.target:g}"
        verdict = {None: "", True: "met", False: "NOT MET"}[figure.met]
        measured = f"{_short(figure.value):,} {figure.unit}"
        print(f"{figure.name:<{wide}}  {measured:>16}  {peer:>10}  {ratio:>7}  {target:>9}  {verdict}".rstrip())
    found = {figure.name: figure.described() for figure in figures}
    if file := os.environ.get("BENCH_FILE"):
        Path(file).write_text(json.dumps({"machine": machine(), "figures": found}, indent=1) + "\n")
    print(json.dumps(found), flush=True)


def machine() -> str:
    """The machine in one line: processor, cores, load, Python."""
    model = platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), model)
    except OSError:
        pass
    return f"{model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Linux {platform.release()}, Python {platform.python_version()}"


def percentile(values: Iterable[float], share: float) -> float:
    """The value that this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def take_turns(calls: Mapping[str, Callable[[], object]], seconds: float, round_: int = ROUND) -> dict[str, list[float]]:
    """Microseconds of each call of each kind, in rounds, so that a busy moment of the machine meets all of them alike."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        for _ in range(WARM_UP):
            call()
    clock = time.perf_counter
    end = clock() + seconds * len(calls)
    while clock() < end:
        for name, call in calls.items():
            row = found[name]
            for _ in range(round_):
                begin = clock()
                call()
                row.append((clock() - begin) * 1e6)
    return found


def ratio_of(found: Mapping[str, list[float]], one: str, other: str, round_: int = ROUND) -> float:
    """How one kind of call compares with another that took turns with it: the median over the rounds of the ratio of their medians."""
    medians = [[statistics.median(row[at : at + round_]) for at in range(0, len(row), round_)] for row in (found[one], found[other])]
    return float(statistics.median(a / b for a, b in zip(*medians)))


@contextmanager
def house(
    coins: int = 100, *, speed: float = 1.0, trained: bool = True, after: Daemon | None = None, ahead: int = 0,
    within: tuple[str, ...] = (), **settings: Any,
) -> Iterator[Daemon]:  # fmt: skip
    """`cryptod run` against `cryptod simulate`, each a process; with ``trained`` all coins have a model and a forecast.

    The state directory and the settings are the `Daemon`'s own, so it can be stopped and started again inside (``daemon.stop()``,
    ``daemon.start().ready()``). ``after`` such a daemon, which must be stopped, another one goes on from its state and its time, at
    another ``speed`` of the clock and ``ahead`` by so many milliseconds.
    ``within``: the command that starts the daemon's. ``settings`` are environment variables: ``CRYPTOD_TRAIN_EPOCHS=5``.
    """
    for package in ("cryptod", "ctl"):
        compileall.compile_dir(ROOT / package, quiet=1)  # as pip does with what it installs: a start is not to pay for it
    given = {"CRYPTOD_UNIVERSE_SIZE": coins, "CRYPTOD_TRAIN_BATCH_SIZE": 25, "CRYPTOD_TRAIN_MONTHS_BACK": 6} | settings
    market = SimulatedExchange("--coins", str(coins), "--seed", "7", speed=speed, start=ahead + (after.exchange.now() if after else START))
    with short_folder() as folder, market, Daemon(folder, market, state=after.state if after else None, within=within, **given) as daemon:
        if trained:
            daemon.wait_for(
                lambda client: client.status()["training"]["last_full"] and client.cache_stats()["entries"] >= coins,
                f"{coins} coins trained and published", seconds=600,
            )  # fmt: skip
        yield daemon


def _short(value: float) -> float:
    """Four figures are enough."""
    return float(f"{value:.4g}") if abs(value) < 1000 else round(value)
