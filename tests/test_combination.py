"""The combination: weights follow whoever forecasts better, horizon by horizon, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from cryptod.errors import StoreError
from cryptod.forecast.combination import FLOOR, Combination, describe
from cryptod.forecast.model import SOURCES
from cryptod.forecast.scores import crps
from cryptod.market import Bool, Float32, Float64
from tests.test_scores import NORMAL

N = 20
ALL: Bool = np.ones((N, 24), bool)


def said(**widths: float) -> dict[str, Float32]:
    """Normal forecasts of all forecasters, of the given widths (2 if not named), [N, 24, 9]."""
    return {name: np.broadcast_to(widths.get(name, 2.0) * NORMAL, (N, 24, 9)).astype(np.float32) for name in SOURCES}


def outcomes(random: np.random.Generator, scale: float = 1.0) -> Float64:
    return random.normal(0.0, scale, (N, 24))


def test_it_begins_at_the_model_with_hardly_a_doubt() -> None:
    combination = Combination()
    assert combination.weights.shape == (24, len(SOURCES))
    assert np.allclose(combination.weights.sum(axis=1), 1)
    assert (combination.weights[:, 0] == 0.96).all()
    alike = said(**dict.fromkeys(SOURCES, 1.0))
    assert np.allclose(combination.combine(alike), alike["model"], atol=1e-6)


def test_a_reference_that_is_better_for_months_takes_over() -> None:
    combination, random = Combination(), np.random.default_rng(0)
    forecasts = said(random_walk=1.0)
    for _ in range(3000):
        combination.update(forecasts, outcomes(random), ALL)
    weights = combination.weights[:, SOURCES.index("random_walk")]
    assert weights[0] > 0.9
    assert weights[23] > 0.5
    average = crps(combination.combine(forecasts), outcomes(random)).mean()
    assert average < crps(forecasts["model"], outcomes(random)).mean()


def test_the_model_keeps_its_place_where_it_is_better_and_nobody_is_forgotten() -> None:
    combination, random = Combination(), np.random.default_rng(0)
    for _ in range(3000):
        combination.update(said(model=1.0), outcomes(random), ALL)
    assert (combination.weights[:, 0] > 0.95).all()
    assert combination.weights.min() >= FLOOR * 0.98
    back = 0
    while combination.weights[0, SOURCES.index("ewma")] < 0.5 and back < 2000:
        combination.update(said(ewma=1.0), outcomes(random), ALL)
        back += 1
    assert back < 24 * 45


def test_horizons_learn_apart() -> None:
    combination, random = Combination(), np.random.default_rng(0)
    forecasts = said(model=1.0)
    forecasts["ewma"] = forecasts["ewma"].copy()
    forecasts["model"] = forecasts["model"].copy()
    forecasts["ewma"][:, 5], forecasts["model"][:, 5] = NORMAL, 2 * NORMAL
    for _ in range(1500):
        combination.update(forecasts, outcomes(random), ALL)
    assert combination.weights[5, SOURCES.index("ewma")] > 0.5
    assert (np.delete(combination.weights[:, 0], 5) > 0.95).all()


def test_every_coin_counts_alike_whatever_its_price_moves() -> None:
    """One coin that moves a thousand times as much as the others does not decide for them."""
    combination, random = Combination(), np.random.default_rng(0)
    scale = np.ones((N, 1))
    scale[0] = 1000.0
    for _ in range(500):
        forecasts = {name: (values * scale[..., None]).astype(np.float32) for name, values in said(model=1.0).items()}
        forecasts["ewma"][0], forecasts["model"][0] = 1000 * NORMAL, 2000 * NORMAL
        combination.update(forecasts, outcomes(random) * scale, ALL)
    assert (combination.weights[:, 0] > 0.95).all()


def test_what_does_not_count_or_is_not_known_teaches_nothing() -> None:
    combination = Combination()
    before = combination.weights.copy()
    random = np.random.default_rng(0)
    combination.update(said(), outcomes(random), ~ALL)
    combination.update(said(), np.full((N, 24), np.nan), ALL)
    combination.update(said() | {"ewma": np.full((N, 24, 9), np.nan, np.float32)}, outcomes(random), ALL)
    combination.update(said(**dict.fromkeys(SOURCES, 0.0)), outcomes(random), ALL)
    assert np.array_equal(combination.weights, before)


def test_one_hour_of_a_crash_decides_nothing() -> None:
    combination = Combination()
    combination.update(said(random_walk=50.0), np.full((N, 24), 40.0), ALL)
    assert (combination.weights[:, 0] > 0.9).all()


def test_the_average_of_quantiles_in_order_is_in_order() -> None:
    random = np.random.default_rng(0)
    forecasts = {name: np.sort(random.normal(size=(N, 24, 9)), axis=-1).astype(np.float32) for name in SOURCES}
    assert (np.diff(Combination().combine(forecasts), axis=-1) >= 0).all()


def test_the_state_survives_a_restart_and_a_garbled_one_is_refused() -> None:
    combination, random = Combination(), np.random.default_rng(0)
    for _ in range(20):
        combination.update(said(ewma=1.0), outcomes(random), ALL)
    kept = combination.export()
    restored = Combination.restore(kept)
    drawn = outcomes(random)
    for one in (combination, restored):
        one.update(said(), drawn, ALL)
    assert np.array_equal(combination.weights, restored.weights)
    for bad in ({}, kept | {"forecasters": ["x"]}, kept | {"weights": kept["weights"] * 2}, kept | {"loss": np.full(24, np.nan)}):
        with pytest.raises(StoreError, match="garbled"):
            Combination.restore(bad)


def test_weights_are_described_by_name() -> None:
    assert describe(Combination().weights, (1, 24)) == {h: {n: 0.96 if n == "model" else 0.01 for n in SOURCES} for h in ("1h", "24h")}
