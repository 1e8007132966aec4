"""The base model: what many coins have in common, kept so that a coin without a model of its own is served at once.

Knows models, candles as panels and the survey; no torch, no store. `distil` makes one from a trained batch: regressions, network, season
and pooled residuals as they are, the coins' own figures averaged away. `adopt` makes an ordinary model of it for coins that have enough
candles for their features to mean something. From then on it is a checkpoint like any other: incremental updates train it further on
the coins' own candles, the gate weighs it, a full retrain replaces it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from cryptod.errors import CheckpointError
from cryptod.forecast.baselines import REFERENCES
from cryptod.forecast.features import WARM_HOURS, FeatureState
from cryptod.forecast.model import Model
from cryptod.forecast.outages import Witnesses
from cryptod.forecast.predictor import BASE
from cryptod.market import MAX_HORIZON, Float32, Panel
from cryptod.store.checkpoints import read_checkpoint
from cryptod.training import window

ANY: Final = "ANY/ANY"
"""The one coin of a base model."""
HOURS: Final = 90 * 24
"""Candles that a coin is adopted with: three half-lives of its slowest feature."""


class Adopted(NamedTuple):
    """``model``: of the coins that could be adopted, None if none could; ``left_out``: symbol -> why it could not."""

    model: Model | None
    left_out: dict[str, str]


def distil(model: Model, meta: dict[str, Any]) -> Model:
    """The base model of a trained batch: one coin, of unit variance, with the mean of the ordinary coins' residual quantiles."""
    ordinary = ~model.pegged
    tables = model.tables[:, ordinary].astype(np.float64)
    tables[REFERENCES.index("random_walk")] /= np.sqrt(model.rest[ordinary])[:, None, None]
    return replace(
        model,
        kind=BASE,
        symbols=(ANY,),
        factors=np.ones((1, MAX_HORIZON)),
        rest=np.ones(1),
        tables=np.sort(tables.mean(axis=1, keepdims=True), axis=-1).astype(np.float32),
        source=np.zeros(1, np.uint8),
        pegged=np.zeros(1, bool),
        state=FeatureState.empty(1),
        meta=meta,
    )


def shipped() -> Path:
    """The folder of the base model that came with the program: of this checkout, or what the installation put beside it."""
    checkout = Path(__file__).parents[2] / "models" / "base"
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "cryptod" / "models" / "base"


def load(folder: Path) -> Model:
    """The base model in a folder. Raises `CheckpointError` where there is none, or it is damaged, or of another version."""
    arrays, meta = read_checkpoint(folder.parent, folder.name)
    model = Model.from_checkpoint(folder.name, arrays, meta)
    if model.kind != BASE or model.symbols != (ANY,):
        raise CheckpointError(f"{folder} is no base model", hint="it has to be made by base.distil")
    return model


def adopt(base: Model, panel: Panel) -> Adopted:
    """A model for the coins of the panel (about `HOURS` hours) that have traded for `WARM_HOURS` hours and trade still.

    A coin's own figures are only its mean variance, which scales the random walk, and whether it is pegged or has gaps.
    """
    panel = window.own_history(panel)
    found = window.survey(panel, least=WARM_HOURS)
    symbols = tuple(symbol for symbol in panel.symbols if symbol not in found.left_out)
    if not symbols:
        return Adopted(None, found.left_out)
    chosen = panel.coins(symbols)
    pegged = found.pegged[[symbol not in found.left_out for symbol in panel.symbols]]
    gappy = {symbol for symbol, gaps in zip(panel.symbols, found.gappy, strict=True) if gaps}
    witnesses = Witnesses(len(panel.values))
    witnesses.scan(panel)
    recording = window.record(chosen, base.season, witnesses.dark())
    rest = recording.rest(pegged)
    count = len(symbols)
    tables: Float32 = np.repeat(base.tables, count, axis=1)
    tables[REFERENCES.index("random_walk")] *= np.sqrt(rest).astype(np.float32)[:, None, None]
    model = replace(
        base,
        symbols=symbols,
        cutoff=panel.end,
        factors=np.repeat(base.factors, count, axis=0),
        rest=rest,
        tables=tables,
        source=np.where(pegged, 1 + REFERENCES.index("random_walk"), 0).astype(np.uint8),
        pegged=pegged,
        state=recording.state,
        meta={"base": base.name, "gaps": sorted(gappy), "verdict": "adopted: the coins have no model of their own yet", "figures": {}},
    )
    return Adopted(model, found.left_out)
