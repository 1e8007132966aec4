"""Which rows of an exchange's answer are believed, and what is said of the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptod.examination import examine, misread, named
from cryptod.market import CLOSE, HIGH, HOUR, LOW, OPEN, VOLUME

START = 1_700_000_400_000 // HOUR.ms * HOUR.ms
CLOSED = START + 10 * HOUR.ms


def row(hour: int, open_: float = 10.0, high: float = 12.0, low: float = 9.0, close: float = 11.0, volume: float = 5.0) -> list[Any]:
    return [START + hour * HOUR.ms, open_, high, low, close, volume]


def hours(rows: list[list[Any]]) -> list[int]:
    return [(time - START) // HOUR.ms for time in examine(rows, CLOSED, HOUR).open_times.tolist()]


def test_sound_rows_are_believed() -> None:
    answer = examine([row(0), row(1, 20.0, 20.0, 20.0, 20.0, 0.0)], CLOSED, HOUR)
    assert answer.values.tolist() == [[10.0, 12.0, 9.0, 11.0, 5.0], [20.0, 20.0, 20.0, 20.0, 0.0]]
    assert (answer.refused, answer.rows, answer.last) == ({}, 2, START + HOUR.ms)


def test_no_rows_are_no_candles() -> None:
    answer = examine([], CLOSED, HOUR)
    assert (len(answer.open_times), answer.values.shape, answer.last) == (0, (0, 5), -1)


@pytest.mark.parametrize(
    ("bad", "flaw"),
    [
        (row(1, close=float("nan")), "not a number"),
        (row(1, high=float("inf")), "not a number"),
        ([START + HOUR.ms, "soon", None, [1.0], {"close": 1.0}, True], "not a number"),
        ([START + HOUR.ms, 10.0], "not a number"),
        (row(1, -10.0, -9.0, -12.0, -11.0), "a price that is not above 0"),
        (row(1, low=0.0), "a price that is not above 0"),
        (row(1, high=8.0, low=13.0), "a high or low inside the candle"),
        (row(1, high=10.5), "a high or low inside the candle"),
        (row(1, low=10.5), "a high or low inside the candle"),
        (row(1, volume=-1.0), "a negative volume"),
        ([START + HOUR.ms + 1000, 10.0, 12.0, 9.0, 11.0, 5.0], "a candle off the grid"),
    ],
)
def test_a_row_that_cannot_be_is_refused_by_its_hour_and_leaves_the_others(bad: list[Any], flaw: str) -> None:
    answer = examine([row(0), bad, row(2)], CLOSED, HOUR)
    assert answer.refused == {START + HOUR.ms: flaw}
    assert answer.open_times.tolist() == [START, START + 2 * HOUR.ms]


def test_candles_that_are_still_open_or_to_come_are_passed_over_without_a_word() -> None:
    answer = examine([row(9), row(10, high=float("nan")), row(13)], CLOSED, HOUR)
    assert answer.open_times.tolist() == [START + 9 * HOUR.ms]
    assert answer.refused == {}


def test_rows_in_any_order_come_out_sorted_and_a_row_given_twice_counts_once() -> None:
    assert hours([row(3), row(1), row(2), row(1)]) == [1, 2, 3]


def test_rows_that_contradict_each_other_are_both_refused() -> None:
    answer = examine([row(0), row(1), row(1, close=10.5), row(1)], CLOSED, HOUR)
    assert answer.open_times.tolist() == [START]
    assert answer.refused == {START + HOUR.ms: "two candles that contradict each other"}


def test_rows_without_a_time_are_nothing() -> None:
    answer = examine([[None, 1, 1, 1, 1, 1], [float("nan"), 1, 1, 1, 1, 1], [1e300, 1, 1, 1, 1, 1], "nonsense", row(0)], CLOSED, HOUR)
    assert answer.open_times.tolist() == [START]
    assert (answer.refused, answer.rows) == ({}, 5)


def test_refused_candles_are_summed_up_in_a_sentence() -> None:
    assert named({START: "not a number"}) == "a candle was refused: not a number (2023-11-14 22:00)"
    assert named({START: "a", START - HOUR.ms: "b"}).startswith("2 candles were refused: a (2023")


cells = st.one_of(
    st.none(), st.text(max_size=3), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.lists(st.integers(), max_size=2)
)
times = st.one_of(cells, st.integers(-2, 14).map(lambda hour: START + hour * HOUR.ms))


@given(st.lists(st.one_of(cells, st.tuples(times, cells, cells, cells, cells, cells).map(list), st.lists(cells, max_size=7)), max_size=8))
def test_whatever_the_rows_are_what_is_believed_is_sound(rows: list[Any]) -> None:
    answer = examine(rows, CLOSED, HOUR)
    values = answer.values
    assert np.isfinite(values).all()
    assert (values[:, : CLOSE + 1] > 0).all()
    assert (values[:, VOLUME] >= 0).all()
    assert (values[:, LOW] <= values[:, [OPEN, CLOSE]].min(axis=1, initial=np.inf)).all()
    assert (values[:, HIGH] >= values[:, [OPEN, CLOSE]].max(axis=1, initial=0)).all()
    assert (np.diff(answer.open_times) > 0).all()
    assert (answer.open_times % HOUR.ms == 0).all()
    assert (answer.open_times + HOUR.ms <= CLOSED).all()


@pytest.mark.parametrize("price", [None, 0, 0.0, float("nan")])
def test_a_row_without_prices_and_volume_says_that_there_was_no_trade(price: float | None) -> None:
    answer = examine([row(0), [START + HOUR.ms, *4 * [price], 0], row(2)], CLOSED, HOUR)
    assert answer.quiet.tolist() == [START + HOUR.ms]
    assert answer.refused == {}
    assert examine([[START, *4 * [price], 1.0]], CLOSED, HOUR).refused != {}, "a volume without a price is no such row"


def test_a_row_without_prices_beside_a_candle_of_the_same_hour_contradicts_it() -> None:
    answer = examine([row(0), [START, 0, 0, 0, 0, 0]], CLOSED, HOUR)
    assert answer.refused == {START: "two candles that contradict each other"}
    assert len(answer.quiet) == len(answer.open_times) == 0


def test_a_row_within_the_newest_closed_hour_is_off_the_grid_and_not_still_open() -> None:
    """An open time of 08:28:15 in the hour that closed at 09:00."""
    answer = examine([row(8), [START + 9 * HOUR.ms + 1_695_000, *row(9)[1:]]], CLOSED, HOUR)
    assert answer.refused == {START + 9 * HOUR.ms: "a candle off the grid"}
    assert (answer.first, answer.last) == (START + 8 * HOUR.ms, START + 9 * HOUR.ms)


def test_a_row_off_the_grid_takes_nothing_from_the_candle_of_its_hour() -> None:
    answer = examine([row(3), [START + 3 * HOUR.ms + 1_695_000, *row(3, close=10.5)[1:]]], CLOSED, HOUR)
    assert answer.open_times.tolist() == [START + 3 * HOUR.ms]
    assert answer.refused == {}


@pytest.mark.parametrize(("factor", "unit"), [(1, ""), (1e-3, "seconds"), (1e3, "microseconds"), (1e6, "nothing that is known")])
def test_times_in_another_unit_are_told(factor: float, unit: str) -> None:
    assert examine([[START * factor, *row(0)[1:]]], CLOSED, HOUR).unit == (unit if factor < 1e4 else "")
    assert misread(np.array([START * factor])) == (unit if factor < 1e4 else "nanoseconds")
