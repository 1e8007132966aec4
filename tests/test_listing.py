"""What an exchange lists: kinds of markets in ccxt's two ways to say them, names that are refused, what is kept of a market."""

from __future__ import annotations

import json

import pytest

from cryptod.ingest.listing import MOST_RECORD, day_of, longest, record, sound, spot


def test_only_spot_markets_are_loaded_in_both_of_ccxts_ways_to_say_it() -> None:
    assert spot(["spot", "linear", "inverse", "option"]) == ["spot"]
    assert spot({"spot": True, "linear": True, "inverse": True}) == {"spot": True, "linear": False, "inverse": False}
    assert spot({"spot": True, "swap": {"linear": True, "inverse": False}}) == {"spot": True, "swap": False}


@pytest.mark.parametrize(
    "name", ["\x1b]0;owned\x07/USDT", "BTC\u202e/USDT", "B\x9bC/USDT", "A" * 10_000 + "/USDT", "BTC/US\nDT", "", "<b>/USDT", None]
)
def test_a_name_that_a_terminal_would_obey_or_that_is_long_is_refused(name: str) -> None:
    assert not sound(name)


@pytest.mark.parametrize("name", ["BTC/USDT", "kBONK/USDC", "币安人生/USDT", "1000SATS/USDT", "BTC/USDT:USDT"])
def test_a_name_in_any_script_is_sound(name: str) -> None:
    assert sound(name)


def test_of_a_market_the_fields_of_its_own_exchange_are_kept() -> None:
    market = {"id": "sBTCUSDT", "symbol": "BTC/USDT", "spot": True, "priceScale": 8, "valueScale": 8, "settle": None, "limits": {"a": 1},
              "precision": {"price": 0.01, "cost": None}, "info": {"type": "1", "filters": [1, 2],
              "listTime": 5, "flag": True}}  # fmt: skip
    assert record(market) == {
        "id": "sBTCUSDT", "symbol": "BTC/USDT", "spot": True, "priceScale": 8, "valueScale": 8, "precision": {"price": 0.01},
        "info": {"type": "1", "listTime": 5},
    }  # fmt: skip


def test_what_is_kept_of_a_market_is_bounded() -> None:
    market = {"id": "X", "long": "x" * 10_000, "huge": 1 << 80, "info": {str(n): "y" * 190 for n in range(1000)}}
    assert record(market) == {"id": "X", "info": {}}
    assert len(json.dumps(record(market))) < MOST_RECORD


def test_the_longest_list_of_an_answer_is_found_where_exchanges_put_it() -> None:
    assert longest([1, 2, 3]) == 3
    assert longest({"code": 0, "data": {"list": list(range(50))}}) == 50
    assert longest("text") == 0


def test_a_day_is_summed_from_its_candles() -> None:
    day = day_of(
        [[0, 1.0, 3.0, 0.5, 2.0, 10.0], [1, 2.0, 4.0, 1.0, 3.0, 5.0], [2, None, 1.0, 1.0, 1.0, 1.0], [3, 1.0, 1.0, 1.0, 1.0, 1.0]], 0, 3
    )
    assert (day.quote_volume, day.last, day.high, day.low) == (35.0, 3.0, 4.0, 0.5)
    assert day_of([], 0, 3).quote_volume == 0.0
