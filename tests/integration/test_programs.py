"""What programs meet at a real daemon: events, metrics, data out, and the examples of etc/examples."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cryptod.client import RequestError, read_forecast
from tests.integration.house import BIN, Daemon, SimulatedExchange, short_folder

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


# Data out


def test_the_ledger_comes_out_as_csv_as_it_was_issued(daemon: Daemon, tmp_path: Path) -> None:
    file = tmp_path / "ledger.csv"
    done = daemon.control("export", "ledger", "--output", str(file))
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert done.stderr == f"cryptoctl: {len(rows):,} rows in {file}\n"
    with daemon.client() as client:
        found = client.get_many()
    for symbol, forecast in found.items():
        mine = [row for row in rows if row["symbol"] == symbol and int(row["issued"]) == forecast.issued]
        assert [float(row["q025"]) for row in mine] == [row[0] for row in forecast.quantiles]
        assert [float(row["p_up"]) for row in mine] == list(forecast.p_up)
        assert {row["model"] for row in mine} == {forecast.model}
    refused = daemon.control("export", "ledger", "--since", "yesterday")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "'yesterday' is no time" in refused.stderr


def test_a_client_gives_frames_of_what_is_served_and_of_the_candles(daemon: Daemon) -> None:
    with daemon.client() as client:
        found = client.get_many()
        frame = client.frame("forecasts")
        assert sorted(frame["symbol"].unique()) == sorted(found)
        assert len(frame) == 24 * COINS
        first = frame[frame["symbol"] == min(found)]
        assert first["q500"].tolist() == [row[4] for row in found[min(found)].quantiles]
        coin = min(found)
        candles = client.frame("candles", [coin], since=found[coin].cutoff - 48 * 3_600_000)
        assert candles["symbol"].unique().tolist() == [coin]
        assert candles["close"].iloc[-1] == found[coin].close
        assert 40 <= len(candles) <= 48
        assert client.frame("scores").empty


# Examples

EXAMPLES = ROOT / "etc" / "examples"


def example(daemon: Daemon, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    environ = daemon.environ | {"PATH": f"{BIN}:{os.environ['PATH']}"} | more
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=120)


def test_the_bot_looks_at_what_can_be_relied_on(daemon: Daemon) -> None:
    done = example(daemon, sys.executable, str(EXAMPLES / "bot.py"), "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{COINS} of {COINS} coins, 0 without a forecast"
    assert re.match(r"\w+/USDT +[\d.,]+  80 % within +[\d.]+% in 24 h, P\(up\) [\d.]+%$", done.stdout.splitlines()[0])


def test_the_asyncio_consumer_is_sent_each_forecast(daemon: Daemon) -> None:
    command = [sys.executable, str(EXAMPLES / "consumer.py"), str(COINS)]
    with subprocess.Popen(command, env=daemon.environ, stdout=subprocess.PIPE, text=True) as consumer, daemon.client() as client:
        assert consumer.stdout is not None
        assert consumer.stdout.readline().startswith("health: ")  # it has subscribed before
        client.cache_pregenerate()
        lines = [consumer.stdout.readline() for _ in range(COINS)]
        assert consumer.wait(60) == 0
        assert {line.split()[0] for line in lines} == set(client.get_many())


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_shell_line_names_the_calmest_coins(daemon: Daemon) -> None:
    done = example(daemon, str(EXAMPLES / "calmest.sh"))
    assert (done.returncode, done.stderr) == (0, "")
    with daemon.client() as client:
        rows = sorted(client.top(COINS, "volatility"), key=lambda row: row["volatility"])
    assert [line.split()[0] for line in done.stdout.splitlines()] == [row["symbol"] for row in rows]


def node_modules(folder: Path) -> str | None:
    """Where Node finds @msgpack/msgpack: what is installed, else what npm brings into this folder. None where there is neither."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    installed = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True).stdout.strip()
    if (Path(installed) / "@msgpack" / "msgpack").is_dir():
        return installed
    bring = ["npm", "install", "--silent", "--no-audit", "--fetch-retries=0", "--prefix", str(folder), "@msgpack/msgpack@3.1.3"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        if subprocess.run(bring, capture_output=True, timeout=60).returncode == 0:
            return str(folder / "node_modules")
    return None


def test_node_gets_the_same_forecast(daemon: Daemon, tmp_path: Path) -> None:
    folder = node_modules(tmp_path)
    if folder is None:
        pytest.skip("node with @msgpack/msgpack is not here, and npm cannot bring it (npm install -g @msgpack/msgpack)")
    with daemon.client() as client:
        coin = min(client.get_many())
        wire = client.call("get", coin)
    done = example(daemon, "node", str(EXAMPLES / "get.js"), coin, NODE_PATH=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) | {"age": 0.0} == wire | {"age": 0.0}
    refused = example(daemon, "node", str(EXAMPLES / "get.js"), "NOSUCH", NODE_PATH=folder)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "there is no coin NOSUCH" in refused.stderr
