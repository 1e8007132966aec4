"""Online calibration: how much wider or narrower each coin's intervals must be, learned from forecasts whose outcome is known.

Pure arithmetic on arrays with a small state; knows coins by name, no clock and no store. The caller feeds outcomes when
they have matured: that of horizon h comes h hours after its forecast. The measure is bounded, |2 PIT - 1| of the
forecast as issued (mean 1/2 if calibrated), so that one violent hour moves the state no more than any other miss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from cryptod.errors import StoreError
from cryptod.forecast.scores import pit
from cryptod.market import MAX_HORIZON, Float32, Float64

RATE: Final = 0.003
LIMIT: Final = 1.5
"""Largest log factor."""

_RATES: Final = RATE / np.sqrt(np.arange(1, MAX_HORIZON + 1))


class Calibration:
    """Log scale factors per coin and horizon, ``theta`` float64 [n, 24]; a coin never heard of has 0."""

    def __init__(self) -> None:
        self._row: dict[str, int] = {}
        self._theta: Float64 = np.zeros((0, MAX_HORIZON))

    def factors(self, symbols: Sequence[str]) -> Float32:
        """float32 [N, 24]: by what to multiply the quantiles of each coin."""
        found = np.zeros((len(symbols), MAX_HORIZON))
        for place, symbol in enumerate(symbols):
            row = self._row.get(symbol)
            if row is not None:
                found[place] = self._theta[row]
        return np.exp(found).astype(np.float32)

    def update(self, symbols: Sequence[str], quantiles: Float32, outcomes: Float64) -> None:
        """Learn from forecasts that matured together: ``quantiles`` [N, 24, 9] as issued, where [:, h - 1] were issued h hours before the
        time at which ``outcomes`` [N, 24], cumulative log returns, became known; NaN where there was no forecast or no outcome.
        """
        known = np.isfinite(outcomes) & np.isfinite(quantiles).all(axis=-1)
        measure = np.abs(2.0 * pit(np.where(known[..., None], quantiles, 0.0), np.where(known, outcomes, 0.0)) - 1.0)
        step = np.where(known, _RATES * (2.0 * measure - 1.0), 0.0)
        rows = self._rows(symbols)
        self._theta[rows] = np.clip(self._theta[rows] + step, -LIMIT, LIMIT)

    def export(self) -> dict[str, np.ndarray | list[str]]:
        """The state, to be kept and given to `restore`."""
        return {"symbols": list(self._row), "theta": self._theta.copy()}

    @classmethod
    def restore(cls, kept: Mapping[str, object]) -> Calibration:
        """The state as exported, or `StoreError`."""
        found = cls()
        symbols, theta = kept.get("symbols"), kept.get("theta")
        if (
            not isinstance(symbols, list)
            or not isinstance(theta, np.ndarray)
            or theta.dtype.kind != "f"
            or theta.shape != (len(symbols), MAX_HORIZON)
            or len({str(symbol) for symbol in symbols}) != len(symbols)
        ):
            raise StoreError("the calibration's state is garbled", hint="it is learned anew within days")
        found._row = {str(symbol): row for row, symbol in enumerate(symbols)}
        found._theta = np.clip(np.nan_to_num(theta.astype(np.float64)), -LIMIT, LIMIT)
        return found

    def _rows(self, symbols: Sequence[str]) -> list[int]:
        new = [symbol for symbol in symbols if symbol not in self._row]
        if new:
            self._row |= {symbol: len(self._row) + i for i, symbol in enumerate(new)}
            self._theta = np.concatenate([self._theta, np.zeros((len(new), MAX_HORIZON))])
        return [self._row[symbol] for symbol in symbols]
