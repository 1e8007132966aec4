"""The correction: nothing at first, the same for numpy and torch, blind to the market's level and to the calendar."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryptod.errors import CheckpointError
from cryptod.forecast import network
from cryptod.forecast.features import LEVELS, MARKET, OWN, RANGES, SQUARES
from cryptod.market import Float32

RANDOM = np.random.default_rng(0)


def rows(count: int = 50) -> Float32:
    return RANDOM.normal(size=(count, network.INPUTS)).astype(np.float32)


def trained() -> dict[str, Float32]:
    return {name: RANDOM.normal(0, 0.3, shape).astype(np.float32) for name, shape in network.SHAPES.items()}


def test_an_untrained_network_corrects_nothing() -> None:
    assert not np.any(network.forward(network.initial(7), rows()))


def test_weights_depend_on_the_seed_alone() -> None:
    assert all(np.array_equal(value, network.initial(7)[name]) for name, value in network.initial(7).items())
    assert not np.array_equal(network.initial(7)["w1"], network.initial(8)["w1"])


def test_numpy_and_torch_agree() -> None:
    weights, inputs = trained(), rows()
    ours = network.forward(weights, inputs)
    theirs = network.forward(
        {name: torch.from_numpy(value) for name, value in weights.items()}, torch.from_numpy(inputs), activation=torch.nn.functional.silu
    )
    assert ours.dtype == np.float32
    assert np.allclose(ours, theirs.numpy(), atol=1e-5)


def test_the_correction_is_bounded_whatever_comes_in() -> None:
    weights = {name: value * 100 for name, value in trained().items()}
    found = network.forward(weights, network.standardise(rows() * 1e6, np.zeros(26, np.float32), np.ones(26, np.float32)))
    assert np.abs(found).max() == network.CLAMP
    assert np.isfinite(found).all()


def test_there_are_26_inputs_and_one_coin_s_are_the_row_of_all() -> None:
    own, market = RANDOM.normal(size=(5, 4, len(OWN))).astype(np.float32), RANDOM.normal(size=(5, len(MARKET))).astype(np.float32)
    found = network.inputs(own, market)
    assert network.INPUTS == 26
    assert found.shape == (5, 4, 26)
    assert found.dtype == np.float32
    assert np.array_equal(network.inputs(own[2, 1:2], market[2])[0], found[2, 1])


def test_doubling_every_coin_s_volatility_changes_no_input() -> None:
    own, market = RANDOM.normal(size=(4, len(OWN))).astype(np.float32), RANDOM.normal(size=len(MARKET)).astype(np.float32)
    louder, louder_market = own.copy(), market.copy()
    names = [*(f"level_{k}" for k in LEVELS), *(f"range_{k}" for k in RANGES), *(f"square_{k}" for k in SQUARES)]
    louder[:, [OWN.index(name) for name in names]] += 1.4
    louder_market[[i for i, name in enumerate(MARKET) if name.startswith("level")]] += 1.4
    assert np.allclose(network.inputs(own, market), network.inputs(louder, louder_market), atol=1e-5)


@pytest.mark.parametrize("name", sorted(network.SHAPES))
def test_weights_that_are_missing_misshapen_or_not_finite_are_refused(name: str) -> None:
    weights = trained()
    network.check(weights)
    for spoilt in (
        {key: value for key, value in weights.items() if key != name},
        weights | {name: weights[name][:-1]},
        weights | {name: weights[name].astype(np.float64)},
        weights | {name: np.full_like(weights[name], np.nan)},
    ):
        with pytest.raises(CheckpointError):
            network.check(spoilt)
