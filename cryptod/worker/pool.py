"""The parent's side of the process wall: start children, hand them orders, hear them out, end them.

Knows processes and pipes; nothing of what an order does. A child that is silent, late or dead is a `WorkerError` that
says so; the daemon goes on. A child that works is not lost with the forkserver that it came from: its wire and a
descriptor of the process itself (pidfd) tell how it is.
"""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
import socket
import sysconfig
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from typing import Final, NamedTuple

import msgspec

from cryptod import logs
from cryptod.errors import LoadError, WorkerError
from cryptod.worker import child as child_side
from cryptod.worker import forkserver
from cryptod.worker.child import LENGTH, MAX_MESSAGE, RUNNERS, Settings
from cryptod.worker.messages import (
    BackedUp,
    BackupOrder,
    CollectDone,
    CollectOrder,
    Failed,
    Finished,
    Loaded,
    Order,
    Paged,
    Report,
    ReportOrder,
    Scored,
    ScoreOrder,
    TrainOrder,
)

KINDS: Final[dict[type[Order], str]] = {
    CollectOrder: "collect", TrainOrder: "train", ScoreOrder: "score", ReportOrder: "report",
    BackupOrder: "backup",
}  # fmt: skip
LINGER: Final = {"collect": 10.0, "train": 0.0, "score": 0.0, "report": 0.0, "backup": 0.0}
"""Seconds a child waits for another order: importing ccxt costs more than an hour's candles, torch too much memory to stay."""
READY_S: Final = 60.0
"""Seconds that a child which was started ahead of its order waits for it."""
TERM_GRACE: Final = 1.0
EXIT_GRACE: Final = 2.0
FORKSERVER_GONE: Final = 255
"""What `multiprocessing` takes for the exit code when nobody is left to tell it."""
LOAD_RETRY_S: Final = 3600.0
"""Seconds until a child that could not load its libraries is tried again, when nothing has changed that could help."""
KILLED_RETRY_S: Final = 5.0
"""The same for one that was killed, twice in a row; doubled each further time."""
_FAULTS: Final = (signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT)
"""How a library ends the process that loads it: built for another processor, or damaged."""
_NOT_STARTED: Final = {
    errno.EMFILE: "let the daemon open more files: `ulimit -n 1024`, or LimitNOFILE= of the unit",
    errno.ENFILE: "the machine has too many open files: see fs.file-max",
    errno.EAGAIN: "let the daemon start more processes: `ulimit -u`, or TasksMax= of the unit",
    errno.ENOMEM: "the machine has no memory left: end other programs",
}
_FINAL: Final = (CollectDone, Finished, Scored, Paged, BackedUp, Failed)


class ChildView(NamedTuple):
    """A child as the monitor sees it. ``job`` is None while it waits for an order; ``started`` and ``beat`` (its last
    report) are seconds of the monotonic clock."""

    kind: str
    pid: int
    job: int | None
    started: float
    beat: float


class Unloadable(NamedTuple):
    """Why children of a kind cannot load what they run; ``at`` (monotonic seconds) and ``state`` are of the last attempt, ``retry`` is
    for how many seconds no other is worth making."""

    text: str
    at: float
    state: tuple[int, int]
    retry: float


class Pool:
    """Runs orders, at most one at a time of each kind (the callers see to that).

    ``nice``, ``memory_mb``: for the children. ``runners``: kind -> module, for tests. ``directory``: where the forkserver
    has its socket; under /tmp unless given. ``state``: the state directory, in which each child may change its own part only.
    """

    def __init__(
        self,
        *,
        nice: int = 19,
        memory_mb: int = 0,
        runners: Mapping[str, str] = RUNNERS,
        linger: Mapping[str, float] = LINGER,
        directory: str = "",
        state: str = "",
    ) -> None:
        self.nice, self.memory_mb, self._confined_to = nice, memory_mb, state
        self._runners, self._linger = runners, linger
        self._idle: dict[str, _Child] = {}
        self._busy: dict[_Child, int] = {}
        """Child -> the job that it works on; 0 is any order that is no job."""
        self._all: set[_Child] = set()
        self.unloadable: dict[str, Unloadable] = {}
        """Kind -> why no order of it can be carried out now."""
        self._killed_loading: Counter[str] = Counter()
        """Kind -> how many of its children in a row were killed while they loaded what they run."""
        self.stopping = False
        if directory:
            forkserver.keep_files_in(directory)

    @property
    def children(self) -> list[ChildView]:
        """The children there are, those included that are being ended."""
        return [ChildView(child.kind, child.pid, self._busy.get(child), child.started, child.beat) for child in self._all]

    @property
    def pids(self) -> dict[str, int]:
        """Kind -> process id of the children there are."""
        return {child.kind: child.pid for child in self._all}

    async def run(self, order: Order, *, on_report: Callable[[Report], None], deadline_s: float, silence_s: float) -> Report:
        """Have the order carried out; every report goes to ``on_report``, the last one is returned as well.

        Raises `WorkerError` if the child cannot be started, dies, says nothing for ``silence_s`` seconds, takes longer than
        ``deadline_s``, or is cancelled. It is gone then; as it is when this is cancelled. `LoadError`, which is one too, if the child
        cannot load what it runs: see `held_back`.
        """
        if self.stopping:
            raise WorkerError("the daemon is stopping")
        kind = KINDS[type(order)]
        idle = self._idle.pop(kind, None)
        room = [other.end(gently=True, why="made room") for other in self._idle.values()]  # what waits for an order of another kind
        if idle is not None:
            try:
                return await self._give(idle, order, on_report, deadline_s, silence_s)
            except (_Deaf, LoadError):
                pass  # it ended before the order reached it: another one is started
        for ended in room:
            await asyncio.shield(ended)
        child = await self._start(kind)
        try:
            return await self._give(child, order, on_report, deadline_s, silence_s)
        except WorkerError as error:
            raise self._judged(child, error) from None
        finally:
            if child.loaded:
                self.unloadable.pop(kind, None)
                del self._killed_loading[kind]

    def held_back(self, kind: str) -> bool:
        """Whether an order of this kind would fail as the last one did: its libraries do not load, and nothing has changed since."""
        known = self.unloadable.get(kind)
        return known is not None and time.monotonic() - known.at < known.retry and known.state == self._state()

    def try_again(self) -> None:
        """Hold nothing back: somebody may have mended it."""
        self.unloadable = {kind: known._replace(at=-math.inf) for kind, known in self.unloadable.items()}

    def _state(self) -> tuple[int, int]:
        """What a child's libraries depend on: the packages that are installed, and the memory that it may have."""
        with suppress(OSError):
            return self.memory_mb, os.stat(sysconfig.get_path("platlib")).st_mtime_ns
        return self.memory_mb, 0

    def _judged(self, child: _Child, error: WorkerError) -> WorkerError:
        """The error as it is told: a `LoadError`, which is remembered, where the child could not load what it runs."""
        kind, code, retry = child.kind, child.exit_code, LOAD_RETRY_S
        if child.loaded or child.ended_by_us or self.stopping:
            return WorkerError(error.message, hint=error.hint)
        if not isinstance(error, LoadError):
            # One that is killed from outside says little of its libraries. It may be the kernel, for want of memory: that happens again.
            fault = code is not None and (-code in _FAULTS or 0 <= code < FORKSERVER_GONE)
            if not fault:
                self._killed_loading[kind] += 1
                if (killed := self._killed_loading[kind]) == 1:
                    return WorkerError(error.message, hint=error.hint)
                retry = min(LOAD_RETRY_S, KILLED_RETRY_S * 2.0 ** min(20, killed - 2))
            fate = error.message.removeprefix(f"the {kind} child ").removesuffix(" before its report")
            hint = "a library was built for another processor: install a build for this one" if code == -signal.SIGILL else error.hint
            error = LoadError(f"the {kind} child cannot load its program: it {fate}", hint=hint)
        self.unloadable[kind] = Unloadable(str(error), time.monotonic(), self._state(), retry)
        return error

    async def prepare(self, kind: str, threads: int) -> None:
        """Start a child ahead of its order, which is still waiting for something, and have it import what it needs meanwhile.

        `run` gives it the order, or ends it where the order is of another kind; without one it ends after `READY_S`. It raises nothing if
        that fails: `held_back` tells if no other would fare better, else `run` starts another. Must not overlap with a `run` of the
        same kind.
        """
        if self.stopping or kind in self._idle:
            return
        with suppress(WorkerError):
            child = self._idle[kind] = await self._start(kind, eager=threads)
            try:
                async with asyncio.timeout(READY_S):
                    await child.until_loaded()
            except (WorkerError, TimeoutError) as error:
                await asyncio.shield(child.end())
                if isinstance(error, WorkerError):
                    self._judged(child, error)
            else:
                asyncio.get_running_loop().call_later(READY_S, self._retire, child, child.beat)

    def cancel(self, job: int) -> None:
        """End the child that works on this job; its `run` raises."""
        for child in [child for child, its_job in self._busy.items() if its_job == job]:
            child.ended_by_us = "was cancelled"
            child.end()

    async def stop(self) -> None:
        """End all children, then the forkserver and its helper. Idempotent; under three seconds."""
        self.stopping = True
        for child in self._all:
            child.ended_by_us = "was stopped"
        await asyncio.gather(*(child.end() for child in tuple(self._all)))
        await forkserver.stop()

    async def _start(self, kind: str, eager: int | None = None) -> _Child:
        settings = Settings(kind, self._runners[kind], self.nice, self.memory_mb, logs.level(), eager, self._confined_to)
        try:
            here, there = socket.socketpair()
        except OSError as error:
            raise _not_started(kind, error) from error
        try:
            process = await forkserver.start(child_side.main, there, settings, name=f"cryptod-{kind}")
            here.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=here)
            child = _Child(kind, process, reader, writer, self._forget)
        except OSError as error:
            here.close()
            raise _not_started(kind, error) from error
        except BaseException:
            here.close()  # a child that starts nevertheless finds its wire cut, and ends
            raise
        self._all.add(child)
        if self.stopping:
            await child.end()
            raise WorkerError("the daemon is stopping")
        return child

    def _forget(self, child: _Child) -> None:
        self._all.discard(child)
        if self._idle.get(child.kind) is child:
            del self._idle[child.kind]

    async def _give(self, child: _Child, order: Order, on_report: Callable[[Report], None], deadline_s: float, silence_s: float) -> Report:
        self._busy[child] = order.job
        try:
            report = await child.carry_out(order, on_report, deadline_s, silence_s)
        except BaseException:
            await asyncio.shield(child.end())
            raise
        finally:
            self._busy.pop(child, None)
        if self._linger[child.kind] > 0 and not isinstance(report, Failed) and not self.stopping:
            self._idle[child.kind] = child
            asyncio.get_running_loop().call_later(self._linger[child.kind], self._retire, child, child.beat)
        else:
            await asyncio.shield(child.end(gently=True))
        return report

    def _retire(self, child: _Child, beat: float) -> None:
        """End a child that has had no order since."""
        if self._idle.get(child.kind) is child and child.beat == beat:
            del self._idle[child.kind]
            child.end(gently=True)


class _Deaf(WorkerError):
    """The child ended before it reported anything on the order."""


class _Child:
    """One child process and the wire to it."""

    def __init__(
        self,
        kind: str,
        process: ForkServerProcess,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        forget: Callable[[_Child], None],
    ) -> None:
        assert process.pid is not None
        self.kind, self.pid = kind, process.pid
        self.ended_by_us = ""
        self.loaded = False
        self.started = self.beat = time.monotonic()
        self._process, self._reader, self._writer, self._forget = process, reader, writer, forget
        self._gone = asyncio.Event()
        self._ending: asyncio.Task[None] | None = None
        self.exit_code: int | None = None
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:  # dead already
            self._pidfd = -1
            self._gone.set()
        else:
            asyncio.get_running_loop().add_reader(self._pidfd, self._see_end)

    async def carry_out(self, order: Order, on_report: Callable[[Report], None], deadline_s: float, silence_s: float) -> Report:
        """Send the order and hear it out; the last report. `WorkerError` if it does not come, `_Deaf` if none came."""
        data = _encode(order)
        self.beat = time.monotonic()
        end = self.beat + deadline_s
        heard = False
        try:
            self._writer.write(len(data).to_bytes(LENGTH, "big") + data)
            while True:
                patience = min(silence_s, end - time.monotonic())
                try:
                    async with asyncio.timeout(max(0.0, patience)):
                        report = await self._report()
                        if isinstance(report, Loaded):
                            self.loaded = True
                            continue
                except TimeoutError:
                    late = end <= time.monotonic()
                    why = f"took longer than {deadline_s:.0f} s" if late else f"has said nothing for {silence_s:.0f} s"
                    raise WorkerError(f"the {self.kind} child {why} and was ended", hint="it is tried again") from None
                heard, self.beat = True, time.monotonic()
                if isinstance(report, Failed) and report.loading:
                    raise LoadError(report.error, hint=report.hint)
                on_report(report)
                if isinstance(report, _FINAL):
                    return report
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.end(gently=True)  # it dies by itself; wait for the word of how
            fate, hint = (self.ended_by_us, "") if self.ended_by_us else _fate(self.exit_code)
            raise (WorkerError if heard or self.ended_by_us else _Deaf)(f"the {self.kind} child {fate}", hint=hint) from None

    async def until_loaded(self) -> None:
        """Wait until it has loaded what it runs, before it has an order. `LoadError` if it cannot, `_Deaf` if it ends."""
        try:
            report = await self._report()
        except (asyncio.IncompleteReadError, ConnectionError):
            await self.end(gently=True)
            fate, hint = _fate(self.exit_code)
            raise _Deaf(f"the {self.kind} child {fate}", hint=hint) from None
        if isinstance(report, Failed):
            raise LoadError(report.error, hint=report.hint)
        self.loaded = True

    async def _report(self) -> Report:
        length = int.from_bytes(await self._reader.readexactly(LENGTH), "big")
        if length > MAX_MESSAGE:
            raise WorkerError(f"the {self.kind} child sent a report of {length} bytes", hint="a defect")
        try:
            return _decode(await self._reader.readexactly(length))
        except msgspec.MsgspecError as error:
            raise WorkerError(f"the {self.kind} child sent a report that is none: {error}", hint="a defect") from error

    def end(self, *, gently: bool = False, why: str = "") -> asyncio.Task[None]:
        """Make sure that it is gone: hung up on, asked (SIGTERM) and, after a moment, killed. Once, however often asked."""
        self.ended_by_us = self.ended_by_us or why
        if self._ending is None:
            self._ending = asyncio.ensure_future(self._end(gently))
        return self._ending

    async def _end(self, gently: bool) -> None:
        self._writer.close()
        steps = ((signal.SIGTERM, TERM_GRACE), (signal.SIGKILL, TERM_GRACE))
        if not (gently and await self._gone_within(EXIT_GRACE)):
            for number, patience in steps:
                self._signal(number)
                if await self._gone_within(patience):
                    break
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        await asyncio.to_thread(self._process.join, TERM_GRACE)  # the forkserver says how it ended
        self.exit_code = self._process.exitcode
        if self.exit_code is not None:
            self._process.close()
        self._forget(self)

    def _see_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self._gone.set()
        self.end()  # also of one that nobody waits for

    async def _gone_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._gone.wait()
        except TimeoutError:
            return False
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                pass  # gone in this moment; a pidfd never means another process


def _not_started(kind: str, error: OSError) -> WorkerError:
    hint = _NOT_STARTED.get(error.errno or 0, "too many processes, or out of memory?")
    return WorkerError(f"the {kind} child could not be started: {error.strerror or error}", hint=hint)


def _fate(code: int | None) -> tuple[str, str]:
    """How a child ended, and what to do about it."""
    if code is None or code == FORKSERVER_GONE:
        return "ended, and nobody saw how", "the kernel's log says whether memory ran out"
    if code == -signal.SIGKILL:
        return "was killed (SIGKILL)", "out of memory? see the kernel's log, worker.memory_mb and MemoryMax="
    if code == -signal.SIGABRT:
        return "was aborted (SIGABRT)", "a library ran out of memory or met a defect; its last words are in the log"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}", ""
    return f"ended with exit code {code} before its report", "the log has its last words; worker.memory_mb may be too small"


_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], Report] = msgspec.msgpack.Decoder(Report).decode
