"""What is asked of a coin's hours, and what answers make of them: candle, no trade, not fetched."""

from __future__ import annotations

import numpy as np

from cryptod.examination import Answer, examine
from cryptod.ingest.history import LATE_MS, History
from cryptod.ingest.paging import Paging
from cryptod.market import CANDLE, HOUR, NO_TRADE, NOT_FETCHED

START = 1_700_000_400_000 // HOUR.ms * HOUR.ms
PAGE = 100


def history(text: str, minutes: float = 0.05, page: int = PAGE) -> History:
    """A history from its stored hours (``C`` candle, ``-`` no trade, ``.`` not fetched), seen so long after the last close."""
    status = np.array([{".": NOT_FETCHED, "C": CANDLE, "-": NO_TRADE}[letter] for letter in text], np.uint8)
    return History(
        status,
        START,
        START + len(text) * HOUR.ms + int(minutes * 60_000),
        HOUR,
        Paging(page, {"rows": page, "hours": page, "overnight": True}),
    )


def answer(*hours: int, close: float = 11.0, end: int = 10_000) -> Answer:
    rows = [[START + hour * HOUR.ms, 10.0, 12.0, 9.0, close, 1.0] for hour in hours]
    return examine(rows, START + end * HOUR.ms, HOUR)


def hours_of(times: object) -> list[int]:
    return ((np.asarray(times) - START) // HOUR.ms).tolist()  # type: ignore[no-any-return]


def ask(one: History, exchange: object, rounds: int = 5) -> int:
    """Let an exchange (a function of hour and rows) answer until nothing is doubtful. Returns the number of questions."""
    wanted, asked = one.wanted(), 0
    for _ in range(rounds):
        for since, count in one.windows(wanted):
            end = since + count * HOUR.ms
            while since < end and not one.answered(since, count := (end - since) // HOUR.ms):
                limit = one.limit(since, count)
                since = one.take(exchange((since - START) // HOUR.ms, limit), since, count, limit)  # type: ignore[operator]
                asked += 1
        wanted = one.doubtful()
        if not wanted.any():
            break
    return asked


def row_limited(*present: int) -> object:
    """Binance's way: the first ``count`` candles from an hour on."""
    return lambda first, count: answer(*[hour for hour in present if hour >= first][:count])


def window_limited(*present: int) -> object:
    """Coinbase's way: the candles of ``count`` hours from an hour on."""
    return lambda first, count: answer(*[hour for hour in present if first <= hour < first + count])


def newest_only(kept: int, *present: int) -> object:
    """Kraken's way: the newest candles, however far back it is asked."""
    return lambda first, count: answer(*[hour for hour in present if hour >= first][-kept:])


def test_a_store_that_is_up_to_date_is_asked_for_the_new_candle_and_the_last_two_again() -> None:
    one = history("C" * 50 + ".")
    assert np.flatnonzero(one.wanted()).tolist() == [48, 49, 50]
    assert one.windows(one.wanted()) == [(START + 48 * HOUR.ms, 3)]


def test_an_empty_store_is_asked_for_in_pages() -> None:
    one = history("." * 250)
    assert one.windows(one.wanted()) == [(START, 100), (START + 100 * HOUR.ms, 100), (START + 200 * HOUR.ms, 50)]


def test_gaps_far_apart_are_asked_for_apart_and_near_ones_together() -> None:
    one = history("CC.." + "C" * 40 + "." + "C" * 200 + "." + "C" * 60)
    windows = one.windows(one.wanted())
    assert windows == [(START + 2 * HOUR.ms, 43), (START + 245 * HOUR.ms, 61)]


def test_one_round_fills_an_empty_store_from_a_complete_exchange() -> None:
    one = history("." * 250)
    assert ask(one, row_limited(*range(250))) == 3
    times, values = one.candles()
    assert hours_of(times) == list(range(250))
    assert values.shape == (250, 5)
    assert one.begins() == START
    assert not one.doubtful().any()


def test_an_hour_that_two_answers_lack_had_no_trades() -> None:
    one = history("C" * 40 + "." * 10 + "." * 10)
    exchange = row_limited(*range(43), *range(45, 60))
    assert ask(one, exchange) == 2
    assert hours_of(one.no_trade()) == [43, 44]


def test_a_row_that_one_answer_left_out_is_found_by_the_next() -> None:
    answers = [answer(*range(38, 43), *range(44, 60)), answer(43)]
    one = history("C" * 40 + "." * 20)
    assert ask(one, lambda first, count: answers.pop(0)) == 2
    assert hours_of(one.candles()[0]) == list(range(38, 60))
    assert len(one.no_trade()) == 0


def test_the_newest_hour_may_be_late_and_is_not_judged_before_its_time() -> None:
    one = history("C" * 40 + ".")
    assert ask(one, row_limited(*range(40))) == 1
    assert len(one.no_trade()) == 0
    assert one.late() == START + 40 * HOUR.ms


def test_the_newest_hour_is_one_without_trades_when_its_time_has_passed() -> None:
    one = history("C" * 40 + ".", minutes=LATE_MS / 60_000 + 1)
    assert ask(one, row_limited(*range(40))) == 2
    assert hours_of(one.no_trade()) == [40]
    assert one.late() is None


def test_a_later_candle_settles_that_the_hours_before_it_are_not_late() -> None:
    one = history("C" * 38 + "..")
    assert ask(one, row_limited(*range(38), 39)) == 2
    assert hours_of(one.no_trade()) == [38]


def test_a_halted_coin_is_not_called_late_hour_after_hour() -> None:
    one = history("C" * 30 + "-" * 9 + ".")
    ask(one, row_limited(*range(30)))
    assert one.late() is None
    assert one.last() == START + 29 * HOUR.ms


def test_hours_without_trades_are_asked_for_again_for_a_day_and_a_candle_replaces_them() -> None:
    one = history("C" * 50 + "-" + "C" * 20 + "-" + "C" * 5 + ".")
    assert np.flatnonzero(one.wanted()).tolist() == [71, 75, 76, 77]
    ask(one, row_limited(*range(78)))
    assert 71 in hours_of(one.candles()[0])


def test_a_history_begins_where_the_exchange_has_its_first_candle_whatever_its_way_of_paging() -> None:
    for exchange in (row_limited(*range(317, 400)), window_limited(*range(317, 400))):
        one = history("." * 400)
        ask(one, exchange)
        assert one.begins() == START + 317 * HOUR.ms
        assert hours_of(one.candles()[0]) == list(range(317, 400))
        assert len(one.no_trade()) == 0


def test_a_first_page_that_was_empty_by_mistake_does_not_move_the_beginning() -> None:
    exchange = row_limited(*range(250))
    mistakes = [answer()]
    one = history("." * 250)
    ask(one, lambda first, count: mistakes.pop() if mistakes else exchange(first, count))  # type: ignore[operator]
    assert one.begins() == START
    assert hours_of(one.candles()[0]) == list(range(250))


def test_an_exchange_that_keeps_its_newest_candles_only_says_nothing_of_the_hours_before() -> None:
    one = history("." * 300)
    ask(one, newest_only(PAGE, *range(301)))  # with the candle that is still open
    assert hours_of(one.candles()[0])[0] == 201
    assert one.begins() == START + 201 * HOUR.ms
    assert len(one.no_trade()) == 0


def test_a_hole_that_such_an_exchange_cannot_fill_stays_not_fetched_and_is_not_asked_for_for_ever() -> None:
    one = history("C" * 100 + "." * 200)
    ask(one, newest_only(PAGE, *range(301)))
    assert one.begins() == START + 201 * HOUR.ms
    assert len(one.no_trade()) == 0


def test_a_coin_that_was_halted_for_months_has_hours_without_trades_in_between() -> None:
    one = history("." * 600)
    ask(one, row_limited(*range(50), *range(560, 600)))
    assert hours_of(one.no_trade()) == list(range(50, 560))
    assert one.begins() == START


def test_a_refused_candle_leaves_its_hour_not_fetched_and_is_asked_for_again() -> None:
    def bad(first: int, count: int) -> Answer:
        rows = [[START + hour * HOUR.ms, 10.0, 12.0, 9.0 if hour != 39 else -9.0, 11.0, 1.0] for hour in range(first, 40)]
        return examine(rows, START + 40 * HOUR.ms, HOUR)

    one = history("C" * 39 + ".", minutes=30)
    assert ask(one, bad, rounds=3) == 3
    assert one.refused == {START + 39 * HOUR.ms: "a price that is not above 0"}
    assert len(one.no_trade()) == 0
    one.take(answer(39), START + 39 * HOUR.ms, 1, 4)
    assert one.refused == {}
    assert hours_of(one.candles()[0])[-1] == 39


def test_a_full_answer_says_nothing_of_the_hours_after_its_last_row() -> None:
    one = history("C" * 39 + ".", minutes=30)
    one.windows(one.wanted())
    one.take(answer(37, 38), START + 37 * HOUR.ms, 3, 2)
    assert len(one.no_trade()) == 0
    assert np.flatnonzero(one.doubtful()).tolist() == [39]


def test_the_latest_answer_counts_where_answers_differ() -> None:
    one = history("CC.")
    one.take(answer(0, 1, 2, close=11.0), START, 3, 6)
    one.take(answer(1, 2, close=10.5), START + HOUR.ms, 2, 5)
    times, values = one.candles()
    assert hours_of(times) == [0, 1, 2]
    assert values[:, 3].tolist() == [11.0, 10.5, 10.5]


def test_candles_outside_the_range_are_not_taken() -> None:
    one = history("...")
    one.take(answer(-2, -1, 0, 1, 2, 3, 4), START, 3, 7)
    assert hours_of(one.candles()[0]) == [0, 1, 2]


def test_a_coin_without_any_candle_has_no_history() -> None:
    one = history("." * 250)
    ask(one, row_limited())
    assert (one.begins(), one.last(), len(one.no_trade()), len(one.candles()[0])) == (None, None, 0, 0)
