"""The rules of the universe: who is followed, who is not, and the reason given."""

from __future__ import annotations

import pytest

from cryptod.errors import ExchangeError
from cryptod.ingest.exchange import Day
from cryptod.ingest.universe import Universe, select


def day(volume: float, last: float = 10.0, width: float = 0.05) -> Day:
    return Day(volume, last, last * (1 + width / 2), last * (1 - width / 2))


DAYS = {
    "BTC/USDT": day(9e9, 30_000.0), "ETH/USDT": day(5e9, 2_000.0), "SOL/USDT": day(2e9, 20.0), "ADA/USDT": day(8e8, 0.3),
    "DOGE/USDT": day(7e8, 0.07), "DOT/USDT": day(3e8, 5.0), "LTC/USDT": day(2e8, 90.0),
}  # fmt: skip


def choose(size: int = 3, more: dict[str, Day] | None = None, halted: tuple[str, ...] = (), **options: object) -> Universe:
    days = {**DAYS, **(more or {})}
    return select({symbol: symbol not in halted for symbol in days}, days, quote="USDT", size=size, **options)  # type: ignore[arg-type]


def test_the_largest_by_quote_volume_are_followed_in_that_order() -> None:
    assert choose(3) == Universe(("BTC/USDT", "ETH/USDT", "SOL/USDT"), {})


def test_other_quote_currencies_are_not_looked_at() -> None:
    assert "BTC/EUR" not in choose(20, {"BTC/EUR": day(1e10)}).symbols


@pytest.mark.parametrize(
    ("symbol", "reason", "figures"),
    [
        ("USDC/USDT", "a stablecoin", day(1e10, 1.0, 0.0005)),
        ("UST/USDT", "a stablecoin", day(1e10, 0.2, 0.5)),
        ("EUR/USDT", "a fiat currency", day(1e10, 1.08, 0.004)),
        ("PAXG/USDT", "pegged to metal", day(1e10, 1_900.0)),
        ("WBTC/USDT", "a wrapped or staked coin", day(1e10, 30_000.0)),
        ("BTCUP/USDT", "a leveraged token", day(1e10)),
        ("ETHBEAR/USDT", "a leveraged token", day(1e10)),
        ("SOL3L/USDT", "a leveraged token", day(1e10)),
        ("ADA5S/USDT", "a leveraged token", day(1e10)),
        ("NEWUSD/USDT", "pegged to USDT: within 1% of 1.00 all day", day(1e10, 1.0005, 0.001)),
        ("WSOL/USDT", "a wrapped or staked coin", day(1e10, 20.0)),
        ("STADA/USDT", "wrapped ADA: the same price", day(1e10, 0.301)),
        ("WDOGE/USDT", "wrapped DOGE: the same price", day(1e10, 0.0701)),
        ("B\u202eTC/USDT", "its name cannot be used (see docs/exchanges.md)", day(1e10)),
    ],
)
def test_a_pair_whose_price_is_not_its_own_is_left_out_with_the_reason(symbol: str, reason: str, figures: Day) -> None:
    universe = choose(3, {symbol: figures})
    assert universe.symbols == ("BTC/USDT", "ETH/USDT", "SOL/USDT")
    assert universe.left_out == {symbol: reason}


@pytest.mark.parametrize(
    "symbol", ["JUP/USDT", "SYRUP/USDT", "SUPER/USDT", "PUMP/USDT", "1000SATS/USDT", "WIF/USDT", "STX/USDT", "BNB/USDT"]
)
def test_a_coin_whose_name_only_looks_leveraged_or_wrapped_is_followed(symbol: str) -> None:
    assert symbol in choose(3, {symbol: day(1e10)}).symbols


def test_a_coin_that_is_near_one_but_moves_is_no_peg() -> None:
    assert "XRP/USDT" in choose(3, {"XRP/USDT": day(1e10, 1.0, 0.03)}).symbols


def test_a_pair_that_does_not_trade_is_left_out() -> None:
    universe = choose(3, halted=("ETH/USDT",))
    assert universe.symbols == ("BTC/USDT", "SOL/USDT", "ADA/USDT")
    assert universe.left_out == {"ETH/USDT": "it is not trading on the exchange (halted or delisted)"}


def test_included_coins_win_over_rules_and_size() -> None:
    universe = choose(2, {"USDC/USDT": day(1e6, 1.0, 0.0)}, include=("USDC/USDT", "LTC/USDT", "DOT/USDT"))
    assert universe.symbols == ("DOT/USDT", "LTC/USDT", "USDC/USDT")


def test_included_coins_take_places_of_the_size() -> None:
    assert choose(3, include=("LTC/USDT",)).symbols == ("BTC/USDT", "ETH/USDT", "LTC/USDT")


def test_excluded_coins_are_left_out_and_the_next_takes_the_place() -> None:
    universe = choose(3, exclude=("ETH/USDT",))
    assert universe.symbols == ("BTC/USDT", "SOL/USDT", "ADA/USDT")
    assert universe.left_out == {"ETH/USDT": "excluded by the configuration"}


def test_a_name_that_the_exchange_does_not_have_is_answered_with_what_may_be_meant() -> None:
    universe = choose(3, include=("BTCC/USDT",), exclude=("XYZQ/USDT",), exchange="binance")
    assert universe.left_out["BTCC/USDT"] == "binance does not have it; did you mean BTC/USDT?"
    assert universe.left_out["XYZQ/USDT"] == "excluded by the configuration, but binance does not have it"


def test_an_included_coin_that_does_not_trade_is_named() -> None:
    assert "not trading" in choose(3, halted=("LTC/USDT",), include=("LTC/USDT",)).left_out["LTC/USDT"]


def test_a_followed_coin_keeps_its_place_until_it_is_clearly_smaller() -> None:
    days = {f"C{i}/USDT": day(1e9 - i) for i in range(20)}
    followed = tuple(f"C{i}/USDT" for i in range(11) if i != 9)
    stays = select(dict.fromkeys(days, True), days, quote="USDT", size=10, followed=followed)
    assert set(stays.symbols) == set(followed)
    far = (*followed[:9], "C15/USDT")
    assert select(dict.fromkeys(days, True), days, quote="USDT", size=10, followed=far).left_out == {
        "C15/USDT": "its volume is no longer among the 10 largest"
    }


def test_a_followed_coin_that_is_gone_is_named() -> None:
    assert choose(3, followed=("MATIC/USDT",)).left_out == {"MATIC/USDT": "the exchange does not have it any more"}


def test_where_places_stay_free_every_coin_that_is_left_out_is_named() -> None:
    universe = choose(50, {"SRM/USDT": Day(0.0, 0.0, 0.0, 0.0), "FTT/USDT": Day(0.0, 0.0, 0.0, 0.0)}, halted=("SRM/USDT",))
    assert universe.left_out == {
        "SRM/USDT": "it is not trading on the exchange (halted or delisted)",
        "FTT/USDT": "nothing was traded in the last day",
    }


def test_nothing_to_follow_is_an_error_that_names_the_quote_currencies_there_are() -> None:
    with pytest.raises(ExchangeError, match="no coin to follow against EUR") as caught:
        select({"BTC/USDT": True}, DAYS, quote="EUR", size=3, exchange="binance")
    assert "USDT" in caught.value.hint
