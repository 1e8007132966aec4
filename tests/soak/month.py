"""`make soak`: a month of the daemon left alone, at speed: hourly refreshes, an update every six hours, a retrain every week, clients that
read all the while, and an exchange of whose requests 2 % fail. Nothing may grow, be late, be missing or fail.

    python -m tests.soak.month --days 30 --coins 30 --speed 1500
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Iterator

from cryptod.market import HOUR
from cryptod.simulator.faults import Fault
from tests.bench.figures import Figure, report
from tests.integration.house import START, SimulatedExchange, short_folder
from tests.soak.life import DAY, Life, lived, options

MIB = 1 << 20
FAILING = 0.02
BROKEN = ("reset", "cut", "server_error", "html", "truncated")
"""How requests fail, each kind as often as the others."""
GROWTH = 18_000
"""Bytes of the ledger that a coin costs in a day: README, a year of 100 coins in some 650 MB. Fewer coins share less and cost more each."""


def trouble(share: float = FAILING) -> tuple[Fault, ...]:
    """So large a share of all requests fails."""
    return tuple(Fault(kind, probability=share / len(BROKEN)) for kind in BROKEN)


def live(days: int, coins: int, speed: float, clients: int) -> Life:
    """A month, from the first forecasts on."""
    faults, end = trouble(), START + days * DAY + HOUR.ms // 2
    with short_folder() as folder, SimulatedExchange(*options(coins, faults), speed=speed) as exchange:
        # A machine that does other work too starves who is nicer than that: an update has to be through before the next one is due.
        settings = {"cryptod_train_batch_size": 25, "cryptod_train_months_back": 6, "cryptod_worker_nice": os.nice(0)}
        with lived(folder, exchange, coins, faults, clients=clients, every=3600 / speed, **settings) as (_, life, watch):
            for day in range(1, days + 1):
                watch(functools.partial(lambda day, _: exchange.now() > START + day * DAY, day), f"day {day}", 4 * 86400 / speed + 300)
                print(f"day {day}: {life.reads.count:,} reads, {life.samples[-1]}", flush=True)
            watch(lambda _: exchange.now() > end, "the last hour", 300)
    return life


def figures(life: Life, days: int, coins: int) -> Iterator[Figure]:
    """What is asked of the month. Its first hours, in which there is not yet a model of one's own, are not judged for growth."""
    first, last = min(5, days - 1), days
    idle = {number: life.median(number, lambda one: one.all) for number in (first, last)}
    alone = {number: life.median(number, lambda one: one.daemon) for number in (first, last)}
    files = {number: max((one.descriptors for one in life.day(number)), default=0) for number in (first, last)}
    sizes = {number: life.median(number, lambda one: one.serving) for number in (last // 3, 2 * last // 3, last)}
    early, late_days = sizes[2 * last // 3] - sizes[last // 3], sizes[last] - sizes[2 * last // 3]
    yield Figure(f"pss_all_day_{last}", idle[last] / MIB, "MiB", 1.05, "lower", idle[first] / MIB, idle[last] / idle[first])
    yield Figure(f"pss_daemon_day_{last}", alone[last] / MIB, "MiB", 1.05, "lower", alone[first] / MIB, alone[last] / alone[first])
    yield Figure("pss_all_peak", max(one.all for one in life.samples) / MIB, "MiB", None, "lower")
    yield Figure(f"descriptors_day_{last}", files[last], "", files[first], "lower")
    yield Figure("ledger_per_coin_day", late_days / (last - 2 * last // 3) / coins, "B", GROWTH, "lower")
    yield Figure("serving_mdb_growth", late_days / MIB, "MiB", 1.1, "lower", early / MIB, late_days / early if early else 1.0)
    yield Figure("serving_mdb", life.samples[-1].serving / MIB, "MiB", None, "lower")
    yield Figure("candles_mdb", life.samples[-1].candles / MIB, "MiB", None, "lower")
    yield Figure("checkpoints_kept", life.samples[-1].checkpoints, "", None, "lower")
    done = [job for job in life.jobs if job["state"] == "done"]
    yield Figure("incremental_updates", sum(job["kind"] == "incremental" for job in done), "", 4 * days, "higher")
    yield Figure("full_retrains", sum(job["kind"] == "full" and job["reason"] == "scheduled" for job in done), "", days // 7, "higher")
    yield Figure("jobs_failed", sum(job["state"] == "failed" for job in life.jobs), "", 0, "lower")
    since = START - START % HOUR.ms + HOUR.ms
    hours = (life.end - HOUR.ms - since) // HOUR.ms
    late = life.late(since)
    yield Figure("forecasts_issued_on_time", hours * coins - len(late), "", hours * coins, "higher")
    yield Figure("issues_scored", len(life.scored), "", None, "higher")
    yield Figure("scores_missing", len(life.unscored_by(life.end)), "", 0, "lower")
    yield Figure("reads", life.reads.count, "", None, "higher")
    yield Figure("reads_failed", len(life.reads.failed), "", 0, "lower")
    yield Figure("answers_with_a_wrong_age", len(life.reads.dishonest), "", 0, "lower")
    yield Figure("coins_with_wrong_candles", len(life.wrong), "", 0, "lower")
    asked, hit = life.requests["total"], sum(life.requests["fault"].values())
    yield Figure("requests", asked, "", None, "lower")
    yield Figure("requests_failed", 100 * hit / asked, "%", None, "lower")
    yield Figure("weight_peak", 100 * life.requests["weight"]["peak"] / life.requests["weight"]["limit"], "% of limit", 100, "lower")


def tell(life: Life) -> None:
    """What the figures do not say."""
    print(f"conditions raised: {life.conditions or 'none'}")
    for name, lines in (("failed reads", life.reads.failed), ("wrong ages", life.reads.dishonest)):
        for line in lines[:5]:
            print(f"{name}: {line}")
    for symbol, what in life.wrong.items():
        print(f"{symbol}: {what}")
    for line in life.log.splitlines():
        if " error " in line or "Traceback" in line:
            print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--coins", type=int, default=30)
    parser.add_argument("--speed", type=float, default=1500.0)
    parser.add_argument("--clients", type=int, default=3)
    asked = parser.parse_args()
    life = live(asked.days, asked.coins, asked.speed, asked.clients)
    tell(life)
    print(f"\n{asked.days} simulated days of {asked.coins} coins at {asked.speed:g} times the speed of life", end="")
    found = list(figures(life, asked.days, asked.coins))
    report(found)
    raise SystemExit(0 if all(figure.met is not False for figure in found) else 1)


if __name__ == "__main__":
    main()
