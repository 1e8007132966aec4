"""The tally and what is made of it: figures against a plain computation, and every kind of forecaster found out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from cryptod.forecast import judgement, scores
from cryptod.forecast.judgement import BETTER, EVEN, FIT, NARROW, WIDE, WORSE, card
from cryptod.forecast.scores import SCORED_HORIZONS
from cryptod.forecast.skill import Estimate
from cryptod.forecast.tally import Tally
from cryptod.market import MAX_HORIZON, SERVED
from tests.outcomes import ROOTS, SIGMA, World

SCORED = np.array(SCORED_HORIZONS) - 1
MONTH = 720


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {percent: row["verdict"] for percent, row in found["coverage"].items()}


# Figures


def test_figures_are_those_of_a_plain_computation() -> None:
    world = World(hours=30, coins=4, leak=0.02)
    forecasts = list(world.matured())
    tally = Tally(30, SERVED)
    for hour, matured in enumerate(forecasts):
        tally.add(hour, matured)
    found = card(tally)
    quantiles = np.stack([matured.quantiles for matured in forecasts])
    outcomes = np.stack([matured.outcomes for matured in forecasts])
    p_up = np.stack([matured.p_up for matured in forecasts])
    assert (found["hours"], found["coins"], found["forecasts"], found["outcomes"]) == (30, 4, 120, 120 * MAX_HORIZON)
    assert found["pooled"]["crps"] == pytest.approx(scores.pooled_crps(quantiles, outcomes).mean(), rel=1e-5)
    plain = np.stack([matured.losses["plain"] for matured in forecasts])
    pooled_plain = 2 * (plain / ROOTS)[:, :, SCORED].mean()
    assert found["pooled"]["references"]["plain"]["crps"] == pytest.approx(pooled_plain, rel=1e-5)
    assert found["pooled"]["references"]["plain"]["skill"]["value"] == pytest.approx(1 - found["pooled"]["crps"] / pooled_plain, rel=1e-3)
    for h in (1, 7, 24):
        row, at = found["by_horizon"][h - 1], (slice(None), slice(None), h - 1)
        assert row["horizon"] == h
        assert row["crps"] == pytest.approx(scores.crps(quantiles[at], outcomes[at]).mean(), rel=1e-5)
        for percent in (50, 80, 90, 95):
            assert row["coverage"][str(percent)]["value"] == pytest.approx(scores.covered(quantiles[at], outcomes[at], percent).mean())
            width = scores.interval_score(quantiles[at], outcomes[at], percent).mean()
            assert row["interval_score"][str(percent)] == pytest.approx(width, rel=1e-5)
        bins = np.histogram(scores.pit(quantiles[at], outcomes[at]), 10, (0, 1))[0] / 120
        assert row["pit"]["bins"] == pytest.approx(list(bins), rel=1e-5)
        assert row["pit"]["distance"] == pytest.approx(np.abs(np.cumsum(bins)[:9] - np.arange(1, 10) / 10).max(), rel=1e-5)
        up = outcomes[at] > 0
        assert row["direction"]["hit_rate"]["value"] == pytest.approx(((p_up[at] > 0.5) == up)[p_up[at] != 0.5].mean(), rel=1e-5)
        assert row["direction"]["brier"]["value"] == pytest.approx(((p_up[at] - up) ** 2).mean(), rel=1e-5)
        assert row["direction"]["up"] == pytest.approx(up.mean(), rel=1e-5)
        variance = (SIGMA * ROOTS[h - 1]) ** 2
        ratio = outcomes[at] ** 2 / variance
        assert row["volatility"]["relative"]["value"] == pytest.approx(ratio.mean(), rel=1e-3)
        assert row["volatility"]["qlike"]["value"] == pytest.approx((ratio + np.log(variance)).mean(), rel=1e-3)
        constant = np.mean([1 + np.log((outcomes[:, coin, h - 1] ** 2).mean()) for coin in range(4)])
        assert row["volatility"]["constant"] == pytest.approx(constant, rel=1e-5)
    coin = found["by_coin"][2]
    assert (coin["symbol"], coin["hours"], coin["ordinary"]) == ("C2/USDT", 30, True)
    assert coin["crps"] == pytest.approx(scores.pooled_crps(quantiles[:, 2], outcomes[:, 2]).mean(), rel=1e-5)
    assert coin["coverage"]["80"]["value"] == pytest.approx(scores.covered(quantiles, outcomes, 80)[:, 2][:, SCORED].mean(), rel=1e-5)
    moved = (p_up[:, 2] - (outcomes[:, 2] > 0)) ** 2
    assert coin["brier"] == pytest.approx(moved[:, SCORED].mean(), rel=1e-5)


def test_of_nothing_there_is_no_card() -> None:
    assert card(Tally(24, SERVED)) == {}
    world = World(hours=1)
    (matured,) = world.matured()
    tally = Tally(1, SERVED)
    tally.add(0, replace(matured, outcomes=np.full_like(matured.outcomes, np.nan)))
    assert card(tally) == {}


def test_a_card_is_of_plain_figures_only() -> None:
    def walk(value: Any) -> None:
        if isinstance(value, dict):
            assert all(isinstance(key, str) for key in value)
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)
        else:
            assert value is None or type(value) in (str, bool, int, float), type(value)
            assert not isinstance(value, float) or np.isfinite(value)

    walk(card(World(hours=2, coins=2).tally()))
    walk(card(World(hours=160, coins=4).tally()))


def test_outcomes_that_are_not_known_or_came_before_the_forecast_count_nowhere() -> None:
    world = World(hours=20, coins=3)
    full, part = Tally(20, SERVED), Tally(20, SERVED)
    for hour, matured in enumerate(world.matured()):
        keep = np.ones((3, MAX_HORIZON), bool)
        keep[1, 5:] = False
        full.add(hour, replace(matured, counted=keep))
        part.add(hour, replace(matured, outcomes=np.where(keep, matured.outcomes, np.nan)))
    assert card(full) == card(part)
    assert card(full)["by_horizon"][23]["outcomes"] == 40


def test_coins_that_come_later_get_their_own_columns_however_many_they_are() -> None:
    world = World(hours=12, coins=70)
    tally = Tally(12, SERVED)
    for hour, matured in enumerate(world.matured()):
        rows = list(range(3 if hour < 4 else 70))[:: 1 if hour % 2 else -1]
        tally.add(hour, _rows(matured, rows))
    found = card(tally)
    assert found["coins"] == 70
    assert {coin["symbol"]: coin["hours"] for coin in found["by_coin"]} == {f"C{i}/USDT": 12 if i < 3 else 8 for i in range(70)}
    alone = Tally(12, SERVED)
    for hour, matured in enumerate(World(hours=12, coins=70).matured()):
        alone.add(hour, _rows(matured, [1]))
    assert next(coin for coin in found["by_coin"] if coin["symbol"] == "C1/USDT")["crps"] == pytest.approx(card(alone)["pooled"]["crps"])


def _rows(matured: Any, rows: list[int]) -> Any:
    return replace(
        matured,
        symbols=[matured.symbols[row] for row in rows],
        quantiles=matured.quantiles[rows],
        p_up=matured.p_up[rows],
        volatility=matured.volatility[rows],
        score=None if matured.score is None else matured.score[rows],
        outcomes=matured.outcomes[rows],
        losses={name: losses[rows] for name, losses in matured.losses.items()},
        counted=matured.counted[rows],
        still=matured.still[rows],
    )


# Calibration


def test_a_forecaster_whose_intervals_are_right_is_called_fit() -> None:
    found = card(World(hours=MONTH).tally())["pooled"]
    assert verdicts(found) == {"50": FIT, "80": FIT, "90": FIT, "95": FIT}
    assert found["pit"]["p"] > 0.05


@pytest.mark.parametrize(("width", "verdict"), [(0.75, NARROW), (1.35, WIDE)])
def test_a_forecaster_whose_intervals_are_too_narrow_or_too_wide_is_found_out(width: float, verdict: str) -> None:
    found = card(World(hours=MONTH, width=width).tally())
    assert set(verdicts(found["pooled"]).values()) == {verdict}
    assert found["pooled"]["pit"]["p"] < 0.01
    assert {coin["coverage"]["80"]["verdict"] for coin in found["by_coin"]} == {verdict}
    relative = found["pooled"]["volatility"]["relative"]
    assert (relative["low"] > 1.0) if verdict == NARROW else (relative["high"] < 1.0)


def test_of_a_few_days_no_verdict_is_given() -> None:
    found = card(World(hours=72, width=0.5).tally())
    row = found["pooled"]
    assert set(verdicts(row).values()) == {None}
    assert row["coverage"]["80"]["value"] < 0.7
    assert row["coverage"]["80"]["low"] is None
    assert row["references"]["plain"]["verdict"] is None
    assert row["direction"]["hit_rate"]["verdict"] is None
    assert row["pit"]["p"] is None
    assert found["hours"] < found["least_hours"]


def test_coins_that_move_as_one_are_not_many_proofs() -> None:
    """The intervals of a hundred copies of a coin are as wide as that coin's own."""

    def width(coins: int) -> float:
        row = card(World(hours=MONTH, coins=coins, market=1.0).tally())["pooled"]["coverage"]["80"]
        return float(row["high"] - row["low"])

    assert width(40) == pytest.approx(width(1), rel=0.1)


# Skill


def test_better_worse_and_even_references_are_told_apart() -> None:
    world = World(hours=MONTH, width=1.4, references={"far off": 2.5, "the truth": 1.0, "the same": 1.4})
    found = card(world.tally())
    rows = found["pooled"]["references"]
    assert (rows["far off"]["verdict"], rows["the truth"]["verdict"], rows["the same"]["verdict"]) == (BETTER, WORSE, EVEN)
    assert rows["far off"]["skill"]["low"] > 0
    assert rows["far off"]["t"] > rows["far off"]["t_needed"]
    assert rows["the truth"]["t"] < -rows["the truth"]["t_needed"]
    assert found["best_reference"] == "the truth"


def test_an_interval_that_leaves_out_nothing_is_not_enough_where_the_test_is_not_sure() -> None:
    random = np.random.default_rng(1)
    series, count = random.normal(0.0, 1.0, MONTH), np.ones(MONTH)
    skill = Estimate(0.02, 0.01, 0.03)
    assert judgement.against(skill, series - series.mean(), count)["verdict"] == EVEN
    assert judgement.against(skill, series - series.mean() + 1.0, count)["verdict"] == BETTER


def test_the_model_by_itself_is_compared_with_and_is_not_what_must_be_beaten() -> None:
    found = card(World(hours=MONTH, width=1.4, references={"model": 1.0, "far off": 2.5}).tally())
    assert found["pooled"]["references"]["model"]["verdict"] == WORSE
    assert found["best_reference"] == found["worst"]["skill"]["reference"] == "far off"


def test_who_forecasts_is_read_off_the_record_and_may_change_on_the_way() -> None:
    tally = Tally(60, SERVED)
    for hour, matured in enumerate(World(hours=60).matured()):
        renamed = {"young" if name == "plain" and hour >= 50 else name: losses for name, losses in matured.losses.items()}
        tally.add(hour, replace(matured, losses=renamed))
    found = card(tally)
    assert {name: row["outcomes"] for name, row in found["pooled"]["references"].items()} == {
        "plain": 50 * 12 * 6,
        "young": 10 * 12 * 6,
    }
    assert found["best_reference"] == "plain", "a reference of a few hours is compared with, and is not the measure"


def test_a_reference_that_is_missing_in_places_is_compared_where_it_is_there() -> None:
    world = World(hours=40, coins=2)
    whole, half = Tally(40, SERVED), Tally(40, SERVED)
    for hour, matured in enumerate(world.matured()):
        holes = {SERVED: matured.losses[SERVED], "plain": matured.losses["plain"].copy()}
        holes["plain"][0] = np.nan
        whole.add(hour, replace(matured, losses=holes))
        half.add(hour, _rows(matured, [1]))
    ours, theirs = (card(tally)["pooled"]["references"]["plain"] for tally in (whole, half))
    assert ours == theirs


def test_without_any_reference_the_rest_is_said_all_the_same() -> None:
    found = card(World(hours=20, references={}).tally())
    assert found["best_reference"] is None
    assert found["pooled"]["references"] == {}
    assert found["pooled"]["crps"] > 0
    assert "skill" not in found["worst"]
    assert found["worst"]["coverage"]["symbol"]


# Direction


def test_a_forecaster_that_knows_nothing_of_direction_is_not_told_from_chance() -> None:
    for seed in range(4):
        row = card(World(hours=MONTH, seed=seed).tally())["pooled"]["direction"]
        assert row["hit_rate"]["verdict"] == EVEN
        assert row["brier"]["verdict"] in (EVEN, WORSE), "its noise about one half costs a little"
        assert row["rank_correlation"]["verdict"] == EVEN


def test_a_leak_of_direction_is_found() -> None:
    row = card(World(hours=MONTH, leak=0.02, hunch=0.3).tally())["pooled"]["direction"]
    assert (row["hit_rate"]["verdict"], row["brier"]["verdict"], row["rank_correlation"]["verdict"]) == (BETTER,) * 3
    assert row["rank_correlation"]["p"] < 0.01
    wrong = card(World(hours=MONTH, leak=-0.02, hunch=-0.3).tally())["pooled"]["direction"]
    assert (wrong["hit_rate"]["verdict"], wrong["brier"]["verdict"], wrong["rank_correlation"]["verdict"]) == (WORSE,) * 3


def test_always_leaning_the_same_way_is_luck_of_the_market_and_not_skill() -> None:
    """All coins move as one: a month has thirty independent days, however many forecasts are made of them."""
    for seed in range(6):
        found = card(World(hours=MONTH, coins=30, market=0.95, lean=0.1, seed=seed).tally())
        assert found["pooled"]["direction"]["hit_rate"]["verdict"] == EVEN
        assert found["pooled"]["direction"]["worth"] < 0.1 * found["pooled"]["direction"]["decided"]


def test_prices_that_stand_still_flatter_nobody() -> None:
    tally = Tally(20, SERVED)
    for hour, matured in enumerate(World(hours=20, coins=4).matured()):
        outcomes = matured.outcomes.copy()
        outcomes[2:] = 0.0
        p_up = np.full_like(matured.p_up, 0.5)
        tally.add(hour, replace(matured, outcomes=outcomes, p_up=p_up))
    found = card(tally)
    row = found["by_horizon"][0]["direction"]
    assert row["brier"]["value"] == 0.25
    assert (row["decided"], row["hit_rate"]["value"]) == (0, None)
    assert found["by_coin"][3]["brier"] is None
    assert found["by_horizon"][0]["outcomes"] == 80


# By coin


def test_the_worst_coin_is_named_and_one_that_stands_still_is_not_blamed_for_its_intervals() -> None:
    tally = Tally(MONTH, SERVED)
    for hour, matured in enumerate(World(hours=MONTH, coins=6, market=0.2).matured()):
        outcomes, losses = matured.outcomes.copy(), dict(matured.losses)
        outcomes[4] *= 1.5  # wilder than was foretold
        outcomes[5] *= 1e-4  # pegged
        losses[SERVED] = losses[SERVED].copy()
        losses[SERVED][1] *= 1.6
        still = np.array([False] * 5 + [True])
        tally.add(hour, replace(matured, outcomes=outcomes, losses=losses, still=still))
    found = card(tally)
    worst = found["worst"]
    assert (worst["skill"]["symbol"], worst["skill"]["verdict"], worst["skill"]["reference"]) == ("C1/USDT", WORSE, "plain")
    assert (worst["coverage"]["symbol"], worst["coverage"]["verdict"]) == ("C4/USDT", NARROW)
    assert [coin["ordinary"] for coin in found["by_coin"]] == [True] * 5 + [False]
    assert found["pooled"]["volatility"]["relative"]["value"] < 2.0


def test_a_coin_of_a_few_hours_is_not_named_the_worst() -> None:
    tally = Tally(100, SERVED)
    for hour, matured in enumerate(World(hours=100, coins=4).matured()):
        losses = {**matured.losses, SERVED: matured.losses[SERVED].copy()}
        losses[SERVED][3] *= 9.0
        tally.add(hour, _rows(replace(matured, losses=losses), [0, 1, 2, 3] if hour < 10 else [0, 1, 2]))
    assert card(tally)["worst"]["skill"]["symbol"] != "C3/USDT"
    assert card(World(hours=10, coins=1).tally())["worst"] == {}, "of one coin there is no worst"
