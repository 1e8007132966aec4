"""What became of the forecasts: outcomes as they mature, fed to the calibration and kept as scores.

Knows the ledger, the candle store and the calibration. The outcome of horizon h is known h hours after the cutoff, so at
each new cutoff one horizon of each of the last 24 cutoffs matures; that is what the calibration learns from, once. An
issue is scored as a whole when its last horizon has matured. Everything is worked out from what is on disk, so nothing
has to be remembered across a restart but the calibration itself and how far it has come. Runs in the disk thread.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np

from cryptod.daemon.records import Records
from cryptod.errors import StoreError
from cryptod.forecast.calibration import Calibration
from cryptod.forecast.scores import pinball
from cryptod.logs import get_logger
from cryptod.market import CLOSE, HOUR, MAX_HORIZON, NOT_FETCHED, QUANTILE_LEVELS, Float64, Panel
from cryptod.store.ledger import Issue, Ledger, Score

CATCH_UP_HOURS: Final = 72
"""After a longer pause the calibration starts from the latest outcomes: older ones say little about today."""
SCORED_BACK_HOURS: Final = 8 * 24
SERVED: Final = "served"
"""The forecaster that was served, whichever it was, beside the references in a score."""

log = get_logger("scoring")


class Candles(Protocol):
    """What is needed of the candle store."""

    def __call__(self, symbols: tuple[str, ...], start: int, cutoff: int) -> Panel: ...


def last_closes(panel: Panel) -> Float64:
    """float64 [T, N]: close known after each hour, through hours without a trade; NaN where the hour was not fetched, or none is known."""
    closes = panel.values[:, :, CLOSE].copy()
    row = np.where(np.isfinite(closes), np.arange(len(closes))[:, None], -1)
    last = np.maximum.accumulate(row, axis=0)
    filled = np.where(last >= 0, np.take_along_axis(closes, np.maximum(last, 0), axis=0), np.nan)
    return np.where(panel.status == NOT_FETCHED, np.nan, filled)


class Scoring:
    """Feeds ``calibration`` and writes the ledger's scores. ``candles(symbols, start, cutoff)`` reads a panel."""

    def __init__(self, ledger: Ledger, records: Records, candles: Candles) -> None:
        self._ledger, self._records, self._candles = ledger, records, candles
        saved: dict[str, Any] = records.get("calibration") or {}
        self.calibration, self._learned_to = Calibration(), int(saved.get("to", 0))
        if saved.get("symbols"):
            try:
                theta = np.frombuffer(saved["theta"], np.float64).reshape(len(saved["symbols"]), -1)
                self.calibration = Calibration.restore({"symbols": saved["symbols"], "theta": theta})
            except (StoreError, ValueError, KeyError) as error:
                log.warning("the calibration's state could not be read; it is learned anew", error=str(error))

    def mature(self, cutoff: int) -> None:
        """Take in the outcomes that are known at ``cutoff`` (UTC ms) and were not known before."""
        first = max(self._learned_to + HOUR.ms, cutoff - CATCH_UP_HOURS * HOUR.ms)
        if first <= cutoff:
            self._learn(first, cutoff)
        self._score(cutoff)

    def _learn(self, first: int, cutoff: int) -> None:
        """Teach the calibration hour by hour; each forecast counts once at each horizon: the first that was issued for its cutoff."""
        issues: dict[int, list[Issue]] = {}
        for issue in self._ledger.read(first - MAX_HORIZON * HOUR.ms, cutoff):
            issues.setdefault(issue.cutoff, []).append(issue)
        symbols = tuple(sorted({symbol for group in issues.values() for issue in group for symbol in issue.symbols}))
        if symbols:
            closes = last_closes(self._candles(symbols, first - (MAX_HORIZON + 1) * HOUR.ms, cutoff))
            place = {symbol: column for column, symbol in enumerate(symbols)}
            for now in range(first, cutoff + 1, HOUR.ms):
                quantiles = np.full((len(symbols), MAX_HORIZON, len(QUANTILE_LEVELS)), np.nan, np.float32)
                outcomes = np.full((len(symbols), MAX_HORIZON), np.nan)
                close = closes[len(closes) - 1 - (cutoff - now) // HOUR.ms]
                for h in range(1, MAX_HORIZON + 1):
                    for issue in reversed(issues.get(now - h * HOUR.ms, [])):  # the first one last: it is the one that stays
                        columns = np.array([place[symbol] for symbol in issue.symbols])
                        quantiles[columns, h - 1] = issue.quantiles[:, h - 1]
                        outcomes[columns, h - 1] = np.log(close[columns] / issue.close)
                self.calibration.update(symbols, quantiles, outcomes)
        self._learned_to = cutoff
        state = self.calibration.export()
        self._records.set("calibration", {"to": cutoff, "symbols": state["symbols"], "theta": np.asarray(state["theta"]).tobytes()})

    def _score(self, cutoff: int) -> None:
        """Score the issues whose last horizon has matured."""
        end = cutoff - MAX_HORIZON * HOUR.ms + 1
        for issued_at, seq in self._ledger.unscored(end - SCORED_BACK_HOURS * HOUR.ms, end):
            issue = self._ledger.get(issued_at, seq)
            if issue is not None:
                self._ledger.put_score(self._scored(issue, seq))

    def _scored(self, issue: Issue, seq: int) -> Score:
        references = self._ledger.references(issue.cutoff, seq)
        closes = last_closes(self._candles(issue.symbols, issue.cutoff - HOUR.ms, issue.cutoff + MAX_HORIZON * HOUR.ms))[1:]
        outcomes = np.log(closes.T / issue.close[:, None])
        names = (SERVED, *references)
        said = (issue.quantiles, *references.values())
        below = (issue.quantiles < outcomes[:, :, None]).sum(axis=-1)
        return Score(
            cutoff=issue.cutoff,
            seq=seq,
            symbols=issue.symbols,
            forecasters=names,
            loss=np.stack([mean_loss(quantiles, outcomes) for quantiles in said]).astype(np.float32),
            level=np.where(np.isfinite(outcomes), below, 255).astype(np.uint8),
            outcome=outcomes.astype(np.float32),
        )


def mean_loss(quantiles: Any, outcomes: Float64) -> Float64:
    """float64 [N, H]: pinball loss, mean over the levels."""
    return np.asarray(pinball(quantiles, outcomes).mean(axis=-1))
