"""Tables out of the daemon: chunks of columns as `export` gives them, and pandas frames for those who ask for one.

Knows the protocol's tables and nothing of sockets; both clients use it. pandas is imported when a frame is made, and not before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from cryptod.errors import MissingPackage

if TYPE_CHECKING:
    from pandas import DataFrame

Columns = dict[str, list[Any]]
TIMES: Final = ("cutoff", "issued", "open_time")
"""Columns that are UTC epoch milliseconds."""


def rows(columns: Columns) -> int:
    """How many there are."""
    return len(next(iter(columns.values()), ()))


def frame(chunks: Iterable[Columns]) -> DataFrame:
    """All the chunks as one frame; times as UTC timestamps. `MissingPackage` where pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise MissingPackage("frames need", "pandas") from error
    parts = [pandas.DataFrame(columns) for columns in chunks]
    filled = [part for part in parts if len(part)] or parts[:1]
    found = pandas.concat(filled, ignore_index=True) if filled else pandas.DataFrame()
    for name in TIMES:
        if name in found:
            found[name] = pandas.to_datetime(found[name], unit="ms", utc=True)
    return found
