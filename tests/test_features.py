"""Features: one code path for months and for an hour, no look-ahead, and what odd candles do to them."""

from __future__ import annotations

import numpy as np
import pytest

from cryptod.errors import CheckpointError
from cryptod.forecast.features import (
    COLUMN,
    HALT_HOURS,
    LEVELS,
    MARKET,
    OWN,
    RELISTED_HOURS,
    TRENDS,
    FeatureState,
    Rows,
    absorb,
    market_terms,
    scan,
)
from cryptod.forecast.season import FLAT, WEEK, Season, SeasonSums, hour_of_week
from cryptod.market import CANDLE, CLOSE, HIGH, HOUR, LOW, NO_TRADE, NOT_FETCHED, OPEN, VOLUME, Float64, Panel
from tests import markets
from tests.panels import blank, later, odd, walk

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
        less = {key: value for key, value in state.arrays().items() if key != name}
        if name in ("seen", "gaps", "silent"):
            assert not FeatureState.from_arrays(less, 3).arrays()[name].any(), "an earlier version did not keep it"
        else:
            with pytest.raises(CheckpointError):
                FeatureState.from_arrays(less, 3)
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


def test_a_coin_that_returns_after_a_week_begins_anew_as_if_it_had_never_been_there() -> None:
    panel = markets.panel(3, 900)
    blank(panel, 0, slice(200, 200 + RELISTED_HOURS + 1))
    blank(panel, 1, slice(300, 300 + RELISTED_HOURS + 200), NOT_FETCHED)
    blank(panel, 2, slice(300, 300 + RELISTED_HOURS))
    panel.values[200 + RELISTED_HOURS + 1 :, 0, :4] *= 20.0
    state, rows = run(panel)
    assert rows.count[-1].tolist() == [900 - 201 - RELISTED_HOURS, 900 - 500 - RELISTED_HOURS, 900 - RELISTED_HOURS]
    blank(panel, 0, slice(0, 300), NOT_FETCHED)
    blank(panel, 1, slice(0, 400), NOT_FETCHED)
    assert same(state, run(panel)[0])


def test_coins_that_return_at_different_hours_are_absorbed_in_pieces_as_in_one() -> None:
    panel = markets.panel(4, 700)
    for column, first in enumerate((100, 110, 110)):
        blank(panel, column, slice(first, first + RELISTED_HOURS + 30))
    whole, rows = run(panel)
    for size in (1, 7, 64):
        pieces, own = FeatureState.empty(4), []
        for _, part in scan(pieces, panel, BUSY, rows=size):
            own.append(part.own)
        assert same(whole, pieces)
        assert np.array_equal(np.concatenate(own)[rows.live], rows.own[rows.live])


def test_a_listing_s_first_candle_is_not_believed_however_wild() -> None:
    panel = markets.panel(1, 400)
    calm, _ = run(panel)
    panel.values[0, 0, HIGH] *= 3000.0
    state, rows = run(panel)
    assert rows.variance[0, 0] * BUSY.variance[hour_of_week(panel.open_times)[0]] < 0.37
    assert state.own[0, COLUMN["level_24"]] - calm.own[0, COLUMN["level_24"]] < 0.5


def test_the_mean_of_a_few_coins_is_not_that_of_one() -> None:
    panel = markets.panel(2, 400)
    panel.values[350:, 1, :4] = panel.values[349, 1, CLOSE]  # stands still, though it is traded
    _, rows = run(panel)
    terms = market_terms(rows.own)
    slowest = rows.own[:, 1, COLUMN["level_672"]]
    assert rows.own[-1, 1, COLUMN["level_2"]] < slowest[-1] - 8.0
    assert terms[-1, 1, MARKET.index("level_2")] == pytest.approx(slowest[-1] - 4.0, abs=1e-5)
    assert np.abs(terms[:, :, [MARKET.index(name) for name in MARKET if name.startswith(("drop", "trend"))]]).max() <= 4.0
    ordinary = rows.own[200:, 0, COLUMN["level_48"]]
    assert terms[200:, 0, MARKET.index("level_48")] == pytest.approx(ordinary, abs=1e-5)


def test_a_halted_coin_s_features_stand_still_and_a_quiet_one_s_do_not() -> None:
    panel = markets.panel(1, 500)
    for hour in range(0, 300, 20):
        blank(panel, 0, slice(hour, hour + 1))  # a thin coin: a steady one is never taken for quiet
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


FIELDS = ("own", "variance", "slow", "log_volume", "close", "live", "broken", "count")


def scanned(panel: Panel, rows: int = 512, season: Season = BUSY) -> tuple[FeatureState, dict[str, np.ndarray]]:
    state = FeatureState.empty(len(panel.symbols))
    parts = [found for _, found in scan(state, panel, season, rows=rows)]
    return state, {name: np.concatenate([getattr(part, name) for part in parts]) for name in FIELDS}


def identical(one: dict[str, np.ndarray], other: dict[str, np.ndarray], rows: slice = slice(None)) -> bool:
    return all(np.array_equal(one[name][rows], other[name][rows], equal_nan=name == "close") for name in FIELDS)


@pytest.mark.parametrize("rows", [1, 7, 24, 333])
def test_odd_candles_in_pieces_of_any_size_give_the_same_features_to_the_last_bit(rows: int) -> None:
    whole_state, whole = scanned(odd(), rows=10_000)
    state, found = scanned(odd(), rows=rows)
    assert same(state, whole_state)
    assert identical(found, whole)


@pytest.mark.parametrize("cut", [1, 200, 301, 507, 899])
def test_no_feature_of_odd_candles_looks_ahead(cut: int) -> None:
    panel, other = odd(), odd()
    other.values[cut:] = walk(900, 9, seed=99).values[cut:] * 3.0
    other.status[cut:] = CANDLE
    assert identical(scanned(panel)[1], scanned(other)[1], slice(cut))


def test_whatever_the_candles_say_no_feature_is_nan_or_without_bounds() -> None:
    state, found = scanned(odd())
    for name in ("own", "variance", "slow", "log_volume", "count"):
        assert np.isfinite(found[name]).all(), name
    assert np.abs(found["own"]).max() < 200
    assert np.isnan(state.close[7])
    assert np.isfinite(np.delete(state.close, 7)).all()


def test_coins_at_different_hours_are_each_brought_up_to_date() -> None:
    panel, ends = walk(400, 3), (1, 250, 390)
    whole, _ = scanned(panel)
    parts = [scanned(panel.coins((symbol,)).rows(panel.start, later(panel, at)))[0] for symbol, at in zip(panel.symbols, ends, strict=True)]
    state = FeatureState.join(parts)
    assert state.at.tolist() == [later(panel, at) for at in ends]
    run(panel, state=state)
    assert same(state, whole)


@pytest.mark.parametrize(
    "candle",
    [
        (np.nan, 1.0, 1.0, 1.0, 1.0),
        (1.0, np.nan, 1.0, 1.0, 1.0),
        (0.0, 1.0, 0.0, 1.0, 1.0),
        (np.inf, np.inf, -np.inf, 1.0, 1.0),
        (1e-310, 1e-310, 1e-310, 1e-310, 1.0),
        (1e200, 1e200, 1e200, 1e200, 1e200),
        (1.0, 1e308, 1e-308, 1.0, 1e308),
    ],
)
def test_prices_that_are_none_count_as_not_fetched_and_make_the_coin_late(candle: tuple[float, ...]) -> None:
    panel, gap = walk(300, 1), walk(300, 1)
    panel.values[250, 0] = candle
    blank(gap, 0, slice(250, 251), NOT_FETCHED)
    assert same(scanned(panel)[0], scanned(gap)[0])
    assert scanned(panel.rows(panel.start, later(panel, 251)))[0].at[0] == later(panel, 250)


def test_a_crash_within_the_day_is_a_move_and_no_break() -> None:
    panel = walk(400, 1)
    values = panel.values[:, 0]
    values[300, LOW] = values[300, CLOSE] = values[300, OPEN] * 0.3
    values[301:, :VOLUME] *= values[300, CLOSE] / values[301, OPEN]
    _, found = scanned(panel)
    assert not found["broken"].any()
    assert found["own"][300, 0, COLUMN["shock"]] == -8.0


def ewma(values: Float64, half_life: float) -> Float64:
    """The plain definition: the mean of the first values until their number passes what the half-life asks for."""
    found, average = [], 0.0
    for i, value in enumerate(values):
        average += max(1.0 - 0.5 ** (1.0 / half_life), 1.0 / (i + 1)) * (value - average)
        found.append(average)
    return np.array(found)


def winsorised(raw: Float64) -> Float64:
    average, kept = 0.0, []
    for i, given in enumerate(raw):
        value = given if i < 24 else min(given, max(30.0 * average, 3e-4))
        average += max(1.0 - 0.5 ** (1 / 168), 1.0 / (i + 1)) * (value - average)
        kept.append(value)
    return np.array(kept)


def test_every_feature_is_what_the_recipe_says() -> None:
    panel = walk(700, 1, seed=8)
    panel.values[[30, 500], 0, HIGH] *= 1.5
    _, found = scanned(panel)
    o, h, lo, c, v = panel.values[:, 0].T
    hours = hour_of_week(panel.open_times)
    factor = BUSY.variance[hours]
    parkinson = winsorised(np.log(h / lo) ** 2 / (4 * np.log(2)))
    returns = np.log(c / np.concatenate([o[:1], c[:-1]]))
    rogers = winsorised(np.log(h / c) * np.log(h / o) + np.log(lo / c) * np.log(lo / o))
    squares = winsorised(returns**2)
    volume = np.log(v * c + 1.0) - BUSY.volume[hours]
    before = np.concatenate([[0.0], ewma(parkinson / factor, 24)[:-1]]) + 1e-9
    shock = np.clip(returns / np.sqrt(factor * before), -8, 8)
    shock[0] = 0.0
    expected = {f"level_{k}": np.log(ewma(parkinson / factor, k) + 1e-9) for k in LEVELS}
    expected |= {f"range_{k}": np.log(ewma(rogers / factor, k) + 1e-9) for k in (2, 12)}
    expected |= {f"square_{k}": np.log(ewma(squares / factor, k) + 1e-9) for k in (4, 24, 168)}
    expected |= {f"volume_{k}": np.clip(ewma(volume, k) - ewma(volume, 336), -4, 4) for k in (1, 6, 24)}
    expected |= {"shock": shock, "raw_24": np.log(ewma(parkinson, 24) + 1e-9)}
    for k in TRENDS:
        average, trend = 0.0, []
        for value in shock:
            average += (1.0 - 0.5 ** (1 / k)) * (value - average)
            trend.append(average * np.sqrt(k))
        expected[f"trend_{k}"] = np.array(trend)
    assert set(expected) == set(OWN)
    assert parkinson[500] < np.log(h / lo)[500] ** 2 / (4 * np.log(2)), "the bad print is cut, or it says nothing"
    for name, values in expected.items():
        assert found["own"][:, 0, COLUMN[name]] == pytest.approx(values, abs=2e-5), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slow", np.full_like(FeatureState.empty(2).slow, -1.0)),
        ("winsor", np.full((3, 2), -1e-9)),
        ("close", np.array([0.0, 1.0])),
        ("close", np.array([np.inf, 1.0])),
        ("at", np.zeros(2)),
    ],
)
def test_a_state_that_no_candles_lead_to_is_refused(name: str, value: np.ndarray) -> None:
    with pytest.raises(CheckpointError, match="feature state"):
        FeatureState.from_arrays(FeatureState.empty(2).arrays() | {name: value}, 2)


def test_the_return_over_a_halt_is_no_return_however_small() -> None:
    panel = walk(400, 1)
    blank(panel, 0, slice(300, 360))
    panel.values[360:, 0, :VOLUME] *= 1.5
    _, found = scanned(panel)
    assert found["broken"][:, 0].nonzero()[0].tolist() == [360]
    assert abs(found["own"][360, 0, COLUMN["shock"]]) < 8.0
    blank(panel, 0, slice(200, 224))
    assert scanned(panel)[1]["broken"][:, 0].nonzero()[0].tolist() == [360], "a day without trades breaks no chain"
