"""The control socket: MessagePack-RPC on a Unix stream socket, whatever the commands do.

Knows who is connected and who listens to what; a client by itself is `connection`'s business, and what is answered `dispatch`'s. What
protects the other clients and the memory:

* a request builds no objects before it is whole, and then only those that the command's parameters allow;
* all that is more than one small request is served in slices of a quarter of a millisecond, for which the users take turns (`crowd`);
* of a user who has many connections only some are looked at before those of the others (`loop`);
* requests that wait, requests at work and unsent bytes are bounded, for one user and for all together;
* who does not read its replies is not read from, and who is gone is not worked for;
* events for a client that does not read are dropped and counted, and the client is told how many when it reads again.
"""

from __future__ import annotations

import asyncio
import os
import resource
import select
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, Final

from cryptod.daemon.connection import FLUSH, HIGH_WATER, Connection
from cryptod.daemon.crowd import TURN_S, Crowd
from cryptod.daemon.dispatch import Commands, Dispatch, Express, Handler, Ready, pack, subscribe
from cryptod.daemon.listening import BACKLOG, Peer, bind, inherited_sockets, may_change, unlink_if_ours
from cryptod.daemon.loop import Groups, Readers, direct_readers, groups
from cryptod.protocol import (
    EVENT,
    MAX_CONNECTIONS,
    MAX_REQUEST,
    NOTIFICATION,
)

__all__ = ["FLUSH", "HIGH_WATER", "Commands", "ControlServer", "Handler", "Peer", "Ready", "inherited_sockets", "may_change"]

GONE_S: Final = 0.25
"""So often it is looked whether clients that wait are still there."""
GONE_AT_ONCE: Final = 64
"""Of those that are not, so many are seen to at one look: a thousand take fifty milliseconds."""
ACCEPTS_PER_TURN: Final = 16
KEEP_PATH: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""From Python 3.13 on asyncio removes the path of any socket that it closes. systemd's stays, and `unlink_if_ours` removes ours."""
FIRST_REQUEST_S: Final = 0.25
"""A stopping daemon waits so long for the first request of a client that it has accepted."""


class ControlServer:
    """Serves the commands of ``handlers``; those that change something only to peers that ``allowed`` says yes to.

    A command of the table without a handler is answered like an unknown one; ``subscribe`` is served here. ``express`` is asked
    first: it makes the response out of the request's bytes, or nothing if that is not for it.
    """

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        allowed: Callable[[Peer], bool],
        express: Express = lambda message: None,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        self.dispatch = Dispatch({"subscribe": subscribe, **handlers}, allowed)
        self.answer, self.express = self.dispatch.answer, express
        self.counts = self.dispatch.counts
        """errors, malformed, refused_connections, dropped_events, dropped_clients since the start."""
        self.buffer = bytearray(MAX_REQUEST)
        """All connections read into this one buffer: what stands in it is used or kept before the next read."""
        self.view = memoryview(self.buffer)
        self.direct: Readers = {}
        self.groups: Groups = groups(None)
        self._looking = False
        self.allowed = allowed
        self.crowd: Crowd[Connection] = Crowd(max_connections, allowed, self.counts)
        self.connections = self.crowd.members
        self.tasks: set[asyncio.Future[Any]] = set()
        self._max_connections = max_connections
        self._server: asyncio.Server | None = None
        self._path: tuple[Path, int] | None = None

    # ---------------------------------------------------------------------------------------------- start and stop

    async def start(self, path: str | Path | None = None, *, mode: int = 0o666, inherited: socket.socket | None = None) -> None:
        """Listen on a socket bound at ``path``, or on one that was ``inherited`` (see `inherited_sockets`)."""
        _allow_descriptors(self._max_connections + 256)
        loop = asyncio.get_running_loop()
        self.direct, self.groups = direct_readers(loop), groups(loop)
        if inherited is not None:
            listener = inherited
        elif path is not None:
            listener = bind(path, mode)
            self._path = Path(path), os.lstat(path).st_ino
        else:
            raise ValueError("either a path or an inherited socket")
        # asyncio accepts up to `backlog` connections in one turn of the loop, and gives the same figure to listen():
        # few a turn, so that a storm of connections delays nobody, but a long queue in the kernel.
        self._server = await loop.create_unix_server(lambda: Connection(self), sock=listener, backlog=ACCEPTS_PER_TURN, **KEEP_PATH)
        listener.listen(BACKLOG)

    async def close(self, grace: float = 2.0) -> None:
        """Stop accepting, answer what was asked, close. Takes about ``grace`` seconds at most.

        Clients that were accepted and have asked nothing yet get a moment to do so: one that connects for each of its
        requests loses none when the daemon is restarted. While this runs, commands that change something are refused.
        """
        if self._server is None:
            return
        server, self._server = self._server, None
        self.dispatch.stopping = True
        server.close()
        if self._path is not None:
            unlink_if_ours(*self._path)
        begin = monotonic()
        await asyncio.sleep(0.005)  # what was accepted in the last turn becomes a connection in the next
        while (waited := monotonic() - begin) < grace:
            busy = self.tasks or self.crowd.waiting or any(connection.unsent for connection in self.connections)
            expected = waited < FIRST_REQUEST_S and any(connection.asked is False for connection in self.connections)
            if not busy and not expected:
                break
            await asyncio.sleep(0.005)
        for task in tuple(self.tasks):
            task.cancel()
        if self.tasks:
            await asyncio.wait(tuple(self.tasks), timeout=0.5)
        for connection in tuple(self.connections):
            connection.hang_up()
        await asyncio.sleep(0)
        for connection in tuple(self.connections):
            connection.abort()
        await asyncio.sleep(0)

    @property
    def requests(self) -> int:
        """How many requests were taken up since the start."""
        return self.dispatch.requests

    def look_later(self) -> None:
        """Look now and then whether the clients that wait are still there: what they sent may be unread when they go."""
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(GONE_S, self._look_for_gone)

    def _look_for_gone(self) -> None:
        self._looking = False
        there = {connection.fd: connection for connection in self.connections if connection.waits}
        poll = select.poll()
        for fd in there:
            poll.register(fd, 0)
        for fd, _ in poll.poll(0)[:GONE_AT_ONCE]:
            there[fd].abort()
        if there:
            self.look_later()

    # ---------------------------------------------------------------------------------------------- events

    def listens(self, topic: str) -> bool:
        """Whether anybody has subscribed to ``topic``: what costs something is made for listeners only."""
        return any(topic in connection.peer.topics for connection in self.connections)

    def notify(self, topic: str, payload: bytes, to: Callable[[Peer], bool] = lambda peer: True) -> int:
        """Send an event (``payload``: MessagePack) to those who subscribed to ``topic`` and ``to`` says yes to; to how many it was sent."""
        listeners = [connection for connection in self._listeners(topic) if to(connection.peer)]
        if not listeners:
            return 0
        data = _event(topic, payload)
        return sum(connection.send_event(data) for connection in listeners)

    async def broadcast(self, topic: str, payloads: Iterable[bytes]) -> None:
        """Many events, gathered for few writes, between which the other clients are answered: each write may wake its reader."""
        gathered: list[bytes] = []
        size = 0
        for payload in payloads if self._listeners(topic) else ():
            gathered.append(_event(topic, payload))
            size += len(gathered[-1])
            if size >= FLUSH:
                await self._deliver(topic, gathered)
                gathered, size = [], 0
        await self._deliver(topic, gathered)

    async def _deliver(self, topic: str, events: list[bytes]) -> None:
        data, end = b"".join(events), 0.0
        for connection in self._listeners(topic) if events else ():
            if monotonic() > end:
                await asyncio.sleep(0)
                end = monotonic() + TURN_S
            connection.send_event(data, len(events))

    def _listeners(self, topic: str) -> list[Connection]:
        return [connection for connection in self.connections if topic in connection.peer.topics]


def _event(topic: str, payload: bytes) -> bytes:
    return b"".join((b"\x93", pack(NOTIFICATION), pack(EVENT), b"\x92", pack(topic), payload))


def _allow_descriptors(wanted: int) -> None:
    """Raise the soft limit of descriptors; systemd leaves it at 1024 for programs that use select(), which this does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
