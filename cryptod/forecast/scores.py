"""How good a forecast was, once the outcome is known.

Pure arithmetic on arrays; knows the quantile levels, no coin and no clock. Quantiles are [..., 9] at `QUANTILE_LEVELS`, outcomes [...],
both cumulative log returns; a score of an outcome that is not finite is NaN.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from cryptod.forecast.distribution import probability_below
from cryptod.market import MAX_HORIZON, QUANTILE_LEVELS, Bool, Float32, Float64

_P: Final = np.array(QUANTILE_LEVELS)
INTERVALS: Final = {50: (3, 5), 80: (2, 6), 90: (1, 7), 95: (0, 8)}
"""Nominal coverage in percent -> columns of the lower and the upper quantile."""
SCORED_HORIZONS: Final = (1, 2, 4, 8, 12, 24)
"""The horizons of the pooled CRPS."""


def pinball(quantiles: Float32 | Float64, outcomes: Float64) -> Float64:
    """float64 [..., 9]: pinball loss (Koenker and Bassett 1978) at each level."""
    error = outcomes[..., None] - np.asarray(quantiles, np.float64)
    return np.asarray(np.maximum(_P * error, (_P - 1.0) * error))


def slope(quantiles: Float64, outcomes: Float64) -> Float64:
    """float64 [..., 9]: derivative of `pinball` by the quantile; times (quantile - outcome) it is the loss itself."""
    return np.asarray((outcomes[..., None] < quantiles) - _P)


def crps(quantiles: Float32 | Float64, outcomes: Float64) -> Float64:
    """float64 [...]: continuous ranked probability score, taken as twice the mean pinball loss over the levels."""
    return np.asarray(2.0 * pinball(quantiles, outcomes).mean(axis=-1))


def pooled_crps(quantiles: Float32 | Float64, outcomes: Float64) -> Float64:
    """float64 [...]: mean over `SCORED_HORIZONS` of CRPS / sqrt(h), of quantiles [..., 24, 9] and outcomes [..., 24]."""
    columns = np.array(SCORED_HORIZONS) - 1
    return pooled(crps(quantiles[..., columns, :], outcomes[..., columns]))


def pooled(each: Float64) -> Float64:
    """float64 [...]: the pooled CRPS of the CRPS [..., 6] at `SCORED_HORIZONS`."""
    return np.asarray((each / np.sqrt(np.array(SCORED_HORIZONS))).mean(axis=-1))


def covered(quantiles: Float32 | Float64, outcomes: Float64, percent: int) -> Bool:
    """bool [...]: the outcome lies in the central interval of ``percent`` (50, 80, 90 or 95)."""
    low, high = INTERVALS[percent]
    return np.asarray((quantiles[..., low] <= outcomes) & (outcomes <= quantiles[..., high]))


def interval_score(quantiles: Float32 | Float64, outcomes: Float64, percent: int) -> Float64:
    """float64 [...]: width of the central interval and the penalty for missing it (Gneiting and Raftery 2007, eq. 43)."""
    low, high = (np.asarray(quantiles[..., column], np.float64) for column in INTERVALS[percent])
    alpha = 1.0 - percent / 100.0
    return np.asarray(high - low + 2.0 / alpha * (np.maximum(low - outcomes, 0.0) + np.maximum(outcomes - high, 0.0)))


def pit(quantiles: Float32 | Float64, outcomes: Float64) -> Float64:
    """float64 [...]: probability integral transform: the predictive distribution function at the outcome; uniform if calibrated."""
    return probability_below(np.asarray(quantiles, np.float64), outcomes)


def qlike(volatility: Float64, outcomes: Float64) -> Float64:
    """float64 [...]: y^2 / v - log(y^2 / v) - 1 without the term in y alone: y^2 / v + log v (Patton 2011), v the forecast variance."""
    variance = np.maximum(np.asarray(volatility, np.float64) ** 2, 1e-16)
    return np.asarray(outcomes**2 / variance + np.log(variance))


def loss_test(difference: Float64, lag: int = 2 * MAX_HORIZON) -> tuple[float, float]:
    """Mean and t value of a series of loss differences [T] (Diebold and Mariano 1995): Newey-West variance with ``lag`` lags.

    Values that are not finite are left out. A series too short or too constant for a test has t = 0.
    """
    series = difference[np.isfinite(difference)]
    if len(series) == 0:
        return 0.0, 0.0
    mean = float(series.mean())
    centred = series - mean
    lag = min(lag, len(series) // 4)
    variance = float(centred @ centred)
    for k in range(1, lag + 1):
        variance += 2.0 * (1.0 - k / (lag + 1)) * float(centred[k:] @ centred[:-k])
    error = np.sqrt(max(variance, 0.0)) / len(series)
    return mean, mean / float(error) if error > 0 and len(series) >= 24 else 0.0
