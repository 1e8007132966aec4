"""What is said of an exchange before it is asked: refused with the reason, not tried, or nothing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from cryptod.__main__ import main
from cryptod.errors import ConfigError, ExchangeError
from cryptod.ingest.exchange import Exchange
from cryptod.ingest.tried import TRIED, check
from tests.exchanges.shapes import SHAPES
from tests.exchanges.table import table

DOCS = Path(__file__).parent.parent / "docs"
PACKAGE = importlib.util.find_spec("ccxt")
assert PACKAGE is not None
assert PACKAGE.submodule_search_locations
KNOWN = sorted(file.stem for file in Path(PACKAGE.submodule_search_locations[0], "async_support").glob("*.py"))


def test_the_exchanges_that_were_tried_are_those_of_the_tests() -> None:
    for market, names in TRIED.items():
        assert names == {shape.id for shape in SHAPES if shape.market == market}
    assert len(TRIED["spot"]) >= 30


def test_the_table_in_the_documents_is_what_was_tried() -> None:
    page = (DOCS / "exchanges.md").read_text()
    found = re.search(r"<!-- table -->\n(.*?)<!-- end -->", page, re.DOTALL)
    assert found is not None
    assert found[1] == table(SHAPES), "write docs/exchanges.md anew: python -m tests.exchanges"


def test_what_is_refused_and_what_was_not_tried_is_named_in_the_documents() -> None:
    page = (DOCS / "exchanges.md").read_text()
    refused, untried = [], []
    for name in KNOWN:
        if name == "__init__" or name in TRIED["spot"]:
            continue
        try:
            warnings = check(name, "spot")
        except ConfigError:
            refused.append(name)
        else:
            assert len(warnings) == 1
            untried.append(name)
    assert f"**Refused**: {', '.join(refused)}." in page
    assert f"**Not tried**: {', '.join(untried)}." in page


@pytest.mark.parametrize("name", sorted(TRIED["spot"]))
def test_an_exchange_that_was_tried_is_not_warned_of(name: str) -> None:
    assert check(name, "spot") == ()


def test_an_exchange_that_was_not_tried_gives_a_warning() -> None:
    assert check("deribit", "spot") == ("exchange.id: deribit was not tried; docs/exchanges.md lists the exchanges that were",)


@pytest.mark.parametrize(
    ("name", "reason", "hint"),
    [
        ("alpaca", "wants a key", "cryptod uses no keys"),
        ("luno", "wants a key before it gives candles", "cryptod uses no keys"),
        ("cex", 'requires a parameter "dataType"', "choose another exchange"),
        ("zebpay", "requires a both a since and until", "choose another exchange"),
        ("krakenfutures", "has no spot markets", "choose another exchange"),
        ("binanceusdm", "has no spot markets", "choose another exchange"),
        ("binnance", "no exchange 'binnance'", "did you mean binance?"),
        ("coinbasepro", "no exchange", "did you mean coinbase?"),
        ("qqqqqqqq", "no exchange", "such as binance or kraken"),
    ],
)
def test_an_exchange_that_cannot_be_followed_is_refused_with_the_reason(name: str, reason: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(name, "spot")
    assert caught.value.message.startswith("exchange.id: ")
    assert reason in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize("name", ["krakenfutures", "kucoinfutures", "dydx", "paradex", "woofipro"])
def test_an_id_for_futures_alone_is_never_taken_for_spot(name: str) -> None:
    with pytest.raises(ExchangeError, match=f"{name} has no spot markets"):
        Exchange(name)


def test_check_config_warns_refuses_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cryptod.toml"
    monkeypatch.setenv("CRYPTOD_CONFIG", str(file))
    file.write_text('[exchange]\nid = "deribit"\n')
    file.chmod(0o644)
    assert main(["check-config"]) == 0
    assert "# warning: exchange.id: deribit was not tried" in capsys.readouterr().out
    file.write_text('[exchange]\nid = "alpaca"\n')
    assert main(["check-config"]) == 78
    assert "alpaca wants a key" in capsys.readouterr().err
