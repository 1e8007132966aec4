"""The step-by-step part of training: it learns, repeats itself exactly, stops, and leaves what it was given alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryptod.forecast import network
from cryptod.market import Float32, Int64
from cryptod.training import trainer
from cryptod.training.trainer import Plan, Trained

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(6000, network.INPUTS)).astype(np.float32)
Y = (0.5 * np.tanh(X[:, :1]) + 0.2 * X[:, 1:2] * X[:, 2:3] + RANDOM.normal(0, 0.2, (6000, 24))).astype(np.float32)
LEARN, HOLD = np.arange(5000), np.arange(5000, 6000)
NONE: Int64 = np.zeros(0, np.int64)


def run(steps: int = 150, hold: Int64 = HOLD, residual: Float32 = Y, **plan: float | bool) -> Trained:
    return trainer.train(network.initial(1), X, residual, LEARN, hold, Plan(steps=steps, rate=2e-3, seed=3, **plan))  # type: ignore[arg-type]


def test_it_learns_what_is_there_to_learn() -> None:
    found = run(300)
    assert found.after < 0.7 * found.before
    predicted = network.forward(found.weights, X[HOLD])
    assert ((predicted - Y[HOLD]) ** 2).mean() < 0.7 * (Y[HOLD] ** 2).mean()


def test_the_same_seed_gives_the_same_weights_to_the_last_bit() -> None:
    one, other = run(), run()
    assert all(np.array_equal(value, other.weights[name]) for name, value in one.weights.items())


def test_the_validation_loss_is_that_of_the_weights_returned() -> None:
    found = run()
    error = np.abs(network.forward(found.weights, X[HOLD]) - Y[HOLD])
    huber = np.where(error < 1, 0.5 * error**2, error - 0.5).mean()
    assert found.after == pytest.approx(float(huber), rel=1e-4)


def test_it_stops_when_the_validation_loss_says_so() -> None:
    contrary = Y.copy()
    contrary[HOLD] = -3.0 * contrary[HOLD]
    found = run(700, residual=contrary)
    assert found.steps < 700
    assert found.after <= found.before * 1.02


def test_it_needs_no_validation_rows() -> None:
    found = run(50, NONE)
    assert found.steps == 50
    assert np.any(found.weights["w3"])


def test_the_weights_that_it_starts_from_stay_as_they_were() -> None:
    weights = network.initial(1)
    kept = {name: value.copy() for name, value in weights.items()}
    trainer.train(weights, X, Y, LEARN, HOLD, Plan(steps=20, rate=1e-3, seed=0))
    assert all(np.array_equal(value, kept[name]) for name, value in weights.items())


def test_it_reports_as_it_goes() -> None:
    seen: list[int] = []
    trainer.train(network.initial(1), X, Y, LEARN, HOLD, Plan(steps=60, rate=1e-3, seed=0), lambda step, loss: seen.append(step))
    assert seen == [10, 20, 30, 40, 50, 60]


def test_epochs_are_a_maximum() -> None:
    assert trainer.full_plan(10 * trainer.BATCH, 2, 0).steps == 20
    assert trainer.full_plan(10_000 * trainer.BATCH, 50, 0).steps == trainer.STEPS
    assert trainer.full_plan(10, 1, 0).steps == 1


def test_an_incremental_update_is_timid() -> None:
    before = run(300).weights
    after = trainer.train(before, X, Y, LEARN, HOLD, trainer.timid_plan(5, 0)).weights
    moved = np.sqrt(sum(((after[name] - before[name]) ** 2).sum() for name in before))
    size = np.sqrt(sum((before[name] ** 2).sum() for name in before))
    assert trainer.timid_plan(5, 0).steps == 115
    assert 0 < moved < 0.15 * size


def test_rows_outside_of_the_training_set_teach_nothing() -> None:
    changed, other = X.copy(), Y.copy()
    changed[5000:5500] += 1.0
    other[5000:5500] *= -3.0
    plan = Plan(steps=60, rate=1e-3, seed=7, early_stop=False)
    one, same = (trainer.train(network.initial(1), x, y, LEARN, np.arange(5500, 6000), plan) for x, y in ((X, Y), (changed, other)))
    assert all(np.array_equal(one.weights[name], same.weights[name]) for name in one.weights)


def test_residuals_that_are_nan_do_not_replace_sound_weights() -> None:
    spoilt = Y.copy()
    spoilt[: LEARN[-1] : 7] = np.nan
    found = run(600, residual=spoilt)
    assert found.steps < 600
    network.check(found.weights)


def test_the_optimizer_is_torch_s_adamw_with_clipped_gradients_step_for_step() -> None:
    random = torch.Generator().manual_seed(1)
    start = torch.randn(500, generator=random)
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    hand, reference = trainer._AdamW(ours), torch.optim.AdamW([theirs], lr=1e-3, weight_decay=0.1)
    for step in range(1, 201):
        gradient = torch.randn(500, generator=random) * (10.0 if step % 3 == 0 else 0.01)
        rate = 1e-3 * trainer._schedule(step, 200)
        theirs.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        reference.param_groups[0]["lr"] = rate
        reference.step()
        hand.step(gradient, rate)
        assert float((ours - theirs).detach().abs().max()) < 1e-6, step
    assert float((ours - start).detach().abs().max()) > 1e-2, "or it says nothing"


@pytest.mark.parametrize("steps", [1, 3, 60, 600])
def test_the_rate_warms_up_and_dies_away(steps: int) -> None:
    rates = [trainer._schedule(step, steps) for step in range(1, steps + 1)]
    assert 0 < max(rates) <= 1.0
    assert min(rates) >= 0.0
    if steps > 4:
        assert rates[0] < 0.2
        assert rates[-1] < 0.01
        assert rates.index(max(rates)) <= steps // 4
