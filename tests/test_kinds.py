"""Whose price is not its own: by the exchange's word, by name, by price; and what only looks like it."""

from __future__ import annotations

from typing import Any

import pytest

from cryptod.ingest import metadata
from cryptod.ingest.listing import Day
from cryptod.ingest.universe import select, unclear

QUOTE = "USDT"


def day(volume: float = 1e10, last: float = 10.0, width: float = 0.05, moved: float | None = None) -> Day:
    """``moved``: log return of the day, as far as the exchange tells it."""
    import math

    opened = last / math.exp(moved) if moved is not None else 0.0
    return Day(volume, last, last * (1 + width / 2), last * (1 - width / 2), opened)


COINS = {"BTC": day(9e9, 30_000.0), "ETH": day(5e9, 2_000.0), "SOL": day(2e9, 20.0), "ADA": day(8e8, 0.3)}


def reasons(more: dict[str, Day], quote: str = QUOTE, said: dict[str, str] | None = None, settle: str = "") -> dict[str, str]:
    """base -> why it is not followed, of the coins above and ``more``."""
    end = f"/{quote}:{settle}" if settle else f"/{quote}"
    days = {f"{base}{end}" if "/" not in base else base: figures for base, figures in (COINS | more).items()}
    found = select(dict.fromkeys(days, True), days, quote=quote, size=100, said=said)
    return {symbol.split("/")[0]: reason for symbol, reason in found.left_out.items()}


TOKENISED = (
    "AAPLX ABTX ABBVX AMBRX AMZNX AVGOX BACX CMCSAX COINX CRCLX CRWDX CSCOX CVXX DFDVX GLDX GMEX GOOGLX HOODX INTCX JNJX JPMX LLYX "
    "MCDX METAX MRKX MSFTX MSTRX NFLXX NVDAX PLTRX QQQX SPYX TSLAX TQQQX UNHX XOMX"
)


@pytest.mark.parametrize("base", [*TOKENISED.split(), "AAPLON", "TSLAON", "NVDAON", "SPYON", "MSTRON", "TSLA", "NVDA", "AAPLB"])
def test_a_tokenised_share_is_left_out(base: str) -> None:
    assert reasons({base: day()}) == {base: "a tokenised share"}


@pytest.mark.parametrize(
    "base",
    ["GMX", "SNX", "DYDX", "IMX", "TRX", "AVAX", "STX", "CVX", "LINX", "MUX", "WMTX", "META", "GME", "COIN", "ARB", "TON", "XION", "OPENX"],
)
def test_a_coin_that_is_named_a_little_like_a_share_is_followed(base: str) -> None:
    assert reasons({base: day()}) == {}


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"aclass_base": "tokenized_asset"}, "a tokenised share"),  # Kraken
        ({"aclass_base": "currency"}, ""),
        ({"symbolType": "xstocks"}, "a tokenised share"),  # Bybit
        ({"symbolType": "innovation"}, ""),
        ({"symbolType": "adventure"}, ""),
        ({"instCategory": "3"}, "a tokenised share"),  # OKX
        ({"instCategory": "1"}, ""),
        ({"underlyingType": "COIN", "underlyingSubType": ["DEFI"]}, ""),  # Binance's futures
        ({"underlyingType": "INDEX"}, "an index"),
        ({"contractType": "TRADIFI_PERPETUAL", "underlyingType": "EQUITY"}, "a tokenised share"),
        ({"permissions": ["LEVERAGED"]}, "a leveraged token"),  # Binance
        ({"permissions": [], "permissionSets": [["SPOT", "TRD_GRP_004"], ["LEVERAGED"]]}, "a leveraged token"),
        ({"permissions": ["SPOT"], "permissionSets": [["SPOT", "MARGIN"]]}, ""),
        ({"market": "ETF", "feeCurrency": "USDT"}, "a leveraged token"),  # KuCoin
        ({"market": "USDS"}, ""),
        ({"base_name": "Apple xStock"}, "a tokenised share"),  # Gate
        ({"base_name": "Tesla (Ondo Tokenized)"}, "a tokenised share"),
        ({"base_name": "BTC 3x Long"}, "a leveraged token"),
        ({"base_name": "Stacks"}, ""),
        ({"fullName": "NVIDIA tokenized stock (xStock)"}, "a tokenised share"),  # MEXC
        ({"tags": "etp,nav,holdinglimit"}, "a leveraged token"),  # HTX
        ({"mfr": 0.035}, "a leveraged token"),
        ({"isRwa": "YES"}, "a tokenised share"),  # Bitget
        ({"isRwa": "NO"}, ""),
        ({}, ""),
        ([], ""),
        (None, ""),
    ],
)
def test_what_the_exchange_says_of_a_pair_is_believed(info: Any, reason: str) -> None:
    assert metadata.said({"info": info}) == reason


def test_a_pair_that_the_exchange_calls_a_share_is_left_out_whatever_its_name() -> None:
    assert reasons({"MAX": day()}, said={"MAX/USDT": "a tokenised share"}) == {"MAX": "a tokenised share"}
    assert reasons({"MAX": day()}) == {}


@pytest.mark.parametrize("base", ["BTC1S", "ETH1S", "BTC3L", "SOL5S", "BTCUP", "BTCDOWN", "ETHBULL", "ADABEAR", "BTCHEDGE"])
def test_a_leveraged_token_of_a_listed_coin_is_left_out(base: str) -> None:
    assert reasons({base: day()}) == {base: "a leveraged token"}


def test_a_name_that_ends_like_a_leveraged_tokens_needs_evidence() -> None:
    assert reasons({"J": day(), "JUP": day()}) == {}
    assert reasons({"SYR": day(), "SYRUP": day(), "PUMP": day(), "SUPER": day(), "UP": day(), "BULL": day()}) == {}
    assert reasons({"JUP": day(), "J": day(), "JDOWN": day()}) == {"JUP": "a leveraged token", "JDOWN": "a leveraged token"}
    assert reasons({"BULL": day(), "BEAR": day()}) == {"BULL": "a leveraged token", "BEAR": "a leveraged token"}


def test_the_days_move_is_evidence_for_and_against() -> None:
    assert reasons({"J": day(moved=0.03), "JUP": day(moved=0.06)}) == {"JUP": "a leveraged token"}
    assert reasons({"J": day(moved=0.03), "JUP": day(moved=-0.01)}) == {}
    assert reasons({"BTC": day(moved=0.03), "BTC3L": day(moved=0.09)}) == {"BTC3L": "a leveraged token"}
    assert reasons({"BTC": day(moved=0.03), "BTC3L": day(moved=-0.02)}) == {}


@pytest.mark.parametrize(
    ("base", "last"),
    [("WBTC", 30_000.0), ("WETH", 2_000.0), ("WBETH", 2_150.0), ("CBBTC", 30_010.0), ("STETH", 1_999.0), ("RETH", 2_260.0), ("BNSOL", 21.6),
     ("JITOSOL", 24.4), ("WSTETH", 2_400.0)],
)  # fmt: skip
def test_a_wrapped_or_staked_coin_is_left_out(base: str, last: float) -> None:
    assert reasons({base: day(last=last)}) == {base: "a wrapped or staked coin"}


@pytest.mark.parametrize("base", ["USDE", "SUSDE", "SUSDS", "USDY", "SDAI", "USD1", "RLUSD"])
def test_a_dollar_token_that_bears_interest_is_left_out(base: str) -> None:
    assert reasons({base: day(last=1.17, width=0.001)}) == {base: "a stablecoin"}


def test_a_coin_that_bears_a_pegged_coins_name_and_another_price_is_followed() -> None:
    assert reasons({"INF": day(last=0.002), "MIM": day(last=0.00004), "METH": day(last=0.01)}) == {}


def test_a_staked_coin_of_an_unknown_name_is_known_by_its_moves() -> None:
    sol, staked = Day(2e9, 20.0, 21.0, 19.5, 20.5), Day(1e10, 23.0, 24.15, 22.425, 23.575)
    assert reasons({"SOL": sol, "ZZSOL": staked}) == {"ZZSOL": "wrapped or staked SOL: the same moves all day"}
    assert reasons({"SOL": sol, "ZZSOL": Day(1e10, 23.0, 26.0, 22.425)}) == {}


EUROS = {"BTC": day(9e9, 27_000.0), "ETH": day(5e9, 1_800.0), "SOL": day(2e9, 18.0), "ADA": day(8e8, 0.27)}


def test_a_dollar_coin_in_euros_moves_like_the_dollar_and_is_left_out() -> None:
    dollar, euro = Day(1e9, 0.921, 0.924, 0.918), Day(1e9, 0.9995, 1.001, 0.999)
    found = reasons(
        EUROS | {"USDT": dollar, "USDC": dollar, "NEWUSD": Day(1e9, 0.9205, 0.9241, 0.9178), "EURC": euro, "NEWEUR": euro}, "EUR"
    )
    assert found == {
        "USDT": "a stablecoin", "USDC": "a stablecoin", "NEWUSD": "pegged to USDT: the same price all day", "EURC": "a stablecoin",
        "NEWEUR": "pegged to EUR: within 1% of 1.00 all day",
    }  # fmt: skip


def test_a_dollar_coin_in_euros_is_known_where_no_other_pair_says_what_a_dollar_is() -> None:
    assert "stood still all day" in reasons(EUROS | {"NEWUSD": Day(1e9, 0.92, 0.924, 0.918)}, "EUR")["NEWUSD"]
    assert reasons(EUROS | {"XRP": Day(1e9, 0.92, 0.96, 0.90)}, "EUR") == {}


def test_a_euro_coin_in_dollars_is_left_out_by_the_euros_price() -> None:
    found = reasons({"EUR": Day(1e9, 1.08, 1.083, 1.077), "NEWEUR": Day(1e9, 1.0805, 1.0834, 1.0771)})
    assert found == {"EUR": "a fiat currency", "NEWEUR": "pegged to EUR: the same price all day"}


def test_a_peg_is_unclear_where_the_exchange_gives_no_high_and_low() -> None:
    """A few days of candles then say it."""
    days = {"BTC/USDT": Day(9e9, 30_000.0, 0, 0), "NEWUSD/USDT": Day(8e9, 1.0003, 0, 0), "XRP/USDT": Day(7e9, 1.004, 0, 0),
            "USDC/USDT": Day(6e9, 1.0, 0, 0), "EUR/USDT": Day(5e9, 1.08, 0, 0), "NEWEUR/USDT": Day(4e9, 1.0801, 0, 0)}  # fmt: skip
    trading = dict.fromkeys(days, True)
    assert unclear(trading, days, quote="USDT", size=10) == ["NEWUSD/USDT", "XRP/USDT", "NEWEUR/USDT"]
    seen = days | {
        "NEWUSD/USDT": Day(8e9, 1.0003, 1.001, 0.9992),
        "XRP/USDT": Day(7e9, 1.004, 1.1, 0.98),
        "NEWEUR/USDT": Day(4e9, 1.0801, 1.084, 1.076),
    }
    found = select(trading, seen, quote="USDT", size=10)
    assert found.symbols == ("BTC/USDT", "XRP/USDT")
    assert found.left_out["NEWUSD/USDT"] == "pegged to USDT: within 1% of 1.00 all day"
    assert found.left_out["NEWEUR/USDT"] == "pegged to EUR: the same price all day"


def test_perpetual_futures_are_judged_as_their_coins_are() -> None:
    found = reasons({"USDC": day(last=1.0, width=0.001), "TSLA": day(), "1000PEPE": day(last=0.01), "kBONK": day(last=0.02)}, settle="USDT")
    assert found == {"USDC": "a stablecoin", "TSLA": "a tokenised share"}


@pytest.mark.parametrize(("asked", "own"), [("KBONK/USDT", "kBONK/USDT"), ("kbonk/USDT", "kBONK/USDT"), ("btc/USDT", "BTC/USDT")])
def test_a_coin_is_included_and_excluded_by_any_case_of_its_name(asked: str, own: str) -> None:
    days = {"BTC/USDT": day(9e9), "kBONK/USDT": day(8e9), "ETH/USDT": day(7e9)}
    trading = dict.fromkeys(days, True)
    included = select(trading, days, quote="USDT", size=1, include=(asked,))
    assert (included.symbols, included.spelt, included.left_out) == ((own,), {asked: own}, {})
    excluded = select(trading, days, quote="USDT", size=3, exclude=(asked,))
    assert own not in excluded.symbols
    assert excluded.left_out == {own: "excluded by the configuration"}


def test_coins_of_any_script_are_followed() -> None:
    assert reasons({"\u5e01\u5b89\u4eba\u751f": day(), "kBONK": day(), "FTX Users' Debt": day()}) == {}


# Which coin it is


def market(id_: str, created: int | None = 1_600_000_000_000) -> dict[str, Any]:
    return {"id": id_, "baseId": id_[:3], "created": created}


def test_another_id_or_listing_date_behind_a_symbol_is_another_coin() -> None:
    before = {f"C{i}/USDT": market(f"C{i}USDT") for i in range(5)}
    assert metadata.others(before, before) == ()
    assert metadata.others(before, before | {"C1/USDT": market("C1NEWUSDT")}) == ("C1/USDT",)
    assert metadata.others(before, before | {"C1/USDT": market("C1USDT", 1_700_000_000_000)}) == ("C1/USDT",)
    assert metadata.others(before, before | {"C1/USDT": market("C1USDT", 1_600_000_003_000)}) == ()
    assert metadata.others(before, before | {"C1/USDT": market("C1USDT", None)}) == ()
    assert metadata.others(before, {}) == ()


def test_an_exchange_that_spells_all_its_ids_anew_has_the_same_coins() -> None:
    before = {f"C{i}/USDT": market(f"C{i}USDT") for i in range(5)}
    assert metadata.others(before, {symbol: market(f"c{i}_usdt") for i, symbol in enumerate(before)}) == ()
