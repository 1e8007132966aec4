"""A market out of a folder of candle files, ``<BASE-QUOTE>.csv.gz`` with columns ts,open,high,low,close,volume.

Knows files and candles. Knows neither HTTP nor clocks. The files are read where they lie; `write_folder` writes such a folder from
any market.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryptod.errors import DataError
from cryptod.market import CLOSE, HOUR, OPEN, VOLUME, Float64, Int64, Panel, parse_symbol
from cryptod.simulator.listing import OUTAGE_HOURS, Listing, Market, panel_of

HEADER = "ts,open,high,low,close,volume"


@dataclass(frozen=True, slots=True)
class Tape:
    """One pair's candles: open times int64 [n], sorted and unique, and values float64 [n, 5]."""

    times: Int64
    values: Float64


class FolderMarket:
    """The pairs of a folder. A pair is listed from its first candle on, and trades while it has candles (see `OUTAGE_HOURS`).

    ``symbols`` picks some of them. Raises `DataError` for a folder without candles or a damaged file.
    """

    def __init__(self, folder: Path, symbols: tuple[str, ...] = ()) -> None:
        paths = {path.name.removesuffix(".csv.gz").replace("-", "/"): path for path in sorted(folder.glob("*.csv.gz"))}
        wanted = symbols or tuple(paths)
        if not paths or not set(wanted) <= set(paths):
            lacking = ", ".join(sorted(set(wanted) - set(paths))) or "any file named BASE-QUOTE.csv.gz"
            raise DataError(f"no candles in {folder} of {lacking}", hint="point to a folder of candle files")
        self._tapes = {parse_symbol(symbol): _read(paths[symbol]) for symbol in wanted}
        self.first = min(int(tape.times[0]) for tape in self._tapes.values())
        self.end = max(int(tape.times[-1]) for tape in self._tapes.values()) + HOUR.ms
        self.listings: tuple[Listing, ...] = tuple(_listing(symbol, tape) for symbol, tape in self._tapes.items())

    def candles(self, symbol: str, start: int, end: int) -> tuple[Int64, Float64]:
        """See `Market.candles`."""
        tape = self._tapes[symbol]
        rows = slice(*np.searchsorted(tape.times, (start, end)))
        return tape.times[rows], tape.values[rows]

    def panel(self, symbols: tuple[str, ...], start: int, end: int) -> Panel:
        """See `Market.panel`."""
        return panel_of(self, symbols, start, end)

    def trading(self, symbol: str, now: int) -> bool:
        """See `Market.trading`."""
        times = self._tapes[symbol].times
        after = int(np.searchsorted(times, now, side="right"))
        if after == 0 or (after == len(times) and now >= times[-1] + HOUR.ms):
            return False
        return now < times[after - 1] + HOUR.ms or bool(times[after] - times[after - 1] <= OUTAGE_HOURS * HOUR.ms)


def _read(path: Path) -> Tape:
    try:
        with gzip.open(path, "rt", encoding="ascii") as lines:
            if lines.readline().strip() != HEADER:
                raise DataError(f"{path} does not begin with {HEADER}")
            table = np.loadtxt(lines, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="candle files are gzipped CSV") from error
    if table.shape[0] == 0 or table.shape[1] != 6:
        raise DataError(f"{path} has no candles")
    times = table[:, 0].astype(np.int64)
    if (np.diff(times) <= 0).any() or (times % HOUR.ms).any():
        raise DataError(f"{path} is not sorted, not unique or not on the hour")
    return Tape(times, np.ascontiguousarray(table[:, 1:]))


def _listing(symbol: str, tape: Tape) -> Listing:
    return Listing(
        symbol,
        int(tape.times[0]),
        int(tape.times[-1]) + HOUR.ms,
        _step(tape.values[-200:, OPEN : CLOSE + 1]),
        _step(tape.values[-200:, VOLUME]),
    )


def _step(numbers: Float64) -> float:
    """The coarsest power of ten, down to 1e-8, of which all numbers are multiples."""
    for places in range(8):
        if np.allclose(numbers, np.round(numbers, places), rtol=0, atol=1e-10):
            return float(10.0**-places)
    return 1e-8


def write_folder(market: Market, folder: Path, start: int, end: int, symbols: tuple[str, ...] = ()) -> int:
    """Write the candles of [start, end) as such a folder; the number of files. Pairs without candles there have none."""
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for symbol in symbols or tuple(listing.symbol for listing in market.listings):
        times, values = market.candles(symbol, start, end)
        if len(times) == 0:
            continue
        rows = (f"{time}," + ",".join(_plain(number) for number in row) for time, row in zip(times.tolist(), values.tolist(), strict=True))
        with gzip.open(folder / f"{symbol.replace('/', '-')}.csv.gz", "wt", encoding="ascii", compresslevel=1) as file:
            file.write(HEADER + "\n" + "\n".join(rows) + "\n")
        written += 1
    return written


def _plain(number: float) -> str:
    """The number without an exponent, to eight decimals, the precision of the exchange."""
    if not math.isfinite(number):
        raise DataError(f"a candle of {number} cannot be written")
    return f"{number:.8f}".rstrip("0").rstrip(".")
