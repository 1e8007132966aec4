"""What is concluded from scores: intervals that hold as often as they say, tests that are fooled no oftener, figures known from books."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cryptod.forecast.skill import LAG, Blocks, equal_losses, estimate, flatness, proportion, rank_correlation, ranked, student, wilson
from cryptod.market import Bool, Float64

MONTH = 720


def every_hour(hours: int = MONTH) -> Bool:
    return np.ones(hours, bool)


def independent(series: int, hours: int = MONTH, seed: int = 1) -> Float64:
    """float64 [hours, series]: noise without memory."""
    return np.random.default_rng(seed).normal(size=(hours, series))


def overlapping(series: int, hours: int = MONTH, seed: int = 1) -> Float64:
    """Sums of 24 hours, one hour apart: as outcomes are."""
    total = np.cumsum(independent(series, hours + 24, seed), axis=0)
    return np.asarray((total[24:] - total[:-24]) / np.sqrt(24))


def lasting(series: int, hours: int = MONTH, seed: int = 1) -> Float64:
    """AR(1) noise whose memory of an hour is .9."""
    noise, found = independent(series, hours + 200, seed), np.zeros((hours + 200, series))
    for hour in range(1, hours + 200):
        found[hour] = 0.9 * found[hour - 1] + noise[hour]
    return found[200:]


# Intervals


def test_students_t_is_that_of_the_tables() -> None:
    for freedom, value in ((1, 12.706), (2, 4.303), (3, 3.182), (9, 2.262), (30, 2.042), (1000, 1.962)):
        assert student(0.975, freedom) == pytest.approx(value, abs=1e-3)
    assert student(0.95, 5) == pytest.approx(2.015, abs=1e-3)
    assert student(0.025, 9) == -student(0.975, 9)
    assert student(0.975, 3) < student(0.975, 2.5) < student(0.975, 2)


@pytest.mark.parametrize(
    ("hits", "count", "low", "high"), [(10, 100, 0.0552, 0.1744), (5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (20, 20, 0.8389, 1.0)]
)
def test_wilsons_interval_is_that_of_the_textbook(hits: int, count: int, low: float, high: float) -> None:
    assert wilson(hits / count, count) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("hours", "least"), [(168, 0.94), (720, 0.91), (2160, 0.915)])
@pytest.mark.parametrize("noise", [independent, overlapping, lasting])
def test_intervals_of_hours_that_hang_together_hold_about_as_often_as_they_say(hours: int, least: float, noise: object) -> None:
    series = noise(800, hours)  # type: ignore[operator]
    value, half = Blocks(every_hour(hours)).ratio(series, np.ones_like(series))
    assert least <= (np.abs(value) <= half).mean() <= 0.995


def test_intervals_that_take_hours_for_independent_would_not() -> None:
    series = overlapping(800)
    naive = 1.96 * series.std(axis=0) / math.sqrt(MONTH)
    assert (np.abs(series.mean(axis=0)) <= naive).mean() < 0.5


def test_without_days_enough_there_is_a_figure_and_no_interval() -> None:
    few = Blocks(every_hour(143))
    value, half = few.ratio(np.ones((143, 1)), np.ones((143, 1)))
    assert value[0] == 1.0
    assert np.isnan(half[0])
    assert estimate(float(value[0]), float(half[0])) == (1.0, None, None)
    assert Blocks(every_hour(144)).weights is not None


def test_a_column_of_few_hours_has_no_interval_beside_columns_that_have() -> None:
    series = independent(2)
    count = np.ones_like(series)
    count[100:, 1] = series[100:, 1] = 0.0
    value, half = Blocks(every_hour()).ratio(series, count)
    assert np.isfinite(half[0])
    assert np.isnan(half[1])
    assert value[1] == pytest.approx(series[:100, 1].mean())


def test_an_hour_of_more_forecasts_counts_for_more_and_an_hour_of_none_for_nothing() -> None:
    top, count = np.array([[2.0], [0.0], [30.0]]), np.array([[1.0], [0.0], [10.0]])
    assert Blocks(every_hour(3)).ratio(top, count)[0][0] == pytest.approx(32 / 11)
    assert np.isnan(Blocks(every_hour(3)).ratio(top, np.zeros_like(count))[0][0])


def test_the_same_hours_have_the_same_interval_every_time() -> None:
    series = overlapping(3)
    first, second = (Blocks(every_hour()).ratio(series, np.ones_like(series))[1] for _ in range(2))
    assert np.array_equal(first, second)


def test_every_draw_has_as_many_hours_as_there_are_and_none_is_preferred() -> None:
    for hours in (144, 150, 2160):
        weights = Blocks(every_hour(hours)).weights
        assert weights is not None
        assert (weights.sum(axis=1) == hours).all()
        assert np.abs(weights.mean(axis=0) - 1).max() < 0.2


def test_a_proportion_of_trials_that_are_one_and_the_same_is_worth_one_trial_an_hour_at_most() -> None:
    hours = np.random.default_rng(2).integers(0, 2, MONTH).astype(np.float64)
    alone, worth_alone = proportion(Blocks(every_hour()), hours, np.ones(MONTH))
    crowd, worth_crowd = proportion(Blocks(every_hour()), 100 * hours, np.full(MONTH, 100.0))
    assert worth_alone == pytest.approx(worth_crowd, rel=1e-3)
    assert worth_crowd is not None
    assert worth_crowd <= 1.5 * MONTH
    assert alone == pytest.approx(crowd, rel=1e-3)
    assert crowd.high is not None
    assert crowd.low is not None
    assert crowd.high - crowd.low > 0.05, "of 72,000 independent trials it would be 0.007"


def test_a_proportion_that_never_varies_has_an_interval_all_the_same() -> None:
    found, _ = proportion(Blocks(every_hour()), np.ones(MONTH), np.ones(MONTH))
    assert found.low is not None
    assert found.low < 0.8
    assert found.high == pytest.approx(1.0)


# Tests


def test_the_test_of_equal_losses_is_the_formula_worked_out_in_full() -> None:
    series = np.random.default_rng(3).normal(0.1, 1.0, 400)
    mean, centred = series.mean(), series - series.mean()
    variance = sum(
        (1 - abs(i - j) / (LAG + 1)) * centred[i] * centred[j] for i in range(400) for j in range(400) if abs(i - j) <= LAG
    )  # fmt: skip
    found = equal_losses(series, np.ones(400))
    assert found.t == pytest.approx(mean / (math.sqrt(variance) / 400))
    assert found.needed == pytest.approx(2.33, abs=0.01)


def test_gaps_before_after_and_between_do_not_change_what_is_tested() -> None:
    series = np.random.default_rng(3).normal(0.1, 1.0, 400)
    padded = np.concatenate([np.zeros(500), series, np.zeros(70)])
    count = np.concatenate([np.zeros(500), np.ones(400), np.zeros(70)])
    assert equal_losses(padded, count) == equal_losses(series, np.ones(400))
    assert equal_losses(7 * padded, 7 * count) == pytest.approx(equal_losses(series, np.ones(400)))


@pytest.mark.parametrize("noise", [independent, overlapping, lasting])
def test_two_that_are_as_good_as_each_other_are_told_apart_in_one_of_twenty_or_so(noise: object) -> None:
    series = noise(500)  # type: ignore[operator]
    found = [equal_losses(series[:, i], np.ones(MONTH)) for i in range(series.shape[1])]
    assert 0.02 <= np.mean([abs(test.t) >= (test.needed or 0) for test in found]) <= 0.11


def test_a_steady_difference_is_found_and_of_two_days_nothing_is_said() -> None:
    series = overlapping(1)[:, 0] + 1.0
    found = equal_losses(series, np.ones(MONTH))
    assert found.needed is not None
    assert found.t > found.needed
    assert equal_losses(series[:48], np.ones(48)).needed is None
    assert equal_losses(np.zeros(MONTH), np.ones(MONTH)).t == 0.0


def histogram(values: Float64) -> Float64:
    return np.stack([np.histogram(row, 10, (0, 1))[0] for row in values]).astype(float)


def test_flat_histograms_are_called_flat_and_humps_are_found() -> None:
    random = np.random.default_rng(4)
    blocks = Blocks(every_hour())
    called = [flatness(blocks, histogram(random.random((MONTH, 5)))).p for _ in range(40)]
    assert sum(p is not None and p < 0.05 for p in called) <= 6
    humped = flatness(blocks, histogram(random.beta(1.3, 1.3, (MONTH, 5))))
    assert humped.p is not None
    assert humped.p < 0.02
    assert humped.distance is not None
    assert humped.distance > 0.02


# Ranks


def test_ranks_share_their_place_where_they_are_equal_and_leave_out_what_is_not_known() -> None:
    values = np.array([[3.0, 1.0, 3.0, np.nan, 2.0], [1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 2.0, np.nan, np.nan, np.nan]])
    found = ranked(values, np.isfinite(values))
    assert found[0] == pytest.approx(np.array([1.0, -1.5, 1.0, 0.0, -0.5]) / math.sqrt(4.5))
    assert (found[1:] == 0).all(), "all the same, or fewer than three"


def test_a_rank_correlation_is_spearmans() -> None:
    random = np.random.default_rng(5)
    scores, outcomes = random.normal(size=(2, 200, 9))
    found = rank_correlation(Blocks(every_hour(200)), scores, outcomes)
    each = []
    for one, other in zip(scores, outcomes, strict=True):
        distance = np.argsort(np.argsort(one)) - np.argsort(np.argsort(other))
        each.append(1 - 6 * (distance**2).sum() / (9 * 80))
    assert found.mean.value == pytest.approx(np.mean(each), abs=1e-5)
    assert found.hours == 200


def lasting_scores_and_overlapping_outcomes(seed: int, coins: int = 30) -> tuple[Float64, Float64]:
    """Nothing to do with each other."""
    return lasting(coins, MONTH, seed), overlapping(coins, MONTH, seed + 1000)


def test_ranks_that_mean_nothing_are_taken_for_luck() -> None:
    blocks = Blocks(every_hour())
    found = [rank_correlation(blocks, *lasting_scores_and_overlapping_outcomes(seed)).p for seed in range(100)]
    assert np.mean([p is not None and p < 0.05 for p in found]) <= 0.11


def test_shuffled_hour_by_hour_luck_would_often_be_taken_for_skill() -> None:
    random, wrong = np.random.default_rng(6), 0
    for seed in range(40):
        scores, outcomes = lasting_scores_and_overlapping_outcomes(seed)
        ours, theirs = (ranked(values, np.isfinite(values)) for values in (scores, outcomes))
        chance = [abs((random.permuted(ours, axis=1) * theirs).sum()) for _ in range(60)]
        wrong += abs((ours * theirs).sum()) > np.quantile(chance, 0.95)
    assert wrong / 40 > 0.25


def test_ranks_that_mean_something_are_found() -> None:
    scores, outcomes = lasting_scores_and_overlapping_outcomes(1)
    found = rank_correlation(Blocks(every_hour()), scores + 0.3 * scores.std() * outcomes / outcomes.std(), outcomes)
    assert found.p is not None
    assert found.p < 0.01
    assert found.mean.low is not None
    assert found.mean.low > 0


def test_of_two_coins_there_are_no_ranks_and_of_few_days_no_chance_is_told() -> None:
    scores, outcomes = lasting_scores_and_overlapping_outcomes(1)
    assert rank_correlation(Blocks(every_hour()), scores[:, :2], outcomes[:, :2]) == ((None, None, None), None, 0)
    few = rank_correlation(Blocks(every_hour(100)), scores[:100], outcomes[:100])
    assert few.mean.value is not None
    assert (few.mean.low, few.p) == (None, None)
