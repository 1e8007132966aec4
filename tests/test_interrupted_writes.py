"""Every write, sync and rename of every store: cut off there, or refused there by the disk.

What was acknowledged is there afterwards, nothing is there by half, the store opens, and takes what comes next; a refusal is an error that
names a remedy, and when the disk takes writes again, so does the store, without being opened anew.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cryptod.daemon import statedir
from cryptod.errors import CryptodError
from cryptod.ingest import collector
from cryptod.market import CANDLE, HOUR, NOT_FETCHED, Float64, Int64
from cryptod.store.candles import WEEK, WEEK_MS, CandleStore, Fetched
from cryptod.store.checkpoints import CheckpointStore, read_checkpoint, write_checkpoint
from cryptod.store.environment import Environment, Transaction, open_environment
from cryptod.store.forecasts import Entry, ForecastCache
from cryptod.store.jobs import JobStore
from cryptod.store.ledger import Issue, Ledger, round_issue
from tests.cuts import every_cut, every_refusal

MONDAY = 2_800 * WEEK_MS
COINS = ("BTC/USDT", "ETH/USDT")
Step = Callable[[], object]


class Scenario:
    """Something that is done to a folder in steps, each of which is acknowledged when it returns."""

    def prepare(self, place: Path) -> None:
        """What stands there before."""

    def steps(self, place: Path) -> Iterator[Step]:
        """A step that was refused is called again."""
        raise NotImplementedError

    def check(self, place: Path, acknowledged: int) -> None:
        """Opens what is there and takes the next thing, too. One step more than was acknowledged may have been carried out."""
        raise NotImplementedError


def prices(symbol: str, times: Int64) -> Float64:
    """What the candles of these hours hold."""
    return np.stack([times / HOUR.ms + len(symbol) + column for column in range(5)], axis=1)


class Candles(Scenario):
    def prepare(self, place: Path) -> None:
        with CandleStore.open(place / "candles", writer=True) as store:
            store.apply([self._fetched(symbol, 0, WEEK) for symbol in COINS])

    @staticmethod
    def _fetched(symbol: str, first: int, last: int) -> Fetched:
        times = MONDAY + HOUR.ms * np.arange(first, last, dtype=np.int64)
        return Fetched(symbol, times, prices(symbol, times))

    def steps(self, place: Path) -> Iterator[Step]:
        opened: list[CandleStore] = []
        yield lambda: opened.append(CandleStore.open(place / "candles", writer=True))
        store = opened[0]
        yield lambda: store.apply([self._fetched(symbol, WEEK, 2 * WEEK + 5) for symbol in COINS])
        yield lambda: store.set_facts("listed", {"BTC/USDT": [1, 2]})
        yield lambda: store.drop_before(MONDAY + WEEK_MS)

    def check(self, place: Path, acknowledged: int) -> None:
        with CandleStore.open(place / "candles", writer=True) as store:
            panel = store.panel(COINS, MONDAY, MONDAY + 3 * WEEK_MS)
            for column, symbol in enumerate(COINS):
                known = panel.status[:, column] == CANDLE
                assert np.array_equal(panel.values[known, column], prices(symbol, panel.open_times[known]))
            counts = (panel.status[:WEEK] != NOT_FETCHED).sum(), (panel.status[WEEK:] != NOT_FETCHED).sum()
            assert counts[0] in ((2 * WEEK,) if acknowledged < 3 else (2 * WEEK, 0) if acknowledged < 4 else (0,))
            assert counts[1] in ((0, 2 * WEEK + 10) if acknowledged < 2 else (2 * WEEK + 10,))
            assert acknowledged < 3 or store.facts("listed") == {"BTC/USDT": [1, 2]}
            store.apply([self._fetched("BTC/USDT", 3 * WEEK, 3 * WEEK + 1)])
            assert store.gaps("BTC/USDT", MONDAY + 3 * WEEK_MS, MONDAY + 3 * WEEK_MS + HOUR.ms) == []


def issue(hour: int) -> Issue:
    figures = round_issue(np.random.default_rng(hour).normal(size=(2, 24, 9)) * 0.01)
    return Issue(
        issued=MONDAY + hour * HOUR.ms + 5, cutoff=MONDAY + hour * HOUR.ms, symbols=COINS, models=("m", "m"), close=np.array([1.5, 2.5]),
        quantiles=np.sort(figures, axis=2), p_up=figures[:, :, 0], volatility=figures[:, :, 1],
    )  # fmt: skip


def entry(symbol: str, hour: int) -> Entry:
    column = np.full(24, hour, np.float32)
    at = MONDAY + hour * HOUR.ms
    return Entry(symbol, at, at + 5, at + HOUR.ms, "m", bytes([hour]) * 3000, 1.5, 0.1, column, column, column)


class Serving(Scenario):
    """Ledger, forecast cache and jobs, which share an environment, as the daemon opens it."""

    def prepare(self, place: Path) -> None:
        environment, _ = statedir.open_serving(place / "serving", 1)
        with environment:
            Ledger(environment).append(issue(0))
            ForecastCache(environment).put([entry(symbol, 0) for symbol in COINS])

    def steps(self, place: Path) -> Iterator[Step]:
        opened: list[Environment] = []
        yield lambda: opened.append(statedir.open_serving(place / "serving", 2)[0])
        cache, issued, kept = ForecastCache(opened[0]), Ledger(opened[0]), JobStore(opened[0])
        yield lambda: issued.append(issue(1), {"har": issue(1).quantiles})
        yield lambda: cache.put([entry(symbol, 1) for symbol in COINS])
        yield lambda: kept.save({"id": 1, "state": "done"})
        yield lambda: kept.set("published", {"cutoff": 7})
        yield lambda: issued.prune(MONDAY + HOUR.ms)

    def check(self, place: Path, acknowledged: int) -> None:
        environment, damaged = statedir.open_serving(place / "serving", 3)
        assert damaged == ""
        with environment:
            issued, cache, kept = Ledger(environment), ForecastCache(environment), JobStore(environment)
            hours = [(found.cutoff - MONDAY) // HOUR.ms for found in issued.read(0, 1 << 60)]
            assert hours in ([[0], [0, 1]] if acknowledged < 2 else [[0, 1]] if acknowledged < 5 else [[0, 1], [1]])
            assert acknowledged < 6 or hours == [1]
            for found in issued.read(0, 1 << 60):
                assert found.quantiles.tobytes() == issue(int((found.cutoff - MONDAY) // HOUR.ms)).quantiles.tobytes()
            entries = [cache.last(symbol) for symbol in COINS]
            bodies = {found.body[:1] for found in entries if found is not None}
            assert len(bodies) == 1, "all of a refresh or nothing"
            assert acknowledged < 3 or bodies == {b"\1"}
            assert acknowledged < 4 or kept.job(1) == {"id": 1, "state": "done"}
            assert acknowledged < 5 or kept.get("published") == {"cutoff": 7}
            assert (issued.damaged, kept.damaged, cache.stats()["damaged"]) == (0, 0, 0)
            assert issued.append(issue(2)) == len({0, *hours}) + 1


class Upgrade(Scenario):
    """An older store that its writer upgrades when it opens it."""

    def prepare(self, place: Path) -> None:
        with open_environment(place / "env", databases=["a"], writer=True, schema=1) as environment:
            environment.write(lambda txn: [txn.put("a", b"%03d" % number, b"old" * 30) for number in range(300)])  # type: ignore[func-returns-value]

    @staticmethod
    def _open(place: Path) -> Environment:
        def upgrade(txn: Transaction) -> None:
            for key, value in list(txn.scan("a")):
                txn.put("a", key, value.replace(b"old", b"young"))

        return open_environment(place / "env", databases=["a", "b"], writer=True, schema=2, upgrades={1: upgrade})

    def steps(self, place: Path) -> Iterator[Step]:
        yield lambda: self._open(place)

    def check(self, place: Path, acknowledged: int) -> None:
        if acknowledged:  # it is of the new schema on disk, not only for who upgraded it
            open_environment(place / "env", databases=["a", "b"], writer=False, schema=2).close()
        with self._open(place) as environment, environment.read() as txn:
            assert [value for _, value in txn.scan("a")] == [b"young" * 30] * 300


class PutAside(Scenario):
    """Damaged stores that are put aside and begun anew: those of the daemon, and of the collector."""

    def prepare(self, place: Path) -> None:
        for name in ("serving", "candles"):
            (place / name).mkdir(parents=True)
            (place / name / "data.mdb").write_bytes(b"\xff" * 40_960)
        (place / "candles" / "damaged").mkdir()
        (place / "candles" / "damaged" / "data.mdb").write_bytes(b"of the last time")

    def steps(self, place: Path) -> Iterator[Step]:
        yield lambda: statedir.open_serving(place / "serving", 5)
        yield lambda: collector._opened(place / "candles")

    def check(self, place: Path, acknowledged: int) -> None:
        environment, _ = statedir.open_serving(place / "serving", 6)
        with environment:
            assert Ledger(environment).append(issue(1)) == 1
        with collector._opened(place / "candles") as store:
            store.apply([Candles._fetched("BTC/USDT", 0, 1)])
        found = [path for path in place.glob("serving.damaged-*/data.mdb") if path.read_bytes() == b"\xff" * 40_960]
        assert len(found) == 1, "a damaged ledger is never deleted"


class Checkpoints(Scenario):
    def prepare(self, place: Path) -> None:
        self._write(place, "a", 1.0)
        CheckpointStore(place / "checkpoints").promote(["a"], 1)

    @staticmethod
    def _write(place: Path, name: str, value: float) -> str:
        weights = {"weight": np.full((3, 4), value, np.float32)}
        return write_checkpoint(place / "checkpoints", name, weights, {"symbols": list(COINS)}, created=1).name

    def steps(self, place: Path) -> Iterator[Step]:
        store = CheckpointStore(place / "checkpoints")
        names: list[str] = []
        yield lambda: names.append(self._write(place, "b", 2.0))
        yield lambda: store.promote(names, 2)

    def check(self, place: Path, acknowledged: int) -> None:
        store = CheckpointStore(place / "checkpoints")
        current = store.load_current()
        assert current.refused == {}
        assert (current.names == ("a",)) == (current.generation == 1)
        assert acknowledged != 0 or current.generation == 1
        assert acknowledged != 2 or current.generation > 1
        [checkpoint] = current.checkpoints
        assert np.all(checkpoint.arrays["weight"] == {"a": 1.0, "b": 2.0}[checkpoint.name[0]])
        for path in (place / "checkpoints").iterdir():
            if path.is_dir() and path.name != "manifests" and not path.name.startswith(".tmp-"):
                read_checkpoint(place / "checkpoints", path.name)
        assert store.promote([self._write(place, "c", 3.0)], 9).names == ("c",)


SCENARIOS = {scenario.__name__: scenario() for scenario in (Candles, Serving, Upgrade, PutAside, Checkpoints)}


class Stage:
    """Does a scenario in a child and knows how far it came."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario, self.folder = scenario, folder
        self.place = folder / "place"
        (folder / "before").mkdir()
        scenario.prepare(folder / "before")

    def reset(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.folder / "before", self.place)
        self._reading, self._writing = os.pipe()

    def work(self) -> None:
        """In the child. Each step has two attempts; an error must be one of ours, with something to do about it."""
        for step in self.scenario.steps(self.place):
            for attempt in range(2):
                try:
                    step()
                except CryptodError as error:
                    if not error.hint:
                        raise
                    if attempt:
                        return
                else:
                    os.write(self._writing, b".")
                    break

    def check(self) -> int:
        """Returns how many steps were acknowledged."""
        os.close(self._writing)
        acknowledged = len(os.read(self._reading, 100))
        os.close(self._reading)
        self.scenario.check(self.place, acknowledged)
        return acknowledged


@pytest.fixture(params=SCENARIOS)
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Stage:
    return Stage(SCENARIOS[request.param], tmp_path)


def test_cut_off_at_any_write_what_was_acknowledged_is_there_and_nothing_by_half(stage: Stage) -> None:
    stage.reset()
    reached = set()
    for _ in every_cut(stage.work):
        reached.add(stage.check())
        stage.reset()
    assert reached == set(range(max(reached) + 1)), "it was cut off in every step"


def test_refused_one_write_whichever_it_is_the_next_attempt_succeeds(stage: Stage) -> None:
    stage.reset()
    reached = set()
    for _ in every_refusal(stage.work, errno.EIO, for_good=False):
        reached.add(stage.check())
        stage.reset()
    assert len(reached) == 1, "every step was carried out in the end, whatever was refused"


def test_refused_all_writes_from_any_on_nothing_is_lost_and_the_reason_is_said(stage: Stage) -> None:
    stage.reset()
    reached = set()
    for _ in every_refusal(stage.work, errno.ENOSPC, for_good=True):
        reached.add(stage.check())
        stage.reset()
    assert reached >= {0, 1}
