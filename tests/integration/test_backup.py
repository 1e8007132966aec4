"""A backup that is taken in the middle of a storm and put back in the middle of another, with the programs that people use."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from cryptod.simulator.faults import Fault
from tests.integration.house import BIN, Daemon, SimulatedExchange, issues, short_folder
from tests.soak.life import differences, set_faults, truth

COINS = 4
STORM = (
    Fault("reset", probability=0.2), Fault("server_error", probability=0.2), Fault("truncated", probability=0.2),
    Fault("missing", probability=0.3), Fault("future", probability=0.3),
)  # fmt: skip


def restore(daemon: Daemon, file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(BIN / "cryptoctl"), "restore", str(file)], env=daemon.environ, capture_output=True, text=True, timeout=60)


def test_a_backup_of_one_storm_is_put_back_in_the_next(tmp_path: Path) -> None:
    file = tmp_path / "saved.tar.gz"
    with short_folder() as folder, SimulatedExchange("--coins", "6", "--seed", "7", speed=900) as exchange:
        daemon = Daemon(folder, exchange, cryptod_universe_size=COINS, cryptod_forecast_base_model="true")
        with daemon:
            daemon.wait_for(lambda client: client.cache_stats()["entries"] == COINS, "the first forecasts")
            set_faults(exchange, STORM)
            daemon.wait_for(lambda client: len(issues(daemon.state)) > 4, "issues in the storm")
            before = issues(daemon.state)
            done = daemon.control("backup", str(file), "--json")
            assert done.returncode == 0, done.stderr
            assert json.loads(done.stdout)["bytes"] == file.stat().st_size
            assert file.stat().st_mode & 0o777 == 0o600
            refused = restore(daemon, file)
            assert (refused.returncode, "stop it first" in refused.stderr) == (1, True)
            daemon.wait_for(lambda client: len(issues(daemon.state)) > len(before) + 2, "issues after the backup")
            assert not list((daemon.state / "backup").glob("*"))  # fetched, and gone from the state directory
        told = restore(daemon, file)
        assert told.returncode == 0, told.stderr
        assert "is restored in" in told.stdout
        kept = issues(daemon.state)
        assert [(issue.cutoff, issue.seq) for issue in kept][: len(before)] == [(issue.cutoff, issue.seq) for issue in before]
        with daemon as again:
            # The storm goes on, and the daemon with it: from what was restored to what is true.
            again.wait_for(lambda client: len(issues(again.state)) > len(kept) + 2, "issues after the restore")
            set_faults(exchange, ())
            market = truth(exchange, 6, [])

            def healed(client: object) -> bool:
                with again.client() as asking:
                    newest = asking.status()["candles"]["newest_close"]
                    followed = [row["symbol"] for row in asking.symbols()["followed"]]
                return not differences(again.state, market, followed, newest)

            again.wait_for(healed, "the truth after the storm")
            cutoffs = [(issue.cutoff, issue.seq) for issue in issues(again.state)]
            assert cutoffs == sorted(set(cutoffs))


@pytest.mark.skipif(os.geteuid() != 0, reason="asks as another user: needs root")
def test_only_those_who_may_change_things_get_a_backup(tmp_path: Path) -> None:
    with (
        short_folder() as folder,
        SimulatedExchange("--coins", "2", "--seed", "7") as exchange,
        Daemon(folder, exchange, cryptod_universe_size=2, cryptod_forecast_base_model="true") as daemon,
    ):
        asked = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(BIN / "cryptoctl"), "backup", "-"],
            env=daemon.environ, capture_output=True, timeout=30,
        )  # fmt: skip
        assert asked.returncode != 0
        assert asked.stdout == b""
        assert b"may only read" in asked.stderr
