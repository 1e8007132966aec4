"""Online calibration: intervals learn their width from outcomes, each coin and horizon its own."""

from __future__ import annotations

import numpy as np
import pytest

from cryptod.errors import StoreError
from cryptod.forecast.calibration import LIMIT, Calibration
from cryptod.market import Float64
from tests.test_scores import NORMAL

COINS = ("A/USDT", "B/USDT")


def learn(calibration: Calibration, scales: tuple[float, float], hours: int, seed: int = 0) -> None:
    """Outcomes that are so many times as wide as forecast; forecasts are issued with the factors of the moment."""
    random = np.random.default_rng(seed)
    for _ in range(hours):
        issued = calibration.factors(COINS)[..., None] * NORMAL
        outcomes: Float64 = random.normal(size=(2, 24)) * np.array(scales)[:, None]
        calibration.update(COINS, issued.astype(np.float32), outcomes)


def test_a_coin_never_heard_of_is_left_as_it_is() -> None:
    assert (Calibration().factors(COINS) == 1).all()


def test_too_narrow_intervals_widen_and_too_wide_ones_narrow_coin_by_coin() -> None:
    calibration = Calibration()
    learn(calibration, (1.5, 0.7), 4000)
    factors = calibration.factors(COINS)
    assert factors[0, 0] == pytest.approx(1.5, rel=0.15)
    assert factors[1, 0] == pytest.approx(0.7, rel=0.15)
    assert (factors[0] > 1.05).all()
    assert (factors[1] < 0.95).all()


def test_calibrated_forecasts_are_left_nearly_alone() -> None:
    calibration = Calibration()
    learn(calibration, (1.0, 1.0), 3000)
    assert np.abs(np.log(calibration.factors(COINS))).max() < 0.15


def test_one_violent_hour_moves_it_no_more_than_any_other_miss() -> None:
    one, other = Calibration(), Calibration()
    quantiles = np.broadcast_to(NORMAL, (2, 24, 9)).astype(np.float32)
    one.update(COINS, quantiles, np.full((2, 24), 8.0))
    other.update(COINS, quantiles, np.full((2, 24), 8000.0))
    assert np.allclose(one.factors(COINS), other.factors(COINS))
    assert np.log(one.factors(COINS)).max() < 0.01


def test_unknown_outcomes_teach_nothing() -> None:
    calibration = Calibration()
    quantiles = np.broadcast_to(NORMAL, (2, 24, 9)).astype(np.float32).copy()
    outcomes = np.full((2, 24), np.nan)
    calibration.update(COINS, quantiles, outcomes)
    quantiles[:] = np.nan
    calibration.update(COINS, quantiles, np.ones((2, 24)))
    assert (calibration.factors(COINS) == 1).all()


def test_the_factors_are_bounded() -> None:
    calibration = Calibration()
    quantiles = np.broadcast_to(NORMAL, (2, 24, 9)).astype(np.float32)
    for _ in range(2000):
        calibration.update(COINS, quantiles, np.full((2, 24), 99.0))
    assert np.log(calibration.factors(COINS)).max() <= LIMIT + 1e-6


def test_the_state_survives_a_restart() -> None:
    calibration = Calibration()
    learn(calibration, (1.5, 0.7), 100)
    restored = Calibration.restore(calibration.export())
    assert np.array_equal(restored.factors(COINS), calibration.factors(COINS))
    learn(calibration, (1.5, 0.7), 10, seed=5)
    learn(restored, (1.5, 0.7), 10, seed=5)
    assert np.array_equal(restored.factors(COINS), calibration.factors(COINS))


def test_a_garbled_state_is_refused() -> None:
    for kept in ({}, {"symbols": ["A/USDT"], "theta": np.zeros((2, 24))}, {"symbols": "A", "theta": np.zeros((1, 24))}):
        with pytest.raises(StoreError):
            Calibration.restore(kept)


def test_infinities_teach_nothing_and_trouble_nobody() -> None:
    calibration = Calibration()
    quantiles = np.broadcast_to(NORMAL, (2, 24, 9)).astype(np.float32).copy()
    quantiles[0, :, 8] = np.inf
    outcomes = np.full((2, 24), np.inf)
    outcomes[0] = 1.0
    calibration.update(COINS, quantiles, outcomes)
    assert (calibration.factors(COINS) == 1).all()


def test_a_state_with_a_coin_twice_or_without_numbers_is_refused_and_one_out_of_bounds_brought_back() -> None:
    for symbols, theta in ((["A", "A"], np.zeros((2, 24))), (["A"], np.array([["x"] * 24])), (["A"], np.zeros(24))):
        with pytest.raises(StoreError):
            Calibration.restore({"symbols": symbols, "theta": theta})
    theta = np.zeros((1, 24))
    theta[0, :3] = (np.nan, 99.0, -np.inf)
    factors = Calibration.restore({"symbols": ["A"], "theta": theta}).factors(("A",))
    assert factors[0, :4] == pytest.approx([1.0, np.exp(LIMIT), np.exp(-LIMIT), 1.0])
