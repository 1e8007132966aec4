"""The one thing that is learned step by step: the network's correction to the log variance.

Owns torch together with the engine. Knows arrays of inputs and residuals; no coin, no candle, no store. Huber loss on the
log of realised variance, not pinball on returns: that choice matters more than the architecture (docs/forecasting.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from cryptod.forecast import network
from cryptod.market import Float32, Int64

silu = torch.nn.functional.silu

BATCH: Final = 1024
STEPS: Final = 600
"""Enough for any number of coins: 400 steps at 4e-3 and 1,200 at 1e-3 end at the same quality."""
RATE: Final = 2e-3
TIMID_STEPS: Final = 23
"""Steps of an incremental update per epoch of its setting."""
TIMID_RATE: Final = 2e-4
_DECAY: Final = 0.1
_WARM_UP: Final = 50
_CLIP: Final = 1.0
_LOOK_EVERY: Final = 100
_TOLERANCE: Final = 1.01
"""A validation loss up to 1 % above the best is as good: two weeks of one regime do not tell finer, and the newer
weights have seen more.
"""
_PATIENCE: Final = 3
_VALIDATION_ROWS: Final = 8192
_MASKS: Final = 16 * BATCH


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how boldly to train."""

    steps: int
    rate: float
    seed: int
    dropout: float = network.DROPOUT
    early_stop: bool = True


@dataclass(frozen=True, slots=True)
class Trained:
    """``weights`` (the best by validation), ``steps`` done, mean validation loss at the start (``before``) and of the
    weights (``after``).
    """

    weights: dict[str, Float32]
    steps: int
    before: float
    after: float


def full_plan(rows: int, epochs: int, seed: int) -> Plan:
    """Passes over the data are limited by ``epochs`` and steps by `STEPS`, whichever ends first."""
    return Plan(steps=max(1, min(STEPS, epochs * math.ceil(rows / BATCH))), rate=RATE, seed=seed)


def timid_plan(epochs: int, seed: int) -> Plan:
    """An incremental update: few small steps, which hardly leave the current weights."""
    return Plan(steps=TIMID_STEPS * epochs, rate=TIMID_RATE, seed=seed, early_stop=False)


def train(
    weights: dict[str, Float32],
    inputs: Float32,
    residual: Float32,
    learn: Int64,
    validate: Int64,
    plan: Plan,
    progress: Callable[[int, float], None] = lambda step, loss: None,
) -> Trained:
    """Minimise the Huber loss of correction against ``residual`` over the rows ``learn``; keep the weights that do best on ``validate``.

    ``inputs``: float32 [V, INPUTS], standardised and clipped. ``residual``: float32 [V, 24], log variance less its
    linear fit. ``learn``, ``validate``: int64 rows. Deterministic for a seed and a number of threads. ``progress(step,
    loss)`` is called about every ten steps.
    """
    generator = torch.Generator().manual_seed(plan.seed)
    flat = torch.from_numpy(np.concatenate([value.ravel() for value in weights.values()]))
    parameters = {name: part.requires_grad_() for name, part in _named(flat, weights).items()}
    leaves = list(parameters.values())
    optimizer = _AdamW(flat)
    x, y, rows = torch.from_numpy(inputs), torch.from_numpy(residual), torch.from_numpy(learn)
    if len(validate) > _VALIDATION_ROWS:
        validate = validate[np.linspace(0, len(validate) - 1, _VALIDATION_ROWS).astype(np.int64)]
    held = (x[torch.from_numpy(validate)], y[torch.from_numpy(validate)])
    # Masks are cut at random places from one long one: drawing 65,536 numbers a step would cost a third of the step.
    masks = torch.empty(_MASKS, network.HIDDEN).bernoulli_(1.0 - plan.dropout, generator=generator).div_(1.0 - plan.dropout)

    def drop(hidden: torch.Tensor) -> torch.Tensor:
        if plan.dropout == 0.0:
            return hidden
        first = int(torch.randint(_MASKS - len(hidden), (1,), generator=generator))
        return hidden * masks[first : first + len(hidden)]

    def look() -> float:
        if len(validate) == 0:
            return 0.0
        with torch.no_grad():
            return float(torch.nn.functional.huber_loss(network.forward(parameters, held[0], activation=silu), held[1]))

    before = after = best = look()
    best_weights = flat.clone()
    since, step = 0, 0
    for step in range(1, plan.steps + 1):
        chosen = rows[torch.randint(len(rows), (BATCH,), generator=generator)]
        corrected = network.forward(parameters, x.index_select(0, chosen), activation=silu, dropout=drop)
        loss = torch.nn.functional.huber_loss(corrected, y.index_select(0, chosen))
        gradient = torch.cat([part.view(-1) for part in torch.autograd.grad(loss, leaves)])
        optimizer.step(gradient, plan.rate * _schedule(step, plan.steps))
        if step % 10 == 0:
            progress(step, float(loss.detach()))
        if step == plan.steps or (plan.early_stop and step % _LOOK_EVERY == 0):
            now = look()
            if now <= best * _TOLERANCE or not plan.early_stop:
                after, best, since = now, min(best, now), 0
                best_weights = flat.clone()
            else:
                since += 1
                if since >= _PATIENCE:
                    break
    return Trained({name: value.numpy().copy() for name, value in _named(best_weights, weights).items()}, step, before, after)


def _named(flat: torch.Tensor, like: dict[str, Float32]) -> dict[str, torch.Tensor]:
    """The parameters by name, views of one vector: one update a step instead of six."""
    parts = torch.split(flat, [value.size for value in like.values()])
    return {name: part.view(value.shape) for (name, value), part in zip(like.items(), parts, strict=True)}


class _AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2) on one vector of parameters.

    Written out because `torch.optim` imports torch's compiler with it: 60 MB and half a second in every training child.
    """

    BETA1: Final = 0.9
    BETA2: Final = 0.999
    EPSILON: Final = 1e-8

    def __init__(self, parameters: torch.Tensor) -> None:
        self._parameters = parameters
        self._mean = torch.zeros_like(parameters)
        self._square = torch.zeros_like(parameters)
        self._steps = 0

    @torch.no_grad()
    def step(self, gradient: torch.Tensor, rate: float) -> None:
        self._steps += 1
        gradient = gradient * torch.clamp(_CLIP / (gradient.norm() + 1e-6), max=1.0)
        self._mean.lerp_(gradient, 1.0 - self.BETA1)
        self._square.mul_(self.BETA2).addcmul_(gradient, gradient, value=1.0 - self.BETA2)
        scale = (self._square / (1.0 - self.BETA2**self._steps)).sqrt_().add_(self.EPSILON)
        self._parameters.mul_(1.0 - rate * _DECAY)
        self._parameters.addcdiv_(self._mean, scale, value=-rate / (1.0 - self.BETA1**self._steps))


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to 0."""
    warm = min(_WARM_UP, steps // 4 + 1)
    if step <= warm:
        return step / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))
