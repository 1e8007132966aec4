"""Rows of candles, examined: which of them may be believed, and what is wrong with the others.

Pure. Knows rows and hours, no exchange and no file: exchanges' answers and candle files are examined by the same rules.
A row is believed when its open time lies on the grid and its hour is closed, its prices are finite and positive, the
low is lowest and the high is highest, and no other row contradicts it. A row without prices and with volume 0 says that
its hour had no trades.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from cryptod.market import CLOSE, HIGH, LOW, OPEN, VOLUME, Bool, Float64, Int64, Timeframe

_FLAWS: Final = ("not a number", "a price that is not above 0", "a high or low inside the candle", "a negative volume")
OFF_GRID: Final = "a candle off the grid"

_PLAUSIBLE: Final = (1_230_768_000_000, 4_102_444_800_000)
"""2009 to 2100: what the open time of a coin's candle can be, UTC ms."""
_UNITS: Final = (("seconds", 1000.0), ("microseconds", 1e-3), ("nanoseconds", 1e-6))


@dataclass(frozen=True, slots=True)
class Answer:
    """``open_times`` int64 [n], sorted, unique; ``values`` float64 [n, 5]; ``refused``: hour (UTC ms) -> what is wrong with it.

    ``quiet`` int64 [m] are the hours that rows without prices say had no trades. ``rows`` is how many rows came, believed or
    not; ``first`` and ``last`` are the hours (open times) of the oldest and the newest of them, up to the one that is still open
    (-1 if there is none).
    """

    open_times: Int64
    values: Float64
    refused: dict[int, str]
    rows: int
    last: int
    first: int
    quiet: Int64
    unit: str
    """What the open times look like if they cannot be UTC milliseconds, see `misread`."""


def examine(rows: Sequence[Sequence[Any]] | Float64, closed: int, timeframe: Timeframe) -> Answer:
    """Examine rows (open time, open, high, low, close, volume). ``closed``: only candles that close by then (UTC ms) count."""
    table = _table(rows)
    whole = np.isfinite(table[:, 0]) & (np.abs(table[:, 0]) < 2.0**53)
    refused: dict[int, str] = {}
    times = table[whole, 0].astype(np.int64)
    values = table[whole, 1:]
    hours = times - times % timeframe.ms
    hours = hours[hours <= closed]
    first, last = (int(hours.min()), int(hours.max())) if len(hours) else (-1, -1)

    past = times - times % timeframe.ms + timeframe.ms <= closed  # the others are still open, or to come: no flaw of theirs matters yet
    times, values = times[past], values[past]
    aligned = times % timeframe.ms == 0
    # A row off the grid is not its hour's candle. Its hour is unknown, unless a row on the grid is there as well.
    lost = set((times[~aligned] - times[~aligned] % timeframe.ms).tolist()) - set(times[aligned].tolist())
    refused.update(dict.fromkeys(sorted(lost), OFF_GRID))
    times, values = times[aligned], values[aligned]

    prices = values[:, : CLOSE + 1]
    empty = (values[:, VOLUME] == 0) & (np.isnan(prices) | (prices == 0)).all(axis=1)
    quiet = np.unique(times[empty])
    times, values = times[~empty], values[~empty]

    flawed = _flawed(values)
    bad = flawed.any(axis=1)
    for time, flaws in zip(times[bad].tolist(), flawed[bad]):
        refused[time] = _FLAWS[int(np.argmax(flaws))]
    times, values = times[~bad], values[~bad]

    order = np.argsort(times, kind="stable")
    times, values = times[order], values[order]
    again = np.flatnonzero(times[1:] == times[:-1]) + 1
    for place in again.tolist():
        if (values[place] != values[place - 1]).any():
            refused[int(times[place])] = "two candles that contradict each other"
    for time in np.intersect1d(quiet, times).tolist():
        refused[time] = "two candles that contradict each other"
    keep = ~np.isin(times, list(refused))
    keep[again] = False
    quiet = quiet[~np.isin(quiet, list(refused))]
    return Answer(times[keep], values[keep], refused, len(rows), last, first, quiet, misread(table[whole, 0]))


def misread(times: Float64) -> str:
    """What the times look like if they cannot be UTC milliseconds (``microseconds``, ...), else nothing.

    Times that are implausible in every unit give ``nothing that is known``.
    """
    times = times[np.isfinite(times)]
    if not len(times) or _plausible(times):
        return ""
    return next((unit for unit, factor in _UNITS if _plausible(times * factor)), "nothing that is known")


def named(refused: dict[int, str]) -> str:
    """A sentence about refused candles: how many, and the newest of them."""
    time = max(refused)
    hour = datetime.fromtimestamp(time / 1000, UTC)
    count = "a candle was" if len(refused) == 1 else f"{len(refused)} candles were"
    return f"{count} refused: {refused[time]} ({hour:%Y-%m-%d %H:%M})"


def _plausible(times: Float64) -> bool:
    return bool(_PLAUSIBLE[0] <= times.min() and times.max() < _PLAUSIBLE[1])


def _table(rows: Sequence[Sequence[Any]] | Float64) -> Float64:
    """float64 [n, 6]; NaN for whatever is no number."""
    try:
        return np.array(rows, np.float64).reshape(len(rows), 6)
    except (TypeError, ValueError):
        return np.array([[_number(row, column) for column in range(6)] for row in rows], np.float64).reshape(len(rows), 6)


def _number(row: Any, column: int) -> float:
    cell = row[column] if isinstance(row, list | tuple) and column < len(row) else None
    return float(cell) if isinstance(cell, int | float) and abs(cell) < 1e300 else np.nan


def _flawed(values: Float64) -> Bool:
    """bool [n, 4]: which of `_FLAWS` each row has. Comparisons with NaN are false, so the first flaw stands alone then."""
    body = values[:, [OPEN, CLOSE]]
    return np.column_stack(
        (
            ~np.isfinite(values).all(axis=1),
            (values[:, : CLOSE + 1] <= 0).any(axis=1),
            (values[:, LOW] > body.min(axis=1)) | (values[:, HIGH] < body.max(axis=1)),
            values[:, VOLUME] < 0,
        )
    )
