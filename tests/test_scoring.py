"""Scoring: outcomes mature with their delay, teach the calibration once, and leave scores in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryptod.daemon import scoring as module
from cryptod.daemon.records import Records
from cryptod.daemon.scoring import Scoring, last_closes
from cryptod.forecast.model import SOURCES
from cryptod.market import CANDLE, HOUR, MAX_HORIZON, NO_TRADE, NOT_FETCHED, SERVED, Float64, Panel
from cryptod.store import jobs, ledger
from cryptod.store.environment import open_environment
from cryptod.store.jobs import JobStore
from cryptod.store.ledger import Issue, Ledger, round_issue

START = 1_685_620_800_000
SYMBOLS = ("AAA/USDT", "BBB/USDT")
LEVELS = np.array([-1.96, -1.645, -1.2816, -0.6745, 0.0, 0.6745, 1.2816, 1.645, 1.96])
SIGMA = 0.01

TRUTH = np.broadcast_to(SIGMA * np.sqrt(np.arange(1, MAX_HORIZON + 1))[:, None] * LEVELS, (2, MAX_HORIZON, 9)).astype(np.float32)


def factors(scoring: Scoring) -> Float64:
    """float64 [2, 24]: how much wider forecasts are issued than they are made."""
    issued = scoring.learning.calibration.apply(SYMBOLS, TRUTH)
    return np.asarray(issued[..., 6] / TRUTH[..., 6], np.float64)


class Market:
    """A random walk of two coins whose true volatility is ``SIGMA`` an hour; hours can be taken away."""

    def __init__(self, hours: int) -> None:
        steps = np.random.default_rng(5).normal(0, SIGMA, (hours, 2))
        self.closes = 100 * np.exp(np.cumsum(steps, axis=0))
        self.status = np.full((hours, 2), CANDLE, np.uint8)
        self.asked: list[tuple[int, int]] = []

    def at(self, cutoff: int) -> np.ndarray[Any, Any]:
        return np.asarray(self.closes[(cutoff - START) // HOUR.ms - 1])

    def __call__(self, symbols: tuple[str, ...], start: int, cutoff: int) -> Panel:
        self.asked.append((start, cutoff))
        rows = np.arange((start - START) // HOUR.ms, (cutoff - START) // HOUR.ms)
        inside = np.clip(rows, 0, None)
        values = np.repeat(self.closes[inside][:, :, None], 5, axis=2)
        status = np.where((rows >= 0)[:, None], self.status[inside], NOT_FETCHED).astype(np.uint8)
        values[status != CANDLE] = np.nan
        columns = [SYMBOLS.index(symbol) for symbol in symbols]
        return Panel(symbols, start, values[:, columns], status[:, columns])


class House:
    def __init__(self, path: Path, market: Market) -> None:
        self.environment = open_environment(path, databases=(*jobs.DATABASES, *ledger.DATABASES), writer=True)
        self.disk = ThreadPoolExecutor(1)
        self.ledger, self.market = Ledger(self.environment), market
        self.records = Records(JobStore(self.environment), self.disk, lambda error: None)
        self.scoring = Scoring(self.ledger, self.records, market)

    def issue(self, cutoff: int, width: float = 1.0, *, calibrated: bool = True) -> int:
        """A forecast that was made ``width`` times as wide as the truth."""
        made = width * TRUTH
        quantiles = round_issue(self.scoring.learning.calibration.apply(SYMBOLS, made) if calibrated else made)
        half = round_issue(np.full((2, MAX_HORIZON), 0.5, np.float32))
        issue = Issue(cutoff, cutoff, SYMBOLS, ("m", "m"), self.market.at(cutoff), quantiles, half, half)
        return self.ledger.append(issue, {"random_walk": round_issue(2 * quantiles)})

    def live(self, first: int, hours: int, width: float = 1.0) -> None:
        for hour in range(first, first + hours):
            cutoff = START + hour * HOUR.ms
            self.scoring.mature(cutoff)
            self.issue(cutoff, width)

    def close(self) -> None:
        self.disk.shutdown()
        self.environment.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "serving", Market(900))
    yield house
    house.close()


def test_forecasts_that_are_too_narrow_are_widened_by_what_became_of_them(house: House) -> None:
    house.live(30, 400, width=0.5)
    assert (factors(house.scoring)[:, 0] > 1.15).all()


def test_forecasts_that_are_right_are_left_alone(house: House) -> None:
    house.live(30, 400)
    assert np.abs(factors(house.scoring)[:, 0] - 1.0).max() < 0.15


def test_an_outcome_is_not_used_before_its_horizon_has_passed(house: House) -> None:
    house.issue(START + 30 * HOUR.ms, width=0.01)
    house.scoring.mature(START + 33 * HOUR.ms)
    moved = np.abs(factors(house.scoring)[0] - 1.0) > 1e-7
    assert moved.tolist() == [True] * 3 + [False] * (MAX_HORIZON - 3)


def test_what_was_issued_of_a_coin_that_another_has_replaced_since_has_no_outcome(house: House) -> None:
    cutoff = START + 30 * HOUR.ms
    house.issue(cutoff)
    house.scoring.renewed = {SYMBOLS[0]: cutoff + HOUR.ms}
    house.scoring.mature(cutoff + 40 * HOUR.ms)
    (score,) = house.ledger.scores(0, cutoff + HOUR.ms)
    assert np.isnan(score.outcome[0]).all()
    assert np.isfinite(score.outcome[1]).all()


def test_an_outcome_teaches_once_however_often_a_cutoff_is_matured(house: House) -> None:
    house.issue(START + 30 * HOUR.ms, width=0.01)
    house.scoring.mature(START + 31 * HOUR.ms)
    once = factors(house.scoring).copy()
    house.scoring.mature(START + 31 * HOUR.ms)
    assert np.array_equal(factors(house.scoring), once)


def test_of_several_issues_of_one_cutoff_the_first_counts(house: House) -> None:
    house.issue(START + 30 * HOUR.ms, width=0.01)
    house.issue(START + 30 * HOUR.ms, width=1000.0)
    house.scoring.mature(START + 31 * HOUR.ms)
    assert factors(house.scoring)[0, 0] > 1.0


def test_an_issue_that_names_nobody_anew_in_its_hour_is_not_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred in an hour (trainings, `cache pregenerate`) would otherwise be read again in each of the 24 hours after it."""
    monkeypatch.setattr(module, "REMEMBERED", 0)
    for _ in range(5):
        house.issue(START + 30 * HOUR.ms)
    read: list[tuple[int, int]] = []
    get = house.ledger.get

    def noted(cutoff: int, seq: int) -> Issue | None:
        read.append((cutoff, seq))
        return get(cutoff, seq)

    monkeypatch.setattr(house.ledger, "get", noted)
    house.scoring.mature(START + 31 * HOUR.ms)
    assert len(read) == 1


def test_a_restart_goes_on_where_the_calibration_was(house: House) -> None:
    house.live(30, 60, width=0.5)
    house.disk.submit(int).result()
    again = Scoring(house.ledger, house.records, house.market)
    assert np.array_equal(factors(again), factors(house.scoring))
    before = factors(again).copy()
    again.mature(START + 89 * HOUR.ms)
    assert np.array_equal(factors(again), before)


def test_issues_that_memory_has_no_room_for_teach_the_same(tmp_path: Path, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.live(30, 40, width=0.5)
    monkeypatch.setattr(module, "REMEMBERED", 3)  # one issue of two coins, and not a second one
    other = House(tmp_path / "other", house.market)
    other.live(30, 40, width=0.5)
    assert np.array_equal(factors(other.scoring), factors(house.scoring))
    other.close()


def test_hours_that_passed_while_nobody_looked_are_made_up_for_in_order(tmp_path: Path, house: House) -> None:
    other = House(tmp_path / "other", house.market)
    for hour in range(30, 40):
        house.scoring.mature(START + hour * HOUR.ms)
        house.issue(START + hour * HOUR.ms, 0.5, calibrated=False)
        other.issue(START + hour * HOUR.ms, 0.5, calibrated=False)
    house.scoring.mature(START + 40 * HOUR.ms)
    other.scoring.mature(START + 40 * HOUR.ms)
    assert np.allclose(factors(house.scoring), factors(other.scoring))
    other.close()


def test_an_issue_is_scored_when_its_last_horizon_has_matured_and_agrees_with_a_plain_computation(house: House) -> None:
    cutoff = START + 30 * HOUR.ms
    seq = house.issue(cutoff)
    house.scoring.mature(cutoff + (MAX_HORIZON - 1) * HOUR.ms)
    assert list(house.ledger.scores(0, cutoff + 1)) == []
    house.scoring.mature(cutoff + MAX_HORIZON * HOUR.ms)
    (score,) = house.ledger.scores(0, cutoff + 1)
    assert (score.cutoff, score.seq, score.forecasters) == (cutoff, seq, (SERVED, "random_walk"))
    issue = house.ledger.get(cutoff, seq)
    assert issue is not None
    for h in (1, 24):
        outcome = np.log(house.market.at(cutoff + h * HOUR.ms)[0] / house.market.at(cutoff)[0])
        losses = [
            max(level * (outcome - q), (level - 1) * (outcome - q))
            for level, q in zip((0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975), issue.quantiles[0, h - 1].tolist(), strict=True)
        ]
        assert score.loss[0, 0, h - 1] == pytest.approx(np.mean(losses), rel=5e-3)
        assert score.outcome[0, h - 1] == pytest.approx(outcome, rel=1e-3)
        assert score.level[0, h - 1] == sum(q < outcome for q in issue.quantiles[0, h - 1].tolist())
    assert house.ledger.unscored(0, cutoff + 1) == []


def test_an_hour_without_trades_keeps_the_close_and_one_that_was_not_fetched_has_no_outcome(house: House) -> None:
    house.market.status[31, 0] = NO_TRADE
    house.market.status[31, 1] = NOT_FETCHED
    closes = last_closes(house.market(SYMBOLS, START + 30 * HOUR.ms, START + 33 * HOUR.ms))
    assert closes[1, 0] == closes[0, 0]
    assert np.isnan(closes[1, 1])
    house.issue(START + 31 * HOUR.ms, width=0.01)
    house.scoring.mature(START + 32 * HOUR.ms)
    assert (house.scoring.learning.calibration.factors(SYMBOLS)[:, 0] == 1.0).tolist() == [False, True]


def test_the_day_s_issues_are_read_from_the_ledger_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    get = house.ledger.get

    def noted(cutoff: int, seq: int) -> Issue | None:
        read.append(cutoff)
        return get(cutoff, seq)

    monkeypatch.setattr(house.ledger, "get", noted)
    house.live(30, 20)
    assert sorted(read) == sorted(set(read))


def test_weights_of_the_forecasters_are_learned_and_kept_over_a_restart(house: House) -> None:
    said = {name: round_issue((0.3 if name == "ewma" else 3.0) * TRUTH / 0.3) for name in SOURCES}
    half = round_issue(np.full((2, MAX_HORIZON), 0.5, np.float32))
    for hour in range(30, 130):
        cutoff = START + hour * HOUR.ms
        house.scoring.mature(cutoff)
        issue = Issue(cutoff, cutoff, SYMBOLS, ("m", "m"), house.market.at(cutoff), said["model"], half, half, ((), ("pegged",)))
        house.ledger.append(issue, said)
    weights = house.scoring.learning.combination.weights
    assert weights[0, SOURCES.index("ewma")] > 1.5 * weights[0, SOURCES.index("log_har")]
    house.disk.submit(int).result()
    again = Scoring(house.ledger, house.records, house.market)
    assert np.array_equal(again.learning.combination.weights, weights)


def test_what_was_learned_of_a_time_that_has_not_come_is_forgotten(tmp_path: Path) -> None:
    house = House(tmp_path, Market(400))
    house.live(1, 60, width=0.5)
    known, before = house.scoring.learned_to, factors(house.scoring)
    house.live(132, 40, width=3.0)  # a clock leaps three days ahead, and goes on from there
    assert not np.allclose(factors(house.scoring), before)
    house.scoring.set_aside(START + 61 * HOUR.ms)
    assert house.scoring.learned_to == known
    assert np.array_equal(factors(house.scoring), before)
    assert Scoring(house.ledger, house.records, house.market).learned_to == known
    house.scoring.set_aside(START)
    assert house.scoring.learned_to == 0, "nothing so old is remembered"
    assert np.array_equal(factors(house.scoring), np.ones((2, 24)))
