"""Symbols: what is one, and what only looks like one. They become keys, names of files, cells of tables and part of an address."""

import pytest

from cryptod.errors import DataError
from cryptod.symbol import file_stem, from_stem, parse_symbol, spelling, spellings, split

REAL = (
    "BTC/USDT", "1INCH/USDT", "A/B", "BTC/USDT:USDT", "kBONK/USDC:USDC", "1000000BABYDOGE/USDT:USDT", "\u5e01\u5b89\u4eba\u751f/USDT",
    "FTX Users' Debt/USDT", "DAO.Casino/BTC", "XYZ-TSLA/USDC:USDC", "$MICHI/USDT", "\u5e01\u5b89\u4eba\u751f/USDT:USDT", "aXLUSDC.e/USD",
    "\u0915\u093f/USDT", "\u05d0\u05d1/USDT", "\U0001f436/USDT",
)  # fmt: skip


@pytest.mark.parametrize("text", [*REAL, "X" * 20 + "/" + "Y" * 10, "X" * 27 + "/USDT"])
def test_a_symbol_of_any_script_and_case_is_taken_as_it_is(text: str) -> None:
    assert parse_symbol(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "BTC", "/", "BTC/", "/USDT", "BTC/USDT\n", "\nBTC/USDT", "BTC/USDT\0", " BTC/USDT", "BTC/USDT/", "BTC//USDT", "BTC /USDT",
        "A  B/USDT", "../USDT", "BTC/..", "../../etc/passwd", "/etc/passwd", "BTC/USDT/../../x", "BTC\\USDT", "BTC/USDT?x=1",
        "BTC/USDT&limit=1", "BTC%2FUSDT", "BTC/USDT#", "-BTC/USDT", "=1+1/USDT", "+1/USDT", "@A/USDT", ".A/USDT",
        "B\u202eTC/USDT", "BTC\u200b/USDT", "BTC\u2066/USDT", "BTC\u200f/USDT", "B\x1b[31mTC/USDT", "BTC\u3164/USDT", "BTC\ufe0f/USDT",
        "BTC\u2800/USDT", "\u0301BTC/USDT", "B\u00a0C/USDT", "B\ud800C/USDT", "B\ue000C/USDT", "<b>/USDT", 'B"C/USDT', "[red]/USDT",
        "a,b/USDT", "a;b/USDT", "a|b/USDT", "a`b/USDT",
        "BTC/USDT:", "BTC/USDT:USDT:USDT", "BTC/USDT:USDT-261225", "BTC:USDT", "BTC/US DT", "BTC/USD-T",
        "X" * 28 + "/USDT", "BTC/USDT:" + "Y" * 24,
    ],
)  # fmt: skip
def test_what_has_a_path_an_address_a_line_or_anything_unseen_in_it_is_none(text: str) -> None:
    with pytest.raises(DataError, match="is not a symbol") as refused:
        parse_symbol(text)
    assert refused.value.message.isprintable()


@pytest.mark.parametrize("symbol", REAL)
def test_the_name_of_a_file_leads_back_to_its_symbol(symbol: str) -> None:
    stem = file_stem(symbol)
    assert "/" not in stem
    assert ":" not in stem
    assert from_stem(stem) == symbol


@pytest.mark.parametrize("stem", ["", "BTC", "-", "-USDT", "BTC-", "..-..", "USDT-USDT-USDT-USDT-"])
def test_a_file_with_an_odd_name_has_no_symbol(stem: str) -> None:
    with pytest.raises(DataError, match="is not a symbol"):
        parse_symbol(from_stem(stem))


def test_a_future_has_three_parts_and_a_spot_pair_has_two() -> None:
    assert split("BTC/USDT") == ("BTC", "USDT", "")
    assert split("BTC/USDT:USDT") == ("BTC", "USDT", "USDT")


@pytest.mark.parametrize(
    ("symbol", "typed"),
    [
        ("BTC/USDT:USDT", ("BTC", "btc", "BTCUSDT", "BTC-USDT", "btc_usdt", "BTC/USDT", "btc/usdt:usdt", "BTC-USDT-USDT", " btc / usdt ")),
        ("kBONK/USDC:USDC", ("kbonk", "KBONK", "kBONK", "KBONK/USDC")),
        ("\u5e01\u5b89\u4eba\u751f/USDT", ("\u5e01\u5b89\u4eba\u751f", "\u5e01\u5b89\u4eba\u751fusdt")),
        ("FTX Users' Debt/USDT", ("ftx users' debt", "FTXUSERS'DEBT")),
        ("BTC/USDT", ("\uff22\uff34\uff23",)),
    ],
)
def test_what_a_person_types_is_one_of_a_symbols_spellings(symbol: str, typed: tuple[str, ...]) -> None:
    for text in typed:
        assert spelling(text) in spellings(symbol), text
