"""What is known of one coin's hours, what is to be asked next, and what the answers mean.

Pure. An hour without a candle in an answer may have had no trades, or the answer may be faulty, or the candle late. So
it counts as an hour without trades only when two answers that covered it had no candle for it; and the newest ones
not before `LATE_MS` have passed since their close. Hours without trades are asked for again for a day: a candle that
turns up then replaces them. Hours before the first candle that the exchange has are no gaps: the coin's history
begins there.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cryptod.ingest.answer import Answer
from cryptod.market import CANDLE, NO_TRADE, NOT_FETCHED, Bool, Float64, Int64, Timeframe, UInt8

LATE_MS: Final = 600_000
"""A candle that is not there so long after its close was not late: there was no trade."""
RECHECKED: Final = 24
"""Hours without trades are asked for again while they are so many hours old."""
REREAD: Final = 2
"""Closed candles that are always read again: exchanges revise them."""


class History:
    """The hours of one coin that close by ``start + len(status)`` hours.

    ``status`` uint8 [T] is what the store has of the hours from ``start`` (open time, UTC ms) on. ``now`` is the
    exchange's time.
    """

    def __init__(self, status: UInt8, start: int, now: int, timeframe: Timeframe) -> None:
        self.start, self.now, self.timeframe = start, now, timeframe
        self.refused: dict[int, str] = {}
        self._status = status.copy()
        self._stored = status == CANDLE
        self._absent = np.zeros(len(status), np.uint8)
        self._asked = np.zeros(len(status), np.bool_)
        self._counted = np.zeros(len(status), np.bool_)
        self._times: list[Int64] = []
        self._values: list[Float64] = []
        self._cut_at = 0  # the exchange has nothing older than this row, although it was asked for

    @property
    def end(self) -> int:
        return self.start + len(self._status) * self.timeframe.ms

    def wanted(self) -> Bool:
        """bool [T]: what the first round asks for: what is missing, what may be revised, what may have been late."""
        hours = len(self._status)
        wanted: Bool = self._status == NOT_FETCHED
        recent = np.arange(hours) >= hours - RECHECKED
        wanted |= recent & (self._status == NO_TRADE)
        candles = np.flatnonzero(recent & self._stored)
        wanted[candles[-REREAD:]] = True
        return wanted

    def doubtful(self, page: int) -> Bool:
        """bool [T]: what a further round asks for: not covered by an answer, absent from one only, or refused.

        ``page`` is rows per answer.
        """
        once = (self._absent == 1) & ~self._may_be_late()
        doubtful: Bool = (self._status == NOT_FETCHED) & (once | (self._asked & (self._absent == 0)))
        first = self._first()
        doubtful[: max(0, first - page + 1)] = False  # long before the history begins; the page before it is asked for again
        doubtful[: self._cut_at] = False
        for time in self.refused:
            doubtful[(time - self.start) // self.timeframe.ms] = True
        return doubtful

    def windows(self, wanted: Bool, page: int) -> list[tuple[int, int]]:
        """(open time to ask from, number of hours) of as few requests of at most ``page`` hours as hold what is wanted."""
        self._counted[:] = False
        windows = []
        hours = np.flatnonzero(wanted)
        while len(hours):
            first = int(hours[0])
            inside = hours < first + page
            windows.append((self.start + first * self.timeframe.ms, int(hours[inside][-1]) - first + 1))
            hours = hours[~inside]
        return windows

    def answered(self, since: int, count: int) -> bool:
        """Whether earlier answers of this round, which may reach further than was asked, have covered a window."""
        first = (since - self.start) // self.timeframe.ms
        return bool(self._counted[first : first + count].all())

    def take(self, answer: Answer, since: int, count: int, limit: int, page: int) -> None:
        """Take the answer to the question for ``count`` hours from ``since`` on, of which ``limit`` rows were asked for.

        With ``page`` rows an answer is as full as the exchange's can be.
        """
        inside = (answer.open_times >= self.start) & (answer.open_times < self.end)
        times, values = answer.open_times[inside], answer.values[inside]
        hours = (times - self.start) // self.timeframe.ms
        self._status[hours] = CANDLE
        self._times.append(times)
        self._values.append(values)

        asked = (since - self.start) // self.timeframe.ms
        last = min(len(self._status) - 1, (answer.last - self.start) // self.timeframe.ms)
        covered = np.zeros(len(self._status), np.bool_)
        # With all the rows that were asked for, an answer says nothing of the hours after its last one.
        covered[asked : last + 1 if answer.rows >= limit else max(asked + count, last + 1)] = True
        self._asked[asked : asked + count] = True
        if answer.rows >= page and len(hours) and hours[0] > asked and last == len(self._status) - 1:
            # Full, and yet it ends at the newest hour and does not begin where it was asked to: such an exchange keeps
            # so many rows and no more (Kraken: 720). That says nothing of the hours before.
            covered[: hours[0]] = False
            self._cut_at = max(self._cut_at, int(hours[0]))
        seen = np.zeros_like(covered)
        seen[hours] = True
        for time, flaw in answer.refused.items():
            if self.start <= time < self.end:
                seen[(time - self.start) // self.timeframe.ms] = True
                self.refused[time] = flaw
        for time in times.tolist():
            self.refused.pop(time, None)
        absent = covered & ~seen & ~self._counted
        self._absent[absent] += 1
        self._counted |= covered

    # What it comes to

    def candles(self) -> tuple[Int64, Float64]:
        """All candles taken: open times int64 [n], sorted and unique (the latest answer counts), values float64 [n, 5]."""
        if not self._times:
            return np.empty(0, np.int64), np.empty((0, 5))
        times, values = np.concatenate(self._times), np.concatenate(self._values)
        unique, place = np.unique(times[::-1], return_index=True)
        return unique, values[::-1][place]

    def no_trade(self) -> Int64:
        """Open times of the hours that turned out to be without trades."""
        quiet = (self._status == NOT_FETCHED) & (self._absent >= 2) & ~self._may_be_late()
        quiet[: self._first()] = False
        return self.start + self.timeframe.ms * np.flatnonzero(quiet)

    def begins(self) -> int | None:
        """Open time of the exchange's first candle, if it has none from ``start`` on before that; None if that is not known."""
        first = self._first()
        if first == len(self._status):
            return None
        unknown = (self._status[:first] == NOT_FETCHED) & (self._absent[:first] == 0)
        return self.start + max(first, self._cut_at) * self.timeframe.ms if self._cut_at or not unknown.any() else None

    def late(self) -> int | None:
        """Open time of the newest hour if its candle is still to come, though the hour before has one; else None."""
        hours = len(self._status)
        if hours < 2 or self._status[-1] != NOT_FETCHED or self._status[-2] != CANDLE or not self._may_be_late()[-1]:
            return None
        return self.end - self.timeframe.ms

    def last(self) -> int | None:
        """Open time of the newest candle that is stored or was taken."""
        candles = np.flatnonzero(self._status == CANDLE)
        return self.start + int(candles[-1]) * self.timeframe.ms if len(candles) else None

    def _first(self) -> int:
        candles = np.flatnonzero(self._status == CANDLE)
        return int(candles[0]) if len(candles) else len(self._status)

    def _may_be_late(self) -> Bool:
        closes = self.start + self.timeframe.ms * (1 + np.arange(len(self._status)))
        after = np.ones(len(self._status), np.bool_)
        candles = np.flatnonzero(self._status == CANDLE)
        if len(candles):
            after[: candles[-1]] = False  # a later candle has arrived
        return after & (closes + LATE_MS > self.now)
