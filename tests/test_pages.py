"""Whatever an exchange's way of paging, a coin's hours come out true: no false hour, no lost hour, few questions.

The exchanges here are functions of (hour, rows asked for), with ccxt's own rule after them: rows before ``since`` are dropped, and
the first ``limit`` of the others are kept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptod.examination import Answer, examine
from cryptod.ingest.history import AMPLE, History
from cryptod.ingest.paging import Paging
from cryptod.market import CANDLE, HOUR, NO_TRADE, NOT_FETCHED, UInt8

START = 1_699_920_000_000  # midnight
ROUNDS = 5
EXAMPLES = int(os.environ.get("CRYPTOD_EXAMPLES", "60"))

Rows = Callable[[list[int], int, int], Iterable[int]]
"""Which of the hours (sorted) come in answer to a question from an hour on, for so many rows."""


def forward(page: int) -> Rows:
    """The first rows from an hour on (Binance, Bybit, ...)."""
    return lambda hours, since, limit: [hour for hour in hours if hour >= since][: min(page, limit)]


def window(page: int) -> Rows:
    """The rows of a window of so many hours, whatever is asked for (MEXC gives 500 of 1000)."""
    return lambda hours, since, limit: [hour for hour in hours if since <= hour < since + min(page, limit)]


def newest_of_window(page: int) -> Rows:
    """The newest rows of the window that is asked for (the window ends where it should, and begins where it can)."""
    return lambda hours, since, limit: [hour for hour in hours if since <= hour < since + limit][-page:]


def newest(page: int) -> Rows:
    """The newest rows, whatever is asked for (Kraken)."""
    return lambda hours, since, limit: hours[-page:]


def day(page: int) -> Rows:
    """The rows of the day that an hour belongs to (bitbank)."""
    return lambda hours, since, limit: [hour for hour in hours if hour // 24 == since // 24]


WAYS: dict[str, tuple[Callable[[int], Rows], bool]] = {
    "forward": (forward, True), "window": (window, True), "newest_of_window": (newest_of_window, True), "newest": (newest, False),
    "day": (day, True),
}  # fmt: skip
"""name -> (the way, whether all of the history can be had)."""


@dataclass
class Coin:
    """A coin of an exchange: the hours with trades, up to the one that is still open."""

    trades: list[int]
    hours: int
    rows: Rows
    asked: int = 0
    mute: Callable[[], bool] = lambda: False
    """Whether the next answer is empty: an error in disguise."""

    def answer(self, since: int, limit: int) -> Answer:
        self.asked += 1
        times = [] if self.mute() else [hour for hour in self.rows([*self.trades, self.hours], since, limit) if hour >= since][:limit]
        return examine([[START + hour * HOUR.ms, 10.0, 12.0, 9.0, 11.0, 1.0] for hour in times], START + self.hours * HOUR.ms, HOUR)

    def collect(self, status: UInt8, paging: Paging, minutes: float = 30) -> tuple[UInt8, History]:
        """One run of the collector. Returns what the store has afterwards."""
        one = History(status, START, START + self.hours * HOUR.ms + int(minutes * 60_000), HOUR, paging)
        wanted = one.wanted()
        if not paging.rows:
            wanted[-AMPLE:] = True
        for _ in range(ROUNDS):
            for since, count in one.windows(wanted):
                end = since + count * HOUR.ms
                while since < end and not one.answered(since, count := (end - since) // HOUR.ms):
                    limit = one.limit(since, count)
                    since = one.take(self.answer((since - START) // HOUR.ms, limit), since, count, limit)
            wanted = one.doubtful()
            if not wanted.any():
                break
        after = status.copy()
        after[(one.candles()[0] - START) // HOUR.ms] = CANDLE
        quiet = (one.no_trade() - START) // HOUR.ms
        after[quiet[after[quiet] != CANDLE]] = NO_TRADE
        return after, one

    def truth(self) -> UInt8:
        """Candles, and hours without trades from the first candle on."""
        status = np.full(self.hours, NOT_FETCHED, np.uint8)
        status[self.trades[0] :] = NO_TRADE
        status[self.trades] = CANDLE
        return status


def unknown(hours: int) -> UInt8:
    return np.full(hours, NOT_FETCHED, np.uint8)


@pytest.mark.parametrize(("page", "asked"), [(100, 1000), (500, 1000), (200, 1000), (1000, 1000), (10, 1000), (100, 100)])
@pytest.mark.parametrize("way", ["forward", "window", "newest_of_window"])
def test_fewer_rows_than_asked_for_lose_nothing_and_cost_no_more_questions_than_pages(way: str, page: int, asked: int) -> None:
    hours = 2190
    coin = Coin(list(range(hours)), hours, WAYS[way][0](page))
    status, one = coin.collect(unknown(hours), Paging(asked))
    assert status.tolist() == coin.truth().tolist()
    assert one.begins() == START
    assert coin.asked <= -(-hours // page) + 2


@pytest.mark.parametrize("way", ["forward", "window", "newest_of_window", "day"])
def test_a_coin_that_was_listed_500_hours_ago_loses_nothing(way: str) -> None:
    hours = 4380
    paging = Paging(1000)
    Coin(list(range(hours)), hours, WAYS[way][0](500)).collect(unknown(hours), paging)  # another coin
    coin = Coin(list(range(hours - 500, hours)), hours, WAYS[way][0](500))
    status, one = coin.collect(unknown(hours), paging)
    assert status.tolist() == coin.truth().tolist()
    assert one.begins() == START + (hours - 500) * HOUR.ms


def test_an_exchange_that_keeps_so_many_rows_is_asked_once_a_coin() -> None:
    hours = 4380
    paging = Paging(720)
    for _ in range(3):
        coin = Coin(list(range(hours)), hours, newest(720))
        status, one = coin.collect(unknown(hours), paging)
        assert coin.asked == 1
        assert (status == CANDLE).sum() == 719  # and the one that is still open
        assert (status == NO_TRADE).sum() == 0
        assert one.begins() == START + (hours - 719) * HOUR.ms


@pytest.mark.parametrize("way", ["forward", "window", "newest_of_window", "day"])
@pytest.mark.parametrize(("begin", "length"), [(300, 1), (310, 40), (305, 90), (290, 900)])
def test_a_halt_is_hours_without_trades_however_long_it_is(way: str, begin: int, length: int) -> None:
    hours = 1500
    coin = Coin([*range(begin), *range(begin + length, hours)], hours, WAYS[way][0](100))
    status, _ = coin.collect(unknown(hours), Paging(1000))
    assert status.tolist() == coin.truth().tolist()


@pytest.mark.parametrize("way", ["forward", "window", "newest_of_window"])
def test_a_halt_that_goes_on_is_shown_by_the_last_candle_and_nothing_after_it(way: str) -> None:
    hours = 1500
    rows = WAYS[way][0](100)
    paging = Paging(1000)
    coin = Coin(list(range(hours - 60)), hours, lambda trades, since, limit: rows([hour for hour in trades if hour < hours], since, limit))
    status, _ = coin.collect(unknown(hours), paging)
    assert status.tolist() == coin.truth().tolist()


def test_an_hour_that_only_empty_answers_covered_stays_unknown() -> None:
    hours = 200
    coin = Coin(list(range(hours)), hours, window(100))
    paging = Paging(100)
    status, _ = coin.collect(unknown(hours), paging)
    status[100:150] = NOT_FETCHED
    coin.mute = lambda: True
    assert coin.collect(status, paging)[0].tolist() == status.tolist()


@st.composite
def markets(draw: st.DrawFn) -> tuple[int, list[int]]:
    """A number of hours, and those with trades: a listing, halts of all lengths, thin stretches."""
    hours = draw(st.integers(30, 700))
    trades = np.ones(hours, np.bool_)
    trades[: draw(st.one_of(st.just(0), st.integers(0, hours - 5)))] = False
    for _ in range(draw(st.integers(0, 3))):
        begin, length = draw(st.integers(0, hours)), draw(st.one_of(st.integers(1, 6), st.integers(1, 400)))
        trades[begin : begin + length] = False
    if draw(st.booleans()):
        trades &= np.random.default_rng(draw(st.integers(0, 99))).random(hours) < draw(st.floats(0.2, 0.95))
    trades[-1 - draw(st.integers(0, 3))] = True
    return hours, np.flatnonzero(trades).tolist()


@given(
    markets(), st.sampled_from(sorted(WAYS)), st.sampled_from([24, 60, 100, 300]), st.sampled_from([100, 300, 1000]),
    st.tuples(st.integers(0, 60), st.sampled_from([0, 0, 1, 3, 10, 50])),
)  # fmt: skip
@settings(max_examples=EXAMPLES, deadline=None)
def test_no_hour_is_ever_false_and_what_can_be_known_is_known_in_three_runs(
    market: tuple[int, list[int]], way: str, page: int, asked: int, mute: tuple[int, int]
) -> None:
    hours, trades = market
    rows, complete = WAYS[way]
    coin = Coin(trades, hours, rows(page))
    coin.mute = lambda: 0 <= coin.asked - mute[0] < mute[1]
    truth, status, paging = coin.truth(), unknown(hours), Paging(asked)
    for run in range(3):
        status, one = coin.collect(status, Paging(asked, paging.facts()) if run else paging)
        known = status != NOT_FETCHED
        assert (status[known] == truth[known]).all()
    if complete and not mute[1]:
        assert (status[truth == CANDLE] == CANDLE).all(), "a candle is lost"
        begins = one.begins()
        assert begins is None or begins <= START + trades[0] * HOUR.ms
