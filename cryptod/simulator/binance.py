"""Binance's public spot API as bytes: market list, candles, tickers, error bodies, request weights.

Knows how Binance spells things (https://developers.binance.com/docs/binance-spot-api-docs/rest-api). Pure: no HTTP,
no clock, no market behind it.
Prices and volumes are strings of eight decimals, a candle is a row of twelve columns, times are UTC milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np

from cryptod.market import CLOSE, HIGH, HOUR, LOW, OPEN, VOLUME, Float64, Int64
from cryptod.simulator.listing import Listing

MAX_KLINES: Final = 1000
DEFAULT_KLINES: Final = 500
WEIGHT_LIMIT: Final = 6000
"""Request weight per real minute and address."""

_KLINE: Final = '[%d,"%.8f","%.8f","%.8f","%.8f","%.8f",%d,"%.8f",%d,"%.8f","%.8f","0"]'


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """An error as Binance answers it."""

    status: int
    code: int
    message: str

    def body(self) -> bytes:
        return msgspec.json.encode({"code": self.code, "msg": self.message})


def missing(name: str) -> Refusal:
    return Refusal(400, -1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def illegal(name: str, legal: str) -> Refusal:
    return Refusal(400, -1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def unknown_parameters(read: int, sent: int) -> Refusal:
    return Refusal(400, -1101, f"Too many parameters; expected '{read}' and received '{sent}'.")


INVALID_SYMBOL: Final = Refusal(400, -1121, "Invalid symbol.")
INVALID_INTERVAL: Final = Refusal(400, -1120, "Invalid interval.")
INVALID_LIMIT: Final = Refusal(400, -1130, "Data sent for parameter 'limit' is not valid.")
INVALID_RANGE: Final = Refusal(
    400, -1127, "More than 0 hours between startTime and endTime, and startTime not after endTime, are required."
)


def too_much(limit: int) -> Refusal:
    return Refusal(
        429, -1003, f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE. Please use WebSocket Streams."
    )


def banned(until: int) -> Refusal:
    return Refusal(418, -1003, f"Way too much request weight used; IP banned until {until}. Please use WebSocket Streams to avoid bans.")


def klines(times: Int64, values: Float64) -> bytes:
    """Rows of twelve columns from open times [n] and values [n, 5]; rendered by one format operation, about 2 us per row."""
    if not len(times):
        return b"[]"
    quote_volume = values[:, VOLUME] * values[:, :4].mean(axis=1)
    bought = 0.5 + 0.1 * np.tanh(50 * (values[:, CLOSE] / values[:, OPEN] - 1))
    columns = (
        times.tolist(),
        *(values[:, column].tolist() for column in (OPEN, HIGH, LOW, CLOSE, VOLUME)),
        (times + HOUR.ms - 1).tolist(),
        quote_volume.tolist(),
        trades(quote_volume).tolist(),
        (values[:, VOLUME] * bought).tolist(),
        (quote_volume * bought).tolist(),
    )
    cells = [cell for row in zip(*columns, strict=True) for cell in row]
    return ("[" + ",".join([_KLINE] * len(times)) % tuple(cells) + "]").encode()


def trades(quote_volume: Float64) -> Int64:
    """A plausible number of trades: one for every 400 of the quote currency."""
    return np.ceil(quote_volume / 400).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Day:
    """The rolling day of one pair; ``close`` 0 where nothing was traded in it."""

    open: float
    high: float
    low: float
    close: float
    volume: float
    quote_volume: float


@dataclass(frozen=True, slots=True)
class Face:
    """How one of Binance's REST APIs looks: ``prefix`` of its paths, rows of klines in one answer, weight that it allows in a minute.

    ``describe`` makes the entries of the market list of a listing, whether it trades, and the time; ``ticker`` its 24 h
    statistics; ``weight`` is what a request of an endpoint counts for so many symbols (None: all) and klines.
    """

    prefix: str
    max_klines: int
    weight_limit: int
    describe: Callable[[Listing, bool, int], list[dict[str, Any]]]
    ticker: Callable[[Listing, Day, int, int], dict[str, Any]]
    weight: Callable[[str, int | None, int], int]


def exchange_info(listings: Sequence[tuple[Listing, bool]], now: int, weight_limit: int, face: Face | None = None) -> bytes:
    """The market list from (listing, trading) pairs, as ``face`` has it (the spot API's by default)."""
    describe = (face or SPOT).describe
    return msgspec.json.encode(
        {
            "timezone": "UTC",
            "serverTime": now,
            "rateLimits": [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": weight_limit}],
            "exchangeFilters": [],
            "symbols": [entry for listing, trading in listings for entry in describe(listing, trading, now)],
        }
    )


def steps(listing: Listing) -> list[dict[str, Any]]:
    """The filters that say in what steps a pair's price and quantity move."""
    return [
        {
            "filterType": "PRICE_FILTER",
            "minPrice": f"{listing.price_tick:.8f}",
            "maxPrice": "1000000.00000000",
            "tickSize": f"{listing.price_tick:.8f}",
        },
        {"filterType": "LOT_SIZE", "minQty": f"{listing.lot:.8f}", "maxQty": "9000000000.00000000", "stepSize": f"{listing.lot:.8f}"},
    ]


def _symbol(listing: Listing, trading: bool, now: int) -> list[dict[str, Any]]:
    return [_pair(listing, trading)]


def _pair(listing: Listing, trading: bool) -> dict[str, Any]:
    return {
        "symbol": listing.market_id,
        "status": "TRADING" if trading else "BREAK",
        "baseAsset": listing.base,
        "baseAssetPrecision": 8,
        "quoteAsset": listing.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": False,
        "filters": [
            *steps(listing),
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True, "maxNotional": "9000000.00000000"},
        ],
        "permissions": ["SPOT"],
        "permissionSets": [["SPOT"]],
    }


def ticker(listing: Listing, day: Day, now: int, count: int) -> dict[str, Any]:
    """One pair's 24 h statistics."""
    average = day.quote_volume / day.volume if day.volume else 0.0
    change = day.close - day.open
    numbers = {
        "priceChange": change,
        "weightedAvgPrice": average,
        "prevClosePrice": day.open,
        "lastPrice": day.close,
        "lastQty": listing.lot,
        "bidPrice": max(0.0, day.close - listing.price_tick),
        "bidQty": listing.lot * 100,
        "askPrice": day.close + listing.price_tick if day.close else 0.0,
        "askQty": listing.lot * 100,
        "openPrice": day.open,
        "highPrice": day.high,
        "lowPrice": day.low,
        "volume": day.volume,
        "quoteVolume": day.quote_volume,
    }
    return {
        "symbol": listing.market_id,
        "priceChangePercent": f"{100 * change / day.open if day.open else 0.0:.3f}",
        **{name: f"{number:.8f}" for name, number in numbers.items()},
        "openTime": now - 24 * HOUR.ms,
        "closeTime": now,
        "firstId": 1 if count else -1,
        "lastId": count if count else -1,
        "count": count,
    }


def weight(endpoint: str, symbols: int | None, limit: int) -> int:
    """What a request counts; ``symbols`` is how many it asks for, None for all."""
    match endpoint:
        case "klines":
            return 2
        case "exchangeInfo":
            return 20
        case "ticker/24hr":
            if symbols is None or symbols > 100:
                return 80
            return 2 if symbols <= 20 else 40
        case _:
            return 1


SPOT: Final = Face("api/v3/", MAX_KLINES, WEIGHT_LIMIT, _symbol, ticker, weight)
