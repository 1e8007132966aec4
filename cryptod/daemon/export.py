"""Data out: what the stores hold as tables, chunk by chunk, so that neither side ever holds all of it.

Knows the stores and the rows made of them; nothing of sockets and formats. A chunk has at most some thousand rows; ``after`` says where
the one before it ended, and is all that is remembered: who comes back after a restart goes on where it was. The loop is not held up:
rows are made in a thread that only reads, some milliseconds a chunk, and the users take turns (`lane`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgpack
import numpy as np

from cryptod.errors import RequestError
from cryptod.forecast.model import SOURCES
from cryptod.market import CANDLE, HOUR, MAX_HORIZON, QUANTILE_LEVELS, SERVED, Float32
from cryptod.protocol import EXPORTS
from cryptod.store.candles import reading
from cryptod.store.forecasts import Entry
from cryptod.store.ledger import Issue, Ledger, Score

COINS: Final = 25
"""Coins of one chunk of forecasts, each with a row for each horizon."""
HOURS: Final = 1000
"""Hours of one chunk of candles."""
LOOKS: Final = 32
"""Issues that are read for one chunk at most: where none has a wanted coin, the chunk is empty and the next goes on."""
WINDOW_MS: Final = 48 * HOUR.ms
FOREVER: Final = 1 << 62
LEVELS: Final = tuple(f"q{level * 1000:03.0f}" for level in QUANTILE_LEVELS)
"""Columns of the quantiles of the cumulative log return: q025 is that of 2.5 %."""
FORECASTERS: Final = (SERVED, *SOURCES)

Columns = dict[str, list[Any]]


class Chunk(NamedTuple):
    """Columns of one length, and where the next chunk begins (nil after the last)."""

    columns: Columns
    after: str | None


class Ask(NamedTuple):
    """``since`` and ``until``: UTC ms, of cutoffs or of open times, half-open; ``symbols``: all if None."""

    since: int
    until: int
    symbols: frozenset[str] | None
    after: str


class Exports:
    """``entries()`` gives the forecasts that are served now; ``candles`` is the folder of the candle store; ``reader`` is the thread in
    which rows are made."""

    def __init__(self, entries: Callable[[], Sequence[Entry]], ledger: Ledger, candles: Path, reader: Executor) -> None:
        self._entries, self._ledger, self._candles, self._reader = entries, ledger, candles, reader
        self._tables: Mapping[str, Callable[[Ask], Chunk]] = {
            "forecasts": self._forecasts, "ledger": self._issues, "scores": self._scores, "candles": self._candle_rows,
        }  # fmt: skip
        assert set(self._tables) == set(EXPORTS)

    async def chunk(self, what: str, since: int, until: int, symbols: frozenset[str] | None, after: str) -> bytes:
        """One chunk as MessagePack: ``{columns: {name: [value]}, after}``. `RequestError` for what cannot be asked."""
        if what not in self._tables:
            raise RequestError("bad_request", f"there is no table {what[:32]!r}", hint=f"one of {', '.join(EXPORTS)}")
        if not 0 <= since <= FOREVER or not 0 <= until <= FOREVER:
            raise RequestError("bad_request", "since and until are times in ms since 1970", hint="0 leaves them open")
        ask = Ask(since, until or FOREVER, symbols, after)
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._packed, self._tables[what], ask)

    @staticmethod
    def _packed(table: Callable[[Ask], Chunk], ask: Ask) -> bytes:
        try:
            chunk = table(ask)
        except ValueError as error:
            raise RequestError("bad_request", "after is not what the last chunk said", hint="give it back as it came") from error
        packed: bytes = msgpack.packb({"columns": chunk.columns, "after": chunk.after})
        return packed

    def _forecasts(self, ask: Ask) -> Chunk:
        found = sorted(
            (
                entry
                for entry in self._entries()
                if entry.symbol > ask.after
                and ask.since <= entry.cutoff < ask.until
                and (ask.symbols is None or entry.symbol in ask.symbols)
            ),
            key=lambda entry: entry.symbol,
        )
        columns = _empty(
            "cutoff", "issued", "symbol", "model", "flags", "close", "horizon", *LEVELS, "p_up", "volatility", "expected_return"
        )
        for entry in found[:COINS]:
            unpacker = msgpack.Unpacker()
            unpacker.feed(entry.body)
            items = list(unpacker)
            said = dict(zip(items[::2], items[1::2], strict=True))
            hours = len(said["horizons"])
            for name in ("cutoff", "issued", "symbol", "model", "close"):
                columns[name] += [said[name]] * hours
            columns["flags"] += [" ".join(said["flags"])] * hours
            columns["horizon"] += said["horizons"]
            for name, values in zip(LEVELS, zip(*said["quantiles"], strict=True), strict=True):
                columns[name] += values
            for name in ("p_up", "volatility", "expected_return"):
                columns[name] += said[name]
        return Chunk(columns, found[COINS - 1].symbol if len(found) > COINS else None)

    def _issues(self, ask: Ask) -> Chunk:
        columns = _empty("cutoff", "issued", "symbol", "model", "flags", "close", "horizon", *LEVELS, "p_up", "volatility")
        after = None
        for key, first in self._positions(ask):
            issue = self._ledger.get(*key)
            if issue is not None and ask.symbols is not None:
                issue = issue.coins(ask.symbols)
            after = _after(key, first, len(issue.symbols) if issue is not None else 0)
            if issue is not None and first < len(issue.symbols):
                _add_issue(columns, issue, slice(first, first + COINS))
                break
        return Chunk(columns, after)

    def _scores(self, ask: Ask) -> Chunk:
        columns = _empty("cutoff", "symbol", "horizon", "outcome", "level", *(f"loss_{name}" for name in FORECASTERS))
        after = None
        for key, first in self._positions(ask):
            score = next((one for one in self._ledger.scores(key[0], key[0] + 1, ask.symbols) if one.seq == key[1]), None)
            after = _after(key, first, len(score.symbols) if score is not None else 0)
            if score is not None and first < len(score.symbols):
                _add_score(columns, score, slice(first, first + COINS))
                break
        return Chunk(columns, after)

    def _positions(self, ask: Ask) -> Iterator[tuple[tuple[int, int], int]]:
        """The issues to look at next, and the first coin of each that is still to come; not more than one chunk's work."""
        stats = self._ledger.stats()
        cutoff, seq, first = map(int, ask.after.split(":")) if ask.after else (ask.since, 0, 0)
        start, end = max(cutoff, stats["first_cutoff"]), min(ask.until, stats["last_cutoff"] + 1)
        looked = 0
        while start < end and looked < LOOKS:
            # A window at a time: to pass a key is to touch the pages of its record.
            for key in self._ledger.keys(start, min(end, start + WINDOW_MS)):
                if key >= (cutoff, seq) and looked < LOOKS:
                    looked += 1
                    yield key, first if key == (cutoff, seq) else 0
            start += WINDOW_MS

    def _candle_rows(self, ask: Ask) -> Chunk:
        names = ("open", "high", "low", "close", "volume")
        symbol_after, _, time_after = ask.after.partition(" ")
        begin = int(time_after) if ask.after else 0
        with reading(self._candles) as store:
            for symbol in store.symbols():
                if symbol < symbol_after or (ask.symbols is not None and symbol not in ask.symbols) or (span := store.span(symbol)) is None:
                    continue
                start = max(span[0], -(-ask.since // HOUR.ms) * HOUR.ms, begin if symbol == symbol_after else 0)
                last = min(span[1], -(-min(ask.until, span[1]) // HOUR.ms) * HOUR.ms)
                while start < last:
                    end = min(last, start + HOURS * HOUR.ms)
                    panel = store.panel((symbol,), start, end)
                    rows = np.flatnonzero(panel.status[:, 0] == CANDLE)
                    if len(rows):
                        columns: Columns = {"open_time": panel.open_times[rows].tolist(), "symbol": [symbol] * len(rows)}
                        columns |= {name: panel.values[rows, 0, i].tolist() for i, name in enumerate(names)}
                        return Chunk(columns, f"{symbol} {end}")
                    start = end
        return Chunk(_empty("open_time", "symbol", *names), None)


def _after(key: tuple[int, int], first: int, coins: int) -> str:
    """Where to go on when these coins of an issue are done."""
    return f"{key[0]}:{key[1]}:{first + COINS}" if first + COINS < coins else f"{key[0]}:{key[1] + 1}:0"


def _empty(*names: str) -> Columns:
    return {name: [] for name in names}


def _add_issue(columns: Columns, issue: Issue, rows: slice) -> None:
    """The rows of some coins, one for each horizon."""
    symbols, hours = issue.symbols[rows], issue.p_up.shape[1]
    flags = issue.flags[rows] if issue.flags else ((),) * len(symbols)
    columns["cutoff"] += [issue.cutoff] * (hours * len(symbols))
    columns["issued"] += [issue.issued] * (hours * len(symbols))
    columns["symbol"] += _each(symbols, hours)
    columns["model"] += _each(issue.models[rows], hours)
    columns["flags"] += _each([" ".join(names) for names in flags], hours)
    columns["close"] += _each(issue.close[rows].tolist(), hours)
    columns["horizon"] += list(range(1, hours + 1)) * len(symbols)
    for place, name in enumerate(LEVELS):
        columns[name] += issue.quantiles[rows, :, place].ravel().tolist()
    columns["p_up"] += issue.p_up[rows].ravel().tolist()
    columns["volatility"] += issue.volatility[rows].ravel().tolist()


def _add_score(columns: Columns, score: Score, rows: slice) -> None:
    """The same of a score; what is not known is nil."""
    symbols = score.symbols[rows]
    columns["cutoff"] += [score.cutoff] * (MAX_HORIZON * len(symbols))
    columns["symbol"] += _each(symbols, MAX_HORIZON)
    columns["horizon"] += list(range(1, MAX_HORIZON + 1)) * len(symbols)
    columns["outcome"] += _known(score.outcome[rows])
    columns["level"] += [None if level == 255 else level for level in score.level[rows].ravel().tolist()]
    losses = dict(zip(score.forecasters, score.loss, strict=True))
    for name in FORECASTERS:
        columns[f"loss_{name}"] += _known(losses[name][rows]) if name in losses else [None] * (MAX_HORIZON * len(symbols))


def _each(values: Sequence[Any], times: int) -> list[Any]:
    return [value for value in values for _ in range(times)]


def _known(values: Float32) -> list[float | None]:
    return [value if value == value else None for value in values.ravel().tolist()]
