"""The daemon of a user without root: in that user's XDG folders, found there by cryptoctl, out of nobody else's reach."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from cryptod.places import SYSTEM
from tests.integration.house import BIN, SETTINGS, NotifySocket, SimulatedExchange, clean_environment, short_folder, wait_for

ANN, BOB = 61_001, 61_002

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="only root can become other users, by setpriv")


def become(uid: int) -> list[str]:
    """What makes a command that user's. The user may read more than usual: the Python of a checkout can lie in root's home."""
    reading = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search", "--bounding-set=-all,+dac_read_search"]
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs", *reading, "--"]


class Ann:
    """An ordinary user with a home, a runtime folder as systemd makes it, and a daemon."""

    def __init__(self, folder: Path, exchange: SimulatedExchange) -> None:
        self.home, self.runtime = folder / "ann", folder / "run"
        for path in (self.home, self.runtime):
            path.mkdir(mode=0o700)
            os.chown(path, ANN, ANN)
        said = {name: value for name, value in SETTINGS.items() if name != "CRYPTOD_UNIVERSE_SIZE"}
        self.environ = clean_environment() | said | {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(self.runtime)}
        self.notify = NotifySocket(folder / "notify")
        self.notify.path.chmod(0o666)
        config = self.home / ".config/cryptod/cryptod.toml"
        config.parent.mkdir(parents=True)
        config.write_text(f'[exchange]\nurl = "{exchange.url}"\n[universe]\nsize = 3\n')
        self.log = folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*become(ANN), str(BIN / "cryptod"), "run", "--clock", exchange.clock], stdout=log, stderr=log, start_new_session=True,
                env=self.environ | {"NOTIFY_SOCKET": str(self.notify.path)}, cwd="/",
            )  # fmt: skip
        wait_for(lambda: self.notify.times("READY=1") or self.process.poll(), "READY=1")
        assert self.process.poll() is None, self.log.read_text()

    def ctl(self, *arguments: str, uid: int = ANN, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*become(uid), str(BIN / "cryptoctl"), *arguments], env=self.environ | environ, capture_output=True, text=True, timeout=30,
            cwd="/",
        )  # fmt: skip

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(20)
        self.notify.close()


@pytest.fixture(scope="module")
def ann() -> Iterator[Ann]:
    with short_folder() as folder, SimulatedExchange("--coins", "3", "--seed", "7") as exchange:
        ann = Ann(folder, exchange)
        try:
            yield ann
        finally:
            ann.end()


def owner(path: Path) -> tuple[int, str]:
    facts = path.lstat()
    return facts.st_uid, oct(facts.st_mode & 0o777)


def test_it_collects_trains_and_answers_in_the_users_own_folders(ann: Ann) -> None:
    state = ann.home / ".local/state/cryptod"
    assert owner(state) == (ANN, "0o750")
    assert owner(ann.runtime / "cryptod") == (ANN, "0o755")
    wait_for(lambda: ann.ctl("--json", "get", "BTC").returncode == 0, "a forecast", seconds=120)
    status: Any = ann.ctl("status").stdout
    assert str(state) in " ".join(status.split())
    assert (state / "serving").is_dir()
    assert ann.ctl("train", "incremental").returncode == 0, "it is the user's own to change"


def test_nobody_else_is_led_to_it(ann: Ann) -> None:
    """With the same variable, as `sudo` and `su` may leave it: for others it is no daemon of their own."""
    for uid in (BOB, 0):
        asked = ann.ctl("ping", uid=uid)
        assert asked.returncode == 3
        assert SYSTEM.socket in asked.stderr
    assert ann.ctl("ping", uid=BOB, XDG_RUNTIME_DIR="").returncode == 3


def test_a_reload_keeps_the_users_folders(ann: Ann) -> None:
    psutil.Process(ann.process.pid).send_signal(1)
    wait_for(lambda: "reloaded" in ann.log.read_text(), "the reload")
    assert "wait for a restart" not in ann.log.read_text()


def test_it_stops_and_takes_its_socket_with_it(ann: Ann) -> None:
    ann.process.terminate()
    assert ann.process.wait(20) == 0
    assert not list((ann.runtime / "cryptod").iterdir())
    asked = ann.ctl("ping")
    assert (asked.returncode, SYSTEM.socket in asked.stderr) == (3, True)
