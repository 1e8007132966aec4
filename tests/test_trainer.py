"""Training of the correction: it learns what can be learned, stops when it learns no more, and is its own exact repetition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cryptod.forecast import network
from cryptod.market import Float32, Int64
from cryptod.training import trainer
from cryptod.training.trainer import Plan, full_plan, timid_plan, train

torch.set_num_threads(1)
ROWS = 6000
LEARN: Int64 = np.arange(4500)
HOLD: Int64 = np.arange(4500, ROWS)


def toy(signal: float = 0.5, seed: int = 1) -> tuple[Float32, Float32]:
    """Inputs and a residual of which a part follows from two of them, not linearly."""
    random = np.random.default_rng(seed)
    inputs = np.clip(random.normal(size=(ROWS, network.INPUTS)), -5, 5).astype(np.float32)
    part = signal * np.abs(inputs[:, :1]) * np.sign(inputs[:, 1:2]) * np.linspace(1.0, 0.5, 24)
    return inputs, (part + random.normal(0, 0.5, (ROWS, 24))).astype(np.float32)


def test_it_learns_what_can_be_learned() -> None:
    inputs, residual = toy(signal=1.0)
    found = train(network.initial(1), inputs, residual, LEARN, HOLD, full_plan(len(LEARN), 50, 1))
    nothing = float(torch.nn.functional.huber_loss(torch.zeros(len(HOLD), 24), torch.from_numpy(residual[HOLD])))
    assert found.before == pytest.approx(nothing, rel=1e-5)
    assert found.after < 0.75 * found.before
    correction = network.forward(found.weights, inputs[HOLD])
    assert np.corrcoef(correction[:, 0], residual[HOLD, 0])[0, 1] > 0.5
    loss = float(torch.nn.functional.huber_loss(torch.from_numpy(correction), torch.from_numpy(residual[HOLD])))
    assert found.after == pytest.approx(loss, rel=1e-4)


def test_where_nothing_can_be_learned_it_stops_early_and_hardly_corrects() -> None:
    random = np.random.default_rng(2)
    inputs = random.normal(size=(600, network.INPUTS)).astype(np.float32)
    residual = random.normal(size=(600, 24)).astype(np.float32)
    found = train(network.initial(1), inputs, residual, np.arange(300), np.arange(300, 600), Plan(5000, 5e-3, 1, dropout=0.0))
    assert found.steps < 2500
    assert found.after <= found.before * 1.011
    assert found.after == pytest.approx(
        float(torch.nn.functional.huber_loss(
            torch.from_numpy(network.forward(found.weights, inputs[300:])), torch.from_numpy(residual[300:])
        )), rel=1e-4,
    )  # fmt: skip


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    inputs, residual = toy()
    plan = Plan(60, 1e-3, 7)
    one, same, other = (train(network.initial(1), inputs, residual, LEARN, HOLD, p) for p in (plan, plan, Plan(60, 1e-3, 8)))
    assert all(np.array_equal(one.weights[name], same.weights[name]) for name in one.weights)
    assert (one.before, one.after) == (same.before, same.after)
    assert not np.array_equal(one.weights["w1"], other.weights["w1"])


def test_rows_outside_of_the_training_set_teach_nothing() -> None:
    inputs, residual = toy()
    changed, other = inputs.copy(), residual.copy()
    changed[4500:5000] += 1.0
    other[4500:5000] *= -3.0
    plan, hold = Plan(60, 1e-3, 7, early_stop=False), np.arange(5000, ROWS)
    one = train(network.initial(1), inputs, residual, LEARN, hold, plan)
    same = train(network.initial(1), changed, other, LEARN, hold, plan)
    assert all(np.array_equal(one.weights[name], same.weights[name]) for name in one.weights)


def test_the_weights_given_are_left_as_they_were() -> None:
    inputs, residual = toy()
    weights = network.initial(1)
    kept = {name: value.copy() for name, value in weights.items()}
    found = train(weights, inputs, residual, LEARN, HOLD, Plan(40, 1e-3, 1))
    assert all(np.array_equal(weights[name], kept[name]) for name in kept)
    network.check(found.weights)
    assert found.weights["w3"].any()


def test_a_timid_update_hardly_leaves_the_weights_that_it_came_with() -> None:
    inputs, residual = toy()
    bold = train(network.initial(1), inputs, residual, LEARN, HOLD, full_plan(len(LEARN), 50, 1))
    timid = train(bold.weights, inputs, residual, LEARN, HOLD, timid_plan(5, 2))
    moved = max(float(np.abs(timid.weights[name] - bold.weights[name]).max()) for name in bold.weights)
    assert 0 < moved < 0.1
    assert timid.after < bold.after * 1.02
    assert timid.steps == 5 * trainer.TIMID_STEPS


@pytest.mark.parametrize(("rows", "epochs", "steps"), [(100_000, 50, trainer.STEPS), (1024, 5, 5), (2000, 3, 6), (10, 1, 1)])
def test_epochs_are_a_maximum(rows: int, epochs: int, steps: int) -> None:
    assert full_plan(rows, epochs, 1).steps == steps


def test_progress_is_told_every_ten_steps() -> None:
    inputs, residual = toy()
    told: list[tuple[int, float]] = []
    train(network.initial(1), inputs, residual, LEARN, HOLD, Plan(45, 1e-3, 1), lambda step, loss: told.append((step, loss)))
    assert [step for step, _ in told] == [10, 20, 30, 40]
    assert all(np.isfinite(loss) for _, loss in told)


def test_without_rows_to_validate_on_it_trains_to_the_end() -> None:
    inputs, residual = toy()
    found = train(network.initial(1), inputs, residual, LEARN, np.arange(0), Plan(130, 1e-3, 1))
    assert found.steps == 130
    assert found.weights["w3"].any()


def test_residuals_that_are_nan_do_not_replace_sound_weights() -> None:
    inputs, residual = toy()
    residual[::7] = np.nan
    weights = network.initial(1)
    found = train(weights, inputs, residual, LEARN, HOLD, Plan(2000, 1e-3, 1))
    assert found.steps < 2000
    network.check(found.weights)


def test_the_optimizer_is_torch_s_adamw_with_clipped_gradients_step_for_step() -> None:
    random = torch.Generator().manual_seed(1)
    start = torch.randn(500, generator=random)
    ours, theirs = start.clone().requires_grad_(), start.clone().requires_grad_()
    hand = trainer._AdamW(ours)
    reference = torch.optim.AdamW([theirs], lr=1e-3, weight_decay=0.1)
    for step in range(1, 201):
        gradient = torch.randn(500, generator=random) * (10.0 if step % 3 == 0 else 0.01)
        rate = 1e-3 * trainer._schedule(step, 200)
        theirs.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_([theirs], 1.0)
        for group in reference.param_groups:
            group["lr"] = rate
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
