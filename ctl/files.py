"""Files that are there when they are whole: what cryptoctl writes for people and for other programs.

Knows no command and no format.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cryptod.errors import CryptodError


@contextmanager
def written(path: str | Path, what: str = "", mode: int | None = None) -> Iterator[BinaryIO]:
    """A stream whose bytes stand at ``path`` once all went well; otherwise what stood there stays, and nobody ever sees half of it.

    Links are followed, and what is no regular file (a terminal, a pipe, /dev/null) is written to and stays what it is. ``mode``: the
    file's rights, instead of what the umask leaves. Raises `CryptodError`, which names ``what`` could not be written.
    """
    place = Path(path).resolve()
    try:
        if place.exists() and not place.is_file():
            with open(place, "wb") as stream:
                yield stream
            return
        handle, name = tempfile.mkstemp(prefix=f".{place.name}.", dir=place.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                yield stream
                os.fchmod(handle, 0o666 & ~_umask() if mode is None else mode)
            os.replace(name, place)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        said = f"{what} cannot be written to {path}" if what else f"{path} cannot be written"
        raise CryptodError(f"{said}: {error.strerror}", hint="name a file in a folder that exists and that you may write to") from error


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
