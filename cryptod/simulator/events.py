"""What happens to coins: halts, delistings, renamings, redenominations, a price that stands still.

Knows a market and a list of events, and is a market again: the truth that a collector must end up with. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from cryptod.errors import ConfigError
from cryptod.market import CLOSE, HOUR, OPEN, VOLUME, Float64, Int64, Panel
from cryptod.simulator.faults import Fault
from cryptod.simulator.listing import Listing, Market, panel_of


class EventfulMarket:
    """``market`` with the ``events`` (faults of the stage "market") in it. Windows count from the hour that their start is in.

    A renamed coin goes on from its old name's candles without what else happened to that name: say it of the new one too.
    Raises `ConfigError` for an event of a pair that is not there.
    """

    def __init__(self, market: Market, events: Iterable[Fault]) -> None:
        self.market = market
        self._events: dict[str, list[Fault]] = {}
        known = {listing.symbol: listing for listing in market.listings}
        origin: dict[str, str] = {}
        for event in events:
            for symbol in event.symbols:
                if symbol not in known:
                    raise ConfigError(f"{event.kind} cannot happen to {symbol}", hint="the exchange has no such pair")
                self._events.setdefault(symbol, []).append(event)
                start = HOUR.floor(event.start)
                if event.kind in ("delisted", "renamed", "removed"):
                    known[symbol] = replace(known[symbol], last=start, removed=event.kind == "removed")
                if event.kind == "renamed":
                    known[event.to] = replace(known[symbol], symbol=event.to, first=start, last=None)
                    origin[event.to] = origin.get(symbol, symbol)
        self._origin = origin
        self._lives = known
        self.listings: tuple[Listing, ...] = tuple(known.values())

    def candles(self, symbol: str, start: int, end: int) -> tuple[Int64, Float64]:
        """See `Market.candles`."""
        life = self._lives[symbol]
        start, end = max(start, life.first), end if life.last is None else min(end, life.last)
        source = self._origin.get(symbol, symbol)
        times, values = self.market.candles(source, start, end)
        for event in self._events.get(symbol, ()):
            inside = (times >= HOUR.floor(event.start)) & (times < event.end)
            if event.kind == "halted":
                times, values = times[~inside], values[~inside]
            elif event.kind == "redenominated" and inside.any():
                values = values.copy()
                # to the eight decimals that the exchange's answers have
                values[inside, OPEN : CLOSE + 1] = np.maximum(np.round(values[inside, OPEN : CLOSE + 1] / event.amount, 8), 1e-8)
                values[inside, VOLUME] = np.round(values[inside, VOLUME] * event.amount, 8)
            elif event.kind == "flat" and inside.any():
                values = values.copy()
                _, reference = self.market.candles(source, HOUR.floor(event.start), HOUR.floor(event.start) + HOUR.ms)
                values[inside, OPEN : CLOSE + 1] = reference[0, OPEN] if len(reference) else values[inside][0, OPEN]
                values[inside, VOLUME] = 0.0
        return times, values

    def panel(self, symbols: tuple[str, ...], start: int, end: int) -> Panel:
        """See `Market.panel`."""
        return panel_of(self, symbols, start, end)

    def trading(self, symbol: str, now: int) -> bool:
        """See `Market.trading`."""
        life = self._lives[symbol]
        if not life.first <= now or (life.last is not None and now >= life.last):
            return False
        if any(event.kind == "halted" and event.start <= now < event.end for event in self._events.get(symbol, ())):
            return False
        return self.market.trading(self._origin.get(symbol, symbol), now)
