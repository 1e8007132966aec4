"""Tables out of real stores, chunk by chunk; and written as CSV, JSON and Parquet."""

from __future__ import annotations

import asyncio
import csv
import importlib.util
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest

from cryptod.daemon.export import COINS, HOURS, LEVELS, LOOKS, Exports
from cryptod.errors import CryptodError, RequestError
from cryptod.market import HOUR, MAX_HORIZON, SERVED
from cryptod.store import forecasts, jobs, ledger
from cryptod.store.candles import CandleStore, Fetched
from cryptod.store.environment import open_environment
from cryptod.store.ledger import Issue, Ledger, Score, round_issue
from cryptod.tables import Columns, frame
from ctl.export import WRITERS, moment, without_rows, write

START = 1_709_632_800_000
MANY = tuple(f"C{number:02}/USDT" for number in range(2 * COINS + 3))


def issue(cutoff: int, symbols: tuple[str, ...], seed: int) -> Issue:
    random = np.random.default_rng(seed)
    quantiles = np.sort(random.normal(size=(len(symbols), MAX_HORIZON, 9)), axis=-1).astype(np.float32)
    figures = random.uniform(0.1, 0.9, size=(2, len(symbols), MAX_HORIZON)).astype(np.float32)
    return Issue(
        issued=cutoff + 9000, cutoff=cutoff, symbols=symbols, models=("m",) * len(symbols), close=random.uniform(1, 2, len(symbols)),
        quantiles=round_issue(quantiles), p_up=round_issue(figures[0]), volatility=round_issue(figures[1]),
        flags=(("base", "young"),) + ((),) * (len(symbols) - 1),
    )  # fmt: skip


class House:
    """A ledger of three issues, one of them scored, and candles of two coins with a gap."""

    def __init__(self, folder: Path, disk: ThreadPoolExecutor) -> None:
        databases = (*forecasts.DATABASES, *jobs.DATABASES, *ledger.DATABASES)
        self.environment = open_environment(folder / "serving", databases=databases, writer=True)
        self.ledger = Ledger(self.environment)
        self.issues = [issue(START, MANY, 1), issue(START, ("C00/USDT",), 2), issue(START + HOUR.ms, MANY[:2], 3)]
        self.seqs = [self.ledger.append(one) for one in self.issues]
        coins = len(MANY)
        outcome = np.full((coins, MAX_HORIZON), 0.5, np.float32)
        outcome[0, 0] = np.nan
        level = np.full((coins, MAX_HORIZON), 4, np.uint8)
        level[0, 0] = 255
        loss = np.ones((2, coins, MAX_HORIZON), np.float32)
        self.ledger.put_score(Score(START, self.seqs[0], MANY, (SERVED, "ewma"), loss, level, outcome))
        hours = np.arange(HOURS + 10, dtype=np.int64)
        times = START + HOUR.ms * np.delete(hours, 5)
        values = np.column_stack([np.arange(len(times), dtype=float) + 1] * 5)
        with CandleStore.open(folder / "candles", writer=True) as candles:
            candles.apply([Fetched(symbol, times, values, np.array([], np.int64)) for symbol in ("AA/USDT", "BB/USDT")])
        self.exports = Exports(list, self.ledger, folder / "candles", disk)

    def chunks(self, what: str, symbols: tuple[str, ...] | None = None, since: int = 0, until: int = 0) -> Iterator[Columns]:
        after: str | None = ""
        while after is not None:
            wanted = None if symbols is None else frozenset(symbols)
            reply: dict[str, Any] = msgpack.unpackb(asyncio.run(self.exports.chunk(what, since, until, wanted, after)))
            after = reply["after"]
            yield reply["columns"]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with ThreadPoolExecutor(1) as disk:
        made = House(tmp_path, disk)
        yield made
        made.environment.close()


def joined(chunks: Iterator[Columns]) -> Columns:
    found: Columns = {}
    for columns in chunks:
        assert len({len(values) for values in columns.values()}) == 1
        for name, values in columns.items():
            found.setdefault(name, []).extend(values)
    return found


def test_the_ledger_comes_out_whole_in_small_chunks_bit_for_bit(house: House) -> None:
    sizes = [len(columns["cutoff"]) for columns in house.chunks("ledger")]
    assert sizes == [COINS * 24, COINS * 24, 3 * 24, 24, 48, 0]
    found = joined(house.chunks("ledger"))
    for name, place in zip(LEVELS, range(9), strict=True):
        expected = np.concatenate([one.quantiles[:, :, place].ravel() for one in house.issues])
        assert np.array(found[name], np.float32).tobytes() == expected.tobytes()
    assert found["symbol"][:48] == ["C00/USDT"] * 24 + ["C01/USDT"] * 24
    assert found["horizon"][:25] == [*range(1, 25), 1]
    assert (found["flags"][0], found["flags"][24]) == ("base young", "")
    assert found["close"][24] == house.issues[0].close[1]


def test_a_part_of_the_ledger_is_what_was_asked_for(house: House) -> None:
    later = joined(house.chunks("ledger", since=START + 1))
    assert set(later["cutoff"]) == {START + HOUR.ms}
    assert set(joined(house.chunks("ledger", until=START + 1))["cutoff"]) == {START}
    one = joined(house.chunks("ledger", (MANY[-1],)))
    assert (set(one["symbol"]), len(one["cutoff"])) == ({MANY[-1]}, 24)
    assert joined(house.chunks("ledger", ("NO/USDT",)))["cutoff"] == []


def test_a_coin_that_few_issues_have_is_looked_for_in_small_steps(house: House) -> None:
    for number in range(LOOKS + 5):
        house.ledger.append(issue(START + (number + 100) * HOUR.ms, ("ZZ/USDT",), number))
    sizes = [len(columns["cutoff"]) for columns in house.chunks("ledger", ("C01/USDT",))]
    assert sizes == [24, 24, 0, 0, 0]
    assert set(joined(house.chunks("ledger", ("ZZ/USDT",)))["symbol"]) == {"ZZ/USDT"}
    assert len(joined(house.chunks("ledger", ("ZZ/USDT",)))["symbol"]) == 24 * (LOOKS + 5)


def test_scores_have_a_column_for_each_forecaster_and_nothing_where_nothing_is_known(house: House) -> None:
    found = joined(house.chunks("scores"))
    assert len(found["outcome"]) == len(MANY) * 24
    assert (found["outcome"][:2], found["level"][:2]) == ([None, 0.5], [None, 4])
    assert (found["loss_served"][0], found["loss_ewma"][0], found["loss_random_walk"][0]) == (1.0, 1.0, None)


def test_candles_are_those_that_there_are(house: House) -> None:
    found = joined(house.chunks("candles"))
    assert found["symbol"] == ["AA/USDT"] * (HOURS + 9) + ["BB/USDT"] * (HOURS + 9)
    assert found["open_time"][4:6] == [START + 4 * HOUR.ms, START + 6 * HOUR.ms]
    assert found["close"][: HOURS + 9] == [float(number + 1) for number in range(HOURS + 9)]
    part = joined(house.chunks("candles", ("BB/USDT",), START + 1, START + 4 * HOUR.ms))
    assert part["open_time"] == [START + hour * HOUR.ms for hour in (1, 2, 3)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("logs", 0, 0, None, ""), "no table 'logs'"),
        (("ledger", -1, 0, None, ""), "since and until"),
        (("ledger", 0, 0, None, "x:y:z"), "after is not"),
        (("ledger", 0, 0, None, "1"), "after is not"),
        (("candles", 0, 0, None, "AA/USDT x"), "after is not"),
    ],
)
def test_what_cannot_be_asked_is_refused(house: House, arguments: tuple[Any, ...], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        asyncio.run(house.exports.chunk(*arguments))


# Formats

CHUNKS: list[Columns] = [
    {"open_time": [START, START + HOUR.ms], "symbol": ["A/USDT", 'B"/USDT'], "close": [1.5, None]},
    {"open_time": [START], "symbol": ["C/USDT"], "close": [2.0]},
]


def test_a_coin_that_has_no_row_is_named_as_it_was_typed() -> None:
    asked = ["A/USDT", "a", "ausdt", "a-usdt", "NOSUCH", "C/USDT"]
    assert without_rows(asked, {"A/USDT", "B/USDT"}) == ["NOSUCH", "C/USDT"]


def test_csv_has_one_header_and_a_line_for_each_row() -> None:
    stream = io.BytesIO()
    assert write(CHUNKS, WRITERS["csv"](stream)) == (3, {"A/USDT", 'B"/USDT', "C/USDT"})
    found = list(csv.reader(io.StringIO(stream.getvalue().decode())))
    assert found == [
        ["open_time", "symbol", "close"], [str(START), "A/USDT", "1.5"], [str(START + HOUR.ms), 'B"/USDT', ""],
        [str(START), "C/USDT", "2.0"],
    ]  # fmt: skip


def test_json_is_a_document_a_line() -> None:
    stream = io.BytesIO()
    write(CHUNKS, WRITERS["json"](stream))
    rows = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert rows[1] == {"open_time": START + HOUR.ms, "symbol": 'B"/USDT', "close": None}
    assert len(rows) == 3


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed (the extra parquet)")
def test_parquet_has_typed_columns(tmp_path: Path) -> None:
    import pandas

    file = tmp_path / "x.parquet"
    with file.open("wb") as stream:
        write(CHUNKS, WRITERS["parquet"](stream))
    found = pandas.read_parquet(file)
    assert str(found["open_time"].dtype) == "datetime64[ms, UTC]"
    assert found["symbol"].tolist() == ["A/USDT", 'B"/USDT', "C/USDT"]
    assert found["close"].isna().tolist() == [False, True, False]


def test_a_frame_has_times_and_all_the_rows() -> None:
    found = frame(CHUNKS)
    assert (len(found), str(found["open_time"][0])) == (3, "2024-03-05 10:00:00+00:00")
    assert frame([{"open_time": [], "symbol": []}]).columns.tolist() == ["open_time", "symbol"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-03-05", 1_709_596_800_000),
        ("2024-03-05T10:00", START),
        ("2024-03-05T11:00+01:00", START),
        ("2d", START - 48 * HOUR.ms),
        ("36h", START - 36 * HOUR.ms),
        (str(START), START),
    ],
)
def test_moments_are_dates_ages_or_milliseconds(text: str, expected: int) -> None:
    assert moment(text, START) == expected


def test_what_is_no_moment_is_refused_with_what_is() -> None:
    with pytest.raises(CryptodError, match="'yesterday' is no time") as refused:
        moment("yesterday", START)
    assert "7d" in refused.value.hint
