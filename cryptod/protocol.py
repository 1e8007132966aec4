"""The wire, once: MessagePack-RPC messages, limits, error codes and the table of commands.

The framing is the public MessagePack-RPC specification: requests ``[0, id, method, params]``, responses
``[1, id, error, result]``, notifications ``[2, method, params]``, one after the other on a Unix stream socket.
Requests may be pipelined and replies may come in another order. An error is a map ``{code, message, hint}``.

This file does no input or output and imports the standard library only: `cryptoctl` builds its arguments from
the table, the daemon its dispatch and its checks, the documentation its reference.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from cryptod.places import SYSTEM

PROTOCOL: Final = 1
"""Raised when a message changes so that older clients cannot read it."""
REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2

DEFAULT_SOCKET: Final = SYSTEM.socket
MAX_REQUEST: Final = 64 * 1024
"""Bytes of one request; the largest honest one (get_many of a few hundred coins) is about 10 kB."""
MAX_REPLY: Final = 64 * 1024 * 1024
MAX_PENDING: Final = 128
"""Requests of one connection that wait for an answer; one more is refused with ``busy``."""
MAX_CONNECTIONS: Final = 2048
MAX_SYMBOLS: Final = 20_000
"""Coins named in one request."""

ERROR_CODES: Final = {
    "bad_request": "The message or a parameter is malformed; the text names the parameter.",
    "unknown_command": "There is no such command.",
    "unknown_symbol": "The daemon does not follow this coin.",
    "no_forecast": "The coin is followed, but there is no forecast for it yet; the text says why.",
    "forbidden": "The command changes something, and this user may only read.",
    "busy": "Too many requests are waiting on this connection.",
    "too_large": "The request is larger than the limit; the connection is closed.",
    "conflict": "The state does not allow it: nothing to roll back to, job already ended.",
    "not_found": "No such job or model.",
    "shutting_down": "The daemon is stopping; connect again.",
    "store": "The store failed (disk full, damaged); the text names the file.",
    "checkpoint": "A checkpoint is damaged or missing; the text names it.",
    "data": "The candles do not allow it; the text says why.",
    "worker": "The child that does the work could not: it died, hung or ran out of memory; the text says which.",
    "internal": "A defect in the daemon; its log has the details.",
}

WINDOWS: Final = {"7d": 7 * 24, "30d": 30 * 24, "90d": 90 * 24}
"""Periods that forecasts are judged over -> hours."""
TOP_KEYS: Final = ("score", "p_up", "volatility", "expected_return")
JOB_KINDS: Final = ("incremental", "full")
PERIODIC_JOBS: Final = (*JOB_KINDS, "pregenerate")
LOG_LEVELS: Final = ("debug", "info", "warning", "error", "critical")
EXPORTS: Final = ("forecasts", "ledger", "candles", "scores")
"""Tables that can be taken out: what is served now, all that was ever issued, the candles, and how each issue did."""
NEWS: Final = ("forecasts", "jobs", "conditions")
"""What has happened, which one who names no topic subscribes to: that forecasts were published; each step of a job; conditions raised and
cleared."""
EVENT_TOPICS: Final = (*NEWS, "coins", "status", "log")
"""``coins``: each forecast itself, as `get` gives it, a quarter of a megabyte for each hundred coins. Every two seconds: ``status``, a
snapshot of all of the daemon; ``log``, the lines that it has logged."""
EVENT: Final = "event"
"""The one notification that the daemon sends: ``[2, "event", [topic, payload]]``."""
EVENT_LOST: Final = "lost"
"""Topic of the event ``{count}`` that says how many events were dropped while the client did not read."""


class Get(NamedTuple):
    symbol: str


class GetMany(NamedTuple):
    symbols: list[str] | None = None


class Top(NamedTuple):
    count: int = 20  # type: ignore[assignment]  # hides tuple.count, which nobody asks of a request
    by: str = "score"
    horizon: int = 24


class Candles(NamedTuple):
    symbol: str
    hours: int = 72


class Scores(NamedTuple):
    symbol: str | None = None
    window: str = "30d"


class Nothing(NamedTuple):
    pass


class Coin(NamedTuple):
    symbol: str


class Periodic(NamedTuple):
    name: str


class Level(NamedTuple):
    level: str


class Train(NamedTuple):
    kind: str


class Jobs(NamedTuple):
    limit: int = 20


class Page(NamedTuple):
    window: str = "30d"


class LogLines(NamedTuple):
    limit: int = 50


class JobId(NamedTuple):
    job: int


class CacheClear(NamedTuple):
    symbols: list[str] | None = None


class Rollback(NamedTuple):
    steps: int = 1


class Export(NamedTuple):
    what: str
    symbols: list[str] | None = None
    since: int = 0
    until: int = 0
    after: str = ""


class Backup(NamedTuple):
    token: str = ""
    offset: int = 0


class Subscribe(NamedTuple):
    topics: list[str] | None = None


class Command(NamedTuple):
    """One row of the command table.

    ``request`` names the parameters, in the order in which they stand in the request's array; ``changes`` says that
    the command changes something and so needs rights; ``doc`` is its documentation, here and in the manual;
    ``reply`` says what comes back.
    """

    name: str
    request: type[Any]
    changes: bool
    doc: str
    reply: str


COMMANDS: Final = {
    command.name: command
    for command in (
        Command("ping", Nothing, False, "Ask whether the daemon answers.", "{version, protocol, now, pid}"),
        Command("status", Nothing, False, "Everything at a glance: process, models, candles, cache, jobs, memory.", "a map of sections"),
        Command("health", Nothing, False, "Named conditions with severity, text and remedy.", "{severity, conditions: [...]}"),
        Command("get", Get, False, "The forecast of one coin.", "a forecast"),
        Command("get_many", GetMany, False, "The forecasts of several coins, or of all.", "{forecasts: [...], refused: {symbol: error}}"),
        Command("top", Top, False, "The first coins by score, p_up, volatility or expected_return.", "[{symbol, ...}]"),
        Command(
            "candles", Candles, False, "The last candles of a coin.", "{symbol, timeframe, start, open: [...], high, low, close, volume}"
        ),
        Command(
            "scores",
            Scores,
            False,
            "How the forecasts have done whose outcome is known: all of them, or one coin's.",
            "a scorecard: pooled, by horizon, by coin; see cryptod.scorecard",
        ),
        Command(
            "report",
            Page,
            False,
            "One HTML page: the forecasts, and how those of the window have done; needs no network to be read.",
            "{html}",
        ),
        Command(
            "symbols",
            Nothing,
            False,
            "The coins that are followed, and those left out, with the reason.",
            "{followed: [...], left_out: {...}, added: [...], removed: [...]}",
        ),
        Command(
            "symbols_add",
            Coin,
            True,
            "Follow a coin whatever its volume, without a restart: it is fetched, forecast, and trained at the next run.",
            "{symbol, changed, followed, reason}",
        ),
        Command(
            "symbols_remove",
            Coin,
            True,
            "Follow a coin no more, without a restart, whatever its volume.",
            "{symbol, changed, followed, reason}",
        ),
        Command(
            "schedule",
            Nothing,
            False,
            "What runs when: last and next turn of each periodic job.",
            "[{name, cron, lead, enabled, paused, last, next}]",
        ),
        Command("schedule_pause", Periodic, True, "Let no turn of a periodic job come, until it is resumed.", "a row of schedule"),
        Command(
            "schedule_resume",
            Periodic,
            True,
            "Let a paused job's turns come again; one that was missed is caught up once.",
            "a row of schedule",
        ),
        Command("schedule_run", Periodic, True, "Do a periodic job's work now, out of turn.", "a row of schedule"),
        Command("jobs", Jobs, False, "The latest jobs, newest first.", "[job]"),
        Command("train", Train, True, "Enqueue an incremental update or a full retrain.", "a job"),
        Command("cancel", JobId, True, "Cancel a job that waits or runs.", "a job"),
        Command("cache_stats", Nothing, False, "Entries, hits, misses, expiries of the forecast cache.", "a map of figures"),
        Command(
            "cache_pregenerate", Nothing, True, "Compute all forecasts now and keep them for pregenerate_ttl_hours.", "{forecasts, seconds}"
        ),
        Command("cache_clear", CacheClear, True, "Drop cached forecasts, all or of some coins.", "{dropped}"),
        Command(
            "models",
            Nothing,
            False,
            "The models that serve, their figures, and the history to roll back to.",
            "{current: [...], history: [...]}",
        ),
        Command("models_rollback", Rollback, True, "Go back to the models that served before the last promotion.", "{current: [...]}"),
        Command("log_lines", LogLines, False, "The last lines of the daemon's log, oldest first.", "[{time, level, logger, text, fields}]"),
        Command(
            "models_pin", Nothing, True, "Let the models that serve now serve until they are unpinned: nothing is promoted.", "as models"
        ),
        Command("models_unpin", Nothing, True, "Let the gate promote again what is better, from the next training on.", "as models"),
        Command("log_level", Level, True, "Log from this level on, until the next start or reload.", "{level, was}"),
        Command(
            "export",
            Export,
            False,
            "The next rows of a table: forecasts, ledger, candles or scores, from one time to another (UTC ms, 0: open).",
            "{columns: {name: [value]}, after}: give `after` back for the rows that follow; nil ends it",
        ),
        Command(
            "backup",
            Backup,
            True,
            "The next bytes of a backup of the whole state; without a token, the first bytes of a new one.",
            "{token, size, offset, data}: ask again with the token and the next offset until all of size has come",
        ),
        Command(
            "subscribe",
            Subscribe,
            False,
            "Receive notifications `event` on this connection: forecasts, jobs, conditions; coins, status and log where they are named.",
            "{topics}",
        ),
    )
}
