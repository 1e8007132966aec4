"""An outage is not calm: hours in which coins do not trade that always do change no feature, and are no outcome."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cryptod.daemon.scoring import known_closes
from cryptod.forecast.features import COLUMN, HALT_HOURS, LATELY_HOURS, MARKET, FeatureState, Rows, absorb, scan
from cryptod.forecast.outages import Attendance, Witnesses, unknown_hours
from cryptod.forecast.predictor import Predictor
from cryptod.forecast.season import FLAT
from cryptod.market import CLOSE, HOUR, NO_TRADE, NOT_FETCHED, VOLUME, Float64, Panel
from cryptod.training import base_model, window
from tests import markets
from tests.bench import outages
from tests.panels import blank, walk

HOURS = 600
DOWN = 400
"""First hour of the outage."""


def run(panel: Panel, dark: np.ndarray | None = None) -> tuple[FeatureState, Rows]:
    state = FeatureState.empty(len(panel.symbols))
    return state, absorb(state, panel.values, panel.status, panel.open_times, FLAT, dark)


def down(panel: Panel, hours: int, columns: tuple[int, ...]) -> Panel:
    for column in columns:
        blank(panel, column, slice(DOWN, DOWN + hours))
    return panel


def thin(panel: Panel, columns: tuple[int, ...], share: float = 0.4) -> Panel:
    """These coins do not trade in so many of the hours."""
    random = np.random.default_rng(3)
    for column in columns:
        for hour in np.flatnonzero(random.random(len(panel.values)) < share):
            blank(panel, column, slice(hour, hour + 1))
    return panel


def dark_hours(panel: Panel) -> np.ndarray:
    witnesses = Witnesses(len(panel.values))
    witnesses.scan(panel)
    return witnesses.dark()


@pytest.mark.parametrize("hours", [1, 3, 6, 12, 24, 30])
def test_the_recursions_of_a_steady_coin_carry_over_the_hours_in_which_it_does_not_trade(hours: int) -> None:
    _, rows = run(down(walk(HOURS, 1), hours, (0,)))
    assert not rows.live[DOWN : DOWN + hours, 0].any()
    assert rows.silent[DOWN : DOWN + min(hours, HALT_HOURS), 0].all()
    before, last = rows.own[DOWN - 1, 0], rows.own[DOWN + min(hours, HALT_HOURS) - 1, 0]
    assert np.array_equal(np.delete(before, COLUMN["shock"]), np.delete(last, COLUMN["shock"]))
    back = rows.own[DOWN + hours, 0, COLUMN["level_24"]]
    assert abs(back - before[COLUMN["level_24"]]) < 0.5


def test_the_return_over_an_outage_is_no_wild_hour() -> None:
    panel = down(walk(HOURS, 1), 15, (0,))
    usual = np.abs(np.diff(np.log(panel.values[:DOWN, 0, CLOSE]))).std()
    panel.values[DOWN + 15 :, 0, :VOLUME] *= panel.values[DOWN - 1, 0, CLOSE] / panel.values[DOWN + 15, 0, CLOSE] * np.exp(4 * usual)
    _, rows = run(panel)
    shock = rows.own[DOWN + 15, 0, COLUMN["shock"]]
    assert 0.3 < shock < 3.0, "four times an hour's move over sixteen hours is an ordinary one"


def test_the_jump_at_the_reopening_widens_what_was_known_and_does_not_replace_it() -> None:
    level = {}
    for jump in (0.0, 0.1, 0.6):
        panel = down(walk(HOURS, 1), 30, (0,))
        panel.values[DOWN + 30 :, 0, :VOLUME] *= np.exp(jump)
        _, rows = run(panel)
        level[jump] = np.exp(rows.own[DOWN + 30, 0, COLUMN["level_24"]] / 2) / np.exp(rows.own[DOWN - 1, 0, COLUMN["level_24"]] / 2)
    assert 0.8 < level[0.0] < 1.25
    assert level[0.0] < level[0.1] < level[0.6] < 6.0


def test_a_thin_coin_s_hour_without_a_trade_is_calm_unless_the_market_is_down() -> None:
    panel = down(thin(walk(HOURS, 6), (4, 5)), 6, tuple(range(6)))
    dark = dark_hours(panel)
    assert np.flatnonzero(dark).tolist() == list(range(DOWN, DOWN + 6))
    _, rows = run(panel, dark)
    assert not rows.live[DOWN : DOWN + 6].any()
    quiet = (panel.status[:, 4] == NO_TRADE) & ~dark
    assert quiet[200:].sum() > 50
    assert rows.live[quiet, 4][10:].all()
    assert not rows.silent[quiet, 4].any()


def test_a_tenth_of_the_steady_coins_may_trade_in_an_outage_and_no_more() -> None:
    panel = down(walk(HOURS, 20), 6, tuple(range(2, 20)))
    assert np.flatnonzero(dark_hours(panel)).tolist() == list(range(DOWN, DOWN + 6))
    panel = down(walk(HOURS, 20), 6, tuple(range(3, 20)))
    assert not dark_hours(panel).any()


@pytest.mark.parametrize("coins", [1, 2])
def test_one_coin_or_two_are_no_market_but_witnesses_of_themselves(coins: int) -> None:
    panel = down(walk(HOURS, coins), 6, tuple(range(coins)))
    assert not dark_hours(panel).any()
    assert run(panel)[1].silent[DOWN : DOWN + 6].all()


def test_coins_that_were_not_asked_for_say_nothing_of_the_market() -> None:
    panel = walk(HOURS, 8)
    for column in range(8):
        blank(panel, column, slice(DOWN, DOWN + 6), NOT_FETCHED)
    assert not dark_hours(panel).any()


def test_a_coin_that_becomes_thin_is_not_taken_for_steady_for_ever() -> None:
    panel = walk(1500, 1)
    random = np.random.default_rng(4)
    for hour in 500 + np.flatnonzero(random.random(1000) < 0.3):
        blank(panel, 0, slice(hour, hour + 1))
    _, rows = run(panel)
    silent = np.flatnonzero(rows.silent[:, 0])
    assert silent[0] >= 500
    assert silent[-1] < 560


def test_a_long_outage_counts_as_one_gap() -> None:
    traded = np.ones((700, 1), bool)
    traded[400:423] = False
    next_to = np.ones((700, 1), bool)
    next_to[401:424] = False
    nothing = np.zeros(1)
    found = Attendance.of(nothing, nothing, traded, next_to)
    assert found.steady[168:].all()
    assert 0 < found.gaps[0] < 0.002


def test_the_market_is_what_it_was_while_it_is_down() -> None:
    panel = down(walk(HOURS, 5), 6, tuple(range(5)))
    sums = window.MarketSums(HOURS)
    for part, rows in scan(FeatureState.empty(5), panel, FLAT, dark=dark_hours(panel)):
        sums.add(part, rows.own, rows.live | rows.silent)
    means = sums.means()
    levels = slice(0, MARKET.index("level_672") + 1)
    assert np.array_equal(means[DOWN + 5, levels], means[DOWN - 1, levels])


def test_hours_learned_from_hold_no_outage() -> None:
    panel = down(walk(HOURS, 4), 3, tuple(range(4)))
    found = window.build(window.record(panel, FLAT, dark_hours(panel)), np.zeros(4, bool), np.zeros((HOURS, len(MARKET)), np.float32))
    assert not found.origin[DOWN - 24 : DOWN + 3].any()
    assert found.origin[DOWN + 3].all()
    assert found.origin[DOWN - 25].all()


def test_no_outcome_is_known_of_an_hour_in_which_a_steady_coin_did_not_trade() -> None:
    panel = down(thin(walk(HOURS, 5), (4,)), 6, (0, 1))

    def candles(symbols: tuple[str, ...], start: int, end: int) -> Panel:
        return panel.coins(symbols).rows(start, end)

    start, end = panel.start + (DOWN - 5) * HOUR.ms, panel.start + (DOWN + 10) * HOUR.ms
    closes = known_closes(candles, panel.symbols, start, end)
    known = np.isfinite(closes)
    assert not known[5:11, :2].any()
    assert known[:5, :2].all()
    assert known[11:, :2].all()
    assert known[:, 2:4].all()
    assert known[1:, 4].all(), "a thin coin's price stands while it does not trade"
    assert unknown_hours(panel)[DOWN : DOWN + 6].sum(axis=0).tolist()[:4] == [6, 6, 0, 0]


def served(panel: Panel, to: int) -> Predictor:
    """The base model adopted 48 hours before the outage, and lived hour by hour until ``to`` hours after its begin."""
    begin = panel.end - 96 * HOUR.ms
    model, _ = base_model.adopt(base_model.load(base_model.shipped()), panel.rows(panel.start, begin))
    assert model is not None
    predictor = Predictor((model,))
    for time in range(begin, begin + (48 + to) * HOUR.ms, HOUR.ms):
        predictor.advance(panel.rows(time, time + HOUR.ms))
    return predictor


def volatility(predictor: Predictor, panel: Panel, to: int) -> tuple[Float64, list[bool]]:
    made = predictor.forecast(panel.symbols, panel.end - (48 - to) * HOUR.ms)
    return made.volatility[:, -1].astype(np.float64), ["outage" in flags for flags in made.flags]


@pytest.mark.parametrize("hours", [1, 6, 12])
@pytest.mark.parametrize("columns", [(0, 1, 2, 3, 4, 5), (2,)])
def test_a_forecast_in_an_outage_and_after_it_is_as_wide_as_before_and_says_so(hours: int, columns: tuple[int, ...]) -> None:
    panel, gap = markets.panel(6, 1500), markets.panel(6, 1500)
    first = len(gap.values) - 48
    for column in columns:
        blank(gap, column, slice(first, first + hours))
    chosen = list(columns)
    inside, flagged = volatility(served(gap, hours), gap, hours)
    whole, _ = volatility(served(panel, hours), panel, hours)
    ratio = inside[chosen].mean() / whole[chosen].mean()
    assert 0.8 < ratio / np.sqrt(1 + hours / 24) < 1.25, "the price is as old as the outage, and the interval reaches over both"
    assert flagged == [column in columns for column in range(6)]
    back, flagged = volatility(served(gap, hours + 1), gap, hours + 1)
    whole, _ = volatility(served(panel, hours + 1), panel, hours + 1)
    assert 0.8 < back[chosen].mean() / whole[chosen].mean() < 1.25
    assert flagged == [column in columns for column in range(6)]
    assert not any(volatility(served(gap, hours + LATELY_HOURS + 1), gap, hours + LATELY_HOURS + 1)[1])


def test_which_coins_do_not_trade_can_be_asked_while_they_do_not() -> None:
    gap = markets.panel(6, 1500)
    for column in range(6):
        blank(gap, column, slice(len(gap.values) - 48, len(gap.values) - 42))
    assert served(gap, 0).interrupted() == {}
    assert served(gap, 4).interrupted() == dict.fromkeys(gap.symbols, 4)
    assert served(gap, 7).interrupted() == {}


@pytest.mark.skipif("CRYPTOD_CANDLES" not in os.environ, reason="CRYPTOD_CANDLES names no folder of real candles")
def test_real_candles_with_six_hours_cut_out_are_forecast_as_if_they_had_not_been() -> None:
    cutoff = 1_679_097_600_000  # 2023-03-18 00:00 UTC
    panel = outages.panel_of(Path(os.environ["CRYPTOD_CANDLES"]), 12, cutoff)
    columns = list(range(12))
    whole = outages.live(panel, cutoff, columns)
    for hours, least in ((6, 0.8), (12, 0.8)):
        found = outages.live(outages.cut(panel, cutoff, hours, columns), cutoff, columns)
        ratio = found.volatility.mean(axis=1) / whole.volatility.mean(axis=1)
        assert least < ratio[0] < 1.3
        assert least < ratio[1] < 1.3
        assert found.flagged == (12, 12)
        assert all(abs(found.inside[percent] - whole.inside[percent]) < 0.08 for percent in found.inside)
