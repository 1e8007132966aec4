"""The state directory when its disk is full, read-only or damaged, when an older cryptod has left it, or another market's daemon."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgpack
import pytest

from cryptod.daemon import statedir
from cryptod.errors import ConfigError, DamagedError, StoreError
from cryptod.store import environment, forecasts, jobs
from cryptod.store.candles import CandleStore
from cryptod.store.environment import open_environment
from cryptod.store.forecasts import ForecastCache
from cryptod.store.jobs import JobStore
from cryptod.store.ledger import DATABASES, Ledger
from cryptod.store.record import framed
from cryptod.worker.messages import market, market_name
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


# Another market's

BINANCE, KRAKEN = market("binance", "", "USDT"), market("kraken", "", "EUR")
SWAPS = market("binance", "", "USDT", "swap")


def fill(root: Path, word: str) -> None:
    """What a market's daemon leaves, each part with a word in it."""
    for part in ("serving", "candles", "checkpoints", "serving.damaged-5"):
        (root / part).mkdir(parents=True)
        (root / part / "data.mdb").write_text(f"{word} {part}")
    (root / "lock").write_text("1")
    (root / "run").mkdir(exist_ok=True)


def words(root: Path) -> set[str]:
    """Whose parts lie in a folder, and that they are whole."""
    found = [path.read_text() for path in sorted(root.glob("*/data.mdb"))]
    assert len(found) in (0, 4), found
    return {text.split()[0] for text in found}


def test_another_markets_state_is_set_aside_and_comes_back_when_the_setting_goes_back(tmp_path: Path) -> None:
    assert statedir.settle(tmp_path, BINANCE) == ("binance-spot-USDT", "binance-spot-USDT", False, ())
    fill(tmp_path, "binance")
    assert statedir.settle(tmp_path, KRAKEN) == ("kraken-spot-EUR", "binance-spot-USDT", False, ("binance-spot-USDT",))
    assert (words(tmp_path), words(tmp_path / "others/binance-spot-USDT")) == (set(), {"binance"})
    (tmp_path / "lock").unlink()
    fill(tmp_path, "kraken")
    assert statedir.settle(tmp_path, KRAKEN).was == "kraken-spot-EUR"
    assert statedir.settle(tmp_path, BINANCE) == ("binance-spot-USDT", "kraken-spot-EUR", True, ("kraken-spot-EUR",))
    assert (words(tmp_path), words(tmp_path / "others/kraken-spot-EUR")) == ({"binance"}, {"kraken"})
    assert sorted(os.listdir(tmp_path / "others")) == ["kraken-spot-EUR"]
    assert {"lock", "run"} <= set(os.listdir(tmp_path)), "these belong to the daemon, whatever its market"


def test_exchange_quote_url_and_kind_of_market_make_a_market(tmp_path: Path) -> None:
    others = BINANCE, SWAPS, KRAKEN, market("binance", "http://127.0.0.1:8099", "USDT"), market("binance", "", "EUR")
    assert [market_name(one) for one in others] == [
        "binance-spot-USDT", "binance-swap-USDT", "kraken-spot-EUR", "binance-spot-USDT-url", "binance-spot-EUR",
    ]  # fmt: skip
    assert market("binance", "http://127.0.0.1:1", "USDT") == market("binance", "http://127.0.0.1:2", "USDT")
    for number, one in enumerate(others):
        statedir.settle(tmp_path, one)
        fill(tmp_path, str(number))
        (tmp_path / "lock").unlink()
    for number, one in enumerate(others):
        statedir.settle(tmp_path, one)
        assert words(tmp_path) == {str(number)}


def test_a_name_that_is_no_folders_name_stays_inside_the_state_directory(tmp_path: Path) -> None:
    for strange in ("../../etc", "a/b", "..", "x y\n"):
        name = market_name(market("binance", "", strange))
        assert "/" not in name
        assert name not in (".", "..")


class Killed(Exception):
    """The daemon ends here."""


@pytest.mark.parametrize("back", [False, True])
def test_a_kill_between_any_two_steps_of_the_change_is_made_good_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, back: bool
) -> None:
    """Also when the setting went back meanwhile, and when nothing said before whose the state was but its candles."""
    rename: Callable[..., Any] = os.rename
    replace: Callable[..., Any] = os.replace
    for recorded in (True, False):
        for steps in range(40):
            root = tmp_path / f"{recorded}-{steps}"
            fill(root, "binance")
            (root / "candles/data.mdb").unlink()
            with CandleStore.open(root / "candles", writer=True) as store:
                store.set_facts("universe", {"exchange": "binance", "simulated": False, "quote": "USDT", "symbols": []})
            fill(root / "others/kraken-spot-EUR", "kraken")
            if recorded:
                statedir.settle(root, BINANCE)
            left = steps

            def counted(call: Callable[..., Any]) -> Callable[..., Any]:
                def step(*arguments: Any, **options: Any) -> Any:
                    nonlocal left
                    left -= 1
                    if left < 0:
                        raise Killed
                    return call(*arguments, **options)

                return step

            with monkeypatch.context() as patch:
                patch.setattr(os, "rename", counted(rename))
                patch.setattr(os, "replace", counted(replace))
                with contextlib.suppress(Killed):
                    statedir.settle(root, KRAKEN)
            ended = left >= 0
            statedir.settle(root, BINANCE if back else KRAKEN)
            here, there = ("binance", "kraken") if back else ("kraken", "binance")
            assert (root / "serving/data.mdb").read_text() == f"{here} serving"
            other = root / "others" / ("kraken-spot-EUR" if back else "binance-spot-USDT")
            assert (other / "serving/data.mdb").read_text() == f"{there} serving"
            for folder in (root, other):
                assert {"serving", "candles", "checkpoints", "serving.damaged-5"} <= set(os.listdir(folder))
            if ended:
                break
        assert steps == (9 if recorded else 10), "eight renames and each record"


@pytest.mark.parametrize("told_by", ["candles", "serving"])
def test_the_state_of_an_earlier_version_belongs_to_the_market_that_it_names(tmp_path: Path, told_by: str) -> None:
    if told_by == "candles":
        with CandleStore.open(tmp_path / "candles", writer=True) as store:
            store.set_facts("universe", {"exchange": "binance", "simulated": True, "quote": "USDT", "symbols": ["BTC/USDT"]})
    else:
        environment, _ = statedir.open_serving(tmp_path / "serving", 1)
        with environment:
            JobStore(environment).set("universe", {"market": ["binance", True, "USDT"], "followed": ["BTC/USDT"]})
    simulated = market("binance", "http://127.0.0.1:8099", "USDT")
    assert statedir.settle(tmp_path, simulated) == (market_name(simulated), market_name(simulated), False, ())
    assert (tmp_path / told_by).is_dir(), "an upgrade keeps the present state"
    (tmp_path / "market.json").unlink()
    assert statedir.settle(tmp_path, BINANCE).others == ("binance-spot-USDT-url",)


def test_a_state_that_names_no_market_belongs_to_the_configured_one(tmp_path: Path) -> None:
    fill(tmp_path, "unknown")
    (tmp_path / "market.json").write_text("{")
    assert statedir.settle(tmp_path, KRAKEN) == ("kraken-spot-EUR", "kraken-spot-EUR", False, ())
    assert words(tmp_path) == {"unknown"}
    assert json.loads((tmp_path / "market.json").read_text()) == KRAKEN


def test_nothing_is_overwritten_by_what_is_set_aside(tmp_path: Path) -> None:
    fill(tmp_path, "binance")
    statedir.settle(tmp_path, BINANCE)
    fill(tmp_path / "others/binance-spot-USDT", "older")
    with pytest.raises(StoreError, match="are of one market") as caught:
        statedir.settle(tmp_path, KRAKEN)
    assert "move the one away" in caught.value.hint
    assert (words(tmp_path), words(tmp_path / "others/binance-spot-USDT")) == ({"binance"}, {"older"})


def test_on_a_full_disk_a_state_is_not_given_to_a_market_without_writing_it_down(tmp_path: Path) -> None:
    """With nothing to change the daemon starts all the same."""
    with small_disk(tmp_path / "disk", "256k") as disk:
        fill(disk, "binance")
        statedir.settle(disk, BINANCE)
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(PAGE))
        assert statedir.settle(disk, BINANCE).was == "binance-spot-USDT"
        with pytest.raises(StoreError, match="No space left") as caught:
            statedir.settle(disk, KRAKEN)
        assert "free some space" in caught.value.hint
        (disk / "ballast").unlink()
        assert statedir.settle(disk, KRAKEN).others == ("binance-spot-USDT",)


@pytest.mark.parametrize(("kind", "refused"), [("nfs4", True), ("cifs", True), ("fuse.sshfs", True), ("ext4", False), ("9p", False)])
def test_a_state_directory_on_a_network_s_file_system_is_refused(tmp_path: Path, kind: str, refused: bool) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "20 1 0:4294967 / /elsewhere rw - nfs4 server:/other rw\n"
        f"36 35 {os.major(device)}:{os.minor(device)} / /srv/state rw,noatime shared:1 - {kind} server:/exported rw\n"
    )
    if refused:
        with pytest.raises(ConfigError, match=rf"lies on /srv/state, a file system of a network \({kind}\)"):
            statedir.refuse_network(tmp_path, mounts)
    else:
        statedir.refuse_network(tmp_path, mounts)


def test_each_folder_of_a_first_start_is_on_disk_and_so_is_what_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    for module in (statedir, environment):
        monkeypatch.setattr(module, "sync_folder", lambda path: synced.append(path))
    root = tmp_path / "var" / "state"
    with contextlib.ExitStack() as stack:
        statedir.lock(root, stack, 1)
    assert synced == [root.parent, tmp_path]
    environment.open_environment(root / "serving", databases=("x",), writer=True).close()
    assert synced[2:] == [root, root / "serving"]
    environment.put_aside(root / "serving", root / "serving.damaged-1", DamagedError("torn", hint=""))
    assert synced[4:] == [root]
