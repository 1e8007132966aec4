"""What the connections of the control socket share, so that none of them harms the others.

Knows who is connected and what they cost; nothing of messages. Costs are counted for each user, because one user can have a thousand
connections: places, bytes of requests that wait, requests at work, unsent bytes. Time is shared out as well: all that is more than
one small request is done in slices of a quarter of a millisecond, and the users take turns. What clients do wrong is logged once in
a while, not once each time.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeVar

from cryptod.daemon.listening import Peer
from cryptod.logs import get_logger
from cryptod.protocol import MAX_PENDING, MAX_REQUEST

TURN_S: Final = 0.0005
"""Seconds of one turn of the loop for all that waits for a slice."""
SLICE_S: Final = 0.00025
"""Seconds of one slice."""
RESERVED: Final = 16
"""Places that are kept for those who may change things."""
USER_TASKS: Final = 2 * MAX_PENDING
"""Requests of one user that are at work; further ones wait."""
ALL_TASKS: Final = 8 * MAX_PENDING
"""The same of all users. Those who may change things, and users who have none at work, are not held to it."""
USER_WORK: Final = MAX_REQUEST + MAX_REQUEST // 2
"""Bytes of one user's requests at work; taken apart, they and their answers are fifty times as large."""
ALL_WORK: Final = 4 * MAX_REQUEST
USER_KEPT: Final = 16 * MAX_REQUEST
"""Bytes of one user's requests that were read and wait; above it nothing new is read from this user."""
ALL_KEPT: Final = 128 * MAX_REQUEST
USER_UNSENT: Final = 8 << 20
"""Bytes of answers that one user's clients have not read; above it the one that has most is closed. One answer may be larger."""
MAX_UNSENT: Final = 16 << 20
"""The same of all users."""
STALLED_S: Final = 2.0
"""A client that has not read its answers for so long, while others wait for its requests to end, is closed."""
LET_IN: Final = 8
"""Connections that are read again in one turn of the loop."""
COMPLAIN_S: Final = 10.0

log = get_logger("control")


class Member(Protocol):
    """A connection, as far as the others are concerned."""

    peer: Peer
    asked: bool | None

    @property
    def unsent(self) -> int:
        """Bytes that its client has not taken yet."""
        ...

    @property
    def kept(self) -> int:
        """Bytes of requests that were read and are not served yet."""
        ...

    @property
    def idle(self) -> bool:
        """Whether it waits for nothing."""
        ...

    def serve(self, until: float) -> bool:
        """Answer waiting requests until that time (monotonic); whether it wants another turn."""
        ...

    def let_in(self) -> None:
        """Read from it again."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


M = TypeVar("M", bound=Member)


class User(Generic[M]):
    """What one user has and costs."""

    __slots__ = ("held", "kept", "listed", "members", "next_at", "owing", "stalled", "tasks", "turns", "uid", "waiting", "work")

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self.members: dict[M, None] = {}
        """Oldest first."""
        self.waiting: deque[M] = deque()
        """Connections with requests to be served."""
        self.turns: deque[asyncio.Future[None]] = deque()
        """Requests at work that wait for their next slice."""
        self.listed = False
        """Whether this user is in the round."""
        self.held: deque[M] = deque()
        """Connections that are not read from, because too much waits already."""
        self.stalled: dict[M, float] = {}
        """Connections whose requests at work go on when their client reads, and since when (monotonic)."""
        self.owing: set[M] = set()
        """Connections with unsent bytes."""
        self.kept = self.tasks = self.work = 0
        self.next_at = 0.0
        """When (monotonic) the next request may be answered as soon as it is read; until then it waits for a slice."""


class Crowd(Generic[M]):
    """The connections. ``allowed`` peers have all the places, one user of the others half of them at most."""

    def __init__(self, places: int, allowed: Callable[[Peer], bool], counts: Counter[str]) -> None:
        self.members: set[M] = set()
        self.tasks = 0
        """Requests at work."""
        self._places = places
        self._reserved = min(RESERVED, places // 8)
        self._allowed = allowed
        self._counts = counts
        self._users: dict[int, User[M]] = {}
        self._round: deque[User[M]] = deque()
        """Users with something to do, in the order of their turns."""
        self._kept = self._work = self._owed = 0
        self._letting = self._relieving = False
        self._complaints: dict[str, tuple[float, int]] = {}

    @property
    def waiting(self) -> bool:
        """Whether requests wait for a turn."""
        return bool(self._round) or any(user.waiting for user in self._users.values())

    # ---------------------------------------------------------------------------------------------- places

    def user(self, uid: int) -> User[M]:
        """The account of a user."""
        user = self._users.get(uid)
        if user is None:
            user = self._users[uid] = User(uid)
        return user

    def admit(self, member: M, user: User[M], allowed: bool) -> str:
        """Why there is no room for it, or nothing. Where all places are taken, one of the user who has most gives way."""
        if len(user.members) >= self._places // 2 and not allowed:
            return f"{len(user.members)} clients of user {user.uid} are connected already"
        if len(self.members) >= self._places - (0 if allowed else self._reserved) and not self._give_way(user):
            return f"{len(self.members)} clients are connected already"
        self.members.add(member)
        user.members[member] = None
        return ""

    def _give_way(self, newcomer: User[M]) -> bool:
        """Close a connection of the user who has most of them: one that waits for nothing and was silent longest, if there is one."""
        greediest = max(self._users.values(), key=lambda user: len(user.members))
        if len(newcomer.members) + 1 >= len(greediest.members):
            return False
        chosen = next(iter(greediest.members))
        for member in tuple(greediest.members):
            if member.idle and not member.asked:
                chosen = member
                break
            if member.asked:  # since the last look: it is asked for again after all others
                member.asked = None
                del greediest.members[member]
                greediest.members[member] = None
        self._counts["dropped_clients"] += 1
        self.complain("a client gave way, all places were taken", chosen.peer)
        self.leave(chosen, greediest)
        chosen.abort()
        return True

    def leave(self, member: M, user: User[M]) -> None:
        """It is closed, whether it was admitted or not. Twice is once."""
        user.owing.discard(member)
        user.stalled.pop(member, None)
        if member in self.members:
            self.members.discard(member)
            del user.members[member]
        self._forget(user)

    def _forget(self, user: User[M]) -> None:
        if not user.members and not user.tasks and not user.listed and self._users.get(user.uid) is user:
            del self._users[user.uid]

    # ---------------------------------------------------------------------------------------------- time

    def queue(self, member: M, user: User[M]) -> None:
        """Serve this connection's waiting requests, in turn with those of the others."""
        user.waiting.append(member)
        self._list(user)

    def turn(self, user: User[M]) -> asyncio.Future[None]:
        """Done when a request at work may go on, for one slice."""
        future = asyncio.get_running_loop().create_future()
        user.turns.append(future)
        self._list(user)
        return future

    def _list(self, user: User[M]) -> None:
        if user.listed or not self._wants(user):
            self._relieve_later()
            return
        user.listed = True
        self._round.append(user)
        if len(self._round) == 1:
            asyncio.get_running_loop().call_soon(self._turn)

    def _wants(self, user: User[M]) -> bool:
        return bool(user.turns) or (bool(user.waiting) and self.may_start(user, user.waiting[0]))

    def _turn(self) -> None:
        now = monotonic()
        end = now + TURN_S
        while self._round and now < end:
            user = self._round[0]
            if user.turns:
                if not (future := user.turns.popleft()).done():
                    future.set_result(None)
                    end -= SLICE_S  # which it takes after this
            elif user.waiting and self.may_start(user, user.waiting[0]):
                member = user.waiting.popleft()
                if member.serve(now + SLICE_S):
                    user.waiting.append(member)
                self._unblock(user)
            self._round.popleft()
            user.listed = self._wants(user)
            if user.listed:
                self._round.append(user)
            else:
                self._relieve_later()
                self._forget(user)
            now = monotonic()
        if self._round:
            asyncio.get_running_loop().call_soon(self._turn)

    # ---------------------------------------------------------------------------------------------- work

    def may_start(self, user: User[M], member: M) -> bool:
        """Whether another request of this connection may be taken to work."""
        if not user.tasks:
            return True
        if user.tasks >= USER_TASKS or user.work >= USER_WORK:
            return False
        return (self.tasks < ALL_TASKS and self._work < ALL_WORK) or self._allowed(member.peer)

    def began(self, user: User[M], size: int) -> None:
        """A request of so many bytes is at work."""
        user.tasks += 1
        user.work += size
        self.tasks += 1
        self._work += size

    def ended(self, user: User[M], size: int) -> None:
        """It is not at work any more."""
        full = self.tasks >= ALL_TASKS or self._work >= ALL_WORK
        user.tasks -= 1
        user.work -= size
        self.tasks -= 1
        self._work -= size
        for one in tuple(self._users.values()) if full else (user,):
            self._list(one)
        self._forget(user)

    def stall(self, member: M, user: User[M]) -> None:
        """A request of this connection is at work and goes on when its client reads."""
        user.stalled.setdefault(member, monotonic())
        self._relieve_later()

    def _relieve_later(self) -> None:
        if not self._relieving and any(user.stalled for user in self._users.values()):
            self._relieving = True
            asyncio.get_running_loop().call_later(STALLED_S / 2, self._relieve)

    def _relieve(self) -> None:
        """Where requests cannot be started because others do not end, the clients that do not read make room."""
        self._relieving = False
        users = tuple(self._users.values())
        blocked = [user for user in users if user.waiting and not user.turns and not self.may_start(user, user.waiting[0])]
        crowded = self.tasks >= ALL_TASKS or self._work >= ALL_WORK
        late = monotonic() - STALLED_S
        for user in users if crowded and blocked else blocked:
            for member in [member for member, since in user.stalled.items() if since < late]:
                self._drop(member, "a client that does not read was dropped, others waited for it")
        if blocked:
            self._relieve_later()

    # ---------------------------------------------------------------------------------------------- memory

    def full(self, user: User[M]) -> bool:
        """Whether so much of this user waits that nothing new is read."""
        return user.kept >= USER_KEPT or (self._kept >= ALL_KEPT and user.kept >= MAX_REQUEST)

    def hold(self, member: M, user: User[M]) -> None:
        """Read from it again when less waits."""
        user.held.append(member)
        self._unblock(user)

    def _unblock(self, user: User[M]) -> None:
        """Where all that waits is requests that do not come to their end, the largest of them makes room."""
        if user.held and self.full(user) and not user.waiting and not user.tasks:
            worst = max(user.members, key=lambda one: one.kept)
            self._drop(worst, "a client that had half said too much was dropped")

    def keep(self, user: User[M], size: int) -> None:
        """So many bytes more, or fewer, wait."""
        user.kept += size
        self._kept += size
        if size < 0 and user.held and not self._letting:
            self._letting = True
            asyncio.get_running_loop().call_soon(self._let_in)

    def _let_in(self) -> None:
        self._letting = False
        left = LET_IN
        for user in tuple(self._users.values()):
            while left and user.held and not self.full(user):
                user.held.popleft().let_in()
                left -= 1
        if not left:
            self._letting = True
            asyncio.get_running_loop().call_soon(self._let_in)

    def owes(self, member: M, user: User[M], size: int) -> None:
        """So many bytes more could not be sent at once; if all of that costs too much memory, the client that owes most goes."""
        user.owing.add(member)
        self._owed += size
        if self._owed <= USER_UNSENT:
            return
        self._owed = sum(self._unsent(one) for one in self._users.values())
        if (unsent := self._unsent(user)) > USER_UNSENT:
            self._shed(user, unsent - USER_UNSENT * 3 // 4)
        while self._owed > MAX_UNSENT:
            most = max(self._users.values(), key=self._unsent)
            if not self._shed(most, self._owed - MAX_UNSENT * 3 // 4):
                return

    @staticmethod
    def _unsent(user: User[M]) -> int:
        user.owing = {one for one in user.owing if one.unsent}
        return sum(one.unsent for one in user.owing)

    def _shed(self, user: User[M], size: int) -> bool:
        """Close the connections of a user that owe most, so many bytes of them; the last one stays, whatever it owes."""
        shed = False
        for worst in sorted(user.owing, key=lambda one: one.unsent, reverse=True)[: len(user.owing) - 1]:
            if size <= 0:
                break
            size -= worst.unsent
            self._owed -= worst.unsent
            user.owing.discard(worst)
            self._drop(worst, "a client that does not read was dropped")
            shed = True
        return shed

    def _drop(self, member: M, why: str) -> None:
        self._counts["dropped_clients"] += 1
        self.complain(why, member.peer)
        member.abort()

    # ---------------------------------------------------------------------------------------------- complaints

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
