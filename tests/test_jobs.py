"""The jobs and the small records that a restart must find."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cryptod.errors import StoreError
from cryptod.store.environment import Environment, open_environment
from cryptod.store.jobs import DATABASES, JobStore
from tests.cuts import every_cut


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    with open_environment(tmp_path / "serving", databases=DATABASES, writer=True) as environment:
        yield environment


@pytest.fixture
def jobs(environment: Environment) -> JobStore:
    return JobStore(environment)


def enqueue(jobs: JobStore, **other: Any) -> int:
    number = jobs.next_id()
    jobs.save({"id": number, "kind": "full", "state": "queued", **other})
    return number


def test_jobs_are_numbered_from_one_and_listed_newest_first(jobs: JobStore) -> None:
    assert jobs.list() == []
    assert [enqueue(jobs) for _ in range(300)] == list(range(1, 301))
    assert [job["id"] for job in jobs.list(3)] == [300, 299, 298]
    assert [job["id"] for job in jobs.list()] == list(range(300, 280, -1))
    assert len(jobs.list(1000)) == 300
    assert jobs.list(0) == []


def test_a_job_is_as_it_was_last_saved_also_after_a_restart(environment: Environment, jobs: JobStore) -> None:
    number = enqueue(jobs)
    now = {"id": number, "kind": "full", "state": "running", "batches": [{"number": 0, "figures": {"loss": 0.5}}], "error": None}
    jobs.save(now)
    assert JobStore(environment).job(number) == now
    assert JobStore(environment).list() == [now]
    assert [jobs.job(unknown) for unknown in (0, 2, -1, 1 << 70)] == [None] * 4


def test_only_the_latest_are_kept_and_no_number_is_given_twice(environment: Environment) -> None:
    jobs = JobStore(environment, keep=5)
    for _ in range(12):
        enqueue(jobs)
    assert [job["id"] for job in jobs.list(100)] == [12, 11, 10, 9, 8]
    assert enqueue(jobs) == 13
    # A store that kept more before is brought down at once.
    smaller = JobStore(environment, keep=2)
    enqueue(smaller)
    assert [job["id"] for job in smaller.list()] == [14, 13]


def test_records_hold_what_messagepack_holds(environment: Environment, jobs: JobStore) -> None:
    value = {"last": {"full": 1_699_200_000_000}, "theta": b"\0\1", "levels": [0.1, None, True], 5: "five"}
    jobs.set("calibration", value)
    jobs.set("last_runs", 1)
    again = JobStore(environment)
    assert again.get("calibration") == value
    assert again.get("nothing") is None
    assert again.names() == ("calibration", "last_runs")
    jobs.set("last_runs", None)
    jobs.set("last_runs", None)
    assert again.names() == ("calibration",)


@pytest.mark.parametrize("value", [object(), {1, 2}, 1 << 70, {"deep": [object()]}])
def test_what_messagepack_cannot_hold_is_refused_and_changes_nothing(jobs: JobStore, value: Any) -> None:
    jobs.set("a", 1)
    with pytest.raises(StoreError, match="record a cannot be kept"):
        jobs.set("a", value)
    assert jobs.get("a") == 1
    with pytest.raises(StoreError, match="a job cannot be kept"):
        jobs.save({"id": 1, "value": value})
    assert jobs.list() == []


def test_a_damaged_record_is_left_out_and_counted(environment: Environment, jobs: JobStore) -> None:
    for _ in range(3):
        enqueue(jobs)
    jobs.set("a", {"x": 1})

    def harm(database: str, key: bytes) -> None:
        with environment.read() as txn:
            record = txn.get(database, key)
        assert record is not None
        environment.write(lambda txn: txn.put(database, key, record[:-1] + bytes((record[-1] ^ 1,))))

    harm("jobs", (2).to_bytes(8, "big"))
    harm("records", b"a")
    assert [job["id"] for job in jobs.list()] == [3, 1]
    assert jobs.job(2) is None
    assert jobs.get("a") is None
    assert jobs.damaged == 3
    jobs.set("a", {"x": 2})
    assert jobs.get("a") == {"x": 2}


def test_cut_before_any_change_to_a_file_a_job_is_as_before_or_as_after(tmp_path: Path) -> None:
    path = tmp_path / "0"
    states = ["queued", "running", "done"]

    def work() -> None:
        with open_environment(path, databases=DATABASES, writer=True) as environment:
            jobs = JobStore(environment)
            for state in states:
                jobs.save({"id": 1, "state": state})
                jobs.set("state", state)

    seen = set()
    for at in every_cut(work):
        with open_environment(path, databases=DATABASES, writer=True) as environment:
            jobs = JobStore(environment)
            job, said = jobs.job(1), jobs.get("state")
            order = [None, *states]
            assert order.index(job["state"] if job else None) - order.index(said) in (0, 1)
            assert jobs.damaged == 0
            seen.add(said)
        path = tmp_path / str(at)
    assert seen == {None, *states}
