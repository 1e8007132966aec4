"""Replayable chaos: the daemon's own parts under a seed that decides everything, so that a failure can be played again.

    python -m tests.chaos.replay [--seed 1] [--runs 1] [--steps 120] [--trace]

The real service, stores, publisher, scoring, scheduler and handlers run in one process on real LMDB files. What is not its own is
played: time is virtual and moves when nothing is left to do, the disk's thread works in turn, and children carry out their orders
in this process, from the generated market. One random generator draws every step and every fault: children that die or fail, an
exchange that refuses, a clock that is stepped, a disk that takes no writes, and kills at any point. After each death, and at the end,
the state is examined (`inquest`). The same seed gives the same trace, line for line.

A failure prints the seed and the command that plays it again. Exits 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import selectors
import sys
import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import msgpack

from cryptod import logs
from cryptod.client import read_forecast
from cryptod.config import Loaded, load
from cryptod.daemon.control import Ready
from cryptod.daemon.handlers import Handlers
from cryptod.daemon.listening import Peer
from cryptod.daemon.service import Service
from cryptod.daemon.watchdog import Notifier
from cryptod.errors import CryptodError, StoreError, WorkerError
from cryptod.market import CANDLE, HOUR
from cryptod.protocol import COMMANDS
from cryptod.simulator.generator import GeneratedMarket
from cryptod.store.candles import CandleStore, Fetched
from cryptod.store.checkpoints import write_checkpoint
from cryptod.store.environment import Transaction
from cryptod.training import base_model
from cryptod.worker.messages import (
    BatchDone,
    BatchFailed,
    CollectDone,
    CollectOrder,
    Failed,
    Finished,
    Order,
    Progress,
    Report,
    TrainOrder,
)
from tests.chaos.inquest import CandleInquest, CheckpointInquest, LedgerInquest
from tests.chaos.witness import Sight, seen

START: Final = 1_709_634_000_000
COINS, MONTHS, MARKET_SEED = 4, 2, 7
SPEED: Final = 900.0
"""Seconds of the daemon's clock that pass in one of the loop's: a candle closes every 4."""
MEAN_STEP: Final = 3.0
"""Seconds of the loop's between two steps, in the mean."""
SETTLED_S: Final = 900.0
"""Seconds of the loop's in which a daemon that is left alone must serve all coins again."""
WARM_HOURS: Final = base_model.HOURS


class Loop(asyncio.SelectorEventLoop):
    """Time is virtual: it moves to the next timer when nothing else is left to do. Work for other threads is done in turn."""

    def __init__(self) -> None:
        self._virtual = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._virtual

    def skip(self, seconds: float) -> None:
        self._virtual += seconds

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = function(*args)
            except Exception as error:  # noqa: BLE001 - handed on to who waits for it, as an executor does
                future.set_exception(error)
            else:
                future.set_result(result)

        self.call_soon(work)
        return future


class _Selector(selectors.SelectSelector):
    """Never waits: what would be a wait moves the loop's time."""

    def __init__(self, loop: Loop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            # Nothing is scheduled and nothing comes: only a defect of this file leads here, and must not hang.
            assert timeout is not None, "the loop waits for something that nobody does"
            self._loop.skip(max(0.0, timeout))
        return ready


class Disk(Executor):
    """The disk's thread, in turn."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as in `Loop.run_in_executor`
            future.set_exception(error)
        return future


class Clock:
    """The daemon's clock: the loop's, `SPEED` times as fast, and off by what somebody has stepped it."""

    def __init__(self, loop: Loop) -> None:
        self._loop, self.off = loop, 0

    def true(self) -> int:
        """The exchange's time, which is right."""
        return START + int(self._loop.time() * SPEED * 1000)

    def now(self) -> int:
        return self.true() + self.off

    def real_seconds(self, seconds: float) -> float:
        return seconds / SPEED


@dataclass
class Weather:
    """Faults in force: the probability with which each hits."""

    exchange: float = 0.0
    child: float = 0.0
    disk: bool = False


class Children:
    """Plays `worker.pool.Pool`: orders are carried out here, from the generated market."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.stopping = False
        self.nice, self.memory_mb = 0, 0
        self.children: list[Any] = []
        self._cancelled: set[int] = set()
        self.unloadable: dict[str, Any] = {}

    async def run(self, order: Order, *, on_report: Callable[[Report], None], deadline_s: float, silence_s: float) -> Report:
        world = self._world
        world.note(f"order {type(order).__name__}")
        await asyncio.sleep(world.random.uniform(0.05, 2.0))
        if self.stopping:
            raise WorkerError("the daemon is stopping")
        if world.random.random() < world.weather.child:
            world.note("the child died before its first report")
            raise WorkerError("the child was killed (SIGKILL)")
        if isinstance(order, CollectOrder):
            return self._collect(order)
        if isinstance(order, TrainOrder):
            return await self._train(order, on_report)
        return Failed(job=order.job, error="not played", code="worker")

    def cancel(self, job: int) -> None:
        self._cancelled.add(job)

    def held_back(self, kind: str) -> bool:
        return False

    def try_again(self) -> None:
        """Nothing was held back."""

    async def prepare(self, kind: str, threads: int) -> None:
        """Nothing to be made ready."""

    async def stop(self) -> None:
        self.stopping = True

    def _collect(self, order: CollectOrder) -> Report:
        world = self._world
        if world.random.random() < world.weather.exchange:
            world.note("the exchange refuses")
            return Failed(
                job=order.job,
                error="the exchange is down",
                hint="wait",
                retry_after=world.random.choice([None, 5.0, 60.0]),
                code="exchange",
            )
        now = world.clock.true()
        end = HOUR.floor(min(now, order.now))
        start = max(0, end - max(MONTHS * 730, WARM_HOURS) * HOUR.ms)
        symbols = order.symbols or world.symbols
        failed = {symbol: "its candle is not there yet" for symbol in symbols if world.random.random() < world.weather.exchange / 2}
        new = 0
        with CandleStore.open(Path(order.candles), writer=True) as store:
            for symbol in symbols:
                if symbol in failed:
                    continue
                span = store.span(symbol)
                first = start if span is None else max(start, span[1] - 2 * HOUR.ms)
                panel = world.market.panel((symbol,), first, end)
                there = panel.status[:, 0] == CANDLE
                fetched = Fetched(symbol, panel.open_times[there], panel.values[there, 0], panel.open_times[~there])
                new += store.apply((fetched,))[0]
                if world.random.random() < world.weather.child / 4:
                    world.note(f"the collector died after {symbol}")
                    raise WorkerError("the collect child was killed (SIGKILL)")
        return CollectDone(
            job=order.job, symbols=tuple(symbols), left_out={}, failed=failed, collected_to=end, skew_ms=now - order.now, new_candles=new,
            revised_candles=0, requests=len(symbols), seconds=0.1,
        )  # fmt: skip

    async def _train(self, order: TrainOrder, on_report: Callable[[Report], None]) -> Report:
        world = self._world
        for batch in order.batches:
            on_report(Progress(job=order.job, stage="train", done=batch.number, total=len(order.batches)))
            await asyncio.sleep(world.random.uniform(0.1, 3.0))
            if order.job in self._cancelled or self.stopping:
                raise WorkerError("the train child was cancelled")
            if world.random.random() < world.weather.child:
                world.note(f"the trainer died in batch {batch.number}")
                raise WorkerError("the train child was killed (SIGKILL)")
            if world.random.random() < world.weather.child:
                on_report(BatchFailed(job=order.job, batch=batch.number, error="the loss is not finite"))
                continue
            on_report(world.trained(order, batch.number, batch.symbols, promote=world.random.random() < 0.8))
        return Finished(job=order.job, seconds=1.0, peak_rss=0)


class PlayedService(Service):
    """The service with what is not its own played."""

    def __init__(self, world: World, loaded: Loaded) -> None:
        self.handlers: Handlers
        self._world = world
        self.opened = asyncio.get_running_loop().create_future()
        super().__init__(loaded, world.clock, self._table, notifier=_Silent(), environ={})
        self.monotonic = asyncio.get_running_loop().time
        self.born = self.monotonic()
        self._disk = Disk()  # type: ignore[assignment]

    def _children(self, root: Path) -> Any:
        return Children(self._world)

    def _table(self, service: Service) -> Handlers:
        self.handlers = Handlers(service)
        self.opened.set_result(None)
        return self.handlers


class _Silent(Notifier):
    def notify(self, state: str) -> None:
        """Nobody listens."""


@dataclass
class Found:
    """What a run showed: sentences on what was wrong, and the trace of everything that was drawn and done."""

    seed: int
    wrong: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    reads: int = 0
    kills: int = 0

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()[:16]


class World:
    """One run: a state directory, a market, a clock, a service that lives and dies on them, and what was seen of it."""

    def __init__(self, seed: int, folder: Path, loop: Loop) -> None:
        self.random = random.Random(seed)
        self.folder, self.state, self.clock = folder, folder / "state", Clock(loop)
        self.market = GeneratedMarket(COINS, MARKET_SEED)
        self.symbols = self.market.coins
        self.weather = Weather()
        self.found = Found(seed)
        self.sights: dict[Sight, bytes] = {}
        self.base = base_model.load(base_model.shipped())
        self.inquests = LedgerInquest(self.state), CheckpointInquest(self.state), CandleInquest(self.state, self.market, MONTHS)
        self.service: PlayedService | None = None
        self._life: asyncio.Task[None] | None = None
        self._loop = loop
        self.late = 0
        """Milliseconds that are added to each age that a reader is told: what a mutation of the daemon would do."""
        self.at_the_end: Callable[[World], None] = lambda world: None
        """What is done to the state before the last look: the auditor's own test."""
        environ = {
            "CRYPTOD_STORAGE_DIRECTORY": str(self.state), "CRYPTOD_SOCKET_PATH": str(folder / "s"), "CRYPTOD_UNIVERSE_SIZE": str(COINS),
            "CRYPTOD_TRAIN_MONTHS_BACK": str(MONTHS), "CRYPTOD_TRAIN_BATCH_SIZE": "2", "CRYPTOD_EXCHANGE_URL": "http://127.0.0.1:1",
        }  # fmt: skip
        self._loaded = load(None, environ)

    def note(self, text: str) -> None:
        self.found.trace.append(f"{self._loop.time():.3f} {text}")

    def wrong(self, text: str) -> None:
        self.note(f"WRONG {text}")
        self.found.wrong.append(text)

    def trained(self, order: TrainOrder, number: int, symbols: tuple[str, ...], *, promote: bool) -> Report:
        """A checkpoint of the base model fitted to these coins, written as a trainer writes it."""
        with CandleStore.open(Path(order.candles)) as store:
            panel = store.panel(symbols, order.cutoff - WARM_HOURS * HOUR.ms, order.cutoff)
        adopted = base_model.adopt(self.base, panel)
        if adopted.model is None:
            return BatchFailed(job=order.job, batch=number, error="no coin has enough candles")
        model = replace(adopted.model, name=f"{order.job}-{number}", kind=order.kind)
        path = write_checkpoint(Path(order.checkpoints), model.name, model.arrays(), model.document(), created=order.cutoff)
        return BatchDone(
            job=order.job, batch=number, checkpoint=path.name, promote=promote, reason="drawn", figures={}, left_out=adopted.left_out,
            seconds=1.0,
        )  # fmt: skip

    # Life and death

    async def start(self) -> None:
        self.weather.disk = False
        self.service = PlayedService(self, self._loaded)
        self._life = asyncio.ensure_future(self.service.run())
        await asyncio.wait((self._life, self.service.opened), return_when=asyncio.FIRST_COMPLETED)
        if self._life.done():
            self.wrong(f"the daemon does not start: {self._life.exception()}")
            return
        write = self.service.environment.write

        def guarded(change: Callable[[Transaction], Any]) -> Any:
            if self.weather.disk:
                raise StoreError("the disk takes no writes", hint="played")
            return write(change)

        self.service.environment.write = guarded  # type: ignore[method-assign]

    async def die(self) -> None:
        """As SIGKILL would: nothing that is not on disk yet ever gets there. Then the state is examined."""
        assert self.service is not None
        assert self._life is not None
        self.weather.disk = True
        self._life.cancel()
        await asyncio.gather(self._life, return_exceptions=True)
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.sleep(0)
        self.service = None
        self.found.kills += 1
        self.look()

    def look(self, *, again: bool = False) -> None:
        """Examine the state directory of a daemon that is dead."""
        ledger, checkpoints, candles = self.inquests
        for sentence in (*ledger.look(self.sights, again=again), *checkpoints.look(), *candles.look()):
            self.wrong(sentence)

    # Steps

    async def ask(self, name: str, *parameters: Any) -> Any:
        """A request, as the dispatch hands it to the handlers; the reply as the client unpacks it. None if it is refused."""
        assert self.service is not None
        handler = getattr(self.service.handlers, name)
        try:
            reply = handler(COMMANDS[name].request(*parameters), Peer(1, 0, 0))
            if asyncio.iscoroutine(reply):
                reply = await reply
        except CryptodError as error:
            self.note(f"{name}: {error.code}")
            return None
        if isinstance(reply, Ready):
            reply = msgpack.unpackb(b"".join(reply.parts), strict_map_key=False)
        return reply

    async def read(self, symbol: str) -> None:
        reply = await self.ask("get", symbol)
        if reply is None:
            return
        now = self.clock.now()
        reply["age"] += self.late / 1000
        forecast = read_forecast(reply)
        self.found.reads += 1
        sight, said = seen(forecast)
        if self.sights.setdefault(sight, said) != said:
            self.wrong(f"{sight} was seen with other figures before")
        if abs(forecast.age - max(0, now - forecast.issued) / 1000) > 0.001:
            self.wrong(f"{symbol} is said to be {forecast.age} s old, issued {(now - forecast.issued) / 1000} s ago")
        if forecast.cutoff > now or forecast.issued > now:
            self.wrong(f"{symbol} has a forecast of the future: cutoff {forecast.cutoff}, issued {forecast.issued}, now {now}")
        behind = HOUR.floor(now) - forecast.cutoff
        if behind > 2 * HOUR.ms and not forecast.stale:
            self.wrong(f"{symbol} is {behind / HOUR.ms:.0f} h behind and not called stale")
        if forecast.stale and not forecast.reason:
            self.wrong(f"{symbol} is stale without a reason")
        self.note(f"read {symbol} {forecast.cutoff} {forecast.issued} {said.hex()[:8]}")

    async def step(self) -> None:
        """Let some time pass, then do one thing that is drawn."""
        await asyncio.sleep(self.random.expovariate(1 / MEAN_STEP))
        name = self.random.choices(tuple(STEPS), [weight for weight, _ in STEPS.values()])[0]
        self.note(name)
        if self.service is None:
            await self.start()
        if self.service is not None:
            await STEPS[name][1](self)

    async def settle(self) -> None:
        """The weather clears. Left alone, the daemon serves all coins at the newest hour again."""
        self.note("the weather clears")
        self.weather = Weather()
        self.clock.off = 0
        if self.service is None:
            await self.start()
        service = self.service
        if service is None:
            return
        service.environment.write(lambda txn: None)
        end = self._loop.time() + SETTLED_S
        behind: list[str] = []
        while self._loop.time() < end:
            await asyncio.sleep(1.0)
            now = self.clock.now()
            behind = []
            for symbol in self.symbols:
                entry = service.publisher.cached(symbol, now)
                if entry is None or entry.cutoff < HOUR.floor(now - HOUR.ms // 2):
                    behind.append(symbol)
            if not behind and not len(service.training.queue) and service.publisher.trained():
                return
        self.wrong(f"not at rest within {SETTLED_S * SPEED / 3600:.0f} h: {behind}, jobs {len(service.training.queue)}")


async def _nothing(world: World) -> None:
    """Only time passes."""


async def _read(world: World) -> None:
    for _ in range(world.random.randint(1, 4)):
        await world.read(world.random.choice(world.symbols))


async def _clear(world: World) -> None:
    await world.ask("cache_clear", [world.random.choice(world.symbols)])


async def _train(world: World) -> None:
    await world.ask("train", world.random.choice(("incremental", "full")))


async def _roll_back(world: World) -> None:
    # The inquest holds that what serves never goes back by itself: a generation that is restored has a new number.
    await world.ask("models_rollback", 1)


async def _pregenerate(world: World) -> None:
    await world.ask("cache_pregenerate")


async def _change_weather(world: World) -> None:
    world.weather = Weather(world.random.choice((0.0, 0.3, 1.0)), world.random.choice((0.0, 0.2, 0.6)), world.random.random() < 0.2)
    world.note(str(world.weather))


async def _clear_weather(world: World) -> None:
    world.weather = Weather()


async def _step_clock(world: World) -> None:
    world.clock.off = world.random.choice((0, 0, 90_000, -90_000, HOUR.ms, -HOUR.ms))
    world.note(f"the clock is off by {world.clock.off} ms")


async def _kill(world: World) -> None:
    await world.die()


STEPS: Final[Mapping[str, tuple[int, Callable[[World], Any]]]] = {
    "wait": (10, _nothing),
    "read": (30, _read),
    "clear": (6, _clear),
    "train": (5, _train),
    "roll back": (3, _roll_back),
    "pregenerate": (3, _pregenerate),
    "weather": (10, _change_weather),
    "sun": (6, _clear_weather),
    "clock": (4, _step_clock),
    "kill": (12, _kill),
}
"""Name -> (weight, what is done)."""


async def live(world: World, steps: int) -> Found:
    """A life of so many steps, an end, and a last look at everything."""
    await world.start()
    for _ in range(steps):
        await world.step()
    await world.settle()
    for symbol in world.symbols:
        await world.read(symbol)
    if world.service is not None:
        await world.die()
    world.at_the_end(world)
    world.look(again=True)
    return world.found


def play(seed: int, steps: int, folder: Path, *, mutate: Callable[[World], None] = lambda world: None) -> Found:
    """One run in the new folder ``folder``. ``mutate`` may spoil the world before it begins."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, Loop)
        world = World(seed, folder, loop)
        mutate(world)
        return runner.run(live(world, steps))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1, help="this seed and the following ones")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--trace", action="store_true", help="print every step")
    options = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of names would be walked in another order each time
        os.execve(sys.executable, [sys.executable, "-m", "tests.chaos.replay", *sys.argv[1:]], {**os.environ, "PYTHONHASHSEED": "0"})
    logs.configure("debug" if options.trace else "critical")
    failed = 0
    for seed in range(options.seed, options.seed + options.runs):
        with tempfile.TemporaryDirectory(prefix="cryptod-") as folder:
            found = play(seed, options.steps, Path(folder))
        if options.trace:
            print("\n".join(found.trace))
        figures = f"{found.reads} reads, {found.kills} kills, {len(found.wrong)} wrong"
        print(f"seed {seed}: {figures}; trace of {len(found.trace)} lines, {found.digest}")
        for sentence in found.wrong:
            print(f"  {sentence}")
        if found.wrong:
            failed += 1
            print(f"  play it again: python -m tests.chaos.replay --seed {seed} --steps {options.steps} --trace")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
