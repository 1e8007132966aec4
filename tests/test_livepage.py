"""The live report: from a real ledger and real candles to one page, judged like the scorecard, and read in a real browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from cryptod.forecast.scores import SCORED_HORIZONS
from cryptod.livepage import run
from cryptod.market import HOUR, MAX_HORIZON
from cryptod.report.markup import fixed, percent
from cryptod.scorecard import scorecard
from cryptod.store.candles import CandleStore
from cryptod.store.environment import open_environment
from cryptod.store.ledger import DATABASES, Ledger
from cryptod.worker.messages import Paged, Report, ReportOrder, ScoreOrder
from tests.outcomes import START, World
from tests.pages import browse, browser, read
from tests.replies import CONDITION, STATUS, batch, job

WEEK = 7 * 24
HOURS = 100


class House:
    """A ledger and candles on disk: ``hours`` hourly forecasts of ``coins`` coins, of which the last day has no outcome yet."""

    def __init__(self, folder: Path, coins: int, hours: int = HOURS) -> None:
        self.ledger, self.candles = folder / "serving", folder / "candles"
        world = World(hours=hours, coins=coins)
        self.symbols, self.last = world.symbols, START + (hours - 1) * HOUR.ms
        with open_environment(self.ledger, databases=DATABASES, writer=True) as environment:
            book = Ledger(environment)
            for hour in range(hours):
                issue = world.issue(hour, flags=(("young",), *[()] * (coins - 1)))
                seq = book.append(issue)
                if hour < hours - MAX_HORIZON:
                    book.put_score(replace(world.score(issue), seq=seq))
            if hours > MAX_HORIZON:  # issued again, with its outcome known: it does not count
                again = replace(world.issue(hours - MAX_HORIZON - 1), issued=self.last)
                book.put_score(replace(world.score(again), seq=book.append(again)))
        times = START + HOUR.ms * np.arange(-96, hours - 1, dtype=np.int64)
        with CandleStore.open(self.candles, writer=True) as store:
            for i, symbol in enumerate(self.symbols):
                close = 100.0 * (1 + 0.01 * np.sin(np.arange(len(times)) / 7 + i))
                store.write(symbol, times, np.repeat(close[:, None], 5, axis=1))

    def order(self, hours: int = WEEK, **status: Any) -> ReportOrder:
        jobs = [job(1, state="done", batches=[batch(1), batch(2, promoted=False, reason="worse than <log_har>")])]
        told = {"status": {**STATUS, **status}, "jobs": jobs, "followed": self.symbols}
        return ReportOrder(
            now=self.last + 60_000, ledger=str(self.ledger), candles=str(self.candles), hours=hours, told=msgpack.packb(told)
        )  # fmt: skip

    def page(self, **order: Any) -> str:
        said: list[Report] = []
        run(self.order(**order), said.append)
        assert isinstance(said[-1], Paged)
        return said[-1].html


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("live"), 6)


@pytest.fixture(scope="module")
def page(house: House, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "live.html"
    path.write_text(house.page(), encoding="utf-8")
    return path


def test_the_page_says_what_is_forecast_and_judges_as_the_scorecard_does(house: House) -> None:
    text = read(house.page())
    card = scorecard(ScoreOrder(now=house.last + 60_000, ledger=str(house.ledger), hours=WEEK), lambda report: None)
    judged = {row["horizon"]: row for row in card["by_horizon"]}
    for horizon in SCORED_HORIZONS:
        row = judged[horizon]
        assert fixed(1e4 * row["crps"], 2) in text
        assert percent(row["references"]["plain"]["skill"]["value"], 2, sign=True) in text
        assert fixed(100 * row["coverage"]["80"]["value"], 1) in text
    for words in ("Forecasts of 6 coins", "Top lists", "Movers", "Skill by horizon", "Skill over time", "PIT histograms", "By coin",
                  "Training history", "worse than <log_har>", "Service", CONDITION["text"], "12,345 hits", "young"):  # fmt: skip
        assert words in text, words


def test_before_any_outcome_is_known_there_are_forecasts_and_no_verdict(tmp_path: Path) -> None:
    text = read(House(tmp_path, 3, hours=5).page(health={"severity": "ok", "conditions": []}))
    assert "No forecast is a day old yet" in text
    assert "no conditions" in text
    assert "Skill by horizon" not in text


def test_a_hundred_coins_and_what_is_not_known_fit_into_three_megabytes(tmp_path: Path) -> None:
    house = House(tmp_path, 100, hours=50)
    page = house.page(hours=30 * 24)
    read(page)
    assert len(page.encode()) < 3_000_000
    assert page.count('class="card"') == 100


@browser
def test_cards_are_searched_and_sorted(page: Path) -> None:
    script = """(() => {
        const names = () => [...document.querySelectorAll('.card')].filter(card => !card.hidden).map(card => card.dataset.name);
        const search = document.getElementById('card-search'), order = document.getElementById('card-sort');
        const type = text => { search.value = text; search.dispatchEvent(new Event('input')); return names(); };
        const sort = key => { order.value = key; order.dispatchEvent(new Event('change')); };
        const all = names(), one = type(all[2].toLowerCase().slice(0, 5)), said = document.getElementById('card-count').textContent;
        type(''); sort('score');
        const scores = [...document.querySelectorAll('.card')].map(card => +card.dataset.score);
        sort('volume');
        return {all, one, said, scores, again: names()};
    })()"""
    found = browse(page, script)
    assert found["one"] == [name for name in found["all"] if name.startswith(found["all"][2][:5])]
    assert found["said"] == f"{len(found['one'])} of 6 coins"
    assert found["scores"] == sorted(found["scores"], reverse=True)
    assert found["again"] == found["all"]


@browser
@pytest.mark.parametrize("width", [500, 1200, 1400])
def test_the_live_page_sticks_out_at_no_width_and_its_top_lists_are_seen_whole(page: Path, width: int) -> None:
    script = """({page: document.documentElement.scrollWidth, window: innerWidth, cards: document.querySelectorAll('.card svg').length,
        cut: [...document.querySelectorAll('#top .scroll')].filter(box => box.scrollWidth > box.clientWidth).length})"""
    found = browse(page, script, f"--window-size={width},900", "--hide-scrollbars")
    assert found["page"] <= found["window"]
    assert found["cut"] == 0
    assert found["cards"] == 6
