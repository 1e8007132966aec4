"""What an exchange lists: which of its markets are meant, what may be their names, what is kept of them, their last day.

Pure. Knows how ccxt writes markets and tickers, not ccxt itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from cryptod.errors import DataError
from cryptod.logs import get_logger
from cryptod.symbol import parse_symbol

MOST_MARKETS: Final = 10_000
"""Markets in one answer. The largest exchanges name about 4,000; ccxt makes some 7 kB of each."""
MOST_RECORD: Final = 8_000
"""Bytes that are kept of one market between runs."""

log = get_logger("exchange")


@dataclass(frozen=True, slots=True)
class Day:
    """The last 24 hours of a pair. Figures that the exchange does not give are 0."""

    quote_volume: float
    last: float
    high: float
    low: float
    open: float = 0.0


def spot(types: Any) -> Any:
    """Of the kinds of markets that ccxt would load, in one of its two ways to say them, the spot markets."""
    if isinstance(types, dict):  # htx and mexc: kind -> whether, and mexc's perpetual futures by their kind
        return {kind: kind == "spot" and bool(value) for kind, value in types.items()}
    return ["spot"]


def sound(symbol: Any) -> bool:
    """Whether it can be a symbol: no controls, no marks of direction, not long. Others are left out."""
    try:
        parse_symbol(symbol if isinstance(symbol, str) else "")
    except DataError as error:
        log.debug("a market's name is refused", error=error.message)
        return False
    return True


def record(market: Mapping[str, Any]) -> dict[str, Any]:
    """A market as ccxt made it, without what it has nothing for, and without long and nested parts.

    Of what the exchange itself said (``info``), texts and numbers are kept, unless they are too many.
    """
    kept = {key: plain for key, value in market.items() if key not in ("info", "limits", "fees") and (plain := _plain(value)) is not None}
    info = market.get("info")
    if isinstance(info, dict):
        kept["info"] = {key: value for key, value in info.items() if _scalar(value) and not isinstance(value, bool | None)}
        if len(msgspec.json.encode(kept)) > MOST_RECORD:
            kept["info"] = {}
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): part for key, part in value.items() if _scalar(part) and part is not None}
    return value if _scalar(value) else None


def _scalar(value: Any) -> bool:
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or isinstance(value, float) or (isinstance(value, str) and len(value) <= 200)


def longest(answer: Any, depth: int = 3) -> int:
    """Entries of the longest list or object in an answer, not far below its top."""
    if not isinstance(answer, list | dict):
        return 0
    inside = answer.values() if isinstance(answer, dict) else answer
    return max(len(answer), max((longest(part, depth - 1) for part in inside), default=0) if depth > 1 else 0)


def day(ticker: Mapping[str, Any], size: float) -> Day:
    """``size``: base currency in one unit of the base volume."""

    def number(key: str) -> float:
        value = ticker.get(key)
        return float(value) if isinstance(value, int | float) and 0 < value < 1e300 else 0.0

    last = number("last")
    return Day(number("quoteVolume") or number("baseVolume") * size * last, last, number("high"), number("low"), number("open"))


def day_of(rows: Sequence[Sequence[Any]], start: int, end: int) -> Day:
    """The same of the candles from ``start`` to ``end``."""
    sound = [row for row in rows if len(row) == 6 and all(isinstance(cell, int | float) and 0 <= cell < 1e300 for cell in row)]
    good = sorted((row for row in sound if start <= row[0] < end), key=lambda row: int(row[0]))
    if not good:
        return Day(0.0, 0.0, 0.0, 0.0)
    volume = sum(row[4] * row[5] for row in good)
    return Day(volume, float(good[-1][4]), float(max(row[2] for row in good)), float(min(row[3] for row in good)), float(good[0][1]))
