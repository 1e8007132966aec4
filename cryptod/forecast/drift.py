"""Drift: whether what is served has ceased to fit the market, told from forecasts as their outcomes become known.

Pure arithmetic on arrays with a small state; knows no coin by name, no clock, no store, and not what is done about it. Two figures are
watched, each the mean over all coins at one hour, so that a market that moves as one counts once:

`loss`      CRPS over the CRPS that the forecast itself expects (`distribution.expected_crps`), less 1. It is free of scale, needs no other
            forecaster beside it, and is near 0 in the mean for forecasts that are right, in calm and in violent months alike (-0.06 on
            real candles: losses are cut); outcomes twice as far out as foretold give +0.8, half as far -0.4. It is cut at `_MOST` for a
            coin and `_MOST_HOURLY` for an hour, so that one violent hour is a third at most of what an alarm takes.
`coverage`  share of the 80 % intervals that held, less 0.8: bounded by itself. Outcomes twice as far out give -0.32, half as far +0.15.

Each is watched on both sides by Page's cumulative sum (Page 1954, Biometrika 41; Hinkley 1971, Biometrika 58, where the mean before the
change is known): s = max(0, s + side x figure - tolerance), and an alarm where s exceeds the threshold. It is the Page-Hinkley test with
the mean of calibrated forecasts in the place of the mean so far: what was wrong from the first day must not pass for normal.
Horizons overlap, and sums of overlapping outcomes lie; so 1 h is taken at every hour and 4 h at every fourth (UTC). Taken like that, real
hours show no autocorrelation (0.03 at lag 1). Tolerances and thresholds were chosen on 2022-07..2023-03; docs/forecasting.md has the
figures. An alarm lays all sums to rest for `REST_HOURS`: whatever is done about it has to show in outcomes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np

from cryptod.errors import StoreError
from cryptod.forecast import distribution, scores
from cryptod.market import HOUR, Float32, Float64

REST_HOURS: Final = 24
"""After an alarm no sum grows for so long: alarms come at most once a day, however wrong the forecasts are."""
LEAST_COINS: Final = 8
"""Fewer coins do not make a mean: five would raise five false alarms a year, eight raise one."""

_MOST: Final = 5.0
_MOST_HOURLY: Final = 3.0
_LEAST_CRPS: Final = 1e-6
"""A coin that is expected to stand still has no relative loss."""
_RECENT_HALF_LIFE: Final = 12.0
_HELD_HALF_LIFE: Final = 168.0
_HELD_LEAST: Final = 180.0
"""Hours that must weigh in before the coverage of the last weeks is judged: a fortnight's."""
_HELD_BAND: Final = 0.04
"""Coverage of a fortnight's hours has a standard error of 1.3 % where coins move together: three of them."""
_FORGET_MS: Final = 72 * HOUR.ms
"""Sums do not run on over a longer pause."""


class Watch(NamedTuple):
    """One sum: ``side`` +1 waits for the figure to rise, -1 to fall."""

    figure: str
    horizon: int
    side: int
    tolerance: float
    threshold: float


WATCHES: Final = (
    Watch("coverage", 1, -1, 0.10, 4.0),
    Watch("coverage", 1, +1, 0.08, 2.5),
    Watch("loss", 1, +1, 0.35, 8.0),
    Watch("loss", 1, -1, 0.28, 3.0),
    Watch("coverage", 4, -1, 0.10, 3.0),
    Watch("coverage", 4, +1, 0.08, 2.5),
    Watch("loss", 4, +1, 0.35, 5.0),
    Watch("loss", 4, -1, 0.28, 3.0),
)


@dataclass(frozen=True, slots=True)
class Alarm:
    """``watch``: place in `WATCHES`; ``mean`` of its figure over the ``hours`` up to ``at`` (UTC ms), in which its sum grew from zero."""

    at: int
    watch: int
    mean: float
    hours: int

    @property
    def text(self) -> str:
        """``coverage of the 80 % intervals 1 h ahead fell to 49 % in the last 17 h``."""
        watch = WATCHES[self.watch]
        moved = "rose" if watch.side > 0 else "fell"
        return f"{_NAMES[watch.figure]} {watch.horizon} h ahead {moved} to {said(watch, self.mean)} in the last {self.hours} h"


def said(watch: Watch, value: float) -> str:
    """A figure in words: ``61 %``, ``1.8 times what they expect``."""
    return f"{100 * (0.8 + value):.0f} %" if watch.figure == "coverage" else f"{1 + value:.1f} times what they themselves expect"


_NAMES: Final = {"coverage": "coverage of the 80 % intervals", "loss": "losses of the forecasts"}


class Drift:
    """The sums, and the last ``alarm`` until its figure is back in band: within the watch's tolerance, as an EWMA (half-life 12 h) that
    sets out from what raised the alarm.
    """

    def __init__(self) -> None:
        self.alarm: Alarm | None = None
        self.recent = 0.0
        """That EWMA; means something while there is an alarm."""
        self._held = self._held_weight = 0.0
        self._to = 0
        self._rest_until = 0
        self._begin()

    def _begin(self) -> None:
        self._sum = [0.0] * len(WATCHES)
        self._total = [0.0] * len(WATCHES)
        self._count = [0] * len(WATCHES)

    def update(self, at: int, quantiles: Float32, outcomes: Float64) -> Alarm | None:
        """Take in what became known at ``at`` (UTC ms, on the hour): ``quantiles`` [N, 24, 9] as issued, where [:, h - 1] were issued h
        hours before, and ``outcomes`` [N, 24], cumulative log returns; NaN where there was no forecast or no outcome. Returns the alarm
        that this hour raises, if it does. An hour that was taken in before changes nothing.
        """
        if at <= self._to:
            return None
        if at - self._to > _FORGET_MS:
            self._begin()
        self._to = at
        figures = {h: _figures(quantiles[:, h - 1], outcomes[:, h - 1]) for h in (1, 4) if at % (h * HOUR.ms) == 0}
        self._settle(figures)
        if (value := figures[1].get("coverage")) is not None:
            fade = 0.5 ** (1.0 / _HELD_HALF_LIFE)
            self._held, self._held_weight = fade * self._held + value, fade * self._held_weight + 1.0
        if at < self._rest_until:
            return None
        for place, watch in enumerate(WATCHES):
            value = figures.get(watch.horizon, {}).get(watch.figure)
            if value is None:
                continue
            grown = self._sum[place] + watch.side * value - watch.tolerance
            if grown <= 0:
                self._sum[place], self._total[place], self._count[place] = 0.0, 0.0, 0
                continue
            self._sum[place] = grown
            self._total[place] += value
            self._count[place] += 1
            if grown > watch.threshold:
                mean = self._total[place] / self._count[place]
                self.alarm, self.recent = Alarm(at, place, mean, self._count[place] * watch.horizon), mean
                self._rest_until = at + REST_HOURS * HOUR.ms
                self._begin()
                return self.alarm
        return None

    def _settle(self, figures: Mapping[int, Mapping[str, float]]) -> None:
        """Follow the figure that raised the alarm, and take the alarm back once it is in band."""
        if self.alarm is None:
            return
        watch = WATCHES[self.alarm.watch]
        value = figures.get(watch.horizon, {}).get(watch.figure)
        if value is not None:
            self.recent += (1.0 - 0.5 ** (watch.horizon / _RECENT_HALF_LIFE)) * (value - self.recent)
            if watch.side * self.recent < watch.tolerance:
                self.alarm = None

    @property
    def off(self) -> float | None:
        """Share of the 80 % intervals 1 h ahead that held in the last weeks (half-life 7 days), if it is not about 80 %: too little a day
        for an alarm, and wrong all the same."""
        if self._held_weight < _HELD_LEAST or abs(lately := self._held / self._held_weight) <= _HELD_BAND:
            return None
        return 0.8 + lately

    def export(self) -> dict[str, Any]:
        """The state in plain values, to be kept and given to `restore`."""
        alarm = self.alarm
        return {
            "to": self._to,
            "rest_until": self._rest_until,
            "sum": list(self._sum),
            "total": list(self._total),
            "count": list(self._count),
            "recent": self.recent,
            "held": [self._held, self._held_weight],
            "alarm": None if alarm is None else [alarm.at, alarm.watch, alarm.mean, alarm.hours],
        }

    @classmethod
    def restore(cls, kept: Mapping[str, Any]) -> Drift:
        """The state as exported, or `StoreError`."""
        found = cls()
        try:
            found._to, found._rest_until, found.recent = int(kept["to"]), int(kept["rest_until"]), float(kept["recent"])
            found._sum, found._total = [float(value) for value in kept["sum"]], [float(value) for value in kept["total"]]
            found._count = [int(value) for value in kept["count"]]
            found._held, found._held_weight = (float(value) for value in kept.get("held", (0.0, 0.0)))
            if kept["alarm"] is not None:
                at, watch, mean, hours = kept["alarm"]
                found.alarm = Alarm(int(at), int(watch), float(mean), int(hours))
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"the state of the drift's sums is garbled: {error}", hint="they begin anew") from error
        lengths = {len(found._sum), len(found._total), len(found._count)}
        finite = np.isfinite([*found._sum, *found._total, found.recent, found._held, found._held_weight]).all()
        if lengths != {len(WATCHES)} or not finite or (found.alarm is not None and not 0 <= found.alarm.watch < len(WATCHES)):
            raise StoreError("the state of the drift's sums is of another version", hint="they begin anew")
        return found


def _figures(quantiles: Float32, outcomes: Float64) -> dict[str, float]:
    """Both figures of one horizon, of quantiles [N, 9] and outcomes [N]; empty where too few coins have an outcome."""
    known = np.isfinite(outcomes) & np.isfinite(quantiles).all(axis=-1)
    exact, moves = quantiles[known].astype(np.float64), outcomes[known]
    expected = distribution.expected_crps(exact)
    moving = expected > _LEAST_CRPS
    if moving.sum() < LEAST_COINS:
        return {}
    exact, moves, expected = exact[moving], moves[moving], expected[moving]
    ratio = np.minimum(scores.crps(exact, moves) / expected, _MOST)
    return {
        "loss": min(float(ratio.mean()), _MOST_HOURLY) - 1.0,
        "coverage": float(scores.covered(exact, moves, 80).mean()) - 0.8,
    }
