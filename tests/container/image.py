"""`make test-container`: the image built step by step, and run: READY, forecasts, an orphan, SIGTERM, and what lies in its volume.

By podman, buildah or docker where one of them works, else by `tests.container.builder` in a chroot. Takes minutes, and so is no part of
`make test`. ``BASE`` names another base image, ``CONTAINER_ROOT`` a folder that keeps what was built, for whoever works on these tests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.container.builder import CONTAINERFILE, CONTEXT, Builder, Image
from tests.integration.house import SETTINGS, SimulatedExchange, short_folder, wait_for

COINS = 3
UID = 10001
BASE = os.environ.get("BASE", "debian:trixie-slim")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def engine() -> str:
    """The builder of this machine that works, or nothing."""
    for name in ("podman", "docker"):
        try:
            if subprocess.run([name, "info"], capture_output=True, timeout=30).returncode == 0:
                return name
        except (OSError, subprocess.TimeoutExpired):
            continue
    return ""


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image's root: built by an engine and exported, or built by ourselves."""
    kept = os.environ.get("CONTAINER_ROOT")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("image")
    folder.mkdir(exist_ok=True)
    arguments = {"BASE": BASE, "TORCH_INDEX": os.environ.get("TORCH_INDEX", "")}
    began = time.monotonic()
    if name := engine():
        given = [f"--build-arg={key}={value}" for key, value in arguments.items()]
        subprocess.run([name, "build", "-f", str(CONTAINERFILE), *given, "-t", "cryptod-test", str(CONTEXT)], check=True)
        made = Builder(folder, arguments).build(only_read=True)
        number = subprocess.run([name, "create", "cryptod-test"], capture_output=True, text=True, check=True).stdout.strip()
        subprocess.run(f"{name} export {number} | tar x -C {made.root}; {name} rm {number}", shell=True, check=True)
    else:
        made = Builder(folder, arguments).build()
    used = subprocess.run(["du", "-sm", "--exclude=./lent", str(made.root)], capture_output=True, text=True, check=True).stdout.split()[0]
    print(f"\nbuilt by {name or 'our own steps'} of {BASE} in {time.monotonic() - began:.0f} s; the image has {used} MB")
    return made


class Container:
    """The image as it is run, with the machine's network."""

    def __init__(self, image: Image, exchange: SimulatedExchange, log: Path) -> None:
        self.image, self.log = image, log
        settings = SETTINGS | {"CRYPTOD_EXCHANGE_URL": exchange.url, "CRYPTOD_CLOCK": exchange.clock, "CRYPTOD_UNIVERSE_SIZE": str(COINS)}
        environ = image.environ | settings | {"LENT": ""}
        with log.open("wb") as stream:
            self.process = subprocess.Popen(
                image.enter([*image.entrypoint, *image.command]), env=environ, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )

    @property
    def init(self) -> psutil.Process:
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        """As `podman exec`."""
        enter = ["nsenter", "-t", str(self.init.pid), "-p", "-m", "-r", "-w", "-S", str(UID), "-G", str(UID), "--", *command]
        return subprocess.run(enter, env=self.image.environ, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="module")
def container(image: Image) -> Iterator[Container]:
    with short_folder() as folder, SimulatedExchange("--coins", str(COINS), "--seed", "7") as exchange:
        made = Container(image, exchange, folder / "log")
        yield made
        made.process.kill()
        made.process.wait()


def test_it_collects_trains_and_answers_as_the_first_process_of_an_ordinary_user(container: Container) -> None:
    def status() -> Any:
        assert container.process.poll() is None, container.log.read_text()
        return json.loads(container.inside("cryptoctl", "--json", "status").stdout or "null")

    def forecast() -> Any:
        told = status()
        return told if told and told["cache"]["entries"] == COINS and told["training"]["last_full"] else None

    found = wait_for(forecast, "forecasts", seconds=180)
    assert found["process"]["pid"] == 1
    assert found["disk"]["path"] == "/var/lib/cryptod"
    assert container.init.uids().effective == UID
    assert container.inside("ls", "/dev/shm").returncode != 0
    assert container.inside("cryptoctl", "get", "BTC").returncode == 0
    assert container.inside("sh", "-c", "(sleep 0.1) & exit").returncode == 0
    time.sleep(0.5)
    zombie = psutil.STATUS_ZOMBIE
    wait_for(lambda: not [one for one in container.init.children(recursive=True) if one.status() == zombie], "no zombie", seconds=5)


def test_it_ends_at_once_on_sigterm_and_its_state_belongs_to_the_user(container: Container) -> None:
    family = [container.init, *container.init.children(recursive=True)]
    container.init.send_signal(signal.SIGTERM)
    assert container.process.wait(10) == 0, container.log.read_text()
    assert not [process for process in family if process.is_running()]
    state = container.image.root / "var/lib/cryptod"
    assert {path.lstat().st_uid for path in (state, *state.rglob("*"))} == {UID}
    assert not (container.image.root / "run/cryptod/cryptod.sock").exists()
