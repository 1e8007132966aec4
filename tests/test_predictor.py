"""Models and streaming state together: what is served, to whom, from which candles, and what is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cryptod.errors import CheckpointError, DataError
from cryptod.forecast import distribution
from cryptod.forecast.baselines import REFERENCES
from cryptod.forecast.calibration import Calibration
from cryptod.forecast.features import FeatureState, market_terms, scan
from cryptod.forecast.learning import Learning
from cryptod.forecast.model import SOURCES, Model
from cryptod.forecast.predictor import ALONE, Forecasts, Predictor
from cryptod.market import CLOSE, HOUR, NO_TRADE, NOT_FETCHED, QUANTILE_LEVELS, Panel
from cryptod.store.checkpoints import read_checkpoint
from tests import markets
from tests.markets import AHEAD, CUTOFF, HOURS
from tests.panels import blank

SOURCE, TRAINED = markets.world()
MODELS = TRAINED.models
SYMBOLS = SOURCE.held.symbols


def ahead(hours: int = AHEAD) -> Panel:
    return SOURCE.panel(SYMBOLS, CUTOFF, CUTOFF + hours * HOUR.ms)


def equal(one: Forecasts, other: Forecasts) -> bool:
    return (
        np.array_equal(one.quantiles, other.quantiles)
        and np.array_equal(one.p_up, other.p_up)
        and np.array_equal(one.volatility, other.volatility)
        and all(np.array_equal(one.said[name], other.said[name]) for name in REFERENCES)
    )


def advanced(panel: Panel, models: list[Model] = MODELS) -> Predictor:
    predictor = Predictor(models)
    predictor.advance(panel)
    return predictor


def test_it_names_the_coins_that_are_behind_and_by_how_much() -> None:
    predictor = Predictor(MODELS)
    assert predictor.behind(CUTOFF) == {}
    one = ahead(2).coins(SYMBOLS[:1])
    predictor.advance(one)
    assert predictor.behind(CUTOFF + 2 * HOUR.ms) == dict.fromkeys(SYMBOLS[1:], 2 * HOUR.ms)


def test_a_model_does_not_serve_a_coin_that_stands_behind_a_symbol_since_it_was_made() -> None:
    predictor = Predictor(MODELS, renewed={SYMBOLS[0]: CUTOFF + HOUR.ms, SYMBOLS[1]: CUTOFF})
    assert SYMBOLS[0] not in predictor
    assert set(predictor.symbols) == set(SYMBOLS[1:])
    others = Predictor(MODELS).forecast(SYMBOLS[1:], CUTOFF)
    assert np.allclose(predictor.forecast(SYMBOLS[1:], CUTOFF).close, others.close)


def test_a_forecast_has_every_part_in_the_agreed_shape() -> None:
    found = Predictor(MODELS).forecast(SYMBOLS, CUTOFF)
    assert found.symbols == SYMBOLS
    assert found.cutoff == CUTOFF
    assert (found.cutoffs == CUTOFF).all()
    assert found.quantiles.shape == (8, 24, 9)
    assert found.quantiles.dtype == np.float32
    assert np.isfinite(found.quantiles).all()
    assert (np.diff(found.quantiles, axis=-1) >= 0).all()
    for values in (found.p_up, found.volatility, found.expected_return):
        assert values.shape == (8, 24)
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
    assert ((found.p_up > 0) & (found.p_up < 1)).all()
    assert (found.volatility > 0).all()
    assert set(found.said) == set(SOURCES)
    assert all(values.shape == (8, 24, 9) and (np.diff(values, axis=-1) >= 0).all() for values in found.said.values())
    assert np.array_equal(found.close, SOURCE.panel(SYMBOLS, CUTOFF - HOUR.ms, CUTOFF).values[-1, :, CLOSE])
    assert found.models == tuple(model.name for model in MODELS for _ in model.symbols)
    assert set(found.sources) <= set(SOURCES)


def test_widths_grow_with_the_horizon() -> None:
    found = Predictor(MODELS).forecast(SYMBOLS, CUTOFF)
    own = [row for row, source in enumerate(found.sources) if source == "model"]
    width = found.quantiles[own][..., -1] - found.quantiles[own][..., 0]
    assert own
    assert (np.diff(width, axis=-1) >= -1e-7).all()


def test_the_other_figures_follow_from_the_quantiles() -> None:
    found = Predictor(MODELS).forecast(SYMBOLS, CUTOFF)
    exact = found.quantiles.astype(float)
    assert np.allclose(found.p_up, 1 - distribution.probability_below(exact, np.zeros((8, 24))), atol=1e-6)
    mean, deviation = distribution.mean_and_deviation(exact)
    assert np.allclose(found.expected_return, mean, atol=1e-7)
    assert np.allclose(found.volatility, deviation, rtol=1e-5)
    assert np.allclose(found.score, mean[:, -1] / deviation[:, -1], atol=1e-6)


def test_one_coin_alone_is_forecast_as_in_company() -> None:
    predictor = advanced(ahead())
    together = predictor.forecast(SYMBOLS, CUTOFF + AHEAD * HOUR.ms)
    for row in (0, 5):
        alone = predictor.forecast(SYMBOLS[row : row + 1], CUTOFF + AHEAD * HOUR.ms)
        assert np.allclose(alone.quantiles[0], together.quantiles[row], rtol=1e-5, atol=1e-9)
    backwards = predictor.forecast(SYMBOLS[::-1], CUTOFF + AHEAD * HOUR.ms)
    assert np.allclose(backwards.quantiles[::-1], together.quantiles, rtol=1e-5, atol=1e-9)
    assert backwards.symbols == SYMBOLS[::-1]


def test_hour_by_hour_and_all_at_once_forecast_the_same() -> None:
    at_once, stepped = advanced(ahead()), Predictor(MODELS)
    for hour in range(AHEAD):
        stepped.advance(ahead().rows(CUTOFF + hour * HOUR.ms, CUTOFF + (hour + 1) * HOUR.ms))
    assert equal(at_once.forecast(SYMBOLS, CUTOFF + AHEAD * HOUR.ms), stepped.forecast(SYMBOLS, CUTOFF + AHEAD * HOUR.ms))


def test_the_checkpoint_s_state_is_that_of_the_whole_window() -> None:
    for model in MODELS:
        state = FeatureState.empty(4)
        panel = SOURCE.panel(model.symbols, CUTOFF - HOURS * HOUR.ms, CUTOFF)
        for _ in scan(state, panel, model.season):
            pass
        assert all(np.array_equal(value, state.arrays()[name]) for name, value in model.state.arrays().items())


def test_candles_after_the_cutoff_change_nothing_issued_by_then() -> None:
    changed = ahead()
    changed.values[24:] *= 1.7
    middle = CUTOFF + 24 * HOUR.ms
    one, other = advanced(ahead(24)), advanced(changed.rows(CUTOFF, middle))
    assert equal(one.forecast(SYMBOLS, middle), other.forecast(SYMBOLS, middle))
    other.advance(changed)
    with pytest.raises(DataError, match="past the cutoff"):
        other.forecast(SYMBOLS, middle)


def test_a_coin_with_missing_candles_is_forecast_from_its_last_and_flagged() -> None:
    panel = ahead()
    panel.status[-3:, 2] = NOT_FETCHED
    panel.values[-3:, 2] = np.nan
    predictor = advanced(panel)
    end = CUTOFF + AHEAD * HOUR.ms
    found = predictor.forecast(SYMBOLS, end)
    assert found.cutoffs[2] == end - 3 * HOUR.ms == predictor.needs(SYMBOLS[2])
    assert "late" in found.flags[2]
    assert not any("late" in flags for flags in found.flags[:2])
    predictor.advance(ahead())
    assert predictor.needs(SYMBOLS[2]) == end
    assert equal(predictor.forecast(SYMBOLS, end), advanced(ahead()).forecast(SYMBOLS, end))


def test_a_halted_coin_is_flagged_and_no_narrower_than_its_usual_moves() -> None:
    panel = ahead()
    panel.status[10:, 1] = NO_TRADE
    panel.values[10:, 1] = np.nan
    found = advanced(panel).forecast(SYMBOLS, CUTOFF + AHEAD * HOUR.ms)
    assert "halted" in found.flags[1]
    assert "halted" not in found.flags[0]
    usual = found.said["random_walk"][1]
    assert (found.quantiles[1, :, 0] <= usual[:, 0]).all()
    assert (found.quantiles[1, :, -1] >= usual[:, -1]).all()
    assert (np.diff(found.quantiles, axis=-1) >= 0).all()


def test_the_longer_a_halt_the_wider_are_its_intervals() -> None:
    panel = ahead()
    blank(panel, 1, slice(10, AHEAD))
    found = [advanced(panel.rows(CUTOFF, CUTOFF + hours * HOUR.ms)).forecast(SYMBOLS, CUTOFF + hours * HOUR.ms) for hours in (36, 48)]
    for one, idle in zip(found, (26, 38), strict=True):
        usual = one.said["random_walk"][1]
        longer = np.sqrt(1 + idle / np.arange(1, 25))[:, None]
        assert (one.quantiles[1, :, :4] <= usual[:, :4] * longer * 0.999).all()
        assert (one.quantiles[1, :, 5:] >= usual[:, 5:] * longer * 0.999).all()
    assert found[1].quantiles[1, 0, -1] > found[0].quantiles[1, 0, -1]


def test_young_coins_and_those_with_gaps_are_called_so() -> None:
    state = MODELS[0].state.coins(np.arange(4))
    state.count[:] = (90 * 24, 90 * 24 - 1, 5000, 5000)
    model = replace(MODELS[0], state=state, meta=MODELS[0].meta | {"gaps": [SYMBOLS[2]]})
    flags = Predictor([model, MODELS[1]]).forecast(SYMBOLS, CUTOFF).flags
    assert [{"young", "gaps"} & set(row) for row in flags[:4]] == [set(), {"young"}, {"gaps"}, set()]


def test_a_violent_hour_is_called_unusual() -> None:
    panel = ahead(1)
    panel.values[0, 3, 1:4] *= (3.0, 1.0, 2.9)
    panel.values[0, 3, 4] *= 100
    found = advanced(panel).forecast(SYMBOLS, CUTOFF + HOUR.ms)
    assert "unusual" in found.flags[3]
    assert found.strangeness[3] > 2 * np.delete(found.strangeness, 3).max()


def test_a_reference_serves_where_the_checkpoint_says_so() -> None:
    for place, name in enumerate(SOURCES[1:], start=1):
        models = [replace(model, source=np.full(4, place, np.uint8)) for model in MODELS]
        found = Predictor(models).forecast(SYMBOLS, CUTOFF)
        assert np.array_equal(found.quantiles, found.said[name])
        assert set(found.sources) == {name}
        assert all({"reference", *SOURCES[1:]} & set(flags) == {"reference", name} for flags in found.flags)


def test_a_model_can_be_told_to_have_a_reference_serve_but_for_its_pegged_coins() -> None:
    model = replace(MODELS[0], pegged=np.array([True, False, False, False]), source=np.array([1, 0, 4, 0], np.uint8))
    assert model.served_by("model") is model, "the gate's choices stay"
    told = model.served_by("ewma")
    assert told.source.tolist() == [1, 2, 2, 2]
    assert np.array_equal(
        Predictor([told]).forecast(SYMBOLS[1:4], CUTOFF).quantiles, Predictor([model]).forecast(SYMBOLS[1:4], CUTOFF).said["ewma"]
    )


def test_a_pegged_coin_widens_when_it_leaves_its_peg() -> None:
    model = replace(MODELS[0], pegged=np.array([True, False, False, False]), source=np.array([1, 0, 0, 0], np.uint8))
    calm = Predictor([model]).forecast(model.symbols, CUTOFF)
    assert "pegged" in calm.flags[0]
    assert "unpegged" not in calm.flags[0]
    loose = Predictor([replace(model, rest=model.rest / 1000)]).forecast(model.symbols, CUTOFF)
    assert "unpegged" in loose.flags[0]
    assert (loose.quantiles[0, :, -1] > 3 * calm.quantiles[0, :, -1]).all()
    first = loose.quantiles[0, 0]
    assert (np.abs(loose.quantiles[0, 23, [0, -1]]) >= 0.999 * np.sqrt(24) * np.abs(first[[0, -1]])).all(), "nothing draws it back"
    assert (np.diff(loose.quantiles, axis=-1) >= 0).all()


def test_a_pegged_coin_that_never_moved_has_a_width_all_the_same() -> None:
    tables = MODELS[0].tables.copy()
    tables[0, 0] = 0.0
    pegged, source = np.array([True, False, False, False]), np.array([1, 0, 0, 0], np.uint8)
    found = Predictor([replace(MODELS[0], pegged=pegged, source=source, tables=tables)]).forecast(SYMBOLS[:1], CUTOFF)
    assert (np.diff(found.quantiles, axis=-1) > 0).all()
    assert 0 < found.quantiles[0, 0, -1] < found.quantiles[0, 23, -1] < 1e-3
    assert "unusual" not in found.flags[0]


def test_a_coin_in_several_models_is_served_by_the_last() -> None:
    newer = replace(MODELS[0], name="newer", residuals=MODELS[0].residuals * 2)
    found = Predictor([*MODELS, newer]).forecast(SYMBOLS, CUTOFF)
    assert found.models[:4] == ("newer",) * 4
    assert found.models[4:] == (MODELS[1].name,) * 4
    older = Predictor([newer, *MODELS]).forecast(SYMBOLS, CUTOFF)
    assert equal(older, Predictor(MODELS).forecast(SYMBOLS, CUTOFF))


def test_models_of_different_seasons_serve_side_by_side() -> None:
    season = replace(MODELS[1].season, variance=np.roll(MODELS[1].season.variance, 1))
    predictor = advanced(ahead(3), [MODELS[0], replace(MODELS[1], season=season)])
    found = predictor.forecast(SYMBOLS, CUTOFF + 3 * HOUR.ms)
    assert (found.cutoffs == CUTOFF + 3 * HOUR.ms).all()
    assert np.isfinite(found.quantiles).all()


def test_coins_of_no_model_are_refused_and_their_candles_ignored() -> None:
    predictor = Predictor(MODELS[:1])
    predictor.advance(ahead())
    with pytest.raises(DataError, match=SYMBOLS[7]):
        predictor.forecast((SYMBOLS[0], SYMBOLS[7]), CUTOFF + AHEAD * HOUR.ms)
    assert SYMBOLS[0] in predictor
    assert SYMBOLS[7] not in predictor
    assert predictor.symbols == SYMBOLS[:4]


def test_a_predictor_without_models_refuses_everything_politely() -> None:
    predictor = Predictor(())
    predictor.advance(ahead())
    assert predictor.symbols == ()
    assert np.isfinite(predictor.market(CUTOFF)).all()
    with pytest.raises(DataError):
        predictor.forecast(SYMBOLS[:1], CUTOFF)


def test_what_was_learned_is_applied_last_to_whoever_serves() -> None:
    learning = Learning()
    quantiles = np.sort(np.random.default_rng(0).normal(size=(1, 24, 9)), axis=-1).astype(np.float32)
    for _ in range(50):
        learning.calibration.update(SYMBOLS[:1], quantiles, np.full((1, 24), 9.0))
    plain = Predictor(MODELS).forecast(SYMBOLS, CUTOFF)
    found = Predictor(MODELS, learning).forecast(SYMBOLS, CUTOFF)
    combined = learning.combination.combine(plain.said)
    alone = np.array([not ALONE.isdisjoint(flags) for flags in plain.flags])
    expected = learning.calibration.apply(SYMBOLS, np.where(alone[:, None, None], plain.quantiles, combined))
    assert np.array_equal(found.quantiles, expected)
    assert (found.volatility[0] > plain.volatility[0]).all()
    assert np.array_equal(found.said["ewma"], plain.said["ewma"])


def spoil(name: str, change: Callable[[np.ndarray], Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays, meta = read_checkpoint(TRAINED.root, MODELS[0].name)
    return arrays | {name: change(arrays[name].copy())}, meta


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("harx", lambda a: a[:-1]),
        ("harx", lambda a: a.astype(np.float32)),
        ("residuals", lambda a: a * np.nan),
        ("residuals", lambda a: a[:, ::-1]),
        ("residuals", lambda a: a * 0),
        ("tables", lambda a: -a),
        ("source", lambda a: a + 200),
        ("season.variance", lambda a: -a),
        ("state.slow", lambda a: a[:, :-1]),
        ("state.at", lambda a: a.astype(np.float64)),
        ("network.w1", lambda a: a * np.inf),
    ],
)
def test_a_spoilt_checkpoint_is_refused(name: str, change: Callable[[np.ndarray], Any]) -> None:
    arrays, meta = spoil(name, change)
    with np.errstate(invalid="ignore"), pytest.raises(CheckpointError):
        Model.from_checkpoint("spoilt", arrays, meta)


def test_a_checkpoint_of_another_schema_or_without_its_meta_is_refused() -> None:
    arrays, meta = read_checkpoint(TRAINED.root, MODELS[0].name)
    with pytest.raises(CheckpointError, match="schema"):
        Model.from_checkpoint("old", arrays, meta | {"schema": 0})
    for missing in ("symbols", "cutoff", "kind"):
        with pytest.raises(CheckpointError):
            Model.from_checkpoint("bare", arrays, {key: value for key, value in meta.items() if key != missing})
    with pytest.raises(CheckpointError):
        Model.from_checkpoint("other", arrays, meta | {"symbols": ["A/USDT"]})


def test_a_model_survives_its_checkpoint_to_the_last_bit() -> None:
    again = [Model.from_checkpoint(model.name, model.arrays(), model.document()) for model in MODELS]
    assert equal(Predictor(again).forecast(SYMBOLS, CUTOFF), Predictor(MODELS).forecast(SYMBOLS, CUTOFF))


def test_a_miss_costs_little() -> None:
    predictor = advanced(ahead())
    best = min(_seconds(lambda: predictor.forecast(SYMBOLS[:1], CUTOFF + AHEAD * HOUR.ms)) for _ in range(20))
    assert best < 0.005, f"a forecast of one coin took {best * 1000:.1f} ms"
    assert len(QUANTILE_LEVELS) == 9


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def test_the_market_s_mean_leaves_out_the_halted_the_silent_the_pegged_and_the_young() -> None:
    panel = ahead(40)
    panel.status[5:, 0] = NO_TRADE  # halted
    panel.status[5:, 1] = NOT_FETCHED  # silent for longer than a day
    panel.values[5:, :2] = np.nan
    models = [replace(MODELS[0], pegged=np.array([False, False, True, False])), MODELS[1]]
    young = MODELS[1].state.coins(np.arange(4))
    young.count[0] = 10.0
    models[1] = replace(MODELS[1], state=young)
    predictor = advanced(panel, models)
    cutoff = CUTOFF + 40 * HOUR.ms
    kept = [3, 5, 6, 7]
    state = FeatureState.empty(8)
    whole = SOURCE.panel(SYMBOLS, CUTOFF - HOURS * HOUR.ms, cutoff)
    for _ in scan(state, whole, MODELS[0].season):
        pass
    expected = market_terms(state.own[kept]).mean(axis=0)
    assert np.allclose(predictor.market(cutoff), expected, atol=1e-5)


def test_a_coin_fetched_ahead_of_the_others_is_not_the_market() -> None:
    panel = ahead(5)
    panel.status[-1, 1:] = NOT_FETCHED
    panel.values[-1, 1:] = np.nan
    predictor = advanced(panel)
    last = CUTOFF + 5 * HOUR.ms
    own = np.concatenate([group.state.own for group in predictor._groups])
    assert np.allclose(predictor.market(last), market_terms(own).mean(axis=0), atol=1e-5)
    apart = predictor.forecast(SYMBOLS, last)
    assert np.array_equal(["late" in flags for flags in apart.flags], [False] + [True] * 7)
    behind = advanced(ahead(4)).market(last - HOUR.ms)
    assert np.abs(predictor.market(last) - behind).max() < 0.3, "seven of eight have not moved"


def test_nothing_is_forecast_where_nothing_is_asked() -> None:
    found = Predictor(MODELS).forecast((), CUTOFF)
    assert found.quantiles.shape == (0, 24, 9)
    assert found.flags == ()


def test_a_coin_that_never_traded_is_refused() -> None:
    state = MODELS[0].state.coins(np.arange(4))
    state.close[2] = np.nan
    with pytest.raises(DataError, match="never traded"):
        Predictor([replace(MODELS[0], state=state)]).forecast(SYMBOLS[:4], CUTOFF)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("factors", lambda a: -a),
        ("input_scale", lambda a: a * 0),
        ("limit", lambda a: a * 0),
        ("rest", lambda a: -a),
        ("location", lambda a: a[:, :-1]),
        ("state.close", lambda a: a * 0),
        ("state.winsor", lambda a: -a),
    ],
)
def test_a_scale_that_is_none_is_refused(name: str, change: Callable[[np.ndarray], Any]) -> None:
    arrays, meta = spoil(name, change)
    with pytest.raises(CheckpointError):
        Model.from_checkpoint("spoilt", arrays, meta)


def test_a_checkpoint_with_a_coin_twice_or_with_none_is_refused() -> None:
    arrays, meta = read_checkpoint(TRAINED.root, MODELS[0].name)
    for symbols in ([SYMBOLS[0], SYMBOLS[0], *SYMBOLS[2:4]], []):
        with pytest.raises(CheckpointError):
            Model.from_checkpoint("twice", arrays, meta | {"symbols": symbols})


def test_calibration_that_differs_from_horizon_to_horizon_crosses_no_quantiles() -> None:
    learning, random = Learning(), np.random.default_rng(1)
    learning.calibration.update(SYMBOLS, np.zeros((8, 24, 9), np.float32), np.zeros((8, 24)))
    state = learning.calibration.export()
    state |= {"theta": random.uniform(-1.5, 1.5, (8, 24)), "shape": random.uniform(-1.5, 1.5, (24, 4))}
    learning.calibration = Calibration.restore(state)
    found = Predictor(MODELS, learning).forecast(SYMBOLS, CUTOFF)
    assert (np.diff(found.quantiles, axis=-1) >= 0).all()
    assert np.isfinite(found.volatility).all()
