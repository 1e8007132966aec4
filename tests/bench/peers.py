"""What serving is compared with: the least that a server can be, and Redis.

Each is a process with a Unix socket of its own; it is answering when the context opens, and gone when it closes. Like the daemon, and
like any service, it is in a session of its own: that is what Linux shares the processors out by, before it looks at processes.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any


def ping_pong(path: str, reply: bytes) -> None:
    """One client at a time, blocking: what came is answered with the reply; nothing is looked at."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        connection, _ = listener.accept()
        while connection.recv(65536):
            connection.sendall(reply)


def epoll(path: str, reply: bytes) -> None:
    """As little as a server for many clients can do: wait, receive, send."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener.fileno(), select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                connection, _ = listener.accept()
                connection.setblocking(False)
                connections[connection.fileno()] = connection
                poll.register(connection.fileno(), select.EPOLLIN)
            elif connections[fd].recv(65536):
                connections[fd].send(reply)
            else:
                poll.unregister(fd)
                connections.pop(fd).close()


def _in_a_session(server: Callable[[str, bytes], None], path: str, reply: bytes) -> None:
    os.setsid()
    server(path, reply)


@contextlib.contextmanager
def serving(server: Callable[[str, bytes], None], folder: Path, reply: bytes) -> Iterator[str]:
    """Where one of the above answers."""
    path = str(folder / f"{server.__name__}.sock")
    process = multiprocessing.get_context("spawn").Process(target=_in_a_session, args=(server, path, reply), daemon=True)
    process.start()
    try:
        wait_for(path)
        yield path
    finally:
        process.kill()
        process.join()
        Path(path).unlink()


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[Any]:
    """A redis-py client, with hiredis, of a Redis server without a TCP port and without files; None where either is missing."""
    try:
        import hiredis  # noqa: F401 - redis-py uses it where it is
        import redis as library
    except ImportError:
        yield None
        return
    # Debian's redis-tools hold the whole server under the name of its checker: it is told by its name what to be.
    program = shutil.which("redis-server") or shutil.which("redis-check-rdb")
    if program is None:
        yield None
        return
    path = str(folder / "redis.sock")
    command = ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, executable=program, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_for(path)
        with library.Redis(unix_socket_path=path) as client:
            yield client
    finally:
        server.terminate()
        server.wait()


def wait_for(path: str) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                return
        time.sleep(0.01)
    raise SystemExit(f"nothing answers on {path}")
