"""Candles on disk: what the exchange said about each hour of each coin.

Knows the environment and the vocabulary; knows no exchange. Written by the collector alone, read by everyone else, each
of them from a process of its own. Only sound candles of closed hours are to be written: whoever writes has checked them.

A chunk holds one coin's week: its checksum (CRC-32, 4 bytes, then 4 unused), status uint8 [168], values float64 [168, 5].
A chunk whose checksum is wrong reads as hours that were never fetched, so that the collector's next turn heals it.

The map's pages count as memory of a process once it has read them: open the store for a read and close it again.
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np

from cryptod.errors import DataError, StoreError
from cryptod.market import CANDLE, HOUR, NO_TRADE, NOT_FETCHED, Float64, Int64, Panel, UInt8
from cryptod.store.environment import Environment, Transaction, open_environment

SCHEMA: Final = 1
WEEK: Final = 168
WEEK_MS: Final = WEEK * HOUR.ms

_CHUNKS: Final = "chunks"
_FACTS: Final = "facts"
_HEAD: Final = 8
_CHUNK_BYTES: Final = _HEAD + WEEK + WEEK * 5 * 8


_one_at_a_time: Final = threading.Lock()


def _none() -> Int64:
    return np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an exchange's answers say about a coin: candles, and hours in which nothing was traded.

    ``open_times`` int64 [n], UTC ms on the hour; ``values`` float64 [n, 5]; ``no_trade`` int64 [m].
    """

    symbol: str
    open_times: Int64
    values: Float64
    no_trade: Int64 = field(default_factory=_none)


class CandleStore:
    """See the module. Every method is one short transaction."""

    def __init__(self, env: Environment) -> None:
        self._env = env

    @classmethod
    def open(cls, path: Path, *, writer: bool = False) -> CandleStore:
        """`StoreError` if it cannot be opened, and for a reader of a store that nobody has written yet."""
        return cls(open_environment(path, databases=(_CHUNKS, _FACTS), writer=writer, schema=SCHEMA))

    def close(self) -> None:
        self._env.close()

    def __enter__(self) -> CandleStore:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # What is written

    def write(self, symbol: str, open_times: Int64, values: Float64) -> tuple[int, int]:
        """Merge candles in. Returns how many hours are new and how many candles were revised by the exchange."""
        return self.apply((Fetched(symbol, open_times, values),))

    def mark_no_trade(self, symbol: str, open_times: Int64) -> None:
        """The exchange has no candle for these hours. An hour that has one keeps it."""
        self.apply((Fetched(symbol, _none(), np.empty((0, 5)), open_times),))

    def apply(self, fetched: Iterable[Fetched]) -> tuple[int, int]:
        """Merge what was fetched for several coins in one durable transaction. Returns (new, revised) candles."""
        batch = list(fetched)
        for answer in batch:
            if len(answer.open_times) != len(answer.values) or np.any(np.concatenate((answer.open_times, answer.no_trade)) % HOUR.ms):
                raise DataError(f"{answer.symbol}: candles are not on the hour, or times and values are not of one length")

        def change(txn: Transaction) -> tuple[int, int]:
            new = revised = 0
            for answer in batch:
                for week in np.unique(np.concatenate((answer.open_times, answer.no_trade)) // WEEK_MS).tolist():
                    counts = _merge(txn, answer, week)
                    new, revised = new + counts[0], revised + counts[1]
            return new, revised

        return self._env.write(change) if batch else (0, 0)

    def drop(self, symbol: str) -> None:
        """Forget a coin's candles."""

        def change(txn: Transaction) -> None:
            for key in [key for key, _ in txn.scan(_CHUNKS, _key(symbol, 0), _key(symbol, 2**32 - 1))]:
                txn.delete(_CHUNKS, key)

        self._env.write(change)

    def forget_no_trade(self) -> int:
        """Make all hours without trades unknown again. Returns how many there were."""
        with self._env.read(lend=True) as txn:
            keys = [key for key, value in txn.scan(_CHUNKS) if (chunk := _chunk(value)) is not None and (chunk[0] == NO_TRADE).any()]

        def change(txn: Transaction) -> int:
            hours = 0
            for key in keys:
                body = bytearray(txn.get(_CHUNKS, key) or b"")
                status = np.frombuffer(body, np.uint8, WEEK, _HEAD)
                hours += int((status == NO_TRADE).sum())
                status[status == NO_TRADE] = NOT_FETCHED
                _seal(body)
                txn.put(_CHUNKS, key, bytes(body))
            return hours

        return self._env.write(change) if keys else 0

    def drop_after(self, time: int) -> int:
        """Forget the hours that close later than ``time``. Returns in how many chunks there were any."""

        def change(txn: Transaction) -> int:
            changed = 0
            for key in [key for key, _ in txn.scan(_CHUNKS) if (_week(key) + 1) * WEEK_MS > time]:
                first = max(0, time // HOUR.ms - _week(key) * WEEK)
                body = bytearray(txn.get(_CHUNKS, key) or b"")
                if first == 0 or _chunk(bytes(body)) is None:
                    changed += txn.delete(_CHUNKS, key)
                    continue
                status = np.frombuffer(body, np.uint8, WEEK, _HEAD)
                if (status[first:] != NOT_FETCHED).any():
                    status[first:] = NOT_FETCHED
                    np.frombuffer(body, np.float64, WEEK * 5, _HEAD + WEEK).reshape(WEEK, 5)[first:] = np.nan
                    _seal(body)
                    txn.put(_CHUNKS, key, bytes(body))
                    changed += 1
            return changed

        return self._env.write(change)

    def drop_before(self, time: int) -> int:
        """Forget the weeks that ended at or before ``time``. Returns how many chunks went."""
        last = time // WEEK_MS
        with self._env.read(lend=True) as txn:
            old = [key for key, _ in txn.scan(_CHUNKS) if _week(key) < last]

        def change(txn: Transaction) -> None:
            for key in old:
                txn.delete(_CHUNKS, key)

        if old:
            self._env.write(change)
        return len(old)

    # What is read

    def panel(self, symbols: Sequence[str], start: int, end: int) -> Panel:
        """The hours that open at or after ``start`` and close by ``end``; all NOT_FETCHED for a coin that is not known."""
        hours = _hours(start, end)
        values = np.full((hours, len(symbols), 5), np.nan)
        status = np.zeros((hours, len(symbols)), np.uint8)
        with self._env.read(lend=True) as txn:
            for column, symbol in enumerate(symbols):
                for rows, part, chunk_status, chunk_values in _read(txn, symbol, start, end):
                    status[rows, column] = chunk_status[part]
                    values[rows, column] = chunk_values[part]
        return Panel(tuple(symbols), start, values, status)

    def status(self, symbol: str, start: int, end: int) -> UInt8:
        """uint8 [hours]: the states of the hours that open at or after ``start`` and close by ``end``."""
        status = np.zeros(_hours(start, end), np.uint8)
        with self._env.read(lend=True) as txn:
            for rows, part, chunk_status, _ in _read(txn, symbol, start, end):
                status[rows] = chunk_status[part]
        return status

    def gaps(self, symbol: str, start: int, end: int) -> list[tuple[int, int]]:
        """Ranges of open times, half-open, of hours between ``start`` and ``end`` that were never fetched."""
        missing = np.concatenate(([False], self.status(symbol, start, end) == NOT_FETCHED, [False]))
        edges = start + HOUR.ms * np.flatnonzero(missing[1:] != missing[:-1])
        return [(int(first), int(last)) for first, last in zip(edges[::2], edges[1::2], strict=True)]

    def span(self, symbol: str) -> tuple[int, int] | None:
        """(open time of the first candle, close time of the last one), or None if there is none."""
        with self._env.read(lend=True) as txn:
            weeks = [_week(key) for key, _ in txn.scan(_CHUNKS, _key(symbol, 0), _key(symbol, 2**32 - 1))]
            first = next(_candles(txn, symbol, weeks), None)
            if first is None:
                return None
            last = next(_candles(txn, symbol, reversed(weeks)))
            return int(first[0]), int(last[-1]) + HOUR.ms

    def symbols(self) -> list[str]:
        """All coins of which something is kept, in alphabetical order."""
        with self._env.read(lend=True) as txn:
            return sorted({key[:-5].decode() for key, _ in txn.scan(_CHUNKS)})

    # Small records

    def facts(self, name: str) -> dict[str, Any] | None:
        """A small record of the collector's: the universe, the markets, when coins were listed. None if there is none."""
        with self._env.read() as txn:
            record = txn.get(_FACTS, name.encode())
        if record is None:
            return None
        try:
            facts = msgpack.unpackb(record)
        except (ValueError, msgpack.UnpackException) as error:
            raise StoreError(f"the record {name!r} of {self._env.path} is damaged", hint="move the folder away") from error
        assert isinstance(facts, dict)
        return facts

    def set_facts(self, name: str, facts: dict[str, Any]) -> None:
        """Replace a record; nothing is written when it is as it was."""
        record: bytes = msgpack.packb(facts)
        with self._env.read() as txn:
            if txn.get(_FACTS, name.encode()) == record:
                return
        self._env.write(lambda txn: txn.put(_FACTS, name.encode(), record))


def _hours(start: int, end: int) -> int:
    if start < 0 or start % HOUR.ms or end % HOUR.ms:
        raise DataError(f"the range {start} to {end} does not lie on hours")
    return max(0, (end - start) // HOUR.ms)


def _key(symbol: str, week: int) -> bytes:
    return symbol.encode() + b"\0" + week.to_bytes(4, "big")


def _week(key: bytes) -> int:
    return int.from_bytes(key[-4:], "big")


def _chunk(value: bytes | None) -> tuple[UInt8, Float64] | None:
    """Views (status [168], values [168, 5]) of a chunk's bytes; None for one that is missing or damaged."""
    if value is None or len(value) != _CHUNK_BYTES or zlib.crc32(value[_HEAD:]) != int.from_bytes(value[:4], "little"):
        return None
    return np.frombuffer(value, np.uint8, WEEK, _HEAD), np.frombuffer(value, np.float64, WEEK * 5, _HEAD + WEEK).reshape(WEEK, 5)


def _read(txn: Transaction, symbol: str, start: int, end: int) -> Iterator[tuple[slice, slice, UInt8, Float64]]:
    """For each chunk that overlaps the range: its rows of the range, the part of it that lies there, and views of it."""
    for week in range(start // WEEK_MS, -(-end // WEEK_MS)):
        chunk = _chunk(txn.get(_CHUNKS, _key(symbol, week)))
        if chunk is not None:
            first, last = max(start, week * WEEK_MS), min(end, (week + 1) * WEEK_MS)
            rows = slice((first - start) // HOUR.ms, (last - start) // HOUR.ms)
            part = slice((first - week * WEEK_MS) // HOUR.ms, (last - week * WEEK_MS) // HOUR.ms)
            yield rows, part, *chunk


def _candles(txn: Transaction, symbol: str, weeks: Iterable[int]) -> Iterator[Int64]:
    """For each of the weeks that has candles: their open times."""
    for week in weeks:
        chunk = _chunk(txn.get(_CHUNKS, _key(symbol, week)))
        if chunk is not None and (chunk[0] == CANDLE).any():
            yield week * WEEK_MS + HOUR.ms * np.flatnonzero(chunk[0] == CANDLE).astype(np.int64)


def _merge(txn: Transaction, answer: Fetched, week: int) -> tuple[int, int]:
    """Merge the answer's part for one week into its chunk; nothing is written if nothing has changed."""
    key = _key(answer.symbol, week)
    old = _chunk(txn.get(_CHUNKS, key))
    body = bytearray(_CHUNK_BYTES)
    status = np.frombuffer(body, np.uint8, WEEK, _HEAD)
    values = np.frombuffer(body, np.float64, WEEK * 5, _HEAD + WEEK).reshape(WEEK, 5)
    values[:] = np.nan
    if old is not None:
        status[:], values[:] = old

    candles = answer.open_times // WEEK_MS == week
    rows = (answer.open_times[candles] - week * WEEK_MS) // HOUR.ms
    had = status[rows] == CANDLE
    same = had & (values[rows] == answer.values[candles]).all(axis=1)
    status[rows], values[rows] = CANDLE, answer.values[candles]
    new, revised = int((~had).sum()), int((had & ~same).sum())

    quiet = (answer.no_trade[answer.no_trade // WEEK_MS == week] - week * WEEK_MS) // HOUR.ms
    quiet = quiet[status[quiet] == NOT_FETCHED]
    status[quiet] = NO_TRADE
    if new or revised or len(quiet):
        _seal(body)
        txn.put(_CHUNKS, key, bytes(body))
    return new, revised


def _seal(body: bytearray) -> None:
    """Put a chunk's checksum in its place."""
    body[:4] = zlib.crc32(memoryview(body)[_HEAD:]).to_bytes(4, "little")


@contextmanager
def reading(path: Path) -> Iterator[CandleStore]:
    """The store opened for one reading, by one thread after the other: a process must not have it open twice. Raises `StoreError`."""
    with _one_at_a_time, CandleStore.open(path) as store:
        yield store
