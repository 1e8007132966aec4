"""The daemon's clients for programs: `Client` (blocking) and `AsyncClient` (asyncio).

    from cryptod.client import Client

    with Client() as client:
        forecast = client.get("BTC/USDT")
        print(forecast.price(24), forecast.interval(24, 0.9), forecast.p_up[0])

Both have one method for each command of `protocol.COMMANDS`, raise `RequestError` (with ``code`` and ``hint``) for what
the daemon refuses and `DaemonUnreachable` when nobody answers. A read that meets a restart of the daemon is asked again
by itself. Imports the standard library and msgpack: cryptoctl has to start in 50 ms on a machine where nothing else
works. `AsyncClient` lives in `cryptod.asyncclient` and is imported when it is first asked for.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Self

import msgpack

from cryptod.calls import (
    KEPT_EVENTS,
    WINDOW,
    ConnectionLost,
    Patience,
    cannot_connect,
    check_size,
    lost,
    not_understood,
    parts,
    reads,
    silent,
    unpacker,
    unsure,
)
from cryptod.errors import DaemonUnreachable, RequestError
from cryptod.places import socket_of
from cryptod.protocol import EVENT, EVENT_LOST, MAX_REQUEST, NOTIFICATION, REQUEST, RESPONSE
from cryptod.replies import Event, Forecast, Forecasts, read_error, read_forecast, read_forecasts

if TYPE_CHECKING:
    from pandas import DataFrame

    from cryptod.asyncclient import AsyncClient as AsyncClient

__all__ = [
    "AsyncClient", "Client", "ConnectionLost", "DaemonUnreachable", "Event", "Forecast", "Forecasts", "RequestError", "read_forecast",
]  # fmt: skip

_CHUNK: Final = 64 * 1024
_TIMEVAL: Final = struct.Struct("@ll")


def __getattr__(name: str) -> Any:
    """`AsyncClient`, imported when it is asked for: asyncio takes longer to import than cryptoctl may take."""
    if name == "AsyncClient":
        return import_module("cryptod.asyncclient").AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Client:
    """A blocking client: one connection, made when it is first needed. Not for several threads at once.

    ``path``: the socket. Without one it is the socket of the ``instance`` that is named, or else ``$CRYPTOD_SOCKET``'s, or
    else that of the instance ``$CRYPTOD_INSTANCE``, or else that of the user's own daemon where there is one, or else
    /run/cryptod/cryptod.sock. ``timeout``: seconds of silence after which an answer is given up. ``patience``: seconds for
    which a read is asked again when a daemon that has answered or let it in before is away (restarted); a daemon that was
    never there is reported at once.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, instance: str | None = None, timeout: float = 10.0, patience: float = 5.0
    ) -> None:
        self.path = socket_of(path, instance, os.environ, os.geteuid())
        self.timeout = timeout
        self.patience = patience
        self._socket: socket.socket | None = None
        self._waits = -1.0
        """The time-out that the socket has."""
        self._number = 0
        self._answered = False
        self._topics: Sequence[str] | None = ()
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._pack = msgpack.Packer().pack
        self._unpacker = unpacker()
        self._chunk = bytearray(_CHUNK)
        self._view = memoryview(self._chunk)

    # ---------------------------------------------------------------------------------------------- commands

    def ping(self) -> dict[str, Any]:
        """Ask whether the daemon answers: ``{version, protocol, now, pid}``."""
        return self._map("ping")

    def status(self) -> dict[str, Any]:
        """Everything at a glance: process, models, candles, cache, jobs, memory."""
        return self._map("status")

    def health(self) -> dict[str, Any]:
        """``{severity, conditions}``: the named conditions with severity, text and remedy."""
        return self._map("health")

    def get(self, symbol: str) -> Forecast:
        """The forecast of one coin."""
        return read_forecast(self.call("get", symbol))

    def get_many(self, symbols: Iterable[str] | None = None) -> Forecasts:
        """The forecasts of several coins, or of all, and why others have none (``.refused``)."""
        found = Forecasts()
        for part in parts(symbols):
            read_forecasts(self.call("get_many", part), found)
        return found

    def top(self, count: int = 20, by: str = "score", horizon: int = 24) -> list[dict[str, Any]]:
        """The first coins by ``score``, ``p_up``, ``volatility`` or ``expected_return`` at a horizon."""
        return self._list("top", count, by, horizon)

    def candles(self, symbol: str, hours: int = 72) -> dict[str, Any]:
        """The last candles of a coin: ``{symbol, timeframe, start, open: [...], high, low, close, volume}``, None where there is none."""
        return self._map("candles", symbol, hours)

    def scores(self, symbol: str | None = None, window: str = "30d") -> dict[str, Any]:
        """How the forecasts have done whose outcome became known in the last ``7d``, ``30d`` or ``90d``: of all coins, or of one.

        Worked out when it is first asked for, which takes seconds; give a client of a busy machine a longer ``timeout``.
        """
        return self._map("scores", symbol, window)

    def report(self, window: str = "30d") -> str:
        """One HTML page: what is forecast, and how the forecasts of the last ``7d``, ``30d`` or ``90d`` have done; as slow as `scores`."""
        return str((self._map("report", window))["html"])

    def symbols(self) -> dict[str, Any]:
        """``{followed, left_out}``: the coins that are followed, and those left out, with the reason."""
        return self._map("symbols")

    def symbols_add(self, symbol: str) -> dict[str, Any]:
        """Follow a coin whatever its volume: ``{symbol, changed, followed, reason}``; its candles and forecast come within a minute."""
        return self._map("symbols_add", symbol)

    def symbols_remove(self, symbol: str) -> dict[str, Any]:
        """Follow a coin no more: ``{symbol, changed, followed, reason}``."""
        return self._map("symbols_remove", symbol)

    def schedule(self) -> list[dict[str, Any]]:
        """What runs when: last and next turn of each periodic job."""
        return self._list("schedule")

    def schedule_pause(self, name: str) -> dict[str, Any]:
        """Let no turn of a periodic job come, until it is resumed; its row."""
        return self._map("schedule_pause", name)

    def schedule_resume(self, name: str) -> dict[str, Any]:
        """Let a paused job's turns come again; its row. A missed one is caught up once."""
        return self._map("schedule_resume", name)

    def schedule_run(self, name: str) -> dict[str, Any]:
        """Do a periodic job's work now, out of turn; its row."""
        return self._map("schedule_run", name)

    def jobs(self, limit: int = 20) -> list[dict[str, Any]]:
        """The latest jobs, newest first."""
        return self._list("jobs", limit)

    def train(self, kind: str) -> dict[str, Any]:
        """Enqueue an ``incremental`` update or a ``full`` retrain; the job."""
        return self._map("train", kind)

    def cancel(self, job: int) -> dict[str, Any]:
        """Cancel a job that waits or runs; the job."""
        return self._map("cancel", job)

    def cache_stats(self) -> dict[str, Any]:
        """Entries, hits, misses, expiries of the forecast cache."""
        return self._map("cache_stats")

    def cache_pregenerate(self) -> dict[str, Any]:
        """Compute all forecasts now and keep them long: ``{forecasts, seconds}``."""
        return self._map("cache_pregenerate")

    def cache_clear(self, symbols: Iterable[str] | None = None) -> dict[str, Any]:
        """Drop cached forecasts, all or of some coins: ``{dropped}``."""
        return self._map("cache_clear", None if symbols is None else list(symbols))

    def log_lines(self, limit: int = 50) -> list[dict[str, Any]]:
        """The last lines of the daemon's log, oldest first: ``{time, level, logger, text, fields}``."""
        return self._list("log_lines", limit)

    def models(self) -> dict[str, Any]:
        """``{current, history}``: the models that serve, their figures, and the history to roll back to."""
        return self._map("models")

    def models_rollback(self, steps: int = 1) -> dict[str, Any]:
        """Go back to the models that served before the last promotion: ``{current}``."""
        return self._map("models_rollback", steps)

    def models_pin(self) -> dict[str, Any]:
        """Let the models that serve now serve until they are unpinned; as `models`."""
        return self._map("models_pin")

    def models_unpin(self) -> dict[str, Any]:
        """Let the gate promote again; as `models`."""
        return self._map("models_unpin")

    def log_level(self, level: str) -> dict[str, Any]:
        """Log from ``debug``, ``info``, ``warning``, ``error`` or ``critical`` on, until the next start or reload: ``{level, was}``."""
        return self._map("log_level", level)

    # ---------------------------------------------------------------------------------------------- tables

    def export(self, what: str, symbols: Iterable[str] | None = None, since: int = 0, until: int = 0, after: str = "") -> dict[str, Any]:
        """The next rows of ``forecasts``, ``ledger``, ``candles`` or ``scores``: ``{columns, after}``; `chunks` asks for all of them."""
        return self._map("export", what, None if symbols is None else list(symbols), since, until, after)

    def chunks(self, what: str, symbols: Iterable[str] | None = None, since: int = 0, until: int = 0) -> Iterator[dict[str, list[Any]]]:
        """The table in chunks of some hundred rows: column -> values. Times are UTC ms; 0 leaves an end open."""
        named = None if symbols is None else list(symbols)
        after: str | None = ""
        while after is not None:
            reply = self.export(what, named, since, until, after)
            after = reply["after"]
            yield reply["columns"]

    def frame(self, what: str, symbols: Iterable[str] | None = None, since: int = 0, until: int = 0) -> DataFrame:
        """The table as a pandas frame: all of it in memory. `CryptodError` where pandas is not installed."""
        from cryptod.tables import frame

        return frame(self.chunks(what, symbols, since, until))

    def backup(self, token: str = "", offset: int = 0) -> dict[str, Any]:
        """The next bytes of a backup, ``{token, size, offset, data}``; `backup_pieces` asks for all of them."""
        return self._map("backup", token, offset)

    def backup_pieces(self) -> Iterator[bytes]:
        """The whole state of the daemon as the bytes of one file, in pieces; `cryptod restore` puts it back."""
        token, offset = "", 0
        while True:
            reply = self.backup(token, offset)
            yield reply["data"]
            token, offset = reply["token"], offset + len(reply["data"])
            if offset >= reply["size"]:
                return

    # ---------------------------------------------------------------------------------------------- events

    def subscribe(self, topics: Sequence[str] | None = None) -> dict[str, Any]:
        """Receive events of these topics, by default of ``forecasts``, ``jobs`` and ``conditions``: ``{topics}``.

        Besides there are ``status``, ``log`` and ``coins``, see `protocol.EVENT_TOPICS`; a forecast that ``coins`` brings is a map,
        and `read_forecast` makes a `Forecast` of it.
        """
        reply = self._map("subscribe", None if topics is None else list(topics))
        self._topics = topics
        return reply

    def next_event(self, timeout: float | None = None) -> Event | None:
        """The next event; None when there was none for ``timeout`` seconds.

        After a restart of the daemon the subscription is renewed, and the event ``lost`` says that some may be missing.
        """
        end = None if timeout is None else time.monotonic() + timeout
        if not self._events:
            self._take(0, None)  # what came along with the last answer
        while not self._events:
            left = 3600.0 if end is None else end - time.monotonic()
            if left <= 0:
                return None
            try:
                if self._socket is None:
                    raise ConnectionLost("not connected")
                self._take(self._receive(left), None)
            except TimeoutError:
                continue
            except ConnectionLost:
                self.close()
                self.call("subscribe", None if self._topics is None else list(self._topics))
                self._events.append(Event(EVENT_LOST, {"count": None}))
        return self._events.popleft()

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """Events as they come, until none has come for ``timeout`` seconds."""
        while (event := self.next_event(timeout)) is not None:
            yield event

    # ---------------------------------------------------------------------------------------------- any command

    def call(self, method: str, *parameters: Any) -> Any:
        """Ask any command and return its result as it is on the wire (maps, lists, numbers, text)."""
        try:
            return self._ask(method, parameters)
        except (DaemonUnreachable, RequestError) as error:
            first = error
        patience = Patience(method, self.patience, answered=self._answered)
        while True:
            time.sleep(patience.pause(first))
            self.close()
            try:
                return self._ask(method, parameters)
            except (DaemonUnreachable, RequestError) as error:
                first = error

    def pipeline(self, calls: Iterable[Sequence[Any]]) -> list[Any]:
        """Ask many commands without waiting for each answer: ``[("get", "BTC/USDT"), ("top", 5)]``.

        The results stand in the order of the calls; a refused one has its `RequestError` for a result.
        """
        wanted = [(call[0], tuple(call[1:])) for call in calls]
        results: list[Any] = [None] * len(wanted)
        open_calls: dict[int, int] = {}
        following = 0
        try:
            while following < len(wanted) or open_calls:
                batch, size = [], 0
                while following < len(wanted) and len(open_calls) < WINDOW and size < MAX_REQUEST:
                    method, parameters = wanted[following]
                    request = self._pack((REQUEST, self._count(), method, parameters))
                    check_size(method, request)
                    open_calls[self._number] = following
                    batch.append(request)
                    size += len(request)
                    following += 1
                if batch:
                    self._send(b"".join(batch))
                while open_calls and (following == len(wanted) or len(open_calls) > WINDOW // 2):
                    self._take(self._receive(self.timeout), None, open_calls, results)
        except TimeoutError:
            self.close()
            raise silent(self.path, self.timeout) from None
        except ConnectionLost:
            rest = sorted(open_calls.values()) + list(range(following, len(wanted)))
            if not all(reads(wanted[i][0]) for i in rest):
                raise
            for i in rest:
                try:
                    results[i] = self.call(wanted[i][0], *wanted[i][1])
                except RequestError as error:
                    results[i] = error
        return results

    def close(self) -> None:
        """Close the connection; the next command makes another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------------- the connection

    def _map(self, method: str, *parameters: Any) -> dict[str, Any]:
        reply: dict[str, Any] = self.call(method, *parameters)
        return reply

    def _list(self, method: str, *parameters: Any) -> list[dict[str, Any]]:
        reply: list[dict[str, Any]] = self.call(method, *parameters)
        return reply

    def _count(self) -> int:
        self._number = number = (self._number + 1) & 0xFFFFFFFF
        return number

    def _ask(self, method: str, parameters: tuple[Any, ...]) -> Any:
        number = self._count()
        request = self._pack((REQUEST, number, method, parameters))
        if len(request) > MAX_REQUEST:
            check_size(method, request)
        if not reads(method):
            self._close_if_dead()  # such a request is not asked twice, so it must not go into a dead connection
        self._send(request)
        try:
            while True:
                done, result = self._take(self._receive(self.timeout), number)
                if done:
                    return result
        except TimeoutError:
            self.close()
            raise silent(self.path, self.timeout) from None
        except ConnectionLost as error:
            if reads(method):
                raise
            raise unsure(method, error) from error

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._give_up_after(connection, self.timeout)
        try:
            connection.connect(self.path)
        except OSError as error:
            connection.close()
            raise cannot_connect(self.path, error) from error
        self._unpacker = unpacker()
        self._socket = connection
        return connection

    def _give_up_after(self, connection: socket.socket, seconds: float) -> None:
        """Set the kernel's own time-outs: Python's would cost a poll() for each send and each receive."""
        value = _TIMEVAL.pack(int(seconds), max(1, int(seconds % 1 * 1e6)))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)
        self._waits = seconds

    def _close_if_dead(self) -> None:
        if self._socket is not None:
            try:
                if self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"":
                    self.close()
            except BlockingIOError:
                pass  # alive and silent
            except OSError:
                self.close()

    def _send(self, data: bytes) -> None:
        connection = self._socket or self._connect()
        try:
            connection.sendall(data)
        except BlockingIOError:
            self.close()
            raise silent(self.path, self.timeout) from None
        except OSError:
            pass  # closed: there may still be a last word to read, and if not, reading says so

    def _receive(self, timeout: float) -> int:
        """Bytes that came in; `TimeoutError` after so many seconds without any."""
        connection = self._socket
        assert connection is not None
        if timeout != self._waits:
            self._give_up_after(connection, timeout)
        try:
            count = connection.recv_into(self._chunk)
        except BlockingIOError:
            raise TimeoutError from None
        except OSError as error:
            self.close()
            raise lost(self.path, error.strerror) from error
        if not count:
            self.close()
            raise lost(self.path)
        return count

    def _take(
        self, count: int, number: int | None, open_calls: dict[int, int] | None = None, results: list[Any] | None = None
    ) -> tuple[bool, Any]:
        """Read what came in: (True, result) when the answer to ``number`` is among it; raises if that was refused."""
        try:
            self._unpacker.feed(self._view[:count])
            for message in self._unpacker:
                kind = message[0]
                if kind == RESPONSE:
                    _, asked, error, result = message
                    self._answered = True
                    if asked == number:
                        if error is not None:
                            raise read_error(error)
                        return True, result
                    if asked is None:
                        self.close()
                        raise read_error(error)
                    if open_calls is not None and results is not None and asked in open_calls:
                        results[open_calls.pop(asked)] = result if error is None else read_error(error)
                elif kind == NOTIFICATION and message[1] == EVENT:
                    self._events.append(Event(*message[2]))
        except (ValueError, TypeError, LookupError, msgpack.exceptions.UnpackException) as error:
            self.close()
            raise not_understood(self.path, error) from error
        return False, None
