"""What the answers of several exchanges have in common."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.exchanges.server import Coin, H, Row


def iso(time: int) -> str:
    return f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%dT%H:%M:%S.000Z}"


def ohlcv(row: Row) -> list[str]:
    return [str(value) for value in (row.open, row.high, row.low, row.close, row.volume)]


def kline(row: Row) -> list[Any]:
    """Binance's row, which many others took over."""
    return [row.time, *ohlcv(row), row.time + H - 1, str(row.value), 40, "1.0", "1.0", "0"]


def day(coin: Coin) -> dict[str, Any]:
    """Binance's 24 hours."""
    return {
        "symbol": coin.id, "lastPrice": str(coin.last), "highPrice": str(coin.high), "lowPrice": str(coin.low),
        "openPrice": str(coin.open), "volume": str(coin.volume), "quoteVolume": str(coin.value), "closeTime": 1,
    }  # fmt: skip
