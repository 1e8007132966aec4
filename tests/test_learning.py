"""What outcomes teach: every forecast is paired with the outcome of its own horizon, once, and not an hour early."""

from __future__ import annotations

import numpy as np
import pytest

from cryptod.forecast.learning import Learning, Spoken, mature
from cryptod.forecast.model import SOURCES
from cryptod.market import Float32
from tests.test_scores import NORMAL

COINS = ("A/USDT", "B/USDT")


def spoken(hour: int, coins: tuple[str, ...] = COINS, shift: float = 0.0) -> Spoken:
    """An issue whose figures tell the hour, the coin and the horizon that they belong to; the price rises by e a hundred hours."""
    figures = np.zeros((len(coins), 24, 9), np.float32)
    for row, coin in enumerate(coins):
        figures[row] = (hour + shift + 1000 * COINS.index(coin) + np.arange(1, 25) / 100)[:, None] + NORMAL / 1000
    said: dict[str, Float32] = {name: figures + place for place, name in enumerate(SOURCES)}
    return Spoken(coins, np.full(len(coins), np.exp(hour / 100)), figures, said, np.ones(len(coins), bool))


def test_each_horizon_is_paired_with_the_issue_of_so_many_hours_ago() -> None:
    now = 100
    found = mature(COINS, np.full(2, np.exp(now / 100)), [[spoken(now - h)] for h in range(1, 25)])
    hours = np.arange(1, 25)
    assert np.allclose(found.outcomes, hours / 100)
    for row in range(2):
        assert np.allclose(found.issued[row, :, 4], now - hours + 1000 * row + hours / 100, atol=1e-3)
        assert np.allclose(found.said["random_walk"][row, :, 4], found.issued[row, :, 4] + SOURCES.index("random_walk"), atol=1e-3)
    assert found.combined.all()


def test_hours_and_coins_without_an_issue_are_unknown() -> None:
    issues: list[list[Spoken]] = [[] for _ in range(24)]
    issues[2] = [spoken(97, ("B/USDT",))]
    found = mature(COINS, np.full(2, 3.0), issues)
    assert np.isfinite(found.outcomes).sum() == 1
    assert np.isfinite(found.outcomes[1, 2])
    assert np.isnan(found.issued[0]).all()
    assert not found.combined[0].any()


def test_of_two_issues_of_an_hour_the_first_counts() -> None:
    issues: list[list[Spoken]] = [[] for _ in range(24)]
    issues[0] = [spoken(99, ("A/USDT",)), spoken(99, shift=0.5)]
    found = mature(COINS, np.full(2, 3.0), issues)
    assert found.issued[0, 0, 4] == pytest.approx(99.01)
    assert found.issued[1, 0, 4] == pytest.approx(1099.51, abs=1e-3)


def test_a_coin_that_nobody_asks_for_and_forecasters_that_are_forgotten_are_passed_over() -> None:
    issue = spoken(99)
    forgotten = Spoken(issue.symbols, issue.close, issue.issued, {}, issue.combined)
    found = mature(("B/USDT",), np.full(1, 3.0), [[forgotten], *([] for _ in range(23))])
    assert found.issued[0, 0, 4] == pytest.approx(1099.01)
    assert np.isnan(found.said["model"]).all()


def test_a_wrong_delay_is_found_out_by_the_calibration() -> None:
    """Forecasts that are right for their horizon keep their width; paired with the outcome of an hour later they seem too narrow."""
    widths = {}
    coins = tuple(f"C{i}/USDT" for i in range(40))
    made = np.broadcast_to(np.sqrt(np.arange(1, 25))[None, :, None] * NORMAL, (40, 24, 9)).astype(np.float32)
    for delay in (0, 1):
        learning, random = Learning(), np.random.default_rng(0)
        prices, issues = [np.zeros(40)], []
        for _ in range(500):
            issues.append(Spoken(coins, np.exp(prices[-1]), learning.calibration.apply(coins, made), {}, np.zeros(40, bool)))
            prices.append(prices[-1] + random.normal(size=40))
            ago = [[issues[-h - delay]] if h + delay <= len(issues) else [] for h in range(1, 25)]
            learning.learn(mature(coins, np.exp(prices[-1]), ago))
        issued = learning.calibration.apply(coins, made)
        widths[delay] = float(np.log(issued[:, 0, 6] / made[:, 0, 6]).mean())
    assert abs(widths[0]) < 0.05
    assert widths[1] > 0.1  # on its way to log(2) / 2


def test_coins_that_are_served_alone_are_calibrated_but_not_combined() -> None:
    learning = Learning()
    served = np.broadcast_to(NORMAL, (2, 24, 9)).astype(np.float32)
    said = {name: served * (1 if name == "model" else 3) for name in SOURCES}
    found = learning.issue(COINS, served, said, np.array([True, False]))
    assert np.array_equal(found[1], served[1])
    assert np.allclose(found[0], served[0] * (0.96 + 0.04 * 3), rtol=1e-5)


def test_what_was_learned_survives_and_a_part_that_is_garbled_starts_anew() -> None:
    learning, random = Learning(), np.random.default_rng(0)
    for _ in range(30):
        issues = [[spoken(0)] for _ in range(24)]
        learning.learn(mature(COINS, np.exp(random.normal(size=2)), issues))
    restored, errors = Learning.restore(learning.export())
    assert errors == []
    assert np.array_equal(restored.calibration.factors(COINS), learning.calibration.factors(COINS))
    assert np.array_equal(restored.combination.weights, learning.combination.weights)
    broken, errors = Learning.restore(learning.export() | {"calibration": {"symbols": 7}})
    assert len(errors) == 1
    assert np.array_equal(broken.combination.weights, learning.combination.weights)
    assert (broken.calibration.factors(COINS) == 1).all()
