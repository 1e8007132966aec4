"""References: closed-form parts against another way of computing them."""

from __future__ import annotations

import numpy as np
import pytest

from cryptod.forecast import baselines
from cryptod.forecast.baselines import REFERENCES
from cryptod.forecast.features import COLUMN, MARKET, OWN, FeatureState, absorb, market_terms
from cryptod.forecast.season import FLAT
from cryptod.market import QUANTILE_LEVELS, Float32
from tests import markets


@pytest.fixture(scope="module")
def features() -> tuple[Float32, Float32]:
    panel = markets.panel(4, 300)
    rows = absorb(FeatureState.empty(4), panel.values, panel.status, panel.open_times, FLAT)
    return rows.own, market_terms(rows.own).mean(axis=1).astype(np.float32)


def test_the_regressors_have_the_published_number(features: tuple[Float32, Float32]) -> None:
    own, market = features
    assert baselines.har_terms(own, market).shape == (300, 4, 11)
    assert baselines.harx_terms(own, market).shape == (300, 4, 36)
    assert (baselines.harx_terms(own, market)[..., -1] == 1).all()


def test_one_coin_s_regressors_are_the_row_of_all(features: tuple[Float32, Float32]) -> None:
    own, market = features
    assert np.array_equal(baselines.harx_terms(own[-1, 2:3], market[-1])[0], baselines.harx_terms(own, market)[-1, 2])


def test_the_market_s_own_move_shifts_no_coin(features: tuple[Float32, Float32]) -> None:
    own, market = features
    moved_own, moved_market = own.copy(), market.copy()
    for k in (1, 4, 24):
        moved_own[..., COLUMN[f"trend_{k}"]] += 2.0
        moved_market[..., MARKET.index(f"trend_{k}")] += 2.0
    assert np.allclose(baselines.location_terms(own, market), baselines.location_terms(moved_own, moved_market), atol=1e-5)


def test_the_scales_are_what_they_say(features: tuple[Float32, Float32]) -> None:
    own, market = features
    ahead = np.full((300, 1, 24), 1.5)
    har = np.zeros((24, baselines.HAR_TERMS))
    har[:, 0] = 1.0
    scale = {name: baselines.reference_scales(name, own, market, ahead, har) for name in REFERENCES}
    assert (scale["random_walk"] == 1).all()
    assert np.allclose(scale["ewma"][..., 0], np.exp(0.5 * own[..., OWN.index("raw_24")].astype(float)))
    assert np.allclose(scale["ewma_season"][..., 7], 1.5 * np.exp(0.5 * own[..., COLUMN["level_24"]].astype(float)))
    assert np.allclose(scale["log_har"][..., 3], 1.5 * np.exp(0.5 * own[..., COLUMN["level_2"]].astype(float)))


def test_residual_quantiles_are_numpy_s() -> None:
    residuals = np.random.default_rng(0).standard_t(3, (1001, 24)).astype(np.float32)
    expected = np.quantile(residuals.astype(float), QUANTILE_LEVELS, axis=0).T
    assert np.allclose(baselines.residual_quantiles(residuals), expected, atol=1e-6)
    thinned = baselines.residual_quantiles(residuals, (3,) * 24)
    assert np.allclose(thinned, np.quantile(residuals[::3].astype(float), QUANTILE_LEVELS, axis=0).T, atol=1e-6)
    assert (np.diff(baselines.residual_quantiles(residuals[:1])) == 0).all()


def test_regression_without_penalty_is_least_squares_and_with_it_shrinks() -> None:
    random = np.random.default_rng(0)
    x = np.concatenate([random.normal(5, [1, 10, 0.1], (500, 3)), np.ones((500, 1))], axis=1)
    y = x @ np.array([[1.0, -2.0], [0.3, 0.1], [4.0, 5.0], [7.0, -7.0]]) + random.normal(0, 0.1, (500, 2))
    plain = baselines.solve(x.T @ x, x.T @ y, 0.0)
    assert np.allclose(plain, np.linalg.lstsq(x, y, rcond=None)[0].T, atol=1e-3)
    shrunk = baselines.solve(x.T @ x, x.T @ y, 1.0)
    assert np.allclose(shrunk[:, :3], plain[:, :3] / 2, atol=0.2)
    assert np.allclose((x @ shrunk.T).mean(axis=0), y.mean(axis=0))


def test_a_constant_regressor_breaks_no_regression() -> None:
    x = np.concatenate([np.zeros((50, 2)), np.ones((50, 1))], axis=1)
    assert np.allclose(baselines.solve(x.T @ x, x.T @ np.full((50, 1), 3.0), 0.05), [[0.0, 0.0, 3.0]])


def test_widths_never_shrink_with_the_horizon() -> None:
    random = np.random.default_rng(0)
    scale, spread = random.uniform(0.5, 2.0, (50, 24)), np.sqrt(np.arange(1.0, 25.0))
    widened = baselines.widening(scale, spread)
    assert (np.diff(widened * spread, axis=-1) >= -1e-12).all()
    assert (widened >= scale - 1e-12).all()
    assert np.allclose(widened[:, 0], scale[:, 0])
