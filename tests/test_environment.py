"""The LMDB environment: what is kept, what grows, what is refused and how it says so."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cryptod.errors import DamagedError, StoreError
from cryptod.store.environment import Environment, Transaction, open_environment
from tests.disks import small_disk

FULL_DISK = (
    subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0 if shutil.which("unshare") else False
)


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Environment]:
    with open_environment(tmp_path / "env", databases=["a", "b"], writer=True) as env:
        yield env


def put(env: Environment, key: bytes, value: bytes, database: str = "a") -> None:
    env.write(lambda txn: txn.put(database, key, value))


def get(env: Environment, key: bytes, database: str = "a") -> bytes | None:
    with env.read() as txn:
        return txn.get(database, key)


def test_what_is_written_is_read_again_after_the_environment_is_closed(tmp_path: Path) -> None:
    with open_environment(tmp_path / "env", databases=["a"], writer=True) as env:
        put(env, b"k", b"v")
    with open_environment(tmp_path / "env", databases=["a"], writer=False) as env:
        assert get(env, b"k") == b"v"
        assert get(env, b"other") is None


def test_databases_are_apart_and_can_be_counted_cleared_and_deleted_from(env: Environment) -> None:
    put(env, b"k", b"1", "a")
    put(env, b"k", b"2", "b")
    assert env.write(lambda txn: txn.delete("a", b"k"))
    assert not env.write(lambda txn: txn.delete("a", b"k"))
    with env.read() as txn:
        assert (txn.count("a"), txn.count("b"), txn.get("b", b"k")) == (0, 1, b"2")
    env.write(lambda txn: txn.clear("b"))
    assert get(env, b"k", "b") is None


def test_records_are_scanned_in_order_between_two_keys(env: Environment) -> None:
    for key in (b"c", b"a", b"d", b"b"):
        put(env, key, key * 2)
    with env.read() as txn:
        assert list(txn.scan("a")) == [(b"a", b"aa"), (b"b", b"bb"), (b"c", b"cc"), (b"d", b"dd")]
        assert [key for key, _ in txn.scan("a", b"b", b"d")] == [b"b", b"c"]
        assert list(txn.scan("a", b"e")) == []
        assert list(txn.scan("b")) == []


def test_the_last_record_is_found_with_and_without_a_bound(env: Environment) -> None:
    with env.read() as txn:
        assert txn.last("a") is None
        assert txn.last("a", b"x") is None
    for key in (b"a", b"c"):
        put(env, key, key)
    with env.read() as txn:
        assert txn.last("a") == (b"c", b"c")
        assert txn.last("a", b"c") == (b"a", b"a")
        assert txn.last("a", b"b") == (b"a", b"a")
        assert txn.last("a", b"z") == (b"c", b"c")
        assert txn.last("a", b"a") is None


def test_lent_values_are_views_into_the_map(env: Environment) -> None:
    put(env, b"k", b"abc")
    with env.read(lend=True) as txn:
        value = txn.get("a", b"k")
        assert isinstance(value, memoryview)
        assert bytes(value) == b"abc"


def test_a_change_that_fails_leaves_nothing_behind(env: Environment) -> None:
    def change(txn: Transaction) -> None:
        txn.put("a", b"k", b"v")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        env.write(change)
    assert get(env, b"k") is None
    put(env, b"k", b"v")


def test_a_full_map_grows_and_the_change_is_carried_out(tmp_path: Path) -> None:
    with open_environment(tmp_path / "env", databases=["a"], writer=True, map_size=64 << 10) as env:
        for i in range(16):
            put(env, b"%02d" % i, bytes(100_000))
        assert env.used_bytes() > 1_600_000
        with env.read() as txn:
            assert txn.count("a") == 16


def test_a_map_that_is_too_small_to_open_with_is_replaced_by_the_size_that_the_file_has(tmp_path: Path) -> None:
    with open_environment(tmp_path / "env", databases=["a"], writer=True) as env:
        put(env, b"k", bytes(1_000_000))
    for writer in (False, True):
        with open_environment(tmp_path / "env", databases=["a"], writer=writer, map_size=64 << 10) as env:
            assert get(env, b"k") == bytes(1_000_000)


def _grow(path: str) -> None:
    with open_environment(Path(path), databases=["a"], writer=True, map_size=64 << 10) as env:
        put(env, b"new", bytes(1_000_000))


def test_a_reader_adopts_a_map_that_another_process_has_grown(tmp_path: Path) -> None:
    with open_environment(tmp_path / "env", databases=["a"], writer=True, map_size=64 << 10) as env:
        put(env, b"k", b"v")
    with open_environment(tmp_path / "env", databases=["a"], writer=False, map_size=64 << 10) as env:
        assert get(env, b"k") == b"v"
        process = multiprocessing.get_context("spawn").Process(target=_grow, args=(str(tmp_path / "env"),))
        process.start()
        process.join()
        assert process.exitcode == 0
        assert get(env, b"new") == bytes(1_000_000)


def test_the_map_waits_for_a_reader_in_another_thread_before_it_moves(tmp_path: Path) -> None:
    with open_environment(tmp_path / "env", databases=["a"], writer=True, map_size=64 << 10) as env:
        put(env, b"k", b"v" * 1000)
        reading, go_on = threading.Event(), threading.Event()
        seen: list[bytes] = []

        def read() -> None:
            with env.read(lend=True) as txn:
                value = txn.get("a", b"k")
                assert value is not None
                reading.set()
                go_on.wait(5)
                seen.append(bytes(value))

        reader = threading.Thread(target=read)
        reader.start()
        reading.wait(5)
        writer = threading.Thread(target=put, args=(env, b"big", bytes(1_000_000)))
        writer.start()
        writer.join(0.1)
        assert writer.is_alive()
        go_on.set()
        reader.join()
        writer.join()
        assert seen == [b"v" * 1000]
        assert get(env, b"big") == bytes(1_000_000)


def test_a_reader_of_what_is_not_there_yet_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        open_environment(tmp_path / "env", databases=["a"], writer=False)
    assert not (tmp_path / "env").exists()


def test_a_store_of_a_newer_schema_is_refused_by_writers_and_readers(tmp_path: Path) -> None:
    open_environment(tmp_path / "env", databases=["a"], writer=True, schema=3).close()
    for writer in (True, False):
        with pytest.raises(StoreError, match="written by a newer cryptod \\(schema 3; this one knows 2\\)"):
            open_environment(tmp_path / "env", databases=["a"], writer=writer, schema=2)


def test_a_writer_upgrades_an_older_store_step_by_step_and_a_reader_waits_for_it(tmp_path: Path) -> None:
    with open_environment(tmp_path / "env", databases=["a"], writer=True) as env:
        put(env, b"k", b"v")
    with pytest.raises(StoreError, match="older schema"):
        open_environment(tmp_path / "env", databases=["a"], writer=False, schema=3)
    with pytest.raises(StoreError, match="cannot be upgraded"):
        open_environment(tmp_path / "env", databases=["a"], writer=True, schema=3)
    steps = {
        1: lambda txn: txn.put("a", b"k", b"w"),
        2: lambda txn: txn.put("a", b"l", txn.get("a", b"k") or b""),
    }
    open_environment(tmp_path / "env", databases=["a"], writer=True, schema=3, upgrades=steps).close()
    with open_environment(tmp_path / "env", databases=["a"], writer=False, schema=3) as env:
        assert get(env, b"l") == b"w"


def test_a_file_that_is_no_store_is_refused_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "data.mdb").write_bytes(b"not a store " * 2000)
    for writer in (True, False):
        with pytest.raises(StoreError, match="not a store, or is damaged") as caught:
            open_environment(tmp_path / "env", databases=["a"], writer=writer)
        assert str(tmp_path / "env") in caught.value.message
        assert caught.value.hint


def test_a_file_that_was_cut_short_is_refused_before_it_can_kill_the_process(tmp_path: Path) -> None:
    with open_environment(tmp_path / "env", databases=["a"], writer=True) as env:
        put(env, b"k", bytes(1_000_000))
    os.truncate(tmp_path / "env" / "data.mdb", 100_000)
    with pytest.raises(DamagedError, match="is damaged: 100000 of"):
        open_environment(tmp_path / "env", databases=["a"], writer=False)
    with pytest.raises(DamagedError, match="is damaged"):
        open_environment(tmp_path / "env", databases=["a"], writer=True)


def test_a_damaged_page_is_found_by_the_writer_before_it_can_kill_the_process(tmp_path: Path) -> None:
    with open_environment(tmp_path / "env", databases=["a"], writer=True) as env:
        for i in range(200):
            put(env, b"%04d" % i, bytes(100))
    data = bytearray((tmp_path / "env" / "data.mdb").read_bytes())
    for page in range(2, len(data) // 4096):
        data[page * 4096 + 10 : page * 4096 + 40] = os.urandom(30)
    (tmp_path / "env" / "data.mdb").write_bytes(data)
    with pytest.raises(DamagedError, match="is damaged"):
        open_environment(tmp_path / "env", databases=["a"], writer=True)


@pytest.mark.skipif(not FULL_DISK, reason="needs a user namespace to mount a small disk in")
def test_a_full_disk_is_named_and_the_store_goes_on_when_there_is_space_again(tmp_path: Path) -> None:
    script = f"""
import os, sys
from pathlib import Path
from cryptod.errors import StoreError
from cryptod.store.environment import open_environment

path = Path({str(tmp_path)!r})
with open_environment(path / "env", databases=["a"], writer=True) as env:
    env.write(lambda txn: txn.put("a", b"k", b"v"))
    (path / "ballast").write_bytes(bytes(700_000))
    for i in range(20):
        try:
            env.write(lambda txn: txn.put("a", b"%02d" % i, bytes(50_000)))
        except StoreError as error:
            print(error)
            break
    with env.read() as txn:
        assert txn.get("a", b"k") == b"v"
    (path / "ballast").unlink()
    env.write(lambda txn: txn.put("a", b"more", bytes(50_000)))
"""
    command = f'mount -t tmpfs -o size=1m none {tmp_path} && exec {sys.executable} -c "$SCRIPT"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], env={**os.environ, "SCRIPT": script}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "is on a full disk (free some space, then it goes on by itself)" in done.stdout


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_refused_with_a_remedy(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="cannot be made"):
        open_environment(tmp_path / "env", databases=["a"], writer=True)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("")
    with pytest.raises(StoreError, match="cannot be made: File exists"):
        open_environment(tmp_path / "env", databases=["a"], writer=True)


def test_a_reader_may_not_write(tmp_path: Path) -> None:
    open_environment(tmp_path / "env", databases=["a"], writer=True).close()
    with (
        open_environment(tmp_path / "env", databases=["a"], writer=False) as env,
        pytest.raises(StoreError, match="may not be written"),
    ):
        put(env, b"k", b"v")


def test_the_files_are_their_owners_alone(env: Environment) -> None:
    assert env.path.stat().st_mode & 0o077 == 0
    assert (env.path / "data.mdb").stat().st_mode & 0o077 == 0


def test_an_environment_that_was_carried_across_a_fork_is_refused(env: Environment) -> None:
    env._pid += 1  # what a forked child would see
    with pytest.raises(StoreError, match="opened before a fork"):
        get(env, b"k")


def _die_reading(path: str) -> None:
    env = open_environment(Path(path), databases=["a"], writer=False)
    with env.read():
        os._exit(0)


def test_the_slot_of_a_reader_that_died_is_freed_at_the_next_start(tmp_path: Path) -> None:
    open_environment(tmp_path / "env", databases=["a"], writer=True).close()
    process = multiprocessing.get_context("spawn").Process(target=_die_reading, args=(str(tmp_path / "env"),))
    process.start()
    process.join()
    with open_environment(tmp_path / "env", databases=["a"], writer=True) as env:
        assert "no active readers" in env._env.readers()


def mapped(path: Path) -> int:
    """Bytes of the store's map that this process holds."""
    held, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith(f" {path.resolve()}/data.mdb")
        elif ours and line.startswith("Rss:"):
            held += 1024 * int(line.split()[1])
    return held


def test_pages_that_were_read_are_given_back_and_can_be_read_on(tmp_path: Path) -> None:
    path = tmp_path / "store"
    with open_environment(path, databases=("a",), writer=True) as environment:
        for i in range(40):
            environment.write(lambda txn, i=i: txn.put("a", b"%d" % i, bytes((i,)) * 100_000))  # type: ignore[misc]
        with environment.read(lend=True) as txn:
            lent = [value for _, value in txn.scan("a")]
            assert mapped(path) > 4_000_000
            environment.release()
            assert mapped(path) < 400_000
            assert [bytes(value[-2:]) for value in lent] == [bytes((int(key),)) * 2 for key, _ in txn.scan("a")]
        environment.release()
        environment.write(lambda txn: txn.put("a", b"0", b"new"))
        with environment.read() as txn:
            assert txn.get("a", b"0") == b"new"
            assert txn.get("a", b"7") == b"\x07" * 100_000


def test_a_new_store_on_a_full_disk_is_refused_with_a_sentence_and_kills_nobody(tmp_path: Path) -> None:
    """LMDB maps its lock file with holes in it, and to touch one on a full disk ends the process (SIGBUS)."""
    script = """
import sys
from pathlib import Path
from cryptod.errors import StoreError
from cryptod.store.environment import open_environment
try:
    open_environment(Path(sys.argv[1]), databases=["a"], writer=True)
except StoreError as error:
    print(error)
"""
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / "ballast").write_bytes(bytes(60 << 10))
        for _ in range(2):  # also over what the first attempt left
            done = subprocess.run([sys.executable, "-c", script, disk / "env"], capture_output=True, text=True)
            assert done.returncode == 0, done
            assert "is on a full disk (free some space, then it goes on by itself)" in done.stdout
            (disk / "ballast").write_bytes(bytes(56 << 10))
