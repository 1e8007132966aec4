"""The collector against answers that are short, refused, empty or off the grid, and against a store of an earlier version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from cryptod.ingest import collector
from cryptod.ingest import exchange as asking
from cryptod.ingest.exchange import Refused
from cryptod.market import CANDLE, HOUR, NO_TRADE, NOT_FETCHED, Timeframe
from cryptod.store.candles import CandleStore
from tests.integration.test_collector import COINS, MINUTE, NOW, Hasty, World


class Odd(Hasty):
    """An exchange of which a test says what it gives: ``odd(rows, since)``."""

    asked: ClassVar[list[tuple[str, int]]] = []

    @staticmethod
    def odd(rows: list[list[Any]], since: int) -> list[list[Any]]:
        return rows

    async def candles(self, symbol: str, timeframe: Timeframe, since: int, limit: int) -> list[list[Any]]:
        Odd.asked.append((symbol, since))
        return Odd.odd(await super().candles(symbol, timeframe, since, limit), since)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(collector, "Exchange", Odd)
    monkeypatch.setattr(Odd, "asked", [])
    world = World(tmp_path)
    yield world
    world.close()


def gives(monkeypatch: pytest.MonkeyPatch, odd: Any) -> None:
    monkeypatch.setattr(Odd, "odd", staticmethod(odd))


@pytest.mark.parametrize("page", [100, 200, 500])
def test_an_exchange_that_gives_fewer_rows_than_asked_for_loses_nothing(world: World, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    gives(monkeypatch, lambda rows, since: rows[:page])
    done = world.collect(symbols=world.coins)
    world.assert_true(world.coins)
    assert done.failed == {}
    assert done.requests <= 1 + COINS * -(-730 // page) + 1
    world.later(1)
    assert world.collect(symbols=world.coins).requests == COINS + 1
    world.assert_true(world.coins)


def old_rules(world: World, page: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store as earlier versions made it: what a short answer did not hold had no trades, for good."""
    world.collect(symbols=world.coins)
    with CandleStore.open(world.path, writer=True) as store:
        panel = store.panel(world.coins, NOW - 730 * HOUR.ms, NOW)
        for column, symbol in enumerate(world.coins):
            store.drop(symbol)
            keep, lost = panel.open_times[:page], panel.open_times[page:-24]
            store.write(symbol, np.concatenate((keep, panel.open_times[-24:])), panel.values[[*range(page), *range(-24, 0)], column])
            store.mark_no_trade(symbol, lost)
        store.set_facts("listed", {world.coins[0]: [NOW - 730 * HOUR.ms, NOW - 700 * HOUR.ms]})
        store.set_facts("rules", {})
        store.set_facts("paging", {})
    assert (world.panel(world.coins).status == NO_TRADE).sum() == COINS * (730 - page - 24)


def test_a_store_with_false_hours_of_an_earlier_version_is_made_true_at_the_next_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old_rules(world, 100, monkeypatch)
    gives(monkeypatch, lambda rows, since: rows[:100])
    world.later(1)
    done = world.collect(symbols=world.coins)
    world.assert_true(world.coins)
    assert done.requests <= 1 + COINS * 9
    world.later(1)
    assert world.collect(symbols=world.coins).requests == COINS + 1, "it is checked once"


def test_true_hours_without_trades_of_an_earlier_version_are_found_true_again(world: World) -> None:
    world.faults(world_halt := asking_halt(world))
    world.collect(symbols=world.coins)
    before = world.panel(world.coins)
    assert (before.status == NO_TRADE).sum() == 40
    with CandleStore.open(world.path, writer=True) as store:
        store.set_facts("rules", {})
    world.later(1)
    done = world.collect(symbols=world.coins)
    world.assert_true(world.coins)
    assert done.requests <= COINS + 1 + 2, world_halt


def asking_halt(world: World) -> Any:
    from cryptod.simulator.faults import Fault

    return Fault("halted", symbols=world.coins[:1], start=NOW - 400 * HOUR.ms, end=NOW - 360 * HOUR.ms)


def test_a_window_that_is_refused_as_too_old_is_passed_over_to_the_hour(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    oldest = NOW - 300 * HOUR.ms

    def refuses(rows: list[list[Any]], since: int) -> list[list[Any]]:
        if since < oldest:
            raise Refused("gate was asked for candles and refused: Candlestick too long ago")
        return rows[:100]

    gives(monkeypatch, refuses)
    done = world.collect(symbols=world.coins)
    assert done.failed == {}
    for _ in range(3):
        world.collect(symbols=world.coins)
    status = world.panel(world.coins).status
    assert (status[-300:] == CANDLE).all()
    assert (status[:-300] == NOT_FETCHED).all()
    Odd.asked.clear()
    world.later(1)
    done = world.collect(symbols=world.coins)
    assert (done.failed, done.requests) == ({}, COINS + 1), "it is not asked beyond it again"


def test_an_exchange_that_refuses_everything_fails_with_its_words(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(rows: list[list[Any]], since: int) -> list[list[Any]]:
        raise Refused("binance was asked for candles and refused: no")

    gives(monkeypatch, refuses)
    done = world.collect(symbols=world.coins)
    assert set(done.failed.values()) == {"binance was asked for candles and refused: no"}
    assert done.left_out == {}


def test_answers_that_are_empty_by_mistake_make_no_hour_without_trades(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.begin()
    gives(monkeypatch, lambda rows, since: [])
    for _ in range(3):
        world.later(5)
        world.collect(symbols=world.coins)
        assert (world.panel(world.coins).status == NO_TRADE).sum() == 0
    monkeypatch.undo()
    monkeypatch.setattr(collector, "Exchange", Hasty)
    world.later(1)
    world.collect(symbols=world.coins)
    world.assert_true(world.coins)


def test_a_newest_candle_off_the_grid_is_named_and_its_hour_stays_unknown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.begin()
    newest = NOW  # the hour that closes next

    def shifted(rows: list[list[Any]], since: int) -> list[list[Any]]:
        return [[row[0] + (1_695_000 if row[0] == newest else 0), *row[1:]] for row in rows]

    gives(monkeypatch, shifted)
    world.later(1)
    world.clock.time += 30 * MINUTE
    done = world.collect(symbols=world.coins)
    assert (world.panel(world.coins).status[-1] == NOT_FETCHED).all()
    assert set(done.failed.values()) == {"a candle was refused: a candle off the grid (2023-11-14 22:00)"}
    assert done.skew_ms == 0
    gives(monkeypatch, lambda rows, since: rows)
    world.collect(symbols=world.coins)
    world.assert_true(world.coins)


def test_rows_without_prices_are_hours_without_trades_and_asked_for_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet = {NOW - hour * HOUR.ms for hour in range(100, 110)}
    gives(monkeypatch, lambda rows, since: [[row[0], *4 * [None], 0] if row[0] in quiet else row for row in rows])
    done = world.collect(symbols=world.coins)
    assert (done.failed, done.requests) == ({}, COINS + 2)  # its time, its markets, a question a coin
    status = world.panel(world.coins).status
    assert (status[-109:-99] == NO_TRADE).all()
    assert (status == NO_TRADE).sum() == 10 * COINS


def test_hours_that_stay_unknown_are_asked_for_ever_more_rarely(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = NOW - 200 * HOUR.ms
    gives(monkeypatch, lambda rows, since: [[row[0], -1.0, *row[2:]] if row[0] == bad else row for row in rows])
    world.begin()
    asked = []
    for _ in range(40):
        world.later(1)
        before = len(Odd.asked)
        world.collect(symbols=world.coins)
        asked.append(len(Odd.asked) - before - COINS)
    assert sum(extra > 0 for extra in asked) <= 6
    assert asked[-5:] == [0] * 5 or sum(asked[-16:]) <= asked[0] + COINS * 4
    assert (world.panel(world.coins, 400).status == NOT_FETCHED).sum() == COINS
    gives(monkeypatch, lambda rows, since: rows)
    for _ in range(70):
        world.later(1)
    world.collect(symbols=world.coins)
    assert (world.panel(world.coins).status == CANDLE).all()
