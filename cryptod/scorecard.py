"""The scorecard: an order in, how the forecasts in the ledger have done out. Called in the score child.

Joins each issue with its score, hour by hour, counts it (`cryptod.forecast.tally`) and lets the sums be judged
(`cryptod.forecast.judgement`). Reads the ledger, writes nothing, and holds one hour's forecasts at a time.

What counts is what could be known when it counted: of a coin's forecasts of one hour the first, whatever was issued again after
a new model was promoted or the cache was cleared; and of that, the horizons that ended after it was issued.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np

from cryptod.forecast import judgement
from cryptod.forecast.tally import Matured, Tally
from cryptod.market import HOUR, MAX_HORIZON, SERVED
from cryptod.store.environment import open_environment
from cryptod.store.ledger import DATABASES, Issue, Ledger, Score
from cryptod.worker.messages import Progress, Report, Scored, ScoreOrder

STILL: Final = frozenset(("pegged", "unpegged", "halted"))
"""Flags of a coin that does not move of itself."""
_DAY: Final = 24 * HOUR.ms
_END_OF_HORIZONS: Final = HOUR.ms * np.arange(1, MAX_HORIZON + 1)


def run(order: ScoreOrder, report: Callable[[Report], None]) -> None:
    """Carry out the order: a beat for each day that was read, then `Scored`. Raises `StoreError` if the ledger cannot be read."""
    began = time.monotonic()
    found = scorecard(order, report)
    report(
        Scored(
            job=order.job,
            forecasts=found["forecasts"],
            issued=found["forecasts"] > 0 or found["first_due"] is not None,
            card=msgpack.packb(found),
            seconds=time.monotonic() - began,
            peak_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )
    )


def scorecard(order: ScoreOrder, report: Callable[[Report], None]) -> dict[str, Any]:
    """``{symbol (nil: all coins), window_hours, from, to, forecasts, again, after, unknown, waiting, first_due}`` and the figures of
    `judgement.card`.

    ``from`` and ``to``: first and last cutoff of a forecast that counts, nil while there is none; what was left out: forecasts
    of a coin and hour issued ``again``, outcomes known when they were issued (``after``), outcomes that never became known
    (``unknown``). ``waiting``: issues that are not scored yet. ``first_due``: when the first forecast will be scored, if nothing
    counts yet; nil if nothing was issued either.
    """
    last = HOUR.floor(order.now) - MAX_HORIZON * HOUR.ms
    first = last - (order.hours - 1) * HOUR.ms
    symbols = [order.symbol] if order.symbol else None
    count = _Count(Tally(order.hours, SERVED), first)
    for day in range(first, last + 1, _DAY):
        # Opened for each day anew: pages of the map that were read would count as this process' memory all the while.
        with open_environment(Path(order.ledger), databases=DATABASES, writer=False) as environment:
            for issue, score in Ledger(environment).scored(day, min(day + _DAY, last + 1), symbols):
                count.add(issue, score)
        report(Progress(job=order.job, stage="score", done=(day - first) // _DAY + 1, total=-(-order.hours // 24)))
    figures = judgement.card(count.tally)
    with open_environment(Path(order.ledger), databases=DATABASES, writer=False) as environment:
        ledger = Ledger(environment)
        waiting = len(ledger.unscored(first, order.now + 1))
        earliest = None if figures else next(ledger.read(first, order.now + 1, symbols), None)
    begin = {"from": first + figures.pop("first_hour") * HOUR.ms, "to": first + figures.pop("last_hour") * HOUR.ms} if figures else {}
    return {
        "symbol": order.symbol or None,
        "window_hours": order.hours,
        **({"from": None, "to": None, "forecasts": 0} | begin),
        "again": count.again,
        "after": count.after,
        "unknown": count.unknown,
        "waiting": waiting,
        "first_due": earliest.cutoff + MAX_HORIZON * HOUR.ms if earliest else None,
        **figures,
    }


@dataclass
class _Count:
    """What goes into the tally, and what does not."""

    tally: Tally
    first: int
    again: int = 0
    after: int = 0
    unknown: int = 0

    def __post_init__(self) -> None:
        self._cutoff, self._seen = -1, set[str]()

    def add(self, issue: Issue, score: Score) -> None:
        """Count an issue; they come in the order in which they were made."""
        if issue.cutoff != self._cutoff:
            self._cutoff, self._seen = issue.cutoff, set()
        if again := self._seen.intersection(issue.symbols):
            self.again += len(again)
            fresh = set(issue.symbols) - again
            issue, score = issue.coins(fresh), score.coins(fresh)
        self._seen.update(issue.symbols)
        if not issue.symbols:
            return
        shape = score.outcome.shape
        counted = np.broadcast_to(issue.cutoff + _END_OF_HORIZONS > issue.issued, shape)
        known = np.isfinite(score.outcome)
        self.after += int((known & ~counted).sum())
        self.unknown += int((~known).sum())
        self.tally.add(
            (issue.cutoff - self.first) // HOUR.ms,
            Matured(
                symbols=issue.symbols,
                quantiles=issue.quantiles,
                p_up=issue.p_up,
                volatility=issue.volatility,
                score=issue.score,
                outcomes=score.outcome.astype(np.float64),
                losses=dict(zip(score.forecasters, score.loss, strict=True)),
                counted=counted,
                still=np.array([not STILL.isdisjoint(flags) for flags in issue.flags]),
            ),
        )
