"""A backup: the whole state as one file, taken while the daemon runs, and put back while it does not.

Knows the folders of a state directory and the format of the file; nothing of what the stores say. The file is a gzipped tar:

    cryptod-backup.json                  format, version of cryptod, time (UTC ms), market
    checkpoints/...                      manifests and checkpoints as they are: they never change
    serving/data.mdb, candles/data.mdb   LMDB's own consistent copies, compacted
    digests.json                         size and SHA-256 of every file before it

Each store is copied in one read transaction. The two copies are taken one after the other, which is sound: the daemon compares
what it has with what it should have at every turn, and fetches or computes what one copy lacks.

Putting back happens in two steps. `unpack` writes everything to one new folder, checks it, and renames that folder into place as
``restored``: until then nothing has changed. `finish` moves the old folders aside and the new ones in, and may be cut off and
called again at any point; the daemon calls it when it starts.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from cryptod import __version__
from cryptod.errors import DamagedError, StoreError
from cryptod.store.environment import copy_environment, refuse_if_damaged
from cryptod.store.files import MODE_FILE, MODE_FOLDER, TEMPORARY, private_name, sync_folder, write_file
from cryptod.worker.messages import BackedUp, BackupOrder, Progress, Report, known_market

FORMAT: Final = 1
HEAD: Final = "cryptod-backup.json"
DIGESTS: Final = "digests.json"
STORES: Final = ("serving", "candles")
CHECKPOINTS: Final = "checkpoints"
MARKET: Final = "market.json"
"""File at the top of a state directory that says to which market the folders there belong."""
PARTS: Final = (*STORES, CHECKPOINTS, MARKET)
RESTORED: Final = "restored"
"""Folder of a state directory that holds a backup which was unpacked and checked, and is to take the place of what is there."""
NEW: Final = "new"
"""Folder in it with the parts that come; those that they replace are put beside it."""
BLOCK: Final = 1 << 20
MAX_DOCUMENT: Final = 8 << 20
MAX_FILES: Final = 200_000

_NAME: Final = re.compile(
    r"(serving|candles)/data\.mdb|checkpoints/current\.json|checkpoints/manifests/[0-9]{1,15}\.json"
    r"|checkpoints/[A-Za-z0-9][A-Za-z0-9_.-]{0,99}/(weights\.safetensors|meta\.json)"
)
"""Files that a backup may contain. Nothing else is ever written to disk, whatever the file says."""


def run(order: BackupOrder, report: Callable[[Report], None]) -> None:
    """Write the backup: the work of a backup child. The last thing reported is `BackedUp`. Raises `StoreError`, and then leaves no file."""
    began = time.monotonic()
    path = Path(order.path)
    state = Path(order.state)
    done = 0

    def beat(name: str) -> None:
        nonlocal done
        done += 1
        report(Progress(job=order.job, stage="backup", done=done, total=0, text=name))

    size = write(state, path, order.now, order.market, beat)
    report(BackedUp(job=order.job, bytes=size, files=done, seconds=time.monotonic() - began))


# Taking one


def write(state: Path, path: Path, now: int, market: Mapping[str, Any], beat: Callable[[str], None] = lambda name: None) -> int:
    """Back up the state directory ``state`` to the new file ``path``; its size in bytes. ``beat`` hears of each file.

    ``path`` lies in a folder of ours, on the same file system: the copies of the stores are made beside it and removed.
    """
    copies = private_name(path.parent)
    try:
        with _translated(path):
            copies.mkdir(MODE_FOLDER, parents=True)
            with open(path, "xb") as out:
                _write(state, copies, out, now, market, beat)
                os.fsync(out.fileno())
            return path.stat().st_size
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(copies, ignore_errors=True)


def _write(state: Path, copies: Path, out: IO[bytes], now: int, market: Mapping[str, Any], beat: Callable[[str], None]) -> None:
    digests: dict[str, list[Any]] = {}
    with (
        gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, filename="", mtime=now // 1000) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        _add(tar, HEAD, _document({"format": FORMAT, "version": __version__, "made": now, "market": dict(market)}))
        # Manifests first: they name checkpoints that are written before them and removed an hour after the last one names them.
        for name in _checkpoint_files(state):
            digests[name] = _add(tar, name, (state / name).read_bytes())
            beat(name)
        for store in STORES:
            if not (state / store / "data.mdb").exists():
                continue
            copy_environment(state / store, copies)
            name = f"{store}/data.mdb"
            digests[name] = _add_file(tar, name, copies / "data.mdb", beat)
            (copies / "data.mdb").unlink()
        _add(tar, DIGESTS, _document(digests))


def _checkpoint_files(state: Path) -> list[str]:
    root = state / CHECKPOINTS
    if not root.is_dir():
        return []
    manifests = [root / "current.json", *sorted((root / "manifests").glob("*.json"))]
    folders = (folder for folder in sorted(root.iterdir()) if folder.is_dir() and not folder.name.startswith(TEMPORARY))
    found = [*manifests, *(folder / name for folder in folders for name in ("meta.json", "weights.safetensors"))]
    names = (str(path.relative_to(state)) for path in found if path.is_file() and not path.is_symlink())
    return [name for name in names if _NAME.fullmatch(name)]


def _document(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True).encode()


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o640
    return member


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> list[Any]:
    tar.addfile(_member(name, len(data)), io.BytesIO(data))
    return [len(data), hashlib.sha256(data).hexdigest()]


def _add_file(tar: tarfile.TarFile, name: str, path: Path, beat: Callable[[str], None]) -> list[Any]:
    with open(path, "rb") as file:
        stream = _Hashed(file, lambda: beat(name))
        size = os.fstat(file.fileno()).st_size
        tar.addfile(_member(name, size), stream)
        return [size, stream.digest()]


class _Hashed:
    """A stream that is hashed while it is read."""

    def __init__(self, stream: IO[bytes], beat: Callable[[], None] = lambda: None) -> None:
        self._stream, self._hash, self._beat = stream, hashlib.sha256(), beat
        self.size = self._told = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self.size += len(data)
        if self.size - self._told > 16 * BLOCK:
            self._told = self.size
            self._beat()
        return data

    def digest(self) -> str:
        return self._hash.hexdigest()


# Putting one back


def unpack(path: Path, state: Path) -> dict[str, Any]:
    """Unpack and check the backup ``path`` into ``state``/restored; its head. Nothing else in ``state`` changes.

    Raises `StoreError`: no backup, damaged, of a newer format, no space. The caller holds the lock of the state directory.
    """
    new = private_name(state)
    try:
        with _translated(path):
            new.mkdir(MODE_FOLDER)
            for part in (*STORES, CHECKPOINTS):  # a part that the backup lacks is begun anew
                (new / NEW / part).mkdir(MODE_FOLDER, parents=True)
            head = _unpack(path, new / NEW)
            write_file(new / NEW / MARKET, json.dumps(head["market"]).encode())
            for folder, _, _ in os.walk(new):
                sync_folder(Path(folder))
            shutil.rmtree(state / RESTORED, ignore_errors=True)
            new.rename(state / RESTORED)
            sync_folder(state)
        return head
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise


def _unpack(path: Path, new: Path) -> dict[str, Any]:
    found: dict[str, list[Any]] = {}
    head: dict[str, Any] | None = None
    digests: Any = None
    with tarfile.open(path, mode="r|gz") as tar:
        for member in tar:
            stream = tar.extractfile(member) if member.isreg() else None
            if stream is None or digests is not None or len(found) > MAX_FILES:
                raise _not_a_backup(path, f"it holds {member.name[:100]!r}")
            if head is None:
                head = _head(path, member, stream)
            elif member.name == DIGESTS:
                digests = _parsed(path, member, stream)
            elif _NAME.fullmatch(member.name) and member.name not in found:
                found[member.name] = _copy(stream, new / member.name)
            else:
                raise _not_a_backup(path, f"it holds {member.name[:100]!r}")
    if head is None or digests is None:
        raise StoreError(f"{path} is cut short: its last part is missing", hint="take another backup, or copy this one again")
    if digests != found:
        wrong = sorted(name for name in {*digests, *found} if digests.get(name) != found.get(name))
        raise StoreError(f"{path} is damaged: the checksum of {wrong[0]} is wrong", hint="take another backup, or copy this one again")
    for store in STORES:
        if f"{store}/data.mdb" in found:
            refuse_if_damaged(new / store)
    return head


def _head(path: Path, member: tarfile.TarInfo, stream: IO[bytes]) -> dict[str, Any]:
    head = _parsed(path, member, stream) if member.name == HEAD else None
    if not isinstance(head, dict) or not isinstance(head.get("format"), int):
        raise _not_a_backup(path, f"it begins with {member.name[:100]!r}")
    if head["format"] > FORMAT:
        raise StoreError(
            f"{path} was made by cryptod {str(head.get('version'))[:32]} in format {head['format']}; this one knows {FORMAT}",
            hint="install that version, or a newer one, and restore with it",
        )
    market = known_market(head.get("market"))
    if market is None or not isinstance(head.get("made"), int):
        raise _not_a_backup(path, "its head names no market or no time")
    return head | {"market": market}


def _parsed(path: Path, member: tarfile.TarInfo, stream: IO[bytes]) -> Any:
    if member.size > MAX_DOCUMENT:
        raise _not_a_backup(path, f"{member.name} has {member.size:,} bytes")
    try:
        return json.loads(stream.read())
    except ValueError as error:
        raise _not_a_backup(path, f"{member.name} is not JSON") from error


def _copy(stream: IO[bytes], path: Path) -> list[Any]:
    path.parent.mkdir(MODE_FOLDER, parents=True, exist_ok=True)
    hashed = _Hashed(stream)
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW, MODE_FILE)) as out:
        shutil.copyfileobj(hashed, out, BLOCK)
        os.fsync(out.fileno())
    return [hashed.size, hashed.digest()]


def _not_a_backup(path: Path, why: str) -> StoreError:
    return StoreError(f"{path} is not a backup of cryptod: {why}", hint="`cryptoctl backup FILE` makes one")


def finish(state: Path, now: int) -> Path | None:
    """Let what was unpacked take its place; the folder that holds what was there before. None if nothing was unpacked.

    The caller holds the lock of the state directory. It can be cut off anywhere: the next call goes on. Raises `StoreError`.
    """
    restored = state / RESTORED
    if not restored.is_dir():
        return None
    aside = state / f"before-restore-{now}"
    with _translated(state):
        for part in PARTS:
            if not (restored / NEW / part).exists():
                continue  # it was put in place by a call that was cut off later
            if (state / part).exists():
                (state / part).rename(restored / part)
                sync_folder(restored)
            (restored / NEW / part).rename(state / part)
            sync_folder(state)
        shutil.rmtree(restored / NEW, ignore_errors=True)
        restored.rename(aside)
        sync_folder(state)
    return aside


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise StoreError(f"{path} is not a backup of cryptod, or is damaged: {error}", hint="`cryptoctl backup FILE` makes one") from error
    except DamagedError as error:
        raise StoreError(f"{path} is damaged: {error.message}", hint="take another backup") from error
    except OSError as error:
        named = f" ({error.filename})" if error.filename not in (None, str(path)) else ""
        raise StoreError(f"{path}: {error.strerror or error}{named}", hint="check the disk, its free space and the rights") from error
