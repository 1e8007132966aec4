"""The scorecards and reports that are handed out: made in a child, one at a time; cards are kept while no newer score is in the ledger.

Knows the pool and the ledger's newest score; nothing of how a scorecard is made or what is in it. The ledger of a window is tens of
megabytes, and reading it takes seconds: the loop starts a child, goes on answering, and hands on the bytes that come back. Those who ask
for the same meanwhile wait for the same child; it is ended when none of them waits any more. Users take turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack

from cryptod.daemon.lane import Lane
from cryptod.errors import RequestError, WorkerError
from cryptod.logs import get_logger
from cryptod.protocol import ERROR_CODES, WINDOWS
from cryptod.store.ledger import Ledger
from cryptod.worker.messages import Failed, Paged, Report, ReportOrder, Scored, ScoreOrder
from cryptod.worker.pool import Pool

DEADLINE: Final = 300.0
SILENCE: Final = 60.0
KEPT: Final = 32
"""Scorecards that are kept; one is some 100 kB for a hundred coins, and a third of that for one coin."""

WAITING: Final = 8
"""Different cards and pages that one user may wait for."""

log = get_logger("scorecards")


class Asked(NamedTuple):
    """``symbol`` is empty for all coins; ``window`` is one of `protocol.WINDOWS`; ``page``: the report, and not the scorecard."""

    symbol: str
    window: str
    page: bool = False


class _Work:
    """What is being made, and how many wait for it."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self.task, self.waiting = task, 0


class Scorecards:
    """``path``: the folder of the environment that holds ``ledger``; ``now()``: UTC ms."""

    def __init__(self, pool: Pool, ledger: Ledger, path: Path, now: Callable[[], int]) -> None:
        self._pool, self._ledger, self._path, self._now = pool, ledger, path, now
        self._lane = Lane(WAITING)
        self._under_way: dict[Asked, _Work] = {}
        self._kept: dict[Asked, tuple[tuple[int, int, int], Scored]] = {}
        """What was made last, latest last, each with the ledger's mark when it was begun."""

    async def get(self, symbol: str, window: str, uid: int = 0) -> Scored:
        """The scorecard of a coin, or of all, for a user. Raises `WorkerError` or `RequestError` if it cannot be made."""
        asked = Asked(symbol, window)
        kept = self._kept.get(asked)
        if kept is not None and kept[0] == self._ledger.scores_mark():
            return kept[1]
        found: Scored = await self._shared(asked, uid, lambda: self._make(asked, uid))
        return found

    async def page(self, window: str, candles: Path, told: Callable[[], bytes], uid: int = 0) -> bytes:
        """The live report of a window as HTML, packed. ``told()``: what the daemon says of itself when it is begun, see `ReportOrder`."""
        made: bytes = await self._shared(Asked("", window, page=True), uid, lambda: self._make_page(window, candles, told, uid))
        return made

    async def _shared(self, asked: Asked, uid: int, make: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What is made, for all who ask for it meanwhile; its making ends with the last of them who goes away."""
        work = self._under_way.get(asked)
        if work is None:
            self._lane.check(uid)  # before anything is begun for it
            work = self._under_way[asked] = _Work(asyncio.create_task(make()))
            work.task.add_done_callback(lambda task: self._end(asked, task))
        work.waiting += 1
        try:
            return await asyncio.shield(work.task)
        finally:
            work.waiting -= 1
            if not work.waiting and not work.task.done():
                self._under_way.pop(asked, None)
                work.task.cancel()

    def _end(self, asked: Asked, task: asyncio.Task[Any]) -> None:
        if (work := self._under_way.get(asked)) is not None and work.task is task:
            del self._under_way[asked]
        if not task.cancelled():
            task.exception()  # those who wait are told; that nobody waits any more is no defect

    async def _make_page(self, window: str, candles: Path, told: Callable[[], bytes], uid: int) -> bytes:
        async with self._lane.turn(uid):
            order = ReportOrder(now=self._now(), ledger=str(self._path), candles=str(candles), hours=WINDOWS[window], told=told())
            found = await self._carry_out(order)
        assert isinstance(found, Paged)
        log.info("report made", window=window, bytes=len(found.html), peak_rss=found.peak_rss, duration=round(found.seconds, 3))
        packed: bytes = msgpack.packb(found.html)
        return packed

    async def _carry_out(self, order: ScoreOrder | ReportOrder) -> Report:
        try:
            found = await self._pool.run(order, on_report=_heard, deadline_s=DEADLINE, silence_s=SILENCE)
        except WorkerError as error:
            if self._pool.stopping:
                raise RequestError("shutting_down", "the daemon is stopping", hint="ask again when it is back") from error
            raise
        if isinstance(found, Failed):
            raise RequestError(found.code if found.code in ERROR_CODES else "internal", found.error, hint=found.hint)
        return found

    async def _make(self, asked: Asked, uid: int) -> Scored:
        async with self._lane.turn(uid):
            mark = self._ledger.scores_mark()
            found = await self._carry_out(
                ScoreOrder(now=self._now(), ledger=str(self._path), hours=WINDOWS[asked.window], symbol=asked.symbol)
            )
        assert isinstance(found, Scored)
        if found.forecasts:  # that there is nothing yet is found out quickly, and soon not true any more
            self._kept.pop(asked, None)
            self._kept[asked] = (mark, found)
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        log.info(
            "scorecard made", symbol=asked.symbol or "all", window=asked.window, forecasts=found.forecasts, peak_rss=found.peak_rss,
            duration=round(found.seconds, 3),
        )  # fmt: skip
        return found


def _heard(report: Report) -> None:
    """Progress of a few seconds concerns nobody: that it came is what the pool wants to know."""
