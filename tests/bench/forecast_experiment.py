"""How good the forecasts are on real candles: a walk forward with the engine's own code. Not a test; run it by hand.

    python tests/bench/forecast_experiment.py --candles DIR [--start 2022-07-01] [--end 2023-04-01] [--fold-days 28] [--every H] [--json]

Every fold trains all batches on the six months before it (`engine.train`, as the daemon orders it) and scores the frozen models on the
days that follow, at hourly origins; with ``--every 24`` an incremental update comes every 24 h, as the daemon would have it. Beside the
model stand the references that are issued with it, and `plain_log_har`, the yardstick as it was first published: Parkinson variance as it
is, not winsorised, no floor. Prints CRPS x 10^4 by horizon, skill and Diebold-Mariano t, coverage pooled and by coin.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cryptod.forecast import scores
from cryptod.forecast.baselines import REFERENCES, residual_quantiles
from cryptod.forecast.features import WARM_HOURS, FeatureState, scan
from cryptod.forecast.model import Model
from cryptod.forecast.scores import SCORED_HORIZONS
from cryptod.forecast.season import hour_of_week
from cryptod.market import HIGH, HOUR, LOW, Panel
from cryptod.store.checkpoints import read_checkpoint
from cryptod.training import engine
from cryptod.training.window import MarketSums
from cryptod.worker.messages import Batch, BatchDone, BatchFailed, Report, TrainOrder

ODD = {"LUNA", "FTT", "CVC", "USDC", "UST", "BTCST", "SRM", "COCOS", "BUSD", "OP", "APT", "ARB", "SUI", "PEPE"}
"""Coins that did not trade throughout; the candles' README says why."""


class Folder:
    """Candle files as a source of panels."""

    def __init__(self, folder: Path, every_coin: bool) -> None:
        frames = {path.name[:-7].replace("-", "/"): pd.read_csv(path) for path in sorted(folder.glob("*.csv.gz"))}
        self.symbols = tuple(symbol for symbol in frames if every_coin or symbol.split("/")[0] not in ODD)
        self.start = int(min(frame["ts"].min() for frame in frames.values()))
        hours = int(max(frame["ts"].max() for frame in frames.values()) - self.start) // HOUR.ms + 1
        self.values = np.full((hours, len(self.symbols), 5), np.nan)
        self.status = np.zeros((hours, len(self.symbols)), np.uint8)
        for column, symbol in enumerate(self.symbols):
            frame = frames[symbol]
            rows = ((frame["ts"] - self.start) // HOUR.ms).to_numpy()
            self.values[rows, column] = frame[["open", "high", "low", "close", "volume"]].to_numpy()
            self.status[rows, column] = 1
        self.index = {symbol: column for column, symbol in enumerate(self.symbols)}

    def panel(self, symbols: Sequence[str], start: int, end: int) -> Panel:
        columns = [self.index[symbol] for symbol in symbols]
        first, hours = (start - self.start) // HOUR.ms, (end - start) // HOUR.ms
        values, status = np.full((hours, len(columns), 5), np.nan), np.zeros((hours, len(columns)), np.uint8)
        rows = slice(max(first, 0), min(first + hours, len(self.values)))
        values[rows.start - first : rows.stop - first] = self.values[rows][:, columns]
        status[rows.start - first : rows.stop - first] = self.status[rows][:, columns]
        return Panel(tuple(symbols), start, values, status)


def train(folder: Folder, kind: str, cutoff: int, champions: dict[str, str], root: str, job: int, quiet: bool) -> list[Model]:
    """The models of one training order, promoted or not; batches of 25."""
    order = TrainOrder(
        job=job, kind=kind, cutoff=cutoff, candles="", checkpoints=root,
        batches=tuple(Batch(number=i // 25 + 1, symbols=folder.symbols[i : i + 25]) for i in range(0, len(folder.symbols), 25)),
        universe=folder.symbols, champions=champions, timeframe="1h", months_back=6, epochs=50 if kind == "full" else 5, threads=1,
        seed=job,
    )  # fmt: skip
    models: list[Model] = []

    def report(message: Report) -> None:
        if isinstance(message, BatchDone):
            models.append(Model.from_checkpoint(message.checkpoint, *read_checkpoint(Path(root), message.checkpoint)))
            if not quiet:
                print(f"    batch {message.batch} {message.seconds:.1f} s, promote {message.promote}: {message.reason}", flush=True)
        elif isinstance(message, BatchFailed):
            print(f"    batch {message.batch} FAILED: {message.error}")

    engine.train(order, folder, report)
    return models


class Fold:
    """Losses and hits of every forecaster over one fold: name -> CRPS [rows, coins, 6]."""

    def __init__(self) -> None:
        self.losses: dict[str, list[np.ndarray]] = {}
        self.hits: dict[int, list[np.ndarray]] = {}
        self.spread: list[np.ndarray] = []


def score(folder: Folder, models: list[Model], start: int, first: int, last: int) -> Fold:
    """Score frozen models at the cutoffs in [first, last), with features streamed on from the window's start."""
    columns = np.array(SCORED_HORIZONS) - 1
    hours = (last - start) // HOUR.ms
    sums = MarketSums(hours)
    recorded = []
    for model in models:
        panel = folder.panel(model.symbols, start, last)
        state, seen = FeatureState.empty(len(model.symbols)), []
        for part, rows in scan(state, panel, model.season):
            sums.add(part, rows.own, rows.live & (rows.count >= WARM_HOURS) & ~model.pegged)
            seen.append(rows.own)
        recorded.append(np.concatenate(seen)[(first - start) // HOUR.ms - 1 : -1])
    market = sums.means()[(first - start) // HOUR.ms - 1 : -1]
    cutoffs = np.arange(first, last, HOUR.ms)
    week = hour_of_week(cutoffs)
    fold = Fold()
    pieces: dict[str, list[np.ndarray]] = {}
    for model, own in zip(models, recorded, strict=True):
        panel = folder.panel(model.symbols, first - HOUR.ms, last + 24 * HOUR.ms)
        close = np.log(pd.DataFrame(panel.values[:, :, 3]).ffill().to_numpy())
        outcome = np.stack([close[h : h + len(cutoffs)] - close[: len(cutoffs)] for h in SCORED_HORIZONS], axis=-1)
        found: dict[str, list[np.ndarray]] = {}
        for i in range(0, len(cutoffs), 48):
            part = slice(i, i + 48)
            coins = np.arange(len(model.symbols))
            served = model.quantiles(own[part], market[part], week[part], coins)
            for name, quantiles in (("served", served.served), *served.said.items()):
                found.setdefault(name, []).append(scores.crps(quantiles[..., columns, :], outcome[part]))
            for percent in (50, 80, 90, 95):
                found.setdefault(f"hit_{percent}", []).append(scores.covered(served.served[..., columns, :], outcome[part], percent))
        for name, parts in found.items():
            pieces.setdefault(name, []).append(np.concatenate(parts))
        pieces.setdefault("plain_log_har", []).append(plain_log_har(folder, model, models, start, first, last, outcome))
    for name, parts in pieces.items():
        fold.losses[name] = [np.concatenate(parts, axis=1)]
    return fold


_PLAIN: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}


def plain_log_har(folder: Folder, model: Model, models: list[Model], start: int, first: int, last: int, outcome: np.ndarray) -> np.ndarray:
    """CRPS [rows, n, 6] of the published reference: log-HAR x residual quantiles per coin."""
    split, train_end = (first - start) // HOUR.ms, model.cutoff
    if start not in _PLAIN:
        _PLAIN.clear()
        panel = folder.panel([s for m in models for s in m.symbols], start, last)
        high_low = np.log(panel.values[:, :, HIGH] / panel.values[:, :, LOW]) ** 2 / (4 * np.log(2))
        variance = np.nan_to_num(high_low) / model.season.variance[hour_of_week(panel.open_times)][:, None]
        levels = np.stack([np.log(pd.DataFrame(variance).ewm(halflife=k).mean().to_numpy() + 1e-9) for k in (2, 12, 48, 168, 672)], axis=-1)
        close = np.log(pd.DataFrame(panel.values[:, :, 3]).ffill().bfill().to_numpy())
        _PLAIN[start] = (variance, levels, close)
    variance, levels, close = _PLAIN[start]
    place = {s: i for i, s in enumerate(s for m in models for s in m.symbols)}
    mine = [place[s] for s in model.symbols]
    market = levels.mean(axis=1)
    terms = np.concatenate(
        [levels[:, mine], np.broadcast_to(market[:, None], levels[:, mine].shape), np.ones((len(levels), len(mine), 1))], axis=-1
    )
    total = np.concatenate([np.zeros((1, len(mine))), np.cumsum(variance[:, mine], axis=0)])
    end = (train_end - start) // HOUR.ms
    ahead = np.sqrt(model.season.ahead())
    week = hour_of_week(start + HOUR.ms * np.arange(1, len(levels) + 1))
    rows = np.arange(WARM_HOURS, end - 24)
    losses = np.empty(outcome.shape)
    for column, h in enumerate(SCORED_HORIZONS):
        target = np.log((total[rows + 1 + h] - total[rows + 1]) / h + 1e-10)
        x = terms[rows[::3]].reshape(-1, terms.shape[-1])
        weights = np.linalg.lstsq(x, target[::3].reshape(-1), rcond=None)[0]
        scale = np.exp(0.5 * (terms @ weights)) * ahead[week, h - 1][:, None]
        residual = (close[rows + h] - close[rows])[:, mine] / scale[rows]
        table = np.stack([residual_quantiles(np.repeat(residual[:, [i]].astype(np.float32), 24, axis=1))[0] for i in range(len(mine))])
        test = slice(split - 1, split - 1 + len(outcome))
        losses[..., column] = scores.crps(scale[test][..., None] * table, outcome[..., column])
    return losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candles", default=os.environ.get("CRYPTOD_CANDLES"), required="CRYPTOD_CANDLES" not in os.environ)
    parser.add_argument("--start", default="2022-07-01")
    parser.add_argument("--end", default="2023-04-01")
    parser.add_argument("--fold-days", type=int, default=28)
    parser.add_argument("--skip", type=int, default=1, help="take every so manyth fold")
    parser.add_argument("--every", type=int, default=0, help="hours between incremental updates; 0: none")
    parser.add_argument("--all-coins", action="store_true", help="also those that did not trade throughout")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = Folder(Path(options.candles), options.all_coins)
    first = int(pd.Timestamp(options.start, tz="UTC").timestamp() * 1000)
    last = int(pd.Timestamp(options.end, tz="UTC").timestamp() * 1000)
    length = options.fold_days * 24 * HOUR.ms
    folds, seconds = [], 0.0
    for number, begin in enumerate(range(first, last - length + 1, length)):
        if number % options.skip:
            continue
        with tempfile.TemporaryDirectory() as root:
            began = time.monotonic()
            models = train(folder, "full", begin, {}, root, number + 1, not options.verbose)
            seconds += time.monotonic() - began
            step = options.every * HOUR.ms or length
            parts = []
            for at in range(begin, begin + length, step):
                if at > begin:
                    champions = {symbol: model.name for model in models for symbol in model.symbols}
                    models = train(folder, "incremental", at, champions, root, number * 1000 + at // HOUR.ms % 1000, True)
                start = at - 6 * engine.MONTH_HOURS * HOUR.ms
                parts.append(score(folder, models, start, at, min(at + step, begin + length)))
        merged = {name: np.concatenate([part.losses[name][0] for part in parts]) for name in parts[0].losses}
        folds.append(merged)
        label = pd.Timestamp(begin, unit="ms").date()
        print(f"{label}: " + ", ".join(f"{n} {pool(merged[n]) * 1e4:.3f}" for n in ("served", "model", "log_har", "plain_log_har")) +
              f", skill {skill(merged, 'served', 'plain_log_har'):+.2%}", flush=True)  # fmt: skip
    everything = {name: np.concatenate([fold[name] for fold in folds]) for name in folds[0]} if not options.all_coins else {}
    summary = report(everything or folds[0], folds)
    summary["seconds_per_training"] = seconds / len(folds)
    if options.json:
        print(json.dumps(summary))


def pool(losses: np.ndarray) -> float:
    return float(np.nanmean(losses / np.sqrt(np.array(SCORED_HORIZONS))))


def skill(losses: dict[str, np.ndarray], name: str, against: str) -> float:
    return 1.0 - pool(losses[name]) / pool(losses[against])


def report(losses: dict[str, np.ndarray], folds: list[dict[str, np.ndarray]]) -> dict[str, Any]:
    summary: dict[str, Any] = {}
    print(
        f"\n{'CRPS x 10^4':16s}"
        + "".join(f"{h:>8d} h" for h in SCORED_HORIZONS)
        + f"{'pooled':>10s}{'skill':>9s}{'t':>7s}{'folds won':>11s}"
    )
    for name in ("served", "model", "plain_log_har", *REFERENCES[::-1]):
        means = np.nanmean(losses[name], axis=(0, 1)) * 1e4
        against = (losses[name] - losses["served"]) / np.sqrt(np.array(SCORED_HORIZONS))
        _, t = scores.loss_test(np.nanmean(against, axis=(1, 2)))
        gain = skill(losses, "served", name)
        won = np.mean([skill(fold, "served", name) > 0 for fold in folds])
        print(
            f"{name:16s}"
            + "".join(f"{value:10.2f}" for value in means)
            + f"{pool(losses[name]) * 1e4:10.3f}{gain:+9.2%}{t:7.1f}{won:11.0%}"
        )
        summary[name] = {"crps": [round(float(v), 3) for v in means], "served_skill": round(gain, 5), "t": round(t, 2), "folds_won": won}
    print("\ncoverage, %" + "".join(f"{h:>8d} h" for h in SCORED_HORIZONS) + "    sd and worst of the coins")
    for percent in (50, 80, 90, 95):
        hits = losses[f"hit_{percent}"]
        coins = hits.mean(axis=(0, 2)) * 100
        print(f"{percent:11d}" + "".join(f"{value:10.1f}" for value in hits.mean(axis=(0, 1)) * 100)
              + f"{coins.std():10.1f}{coins[np.abs(coins - percent).argmax()]:8.1f}")  # fmt: skip
        summary[f"coverage_{percent}"] = [round(float(v), 2) for v in hits.mean(axis=(0, 1)) * 100]
    return summary


if __name__ == "__main__":
    main()
