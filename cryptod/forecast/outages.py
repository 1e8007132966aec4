"""Which hours nobody knows anything of: how steadily coins trade, and when the steady coins of a market did not.

Arrays in, arrays out; knows no price, no store and no clock. An exchange that is down, or that halts one coin, gives no
candles, and so does a calm hour of a coin that hardly trades. Two things tell them apart. A coin that trades in every hour is the
witness of its own halts. And the steady coins together are witnesses for all others: if nearly none of them traded, the hour says
nothing of anybody. Everything about an hour is decided from the hours before it and from that hour itself.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from cryptod.market import CANDLE, HIGH, LOW, NOT_FETCHED, VOLUME, Bool, Float64, Panel, UInt8

STEADY: Final = 0.01
"""A steady coin begins a gap after at most this share of its traded hours, as an EWMA of this half-life in hours:"""
_HALF_LIFE: Final = 672.0
_DECAY: Final = 1.0 - 0.5 ** (1.0 / _HALF_LIFE)
KNOWN_HOURS: Final = 168
"""A coin is called steady once so many hours were seen."""
WITNESSES: Final = 3
"""With fewer steady coins a market's outage cannot be told from the halts of a coin or two: then no hour is dark."""
_NEARLY: Final = 0.1


class Attendance(NamedTuple):
    """``steady``: bool [T, n], before each hour. ``seen``, ``gaps``: float64 [n], the recursions after the last hour."""

    steady: Bool
    seen: Float64
    gaps: Float64

    @classmethod
    def of(cls, seen: Float64, gaps: Float64, traded: Bool, next_to: Bool) -> Attendance:
        """Advance the recursions by T hours. ``traded``: bool [T, n]; ``next_to``: bool [T, n], fetched, and the hour before was traded.

        A gap counts once, whatever its length: an outage of a day makes no coin a thin one.
        """
        seen_after = seen + np.cumsum(next_to, axis=0)
        gap = next_to & ~traded
        if not gap.any() and not gaps.any():
            before = np.concatenate([seen[None], seen_after[:-1]])
            return cls(before >= KNOWN_HOURS, seen_after[-1].copy(), gaps.copy())
        gain = np.maximum(_DECAY, 1.0 / np.maximum(seen_after, 1.0)) * next_to
        steady = np.empty(traded.shape, bool)
        before, share = seen, gaps.copy()
        for t in range(len(traded)):
            steady[t] = is_steady(before, share)
            share += gain[t] * (gap[t] - share)
            before = seen_after[t]
        return cls(steady, seen_after[-1].copy(), share)


def is_steady(seen: Float64, gaps: Float64) -> Bool:
    """bool [n]: whether coins with these recursions are steady."""
    return np.asarray((seen >= KNOWN_HOURS) & (gaps <= STEADY))


def trades(values: Float64, status: UInt8) -> Bool:
    """bool [T, n]: which hours hold a trade: a candle of positive prices with volume or range. ``values`` [T, n, 5]."""
    low, high, volume = (values[:, :, column] for column in (LOW, HIGH, VOLUME))
    return np.asarray((status == CANDLE) & (low > 0) & ((volume > 0) | (high > low)))


class Witnesses:
    """Counts of the market's steady coins over T hours, group by group: how many were fetched, and how many of them traded."""

    def __init__(self, hours: int) -> None:
        self._fetched = np.zeros(hours, np.int64)
        self._traded = np.zeros(hours, np.int64)

    def add(self, values: Float64, status: UInt8, steady: Bool) -> None:
        """A group's candles and which of them count as steady, bool [n] or [T, n]."""
        self._fetched += ((status != NOT_FETCHED) & steady).sum(axis=1)
        self._traded += (trades(values, status) & steady).sum(axis=1)

    def scan(self, panel: Panel) -> Bool:
        """A group's candles from their first hour on. Returns which of its hours [T, n] were of steady coins."""
        traded = trades(panel.values, panel.status)
        next_to = panel.status != NOT_FETCHED
        next_to[:1] = False
        next_to[1:] &= traded[:-1]
        nothing = np.zeros(traded.shape[1])
        steady = Attendance.of(nothing, nothing, traded, next_to).steady
        self.add(panel.values, panel.status, steady)
        return steady

    def dark(self) -> Bool:
        """bool [T]: the hours in which at most a tenth of at least `WITNESSES` steady coins traded."""
        return np.asarray((self._fetched >= WITNESSES) & (self._traded <= _NEARLY * self._fetched))


def unknown_hours(panel: Panel) -> Bool:
    """bool [T, n]: hours without a trade that say nothing of the price, judged by this panel alone; the first week says nothing."""
    witnesses = Witnesses(len(panel.values))
    steady = witnesses.scan(panel)
    answered = panel.status != NOT_FETCHED
    return np.asarray(answered & ~trades(panel.values, panel.status) & (steady | witnesses.dark()[:, None]))
