"""Storms: what an exchange does wrong, one thing after the other and all at once, and what the daemon must keep to meanwhile.

Knows the faults and the `Life` in which they happen. At every look during a storm each candle in the store is the true one; when it is
over, the store comes to hold all of the truth. Everything waits for facts, so it is the same at any speed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from cryptod.client import Client
from cryptod.market import HOUR
from cryptod.simulator.faults import KINDS, Fault
from cryptod.simulator.generator import GeneratedMarket
from tests.integration.house import Daemon, SimulatedExchange, wait_for
from tests.soak.life import SEED, Life, differences, requests, set_faults, truth

HEALED_WITHIN: Final = 120.0
"""Real seconds in which the store must hold the truth after a storm: a wait of the collector's may have to end first."""
REVISED: Final = 2
"""Closed candles that are read again: what an exchange revises may be the old word for so long."""


@dataclass(frozen=True, slots=True)
class Storm:
    """Faults that come together, and how many hours they last at least. Those of the stage "market" stay for good: they begin with the
    hour after the next."""

    name: str
    faults: tuple[Fault, ...]
    hours: float


@dataclass(slots=True)
class Passed:
    """How a storm went: what was wrong at any look, or did not heal; hours of the exchange's clock; requests per hour while it lasted;
    when it began and was over (UTC ms)."""

    storm: Storm
    wrong: dict[str, str]
    hours: float
    healing: float
    asked: float
    hits: int
    began: int
    over: int


def alone(kind: str, hours: float, **fields: object) -> Storm:
    """One fault by itself."""
    return Storm(kind if "value" not in fields else f"{kind} {fields['value']}", (Fault(kind, **fields),), hours)  # type: ignore[arg-type]


def down(coins: int, hours: int) -> Storm:
    """No coin of the exchange trades for so many hours."""
    everyone = GeneratedMarket(coins, SEED).coins
    return Storm(f"all coins halted {hours} h", (Fault("halted", symbols=tuple(everyone), end=hours * HOUR.ms),), hours + 3)


def passed(storm: Storm, daemon: Daemon, life: Life, coins: int, client: Client) -> Passed:
    """Let the storm come, look at the store while it lasts, end it, and wait until nothing is left of it."""
    exchange = daemon.exchange
    began = exchange.now()
    start = HOUR.floor(began) + 2 * HOUR.ms
    for fault in storm.faults:
        if KINDS[fault.kind].stage == "market":
            span = 0 if fault.end > start else fault.end  # a window's length
            life.events.append(_moved(fault, start, start + span if span else fault.end))
    end = began + int(storm.hours * HOUR.ms)
    # An exchange that refuses connections cannot be told to stop that: its window ends by itself.
    refusing = any(fault.kind == "refused" for fault in storm.faults)
    weather = [
        Fault("refused", start=began, end=end) if fault.kind == "refused" else fault
        for fault in storm.faults
        if KINDS[fault.kind].stage != "market"
    ]
    market = truth(exchange, coins, life.events)
    before = requests(exchange)
    set_faults(exchange, (*life.events, *weather))
    revising = any(fault.kind == "revised" for fault in weather)
    wrong: dict[str, str] = {}
    certain = {fault.kind for fault in weather if fault.probability == 1.0}
    while exchange.now() < end or (not refusing and not certain <= _hit(requests(exchange), before)):
        newest = client.status()["candles"]["newest_close"] - (REVISED * HOUR.ms if revising else 0)
        wrong |= differences(daemon.state, market, _followed(client), newest, settled=False)
        time.sleep(0.1)
    over, after = exchange.now(), wait_for(lambda: _answered(exchange), "the exchange")
    set_faults(exchange, life.events)

    def healed() -> bool:
        newest = client.status()["candles"]["newest_close"]
        return newest > over and not differences(daemon.state, market, _followed(client), newest)

    try:
        wait_for(healed, f"the truth after {storm.name}", seconds=HEALED_WITHIN)
    except AssertionError as error:
        wrong["afterwards"] = str(error)
    hours = (over - began) / HOUR.ms
    hits = sum(after["fault"].values()) - sum(before["fault"].values())
    asked = (after["total"] - before["total"]) / hours
    return Passed(storm, wrong, hours, (exchange.now() - over) / HOUR.ms, asked, hits, began, over)


def _answered(exchange: SimulatedExchange) -> dict[str, Any] | None:
    with contextlib.suppress(OSError):
        return requests(exchange)
    return None


def _moved(fault: Fault, start: int, end: int) -> Fault:
    return Fault(fault.kind, symbols=fault.symbols, start=start, end=end, value=fault.value, to=fault.to)


def _hit(after: dict[str, Any], before: dict[str, Any]) -> set[str]:
    """The kinds of faults that have hit in between."""
    return {kind for kind, hits in after["fault"].items() if hits > before["fault"].get(kind, 0)}


def _followed(client: Client) -> Iterable[str]:
    return [row["symbol"] for row in client.symbols()["followed"]]
