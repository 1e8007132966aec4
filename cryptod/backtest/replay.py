"""A period lived through: at each hour what the daemon would do, in its order, with its code.

Candles that have closed are absorbed; outcomes that have matured are learned from; forecasts are issued; then, where it is time or drift
has raised an alarm, models are trained in children and promoted by their verdicts, and serve from the next hour on. What is issued at a
cutoff therefore hangs on candles closed by then and on nothing later: of that a test makes sure to the last bit.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from cryptod.backtest.history import History
from cryptod.daemon.job import plan_batches
from cryptod.daemon.scoring import known_closes
from cryptod.errors import CheckpointError, DataError
from cryptod.forecast.drift import Alarm, Drift
from cryptod.forecast.learning import Learning, Spoken, mature
from cryptod.forecast.model import Model
from cryptod.forecast.predictor import Forecasts, Predictor, combined
from cryptod.market import HOUR, MAX_HORIZON
from cryptod.store.checkpoints import CheckpointStore
from cryptod.store.ledger import round_issue
from cryptod.training.window import MIN_DAYS
from cryptod.worker.messages import Batch, BatchDone, BatchFailed, Failed, Report, TrainOrder
from cryptod.worker.pool import Pool

LINGER: Final = 3600.0
"""Seconds a child waits for the next order: here the next one is never far."""
PRUNE_EVERY: Final = 24
"""Trainings between two removals of checkpoints that serve no more."""


@dataclass(frozen=True, slots=True)
class Cadence:
    """The daemon's settings that matter here. ``full_every`` and ``incremental_every`` in hours, 0 for never (the first full retrain is
    made in any case, and without incremental updates none answers an alarm either); ``lanes``: training children at a time, each with some
    of the batches.
    """

    full_every: int = 168
    incremental_every: int = 6
    months_back: int = 6
    batch_size: int = 25
    epochs: int = 50
    incremental_epochs: int = 5
    threads: int = 1
    lanes: int = 2


@dataclass(frozen=True, slots=True)
class Training:
    """One batch's end: ``time`` (UTC ms), ``kind``, ``batch``, whether it was ``promoted`` and why, its figures."""

    time: int
    kind: str
    batch: int
    promoted: bool
    reason: str
    figures: dict[str, float] = field(default_factory=dict)


class Replay:
    """Lives through cutoffs ``start`` to ``end`` (UTC ms, on the hour, the end left out). ``issued(forecasts)`` is given every issue.

    Raises `DataError` where the period does not lie within the candles or begins before any coin can be trained.
    """

    def __init__(self, history: History, start: int, end: int, cadence: Cadence, issued: Callable[[Forecasts], None]) -> None:
        first = history.start + MIN_DAYS * 24 * HOUR.ms
        if not first <= start < end <= history.end:
            raise DataError(
                f"the period has to lie between {_day(first)} and {_day(history.end)}, and be at least an hour long",
                hint=f"the candles begin at {_day(history.start)}, and training needs {MIN_DAYS} days of them",
            )
        self.history, self.start, self.end, self.cadence = history, start, end, cadence
        self._issued = issued
        self.trainings: list[Training] = []
        self.refused: Counter[str] = Counter()
        """Why coins were given no forecast -> for how many hours of coins."""
        self.learning = Learning()
        self.alarms: list[Alarm] = []
        """What the drift watch raised."""
        self._drift = Drift()
        self.seconds_training = 0.0
        self._predictor = Predictor(())
        self._serving: dict[str, str] = {}
        self._followed: tuple[str, ...] = ()
        self._left_out: dict[str, str] = {}
        self._spoken: dict[int, Spoken] = {}
        self._jobs = 0

    async def run(self, turn: Callable[[int], None] = lambda cutoff: None) -> None:
        """From the first cutoff to the last; ``turn(cutoff)`` is called after each."""
        clock = asyncio.get_running_loop().time
        with tempfile.TemporaryDirectory(prefix="cryptod-backtest-") as folder:
            root = Path(folder)
            self.history.write(root / "candles")
            store = CheckpointStore(root / "checkpoints")
            pools = [Pool(nice=0, linger={"train": LINGER}, directory=folder) for _ in range(self.cadence.lanes)]
            try:
                await self._train("full", self.start, root, store, pools)
                for cutoff in range(self.start, self.end, HOUR.ms):
                    self._hour(cutoff)
                    kind = self._due(cutoff)
                    if kind:
                        began = clock()
                        await self._train(kind, cutoff, root, store, pools)
                        self.seconds_training += clock() - began
                    turn(cutoff)
            finally:
                await asyncio.gather(*(pool.stop() for pool in pools))

    def _due(self, cutoff: int) -> str:
        hours = (cutoff - self.start) // HOUR.ms
        if hours == 0:
            return ""
        if self.cadence.full_every and hours % self.cadence.full_every == 0:
            return "full"
        every, alarmed = self.cadence.incremental_every, bool(self.alarms) and self.alarms[-1].at == cutoff
        return "incremental" if every and (alarmed or hours % every == 0) else ""

    def _hour(self, cutoff: int) -> None:
        """What the daemon does once a candle has closed."""
        predictor = self._predictor
        behind = [symbol for symbol in predictor.symbols if predictor.needs(symbol) < cutoff]
        if behind:
            predictor.advance(self.history.panel(behind, min(predictor.needs(symbol) for symbol in behind), cutoff))
        if self._spoken:
            close = known_closes(self.history.panel, self.history.symbols, cutoff - (MAX_HORIZON + 1) * HOUR.ms, cutoff)[-1]
            ago = [self._spoken.get(cutoff - h * HOUR.ms) for h in range(1, MAX_HORIZON + 1)]
            matured = mature(self.history.symbols, close, [[one] if one else [] for one in ago])
            self.learning.learn(matured)
            if (alarm := self._drift.update(cutoff, matured.issued, matured.outcomes)) is not None:
                self.alarms.append(alarm)
        known = tuple(symbol for symbol in self._followed if symbol in predictor and predictor.needs(symbol) == cutoff)
        for symbol in self._followed:
            if symbol not in predictor:
                self.refused[self._left_out.get(symbol, "no model yet").split(":")[0]] += 1
        if known:
            made = predictor.forecast(known, cutoff)
            quantiles = round_issue(made.quantiles)
            said = {name: round_issue(values) for name, values in made.said.items()}
            self._spoken[cutoff] = Spoken(known, made.close, quantiles, said, combined(made.flags))
            self._spoken.pop(cutoff - MAX_HORIZON * HOUR.ms, None)
            self._issued(made)

    async def _train(self, kind: str, cutoff: int, root: Path, store: CheckpointStore, pools: list[Pool]) -> None:
        """Train in the children, then promote what their verdicts promote. A batch that failed leaves what serves."""
        cadence = self.cadence
        if kind == "full":
            self._followed = self.history.followed(cutoff)
            batches = [Batch(number=b.number, symbols=tuple(b.symbols)) for b in plan_batches(self._followed, cadence.batch_size)]
        else:
            serving: dict[str, list[str]] = {}
            for symbol in self._followed:
                if symbol in self._serving:
                    serving.setdefault(self._serving[symbol], []).append(symbol)
            batches = [Batch(number=i, symbols=tuple(symbols)) for i, symbols in enumerate(serving.values(), start=1)]
        lanes = [tuple(batches[lane :: len(pools)]) for lane in range(len(pools))]
        reports = await asyncio.gather(
            *(self._lane(pool, kind, cutoff, lane, root) for pool, lane in zip(pools, lanes, strict=True) if lane)
        )
        done = sorted((report for lane in reports for report in lane), key=lambda report: report.batch)
        for report in done:
            if isinstance(report, BatchDone):
                self.trainings.append(Training(cutoff, kind, report.batch, report.promote, report.reason, report.figures))
            else:
                self.trainings.append(Training(cutoff, kind, report.batch, False, report.error))
        trained = [report for report in done if isinstance(report, BatchDone)]
        if kind == "full":
            self._left_out = {symbol: why for report in trained for symbol, why in report.left_out.items()}
        names = [report.checkpoint for report in trained if report.promote]
        if not names and not self._serving:
            raise CheckpointError(f"nothing could be trained at {_day(cutoff)}: {self.trainings[-1].reason}", hint="see the candles")
        if names:
            current = store.promote(names, cutoff, run=f"{kind} {self._jobs}", followed=self._followed)
            models = [Model.from_checkpoint(one.name, one.arrays, one.meta) for one in current.checkpoints]
            self._serving = {symbol: model.name for model in models for symbol in model.symbols if symbol in set(self._followed)}
            self._predictor = Predictor(models, self.learning)
        if self._jobs % PRUNE_EVERY == 0:
            store.prune(min_age=0.0)

    async def _lane(self, pool: Pool, kind: str, cutoff: int, batches: tuple[Batch, ...], root: Path) -> list[BatchDone | BatchFailed]:
        self._jobs += 1
        cadence = self.cadence
        order = TrainOrder(
            job=self._jobs, kind=kind, cutoff=cutoff, candles=str(root / "candles"), checkpoints=str(root / "checkpoints"),
            batches=batches, universe=self._followed, champions=self._serving, timeframe=HOUR.name, months_back=cadence.months_back,
            epochs=cadence.epochs if kind == "full" else cadence.incremental_epochs, threads=cadence.threads,
            seed=(cutoff - self.start) // HOUR.ms,
        )  # fmt: skip
        found: list[BatchDone | BatchFailed] = []

        def on_report(report: Report) -> None:
            if isinstance(report, BatchDone | BatchFailed):
                found.append(report)

        final = await pool.run(order, on_report=on_report, deadline_s=3600.0, silence_s=600.0)
        if isinstance(final, Failed):
            raise DataError(f"training at {_day(cutoff)} failed: {final.error}", hint=final.hint)
        return found

    def summary(self) -> dict[str, Any]:
        """Counts for the end's report."""
        promoted = Counter((training.kind, training.promoted) for training in self.trainings)
        return {
            "batches": {kind: {"promoted": promoted[kind, True], "refused": promoted[kind, False]} for kind in ("full", "incremental")},
            "drift": [f"{_day(alarm.at)}: {alarm.text}" for alarm in self.alarms],
            "refused": dict(self.refused),
            "seconds_training": round(self.seconds_training, 1),
        }


def _day(time: int) -> str:
    return str(np.datetime64(time, "ms").astype("datetime64[m]")).replace("T", " ")
