"""The control socket: MessagePack-RPC on a Unix stream socket, whatever the commands do.

Knows the wire's limits and who is connected; what is answered is `dispatch`'s business. A plain `asyncio` protocol, which reads
for itself where the loop lets it (`DirectLoop`): the request that is alone in its read, as nearly all are, goes from the socket
through one typed decoding, one look-up and one call to one write. All else (several requests in one read, half a request, nonsense)
takes the longer way through `framing.Frames`.

What protects the other clients and the memory:

* a request builds no objects before it is whole, and then only those that the command's parameters allow;
* the requests of a flood are served in turns of half a millisecond for all floods together (`crowd`), between the reads of the others;
* who does not read its replies is not read from; what waits unsent is bounded for one client and for all together;
* events for a client that does not read are dropped and counted, and the client is told how many when it reads again.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

import msgspec

from cryptod.daemon.crowd import TURN_S, Crowd
from cryptod.daemon.dispatch import NOT_UNDERSTOOD, Commands, Dispatch, Express, Handler, Ready, decode_call, failure, pack, subscribe
from cryptod.daemon.framing import Frames, Malformed, TooLarge
from cryptod.daemon.listening import BACKLOG, Peer, bind, inherited_sockets, may_change, unlink_if_ours
from cryptod.daemon.loop import Readers, direct_readers
from cryptod.errors import RequestError
from cryptod.protocol import (
    EVENT,
    EVENT_LOST,
    MAX_CONNECTIONS,
    MAX_PENDING,
    MAX_REQUEST,
    NOTIFICATION,
    REQUEST,
    RESPONSE,
)

__all__ = ["Commands", "ControlServer", "Handler", "Peer", "Ready", "inherited_sockets", "may_change"]

SCAN_STEPS: Final = 1000
"""Elements of a request that are looked at before the time is looked at again."""
HIGH_WATER: Final = 256 * 1024
"""Unsent bytes of one connection above which nothing more is read from it, and no event sent to it."""
FLUSH: Final = 64 * 1024
"""Bytes of replies that are gathered for one write."""
MAX_TASKS: Final = 8 * MAX_PENDING
"""Requests of all connections together that wait for an answer."""
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
        self.crowd: Crowd[_Connection] = Crowd(max_connections, allowed, self.counts)
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
        self.direct = direct_readers(loop)
        if inherited is not None:
            listener = inherited
        elif path is not None:
            listener = bind(path, mode)
            self._path = Path(path), os.lstat(path).st_ino
        else:
            raise ValueError("either a path or an inherited socket")
        # asyncio accepts up to `backlog` connections in one turn of the loop, and gives the same figure to listen():
        # few a turn, so that a storm of connections delays nobody, but a long queue in the kernel.
        self._server = await loop.create_unix_server(lambda: _Connection(self), sock=listener, backlog=ACCEPTS_PER_TURN, **KEEP_PATH)
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
            expected = waited < FIRST_REQUEST_S and any(not connection.asked for connection in self.connections)
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

    # ---------------------------------------------------------------------------------------------- events

    def listens(self, topic: str) -> bool:
        """Whether anybody has subscribed to ``topic``: what costs something is made for listeners only."""
        return any(topic in connection.peer.topics for connection in self.connections)

    def notify(self, topic: str, payload: bytes) -> int:
        """Send an event (``payload``: MessagePack) to those who subscribed to ``topic``; to how many it was sent."""
        listeners = self._listeners(topic)
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

    def _listeners(self, topic: str) -> list[_Connection]:
        return [connection for connection in self.connections if topic in connection.peer.topics]


class _Connection(asyncio.BufferedProtocol):
    """One client: what it sent and is not served yet, and what waits for an answer."""

    __slots__ = (
        "_ended",
        "_express",
        "_fd",
        "_frames",
        "_lost",
        "_pending",
        "_plain",
        "_queued",
        "_reading",
        "_server",
        "_transport",
        "_writing",
        "asked",
        "peer",
    )

    _transport: asyncio.Transport
    peer: Peer

    def __init__(self, server: ControlServer) -> None:
        self._server, self._express = server, server.express
        self._plain = True
        """Whether a request can be answered straight away: nothing half read or unsent stands before it, and nobody is hanging up."""
        self._frames: Frames | None = None
        """Bytes that could not be served in the read that brought them; nearly always None."""
        self._queued = False
        """Whether it waits for a turn, see `ControlServer.queue`."""
        self._reading = True
        self._ended = False
        """Whether the client has said that it will ask nothing more; it still gets its answers."""
        self._writing = True
        """False while the client does not read its replies, and for good once it is hung up."""
        self._pending = 0
        self._lost = 0
        """Events that were dropped since the client last read."""
        self.asked = False
        """Whether it has ever sent anything."""

    @property
    def unsent(self) -> int:
        """Bytes of replies and events that the client has not taken yet."""
        return self._transport.get_write_buffer_size()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        connection = transport.get_extra_info("socket")
        self.peer, self._fd = Peer.of(connection), connection.fileno()
        self._server.direct[self._fd] = self.read
        transport.set_write_buffer_limits(high=HIGH_WATER)
        refusal = self._server.crowd.admit(self)
        if refusal:
            self._server.counts["refused_connections"] += 1
            self._server.crowd.complain("a connection was refused", self.peer, reason=refusal)
            self._refuse_and_close(RequestError("busy", refusal, hint="try again later"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.direct.pop(self._fd, None)
        self._server.crowd.leave(self)
        self._writing = self._plain = False
        self._frames = None
        self.peer.topics = frozenset()

    # ---------------------------------------------------------------------------------------------- reading

    def read(self) -> bool:
        """Read without asyncio's help; whether there was anything to read."""
        try:
            data = os.read(self._fd, MAX_REQUEST)
        except OSError:
            return False
        if not data:
            return False
        if self._plain and (reply := self._express(data)) is not None:
            self.asked = True
            self._write(reply)
        else:
            self._take(data)
        return True

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._take(bytes(self._server.view[:nbytes]))

    def _take(self, data: bytes) -> None:
        self._understand(data)
        self._plain = self._frames is None and self._writing and not self._transport.is_closing() and not self.unsent

    def _understand(self, data: bytes) -> None:
        server = self._server
        self.asked = True
        if self._frames is None:
            reply = server.express(data)
            if reply is None:
                try:
                    kind, number, method, parameters = decode_call(data)
                except NOT_UNDERSTOOD:
                    pass  # several requests, half a one, or nonsense
                else:
                    if kind == REQUEST and 0 <= number < 1 << 32:
                        reply = self._answer(number, method, parameters)
            if reply is not None:
                self._send(reply)
                return
            self._frames = Frames()
        self._frames.feed(data)
        if not self._queued:
            self._queued = True
            server.crowd.queue(self)
        self._read_or_wait()

    def eof_received(self) -> bool:
        self._ended = True
        return self._queued or self._pending > 0

    def serve(self, until: float) -> bool:
        """Answer the waiting requests until that time; whether it wants another turn."""
        replies: list[bytes] = []
        size = 0
        more = False
        while (frames := self._frames) is not None and self._writing:
            try:
                message = frames.next(SCAN_STEPS)
            except (Malformed, TooLarge) as error:
                self._send(b"".join(replies))
                self._give_up(error)
                return False
            if message is not None:
                reply = self._answer_message(message)
                replies.append(reply)
                size += len(reply)
                if size > FLUSH:
                    self._send(b"".join(replies))
                    replies, size = [], 0
            elif frames.starved:
                if not frames:
                    self._frames = None
                break
            if monotonic() > until:
                more = True
                break
        self._send(b"".join(replies))
        self._queued = more = more and self._writing
        self._read_or_wait()
        self._close_if_ended()
        return more

    def _read_or_wait(self) -> None:
        """Read only while little waits to be served, and while the client reads too."""
        full = self._queued and self._frames is not None and len(self._frames) >= MAX_REQUEST
        read = self._writing and not full
        if read != self._reading and not self._ended and not self._transport.is_closing():
            self._reading = read
            if read:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    # ---------------------------------------------------------------------------------------------- answering

    def _answer_message(self, message: bytes) -> bytes:
        """The reply to one whole message; empty if there is none, or none yet."""
        try:
            kind, number, method, parameters = decode_call(message)
        except NOT_UNDERSTOOD:
            kind, number, method, parameters = -1, -1, "", msgspec.Raw()
        if kind == REQUEST and 0 <= number < 1 << 32:
            return self._answer(number, method, parameters)
        shape = message[1] if len(message) > 1 and message[0] & 0xF0 == 0x90 else None
        if shape == NOTIFICATION:
            return b""  # the protocol allows them and wants no answer; there is none that would mean something here
        self._server.counts["malformed"] += 1
        self._server.crowd.complain("a message was not understood", self.peer)
        text = "a response was sent, not a request" if shape == RESPONSE else "the message is not a request"
        hint = "send [0, id, command, [parameters...]], with an id of 32 bits"
        return self._server.dispatch.failed(None, RequestError("bad_request", text, hint=hint))

    def _answer(self, number: int, method: str, parameters: msgspec.Raw) -> bytes:
        reply = self._server.answer(number, method, parameters, self.peer)
        return reply if type(reply) is bytes else self._later(number, method, reply)

    def _later(self, number: int, method: str, reply: bytes | Awaitable[Any]) -> bytes:
        assert not isinstance(reply, bytes)
        server = self._server
        if self._pending >= MAX_PENDING or len(server.tasks) >= MAX_TASKS:
            if asyncio.iscoroutine(reply):
                reply.close()
            waiting = f"{self._pending} requests of this connection" if self._pending >= MAX_PENDING else f"{len(server.tasks)} requests"
            return server.dispatch.failed(number, RequestError("busy", f"{waiting} wait for an answer", hint="read the answers first"))
        self._pending += 1
        task = asyncio.ensure_future(reply)
        server.tasks.add(task)
        task.add_done_callback(partial(self._done, number, method))
        return b""

    def _done(self, number: int, method: str, task: asyncio.Future[Any]) -> None:
        self._pending -= 1
        self._server.tasks.discard(task)
        self._send(self._server.dispatch.outcome(number, method, self.peer, task))
        if not self._writing and not self._transport.is_closing():
            self._server.crowd.choked(self)  # has become a larger burden
        self._close_if_ended()

    # ---------------------------------------------------------------------------------------------- writing

    def _send(self, data: bytes) -> None:
        """Send it at once as far as the client takes it; asyncio keeps the rest."""
        if self._transport.is_closing():
            return
        if self.unsent:
            self._transport.write(data)
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        """Send it where nothing waits before it."""
        try:
            sent = os.write(self._fd, data)
        except OSError:
            sent = 0  # the client takes nothing now, or is gone: asyncio finds out which
        if sent < len(data):
            self._plain = False
            self._transport.write(data[sent:])

    def pause_writing(self) -> None:
        self._writing = False
        self._server.crowd.choked(self)
        self._read_or_wait()

    def resume_writing(self) -> None:
        self._server.crowd.freed(self)
        if self._transport.is_closing():
            return
        self._writing = True
        if self._lost and self.peer.topics:
            lost, self._lost = self._lost, 0
            self._send(pack([NOTIFICATION, EVENT, [EVENT_LOST, {"count": lost}]]))
        if self._frames is not None and not self._queued:
            self._queued = True
            self._server.crowd.queue(self)
        self._read_or_wait()

    def send_event(self, data: bytes, count: int = 1) -> bool:
        """Send it, or drop and count it if the client does not read; ``count``: how many events it is."""
        if self._writing and not self._transport.is_closing():
            self._send(data)
            return True
        self._lost += count
        self._server.counts["dropped_events"] += count
        return False

    # ---------------------------------------------------------------------------------------------- closing

    def _give_up(self, error: Malformed | TooLarge) -> None:
        """What follows cannot be understood: say why, and close."""
        if isinstance(error, TooLarge):
            reason = RequestError("too_large", f"the request is larger than {MAX_REQUEST} bytes", hint="ask in several requests")
        else:
            reason = RequestError("bad_request", f"the bytes are not understood: {error}", hint="send MessagePack-RPC")
        self._server.counts["malformed"] += 1
        self._server.crowd.complain("a client was hung up on", self.peer, reason=reason.message)
        self._refuse_and_close(reason)

    def _refuse_and_close(self, reason: RequestError) -> None:
        self._send(failure(None, reason))
        self.hang_up()

    def _close_if_ended(self) -> None:
        if self._ended and self._writing and not self._queued and not self._pending:
            self.hang_up()

    def hang_up(self) -> None:
        """Close when all is sent."""
        self._frames = None
        self._writing = self._plain = False
        self._transport.close()

    def abort(self) -> None:
        self._plain = False
        self._transport.abort()


def _event(topic: str, payload: bytes) -> bytes:
    return b"".join((b"\x93", pack(NOTIFICATION), pack(EVENT), b"\x92", pack(topic), payload))


def _allow_descriptors(wanted: int) -> None:
    """Raise the soft limit of descriptors; systemd leaves it at 1024 for programs that use select(), which this does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
