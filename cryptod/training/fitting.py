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
from cryptod.forecast.features import FeatureState
from cryptod.forecast.model import Model
from cryptod.forecast.season import Season
from cryptod.market import MAX_HORIZON, QUANTILE_LEVELS, Bool, Float32, Float64, Int64
from cryptod.training.window import Window, pieces

_EVERY: Final = 3
"""Regressions use every third hour: neighbours overlap and say nearly the same."""
_MIN_ROWS: Final = 1000
_FACTOR_SHRINK: Final = 0.5
_FACTOR_LIMIT: Final = 0.7


@dataclass(frozen=True, slots=True)
class Linear:
    """``har`` [24, HAR_TERMS], ``harx`` [24, HARX_TERMS]: float64 regressions of the log of the coming mean variance."""

    har: Float64
    harx: Float64


def fit_linear(window: Window, chosen: Bool) -> Linear:
    """Both regressions over the chosen origins (bool [V]), pooled over the coins. Raises `DataError` for too few of them."""
    rows = np.flatnonzero(chosen & (window.row % _EVERY == 0))
    if len(rows) < _MIN_ROWS // _EVERY:
        raise DataError(f"only {len(rows)} hours to fit {len(window.symbols)} coins on", hint="wait for more candles")
    found = []
    for terms, width in ((baselines.har_terms, baselines.HAR_TERMS), (baselines.harx_terms, baselines.HARX_TERMS)):
        moments, cross = np.zeros((width, width)), np.zeros((width, MAX_HORIZON))
        for part in pieces(len(rows)):
            x = _terms(terms, window, rows[part])
            moments += x.T @ x
            cross += x.T @ window.target[rows[part]].astype(np.float64)
        found.append(baselines.solve(moments, cross))
    return Linear(*found)


def linear_fit(window: Window, linear: Linear) -> Float32:
    """float32 [V, 24]: HARX at every origin."""
    fit = np.empty_like(window.target)
    for part in pieces(len(fit)):
        rows = np.arange(part.start, part.stop)
        fit[part] = _terms(baselines.harx_terms, window, rows) @ linear.harx.T
    return fit


def fit_scaler(window: Window, chosen: Bool) -> tuple[Float32, Float32]:
    """float32 [INPUTS] twice: mean and standard deviation of the network's inputs over the chosen origins."""
    inputs = window.inputs[chosen]
    mean = inputs.mean(axis=0, dtype=np.float64)
    scale = inputs.std(axis=0, dtype=np.float64)
    return mean.astype(np.float32), np.where(scale > 1e-6, scale, 1.0).astype(np.float32)


def assemble(
    window: Window,
    chosen: Bool,
    linear: Linear,
    weights: dict[str, Float32],
    scaler: tuple[Float32, Float32],
    *,
    fit: Float32,
    name: str = "",
    kind: str = "full",
    cutoff: int = 0,
    state: FeatureState | None = None,
) -> Model:
    """The model of these regressions and weights, with residual quantiles over the chosen origins; ``fit`` is `linear_fit`.

    Pooled residuals come from the coins that are not pegged; a coin's factor is the half-shrunk log ratio of its to the pool's mean of
    min(|u|, 1.5 x the outer quantile), per horizon, so that one collapse does not set it.
    """
    correction = np.empty_like(fit)
    for part in pieces(len(fit)):
        correction[part] = network.forward(weights, network.standardise(window.inputs[part], *scaler))
    ahead = 0.5 * np.log(window.season.ahead()).astype(np.float32)
    log_scale = correction
    log_scale += fit
    log_scale *= 0.5
    log_scale += ahead[window.hours[window.row]]
    residual = np.exp(-log_scale, out=log_scale)
    residual *= window.outcome
    pool = chosen & ~window.pegged[window.coin]
    residuals = baselines.residual_quantiles(residual[pool])
    factors = _factors(window, residual, chosen, pool, residuals)
    tables = _tables(window, chosen, linear)
    precision, limit = _strangeness(window, pool, scaler)
    return Model(
        name=name,
        kind=kind,
        symbols=window.symbols,
        cutoff=cutoff,
        season=Season(window.season.variance, window.season.volume),
        harx=linear.harx,
        har=linear.har,
        weights=weights,
        input_mean=scaler[0],
        input_scale=scaler[1],
        residuals=residuals,
        factors=factors,
        rest=window.rest,
        tables=tables,
        source=np.where(window.pegged, 1 + REFERENCES.index("random_walk"), 0).astype(np.uint8),
        pegged=window.pegged,
        precision=precision,
        limit=limit,
        state=state if state is not None else FeatureState.empty(len(window.symbols)),
        meta={},
    )


def _terms(terms: Callable[[Float32, Float32], Float64], window: Window, rows: Int64) -> Float64:
    """float64 [len(rows), K]: regressors of some origins."""
    time, coin = window.row[rows], window.coin[rows]
    return terms(window.own[time, coin][:, None], window.market[time])[:, 0]


def _factors(window: Window, residual: Float32, chosen: Bool, pool: Bool, residuals: Float64) -> Float64:
    """float64 [n, 24]."""
    cut = 1.5 * np.abs(residuals[:, -1]).astype(np.float32)
    size = np.minimum(np.abs(residual), cut)
    usual = size[pool].mean(axis=0, dtype=np.float64)
    factors = np.ones((len(window.symbols), MAX_HORIZON))
    for coin in range(len(window.symbols)):
        mine = chosen & (window.coin == coin)
        if mine.any():
            ratio = np.log(np.maximum(size[mine].mean(axis=0, dtype=np.float64), 1e-12) / usual)
            factors[coin] = np.exp(np.clip(_FACTOR_SHRINK * ratio.mean(), -_FACTOR_LIMIT, _FACTOR_LIMIT))
    return factors


def _tables(window: Window, chosen: Bool, linear: Linear) -> Float32:
    """float32 [4, n, 24, 9]: residual quantiles of each reference, coin by coin over its own chosen origins."""
    coins = len(window.symbols)
    tables = np.zeros((len(REFERENCES), coins, MAX_HORIZON, len(QUANTILE_LEVELS)), np.float32)
    ahead = window.season.ahead()
    for coin in range(coins):
        mine = np.flatnonzero(chosen & (window.coin == coin))
        if len(mine) == 0:
            continue
        time = window.row[mine]
        own, market = window.own[time, coin][:, None], window.market[time]
        season = baselines.season_scale(ahead, window.hours[time])
        for place, name in enumerate(REFERENCES):
            scale = baselines.reference_scales(name, own, market, season, linear.har)[:, 0]
            tables[place, coin] = baselines.residual_quantiles(window.outcome[mine] / scale.astype(np.float32))
    return tables


def _strangeness(window: Window, pool: Bool, scaler: tuple[Float32, Float32]) -> tuple[Float64, float]:
    """Inverse covariance of the standardised inputs and the 99 % quantile of the distance it measures; see `Model.strangeness`."""
    inputs = (window.inputs[np.flatnonzero(pool)[::_EVERY]].astype(np.float64) - scaler[0]) / scaler[1]
    covariance = inputs.T @ inputs / max(len(inputs), 1)
    precision = np.linalg.inv(covariance + 0.01 * np.eye(len(covariance)))
    distance = np.sqrt(np.maximum(((inputs @ precision) * inputs).sum(axis=1), 0.0))
    return precision, float(max(np.quantile(distance, 0.99), 1e-6))
