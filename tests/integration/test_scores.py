"""Live scores of the real daemon: announced, then worked out by a child from what was issued and what the exchange's candles say came."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cryptod.errors import RequestError
from cryptod.forecast.scores import crps
from cryptod.market import CLOSE, HOUR, MAX_HORIZON
from cryptod.store import ledger
from cryptod.store.candles import CandleStore
from cryptod.store.environment import open_environment
from cryptod.store.ledger import Ledger
from tests.integration.house import COINS, START, Daemon, SimulatedExchange, issues, short_folder, wait_for
from tests.outcomes import World

TEN = START // HOUR.ms * HOUR.ms
MARKET = ("--coins", str(COINS), "--seed", "7")
QUIET: dict[str, Any] = {"cryptod_incremental_enabled": "false"}


@pytest.fixture(scope="module")
def trained() -> Iterator[Path]:
    """A state directory of a daemon that issued its first forecasts at ten, and was asked for their scores too early."""
    with short_folder() as folder, SimulatedExchange(*MARKET) as exchange:
        with Daemon(folder, exchange, **QUIET) as daemon, daemon.client() as client:
            assert client.scores() | {"waiting": 0} == {
                "symbol": None, "window_hours": 720, "from": None, "to": None, "forecasts": 0, "again": 0, "after": 0, "unknown": 0,
                "waiting": 0, "first_due": None,
            }  # fmt: skip
            assert "no forecast was issued in the last 30 days" in daemon.control("scores").stdout
            daemon.wait_for(lambda client: client.cache_stats()["entries"] == COINS, "the first forecasts")
            wait_for(lambda: client.status()["training"]["running"] is None, "the end of the training")
            early = client.scores("btc", "7d")
            assert (early["symbol"], early["forecasts"], early["first_due"]) == ("BTC/USDT", 0, TEN + MAX_HORIZON * HOUR.ms)
            page = " ".join(daemon.control("scores", "BTC").stdout.split())
            assert page.startswith("no forecast of BTC/USDT is 24 h old yet: the first scores will be there in 23 h")
            assert page.endswith("at 2024-03-06 10:00 UTC")
        yield daemon.state


def test_a_day_later_the_first_forecasts_are_scored_with_what_the_candles_say(trained: Path) -> None:
    with short_folder() as folder, SimulatedExchange(*MARKET, start=START + 25 * HOUR.ms) as later:
        shutil.copytree(trained, folder / "state")
        with Daemon(folder, later, **QUIET) as daemon, daemon.client() as client:
            wait_for(lambda: client.scores()["forecasts"] == COINS, "the first scores")
            found = client.scores()  # a score may have come while that one was made
            cards = len(daemon.lines("scorecard made"))
            assert client.scores() == found
            assert len(daemon.lines("scorecard made")) == cards, "asked again it is the same, without another child"
            one = client.scores("ETH/USDT", "90d")
            page = daemon.control("scores", "--coins")
            said = json.loads(daemon.control("scores", "eth", "--window", "90d", "--json").stdout)
        assert "Traceback" not in daemon.log()
        made = [issue for issue in issues(daemon.state) if issue.cutoff == TEN]
        first = {symbol: (issue, row) for issue in reversed(made) for row, symbol in enumerate(issue.symbols)}
        with CandleStore.open(daemon.state / "candles") as store:
            panel = store.panel(list(first), TEN, TEN + MAX_HORIZON * HOUR.ms)
    assert (found["forecasts"], found["coins"], found["hours"]) == (COINS, COINS, 1)
    assert (found["from"], found["to"]) == (TEN, TEN)
    assert found["again"] == sum(len(issue.symbols) for issue in made) - COINS
    outcomes = np.log(panel.values[:, :, CLOSE].T / np.array([issue.close[row] for issue, row in first.values()])[:, None])
    quantiles = np.stack([issue.quantiles[row] for issue, row in first.values()])
    for h in (1, 24):
        assert found["by_horizon"][h - 1]["crps"] == pytest.approx(crps(quantiles[:, h - 1], outcomes[:, h - 1]).mean(), rel=1e-3)
    assert {"random_walk", "ewma", "ewma_season", "log_har"} <= set(found["pooled"]["references"])
    assert found["pooled"]["coverage"]["80"]["verdict"] is None, "of one hour nothing can be said"
    assert one == said
    ours = list(first).index("ETH/USDT")
    assert one["by_horizon"][0]["crps"] == pytest.approx(float(crps(quantiles[ours, 0], outcomes[ours, 0])), rel=1e-3)
    assert page.returncode == 0, page.stderr
    assert page.stdout.startswith(f"{COINS} forecasts of {COINS} coins, made from 2024-03-05 10:00")
    assert sum(line.split(" ")[0].endswith("/USDT") for line in page.stdout.splitlines()) == COINS


def test_weeks_of_scores_give_verdicts_and_coins_that_were_given_up_are_judged_too(trained: Path) -> None:
    world, hours = World(hours=300, coins=4, width=0.7), 300
    with short_folder() as folder, SimulatedExchange(*MARKET) as exchange:
        shutil.copytree(trained, folder / "state")
        with open_environment(folder / "state" / "serving", databases=ledger.DATABASES, writer=True) as environment:
            book = Ledger(environment)
            for hour in range(hours):
                issue = world.issue(hour)
                at = TEN - (hours + MAX_HORIZON - hour) * HOUR.ms
                seq = book.append(replace(issue, cutoff=at, issued=at + 5_000))
                assert book.put_score(replace(world.score(issue), cutoff=at, seq=seq))
        with Daemon(folder, exchange, **QUIET) as daemon, daemon.client() as client:
            found = client.scores()
            assert (found["forecasts"], found["coins"]) == (4 * hours, 4)
            assert {row["verdict"] for row in found["pooled"]["coverage"].values()} == {"narrow"}
            assert found["worst"]["coverage"]["symbol"] in world.symbols
            assert "intervals are too narrow" in " ".join(daemon.control("scores").stdout.split())
            assert client.scores(None, "7d")["hours"] == 168 - 1, "the newest that could be known is scored at the next candle"
            given_up = client.scores("C1/USDT")
            assert (given_up["symbol"], given_up["forecasts"]) == ("C1/USDT", hours)

            for asked, code, hint in (
                (("nonsense-coin",), "unknown_symbol", "`cryptoctl symbols`"),
                (("c1",), "unknown_symbol", ""),
                (("BCT/USDT",), "unknown_symbol", "did you mean BTC/USDT"),
                ((None, "30"), "bad_request", "did you mean 30d?"),
                ((None, "a year"), "bad_request", "one of 7d, 30d, 90d"),
            ):
                with pytest.raises(RequestError) as refused:
                    client.scores(*asked)
                assert (refused.value.code, hint in refused.value.hint) == (code, True), refused.value
            wrong = daemon.control("scores", "--window", "8d")
            assert (wrong.returncode, "choose from" in wrong.stderr) == (2, True)
            assert daemon.control("scores", "BCT/USDT").returncode == 1
            assert daemon.child("cryptod-score") is None
            assert client.status()["health"]["severity"] == "ok"
        assert "Traceback" not in daemon.log()
