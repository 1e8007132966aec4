"""Scores and the reading of nine quantiles, against definitions computed another way."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryptod.forecast import distribution, scores
from cryptod.market import QUANTILE_LEVELS

NORMAL = np.array([NormalDist().inv_cdf(p) for p in QUANTILE_LEVELS])
RANDOM = np.random.default_rng(3)


def test_pinball_is_the_definition() -> None:
    loss = scores.pinball(np.zeros(9), np.array(2.0))
    assert np.allclose(loss, 2.0 * np.array(QUANTILE_LEVELS))
    assert np.allclose(scores.pinball(np.zeros(9), np.array(-2.0)), 2.0 * (1 - np.array(QUANTILE_LEVELS)))


def test_the_true_quantiles_score_best() -> None:
    outcomes = RANDOM.normal(size=20_000)
    best = scores.crps(np.broadcast_to(NORMAL, (20_000, 9)), outcomes).mean()
    for other in (0.8 * NORMAL, 1.2 * NORMAL, NORMAL + 0.2):
        assert scores.crps(np.broadcast_to(other, (20_000, 9)), outcomes).mean() > best


def test_an_unknown_outcome_has_no_score() -> None:
    assert np.isnan(scores.crps(NORMAL, np.array(np.nan)))
    assert np.isnan(scores.pooled_crps(np.broadcast_to(NORMAL, (24, 9)), np.full(24, np.nan)))


def test_the_pooled_score_weighs_each_horizon_by_its_root() -> None:
    quantiles = np.sqrt(np.arange(1, 25))[:, None] * NORMAL
    outcome = np.sqrt(np.arange(1.0, 25.0))
    assert scores.pooled_crps(quantiles, outcome) == pytest.approx(float(scores.crps(NORMAL, np.array(1.0))))


@pytest.mark.parametrize("percent", [50, 80, 90, 95])
def test_coverage_of_true_quantiles_is_nominal(percent: int) -> None:
    outcomes = RANDOM.normal(size=40_000)
    share = scores.covered(np.broadcast_to(NORMAL, (40_000, 9)), outcomes, percent).mean()
    assert share == pytest.approx(percent / 100, abs=0.01)


def test_the_interval_score_is_width_plus_penalty() -> None:
    assert scores.interval_score(NORMAL, np.array(0.0), 80) == pytest.approx(2 * NORMAL[6])
    assert scores.interval_score(NORMAL, np.array(NORMAL[6] + 1), 80) == pytest.approx(2 * NORMAL[6] + 2 / 0.2)


def test_the_pit_of_true_quantiles_is_uniform() -> None:
    outcomes = RANDOM.normal(size=40_000)
    pit = scores.pit(np.broadcast_to(NORMAL, (40_000, 9)), outcomes)
    assert np.allclose(np.quantile(pit, np.arange(0.1, 1, 0.1)), np.arange(0.1, 1, 0.1), atol=0.02)


def test_qlike_is_least_at_the_true_variance() -> None:
    outcomes = RANDOM.normal(0, 0.02, size=40_000)
    best = scores.qlike(np.full(40_000, 0.02), outcomes).mean()
    assert best < scores.qlike(np.full(40_000, 0.017), outcomes).mean()
    assert best < scores.qlike(np.full(40_000, 0.023), outcomes).mean()
    assert np.isfinite(scores.qlike(np.array(0.0), np.array(0.0)))


def test_overlapping_losses_are_not_taken_for_independent() -> None:
    noise = RANDOM.normal(size=3000)
    overlapping = np.convolve(noise, np.ones(24), mode="valid") / 24 + 0.05
    _, honest = scores.loss_test(overlapping, 48)
    _, naive = scores.loss_test(overlapping, 0)
    assert abs(naive) > 2.5 * abs(honest)


def test_the_loss_test_finds_a_difference_and_no_difference() -> None:
    assert scores.loss_test(RANDOM.normal(0.2, 1.0, 2000))[1] > 4
    assert abs(scores.loss_test(RANDOM.normal(0.0, 1.0, 2000))[1]) < 4
    assert scores.loss_test(np.zeros(0)) == (0.0, 0.0)
    assert scores.loss_test(np.full(100, np.nan)) == (0.0, 0.0)
    assert scores.loss_test(np.zeros(1000))[1] == 0.0


def test_the_distribution_passes_through_its_quantiles() -> None:
    assert np.allclose(distribution.probability_below(np.broadcast_to(NORMAL, (9, 9)), NORMAL), QUANTILE_LEVELS)


def test_mean_and_deviation_of_a_normal_are_about_right() -> None:
    mean, deviation = distribution.mean_and_deviation(0.3 + 2.0 * NORMAL)
    assert mean == pytest.approx(0.3, abs=0.01)
    assert deviation == pytest.approx(2.0, rel=0.04)


def test_a_flat_distribution_is_neither_up_nor_down() -> None:
    assert distribution.probability_below(np.zeros(9), np.array(0.0)) == pytest.approx(0.5)
    mean, deviation = distribution.mean_and_deviation(np.zeros(9))
    assert mean == 0
    assert deviation < 1e-10


@given(st.lists(st.floats(-1, 1), min_size=9, max_size=9), st.floats(-2, 2), st.floats(-2, 2))
def test_the_distribution_function_is_a_distribution_function(values: list[float], one: float, other: float) -> None:
    quantiles = np.sort(np.array(values))
    low, high = sorted((one, other))
    at_low, at_high = (float(distribution.probability_below(quantiles, np.array(x))) for x in (low, high))
    assert 0.0 <= at_low <= at_high + 1e-12 <= 1.0 + 1e-12
    mean, deviation = distribution.mean_and_deviation(quantiles)
    assert np.isfinite(mean)
    assert np.isfinite(deviation)
    assert deviation >= 0
