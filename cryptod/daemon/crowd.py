"""What the connections of the control socket share, so that none of them harms the others.

Knows who is connected and what they cost; nothing of messages. Places are limited, for all and for one user; requests that
pile up are served in turns of half a millisecond for all together; unsent bytes are bounded for all together; and what clients
do wrong is logged once in a while, not once each time.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeVar

from cryptod.daemon.listening import Peer
from cryptod.logs import get_logger
from cryptod.protocol import MAX_REPLY

TURN_S: Final = 0.0005
"""Seconds of one turn for all the connections that have more than one request waiting."""
SLICE_S: Final = 0.00025
"""Seconds of one such connection's part in it."""
MAX_UNSENT: Final = MAX_REPLY
"""Unsent bytes of all connections together; above it the one that has most is closed."""
COMPLAIN_S: Final = 10.0

log = get_logger("control")


class Member(Protocol):
    """A connection, as far as the others are concerned."""

    peer: Peer

    @property
    def unsent(self) -> int:
        """Bytes that its client has not taken yet."""
        ...

    def serve(self, until: float) -> bool:
        """Answer waiting requests until that time (monotonic); whether it wants another turn."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


M = TypeVar("M", bound=Member)


class Crowd(Generic[M]):
    """The connections. ``allowed`` peers have all the places, one user of the others half of them at most."""

    def __init__(self, places: int, allowed: Callable[[Peer], bool], counts: Counter[str]) -> None:
        self.members: set[M] = set()
        self._places = places
        self._allowed = allowed
        self._counts = counts
        self._by_user: Counter[int] = Counter()
        self._waiting: deque[M] = deque()
        self._choked: set[M] = set()
        self._complaints: dict[str, tuple[float, int]] = {}

    @property
    def waiting(self) -> bool:
        """Whether requests wait for a turn."""
        return bool(self._waiting)

    def admit(self, member: M) -> str:
        """Why there is no room for it, or nothing."""
        uid = member.peer.uid
        if len(self.members) >= self._places:
            return f"{len(self.members)} clients are connected already"
        if self._by_user[uid] >= self._places // 2 and not self._allowed(member.peer):
            return f"{self._by_user[uid]} clients of user {uid} are connected already"
        self.members.add(member)
        self._by_user[uid] += 1
        return ""

    def leave(self, member: M) -> None:
        """It is closed, whether it was admitted or not."""
        self._choked.discard(member)
        if member in self.members:
            self.members.discard(member)
            self._by_user[member.peer.uid] -= 1
            self._by_user += Counter()  # drops the users that have none left

    def queue(self, member: M) -> None:
        """Serve this connection's waiting requests, in turn with those of the others."""
        self._waiting.append(member)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        end = monotonic() + TURN_S
        while self._waiting and (now := monotonic()) < end:
            more = self._waiting[0].serve(now + SLICE_S)
            member = self._waiting.popleft()
            if more:
                self._waiting.append(member)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._turn)

    def choked(self, member: M) -> None:
        """Its client does not read as fast as it is sent to; if that costs too much memory, the worst one goes."""
        self._choked.add(member)
        total = sum(one.unsent for one in self._choked)
        while total > MAX_UNSENT and self._choked:
            worst = max(self._choked, key=lambda one: one.unsent)
            total -= worst.unsent
            self._choked.discard(worst)
            self._counts["dropped_clients"] += 1
            self.complain("a client that does not read was dropped", worst.peer)
            worst.abort()

    def freed(self, member: M) -> None:
        """Its client reads again."""
        self._choked.discard(member)

    def complain(self, what: str, peer: Peer, **fields: Any) -> None:
        """One line about what a client did, at most every ten seconds for each kind of thing."""
        now = monotonic()
        last, kept_back = self._complaints.get(what, (-COMPLAIN_S, 0))
        if now - last < COMPLAIN_S:
            self._complaints[what] = last, kept_back + 1
            return
        self._complaints[what] = now, 0
        if kept_back:
            fields["more_like_it"] = kept_back
        log.warning(what, uid=peer.uid, pid=peer.pid, **fields)
