"""Online calibration: intervals learn their width from outcomes, each coin and horizon its own."""

from __future__ import annotations

import numpy as np
import pytest

from cryptod.errors import StoreError
from cryptod.forecast.calibration import LIMIT, Calibration
from cryptod.forecast.scores import covered
from cryptod.market import Float64
from tests.test_scores import NORMAL

COINS = tuple(f"C{i}/USDT" for i in range(40))
N = len(COINS)
WIDE = np.broadcast_to(NORMAL, (len(COINS), 24, 9)).astype(np.float32)


def learn(calibration: Calibration, scales: Float64, hours: int, seed: int = 0) -> Float64:
    """Outcomes that are so many times as wide as forecast, float64 [N]; forecasts are issued with the factors of the moment.

    Returns the share of the 80 % intervals that held, [hours, N]. Outcomes of all horizons are independent here.
    """
    random = np.random.default_rng(seed)
    held = []
    for _ in range(hours):
        issued = calibration.apply(COINS, WIDE)
        outcomes: Float64 = random.normal(size=(len(COINS), 24)) * scales[:, None]
        held.append(covered(issued, outcomes, 80))
        calibration.update(COINS, issued, outcomes)
    return np.array(held)


def width(calibration: Calibration) -> Float64:
    """float64 [N, 24]: how much wider the 80 % interval is issued than it was made."""
    issued = calibration.apply(COINS, WIDE)
    return np.asarray((issued[..., 6] - issued[..., 2]) / (WIDE[..., 6] - WIDE[..., 2]), np.float64)


def test_a_coin_never_heard_of_is_left_as_it_is() -> None:
    assert (Calibration().factors(COINS) == 1).all()
    assert np.array_equal(Calibration().apply(COINS, WIDE), WIDE)


def test_too_narrow_intervals_of_all_coins_widen_and_too_wide_ones_narrow() -> None:
    for scale in (1.8, 0.55):
        calibration = Calibration()
        learn(calibration, np.full(N, scale), 500)
        assert width(calibration)[:, :8].mean() == pytest.approx(scale, rel=0.12)
        assert np.sign(np.log(width(calibration)[:, 23].mean())) == np.sign(np.log(scale))


def test_each_coin_finds_its_own_width() -> None:
    calibration = Calibration()
    scales = np.ones(N)
    scales[0], scales[1] = 2.0, 0.5
    learn(calibration, scales, 800)
    found = width(calibration)
    assert found[0, :4].mean() == pytest.approx(2.0, rel=0.2)
    assert found[1, :4].mean() == pytest.approx(0.5, rel=0.2)
    assert np.abs(np.log(found[2:])).max() < 0.25


def test_calibrated_forecasts_are_left_nearly_alone() -> None:
    calibration = Calibration()
    learn(calibration, np.ones(N), 1500)
    assert np.abs(np.log(width(calibration))).mean() < 0.05
    assert np.abs(np.log(width(calibration))).max() < 0.3


def test_after_a_break_coverage_is_back_within_days_and_what_is_slow_would_take_months() -> None:
    calibration = Calibration()
    learn(calibration, np.ones(N), 500)
    held = learn(calibration, np.full(N, 2.0), 24 * 21, seed=1)
    assert held[:24].mean() < 0.6
    assert held[24 * 10 :, :, :4].mean() == pytest.approx(0.8, abs=0.04)
    assert held[24 * 14 :, :, 23].mean() == pytest.approx(0.8, abs=0.12)
    # At the slow rates alone two weeks move the width of one hour ahead by a few hundredths.
    assert np.log(2.0) / (0.001 * 0.25 / 0.45) > 24 * 50


def test_a_break_of_one_coin_is_answered_for_that_coin_alone() -> None:
    calibration = Calibration()
    learn(calibration, np.ones(N), 500)
    scales = np.ones(N)
    scales[3] = 2.0
    held = learn(calibration, scales, 24 * 28, seed=1)
    assert held[:24, 3].mean() < 0.65
    assert held[24 * 14 :, 3, :4].mean() == pytest.approx(0.8, abs=0.06)
    assert np.delete(held, 3, axis=1)[24 * 14 :].mean() == pytest.approx(0.8, abs=0.03)


def test_what_is_usual_does_not_make_it_hurry() -> None:
    calibration = Calibration()
    learn(calibration, np.ones(N), 800)
    before = width(calibration)
    learn(calibration, np.ones(N), 48, seed=9)
    assert np.abs(np.log(width(calibration) / before)).mean() < 0.02


def test_levels_are_corrected_apart_where_the_tails_are_heavier_than_they_say() -> None:
    calibration = Calibration()
    random = np.random.default_rng(0)
    held = []
    for hour in range(2000):
        issued = calibration.apply(COINS, WIDE)
        outcomes = random.standard_t(3, size=(len(COINS), 24)) / np.sqrt(3)
        if hour >= 1400:
            held.append([covered(issued[:, 0], outcomes[:, 0], percent).mean() for percent in (50, 80, 90, 95)])
        calibration.update(COINS, issued, outcomes)
    outcomes = np.random.default_rng(1).standard_t(3, size=(N, 24)) / np.sqrt(3)
    before, after = [covered(WIDE, outcomes, percent).mean() for percent in (50, 80, 90, 95)], np.mean(held, axis=0)
    assert before[0] > 0.6
    assert after[0] - 0.5 < 0.4 * (before[0] - 0.5)
    assert after == pytest.approx([0.5, 0.8, 0.9, 0.95], abs=0.05)


def test_both_sides_move_alike_so_that_a_common_drift_is_not_extrapolated() -> None:
    calibration = Calibration()
    random = np.random.default_rng(0)
    for _ in range(500):
        issued = calibration.apply(COINS, WIDE)
        calibration.update(COINS, issued, random.normal(0.5, 1.0, size=(len(COINS), 24)))
    found = calibration.apply(COINS, WIDE)
    assert np.allclose(found, -found[..., ::-1], atol=1e-6)


def test_quantiles_never_cross_whatever_was_learned() -> None:
    calibration = Calibration()
    random = np.random.default_rng(3)
    calibration.update(COINS, WIDE, np.zeros((N, 24)))
    state = calibration.export()
    state |= {
        "theta": random.uniform(-LIMIT, LIMIT, (N, 24)),
        "shape": random.uniform(-LIMIT, LIMIT, (24, 4)),
        "coins_mean": np.zeros((N, 24)),
    }
    quantiles = np.sort(random.normal(size=(N, 24, 9)), axis=-1).astype(np.float32)
    quantiles -= quantiles[..., 4:5]
    found = Calibration.restore(state).apply(COINS, quantiles)
    assert (np.diff(found, axis=-1) >= 0).all()


def test_one_violent_hour_moves_it_no_more_than_any_other_miss() -> None:
    one, other = Calibration(), Calibration()
    one.update(COINS, WIDE, np.full((N, 24), 8.0))
    other.update(COINS, WIDE, np.full((N, 24), 8000.0))
    assert np.allclose(width(one), width(other))
    assert np.log(width(one)).max() < 0.01


def test_unknown_outcomes_teach_nothing() -> None:
    calibration = Calibration()
    calibration.update(COINS, WIDE, np.full((N, 24), np.nan))
    calibration.update(COINS, np.full_like(WIDE, np.nan), np.ones((N, 24)))
    assert (width(calibration) == 1).all()


def test_the_factors_are_bounded_and_come_back() -> None:
    calibration = Calibration()
    for _ in range(600):
        calibration.update(COINS, WIDE, np.full((N, 24), 99.0))
    assert np.log(width(calibration)).max() <= 2 * LIMIT + 1e-5
    assert np.log(width(calibration)).max() > 1.0
    most = width(calibration)
    learn(calibration, np.ones(N), 24 * 21)
    assert (width(calibration)[:, 0] < 0.7 * most[:, 0]).all()


def test_the_state_survives_a_restart() -> None:
    calibration = Calibration()
    learn(calibration, np.linspace(0.7, 1.5, N), 200)
    restored = Calibration.restore(calibration.export())
    assert np.array_equal(width(restored), width(calibration))
    learn(calibration, np.ones(N), 50, seed=5)
    learn(restored, np.ones(N), 50, seed=5)
    assert np.array_equal(width(restored), width(calibration))


def test_a_garbled_state_is_refused() -> None:
    calibration = Calibration()
    learn(calibration, np.ones(N), 2)
    good = calibration.export()
    bad: list[dict[str, object]] = [
        {},
        good | {"symbols": "A"},
        good | {"symbols": ["A", "A"]},
        good | {"theta": np.zeros((2, 24))},
        good | {"shape": np.array([["x"] * 4] * 24)},
        good | {"centre": np.full(24, np.nan)},
        {name: value for name, value in good.items() if name != "all_usual"},
    ]
    for kept in bad:
        with pytest.raises(StoreError, match="garbled"):
            Calibration.restore(kept)


def test_a_state_out_of_bounds_is_brought_back() -> None:
    calibration = Calibration()
    learn(calibration, np.ones(N), 2)
    restored = Calibration.restore(calibration.export() | {"theta": np.full((N, 24), 99.0)})
    assert np.log(restored.factors(COINS)).max() == pytest.approx(LIMIT)


def test_infinities_teach_nothing_and_trouble_nobody() -> None:
    calibration = Calibration()
    quantiles = WIDE.copy()
    quantiles[0, :, 8] = np.inf
    outcomes = np.full((N, 24), np.inf)
    outcomes[0] = 1.0
    calibration.update(COINS, quantiles, outcomes)
    assert (width(calibration) == 1).all()
