"""A simulated exchange and a daemon as processes, a place for their files, and what systemd would have heard."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import psutil

from cryptod.client import Client
from cryptod.errors import CryptodError
from cryptod.store import ledger
from cryptod.store.environment import open_environment
from cryptod.store.ledger import Issue, Ledger

T = TypeVar("T")

BIN = Path(sys.executable).parent
START = 1_709_634_000_000
"""Tuesday 2024-03-05 10:20 UTC: an hour's candle is not due for 40 minutes, an incremental update for 100."""
COINS = 12
SETTINGS = {
    "CRYPTOD_UNIVERSE_SIZE": str(COINS), "CRYPTOD_TRAIN_BATCH_SIZE": "4", "CRYPTOD_TRAIN_MONTHS_BACK": "3",
    "CRYPTOD_FORECAST_BASE_MODEL": "false", "CRYPTOD_WORKER_NICE": "0",
}  # fmt: skip
"""Small and quick, also beside other work. Without the base model the first forecasts are those of the first models, as tests expect."""


def wait_for(look: Callable[[], T | Literal[False] | None], what: str, *, seconds: float = 60.0) -> T:
    """What ``look`` returns as soon as it is true; errors of the client are looked past until the time is up."""
    end = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < end:
        try:
            found = look()
        except CryptodError as error:
            last = error
        else:
            if found:
                return found
            last = found
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {seconds} s (last: {last!r})")


def clean_environment() -> dict[str, str]:
    """The test run's own, without what would reach into the daemon."""
    foreign = ("CRYPTOD_", "NOTIFY_", "WATCHDOG_", "LISTEN_", "JOURNAL_", "INVOCATION_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder that every user may look into, with a path short enough for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="cryptod-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class SimulatedExchange:
    """`cryptod simulate` as a process. It can be stopped, and started again with the same market, clock and port."""

    def __init__(self, *options: str, speed: float = 1.0, start: int = START) -> None:
        self._options = options
        self.clock = f"{start}@{time.time_ns() // 1_000_000}x{speed:g}"
        self.port = 0
        self.process: subprocess.Popen[str]

    def now(self) -> int:
        start, _, rest = self.clock.partition("@")
        anchor, _, speed = rest.partition("x")
        return int(start) + int((time.time_ns() / 1e6 - int(anchor)) * float(speed))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> SimulatedExchange:
        command = [str(BIN / "cryptod"), "simulate", "--clock", self.clock, "--port", str(self.port), *self._options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment(), start_new_session=True)
        assert self.process.stdout is not None
        lines = [self.process.stdout.readline() for _ in range(2)]
        assert lines[0].startswith("listening on "), lines
        self.port = int(lines[0].rpartition(":")[2])
        return self

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> SimulatedExchange:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop()


class Told(NamedTuple):
    """A message to systemd, and when it came (monotonic seconds)."""

    at: float
    text: str


class NotifySocket:
    """Systemd's ear: keeps what it hears."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.told: list[Told] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):  # it was closed before this thread had its turn
            while data := self._socket.recv(4096):
                self.told.append(Told(time.monotonic(), data.decode()))

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()

    def times(self, part: str) -> list[float]:
        return [told.at for told in self.told if part in told.text]


class Daemon:
    """`cryptod run` as a process on ``folder``/state; as a context it is started, and gone with all of its at the end.

    ``within``: words that stand before the command, of a program that becomes the daemon (`sh -c 'exec "$@"' -`).
    """

    def __init__(
        self, folder: Path, exchange: SimulatedExchange, *, state: Path | None = None, within: tuple[str, ...] = (), **settings: Any
    ) -> None:
        self.folder, self.exchange = folder, exchange
        self.command = [*within, str(BIN / "cryptod"), "run"]
        self.state = state or folder / "state"
        self.socket = folder / "s.sock"
        self.log_path = folder / "log"
        given = {name.upper(): str(value) for name, value in settings.items()}
        self.environ = clean_environment() | {"CRYPTOD_CLOCK": exchange.clock, "CRYPTOD_SOCKET": str(self.socket)} | SETTINGS | given
        self.environ |= {
            "CRYPTOD_EXCHANGE_URL": exchange.url, "CRYPTOD_STORAGE_DIRECTORY": str(self.state), "CRYPTOD_SOCKET_PATH": str(self.socket),
        }  # fmt: skip
        self.process: subprocess.Popen[bytes]
        self.notify: NotifySocket
        self.family: dict[int, psutil.Process] = {}

    def __enter__(self) -> Daemon:
        return self.start().ready()

    def __exit__(self, *_: object) -> None:
        try:
            if self.process.poll() is None:
                with contextlib.suppress(OSError):
                    os.kill(self.process.pid, signal.SIGCONT)
                self.stop()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.notify.close()

    def start(self) -> Daemon:
        self.notify = NotifySocket(self.folder / "notify")
        environ = self.environ | {"NOTIFY_SOCKET": str(self.notify.path)}
        with self.log_path.open("ab") as log:
            self.began = time.monotonic()
            self.process = subprocess.Popen(self.command, stderr=log, stdout=log, env=environ, start_new_session=True)
        return self

    def ready(self) -> Daemon:
        def look() -> bool:
            assert self.process.poll() is None, f"the daemon ended with {self.process.returncode}: {self.log()[-2000:]}"
            return bool(self.notify.times("READY=1"))

        wait_for(look, "READY=1")
        return self

    def client(self) -> Client:
        return Client(str(self.socket))

    def relatives(self) -> dict[int, psutil.Process]:
        """The daemon's descendants that there are, by process id; those seen once are remembered."""
        with contextlib.suppress(psutil.Error):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                self.family[process.pid] = process
        return {pid: process for pid, process in self.family.items() if alive(process)}

    def child(self, name: str) -> psutil.Process | None:
        """The descendant of that name: ``cryptod-train``, ``cryptod-collect``."""
        for process in self.relatives().values():
            with contextlib.suppress(psutil.Error):
                if process.name() == name:
                    return process
        return None

    def forkserver(self) -> psutil.Process | None:
        """The one child of the daemon's own that has children, or may have."""
        for process in self.relatives().values():
            with contextlib.suppress(psutil.Error):
                if process.ppid() == self.process.pid and "forkserver" in " ".join(process.cmdline()):
                    return process
        return None

    def stop(self, number: int = signal.SIGTERM) -> float:
        """End it and wait; how many seconds that took. Nothing of it may be left."""
        self.relatives()
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(20)
        took = time.monotonic() - began
        wait_for(lambda: not self.relatives(), f"its children are gone: {self.relatives()}", seconds=3)
        self.notify.close()
        return took

    def log(self) -> str:
        return self.log_path.read_text()

    def lines(self, sentence: str) -> list[str]:
        return [line for line in self.log().splitlines() if sentence in line]

    def control(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`cryptoctl`."""
        return subprocess.run([str(BIN / "cryptoctl"), *arguments], env=self.environ, capture_output=True, text=True, timeout=30)

    def wait_for(self, look: Callable[[Client], T | Literal[False] | None], what: str, *, seconds: float = 60.0) -> T:
        """What ``look(client)`` returns as soon as it is true."""
        with self.client() as client:
            try:
                return wait_for(lambda: look(client), what, seconds=seconds)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.log()[-4000:]}") from None

    def wait_until_trained(self, coins: int) -> None:
        """Forecasts of so many coins are there, made by the models that serve after a full retrain, and no training runs."""

        def made(client: Client) -> bool:
            serves = {row["symbol"]: row["model"] for row in client.symbols()["followed"]}
            return all(forecast.model == serves[symbol] for symbol, forecast in client.get_many().items())

        self.wait_for(lambda client: client.status()["training"]["last_full"], "the end of the first full retrain")
        self.wait_for(lambda client: client.status()["training"]["running"] is None, "the end of the training")
        self.wait_for(lambda client: client.cache_stats()["entries"] == coins and made(client), "the forecasts")

    def wait_for_line(self, sentence: str, count: int = 1, *, seconds: float = 60.0) -> list[str]:
        try:
            return wait_for(lambda: len(found := self.lines(sentence)) >= count and found, f"the line {sentence!r}", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-4000:]}") from None


def alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def issues(state: Path) -> list[Issue]:
    """What the ledger of a state directory holds, read beside the daemon or after it."""
    environment = open_environment(state / "serving", databases=ledger.DATABASES, writer=False)
    try:
        return list(Ledger(environment).read(0, 1 << 62))
    finally:
        environment.close()
