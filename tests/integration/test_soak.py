"""A day at speed in which the exchange does everything wrong: what `make soak` and `make storms` ask of a month, asked of one daemon's day.

Each coin has a fault of its own, so that many happen alone and at once; what hits all coins comes after the other.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cryptod.client import Client
from cryptod.clock import SpedClock
from cryptod.daemon.service import Service
from cryptod.market import HOUR
from cryptod.simulator.binance import WEIGHT_LIMIT
from cryptod.simulator.faults import KINDS, Fault
from tests.integration.house import START, SimulatedExchange, short_folder, wait_for
from tests.soak.life import DAY, Life, lived, options, sample
from tests.soak.weather import Passed, Storm, down, passed

COINS = 16
SPEED = 7200.0
"""Half a second an hour."""
NAMES = ("BTC", "ETH", "BNB", "SOL", "XRP", "DOGE", "ADA", "AVAX", "MATIC", "DOT")
ROWS = ("wrong_types", "nan", "negative", "inverted", "missing", "doubled", "disordered", "future", "revised", "unaligned")
STORMS = (
    Storm("rows that are wrong", tuple(Fault(kind, symbols=(f"{name}/USDT",)) for kind, name in zip(ROWS, NAMES, strict=True)), 3),
    Storm(
        "answers that are none",
        (
            *(
                Fault(kind, symbols=(f"{name}/USDT",), times=2)
                for kind, name in zip(("reset", "cut", "server_error", "html", "truncated"), NAMES[:5], strict=True)
            ),
            Fault("timeout", symbols=("DOGE/USDT",), times=1, value=1.0),
            Fault("drip", symbols=("ADA/USDT",), times=1, value=1.0),
            Fault("rate_limited", symbols=("DOT/USDT",), times=1, value=1.0),
            Fault("skewed", value=-2.0 * HOUR.ms),
        ),
        3,
    ),
    Storm(
        "a ban, and what happens to coins",
        (
            Fault("banned", times=1, value=2.0),
            Fault("halted", symbols=("ETH/USDT",), end=6 * HOUR.ms),
            Fault("flat", symbols=("ADA/USDT",), end=6 * HOUR.ms),
            Fault("delisted", symbols=("BNB/USDT",)),
            Fault("removed", symbols=("DOGE/USDT",)),
            Fault("renamed", symbols=("SOL/USDT",), to="NEW/USDT"),
            Fault("redenominated", symbols=("XRP/USDT",), value=1000.0),
        ),
        12,
    ),
    down(COINS, 10),
    Storm("nobody there", (Fault("refused"),), 3),
)


def coins(client: Client) -> list[str]:
    return [row["symbol"] for row in client.symbols()["followed"]]


@pytest.fixture(scope="module")
def day() -> Iterator[tuple[Life, list[Passed]]]:
    """The storms one after the other, and whatever is missing of a day and a bit."""
    with short_folder() as folder, SimulatedExchange(*options(COINS), speed=SPEED) as exchange:
        with lived(folder, exchange, COINS) as (daemon, life, watch), daemon.client() as client:
            storms = []
            for storm in STORMS:
                storms.append(passed(storm, daemon, life, COINS, client))
                life.samples.append(sample(daemon))
            client.train("full")  # before which the coins are chosen anew
            followed = wait_for(lambda: "NEW/USDT" in (found := coins(client)) and found, "the coin under its new name", seconds=60)
            assert not {"SOL/USDT", "DOGE/USDT"} & set(followed)
            watch(lambda client: client.get("BTC/USDT").cutoff > START + DAY, "a forecast of the next day", 120)
        yield life, storms


def test_an_outage_of_all_coins_is_told_and_its_forecasts_say_so(day: tuple[Life, list[Passed]]) -> None:
    life, storms = day
    outage = next(one for one in storms if one.storm.name.startswith("all coins halted"))
    assert life.conditions.get("market_outage", 0) >= 1
    flagged = [issue for issue in life.issues if outage.began < issue.cutoff < outage.over + 9 * HOUR.ms]
    assert any(sum("outage" in words for words in issue.flags) > len(issue.symbols) / 2 for issue in flagged)


def test_every_kind_of_fault_was_met() -> None:
    assert {fault.kind for storm in STORMS for fault in storm.faults} == set(KINDS)


def test_no_wrong_candle_was_ever_in_the_store_and_after_each_storm_it_held_the_truth(day: tuple[Life, list[Passed]]) -> None:
    life, storms = day
    assert {one.storm.name: one.wrong for one in storms if one.wrong} == {}
    assert life.wrong == {}


def test_every_read_was_answered_with_an_honest_age(day: tuple[Life, list[Passed]]) -> None:
    life, _ = day
    assert life.reads.count > 100
    assert life.reads.failed == []
    assert life.reads.dishonest == []


def test_the_exchange_was_not_stormed(day: tuple[Life, list[Passed]]) -> None:
    life, _ = day
    asked = life.requests
    assert asked["weight"]["peak"] < WEIGHT_LIMIT / 2, "a day's requests, retries and all, are less than half of what one minute allows"
    assert (asked["status"]["429"], asked["status"]["418"]) == (1, 1), "one that was told to wait waited, one that was banned stayed away"


def test_forecasts_whose_day_was_over_have_their_score(day: tuple[Life, list[Passed]]) -> None:
    life, _ = day
    assert life.scored
    assert life.unscored_by(life.end - 7 * HOUR.ms) == []  # six hours are waited for candles that are late


def test_nothing_failed_that_the_exchange_is_no_excuse_for(day: tuple[Life, list[Passed]]) -> None:
    life, _ = day
    assert "Traceback" not in life.log
    assert [job for job in life.jobs if job["state"] == "failed"] == []
    assert max(one.descriptors for one in life.samples) < 64


def test_the_daemon_tidies_up_by_its_own_clock() -> None:
    service = Service.__new__(Service)
    service.clock = SpedClock(START, START, 900.0)
    chores = {job.job_func.args[0]: job.interval for job in service._housekeeping().jobs if job.job_func is not None}
    assert (chores["expiry"], chores["pruning"]) == (1, 4), "ten minutes and an hour of it, in seconds of ours"
    assert chores["conditions"] == 2
