"""A batch's training window: which coins can be trained, features and outcomes of every hour that can be learned from.

Knows candles, features and seasons; no store, no torch, no model. Memory is what it is careful with: float32, one batch at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cryptod.forecast import network
from cryptod.forecast.features import MARKET, OWN, RELISTED_HOURS, WARM_HOURS, FeatureState, market_terms, scan
from cryptod.forecast.outages import trades
from cryptod.forecast.season import Season, hour_of_week
from cryptod.market import CANDLE, CLOSE, HIGH, HOUR, LOW, MAX_HORIZON, NOT_FETCHED, VOLUME, Bool, Float32, Float64, Int64, Panel

Int32 = npt.NDArray[np.int32]

MIN_DAYS: Final = 45
_SILENT_DAYS: Final = RELISTED_HOURS // 24
FLOOR: Final = 0.01
"""Part of a coin's mean variance that is added to what the regressions explain: else an hour without trades is an
outlier of their logarithm.
"""
_PEG_MOVE: Final = 1.64 * 0.001
_TICK_MOVE: Final = 1.64 * 0.003
_TICK_SHARE: Final = 0.05
_GAPPY: Final = 0.2


def own_history(panel: Panel) -> Panel:
    """The panel without what was before a coin came back after more than `RELISTED_HOURS`: another coin's history, or as good as."""
    traded = trades(panel.values, panel.status)
    row = np.arange(len(panel.values), dtype=np.int32)[:, None]
    last = np.maximum.accumulate(np.where(traded, row, -1), axis=0)
    back = traded[1:] & (last[:-1] >= 0) & (row[1:] - last[:-1] > RELISTED_HOURS + 1)
    if not back.any():
        return panel
    before = row < np.where(back, row[1:], 0).max(axis=0)
    values = np.where(before[:, :, None], np.nan, panel.values)
    return Panel(panel.symbols, panel.start, values, np.where(before, NOT_FETCHED, panel.status).astype(np.uint8), panel.timeframe)


@dataclass(frozen=True, slots=True)
class Survey:
    """What the candles say of each coin before anything is fitted: ``left_out``: symbol -> reason; ``pegged``, ``gappy``: bool [n]."""

    left_out: dict[str, str]
    pegged: Bool
    gappy: Bool


def survey(panel: Panel, *, least: int = MIN_DAYS * 24) -> Survey:
    """Which coins of the panel cannot be trained, for lack of ``least`` hours of trade or otherwise, and which are pegged or so flat that
    only their own empirical quantiles fit them.

    Pegged: 9 of 10 hourly moves below 0.16 % (a volatility of 0.1 % an hour if normal; robust to the hour that breaks the peg), or below
    0.49 % with more than 5 % of the traded hours without any range (prices that stand on ticks). Gappy: without a trade, or not fetched,
    in more than `_GAPPY` of the hours since its first.
    """
    left_out: dict[str, str] = {}
    pegged, gappy = np.zeros(len(panel.symbols), bool), np.zeros(len(panel.symbols), bool)
    for column, symbol in enumerate(panel.symbols):
        values = panel.values[:, column]
        sane = (panel.status[:, column] == CANDLE) & (values[:, LOW] > 0) & np.isfinite(values).all(axis=1)
        traded = np.flatnonzero(sane & ((values[:, VOLUME] > 0) | (values[:, HIGH] > values[:, LOW])))
        silent = (len(values) - 1 - traded[-1]) / 24 if len(traded) else 0.0
        if len(traded) == 0:
            left_out[symbol] = "no candle in the training window"
        elif silent > _SILENT_DAYS:
            left_out[symbol] = f"halted or delisted: no trade for {silent:.0f} days"
        elif len(traded) < least:
            days, since, needed = len(traded) / 24, (traded[-1] - traded[0]) / 24, least // 24
            left_out[symbol] = (
                f"too young: {days:.0f} days of candles, {needed} are needed"
                if since < needed
                else f"too thin: it traded in {days:.0f} days' worth of hours out of {since:.0f}, {needed} are needed"
            )
        else:
            adjacent = traded[1:][np.diff(traded) == 1]
            if len(adjacent) < least // 4:
                left_out[symbol] = "too thin: it hardly trades in two hours running"
                continue
            move = float(np.quantile(np.abs(np.log(values[adjacent, CLOSE] / values[adjacent - 1, CLOSE])), 0.9))
            still = float((values[traded, HIGH] <= values[traded, LOW]).mean())
            pegged[column] = move < _PEG_MOVE or (still > _TICK_SHARE and move < _TICK_MOVE)
            gappy[column] = len(traded) < (1.0 - _GAPPY) * (len(values) - traded[0])
    return Survey(left_out, pegged, gappy)


class MarketSums:
    """Means over all coins of what each adds to the market's features, gathered group by group: [T, len(MARKET)].

    A coin counts while it trades and for `HALT_HOURS` after: in an outage the market is what it was, as for whoever serves.
    """

    def __init__(self, hours: int) -> None:
        self._sum = np.zeros((hours, len(MARKET)))
        self._count = np.zeros(hours)

    def add(self, part: slice, own: Float32, chosen: Bool) -> None:
        """``own``: float32 [t, n, len(OWN)] of the hours in ``part``; ``chosen``: bool [t, n], which of them count."""
        self._sum[part] += np.einsum("tnm,tn->tm", market_terms(own), chosen.astype(np.float64))
        self._count[part] += chosen.sum(axis=1)

    def means(self) -> Float32:
        """float32 [T, len(MARKET)]; 0 in an hour in which no coin counted."""
        return (self._sum / np.maximum(self._count, 1.0)[:, None]).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Recording:
    """What a scan of the candles of n coins over T hours recorded: half a megabyte a coin for six months.

    ``own``: float32 [T, n, len(OWN)]. ``variance`` (0 where not live), ``log_close``: float64 [T, n]. ``live``, ``warm``,
    ``known``, ``broken``: bool [T, n]; known are the warm coins' live and silent hours, which have features.
    ``state``: recursions at the end.
    """

    symbols: tuple[str, ...]
    start: int
    season: Season
    own: Float32
    variance: Float64
    log_close: Float64
    live: Bool
    warm: Bool
    known: Bool
    broken: Bool
    state: FeatureState

    def coins(self, columns: Int64) -> Recording:
        """A copy of some coins' columns."""
        return Recording(
            symbols=tuple(self.symbols[column] for column in columns),
            start=self.start,
            season=self.season,
            own=self.own[:, columns],
            variance=self.variance[:, columns],
            log_close=self.log_close[:, columns],
            live=self.live[:, columns],
            warm=self.warm[:, columns],
            known=self.known[:, columns],
            broken=self.broken[:, columns],
            state=self.state.coins(columns),
        )

    def rest(self, pegged: Bool) -> Float64:
        """float64 [n]: mean variance of an hour; what a peg is used to are its calm hours, not those in which it was in doubt."""
        found = self.variance.sum(axis=0) / np.maximum(self.live.sum(axis=0), 1)
        for column in np.flatnonzero(pegged & self.live.any(axis=0)):
            calm = self.variance[self.live[:, column], column]
            found[column] = np.minimum(calm, np.quantile(calm, 0.9)).mean()
        return np.asarray(found)


def record(panel: Panel, season: Season, dark: Bool | None = None) -> Recording:
    """Scan the panel from its first hour on; ``dark`` as in `features.scan`."""
    hours, coins = panel.status.shape
    own = np.empty((hours, coins, len(OWN)), np.float32)
    variance, log_close = np.empty((hours, coins)), np.empty((hours, coins))
    live, warm, known, broken = (np.empty((hours, coins), bool) for _ in range(4))
    state = FeatureState.empty(coins)
    for part, rows in scan(state, panel, season, dark=dark):
        own[part], live[part], broken[part] = rows.own, rows.live, rows.broken
        warm[part] = rows.live & (rows.count >= WARM_HOURS)
        known[part] = (rows.live | rows.silent) & (rows.count >= WARM_HOURS)
        variance[part] = np.where(rows.live, rows.variance, 0.0)
        log_close[part] = np.log(np.where(np.isfinite(rows.close), rows.close, 1.0))
    return Recording(panel.symbols, panel.start, season, own, variance, log_close, live, warm, known, broken, state)


@dataclass(frozen=True, slots=True)
class Window:
    """Features and outcomes of n coins over T hours; the origins are the V (hour, coin) pairs that can be learned from, in order of time.

    ``own`` [T, n, len(OWN)], ``market`` [T, len(MARKET)]: float32. ``hours``: int64 [T], hour of the week that opens at
    each cutoff. ``origin``: bool [T, n]. ``row``, ``coin``: int32 [V]. ``rest``:
    float64 [n], mean variance. ``state``: recursions at the end. Outcomes are taken from ``prices`` [n, T], log closes,
    and ``totals`` [n, T + 1], variance summed up to each hour: float64, at least a day long, coin by coin, so that the
    hours that follow an origin lie side by side.
    """

    symbols: tuple[str, ...]
    start: int
    season: Season
    pegged: Bool
    own: Float32
    market: Float32
    hours: Int64
    origin: Bool
    row: Int32
    coin: Int32
    rest: Float64
    state: FeatureState
    prices: Float64
    totals: Float64

    def inputs(self, origins: Int64 | slice) -> Float32:
        """float32 [len(origins), INPUTS]: the network's inputs at some origins, not standardised. Made anew each time: they
        are many and cheap, as are `targets` and `moves`.
        """
        time, coin = self.row[origins], self.coin[origins]
        return network.inputs(self.own[time, coin][:, None], self.market[time])[:, 0]

    def targets(self, origins: Int64 | slice) -> Float32:
        """float32 [len(origins), 24]: log of the mean winsorised variance of the coming hours."""
        coin = self.coin[origins]
        ahead = _ahead(self.totals)[coin, self.row[origins] + 1]
        mean = (ahead[:, 1:] - ahead[:, :1]) / np.arange(1, MAX_HORIZON + 1)
        return np.log((mean + (FLOOR * self.rest[coin] + 1e-10)[:, None]).astype(np.float32))

    def moves(self, origins: Int64 | slice) -> Float32:
        """float32 [len(origins), 24]: cumulative log returns of the coming hours."""
        ahead = _ahead(self.prices)[self.coin[origins], self.row[origins]]
        return (ahead[:, 1:] - ahead[:, :1]).astype(np.float32)

    @property
    def length(self) -> int:
        return len(self.own)

    @property
    def log_close(self) -> Float64:
        """float64 [T, n]."""
        return self.prices[:, : self.length].T

    def outcomes(self, rows: Int64) -> Float64:
        """float64 [len(rows), n, 24]: cumulative log returns from the given hours, NaN where they cannot be learned from."""
        ahead = rows[:, None] + np.arange(1, MAX_HORIZON + 1)
        found = self.log_close[ahead].transpose(0, 2, 1) - self.log_close[rows][:, :, None]
        return np.where(self.origin[rows][:, :, None], found, np.nan)


def _ahead(values: Float64) -> Float64:
    """A view [n, T - 24, 25] of values [n, T]: each with the 24 that follow it."""
    return np.lib.stride_tricks.sliding_window_view(values, MAX_HORIZON + 1, axis=1)


def build(found: Recording, pegged: Bool, market: Float32) -> Window:
    """Lay out what can be learned from a recording.

    An origin is a live hour of a warm coin followed by 24 live hours with an unbroken price chain. Pegged coins have
    origins too (their tables need them); who fits a pool leaves them out.
    """
    hours, coins = found.live.shape
    whole = np.concatenate([np.zeros((1, coins), np.int32), np.cumsum(found.live & ~found.broken, axis=0, dtype=np.int32)])
    last = max(hours - MAX_HORIZON, 0)
    origin = np.zeros((hours, coins), bool)
    origin[:last] = found.warm[:last] & (whole[MAX_HORIZON + 1 :] - whole[1 : last + 1] == MAX_HORIZON)
    row, coin = np.nonzero(origin)
    prices, totals = (np.zeros((coins, max(hours, MAX_HORIZON) + 1)) for _ in range(2))
    totals[:, 1 : hours + 1] = np.cumsum(found.variance, axis=0).T
    prices[:, :hours] = found.log_close.T
    return Window(
        symbols=found.symbols,
        start=found.start,
        season=found.season,
        pegged=pegged,
        own=found.own,
        market=market,
        hours=hour_of_week(found.start + HOUR.ms * np.arange(1, hours + 1, dtype=np.int64)),
        origin=origin,
        row=row.astype(np.int32),
        coin=coin.astype(np.int32),
        rest=found.rest(pegged),
        state=found.state,
        prices=prices,
        totals=totals,
    )


def pieces(rows: int, size: int = 8192) -> list[slice]:
    """Runs of consecutive numbers that cover 0 to ``rows``, so that float64 temporaries stay small."""
    return [slice(first, min(first + size, rows)) for first in range(0, rows, size)]
