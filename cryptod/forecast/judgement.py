"""What a tally says of the forecasts that were served: how good, how sure, and whether better than the references or than chance.

Sums in, plain figures out, each with its interval; knows the tally and what may be concluded (`cryptod.forecast.skill`), and no store.
`card` documents every figure. A verdict is given where there are days enough for an interval, and only when that is on one side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from cryptod.forecast.model import SOURCES
from cryptod.forecast.scores import INTERVALS, SCORED_HORIZONS
from cryptod.forecast.skill import LEAST_BLOCKS, Blocks, Estimate, equal_losses, estimate, flatness, proportion, rank_correlation
from cryptod.forecast.tally import ROWS, Tally
from cryptod.market import Float64

NEAR: Final = 0.01
"""A coverage this near what was promised is as promised, however sure it is that it is not the very same."""
NEAR_COIN: Final = 0.04
ALPHA: Final = 0.05
BETTER, WORSE, EVEN = "better", "worse", "even"
FIT, NARROW, WIDE = "fit", "narrow", "wide"
OWN: Final = SOURCES[0]
"""The model by itself is part of what is served: compared with like the others, and not what must be beaten."""
COIN_TOSS: Final = 0.25
"""The Brier score of a P(up) of 50 %, whatever comes."""
_SCORED: Final = np.array(SCORED_HORIZONS) - 1

Map = dict[str, Any]


def card(tally: Tally) -> Map:
    """Everything that the tally says; empty if there is nothing in it. An interval is ``value, low, high``, the ends nil of few days.

    ``hours`` in which forecasts were made, from ``first_hour`` to ``last_hour`` (rows of the tally); ``coins``; ``forecasts`` (of a
    coin in an hour), ``outcomes`` (of a forecast at a horizon); ``block_hours`` of the bootstrap, and the ``least_hours`` that an
    interval takes; ``best_reference``, the one that is hardest to beat. ``pooled``: the scored horizons together, each CRPS over the
    root of its horizon; ``by_horizon``: a row for each with its ``horizon``:

      outcomes, crps (log return)
      references      name -> {outcomes (in both), crps, skill (interval; above 0: better), t, t_needed (Diebold-Mariano),
                      verdict: better | worse | even}
      coverage        "50", "80", "90", "95" -> interval and verdict: fit | narrow | wide
      interval_score  the same -> mean (Gneiting and Raftery 2007)
      pit             {bins: shares of ten equal ones, distance (Kolmogorov) from flat, p}
      volatility      {qlike (interval), constant: that of a constant for each coin that knew the window,
                      relative: y^2 over the variance foretold (interval)}
      direction       {hit_rate (Wilson's interval), decided, worth (independent trials), up: share of rises, brier,
                      rank_correlation or nil}

    with verdicts against chance in direction; ``rank_correlation``, of the score, also has p (of permutations) and hours, and stands
    at the scored horizons; pooled, it is that of the longest. ``by_coin``: {symbol, hours, ordinary, crps, references, coverage,
    hit_rate, brier}. ``worst``: {skill: against the best reference, coverage: of the 80 % interval}, a coin each.
    """
    seen = np.flatnonzero(tally.series("known")[:, 0]) if tally.symbols else np.zeros(0, np.int64)
    return _plain(_Judge(tally, slice(int(seen[0]), int(seen[-1]) + 1)).card()) if len(seen) else {}


class _Judge:
    """One look at a tally, from its first hour of which anything is known to the last."""

    def __init__(self, tally: Tally, span: slice) -> None:
        self._tally, self._span = tally, span
        self._known = self._series("known")
        self._blocks = Blocks(self._known[:, 0] > 0)

    def card(self) -> Map:
        rows = self._rows()
        best = self._best(rows[0])
        coins = self._coins()
        return {
            "hours": self._blocks.hours,
            "first_hour": self._span.start,
            "last_hour": self._span.stop - 1,
            "coins": len(coins),
            "forecasts": sum(coin["hours"] for coin in coins),
            "outcomes": int(self._known[:, 1:].sum()),
            "block_hours": self._blocks.length,
            "least_hours": math.ceil(LEAST_BLOCKS * self._blocks.length),
            "best_reference": best,
            "pooled": rows[0],
            "by_horizon": [{"horizon": h} | row for h, row in enumerate(rows[1:], start=1)],
            "by_coin": coins,
            "worst": _worst(coins, best),
        }

    @staticmethod
    def _best(pooled: Map) -> str | None:
        """The reference that is hardest to beat, of those that were there for half of the outcomes at least."""
        rows = pooled["references"].items()
        references = {name: row for name, row in rows if name != OWN and 2 * row["outcomes"] >= pooled["outcomes"]}
        return min(references, key=lambda name: float(references[name]["skill"]["value"]), default=None)

    def _series(self, name: str) -> Float64:
        return self._tally.series(name)[self._span]

    def _table(self, name: str) -> Float64:
        return self._tally.table(name)[self._span].astype(np.float64)

    def _rows(self) -> list[Map]:
        """The scored horizons together, then each by itself."""
        known, blocks = self._known, self._blocks
        total = known.sum(axis=0)
        crps, _ = blocks.ratio(self._series("loss"), known)
        references = self._compared(self._series, ROWS)
        coverage = self._covered(self._series, known, NEAR)
        width = {percent: _share(self._series(f"interval {percent}").sum(axis=0), total) for percent in INTERVALS}
        pit = self._tally.pit[self._span]
        pit = np.concatenate([pit[:, _SCORED].sum(axis=1, keepdims=True), pit], axis=1)
        volatility, direction = self._volatility(), self._direction()
        return [
            {
                "outcomes": int(total[row]),
                "crps": crps[row],
                "references": references[row],
                "coverage": coverage[row],
                "interval_score": {str(percent): means[row] for percent, means in width.items()},
                "pit": {"bins": list(_share(pit[:, row].sum(axis=0), total[row])), **flatness(blocks, pit[:, row])._asdict()},
                "volatility": volatility[row],
                "direction": direction[row],
            }
            for row in range(ROWS)
        ]

    def _compared(self, sums: Callable[[str], Float64], rows: int) -> list[Map]:
        """For each column of the sums: reference -> how it did there, and the skill against it."""
        found: list[Map] = [{} for _ in range(rows)]
        for name in self._tally.references:
            theirs, better_by, count = sums(f"of {name}"), -sums(f"over {name}"), sums(f"with {name}")
            level = _share(theirs.sum(axis=0), count.sum(axis=0))
            for row, (skill, half) in enumerate(zip(*self._blocks.ratio(better_by, theirs), strict=True)):
                if math.isfinite(skill):
                    verdict = against(estimate(skill, half), better_by[:, row], count[:, row])
                    found[row][name] = {"outcomes": int(count[:, row].sum()), "crps": level[row], **verdict}
        return found

    def _covered(self, sums: Callable[[str], Float64], known: Float64, near: float) -> list[Map]:
        found: list[Map] = [{} for _ in range(known.shape[1])]
        for percent in INTERVALS:
            for row, share in enumerate(self._blocks.estimates(sums(f"within {percent}"), known, least=0.0, most=1.0)):
                found[row][str(percent)] = _promised(share, percent / 100.0, near)
        return found

    def _direction(self) -> list[Map]:
        right, decided, moved, rose = (self._series(name) for name in ("right", "decided", "moved", "rose"))
        brier = self._blocks.estimates(self._series("brier"), moved, least=0.0)
        up = _share(rose.sum(axis=0), moved.sum(axis=0))
        ranks = {h: self._ranks(place) for place, h in enumerate(SCORED_HORIZONS)}
        rows = []
        for row in range(ROWS):
            hits, worth = proportion(self._blocks, right[:, row], decided[:, row])
            rows.append(
                {
                    "hit_rate": hits._asdict() | {"verdict": _beside(hits, 0.5)},
                    "decided": int(decided[:, row].sum()),
                    "worth": worth,
                    "up": up[row],
                    "brier": brier[row]._asdict() | {"verdict": _beside(brier[row], COIN_TOSS, less_is_better=True)},
                    "rank_correlation": ranks.get(row or SCORED_HORIZONS[-1]),
                }
            )
        return rows

    def _ranks(self, place: int) -> Map | None:
        """Of the score and the outcomes at a scored horizon; None where there are not coins enough to be ranked."""
        tally, columns = self._tally, slice(0, len(self._tally.symbols))
        found = rank_correlation(self._blocks, tally.scores[self._span, columns], tally.outcomes[place, self._span, columns])
        if not found.hours:
            return None
        sure = found.p is not None and found.p < ALPHA
        verdict = _beside(found.mean, 0.0)
        return {**found.mean._asdict(), "p": found.p, "hours": found.hours, "verdict": verdict if sure or verdict is None else EVEN}

    def _volatility(self) -> list[Map]:
        moving = self._series("moving")
        qlike = self._blocks.estimates(self._series("qlike"), moving)
        relative = self._blocks.estimates(self._series("relative"), moving, least=0.0)
        count = self._tally.moves
        variance = np.maximum(_share(self._tally.squares, count), 1e-16)
        constant = np.where(count > 0, count * (1.0 + np.log(np.where(count > 0, variance, 1.0))), 0.0).sum(axis=0)
        constant = _share(np.concatenate([[constant[_SCORED].sum()], constant]), moving.sum(axis=0))
        return [
            {"qlike": qlike[row]._asdict(), "constant": constant[row], "relative": relative[row]._asdict()} for row in range(ROWS)
        ]  # fmt: skip

    def _coins(self) -> list[Map]:
        """A row for each coin, by name."""
        tally, known = self._tally, self._table("known")
        hours, total = (known > 0).sum(axis=0), known.sum(axis=0)
        crps, brier = _share(self._table("loss").sum(axis=0), total), _share(tally.total("brier"), tally.total("moved"))
        hits, still = _share(tally.total("right"), tally.total("decided")), tally.total("still")
        references, coverage = self._compared(self._table, len(total)), self._covered(self._table, known, NEAR_COIN)
        return [
            {
                "symbol": symbol,
                "hours": int(hours[column]),
                "ordinary": bool(2 * still[column] < hours[column]),
                "crps": crps[column],
                "references": references[column],
                "coverage": coverage[column],
                "hit_rate": hits[column],
                "brier": brier[column],
            }
            for symbol, column in sorted(zip(tally.symbols, range(len(total)), strict=True))
            if hours[column]
        ]


def against(skill: Estimate, better_by: Float64, count: Float64) -> Map:
    """The skill with its test: better or worse only if interval and test both say so; no verdict without an interval.

    ``better_by``: float64 [T], the losses saved in each hour without a gap; ``count``: float64 [T], of how many forecasts.
    """
    test = equal_losses(better_by, count)
    verdict = _beside(skill, 0.0)
    sure = test.needed is not None and abs(test.t) >= test.needed
    return {"skill": skill._asdict(), "t": test.t, "t_needed": test.needed, "verdict": verdict if sure or verdict is None else EVEN}


def _beside(found: Estimate, chance: float, *, less_is_better: bool = False) -> str | None:
    """On which side of what chance gives the interval lies, if on one."""
    if found.low is None or found.high is None:
        return None
    if found.low <= chance <= found.high:
        return EVEN
    return BETTER if (found.low > chance) != less_is_better else WORSE


def _promised(found: Estimate, share: float, near: float) -> Map:
    """Fit: what came in is what was promised, but for little or for chance; narrow: less; wide: more."""
    verdict = None
    if found.value is not None and found.low is not None and found.high is not None:
        fit = found.low <= share <= found.high or abs(found.value - share) <= near
        verdict = FIT if fit else NARROW if found.value < share else WIDE
    return found._asdict() | {"verdict": verdict}


def _worst(coins: Sequence[Map], best: str | None) -> Map:
    """Of coins that were there for half the time at least: the least skill; and, where they move, the 80 % interval farthest off."""
    there = [coin for coin in coins if 2 * coin["hours"] >= max(coin["hours"] for coin in coins)]
    found: Map = {}
    if compared := [coin for coin in there if best in coin["references"]]:
        coin = min(compared, key=lambda coin: coin["references"][best]["skill"]["value"])
        found["skill"] = {"symbol": coin["symbol"], "reference": best, **coin["references"][best]}
    if ordinary := [coin for coin in there if coin["ordinary"]]:
        coin = max(ordinary, key=lambda coin: abs(coin["coverage"]["80"]["value"] - 0.8))
        found["coverage"] = {"symbol": coin["symbol"], **coin["coverage"]["80"]}
    return found if len(there) > 1 else {}


def _share(part: Any, whole: Any) -> Float64:
    """Part by whole, NaN where there is no whole."""
    return np.asarray(np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) != 0))


def _plain(value: Any) -> Any:
    """Python's own numbers, of six digits; None for what is not a number."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
