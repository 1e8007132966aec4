"""Several daemons on one machine under a real systemd: two instances beside each other, and a user's own in `systemctl --user`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.systemd.box import Box

pytestmark = pytest.mark.systemd

SETTINGS = """
[exchange]
url = "http://127.0.0.1:{port}"
[universe]
size = {coins}
[train]
batch_size = 3
months_back = 2
epochs = 2
"""
HAS_FORECASTS = 'import json, sys; sys.exit(json.load(sys.stdin)["cache"]["entries"] < {coins})'
INSTANCES = {"one": (8101, 3), "two": (8102, 4)}
"""Name -> the port of its exchange, and its coins."""


CHANGES = {
    "size = 100": "size = {coins}",
    'url = ""': 'url = "http://127.0.0.1:{port}"',
    "months_back = 6": "months_back = 2",
    "epochs = 50": "epochs = 2",
}


@pytest.fixture(scope="module")
def machine(box: Box) -> Iterator[Box]:
    """Two exchanges and two instances; each configuration is a copy of the documented one, which names the system's folders."""
    documented = box.run("cat /etc/cryptod/cryptod.toml").stdout
    for name, (port, coins) in INSTANCES.items():
        box.run(f"systemd-run -q --unit=exchange-{name} /opt/cryptod/bin/cryptod simulate --port {port} --coins {coins} --seed {port}")
        text = documented
        for usual, own in CHANGES.items():
            assert usual in text
            text = text.replace(usual, own.format(port=port, coins=coins))
        box.write(f"/etc/cryptod/{name}.toml", text)
    box.run("systemctl enable -q --now cryptod@one cryptod@two")
    yield box
    box.run("systemctl disable -q --now cryptod@one cryptod@two cryptod@one.socket cryptod@two.socket", check=False)


def ask(box: Box, command: str, **options: Any) -> Any:
    return json.loads(box.run(f"cryptoctl --json {command}", **options).stdout)


def test_each_instance_collects_trains_and_answers_by_its_name_with_a_state_of_its_own(machine: Box) -> None:
    for name, (port, coins) in INSTANCES.items():
        machine.wait(f"cryptoctl --json --instance {name} status | python3 -c '{HAS_FORECASTS.format(coins=coins)}'", seconds=120)
        status = ask(machine, f"--instance {name} status", user="nobody")
        assert status["exchange"]["url"] == f"http://127.0.0.1:{port}"
        assert status["disk"]["path"] == f"/var/lib/cryptod@{name}"
        assert status["process"]["pid"] == int(machine.show(f"cryptod@{name}", "MainPID"))
        assert len(ask(machine, f"symbols --instance={name}")["followed"]) == coins
        owner = machine.run(f"stat -c '%a %U' /run/cryptod@{name}/cryptod.sock /var/lib/cryptod@{name}").stdout.split()
        assert owner == ["666", "cryptod", "750", "cryptod"]
    assert machine.run("systemctl is-active cryptod", check=False).stdout.strip() == "inactive", "the one without a name is not needed"
    pid = ask(machine, "--instance two ping")["pid"]
    assert json.loads(machine.run("CRYPTOD_INSTANCE=two cryptoctl --json ping").stdout)["pid"] == pid
    code = 'from cryptod.client import Client; print(Client(instance="two").ping()["pid"])'
    assert int(machine.run(f"/opt/cryptod/bin/python -c '{code}'").stdout) == pid


def test_one_is_stopped_and_killed_without_the_other(machine: Box) -> None:
    before = machine.show("cryptod@two", "MainPID")
    machine.run("systemctl kill -s KILL cryptod@one")
    machine.wait("cryptoctl --instance one ping")
    machine.run("systemctl stop cryptod@one.socket cryptod@one")
    gone = machine.run("cryptoctl --instance one ping", check=False)
    assert gone.returncode == 3
    assert "systemctl status cryptod@one" in gone.stderr
    assert machine.show("cryptod@two", "MainPID") == before
    machine.run("systemctl start cryptod@one && cryptoctl --instance one ping")


NOT_STARTED = {
    "three": "no configuration file /etc/cryptod/three.toml",
    "a-b": "cannot be an instance's name",
    "cryptod": "cannot be an instance's name",
}


@pytest.mark.parametrize(("unit", "why"), NOT_STARTED.items())
def test_an_instance_that_cannot_be_says_why_and_is_not_tried_again(machine: Box, unit: str, why: str) -> None:
    machine.run(f"systemctl start cryptod@{unit}", check=False)
    assert machine.show(f"cryptod@{unit}", "ExecMainStatus") == "78"
    assert machine.show(f"cryptod@{unit}", "ActiveState") == "failed"
    assert why in machine.journal(f"cryptod@{unit}")
    machine.run(f"systemctl stop cryptod@{unit}.socket; systemctl reset-failed")


def test_completion_offers_the_instances_and_their_coins(machine: Box) -> None:
    script = "source /usr/local/share/bash-completion/completions/cryptoctl; COMP_WORDS=({words}); COMP_CWORD=$(({count} - 1)); _cryptoctl"

    def offered(*words: str) -> list[str]:
        line = script.format(words=" ".join(f'"{word}"' for word in words), count=len(words))
        return sorted(machine.run(f'{line}; echo "${{COMPREPLY[@]}}"').stdout.split())

    assert offered("cryptoctl", "--instance", "") == ["one", "two"]
    coins = [row["symbol"] for row in ask(machine, "--instance two symbols")["followed"]]
    assert offered("cryptoctl", "--instance", "two", "get", "") == sorted(coins)


def test_a_users_own_daemon_runs_in_the_users_systemd_and_is_found_without_a_word(machine: Box) -> None:
    machine.run("useradd --create-home --home-dir /srv/ann --shell /bin/bash ann && loginctl enable-linger ann")
    uid = int(machine.run("id -u ann").stdout)
    machine.wait(f"systemctl is-active user@{uid} && test -S /run/user/{uid}/bus")
    machine.write("/srv/ann/.config/cryptod/cryptod.toml", SETTINGS.format(port=8101, coins=3))
    machine.run("chown -R ann: /srv/ann")
    session = f"HOME=/srv/ann XDG_RUNTIME_DIR=/run/user/{uid} DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{uid}/bus"

    def ann(command: str, *, check: bool = True) -> str:
        """What ann types in a session of hers."""
        return machine.run(f"cd; export {session}; {command}", user="ann", check=check, timeout=120).stdout

    ann("systemctl --user enable -q --now cryptod")
    ann(f"for i in $(seq 300); do cryptoctl --json status | python3 -c '{HAS_FORECASTS.format(coins=3)}' && exit; sleep 0.3; done; exit 1")
    status = json.loads(ann("cryptoctl --json status"))
    assert status["disk"]["path"] == "/srv/ann/.local/state/cryptod"
    assert set(ann("systemctl --user show cryptod -P MainPID -P ActiveState").split()) == {"active", str(status["process"]["pid"])}
    ann("cryptoctl train incremental")
    assert machine.run("cryptoctl ping", check=False).returncode == 3, "root asks the system's, which does not run"
    # The socket is the user's systemd's: a client that comes during a restart waits in it, and the daemon finds its folders again.
    ann("systemctl --user restart cryptod && cryptoctl ping && systemctl --user reload cryptod && cryptoctl ping")
    assert json.loads(ann("cryptoctl --json status"))["disk"]["path"] == "/srv/ann/.local/state/cryptod"
    verified = ann("systemd-analyze --user verify cryptod.service cryptod.socket 2>&1")
    assert "cryptod" not in verified, verified
    ann("systemctl --user disable -q --now cryptod.service cryptod.socket")
    assert ann("pgrep -u ann -f 'cryptod run'", check=False) == ""
    # Without any systemd: in the foreground, by its own socket, in the same folders.
    ann("(cryptod run & echo $! > ~/pid; wait) > ~/log 2>&1 & for i in $(seq 100); do cryptoctl ping && exit; sleep 0.1; done; exit 1")
    assert json.loads(ann("cryptoctl --json status"))["disk"]["path"] == "/srv/ann/.local/state/cryptod"
    ann("kill $(cat ~/pid); for i in $(seq 100); do kill -0 $(cat ~/pid) || exit 0; sleep 0.1; done; exit 1")
