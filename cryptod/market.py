"""The vocabulary of the field: symbols, timeframes, candles, horizons, quantile levels.

Knows numpy; what a symbol is says `cryptod.symbol`. Times are UTC epoch milliseconds (``int``), returns are
natural-log returns, volumes are in base currency.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cryptod.symbol import parse_symbol as parse_symbol

Float64 = npt.NDArray[np.float64]
Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
UInt8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

QUANTILE_LEVELS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
MAX_HORIZON: Final = 24

OPEN, HIGH, LOW, CLOSE, VOLUME = range(5)
"""Columns of a candle's values."""

NOT_FETCHED, CANDLE, NO_TRADE = range(3)
"""States of an hour: never answered by the exchange; a candle; answered, and nothing was traded."""

SERVED: Final = "served"
"""Among the names of forecasters: what was served, whoever made it."""


@dataclass(frozen=True, slots=True)
class Timeframe:
    """A candle length. Boundaries are multiples of ``ms`` since the epoch (UTC), as exchanges have them."""

    name: str
    ms: int

    def floor(self, time: int) -> int:
        """The last boundary at or before ``time``: the close time of the last candle that is closed at ``time``."""
        return time - time % self.ms

    def __str__(self) -> str:
        return self.name


TIMEFRAMES: Final = {"1h": Timeframe("1h", 3_600_000)}
HOUR: Final = TIMEFRAMES["1h"]


@dataclass(frozen=True, slots=True)
class Panel:
    """Candles of several coins on one grid of hours.

    ``values``: float64 [T, N, 5] (open, high, low, close, volume), NaN where ``status`` is not CANDLE.
    ``status``: uint8 [T, N], one of NOT_FETCHED, CANDLE, NO_TRADE. Row ``i`` opens at ``start + i * timeframe.ms``.
    """

    symbols: tuple[str, ...]
    start: int
    values: Float64
    status: UInt8
    timeframe: Timeframe = HOUR

    @property
    def end(self) -> int:
        """Close time of the last row: the cutoff of a forecast made from the whole panel."""
        return self.start + len(self.values) * self.timeframe.ms

    @property
    def open_times(self) -> Int64:
        """int64 [T]."""
        return self.start + self.timeframe.ms * np.arange(len(self.values), dtype=np.int64)

    def rows(self, start: int, end: int) -> Panel:
        """The part whose candles open at or after ``start`` and close at or before ``end`` (a view)."""
        first = max(0, -(-(start - self.start) // self.timeframe.ms))
        last = max(first, (end - self.start) // self.timeframe.ms)
        return Panel(self.symbols, self.start + first * self.timeframe.ms, self.values[first:last], self.status[first:last], self.timeframe)

    def coins(self, symbols: tuple[str, ...]) -> Panel:
        """The same hours for some of the coins, in the order given."""
        index = {symbol: i for i, symbol in enumerate(self.symbols)}
        columns = [index[symbol] for symbol in symbols]
        return Panel(symbols, self.start, self.values[:, columns], self.status[:, columns], self.timeframe)
