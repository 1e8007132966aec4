"""A fresh daemon with the base model, which it has by default: forecasts at once, and of coins that cannot be trained yet."""

from __future__ import annotations

import pytest

from cryptod.errors import RequestError
from cryptod.market import HOUR
from tests.integration.house import COINS, START, Daemon, SimulatedExchange, issues, short_folder, wait_for

TEN = START // HOUR.ms * HOUR.ms
DAY = 24 * HOUR.ms


def test_a_fresh_daemon_forecasts_before_it_has_trained_and_a_new_coin_until_it_can_be() -> None:
    new = (
        f"halted,symbols=BNB/USDT,start=0,end={TEN - 20 * DAY}",
        f"halted,symbols=SOL/USDT,start=0,end={TEN - 5 * DAY}",
    )
    options = [part for fault in new for part in ("--fault", fault)]
    with short_folder() as folder:
        with (
            SimulatedExchange("--coins", str(COINS), "--seed", "7", *options) as exchange,
            Daemon(folder, exchange, cryptod_forecast_base_model="true") as daemon,
            daemon.client() as client,
        ):
            daemon.wait_for(lambda client: client.status()["training"]["last_full"], "the first full retrain")
            forecast = wait_for(lambda: "base" not in client.get("BTC").flags and client.get("BTC"), "a forecast of its own model")
            assert not forecast.model.endswith("-base")

            young = client.get("BNB")
            assert young.model.endswith("-base")
            assert {"base", "young"} <= set(young.flags)
            assert 0.002 < young.volatility[0] < 0.05
            shown = daemon.control("get", "BNB").stdout
            assert young.model in shown
            assert "base" in shown
            with pytest.raises(RequestError, match=r"no forecast of SOL/USDT yet \(too young: 5 days of candles, 7 are needed\)"):
                client.get("SOL")

            models = {row["name"]: row for row in client.models()["current"]}
            assert (models[young.model]["kind"], models[young.model]["served"]) == ("base", 1)
            followed = {row["symbol"]: row for row in client.symbols()["followed"]}
            assert followed["BNB/USDT"]["model"] == young.model
            assert followed["SOL/USDT"]["model"] is None
            assert client.health()["severity"] != "error"
        first = min(issues(daemon.state), key=lambda issue: issue.issued)
        assert set(first.models) == {young.model}
        assert set(first.symbols) == set(followed) - {"SOL/USDT"}, "all were forecast before anything was trained"


def test_while_no_coin_is_old_enough_the_base_model_serves_and_no_job_fails() -> None:
    """An exchange that keeps 30 days of candles: 15 days are missing until own models can be trained."""
    with (
        short_folder() as folder,
        SimulatedExchange("--coins", "6", "--seed", "7", "--history-days", "30", speed=900) as exchange,
        Daemon(folder, exchange, cryptod_forecast_base_model="true", cryptod_incremental_schedule="0 */3 * * *") as daemon,
        daemon.client() as client,
    ):
        daemon.wait_for(lambda client: client.status()["models"]["coins"] == 6, "the base model's forecasts")
        status = client.status()
        due = (status["training"]["own_from"] - status["candles"]["newest_close"]) / DAY
        assert due == pytest.approx(15, abs=0.2)
        assert "own models from 20" in " ".join(daemon.control("status").stdout.split())
        begun = status["candles"]["newest_close"]
        daemon.wait_for(lambda client: client.status()["candles"]["newest_close"] >= begun + 8 * HOUR.ms, "two schedules")
        assert client.jobs() == []
        names = {condition["name"] for condition in client.health()["conditions"]}
        assert not names & {"training_failed", "training_overdue", "models_missing"}
