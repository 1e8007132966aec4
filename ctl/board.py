"""The board of `cryptoctl watch`: what the daemon has told, in which order and of which coins it is wanted, and how all that is drawn.

Knows the shapes of the replies (`ctl.render` has them) and rich; no socket, no keyboard, no clock: ``now`` is the daemon's, in UTC ms. Two
layouts: lines for a small terminal (from 80 x 24 on), panels for a large one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from rich.box import ROUNDED
from rich.console import Group, RenderableType
from rich.layout import Layout
from rich.panel import Panel
from rich.style import Style
from rich.styled import Styled
from rich.table import Table
from rich.text import Text

from ctl import jobs
from ctl.plot import plot
from ctl.render import SEVERITY_PAINT, forecast, skill_of
from ctl.terminal import Screen, bar, clean, spark
from ctl.units import about_left, ago, clock, counted, duration, percent, price, size, stamp

Map = dict[str, Any]
WIDE, HIGH = 112, 36
"""Columns and lines from which on there are panels."""
SIDE: Final = 50
MODELS_SHOWN: Final = 4
SORTS: Final[tuple[tuple[str, Callable[[Map], Any]], ...]] = (
    ("24 h, the largest move first", lambda row: -abs(row.get("change_24h") or 0.0)),
    ("score", lambda row: -row["score"]),
    ("P(up)", lambda row: -row["p_up"]),
    ("expected return", lambda row: -row["expected_return"]),
    ("volatility", lambda row: -row["volatility"]),
    ("name", lambda row: row["symbol"]),
)
KEYS: Final = (("↑↓", "choose"), ("⏎", "detail"), ("s", "sort"), ("r", "reverse"), ("/", "filter"), ("t", "train"), ("q", "quit"))
LEVEL_PAINT: Final = {"warning": "yellow", "error": "red", "critical": "bold red", "debug": "dim"}
BATCHES: Final = {"done": ("■", "green"), "failed": ("■", "red"), "waiting": ("□", "dim")}
CHOSEN: Final = Style(reverse=True)


class Board:
    """What is known and what is wanted. ``link``: empty while the daemon is heard, else what is the matter; ``since``: since when (UTC ms)
    it is not heard any more, 0 if it never was; ``how``: whether it is gone or silent. What is known is old then, and is drawn grey."""

    def __init__(self) -> None:
        self.status: Map = {}
        self.rows: list[Map] = []
        self.jobs: dict[int, Map] = {}
        self.lines: deque[Map] = deque(maxlen=200)
        self.link, self.since, self.how = "connecting", 0, ""
        self.sort, self.reverse, self.filter = 0, False, ""
        self.chosen = ""
        self.detail: tuple[Map, Map] | None = None
        """Forecast and candles of the coin that is looked at."""
        self.mode = "coins"
        """``coins``, ``detail``, ``filter`` (its text is being typed) or ``train`` (the kind is being asked)."""
        self.note = ""

    def job(self, told: Map) -> None:
        """Take in what is told of a job."""
        self.jobs[told["id"]] = told
        for number in sorted(self.jobs)[:-20]:
            del self.jobs[number]

    def lose(self, how: str, why: str, now: int) -> None:
        """The daemon is not heard any more; or there is more to say about that."""
        if self.status and not self.link:
            self.since = now
        self.link, self.how = why, how

    def hear(self) -> None:
        """It is heard."""
        self.link, self.since = "", 0

    @property
    def running(self) -> Map | None:
        return next((job for job in self.jobs.values() if job["state"] == "running"), None)

    def shown(self) -> list[Map]:
        """The coins that pass the filter, in the order that is wanted."""
        wanted = [row for row in self.rows if self.filter.casefold() in row["symbol"].casefold()]
        return sorted(wanted, key=SORTS[self.sort][1], reverse=self.reverse)

    def move(self, steps: int) -> None:
        """Choose a coin further down, or up."""
        names = [row["symbol"] for row in self.shown()]
        if names:
            at = names.index(self.chosen) if self.chosen in names else (0 if steps >= 0 else len(names))
            self.chosen = names[max(0, min(len(names) - 1, at + steps if self.chosen in names else 0))]


def draw(board: Board, width: int, height: int, now: int) -> RenderableType:
    """The whole screen, ``width`` columns by ``height`` lines."""
    layout = Layout()
    top = Layout(_head(board, now), size=1)
    foot = Layout(_foot(board), size=1)
    if board.detail is not None:
        layout.split_column(top, Layout(_detail(board.detail, width, height - 2)), foot)
    elif width >= WIDE and height >= HIGH:
        layout.split_column(top, *_panels(board, width, height - 2, now), foot)
    else:
        layout.split_column(top, *_lines(board, width, height - 2, now), foot)
    return Styled(layout, "dim") if board.since else layout


def _head(board: Board, now: int) -> Text:
    process, health = board.status.get("process", {}), board.status.get("health", {})
    head = Text(f"cryptod {process.get('version', '')}", style="bold", no_wrap=True, overflow="ellipsis")
    if board.link:
        if board.since:
            head.append(f"  ○ {board.how} since {clock(board.since)} UTC ({duration(max(0, now - board.since) / 1000)}),", style="bold red")
        return head.append(f"{' ' if board.since else '  '}{clean(board.link)}", style="bold yellow")
    severity = health.get("severity", "ok")
    found = health.get("conditions", [])
    head.append(f"  ● {severity}", style=SEVERITY_PAINT.get(severity, ""))
    head.append(f", {counted(len(found), 'condition')}" if found else "", style=SEVERITY_PAINT.get(severity, ""))
    return head.append(f"  up {duration(process.get('uptime', 0))}  {stamp(now)}", style="not bold")


def _foot(board: Board) -> Text:
    if board.mode == "filter":
        return Text.assemble(("filter: ", "bold"), board.filter, ("█", "dim"), ("  ⏎ keep  Esc all coins", "dim"))
    if board.mode == "train":
        words = (("train: ", "bold"), ("i", "bold"), " incremental update  ", ("f", "bold"), " full retrain  ", ("Esc", "bold"), " neither")
        return Text.assemble(*words)
    if board.note:
        return Text(clean(board.note), style="yellow", no_wrap=True, overflow="ellipsis")
    if board.mode == "detail":
        return Text.assemble(("Esc", "bold"), (" back  ", "dim"), ("↑↓", "bold"), (" other coin  ", "dim"), ("q", "bold"), (" quit", "dim"))
    foot = Text(no_wrap=True, overflow="ellipsis")
    for key, word in KEYS:
        foot.append(key, style="bold").append(f" {word}  ", style="dim")
    return foot


# --- a small terminal: a line for each thing ------------------------------------------------------------------------


def _lines(board: Board, width: int, height: int, now: int) -> list[Layout]:
    found = _conditions(board, now)[: max(1, height // 8)]
    facts = [
        ("Processes", _family(board)),
        ("Training", _training(board, width - 13, now)),
        ("Next", _schedule(board, now)),
        ("Models", _models_line(board, now)),
        ("Cache", _cache(board, now)),
        ("Movers", _movers(board)),
        *((("Health", line) if i == 0 else ("", line)) for i, line in enumerate(found)),
    ]
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="bold", no_wrap=True, min_width=11)
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=width - 13)
    for name, text in facts:
        grid.add_row(name, text)
    log = 4 if height >= 20 else 0
    coins = height - len(facts) - log - 1
    parts = [Layout(grid, size=len(facts)), Layout(_title(board), size=1), Layout(_coins(board, width, coins), size=coins)]
    return [*parts, Layout(_log(board, log), size=log)] if log else parts


def _title(board: Board) -> Text:
    return Text(f"── {_order(board)} ".ljust(400, "─"), style="dim", no_wrap=True, overflow="crop")


def _order(board: Board) -> str:
    filtered = f", with {board.filter.upper()}" if board.filter else ""
    return f"{counted(len(board.shown()), 'coin')}{filtered}, by {SORTS[board.sort][0]}{', reversed' if board.reverse else ''}"


def _family(board: Board) -> Text:
    memory, disk = board.status.get("memory", {}), board.status.get("disk", {})
    text = Text(no_wrap=True, overflow="ellipsis")
    for process in _merged(memory.get("family", [])):
        text.append(process["name"].removeprefix("cryptod-"), style="cyan").append(f" {size(process['pss'])} {process['cpu']:.0f} %  ")
    if memory.get("limit"):
        text.append(f"of {size(memory['limit'])}  ")
    return text.append(f"disk {size(disk['used'])}" if disk.get("free") else "")


def _merged(family: list[Map]) -> list[Map]:
    """The forkserver and its helper as one."""
    rows: dict[str, Map] = {}
    for process in family:
        known = rows.setdefault(process["name"], {"name": process["name"], "pss": 0, "cpu": 0.0, "pids": []})
        known["pss"] += process["pss"]
        known["cpu"] += process["cpu"]
        known["pids"].append(process["pid"])
    return list(rows.values())


def _training(board: Board, width: int, now: int) -> Text:
    job = board.running
    if job is None:
        if collecting := jobs.collecting(board.status.get("exchange", {}), 12):
            return Text(collecting, style="cyan")
        last = max(board.jobs.values(), key=lambda job: job["id"], default=None)
        return Text(f"idle; {jobs.job_end(last)}, {ago(last['ended'] or last['created'], now)}" if last else "idle, no jobs yet")
    share = jobs.job_share(job)
    elapsed = max(0, now - job["started"]) / 1000
    rest = about_left(jobs.rest(elapsed, share))
    text = Text(f"{jobs.KIND_WORDS.get(job['kind'], job['kind'])} ", style="cyan", no_wrap=True, overflow="ellipsis")
    text.append_text(_batches(job)).append(f" {bar(share, max(6, min(24, width - 52)))} {percent(share, 0)}", style="cyan")
    return text.append(f" {duration(elapsed)}{rest}  {jobs.job_text(job)}", style="default")


def _batches(job: Map) -> Text:
    text = Text()
    first = True
    for batch in job["batches"]:
        mark, paint = BATCHES.get(batch["state"], ("□", ""))
        if batch["state"] == "waiting" and first:
            mark, paint, first = "▣", "cyan", False
        text.append(mark, style=paint)
    return text


def _schedule(board: Board, now: int) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    rows = board.status.get("schedule", [])
    for row in sorted((row for row in rows if row.get("next")), key=lambda row: int(row["next"])):
        text.append(row["name"], style="cyan").append(f" {ago(row['next'], now)}  ")
    for row in rows:
        if not row.get("next"):
            text.append(f"{row['name']} {_off(row)}  ", style="dim")
    return text


def _off(row: Map) -> str:
    return "paused" if row.get("enabled") and row.get("paused") else "off"


def _models_line(board: Board, now: int) -> Text:
    serving = board.status.get("serving", {})
    models = serving.get("current", [])
    if not models:
        return Text("none yet")
    skills = [skill for model in models if (skill := skill_of(model)[0]) is not None]
    said = f", skill {percent(min(skills), 2, sign=True)} to {percent(max(skills), 2, sign=True)}" if skills else ""
    return Text(
        f"{counted(len(models), 'model')} for {sum(model['served'] for model in models)} coins{said}, {ago(serving['promoted_at'], now)}"
    )


def _cache(board: Board, now: int) -> Text:
    cache = board.status.get("cache", {})
    if not cache:
        return Text("-")
    asked = cache["hits"] + cache["misses"]
    hits = f", {percent(cache['hits'] / asked)} hits of {asked:,}" if asked else ""
    said = f"{counted(cache['entries'], 'forecast')}, refreshed {ago(cache.get('last_refresh'), now)}{hits}"
    return Text(said, no_wrap=True, overflow="ellipsis")


def _movers(board: Board, *, wrapped: bool = False) -> Text:
    text = Text(no_wrap=not wrapped, overflow="ellipsis")
    known = [row for row in board.rows if row.get("change_24h") is not None]
    for row in sorted(known, key=lambda row: -abs(row["change_24h"]))[:6]:
        text.append(row["symbol"].partition("/")[0] + " ")
        text.append(percent(row["change_24h"], 1, sign=True) + "  ", style="green" if row["change_24h"] > 0 else "red")
    return text


def _conditions(board: Board, now: int) -> list[Text]:
    found = board.status.get("health", {}).get("conditions", [])
    if not found:
        return [Text("no conditions", style="green")]
    return [
        Text(f"{row['name']}: {clean(row['text'])} (since {ago(row['since'], now)})", SEVERITY_PAINT.get(row["severity"], ""), no_wrap=True,
             overflow="ellipsis")
        for row in found
    ]  # fmt: skip


def _log(board: Board, lines: int) -> Group:
    """The last lines, the newest at the foot."""
    title = Text("── log ".ljust(400, "─"), style="dim", no_wrap=True, overflow="crop")
    return Group(title, *(_log_line(line) for line in list(board.lines)[-(lines - 1) :]))


def _log_line(line: Map) -> Text:
    text = Text(stamp(line["time"], zone=False)[11:], style="dim", no_wrap=True, overflow="ellipsis")
    text.append(f" {line['logger']}: {clean(line['text'])}", style=LEVEL_PAINT.get(line["level"], "default"))
    fields = " ".join(f"{name}={clean(value)}" for name, value in line["fields"].items())
    return text.append(f"  {fields}", style="dim")


# --- the coins ------------------------------------------------------------------------------------------------------


def _coins(board: Board, width: int, height: int) -> RenderableType:
    """The table of coins around the chosen one, ``height`` lines with its head."""
    rows = board.shown()
    if not rows:
        words = f"no coin has {board.filter.upper()} in its name" if board.filter and board.rows else "no forecasts yet"
        return Text(words, style="dim")
    names = [row["symbol"] for row in rows]
    at = names.index(board.chosen) if board.chosen in names else 0
    room = max(1, height - 1)
    first = max(0, min(at - room // 2, len(rows) - room))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    columns = _columns(width)
    for column in columns:
        table.add_column(column.head, justify="left" if column.left else "right", no_wrap=True, max_width=column.width)
    for row in rows[first : first + room]:
        cells = [column.cell(row) for column in columns]
        if row["symbol"] == board.chosen:  # without their colours, which would be backgrounds here
            table.add_row(*(cell.plain for cell in cells), style=CHOSEN)
        else:
            table.add_row(*cells)
    return table


class Column(NamedTuple):
    """``width``: the most that it takes; ``rank``: those of the highest rank are left out first where there is no room."""

    head: str
    width: int
    rank: int
    cell: Callable[[Map], Text]
    left: bool = False


def _columns(width: int) -> list[Column]:
    """Those that fit."""
    shown = list(COLUMNS)
    while sum(column.width + 2 for column in shown) - 2 > width and len(shown) > 1:
        shown.remove(max(shown, key=lambda column: column.rank))
    return shown


def _sign(value: float | None) -> str:
    return "" if not value else "green" if value > 0 else "red"


def _share(key: str, digits: int) -> Callable[[Map], Text]:
    """A share of one with its sign, green or red."""
    return lambda row: Text(percent(row.get(key), digits, sign=True), _sign(row.get(key)))


COLUMNS: Final = (
    Column("Coin", 12, 0, lambda row: Text(row["symbol"] + (" *" if row["stale"] else ""), "yellow" if row["stale"] else ""), left=True),
    Column("Close", 12, 1, lambda row: Text(price(row["close"]))),
    Column("1 h", 8, 8, _share("change_1h", 2)),
    Column("24 h", 8, 2, _share("change_24h", 2)),
    Column("Last day", 10, 6, lambda row: Text(spark(row.get("recent") or [], 10), _sign(row.get("change_24h"))), left=True),
    Column("P(up)", 6, 3, lambda row: Text(percent(row["p_up"]))),
    Column("Expected", 8, 7, _share("expected_return", 2)),
    Column("Volatility", 10, 4, lambda row: Text(percent(row["volatility"], 2))),
    Column("Score", 6, 5, lambda row: Text(f"{row['score']:+.3f}")),
    Column("24 h ahead", 10, 9, lambda row: Text(spark(row["path"], 10, (min(0.0, *row["path"]), max(1e-9, *row["path"]))),
                                                _sign(row["expected_return"]))),
)  # fmt: skip


def _detail(detail: tuple[Map, Map], width: int, height: int) -> RenderableType:
    """The chosen coin: its plot, and where there is room the table of its ranges."""
    made, candles = detail
    colour = Screen(width=width, height=height, colour=True)
    ranges = forecast(made, colour)
    roomy = height >= len(ranges) + 22
    drawn = plot(made, Screen(width=width, height=height - (len(ranges) + 1 if roomy else -1), colour=True), candles)
    lines = [*drawn, "", *ranges[1:]] if roomy else drawn
    return Group(*(Text.from_ansi(line, no_wrap=True, overflow="crop") if line else Text("") for line in lines[:height]))


# --- a large terminal: panels ---------------------------------------------------------------------------------------


def _panels(board: Board, width: int, height: int, now: int) -> list[Layout]:
    family = _merged(board.status.get("memory", {}).get("family", []))
    models = min(MODELS_SHOWN, len(board.status.get("serving", {}).get("current", [])))
    found = [Text(line.plain, line.style) for line in _conditions(board, now)]
    log = 9 if height >= 44 else 5
    side = [
        ("processes", _family_table(board, family), len(family) + 1),
        ("training", _training_panel(board, now), 3),
        ("schedule", _schedule_table(board, now), max(1, len(board.status.get("schedule", [])))),
        ("models", _models_table(board, now), models + 2),
        ("movers", _movers(board, wrapped=True), 2),
    ]
    rest = height - log - sum(lines + 2 for _, _, lines in side)
    if rest < 3:  # the table of coins says it too
        rest += side.pop()[2] + 2
    side.append(("health", Group(*found), max(1, rest - 2)))
    column = Layout(size=SIDE)
    column.split_column(*(Layout(_panel(name, body), size=lines + 2) for name, body, lines in side))
    coins = Layout(_panel(_order(board), _coins(board, width - SIDE - 4, height - log - 2)))
    middle = Layout(size=height - log)
    middle.split_row(coins, column)
    return [middle, Layout(_panel("log", Group(*(_log_line(line) for line in list(board.lines)[-(log - 2) :]))), size=log)]


def _panel(name: str, body: RenderableType) -> Panel:
    return Panel(body, title=Text(name, style="bold"), title_align="left", box=ROUNDED, border_style="dim", padding=(0, 1))


def _family_table(board: Board, family: list[Map]) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    for _ in range(3):
        grid.add_column(justify="right", no_wrap=True)
    for process in family:
        pids = ", ".join(map(str, process["pids"]))
        grid.add_row(Text(process["name"], style="cyan"), size(process["pss"]), f"{process['cpu']:.0f} %", Text(f"pid {pids}", style="dim"))
    memory, disk = board.status.get("memory", {}), board.status.get("disk", {})
    total = Text(f"{size(memory.get('pss_total', 0))} in all, at most {size(memory.get('peak_total', 0))}")
    if disk.get("free"):
        total.append(f"; disk {size(disk['used'])}")
    return Group(grid, total)


def _training_panel(board: Board, now: int) -> RenderableType:
    job = board.running
    if job is None:
        return _wrapped(_training(board, SIDE, now))
    share = jobs.job_share(job)
    elapsed = max(0, now - job["started"]) / 1000
    rest = about_left(jobs.rest(elapsed, share))
    head = Text(f"{jobs.KIND_WORDS.get(job['kind'], job['kind'])} {job['id']} ", style="cyan").append_text(_batches(job))
    return Group(
        head, Text(f"{bar(share, 12)} {percent(share, 0)} {duration(elapsed)}{rest}"), Text(jobs.job_text(job), overflow="ellipsis")
    )


def _wrapped(text: Text) -> Text:
    return Text(text.plain, text.style)


def _schedule_table(board: Board, now: int) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for row in board.status.get("schedule", []):
        coming = ago(row["next"], now) if row.get("next") else _off(row)
        words = (coming, ago(row["last"], now))
        grid.add_row(
            *(Text(word, paint, no_wrap=True, overflow="ellipsis") for word, paint in zip((row["name"], *words), ("cyan", "", "dim")))
        )
    return grid


def _models_table(board: Board, now: int) -> RenderableType:
    serving = board.status.get("serving", {})
    if not serving.get("current"):
        return Group(Text("none yet; the first training starts by itself"), _cache(board, now))
    grid = Table.grid(padding=(0, 2, 0, 0))
    for model in serving["current"][:MODELS_SHOWN]:
        skill, best = skill_of(model)
        against = f"{percent(skill, 2, sign=True)} against {best}" if skill is not None else ""
        grid.add_row(Text(model["kind"], style="cyan"), f"{model['served']} of {model['coins']}", Text(against, _sign(skill)))
    more = len(serving["current"]) - MODELS_SHOWN
    foot = f"generation {serving['generation']}, promoted {ago(serving['promoted_at'], now)}" + (f"; {more} more" if more > 0 else "")
    return Group(grid, Text(foot, style="dim"), _cache(board, now))
