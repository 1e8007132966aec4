"""The drift's sums: still while forecasts are right, quick when they are not, patient with one hour, and at rest after an alarm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cryptod.errors import StoreError
from cryptod.forecast import scores
from cryptod.forecast.distribution import expected_crps
from cryptod.forecast.drift import REST_HOURS, WATCHES, Alarm, Drift
from cryptod.market import HOUR, MAX_HORIZON, QUANTILE_LEVELS, Float32, Float64

START = 1_672_531_200_000
"""2023-01-01 00:00 UTC."""
LEVELS = np.array([-1.96, -1.645, -1.2816, -0.6745, 0.0, 0.6745, 1.2816, 1.645, 1.96])
COINS = 40
TOGETHER = 0.6
"""What the coins' moves have in common, as in a real market: its hours have the same spread of coverage over coins."""
FORECAST = (np.sqrt(np.arange(1, MAX_HORIZON + 1))[:, None] * LEVELS * 0.01).astype(np.float32)


class World:
    """Coins that move together, and forecasts of them that are as wide as the truth; `truth` changes that."""

    def __init__(self, seed: int = 1, coins: int = COINS) -> None:
        self.random = np.random.default_rng(seed)
        self.drift = Drift()
        self.hour = 0
        self.coins = coins
        self.alarms: list[Alarm] = []

    def outcomes(self, truth: float) -> tuple[Float32, Float64]:
        common = self.random.normal(size=MAX_HORIZON)
        own = self.random.normal(size=(self.coins, MAX_HORIZON))
        moves = TOGETHER**0.5 * common + (1 - TOGETHER) ** 0.5 * own
        quantiles = np.broadcast_to(FORECAST, (self.coins, MAX_HORIZON, len(QUANTILE_LEVELS))).copy()
        return quantiles, truth * 0.01 * moves * np.sqrt(np.arange(1, MAX_HORIZON + 1))

    def live(self, hours: int, truth: float = 1.0) -> list[Alarm]:
        before = len(self.alarms)
        for _ in range(hours):
            self.hour += 1
            alarm = self.drift.update(START + self.hour * HOUR.ms, *self.outcomes(truth))
            if alarm is not None:
                self.alarms.append(alarm)
        return self.alarms[before:]


def first(truth: float, seed: int) -> int:
    """Hours until the first alarm of a world in which outcomes are ``truth`` times as far out as foretold."""
    world = World(seed)
    world.live(24 * 30)
    began = world.hour
    world.live(24 * 8, truth)
    assert world.alarms, "no alarm in eight days"
    return (world.alarms[0].at - START) // HOUR.ms - began


def test_the_loss_that_a_forecast_expects_is_its_mean_loss_if_it_is_right() -> None:
    quantiles = np.array([-0.05, -0.03, -0.02, -0.01, 0.0, 0.012, 0.02, 0.05, 0.06])
    random = np.random.default_rng(0)
    level = random.random(400_000)
    levels = np.array(QUANTILE_LEVELS)
    drawn = np.interp(level, levels, quantiles)
    left, right = (quantiles[1] - quantiles[0]) / np.log(2), (quantiles[-1] - quantiles[-2]) / np.log(2)
    drawn = np.where(level < 0.025, quantiles[0] + left * np.log(level / 0.025), drawn)
    drawn = np.where(level > 0.975, quantiles[-1] - right * np.log((1 - level) / 0.025), drawn)
    mean = scores.crps(np.broadcast_to(quantiles, (len(drawn), 9)), drawn).mean()
    assert expected_crps(quantiles) == pytest.approx(mean, rel=5e-3)
    assert expected_crps(7 * quantiles) == pytest.approx(7 * expected_crps(quantiles))
    assert expected_crps(np.zeros((3, 9))).max() < 1e-9


def test_forecasts_that_are_right_raise_no_alarm_in_a_year() -> None:
    assert World().live(365 * 24) == []


@pytest.mark.parametrize("truth", [2.0, 0.5])
def test_a_scale_that_doubles_or_halves_is_noticed_within_two_days(truth: float) -> None:
    delays = [first(truth, seed) for seed in range(8)]
    assert max(delays) <= 48
    assert np.median(delays) <= 30


def test_an_alarm_says_what_moved_where_to_and_since_when() -> None:
    world = World()
    world.live(24 * 30)
    (alarm,) = world.live(30, 2.5)
    began = START + 24 * 30 * HOUR.ms
    watch = WATCHES[alarm.watch]
    assert watch.side == (-1 if watch.figure == "coverage" else 1)
    assert alarm.at - alarm.hours * HOUR.ms == pytest.approx(began, abs=6 * HOUR.ms)
    said = Alarm(START, 0, -0.19, 48).text
    assert said == "coverage of the 80 % intervals 1 h ahead fell to 61 % in the last 48 h"
    assert (
        Alarm(START, 6, 0.8, 20).text == "losses of the forecasts 4 h ahead rose to 1.8 times what they themselves expect in the last 20 h"
    )


def test_one_violent_hour_is_no_drift() -> None:
    world = World()
    world.live(24 * 10)
    world.live(1, 100.0)
    world.live(24 * 10)
    world.live(2, 1000.0)
    world.live(24 * 10)
    assert world.alarms == []


def test_after_an_alarm_it_rests_for_a_day_however_wrong_the_forecasts_are() -> None:
    world = World()
    world.live(24 * 30, 4.0)
    assert len(world.alarms) >= 10
    gaps = np.diff([alarm.at for alarm in world.alarms]) // HOUR.ms
    assert gaps.min() > REST_HOURS


def test_an_alarm_stays_until_its_figure_is_back_in_band() -> None:
    world = World()
    world.live(24 * 3, 2.5)
    assert world.drift.alarm is not None
    world.live(5)
    assert world.drift.alarm is not None, "five good hours prove nothing"
    world.live(24 * 3)
    assert world.drift.alarm is None
    last = world.alarms[-1]
    world.live(24 * 20)
    assert world.alarms[-1] == last


def test_an_hour_counts_once() -> None:
    one, other = World(), World()
    for _ in range(60):
        one.hour += 1
        given = one.outcomes(2.0)
        one.drift.update(START + one.hour * HOUR.ms, *given)
        for _ in range(3):
            other.drift.update(START + one.hour * HOUR.ms, *given)
    assert one.drift.export() == other.drift.export()


def test_horizons_that_overlap_are_not_taken() -> None:
    world = World()
    quantiles, outcomes = world.outcomes(1.0)
    outcomes[:, 3] = 1.0
    for hour in range(1, 40):
        if hour % 4:
            world.drift.update(START + hour * HOUR.ms, quantiles, np.where(np.arange(MAX_HORIZON) == 0, np.nan, outcomes))
    assert not any(world.drift.export()["sum"])
    world.drift.update(START + 40 * HOUR.ms, quantiles, outcomes)
    assert any(world.drift.export()["sum"][place] for place, watch in enumerate(WATCHES) if watch.horizon == 4)


def test_too_few_coins_and_coins_that_stand_still_are_no_evidence() -> None:
    few = World(coins=7)
    assert few.live(24 * 20, 5.0) == []
    still = World()
    for hour in range(1, 24 * 20):
        quantiles, outcomes = still.outcomes(1.0)
        quantiles[8:] *= 1e-5
        quantiles[0] = np.nan
        assert still.drift.update(START + hour * HOUR.ms, quantiles, 3 * outcomes) is None
    assert not any(still.drift.export()["sum"])


def test_sums_do_not_run_on_over_a_pause_of_days() -> None:
    world = World()
    world.live(10, 2.0)
    assert any(world.drift.export()["sum"])
    world.hour += 24 * 7
    quantiles, outcomes = world.outcomes(1.0)
    world.drift.update(START + world.hour * HOUR.ms, quantiles, 0.5 * np.sign(outcomes) * np.abs(quantiles[:, :, 6]))
    assert max(world.drift.export()["count"]) <= 1


def test_its_state_goes_on_where_it_was() -> None:
    world, other = World(3), World(3)
    world.live(24 * 4, 1.7)
    other.live(24 * 4, 1.7)
    other.drift = Drift.restore(other.drift.export())
    assert world.live(24 * 6, 1.7) == other.live(24 * 6, 1.7)
    assert world.alarms
    assert world.drift.export() == other.drift.export()


@pytest.mark.parametrize(
    "change",
    [{"sum": [0.0]}, {"alarm": [1, 99, 0.1, 3]}, {"alarm": [1]}, {"to": None}, {"recent": float("nan")}, {"count": "abcdefgh"}],
)
def test_a_state_that_it_did_not_write_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(StoreError, match="drift's sums"):
        Drift.restore(Drift().export() | change)
