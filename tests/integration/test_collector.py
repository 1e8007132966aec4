"""The collector against the simulated exchange: after whatever happened, the store holds the truth."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from cryptod.ingest import collector
from cryptod.ingest import exchange as asking
from cryptod.market import CANDLE, HOUR, NO_TRADE, NOT_FETCHED, Panel
from cryptod.simulator.faults import Fault
from cryptod.simulator.generator import GeneratedMarket
from cryptod.simulator.server import Exchange
from cryptod.store.candles import WEEK_MS, CandleStore
from cryptod.worker.messages import CollectDone, CollectOrder, Failed, Progress, Report

T = TypeVar("T")
NOW = 1_700_000_000_000 // HOUR.ms * HOUR.ms
COINS = 4
MINUTE = 60_000


class HandClock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.time = NOW + 5_000

    def now(self) -> int:
        return self.time

    def real_seconds(self, seconds: float) -> float:
        return seconds


class Hasty(asking.Exchange):
    """Without the spacing of requests, which has its own test and makes these slow."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._limit = self._at_once

    async def _at_once(self, cost: float | None) -> None:
        pass


class World:
    """A simulated exchange in a thread of its own, and orders to the collector about it."""

    def __init__(self, path: Path) -> None:
        self.clock = HandClock()
        self.path = path / "candles"
        self._market = GeneratedMarket(COINS, seed=7, first=NOW - 60 * 24 * HOUR.ms)
        self.coins = self._market.coins
        self.reports: list[Report] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.exchange = self.call(self._start())

    async def _start(self) -> Exchange:
        exchange = Exchange(self._market, self.clock)
        await exchange.start()
        return exchange

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def close(self) -> None:
        self.call(self.exchange.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def faults(self, *faults: Fault) -> None:
        async def change() -> None:
            self.exchange.set_faults(faults)

        self.call(change())

    def order(self, **changes: Any) -> CollectOrder:
        plain: dict[str, Any] = {
            "job": 7, "now": self.clock.now(), "candles": str(self.path), "exchange": "binance", "url": self.exchange.url, "quote": "USDT",
            "timeframe": "1h", "months_back": 1, "size": COINS, "include": (), "exclude": (), "select_universe": False,
        }  # fmt: skip
        return CollectOrder(**{**plain, **changes})

    def report(self, **changes: Any) -> Report:
        """The last report of a run."""
        self.reports = []
        collector.run(self.order(**changes), self.reports.append)
        return self.reports[-1]

    def collect(self, **changes: Any) -> CollectDone:
        report = self.report(**changes)
        assert isinstance(report, CollectDone), report
        return report

    def begin(self) -> tuple[str, ...]:
        """A first run for the market's coins, without choosing (the volumes of all pairs cost most of a second of the rate limit)."""
        return self.collect(symbols=self.coins).symbols

    def later(self, hours: float) -> None:
        self.clock.time += int(hours * HOUR.ms)

    def panel(self, symbols: tuple[str, ...], hours: int = 730) -> Panel:
        end = HOUR.floor(self.clock.now())
        with CandleStore.open(self.path) as store:
            return store.panel(symbols, end - hours * HOUR.ms, end)

    def truth(self, symbols: tuple[str, ...], hours: int = 730) -> Panel:
        end = HOUR.floor(self.clock.now())
        return self.exchange.market.panel(symbols, end - hours * HOUR.ms, end)

    def assert_true(self, symbols: tuple[str, ...]) -> None:
        """The store holds exactly what the market was."""
        stored, truth = self.panel(symbols), self.truth(symbols)
        np.testing.assert_array_equal(stored.status, truth.status)
        np.testing.assert_array_equal(stored.values, truth.values)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(asking, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(collector, "Exchange", Hasty)
    world = World(tmp_path)
    yield world
    world.close()


# The ordinary course


def test_the_first_run_chooses_the_universe_and_fetches_the_months_asked_for(world: World) -> None:
    done = world.collect(select_universe=True)
    assert len(done.symbols) == COINS
    assert done.left_out["USDC/USDT"] == "a stablecoin"
    assert (done.failed, done.new_candles, done.revised_candles) == ({}, COINS * 730, 0)
    assert done.requests == 3 + COINS  # time, markets, tickers, a page each
    world.assert_true(done.symbols)


def test_the_coins_are_named_by_volume_largest_first(world: World) -> None:
    symbols = world.collect(select_universe=True).symbols
    panel = world.truth(symbols, 24)
    volumes = (panel.values[:, :, 3] * panel.values[:, :, 4]).sum(axis=0)
    assert (np.diff(volumes) < 0).all()


def test_an_hour_later_only_what_is_new_is_asked_for_a_request_a_coin(world: World) -> None:
    symbols = world.begin()
    world.later(1)
    done = world.collect(symbols=symbols)
    assert (done.symbols, done.new_candles, done.revised_candles, done.requests) == (symbols, COINS, 0, COINS + 1)
    world.assert_true(symbols)


def test_nothing_is_written_when_nothing_is_new(world: World) -> None:
    symbols = world.begin()
    done = world.collect(symbols=symbols)
    assert (done.new_candles, done.revised_candles, done.requests) == (0, 0, COINS + 1)


def test_hours_that_were_missed_are_made_good_at_the_next_run(world: World) -> None:
    symbols = world.begin()
    world.later(77)
    assert world.collect(symbols=symbols).new_candles == 77 * COINS
    world.assert_true(symbols)


def test_the_candle_of_the_current_hour_is_not_taken(world: World) -> None:
    world.clock.time = NOW + 59 * MINUTE
    done = world.collect(select_universe=True)
    with CandleStore.open(world.path) as store:
        assert {store.span(symbol) for symbol in done.symbols} == {(NOW - 730 * HOUR.ms, NOW)}


def test_an_order_without_coins_follows_those_that_were_chosen_before(world: World) -> None:
    symbols = world.collect(select_universe=True).symbols
    world.later(1)
    assert world.collect().symbols == symbols


def test_a_longer_look_back_fetches_the_months_before(world: World) -> None:
    symbols = world.begin()[:2]
    assert world.collect(symbols=symbols, months_back=2).new_candles == 2 * (60 * 24 - 730)
    assert world.collect(symbols=symbols, months_back=2).new_candles == 0


def test_candles_older_than_the_look_back_and_a_month_are_dropped(world: World) -> None:
    symbols = world.begin()[:1]
    with CandleStore.open(world.path, writer=True) as store:
        store.write(symbols[0], np.array([NOW - 80 * 24 * HOUR.ms]), np.ones((1, 5)))
    world.collect(symbols=symbols)
    with CandleStore.open(world.path) as store:
        span = store.span(symbols[0])
    assert span is not None
    assert span[0] > NOW - (730 + 30 * 24) * HOUR.ms - WEEK_MS


def test_progress_is_told_with_figures(world: World) -> None:
    world.collect(select_universe=True)
    told = [report for report in world.reports if isinstance(report, Progress)]
    assert (told[0].stage, told[-1].done, told[-1].total) == ("backfill", COINS, COINS)
    assert told[-1].figures == {"requests": 3.0 + COINS, "new_candles": 730.0 * COINS, "clock_skew_s": 0.0}
    assert {report.job for report in told} == {7}


def test_included_and_excluded_coins_win(world: World) -> None:
    done = world.collect(select_universe=True, size=2, include=("EUR/USDT", "NO/USDT"), exclude=("BTC/USDT",))
    assert "EUR/USDT" in done.symbols
    assert "BTC/USDT" not in done.symbols
    assert done.left_out["BTC/USDT"] == "excluded by the configuration"
    assert done.left_out["NO/USDT"].startswith("binance does not have it")


def test_candles_of_another_exchange_are_not_mixed_with_these(world: World) -> None:
    world.collect(symbols=world.coins)
    with CandleStore.open(world.path, writer=True) as store:
        facts = store.facts("universe")
        assert facts is not None
        store.set_facts("universe", {**facts, "exchange": "kraken"})
        store.write("OLD/USDT", np.array([NOW - HOUR.ms]), np.ones((1, 5)))
    assert world.collect().new_candles == COINS * 730
    with CandleStore.open(world.path) as store:
        assert "OLD/USDT" not in store.symbols()


def test_a_damaged_store_is_set_aside_and_fetched_anew(world: World) -> None:
    symbols = world.begin()
    data = bytearray((world.path / "data.mdb").read_bytes())
    data[8192:] = bytes(len(data) - 8192)
    (world.path / "data.mdb").write_bytes(data)
    for _ in range(2):
        done = world.collect(symbols=symbols)
        assert done.failed == {}
    world.assert_true(symbols)
    assert (world.path / "damaged" / "data.mdb").exists()


# Coins that come, go, stand still


def test_a_coin_that_was_listed_lately_has_a_short_history_and_no_gaps(world: World) -> None:
    start = NOW - 200 * HOUR.ms
    world.faults(Fault("renamed", symbols=("BTC/USDT",), to="NEW/USDT", start=start))
    done = world.collect(select_universe=True)
    assert "NEW/USDT" in done.symbols
    world.assert_true(("NEW/USDT",))
    requests = done.requests
    world.later(1)
    assert world.collect().requests == COINS + 1 < requests


def test_a_coin_that_is_renamed_is_left_out_under_its_old_name_and_found_under_the_new_one(world: World) -> None:
    symbols = world.collect(select_universe=True).symbols
    world.faults(Fault("renamed", symbols=("BTC/USDT",), to="NEW/USDT", start=NOW))
    world.later(30)
    done = world.collect(select_universe=True, symbols=symbols)
    assert "not trading" in done.left_out["BTC/USDT"]
    assert "NEW/USDT" in done.symbols
    world.assert_true(("NEW/USDT",))


def test_a_coin_that_is_gone_from_the_exchange_is_left_out_and_the_others_go_on(world: World) -> None:
    symbols = world.begin()
    world.faults(Fault("removed", symbols=symbols[:1], start=NOW))
    world.later(1)
    done = world.collect(symbols=symbols)
    assert done.symbols == symbols[1:]
    assert done.left_out[symbols[0]] == "binance does not have it any more"
    assert done.failed == {}
    world.assert_true(symbols[1:])


def test_a_coin_that_is_delisted_is_followed_for_a_week_and_then_left_out(world: World) -> None:
    symbols = world.begin()
    world.faults(Fault("delisted", symbols=symbols[:1], start=NOW))
    world.later(3 * 24)
    assert world.collect(symbols=symbols).symbols == symbols
    world.later(5 * 24)
    done = world.collect(symbols=symbols)
    assert done.symbols == symbols[1:]
    assert done.left_out[symbols[0]] == "binance has no candle of it since 2023-11-14 21:00: halted or delisted"


def test_a_coin_without_candles_keeps_its_reason_and_is_followed_again_in_the_hour_in_which_it_is_back(world: World) -> None:
    symbols = world.begin()
    back = NOW + 9 * 24 * HOUR.ms
    world.faults(Fault("halted", symbols=symbols[:1], start=NOW, end=back))
    world.later(8 * 24)
    done = world.collect(symbols=symbols)
    assert done.symbols == symbols[1:]
    reason = done.left_out[symbols[0]]
    for _ in range(2):
        world.later(1)
        done = world.collect(symbols=done.symbols)
        assert (done.symbols, done.left_out[symbols[0]]) == (symbols[1:], reason)
        assert done.requests <= len(symbols) + 1
    world.clock.time = back + HOUR.ms + 11 * MINUTE
    done = world.collect(symbols=done.symbols)
    assert set(done.symbols) == set(symbols)
    assert symbols[0] not in done.left_out
    world.assert_true(symbols)


def test_a_halt_is_hours_without_trades_and_ends_by_itself(world: World) -> None:
    symbols = world.begin()
    world.faults(Fault("halted", symbols=symbols[:1], start=NOW, end=NOW + 30 * HOUR.ms))
    for _ in range(6):
        world.later(6)
        world.clock.time += 11 * MINUTE
        done = world.collect(symbols=symbols)
        assert (done.symbols, done.failed) == (symbols, {})
        world.assert_true(symbols)
    assert (world.panel(symbols[:1]).status == NO_TRADE).sum() == 30


def test_a_coin_that_was_halted_for_weeks_before_the_first_run_has_its_hours_without_trades(world: World) -> None:
    world.faults(Fault("halted", symbols=("BTC/USDT",), start=NOW - 500 * HOUR.ms, end=NOW - 100 * HOUR.ms))
    world.collect(symbols=world.coins)
    world.assert_true(("BTC/USDT",))
    assert (world.panel(("BTC/USDT",)).status == NO_TRADE).sum() == 400


def test_a_redenominated_coin_is_kept_as_the_exchange_gives_it(world: World) -> None:
    world.faults(Fault("redenominated", symbols=("BTC/USDT",), start=NOW - 20 * HOUR.ms, value=1000.0))
    world.collect(symbols=world.coins)
    world.assert_true(("BTC/USDT",))


def test_a_flat_coin_has_candles(world: World) -> None:
    world.faults(Fault("flat", symbols=("BTC/USDT",), start=NOW - 200 * HOUR.ms, end=NOW - 100 * HOUR.ms))
    world.collect(symbols=world.coins)
    world.assert_true(("BTC/USDT",))


# Answers that are wrong


@pytest.mark.parametrize("kind", ["wrong_types", "nan", "negative", "inverted", "missing", "doubled", "disordered", "future", "unaligned"])
def test_rows_that_are_spoilt_once_a_coin_do_not_reach_the_store(world: World, kind: str) -> None:
    world.faults(Fault(kind, times=COINS))
    done = world.collect(symbols=world.coins)
    assert done.failed == {}
    world.assert_true(done.symbols)


@pytest.mark.parametrize(
    "kind", ["wrong_types", "nan", "negative", "inverted", "missing", "doubled", "disordered", "future", "unaligned", "revised"]
)
def test_a_day_of_spoilt_rows_leaves_no_trace_when_it_is_over(world: World, kind: str) -> None:
    symbols = world.begin()
    world.faults(Fault(kind, probability=0.5))
    for _ in range(6):
        world.later(1)
        world.collect(symbols=symbols)
        stored = world.panel(symbols)
        known = stored.status == CANDLE
        assert np.isfinite(stored.values[known]).all()
        assert (stored.values[known][:, :4] > 0).all()
    world.faults()
    world.later(1)
    world.collect(symbols=symbols)
    world.assert_true(symbols)


class NewestClosed(random.Random):
    """Draws the newest closed row of an answer, so that the same hour is spoilt whenever it is asked for."""

    def __init__(self, now: Callable[[], int]) -> None:
        super().__init__(1)
        self._now = now

    def choice(self, seq: Any) -> Any:
        return [row for row in seq if row[0] + HOUR.ms <= self._now()][-1]


def test_a_row_that_stays_spoilt_leaves_its_hour_not_fetched_and_names_the_coin(world: World) -> None:
    symbols = world.begin()
    world.later(1)
    world.exchange.faults.random = NewestClosed(world.clock.now)
    world.faults(Fault("nan", symbols=symbols[:1]))
    done = world.collect(symbols=symbols)
    assert world.panel(symbols[:1]).status[-1, 0] == NOT_FETCHED
    assert list(done.failed) == [symbols[0]]
    assert "refused: not a number" in done.failed[symbols[0]]
    world.faults()
    assert world.collect(symbols=symbols).failed == {}
    world.assert_true(symbols)


def test_a_candle_that_is_late_is_named_and_taken_when_it_comes(world: World) -> None:
    symbols = world.begin()
    world.faults(Fault("halted", symbols=symbols[:1], start=NOW, end=NOW + HOUR.ms))
    world.later(1)
    done = world.collect(symbols=symbols)
    assert done.failed == {symbols[0]: "its candle of 2023-11-14 22:00 is not there yet"}
    assert world.panel(symbols[:1]).status[-1, 0] == NOT_FETCHED
    world.faults()
    world.clock.time += MINUTE
    assert world.collect(symbols=symbols).failed == {}
    world.assert_true(symbols)


def test_a_candle_that_comes_hours_late_replaces_the_hour_without_trades(world: World) -> None:
    symbols = world.begin()
    world.faults(Fault("halted", symbols=symbols[:1], start=NOW, end=NOW + HOUR.ms))
    world.later(3)
    world.collect(symbols=symbols)
    assert world.panel(symbols[:1]).status[-3, 0] == NO_TRADE
    world.faults()
    world.later(5)
    world.collect(symbols=symbols)
    world.assert_true(symbols)


def test_a_revised_candle_is_read_again_and_counted(world: World) -> None:
    symbols = world.begin()
    world.faults(Fault("revised"))
    world.later(1)
    assert world.collect(symbols=symbols).revised_candles == 0
    world.later(1)
    assert world.collect(symbols=symbols).revised_candles == COINS
    world.faults()
    world.later(1)
    world.collect(symbols=symbols)
    world.assert_true(symbols)


@pytest.mark.parametrize("skew", [2 * HOUR.ms, -2 * HOUR.ms, 40 * 24 * HOUR.ms])
def test_a_clock_that_is_off_ages_no_candle(world: World, skew: int) -> None:
    symbols = world.begin()
    world.faults(Fault("skewed", value=skew))
    world.later(1)
    world.clock.time += 30 * MINUTE
    world.collect(symbols=symbols)
    with CandleStore.open(world.path) as store:
        spans = [store.span(symbol) for symbol in symbols]
    assert all(span is not None and span[1] <= HOUR.floor(world.clock.now()) for span in spans)
    world.faults()
    world.collect(symbols=symbols)
    world.assert_true(symbols)


def test_our_own_clock_ahead_of_the_exchanges_does_not_close_the_current_candle(world: World) -> None:
    world.clock.time = NOW + 30 * MINUTE
    symbols = world.collect(select_universe=True, now=NOW + 5 * HOUR.ms).symbols
    world.assert_true(symbols)


# An exchange in trouble


def test_requests_that_fail_now_and_then_are_made_again(world: World) -> None:
    trouble = ("reset", "cut", "server_error", "html", "truncated")
    world.faults(*(Fault(kind, probability=0.03) for kind in trouble))
    done = world.collect(symbols=world.coins)
    world.faults()
    world.collect(symbols=done.symbols)
    world.assert_true(done.symbols)


def test_a_coin_whose_requests_fail_leaves_the_others(world: World) -> None:
    symbols = world.begin()
    world.faults(Fault("server_error", symbols=symbols[1:2]))
    world.later(1)
    done = world.collect(symbols=symbols)
    assert (done.symbols, list(done.failed)) == (symbols, [symbols[1]])
    assert "HTTP status 503" in done.failed[symbols[1]]
    assert done.new_candles == COINS - 1


def test_a_429_is_waited_for_and_told(world: World) -> None:
    world.faults(Fault("rate_limited", endpoints=("klines",), times=2, value=1))
    done = world.collect(symbols=world.coins)
    assert done.failed == {}
    assert any(isinstance(report, Progress) and "asks to wait" in report.text for report in world.reports)


def test_a_ban_ends_the_run_says_when_to_come_back_and_the_next_run_goes_on(world: World) -> None:
    symbols = world.begin()
    world.later(1)
    world.faults(Fault("banned", symbols=symbols[3:], value=77))
    report = world.report(symbols=symbols)
    assert isinstance(report, Failed)
    assert (report.retry_after, report.error) == (77, "binance has banned this address (status 418)")
    world.faults()
    assert world.collect(symbols=symbols).failed == {}
    world.assert_true(symbols)


def test_after_a_ban_nothing_more_is_sent(world: World) -> None:
    world.faults(Fault("banned"))
    assert isinstance(world.report(symbols=world.coins), Failed)
    assert world.exchange.counts()["total"] == 1


def test_an_exchange_that_is_down_fails_the_order_and_is_not_stormed(world: World) -> None:
    symbols = world.begin()
    world.faults(Fault("server_error"))
    before = world.exchange.counts()["total"]
    report = world.report(symbols=symbols)
    assert isinstance(report, Failed)
    assert "binance was asked for its time and failed: HTTP status 503" in report.error
    assert world.exchange.counts()["total"] - before == asking.ATTEMPTS


def test_an_exchange_that_goes_down_under_way_is_given_up_soon(world: World) -> None:
    symbols = world.begin()
    world.faults(Fault("server_error", endpoints=("klines",)))
    world.later(1)
    before = world.exchange.counts()["total"]
    report = world.report(symbols=symbols)
    assert isinstance(report, Failed)
    assert world.exchange.counts()["total"] - before <= 1 + COINS * asking.ATTEMPTS


def test_an_exchange_that_is_not_there_is_said_to_be(world: World) -> None:
    report = world.report(select_universe=True, url="http://127.0.0.1:9")
    assert isinstance(report, Failed)
    assert "cannot be reached" in report.error
    assert report.hint


def test_an_exchange_that_is_silent_is_not_waited_for_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "TIMEOUT_MS", 200)
    symbols = world.begin()
    world.faults(Fault("timeout", symbols=symbols[:1]), Fault("drip", symbols=symbols[1:2]))
    world.later(1)
    done = world.collect(symbols=symbols)
    assert set(done.failed) == set(symbols[:2])
    assert all("did not answer in" in reason for reason in done.failed.values())


def test_a_universe_that_cannot_be_chosen_anew_stays_as_it_is(world: World) -> None:
    symbols = world.collect(select_universe=True).symbols
    world.faults(Fault("server_error", endpoints=("ticker/24hr",)))
    world.later(1)
    done = world.collect(select_universe=True, symbols=symbols)
    assert (done.symbols, done.failed) == (symbols, {})
    assert done.left_out["USDC/USDT"] == "a stablecoin"
    world.assert_true(symbols)


def test_a_market_without_the_quote_currency_fails_with_a_hint(world: World) -> None:
    report = world.report(select_universe=True, quote="JPY")
    assert isinstance(report, Failed)
    assert report.error == "binance has no coin to follow against JPY"
    assert report.hint.startswith("exchange.quote is one of USDT")


def test_a_folder_that_cannot_be_written_fails_with_the_path(world: World) -> None:
    world.path.write_text("in the way")
    report = world.report(select_universe=True)
    assert isinstance(report, Failed)
    assert str(world.path) in report.error


def test_a_market_that_is_silent_as_a_whole_is_an_error_that_asks_for_the_clock_and_leaves_no_coin_out(world: World) -> None:
    world.clock.time = NOW - 90 * 24 * HOUR.ms  # a month before the first candle
    report = world.report(symbols=world.coins)
    assert isinstance(report, Failed)
    assert "no candle of any coin in the 7 days before 2023-08-16" in report.error
    assert "timedatectl" in report.hint
    world.clock.time = NOW
    assert set(world.begin()) == set(world.coins)
