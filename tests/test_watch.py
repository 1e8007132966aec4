"""The board and the keys of `cryptoctl watch`, without a terminal; with one, and a real daemon, in tests/integration/test_watch.py."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from ctl.board import SORTS, Board, draw
from ctl.watch import Clock, Keys
from tests.replies import CONDITION, MODELS, NOW, RUNNING, STATUS, candles, forecast, top_row

FAMILY = [
    {"pid": 1234, "name": "cryptod", "pss": 48_000_000, "cpu": 2.1},
    {"pid": 1240, "name": "forkserver", "pss": 7_000_000, "cpu": 0.0},
    {"pid": 1241, "name": "forkserver", "pss": 6_000_000, "cpu": 0.0},
    {"pid": 1250, "name": "cryptod-train", "pss": 240_000_000, "cpu": 97.0},
]
LINE = {"time": NOW, "level": "info", "logger": "publisher", "text": "forecasts published", "fields": {"coins": "100"}}


def board(**changes: Any) -> Board:
    made = Board()
    made.link = ""
    made.status = {**STATUS, "serving": MODELS, "memory": {**STATUS["memory"], "family": FAMILY}}
    made.rows = [top_row(f"C{i:02}/USDT", 10.0 + i, score=0.01 * i, change_24h=0.01 * (-1) ** i * (i % 40)) for i in range(100)]
    made.job(RUNNING)
    made.lines.extend({**LINE, "fields": {"coins": str(i)}} for i in range(50))
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def screen(made: Board, width: int, height: int) -> list[str]:
    """What stands on the screen; it is never larger than that."""
    console = Console(width=width, height=height, force_terminal=True, color_system=None, legacy_windows=False)
    with console.capture() as drawn:
        console.print(draw(made, width, height, NOW), end="")
    lines = drawn.get().removesuffix("\n").split("\n")
    assert len(lines) == height
    assert max(map(len, lines)) <= width
    return lines


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 50), (100, 30), (112, 36), (130, 40), (240, 70)])
def test_the_board_shows_everything_at_every_size_from_80_by_24_on(width: int, height: int) -> None:
    page = "\n".join(screen(board(), width, height))
    wanted = [
        "warning, 1 condition", "train", "240 MB", "97 %", "full retrain", "■▣□□", "25 %", "incremental", "in 5 h 46 min", "pregenerate",
        "100 forecasts", "C39", "-39.0", "candles_stale", "coins=49", "q quit", "100 coins, by 24 h", "62.7 %",
        "log_har" if width >= 112 and height >= 36 else "skill +1.23 %",
    ]  # fmt: skip
    for words in wanted:
        assert words in page, words


@pytest.mark.parametrize(("width", "height"), [(80, 24), (130, 40)])
def test_what_does_not_fit_ends_with_dots_and_a_paused_job_is_not_said_to_be_off(width: int, height: int) -> None:
    made = board(jobs={12: {**RUNNING, "state": "done", "ended": NOW, "peak_rss": 310_000_000}})
    made.status["schedule"] = [{**row, "enabled": True, "paused": True, "next": None} for row in STATUS["schedule"]]
    page = screen(made, width, height)
    assert any("paused" in line for line in page)
    assert not any(" off" in line for line in page)
    if width == 80:
        assert next(line for line in page if line.startswith("Training")).endswith("…")


def test_a_terminal_that_is_far_too_small_is_drawn_on_too() -> None:
    for width, height in ((20, 5), (40, 12), (300, 8), (30, 60)):
        screen(board(), width, height)
        screen(board(detail=(forecast(), candles())), width, height)
        screen(Board(), width, height)


def test_coins_are_sorted_filtered_and_chosen_across_the_edges_of_the_table() -> None:
    made = board()
    assert made.shown()[0]["symbol"] == "C39/USDT"
    made.sort = next(i for i, (name, _) in enumerate(SORTS) if name == "score")
    assert made.shown()[0]["symbol"] == "C99/USDT"
    made.reverse = True
    assert made.shown()[0]["symbol"] == "C00/USDT"
    for steps, chosen in ((1, "C00/USDT"), (1, "C01/USDT"), (-5, "C00/USDT"), (1_000, "C99/USDT")):
        made.move(steps)
        assert made.chosen == chosen
    assert any("C99/USDT" in line for line in screen(made, 80, 24)), "the table follows the choice"
    made.filter = "c4"
    assert len(made.shown()) == 10
    assert "10 coins, with C4, by score, reversed" in "\n".join(screen(made, 80, 24))
    made.filter = "nothing"
    made.move(1)
    assert "no coin has NOTHING in its name" in "\n".join(screen(made, 80, 24))


def test_the_detail_of_a_coin_is_its_plot_and_on_a_high_screen_the_table_of_its_ranges() -> None:
    made = board(detail=(forecast(), candles()), mode="detail")
    assert "-24 h" in "\n".join(screen(made, 80, 24))
    assert "Lately, of BTC/USDT" in "\n".join(screen(made, 100, 50))


def test_what_an_exchange_or_a_log_says_cannot_move_the_cursor() -> None:
    made = board()
    made.lines.append({**LINE, "text": "a\x1b[2Jb", "fields": {"x": "\x1b]0;title\x07"}})
    made.status["health"] = {"severity": "warning", "conditions": [{**CONDITION, "text": "c\x1b[5Ad"}]}
    page = "\n".join(screen(made, 80, 24))
    assert "\x1b[2J" not in page
    assert "\x1b]" not in page
    assert "\x1b[5A" not in page


def test_keys_are_read_whole_however_they_come_in() -> None:
    keys = Keys()
    assert keys.feed(b"s\x1b[Aq") == ["s", "up", "q"]
    assert keys.feed(b"\x1b") == []
    assert keys.feed(b"[6~") == ["page down"]
    assert keys.feed(b"\x1b[15;5~j") == ["j"], "a key that means nothing here is passed over"
    assert keys.feed("ö".encode()[:1]) == []
    assert keys.feed("ö".encode()[1:]) == ["ö"]
    assert keys.feed(b"\x1b") == []
    assert keys.give_up() == ["escape"]
    assert keys.give_up() == []
    assert keys.feed(b"\x1bq") == ["escape", "q"]
    assert keys.feed(b"\r\x7f\x03") == ["enter", "back", "quit"]


def test_countdowns_run_at_the_pace_of_the_daemons_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    at = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: at[0])
    clock = Clock()
    for told, pace in (("system", 1), ("1700000000000@1700000000000x900", 900)):
        clock.set(NOW, told)
        at[0] += 2.0
        assert clock.now() == NOW + 2_000 * pace
