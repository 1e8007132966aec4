"""What is learned while forecasts are issued: everything that outcomes teach between two trainings.

Knows forecasts and outcomes as arrays; no clock, no store. The daemon feeds it from the ledger, the backtest from memory: the same steps in
the same order, so that one shows what the other does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cryptod.errors import StoreError
from cryptod.forecast.calibration import Calibration
from cryptod.forecast.combination import Combination
from cryptod.forecast.model import SOURCES
from cryptod.market import MAX_HORIZON, QUANTILE_LEVELS, Bool, Float32, Float64


@dataclass(frozen=True, slots=True)
class Spoken:
    """What was issued at one cutoff of N coins. ``close``: float64 [N]. ``issued``: float32 [N, 24, 9]. ``said``: forecaster -> float32
    [N, 24, 9], neither combined nor calibrated; empty where it is not known any more. ``combined``: bool [N], whether their average was
    issued, and not one forecaster alone.
    """

    symbols: tuple[str, ...]
    close: Float64
    issued: Float32
    said: Mapping[str, Float32]
    combined: Bool


@dataclass(frozen=True, slots=True)
class Matured:
    """What has become known at one time of N coins: [:, h - 1] was issued h hours before. ``outcomes``: float64 [N, 24], cumulative log
    returns, NaN where there was no forecast or no price. The rest as in `Spoken`, NaN where nothing was issued; ``combined``: bool [N, 24].
    """

    symbols: tuple[str, ...]
    outcomes: Float64
    issued: Float32
    said: dict[str, Float32]
    combined: Bool


def mature(symbols: tuple[str, ...], close: Float64, spoken: Sequence[Iterable[Spoken]]) -> Matured:
    """Pair the prices that are known now, ``close`` [N], with what was said: ``spoken[h - 1]`` was issued h hours ago, in this order.

    Where more than one issue of an hour names a coin the first one counts: it was made before anything else was known. Each is looked at
    once and let go: of thousands of coins a day's issues would not fit into memory together.
    """
    shape = (len(symbols), MAX_HORIZON, len(QUANTILE_LEVELS))
    issued = np.full(shape, np.nan, np.float32)
    said = {name: np.full(shape, np.nan, np.float32) for name in SOURCES}
    outcomes = np.full(shape[:2], np.nan)
    combined = np.zeros(shape[:2], bool)
    place = {symbol: row for row, symbol in enumerate(symbols)}
    for column, issues in enumerate(spoken):
        taken = np.zeros(len(symbols) + 1, bool)
        taken[-1] = True  # of coins that are not asked for
        for issue in issues:
            rows = np.array([place.get(symbol, -1) for symbol in issue.symbols], np.int64)
            here = np.flatnonzero(~taken[rows])
            rows = rows[here]
            taken[rows] = True
            issued[rows, column] = issue.issued[here, column]
            outcomes[rows, column] = np.log(close[rows] / issue.close[here])
            combined[rows, column] = issue.combined[here]
            for name in SOURCES:
                values = issue.said.get(name)
                said[name][rows, column] = np.nan if values is None else values[here, column]
    return Matured(symbols, outcomes, issued, said, combined)


class Learning:
    """The calibration and the combination, and what they do to the forecasters' quantiles before these are issued."""

    def __init__(self, calibration: Calibration | None = None, combination: Combination | None = None) -> None:
        self.calibration = calibration or Calibration()
        self.combination = combination or Combination()

    def learn(self, matured: Matured) -> None:
        """Take in what has become known. Once for each hour, in order."""
        self.calibration.update(matured.symbols, matured.issued, matured.outcomes)
        self.combination.update(matured.said, matured.outcomes, matured.combined)

    def issue(self, symbols: Sequence[str], served: Float32, said: Mapping[str, Float32], combined: Bool) -> Float32:
        """float32 [N, 24, 9]: what is to be issued: the forecasters' average where ``combined`` (bool [N]), what is ``served`` elsewhere,
        both calibrated.
        """
        found = served.copy()
        found[combined] = self.combination.combine({name: values[combined] for name, values in said.items()})
        return self.calibration.apply(symbols, found)

    def export(self) -> dict[str, Any]:
        return {"calibration": self.calibration.export(), "combination": self.combination.export()}

    @classmethod
    def restore(cls, kept: Mapping[str, Any]) -> tuple[Learning, list[StoreError]]:
        """The state as exported; a part that is garbled starts anew, and its error says so."""
        found, errors = cls(), []
        try:
            found.calibration = Calibration.restore(kept.get("calibration") or {})
        except StoreError as error:
            errors.append(error)
        try:
            found.combination = Combination.restore(kept.get("combination") or {})
        except StoreError as error:
            errors.append(error)
        return found, errors
