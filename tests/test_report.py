"""The page of a backtest: its figures against plain loops, and the page as a reader and as a browser see it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from cryptod.errors import DataError, StoreError
from cryptod.forecast.skill import Blocks, equal_losses
from cryptod.market import HOUR, QUANTILE_LEVELS, SERVED, Float32, Float64
from cryptod.report.charts import Chart, bounds, ticks
from cryptod.report.markup import fixed, percent, plain, price
from cryptod.report.page import render, write_report
from cryptod.report.results import BacktestResults
from cryptod.report.summary import summarise
from tests.pages import browse, browser, read

START = 1_680_307_200_000  # 2023-04-01
HORIZONS = (1, 2, 4, 8, 12, 24)

EVALUATED = {"crps_model": 70.0, "crps_log_har": 71.0, "crps_ewma": 72.0, "skill_ewma": 0.5, "coverage_80": 79.6}


def results(
    hours: int = 24 * 60, coins: int = 4, horizons: tuple[int, ...] = HORIZONS, step: int = 1, gain: float = 0.02, seed: int = 1
) -> BacktestResults:
    """A backtest made up: what was served is better by ``gain`` than log_har, and by 5 % more than the random walk."""
    random = np.random.default_rng(seed)
    symbols = tuple(f"COIN{i}/USDT" for i in range(coins))
    shape = (hours // step, coins, len(horizons))
    base = random.gamma(4.0, 0.002, shape) * np.sqrt(np.array(horizons))

    def loss(factor: float) -> Float32:
        return np.asarray(base * factor * random.normal(1.0, 0.05, shape), np.float32)

    pit = random.random(shape).astype(np.float32)
    closes = 100 * np.exp(np.cumsum(random.normal(0, 0.01, shape[:2]), axis=0))
    levels = np.array(QUANTILE_LEVELS)
    quantiles = (0.02 * np.sqrt(np.array(horizons))[:, None] * (levels - 0.5)).astype(np.float32)
    return BacktestResults(
        symbols=symbols,
        cutoffs=START + HOUR.ms * step * np.arange(hours // step, dtype=np.int64),
        horizons=horizons,
        forecasters={SERVED: loss(1.0), "random_walk": loss(1 + gain + 0.05), "log_har": loss(1 + gain)},
        hits={p: (np.abs(pit - 0.5) < p / 200).astype(np.float32) for p in (50, 80, 90, 95)},
        pit=pit,
        closes=closes,
        examples={symbol: np.broadcast_to(quantiles, (shape[0], *quantiles.shape)) for symbol in symbols[:2]},
        start=START,
        end=START + hours * HOUR.ms,
        trainings=[
            {"time": START + i * 6 * HOUR.ms, "kind": "incremental" if i % 28 else "full", "batch": 1, "promoted": i % 9 != 4,
             "reason": f"verdict {i}", "figures": EVALUATED | {"skill_log_har": 0.01 * i}}
            for i in range(max(hours // 6, 1))
        ],
        settings="step 1h\nseed 1",
        widths={80: np.full(shape, 0.02, np.float32)},
        shares={"model": np.full(shape[0], 0.75, np.float32), "log_har": np.full(shape[0], 0.25, np.float32)},
    )  # fmt: skip


Cube = TypeVar("Cube", Float32, Float64)


def without(cube: Cube, *cell: Any) -> Cube:
    found = cube.copy()
    found[cell] = np.nan
    return found


# ------------------------------------------------------------------------------------------------------------------ figures


def test_the_figures_are_those_of_plain_loops() -> None:
    made = results(hours=50, coins=3)
    forecasters = {**made.forecasters, "log_har": without(made.forecasters["log_har"], slice(5, 9), 1)}
    summary = summarise(dataclasses.replace(made, forecasters=forecasters))
    cells = [(t, n, h) for t in range(50) for n in range(3) for h in range(6) if not (n == 1 and 5 <= t < 9)]
    assert summary.cells == len(cells)
    for name, loss in forecasters.items():
        by_horizon = [np.mean([loss[cell] for cell in cells if cell[2] == h]) for h in range(6)]
        assert summary.by_horizon(name) == pytest.approx(by_horizon, rel=1e-5)
        pooled = np.mean([mean / np.sqrt(h) for mean, h in zip(by_horizon, HORIZONS, strict=True)])
        assert summary.pooled(name) == pytest.approx(pooled, rel=1e-5)
    assert summary.skill("log_har") == pytest.approx(1 - summary.pooled(SERVED) / summary.pooled("log_har"))
    hit = made.hits[80]
    assert summary.coverage(80) == pytest.approx([np.mean([hit[cell] for cell in cells if cell[2] == h]) for h in range(6)])
    assert summary.coverage_of_coins(80) == pytest.approx([np.mean([hit[cell] for cell in cells if cell[1] == n]) for n in range(3)])
    ours, theirs = (
        np.mean([np.mean(made.forecasters[name][:, 2, h]) / np.sqrt(HORIZONS[h]) for h in range(6)]) for name in (SERVED, "log_har")
    )
    assert summary.skill_by_coin("log_har")[2] == pytest.approx(1 - ours / theirs, rel=1e-4)


def test_the_strongest_reference_comes_first() -> None:
    assert summarise(results()).references == ["log_har", "random_walk"]


def test_the_model_by_itself_stands_in_the_table_and_is_no_reference() -> None:
    made = results(hours=24 * 40)
    both = dataclasses.replace(made, forecasters={**made.forecasters, "model": made.forecasters[SERVED] * np.float32(1.001)})
    assert summarise(both).references == ["log_har", "random_walk"]
    text = read(render(both))
    assert "the model alone" in text
    assert "against the model" not in text


def test_the_running_gain_ends_at_the_skill() -> None:
    summary = summarise(results())
    assert summary.running_gain("log_har")[-1] == pytest.approx(summary.skill("log_har"), rel=1e-6)


def test_skill_has_an_interval_where_there_is_enough_to_tell() -> None:
    summary = summarise(results())
    low, high = summary.interval("log_har") or (0.0, 0.0)
    assert 0 < low < summary.skill("log_har") < high
    assert summary.t_value("log_har") > 5
    assert summary.verdict("log_har") == "better"
    assert summarise(results(hours=24 * 5)).interval("log_har") is None
    assert summarise(results(hours=24 * 5)).verdict("log_har") is None


def test_what_is_said_of_the_skill_is_what_is_said_of_live_scores() -> None:
    """The same hours told to the bootstrap and the test of `forecast.skill` by hand, unknown hours and coins among them."""
    made = results(hours=24 * 30, coins=3)
    made = dataclasses.replace(made, forecasters={**made.forecasters, SERVED: without(made.forecasters[SERVED], slice(100, 160), 1)})
    summary = summarise(made)
    known = np.isfinite(made.forecasters[SERVED])
    ours, theirs = (np.where(known, made.forecasters[name], 0.0).astype(float) / np.sqrt(HORIZONS) for name in (SERVED, "log_har"))
    share = known.sum(axis=1) / known.sum(axis=(0, 1))
    top, bottom = (((part / known.sum(axis=(0, 1))).sum(axis=(1, 2)))[:, None] for part in (theirs - ours, theirs))
    (skill,), (half,) = Blocks(np.ones(len(top), bool)).ratio(top, bottom)
    assert summary.skill("log_har") == pytest.approx(skill, rel=1e-5)
    assert summary.interval("log_har") == pytest.approx((skill - half, skill + half), rel=1e-4)
    assert summary.t_value("log_har") == pytest.approx(equal_losses(top[:, 0], share.sum(axis=1)).t, rel=1e-4)
    (skill,), (half,) = Blocks(np.ones(len(top), bool)).ratio(
        (theirs - ours)[..., 2].sum(axis=1)[:, None], theirs[..., 2].sum(axis=1)[:, None]
    )
    assert summary.interval("log_har", 2) == pytest.approx((skill - half, skill + half), rel=1e-4)


def test_hours_between_two_cutoffs_are_hours_of_which_nothing_is_known() -> None:
    every, third = summarise(results(hours=24 * 90)), summarise(results(hours=24 * 90, step=3))
    low, high = third.interval("log_har") or (0.0, 0.0)
    assert low < third.skill("log_har") < high
    assert high - low > 1.2 * np.diff(every.interval("log_har") or (0.0, 0.0))[0], "a third of the hours says less"


def test_a_short_last_block_counts_to_the_one_before() -> None:
    assert [len(summarise(results(hours=24 * days)).blocks) for days in (3, 28, 41, 42, 60)] == [1, 1, 1, 2, 2]
    summary = summarise(results(hours=24 * 41))
    assert summary.skill_by_block("log_har")[0] == pytest.approx(summary.skill("log_har"), rel=1e-6)
    assert sum(int(rows.sum()) for _, rows in summarise(results(hours=24 * 60)).blocks) == 24 * 60


def test_a_uniform_pit_is_flat_and_one_on_a_level_counts_half_to_each_side() -> None:
    summary = summarise(results(hours=4000, coins=10, horizons=(1,)))
    assert summary.pit_density(0) == pytest.approx(np.ones(10), abs=0.1)
    assert summary.calibration_curve(0) == pytest.approx(QUANTILE_LEVELS, abs=0.01)
    made = results(hours=10, coins=1, horizons=(1,))
    halves = summarise(dataclasses.replace(made, pit=np.full((10, 1, 1), 0.5, np.float32)))
    assert halves.pit[0].tolist() == [0, 0, 0, 0, 5, 5, 0, 0, 0, 0]


def test_horizons_that_are_not_among_the_pooled_ones_are_pooled_when_there_are_no_others() -> None:
    assert summarise(results(hours=30, horizons=tuple(range(1, 25)))).scored == [0, 1, 3, 7, 11, 23]
    assert summarise(results(hours=30, horizons=(3, 5))).scored == [0, 1]


def test_results_that_do_not_fit_together_are_refused() -> None:
    made = results(hours=30)
    with pytest.raises(DataError, match=r"pit is .* and should be"):
        dataclasses.replace(made, pit=made.pit[:5])
    with pytest.raises(DataError, match="no coin 'NONE/USDT'"):
        dataclasses.replace(made, examples={"NONE/USDT": made.examples["COIN0/USDT"]})
    with pytest.raises(DataError, match="no forecaster 'served'"):
        dataclasses.replace(made, forecasters={"log_har": made.forecasters["log_har"]})


# ------------------------------------------------------------------------------------------------------------------ the page


def test_the_page_says_what_was_found() -> None:
    made = results()
    text = read(render(made))
    summary = summarise(made)
    assert "Backtest, 2023-04-01 to 2023-05-30" in text
    assert f"better than every reference: by {percent(summary.skill('log_har'), 2)}" in text
    for words in (
        "Skill by horizon",
        "Skill over time",
        "Calibration",
        "PIT histograms",
        "Sharpness",
        "By coin",
        "Who served",
        "Training history",
    ):
        assert words in text
    assert fixed(1e4 * summary.by_horizon("log_har")[2], 2) in text
    assert fixed(100 * summary.coverage(90)[5], 1) in text
    assert "COIN0/USDT, the last days" in text
    assert "COIN3/USDT" in text
    assert "the model 75.0" in text
    assert "seed 1" in text


def test_the_page_does_not_flatter() -> None:
    assert "log-HAR alone would have served better" in read(render(results(gain=-0.02)))
    assert "cannot be told apart" in read(render(results(gain=0.0, seed=3)))
    assert "too short to tell skill from luck" in read(render(results(hours=48)))


def test_verdicts_are_told_with_their_reasons() -> None:
    text = read(render(results(hours=24 * 30)))
    assert "Full: 4 promoted, 1 refused; incremental: 103 promoted, 12 refused." in text
    assert "verdict 4" in text  # refused
    assert "verdict 5\n" not in text  # an update that was promoted
    assert "The table lacks 103 verdicts" in text
    assert "+4.00\u202f%\nlog-HAR\n79.6\u202f%" in text


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("hours", [3, 24, 24 * 9])
@pytest.mark.parametrize("coins", [1, 3])
def test_tiny_periods_make_a_page(hours: int, coins: int, step: int) -> None:
    assert "scored" in read(render(results(hours=hours, coins=coins, step=step)))


def test_an_empty_period_makes_a_page_that_says_so() -> None:
    assert "No forecast has an outcome yet" in read(render(results(hours=0)))
    made = results(hours=24)
    nothing = {name: np.full_like(loss, np.nan) for name, loss in made.forecasters.items()}
    text = read(render(dataclasses.replace(made, forecasters=nothing)))
    assert "No forecast has an outcome yet" in text
    assert "Training history" in text


def test_parts_that_are_not_there_are_left_out() -> None:
    made = results(hours=24 * 40)
    bare = dataclasses.replace(made, examples={}, trainings=(), settings="", widths={}, shares={}, hits={})
    text = read(render(bare))
    for words in ("Sharpness", "Who served", "Training history", "What was said", "Settings"):
        assert words not in text
    assert "Sharpness" in read(render(dataclasses.replace(made, widths={})))  # that of the examples
    alone = read(render(dataclasses.replace(made, forecasters={SERVED: made.forecasters[SERVED]})))
    assert "No reference was run" in alone


def test_what_is_not_known_is_a_dash_and_never_nan() -> None:
    made = results(hours=24 * 40)
    holes = {name: without(loss, slice(None), 2) for name, loss in made.forecasters.items()}  # a coin without outcomes
    holes = {name: without(loss, slice(100, 400)) for name, loss in holes.items()}  # and two weeks without any
    unknown = dataclasses.replace(
        made,
        forecasters=holes,
        pit=without(made.pit, slice(None), 2),
        closes=without(made.closes, slice(50, 60)),
        examples={name: without(quantiles, slice(0, 30)) for name, quantiles in made.examples.items()},
        widths={80: without(made.widths[80], slice(100, 400))},
        shares={"model": without(made.shares["model"], slice(0, 50))},
        trainings=[
            {
                "time": START,
                "kind": "full",
                "batch": 1,
                "promoted": False,
                "reason": "",
                "figures": {"crps_ewma": 72.0, "skill_ewma": float("nan")},
            }
        ],
    )
    text = read(render(unknown))
    assert "COIN2/USDT" in text
    assert "–\nEWMA\n–" in text


def test_everything_that_comes_from_outside_is_escaped() -> None:
    made = results(hours=24 * 40, coins=2)
    bad = '<script>alert("x")</script>&'
    evil = dataclasses.replace(
        made,
        symbols=(bad, "B/USDT"),
        examples={bad: made.examples["COIN0/USDT"]},
        forecasters={SERVED: made.forecasters[SERVED], f"ref{bad}": made.forecasters["log_har"]},
        shares={f"model{bad}": made.shares["model"]},
        settings=bad,
        trainings=[{"time": START, "kind": bad, "batch": bad, "promoted": False, "reason": bad, "figures": {bad: bad}}],
    )
    page = render(evil)
    assert bad in read(page)
    assert page.count("<script>") == page.count("</script>") == 1
    assert 'alert("x")' not in page


def test_the_page_of_a_hundred_coins_and_all_horizons_stays_small() -> None:
    page = render(results(hours=24 * 90, coins=100, horizons=tuple(range(1, 25))))
    assert len(page.encode()) < 3_000_000
    assert "COIN99/USDT" in read(page)


def test_the_same_results_make_the_same_page() -> None:
    assert render(results(hours=24 * 40)) == render(results(hours=24 * 40))


def test_a_report_that_cannot_be_written_is_an_error_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"cannot be written to .*gone"):
        write_report(tmp_path / "gone" / "report.html", results(hours=24))


# ------------------------------------------------------------------------------------------------------------------ its parts


def test_ticks_are_round_and_within() -> None:
    assert ticks(-0.012, 0.031) == pytest.approx([-0.01, 0.0, 0.01, 0.02, 0.03])
    assert ticks(5.0, 5.0) == [5.0]
    assert bounds([float("nan")]) == (0.0, 1.0)
    low, high = bounds([0.001], include=[0.0], least=0.01)
    assert high - low >= 0.01


def test_a_line_breaks_where_a_value_is_not_known() -> None:
    drawn = Chart("c", (0, 3), (0, 1)).line([0, 1, 2, 3], [0.5, float("nan"), 0.5, 0.6], "served").svg()
    assert drawn.count("M") == 2
    assert Chart("c", (0, 3), (0, 1)).bars([1], [float("nan")], ["good"]).svg().count("<rect") == 0


def test_names_below_an_axis_do_not_touch() -> None:
    drawn = Chart("c", (0, 100), (0, 1)).x_axis(list(range(100)), ["30 Sep"] * 100).svg()
    places = [float(x) for x in re.findall(r'<text class="tick" x="([\d.]+)"', drawn)]
    assert 3 < len(places) < 10
    assert min(np.diff(places)) > 30


def test_numbers_are_said_plainly() -> None:
    assert [fixed(-0.04, 1), fixed(-1.25, 2, sign=True), fixed(float("nan"))] == ["0.0", "\u22121.25", "–"]
    assert percent(0.0081, 2, sign=True) == "+0.81\u202f%"
    assert plain({"a": 1.23456, "b": {"c": "x"}}) == "a 1.235, b (c x)"
    assert [price(42000.0), price(0.0000123456), price(0.0)] == ["42,000", "0.00001235", "0"]


# ------------------------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, results(hours=24 * 60, coins=12))
    return path


@browser
def test_a_click_on_a_heading_sorts_the_coins_and_a_second_one_turns_them_round(page: Path) -> None:
    script = """(() => {
        const table = document.querySelector('#coin-table'), heads = table.tHead.rows[0].cells;
        const column = i => [...table.tBodies[0].rows].map(row => row.cells[i]);
        heads[2].click(); const down = column(2).map(cell => +cell.dataset.value), said = heads[2].ariaSort;
        heads[2].click(); const up = column(2).map(cell => +cell.dataset.value);
        heads[0].click(); return {down, up, said, names: column(0).map(cell => cell.textContent)};
    })()"""
    found = browse(page, script)
    assert len(found["down"]) == 12
    assert found["down"] == sorted(found["down"], reverse=True)
    assert found["up"] == sorted(found["up"])
    assert found["said"] == "descending"
    assert found["names"] == sorted(found["names"])


@browser
def test_the_search_leaves_the_coins_that_were_asked_for(page: Path) -> None:
    script = """(() => {
        const field = document.querySelector('[data-search]');
        field.value = 'coin1'; field.dispatchEvent(new Event('input'));
        const rows = [...document.querySelectorAll('#coin-table tbody tr')].filter(row => row.offsetParent !== null);
        return rows.map(row => row.cells[0].textContent);
    })()"""
    assert browse(page, script) == ["COIN1/USDT", "COIN10/USDT", "COIN11/USDT"]


@browser
@pytest.mark.parametrize("width", [500, 800, 1400])
def test_nothing_sticks_out_at_any_width(page: Path, width: int) -> None:
    script = "({page: document.documentElement.scrollWidth, window: innerWidth})"
    found = browse(page, script, f"--window-size={width},900", "--hide-scrollbars")
    assert found["page"] <= found["window"]


@browser
def test_light_and_dark_follow_the_readers_preference(page: Path) -> None:
    script = "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    dark, light = (browse(page, script, f"--blink-settings=preferredColorScheme={scheme}") for scheme in (0, 1))

    def brightness(colour: str) -> int:
        return sum(int(part) for part in re.findall(r"\d+", colour)[:3])

    assert brightness(light[0]) > 600 > 300 > brightness(light[1])
    assert brightness(dark[0]) < 150 < 500 < brightness(dark[1])
