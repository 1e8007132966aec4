"""The state directory when its disk is full, read-only or damaged, or when an older cryptod has left it."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgpack
import pytest

from cryptod.daemon import statedir
from cryptod.errors import ConfigError, StoreError
from cryptod.store import forecasts, jobs
from cryptod.store.environment import open_environment
from cryptod.store.forecasts import ForecastCache
from cryptod.store.jobs import JobStore
from cryptod.store.ledger import DATABASES, Ledger
from cryptod.store.record import framed
from tests.disks import read_only, small_disk
from tests.test_interrupted_writes import COINS, entry, issue

PAGE = 4096


@pytest.fixture
async def stack() -> AsyncIterator[contextlib.AsyncExitStack]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


async def test_on_a_full_disk_the_directory_is_taken_all_the_same(tmp_path: Path, stack: contextlib.AsyncExitStack) -> None:
    """Only the process id cannot be written down, which is for people who look."""
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / "state").mkdir()
        (disk / "state" / "lock").touch()
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(PAGE))
        statedir.lock(disk / "state", stack, 12_345)
        with pytest.raises(ConfigError, match=r"another cryptod \(process unknown\)"):
            statedir.lock(disk / "state", stack, 7)


async def test_a_read_only_directory_is_refused_with_what_to_do(tmp_path: Path, stack: contextlib.AsyncExitStack) -> None:
    (tmp_path / "state").mkdir()
    with read_only(tmp_path / "state"), pytest.raises(StoreError, match="Read-only file system") as caught:
        statedir.lock(tmp_path / "state", stack, 7)
    assert "mount it read-write" in caught.value.hint


# Damage

OPENED = """
import sys
from pathlib import Path
from cryptod.daemon import statedir
from cryptod.store.forecasts import ForecastCache
from cryptod.store.jobs import JobStore
from cryptod.store.ledger import Ledger
from tests.test_interrupted_writes import COINS, entry, issue

for place in map(Path, sys.argv[1:]):
    environment, damaged = statedir.open_serving(place / "serving", 5)
    with environment:
        ledger, cache, kept = Ledger(environment), ForecastCache(environment), JobStore(environment)
        found = {found.cutoff: found.quantiles.tobytes() for found in ledger.read(0, 1 << 60)}
        assert all(found[one.cutoff] == one.quantiles.tobytes() for one in map(issue, range(3)) if one.cutoff in found), "wrong figures"
        kept.get("published"), kept.list(), ledger.stats(), ledger.scores_mark()
        ledger.append(issue(9))
        cache.put([entry(symbol, 9) for symbol in COINS])
        kept.save({"id": 1})
    aside = len(list(place.glob("serving.damaged-*")))
    assert bool(damaged) == bool(aside)
    print("put aside" if aside else "whole" if len(found) == 3 else "records lost", flush=True)
"""


def test_whichever_page_of_the_serving_store_is_damaged_nothing_wrong_is_read_and_it_is_written_on(tmp_path: Path) -> None:
    """By noise, by zeros, by another page, and by the end of the file; LMDB itself would end the process over many of these."""
    path = tmp_path / "serving"
    environment, _ = statedir.open_serving(path, 1)
    with environment:
        for hour in range(3):
            Ledger(environment).append(issue(hour), {"har": issue(hour).quantiles})
        ForecastCache(environment).put([entry(symbol, 1) for symbol in COINS])
        JobStore(environment).set("published", {"cutoff": 7})
    whole = (path / "data.mdb").read_bytes()
    noise = random.Random(7)
    places = []
    for page in range(len(whole) // PAGE):
        other = whole[noise.randrange(len(whole) // PAGE) * PAGE :][:PAGE]
        for kind, data in enumerate((noise.randbytes(PAGE), bytes(PAGE), other, None)):
            place = tmp_path / f"{page}-{kind}"
            (place / "serving").mkdir(parents=True)
            head = whole[: page * PAGE]
            (place / "serving" / "data.mdb").write_bytes(head if data is None else head + data + whole[(page + 1) * PAGE :])
            places.append(place)
    done = subprocess.run([sys.executable, "-c", OPENED, *places], capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    said = done.stdout.splitlines()
    assert done.returncode == 0, f"{places[len(said)].name}: {done.returncode} {done.stderr[-2000:]}"
    assert len(said) == len(places)
    assert {"put aside", "whole"} <= set(said)


# An older cryptod's

OLD_SYMBOLS = ("BTC/USDT", "ETH/USDT")


def write_as_before(path: Path) -> None:
    """The serving store as it was before the ledger knew what is not scored, and with the first form of a cached forecast."""
    databases = (*forecasts.DATABASES, *jobs.DATABASES, *(name for name in DATABASES if name != "unscored"))
    with open_environment(path, databases=databases, writer=True) as environment:
        body = msgpack.packb((1, 2, 1 << 50, "m", b"\x81\xa1a\x01", 1.5, 0.1, b"", b"", b""))
        environment.write(lambda txn: [txn.put("forecasts", s.encode(), framed(1, body, s.encode())) for s in OLD_SYMBOLS])  # type: ignore[func-returns-value]
    with open_environment(path, databases=(*databases, "unscored"), writer=True) as environment:
        Ledger(environment).append(issue(0))
        JobStore(environment).set("published", {"cutoff": 7})
        environment.write(lambda txn: txn.clear("unscored"))


def test_the_store_of_an_older_cryptod_keeps_its_ledger_and_what_it_cached_is_made_anew(tmp_path: Path) -> None:
    write_as_before(tmp_path / "serving")
    environment, damaged = statedir.open_serving(tmp_path / "serving", 5)
    with environment:
        ledger, cache = Ledger(environment), ForecastCache(environment)
        assert damaged == ""
        assert [found.cutoff for found in ledger.read(0, 1 << 60)] == [issue(0).cutoff]
        assert ledger.unscored(0, 1 << 60) == [(issue(0).cutoff, 1)], "it will be scored"
        assert JobStore(environment).get("published") == {"cutoff": 7}
        assert len(cache) == 0
        cache.put([entry(symbol, 1) for symbol in COINS])
    environment, _ = statedir.open_serving(tmp_path / "serving", 6)
    with environment:
        assert len(ForecastCache(environment)) == 2


def test_a_store_of_a_newer_cryptod_is_left_alone(tmp_path: Path) -> None:
    with open_environment(tmp_path / "serving", databases=["issues"], writer=True, schema=99):
        pass
    before = (tmp_path / "serving" / "data.mdb").read_bytes()
    with pytest.raises(StoreError, match="written by a newer cryptod") as caught:
        statedir.open_serving(tmp_path / "serving", 5)
    assert "install that version again" in caught.value.hint
    assert os.listdir(tmp_path) == ["serving"]
    assert (tmp_path / "serving" / "data.mdb").read_bytes() == before
