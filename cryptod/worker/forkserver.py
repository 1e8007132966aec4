"""The forkserver: the small process that children are forked from, so that the daemon never forks.

Knows the few private corners of `multiprocessing` that it takes to start one clean and to end it; nothing of orders. What
the standard library's own way leaves open, and this closes:

* its processes inherit the daemon's environment, with systemd's NOTIFY_SOCKET in it: started without;
* each child would import the daemon's ``__main__``, be it a console script or pytest: they find an empty one;
* Ctrl-C, which goes to the whole group, would end a forkserver that is just starting: SIGINT is blocked in it;
* one that hangs would hang the start of a child, or the end of the daemon, for ever: both have a time-out.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, process, resource_tracker
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Final

STRIPPED: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
"""What systemd told the daemon is not for its children: a child's word must not pass for the daemon's."""
ADDED: Final = {
    "MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "4194304", "MALLOC_TRIM_THRESHOLD_": "16777216", "OMP_WAIT_POLICY": "passive",
}  # fmt: skip
"""For glibc, which by itself keeps freed memory in eight arenas a core and stops returning large arrays after the first one: 50 MB less at
the peak of a full retrain. From 4 MB on an array is given back when it is freed; with 1 MB, which spares another 10 MB, an update has
400,000 page faults, as every piece of 8,192 rows is one more array, and takes half as long again. For OpenMP, whose threads spin while they
wait: niced and beside other work, two of them took more than 300 s for what takes 32 s when they sleep."""
_MAX_FOLDER: Final = 90
"""A Unix socket's path has 107 bytes at most, with `/listener-` and eight characters."""
START_S: Final = 10.0
STOP_S: Final = 1.0
AGAIN_S: Final = 0.1
_lock = threading.Lock()


def keep_files_in(directory: str) -> None:
    """Let the forkserver have its socket in this folder, and remove those that a killed daemon left there.

    Otherwise it is in a folder under /tmp that nobody removes after a SIGKILL. A folder whose path is too long for a
    socket's goes by the number of a descriptor.
    """
    folder = Path(directory)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if len(os.fsencode(folder)) > _MAX_FOLDER:
        directory = f"/proc/self/fd/{os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)}"
    for name in ("listener-*", "sock-*"):  # the second from Python 3.14 on
        for left in folder.glob(name):
            left.unlink(missing_ok=True)
    config: dict[str, Any] = process.current_process()._config  # type: ignore[attr-defined]
    config["tempdir"] = directory


async def start(target: Callable[..., None], wire: socket.socket, *arguments: Any, name: str) -> ForkServerProcess:
    """A new child that runs ``target(wire, *arguments)``; ``wire`` is closed on this side. OSError if that fails."""
    for again in (True, True, False):
        task = asyncio.ensure_future(asyncio.to_thread(_launch, target, wire, arguments, name))
        try:
            done, _ = await asyncio.wait({task}, timeout=START_S)
            if not done:
                _kill(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]
            started = await task
        except (EOFError, ConnectionError, BrokenPipeError) as error:
            if again:
                # The forkserver was ended in this moment. The next start finds that out and makes another, once the kernel is done with it.
                with _closed_on_error(wire):
                    await asyncio.sleep(AGAIN_S)
                continue
            wire.close()
            raise OSError("the forkserver does not start") from error
        except BaseException:
            task.add_done_callback(lambda _: wire.close())
            raise
        wire.close()
        return started
    raise AssertionError


@contextlib.contextmanager
def _closed_on_error(wire: socket.socket) -> Iterator[None]:
    try:
        yield
    except BaseException:
        wire.close()
        raise


def _launch(target: Callable[..., None], wire: socket.socket, arguments: tuple[Any, ...], name: str) -> ForkServerProcess:
    """Waits for the forkserver, hence in a thread: 50 ms when it has to be started, 2 ms later."""
    context = multiprocessing.get_context("forkserver")
    child = context.Process(target=target, args=(wire, *arguments), name=name, daemon=True)
    with _lock, _clean_process():
        context.set_forkserver_preload([])
        resource_tracker.ensure_running()  # first, because at its end it unblocks SIGINT in this thread
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        child.start()
    return child


@contextlib.contextmanager
def _clean_process() -> Iterator[None]:
    """The environment and the main module that forkserver and child are to see."""
    kept = {name: os.environ.pop(name) for name in STRIPPED if name in os.environ}
    added = {name: value for name, value in ADDED.items() if name not in os.environ}
    main = sys.modules["__main__"]
    os.environ.update(added)
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        os.environ.update(kept)
        for name in added:
            os.environ.pop(name, None)


def reap_orphans() -> None:
    """As PID 1 of a container: wait for what has ended and was left to us, so that no zombie stays.

    The forkserver and its helper are left to `multiprocessing`, which waits for them. While one of them starts its number is
    not known, so nothing is done then; the next call does it.
    """
    if not _lock.acquire(blocking=False):
        return
    try:
        ours = {forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid}  # type: ignore[attr-defined]
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it is gone, or was waited for in this moment
                state, parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:2]
                if (state, int(parent)) == ("Z", os.getpid()) and int(name) not in ours:
                    os.waitpid(int(name), os.WNOHANG)
    finally:
        _lock.release()


async def stop() -> None:
    """End the forkserver and the resource tracker that comes with it. All children must be gone. Idempotent."""
    for helper, pid in (
        (forkserver._forkserver, forkserver._forkserver._forkserver_pid),  # type: ignore[attr-defined]
        (resource_tracker._resource_tracker, resource_tracker._resource_tracker._pid),  # type: ignore[attr-defined]
    ):
        if pid is not None:
            task = asyncio.ensure_future(asyncio.to_thread(_stop_helper, helper))
            done, _ = await asyncio.wait({task}, timeout=STOP_S)
            if not done:
                _kill(pid)
            await task


def _stop_helper(helper: Any) -> None:
    """Closes the helper's pipe and waits for its end: a private method that is there from Python 3.8 to 3.14."""
    with contextlib.suppress(OSError):  # its socket or the process itself is gone already
        helper._stop()


def _kill(pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
