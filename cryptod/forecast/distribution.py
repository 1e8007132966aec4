"""What nine quantiles say: the predictive distribution between and beyond them.

Pure arithmetic on arrays; knows the quantile levels and nothing else. Between two quantiles the distribution is
uniform; beyond the outermost it is exponential, with the rate that the two outermost quantiles imply. P(up), mean,
standard deviation and PIT all follow from this one reading, so they can never contradict the quantiles.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cryptod.market import QUANTILE_LEVELS, Float64

_P: Final = np.array(QUANTILE_LEVELS)
_TAIL: Final = float(_P[0])
_LN2: Final = float(np.log(_P[1] / _P[0]))
_MASS: Final = np.diff(_P)


def probability_below(quantiles: Float64, at: Float64) -> Float64:
    """float64 [...]: predictive distribution function at ``at`` [...] of quantiles [..., 9]; where it jumps, the middle of the jump."""
    at = np.asarray(at, np.float64)
    below = (quantiles < at[..., None]).sum(axis=-1)
    upto = (quantiles <= at[..., None]).sum(axis=-1)
    right = np.clip(below, 1, len(_P) - 1)
    low = np.take_along_axis(quantiles, right[..., None] - 1, -1)[..., 0]
    high = np.take_along_axis(quantiles, right[..., None], -1)[..., 0]
    share = (at - low) / np.where(high > low, high - low, 1.0)
    found = _P[right - 1] + np.clip(share, 0.0, 1.0) * _MASS[right - 1]
    left_rate, right_rate = _tails(quantiles)
    left_tail = _TAIL * np.exp(np.minimum(at - quantiles[..., 0], 0.0) / left_rate)
    right_tail = 1.0 - _TAIL * np.exp(np.minimum(quantiles[..., -1] - at, 0.0) / right_rate)
    found = np.where(below == 0, left_tail, np.where(upto == len(_P), right_tail, found))
    jump = upto - below > 1
    middle = 0.5 * (_P[np.minimum(below, len(_P) - 1)] + _P[np.maximum(upto, 1) - 1])
    return np.where(jump, middle, found)


def mean_and_deviation(quantiles: Float64) -> tuple[Float64, Float64]:
    """Two float64 [...]: mean and standard deviation of the predictive distribution of quantiles [..., 9]."""
    left, right = quantiles[..., :-1], quantiles[..., 1:]
    left_rate, right_rate = _tails(quantiles)
    first, last = quantiles[..., 0], quantiles[..., -1]
    mean = (0.5 * (left + right)) @ _MASS + _TAIL * (first - left_rate + last + right_rate)
    square = ((left * left + left * right + right * right) / 3.0) @ _MASS
    square = square + _TAIL * (
        first * first - 2 * first * left_rate + 2 * left_rate**2 + last * last + 2 * last * right_rate + 2 * right_rate**2
    )
    return mean, np.sqrt(np.maximum(square - mean * mean, 0.0))


def expected_crps(quantiles: Float64) -> Float64:
    """float64 [...]: the mean of `scores.crps` of quantiles [..., 9] over outcomes that are distributed as they say.

    At level p with quantile q the expected pinball loss is p (mean - q) + the integral of the distribution function up to q.
    """
    mean, _ = mean_and_deviation(quantiles)
    below = np.empty(np.shape(quantiles))
    below[..., 0] = _TAIL * _tails(quantiles)[0]
    below[..., 1:] = below[..., :1] + np.cumsum(0.5 * (_P[:-1] + _P[1:]) * np.diff(quantiles, axis=-1), axis=-1)
    return np.asarray(2.0 * (_P * (mean[..., None] - quantiles) + below).mean(axis=-1))


def _tails(quantiles: Float64) -> tuple[Float64, Float64]:
    """Mean excess beyond the lowest and the highest quantile."""
    return (
        np.maximum((quantiles[..., 1] - quantiles[..., 0]) / _LN2, 1e-12),
        np.maximum((quantiles[..., -1] - quantiles[..., -2]) / _LN2, 1e-12),
    )
