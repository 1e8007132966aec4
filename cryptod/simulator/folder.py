"""A market out of a folder of candle files, ``BASE-QUOTE.csv.gz`` with columns ts,open,high,low,close,volume.

Perpetual futures are in ``BASE-QUOTE-SETTLE.csv.gz``. Knows files and candles. Knows neither HTTP nor clocks. The files are
read where they lie, and their rows are examined as an exchange's answers are; `write_folder` writes such a folder from any market.
"""

from __future__ import annotations

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cryptod.errors import DataError
from cryptod.examination import examine, misread
from cryptod.market import CLOSE, HOUR, OPEN, VOLUME, Float64, Int64, Panel, parse_symbol
from cryptod.simulator.listing import OUTAGE_HOURS, Listing, Market, panel_of
from cryptod.symbol import file_stem, from_stem

HEADER = "ts,open,high,low,close,volume"


@dataclass(frozen=True, slots=True)
class Tape:
    """One pair's candles: open times int64 [n], sorted and unique, and values float64 [n, 5]."""

    times: Int64
    values: Float64


class FolderMarket:
    """The pairs of a folder. A pair is listed from its first candle on, and trades while it has candles (see `OUTAGE_HOURS`).

    ``symbols`` picks some of them. ``left_out``: name of a file -> which of its rows were not believed, or that none was, and why.
    Raises `DataError` for a folder without candles, and if a file that ``symbols`` names is missing or bad.
    """

    def __init__(self, folder: Path, symbols: tuple[str, ...] = ()) -> None:
        paths = {from_stem(path.name.removesuffix(".csv.gz")): path for path in sorted(folder.glob("*.csv.gz"))}
        wanted = symbols or tuple(paths)
        if not paths or not set(wanted) <= set(paths):
            lacking = ", ".join(sorted(set(wanted) - set(paths))) or "any file named BASE-QUOTE.csv.gz"
            raise DataError(f"no candles in {folder} of {lacking}", hint="point to a folder of candle files")
        self.left_out: dict[str, str] = {}
        self._tapes: dict[str, Tape] = {}
        bad: DataError | None = None
        for name in wanted:
            try:
                symbol = parse_symbol(name)
                tape, flaws = _read(paths[name])
            except DataError as error:
                if symbols:
                    raise
                bad = bad or error
                self.left_out[paths[name].name] = f"the whole file: {error.message}"
                continue
            self._tapes[symbol] = tape
            if flaws:
                self.left_out[paths[name].name] = flaws
        if bad is not None and not self._tapes:
            raise bad
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


def _read(path: Path) -> tuple[Tape, str]:
    """The candles of a file, and what is to be said of rows that were not believed (nothing, as a rule)."""
    try:
        with gzip.open(path, "rt", encoding="ascii") as file:
            if file.readline().strip() != HEADER:
                raise DataError(f"{path} does not begin with {HEADER}")
            lines = file.read().splitlines()
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", hint="candle files are gzipped CSV") from error
    table = _table(lines)
    times = table[:, 0]
    odd = [row for row in range(len(times)) if misread(times[row : row + 1])] if misread(times) else []
    if odd:
        unit = misread(times[odd[:1]])
        raise DataError(
            f"{path}, line {odd[0] + 2}: times look like {unit}; expected UTC milliseconds", hint="convert the file's first column"
        )
    known = times[np.isfinite(times)]
    if (np.diff(known) <= 0).any():
        raise DataError(f"{path} is not sorted or not unique")
    found = examine(table, 2**53, HOUR)
    if not len(found.open_times):
        raise DataError(f"{path} has no candles")
    return Tape(found.open_times, np.ascontiguousarray(found.values)), _flaws(times, found.refused)


def _table(lines: list[str]) -> Float64:
    """float64 [n, 6]; NaN for whatever is no number."""
    if not lines:
        return np.empty((0, 6))
    try:
        table = np.loadtxt(lines, delimiter=",", ndmin=2, comments=None)
        if table.shape == (len(lines), 6):
            return table
    except ValueError:
        pass
    return np.array([[*map(_number, (line.split(",") + 6 * [""])[:6])] for line in lines], np.float64)


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return np.nan


def _flaws(times: Float64, refused: dict[int, str]) -> str:
    """How many rows were not believed, and the first of them with its line."""
    hours = np.where(np.isfinite(times), times - times % HOUR.ms, np.nan)
    rows = np.flatnonzero(np.isin(hours, list(refused)) | np.isnan(hours))
    if not len(rows):
        return ""
    row = int(rows[0])
    flaw = "no time" if np.isnan(hours[row]) else refused[int(hours[row])]
    return f"{len(rows)} of {len(times)} rows, the first in line {row + 2}: {flaw}"


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
        with gzip.open(folder / f"{file_stem(symbol)}.csv.gz", "wt", encoding="ascii", compresslevel=1) as file:
            file.write(HEADER + "\n" + "\n".join(rows) + "\n")
        written += 1
    return written


def _plain(number: float) -> str:
    """The number without an exponent, to eight decimals, the precision of the exchange."""
    if not math.isfinite(number):
        raise DataError(f"a candle of {number} cannot be written")
    return f"{number:.8f}".rstrip("0").rstrip(".")
