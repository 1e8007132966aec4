"""How good the forecasts are, beside the references, GARCH(1,1)-t and LightGBM. `make bench-forecast` runs it.

    python -m tests.bench.bench_forecast [--candles DIR] [--start DATE --end DATE] [--forecasts FILE.csv.gz]

`cryptod backtest` lives through the period as the daemon would, in a process of its own, and what it issued is judged by `judge.py`, which
shares no code with it. Candles are those of DIR or of ``CRYPTOD_CANDLES``; where there are none, the project's own generated market is
taken, which shows that everything works, and nothing about real markets. The default period is the last three weeks that can be judged
(two of the generated market); the targets are those of nine months, so three weeks meet or miss them with some luck. With ``--forecasts``
a file that is there already is judged. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cryptod.simulator.folder import write_folder
from cryptod.simulator.generator import GeneratedMarket
from tests.bench.figures import Figure, beside, report
from tests.bench.judge import day, judge, read_forecasts
from tests.bench.judge import report as page
from tests.bench.references import HOUR_MS, LEAD_IN, REFERENCES, TRAINING_HOURS, BadInput, Candles, Scale, read_candles

DAY = 24 * HOUR_MS
REAL_DAYS, GENERATED_DAYS = 21, 14
GENERATED_COINS = 30
GENERATED_END = 1_688_169_600_000  # 2023-07-01
SKILL_TARGETS = {"log_har": 0.008, "random_walk": 0.05}
BLOCKS_TARGET = 0.85
COVERAGE_TARGET, WORST_COIN_TARGET = 1.0, 4.0
"""Percentage points."""


def generated(folder: Path, coins: int = GENERATED_COINS, days: int = GENERATED_DAYS) -> None:
    """A folder of made up candles: a training window, the days to be forecast, and one more for their outcomes."""
    market = GeneratedMarket(coins, seed=3)
    start = GENERATED_END - (days + 1) * DAY - (TRAINING_HOURS + LEAD_IN) * HOUR_MS
    write_folder(market, folder, start, GENERATED_END, market.coins)


def last_days(candles: Candles, days: int) -> tuple[int, int]:
    """The last whole days whose outcomes are all known: [start, end), UTC ms."""
    end = (candles.start + len(candles.values) * HOUR_MS) // DAY * DAY - DAY
    return end - days * DAY, end


def backtest(folder: Path, symbols: Sequence[str], start: int, end: int, out: Path) -> float:
    """Have the forecasts made; the seconds that it took."""
    dates = [pd.Timestamp(at, unit="ms").strftime("%Y-%m-%d") for at in (start, end)]
    command = [
        sys.executable,
        "-m",
        "cryptod",
        "backtest",
        "--candles",
        str(folder),
        "--start",
        dates[0],
        "--end",
        dates[1],
        "--out",
        str(out),
    ]
    began = time.monotonic()
    done = subprocess.run([*command, "--symbols", *symbols])
    if done.returncode:
        raise BadInput(f"cryptod backtest ended with {done.returncode}; what it said stands above")
    return time.monotonic() - began


def rivals() -> Mapping[str, Scale]:
    """GARCH and LightGBM, where their packages are there."""
    try:
        from tests.bench.rivals import RIVALS
    except ImportError as error:
        print(f"without the rivals: {error}; they come with the bench extra: pip install -c constraints.txt -e '.[bench]'", flush=True)
        return {}
    return RIVALS


def figures_of(found: Mapping[str, Any], real: bool) -> list[Figure]:
    """What the judgement comes to. A made up market has nothing to reach but soundness: its targets are None."""

    def target(value: float) -> float | None:
        return value if real else None

    served = found["forecasters"]["served"]
    figures = []
    for name, each in found["forecasters"].items():
        if name != "served":
            aim = 1.0 - SKILL_TARGETS.get(name, 0.0)
            figures.append(beside(f"crps_beside_{name}", 1e4 * served["pooled"], "e-4", target(aim), "lower", 1e4 * each["pooled"]))
    best = [min(each["crps"][i] for name, each in found["forecasters"].items() if name in REFERENCES) for i in range(len(served["crps"]))]
    for horizon, mine, other in zip(found["horizons"], served["crps"], best, strict=True):
        figures.append(beside(f"crps_{horizon}h_beside_the_best_reference", 1e4 * mine, "e-4", target(1.0), "lower", 1e4 * other))
    against = found["forecasters"]["log_har"]
    figures.append(Figure("diebold_mariano_t_against_log_har", against["t"], "", target(3.0), "higher"))
    figures.append(Figure("blocks_won_against_log_har", against["blocks_won"], "", target(BLOCKS_TARGET), "higher"))
    for percent, each in found["coverage"].items():
        off = max(abs(100 * value - float(percent)) for value in each["by_horizon"])
        figures.append(Figure(f"coverage_{percent}_off_at_the_worst_horizon", off, "points", target(COVERAGE_TARGET), "lower"))
    worst = 100 * abs(found["coverage"]["80"]["worst_ordinary"]["off"])
    figures.append(Figure("coverage_80_off_at_the_worst_coin", worst, "points", target(WORST_COIN_TARGET), "lower"))
    figures.append(Figure("answered", 100 * found["answered_ordinary"], "%", 100.0, "higher"))
    figures += [Figure(name, found[name], "rows", 0, "lower") for name in ("crossed", "not_finite", "contradicted")]
    return figures


def run(folder: Path, real: bool, options: argparse.Namespace) -> None:
    candles = read_candles(folder)
    start, end = last_days(candles, REAL_DAYS if real else GENERATED_DAYS)
    start, end = options.start or start, options.end or end
    if options.forecasts is None:
        candles = candles.coins(candles.ordinary(start, end - HOUR_MS))
    print(
        f"{len(candles.symbols)} coins, {pd.Timestamp(start, unit='ms'):%Y-%m-%d} to {pd.Timestamp(end, unit='ms'):%Y-%m-%d} UTC",
        flush=True,
    )
    figures = []
    with tempfile.TemporaryDirectory() as scratch:
        file, period = options.forecasts, (options.start, options.end)
        if file is None:
            file, period = Path(scratch) / "forecasts.csv.gz", (start, end)
            seconds = backtest(folder, candles.symbols, start, end, file)
            figures.append(Figure("backtest_seconds_a_day", seconds / ((end - start) / DAY), "s", None, "lower"))
        forecasts = read_forecasts(file, *period)
    began = time.monotonic()
    found = judge(forecasts, candles, REFERENCES | dict(rivals()))
    figures.append(Figure("judge_seconds", time.monotonic() - began, "s", None, "lower"))
    print(page(found))
    report(figures_of(found, real) + figures)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candles", type=Path, default=os.environ.get("CRYPTOD_CANDLES"), metavar="DIR")
    parser.add_argument("--start", type=day)
    parser.add_argument("--end", type=day)
    parser.add_argument("--forecasts", type=Path, metavar="FILE.csv.gz", help="judge these; no backtest is run")
    options = parser.parse_args(arguments)
    try:
        if options.candles:
            run(Path(options.candles), True, options)
            return 0
        print("CRYPTOD_CANDLES is not set: this is a generated market, which says nothing about real ones", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            generated(Path(folder))
            run(Path(folder), False, options)
    except BadInput as error:
        print(f"bench_forecast: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
