"""The training lane, with a pool that plays the child: verdicts, failures, deaths, interruptions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from cryptod.config import Config
from cryptod.daemon.job import CANCELLED, DONE, FAILED, QUEUED, RUNNING, Job
from cryptod.daemon.training import Training
from cryptod.errors import RequestError, WorkerError
from cryptod.worker.messages import BatchDone, BatchFailed, Failed, Finished, Progress, Report, TrainOrder

NOW = 1_685_620_800_000
COINS = tuple(f"C{i:02d}/USDT" for i in range(10))


class FakeJobs:
    """A job store in memory; ``saved`` is what a restart would find."""

    def __init__(self) -> None:
        self.saved: dict[int, dict[str, Any]] = {}
        self.records: dict[str, Any] = {}

    def next_id(self) -> int:
        return max(self.saved, default=0) + 1

    def save(self, job: dict[str, Any]) -> None:
        self.saved[job["id"]] = msgspec.to_builtins(job)

    def list(self, limit: int) -> list[dict[str, Any]]:
        return [self.saved[number] for number in sorted(self.saved, reverse=True)[:limit]]

    def get(self, name: str) -> Any:
        return self.records.get(name)

    def set(self, name: str, value: Any) -> None:
        self.records[name] = value


Script = Callable[[TrainOrder, Callable[[Report], None]], Report]


class FakePool:
    """Plays one script for each order: reports what it likes, then returns the last report or raises `WorkerError`."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.orders: list[TrainOrder] = []
        self.stopping = False
        self.cancelled: list[int] = []

    async def run(self, order: TrainOrder, *, on_report: Callable[[Report], None], deadline_s: float, silence_s: float) -> Report:
        assert deadline_s > silence_s > 0
        self.orders.append(order)
        await asyncio.sleep(0)
        return self.scripts.pop(0)(order, on_report)

    def cancel(self, job: int) -> None:
        self.cancelled.append(job)


def done(order: TrainOrder, number: int, promote: bool = True) -> BatchDone:
    return BatchDone(
        job=order.job, batch=number, checkpoint=f"job{order.job}-b{number}", promote=promote, reason="better", figures={"skill": 0.01},
        left_out={}, seconds=1.0,
    )  # fmt: skip


def finished(order: TrainOrder) -> Finished:
    return Finished(job=order.job, seconds=3.0, peak_rss=300)


def all_done(order: TrainOrder, report: Callable[[Report], None]) -> Report:
    for batch in order.batches:
        report(Progress(job=order.job, stage="fit", done=1, total=2))
        report(done(order, batch.number))
    return finished(order)


class House:
    """A training lane with everything around it played."""

    def __init__(self, *scripts: Script, jobs: FakeJobs | None = None, batch_size: int = 5) -> None:
        self.jobs = jobs or FakeJobs()
        self.pool = FakePool(*scripts)
        self.promoted: list[str] = []
        self.current: dict[str, tuple[str, ...]] = {}
        self.events: list[str] = []
        self.forbidden = ""
        config = msgspec.structs.replace(Config(), train=msgspec.structs.replace(Config().train, batch_size=batch_size))
        self.training = Training(
            config, ("candles", "checkpoints"), self.pool, self.jobs, lambda: self.current, lambda: self.current,  # type: ignore[arg-type]
            self.promote, lambda job: self.events.append(job.state),
        )  # fmt: skip

    async def promote(self, name: str, now: int, run: str) -> str:
        await asyncio.sleep(0)
        assert run
        if not self.forbidden:
            self.promoted.append(name)
        return self.forbidden

    def run(self, kind: str = "full") -> Job:
        job = self.training.enqueue(kind, "test", NOW)
        asyncio.run(self.training.run(job, COINS, lambda: NOW + 1000, NOW))
        return job


def test_a_full_retrain_trains_all_batches_and_promotes_each_verdict() -> None:
    house = House(all_done)
    job = house.run()
    assert job.state == DONE
    assert house.promoted == ["job1-b1", "job1-b2"]
    order = house.pool.orders[0]
    assert [len(batch.symbols) for batch in order.batches] == [5, 5]
    assert (order.kind, order.cutoff, order.epochs, order.universe) == ("full", NOW, 50, COINS)
    assert house.training.last_full_done == NOW + 1000
    assert len(house.training.queue) == 0
    assert house.jobs.saved[1]["state"] == DONE


def test_a_verdict_that_may_not_be_followed_leaves_the_batch_done_with_the_reason() -> None:
    house = House(all_done)
    house.forbidden = "the models are pinned"
    job = house.run()
    assert (job.state, house.promoted) == (DONE, [])
    assert [(batch.state, batch.promoted, batch.reason) for batch in job.batches] == [("done", False, "the models are pinned")] * 2


def test_a_batch_that_the_gate_refuses_is_done_but_not_promoted() -> None:
    def script(order: TrainOrder, report: Callable[[Report], None]) -> Report:
        report(done(order, 1, promote=False))
        report(done(order, 2))
        return finished(order)

    house = House(script)
    job = house.run()
    assert job.state == DONE
    assert house.promoted == ["job1-b2"]
    assert [batch.promoted for batch in job.batches] == [False, True]


def test_a_failed_batch_leaves_the_others_and_is_tried_once_more() -> None:
    def first(order: TrainOrder, report: Callable[[Report], None]) -> Report:
        report(BatchFailed(job=order.job, batch=1, error="flat candles"))
        report(done(order, 2))
        return finished(order)

    house = House(first, all_done)
    job = house.run()
    assert job.state == DONE
    assert [[batch.number for batch in order.batches] for order in house.pool.orders] == [[1, 2], [1]]
    assert house.promoted == ["job1-b2", "job1-b1"]


def test_a_batch_that_fails_twice_is_given_up_and_named() -> None:
    def fails(order: TrainOrder, report: Callable[[Report], None]) -> Report:
        for batch in order.batches:
            report(BatchFailed(job=order.job, batch=batch.number, error="flat") if batch.number == 1 else done(order, batch.number))
        return finished(order)

    house = House(fails, fails)
    job = house.run()
    assert job.state == DONE
    assert "1 of 2 batches failed: flat" in job.error
    assert job.batches[0].attempts == 2


def test_a_child_that_dies_costs_one_batch_an_attempt_and_the_rest_goes_on() -> None:
    def dies(order: TrainOrder, report: Callable[[Report], None]) -> Report:
        report(done(order, 1))
        raise WorkerError("the train child was killed by signal 9")

    house = House(dies, all_done)
    job = house.run()
    assert job.state == DONE
    assert [batch.attempts for batch in job.batches] == [0, 1]
    assert house.promoted == ["job1-b1", "job1-b2"]


def test_a_child_that_dies_at_every_order_ends_the_job_as_failed() -> None:
    def dies(order: TrainOrder, report: Callable[[Report], None]) -> Report:
        raise WorkerError("killed")

    house = House(dies, dies, dies, dies)
    job = house.run()
    assert job.state == FAILED
    assert job.error == "killed"
    assert house.promoted == []


def test_an_order_that_cannot_begin_fails_the_job_with_its_reason() -> None:
    house = House(lambda order, report: Failed(job=order.job, error="the candle store is damaged", hint="remove it"))
    job = house.run()
    assert (job.state, job.error, job.hint) == (FAILED, "the candle store is damaged", "remove it")


def test_a_restart_goes_on_at_the_batch_where_it_was() -> None:
    def cut(order: TrainOrder, report: Callable[[Report], None]) -> Report:
        report(done(order, 1))
        raise KeyboardInterrupt  # stands for SIGKILL: nothing after this line runs

    jobs = FakeJobs()
    house = House(cut, jobs=jobs)
    with pytest.raises(KeyboardInterrupt):
        house.run()
    assert jobs.saved[1]["state"] == RUNNING

    again = House(all_done, jobs=jobs)
    job = again.training.queue.next()
    assert job is not None
    asyncio.run(again.training.run(job, COINS, lambda: NOW + 5000, NOW + 3_600_000))
    assert job.state == DONE
    assert [batch.number for batch in again.pool.orders[0].batches] == [2]
    assert again.pool.orders[0].cutoff == NOW


def test_an_interrupted_job_that_is_too_old_starts_over_with_fresh_candles() -> None:
    jobs = FakeJobs()
    house = House(jobs=jobs)
    job = house.training.enqueue("full", "test", NOW)
    job.batches, job.cutoff = house.training._plan("full", COINS), NOW
    job.batches[0].state = "done"
    later = NOW + 30 * 3_600_000
    house.pool.scripts = [all_done]
    asyncio.run(house.training.run(job, COINS, lambda: later, later))
    assert len(house.pool.orders[0].batches) == 2
    assert house.pool.orders[0].cutoff == later


def test_a_stop_puts_the_running_job_back_into_the_queue() -> None:
    house = House()

    def stopped(order: TrainOrder, report: Callable[[Report], None]) -> Report:
        report(done(order, 1))
        house.pool.stopping = True
        house.training.interrupt(NOW)
        raise WorkerError("stopped")

    house.pool.scripts = [stopped]
    job = house.run()
    assert job.state == QUEUED
    assert house.jobs.saved[1]["state"] == QUEUED
    assert job.batches[1].attempts == 0


def test_a_cancelled_job_ends_and_its_child_is_told() -> None:
    house = House()

    def cancelled(order: TrainOrder, report: Callable[[Report], None]) -> Report:
        house.training.cancel(order.job, NOW)
        raise WorkerError("ended")

    house.pool.scripts = [cancelled]
    job = house.run()
    assert job.state == CANCELLED
    assert house.pool.cancelled == [1]
    with pytest.raises(RequestError, match="already ended"):
        house.training.cancel(1, NOW)
    with pytest.raises(RequestError, match="no job 99"):
        house.training.cancel(99, NOW)


def test_an_incremental_update_takes_the_coins_of_each_serving_checkpoint_and_five_epochs() -> None:
    house = House(all_done)
    house.current = {"old-1": COINS[:6], "old-2": (*COINS[6:], "GONE/USDT")}
    house.run("incremental")
    order = house.pool.orders[0]
    assert [batch.symbols for batch in order.batches] == [COINS[:6], COINS[6:]]
    assert order.champions[COINS[0]] == "old-1"
    assert order.epochs == 5
    assert house.training.last_full_done == 0


def test_an_incremental_update_without_a_model_fails_with_a_hint() -> None:
    job = House().run("incremental")
    assert job.state == FAILED
    assert "train full" in job.hint


def test_a_full_retrain_supersedes_a_waiting_incremental_update() -> None:
    house = House()
    incremental = house.training.enqueue("incremental", "scheduled", NOW)
    full = house.training.enqueue("full", "scheduled", NOW)
    assert incremental.state == CANCELLED
    assert f"superseded by full retrain {full.id}" in incremental.error
    assert house.training.enqueue("full", "again", NOW) is full


def test_a_job_that_a_defect_ended_does_not_block_the_next_one() -> None:
    def defect(order: TrainOrder, report: Callable[[Report], None]) -> Report:
        raise ZeroDivisionError

    house = House(defect, all_done)
    job = house.training.enqueue("full", "test", NOW)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(house.training.run(job, COINS, lambda: NOW, NOW))
    house.training.leave(job, NOW)
    assert (job.state, job.error) == (FAILED, "a defect ended it")
    assert house.run().state == DONE
    house.training.leave(job, NOW)
    assert job.state == FAILED


def test_why_a_coin_has_no_model_is_known_until_the_next_full_retrain() -> None:
    def short(order: TrainOrder, report: Callable[[Report], None]) -> Report:
        for batch in order.batches:
            report(msgspec.structs.replace(done(order, batch.number), left_out={batch.symbols[0]: "listed for 9 days"}))
        return finished(order)

    house = House(short, all_done, all_done)
    house.run()
    assert house.training.left_out == {"C00/USDT": "listed for 9 days", "C05/USDT": "listed for 9 days"}
    house.current = {"job1-b1": COINS[:5]}
    house.run("incremental")
    again = House(all_done, jobs=house.jobs)
    assert again.training.left_out == house.training.left_out != {}
    again.run()
    assert again.training.left_out == {}
