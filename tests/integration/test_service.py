"""The real daemon beside the real simulated exchange, watched through the real client, cryptoctl, its log and systemd's ear."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryptod.client import Client
from cryptod.errors import RequestError
from cryptod.market import HOUR
from cryptod.replies import Forecast
from cryptod.store.ledger import Issue
from tests.disks import small_disk
from tests.integration.house import COINS, START, Daemon, SimulatedExchange, alive, issues, short_folder, wait_for

TEN = START // HOUR.ms * HOUR.ms
"""Close time of the newest candle where the clock starts."""
MARKET = ("--coins", str(COINS), "--seed", "7")
SMALL_BATCHES = {"cryptod_train_batch_size": 2}
"""The retrain takes long enough to be caught in its middle."""
QUIET: dict[str, Any] = {"cryptod_incremental_enabled": "false"}


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    """A market on which no candle closes while these tests run."""
    with SimulatedExchange(*MARKET) as exchange:
        yield exchange


@pytest.fixture(scope="module")
def trained(exchange: SimulatedExchange) -> Iterator[Path]:
    """A state directory with models, forecasts and a ledger, to be copied."""
    with short_folder() as folder:
        with Daemon(folder, exchange) as daemon:
            daemon.wait_until_trained(COINS)
        yield daemon.state


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as folder:
        yield folder


House = Callable[..., Daemon]


@pytest.fixture
def house(folder: Path, exchange: SimulatedExchange, trained: Path) -> House:
    """Gives daemons, not yet started, on a copy of the trained state; a second one is on the state of the first."""

    def make(**settings: Any) -> Daemon:
        if not (folder / "state").exists():
            shutil.copytree(trained, folder / "state")
        return Daemon(folder, settings.pop("exchange", exchange), **settings)

    return make


def conditions(client: Client) -> dict[str, str]:
    return {row["name"]: row["text"] for row in client.health()["conditions"]}


def row_of(found: list[Issue], forecast: Forecast) -> tuple[Issue, int]:
    """The issue in the ledger, and the row in it, that this forecast is."""
    for issue in found:
        if (issue.cutoff, issue.issued) == (forecast.cutoff, forecast.issued) and forecast.symbol in issue.symbols:
            return issue, issue.symbols.index(forecast.symbol)
    raise AssertionError(f"{forecast.symbol} of {forecast.cutoff}, issued {forecast.issued}, is not among {len(found)} issues")


def assert_kept(found: list[Issue], forecast: Forecast) -> None:
    """The ledger holds this forecast, bit for bit."""
    issue, row = row_of(found, forecast)
    assert issue.models[row] == forecast.model
    assert issue.close[row] == forecast.close
    assert issue.flags[row] == forecast.flags
    assert issue.quantiles[row].tobytes() == np.array(forecast.quantiles, np.float32).tobytes()
    assert issue.p_up[row].tobytes() == np.array(forecast.p_up, np.float32).tobytes()
    assert issue.volatility[row].tobytes() == np.array(forecast.volatility, np.float32).tobytes()
    assert issue.score is not None
    assert issue.score[row] == np.float32(forecast.score)


def finished(client: Client, number: int) -> dict[str, Any] | None:
    job = next(job for job in client.jobs() if job["id"] == number)
    return job if job["state"] in ("done", "failed", "cancelled") else None


def promoted(client: Client, old: Collection[str]) -> str:
    """Retrain until the gate lets a model pass that is not among the old ones; its name."""
    for _ in range(6):
        number = client.train("full")["id"]
        assert wait_for(lambda number=number: finished(client, number), "the retrain")["state"] == "done"  # type: ignore[misc]
        new = {model["name"] for model in client.models()["current"]}.difference(old)
        if new:
            return str(new.pop())
    raise AssertionError("six retrains, and none was better")


def batches_done(client: Client, number: int) -> list[dict[str, Any]]:
    job = next(job for job in client.jobs() if job["id"] == number)
    return [batch for batch in job["batches"] if batch["state"] == "done"]


# From nothing


def test_from_nothing_all_coins_are_trained_and_every_answer_agrees_with_the_others(folder: Path, exchange: SimulatedExchange) -> None:
    with Daemon(folder, exchange) as daemon, daemon.client() as client:
        daemon.wait_for(lambda client: client.cache_stats()["entries"] == COINS, "the first forecasts")
        wait_for(lambda: client.status()["training"]["running"] is None and client.get("BTC").stale is False, "the end of the training")
        status, symbols, models, jobs = client.status(), client.symbols(), client.models(), client.jobs()
        names = [row["symbol"] for row in symbols["followed"]]
        assert len(names) == COINS
        assert status["candles"] | {"left_out": 0} == {"symbols": COINS, "newest_close": TEN, "stale": [], "left_out": 0}
        assert status["candles"]["left_out"] == len(symbols["left_out"]) > 0
        assert symbols["left_out"]["USDC/USDT"] == "a stablecoin"
        assert status["models"]["coins"] == COINS
        assert status["models"]["checkpoints"] == len(models["current"]) == 3
        assert sum(model["served"] for model in models["current"]) == COINS
        assert [(job["kind"], job["state"]) for job in jobs] == [("full", "done")]
        assert [(batch["coins"], batch["state"], batch["promoted"]) for batch in jobs[0]["batches"]] == [(4, "done", True)] * 3
        assert {batch["checkpoint"] for batch in jobs[0]["batches"]} == {model["name"] for model in models["current"]}
        assert status["training"]["last_full"] == jobs[0]["ended"]
        assert status["memory"]["peak_total"] > 150 << 20, "the memory of the child that trained was looked at"
        assert {row["name"]: row["next"] for row in client.schedule()} == {
            "incremental": TEN + 2 * HOUR.ms, "full": TEN + 112 * HOUR.ms, "pregenerate": TEN + 112 * HOUR.ms - 300_000,
        }  # fmt: skip

        all_of_them = client.get_many()
        assert list(all_of_them) == names
        assert not all_of_them.refused
        for row in symbols["followed"]:
            one = client.get(row["symbol"])
            assert one._replace(age=0.0) == all_of_them[row["symbol"]]._replace(age=0.0)
            assert one.model == row["model"]
            assert one.cutoff == row["newest_close"] == TEN
            assert one.expires == one.issued + HOUR.ms
            assert one.age == pytest.approx((exchange.now() - one.issued) / 1000, abs=1.0)
            assert (one.stale, one.reason) == (False, None)
            assert one.prices[23][4] == pytest.approx(one.close * np.exp(one.quantiles[23][4]), rel=1e-6)
        top = client.top(COINS, "volatility", 6)
        assert [row["symbol"] for row in top] == sorted(names, key=lambda name: -all_of_them[name].volatility[5])
        assert all(row["volatility"] == all_of_them[row["symbol"]].volatility[5] for row in top)
        assert [row["symbol"] for row in client.top(3)] == sorted(names, key=lambda name: (-all_of_them[name].score, name))[:3]

        bitcoin = client.get("BTC/USDT")
        assert {client.get(text).symbol for text in ("btc", "btcusdt", "btc-usdt", "Btc_Usdt", "BTC")} == {bitcoin.symbol}
        for text, hint in (("BCT/USDT", "did you mean BTC/USDT"), ("nonsense-coin", "`cryptoctl symbols`")):
            with pytest.raises(RequestError) as refused:
                client.get(text)
            assert refused.value.code == "unknown_symbol"
            assert hint in refused.value.hint
        with pytest.raises(RequestError, match="USDC/USDT is not followed: a stablecoin"):
            client.get("usdc")

        shown = daemon.control("get", "BTC/USDT", "--json")
        assert shown.returncode == 0, shown.stderr
        assert "BTC/USDT" in shown.stdout
        assert daemon.control("get", "BCT/USDT").returncode == 1
        wait_for(lambda: json.loads(daemon.control("health", "--json").stdout)["severity"] == "ok", "good health")
        for unit in ("job enqueued", "job started", "job ended"):
            assert len(daemon.lines(f"training: {unit}")) == 1, unit
        assert len(daemon.lines("training: batch promoted")) == 3
        assert len(daemon.lines("collection: collected candles")) == 1, "the coins that were just chosen are not chosen again"
    found = issues(daemon.state)
    for forecast in all_of_them.values():
        assert_kept(found, forecast)


# Killed, stopped, resumed


def test_after_a_kill_in_a_retrain_the_last_forecasts_are_served_at_once_and_the_retrain_goes_on_where_it_was(house: House) -> None:
    with house(**SMALL_BATCHES) as daemon, daemon.client() as client:
        number = client.train("full")["id"]
        # The last of them may have been promoted without a note on disk yet: killed in that moment, it is trained again.
        before = wait_for(lambda: len(done := batches_done(client, number)) >= 3 and done, "three batches")[:-1]
        seen = client.get_many()
        assert len(seen) == COINS
        daemon.relatives()
        daemon.process.kill()
        daemon.process.wait()
        wait_for(lambda: not daemon.relatives(), "no orphan lives on", seconds=5)
        daemon.notify.close()
    kept = issues(daemon.state)
    for forecast in seen.values():
        assert_kept(kept, forecast)

    with house(**SMALL_BATCHES) as again, again.client() as client:
        first = wait_for(lambda: client.get_many(seen), "an answer")
        answered = time.monotonic()
        assert answered - again.notify.times("READY=1")[0] < 0.5
        assert answered - again.began < 5
        assert {name: forecast.quantiles for name, forecast in first.items()} == {name: f.quantiles for name, f in seen.items()}
        job = wait_for(lambda: finished(client, number), "the end of the retrain")
        assert job["state"] == "done"
        for batch in before:
            assert job["batches"][batch["number"] - 1] == batch
        for batch in job["batches"]:
            trained = [
                line for line in again.lines("batch promoted") + again.lines("batch not promoted") if f"model={batch['checkpoint']}" in line
            ]
            assert len(trained) == 1, "trained once, before the kill or after it"
        assert [job["id"] for job in client.jobs()] == [number, 1]


def test_a_stop_in_a_retrain_takes_less_than_five_seconds_and_the_retrain_goes_on_after_it(house: House) -> None:
    with house(**SMALL_BATCHES) as daemon, daemon.client() as client:
        number = client.train("full")["id"]
        before = wait_for(lambda: len(done := batches_done(client, number)) >= 2 and done, "two batches")
        took = daemon.stop()
        assert took < 5
        assert daemon.process.returncode == 0
        assert [told.text for told in daemon.notify.told if "STOPPING=1" in told.text]
        assert len(daemon.lines("service: stopped")) == 1
    with house(**SMALL_BATCHES) as again, again.client() as client:
        job = wait_for(lambda: finished(client, number), "the end of the retrain")
        assert job["state"] == "done"
        for batch in before:
            assert job["batches"][batch["number"] - 1] == batch
        assert "Traceback" not in again.log()


# Jobs


def test_a_retrain_is_one_job_however_often_it_is_asked_for_and_can_be_cancelled_while_it_runs(house: House) -> None:
    with house(**SMALL_BATCHES) as daemon, daemon.client() as client:
        waiting = client.train("incremental")
        full = client.train("full")
        assert client.train("full")["id"] == full["id"]
        assert finished(client, waiting["id"]) is None or finished(client, waiting["id"])["state"] == "cancelled"  # type: ignore[index]
        wait_for(lambda: batches_done(client, full["id"]), "a batch of the retrain")
        generation = client.models()["generation"]
        cancelled = client.cancel(full["id"])
        assert cancelled["state"] == "cancelled"
        wait_for(lambda: daemon.child("cryptod-train") is None, "the child is gone", seconds=5)
        assert client.models()["generation"] >= generation, "batches that were done serve on"
        with pytest.raises(RequestError, match="already ended"):
            client.cancel(full["id"])
        with pytest.raises(RequestError, match="no job 999"):
            client.cancel(999)
        after = client.train("incremental")
        assert wait_for(lambda: finished(client, after["id"]), "the next job")["state"] == "done"


def test_a_coin_that_is_asked_for_and_not_to_be_had_is_a_condition_that_names_the_one_meant(
    folder: Path, exchange: SimulatedExchange
) -> None:
    with Daemon(folder, exchange, CRYPTOD_UNIVERSE_INCLUDE="BTCC/USDT") as daemon, daemon.client() as client:
        text = wait_for(lambda: conditions(client).get("universe_setting"), "the condition", seconds=30)
        assert text.startswith("universe.include names BTCC/USDT: ")
        assert "BTC/USDT" in text.split(": ", 1)[1]


def test_an_update_that_waits_yields_to_a_retrain(house: House) -> None:
    with house(**SMALL_BATCHES) as daemon, daemon.client() as client:
        running = client.train("full")
        wait_for(lambda: batches_done(client, running["id"]), "a batch")
        update = client.train("incremental")
        assert client.train("incremental")["id"] == update["id"]
        retrain = client.train("full")
        assert retrain["id"] not in (running["id"], update["id"])
        job = finished(client, update["id"])
        assert job is not None
        assert (job["state"], job["error"]) == ("cancelled", f"superseded by full retrain {retrain['id']}")
        client.cancel(retrain["id"])
        client.cancel(running["id"])


def test_killed_children_cost_a_retry_and_no_forecast(house: House) -> None:
    with house(**SMALL_BATCHES) as daemon, daemon.client() as client:
        number = client.train("full")["id"]
        wait_for(lambda: batches_done(client, number), "a batch")
        child = wait_for(lambda: daemon.child("cryptod-train"), "the train child")
        child.kill()
        assert len(client.get_many()) == COINS
        job = wait_for(lambda: finished(client, number), "the end of the retrain")
        assert (job["state"], {batch["state"] for batch in job["batches"]}) == ("done", {"done"})
        assert len(daemon.wait_for_line("a batch failed")) == 1
        assert "SIGKILL" in daemon.lines("a batch failed")[0]
        assert any(batch["attempts"] == 1 for batch in job["batches"])

        server = daemon.forkserver()
        assert server is not None
        server.kill()
        wait_for(lambda: not alive(server), "the end of the forkserver", seconds=5)
        number = client.train("incremental")["id"]
        assert wait_for(lambda: finished(client, number), "a job with another forkserver")["state"] == "done"


def test_a_torch_that_cannot_be_imported_is_one_condition_within_seconds_and_serving_goes_on_until_it_is_mended(
    folder: Path, exchange: SimulatedExchange
) -> None:
    broken = folder / "packages" / "torch.py"
    broken.parent.mkdir()
    broken.write_text("raise ImportError('libtorch_cpu.so: cannot open shared object file')")
    daemon = Daemon(folder, exchange, pythonpath=broken.parent, cryptod_forecast_base_model="true")
    with daemon, daemon.client() as client:
        daemon.wait_for(lambda client: "library_broken" in conditions(client), "the condition", seconds=30)
        daemon.wait_for(lambda client: len(client.get_many()) == COINS, "the base model's forecasts")
        found = conditions(client)
        assert "ImportError: libtorch_cpu.so: cannot open shared object file" in found["library_broken"]
        assert not {"training_failed", "models_missing", "exchange_unreachable"} & found.keys()
        assert client.jobs() == [], "what cannot be done is not begun each minute"
        broken.unlink()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_until_trained(COINS)
        daemon.wait_for(lambda client: "library_broken" not in conditions(client), "the condition's end")


def test_a_killed_collection_is_tried_again(folder: Path, exchange: SimulatedExchange) -> None:
    with Daemon(folder, exchange) as daemon:
        wait_for(lambda: daemon.child("cryptod-collect"), "the collect child").kill()
        assert "SIGKILL" in daemon.wait_for_line("the candles could not be collected")[0]
        daemon.wait_for(lambda client: len(client.symbols()["followed"]) == COINS, "candles all the same")


# The clock runs


def test_forecasts_follow_every_candle_and_models_are_updated_on_schedule(house: House) -> None:
    with SimulatedExchange(*MARKET, speed=2400) as fast, house(exchange=fast) as daemon, daemon.client() as client:
        seen: dict[tuple[str, int, int], Forecast] = {}
        client.subscribe(["forecasts"])
        told: list[int] = []
        while len(told) < 5:
            event = client.next_event(timeout=20)
            assert event is not None
            told.append(event.payload["cutoff"])
            for forecast in client.get_many().values():
                seen[forecast.symbol, forecast.cutoff, forecast.issued] = forecast
        jobs = client.jobs()
        status = client.status()
    cutoffs = sorted({cutoff for _, cutoff, _ in seen})
    assert cutoffs == list(range(cutoffs[0], cutoffs[-1] + 1, HOUR.ms)), "no hour is missed"
    assert len(cutoffs) >= 3
    assert [job["reason"] for job in jobs if job["kind"] == "incremental"][-1:] == ["scheduled"]
    assert status["health"]["severity"] == "ok", status["health"]
    found = issues(daemon.state)
    for forecast in seen.values():
        assert_kept(found, forecast)
    assert {issue.cutoff for issue in found} >= set(cutoffs)


def test_a_turn_missed_between_two_short_lives_is_caught_up_with(folder: Path) -> None:
    """Neither life saw a turn of the schedule; the first one was born before the turn that the second one has to make good."""
    daily: dict[str, Any] = {"cryptod_full_retrain_schedule": "0 11 * * *"}
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen: there is nothing to train on
        early, late = SimulatedExchange(), SimulatedExchange(start=START + HOUR.ms)
        early.port = late.port = nobody.getsockname()[1]
        with Daemon(folder, early, **daily):
            pass
        with Daemon(folder, late, **daily) as daemon:
            reasons = daemon.wait_for(lambda client: [job["reason"] for job in client.jobs()], "the retrain that was missed")
    assert reasons == ["scheduled"]


def test_while_the_exchange_is_down_answers_go_on_and_say_why_they_are_stale_until_it_is_back(house: House) -> None:
    with SimulatedExchange(*MARKET, speed=2400) as fast, house(exchange=fast, **QUIET) as daemon, daemon.client() as client:
        wait_for(lambda: client.get("BTC/USDT").cutoff > TEN, "a new hour")
        fast.stop()
        stale = wait_for(lambda: (found := client.get("BTC/USDT")).stale and found, "a stale answer")
        assert stale.reason is not None
        assert "its last candle closed" in stale.reason
        wait_for(lambda: "market_stale" in conditions(client), "the condition", seconds=15)
        assert len(client.get_many()) == COINS
        assert all(row["stale"] for row in client.top())
        wait_for(lambda: client.status()["exchange"]["error"], "the reason")
        number = client.train("incremental")["id"]
        assert wait_for(lambda: finished(client, number), "training goes on without the exchange")["state"] == "done"
        fast.start()
        fresh = wait_for(lambda: not (found := client.get("BTC/USDT")).stale and found, "a fresh answer", seconds=30)
        assert fresh.cutoff > stale.cutoff
        # The gate's no to a challenger is no fault of the exchange's: the better model serves.
        wait_for(lambda: set(conditions(client)) <= {"gate_refused"}, "good health", seconds=15)
        assert client.status()["exchange"]["error"] == ""


# The cache


def test_a_cleared_forecast_is_computed_when_it_is_asked_for_and_stands_in_the_ledger(house: House) -> None:
    with house() as daemon, daemon.client() as client:
        before = client.get("BTC/USDT")
        assert client.cache_clear(["btc"]) == {"dropped": 1}
        misses = client.cache_stats()["misses"]
        after = client.get("BTC/USDT")
        assert client.cache_stats()["misses"] > misses
        assert (after.quantiles, after.model, after.cutoff) == (before.quantiles, before.model, before.cutoff)
        assert after.issued > before.issued
        assert client.cache_clear() == {"dropped": COINS}
        assert client.cache_stats()["entries"] == 0
        assert len(client.top()) == COINS, "what was cleared is made again, not missing"
        many = client.get_many()
        assert len(many) == COINS
        told = client.cache_pregenerate()
        assert told["forecasts"] == COINS
        long = client.get("BTC/USDT")
        assert long.expires - long.issued == 24 * HOUR.ms
        with pytest.raises(RequestError, match="there is no coin"):
            client.cache_clear(["nonsense"])
    found = issues(daemon.state)
    for forecast in (before, after, long, *many.values()):
        assert_kept(found, forecast)


def test_an_expired_forecast_that_nothing_has_changed_is_issued_on_with_its_honest_age(house: House, trained: Path) -> None:
    # No refresh comes in between: the exchange answers nothing, and the hour passes.
    gone = SimulatedExchange(*MARKET, speed=2400)
    gone.port = 9  # nobody listens
    with house(exchange=gone, **QUIET) as daemon, daemon.client() as client:
        first = client.get("ETH/USDT")
        later = wait_for(lambda: (found := client.get("ETH/USDT")).expires > first.expires and found, "the expiry")
        assert (later.issued, later.quantiles) == (first.issued, first.quantiles)
        assert later.age > 3600
        assert later.expires > first.expires
        assert client.cache_stats()["expired"] > 0
    assert len(issues(daemon.state)) == len(issues(trained)), "nothing new was said"


def test_without_the_cache_every_answer_is_computed_and_none_is_lost(house: House, trained: Path) -> None:
    with house(cryptod_prediction_cache_enabled="false") as daemon, daemon.client() as client:
        first, many = client.get("BTC/USDT"), client.get_many()
        assert len(many) == COINS
        for _ in range(20):
            client.get("BTC/USDT")
        assert len(client.top()) == COINS
        assert client.status()["cache"]["enabled"] is False
    found = issues(daemon.state)
    for forecast in (first, *many.values()):
        assert_kept(found, forecast)
    assert len(found) <= len(issues(trained)) + COINS + 2, "the same forecast is not written down again each time it is asked for"


# Who serves; models: rolled back, damaged


def test_the_reference_that_the_configuration_names_serves_at_once_and_the_answers_say_so(house: House) -> None:
    with house() as daemon, daemon.client() as client:
        usual = client.get_many()
        assert client.models()["serve"] == "model"
    with house(cryptod_forecast_serve="log_har") as daemon, daemon.client() as client:
        wait_for(lambda: all("log_har" in one.flags for one in client.get_many().values()), "forecasts of log-HAR of all coins")
        found = client.get_many()
        assert set(found) == set(usual)
        for symbol, forecast in found.items():
            assert {"reference", "log_har"} <= set(forecast.flags)
            assert (forecast.cutoff, forecast.model) == (usual[symbol].cutoff, usual[symbol].model)
            assert forecast.quantiles != usual[symbol].quantiles
        assert "model_fallback" not in conditions(client), "nobody lost: it was asked for"
        assert "reference, log_har" in daemon.control("get", "BTC").stdout
        assert "all coins are served by the reference log_har" in daemon.control("models", "list").stdout.replace("\n", " ")
    assert all("log_har" in flags for flags in issues(daemon.state)[-1].flags), "what was served is what is judged"
    with house() as daemon, daemon.client() as client:
        wait_for(lambda: not any("reference" in one.flags for one in client.get_many().values()), "the model serves again")


def test_nobody_else_may_look_into_the_state_or_change_it(house: House) -> None:
    """Whatever the umask was: the test's own lets everybody read."""
    with house() as daemon:
        others = {str(path): oct(path.lstat().st_mode) for path in daemon.state.rglob("*") if path.lstat().st_mode & 0o027}
        assert others == {}
        assert daemon.state.stat().st_mode & 0o777 == 0o750
        assert len(list(daemon.state.rglob("*"))) > 5, "there was something to look at"


def test_models_are_rolled_back_until_there_is_nothing_to_go_back_to(house: House) -> None:
    with house() as daemon, daemon.client() as client:
        old = [model["name"] for model in client.models()["current"]]
        name = promoted(client, old)
        wait_for(lambda: name in {forecast.model for forecast in client.get_many().values()}, "forecasts of the new model")
        assert daemon.control("models", "rollback").returncode == 0
        assert [model["name"] for model in client.models()["current"]] == old
        wait_for(lambda: name not in {forecast.model for forecast in client.get_many().values()}, "forecasts of the old models")
        with pytest.raises(RequestError) as refused:
            client.models_rollback(50)
        assert refused.value.code == "conflict"
        assert daemon.control("models", "rollback", "--steps", "50").returncode in (1, 2)
    with house() as again, again.client() as client:
        assert [model["name"] for model in client.models()["current"]] == old, "a restart does not undo it"


def damage(path: Path, at: int = -100) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0xFF
    path.write_bytes(content)


def test_a_damaged_checkpoint_is_refused_and_named_and_the_one_before_it_serves(house: House) -> None:
    with house() as daemon, daemon.client() as client:
        old = [model["name"] for model in client.models()["current"]]
        new = promoted(client, old)
    damage(daemon.state / "checkpoints" / new / "weights.safetensors")
    with house() as again, again.client() as client:
        status = client.status()
        assert new in status["models"]["refused"]
        assert status["models"]["coins"] == COINS
        assert {model["name"] for model in client.models()["current"]} & set(old)
        many = client.get_many()
        assert len(many) == COINS
        text = wait_for(lambda: conditions(client).get("checkpoint_damaged", ""), "the condition", seconds=10)
        assert new in text


def test_with_all_checkpoints_damaged_it_starts_and_trains_anew(house: House) -> None:
    daemon = house()
    for path in (daemon.state / "checkpoints").glob("*/weights.safetensors"):
        damage(path)
    with daemon, daemon.client() as client:
        assert client.ping()["pid"] == daemon.process.pid
        wait_for(lambda: client.status()["models"]["coins"] == COINS and not client.status()["training"]["running"], "new models")
        wait_for(lambda: len(client.get_many()) == COINS and not conditions(client), "good health")


# The state directory


def test_a_damaged_serving_store_is_put_aside_and_a_new_one_begun(house: House) -> None:
    daemon = house()
    (data,) = (daemon.state / "serving").glob("data.mdb")
    data.write_bytes(b"\xff" * data.stat().st_size)
    with daemon, daemon.client() as client:
        assert list(daemon.state.glob("serving.damaged-*"))
        text = wait_for(lambda: conditions(client).get("store_damaged", ""), "the condition", seconds=10)
        assert "put aside" in text
        wait_for(lambda: len(client.get_many()) == COINS, "forecasts from the models, which are not lost")
    assert issues(daemon.state)


def ended(daemon: Daemon) -> tuple[int, str]:
    """Exit code and output of a daemon that cannot start."""
    daemon.log_path.unlink(missing_ok=True)
    daemon.start()
    code = daemon.process.wait(10)
    daemon.notify.close()
    assert not daemon.notify.times("READY=1")
    return code, daemon.log()


def test_another_markets_daemon_begins_anew_and_the_first_ones_state_comes_back_with_its_setting(house: House) -> None:
    """It never says that it has models, and that all is well, when no coin of them is followed."""
    with house(**QUIET) as daemon, daemon.client() as client:
        before = client.get_many()
        assert client.status()["disk"]["market"] == "binance-spot-USDT-url"
    issued = len(issues(daemon.state))
    with house(cryptod_exchange_quote="EUR") as other, other.client() as client:
        status = client.status()
        assert (status["models"]["checkpoints"], status["candles"]["symbols"], status["ledger"]["issues"]) == (0, 0, 0)
        assert (status["disk"]["market"], status["disk"]["others"]) == ("binance-spot-EUR-url", ["binance-spot-USDT-url"])
        assert "set aside there: binance-spot-USDT-url" in " ".join(other.control("status").stdout.split())
        assert other.lines("the state belongs to another market")
    with house(**QUIET) as daemon, daemon.client() as client:
        after = client.get_many()
        assert {symbol: (one.cutoff, one.prices) for symbol, one in after.items()} == {
            symbol: (one.cutoff, one.prices) for symbol, one in before.items()
        }
        assert client.status()["models"]["coins"] == COINS
    assert len(issues(daemon.state)) >= issued > 0


def test_a_second_daemon_on_the_same_state_is_refused(house: House, folder: Path, exchange: SimulatedExchange) -> None:
    with house() as daemon, short_folder() as elsewhere:
        code, said = ended(Daemon(elsewhere, exchange, state=daemon.state))
        assert code == 1, "78 would keep systemd from ever trying again, also when the other is gone"
        assert f"another cryptod (process {daemon.process.pid}) runs on {daemon.state}" in said
        assert "Traceback" not in said
        with daemon.client() as client:
            assert client.ping()["pid"] == daemon.process.pid


HAND_OVER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
os.dup2(listener.fileno(), 3)
os.set_inheritable(3, True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""


def test_the_log_names_the_socket_that_systemd_handed_over_and_warns_where_the_setting_names_another(
    folder: Path, exchange: SimulatedExchange
) -> None:
    handed = folder / "handed.sock"
    with Daemon(folder, exchange, within=(sys.executable, "-c", HAND_OVER, str(handed))) as daemon:
        with Client(str(handed)) as client:
            assert client.ping()["pid"] == daemon.process.pid
        (ready,) = daemon.wait_for_line("ready  ")
        assert f"socket={handed} " in ready
        (warning,) = daemon.lines("at another place than socket.path")
        assert f"socket={handed} " in warning
        assert f"setting={daemon.socket} " in warning


def test_what_it_cannot_start_with_is_said_in_a_sentence(folder: Path, exchange: SimulatedExchange) -> None:
    code, said = ended(Daemon(folder, exchange, cryptod_train_batch_size=0))
    assert code == 78
    assert "train.batch_size" in said
    assert "1 to 200" in said
    code, said = ended(Daemon(folder, exchange, cryptod_trian_epochs=5))
    assert (code, "CRYPTOD_TRAIN_EPOCHS" in said) == (78, True), said
    config = folder / "cryptod.toml"
    config.write_text("[incremental]\nschedul = '0 1 * * *'\n")
    code, said = ended(Daemon(folder, exchange, cryptod_config=config))
    assert code == 78
    assert f"incremental.schedul ({config}:2): there is no such key (did you mean" in said
    code, said = ended(Daemon(folder, exchange, state=Path("/proc/cryptod")))
    assert code == 1
    assert "the state directory /proc/cryptod cannot be used" in said
    (folder / "file").write_text("")
    code, said = ended(Daemon(folder, exchange, state=folder / "file"))
    assert code == 1
    assert "cannot be used" in said
    assert "Traceback" not in said


def test_on_a_full_disk_answers_go_on_and_writing_is_taken_up_when_there_is_room(folder: Path, trained: Path) -> None:
    with small_disk(folder / "disk", "24m") as disk, SimulatedExchange(*MARKET, speed=2400) as fast:
        shutil.copytree(trained, disk / "state")
        with Daemon(folder, fast, state=disk / "state", **QUIET) as daemon, daemon.client() as client:
            wait_for(lambda: client.get("BTC/USDT").cutoff > TEN, "a new hour")
            fill(disk / "ballast")
            wait_for(lambda: "store_failed" in conditions(client), "the condition", seconds=20)
            seen = [wait_for(lambda: (found := client.get("BTC/USDT")).stale and found, "a stale answer")]
            for _ in range(5):
                seen.append(client.get("BTC/USDT"))
                assert len(client.get_many()) == COINS
                assert len(client.top()) == COINS
                time.sleep(0.1)
            assert seen[-1].reason is not None
            (disk / "ballast").unlink()
            fresh = wait_for(lambda: not (found := client.get("BTC/USDT")).stale and found, "a fresh forecast", seconds=30)
            wait_for(lambda: not {"store_failed", "market_stale"} & set(conditions(client)), "the end of the conditions", seconds=15)
        found = issues(daemon.state)
        for forecast in (*seen, fresh):
            assert_kept(found, forecast)


def fill(path: Path) -> None:
    """Write until nothing more goes on the disk."""
    with path.open("wb", buffering=0) as ballast:
        for size in (1 << 20, 4096):
            try:
                while True:
                    ballast.write(b"\0" * size)
            except OSError:
                pass


# Reload, watchdog, rights


def test_a_reload_takes_what_it_can_names_what_it_cannot_and_keeps_the_old_settings_when_the_file_is_bad(
    house: House, folder: Path
) -> None:
    config = folder / "cryptod.toml"
    config.write_text("[log]\nlevel = 'info'\n")
    with house(cryptod_config=config) as daemon, daemon.client() as client:
        config.write_text("[log]\nlevel = 'warning'\n[incremental]\nschedule = '30 10 * * *'\n[market]\nhorizons = 12\n")
        daemon.process.send_signal(signal.SIGHUP)
        (line,) = daemon.wait_for_line("some keys wait for a restart")
        assert "waiting=market.horizons" in line
        assert "incremental.schedule" in line
        assert "log.level" in line
        assert {row["name"]: row["cron"] for row in client.schedule()}["incremental"] == "30 10 * * *"
        assert {row["name"]: row["next"] for row in client.schedule()}["incremental"] == TEN + HOUR.ms // 2
        number = client.train("incremental")["id"]
        wait_for(lambda: finished(client, number), "a job")
        assert not daemon.lines("job enqueued"), "what is less than a warning is not logged any more"
        assert [told.text.split("=")[0] for told in daemon.notify.told if "RELOADING=1" in told.text]
        config.write_text("[log]\nlevel = 'loud'\n")
        daemon.process.send_signal(signal.SIGHUP)
        (line,) = daemon.wait_for_line("the configuration was not reloaded")
        assert "log.level" in line
        assert {row["name"]: row["cron"] for row in client.schedule()}["incremental"] == "30 10 * * *"
        assert len(daemon.notify.times("READY=1")) == 3


def test_the_watchdog_is_fed_while_the_loop_turns_and_not_while_it_stands(house: House) -> None:
    daemon = house(watchdog_usec=400_000)
    with daemon, daemon.client() as client:
        wait_for(lambda: len(daemon.notify.times("WATCHDOG=1")) >= 5, "beats", seconds=5)
        beats = daemon.notify.times("WATCHDOG=1")
        assert max(after - before for before, after in pairwise(beats)) < 0.4
        os.kill(daemon.process.pid, signal.SIGSTOP)
        time.sleep(0.3)
        count = len(daemon.notify.times("WATCHDOG=1"))
        time.sleep(0.8)
        assert len(daemon.notify.times("WATCHDOG=1")) == count
        os.kill(daemon.process.pid, signal.SIGCONT)
        assert client.ping()
        wait_for(lambda: len(daemon.notify.times("WATCHDOG=1")) > count, "beats again", seconds=5)
        assert f"{COINS} of {COINS} coins forecast" in next(told.text for told in daemon.notify.told if "READY=1" in told.text)


AS_NOBODY = """
import json, os, sys
from cryptod.client import Client
from cryptod.errors import RequestError
os.setgroups([]); os.setgid(65534); os.setuid(65534)
said = {}
with Client(sys.argv[1]) as client:
    said["symbol"] = client.get("BTC").symbol
    said["health"] = client.health()["severity"]
    for name, call in {
        "train": lambda: client.train("full"), "cancel": lambda: client.cancel(1), "cache_clear": client.cache_clear,
        "cache_pregenerate": client.cache_pregenerate, "models_rollback": client.models_rollback,
    }.items():
        try:
            said[name] = str(call())
        except RequestError as error:
            said[name] = error.code
print(json.dumps(said))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_may_read_and_change_nothing(house: House) -> None:
    with house() as daemon, daemon.client() as client:
        command = [sys.executable, "-c", AS_NOBODY, str(daemon.socket)]
        run = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=30)
        assert run.returncode == 0, run.stderr
        said = json.loads(run.stdout)
        assert said.pop("symbol") == "BTC/USDT"
        assert said.pop("health")
        assert set(said.values()) == {"forbidden"}, said
        assert [job["id"] for job in client.jobs()] == [1]
