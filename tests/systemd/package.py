"""`make test-deb`: the Debian package built, checked by lintian, and installed, used, upgraded and purged on a machine of its own.

Takes minutes, and so is no part of `make test`. ``BOX_STAGE`` names a tree that `make deb` has left (dist/stage), for whoever works on
these tests.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd import five_minutes
from tests.systemd.box import Box

ROOT = Path(__file__).parent.parent.parent
FIVE_MINUTES = five_minutes.SECONDS
FOOTPRINT = (
    "find /etc /opt /run /usr /var -xdev '(' -path /run/log -o -path /var/cache/man ')' -prune"
    " -o -iname '*cryptod*' -print -o -iname '*cryptoctl*' -print | sort"
)
"""What bears the name of the program, but for logs and for what `man` keeps of the pages that it has shown."""

pytestmark = pytest.mark.systemd


def build(stage: Path, version: str, folder: Path) -> Path:
    built = subprocess.run(
        ["sh", "packaging/debian/build", str(stage), version, str(folder)],
        cwd=ROOT, env={**os.environ, "LEVEL": "0"}, capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    (package,) = folder.glob(f"cryptod_{version}_*.deb")
    return package


@pytest.fixture(scope="module")
def stage(box_is_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the package is made of."""
    if ready := os.environ.get("BOX_STAGE"):
        yield Path(ready)
        return
    tree = tmp_path_factory.mktemp("stage")
    made = subprocess.run(["make", "install", f"DESTDIR={tree}", "PREFIX=/usr"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout[-3000:] + made.stderr[-3000:]
    yield tree
    shutil.rmtree(tree)


@pytest.fixture(scope="module")
def package(stage: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package as it is handed out."""
    folder = tmp_path_factory.mktemp("package")
    yield build(stage, "0.1.0-1", folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def newer(stage: Path, package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The next release, whose configuration file says something else."""
    folder = tmp_path_factory.mktemp("newer")
    settings = stage / "etc/cryptod/cryptod.toml"
    before = settings.read_text()
    settings.write_text(before.replace("size = 100", "size = 90"))
    try:
        yield build(stage, "0.1.0-2", folder)
    finally:
        settings.write_text(before)
        shutil.rmtree(folder)


class Machine:
    """A box that knew nothing of cryptod before, and packages laid into it."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.before = box.run(FOOTPRINT, timeout=FIVE_MINUTES).stdout

    def lay(self, package: Path) -> str:
        target = Path(f"/proc/{self.box.init}/root/srv/{package.name}")
        shutil.copy(package, target)
        return f"/srv/{package.name}"


@pytest.fixture(scope="module")
def machine(package: Path) -> Iterator[Machine]:
    with Box() as box:
        yield Machine(box)


def test_lintian_finds_nothing(package: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed")
    found = subprocess.run(["lintian", "--allow-root", "--fail-on", "error,warning", str(package)], capture_output=True, text=True)
    assert found.stdout + found.stderr == ""
    assert found.returncode == 0


def test_the_readme_leads_from_the_package_to_forecasts_in_five_minutes(machine: Machine, package: Path) -> None:
    where = machine.lay(package)

    def typed(command: str) -> str:
        return command.replace("sudo ", "").replace("./dist/cryptod_*.deb", where).replace("apt install", "apt-get install -qy")

    print(f"\nfrom apt install to a forecast: {five_minutes.spend(machine.box, typed):.0f} s")


def test_the_manual_and_the_completion_are_where_they_are_looked_for(machine: Machine) -> None:
    for page in ("8 cryptod", "1 cryptoctl", "5 cryptod.toml"):
        assert "NAME" in machine.box.run(f"man {page}").stdout
    machine.box.run("systemctl help cryptod | grep -q 'cryptod.toml - the configuration'")
    completed = "source /usr/share/bash-completion/completions/cryptoctl; COMP_WORDS=(cryptoctl get BTC); COMP_CWORD=2; _cryptoctl"
    assert "BTC/USDT" in machine.box.run(f'{completed}; echo "${{COMPREPLY[@]}}"').stdout
    for path in ("/usr/share/zsh/vendor-completions/_cryptoctl", "/usr/share/fish/vendor_completions.d/cryptoctl.fish"):
        machine.box.run(f"test -s {path}")


def test_nothing_of_it_is_changed_by_use(machine: Machine) -> None:
    changed = machine.box.run("dpkg --verify cryptod", check=False).stdout.splitlines()
    assert [line for line in changed if not line.endswith(" c /etc/cryptod/cryptod.toml")] == []
    owned = machine.box.run("dpkg -L cryptod | sort").stdout.splitlines()
    lying = machine.box.run("find /opt/cryptod | sort").stdout.splitlines()
    assert set(lying) <= set(owned)


def test_an_upgrade_keeps_settings_and_state_and_restarts_what_runs(machine: Machine, newer: Path) -> None:
    box = machine.box
    settings, before = box.run("cat /etc/cryptod/cryptod.toml").stdout, box.show("cryptod", "MainPID")
    box.run(
        f"DEBIAN_FRONTEND=noninteractive apt-get install -qy -o Dpkg::Options::=--force-confold {machine.lay(newer)}", timeout=FIVE_MINUTES
    )
    assert box.run("dpkg-query -W -f '${Version}' cryptod").stdout == "0.1.0-2"
    assert box.run("cat /etc/cryptod/cryptod.toml").stdout == settings
    assert box.show("cryptod", "ActiveState") == "active"
    assert box.show("cryptod", "MainPID") != before
    box.run("cryptoctl get BTC", user="nobody")
    assert box.run("systemctl is-enabled cryptod.service cryptod.socket").stdout.split() == ["enabled", "enabled"]


def test_removed_it_keeps_settings_and_state_and_comes_back(machine: Machine, newer: Path) -> None:
    box = machine.box
    box.run("cp /etc/cryptod/cryptod.toml /etc/cryptod/one.toml; systemctl enable -q --now cryptod@one; cryptoctl --instance one ping")
    box.run("apt-get remove -qy cryptod", timeout=FIVE_MINUTES)
    assert box.run("pgrep -u cryptod", check=False).stdout == ""
    assert box.run("ls /etc/systemd/system/*.wants | grep cryptod@", check=False).stdout == ""
    box.run("test ! -e /opt/cryptod && test -e /etc/cryptod/cryptod.toml && test -e /var/lib/cryptod/serving")
    box.run(f"DEBIAN_FRONTEND=noninteractive apt-get install -qy {machine.lay(newer)}", timeout=FIVE_MINUTES)
    assert box.show("cryptod", "ActiveState") == "inactive"
    box.run("systemctl enable -q --now cryptod")
    box.wait("cryptoctl get BTC")


def test_purged_it_leaves_nothing(machine: Machine) -> None:
    box = machine.box
    box.run("systemctl stop exchange; apt-get purge -qy cryptod", timeout=FIVE_MINUTES)
    assert box.run(FOOTPRINT, timeout=FIVE_MINUTES).stdout == machine.before
    assert box.run("getent passwd cryptod; getent group cryptod", check=False).stdout == ""
