"""A trained batch: what a checkpoint holds, and the quantiles that follow from features.

Knows arrays, features and the references; no store, no clock, no torch. A forecast of log return over h hours is

    quantile = scale(coin, h) x factor(coin, h) x (location(coin, h) + residual quantile(h, level))

with log scale = half (HARX + network correction) + half the log of the season ahead + a daily wave, raised where the width would shrink
with h. The season is that of the range within an hour; the wave (`baselines.daily_wave`) is by what returns differ from it. The
residuals' median is 0 and the location a small reversal of moves against the market: the window's drift is not extrapolated. The
references are issued beside it, and `source` says per coin which of them all is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import numpy as np

from cryptod.errors import CheckpointError
from cryptod.forecast import baselines, features, network
from cryptod.forecast.baselines import REFERENCES
from cryptod.forecast.features import COLUMN, FeatureState
from cryptod.forecast.season import WEEK, Season
from cryptod.market import MAX_HORIZON, QUANTILE_LEVELS, Bool, Float32, Float64, Int64, UInt8

SOURCES: Final = ("model", *REFERENCES)
"""Who may serve a coin; `Model.source` holds places in this tuple."""

LOOSE_PEG: Final = 3.0
"""A pegged coin has left its peg while its volatility of the last hour, hours or day is so many times that of its training window; its
quantiles are as many times as wide then, and grow with the square root of time: nothing draws the price back any more.
"""
_LATELY: Final = [COLUMN[f"level_{k}"] for k in (1, 4, 24)]
_TICK: Final = 1.01
"""By so much are a pegged coin's quantiles wider than its past moves: the same tick is another return at another price."""
_STILL: Final = (
    5e-5 * np.sqrt(np.arange(1.0, MAX_HORIZON + 1))[:, None] * np.array([NormalDist().inv_cdf(p) for p in QUANTILE_LEVELS])
).astype(np.float32)
"""Quantiles [24, 9] that a pegged coin's are never inside of, those of .005 % an hour: what never moved can still move by a tick."""

_ALL: Final = slice(None)


class Quantiles(NamedTuple):
    """Quantiles of the cumulative log return, float32 [..., n, 24, 9]: of whoever serves each coin, and of each of `SOURCES`."""

    served: Float32
    said: dict[str, Float32]


@dataclass(frozen=True, slots=True)
class Model:
    """The current parameters of one batch of n coins.

    ``harx`` [24, HARX_TERMS], ``har`` [24, HAR_TERMS], ``wave`` [24, 2], ``residuals`` [24, 9], ``factors`` [n, 24], ``rest`` [n]
    (mean variance per hour in training): float64. ``weights``, ``input_mean``, ``input_scale``: the network's, float32.
    ``tables``: float32 [4, n, 24, 9] residual quantiles of the references. ``source``: uint8 [n], places in `SOURCES`.
    ``pegged``: bool [n]. ``precision`` [INPUTS, INPUTS], ``limit``: for `strangeness`. ``state``: the recursions at
    ``cutoff``.
    """

    name: str
    kind: str
    symbols: tuple[str, ...]
    cutoff: int
    season: Season
    harx: Float64
    har: Float64
    wave: Float64
    weights: dict[str, Float32]
    input_mean: Float32
    input_scale: Float32
    location: Float64
    residuals: Float64
    factors: Float64
    rest: Float64
    tables: Float32
    source: UInt8
    pegged: Bool
    precision: Float64
    limit: float
    state: FeatureState
    meta: dict[str, Any]

    def served_by(self, name: str) -> Model:
        """The same with reference ``name`` serving every coin that is not pegged; of the model's own name, as the gate has decided."""
        place = SOURCES.index(name)
        return replace(self, source=np.where(self.pegged, self.source, place).astype(np.uint8)) if place else self

    def scales(self, own: Float32, market: Float32, hours: Int64) -> Float64:
        """float64 [..., n, 24]: scale per square root of variance, season ahead included.

        ``own``: float32 [..., n, len(OWN)]; ``market``: float32 [..., len(MARKET)]; ``hours``: int64 [...], hour of the
        week that opens at the cutoff.
        """
        log_variance = baselines.harx_terms(own, market) @ self.harx.T + self.correction(own, market)
        ahead = baselines.season_scale(self.season.ahead(), hours) * np.exp(baselines.daily_wave(hours) @ self.wave.T)[..., None, :]
        return baselines.widening(np.exp(0.5 * log_variance) * ahead, self.residuals[:, -1] - self.residuals[:, 0])

    def correction(self, own: Float32, market: Float32) -> Float32:
        """float32 [..., n, 24]: the network's part of the log variance."""
        raw = network.standardise(network.inputs(own, market), self.input_mean, self.input_scale)
        found = network.forward(self.weights, raw.reshape(-1, raw.shape[-1]))
        return np.asarray(found.reshape(*raw.shape[:-1], MAX_HORIZON), np.float32)

    def quantiles(self, own: Float32, market: Float32, hours: Int64, coins: Int64) -> Quantiles:
        """Quantiles for the coins in columns ``coins`` [n] of this model, of features as in `scales`."""
        said = {SOURCES[0]: self.own_quantiles(own, market, hours, coins)}
        said |= {name: self.reference_quantiles(name, own, market, hours, coins) for name in REFERENCES}
        source = self.source[coins]
        served = said[SOURCES[0]].copy()
        for place in np.unique(source[source > 0]):
            served[..., source == place, :, :] = said[SOURCES[place]][..., source == place, :, :]
        if self.pegged[coins].any():
            loose = self.looseness(own, coins)
            served *= np.where(self.pegged[coins], _TICK * loose, 1.0)[..., None, None].astype(np.float32)
            free = served[..., :1, :] * np.sqrt(np.arange(1.0, MAX_HORIZON + 1))[:, None].astype(np.float32)
            wider = np.where(free < 0, np.minimum(free, served), np.maximum(free, served))
            served = np.where(((loose > 1.0) & self.pegged[coins])[..., None, None], wider, served)
            wider = np.where(_STILL < 0, np.minimum(served, _STILL), np.maximum(served, _STILL))
            served = np.where(self.pegged[coins][:, None, None], wider, served)
        return Quantiles(served, said)

    def own_quantiles(self, own: Float32, market: Float32, hours: Int64, coins: Int64, horizons: Int64 | slice = _ALL) -> Float32:
        """The model's, whoever serves, at some of the horizons: float32 [..., n, len(horizons), 9]."""
        scale = (self.scales(own, market, hours) * self.factors[coins])[..., horizons].astype(np.float32)
        location = (baselines.location_terms(own, market) @ self.location[horizons].T).astype(np.float32)
        return scale[..., None] * (location[..., None] + self.residuals[horizons].astype(np.float32))

    def reference_quantiles(
        self, name: str, own: Float32, market: Float32, hours: Int64, coins: Int64, horizons: Int64 | slice = _ALL
    ) -> Float32:
        """Those of reference ``name``, whoever serves."""
        ahead = baselines.season_scale(self.season.ahead()[:, horizons], hours)
        scale = baselines.reference_scales(name, own, market, ahead, self.har[horizons])
        return np.asarray(scale[..., None].astype(np.float32) * self.tables[REFERENCES.index(name)][coins][:, horizons])

    def looseness(self, own: Float32, coins: Int64) -> Float64:
        """float64 [..., n]: 1 while a coin is as calm as in training, how many times as much it moves once that is `LOOSE_PEG` or more."""
        lately = np.exp(0.5 * own[..., _LATELY].max(axis=-1).astype(np.float64)) / np.sqrt(self.rest[coins] + 1e-9)
        return np.where(lately > LOOSE_PEG, lately, 1.0)

    def strangeness(self, own: Float32, market: Float32) -> Float64:
        """float64 [..., n]: Mahalanobis distance of the network's inputs from the training window's, 1 where 1 % of the
        training rows lay beyond.
        """
        raw = (network.inputs(own, market) - self.input_mean) / self.input_scale
        return np.asarray(np.sqrt(np.maximum(((raw @ self.precision) * raw).sum(axis=-1), 0.0)) / self.limit)

    def arrays(self) -> dict[str, np.ndarray]:
        """What a checkpoint stores, by name."""
        return {
            "season.variance": self.season.variance,
            "season.volume": self.season.volume,
            **{f"network.{name}": value for name, value in self.weights.items()},
            **{f"state.{name}": value for name, value in self.state.arrays().items()},
            **{name: getattr(self, name) for name in _shapes(0)},
            "pegged": self.pegged.astype(np.uint8),
            "limit": np.array([self.limit]),
        }

    def document(self) -> dict[str, Any]:
        """The checkpoint's meta: ``meta`` and what identifies the model."""
        return {
            **self.meta,
            "schema": features.SCHEMA,
            "kind": self.kind,
            "symbols": list(self.symbols),
            "cutoff": self.cutoff,
        }

    @classmethod
    def from_checkpoint(cls, name: str, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Model:
        """The model of a checkpoint, or `CheckpointError` where anything is missing, misshapen, not finite or of another schema."""
        if meta.get("schema") != features.SCHEMA:
            raise CheckpointError(
                f"checkpoint {name}: feature schema {meta.get('schema')!r}, this version needs {features.SCHEMA}",
                hint="run: cryptoctl train full",
            )
        try:
            symbols = tuple(str(symbol) for symbol in meta["symbols"])
            kind, cutoff = str(meta["kind"]), int(meta["cutoff"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"checkpoint {name}: its meta lacks or garbles {error}") from error
        if not symbols or len(set(symbols)) != len(symbols):
            raise CheckpointError(f"checkpoint {name}: no coins, or one of them twice")
        found = {}
        expected = {
            **_shapes(len(symbols)),
            "season.variance": ((WEEK,), np.float64),
            "season.volume": ((WEEK,), np.float64),
            "pegged": ((len(symbols),), np.uint8),
            "limit": ((1,), np.float64),
        }
        for key, (shape, dtype) in expected.items():
            given = arrays.get(key)
            if given is None or given.shape != shape or given.dtype != dtype:
                raise CheckpointError(f"checkpoint {name}: {key} is missing or not {np.dtype(dtype)} {shape}")
            if not np.isfinite(given).all():
                raise CheckpointError(f"checkpoint {name}: {key} is not finite")
            found[key] = given
        if (
            not (found["season.variance"] > 0).all()
            or not (np.diff(found["residuals"]) >= 0).all()
            or not (np.diff(found["tables"]) >= 0).all()
        ):
            raise CheckpointError(f"checkpoint {name}: a season that is not positive, or quantiles that cross")
        if not (found["source"] < len(SOURCES)).all() or not (found["residuals"][:, -1] > found["residuals"][:, 0]).all():
            raise CheckpointError(f"checkpoint {name}: an unknown source, or residuals without width")
        if not all((found[key] > 0).all() for key in ("factors", "input_scale", "limit")) or (found["rest"] < 0).any():
            raise CheckpointError(f"checkpoint {name}: a scale that is not positive")
        weights = {key.removeprefix("network."): value for key, value in arrays.items() if key.startswith("network.")}
        network.check(weights)
        state = FeatureState.from_arrays(
            {key.removeprefix("state."): value for key, value in arrays.items() if key.startswith("state.")}, len(symbols)
        )
        return cls(
            name=name,
            kind=kind,
            symbols=symbols,
            cutoff=cutoff,
            season=Season(found["season.variance"], found["season.volume"]),
            weights=weights,
            pegged=found["pegged"] > 0,
            limit=float(found["limit"][0]),
            state=state,
            meta=dict(meta),
            **{key: found[key] for key in _shapes(0)},
        )


def _shapes(coins: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Arrays of a checkpoint that a model keeps under the same name."""
    levels = len(QUANTILE_LEVELS)
    return {
        "harx": ((MAX_HORIZON, baselines.HARX_TERMS), np.float64),
        "har": ((MAX_HORIZON, baselines.HAR_TERMS), np.float64),
        "wave": ((MAX_HORIZON, baselines.WAVE_TERMS), np.float64),
        "input_mean": ((network.INPUTS,), np.float32),
        "input_scale": ((network.INPUTS,), np.float32),
        "location": ((MAX_HORIZON, baselines.LOCATION_TERMS), np.float64),
        "residuals": ((MAX_HORIZON, levels), np.float64),
        "factors": ((coins, MAX_HORIZON), np.float64),
        "rest": ((coins,), np.float64),
        "tables": ((len(REFERENCES), coins, MAX_HORIZON, levels), np.float32),
        "source": ((coins,), np.uint8),
        "precision": ((network.INPUTS, network.INPUTS), np.float64),
    }
