"""The service: the parts put together, and the turn that keeps what is equal to what should be.

The one loop turns a few times a second. Each turn compares what is with what should be (candles with the time, jobs with
the schedule, forecasts with the candles) and starts at most one task for each lane: collect, train, refresh. Nothing has
to be remembered to be right: after a crash, a stop or a stepped clock the next turn sees what is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import msgpack
import schedule

from cryptod import __version__, logs
from cryptod.clock import Clock, StepWatch, SystemClock
from cryptod.config import Config, Loaded, load, reloaded, restart_needed
from cryptod.daemon import account, statedir
from cryptod.daemon.backups import Backups
from cryptod.daemon.collection import Collection
from cryptod.daemon.control import Commands, ControlServer
from cryptod.daemon.crowd import USER_TASKS
from cryptod.daemon.driftwatch import DriftWatch
from cryptod.daemon.export import Exports
from cryptod.daemon.job import Job
from cryptod.daemon.lane import Lane
from cryptod.daemon.listening import Peer, inherited_sockets, listening_at, make_folder, may_change
from cryptod.daemon.monitor import HOUR_MS, Health, ResourceMeter, Resources
from cryptod.daemon.publisher import Publisher
from cryptod.daemon.recent import RecentCandles
from cryptod.daemon.records import Records
from cryptod.daemon.scheduler import Periodic, Scheduler
from cryptod.daemon.scorecards import Scorecards
from cryptod.daemon.scoring import Scoring
from cryptod.daemon.symbols import SymbolIndex
from cryptod.daemon.training import Training
from cryptod.daemon.watchdog import Notifier, Watchdog, keep_pinging, watchdog_interval
from cryptod.daemon.wire import answer
from cryptod.errors import CheckpointError, CryptodError, RequestError, StoreError
from cryptod.forecast.drift import Alarm
from cryptod.forecast.model import Model
from cryptod.market import Panel
from cryptod.places import Place
from cryptod.store.candles import reading
from cryptod.store.checkpoints import CheckpointStore
from cryptod.store.forecasts import Entry, ForecastCache
from cryptod.store.jobs import JobStore
from cryptod.store.ledger import Ledger
from cryptod.training import base_model
from cryptod.worker.forkserver import reap_orphans
from cryptod.worker.messages import market
from cryptod.worker.pool import Pool

TURN: Final = 0.2
"""Real seconds between two turns: a candle's close is noticed that soon, at a tenth of a millisecond a turn."""
LATE: Final = 20.0
"""Seconds without a turn after which the watchdog's beats stop being earned."""
PREGENERATE_LEAD_MS: Final = 5 * 60_000
REFERENCES_KEPT_MS: Final = 8 * 24 * HOUR_MS
STEP_MATTERS: Final = 60.0
"""Seconds of a step of the clock after which a training that runs starts over: nobody knows what its cutoff meant."""
STOP_GRACE: Final = 1.0
INIT: Final = 1
"""The first process of a container: the kernel hands it the children of others that have ended."""
FIRST: Final = -1
"""Stands for the number of a job that is still to be made."""
STORE_RETRY: Final = 5.0
"""Seconds until forecasts that could not be written are made again."""

log = logs.get_logger("service")


def read_candles(path: Path, symbols: tuple[str, ...], start: int, cutoff: int) -> Panel:
    """A panel out of the candle store, opened for this one reading: pages that stay mapped count as this process' memory."""
    with reading(path) as candles:
        return candles.panel(symbols, start, cutoff)


def periodic_rows(config: Config) -> tuple[Periodic, ...]:
    """The table of periodic work."""
    full = config.full_retrain
    cache = config.prediction_cache
    return (
        Periodic("incremental", config.incremental.schedule, config.incremental.enabled),
        Periodic("full", full.schedule, full.enabled),
        Periodic("pregenerate", full.schedule, full.enabled and cache.enabled, lead=PREGENERATE_LEAD_MS),
    )


class Service:
    """One daemon on one state directory.

    ``commands`` makes the table of what the commands do; ``notifier`` speaks to systemd; ``environ`` is the process's
    environment; ``config_path`` is read again on SIGHUP; ``base`` is the folder of a base model other than
    the shipped one; ``place`` is whose daemon it is, by default the system's.
    """

    def __init__(
        self,
        loaded: Loaded,
        clock: Clock,
        commands: Callable[[Service], Commands],
        *,
        notifier: Notifier,
        environ: MutableMapping[str, str],
        config_path: Path | None = None,
        base: Path | None = None,
        place: Place | None = None,
    ) -> None:
        self.config = loaded.config
        self.clock = clock
        self.pid = os.getpid()
        self._commands = commands
        self._environ = environ
        self._config_path, self._base_path, self._place = config_path, base, place
        self._notifier = notifier
        self.monotonic = time.monotonic
        self.born = self.monotonic()
        self._stop = asyncio.Event()
        self._lanes: dict[str, asyncio.Task[None]] = {}
        self._pregenerate = self._catch_up = False
        self._refresh_retry_at = 0.0
        self._prepared_for = 0
        """The job for which a child was started while candles came in; torch takes longer to import than an hour's candles to come."""
        self.health = Health()
        self.resources = Resources()
        self._meter: ResourceMeter | None = None
        self.peak_pss = 0
        self._told = 0
        """Log lines that listeners have been told of."""
        self.steps = StepWatch()
        self.store_error = self.damaged_store = ""
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="disk")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="reader")
        self.reading = Lane(USER_TASKS)
        """Whose turn it is to have the reader read."""

    # ------------------------------------------------------------------ start and stop

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises `CryptodError` if it cannot start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        async with contextlib.AsyncExitStack() as stack:
            await self._open(stack)
            inherited = inherited_sockets(self._environ)
            address = self.config.socket.path
            if inherited:
                address = listening_at(inherited[0])
                await self.control.start(inherited=inherited[0])
                if address != self.config.socket.path:
                    log.warning(
                        "systemd handed the daemon a socket at another place than socket.path", socket=address,
                        setting=self.config.socket.path, remedy="set ListenStream= of the socket unit and socket.path to the same path",
                    )  # fmt: skip
            else:
                if self._place is not None and self.config.socket.path == self._place.socket:
                    make_folder(Path(self._place.socket).parent)
                await self.control.start(self.config.socket.path)
            stack.push_async_callback(self.control.close, STOP_GRACE)
            self.watchdog.ready(account.summary(self))
            log.info(
                "ready", version=__version__, socket=address, coins=len(self.collection.followed),
                models=len(self.publisher.models), duration=round(self.monotonic() - self.born, 3),
            )  # fmt: skip
            await self._serve()
            self.watchdog.stopping()
            log.info("stopping")
            await self._end_lanes()
        log.info("stopped")

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        root = Path(self.config.storage.directory)
        statedir.lock(root, stack, self.pid)
        self.state = root
        statedir.finish_restore(root, self.clock.now())
        exchange = self.config.exchange
        mine = market(exchange.id, exchange.url, exchange.quote, exchange.market)
        self.settled = statedir.settle(root, mine)
        environment, self.damaged_store = statedir.open_serving(root / "serving", self.clock.now())
        self.environment = environment
        stack.callback(environment.close)
        stack.callback(self._disk.shutdown)
        stack.callback(self._reader.shutdown)
        self.records = Records(JobStore(environment), self._disk, self._on_store_error)
        self.cache, self.ledger = ForecastCache(environment), Ledger(environment)
        checkpoints = root / "checkpoints"
        now = self._started = self.clock.now()
        self.first_start = int(self.records.get("born") or 0) or now
        if self.first_start == now:
            self.records.set("born", now)
        self.pool = self._children(root)
        stack.push_async_callback(self.pool.stop)
        stores = self.cache, self.ledger, CheckpointStore(checkpoints), self.records
        candles = functools.partial(read_candles, root / "candles")
        scoring = Scoring(self.ledger, self.records, candles)
        self.scoring = scoring
        scoring.renewed = dict((self.records.get("universe") or {}).get("renewed", {}))
        self.publisher = Publisher(
            self.config, candles, stores, self._disk, self.monotonic, self.trouble, self._on_store_error, scoring, self._base_model()
        )
        await self.publisher.load()
        pace = 1.0 / self.clock.real_seconds(1.0)
        self.collection = Collection(self.config, str(root / "candles"), self.pool, self.records, self.monotonic, pace)
        self.training = Training(
            self.config, (str(root / "candles"), str(checkpoints)), self.pool, self.records,
            self.publisher.serving, self.publisher.updatable, self._promote, self._job_changed,
        )  # fmt: skip
        self.publisher.latest = self.collection.latest
        self.recent = RecentCandles(candles, self._reader)
        self.scorecards = Scorecards(self.pool, self.ledger, root / "serving", self.clock.now)
        self.exports = Exports(self.cache.entries, self.ledger, root / "candles", self._reader)
        self.backups = Backups(self.pool, root, mine, self.clock.now)
        stack.callback(self.backups.close)
        self.index()
        last_runs, paused = self.records.get("last_runs") or {}, self.records.get("paused") or ()
        self.scheduler = Scheduler(periodic_rows(self.config), last_runs, self.first_start, paused)
        self.publisher.announce = self._announce
        self.allowed = may_change(os.getuid(), self.config.socket.group)
        commands = self._commands(self)
        self.control = ControlServer(commands.table(), allowed=self.allowed, express=commands.express)
        self.watchdog = Watchdog(self._notifier, {"turn": LATE, "disk": 6 * LATE}, self.monotonic)

    def _children(self, root: Path) -> Pool:
        worker = self.config.worker
        return Pool(nice=worker.nice, memory_mb=worker.memory_mb, directory=str(root / "run"), state=str(root))

    def _base_model(self) -> Model | None:
        """What serves coins that have no model yet; without it they wait for the next full retrain."""
        if not self.config.forecast.base_model:
            return None
        try:
            return base_model.load(self._base_path or base_model.shipped())
        except CheckpointError as error:
            log.warning("there is no base model; new coins wait to be trained", error=error.message, hint=error.hint)
            return None

    def _on_store_error(self, error: StoreError) -> None:
        if error.message != self.store_error:  # said once, not with every client that asks meanwhile
            log.error("a store failed", error=error.message, hint=error.hint)
        self.store_error = error.message

    async def _serve(self) -> None:
        helpers = [asyncio.create_task(self._keep_house())]
        interval = watchdog_interval(self._environ, self.pid)
        if interval is not None:
            helpers.append(asyncio.create_task(keep_pinging(self.watchdog, interval, self._on_late)))
        try:
            while not self._stop.is_set():
                self._turn()
                self.watchdog.beat("turn")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), TURN)
        finally:
            for helper in helpers:
                helper.cancel()

    async def _end_lanes(self) -> None:
        self.pool.stopping = True
        self.training.interrupt(self.clock.now())
        await self.pool.stop()
        for task in self._lanes.values():
            task.cancel()
        await asyncio.gather(*self._lanes.values(), return_exceptions=True)

    def _on_late(self, parts: list[str]) -> None:
        log.error("a part of the daemon stands still; systemd will restart it", parts=",".join(parts))

    # ------------------------------------------------------------------ the turn

    def _turn(self) -> None:
        """Compare what is with what should be, and take one step for each lane."""
        now = self.clock.now()
        for name in self.scheduler.due(now):
            self._run_periodic(name, now)
        collection, training = self.collection, self.training
        if collection.due(now) and not self.pool.held_back("collect"):
            self._start("collect", self._collect(now))
        if collection.followed and not len(training.queue) and (lack := self._lack_of_models()) and self._first_training_due():
            self.enqueue("full", lack)
        if (alarm := self.drift.unanswered) is not None:
            self._answer(alarm)
        job = training.queue.next()
        if job is not None and self._candles_are_in(job, now):
            self._start("train", self._train(job))
        elif collection.running and self._prepared_for != (wanted := self._worth_preparing_for(job)):
            self._prepared_for = wanted
            self._start("train", self.pool.prepare("train", self.config.worker.threads))
        if self._pregenerate or self._refresh_is_due():
            self._start("refresh", self._refresh(now))

    def _start(self, lane: str, work: Coroutine[Any, Any, None]) -> None:
        """Run the work in its lane, or not at all while the lane is taken."""
        running = self._lanes.get(lane)
        if running is not None and not running.done():
            work.close()
            return
        self._lanes[lane] = asyncio.create_task(self._in_lane(lane, work))

    async def _in_lane(self, lane: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except StoreError as error:
            self._refresh_retry_at = self.monotonic() + STORE_RETRY
            self._on_store_error(error)
        except Exception as error:  # a defect in one lane must not end the others; it is logged with its trace
            self._refresh_retry_at = self.monotonic() + 30
            if lane == "refresh":
                self.publisher.error = str(error) or type(error).__name__
            log.exception("a defect ended the work of a lane", lane=lane)

    def _run_periodic(self, name: str, now: int, reason: str = "scheduled") -> None:
        if name == "pregenerate":
            self._pregenerate = True
        elif reason == "scheduled" and self.own_from:
            pass  # no coin is old enough to be trained on: the job would only fail
        elif name == "full" or self.publisher.models:  # without a model there is nothing to update, and a retrain under way
            self.enqueue(name, reason)
        self.scheduler.ran(name, now)
        self.records.set("last_runs", self.scheduler.last_runs)

    @property
    def own_from(self) -> int:
        """See `Publisher.own_from`."""
        return self.publisher.own_from(self.collection.followed, self.collection.collected_to)

    def run_now(self, name: str, now: int) -> None:
        """A periodic row's work, out of turn; its next turn is the next after now. `RequestError` where there is nothing to do it on."""
        if name == "incremental" and not self.publisher.models:
            raise RequestError("conflict", "no model serves yet, so none can be updated", hint="`cryptoctl schedule run full` makes them")
        self._run_periodic(name, now, "requested")

    def pause(self, name: str, paused: bool) -> None:
        """Let the turns of a periodic row not come, or come again; kept across restarts."""
        (self.scheduler.paused.add if paused else self.scheduler.paused.discard)(name)
        self.records.set("paused", sorted(self.scheduler.paused))

    def enqueue(self, kind: str, reason: str) -> Job:
        job = self.training.enqueue(kind, reason, self.clock.now())
        if kind == "full" and abs(self.clock.now() - self.collection.selected_at) >= HOUR_MS:
            self.collection.ask_for_selection()
        return job

    def _answer(self, alarm: Alarm) -> None:
        """An incremental update for an alarm of the drift watch, unless a training waits or runs, which is as good."""
        if self.scheduler.comes("incremental") and self.publisher.models and not len(self.training.queue):
            self.enqueue("incremental", f"drift: {alarm.text}")
        self.drift.answer(alarm)

    def _lack_of_models(self) -> str:
        """Why a retrain is wanted out of turn, or nothing."""
        publisher = self.publisher
        if publisher.pinned_at and publisher.models:
            return ""  # what it would make could not be promoted
        if self.own_from or publisher.lacks(self.collection.followed):
            return ""  # no coin is old enough to be trained on, or that is still to be seen
        if not publisher.trained():
            return "there is no model yet" if not publisher.refused else "no model is sound"
        if publisher.refused and not all(symbol in publisher.predictor for symbol in self.collection.followed):
            return "a damaged model left coins without one"
        return ""

    def _first_training_due(self) -> bool:
        """Missing models are trained as soon as there are candles; when that did not help, not again at once."""
        if "train" in self.pool.unloadable:
            return not self.pool.held_back("train")
        latest = self.training.recent(1)
        ended = int(latest[0]["ended"]) if latest else 0
        return ended < self._started or abs(self.clock.now() - ended) > HOUR_MS  # it may have ended by a clock that was ahead

    def _worth_preparing_for(self, job: Job | None) -> int:
        """The job that waits for candles. `FIRST` where there is none yet and it is sure to come: at once it shows whether torch loads."""
        if job is None and not self.collection.followed and self._lack_of_models():
            return FIRST
        return self._prepared_for if job is None else job.id

    def _candles_are_in(self, job: Job, now: int) -> bool:
        """A job waits for the candles of the hour to be asked for (successfully or not), not longer."""
        collection = self.collection
        if collection.running or (job.kind == "full" and collection.wants_selection and not collection.retry_in):
            return False
        if job.batches or (collection.error and collection.retry_in):
            return True
        return max(collection.attempted_to, collection.collected_to) >= collection.boundary(now)

    def _refresh_is_due(self) -> bool:
        training = self.training.queue.running is not None
        if self.monotonic() < self._refresh_retry_at or not self.collection.followed:
            return False
        # While batches are being promoted one after the other, only new candles are worth a refresh.
        if training:
            return bool(self.publisher.models) and (self._catch_up or self.collection.collected_to > self.publisher.published_to)
        return self._catch_up or self.publisher.due(self.collection.collected_to)

    async def _collect(self, now: int) -> None:
        before = self.collection.followed, self.collection.left_out
        if await self.collection.run(now):
            if (self.collection.followed, self.collection.left_out) != before:
                await asyncio.to_thread(self.index)  # some 0.1 s for ten thousand coins
            await self._leave_the_future()
            await self.publisher.renew(self.collection.renewed)
            late = self.publisher.late - set(self.collection.failed)
            self._catch_up = bool(late) or self.publisher.lacks(self.collection.followed)

    async def _leave_the_future(self) -> None:
        """After a clock was ahead: what is of a time that has not come is set aside, and what it was made from trains no model."""
        now = self.clock.now()
        latest = self.collection.latest(now)
        job = self.training.queue.running
        if job is not None and job.cutoff > latest:
            self.training.start_over(job, now, "a clock was ahead")
        lost = await self.publisher.set_aside(now)
        self.first_start = min(self.first_start, now)
        self.training.last_full_done = min(self.training.last_full_done, now)
        if lost:
            self.enqueue("full", "models of a time that had not come were set aside")

    @property
    def drift(self) -> DriftWatch:
        return self.scoring.drift

    def index(self) -> None:
        """The coins are found by their names as they are followed now."""
        asked_for = dict.fromkeys(self.collection.unmet, "it was just added, and the exchange is being asked for it")
        self.symbols = SymbolIndex(self.collection.followed, self.collection.left_out | asked_for)

    async def _train(self, job: Job) -> None:
        try:
            await self.training.run(job, self.collection.followed, self.clock.now, self.collection.collected_to)
        finally:
            self.training.leave(job, self.clock.now())

    async def _refresh(self, now: int) -> None:
        ahead, self._pregenerate, self._catch_up = self._pregenerate, False, False
        cache = self.config.prediction_cache
        hours = cache.pregenerate_ttl_hours if ahead else cache.ttl_hours
        anew = ahead or self.publisher.due(self.collection.collected_to)
        await self.publisher.refresh(self.collection.followed, self.collection.collected_to, now, hours * HOUR_MS, anew=anew)
        self.store_error = ""
        self._notify("forecasts", {"cutoff": self.publisher.published_to, "coins": self.publisher.published_coins, "at": now})

    async def pregenerate(self) -> dict[str, Any]:
        """All forecasts anew, kept for pregenerate_ttl_hours."""
        hours = self.config.prediction_cache.pregenerate_ttl_hours
        return await self.publisher.refresh(self.collection.followed, self.collection.collected_to, self.clock.now(), hours * HOUR_MS)

    async def _promote(self, name: str, now: int, run: str) -> str:
        job = self.training.queue.running
        if job is not None and job.cutoff > self.collection.latest(now):
            return "it was trained on candles of a time that has not come: a clock was ahead"
        if self.publisher.pinned_at and self.publisher.models:
            return "the models are pinned: `cryptoctl models unpin` lets the next training's be promoted"
        await self.publisher.promote(name, now, run, self.collection.followed)
        return ""

    async def roll_back(self, steps: int) -> dict[str, Any]:
        await self.publisher.roll_back(steps, self.clock.now())
        return self.publisher.describe_models()

    # ------------------------------------------------------------------ housekeeping

    async def _keep_house(self) -> None:
        """Periodic housekeeping, dispatched by `schedule`: resources, conditions, expiry, pruning."""
        house = self._housekeeping()
        self._start_chore("resources", self._read_resources)
        while True:
            if self.steps.stepped():
                log.warning("the machine's clock was stepped", seconds=round(self.steps.step, 1))
                self.collection.clock_stepped()
                job = self.training.queue.running
                if job is not None and abs(self.steps.step) > STEP_MATTERS:
                    self.training.start_over(job, self.clock.now(), "the clock was stepped meanwhile")
                if isinstance(self.clock, SystemClock):
                    house = self._housekeeping()  # its next runs were reckoned by the old time
            house.run_pending()
            if self.pid == INIT:
                reap_orphans()
            if self.pool.children:  # a retrain may begin and end between two looks of ten seconds, and its memory is the peak
                self._start_chore("resources", self._read_resources)
            await asyncio.sleep(1.0)

    def _housekeeping(self) -> schedule.Scheduler:
        # What looks at the machine keeps real time, what tidies up the daemon's own: a month at speed leaves no more behind than a month.
        house = schedule.Scheduler()
        house.every(10).seconds.do(self._start_chore, "resources", self._read_resources)
        house.every(2).seconds.do(self._start_chore, "conditions", self._judge)
        house.every(2).seconds.do(self._start_chore, "telling", self._tell)
        house.every(self._tidied(600.0)).seconds.do(self._start_chore, "expiry", self._expire)
        house.every(self._tidied(3600.0)).seconds.do(self._start_chore, "pruning", self._prune)
        return house

    def _tidied(self, seconds: float) -> int:
        """Real seconds that so many of the clock's last, at least one."""
        return max(1, round(self.clock.real_seconds(seconds)))

    def _start_chore(self, name: str, chore: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._start(name, chore())

    async def _read_resources(self) -> None:
        loop = asyncio.get_running_loop()
        self.resources = await loop.run_in_executor(None, self._measure)
        self.peak_pss = max(self.peak_pss, self.resources.pss_total)
        await self.publisher.on_disk(self.monotonic)  # a disk that hangs must not look alive
        self.watchdog.beat("disk")

    def _measure(self) -> Resources:
        if self._meter is None:
            self._meter = ResourceMeter(self.state, self.monotonic)
        return self._meter.read()

    async def _judge(self) -> None:
        if self.store_error and not self._refresh_is_waiting():
            await self._try_to_write()
        for what, finding in self.health.evaluate(account.facts(self)):
            severity = finding["severity"] if what == "raised" else "info"
            say = {"error": log.error, "warning": log.warning}.get(severity, log.info)
            say(f"condition {what}: {finding['text']}", condition=finding["name"], remedy=finding["remedy"])
            self._notify("conditions", {"what": what, **finding})
        self.watchdog.status(account.summary(self))

    async def _tell(self) -> None:
        """The snapshot and the log's news, while anybody listens."""
        if self.control.listens("status"):
            await self._read_resources()
            self._notify("status", account.status(self) | {"serving": self.publisher.describe_models()})
        told, self._told = self._told, logs.taken()
        if self._told > told and self.control.listens("log"):
            lines = logs.recent(self._told - told)
            self._notify("log", {"lines": lines}, self.allowed)
            self._notify("log", {"lines": logs.impersonal(lines)}, lambda peer: not self.allowed(peer))

    def _refresh_is_waiting(self) -> bool:
        """Whether forecasts could not be published: their next attempt says whether the store can be written again."""
        return self.publisher.due(self.collection.collected_to)

    async def _try_to_write(self) -> None:
        try:
            await self.publisher.on_disk(self.records.retry)
        except StoreError as error:
            self.store_error = error.message
        else:
            self.store_error = ""

    async def _expire(self) -> None:
        await self.publisher.expire(self.clock.now())
        await self.publisher.prune(self.training.unpromoted)

    async def _prune(self) -> None:
        # By the time of the newest forecast: a machine whose clock was set to another year must not empty the ledger.
        before = self.publisher.published_to - self.config.storage.ledger_days * 24 * HOUR_MS
        # The references' own words are wanted until the last outcome is known, 24 hours on; then their scores are kept.
        references = functools.partial(self.ledger.prune, before, references_before=self.publisher.published_to - REFERENCES_KEPT_MS)
        await self.publisher.on_disk(references)
        # A hundred coins' forecasts that were read to be scored are some 4 MB a day: they must not add up.
        await self.publisher.on_disk(self.environment.release)

    # ------------------------------------------------------------------ reload

    def _reload(self) -> None:
        """SIGHUP: read the configuration again, take what a running daemon can take, and name what waits for a restart."""
        self.watchdog.reloading()
        try:
            new = load(self._config_path, self._environ, self._place).config
            live, waiting = restart_needed(self.config, new)
            self._apply(reloaded(self.config, new), live)
            if waiting:
                log.warning("reloaded; some keys wait for a restart", applied=",".join(live), waiting=",".join(waiting))
            else:
                log.info("reloaded", applied=",".join(live) or "nothing had changed")
        except CryptodError as error:
            log.error("the configuration was not reloaded; the old one stays", error=error.message, hint=error.hint)
        finally:
            self.watchdog.reloaded()

    def _apply(self, config: Config, changed: list[str]) -> None:
        self.config = self.publisher.config = self.collection.config = self.training.config = config
        self.scheduler.replace(periodic_rows(config), self.clock.now())
        self.pool.try_again()
        self.pool.nice, self.pool.memory_mb = config.worker.nice, config.worker.memory_mb
        logs.set_level(config.log.level)
        if any(key.startswith("universe.") for key in changed):
            self.collection.ask_for_selection()

    # ------------------------------------------------------------------ what it says

    def _job_changed(self, job: Job) -> None:
        self._notify("jobs", job.describe())

    def _notify(self, topic: str, payload: Mapping[str, Any], to: Callable[[Peer], bool] = lambda peer: True) -> None:
        if hasattr(self, "control"):
            self.control.notify(topic, msgpack.packb(dict(payload)), to)

    async def _announce(self, entries: list[Entry], now: int) -> None:
        """Each new forecast to those who follow ``coins``."""
        await self.control.broadcast("coins", (b"".join(answer(entry, now, None)) for entry in entries))

    def trouble(self, symbol: str) -> str:
        """What is known to be wrong with a coin, in words, or nothing."""
        collection = self.collection
        if symbol in collection.failed:
            return collection.failed[symbol]
        if symbol not in self.publisher.predictor:
            running = self.training.queue.running
            if running is not None and running.kind == "full":
                return f"full training {running.id} is running"
            for why in (self.publisher.unready, self.training.left_out):  # the base model asks for less, so its reason ends first
                if symbol in why:
                    return why[symbol]
            return "it has no model yet; it is trained at the next full retrain"
        return collection.error or (f"the store cannot be written: {self.store_error}" if self.store_error else "")
