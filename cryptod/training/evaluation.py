"""How forecasters do on hours that they did not learn from.

Knows models, windows and scores; no store, no torch. Losses are pooled CRPS (each horizon over sqrt h) per hour and coin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cryptod.forecast import scores
from cryptod.forecast.baselines import REFERENCES
from cryptod.forecast.model import Model
from cryptod.forecast.scores import INTERVALS, SCORED_HORIZONS
from cryptod.market import Bool, Float64, Int64
from cryptod.training.window import Window

_PIECE: Final = 48
"""Hours scored at a time: at 25 coins a megabyte for each forecaster's losses."""


MONSTER: Final = 3.0
"""See `compare`. The ordinary coins of a market lie within a factor of three of each other."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``losses``: forecaster ("model" and the references) -> float64 [rows, n], NaN where there is no outcome;
    ``coverage``: percent -> float64 [n, 6], share of the model's intervals that held, by coin and scored horizon,
    NaN where there is no outcome.
    """

    losses: dict[str, Float64]
    coverage: dict[int, Float64]


def evaluate(model: Model, window: Window, rows: Int64, coins: Int64 | None = None, *, references: bool = True) -> Evaluation:
    """Score ``model`` itself, whoever serves its coins, at the hours ``rows`` of the window.

    ``coins``: int64 [n], the model's column of each of the window's coins (by default the same), -1 for one that it does not know.
    """
    columns = np.arange(len(window.symbols)) if coins is None else coins
    known = np.flatnonzero(columns >= 0)
    columns = columns[known]
    names = ("model", *REFERENCES) if references else ("model",)
    losses = {name: np.full((len(rows), len(window.symbols)), np.nan) for name in names}
    hits = {percent: np.zeros((len(window.symbols), len(SCORED_HORIZONS))) for percent in INTERVALS}
    count = np.zeros(len(window.symbols))
    scored = np.array(SCORED_HORIZONS) - 1
    for first in range(0, len(rows), _PIECE):
        part = rows[first : first + _PIECE]
        own, market, hours = window.own[part][:, known], window.market[part], window.hours[part]
        outcomes = window.outcomes(part)[:, known][..., scored]
        for name in names:
            if name == "model":
                quantiles = model.own_quantiles(own, market, hours, columns, scored)
                for percent in INTERVALS:
                    hits[percent][known] += scores.covered(quantiles, outcomes, percent).sum(axis=0)
            else:
                quantiles = model.reference_quantiles(name, own, market, hours, columns, scored)
            losses[name][first : first + len(part), known] = scores.pooled(scores.crps(quantiles, outcomes))
        count[known] += np.isfinite(outcomes[..., 0]).sum(axis=0)
    number = np.where(count > 0, count, np.nan)[:, None]
    return Evaluation(losses, {percent: hit / number for percent, hit in hits.items()})


def compare(losses: Float64, others: Float64, coins: Bool) -> tuple[float, float]:
    """By how much ``losses`` [rows, n] are above ``others``, as a part of the others' mean, and the t value of that, over the chosen coins.

    The series tested is the mean over coins at each hour: coins move together, so they are not counted as independent. A coin whose
    losses are above `MONSTER` times the median coin's counts as if they were as much: a collapse must not decide for the others.
    """
    difference = (losses - others)[:, coins]
    known = np.isfinite(difference)
    count = known.sum(axis=1)
    if not count.any():
        return 0.0, 0.0
    theirs = np.where(known, others[:, coins], 0.0)
    size = theirs.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    most = MONSTER * float(np.median(size[known.any(axis=0)]))
    weight = np.minimum(most / np.maximum(size, 1e-12), 1.0)
    series = np.where(known, difference * weight, 0.0).sum(axis=1)[count > 0] / count[count > 0]
    mean, t = scores.loss_test(series)
    usual = float((theirs * weight).sum() / known.sum())
    return (mean / usual if usual > 0 else 0.0), t


def places(model: Model, symbols: Sequence[str]) -> Int64:
    """int64 [len(symbols)]: the model's column of each symbol, -1 for one that it does not have."""
    index = {symbol: column for column, symbol in enumerate(model.symbols)}
    return np.array([index.get(symbol, -1) for symbol in symbols], np.int64)


def merge(one: Evaluation, other: Evaluation, coins: Bool) -> Evaluation:
    """``one``, with the coins in ``coins`` (bool [n]) taken from ``other``."""
    return Evaluation(
        {name: np.where(coins, other.losses[name], values) for name, values in one.losses.items()},
        {percent: np.where(coins[:, None], other.coverage[percent], values) for percent, values in one.coverage.items()},
    )
