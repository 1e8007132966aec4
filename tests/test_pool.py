"""The pool with real children: what they are like, and every way in which they can end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from multiprocessing import forkserver as stdlib_forkserver
from pathlib import Path

import psutil
import pytest

from cryptod.errors import LoadError, WorkerError
from cryptod.worker.messages import Batch, CollectDone, CollectOrder, Failed, Finished, Order, Progress, Report, TrainOrder
from cryptod.worker.pool import KILLED_RETRY_S, LOAD_RETRY_S, Pool

RUNNERS = {"collect": "tests.runners", "train": "tests.runners"}
ROOT = Path(__file__).resolve().parents[1]


def train(deed: str, job: int = 1) -> TrainOrder:
    return TrainOrder(
        job=job, kind="full", cutoff=0, candles=deed, checkpoints="", batches=(Batch(number=1, symbols=("A/USDT",)),), universe=("A/USDT",),
        champions={}, timeframe="1h", months_back=6, epochs=1, threads=1, seed=0,
    )  # fmt: skip


def collect(deed: str, job: int = 0) -> CollectOrder:
    return CollectOrder(
        job=job, now=0, candles=deed, exchange="x", url="", quote="USDT", timeframe="1h", months_back=6, size=1, include=(), exclude=(),
        select_universe=False,
    )  # fmt: skip


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[Pool]:
    one = Pool(runners=RUNNERS, memory_mb=300, linger={"collect": 0.3, "train": 0.0}, directory=str(tmp_path / "run"))
    yield one
    await one.stop()


async def carry_out(pool: Pool, order: Order, *, deadline_s: float = 20.0, silence_s: float = 10.0) -> tuple[Report, list[Report]]:
    heard: list[Report] = []
    final = await pool.run(order, on_report=heard.append, deadline_s=deadline_s, silence_s=silence_s)
    return final, heard


async def until_busy(pool: Pool) -> int:
    """Wait until a child has reported something; its process id."""
    await until_heard(pool, 1)
    return next(child.pid for child in pool.children if child.job is not None)


async def until_heard(pool: Pool, count: int) -> None:
    """Wait until so many children have reported something, and are at what they do next."""
    while sum(child.job is not None and child.beat > child.started for child in pool.children) < count:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            os.environ.pop(name, None)


async def test_a_child_is_small_harmless_and_knows_nothing_of_systemd_or_of_the_main_module(pool: Pool) -> None:
    with _environment(NOTIFY_SOCKET="/x", WATCHDOG_USEC="1", WATCHDOG_PID="1", LISTEN_FDS="1"):
        final, heard = await carry_out(pool, train("facts"))
        assert os.environ["NOTIFY_SOCKET"] == "/x"
    assert isinstance(final, Finished)
    assert isinstance(heard[0], Progress)
    facts = dict(line.split("=", 1) for line in heard[0].text.splitlines())
    assert facts["comm"] == "cryptod-train"
    assert facts["oom"] == "1000"
    assert facts["nice"] == "19"
    assert facts["disk"] == "idle"
    assert facts["main"] == "None"
    assert facts["environment"] == "MALLOC_ARENA_MAX,MALLOC_MMAP_THRESHOLD_,MALLOC_TRIM_THRESHOLD_"
    assert facts["threads"] == "1"
    assert facts["cards"] == ""
    assert facts["sigint"] == "True"
    assert "MALLOC_ARENA_MAX" not in os.environ


async def test_a_folder_with_a_path_longer_than_a_socket_s_holds_the_forkserver_s_socket_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/nonexistent")
    folder = tmp_path / ("x" * 120) / "run"
    pool = Pool(runners=RUNNERS, directory=str(folder))
    try:
        final, _ = await carry_out(pool, train(""))
        assert isinstance(final, Finished)
        (name,) = [path.name for path in folder.iterdir()]
        assert name.startswith(("listener-", "sock-"))  # the second from Python 3.14 on
    finally:
        await pool.stop()
    assert list(folder.iterdir()) == []
    for left in ("listener-a1", "sock-a1"):
        (folder / left).touch()
    Pool(runners=RUNNERS, directory=str(folder))  # of a daemon that was killed
    assert list(folder.iterdir()) == []


async def test_too_few_open_files_are_named_as_the_reason(pool: Pool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, hard))
    try:
        with pytest.raises(WorkerError, match="could not be started: Too many open files") as told:
            await carry_out(pool, train(""))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "LimitNOFILE=" in told.value.hint
    assert pool.children == []


async def test_a_child_started_ahead_imports_its_work_and_is_given_the_order(pool: Pool, tmp_path: Path) -> None:
    told = tmp_path / "imported"
    with _environment(RUNNERS_IMPORTED=str(told)):
        await pool.prepare("train", threads=1)
    (ready,) = pool.children
    assert ready.job is None
    while not (told.exists() and told.read_text()):  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)
    assert told.read_text() == str(ready.pid)
    _, heard = await carry_out(pool, train("facts"))
    assert isinstance(heard[0], Progress)
    assert f"pid={ready.pid}" in heard[0].text.splitlines()


async def test_a_child_started_ahead_that_dies_is_replaced(pool: Pool) -> None:
    await pool.prepare("train", threads=1)
    (ready,) = pool.children
    os.kill(ready.pid, signal.SIGKILL)
    final, _ = await carry_out(pool, train("done"))
    assert isinstance(final, Finished)


async def test_a_child_started_ahead_makes_room_for_an_order_of_another_kind(pool: Pool) -> None:
    await pool.prepare("train", threads=1)
    (ready,) = pool.children
    await carry_out(pool, collect("done"))
    assert gone(ready.pid)


async def test_reports_arrive_in_order_and_may_be_long(pool: Pool) -> None:
    final, heard = await carry_out(pool, train("long"))
    assert [type(report) for report in heard] == [Progress, Finished]
    assert heard[-1] is final
    assert isinstance(heard[0], Progress)
    assert len(heard[0].text) == 3_000_000


async def test_a_collect_child_waits_for_another_order_and_then_ends(pool: Pool) -> None:
    first, _ = await carry_out(pool, collect(""))
    second, _ = await carry_out(pool, collect(""))
    assert isinstance(first, CollectDone)
    assert isinstance(second, CollectDone)
    assert first.symbols == second.symbols
    (child,) = pool.children
    assert child.job is None
    await asyncio.sleep(0.6)
    assert pool.children == []
    assert gone(int(first.symbols[0]))
    third, _ = await carry_out(pool, collect(""))
    assert isinstance(third, CollectDone)
    assert third.symbols != first.symbols


async def test_a_child_that_is_killed_while_it_waits_is_replaced(pool: Pool) -> None:
    await carry_out(pool, collect(""))
    os.kill(pool.children[0].pid, signal.SIGKILL)
    final, _ = await carry_out(pool, collect(""))
    assert isinstance(final, CollectDone)


async def test_a_waiting_child_makes_room_for_one_of_another_kind(pool: Pool) -> None:
    first, _ = await carry_out(pool, collect(""))
    assert isinstance(first, CollectDone)
    await carry_out(pool, train(""))
    assert pool.children == []
    assert gone(int(first.symbols[0]))


@pytest.mark.parametrize(
    ("deed", "what"),
    [
        ("die", r"the train child was killed \(SIGKILL\) \(out of memory\?"),
        ("exit", "the train child ended with exit code 7 before its report"),
        ("nonsense", "the train child sent a report that is none"),
    ],
)
async def test_a_child_that_dies_is_an_error_that_says_how(pool: Pool, deed: str, what: str) -> None:
    with pytest.raises(WorkerError, match=what):
        await carry_out(pool, train(deed))
    assert pool.children == []
    final, _ = await carry_out(pool, train(""))
    assert isinstance(final, Finished)


@pytest.mark.parametrize("deed", ["sleep", "half", "deaf"])
async def test_a_child_that_says_nothing_is_ended(pool: Pool, deed: str) -> None:
    begin = time.monotonic()
    with pytest.raises(WorkerError, match="has said nothing for 1 s and was ended"):
        await carry_out(pool, train(deed), silence_s=0.6)
    assert time.monotonic() - begin < 4
    assert pool.children == []


async def test_a_child_that_takes_too_long_is_ended_though_it_reports(pool: Pool) -> None:
    with pytest.raises(WorkerError, match="took longer than 1 s"):
        await carry_out(pool, train("beat"), deadline_s=0.6)


async def test_a_child_that_needs_more_than_its_memory_fails_and_says_so(pool: Pool) -> None:
    final, _ = await carry_out(pool, train("hoard"))
    assert isinstance(final, Failed)
    assert final.error == "the train child needs more memory than its 300 MB"
    assert "worker.memory_mb" in final.hint


@pytest.mark.parametrize(("order", "remedy"), [(train("share"), "lower train.batch_size"), (collect("share"), "check exchange.id")])
async def test_memory_counts_wherever_it_is_and_the_remedy_is_that_of_the_child(pool: Pool, order: Order, remedy: str) -> None:
    final, _ = await carry_out(pool, order)
    assert isinstance(final, Failed)
    assert "needs more memory than its 300 MB" in final.error
    assert remedy in final.hint
    assert pool.unloadable == {}


def program(folder: Path, text: str) -> str:
    """A module of this text that children can run; its name."""
    name = f"program_{len(list(folder.iterdir()))}"
    (folder / f"{name}.py").write_text(f"import mmap, os, signal\nfrom tests.runners import run\n{textwrap.dedent(text)}\n")
    return name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


async def test_what_loading_takes_of_the_data_segment_is_not_counted_against_the_child(pool: Pool, folder: Path) -> None:
    # As the CUDA build of torch does, which uses a part of it.
    pool._runners = {"train": program(folder, "KEPT = mmap.mmap(-1, 600 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)")}
    final, _ = await carry_out(pool, train(""))
    assert isinstance(final, Finished)
    final, _ = await carry_out(pool, train("hoard"))
    assert isinstance(final, Failed)
    assert final.error == "the train child needs more memory than its 300 MB"


UNLOADABLE = [
    ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library' (install what is missing)"),
    ("raise ImportError('libx.so: cannot open')", "ImportError: libx.so: cannot open (a library is broken: install it anew)"),
    ("KEPT = b'x' * (400 << 20); import time; time.sleep(9)", "that takes more memory than its 300 MB (lower train.batch_size, "),
    ("raise MemoryError", "that takes more memory than its 300 MB (lower train.batch_size, "),
    ("os.kill(os.getpid(), signal.SIGILL)", "it was ended by SIGILL (a library was built for another processor: "),
    ("os._exit(3)", "it ended with exit code 3"),
]


@pytest.mark.parametrize(("text", "why"), UNLOADABLE)
@pytest.mark.parametrize("ahead", [False, True])
async def test_a_child_that_cannot_load_its_program_says_so(pool: Pool, folder: Path, text: str, why: str, ahead: bool) -> None:
    pool._runners = {"train": program(folder, text)}
    if ahead:
        await pool.prepare("train", threads=1)
    with pytest.raises(LoadError) as told:
        await carry_out(pool, train(""))
    assert str(told.value).startswith("the train child cannot load its program: ")
    assert why in str(told.value)
    assert pool.unloadable["train"].text == str(told.value)
    assert pool.held_back("train")
    assert not pool.held_back("collect")


async def test_a_child_killed_while_it_loads_is_tried_again_and_its_libraries_are_blamed_the_second_time(pool: Pool, folder: Path) -> None:
    pool._runners = {"train": program(folder, "os.kill(os.getpid(), signal.SIGKILL)")}
    with pytest.raises(WorkerError, match=r"the train child was killed \(SIGKILL\)") as first:
        await carry_out(pool, train(""))
    assert not isinstance(first.value, LoadError)
    assert not pool.held_back("train")
    for pause in (KILLED_RETRY_S, 2 * KILLED_RETRY_S, 4 * KILLED_RETRY_S):  # whoever kills it may stop soon, or not
        with pytest.raises(LoadError, match=r"cannot load its program: it was killed \(SIGKILL\)"):
            await carry_out(pool, train(""))
        assert pool.held_back("train")
        assert pool.unloadable["train"].retry == pause
    pool._runners = RUNNERS
    await carry_out(pool, train(""))
    assert pool.unloadable == {}


async def test_what_could_not_be_loaded_is_held_back_until_something_changes(
    pool: Pool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = folder / "site-packages"
    packages.mkdir()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(packages))
    broken, sound = program(folder, "import no_such_library"), "tests.runners"

    async def fail() -> None:
        pool._runners = {"train": broken}
        with pytest.raises(LoadError):
            await carry_out(pool, train(""))
        assert pool.held_back("train")

    await fail()
    (packages / "no_such_library").mkdir()
    assert not pool.held_back("train")
    await fail()
    pool.memory_mb += 100
    assert not pool.held_back("train")
    await fail()
    pool.try_again()
    assert not pool.held_back("train")
    assert "train" in pool.unloadable, "nobody has shown yet that it is mended"
    await fail()
    known = pool.unloadable["train"]
    monkeypatch.setattr("time.monotonic", lambda: known.at + LOAD_RETRY_S - 1)
    assert pool.held_back("train")
    monkeypatch.setattr("time.monotonic", lambda: known.at + LOAD_RETRY_S + 1)
    assert not pool.held_back("train")
    monkeypatch.undo()
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(packages))
    pool._runners = {"train": sound}
    await carry_out(pool, train(""))
    assert pool.unloadable == {}


async def test_errors_of_a_runner_come_back_as_failed(pool: Pool) -> None:
    defect, _ = await carry_out(pool, train("defect"))
    assert isinstance(defect, Failed)
    assert defect.error == "ZeroDivisionError: one by none"
    refused, _ = await carry_out(pool, collect("refused"))
    assert isinstance(refused, Failed)
    assert (refused.error, refused.hint, refused.retry_after) == ("the exchange banned us", "wait", 7.0)


@pytest.mark.parametrize("deed", ["sleep", "deaf"])
async def test_a_cancelled_job_ends_its_child_even_one_that_ignores_being_asked(pool: Pool, deed: str) -> None:
    task = asyncio.create_task(carry_out(pool, train(deed, job=5)))
    pid = await until_busy(pool)
    begin = time.monotonic()
    pool.cancel(5)
    with pytest.raises(WorkerError, match="the train child was cancelled"):
        await task
    assert time.monotonic() - begin < 2.5
    assert gone(pid)


async def test_a_cancelled_task_takes_its_child_with_it(pool: Pool) -> None:
    task = asyncio.create_task(carry_out(pool, train("sleep")))
    pid = await until_busy(pool)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert gone(pid)


async def test_an_order_survives_the_death_of_the_forkserver_and_the_next_one_gets_another(pool: Pool) -> None:
    task = asyncio.create_task(carry_out(pool, train("beat", job=2), deadline_s=60))
    pid = await until_busy(pool)
    server = stdlib_forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(server, signal.SIGKILL)
    beat = pool.children[0].beat
    async with asyncio.timeout(30):
        while pool.children[0].beat == beat:  # noqa: ASYNC110 - a child has no event to wait for
            await asyncio.sleep(0.02)
    final, _ = await carry_out(pool, collect(""))
    assert isinstance(final, CollectDone)
    assert stdlib_forkserver._forkserver._forkserver_pid != server  # type: ignore[attr-defined]
    pool.cancel(2)
    with pytest.raises(WorkerError, match="was cancelled"):
        await task
    assert gone(pid)


async def test_a_forkserver_that_hangs_is_replaced(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cryptod.worker.forkserver.START_S", 3.0)
    await carry_out(pool, train(""))
    server = stdlib_forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(server, signal.SIGSTOP)
    final, _ = await carry_out(pool, train(""))
    assert isinstance(final, Finished)


async def test_stop_ends_everything_in_three_seconds_and_refuses_more(pool: Pool) -> None:
    tasks = [asyncio.create_task(carry_out(pool, order)) for order in (train("deaf", job=3), collect("deaf", job=4))]
    await until_heard(pool, 2)
    pids = [child.pid for child in pool.children]
    begin = time.monotonic()
    await pool.stop()
    assert time.monotonic() - begin < 3
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, WorkerError)
        assert "was stopped" in outcome.message
    assert all(gone(pid) for pid in pids)
    assert stdlib_forkserver._forkserver._forkserver_pid is None  # type: ignore[attr-defined]
    assert psutil.Process().children() == []
    with pytest.raises(WorkerError, match="stopping"):
        await carry_out(pool, train(""))


async def test_a_stopped_forkserver_does_not_hold_up_the_end(pool: Pool) -> None:
    await carry_out(pool, train(""))
    os.kill(stdlib_forkserver._forkserver._forkserver_pid, signal.SIGSTOP)  # type: ignore[attr-defined]
    begin = time.monotonic()
    await pool.stop()
    assert time.monotonic() - begin < 3
    assert psutil.Process().children() == []


async def test_descriptors_are_given_back(pool: Pool) -> None:
    for deed in ("", "exit", "die"):
        with contextlib.suppress(WorkerError):
            await carry_out(pool, train(deed))
    before = len(os.listdir("/proc/self/fd"))
    for deed in ("", "exit", "die", "", "nonsense"):
        with contextlib.suppress(WorkerError):
            await carry_out(pool, train(deed))
    assert len(os.listdir("/proc/self/fd")) <= before


DAEMON = textwrap.dedent(
    """
    import asyncio, sys
    from tests.test_pool import train, RUNNERS
    from cryptod.worker.pool import Pool
    from multiprocessing import forkserver, resource_tracker

    print("main imported", flush=True)

    async def main():
        pool = Pool(runners=RUNNERS, directory=sys.argv[1])
        task = asyncio.create_task(pool.run(train("beat"), on_report=lambda _: None, deadline_s=60, silence_s=60))
        while not any(child.beat > child.started for child in pool.children):
            await asyncio.sleep(0.01)
        print(pool.children[0].pid, forkserver._forkserver._forkserver_pid, resource_tracker._resource_tracker._pid, flush=True)
        await task

    if __name__ == "__main__":
        asyncio.run(main())
    """
)


def test_no_process_outlives_a_daemon_that_is_killed_and_none_imports_its_main_module(tmp_path: Path) -> None:
    script = tmp_path / "daemon.py"
    script.write_text(DAEMON)
    daemon = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "run")], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True
    )
    assert daemon.stdout is not None
    with daemon:
        assert daemon.stdout.readline() == "main imported\n"
        pids = [int(word) for word in daemon.stdout.readline().split()]
        assert len(pids) == 3
        daemon.kill()
        rest = daemon.stdout.read()
    assert rest == ""
    end = time.monotonic() + 3
    while not all(gone(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.02)
    assert [pid for pid in pids if not gone(pid)] == []


def test_the_pool_loads_nothing_heavy() -> None:
    code = "import sys, cryptod.worker.pool; print(*sorted({'torch', 'ccxt', 'pandas', 'numpy', 'lmdb', 'aiohttp'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == ""
