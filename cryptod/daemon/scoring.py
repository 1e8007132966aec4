"""What became of the forecasts: outcomes as they mature, fed to what learns from them and kept as scores.

Knows the ledger, the candle store and `Learning`. The outcome of horizon h is known h hours after the cutoff, so at
each new cutoff one horizon of each of the last 24 cutoffs matures; that is what is learned from, once. An
issue is scored as a whole when its last horizon has matured. Everything is worked out from what is on disk, so nothing
has to be remembered across a restart but what was learned and how far it has come. Runs in the disk thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np

from cryptod.daemon.coverage import LiveCoverage
from cryptod.daemon.driftwatch import DriftWatch
from cryptod.daemon.records import Records
from cryptod.forecast.learning import Learning, Spoken, mature
from cryptod.forecast.outages import trades, unknown_hours
from cryptod.forecast.predictor import combined
from cryptod.forecast.scores import pinball
from cryptod.logs import get_logger
from cryptod.market import CLOSE, HOUR, MAX_HORIZON, NOT_FETCHED, SERVED, Float32, Float64, Panel
from cryptod.store.ledger import Ledger, Score

CATCH_UP_HOURS: Final = 72
"""After a longer pause learning goes on from the latest outcomes: older ones say little about today."""
LATE_HOURS: Final = 6
"""How long an issue that has matured waits for a coin's late candles, before what is missing counts as never known."""
REMEMBERED: Final = 2_500
"""Forecasts that are kept in memory for the day in which they mature, 5 kB each: a day's of 100 coins; others are read again each hour."""
LOOK_BACK_HOURS: Final = 14 * 24
"""Hours by which it is judged whether an hour without a trade is a calm one."""
_RECORD: Final = "learning"
_LEARNED: Final = (_RECORD, "drift", "coverage")
"""Names of the records that hold what was learned from outcomes."""
_EARLIER: Final = "learned_earlier"
KEPT: Final = 4
"""Earlier states of them that are remembered."""

log = get_logger("scoring")


class Candles(Protocol):
    """What is needed of the candle store."""

    def __call__(self, symbols: tuple[str, ...], start: int, cutoff: int) -> Panel: ...


def last_closes(panel: Panel) -> Float64:
    """float64 [T, N]: close known after each hour, through hours without a trade; NaN where the hour was not fetched, or none is known."""
    closes = panel.values[:, :, CLOSE].copy()
    row = np.where(np.isfinite(closes), np.arange(len(closes))[:, None], -1)
    last = np.maximum.accumulate(row, axis=0)
    filled = np.where(last >= 0, np.take_along_axis(closes, np.maximum(last, 0), axis=0), np.nan)
    return np.where(panel.status == NOT_FETCHED, np.nan, filled)


def known_closes(candles: Callable[[tuple[str, ...], int, int], Panel], symbols: tuple[str, ...], start: int, cutoff: int) -> Float64:
    """`last_closes` of these hours; NaN also where a coin, or its market, did not trade though it always does: nobody knows the price."""
    panel = candles(symbols, start, cutoff)
    closes = last_closes(panel)
    if (np.isfinite(closes) & ~trades(panel.values, panel.status)).any():
        longer = candles(symbols, start - LOOK_BACK_HOURS * HOUR.ms, cutoff)
        closes[unknown_hours(longer)[len(longer.values) - len(closes) :]] = np.nan
    return closes


class Scoring:
    """Feeds ``learning`` and writes the ledger's scores. ``candles(symbols, start, cutoff)`` reads a panel."""

    def __init__(self, ledger: Ledger, records: Records, candles: Candles) -> None:
        self._ledger, self._records, self._candles = ledger, records, candles
        self.drift, self.coverage = DriftWatch(records), LiveCoverage(records)
        self.renewed: dict[str, int] = {}
        """Symbols behind which another coin stands since a close time (UTC ms): what was issued before has no outcome."""
        self._recent: dict[tuple[int, int], Spoken] = {}
        self._restore()

    def _restore(self) -> None:
        """Take what was learned, and how far, from the records."""
        records = self._records
        saved: dict[str, Any] = records.get(_RECORD) or {}
        self.learning, self._learned_to = Learning(), int(saved.get("to", 0))
        if saved:
            self.learning, errors = Learning.restore(_unpacked(saved["state"]))
            for error in errors:
                log.warning("a part of what was learned could not be read; it is learned anew", error=error.message)

    @property
    def learned_to(self) -> int:
        return self._learned_to

    def set_aside(self, latest: int) -> None:
        """Forget what was learned of a time later than ``latest``, which has not come: go back to what was known before."""
        self._recent = {key: one for key, one in self._recent.items() if key[0] <= latest}
        if self._learned_to <= latest:
            return
        earlier = [one for one in self._earlier() if one["to"] <= latest]
        before: dict[str, Any] = earlier[-1] if earlier else {"to": 0, "of": {}}
        for name in _LEARNED:
            self._records.set(name, before["of"].get(name))
        self._records.set(_EARLIER, earlier)
        self.drift, self.coverage = DriftWatch(self._records), LiveCoverage(self._records)
        self._restore()
        log.warning("what was learned of a time that has not come is forgotten", learned_to=self._learned_to)

    def _earlier(self) -> list[dict[str, Any]]:
        return list(self._records.get(_EARLIER) or ())

    def _keep_earlier(self, cutoff: int) -> None:
        """Remember what is known, once a day and before each leap in time: a clock that is ahead is not the last word."""
        earlier = self._earlier()
        leap = cutoff - self._learned_to > HOUR.ms
        if self._learned_to and (leap or not earlier or self._learned_to - earlier[-1]["to"] >= 24 * HOUR.ms):
            of = {name: self._records.get(name) for name in _LEARNED}
            self._records.set(_EARLIER, [*earlier, {"to": self._learned_to, "of": of}][-KEPT:])

    def mature(self, cutoff: int) -> None:
        """Take in the outcomes that are known at ``cutoff`` (UTC ms) and were not known before."""
        first = max(self._learned_to + HOUR.ms, cutoff - CATCH_UP_HOURS * HOUR.ms)
        if first <= cutoff:
            self._keep_earlier(cutoff)
            self._learn(first, cutoff)
        self._score(cutoff)

    def _learn(self, first: int, cutoff: int) -> None:
        """Learn hour by hour; each forecast counts once at each horizon: the first that was issued for its cutoff."""
        keys = self._ledger.keys(first - MAX_HORIZON * HOUR.ms, cutoff)
        self._recent = {key: self._recent[key] for key in keys if key in self._recent}
        at: dict[int, list[tuple[int, int]]] = {}
        named: dict[int, set[str]] = {}
        for key in keys:
            coins, before = self._coins(key), named.setdefault(key[0], set())
            if not before.issuperset(coins):  # an issue after a training, say, names nobody anew: it need not be read
                before.update(coins)
                at.setdefault(key[0], []).append(key)
        symbols = tuple(sorted(set[str]().union(*named.values())))
        if symbols:
            closes = known_closes(self._candles, symbols, first - (MAX_HORIZON + 1) * HOUR.ms, cutoff)
            for now in range(first, cutoff + 1, HOUR.ms):
                close = closes[len(closes) - 1 - (cutoff - now) // HOUR.ms]
                matured = mature(symbols, close, [self._spoken(at.get(now - h * HOUR.ms, ())) for h in range(1, MAX_HORIZON + 1)])
                self.learning.learn(matured)
                self.drift.mature(now, matured.issued, matured.outcomes)
                self.coverage.mature(symbols, matured.issued, matured.outcomes)
        self._learned_to = cutoff
        self.drift.keep()
        self.coverage.keep()
        self._records.set(_RECORD, {"to": cutoff, "state": _packed(self.learning.export())})

    def _spoken(self, keys: Iterable[tuple[int, int]]) -> Iterator[Spoken]:
        """The issues, one by one; they are kept until they have matured as far as memory allows."""
        for key in keys:
            if (one := self._one(key)) is not None:
                room = REMEMBERED - sum(len(other.symbols) for other in self._recent.values())
                if key not in self._recent and len(one.symbols) <= room:
                    self._recent[key] = one
                yield one

    def _coins(self, key: tuple[int, int]) -> tuple[str, ...]:
        """Whom an issue is about."""
        known = self._recent.get(key)
        return self._ledger.coins(*key) if known is None else known.symbols

    def _one(self, key: tuple[int, int]) -> Spoken | None:
        """An issue out of memory, or else out of the ledger; None where it cannot be read."""
        if (known := self._recent.get(key)) is not None:
            return replace(known, close=self._of_this_coin(key[0], known.symbols, known.close))
        issue = self._ledger.get(*key)
        if issue is None:
            return None
        flags = issue.flags or ((),) * len(issue.symbols)
        close = self._of_this_coin(key[0], issue.symbols, issue.close)
        return Spoken(issue.symbols, close, issue.quantiles, self._ledger.references(*key), combined(flags))

    def _of_this_coin(self, cutoff: int, symbols: tuple[str, ...], close: Float64) -> Float64:
        """The closes at a cutoff, NaN for a coin that another one has replaced since: later prices are no outcomes of it."""
        gone = [symbol in self.renewed and cutoff < self.renewed[symbol] for symbol in symbols] if self.renewed else []
        return np.where(gone, np.nan, close) if any(gone) else close

    def _score(self, cutoff: int) -> None:
        """Score the issues whose last horizon has matured, once; one that lacks outcomes is looked at again while they may still come."""
        end = cutoff - MAX_HORIZON * HOUR.ms + 1
        for key in self._ledger.unscored(0, end):
            issue = self._one(key)
            if issue is not None:
                outcomes = self._outcomes(key[0], issue)
                if key[0] <= end - LATE_HOURS * HOUR.ms or np.isfinite(outcomes).all():
                    self._ledger.put_score(self._scored(key, issue, outcomes))

    def _outcomes(self, cutoff: int, issue: Spoken) -> Float64:
        """float64 [N, 24]: cumulative log returns since the issue, NaN where they are not known."""
        closes = known_closes(self._candles, issue.symbols, cutoff - HOUR.ms, cutoff + MAX_HORIZON * HOUR.ms)[1:]
        return np.asarray(np.log(closes.T / issue.close[:, None]))

    def _scored(self, key: tuple[int, int], issue: Spoken, outcomes: Float64) -> Score:
        said = (issue.issued, *issue.said.values())
        below = (issue.issued < outcomes[:, :, None]).sum(axis=-1)
        return Score(
            cutoff=key[0],
            seq=key[1],
            symbols=issue.symbols,
            forecasters=(SERVED, *issue.said),
            loss=np.stack([mean_loss(quantiles, outcomes) for quantiles in said]).astype(np.float32),
            level=np.where(np.isfinite(outcomes), below, 255).astype(np.uint8),
            outcome=outcomes.astype(np.float32),
        )


def _packed(state: Any) -> Any:
    """The state with its arrays as (type, shape, bytes), which a record can hold."""
    if isinstance(state, Mapping):
        return {name: _packed(part) for name, part in state.items()}
    return [state.dtype.str, list(state.shape), state.tobytes()] if isinstance(state, np.ndarray) else state


def _unpacked(state: Any) -> Any:
    """The state again; what is no array of numbers stays as it is, and whoever is given it complains."""
    if isinstance(state, Mapping):
        return {name: _unpacked(part) for name, part in state.items()}
    if isinstance(state, list) and len(state) == 3 and isinstance(state[2], bytes):
        try:
            return np.frombuffer(state[2], state[0]).reshape(state[1]).copy()
        except (ValueError, TypeError):
            return None
    return state


def mean_loss(quantiles: Float32, outcomes: Float64) -> Float64:
    """float64 [N, H]: pinball loss, mean over the levels."""
    return np.asarray(pinball(quantiles, outcomes).mean(axis=-1))
