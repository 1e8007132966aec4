"""The independent judge of forecasts, on markets whose law is known and on files with known faults."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.bench import bench_forecast, judge, references
from tests.bench.references import HOUR_MS, LEVELS, Candles, Floats, Ints

ROOT = Path(__file__).parent.parent
START = 1_672_531_200_000  # 2023-01-01, a Sunday
LEARNT = 62 * 24
"""Hours before the first origin."""
COINS = ("AAA/USDT", "BBB/USDT", "CCC/USDT", "DDD/USDT")
NORMAL = np.array([NormalDist().inv_cdf(level) for level in LEVELS])
FIRST = START + LEARNT * HOUR_MS


def sigma(hours: int) -> Floats:
    """float64 [hours, coins]: the volatility of each hour: one hour of the day is five times as wild as the others."""
    wild = np.where(np.arange(hours) % 24 == 15, 5.0, 1.0)
    return np.asarray(wild[:, None] * 0.005 * np.array([1.0, 1.5, 2.0, 3.0]))


def market(hours: int, seed: int = 1) -> Candles:
    """Prices whose hourly returns are normal with `sigma`, each hour walked in twenty steps."""
    steps = np.random.default_rng(seed).normal(size=(hours, 20, len(COINS))) * sigma(hours)[:, None] / np.sqrt(20)
    path = np.concatenate([np.zeros((hours, 1, len(COINS))), np.cumsum(steps, axis=1)], axis=1)
    opens = np.concatenate([np.zeros((1, len(COINS))), np.cumsum(path[:-1, -1], axis=0)])
    logs = opens[:, None] + path
    values = np.exp(np.stack([logs[:, 0], logs.max(axis=1), logs.min(axis=1), logs[:, -1]], axis=-1))
    return references.candles_of(COINS, START, np.concatenate([values, np.full((hours, len(COINS), 1), 100.0)], axis=-1))


def truth(candles: Candles, cutoffs: Ints, horizons: tuple[int, ...] = judge.HORIZONS) -> pd.DataFrame:
    """The rows of a forecaster that knows the law."""
    variance = np.concatenate([np.zeros((1, len(COINS))), np.cumsum(sigma(len(candles.values) + 24) ** 2, axis=0)])
    rows = (cutoffs - START) // HOUR_MS  # of the hour that opens at the cutoff
    frames = []
    for horizon in horizons:
        scale = np.sqrt(variance[rows + horizon] - variance[rows])
        q = scale[:, :, None] * NORMAL
        frame = pd.DataFrame(q.reshape(-1, 9), columns=list(judge.QUANTILES))
        frame.insert(0, "model", "truth")
        frame.insert(0, "horizon", horizon)
        frame.insert(0, "cutoff", np.repeat(cutoffs, len(COINS)))
        frame.insert(0, "symbol", np.tile(COINS, len(cutoffs)))
        frame["p_up"] = 0.5
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def origins(count: int, step: int = 1) -> Ints:
    return np.asarray(FIRST + HOUR_MS * step * np.arange(count, dtype=np.int64))


@pytest.fixture(scope="module")
def candles() -> Candles:
    return market(LEARNT + 21 * 24 + 24)


@pytest.fixture
def judged(tmp_path: Path, candles: Candles) -> Callable[..., dict[str, Any]]:
    """Writes rows as the file, and has it judged."""

    def run(frame: pd.DataFrame, **options: Any) -> dict[str, Any]:
        path = tmp_path / "forecasts.csv.gz"
        frame.to_csv(path, index=False)
        found = judge.judge(judge.read_forecasts(path, **options), candles)
        json.dumps(found, allow_nan=False)
        assert judge.report(found)
        return found

    return run


def test_the_judge_shares_no_code_with_the_daemon() -> None:
    code = "import sys, tests.bench.judge; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert "tests.bench.references" in loaded
    assert [name for name in loaded if name.split(".")[0] in ("cryptod", "ctl", "torch")] == []


def test_the_numbers_of_a_tiny_case_are_those_worked_out_by_hand(candles: Candles, judged: Any) -> None:
    cutoffs = origins(2)
    frame = truth(candles, cutoffs, (1, 4))
    frame[list(judge.QUANTILES)] = 0.01  # one number at all levels, whose mean is a half: the CRPS is the distance from it
    frame["p_up"] = 1.0
    found = judged(frame)
    closes = np.log(candles.values[:, :, 3])
    row = LEARNT - 1
    misses = [np.abs(np.stack([closes[row + i + h] - closes[row + i] for i in range(2)]) - 0.01).mean() for h in (1, 4)]
    assert found["horizons"] == [1, 4]
    assert found["forecasters"]["served"]["crps"] == pytest.approx(misses, rel=1e-6)
    assert found["forecasters"]["served"]["pooled"] == pytest.approx((misses[0] + misses[1] / 2) / 2, rel=1e-6)
    assert found["forecasters"]["random_walk"]["skill"] == pytest.approx(
        1 - found["forecasters"]["served"]["pooled"] / found["forecasters"]["random_walk"]["pooled"]
    )
    assert found["coverage"]["95"]["by_horizon"] == [0.0, 0.0]


def test_the_score_of_unequal_quantiles_is_the_definition() -> None:
    quantiles, outcome = np.arange(9.0), np.array(2.5)
    losses = [level * (2.5 - q) if q < 2.5 else (1 - level) * (q - 2.5) for level, q in zip(LEVELS, quantiles, strict=True)]
    assert judge.crps(quantiles, outcome) == pytest.approx(2 * sum(losses) / 9)


def test_a_forecaster_that_knows_the_law_is_calibrated_and_beats_what_knows_less(candles: Candles, judged: Any) -> None:
    found = judged(truth(candles, origins(20 * 24)))
    for percent, each in found["coverage"].items():
        assert each["by_horizon"] == pytest.approx([int(percent) / 100] * 6, abs=0.06)
        assert each["worst_ordinary"]["symbol"] in COINS
    forecasters = found["forecasters"]
    assert forecasters["random_walk"]["skill"] > 0.02
    assert forecasters["random_walk"]["t"] > 3
    assert forecasters["random_walk"]["interval"] is None  # fewer than four weeks
    assert forecasters["ewma"]["skill"] > 0.02  # it does not know the hour of the day
    assert -0.01 < forecasters["log_har"]["skill"] < 0.5 * forecasters["ewma"]["skill"]  # it does, smoothed
    assert (found["crossed"], found["not_finite"], found["contradicted"], found["repeated"], found["answered"]) == (0, 0, 0, 0, 1.0)


def test_knowing_the_future_is_worth_what_it_is_worth_and_no_more(candles: Candles, judged: Any) -> None:
    honest = truth(candles, origins(200))
    found = judged(honest)
    closes = np.log(candles.values[:, :, 3])
    rows = ((honest["cutoff"] - START) // HOUR_MS - 1).to_numpy()
    coins = honest["symbol"].map(COINS.index).to_numpy()
    outcome = closes[rows + honest["horizon"].to_numpy(), coins] - closes[rows, coins]
    leaked = honest.copy()
    leaked[list(judge.QUANTILES)] = np.broadcast_to(outcome[:, None], (len(honest), 9))
    leaked["p_up"] = (outcome > 0).astype(float)
    known = judged(leaked)
    for name, each in known["forecasters"].items():
        if name == "served":
            assert each["crps"] == pytest.approx([0.0] * 6, abs=1e-8)
        else:
            assert each["crps"] == found["forecasters"][name]["crps"]  # what is judged does not change what it is judged by
            assert each["skill"] == pytest.approx(1.0, abs=1e-6)


def test_forecasts_labelled_with_a_later_cutoff_are_worse(candles: Candles, judged: Any) -> None:
    right = truth(candles, origins(19 * 24 + 2))
    shifted = right.assign(cutoff=right["cutoff"] + HOUR_MS)
    between = {"start": FIRST + 24 * HOUR_MS, "end": FIRST + 19 * 24 * HOUR_MS}
    ours, theirs = judged(right, **between), judged(shifted, **between)
    assert ours["origins"] == theirs["origins"] == 18 * 24
    assert theirs["forecasters"]["served"]["crps"][0] > 1.05 * ours["forecasters"]["served"]["crps"][0]
    assert theirs["forecasters"]["served"]["pooled"] > 1.01 * ours["forecasters"]["served"]["pooled"]


def test_a_crossing_is_counted_at_any_horizon(candles: Candles, judged: Any) -> None:
    frame = truth(candles, origins(30), (1, 2, 3))
    frame.loc[[5, 300], ["q0.25", "q0.5"]] = frame.loc[[5, 300], ["q0.5", "q0.25"]].to_numpy()
    assert frame.loc[300, "horizon"] == 3
    found = judged(frame)
    assert found["crossed"] == 2
    assert found["answered"] == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_counted_and_is_no_answer(value: float, candles: Candles, judged: Any) -> None:
    frame = truth(candles, origins(50))
    frame.loc[7, "q0.9"] = value
    found = judged(frame)
    assert found["not_finite"] == 1
    assert found["answered"] == pytest.approx(1 - 1 / (50 * 4))


def test_a_missing_row_lowers_the_share_that_was_answered_and_nothing_else(candles: Candles, judged: Any) -> None:
    whole = truth(candles, origins(50))
    at = (whole["symbol"] == "CCC/USDT") & (whole["cutoff"] == FIRST + 20 * HOUR_MS)
    found = judged(whole[~at])
    assert found["answered"] == pytest.approx(1 - 1 / 200)
    assert found["forecasters"]["served"]["pooled"] == pytest.approx(judged(whole)["forecasters"]["served"]["pooled"], rel=0.02)
    one_horizon = judged(whole[~(at & (whole["horizon"] == 8))])
    assert one_horizon["answered"] == pytest.approx(1 - 1 / 200)


def test_an_hour_that_no_coin_was_answered_in_is_missed_too(candles: Candles, judged: Any) -> None:
    whole = truth(candles, origins(50))
    assert judged(whole[whole["cutoff"] != FIRST + 20 * HOUR_MS])["answered"] == pytest.approx(49 / 50)
    late = judged(whole[whole["cutoff"] >= FIRST + 10 * HOUR_MS], start=FIRST, end=FIRST + 50 * HOUR_MS)
    assert (late["origins"], late["answered"]) == (50, pytest.approx(40 / 50))


def test_a_coin_that_is_missing_altogether_is_named(candles: Candles, judged: Any) -> None:
    whole = truth(candles, origins(30))
    found = judged(whole[whole["symbol"] != "DDD/USDT"])
    assert found["ordinary_not_in_file"] == ["DDD/USDT"]
    assert "DDD/USDT" in judge.report(found)


def test_a_probability_that_the_quantiles_do_not_allow_is_counted(candles: Candles, judged: Any) -> None:
    frame = truth(candles, origins(30))
    frame.loc[3, "p_up"] = 0.9
    frame.loc[4, "p_up"] = 1.5
    assert judged(frame)["contradicted"] == 2


def test_a_row_that_is_there_twice_is_counted_and_the_first_one_is_judged(candles: Candles, judged: Any) -> None:
    frame = truth(candles, origins(30))
    later = frame.iloc[:90].assign(**dict.fromkeys(judge.QUANTILES, 9.0), p_up=1.0)
    found = judged(pd.concat([frame, later]))
    assert found["repeated"] == 90
    assert found["forecasters"]["served"]["crps"] == judged(frame)["forecasters"]["served"]["crps"]


def test_every_third_hour_will_do(candles: Candles, judged: Any) -> None:
    found = judged(truth(candles, origins(160, step=3)))
    assert (found["step_hours"], found["origins"], found["answered"]) == (3, 160, 1.0)
    assert found["forecasters"]["random_walk"]["t"] > 2


def test_a_coin_that_did_not_trade_throughout_is_judged_apart(tmp_path: Path, candles: Candles) -> None:
    values = candles.values.copy()
    values[: 50 * 24, 3] = np.nan  # listed late: twelve days before the first origin
    values[LEARNT + 100 : LEARNT + 110, 2] = np.nan  # halted for ten hours
    halted = references.candles_of(COINS, START, values)
    path = tmp_path / "forecasts.csv"
    truth(candles, origins(300)).to_csv(path, index=False)
    found = judge.judge(judge.read_forecasts(path), halted)
    assert (found["coins"], found["ordinary"]) == (4, 2)
    assert found["answered"] == 1.0  # what was said while nothing traded is no duty
    assert np.isfinite(found["others"]["served"]["pooled"])
    assert found["coverage"]["80"]["worst_ordinary"]["symbol"] in ("AAA/USDT", "BBB/USDT")


def test_the_references_do_not_look_ahead(candles: Candles) -> None:
    scales = dict(references.REFERENCES)
    try:
        from tests.bench.rivals import RIVALS
    except ImportError:
        pass  # without the bench extra the four references are checked all the same
    else:
        scales |= RIVALS
    cutoffs = origins(200)
    after = LEARNT + 190
    values = candles.values.copy()
    values[after:, :, :4] *= 1.5
    values[after:, :, 4] *= 3
    changed = references.candles_of(COINS, START, values)
    common = np.ones(len(COINS), bool)
    for name, scale in scales.items():
        pairs = zip(
            references.windows(candles, cutoffs, (1, 24), common), references.windows(changed, cutoffs, (1, 24), common), strict=True
        )
        ours, theirs = (np.concatenate(each) for each in zip(*[
            (references.forecast(scale(one), one), references.forecast(scale(other), other)) for (_, one), (_, other) in pairs
        ], strict=True))  # fmt: skip
        assert np.isfinite(ours).all()
        assert np.array_equal(ours[:191], theirs[:191]), name
        if name != "random_walk":
            assert not np.array_equal(ours[191:], theirs[191:]), name


def test_the_references_are_refitted_each_week_on_what_is_known(candles: Candles) -> None:
    found = [window for _, window in references.windows(candles, origins(400), (1, 24), np.ones(4, bool))]
    assert [len(window.test) for window in found] == [168, 168, 64]
    for number, window in enumerate(found):
        refit = FIRST + number * 168 * HOUR_MS
        assert window.part.start + window.end * HOUR_MS == refit  # the last known candle closes when the first origin's does


def test_log_har_has_the_coefficients_of_least_squares(candles: Candles) -> None:
    _, window = next(references.windows(candles, origins(24), (4,), np.ones(4, bool)))
    fit = references.har(window)
    rows = window.train[::3]
    x = np.concatenate([fit.levels, np.broadcast_to(fit.levels.mean(axis=1, keepdims=True), fit.levels.shape)], axis=-1)[rows].reshape(
        -1, 10
    )
    x = np.column_stack([x, np.ones(len(x))])
    y = references.coming(fit.variance, rows, 4).reshape(-1)
    assert y[0] == pytest.approx(np.log(fit.variance[rows[0] + 1 : rows[0] + 5, 0].mean() + 1e-10))
    assert x @ np.linalg.lstsq(x, y, rcond=None)[0] == pytest.approx(fit.fitted[rows][:, :, 0].reshape(-1), abs=1e-6)


def test_the_season_finds_the_wild_hour(candles: Candles) -> None:
    _, window = next(references.windows(candles, origins(24), (1,), np.ones(4, bool)))
    factors = references.season(references.parkinson(window.part.values), window)
    assert factors.mean() == pytest.approx(1.0)
    assert set(np.argsort(factors)[-7:] % 24) == {15}
    ahead = references.season_ahead(factors, window)[:, 0, 0]
    assert np.all(references.hour_of_week(window)[np.argsort(ahead)[-5:]] % 24 == 14)  # it comes in the next hour


def test_a_series_that_remembers_is_trusted_less() -> None:
    noise = np.random.default_rng(5).normal(size=4000)
    slow = np.convolve(noise, np.ones(24) / 24, "valid")
    series = slow + 0.02
    naive = series.mean() / (series.std() / np.sqrt(len(series)))
    assert 0 < judge.diebold_mariano(series, 48) < naive / 3
    white = noise + 0.1
    assert judge.diebold_mariano(white, 0) == pytest.approx(white.mean() / (white.std() / np.sqrt(len(white))))
    assert judge.diebold_mariano(np.where(np.arange(4000) % 2, white, np.nan), 0) == pytest.approx(
        white[1::2].mean() / (white[1::2].std() / np.sqrt(2000))
    )
    assert judge.diebold_mariano(white[:10], 48) == 0.0


def test_the_interval_holds_the_true_skill_and_is_narrow_when_there_is_much_to_see() -> None:
    random = np.random.default_rng(2)
    reference = random.gamma(20, size=(2, 168 * 40))
    for series in reference:
        low, high = judge.skill_interval(0.98 * series + 0.05 * random.normal(size=len(series)), series, 168) or (0, 0)
        assert low < 0.02 < high
        assert high - low < 0.01


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read as forecasts"),
        (",".join(judge.COLUMNS) + "\n", "has no forecasts of the horizons"),
        ("symbol,cutoff\nA/B,1\n", "has no column horizon"),
        (",".join(judge.COLUMNS) + "\nAAA/USDT,soon,1,m" + ",0" * 10 + "\n", "cannot be read as forecasts"),
        (",".join(judge.COLUMNS) + f"\nAAA/USDT,{FIRST},3,m" + ",0" * 10 + "\n", "has no forecasts of the horizons"),
        (",".join(judge.COLUMNS) + f"\nAAA/USDT,{FIRST + 5},1,m" + ",0" * 10 + "\n", "not on the hour"),
    ],
)
def test_a_file_that_cannot_be_judged_is_refused_with_a_reason(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "forecasts.csv"
    path.write_text(text)
    with pytest.raises(references.BadInput, match=words):
        judge.read_forecasts(path)


def test_the_command_says_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge.main([str(tmp_path / "none.csv.gz"), "--candles", str(tmp_path)]) == 1
    assert "none.csv.gz" in capsys.readouterr().err


def test_too_little_history_is_refused(candles: Candles, tmp_path: Path) -> None:
    path = tmp_path / "forecasts.csv"
    truth(candles, START + HOUR_MS * (100 + np.arange(10, dtype=np.int64))).to_csv(path, index=False)
    with pytest.raises(references.BadInput, match="only 4 days of candles"):
        judge.judge(judge.read_forecasts(path), candles)


def test_the_bench_judges_a_generated_market_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole of it but the backtest: candles written and read, the period, the figures, the last line."""
    bench_forecast.generated(tmp_path, coins=3, days=2)
    candles = references.read_candles(tmp_path)
    start, end = bench_forecast.last_days(candles, 2)
    assert (end - start) // HOUR_MS == 48
    assert end == bench_forecast.GENERATED_END - 24 * HOUR_MS
    cutoffs = np.arange(start, end, HOUR_MS)
    rows = [
        (symbol, cutoff, horizon, "flat", *(0.01 * np.sqrt(horizon) * NORMAL), 0.5)
        for symbol in candles.symbols
        for cutoff in cutoffs
        for horizon in judge.HORIZONS
    ]
    file = tmp_path / "said.csv.gz"
    pd.DataFrame(rows, columns=list(judge.COLUMNS)).to_csv(file, index=False)
    figures = bench_forecast.figures_of(judge.judge(judge.read_forecasts(file, start, end), candles), real=True)
    by_name = {figure.name: figure for figure in figures}
    assert by_name["answered"].met
    assert by_name["crossed"].met
    assert by_name["crps_beside_random_walk"].target == pytest.approx(0.95)
    assert not by_name["crps_beside_log_har"].met  # one width for all coins is not 0.8 % better than log-HAR
    from tests.bench.figures import report

    report(figures)
    last = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert last["crps_beside_log_har"]["ratio"] > 1
    assert set(last["answered"]) >= {"value", "unit", "target", "better", "met"}
