"""An exchange's answer about a coin's candles, examined: what may be believed of it, and what not and why.

Pure. Knows rows and hours, no exchange. A row is believed when its open time lies on the grid and its hour is closed,
its prices are finite and positive, the low is lowest and the high is highest, and no other row contradicts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from cryptod.market import CLOSE, HIGH, LOW, OPEN, VOLUME, Bool, Float64, Int64, Timeframe

_FLAWS: Final = ("not a number", "a price that is not above 0", "a high or low inside the candle", "a negative volume")


@dataclass(frozen=True, slots=True)
class Answer:
    """``open_times`` int64 [n], sorted, unique; ``values`` float64 [n, 5]; ``refused``: hour (UTC ms) -> what is wrong with it.

    ``rows`` is how many rows came, believed or not; ``last`` the open time of the newest of them that lies on the grid,
    closed or not (-1 if there is none).
    """

    open_times: Int64
    values: Float64
    refused: dict[int, str]
    rows: int
    last: int


def examine(rows: Sequence[Sequence[Any]], closed: int, timeframe: Timeframe) -> Answer:
    """Examine rows (open time, open, high, low, close, volume). ``closed``: only candles that close by then (UTC ms) count."""
    table = _table(rows)
    whole = np.isfinite(table[:, 0]) & (np.abs(table[:, 0]) < 2.0**53)
    refused: dict[int, str] = {}
    times = table[whole, 0].astype(np.int64)
    values = table[whole, 1:]
    last = int(times.max(initial=-1, where=times % timeframe.ms == 0))

    past = times + timeframe.ms <= closed  # the others are still open, or to come: no flaw of theirs matters yet
    times, values = times[past], values[past]
    aligned = times % timeframe.ms == 0
    for time in times[~aligned].tolist():
        refused[timeframe.floor(time)] = "a candle off the grid"
    times, values = times[aligned], values[aligned]

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
    keep = ~np.isin(times, list(refused))
    keep[again] = False
    return Answer(times[keep], values[keep], refused, len(rows), last)


def named(refused: dict[int, str]) -> str:
    """A sentence about refused candles: how many, and the newest of them."""
    time = max(refused)
    hour = datetime.fromtimestamp(time / 1000, UTC)
    count = "a candle was" if len(refused) == 1 else f"{len(refused)} candles were"
    return f"{count} refused: {refused[time]} ({hour:%Y-%m-%d %H:%M})"


def _table(rows: Sequence[Sequence[Any]]) -> Float64:
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
