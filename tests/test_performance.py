"""How figures become the documents' tables: what is shown, what is left alone, and that both documents have a place for them."""

from __future__ import annotations

import pytest

from tests.bench.figures import ROOT, Figure, beside
from tests.bench.performance import BEGIN, END, long_table, replaced, short_table


def test_a_figure_is_shown_with_its_target_and_whether_it_is_met() -> None:
    found = {"memory": {"figures": {"idle": Figure("idle", 81.0, "MB", 80.0, "lower").described()}}}
    assert list(short_table(found))[2:] == [
        "| memory at rest, 100 coins, all processes (PSS) | 81 MB |  | at most 80 MB | **not met** |",
    ]


def test_what_has_a_peer_is_judged_by_its_ratio() -> None:
    figure = beside("get_client_p50_one_core", 45.0, "us", 1.0, "lower", 60.0).described()
    (row,) = list(short_table({"serving": {"figures": {"get_client_p50_one_core": figure}}}))[2:]
    assert row == "| `Client.get`, p50, on one processor | 45 us | 0.75 x redis-py + hiredis + msgpack (60 us) | at most 1 x | met |"
    assert list(long_table({"get_client_p50_one_core": figure}))[2:] == [
        "| get_client_p50_one_core | 45 us | 60 us | 0.75 | at most 1 x | met |"
    ]


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    document = f"before\n{BEGIN}old\n{END}after\n"
    assert replaced(document, ["new"]) == f"before\n{BEGIN}\nnew\n\n{END}after\n"
    with pytest.raises(SystemExit, match="no place for figures"):
        replaced("nothing\n", ["new"])


@pytest.mark.parametrize("path", ["README.md", "docs/performance.md"])
def test_the_documents_have_a_place_for_figures(path: str) -> None:
    text = (ROOT / path).read_text()
    assert replaced(text, []) != text
