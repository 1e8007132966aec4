"""Checkpoints, their manifests, and what happens to them when the process, the disk or somebody else interferes."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import resource
import shutil
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryptod.errors import CheckpointError
from cryptod.store import files
from cryptod.store.checkpoints import (
    CURRENT,
    MANIFESTS,
    META,
    WEIGHTS,
    Arrays,
    CheckpointStore,
    Current,
    NothingToRollBackTo,
    read_checkpoint,
    write_checkpoint,
)
from tests.cuts import every_cut
from tests.disks import read_only, small_disk

HOUR = 3_600_000
MAIN = ("BTC/USDT", "ETH/USDT")
SIDE = ("DOGE/USDT", "SHIB/USDT")


def write(root: Path, name: str, symbols: tuple[str, ...] = MAIN, value: float = 1.0) -> str:
    arrays: Arrays = {"weight": np.full((3, 4), value, np.float32), "state": np.arange(5, dtype=np.float64)}
    return write_checkpoint(root, name, arrays, {"symbols": list(symbols), "value": value}, created=HOUR).name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def store(root: Path) -> CheckpointStore:
    return CheckpointStore(root)


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def reseal(path: Path, **changes: Any) -> None:
    """Change a sealed document as somebody would who can also compute its checksum."""
    document = json.loads(path.read_bytes())
    del document["checksum"]
    path.write_bytes(files.sealed(document | changes, "test"))


# Writing and reading


def test_what_was_written_is_read_to_the_last_bit(root: Path) -> None:
    arrays: Arrays = {
        "f4": np.array([[1.5, np.nan], [-0.0, np.inf]], np.float32),
        "f8": np.random.default_rng(1).normal(size=(7, 3)),
        "i8": np.arange(4, dtype=np.int64),
        "u1": np.arange(3, dtype=np.uint8),
        "turned": np.arange(12, dtype=np.float64).reshape(3, 4).T,
        "every_second": np.arange(10, dtype=np.float32)[::2],
        "empty": np.zeros((0, 24), np.float32),
        "one": np.array(3.5),
    }
    meta = {"symbols": ["BTC/USDT"], "cutoff": 3, "figures": {"loss": 0.1 + 0.2}, "text": "é\u2028"}
    assert write_checkpoint(root, "full-1.b0", arrays, meta) == root / "full-1.b0"
    back, said = read_checkpoint(root, "full-1.b0")
    assert said == meta
    assert back.keys() == arrays.keys()
    for key, array in arrays.items():
        assert back[key].dtype == array.dtype
        assert back[key].shape == array.shape
        assert back[key].tobytes() == array.tobytes()
        assert back[key].flags.writeable
        assert back[key].flags.owndata


def test_a_name_that_is_taken_gets_a_suffix_and_the_first_is_untouched(root: Path) -> None:
    assert [write(root, "a", value=value) for value in (1.0, 2.0, 3.0)] == ["a", "a-2", "a-3"]
    assert [read_checkpoint(root, name)[1]["value"] for name in ("a", "a-2", "a-3")] == [1.0, 2.0, 3.0]


def test_modes_are_tight_whatever_the_umask(root: Path, store: CheckpointStore) -> None:
    before = os.umask(0)
    try:
        write(root, "a")
        store.promote(["a"], HOUR)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (*root.iterdir(), *(root / "a").iterdir())}
    assert modes == {"a": 0o750, WEIGHTS: 0o640, META: 0o640, CURRENT: 0o640, MANIFESTS: 0o750}


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "/etc", ".tmp-x", "-a", "a\n", "a\0", "ä", "x" * 101, MANIFESTS, CURRENT])
def test_names_that_are_paths_or_tricks_are_refused(root: Path, store: CheckpointStore, name: str) -> None:
    with pytest.raises(CheckpointError, match="cannot be a checkpoint's name"):
        write(root, name)
    with pytest.raises(CheckpointError, match="cannot be a checkpoint's name"):
        read_checkpoint(root, name)
    with pytest.raises(CheckpointError, match="cannot be a checkpoint's name"):
        store.promote([name], HOUR)


@pytest.mark.parametrize(
    ("arrays", "meta"),
    [
        ({"a": np.array([object()])}, {}),
        ({"a": np.array(["text"])}, {}),
        ({"a": [1.0, 2.0]}, {"bad": np.float32(1)}),
        ({"a": np.ones(1)}, {"bad": float("nan")}),
        ({"a": np.ones(1)}, {"bad": b"bytes"}),
    ],
)
def test_what_the_formats_cannot_hold_is_refused_and_leaves_nothing(root: Path, arrays: Any, meta: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_checkpoint(root, "a", arrays, meta)
    assert list(root.iterdir()) == []


# Damage and hostile files


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("bomb-went-off",))


def swap_weights(path: Path, data: bytes) -> None:
    """Other weights, with a meta that vouches for them."""
    (path / WEIGHTS).write_bytes(data)
    reseal(path / META, weights={"size": len(data), "sha256": hashlib.sha256(data).hexdigest()})


def header(text: str, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text.encode()


def instead(path: Path, put: Callable[[Path], object]) -> None:
    """Put something else where a file or a folder stands; what stood there is kept beside the checkpoints."""
    path.rename(path.parents[path.is_file()] / f"old-{path.name}")
    put(path)


def link_to_the_old(path: Path) -> None:
    path.symlink_to(path.parents[path.parent.name == "new"] / f"old-{path.name}")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "weights flipped": lambda path: flip(path / WEIGHTS, -3),
    "weights cut": lambda path: os.truncate(path / WEIGHTS, 100),
    "weights longer": lambda path: (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes() + b"x"),
    "weights emptied": lambda path: os.truncate(path / WEIGHTS, 0),
    "weights missing": lambda path: (path / WEIGHTS).unlink(),
    "weights a folder": lambda path: instead(path / WEIGHTS, Path.mkdir),
    "weights a pipe": lambda path: instead(path / WEIGHTS, os.mkfifo),
    "weights a link": lambda path: instead(path / WEIGHTS, link_to_the_old),
    "weights a device": lambda path: instead(path / WEIGHTS, lambda place: place.symlink_to("/dev/zero")),
    "weights a pickle": lambda path: swap_weights(path, pickle.dumps(Bomb())),
    "weights an npy of objects": lambda path: swap_weights(path, b"\x93NUMPY\x01\x00" + pickle.dumps(Bomb())),
    "weights of junk": lambda path: swap_weights(path, os.urandom(500)),
    "a header beyond the end": lambda path: swap_weights(path, header("{}", 1 << 40)),
    "a header of 2^64-1": lambda path: swap_weights(path, header("{}", (1 << 64) - 1)),
    "a header that is no JSON": lambda path: swap_weights(path, header("[[[[")),
    "a header nested deeply": lambda path: swap_weights(path, header('{"a":' + "[" * 100_000)),
    "a header with a huge shape": lambda path: swap_weights(
        path, header('{"a":{"dtype":"F64","shape":[1099511627776,1099511627776],"data_offsets":[0,8]}}') + bytes(8)
    ),
    "a header with a type numpy lacks": lambda path: swap_weights(
        path, header('{"a":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}}') + bytes(8)
    ),
    "meta flipped": lambda path: flip(path / META, 40),
    "meta cut": lambda path: os.truncate(path / META, 60),
    "meta missing": lambda path: (path / META).unlink(),
    "meta a link": lambda path: instead(path / META, link_to_the_old),
    "meta a list": lambda path: (path / META).write_text("[]"),
    "meta nested deeply": lambda path: (path / META).write_text("[" * 200_000),
    "meta not text": lambda path: (path / META).write_bytes(b"\xff\xfe\x00"),
    "meta huge": lambda path: os.truncate(path / META, 1 << 40),
    "meta of a later schema": lambda path: reseal(path / META, schema=2),
    "meta of another checkpoint": lambda path: reseal(path / META, name="b"),
    "meta that promises terabytes": lambda path: reseal(path / META, weights={"size": 1 << 40, "sha256": "0"}),
    "meta with odd fields": lambda path: reseal(path / META, weights=[1, 2]),
    "all missing": lambda path: shutil.rmtree(path),
    "a file instead": lambda path: instead(path, lambda place: place.write_text("x")),
    "a link to a folder": lambda path: instead(path, link_to_the_old),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_refused_and_the_previous_one_serves(
    root: Path, store: CheckpointStore, damage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    write(root, "a", value=1.0)
    store.promote(["a"], HOUR)
    write(root, "new", value=2.0)
    store.promote(["new"], 2 * HOUR)
    DAMAGE[damage](root / "new")
    with pytest.raises(CheckpointError, match="new") as caught:
        read_checkpoint(root, "new")
    assert caught.value.hint
    assert not Path("bomb-went-off").exists()
    current = store.load_current()
    assert current.serving == dict.fromkeys(MAIN, "a")
    assert current.refused == {"new": str(caught.value)}
    assert current.generation == 2
    with pytest.raises(CheckpointError):
        store.promote(["new"], 3 * HOUR)
    assert store.load_current().generation == 2


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_change_of_a_byte_goes_unnoticed(root: Path, data: st.DataObject) -> None:
    shutil.rmtree(root, ignore_errors=True)
    write(root, "a")
    path = root / "a" / data.draw(st.sampled_from([WEIGHTS, META]))
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[at]))
    path.write_bytes(content)
    try:
        arrays, meta = read_checkpoint(root, "a")
    except CheckpointError:
        return
    # Blanks between the fields mean nothing, and may change.
    assert (meta["symbols"], meta["value"]) == (list(MAIN), 1.0)
    assert arrays["weight"].tobytes() == np.full((3, 4), 1.0, np.float32).tobytes()


# Promotion, roll back, history


def test_a_coin_is_served_by_the_latest_and_what_serves_none_is_dropped(root: Path, store: CheckpointStore) -> None:
    assert store.load_current().generation == 0
    write(root, "full-0", MAIN)
    write(root, "full-1", SIDE)
    store.promote(["full-0", "full-1"], HOUR)
    write(root, "inc-0", MAIN[:1])
    current = store.promote(["inc-0"], 2 * HOUR)
    assert current.names == ("full-0", "full-1", "inc-0")
    assert current.serving == {"BTC/USDT": "inc-0", "ETH/USDT": "full-0", "DOGE/USDT": "full-1", "SHIB/USDT": "full-1"}
    write(root, "next-0", MAIN)
    current = store.promote(["next-0"], 3 * HOUR)
    assert current.names == ("full-1", "next-0")
    again = store.load_current()
    assert (again.generation, again.promoted_at, again.names, again.serving) == (3, 3 * HOUR, current.names, current.serving)
    assert again.refused == {}


def test_checkpoints_of_coins_that_are_not_followed_any_more_are_dropped(root: Path, store: CheckpointStore) -> None:
    write(root, "a", MAIN)
    store.promote(["a"], HOUR)
    write(root, "b", SIDE)
    assert store.promote(["b"], 2 * HOUR, followed=SIDE).names == ("b",)


def test_promoting_what_serves_already_changes_nothing(root: Path, store: CheckpointStore) -> None:
    write(root, "a")
    assert store.promote(["a"], HOUR).generation == store.promote(["a"], 2 * HOUR).generation == store.promote([], HOUR).generation == 1


def test_a_promotion_does_not_read_again_what_serves_already(root: Path, store: CheckpointStore) -> None:
    write(root, "a"), write(root, "b", SIDE)
    store.promote(["a"], HOUR)
    flip(root / "a" / WEIGHTS, -1)
    current = store.promote(["b"], 2 * HOUR)
    assert (current.names, current.refused) == (("a", "b"), {})
    assert set(store.load_current().refused) == {"a"}


def test_a_checkpoint_without_coins_is_not_promoted(root: Path, store: CheckpointStore) -> None:
    write_checkpoint(root, "a", {"x": np.ones(1)}, {})
    with pytest.raises(CheckpointError, match="does not say which coins"):
        store.promote(["a"], HOUR)
    assert store.load_current().generation == 0


def promote_each(root: Path, store: CheckpointStore, count: int) -> None:
    for number in range(1, count + 1):
        write(root, f"m{number}", value=number)
        store.promote([f"m{number}"], number * HOUR)


def steps(store: CheckpointStore) -> dict[int, int | None]:
    return {row["generation"]: row["steps"] for row in store.history()}


def test_rolling_back_again_goes_one_further_and_history_keeps_what_was_rolled_back(root: Path, store: CheckpointStore) -> None:
    promote_each(root, store, 4)
    assert store.rollback(1, 10 * HOUR).names == ("m3",)
    assert steps(store) == {5: 0, 4: None, 3: None, 2: 1, 1: 2}
    current = store.rollback(1, 11 * HOUR)
    assert (current.names, current.generation, current.promoted_at) == (("m2",), 6, 11 * HOUR)
    assert store.load_current().names == ("m2",)
    write(root, "m7")
    assert store.promote(["m7"], 12 * HOUR).generation == 7
    # What served before the promotion comes back, not what was rolled back before it.
    assert store.rollback(1, 13 * HOUR).names == ("m2",)
    newest = store.history()[0]
    assert newest == {
        "generation": 8,
        "promoted_at": 13 * HOUR,
        "checkpoints": ["m2"],
        "coins": 2,
        "run": "",
        "restores": 6,
        "steps": 0,
    }


def test_rolling_back_several_steps_and_too_many(root: Path, store: CheckpointStore) -> None:
    with pytest.raises(CheckpointError, match="0 are kept") as caught:
        store.rollback(1, HOUR)
    assert caught.value.code == "conflict"
    promote_each(root, store, 6)
    for number in (0, -1, 4):
        with pytest.raises(CheckpointError, match="3 are kept"):
            store.rollback(number, HOUR)
    assert store.rollback(3, 10 * HOUR).names == ("m3",)
    with pytest.raises(CheckpointError, match="0 are kept"):
        store.rollback(1, 11 * HOUR)


def test_the_batches_of_one_run_are_rolled_back_as_one(root: Path, store: CheckpointStore) -> None:
    write(root, "old", MAIN + SIDE)
    store.promote(["old"], HOUR)
    write(root, "full-0", MAIN)
    write(root, "full-1", SIDE)
    store.promote(["full-0"], 2 * HOUR, run="job 7")
    assert store.load_current().serving == {"BTC/USDT": "full-0", "ETH/USDT": "full-0", "DOGE/USDT": "old", "SHIB/USDT": "old"}
    store.promote(["full-1"], 3 * HOUR, run="job 7")
    assert steps(store) == {3: 0, 1: 1}
    assert store.rollback(1, 4 * HOUR).names == ("old",)


def test_a_run_of_many_batches_does_not_crowd_out_the_generations_before_it(root: Path, store: CheckpointStore) -> None:
    promote_each(root, store, 3)
    for batch in range(6):
        store.promote([write(root, f"full-{batch}", (f"C{batch}/USDT", *MAIN))], 9 * HOUR, run="job 8")
        store.prune(min_age=-1)
    assert steps(store) == {9: 0, 3: 1, 2: 2, 1: 3}
    assert store.rollback(3, 10 * HOUR).names == ("m1",)


def test_a_damaged_current_json_is_replaced_by_its_copy(root: Path, store: CheckpointStore) -> None:
    promote_each(root, store, 3)
    store.rollback(1, 10 * HOUR)
    damage: list[Callable[[Path], object]] = [lambda path: flip(path, 30), lambda path: os.truncate(path, 0), Path.unlink]
    for harm in damage:
        harm(root / CURRENT)
        current = store.load_current()
        assert (current.generation, current.names) == (4, ("m2",))
        assert list(current.refused) == [CURRENT]
    write(root, "m5")
    assert store.promote(["m5"], 11 * HOUR).generation == 5
    assert store.load_current().refused == {}


def test_without_any_sound_manifest_nothing_serves_and_nothing_is_pruned(root: Path, store: CheckpointStore) -> None:
    promote_each(root, store, 2)
    for path in (root / CURRENT, *(root / MANIFESTS).iterdir()):
        path.write_text("{}")
    current = store.load_current()
    assert current.generation == 0
    assert sorted(current.refused) == ["current.json", "manifests/1.json", "manifests/2.json"]
    assert store.prune(min_age=-1) == []
    write(root, "m3")
    assert store.promote(["m3"], HOUR).generation == 3
    assert store.load_current().refused == {}


def test_a_damaged_manifest_in_the_history_is_stepped_over(root: Path, store: CheckpointStore) -> None:
    promote_each(root, store, 4)
    (root / MANIFESTS / "3.json").write_text("junk")
    assert steps(store) == {4: 0, 2: 1, 1: 2}
    assert store.rollback(1, 10 * HOUR).names == ("m2",)


def test_each_damaged_checkpoint_is_replaced_by_the_one_before_it_for_each_of_its_coins(root: Path, store: CheckpointStore) -> None:
    write(root, "full", MAIN + SIDE)
    store.promote(["full"], HOUR)
    write(root, "inc-1", MAIN + SIDE[:1])
    store.promote(["inc-1"], 2 * HOUR)
    write(root, "inc-2", MAIN)
    store.promote(["inc-2"], 3 * HOUR)
    write(root, "inc-3", MAIN + SIDE[:1])
    assert store.promote(["inc-3"], 4 * HOUR).names == ("full", "inc-3")
    flip(root / "inc-3" / WEIGHTS, -1)
    # inc-1 and inc-2 no longer served, but they are newer than `full`, which still does.
    assert store.load_current().serving == {"BTC/USDT": "inc-2", "ETH/USDT": "inc-2", "DOGE/USDT": "inc-1", "SHIB/USDT": "full"}
    flip(root / "inc-2" / WEIGHTS, -1)
    current = store.load_current()
    assert current.serving == {"BTC/USDT": "inc-1", "ETH/USDT": "inc-1", "DOGE/USDT": "inc-1", "SHIB/USDT": "full"}
    assert sorted(current.refused) == ["inc-2", "inc-3"]
    # The next promotion writes down what really serves.
    write(root, "side", SIDE)
    assert store.promote(["side"], 5 * HOUR).names == ("inc-1", "side")
    assert store.load_current().refused == {}


def test_nothing_stands_in_for_a_damaged_one_where_a_newer_one_serves(root: Path, store: CheckpointStore) -> None:
    for hour, (name, symbols) in enumerate([("old", MAIN), ("full", MAIN + SIDE), ("new", MAIN)]):
        write(root, name, symbols)
        store.promote([name], hour * HOUR)
    flip(root / "full" / WEIGHTS, -1)
    assert store.load_current().names == ("new",)


def test_what_was_rolled_back_never_stands_in_for_a_damaged_one(root: Path, store: CheckpointStore) -> None:
    promote_each(root, store, 3)
    store.rollback(1, 10 * HOUR)
    flip(root / "m2" / WEIGHTS, -1)
    assert store.load_current().names == ("m1",)
    flip(root / "m1" / WEIGHTS, -1)
    assert store.load_current().names == ()
    with pytest.raises(CheckpointError, match="is sound"):
        store.rollback(1, 11 * HOUR)


# Pruning


def test_pruning_keeps_what_can_be_rolled_back_to_and_what_is_protected(root: Path, store: CheckpointStore) -> None:
    promote_each(root, store, 7)
    write(root, "orphan")
    write(root, "trained-just-now")
    (root / ".tmp-left").mkdir()
    (root / ".tmp-left" / WEIGHTS).write_text("x")
    (root / MANIFESTS / ".tmp-left-too").write_text("x")
    (root / "backup").mkdir()
    (root / "backup" / "notes.txt").write_text("an operator's own")
    (root / "linked").symlink_to(root / "m7")
    assert store.prune() == [f"{number}.json" for number in (1, 2, 3)], "all the rest is younger than an hour"
    gone = store.prune(["trained-just-now"], min_age=-1)
    assert sorted(gone) == [".tmp-left", ".tmp-left-too", "m1", "m2", "m3", "orphan"]
    left = sorted(path.name for path in root.iterdir())
    assert left == ["backup", "current.json", "linked", "m4", "m5", "m6", "m7", "manifests", "trained-just-now"]
    assert store.prune(["trained-just-now"], min_age=-1) == []
    assert store.rollback(3, 10 * HOUR).names == ("m4",)
    store.prune(min_age=-1)
    assert steps(store) == {8: 0, 7: None, 6: None, 5: None}
    assert CheckpointStore(root / "none").prune() == []


def test_pruning_bounds_the_folder_over_a_year_of_jobs(root: Path, store: CheckpointStore) -> None:
    sizes = []
    for number in range(60):
        for batch, symbols in enumerate((MAIN, SIDE)):
            name = write(root, f"inc-{number}-b{batch}", symbols)
            store.promote([name], number * HOUR, run=f"job {number}")
        store.prune(min_age=-1)
        sizes.append(sum(1 for _ in root.rglob("*")))
    assert max(sizes) == sizes[10] == sizes[-1]


# Cuts, full disks, rights


def test_cut_before_any_change_to_a_file_the_old_or_the_new_serves(root: Path, tmp_path: Path) -> None:
    write(root, "a", value=1.0)
    write(root, "orphan")  # for the pruning
    CheckpointStore(root).promote(["a"], HOUR)
    place, said = tmp_path / "place", tmp_path / "said"

    def reset() -> None:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(root, place)
        said.write_text("")

    def say(step: str) -> None:
        with said.open("a") as file:
            file.write(step)

    def work() -> None:
        store = CheckpointStore(place)
        write(place, "b", value=2.0)
        store.promote(["b"], 2 * HOUR)
        say("p")
        store.rollback(1, 3 * HOUR)
        say("r")
        write(place, "c", value=3.0)
        store.promote(["c"], 4 * HOUR, run="job")
        say("c")
        write(place, "d", SIDE, value=4.0)
        store.promote(["d"], 4 * HOUR, run="job")
        say("d")
        store.prune(min_age=-1)

    states = [("a",), ("b",), ("a",), ("c",), ("c", "d")]
    values = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}
    seen = set()

    def check(store: CheckpointStore) -> Current:
        current = store.load_current()
        assert current.refused == {}
        assert current.names == states[current.generation - 1]
        # Nothing that was acknowledged is lost, and at most one step more was carried out.
        assert len(said.read_text()) + 1 <= current.generation <= len(said.read_text()) + 2
        for checkpoint in current.checkpoints:
            assert np.all(checkpoint.arrays["weight"] == values[checkpoint.name])
        for path in place.iterdir():  # whatever has a checkpoint's name is a sound one
            if path.name not in (CURRENT, MANIFESTS) and not path.name.startswith(files.TEMPORARY):
                read_checkpoint(place, path.name)
        return current

    reset()
    for at in every_cut(work):
        store = CheckpointStore(place)
        seen.add(check(store).generation)
        store.prune(min_age=-1)
        check(store)
        assert not [path for path in place.rglob("*") if path.name.startswith(files.TEMPORARY)], at
        write(place, "after", MAIN + SIDE)
        assert store.promote(["after"], 9 * HOUR).names == ("after",)
        assert store.load_current().names == ("after",)
        reset()
    assert seen == {1, 2, 3, 4, 5}
    assert at > 60


def test_files_are_on_disk_before_their_name_and_the_name_before_the_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: set[Path] = set()
    owed: set[Path] = set()
    fsync, rename = os.fsync, os.rename

    def fsync_noted(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.add(path)
        owed.discard(path)
        fsync(descriptor)

    def rename_checked(source: Any, target: Any) -> None:
        source, target = Path(source), Path(target)
        assert {source, *source.rglob("*")} <= synced
        owed.add(target.parent)
        rename(source, target)

    monkeypatch.setattr(os, "fsync", fsync_noted)
    monkeypatch.setattr(os, "rename", rename_checked)
    monkeypatch.setattr(os, "replace", rename_checked)
    write(root, "a")
    assert not owed
    CheckpointStore(root).promote(["a"], HOUR)
    assert not owed
    assert {root / MANIFESTS, root} <= synced


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "64k") as place:
        yield place


def test_a_full_disk_leaves_the_old_models_and_nothing_half_done_at_whatever_write_it_fills(disk: Path) -> None:
    root = disk / "checkpoints"
    store = CheckpointStore(root)
    write(root, "a")
    store.promote(["a"], HOUR)
    filler = disk / "filler"
    failed = 0
    for free_pages in range(12):
        page = 4096
        with filler.open("wb") as file:
            free = os.statvfs(disk).f_bavail
            file.write(bytes(max(0, free - free_pages) * page))
        generation = store.load_current().generation
        error: CheckpointError | None = None
        try:
            name = write(root, "b", value=2.0)
            store.promote([name], 2 * HOUR)
        except CheckpointError as raised:
            error = raised
            failed += 1
        if error:
            assert "No space left" in str(error)
            assert "free some space" in error.hint
        assert store.load_current().generation == generation + (error is None)
        assert store.load_current().refused == {}
        assert not [path for path in root.rglob("*") if path.name.startswith(files.TEMPORARY)]
        filler.unlink()
        store.prune(min_age=-1)
    assert failed >= 4
    assert free_pages - failed >= 1, "with enough room it works again by itself"


def test_a_limit_on_the_size_of_files_is_an_error_with_a_remedy(root: Path) -> None:
    write(root, "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(CheckpointError, match="File too large"):
            write(root, "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in root.iterdir()] == ["a"]


def test_a_read_only_file_system_still_serves(root: Path, store: CheckpointStore) -> None:
    write(root, "a")
    write(root, "b")
    store.promote(["a"], HOUR)
    with read_only(root):
        assert store.load_current().names == ("a",)
        changes: list[Callable[[], object]] = [lambda: write(root, "c"), lambda: store.promote(["b"], HOUR), store.prune]
        for change in changes:
            with pytest.raises(CheckpointError, match="Read-only") as caught:
                change()
            assert "read-write" in caught.value.hint
        assert store.load_current().names == ("a",)


def test_a_root_behind_a_link_is_fine_as_systemd_makes_such(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "private")
    root = tmp_path / "state" / "checkpoints"
    write(root, "a")
    assert CheckpointStore(root).promote(["a"], HOUR).names == ("a",)


def test_the_checkpoint_code_knows_no_pickle() -> None:
    folder = Path(files.__file__).parent
    for path in folder.glob("*.py"):
        text = path.read_text()
        assert "import pickle" not in text
        assert "allow_pickle" not in text
        assert "np.load" not in text


def test_checkpoints_of_a_time_that_has_not_come_serve_no_more_and_cannot_be_gone_back_to(root: Path, store: CheckpointStore) -> None:
    arrays: Arrays = {"weight": np.zeros(2, np.float32)}
    for name, cutoff, symbols in (("a", 10, MAIN), ("b", 10, SIDE), ("c", 99, MAIN), ("d", 20, SIDE)):
        write_checkpoint(root, name, arrays, {"symbols": list(symbols), "cutoff": cutoff})
        store.promote([name], HOUR)
    assert store.load_current().names == ("c", "d")
    assert store.retreat(50, HOUR).names == ("a", "d")
    assert CheckpointStore(root).load_current().names == ("a", "d")
    with pytest.raises(NothingToRollBackTo):
        store.rollback(1, HOUR)
    assert store.retreat(5, HOUR).names == ()
    assert store.load_current().names == ()
    assert store.promote(["b"], HOUR).names == ("b",)
