"""Binance's USD-M futures REST API, where it differs from the spot API: listing, weights, rows per answer; and a market of perpetuals.

Knows how Binance spells things (https://developers.binance.com/docs/derivatives/usds-margined-futures). Pure. A market of
spot pairs shows this face as perpetual futures that are settled in their quote currency, each with its spot pair's candles.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

from cryptod.market import Float64, Int64, Panel
from cryptod.simulator.binance import Day, Face, steps
from cryptod.simulator.binance import ticker as spot_ticker
from cryptod.simulator.listing import Listing, Market
from cryptod.symbol import of_market, split

QUARTER_DAYS: Final = 90
_UNENDING: Final = 4_133_404_800_000
"""The delivery date of a perpetual."""


class Perpetuals:
    """``market`` with its pairs as perpetual futures: BTC/USDT is BTC/USDT:USDT."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self._spot = {of_market(listing.symbol, "swap"): listing.symbol for listing in market.listings}
        self.listings: tuple[Listing, ...] = tuple(replace(one, symbol=of_market(one.symbol, "swap")) for one in market.listings)

    def candles(self, symbol: str, start: int, end: int) -> tuple[Int64, Float64]:
        """See `Market.candles`."""
        return self.market.candles(self._spot[symbol], start, end)

    def panel(self, symbols: tuple[str, ...], start: int, end: int) -> Panel:
        """See `Market.panel`."""
        found = self.market.panel(tuple(self._spot[symbol] for symbol in symbols), start, end)
        return replace(found, symbols=symbols)

    def trading(self, symbol: str, now: int) -> bool:
        """See `Market.trading`."""
        return self.market.trading(self._spot[symbol], now)


def _contract(listing: Listing, trading: bool, now: int) -> list[dict[str, Any]]:
    """The perpetual, and of BTC a dated future too: nobody is to take it for a coin."""
    base, quote, settle = split(listing.symbol)
    common = {
        "pair": listing.market_id,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": base,
        "quoteAsset": quote,
        "marginAsset": settle or quote,
        "pricePrecision": 8,
        "quantityPrecision": 8,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "underlyingSubType": [],
        "onboardDate": listing.first,
        "triggerProtect": "0.0500",
        "liquidationFee": "0.015000",
        "marketTakeBound": "0.05",
        "filters": [
            *steps(listing),
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
        ],
        "orderTypes": ["LIMIT", "MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK"],
    }
    perpetual = {
        "symbol": listing.market_id,
        "contractType": "PERPETUAL",
        "deliveryDate": _UNENDING,
        "status": "TRADING" if trading else "SETTLING",
    }
    found = [{**perpetual, **common}]
    if base == "BTC" and trading:
        delivery = now - now % 86_400_000 + QUARTER_DAYS * 86_400_000
        name = f"{listing.market_id}_{datetime.fromtimestamp(delivery / 1000, UTC):%y%m%d}"
        dated = {"symbol": name, "contractType": "CURRENT_QUARTER", "deliveryDate": delivery, "status": "TRADING"}
        found.append({**common, **dated})
    return found


def _ticker(listing: Listing, day: Day, now: int, count: int) -> dict[str, Any]:
    """The 24 h statistics, which have no bid and ask here."""
    spot = spot_ticker(listing, day, now, count)
    return {key: value for key, value in spot.items() if key not in ("bidPrice", "bidQty", "askPrice", "askQty", "prevClosePrice")}


def _weight(endpoint: str, symbols: int | None, limit: int) -> int:
    match endpoint:
        case "klines":
            return 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10
        case "ticker/24hr":
            return 1 if symbols == 1 else 40
        case _:
            return 1


USDM: Final = Face("fapi/v1/", 1500, 2400, _contract, _ticker, _weight)
