"""Replies of a daemon at 2023-06-01 12:14 UTC, as the tests of cryptoctl are told them; plain maps, as on the wire."""

from __future__ import annotations

import math
from typing import Any

Map = dict[str, Any]
NOW = 1_685_621_640_000
CLOSED = NOW - 840_000
LEVELS = [0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975]
_NORMAL = [-1.96, -1.645, -1.282, -0.674, 0.0, 0.674, 1.282, 1.645, 1.96]


def forecast(symbol: str = "BTC/USDT", close: float = 27_123.45, **changes: Any) -> Map:
    """A random walk of 0.6 % an hour with a small drift upwards, made 14 minutes ago."""
    hours = range(1, 25)
    fan = [[0.0004 * h + 0.006 * math.sqrt(h) * z for z in _NORMAL] for h in hours]
    made: Map = {
        "symbol": symbol, "cutoff": CLOSED, "issued": CLOSED, "expires": CLOSED + 3_600_000, "model": "full-12-b1", "close": close,
        "horizons": list(hours), "levels": LEVELS, "quantiles": fan, "prices": [[close * math.exp(q) for q in row] for row in fan],
        "p_up": [0.5 + 0.026 * math.sqrt(h) for h in hours], "volatility": [0.006 * math.sqrt(h) for h in hours],
        "expected_return": [0.0004 * h for h in hours], "score": 0.33, "strangeness": 0.41, "flags": [], "age": 840.0, "stale": False,
        "reason": None, "coverage": {"50": 0.493, "80": 0.801, "95": 0.948, "outcomes": 5_040.0},
    }  # fmt: skip
    return {**made, **changes}


def candles(symbol: str = "BTC/USDT", close: float = 27_123.45, hours: int = 24) -> Map:
    """Candles up to 12:00 that rise and fall by turns and end at the forecast's close; the third hour had no trade."""
    ends = [close * (1 + (0.004 if i % 2 else 0.0)) for i in range(hours - 1, -1, -1)]
    opens = [close, *ends[:-1]]
    rows: list[list[float | None]] = [[a, 1.002 * max(a, b), 0.998 * min(a, b), b, 10.0] for a, b in zip(opens, ends)]
    rows[2] = [None] * 5
    columns = zip(("open", "high", "low", "close", "volume"), zip(*rows))
    return {"symbol": symbol, "timeframe": "1h", "start": CLOSED - hours * 3_600_000, **{name: list(column) for name, column in columns}}


def top_row(symbol: str, close: float, **changes: Any) -> Map:
    path = [0.0004 * h for h in range(1, 25)]
    made: Map = {
        "symbol": symbol, "close": close, "cutoff": CLOSED, "horizon": 24, "score": 0.33, "p_up": 0.627, "volatility": 0.0294,
        "expected_return": 0.0096, "path": path, "stale": False, "change_1h": 0.004, "change_24h": -0.0213,
        "recent": [close * (1 + 0.001 * (24 - h)) for h in range(25)],
    }  # fmt: skip
    return {**made, **changes}


def batch(number: int, state: str = "done", **changes: Any) -> Map:
    made: Map = {
        "number": number, "coins": 25, "state": state, "attempts": 1, "checkpoint": f"full-12-b{number}", "promoted": state == "done",
        "reason": "", "figures": {}, "left_out": {}, "seconds": 4.1,
    }  # fmt: skip
    return {**made, **changes}


def job(number: int = 12, kind: str = "full", state: str = "running", **changes: Any) -> Map:
    made: Map = {
        "id": number, "kind": kind, "state": state, "reason": "schedule", "created": NOW - 200_000,
        "started": 0 if state == "queued" else NOW - 180_000, "ended": NOW - 100_000 if state in ("done", "failed", "cancelled") else 0,
        "seconds": 80.0, "cutoff": CLOSED, "progress": {"stage": "", "done": 0, "total": 0, "text": ""}, "batches": [], "error": "",
        "hint": "", "peak_rss": 0,
    }  # fmt: skip
    return {**made, **changes}


RUNNING = job(
    batches=[batch(1), batch(2, "waiting"), batch(3, "waiting"), batch(4, "waiting")],
    progress={"stage": "train", "done": 25, "total": 100, "text": "batch 2: step 120 of at most 400, loss 0.8123"},
)
CONDITION: Map = {
    "name": "candles_stale",
    "severity": "warning",
    "text": "2 of 100 coins have no candle of the last hour: ABC/USDT, DEF/USDT; longest ABC/USDT, 9 h",
    "remedy": "if the coin is halted or delisted, add it to universe.exclude; otherwise wait for the exchange",
    "since": NOW - 7_200_000,
}
SCHEDULE: list[Map] = [
    {"name": "incremental", "cron": "0 */6 * * *", "lead": 0, "enabled": True, "last": CLOSED, "next": NOW + 20_760_000},
    {"name": "pregenerate", "cron": "0 2 * * 0", "lead": 300, "enabled": True, "last": 0, "next": NOW + 222_060_000},
    {"name": "full", "cron": "0 2 * * 0", "lead": 0, "enabled": False, "last": 0, "next": None},
]
CACHE: Map = {
    "entries": 100, "hits": 12_345, "misses": 3, "expired": 1, "ttl_hours": 1, "pregenerate_ttl_hours": 24, "last_refresh": CLOSED,
    "refresh_seconds": 0.21,
}  # fmt: skip
FIGURES = {"crps_model": 74.1, "crps_random_walk": 80.2, "crps_log_har": 75.0, "skill_random_walk": 0.0761, "skill_log_har": 0.0123}
MODELS: Map = {
    "generation": 7,
    "promoted_at": NOW - 9_000_000,
    "current": [
        {
            "name": f"full-12-b{i}",
            "kind": "full",
            "cutoff": CLOSED,
            "created": CLOSED,
            "coins": 25,
            "served": 24,
            "figures": FIGURES,
        }
        for i in (1, 2, 3, 4)
    ],
    "history": [
        {"generation": 6, "promoted_at": NOW - 90_000_000, "checkpoints": [f"full-11-b{i}" for i in (1, 2, 3, 4)], "coins": 98, "steps": 1}
    ],
    "refused": {"full-9-b1": "weights.safetensors does not match its checksum"},
}
SYMBOLS: Map = {
    "followed": [
        {"symbol": "BTC/USDT", "newest_close": CLOSED, "stale": False, "reason": None, "model": "full-12-b1"},
        {
            "symbol": "ABC/USDT",
            "newest_close": CLOSED - 32_400_000,
            "stale": True,
            "reason": "the exchange reports BREAK",
            "model": "full-12-b2",
        },
        {"symbol": "NEW/USDT", "newest_close": CLOSED, "stale": False, "reason": "112 of 720 hours of history", "model": None},
    ],
    "left_out": {"USDC/USDT": "a stablecoin", "BTCUP/USDT": "a leveraged token"},
}
STATUS: Map = {
    "now": NOW,
    "process": {
        "version": "0.1.0",
        "pid": 1234,
        "started": NOW - 11_640_000,
        "uptime": 11_640.0,
        "ready": True,
        "state": "ready",
        "clock": "system",
    },
    "health": {"severity": "warning", "conditions": [CONDITION]},
    "candles": {"symbols": 100, "candles": 438_000, "newest_close": CLOSED, "stale": ["ABC/USDT", "DEF/USDT"]},
    "models": {"generation": 7, "promoted_at": NOW - 9_000_000, "checkpoints": 4, "coins": 98, "refused": {}},
    "cache": CACHE,
    "training": {"running": RUNNING, "queued": 1, "last_full": NOW - 259_200_000, "last_incremental": CLOSED},
    "schedule": SCHEDULE,
    "ledger": {"issues": 1_234, "first": NOW - 5_184_000_000, "last": CLOSED, "bytes": 4_200_000},
    "memory": {"pss_total": 53e6, "pss_daemon": 48e6, "pss_children": 5e6, "peak_total": 362e6, "limit": 1e9},
    "cpu": {"percent": 2.1},
    "disk": {"path": "/var/lib/cryptod", "used": 120e6, "free": 12e9},
    "exchange": {
        "id": "binance",
        "url": "",
        "last_collect": NOW - 830_000,
        "new_candles": 100,
        "seconds": 2.1,
        "error": "",
        "retry_in": 0.0,
        "collecting": False,
        "progress": None,
    },
}
