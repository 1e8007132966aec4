"""The reference forecasters: what a forecast must beat, each able to serve in its stead.

Knows features, the season and arrays; no coin by name, no store, no torch. Every reference is a scale per (coin, horizon) times a table of
residual quantiles of the coin's own past, so that issuing all of them beside the model costs next to nothing:

`random_walk`   scale 1: the empirical quantiles of the coin's own h-hour returns over the training window.
`ewma`          square root of the EWMA (half-life 24 h) of Parkinson variance (RiskMetrics 1996, with the range in place of the return).
`ewma_season`   the same of variance without its hour-of-week season, times the season of the hours ahead.
`log_har`       exp of half a linear regression of the log of the coming mean variance on logs of EWMAs of half-lives 2 to 672 h and their
                market means (Corsi 2009, in logs), pooled over a batch's coins, times the season of the hours ahead.
`HARX`          the linear part of the model itself: log_har with more half-lives, volume, leverage, other measures of variance.

The model's other closed-form part is here too: a small shift against the coin's recent move relative to the market (`location_terms`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from cryptod.forecast.features import COLUMN, LEVELS, MARKET, RANGES, SQUARES, TRENDS, VOLUMES
from cryptod.market import MAX_HORIZON, QUANTILE_LEVELS, Float32, Float64, Int64

REFERENCES: Final = ("random_walk", "ewma", "ewma_season", "log_har")

_HAR = [COLUMN[f"level_{k}"] for k in (2, 12, 48, 168, 672)]
_HAR_MARKET = [MARKET.index(f"level_{k}") for k in (2, 12, 48, 168, 672)]
HAR_TERMS: Final = len(_HAR) + len(_HAR_MARKET) + 1

_LEVELS = [COLUMN[f"level_{k}"] for k in LEVELS]
_VOLUMES = [COLUMN[f"volume_{k}"] for k in VOLUMES[:-1]]
_TRENDS = [COLUMN[f"trend_{k}"] for k in TRENDS]
_RATIOS = [*(COLUMN[f"range_{k}"] for k in RANGES), *(COLUMN[f"square_{k}"] for k in SQUARES)]
_RATIO_LEVELS = [COLUMN[f"level_{k}"] for k in (*RANGES, *SQUARES)]
_HARX_MARKET = [i for i, name in enumerate(MARKET) if name != "level_672" and not name.startswith("trend")]
HARX_TERMS: Final = len(_LEVELS) + len(_VOLUMES) + 2 * len(_TRENDS) + len(_RATIOS) + len(_HARX_MARKET) + 1
HARX_RIDGE: Final = 0.05
"""Of the regressors' variance: six months hold few independent market moves, and an unpenalised fit believes in all of them."""

_REVERSAL = [COLUMN[f"trend_{k}"] for k in TRENDS[:-1]]
_REVERSAL_MARKET = [MARKET.index(f"trend_{k}") for k in TRENDS[:-1]]
LOCATION_TERMS: Final = len(_REVERSAL)
LOCATION_RIDGE: Final = 0.1

WAVE_TERMS: Final = 2
_LEVELS_AT: Final = np.array(QUANTILE_LEVELS)
_LEVEL_24 = COLUMN["level_24"]
_RAW_24 = COLUMN["raw_24"]


def har_terms(own: Float32, market: Float32) -> Float64:
    """float64 [..., n, HAR_TERMS]: regressors of `log_har`, of own features [..., n, len(OWN)] and market means [..., len(MARKET)]."""
    return _terms(own[..., _HAR], market[..., _HAR_MARKET])


def harx_terms(own: Float32, market: Float32, dtype: type = np.float64) -> Float64:
    """[..., n, HARX_TERMS] of type ``dtype``: regressors of the model's linear part."""
    own_terms = np.concatenate(
        [
            own[..., _LEVELS],
            own[..., _VOLUMES],
            np.minimum(own[..., _TRENDS], 0.0),
            np.maximum(own[..., _TRENDS], 0.0),
            own[..., _RATIOS] - own[..., _RATIO_LEVELS],
        ],
        axis=-1,
    )
    return _terms(own_terms, market[..., _HARX_MARKET], dtype)


def location_terms(own: Float32, market: Float32) -> Float64:
    """float64 [..., n, LOCATION_TERMS]: the coin's standardised returns of the last hours and days less the market's.

    A coin that moved against the market moves back a little in the hours after: rank correlations of -.08 at 1 h and -.04 at 24 h, of
    one sign in every month looked at (docs/forecasting.md). The market's own direction is not foretold by anything that was tried.
    """
    return np.asarray(own[..., _REVERSAL] - market[..., None, _REVERSAL_MARKET], np.float64)


def _terms(own: Float32, market: Float32, dtype: type = np.float64) -> Float64:
    coins = own.shape[-1]
    found = np.empty((*own.shape[:-1], coins + market.shape[-1] + 1), dtype)
    found[..., :coins] = own
    found[..., coins:-1] = market[..., None, :]
    found[..., -1] = 1.0
    return found


def season_scale(ahead: Float64, hours: Int64) -> Float64:
    """float64 [..., 1, 24]: square root of the mean seasonal factor of the coming hours; ``ahead`` is `Season.ahead`."""
    return np.sqrt(ahead[hours])[..., None, :]


def daily_wave(hours: Int64) -> Float64:
    """float64 [..., WAVE_TERMS]: sine and cosine of the hour of the day, of ``hours`` [...] of the week."""
    angle = 2.0 * np.pi / 24.0 * (np.asarray(hours) % 24)
    return np.stack([np.sin(angle), np.cos(angle)], axis=-1)


def reference_scales(name: str, own: Float32, market: Float32, ahead_scale: Float64, har: Float64) -> Float64:
    """float64, broadcastable to [..., n, 24]: the scale of reference ``name``; ``har``: coefficients [24, HAR_TERMS]."""
    if name == "random_walk":
        return np.ones((*own.shape[:-1], 1))
    if name == "ewma":
        return np.exp(0.5 * own[..., _RAW_24].astype(np.float64))[..., None]
    if name == "ewma_season":
        return np.asarray(np.exp(0.5 * own[..., _LEVEL_24].astype(np.float64))[..., None] * ahead_scale)
    return np.asarray(np.exp(0.5 * (har_terms(own, market) @ har.T)) * ahead_scale)


def widening(scale: Float64, spread: Float64) -> Float64:
    """``scale`` [..., 24] raised where the width ``scale * spread`` [24] of an interval would shrink from one horizon to the next."""
    return np.asarray(np.maximum.accumulate(scale * spread, axis=-1) / spread)


def residual_quantiles(residuals: Float32, strides: Sequence[int] = (1,) * MAX_HORIZON) -> Float64:
    """float64 [24, 9]: quantiles at `QUANTILE_LEVELS` of residuals [rows, 24], linearly interpolated (Hyndman and Fan 1996, type 7).

    ``strides``: of each horizon's residuals take every so manyth. Sorting a copy is several times faster than `numpy.quantile` here,
    and faster still where the residuals of a horizon lie side by side (column-major).
    """
    table = np.empty((MAX_HORIZON, len(QUANTILE_LEVELS)))
    for horizon, stride in enumerate(strides):
        ordered = np.sort(residuals[::stride, horizon])
        place = _LEVELS_AT * (len(ordered) - 1)
        low = place.astype(np.int64)
        below, above = ordered[low].astype(np.float64), ordered[np.minimum(low + 1, len(ordered) - 1)].astype(np.float64)
        table[horizon] = below + (place - low) * (above - below)
    return table


def solve(moments: Float64, cross: Float64, ridge: float) -> Float64:
    """float64 [targets, K]: ridge regression from X'X [K, K] and X'Y [K, targets], whose last regressor is the constant 1.

    The penalty on a coefficient is ``ridge`` times its regressor's variance; the constant has none.
    """
    rows = moments[-1, -1]
    mean, target = moments[:-1, -1] / rows, cross[-1] / rows
    scatter = moments[:-1, :-1] - rows * np.outer(mean, mean)
    variance = np.maximum(np.diag(scatter), 0.0)
    slopes = np.linalg.solve(scatter + np.diag(ridge * variance + 1e-6), cross[:-1] - rows * np.outer(mean, target))
    return np.concatenate([slopes, (target - mean @ slopes)[None]]).T
