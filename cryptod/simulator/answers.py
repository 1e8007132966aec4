"""What the exchange answers: klines, the market list, tickers, the time, out of a market at a moment.

Knows a `Market`, the query's parameters and how Binance spells the answers. Pure: no HTTP, no clock, no faults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np

from cryptod.market import CANDLE, CLOSE, HIGH, HOUR, LOW, OPEN, VOLUME, Float64, Int64, Panel
from cryptod.simulator import binance
from cryptod.simulator.listing import Listing, Market, unclosed

DAY_HOURS: Final = 24
DAY_MS: Final = DAY_HOURS * HOUR.ms

PARAMETERS: Final = {
    "klines": {"symbol", "interval", "startTime", "endTime", "timeZone", "limit"},
    "exchangeInfo": {"symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"},
    "ticker/24hr": {"symbol", "symbols", "type", "symbolStatus"},
    "time": set[str](),
    "ping": set[str](),
}
_SYMBOL_PATTERN: Final = "^[A-Z0-9-_.]{1,20}$"


class Answers:
    """The public API over a market, with the given face. ``weight_limit`` is only told, not enforced."""

    def __init__(self, market: Market, weight_limit: int, face: binance.Face = binance.SPOT) -> None:
        self.market, self.weight_limit, self.face = market, weight_limit, face
        self.by_id = {listing.market_id: listing for listing in market.listings}
        self._day_begin = -1
        self._day: Panel
        self._places: dict[str, int] = {}

    def reply(self, endpoint: str, query: Mapping[str, str], now: int) -> bytes:
        """The JSON of ``<prefix><endpoint>`` at ``now``, or the `Refusal` that Binance would answer. KeyError: no such endpoint."""
        if extra := set(query) - PARAMETERS[endpoint]:
            raise binance.unknown_parameters(len(query) - len(extra), len(query))
        match endpoint:
            case "klines":
                return self._klines(query, now)
            case "exchangeInfo":
                listings = self._asked(query, now)
                return binance.exchange_info(
                    [(one, self.market.trading(one.symbol, now)) for one in listings], now, self.weight_limit, self.face
                )
            case "ticker/24hr":
                tickers = self._tickers(self._asked(query, now), now)
                return msgspec.json.encode(tickers[0] if "symbol" in query else tickers)
            case "time":
                return msgspec.json.encode({"serverTime": now})
            case _:
                return b"{}"

    def _listing(self, market_id: str, now: int) -> Listing:
        if not market_id:
            raise binance.missing("symbol")
        listing = self.by_id.get(market_id)
        if listing is None and (
            len(market_id) > 20
            or not market_id.replace("-", "").replace("_", "").replace(".", "").isalnum()
            or market_id != market_id.upper()
        ):
            raise binance.illegal("symbol", _SYMBOL_PATTERN)
        if listing is None or not listing.known(now):
            raise binance.INVALID_SYMBOL
        return listing

    def _asked(self, query: Mapping[str, str], now: int) -> tuple[Listing, ...]:
        """The pairs that ``symbol`` or ``symbols`` name, or all that are listed."""
        if "symbol" in query:
            return (self._listing(query["symbol"], now),)
        if "symbols" in query:
            try:
                names = msgspec.json.decode(query["symbols"], type=list[str])
            except msgspec.DecodeError as error:
                raise binance.illegal("symbols", '^\\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\\]$') from error
            return tuple(self._listing(name, now) for name in names)
        return tuple(listing for listing in self.market.listings if listing.known(now))

    def _klines(self, query: Mapping[str, str], now: int) -> bytes:
        listing = self._listing(query.get("symbol", ""), now)
        if not query.get("interval"):
            raise binance.missing("interval")
        if query["interval"] != HOUR.name:
            raise binance.INVALID_INTERVAL
        limit = min(_integer(query, "limit", binance.DEFAULT_KLINES), self.face.max_klines)
        if limit < 1:
            raise binance.INVALID_LIMIT
        last = HOUR.floor(now)
        end = min(_integer(query, "endTime", last), last) + 1
        if "startTime" in query:
            start = max(_integer(query, "startTime", 0), listing.first)
            times, values = self._forward(listing, start, end, limit)
        else:
            times, values = self._backward(listing, end, limit)
        if len(times) and times[-1] == last:
            values = values.copy()
            values[-1] = unclosed(values[-1], (now - last) / HOUR.ms, listing.price_tick, listing.lot)
        return binance.klines(times, values)

    def _forward(self, listing: Listing, start: int, end: int, limit: int) -> tuple[Int64, Float64]:
        """The first ``limit`` candles that open in [start, end), however long the holes are."""
        span = limit * HOUR.ms
        while True:
            times, values = self.market.candles(listing.symbol, start, min(end, start + span))
            if len(times) >= limit or start + span >= end:
                return times[:limit], values[:limit]
            span *= 4

    def _backward(self, listing: Listing, end: int, limit: int) -> tuple[Int64, Float64]:
        """The last ``limit`` candles that open before ``end``."""
        span = limit * HOUR.ms
        while True:
            times, values = self.market.candles(listing.symbol, max(listing.first, end - span), end)
            if len(times) >= limit or end - span <= listing.first:
                return times[-limit:], values[-limit:]
            span *= 4

    def prepare(self, now: int) -> None:
        """Look the candles up that the tickers of ``now``'s day need: 10 s for ten thousand generated coins, so once a day."""
        begin = now - now % DAY_MS
        if self._day_begin != begin:
            self._places = {listing.symbol: place for place, listing in enumerate(self.market.listings)}
            self._day = self.market.panel(tuple(self._places), begin - (DAY_HOURS - 1) * HOUR.ms, begin + DAY_MS)
            self._day_begin = begin

    def _tickers(self, listings: tuple[Listing, ...], now: int) -> list[dict[str, Any]]:
        """Statistics of the 23 closed hours before the current one and of what has passed of it."""
        self.prepare(now)
        last = HOUR.floor(now)
        window = self._day.rows(last - (DAY_HOURS - 1) * HOUR.ms, last + HOUR.ms)
        present = window.status == CANDLE
        tickers = []
        for listing in listings:
            place = self._places[listing.symbol]
            rows = window.values[present[:, place], place]
            if present[-1, place]:
                rows[-1] = unclosed(rows[-1], (now - last) / HOUR.ms, listing.price_tick, listing.lot)
            day = binance.Day(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
            if len(rows):
                quote_volume = float((rows[:, VOLUME] * rows[:, : CLOSE + 1].mean(axis=1)).sum())
                extremes = float(rows[:, HIGH].max()), float(rows[:, LOW].min())
                day = binance.Day(float(rows[0, OPEN]), *extremes, float(rows[-1, CLOSE]), float(rows[:, VOLUME].sum()), quote_volume)
            tickers.append(self.face.ticker(listing, day, now, int(np.ceil(day.quote_volume / 400))))
        return tickers


def _integer(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 20:
        raise binance.illegal(name, "^[0-9]{1,20}$")
    return int(text)
