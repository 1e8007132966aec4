"""Coverage over time: how many of the intervals that ran out in each day or week held, and when after a break they hold again.

    python -m tests.bench.coverage FORECASTS.csv.gz --candles DIR [--every 24h] [--symbols SYMBOL ...] [--break DATE]

Knows what `judge.py` knows: the format of ``cryptod backtest --out`` and candle files, and none of the daemon's code. An interval counts in
the span in which its outcome became known, at ``cutoff`` + horizon. Coins: those that traded throughout, or those that are named.

*Back*: from ``--break`` on, the days until the first three days in a row in which, taken together, the intervals held at least as often as
they promise, less `NEAR` points. Three, since a single day of a market that moves as one says little. Intervals that hold too often are no
break, and stand in the table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from tests.bench.judge import INTERVALS, Forecasts, day, read_forecasts
from tests.bench.references import HOUR_MS, BadInput, Bools, Candles, Floats, Ints, read_candles

NEAR = 4.0
"""Percentage points."""
TOGETHER = 3
"""Spans that are taken together before they are said to be back."""


@dataclass(frozen=True, slots=True)
class Held:
    """``begins``: int64 [S], UTC ms. ``hits``: percent -> float64 [S, H], intervals that held; ``count``: float64 [S, H], of how many."""

    horizons: tuple[int, ...]
    begins: Ints
    hits: Mapping[int, Floats]
    count: Floats

    def coverage(self, percent: int) -> Floats:
        """float64 [S, H], NaN where no interval ran out."""
        return np.asarray(np.divide(self.hits[percent], self.count, out=np.full(self.count.shape, np.nan), where=self.count > 0))

    def back(self, percent: int, column: int, at: int) -> int | None:
        """Spans from the one with ``at`` (UTC ms) in it to the first of those that hold; None where none do."""
        first = int(np.searchsorted(self.begins, at, side="right")) - 1
        hits, count = self.hits[percent][:, column], self.count[:, column]
        for span in range(max(first, 0), len(self.begins) - TOGETHER + 1):
            part = slice(span, span + TOGETHER)
            if count[part].all() and 100 * hits[part].sum() / count[part].sum() >= percent - NEAR:
                return span - first
        return None


def held(forecasts: Forecasts, candles: Candles, chosen: Bools, every: int, anchor: int) -> Held:
    """What held of the intervals of ``chosen`` coins (bool [N], the forecasts' order), in spans of ``every`` hours of which one begins at
    ``anchor`` (UTC ms)."""
    coins = np.array([candles.symbols.index(symbol) for symbol in forecasts.symbols])[chosen]
    rows = (forecasts.cutoffs - candles.start) // HOUR_MS - 1
    if rows[0] < 0 or rows[-1] >= len(candles.values):
        raise BadInput("the folder does not reach over the forecasts' period; point to the one that was forecast from")
    outcomes = candles.outcomes(rows, forecasts.horizons)[:, coins]
    quantiles = forecasts.quantiles[:, chosen]
    known = np.isfinite(outcomes) & np.isfinite(quantiles).all(axis=-1)
    ends = forecasts.cutoffs[:, None] + HOUR_MS * np.array(forecasts.horizons)
    spans = (ends - 1 - anchor) // (every * HOUR_MS)  # an hour that ends at midnight is the last of its day
    begins = np.unique(spans[known.any(axis=1)])
    places = np.searchsorted(begins, spans)
    shape = (len(begins), len(forecasts.horizons))

    def summed(values: Bools) -> Floats:
        found = np.zeros(shape)
        for column in range(shape[1]):
            found[:, column] = np.bincount(places[:, column], values[:, :, column].sum(axis=1), len(begins) + 1)[:-1]
        return found

    hits = {
        percent: summed(known & (quantiles[..., low] <= outcomes) & (outcomes <= quantiles[..., high]))
        for percent, (low, high) in INTERVALS.items()
    }
    return Held(forecasts.horizons, anchor + begins * every * HOUR_MS, hits, summed(known))


def report(found: Held, at: int | None = None) -> str:
    """A table of text; with ``at`` (UTC ms) how long after it coverage is back."""
    heads = "".join(f"{f'{horizon} h':>{7 * len(INTERVALS)}s}" for horizon in found.horizons)
    lines = [f"{'':10s}{heads}", f"{'from':10s}" + "".join(f"{percent:>7d}" for percent in INTERVALS) * len(found.horizons)]
    shares = {percent: 100 * found.coverage(percent) for percent in INTERVALS}
    for row, begin in enumerate(found.begins):
        cells = "".join(f"{shares[percent][row, column]:7.1f}" for column in range(len(found.horizons)) for percent in INTERVALS)
        lines.append(f"{pd.Timestamp(begin, unit='ms'):%Y-%m-%d}{cells}")
    if at is not None:
        backs = [found.back(percent, column, at) for column in range(len(found.horizons)) for percent in INTERVALS]
        lines.append(f"{'back after':10s}" + "".join(f"{'never' if back is None else back:>7}" for back in backs))
    return "\n".join(lines)


def hours(text: str) -> int:
    """``24h`` or ``7d`` in hours."""
    units = {"h": 1, "d": 24}
    if text[-1:] not in units or not text[:-1].isdecimal() or int(text[:-1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write it as in 24h or 7d")
    return int(text[:-1]) * units[text[-1]]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("forecasts", type=Path)
    parser.add_argument("--candles", type=Path, required=True, metavar="DIR")
    parser.add_argument("--every", type=hours, default=24, metavar="24h", help="length of a span (default 24h)")
    parser.add_argument("--symbols", nargs="+", default=[], metavar="SYMBOL", help="these coins alone")
    parser.add_argument("--break", type=day, dest="at", metavar="DATE", help="say after how many spans from then coverage is back")
    options = parser.parse_args(arguments)
    try:
        forecasts, candles = read_forecasts(options.forecasts), read_candles(options.candles)
        lacking = sorted(set(options.symbols) - set(forecasts.symbols)) or sorted(set(forecasts.symbols) - set(candles.symbols))
        if lacking:
            raise BadInput(f"there are no forecasts or no candles of {', '.join(lacking[:5])}")
        ordinary = dict(zip(candles.symbols, candles.ordinary(int(forecasts.cutoffs[0]), int(forecasts.cutoffs[-1])), strict=True))
        chosen = np.array([symbol in options.symbols if options.symbols else ordinary[symbol] for symbol in forecasts.symbols])
        if not chosen.any():
            raise BadInput("none of the file's coins traded throughout the period and the year before it; name some with --symbols")
        print(f"{int(chosen.sum())} coins; intervals that held, %, by when their outcome became known (UTC)")
        anchor = options.at if options.at is not None else int(forecasts.cutoffs[0])
        print(report(held(forecasts, candles, chosen, options.every, anchor), options.at))
    except BadInput as error:
        print(f"coverage: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
