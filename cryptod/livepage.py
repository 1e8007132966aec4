"""The live report: an order in, one HTML page out, of what is forecast now and how what was forecast has held. Called in the report child.

Reads the ledger and the candles, writes nothing, and holds one hour's forecasts at a time besides the figures of the page. What counts is
what counts on the scorecard: of a coin's forecasts of one hour the first, and of that the horizons that ended after it was issued.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np

from cryptod.forecast.scores import INTERVALS, SCORED_HORIZONS, covered, pit
from cryptod.market import CLOSE, HOUR, MAX_HORIZON, QUANTILE_LEVELS, Float32, Float64
from cryptod.report import live
from cryptod.report.live import Coin, Fan, LiveResults
from cryptod.report.results import BacktestResults
from cryptod.store.candles import CandleStore
from cryptod.store.environment import open_environment
from cryptod.store.ledger import DATABASES, Issue, Ledger, Score
from cryptod.worker.messages import Paged, Progress, Report, ReportOrder

SHOWN_HOURS: Final = 96
"""Of candles before a coin's forecast."""
FANS: Final = 4
"""Of a coin: what is said now, and what was said a day, two and three before."""
_DAY: Final = 24 * HOUR.ms
_COLUMNS: Final = np.array(SCORED_HORIZONS) - 1
_END_OF_HORIZONS: Final = HOUR.ms * np.arange(1, MAX_HORIZON + 1)


def run(order: ReportOrder, report: Callable[[Report], None]) -> None:
    """Carry out the order: a beat for each day that was read, then `Paged`. Raises `StoreError` if a store cannot be read."""
    began = time.monotonic()
    told = msgpack.unpackb(order.told, strict_map_key=False)
    page = live.render(LiveResults(order.now, told["status"], _coins(order, told["followed"]), _past(order, told["jobs"], report)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report(Paged(job=order.job, html=page, seconds=time.monotonic() - began, peak_rss=peak))


def _past(order: ReportOrder, jobs: list[dict[str, Any]], report: Callable[[Report], None]) -> BacktestResults:
    """What was issued in the window, scored, as the page of a backtest wants it."""
    last = HOUR.floor(order.now) - MAX_HORIZON * HOUR.ms
    first = last - (order.hours - 1) * HOUR.ms
    cube: _Cube | None = None
    for day in range(first, last + 1, _DAY):
        # Opened for each day anew: pages of the map that were read would count as this process' memory all the while.
        with open_environment(Path(order.ledger), databases=DATABASES, writer=False) as environment:
            for issue, score in Ledger(environment).scored(day, min(day + _DAY, last + 1)):
                if cube is None:
                    cube = _Cube(issue.cutoff, (last - issue.cutoff) // HOUR.ms + 1)
                cube.add(issue, score)
        report(Progress(job=order.job, stage="report", done=(day - first) // _DAY + 1, total=-(-order.hours // 24)))
    return (cube or _Cube(first, 0)).results(_trainings(jobs))


class _Cube:
    """Scores of T hours from ``first`` on; coins are added as they come."""

    def __init__(self, first: int, hours: int) -> None:
        self._first, self._hours = first, hours
        self._symbols: dict[str, int] = {}
        self._values: dict[str, Float32] = {}
        """Name -> float32 [T, N, H]."""
        self._closes = np.empty((hours, 0))
        self._seen: set[tuple[int, str]] = set()

    def add(self, issue: Issue, score: Score) -> None:
        """Take in an issue; they come in the order in which they were made."""
        row = (issue.cutoff - self._first) // HOUR.ms
        fresh = [i for i, symbol in enumerate(issue.symbols) if (row, symbol) not in self._seen]
        self._seen.update((row, issue.symbols[i]) for i in fresh)
        columns = [self._symbols.setdefault(issue.symbols[i], len(self._symbols)) for i in fresh]
        known = np.isfinite(score.outcome) & (issue.cutoff + _END_OF_HORIZONS > issue.issued)
        outcomes = np.where(known, score.outcome, np.nan).astype(np.float64)[:, _COLUMNS]
        quantiles = issue.quantiles[:, _COLUMNS]
        found = {f"loss {name}": 2.0 * loss[:, _COLUMNS] for name, loss in zip(score.forecasters, score.loss)}
        found |= {f"hit {percent}": covered(quantiles, outcomes, percent) for percent in INTERVALS}
        found |= {f"width {percent}": quantiles[..., high] - quantiles[..., low] for percent, (low, high) in INTERVALS.items()}
        found["pit"] = pit(quantiles, np.nan_to_num(outcomes))
        for name, values in found.items():
            self._room(name)[row, columns] = np.where(np.isfinite(outcomes), values, np.nan)[fresh]
        if (lack := len(self._symbols) - self._closes.shape[1]) > 0:
            self._closes = np.concatenate([self._closes, np.full((self._hours, lack), np.nan)], axis=1)
        self._closes[row, columns] = issue.close[fresh]

    def _room(self, name: str) -> Float32:
        """What is kept under a name, with room for all coins that are known by now."""
        kept = self._values.get(name)
        lack = len(self._symbols) - (0 if kept is None else kept.shape[1])
        if kept is None or lack > 0:
            more = np.full((self._hours, lack, len(SCORED_HORIZONS)), np.nan, np.float32)
            kept = self._values[name] = more if kept is None else np.concatenate([kept, more], axis=1)
        return kept

    def _all(self, prefix: str) -> dict[str, Float32]:
        """Name -> float32 [T, N, H]."""
        return {name.removeprefix(prefix): self._room(name) for name in self._values if name.startswith(prefix)}

    def results(self, trainings: list[dict[str, Any]]) -> BacktestResults:
        cube = (self._hours, len(self._symbols), len(SCORED_HORIZONS))
        losses = self._all("loss ") or {"served": np.full(cube, np.nan, np.float32)}
        return BacktestResults(
            symbols=tuple(self._symbols),
            cutoffs=self._first + HOUR.ms * np.arange(self._hours, dtype=np.int64),
            horizons=SCORED_HORIZONS,
            forecasters=losses,
            hits={int(percent): hit for percent, hit in self._all("hit ").items()},
            pit=self._all("pit").get("", np.full(cube, np.nan, np.float32)),
            closes=self._closes,
            examples={},
            start=self._first,
            end=self._first + self._hours * HOUR.ms,
            block_hours=(28 if self._hours >= 56 * 24 else 10) * 24,
            trainings=trainings,
            widths={int(percent): width for percent, width in self._all("width ").items()},
        )


def _trainings(jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each batch whose verdict is known."""
    return [
        {
            "time": job["ended"] or job["started"], "kind": job["kind"], "batch": batch["number"], "promoted": batch["promoted"],
            "reason": batch["reason"], "figures": batch["figures"],
        }
        for job in jobs for batch in job["batches"] if batch["state"] != "waiting"
    ]  # fmt: skip


def _coins(order: ReportOrder, followed: list[str]) -> list[Coin]:
    """The latest forecast of each followed coin, those of the days before, and the prices meanwhile."""
    with open_environment(Path(order.ledger), databases=DATABASES, writer=False) as environment:
        latest: dict[str, tuple[Issue, int]] = {}
        earlier: dict[tuple[str, int], tuple[Issue, int]] = {}
        for issue in Ledger(environment).read(order.now - SHOWN_HOURS * HOUR.ms - _DAY, order.now + 1):
            for i, symbol in enumerate(issue.symbols):
                latest[symbol] = issue, i
                earlier.setdefault((symbol, issue.cutoff), (issue, i))
    known = [symbol for symbol in followed if symbol in latest]
    if not known:
        return []
    end = max(issue.cutoff for issue, _ in latest.values())
    with CandleStore.open(Path(order.candles)) as candles:
        panel = candles.panel(known, end - SHOWN_HOURS * HOUR.ms, end)
    made = []
    for column, symbol in enumerate(known):
        issue, row = latest[symbol]
        back = [earlier.get((symbol, issue.cutoff - days * _DAY)) for days in range(FANS - 1, 0, -1)]
        fans = [_fan(*each) for each in (*back, (issue, row)) if each is not None]
        flags = issue.flags[row] if issue.flags else ()
        score = float(issue.score[row]) if issue.score is not None else float("nan")
        made.append(
            Coin(
                symbol=symbol, times=panel.open_times + HOUR.ms, closes=panel.values[:, column, CLOSE], fans=fans,
                p_up=float(issue.p_up[row, -1]), volatility=float(issue.volatility[row, -1]), score=score, flags=flags,
            )
        )  # fmt: skip
    return made


def _fan(issue: Issue, row: int) -> Fan:
    quantiles = issue.quantiles[row][_COLUMNS].astype(np.float64)
    return Fan(issue.cutoff, np.concatenate([[0.0], SCORED_HORIZONS]), float(issue.close[row]), _from_zero(quantiles))


def _from_zero(quantiles: Float64) -> Float64:
    return np.concatenate([np.zeros((1, len(QUANTILE_LEVELS))), quantiles])
