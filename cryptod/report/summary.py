"""The figures of a backtest's page: means over coins, hours and horizons, skill with its interval, coverage.

Arrays in, arrays out; knows no HTML. Every forecaster is scored on the same cells: those where the losses of all of them are known.
*Pooled*: each horizon's mean loss over sqrt(h), mean over `SCORED_HORIZONS`. Skill is 1 - loss / loss of the reference. How sure of it one
may be is for `cryptod.forecast.skill` to say, as of the live scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np

from cryptod.forecast import judgement
from cryptod.forecast.scores import SCORED_HORIZONS
from cryptod.forecast.skill import Blocks, estimate
from cryptod.market import HOUR, QUANTILE_LEVELS, SERVED, Bool, Float32, Float64, Int64
from cryptod.report.results import MODEL, BacktestResults

BLOCK_HOURS: Final = 28 * 24
LEVELS: Final = np.array(QUANTILE_LEVELS, np.float32)
GAPS: Final = np.diff(np.concatenate([[0.0], QUANTILE_LEVELS, [1.0]]))
"""The probability that lies between two neighbouring quantiles. PITs are counted there and no finer: within a gap they are interpolated."""


@dataclass(frozen=True)
class Summary:
    """Sums over the cube, from which everything on the page follows. ``known``: [T, H] and [N, H], cells that all forecasters share.

    ``by_hour``: name -> [T, H], mean over coins; ``by_coin``: name -> [N, H], mean over hours. ``coverage_by_hour`` and ``..._by_coin``:
    percent -> the same of the hits, ``width_by_hour`` of the widths. ``pit``: float64 [H, 10], the PITs counted between
    the nine levels; one on a level counts half to each side.
    """

    results: BacktestResults
    weights_by_hour: Float64
    weights_by_coin: Float64
    by_hour: dict[str, Float64]
    by_coin: dict[str, Float64]
    coverage_by_hour: dict[int, Float64]
    coverage_by_coin: dict[int, Float64]
    width_by_hour: dict[int, Float64]
    width_by_coin: dict[int, Float64]
    pit: Float64

    @cached_property
    def scored(self) -> list[int]:
        """Columns of the horizons that are pooled: `SCORED_HORIZONS` as far as they are there, else all."""
        columns = [column for column, horizon in enumerate(self.results.horizons) if horizon in SCORED_HORIZONS]
        return columns or list(range(len(self.results.horizons)))

    @cached_property
    def roots(self) -> Float64:
        """[H]: square roots of the horizons."""
        return np.sqrt(np.array(self.results.horizons, np.float64))

    @property
    def step(self) -> int:
        """Hours from one cutoff to the next."""
        cutoffs = self.results.cutoffs
        return max(int(np.min(np.diff(cutoffs))) // HOUR.ms, 1) if len(cutoffs) > 1 else 1

    @property
    def cells(self) -> int:
        return int(self.weights_by_hour.sum())

    @cached_property
    def references(self) -> list[str]:
        """From the strongest to the weakest."""
        names = [name for name in self.by_hour if name not in (SERVED, MODEL)]
        return sorted(names, key=self.pooled)

    def by_horizon(self, name: str) -> Float64:
        """[H]: the forecaster's CRPS."""
        return weighted(self.by_hour[name], self.weights_by_hour, 0)

    def pooled(self, name: str) -> float:
        return float(np.mean((self.by_horizon(name) / self.roots)[self.scored]))

    def series(self, name: str, columns: list[int] | None = None) -> Float64:
        """[T]: mean over coins and ``columns`` (the pooled ones) of loss / sqrt(h); NaN in an hour without a score."""
        columns = self.scored if columns is None else columns
        return weighted((self.by_hour[name] / self.roots)[:, columns], self.weights_by_hour[:, columns], 1)

    def skill(self, name: str) -> float:
        return 1.0 - self.pooled(SERVED) / self.pooled(name)

    def skill_by_horizon(self, name: str) -> Float64:
        """[H]."""
        return np.asarray(1.0 - self.by_horizon(SERVED) / self.by_horizon(name))

    @cached_property
    def compared(self) -> dict[str, list[dict[str, Any]]]:
        """Other forecaster -> what is found of the skill against it, pooled and then at each horizon (`judgement.against`).

        Sums over the hours of what each adds to the mean losses, so that their ratio is the skill itself; hours between two cutoffs add 0.
        """
        rows = (self.results.cutoffs - self.results.cutoffs[:1]) // HOUR.ms
        total = np.maximum(self.weights_by_hour.sum(axis=0), 1.0)

        def summed(values: Float64) -> Float64:
            parts = np.nan_to_num(values) * self.weights_by_hour / total
            found = np.zeros((int(rows[-1]) + 1 if len(rows) else 0, 1 + len(self.roots)))
            found[rows] = np.concatenate([parts[:, self.scored].sum(axis=1, keepdims=True), parts], axis=1)
            return found

        count = summed(np.ones_like(self.weights_by_hour))
        hours = Blocks(count[:, 0] > 0)
        losses = {name: summed(values / self.roots) for name, values in self.by_hour.items()}
        better_by = {name: theirs - losses[SERVED] for name, theirs in losses.items() if name != SERVED}
        return {
            name: [
                judgement.against(estimate(skill, half), gain[:, column], count[:, column])
                for column, (skill, half) in enumerate(zip(*hours.ratio(gain, losses[name]), strict=True))
            ]
            for name, gain in better_by.items()
        }

    def interval(self, name: str, column: int | None = None) -> tuple[float, float] | None:
        """95 % interval of the skill, pooled or at a horizon; None where the period is too short for one."""
        skill = self.compared[name][0 if column is None else 1 + column]["skill"]
        return None if skill["low"] is None else (skill["low"], skill["high"])

    def t_value(self, name: str) -> float:
        """Of the mean loss difference (Diebold and Mariano 1995)."""
        return float(self.compared[name][0]["t"])

    def verdict(self, name: str) -> str | None:
        """Of what was served, pooled: `judgement.BETTER`, `WORSE` or `EVEN`; None where the period is too short for one."""
        found: str | None = self.compared[name][0]["verdict"]
        return found

    def interval_by_block(self, name: str) -> list[tuple[float, float] | None]:
        """95 % interval of each block's skill, None of one that is too short for it."""
        ours, theirs = self.series(SERVED), self.series(name)
        known = np.isfinite(ours) & np.isfinite(theirs)
        gain, lost = (np.where(known, values, 0.0)[:, None] for values in (theirs - ours, theirs))
        found = [Blocks(known[rows]).estimates(gain[rows], lost[rows])[0] for _, rows in self.blocks]
        return [None if each.low is None or each.high is None else (each.low, each.high) for each in found]

    @cached_property
    def blocks(self) -> list[tuple[int, Bool]]:
        """(begin of the block, which hours are in it); a last one of less than half its length counts to the one before."""
        length = self.results.block_hours * HOUR.ms
        number = (self.results.cutoffs - self.results.start) // length
        last = int(number[-1]) if len(number) else 0
        if last > 0 and (self.results.end - self.results.start - last * length) < length // 2:
            number = np.minimum(number, last - 1)
        return [(int(self.results.start + n * length), number == n) for n in np.unique(number)]

    def skill_by_block(self, name: str) -> Float64:
        """[blocks]."""
        ours, theirs = self.series(SERVED), self.series(name)
        return np.array([1.0 - mean(ours[rows]) / mean(theirs[rows]) for _, rows in self.blocks])

    def running_gain(self, name: str) -> Float64:
        """[T]: the loss saved up to each hour in parts of the reference's loss over the whole period: it ends at the skill."""
        ours, theirs = self.series(SERVED), self.series(name)
        return np.asarray(np.nancumsum(theirs - ours) / max(float(np.nansum(theirs)), 1e-300))

    def skill_by_coin(self, name: str) -> Float64:
        """[N]: pooled."""
        ours, theirs = ((self.by_coin[each] / self.roots)[:, self.scored].mean(axis=1) for each in (SERVED, name))
        return np.asarray(1.0 - ours / theirs)

    def coverage(self, percent: int) -> Float64:
        """[H]."""
        return weighted(self.coverage_by_hour[percent], self.weights_by_hour, 0)

    def coverage_of_coins(self, percent: int) -> Float64:
        """[N]: over the pooled horizons."""
        return weighted(self.coverage_by_coin[percent][:, self.scored], self.weights_by_coin[:, self.scored], 1)

    def coverage_over_time(self, percent: int) -> tuple[Int64, Float64]:
        """Begin and coverage of each week (of the pooled horizons); of each day where there are fewer than four weeks."""
        hours = 24 if len(self.results.cutoffs) * self.step < 4 * 168 else 168
        return self.over_time(self.coverage_by_hour[percent][:, self.scored], self.weights_by_hour[:, self.scored], hours)

    def over_time(self, values: Float64, weights: Float64, hours: int) -> tuple[Int64, Float64]:
        """Begin and weighted mean of each span of so many hours; values and weights [T, K]."""
        span = (self.results.cutoffs - self.results.start) // (hours * HOUR.ms)
        spans = np.unique(span)
        found = [weighted(values[span == one].reshape(-1), weights[span == one].reshape(-1), 0) for one in spans]
        return np.asarray(self.results.start + spans * hours * HOUR.ms), np.array(found, np.float64)

    def pit_density(self, column: int) -> Float64:
        """[10]: how many PITs of a horizon fell between the quantiles, in parts of what belongs there."""
        return np.asarray(self.pit[column] / max(float(self.pit[column].sum()), 1.0) / GAPS)

    def calibration_curve(self, column: int) -> Float64:
        """[9]: the share of outcomes below each quantile of a horizon."""
        return np.asarray(np.cumsum(self.pit[column])[:-1] / max(float(self.pit[column].sum()), 1.0))


def summarise(results: BacktestResults) -> Summary:
    """One pass over the cube, horizon by horizon: the cube of 100 coins, nine months and 24 horizons is not copied."""
    times, coins, horizons = len(results.cutoffs), len(results.symbols), len(results.horizons)
    by_hour = {name: np.full((times, horizons), np.nan) for name in results.forecasters}
    by_coin = {name: np.full((coins, horizons), np.nan) for name in results.forecasters}
    hour_hits, width_by_hour = (
        {percent: np.full((times, horizons), np.nan) for percent in each} for each in (results.hits, results.widths)
    )
    coin_hits, width_by_coin = (
        {percent: np.full((coins, horizons), np.nan) for percent in each} for each in (results.hits, results.widths)
    )
    weights_by_hour, weights_by_coin = np.zeros((times, horizons)), np.zeros((coins, horizons))
    pit = np.zeros((horizons, len(GAPS)))
    for h in range(horizons):
        known = np.logical_and.reduce([np.isfinite(loss[:, :, h]) for loss in results.forecasters.values()])
        weights_by_hour[:, h], weights_by_coin[:, h] = known.sum(axis=1), known.sum(axis=0)
        for name, loss in results.forecasters.items():
            by_hour[name][:, h], by_coin[name][:, h] = _means(loss[:, :, h], known)
        for percent, hit in results.hits.items():
            hour_hits[percent][:, h], coin_hits[percent][:, h] = _means(hit[:, :, h], known)
        for percent, width in results.widths.items():
            width_by_hour[percent][:, h], width_by_coin[percent][:, h] = _means(width[:, :, h], known)
        values = results.pit[:, :, h][known & np.isfinite(results.pit[:, :, h])]
        for side in ("left", "right"):
            pit[h] += 0.5 * np.bincount(np.searchsorted(LEVELS, values, side), minlength=len(GAPS))
    return Summary(
        results, weights_by_hour, weights_by_coin, by_hour, by_coin, hour_hits, coin_hits, width_by_hour, width_by_coin, pit,
    )  # fmt: skip


def _means(values: Float64 | Float32, known: Bool) -> tuple[Float64, Float64]:
    """Means over coins and over hours of the known values [T, N]."""
    known = known & np.isfinite(values)
    kept = np.where(known, values, 0.0).astype(np.float64)
    by_hour, by_coin = known.sum(axis=1), known.sum(axis=0)
    return (
        np.where(by_hour > 0, kept.sum(axis=1) / np.maximum(by_hour, 1), np.nan),
        np.where(by_coin > 0, kept.sum(axis=0) / np.maximum(by_coin, 1), np.nan),
    )


def weighted(values: Float64, weights: Float64, axis: int) -> Float64:
    """Mean of the known values by their weights; NaN where nothing is known."""
    known = np.where(np.isfinite(values), weights, 0.0)
    total = known.sum(axis=axis)
    return np.asarray(np.where(total > 0, (known * np.nan_to_num(values)).sum(axis=axis) / np.where(total > 0, total, 1.0), np.nan))


def mean(values: Float64) -> float:
    """Mean of the known values, NaN where there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
