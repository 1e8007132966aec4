"""The forecast cache: what is fresh, what is kept, and what a restart finds."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryptod.errors import StoreError
from cryptod.protocol import TOP_KEYS
from cryptod.store.environment import Environment, open_environment
from cryptod.store.forecasts import DATABASES, GRACE_MS, SKEW_MS, Entry, ForecastCache
from tests.disks import small_disk

HOUR = 3_600_000
NOW = 472_000 * HOUR


def entry(symbol: str = "BTC/USDT", *, issued: int = NOW, ttl: int = HOUR, **other: Any) -> Entry:
    values: dict[str, Any] = {
        "symbol": symbol,
        "cutoff": issued - issued % HOUR,
        "issued": issued,
        "expires": issued + ttl,
        "model": "full-1-b0",
        "body": b"\x81\x01" + symbol.encode() + bytes(2600),
        "close": 27_123.45,
        "score": 0.1,
        "p_up": np.linspace(0.4, 0.6, 24, dtype=np.float32),
        "volatility": np.linspace(0.01, 0.05, 24, dtype=np.float32),
        "expected_return": np.linspace(-0.001, 0.001, 24, dtype=np.float32),
    }
    return Entry(**(values | other))


def same(one: Entry | None, other: Entry | None) -> bool:
    assert one is not None
    assert other is not None
    return all(np.array_equal(getattr(one, field.name), getattr(other, field.name)) for field in fields(Entry))


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    with open_environment(tmp_path / "serving", databases=DATABASES, writer=True) as environment:
        yield environment


@pytest.fixture
def cache(environment: Environment) -> ForecastCache:
    return ForecastCache(environment)


def test_an_entry_is_fresh_until_it_expires_and_all_reads_are_counted(cache: ForecastCache) -> None:
    assert cache.get("BTC/USDT", NOW) is None
    assert cache.stats()["hit_rate"] == 0
    one = entry()
    cache.put([one])
    assert cache.get("BTC/USDT", NOW) is one
    assert cache.get("BTC/USDT", NOW + HOUR - 1) is one
    assert cache.get("BTC/USDT", NOW + HOUR) is None
    assert cache.last("BTC/USDT") is one
    assert cache.last("ETH/USDT") is None
    assert cache.stats() == {
        "entries": 1,
        "bytes": len(one.body),
        "hits": 2,
        "misses": 1,
        "expired": 1,
        "hit_rate": 0.5,
        "stored": 1,
        "dropped": 0,
        "damaged": 0,
        "oldest": NOW,
        "newest": NOW,
    }


def test_an_entry_of_a_clock_that_was_set_back_is_not_fresh(cache: ForecastCache) -> None:
    cache.put([entry()])
    assert cache.get("BTC/USDT", NOW - SKEW_MS + 1) is not None
    assert cache.get("BTC/USDT", NOW - SKEW_MS) is None
    assert cache.get("BTC/USDT", NOW - 5 * 24 * HOUR) is None


def test_a_restart_finds_all_that_was_put_fresh_or_not(environment: Environment, cache: ForecastCache) -> None:
    entries = [entry(f"C{i}/USDT", issued=NOW - i * HOUR, score=float(i)) for i in range(100)]
    cache.put(entries)
    cache.put([entry("C7/USDT", score=77.0)])
    cache.clear(["C8/USDT"])
    again = ForecastCache(environment)
    assert len(again) == 99
    assert all(same(again.last(e.symbol), cache.last(e.symbol)) for e in entries if e.symbol != "C8/USDT")
    assert again.get("C0/USDT", NOW) is not None
    assert again.get("C50/USDT", NOW) is None
    assert {e.symbol for e in again.entries()} == {e.symbol for e in cache.entries()}


def test_what_has_been_expired_for_two_days_is_dropped(environment: Environment, cache: ForecastCache) -> None:
    cache.put([entry("OLD/USDT"), entry("NEW/USDT", issued=NOW + 1)])
    assert cache.expire(NOW + HOUR + GRACE_MS) == 0
    assert cache.expire(NOW + HOUR + GRACE_MS + 1) == 1
    assert [e.symbol for e in ForecastCache(environment).entries()] == ["NEW/USDT"]
    assert cache.expire(NOW + 2 * HOUR, grace=0) == 1
    assert len(cache) == 0


def test_clearing_some_and_all(environment: Environment, cache: ForecastCache) -> None:
    cache.put([entry(symbol) for symbol in ("A/USDT", "B/USDT", "C/USDT")])
    assert cache.clear(["A/USDT", "A/USDT", "NONE/USDT"]) == 1
    assert cache.clear([]) == 0
    assert cache.clear() == 2
    assert cache.clear() == 0
    assert cache.stats()["dropped"] == 3
    assert len(ForecastCache(environment)) == 0


def test_top_sorts_by_each_key_at_a_horizon(cache: ForecastCache) -> None:
    rising, falling = np.linspace(0, 1, 24, dtype=np.float32), np.linspace(1, 0, 24, dtype=np.float32)
    cache.put(
        [
            entry("A/USDT", score=1.0, p_up=rising, volatility=rising, expected_return=rising),
            entry("B/USDT", score=2.0, p_up=falling, volatility=falling, expected_return=falling),
            entry("C/USDT", score=float("nan"), p_up=np.full(24, np.nan, np.float32), volatility=rising[:3], expected_return=rising),
        ]
    )

    def names(*arguments: Any, **keywords: Any) -> str:
        return "".join(e.symbol[0] for e in cache.top(*arguments, **keywords))

    assert names(20) == "BA"
    assert names(1) == "B"
    assert names(0) == ""
    assert [names(20, by, 1) for by in TOP_KEYS] == ["BA", "BA", "BAC", "BAC"]
    assert [names(20, by, 24) for by in TOP_KEYS] == ["BA", "AB", "AB", "ACB"]
    assert names(20, "expected_return", 24, among=["B/USDT", "C/USDT"]) == "CB"
    assert names(20, "p_up", 0) == names(20, "p_up", 25) == ""


def test_top_knows_of_what_came_and_what_went(cache: ForecastCache) -> None:
    cache.put([entry("A/USDT", score=1.0), entry("B/USDT", score=2.0)])
    assert [one.symbol for one in cache.top(2)] == ["B/USDT", "A/USDT"]
    cache.put([entry("A/USDT", score=3.0)])
    assert [one.score for one in cache.top(2)] == [3.0, 2.0]
    cache.clear(["A/USDT"])
    assert [one.symbol for one in cache.top(2)] == ["B/USDT"]


@pytest.mark.parametrize(
    "harm", [lambda r: r[:-1], lambda r: r[:50] + bytes((r[50] ^ 8,)) + r[51:], lambda r: b"\x09" + r[1:], lambda _: b""]
)
def test_a_damaged_record_is_dropped_and_counted(environment: Environment, cache: ForecastCache, harm: Any) -> None:
    cache.put([entry("A/USDT"), entry("B/USDT")])
    with environment.read() as txn:
        record = txn.get("forecasts", b"A/USDT")
    assert record is not None
    environment.write(lambda txn: txn.put("forecasts", b"A/USDT", harm(record)))
    again = ForecastCache(environment)
    assert [e.symbol for e in again.entries()] == ["B/USDT"]
    assert again.stats()["damaged"] == 1
    assert ForecastCache(environment).stats()["damaged"] == 0


def test_a_record_under_another_coins_key_is_damage(environment: Environment, cache: ForecastCache) -> None:
    cache.put([entry("A/USDT")])
    with environment.read() as txn:
        record = txn.get("forecasts", b"A/USDT")
    assert record is not None
    environment.write(lambda txn: txn.put("forecasts", b"B/USDT", record))
    assert [e.symbol for e in ForecastCache(environment).entries()] == ["A/USDT"]


def test_a_reader_beside_a_writer_sees_all_of_a_refresh_or_nothing(cache: ForecastCache) -> None:
    symbols = [f"C{i}/USDT" for i in range(60)]
    cache.put([entry(symbol, score=0.0) for symbol in symbols])
    done = threading.Event()
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for turn in range(1, 150):
                cache.put([entry(symbol, score=float(turn)) for symbol in symbols] + [entry(f"X{turn}/USDT", score=-1.0)], durable=False)
        except BaseException as error:  # noqa: BLE001 - shown in the test's own thread
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while not done.is_set():
        assert len({e.score for e in cache.top(60)}) == 1
        cache.stats()
    thread.join()
    assert not failures
    assert len(cache) == 60 + 149


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "256k") as place:
        yield place


def test_on_a_full_disk_the_old_entries_stay_and_memory_still_takes_new_ones(disk: Path) -> None:
    with open_environment(disk / "serving", databases=DATABASES, writer=True) as environment:
        cache = ForecastCache(environment)
        old = entry("A/USDT")
        cache.put([old])
        free = os.statvfs(disk)
        (disk / "filler").write_bytes(bytes(free.f_bavail * free.f_bsize))
        many = [entry(symbol, body=bytes(60_000)) for symbol in ("A/USDT", "B/USDT")]
        with pytest.raises(StoreError, match="full disk"):
            cache.put(many)
        assert cache.get("A/USDT", NOW) is old
        assert len(cache) == 1
        cache.put(many, durable=False)
        assert cache.get("B/USDT", NOW) is many[1]
        assert [e.symbol for e in ForecastCache(environment).entries()] == ["A/USDT"]
        (disk / "filler").unlink()
        cache.put(many)
        assert len(ForecastCache(environment)) == 2
