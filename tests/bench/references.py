"""The reference forecasters as the judge makes them: from candles, with numpy and pandas, week by week, without look-ahead.

Knows candle files and arithmetic. Must not know the daemon's own code: a mistake there must not hide in what it is measured with.

Every reference is a scale per (hour, coin, horizon) times quantiles of the coin's own residuals over the training window, that is
return over scale (the rest is the same for all, so that they differ in the scale alone):

`random_walk`   scale 1: empirical quantiles of the coin's own returns.
`ewma`          root of the EWMA (half-life 24 h) of Parkinson variance (ln h/l)^2 / 4 ln 2 (Parkinson 1980; RiskMetrics 1996).
`ewma_season`   the same of variance divided by hour-of-week factors, times the factors of the hours ahead.
`log_har`       OLS, pooled over the ordinary coins, of log mean variance over the next h hours on logs of its EWMAs (half-lives 2, 12,
                48, 168, 672 h) and their market means, all divided by hour-of-week factors (Corsi 2009, in logs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

HOUR_MS = 3_600_000
LEVELS = np.array([0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975])
TRAINING_HOURS = 4380
"""Six months."""
REFIT_HOURS = 168
LEAD_IN = 672
"""Hours before the training window, where there are any, that only fill the EWMAs."""
SHORTEST_TRAINING = 45 * 24
LONGEST_GAP = 24
"""For so many hours a price without a trade still counts; then it is unknown."""
HALF_LIVES = (2, 12, 48, 168, 672)
WARM = 336
"""First hours of all that is known, whose EWMAs are too fresh to learn from."""


class BadInput(ValueError):
    """Files that cannot be judged: says which, what is wrong, and what to do."""


@dataclass(frozen=True, slots=True)
class Candles:
    """Hourly candles of several coins on one grid. Row i opens at ``start + i`` hours.

    ``values``: float64 [T, N, 5] (open, high, low, close, volume), NaN where nothing was traded.
    ``log_close``: float64 [T, N], the last close known, at most `LONGEST_GAP` hours old.
    """

    symbols: tuple[str, ...]
    start: int
    values: Floats
    log_close: Floats

    @property
    def traded(self) -> Bools:
        """bool [T, N]."""
        return np.isfinite(self.values[:, :, 3])

    def row(self, cutoff: int) -> int:
        """The row of the candle that closes at ``cutoff``."""
        return (cutoff - self.start) // HOUR_MS - 1

    def outcomes(self, rows: Ints, horizons: Sequence[int]) -> Floats:
        """float64 [rows, N, H]: cumulative log return over the next hours from the closes of ``rows``; NaN where unknown."""
        found = np.full((len(rows), len(self.symbols), len(horizons)), np.nan)
        for column, horizon in enumerate(horizons):
            inside = rows + horizon < len(self.log_close)
            found[inside, :, column] = self.log_close[rows[inside] + horizon] - self.log_close[rows[inside]]
        return found

    def ordinary(self, first: int, last: int) -> Bools:
        """bool [N]: the coins that traded throughout: in 99.9 % of the hours in which anybody did, from a year before ``first``
        to ``last`` (cutoffs, UTC ms)."""
        part = self.traded[max(self.row(first) - 365 * 24, 0) : self.row(last) + 1]
        market = max(int(part.any(axis=1).sum()), 1)
        return np.asarray(part.sum(axis=0) >= 0.999 * market)

    def coins(self, chosen: Bools) -> Candles:
        """Some of the coins."""
        symbols = tuple(symbol for symbol, is_chosen in zip(self.symbols, chosen, strict=True) if is_chosen)
        return Candles(symbols, self.start, self.values[:, chosen], self.log_close[:, chosen])


def read_candles(folder: Path, symbols: Sequence[str] = ()) -> Candles:
    """The folder's ``<BASE-QUOTE>.csv.gz`` (ts,open,high,low,close,volume; ts: open time, UTC ms), all or some of them."""
    paths = {path.name.removesuffix(".csv.gz").replace("-", "/"): path for path in sorted(folder.glob("*.csv.gz"))}
    lacking = sorted(set(symbols) - set(paths))
    if not paths or lacking:
        raise BadInput(f"{folder} has no candles of {', '.join(lacking[:5]) or 'any coin'}; point to the folder that was forecast from")
    frames = {}
    for symbol in symbols or paths:
        frame = pd.read_csv(paths[symbol])
        if list(frame.columns) != ["ts", "open", "high", "low", "close", "volume"] or frame.empty:
            raise BadInput(f"{paths[symbol]} is not a candle file: its columns must be ts,open,high,low,close,volume")
        if (frame["ts"] % HOUR_MS).any() or frame["ts"].duplicated().any():
            raise BadInput(f"{paths[symbol]}: times are not unique hours; resample it first")
        frames[symbol] = frame
    start = min(int(frame["ts"].min()) for frame in frames.values())
    hours = max(int(frame["ts"].max()) - start for frame in frames.values()) // HOUR_MS + 1
    values = np.full((hours, len(frames), 5), np.nan)
    for column, frame in enumerate(frames.values()):
        rows = ((frame["ts"] - start) // HOUR_MS).to_numpy()
        values[rows, column] = frame[["open", "high", "low", "close", "volume"]].to_numpy()
    return candles_of(tuple(frames), start, values)


def candles_of(symbols: tuple[str, ...], start: int, values: Floats) -> Candles:
    """Candles from arrays; see `Candles`."""
    close = pd.DataFrame(np.where(values[:, :, 3] > 0, values[:, :, 3], np.nan)).ffill(limit=LONGEST_GAP).to_numpy()
    return Candles(symbols, start, values, np.log(close))


# ------------------------------------------------------------------------------------------------------------ a week's worth


@dataclass(frozen=True, slots=True)
class Window:
    """What may be known at a refit, and the hours of the week after it, which are only to be forecast.

    Rows of ``part`` (candles): ``train`` have outcomes that were known at the refit for every horizon; ``test`` are the week's origins.
    ``ordinary``: bool [N], the coins that pooled regressions and market means are made of.
    """

    part: Candles
    train: Ints
    test: Ints
    horizons: tuple[int, ...]
    ordinary: Bools

    @property
    def end(self) -> int:
        """First row that was not known at the refit."""
        return int(self.train[-1]) + max(self.horizons) + 1


Scale = Callable[[Window], Floats]
"""A forecaster: float64 [rows of the window, N, H] (or broadcastable), of which the row t must use nothing after t, nor, in what was
learned, anything from `Window.end` on."""


def windows(candles: Candles, cutoffs: Ints, horizons: tuple[int, ...], ordinary: Bools) -> Iterator[tuple[slice, Window]]:
    """A window for each week of origins, and where in ``cutoffs`` (sorted, UTC ms) its origins are."""
    first = 0
    while first < len(cutoffs):
        after = int(np.searchsorted(cutoffs, cutoffs[first] + REFIT_HOURS * HOUR_MS))
        refit, last = candles.row(int(cutoffs[first])), candles.row(int(cutoffs[after - 1]))
        begin = max(refit + 1 - TRAINING_HOURS - LEAD_IN, 0)
        learn_from = max(refit + 1 - TRAINING_HOURS, begin + WARM)
        train = np.arange(learn_from, refit + 1 - max(horizons)) - begin
        if len(train) < SHORTEST_TRAINING:
            raise BadInput(
                f"only {max(refit + 1, 0) / 24:.0f} days of candles lie before the first forecast; the references need "
                f"{(SHORTEST_TRAINING + WARM) // 24 + 1}: begin later, or point to a folder that begins earlier"
            )
        rows = slice(begin, last + 1)
        part = Candles(candles.symbols, candles.start + begin * HOUR_MS, candles.values[rows], candles.log_close[rows])
        test = (cutoffs[first:after] - candles.start) // HOUR_MS - 1 - begin
        yield slice(first, after), Window(part, train, test, horizons, ordinary)
        first = after


def parkinson(values: Floats) -> Floats:
    """float64 [T, N]: Parkinson variance of each hour, 0 where nothing was traded."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log(values[:, :, 1] / values[:, :, 2]) ** 2 / (4 * np.log(2))
    return np.where(np.isfinite(found), found, 0.0)


def ewma(x: Floats, half_life: float) -> Floats:
    """The EWMA along the rows, of known values only."""
    return np.asarray(pd.DataFrame(x).ewm(halflife=half_life).mean().to_numpy())


def hour_of_week(window: Window) -> Ints:
    """int64 [T]: the hour of the week (0: Thursday 00:00 UTC, the epoch's) in which each row opens."""
    return np.asarray((window.part.start // HOUR_MS + np.arange(len(window.part.values))) % 168)


def season(variance: Floats, window: Window) -> Floats:
    """float64 [168], mean 1: how busy each hour of the week is, learned over what was known at the refit.

    m = log(mean over the ordinary coins of clip(v / EWMA_336(v), 0, 20) + 1e-3); .65 (hour-of-day mean + day-of-week effect) + .35
    hour-of-week mean; smoothed circularly with .15/.7/.15. On real candles plain means by hour of the week of the log make the same
    reference, and those of the variance itself a weaker one (0.2 %).
    """
    known = variance[: window.end][:, window.ordinary]
    busy = np.log(np.clip(known / np.maximum(ewma(known, 336), 1e-12), 0, 20).mean(axis=1) + 1e-3)[WARM:]
    week = pd.Series(hour_of_week(window)[WARM : window.end])
    level = pd.Series(busy)
    hours = np.arange(168)
    by_week = level.groupby(week).mean().to_numpy()
    by_hour, by_day = level.groupby(week % 24).mean().to_numpy(), level.groupby(week // 24).mean().to_numpy()
    rough = 0.65 * (by_hour[hours % 24] + by_day[hours // 24] - busy.mean()) + 0.35 * by_week
    factor = np.exp(0.15 * np.roll(rough, 1) + 0.7 * rough + 0.15 * np.roll(rough, -1))
    return np.asarray(factor / factor.mean())


def season_ahead(factors: Floats, window: Window) -> Floats:
    """float64 [T, 1, H]: root of the mean factor of the h hours after each row."""
    total = np.concatenate([[0.0], np.cumsum(np.tile(factors, 3))])
    first = (hour_of_week(window) + 1)[:, None]
    horizons = np.array(window.horizons)
    return np.asarray(np.sqrt((total[first + horizons] - total[first]) / horizons))[:, None, :]


def random_walk(window: Window) -> Floats:
    return np.ones((1, 1, 1))


def ewma_volatility(window: Window) -> Floats:
    return np.asarray(np.sqrt(ewma(parkinson(window.part.values), 24) + 1e-9))[:, :, None]


def ewma_season(window: Window) -> Floats:
    variance = parkinson(window.part.values)
    factors = season(variance, window)
    plain = ewma(variance / factors[hour_of_week(window)][:, None], 24)
    return np.asarray(np.sqrt(plain + 1e-9)[:, :, None] * season_ahead(factors, window))


@dataclass(frozen=True, slots=True)
class Har:
    """The pooled log-HAR regression of a window: what was regressed on what, and the fit."""

    variance: Floats
    """float64 [T, N]: Parkinson variance without the season."""
    levels: Floats
    """float64 [T, N, 5]: logs of its EWMAs."""
    fitted: Floats
    """float64 [T, N, H]: log of the coming mean variance."""
    ahead: Floats
    """float64 [T, 1, H]: see `season_ahead`."""


def coming(variance: Floats, rows: Ints, horizon: int) -> Floats:
    """float64 [rows, N]: log of the mean variance over the ``horizon`` hours after each of ``rows``."""
    total = np.concatenate([np.zeros((1, variance.shape[1])), np.cumsum(variance, axis=0)])
    return np.asarray(np.log((total[rows + 1 + horizon] - total[rows + 1]) / horizon + 1e-10))


def har(window: Window) -> Har:
    """Fit it on every third training row."""
    variance = parkinson(window.part.values)
    factors = season(variance, window)
    variance = variance / factors[hour_of_week(window)][:, None]
    levels = np.stack([np.log(ewma(variance, k) + 1e-9) for k in HALF_LIVES], axis=-1)
    market = np.broadcast_to(levels[:, window.ordinary].mean(axis=1)[:, None], levels.shape)
    terms = np.concatenate([levels, market, np.ones((*levels.shape[:2], 1))], axis=-1)
    rows = window.train[::3]
    x = terms[rows][:, window.ordinary].reshape(-1, terms.shape[-1])
    y = np.stack([coming(variance, rows, h)[:, window.ordinary].reshape(-1) for h in window.horizons], axis=-1)
    weights = np.linalg.solve(x.T @ x, x.T @ y)
    return Har(variance, levels, terms @ weights, season_ahead(factors, window))


def log_har(window: Window) -> Floats:
    found = har(window)
    return np.asarray(np.exp(0.5 * found.fitted) * found.ahead)


REFERENCES: dict[str, Scale] = {
    "random_walk": random_walk,
    "ewma": ewma_volatility,
    "ewma_season": ewma_season,
    "log_har": log_har,
}


# --------------------------------------------------------------------------------------------------------- from scales to quantiles


def residual_table(residuals: Floats) -> Floats:
    """float64 [N, H, 9]: quantiles of residuals [rows, N, H], linearly interpolated; NaN where fewer than `SHORTEST_TRAINING` are known."""
    ordered = np.sort(np.ascontiguousarray(residuals.transpose(1, 2, 0).astype(np.float32)), axis=-1)  # NaN come last
    count = np.isfinite(ordered).sum(axis=-1)
    place = LEVELS * np.maximum(count - 1, 0)[..., None]
    low = place.astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0)[..., None])
    below, above = (np.take_along_axis(ordered, at, -1).astype(np.float64) for at in (low, high))
    return np.where((count >= SHORTEST_TRAINING)[..., None], below + (place - low) * (above - below), np.nan)


def forecast(scale: Floats, window: Window) -> Floats:
    """float64 [test rows, N, H, 9]: the quantiles that a scale gives for the week's origins."""
    rows = len(window.part.values)
    whole = np.broadcast_to(scale, (rows, len(window.part.symbols), len(window.horizons)))
    returns = window.part.outcomes(window.train, window.horizons)
    table = residual_table(returns / whole[window.train])
    return whole[window.test][..., None] * table
