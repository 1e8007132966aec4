"""The job store as the loop sees it: written in order behind its back, read with what is still on its way.

A write ends with an fsync, which takes a disk's time; the loop does not wait for it. All writes go through the one disk
thread in the order in which they were made, so what a later write relies on is on disk before it. What has not arrived
yet is read from memory: nobody sees an older state than the one that was set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any, Final

from cryptod.errors import StoreError
from cryptod.store.jobs import JobStore

_NOTHING: Final = object()


class Records:
    """Has the methods of `JobStore`; ``failed`` is told (in the disk thread) of a write that did not succeed."""

    def __init__(self, store: JobStore, disk: Executor, failed: Callable[[StoreError], None]) -> None:
        self._store, self._disk, self._failed = store, disk, failed
        self._last_id = store.next_id() - 1
        self._values: dict[str, Any] = {}
        self._jobs: dict[int, dict[str, Any]] = {}

    def next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def get(self, name: str) -> Any:
        value = self._values.get(name, _NOTHING)  # one look: the disk thread may take it away in the next moment
        return self._store.get(name) if value is _NOTHING else value

    def set(self, name: str, value: Any) -> None:
        self._values[name] = value
        self._behind(self._values, name, value, lambda: self._store.set(name, value))

    def save(self, job: Mapping[str, Any]) -> None:
        record = dict(job)
        self._jobs[record["id"]] = record
        self._behind(self._jobs, record["id"], record, lambda: self._store.save(record))

    def list(self, limit: int = 20) -> list[dict[str, Any]]:
        """Jobs, newest first."""
        on_their_way = dict(self._jobs)  # first: what arrives between the two looks is seen in both, not in neither
        found = {record["id"]: record for record in self._store.list(limit)} | on_their_way
        return [found[number] for number in sorted(found, reverse=True)[:limit]]

    def retry(self) -> None:
        """Write what could not be written. Raises `StoreError` if it still cannot. Called in the disk thread."""
        for name, value in tuple(self._values.items()):
            self._store.set(name, value)
            self._arrived(self._values, name, value)
        for number, record in tuple(self._jobs.items()):
            self._store.save(record)
            self._arrived(self._jobs, number, record)

    @staticmethod
    def _arrived(waiting: dict[Any, Any], key: Any, value: Any) -> None:
        if waiting.get(key) is value:
            waiting.pop(key, None)

    def _behind(self, waiting: dict[Any, Any], key: Any, value: Any, write: Callable[[], None]) -> None:
        def written(future: Future[None]) -> None:
            error = future.exception()
            if isinstance(error, StoreError):
                self._failed(error)  # it stays in memory, and `retry` or the next write of it has another chance
            elif error is not None:
                raise error
            else:
                self._arrived(waiting, key, value)

        self._disk.submit(write).add_done_callback(written)
