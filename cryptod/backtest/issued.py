"""The file of a backtest: what was issued, row by row, for whoever wants to judge it.

Knows forecasts and files; no outcome.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

import numpy as np

from cryptod.forecast.predictor import Forecasts
from cryptod.market import QUANTILE_LEVELS

_COLUMNS: Final = ("symbol", "cutoff", "horizon", "model", *(f"q{level}" for level in QUANTILE_LEVELS), "p_up")
_ROW: Final = "%s,%d,%d,%s" + ",%.7g" * (len(QUANTILE_LEVELS) + 1) + "\n"
"""Formatted by hand: pandas' writer took more than half of each hour's turn."""


class IssuedFile:
    """A gzipped CSV of what was issued, one row per (symbol, cutoff, horizon): `_COLUMNS`. ``cutoff`` is the close time of the last
    candle used (UTC ms), quantiles are of the cumulative log return from that close, ``model`` is who served.
    """

    def __init__(self, path: Path, horizons: Sequence[int], every: int) -> None:
        self._path, self._every = path, every
        self._horizons = np.array(horizons)
        self._file: IO[str] | None = None

    def __enter__(self) -> Self:
        self._file = gzip.open(self._path, "wt", encoding="ascii", compresslevel=4, newline="")
        self._file.write(",".join(_COLUMNS) + "\n")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def write(self, made: Forecasts, hours: int) -> None:
        """One issue, made ``hours`` after the first one."""
        if self._file is None or hours % self._every:
            return
        columns = self._horizons - 1
        values = np.concatenate([made.quantiles[:, columns], made.p_up[:, columns, None]], axis=-1).astype(np.float64).tolist()
        for symbol, cutoff, source, rows in zip(made.symbols, made.cutoffs.tolist(), made.sources, values, strict=True):
            self._file.writelines(_ROW % (symbol, cutoff, h, source, *row) for h, row in zip(self._horizons, rows, strict=True))
