"""Verdicts: a worse challenger is turned away, a better one let in, noise decides nothing, and coins fall back one by one."""

from __future__ import annotations

import numpy as np
import pytest

from cryptod.forecast.baselines import REFERENCES
from cryptod.forecast.model import SOURCES
from cryptod.forecast.scores import INTERVALS
from cryptod.market import Float64
from cryptod.training.evaluation import Evaluation, compare, merge
from cryptod.training.gate import judge

COINS = 8
HOURS = 336
POOL = np.ones(COINS, bool)


def evaluation(
    model: float = 0.9, references: float = 1.0, held: float = 0.9, seed: int = 1, noise: float = 0.05, hours: int = HOURS
) -> Evaluation:
    """Losses that share the market's ups and downs; ``model`` and ``references`` are their means, ``noise`` what each has alone."""
    random = np.random.default_rng(0)
    common = np.exp(random.normal(0, 0.3, (hours, 1))) * 1e-2
    own = np.random.default_rng(seed)

    def losses(mean: float) -> Float64:
        return np.asarray(mean * common * np.exp(own.normal(0, noise, (hours, COINS))))

    return Evaluation(
        {"model": losses(model), **{name: losses(references * (1 + 0.02 * i)) for i, name in enumerate(REFERENCES[::-1])}},
        {percent: np.full((COINS, 6), held * percent / 90) for percent in INTERVALS},
    )


def test_the_first_model_is_let_in_if_it_beats_the_references() -> None:
    verdict = judge(evaluation(), None, POOL)
    assert verdict.promote
    assert not verdict.source.any()
    assert verdict.figures["skill_log_har"] == pytest.approx(0.1, abs=0.01)
    assert verdict.figures["t_log_har"] > 5
    assert verdict.figures["coverage_90"] == pytest.approx(90.0)
    assert "log_har" in verdict.reason


def test_a_better_challenger_takes_the_champion_s_place() -> None:
    verdict = judge(evaluation(0.88), evaluation(0.9, seed=2), POOL)
    assert verdict.promote
    assert verdict.figures["skill_champion"] == pytest.approx(0.02, abs=0.01)


@pytest.mark.parametrize("model", [0.93, 1.2, 5.0])
def test_a_challenger_that_is_clearly_worse_than_the_champion_is_turned_away(model: float) -> None:
    verdict = judge(evaluation(model), evaluation(0.9, seed=2), POOL)
    assert not verdict.promote
    assert "worse than the champion" in verdict.reason
    assert verdict.figures["skill_champion"] < 0


def test_a_difference_within_the_noise_lets_the_newer_model_in() -> None:
    verdict = judge(evaluation(0.9, noise=0.5), evaluation(0.899, seed=2, noise=0.5), POOL)
    assert verdict.promote


def test_a_challenger_whose_intervals_do_not_hold_is_turned_away() -> None:
    verdict = judge(evaluation(0.9, held=0.75), evaluation(0.9, seed=2, held=0.88), POOL)
    assert not verdict.promote
    assert "intervals" in verdict.reason
    assert judge(evaluation(0.9, held=0.75), evaluation(0.9, seed=2, held=0.7), POOL).promote, "the champion's hold even less"
    assert judge(evaluation(0.9, held=0.85), evaluation(0.9, seed=2, held=0.9), POOL).promote, "within the band"


def test_a_coin_without_outcomes_does_not_count_as_intervals_that_never_held() -> None:
    challenger, champion = evaluation(0.89), evaluation(0.9, seed=2)
    for one in (challenger, champion):
        one.losses["model"][:, :3] = np.nan
        for name in REFERENCES:
            one.losses[name][:, :3] = np.nan
        for shares in one.coverage.values():
            shares[:3] = np.nan
    verdict = judge(challenger, champion, POOL)
    assert verdict.promote
    assert verdict.figures["coverage_90"] == pytest.approx(90.0)


def test_forecasts_that_are_not_finite_are_turned_away_even_where_nobody_serves() -> None:
    challenger = evaluation()
    challenger.losses["model"][100, 3] = np.nan
    verdict = judge(challenger, None, POOL)
    assert not verdict.promote
    assert "finite" in verdict.reason


def test_a_reference_that_is_clearly_better_serves_in_the_model_s_stead() -> None:
    verdict = judge(evaluation(1.1), None, POOL)
    assert verdict.promote
    assert {SOURCES[place] for place in verdict.source} == {"log_har"}
    assert "instead of the model" in verdict.reason


def test_a_coin_on_which_the_model_fails_falls_back_to_the_reference_and_the_others_stay() -> None:
    challenger = evaluation(0.95)
    challenger.losses["model"][:, 5] *= 1.3
    verdict = judge(challenger, None, POOL)
    assert verdict.promote
    assert [SOURCES[place] for place in verdict.source] == ["model"] * 5 + ["log_har"] + ["model"] * 2


def test_one_violent_hour_takes_no_coin_from_the_model() -> None:
    challenger = evaluation(0.95)
    challenger.losses["model"][77, 5] += 5.0
    assert not judge(challenger, None, POOL).source.any()


def test_pegged_coins_are_served_by_their_own_quantiles_and_judge_nothing() -> None:
    pool = POOL.copy()
    pool[[0, 6]] = False
    challenger = evaluation(0.89)
    challenger.losses["model"][:, [0, 6]] *= 100
    verdict = judge(challenger, evaluation(0.9, seed=2), pool)
    assert verdict.promote
    assert [SOURCES[place] for place in verdict.source] == ["random_walk", *["model"] * 5, "random_walk", "model"]


def test_a_batch_of_nothing_but_pegged_coins_is_let_in_and_served_by_their_quantiles() -> None:
    for champion in (None, evaluation(seed=2)):
        verdict = judge(evaluation(9.0), champion, ~POOL)
        assert verdict.promote
        assert {SOURCES[place] for place in verdict.source} == {"random_walk"}


def test_where_there_is_no_outcome_at_all_nothing_is_decided_against_the_model() -> None:
    challenger = evaluation()
    for values in (*challenger.losses.values(), *challenger.coverage.values()):
        values[:] = np.nan
    verdict = judge(challenger, None, POOL)
    assert verdict.promote
    assert not verdict.source.any()
    assert all(np.isfinite(value) for value in verdict.figures.values())


def test_a_champion_that_serves_half_of_the_coins_is_compared_on_those() -> None:
    champion = evaluation(0.5, seed=2)
    champion.losses["model"][:, 4:] = np.nan
    for shares in champion.coverage.values():
        shares[4:] = np.nan
    challenger = evaluation(0.5)
    challenger.losses["model"][:, 4:] *= 2
    assert judge(challenger, champion, POOL).promote
    challenger.losses["model"][:, :4] *= 1.5
    assert not judge(challenger, champion, POOL).promote


def test_comparisons_are_of_hours_and_not_of_coins() -> None:
    """Eight coins with the same losses are no more evidence than one."""
    one = np.random.default_rng(3).normal(1.0, 0.3, (300, 1))
    other = np.random.default_rng(4).normal(1.02, 0.3, (300, 1))
    alone = compare(one, other, np.ones(1, bool))
    assert compare(np.repeat(one, 8, axis=1), np.repeat(other, 8, axis=1), POOL) == pytest.approx(alone)
    assert alone[0] == pytest.approx((one.mean() - other.mean()) / other.mean())


def test_a_comparison_of_nothing_is_a_draw() -> None:
    blank = np.full((50, COINS), np.nan)
    assert compare(blank, blank, POOL) == (0.0, 0.0)
    assert compare(np.ones((50, COINS)), np.ones((50, COINS)), ~POOL) == (0.0, 0.0)


def test_the_champions_of_a_batch_are_put_together_coin_by_coin() -> None:
    one, other = evaluation(0.9), evaluation(0.5, seed=2)
    columns = np.arange(COINS) >= 5
    merged = merge(one, other, columns)
    assert np.array_equal(merged.losses["model"][:, :5], one.losses["model"][:, :5])
    assert np.array_equal(merged.losses["model"][:, 5:], other.losses["model"][:, 5:])
    assert np.array_equal(merged.coverage[90][columns], other.coverage[90][columns])
