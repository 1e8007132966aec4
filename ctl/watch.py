"""`cryptoctl watch`: the daemon's board on the whole screen, live, until it is quit.

Fed by the daemon's events: nothing is asked twice but the coins' table, when it was said that there are new forecasts. Owns the terminal
while it runs and gives it back however it ends. A daemon that goes away is waited for. Only lines that have changed are sent, so that it is
light over ssh.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable, Coroutine
from typing import Any, Final

from rich.console import Console

from cryptod.asyncclient import AsyncClient
from cryptod.errors import CryptodError
from cryptod.protocol import EVENT_LOST
from cryptod.replies import Event
from ctl.board import SORTS, Board, draw
from ctl.heard import clean_error, cleaned
from ctl.plot import HISTORY

Map = dict[str, Any]
TOPICS: Final = ("status", "log", "jobs", "conditions", "forecasts")
COINS: Final = 20_000
"""All of them."""
NOTE_S: Final = 5.0
"""A note stands in the place of the keys for so long, or until one is pressed."""
AGAIN_S: Final = 1.0
"""Until a daemon that is away is asked for again."""
SILENCE_S: Final = 10.0
"""A daemon tells its status every two seconds; one that says nothing for so long is not seen as it is now."""
STILL_S: Final = 1.0
"""Without news the screen is drawn that often: the countdowns run."""
SHORTEST_S: Final = 0.08
"""Between two drawings."""
ESCAPE_S: Final = 0.05
"""An Escape that nothing follows for so long is the key, and not the beginning of another one."""
SEQUENCES: Final = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down", b"\x1b[5~": "page up", b"\x1b[6~": "page down",
    b"\x1b[H": "home", b"\x1b[F": "end", b"\x1bOH": "home", b"\x1bOF": "end", b"\x1b[1~": "home", b"\x1b[4~": "end",
}  # fmt: skip
PLAIN: Final = {"\r": "enter", "\n": "enter", "\x7f": "back", "\x08": "back", "\x03": "quit", "\x0c": "redraw"}
STEPS: Final = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -10, "page down": 10, "home": -COINS, "end": COINS}


class Keys:
    """Bytes of a terminal in, names of keys out; what is not complete waits for the rest."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The keys that are complete."""
        self._rest += data
        found = []
        while self._rest:
            if self._rest.startswith(b"\x1b"):
                known = next((code for code in SEQUENCES if self._rest.startswith(code)), None)
                if known is not None:
                    found.append(SEQUENCES[known])
                    self._rest = self._rest[len(known) :]
                elif self._rest == b"\x1b" or any(code.startswith(self._rest) for code in SEQUENCES):
                    break
                elif self._rest[1:2] not in (b"[", b"O"):  # the key itself, and another one close behind
                    found.append("escape")
                    self._rest = self._rest[1:]
                else:  # a key that means nothing here: its sequence ends with a letter or ~
                    end = next((i for i, byte in enumerate(self._rest[2:], 2) if 0x40 <= byte <= 0x7E), len(self._rest) - 1)
                    self._rest = self._rest[end + 1 :]
            else:
                length = 1 + (self._rest[0] >= 0xC0) + (self._rest[0] >= 0xE0) + (self._rest[0] >= 0xF0)
                if len(self._rest) < length:
                    break
                letter = self._rest[:length].decode(errors="replace")
                self._rest = self._rest[length:]
                found.append(PLAIN.get(letter, letter))
        return found

    def give_up(self) -> list[str]:
        """What had begun with an Escape was the Escape alone."""
        rest, self._rest = self._rest, b""
        return ["escape"] if rest.startswith(b"\x1b") else []


class Clock:
    """The daemon's clock between two of its snapshots; a simulated one runs faster."""

    def __init__(self) -> None:
        self._at, self._now, self._pace = time.monotonic(), int(1000 * time.time()), 1.0

    def set(self, now: int, clock: str) -> None:
        """``clock``: as in the status, ``system`` or one that ends in ``x900``."""
        pace = clock.rpartition("x")[2] if clock != "system" else "1"
        self._at, self._now, self._pace = time.monotonic(), now, float(pace) if pace.replace(".", "", 1).isdigit() else 1.0

    def now(self) -> int:
        return self._now + int(1000 * self._pace * (time.monotonic() - self._at))


class Terminal:
    """The screen and the keyboard of a terminal, taken over and given back."""

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno()
        self._before = termios.tcgetattr(self._fd)
        self._shown: list[str] = []
        self._size = (0, 0)

    def __enter__(self) -> Terminal:
        tty.setcbreak(self._fd)
        mode = termios.tcgetattr(self._fd)
        mode[6][termios.VSUSP] = b"\0"  # stopped, it would leave the screen as it is
        termios.tcsetattr(self._fd, termios.TCSANOW, mode)
        sys.stdout.write("\x1b[?1049h\x1b[?25l\x1b[2J")
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout.write("\x1b[0m\x1b[?25h\x1b[?1049l")
        sys.stdout.flush()
        termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def read(self) -> bytes:
        return os.read(self._fd, 1024)

    def forget(self) -> None:
        """The next drawing sends every line."""
        self._shown = []

    def draw(self, board: Board, now: int) -> None:
        """Send the lines that are not on the screen yet."""
        try:
            width, height = os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return  # the terminal is gone; the hang-up that says so is on its way
        width, height = max(width, 20), max(height, 5)
        grey = True if board.since else None  # else as the environment says
        console = Console(force_terminal=True, no_color=grey, width=width, height=height, legacy_windows=False, highlight=False)
        with console.capture() as drawn:
            console.print(draw(board, width, height, now), end="")
        lines = drawn.get().split("\n")[:height]
        parts = ["\x1b[2J"] if (width, height) != self._size else []
        before = [] if parts else self._shown
        for row, line in enumerate(lines):
            if row >= len(before) or line != before[row]:
                parts.append(
                    f"\x1b[{row + 1};1H\x1b[0m{line}\x1b[0m\x1b[K" if row + 1 < height else f"\x1b[{row + 1};1H\x1b[0m{line}\x1b[0m"
                )
        self._shown, self._size = lines, (width, height)
        sys.stdout.write("".join(parts))
        sys.stdout.flush()


class HeardAlways(AsyncClient):
    """The client, with what the daemon says fit for the screen, as `ctl.heard` has it."""

    async def call(self, method: str, *parameters: Any) -> Any:
        try:
            return cleaned(await super().call(method, *parameters))
        except CryptodError as error:
            raise clean_error(error) from None

    async def next_event(self, timeout: float | None = None) -> Event | None:
        event = await super().next_event(timeout)
        return event if event is None else Event(event.topic, cleaned(event.payload))


class Watch:
    """The board, fed by one daemon and moved by keys."""

    def __init__(self, path: str, terminal: Terminal) -> None:
        self._path, self._terminal = path, terminal
        self._board, self._clock, self._keys = Board(), Clock(), Keys()
        self._client: AsyncClient | None = None
        self._news, self._end = asyncio.Event(), asyncio.Event()
        self._heard = time.monotonic()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is quit, or told to end by a signal."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._end.set)
        loop.add_signal_handler(signal.SIGWINCH, self._news.set)
        loop.add_reader(sys.stdin.fileno(), self._typed)
        work = [asyncio.create_task(self._feed()), asyncio.create_task(self._draw())]
        end = asyncio.create_task(self._end.wait())
        try:
            done, _ = await asyncio.wait([*work, end], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()  # a defect is not passed over
        finally:
            loop.remove_reader(sys.stdin.fileno())
            for task in (*work, end, *self._tasks):
                task.cancel()
            await asyncio.gather(*work, end, *self._tasks, return_exceptions=True)

    # --- what the daemon tells

    async def _feed(self) -> None:
        while True:
            try:
                async with HeardAlways(self._path, patience=0.0) as client:
                    client.on_loss = self._lose
                    await self._follow(client)
            except CryptodError as error:
                self._lose(f": {error.args[0] if error.args else error}")
                await asyncio.sleep(AGAIN_S)

    async def _follow(self, client: AsyncClient) -> None:
        await client.subscribe(TOPICS)
        await self._look(client)
        self._hear(client)
        while True:
            event = await client.next_event(SILENCE_S)
            if event is None:
                self._lose(how="silent")
                continue
            self._hear(client)
            if event.topic == EVENT_LOST:
                await self._look(client)
            elif event.topic == "forecasts":
                self._board.rows = await client.top(COINS)
                self._start(self._look_closer())
            else:
                self._take(event.topic, event.payload)
            self._news.set()

    def _hear(self, client: AsyncClient) -> None:
        self._client = client
        self._board.hear()
        self._news.set()

    def _lose(self, why: str = "", how: str = "gone") -> None:
        """The daemon is gone, or as good as gone: the board says so at once."""
        self._client = None
        self._board.lose(how, f"waiting for the daemon{why}", self._clock.now())
        self._news.set()

    async def _look(self, client: AsyncClient) -> None:
        """Everything, once: when the connection is new, and when events were lost."""
        board = self._board
        status = await client.status()
        serving = await client.models()
        self._take("status", status | {"serving": serving})
        board.rows = await client.top(COINS)
        for job in await client.jobs(20):
            board.job(job)
        board.lines.clear()
        board.lines.extend(await client.log_lines())

    def _take(self, topic: str, payload: Map) -> None:
        board = self._board
        if topic == "status":
            board.status = payload
            self._clock.set(payload["now"], payload["process"]["clock"])
            if (running := payload["training"]["running"]) is not None:
                board.job(running)
        elif topic == "jobs":
            board.job(payload)
        elif topic == "log":
            known = list(board.lines)  # a line may have been told and asked for at once
            board.lines.extend(line for line in payload["lines"] if line not in known)

    # --- what is drawn

    async def _draw(self) -> None:
        while True:
            self._terminal.draw(self._board, self._clock.now())
            try:
                async with asyncio.timeout(STILL_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            await asyncio.sleep(SHORTEST_S)

    # --- what is typed

    def _typed(self) -> None:
        data = self._terminal.read()
        if not data:
            self._end.set()  # the keyboard is gone
        for key in self._keys.feed(data):
            self._press(key)
        asyncio.get_running_loop().call_later(ESCAPE_S, self._escaped)

    def _escaped(self) -> None:
        for key in self._keys.give_up():
            self._press(key)

    def _press(self, key: str) -> None:
        board = self._board
        board.note = ""
        modes: dict[str, Callable[[str], None]] = {"filter": self._press_filter, "train": self._press_train}
        if key == "quit":
            self._end.set()
        elif key == "redraw":
            self._terminal.forget()
        elif board.mode in modes:
            modes[board.mode](key)
        elif key in STEPS:
            board.move(STEPS[key])
            self._start(self._look_closer())
        else:
            self._press_letter(key)
        self._news.set()

    def _press_letter(self, key: str) -> None:
        board = self._board
        if key == "q":
            self._end.set()
        elif key == "escape":
            if board.detail is None:
                board.filter = ""
            board.detail, board.mode = None, "coins"
        elif key == "enter" and board.detail is None:
            if not board.chosen:
                board.move(0)
            board.mode = "detail"
            self._start(self._look_closer())
        elif key == "enter":
            board.detail, board.mode = None, "coins"
        elif key == "s" and board.detail is None:
            board.sort = (board.sort + 1) % len(SORTS)
        elif key == "r" and board.detail is None:
            board.reverse = not board.reverse
        elif key == "/" and board.detail is None:
            board.mode, board.filter = "filter", ""
        elif key == "t" and board.detail is None:
            board.mode = "train"

    def _press_filter(self, key: str) -> None:
        board = self._board
        if key in ("enter", "escape"):
            board.mode = "coins"
            board.filter = "" if key == "escape" else board.filter
            names = [row["symbol"] for row in board.shown()]
            board.chosen = board.chosen if board.chosen in names else ""
        elif key == "back":
            board.filter = board.filter[:-1]
        elif len(key) == 1 and key.isprintable():
            board.filter += key

    def _press_train(self, key: str) -> None:
        self._board.mode = "coins"
        if kind := {"i": "incremental", "f": "full"}.get(key):
            self._start(self._train(kind))

    async def _train(self, kind: str) -> None:
        if (client := self._client) is None:
            return
        try:
            job = await client.train(kind)
        except CryptodError as error:
            self._note(str(error))
        else:
            self._board.job(job)
            self._note(f"job {job['id']} is {job['state']}")
        self._news.set()

    async def _look_closer(self) -> None:
        """Forecast and candles of the chosen coin, where it is looked at."""
        board, client = self._board, self._client
        if board.mode != "detail" or client is None:
            return
        symbol = board.chosen
        try:
            made, candles = await asyncio.gather(client.call("get", symbol), client.candles(symbol, HISTORY))
        except CryptodError as error:
            board.detail, board.mode = None, "coins"
            self._note(str(error))
        else:
            if board.mode == "detail" and board.chosen == symbol:
                board.detail = made, candles
        self._news.set()

    def _note(self, text: str) -> None:
        self._board.note = text
        asyncio.get_running_loop().call_later(NOTE_S, self._forget_note, text)

    def _forget_note(self, text: str) -> None:
        if self._board.note == text:
            self._board.note = ""
            self._news.set()

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def watch(path: str) -> None:
    """Watch the daemon at this socket."""

    async def main() -> None:
        with Terminal() as terminal:
            await Watch(path, terminal).run()

    asyncio.run(main())
