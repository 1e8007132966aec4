"""Forecasts made up together with what became of them: of how wide they are, how they lean and what they leak, the truth is known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from cryptod.forecast.judgement import card
from cryptod.forecast.scores import pinball
from cryptod.forecast.tally import Matured, Tally
from cryptod.market import HOUR, MAX_HORIZON, QUANTILE_LEVELS, SERVED, Float64
from cryptod.store.ledger import Issue, Score, round_issue

START = 1_685_577_600_000
"""2023-06-01 00:00 UTC."""
SIGMA = 0.006
NORMAL = np.array([NormalDist().inv_cdf(level) for level in QUANTILE_LEVELS])
ROOTS = np.sqrt(np.arange(1, MAX_HORIZON + 1))


@dataclass
class World:
    """Coins on random walks with a market in common, and forecasts of them, hour after hour.

    ``market``: its share of a coin's variance. ``width``: of the intervals, 1 is right. ``leak``: how far P(up) leans to what is coming, in
    probability; ``hunch``: the score's correlation with it. ``references``: name -> width of its intervals. ``lean``: added to every P(up).
    """

    hours: int = 240
    coins: int = 12
    market: float = 0.5
    width: float = 1.0
    leak: float = 0.0
    hunch: float = 0.0
    lean: float = 0.0
    references: dict[str, float] | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)
        total = self.hours + MAX_HORIZON + 1
        common = self.random.normal(size=(total, 1))
        own = self.random.normal(size=(total, self.coins))
        self.steps = SIGMA * (np.sqrt(self.market) * common + np.sqrt(1 - self.market) * own)
        self.symbols = tuple(f"C{i}/USDT" for i in range(self.coins))

    def outcomes(self, hour: int) -> Float64:
        """float64 [N, 24]: cumulative log returns of the hours after ``hour``."""
        return np.cumsum(self.steps[hour + 1 : hour + 1 + MAX_HORIZON], axis=0).T

    def quantiles(self, width: float) -> Any:
        scale = width * SIGMA * ROOTS
        return round_issue(np.broadcast_to(scale[:, None] * NORMAL, (self.coins, MAX_HORIZON, len(NORMAL))))

    def said(self) -> dict[str, float]:
        return {SERVED: self.width, **({"plain": 1.3} if self.references is None else self.references)}

    def issue(self, hour: int, **changes: Any) -> Issue:
        """As it would have been issued, at a cutoff of `START` + ``hour``."""
        outcomes = self.outcomes(hour)
        noise = self.random.normal(0, 0.01, outcomes.shape)
        score = self.hunch * outcomes[:, -1] / (SIGMA * ROOTS[-1]) + np.sqrt(1 - self.hunch**2) * self.random.normal(size=self.coins)
        made: dict[str, Any] = {
            "issued": START + hour * HOUR.ms + 5_000,
            "cutoff": START + hour * HOUR.ms,
            "symbols": self.symbols,
            "models": ("model",) * self.coins,
            "close": np.full(self.coins, 100.0),
            "quantiles": self.quantiles(self.width),
            "p_up": round_issue(0.5 + self.lean + noise + self.leak * np.sign(outcomes)),
            "volatility": round_issue(np.broadcast_to(self.width * SIGMA * ROOTS, outcomes.shape)),
            "score": round_issue(score),
        }
        return Issue(**made | changes)

    def score(self, issue: Issue, seq: int = 0, **changes: Any) -> Score:
        outcomes = self.outcomes((issue.cutoff - START) // HOUR.ms)
        made: dict[str, Any] = {
            "cutoff": issue.cutoff,
            "seq": seq,
            "symbols": issue.symbols,
            "forecasters": tuple(self.said()),
            "loss": np.stack([pinball(self.quantiles(width), outcomes).mean(axis=-1) for width in self.said().values()]).astype(np.float32),
            "level": (issue.quantiles < outcomes[:, :, None]).sum(axis=-1).astype(np.uint8),
            "outcome": outcomes.astype(np.float32),
        }
        return Score(**made | changes)

    def matured(self) -> Iterator[Matured]:
        for hour in range(self.hours):
            issue = self.issue(hour)
            score = self.score(issue)
            yield Matured(
                symbols=issue.symbols,
                quantiles=issue.quantiles,
                p_up=issue.p_up,
                volatility=issue.volatility,
                score=issue.score,
                outcomes=self.outcomes(hour),
                losses=dict(zip(score.forecasters, score.loss, strict=True)),
                counted=np.ones((self.coins, MAX_HORIZON), bool),
                still=np.zeros(self.coins, bool),
            )

    def tally(self) -> Tally:
        found = Tally(self.hours, SERVED)
        for hour, matured in enumerate(self.matured()):
            found.add(hour, matured)
        return found


def scorecard(symbol: str | None = None, **world: Any) -> dict[str, Any]:
    """The reply to `scores` in such a world, of all its coins or of one that is alone in it."""
    made = World(**world)
    figures = card(made.tally())
    first, last = figures.pop("first_hour"), figures.pop("last_hour")
    return {
        "symbol": symbol, "window_hours": 720, "from": START + first * HOUR.ms, "to": START + last * HOUR.ms, "again": 0, "after": 0,
        "unknown": 0, "waiting": 24, "first_due": None, **figures,
    }  # fmt: skip


NO_SCORES: dict[str, Any] = {
    "symbol": None, "window_hours": 720, "from": None, "to": None, "forecasts": 0, "again": 0, "after": 0, "unknown": 0, "waiting": 3,
    "first_due": None,
}  # fmt: skip
"""The reply to `scores` while there is nothing to judge."""
