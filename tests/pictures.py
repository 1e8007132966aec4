"""`make pictures`: the pictures of docs/images, from a simulated run: `watch` at two sizes, `plot` in a terminal and as a file, the report.

Lives through some days of a simulated exchange first, so that there are scores to show, which takes a while; with CRYPTOD_SOCKET in the
environment it draws the daemon that listens there instead.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console, RenderableType
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

from cryptod.client import Client
from ctl import picture
from ctl.board import Board, draw
from ctl.plot import HISTORY, plot
from ctl.terminal import Screen
from tests.integration.house import Daemon, SimulatedExchange, short_folder
from tests.pages import CHROMIUM

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
DAYS = float(os.environ.get("PICTURE_DAYS", "12"))
SPEED = 900
COIN = "BTC/USDT"


def board(client: Client) -> Board:
    """As `cryptoctl watch` has it when it has just connected."""
    made = Board()
    made.link = ""
    made.status = client.status() | {"serving": client.models()}
    made.rows = client.top(20_000)
    for job in client.jobs():
        made.job(job)
    made.lines.extend(line for line in client.log_lines() if "socket" not in line["fields"])  # where this run's files lie is no news
    made.move(1)
    return made


def begin_training(client: Client) -> None:
    """Have something to show, soon after the hour's forecasts: a little later they are stale at this speed."""
    client.subscribe(["jobs", "forecasts"])
    while (event := client.next_event(300.0)) is not None and event.topic != "forecasts":
        pass
    number = client.train("incremental")["id"]
    while (event := client.next_event(300.0)) is not None:
        if event.topic == "jobs" and event.payload["id"] == number and event.payload["progress"]["done"] > 0:
            return


def terminal(path: Path, width: int, height: int, *drawn: RenderableType) -> None:
    """What a terminal of that size shows, as an SVG that asks nothing of the network."""
    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=width, height=height, file=nowhere, force_terminal=True, color_system="truecolor")
        for each in drawn:
            console.print(each, end="" if len(drawn) == 1 else "\n")
        text = console.export_svg(title="cryptoctl", theme=DIMMED_MONOKAI)
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL), encoding="utf-8")


def browser(page: Path, path: Path, width: int, height: int, *, dark: bool) -> None:
    """The top of the page in a browser's window of that size, in few colours: a small file."""
    assert CHROMIUM is not None, "the report is drawn by Chromium; on Debian: apt install chromium"
    with tempfile.TemporaryDirectory() as profile:
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        command += [f"--window-size={width},{height}", f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
        subprocess.run([*command, f"--screenshot={path}", page.as_uri()], check=True, capture_output=True, timeout=300)
    with Image.open(path) as shot:
        shot.convert("RGB").quantize(255, dither=Image.Dither.NONE).save(path, optimize=True)


def draw_all(client: Client) -> None:
    """Every picture, of the daemon behind ``client``."""
    IMAGES.mkdir(exist_ok=True)
    begin_training(client)
    seen = board(client)
    for name, width, height in (("watch-80x24.svg", 80, 24), ("watch-130x40.svg", 130, 40)):
        terminal(IMAGES / name, width, height, draw(seen, width, height, seen.status["now"]))
    forecast = client.call("get", COIN)
    lines = plot(forecast, Screen(width=100, height=30, colour=True), client.candles(COIN, HISTORY))
    terminal(IMAGES / "plot.svg", 100, len(lines), *(Text.from_ansi(line) for line in lines))
    picture.write(IMAGES / "plot-file.svg", forecast, client.candles(COIN, picture.HISTORY))
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        page.write_text(client.report(), encoding="utf-8")
        browser(page, IMAGES / "report-desktop.png", 1200, 1150, dark=False)
        browser(page, IMAGES / "report-phone-dark.png", 500, 1100, dark=True)
    for path in sorted(IMAGES.iterdir()):
        print(f"{path.stat().st_size / 1000:6.0f} kB  {path.name}")


def main() -> int:
    if path := os.environ.get("CRYPTOD_SOCKET"):
        with Client(path, timeout=300.0) as client:
            draw_all(client)
        return 0
    assert shutil.which("cryptod"), "run it as `make pictures`"
    with short_folder() as folder, SimulatedExchange("--coins", "40", "--seed", "7", speed=SPEED) as exchange:
        settings: dict[str, Any] = {"cryptod_universe_size": 40, "cryptod_train_batch_size": 25, "cryptod_train_months_back": 6}
        with Daemon(folder, exchange, cryptod_forecast_base_model="true", **settings) as daemon:
            began, patience = exchange.now(), DAYS * 86_400 / SPEED + 60
            daemon.wait_for(lambda _: exchange.now() - began > DAYS * 86_400_000, "the simulated days", seconds=patience)
            with Client(str(daemon.socket), timeout=300.0) as client:
                draw_all(client)
    return 0


if __name__ == "__main__":
    sys.exit(main())
