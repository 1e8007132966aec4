"""Make the base model that is shipped in models/base, with its card. Not a test; a maintainer runs it by hand.

    python -m tests.bench.base_model --candles DIR --out models/base [--months 12] [--end 2023-12-30] [--judge-from 2023-07-01]

Twice the same recipe: trained on half of the coins up to ``--judge-from`` and judged on the other half after it, for the figures of the
card; then trained on all of them up to ``--end``, which is what is shipped. `quick` is what the test of the card runs again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryptod.backtest.command import moment
from cryptod.forecast import scores
from cryptod.forecast.model import Model
from cryptod.forecast.predictor import Predictor
from cryptod.forecast.scores import SCORED_HORIZONS
from cryptod.market import CLOSE, HOUR, MAX_HORIZON
from cryptod.store.checkpoints import read_checkpoint, write_checkpoint
from cryptod.training import base_model, engine
from cryptod.worker.messages import Batch, BatchDone, Report, TrainOrder
from tests.bench.forecast_experiment import Folder

QUICK_COINS, QUICK_DAYS = 8, 7
_SCORED = np.array(SCORED_HORIZONS) - 1


def train(folder: Folder, symbols: tuple[str, ...], end: int, months: int) -> Model:
    """One batch of all the coins, as the engine trains it."""
    with tempfile.TemporaryDirectory() as root:
        order = TrainOrder(
            job=1, kind="full", cutoff=end, candles="", checkpoints=root, batches=(Batch(number=1, symbols=symbols),), universe=symbols,
            champions={}, timeframe="1h", months_back=months, epochs=50, threads=1, seed=1,
        )  # fmt: skip
        done: list[Report] = []
        engine.train(order, folder, done.append)
        [batch] = [report for report in done if isinstance(report, BatchDone)]
        print(f"trained {len(symbols)} coins in {batch.seconds:.0f} s: {batch.reason}", file=sys.stderr)
        return Model.from_checkpoint(batch.checkpoint, *read_checkpoint(Path(root), batch.checkpoint))


def judge(folder: Folder, model: Model, symbols: tuple[str, ...], start: int, end: int) -> dict[str, Any]:
    """How the base model does on coins that adopt it at ``start``, hour by hour to ``end``: pooled CRPS (x 10^4), coverage in percent."""
    adopted, left_out = base_model.adopt(model, folder.panel(symbols, start - base_model.HOURS * HOUR.ms, start))
    assert adopted is not None, left_out
    predictor = Predictor((adopted,))
    closes = folder.panel(adopted.symbols, start - HOUR.ms, end + MAX_HORIZON * HOUR.ms).values[:, :, CLOSE]
    losses: dict[str, list[NDArray[np.float64]]] = {}
    hits: dict[int, list[float]] = {percent: [] for percent in scores.INTERVALS}
    for row, cutoff in enumerate(range(start, end, HOUR.ms)):
        if row:
            predictor.advance(folder.panel(adopted.symbols, cutoff - HOUR.ms, cutoff))
        made = predictor.forecast(adopted.symbols, cutoff)
        outcomes = np.log(closes[row + np.array(SCORED_HORIZONS)] / made.close).T
        for name, said in (("base", made.quantiles), *made.said.items()):
            losses.setdefault(name, []).append(scores.pooled(scores.crps(said[:, _SCORED], outcomes)))
        for percent in hits:
            hits[percent].append(float(scores.covered(made.quantiles[:, _SCORED], outcomes, percent).mean()))
    means = {name: float(np.nanmean(np.stack(values))) * 1e4 for name, values in losses.items() if name != "model"}
    return {
        "coins": len(adopted.symbols),
        "hours": (end - start) // HOUR.ms,
        "crps_e4": {name: round(value, 3) for name, value in means.items()},
        "skill": {name: round(1.0 - means["base"] / value, 4) for name, value in means.items() if name != "base"},
        "coverage": {str(percent): round(100 * float(np.nanmean(values)), 2) for percent, values in hits.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candles", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--months", type=int, default=12)
    parser.add_argument("--end", type=moment, default=moment("2023-12-30"))
    parser.add_argument("--judge-from", type=moment, default=moment("2023-07-01"))
    options = parser.parse_args()
    folder = Folder(options.candles, False)
    last = options.end - 2 * MAX_HORIZON * HOUR.ms
    seen, unseen = folder.symbols[::2], folder.symbols[1::2]
    held_out = base_model.distil(train(folder, seen, options.judge_from, options.months), {})
    results = judge(folder, held_out, unseen, options.judge_from, last)
    shipped = train(folder, folder.symbols, options.end, options.months)
    quick = folder.symbols[:QUICK_COINS]
    first = options.end - (QUICK_DAYS + 3) * 24 * HOUR.ms
    card: dict[str, Any] = {
        "window": shipped.meta["window"],
        "coins": list(shipped.symbols),
        "market": "100 Binance spot pairs, hourly; the pairs that traded throughout",
        "judged": {"trained_on": len(seen), "up_to": options.judge_from, **results},
    }
    made = base_model.distil(shipped, {})
    card["quick"] = {"symbols": list(quick), "start": first, "end": first + QUICK_DAYS * 24 * HOUR.ms} | judge(
        folder, made, quick, first, first + QUICK_DAYS * 24 * HOUR.ms
    )
    final = base_model.distil(shipped, {"card": card, "verdict": "shipped", "figures": {}})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    print(write_checkpoint(options.out.parent, options.out.name, final.arrays(), final.document(), created=options.end))
    print(card["judged"], card["quick"])


if __name__ == "__main__":
    main()
