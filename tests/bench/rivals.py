"""Two rivals from the textbooks, as scales for the judge: GARCH(1,1)-t per coin, and boosted trees on what log-HAR leaves.

They are too slow, or need too much, to be references of the daemon's own; here they are refitted each week as the references are, and
given the same quantiles of the coin's own residuals. The packages arch and lightgbm come with the `bench` extra.
"""

from __future__ import annotations

import lightgbm
import numpy as np
from arch import arch_model

from tests.bench.references import Floats, Scale, Window, coming, ewma, har

PERSISTENCE_CAP = 0.9999
"""Of alpha + beta: a variance that is fitted as a random walk has no level to return to."""
TREES = {
    "objective": "regression", "learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 2000, "lambda_l2": 10.0,
    "feature_fraction": 0.7, "bagging_fraction": 0.5, "bagging_freq": 1, "seed": 1, "deterministic": True, "num_threads": 1,
    "verbosity": -1,
}  # fmt: skip
ROUNDS = 120
HALF_LIVES = (1, 2, 4, 12, 24, 48, 168, 672)


def garch(window: Window) -> Floats:
    """GARCH(1,1) with Student's t (Bollerslev 1987), zero mean, fitted to each coin's hourly returns; root of the sum of the h variances
    ahead. The last known variance is filtered on through the week with the fitted parameters."""
    closes = window.part.log_close
    returns = 100.0 * np.nan_to_num(np.diff(closes, axis=0, prepend=closes[:1]))
    first = int(window.train[0])
    coins = returns.shape[1]
    omega, alpha, beta = np.zeros(coins), np.full(coins, 0.1), np.full(coins, 0.9)  # an EWMA, for coins that did not trade throughout
    for coin in np.flatnonzero(window.ordinary):
        model = arch_model(returns[first : window.end, coin], mean="Zero", vol="GARCH", p=1, q=1, dist="t", rescale=False)
        omega[coin], alpha[coin], beta[coin] = model.fit(disp="off", show_warning=False).params.iloc[:3]
    variance = np.empty_like(returns)
    now = returns[first : window.end].var(axis=0)
    for row in range(len(returns)):
        now = omega + alpha * returns[row] ** 2 + beta * now
        variance[row] = now  # of the hour after the row
    persistence = np.minimum(alpha + beta, PERSISTENCE_CAP)
    level = omega / (1.0 - persistence)
    ahead = [h * level + (variance - level) * (1.0 - persistence**h) / (1.0 - persistence) for h in window.horizons]
    return np.asarray(np.sqrt(np.maximum(np.stack(ahead, axis=-1), 1e-12)) / 100.0)


def boosted_trees(window: Window) -> Floats:
    """LightGBM (Ke et al. 2017) on the residual of log-HAR's log variance, one regressor per horizon, pooled over the ordinary coins."""
    base = har(window)
    inputs = _inputs(window, base.variance)
    rows = window.train[::3]
    learn = inputs[rows][:, window.ordinary].reshape(-1, inputs.shape[-1])
    scale = np.empty(base.fitted.shape)
    for column, horizon in enumerate(window.horizons):
        miss = (coming(base.variance, rows, horizon) - base.fitted[rows, :, column])[:, window.ordinary]
        # An hour without trades says log(1e-10): no tree should be grown to explain it.
        trees = lightgbm.train(TREES, lightgbm.Dataset(learn, np.clip(miss, -4.0, 4.0).reshape(-1)), ROUNDS)
        found = np.asarray(trees.predict(inputs.reshape(-1, inputs.shape[-1]), num_threads=1)).reshape(inputs.shape[:2])
        scale[:, :, column] = np.exp(0.5 * (base.fitted[:, :, column] + found)) * base.ahead[:, :, column]
    return scale


def _inputs(window: Window, variance: Floats) -> Floats:
    """float32 [T, N, 20]: where the coin's and the market's variance, volume and return stand against their own recent past."""
    levels = np.stack([np.log(ewma(variance, k) + 1e-9) for k in HALF_LIVES], axis=-1)
    slow = levels[:, :, [HALF_LIVES.index(48)]]
    market = levels[:, window.ordinary].mean(axis=1, keepdims=True)
    closes = window.part.log_close
    moves = np.nan_to_num(np.diff(closes, axis=0, prepend=closes[:1])) / np.exp(0.5 * slow[:, :, 0])
    turnover = np.log1p(np.nan_to_num(window.part.values[:, :, 4] * window.part.values[:, :, 3]))
    usual = ewma(turnover, 336)
    parts = [
        np.delete(levels - slow, HALF_LIVES.index(48), axis=-1),
        (levels - market)[:, :, [1, 3, 6, 7]],
        np.broadcast_to(market - market[:, :, [HALF_LIVES.index(48)]], levels.shape)[:, :, [1, 3, 6]],
        np.stack([ewma(np.clip(moves, -8, 8), k) for k in (1, 4, 24)], axis=-1),
        np.stack([ewma(turnover, k) - usual for k in (1, 6, 24)], axis=-1),
    ]
    return np.concatenate(parts, axis=-1).astype(np.float32)


RIVALS: dict[str, Scale] = {"garch_t": garch, "lightgbm": boosted_trees}
