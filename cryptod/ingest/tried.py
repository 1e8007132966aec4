"""Which exchanges were tried, and whether a configured one can be followed, as far as that shows without asking it.

An exchange was tried when the tests serve it with its own paging, limits and order of rows, and what the collector stored
was the truth (docs/exchanges.md). Others may work as well.
"""

from __future__ import annotations

import asyncio
import difflib
import importlib.util
from pathlib import Path
from typing import Final

from cryptod.errors import ConfigError, ExchangeError
from cryptod.ingest.exchange import Exchange

TRIED: Final[dict[str, frozenset[str]]] = {
    "spot": frozenset((
        "binance", "binanceus", "bequant", "bingx", "bitbank", "bitfinex", "bitget", "bithumb", "bitstamp", "bitvavo", "btcmarkets",
        "bullish", "bybit", "bybiteu", "coinbase", "coinbaseexchange", "cryptocom", "digifinex", "fmfwio", "gate", "gemini", "hitbtc",
        "htx", "hyperliquid", "kraken", "kucoin", "lbank", "mexc", "myokx", "okx", "phemex", "poloniex", "tokocrypto", "upbit",
        "whitebit", "woo",
    )),
    "swap": frozenset(("binance", "bybit", "dydx", "gate", "hyperliquid", "kucoin", "okx")),
}  # fmt: skip
"""exchange.market -> ids of ccxt. A test says that these are the exchanges of the tests."""


def check(name: str, market: str) -> tuple[str, ...]:
    """Warnings about an exchange. `ConfigError` if it cannot be followed. Nothing is sent."""
    try:
        exchange = Exchange(name, market=market)
        asyncio.run(_spacing(exchange))
    except ExchangeError as error:
        raise ConfigError(f"exchange.id: {error.message}", hint=_meant(name) or error.hint) from error
    except ModuleNotFoundError as error:
        return (f"exchange.id was not checked: {error.name} is not installed here",)
    if name in TRIED[market]:
        return ()
    kind = "" if market == "spot" else " for perpetual futures"
    return (f"exchange.id: {name} was not tried{kind}; docs/exchanges.md lists the exchanges that were",)


def spacing(name: str, market: str) -> float:
    """Seconds that ccxt's limiter puts between two questions for candles. Nothing is sent."""
    return asyncio.run(_spacing(Exchange(name, market=market)))


async def _spacing(exchange: Exchange) -> float:
    return await exchange.rehearse()


def _meant(name: str) -> str:
    """The id that was meant by one that ccxt does not know, or nothing."""
    spec = importlib.util.find_spec("ccxt")
    folders = [Path(place) / "async_support" for place in (spec.submodule_search_locations or ())] if spec else []
    known = {file.stem for folder in folders for file in folder.glob("*.py")} - {"__init__"}
    close = difflib.get_close_matches(name[:64], sorted(known), n=1, cutoff=0.6) if name not in known else []
    return f"did you mean {close[0]}?" if close else ""
