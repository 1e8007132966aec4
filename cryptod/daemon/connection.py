"""One client of the control socket: what it sent and is not served yet, what is at work for it, what it has not read.

Knows the socket, the framing and the crowd that it is one of; what is answered is `dispatch`'s business. The request that is alone in its
read, as nearly all are, goes from the socket through one typed decoding, one look-up and one call to one write. All else (several
requests in one read, half a request, a large one, nonsense) waits for a slice and takes the longer way through `framing.Frames`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

import msgspec

from cryptod.daemon.crowd import User
from cryptod.daemon.dispatch import NOT_UNDERSTOOD, decode_call, failure, pack
from cryptod.daemon.framing import Frames, Malformed, TooLarge
from cryptod.daemon.listening import Peer, at_once
from cryptod.errors import RequestError
from cryptod.protocol import COMMANDS, EVENT, EVENT_LOST, MAX_PENDING, MAX_REQUEST, NOTIFICATION, REQUEST, RESPONSE

if TYPE_CHECKING:
    from cryptod.daemon.control import ControlServer

SCAN_STEPS: Final = 1000
"""Elements of a request that are looked at before the time is looked at again."""
HIGH_WATER: Final = 256 * 1024
"""Unsent bytes of one connection above which nothing more is read from it, and no event sent to it."""
FLUSH: Final = 64 * 1024
"""Bytes of replies that are gathered for one write."""
FIRST_READ: Final = 4096
"""Bytes that are read at first; a `get` has some thirty. The rest of a larger request is read when there is room for it."""
CHEAP_S: Final = 0.0001
"""Seconds up to which requests are answered as soon as they are read; after one that took longer its user waits as long for the next."""
DIRECT: Final = 16
"""Connections of one user that are looked at one by one; further ones are looked at as a group."""
AT_ONCE: Final = 16
"""Requests at work up to which the results are sent as soon as they are there."""


class Connection(asyncio.BufferedProtocol):
    """One client: what it sent and is not served yet, and what waits for an answer."""

    __slots__ = (
        "_ended",
        "_express",
        "_frames",
        "_held",
        "_lost",
        "_plain",
        "_queued",
        "_reading",
        "_server",
        "_stalled",
        "_tasks",
        "_transport",
        "_writing",
        "asked",
        "fd",
        "kept",
        "peer",
        "user",
    )

    _transport: asyncio.Transport
    peer: Peer
    user: User[Connection]

    def __init__(self, server: ControlServer) -> None:
        self._server, self._express = server, server.express
        self._plain = True
        """Whether a request can be answered straight away: nothing half read or unsent stands before it, and nobody is hanging up."""
        self._frames: Frames | None = None
        """Bytes that could not be served in the read that brought them; nearly always None."""
        self.kept = 0
        """How many they are."""
        self._queued = False
        """Whether it waits for a slice, see `Crowd.queue`."""
        self._held = False
        """Whether it is not read from because too much of its user waits."""
        self._reading = True
        self._ended = False
        """Whether the client has said that it will ask nothing more; it still gets its answers."""
        self._writing = True
        """False while the client does not read its replies, and for good once it is hung up."""
        self._tasks: dict[asyncio.Future[Any], bool] = {}
        """Requests at work, and whether they only read."""
        self._stalled: list[asyncio.Future[None]] = []
        """Those that go on when the client reads."""
        self._lost = 0
        """Events that were dropped since the client last read."""
        self.asked: bool | None = False
        """Whether it has sent anything: False if never, None if not since the places were last taken (`Crowd`)."""

    @property
    def unsent(self) -> int:
        """Bytes of replies and events that the client has not taken yet."""
        return self._transport.get_write_buffer_size()

    @property
    def idle(self) -> bool:
        """Whether it has asked nothing that is not answered, and listens to nothing."""
        return not self._tasks and not self._queued and not self._held and not self.unsent and not self.peer.topics

    @property
    def waits(self) -> bool:
        """Whether its client may go unnoticed: it waits for an answer, or is not read from."""
        return self._queued or self._held or bool(self._tasks) or not self._reading

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        server, connection = self._server, transport.get_extra_info("socket")
        self.peer, self.fd = Peer.of(connection), connection.fileno()
        self.peer.turn = self.turn
        self.user = server.crowd.user(self.peer.uid)
        server.direct[self.fd] = self.read
        if len(self.user.members) >= DIRECT:
            server.groups.join(self.peer.uid, self.fd)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        refusal = server.crowd.admit(self, self.user, server.allowed(self.peer))
        if refusal:
            server.counts["refused_connections"] += 1
            server.crowd.complain("a connection was refused", self.peer)
            self._refuse_and_close(RequestError("busy", refusal, hint="try again later"))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.direct.pop(self.fd, None)
        self._server.groups.part(self.peer.uid, self.fd)
        self._forget()
        self._server.crowd.leave(self, self.user)
        self.peer.topics, self.peer.turn = frozenset(), at_once

    def _forget(self) -> None:
        """Nothing more is done for this client; what changes something is done to its end."""
        self._writing = self._plain = False
        self._frames = None
        self._count()
        for task, reads in tuple(self._tasks.items()):
            if reads:
                task.cancel()
        self._go_on()

    def _count(self) -> None:
        """What it keeps now is what the crowd is told."""
        kept = 0 if self._frames is None else len(self._frames)
        if kept != self.kept:
            change, self.kept = kept - self.kept, kept
            self._server.crowd.keep(self.user, change)

    # ---------------------------------------------------------------------------------------------- reading

    def read(self) -> bool:
        """Read without asyncio's help; whether there was anything to read."""
        if not self._plain:
            return self._read_on()
        try:
            data = os.read(self.fd, FIRST_READ)
        except OSError:
            return False
        reply = self._express(data)
        if reply is not None:
            self.asked = True
            self._write(reply)
        elif data:
            self._take(data)
        else:
            return False
        return True

    def _read_on(self) -> bool:
        """The same where something waits already; not while too much of its user does."""
        if self._server.crowd.full(self.user):
            self._hold()
            return True
        try:
            data = os.read(self.fd, MAX_REQUEST)
        except OSError:
            return False
        if data:
            self._take(data)
        return bool(data)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._take(bytes(self._server.view[:nbytes]))

    def _take(self, data: bytes) -> None:
        self._understand(data)
        self._plain = self._frames is None and self._writing and not self._transport.is_closing() and not self.unsent

    def _understand(self, data: bytes) -> None:
        server, user = self._server, self.user
        self.asked = True
        if self._frames is None:
            reply = server.express(data) if len(data) <= FIRST_READ else None
            if reply is not None:
                self._send(reply)
                return
            if len(data) < FIRST_READ and not user.waiting and (now := monotonic()) >= user.next_at and server.crowd.may_start(user, self):
                try:
                    kind, number, method, parameters = decode_call(data)
                except NOT_UNDERSTOOD:
                    pass  # several requests, half a one, or nonsense
                else:
                    if kind == REQUEST and 0 <= number < 1 << 32:
                        self._send(self._answer(number, method, parameters))
                        if (end := monotonic()) > now + CHEAP_S:
                            user.next_at = 2 * end - now
                        return
            self._frames = Frames()
        self._frames.feed(data)
        self._count()
        if not self._queued:
            self._queued = True
            server.crowd.queue(self, user)
            server.look_later()
        self._read_or_wait()

    def eof_received(self) -> bool:
        self._ended = True
        if not self._queued and not self._tasks:
            return False
        self._server.look_later()
        return True

    def serve(self, until: float) -> bool:
        """Answer the waiting requests until that time; whether it wants another turn."""
        replies: list[bytes] = []
        size = 0
        more = False
        crowd, user = self._server.crowd, self.user
        while (frames := self._frames) is not None and self._writing:
            if not crowd.may_start(user, self):
                more = True
                break
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
        self._count()
        self._queued = more = more and self._writing
        self._read_or_wait()
        self._close_if_ended()
        return more

    def _hold(self) -> None:
        self._held = True
        self._read_or_wait()
        self._server.look_later()
        self._server.crowd.hold(self, self.user)

    def let_in(self) -> None:
        """Too much of its user waited, and does not any more."""
        self._held = False
        self._read_or_wait()

    def _read_or_wait(self) -> None:
        """Read only while little waits to be served, and while the client reads too."""
        full = self._held or (self._queued and self.kept >= MAX_REQUEST)
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
        return reply if type(reply) is bytes else self._later(number, method, reply, len(parameters))

    def _later(self, number: int, method: str, reply: bytes | Awaitable[Any], size: int) -> bytes:
        assert not isinstance(reply, bytes)
        server = self._server
        if len(self._tasks) >= MAX_PENDING:
            if asyncio.iscoroutine(reply):
                reply.close()
            text = f"{len(self._tasks)} requests of this connection wait for an answer"
            return server.dispatch.failed(number, RequestError("busy", text, hint="read the answers first"))
        task = asyncio.ensure_future(self._carried_out(reply))
        self._tasks[task] = not COMMANDS[method].changes
        server.tasks.add(task)
        server.crowd.began(self.user, size)
        task.add_done_callback(partial(self._done, number, method, size, reply))
        return b""

    async def _carried_out(self, reply: Awaitable[Any]) -> Any:
        result = await reply
        if len(self._server.tasks) > AT_ONCE or not self._writing:
            await self.turn()  # many may have waited for the same
        return result

    async def turn(self) -> None:
        """Go on in the user's next slice, and not before the client reads; at once where it is hung up on."""
        while not self._transport.is_closing():
            if not self._writing:
                future = asyncio.get_running_loop().create_future()
                self._stalled.append(future)
                self._server.crowd.stall(self, self.user)
                await future
                continue
            await self._server.crowd.turn(self.user)
            if self._writing:
                return

    def _done(self, number: int, method: str, size: int, reply: Awaitable[Any], task: asyncio.Future[Any]) -> None:
        if task.cancelled() and asyncio.iscoroutine(reply):
            reply.close()  # before it began, maybe
        del self._tasks[task]
        self._server.tasks.discard(task)
        self._server.crowd.ended(self.user, size)
        if self._transport.is_closing():
            if not task.cancelled():
                task.exception()  # nobody waits for it any more
            return
        self._send(self._server.dispatch.outcome(number, method, self.peer, task))
        self._close_if_ended()

    # ---------------------------------------------------------------------------------------------- writing

    def _send(self, data: bytes) -> None:
        """Send it at once as far as the client takes it; asyncio keeps the rest."""
        if self._transport.is_closing():
            return
        if self.unsent:
            self._transport.write(data)
            self._server.crowd.owes(self, self.user, len(data))
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        """Send it where nothing waits before it."""
        try:
            sent = os.write(self.fd, data)
        except OSError:
            sent = 0  # the client takes nothing now, or is gone: asyncio finds out which
        if sent < len(data):
            self._plain = False
            self._transport.write(data[sent:])
            self._server.crowd.owes(self, self.user, len(data) - sent)

    def pause_writing(self) -> None:
        self._writing = False
        self._read_or_wait()

    def resume_writing(self) -> None:
        if self._transport.is_closing():
            return
        self._writing = True
        if self._lost and self.peer.topics:
            lost, self._lost = self._lost, 0
            self._send(pack([NOTIFICATION, EVENT, [EVENT_LOST, {"count": lost}]]))
        if self._frames is not None and not self._queued:
            self._queued = True
            self._server.crowd.queue(self, self.user)
        self._go_on()
        self._read_or_wait()
        self._close_if_ended()

    def _go_on(self) -> None:
        """What waited for the client to read waits no more."""
        self.user.stalled.pop(self, None)
        stalled, self._stalled = self._stalled, []
        for future in stalled:
            if not future.done():
                future.set_result(None)

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
        if self._ended and self._writing and not self._queued and not self._tasks:
            self.hang_up()

    def hang_up(self) -> None:
        """Close when all is sent."""
        self._forget()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._forget()
        self._transport.abort()
