"""A small generated market for the tests of features, models and training: panels, and a source of them in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from cryptod.market import CANDLE, HOUR, NOT_FETCHED, Float64, Panel
from cryptod.simulator.generator import GeneratedMarket

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

    def panel(self, symbols: Sequence[str], start: int, end: int) -> Panel:
        known = {symbol: column for column, symbol in enumerate(self.held.symbols)}
        hours = (end - start) // HOUR.ms
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
