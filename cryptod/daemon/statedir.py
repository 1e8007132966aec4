"""The state directory: one daemon's alone, with the serving store in it, which is put aside and begun anew when damaged."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from cryptod import logs
from cryptod.errors import ConfigError, DamagedError, StoreError
from cryptod.store import forecasts, jobs, ledger
from cryptod.store.environment import Environment, open_environment, put_aside

_REMEDIES = {
    errno.EROFS: "its file system is mounted read-only: mount it read-write (dmesg says why it is not), or set storage.directory",
    errno.ENOSPC: "free some space on that file system, or set storage.directory",
}

log = logs.get_logger("service")


def lock(root: Path, stack: contextlib.AsyncExitStack, pid: int) -> None:
    """One daemon for one state directory, until ``stack`` unwinds: two would overwrite each other's files.

    Raises `StoreError` where the directory cannot be used, `ConfigError` where another daemon has it.
    """
    try:
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        handle = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check its rights, or set storage.directory")
        raise StoreError(f"the state directory {root} cannot be used: {error.strerror}", hint=remedy) from error
    stack.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        other = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise ConfigError(f"another cryptod (process {other}) runs on {root}", hint="stop it, or set storage.directory") from None
    with contextlib.suppress(OSError):  # for people who look; on a full disk they have to do without
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{pid}\n".encode(), 0)


def open_serving(path: Path, now: int) -> tuple[Environment, str]:
    """The store of forecasts, ledger and jobs, and what was wrong with the one before.

    A damaged one is put aside under the time ``now``, never deleted, and a new one begun. Raises `StoreError`.
    """
    databases = (*forecasts.DATABASES, *jobs.DATABASES, *ledger.DATABASES)
    try:
        environment = open_environment(path, databases=databases, writer=True)
        with contextlib.suppress(StoreError):  # a full disk: the next start sees it again
            ledger.Ledger(environment).note_unscored()
        return environment, ""
    except DamagedError as error:
        aside = path.with_name(f"{path.name}.damaged-{now}")
        put_aside(path, aside, error)
        log.error("the serving store was damaged and a new one is begun", error=error.message, aside=str(aside))
        return open_environment(path, databases=databases, writer=True), f"{error.message}; it was put aside as {aside}"
