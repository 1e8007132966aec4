"""The closed-form parts of a model: regressions, scalers, residual quantiles, coin factors. No torch, no store.

Everything that a regression or a sorted column can find is found here, in well under a second; only the correction is trained step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from cryptod.errors import DataError
from cryptod.forecast import baselines, network
from cryptod.forecast.baselines import REFERENCES
from cryptod.forecast.model import Model
from cryptod.forecast.season import WEEK, Season
from cryptod.market import MAX_HORIZON, QUANTILE_LEVELS, Bool, Float32, Float64, Int64
from cryptod.training.window import Window, pieces

_EVERY: Final = 3
"""Regressions use every third hour: neighbours overlap and say nearly the same."""
_MIN_ROWS: Final = 1000
_STRIDES: Final = tuple(1 if h <= 4 else 2 if h <= 12 else 3 for h in range(1, MAX_HORIZON + 1))
"""Of a coin's own residuals over h hours: neighbours share h - 1 of them, and sorting them all is what an update spent most time on."""
_FACTOR_SHRINK: Final = 0.5
_SYMMETRY: Final = 0.75
"""How much of the residuals' asymmetry is left out: which side was longer in the last six months says little about the next."""
_FACTOR_LIMIT: Final = 0.7


@dataclass(frozen=True, slots=True)
class Linear:
    """``har`` [24, HAR_TERMS], ``harx`` [24, HARX_TERMS]: float64 regressions of the log of the coming mean variance."""

    har: Float64
    harx: Float64


def fit_linear(window: Window, chosen: Bool, har: Float64 | None = None) -> Linear:
    """Both regressions over the chosen origins (bool [V]), pooled over the coins. Raises `DataError` for too few of them.

    ``har``: the reference's coefficients, where it is kept as it was.
    """
    rows = np.flatnonzero(chosen & (window.row % _EVERY == 0))
    if len(rows) < _MIN_ROWS // _EVERY:
        raise DataError(f"only {len(rows)} hours to fit {len(window.symbols)} coins on", hint="wait for more candles")
    kept = _regress(baselines.har_terms, baselines.HAR_TERMS, window, rows, 0.0) if har is None else har
    return Linear(kept, _regress(baselines.harx_terms, baselines.HARX_TERMS, window, rows, baselines.HARX_RIDGE))


def _regress(terms: Callable[[Float32, Float32], Float64], width: int, window: Window, rows: Int64, ridge: float) -> Float64:
    """float64 [24, width]: of the log of the coming mean variance on ``terms``."""
    moments, cross = np.zeros((width, width)), np.zeros((width, MAX_HORIZON))
    for part in pieces(len(rows)):
        x = _terms(terms, window, rows[part])
        moments += x.T @ x
        cross += x.T @ window.targets(rows[part]).astype(np.float64)
    return baselines.solve(moments, cross, ridge)


def linear_fit(window: Window, linear: Linear) -> Float32:
    """float32 [V, 24]: HARX at every origin."""
    fit, harx = np.empty((len(window.row), MAX_HORIZON), np.float32), linear.harx.T.astype(np.float32)
    for part in pieces(len(fit)):
        time, coin = window.row[part], window.coin[part]
        fit[part] = baselines.harx_terms(window.own[time, coin][:, None], window.market[time], np.float32)[:, 0] @ harx
    return fit


def unexplained(window: Window, fit: Float32) -> Float32:
    """float32 [V, 24]: the log of the coming mean variance less its linear ``fit``: what the network learns, at every origin."""
    found = np.empty_like(fit)
    for part in pieces(len(found)):
        np.subtract(window.targets(part), fit[part], out=found[part])
    return found


def fit_scaler(window: Window, chosen: Bool) -> tuple[Float32, Float32]:
    """float32 [INPUTS] twice: mean and standard deviation of the network's inputs over the chosen origins."""
    inputs = window.inputs(np.flatnonzero(chosen)[::_EVERY])
    mean = inputs.mean(axis=0, dtype=np.float64)
    scale = inputs.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.where(scale > 1e-6, scale, 1.0).astype(np.float32)


def ordinary(window: Window) -> Bool:
    """bool [V]: origins of coins that are not pegged; all, where there are no others."""
    return ~window.pegged[window.coin] if not window.pegged.all() else np.ones(len(window.coin), bool)


def standardised(window: Window, scaler: tuple[Float32, Float32]) -> Float32:
    """float32 [V, INPUTS]: the network's inputs at every origin, as it is fed them."""
    found = np.empty((len(window.row), network.INPUTS), np.float32)
    for part in pieces(len(found)):
        found[part] = network.standardise(window.inputs(part), *scaler)
    return found


def assemble(
    window: Window,
    chosen: Bool,
    linear: Linear,
    weights: dict[str, Float32],
    scaler: tuple[Float32, Float32],
    *,
    fit: Float32 | None = None,
    inputs: Float32 | None = None,
    tables: Float32 | None = None,
) -> Model:
    """The model of these regressions and weights, with residual quantiles over the chosen origins. Without a name: who keeps it gives one.

    Pooled residuals come from the coins that are not pegged; a coin's factor is the half-shrunk log ratio of its to the pool's mean of
    min(|u|, 1.5 x the outer quantile), per horizon, so that one collapse does not set it.

    What is known already need not be made again: ``fit`` is `linear_fit`, ``inputs`` are `standardised`, ``tables`` the
    references' residual quantiles.
    """
    fit = linear_fit(window, linear) if fit is None else fit
    inputs = standardised(window, scaler) if inputs is None else inputs
    ahead = 0.5 * np.log(window.season.ahead()).astype(np.float32)
    residual = np.empty((MAX_HORIZON, len(window.row)), np.float32).T
    for part in pieces(len(residual)):
        log_variance = fit[part] + network.forward(weights, inputs[part])
        residual[part] = window.moves(part) * np.exp(-0.5 * log_variance - ahead[window.hours[window.row[part]]])
    pool = chosen & ordinary(window)
    wave = _wave(window, residual, np.flatnonzero(pool))
    calm = np.exp(-(baselines.daily_wave(np.arange(WEEK)) @ wave.T)).astype(np.float32)
    for part in pieces(len(residual)):
        residual[part] *= calm[window.hours[window.row[part]]]
    residuals = baselines.residual_quantiles(residual if pool.all() else residual.T[:, pool].T)
    if not (residuals[:, -1] > residuals[:, 0]).all():
        raise DataError(f"the prices of {len(window.symbols)} coins hardly move", hint="leave coins without trade out of the universe")
    residuals -= residuals[:, QUANTILE_LEVELS.index(0.5), None]
    residuals = (1.0 - _SYMMETRY) * residuals + _SYMMETRY * 0.5 * (residuals - residuals[:, ::-1])
    factors = _factors(window, residual, chosen, residuals)
    location = _location(window, residual, np.flatnonzero(pool), residuals, factors)
    precision, limit = _strangeness(window, pool, scaler)
    return Model(
        name="",
        kind="",
        symbols=window.symbols,
        cutoff=0,
        season=Season(window.season.variance, window.season.volume),
        harx=linear.harx,
        har=linear.har,
        wave=wave,
        weights=weights,
        input_mean=scaler[0],
        input_scale=scaler[1],
        location=location,
        residuals=residuals,
        factors=factors,
        rest=window.rest,
        tables=_tables(window, chosen, linear) if tables is None else tables,
        source=np.where(window.pegged, 1 + REFERENCES.index("random_walk"), 0).astype(np.uint8),
        pegged=window.pegged,
        precision=precision,
        limit=limit,
        state=window.state,
        meta={},
    )


def _terms(terms: Callable[[Float32, Float32], Float64], window: Window, rows: Int64 | slice) -> Float64:
    """float64 [len(rows), K]: regressors of some origins."""
    time, coin = window.row[rows], window.coin[rows]
    return terms(window.own[time, coin][:, None], window.market[time])[:, 0]


def _wave(window: Window, residual: Float32, pool: Int64) -> Float64:
    """float64 [24, WAVE_TERMS]: log scale of residuals over the hours of the day on `baselines.daily_wave`, one harmonic.

    Least squares of each horizon's cut sizes over their mean, less 1: to first order the logarithm of the scale.
    """
    rows = pool[:: 3 * _EVERY]
    hours = window.hours[window.row[rows]]
    size = np.abs(residual.T[:, rows])
    size = np.minimum(size, 1.5 * np.quantile(size, 0.975, axis=1, keepdims=True)).astype(np.float64)
    x = baselines.daily_wave(hours)
    x = x - x.mean(axis=0)
    relative = size / np.maximum(size.mean(axis=1, keepdims=True), 1e-12) - 1.0
    return np.asarray(np.linalg.solve(x.T @ x + 1e-6 * np.eye(x.shape[1]), (relative @ x).T).T)


def _factors(window: Window, residual: Float32, chosen: Bool, residuals: Float64) -> Float64:
    """float64 [n, 24]."""
    coins = len(window.symbols)
    mine = np.where(chosen, window.coin, coins)
    number = np.bincount(mine, minlength=coins + 1)[:coins]
    sizes = np.empty((coins, MAX_HORIZON))
    for column, cut in enumerate(1.5 * np.abs(residuals[:, -1]).astype(np.float32)):
        sizes[:, column] = np.bincount(mine, np.minimum(np.abs(residual[:, column]), cut), coins + 1)[:coins]
    pooled = (number > 0) & ~window.pegged if not window.pegged.all() else number > 0
    usual = sizes[pooled].sum(axis=0) / number[pooled].sum()
    ratio = np.log(np.maximum(sizes / np.maximum(number, 1)[:, None], 1e-12) / usual).mean(axis=1, keepdims=True)
    factors = np.exp(np.clip(_FACTOR_SHRINK * ratio, -_FACTOR_LIMIT, _FACTOR_LIMIT))
    return np.where(number[:, None] > 0, np.broadcast_to(factors, sizes.shape), 1.0)


def _location(window: Window, residual: Float32, pool: Int64, residuals: Float64, factors: Float64) -> Float64:
    """float64 [24, LOCATION_TERMS]: regression of residuals less the mean of the coins' at the same hour on `baselines.location_terms`."""
    row, coin = window.row[pool], window.coin[pool]
    x = np.empty((len(pool), baselines.LOCATION_TERMS))
    for part in pieces(len(pool)):
        x[part] = baselines.location_terms(window.own[row[part], coin[part]][:, None], window.market[row[part]])[:, 0]
    number = np.bincount(row)
    number = number[number > 0]
    starts = np.cumsum(number) - number
    cross = np.empty((x.shape[1], MAX_HORIZON))
    for column in range(MAX_HORIZON):
        u = residual[:, column][pool] / factors[:, column][coin]
        np.clip(u, 1.5 * residuals[column, 0], 1.5 * residuals[column, -1], out=u)
        cross[:, column] = x.T @ (u - np.repeat(np.add.reduceat(u, starts) / number, number))
    moments = x.T @ x
    return np.asarray(np.linalg.solve(moments + np.diag(baselines.LOCATION_RIDGE * np.diag(moments) + 1e-6), cross).T)


def _tables(window: Window, chosen: Bool, linear: Linear) -> Float32:
    """float32 [4, n, 24, 9]: residual quantiles of each reference, coin by coin over its own chosen origins."""
    tables = np.zeros((len(REFERENCES), len(window.symbols), MAX_HORIZON, len(QUANTILE_LEVELS)), np.float32)
    season = np.sqrt(window.season.ahead())
    for coin in range(len(window.symbols)):
        time = window.row[chosen & (window.coin == coin)]
        if len(time) == 0:
            continue
        own, market, ahead = window.own[time, coin][:, None], window.market[time], season[window.hours[time]][:, None]
        price = window.prices[coin]
        moves = np.stack([price[time + h] - price[time] for h in range(1, MAX_HORIZON + 1)]).astype(np.float32)
        for place, name in enumerate(REFERENCES):
            scale = baselines.reference_scales(name, own, market, ahead, linear.har)[:, 0]
            residual: Float32 = np.asarray(moves / scale.T, np.float32)
            tables[place, coin] = baselines.residual_quantiles(residual.T, _STRIDES)
    return tables


def _strangeness(window: Window, pool: Bool, scaler: tuple[Float32, Float32]) -> tuple[Float64, float]:
    """Inverse covariance of the standardised inputs and the 99 % quantile of the distance it measures; see `Model.strangeness`."""
    inputs = ((window.inputs(np.flatnonzero(pool)[::_EVERY]) - scaler[0]) / scaler[1]).astype(np.float64)
    covariance = inputs.T @ inputs / max(len(inputs), 1)
    precision = np.asarray(np.linalg.inv(covariance + 0.01 * np.eye(len(covariance))), np.float64)
    distance = np.sqrt(np.maximum(((inputs @ precision) * inputs).sum(axis=1), 0.0))
    return precision, float(max(np.quantile(distance, 0.99), 1e-6))
