"""A small generated market for the tests of features, models and training: panels, and a source of them in memory."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from cryptod.forecast.model import Model
from cryptod.market import CANDLE, HOUR, NOT_FETCHED, Float64, Panel
from cryptod.simulator.generator import GeneratedMarket
from cryptod.store.checkpoints import read_checkpoint
from cryptod.training import engine
from cryptod.worker.messages import Batch, BatchDone, BatchFailed, Report, TrainOrder

CUTOFF = 1_672_574_400_000
"""2023-01-01 12:00 UTC."""


@lru_cache(maxsize=4)
def _generated(coins: int, hours: int, ahead: int) -> Panel:
    market = GeneratedMarket(coins, companions=False)
    return market.panel(market.coins, CUTOFF - hours * HOUR.ms, CUTOFF + ahead * HOUR.ms)


def panel(coins: int = 6, hours: int = 1500, ahead: int = 0) -> Panel:
    """``coins`` coins over the ``hours`` before `CUTOFF` and ``ahead`` after it; the caller's own copy."""
    found = _generated(coins, hours, ahead)
    return Panel(found.symbols, found.start, found.values.copy(), found.status.copy())


class Source:
    """Candles in memory, as the engine reads them. ``change(panel)`` may alter what is handed out."""

    def __init__(self, held: Panel, change: Callable[[Panel], None] = lambda panel: None) -> None:
        self.held = held
        change(held)

    def panel(self, symbols: Sequence[str], start: int, cutoff: int) -> Panel:
        known = {symbol: column for column, symbol in enumerate(self.held.symbols)}
        hours = (cutoff - start) // HOUR.ms
        values, status = np.full((hours, len(symbols), 5), np.nan), np.full((hours, len(symbols)), NOT_FETCHED, np.uint8)
        first = (start - self.held.start) // HOUR.ms
        begin, stop = max(first, 0), min(first + hours, len(self.held.values))
        for column, symbol in enumerate(symbols):
            if symbol in known and stop > begin:
                values[begin - first : stop - first, column] = self.held.values[begin:stop, known[symbol]]
                status[begin - first : stop - first, column] = self.held.status[begin:stop, known[symbol]]
        return Panel(tuple(symbols), start, values, status)


def candle(price: float, move: float = 0.01, volume: float = 10.0) -> Float64:
    """One candle, float64 [5], that opens at ``price`` and closes ``move`` above it in logs."""
    close = price * np.exp(move)
    return np.array([price, max(price, close) * 1.002, min(price, close) * 0.998, close, volume])


def candles(rows: Sequence[Float64], start: int = CUTOFF) -> Panel:
    """A panel of one coin."""
    values = np.array(rows)[:, None, :]
    return Panel(("A/USDT",), start, values, np.full(values.shape[:2], CANDLE, np.uint8))


@dataclass
class Trained:
    """What came of a training order: the folder, every report, and the models by batch."""

    root: Path
    reports: list[Report]

    @property
    def done(self) -> list[BatchDone]:
        return [report for report in self.reports if isinstance(report, BatchDone)]

    @property
    def failed(self) -> list[BatchFailed]:
        return [report for report in self.reports if isinstance(report, BatchFailed)]

    @property
    def models(self) -> list[Model]:
        return [Model.from_checkpoint(done.checkpoint, *read_checkpoint(self.root, done.checkpoint)) for done in self.done]


def train(
    source: Source, root: Path, batches: Sequence[Sequence[str]], *, kind: str = "full", cutoff: int = CUTOFF,
    champions: dict[str, str] | None = None,
    months: int = 3, epochs: int = 4, seed: int = 1,
) -> Trained:  # fmt: skip
    """Carry out a training order on candles in memory. Few epochs: these tests ask whether it works, not how well."""
    order = TrainOrder(
        job=seed, kind=kind, cutoff=cutoff, candles="", checkpoints=str(root),
        batches=tuple(Batch(number=i, symbols=tuple(symbols)) for i, symbols in enumerate(batches, start=1)),
        universe=tuple(symbol for symbols in batches for symbol in symbols),
        champions=champions or {}, timeframe="1h", months_back=months, epochs=epochs, threads=1, seed=seed,
    )  # fmt: skip
    found = Trained(root, [])
    engine.train(order, source, found.reports.append)
    return found


COINS = 8
HOURS = 3 * engine.MONTH_HOURS
AHEAD = 48


@lru_cache(maxsize=1)
def world() -> tuple[Source, Trained]:
    """A market of eight coins and its first models, two batches of four, trained once for all tests."""
    source = Source(panel(COINS, HOURS, AHEAD))
    symbols = source.held.symbols
    folder = tempfile.TemporaryDirectory(prefix="cryptod-test-")
    atexit.register(folder.cleanup)
    return source, train(source, Path(folder.name), (symbols[:4], symbols[4:]))
