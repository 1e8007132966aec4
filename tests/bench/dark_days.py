"""What outages of a whole market cost in calibration: the same weeks lived through twice, with outages of all coins and without.

    python -m tests.bench.dark_days --candles DIR [--start 2023-02-01] [--end 2023-03-30] [--seed 5] [SYMBOL ...]

Hours are cut out of all coins every two to three days, for 1, 6 and 12 hours in turn. ``cryptod backtest`` then lives through both folders
with the daemon's own code, calibration included. The intervals of both are judged by the whole candles, on the same coins, hours and
horizons: a table, and one JSON object as the last line. Must not know the daemon's code.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from tests.bench.references import HOUR_MS

COINS = (
    "BTC",
    "ETH",
    "BNB",
    "XRP",
    "ADA",
    "DOGE",
    "SOL",
    "LTC",
    "TRX",
    "MATIC",
    "AVAX",
    "LINK",
    "ATOM",
    "ETC",
    "XLM",
    "FIL",
    "NEAR",
    "ALGO",
    "EOS",
    "AAVE",
)
HOURS = (1, 6, 12)
LEARNED_MS = 200 * 24 * HOUR_MS
INTERVALS = {50: ("q0.25", "q0.75"), 80: ("q0.1", "q0.9"), 95: ("q0.025", "q0.975")}
SPANS = {"first 6 h": (1, 7), "first day": (1, 25)}
"""Name -> hours after the outage's end in which the forecasts were made: from, to."""


def outages(start: int, end: int, seed: int) -> list[tuple[int, int]]:
    """(first hour, end) of each, UTC ms; drawn, 50 to 70 hours apart."""
    drawn, found, at = random.Random(seed), list[tuple[int, int]](), start + 48 * HOUR_MS
    while True:
        at += drawn.randint(50, 70) * HOUR_MS
        length = HOURS[len(found) % len(HOURS)] * HOUR_MS
        if at + length > end - 30 * HOUR_MS:
            return found
        found.append((at, at + length))
        at += length


def write(
    candles: Path, folder: Path, symbols: list[str], start: int, end: int, dark: list[tuple[int, int]]
) -> dict[str, pd.Series[float]]:
    """The coins' candles without the dark hours; their closes, by close time."""
    folder.mkdir()
    closes = {}
    for symbol in symbols:
        name = f"{symbol}-USDT.csv.gz"
        with gzip.open(candles / name, "rt") as file:
            frame = pd.read_csv(file)
        frame = frame[(frame.ts >= start - LEARNED_MS) & (frame.ts < end + 48 * HOUR_MS)]
        gone = np.zeros(len(frame), bool)
        for first, last in dark:
            gone |= ((frame.ts >= first) & (frame.ts < last)).to_numpy()
        frame[~gone].to_csv(folder / name, index=False)
        closes[f"{symbol}/USDT"] = pd.Series(frame.close.to_numpy(), index=frame.ts.to_numpy() + HOUR_MS)
    return closes


def lived(folder: Path, start: str, end: str, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "cryptod", "backtest", "--candles", str(folder), "--start", start, "--end", end, "--lanes", "1"]
    return subprocess.Popen([*command, "--out", str(out), "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def outcomes(issued: pd.DataFrame, closes: dict[str, pd.Series[float]]) -> pd.Series[float]:
    parts = []
    for symbol, rows in issued.groupby("symbol"):
        series = closes[str(symbol)]
        then = series.reindex(rows.cutoff + rows.horizon * HOUR_MS).to_numpy()
        parts.append(pd.Series(np.log(then / series.reindex(rows.cutoff).to_numpy()), index=rows.index))
    return pd.concat(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("symbols", nargs="*", default=COINS, metavar="SYMBOL")
    parser.add_argument("--candles", type=Path, required=True)
    parser.add_argument("--start", default="2023-02-01")
    parser.add_argument("--end", default="2023-03-30")
    parser.add_argument("--seed", type=int, default=5)
    asked = parser.parse_args()
    start, end = (int(pd.Timestamp(text, tz="UTC").timestamp() * 1000) for text in (asked.start, asked.end))
    dark = outages(start, end, asked.seed)
    with tempfile.TemporaryDirectory(prefix="cryptod-") as made:
        closes: dict[str, pd.Series[float]] = {}
        running = []
        for name, hours in (("whole", []), ("cut", dark)):
            closes |= write(asked.candles, Path(made, name), list(asked.symbols), start, end, hours)
            running.append(lived(Path(made, name), asked.start, asked.end, Path(made, f"{name}.csv.gz")))
        if any(one.wait() for one in running):
            sys.exit("a backtest failed: run `cryptod backtest` on these candles by hand to see why")
        whole, cut = (pd.read_csv(Path(made, f"{name}.csv.gz")) for name in ("whole", "cut"))
    whole["outcome"] = outcomes(whole, closes)
    both = whole.dropna().merge(cut, on=["symbol", "cutoff", "horizon"], suffixes=("", "_cut"))
    rows = {"everything": np.ones(len(both), bool)}
    for length in HOURS:
        for name, (first, last) in SPANS.items():
            chosen = np.zeros(len(both), bool)
            for begun, over in dark:
                if over - begun == length * HOUR_MS:
                    chosen |= ((both.cutoff >= over + first * HOUR_MS) & (both.cutoff < over + last * HOUR_MS)).to_numpy()
            rows[f"{length} h, {name} after"] = chosen
    figures = {}
    print(f"{len(dark)} outages; held of 50 / 80 / 95 %, with outages and without")
    for row, chosen in rows.items():
        held = {}
        for suffix in ("_cut", ""):
            part = both[chosen]
            held[suffix] = [
                round(100 * float(((part.outcome >= part[low + suffix]) & (part.outcome <= part[high + suffix])).mean()), 1)
                for low, high in INTERVALS.values()
            ]
        figures[row] = {"with": held["_cut"], "without": held[""], "forecasts": int(chosen.sum())}
        print(f"{row:<24} {' / '.join(map(str, held['_cut'])):>20}   {' / '.join(map(str, held[''])):>20}   {int(chosen.sum()):>8}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
