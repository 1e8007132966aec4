"""Symbols: what is one, and what only looks like one. They become keys, names of files in a folder of candles, and part of an address."""

import pytest

from cryptod.errors import DataError
from cryptod.market import parse_symbol


@pytest.mark.parametrize("text", ["BTC/USDT", "1INCH/USDT", "A/B", "X" * 20 + "/" + "Y" * 10])
def test_a_symbol_is_taken_as_it_is(text: str) -> None:
    assert parse_symbol(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "BTC", "/", "BTC/", "/USDT", "btc/usdt", "BTC/USDT\n", "\nBTC/USDT", "BTC/USDT\0", " BTC/USDT", "BTC/USDT/", "BTC//USDT",
        "../USDT", "BTC/..", "../../etc/passwd", "/etc/passwd", "BTC/USDT/../../x", "BTC\\USDT", "BTC/USDT?x=1", "BTC/USDT&limit=1",
        "BTC%2FUSDT",
        "BTC/USDT#", "B\u0422C/USDT", "BTC/USDT\u202e", "\uff22TC/USDT", "\u0661/USDT", "X" * 21 + "/USDT", "BTC/" + "Y" * 11,
    ],
)  # fmt: skip
def test_what_has_a_path_an_address_a_line_or_a_foreign_letter_in_it_is_none(text: str) -> None:
    with pytest.raises(DataError, match="is not a symbol"):
        parse_symbol(text)
