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

BATCH: Final = 1024
STEPS: Final = 1200
"""Enough for any number of coins: quality is flat from 500 to 2,500 steps."""
RATE: Final = 1e-3
TIMID_STEPS: Final = 23
"""Steps of an incremental update per epoch of its setting."""
TIMID_RATE: Final = 2e-4
_DECAY: Final = 0.1
_WARM_UP: Final = 50
_CLIP: Final = 1.0
_LOOK_EVERY: Final = 100
_PATIENCE: Final = 5
_VALIDATION_ROWS: Final = 8192


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
    """``weights`` (the best by validation), ``steps`` done, mean validation loss at the start (``before``) and of the weights (``after``)."""

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

    ``inputs``: float32 [V, INPUTS], standardised and clipped. ``residual``: float32 [V, 24], log variance less its linear fit. ``learn``, ``validate``: int64 rows.
    Deterministic for a seed and a number of threads. ``progress(step, loss)`` is called about every ten steps.
    """
    generator = torch.Generator().manual_seed(plan.seed)
    parameters = {name: torch.from_numpy(value.copy()).requires_grad_() for name, value in weights.items()}
    optimizer = torch.optim.AdamW(parameters.values(), lr=plan.rate, weight_decay=_DECAY, fused=True)
    x, y, rows = torch.from_numpy(inputs), torch.from_numpy(residual), torch.from_numpy(learn)
    if len(validate) > _VALIDATION_ROWS:
        validate = validate[np.linspace(0, len(validate) - 1, _VALIDATION_ROWS).astype(np.int64)]
    held = (x[torch.from_numpy(validate)], y[torch.from_numpy(validate)])
    keep = 1.0 - plan.dropout

    def drop(hidden: torch.Tensor) -> torch.Tensor:
        return hidden * torch.empty_like(hidden).bernoulli_(keep, generator=generator).div_(keep)

    def look() -> float:
        if len(validate) == 0:
            return 0.0
        with torch.no_grad():
            return float(torch.nn.functional.huber_loss(network.forward(parameters, held[0], tanh=torch.tanh), held[1]))

    before = best = look()
    best_weights = {name: value.detach().clone() for name, value in parameters.items()}
    since, step = 0, 0
    for step in range(1, plan.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = plan.rate * _schedule(step, plan.steps)
        chosen = rows[torch.randint(len(rows), (BATCH,), generator=generator)]
        loss = torch.nn.functional.huber_loss(network.forward(parameters, x[chosen], tanh=torch.tanh, dropout=drop), y[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters.values(), _CLIP)
        optimizer.step()
        if step % 10 == 0:
            progress(step, float(loss.detach()))
        if step % _LOOK_EVERY == 0 or step == plan.steps:
            now = look()
            if now <= best or not plan.early_stop:
                best, since = now, 0
                best_weights = {name: value.detach().clone() for name, value in parameters.items()}
            else:
                since += 1
                if since >= _PATIENCE:
                    break
    return Trained({name: value.numpy() for name, value in best_weights.items()}, step, before, best)


def _schedule(step: int, steps: int) -> float:
    """Linear warm-up, then a cosine down to 0."""
    warm = min(_WARM_UP, steps // 4 + 1)
    if step <= warm:
        return step / warm
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm) / max(steps - warm, 1)))
