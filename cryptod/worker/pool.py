"""The parent's side of the process wall: start children, hand them orders, hear them out, end them.

Knows processes and pipes; nothing of what an order does. Children come from `multiprocessing`'s forkserver, which is a
small process of its own: the daemon never forks, so neither LMDB nor the loop is carried into a child. A child that is
silent, late or dead is a `WorkerError` that says so; the daemon goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerProcess
from typing import Final

import msgspec

from cryptod import logs
from cryptod.errors import WorkerError
from cryptod.worker import child as child_side
from cryptod.worker.child import LENGTH, MAX_MESSAGE, RUNNERS, Settings
from cryptod.worker.messages import CollectDone, CollectOrder, Failed, Finished, Order, Report

LINGER: Final = {"collect": 10.0, "train": 0.0}
"""Seconds a child waits for another order: importing ccxt costs more than an hour's candles, torch too much memory to stay."""
MALLOC: Final = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
"""What children give to glibc, which by itself keeps freed memory in eight arenas a core and stops returning large
arrays after the first one: 60 MB less at the peak of a full retrain."""
TERM_GRACE: Final = 1.0
EXIT_GRACE: Final = 5.0
_FINAL: Final = (CollectDone, Finished, Failed)


class _Child:
    """One child process and the wire to it."""

    def __init__(self, kind: str, process: ForkServerProcess, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.kind, self.process, self.reader, self.writer = kind, process, reader, writer
        self.ended_by_us = ""
        self.last_report = time.monotonic()

    def signal(self, number: int) -> None:
        # By its id and not through the forkserver, which may have been killed.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid or 0, number)

    @property
    def alive(self) -> bool:
        try:
            os.kill(self.process.pid or 0, 0)
        except ProcessLookupError:
            return False
        return True


class Pool:
    """Runs orders, at most one at a time of each kind (the callers see to that).

    ``nice``, ``memory_mb``: for the children. ``runners``: kind -> module, for tests.
    """

    def __init__(
        self, *, nice: int = 19, memory_mb: int = 0, runners: Mapping[str, str] = RUNNERS, linger: Mapping[str, float] = LINGER
    ) -> None:
        self._nice, self._memory_mb, self._runners, self._linger = nice, memory_mb, runners, linger
        self._context = multiprocessing.get_context("forkserver")
        self._idle: dict[str, _Child] = {}
        self._busy: dict[int, _Child] = {}
        """Job -> the child that works on it."""
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode: Callable[[bytes], Report] = msgspec.msgpack.Decoder(Report).decode
        self.stopping = False

    @property
    def pids(self) -> dict[str, int]:
        """Kind -> process id of the children there are."""
        return {child.kind: child.process.pid or 0 for child in (*self._idle.values(), *self._busy.values())}

    async def run(self, order: Order, *, on_report: Callable[[Report], None], deadline_s: float, silence_s: float) -> Report:
        """Have the order carried out; every report goes to ``on_report``, the last one is returned as well.

        Raises `WorkerError` if the child cannot be started, dies, says nothing for ``silence_s`` seconds, takes longer than
        ``deadline_s``, or is cancelled. It is gone then.
        """
        if self.stopping:
            raise WorkerError("the daemon is stopping")
        kind = "collect" if isinstance(order, CollectOrder) else "train"
        idle = self._idle.pop(kind, None)
        if idle is not None:
            with contextlib.suppress(_Deaf):  # it ended while the order was on its way: another one is started
                return await self._give(idle, order, on_report, deadline_s, silence_s)
        try:
            return await self._give(await self._start(kind), order, on_report, deadline_s, silence_s)
        except _Deaf as error:
            raise WorkerError(error.message, hint=error.hint) from None

    def cancel(self, job: int) -> None:
        """End the child that works on this job; its `run` raises."""
        child = self._busy.get(job)
        if child is not None:
            child.ended_by_us = "was cancelled"
            child.signal(signal.SIGTERM)

    async def stop(self) -> None:
        """End all children, then the forkserver and its helper. Idempotent; about two seconds at most."""
        self.stopping = True
        for child in self._busy.values():
            child.ended_by_us = "was stopped"
        await asyncio.gather(*(self._end(child) for child in (*self._idle.values(), *self._busy.values())))
        self._idle.clear()
        await asyncio.to_thread(_stop_helpers)

    async def _start(self, kind: str) -> _Child:
        here, there = socket.socketpair()
        settings = Settings(kind, self._runners[kind], self._nice, self._memory_mb, self._linger[kind], logs.level())
        for name, value in MALLOC.items():
            os.environ.setdefault(name, value)
        self._context.set_forkserver_preload([])
        process = self._context.Process(target=child_side.main, args=(there, settings), name=f"cryptod-{kind}", daemon=True)
        try:
            await asyncio.to_thread(process.start)
        except (OSError, EOFError) as error:
            here.close()
            raise WorkerError(f"the {kind} child could not be started: {error}", hint="too many processes, or out of memory?") from error
        finally:
            there.close()
        here.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=here)
        return _Child(kind, process, reader, writer)

    async def _give(self, child: _Child, order: Order, on_report: Callable[[Report], None], deadline_s: float, silence_s: float) -> Report:
        self._busy[order.job] = child
        try:
            report = await self._hear(child, order, on_report, deadline_s, silence_s)
        except BaseException:
            await asyncio.shield(self._end(child))
            raise
        finally:
            if self._busy.get(order.job) is child:
                del self._busy[order.job]
        if self._linger[child.kind] > 0 and not isinstance(report, Failed) and not self.stopping:
            self._idle[child.kind] = child
        else:
            await self._end(child, gently=True)
        return report

    async def _hear(self, child: _Child, order: Order, on_report: Callable[[Report], None], deadline_s: float, silence_s: float) -> Report:
        data = self._encode(order)
        end = time.monotonic() + deadline_s
        heard = False
        try:
            child.writer.write(len(data).to_bytes(LENGTH, "big") + data)
            while True:
                patience = min(silence_s, end - time.monotonic())
                try:
                    async with asyncio.timeout(max(0.0, patience)):
                        length = int.from_bytes(await child.reader.readexactly(LENGTH), "big")
                        if length > MAX_MESSAGE:
                            raise WorkerError(f"the {child.kind} child sent a report of {length} bytes", hint="a defect")
                        report = self._decode(await child.reader.readexactly(length))
                except TimeoutError:
                    late = end <= time.monotonic()
                    why = f"took longer than {deadline_s:.0f} s" if late else f"has said nothing for {silence_s:.0f} s"
                    raise WorkerError(f"the {child.kind} child {why} and was ended", hint="it is tried again") from None
                heard, child.last_report = True, time.monotonic()
                on_report(report)
                if isinstance(report, _FINAL):
                    return report
        except (asyncio.IncompleteReadError, ConnectionError):
            reason = child.ended_by_us or await self._fate(child)
            message = f"the {child.kind} child {reason}"
            hint = "out of memory? see worker.memory_mb and the kernel's log" if "SIGKILL" in reason else ""
            raise (WorkerError if heard or child.ended_by_us else _Deaf)(message, hint=hint) from None

    async def _fate(self, child: _Child) -> str:
        """How a child that hung up has ended."""
        await asyncio.to_thread(child.process.join, EXIT_GRACE)
        code = child.process.exitcode
        if code is None:
            return "hung up"
        if code < 0:
            return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code} before its report"

    async def _end(self, child: _Child, *, gently: bool = False) -> None:
        """Make sure that a child is gone: hung up on, asked (SIGTERM) and, after a moment, killed."""
        child.writer.close()
        for number, patience in ((0, EXIT_GRACE if gently else 0.0), (signal.SIGTERM, TERM_GRACE), (signal.SIGKILL, TERM_GRACE)):
            if number:
                child.signal(number)
            end = time.monotonic() + patience
            while child.alive and time.monotonic() < end:  # noqa: ASYNC110 - a process that is no child of ours has no event
                await asyncio.sleep(0.01)
            if not child.alive:
                break
        await asyncio.to_thread(child.process.join, TERM_GRACE)


class _Deaf(WorkerError):
    """The child ended before it reported anything on the order."""


def _stop_helpers() -> None:
    """End the forkserver and the resource tracker, which would otherwise end a moment after this process.

    Both are private names of the standard library, which has no public ones for it; without them nothing leaks, they only
    end later.
    """
    for helper in (forkserver._forkserver, resource_tracker._resource_tracker):
        stop = getattr(helper, "_stop", None)
        if stop is not None:
            stop()
