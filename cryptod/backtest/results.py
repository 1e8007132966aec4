"""What a backtest found: every issue scored against what happened.

Knows forecasts and outcomes; nothing of how forecasts come about. This side may look ahead, for nothing goes back from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
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
from cryptod.report.results import BacktestResults
from cryptod.report.summary import summarise

_SCORED: Final = np.array(SCORED_HORIZONS) - 1


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

    def skill(self, against: str, rows: slice = slice(None)) -> float:
        """By what part the pooled CRPS of what was served is below another forecaster's: so far, for whoever watches."""
        mine, other = (float(scores.pooled(_means(self.losses[name][rows]))) for name in (SERVED, against))
        return 1.0 - mine / other if other > 0 else 0.0

    def judged(self) -> BacktestResults:
        """What was found, for the figures and the page to be made from."""
        return BacktestResults(
            symbols=self.symbols,
            cutoffs=self.cutoffs,
            horizons=SCORED_HORIZONS,
            forecasters=self.losses,
            hits=self.hits,
            pit=self.pit,
            closes=self.closes,
            examples=self.examples,
            start=int(self.cutoffs[0]),
            end=int(self.cutoffs[-1]) + HOUR.ms,
            trainings=[dataclasses.asdict(training) for training in self.trainings],
            settings=self.settings,
        )

    def summary(self) -> dict[str, Any]:
        """Everything that the end of the run says, as plain figures; those of the page."""
        found = summarise(self.judged())
        answered = np.isfinite(self.losses[SERVED]).any(axis=2) | (self.source < 255)
        others = [name for name in SOURCES if name in found.compared]
        coins = dict(zip(self.symbols, found.coverage_of_coins(80).tolist(), strict=True))
        worst = max((symbol for symbol in coins if np.isfinite(coins[symbol])), key=lambda symbol: abs(coins[symbol] - 0.8), default="")
        return {
            "horizons": list(SCORED_HORIZONS),
            "forecasts": int(answered.sum()),
            "crps_e4": {name: _plain(1e4 * found.by_horizon(name)) for name in self.losses},
            "skill": {name: round(found.skill(name), 5) for name in others},
            "interval": {name: _plain(found.interval(name) or (), 5) for name in others},
            "t": {name: round(found.t_value(name), 2) for name in others},
            "blocks_won": {name: float(np.mean(found.skill_by_block(name) > 0)) for name in REFERENCES},
            "coverage": {percent: _plain(100.0 * found.coverage(percent)) for percent in INTERVALS},
            "worst_coin_80": {"symbol": worst, "coverage": round(100.0 * coins[worst], 2)} if worst else None,
            "crossings": self.crossings,
            "not_finite": self.not_finite,
            "served_by": {name: int((self.source == place).sum()) for place, name in enumerate(SOURCES)},
        }


def _means(values: Float32) -> Float64:
    """float64 [H]: mean over time and coins, 0 at a horizon of which nothing is known."""
    known = np.isfinite(values)
    return np.asarray(np.where(known, values, 0.0).sum(axis=(0, 1), dtype=np.float64) / np.maximum(known.sum(axis=(0, 1)), 1))


def _plain(values: Iterable[float], digits: int = 4) -> list[float]:
    """Rounded; 0 for what is not known."""
    return [round(float(value), digits) if np.isfinite(value) else 0.0 for value in values]
