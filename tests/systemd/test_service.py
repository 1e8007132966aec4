"""The installed daemon under a real systemd: started, stopped, reloaded, killed, hung, and reached through its socket.

The exchange is `cryptod simulate` on the box's own loopback; five coins and two months of candles are trained in seconds.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.systemd.box import Box

pytestmark = pytest.mark.systemd

CONFIG = """
[exchange]
url = "http://127.0.0.1:8099"
[universe]
size = 5
[train]
batch_size = 3
months_back = 2
epochs = 2
"""

WATCHDOG = 3
DONE = """cryptoctl --json jobs | python3 -c 'import json, sys; sys.exit([job["state"] for job in json.load(sys.stdin)][:1] != ["done"])'"""
"""The newest job is done; that a batch of it is, or that the word stands somewhere, is not enough."""


@pytest.fixture(scope="module")
def machine(box: Box) -> Box:
    """The box with an exchange, a configuration, and a watchdog that does not let a test wait for half a minute."""
    box.write("/etc/cryptod/cryptod.toml", CONFIG)
    box.write("/etc/systemd/system/cryptod.service.d/quick.conf", f"[Service]\nWatchdogSec={WATCHDOG}\n")
    box.run("systemctl daemon-reload; systemd-run -q --unit=exchange /opt/cryptod/bin/cryptod simulate --port 8099 --coins 5")
    return box


def drop_in(box: Box, text: str) -> None:
    """A change to the unit that lasts until the machine is started anew, or `undo`."""
    box.write("/run/systemd/system/cryptod.service.d/test.conf", f"[Service]\n{text}\n")
    box.run("systemctl daemon-reload")


def undo(box: Box) -> None:
    box.run("rm -f /run/systemd/system/cryptod.service.d/test.conf; systemctl daemon-reload")


@pytest.fixture
def daemon(machine: Box) -> Iterator[Box]:
    """The daemon is running, and counts no restart yet."""
    machine.run("systemctl stop cryptod.service cryptod.socket; systemctl reset-failed; systemctl start cryptod")
    yield machine
    machine.write("/etc/cryptod/cryptod.toml", CONFIG)


def ask(box: Box, command: str) -> Any:
    return json.loads(box.run(f"cryptoctl --json {command}").stdout)


def wait_for_forecasts(box: Box) -> None:
    """Every coin is trained and published."""
    look = 'import json, sys; s = json.load(sys.stdin); sys.exit(s["cache"]["entries"] < 5 or not s["training"]["last_full"])'
    box.wait(f"cryptoctl --json status | python3 -c '{look}'", seconds=90)


def test_it_is_ready_when_it_can_answer_and_says_what_it_does(daemon: Box) -> None:
    assert daemon.run("cryptoctl ping", user="nobody").returncode == 0
    assert ask(daemon, "ping")["pid"] == int(daemon.show("cryptod", "MainPID"))
    daemon.wait("systemctl show cryptod -P StatusText | grep -q 5")  # the coins, once they are known
    assert daemon.run("stat -c '%a %U' /run/cryptod/cryptod.sock /var/lib/cryptod").stdout.split() == ["666", "cryptod", "750", "cryptod"]


def test_it_collects_trains_and_serves_under_its_hardening(daemon: Box) -> None:
    wait_for_forecasts(daemon)
    best = ask(daemon, "top")
    assert len(best) == 5
    forecast = ask(daemon, f"get {best[0]['symbol']}")
    assert forecast["symbol"] == best[0]["symbol"]
    assert "denied" not in daemon.journal().lower()
    assert "not permitted" not in daemon.journal().lower()


def test_the_journal_has_native_fields(daemon: Box) -> None:
    wait_for_forecasts(daemon)
    lines = [json.loads(line) for line in daemon.run("journalctl -u cryptod -o json --no-pager CRYPTOD_BATCH=1").stdout.splitlines()]
    assert lines
    assert lines[0]["SYSLOG_IDENTIFIER"] == "cryptod"
    assert int(lines[0]["PRIORITY"]) <= 6
    assert float(next(line["CRYPTOD_DURATION"] for line in lines if "CRYPTOD_DURATION" in line)) > 0


def test_the_journal_is_asked_by_coin(daemon: Box) -> None:
    wait_for_forecasts(daemon)
    coin = ask(daemon, "top")[0]["symbol"]
    daemon.run(f"cryptoctl scores {coin}", check=False)  # nothing is scored yet, and that is said; making it was logged all the same
    daemon.wait(f"journalctl -u cryptod -o json --no-pager CRYPTOD_SYMBOL={coin} | grep -q .")
    assert daemon.run("journalctl -u cryptod -o cat --no-pager CRYPTOD_SYMBOL=NO/PE").stdout == ""


def test_who_may_read_may_not_change(daemon: Box) -> None:
    refused = daemon.run("cryptoctl train full", check=False, user="nobody")
    assert refused.returncode == 1
    assert refused.stderr
    assert daemon.run("cryptoctl train full", check=False).returncode == 0
    assert daemon.run("cryptoctl cache pregenerate", check=False, user="cryptod").returncode == 0


def test_a_reload_takes_what_it_can_and_names_the_rest(daemon: Box) -> None:
    before = daemon.show("cryptod", "MainPID")
    daemon.write("/etc/cryptod/cryptod.toml", CONFIG.replace("epochs = 2", "epochs = 3") + "[market]\nhorizons = 12\n")
    daemon.run("systemctl reload cryptod")
    daemon.wait("journalctl -u cryptod --no-pager -o json CRYPTOD_WAITING=market.horizons CRYPTOD_APPLIED=train.epochs | grep -q .")
    assert daemon.show("cryptod", "MainPID") == before
    assert daemon.show("cryptod", "ActiveState") == "active"


def test_a_reload_of_a_wrong_configuration_keeps_the_old_one(daemon: Box) -> None:
    daemon.write("/etc/cryptod/cryptod.toml", CONFIG + "[trian]\nepochs = 1\n")
    daemon.run("systemctl reload cryptod")
    daemon.wait("journalctl -u cryptod --no-pager | grep -q 'was not reloaded'")
    daemon.run("cryptoctl ping")


def test_a_wrong_configuration_ends_the_start_with_its_path_and_no_second_try(machine: Box) -> None:
    machine.run("systemctl stop cryptod.service cryptod.socket; systemctl reset-failed")
    machine.write("/etc/cryptod/cryptod.toml", CONFIG.replace("batch_size = 3", "batch_size = 0"))
    try:
        assert machine.run("systemctl start cryptod", check=False).returncode != 0
        time.sleep(1.0)
        assert machine.show("cryptod", "ActiveState") == "failed"
        assert machine.show("cryptod", "NRestarts") == "0"
        assert "train.batch_size = 0 (/etc/cryptod/cryptod.toml:7): must be 1 to 200" in machine.journal()
    finally:
        machine.write("/etc/cryptod/cryptod.toml", CONFIG)


def test_a_state_directory_that_cannot_be_written_is_tried_until_it_can(daemon: Box) -> None:
    daemon.run("systemctl stop cryptod.service cryptod.socket; cryptod_is=$(id -u cryptod),gid=$(id -g cryptod);"
               " mount -t tmpfs -o ro,mode=0750,uid=$cryptod_is none /var/lib/cryptod")  # fmt: skip
    try:
        assert daemon.run("systemctl start cryptod", check=False).returncode != 0
        daemon.wait("[ $(systemctl show cryptod -P NRestarts) -ge 2 ]")
        assert "its file system is mounted read-only: mount it read-write" in daemon.journal()
        daemon.run("mount -o remount,rw /var/lib/cryptod")
        daemon.wait("[ $(systemctl show cryptod -P ActiveState) = active ]", seconds=15)
    finally:
        daemon.run("systemctl stop cryptod.service cryptod.socket; umount /var/lib/cryptod")


def test_it_stops_within_five_seconds_while_it_trains_and_leaves_no_process(daemon: Box) -> None:
    wait_for_forecasts(daemon)
    daemon.run("cryptoctl train full")
    daemon.wait("pgrep -u cryptod -c | awk '{ exit $1 < 4 }'")  # the daemon, the forkserver, its tracker, the child
    began = time.monotonic()
    daemon.run("systemctl stop cryptod")
    assert time.monotonic() - began < 5.0
    assert daemon.show("cryptod", "Result") == "success"
    assert daemon.run("pgrep -u cryptod", check=False).stdout == ""


def test_killed_it_is_back_with_its_forecasts(daemon: Box) -> None:
    wait_for_forecasts(daemon)
    coin = ask(daemon, "top")[0]["symbol"]
    before = ask(daemon, f"get {coin}")
    daemon.run("systemctl kill -s KILL --kill-who=main cryptod")
    began = time.monotonic()
    after = ask(daemon, f"get {coin}")  # waits in the socket's queue
    assert time.monotonic() - began < 5.0
    assert after["cutoff"] >= before["cutoff"]
    daemon.wait("[ $(systemctl show cryptod -P ActiveState) = active ]")
    assert daemon.show("cryptod", "NRestarts") == "1"


def test_a_killed_child_leaves_the_daemon_serving(daemon: Box) -> None:
    wait_for_forecasts(daemon)
    before = daemon.show("cryptod", "MainPID")
    daemon.run("cryptoctl train full")
    daemon.wait("pgrep -u cryptod -c | awk '{ exit $1 < 4 }'")
    daemon.run("kill -9 $(pgrep -u cryptod -n)")
    daemon.run("cryptoctl ping")
    daemon.wait(DONE, seconds=60)
    assert daemon.show("cryptod", "MainPID") == before
    assert daemon.show("cryptod", "NRestarts") == "0"


def test_a_child_that_the_kernel_takes_for_its_memory_leaves_the_daemon_serving(daemon: Box) -> None:
    wait_for_forecasts(daemon)
    before = daemon.show("cryptod", "MainPID")
    daemon.run("systemctl set-property --runtime cryptod.service MemoryMax=130M")
    try:
        job = ask(daemon, "train full")["id"]
        ended = f"""cryptoctl --json jobs | python3 -c 'import json, sys
sys.exit(not [job for job in json.load(sys.stdin) if job["id"] == {job} and job["state"] == "failed"])'"""
        daemon.wait(ended, seconds=60)
    finally:
        daemon.run("systemctl set-property --runtime cryptod.service MemoryMax=800M")
    counters = "/sys/fs/cgroup/{memory/,}system.slice/cryptod.service/memory.{oom_control,events}"
    assert daemon.run(f"cat {counters} 2>/dev/null | grep -E '^oom_kill [1-9]'").stdout, "the kernel killed nothing"
    assert daemon.show("cryptod", "MainPID") == before
    assert daemon.show("cryptod", "ActiveState") == "active"
    assert len(ask(daemon, "top")) == 5


def test_hung_it_is_restarted_by_the_watchdog(daemon: Box) -> None:
    before = daemon.show("cryptod", "MainPID")
    daemon.run(f"kill -STOP {before}")
    began = time.monotonic()
    daemon.wait("[ $(systemctl show cryptod -P NRestarts) = 1 ] && [ $(systemctl show cryptod -P ActiveState) = active ]", seconds=30)
    assert WATCHDOG / 2 < time.monotonic() - began < WATCHDOG + 10
    assert daemon.show("cryptod", "MainPID") != before
    assert "watchdog" in daemon.run("journalctl -u cryptod --no-pager _PID=1 -o cat").stdout.lower()
    daemon.run("cryptoctl ping")


BLOCKED = """
import sys, time
from cryptod.__main__ import main
from cryptod.daemon.handlers import Handlers

Handlers.schedule = lambda self, request, peer: time.sleep(600)
sys.exit(main(["run"]))
"""


def test_with_its_loop_blocked_it_is_restarted_by_the_watchdog(machine: Box) -> None:
    machine.write("/opt/probe/blocked.py", BLOCKED)
    drop_in(machine, "ExecStart=\nExecStart=/opt/cryptod/bin/python /opt/probe/blocked.py")
    try:
        machine.run("systemctl stop cryptod.service cryptod.socket; systemctl reset-failed; systemctl start cryptod")
        before = machine.show("cryptod", "MainPID")
        machine.run("(cryptoctl schedule >/dev/null 2>&1 &)")  # is not answered: nothing is, from now on
        machine.wait("[ $(systemctl show cryptod -P NRestarts) = 1 ] && [ $(systemctl show cryptod -P ActiveState) = active ]", seconds=60)
        assert machine.show("cryptod", "MainPID") != before
        assert "watchdog" in machine.run("journalctl -u cryptod --no-pager _PID=1 -o cat").stdout.lower()
        machine.run("cryptoctl ping")
    finally:
        undo(machine)


def test_the_watchdog_leaves_an_idle_daemon_alone(daemon: Box) -> None:
    time.sleep(1.5 * WATCHDOG)
    assert daemon.show("cryptod", "NRestarts") == "0"


def test_a_client_that_comes_before_the_daemon_wakes_it_and_is_answered(machine: Box) -> None:
    machine.run("systemctl stop cryptod.service cryptod.socket; systemctl reset-failed; systemctl start cryptod.socket")
    assert machine.show("cryptod", "ActiveState") == "inactive"
    machine.run("cryptoctl ping", user="nobody")
    assert machine.show("cryptod", "ActiveState") == "active"


LOAD = """
import os, sys, threading
from cryptod.client import Client

asked, failed = [0, 0], []

def ask(kind):
    kept = Client(timeout=60)
    while not os.path.exists("/tmp/enough"):
        try:
            if kind:
                kept.ping()
            else:
                with Client(timeout=60) as client:
                    client.ping()
            asked[kind] += 1
        except Exception as error:
            failed.append(f"{('a client for each request', 'one client')[kind]}: {error!r}")

threads = [threading.Thread(target=ask, args=(kind,)) for kind in (0, 0, 0, 1, 1)]
for thread in threads:
    thread.start()
print("asking", flush=True)
for thread in threads:
    thread.join()
print(*asked, *failed, sep="\\n")
"""


def test_no_request_fails_across_restarts_under_load(daemon: Box) -> None:
    """Those who connect for each request wait in the socket's queue; a client that stays connected asks again by itself."""
    daemon.write("/opt/probe/load.py", LOAD)
    daemon.run("rm -f /tmp/enough; (/opt/cryptod/bin/python /opt/probe/load.py >/tmp/load 2>&1 &)")
    daemon.wait("grep -q asking /tmp/load")
    for _ in range(3):
        daemon.run("systemctl restart cryptod")
    daemon.run("touch /tmp/enough")
    daemon.wait("[ $(wc -l </tmp/load) -ge 3 ]", seconds=90)
    _, new, kept, *failed = daemon.run("cat /tmp/load").stdout.splitlines()
    assert failed == []
    assert min(int(new), int(kept)) > 10


def test_systemds_socket_outlives_the_daemon_and_wakes_it_again(daemon: Box) -> None:
    """From Python 3.13 on asyncio would remove its path with each stop, and no client would find the daemon that starts next."""
    inode = daemon.run("stat -c %i /run/cryptod/cryptod.sock").stdout
    for command in ("systemctl restart cryptod", "systemctl stop cryptod.service"):
        daemon.run(command)
        assert daemon.run("stat -c %i /run/cryptod/cryptod.sock").stdout == inode
        daemon.run("cryptoctl ping", user="nobody")
    assert daemon.show("cryptod", "ActiveState") == "active"


HUNDRED = """
[exchange]
url = "http://127.0.0.1:8098"
[universe]
size = 100
[train]
epochs = 2
"""


def test_a_full_retrain_of_a_hundred_coins_stays_within_half_a_gigabyte(machine: Box) -> None:
    machine.run("systemctl stop cryptod.service cryptod.socket; systemctl reset-failed; mv /var/lib/cryptod /var/lib/cryptod.five")
    machine.write("/etc/cryptod/cryptod.toml", HUNDRED)
    drop_in(machine, "MemoryMax=512M\nMemorySwapMax=0")
    machine.run("systemd-run -q --unit=hundred /opt/cryptod/bin/cryptod simulate --port 8098 --coins 100")
    try:
        machine.run("systemctl start cryptod")
        machine.wait(DONE, seconds=600)
        job = next(job for job in ask(machine, "jobs") if job["kind"] == "full")
        assert [batch["state"] for batch in job["batches"]] == ["done"] * 4
        assert len(ask(machine, "top 100")) == 100
        counters = "/sys/fs/cgroup/{memory/,}system.slice/cryptod.service/memory.{oom_control,events}"
        assert machine.run(f"cat {counters} 2>/dev/null | grep -E '^oom_kill '").stdout.split() == ["oom_kill", "0"]
        assert machine.show("cryptod", "NRestarts") == "0"
    finally:
        machine.run(
            "systemctl stop hundred cryptod.service cryptod.socket; rm -rf /var/lib/cryptod; mv /var/lib/cryptod.five /var/lib/cryptod"
        )
        machine.write("/etc/cryptod/cryptod.toml", CONFIG)
        undo(machine)


def test_metrics_are_served_over_http_where_that_was_asked_for_and_by_nobody_between_two_scrapes(daemon: Box) -> None:
    assert daemon.run("systemctl is-enabled cryptod-metrics.socket", check=False).stdout.strip() == "disabled"
    daemon.run("systemctl start cryptod-metrics.socket")
    scrape = """python3 -c 'import urllib.request as u; print(u.urlopen("http://127.0.0.1:9477/metrics", timeout=60).read().decode())'"""
    assert "\ncryptod_up 1.0\n" in daemon.run(scrape).stdout
    daemon.run("systemctl stop cryptod.service cryptod.socket")
    assert "\ncryptod_up 0.0\n" in daemon.run(scrape).stdout
    storm = """python3 -c 'import socket; [socket.create_connection(("127.0.0.1", 9477)).close() for _ in range(600)]'"""
    daemon.run(storm)
    assert daemon.run("systemctl is-active cryptod-metrics.socket").stdout.strip() == "active", "a storm does not end it"
    daemon.wait("test -z \"$(systemctl list-units -q --state=running 'cryptod-metrics@*')\"")
    daemon.wait(f"{scrape} | grep -qx 'cryptod_up 0.0'")  # once the storm's last connections are through
    daemon.run("systemctl stop cryptod-metrics.socket")
