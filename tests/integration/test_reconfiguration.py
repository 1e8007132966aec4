"""A running daemon changed by its operator: coins, periodic work, models, log level; and what of that a restart keeps."""

from __future__ import annotations

import contextlib
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from cryptod.client import Client
from cryptod.errors import RequestError
from cryptod.logs import LEVELS
from cryptod.protocol import COMMANDS, LOG_LEVELS
from tests.integration.house import Daemon, SimulatedExchange, short_folder, wait_for

COINS = 2


@pytest.fixture(scope="module")
def exchange() -> Iterator[SimulatedExchange]:
    with SimulatedExchange("--coins", "9", "--seed", "7") as exchange:
        yield exchange


@pytest.fixture(scope="module")
def daemon(exchange: SimulatedExchange) -> Iterator[Daemon]:
    """Two of nine coins, served by the base model; the first training is cancelled."""
    with short_folder() as folder:
        made = Daemon(folder, exchange, cryptod_universe_size=COINS, cryptod_forecast_base_model="true")
        with made:
            made.wait_for(lambda client: client.cache_stats()["entries"] == COINS and client.jobs(), "the first forecasts", seconds=60)
            with made.client() as client, contextlib.suppress(RequestError):
                client.cancel(1)
            yield made


def followed(client: Client) -> list[str]:
    return [row["symbol"] for row in client.symbols()["followed"]]


def done(client: Client, number: int) -> dict[str, Any] | None:
    job = next(job for job in client.jobs() if job["id"] == number)
    return job if job["state"] == "done" else None


def not_followed(daemon: Daemon, client: Client) -> str:
    """A coin that trades, and is too small to be followed."""
    with urllib.request.urlopen(f"{daemon.exchange.url}/api/v3/exchangeInfo") as answer:
        pairs = json.load(answer)["symbols"]
    known = client.symbols()
    names = {f"{p['baseAsset']}/{p['quoteAsset']}" for p in pairs if p["quoteAsset"] == "USDT" and p["status"] == "TRADING"}
    return sorted(names.difference(followed(client), known["left_out"]))[0]


def test_periodic_work_is_paused_resumed_and_run_out_of_turn_and_pinned_models_serve_on(daemon: Daemon) -> None:
    with daemon.client() as client:
        pinned = client.models_pin()
        assert pinned["pinned_at"] == client.models_pin()["pinned_at"] == client.status()["models"]["pinned_at"] > 0
        paused = client.schedule_pause("full")
        assert (paused["paused"], paused["next"]) == (True, None)
        assert client.schedule_pause("full") == paused
        assert "paused" in daemon.control("schedule").stdout
        ran = client.schedule_run("full")
        assert (ran["paused"], ran["last"] > paused["last"]) == (True, True)
        job = client.jobs(1)[0]
        assert job["reason"] == "requested"
        assert not any(batch["promoted"] for batch in wait_for(lambda: done(client, job["id"]), "the retrain", seconds=120)["batches"])
        assert client.models()["generation"] == pinned["generation"]
        assert client.models_unpin()["pinned_at"] == 0
        assert client.models_unpin()["generation"] == pinned["generation"]
        resumed = client.schedule_resume("full")
        assert (resumed["paused"], resumed["next"] > ran["last"]) == (False, True)
        first = followed(client)[0]
        issued = client.get(first).issued
        client.schedule_run("pregenerate")
        wait_for(lambda: client.get(first).issued > issued, "forecasts made anew", seconds=60)
        with pytest.raises(RequestError, match="there is no periodic job 'ful'") as refused:
            client.schedule_pause("ful")
        assert refused.value.hint == "did you mean full?"


def test_a_coin_is_added_forecast_by_the_base_model_trained_and_removed_without_a_restart(daemon: Daemon) -> None:
    with daemon.client() as client:
        coin = not_followed(daemon, client)
        before = followed(client)
        shown = daemon.control("symbols", "add", coin.replace("/", "").lower(), "--follow", "--json")
        assert shown.returncode == 0, shown.stderr
        first = json.loads(shown.stdout)
        assert (first["symbol"], "base" in first["flags"], first["stale"]) == (coin, True, False)
        assert sorted(followed(client)) == sorted([*before, coin]), "it pushes nobody out"
        assert client.symbols()["added"] == [coin]
        assert client.symbols_add(coin)["changed"] is False

        client.schedule_run("full")
        number = client.jobs(1)[0]["id"]
        assert sum(batch["coins"] for batch in wait_for(lambda: done(client, number), "the retrain", seconds=120)["batches"]) == COINS + 1
        wait_for(lambda: "base" not in client.get(coin).flags, "a model of its own", seconds=60)

        biggest = before[0]
        assert client.get(biggest).symbol == biggest
        assert client.symbols_remove(biggest) == {
            "symbol": biggest, "changed": True, "followed": False, "reason": "removed with `cryptoctl symbols remove`",
        }  # fmt: skip
        assert client.symbols_remove(biggest)["changed"] is False
        with pytest.raises(RequestError, match=f"{biggest} is not followed: removed"):
            client.get(biggest)
        assert biggest not in client.get_many()
        assert sorted(followed(client)) == sorted({*before, coin} - {biggest})


def test_a_coin_that_the_exchange_does_not_have_is_named_and_can_be_forgotten(daemon: Daemon) -> None:
    with daemon.client() as client:
        shown = daemon.control("symbols", "add", "NOSUCH", "--follow")
        assert shown.returncode == 1
        assert "NOSUCH/USDT is not followed: binance does not have it" in shown.stderr
        wait_for(lambda: "NOSUCH" in "".join(c["text"] for c in client.health()["conditions"]), "the condition", seconds=60)
        assert client.symbols_remove("nosuch")["changed"] is True
        wait_for(lambda: "NOSUCH" not in str(client.health()), "the condition clears", seconds=60)
        for text, said in (("DOGE/EUR", "not quoted in USDT"), ("no such coin", "there is no coin")):
            with pytest.raises(RequestError, match=said):
                client.symbols_remove(text)


def test_the_log_level_changes_at_run_time(daemon: Daemon) -> None:
    assert tuple(LEVELS) == LOG_LEVELS
    with daemon.client() as client:
        assert client.log_level("error") == {"level": "error", "was": "info"}
        assert client.status()["process"]["log_level"] == "error"
        said = len(daemon.lines("a periodic job was paused"))
        client.schedule_pause("full")
        assert len(daemon.lines("a periodic job was paused")) == said
        assert client.log_level("info")["was"] == "error"
        client.schedule_pause("full")
        daemon.wait_for_line("a periodic job was paused", said + 1)
        with pytest.raises(RequestError, match="'loud' is not known"):
            client.log_level("loud")


def test_what_the_operator_changed_is_so_after_a_restart(daemon: Daemon) -> None:
    with daemon.client() as client:
        client.schedule_pause("full")
        at = client.models_pin()["pinned_at"]
        before = client.symbols()
        assert before["added"]
        assert before["removed"]
        daemon.stop()
        daemon.start().ready()
        after = client.symbols()
        assert [after[key] for key in ("added", "removed", "left_out")] == [before[key] for key in ("added", "removed", "left_out")]
        assert followed(client) == [row["symbol"] for row in before["followed"]]
        assert [row["name"] for row in client.schedule() if row["paused"]] == ["full"]
        assert client.models()["pinned_at"] == at
        client.schedule_resume("full")
        client.models_unpin()


def test_all_of_these_need_rights() -> None:
    names = (
        "symbols_add",
        "symbols_remove",
        "schedule_pause",
        "schedule_resume",
        "schedule_run",
        "models_pin",
        "models_unpin",
        "log_level",
    )
    assert all(COMMANDS[name].changes for name in names)
