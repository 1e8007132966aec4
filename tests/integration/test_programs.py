"""What programs meet at a real daemon: events, metrics, data out, and the examples of etc/examples."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cryptod.client import RequestError, read_forecast
from tests.integration.house import Daemon, SimulatedExchange, short_folder

COINS = 3
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """Three coins, served by the base model, on a market on which no candle closes meanwhile."""
    with (
        short_folder() as folder,
        SimulatedExchange("--coins", "5", "--seed", "7") as exchange,
        Daemon(folder, exchange, cryptod_universe_size=COINS, cryptod_forecast_base_model="true") as made,
    ):
        made.wait_for(lambda client: client.cache_stats()["entries"] == COINS and client.jobs(), "the first forecasts")
        with made.client() as client, contextlib.suppress(RequestError):
            client.cancel(1)  # nothing is published while a test looks but what it asks for
        yield made


# Events


def test_a_bot_is_sent_each_new_forecast_and_then_that_all_are_out(daemon: Daemon) -> None:
    with daemon.client() as bot, daemon.client() as other:
        bot.subscribe(["coins", "forecasts"])
        other.schedule_run("pregenerate")
        heard = {}
        for event in bot.events(timeout=60):
            if event.topic == "forecasts":
                break
            forecast = read_forecast(event.payload)
            heard[forecast.symbol] = forecast
        assert len(heard) == event.payload["coins"] == COINS
        for symbol, forecast in heard.items():
            assert forecast._replace(age=0.0) == other.get(symbol)._replace(age=0.0)


def test_cryptoctl_events_writes_a_document_for_each_event(daemon: Daemon) -> None:
    found: list[str] = []
    listening = threading.Thread(target=lambda: found.append(daemon.control("events", "coins", "--json", "--count", str(COINS)).stdout))
    listening.start()
    with daemon.client() as client:
        daemon.wait_for(lambda client: client.status()["control"]["connections"] >= 3 or not listening.is_alive(), "the listener")
        while listening.is_alive():  # until it has subscribed and heard enough
            client.cache_pregenerate()
            listening.join(0.2)
    documents = [json.loads(line) for line in found[0].splitlines()]
    assert {document["topic"] for document in documents} == {"coins"}
    assert len({document["payload"]["symbol"] for document in documents}) == COINS


# Metrics

NAMES = re.compile(r"\bcryptod_[a-z0-9_]+")


def test_dashboard_and_alerts_name_only_what_a_real_daemon_exports(daemon: Daemon) -> None:
    shown = daemon.control("metrics", "--format", "prometheus")
    assert shown.returncode == 0, shown.stderr
    exported = set(re.findall(r"^(cryptod_\w+?)(?:\{| )", shown.stdout, re.M)) | {"cryptod_condition"}  # nothing is wrong with this one
    families = set(re.findall(r"^# TYPE (\S+)", shown.stdout, re.M))
    assert len(exported) > 40
    assert families <= exported, "each family has a sample"
    assert f'cryptod_coins{{state="followed"}} {COINS}.0' in shown.stdout
    rules = (ROOT / "packaging" / "prometheus" / "cryptod.rules.yml").read_text()
    dashboard = (ROOT / "packaging" / "grafana" / "cryptod.json").read_text()
    named = set(NAMES.findall(" ".join(re.findall(r"expr: (.*)", rules))))
    panels = json.loads(dashboard)["panels"]
    named |= set(NAMES.findall(" ".join(target["expr"] for panel in panels for target in panel["targets"])))
    assert len(named) > 25
    assert named <= exported
    by_name = {label for line in shown.stdout.splitlines() for label in re.findall(r"(\w+)=\"", line)}
    used = set(re.findall(r"\{\{ ?\$labels\.(\w+)", rules)) | set(re.findall(r"\{\{(\w+)\}\}", dashboard))
    assert used - {"instance"} <= by_name | {"condition"}
