"""Coverage over time, on forecasts that are known to hold, or not to hold for some days."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bench import coverage
from tests.bench.judge import Forecasts
from tests.bench.references import HOUR_MS, Candles, Floats, candles_of
from tests.test_judge import NORMAL

START = 1_672_531_200_000
DAYS = 30
COINS = tuple(f"C{i}/USDT" for i in range(40))
BROKEN = slice(10 * 24, 14 * 24)
"""Hours in which prices move three times as far as the forecasts think."""
AT = START + BROKEN.start * HOUR_MS
EVERYONE = np.ones(len(COINS), bool)


@pytest.fixture(scope="module")
def candles() -> Candles:
    moves = np.random.default_rng(2).normal(0, 0.01, (DAYS * 24, len(COINS)))
    moves[BROKEN] *= 3.0
    closes = np.exp(np.cumsum(moves, axis=0))
    return candles_of(COINS, START, np.repeat(closes[:, :, None], 5, axis=2))


def forecasts(horizons: tuple[int, ...] = (1, 4)) -> Forecasts:
    cutoffs = START + HOUR_MS * np.arange(1, DAYS * 24, dtype=np.int64)
    scale = 0.01 * np.sqrt(np.array(horizons))
    quantiles: Floats = np.broadcast_to(scale[:, None] * NORMAL, (len(cutoffs), len(COINS), len(horizons), 9)).astype(np.float32)
    return Forecasts(COINS, cutoffs, horizons, quantiles, {})


def test_coverage_is_what_was_promised_but_in_the_days_of_a_break(candles: Candles) -> None:
    found = coverage.held(forecasts(), candles, EVERYONE, 24, AT)
    assert found.begins.tolist() == [START + 24 * HOUR_MS * day for day in range(DAYS)]
    calm = np.r_[1:10, 15 : DAYS - 1]
    for percent in (50, 80, 90, 95):
        assert np.abs(100 * found.coverage(percent)[calm] - percent).max() < 10
    assert (found.coverage(80)[10:14] < 0.4).all()
    assert found.count[1].tolist() == [24 * len(COINS)] * 2


def test_an_interval_counts_when_its_outcome_is_known(candles: Candles) -> None:
    found = coverage.held(forecasts(), candles, EVERYONE, 1, START)
    first = int(np.searchsorted(found.begins, AT))
    last = first + BROKEN.stop - BROKEN.start
    assert found.coverage(80)[first - 1, 0] > 0.6, "the hour before the break"
    assert found.coverage(80)[first, 0] < 0.6, "its first hour"
    assert found.coverage(80)[first:last, 0].mean() == pytest.approx(0.33, abs=0.03)  # a normal three times as wide
    assert found.coverage(80)[last + 3 :, 1].mean() == pytest.approx(0.8, abs=0.02)  # 4 h ahead: for 3 hours more with broken ones in them


def test_back_are_three_days_in_a_row_that_hold(candles: Candles) -> None:
    found = coverage.held(forecasts(), candles, EVERYONE, 24, AT)
    assert found.back(80, 0, AT) == 4
    assert found.back(80, 0, AT + 5 * 24 * HOUR_MS) == 0
    usual = forecasts()
    wide, narrow = (
        coverage.held(Forecasts(COINS, usual.cutoffs, (1, 4), usual.quantiles * times, {}), candles, EVERYONE, 24, AT)
        for times in (9, 1 / 3)
    )
    assert wide.back(80, 0, AT) == 0
    assert narrow.back(80, 0, AT) is None
    assert coverage.report(narrow, AT).splitlines()[-1].split() == ["back", "after", *["never"] * 8]


def test_only_the_coins_asked_for_count(candles: Candles) -> None:
    one = EVERYONE & (np.arange(len(COINS)) == 3)
    assert coverage.held(forecasts(), candles, one, 24, AT).count[1].tolist() == [24, 24]


def test_the_command_reads_what_the_backtest_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "symbol,cutoff,horizon,model,q0.025,q0.05,q0.1,q0.25,q0.5,q0.75,q0.9,q0.95,q0.975,p_up\n"
    for hour in range(1, 49):
        rows += f"C0/USDT,{START + hour * HOUR_MS},1,m," + ",".join(f"{0.01 * z:.6f}" for z in NORMAL) + ",0.5\n"
    (tmp_path / "issued.csv").write_text(rows)
    times = [START + hour * HOUR_MS for hour in range(60)]
    closes = [100.0 if hour % 2 else 100.5 for hour in range(60)]  # half a percent up, half a percent down
    text = "".join(f"{time},{close},{close},{close},{close},1\n" for time, close in zip(times, closes, strict=True))
    (tmp_path / "C0-USDT.csv.gz").write_bytes(gzip.compress(f"ts,open,high,low,close,volume\n{text}".encode()))
    arguments: list[Any] = [str(tmp_path / "issued.csv"), "--candles", str(tmp_path)]
    assert coverage.main([*arguments, "--break", "2023-01-02"]) == 0
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert table[2] == ["from", "50", "80", "90", "95"]
    assert table[3][1:] == table[4][1:] == ["100.0"] * 4
    assert coverage.main([*arguments, "--symbols", "XYZ/USDT"]) == 1
    assert "XYZ/USDT" in capsys.readouterr().err
