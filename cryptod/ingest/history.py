"""What is known of one coin's hours, what is to be asked next, and what the answers mean.

Pure. An hour without a candle in an answer may have had no trades, or the answer may be cut short, faulty or early. So
an answer is evidence of an hour without trades only where it provably covered that hour (`_evidence`):

* between its first and its last row;
* after its last row, as far as its window reaches, when it could have held more rows and has fewer;
* before its first row, when it was asked for no more rows than the exchange is known to give.

Two such answers make an hour without trades, if one of them had a candle before it; of the newest hours not before
`LATE_MS` have passed since their close. An answer without any row is weak evidence, for it may be an error in disguise:
it takes `EMPTY` of them, inside a hole of which better answers showed both ends. Everything else stays unknown.

Hours without trades are asked for again for a day: a candle that turns up then replaces them. Hours before the first
candle that the exchange has are no gaps: the coin's history begins there.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cryptod.examination import Answer
from cryptod.ingest.paging import DAY_MS, Paging
from cryptod.market import CANDLE, NO_TRADE, NOT_FETCHED, Bool, Float64, Int64, Timeframe, UInt8

LATE_MS: Final = 600_000
"""A candle that is not there so long after its close was not late: there was no trade."""
RECHECKED: Final = 24
"""Hours without trades are asked for again while they are so many hours old."""
REREAD: Final = 2
"""Closed candles that are always read again: exchanges revise them."""
SPARE: Final = 3
"""Rows asked for beyond the hours that are wanted: one may be still open, or be given twice."""
AMPLE: Final = 100
"""Rows asked for at least in a round of doubts: an answer that loses a row by mistake seldom loses the same one again then."""
TRIES: Final = 4
"""How often one run asks for an hour that answers leave unknown."""
EMPTY: Final = 3
"""Answers without any row that count as much as two that show candles beside an hour."""


class History:
    """The hours of one coin that close by ``start + len(status)`` hours.

    ``status`` uint8 [T] is what the store has of the hours from ``start`` (open time, UTC ms) on. ``now`` is the
    exchange's time. ``paging`` is shared by all coins of the exchange, and learns. Hours before ``patient`` that are
    unknown are not asked for in this run.
    """

    def __init__(self, status: UInt8, start: int, now: int, timeframe: Timeframe, paging: Paging, patient: int = 0) -> None:
        self.start, self.now, self.timeframe = start, now, timeframe
        self.refused: dict[int, str] = {}
        hours = len(status)
        self._paging, self._patient = paging, patient
        self._status = status.copy()
        self._stored = status == CANDLE
        self._shown = np.zeros(hours, np.bool_)  # by an answer of this run
        self._said = np.zeros(hours, np.bool_)  # to be without trades, by a row of its own
        self._absent = np.zeros(hours, np.uint8)  # from so many answers that covered the hour
        self._empty = np.zeros(hours, np.uint8)  # so many answers without any row
        self._missed = np.zeros(hours, np.uint8)  # so many answers began after this hour, and should not have
        self._asked = np.zeros(hours, np.bool_)  # or reached by an answer
        self._tries = np.zeros(hours, np.uint8)  # rounds that wanted the hour
        self._counted = np.zeros(hours, np.bool_)  # reached by an answer of this round
        self._weighed = np.zeros(hours, np.bool_)  # absent from an answer of this round
        self._refusals = 0
        self._second = False  # whether a round of doubts is on
        self._times: list[Int64] = []
        self._values: list[Float64] = []
        self._cut_at = 0  # the exchange has nothing older than this row, although it was asked for

    @property
    def end(self) -> int:
        return self.start + len(self._status) * self.timeframe.ms

    # What to ask

    def wanted(self) -> Bool:
        """bool [T]: what the first round asks for: what is missing, what may be revised, what may have been late."""
        hours = len(self._status)
        wanted: Bool = self._status == NOT_FETCHED
        wanted[: max(0, (self._patient - self.start) // self.timeframe.ms)] = False
        recent = np.arange(hours) >= hours - RECHECKED
        wanted |= recent & (self._status == NO_TRADE)
        candles = np.flatnonzero(recent & self._stored)
        wanted[candles[-REREAD:]] = True
        wanted[: self._too_old()] = False
        return wanted

    def doubtful(self) -> Bool:
        """bool [T]: what a further round asks for: hours that the answers so far leave unknown, or whose row was refused."""
        hours, first = len(self._status), self._first()
        unknown = (self._status == NOT_FETCHED) & self._asked & (self._tries < TRIES)
        total = self._absent + self._empty
        doubtful: Bool = unknown & ~self._said & ~self._quiet() & ((total == 0) | ~self._may_be_late())
        if first == hours:  # of which the exchange has nothing: its newest hours alone are asked for, to see whether that is so
            newest = (self.end - self.timeframe.ms) // DAY_MS * DAY_MS
            doubtful &= (self._tries < 2) & (np.arange(hours) >= (newest - self.start) // self.timeframe.ms)
        else:
            near = self._near(first)
            doubtful[near:first] = unknown[near:first] & ((self._absent[near:first] == 0) | (total[near:first] < 2))
            doubtful[:near] = unknown[:near] & (total[:near] == 0)
        doubtful[: max(self._cut_at, self._too_old())] = False
        for time in self.refused:
            doubtful[(time - self.start) // self.timeframe.ms] = True
        return doubtful

    def windows(self, wanted: Bool) -> list[tuple[int, int]]:
        """(open time to ask from, number of hours) of as few questions as hold what is wanted.

        A round of doubts asks for no more than the exchange surely gives, and from the last candle before the hours in
        doubt, or up to the next one: an answer that shows a candle beside them is no mistake.
        """
        candles = np.flatnonzero(self._status == CANDLE)
        self._second = bool(self._tries.any()) and len(candles) > 0
        self._counted[:] = self._weighed[:] = False
        self._tries[wanted] += 1
        most = self._paging.sure if self._second else self._paging.asked
        windows = []
        hours = np.flatnonzero(wanted)
        while len(hours):
            begin = int(hours[0])
            if self._second:
                begin = self._beside(begin, most, candles)
            inside = hours < begin + most
            if self._second and begin < candles[-1]:  # the hours after the last candle are asked for from there
                inside &= hours < max(hours[0] + 1, candles[-1])
            end = int(hours[inside][-1]) + 1
            after = candles[candles >= end]
            if self._second and len(after) and after[0] < begin + most:
                end = int(after[0]) + 1
            windows.append((self.start + begin * self.timeframe.ms, end - begin))
            hours = hours[~inside]
        return windows

    def limit(self, since: int, count: int) -> int:
        """How many rows to ask for.

        Far from the end, a full answer shows whether the exchange gave what was asked for or only its newest. Near it, a
        few rows more than needed will do.
        """
        if self._second:
            return min(self._paging.sure, max(count + SPARE, 0 if self.refused else AMPLE))
        most = self._paging.asked
        return min(most, count + SPARE) if since + most * self.timeframe.ms >= self.end else most

    def answered(self, since: int, count: int) -> bool:
        """Whether earlier answers of this round, which may reach further than was asked, have reached a window."""
        first = (since - self.start) // self.timeframe.ms
        return bool(self._counted[first : first + count].all())

    # What the answers say

    def take(self, answer: Answer, since: int, count: int, limit: int) -> int:
        """Take the answer to the question for ``count`` hours from ``since`` on, of which ``limit`` rows were asked for.

        Returns the open time from which to go on: the hours before it were answered for this round.
        """
        step, hours = self.timeframe.ms, len(self._status)
        self._paging.saw(answer.open_times, answer.last >= self.end, self.timeframe)
        inside = (answer.open_times >= self.start) & (answer.open_times < self.end)
        times, values = answer.open_times[inside], answer.values[inside]
        candles = (times - self.start) // step
        asked = max(0, (since - self.start) // step)
        reached = self._evidence(answer, asked, candles, limit)
        self._asked[asked : max(asked + count, reached)] = True
        self._status[candles] = CANDLE
        self._shown[candles] = True
        self._times.append(times)
        self._values.append(values)
        self._said[self._hours(answer.quiet)] = True
        for time, flaw in answer.refused.items():
            hour = (time - self.start) // step
            if 0 <= hour < hours and (self._status[hour] != CANDLE or self._tries[hour]):
                self.refused[time] = flaw
        for time in [*times.tolist(), *answer.quiet.tolist()]:
            self.refused.pop(time, None)
        if answer.rows:
            self._paging.answered(hours - asked)
        return self.start + reached * step

    def too_old(self, since: int, count: int) -> int | None:
        """The exchange refused the question. Where to go on (open time) if that can be because the hours are too old; else None."""
        step, hours, paging = self.timeframe.ms, len(self._status), self._paging
        asked, end = (since - self.start) // step, (since - self.start) // step + count
        known = hours - max(1, paging.accepted)
        if asked >= known or (paging.refused and not paging.accepted and not self._refusals):
            return None  # it has answered older questions, or refuses whatever is asked
        self._tries[asked] = TRIES
        self._refusals += 1
        paging.too_old(hours - asked)
        if paging.accepted:
            return min(self.start + end * step, self.oldest() or self.start + known * step)
        self._asked[asked:end] = True  # to come back to, once it is known what is answered
        return self.start + (end if end < hours else (asked + 1 + known) // 2) * step

    def oldest(self) -> int | None:
        """Open time half way between the hours that are refused as too old and those that are not; None if there are none between."""
        begin, known = self._too_old(), len(self._status) - self._paging.accepted
        return self.start + (begin + known) // 2 * self.timeframe.ms if begin < known else None

    def _evidence(self, answer: Answer, asked: int, candles: Int64, limit: int) -> int:
        """Count what the answer says of hours without a row. Returns the hour that it reached."""
        hours, step, paging = len(self._status), self.timeframe.ms, self._paging
        window = min(hours, asked + paging.reach(self.start + asked * step, limit, self.timeframe))
        if answer.first < 0:
            self._empty[asked:window] += ~self._counted[asked:window]
            reached = window if paging.hours else asked + limit
        else:
            first, last = (answer.first - self.start) // step, (answer.last - self.start) // step
            asked = max(0, min(asked, first))
            reached = min(hours, last + 1)
            absent = np.zeros(hours, np.bool_)
            absent[max(0, first) : reached] = True
            if answer.rows < min(limit, paging.sure):
                absent[reached:window] = True
                reached = max(reached, window)
            before = slice(asked, min(first, hours))
            if answer.rows >= limit >= paging.rows and last >= hours - 1 and first > asked:
                # Full, and yet it ends at the newest hour and does not begin where it was asked to: such an exchange keeps
                # so many rows and no more (Kraken: 720). That says nothing of the hours before.
                if limit >= min(AMPLE, paging.asked):
                    self._cut_at = max(self._cut_at, min(first, hours))
            elif (self._status[before] == CANDLE).any():  # there were candles: it did not begin where it was asked to
                self._missed[before] += self._status[before] == CANDLE
                if (self._missed[before] > 1).any():
                    self._cut_at = max(self._cut_at, min(first, hours))
            elif limit <= paging.sure:
                absent[before] = True
            absent[candles] = False
            absent[self._hours(answer.quiet)] = False
            absent[self._hours(np.array(list(answer.refused), np.int64))] = False
            self._absent[absent & ~self._weighed] += 1
            self._weighed |= absent
        self._counted[asked:reached] = True
        return max(reached, asked + 1)

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
        return self.start + self.timeframe.ms * np.flatnonzero(self._quiet())

    def unknown(self) -> int:
        """How many hours from the first candle on are still unknown, but for those that may be late."""
        unknown = (self._status == NOT_FETCHED) & ~self._quiet() & ~self._may_be_late()
        return int(unknown[max(self._cut_at, self._first()) :].sum())

    def begins(self) -> int | None:
        """Open time of the exchange's first candle, if it has none from ``start`` on before that; None if that is not known."""
        first = self._first()
        if first == len(self._status):
            return None
        begin = min(first, max(self._cut_at, self._too_old()))
        near = max(begin, self._near(first))
        total = self._absent + self._empty
        known = (total[begin:first] > 0).all() and (self._absent[near:first] > 0).all() and (total[near:first] > 1).all()
        return self.start + max(first, self._cut_at) * self.timeframe.ms if known else None

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

    # Within

    def _quiet(self) -> Bool:
        """bool [T]: hours that were unknown and turned out to be without trades."""
        quiet = np.zeros(len(self._status), np.bool_)
        shown = np.flatnonzero(self._shown)
        if len(shown):  # older hours than an answer of this run showed may be older than what the exchange keeps
            quiet[shown[0] :] = self._absent[shown[0] :] > 1
            enough = (self._absent + self._empty >= 2) & ((self._absent > 0) | (self._empty >= EMPTY))
            for place in np.flatnonzero(np.diff(shown) > 1):
                hole = slice(shown[place] + 1, shown[place + 1])
                ends = (self._absent[hole.start] or self._new_day(hole.start)) and (self._absent[hole.stop - 1] or self._new_day(hole.stop))
                if ends and self._absent[hole].any() and enough[hole].all():
                    quiet[hole] = True
        quiet |= self._said
        quiet[self._hours(np.array(list(self.refused), np.int64))] = False
        quiet &= (self._status == NOT_FETCHED) & ~self._may_be_late()
        return quiet

    def _first(self) -> int:
        candles = np.flatnonzero(self._status == CANDLE)
        return int(candles[0]) if len(candles) else len(self._status)

    def _near(self, first: int) -> int:
        """The hour from which one sure answer reaches the candle ``first``."""
        near = first - self._paging.sure + 1
        if not self._paging.overnight:
            time = self.start + first * self.timeframe.ms
            near = max(near, (time - time % DAY_MS - self.start) // self.timeframe.ms)
        return max(0, near)

    def _new_day(self, hour: int) -> bool:
        """Whether an answer may end before this hour because a day ends there."""
        return not self._paging.overnight and (self.start + hour * self.timeframe.ms) % DAY_MS == 0

    def _beside(self, hour: int, most: int, candles: Int64) -> int:
        """The hour to begin a question for ``hour`` with, so that the answer shows a candle beside it, if one is near."""
        before, after = candles[candles < hour], candles[candles > hour]
        if len(before) and hour - before[-1] < most:
            return int(before[-1])
        if len(after) and after[0] - hour < most:
            return min(hour, max(self._near(int(after[0])), self._too_old()))
        return hour

    def _too_old(self) -> int:
        """The first hour that is not known to be refused as too old."""
        paging = self._paging
        return max(0, len(self._status) - paging.refused + 1) if paging.refused and paging.accepted else 0

    def _hours(self, times: Int64) -> Int64:
        """Indices of those of the open times that lie inside."""
        return (times[(times >= self.start) & (times < self.end)] - self.start) // self.timeframe.ms

    def _may_be_late(self) -> Bool:
        closes = self.start + self.timeframe.ms * (1 + np.arange(len(self._status)))
        after = np.ones(len(self._status), np.bool_)
        candles = np.flatnonzero(self._status == CANDLE)
        if len(candles):
            after[: candles[-1]] = False  # a later candle has arrived
        return after & (closes + LATE_MS > self.now)
