"""Programs that are started without their standard streams."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.house import Daemon, SimulatedExchange, clean_environment, short_folder

BIN = Path(sys.executable).parent


def without(streams: str, *command: str) -> tuple[int, str]:
    """The exit code of a command for which the shell has closed these streams, and what it wrote to the others."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {streams}', "-", *command], capture_output=True, text=True, timeout=30, env=clean_environment()
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("streams", ["2>&-", ">&-", "<&-", "<&- >&- 2>&-"])
def test_commands_end_as_they_always_do(streams: str) -> None:
    nowhere = "/nonexistent/cryptod.toml"
    for command, code in (
        ((str(BIN / "cryptod"), "check-config", "--config", nowhere), 78),
        ((str(BIN / "cryptoctl"), "--socket", "/nonexistent.sock", "status"), 3),
        ((str(BIN / "cryptoctl"), "no-such-verb"), 2),
        ((str(BIN / "cryptoctl"), "--help"), 0),
    ):
        found, said = without(streams, *command)
        assert (found, "Traceback" in said) == (code, False), (command, said)


def test_a_daemon_without_streams_serves_and_none_of_its_files_takes_their_numbers() -> None:
    with short_folder() as folder, SimulatedExchange("--coins", "3") as exchange:
        daemon = Daemon(folder, exchange, within=("sh", "-c", 'exec "$@" <&- >&- 2>&-', "-"))
        with daemon, daemon.client() as client:
            pid = client.ping()["pid"]
            taken = [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)]
            assert taken == ["/dev/null"] * 3
