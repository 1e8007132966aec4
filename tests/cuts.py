"""Cuts and refusals: a piece of work in a real child process, killed (SIGKILL) just before the k-th call that changes a file, or living
on while the kernel, as it seems to it, refuses that call: a full disk, a failing one, a file system that has become read-only.

The child is traced (ptrace), so the calls of C libraries such as LMDB count as Python's do, and nothing of the code
that is tested is replaced.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator

import pytest

_X86_64 = {1, 18, 20, 26, 74, 75, 76, 77, 82, 83, 84, 87, 91, 257, 258, 263, 264, 268, 277, 285, 296, 316, 328}
"""write pwrite64 writev msync fsync fdatasync truncate ftruncate rename mkdir rmdir unlink fchmod openat mkdirat unlinkat
renameat fchmodat sync_file_range fallocate pwritev renameat2 pwritev2"""
_AARCH64 = {34, 35, 38, 45, 46, 47, 52, 53, 56, 64, 66, 68, 70, 82, 83, 84, 227, 276, 287}
_CHANGING = {"x86_64": _X86_64, "aarch64": _AARCH64}.get(platform.machine(), set())
_BY_DESCRIPTOR = {1, 18, 20, 74, 75, 77, 91, 277, 285, 296, 328}
"""Those whose first argument is a descriptor (x86-64)."""
_OPENAT = {"x86_64": 257, "aarch64": 56}.get(platform.machine())

_POKEUSER, _ORIG_RAX, _RAX = 6, 8 * 15, 8 * 10
_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_EXITKILL_AND_SYSGOOD = (1 << 20) | 1
_STEP = signal.SIGTRAP | 0x80

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def cut(work: Callable[[], None], at: int) -> bool:
    """Run ``work`` in a child and kill it before its ``at``-th change (from 1). False: it came to its end before that."""
    child, info = _traced(work)
    changes = 0
    while _next_stop(child):
        if _is_change(child, info):
            changes += 1
            if changes == at:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return True
    return False


def refuse(work: Callable[[], None], at: int, error: int, *, for_good: bool) -> bool:
    """Run ``work`` in a child to its end; its ``at``-th change of a file (from 1) fails with the error number ``error``, and with
    ``for_good`` every later one too. False: there were fewer changes."""
    if platform.machine() != "x86_64":
        pytest.skip("refusing a system call is written for x86-64 only")
    child, info = _traced(work)
    changes, refusing = 0, False
    while _next_stop(child):
        if refusing:  # the call that was made none comes back
            _libc.ptrace(_POKEUSER, child, _RAX, -error)
            refusing = False
        elif _is_change(child, info) and _is_of_a_file(child, info):
            changes += 1
            if changes == at or (for_good and changes > at):
                _libc.ptrace(_POKEUSER, child, _ORIG_RAX, -1)
                refusing = True
    return changes >= at


def _traced(work: Callable[[], None]) -> tuple[int, ctypes.Array[ctypes.c_char]]:
    """A child that will do the work, stopped, and room for what the kernel says of its calls."""
    if not _CHANGING:
        pytest.skip(f"no table of system calls for {platform.machine()}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads: the child only runs `work`
        child = os.fork()
    if child == 0:
        _run(work)
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status) or _libc.ptrace(_SETOPTIONS, child, None, _EXITKILL_AND_SYSGOOD) != 0:
        pytest.skip("this process may not trace another (ptrace)")
    return child, ctypes.create_string_buffer(88)


def _next_stop(child: int) -> bool:
    """Let it run to its next call, or to the end of that. False: it has come to its end."""
    deliver = 0
    while True:
        _libc.ptrace(_SYSCALL, child, None, deliver)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0, "the work failed in the child; its traceback is above"
            return False
        if os.WSTOPSIG(status) == _STEP:
            return True
        deliver = os.WSTOPSIG(status)


def every_refusal(work: Callable[[], None], error: int, *, for_good: bool, last: int = 1000) -> Iterator[int]:
    """As `every_cut`, with refusals; the last number that comes is of the run in which nothing was refused."""
    for at in range(1, last):
        was_refused = refuse(work, at, error, for_good=for_good)
        yield at
        if not was_refused:
            return
    raise AssertionError(f"more than {last} changes")


def every_cut(work: Callable[[], None], last: int = 1000) -> Iterator[int]:
    """Cut ``work`` before its first change, its second, and so on; after the yield of each the world can be looked at.

    The last number that comes is of the run that was not cut.
    """
    for at in range(1, last):
        was_cut = cut(work, at)
        yield at
        if not was_cut:
            return
    raise AssertionError(f"more than {last} changes")


def _is_change(child: int, info: ctypes.Array[ctypes.c_char]) -> bool:
    _libc.ptrace(_GET_SYSCALL_INFO, child, len(info), ctypes.cast(info, ctypes.c_void_p))
    entering, number = info.raw[0] == 1, int.from_bytes(info.raw[24:32], "little")
    if number == _OPENAT and not int.from_bytes(info.raw[48:56], "little") & os.O_CREAT:
        return False
    return entering and number in _CHANGING


def _is_of_a_file(child: int, info: ctypes.Array[ctypes.c_char]) -> bool:
    """Whether it is not a pipe, a terminal or a socket that is written to."""
    if int.from_bytes(info.raw[24:32], "little") not in _BY_DESCRIPTOR:
        return True
    path = os.readlink(f"/proc/{child}/fd/{int.from_bytes(info.raw[32:36], 'little')}")
    return path.startswith("/") and not path.startswith(("/dev/", "/proc/"))


def _run(work: Callable[[], None]) -> None:
    """The child's side; does not return."""
    code = 1
    try:
        if _libc.ptrace(_TRACEME, 0, None, None) == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
        work()
        code = 0
    except BaseException:  # noqa: BLE001 - the child ends here, and says why
        traceback.print_exc()
    finally:
        os._exit(code)
