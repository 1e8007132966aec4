"""The week's rhythm: how much busier one hour of the week is than another.

Knows hours of the week and arrays; knows no coin by name, no store and no clock. Estimated at a full retrain over all coins of
the training window, kept in every checkpoint, frozen in incremental updates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from cryptod.market import HOUR, MAX_HORIZON, Bool, Float64, Int64

WEEK: Final = 168
_BUSY_CAP: Final = 20.0
_MONDAY: Final = 72
"""The epoch fell on a Thursday: hour 0 since the epoch is hour 72 of a week that begins on Monday 00:00 UTC."""


def hour_of_week(open_times: Int64) -> Int64:
    """int64, 0 = Monday 00:00 UTC, for the hour that opens at each of ``open_times`` (UTC ms)."""
    return (open_times // HOUR.ms + _MONDAY) % WEEK


@dataclass(frozen=True, slots=True)
class Season:
    """Factors by hour of the week.

    ``variance``: float64 [168], mean 1: variance of the hour relative to the week's mean.
    ``volume``: float64 [168]: log quote volume of the hour relative to the week's mean.
    """

    variance: Float64
    volume: Float64

    def ahead(self) -> Float64:
        """float64 [168, 24]: mean variance factor of the next 1..24 hours, by the hour of the week that opens at the cutoff."""
        doubled = np.concatenate([self.variance, self.variance[:MAX_HORIZON]])
        total = np.concatenate([[0.0], np.cumsum(doubled)])
        first = np.arange(WEEK)[:, None]
        hours = np.arange(1, MAX_HORIZON + 1)[None, :]
        return np.asarray((total[first + hours] - total[first]) / hours)


FLAT: Final = Season(np.ones(WEEK), np.zeros(WEEK))
"""No rhythm at all: what the season itself is estimated with."""


class SeasonSums:
    """Sums over all coins from which the season is estimated, coin group by coin group in bounded memory."""

    def __init__(self, open_times: Int64) -> None:
        self._hours = hour_of_week(open_times)
        self._busy = np.zeros(len(open_times))
        self._coins = np.zeros(len(open_times))
        self._volume = np.zeros(WEEK)
        self._volumes = np.zeros(WEEK)

    def add(self, variance: Float64, slow: Float64, log_volume: Float64, live: Bool) -> None:
        """A group of coins: winsorised variance, its slow EWMA, log quote volume and liveness of each hour, all [T, n]."""
        busy = np.minimum(variance / np.maximum(slow, 1e-12), _BUSY_CAP)
        self._busy += np.where(live, busy, 0.0).sum(axis=1)
        self._coins += live.sum(axis=1)
        hours = np.maximum(live.sum(axis=0), 1)
        own_mean = np.where(live, log_volume, 0.0).sum(axis=0) / hours
        self._volume += np.bincount(self._hours, np.where(live, log_volume - own_mean, 0.0).sum(axis=1), WEEK)
        self._volumes += np.bincount(self._hours, live.sum(axis=1), WEEK)

    def estimate(self) -> Season:
        """The season of all that was added (`FLAT` where nothing was).

        With m = log of the coins' mean relative variance at each hour: .65 (hour-of-day mean + day-of-week effect) + .35 hour-of-week
        mean, smoothed circularly with .15/.7/.15, exponentiated and scaled to mean 1.
        """
        known = self._coins > 0
        if known.sum() < 2 * WEEK:
            return FLAT
        hours = self._hours[known]
        level = np.log(self._busy[known] / self._coins[known] + 1e-3)
        mean = float(level.mean())
        by_day_hour = _means(hours % 24, level, 24, mean)
        by_day = _means(hours // 24, level, 7, mean)
        by_week_hour = _means(hours, level, WEEK, mean)
        grid = np.arange(WEEK)
        rough = 0.65 * (by_day_hour[grid % 24] + by_day[grid // 24] - mean) + 0.35 * by_week_hour
        smooth = 0.15 * np.roll(rough, 1) + 0.7 * rough + 0.15 * np.roll(rough, -1)
        factor = np.exp(smooth - mean)
        volume = self._volume / np.maximum(self._volumes, 1.0)
        return Season(factor / factor.mean(), volume - volume.mean())


def _means(cells: Int64, values: Float64, count: int, otherwise: float) -> Float64:
    """float64 [count]: mean of the values in each cell, ``otherwise`` in an empty one."""
    total = np.bincount(cells, values, count)
    number = np.bincount(cells, minlength=count)
    return np.where(number > 0, total / np.maximum(number, 1), otherwise)
