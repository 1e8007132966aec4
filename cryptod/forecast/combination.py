"""The forecasters together: quantile averages of the model and the references, with weights learned online per horizon.

Pure arithmetic on arrays with a small state; knows forecasters by name, no coin, no clock and no store. The references fail at other
times than the model does: in some years and markets one of them has been better for months. Averaging quantiles (Vincent 1912;
Lichtendahl et al. 2013) keeps them in order, and pinball loss is convex in the weights, so exponentiated gradients (Kivinen and Warmuth
1997; Cesa-Bianchi and Lugosi 2006, section 2.4) come close to the best fixed average in hindsight, whatever the market does.

It begins at the model with hardly a doubt, and it is slow: on the markets that it was tuned on it changed nothing (docs/forecasting.md). It
is an insurance. No weight falls below `FLOOR`, so that a forecaster once forgotten comes back within weeks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from cryptod.errors import StoreError
from cryptod.forecast.model import SOURCES
from cryptod.forecast.scores import slope
from cryptod.market import MAX_HORIZON, Bool, Float32, Float64

RATE: Final = 0.3
"""Of the gradient over the mean loss."""
FLOOR: Final = 0.002
DOUBT: Final = 0.01
"""Each reference's weight in the beginning."""
_CUT: Final = 1.0
"""Largest step in the gradient's own units: one hour of a crash decides nothing."""
_LOSS_RATE: Final = 0.01
_SLOWER: Final = np.sqrt(np.arange(1, MAX_HORIZON + 1, dtype=np.float64))


class Combination:
    """Weights of the forecasters `SOURCES` at each horizon, ``weights`` float64 [24, 5], each row of sum 1."""

    def __init__(self) -> None:
        self.weights: Float64 = np.full((MAX_HORIZON, len(SOURCES)), DOUBT)
        self.weights[:, 0] = 1.0 - DOUBT * (len(SOURCES) - 1)
        self._loss: Float64 = np.zeros(MAX_HORIZON)

    def combine(self, said: Mapping[str, Float32]) -> Float32:
        """float32 [..., N, 24, 9]: the weighted average of the quantiles that each forecaster gave, name -> [..., N, 24, 9]."""
        weights = self.weights.astype(np.float32)
        found = weights[:, 0, None] * said[SOURCES[0]]
        for place, name in enumerate(SOURCES[1:], start=1):
            found += weights[:, place, None] * said[name]
        return np.asarray(found)

    def update(self, said: Mapping[str, Float32], outcomes: Float64, counted: Bool) -> None:
        """Learn from what matured together: name -> quantiles [N, 24, 9], where [:, h - 1] were issued h hours before the time at which
        ``outcomes`` [N, 24] became known. ``counted``: bool [N, 24], which of them count.

        Every coin counts alike: losses and gradients are taken in units of the forecast's own width.
        """
        counted = counted & np.isfinite(outcomes)
        for quantiles in said.values():
            counted = counted & np.isfinite(quantiles).all(axis=-1)
        average = np.where(counted[..., None], self.combine(said), 0.0).astype(np.float64)
        width = average[..., -1] - average[..., 0]
        counted &= width > 0
        number = counted.sum(axis=0)
        seen = number > 0
        if not seen.any():
            return
        share = np.where(counted, 1.0 / (np.where(counted, width, 1.0) * np.maximum(number, 1)), 0.0)
        became = np.where(counted, outcomes, 0.0)
        direction = slope(average, became) * share[..., None]
        loss = ((average - became[..., None]) * direction).sum(axis=(0, 2))
        gradient = np.stack([(np.where(counted[..., None], said[name], 0.0) * direction).sum(axis=(0, 2)) for name in SOURCES], axis=-1)
        fresh = seen & (self._loss == 0)
        self._loss = np.where(fresh, loss, np.where(seen, self._loss + _LOSS_RATE * (loss - self._loss), self._loss))
        centred = gradient - (self.weights * gradient).sum(axis=-1, keepdims=True)
        pace = np.where(seen, RATE / _SLOWER * number / (number + 10.0), 0.0)
        step = pace[:, None] * np.clip(centred / np.maximum(self._loss, 1e-12)[:, None], -_CUT, _CUT)
        moved = self.weights * np.exp(-step)
        moved = np.maximum(moved / moved.sum(axis=-1, keepdims=True), FLOOR)
        self.weights = moved / moved.sum(axis=-1, keepdims=True)

    def export(self) -> dict[str, Any]:
        """The state, to be kept and given to `restore`."""
        return {"forecasters": list(SOURCES), "weights": self.weights.copy(), "loss": self._loss.copy()}

    @classmethod
    def restore(cls, kept: Mapping[str, Any]) -> Combination:
        """The state as exported, or `StoreError`."""
        found = cls()
        weights, loss = kept.get("weights"), kept.get("loss")
        if (
            kept.get("forecasters") != list(SOURCES)
            or not isinstance(weights, np.ndarray)
            or not isinstance(loss, np.ndarray)
            or weights.shape != found.weights.shape
            or loss.shape != found._loss.shape
            or weights.dtype.kind != "f"
            or loss.dtype.kind != "f"
            or not (np.isfinite(weights).all() and np.isfinite(loss).all() and (weights >= 0).all() and (loss >= 0).all())
            or not np.allclose(weights.sum(axis=-1), 1.0)
        ):
            raise StoreError("the weights of the forecasters are garbled", hint="they are learned anew within weeks")
        found.weights, found._loss = weights.astype(np.float64), loss.astype(np.float64)
        return found


def describe(weights: Float64, horizons: Sequence[int]) -> dict[str, dict[str, float]]:
    """Weights for people: horizon -> forecaster -> weight."""
    return {f"{h}h": {name: round(float(weights[h - 1, place]), 4) for place, name in enumerate(SOURCES)} for h in horizons}
