"""What the forecasters look at: every feature is a function of a few recursions per coin, advanced one closed hour at a time.

Knows candles as arrays and the season; knows no symbol, no store, no clock and no model. One code path serves both sides: the
training child scans months with it and the daemon absorbs one hour with it, so what a model learned from is, to the last bit,
what it is fed later, given the same start. The source of the formulas is the HARX recipe in docs/forecasting.md: Parkinson
(1980), Rogers and Satchell (1991) and squared returns, winsorised, divided by the season, averaged at several half-lives (Corsi 2009).

Which hours count. An hour is *traded* if its candle is sane and either volume or range is above zero. It is *live* if it was
fetched and is either traded or follows a trade by at most `HALT_HOURS`: a quiet hour of a living coin is a true observation of no
movement, a quiet hour of a halted one is none. Hours that are not live change no recursion. The price chain is *broken* where a
coin returns after more than `HALT_HOURS` or opens at more than e times (or less than 1/e of) its last close, as after a
redenomination or a relisting under an old name: the return over the break is not a return. A coin that returns after more than
`RELISTED_HOURS` is taken for a new one, whatever its name: its recursions begin anew.

An outage is not calm. A coin is *steady* while it trades in practically every hour. An hour without a trade is *silent*, which means
unknown, if the coin is steady or the hour is dark: nearly none of the market's steady coins traded (`cryptod.forecast.outages`). A
silent hour is not live: the recursions carry over it. The first candle after silent or missing hours has the return of all of them: it
counts as one hour's, scaled down to that, and its jump widens that hour's range if it is large.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Final

import numpy as np

from cryptod.errors import CheckpointError
from cryptod.forecast.outages import Attendance, is_steady
from cryptod.forecast.season import Season, hour_of_week
from cryptod.market import CANDLE, CLOSE, HIGH, HOUR, LOW, NOT_FETCHED, OPEN, VOLUME, Bool, Float32, Float64, Int64, Panel, UInt8

SCHEMA: Final = 2
"""Raised whenever a feature, a half-life or their order, or what a model holds, changes: a checkpoint of another schema is refused."""

LEVELS: Final = (1, 2, 4, 12, 24, 48, 168, 672)
RANGES: Final = (2, 12)
SQUARES: Final = (4, 24, 168)
RAWS: Final = (24, 336)
VOLUMES: Final = (1, 6, 24, 336)
TRENDS: Final = (1, 4, 24, 120)
"""Half-lives in hours of the EWMAs of: variance, Rogers-Satchell, squared return, variance before the season, log volume, return."""

HALT_HOURS: Final = 24
LATELY_HOURS: Final = 6
"""A forecast made so many hours after a silent hour still says so."""
RELISTED_HOURS: Final = 168
WARM_HOURS: Final = 168
"""A coin's features mean something, and enter the market's mean, once so many hours were absorbed."""

_WINSOR: Final = 30.0
_WINSOR_HALF_LIFE: Final = 168.0
_WINSOR_FLOOR: Final = 3e-4
"""Variance per hour (1.7 % squared) that is never cut: else a peg that breaks would not be believed for days."""
_WINSOR_CEILING: Final = 1.0 / (4.0 * np.log(2.0))
"""Variance of an hour whose high is e times its low: more is not believed of any hour, least of a listing's first."""
_WINSOR_START: Final = 24
_BREAK: Final = 1.0
_LEAST: Final = 1e-30
_MOST: Final = 1e30
"""A price outside of these is none: neither ratios nor turnover can overflow."""
_TINY: Final = 1e-9
_FOUR_LN2: Final = 4.0 * np.log(2.0)
_PIECE: Final = 12_800
"""Coins times hours that `scan` absorbs at a time."""


def _slices(*groups: tuple[int, ...]) -> list[slice]:
    ends = np.cumsum([0, *map(len, groups)])
    return [slice(int(a), int(b)) for a, b in pairwise(ends)]


_LEVEL, _RANGE, _SQUARE, _RAW, _VOLUME = _slices(LEVELS, RANGES, SQUARES, RAWS, VOLUMES)
_SLOW = (*LEVELS, *RANGES, *SQUARES, *RAWS, *VOLUMES)

OWN: Final = (
    *(f"level_{k}" for k in LEVELS),
    *(f"range_{k}" for k in RANGES),
    *(f"square_{k}" for k in SQUARES),
    *(f"volume_{k}" for k in VOLUMES[:-1]),
    *(f"trend_{k}" for k in TRENDS),
    "shock",
    "raw_24",
)
"""Names of a coin's own features: logs of EWMAs; volume against its slow mean; standardised returns; the last of them; log raw variance."""

COLUMN: Final = {name: i for i, name in enumerate(OWN)}
_MARKET_LEVELS: Final = (2, 12, 48, 168, 672)
MARKET: Final = (
    *(f"level_{k}" for k in _MARKET_LEVELS),
    *(f"volume_{k}" for k in VOLUMES[:-1]),
    *(f"drop_{k}" for k in TRENDS),
    *(f"trend_{k}" for k in TRENDS[:-1]),
)
"""Names of the quantities of which the mean over all coins is taken; a drop is the negative part of a trend."""
_MARKET_COLUMNS: Final = np.array([COLUMN[name.replace("drop", "trend")] for name in MARKET])
_DROPS: Final = slice(MARKET.index(f"drop_{TRENDS[0]}"), MARKET.index(f"drop_{TRENDS[-1]}") + 1)
_MOVES: Final = slice(_DROPS.start, len(MARKET))
_FAR: Final = 4.0
"""The mean of a few coins must not be that of one: no level counts as farther from the coin's slowest, no trend as farther from 0."""


def market_terms(own: Float32) -> Float64:
    """float64 [..., len(MARKET)]: what each coin's own features [..., len(OWN)] add to the market's mean."""
    terms = own[..., _MARKET_COLUMNS].astype(np.float64)
    levels, slowest = terms[..., : len(_MARKET_LEVELS)], terms[..., len(_MARKET_LEVELS) - 1 : len(_MARKET_LEVELS)]
    np.clip(levels, slowest - _FAR, slowest + _FAR, out=levels)
    np.clip(terms[..., _MOVES], -_FAR, _FAR, out=terms[..., _MOVES])
    np.minimum(terms[..., _DROPS], 0.0, out=terms[..., _DROPS])
    return terms


def _decay(half_lives: tuple[int, ...] | tuple[float, ...]) -> Float64:
    """float64 [K, 1]: weight of the newest value in an EWMA of each half-life."""
    return np.asarray(1.0 - 0.5 ** (1.0 / np.array(half_lives, dtype=np.float64)))[:, None]


_SLOW_DECAY: Final = _decay(_SLOW)
_WINSOR_DECAY: Final = _decay((_WINSOR_HALF_LIFE,))
_TREND_DECAY: Final = _decay(TRENDS)
_TREND_SCALE: Final = np.sqrt(np.array(TRENDS, dtype=np.float64))[:, None]


_WIDE: Final = frozenset({"winsor", "slow", "trend"})
"""Recursions [K, n]; the others are [n] or [n, K]."""
_LATER: Final = frozenset({"seen", "gaps", "silent"})


@dataclass(slots=True)
class FeatureState:
    """The recursions of n coins. Plain arrays, so that a checkpoint can hold them.

    ``at``: int64 [n], close time of the last fetched hour absorbed (UTC ms; 0: none yet). ``traded``: int64 [n], close time of the last
    traded one. ``close``: float64 [n], its close. ``count``: float64 [n], live hours absorbed. ``winsor`` [3, n], ``slow`` [19, n],
    ``trend`` [4, n]: float64 EWMAs. ``own``: float32 [n, len(OWN)], features at the last live hour. ``seen``, ``gaps``: float64 [n], hours
    fetched right after a traded one, and the share (EWMA) of them without a trade. ``silent``: int64 [n], close time of
    the last hour that was fetched but not live.
    """

    at: Int64
    traded: Int64
    close: Float64
    count: Float64
    winsor: Float64
    slow: Float64
    trend: Float64
    own: Float32
    seen: Float64
    gaps: Float64
    silent: Int64

    @classmethod
    def empty(cls, coins: int) -> FeatureState:
        return cls(
            at=np.zeros(coins, np.int64),
            traded=np.zeros(coins, np.int64),
            close=np.full(coins, np.nan),
            count=np.zeros(coins),
            winsor=np.zeros((3, coins)),
            slow=np.zeros((len(_SLOW), coins)),
            trend=np.zeros((len(TRENDS), coins)),
            own=np.zeros((coins, len(OWN)), np.float32),
            seen=np.zeros(coins),
            gaps=np.zeros(coins),
            silent=np.zeros(coins, np.int64),
        )

    @property
    def halted(self) -> Bool:
        """bool [n]: more than `HALT_HOURS` without a trade at the last fetched hour."""
        return self.at - self.traded > HALT_HOURS * HOUR.ms

    @property
    def warm(self) -> Bool:
        return self.count >= WARM_HOURS

    @property
    def steady(self) -> Bool:
        """bool [n]: trades in practically every hour, as far as is known."""
        return is_steady(self.seen, self.gaps)

    @property
    def interrupted(self) -> Bool:
        """bool [n]: nothing is known of the last fetched hour but that no trade was seen in it."""
        return np.asarray((self.silent > 0) & (self.silent == self.at))

    @property
    def lately_silent(self) -> Bool:
        """bool [n]: at most `LATELY_HOURS` since the last such hour."""
        return np.asarray((self.silent > 0) & (self.at - self.silent <= LATELY_HOURS * HOUR.ms))

    def coins(self, columns: Int64) -> FeatureState:
        """A copy of some coins' recursions."""
        return FeatureState(
            *(getattr(self, field.name)[(slice(None), columns) if field.name in _WIDE else columns] for field in fields(self))
        )

    @classmethod
    def join(cls, parts: list[FeatureState]) -> FeatureState:
        """The coins of all parts, one after the other (a copy)."""
        return cls(
            *(np.concatenate([getattr(part, field.name) for part in parts], axis=1 if field.name in _WIDE else 0) for field in fields(cls))
        )

    def forget(self, coins: Bool) -> None:
        """Begin the recursions of some coins (bool [n]) anew; time and last price stay."""
        self.count[coins] = self.seen[coins] = self.gaps[coins] = 0.0
        self.silent[coins] = 0
        for recursion in (self.winsor, self.slow, self.trend):
            recursion[:, coins] = 0.0
        self.own[coins] = 0.0

    def arrays(self) -> dict[str, np.ndarray]:
        """A flat dictionary for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray], coins: int) -> FeatureState:
        """The state as it was exported by `arrays` (copied), or `CheckpointError` where a shape, a type or a value is wrong.

        What an earlier version did not keep (`_LATER`) is as in an empty state: no coin is known to be steady.
        """
        empty = cls.empty(coins)
        found = {}
        for field in fields(cls):
            expected = getattr(empty, field.name)
            given = arrays.get(field.name, expected if field.name in _LATER else None)
            if given is None or given.shape != expected.shape or given.dtype != expected.dtype:
                raise CheckpointError(f"feature state: {field.name} is missing or not {expected.dtype} {expected.shape}")
            if field.name == "close":
                if not (np.isnan(given) | ((given >= _LEAST) & (given <= _MOST))).all():
                    raise CheckpointError("feature state: a close is no price")
            elif not np.isfinite(given).all():
                raise CheckpointError(f"feature state: {field.name} is not finite")
            found[field.name] = given.copy()
        if (found["winsor"] < 0).any() or (found["slow"][: _RAW.stop] < 0).any():
            raise CheckpointError("feature state: a variance below zero")
        if (found["seen"] < 0).any() or (found["gaps"] < 0).any() or (found["gaps"] > 1).any():
            raise CheckpointError("feature state: a share of gaps outside of 0 to 1")
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Rows:
    """What was recorded of the hours absorbed, for training. All [T, n] but ``own`` [T, n, len(OWN)].

    ``variance``: winsorised Parkinson variance of the hour over its seasonal factor; ``slow``: EWMA of it before the season; ``log_volume``
    less its season; ``close``: last known; ``live``, ``silent``, ``broken``: see the top of this file; ``count``: live hours so far.
    Rows that are neither live nor silent hold no features; those of a silent hour are the ones before it, without a shock.
    """

    own: Float32
    variance: Float64
    slow: Float64
    log_volume: Float64
    close: Float64
    live: Bool
    silent: Bool
    broken: Bool
    count: Float64

    @classmethod
    def join(cls, parts: list[Rows]) -> Rows:
        """The hours of all parts, one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


def scan(state: FeatureState, panel: Panel, season: Season, *, dark: Bool | None = None, rows: int = 0) -> Iterator[tuple[slice, Rows]]:
    """`absorb` the panel in pieces of at most ``rows`` hours, in bounded memory: (rows of the panel, what was recorded).

    ``dark``: bool [T], hours in which the market's steady coins did not trade; by default none.

    By default as many hours as keep the pieces of any number of coins in the processor's cache: the loops over the hours cost nearly
    the same for one coin and for a hundred, so coins are best scanned together.
    """
    times = panel.open_times
    rows = rows or min(max(_PIECE // max(len(panel.symbols), 1), 64), 512)
    for first in range(0, len(times), rows):
        part = slice(first, min(first + rows, len(times)))
        yield part, absorb(state, panel.values[part], panel.status[part], times[part], season, None if dark is None else dark[part])


def absorb(state: FeatureState, values: Float64, status: UInt8, open_times: Int64, season: Season, dark: Bool | None = None) -> Rows:
    """Advance ``state`` in place by the hours that it does not know yet, and record them.

    ``values``: float64 [T, n, 5]; ``status``: uint8 [T, n]; ``open_times``: int64 [T], consecutive hours; ``dark`` as in `scan`.
    Hours that a coin has absorbed before, and hours not fetched, change nothing: absorbing a panel twice is absorbing it once.
    """
    dark = np.zeros(len(open_times), bool) if dark is None else dark
    candle = _Candles(state, values, status, open_times, dark)
    later = np.flatnonzero(candle.relisted[1:].any(axis=1)) + 1
    if len(later):
        parts = (slice(0, later[0]), slice(later[0], None))
        return Rows.join([absorb(state, values[part], status[part], open_times[part], season, dark[part]) for part in parts])
    state.forget(candle.relisted[0])
    hours = hour_of_week(open_times)
    factor = season.variance[hours][:, None]
    live = candle.live.astype(np.float64)
    count = state.count + np.cumsum(live, axis=0)
    steady = bool(candle.live.all())
    gain = 1.0 / np.maximum(count, 1.0)

    variance = np.stack([candle.parkinson, candle.rogers_satchell, candle.squares], axis=1)
    _winsorise(state.winsor, variance, _gains(_WINSOR_DECAY, gain, live, steady), count)
    seasonal = variance / factor[:, :, None]

    log_volume = np.log(candle.quote_volume + 1.0) - season.volume[hours][:, None]
    slow = np.empty((len(open_times), len(_SLOW), candle.live.shape[1]))
    slow[:, _LEVEL] = seasonal[:, 0:1]
    slow[:, _RANGE] = seasonal[:, 1:2]
    slow[:, _SQUARE] = seasonal[:, 2:3]
    slow[:, _RAW] = variance[:, 0:1]
    slow[:, _VOLUME] = log_volume[:, None]
    before = state.slow[LEVELS.index(24)].copy()
    _average(state.slow, slow, _gains(_SLOW_DECAY, gain, live, steady))

    daily = slow[:, LEVELS.index(24)]
    prior = np.concatenate([before[None], daily[:-1]]) + _TINY
    shock = np.clip(candle.returns / np.sqrt(factor) / np.sqrt(prior), -8.0, 8.0)
    shock[count <= 1.0] = 0.0
    trend = np.repeat(shock[:, None], len(TRENDS), axis=1)
    _average(state.trend, trend, _TREND_DECAY * live[:, None] if not steady else np.broadcast_to(_TREND_DECAY, trend.shape))

    features = np.empty((len(open_times), len(OWN), candle.live.shape[1]))
    logs = slice(0, _SQUARE.stop)
    np.log(slow[:, logs] + _TINY, out=features[:, logs])
    end = _SQUARE.stop + len(VOLUMES) - 1
    np.clip(slow[:, _VOLUME][:, :-1] - slow[:, -1:], -4.0, 4.0, out=features[:, _SQUARE.stop : end])
    np.multiply(trend, _TREND_SCALE, out=features[:, end : end + len(TRENDS)])
    features[:, COLUMN["shock"]] = shock
    np.log(slow[:, _RAW.start] + _TINY, out=features[:, COLUMN["raw_24"]])
    own = np.ascontiguousarray(features.transpose(0, 2, 1), dtype=np.float32)

    state.count = count[-1].copy()
    newest = len(open_times) - 1 - np.argmax(candle.live[::-1], axis=0)
    moved = candle.live.any(axis=0)
    state.own[moved] = own[newest[moved], np.flatnonzero(moved)]
    candle.settle(state)
    return Rows(own, seasonal[:, 0], slow[:, _RAW.stop - 1], log_volume, candle.close, candle.live, candle.silent, candle.broken, count)


class _Candles:
    """The hours of `absorb` after cleaning: what was traded, what is live, and the hour's own measures. Arrays [T, n]."""

    def __init__(self, state: FeatureState, values: Float64, status: UInt8, open_times: Int64, dark: Bool) -> None:
        opened, high, low, close, volume = (np.ascontiguousarray(values[:, :, column]) for column in (OPEN, HIGH, LOW, CLOSE, VOLUME))
        new = open_times[:, None] >= state.at
        is_candle = (status == CANDLE) & new
        low, high = np.minimum(np.minimum(opened, close), low), np.maximum(np.maximum(opened, close), high)
        sane = is_candle & (low >= _LEAST) & (high <= _MOST)  # false for NaN, which minimum and maximum pass on
        self.fetched = (status != NOT_FETCHED) & new & (sane | ~is_candle)
        opened, close = np.where(sane, opened, 1.0), np.where(sane, close, 1.0)
        high, low = np.where(sane, high, 1.0), np.where(sane, low, 1.0)
        volume = np.where(sane & (volume > 0), np.minimum(volume, _MOST), 0.0)
        traded = sane & ((volume > 0) | (high > low))

        # The last trade at or before each hour, and before it: time and price.
        row = np.where(traded, np.arange(len(open_times))[:, None], -1)
        last = np.maximum.accumulate(row, axis=0)
        coin = np.arange(values.shape[1])
        closes = open_times + HOUR.ms
        self.close = np.where(last >= 0, close[last, coin], state.close)
        traded_at = np.where(last >= 0, closes[last], state.traded)
        close_before = np.concatenate([state.close[None], self.close[:-1]])
        traded_before = np.concatenate([state.traded[None], traded_at[:-1]])

        halt = HALT_HOURS * HOUR.ms
        opens = open_times[:, None]
        known = np.isfinite(close_before)
        away = opens - traded_before
        self.relisted = traded & known & (away > RELISTED_HOURS * HOUR.ms)
        anew = self.relisted[0]
        seen, gaps = np.where(anew, 0.0, state.seen), np.where(anew, 0.0, state.gaps)
        self.attendance = Attendance.of(seen, gaps, traded, self.fetched & (traded_before == opens))
        quiet = self.fetched & ~traded & (closes[:, None] - traded_at <= halt)
        self.silent = quiet & (self.attendance.steady | dark[:, None])
        self.live = traded | (quiet & ~self.silent)
        chain = np.where(known, close_before, opened)
        jump = np.log(opened / chain)
        self.broken = traded & known & ((away > halt) | (np.abs(jump) > _BREAK))
        follows = (opens == state.at) & ~state.interrupted & ~state.halted
        follows[1:] |= self.live[:-1]
        unknown = np.where(traded & known & ~follows, away / HOUR.ms, 0.0)  # hours since the last trade
        self.returns = np.where(traded, np.log(close / np.where(self.broken, opened, chain)), 0.0)
        self.returns /= np.sqrt(1.0 + np.where(self.broken, 0.0, unknown))
        log_high, log_low = np.log(high / close), np.log(low / close)
        log_open_high, log_open_low = np.log(high / opened), np.log(low / opened)
        gap = np.where((unknown > 0) & ~self.relisted & (np.abs(jump) <= _BREAK), jump**2, 0.0)
        self.parkinson = _spread(np.where(traded, (log_high - log_low) ** 2 / _FOUR_LN2, 0.0), gap, unknown)
        inner = np.maximum(log_high * log_open_high + log_low * log_open_low, 0.0)
        self.rogers_satchell = _spread(np.where(traded, inner, 0.0), gap, unknown)
        self.squares = self.returns**2
        self.quote_volume = volume * close
        self._closes = closes
        self._traded_at = traded_at

    def settle(self, state: FeatureState) -> None:
        """Carry time and price over into the state."""
        state.close = self.close[-1].copy()
        state.traded = self._traded_at[-1].copy()
        rows = np.where(self.fetched, np.arange(len(self._closes))[:, None], -1).max(axis=0)
        state.at = np.where(rows >= 0, self._closes[rows], state.at)
        rows = np.where(self.fetched & ~self.live & (self._traded_at > 0), np.arange(len(self._closes))[:, None], -1).max(axis=0)
        state.silent = np.where(rows >= 0, self._closes[rows], state.silent)
        state.seen, state.gaps = self.attendance.seen, self.attendance.gaps


def _spread(variance: Float64, jump: Float64, hours: Float64) -> Float64:
    """An hour's variance, or the mean of it and of the squared jump over the unknown ``hours`` before it, where that is more."""
    return np.maximum(variance, (variance + jump) / (1.0 + hours))


def _gains(decay: Float64, gain: Float64, live: Float64, steady: bool) -> Float64:
    """float64 [T, K, n]: an EWMA begins as the plain mean of its first values; hours that are not live weigh nothing."""
    gains = np.maximum(decay, gain[:, None])
    return gains if steady else gains * live[:, None]


def _average(state: Float64, values: Float64, gains: Float64) -> None:
    """EWMAs of ``values`` [T, K, n], in place of the values; ``state`` [K, n] goes along."""
    step = np.empty_like(state)
    for row, gain in zip(values, gains, strict=True):
        np.subtract(row, state, out=step)
        np.multiply(step, gain, out=step)
        np.add(state, step, out=state)
        row[...] = state


def _winsorise(state: Float64, values: Float64, gains: Float64, count: Float64) -> None:
    """Cut each of ``values`` [T, 3, n], in place, at `_WINSOR` times the EWMA [3, n] of the values cut so far."""
    step, cap = np.empty_like(state), np.empty_like(state)
    lowest: Float64 = np.asarray(count.min(axis=1))
    for t, (row, gain) in enumerate(zip(values, gains, strict=True)):
        np.multiply(state, _WINSOR, out=cap)
        np.clip(cap, _WINSOR_FLOOR, _WINSOR_CEILING, out=cap)
        if lowest[t] <= _WINSOR_START:
            cap[:, count[t] <= _WINSOR_START] = _WINSOR_CEILING
        np.minimum(row, cap, out=row)
        np.subtract(row, state, out=step)
        np.multiply(step, gain, out=step)
        np.add(state, step, out=state)
