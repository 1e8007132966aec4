"""Jobs and their queue: transitions, batches, priorities."""

from __future__ import annotations

import pytest

from cryptod.daemon.job import CANCELLED, DONE, FAILED, QUEUED, RUNNING, TRANSITIONS, BatchState, Job, JobQueue, plan_batches
from cryptod.errors import RequestError


def job(number: int, kind: str = "full", state: str = QUEUED) -> Job:
    return Job(id=number, kind=kind, reason="test", created=0, state=state)


def test_a_job_moves_only_along_the_table() -> None:
    for state, allowed in TRANSITIONS.items():
        for target in TRANSITIONS:
            one = job(1, state=state)
            if target in allowed:
                one.move(target, 5)
                assert one.state == target
            else:
                with pytest.raises(RequestError, match="cannot become"):
                    one.move(target, 5)


def test_a_resumed_job_keeps_the_time_of_its_first_start() -> None:
    one = job(1)
    one.move(RUNNING, 10)
    one.move(QUEUED, 20)
    one.move(RUNNING, 30)
    one.move(DONE, 40)
    assert (one.started, one.ended) == (10, 40)


def test_a_full_retrain_goes_before_an_incremental_update_that_was_asked_earlier() -> None:
    queue = JobQueue([job(1, "incremental"), job(2, "full")])
    first = queue.next()
    assert first is not None
    assert first.kind == "full"


def test_nothing_starts_while_a_job_runs() -> None:
    queue = JobQueue([job(1, "incremental", RUNNING), job(2, "full")])
    assert queue.next() is None
    assert queue.running is not None
    assert queue.running.id == 1


def test_asking_twice_finds_the_waiting_job() -> None:
    queue = JobQueue([job(1, "incremental")])
    waiting = queue.waiting("incremental")
    assert waiting is not None
    assert waiting.id == 1
    assert queue.waiting("full") is None


def test_ended_jobs_leave_the_queue() -> None:
    queue = JobQueue([job(1, state=DONE), job(2, state=FAILED), job(3, state=CANCELLED), job(4)])
    assert [one.id for one in queue] == [4]


def test_a_failed_batch_is_tried_once_more_and_a_done_one_never() -> None:
    one = job(1)
    one.batches = [
        BatchState(number=1, symbols=["A/B"], state="done", attempts=1),
        BatchState(number=2, symbols=["A/B"], state="failed", attempts=1),
        BatchState(number=3, symbols=["A/B"], state="failed", attempts=2),
        BatchState(number=4, symbols=["A/B"]),
    ]
    assert [batch.number for batch in one.open_batches()] == [2, 4]


def test_a_hundred_coins_make_four_batches_of_twenty_five_in_order() -> None:
    symbols = [f"C{i}/USDT" for i in range(100)]
    batches = plan_batches(symbols, 25)
    assert [len(batch.symbols) for batch in batches] == [25] * 4
    assert [symbol for batch in batches for symbol in batch.symbols] == symbols
