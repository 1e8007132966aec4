"""Scorecards as the daemon hands them out: one child at a time, one for all who ask the same, kept until there is a newer score."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cryptod.daemon.scorecards import KEPT, Scorecards
from cryptod.errors import RequestError, WorkerError
from cryptod.store.environment import open_environment
from cryptod.store.ledger import DATABASES, Ledger
from cryptod.worker.messages import Failed, Order, Report, Scored, ScoreOrder
from tests.outcomes import START, World

NOW = START + 1


class Child:
    """A pool whose child answers when it is let, with the number of its turn."""

    def __init__(self) -> None:
        self.orders: list[ScoreOrder] = []
        self.running = self.most = 0
        self.stopping = False
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.answer: Callable[[], Report] | None = None

    async def run(self, order: Order, *, on_report: Callable[[Report], None], deadline_s: float, silence_s: float) -> Report:
        assert isinstance(order, ScoreOrder)
        self.orders.append(order)
        turn = len(self.orders)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0)
            await self.may_end.wait()
        finally:
            self.running -= 1
        if self.answer is not None:
            return self.answer()
        return Scored(job=0, forecasts=turn, issued=True, card=b"%d" % turn, seconds=0.1, peak_rss=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_environment(tmp_path / "serving", databases=DATABASES, writer=True) as environment:
        yield Ledger(environment)


@pytest.fixture
async def child() -> Child:
    return Child()


@pytest.fixture
async def cards(child: Child, ledger: Ledger) -> Scorecards:
    return Scorecards(child, ledger, Path("/state/serving"), lambda: NOW)  # type: ignore[arg-type]  # a fake of the pool


def score(ledger: Ledger, hour: int) -> None:
    world = World(hours=30, coins=2)
    issue = world.issue(hour)
    assert ledger.put_score(replace(world.score(issue), seq=ledger.append(issue)))


async def test_the_order_says_what_was_asked(cards: Scorecards, child: Child) -> None:
    await cards.get("BTC/USDT", "7d")
    await cards.get("", "90d")
    assert child.orders == [
        ScoreOrder(now=NOW, ledger="/state/serving", hours=168, symbol="BTC/USDT"),
        ScoreOrder(now=NOW, ledger="/state/serving", hours=2160, symbol=""),
    ]


async def test_a_card_is_kept_until_there_is_a_newer_score(cards: Scorecards, child: Child, ledger: Ledger) -> None:
    score(ledger, 0)
    first = await cards.get("", "30d")
    assert await cards.get("", "30d") is first
    assert (await cards.get("", "7d")).card == b"2"
    score(ledger, 1)
    assert (await cards.get("", "30d")).card == b"3"
    assert (await cards.get("", "30d")).card == b"3"
    assert len(child.orders) == 3


async def test_a_score_that_comes_while_it_is_made_makes_it_old(cards: Scorecards, child: Child, ledger: Ledger) -> None:
    child.may_end.clear()
    asked = asyncio.create_task(cards.get("", "30d"))
    await asyncio.sleep(0.01)
    score(ledger, 0)
    child.may_end.set()
    assert (await asked).card == b"1"
    assert (await cards.get("", "30d")).card == b"2"


async def test_all_who_ask_the_same_wait_for_one_child_and_others_wait_their_turn(cards: Scorecards, child: Child) -> None:
    child.may_end.clear()
    same = [asyncio.create_task(cards.get("", "30d")) for _ in range(20)]
    others = [asyncio.create_task(cards.get(symbol, "7d")) for symbol in ("A/USDT", "B/USDT")]
    await asyncio.sleep(0.01)
    assert len(child.orders) == 1
    child.may_end.set()
    assert {(await task).card for task in same} == {b"1"}
    assert [(await task).card for task in others] == [b"2", b"3"]
    assert child.most == 1


async def test_one_who_goes_away_does_not_take_the_others_answer_along(cards: Scorecards, child: Child) -> None:
    child.may_end.clear()
    leaver, stayer = (asyncio.create_task(cards.get("", "30d")) for _ in range(2))
    await asyncio.sleep(0.01)
    leaver.cancel()
    await asyncio.sleep(0.01)
    child.may_end.set()
    assert (await stayer).card == b"1"


async def test_that_there_is_nothing_yet_is_not_kept(cards: Scorecards, child: Child) -> None:
    child.answer = lambda: Scored(job=0, forecasts=0, issued=False, card=b"", seconds=0.1, peak_rss=1)
    for _ in range(3):
        await cards.get("", "30d")
    assert len(child.orders) == 3


async def test_no_more_than_so_many_are_kept_and_the_latest_stay(cards: Scorecards, child: Child) -> None:
    for number in range(KEPT + 3):
        await cards.get(f"C{number}/USDT", "7d")
    made = len(child.orders)
    await cards.get(f"C{KEPT + 2}/USDT", "7d")
    assert len(child.orders) == made
    await cards.get("C0/USDT", "7d")
    assert len(child.orders) == made + 1


@pytest.mark.parametrize(("given", "code"), [("store", "store"), ("exchange", "internal"), ("", "internal")])
async def test_what_the_child_cannot_do_is_refused_with_its_reason(cards: Scorecards, child: Child, given: str, code: str) -> None:
    child.answer = lambda: Failed(job=0, error="the ledger is damaged", hint="move it away", code=given)
    with pytest.raises(RequestError, match="the ledger is damaged") as caught:
        await cards.get("", "30d")
    assert (caught.value.code, caught.value.hint) == (code, "move it away")
    child.answer = None
    assert (await cards.get("", "30d")).card == b"2", "the next one has another chance"


async def test_a_child_that_died_is_an_error_of_its_own_and_one_of_a_daemon_that_stops_may_be_asked_again(
    cards: Scorecards, child: Child
) -> None:
    def die() -> Any:
        raise WorkerError("the score child was killed (SIGKILL)")

    child.answer = die
    with pytest.raises(WorkerError, match="was killed"):
        await cards.get("", "30d")
    child.stopping = True
    with pytest.raises(RequestError) as caught:
        await cards.get("", "30d")
    assert caught.value.code == "shutting_down"
