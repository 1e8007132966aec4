"""The daemon's listening socket: bound by us, or inherited from systemd. And who is at its other end.

Knows Unix sockets and systemd's LISTEN_FDS protocol (sd_listen_fds(3)); nothing of messages or commands.
"""

from __future__ import annotations

import errno
import functools
import grp
import os
import pwd
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Final

from cryptod.errors import ConfigError

BACKLOG: Final = 1024
"""Connections that the kernel keeps while the daemon is busy, or being restarted."""
_FIRST_FD: Final = 3
_MAX_PATH: Final = 107
"""Bytes of a Unix socket's path (sun_path holds 108 with the closing zero)."""
_UCRED: Final = struct.Struct("=iII")
_SO_PEERGROUPS: Final = 59
_ROOT: Final = 0


class Peer:
    """The process at the other end of a connection, as the kernel saw it when it connected.

    ``groups`` are all its groups, the first one and the supplementary ones; ``topics`` the events that it listens to.
    """

    __slots__ = ("gid", "groups", "pid", "topics", "turn", "uid")

    def __init__(self, pid: int, uid: int, gid: int, groups: frozenset[int] = frozenset()) -> None:
        self.pid, self.uid, self.gid = pid, uid, gid
        self.groups = groups | {gid}
        self.topics: frozenset[str] = frozenset()
        self.turn: Callable[[], Awaitable[None]] = at_once
        """What takes more than a quarter of a millisecond awaits its turn before each such part."""

    def __repr__(self) -> str:
        return f"Peer(pid={self.pid}, uid={self.uid}, gid={self.gid})"

    @classmethod
    def of(cls, connection: socket.socket) -> Peer:
        """Ask the kernel once; the process may be gone or be another when a request is read."""
        pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        return cls(pid, uid, gid, frozenset(_supplementary(connection, uid, gid)))


async def at_once() -> None:
    """Where nobody takes turns."""


def _supplementary(connection: socket.socket, uid: int, gid: int) -> tuple[int, ...]:
    """The process's own supplementary groups (Linux 4.13); by its user's name where the kernel's list does not fit."""
    try:
        data = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)
    except OSError:
        return _groups_of_user(uid, gid)
    return struct.unpack(f"={len(data) // 4}I", data)


@functools.lru_cache(maxsize=256)
def _groups_of_user(uid: int, gid: int) -> tuple[int, ...]:
    try:
        return tuple(os.getgrouplist(pwd.getpwuid(uid).pw_name, gid))
    except KeyError:
        return ()


def may_change(uid: int, group: str = "") -> Callable[[Peer], bool]:
    """The rule of rights: root, the service's own user ``uid`` and the members of ``group`` may change things.

    `ConfigError` if there is no such group.
    """
    users, gid = {_ROOT, uid}, None
    if group:
        try:
            gid = grp.getgrnam(group).gr_gid
        except KeyError:
            raise ConfigError(f"socket.group: there is no group {group!r}", hint="create it with `groupadd --system`") from None
    return lambda peer: peer.uid in users or gid in peer.groups


def inherited_sockets(environ: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """The listening Unix sockets that systemd passed to this process; empty if it passed none.

    The variables are removed, so that no child takes them for its own. `ConfigError` for a descriptor that is not a
    listening Unix stream socket.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
    environ.pop("LISTEN_FDNAMES", None)
    environ.pop("LISTEN_PIDFDID", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for fd in range(_FIRST_FD, _FIRST_FD + int(count)):
        os.set_inheritable(fd, False)
        try:
            inherited = socket.socket(fileno=fd)
            listens = inherited.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise ConfigError(f"descriptor {fd} from systemd is no socket: {error.strerror}", hint="look at cryptod.socket") from error
        if inherited.family != socket.AF_UNIX or inherited.type != socket.SOCK_STREAM or not listens:
            raise ConfigError(f"descriptor {fd} from systemd is no listening Unix stream socket", hint="cryptod.socket needs ListenStream=")
        inherited.setblocking(False)
        found.append(inherited)
    return found


def listening_at(inherited: socket.socket) -> str:
    """Where clients find a socket that systemd bound; an abstract name begins with @."""
    name = inherited.getsockname()
    return name if isinstance(name, str) else "@" + name[1:].decode(errors="replace")


def make_folder(folder: Path) -> None:
    """The folder of a socket in its usual place, where systemd has not made it. `ConfigError` where that is refused."""
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make {folder} for the socket: {error.strerror}", hint="set socket.path, or XDG_RUNTIME_DIR") from error


def bind(path: str | Path, mode: int = 0o666) -> socket.socket:
    """A listening socket at ``path``, there at once with its rights, in place of one that nobody listens on any more.

    It is bound under a private name and renamed: no client ever meets it with other rights, or not listening.
    `ConfigError` if somebody answers there, if the path is too long or something else stands there, or without rights.
    """
    target = Path(path)
    private = target.with_name(f".{target.name}.{os.getpid()}")
    if len(os.fsencode(private)) > _MAX_PATH:
        raise ConfigError(f"socket.path {str(target)!r} is too long", hint=f"with the private name beside it, at most {_MAX_PATH} bytes")
    _refuse_occupied(target)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        private.unlink(missing_ok=True)
        listener.bind(str(private))
        private.chmod(mode)
        listener.listen(BACKLOG)
        private.rename(target)
    except OSError as error:
        listener.close()
        try:
            private.unlink(missing_ok=True)
        except OSError:
            pass  # the folder is missing or not ours: the first error says it better
        raise ConfigError(f"cannot listen on {target}: {error.strerror}", hint=_hint(error, target)) from error
    return listener


def _refuse_occupied(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"cannot listen on {path}: {error.strerror}", hint=_hint(error, path)) from error
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigError(f"cannot listen on {path}: something else stands there", hint="set socket.path to a path of its own")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as probe:
        refused = probe.connect_ex(str(path)) in (errno.ECONNREFUSED, errno.ENOENT)
    if not refused:
        raise ConfigError(f"another daemon listens on {path}", hint="stop it first, or set another socket.path")


def _hint(error: OSError, path: Path) -> str:
    if error.errno == errno.ENOENT:
        return f"create the folder {path.parent}, or set socket.path"
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"this user may not write in {path.parent}: start it through systemd, or set socket.path"
    return "set socket.path to a folder that this user may write in"


def unlink_if_ours(path: Path, listener_inode: int) -> None:
    """Remove the socket file unless another daemon has put its own there since."""
    try:
        if path.lstat().st_ino == listener_inode:
            path.unlink()
    except OSError:
        pass  # gone already, or the folder is: nothing is left to tidy
