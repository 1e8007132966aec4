"""Two days of June 2023 on real candles: the default configuration beside a replaying exchange, checked against the files.

The figures are worked out another way here: with pandas, from the candle files, without a line of the daemon's own code
but what reads the stores. Runs where ``CRYPTOD_CANDLES`` names a folder of candle files; takes about three minutes.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cryptod.daemon.publisher import GRACE_MS
from cryptod.market import CANDLE, CLOSE, HOUR, QUANTILE_LEVELS
from cryptod.replies import Forecasts
from cryptod.store.candles import CandleStore
from cryptod.store.ledger import Issue
from tests.integration.house import SETTINGS, Daemon, SimulatedExchange, issues, short_folder, wait_for

FOLDER = os.environ.get("CRYPTOD_CANDLES", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="CRYPTOD_CANDLES names no folder of real candles")

DAY = 24 * HOUR.ms
START = 1_685_750_400_000 + 20 * 60_000
"""Saturday 2023-06-03 00:20 UTC."""
END = START + 2 * DAY
SUNDAY_RETRAIN = 1_685_750_400_000 + 1 * DAY + 2 * HOUR.ms
SPEED = float(os.environ.get("CRYPTOD_TEST_SPEED", "1200"))
"""An hour in 3 s, a third as fast as two cores can go: the collection takes 0.3 s of it, an update of all models 5 s of six hours."""
HOURS = 40
"""At least so many of the 48 hours are there to be looked at after the first retrain."""


@dataclass(slots=True)
class Moment:
    """What a client saw right after forecasts had been published."""

    now: int
    forecasts: Forecasts
    top: list[dict[str, Any]]


@dataclass(slots=True)
class Weekend:
    """What was seen and what is left of it."""

    moments: list[Moment] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    symbols: dict[str, Any] = field(default_factory=dict)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    conditions: list[dict[str, Any]] = field(default_factory=list)
    log: str = ""
    stopped_in: float = 0.0
    ledger: list[Issue] = field(default_factory=list)
    state: Path = Path()

    @property
    def followed(self) -> dict[str, dict[str, Any]]:
        return {row["symbol"]: row for row in self.symbols["followed"]}

    def lines(self, sentence: str) -> list[str]:
        return [line for line in self.log.splitlines() if sentence in line]


def live(weekend: Weekend, daemon: Daemon, exchange: SimulatedExchange) -> None:
    with daemon.client() as client:
        client.subscribe(["forecasts"])
        while exchange.now() < END:
            event = client.next_event(timeout=90)
            assert event is not None, "no forecasts for 90 s"
            forecasts = client.get_many()
            top = client.top(len(forecasts), "p_up", 12)
            weekend.moments.append(Moment(exchange.now(), forecasts, top))
        wait_for(lambda: client.status()["training"]["running"] is None, "the end of the last update", seconds=120)
        weekend.jobs, weekend.symbols, weekend.status, health = client.jobs(100), client.symbols(), client.status(), client.health()
        weekend.conditions = health["conditions"]


@pytest.fixture(scope="module")
def weekend() -> Iterator[Weekend]:
    with short_folder() as folder, SimulatedExchange("--candles", FOLDER, start=START, speed=SPEED) as exchange:
        daemon = Daemon(folder, exchange)
        for name in SETTINGS:
            del daemon.environ[name]
        weekend = Weekend(state=daemon.state)
        with daemon:
            live(weekend, daemon, exchange)
            weekend.stopped_in = daemon.stop()
            weekend.log = daemon.log()
        weekend.ledger = issues(daemon.state)
        yield weekend


@pytest.fixture(scope="module")
def closes() -> pd.DataFrame:
    """Close by close time (UTC ms) and symbol, straight from the files; an hour without a trade has the last close."""
    columns = {}
    for path in sorted(Path(FOLDER).glob("*.csv.gz")):
        table = pd.read_csv(path, usecols=["ts", "close"])
        columns[path.name.removesuffix(".csv.gz").replace("-", "/")] = pd.Series(table["close"].to_numpy(), index=table["ts"] + HOUR.ms)
    frame = pd.DataFrame(columns).sort_index()
    hours = range(int(frame.index[0]), int(frame.index[-1]) + 1, HOUR.ms)
    return frame.reindex(hours)


def test_all_coins_that_trade_are_trained_and_the_others_are_named_with_the_reason(weekend: Weekend, closes: pd.DataFrame) -> None:
    followed, left_out = weekend.followed, weekend.symbols["left_out"]
    assert set(followed) | set(left_out) == set(closes.columns)
    assert not set(followed) & set(left_out)
    before = closes.loc[START - 183 * DAY : START - START % HOUR.ms]
    silent = {symbol for symbol in closes if before[symbol].iloc[-24:].isna().all()}
    assert silent == {"BTCST/USDT", "COCOS/USDT", "FTT/USDT", "SRM/USDT", "UST/USDT"}
    assert set(left_out) == silent | {"BUSD/USDT", "EUR/USDT", "USDC/USDT"}
    for symbol, reason in left_out.items():
        wanted = {"EUR/USDT": "a fiat currency", "BUSD/USDT": "a stablecoin", "USDC/USDT": "a stablecoin"}
        assert wanted.get(symbol, "not trading") in reason or (symbol == "UST/USDT" and "stablecoin" in reason)
    hours = before.notna().sum()
    by_base = {symbol for symbol, row in followed.items() if row["model"] is not None and row["model"].endswith("-base")}
    assert by_base == {symbol for symbol in followed if hours[symbol] < 45 * 24} != set(), "too young to be trained: served all the same"
    assert all("base" in weekend.moments[-1].forecasts[symbol].flags for symbol in by_base)
    assert all(row["model"] is not None for row in followed.values())
    assert weekend.status["models"]["coins"] == len(followed)
    assert weekend.status["candles"]["left_out"] == len(left_out)


def test_forecasts_stand_on_the_files_closes_at_the_last_closed_hour(weekend: Weekend, closes: pd.DataFrame) -> None:
    last = closes.ffill()
    complete = [moment for moment in weekend.moments if len(moment.forecasts) == len(weekend.moments[-1].forecasts)]
    assert len(complete) >= HOURS
    for moment in complete:
        for symbol, forecast in moment.forecasts.items():
            assert forecast.close == last.at[forecast.cutoff, symbol]
            assert forecast.cutoff <= forecast.issued <= moment.now
    for moment in complete[2:]:  # the first came while half a year was still being collected
        hour = moment.now // HOUR.ms * HOUR.ms
        assert {forecast.cutoff for forecast in moment.forecasts.values()} <= {hour, hour - HOUR.ms}
        for forecast in moment.forecasts.values():  # at this speed five minutes of grace are a tenth of a second
            assert not forecast.stale or moment.now - forecast.cutoff >= HOUR.ms + GRACE_MS


def test_figures_agree_with_each_other_as_quantiles_prices_and_probabilities_must(weekend: Weekend) -> None:
    levels = np.array(QUANTILE_LEVELS)
    for moment in weekend.moments[::12]:
        for forecast in moment.forecasts.values():
            quantiles = np.array(forecast.quantiles)
            assert (np.diff(quantiles, axis=1) >= 0).all()
            assert np.allclose(forecast.prices, forecast.close * np.exp(quantiles), rtol=1e-6)
            p_up, below = np.array(forecast.p_up), (quantiles < 0).sum(axis=1)
            edges = np.concatenate([[0.0], levels, [1.0]])
            assert (p_up >= 1 - edges[below + 1] - 0.01).all()
            assert (p_up <= 1 - edges[below] + 0.01).all()
            spread = (quantiles[:, 6] - quantiles[:, 2]) / 2.563  # 10 % to 90 % of a normal distribution
            assert ((np.array(forecast.volatility) > 0.5 * spread) & (np.array(forecast.volatility) < 3 * spread)).all()


def test_top_is_sorted_by_the_figures_that_get_gives(weekend: Weekend) -> None:
    compared = 0
    for moment in weekend.moments:
        figures = {symbol: forecast.p_up[11] for symbol, forecast in moment.forecasts.items()}
        assert [row["p_up"] for row in moment.top] == sorted((row["p_up"] for row in moment.top), reverse=True)
        if {row["symbol"]: row["cutoff"] for row in moment.top} == {s: f.cutoff for s, f in moment.forecasts.items()}:
            same = all(row["model"] == moment.forecasts[row["symbol"]].model for row in moment.top)
            if same:
                compared += 1
                assert [row["symbol"] for row in moment.top] == sorted(figures, key=lambda symbol: (-figures[symbol], symbol))
    assert compared >= HOURS


def test_the_ledger_holds_every_hour_that_was_lived_and_every_forecast_that_was_seen(weekend: Weekend) -> None:
    cutoffs = sorted({issue.cutoff for issue in weekend.ledger})
    missing = set(range(cutoffs[0], cutoffs[-1] + 1, HOUR.ms)) - set(cutoffs)
    trained = next(job["ended"] for job in reversed(weekend.jobs) if job["kind"] == "full")
    missing = {cutoff for cutoff in missing if cutoff > trained}
    assert len(missing) <= 2, "an hour is missing only where the machine stood still for the three seconds that it lasts here"
    assert cutoffs[0] - START < 20 * HOUR.ms
    assert cutoffs[-1] >= END // HOUR.ms * HOUR.ms - HOUR.ms
    begun = sum(issue.issued <= weekend.status["now"] for issue in weekend.ledger)
    assert begun - weekend.status["ledger"]["issues"] in (0, 1), "what is begun is a moment later on disk"
    assert weekend.status["ledger"]["damaged"] == 0
    kept = {(issue.issued, symbol): (issue, row) for issue in weekend.ledger for row, symbol in enumerate(issue.symbols)}
    for moment in weekend.moments:
        for symbol, forecast in moment.forecasts.items():
            issue, row = kept[forecast.issued, symbol]
            assert issue.quantiles[row].tobytes() == np.array(forecast.quantiles, np.float32).tobytes()
            assert (issue.close[row], issue.cutoff, issue.models[row]) == (forecast.close, forecast.cutoff, forecast.model)


def test_what_was_said_came_true_about_as_often_as_it_was_said(weekend: Weekend, closes: pd.DataFrame) -> None:
    last = closes.ffill()
    inside: Counter[int] = Counter()
    count: Counter[int] = Counter()
    for issue in {issue.cutoff: issue for issue in weekend.ledger}.values():
        now = last.loc[issue.cutoff, list(issue.symbols)].to_numpy()
        for h in (1, 6, 24):
            later = last.loc[issue.cutoff + h * HOUR.ms, list(issue.symbols)].to_numpy()
            outcome = np.log(later / now)
            low, high = issue.quantiles[:, h - 1, 1], issue.quantiles[:, h - 1, 7]
            inside[h] += int(((outcome >= low) & (outcome <= high)).sum())
            count[h] += len(outcome)
    coverage = {h: inside[h] / count[h] for h in count}
    # One weekend of one market: 100 coins that move together are few independent outcomes.
    assert all(0.7 < share < 0.995 for share in coverage.values()), coverage
    assert coverage[1] > 0.85


def test_every_turn_of_the_schedule_was_taken(weekend: Weekend) -> None:
    assert not [job for job in weekend.jobs if job["state"] == "failed"]
    full = [job for job in weekend.jobs if job["kind"] == "full"]
    assert [job["reason"] for job in full] == ["scheduled", "there is no model yet"]
    assert full[0]["state"] == "done"
    assert SUNDAY_RETRAIN <= full[0]["created"] < SUNDAY_RETRAIN + HOUR.ms
    assert [batch["state"] for batch in full[0]["batches"]] == ["done"] * 4
    assert {batch["coins"] for batch in full[0]["batches"]} <= {25, len(weekend.followed) - 75}
    turns = range(START // (6 * HOUR.ms) * 6 * HOUR.ms + 6 * HOUR.ms, END - HOUR.ms, 6 * HOUR.ms)
    # A turn that comes while a training waits or runs is one with it.
    spans = [(job["created"] - HOUR.ms, job["ended"]) for job in weekend.jobs]
    assert not [turn for turn in turns if not any(first <= turn <= last for first, last in spans)]
    assert len([job for job in weekend.jobs if job["kind"] == "incremental"]) >= 3
    assert [issue for issue in weekend.ledger if SUNDAY_RETRAIN - 300_000 <= issue.issued < SUNDAY_RETRAIN + HOUR.ms], "generated ahead"
    assert len(weekend.lines("collection: collected candles")) > HOURS
    assert not [line for line in weekend.log.splitlines() if " error " in line and "condition" not in line], "nothing went wrong"
    assert "Traceback" not in weekend.log


def test_the_status_is_right_at_the_end(weekend: Weekend, closes: pd.DataFrame) -> None:
    status = weekend.status
    newest = status["candles"]["newest_close"]
    assert status["now"] - newest < 2 * HOUR.ms
    assert status["candles"]["symbols"] == len(weekend.followed)
    assert status["cache"]["entries"] >= status["models"]["coins"]
    assert status["training"]["last_full"] > SUNDAY_RETRAIN
    assert not [row for row in weekend.conditions if row["severity"] == "error"], weekend.conditions
    with CandleStore.open(weekend.state / "candles") as store:
        symbols = sorted(weekend.followed)
        start = newest - 31 * DAY
        panel = store.panel(symbols, start, newest)
    ours = pd.DataFrame(np.where(panel.status == CANDLE, panel.values[:, :, CLOSE], np.nan), panel.open_times + HOUR.ms, symbols)
    pd.testing.assert_frame_equal(ours, closes.loc[start + HOUR.ms : newest, symbols], check_names=False, check_freq=False)
    assert weekend.stopped_in < 5
    assert status["memory"]["peak_total"] < 700 << 20
