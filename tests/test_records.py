"""Records behind the loop: never older than what was set, whatever the disk thread is doing, and never lost to a full disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from cryptod.daemon.records import Records
from cryptod.errors import StoreError


class HandDisk(Executor):
    """Does what it is given when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, work: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, work))
        return future

    def work(self) -> None:
        while self.waiting:
            future, work = self.waiting.pop(0)
            try:
                future.set_result(work())
            except StoreError as error:
                future.set_exception(error)


class Shelf:
    """A job store in memory; ``full`` refuses writes, ``while_read`` happens right after a reading has looked."""

    def __init__(self) -> None:
        self.jobs: dict[int, dict[str, Any]] = {}
        self.values: dict[str, Any] = {}
        self.full = False
        self.while_read: Callable[[], None] = lambda: None

    def next_id(self) -> int:
        return max(self.jobs, default=0) + 1

    def save(self, job: Mapping[str, Any]) -> None:
        self._check()
        self.jobs[job["id"]] = dict(job)

    def set(self, name: str, value: Any) -> None:
        self._check()
        self.values[name] = value

    def get(self, name: str) -> Any:
        return self.values.get(name)

    def list(self, limit: int) -> list[dict[str, Any]]:
        found = [self.jobs[number] for number in sorted(self.jobs, reverse=True)[:limit]]
        self.while_read()
        return found

    def _check(self) -> None:
        if self.full:
            raise StoreError("the disk is full")


class House:
    def __init__(self) -> None:
        self.shelf, self.disk = Shelf(), HandDisk()
        self.failures: list[StoreError] = []
        self.records = Records(self.shelf, self.disk, self.failures.append)  # type: ignore[arg-type]


def test_what_was_set_is_read_before_and_after_it_is_on_disk() -> None:
    house = House()
    house.records.set("universe", 1)
    house.records.save({"id": 1, "state": "queued"})
    assert (house.records.get("universe"), house.records.list()) == (1, [{"id": 1, "state": "queued"}])
    assert not house.shelf.jobs
    house.disk.work()
    assert (house.records.get("universe"), house.records.list()) == (1, [{"id": 1, "state": "queued"}])
    assert house.shelf.jobs
    assert house.records.get("nothing") is None


def test_a_job_that_reaches_the_disk_while_jobs_are_listed_is_not_missed() -> None:
    house = House()
    house.records.save({"id": 1, "state": "queued"})
    house.shelf.while_read = house.disk.work
    assert house.records.list() == [{"id": 1, "state": "queued"}]


def test_what_the_disk_did_not_take_is_kept_and_written_when_there_is_room() -> None:
    house = House()
    house.shelf.full = True
    house.records.set("universe", 1)
    house.records.save({"id": 1, "state": "done"})
    house.disk.work()
    assert [error.message for error in house.failures] == ["the disk is full"] * 2
    assert house.records.list() == [{"id": 1, "state": "done"}]
    with pytest.raises(StoreError):
        house.records.retry()
    house.shelf.full = False
    house.records.retry()
    assert (house.shelf.values, house.shelf.jobs) == ({"universe": 1}, {1: {"id": 1, "state": "done"}})


def test_a_newer_value_is_not_taken_back_by_the_arrival_of_an_older_one() -> None:
    house = House()
    house.records.set("universe", 1)
    house.records.set("universe", 2)
    future, work = house.disk.waiting.pop(0)
    future.set_result(work())
    assert house.shelf.values == {"universe": 1}
    assert house.records.get("universe") == 2
