"""`make storms`: a month in which the exchange does everything wrong: each fault alone, then two days of silence, then all of them mixed.

The same month is then lived through without storms, and the coverage of the 80 % intervals in each storm and the day after it is set
beside that of the same hours without.

    python -m tests.soak.storms --days 30 --coins 12 --speed 900 [--only WORD] [--no-calm]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any, Final

from cryptod.market import HOUR
from cryptod.simulator.binance import WEIGHT_LIMIT
from cryptod.simulator.faults import Fault
from tests.bench.figures import Figure, report
from tests.integration.house import START, SimulatedExchange, short_folder
from tests.soak.life import DAY, Life, lived, options
from tests.soak.month import tell
from tests.soak.weather import Passed, Storm, alone, down, passed

ALONE: Final = (
    alone("wrong_types", 6), alone("nan", 6), alone("negative", 6), alone("inverted", 6), alone("missing", 6), alone("doubled", 6),
    alone("disordered", 6), alone("future", 6), alone("revised", 6), alone("unaligned", 6),
    alone("reset", 6), alone("cut", 6), alone("server_error", 6), alone("html", 6), alone("truncated", 6),
    alone("timeout", 6, symbols=("LTC/USDT",), times=2), alone("timeout", 6, value=2.0), alone("drip", 6, value=3.0),
    alone("drip", 6, symbols=("LTC/USDT",), times=1),
    alone("rate_limited", 6, value=2.0), alone("rate_limited", 6, value=45.0, times=1), alone("banned", 6, value=20.0, times=1),
    alone("skewed", 6, value=2.0 * HOUR.ms), alone("skewed", 6, value=-2.0 * HOUR.ms), alone("skewed", 6, value=40.0 * DAY),
    alone("halted", 36, symbols=("ETH/USDT",), end=30 * HOUR.ms), alone("flat", 30, symbols=("ADA/USDT",), end=24 * HOUR.ms),
    alone("delisted", 6, symbols=("BNB/USDT",)), alone("removed", 6, symbols=("DOGE/USDT",)),
    alone("renamed", 6, symbols=("SOL/USDT",), to="NEW/USDT"), alone("redenominated", 6, symbols=("XRP/USDT",), value=1000.0),
)  # fmt: skip
DOWN_HOURS: Final = (1, 6, 12)
SILENCE: Final = Storm("down for two days", (Fault("refused"),), 48)
MIXED: Final = Storm(
    "all mixed",
    (
        *(
            Fault(kind, probability=0.03)
            for kind in ("wrong_types", "nan", "negative", "inverted", "missing", "doubled", "disordered", "future", "unaligned")
        ),
        Fault("revised", probability=0.3),
        *(Fault(kind, probability=0.02) for kind in ("reset", "cut", "server_error", "html", "truncated", "rate_limited")),
        Fault("timeout", probability=0.005, value=2.0),
        Fault("drip", probability=0.005, value=3.0),
        Fault("banned", probability=0.001, value=5.0),
        Fault("skewed", probability=0.1, value=-90_000.0),
    ),
    24,
)


def storms(coins: int, only: str = "") -> list[Storm]:
    """Each alone, outages of all coins, and the silence; or those with a word in their name."""
    return [storm for storm in (*ALONE, *(down(coins, hours) for hours in DOWN_HOURS), SILENCE) if only in storm.name]


def live(days: int, coins: int, speed: float, only: str = "") -> tuple[Life, list[Passed]]:
    """Each alone, then the silence, then days of all, until the month is over but for a day of calm."""
    found: list[Passed] = []
    with short_folder() as folder, SimulatedExchange(*options(coins), speed=speed) as exchange:
        settings: dict[str, Any] = {"cryptod_worker_nice": os.nice(0), "cryptod_train_months_back": 3}
        with lived(folder, exchange, coins, **settings) as (daemon, life, watch), daemon.client() as client:
            watch(lambda client: client.status()["training"]["last_full"] > 0, "the first models", 300)
            for storm in storms(coins, only):
                found.append(passed(storm, daemon, life, coins, client))
                print(described(found[-1], exchange.now()), flush=True)
            while not only and exchange.now() < START + (days - 2) * DAY:
                found.append(passed(MIXED, daemon, life, coins, client))
                print(described(found[-1], exchange.now()), flush=True)
            calm = exchange.now() + DAY
            watch(lambda _: exchange.now() > calm, "a day of calm", 4 * 86400 / speed + 300)
    return life, found


def calm(coins: int, speed: float, end: int) -> Life:
    """The same market until ``end``, without storms."""
    with short_folder() as folder, SimulatedExchange(*options(coins), speed=speed) as exchange:
        settings: dict[str, Any] = {"cryptod_worker_nice": os.nice(0), "cryptod_train_months_back": 3}
        with lived(folder, exchange, coins, **settings) as (_, life, watch):
            watch(lambda _: exchange.now() > end, "the end of the month", (end - START) / 1000 / speed * 4 + 300)
    return life


def beside(life: Life, without: Life, found: list[Passed]) -> Iterator[tuple[str, float, float]]:
    """Name, coverage of the 80 % intervals of the storm's hours and the day after, and of the same hours without storms."""
    for one in found:
        span = one.began, one.over + DAY
        if (held := life.coverage(*span)) is not None and (usual := without.coverage(*span)) is not None:
            yield one.storm.name, held, usual


def described(one: Passed, now: int) -> str:
    """A line for each storm."""
    wrong = f"  WRONG {one.wrong}" if one.wrong else ""
    return (
        f"day {(now - START) / DAY:4.1f}  {one.storm.name:<22} {one.hits:>5} hits in {one.hours:4.1f} h, {one.asked:5.1f} requests/h, "
        f"true again after {one.healing:4.1f} h{wrong}"
    )


def figures(life: Life, found: list[Passed], coins: int) -> Iterator[Figure]:
    """What is asked of the month."""
    yield Figure("storms", len(found), "", len(storms(coins)) + 1, "higher")
    yield Figure("storms_with_a_wrong_candle", sum(bool(one.wrong) for one in found), "", 0, "lower")
    yield Figure("longest_healing", max(one.healing for one in found), "h", None, "lower")
    yield Figure("coins_with_wrong_candles", len(life.wrong), "", 0, "lower")
    yield Figure("reads", life.reads.count, "", None, "higher")
    yield Figure("reads_refused", life.reads.refused, "", None, "lower")
    yield Figure("reads_failed", len(life.reads.failed), "", 0, "lower")
    yield Figure("answers_with_a_wrong_age", len(life.reads.dishonest), "", 0, "lower")
    yield Figure("scores_missing", len(life.unscored_by(life.end - 6 * HOUR.ms)), "", 0, "lower")
    yield Figure("renamed_coin_followed", float("NEW/USDT" in life.followed), "", 1, "higher")
    yield Figure("jobs_done", sum(job["state"] == "done" for job in life.jobs), "", None, "higher")
    yield Figure("requests_per_coin_hour_at_worst", max(one.asked for one in found) / coins, "", None, "lower")
    yield Figure("requests", life.requests["total"], "", None, "lower")
    peak = 100 * life.requests["weight"]["peak"] / WEIGHT_LIMIT
    yield Figure("weight_in_the_worst_minute", peak, "% of limit", 100, "lower")
    yield Figure("refused_for_weight", _unasked(life, 429, "rate_limited") + _unasked(life, 418, "banned"), "", 0, "lower")


def _unasked(life: Life, status: int, kind: str) -> int:
    """Answers of that status that no fault explains."""
    answered, meant = int(life.requests["status"].get(str(status), 0)), int(life.requests["fault"].get(kind, 0))
    return max(0, answered - meant)  # who has hung up gets none


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--coins", type=int, default=12)
    parser.add_argument("--speed", type=float, default=900.0)
    parser.add_argument("--only", default="", help="only the storms with this word in their name, and no mixed ones")
    parser.add_argument("--no-calm", action="store_true", help="do not live through the month without storms")
    asked = parser.parse_args()
    life, found = live(asked.days, asked.coins, asked.speed, asked.only)
    tell(life)
    if not asked.no_calm:
        print("\n80 % intervals that held in each storm and the day after, and in the same hours without storms:")
        for name, held, usual in beside(life, calm(asked.coins, asked.speed, life.end), found):
            print(f"{name:<24} {100 * held:5.1f} %  {100 * usual:5.1f} %")
    print(f"\n{asked.days} simulated days of {asked.coins} coins at {asked.speed:g} times the speed of life", end="")
    judged = list(figures(life, found, asked.coins))
    report(judged)
    raise SystemExit(0 if all(figure.met is not False for figure in judged) else 1)


if __name__ == "__main__":
    main()
