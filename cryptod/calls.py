"""What both clients share around a call: where the daemon is, why it cannot be reached, what may be asked again.

Knows the protocol's limits and msgpack; opens no socket. Imports nothing that would make cryptoctl start late.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgpack

from cryptod.errors import DaemonUnreachable, RequestError
from cryptod.places import unit_of
from cryptod.protocol import COMMANDS, MAX_REPLY, MAX_REQUEST

WINDOW: Final = 64
"""Requests of a pipeline that are on their way at once (and no more than MAX_REQUEST bytes of them)."""
SYMBOLS_AT_ONCE: Final = 2000
"""Coins named in one request of `get_many`; more are asked for in several, as a request has 64 KiB at most."""
KEPT_EVENTS: Final = 10_000
"""Events that wait in a client to be asked for; the oldest are dropped."""


class ConnectionLost(DaemonUnreachable):
    """The daemon is not there, or went away before it answered: it may be back in a moment."""

    connected = False
    """Whether there was a connection: then a daemon was there, and is probably being restarted."""


def _status(path: str) -> str:
    return "`systemctl{} status {}`".format(*unit_of(path))


def _journal(path: str) -> str:
    return "`journalctl{} -u {}`".format(*unit_of(path))


def cannot_connect(path: str, error: OSError) -> DaemonUnreachable:
    """What to raise, and what to do, for each way in which a Unix socket can refuse."""
    text = f"no cryptod at {path}"
    if error.errno == errno.ENOENT:
        return ConnectionLost(f"{text}: there is no such socket", hint=f"is it running? {_status(path)}")
    if error.errno == errno.ECONNREFUSED:
        return ConnectionLost(f"{text}: nobody listens there any more", hint=f"{_status(path)}, {_journal(path)}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return DaemonUnreachable(
            f"{text}: permission denied", hint=f"look at the rights of {os.path.dirname(path) or '.'} and of the socket"
        )
    if error.errno in (errno.EAGAIN, errno.ETIMEDOUT):
        return DaemonUnreachable(f"{text}: too many clients wait to be let in", hint=f"{_status(path)}: it may hang")
    return DaemonUnreachable(f"{text}: {error.strerror or error}", hint=f"is the path right? {_status(path)}")


def silent(path: str, timeout: float) -> DaemonUnreachable:
    return DaemonUnreachable(f"cryptod at {path} has not answered for {timeout:g} s", hint=f"{_status(path)}: it may hang")


def lost(path: str, why: object = "") -> ConnectionLost:
    error = ConnectionLost(f"cryptod at {path} closed the connection{f': {why}' if why else ''}", hint=_journal(path))
    error.connected = True
    return error


def unsure(method: str, error: DaemonUnreachable) -> ConnectionLost:
    """For a command that changes something: it was sent, and no answer came."""
    text = f"{error.message} before it answered: whether {method} was done is not known"
    return ConnectionLost(text, hint="`cryptoctl status` shows what is so")


def not_understood(path: str, error: Exception) -> DaemonUnreachable:
    return DaemonUnreachable(f"what answers at {path} is not understood: {error}", hint="is it cryptod's socket?")


def reads(method: str) -> bool:
    """Whether a command changes nothing, and so may be asked twice."""
    return method in COMMANDS and not COMMANDS[method].changes


def check_size(method: str, request: bytes) -> None:
    if len(request) > MAX_REQUEST:
        text = f"{method}: the request has {len(request)} bytes, more than {MAX_REQUEST}"
        raise RequestError("too_large", text, hint="ask in several requests")


def unpacker() -> Any:
    """Reads the daemon's messages from its bytes, in whatever pieces they come."""
    return msgpack.Unpacker(max_buffer_size=MAX_REPLY, strict_map_key=False)


def parts(symbols: Iterable[str] | None) -> Iterator[list[str] | None]:
    """The coins in lists that fit in a request; at least one list; None for all coins."""
    if symbols is None:
        yield None
        return
    names = list(symbols)
    for first in range(0, len(names) or 1, SYMBOLS_AT_ONCE):
        yield names[first : first + SYMBOLS_AT_ONCE]


class Patience:
    """Whether and how long to ask again: only reads, and only of a daemon that has answered this client before or let it in."""

    def __init__(self, method: str, seconds: float, *, answered: bool) -> None:
        self._end = time.monotonic() + seconds
        self._pause = 0.0
        self._again = reads(method)
        self._seen = answered

    def pause(self, error: DaemonUnreachable | RequestError) -> float:
        """Seconds to wait before asking again; raises the error where that is of no use."""
        again = isinstance(error, ConnectionLost) or error.code == "shutting_down"
        self._seen = self._seen or (isinstance(error, ConnectionLost) and error.connected)
        if not (again and self._again and self._seen and time.monotonic() + self._pause <= self._end):
            raise error
        pause, self._pause = self._pause, min(0.2, self._pause * 2 or 0.01)
        return pause
