"""The closed-form parts: what they find in candles of which it is known, and that an hour teaches nothing that came after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryptod.errors import DataError
from cryptod.forecast import network
from cryptod.forecast.features import COLUMN, MARKET, TRENDS, FeatureState, scan
from cryptod.forecast.model import Model
from cryptod.forecast.season import FLAT
from cryptod.market import CLOSE, VOLUME, Bool, Float32, Panel
from cryptod.training import engine, evaluation, fitting, trainer, window
from cryptod.training.window import MarketSums, Window
from tests import markets
from tests.panels import walk

HOURS = 1500


def laid(panel: Panel, pegged: Bool | None = None) -> Window:
    sums, state = MarketSums(len(panel.values)), FeatureState.empty(len(panel.symbols))
    for part, rows in scan(state, panel, FLAT):
        sums.add(part, rows.own, rows.live)
    return window.build(window.record(panel, FLAT), np.zeros(len(panel.symbols), bool) if pegged is None else pegged, sums.means())


def assembled(found: Window, chosen: Bool | None = None) -> Model:
    rows = np.ones(len(found.row), bool) if chosen is None else chosen
    linear = fitting.fit_linear(found, rows & fitting.ordinary(found))
    return fitting.assemble(found, rows, linear, network.initial(1), fitting.fit_scaler(found, rows))


def moved(panel: Panel, logs: np.ndarray) -> Panel:
    """The panel with other closes: the candles are carried along."""
    close = np.log(panel.values[:, :, CLOSE])
    panel.values[:, :, :VOLUME] *= np.exp(logs - close)[:, :, None]
    return panel


@pytest.mark.parametrize("echo", [-0.3, 0.3])
def test_moves_against_the_market_that_turn_back_are_found_with_their_sign(echo: float) -> None:
    random = np.random.default_rng(1)
    market = random.normal(0, 0.01, (HOURS, 1))
    own = random.normal(0, 0.01, (HOURS, 6))
    own[1:] += echo * own[:-1]
    model = assembled(laid(moved(walk(HOURS, 6), 3.0 + np.cumsum(market + own, axis=0))))
    first = model.location[0, TRENDS.index(1)]
    assert np.sign(first) == np.sign(echo)
    assert abs(first) > 0.03


def test_a_market_that_rose_all_the_while_is_not_said_to_go_on() -> None:
    random = np.random.default_rng(2)
    steps = random.normal(0.002, 0.01, (HOURS, 6))
    found = laid(moved(walk(HOURS, 6), 1.0 + np.cumsum(steps, axis=0)))
    assert found.moves(slice(None))[:, 23].mean() > 0.03
    assert not assembled(found).residuals[:, 4].any()


def test_the_linear_part_is_least_squares_of_the_log_variance_ahead() -> None:
    found = laid(walk(HOURS, 4, seed=3))
    every = found.row % 3 == 0
    linear = fitting.fit_linear(found, np.ones(len(found.row), bool))
    columns = [COLUMN[f"level_{k}"] for k in (2, 12, 48, 168, 672)]
    means = [MARKET.index(f"level_{k}") for k in (2, 12, 48, 168, 672)]
    terms = np.column_stack([found.own[found.row, found.coin][:, columns], found.market[found.row][:, means], np.ones(len(found.row))])
    target = found.targets(slice(None)).astype(float)
    expected = terms[every] @ np.linalg.lstsq(terms[every].astype(float), target[every], rcond=None)[0]
    assert terms[every] @ linear.har.T == pytest.approx(expected, abs=1e-3)
    fit = fitting.linear_fit(found, linear)
    assert ((fit - target)[every] ** 2).mean() < 1.01 * ((expected - target[every]) ** 2).mean()


def test_a_coin_that_moves_more_than_its_ranges_say_has_the_larger_factor() -> None:
    panel = walk(HOURS, 4, seed=4)
    close = np.log(panel.values[:, :, CLOSE])
    steps = np.diff(close, axis=0, prepend=close[:1])
    steps[:, 2] += np.random.default_rng(5).normal(0, 2 * steps[:, 2].std(), HOURS)
    model = assembled(laid(moved(panel, close[0] + np.cumsum(steps, axis=0))))
    assert model.factors[2, 0] > 1.2 * np.delete(model.factors[:, 0], 2).max()
    assert (model.factors <= np.exp(0.7) + 1e-9).all()


def test_on_the_hours_that_it_was_fitted_on_the_intervals_hold_as_often_as_they_say() -> None:
    found = laid(walk(HOURS, 4, seed=6))
    held = evaluation.evaluate(assembled(found), found, np.arange(200, HOURS - 24)).coverage
    for percent in (50, 80, 90, 95):
        assert held[percent].mean() == pytest.approx(percent / 100, abs=0.03)


def test_losses_and_coverage_are_those_of_each_hour_by_itself() -> None:
    found = laid(walk(HOURS, 4, seed=6))
    model, rows = assembled(found), np.arange(600, 640)
    found.origin[610, 2] = False
    every = evaluation.evaluate(model, found, rows)
    assert np.isnan(every.losses["model"][10, 2])
    assert np.isfinite(every.losses["model"]).sum() == 159
    for place in (0, 7, 39):
        t = rows[place]
        quantiles = model.own_quantiles(found.own[t], found.market[t], found.hours[t], np.arange(4)).astype(float)
        for coin in (0, 3):
            total = 0.0
            for h in (1, 2, 4, 8, 12, 24):
                y = found.log_close[t + h, coin] - found.log_close[t, coin]
                error = y - quantiles[coin, h - 1]
                levels = np.array([0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975])
                total += 2 * np.where(error > 0, levels * error, (levels - 1) * error).mean() / np.sqrt(h)
            assert every.losses["model"][place, coin] == pytest.approx(total / 6, rel=1e-4)
    backwards = evaluation.evaluate(model, found, rows, np.array([3, -1, 1, 0]), references=False)
    assert set(backwards.losses) == {"model"}
    assert np.isnan(backwards.losses["model"][:, 1]).all()
    assert np.isnan(backwards.coverage[90][1]).all()
    assert np.isfinite(backwards.coverage[90][0]).all()


def test_too_few_hours_and_prices_that_do_not_move_are_refused() -> None:
    found = laid(walk(220, 2))
    with pytest.raises(DataError, match="hours to fit"):
        fitting.fit_linear(found, np.ones(len(found.row), bool))
    still = walk(HOURS, 2)
    still.values[:, :, :VOLUME] = 1.0
    with pytest.raises(DataError, match="hardly move"):
        assembled(laid(still))


def test_pegged_coins_teach_the_pool_nothing_but_have_tables_of_their_own() -> None:
    panel, other = walk(HOURS, 4, seed=7), walk(HOURS, 4, seed=7)
    close = np.log(other.values[:, :, CLOSE])
    other = moved(other, np.concatenate([close[:, :3], close[:, 3:] * 0.5], axis=1))
    pegged = np.array([False, False, False, True])
    one, changed = assembled(laid(panel, pegged)), assembled(laid(other, pegged))
    assert one.source.tolist() == [0, 0, 0, 1]
    assert not np.array_equal(one.tables[0, 3], changed.tables[0, 3])
    assert one.residuals.shape == changed.residuals.shape
    assert one.residuals == pytest.approx(changed.residuals, rel=0.05)


@pytest.mark.parametrize("kind", ["full", "incremental"])
def test_between_the_hours_learned_from_and_those_judged_on_lie_those_that_the_outcomes_reach_into(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, first = markets.world()
    symbols = source.held.symbols[:4]
    windows: list[Window] = []
    splits: list[tuple[np.ndarray, np.ndarray]] = []
    judged: list[np.ndarray] = []
    fitted: list[Bool] = []
    build, train, evaluate, assemble = window.build, trainer.train, evaluation.evaluate, fitting.assemble

    def seen_build(*given: object) -> Window:
        windows.append(build(*given))  # type: ignore[arg-type]
        return windows[-1]

    def seen_train(
        weights: dict[str, Float32], inputs: Float32, residual: Float32, learn: np.ndarray, hold: np.ndarray, *rest: object
    ) -> object:
        splits.append((learn, hold))
        return train(weights, inputs, residual, learn, hold, *rest)  # type: ignore[arg-type]

    def seen_evaluate(model: Model, found: Window, rows: np.ndarray, *rest: object, **named: bool) -> object:
        judged.append(rows)
        return evaluate(model, found, rows, *rest, **named)  # type: ignore[arg-type]

    def seen_assemble(found: Window, chosen: Bool, *rest: object, **known: Float32 | None) -> object:
        fitted.append(chosen)
        return assemble(found, chosen, *rest, **known)  # type: ignore[arg-type]

    monkeypatch.setattr(window, "build", seen_build)
    monkeypatch.setattr(trainer, "train", seen_train)
    monkeypatch.setattr(evaluation, "evaluate", seen_evaluate)
    monkeypatch.setattr(fitting, "assemble", seen_assemble)
    champions = dict.fromkeys(symbols, first.done[0].checkpoint) if kind == "incremental" else {}
    markets.train(source, first.root if champions else tmp_path, (symbols,), kind=kind, champions=champions, seed=21)
    (found,), ((learn, hold),) = windows, splits
    begin = int(judged[0].min())
    assert found.length - 24 - begin == engine.HOLDOUT_HOURS[kind]
    assert found.row[learn].max() + 24 < begin, "an outcome is 24 hours long"
    assert found.row[hold].min() >= begin
    assert judged[0].max() + 24 < found.length
    if kind == "full":
        assert found.row[fitted[0]].max() + 24 < begin, "what is judged has seen nothing of it"
        assert fitted[1].all(), "what serves has seen everything"
    else:
        assert len(fitted) == 1
        assert fitted[0].all()
