"""Features: one code path for months and for an hour, no look-ahead, and what odd candles do to them."""

from __future__ import annotations

import numpy as np
import pytest

from cryptod.errors import CheckpointError
from cryptod.forecast.features import (
    COLUMN,
    HALT_HOURS,
    MARKET,
    OWN,
    FeatureState,
    Rows,
    absorb,
    market_terms,
    scan,
)
from cryptod.forecast.season import FLAT, WEEK, Season, SeasonSums, hour_of_week
from cryptod.market import CLOSE, HIGH, HOUR, LOW, NO_TRADE, NOT_FETCHED, VOLUME, Panel
from tests import markets

BUSY = Season(1.0 + 0.5 * np.sin(np.arange(WEEK)), 0.1 * np.cos(np.arange(WEEK)))


def run(panel: Panel, season: Season = BUSY, state: FeatureState | None = None) -> tuple[FeatureState, Rows]:
    state = state or FeatureState.empty(len(panel.symbols))
    return state, absorb(state, panel.values, panel.status, panel.open_times, season)


def same(one: FeatureState, other: FeatureState) -> bool:
    return all(np.array_equal(value, other.arrays()[name], equal_nan=name == "close") for name, value in one.arrays().items())


def test_hour_by_hour_and_all_at_once_are_the_same_to_the_last_bit() -> None:
    panel = markets.panel(5, 400)
    panel.status[100:103, 2] = NOT_FETCHED
    panel.status[200:202, 3] = NO_TRADE
    whole, rows = run(panel)
    step, own = FeatureState.empty(5), []
    for i in range(400):
        hour = panel.rows(panel.start + i * HOUR.ms, panel.start + (i + 1) * HOUR.ms)
        own.append(absorb(step, hour.values, hour.status, hour.open_times, BUSY).own[0])
    assert same(whole, step)
    assert np.array_equal(np.array(own)[rows.live], rows.own[rows.live])
    pieces = FeatureState.empty(5)
    for _ in scan(pieces, panel, BUSY, rows=64):
        pass
    assert same(whole, pieces)


def test_a_coin_s_features_do_not_depend_on_its_company() -> None:
    panel = markets.panel(5, 300)
    together, _ = run(panel)
    alone, _ = run(panel.coins((panel.symbols[3],)))
    assert same(together.coins(np.array([3])), alone)


def test_candles_after_an_hour_change_nothing_up_to_it() -> None:
    panel = markets.panel(4, 400)
    _, before = run(panel)
    panel.values[300:] *= 3.0
    panel.status[350:] = NOT_FETCHED
    _, after = run(panel)
    assert np.array_equal(before.own[:300], after.own[:300])
    assert not np.array_equal(before.own[300:], after.own[300:])


def test_absorbing_a_panel_twice_is_absorbing_it_once() -> None:
    panel = markets.panel(4, 300)
    once, _ = run(panel)
    twice, _ = run(panel)
    run(panel, state=twice)
    run(panel.rows(panel.start + 250 * HOUR.ms, panel.end), state=twice)
    assert same(once, twice)


def test_missing_last_candles_are_taken_when_they_come() -> None:
    panel = markets.panel(4, 300)
    whole, _ = run(panel)
    late = panel.status.copy()
    late[280:, 1] = NOT_FETCHED
    state, _ = run(Panel(panel.symbols, panel.start, panel.values, late))
    assert state.at[1] == panel.start + 280 * HOUR.ms
    assert state.at[0] == panel.end
    run(panel, state=state)
    assert same(whole, state)


def test_the_state_survives_a_checkpoint() -> None:
    panel = markets.panel(3, 300)
    whole, _ = run(panel)
    state, _ = run(panel.rows(panel.start, panel.start + 200 * HOUR.ms))
    restored = FeatureState.from_arrays({name: value.copy() for name, value in state.arrays().items()}, 3)
    run(panel, state=restored)
    assert same(whole, restored)


def test_a_garbled_state_is_refused() -> None:
    state, _ = run(markets.panel(3, 50))
    for name in state.arrays():
        with pytest.raises(CheckpointError):
            FeatureState.from_arrays({key: value for key, value in state.arrays().items() if key != name}, 3)
    with pytest.raises(CheckpointError):
        FeatureState.from_arrays(state.arrays(), 4)
    with pytest.raises(CheckpointError):
        FeatureState.from_arrays(state.arrays() | {"slow": np.full_like(state.slow, np.nan)}, 3)


def test_an_ewma_follows_its_half_life_by_its_definition() -> None:
    panel = markets.panel(1, 600)
    _, rows = run(panel, FLAT)
    log_range = np.log(panel.values[:, 0, HIGH] / panel.values[:, 0, LOW])
    variance = log_range**2 / (4 * np.log(2))
    expected, average = [], 0.0
    for t, value in enumerate(variance):
        average += max(1 - 0.5 ** (1 / 12), 1 / (t + 1)) * (min(value, np.inf) - average)
        expected.append(np.log(average + 1e-9))
    untouched = np.isclose(rows.variance[:, 0], variance)
    assert untouched.mean() > 0.99
    first_cut = int(np.argmin(untouched)) if not untouched.all() else 600
    assert np.allclose(rows.own[:first_cut, 0, COLUMN["level_12"]], expected[:first_cut], atol=1e-5)


def test_one_violent_hour_is_winsorised() -> None:
    panel = markets.panel(1, 500)
    calm, _ = run(panel)
    panel.values[400, 0, HIGH] *= 4.0
    violent, rows = run(panel)
    assert rows.variance[400, 0] < 60 * rows.variance[300:400, 0].mean()
    assert violent.own[0, COLUMN["level_672"]] - calm.own[0, COLUMN["level_672"]] < 0.2


def test_a_redenomination_is_no_return() -> None:
    panel = markets.panel(1, 500)
    plain, _ = run(panel)
    panel.values[300:, 0, :4] *= 1000.0
    panel.values[300:, 0, VOLUME] /= 1000.0
    state, rows = run(panel)
    assert rows.broken[300, 0]
    assert rows.broken.sum() == 1
    assert np.allclose(state.own, plain.own, atol=0.02)


def test_a_relisting_after_months_is_no_return() -> None:
    panel = markets.panel(1, 900)
    panel.status[300:700] = NOT_FETCHED
    panel.values[700:, 0, :4] *= np.exp(12.0)
    state, rows = run(panel)
    assert rows.broken[700, 0]
    assert not rows.live[300:700].any()
    assert np.isfinite(state.own).all()
    assert np.abs(rows.own[700:, 0, COLUMN["shock"]]).max() <= 8.0


def test_a_halted_coin_s_features_stand_still_and_a_quiet_one_s_do_not() -> None:
    panel = markets.panel(1, 500)
    panel.status[300:, 0] = NO_TRADE
    panel.values[300:, 0] = np.nan
    state, rows = run(panel)
    assert rows.live[300 : 300 + HALT_HOURS, 0].all()
    assert not rows.live[300 + HALT_HOURS :, 0].any()
    assert rows.own[310, 0, COLUMN["level_2"]] < rows.own[299, 0, COLUMN["level_2"]] - 2
    assert state.halted[0]
    assert state.at[0] == panel.end
    assert np.array_equal(state.own[0], rows.own[299 + HALT_HOURS, 0])


def test_a_flat_candle_without_volume_is_no_trade() -> None:
    panel = markets.panel(1, 100)
    flat = Panel(panel.symbols, panel.start, panel.values.copy(), panel.status.copy())
    panel.status[60:70] = NO_TRADE
    flat.values[60:70, 0, :4] = flat.values[59, 0, CLOSE]
    flat.values[60:70, 0, VOLUME] = 0.0
    assert same(run(panel)[0], run(flat)[0])


@pytest.mark.parametrize("bad", [np.nan, 0.0, -1.0, np.inf])
def test_a_candle_that_is_no_candle_counts_as_not_fetched(bad: float) -> None:
    panel = markets.panel(1, 100)
    gap = Panel(panel.symbols, panel.start, panel.values.copy(), panel.status.copy())
    gap.status[50] = NOT_FETCHED
    panel.values[50, 0, CLOSE] = bad
    assert same(run(panel)[0], run(gap)[0])


def test_a_flat_coin_that_wakes_up_is_seen_to_move() -> None:
    rows = [markets.candle(1.0, 0.0)] * 300
    panel = markets.candles(rows + [markets.candle(1.0, 0.03), markets.candle(1.03, -0.03)] * 24)
    panel.values[:300, 0, :4] = 1.0
    state, recorded = run(panel, FLAT)
    assert recorded.live.all()
    assert state.own[0, COLUMN["level_4"]] > recorded.own[299, 0, COLUMN["level_4"]] + 4


def test_a_coin_without_any_candle_stays_empty() -> None:
    panel = markets.panel(2, 50)
    panel.status[:, 1] = NOT_FETCHED
    panel.values[:, 1] = np.nan
    state, rows = run(panel)
    assert state.at[1] == 0
    assert np.isnan(state.close[1])
    assert state.count[1] == 0
    assert np.isfinite(rows.own).all()


def test_market_terms_are_named_and_drops_are_never_positive() -> None:
    _, rows = run(markets.panel(3, 300))
    terms = market_terms(rows.own)
    assert terms.shape == (300, 3, len(MARKET))
    assert np.array_equal(terms[..., 0], rows.own[..., OWN.index("level_2")].astype(float))
    drops = [i for i, name in enumerate(MARKET) if name.startswith("drop")]
    assert (terms[..., drops] <= 0).all()
    assert (terms[..., drops] < 0).any()
    assert (terms[..., [i for i, name in enumerate(MARKET) if name.startswith("trend")]] > 0).any()


def test_the_week_begins_on_monday() -> None:
    assert hour_of_week(np.array([1_672_617_600_000]))[0] == 0  # 2023-01-02 00:00 UTC
    assert hour_of_week(np.array([0]))[0] == 72


def test_a_season_is_found_where_there_is_one() -> None:
    random = np.random.default_rng(1)
    times = HOUR.ms * np.arange(4380, dtype=np.int64)
    true = 1.0 + 0.8 * np.sin(2 * np.pi * (hour_of_week(times) % 24) / 24)
    variance = true[:, None] * random.exponential(1.0, (4380, 10))
    sums = SeasonSums(times)
    volume = np.log(true)[:, None] + random.normal(0, 0.1, (4380, 10)) + np.arange(10)
    sums.add(variance, np.ones_like(variance), volume, np.ones(variance.shape, bool))
    season = sums.estimate()
    assert season.variance.mean() == pytest.approx(1.0)
    assert (season.variance > 0).all()
    assert np.corrcoef(season.variance[hour_of_week(times)], true)[0, 1] > 0.97
    assert np.corrcoef(season.volume[hour_of_week(times)], np.log(true))[0, 1] > 0.97
    assert np.allclose(season.ahead()[:, 0], season.variance)
    assert np.allclose(season.ahead()[5, 3], season.variance[5:9].mean())
    assert np.allclose(season.ahead()[167, 1], (season.variance[167] + season.variance[0]) / 2)


def test_no_season_where_nothing_is_known() -> None:
    assert SeasonSums(HOUR.ms * np.arange(100, dtype=np.int64)).estimate() is FLAT
