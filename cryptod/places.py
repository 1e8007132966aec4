"""Where a daemon has its configuration, its state and its socket: the system's, an instance beside it, or a user's own.

The daemon and its clients ask here, so that they agree. Knows the XDG folders and how systemd starts a service; the standard
library only, because cryptoctl must start quickly.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from typing import Final, NamedTuple

from cryptod.errors import ConfigError


class Place(NamedTuple):
    """One daemon's files. ``whose`` they are: a phrase."""

    config: str
    state: str
    socket: str
    whose: str
    required: bool = False
    """Whether the configuration file must be there."""


SYSTEM: Final = Place("/etc/cryptod/cryptod.toml", "/var/lib/cryptod", "/run/cryptod/cryptod.sock", "the system's daemon")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.]{0,31}")
"""What systemd leaves as it is in a unit's name: a ``-`` would stand for a ``/``."""


def instance(name: str) -> Place:
    """The instance that `cryptod@NAME.service` runs. `ConfigError` for a name that no instance can have."""
    if not _NAME.fullmatch(name):
        shown = "".join(letter if letter.isprintable() else "?" for letter in name[:40])
        hint = "letters, digits, _ and . only, a letter or digit first, at most 32: systemd gives other characters a meaning"
        raise ConfigError(f"{shown!r} cannot be an instance's name", hint=hint)
    if name == "cryptod":
        raise ConfigError("'cryptod' cannot be an instance's name", hint="/etc/cryptod/cryptod.toml is of the daemon without a name")
    return Place(f"/etc/cryptod/{name}.toml", f"/var/lib/cryptod@{name}", f"/run/cryptod@{name}/cryptod.sock", f"the instance {name}", True)


def user(environ: Mapping[str, str], uid: int) -> Place:
    """The own daemon of the user ``uid``: in the XDG folders, or in their usual places where a variable names none."""
    home = environ.get("HOME") or _home(uid)
    state = os.path.join(_folder(environ, "XDG_STATE_HOME", f"{home}/.local/state"), "cryptod")
    config = os.path.join(_folder(environ, "XDG_CONFIG_HOME", f"{home}/.config"), "cryptod", "cryptod.toml")
    usual = f"/run/user/{uid}"
    runtime = _folder(environ, "XDG_RUNTIME_DIR", usual if _owner(usual) == uid else "")
    folder = os.path.join(runtime, "cryptod") if runtime else state
    return Place(config, state, os.path.join(folder, "cryptod.sock"), "your own daemon")


def of_daemon(environ: Mapping[str, str], uid: int, pid: int) -> Place:
    """The place of a daemon that nothing was said to: a user's own without root, and where a user's systemd started it.

    The system's service is known by the socket that systemd hands to it, and its user, whoever starts it, by the home folder.
    """
    if environ.get("LISTEN_PID") == str(pid):
        return user(environ, uid) if "MANAGERPID" in environ else SYSTEM  # which only a user's systemd sets
    return SYSTEM if uid == 0 or _home(uid) == SYSTEM.state else user(environ, uid)


def socket_of(path: str | os.PathLike[str] | None, name: str | None, environ: Mapping[str, str], uid: int) -> str:
    """The socket that a client connects to: the path or the instance that is given, or else ``$CRYPTOD_SOCKET``, or else
    ``$CRYPTOD_INSTANCE``, or else the user's own daemon's if it is there, or else the system's.

    The user's own is taken only out of folders that nobody else but root can change. `ConfigError` for a bad name.
    """
    if path is not None:
        return os.fspath(path)
    if name is not None:
        return instance(name).socket
    if environ.get("CRYPTOD_SOCKET"):
        return environ["CRYPTOD_SOCKET"]
    if environ.get("CRYPTOD_INSTANCE"):
        return instance(environ["CRYPTOD_INSTANCE"]).socket
    own = user(environ, uid).socket
    return own if _trusted(own, uid) else SYSTEM.socket


def unit_of(socket: str) -> tuple[str, str]:
    """What `systemctl` and `journalctl` take to look at the service behind a socket: (option, unit); the system's where nothing tells."""
    folder, name = os.path.split(socket)
    if name == "cryptod.sock" and folder.startswith("/run/cryptod@"):
        return "", folder.removeprefix("/run/")
    return (" --user" if folder.startswith("/run/user/") else ""), "cryptod"


def _trusted(socket: str, uid: int) -> bool:
    """Whether a socket is there, and it, its folder and the one above belong to the user or root, and to nobody else."""
    folder = os.path.dirname(socket)
    try:
        if not stat.S_ISSOCK(os.lstat(socket).st_mode):
            return False
        for path in (socket, folder, os.path.dirname(folder)):
            facts = os.lstat(path)
            shared = facts.st_mode & 0o022 and path != socket  # a socket's mode says who may connect
            if facts.st_uid not in (0, uid) or stat.S_ISLNK(facts.st_mode) or shared:
                return False
    except OSError:
        return False
    return True


def _folder(environ: Mapping[str, str], name: str, usual: str) -> str:
    """A folder that a variable names; the specification has relative ones ignored."""
    given = environ.get(name, "")
    return given if os.path.isabs(given) else usual


def _home(uid: int) -> str:
    """The home folder that the system knows; empty, which is the root, for a user that it does not know, as in a container."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_dir
    except KeyError:
        return ""


def _owner(path: str) -> int:
    try:
        return os.stat(path).st_uid
    except OSError:
        return -1
