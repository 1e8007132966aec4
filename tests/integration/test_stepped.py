"""The machine's clock and the exchange's are days ahead, and then right again: nothing of a time that has not come is left."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from cryptod.client import Client
from cryptod.market import HOUR, NOT_FETCHED
from cryptod.store.candles import reading
from tests.integration.house import Daemon, SimulatedExchange, issues, short_folder, wait_for

STEP = 3 * 86_400
COINS = 6
OPTIONS = ("--coins", str(COINS))


def turn(exchange: SimulatedExchange, step_file: Path, seconds: int) -> None:
    """Set both clocks so many seconds ahead of the truth."""
    exchange.stop()
    start = int(exchange.clock.partition("@")[0])  # the market goes back from there
    exchange.clock = f"{start}@{start - 1000 * seconds}x1"
    step_file.write_text(str(seconds))
    exchange.start()


def test_clocks_that_were_three_days_ahead_leave_nothing_behind_within_a_minute() -> None:
    with short_folder() as folder:
        step_file = folder / "step"
        step_file.write_text("0")
        exchange = SimulatedExchange(*OPTIONS, start=time.time_ns() // 1_000_000)
        daemon = Daemon(
            folder, exchange.start(), cryptod_clock="system", cryptod_universe_size=COINS, cryptod_forecast_base_model="true",
            cryptod_train_months_back=2,
        )  # fmt: skip
        daemon.command = [sys.executable, "-m", "tests.integration.stepped", str(step_file)]
        daemon.environ["CRYPTOD_CLOCK"] = "system"
        with daemon:
            daemon.wait_until_trained(COINS)
            turn(exchange, step_file, STEP)
            later = time.time_ns() // 1_000_000 + 1000 * STEP - HOUR.ms
            daemon.wait_for(lambda client: all(f.cutoff >= later - HOUR.ms for f in client.get_many().values()), "forecasts of that day")
            daemon.wait_for(
                lambda client: any(model["cutoff"] > later - HOUR.ms for model in client.models()["current"]), "a model of it", seconds=200
            )

            turn(exchange, step_file, 0)
            began = time.monotonic()

            def right_again(client: Client) -> bool:
                now = time.time_ns() // 1_000_000
                found = client.get_many()
                assert not any(f.cutoff > now + 60_000 and not f.stale for f in found.values()), "served as if that time had come"
                fit = len(found) == COINS and all(f.cutoff <= now and f.issued <= now and not f.stale for f in found.values())
                return fit and "clock_was_ahead" in {row["name"] for row in client.health()["conditions"]}

            daemon.wait_for(right_again, "forecasts of today")
            assert time.monotonic() - began < 60.0
            with daemon.client() as client:
                now = time.time_ns() // 1_000_000
                symbols = tuple(client.get_many())
                assert all(model["cutoff"] <= now for model in client.models()["current"])
                assert client.status()["candles"]["newest_close"] <= now
                assert all(row["last"] <= now + 1000 for row in client.schedule())
            with reading(daemon.state / "candles") as candles:
                ahead = candles.panel(symbols, HOUR.floor(now) + HOUR.ms, HOUR.floor(now) + 4 * 24 * HOUR.ms)
                assert (ahead.status == NOT_FETCHED).all()
            assert all(issue.cutoff <= now for issue in issues(daemon.state))
            wait_for(lambda: daemon.child("cryptod-train") is None, "the training's end", seconds=200)
            with daemon.client() as client:
                assert all(model["cutoff"] <= now + HOUR.ms for model in client.models()["current"])
        exchange.stop()
