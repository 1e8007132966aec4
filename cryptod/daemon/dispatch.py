"""From a request to the bytes of its reply: the table of handlers, the rights, the refusals.

Knows the wire and what a handler is; no socket and no command in particular.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

import msgpack
import msgspec

from cryptod.daemon.listening import Peer
from cryptod.daemon.nearest import Nearest
from cryptod.errors import CryptodError, RequestError
from cryptod.logs import get_logger
from cryptod.protocol import COMMANDS, EVENT_TOPICS, NEWS

log = get_logger("control")


class Ready:
    """A result that is already MessagePack, in one or several parts: the hot path of `get`."""

    __slots__ = ("parts",)

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts


Handler = Callable[[Any, Peer], Any]
"""``handler(request, peer)``: takes the command's NamedTuple, gives a plain object or `Ready`, or an awaitable of one.

What is given at once is answered at once, before the next request of that client is looked at; an awaitable becomes a
task, and its reply goes out when it is done. It raises `CryptodError` to refuse.
"""

Express = Callable[[bytes], bytes | None]
"""The response to the bytes of a request where it can be had in a few steps, else None: what nearly all clients ask nearly always."""


class Commands(Protocol):
    """What the commands do."""

    def table(self) -> Mapping[str, Handler]: ...

    def express(self, message: bytes) -> bytes | None: ...


decode_call: Final = msgspec.msgpack.Decoder(tuple[int, int, str, msgspec.Raw]).decode
"""(kind, id, command, parameters): the parameters stay bytes until it is known what they have to be."""
NOT_UNDERSTOOD: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are not what they should be."""
pack: Final[Callable[[Any], bytes]] = msgpack.Packer(autoreset=True).pack
_HEAD: Final = b"\x94\x01\xce"
"""A response: an array of four, the second a 32-bit id."""
_NIL: Final = b"\xc0"
_NO_ID: Final = b"\x94\x01\xc0"
_NEAR: Final = Nearest(COMMANDS)
_PLACE: Final = re.compile(r" - at \$\[(\d+)\](.*)$")


class _Row(NamedTuple):
    handler: Handler
    decode: Callable[[Any], Any]
    parameters: tuple[str, ...]
    changes: bool


def failure(number: int | None, error: CryptodError) -> bytes:
    """The response that says what was wrong; without a number if the request's is not known."""
    head = _NO_ID if number is None else _HEAD + number.to_bytes(4, "big")
    return b"".join((head, pack({"code": error.code, "message": error.message, "hint": error.hint}), _NIL))


class Dispatch:
    """Answers requests from a table of handlers; changes are for peers that ``allowed`` says yes to.

    A command of the protocol that has no handler is answered like an unknown one.
    """

    def __init__(self, handlers: Mapping[str, Handler], allowed: Callable[[Peer], bool]) -> None:
        strangers = set(handlers) - set(COMMANDS)
        if strangers:
            raise ValueError(f"handlers for commands that do not exist: {sorted(strangers)}")
        self._rows = {}
        for name, handler in handlers.items():
            request = COMMANDS[name].request
            self._rows[name] = _Row(handler, msgspec.msgpack.Decoder(request).decode, request._fields, COMMANDS[name].changes)
        self.allowed = allowed
        self.stopping = False
        """While it stops, a daemon answers what is read and refuses what would change something."""
        self.requests = 0
        self.counts: Counter[str] = Counter()
        """What went wrong, by kind."""

    def answer(self, number: int, method: str, parameters: msgspec.Raw, peer: Peer) -> bytes | Awaitable[Any]:
        """The response, or what it has to be waited for; `outcome` makes the response of that."""
        self.requests += 1
        row = self._rows.get(method)
        if row is None:
            return self.failed(number, _unknown(method, self._rows))
        if row.changes:
            if not self.allowed(peer):
                return self.failed(number, _forbidden(method, peer))
            if self.stopping:
                return self.failed(number, RequestError("shutting_down", "the daemon is stopping", hint="ask again when it is back"))
        try:
            request = row.decode(parameters)
        except NOT_UNDERSTOOD as error:
            return self.failed(number, _wrong_parameter(method, row, error))
        try:
            reply = row.handler(request, peer)
        except CryptodError as error:
            return self.failed(number, error)
        except Exception as error:  # noqa: BLE001 - a control request: one defect must not take the other clients down
            return self.failed(number, _defect(method, peer, error))
        if type(reply) is Ready:
            return b"".join((_HEAD, number.to_bytes(4, "big"), _NIL, *reply.parts))
        if isinstance(reply, Awaitable):
            return reply
        return self._rendered(number, method, peer, reply)

    def outcome(self, number: int, method: str, peer: Peer, task: asyncio.Future[Any]) -> bytes:
        """The response to a request that was waited for."""
        if task.cancelled():
            return self.failed(number, RequestError("shutting_down", "the daemon stopped before this was done", hint="ask again"))
        error = task.exception()
        if error is None:
            return self._rendered(number, method, peer, task.result())
        return self.failed(number, error if isinstance(error, CryptodError) else _defect(method, peer, error))

    def failed(self, number: int | None, error: CryptodError) -> bytes:
        self.counts["errors"] += 1
        return failure(number, error)

    def _rendered(self, number: int, method: str, peer: Peer, reply: Any) -> bytes:
        if type(reply) is Ready:
            return b"".join((_HEAD, number.to_bytes(4, "big"), _NIL, *reply.parts))
        try:
            return b"".join((_HEAD, number.to_bytes(4, "big"), _NIL, pack(reply)))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            return self.failed(number, _defect(method, peer, error))


def subscribe(request: Any, peer: Peer) -> dict[str, list[str]]:
    """The handler of ``subscribe``: what a client listens to belongs to its connection."""
    topics = list(NEWS) if request.topics is None else request.topics
    for topic in topics:
        if topic not in EVENT_TOPICS:
            text = f"subscribe: parameter topics: there is no topic {topic[:64]!r}"
            raise RequestError("bad_request", text, hint=f"topics: {', '.join(EVENT_TOPICS)}")
    peer.topics = frozenset(topics)
    return {"topics": sorted(peer.topics)}


def _unknown(method: str, rows: Mapping[str, _Row]) -> RequestError:
    close = _NEAR.find(method) if len(method) <= 64 else []
    close = [name for name in close if name in rows]
    hint = f"did you mean {close[0]!r}?" if close else f"commands: {', '.join(sorted(rows))}"
    return RequestError("unknown_command", f"there is no command {method[:64]!r}", hint=hint)


def _forbidden(method: str, peer: Peer) -> RequestError:
    hint = "ask as root, as the service's user or as a member of the group that socket.group names"
    return RequestError("forbidden", f"{method} changes something, and user {peer.uid} may only read", hint=hint)


def _wrong_parameter(method: str, row: _Row, error: Exception) -> RequestError:
    """The decoder's sentence, with the parameter's name for its number."""
    text = str(error).replace("`", "").replace("Expected", "expected").replace("object", "map")
    place = _PLACE.search(text)
    if place is not None and int(place[1]) < len(row.parameters):
        text = f"parameter {row.parameters[int(place[1])]}{place[2]}: {text[: place.start()]}"
    elif isinstance(error, msgspec.ValidationError):
        text = f"parameters: {text}"
    else:
        text = "a parameter is no valid MessagePack or text"
    hint = f"parameters, in an array: {', '.join(row.parameters)}" if row.parameters else "it takes no parameters: []"
    return RequestError("bad_request", f"{method}: {text}", hint=hint)


def _defect(method: str, peer: Peer, error: BaseException) -> RequestError:
    log.error("a request met a defect", exc_info=error, command=method, uid=peer.uid)
    hint = "the daemon's log has the details: journalctl -u cryptod"
    return RequestError("internal", f"{method} failed: {type(error).__name__}", hint=hint)
