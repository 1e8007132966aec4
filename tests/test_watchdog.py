"""The watchdog: beats are earned."""

from __future__ import annotations

from cryptod.daemon.watchdog import Watchdog, watchdog_interval


class FakeNotifier:
    def __init__(self) -> None:
        self.sent: list[str] = []

    def notify(self, state: str) -> None:
        self.sent.append(state)


class FakeTime:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_a_beat_is_sent_while_every_part_turns() -> None:
    notifier, time = FakeNotifier(), FakeTime()
    watchdog = Watchdog(notifier, {"upkeep": 10, "pool": 5}, time)
    time.seconds += 4
    assert watchdog.ping()
    assert notifier.sent == ["WATCHDOG=1"]


def test_one_part_that_stands_still_stops_the_beats_and_is_named() -> None:
    notifier, time = FakeNotifier(), FakeTime()
    watchdog = Watchdog(notifier, {"upkeep": 10, "pool": 5}, time)
    time.seconds += 6
    watchdog.beat("upkeep")
    assert not watchdog.ping()
    assert watchdog.late() == ["pool"]
    assert notifier.sent == []
    watchdog.beat("pool")
    assert watchdog.ping()


def test_the_status_is_sent_only_when_it_changes() -> None:
    notifier = FakeNotifier()
    watchdog = Watchdog(notifier, {}, FakeTime())
    watchdog.status("100 coins")
    watchdog.status("100 coins")
    assert notifier.sent == ["STATUS=100 coins"]


def test_a_reload_says_when_it_began() -> None:
    notifier = FakeNotifier()
    Watchdog(notifier, {}, FakeTime()).reloading()
    assert notifier.sent == ["RELOADING=1\nMONOTONIC_USEC=100000000"]


def test_the_interval_is_half_of_what_systemd_allows_and_only_for_this_process() -> None:
    assert watchdog_interval({"WATCHDOG_USEC": "30000000"}, 7) == 15.0
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 7) == 15.0
    assert watchdog_interval({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 7) is None
    assert watchdog_interval({}, 7) is None
    assert watchdog_interval({"WATCHDOG_USEC": "soon"}, 7) is None
