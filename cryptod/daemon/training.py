"""The training lane: jobs from the queue to train children, verdicts to promotions, batch by batch.

Knows the pool, the job store and the checkpoint store; never torch. A child trains and writes checkpoints; this side
alone decides what becomes current. Every change of a job is kept in the store before it is acted on, so a job that was
cut off by a stop, a crash or a power cut goes on at the batch where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from cryptod.config import Config
from cryptod.daemon.job import (
    CANCELLED,
    DONE,
    FAILED,
    QUEUED,
    RUNNING,
    BatchState,
    Job,
    JobQueue,
    plan_batches,
)
from cryptod.daemon.records import Records
from cryptod.errors import CryptodError, LoadError, RequestError, WorkerError
from cryptod.logs import get_logger
from cryptod.market import HOUR
from cryptod.worker.messages import Batch, BatchDone, BatchFailed, Failed, Finished, Progress, Report, TrainOrder
from cryptod.worker.pool import Pool

SILENCE: Final = 180.0
RESUME_WITHIN_MS: Final = 24 * HOUR.ms
"""An interrupted job older than this starts over with fresh candles instead of going on with its old cutoff."""

Change = Callable[[Job], None]
Promote = Callable[[str, int, str], Awaitable[str]]

log = get_logger("training")


class Training:
    """At most one train child at a time.

    ``serving()`` gives the current checkpoints: name -> the followed coins that it serves; ``updatable()`` those of them that can be
    updated. ``promote(name, now, run)`` makes a checkpoint current, and returns why it did not if it may not. ``changed(job)`` is called
    after every change of a job, for subscribers.
    """

    def __init__(
        self,
        config: Config,
        paths: tuple[str, str],
        pool: Pool,
        jobs: Records,
        serving: Callable[[], Mapping[str, tuple[str, ...]]],
        updatable: Callable[[], Mapping[str, tuple[str, ...]]],
        promote: Promote,
        changed: Change,
    ) -> None:
        self.config = config
        self._candles, self._checkpoints = paths
        self._pool = pool
        self._jobs = jobs
        self._serving, self._updatable = serving, updatable
        self._promote = promote
        self._changed = changed
        self.queue = JobQueue(self._load())
        self.left_out: dict[str, str] = jobs.get("left_out") or {}
        """Coins that the last full retrain gave no model -> why."""
        self.last_full_done = int(jobs.get("last_full_done") or 0)
        self._void: set[int] = set()
        """Jobs of which nothing may be promoted any more."""
        self.unpromoted: set[str] = set()
        """Checkpoints that a child has written and nobody has promoted yet: pruning must leave them."""

    def _load(self) -> list[Job]:
        loaded = []
        for record in self._jobs.list(500):
            job = msgspec.convert(record, Job)
            if job.state == RUNNING:  # the daemon ended in the middle of it
                job.state = QUEUED
                self._jobs.save(msgspec.to_builtins(job))
            loaded.append(job)
        return loaded

    def recent(self, limit: int) -> list[dict[str, Any]]:
        """Jobs for the wire, newest first; a job that runs is described as it is now, not as it was last saved."""
        live = {job.id: job for job in self.queue}
        return [(live.get(record["id"]) or msgspec.convert(record, Job)).describe() for record in self._jobs.list(limit)]

    def enqueue(self, kind: str, reason: str, now: int) -> Job:
        """The job that will do this: a new one, or the one of this kind that waits already."""
        waiting = self.queue.waiting(kind)
        if waiting is not None:
            return waiting
        job = Job(id=self._jobs.next_id(), kind=kind, reason=reason, created=now)
        self.queue.add(job)
        if kind == "full":
            incremental = self.queue.waiting("incremental")
            if incremental is not None:
                incremental.error = f"superseded by full retrain {job.id}"
                self._move(incremental, CANCELLED, now)
        self._save(job)
        log.info("job enqueued", job=job.id, kind=kind, reason=reason)
        return job

    def cancel(self, number: int, now: int) -> Job:
        """End a job that waits or runs; `RequestError` if there is none such."""
        job = next((job for job in self.queue if job.id == number), None)
        if job is None:
            known = any(record["id"] == number for record in self._jobs.list(500))
            raise RequestError(
                "conflict" if known else "not_found",
                f"job {number} has already ended" if known else f"there is no job {number}",
                hint="`cryptoctl jobs` lists them",
            )
        running = job.state == RUNNING
        self._move(job, CANCELLED, now)
        if running:
            self._pool.cancel(job.id)
        log.info("job cancelled", job=job.id, kind=job.kind)
        return job

    def start_over(self, job: Job, now: int, why: str) -> None:
        """End a job that runs without a promotion any more, and let another one do the same."""
        self._void.add(job.id)
        job.error = why
        self.cancel(job.id, now)
        self.enqueue(job.kind, f"job {job.id} was cancelled: {why}", now)

    async def run(self, job: Job, followed: tuple[str, ...], now: Callable[[], int], cutoff: int) -> None:
        """Carry a job out (or on). Leaves it done, failed or cancelled; queued again if the pool is stopped meanwhile."""
        if job.batches and job.cutoff and now() - job.created > RESUME_WITHIN_MS:
            log.info("the interrupted job is too old to go on with; it starts over", job=job.id, kind=job.kind)
            job.batches, job.cutoff = [], 0
        if not job.batches:
            job.cutoff, job.batches = cutoff, self._plan(job.kind, followed)
        if not job.batches:
            job.error = "there is nothing to train on" if job.kind == "full" else "no model serves yet, so none can be updated"
            job.hint = "wait for the first candles" if job.kind == "full" else "`cryptoctl train full` makes the first models"
            self._move(job, FAILED, now())
            return
        self._move(job, RUNNING, now())
        log.info("job started", job=job.id, kind=job.kind, batches=len(job.open_batches()), cutoff=job.cutoff)
        while job.state == RUNNING and (batches := job.open_batches()):
            for batch in batches:
                batch.state = "waiting"
            try:
                await self._order(job, batches, followed, now)
            except WorkerError as error:
                if job.state != RUNNING or self._pool.stopping:
                    return
                if isinstance(error, LoadError):  # no other batch would fare better
                    job.error, job.hint = error.message, error.hint
                    self._move(job, FAILED, now())
                    return
                # Batches are trained in order: the first without a verdict took the child down; the rest gets another child.
                culprit = next((batch for batch in batches if batch.state == "waiting"), batches[-1])
                self._fail(job, culprit, error.message, error.hint)
            except CryptodError as error:
                job.error, job.hint = error.message, error.hint
                self._move(job, FAILED, now())
                return
        if job.state == RUNNING:
            self._finish(job, now())

    def leave(self, job: Job, now: int) -> None:
        """The lane is left: a job that a defect ended must not look as if it ran, or no other would ever start."""
        if job.state == RUNNING and not self._pool.stopping:
            job.error, job.hint = "a defect ended it", "the log has the details"
            self._move(job, FAILED, now)

    def interrupt(self, now: int) -> None:
        """The daemon stops: what runs goes back to the queue."""
        job = self.queue.running
        if job is not None:
            self._move(job, QUEUED, now)

    def _plan(self, kind: str, followed: tuple[str, ...]) -> list[BatchState]:
        if kind == "full":
            return plan_batches(followed, self.config.train.batch_size)
        wanted = set(followed)
        served = [[symbol for symbol in symbols if symbol in wanted] for symbols in self._updatable().values()]
        return [BatchState(number=i, symbols=symbols) for i, symbols in enumerate(filter(None, served), start=1)]

    async def _order(self, job: Job, batches: list[BatchState], followed: tuple[str, ...], now: Callable[[], int]) -> None:
        """One child for these batches. `WorkerError` if it dies, hangs or runs too long; `CryptodError` if it cannot begin."""
        order = TrainOrder(
            job=job.id, kind=job.kind, cutoff=job.cutoff, candles=self._candles, checkpoints=self._checkpoints,
            batches=tuple(Batch(number=batch.number, symbols=tuple(batch.symbols)) for batch in batches),
            universe=followed,
            champions={symbol: name for name, symbols in self._serving().items() for symbol in symbols},
            timeframe=self.config.market.timeframe, months_back=self.config.train.months_back,
            epochs=self.config.train.epochs if job.kind == "full" else self.config.incremental.epochs,
            threads=self.config.worker.threads, seed=job.id,
        )  # fmt: skip
        verdicts: asyncio.Queue[BatchDone | None] = asyncio.Queue()

        def on_report(report: Report) -> None:
            if isinstance(report, Progress):
                job.stage, job.done, job.total, job.text = report.stage, report.done, report.total, report.text
                self._changed(job)
            elif isinstance(report, BatchDone):
                self.unpromoted.add(report.checkpoint)
                verdicts.put_nowait(report)
            elif isinstance(report, BatchFailed):
                self._fail(job, self._batch(job, report.batch), report.error, report.hint)

        async def take_verdicts() -> None:  # promoting reads and writes files; the pipe is not kept waiting for that
            while (report := await verdicts.get()) is not None:
                await self._take(job, report, now())

        deadline = 60.0 * self.config.worker.deadline_minutes
        taking = asyncio.create_task(take_verdicts())
        try:
            final = await self._pool.run(order, on_report=on_report, deadline_s=deadline, silence_s=SILENCE)
        finally:
            verdicts.put_nowait(None)
            await taking
        if isinstance(final, Finished):
            job.peak_rss = max(job.peak_rss, final.peak_rss)
        elif isinstance(final, Failed):
            raise (WorkerError if final.code == WorkerError.code else CryptodError)(final.error, hint=final.hint)

    def _fail(self, job: Job, batch: BatchState, error: str, hint: str) -> None:
        batch.state, batch.attempts, batch.reason = "failed", batch.attempts + 1, error
        self._save(job)
        log.warning("a batch failed", job=job.id, batch=batch.number, attempt=batch.attempts, error=error, hint=hint)

    async def _take(self, job: Job, report: BatchDone, now: int) -> None:
        batch = self._batch(job, report.batch)
        batch.checkpoint, batch.figures, batch.left_out = report.checkpoint, report.figures, report.left_out
        batch.reason, batch.seconds = report.reason, report.seconds
        if report.promote:
            forbidden = job.error if job.id in self._void else await self._promote(report.checkpoint, now, f"{job.kind} {job.id}")
            batch.promoted, batch.reason = not forbidden, forbidden or report.reason
        batch.state = "done"
        self.unpromoted.discard(report.checkpoint)
        self._save(job)
        log.info(
            "batch promoted" if batch.promoted else "batch not promoted", job=job.id, batch=report.batch, model=report.checkpoint,
            reason=batch.reason, duration=report.seconds,
        )  # fmt: skip

    @staticmethod
    def _batch(job: Job, number: int) -> BatchState:
        return next(batch for batch in job.batches if batch.number == number)

    def _finish(self, job: Job, now: int) -> None:
        bad = [batch for batch in job.batches if batch.state != "done"]
        job.stage, job.text = "", ""
        if len(bad) == len(job.batches):
            job.error = job.error or bad[0].reason or "every batch failed"
            self._move(job, FAILED, now)
        else:
            job.error = "" if not bad else f"{len(bad)} of {len(job.batches)} batches failed: {bad[0].reason}"
            self._move(job, DONE, now)
            if job.kind == "full":
                self.last_full_done = now
                self._jobs.set("last_full_done", now)
                failed = {symbol: batch.reason for batch in bad for symbol in batch.symbols}
                self.left_out = failed | {symbol: why for batch in job.batches for symbol, why in batch.left_out.items()}
                self._jobs.set("left_out", self.left_out)
        log.info(
            "job ended", job=job.id, kind=job.kind, state=job.state, batches=len(job.batches), failed=len(bad), error=job.error,
            duration=(job.ended - job.started) / 1000,
        )  # fmt: skip

    def _move(self, job: Job, state: str, now: int) -> None:
        job.move(state, now)
        job.seconds = max(0, (job.ended or now) - job.started) / 1000 if job.started else 0.0
        self._save(job)
        self.queue.settle()

    def _save(self, job: Job) -> None:
        self._jobs.save(msgspec.to_builtins(job))
        self._changed(job)
