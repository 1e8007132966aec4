"""Past candles of a backtest: a folder of files, seen as the daemon would have seen it at each hour.

Knows files through the simulator's reader, and candles. An hour without a candle counts as answered and without trade from the coin's
first candle on, for ever: whether a hole is an outage or a delisting is known only afterwards, so it must not be known here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cryptod.errors import DataError
from cryptod.market import CANDLE, CLOSE, HOUR, NO_TRADE, NOT_FETCHED, VOLUME, Panel, parse_symbol
from cryptod.simulator.folder import FolderMarket
from cryptod.store.candles import CandleStore, Fetched

SILENT_HOURS = 7 * 24
"""A coin without a candle for so long is followed no more at the next full retrain: an exchange does not list it among those that trade."""


class History:
    """Candles of ``symbols`` (all of the folder's by default). Raises `DataError` for a folder or a symbol that is not there."""

    def __init__(self, folder: Path, symbols: Sequence[str] = ()) -> None:
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder", hint="it has to hold files like BTC-USDT.csv.gz with ts,open,high,low,close,volume")
        self._market = FolderMarket(folder, tuple(parse_symbol(symbol) for symbol in symbols))
        self.left_out = self._market.left_out
        """Name of a file -> which of its rows were not believed, or that none was, and why."""
        self.symbols = tuple(listing.symbol for listing in self._market.listings)
        self.start, self.end = HOUR.floor(self._market.first), self._market.end
        whole = [self._market.candles(symbol, self.start, self.end) for symbol in self.symbols]
        hours = (self.end - self.start) // HOUR.ms
        self._values = np.full((hours, len(self.symbols), 5), np.nan)
        self._status = np.full((hours, len(self.symbols)), NOT_FETCHED, np.uint8)
        for column, (times, values) in enumerate(whole):
            rows = (times - self.start) // HOUR.ms
            self._status[rows[0] :, column] = NO_TRADE
            self._values[rows, column], self._status[rows, column] = values, CANDLE
        self._column = {symbol: column for column, symbol in enumerate(self.symbols)}

    def panel(self, symbols: Sequence[str], start: int, end: int) -> Panel:
        """The hours that open at or after ``start`` and close by ``end``; before the first and after the last one nothing was fetched."""
        columns = [self._column[symbol] for symbol in symbols]
        hours, first = (end - start) // HOUR.ms, (start - self.start) // HOUR.ms
        values = np.full((hours, len(columns), 5), np.nan)
        status = np.full((hours, len(columns)), NOT_FETCHED, np.uint8)
        low, high = max(first, 0), min(first + hours, len(self._values))
        if low < high:
            values[low - first : high - first] = self._values[low:high, columns]
            status[low - first : high - first] = self._status[low:high, columns]
        return Panel(tuple(symbols), start, values, status)

    def followed(self, cutoff: int) -> tuple[str, ...]:
        """The coins that trade at ``cutoff``, by the quote volume of the day before it, largest first: the daemon's order of batches."""
        recent = self.panel(self.symbols, cutoff - SILENT_HOURS * HOUR.ms, cutoff)
        traded = (recent.status == CANDLE).any(axis=0)
        day = recent.values[-24:]
        volume = np.nansum(day[:, :, VOLUME] * day[:, :, CLOSE], axis=0)
        ranked = sorted(zip(self.symbols, volume, traded, strict=True), key=lambda row: (-row[1], row[0]))
        return tuple(symbol for symbol, _, trades in ranked if trades)

    def write(self, path: Path) -> None:
        """Put everything into a candle store, where the training children read what had closed by their cutoff."""
        times = self.start + HOUR.ms * np.arange(len(self._values), dtype=np.int64)
        with CandleStore.open(path, writer=True) as store:
            for column, symbol in enumerate(self.symbols):
                status = self._status[:, column]
                candle, none = status == CANDLE, status == NO_TRADE
                store.apply((Fetched(symbol, times[candle], self._values[candle, column], times[none]),))
