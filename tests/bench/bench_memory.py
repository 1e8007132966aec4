"""How much memory it takes: all processes of the daemon together, at rest, at the peak of each kind of training, and under a cap.

    python -m tests.bench.bench_memory [--coins 100] [--limit 512]

A whole house runs: a simulated exchange, which is not counted, and `cryptod run` with its children. Memory is the sum of their
proportional set sizes (PSS: a page that several share is counted once over all of them), as the kernel says it in `smaps_rollup`, looked
at as often as it can be and at most every 20 ms; of a peak the largest sum counts.

The whole cycle (half a year of candles collected, a full retrain, a restart six hours later, an incremental update) runs a second time in
a control group with a memory limit, where the page cache counts as well; it must get through without the kernel ending anything. Where
such a group cannot be made (no rights, no memory controller) that is said, and not measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from cryptod.market import HOUR
from tests.bench.figures import Figure, house, report
from tests.integration.house import Daemon, wait_for

MB = 1_000_000
PATIENCE = 600.0
LATER = 6 * HOUR.ms
PAUSE = 0.02
REST = 3.0
"""Seconds over which the daemon at rest is looked at."""
GROUPS = Path("/sys/fs/cgroup")


class Memory:
    """Looks at a daemon's processes from a thread of its own for as long as the context lasts. ``sums``: bytes, in order of time."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.sums: list[int] = []
        self.highest: dict[str, int] = {}
        """The processes, and what each had, when the sum was highest."""

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end.set()
        self._thread.join()

    @property
    def peak(self) -> float:
        """Megabytes."""
        return max(self.sums) / MB

    def _watch(self) -> None:
        while not self._end.wait(PAUSE):
            found = {f"{name} {pid}": size for pid, name, size in family(self._daemon.process.pid)}
            total = sum(found.values())
            if total > max(self.sums, default=0):
                self.highest = found
            self.sums.append(total)


def family(root: int) -> Iterator[tuple[int, str, int]]:
    """(process, name, PSS in bytes) of a process and all its descendants; who ends meanwhile is left out."""
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    waiting += map(int, Path(f"/proc/{pid}/task/{thread}/children").read_text().split())
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            yield pid, name, 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


class Group:
    """A control group of this run's own with a memory limit: version 2 where the machine has it alone, else version 1."""

    def __init__(self, limit: int) -> None:
        v2 = (GROUPS / "cgroup.controllers").exists()
        own = next(
            (path.lstrip("/") for _, which, path in map(_three, Path("/proc/self/cgroup").read_text().splitlines())
             if which == ("" if v2 else "memory")), "",
        )  # fmt: skip
        self.folder = (GROUPS if v2 else GROUPS / "memory") / own / f"cryptod-bench-{os.getpid()}"
        self._peak = "memory.peak" if v2 else "memory.max_usage_in_bytes"
        self._ended = "memory.events" if v2 else "memory.oom_control"
        self.folder.mkdir()
        try:
            (self.folder / ("memory.max" if v2 else "memory.limit_in_bytes")).write_text(str(limit))
        except OSError:
            self.folder.rmdir()
            raise

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        wait_for(self._gone, "the control group is empty", seconds=10)

    def _gone(self) -> bool:
        with contextlib.suppress(OSError):
            self.folder.rmdir()
        return not self.folder.exists()

    @property
    def peak(self) -> float | None:
        """Megabytes, page cache included, None where the kernel does not say (version 2 before Linux 5.19)."""
        with contextlib.suppress(OSError):
            return int((self.folder / self._peak).read_text()) / MB
        return None

    @property
    def ended(self) -> int:
        """How many processes the kernel has ended for want of memory."""
        rows = dict(line.split() for line in (self.folder / self._ended).read_text().splitlines())
        return int(rows.get("oom_kill", 0))


def _three(line: str) -> tuple[str, str, str]:
    number, controllers, path = line.split(":", 2)
    return number, controllers, path


def measured(coins: int) -> Iterator[Figure]:
    with house(coins) as daemon:
        rest(daemon)
        with Memory(daemon) as memory:
            time.sleep(REST)
        told("at rest", memory)
        yield Figure("idle", statistics.median(memory.sums) / MB, "MB", 80.0, "lower")
        with Memory(daemon) as memory:
            train(daemon, "full")
        told("full retrain", memory)
        yield Figure("peak_full_retrain", memory.peak, "MB", 380.0, "lower")
        daemon.stop()
        with house(coins, trained=False, after=daemon, ahead=LATER) as later:
            with Memory(later) as memory:
                wait_for_update(later)
            told("collecting and an incremental update", memory)
            yield Figure("peak_incremental_update", memory.peak, "MB", 380.0, "lower")


def capped(coins: int, limit: int) -> Iterator[Figure]:
    """The cycle once more, in a control group."""
    try:
        group = Group(limit << 20)
    except OSError as error:
        print(f"\nthe cycle under a limit of {limit} MiB: not measured, for no control group can be made here: {error}")
        return
    with group:
        within = ("sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group.folder))
        with house(coins, within=within) as daemon:
            daemon.stop()
            with house(coins, trained=False, after=daemon, ahead=LATER, within=within) as later:
                wait_for_update(later)
            peak, ended = group.peak, group.ended
    print(f"\nthe cycle under a limit of {limit} MiB: {ended} processes ended by the kernel; at most "
          f"{'unknown' if peak is None else f'{peak:.0f} MB'}, page cache included")  # fmt: skip
    yield Figure(f"ended_by_kernel_under_{limit}_mib", ended, "processes", 0.0, "lower")


def rest(daemon: Daemon) -> None:
    """Wait until no child is left: the collect child stays for ten seconds."""
    wait_for(lambda: not daemon.child("cryptod-train") and not daemon.child("cryptod-collect"), "the children are gone", seconds=PATIENCE)


def train(daemon: Daemon, kind: str) -> None:
    with daemon.client() as client:
        number = client.train(kind)["id"]
        wait_for(lambda: ended(daemon, number), f"the end of the {kind} training", seconds=PATIENCE)


def ended(daemon: Daemon, number: int) -> bool:
    with daemon.client() as client:
        (job,) = (job for job in client.jobs(5) if job["id"] == number)
    if job["state"] in ("failed", "cancelled") or job["error"]:
        raise SystemExit(f"{job['kind']} training {number} {job['state']}: {job['error']}")
    return bool(job["state"] == "done")


def wait_for_update(daemon: Daemon) -> None:
    """The update that was overdue at the daemon's start is done."""
    daemon.wait_for(lambda client: client.status()["training"]["last_incremental"], "the incremental update", seconds=PATIENCE)


def told(what: str, memory: Memory) -> None:
    parts = ", ".join(f"{name} {size / MB:.0f}" for name, size in sorted(memory.highest.items(), key=lambda item: -item[1]))
    print(f"{what}: at most {memory.peak:.0f} MB in {len(memory.sums)} looks ({parts})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--coins", type=int, default=100)
    parser.add_argument("--limit", type=int, default=512, help="MiB")
    options = parser.parse_args()
    report([*measured(options.coins), *capped(options.coins, options.limit)])


if __name__ == "__main__":
    main()
