"""The recent candles as clients want them: one coin's, to be drawn; and how far each coin has moved, to stand beside its forecast.

Reads the candle store in a thread that only reads, and remembers one answer: the moves up to the newest close, which change once an hour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from math import isfinite
from typing import Any, Final

import numpy as np

from cryptod.daemon.scoring import Candles, last_closes
from cryptod.market import HOUR, Float64

MAX_HOURS: Final = 31 * 24
DAY: Final = 24


class RecentCandles:
    """``candles(symbols, start, cutoff)`` reads a panel; ``reader`` is the thread in which that is done."""

    def __init__(self, candles: Candles, reader: Executor) -> None:
        self._candles, self._reader = candles, reader
        self._moves: tuple[tuple[int, frozenset[str]], dict[str, Float64]] = ((0, frozenset()), {})

    async def of(self, symbol: str, hours: int, cutoff: int) -> dict[str, Any]:
        """``{symbol, timeframe, start, open, high, low, close, volume}``: lists, a row for each hour from ``start`` (UTC ms, an open time)
        on; nil where there was no trade or the hour is not known.
        """
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._columns, symbol, cutoff - hours * HOUR.ms, cutoff)

    def _columns(self, symbol: str, start: int, cutoff: int) -> dict[str, Any]:
        panel = self._candles((symbol,), start, cutoff)
        values = panel.values[:, 0].astype(object)
        values[~np.isfinite(panel.values[:, 0])] = None
        columns = zip(("open", "high", "low", "close", "volume"), values.T.tolist())
        return {"symbol": symbol, "timeframe": "1h", "start": panel.start, **dict(columns)}

    async def moves(self, wanted: Sequence[str], symbols: Sequence[str], cutoff: int) -> dict[str, dict[str, Any]]:
        """symbol -> ``{change_1h, change_24h (shares of the price then), recent (the closes of the last day, oldest first)}`` of those of
        ``symbols``, all of which are read and remembered, that are ``wanted``.

        A figure is nil where a price is not known. Raises `StoreError` where the candles cannot be read.
        """
        asked = cutoff, frozenset(symbols)
        if self._moves[0] != asked:
            start = cutoff - (DAY + 1) * HOUR.ms
            panel = await asyncio.get_running_loop().run_in_executor(self._reader, self._candles, tuple(symbols), start, cutoff)
            self._moves = asked, dict(zip(panel.symbols, last_closes(panel).T))
        known = self._moves[1]
        return {symbol: _moved(known[symbol].tolist()) for symbol in wanted if symbol in known}


def _moved(closes: list[float]) -> dict[str, Any]:
    def change(ago: int) -> float | None:
        before = closes[-1 - ago]
        return closes[-1] / before - 1.0 if isfinite(closes[-1]) and isfinite(before) and before else None

    return {"change_1h": change(1), "change_24h": change(DAY), "recent": [close for close in closes if isfinite(close)]}
