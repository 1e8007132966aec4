"""Small files that survive a cut and are read with distrust: synced, renamed into place, sealed with a checksum.

Knows the file system; nothing of what the files say. A file or folder is written under a name that begins with
``.tmp-``, synced, renamed, and the folder above is synced: a cut at any moment leaves the old or the new. Reading
follows no symbolic link, waits for no pipe and trusts no size. It serves the folder of checkpoints, so its errors are
`CheckpointError`.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cryptod.errors import CheckpointError

TEMPORARY: Final = ".tmp-"
MODE_FILE: Final = 0o640
MODE_FOLDER: Final = 0o750
MAX_DOCUMENT: Final = 8 << 20

_REMEDIES: Final = {
    errno.ENOSPC: "free some space on that file system; then it goes on by itself",
    errno.EDQUOT: "free some space or raise the quota; then it goes on by itself",
    errno.EFBIG: "raise the limit on the size of files (LimitFSIZE)",
    errno.EROFS: "the file system is mounted read-only: mount it read-write",
    errno.EACCES: "check owner and mode: the service's user must be able to read and write it",
    errno.EPERM: "check owner and mode: the service's user must be able to read and write it",
    errno.EIO: "the disk fails: check it (dmesg) before more is lost",
    errno.ENOENT: "it is missing: roll back to the models before it, or train again",
    errno.ENOTDIR: "a folder should stand there, and no symbolic link to one: put the real one in its place",
    errno.ELOOP: "no symbolic link is followed: put the real file in its place",
}


def private_name(folder: Path) -> Path:
    """A name in ``folder`` for what is not yet, or no longer, to be found."""
    return folder / f"{TEMPORARY}{secrets.token_hex(8)}"


def make_folder(path: Path) -> None:
    """A new folder with our mode, whatever the umask. Raises `OSError`."""
    path.mkdir(MODE_FOLDER)
    path.chmod(MODE_FOLDER)


def write_file(path: Path, data: bytes) -> None:
    """A new file, on disk when this returns (its name is not yet: sync the folder). Raises `OSError`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE_FILE)
    try:
        os.fchmod(descriptor, MODE_FILE)
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Put ``data`` in the place of the file in one step, which is on disk when this returns. Raises `OSError`."""
    private = private_name(path.parent)
    try:
        write_file(private, data)
        private.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            private.unlink()
        raise
    sync_folder(path.parent)


def read_file(path: Path, limit: int = MAX_DOCUMENT) -> bytes:
    """A regular file's bytes; one with more than ``limit`` is refused before it is read. Raises `OSError`, `CheckpointError`."""
    # O_NONBLOCK: opening a pipe that somebody put there must not wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise damaged(path, "it is not a regular file")
        if facts.st_size > limit:
            raise damaged(path, f"it has {facts.st_size:,} bytes where {limit:,} are allowed")
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(limit)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Put the names in a folder on disk. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sealed(document: dict[str, Any], what: str) -> bytes:
    """The document as JSON, with a checksum of all the rest in it."""
    try:
        checksum = hashlib.sha256(_canonical(document)).hexdigest()
        return json.dumps(document | {"checksum": checksum}, indent=1, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{what} cannot be written as JSON: {error}", hint="plain, finite values only") from error


def unsealed(data: bytes, path: Path) -> dict[str, Any]:
    """The document without its checksum. Raises `CheckpointError`: not JSON, or changed since it was sealed."""
    try:
        document = json.loads(data)
        checksum = document.pop("checksum")
        sound = checksum == hashlib.sha256(_canonical(document)).hexdigest()
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, "it is not a sealed JSON document") from error
    if not sound:
        raise damaged(path, "its checksum is wrong")
    return dict(document)


def _canonical(document: dict[str, Any]) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {why}", hint="it is not used; what served before it does, until the next training")


def other_schema(document: dict[str, Any], path: Path, known: int) -> CheckpointError:
    return CheckpointError(
        f"{path} is of schema {document.get('schema')!r}, and this cryptod knows {known}",
        hint="install the version that wrote it, or train again",
    )


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """The file system's errors in our words."""
    try:
        yield
    except OSError as error:
        hint = _REMEDIES.get(error.errno or 0, "check the folder and its rights")
        raise CheckpointError(f"{error.filename or path}: {error.strerror or error}", hint=hint) from error
