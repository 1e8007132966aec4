"""An independent judge of forecasts: reads what was issued and what then happened, and makes the references itself.

    python -m tests.bench.judge FORECASTS.csv.gz --candles DIR [--start DATE] [--end DATE] [--json]

Knows the format of ``cryptod backtest --out``, candle files and the definitions of the scores; numpy and pandas only. Must not know
the daemon's code. A forecast is scored where its outcome and every reference are known, all of them on the same (coin, hour, horizon).

CRPS is 2 x the mean pinball loss over the nine levels; *pooled*: each horizon's mean divided by sqrt(h), mean over the horizons. Skill is
1 - CRPS / CRPS of the reference. The test is Diebold and Mariano's (1995) on the hourly mean over coins, with the variance of Newey and
West (1987) at 48 hours of lags; intervals are from a moving-block bootstrap (Kuensch 1989) with blocks of a week.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.bench import references
from tests.bench.references import HOUR_MS, LEVELS, BadInput, Bools, Candles, Floats, Ints

HORIZONS = (1, 2, 4, 8, 12, 24)
QUANTILES = tuple(f"q{level:g}" for level in LEVELS)
COLUMNS = ("symbol", "cutoff", "horizon", "model", *QUANTILES, "p_up")
INTERVALS = {50: (3, 5), 80: (2, 6), 90: (1, 7), 95: (0, 8)}
BLOCK_HOURS = 28 * 24
LAG_HOURS = 48
DRAWS = 1000
CHUNK = 500_000


@dataclass(frozen=True, slots=True)
class Forecasts:
    """What was issued, on a grid. ``quantiles``: float32 [T, N, H, 9], NaN where nothing was issued or what was issued is not finite.

    ``cutoffs``: int64 [T], evenly spaced (by the step that the file was made with), also where no coin was answered. ``counts``: what was
    found wrong in the file's rows, at whatever horizon.
    """

    symbols: tuple[str, ...]
    cutoffs: Ints
    horizons: tuple[int, ...]
    quantiles: Floats
    counts: Mapping[str, int]


def read_forecasts(path: Path, start: int | None = None, end: int | None = None) -> Forecasts:
    """The rows of ``path`` with cutoffs in [start, end) (UTC ms). Where they are given, the hours between them are those to be answered."""
    symbols: dict[str, int] = {}
    counts = dict.fromkeys(("rows", "crossed", "not_finite", "contradicted", "repeated"), 0)
    parts = []
    try:
        with pd.read_csv(path, chunksize=CHUNK, dtype={"symbol": "category", "model": "category"}) as frames:
            for frame in frames:
                lacking = [name for name in COLUMNS if name not in frame.columns]
                if lacking:
                    raise BadInput(f"{path} has no column {', '.join(lacking)}; it must be what `cryptod backtest --out` writes")
                cutoffs = frame["cutoff"].to_numpy(np.int64)
                within = (cutoffs >= (start or 0)) & (cutoffs < (end or np.iinfo(np.int64).max))
                parts.append(_part(frame if within.all() else frame[within], symbols, counts))
    except (OSError, EOFError, pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path} cannot be read as forecasts: {error}") from error
    if sum(len(part[0]) for part in parts) == 0:
        raise BadInput(f"{path} has no forecasts of the horizons {HORIZONS} in the period")
    place, cutoff, horizon, q = (np.concatenate(column) for column in zip(*parts, strict=True))
    if (cutoff % HOUR_MS).any():
        raise BadInput(f"{path} has a cutoff that is not on the hour: {cutoff[cutoff % HOUR_MS != 0][0]}")
    grid = _grid(cutoff, start, end)
    horizons = tuple(h for h in HORIZONS if (horizon == h).any())
    cube = np.full((len(grid), len(symbols), len(horizons), len(LEVELS)), np.nan, np.float32)
    row, column = np.searchsorted(grid, cutoff), np.searchsorted(np.array(horizons), horizon)
    cells = (row * len(symbols) + place) * len(horizons) + column
    counts["repeated"] = len(cells) - len(np.unique(cells))
    cube[row[::-1], place[::-1], column[::-1]] = q[::-1]  # of two rows for one cell the first counts: it was issued first
    return Forecasts(tuple(symbols), grid, horizons, cube, counts)


def _part(frame: pd.DataFrame, symbols: dict[str, int], counts: dict[str, int]) -> tuple[Ints, Ints, Ints, Floats]:
    """Place of the symbol, cutoff, horizon and quantiles of the rows that are scored; symbols and faults of all rows are added up."""
    codes = frame["symbol"].cat
    places = np.array([symbols.setdefault(name, len(symbols)) for name in codes.categories], np.int64)[codes.codes.to_numpy()]
    horizon = frame["horizon"].to_numpy(np.int64)
    q, p_up = frame.loc[:, list(QUANTILES)].to_numpy(np.float64), frame["p_up"].to_numpy(np.float64)
    finite = np.isfinite(q).all(axis=1) & np.isfinite(p_up)
    counts["rows"] += len(q)
    counts["not_finite"] += int((~finite).sum())
    counts["crossed"] += int((np.diff(q[finite], axis=1) < 0).any(axis=1).sum())
    counts["contradicted"] += int(contradicted(q[finite], p_up[finite]).sum())
    scored = np.isin(horizon, HORIZONS)
    wanted = np.where(finite[:, None], q, np.nan)[scored].astype(np.float32)
    return places[scored], frame["cutoff"].to_numpy(np.int64)[scored], horizon[scored], wanted


def _grid(cutoffs: Ints, start: int | None, end: int | None) -> Ints:
    """All cutoffs that the file should have: from the first to the last, or within [start, end), at the step that its own are apart."""
    known = np.unique(cutoffs)
    step = int(np.gcd.reduce(np.diff(known))) if len(known) > 1 else HOUR_MS
    first = known[0] - (0 if start is None else (known[0] - start) // step * step)
    last = known[-1] + (0 if end is None else (end - 1 - known[-1]) // step * step)
    return np.arange(first, last + 1, step, dtype=np.int64)


def contradicted(q: Floats, p_up: Floats) -> Bools:
    """bool [rows]: P(up) is no probability, or none that the quantiles [rows, 9] allow: it lies between the levels around a return of 0."""
    above = 1.0 - np.concatenate([[0.0], LEVELS])[(q < 0).sum(axis=1)]  # all that is below 0 was not up
    below = 1.0 - np.concatenate([LEVELS, [1.0]])[(q <= 0).sum(axis=1)]
    slack = 1e-3  # the file's own rounding
    return np.asarray((p_up > above + slack) | (p_up < below - slack) | (p_up < 0) | (p_up > 1))


# ------------------------------------------------------------------------------------------------------------------- scores


def crps(quantiles: Floats, outcomes: Floats) -> Floats:
    """float32 [...]: 2 x mean pinball loss of quantiles [..., 9] for outcomes [...], level by level in little memory."""
    total = np.zeros(outcomes.shape)
    for column, level in enumerate(LEVELS):
        error = outcomes - quantiles[..., column]
        total += np.maximum(level * error, (level - 1.0) * error)
    return np.asarray((2.0 / len(LEVELS)) * total, np.float32)


def diebold_mariano(difference: Floats, lags: int) -> float:
    """t value of the mean of a series of loss differences [T] on an even grid, NaN where one is unknown; 0 if it is too short."""
    known = np.isfinite(difference)
    count = int(known.sum())
    if count < 24:
        return 0.0
    mean = float(difference[known].mean())
    centred = np.where(known, difference - mean, 0.0)
    lags = min(lags, count // 4)
    variance = float(centred @ centred) + 2.0 * sum((1 - k / (lags + 1)) * float(centred[k:] @ centred[:-k]) for k in range(1, lags + 1))
    return mean / (float(np.sqrt(variance)) / count) if variance > 0 else 0.0


def skill_interval(loss: Floats, reference: Floats, block: int, draws: int = DRAWS) -> tuple[float, float] | None:
    """95 % interval of 1 - mean(loss) / mean(reference) over series [T]; None where there are fewer than four blocks."""
    known = np.isfinite(loss) & np.isfinite(reference)
    loss, reference = loss[known], reference[known]
    blocks = len(loss) // max(block, 1)
    if blocks < 4:
        return None
    sums = [np.convolve(series, np.ones(block), "valid") for series in (loss, reference)]
    drawn = np.random.default_rng(1).integers(0, len(sums[0]), (draws, blocks))
    skills = 1.0 - sums[0][drawn].sum(axis=1) / sums[1][drawn].sum(axis=1)
    low, high = np.quantile(skills, (0.025, 0.975))
    return float(low), float(high)


def judge(forecasts: Forecasts, candles: Candles, scales: Mapping[str, references.Scale] = references.REFERENCES) -> dict[str, Any]:
    """Everything that is to be said about the forecasts, as plain numbers; see `report` for their reading. Changes nothing."""
    cutoffs, horizons = forecasts.cutoffs, forecasts.horizons
    lacking = sorted(set(forecasts.symbols) - set(candles.symbols))
    if lacking:
        raise BadInput(f"the folder has no candles of {', '.join(lacking[:5])}; point to the one that was forecast from")
    common = candles.ordinary(int(cutoffs[0]), int(cutoffs[-1]))
    if not common.any():
        raise BadInput("no coin in the folder traded throughout the period and the year before it: there is no market to compare with")
    coins = np.array([candles.symbols.index(symbol) for symbol in forecasts.symbols])
    ordinary = common[coins]
    rows = (cutoffs - candles.start) // HOUR_MS - 1
    inside = (rows >= 0) & (rows < len(candles.values))
    outcomes = np.full((len(cutoffs), len(coins), len(horizons)), np.nan)
    outcomes[inside] = candles.outcomes(rows[inside], horizons)[:, coins]
    losses = {"served": crps(forecasts.quantiles, outcomes)}
    losses |= {name: np.full(outcomes.shape, np.nan, np.float32) for name in scales}
    within = np.flatnonzero(inside)
    for place, window in references.windows(candles, cutoffs[within], horizons, common):
        for name, scale in scales.items():
            losses[name][within[place]] = crps(references.forecast(scale(window), window)[:, coins], outcomes[within[place]])
    known = np.logical_and.reduce([np.isfinite(loss) for loss in losses.values()])
    losses = {name: np.where(known, loss, np.float32(np.nan)) for name, loss in losses.items()}

    due = np.zeros(outcomes.shape[:2], bool)
    due[inside] = candles.traded[rows[inside]][:, coins]
    answered = np.isfinite(forecasts.quantiles).all(axis=(2, 3))
    step = int(cutoffs[1] - cutoffs[0]) // HOUR_MS if len(cutoffs) > 1 else 1
    found: dict[str, Any] = {
        "period": [int(cutoffs[0]), int(cutoffs[-1])],
        "origins": len(cutoffs),
        "step_hours": step,
        "horizons": list(horizons),
        "coins": len(coins),
        "ordinary": int(ordinary.sum()),
        "ordinary_not_in_file": [s for s, is_common in zip(candles.symbols, common) if is_common and s not in forecasts.symbols],
        "answered": _share(answered & due, due),
        "answered_ordinary": _share((answered & due)[:, ordinary], due[:, ordinary]),
        "scored": int(known.sum()),
        **forecasts.counts,
    }
    if not ordinary.any():
        raise BadInput("none of the file's coins traded throughout the period and the year before it: nothing to judge by")
    found["forecasters"] = _against({name: loss[:, ordinary] for name, loss in losses.items()}, horizons, step, cutoffs)
    if not ordinary.all():
        others = {name: loss[:, ~ordinary] for name, loss in losses.items()}
        found["others"] = _against(others, horizons, step, cutoffs) if np.isfinite(others["served"]).any() else {}
    names = np.array(forecasts.symbols)
    found["coverage"] = {}
    for percent, (low, high) in INTERVALS.items():
        hit = (forecasts.quantiles[..., low] <= outcomes) & (outcomes <= forecasts.quantiles[..., high])
        hits = np.where(known, hit, np.float32(np.nan))
        by_coin = _mean(hits, (0, 2))
        found["coverage"][str(percent)] = {
            "by_horizon": [float(v) for v in _mean(hits[:, ordinary], (0, 1))],
            "by_coin": dict(zip(names.tolist(), [float(v) for v in by_coin])),
            "worst_ordinary": _worst(names[ordinary], by_coin[ordinary], percent / 100),
            "sd_over_ordinary": float(np.nanstd(by_coin[ordinary])),
        }
    return found


def _share(part: Bools, whole: Bools) -> float:
    return float(part.sum() / max(int(whole.sum()), 1))


def _mean(x: Floats, axis: tuple[int, ...]) -> Floats:
    """Mean of the known values in double precision, NaN where there are none."""
    count = np.isfinite(x).sum(axis=axis)
    total = np.nansum(x, axis=axis, dtype=np.float64)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _worst(names: Any, coverage: Floats, nominal: float) -> dict[str, Any]:
    known = np.flatnonzero(np.isfinite(coverage))
    if len(known) == 0:
        return {}
    at = known[np.abs(coverage[known] - nominal).argmax()]
    return {"symbol": str(names[at]), "coverage": float(coverage[at]), "off": float(coverage[at] - nominal)}


def _against(losses: Mapping[str, Floats], horizons: tuple[int, ...], step: int, cutoffs: Ints) -> dict[str, Any]:
    """Each forecaster's CRPS and what is gained on it by ``served``; losses [T, N, H] known on the same cells."""
    root = np.sqrt(np.array(horizons))
    means = {name: _mean(loss, (0, 1)) for name, loss in losses.items()}
    series = {name: _mean(loss / root, (1, 2)) for name, loss in losses.items()}
    blocks = (cutoffs - cutoffs[0]) // (BLOCK_HOURS * HOUR_MS)
    full = [b for b in np.unique(blocks) if (blocks == b).sum() * step >= BLOCK_HOURS // 2] or [0]
    found: dict[str, Any] = {}
    for name in losses:
        found[name] = {"crps": [float(v) for v in means[name]], "pooled": float(np.mean(means[name] / root))}
    for name in losses:
        if name == "served":
            continue
        gains = [1 - float(np.nanmean(series["served"][blocks == b]) / np.nanmean(series[name][blocks == b]))
                 for b in full if np.isfinite(series["served"][blocks == b]).any()]  # fmt: skip
        found[name] |= {
            "skill": 1 - found["served"]["pooled"] / found[name]["pooled"],
            "skill_by_horizon": [float(v) for v in 1 - means["served"] / means[name]],
            "interval": skill_interval(series["served"], series[name], 168 // step),
            "t": diebold_mariano(series[name] - series["served"], LAG_HOURS // step),
            "skill_by_block": gains,
            "blocks_won": float(np.mean(np.array(gains) > 0)),
        }
    return found


# ------------------------------------------------------------------------------------------------------------------- for people


def report(found: Mapping[str, Any]) -> str:
    """The judgement as a page of text."""
    first, last = (pd.Timestamp(at, unit="ms").strftime("%Y-%m-%d %H:%M") for at in found["period"])
    heads = "".join(f"{horizon:>7d} h" for horizon in found["horizons"])
    lines = [
        f"{found['origins']:,} origins every {found['step_hours']} h, {first} to {last} UTC; {found['coins']} coins, "
        f"{found['ordinary']} of which traded throughout: the figures are theirs",
        "",
        f"{'CRPS x 10^4':14s}{heads}{'pooled':>9s}{'skill of served':>26s}{'t':>6s}{'blocks won':>12s}",
    ]
    for name, each in found["forecasters"].items():
        line = f"{name:14s}" + "".join(f"{1e4 * v:9.2f}" for v in each["crps"]) + f"{1e4 * each['pooled']:9.3f}"
        if name != "served":
            between = " ({:+.2%}..{:+.2%})".format(*each["interval"]) if each["interval"] else ""
            skill = f"{each['skill']:+.2%}{between}"
            line += f"{skill:>26s}{each['t']:6.1f}{each['blocks_won']:12.0%}"
        lines.append(line)
    lines += ["", f"{'coverage, %':14s}{heads}   worst ordinary coin"]
    for percent, each in found["coverage"].items():
        worst = each["worst_ordinary"]
        line = f"{percent:>11s}   " + "".join(f"{100 * v:9.1f}" for v in each["by_horizon"])
        lines.append(
            line + (f"   {worst['symbol']} {100 * worst['coverage']:.1f}, sd {100 * each['sd_over_ordinary']:.1f}" if worst else "")
        )
    lines += [
        "",
        f"answered: {found['answered']:.3%} of (coin, hour), of the ordinary coins {found['answered_ordinary']:.3%}",
        f"{found['rows']:,} rows: {found['crossed']} crossed, {found['not_finite']} not finite, {found['contradicted']} whose P(up) "
        f"contradicts the quantiles, {found['repeated']} repeated",
    ]
    if found["ordinary_not_in_file"]:
        lines.append(f"not in the file: {', '.join(found['ordinary_not_in_file'])}")
    if found.get("others"):
        gains = ", ".join(f"{name} {each['skill']:+.2%}" for name, each in found["others"].items() if name != "served")
        lines.append(f"skill on the {found['coins'] - found['ordinary']} other coins: {gains}")
    return "\n".join(lines)


def day(text: str) -> int:
    """UTC ms of a date."""
    try:
        return int(pd.Timestamp(text, tz="UTC").timestamp() * 1000)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a date; dates look like 2023-04-01") from error


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("forecasts", type=Path)
    parser.add_argument("--candles", type=Path, required=True, metavar="DIR")
    parser.add_argument("--start", type=day, help="the first day that had to be answered (default: the file's own)")
    parser.add_argument("--end", type=day, help="the day after the last that had to be answered")
    parser.add_argument("--json", action="store_true", help="the whole judgement as JSON in place of the page")
    options = parser.parse_args(arguments)
    try:
        found = judge(read_forecasts(options.forecasts, options.start, options.end), references.read_candles(options.candles))
    except BadInput as error:
        print(f"judge: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found) if options.json else report(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
