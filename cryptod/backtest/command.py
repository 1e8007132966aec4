"""``cryptod backtest``: live through past candles, say how good the forecasts would have been, write down what was issued."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from cryptod.backtest.history import History
from cryptod.backtest.issued import IssuedFile
from cryptod.backtest.replay import Cadence, Replay
from cryptod.backtest.results import Results
from cryptod.forecast.predictor import Forecasts
from cryptod.forecast.scores import SCORED_HORIZONS
from cryptod.market import HOUR, MAX_HORIZON

_UNITS: Final = {"h": 1, "d": 24, "w": 168}
_EXAMPLES: Final = 4
_SAY_EVERY: Final = 0.5
"""Seconds between two states of the progress line on a terminal; elsewhere it is written at each twentieth of the way."""


def hours(text: str) -> int:
    """``7d``, ``6h`` or ``1w`` in hours; ``never`` is 0."""
    if text == "never":
        return 0
    found = re.fullmatch(r"(\d{1,5})([hdw])", text)
    if not found or int(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write it as in 6h, 7d or 2w, or never")
    return int(found[1]) * _UNITS[found[2]]


def moment(text: str) -> int:
    """A UTC date, or date and hour, in epoch ms."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no date: write it as in 2023-04-01 or 2023-04-01T06:00") from None
    milliseconds = int(found.replace(tzinfo=found.tzinfo or UTC).timestamp() * 1000)
    if milliseconds % HOUR.ms:
        raise argparse.ArgumentTypeError(f"{text!r} is not on the hour")
    return milliseconds


def horizons(text: str) -> tuple[int, ...]:
    """``all`` or a list as in 1,2,24."""
    if text == "all":
        return tuple(range(1, MAX_HORIZON + 1))
    try:
        found = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        found = ()
    if not found or not 1 <= found[0] <= found[-1] <= MAX_HORIZON:
        raise argparse.ArgumentTypeError(f"{text!r} are no horizons: write them as in 1,2,24 (1 to {MAX_HORIZON}), or all")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    usual = Cadence()
    parser.add_argument(
        "--candles", type=Path, required=True, metavar="DIR", help="folder of BASE-QUOTE.csv.gz: ts,open,high,low,close,volume"
    )
    parser.add_argument("--start", type=moment, required=True, metavar="DATE", help="first cutoff, UTC")
    parser.add_argument("--end", type=moment, required=True, metavar="DATE", help="the period's end, UTC; it is no cutoff any more")
    parser.add_argument("--symbols", nargs="+", default=[], metavar="SYMBOL", help="some of the coins, as in BTC/USDT (default: all)")
    parser.add_argument(
        "--full-every", type=hours, default=usual.full_every, metavar="7d", help="full retrain (default 7d; never: only the first)"
    )
    parser.add_argument(
        "--incremental-every", type=hours, default=usual.incremental_every, metavar="6h", help="incremental update (default 6h, or never)"
    )
    parser.add_argument(
        "--step",
        type=hours,
        default=1,
        metavar="1h",
        help="hours between two cutoffs in the file; forecasts are issued every hour in any case",
    )
    parser.add_argument(
        "--horizons", type=horizons, default=SCORED_HORIZONS, metavar="LIST", help="horizons in the file (default 1,2,4,8,12,24; or all)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.csv.gz", help="write what was issued")
    parser.add_argument("--report", type=Path, metavar="FILE.html", help="write a page that shows it all")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON document")
    parser.add_argument(
        "--lanes", type=int, choices=range(1, 17), default=usual.lanes, metavar="N", help="training processes at a time (default 2)"
    )
    parser.set_defaults(call=run)


def run(arguments: argparse.Namespace) -> int:
    """Raises `DataError` for what the candles do not allow; an output that cannot be written is noticed before the work begins."""
    if arguments.step == 0:
        raise SystemExit("cryptod backtest: --step cannot be never")
    history = History(arguments.candles, arguments.symbols)
    cadence = Cadence(full_every=arguments.full_every, incremental_every=arguments.incremental_every, lanes=arguments.lanes)
    results = Results.empty(history, arguments.start, arguments.end, history.followed(arguments.start)[:_EXAMPLES])
    began = time.monotonic()
    progress = _Progress(arguments.start, arguments.end, results)
    file = IssuedFile(arguments.out, arguments.horizons, arguments.step) if arguments.out else None

    def issued(made: Forecasts) -> None:
        results.add(made, replay.learning.combination.weights)
        if file is not None:
            file.write(made, (made.cutoff - arguments.start) // HOUR.ms)

    replay = Replay(history, arguments.start, arguments.end, cadence, issued)
    if arguments.report:
        arguments.report.open("a").close()
    if file is not None:
        with file:
            asyncio.run(replay.run(progress))
    else:
        asyncio.run(replay.run(progress))
    progress.end()
    results.trainings = replay.trainings
    results.settings = " ".join(sys.argv[1:])
    figures = results.summary() | replay.summary() | {"left_out": history.left_out, "seconds": round(time.monotonic() - began, 1)}
    if arguments.report:
        from cryptod.backtest import page

        page.write(arguments.report, results, figures)
    print(json.dumps(figures) if arguments.json else "\n".join(lines(figures)))
    return 0


class _Progress:
    """A line on standard error: how far, how fast, how good so far."""

    def __init__(self, start: int, end: int, results: Results) -> None:
        self._start, self._end, self._results = start, end, results
        self._began = self._said = time.monotonic()
        self._terminal = sys.stderr.isatty()
        self._mark = 0

    def __call__(self, cutoff: int) -> None:
        now, share = time.monotonic(), (cutoff + HOUR.ms - self._start) / (self._end - self._start)
        if (self._terminal and now - self._said < _SAY_EVERY) or (not self._terminal and int(share * 20) == self._mark):
            return
        self._said, self._mark = now, int(share * 20)
        left = (now - self._began) / share * (1.0 - share)
        width = int(share * 30)
        text = f"[{'=' * width:30s}] {share:4.0%}  {np.datetime64(cutoff, 'ms').astype('datetime64[h]')}  {_duration(left)} to go"
        rows = slice(0, (cutoff - self._start) // HOUR.ms + 1)
        text += f"  CRPS {self._results.skill('log_har', rows=rows):+.2%} below log-HAR's" if self._mark else ""
        print(f"\r\x1b[K{text}" if self._terminal else text, end="" if self._terminal else "\n", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._terminal:
            print(file=sys.stderr)


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures as a page of text."""
    found = [
        f"{figures['forecasts']:,} forecasts issued hour by hour; "
        f"{figures['seconds'] / 60:.1f} min, {figures['seconds_training'] / 60:.1f} of them training",
        "",
        f"{'CRPS x 10^4':14s}" + "".join(f"{h:>8d} h" for h in figures["horizons"]) + "   served better by (95 %)    t   28-day blocks won",
    ]
    for name, values in figures["crps_e4"].items():
        row = f"{name:14s}" + "".join(f"{value:10.2f}" for value in values)
        if name in figures["skill"]:
            between = "..".join(f"{100 * end:+.2f}" for end in figures["interval"][name])
            row += f"{figures['skill'][name]:+11.2%} {f'({between})' if between else '':16s}{figures['t'][name]:5.1f}"
        found.append(row + (f"{figures['blocks_won'][name]:20.0%}" if name in figures["blocks_won"] else ""))
    found += ["", f"{'Coverage, %':14s}" + "".join(f"{h:>8d} h" for h in figures["horizons"])]
    found += [f"{percent:<14}" + "".join(f"{value:10.2f}" for value in values) for percent, values in figures["coverage"].items()]
    worst = figures["worst_coin_80"]
    if worst:
        found.append(f"80 % intervals of the coin that is farthest off, {worst['symbol']}: {worst['coverage']:.1f} %")
    batches = ", ".join(f"{kind} {count['promoted']} promoted, {count['refused']} not" for kind, count in figures["batches"].items())
    served = ", ".join(f"{name} {count:,}" for name, count in figures["served_by"].items() if count)
    found += ["", f"Batches: {batches}", f"Served by: {served}", f"Crossings {figures['crossings']}, not finite {figures['not_finite']}"]
    found += [f"Drift, {text}" for text in figures["drift"]]
    found += left_out(figures["left_out"])
    if figures["refused"]:
        found.append(
            "Hours of coins without a forecast: " + ", ".join(f"{count:,} ({reason})" for reason, count in figures["refused"].items())
        )
    return found


def left_out(files: dict[str, str]) -> list[str]:
    """What was not believed of the candle files, a line for each."""
    return [f"Left out of {name}: {why}" for name, why in files.items()]


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
