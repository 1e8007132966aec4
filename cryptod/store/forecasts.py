"""The forecast cache: the current forecast of each coin, in memory for the readers and in LMDB for the next start.

Knows the environment; nothing of how a forecast is made or sent: its body is ready bytes. What has expired is kept
until it is replaced, cleared, or very old: a daemon that comes back after a crash, or whose exchange is down, still
has something to show, and says how old it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import msgpack
import numpy as np

from cryptod.market import Float32
from cryptod.store.environment import Environment, Transaction
from cryptod.store.record import framed, opened

DATABASES: Final = ("forecasts",)
VERSION: Final = 3
GRACE_MS: Final = 48 * 3_600_000
"""How long an expired entry is kept."""
SKEW_MS: Final = 60_000
"""An entry that was issued later than this from now is of a clock that has been set back since: not fresh."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """The forecast of a coin, ready to be sent.

    ``cutoff``, ``issued``, ``expires``: UTC epoch ms. ``body``: the rendered key/value pairs of the forecast's map.
    ``p_up``, ``volatility``, ``expected_return``: float32 [H], by which, and by ``score``, coins are ranked.
    """

    symbol: str
    cutoff: int
    issued: int
    expires: int
    model: str
    body: bytes
    close: float
    score: float
    p_up: Float32
    volatility: Float32
    expected_return: Float32


class ForecastCache:
    """``environment`` needs the `DATABASES`; what it holds is loaded at once.

    One thread may write while another reads: a change puts a new map in the place of the old, so a reader sees all
    of it or nothing.
    """

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._entries: dict[str, Entry] = {}
        self._ranked: tuple[dict[str, Entry], dict[tuple[str, int], list[Entry]]] = ({}, {})
        """The entries that were ranked, and their order by each key and horizon that was asked for."""
        self._hits = self._misses = self._expired = self._stored = self._dropped = self._damaged = 0
        self._load()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, symbol: str, now: int) -> Entry | None:
        """The coin's forecast if it is fresh; otherwise None, and it is a miss or an expiry in the figures."""
        entry = self._entries.get(symbol)
        if entry is None:
            self._misses += 1
            return None
        if now < entry.expires and entry.issued - now < SKEW_MS:
            self._hits += 1
            return entry
        self._expired += 1
        return None

    def fresh(self, symbol: str, now: int, after: int) -> Entry | None:
        """As `get`, if its cutoff lies after; otherwise None, which counts nothing."""
        entry = self._entries.get(symbol)
        if entry is None or not entry.issued <= now < entry.expires or entry.cutoff <= after:
            return None
        self._hits += 1
        return entry

    def last(self, symbol: str) -> Entry | None:
        """The coin's latest forecast, be it expired. Counts nothing."""
        return self._entries.get(symbol)

    def entries(self) -> list[Entry]:
        """All that there are, fresh or not."""
        return list(self._entries.values())

    def top(self, count: int, by: str = "score", horizon: int = 24, among: Collection[str] | None = None) -> list[Entry]:
        """The first ``count`` entries (of the coins ``among``), largest first, be they fresh or not; ties by name.

        ``by``: one of ``protocol.TOP_KEYS``; ``horizon`` (from 1) does not matter to ``score``. Entries that do not
        reach the horizon, or have no figure there, are left out.
        """
        found = (entry for entry in self._in_order(by, horizon) if among is None or entry.symbol in among)
        return list(islice(found, count))

    def _in_order(self, by: str, horizon: int) -> list[Entry]:
        """All entries that have a figure there, largest first; sorted once for as long as nothing changes."""
        entries = self._entries
        if self._ranked[0] is not entries:
            self._ranked = entries, {}
        known, horizon = self._ranked[1], 0 if by == "score" else horizon
        if (by, horizon) not in known:
            ranked = []
            for symbol, entry in entries.items():
                if by == "score":
                    key = entry.score
                else:
                    figures: Float32 = getattr(entry, by)
                    key = float(figures[horizon - 1]) if 1 <= horizon <= len(figures) else np.nan
                if key == key:
                    ranked.append((-key, symbol, entry))
            ranked.sort(key=lambda row: row[:2])
            known[by, horizon] = [entry for _, _, entry in ranked]
        return known[by, horizon]

    def put(self, entries: Iterable[Entry], *, durable: bool = True) -> None:
        """Replace the entries of their coins, on disk first and in one step; readers see the new ones after that.

        Raises `StoreError`, and then nothing has changed; ``durable=False`` keeps them in memory alone, which is
        better than nothing while the disk is full.
        """
        new = {entry.symbol: entry for entry in entries}
        if durable:
            records = [(symbol.encode(), _record(entry)) for symbol, entry in new.items()]

            def change(txn: Transaction) -> None:
                for key, record in records:
                    txn.put("forecasts", key, record)

            self._environment.write(change)
        self._entries, self._ranked = self._entries | new, ({}, {})
        self._stored += len(new)

    def clear(self, symbols: Collection[str] | None = None) -> int:
        """Drop the entries of some coins, or all. Returns how many there were; `StoreError`: nothing was dropped."""
        return self._drop(list(self._entries) if symbols is None else [s for s in dict.fromkeys(symbols) if s in self._entries])

    def set_aside(self, latest: int) -> int:
        """Drop what was made at, or of, a time later than ``latest``."""
        return self._drop([symbol for symbol, entry in self._entries.items() if max(entry.cutoff, entry.issued) > latest])

    def expire(self, now: int, *, grace: int = GRACE_MS) -> int:
        """Drop what expired more than ``grace`` ms ago."""
        return self._drop([symbol for symbol, entry in self._entries.items() if entry.expires + grace < now])

    def stats(self) -> dict[str, Any]:
        """Figures of now and since the start. ``bytes`` of bodies; ``hit_rate``: None before the first read."""
        reads = self._hits + self._misses + self._expired
        entries = self.entries()
        return {
            "entries": len(entries),
            "bytes": sum(len(entry.body) for entry in entries),
            "hits": self._hits,
            "misses": self._misses,
            "expired": self._expired,
            "hit_rate": self._hits / reads if reads else None,
            "stored": self._stored,
            "dropped": self._dropped,
            "damaged": self._damaged,
            "oldest": min((entry.issued for entry in entries), default=None),
            "newest": max((entry.issued for entry in entries), default=None),
        }

    def _drop(self, symbols: list[str]) -> int:
        if symbols:
            self._environment.write(lambda txn: [txn.delete("forecasts", symbol.encode()) for symbol in symbols])
            gone = frozenset(symbols)
            self._entries = {symbol: entry for symbol, entry in self._entries.items() if symbol not in gone}
            self._ranked = {}, {}
            self._dropped += len(symbols)
        return len(symbols)

    def _load(self) -> None:
        damaged = []
        with self._environment.read() as txn:
            for key, record in txn.scan("forecasts"):
                entry = _entry(key, record)
                if entry is None:
                    damaged.append(key)
                else:
                    self._entries[entry.symbol] = entry
        self._damaged = len(damaged)
        if damaged:
            self._environment.write(lambda txn: [txn.delete("forecasts", key) for key in damaged])


def _record(entry: Entry) -> bytes:
    """A frame around the fields in MessagePack."""
    columns = (entry.p_up, entry.volatility, entry.expected_return)
    body: bytes = msgpack.packb(
        (
            entry.cutoff,
            entry.issued,
            entry.expires,
            entry.model,
            entry.body,
            entry.close,
            entry.score,
            *(np.asarray(column, "<f4").tobytes() for column in columns),
        )
    )
    return framed(VERSION, body, entry.symbol.encode())


def _entry(key: bytes, record: bytes) -> Entry | None:
    """None: damaged, or of another version. It is a cache: what cannot be read is made anew."""
    try:
        cutoff, issued, expires, model, body, close, score, *columns = msgpack.unpackb(opened(VERSION, record, key))
        p_up, volatility, expected_return = (np.frombuffer(column, "<f4") for column in columns)
        return Entry(key.decode(), cutoff, issued, expires, model, body, close, score, p_up, volatility, expected_return)
    except (ValueError, TypeError, msgpack.UnpackException):
        return None
