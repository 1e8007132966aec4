"""``cryptod simulate``: the simulated exchange as a program.

Knows its arguments and prints two lines that others read: where it listens, and the specification of its clock.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from cryptod.clock import Clock, SpedClock, SystemClock, parse_clock
from cryptod.errors import ConfigError, CryptodError
from cryptod.market import HOUR
from cryptod.simulator.binance import SPOT
from cryptod.simulator.faults import KINDS, parse_fault
from cryptod.simulator.folder import FolderMarket
from cryptod.simulator.generator import GeneratedMarket
from cryptod.simulator.server import Exchange
from cryptod.simulator.usdm import USDM, Perpetuals

DAY_MS = 24 * HOUR.ms
FOLDER_HISTORY_DAYS = 200
"""Where a folder's clock starts if nothing else is said: this long after its first candle."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``cryptod simulate``."""
    parser.add_argument("--coins", type=int, default=100, metavar="N", help="ordinary coins of the generated market (default 100)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the generated market and of the faults (default 1)")
    parser.add_argument("--candles", type=Path, metavar="DIR", help="replay this folder of BASE-QUOTE.csv.gz instead of generating")
    parser.add_argument(
        "--market",
        choices=("spot", "swap"),
        default="spot",
        help="spot pairs, or perpetual futures with Binance's USD-M face (default spot)",
    )
    parser.add_argument(
        "--start",
        metavar="DATE",
        help="where the clock starts, UTC: 2023-06-01, 2023-06-01T12:30 (default: now; with --candles: 200 days in)",
    )
    parser.add_argument("--speed", type=float, default=1.0, help="how many times faster than life the clock runs (default 1)")
    parser.add_argument("--clock", metavar="SPEC", help="take this clock, as an earlier run printed it, instead of --start and --speed")
    parser.add_argument(
        "--history-days", type=int, default=400, metavar="N", help="days before the start that the generated market goes back (default 400)"
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1 (default: any free one)")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND[,field=value...]",
        help="inject a fault, repeatable; fields: probability, symbols, endpoints, start, end, times, value, to; "
        f"kinds: {', '.join(KINDS)}",
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. 0 when stopped, 1 for arguments that cannot be."""
    try:
        folder = FolderMarket(arguments.candles) if arguments.candles else None
        clock = _clock(arguments, folder)
        market = folder or _generated(arguments, clock)
        faults = [parse_fault(text) for text in arguments.fault]
        # What may be asked in a minute is said of the exchange's own minutes.
        face = USDM if arguments.market == "swap" else SPOT
        limit = int(face.weight_limit * max(1.0, 1.0 / clock.real_seconds(1.0)))
        listed = Perpetuals(market) if arguments.market == "swap" else market
        exchange = Exchange(listed, clock, port=arguments.port, faults=faults, seed=arguments.seed, weight_limit=limit, face=face)
        return asyncio.run(_serve(exchange, clock))
    except CryptodError as error:
        print(f"cryptod simulate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # while the folder was read
        return 0


async def _serve(exchange: Exchange, clock: Clock) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    exchange.prepare()
    async with exchange:
        print(f"listening on {exchange.url}", flush=True)
        print(f"clock {clock if isinstance(clock, SpedClock) else 'system'}", flush=True)
        await stop.wait()
    return 0


def _clock(arguments: argparse.Namespace, folder: FolderMarket | None) -> Clock:
    if arguments.clock:
        return parse_clock(arguments.clock)
    anchor = SystemClock().now()
    start = anchor
    if arguments.start:
        start = parse_date(arguments.start)
    elif folder is not None:
        start = folder.first + FOLDER_HISTORY_DAYS * DAY_MS
    return SpedClock(start, anchor, arguments.speed)


def _generated(arguments: argparse.Namespace, clock: Clock) -> GeneratedMarket:
    if arguments.history_days < 1:
        raise ConfigError(f"--history-days must be at least 1, not {arguments.history_days}")
    start = clock.start if isinstance(clock, SpedClock) else clock.now()
    return GeneratedMarket(arguments.coins, arguments.seed, first=start - arguments.history_days * DAY_MS)


def parse_date(text: str) -> int:
    """UTC milliseconds of an ISO date or time; without an offset it is UTC."""
    try:
        date = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a date", hint="use 2023-06-01 or 2023-06-01T12:30") from error
    return int((date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() * 1000)
