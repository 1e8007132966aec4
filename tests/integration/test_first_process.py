"""The daemon as PID 1, as in a container without an init: no /dev/shm, orphans to wait for, and a SIGTERM that the kernel would drop."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cryptod.client import Client
from tests.integration.house import Daemon, SimulatedExchange, short_folder, wait_for

NAMESPACE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c")
DEVICES = """
mount --make-rprivate /
mount -t tmpfs -o mode=755 none /mnt
for device in null zero full random urandom; do : > /mnt/$device; mount --bind /dev/$device /mnt/$device; done
ln -s /proc/self/fd /mnt/fd
mount --rbind /mnt /dev
test ! -e /dev/shm
exec "$@"
"""
"""A /dev as small as it can be, without /dev/shm."""
ORPHAN = "(sleep 0.2; exit 3) & exit"
"""A process whose parent ends before it does: it is left to PID 1."""
COINS = 3


def possible() -> bool:
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    return subprocess.run([*NAMESPACE, DEVICES, "-", "true"], capture_output=True).returncode == 0


pytestmark = pytest.mark.skipif(not possible(), reason="no namespaces of processes and mounts here")


class Contained(Daemon):
    """The daemon as the first process of a namespace of its own; ``process`` is the `unshare` outside of it."""

    @property
    def init(self) -> psutil.Process:
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def inside(self, script: str) -> str:
        """What a shell command prints that is run in the daemon's namespaces, as `podman exec` does it."""
        enter = ["nsenter", "-t", str(self.init.pid), "-p", "-m", "--", "sh", "-c", script]
        return subprocess.run(enter, capture_output=True, text=True, timeout=30, check=True).stdout

    def zombies(self) -> list[str]:
        found = self.inside("cat /proc/[0-9]*/stat 2>/dev/null || true").splitlines()
        return [line for line in found if line.rpartition(")")[2].split()[0] == "Z"]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Contained]:
    with short_folder() as folder, SimulatedExchange("--coins", str(COINS), "--seed", "7") as exchange:
        made = Contained(folder, exchange, within=(*NAMESPACE, DEVICES, "-"), cryptod_universe_size=COINS)
        with contextlib.ExitStack() as stack:
            made.start()
            stack.callback(made.process.kill)  # which does nothing to one that has ended
            made.ready()
            yield made
            made.notify.close()


def test_it_is_the_first_process_and_trains_without_shared_memory(daemon: Contained) -> None:
    with daemon.client() as client:
        assert client.ping()["pid"] == 1
    daemon.wait_until_trained(COINS)
    assert "shm" not in daemon.inside("ls /dev")


def test_what_is_left_to_it_is_waited_for(daemon: Contained) -> None:
    for _ in range(3):
        daemon.inside(ORPHAN)
    wait_for(daemon.zombies, "an orphan that has ended", seconds=5)
    wait_for(lambda: not daemon.zombies(), "no zombie any more", seconds=10)


def test_its_own_children_are_still_told_apart_after_that(daemon: Contained) -> None:
    """The forkserver's end and a child's are seen where they were before."""
    with Client(str(daemon.socket)) as client:
        job = client.train("incremental")["id"]
        wait_for(lambda: next(row for row in client.jobs() if row["id"] == job)["state"] == "done", "the update")
        train = client.train("full")["id"]
        wait_for(lambda: next(row for row in client.jobs() if row["id"] == train)["state"] == "running", "a retrain")
        daemon.inside("for p in /proc/[0-9]*; do grep -q cryptod-train $p/comm && kill -9 ${p#/proc/}; done; true")
        wait_for(lambda: next(row for row in client.jobs() if row["id"] == train)["state"] in ("done", "failed"), "the retrain's end")
        assert not daemon.lines("a defect ended")
    wait_for(lambda: not daemon.zombies(), "no zombie", seconds=10)


def test_sigterm_ends_it_in_seconds_with_exit_code_0_and_nothing_is_left(daemon: Contained) -> None:
    relatives = [daemon.init, *daemon.init.children(recursive=True)]
    daemon.init.send_signal(signal.SIGTERM)
    assert daemon.process.wait(5) == 0
    assert daemon.lines("stopped")
    assert not [process for process in relatives if process.is_running()]
    assert not Path(daemon.socket).exists()
