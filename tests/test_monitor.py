"""Resources and conditions: each condition is driven into being and out again."""

from __future__ import annotations

import dataclasses
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cryptod.daemon.monitor import (
    CONDITIONS,
    HOUR_MS,
    MIB,
    SEVERITIES,
    Condition,
    Facts,
    Health,
    ResourceMeter,
    Resources,
    cgroup_limit,
    disk_used,
)

NOW = 1_685_620_800_000


def sound(**changes: Any) -> Facts:
    """A daemon with nothing wrong."""
    facts = Facts(
        now=NOW,
        monotonic=1000.0,
        boundary=NOW,
        started=NOW - HOUR_MS,
        followed=100,
        trained=100,
        collected_to=NOW,
        full_last_done=NOW - 24 * HOUR_MS,
        resources=Resources(pss_daemon=50 * MIB, disk_free=9000 * MIB, disk_total=10_000 * MIB),
    )
    return dataclasses.replace(facts, **changes)


WRONG: dict[str, dict[str, Any]] = {
    "exchange_unreachable": {"exchange_error": "connection refused"},
    "exchange_banned": {"exchange_error": "binance has banned this address", "exchange_banned": True},
    "collect_failed": {"collect_error": "the collect child needs more memory than its 700 MB"},
    "library_broken": {"unloadable": {"train": "the train child cannot load its program: ModuleNotFoundError: No module named 'torch'"}},
    "market_stale": {"collected_to": NOW - 3 * HOUR_MS},
    "candles_stale": {"stale": {"BTC/USDT": 5}},
    "models_missing": {"trained": 0},
    "coins_untrained": {"trained": 97},
    "training_overdue": {"full_last_done": NOW - 9 * 24 * HOUR_MS},
    "training_failed": {"last_job_error": "out of memory"},
    "batches_failed": {"failed_batches": ("batch 2: flat",)},
    "gate_refused": {"gate_refused": ("batch 1: worse than the champion",)},
    "model_fallback": {"fallback": 60},
    "drift": {"drift": "coverage of the 80 % intervals 1 h ahead fell to 49 % in the last 17 h; lately it is 52 %"},
    "clock_was_ahead": {"taken_back": "a clock was ahead: 3 issues of forecasts and 1 models of a time that had not come are set aside"},
    "coins_missing": {"followed": 0, "trained": 0, "models": 4},
    "market_outage": {"outage": "none of the 12 coins has traded for 6 h: their prices are not known"},
    "coverage_off": {"coverage": "the 80 % intervals 1 h ahead held in 71 % of the last weeks' cases: they are too narrow"},
    "checkpoint_damaged": {"refused_checkpoints": {"a": "bad checksum"}},
    "universe_setting": {"universe_warnings": ("universe.include names XYZ/USDT, which the exchange does not list",)},
    "refresh_failed": {"refresh_error": "no space"},
    "store_failed": {"store_error": "no space"},
    "store_damaged": {"store_damaged": "it was put aside"},
    "disk_low": {"resources": Resources(disk_free=100 * MIB, disk_total=10_000 * MIB)},
    "memory_near_limit": {
        "resources": Resources(pss_daemon=480 * MIB, memory_limit=512 * MIB, disk_free=9000 * MIB, disk_total=10_000 * MIB)
    },
    "clock_wrong": {"clock_error": "this machine's clock is 2.0 days ahead of the exchange's"},
    "clock_stepped": {"clock_step": -86_400.0},
}


def test_a_sound_daemon_has_no_condition() -> None:
    health = Health()
    assert health.evaluate(sound()) == []
    assert health.severity == "ok"


def test_every_condition_of_the_table_has_a_case_here() -> None:
    assert set(WRONG) == {row.name for row in CONDITIONS}


@pytest.mark.parametrize("row", CONDITIONS, ids=lambda row: row.name)
def test_each_condition_shows_after_its_delay_and_clears_when_the_cause_is_gone(row: Condition) -> None:
    health = Health([row])
    wrong = sound(**WRONG[row.name])
    if row.after:
        assert health.evaluate(wrong) == []
    changes = health.evaluate(dataclasses.replace(wrong, monotonic=wrong.monotonic + row.after))
    assert [(what, finding["name"]) for what, finding in changes] == [("raised", row.name)]
    finding = health.findings[0]
    assert finding["severity"] in SEVERITIES
    assert finding["remedy"]
    assert finding["since"] == NOW
    assert health.evaluate(dataclasses.replace(wrong, monotonic=wrong.monotonic + row.after + 5)) == []
    changes = health.evaluate(sound(monotonic=wrong.monotonic + row.after + 10))
    assert [(what, finding["name"]) for what, finding in changes] == [("cleared", row.name)]


def test_a_cause_that_comes_and_goes_within_the_delay_never_shows() -> None:
    health = Health()
    for second in range(0, 120, 30):
        failing = {"exchange_error": "refused"} if second % 60 == 0 else {}
        assert health.evaluate(sound(monotonic=1000.0 + second, **failing)) == []


def test_the_severity_is_that_of_the_worst_finding() -> None:
    health = Health()
    health.evaluate(sound(last_job_error="x", refresh_error="y"))
    assert health.severity == "error"


def test_memory_of_this_process_is_read_as_pss_and_the_state_directory_is_summed(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"x" * 100_000)
    reading = ResourceMeter(tmp_path, time.monotonic).read()
    assert 5 * MIB < reading.pss_daemon < 2000 * MIB
    assert reading.disk_used >= 100_000
    assert reading.descriptors > 2


def test_a_share_of_the_processor_is_not_that_of_a_few_milliseconds(tmp_path: Path) -> None:
    now = 100.0
    meter = ResourceMeter(tmp_path, lambda: now)
    assert meter.read().cpu_percent == 0.0, "there is nothing to compare with yet"
    sum(range(1_000_000))
    now += 0.01
    assert meter.read().cpu_percent == 0.0, "it was read in the same moment"
    now += 1.0
    assert meter.read().cpu_percent > 0.0


def test_the_limit_of_the_control_group_is_found_in_both_hierarchies(tmp_path: Path) -> None:
    (tmp_path / "system.slice").mkdir()
    (tmp_path / "system.slice" / "memory.max").write_text("536870912\n")
    own = tmp_path / "own"
    own.write_text("0::/system.slice\n")
    assert cgroup_limit(tmp_path, own) == 512 * MIB
    (tmp_path / "memory" / "x").mkdir(parents=True)
    (tmp_path / "memory" / "x" / "memory.limit_in_bytes").write_text("268435456\n")
    own.write_text("5:memory:/x\n")
    assert cgroup_limit(tmp_path, own) == 256 * MIB
    own.write_text("0::/nowhere\n")
    assert cgroup_limit(tmp_path, own) == 0


def test_the_disk_is_measured_while_files_and_folders_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(bytes(8192))
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            folder = tmp_path / "checkpoint"
            folder.mkdir()
            for name in range(20):
                (folder / str(name)).touch()
            shutil.rmtree(folder)

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        assert min(disk_used(tmp_path) for _ in range(300)) >= 8192
    finally:
        stop.set()
        thread.join()
