"""The tally of forecasts whose outcome is known: hour after hour is added up and forgotten.

Arrays in, sums out; knows scores, coins by name, no store and no clock. What stays are sums over the coins by hour and horizon, and sums
over the scored horizons by hour and coin: memory grows with the hours of the window, whatever an hour's forecasts weigh. Losses are CRPS,
twice the mean pinball loss. `cryptod.forecast.judgement` says what follows from the sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cryptod.forecast import scores
from cryptod.forecast.scores import INTERVALS, SCORED_HORIZONS
from cryptod.market import MAX_HORIZON, Bool, Float32, Float64

BINS: Final = 10
"""Of the PIT's histogram."""
ROWS: Final = 1 + MAX_HORIZON
"""The scored horizons together, then each of all horizons."""
_SCORED: Final = np.array(SCORED_HORIZONS) - 1
_EACH: Final = np.isin(np.arange(MAX_HORIZON), _SCORED).astype(np.float64)
_BY_ROOT: Final = _EACH / np.sqrt(np.arange(1, MAX_HORIZON + 1))
"""What each horizon counts for where the scored ones are added up: a loss, which grows with the root of the horizon, by that root."""
_LOSSES: Final = ("loss", "of ", "over ")
"""How the names of losses begin."""
_STEP: Final = 32
"""Coins by which the tables grow."""


@dataclass(frozen=True, slots=True, eq=False)
class Matured:
    """Forecasts of N coins made in one hour, and what came.

    ``quantiles`` [N, 24, 9], ``p_up``, ``volatility``, ``outcomes`` [N, 24] (NaN: not known), ``score`` [N] or None. ``losses``:
    forecaster -> mean pinball loss [N, 24], NaN where it said nothing; that of what was served is among them. ``counted``: bool
    [N, 24], what was issued before its outcome; ``still``: bool [N], coins that do not move: their volatility is not judged.
    """

    symbols: Sequence[str]
    quantiles: Float32
    p_up: Float32
    volatility: Float32
    score: Float32 | None
    outcomes: Float64
    losses: Mapping[str, Float32]
    counted: Bool
    still: Bool


class Tally:
    """Sums of ``hours`` hours (T); ``served`` is the name of the forecaster that is judged, all others are what it is judged against.

    By hour and horizon there are: ``known`` outcomes; ``loss``; for each reference its loss (``of NAME``) and the served one's loss
    over it (``over NAME``) where it was ``with NAME``; ``within 80`` and ``interval 80`` (score) of each interval; prices that
    ``moved`` at all, the ``brier`` of those (one that stands still would flatter it), ``decided`` (it leant one way), ``right``,
    ``rose``; ``moving`` (of coins that do), ``qlike``, ``relative`` (squares over the variance foretold).

    ``pit``: float64 [T, 24, BINS]. ``scores``: float32 [T, N]; ``outcomes``: float32 [6, T, N], of the scored horizons. By coin and
    horizon, float64 [N, 24]: ``squares`` and number (``moves``) of outcomes of a coin while it moved.
    """

    def __init__(self, hours: int, served: str) -> None:
        self.hours = hours
        self._served = served
        self._sums: dict[str, Float64] = {}
        self._tables: dict[str, Float32] = {}
        self._totals: dict[str, Float64] = {}
        self._column: dict[str, int] = {}
        self._room = 0
        self.pit = np.zeros((hours, MAX_HORIZON, BINS))
        self.scores = np.zeros((hours, 0), np.float32)
        self.outcomes = np.zeros((len(SCORED_HORIZONS), hours, 0), np.float32)
        self.squares, self.moves = np.zeros((0, MAX_HORIZON)), np.zeros((0, MAX_HORIZON))

    @property
    def symbols(self) -> list[str]:
        """The coins, in the order of their columns."""
        return list(self._column)

    @property
    def references(self) -> list[str]:
        """The forecasters that it is judged against, in the order in which they were met."""
        return [name.removeprefix("of ") for name in self._sums if name.startswith("of ")]

    def series(self, name: str) -> Float64:
        """float64 [T, ROWS]: the scored horizons added up, then each horizon by itself."""
        each = self._sums[name]
        pooled = each @ (_BY_ROOT if name.startswith(_LOSSES) else _EACH)
        return np.concatenate([pooled[:, None], each], axis=1)

    def table(self, name: str) -> Float32:
        """float32 [T, N]: the scored horizons added up, coin by coin; of ``known``, the losses and ``within``."""
        return self._tables[name][:, : len(self._column)]

    def total(self, name: str) -> Float64:
        """float64 [N]: hours and scored horizons added up; of ``moved``, ``brier``, ``decided``, ``right``, and ``still`` hours."""
        return self._totals[name][: len(self._column)]

    def add(self, hour: int, found: Matured) -> None:
        """Add forecasts of an hour (0 is the first). That a coin comes once in an hour is the caller's care."""
        outcomes = np.asarray(found.outcomes, np.float64)
        known = np.isfinite(outcomes) & found.counted
        outcomes = np.where(known, outcomes, 0.0)
        columns = self._columns(found.symbols)
        self._add_losses(hour, columns, found, known)
        self._add_calibration(hour, columns, found, outcomes, known)
        self._add_direction(hour, columns, found, outcomes, known)
        self._add_volatility(hour, columns, found, outcomes, known)

    def _add_losses(self, hour: int, columns: list[int], found: Matured, known: Bool) -> None:
        own = np.where(known, 2.0 * found.losses[self._served], 0.0)
        self._both(hour, columns, "known", known)
        self._both(hour, columns, "loss", own)
        for name, losses in found.losses.items():
            if name != self._served:
                paired = known & np.isfinite(losses)
                theirs = np.where(paired, 2.0 * losses, 0.0)
                self._both(hour, columns, f"of {name}", theirs)
                self._both(hour, columns, f"over {name}", np.where(paired, own - theirs, 0.0))
                self._both(hour, columns, f"with {name}", paired)

    def _add_calibration(self, hour: int, columns: list[int], found: Matured, outcomes: Float64, known: Bool) -> None:
        for percent in INTERVALS:
            self._both(hour, columns, f"within {percent}", known & scores.covered(found.quantiles, outcomes, percent))
            self._sum(hour, f"interval {percent}", np.where(known, scores.interval_score(found.quantiles, outcomes, percent), 0.0))
        bins = np.minimum((scores.pit(found.quantiles, outcomes) * BINS).astype(np.int64), BINS - 1)
        places = (np.arange(MAX_HORIZON) * BINS + bins)[known]
        self.pit[hour] += np.bincount(places, minlength=MAX_HORIZON * BINS).reshape(MAX_HORIZON, BINS)

    def _add_direction(self, hour: int, columns: list[int], found: Matured, outcomes: Float64, known: Bool) -> None:
        moved = known & (outcomes != 0)
        decided = moved & (found.p_up != 0.5)
        figures = {
            "moved": moved,
            "brier": np.where(moved, (found.p_up - (outcomes > 0)) ** 2, 0.0),
            "decided": decided,
            "right": decided & ((found.p_up > 0.5) == (outcomes > 0)),
        }
        for name, values in figures.items():
            self._sum(hour, name, values)
            self._total(columns, name, values @ _EACH)
        self._sum(hour, "rose", moved & (outcomes > 0))
        self.scores[hour, columns] = np.nan if found.score is None else found.score
        self.outcomes[:, hour, columns] = np.where(known, outcomes, np.nan)[:, _SCORED].T

    def _add_volatility(self, hour: int, columns: list[int], found: Matured, outcomes: Float64, known: Bool) -> None:
        moving = known & ~found.still[:, None]
        squares = np.where(moving, outcomes**2, 0.0)
        volatility = found.volatility.astype(np.float64)
        variance = np.maximum(volatility**2, 1e-16)
        self._sum(hour, "moving", moving)
        self._sum(hour, "qlike", np.where(moving, scores.qlike(volatility, outcomes), 0.0))
        self._sum(hour, "relative", squares / variance)
        self.squares[columns] += squares
        self.moves[columns] += moving
        self._total(columns, "still", found.still & known.any(axis=1))

    def _both(self, hour: int, columns: list[int], name: str, values: Float64 | Bool) -> None:
        """Add what is 0 where it does not count, [N, 24]: by horizon, and by coin over the scored horizons."""
        self._sum(hour, name, values)
        if name not in self._tables:
            self._tables[name] = np.zeros((self.hours, self._room), np.float32)
        self._tables[name][hour, columns] += values @ (_BY_ROOT if name.startswith(_LOSSES) else _EACH)

    def _sum(self, hour: int, name: str, values: Float64 | Bool) -> None:
        if name not in self._sums:
            self._sums[name] = np.zeros((self.hours, MAX_HORIZON))
        self._sums[name][hour] += values.sum(axis=0)

    def _total(self, columns: list[int], name: str, values: Float64 | Bool) -> None:
        if name not in self._totals:
            self._totals[name] = np.zeros(self._room)
        self._totals[name][columns] += values

    def _columns(self, symbols: Sequence[str]) -> list[int]:
        """Their columns, after making room for coins that are new."""
        for symbol in symbols:
            self._column.setdefault(symbol, len(self._column))
        if len(self._column) > self._room:
            more = -(-(len(self._column) - self._room) // _STEP) * _STEP
            self._room += more
            self.scores = np.pad(self.scores, ((0, 0), (0, more)), constant_values=np.nan)
            self.outcomes = np.pad(self.outcomes, ((0, 0), (0, 0), (0, more)), constant_values=np.nan)
            self._tables = {name: np.pad(table, ((0, 0), (0, more))) for name, table in self._tables.items()}
            self._totals = {name: np.pad(total, (0, more)) for name, total in self._totals.items()}
            self.squares, self.moves = (np.pad(total, ((0, more), (0, 0))) for total in (self.squares, self.moves))
        return [self._column[symbol] for symbol in symbols]
