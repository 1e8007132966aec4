"""Coins by what a person types: those that nobody follows yet."""

from __future__ import annotations

import pytest

from cryptod.daemon.symbols import SymbolIndex, spelt_out
from cryptod.errors import RequestError


@pytest.mark.parametrize("text", ["DOGE/USDT", "doge-usdt", "dogeusdt", "doge", " Doge_Usdt ", "DOGE:USDT"])
def test_any_usual_spelling_names_the_coin(text: str) -> None:
    assert spelt_out(text, "USDT") == "DOGE/USDT"


@pytest.mark.parametrize(
    ("text", "said"),
    [("DOGE/EUR", "DOGE/EUR is not quoted in USDT"), ("", "cannot be a coin's name"), ("usdt", "cannot be"), ("d\u00f6ge", "cannot be"),
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
