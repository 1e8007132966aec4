"""The drift watch within scoring: taught by what matures in the ledger, kept across restarts, answered once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cryptod.daemon.driftwatch import DriftWatch
from cryptod.daemon.records import Records
from cryptod.daemon.scoring import Scoring
from cryptod.market import CANDLE, HOUR, MAX_HORIZON, NOT_FETCHED, Panel
from cryptod.store import jobs, ledger
from cryptod.store.environment import open_environment
from cryptod.store.jobs import JobStore
from cryptod.store.ledger import Issue, Ledger, round_issue

START = 1_685_620_800_000
SYMBOLS = tuple(f"C{i}/USDT" for i in range(8))
LEVELS = np.array([-1.96, -1.645, -1.2816, -0.6745, 0.0, 0.6745, 1.2816, 1.645, 1.96])
SIGMA = 0.01


class House:
    """Scoring on a ledger and a market in which eight coins move by ``SIGMA`` an hour."""

    def __init__(self, path: Path) -> None:
        self.environment = open_environment(path, databases=(*jobs.DATABASES, *ledger.DATABASES), writer=True)
        self.disk = ThreadPoolExecutor(1)
        self.ledger = Ledger(self.environment)
        self.records = Records(JobStore(self.environment), self.disk, lambda error: None)
        self.closes = 100 * np.exp(np.cumsum(np.random.default_rng(5).normal(0, SIGMA, (400, len(SYMBOLS))), axis=0))
        self.hour = 30
        self.open()

    def open(self) -> None:
        """As after a restart."""
        self.disk.submit(int).result()
        self.scoring = Scoring(self.ledger, self.records, self.panel)

    @property
    def watch(self) -> DriftWatch:
        return self.scoring.drift

    def panel(self, symbols: tuple[str, ...], start: int, cutoff: int) -> Panel:
        rows = np.arange((start - START) // HOUR.ms, (cutoff - START) // HOUR.ms)
        inside = np.clip(rows, 0, None)
        values = np.repeat(self.closes[inside][:, :, None], 5, axis=2)
        status = np.where((rows >= 0)[:, None], CANDLE, NOT_FETCHED).astype(np.uint8) * np.ones(len(SYMBOLS), np.uint8)
        columns = [SYMBOLS.index(symbol) for symbol in symbols]
        return Panel(symbols, start, values[:, columns], status[:, columns])

    def live(self, hours: int, width: float, *, mature: bool = True) -> None:
        """Forecasts that are ``width`` times as wide as the truth, hour after hour."""
        for _ in range(hours):
            cutoff = START + self.hour * HOUR.ms
            if mature:
                self.scoring.mature(cutoff)
            scale = width * SIGMA * np.sqrt(np.arange(1, MAX_HORIZON + 1))
            shape = (len(SYMBOLS), MAX_HORIZON)
            quantiles = round_issue(np.broadcast_to((scale[:, None] * LEVELS).astype(np.float32), (*shape, 9)))
            half = round_issue(np.full(shape, 0.5, np.float32))
            self.ledger.append(Issue(cutoff, cutoff, SYMBOLS, ("m",) * len(SYMBOLS), self.closes[self.hour - 1], quantiles, half, half), {})
            self.hour += 1


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path / "serving")
    yield house
    house.disk.shutdown()
    house.environment.close()


def test_forecasts_that_fit_raise_nothing(house: House) -> None:
    house.live(200, 1.0)
    assert house.watch.unanswered is None
    assert house.watch.text == ""


def test_forecasts_that_are_far_too_narrow_raise_an_alarm_that_is_answered_once(house: House) -> None:
    house.live(40, 0.3)
    alarm = house.watch.unanswered
    assert alarm is not None
    assert house.watch.text.startswith(f"{alarm.text}; lately it is ")
    house.watch.answer(alarm)
    assert house.watch.unanswered is None
    assert house.watch.text, "what is wrong is said until it is right again"
    house.live(1, 0.3)
    assert house.watch.unanswered is None


def test_a_restart_neither_forgets_an_alarm_nor_answers_it_again(house: House) -> None:
    house.live(40, 0.3)
    alarm = house.watch.unanswered
    house.open()
    assert house.watch.unanswered == alarm is not None
    house.watch.answer(alarm)
    house.open()
    assert house.watch.unanswered is None
    assert house.watch.text.startswith(alarm.text)


def test_what_passed_while_nobody_looked_is_made_up_for(house: House) -> None:
    house.live(40, 0.3, mature=False)
    assert house.watch.unanswered is None
    house.scoring.mature(START + house.hour * HOUR.ms)
    assert house.watch.unanswered is not None


def test_a_watch_that_cannot_be_read_begins_anew(house: House) -> None:
    for garbled in ({"sum": "?"}, [1, 2], {"answered": 3}):
        house.records.set("drift", garbled)
        house.open()
        assert house.watch.unanswered is None
    house.live(40, 0.3)
    assert house.watch.unanswered is not None
