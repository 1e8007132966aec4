"""Who serves: a challenger or the champion, the model or a reference, batch by batch and coin by coin.

Knows losses and coverage on unseen hours; no model, no store, no torch. Every verdict carries the figures it was
reached with. The losses of an hour are averaged over coins before they are tested, with a Newey-West variance (Diebold
and Mariano 1995), because coins move together and 24 h forecasts overlap. Never one-sided by design: within the noise
the newer model wins, for it has seen what happened since.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from cryptod.forecast.baselines import REFERENCES
from cryptod.forecast.model import SOURCES
from cryptod.forecast.scores import INTERVALS
from cryptod.market import Bool, UInt8
from cryptod.training.evaluation import Evaluation, compare

CHAMPION: Final = ((0.002, 2.0), (0.01, 1.0))
"""A challenger is refused if its loss is above the champion's by such a part with such a t value: the better it is
measured, the less it takes.
"""
REFERENCE: Final = ((0.003, 3.0), (0.02, 2.0))
"""The same for a reference that takes the batch from the model: it takes more, for the model won in every month that it was tried on."""
COIN: Final = ((0.02, 3.5), (0.1, 2.5))
"""The same for one coin: among many coins and references some look better by luck."""
COIN_HOURS: Final = 120
"""A coin that has fewer unseen hours is not judged by itself: days say nothing, however clearly they say it."""
BAND: Final = 0.10
"""How far the pooled 90 % coverage may be off."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """``promote``: the challenger becomes current. ``source``: uint8 [n], who serves each coin then (places in `SOURCES`)."""

    promote: bool
    reason: str
    source: UInt8
    figures: dict[str, float]


def judge(challenger: Evaluation, champion: Evaluation | None, pool: Bool) -> Verdict:
    """Weigh a challenger against the champion (None: nobody serves yet) and the references, over the coins in ``pool`` (bool [n]).

    Coins outside the pool (pegged) are served by their own empirical quantiles whatever comes out.
    """
    source = np.where(pool, 0, SOURCES.index("random_walk")).astype(np.uint8)
    figures = _figures(challenger, pool)
    losses = challenger.losses["model"]
    known = np.isfinite(challenger.losses["random_walk"][:, pool])
    if not np.isfinite(losses[:, pool][known]).all():
        return Verdict(False, "its forecasts are not finite", source, figures)
    reasons = []
    if champion is not None and np.isfinite(champion.losses["model"][:, pool]).any():
        worse, t = compare(losses, champion.losses["model"], pool)
        figures |= {"skill_champion": -worse, "t_champion": -t}
        if _is_worse(worse, t, CHAMPION):
            return Verdict(False, f"worse than the champion by {worse:.2%} (t {t:.1f})", source, figures)
        off, champion_off = _off(challenger, pool), _off(champion, pool & np.isfinite(champion.losses["model"]).any(axis=0))
        if off > BAND and off > champion_off:
            return Verdict(False, f"90 % intervals are off by {off:.1%}, the champion's by {champion_off:.1%}", source, figures)
        reasons.append(f"champion {-worse:+.2%} (t {-t:.1f})")
    best = min(REFERENCES, key=lambda name: figures.get(f"crps_{name}", 0.0))
    worse, t = compare(losses, challenger.losses[best], pool)
    reasons.append(f"best reference {best} {-worse:+.2%} (t {-t:.1f})")
    if _is_worse(worse, t, REFERENCE):
        source[pool] = SOURCES.index(best)
        reasons.append("it serves instead of the model")
    else:
        taken = [coin for coin in np.flatnonzero(pool) if _loses(challenger, best, int(coin))]
        source[taken] = SOURCES.index(best)
        if taken:
            reasons.append(f"it serves {len(taken)} of {int(pool.sum())} coins")
    return Verdict(True, "; ".join(reasons), source, figures)


def _is_worse(worse: float, t: float, rules: tuple[tuple[float, float], ...]) -> bool:
    return any(worse >= part and t >= evidence for part, evidence in rules)


def _loses(evaluation: Evaluation, best: str, coin: int) -> bool:
    """The coin's own losses speak clearly against the model."""
    only = np.zeros(evaluation.losses["model"].shape[1], bool)
    only[coin] = True
    if np.isfinite(evaluation.losses["model"][:, coin]).sum() < COIN_HOURS:
        return False
    worse, t = compare(evaluation.losses["model"], evaluation.losses[best], only)
    return _is_worse(worse, t, COIN)


def _off(evaluation: Evaluation, pool: Bool) -> float:
    return abs(_held(evaluation, 90, pool) - 0.9)


def _held(evaluation: Evaluation, percent: int, pool: Bool) -> float:
    """Share of the intervals that held, over the coins that have outcomes; the nominal one where none has."""
    shares = evaluation.coverage[percent][pool]
    known = shares[np.isfinite(shares)]
    return float(known.mean()) if len(known) else percent / 100.0


def _figures(evaluation: Evaluation, pool: Bool) -> dict[str, float]:
    """Mean losses (x 10^4), skill and t value against each reference, coverage in percent."""
    figures: dict[str, float] = {}
    if not pool.any():
        return figures
    losses = evaluation.losses
    for name, values in losses.items():
        known = values[:, pool][np.isfinite(values[:, pool])]
        figures[f"crps_{name}"] = float(known.mean()) * 1e4 if len(known) else 0.0
    for name in REFERENCES:
        worse, t = compare(losses["model"], losses[name], pool)
        figures |= {f"skill_{name}": -worse, f"t_{name}": -t}
    for percent in INTERVALS:
        figures[f"coverage_{percent}"] = 100.0 * _held(evaluation, percent, pool)
    return figures
