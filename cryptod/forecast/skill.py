"""What may be concluded from scores: intervals, tests and ranks of figures whose hours hang together.

Pure arithmetic on arrays; knows hours and horizons, no coin by name, no store, no clock. Forecasts of one hour share the
market's move, and those of neighbouring hours share most of their outcome, so nothing here counts single forecasts as
independent. A figure is a ratio of two sums over the hours, and the hours are what is drawn again, in blocks.

A block bootstrap's own percentiles are too narrow where blocks are few: of means of overlapping 24-hour noise they hold
76 % of the time in a week and 90 % in a month, for a nominal 95 %. Its standard error with Student's t for as many degrees of
freedom as there are blocks but one holds 94 to 99 %, on noise that remembers a day (`tests/test_skill.py`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from cryptod.forecast.scores import loss_test
from cryptod.market import MAX_HORIZON, Bool, Float32, Float64

LEVEL: Final = 0.95
"""Of all intervals; tests are two-sided at 5 %."""
DRAWS: Final = 1000
PERMUTATIONS: Final = 2000
LEAST_BLOCKS: Final = 3.0
LEAST_COINS: Final = 3
"""A rank correlation of fewer says nothing."""
LAG: Final = 2 * MAX_HORIZON
_PARTS: Final = 32
_TAIL: Final = (1.0 + LEVEL) / 2.0


class Estimate(NamedTuple):
    """A figure and its interval; None where nothing is known, or where the hours are too few for an interval."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def holds(self, value: float) -> bool | None:
        """Whether the interval has ``value`` in it."""
        return None if self.low is None or self.high is None else self.low <= value <= self.high


class LossTest(NamedTuple):
    """A t value, and how large it has to be either way to show a difference; 0 and None where there is too little."""

    t: float
    needed: float | None


class Blocks:
    """The hours of a window, drawn again ``DRAWS`` times in blocks.

    The circular block bootstrap (Kuensch 1989; Politis and Romano 1992). Blocks have 2.6 sqrt(hours) hours, and twice the longest horizon
    at least. ``known``: bool [T], the hours of which there is anything. Seeded: the same hours have the same intervals.
    """

    def __init__(self, known: Bool, seed: int = 0) -> None:
        self.hours = int(known.sum())
        self.length = max(2 * MAX_HORIZON, round(2.6 * math.sqrt(self.hours)))
        self.weights: Float32 | None = None
        """float32 [DRAWS, T]: how often each hour was drawn; None where the blocks would be too few."""
        if self.hours >= LEAST_BLOCKS * self.length:
            self.weights = _drawn(len(known), self.length, seed)

    def count(self, hours: int) -> float | None:
        """How many blocks so many hours are; None where they are too few to conclude from."""
        return hours / self.length if hours >= LEAST_BLOCKS * self.length else None

    def reach(self, hours: int) -> float:
        """Standard errors of the bootstrap from a figure of so many hours to the ends of its interval; NaN where those are too few."""
        return _reach(count) if (count := self.count(hours)) is not None else math.nan

    def ratio(self, top: Float64, bottom: Float64) -> tuple[Float64, Float64]:
        """Two float64 [K]: sums over the hours of ``top`` [T, K] over those of ``bottom`` [T, K], and the half widths of their intervals.

        NaN where the bottom is nothing, or where it stands on too few hours.
        """
        below = bottom.sum(axis=0)
        value = np.divide(top.sum(axis=0), below, out=np.full(len(below), np.nan), where=below != 0)
        if self.weights is None:
            return value, np.full_like(value, np.nan)
        scale = np.where(below != 0, np.abs(below), 1.0) / len(bottom)
        residual = self.weights @ ((top - np.nan_to_num(value) * bottom) / scale).astype(np.float32)
        drawn = self.weights @ (bottom / scale).astype(np.float32)
        moved = np.divide(residual, drawn, out=np.full(drawn.shape, np.nan, np.float32), where=drawn != 0)
        found = np.isfinite(moved)
        draws = np.maximum(found.sum(axis=0), 1)
        mean = np.where(found, moved, 0.0).sum(axis=0, dtype=np.float64) / draws
        error = np.sqrt(np.where(found, (moved - mean) ** 2, 0.0).sum(axis=0, dtype=np.float64) / draws)
        hours = (bottom != 0).sum(axis=0)
        return value, error * np.array([self.reach(int(number)) for number in hours])

    def estimates(self, top: Float64, bottom: Float64, *, least: float = -math.inf, most: float = math.inf) -> list[Estimate]:
        """`ratio` as K estimates, their ends kept between ``least`` and ``most``."""
        return [estimate(v, w, least=least, most=most) for v, w in zip(*self.ratio(top, bottom), strict=True)]


def estimate(value: float, half: float, *, least: float = -math.inf, most: float = math.inf) -> Estimate:
    """The interval of ``half`` on either side, kept between ``least`` and ``most``."""
    if not math.isfinite(value):
        return Estimate(None)
    if not math.isfinite(half):
        return Estimate(float(value))
    return Estimate(float(value), float(max(least, value - half)), float(min(most, value + half)))


def _reach(blocks: float) -> float:
    """Student's t, and the standard error's own bias where blocks are few."""
    return student(_TAIL, blocks - 1.0) * math.sqrt(blocks / (blocks - 1.0))


@lru_cache(maxsize=256)
def student(share: float, freedom: float) -> float:
    """Quantile of Student's t; ``freedom`` may be any number above 0.

    With x = sqrt(freedom) tan(a) its density is that of a, proportional to cos(a)^(freedom - 1), which is summed here.
    """
    angle = np.linspace(0.0, math.pi / 2, 20_001)
    middle = (angle[1:] + angle[:-1]) / 2
    mass = np.concatenate([[0.0], np.cumsum(np.cos(middle) ** (freedom - 1.0))])
    found = np.interp(2.0 * abs(share - 0.5), mass / mass[-1], angle)
    return math.copysign(math.sqrt(freedom) * math.tan(float(found)), share - 0.5)


def wilson(share: float, count: float, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a proportion seen ``count`` times (Wilson 1927); ``count`` may be an effective number."""
    centre = share + z * z / (2.0 * count)
    reach = z * math.sqrt(max(0.0, share * (1.0 - share)) / count + z * z / (4.0 * count * count))
    whole = 1.0 + z * z / count
    return max(0.0, (centre - reach) / whole), min(1.0, (centre + reach) / whole)


def proportion(blocks: Blocks, hits: Float64, count: Float64) -> tuple[Estimate, float | None]:
    """A proportion with Wilson's interval, and the number of independent trials that it is worth (Kish's design effect).

    ``hits``, ``count``: float64 [T]. Each trial counts as the part of one that the blocks' standard error says it is.
    """
    (value,), (half,) = blocks.ratio(hits[:, None], count[:, None])
    if not math.isfinite(half):
        return estimate(float(value), math.nan), None
    hours = int((count != 0).sum())
    number = hours / blocks.length
    error, trials = half / blocks.reach(hours), float(count.sum())
    effective = min(trials, value * (1.0 - value) / error**2) if error > 0 else min(trials, number)
    return Estimate(float(value), *wilson(float(value), effective, student(_TAIL, number - 1.0))), effective


def equal_losses(difference: Float64, count: Float64) -> LossTest:
    """Whether two forecasters' losses differ: Diebold and Mariano 1995 with Newey and West's variance (`scores.loss_test`).

    ``difference``, ``count``: float64 [T], sums over an hour's forecasts, in the order of time without a gap: an hour of which nothing is
    known has zeros. The t value needed is that of Kiefer and Vogelsang (2005, table 1, Bartlett), for whom the lags are a fixed part of the
    hours: with 48 lags in a week it is 2.7.
    """
    hours = np.flatnonzero(count > 0)
    if len(hours) <= LAG:
        return LossTest(0.0, None)
    difference, count = (values[hours[0] : hours[-1] + 1] for values in (difference, count))
    trials = float(count.sum())
    mean = float(difference.sum()) / trials
    # The ratio's influence: an hour of more forecasts counts for more, one without any not at all.
    series = (difference - mean * count) / trials * len(count) + mean
    _, t = loss_test(series, LAG)
    part = (min(LAG, len(series) // 4) + 1) / len(hours)
    return LossTest(t, 1.96 + 2.9694 * part + 0.416 * part**2 - 0.5324 * part**3)


class Uniformity(NamedTuple):
    """How far a histogram is from flat: the largest distance of the distribution functions, and how often one that is flat is as far."""

    distance: float | None
    p: float | None


def flatness(blocks: Blocks, histogram: Float64) -> Uniformity:
    """Of PIT values (Dawid 1984; Diebold, Gunther and Tay 1998): Kolmogorov's distance at the edges of ``histogram`` [T, bins]."""
    total = histogram.sum(axis=0)
    if total.sum() <= 0:
        return Uniformity(None, None)
    bins = len(total)
    found = np.cumsum(total)[:-1] / total.sum()
    distance = float(np.abs(found - np.arange(1, bins) / bins).max())
    number = blocks.count(int((histogram.sum(axis=1) > 0).sum()))
    if blocks.weights is None or number is None:
        return Uniformity(distance, None)
    drawn = np.cumsum(blocks.weights @ histogram.astype(np.float32), axis=1, dtype=np.float64)
    drawn = drawn[drawn[:, -1] > 0]
    chance = np.abs(drawn[:, :-1] / drawn[:, -1:] - found).max(axis=1) * math.sqrt(number / (number - 1.0))
    return Uniformity(distance, _p(chance, distance))


def ranked(values: Float32 | Float64, known: Bool) -> Float32:
    """float32 [T, N]: ranks within each hour of what is ``known`` (bool [T, N]), ties at their mean, centred, of unit length; else 0."""
    hours, coins = values.shape
    order = np.argsort(np.where(known, values, np.inf), axis=1, kind="stable")
    lined = np.take_along_axis(np.where(known, values, np.inf), order, axis=1)
    first = np.ones((hours, coins), bool)
    first[:, 1:] = lined[:, 1:] != lined[:, :-1]
    group = np.cumsum(first.ravel()) - 1
    place = np.bincount(group, np.tile(np.arange(coins), hours)) / np.bincount(group)
    rank = np.empty((hours, coins))
    np.put_along_axis(rank, order, place[group].reshape(hours, coins), axis=1)
    count = known.sum(axis=1, keepdims=True)
    rank = np.where(known, rank - (count - 1) / 2.0, 0.0)
    length = np.sqrt((rank * rank).sum(axis=1, keepdims=True))
    np.divide(rank, length, out=rank, where=length > 0)
    return np.where(count >= LEAST_COINS, rank, 0.0).astype(np.float32)


class RankCorrelation(NamedTuple):
    """The mean over the hours of Spearman's rank correlation, and how often chance makes one as large, either way."""

    mean: Estimate
    p: float | None
    hours: int


def rank_correlation(blocks: Blocks, scores: Float32 | Float64, outcomes: Float32 | Float64, seed: int = 0) -> RankCorrelation:
    """How well ``scores`` order ``outcomes`` (both [T, N], NaN where there is none) among the coins of each hour.

    Under chance any coin's scores might have been any other's. Coins change places for the whole window at once: were they shuffled hour by
    hour, chance would look far too small, because scores last for hours and outcomes overlap (`tests/test_skill.py` shows by how much).
    Scores that lean with volatility go up and down with the market; that is for the interval to say, which draws the hours.
    """
    known = np.isfinite(scores) & np.isfinite(outcomes)
    ours, theirs = ranked(scores, known), ranked(outcomes, known)
    each = (ours * theirs).sum(axis=1, dtype=np.float64)
    used = (known.sum(axis=1) >= LEAST_COINS).astype(np.float64)
    hours = int(used.sum())
    if not hours:
        return RankCorrelation(Estimate(None), None, 0)
    (mean,) = blocks.estimates(each[:, None], used[:, None], least=-1.0, most=1.0)
    if blocks.count(hours) is None:
        return RankCorrelation(mean, None, hours)
    pairs = ours.T @ theirs
    coins = np.arange(len(pairs))
    places = np.random.default_rng(seed).permuted(np.tile(coins, (PERMUTATIONS, 1)), axis=1)
    chance = np.concatenate([pairs[part, coins].sum(axis=1, dtype=np.float64) for part in np.array_split(places, _PARTS)]) / hours
    return RankCorrelation(mean, _p(np.abs(chance), abs(float(each.sum()) / hours)), hours)


def _p(chance: Float64, found: float) -> float:
    """How often chance goes as far as what was found, which counts as one of its draws (Davison and Hinkley 1997, eq. 4.11)."""
    return float((1 + (chance >= found - 1e-12).sum()) / (1 + len(chance)))


def _drawn(total: int, length: int, seed: int) -> Float32:
    """float32 [DRAWS, total]: how often each hour is in a draw of blocks that begin anywhere; the last block is cut to size."""
    sizes = np.full(-(-total // length), length)
    sizes[-1] = total - length * (len(sizes) - 1)
    starts = np.random.default_rng(seed).integers(0, total, (DRAWS, len(sizes)))
    found = np.empty((DRAWS, total), np.float32)
    for draw, start in enumerate(starts):
        edges = np.bincount(start, minlength=2 * total) - np.bincount(start + sizes, minlength=2 * total)[: 2 * total]
        inside = np.cumsum(edges)
        found[draw] = inside[:total] + inside[total:]
    return found
