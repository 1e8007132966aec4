"""Files that are there when they are whole: what cryptoctl writes for people and for other programs.

Knows no command and no format.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from cryptod.errors import CryptodError

MOST_LINKS: Final = 40


@contextmanager
def written(path: str | Path, what: str = "", mode: int | None = None) -> Iterator[BinaryIO]:
    """A stream whose bytes stand at ``path`` once all went well; otherwise what stood there stays, and nobody ever sees half of it.

    Links are followed, but for one that another user has put into a folder like /tmp. What is no regular file (a terminal, a pipe,
    /dev/null) is written to and stays what it is. A file that is replaced keeps its mode. ``mode``: the file's rights, instead of that or
    of what the umask leaves. Raises `CryptodError`, which names ``what`` could not be written.
    """
    try:
        place = _followed(Path(path))
        if os.path.exists(path) and not os.path.isfile(path):
            with open(path, "wb") as stream:
                yield stream
            return
        rights = _rights(place) if mode is None else mode
        handle, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
                os.fchmod(handle, rights)
            os.replace(name, place)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        said = f"{what} cannot be written to {path}" if what else f"{path} cannot be written"
        raise CryptodError(f"{said}: {error.strerror}", hint="name a file in a folder that exists and that you may write to") from error


def _followed(path: Path) -> Path:
    """Where ``path`` leads. `CryptodError` for a link in a sticky folder that anybody may write to, unless we or the folder's owner own it.

    The kernel refuses to follow such links too where ``fs.protected_symlinks`` is set (proc(5)), and for the same reason: who runs this
    must not overwrite a file of his own because somebody else says so.
    """
    place, links = Path("/"), 0
    rest = list(reversed((Path.cwd() / path).parts[1:]))
    while rest:
        part = rest.pop()
        step = place.parent if part == ".." else place / part
        try:
            facts = os.lstat(step)
        except FileNotFoundError:
            place = step
            continue
        if not stat.S_ISLNK(facts.st_mode):
            place = step
            continue
        folder = os.stat(place)
        open_to_all = folder.st_mode & stat.S_ISVTX and folder.st_mode & stat.S_IWOTH
        if open_to_all and facts.st_uid not in (os.geteuid(), folder.st_uid):
            raise CryptodError(
                f"{path} cannot be written: {step} is a link that another user has put there", hint="name a file in a folder of your own"
            )
        links += 1
        if links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = Path(os.readlink(step))
        if target.is_absolute():
            place = Path("/")
        rest += reversed(target.parts[1:] if target.is_absolute() else target.parts)
    return place


def _rights(place: Path) -> int:
    """The mode of the file that stands there, or what the umask leaves; of another user's file no more than both allow."""
    usual = 0o666 & ~_umask()
    try:
        facts = os.lstat(place)
    except FileNotFoundError:
        return usual
    mode = stat.S_IMODE(facts.st_mode) & 0o777
    return mode if facts.st_uid == os.geteuid() else mode & usual


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
