"""The base model: a coin without a model of its own is served at once, sensibly, and trained further from there."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cryptod.errors import CheckpointError
from cryptod.forecast.baselines import REFERENCES
from cryptod.forecast.features import WARM_HOURS
from cryptod.forecast.model import Model
from cryptod.forecast.predictor import Predictor
from cryptod.market import HOUR, NO_TRADE, NOT_FETCHED
from cryptod.store.checkpoints import read_checkpoint, write_checkpoint
from cryptod.training import base_model
from tests import markets
from tests.bench.base_model import judge
from tests.bench.forecast_experiment import Folder
from tests.markets import CUTOFF
from tests.panels import blank

SHIPPED = Path(__file__).parent.parent / "models" / "base"
SOURCE, TRAINED = markets.world()
SYMBOLS = SOURCE.held.symbols
BASE = base_model.distil(TRAINED.models[0], {})


def test_the_shipped_base_model_is_read_by_todays_code() -> None:
    model = base_model.load(SHIPPED)
    assert model.symbols == (base_model.ANY,)
    assert model.meta["card"]["judged"]["skill"]["random_walk"] > 0.05
    assert (SHIPPED.parent / "README.md").read_text().count(f"{model.meta['card']['judged']['crps_e4']['base']:.3f}") == 1


def test_the_cards_figures_are_those_of_a_quick_run() -> None:
    candles = os.environ.get("CRYPTOD_CANDLES")
    if not candles:
        pytest.skip("CRYPTOD_CANDLES names no folder of real candles")
    quick = base_model.load(SHIPPED).meta["card"]["quick"]
    found = judge(Folder(Path(candles), False), base_model.load(SHIPPED), tuple(quick["symbols"]), quick["start"], quick["end"])
    assert found["coins"] == quick["coins"]
    assert found["crps_e4"] == pytest.approx(quick["crps_e4"], rel=2e-3)
    assert found["coverage"] == pytest.approx(quick["coverage"], abs=0.3)


def test_a_coin_that_no_model_knows_is_served_with_a_width_of_its_own() -> None:
    strangers = SYMBOLS[4:]
    adopted, left_out = base_model.adopt(BASE, SOURCE.panel(strangers, CUTOFF - base_model.HOURS * HOUR.ms, CUTOFF))
    assert left_out == {}
    assert adopted is not None
    made = Predictor((adopted,)).forecast(strangers, CUTOFF)
    assert all("base" in flags for flags in made.flags)
    assert np.isfinite(made.quantiles).all()
    assert (np.diff(made.quantiles, axis=-1) >= 0).all()
    own = Predictor(TRAINED.models[1:]).forecast(strangers, CUTOFF)
    assert not any("base" in flags for flags in own.flags)
    ratio = (made.quantiles[..., 6] - made.quantiles[..., 2]) / (own.quantiles[..., 6] - own.quantiles[..., 2])
    assert (np.abs(np.log(ratio)) < 0.6).all()
    walk = adopted.tables[REFERENCES.index("random_walk")]
    assert np.allclose(walk[0] / np.sqrt(adopted.rest[0]), walk[1] / np.sqrt(adopted.rest[1]), rtol=1e-4)


def test_what_is_adopted_is_a_checkpoint_like_any_other_and_is_trained_on_from_there(tmp_path: Path) -> None:
    strangers = SYMBOLS[4:]
    adopted, _ = base_model.adopt(BASE, SOURCE.panel(strangers, CUTOFF - base_model.HOURS * HOUR.ms, CUTOFF))
    assert adopted is not None
    name = write_checkpoint(tmp_path, "1-base", adopted.arrays(), adopted.document()).name
    again = Model.from_checkpoint(name, *read_checkpoint(tmp_path, name))
    assert again.kind == "base"
    updated = markets.train(SOURCE, tmp_path, (strangers,), kind="incremental", champions=dict.fromkeys(strangers, name))
    assert [done.error for done in updated.failed] == []
    [model] = updated.models
    assert model.kind == "incremental"
    assert "champion" in updated.done[0].reason or "worse than the champion" in updated.done[0].reason
    distance = max(float(np.abs(model.weights[key] - again.weights[key]).max()) for key in model.weights)
    assert 0 < distance < 0.1


def test_coins_that_are_too_young_or_silent_are_left_out_with_a_reason_and_cost_the_others_nothing() -> None:
    panel = SOURCE.panel(SYMBOLS[4:], CUTOFF - base_model.HOURS * HOUR.ms, CUTOFF)
    whole, _ = base_model.adopt(BASE, panel)
    odd = SOURCE.panel(SYMBOLS[4:], CUTOFF - base_model.HOURS * HOUR.ms, CUTOFF)
    blank(odd, 0, slice(0, base_model.HOURS - WARM_HOURS + 1), NOT_FETCHED)
    blank(odd, 1, slice(base_model.HOURS - 200, base_model.HOURS), NO_TRADE)
    adopted, left_out = base_model.adopt(BASE, odd)
    assert Counter(reason.split(":")[0] for reason in left_out.values()) == {"too young": 1, "halted or delisted": 1}
    assert adopted is not None
    assert whole is not None
    assert adopted.symbols == SYMBOLS[6:]
    assert np.array_equal(adopted.tables, whole.tables[:, 2:])
    blank(odd, 2, slice(0, base_model.HOURS), NOT_FETCHED)
    blank(odd, 3, slice(0, base_model.HOURS), NOT_FETCHED)
    assert base_model.adopt(BASE, odd).model is None


def test_a_coin_that_was_listed_again_is_adopted_after_a_week_and_with_what_came_since() -> None:
    panel = SOURCE.panel(SYMBOLS[4:], CUTOFF - base_model.HOURS * HOUR.ms, CUTOFF)
    back = base_model.HOURS - WARM_HOURS - 50
    blank(panel, 0, slice(back - 400, back), NO_TRADE)
    blank(panel, 1, slice(base_model.HOURS - 500, base_model.HOURS - 100), NO_TRADE)
    blank(panel, 2, slice(1, base_model.HOURS, 3), NOT_FETCHED)
    adopted, left_out = base_model.adopt(BASE, panel)
    assert left_out == {SYMBOLS[5]: "too young: 4 days of candles, 7 are needed"}
    assert adopted is not None
    flags = Predictor((adopted,)).forecast(adopted.symbols, CUTOFF).flags
    assert [{"young", "gaps"} & set(row) for row in flags] == [{"young"}, {"young", "gaps"}, set()]
    panel.values[: back - 400, 0] *= 50.0
    panel.values[: back - 400, 0, 1] *= 1.5
    again = base_model.adopt(BASE, panel).model
    assert again is not None
    assert again.rest[0] == adopted.rest[0]


def test_what_is_no_base_model_is_refused(tmp_path: Path) -> None:
    model = TRAINED.models[0]
    write_checkpoint(tmp_path, "other", model.arrays(), model.document())
    with pytest.raises(CheckpointError, match="no base model"):
        base_model.load(tmp_path / "other")
    with pytest.raises(CheckpointError):
        base_model.load(tmp_path / "nothing")
