"""Coins by what a person types: those that nobody follows yet."""

from __future__ import annotations

import shlex

import pytest

from cryptod.daemon.symbols import SymbolIndex, spelt_out
from cryptod.errors import RequestError


@pytest.mark.parametrize("text", ["DOGE/USDT", "doge-usdt", "dogeusdt", "doge", " Doge_Usdt ", "DOGE:USDT"])
def test_any_usual_spelling_names_the_coin(text: str) -> None:
    assert spelt_out(text, "USDT") == "DOGE/USDT"


@pytest.mark.parametrize(
    ("text", "said"),
    [("DOGE/EUR", "DOGE/EUR is not quoted in USDT"), ("", "cannot be a coin's name"), ("usdt", "cannot be"),
     ("doge-eur", "DOGE/EUR is not quoted in USDT"),
     ("d\u202ege", "cannot be"),
     ("A" * 30, "cannot be"), ("a/b/c/d\x1b", "cannot be")],
)  # fmt: skip
def test_what_cannot_be_a_coin_is_refused_with_how_one_is_named(text: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as refused:
        spelt_out(text, "USDT")
    assert "like DOGE/USDT" in refused.value.hint
    assert refused.value.message.isprintable()


def test_before_any_coin_is_followed_none_is_said_not_to_exist() -> None:
    with pytest.raises(RequestError, match="no coin is followed yet") as refused:
        SymbolIndex((), {}).find("BTC")
    assert refused.value.code == "unknown_symbol"
    assert "cryptoctl status" in refused.value.hint
    with pytest.raises(RequestError, match="there is no coin BTCC"):
        SymbolIndex(("BTC/USDT",), {}).find("BTCC")


def test_a_coin_of_any_script_or_case_is_found_by_what_is_typed_and_shown() -> None:
    index = SymbolIndex(("BTC/USDC:USDC", "kBONK/USDC:USDC", "\u5e01\u5b89\u4eba\u751f/USDC:USDC"), {})
    for text in ("kBONK", "kbonk", "KBONK", "KBONK/USDC", "kBONK/USDC:USDC", "kbonk-usdc-usdc"):
        assert index.find(text) == "kBONK/USDC:USDC"
    assert index.find("\u5e01\u5b89\u4eba\u751f") == index.find("\u5e01\u5b89\u4eba\u751f/usdc") == "\u5e01\u5b89\u4eba\u751f/USDC:USDC"
    assert index.find("BTC") == index.find("BTCUSDC") == index.find("btc-usdc") == "BTC/USDC:USDC"


def test_the_hint_about_a_coin_that_is_left_out_names_it_so_that_it_can_be_added() -> None:
    left_out = {"kBONK/USDT": "nothing was traded in the last day", "\u5e01\u5b89\u4eba\u751f/USDT": "removed"}
    for symbol in left_out:
        with pytest.raises(RequestError, match=f"{symbol} is not followed") as refused:
            SymbolIndex(("BTC/USDT",), left_out).find(symbol.split("/")[0].lower())
        *command, named = shlex.split(refused.value.hint.split("`")[1])
        assert command == ["cryptoctl", "symbols", "add"]
        assert SymbolIndex(("BTC/USDT",), left_out).known(named) == symbol


@pytest.mark.parametrize(
    ("text", "symbol"),
    [("doge", "DOGE/USDT:USDT"), ("doge/usdt", "DOGE/USDT:USDT"), ("DOGE-USDT-USDT", "DOGE/USDT:USDT"),
     ("DOGE/USDT:USDT", "DOGE/USDT:USDT"),
     ("kPEPE", "kPEPE/USDT:USDT"), ("xyz-tsla/usdt", "XYZ-TSLA/USDT:USDT"), ("\u5e01\u5b89", "\u5e01\u5b89/USDT:USDT")],
)  # fmt: skip
def test_a_future_that_nobody_follows_yet_is_named_like_a_coin(text: str, symbol: str) -> None:
    assert spelt_out(text, "USDT", "USDT") == symbol
