"""Which exchanges have perpetual futures, and which of their contracts are taken."""

from __future__ import annotations

from typing import Any

import pytest

from cryptod.config import load
from cryptod.errors import ConfigError, ExchangeError
from cryptod.ingest.exchange import Exchange
from cryptod.ingest.perpetuals import PERPETUALS, linear
from cryptod.ingest.tried import TRIED
from cryptod.settings import PERPETUALS as NAMES
from cryptod.symbol import of_market


def test_the_settings_name_the_exchanges_that_are_known_and_were_tried() -> None:
    assert set(NAMES) == set(PERPETUALS) == TRIED["swap"]


PERPETUAL: dict[str, Any] = {"swap": True, "linear": True, "quote": "USDT", "settle": "USDT", "expiry": None}


@pytest.mark.parametrize(
    ("changes", "taken"),
    [({}, True), ({"expiry": 1_800_000_000_000}, False), ({"swap": False, "future": True}, False),
     ({"linear": False, "inverse": True}, False),
     ({"settle": "BTC"}, False), ({"settle": "USDC"}, False)],
)  # fmt: skip
def test_only_perpetuals_settled_in_their_quote_currency_are_taken(changes: dict[str, Any], taken: bool) -> None:
    assert linear(PERPETUAL | changes) is taken


def environment(**settings: str) -> dict[str, str]:
    return {f"CRYPTOD_{name.upper()}": value for name, value in settings.items()}


def test_the_configuration_refuses_what_does_not_go_together() -> None:
    assert load(None, environment(exchange_market="swap", universe_include="BTC/USDT,ETH/USDT:USDT")).config.exchange.market == "swap"
    with pytest.raises(ConfigError, match=r'exchange\.market = "swap" is known of binance, .* and not of exchange\.id = "kraken"'):
        load(None, environment(exchange_market="swap", exchange_id="kraken", exchange_quote="USD"))
    with pytest.raises(ConfigError, match=r'universe\.include names BTC/USDT:USDT, a perpetual future, but exchange\.market = "spot"'):
        load(None, environment(universe_include="BTC/USDT:USDT"))
    with pytest.raises(ConfigError, match=r"universe\.include names BTC/USDT:BTC"):
        load(None, environment(exchange_market="swap", universe_include="BTC/USDT:BTC"))


def test_an_exchange_whose_perpetuals_are_not_known_is_refused_with_those_that_are() -> None:
    with pytest.raises(ExchangeError, match="perpetual futures of kraken are not known") as refused:
        Exchange("kraken", market="swap")
    assert "binance, bybit, dydx" in refused.value.hint


def test_a_spot_pairs_name_becomes_its_perpetuals() -> None:
    assert of_market("BTC/USDT", "swap") == of_market("BTC/USDT:USDT", "swap") == "BTC/USDT:USDT"
    assert of_market("BTC/USDT", "spot") == "BTC/USDT"
