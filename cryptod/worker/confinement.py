"""What a child may change: a few files and folders of the state, and nothing else (Landlock, Linux 5.13 and newer).

Knows system calls and paths; nothing of what a child does. Reading is left as it is: a child loads libraries, certificates and
settings from all over the system. Where the kernel has no Landlock, or a filter forbids it, nothing is confined.
See landlock(7); https://docs.kernel.org/userspace-api/landlock.html.
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from typing import Final, NamedTuple

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
"""System calls; the same numbers on every architecture."""
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1
_NO_NEW_PRIVS: Final = 38

_WRITE_FILE, _TRUNCATE, _REFER = 1 << 1, 1 << 14, 1 << 13
_CHANGES: Final = 0x1FF << 4
"""Bits 4 to 12: to remove folders and files, and to make devices, folders, files, sockets, pipes and links."""
_CONNECT_AND_BIND_TCP: Final = 0b11


class Rights(NamedTuple):
    """``folders`` in which and ``files`` to which a child may write; ``network``: whether it may use TCP."""

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    network: bool = False


def confine(rights: Rights) -> bool:
    """Give up, for good and for all threads and processes that this thread starts, every other right to change files.

    Returns whether the kernel took it. Folders and files that are missing are made first, where they can be made. Call it before any
    thread is started.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if version < 1:
        return False
    changes = _WRITE_FILE | _CHANGES
    changes |= _REFER if version >= 2 else 0
    changes |= _TRUNCATE if version >= 3 else 0
    network = _CONNECT_AND_BIND_TCP if version >= 4 and not rights.network else 0
    attributes = struct.pack("=QQ", changes, network)
    ruleset = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes) if network else 8), 0)
    if ruleset < 0:
        return False
    try:
        for folder in (*rights.folders, *map(os.path.dirname, rights.files)):
            with suppress(OSError):  # a full disk: the store says so when it is opened
                os.makedirs(folder, 0o700, exist_ok=True)
        for folder in rights.folders:
            _allow(libc, ruleset, folder, changes)
        for file in (*rights.files, os.devnull):
            _allow(libc, ruleset, file, changes & (_WRITE_FILE | _TRUNCATE), os.O_WRONLY | os.O_CREAT)
        return bool(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and libc.syscall(_RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, changes: int, how: int = os.O_RDONLY) -> None:
    try:
        handle = os.open(path, how | os.O_CLOEXEC, 0o600)
    except OSError:
        return
    try:
        libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("=Qi", changes, handle), 0)
    finally:
        os.close(handle)


def rights_of(kind: str, state: str) -> Rights:
    """What a child of this kind needs of the state directory ``state``. Readers of LMDB write their names into its lock file."""
    candles, checkpoints = f"{state}/candles", f"{state}/checkpoints"
    locks = f"{state}/candles/lock.mdb", f"{state}/serving/lock.mdb"
    return {
        "collect": Rights((candles,), network=True),
        "train": Rights((checkpoints,), locks[:1]),
        "backup": Rights((f"{state}/backup",), locks),
    }.get(kind, Rights((), locks))
