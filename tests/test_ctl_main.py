"""cryptoctl as a whole process, against the daemon's own control server with handlers that play the daemon."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from cryptod.daemon.control import ControlServer
from cryptod.errors import RequestError
from cryptod.protocol import COMMANDS
from ctl import main as ctl
from tests.outcomes import NO_SCORES, scorecard
from tests.replies import CACHE, CONDITION, MODELS, NOW, RUNNING, SCHEDULE, STATUS, SYMBOLS, batch, candles, forecast, job, top_row

ROOT = Path(__file__).resolve().parent.parent
LOGGED = {"time": NOW, "level": "warning", "logger": "service", "text": "condition raised", "fields": {"remedy": "wait a while " * 9}}
SCORES = scorecard(hours=200, coins=4)
CLOSED = job(12, state="done", batches=[batch(i) for i in (1, 2, 3, 4)], peak_rss=310_000_000)


class Daemon:
    """A control server in a thread of its own. ``asked`` keeps what came in; ``story`` is what a training tells."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[tuple[str, Any]] = []
        self.allowed = True
        self.health: dict[str, Any] = {"severity": "ok", "conditions": []}
        self.story: list[dict[str, Any] | None] = []
        self.jobs: list[dict[str, Any]] = [RUNNING]
        self.loop = asyncio.new_event_loop()
        self.server: ControlServer
        self._thread = threading.Thread(target=self._run)
        self._ready = threading.Event()
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self.start())
        self._ready.set()
        self.loop.run_forever()

    async def start(self) -> None:
        self.server = ControlServer({name: self._handler(name) for name in self._replies()}, allowed=lambda _: self.allowed)
        await self.server.start(self.path)

    def _handler(self, name: str) -> Callable[[Any, Any], Any]:
        def handler(request: Any, peer: Any) -> Any:
            self.asked.append((name, tuple(request)))
            return self._replies()[name](request)

        return handler

    def _replies(self) -> dict[str, Callable[[Any], Any]]:
        return {
            "ping": lambda r: {"version": "0.1.0", "protocol": 1, "now": NOW, "pid": 77},
            "status": lambda r: STATUS,
            "health": lambda r: self.health,
            "get": lambda r: self._forecast(r.symbol),
            "get_many": self._get_many,
            "top": lambda r: [top_row("BTC/USDT", 27_123.45), top_row("ETH/USDT", 1_870.1)][: r.count],
            "candles": lambda r: candles(r.symbol, 1_870.1 if r.symbol.startswith("ETH") else 27_123.45, r.hours),
            "log_lines": lambda r: [LOGGED] * r.limit,
            "report": lambda r: {"html": f"<!doctype html><title>{r.window}</title>"},
            "scores": lambda r: SCORES if r.symbol is None else {**NO_SCORES, "symbol": r.symbol},
            "symbols": lambda r: SYMBOLS,
            "schedule": lambda r: SCHEDULE,
            "jobs": lambda r: self.jobs,
            "train": self._train,
            "cancel": lambda r: job(r.job, state="cancelled"),
            "cache_stats": lambda r: CACHE,
            "cache_pregenerate": lambda r: {"forecasts": 100, "seconds": 0.21},
            "cache_clear": lambda r: {"dropped": 100 if r.symbols is None else len(r.symbols)},
            "models": lambda r: MODELS,
            "models_rollback": lambda r: MODELS,
            "models_pin": lambda r: {**MODELS, "pinned_at": NOW - 60_000},
            "models_unpin": lambda r: MODELS,
            "symbols_add": lambda r: {"symbol": "DOGE/USDT", "changed": True, "followed": False, "reason": ""},
            "symbols_remove": lambda r: {"symbol": "ABC/USDT", "changed": True, "followed": False, "reason": "removed by hand"},
            "schedule_pause": lambda r: {**SCHEDULE[0], "paused": True, "next": None},
            "schedule_resume": lambda r: SCHEDULE[0],
            "schedule_run": lambda r: SCHEDULE[0],
            "export": self._export,
            "log_level": lambda r: {"level": r.level, "was": "info"},
        }

    @staticmethod
    def _forecast(symbol: str) -> dict[str, Any]:
        if symbol.replace("/", "").replace("-", "") not in ("BTC", "BTCUSDT", "ETHUSDT"):
            raise RequestError("unknown_symbol", f"there is no coin {symbol}", hint="did you mean BTC/USDT?")
        return forecast("ETH/USDT", 1_870.1) if symbol.startswith("ETH") else forecast()

    def _get_many(self, request: Any) -> dict[str, Any]:
        found, refused = [], {}
        for symbol in request.symbols:
            try:
                found.append(self._forecast(symbol))
            except RequestError as error:
                refused[symbol] = {"code": error.code, "message": error.message, "hint": error.hint}
        return {"forecasts": found, "refused": refused}

    @staticmethod
    def _export(request: Any) -> dict[str, Any]:
        columns = {"open_time": [NOW], "symbol": ["BTC/USDT"], "close": [27_123.45], "volume": [None]}
        return {"columns": columns, "after": None if request.after else "more"}

    def _train(self, request: Any) -> dict[str, Any]:
        self.loop.call_later(0.05, self._tell)
        return job(12, request.kind, "queued")

    def _tell(self) -> None:
        """One event of the story after the other; None is an event that was lost."""
        if self.story:
            event = self.story.pop(0)
            if event is not None:
                self.server.notify("jobs", msgpack.packb(event))
            self.loop.call_later(0.05, self._tell)

    def restart(self) -> None:
        async def again() -> None:
            await self.server.close(0.1)
            await self.start()

        asyncio.run_coroutine_threadsafe(again(), self.loop).result(10)

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.close(0.1), self.loop).result(10)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    made = Daemon(tmp_path / "s")
    yield made
    made.close()


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "import sys; from ctl.main import main; sys.exit(main())", *arguments]


def environ(path: Path | str, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    return {**kept, "CRYPTOD_SOCKET": str(path), "PYTHONUTF8": "1", **more}


def run(path: Path | str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), env=environ(path, **more), capture_output=True, text=True, timeout=30, check=False)


LINES = [
    "status", "health", "get BTC", "get btcusdt eth-usdt", "plot BTC/USDT", "top 5 --by p_up --horizon 4", "symbols", "train full",
    "scores", "scores btc/usdt --window 7d", "scores --all --coins",
    "jobs --limit 3", "cancel 12", "schedule", "models list", "models rollback --steps 1", "cache stats", "cache pregenerate",
    "cache clear", "cache clear btc eth", "ping", "models pin", "models unpin", "symbols add doge", "symbols remove ABC/USDT",
    "log lines --limit 2", "schedule pause incremental", "schedule resume incremental", "schedule run incremental", "log level debug",
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_every_verb_shows_a_page_and_with_json_one_document(daemon: Daemon, line: str) -> None:
    page = run(daemon.path, *line.split())
    assert (page.returncode, page.stderr) == (0, "")
    assert page.stdout.strip()
    assert "\x1b" not in page.stdout
    assert max(map(len, page.stdout.splitlines())) <= 80
    document = run(daemon.path, *line.split(), "--json")
    assert (document.returncode, document.stderr) == (0, "")
    assert json.loads(document.stdout)


def test_every_command_of_the_protocol_has_a_verb() -> None:
    served = {verb.command for verb in ctl.VERBS.values()}
    assert set(COMMANDS) - served == {"get", "candles"}  # asked by `get`, which asks get or get_many, and by `plot`


def test_the_parameters_of_every_verb_are_those_of_the_protocol(daemon: Daemon) -> None:
    lines = (
        "top 5 --by p_up --horizon 4", "scores", "scores btc --window 90d", "cache clear", "cache clear btc eth", "jobs", "models rollback",
        "get btc-usdt ETH/usdt",
    )  # fmt: skip
    for line in lines:
        run(daemon.path, *line.split(), "--json")
    assert daemon.asked == [
        ("top", (5, "p_up", 4)), ("scores", (None, "30d")), ("scores", ("BTC", "90d")), ("cache_clear", (None,)),
        ("cache_clear", (["BTC", "ETH"],)), ("jobs", (20,)),
        ("models_rollback", (1,)), ("get_many", (["BTC-USDT", "ETH/USDT"],)),
    ]  # fmt: skip


def test_options_may_stand_before_the_verb(daemon: Daemon) -> None:
    found = run("/nowhere", "--json", "--socket", str(daemon.path), "get", "BTC")
    assert json.loads(found.stdout)["symbol"] == "BTC/USDT"


def test_an_unknown_coin_is_refused_with_a_hint(daemon: Daemon) -> None:
    found = run(daemon.path, "get", "btcc/usdt")
    assert found.returncode == 1
    assert found.stdout == ""
    assert found.stderr == "cryptoctl: there is no coin BTCC/USDT (did you mean BTC/USDT?)\n"


def test_of_several_coins_the_known_ones_are_shown_and_the_others_named(daemon: Daemon) -> None:
    found = run(daemon.path, "get", "BTC", "BTCC", "ETHUSDT")
    assert found.returncode == 1
    assert re.findall(r"^(\w+/USDT)  ", found.stdout, re.MULTILINE) == ["BTC/USDT", "ETH/USDT"]
    assert found.stderr == "cryptoctl: there is no coin BTCC (did you mean BTC/USDT?)\n"


def test_without_a_daemon_the_exit_code_is_3_and_the_hint_says_where_to_look(tmp_path: Path) -> None:
    found = run(tmp_path / "nobody", "status")
    assert (found.returncode, found.stdout) == (3, "")
    assert re.fullmatch(r"cryptoctl: no cryptod at .*nobody: .* \(.*systemctl status cryptod.*\)\n", found.stderr)


def test_a_socket_that_nobody_listens_on_any_more_is_told_apart(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as abandoned:
        abandoned.bind(str(tmp_path / "s"))
    assert run(tmp_path / "s", "ping").returncode == 3


def test_who_may_only_read_is_refused(daemon: Daemon) -> None:
    daemon.allowed = False
    found = run(daemon.path, "train", "full")
    assert found.returncode == 1
    assert found.stderr.startswith("cryptoctl: ")
    assert run(daemon.path, "status").returncode == 0


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("statsu", "there is no verb 'statsu' (did you mean status?)"),
        ("cache clera", "there is no verb 'cache clera' (did you mean cache clear?)"),
        ("symbols ad DOGE", "there is no verb 'symbols ad' (did you mean symbols add?)"),
        ("schedule pasue full", "there is no verb 'schedule pasue' (did you mean schedule pause?)"),
        ("log level loud", "level: invalid choice: 'loud' (choose from"),
        ("frobnicate", "there is no verb 'frobnicate' (`cryptoctl --help` lists them)"),
        ("cache", "cache what? (one of stats, pregenerate, clear)"),
        ("models --json", "models what? (one of list, rollback, pin, unpin)"),
        ("", "which verb? (`cryptoctl --help` lists them)"),
        ("get", "the following arguments are required: SYMBOL (`cryptoctl get --help` shows what it takes)"),
        ("train ful", "kind: invalid choice: 'ful' (choose from"),
        ("modles list", "there is no verb 'modles' (did you mean models?)"),
        ("models weights", "there is no verb 'models weights' (models what? one of list, rollback, pin, unpin)"),
        ("export", "the following arguments are required: what ("),
        ("top ten", "N: 'ten' is no whole number ("),
        ("scores --window 30", "--window: invalid choice: '30' (choose from '7d', '30d', '90d')"),
        ("scores BTC ETH", "unrecognized arguments: ETH"),
        ("status --verbose", "unrecognized arguments: --verbose"),
        ("--verbose status", "there is no option --verbose"),
        ("--socket", "--socket wants a path"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_is_meant(line: str, said: str) -> None:
    found = run("/nowhere", *line.split())
    assert (found.returncode, found.stdout) == (2, "")
    # From Python 3.12 on argparse names choices without quotes.
    assert found.stderr.replace("'", "").startswith(f"cryptoctl: {said}".replace("'", ""))
    assert found.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [("--help", "cache pregenerate"), ("top --help", "--horizon"), ("help cache clear", "SYMBOL"), ("--version", "cryptoctl 0")],
)
def test_help_needs_no_daemon(line: str, said: str) -> None:
    found = run("/nowhere", *line.split())
    assert (found.returncode, found.stderr) == (0, "")
    assert said in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= 80


@pytest.mark.parametrize(("severity", "code"), [("ok", 0), ("warning", 1), ("error", 2)])
@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_health_exits_with_its_severity(daemon: Daemon, severity: str, code: int, json_option: tuple[str, ...]) -> None:
    found = [] if severity == "ok" else [{**CONDITION, "severity": severity}]
    daemon.health = {"severity": severity, "conditions": found}
    assert run(daemon.path, "health", *json_option).returncode == code


def test_a_reply_of_another_version_has_a_clear_end(daemon: Daemon) -> None:
    daemon.jobs = [{"id": 1}]
    found = run(daemon.path, "jobs")
    assert found.returncode == 1
    assert re.fullmatch(r"cryptoctl: the daemon's reply is not understood \(KeyError: .*one version.*\)\n", found.stderr)


def test_following_a_training_shows_each_batch_and_ends_with_it(daemon: Daemon) -> None:
    daemon.story = [RUNNING, job(99), {**RUNNING, "batches": [batch(1), batch(2), batch(3, "waiting"), batch(4, "waiting")]}, CLOSED]
    found = run(daemon.path, "train", "full", "--follow")
    assert (found.returncode, found.stderr) == (0, "")
    lines = found.stdout.splitlines()
    assert lines[:2] == ["full retrain 12 is queued", "full retrain 12 is running"]
    assert [line.split(":")[0] for line in lines[2:6]] == [f"batch {i} of 4" for i in (1, 2, 3, 4)]
    assert re.fullmatch(r"full retrain 12 done in .*, 4 of 4 batches promoted, peak memory 310 MB", lines[6])


def test_following_a_training_that_fails_exits_with_1_and_the_hint(daemon: Daemon) -> None:
    daemon.story = [RUNNING, job(12, state="failed", error="the child was ended by signal 9", hint="lower train.batch_size")]
    found = run(daemon.path, "train", "full", "--follow")
    assert found.returncode == 1
    *_, end, hint = found.stdout.splitlines()
    assert re.fullmatch(r"full retrain 12 failed in .*: the child was ended by signal 9", end)
    assert hint == "-> lower train.batch_size"


def test_following_with_json_prints_only_the_job_as_it_ended(daemon: Daemon) -> None:
    daemon.story = [RUNNING, CLOSED]
    found = run(daemon.path, "train", "full", "--follow", "--json")
    assert json.loads(found.stdout)["state"] == "done"


def test_every_verb_that_a_text_of_ours_tells_people_to_type_is_one() -> None:
    texts = [path for folder in ("cryptod", "ctl", "docs", "packaging") for path in (ROOT / folder).rglob("*.*")]
    told = {
        line
        for path in [*texts, ROOT / "README.md"]
        if path.suffix in (".py", ".md", ".yml")
        for line in re.findall(r"`(?:sudo )?cryptoctl ((?!VERB)[a-z][^`\n]*)`", path.read_text())
    }
    assert {"models list", "health"} <= told
    for line in told:
        ctl.split(line.split())  # which raises


def test_events_are_a_line_each_and_with_json_a_document_each(daemon: Daemon) -> None:
    async def noticed() -> None:
        while daemon.server.listens("jobs"):  # noqa: ASYNC110 until it is noticed that the one before is gone
            await asyncio.sleep(0.01)

    async def tell() -> None:
        for event in (RUNNING, CLOSED):
            while not daemon.server.notify("jobs", msgpack.packb(event)):  # noqa: ASYNC110 until somebody listens
                await asyncio.sleep(0.01)

    for options in ((), ("--json",)):
        asyncio.run_coroutine_threadsafe(noticed(), daemon.loop).result(30)
        asyncio.run_coroutine_threadsafe(tell(), daemon.loop)
        found = run(daemon.path, "events", "jobs", "--count", "2", *options)
        assert (found.returncode, found.stderr) == (0, "")
        first, last = found.stdout.splitlines()
        if options:
            assert json.loads(first) == {"topic": "jobs", "payload": RUNNING}
            assert json.loads(last)["payload"]["state"] == "done"
        else:
            assert first.startswith("2023-06-01 12:14  jobs        full retrain 12")
            assert "full retrain 12 done in" in last
    refused = run(daemon.path, "events", "job")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "there is no topic 'job' (topics: forecasts, jobs, conditions, coins, status, log)" in refused.stderr


def test_following_outlives_lost_events(daemon: Daemon) -> None:
    daemon.story = [RUNNING, None]
    daemon.jobs = [CLOSED]
    assert run(daemon.path, "train", "full", "--follow").returncode == 0


def test_following_outlives_a_restart_of_the_daemon(daemon: Daemon) -> None:
    with subprocess.Popen(command("train", "full", "--follow"), env=environ(daemon.path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "queued" in process.stdout.readline()
        daemon.jobs = [CLOSED]
        daemon.restart()
        assert "done in" in process.stdout.read()
        assert process.wait(10) == 0


def test_ctrl_c_ends_the_following_and_not_the_job(daemon: Daemon) -> None:
    with subprocess.Popen(
        command("train", "full", "--follow"), env=environ(daemon.path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        assert process.stderr.read() == "cryptoctl: job 12 goes on; `cryptoctl cancel 12` ends it\n"
    assert "cancel" not in [name for name, _ in daemon.asked]


def test_a_reader_that_has_seen_enough_is_no_error(daemon: Daemon) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as closed:
        found = subprocess.run(command("status"), env=environ(daemon.path), stdout=closed, stderr=subprocess.PIPE, timeout=30, check=False)
    assert found.stderr == b""
    assert found.returncode == 0


def test_a_locale_without_the_characters_gets_the_text_all_the_same(daemon: Daemon) -> None:
    found = run(daemon.path, "plot", "BTC", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert (found.returncode, found.stderr) == (0, "")
    assert "29,009 97.5 %" in found.stdout


def test_a_plot_is_drawn_into_a_file_of_the_kind_that_its_name_says(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "btc.svg"
    found = run(daemon.path, "plot", "btc", "--out", str(path))
    assert (found.returncode, found.stdout) == (0, f"BTC/USDT is drawn in {path}\n")
    assert path.read_text().startswith("<svg")
    refused = run(daemon.path, "plot", "btc", "--out", str(tmp_path / "btc.gif"))
    assert (refused.returncode, "neither in .svg nor in .png" in refused.stderr) == (2, True)
    assert run(daemon.path, "plot", "btc", "eth", "--out", str(path)).returncode == 2
    lost = run(daemon.path, "plot", "btc", "--out", str(tmp_path / "no" / "btc.svg"))
    assert (lost.returncode, "cannot be written" in lost.stderr) == (1, True)


def test_a_report_is_written_where_it_is_asked_for_or_to_standard_output(daemon: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "live.html"
    found = run(daemon.path, "report", "--out", str(path), "--window", "7d")
    assert (found.returncode, path.read_text()) == (0, "<!doctype html><title>7d</title>")
    assert found.stdout == f"{path}: 32 B; it opens in any browser and needs no network\n"
    assert run(daemon.path, "report", "--out", "-").stdout == "<!doctype html><title>30d</title>"
    assert json.loads(run(daemon.path, "report", "--out", str(path), "--json").stdout) == {"path": str(path), "bytes": 33}
    lost = run(daemon.path, "report", "--out", str(tmp_path / "no" / "live.html"))
    assert (lost.returncode, "cannot be written" in lost.stderr) == (1, True)


def on_terminal(path: Path, *arguments: str, **more: str) -> str:
    """What a terminal of 100 x 30 is sent."""
    master, slave = pty.openpty()
    try:
        import termios

        termios.tcsetwinsize(slave, (30, 100))
        process = subprocess.Popen(
            command(*arguments), env=environ(path, **{"TERM": "xterm-256color", **more}), stdin=slave, stdout=slave, stderr=slave
        )
        os.close(slave)
        seen, end = b"", time.monotonic() + 20
        while time.monotonic() < end:
            if select.select([master], [], [], 0.1)[0]:
                try:
                    seen += os.read(master, 65536)
                except OSError:
                    break
        assert process.wait(10) == 0
        return seen.decode()
    finally:
        os.close(master)


def test_a_terminal_gets_colours_and_its_whole_width(daemon: Daemon) -> None:
    seen = on_terminal(daemon.path, "plot", "BTC")
    assert "\x1b[0;38;5;" in seen
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen)
    assert max(len(line) for line in plain.splitlines()) in range(90, 101)


def test_no_colour_is_honoured(daemon: Daemon) -> None:
    assert "\x1b" not in on_terminal(daemon.path, "status", NO_COLOR="1")
    assert "\x1b" not in on_terminal(daemon.path, "status", TERM="dumb")


def test_a_terminal_gets_a_bar_that_is_taken_away_at_the_end(daemon: Daemon) -> None:
    daemon.story = [RUNNING, CLOSED]
    seen = on_terminal(daemon.path, "train", "full", "--follow")
    assert " 25 %  batch 2 of 4" in seen
    assert "full retrain 12 done" in seen.rpartition("\x1b[K")[2]


def test_starting_loads_nothing_heavy() -> None:
    code = (
        "import sys, ctl.main, ctl.plot, ctl.follow; "
        "heavy = {'numpy', 'asyncio', 'msgspec', 'structlog', 'rich', 'json', 'dataclasses', 'pandas', 'torch', 'ccxt', 'logging'}; "
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    # -S: without what this environment's own site files import.
    paths = [path for path in sys.path if path]
    found = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env={"PYTHONPATH": os.pathsep.join([*paths, os.getcwd()])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stderr == ""
    assert found.returncode == 0


HOSTILE = "x\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\u2066\x00\x7f\u200b\r"
"""OSC, CSI, C1, marks of direction, NUL, DEL, what shows nothing, and a return."""


def poisoned(value: Any) -> Any:
    """The same with every text hostile that says something and is no key."""
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, dict):
        return {key: poisoned(inner) for key, inner in value.items()}
    return [poisoned(inner) for inner in value] if isinstance(value, list) else value


def unprintable(text: str) -> set[str]:
    return {letter for letter in text if not letter.isprintable() and letter != "\n"}


@pytest.mark.parametrize("line", ["status", "health", "get BTC", "get BTC ETH-USDT", "top", "symbols", "jobs", "schedule", "models list",
                                  "log lines", "scores", "export forecasts", "metrics", "nonsense\x1b[2J"])  # fmt: skip
def test_no_control_of_a_name_or_a_text_reaches_the_terminal(daemon: Daemon, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = daemon._replies()
    monkeypatch.setattr(daemon, "_replies", lambda: {name: lambda r, make=make: poisoned(make(r)) for name, make in replies.items()})
    for options in ([], ["--json"]) if not line.startswith(("nonsense", "metrics", "train")) else ([],):
        found = run(daemon.path, *line.split(" "), *options)
        assert not unprintable(found.stdout + found.stderr), found
        assert found.stdout or found.stderr


def test_no_control_of_an_error_reaches_the_terminal_and_json_says_exactly_what_was_said(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(request: Any) -> Any:
        raise RequestError("conflict", f"no{HOSTILE}", hint=HOSTILE)

    monkeypatch.setattr(daemon, "_replies", lambda: {"get": refuse, "cache_stats": lambda r: {HOSTILE: HOSTILE}})
    found = run(daemon.path, "get", "BTC")
    assert (found.returncode, unprintable(found.stderr)) == (1, set())
    assert "nox?]0;owned" in found.stderr
    told = run(daemon.path, "cache", "stats", "--json")
    assert json.loads(told.stdout) == {HOSTILE: HOSTILE}
    assert not unprintable(told.stdout)
