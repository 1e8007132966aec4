"""The gate: it refuses what is worse, promotes what is not, and hands coins to a reference on clear evidence only."""

from __future__ import annotations

import numpy as np

from cryptod.forecast.baselines import REFERENCES
from cryptod.forecast.model import SOURCES
from cryptod.market import Float64
from cryptod.training.evaluation import Evaluation, compare, merge
from cryptod.training.gate import COIN_HOURS, judge

COINS, HOURS = 6, 336
POOL = np.ones(COINS, bool)
COMMON = np.random.default_rng(0).exponential(0.01, (HOURS, 1)) + np.random.default_rng(1).exponential(0.01, (HOURS, COINS))


def evaluation(model: float = 1.0, seed: int = 5, coverage: float = 0.9, **references: float) -> Evaluation:
    """Losses that are so many times the usual ones, with a little noise of their own."""

    def losses(times: float, seed: int) -> Float64:
        return COMMON * times * (1 + 0.02 * np.random.default_rng(seed).normal(size=(HOURS, COINS)))

    found = {"model": losses(model, seed)}
    found |= {name: losses(references.get(name, 1.2), 10 + place) for place, name in enumerate(REFERENCES)}
    return Evaluation(found, {percent: np.full((COINS, 6), coverage if percent == 90 else percent / 100) for percent in (50, 80, 90, 95)})


def test_a_worse_challenger_is_refused() -> None:
    verdict = judge(evaluation(1.02), evaluation(1.0, seed=6), POOL)
    assert not verdict.promote
    assert "worse than the champion" in verdict.reason
    assert verdict.figures["skill_champion"] < -0.01
    assert verdict.figures["t_champion"] < -2


def test_a_better_challenger_is_promoted() -> None:
    verdict = judge(evaluation(0.98), evaluation(1.0, seed=6), POOL)
    assert verdict.promote
    assert not verdict.source.any()
    assert verdict.figures["skill_champion"] > 0.01


def test_a_challenger_as_good_as_the_champion_is_promoted() -> None:
    assert judge(evaluation(1.0), evaluation(1.0, seed=6), POOL).promote


def test_a_difference_too_small_to_matter_refuses_nobody_however_sure() -> None:
    champion = evaluation(1.0, seed=5)
    challenger = Evaluation(champion.losses | {"model": champion.losses["model"] * 1.0005}, champion.coverage)
    assert judge(challenger, champion, POOL).promote


def test_forecasts_that_are_not_finite_are_refused_even_where_nobody_serves() -> None:
    broken = evaluation()
    broken.losses["model"][5, 2] = np.nan
    assert not judge(broken, None, POOL).promote


def test_intervals_far_out_of_band_are_refused_unless_the_champion_s_are_worse() -> None:
    assert not judge(evaluation(coverage=0.7), evaluation(seed=6), POOL).promote
    assert judge(evaluation(coverage=0.7), evaluation(seed=6, coverage=0.6), POOL).promote


def test_without_a_champion_a_model_that_loses_leaves_the_best_reference_serving() -> None:
    verdict = judge(evaluation(1.1, ewma=1.0, log_har=1.02), None, POOL)
    assert verdict.promote
    assert set(verdict.source) == {SOURCES.index("ewma")}
    assert "serves instead" in verdict.reason


def test_noise_takes_no_batch_from_the_model() -> None:
    verdict = judge(evaluation(1.0, log_har=0.9995), None, POOL)
    assert verdict.promote
    assert not verdict.source.any()


def test_one_coin_on_which_the_model_clearly_loses_is_served_by_the_reference() -> None:
    found = evaluation(1.0, log_har=1.03)
    found.losses["model"][:, 4] *= 1.08
    verdict = judge(found, None, POOL)
    assert verdict.promote
    assert verdict.source.tolist() == [0, 0, 0, 0, SOURCES.index("log_har"), 0]
    assert "1 of 6 coins" in verdict.reason


def test_a_coin_of_which_little_has_been_seen_is_not_handed_over_by_itself() -> None:
    found = evaluation(1.0, log_har=1.03)
    found.losses["model"][:, 4] *= 1.3
    for values in found.losses.values():
        values[: HOURS - COIN_HOURS + 1, 4] = np.nan
    assert not judge(found, None, POOL).source.any()


def test_a_collapse_does_not_decide_for_the_others() -> None:
    champion, challenger = evaluation(1.0, seed=6), evaluation(0.98)
    for values in (*champion.losses.values(), *challenger.losses.values()):
        values[:, 3] *= 200.0
    challenger.losses["model"][:, 3] *= 1.05
    assert judge(challenger, champion, POOL).promote
    assert judge(challenger, champion, POOL).figures["skill_champion"] > 0
    challenger.losses["model"][:, :3] *= 1.06
    assert not judge(challenger, champion, POOL).promote


def test_pegged_coins_keep_their_own_quantiles_and_are_not_judged() -> None:
    pool = np.array([True] * 5 + [False])
    found = evaluation()
    found.losses["model"][:, 5] *= 100
    verdict = judge(found, evaluation(seed=6), pool)
    assert verdict.promote
    assert verdict.source.tolist() == [0] * 5 + [SOURCES.index("random_walk")]


def test_a_batch_of_pegged_coins_has_a_verdict_too() -> None:
    verdict = judge(evaluation(), None, ~POOL)
    assert verdict.promote
    assert set(verdict.source) == {SOURCES.index("random_walk")}


def test_a_champion_of_half_the_coins_is_compared_on_those() -> None:
    champion = evaluation(1.0, seed=6)
    champion.losses["model"][:, :3] = np.nan
    challenger = evaluation(1.0)
    challenger.losses["model"][:, :3] *= 0.5
    assert judge(challenger, champion, POOL).promote
    challenger.losses["model"][:, 3:] *= 1.05
    assert not judge(challenger, champion, POOL).promote


def test_champions_are_gathered_coin_by_coin() -> None:
    one, other = evaluation(1.0, seed=6), evaluation(2.0, seed=7)
    both = merge(one, other, np.array([False, True, False, False, False, False]))
    assert np.array_equal(both.losses["model"][:, 1], other.losses["model"][:, 1])
    assert np.array_equal(both.losses["model"][:, 0], one.losses["model"][:, 0])


def test_coins_that_move_together_are_not_counted_as_independent() -> None:
    noise = np.random.default_rng(0).normal(0, 0.001, (HOURS, 1))
    series = COMMON * 0 + 0.01
    _, t = compare(series + noise + 0.0001, series, POOL)
    _, single = compare((series + noise + 0.0001)[:, :1], series[:, :1], POOL[:1])
    assert np.isclose(t, single)


def test_a_coin_without_outcomes_does_not_count_as_intervals_that_never_held() -> None:
    challenger, champion = evaluation(0.99), evaluation(1.0, seed=6)
    for values in (*challenger.losses.values(), *champion.losses.values()):
        values[:, :2] = np.nan
    for shares in (*challenger.coverage.values(), *champion.coverage.values()):
        shares[:2] = np.nan
    verdict = judge(challenger, champion, POOL)
    assert verdict.promote
    assert np.isclose(verdict.figures["coverage_90"], 90.0)


def test_where_there_is_no_outcome_at_all_nothing_is_decided_against_the_model() -> None:
    challenger = evaluation()
    for values in (*challenger.losses.values(), *challenger.coverage.values()):
        values[:] = np.nan
    verdict = judge(challenger, None, POOL)
    assert verdict.promote
    assert not verdict.source.any()
    assert all(np.isfinite(value) for value in verdict.figures.values())


def test_one_violent_hour_takes_no_coin_from_the_model() -> None:
    challenger = evaluation(1.0, log_har=1.03)
    challenger.losses["model"][77, 5] += 5.0
    assert not judge(challenger, None, POOL).source.any()
