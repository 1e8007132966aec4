"""`cryptoctl watch` in a real terminal (a pty, whose screen is read back with pyte) on a real daemon: keys, sizes, restarts, endings."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyte
import pytest

from tests.integration.house import BIN, Daemon, SimulatedExchange, short_folder, wait_for

COINS = 4
ESCAPE = "\x1b"


class Seen:
    """The terminal that `cryptoctl watch` runs in. ``sent`` is all that it was sent."""

    def __init__(self, daemon: Daemon, width: int, height: int, **environ: str) -> None:
        self._master, slave = pty.openpty()
        self._screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self._screen)
        self.sent = b""
        termios.tcsetwinsize(slave, (height, width))
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.process = subprocess.Popen(
            [str(BIN / "cryptoctl"), "watch"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env=daemon.environ | {"TERM": "xterm-256color", **environ}, preexec_fn=_take_terminal,
        )  # fmt: skip

    def look(self) -> str:
        """The screen as it is now."""
        while select.select([self._master], [], [], 0.0)[0]:
            with contextlib.suppress(OSError):
                data = os.read(self._master, 65536)
                self.sent += data
                self._stream.feed(data)
        return "\n".join(self._screen.display)

    def wait_for(self, *words: str, without: str = "\0", seconds: float = 60.0) -> str:
        """The screen, as soon as all these words stand on it."""

        def found() -> str | None:
            page = self.look()
            return page if all(word in page for word in words) and without not in page else None

        try:
            return wait_for(found, f"the words {words}", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.look()}") from None

    def colours(self) -> set[str]:
        """Those of the letters on the screen."""
        return {cell.fg for row in self._screen.buffer.values() for cell in row.values() if cell.data.strip()}

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def resize(self, width: int, height: int) -> None:
        self._screen.resize(height, width)
        termios.tcsetwinsize(self._slave, (height, width))

    def end(self) -> int:
        """Wait until it has ended; the exit code. The terminal must be as it was."""
        wait_for(lambda: self.look() is not None and self.process.poll() is not None, "the end of watch")
        self.look()
        assert self.sent.rstrip().endswith(b"\x1b[0m\x1b[?25h\x1b[?1049l")
        assert termios.tcgetattr(self._slave) == self.before
        return int(self.process.returncode)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)


def _take_terminal() -> None:
    """In the child: the terminal is its controlling one, so that Ctrl-C and a change of size reach it as signals."""
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextmanager
def watching(daemon: Daemon, width: int, height: int, **environ: str) -> Iterator[Seen]:
    seen = Seen(daemon, width, height, **environ)
    try:
        yield seen
    finally:
        seen.close()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """Four trained coins, and no training but what is asked for."""
    settings: dict[str, Any] = {"cryptod_incremental_enabled": "false", "cryptod_universe_size": str(COINS)}
    with (
        short_folder() as folder,
        SimulatedExchange("--coins", str(COINS), "--seed", "7") as exchange,
        Daemon(folder, exchange, **settings) as daemon,
    ):
        daemon.wait_for(lambda client: client.cache_stats()["entries"] == COINS, "the first forecasts", seconds=120)
        daemon.wait_for(lambda client: client.status()["training"]["running"] is None, "the end of the training", seconds=120)
        yield daemon


def test_at_80_by_24_everything_is_there_and_keys_sort_filter_and_show_a_coin(daemon: Daemon) -> None:
    with watching(daemon, 80, 24) as seen:
        page = seen.wait_for(
            "● ", f"{COINS} coins, by 24 h", "Processes", "cryptod ", "MB", "incremental", "forecasts published", "BTC/USDT", "q quit"
        )
        assert len(page.splitlines()) == 24
        seen.type("s")
        seen.wait_for("by score")
        seen.type("sssssr")
        seen.wait_for("by 24 h", "reversed")
        seen.type("/btc")
        seen.wait_for("1 coin, with BTC", "BTC/USDT", without="ETH/USDT")
        seen.type("\r")
        seen.wait_for("q quit")
        seen.type("\r")
        seen.wait_for("BTC/USDT", "of outcomes", "-24 h", "+24 h", "Esc back")
        seen.type(ESCAPE)
        seen.wait_for("1 coin, with BTC")
        seen.type(ESCAPE)
        seen.wait_for(f"{COINS} coins, by 24 h")
        seen.type("q")
        assert seen.end() == 0


def test_it_follows_the_size_of_the_terminal_and_ctrl_c_gives_it_back(daemon: Daemon) -> None:
    with watching(daemon, 80, 24) as seen:
        seen.wait_for("Processes")
        seen.resize(130, 40)
        page = seen.wait_for("╭─ processes ─", "╭─ training ─", "╭─ schedule ─", "╭─ models ─", "╭─ log ─")
        assert page.splitlines()[39].startswith("↑↓ choose")
        seen.resize(90, 24)
        seen.wait_for("Processes", without="╭─ processes")
        seen.type("\x03")
        assert seen.end() == 0


def test_a_training_that_is_asked_for_here_is_watched_to_its_end(daemon: Daemon) -> None:
    with watching(daemon, 130, 40) as seen:
        seen.wait_for("● ", "idle")
        seen.type("t")
        seen.wait_for("i incremental update", "f full retrain")
        seen.type("f")
        seen.wait_for("full retrain", "▣", "cryptod-train", "job started", seconds=120)
        seen.wait_for("q quit", without="is queued")
        seen.wait_for("full retrain", "done in", "promoted", seconds=120)
        seen.process.send_signal(signal.SIGTERM)
        assert seen.end() == 0


def test_a_daemon_that_restarts_is_waited_for_and_watched_again(daemon: Daemon) -> None:
    with watching(daemon, 80, 24, NO_COLOR="1") as seen:
        seen.wait_for("● ")
        daemon.stop()
        page = seen.wait_for("waiting for the daemon")
        assert f"{COINS} coins, by" in page, "what was known is still shown"
        daemon.start().ready()
        seen.wait_for("● ", f"{COINS} coins, by", without="waiting for the daemon")
        assert b"\x1b[32m" not in seen.sent, "NO_COLOR is honoured"
        seen.type("q")
        assert seen.end() == 0


def test_a_killed_daemon_is_grey_at_once_with_since_when_and_is_watched_again_when_it_is_back(daemon: Daemon) -> None:
    with watching(daemon, 80, 24) as seen:
        seen.wait_for("● ")
        assert "green" in seen.colours()
        daemon.stop(signal.SIGKILL)
        page = seen.wait_for("○ gone since ", " UTC (", "waiting for the daemon", without="● ", seconds=10)
        assert f"{COINS} coins, by" in page
        wait_for(lambda: seen.look() and "green" not in seen.colours(), "nothing is green", seconds=10)
        daemon.start().ready()
        seen.wait_for("● ", f"{COINS} coins, by", without="gone since")
        wait_for(lambda: seen.look() and "green" in seen.colours(), "it is green again", seconds=10)


def test_a_daemon_that_says_nothing_any_more_is_not_shown_as_if_it_did(daemon: Daemon) -> None:
    with watching(daemon, 80, 24) as seen:
        seen.wait_for("● ")
        daemon.process.send_signal(signal.SIGSTOP)
        try:
            seen.wait_for("○ silent since ", "waiting for the daemon", without="● ", seconds=30)
        finally:
            daemon.process.send_signal(signal.SIGCONT)
        seen.wait_for("● ", without="silent since", seconds=30)


def test_without_a_terminal_or_a_daemon_it_says_so_and_ends(daemon: Daemon) -> None:
    found = daemon.control("watch")
    assert (found.returncode, "watch draws on a terminal" in found.stderr) == (2, True)
    with watching(daemon, 80, 24, CRYPTOD_SOCKET=str(daemon.folder / "nobody.sock")) as seen:
        seen.wait_for("cryptoctl: ", "nobody.sock")
        assert seen.process.wait(10) == 3


def test_it_sends_little_while_little_happens(daemon: Daemon) -> None:
    with watching(daemon, 80, 24) as seen:
        seen.wait_for("● ", "q quit")
        begun = time.monotonic()
        first = len(seen.sent)
        wait_for(lambda: seen.look() is not None and time.monotonic() - begun > 3, "three seconds of the board")
        assert len(seen.sent) - first < 3 * 2_000, "a whole screen each second would be more"
        seen.type("q")
        assert seen.end() == 0
