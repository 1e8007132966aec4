"""The scorecard of a real ledger: what counts and what does not; and the child that makes it, beside a writer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from cryptod.errors import StoreError
from cryptod.forecast.judgement import card
from cryptod.market import HOUR, MAX_HORIZON
from cryptod.scorecard import run, scorecard
from cryptod.store.environment import Environment, open_environment
from cryptod.store.ledger import DATABASES, Ledger
from cryptod.worker.messages import Failed, Progress, Report, Scored, ScoreOrder
from cryptod.worker.pool import Pool
from tests import outcomes
from tests.outcomes import START, World

WEEK = 7 * 24
HOURS = 30
NOW = START + (HOURS - 1 + MAX_HORIZON) * HOUR.ms + 60_000
"""The last of so many hourly forecasts has just matured."""


class Book:
    """A ledger that is open for writing, or for the scorecard: not for both in one process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: Environment | None = None

    @property
    def environment(self) -> Environment:
        if self._open is None:
            self._open = open_environment(self.path, databases=DATABASES, writer=True)
        return self._open

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.environment)

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def keep(self, world: World, hour: int, symbols: tuple[str, ...] = (), *, scored: bool = True, **changes: Any) -> int:
        """An issue with its score; of some of the coins, if they are named."""
        issue = world.issue(hour, **changes)
        score = world.score(issue)
        if symbols:
            issue, score = issue.coins(symbols), score.coins(symbols)
        seq = self.ledger.append(issue)
        if scored:
            self.ledger.put_score(replace(score, seq=seq))
        return seq

    def order(self, *, now: int = NOW, hours: int = WEEK, symbol: str = "") -> ScoreOrder:
        return ScoreOrder(now=now, ledger=str(self.path), hours=hours, symbol=symbol)

    def ask(self, **changes: Any) -> dict[str, Any]:
        self.close()
        return scorecard(self.order(**changes), lambda report: None)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "serving")
    yield book
    book.close()


@pytest.fixture
def world() -> World:
    return World(hours=HOURS, coins=4)


# What counts


def test_a_ledgers_scorecard_is_the_tallys(book: Book, world: World) -> None:
    for hour in range(HOURS):
        book.keep(world, hour)
    found = book.ask()
    assert (found["forecasts"], found["coins"], found["hours"]) == (4 * HOURS, 4, HOURS)
    assert (found["from"], found["to"]) == (START, START + (HOURS - 1) * HOUR.ms)
    assert (found["again"], found["after"], found["unknown"], found["waiting"], found["first_due"]) == (0, 0, 0, 0, None)
    assert (found["symbol"], found["window_hours"]) == (None, WEEK)
    assert found.keys() == outcomes.scorecard(hours=2, coins=2).keys(), "what the pages are tested with has the shape of a real one"
    plain = card(World(hours=HOURS, coins=4).tally())
    assert found["pooled"]["crps"] == pytest.approx(plain["pooled"]["crps"], rel=1e-3), "losses are kept to 0.05 %"
    assert found["pooled"]["coverage"]["80"]["value"] == pytest.approx(plain["pooled"]["coverage"]["80"]["value"], abs=2e-3)
    assert [row["horizon"] for row in found["by_horizon"]] == list(range(1, 25))


def test_a_window_has_the_forecasts_whose_outcome_became_known_in_it(book: Book) -> None:
    world = World(hours=200, coins=1)
    for hour in range(200):
        book.keep(world, hour)
    now = START + (199 + MAX_HORIZON) * HOUR.ms
    found = book.ask(now=now)
    assert (found["hours"], found["from"], found["to"]) == (WEEK, START + 32 * HOUR.ms, START + 199 * HOUR.ms)
    almost = book.ask(now=now - 1)
    assert (almost["from"], almost["to"]) == (START + 31 * HOUR.ms, START + 198 * HOUR.ms)
    assert book.ask(now=now, hours=30 * 24)["hours"] == 200
    assert book.ask(now=now + 1000 * HOUR.ms)["forecasts"] == 0


def test_of_a_coins_forecasts_of_one_hour_the_first_counts(book: Book, world: World) -> None:
    for hour in range(HOURS):
        book.keep(world, hour)
    before = book.ask()
    for hour in range(HOURS):
        book.keep(World(hours=HOURS, coins=4, width=0.2), hour, issued=START + hour * HOUR.ms + 900_000)
    after = book.ask()
    assert after["again"] == 4 * HOURS
    assert {**after, "again": 0} == before


def test_coins_that_come_in_late_join_the_others_of_their_hour(book: Book, world: World) -> None:
    together = World(hours=HOURS, coins=4)
    for hour in range(HOURS):
        book.keep(together, hour, world.symbols[:3])
        book.keep(together, hour, world.symbols)
    found = book.ask()
    assert (found["forecasts"], found["again"]) == (4 * HOURS, 3 * HOURS)
    assert {coin["symbol"]: coin["hours"] for coin in found["by_coin"]} == dict.fromkeys(world.symbols, HOURS)


def test_what_was_known_when_it_was_said_is_no_forecast(book: Book, world: World) -> None:
    """After a pause of the daemon a forecast is made from an old hour's candles, while the next hours have long been history."""
    for hour in range(HOURS):
        book.keep(world, hour, issued=START + (hour + 3) * HOUR.ms)
    found = book.ask()
    assert [row["outcomes"] for row in found["by_horizon"]] == [0, 0, 0, *[4 * HOURS] * 21]
    assert found["after"] == 3 * 4 * HOURS
    book.keep(World(hours=HOURS, coins=4), 0, issued=START + 100 * HOUR.ms, symbols=world.symbols[:1])
    assert book.ask()["after"] == found["after"], "of an hour that was spoken of already, it counts nowhere"


def test_outcomes_that_never_became_known_are_said_to_be_missing(book: Book, world: World) -> None:
    for hour in range(HOURS):
        issue = world.issue(hour)
        score = world.score(issue)
        score.outcome[1, 20:] = score.loss[:, 1, 20:] = np.nan
        book.ledger.put_score(replace(score, seq=book.ledger.append(issue)))
    found = book.ask()
    assert found["unknown"] == 4 * HOURS
    assert (found["by_horizon"][19]["outcomes"], found["by_horizon"][20]["outcomes"]) == (4 * HOURS, 3 * HOURS)


def test_one_coins_card_is_made_of_its_own_forecasts(book: Book, world: World) -> None:
    for hour in range(HOURS):
        book.keep(world, hour, world.symbols if hour % 2 else world.symbols[:2])
    everyone, alone = book.ask(), book.ask(symbol="C3/USDT")
    assert (alone["symbol"], alone["forecasts"], alone["coins"], alone["hours"]) == ("C3/USDT", HOURS // 2, 1, HOURS // 2)
    (own,) = (coin for coin in everyone["by_coin"] if coin["symbol"] == "C3/USDT")
    assert own["crps"] == pytest.approx(alone["pooled"]["crps"], rel=1e-5)
    assert alone["pooled"]["direction"]["rank_correlation"] is None
    assert alone["worst"] == {}


def test_damaged_records_are_passed_over(book: Book, world: World) -> None:
    for hour in range(6):
        book.keep(world, hour)
    for database, place in (("issues", 1), ("scores", 3)):
        with book.environment.read() as txn:
            key, record = list(txn.scan(database))[place]

        def damage(txn: Any, database: str = database, key: bytes = key, record: bytes = record) -> None:
            txn.put(database, key, record[:-1] + bytes((record[-1] ^ 1,)))

        book.environment.write(damage)
    assert book.ask()["forecasts"] == 4 * 4


# Nothing yet


def test_when_nothing_has_matured_the_first_score_is_announced(book: Book, world: World) -> None:
    now = START + 10 * HOUR.ms
    assert book.ledger.last() is None
    nothing = book.ask(now=now)
    assert nothing.keys() == outcomes.NO_SCORES.keys()
    assert (nothing["forecasts"], nothing["first_due"], nothing["waiting"], nothing["from"]) == (0, None, 0, None)
    for hour in range(3, 6):
        book.keep(world, hour, world.symbols if hour > 3 else world.symbols[:2], scored=False)
    soon = book.ask(now=now)
    assert (soon["forecasts"], soon["waiting"], soon["first_due"]) == (0, 3, START + (3 + MAX_HORIZON) * HOUR.ms)
    assert book.ask(now=now, symbol="C3/USDT")["first_due"] == START + (4 + MAX_HORIZON) * HOUR.ms
    assert book.ask(now=now, symbol="NONE/USDT")["first_due"] is None


def test_without_a_ledger_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        scorecard(ScoreOrder(now=NOW, ledger=str(tmp_path / "nowhere"), hours=WEEK), lambda report: None)


# The child


def test_it_reports_each_day_and_then_the_card_as_the_wire_has_it(book: Book, world: World) -> None:
    for hour in range(HOURS):
        book.keep(world, hour)
    heard: list[Report] = []
    book.close()
    run(book.order(), heard.append)
    *beats, last = heard
    assert [(beat.done, beat.total) for beat in beats if isinstance(beat, Progress)] == [(day, 7) for day in range(1, 8)]
    assert isinstance(last, Scored)
    assert (last.forecasts, last.issued) == (4 * HOURS, True)
    assert msgpack.unpackb(last.card) == book.ask()


async def test_a_child_makes_it_while_the_ledger_is_written(book: Book, world: World, tmp_path: Path) -> None:
    for hour in range(HOURS):
        book.keep(world, hour)
    pool = Pool(memory_mb=300, directory=str(tmp_path / "run"))
    try:
        heard: list[Report] = []

        def hear(report: Report) -> None:
            heard.append(report)
            book.ledger.append(world.issue(HOURS - 1))  # the writer goes on, and its map is the child's

        found = await pool.run(book.order(), on_report=hear, deadline_s=60, silence_s=30)
        assert isinstance(found, Scored), found
        assert found.forecasts == 4 * HOURS
        assert msgpack.unpackb(found.card)["pooled"] == book.ask()["pooled"]
        assert pool.children == [], "its memory goes back"
        missing = await pool.run(ScoreOrder(now=NOW, ledger=str(tmp_path / "no"), hours=WEEK), on_report=hear, deadline_s=60, silence_s=30)
        assert isinstance(missing, Failed)
        assert (missing.code, "there is no store" in missing.error) == ("store", True)
    finally:
        await pool.stop()


def test_memory_does_not_grow_with_the_window(book: Book) -> None:
    """A week of forecasts of 60 coins is 20 MB of arrays, of which one hour's are held at a time."""
    import tracemalloc

    world = World(hours=WEEK, coins=60)
    issue = world.issue(0)
    score = world.score(issue)
    for hour in range(WEEK):
        at = START + hour * HOUR.ms
        seq = book.ledger.append(replace(issue, cutoff=at, issued=at + 5_000))
        book.ledger.put_score(replace(score, cutoff=at, seq=seq))
    peaks = []
    for days in (1, 7):
        tracemalloc.start()
        now = START + (24 * days - 1 + MAX_HORIZON) * HOUR.ms
        assert book.ask(now=now, hours=24 * 7)["hours"] == 24 * days
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (6 << 20), peaks
