"""Online calibration: how much wider or narrower the issued intervals must be, learned from forecasts whose outcome is known.

Pure arithmetic on arrays with a small state; knows coins by name, no clock and no store. The caller feeds outcomes when they have matured:
that of horizon h comes h hours after its forecast. What is learned, per horizon, in logarithms of a factor on the quantiles:

`shape` [24, 4]  of all coins together, one for each central interval (50, 80, 90, 95 %): the integral of its coverage error, in the manner
                 of adaptive conformal inference (Gibbs and Candes 2021), divided by how fast the coverage of a normal distribution grows
                 with the log width. Both sides move alike: the coins' common drift of the last weeks is not extrapolated.
`theta` [n, 24]  of each coin: the integral of |2 PIT - 1| less the coins' mean of it, a bounded measure, so that one violent hour moves
                 it no more than any other miss.

Slow integrals cost nothing and even out coins, but take months over a break. Fast ones cost more than they give, for the misses of a
quiet market come in clusters too. So each integral rests at its slow rate until a day's mean of its own error is farther from zero than
it usually is, by `ALARM_OF_ALL` or `ALARM_OF_COIN` standard deviations; then it hurries, in proportion to that distance, until `CALM` (cf.
Trigg and Leach 1967). It never stops and it never turns against its error, so coverage returns whatever happens: over T outcomes the mean
error is at most (2 LIMIT / slow rate) / T as long as the factor has not reached its limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from cryptod.errors import StoreError
from cryptod.forecast.scores import INTERVALS, pit
from cryptod.market import MAX_HORIZON, QUANTILE_LEVELS, Float32, Float64

THETA_RATE: Final = 0.003
SHAPE_RATE: Final = 0.001
LIMIT: Final = 1.5
"""Largest log factor of each kind."""
ALARM_OF_ALL: Final = 3.5
ALARM_OF_COIN: Final = 4.5
"""Of a hundred coins some are far from the usual on any day."""
CALM: Final = 0.5
HURRY: Final = 12.0
"""Times faster for each standard deviation, from an alarm until it is calm."""
_MOST: Final = 60.0
_DAY: Final = 24.0
_SEASON: Final = 60 * 24.0
"""Half-lives, in outcomes, of the error's mean (to which come twice the hours that outcomes overlap) and of its usual size."""
_CENTRE_RATE: Final = 0.005
_OUTLIER: Final = 9.0
"""What counts as usual is not taught by what is not: squares are cut at so many times the usual one."""

_HORIZONS: Final = np.arange(1, MAX_HORIZON + 1, dtype=np.float64)
_SLOWER: Final = np.sqrt(_HORIZONS)
"""Outcomes over h hours overlap: their sum is about so many times less certain."""
_MEMORY: Final = 1.0 - 0.5 ** (1.0 / (_DAY + 2.0 * _HORIZONS))
_USUAL_MEMORY: Final = 1.0 - 0.5 ** (1.0 / _SEASON)
_NOMINAL: Final = np.array(list(INTERVALS)) / 100.0
_STEEPNESS: Final = np.array([0.429, 0.450, 0.339, 0.229])
"""d coverage / d log width of the central intervals of a normal distribution, 2 z phi(z)."""
_LOW: Final = [low for low, _ in INTERVALS.values()]
_HIGH: Final = [high for _, high in INTERVALS.values()]
_MEDIAN: Final = QUANTILE_LEVELS.index(0.5)


@dataclass(slots=True)
class _Alert:
    """How far a day's mean error is from zero, against how far it usually is. ``mean``: [..., 24]; ``usual``: its mean square [24];
    ``on``: float64 [..., 24], 1 from an alarm until it is calm.
    """

    mean: Float64
    usual: Float64
    on: Float64

    def hurry(self, error: Float64, known: np.ndarray, alarm: float) -> Float64:
        """Take in the errors [..., 24] where ``known``; by how much faster than slow the integrals go now, [..., 24]."""
        self.mean += np.where(known, _MEMORY * (error - self.mean), 0.0)
        distance = np.abs(self.mean) / np.sqrt(self.usual)
        squares = np.where(known, np.minimum(self.mean**2, _OUTLIER * self.usual), 0.0).reshape(-1, MAX_HORIZON)
        number = known.reshape(-1, MAX_HORIZON).sum(axis=0)
        usual = squares.sum(axis=0) / np.maximum(number, 1)
        self.usual += np.where(number > 0, _USUAL_MEMORY * (usual - self.usual), 0.0)
        # Short horizons hear of a break first, and it is hardly ever theirs alone.
        raised = (distance > alarm).any(axis=-1, keepdims=True)
        self.on[...] = np.where(distance < CALM, 0.0, np.where(raised, 1.0, self.on))
        return 1.0 + self.on * np.minimum(HURRY * distance, _MOST)


class Calibration:
    """The factors, and what is needed to go on learning them. A coin never heard of has that of all coins."""

    def __init__(self) -> None:
        self._row: dict[str, int] = {}
        self._theta: Float64 = np.zeros((0, MAX_HORIZON))
        self._shape: Float64 = np.zeros((MAX_HORIZON, len(INTERVALS)))
        self._centre: Float64 = np.full(MAX_HORIZON, 0.5)
        self._coins = _Alert(np.zeros((0, MAX_HORIZON)), 0.045**2 * _SLOWER, np.zeros((0, MAX_HORIZON)))
        self._all = _Alert(np.zeros(MAX_HORIZON), 0.03**2 * _SLOWER, np.zeros(MAX_HORIZON))

    def factors(self, symbols: Sequence[str]) -> Float64:
        """float64 [N, 24]: by what each coin's quantiles are wider than those of all coins."""
        found = np.zeros((len(symbols), MAX_HORIZON))
        for place, symbol in enumerate(symbols):
            row = self._row.get(symbol)
            if row is not None:
                found[place] = self._theta[row]
        return np.exp(found)

    def apply(self, symbols: Sequence[str], quantiles: Float32) -> Float32:
        """float32 [N, 24, 9]: the quantiles as they are to be issued. In order where they were."""
        levels = np.ones((MAX_HORIZON, len(QUANTILE_LEVELS)))
        levels[:, _LOW] = levels[:, _HIGH] = np.exp(self._shape)
        found = quantiles * (levels * self.factors(symbols)[..., None]).astype(np.float32)
        # Levels that learned apart could cross: from the median outwards none is nearer than the one before it.
        upper, lower = found[..., _MEDIAN:], found[..., _MEDIAN::-1]
        np.maximum.accumulate(upper, axis=-1, out=upper)
        np.minimum.accumulate(lower, axis=-1, out=lower)
        return found

    def update(self, symbols: Sequence[str], quantiles: Float32, outcomes: Float64) -> None:
        """Learn from forecasts that matured together: ``quantiles`` [N, 24, 9] as issued, where [:, h - 1] were issued h hours before the
        time at which ``outcomes`` [N, 24], cumulative log returns, became known; NaN where there was no forecast or no outcome.
        """
        known = np.isfinite(outcomes) & np.isfinite(quantiles).all(axis=-1)
        number = known.sum(axis=0)
        if not number.any():
            return
        said, became = np.where(known[..., None], quantiles, 0.0), np.where(known, outcomes, 0.0)
        measure = np.where(known, np.abs(2.0 * pit(said, became) - 1.0), 0.0)
        mean = np.where(number > 0, measure.sum(axis=0) / np.maximum(number, 1), 0.5)
        # A handful of coins says less about all coins than a hundred.
        pace = number / (number + 10.0) / _SLOWER
        pace_of_all = pace * self._all.hurry(mean - 0.5, number > 0, ALARM_OF_ALL)
        held = (said[..., _LOW] <= became[..., None]) & (became[..., None] <= said[..., _HIGH]) & known[..., None]
        missing = _NOMINAL - held.sum(axis=0) / np.maximum(number, 1)[:, None]
        self._shape = np.clip(self._shape + SHAPE_RATE * pace_of_all[:, None] * missing / _STEEPNESS, -LIMIT, LIMIT)

        rows = self._rows(symbols)
        error = np.where(known, measure - self._centre, 0.0)
        self._centre += _CENTRE_RATE * pace_of_all * (mean - self._centre)
        alert = _Alert(self._coins.mean[rows], self._coins.usual, self._coins.on[rows])
        step = THETA_RATE / _SLOWER * alert.hurry(error, known, ALARM_OF_COIN) * error
        self._coins.mean[rows], self._coins.on[rows] = alert.mean, alert.on
        self._theta[rows] = np.clip(self._theta[rows] + step, -LIMIT, LIMIT)

    def export(self) -> dict[str, Any]:
        """The state as plain arrays by name, and ``symbols``: to be kept and given to `restore`."""
        return {"symbols": list(self._row), **{name: array.copy() for name, array in self._arrays().items()}}

    @classmethod
    def restore(cls, kept: Mapping[str, Any]) -> Calibration:
        """The state as exported, or `StoreError`."""
        found = cls()
        symbols = kept.get("symbols")
        garbled = StoreError("the calibration's state is garbled", hint="it is learned anew within weeks")
        if not isinstance(symbols, list) or len({str(symbol) for symbol in symbols}) != len(symbols):
            raise garbled
        found._rows([str(symbol) for symbol in symbols])
        for name, array in found._arrays().items():
            given = kept.get(name)
            if not isinstance(given, np.ndarray) or given.dtype.kind != "f" or given.shape != array.shape or not np.isfinite(given).all():
                raise garbled
            array[...] = given
        for factor in (found._theta, found._shape):
            np.clip(factor, -LIMIT, LIMIT, out=factor)
        for usual in (found._coins.usual, found._all.usual):
            np.maximum(usual, 1e-6, out=usual)
        return found

    def _arrays(self) -> dict[str, Float64]:
        """Every array of the state, not copied."""
        return {
            "theta": self._theta, "shape": self._shape, "centre": self._centre, "coins_mean": self._coins.mean,
            "coins_usual": self._coins.usual, "coins_on": self._coins.on, "all_mean": self._all.mean,
            "all_usual": self._all.usual, "all_on": self._all.on,
        }  # fmt: skip

    def _rows(self, symbols: Sequence[str]) -> list[int]:
        new = [symbol for symbol in symbols if symbol not in self._row]
        if new:
            self._row |= {symbol: len(self._row) + i for i, symbol in enumerate(new)}
            blank = np.zeros((len(new), MAX_HORIZON))
            self._theta = np.concatenate([self._theta, blank])
            self._coins.mean = np.concatenate([self._coins.mean, blank])
            self._coins.on = np.concatenate([self._coins.on, blank])
        return [self._row[symbol] for symbol in symbols]
