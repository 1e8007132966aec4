"""The live coverage of each coin: how often its outcomes lay inside what was foretold, lately; said with each of its forecasts.

Sums with forgetting, so that one small record holds them and a `get` has its figure without reading the ledger. Knows the records and the
intervals; taught in the disk thread, hour by hour, with what scoring finds to have matured. The exact figures, with how sure they are, are
the scorecard's.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from cryptod.daemon.records import Records
from cryptod.forecast.scores import covered
from cryptod.logs import get_logger
from cryptod.market import Float32, Float64

SHOWN: Final = (50, 80, 95)
HALF_LIFE_HOURS: Final = 15 * 24
"""An outcome counts half after so many hours: the mean looks back about three weeks."""
LEAST_OUTCOMES: Final = 24 * 24.0
"""With less than a day of forecasts, which overlap, there is no figure."""
_FADE: Final = 0.5 ** (1 / HALF_LIFE_HOURS)
_NEGLIGIBLE: Final = 1.0
_RECORD: Final = "coverage"

log = get_logger("coverage")


class LiveCoverage:
    """symbol -> [outcomes, and how many of them lay inside each of `SHOWN`], faded."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._sums: dict[str, Float64] = {}
        saved: dict[str, Any] | None = records.get(_RECORD)
        if saved is not None:
            try:
                sums = np.frombuffer(saved["sums"], np.float64).reshape(len(saved["symbols"]), 1 + len(SHOWN))
                self._sums = dict(zip(saved["symbols"], sums.copy()))
            except (KeyError, TypeError, ValueError) as error:
                log.warning("the live coverage could not be read; it is counted anew", error=str(error))

    def mature(self, symbols: tuple[str, ...], quantiles: Float32, outcomes: Float64) -> None:
        """Take in what has become known in one hour. ``quantiles``: [N, 24, 9] as issued; ``outcomes``: [N, 24]; NaN where not known."""
        known = np.isfinite(outcomes) & np.isfinite(quantiles).all(axis=-1)
        counted = np.stack([known, *(known & covered(quantiles, outcomes, percent) for percent in SHOWN)], axis=-1).sum(axis=1)
        faded = {symbol: _FADE * sums for symbol, sums in self._sums.items()}
        for symbol, sums in zip(symbols, counted.astype(np.float64)):
            faded[symbol] = faded.get(symbol, 0.0) + sums
        self._sums = {symbol: sums for symbol, sums in faded.items() if sums[0] > _NEGLIGIBLE}

    def keep(self) -> None:
        """Write the state down, once all that matured is taken in."""
        self._records.set(_RECORD, {"symbols": list(self._sums), "sums": b"".join(sums.tobytes() for sums in self._sums.values())})

    def of(self, symbol: str) -> dict[str, float] | None:
        """``{"50": share, "80": share, "95": share, outcomes}``, or None while too few outcomes are known."""
        sums = self._sums.get(symbol)
        if sums is None or sums[0] < LEAST_OUTCOMES:
            return None
        return {str(percent): float(hits / sums[0]) for percent, hits in zip(SHOWN, sums[1:])} | {"outcomes": float(sums[0])}
