"""Jobs as they were and are, and small named records: what the daemon must remember across a restart.

Knows the environment and MessagePack; nothing of what a job does. A job is a map with an ``id`` (from 1, one more
with each) and whatever else the daemon puts in; a record is any value that MessagePack holds: last runs, the state of
the calibration, the batch that a retrain has reached.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Final

import msgpack

from cryptod.errors import StoreError
from cryptod.store.environment import Environment, Transaction
from cryptod.store.record import framed, opened

DATABASES: Final = ("jobs", "records")
VERSION: Final = 1
KEEP: Final = 500
"""Jobs; at five a day that is three months."""


class JobStore:
    """``environment`` needs the `DATABASES`. What was saved or set is on disk when the call returns.

    Raises `StoreError`: the disk, or a value that MessagePack cannot hold. ``damaged`` counts what could not be read.
    """

    def __init__(self, environment: Environment, keep: int = KEEP) -> None:
        self._environment, self._keep = environment, keep
        self.damaged = 0

    def next_id(self) -> int:
        """The ``id`` of a job that comes now."""
        with self._environment.read() as txn:
            latest = txn.last("jobs")
        return (int.from_bytes(latest[0], "big") if latest else 0) + 1

    def save(self, job: Mapping[str, Any]) -> None:
        """Keep a job as it is now, in place of what was kept under its ``id``; the oldest beyond those kept are dropped."""
        key = _key(job["id"])
        record = _pack(key, dict(job), "a job")

        def change(txn: Transaction) -> None:
            txn.put("jobs", key, record)
            surplus = max(0, txn.count("jobs") - self._keep)
            for old in [old for old, _ in islice(txn.scan("jobs"), surplus)]:
                txn.delete("jobs", old)

        self._environment.write(change)

    def job(self, number: int) -> dict[str, Any] | None:
        """The job with this ``id``, or None."""
        if not 0 <= number < 1 << 64:
            return None
        key = _key(number)
        with self._environment.read() as txn:
            record = txn.get("jobs", key)
        return None if record is None else self._unpack(key, record)

    def get(self, name: str) -> Any:
        """The record called so, or None."""
        with self._environment.read() as txn:
            record = txn.get("records", name.encode())
        return None if record is None else self._unpack(name.encode(), record)

    def set(self, name: str, value: Any) -> None:
        """Keep a record; None deletes it."""
        key = name.encode()
        if value is None:
            self._environment.write(lambda txn: txn.delete("records", key))
            return
        record = _pack(key, value, f"record {name}")
        self._environment.write(lambda txn: txn.put("records", key, record))

    def names(self) -> tuple[str, ...]:
        """The names of the records, in order."""
        with self._environment.read(lend=True) as txn:
            return tuple(key.decode() for key, _ in txn.scan("records"))

    def list(self, limit: int = 20) -> list[dict[str, Any]]:
        """Jobs, newest first."""
        found: list[dict[str, Any]] = []
        before: bytes | None = None
        with self._environment.read() as txn:
            while len(found) < limit and (record := txn.last("jobs", before)) is not None:
                before = record[0]
                if (job := self._unpack(*record)) is not None:
                    found.append(job)
        return found

    def _unpack(self, key: bytes, record: bytes) -> Any:
        try:
            return msgpack.unpackb(opened(VERSION, record, key), strict_map_key=False)
        except (ValueError, msgpack.UnpackException):
            self.damaged += 1
            return None


def _key(number: int) -> bytes:
    return number.to_bytes(8, "big")


def _pack(key: bytes, value: Any, what: str) -> bytes:
    try:
        return framed(VERSION, msgpack.packb(value), key)
    except (TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"{what} cannot be kept: {error}", hint="this is a defect: plain values only") from error
