"""Work that is done one piece after the other, for users who take turns.

Knows who waits; nothing of the work. Who has asked for a hundred pieces waits for the hundredth while others are served in between.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cryptod.errors import RequestError


class Lane:
    """``most``: pieces that one user may have waiting; one more is refused."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._busy = False
        self._waiting: dict[int, deque[asyncio.Future[None]]] = {}
        """Users in the order of their turns -> their pieces, oldest first."""

    @asynccontextmanager
    async def turn(self, uid: int) -> AsyncIterator[None]:
        """The lane is the caller's in this block. `RequestError` (busy) where too much of this user's waits."""
        await self._enter(uid)
        try:
            yield
        finally:
            self._leave()

    def check(self, uid: int) -> None:
        """`RequestError` (busy) where one more piece of this user's would be refused."""
        if len(self._waiting.get(uid, ())) >= self._most:
            raise RequestError("busy", f"{self._most} requests of user {uid} wait for this already", hint="wait for their answers first")

    async def _enter(self, uid: int) -> None:
        if not self._busy:
            self._busy = True
            return
        self.check(uid)
        waiting = self._waiting.setdefault(uid, deque())
        mine = asyncio.get_running_loop().create_future()
        waiting.append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._leave()  # the turn had come
            raise

    def _leave(self) -> None:
        while self._waiting:
            uid = next(iter(self._waiting))
            there = deque(one for one in self._waiting.pop(uid) if not one.done())  # without those that were cancelled
            if there:
                there.popleft().set_result(None)
                if there:
                    self._waiting[uid] = there  # behind the other users
                return
        self._busy = False
