"""`cryptoctl backup` fetches the daemon's state as one file; `cryptoctl restore` has `cryptod` put such a file back.

Knows no format: the daemon makes the file, and `cryptod restore` reads it.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from cryptod.errors import CryptodError, DaemonUnreachable
from ctl import files
from ctl.session import Session
from ctl.units import size

MODE: Final = 0o600
"""Others may read the forecasts from the daemon, but need not have the whole of its state."""


def backup(session: Session, path: str) -> int:
    """Write the backup to ``path``, whole or not at all; "-" is standard output."""
    if path == "-":
        if sys.stdout.isatty():
            raise CryptodError("a backup is nothing to look at", hint="name a file, or redirect standard output")
        for data in session.client.backup_pieces():
            sys.stdout.buffer.write(data)
        return 0
    total = 0
    with files.written(path, "the backup", MODE) as stream:
        for data in session.client.backup_pieces():
            stream.write(data)
            total += len(data)
        stream.flush()
        os.fsync(stream.fileno())
    session.show({"file": path, "bytes": total}, lambda: [f"{size(total)} in {path}; `cryptoctl restore {path}` puts it back"])
    return 0


def restore(session: Session, path: str) -> int:
    """Hand over to `cryptod restore`, once it is clear that no daemon answers."""
    try:
        session.client.call("ping")
    except DaemonUnreachable:
        pass
    else:
        raise CryptodError(
            "the daemon is running, and would not see what is restored under it",
            hint="stop it first: systemctl stop cryptod.service cryptod.socket",
        )
    # The one beside this program belongs to it; another may be of another version.
    beside = Path(sys.executable).with_name("cryptod")
    program = str(beside) if beside.exists() else shutil.which("cryptod")
    if program is None:
        raise CryptodError("cryptod is not installed here, and it restores", hint="run `cryptod restore FILE` on the daemon's machine")
    sys.stdout.flush()
    os.execv(program, [program, "restore", path])
