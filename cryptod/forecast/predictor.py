"""The current models together with their streaming state: candles in, forecasts out.

Knows models, features and what was learned online; no store, no clock, no torch: what time it is, which models are current and where
candles come from is the caller's business. Advancing 100 coins by an hour and forecasting them all takes a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from cryptod.errors import DataError
from cryptod.forecast import distribution
from cryptod.forecast.features import HALT_HOURS, MARKET, FeatureState, absorb, market_terms
from cryptod.forecast.learning import Learning
from cryptod.forecast.model import SOURCES, Model
from cryptod.forecast.outages import Witnesses
from cryptod.forecast.season import Season, hour_of_week
from cryptod.market import HOUR, MAX_HORIZON, NOT_FETCHED, QUANTILE_LEVELS, Bool, Float32, Float64, Int64, Panel

__all__ = ["Forecasts", "Model", "Predictor"]

_CHUNK: Final = 256
_UNUSUAL: Final = 1.5
BASE: Final = "base"
"""Kind of the models that were made for any coin."""
_YOUNG_HOURS: Final = 90 * 24
"""A coin with fewer hours known is called young: its own past has little weight in its forecast, and that of the others much."""
_HALT_CAP: Final = 720.0
"""Hours of a halt that a halted coin's intervals grow with."""
_MEDIAN: Final = QUANTILE_LEVELS.index(0.5)
_HORIZONS: Final = np.arange(1.0, MAX_HORIZON + 1)
ALONE: Final = frozenset({"halted", "pegged", "reference"})
"""Flags of coins that one forecaster serves by itself; all others are given the forecasters' average."""


def combined(flags: Sequence[Sequence[str]]) -> Bool:
    """bool [N]: which coins, by their flags, are given the forecasters' average."""
    return np.array([ALONE.isdisjoint(words) for words in flags], bool)


@dataclass(frozen=True, slots=True)
class Forecasts:
    """Forecasts of N coins, one row each, in the order asked for.

    ``cutoff``: what was asked; ``cutoffs``: int64 [N], close time of the last candle used for each coin (older where
    candles are missing). ``close``: float64 [N]. ``quantiles``: float32 [N, 24, 9] of the cumulative log return, never
    crossing. ``p_up``, ``volatility`` (standard deviation of the cumulative log return), ``expected_return``: float32
    [N, 24], all three read off the quantiles. ``score``: float32 [N]. ``strangeness``: float32 [N], above 1 where fewer
    than 1 % of the training rows lay farther out. ``models``: name of the checkpoint; ``sources``: which forecaster
    serves (`SOURCES`). ``flags``: words about the coin; after "reference" comes the name of that. ``said``: name of each of `SOURCES` ->
    float32 [N, 24, 9], before it was combined and calibrated.
    """

    symbols: tuple[str, ...]
    cutoff: int
    cutoffs: Int64
    close: Float64
    quantiles: Float32
    p_up: Float32
    volatility: Float32
    expected_return: Float32
    score: Float32
    strangeness: Float32
    models: tuple[str, ...]
    sources: tuple[str, ...]
    flags: tuple[tuple[str, ...], ...]
    said: dict[str, Float32]


@dataclass(slots=True)
class _Group:
    """Coins whose features are made with the same season, whatever model serves them."""

    season: Season
    symbols: list[str]
    state: FeatureState
    in_market: np.ndarray


class Predictor:
    """Models and state of all coins that can be forecast. A coin in several models is served by the last one listed."""

    def __init__(self, models: Sequence[Model], learning: Learning | None = None, renewed: Mapping[str, int] | None = None) -> None:
        """``renewed``: symbols behind which another coin stands since a close time: models of before do not know it."""
        self._models = tuple(models)
        self.learning = learning
        since = renewed or {}
        serving = {
            symbol: (m, column)
            for m, model in enumerate(self._models)
            for column, symbol in enumerate(model.symbols)
            if symbol not in since or model.state.at[column] >= since[symbol]
        }
        self._serving = serving
        self.symbols = tuple(serving)
        self._gappy = {symbol for symbol, (m, _) in serving.items() if symbol in self._models[m].meta.get("gaps", ())}
        self._groups: list[_Group] = []
        self._place: dict[str, tuple[int, int]] = {}
        by_season: dict[bytes, list[int]] = {}
        for m, model in enumerate(self._models):
            by_season.setdefault(model.season.variance.tobytes() + model.season.volume.tobytes(), []).append(m)
        for members in by_season.values():
            columns = [np.array([c for s, c in _own_columns(self._models[m], m, serving)], np.int64) for m in members]
            symbols = [s for m in members for s, _ in _own_columns(self._models[m], m, serving)]
            state = FeatureState.join([self._models[m].state.coins(c) for m, c in zip(members, columns, strict=True)])
            in_market = np.concatenate([~self._models[m].pegged[c] for m, c in zip(members, columns, strict=True)])
            for column, symbol in enumerate(symbols):
                self._place[symbol] = (len(self._groups), column)
            self._groups.append(_Group(self._models[members[0]].season, symbols, state, in_market))
        self._market: tuple[int, Float32] | None = None

    def model_of(self, symbol: str) -> int:
        """Which of the models serves a coin."""
        return self._serving[symbol][0]

    def __contains__(self, symbol: str) -> bool:
        return symbol in self._serving

    def needs(self, symbol: str) -> int:
        """Cutoff up to which the coin's candles are absorbed (UTC ms): candles that open at or after it are wanted next."""
        group, column = self._place[symbol]
        return int(self._groups[group].state.at[column])

    def behind(self, cutoff: int) -> dict[str, int]:
        """Coins whose candles are not absorbed up to ``cutoff`` -> by how many milliseconds."""
        found: dict[str, int] = {}
        for group in self._groups:
            lag = cutoff - group.state.at
            found |= {group.symbols[column]: int(lag[column]) for column in np.flatnonzero(lag > 0)}
        return found

    def interrupted(self) -> dict[str, int]:
        """Coins that did not trade in their last known hour, though they or their market always do -> hours since their last trade."""
        found: dict[str, int] = {}
        for group in self._groups:
            idle = (group.state.at - group.state.traded) // HOUR.ms
            found |= {group.symbols[column]: int(idle[column]) for column in np.flatnonzero(group.state.interrupted)}
        return found

    def lived(self, symbol: str) -> int:
        """Hours in which the coin was seen alive, as far back as its model knows."""
        group, column = self._place[symbol]
        return int(self._groups[group].state.count[column])

    def advance(self, panel: Panel) -> None:
        """Absorb the panel's hours beyond what each coin knows; coins of no model are ignored, hours known already change nothing.

        Coins that know the hours already still serve as witnesses of the market's outages (`cryptod.forecast.outages`).
        """
        known = {symbol: column for column, symbol in enumerate(panel.symbols)}
        times = panel.open_times
        places = [np.array([known.get(symbol, -1) for symbol in group.symbols], np.int64) for group in self._groups]
        ours = [(group, here) for group, here in zip(self._groups, places, strict=True) if (here >= 0).any()]
        behind = min((int(group.state.at[here >= 0].min()) for group, here in ours), default=panel.end)
        for first in range(int(np.searchsorted(times, behind)), len(times), _CHUNK):
            part = slice(first, first + _CHUNK)
            given = []
            witnesses = Witnesses(len(times[part]))
            for group, here in ours:
                status = np.where(here >= 0, panel.status[part][:, here], NOT_FETCHED).astype(np.uint8)
                values = panel.values[part][:, here]
                witnesses.add(values, status, group.state.steady)
                given.append((group, values, status))
            dark = witnesses.dark()
            for group, values, status in given:
                absorb(group.state, values, status, times[part], group.season, dark)
        self._market = None

    def market(self, cutoff: int) -> Float32:
        """float32 [len(MARKET)]: mean over the coins that trade and are known at most `HALT_HOURS` less far than the one known best.

        In step, as after each collection, that is the mean of one hour, as in training. A coin or two fetched ahead of the others are
        not the market, nor is one that has long been silent.
        """
        if self._market is not None and self._market[0] == cutoff:
            return self._market[1]
        total, count = np.zeros(len(MARKET)), 0
        fit = [group.in_market & group.state.warm & ~group.state.halted for group in self._groups]
        times = [int(time) for group, ok in zip(self._groups, fit, strict=True) for time in np.unique(group.state.at[ok])]
        newest = max((time for time in times if time <= cutoff), default=0)
        for group, ok in zip(self._groups, fit, strict=True):
            chosen = ok & (group.state.at <= cutoff) & (group.state.at > newest - HALT_HOURS * HOUR.ms)
            total += market_terms(group.state.own[chosen]).sum(axis=0)
            count += int(chosen.sum())
        found = (total / max(count, 1)).astype(np.float32)
        self._market = (cutoff, found)
        return found

    def forecast(self, symbols: Sequence[str], cutoff: int) -> Forecasts:
        """Forecasts of ``symbols`` from the candles that closed by ``cutoff``, which must have been absorbed, and no later ones.

        Raises `DataError` for a coin of no model, one without any price, and one that has absorbed candles past the cutoff.
        """
        unknown = [symbol for symbol in symbols if symbol not in self._serving]
        if unknown:
            raise DataError(
                f"no model serves {', '.join(unknown[:5])}",
                hint="a coin is trained at the next full retrain, once it has 45 days of candles",
            )
        by_model: dict[int, list[int]] = {}
        for row, symbol in enumerate(symbols):
            by_model.setdefault(self._serving[symbol][0], []).append(row)
        count = len(symbols)
        cutoffs = np.empty(count, np.int64)
        close = np.empty(count)
        strangeness = np.empty(count)
        loose = np.zeros(count, bool)
        halted = np.zeros(count, bool)
        idle = np.empty(count)
        interrupted, lately = np.zeros(count, bool), np.zeros(count, bool)
        young = np.zeros(count, bool)
        source = np.empty(count, np.int64)
        pegged = np.zeros(count, bool)
        quantiles = np.empty((count, MAX_HORIZON, len(QUANTILE_LEVELS)), np.float32)
        said = {name: np.empty_like(quantiles) for name in SOURCES}
        market = self.market(cutoff)
        for m, rows in by_model.items():
            model, index = self._models[m], np.array(rows)
            coins = np.array([self._serving[symbols[row]][1] for row in rows])
            group = self._groups[self._place[symbols[rows[0]]][0]]
            places = np.array([self._place[symbols[row]][1] for row in rows])
            state = group.state
            cutoffs[index], close[index], halted[index] = state.at[places], state.close[places], state.halted[places]
            idle[index], young[index] = (state.at[places] - state.traded[places]) / HOUR.ms, state.count[places] < _YOUNG_HOURS
            interrupted[index], lately[index] = state.interrupted[places], state.lately_silent[places]
            own = state.own[places]
            found = model.quantiles(own, market, hour_of_week(np.array(cutoff)), coins)
            quantiles[index] = found.served
            for name, values in found.said.items():
                said[name][index] = values
            strangeness[index] = model.strangeness(own, market)
            pegged[index] = model.pegged[coins]
            loose[index] = pegged[index] & (model.looseness(own, coins) > 1.0)
            source[index] = model.source[coins]
        _refuse(symbols, cutoffs, close, cutoff)
        interrupted &= ~halted & ~pegged
        if interrupted.any():
            # The last price known is some hours old: the coin has moved since, if nobody saw it.
            longer = np.sqrt(1.0 + idle[interrupted][:, None] / _HORIZONS).astype(np.float32)[..., None]
            for values in (quantiles, *said.values()):
                values[interrupted] *= longer
        if halted.any():
            # Nobody knows at what price a halted coin comes back: the wider of what is served and of the coin's usual moves over the time
            # that has passed since it last traded, and will have.
            longer = np.sqrt(1.0 + np.minimum(idle[halted], _HALT_CAP)[:, None] / _HORIZONS).astype(np.float32)
            usual = said["random_walk"][halted] * longer[..., None]
            quantiles[halted] = np.concatenate(
                [
                    np.minimum(quantiles[halted], usual)[..., :_MEDIAN],
                    quantiles[halted][..., _MEDIAN : _MEDIAN + 1],
                    np.maximum(quantiles[halted], usual)[..., _MEDIAN + 1 :],
                ],
                axis=-1,
            )
        late = cutoffs < cutoff
        words = {
            "late": late,
            "outage": lately & ~halted,
            "halted": halted,
            "pegged": pegged,
            "unpegged": loose,
            "reference": (source > 0) & ~pegged,
            **{name: (source == place) & ~pegged for place, name in enumerate(SOURCES) if place},
            "young": young,
            "gaps": np.array([symbol in self._gappy for symbol in symbols], bool),
            "base": np.array([self._models[self._serving[symbol][0]].kind == BASE for symbol in symbols]),
            "unusual": (strangeness > _UNUSUAL) & ~pegged,
        }
        flags = tuple(tuple(word for word, holds in words.items() if holds[row]) for row in range(count))
        if self.learning is not None:
            quantiles = self.learning.issue(symbols, quantiles, said, combined(flags))
        exact = quantiles.astype(np.float64)
        p_up = 1.0 - distribution.probability_below(exact, np.zeros(exact.shape[:-1]))
        mean, deviation = distribution.mean_and_deviation(exact)
        return Forecasts(
            symbols=tuple(symbols),
            cutoff=cutoff,
            cutoffs=cutoffs,
            close=close,
            quantiles=quantiles,
            p_up=p_up.astype(np.float32),
            volatility=deviation.astype(np.float32),
            expected_return=mean.astype(np.float32),
            score=(mean[:, -1] / np.maximum(deviation[:, -1], 1e-12)).astype(np.float32),
            strangeness=strangeness.astype(np.float32),
            models=tuple(self._models[self._serving[symbol][0]].name for symbol in symbols),
            sources=tuple(SOURCES[place] for place in source),
            flags=flags,
            said=said,
        )


def _own_columns(model: Model, place: int, serving: dict[str, tuple[int, int]]) -> list[tuple[str, int]]:
    """The coins of a model that no later model serves, with their columns."""
    return [(symbol, column) for column, symbol in enumerate(model.symbols) if serving.get(symbol) == (place, column)]


def _refuse(symbols: Sequence[str], cutoffs: Int64, close: Float64, cutoff: int) -> None:
    """`DataError` where a forecast would look ahead or start from no price."""
    ahead = np.flatnonzero(cutoffs > cutoff)
    if len(ahead):
        raise DataError(
            f"{symbols[ahead[0]]} has absorbed candles {(int(cutoffs[ahead[0]]) - cutoff) // HOUR.ms} h past the cutoff asked for"
        )
    blank = np.flatnonzero(~np.isfinite(close))
    if len(blank):
        raise DataError(f"{symbols[blank[0]]} has never traded", hint="wait for its candles")
