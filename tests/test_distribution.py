"""What nine quantiles say, against numerical integration of the same density."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptod.forecast.distribution import mean_and_deviation, probability_below
from cryptod.market import QUANTILE_LEVELS, Float64

P = np.array(QUANTILE_LEVELS)
NORMAL = np.array([-1.95996398, -1.64485363, -1.28155157, -0.67448975, 0.0, 0.67448975, 1.28155157, 1.64485363, 1.95996398])


def quantile(quantiles: Float64, level: Float64) -> Float64:
    """The inverse of the distribution function, written down anew: lines between the quantiles, exponential tails beyond."""
    inside = np.interp(level, P, quantiles)
    rate = np.log(P[1] / P[0])
    low = quantiles[0] + (quantiles[1] - quantiles[0]) / rate * np.log(np.maximum(level, 1e-300) / P[0])
    high = quantiles[-1] - (quantiles[-1] - quantiles[-2]) / rate * np.log(np.maximum(1 - level, 1e-300) / P[0])
    return np.where(level < P[0], low, np.where(level > P[-1], high, inside))


@pytest.mark.parametrize("shift", [0.0, 0.01, -0.2])
@pytest.mark.parametrize("skew", [0.0, 0.3])
def test_mean_and_deviation_are_those_of_the_density(shift: float, skew: float) -> None:
    quantiles = 0.02 * (NORMAL + skew * NORMAL**2) + shift
    quantiles = np.maximum.accumulate(quantiles)
    level = (np.arange(2_000_000) + 0.5) / 2_000_000
    drawn = quantile(quantiles, level)
    mean, deviation = mean_and_deviation(quantiles)
    assert float(mean) == pytest.approx(drawn.mean(), abs=1e-6)
    assert float(deviation) == pytest.approx(drawn.std(), rel=1e-3)


def test_normal_quantiles_have_nearly_the_normal_s_deviation() -> None:
    mean, deviation = mean_and_deviation(0.03 * NORMAL)
    assert float(mean) == pytest.approx(0.0, abs=1e-12)
    assert float(deviation) == pytest.approx(0.03, rel=0.03)


def test_the_distribution_function_is_the_inverse_of_its_quantiles_and_passes_through_the_nine() -> None:
    quantiles = 0.02 * NORMAL + 0.001 * NORMAL**2
    level = np.linspace(0.0005, 0.9995, 1999)
    many = np.broadcast_to(quantiles, (len(level), 9))
    assert probability_below(many, quantile(quantiles, level)) == pytest.approx(level, abs=1e-9)
    assert probability_below(np.broadcast_to(quantiles, (9, 9)), quantiles) == pytest.approx(P, abs=1e-12)


def test_the_integral_transform_of_what_the_distribution_draws_is_uniform() -> None:
    random = np.random.default_rng(1)
    quantiles = np.sort(random.normal(size=(20_000, 9)), axis=1)
    drawn = np.array([quantile(row, level) for row, level in zip(quantiles, random.random(20_000))])
    transform = np.sort(probability_below(quantiles, drawn))
    distance = np.abs(transform - (np.arange(20_000) + 0.5) / 20_000).max()
    assert distance < 1.63 / np.sqrt(20_000), "Kolmogorov and Smirnov, at 1 %"


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=9, max_size=9).map(sorted),
    st.lists(st.floats(-3, 3), min_size=2, max_size=30).map(sorted),
)
@settings(max_examples=300, deadline=None)
def test_it_rises_from_0_to_1_whatever_the_quantiles_even_where_they_coincide(levels: list[float], at: list[float]) -> None:
    quantiles = np.array(levels)
    found = probability_below(np.broadcast_to(quantiles, (len(at), 9)), np.array(at))
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= -1e-12).all()
    mean, deviation = mean_and_deviation(quantiles)
    assert np.isfinite(mean)
    assert float(deviation) >= 0


def test_where_the_distribution_jumps_it_is_the_middle_of_the_jump() -> None:
    still = np.zeros(9)
    assert float(probability_below(still, np.array(0.0))) == 0.5
    assert float(probability_below(still, np.array(-1e-6))) == 0.0
    assert float(probability_below(still, np.array(1e-6))) == 1.0
    pegged = np.array([-0.01, -0.001, 0, 0, 0, 0, 0, 0.001, 0.01])
    assert float(probability_below(pegged, np.array(0.0))) == pytest.approx(0.5)


def test_a_coin_that_stands_still_has_mean_and_deviation_0() -> None:
    mean, deviation = mean_and_deviation(np.zeros((3, 24, 9)))
    assert mean == pytest.approx(np.zeros((3, 24)))
    assert deviation == pytest.approx(np.zeros((3, 24)), abs=1e-9)
