"""From what a backtest found to its page: who served, and the period as the page wants them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cryptod.backtest.results import Results
from cryptod.forecast.model import SOURCES
from cryptod.market import Float32
from cryptod.report.markup import plain
from cryptod.report.page import write_report


def write(path: Path, results: Results, figures: Mapping[str, Any]) -> None:
    """Write the page; ``figures`` are the counts that the run ended with, told beside the settings."""
    told = "\n".join(f"{name}: {_said(value)}" for name, value in figures.items() if name in _TOLD)
    settings = f"{results.settings}\n\n{told}"
    write_report(path, dataclasses.replace(results.judged(), settings=settings, shares=shares(results)))


_TOLD = ("forecasts", "drift", "refused", "left_out", "crossings", "not_finite", "seconds", "seconds_training")


def _said(value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain(value) or "nothing"
    return "; ".join(value) or "no alarm" if isinstance(value, list) else value


def shares(results: Results) -> dict[str, Float32]:
    """Forecaster -> float32 [T]: its part in what was served, mean over coins and horizons; NaN in an hour without a forecast.

    A coin that the gate has given to a reference is that reference's alone; the others are served the combination.
    """
    answered = (results.source != 255).sum(axis=1)
    weights = results.weights.mean(axis=1)
    combined = (results.source == 0).sum(axis=1)
    found = {}
    for place, name in enumerate(SOURCES):
        alone = (results.source == place).sum(axis=1) if place else np.zeros(len(answered))
        part = (combined * np.nan_to_num(weights[:, place]) + alone) / np.maximum(answered, 1)
        found[name] = np.where(answered > 0, part, np.nan).astype(np.float32)
    return found
