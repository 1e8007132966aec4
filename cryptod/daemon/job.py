"""A job: what was asked, what state it is in, which batches are through. And the queue that orders them.

Pure: knows no process, no store and no clock. The transitions are a table; the service looks them up, keeps every
change in the job store, and can therefore take up an interrupted job at the batch where it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from cryptod.errors import RequestError

QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "done", "failed", "cancelled"

TRANSITIONS: Final = {
    QUEUED: {RUNNING, CANCELLED, FAILED},
    RUNNING: {DONE, FAILED, CANCELLED, QUEUED},  # back to the queue: interrupted by a stop or a crash, resumed later
    DONE: set[str](),
    FAILED: set[str](),
    CANCELLED: set[str](),
}
PRIORITY: Final = {"full": 0, "incremental": 1}
"""Lower goes first: an incremental update yields to a full retrain, which makes it superfluous."""
MAX_ATTEMPTS: Final = 2
"""A failed batch is tried once more; what fails twice waits for the next run with the old model in place."""


class BatchState(msgspec.Struct, kw_only=True):
    """Where one batch of a training job stands. ``state``: waiting, done, failed."""

    number: int
    symbols: list[str]
    state: str = "waiting"
    attempts: int = 0
    checkpoint: str | None = None
    promoted: bool = False
    reason: str = ""
    figures: dict[str, float] = {}
    left_out: dict[str, str] = {}
    seconds: float = 0.0


class Job(msgspec.Struct, kw_only=True):
    """One row of the job table. Times are UTC ms, 0 while they are not known; durations are seconds."""

    id: int
    kind: str
    reason: str
    created: int
    state: str = QUEUED
    started: int = 0
    ended: int = 0
    cutoff: int = 0
    batches: list[BatchState] = []
    stage: str = ""
    done: int = 0
    total: int = 0
    text: str = ""
    error: str = ""
    hint: str = ""
    seconds: float = 0.0
    peak_rss: int = 0

    def move(self, state: str, now: int) -> None:
        """Change the state along the table, or `RequestError` (conflict)."""
        if state not in TRANSITIONS[self.state]:
            raise RequestError("conflict", f"job {self.id} is {self.state} and cannot become {state}")
        self.state = state
        if state == RUNNING and not self.started:
            self.started = now
        if state in (DONE, FAILED, CANCELLED):
            self.ended = now

    @property
    def ended_state(self) -> bool:
        return not TRANSITIONS[self.state]

    def open_batches(self) -> list[BatchState]:
        """The batches that still want a run: those that wait, and those that failed fewer than MAX_ATTEMPTS times."""
        return [b for b in self.batches if b.state == "waiting" or (b.state == "failed" and b.attempts < MAX_ATTEMPTS)]

    def describe(self) -> dict[str, Any]:
        """What goes over the wire."""
        row: dict[str, Any] = msgspec.to_builtins(self)
        row["progress"] = {key: row.pop(key) for key in ("stage", "done", "total", "text")}
        for batch in row["batches"]:
            batch["coins"] = len(batch.pop("symbols"))
        return row


def plan_batches(symbols: Iterable[str], size: int) -> list[BatchState]:
    """The coins in batches of ``size``, in the order given (by quote volume): neighbours in size are pooled together."""
    ordered = list(symbols)
    return [BatchState(number=i // size + 1, symbols=ordered[i : i + size]) for i in range(0, len(ordered), size)]


class JobQueue:
    """The training jobs that are not ended, in the order in which they run."""

    def __init__(self, jobs: Iterable[Job] = ()) -> None:
        self._jobs = [job for job in jobs if not job.ended_state]

    def __iter__(self) -> Iterator[Job]:
        return iter(sorted(self._jobs, key=lambda job: (PRIORITY[job.kind], job.id)))

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def running(self) -> Job | None:
        return next((job for job in self._jobs if job.state == RUNNING), None)

    def waiting(self, kind: str) -> Job | None:
        """The queued job of this kind: asking twice is asking once."""
        return next((job for job in self._jobs if job.state == QUEUED and job.kind == kind), None)

    def add(self, job: Job) -> None:
        self._jobs.append(job)

    def next(self) -> Job | None:
        """The job to start now: the first one waiting, if none runs."""
        if self.running is not None:
            return None
        return next((job for job in self if job.state == QUEUED), None)

    def settle(self) -> None:
        """Forget what has ended."""
        self._jobs = [job for job in self._jobs if not job.ended_state]
