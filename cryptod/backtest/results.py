"""What a backtest found: every issue scored against what happened.

Knows forecasts and outcomes; nothing of how forecasts come about. This side may look ahead, for nothing goes back from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from cryptod.backtest.history import History
from cryptod.daemon.scoring import last_closes
from cryptod.forecast import scores
from cryptod.forecast.baselines import REFERENCES
from cryptod.forecast.model import SOURCES
from cryptod.forecast.predictor import Forecasts
from cryptod.forecast.scores import INTERVALS, SCORED_HORIZONS
from cryptod.market import HOUR, MAX_HORIZON, QUANTILE_LEVELS, SERVED, Float32, Float64, Int64
from cryptod.report.summary import BLOCK_HOURS

_SCORED: Final = np.array(SCORED_HORIZONS) - 1
_ROOT: Final = np.sqrt(np.array(SCORED_HORIZONS))


@dataclass(slots=True)
class Results:
    """Scores of T cutoffs, N coins and the scored horizons (H), NaN where nothing was issued or no outcome is known.

    ``losses``: forecaster ("served", the model by itself, the references) -> CRPS float32 [T, N, H]. ``hits``: percent -> float32
    [T, N, H], 1 where the central interval held. ``pit``: float32 [T, N, H]. ``closes``: float64 [T, N]. ``source``: uint8 [T, N], place in
    `SOURCES`, 255 for none. ``weights``: float32 [T, H, F], the combination's. ``examples``: symbol -> float32 [T, H, 9], what was issued.
    """

    symbols: tuple[str, ...]
    cutoffs: Int64
    losses: dict[str, Float32]
    hits: dict[int, Float32]
    pit: Float32
    closes: Float64
    source: Any
    weights: Float32
    examples: dict[str, Float32]
    crossings: int = 0
    not_finite: int = 0
    trainings: list[Any] = field(default_factory=list)
    settings: str = ""
    _future: Float64 = field(default_factory=lambda: np.zeros((0, 0)))

    @classmethod
    def empty(cls, history: History, start: int, end: int, examples: Sequence[str] = ()) -> Results:
        cutoffs = np.arange(start, end, HOUR.ms, dtype=np.int64)
        shape = (len(cutoffs), len(history.symbols), len(SCORED_HORIZONS))
        blank = np.full(shape, np.nan, np.float32)
        future = last_closes(history.panel(history.symbols, start - 2 * HOUR.ms, min(end + MAX_HORIZON * HOUR.ms, history.end)))[1:]
        return cls(
            symbols=history.symbols,
            cutoffs=cutoffs,
            losses={name: blank.copy() for name in (SERVED, *SOURCES)},
            hits={percent: blank.copy() for percent in INTERVALS},
            pit=blank.copy(),
            closes=future[: len(cutoffs)],
            source=np.full(shape[:2], 255, np.uint8),
            weights=np.full((shape[0], shape[2], len(SOURCES)), np.nan, np.float32),
            examples={symbol: np.full((shape[0], shape[2], len(QUANTILE_LEVELS)), np.nan, np.float32) for symbol in examples},
            _future=future,
        )

    def add(self, made: Forecasts, weights: Float64) -> None:
        """Score an issue; ``weights``: [24, F], the combination's when it was made."""
        row = int((made.cutoff - self.cutoffs[0]) // HOUR.ms)
        place = {symbol: column for column, symbol in enumerate(self.symbols)}
        columns = np.array([place[symbol] for symbol in made.symbols])
        ahead = np.full((len(SCORED_HORIZONS), len(columns)), np.nan)
        for k, h in enumerate(SCORED_HORIZONS):
            if row + h < len(self._future):
                ahead[k] = self._future[row + h, columns]
        outcomes = (np.log(ahead) - np.log(made.close)).T
        known = np.isfinite(outcomes)
        quantiles = made.quantiles[:, _SCORED]
        self.crossings += int((np.diff(made.quantiles, axis=-1) < 0).sum())
        self.not_finite += int((~np.isfinite(made.quantiles)).sum() + (~np.isfinite(made.p_up)).sum())
        for name, said in ((SERVED, made.quantiles), *made.said.items()):
            self.losses[name][row, columns] = scores.crps(said[:, _SCORED], outcomes)
        for percent in INTERVALS:
            self.hits[percent][row, columns] = np.where(known, scores.covered(quantiles, outcomes, percent), np.nan)
        self.pit[row, columns] = np.where(known, scores.pit(quantiles, np.where(known, outcomes, 0.0)), np.nan)
        self.source[row, columns] = [SOURCES.index(name) for name in made.sources]
        self.weights[row] = weights[_SCORED]
        for symbol, kept in self.examples.items():
            if symbol in made.symbols:
                kept[row] = quantiles[made.symbols.index(symbol)]

    def skill(self, against: str, forecaster: str = SERVED, rows: slice = slice(None)) -> float:
        """By what part the pooled CRPS (each horizon over sqrt h) is below another forecaster's."""
        mine, other = (float(np.nanmean(self.losses[name][rows] / _ROOT)) for name in (forecaster, against))
        return 1.0 - mine / other if other > 0 else 0.0

    def test(self, against: str, forecaster: str = SERVED) -> float:
        """t value of the difference of the coins' mean losses (Diebold and Mariano 1995, Newey-West)."""
        difference = (self.losses[against] - self.losses[forecaster]) / _ROOT
        known = np.isfinite(difference).any(axis=(1, 2))
        return scores.loss_test(np.nanmean(difference[known], axis=(1, 2)).astype(np.float64))[1] if known.any() else 0.0

    def blocks_won(self, against: str) -> float:
        """Share of the whole 28-day blocks (of the period, if it is shorter) in which the pooled CRPS is lower than another's."""
        starts = range(0, max(len(self.cutoffs) - BLOCK_HOURS + 1, 1), BLOCK_HOURS)
        return float(np.mean([self.skill(against, rows=slice(first, first + BLOCK_HOURS)) > 0 for first in starts]))

    def summary(self) -> dict[str, Any]:
        """Everything that the end of the run says, as plain figures."""
        answered = np.isfinite(self.losses[SERVED]).any(axis=2) | (self.source < 255)
        scored = np.flatnonzero(np.isfinite(self.hits[80]).any(axis=(0, 2)))
        coins = {self.symbols[column]: float(np.nanmean(self.hits[80][:, column])) for column in scored}
        worst = max(coins, key=lambda symbol: abs(coins[symbol] - 0.8), default="")
        by_horizon = {name: _means(self.losses[name] * 1e4) for name in self.losses}
        return {
            "horizons": list(SCORED_HORIZONS),
            "forecasts": int(answered.sum()),
            "crps_e4": by_horizon,
            "skill": {name: round(self.skill(name), 5) for name in SOURCES},
            "t": {name: round(self.test(name), 2) for name in SOURCES},
            "blocks_won": {name: self.blocks_won(name) for name in REFERENCES},
            "coverage": {percent: _means(100.0 * self.hits[percent]) for percent in INTERVALS},
            "worst_coin_80": {"symbol": worst, "coverage": round(100.0 * coins[worst], 2)} if worst else None,
            "crossings": self.crossings,
            "not_finite": self.not_finite,
            "served_by": {name: int((self.source == place).sum()) for place, name in enumerate(SOURCES)},
        }


def _means(values: Float32) -> list[float]:
    """Mean over time and coins at each horizon."""
    return [round(float(np.nanmean(values[..., k])), 4) if np.isfinite(values[..., k]).any() else 0.0 for k in range(values.shape[-1])]
