"""Each condition in the real service: what brings it into being, and what takes it away again.

The service is opened on a state directory of its own with real stores, candles and the shipped base model; only its children are played,
and its clocks are turned by hand. ``docs/health.md`` is checked here against the table.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import msgspec
import numpy as np
import pytest
import pytest_asyncio

from cryptod.clock import STEP_SHOWN, StepWatch
from cryptod.config import load
from cryptod.daemon import account
from cryptod.daemon.handlers import Handlers
from cryptod.daemon.monitor import CONDITIONS, MIB
from cryptod.daemon.service import Service
from cryptod.errors import RequestError, StoreError, WorkerError
from cryptod.market import HOUR, MAX_HORIZON, QUANTILE_LEVELS, Panel
from cryptod.simulator.generator import GeneratedMarket
from cryptod.store.candles import CandleStore, Fetched
from cryptod.store.checkpoints import write_checkpoint
from cryptod.worker.messages import BatchDone, BatchFailed, CollectDone, Failed, Finished, Order, Report, TrainOrder
from cryptod.worker.pool import LOAD_RETRY_S, Unloadable

F = TypeVar("F", bound=Callable[..., Any])

NOW = 1_685_620_800_000 + 10 * 60_000
COINS = 10
HISTORY = 60 * 24
AHEAD = 10 * 24
PAGE = Path(__file__).parent.parent / "docs" / "health.md"
DRIVEN: set[str] = set()


def drives(*names: str) -> Callable[[F], F]:
    """This test brings these conditions into being and out again."""
    DRIVEN.update(names)
    return lambda test: test


@lru_cache(maxsize=1)
def market() -> Panel:
    hour = HOUR.floor(NOW)
    made = GeneratedMarket(COINS, companions=False)
    return made.panel(made.coins, hour - HISTORY * HOUR.ms, hour + AHEAD * HOUR.ms)


class Silent:
    def notify(self, state: str) -> None:
        pass


class House:
    """A service whose children say what they are told to."""

    def __init__(self, root: Path, **settings: str) -> None:
        self.root, self.now, self.seconds = root, NOW, 1000.0
        self.collected: Report = collected()
        self.trained: Callable[[int], Report] | Failed = Failed(job=0, error="nothing was said")
        settings = {"storage_directory": str(root), "train_batch_size": "5"} | settings
        environ = {f"CRYPTOD_{name.upper()}": value for name, value in settings.items()}
        clock: Any = SimpleNamespace(now=lambda: self.now, real_seconds=lambda seconds: seconds)
        (root / "cryptod.toml").write_text("")
        self.service = Service(load(root / "cryptod.toml", environ), clock, Handlers, notifier=Silent(), environ=environ)
        self.service.monotonic = lambda: self.seconds

    async def open(self, stack: contextlib.AsyncExitStack) -> House:
        await self.service._open(stack)
        self.service.pool.run = self.run  # type: ignore[method-assign]
        return self

    async def run(self, order: Order, *, on_report: Callable[[Report], None], deadline_s: float, silence_s: float) -> Report:
        """What the pool does, and what its child reports."""
        if not isinstance(order, TrainOrder):
            return self.collected
        if isinstance(self.trained, Failed):
            return self.trained
        for batch in order.batches:
            on_report(self.trained(batch.number))
        return Finished(job=order.job, seconds=1.0, peak_rss=0)

    def write(self, symbols: Iterable[str], since: int = 0) -> None:
        """The candles of these coins up to now, as a collect child would have."""
        panel = market()
        rows = panel.open_times + HOUR.ms <= self.now
        rows &= panel.open_times >= since
        with CandleStore.open(self.root / "candles", writer=True) as store:
            for symbol in symbols:
                store.write(symbol, panel.open_times[rows], panel.values[rows, panel.symbols.index(symbol)])

    async def collect(self, report: Report) -> None:
        if isinstance(report, CollectDone):
            report = msgspec.structs.replace(report, collected_to=HOUR.floor(self.now + min(0, report.skew_ms)))
        self.collected = report
        await self.service._collect(self.now)

    async def refresh(self) -> None:
        self.service._refresh_retry_at = 0.0
        await self.service._in_lane("refresh", self.service._refresh(self.now))

    async def train(self, trained: Callable[[int], Report] | Failed) -> None:
        self.trained = trained
        await self.service._train(self.service.enqueue("full", "asked for"))

    async def published(self) -> None:
        """All coins have candles, and a forecast by the base model."""
        self.write(market().symbols)
        await self.collect(collected())
        await self.refresh()

    def model(self, name: str, source: int) -> str:
        """A checkpoint like the base model's that serves every coin by ``source``."""
        model = self.service.publisher.models[0]
        new = replace(model, name=name, kind="full", source=np.full(len(model.symbols), source, np.uint8))
        return write_checkpoint(self.root / "checkpoints", name, new.arrays(), new.document(), created=self.now).name

    async def conditions(self, later: float = 0.0) -> set[str]:
        """Their names, looked at now and ``later`` seconds on."""
        await self.service._judge()
        self.seconds += later
        await self.service._judge()
        return {finding["name"] for finding in self.service.health.findings}


def collected(symbols: tuple[str, ...] | None = None, **changes: Any) -> CollectDone:
    plain: dict[str, Any] = {
        "job": 0, "symbols": market().symbols if symbols is None else symbols, "left_out": {}, "failed": {}, "collected_to": 0,
        "skew_ms": 0, "new_candles": 0, "revised_candles": 0, "requests": 1, "seconds": 0.1,
    }  # fmt: skip
    return CollectDone(**plain | changes)


def verdict(batch: int, promote: str = "") -> BatchDone:
    """Of the gate: this checkpoint serves, or none is better than what does."""
    return BatchDone(
        job=0, batch=batch, checkpoint=promote or f"refused-{batch}", promote=bool(promote), reason="no better than the champion",
        figures={}, left_out={}, seconds=1.0,
    )  # fmt: skip


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        yield await House(tmp_path).open(stack)


# The exchange and its candles


@drives("exchange_unreachable")
async def test_an_exchange_that_cannot_be_reached_shows_after_a_minute_until_it_answers(house: House) -> None:
    await house.collect(Failed(job=0, error="binance cannot be reached"))
    assert "exchange_unreachable" not in await house.conditions(later=59)
    assert "exchange_unreachable" in await house.conditions(later=1)
    await house.collect(collected())
    assert "exchange_unreachable" not in await house.conditions()


@drives("exchange_banned")
async def test_a_ban_is_another_matter_than_an_exchange_that_cannot_be_reached(house: House) -> None:
    await house.collect(Failed(job=0, error="binance has banned this address (status 418)", retry_after=3000.0))
    assert {"exchange_banned", "exchange_unreachable"} & await house.conditions(later=60) == {"exchange_banned"}
    assert house.service.collection.retry_in > 2000
    await house.collect(Failed(job=0, error="binance cannot be reached"))
    assert {"exchange_banned", "exchange_unreachable"} & await house.conditions(later=60) == {"exchange_unreachable"}
    await house.collect(collected())
    assert not {"exchange_banned", "exchange_unreachable"} & await house.conditions()


@drives("collect_failed")
async def test_a_collect_child_that_fails_is_not_told_as_the_exchanges_fault(house: House) -> None:
    of_collecting = {"collect_failed", "exchange_unreachable"}
    for code in (WorkerError.code, "internal"):
        await house.collect(Failed(job=0, error="the collect child needs more memory than its 700 MB", code=code))
        assert of_collecting & await house.conditions(later=60) == {"collect_failed"}
        assert account.status(house.service)["exchange"]["error"] == ""
        await house.collect(collected())
        assert not of_collecting & await house.conditions(later=60)


@drives("library_broken")
async def test_a_library_that_cannot_be_loaded_is_one_condition_and_is_not_tried_again_all_the_time(house: House) -> None:
    house.write(market().symbols)
    await house.collect(collected())
    state = house.service.pool._state()
    broken = Unloadable("the train child cannot load its program: ImportError: torch", time.monotonic(), state, LOAD_RETRY_S)
    house.service.pool.unloadable["train"] = broken
    await house.train(Failed(job=0, error=broken.text))
    assert await house.conditions(later=60) == {"library_broken"}
    for hour in range(1, 5):  # of a clock that may run fast
        house.now += hour * HOUR.ms
        assert not house.service._first_training_due()
    house.service._apply(house.service.config, [])
    assert house.service._first_training_due()
    house.service.pool.unloadable.clear()
    assert "library_broken" not in await house.conditions()


@drives("market_stale")
async def test_hours_without_any_candle_show_until_candles_come(house: House) -> None:
    await house.published()
    assert "market_stale" not in await house.conditions()
    house.now += 2 * HOUR.ms
    assert "market_stale" in await house.conditions()
    await house.collect(collected())
    assert "market_stale" not in await house.conditions()


@drives("candles_stale")
async def test_one_coin_that_lags_shows_after_five_minutes_until_its_candles_come(house: House) -> None:
    await house.published()
    late, *others = market().symbols
    house.now += 2 * HOUR.ms
    house.write(others)
    await house.collect(collected(failed={late: "HTTP status 503"}))
    await house.refresh()
    assert "candles_stale" not in await house.conditions(later=299)
    assert "candles_stale" in await house.conditions(later=1)
    assert late in next(found["text"] for found in house.service.health.findings if found["name"] == "candles_stale")
    house.write([late])
    await house.collect(collected())
    await house.refresh()
    assert "candles_stale" not in await house.conditions()


@drives("market_outage")
async def test_an_outage_of_all_coins_shows_until_they_trade_again_and_their_forecasts_say_so(house: House) -> None:
    await house.published()
    house.now += 2 * HOUR.ms
    hour = HOUR.floor(house.now)
    with CandleStore.open(house.root / "candles", writer=True) as store:
        nothing, times = np.empty((0, 5)), np.array([hour - 2 * HOUR.ms, hour - HOUR.ms])
        store.apply(tuple(Fetched(symbol, times[:0], nothing, times) for symbol in market().symbols))
    await house.collect(collected())
    await house.refresh()
    assert "market_outage" in await house.conditions()
    found = next(found for found in house.service.health.findings if found["name"] == "market_outage")
    assert found["text"] == "none of the 10 coins has traded for 2 h: their prices are not known"
    assert all("outage" in flags for flags in house.service.publisher.predictor.forecast(market().symbols, hour).flags)
    house.now += HOUR.ms
    house.write(market().symbols, since=hour)
    await house.collect(collected())
    await house.refresh()
    assert "market_outage" not in await house.conditions()


@drives("universe_setting")
async def test_a_coin_asked_for_and_not_to_be_had_shows_until_the_setting_is_corrected(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        house = await House(tmp_path, universe_include="BTCC/USDT").open(stack)
        await house.collect(collected(left_out={"BTCC/USDT": "binance does not have it"}))
        assert "universe_setting" in await house.conditions()
        config = house.service.config
        corrected = msgspec.structs.replace(config, universe=msgspec.structs.replace(config.universe, include=()))
        house.service._apply(corrected, ["universe.include"])
        assert "universe_setting" not in await house.conditions()


# Models and their training


@drives("models_missing")
async def test_a_daemon_without_any_model_says_so_until_one_serves(house: House) -> None:
    await house.collect(collected())
    assert "models_missing" in await house.conditions()
    house.write(market().symbols)
    await house.refresh()
    assert "models_missing" not in await house.conditions()


@drives("coins_missing")
async def test_models_without_any_coin_are_an_error_until_coins_are_chosen(house: House) -> None:
    await house.published()
    assert "coins_missing" not in await house.conditions()
    house.service.collection.followed = ()
    assert "coins_missing" in await house.conditions()
    await house.collect(collected())
    assert "coins_missing" not in await house.conditions()


@drives("coins_untrained")
async def test_a_coin_without_a_model_shows_after_ten_minutes_until_it_has_one(house: House) -> None:
    young, *others = market().symbols
    house.write(others)
    house.write([young], since=house.now - 72 * HOUR.ms)
    await house.collect(collected())
    await house.refresh()
    assert "coins_untrained" not in await house.conditions(later=599)
    assert "coins_untrained" in await house.conditions(later=1)
    house.now += 5 * 24 * HOUR.ms
    house.write(market().symbols, since=house.now - 200 * HOUR.ms)
    await house.collect(collected())
    await house.refresh()
    assert "coins_untrained" not in await house.conditions()


@drives("training_overdue")
async def test_a_retrain_that_does_not_come_shows_a_day_after_its_turn_until_one_is_through(house: House) -> None:
    await house.published()
    house.now += 8 * 24 * HOUR.ms
    assert "training_overdue" not in await house.conditions()
    house.now += HOUR.ms
    assert "training_overdue" in await house.conditions()
    await house.train(lambda batch: verdict(batch))
    assert "training_overdue" not in await house.conditions()


@drives("training_failed", "batches_failed", "gate_refused")
async def test_what_became_of_the_last_training_shows_until_another_one_went_better(house: House) -> None:
    await house.published()
    name = house.model("new", 0)
    of_training = {"training_failed", "batches_failed", "gate_refused"}

    async def shown() -> set[str]:
        return of_training & await house.conditions()

    assert await shown() == set()
    await house.train(Failed(job=0, error="there is no candle to train on"))
    assert await shown() == {"training_failed"}
    await house.train(lambda batch: verdict(batch, name) if batch == 1 else BatchFailed(job=0, batch=batch, error="a coin is flat"))
    assert await shown() == {"batches_failed"}
    await house.train(lambda batch: verdict(batch, name) if batch == 1 else verdict(batch))
    assert await shown() == {"gate_refused"}
    await house.train(lambda batch: verdict(batch, name))
    assert await shown() == set()


@drives("model_fallback")
async def test_models_that_lose_to_a_reference_on_most_coins_show_until_better_ones_serve(house: House) -> None:
    await house.published()
    assert "model_fallback" not in await house.conditions()
    beaten, better = house.model("beaten", 2), house.model("better", 0)
    await house.train(lambda batch: verdict(batch, beaten))
    assert "model_fallback" in await house.conditions()
    await house.train(lambda batch: verdict(batch, better))
    assert "model_fallback" not in await house.conditions()


@drives("checkpoint_damaged")
async def test_a_damaged_checkpoint_shows_until_others_serve_in_its_place(house: House) -> None:
    await house.published()
    sound = house.model("sound", 0)
    (model,) = house.service.publisher.models
    weights = house.root / "checkpoints" / model.name / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 0xFF
    weights.write_bytes(content)
    await house.service.publisher.load()
    assert "checkpoint_damaged" in await house.conditions()
    await house.train(lambda batch: verdict(batch, sound))
    assert "checkpoint_damaged" not in await house.conditions()


# How good the forecasts are


LEVELS = np.array([-1.96, -1.645, -1.2816, -0.6745, 0.0, 0.6745, 1.2816, 1.645, 1.96])


def live(house: House, hours: int, width: float, chance: np.random.Generator) -> None:
    """Hours in which the intervals are ``width`` times as wide as the market's moves."""
    assert len(LEVELS) == len(QUANTILE_LEVELS)
    quantiles = np.broadcast_to((0.01 * width * LEVELS).astype(np.float32), (COINS, MAX_HORIZON, len(LEVELS)))
    for _ in range(hours):
        house.now += HOUR.ms
        house.service.drift.mature(HOUR.floor(house.now), quantiles, chance.normal(0, 0.01, (COINS, MAX_HORIZON)))


@drives("drift")
async def test_forecasts_that_cease_to_fit_show_as_drift_until_they_fit_again(house: House) -> None:
    chance = np.random.default_rng(3)
    live(house, 48, 1.0, chance)
    assert "drift" not in await house.conditions()
    live(house, 24, 0.4, chance)
    assert "drift" in await house.conditions()
    live(house, 72, 1.0, chance)
    assert "drift" not in await house.conditions()


@drives("coverage_off")
async def test_intervals_that_are_a_little_too_narrow_for_weeks_show_until_weeks_were_right(house: House) -> None:
    chance = np.random.default_rng(4)
    live(house, 400, 0.85, chance)
    found = await house.conditions()
    assert "coverage_off" in found
    assert "drift" not in found, "no day was so bad that it raised an alarm"
    assert "too narrow" in next(row["text"] for row in house.service.health.findings if row["name"] == "coverage_off")
    live(house, 300, 1.0, chance)
    assert "coverage_off" not in await house.conditions()


# The stores and the machine


@drives("refresh_failed")
async def test_a_refresh_that_a_defect_ended_shows_until_one_is_through(house: House) -> None:
    await house.published()
    house.now += HOUR.ms
    house.write(market().symbols)
    await house.collect(collected())
    candles = house.service.publisher._candles

    def broken(symbols: tuple[str, ...], start: int, cutoff: int) -> Panel:
        raise ZeroDivisionError("one by none")

    house.service.publisher._candles = broken
    await house.refresh()
    assert "refresh_failed" in await house.conditions()
    house.service.publisher._candles = candles
    await house.refresh()
    assert "refresh_failed" not in await house.conditions()


@drives("store_failed")
async def test_a_store_that_cannot_be_written_shows_until_it_can(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    await house.published()
    house.now += HOUR.ms
    house.write(market().symbols)
    await house.collect(collected())

    def full(*_: Any) -> int:
        raise StoreError("the ledger is on a full disk")

    with monkeypatch.context() as broken:
        broken.setattr(house.service.ledger, "append", full)
        await house.refresh()
        assert "store_failed" in await house.conditions()
    await house.refresh()
    assert "store_failed" not in await house.conditions()


@drives("store_damaged")
async def test_a_damaged_store_shows_until_the_next_start(tmp_path: Path) -> None:
    async def start() -> set[str]:
        async with contextlib.AsyncExitStack() as stack:
            return await (await House(tmp_path).open(stack)).conditions()

    assert "store_damaged" not in await start()
    data = tmp_path / "serving" / "data.mdb"
    data.write_bytes(b"\xff" * data.stat().st_size)
    assert "store_damaged" in await start()
    assert "store_damaged" not in await start()


@drives("disk_low")
async def test_a_disk_that_fills_up_shows_until_there_is_room(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(house.root)
    with monkeypatch.context() as full:
        full.setattr("shutil.disk_usage", lambda path: usage._replace(total=10_000 * MIB, free=100 * MIB))
        await house.service._read_resources()
        assert "disk_low" in await house.conditions()
    with monkeypatch.context() as roomy:
        roomy.setattr("shutil.disk_usage", lambda path: usage._replace(total=10_000 * MIB, free=5_000 * MIB))
        await house.service._read_resources()
        assert "disk_low" not in await house.conditions()


@drives("memory_near_limit")
async def test_memory_near_its_limit_shows_after_a_minute_until_there_is_room(house: House) -> None:
    await house.service._read_resources()
    meter, used = house.service._meter, house.service.resources.pss_total
    assert meter is not None
    meter._limit = int(used * 1.05)
    await house.service._read_resources()
    assert "memory_near_limit" not in await house.conditions(later=59)
    assert "memory_near_limit" in await house.conditions(later=1)
    meter._limit = 4 * used
    await house.service._read_resources()
    assert "memory_near_limit" not in await house.conditions()


@drives("clock_wrong")
async def test_a_clock_that_is_not_the_exchange_s_shows_until_the_two_agree(house: House) -> None:
    await house.collect(collected(skew_ms=-2 * HOUR.ms))
    assert "clock_wrong" in await house.conditions()
    await house.collect(collected())
    assert "clock_wrong" not in await house.conditions()


@drives("clock_stepped")
async def test_a_clock_that_somebody_stepped_shows_for_an_hour(house: House) -> None:
    wall = [1000.0, 1000.0]  # what somebody may step, and what nobody can
    house.service.steps = StepWatch(lambda: wall[0], lambda: wall[1])
    assert not house.service.steps.stepped()
    wall[0] += 86_400
    assert house.service.steps.stepped()
    assert "clock_stepped" in await house.conditions()
    wall[0], wall[1] = wall[0] + STEP_SHOWN + 1, wall[1] + STEP_SHOWN + 1
    assert not house.service.steps.stepped()
    assert "clock_stepped" not in await house.conditions()


@drives("clock_was_ahead")
async def test_what_is_of_a_time_that_has_not_come_is_set_aside_and_made_anew(house: House) -> None:
    await house.published()
    true, publisher, symbol = HOUR.floor(house.now), house.service.publisher, market().symbols[0]
    before, learned = publisher.models[0].name, house.service.scoring.learned_to
    house.now += 3 * 24 * HOUR.ms  # this machine's clock, and the exchange's
    await house.published()
    ahead = HOUR.floor(house.now)
    future = replace(publisher.models[0], name="future", kind="full", cutoff=ahead)
    write_checkpoint(house.root / "checkpoints", "future", future.arrays(), future.document(), created=house.now)
    await house.train(lambda batch: verdict(batch, promote="future") if batch == 1 else verdict(batch))
    await house.refresh()
    assert publisher.models[-1].cutoff == publisher.published_to == ahead
    issued = house.service.ledger.keys(true + 1, ahead + 1)
    assert issued
    assert "clock_was_ahead" not in await house.conditions()

    house.now -= 3 * 24 * HOUR.ms
    assert publisher.cached(symbol, house.now) is None
    assert publisher.top(5, "score", 24, market().symbols, house.now) == []
    with pytest.raises(RequestError, match="a time that has not come"):
        await publisher.on_demand(symbol, house.now)
    with CandleStore.open(house.root / "candles", writer=True) as store:
        assert store.drop_after(true) == COINS
    await house.collect(collected(dropped=True))
    assert "clock_was_ahead" in await house.conditions()
    assert [model.name for model in publisher.models] == [before]
    assert house.service.ledger.keys(true + 1, ahead + 1) == []
    assert house.service.ledger.last() is not None
    assert house.service.scoring.learned_to == learned
    assert [job.kind for job in house.service.training.queue] == ["full"]
    await house.refresh()
    entry = await publisher.on_demand(symbol, house.now)
    assert (entry.cutoff, entry.issued) == (true, house.now)
    assert publisher.stale_reason(entry, house.now) is None
    assert publisher.published_to == true

    house.now += 3 * 24 * HOUR.ms  # now that time has come
    house.seconds += STEP_SHOWN
    await house.published()
    again = house.service.ledger.keys(true + 1, ahead + 1)
    assert again
    assert not set(again) & set(issued)
    assert house.service.scoring.learned_to == ahead
    assert "clock_was_ahead" not in await house.conditions()


async def test_a_clock_that_alone_was_ahead_leaves_no_forecast_made_in_the_future(house: House) -> None:
    days = 3 * 24 * HOUR.ms
    await house.published()
    true, symbol, publisher = HOUR.floor(house.now), market().symbols[0], house.service.publisher
    house.now += days
    await house.collect(collected(skew_ms=-days))
    await publisher.clear(None)
    entry = await publisher.on_demand(symbol, house.now)
    assert (entry.cutoff, entry.issued) == (true, house.now)
    house.now -= days
    await house.collect(collected())
    assert publisher.cached(symbol, house.now) is None
    await house.refresh()
    entry = await publisher.on_demand(symbol, house.now)
    assert (entry.cutoff, entry.issued) == (true, house.now)
    assert "clock_was_ahead" in await house.conditions()


async def test_an_exchange_whose_clock_alone_is_ahead_is_not_believed(house: House) -> None:
    await house.published()
    before = house.service.publisher.published_to
    await house.collect(collected(skew_ms=3 * 24 * HOUR.ms))
    await house.refresh()
    assert house.service.publisher.published_to == before == house.service.collection.collected_to
    assert "clock_wrong" in await house.conditions()


async def test_a_daemon_that_was_stopped_while_the_clock_was_ahead_sets_it_aside_at_its_next_start(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        house = await House(tmp_path).open(stack)
        house.now += 3 * 24 * HOUR.ms
        await house.published()
        assert house.service.publisher.models[0].cutoff == HOUR.floor(house.now)
    async with contextlib.AsyncExitStack() as stack:
        house = await House(tmp_path).open(stack)
        publisher, true = house.service.publisher, HOUR.floor(house.now)
        assert publisher.cached(market().symbols[0], house.now) is None
        with CandleStore.open(tmp_path / "candles", writer=True) as store:
            assert store.drop_after(true) == COINS
        await house.collect(collected(dropped=True))
        assert publisher.serving() == {}
        await house.refresh()
        assert [model.cutoff for model in publisher.models] == [true]
        assert publisher.published_to == true
        assert (await publisher.on_demand(market().symbols[0], house.now)).cutoff == true


async def test_an_exchange_that_lags_or_a_clock_that_was_set_back_takes_nothing_back(house: House) -> None:
    await house.published()
    before = house.service.publisher.published_to
    await house.collect(collected(skew_ms=-2 * HOUR.ms))
    assert house.service.publisher.published_to == before
    house.now -= 3 * 24 * HOUR.ms
    await house.collect(collected(skew_ms=3 * 24 * HOUR.ms))
    assert house.service.publisher.published_to == before
    assert "clock_wrong" in await house.conditions()
    assert "clock_was_ahead" not in await house.conditions()


async def test_a_training_in_which_the_clock_was_stepped_promotes_nothing_and_is_made_again(house: House) -> None:
    await house.published()
    service, before = house.service, house.service.publisher.models
    job = service.enqueue("full", "asked for")

    def trained(batch: int) -> Report:
        if batch == 1:
            service.training.start_over(job, house.now, "the clock was stepped meanwhile")
        return verdict(batch, promote=house.model(f"new-{batch}", 0))

    house.trained = trained
    await service._train(job)
    assert service.publisher.models == before
    assert job.state == "cancelled"
    assert [(other.kind, other.reason) for other in service.training.queue] == [
        ("full", f"job {job.id} was cancelled: the clock was stepped meanwhile")
    ]


# The table and its page


def test_every_condition_of_the_table_is_driven_into_being_and_out_again() -> None:
    assert sorted(row.name for row in CONDITIONS if row.name not in DRIVEN) == []


def test_the_page_on_health_has_the_table_s_names_severities_delays_and_remedies() -> None:
    told = [
        tuple(cell.strip() for cell in line.strip("|\n ").split(" | "))
        for line in PAGE.read_text().splitlines()
        if re.match(r"\| `\w+` \|", line)
    ]
    assert {len(row) for row in told} == {6}
    delays = {0: "at once", 60: "1 min", 300: "5 min", 600: "10 min"}
    expected = [(f"`{row.name}`", row.severity, delays[int(row.after)], row.remedy) for row in CONDITIONS]
    assert [(name, severity, after, remedy) for name, severity, _, after, _, remedy in told] == expected


def test_severity_decides_the_exit_code_of_cryptoctl_health() -> None:

    from ctl.main import HEALTH_CODES

    assert {row.severity for row in CONDITIONS} | {"ok"} == set(HEALTH_CODES)
    assert [HEALTH_CODES[name] for name in ("ok", "warning", "error")] == [0, 1, 2]
