"""What an exchange lists: its pairs, when each of them trades, and the candle that is still open.

Knows candles and times. Knows neither HTTP nor where a market comes from: `generator` makes one up, `folder` replays
one, `events` halts, renames and delists coins of another one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cryptod.market import CANDLE, CLOSE, HIGH, HOUR, LOW, NO_TRADE, NOT_FETCHED, OPEN, VOLUME, Float64, Int64, Panel
from cryptod.symbol import split

OUTAGE_HOURS = 24
"""A hole in the candles shorter than this is an outage of the exchange; the pair stays TRADING. A longer one is a halt."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One pair. ``first`` is the open time of its first candle, ``last`` the close time of its last (None: it trades on).

    ``price_tick`` and ``lot`` are the steps of prices (quote currency) and volumes (base currency). ``removed``: after its last candle
    the exchange does not know the pair any more.
    """

    symbol: str
    first: int
    last: int | None = None
    price_tick: float = 1e-8
    lot: float = 1e-8
    removed: bool = False

    def known(self, now: int) -> bool:
        """Whether the exchange lists the pair at ``now``: from its first candle on, delisted ones too, unless they were removed."""
        return self.first <= now and not (self.removed and self.last is not None and self.last <= now)

    @property
    def base(self) -> str:
        return split(self.symbol).base

    @property
    def quote(self) -> str:
        return split(self.symbol).quote

    @property
    def market_id(self) -> str:
        """Binance's spelling: BTCUSDT."""
        return self.base + self.quote


class Market(Protocol):
    """What the exchange replays. Every method is a pure function of its arguments: asking twice gives the same answer."""

    @property
    def listings(self) -> tuple[Listing, ...]: ...

    def candles(self, symbol: str, start: int, end: int) -> tuple[Int64, Float64]:
        """Open times int64 [n] and values float64 [n, 5] of the candles that open in [start, end); holes are left out."""
        ...

    def panel(self, symbols: tuple[str, ...], start: int, end: int) -> Panel:
        """The same on a grid. A hole within a pair's life is NO_TRADE, an hour outside of it NOT_FETCHED."""
        ...

    def trading(self, symbol: str, now: int) -> bool:
        """Whether the pair's status is TRADING (else BREAK) at ``now``."""
        ...


def panel_of(market: Market, symbols: tuple[str, ...], start: int, end: int) -> Panel:
    """A `Panel` made from `Market.candles`, one column at a time."""
    start, end = HOUR.floor(start), HOUR.floor(end)
    hours = max(0, (end - start) // HOUR.ms)
    values = np.full((hours, len(symbols), 5), np.nan)
    status = np.full((hours, len(symbols)), NOT_FETCHED, dtype=np.uint8)
    lives = {listing.symbol: listing for listing in market.listings}
    for column, symbol in enumerate(symbols):
        listing = lives[symbol]
        alive_to = end if listing.last is None else min(end, listing.last)
        status[max(0, (listing.first - start) // HOUR.ms) : max(0, (alive_to - start) // HOUR.ms), column] = NO_TRADE
        times, candles = market.candles(symbol, start, end)
        rows = (times - start) // HOUR.ms
        values[rows, column], status[rows, column] = candles, CANDLE
    return Panel(symbols, start, values, status)


def unclosed(candle: Float64, fraction: float, price_tick: float = 1e-8, lot: float = 1e-8) -> Float64:
    """The candle [5] as it stood when ``fraction`` (0..1) of its hour had passed.

    The price is taken to go from open to low, high and close (high first when it falls), in straight lines of a third of the hour
    each: the running high and low never leave the final ones, and the volume grows in proportion.
    """
    first, second = (LOW, HIGH) if candle[CLOSE] >= candle[OPEN] else (HIGH, LOW)
    corners = candle[[OPEN, first, second, CLOSE]]
    passed = corners[: int(min(fraction, 1.0) * 3) + 1]
    price = round(float(np.interp(fraction * 3, range(4), corners)) / price_tick) * price_tick
    price = min(max(price, candle[LOW]), candle[HIGH])
    row = np.empty(5)
    row[OPEN], row[CLOSE] = candle[OPEN], price
    row[HIGH], row[LOW] = max(price, passed.max()), min(price, passed.min())
    row[VOLUME] = min(round(candle[VOLUME] * fraction / lot) * lot, candle[VOLUME])
    return row
