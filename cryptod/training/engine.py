"""Where batches run: a training order in, checkpoints and verdicts out. Called in the train child.

Owns torch together with the trainer. Reads the candle store, writes checkpoints; promotes nothing: the daemon decides
on the verdict. Coins are read and scanned in groups, so that memory does not grow with their number. The market's
means, and at a full retrain the season, need all coins and come first; then each batch is laid out, fitted, trained,
judged and written by itself, and its failure costs nobody else anything.
"""

from __future__ import annotations

import os
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, NamedTuple, Protocol

import numpy as np
import torch

from cryptod.errors import CheckpointError, CryptodError, DataError, out_of_memory
from cryptod.forecast import network
from cryptod.forecast.features import WARM_HOURS, FeatureState, scan
from cryptod.forecast.model import Model
from cryptod.forecast.outages import Witnesses
from cryptod.forecast.season import FLAT, Season, SeasonSums
from cryptod.market import HOUR, MAX_HORIZON, Bool, Float32, Float64, Int64, Panel
from cryptod.store.candles import CandleStore
from cryptod.store.checkpoints import read_checkpoint, write_checkpoint
from cryptod.training import evaluation, fitting, gate, trainer, window
from cryptod.training.trainer import Trained
from cryptod.training.window import MarketSums, Recording, Window
from cryptod.worker.messages import Batch, BatchDone, BatchFailed, Finished, Progress, Report, TrainOrder

MONTH_HOURS: Final = 730
HOLDOUT_HOURS: Final = {"full": 14 * 24, "incremental": 7 * 24}
"""Unseen hours at the window's end on which training stops early and the gate judges."""
REFERENCES_HOURS: Final = 24
"""An incremental update keeps the champion's references, coefficients and tables, until they are a day old: of half a year
that a table is made from, a day is nothing, and sorting is a third of an update's time.
"""
_GROUP: Final = 128
"""Coins scanned together."""
_KEPT: Final = 128
"""Coins of which an incremental update keeps the recordings that the market's means were made from: half a megabyte each."""
_BEAT_SECONDS: Final = 0.4
_FAILURES: Final = (CryptodError, ArithmeticError, ValueError, RuntimeError)
"""What a batch of bad candles can end in; numpy's and torch's own errors are among the last three."""


class Candles(Protocol):
    """What is needed of the candle store."""

    def panel(self, symbols: Sequence[str], start: int, end: int) -> Panel: ...


class _Reader:
    """The candle store, opened for each reading: pages that stay mapped would count as this process' memory all the while."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def panel(self, symbols: Sequence[str], start: int, end: int) -> Panel:
        with CandleStore.open(self._path) as candles:
            return candles.panel(tuple(symbols), start, end)


class _OwnHistories:
    """Candles without those of coins that went under the same name before; see `window.own_history`."""

    def __init__(self, candles: Candles) -> None:
        self._candles = candles

    def panel(self, symbols: Sequence[str], start: int, end: int) -> Panel:
        return window.own_history(self._candles.panel(symbols, start, end))


def run(order: TrainOrder, report: Callable[[Report], None]) -> None:
    """Train every batch of the order and report each one's end, a beat at least once a second, and `Finished`.

    Raises `StoreError` if the candles cannot be read at all.
    """
    began = time.monotonic()
    torch.set_num_threads(order.threads or len(os.sched_getaffinity(0)))
    train(order, _Reader(Path(order.candles)), report)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    report(Finished(job=order.job, seconds=time.monotonic() - began, peak_rss=peak))


def train(order: TrainOrder, candles: Candles, report: Callable[[Report], None]) -> None:
    """`run` on any source of candles."""
    run_ = _Run(order, candles, report)
    run_.prepare()
    for batch in order.batches:
        began = time.monotonic()
        try:
            report(run_.batch(batch, began))
        except _FAILURES as error:
            if out_of_memory(error):
                raise  # not this batch's candles' fault: the child says so, and what to do
            message, hint = (error.message, error.hint) if isinstance(error, CryptodError) else (f"{type(error).__name__}: {error}", "")
            report(BatchFailed(job=order.job, batch=batch.number, error=f"batch {batch.number}: {message}", hint=hint))


@dataclass(slots=True)
class _Beat:
    """Progress, at once when the stage changes and else when the last is a while ago."""

    order: TrainOrder
    report: Callable[[Report], None]
    done: int = 0
    stage: str = ""
    last: float = field(default_factory=time.monotonic)

    def __call__(self, stage: str, text: str = "", **figures: float) -> None:
        now = time.monotonic()
        if stage != self.stage or now - self.last >= _BEAT_SECONDS:
            self.stage, self.last = stage, now
            total = sum(len(batch.symbols) for batch in self.order.batches)
            self.report(Progress(job=self.order.job, stage=stage, done=self.done, total=total, text=text, figures=figures))


class _References(NamedTuple):
    """Reference forecasters as they are kept: coefficients, tables, and the cutoff of the candles that they were made from."""

    har: Float64
    tables: Float32
    since: int


class _Run:
    """One order on its way: the season, the market's means and the surveys of all coins, once `prepare` is through."""

    def __init__(self, order: TrainOrder, candles: Candles, report: Callable[[Report], None]) -> None:
        self._order = order
        self._candles = _OwnHistories(candles)
        self._beat = _Beat(order, report)
        self._end = HOUR.floor(order.cutoff)
        self._start = self._end - order.months_back * MONTH_HOURS * HOUR.ms
        self._left_out: dict[str, str] = {}
        self._pegged: set[str] = set()
        self._gappy: set[str] = set()
        self._seasons: dict[str, Season] = {}
        self._season = FLAT
        self._market: Float32 = np.zeros((0, 0), np.float32)
        self._recordings: list[Recording] = []
        self._dark: Bool = np.zeros((self._end - self._start) // HOUR.ms, bool)

    def prepare(self) -> None:
        """Everything that needs all coins: the market's outages, surveys, the season (the champions' at an incremental update), the
        market's means.
        """
        self._dark = self._dark_hours()
        if self._order.kind == "incremental":
            self._take_seasons()
        if not self._seasons:
            self._season = self._estimate_season()
        groups: dict[bytes, list[str]] = {}
        for symbol in self._in_order():
            groups.setdefault(self._season_of(symbol).variance.tobytes(), []).append(symbol)
        sums = MarketSums((self._end - self._start) // HOUR.ms)
        for symbols in groups.values():
            for panel, pegged in self._groups(symbols, "market"):
                for part, own, known in self._scanned(panel, self._season_of(panel.symbols[0])):
                    sums.add(part, own, known & ~pegged)
        self._market = sums.means()

    def batch(self, batch: Batch, began: float) -> BatchDone:
        """Train one batch. Raises `DataError` where none of its coins can be trained."""
        label = f"batch {batch.number}"
        symbols = tuple(symbol for symbol in batch.symbols if symbol not in self._left_out)
        left_out = {symbol: self._left_out[symbol] for symbol in batch.symbols if symbol in self._left_out}
        if not symbols:
            reasons = "; ".join(f"{symbol}: {reason}" for symbol, reason in list(left_out.items())[:3])
            raise DataError(
                f"none of its {len(batch.symbols)} coins can be trained ({reasons})", hint="wait for candles, or leave the coins out"
            )
        self._beat("features", label)
        champions = self._champions(symbols)
        champion = champions[0][0] if champions else None
        incremental = self._order.kind == "incremental" and champion is not None
        season = champion.season if incremental and champion is not None else self._season
        pegged = np.array([symbol in self._pegged for symbol in symbols])
        laid = window.build(self._recording(symbols, season), pegged, self._market)
        self._beat("fit", label)
        split = laid.length - MAX_HORIZON - HOLDOUT_HOURS["incremental" if incremental else "full"]
        pool = fitting.ordinary(laid)
        before, after = laid.row < split - MAX_HORIZON, laid.row >= split
        everything = np.ones(len(laid.row), bool)
        references = self._references(champions) if incremental else None
        linear = fitting.fit_linear(laid, pool & (everything if incremental else before), references.har if references else None)
        scaler = (
            (champion.input_mean, champion.input_scale) if incremental and champion is not None else fitting.fit_scaler(laid, pool & before)
        )
        fit, inputs = fitting.linear_fit(laid, linear), fitting.standardised(laid, scaler)
        trained = self._train(laid, fit, inputs, pool & before, pool & after, champion if incremental else None, batch.number, label)
        self._beat("evaluate", label)
        chosen = everything if incremental else before
        tables = references.tables if references else None
        challenger = fitting.assemble(laid, chosen, linear, trained.weights, scaler, fit=fit, inputs=inputs, tables=tables)
        verdict = self._judge(laid, challenger, champions, np.arange(split, laid.length - MAX_HORIZON))
        if not incremental:
            linear = fitting.fit_linear(laid, pool)
            challenger = fitting.assemble(laid, everything, linear, trained.weights, scaler, inputs=inputs)
        seconds = time.monotonic() - began
        figures = verdict.figures | {
            "steps": float(trained.steps),
            "validation_before": trained.before,
            "validation_after": trained.after,
            "hours": float(len(laid.row)),
            "coins": float(len(symbols)),
        }
        self._beat("write", label)
        name = self._write(laid, challenger, verdict, figures, references.since if references else self._end, incremental, batch)
        self._beat.done += len(batch.symbols)
        self._beat("written", label)
        return BatchDone(
            job=self._order.job,
            batch=batch.number,
            checkpoint=name,
            promote=verdict.promote,
            reason=verdict.reason,
            figures=figures,
            left_out=left_out,
            seconds=seconds,
        )

    def _in_order(self) -> list[str]:
        """The universe, batch by batch, then what is in no batch."""
        batched = dict.fromkeys(symbol for batch in self._order.batches for symbol in batch.symbols)
        known = set(self._order.universe)
        return [symbol for symbol in batched if symbol in known] + [symbol for symbol in self._order.universe if symbol not in batched]

    def _scanned(self, panel: Panel, season: Season) -> Iterator[tuple[slice, Float32, Bool]]:
        """Features of some hours after the other, and where they are known. A few coins' recordings are kept for the batches."""
        kept = sum(len(recording.symbols) for recording in self._recordings)
        if self._order.kind == "incremental" and kept + len(panel.symbols) <= _KEPT:
            recording = window.record(panel, season, self._dark)
            self._recordings.append(recording)
            for part in window.pieces(len(recording.own), 128):
                yield part, recording.own[part], recording.known[part]
        else:
            for part, rows in scan(FeatureState.empty(len(panel.symbols)), panel, season, dark=self._dark):
                yield part, rows.own, (rows.live | rows.silent) & (rows.count >= WARM_HOURS)

    def _recording(self, symbols: tuple[str, ...], season: Season) -> Recording:
        """The coins' candles, scanned; what was kept of the market's pass is not scanned again."""
        for recording in self._recordings:
            columns = {symbol: column for column, symbol in enumerate(recording.symbols)}
            if columns.keys() >= set(symbols) and np.array_equal(recording.season.variance, season.variance):
                return recording.coins(np.array([columns[symbol] for symbol in symbols]))
        return window.record(self._candles.panel(symbols, self._start, self._end), season, self._dark)

    def _references(self, champions: list[tuple[Model, Int64]]) -> _References | None:
        """The champion's, where one serves all coins and its references are not a day old."""
        model, columns = champions[0]
        since = model.meta.get("references")
        if not isinstance(since, int) or not 0 <= self._end - since < REFERENCES_HOURS * HOUR.ms or (columns < 0).any():
            return None
        return _References(model.har, model.tables[:, columns], since)

    def _groups(self, symbols: Sequence[str], stage: str) -> Iterator[tuple[Panel, Bool]]:
        """Candles of the coins that can be trained, some at a time, and which of them are pegged."""
        for first in range(0, len(symbols), _GROUP):
            panel = self._candles.panel(symbols[first : first + _GROUP], self._start, self._end)
            found = window.survey(panel)
            self._left_out |= found.left_out
            self._pegged |= {symbol for symbol, flat in zip(panel.symbols, found.pegged, strict=True) if flat}
            self._gappy |= {symbol for symbol, gaps in zip(panel.symbols, found.gappy, strict=True) if gaps}
            self._beat(stage, f"{first + len(panel.symbols)} of {len(symbols)} coins read")
            kept = [column for column, symbol in enumerate(panel.symbols) if symbol not in found.left_out]
            if len(kept) == len(panel.symbols):
                yield panel, found.pegged
            elif kept:
                yield panel.coins(tuple(panel.symbols[column] for column in kept)), found.pegged[kept]

    def _dark_hours(self) -> Bool:
        """bool [T]: the hours that are unknown of all coins, since the market did not trade."""
        witnesses = Witnesses(len(self._dark))
        for first in range(0, len(self._order.universe), _GROUP):
            witnesses.scan(self._candles.panel(self._order.universe[first : first + _GROUP], self._start, self._end))
            self._beat("market", "looking for outages")
        return witnesses.dark()

    def _estimate_season(self) -> Season:
        hours = self._start + HOUR.ms * np.arange((self._end - self._start) // HOUR.ms, dtype=np.int64)
        sums = SeasonSums(hours)
        for panel, pegged in self._groups(self._order.universe, "season"):
            state = FeatureState.empty(len(panel.symbols))
            variance, slow, log_volume = (np.empty(panel.status.shape) for _ in range(3))
            live = np.empty(panel.status.shape, bool)
            for part, rows in scan(state, panel, FLAT, dark=self._dark):
                variance[part], slow[part], log_volume[part] = rows.variance, rows.slow, rows.log_volume
                live[part] = rows.live & (rows.count >= WARM_HOURS) & ~pegged
            sums.add(variance, slow, log_volume, live)
        return sums.estimate()

    def _take_seasons(self) -> None:
        """Seasons of the serving checkpoints; a coin that has none is given the season that most have."""
        for name in sorted(set(self._order.champions.values())):
            model = self._load(name)
            if model is not None:
                self._seasons |= {symbol: model.season for symbol, champion in self._order.champions.items() if champion == name}
        if self._seasons:
            usual = Counter(season.variance.tobytes() for season in self._seasons.values()).most_common(1)[0][0]
            self._season = next(season for season in self._seasons.values() if season.variance.tobytes() == usual)

    def _season_of(self, symbol: str) -> Season:
        return self._seasons.get(symbol, self._season)

    def _load(self, name: str) -> Model | None:
        """A champion, or None where it is damaged or of another version: then there is nobody to beat."""
        try:
            arrays, meta = read_checkpoint(Path(self._order.checkpoints), name)
            return Model.from_checkpoint(name, arrays, meta)
        except CheckpointError:
            return None

    def _champions(self, symbols: tuple[str, ...]) -> list[tuple[Model, Int64]]:
        """The models that serve these coins now, the one with most of them first, with its column of each coin (-1: serves another)."""
        serving = Counter(self._order.champions[symbol] for symbol in symbols if symbol in self._order.champions)
        found = []
        for name, _ in serving.most_common():
            model = self._load(name)
            if model is not None:
                served = [symbol if self._order.champions.get(symbol) == name else "" for symbol in symbols]
                found.append((model, evaluation.places(model, served)))
        return found

    def _train(
        self,
        laid: Window,
        fit: Float32,
        inputs: Float32,
        learn: Bool,
        hold: Bool,
        champion: Model | None,
        number: int,
        label: str,
    ) -> Trained:
        """From new weights, or timidly from the champion's."""
        seed = self._order.seed * 1000 + number
        rows = np.flatnonzero(learn)
        if champion is None:
            weights, plan = network.initial(seed), trainer.full_plan(len(rows), self._order.epochs, seed)
        else:
            weights, plan = champion.weights, trainer.timid_plan(self._order.epochs, seed)
        if len(rows) < trainer.BATCH:
            raise DataError(f"only {len(rows)} hours to train {len(laid.symbols)} coins on", hint="wait for more candles")

        def progress(step: int, loss: float) -> None:
            self._beat("train", f"{label}: step {step} of at most {plan.steps}, loss {loss:.4f}", step=step, steps=plan.steps, loss=loss)

        self._beat("train", label)
        return trainer.train(weights, inputs, fitting.unexplained(laid, fit), rows, np.flatnonzero(hold), plan, progress)

    def _judge(self, laid: Window, challenger: Model, champions: list[tuple[Model, Int64]], rows: Int64) -> gate.Verdict:
        """The challenger's verdict; the champions' losses are gathered coin by coin from whoever serves it."""
        found = evaluation.evaluate(challenger, laid, rows)
        serving: evaluation.Evaluation | None = None
        for model, columns in champions:
            one = evaluation.evaluate(model, laid, rows, columns, references=False)
            serving = one if serving is None else evaluation.merge(serving, one, columns >= 0)
        return gate.judge(found, serving, ~laid.pegged)

    def _write(
        self, laid: Window, model: Model, verdict: gate.Verdict, figures: dict[str, float], references: int, incremental: bool, batch: Batch
    ) -> str:
        """The checkpoint's name, once it is on disk."""
        kind = "incremental" if incremental else "full"
        name = f"{self._end}-{kind}-{batch.number:03d}-{self._order.job}"
        final = replace(
            model,
            name=name,
            kind=kind,
            cutoff=self._end,
            source=verdict.source,
            state=laid.state,
            meta={
                "window": [self._start, self._end],
                "seed": self._order.seed,
                "references": references,
                "gaps": sorted(self._gappy.intersection(laid.symbols)),
                "figures": figures,
                "verdict": verdict.reason,
            },
        )
        return write_checkpoint(Path(self._order.checkpoints), name, final.arrays(), final.document(), created=self._end).name
