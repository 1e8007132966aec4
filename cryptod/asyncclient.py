"""`AsyncClient`: the daemon's client for asyncio. Import it from `cryptod.client`.

Knows one connection and who waits for which answer; what the commands mean stands in `cryptod.client`, whose methods it
mirrors. Any number of tasks may call at once: the requests are pipelined on the one connection.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Self

import msgpack

from cryptod.calls import (
    KEPT_EVENTS,
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
from cryptod.protocol import EVENT, EVENT_LOST, NOTIFICATION, REQUEST, RESPONSE
from cryptod.replies import Event, Forecast, Forecasts, read_error, read_forecast, read_forecasts

if TYPE_CHECKING:
    from pandas import DataFrame


class AsyncClient:
    """An asyncio client, for tasks of one event loop; the parameters are those of `cryptod.client.Client`."""

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, instance: str | None = None, timeout: float = 10.0, patience: float = 5.0
    ) -> None:
        self.path = socket_of(path, instance, os.environ, os.geteuid())
        self.timeout = timeout
        self.patience = patience
        self._link: _Link | None = None
        self._connecting = asyncio.Lock()
        self._answered = False
        self._subscribed = False
        self._topics: list[str] | None = None
        self._events: deque[Event] = deque(maxlen=KEPT_EVENTS)
        self._news = asyncio.Event()
        self.on_loss: Callable[[], None] | None = None
        """Called as soon as the connection has ended, whoever ended it."""

    # ---------------------------------------------------------------------------------------------- commands

    async def ping(self) -> dict[str, Any]:
        """Ask whether the daemon answers: ``{version, protocol, now, pid}``."""
        return await self._map("ping")

    async def status(self) -> dict[str, Any]:
        """Everything at a glance: process, models, candles, cache, jobs, memory."""
        return await self._map("status")

    async def health(self) -> dict[str, Any]:
        """``{severity, conditions}``: the named conditions with severity, text and remedy."""
        return await self._map("health")

    async def get(self, symbol: str) -> Forecast:
        """The forecast of one coin."""
        return read_forecast(await self.call("get", symbol))

    async def get_many(self, symbols: Iterable[str] | None = None) -> Forecasts:
        """The forecasts of several coins, or of all, and why others have none (``.refused``)."""
        found = Forecasts()
        for part in parts(symbols):
            read_forecasts(await self.call("get_many", part), found)
        return found

    async def top(self, count: int = 20, by: str = "score", horizon: int = 24) -> list[dict[str, Any]]:
        """The first coins by ``score``, ``p_up``, ``volatility`` or ``expected_return`` at a horizon."""
        return await self._list("top", count, by, horizon)

    async def candles(self, symbol: str, hours: int = 72) -> dict[str, Any]:
        """The last candles of a coin: ``{symbol, timeframe, start, open: [...], high, low, close, volume}``, None where there is none."""
        return await self._map("candles", symbol, hours)

    async def scores(self, symbol: str | None = None, window: str = "30d") -> dict[str, Any]:
        """How the forecasts have done whose outcome became known in the last ``7d``, ``30d`` or ``90d``: of all coins, or of one.

        Worked out when it is first asked for, which takes seconds; give a client of a busy machine a longer ``timeout``.
        """
        return await self._map("scores", symbol, window)

    async def report(self, window: str = "30d") -> str:
        """One HTML page: what is forecast, and how the forecasts of the last ``7d``, ``30d`` or ``90d`` have done; as slow as `scores`."""
        return str((await self._map("report", window))["html"])

    async def symbols(self) -> dict[str, Any]:
        """``{followed, left_out}``: the coins that are followed, and those left out, with the reason."""
        return await self._map("symbols")

    async def symbols_add(self, symbol: str) -> dict[str, Any]:
        """Follow a coin whatever its volume: ``{symbol, changed, followed, reason}``; its candles and forecast come within a minute."""
        return await self._map("symbols_add", symbol)

    async def symbols_remove(self, symbol: str) -> dict[str, Any]:
        """Follow a coin no more: ``{symbol, changed, followed, reason}``."""
        return await self._map("symbols_remove", symbol)

    async def schedule(self) -> list[dict[str, Any]]:
        """What runs when: last and next turn of each periodic job."""
        return await self._list("schedule")

    async def schedule_pause(self, name: str) -> dict[str, Any]:
        """Let no turn of a periodic job come, until it is resumed; its row."""
        return await self._map("schedule_pause", name)

    async def schedule_resume(self, name: str) -> dict[str, Any]:
        """Let a paused job's turns come again; its row. A missed one is caught up once."""
        return await self._map("schedule_resume", name)

    async def schedule_run(self, name: str) -> dict[str, Any]:
        """Do a periodic job's work now, out of turn; its row."""
        return await self._map("schedule_run", name)

    async def jobs(self, limit: int = 20) -> list[dict[str, Any]]:
        """The latest jobs, newest first."""
        return await self._list("jobs", limit)

    async def train(self, kind: str) -> dict[str, Any]:
        """Enqueue an ``incremental`` update or a ``full`` retrain; the job."""
        return await self._map("train", kind)

    async def cancel(self, job: int) -> dict[str, Any]:
        """Cancel a job that waits or runs; the job."""
        return await self._map("cancel", job)

    async def cache_stats(self) -> dict[str, Any]:
        """Entries, hits, misses, expiries of the forecast cache."""
        return await self._map("cache_stats")

    async def cache_pregenerate(self) -> dict[str, Any]:
        """Compute all forecasts now and keep them long: ``{forecasts, seconds}``."""
        return await self._map("cache_pregenerate")

    async def cache_clear(self, symbols: Iterable[str] | None = None) -> dict[str, Any]:
        """Drop cached forecasts, all or of some coins: ``{dropped}``."""
        return await self._map("cache_clear", None if symbols is None else list(symbols))

    async def log_lines(self, limit: int = 50) -> list[dict[str, Any]]:
        """The last lines of the daemon's log, oldest first: ``{time, level, logger, text, fields}``."""
        return await self._list("log_lines", limit)

    async def models(self) -> dict[str, Any]:
        """``{current, history}``: the models that serve, their figures, and the history to roll back to."""
        return await self._map("models")

    async def models_rollback(self, steps: int = 1) -> dict[str, Any]:
        """Go back to the models that served before the last promotion: ``{current}``."""
        return await self._map("models_rollback", steps)

    async def models_pin(self) -> dict[str, Any]:
        """Let the models that serve now serve until they are unpinned; as `models`."""
        return await self._map("models_pin")

    async def models_unpin(self) -> dict[str, Any]:
        """Let the gate promote again; as `models`."""
        return await self._map("models_unpin")

    async def log_level(self, level: str) -> dict[str, Any]:
        """Log from ``debug``, ``info``, ``warning``, ``error`` or ``critical`` on, until the next start or reload: ``{level, was}``."""
        return await self._map("log_level", level)

    # ---------------------------------------------------------------------------------------------- tables

    async def export(
        self, what: str, symbols: Iterable[str] | None = None, since: int = 0, until: int = 0, after: str = ""
    ) -> dict[str, Any]:
        """The next rows of ``forecasts``, ``ledger``, ``candles`` or ``scores``: ``{columns, after}``; `chunks` asks for all of them."""
        return await self._map("export", what, None if symbols is None else list(symbols), since, until, after)

    async def chunks(
        self, what: str, symbols: Iterable[str] | None = None, since: int = 0, until: int = 0
    ) -> AsyncIterator[dict[str, list[Any]]]:
        """The table in chunks of some hundred rows: column -> values. Times are UTC ms; 0 leaves an end open."""
        named = None if symbols is None else list(symbols)
        after: str | None = ""
        while after is not None:
            reply = await self.export(what, named, since, until, after)
            after = reply["after"]
            yield reply["columns"]

    async def backup(self, token: str = "", offset: int = 0) -> dict[str, Any]:
        """The next bytes of a backup, ``{token, size, offset, data}``; `backup_pieces` asks for all of them."""
        return await self._map("backup", token, offset)

    async def backup_pieces(self) -> AsyncIterator[bytes]:
        """The whole state of the daemon as the bytes of one file, in pieces; `cryptod restore` puts it back."""
        token, offset = "", 0
        while True:
            reply = await self.backup(token, offset)
            yield reply["data"]
            token, offset = reply["token"], offset + len(reply["data"])
            if offset >= reply["size"]:
                return

    async def frame(self, what: str, symbols: Iterable[str] | None = None, since: int = 0, until: int = 0) -> DataFrame:
        """The table as a pandas frame: all of it in memory. `CryptodError` where pandas is not installed."""
        from cryptod.tables import frame

        return frame([columns async for columns in self.chunks(what, symbols, since, until)])

    # ---------------------------------------------------------------------------------------------- events

    async def subscribe(self, topics: Sequence[str] | None = None) -> dict[str, Any]:
        """Receive events of these topics, by default of ``forecasts``, ``jobs`` and ``conditions``: ``{topics}``.

        Besides there are ``status``, ``log`` and ``coins``, see `protocol.EVENT_TOPICS`; a forecast that ``coins`` brings is a map,
        and `read_forecast` makes a `Forecast` of it.
        """
        wanted = None if topics is None else list(topics)
        reply = await self._map("subscribe", wanted)
        self._topics, self._subscribed = wanted, True
        return reply

    async def next_event(self, timeout: float | None = None) -> Event | None:
        """The next event; None when there was none for ``timeout`` seconds. Renews the subscription if need be."""
        try:
            async with asyncio.timeout(timeout):
                while not self._events:
                    if self._link is None and self._subscribed:
                        await self.call("subscribe", self._topics)
                        self._events.append(Event(EVENT_LOST, {"count": None}))
                        break
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return None
        return self._events.popleft()

    async def events(self, timeout: float | None = None) -> AsyncIterator[Event]:
        """Events as they come, until none has come for ``timeout`` seconds."""
        while (event := await self.next_event(timeout)) is not None:
            yield event

    # ---------------------------------------------------------------------------------------------- any command

    async def call(self, method: str, *parameters: Any) -> Any:
        """Ask any command and return its result as it is on the wire (maps, lists, numbers, text)."""
        try:
            return await self._ask(method, parameters)
        except (DaemonUnreachable, RequestError) as error:
            refusal = error
        patience = Patience(method, self.patience, answered=self._answered)
        while True:
            await asyncio.sleep(patience.pause(refusal))
            try:
                return await self._ask(method, parameters)
            except (DaemonUnreachable, RequestError) as error:
                refusal = error

    async def close(self) -> None:
        """Close the connection; the next command makes another."""
        if self._link is not None:
            self._link.close()
            self._link = None
        self._subscribed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    # ---------------------------------------------------------------------------------------------- the connection

    async def _map(self, method: str, *parameters: Any) -> dict[str, Any]:
        reply: dict[str, Any] = await self.call(method, *parameters)
        return reply

    async def _list(self, method: str, *parameters: Any) -> list[dict[str, Any]]:
        reply: list[dict[str, Any]] = await self.call(method, *parameters)
        return reply

    async def _ask(self, method: str, parameters: tuple[Any, ...]) -> Any:
        if self._link is not None and not reads(method) and self._link.dead():
            self._link.close()  # such a request is not asked twice, so it must not go into a dead connection
            self._link = None
        link = self._link or await self._connect()
        answer = link.ask(method, parameters)
        try:
            async with asyncio.timeout(self.timeout):
                return await answer
        except TimeoutError:
            if self._link is link:
                link.close()
                self._link = None
            raise silent(self.path, self.timeout) from None
        except ConnectionLost as error:
            if reads(method):
                raise
            raise unsure(method, error) from error
        finally:
            self._answered = self._answered or link.answered

    async def _connect(self) -> _Link:
        async with self._connecting:
            if self._link is None:
                try:
                    async with asyncio.timeout(self.timeout):
                        _, link = await asyncio.get_running_loop().create_unix_connection(
                            lambda: _Link(self.path, self._hear, self._ended), self.path
                        )
                except TimeoutError:
                    raise silent(self.path, self.timeout) from None
                except OSError as error:
                    raise cannot_connect(self.path, error) from error
                self._link = link
            return self._link

    def _hear(self, event: Event) -> None:
        self._events.append(event)
        self._news.set()

    def _ended(self, link: _Link) -> None:
        if self._link is link:
            self._link = None
            self._news.set()
            if self.on_loss is not None:
                self.on_loss()


class _Link(asyncio.Protocol):
    """One connection: the answers that are waited for, by number."""

    _transport: asyncio.Transport

    def __init__(self, path: str, hear: Any, ended: Any) -> None:
        self._path = path
        self._hear = hear
        self._ended = ended
        self._unpacker = unpacker()
        self._pack = msgpack.Packer().pack
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._why: DaemonUnreachable | RequestError = lost(path)
        self.answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended(self)
        if exc is not None and isinstance(self._why, ConnectionLost):
            self._why = lost(self._path, exc)
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(self._why)

    def ask(self, method: str, parameters: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Send a request; its answer, or why there is none, will be in the future."""
        number = self._number = (self._number + 1) & 0xFFFFFFFF
        request = self._pack((REQUEST, number, method, parameters))
        check_size(method, request)
        answer = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            answer.set_exception(self._why)
            return answer
        self._waiting[number] = answer
        answer.add_done_callback(lambda _: self._waiting.pop(number, None))
        self._transport.write(request)
        return answer

    def data_received(self, data: bytes) -> None:
        try:
            self._unpacker.feed(data)
            for message in self._unpacker:
                if message[0] == RESPONSE:
                    self._take(*message[1:])
                elif message[0] == NOTIFICATION and message[1] == EVENT:
                    self._hear(Event(*message[2]))
        except (ValueError, TypeError, LookupError, msgpack.exceptions.UnpackException) as error:
            self._why = not_understood(self._path, error)
            self._transport.abort()

    def _take(self, number: int | None, error: Any, result: Any) -> None:
        self.answered = True
        if number is None:
            self._why = read_error(error)  # said before it hangs up
            return
        answer = self._waiting.get(number)
        if answer is None or answer.done():
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(read_error(error))

    def dead(self) -> bool:
        """Whether the daemon has hung up, also if the loop has not come round to hearing it."""
        if self._transport.is_closing():
            return True
        probe = select.poll()
        probe.register(self._transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return bool(probe.poll(0))

    def close(self) -> None:
        self._transport.close()
