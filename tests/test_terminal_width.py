"""Names of any script in tables: a Chinese sign is two columns wide, a mark on a letter none."""

from __future__ import annotations

import pytest

from ctl.export import without_rows
from ctl.terminal import Screen, columns, wrap
from ctl.units import quote_of


@pytest.mark.parametrize(
    ("text", "wide"),
    [("BTC/USDT", 8), ("\u5e01\u5b89\u4eba\u751f/USDT", 13), ("e\u0301", 1), ("\U0001f436", 2), ("\u2581\u2588", 2), ("", 0)],
)
def test_a_text_takes_the_columns_that_a_terminal_gives_it(text: str, wide: int) -> None:
    assert columns(text) == wide


def test_columns_stand_under_each_other_whatever_the_script_of_a_name() -> None:
    rows = [["BTC/USDT", "1.5", "x"], ["\u5e01\u5b89\u4eba\u751f/USDT", "22.5", "x"], ["kBONK/USDC:USDC", "3", "x"]]
    lines = Screen(width=80).table(rows, "<><", ["Coin", "Close", "End"])
    assert len({columns(line[: line.rindex("x")]) for line in lines[1:]}) == 1


def test_lines_of_wide_signs_are_not_wider_than_the_screen() -> None:
    lines = wrap(" ".join(["\u5e01\u5b89\u4eba\u751f"] * 20), 40)
    assert max(map(columns, lines)) <= 40


def test_the_quote_currency_of_a_future_is_no_more_than_that() -> None:
    assert quote_of("BTC/USDT") == quote_of("BTC/USDT:USDT") == "USDT"


def test_an_export_knows_its_coins_by_what_was_typed() -> None:
    rows = ["BTC/USDT:USDT", "kBONK/USDT:USDT", "\u5e01\u5b89\u4eba\u751f/USDT:USDT"]
    assert without_rows(["btc", "BTC-USDT", "KBONK", "kbonk/usdt", "\u5e01\u5b89\u4eba\u751f", "ETH"], rows) == ["ETH"]
