"""The way from what a backtest found to its page: who served."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cryptod.backtest import page
from cryptod.backtest.replay import Training
from cryptod.backtest.results import Results
from cryptod.forecast.model import SOURCES
from cryptod.forecast.scores import INTERVALS, SCORED_HORIZONS
from cryptod.market import HOUR, Float32

START = 1_680_307_200_000
HOURS, COINS = 48, 4


def found() -> Results:
    random = np.random.default_rng(4)
    shape = (HOURS, COINS, len(SCORED_HORIZONS))

    def cube() -> Float32:
        return random.gamma(4.0, 0.002, shape).astype(np.float32)

    source = np.zeros(shape[:2], np.uint8)
    source[:, 3] = SOURCES.index("log_har")
    source[0] = 255
    weights = np.zeros((HOURS, len(SCORED_HORIZONS), len(SOURCES)), np.float32)
    weights[:, :, 0], weights[:, :, SOURCES.index("ewma")] = 0.9, 0.1
    weights[0] = np.nan
    return Results(
        symbols=("A/USDT", "B/USDT", "C/USDT", "D/USDT"),
        cutoffs=START + HOUR.ms * np.arange(HOURS, dtype=np.int64),
        losses={name: cube() for name in ("served", *SOURCES)},
        hits={percent: (cube() > 0).astype(np.float32) for percent in INTERVALS},
        pit=random.random(shape).astype(np.float32),
        closes=np.ones(shape[:2]),
        source=source,
        weights=weights,
        examples={"A/USDT": np.sort(random.normal(0, 0.01, (HOURS, len(SCORED_HORIZONS), 9))).astype(np.float32)},
        trainings=[Training(START, "full", 1, True, "the first model", {"skill": 0.01})],
        settings="backtest --start 2023-04-01",
    )


def test_coins_of_the_model_share_by_weight_and_a_coin_of_a_reference_is_the_references_alone() -> None:
    shares = page.shares(found())
    assert shares["model"][1] == pytest.approx(0.9 * 3 / 4)
    assert shares["ewma"][1] == pytest.approx(0.1 * 3 / 4)
    assert shares["log_har"][1] == pytest.approx(1 / 4)
    assert sum(share[5] for share in shares.values()) == pytest.approx(1.0)
    assert all(np.isnan(share[0]) for share in shares.values())  # nothing was issued


def test_the_page_is_written_from_what_was_found(tmp_path: Path) -> None:
    figures = {
        "forecasts": 188,
        "refused": {"no model yet": 4},
        "drift": ["2023-04-01 07:00: it rose"],
        "crps_e4": {},
        "left_out": {"A-USDT.csv.gz": "3 of 90 rows, the first in line 7: not a number"},
    }
    page.write(tmp_path / "report.html", found(), figures)
    text = (tmp_path / "report.html").read_text()
    assert "Backtest, 2023-04-01 to 2023-04-02" in text
    assert "the first model" in text
    assert "refused: no model yet 4" in text
    assert "drift: 2023-04-01 07:00: it rose" in text
    assert "backtest --start 2023-04-01" in text
    assert "the model alone" in text
