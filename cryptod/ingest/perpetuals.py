"""Perpetual futures: how each exchange that has them is asked for them, and in what its volumes are counted.

Knows ccxt's names of classes and options, and nothing of how questions are sent. Only linear perpetuals count: settled in
the currency in which they are quoted. Dated futures and inverse contracts are not taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Perpetuals:
    """``client`` is ccxt's class; ``types`` what its list of markets is asked for; ``page`` the rows of one answer."""

    client: str
    page: int
    types: tuple[str, ...] = ("swap",)
    options: Mapping[str, Any] = field(default_factory=dict)
    contracts: bool = False
    """Candles count contracts: volumes have to be multiplied by the contract's size."""
    until: bool = False
    """The end of what is asked for has to be said: of more hours than an answer holds, it has the newest."""
    day_contracts: bool = False
    """The last day's base volume counts contracts."""


PERPETUALS: Final = {
    "binance": Perpetuals("binanceusdm", 1000, ("linear",)),
    "bybit": Perpetuals("bybit", 1000, ("linear",), {"defaultSubType": "linear"}),
    "dydx": Perpetuals("dydx", 1000, until=True),
    "gate": Perpetuals("gate", 1999, contracts=True),
    "hyperliquid": Perpetuals("hyperliquid", 5000),
    "kucoin": Perpetuals("kucoinfutures", 200, contracts=True),
    "okx": Perpetuals("okx", 300, day_contracts=True),
}
"""ccxt's id of the exchange -> how its perpetuals are had. `settings.PERPETUALS` names the same."""


def linear(market: Mapping[str, Any]) -> bool:
    """Whether a market of ccxt's is a perpetual future that is settled in its quote currency."""
    return (
        bool(market.get("swap")) and bool(market.get("linear")) and market.get("settle") == market.get("quote") and not market.get("expiry")
    )
