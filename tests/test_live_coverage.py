"""The live coverage of each coin: counted as outcomes become known, fading, and there again after a restart."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from cryptod.daemon.coverage import HALF_LIFE_HOURS, LiveCoverage
from cryptod.daemon.records import Records
from cryptod.market import MAX_HORIZON, QUANTILE_LEVELS
from cryptod.store import jobs
from cryptod.store.environment import open_environment
from cryptod.store.jobs import JobStore

COINS = ("A/USDT", "B/USDT")
FAN = np.broadcast_to(np.array(QUANTILE_LEVELS, np.float32), (2, MAX_HORIZON, 9))
"""Of outcomes between 0 and 1, each as likely as the other, these are the quantiles."""


def live(coverage: LiveCoverage, hours: int, outcome: float) -> None:
    """A's outcomes are spread over all that may come, B's are always ``outcome``."""
    spread = np.linspace(0, 1, MAX_HORIZON, endpoint=False) + 0.5 / MAX_HORIZON
    for _ in range(hours):
        coverage.mature(COINS, FAN, np.stack([spread, np.full(MAX_HORIZON, outcome)]))


def test_each_coin_has_its_own_share_of_outcomes_inside_each_interval(tmp_path: Path) -> None:
    with open_environment(tmp_path, databases=jobs.DATABASES, writer=True) as environment, ThreadPoolExecutor(1) as disk:
        coverage = LiveCoverage(Records(JobStore(environment), disk, lambda error: None))
        live(coverage, 10, 0.85)
        assert coverage.of("A/USDT") is None, "ten hours of forecasts say nothing"
        live(coverage, 90, 0.85)
        calibrated, off = coverage.of("A/USDT"), coverage.of("B/USDT")
        assert calibrated is not None
        assert off is not None
        assert [calibrated[level] for level in ("50", "80", "95")] == pytest.approx([0.5, 0.8, 0.95], abs=1 / MAX_HORIZON)
        assert (off["50"], off["80"], off["95"]) == (0.0, 1.0, 1.0)
        assert 0.85 * 100 * MAX_HORIZON < off["outcomes"] < 100 * MAX_HORIZON, "older ones count less"
        assert coverage.of("C/USDT") is None


def test_it_is_known_again_after_a_restart_and_old_outcomes_fade(tmp_path: Path) -> None:
    with open_environment(tmp_path, databases=jobs.DATABASES, writer=True) as environment:
        with ThreadPoolExecutor(1) as disk:
            coverage = LiveCoverage(Records(JobStore(environment), disk, lambda error: None))
            live(coverage, 100, 0.5)
            coverage.keep()
        with ThreadPoolExecutor(1) as disk:
            again = LiveCoverage(Records(JobStore(environment), disk, lambda error: None))
        assert again.of("B/USDT") == coverage.of("B/USDT") != None  # noqa: E711 - both at once
        live(again, HALF_LIFE_HOURS, 0.0)
        later = again.of("B/USDT")
        assert later is not None
        assert later["95"] < 0.2, "100 old hits against 360 fresh misses"


def test_what_is_not_known_is_not_counted_and_a_damaged_record_is_counted_anew(tmp_path: Path) -> None:
    with open_environment(tmp_path, databases=jobs.DATABASES, writer=True) as environment, ThreadPoolExecutor(1) as disk:
        records = Records(JobStore(environment), disk, lambda error: None)
        records.set("coverage", {"symbols": ["A/USDT"], "sums": b"half a recor"})
        coverage = LiveCoverage(records)
        assert coverage.of("A/USDT") is None
        for _ in range(100):
            coverage.mature(COINS, FAN, np.stack([np.full(MAX_HORIZON, np.nan), np.full(MAX_HORIZON, 0.5)]))
        assert coverage.of("A/USDT") is None
        assert coverage.of("B/USDT") is not None
