"""Drift and strange coins in the real daemon: an alarm leads to one update and a condition, and odd coins to flagged answers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from cryptod.client import Client
from cryptod.daemon.job import Job
from cryptod.forecast.drift import REST_HOURS, Alarm, Drift
from cryptod.market import HOUR
from cryptod.store import jobs
from cryptod.store.environment import open_environment
from cryptod.store.jobs import JobStore
from tests.integration.house import COINS, START, Daemon, SimulatedExchange, issues, short_folder, wait_for

TEN = START // HOUR.ms * HOUR.ms
MARKET = ("--coins", str(COINS), "--seed", "7")
NO_TURNS: dict[str, Any] = {"cryptod_incremental_schedule": "0 0 29 2 *"}
"""An incremental update that comes does not come by itself."""
ALARM = Alarm(TEN, 0, -0.13, 30)


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange(*MARKET) as exchange:
        yield exchange


@pytest.fixture(scope="module")
def trained(exchange: SimulatedExchange) -> Iterator[Path]:
    """A state directory with models and forecasts, whose drift watch has just raised an alarm."""
    with short_folder() as folder:
        with Daemon(folder, exchange) as daemon:
            daemon.wait_until_trained(COINS)
        with Store(daemon.state) as store:
            kept = Drift().export() | {
                "to": TEN,
                "rest_until": TEN + REST_HOURS * HOUR.ms,
                "recent": ALARM.mean,
                "alarm": [*vars_of(ALARM)],
            }
            store.set("drift", kept | {"answered": 0})
        yield daemon.state


def vars_of(alarm: Alarm) -> tuple[int, int, float, int]:
    return alarm.at, alarm.watch, alarm.mean, alarm.hours


class Store:
    """The job store of a daemon that does not run."""

    def __init__(self, state: Path) -> None:
        self._environment = open_environment(state / "serving", databases=jobs.DATABASES, writer=True)

    def __enter__(self) -> JobStore:
        return JobStore(self._environment)

    def __exit__(self, *_: object) -> None:
        self._environment.close()


@pytest.fixture
def folder(trained: Path) -> Iterator[Path]:
    """A place with a copy of the trained state."""
    with short_folder() as folder:
        shutil.copytree(trained, folder / "state")
        yield folder


def kept(state: Path) -> dict[str, Any]:
    """What the drift watch has written down; read beside the daemon."""
    environment = open_environment(state / "serving", databases=jobs.DATABASES, writer=False)
    try:
        return dict(JobStore(environment).get("drift"))
    finally:
        environment.close()


def drift(client: Client) -> str:
    return next((row["text"] for row in client.health()["conditions"] if row["name"] == "drift"), "")


def test_an_alarm_starts_one_update_and_is_a_condition_until_the_forecasts_fit_again(folder: Path, exchange: SimulatedExchange) -> None:
    # First by the wall clock: no hour ends, so that nothing of this can be over before it was looked at.
    with Daemon(folder, exchange, **NO_TURNS) as daemon, daemon.client() as client:
        job = wait_for(lambda: next((job for job in client.jobs() if job["kind"] == "incremental"), None), "the update")
        assert job["reason"] == "drift: coverage of the 80 % intervals 1 h ahead fell to 67 % in the last 30 h"
        text = wait_for(lambda: drift(client), "the condition")
        assert text.startswith("coverage of the 80 % intervals 1 h ahead fell to 67 % in the last 30 h; lately it is ")
        wait_for(lambda: client.jobs()[0]["state"] == "done", "the end of the update")
        assert drift(client), "an update ends no alarm; forecasts that fit do"
        assert [job["kind"] for job in client.jobs()] == ["incremental", "full"]
    with SimulatedExchange(*MARKET, speed=2400) as fast, Daemon(folder, fast, **NO_TURNS) as again, again.client() as client:
        wait_for(lambda: kept(folder / "state")["alarm"] is None, "outcomes that end the alarm", seconds=180)
        wait_for(lambda: not drift(client), "the end of the condition")
        assert [job["kind"] for job in client.jobs()] == ["incremental", "full"], "it is answered once"
    assert kept(folder / "state")["answered"] == TEN
    assert kept(folder / "state")["to"] > TEN


def test_a_training_that_waits_already_is_answer_enough(folder: Path, exchange: SimulatedExchange) -> None:
    with Store(folder / "state") as store:
        waiting = Job(id=store.next_id(), kind="full", reason="requested", created=START)
        store.save(msgspec.to_builtins(waiting))
    with Daemon(folder, exchange, **NO_TURNS) as daemon, daemon.client() as client:
        assert wait_for(lambda: drift(client), "the condition")
        wait_for(lambda: next(job for job in client.jobs() if job["id"] == waiting.id)["state"] == "done", "the retrain")
        assert [job["kind"] for job in client.jobs()] == ["full", "full"]


def test_with_incremental_updates_switched_off_an_alarm_is_said_and_nothing_started(folder: Path, exchange: SimulatedExchange) -> None:
    with Daemon(folder, exchange, cryptod_incremental_enabled="false") as daemon, daemon.client() as client:
        assert wait_for(lambda: drift(client), "the condition")
        assert "drift" in daemon.control("health").stdout
        assert [job["kind"] for job in client.jobs()] == ["full"]


def test_strange_coins_are_served_with_flags_and_a_strangeness_or_refused_with_the_reason(folder: Path) -> None:
    shutil.rmtree(folder / "state")
    hours = {name: TEN - count * HOUR.ms for name, count in (("40 h", 40), ("4 d", 96), ("10 d", 240), ("30 d", 720), ("50 d", 1200))}
    faults = (
        f"redenominated,symbols=XRP/USDT,start={hours['30 d']},value=1000",
        f"halted,symbols=SOL/USDT,start={hours['30 d']},end={hours['4 d']}",  # and come back: another coin, as good as
        f"halted,symbols=ETH/USDT,start={hours['10 d']},end={hours['4 d']}",
        f"flat,symbols=ADA/USDT,start={hours['40 h']}",
        f"flat,symbols=DOGE/USDT,start={hours['10 d']}",
        f"halted,symbols=BNB/USDT,start=0,end={hours['50 d']}",  # listed fifty days ago
    )
    options = [part for fault in faults for part in ("--fault", fault)]
    followed: dict[str, Any] = {
        "cryptod_universe_include": "ADA/USDT,DOGE/USDT",  # without volume they would not be chosen
        "cryptod_forecast_base_model": "true",
    }
    with SimulatedExchange(*MARKET, *options) as odd, Daemon(folder, odd, **followed) as daemon, daemon.client() as client:
        left_out = {"SOL/USDT", "DOGE/USDT"}
        daemon.wait_until_trained(COINS - len(left_out))
        served = client.get_many()
        assert set(served.refused) == left_out
        assert "too young: 4 days of candles" in served.refused["SOL/USDT"].hint
        assert "halted or delisted: no trade for 10 days" in served.refused["DOGE/USDT"].hint
        for forecast in served.values():
            assert np.isfinite(forecast.quantiles).all()
            assert (np.diff(forecast.quantiles, axis=1) >= 0).all()
            assert np.isfinite([forecast.strangeness, forecast.score, *forecast.volatility]).all()
            assert forecast.strangeness > 0
        assert "halted" in served["ADA/USDT"].flags
        assert served["ADA/USDT"].strangeness > max(served[name].strangeness for name in ("BTC/USDT", "XRP/USDT", "LTC/USDT"))
        assert served["ADA/USDT"].quantile(1, 0.975) > 0.01, "nobody knows where it comes back"
        assert "young" in served["BNB/USDT"].flags
        assert "young" not in served["XRP/USDT"].flags
        for name in ("BTC/USDT", "ETH/USDT", "XRP/USDT", "LTC/USDT"):
            assert not {"halted", "gaps", "late"} & set(served[name].flags), name
            assert 0.002 < served[name].volatility[0] < 0.03
        shown = daemon.control("get", "ADA/USDT").stdout
        assert "halted" in shown
        assert f"strangeness {served['ADA/USDT'].strangeness:.2f}" in " ".join(shown.split())
        assert not [
            name for name in ("training_failed", "batches_failed") if name in {row["name"] for row in client.health()["conditions"]}
        ]
    found = issues(daemon.state)
    assert {symbol for issue in found for symbol in issue.symbols} == set(served)
