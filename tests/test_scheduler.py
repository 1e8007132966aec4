"""The scheduler: UTC cron turns, missed turns caught up once."""

from __future__ import annotations

from datetime import UTC, datetime

from cryptod.daemon.scheduler import Periodic, Scheduler, next_turn

HOUR = 3_600_000
FULL = Periodic("full", "0 2 * * 0")
INCREMENTAL = Periodic("incremental", "0 */6 * * *")


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_turns_are_read_in_utc_and_lie_strictly_after_the_given_time() -> None:
    assert next_turn("0 */6 * * *", at("2023-06-01T06:00")) == at("2023-06-01T12:00")
    assert next_turn("0 2 * * 0", at("2023-06-01T06:00")) == at("2023-06-04T02:00")


def test_a_row_is_due_at_its_turn_and_not_before() -> None:
    scheduler = Scheduler([INCREMENTAL], {"incremental": at("2023-06-01T06:00")}, born=0)
    assert scheduler.due(at("2023-06-01T11:59")) == []
    assert scheduler.due(at("2023-06-01T12:00")) == ["incremental"]
    scheduler.ran("incremental", at("2023-06-01T12:00"))
    assert scheduler.due(at("2023-06-01T12:01")) == []


def test_missed_turns_are_caught_up_once_however_many_there_were() -> None:
    scheduler = Scheduler([INCREMENTAL], {"incremental": at("2023-06-01T06:00")}, born=0)
    now = at("2023-06-05T01:00")
    assert scheduler.due(now) == ["incremental"]
    scheduler.ran("incremental", now)
    assert scheduler.due(now) == []
    assert scheduler.next_run("incremental") == at("2023-06-05T06:00")


def test_a_fresh_install_owes_no_turn_from_before_its_birth() -> None:
    scheduler = Scheduler([FULL, INCREMENTAL], {}, born=at("2023-06-07T10:00"))
    assert scheduler.due(at("2023-06-07T10:00")) == []
    assert scheduler.due(at("2023-06-07T12:00")) == ["incremental"]


def test_a_disabled_row_is_never_due_and_has_no_next_turn() -> None:
    scheduler = Scheduler([Periodic("full", "0 2 * * 0", enabled=False)], {}, born=0)
    assert scheduler.due(at("2023-06-07T10:00")) == []
    assert scheduler.describe(at("2023-06-07T10:00"))[0]["next"] is None


def test_a_paused_row_has_no_turn_until_it_is_resumed_and_then_catches_up_once() -> None:
    scheduler = Scheduler([INCREMENTAL], {"incremental": at("2023-06-07T06:00")}, born=0, paused=["incremental"])
    assert scheduler.due(at("2023-06-08T10:00")) == []
    row = scheduler.describe(at("2023-06-08T10:00"))[0]
    assert (row["paused"], row["enabled"], row["next"]) == (True, True, None)
    scheduler.paused.discard("incremental")
    assert scheduler.due(at("2023-06-08T10:00")) == ["incremental"]
    scheduler.ran("incremental", at("2023-06-08T10:00"))
    assert scheduler.due(at("2023-06-08T11:59")) == []


def test_a_lead_moves_the_turn_earlier_and_still_gives_one_turn_a_week() -> None:
    row = Periodic("pregenerate", "0 2 * * 0", lead=5 * 60_000)
    scheduler = Scheduler([row], {}, born=at("2023-06-01T00:00"))
    assert scheduler.due(at("2023-06-04T01:54")) == []
    assert scheduler.due(at("2023-06-04T01:55")) == ["pregenerate"]
    scheduler.ran("pregenerate", at("2023-06-04T01:55"))
    assert scheduler.due(at("2023-06-04T02:10")) == []
    assert scheduler.next_run("pregenerate") == at("2023-06-11T01:55")


def test_a_clock_stepped_back_does_not_silence_a_row() -> None:
    scheduler = Scheduler([INCREMENTAL], {"incremental": at("2023-06-20T06:00")}, born=0)
    assert scheduler.due(at("2023-06-01T05:00")) == []
    assert scheduler.due(at("2023-06-01T06:00")) == ["incremental"]


def test_a_reload_changes_expressions_and_keeps_last_runs() -> None:
    scheduler = Scheduler([INCREMENTAL], {"incremental": at("2023-06-01T06:00")}, born=0)
    scheduler.replace([Periodic("incremental", "0 * * * *")], at("2023-06-01T06:30"))
    assert scheduler.next_run("incremental") == at("2023-06-01T07:00")
