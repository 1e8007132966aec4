"""The daemon without its processes: its framing, dispatch and handlers on real stores, fed with bytes and watched.

All that stands between a client's bytes and the answer is the real thing, with the base model's forecasts of generated candles in a
state directory of its own. Not there: children (a scorecard comes ready-made), systemd, the exchange and the service's turn; the clock
stands still. The transport is a double over a real pair of sockets, so that one input costs microseconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import msgpack

from cryptod import logs
from cryptod.config import load
from cryptod.daemon.connection import HIGH_WATER, Connection
from cryptod.daemon.control import ControlServer
from cryptod.daemon.handlers import Handlers
from cryptod.daemon.loop import DirectLoop
from cryptod.daemon.service import Service
from cryptod.market import CANDLE, HOUR
from cryptod.protocol import ERROR_CODES, EVENT, MAX_REQUEST, NOTIFICATION, RESPONSE
from cryptod.simulator.generator import GeneratedMarket
from cryptod.store.candles import CandleStore
from cryptod.training import base_model
from cryptod.worker.messages import BackupOrder, Failed, Order, Paged, Report, ReportOrder, Scored

ROOT: Final = Path(__file__).parent.parent.parent
COINS: Final = 5
NOW: Final = 1_672_574_400_000 + 10 * 60_000
"""2023-01-01 12:10 UTC."""
PATIENCE: Final = 120.0
"""Seconds that one input may take before it counts as a hang: a machine that is busy with other things is none."""

Said = tuple[int | None, str]
"""An answer as far as it must not depend on how the request was cut: its number, and the code of its error or nothing."""


class Wrong(AssertionError):
    """The daemon did what it must never do."""


class _StandingClock:
    def now(self) -> int:
        return NOW

    def real_seconds(self, seconds: float) -> float:
        return seconds


class _Deaf:
    def notify(self, state: str) -> None:
        """There is no systemd."""


class _NoChildren:
    """A pool whose child has always just finished."""

    stopping = False

    async def run(self, order: Order, *, on_report: Callable[[Report], None], deadline_s: float, silence_s: float) -> Report:
        await asyncio.sleep(0)
        if isinstance(order, BackupOrder):
            return Failed(job=0, error="there is no child that could make a backup", hint="", code="store")
        if isinstance(order, ReportOrder):
            return Paged(job=0, html="<!doctype html>", seconds=0.0, peak_rss=1)
        return Scored(job=0, forecasts=1, issued=True, card=b"\x80", seconds=0.0, peak_rss=1)


class Line(asyncio.Transport):
    """A transport over one end of a socket pair: takes what the kernel does not, and tells the protocol, as asyncio's does."""

    def __init__(self, ours: socket.socket) -> None:
        super().__init__()
        self.ours = ours
        self.protocol: Connection
        self.kept = bytearray()
        self.closing = self.choked = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.ours if name == "socket" else default

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == HIGH_WATER

    def get_write_buffer_size(self) -> int:
        return len(self.kept)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.kept += data
        if len(self.kept) > HIGH_WATER and not self.choked:
            self.choked = True
            self.protocol.pause_writing()

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True
        self.kept.clear()

    def pause_reading(self) -> None:
        """The inputs of a fuzz come whole: there is nothing that could be left unread."""

    def resume_reading(self) -> None:
        """As above."""

    def drain(self, client: socket.socket) -> bytes:
        """What the client reads now."""
        read = bytearray()
        with contextlib.suppress(BlockingIOError):
            read += client.recv(1 << 20)  # more than the kernel keeps
        read += self.kept
        self.kept.clear()
        if self.choked:
            self.choked = False
            self.protocol.resume_writing()
        return bytes(read)


class Inside:
    """``with Inside(folder) as daemon: daemon.tell([b"...", b"..."])``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.loop = DirectLoop()
        self.client, self.ours = socket.socketpair()
        for one in (self.client, self.ours):
            one.setblocking(False)
        self.may_change = False
        self._stack = contextlib.AsyncExitStack()
        self.service: Service
        self.server: ControlServer

    def __enter__(self) -> Inside:
        self.loop.run_until_complete(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.loop.run_until_complete(self._stack.aclose())
        self.loop.close()
        self.client.close()
        self.ours.close()

    async def _open(self) -> None:
        self._stack.callback(logs.set_level, logs.level())
        logs.set_level("error")
        market = GeneratedMarket(COINS, companions=False)
        cutoff = HOUR.floor(NOW)
        candles = market.panel(market.coins, cutoff - base_model.HOURS * HOUR.ms, cutoff)
        self.folder.mkdir(exist_ok=True)
        with CandleStore.open(self.folder / "candles", writer=True) as store:
            for i, coin in enumerate(candles.symbols):
                there = candles.status[:, i] == CANDLE
                store.write(coin, candles.open_times[there], candles.values[there, i])
        config = self.folder / "cryptod.toml"
        config.write_text(f'[storage]\ndirectory = "{self.folder}"\n')
        self.service = Service(
            load(config, {}), _StandingClock(), Handlers, notifier=_Deaf(), environ={}, config_path=config, base=ROOT / "models" / "base"
        )  # fmt: skip
        await self.service._open(self._stack)
        self.service.collection.followed = candles.symbols
        self.service.collection.collected_to = self.service.collection.attempted_to = cutoff
        self.service.symbols = type(self.service.symbols)(candles.symbols, {"DOGE/USDT": "its volume is too low"})
        self.service.scorecards._pool = _NoChildren()  # type: ignore[assignment]  # a fake of the pool
        self.service.backups._pool = _NoChildren()  # type: ignore[assignment]  # as above
        await self.service.pregenerate()
        commands = Handlers(self.service)
        self.server = ControlServer(commands.table(), allowed=lambda peer: self.may_change, express=commands.express)

    # ---------------------------------------------------------------------------------------------- one input

    def tell(self, pieces: Iterable[bytes], *, may_change: bool = False) -> tuple[bytes, bool]:
        """What a new client is answered that says this and then no more; and whether it was hung up on before."""
        self.may_change = may_change
        line = Line(self.ours)
        protocol = line.protocol = Connection(self.server)
        protocol.connection_made(line)
        try:
            asyncio._set_running_loop(self.loop)  # what is served at once, as most is, needs no turn of the loop
            try:
                for piece in pieces:
                    if line.closing:
                        break
                    protocol.get_buffer(-1)[: len(piece)] = piece
                    protocol.buffer_updated(len(piece))
            finally:
                asyncio._set_running_loop(None)
            read = line.drain(self.client)
            if self._busy():
                read += self.loop.run_until_complete(self._settle(line))
            hung_up = line.closing
            if not hung_up and not protocol.eof_received():
                line.close()
            return read, hung_up
        finally:
            protocol.connection_lost(None)
            if self.server.connections or self.server.direct:
                raise Wrong("a connection that is closed is still known")

    def _busy(self) -> bool:
        return bool(self.server.tasks) or self.server.crowd.waiting

    async def _settle(self, line: Line) -> bytes:
        """Turn the loop until all is answered; what the client read meanwhile."""
        began, read = time.monotonic(), b""
        while self._busy():
            if self.server.crowd.waiting:
                await asyncio.sleep(0)
            else:
                await asyncio.wait(tuple(self.server.tasks), timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if line.choked:
                read += line.drain(self.client)
            if time.monotonic() - began > PATIENCE:
                raise Wrong(f"no end after {PATIENCE:g} s: {len(self.server.tasks)} tasks")
        return read + line.drain(self.client)

    def judge(self, data: bytes, *, parts: int, may_change: bool) -> list[Said]:
        """Tell it in so many parts and hold the answers against what may be said; `Wrong` if they are not that.

        What a reader says in parts is also told in one: the answers must not depend on how the kernel cut it.
        """
        said, hung_up = answers(*self.tell(_cut(data, parts), may_change=may_change))
        if parts > 1 and not may_change:
            whole, whole_hung_up = answers(*self.tell(_cut(data, 1)))
            if hung_up != whole_hung_up:
                raise Wrong(f"hung up {hung_up} in {parts} parts, {whole_hung_up} in one")
            # Who is hung up on, or asks more than may wait, gets what was ready by then, and that is a matter of time.
            if not hung_up and not any(code == "busy" for _, code in said + whole) and sorted(said, key=repr) != sorted(whole, key=repr):
                raise Wrong(f"in {parts} parts: {said}; in one: {whole}")
        return said

    def blocks(self) -> int:
        """Blocks of memory that Python holds, all garbage being collected."""
        gc.collect()
        return sys.getallocatedblocks()


def _cut(data: bytes, parts: int) -> list[bytes]:
    """So many parts of equal size, or more where they would be larger than one read."""
    size = min(MAX_REQUEST, -(-len(data) // parts) or 1)
    return [data[at : at + size] for at in range(0, len(data), size)]


def answers(read: bytes, hung_up: bool) -> tuple[list[Said], bool]:
    """The answers in what was read; `Wrong` if anything is not one, or tells of a defect."""
    unpacker = msgpack.Unpacker(strict_map_key=False, max_buffer_size=1 << 28, read_size=1 << 12)
    unpacker.feed(read)
    said: list[Said] = []
    for message in unpacker:
        if isinstance(message, list) and message[:2] == [NOTIFICATION, EVENT]:
            continue  # it has subscribed
        if not isinstance(message, list) or len(message) != 4 or message[0] != RESPONSE:
            raise Wrong(f"this is no response: {message!r:.200}")
        _, number, error, result = message
        if not (number is None or (type(number) is int and 0 <= number < 1 << 32)):
            raise Wrong(f"no number of a request: {number!r}")
        if error is None:
            said.append((number, ""))
            continue
        if set(error) != {"code", "message", "hint"} or error["code"] not in ERROR_CODES or result is not None or not error["message"]:
            raise Wrong(f"no error of the protocol: {error!r:.200}")
        if not (error["message"] + error["hint"]).isprintable():
            raise Wrong(f"an error that moves a cursor: {error!r:.200}")
        if error["code"] == "internal":
            raise Wrong(f"a defect: {error}")
        said.append((number, error["code"]))
    if unpacker.tell() != len(read):
        raise Wrong(f"{len(read) - unpacker.tell()} bytes after the last whole answer")
    if hung_up and (not said or said[-1][0] is not None):
        raise Wrong("hung up on without a reason")
    return said, hung_up
