"""The state directory: one daemon's alone, and one market's. A damaged serving store is put aside and begun anew.

The folders ``candles``, ``checkpoints`` and ``serving`` at its top belong to the market that ``market.json`` names. Those
of other markets wait in ``others/NAME``, and come back when the setting goes back.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from cryptod import logs
from cryptod.daemon.collection import universe_market
from cryptod.errors import CheckpointError, ConfigError, DamagedError, StoreError
from cryptod.store import backup, candles, forecasts, jobs, ledger
from cryptod.store.environment import Environment, open_environment, put_aside
from cryptod.store.files import TEMPORARY, read_file, replace_file, sync_folder
from cryptod.store.jobs import JobStore
from cryptod.worker.messages import known_market, market_name

NETWORK: Final = frozenset(
    {
        "nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "lustre", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph", "fuse.s3fs",
        "fuse.rclone", "fuse.davfs", "davfs",
    }
)  # fmt: skip
"""Types of file systems whose files other machines may change. 9p and virtiofs are left alone: containers and virtual machines have them
for folders of their own host."""
OTHERS: Final = "others"
RECORD: Final = backup.MARKET
PARTS: Final = (*backup.STORES, backup.CHECKPOINTS)
"""What belongs to a market, with what bears the name and a suffix: a damaged store that was put aside."""

_REMEDIES = {
    errno.EROFS: "its file system is mounted read-only: mount it read-write (dmesg says why it is not), or set storage.directory",
    errno.ENOSPC: "free some space on that file system, or set storage.directory",
}

log = logs.get_logger("service")


def lock(root: Path, stack: contextlib.ExitStack | contextlib.AsyncExitStack, pid: int) -> None:
    """One daemon for one state directory, until ``stack`` unwinds: two would overwrite each other's files.

    Raises `StoreError` where the directory cannot be used, `ConfigError` where another daemon has it.
    """
    try:
        made = [folder for folder in (root, *root.parents) if not folder.exists()]
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        for folder in made:
            sync_folder(folder.parent)
        handle = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check its rights, or set storage.directory")
        raise StoreError(f"the state directory {root} cannot be used: {error.strerror}", hint=remedy) from error
    stack.callback(os.close, handle)
    refuse_network(root)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        other = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
        raise ConfigError(f"another cryptod (process {other}) runs on {root}", hint="stop it, or set storage.directory") from None
    with contextlib.suppress(OSError):  # for people who look; on a full disk they have to do without
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{pid}\n".encode(), 0)


class Settled(NamedTuple):
    """Whose the state directory is now: names of markets."""

    market: str
    was: str
    """The market that it belonged to before; the same name if nothing has changed."""
    resumed: bool
    """Whether this market's earlier state was brought back."""
    others: tuple[str, ...]
    """The markets whose state is set aside."""


def refuse_network(root: Path, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """`ConfigError` where the state directory lies on a network's file system: LMDB's locks and mapped pages cannot be relied on there."""
    try:
        device = os.stat(root).st_dev
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return
    for line in lines:  # proc(5): id, parent, major:minor, root, mount point, options, optional fields, "-", type, source
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split(" ", 1)[0]
        if len(fields) > 4 and fields[2] == f"{os.major(device)}:{os.minor(device)}" and kind in NETWORK:
            raise ConfigError(
                f"the state directory {root} lies on {fields[4]}, a file system of a network ({kind}), where the stores can be damaged",
                hint="set storage.directory to a folder on a disk of this machine",
            )


def settle(root: Path, wanted: Mapping[str, Any]) -> Settled:
    """Make the state directory ``wanted``'s (see `messages.market`): set another market's state aside, bring its own back.

    What lies at the top belongs to the market of the record, and what lies in ``others/NAME`` to NAME: this holds after
    each single step, so a start after a crash goes on where the last one ended. Nothing is ever overwritten. Raises
    `StoreError`.
    """
    name = market_name(wanted)
    try:
        for left in root.glob(f"{TEMPORARY}*"):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        recorded = _recorded(root)
        was = recorded or _found(root) or dict(wanted)
        if recorded is None:
            _record(root, was, needed=was != wanted)
        if was != wanted:
            _move(root, root / OTHERS / market_name(was))
            _record(root, wanted, needed=True)
        aside = root / OTHERS / name
        resumed = _move(aside, root) > 0
        with contextlib.suppress(OSError):  # something of somebody else's lies in it, or it is not there
            aside.rmdir()
        others = tuple(sorted(path.name for path in (root / OTHERS).glob("*") if path.is_dir()))
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "check its rights and those of what lies in it")
        text = f"the state directory {root} cannot be changed over to {name}: {error.filename}: {error.strerror}"
        raise StoreError(text, hint=remedy) from error
    settled = Settled(name, market_name(was), resumed, others)
    if settled.was != name:
        kept = str(root / OTHERS / settled.was) if settled.was in others else "nothing: there was no state yet"
        log.warning("the state belongs to another market: it is set aside", was=settled.was, now=name, kept=kept, resumed=resumed)
    elif resumed:
        log.warning("the rest of this market's state is brought back: the last start ended within", market=name)
    return settled


def _recorded(root: Path) -> dict[str, Any] | None:
    """The market that the record names; None where there is no sound record."""
    try:
        return known_market(json.loads(read_file(root / RECORD)))
    except (FileNotFoundError, CheckpointError, ValueError, RecursionError):
        return None


def _record(root: Path, market: Mapping[str, Any], *, needed: bool) -> None:
    """Write down whose the top is. Where nothing depends on it a full disk may keep us from it: the next start tries again."""
    try:
        replace_file(root / RECORD, json.dumps(market).encode())
    except OSError:
        if needed:
            raise


def _found(root: Path) -> dict[str, Any] | None:
    """The market of a state that an earlier version has left: its candles name it, or its list of coins."""
    with contextlib.suppress(StoreError), candles.reading(root / "candles") as store:
        if found := known_market(store.facts("universe")):
            return found
    with contextlib.suppress(StoreError), open_environment(root / "serving", databases=jobs.DATABASES, writer=False) as serving:
        return universe_market(JobStore(serving).get("universe") or {})
    return None


def _move(source: Path, target: Path) -> int:
    """Rename a market's parts from one folder into the other, each in one step; how many there were."""
    found = [path for path in sorted(source.glob("*")) if path.name.split(".")[0] in PARTS]
    for path in found:
        target.mkdir(mode=0o750, parents=True, exist_ok=True)
        if os.path.lexists(target / path.name):
            raise StoreError(f"{path} and {target / path.name} are of one market", hint="move the one away that you do not want")
        path.rename(target / path.name)
    if found:
        sync_folder(target)
        sync_folder(source)
    return len(found)


def restore(file: Path, root: Path, now: int) -> tuple[dict[str, Any], Path]:
    """Put the backup ``file`` in the place of the state in ``root``: its head, and the folder that keeps what was there.

    ``now``: UTC ms. The state belongs to the backup's market then. Run by root, the files come to belong to the directory's owner.
    Raises `StoreError`: no sound backup, no room; `ConfigError`: a daemon runs on ``root``. Nothing has changed then.
    """
    if not file.is_file():
        raise StoreError(f"there is no file {file}", hint="`cryptoctl backup FILE` makes one")
    with contextlib.ExitStack() as stack:
        lock(root, stack, os.getpid())
        head = backup.unpack(file, root)
        owner = root.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            for folder, _, names in os.walk(root / backup.RESTORED):
                for path in (folder, *(os.path.join(folder, name) for name in names)):
                    os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
            os.chown(root / "lock", owner.st_uid, owner.st_gid, follow_symlinks=False)
        aside = backup.finish(root, now)
        assert aside is not None
        return head, aside


def finish_restore(root: Path, now: int) -> None:
    """End what a `restore` began that was cut off. Raises `StoreError`."""
    if (aside := backup.finish(root, now)) is not None:
        log.warning("a restore that was cut off is finished", before=str(aside))


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
