"""The short form of the kills; `make chaos` is the long one."""

from __future__ import annotations

from tests.chaos.kills import rage


def test_whoever_is_killed_nothing_that_was_seen_is_lost_and_nobody_is_left_behind() -> None:
    toll = rage(kills=50, seed=3)
    assert toll.wrong == []
    assert toll.silences == 0, "a killed child costs no answer"
    assert set(toll.killed) == {"daemon", "start", "forkserver", "cryptod-train", "cryptod-collect"}
    assert toll.sights > 100
    assert toll.compared > 100_000
