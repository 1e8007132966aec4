"""The ledger's scores, looked at with distrust: on time, once, of the prices that came, and never changed again."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cryptod.daemon.records import Records
from cryptod.daemon.scoring import LATE_HOURS, Scoring
from cryptod.daemon.service import Service
from cryptod.market import CANDLE, HOUR, MAX_HORIZON, NO_TRADE, NOT_FETCHED, Panel, UInt8
from cryptod.store import jobs, ledger
from cryptod.store.environment import open_environment
from cryptod.store.jobs import JobStore
from cryptod.store.ledger import Ledger
from tests.outcomes import START, World

HOURS = 400
WEEKS = 370
COINS = 3


class House:
    """A ledger and what scores it, on the prices of a made-up world. ``status``: what the candle store knows of each hour."""

    def __init__(self, path: Path) -> None:
        self.world = World(hours=HOURS, coins=COINS)
        self.environment = open_environment(path, databases=(*jobs.DATABASES, *ledger.DATABASES), writer=True)
        self.disk = ThreadPoolExecutor(1)
        self.ledger = Ledger(self.environment)
        self.status: UInt8 = np.full((len(self.world.steps), COINS), CANDLE, np.uint8)
        self.closes = 100 * np.exp(np.cumsum(self.world.steps, axis=0))
        self.start()

    def start(self) -> None:
        """As after a restart of the daemon: nothing is remembered but what is on disk."""
        self.disk.submit(int).result()
        self.scoring = Scoring(self.ledger, Records(JobStore(self.environment), self.disk, lambda error: None), self.candles)

    def candles(self, symbols: tuple[str, ...], start: int, cutoff: int) -> Panel:
        """The candle that closes at `START` + k h has the price of step k."""
        rows = np.arange((start - START) // HOUR.ms + 1, (cutoff - START) // HOUR.ms + 1)
        columns = [self.world.symbols.index(symbol) for symbol in symbols]
        inside = np.clip(rows, 0, len(self.closes) - 1)
        status = np.where((rows >= 0)[:, None], self.status[inside][:, columns], NOT_FETCHED).astype(np.uint8)
        values = np.repeat(self.closes[inside][:, columns, None], 5, axis=2)
        values[status != CANDLE] = np.nan
        return Panel(symbols, start, values, status)

    def issue(self, hour: int, **changes: Any) -> int:
        return self.ledger.append(self.world.issue(hour, close=self.closes[hour].copy(), **changes))

    def mature(self, hour: int) -> None:
        self.scoring.mature(START + hour * HOUR.ms)

    def scored(self) -> list[int]:
        """The hours whose forecasts are scored."""
        return [(score.cutoff - START) // HOUR.ms for score in self.ledger.scores(0, 1 << 60)]

    def bytes_of(self, database: str) -> dict[bytes, bytes]:
        with self.environment.read() as txn:
            return dict(txn.scan(database))

    def close(self) -> None:
        self.disk.shutdown()
        self.environment.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "serving")
    yield house
    house.close()


def test_every_issue_is_scored_in_the_hour_in_which_its_last_outcome_is_known_and_agrees_with_the_world(house: House) -> None:
    for hour in range(60):
        house.mature(hour)
        assert house.scored() == list(range(max(0, hour - MAX_HORIZON + 1)))
        house.issue(hour)
    for score in house.ledger.scores(0, 1 << 60):
        true = house.world.outcomes((score.cutoff - START) // HOUR.ms)
        assert np.allclose(score.outcome, true, rtol=1e-4, atol=1e-9)
        issue = house.ledger.get(score.cutoff, score.seq)
        assert issue is not None
        assert np.array_equal(score.level, (issue.quantiles < true[:, :, None]).sum(axis=-1))


def test_each_is_scored_once_however_often_it_is_looked_at_and_restarted(house: House) -> None:
    for hour in range(30):
        house.issue(hour)
    house.issue(3)  # the same hour again: an issue of its own, with a score of its own
    house.mature(54)
    first = house.bytes_of("scores")
    assert len(first) == 31
    house.closes *= np.exp(house.world.random.normal(0, 0.1, house.closes.shape))  # a history that is told otherwise afterwards
    for hour in (54, 55, 60):
        house.mature(hour)
        house.start()
    assert house.bytes_of("scores") == first


def test_what_was_issued_stays_to_the_last_bit_through_scoring_restarts_and_the_pruning_of_references(house: House) -> None:
    for hour in range(30):
        house.issue(hour)
    before = house.bytes_of("issues")
    house.mature(60)
    house.start()
    house.mature(80)
    house.ledger.prune(START - 1, references_before=START + 90 * HOUR.ms)
    assert house.bytes_of("issues") == before


def test_a_second_score_of_an_issue_does_not_replace_the_first(house: House) -> None:
    seq = house.issue(0)
    issue = house.ledger.get(START, seq)
    assert issue is not None
    assert house.ledger.put_score(house.world.score(issue, seq)) is True
    kept = house.bytes_of("scores")
    assert house.ledger.put_score(house.world.score(issue, seq, outcome=np.zeros((COINS, MAX_HORIZON), np.float32))) is False
    assert house.bytes_of("scores") == kept


def test_after_weeks_away_what_was_issued_before_is_scored_all_the_same(house: House) -> None:
    for hour in range(5):
        house.issue(hour)
    house.start()
    house.mature(WEEKS)
    assert house.scored() == list(range(5))


def test_after_weeks_without_a_refresh_too(house: House) -> None:
    for hour in range(30):
        house.mature(hour)
        house.issue(hour)
    house.mature(WEEKS)
    assert house.scored() == list(range(30))


def test_candles_that_come_late_are_waited_for_and_then_counted(house: House) -> None:
    house.issue(0)
    house.status[10:14, 1] = NOT_FETCHED
    house.mature(MAX_HORIZON)
    house.mature(MAX_HORIZON + LATE_HOURS - 1)
    assert house.scored() == []
    house.status[10:14, 1] = CANDLE
    house.mature(MAX_HORIZON + LATE_HOURS - 1)
    (score,) = house.ledger.scores(0, 1 << 60)
    assert np.isfinite(score.outcome).all()


def test_candles_that_never_come_are_not_waited_for_longer_than_some_hours_and_a_halt_is_no_gap(house: House) -> None:
    house.issue(0)
    house.status[10:14, 1] = NOT_FETCHED
    house.status[10:14, 2] = NO_TRADE
    for hour in range(MAX_HORIZON, MAX_HORIZON + LATE_HOURS):
        house.mature(hour)
        assert house.scored() == []
    house.mature(MAX_HORIZON + LATE_HOURS)
    (score,) = house.ledger.scores(0, 1 << 60)
    assert np.argwhere(~np.isfinite(score.outcome)).tolist() == [[1, h] for h in range(9, 13)]
    assert (score.level[1, 9:13] == 255).all()
    assert np.allclose(score.outcome[2, 9:13], np.log(house.closes[9, 2] / house.closes[0, 2]), rtol=1e-4)


async def test_a_machine_whose_clock_jumps_to_another_year_keeps_its_ledger(house: House) -> None:
    for hour in range(60):
        house.issue(hour)

    async def on_disk(work: Any) -> None:
        work()

    service = SimpleNamespace(
        config=SimpleNamespace(storage=SimpleNamespace(ledger_days=2)),
        clock=SimpleNamespace(now=lambda: START + 100 * 365 * 24 * HOUR.ms),
        publisher=SimpleNamespace(published_to=START + 59 * HOUR.ms, on_disk=on_disk),
        ledger=house.ledger,
        environment=house.environment,
    )
    await Service._prune(service)  # type: ignore[arg-type]  # what it needs of a service
    assert house.ledger.stats()["first_cutoff"] == START + (59 - 48) * HOUR.ms
    assert house.ledger.stats()["issues"] == 49


def test_one_that_waits_does_not_hold_up_the_others(house: House) -> None:
    house.issue(0)
    house.ledger.append(house.world.issue(1, close=house.closes[1].copy()).coins(house.world.symbols[1:]))
    house.status[20, 0] = NOT_FETCHED
    house.mature(MAX_HORIZON + 1)
    assert house.scored() == [1]
