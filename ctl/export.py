"""`cryptoctl export`: a table written out as it comes, chunk by chunk; never more than one chunk is in memory.

Knows the formats: CSV with a header, JSON with one document a line, and Parquet, which pyarrow writes (the extra ``parquet``). Times stay
UTC epoch milliseconds in CSV and JSON, and are timestamps in Parquet.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any, BinaryIO, Final, Protocol

from cryptod.errors import CryptodError, MissingPackage
from cryptod.symbol import spelling, spellings
from cryptod.tables import TIMES, Columns, rows
from ctl import files
from ctl.heard import document
from ctl.session import Session
from ctl.units import counted, names

FORMATS: Final = ("csv", "json", "parquet")
_AGO: Final = re.compile(r"([0-9]{1,6})([hdw])")
_HOURS: Final = {"h": 1, "d": 24, "w": 7 * 24}


def moment(text: str, now: int) -> int:
    """UTC ms of ``7d``, ``36h`` or ``2w`` ago, of a date or time of ISO 8601 (UTC unless it says otherwise), or of such ms themselves."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return max(0, now - int(ago[1]) * _HOURS[ago[2]] * 3_600_000)
    if text.isascii() and text.isdigit() and len(text) > 8:
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CryptodError(f"{text!r} is no time", hint="2026-03-01, 2026-03-01T12:00, 7d or 36h ago, or UTC milliseconds") from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


class Writer(Protocol):
    """Takes chunk after chunk."""

    def write(self, columns: Columns) -> None: ...

    def close(self) -> None: ...


class Csv:
    """A header, then a line for each row; nothing between two commas where a value is not known."""

    def __init__(self, stream: BinaryIO) -> None:
        self._text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
        self._rows = csv.writer(self._text, lineterminator="\n")
        self._headed = False

    def write(self, columns: Columns) -> None:
        if not self._headed:
            self._rows.writerow(columns)
            self._headed = True
        self._rows.writerows(zip(*columns.values(), strict=True))

    def close(self) -> None:
        self._text.flush()
        self._text.detach()


class Json:
    """One object a line."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, columns: Columns) -> None:
        names = list(columns)
        lines = (document(dict(zip(names, row))) + "\n" for row in zip(*columns.values(), strict=True))
        self._stream.write("".join(lines).encode())

    def close(self) -> None:
        self._stream.flush()


class Parquet:
    """Row groups of some ten thousand rows."""

    ROWS: Final = 50_000

    def __init__(self, stream: BinaryIO) -> None:
        try:
            import pyarrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise MissingPackage("Parquet needs", "pyarrow", instead="--format csv") from error
        self._arrow, self._parquet, self._stream = pyarrow, parquet, stream
        self._kept: list[Any] = []
        self._out: Any = None

    def write(self, columns: Columns) -> None:
        arrow = self._arrow
        kinds = {
            "symbol": arrow.string(),
            "model": arrow.string(),
            "flags": arrow.string(),
            "horizon": arrow.int16(),
            "level": arrow.int16(),
        }
        kinds |= dict.fromkeys(TIMES, arrow.timestamp("ms", tz="UTC"))
        schema = arrow.schema([(name, kinds.get(name, arrow.float64())) for name in columns])
        self._kept.append(arrow.table(columns, schema=schema))
        if sum(len(table) for table in self._kept) >= self.ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._kept:
            table = self._arrow.concat_tables(self._kept)
            if self._out is None:
                self._out = self._parquet.ParquetWriter(self._stream, table.schema)
            self._out.write_table(table)
            self._kept = []

    def close(self) -> None:
        self._flush()
        if self._out is not None:
            self._out.close()


WRITERS: Final[dict[str, type[Csv] | type[Json] | type[Parquet]]] = {"csv": Csv, "json": Json, "parquet": Parquet}


def _output(path: str | None) -> AbstractContextManager[BinaryIO]:
    """A file that is there when it is whole, or standard output."""
    return nullcontext(sys.stdout.buffer) if path is None else files.written(path)


def write(chunks: Iterable[Columns], writer: Writer) -> tuple[int, set[str]]:
    """All the chunks; how many rows there were, and of which coins."""
    count, symbols = 0, set[str]()
    for columns in chunks:
        writer.write(columns)
        count += rows(columns)
        symbols.update(columns["symbol"])
    writer.close()
    return count, symbols


def without_rows(asked: Iterable[str], symbols: Iterable[str]) -> list[str]:
    """The coins, as they were typed, that are not among those of the rows."""
    known = {text for symbol in symbols for text in spellings(symbol)}
    return [name for name in asked if spelling(name) not in known]


def export(session: Session, what: str, symbols: list[str] | None, since: str | int, until: str | int) -> int:
    """Write the table to standard output or ``--output``."""
    options = session.options
    form = "json" if options.json else options.format
    if form == "parquet" and options.output is None and sys.stdout.isatty():
        raise CryptodError("Parquet is nothing to look at", hint="--output FILE, or --format csv")
    now = session.now()
    begin, end = (moment(text, now) if isinstance(text, str) else text for text in (since, until))
    with _output(options.output) as stream:
        count, found = write(session.client.chunks(what, symbols, begin, end), WRITERS[form](stream))
    if options.output is not None:
        session.say(f"{counted(count, 'row')} in {options.output}")
    missing = without_rows(symbols or (), found)
    if missing:
        session.say(f"{what} has no row of {names(missing)} (`cryptoctl symbols` has the coins that are followed; or is --since too late?)")
    return 1 if missing else 0
