"""The collect lane, with a pool that plays the child: when it is due, what it keeps, how it backs off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cryptod.config import Config
from cryptod.daemon.collection import REMOVED, RETRY_FIRST, RETRY_MOST, SETTLE_MS, Collection
from cryptod.errors import RequestError, WorkerError
from cryptod.settings import Exchange, Universe
from cryptod.worker.messages import CollectDone, CollectOrder, Failed, Progress, Report

HOUR = 3_600_000
NOW = 1_685_620_800_000 + 10_000
BOUNDARY = 1_685_620_800_000


class FakeJobs:
    def __init__(self) -> None:
        self.records: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        return self.records.get(name)

    def set(self, name: str, value: Any) -> None:
        self.records[name] = value


class FakePool:
    def __init__(self) -> None:
        self.orders: list[CollectOrder] = []
        self.reply: Report | WorkerError = collected()
        self.meanwhile: Callable[[Callable[[Report], None]], None] = lambda on_report: None
        """What the child reports before its reply."""

    async def run(self, order: CollectOrder, *, on_report: Callable[[Report], None], deadline_s: float, silence_s: float) -> Report:
        self.orders.append(order)
        await asyncio.sleep(0)
        self.meanwhile(on_report)
        if isinstance(self.reply, WorkerError):
            raise self.reply
        return self.reply


def collected(failed: dict[str, str] | None = None, *, to: int = 1 << 60, skew_ms: int = 0) -> CollectDone:
    return CollectDone(
        job=0, symbols=("BTC/USDT", "ETH/USDT"), left_out={"USDC/USDT": "a stablecoin"}, failed=failed or {}, new_candles=2,
        revised_candles=0, requests=2, seconds=0.1, collected_to=to, skew_ms=skew_ms,
    )  # fmt: skip


class House:
    def __init__(self, jobs: FakeJobs | None = None, pace: float = 1.0, config: Config | None = None) -> None:
        self.jobs, self.pool, self.seconds = jobs or FakeJobs(), FakePool(), 1000.0
        self.lane = Collection(config or Config(), "candles", self.pool, self.jobs, lambda: self.seconds, pace)  # type: ignore[arg-type]

    def run(self, now: int = NOW) -> bool:
        return asyncio.run(self.lane.run(now))


def test_the_first_collection_chooses_the_universe_and_later_ones_follow_it() -> None:
    house = House()
    assert house.lane.due(NOW)
    assert house.run()
    assert house.pool.orders[0].select_universe
    assert house.lane.followed == ("BTC/USDT", "ETH/USDT")
    assert not house.lane.due(NOW)
    assert house.lane.due(NOW + HOUR)
    house.run(NOW + HOUR)
    assert not house.pool.orders[1].select_universe
    assert house.pool.orders[1].symbols == ("BTC/USDT", "ETH/USDT")


def test_a_candle_gets_a_moment_to_be_published() -> None:
    house = House()
    house.run(BOUNDARY + SETTLE_MS)
    assert house.lane.collected_to == BOUNDARY
    assert not house.lane.due(BOUNDARY + HOUR + SETTLE_MS - 1)
    assert house.lane.due(BOUNDARY + HOUR + SETTLE_MS)


def test_what_was_collected_is_known_after_a_restart() -> None:
    jobs = FakeJobs()
    House(jobs).run()
    again = House(jobs)
    assert again.lane.followed == ("BTC/USDT", "ETH/USDT")
    assert again.lane.left_out == {"USDC/USDT": "a stablecoin"}
    assert not again.lane.due(NOW)


@pytest.mark.parametrize("other", [{"id": "kraken"}, {"quote": "EUR"}])
def test_another_market_in_the_configuration_is_chosen_from_anew(other: dict[str, str]) -> None:
    jobs = FakeJobs()
    House(jobs).run()
    config = msgspec.structs.replace(Config(), exchange=msgspec.structs.replace(Config().exchange, **other))
    moved = House(jobs, config=config)
    assert moved.lane.followed == ()
    assert moved.lane.due(NOW)
    moved.run()
    assert moved.pool.orders[0].select_universe
    assert House(jobs, config=config).lane.followed == ("BTC/USDT", "ETH/USDT")


def test_an_unreachable_exchange_is_asked_again_at_growing_intervals_of_real_time() -> None:
    house = House()
    house.pool.reply = Failed(job=0, error="connection refused")
    waits = []
    for _ in range(9):
        assert house.lane.due(NOW)
        assert not house.run()
        assert not house.lane.due(NOW + 100 * HOUR)
        waits.append(house.lane.retry_in)
        house.seconds += house.lane.retry_in
    assert waits[:3] == [RETRY_FIRST, 2 * RETRY_FIRST, 4 * RETRY_FIRST]
    assert waits[-1] == RETRY_MOST
    assert house.lane.error == "connection refused"
    house.pool.reply = collected()
    assert house.run()
    assert house.lane.error == ""
    assert house.lane.retry_in == 0


def test_an_exchange_that_is_down_for_weeks_is_still_asked_every_ten_minutes() -> None:
    house = House()
    house.pool.reply = Failed(job=0, error="connection refused")

    async def weeks() -> None:
        for _ in range(1100):  # at the 1,025th the doubled wait was once too large a number, and then there was no wait at all
            await house.lane.run(NOW)

    asyncio.run(weeks())
    assert house.lane.retry_in == RETRY_MOST
    assert not house.lane.due(NOW + HOUR)


def test_beside_a_clock_that_runs_fast_the_waits_grow_to_ten_minutes_of_its_own() -> None:
    house = House(pace=30.0)
    house.pool.reply = Failed(job=0, error="connection refused")
    waits = []
    for _ in range(4):
        house.run()
        waits.append(house.lane.retry_in)
    assert waits == [RETRY_FIRST, 2 * RETRY_FIRST, RETRY_MOST / 30, RETRY_MOST / 30]


def test_the_exchanges_own_retry_after_is_honoured() -> None:
    house = House()
    house.pool.reply = Failed(job=0, error="banned", retry_after=3000.0)
    house.run()
    assert house.lane.retry_in == 3000.0


def test_one_coin_that_fails_is_tried_again_and_does_not_stop_the_others() -> None:
    house = House()
    house.pool.reply = collected(failed={"ETH/USDT": "timed out"})
    assert house.run()
    assert house.lane.error == ""
    assert house.lane.collected_to == BOUNDARY
    assert not house.lane.due(NOW)
    assert house.lane.due(NOW + HOUR), "the next candle of the others does not wait for the coin that failed"
    house.seconds += RETRY_FIRST
    assert house.lane.due(NOW)


def test_a_full_disk_is_not_said_to_be_the_exchanges_fault() -> None:
    house = House()
    house.pool.reply = Failed(job=0, error="the disk is full", code="store")
    assert not house.run()
    assert (house.lane.store_error, house.lane.exchange_error) == ("the disk is full", "")
    house.seconds += house.lane.retry_in
    house.pool.reply = Failed(job=0, error="connection refused", code="exchange")
    house.run()
    assert (house.lane.store_error, house.lane.exchange_error) == ("", "connection refused")
    house.pool.reply = collected()
    house.run()
    assert (house.lane.store_error, house.lane.exchange_error) == ("", "")


def test_a_child_that_dies_is_a_failed_collection() -> None:
    house = House()
    house.pool.reply = WorkerError("killed by signal 9")
    assert not house.run()
    assert house.lane.error == "killed by signal 9"
    assert house.lane.attempted_to == BOUNDARY


def test_a_new_selection_that_fails_keeps_the_universe_there_was() -> None:
    house = House()
    house.run()
    house.lane.ask_for_selection()
    assert house.lane.due(NOW)
    house.pool.reply = Failed(job=0, error="down")
    house.run()
    assert house.lane.followed == ("BTC/USDT", "ETH/USDT")
    assert not house.lane.wants_selection


def chosen(*symbols: str, left_out: dict[str, str] | None = None) -> CollectDone:
    return msgspec.structs.replace(collected(), symbols=symbols, left_out=left_out or {})


def test_a_coin_that_was_added_is_asked_for_at_once_and_beyond_the_size_of_the_universe() -> None:
    house = House()
    house.run()
    assert house.lane.add("DOGE/USDT")
    assert house.lane.unmet == ("DOGE/USDT",)
    assert house.lane.due(NOW)
    house.pool.reply = chosen("BTC/USDT", "ETH/USDT", "DOGE/USDT")
    house.run()
    order = house.pool.orders[-1]
    assert (order.select_universe, order.include, order.size) == (True, ("DOGE/USDT",), Config().universe.size + 1)
    assert house.lane.followed[-1] == "DOGE/USDT"
    assert not house.lane.due(NOW)
    assert not house.lane.add("DOGE/USDT"), "it is followed already"
    again = House(house.jobs)
    assert again.lane.followed[-1] == "DOGE/USDT"
    again.run(NOW + HOUR)
    assert again.pool.orders[-1].include == ("DOGE/USDT",)


def test_a_coin_that_was_added_goes_on_under_the_exchanges_own_spelling() -> None:
    house = House()
    house.run()
    assert house.lane.add(house.lane.meant("kbonk"))
    assert house.lane.unmet == ("KBONK/USDT",)
    house.pool.reply = msgspec.structs.replace(collected(), symbols=("BTC/USDT", "kBONK/USDT"), spelt={"KBONK/USDT": "kBONK/USDT"})
    house.run()
    assert house.lane.amendments.added == ("kBONK/USDT",)
    assert list(house.lane.unmet) == []
    assert house.lane.followed == ("BTC/USDT", "kBONK/USDT")
    house.run(NOW + HOUR)
    assert house.pool.orders[-1].include == ("kBONK/USDT",)


def test_coins_of_a_futures_market_are_named_as_its_contracts_are() -> None:
    house = House(config=Config(exchange=Exchange(market="swap"), universe=Universe(include=("BTC/USDT",), exclude=("ETH/USDT:USDT",))))
    house.lane.add(house.lane.meant("doge"))
    house.run()
    order = house.pool.orders[-1]
    assert (order.market, order.exclude) == ("swap", ("ETH/USDT:USDT",))
    assert order.include == ("BTC/USDT:USDT", "DOGE/USDT:USDT")


def test_a_coin_that_the_exchange_does_not_have_is_asked_for_once() -> None:
    house = House()
    house.run()
    house.lane.add("DOGG/USDT")
    house.pool.reply = chosen("BTC/USDT", "ETH/USDT", left_out={"DOGG/USDT": "binance does not have it"})
    house.run()
    assert house.lane.unmet == ()
    assert not house.lane.due(NOW)
    assert house.lane.remove("DOGG/USDT")
    assert "DOGG/USDT" not in house.lane.left_out
    assert (house.lane.amendments.added, house.lane.amendments.removed) == ((), ())


def test_where_the_universe_could_not_be_chosen_an_added_coin_is_asked_for_again_after_a_while() -> None:
    house = House()
    house.run()
    house.lane.add("DOGE/USDT")
    house.run()  # the coins are as before: the collector could not choose anew, and says so in its log only
    assert house.lane.unmet == ("DOGE/USDT",)
    assert not house.lane.due(NOW), "no storm"
    assert house.lane.due(NOW + HOUR), "the others' candles do not wait for that"
    house.seconds += house.lane.retry_in
    assert house.lane.due(NOW)


def test_a_removed_coin_is_gone_at_once_and_stays_so_whatever_a_child_says_that_was_out_already() -> None:
    house = House()
    house.run()
    assert house.lane.remove("ETH/USDT")
    assert house.lane.followed == ("BTC/USDT",)
    assert house.lane.left_out["ETH/USDT"] == REMOVED
    assert not house.lane.remove("ETH/USDT")
    house.run(NOW + HOUR)  # answers BTC and ETH
    assert house.lane.followed == ("BTC/USDT",)
    assert house.lane.left_out == {"USDC/USDT": "a stablecoin", "ETH/USDT": REMOVED}
    assert House(house.jobs).lane.followed == ("BTC/USDT",)
    with pytest.raises(RequestError, match="the only coin"):
        house.lane.remove("BTC/USDT")
    assert house.lane.add("ETH/USDT"), "the last word holds"
    assert house.lane.unmet == ("ETH/USDT",)
    assert house.pool.orders[-1].exclude == ("ETH/USDT",)


def test_a_coin_that_is_added_while_a_child_collects_is_not_taken_for_one_that_was_refused() -> None:
    house = House()
    house.run()
    house.pool.reply = chosen("BTC/USDT", "ETH/USDT", left_out={"DOGE/USDT": "its volume is no longer among the 2 largest"})

    async def meanwhile() -> None:
        run = asyncio.create_task(house.lane.run(NOW + HOUR))
        await asyncio.sleep(0)
        house.lane.add("DOGE/USDT")
        await run

    asyncio.run(meanwhile())
    assert house.lane.unmet == ("DOGE/USDT",)


# Clocks that are wrong

DAY = 24 * HOUR


def test_by_a_clock_that_is_ahead_the_newest_candle_is_the_exchanges_and_is_asked_for_when_it_is_there() -> None:
    """Ten seconds ahead are no defect, but they must not make every forecast an hour late."""
    house = House()
    house.pool.reply = collected(to=BOUNDARY, skew_ms=-10_000)
    house.run(BOUNDARY + HOUR + SETTLE_MS)
    assert house.lane.collected_to == BOUNDARY
    assert not house.lane.due(BOUNDARY + HOUR + SETTLE_MS + 9_999)
    assert house.lane.due(BOUNDARY + HOUR + SETTLE_MS + 10_000)
    assert house.lane.clock_error == ""


def test_a_clock_days_ahead_is_said_and_when_it_is_set_right_collecting_goes_on_at_once() -> None:
    house = House()
    house.run()
    assert house.lane.due(NOW + 3 * DAY)
    house.pool.reply = collected(to=BOUNDARY, skew_ms=-3 * DAY)
    house.run(NOW + 3 * DAY)
    assert house.lane.collected_to == BOUNDARY, "what has been collected does not lie in the future"
    assert house.lane.clock_error == "this machine's clock is 3.0 days ahead of the exchange's"
    assert not house.lane.due(NOW + 3 * DAY + 60_000), "the exchange is not stormed meanwhile"
    house.lane.clock_stepped()
    assert house.lane.clock_error == ""
    assert not house.lane.due(NOW)
    assert house.lane.due(NOW + HOUR)


def test_a_clock_days_behind_is_noticed_by_asking_once_and_said() -> None:
    house = House()
    house.run()
    house.lane.clock_stepped()
    assert house.lane.due(NOW - 3 * DAY)
    house.pool.reply = collected(to=BOUNDARY - 3 * DAY, skew_ms=3 * DAY)
    house.run(NOW - 3 * DAY)
    assert house.lane.clock_error == "this machine's clock is 3.0 days behind the exchange's"
    assert not house.lane.due(NOW - 3 * DAY + 60_000)
    house.lane.clock_stepped()
    assert house.lane.due(NOW)


def test_a_state_that_says_it_was_collected_in_the_future_is_not_believed() -> None:
    """As a cryptod before this one left it behind when its machine's clock was ahead."""
    house = House()
    house.run()
    house.jobs.records["universe"]["collected_to"] = BOUNDARY + 3 * DAY
    again = House(house.jobs)
    assert again.lane.due(NOW)
    again.run()
    assert again.lane.collected_to == BOUNDARY


def test_at_a_faster_pace_the_two_clocks_may_be_as_much_further_apart() -> None:
    house = House()
    house.lane._pace = 600.0
    house.lane.skew_ms = 600 * 60_000
    assert house.lane.clock_error == ""
    house.lane.skew_ms += 1
    assert house.lane.clock_error


def test_what_a_backfill_still_takes_is_reckoned_from_the_coins_that_are_through_since_it_began() -> None:
    house, seen = House(), []

    def backfill(on_report: Callable[[Report], None]) -> None:
        for stage, done, after in (("markets", 0, 100.0), ("backfill", 0, 5.0), ("backfill", 25, 10.0), ("backfill", 100, 20.0)):
            on_report(Progress(job=0, stage=stage, done=done, total=100))
            house.seconds += after
            seen.append(house.lane.rest)

    house.pool.meanwhile = backfill
    house.run()
    assert seen == [None, None, pytest.approx(15.0 * 75 / 25), 0.0]
    assert house.lane.rest is None
