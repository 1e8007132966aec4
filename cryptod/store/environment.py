"""An LMDB environment with our rules around it: the one way in to a store on disk.

Knows lmdb, and nothing of what is kept: keys and values are bytes. It answers for the traps: the schema's version,
a map that grows by itself, a map that another process has grown, readers that died, a fork, a file that was cut
short, a full disk. Whatever lmdb has to say leaves here as a `StoreError` that names the path and what to do.

One process writes an environment; any number may read it. Every commit is durable (fsynced) when `write` returns.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar, cast

import lmdb
from lmdb.verify import VerifyError, verify

from cryptod.errors import DamagedError, StoreError
from cryptod.store.files import sync_folder

T = TypeVar("T")
_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
Bytes = bytes | memoryview
Upgrade = Callable[["Transaction"], None]
Opened = tuple[lmdb.Environment, Mapping[str, lmdb._Database]]

FIRST_MAP_SIZE: Final = 256 << 20
"""The map costs address space, not memory or disk; it is doubled when it is full."""
LAST_MAP_SIZE: Final = 1 << 40
MAX_READERS: Final = 1024
"""Slots of 64 bytes in the lock file. A slot is taken per open read transaction, so this is generous."""
LOCK_BYTES: Final = 64 * MAX_READERS + 128

_RELEASE_S: Final = 0.1
_FULL_BELOW: Final = 4 << 20
_SCHEMA_DATABASE: Final = "schema"
_SCHEMA_KEY: Final = b"version"

_SET_ASIDE: Final = "stop cryptod and move the folder away: what can be fetched again will be"
_DAMAGED: Final = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError)
_REMEDIES: Final[tuple[tuple[type[lmdb.Error], str, str], ...]] = (
    (lmdb.DiskError, "is on a full disk", "free some space, then it goes on by itself"),
    (lmdb.MapFullError, "has outgrown its map", "free some space in it: is a retention period too long?"),
    (lmdb.ReadonlyError, "may not be written", "check the rights of the folder and that its file system is not mounted read-only"),
    (lmdb.CorruptedError, "is damaged", _SET_ASIDE),
    (lmdb.PageNotFoundError, "is damaged", _SET_ASIDE),
    (lmdb.InvalidError, "is not a store, or is damaged", _SET_ASIDE),
    (lmdb.VersionMismatchError, "was written by another version of LMDB", _SET_ASIDE),
    (lmdb.PanicError, "has failed while it was being written", "check the disk (dmesg); it is tried again"),
    (lmdb.ReadersFullError, "has too many readers", "end the processes that hold it open"),
    (lmdb.LockError, "is locked", "is another cryptod running on the same state directory?"),
    (lmdb.MemoryError, "could not be mapped: out of memory", "give the process more address space (ulimit -v)"),
)


class Transaction:
    """One short look at, or change of, an environment. Never keep one, or what it lent, beyond its block.

    In a reading transaction opened with ``lend=True`` values are memoryviews into the map (no copy), valid until the
    block ends; everywhere else they are bytes.
    """

    def __init__(self, txn: lmdb.Transaction[bytes], databases: Mapping[str, lmdb._Database]) -> None:
        self._txn, self._databases = txn, databases

    def get(self, database: str, key: bytes) -> bytes | None:
        """The value, or None. (A memoryview in a lending transaction.)"""
        return self._txn.get(key, db=self._databases[database])

    def put(self, database: str, key: bytes, value: Bytes) -> None:
        self._txn.put(key, value, db=self._databases[database])

    def delete(self, database: str, key: bytes) -> bool:
        """Whether it was there."""
        return self._txn.delete(key, db=self._databases[database])

    def clear(self, database: str) -> None:
        """Delete all records of a database."""
        self._txn.drop(self._databases[database], delete=False)

    def count(self, database: str) -> int:
        return self._txn.stat(self._databases[database])["entries"]

    def scan(self, database: str, start: bytes = b"", stop: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Records with ``start <= key < stop`` in order of their keys. Do not change the database meanwhile."""
        with self._txn.cursor(self._databases[database]) as cursor:
            found = cursor.set_range(start) if start else cursor.first()
            if not found:
                return
            for key, value in cursor.iternext():
                if stop is not None and bytes(key) >= stop:
                    return
                yield bytes(key), value

    def last(self, database: str, before: bytes | None = None) -> tuple[bytes, bytes] | None:
        """The record with the largest key (below ``before``, if given)."""
        with self._txn.cursor(self._databases[database]) as cursor:
            found = cursor.last() if before is None or not cursor.set_range(before) else cursor.prev()
            return (bytes(cursor.key()), cursor.value()) if found else None


class Environment:
    """See `open_environment`. May be used by several threads; transactions of one thread must not be nested."""

    def __init__(self, path: Path, opened: Callable[[], Opened], *, writer: bool) -> None:
        self.path, self.writer = path, writer
        self._opened = opened
        self._env, self._databases = opened()
        self._pid = os.getpid()
        self._idle = threading.Condition()
        self._open = 0  # transactions now open: the map must not move under them

    @contextmanager
    def read(self, *, lend: bool = False) -> Iterator[Transaction]:
        """A consistent look at the store. ``lend=True``: values are memoryviews into the map instead of copies.

        Never yield to a caller from within the block: an open transaction keeps old pages from being reused.
        """
        txn = self._begin_read(lend)
        try:
            yield Transaction(txn, self._databases)
        except lmdb.Error as error:
            raise _translated(error, self.path, "read") from error
        finally:
            txn.abort()
            self._leave()

    def write(self, change: Callable[[Transaction], T]) -> T:
        """Carry out ``change`` in one transaction: all of it is on disk when this returns, or none.

        ``change`` may be called again after the map has grown, so it must have no effects but on its transaction.
        """
        while True:
            self._enter()
            try:
                with self._env.begin(write=True) as txn:
                    return change(Transaction(txn, self._databases))
            except (lmdb.MapFullError, lmdb.MapResizedError, lmdb.PanicError) as error:
                reason: lmdb.Error = error
            except lmdb.Error as error:
                raise _translated(error, self.path, "write") from error
            finally:
                self._leave()
            self._renew(reason)

    def used_bytes(self) -> int:
        """Size of the data file: its pages in use and those that are free to be used again."""
        return int(self._env.info()["last_pgno"] + 1) * int(self._env.stat()["psize"])

    def release(self) -> None:
        """Give back the pages of the map that were read, which count as this process' memory until it does; they stay in the page cache.

        At any time: what is open reads on, and what is wanted again is mapped again.
        """
        _release(self.path)

    def close(self) -> None:
        """Idempotent."""
        self._env.close()

    def __enter__(self) -> Environment:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _begin_read(self, lend: bool) -> lmdb.Transaction[bytes]:
        while True:
            self._enter()
            try:
                # What is lent (memoryviews) reads as bytes do.
                return cast("lmdb.Transaction[bytes]", self._env.begin(buffers=True) if lend else self._env.begin())
            except (lmdb.MapResizedError, lmdb.PanicError) as error:
                self._leave()
                reason: lmdb.Error = error
            except lmdb.Error as error:
                self._leave()
                raise _translated(error, self.path, "read") from error
            self._renew(reason)

    def _enter(self) -> None:
        if os.getpid() != self._pid:
            raise StoreError(f"{self.path} was opened before a fork", hint="a child opens its own: the locks do not cross a fork")
        with self._idle:
            self._open += 1

    def _leave(self) -> None:
        with self._idle:
            self._open -= 1
            self._idle.notify_all()

    def _renew(self, reason: lmdb.Error) -> None:
        """Grow the map (it is full), adopt the size that another process has given it, or open anew what LMDB has given up.

        LMDB does nothing more with an environment once its last page could not be written; what is on disk is sound.
        """
        with self._idle:
            if not self._idle.wait_for(lambda: self._open == 0, timeout=10.0):
                raise StoreError(f"{self.path} cannot grow: it is being read all the time", hint="keep transactions short")
            if isinstance(reason, lmdb.PanicError):
                self._env.close()
                self._env, self._databases = self._opened()
                return
            size = 0
            if isinstance(reason, lmdb.MapFullError):
                size = 2 * int(self._env.info()["map_size"])
                if size > LAST_MAP_SIZE:
                    raise _translated(reason, self.path, "write") from reason
            try:
                self._env.set_mapsize(size)
            except lmdb.Error as error:
                raise _translated(error, self.path, "grow") from error


def open_environment(
    path: Path,
    *,
    databases: Sequence[str],
    writer: bool,
    map_size: int = FIRST_MAP_SIZE,
    schema: int = 1,
    upgrades: Mapping[int, Upgrade] | None = None,
) -> Environment:
    """Open the environment in the folder ``path`` with its named ``databases``; a writer creates what is missing.

    ``schema`` is the version of what is kept; ``upgrades[n]`` turns a store of version ``n`` into one of ``n + 1``, and
    all the steps a writer needs are carried out in one transaction. Raises `StoreError`: nothing there (readers),
    written by a newer cryptod, not yet upgraded (readers), no rights, no space; `DamagedError`: damaged.
    """
    if writer:
        try:
            made = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in made:
                sync_folder(folder.parent)
        except OSError as error:
            raise StoreError(f"{path} cannot be made: {error.strerror}", hint="check the rights of the state directory") from error
    elif not (path / "data.mdb").exists():
        raise StoreError(f"there is no store at {path} yet", hint="the first run of its writer makes it")
    if writer:
        refuse_if_damaged(path)
        _reserve_locks(path)

    def opened() -> Opened:
        try:
            env = lmdb.open(
                str(path),
                map_size=map_size,
                readonly=not writer,
                create=False,  # the folder; the files in it are a writer's to make
                mode=0o700,
                # Reading ahead would map pages that nobody asked for, and they count as this process' memory.
                readahead=False,
                max_readers=MAX_READERS,
                max_dbs=len(databases) + 1,
            )
        except (lmdb.Error, OSError) as error:
            raise _translated(error, path, "open") from error
        try:
            _refuse_if_cut_short(env, path)
            env.reader_check()
            if writer:
                sync_folder(path)  # a new data.mdb is in it for good
            return env, _create(env, path, databases, schema, upgrades or {}) if writer else _attach(env, path, databases, schema)
        except (lmdb.Error, OSError) as error:
            env.close()
            raise _translated(error, path, "open") from error
        except StoreError:
            env.close()
            raise

    return Environment(path, opened, writer=writer)


def _release(path: Path) -> None:
    file = str(path.resolve() / "data.mdb")
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        ranges = [line.split()[0].split("-") for line in maps if line.rstrip("\n").endswith(f" {file}")]
    for start, end in ranges:
        # Of a shared mapping of a file, which LMDB's is, only this process' view of the pages goes.
        _madvise(int(start, 16), int(end, 16) - int(start, 16), mmap.MADV_DONTNEED)


def _keep_released(path: Path, done: threading.Event) -> None:
    """A copy reads every page of the map; all of them together may be more than this process may hold."""
    while not done.wait(_RELEASE_S):
        _release(path)


def copy_environment(path: Path, folder: Path) -> None:
    """Write ``folder``/data.mdb, a compacted copy of the environment at ``path``; its writer may go on. Raises `StoreError`."""
    try:
        # All databases come along, so none has to be named. The map has to be as large as the file.
        size = max(FIRST_MAP_SIZE, (path / "data.mdb").stat().st_size)
        with lmdb.open(str(path), map_size=size, readonly=True, create=False, readahead=False, max_readers=MAX_READERS) as env:
            _refuse_if_cut_short(env, path)
            copied = threading.Event()
            releasing = threading.Thread(target=_keep_released, args=(path, copied), daemon=True)
            releasing.start()
            try:
                env.copy(str(folder), compact=True)
            finally:
                copied.set()
                releasing.join()
    except (lmdb.Error, OSError) as error:
        raise _translated(error, path, "copy") from error


def _create(
    env: lmdb.Environment, path: Path, databases: Sequence[str], schema: int, upgrades: Mapping[int, Upgrade]
) -> dict[str, lmdb._Database]:
    """Handles, after making what is missing and upgrading what is old, in one transaction."""
    while True:
        try:
            with env.begin(write=True) as txn:
                handles = {name: env.open_db(name.encode(), txn=txn) for name in (_SCHEMA_DATABASE, *databases)}
                record = txn.get(_SCHEMA_KEY, db=handles[_SCHEMA_DATABASE])
                found = schema if record is None else _known_version(record, path, schema)
                while found < schema:
                    if found not in upgrades:
                        raise StoreError(
                            f"{path} is of schema {found}, which cannot be upgraded to {schema}",
                            hint=_SET_ASIDE,
                        )
                    upgrades[found](Transaction(txn, handles))
                    found += 1
                if record != b"%d" % found:
                    txn.put(_SCHEMA_KEY, b"%d" % found, db=handles[_SCHEMA_DATABASE])
                return handles
        except lmdb.MapFullError:
            env.set_mapsize(2 * int(env.info()["map_size"]))
        except lmdb.MapResizedError:
            env.set_mapsize(0)


def _attach(env: lmdb.Environment, path: Path, databases: Sequence[str], schema: int) -> dict[str, lmdb._Database]:
    """Handles for a reader of a store of exactly this schema."""
    for _ in range(2):
        try:
            # Each in a transaction of its own: a handle made in a reading transaction ends with it.
            handles = {name: env.open_db(name.encode(), create=False) for name in (_SCHEMA_DATABASE, *databases)}
            with env.begin() as txn:
                record = txn.get(_SCHEMA_KEY, db=handles[_SCHEMA_DATABASE])
            break
        except lmdb.MapResizedError:
            env.set_mapsize(0)
        except lmdb.NotFoundError as error:
            raise StoreError(f"there is no store at {path} yet", hint="the first run of its writer makes it") from error
    else:
        raise StoreError(f"{path} grows faster than it can be opened", hint="try again")
    if record is None:
        raise StoreError(f"{path} has no schema record", hint="was it made by another program?")
    if _known_version(record, path, schema) < schema:
        raise StoreError(f"{path} is of an older schema ({record.decode()})", hint=f"its writer upgrades it to {schema} when it starts")
    return handles


def _known_version(record: bytes, path: Path, schema: int) -> int:
    if not record.isdigit():
        raise StoreError(f"the schema record of {path} is damaged", hint=_SET_ASIDE)
    if (version := int(record)) > schema:
        raise StoreError(
            f"{path} was written by a newer cryptod (schema {version}; this one knows {schema})",
            hint="install that version again, or move the folder away",
        )
    return version


def _reserve_locks(path: Path) -> None:
    """LMDB maps its lock file with holes in it; on a full disk the first touch of one would end the process (SIGBUS)."""
    try:
        handle = os.open(path / "lock.mdb", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(handle, 0, LOCK_BYTES)
        finally:
            os.close(handle)
    except OSError as error:
        raise _translated(lmdb.DiskError(str(error)) if error.errno == errno.ENOSPC else error, path, "open") from error


def refuse_if_damaged(path: Path) -> None:
    """LMDB ends the process when it meets a damaged page, so walk all of them before it is let in. Raises `DamagedError`.

    Only a writer can: others would see its pages change under way. 15 ms for 100 coins' candles of six months.
    """
    file = path / "data.mdb"
    try:
        if not file.exists() or file.stat().st_size == 0:
            return
        problems = verify(str(path))  # type: ignore[no-untyped-call]  # the one untyped module of lmdb
    except VerifyError:
        return  # not a file that can be verified (or not on this machine): lmdb itself will say so
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}", hint="check the rights of the state directory and the disk") from error
    if problems:
        raise DamagedError(f"{path} is damaged: {problems[0]}", hint=_SET_ASIDE)


def _refuse_if_cut_short(env: lmdb.Environment, path: Path) -> None:
    """Touching a mapped page beyond the end of the file kills the process (SIGBUS), so look before."""
    needed = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
    size = (path / "data.mdb").stat().st_size
    if size < needed:
        raise DamagedError(f"{path} is damaged: {size} of {needed} bytes are left", hint=_SET_ASIDE)


def _translated(error: Exception, path: Path, doing: str) -> StoreError:
    if getattr(error, "code", 0) == errno.EIO and shutil.disk_usage(path).free < _FULL_BELOW:
        error = lmdb.DiskError(str(error))  # what LMDB calls a write that was cut short by the end of the disk
    for kind, what, remedy in _REMEDIES:
        if isinstance(error, kind):
            damaged = isinstance(error, _DAMAGED)
            return (DamagedError if damaged else StoreError)(f"could not {doing}: {path} {what}", hint=remedy)
    return StoreError(f"could not {doing} {path}: {error}", hint="check the folder, its rights and the disk")


def put_aside(path: Path, aside: Path, damage: DamagedError) -> None:
    """Rename a damaged store, its folder or the file in it. Raises `StoreError`, which tells of the damage too."""
    try:
        aside.parent.mkdir(mode=0o700, exist_ok=True)
        path.replace(aside)
        for folder in {aside.parent, path.parent}:
            sync_folder(folder)
    except OSError as refused:
        raise StoreError(
            f"{damage.message}, and it cannot be put aside: {refused.strerror}", hint="check the disk and its rights"
        ) from refused
