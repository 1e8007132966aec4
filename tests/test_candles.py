"""The candle store: merging, revisions, gaps, no-trade hours, panels, and what it does with damage."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptod.errors import DataError, StoreError
from cryptod.market import CANDLE, CLOSE, HOUR, NO_TRADE, NOT_FETCHED, Float64, Int64
from cryptod.store.candles import WEEK_MS, CandleStore, Fetched, reading

START = 1_700_000_000_000 // WEEK_MS * WEEK_MS - 5 * HOUR.ms  # the ranges cross a week's end


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CandleStore]:
    with CandleStore.open(tmp_path / "candles", writer=True) as store:
        yield store


def hours(*numbers: int) -> Int64:
    return START + HOUR.ms * np.array(numbers, np.int64)


def candles(count: int, close: float = 100.0) -> Float64:
    return np.column_stack([np.full(count, close + column) for column in range(5)])


def write(store: CandleStore, symbol: str, first: int, last: int, close: float = 100.0) -> tuple[int, int]:
    return store.write(symbol, hours(*range(first, last)), candles(last - first, close))


def test_candles_are_read_back_as_they_were_written_across_weeks(store: CandleStore) -> None:
    values = np.random.default_rng(0).uniform(1, 2, (400, 5))
    assert store.write("BTC/USDT", hours(*range(400)), values) == (400, 0)
    panel = store.panel(["BTC/USDT"], START, START + 400 * HOUR.ms)
    assert panel.symbols == ("BTC/USDT",)
    assert (panel.status == CANDLE).all()
    np.testing.assert_array_equal(panel.values[:, 0], values)
    assert panel.end == START + 400 * HOUR.ms
    np.testing.assert_array_equal(panel.open_times, hours(*range(400)))


def test_the_same_candles_again_are_neither_new_nor_revised(store: CandleStore) -> None:
    assert write(store, "BTC/USDT", 0, 10) == (10, 0)
    assert write(store, "BTC/USDT", 0, 10) == (0, 0)
    assert write(store, "BTC/USDT", 5, 15) == (5, 0)


def test_a_changed_candle_is_counted_as_revised_and_replaces_the_old_one(store: CandleStore) -> None:
    write(store, "BTC/USDT", 0, 10)
    assert write(store, "BTC/USDT", 8, 12, close=200.0) == (2, 2)
    panel = store.panel(["BTC/USDT"], START, START + 12 * HOUR.ms)
    assert panel.values[:, 0, CLOSE].tolist() == [103.0] * 8 + [203.0] * 4


def test_an_unknown_coin_is_a_column_that_was_never_fetched(store: CandleStore) -> None:
    write(store, "BTC/USDT", 0, 3)
    panel = store.panel(["ETH/USDT", "BTC/USDT"], START, START + 3 * HOUR.ms)
    assert (panel.status[:, 0] == NOT_FETCHED).all()
    assert np.isnan(panel.values[:, 0]).all()
    assert (panel.status[:, 1] == CANDLE).all()


def test_gaps_are_half_open_ranges_of_hours_never_fetched(store: CandleStore) -> None:
    assert store.gaps("BTC/USDT", START, START + 10 * HOUR.ms) == [(START, START + 10 * HOUR.ms)]
    write(store, "BTC/USDT", 2, 4)
    store.mark_no_trade("BTC/USDT", hours(4, 5))
    write(store, "BTC/USDT", 8, 9)
    expected = [tuple(hours(0, 2).tolist()), tuple(hours(6, 8).tolist()), tuple(hours(9, 10).tolist())]
    assert store.gaps("BTC/USDT", START, START + 10 * HOUR.ms) == expected
    assert store.gaps("BTC/USDT", START + 2 * HOUR.ms, START + 6 * HOUR.ms) == []


def test_a_no_trade_hour_never_hides_a_candle_and_a_late_candle_replaces_it(store: CandleStore) -> None:
    write(store, "BTC/USDT", 0, 2)
    store.mark_no_trade("BTC/USDT", hours(1, 2))
    panel = store.panel(["BTC/USDT"], START, START + 3 * HOUR.ms)
    assert panel.status[:, 0].tolist() == [CANDLE, CANDLE, NO_TRADE]
    assert np.isnan(panel.values[2]).all()
    assert write(store, "BTC/USDT", 2, 3) == (1, 0)
    assert store.status("BTC/USDT", START, START + 3 * HOUR.ms).tolist() == [CANDLE] * 3


def test_the_span_runs_from_the_first_candle_to_the_close_of_the_last(store: CandleStore) -> None:
    assert store.span("BTC/USDT") is None
    store.mark_no_trade("BTC/USDT", hours(0, 900))
    assert store.span("BTC/USDT") is None
    write(store, "BTC/USDT", 3, 5)
    write(store, "BTC/USDT", 600, 601)
    assert store.span("BTC/USDT") == (START + 3 * HOUR.ms, START + 601 * HOUR.ms)


def test_coins_are_listed_and_dropped_one_by_one(store: CandleStore) -> None:
    for symbol in ("ETH/USDT", "BTC/USDT", "BTC/USDTX"):
        write(store, symbol, 0, 2)
    assert store.symbols() == ["BTC/USDT", "BTC/USDTX", "ETH/USDT"]
    store.drop("BTC/USDT")
    assert store.symbols() == ["BTC/USDTX", "ETH/USDT"]
    store.drop("BTC/USDT")
    assert store.span("BTC/USDTX") is not None


def test_old_weeks_are_dropped_and_the_week_of_the_bound_is_kept(store: CandleStore) -> None:
    write(store, "BTC/USDT", 0, 400)
    write(store, "ETH/USDT", 390, 400)
    assert store.drop_before(START + 200 * HOUR.ms) == 2
    span = store.span("BTC/USDT")
    assert span is not None
    assert span[0] == START + (5 + 168) * HOUR.ms
    assert store.drop_before(START + 200 * HOUR.ms) == 0


def test_several_coins_are_written_in_one_go(store: CandleStore) -> None:
    write(store, "A/USDT", 0, 1)
    batch = [Fetched("A/USDT", hours(0, 1), candles(2, 7.0), hours(2)), Fetched("B/USDT", hours(0), candles(1))]
    assert store.apply(batch) == (2, 1)
    assert store.apply([]) == (0, 0)
    assert store.status("A/USDT", START, START + 3 * HOUR.ms).tolist() == [CANDLE, CANDLE, NO_TRADE]


def test_times_off_the_hour_are_refused(store: CandleStore) -> None:
    with pytest.raises(DataError, match="not on the hour"):
        store.write("BTC/USDT", hours(0) + 1, candles(1))
    with pytest.raises(DataError, match="not on the hour"):
        store.write("BTC/USDT", hours(0, 1), candles(1))
    for start, end in ((START + 1, START + HOUR.ms), (START, START + 1), (-HOUR.ms, START)):
        with pytest.raises(DataError, match="does not lie on hours"):
            store.panel(["BTC/USDT"], start, end)


def test_an_empty_range_is_an_empty_panel(store: CandleStore) -> None:
    assert store.panel(["BTC/USDT"], START, START).values.shape == (0, 1, 5)
    assert store.panel([], START, START + HOUR.ms).values.shape == (1, 0, 5)


def test_small_records_are_kept_by_name_and_by_value(tmp_path: Path) -> None:
    with CandleStore.open(tmp_path / "candles", writer=True) as store:
        assert store.facts("universe") is None
        store.set_facts("universe", {"symbols": ["BTC/USDT"], "at": START})
        store.set_facts("universe", {"symbols": ["BTC/USDT"], "at": START})
    with CandleStore.open(tmp_path / "candles") as store:
        assert store.facts("universe") == {"symbols": ["BTC/USDT"], "at": START}


def test_a_damaged_chunk_reads_as_hours_never_fetched_and_is_healed_by_writing_again(store: CandleStore) -> None:
    write(store, "BTC/USDT", 0, 10)

    def damage(txn: object) -> None:
        for key, value in list(txn.scan("chunks")):  # type: ignore[attr-defined]
            txn.put("chunks", key, value[:3000] + bytes([value[3000] ^ 1]) + value[3001:])  # type: ignore[attr-defined]

    store._env.write(damage)
    assert store.gaps("BTC/USDT", START, START + 10 * HOUR.ms) == [(START, START + 10 * HOUR.ms)]
    assert store.span("BTC/USDT") is None
    assert write(store, "BTC/USDT", 0, 10) == (10, 0)
    assert store.gaps("BTC/USDT", START, START + 10 * HOUR.ms) == []


def test_a_damaged_record_is_refused(store: CandleStore) -> None:
    store._env.write(lambda txn: txn.put("facts", b"universe", b"\xc1"))
    with pytest.raises(StoreError, match=r"record .universe. .* is damaged"):
        store.facts("universe")


def test_a_reader_of_a_store_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"):
        CandleStore.open(tmp_path / "candles")


def test_threads_that_read_at_once_do_not_stand_in_each_others_way(tmp_path: Path) -> None:
    path = tmp_path / "candles"
    with CandleStore.open(path, writer=True) as store:
        write(store, "BTC/USDT", 0, 400)

    def read(_: int) -> int:
        with reading(path) as store:
            return int((store.panel(["BTC/USDT"], START, START + 400 * HOUR.ms).status == CANDLE).sum())

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(read, range(40))) == {400}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 380), st.integers(1, 40), st.sampled_from([1.0, 2.0]), st.booleans()), max_size=12))
def test_any_sequence_of_answers_leaves_what_a_plain_dictionary_would_hold(
    tmp_path_factory: pytest.TempPathFactory, answers: list[tuple[int, int, float, bool]]
) -> None:
    model: dict[int, float | None] = {}
    with CandleStore.open(tmp_path_factory.mktemp("model") / "candles", writer=True) as store:
        for first, count, close, quiet in answers:
            numbers = range(first, first + count)
            if quiet:
                store.mark_no_trade("X/USDT", hours(*numbers))
                for number in numbers:
                    model.setdefault(number, None)
            else:
                new = sum(model.get(number) is None for number in numbers)
                revised = sum(model.get(number) not in (None, close) for number in numbers)
                assert write(store, "X/USDT", first, first + count, close) == (new, revised)
                model.update(dict.fromkeys(numbers, close))
        panel = store.panel(["X/USDT"], START, START + 420 * HOUR.ms)
    for number in range(420):
        value = model.get(number, -1.0)
        expected = NOT_FETCHED if value == -1.0 else NO_TRADE if value is None else CANDLE
        assert panel.status[number, 0] == expected
        assert np.isnan(panel.values[number, 0]).all() if expected != CANDLE else panel.values[number, 0, 0] == value


def test_hours_that_close_after_a_time_are_forgotten_and_no_others(store: CandleStore) -> None:
    write(store, "BTC/USDT", 0, 400)
    write(store, "ETH/USDT", 0, 50)
    assert store.drop_after(START + 100 * HOUR.ms) == 3
    panel = store.panel(["BTC/USDT", "ETH/USDT"], START, START + 400 * HOUR.ms)
    assert (panel.status[:100, 0] == CANDLE).all()
    assert (panel.status[100:, 0] == NOT_FETCHED).all()
    assert np.isnan(panel.values[100:, 0]).all()
    assert (panel.status[:50, 1] == CANDLE).all()
    assert store.drop_after(START + 100 * HOUR.ms) == 0
    assert write(store, "BTC/USDT", 90, 120) == (20, 0)
