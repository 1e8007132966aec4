"""The week's rhythm: the hours it is told by, what it recovers from coins that have one, and what it makes of nothing."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest

from cryptod.forecast.season import FLAT, WEEK, Season, SeasonSums, hour_of_week
from cryptod.market import HOUR, Float64
from tests.panels import START


@pytest.mark.parametrize("hours", [0, 1, 167, 168, 5000, 123_457])
def test_the_hour_of_the_week_is_the_calendar_s(hours: int) -> None:
    time = START + hours * HOUR.ms
    day = dt.datetime.fromtimestamp(time / 1000, dt.UTC)
    assert hour_of_week(np.array([time]))[0] == day.weekday() * 24 + day.hour


def test_hours_before_the_epoch_have_their_place_in_the_week_too() -> None:
    assert hour_of_week(np.array([-HOUR.ms, -WEEK * HOUR.ms])).tolist() == [71, 72]


def test_the_hours_ahead_begin_with_the_one_that_opens_at_the_cutoff_and_go_round_the_week() -> None:
    season = Season(np.random.default_rng(1).uniform(0.5, 2.0, WEEK), np.zeros(WEEK))
    ahead = season.ahead()
    assert ahead.shape == (WEEK, 24)
    for hour in (0, 100, 150, 167):
        for h in (1, 2, 13, 24):
            assert ahead[hour, h - 1] == pytest.approx(np.mean([season.variance[(hour + k) % WEEK] for k in range(h)]))


def busy(weeks: int, coins: int, rhythm: Float64, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    hours = START + HOUR.ms * np.arange(weeks * WEEK, dtype=np.int64)
    level = np.exp(random.normal(0, 1, coins))
    return hours, level * rhythm[hour_of_week(hours)][:, None] * random.gamma(4.0, 0.25, (len(hours), coins))


def test_a_rhythm_of_hours_and_days_is_recovered_whatever_the_coins_levels() -> None:
    grid = np.arange(WEEK)
    rhythm = np.exp(0.4 * np.sin(2 * np.pi * grid / 24) - 0.3 * (grid // 24 >= 5))
    rhythm /= rhythm.mean()
    hours, variance = busy(26, 20, rhythm)
    sums = SeasonSums(hours)
    volume = 5.0 + np.arange(20) + 0.5 * np.cos(2 * np.pi * hour_of_week(hours) / 24)[:, None]
    slow = np.broadcast_to(variance.mean(axis=0), variance.shape)
    for part in (slice(0, 7), slice(7, 20)):
        sums.add(variance[:, part], slow[:, part], volume[:, part], np.ones(variance[:, part].shape, bool))
    season = sums.estimate()
    assert season.variance.mean() == pytest.approx(1.0)
    assert np.corrcoef(np.log(season.variance), np.log(rhythm))[0, 1] > 0.99
    assert season.variance == pytest.approx(rhythm, rel=0.12)
    assert season.volume == pytest.approx(0.5 * np.cos(2 * np.pi * grid / 24), abs=1e-9)


def test_hours_that_are_not_live_count_for_nothing() -> None:
    hours, variance = busy(8, 6, np.ones(WEEK))
    live = np.random.default_rng(2).random(variance.shape) < 0.7
    slow = np.ones_like(variance)
    one, other = SeasonSums(hours), SeasonSums(hours)
    one.add(variance, slow, np.log(variance), live)
    other.add(np.where(live, variance, 1e6), slow, np.where(live, np.log(variance), 99.0), live)
    assert np.array_equal(one.estimate().variance, other.estimate().variance)
    assert np.array_equal(one.estimate().volume, other.estimate().volume)


def test_one_violent_hour_hardly_moves_the_season() -> None:
    hours, variance = busy(26, 20, np.ones(WEEK))
    shocked = variance.copy()
    shocked[1000] *= 1e4
    seasons = []
    for given in (variance, shocked):
        sums = SeasonSums(hours)
        sums.add(given, np.broadcast_to(variance.mean(axis=0), variance.shape), np.zeros_like(variance), np.ones(variance.shape, bool))
        seasons.append(sums.estimate().variance)
    assert seasons[1] == pytest.approx(seasons[0], rel=0.15)


@pytest.mark.parametrize("weeks", [0, 1])
def test_less_than_two_weeks_say_nothing(weeks: int) -> None:
    hours, variance = busy(weeks, 3, np.ones(WEEK))
    sums = SeasonSums(hours)
    sums.add(variance, np.ones_like(variance), np.zeros_like(variance), np.ones(variance.shape, bool))
    assert sums.estimate() is FLAT


def test_coins_that_never_move_have_a_flat_season() -> None:
    hours, _ = busy(4, 2, np.ones(WEEK))
    still = np.zeros((len(hours), 2))
    sums = SeasonSums(hours)
    sums.add(still, still, still, np.ones(still.shape, bool))
    assert sums.estimate().variance == pytest.approx(np.ones(WEEK))
