"""Cuts: a piece of work in a real child process, killed (SIGKILL) just before the k-th call that changes a file.

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

_X86_64 = {1, 18, 20, 26, 74, 75, 76, 77, 82, 83, 84, 87, 91, 257, 258, 263, 264, 268, 277, 296, 316, 328}
"""write pwrite64 writev msync fsync fdatasync truncate ftruncate rename mkdir rmdir unlink fchmod openat mkdirat unlinkat
renameat fchmodat sync_file_range pwritev renameat2 pwritev2"""
_AARCH64 = {34, 35, 38, 45, 46, 52, 53, 56, 64, 66, 68, 70, 82, 83, 84, 227, 276, 287}
_CHANGING = {"x86_64": _X86_64, "aarch64": _AARCH64}.get(platform.machine(), set())
_OPENAT = {"x86_64": 257, "aarch64": 56}.get(platform.machine())

_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_EXITKILL_AND_SYSGOOD = (1 << 20) | 1
_STEP = signal.SIGTRAP | 0x80

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def cut(work: Callable[[], None], at: int) -> bool:
    """Run ``work`` in a child and kill it before its ``at``-th change (from 1). False: it came to its end before that."""
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
    changes, deliver = 0, 0
    info = ctypes.create_string_buffer(88)
    while True:
        _libc.ptrace(_SYSCALL, child, None, deliver)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0, "the work failed in the child; its traceback is above"
            return False
        deliver = 0 if os.WSTOPSIG(status) == _STEP else os.WSTOPSIG(status)
        if not deliver and _is_change(child, info):
            changes += 1
            if changes == at:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return True


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
