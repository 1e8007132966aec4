"""A backup of a state directory: what is in it, what it may not hold, and that putting one back can be cut off anywhere."""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cryptod.daemon import statedir
from cryptod.errors import CryptodError, StoreError
from cryptod.market import HOUR
from cryptod.store import backup
from cryptod.store.candles import WEEK, CandleStore, Fetched
from cryptod.store.checkpoints import CheckpointStore, read_checkpoint, write_checkpoint
from cryptod.store.environment import open_environment
from cryptod.store.jobs import DATABASES, JobStore
from cryptod.worker.messages import market
from tests.cuts import every_cut
from tests.test_interrupted_writes import MONDAY, prices

NOW = MONDAY + 7 * HOUR.ms
MARKET = market("binance", "url", "USDT")
COIN = "BTC/USDT"


def fill(state: Path, word: str, hours: int) -> Path:
    """A state directory: ``word`` in the serving store, so many candles, and one model named after the word that serves."""
    state.mkdir(exist_ok=True)
    with open_environment(state / "serving", databases=DATABASES, writer=True) as environment:
        JobStore(environment).set("word", word)
    times = MONDAY + HOUR.ms * np.arange(hours, dtype=np.int64)
    with CandleStore.open(state / "candles", writer=True) as store:
        store.apply([Fetched(COIN, times, prices(COIN, times))])
    write_checkpoint(state / "checkpoints", word, {"w": np.arange(3.0)}, {"symbols": [COIN]})
    CheckpointStore(state / "checkpoints").promote([word], NOW)
    return state


def told(state: Path) -> tuple[str, int, tuple[str, ...]]:
    """What stands in a state directory, opened as the daemon opens it."""
    with open_environment(state / "serving", databases=DATABASES, writer=True) as environment:
        word = JobStore(environment).get("word")
    with CandleStore.open(state / "candles", writer=True) as store:
        span = store.span(COIN)
    names = CheckpointStore(state / "checkpoints").load_current().names
    for name in names:
        read_checkpoint(state / "checkpoints", name)
    return word, 0 if span is None else (span[1] - span[0]) // HOUR.ms, names


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A backup of a state that says ``old``."""
    (tmp_path / "out").mkdir()
    backup.write(fill(tmp_path / "origin", "old", WEEK), tmp_path / "out" / "old.tar.gz", NOW, MARKET)
    return tmp_path / "out" / "old.tar.gz"


def test_a_backup_put_back_elsewhere_holds_all_that_was_there(saved: Path, tmp_path: Path) -> None:
    head, _ = statedir.restore(saved, tmp_path / "elsewhere", NOW)
    assert told(tmp_path / "elsewhere") == told(tmp_path / "origin") == ("old", WEEK, ("old",))
    assert (head["made"], head["market"]) == (NOW, MARKET)


def test_what_was_there_before_is_kept_aside(saved: Path, tmp_path: Path) -> None:
    state = fill(tmp_path / "state", "new", 2 * WEEK)
    _, aside = statedir.restore(saved, state, NOW)
    assert told(state) == ("old", WEEK, ("old",))
    assert told(aside) == ("new", 2 * WEEK, ("new",))
    assert not (state / backup.RESTORED).exists()


def test_a_backup_of_a_daemon_without_models_is_put_back_without_models(tmp_path: Path) -> None:
    origin = fill(tmp_path / "origin", "old", 3)
    shutil.rmtree(origin / "checkpoints")
    backup.write(origin, tmp_path / "file", NOW, MARKET)
    state = fill(tmp_path / "state", "new", 5)
    statedir.restore(tmp_path / "file", state, NOW)
    assert told(state) == ("old", 3, ())


COPY = """
import sys
from pathlib import Path
from cryptod.store import backup
from cryptod.worker.messages import market
backup.write(Path(sys.argv[1]), Path(sys.argv[2]), 0, market("binance", "", "USDT"))
"""


def test_the_copy_is_taken_while_the_writer_has_the_store_open_and_goes_on(tmp_path: Path) -> None:
    origin = fill(tmp_path / "origin", "old", WEEK)
    times = MONDAY + HOUR.ms * np.arange(WEEK, 2 * WEEK, dtype=np.int64)
    with CandleStore.open(origin / "candles", writer=True) as store:
        copying = subprocess.Popen([sys.executable, "-c", COPY, str(origin), str(tmp_path / "file")])
        store.apply([Fetched(COIN, times, prices(COIN, times))])
        assert copying.wait(60) == 0
    statedir.restore(tmp_path / "file", tmp_path / "state", NOW)
    assert told(tmp_path / "state")[1] in (WEEK, 2 * WEEK)  # before or after what was written meanwhile, and never half of it


def test_putting_back_that_is_cut_off_anywhere_leaves_the_old_or_the_new(saved: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"

    def work() -> None:
        backup.unpack(saved, state)
        backup.finish(state, NOW)

    cuts = 0
    fill(tmp_path / "before", "new", 2 * WEEK)
    shutil.copytree(tmp_path / "before", state)
    for _ in every_cut(work):
        backup.finish(state, NOW + 1)  # as the daemon does when it starts
        assert told(state) in (("new", 2 * WEEK, ("new",)), ("old", WEEK, ("old",)))
        asides = list(state.glob("before-restore-*"))
        assert all(told(aside) == ("new", 2 * WEEK, ("new",)) for aside in asides)
        assert len(asides) == (told(state)[0] == "old")
        cuts += 1
        shutil.rmtree(state)
        shutil.copytree(tmp_path / "before", state)
    assert cuts > 20


# What is no backup


def tar(path: Path, *members: tuple[str, bytes], kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz") as made:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.type = len(data), kind
            member.linkname = "/etc/passwd" if kind == tarfile.SYMTYPE else ""
            made.addfile(member, io.BytesIO(data))
    return path


HEAD = (
    backup.HEAD,
    b'{"format": 1, "version": "0.1.0", "made": 0, "market": {"exchange": "binance", "simulated": false, "quote": "USDT"}}',
)


@pytest.mark.parametrize(
    "members",
    [
        (("../../evil", b"x"),),
        (HEAD, ("../evil", b"x")),
        (HEAD, ("/tmp/evil", b"x")),
        (HEAD, ("serving/../../evil", b"x")),
        (HEAD, ("checkpoints/a/run.py", b"x")),
        (HEAD, ("candles/data.mdb", b"x"), ("candles/data.mdb", b"y")),
        ((backup.HEAD, b"[]"),),
        ((backup.HEAD, b"{"),),
        ((backup.HEAD, b'{"format": 1, "made": 0, "market": {"exchange": "binance"}}'),),
    ],
    ids=["no head", "above", "absolute", "sideways", "program", "twice", "no map", "no JSON", "no market"],
)
def test_a_file_that_holds_anything_else_is_refused_and_nothing_is_written(members: tuple[tuple[str, bytes], ...], tmp_path: Path) -> None:
    state = fill(tmp_path / "state", "new", 3)
    with pytest.raises(StoreError, match="is not a backup of cryptod"):
        statedir.restore(tar(tmp_path / "file", *members), state, NOW)
    assert told(state) == ("new", 3, ("new",))
    assert {path.name for path in state.iterdir()} == {"serving", "candles", "checkpoints", "lock"}
    assert not (tmp_path / "evil").exists()


def test_a_link_in_a_backup_is_refused(tmp_path: Path) -> None:
    file = tar(tmp_path / "file", ("serving/data.mdb", b""), kind=tarfile.SYMTYPE)
    with pytest.raises(StoreError, match="is not a backup of cryptod"):
        statedir.restore(file, tmp_path / "state", NOW)


def test_a_backup_of_a_newer_format_says_which_version_made_it(tmp_path: Path) -> None:
    file = tar(tmp_path / "file", (backup.HEAD, b'{"format": 9, "version": "7.0", "made": 0, "market": {}}'))
    with pytest.raises(StoreError, match=r"made by cryptod 7\.0 in format 9"):
        statedir.restore(file, tmp_path / "state", NOW)


def test_a_backup_that_is_cut_short_or_changed_anywhere_is_refused(saved: Path, tmp_path: Path) -> None:
    """Every place of the gzip stream and of what is in it."""
    data = saved.read_bytes()
    plain = gzip.decompress(data)
    spoilt = [data[: int(len(data) * part)] for part in (0.0, 0.1, 0.5, 0.9, 0.999)]
    for place in range(600, len(plain) - 2048, len(plain) // 40):
        changed = bytearray(plain)
        changed[place] ^= 0x5A
        spoilt.append(gzip.compress(bytes(changed), 1))
    state = fill(tmp_path / "state", "new", 3)
    accepted = 0
    for number, piece in enumerate(spoilt):
        (tmp_path / "file").write_bytes(piece)
        try:
            statedir.restore(tmp_path / "file", state, NOW)
        except CryptodError:
            assert told(state) == ("new", 3, ("new",)), number
        else:  # padding between two files may be anything
            assert told(state) == ("old", WEEK, ("old",)), number
            accepted += 1
            shutil.rmtree(state)
            fill(state, "new", 3)
    assert accepted <= len(spoilt) // 4


async def test_a_state_that_a_daemon_uses_is_not_touched(saved: Path, tmp_path: Path) -> None:
    import contextlib

    state = fill(tmp_path / "state", "new", 3)
    with contextlib.ExitStack() as stack:
        statedir.lock(state, stack, 7)
        with pytest.raises(CryptodError, match="another cryptod"):
            statedir.restore(saved, state, NOW)
    assert told(state) == ("new", 3, ("new",))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user: needs root")
def test_restored_by_root_the_files_belong_to_the_owner_of_the_directory(saved: Path, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 12_345, 12_346)
    statedir.restore(saved, state, NOW)
    owners = {(path.lstat().st_uid, path.lstat().st_gid) for path in state.rglob("*")}
    assert owners == {(12_345, 12_346)}
