"""A training window: which coins are in it, what can be learned from, and that every number is that of its hour."""

from __future__ import annotations

import numpy as np
import pytest

from cryptod.forecast import network
from cryptod.forecast.features import COLUMN, MARKET, RELISTED_HOURS, WARM_HOURS
from cryptod.forecast.season import FLAT, WEEK, Season, hour_of_week
from cryptod.market import CLOSE, HIGH, HOUR, LOW, NO_TRADE, NOT_FETCHED, OPEN, VOLUME, Float32, Panel
from cryptod.training import window
from cryptod.training.window import MIN_DAYS, MarketSums, Window, survey
from tests.panels import START, blank, odd, walk

DAYS = 60
HOURS = DAYS * 24


def laid(panel: Panel, season: Season = FLAT) -> Window:
    market = np.zeros((len(panel.values), len(MARKET)), np.float32)
    return window.build(window.record(panel, season), np.zeros(len(panel.symbols), bool), market)


def moves(found: Window) -> Float32:
    return found.moves(slice(None))


def test_coins_that_cannot_be_trained_are_left_out_with_the_reason() -> None:
    panel = walk(HOURS, 7)
    blank(panel, 1, slice(0, HOURS), NOT_FETCHED)
    blank(panel, 2, slice(HOURS - 8 * 24, HOURS))
    blank(panel, 3, slice(0, HOURS - (MIN_DAYS - 1) * 24), NOT_FETCHED)
    panel.values[:, 4] = np.nan
    panel.values[::2, 5, VOLUME] = 0.0
    panel.values[::2, 5, :VOLUME] = panel.values[::2, 5, CLOSE, None]
    blank(panel, 6, slice(0, 4 * 24))
    found = survey(panel)
    assert set(found.left_out) == {panel.symbols[i] for i in (1, 2, 3, 4, 5)}
    assert "no candle" in found.left_out[panel.symbols[1]]
    assert "no trade for 8 days" in found.left_out[panel.symbols[2]]
    assert "too young: 44 days" in found.left_out[panel.symbols[3]]
    assert "no candle" in found.left_out[panel.symbols[4]]
    assert not found.pegged.any()


def test_pegs_are_found_and_ordinary_coins_are_not_even_calm_ones() -> None:
    panel = walk(HOURS, 5, seed=2)
    random = np.random.default_rng(1)
    panel.values[:, 0, :VOLUME] = 1.0
    panel.values[:, 1, :VOLUME] = np.round(1.0 + random.normal(0, 3e-4, (HOURS, 1)), 4)
    panel.values[700, 1, LOW] = 0.9  # it broke once
    panel.values[:, 2, :VOLUME] = panel.values[:, 2, :VOLUME] ** 0.3
    panel.values[:, 3, :VOLUME] = np.round(1 + (panel.values[:, 3, :VOLUME] / panel.values[0, 3, OPEN] - 1) * 0.002, 3)
    assert survey(panel).pegged.tolist() == [True, True, False, True, False]


def test_a_thin_coin_and_one_with_many_gaps_are_told_from_a_young_one() -> None:
    panel = walk(HOURS, 4)
    lost = np.random.default_rng(3).random(HOURS)
    for column, share in ((0, 0.5), (1, 0.25), (2, 0.1)):
        panel.values[lost < share, column], panel.status[lost < share, column] = np.nan, NOT_FETCHED
    found = survey(panel)
    assert set(found.left_out) == {panel.symbols[0]}
    assert found.left_out[panel.symbols[0]].startswith("too thin: it traded in 30 days' worth of hours out of 60")
    assert found.gappy.tolist() == [False, True, False, False]


def test_a_coin_s_own_history_begins_at_its_last_return_after_a_week() -> None:
    panel = walk(HOURS, 4)
    blank(panel, 0, slice(100, 300))
    blank(panel, 0, slice(500, 700), NOT_FETCHED)
    blank(panel, 1, slice(100, 100 + RELISTED_HOURS))
    blank(panel, 2, slice(HOURS - 300, HOURS))
    before = panel.status.copy()
    found = window.own_history(panel)
    assert (found.status[:700, 0] == NOT_FETCHED).all()
    assert np.isnan(found.values[:700, 0]).all()
    assert np.array_equal(found.status[700:], before[700:])
    assert np.array_equal(found.status[:, 1:], before[:, 1:])
    assert np.array_equal(panel.status, before), "what was handed in is left alone"
    assert survey(found).left_out[panel.symbols[0]] == "too young: 31 days of candles, 45 are needed"
    whole = walk(HOURS, 2)
    assert window.own_history(whole) is whole


def test_what_a_peg_is_used_to_are_its_calm_hours() -> None:
    panel = walk(HOURS, 2)
    panel.values[:, 0, :VOLUME] = np.round(1.0 + np.random.default_rng(1).normal(0, 1e-4, (HOURS, 4)), 4)
    pegged = np.array([True, False])
    market = np.zeros((HOURS, len(MARKET)), np.float32)
    calm = window.build(window.record(panel, FLAT), pegged, market).rest[0]
    panel.values[700:720, 0, LOW] = 0.97
    doubtful = window.build(window.record(panel, FLAT), pegged, market).rest[0]
    assert doubtful < 1.3 * calm


def test_an_origin_has_a_day_of_outcomes_after_it_and_a_week_of_candles_before() -> None:
    panel = walk(HOURS, 2)
    found = laid(panel)
    assert found.row.min() == WARM_HOURS - 1
    assert found.row.max() == HOURS - 25
    assert found.origin.sum() == len(found.row) == 2 * (HOURS - 24 - (WARM_HOURS - 1))
    assert (np.diff(found.row) >= 0).all(), "in order of time"


def test_some_coins_of_a_recording_are_what_they_would_be_by_themselves() -> None:
    panel = odd(1400)
    chosen = np.array([4, 0, 5])
    some, alone = window.record(panel, FLAT).coins(chosen), window.record(panel.coins(tuple(panel.symbols[i] for i in chosen)), FLAT)
    assert some.symbols == alone.symbols
    assert np.allclose(some.own[some.live], alone.own[alone.live], rtol=1e-6, atol=1e-6)
    assert np.allclose(some.variance, alone.variance)
    assert np.array_equal(some.log_close, alone.log_close)
    for one, other in ((some.live, alone.live), (some.warm, alone.warm), (some.broken, alone.broken)):
        assert np.array_equal(one, other)
    assert np.array_equal(some.state.at, alone.state.at)


@pytest.mark.parametrize("status", [NOT_FETCHED, NO_TRADE])
def test_no_outcome_reaches_over_a_gap_a_halt_or_a_break(status: int) -> None:
    panel = walk(HOURS, 3)
    blank(panel, 0, slice(800, 900), status)
    panel.values[1000:, 1, :VOLUME] *= np.e**12
    found = laid(panel)
    expected = np.zeros((HOURS, 3), bool)
    expected[WARM_HOURS - 1 : HOURS - 24] = True
    expected[776:900, 0] = False
    expected[976:1000, 1] = False
    if status == NOT_FETCHED:
        expected[900, 0] = True  # the coin is back, its chain broken at this hour and whole from it on
    else:
        expected[900, 0] = True
    assert np.array_equal(found.origin, expected)
    assert np.abs(moves(found)).max() < 1.0


def test_every_outcome_target_and_input_is_that_of_its_hour() -> None:
    panel = walk(HOURS, 3, seed=6)
    season = Season(np.exp(np.random.default_rng(1).normal(0, 0.2, WEEK)), np.zeros(WEEK))
    market = np.random.default_rng(2).normal(size=(HOURS, len(MARKET))).astype(np.float32)
    found = window.build(window.record(panel, season), np.zeros(3, bool), market)
    close = np.log(panel.values[:, :, CLOSE])
    factor = season.variance[hour_of_week(panel.open_times)]
    variance = np.log(panel.values[:, :, HIGH] / panel.values[:, :, LOW]) ** 2 / (4 * np.log(2)) / factor[:, None]
    assert found.rest == pytest.approx(variance.mean(axis=0), rel=0.02)
    for place in (0, 77, 1234, len(found.row) - 1):
        t, coin = int(found.row[place]), int(found.coin[place])
        for h in (1, 5, 24):
            assert found.moves(np.array([place]))[0, h - 1] == pytest.approx(close[t + h, coin] - close[t, coin], abs=1e-6)
            expected = variance[t + 1 : t + 1 + h, coin].mean() + window.FLOOR * found.rest[coin]
            assert found.targets(np.array([place]))[0, h - 1] == pytest.approx(np.log(expected), abs=0.02)
        inputs = found.inputs(np.array([place]))[0]
        assert np.array_equal(inputs, network.inputs(found.own[t, [coin]], market[t])[0])
        assert found.hours[t] == hour_of_week(panel.open_times[t : t + 1] + HOUR.ms)[0]
    rows = np.array([500, HOURS - 25])
    outcomes = found.outcomes(rows)
    assert outcomes.shape == (2, 3, 24)
    assert outcomes[1, 2] == pytest.approx(close[-24:, 2] - close[-25, 2])


def test_outcomes_that_cannot_be_learned_from_are_nan() -> None:
    panel = walk(HOURS, 2)
    blank(panel, 0, slice(800, 900), NOT_FETCHED)
    outcomes = laid(panel).outcomes(np.array([100, 799, 950]))
    assert np.isnan(outcomes[0]).all()
    assert np.isnan(outcomes[1, 0]).all()
    assert np.isfinite(outcomes[1, 1]).all()
    assert np.isfinite(outcomes[2]).all()


def test_whatever_the_candles_say_nothing_that_is_learned_from_is_nan() -> None:
    found = laid(odd(1400))
    assert len(found.row) > 5000
    for values in (found.targets(slice(None)), moves(found), found.inputs(slice(None)), found.rest, found.own):
        assert np.isfinite(values).all()
    assert 7 not in found.coin, "a coin that never traded has nothing to teach"


def test_a_window_shorter_than_a_day_has_no_origin() -> None:
    found = laid(walk(20, 2))
    assert len(found.row) == 0
    assert found.targets(slice(None)).shape == moves(found).shape == (0, 24)


def test_the_market_s_means_are_over_the_coins_that_count_group_by_group() -> None:
    random = np.random.default_rng(1)
    own = random.normal(size=(50, 6, len(COLUMN))).astype(np.float32)
    chosen = random.random((50, 6)) < 0.6
    chosen[13] = False
    sums = MarketSums(50)
    for hours in (slice(0, 20), slice(20, 50)):
        for coins in (slice(0, 2), slice(2, 6)):
            sums.add(hours, own[hours, coins], chosen[hours, coins])
    means = sums.means()
    column, drop = COLUMN["level_48"], COLUMN["trend_4"]
    for t in (0, 7, 19, 20, 49):
        assert means[t, MARKET.index("level_48")] == pytest.approx(own[t, chosen[t], column].mean(), abs=1e-6)
        assert means[t, MARKET.index("drop_4")] == pytest.approx(np.minimum(own[t, chosen[t], drop], 0).mean(), abs=1e-6)
    assert not means[13].any()
    assert START % HOUR.ms == 0
