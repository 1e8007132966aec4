"""The page's sections on what happened: who served, what was trained and with what verdict, and forecasts beside what came."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from cryptod.forecast.scores import INTERVALS
from cryptod.market import HOUR, Float64, Int64
from cryptod.report.charts import Chart, bounds
from cryptod.report.markup import UNKNOWN, Cell, date, figure, keys, moment, name_of, percent, price, section, short_date, table
from cryptod.report.results import MODEL
from cryptod.report.skill import DAY, time_chart
from cryptod.report.summary import Summary, mean

WEEK: Final = 7 * DAY
LONGEST_TABLE: Final = 300
FAN_HOURS: Final = 10 * 24
FANS: Final = {95: "fan95", 80: "fan80", 50: "fan50"}


# ------------------------------------------------------------------------------------------------------------------ who served


def served_by(summary: Summary) -> str:
    """Shares over time, stacked."""
    shares = {name: np.asarray(share, np.float64) for name, share in summary.results.shares.items()}
    if not shares:
        return ""
    kinds = dict(zip(sorted(shares, key=lambda name: -mean(shares[name])), ("served", "r1", "r2", "r3", "r5", "r4"), strict=False))
    chart = time_chart(summary, "Who served", (0.0, 1.0))
    foot: Float64 | float = 0.0
    for name, kind in kinds.items():
        begins, share = summary.over_time(shares[name][:, None], np.ones((len(shares[name]), 1)), 24)
        top = np.minimum(foot + np.nan_to_num(share), 1.0)
        chart.band(_steps(begins, summary.results.end), np.repeat(np.broadcast_to(foot, top.shape), 2), np.repeat(top, 2), kind)
        foot = top
    chart.y_axis(lambda v: percent(v, 0), at=[0.0, 0.25, 0.5, 0.75, 1.0])
    key = keys([(kind, f"{'the model' if name == MODEL else name_of(name)} {percent(mean(shares[name]))}") for name, kind in kinds.items()])
    drawn = figure("Share of each in what was served", key + chart.svg(), "Mean of each day; the key gives the mean of the period.")
    reading = "A reference takes over where the model is not better, coin by coin or in part."
    return section("who", "Who served", reading, f'<div class="grid wide">{drawn}</div>')


def _steps(begins: Int64, end: int) -> Float64:
    """The left and the right end of each day."""
    return np.asarray(np.minimum(np.stack([begins, begins + DAY], axis=1).reshape(-1), max(end, int(begins[-1]) + HOUR.ms)), np.float64)


# ------------------------------------------------------------------------------------------------------------------ trainings


def trainings(summary: Summary) -> str:
    """Counts, charts of promotions and refusals, and the table of all full retrains and of whatever was refused."""
    found = sorted(summary.results.trainings, key=lambda each: int(each["time"]))
    if not found:
        return ""
    counts = Counter((str(each["kind"]), bool(each["promoted"])) for each in found)
    kinds = sorted({kind for kind, _ in counts})
    said = "; ".join(f"{kind}: {counts[kind, True]:,} promoted, {counts[kind, False]:,} refused" for kind in kinds)
    charts = [_verdicts(summary, kind, [each for each in found if str(each["kind"]) == kind]) for kind in kinds]
    body = keys([("good", "promoted"), ("bad", "refused")]) + f'<div class="grid wide">{"".join(charts)}</div>'
    telling = [each for each in found if str(each["kind"]) == "full" or not each["promoted"]][-LONGEST_TABLE:]
    body += _training_table(telling)
    left = len(found) - len(telling)
    if left:
        body += f'<p class="soft">The table lacks {left:,} verdicts: updates that were promoted, and the oldest where there are many.</p>'
    return section("trainings", "Training history", f"One verdict a batch. {said[:1].upper()}{said[1:]}.", body)


def _verdicts(summary: Summary, kind: str, found: Sequence[Mapping[str, Any]]) -> str:
    """Promoted up, refused down, week by week."""
    start = summary.results.start
    weeks = max(-(-(summary.results.end - start) // WEEK), 1)
    at = np.array([min(max((int(each["time"]) - start) // WEEK, 0), weeks - 1) for each in found])
    promoted = np.array([bool(each["promoted"]) for each in found])
    up, down = (np.bincount(at[chosen], minlength=weeks).astype(float) for chosen in (promoted, ~promoted))
    names = [date(start + week * WEEK) for week in range(weeks)]
    places = np.arange(weeks, dtype=float)
    chart = Chart(f"{kind}: verdicts by week", (-0.6, weeks - 0.4), bounds(up, -down, include=[0.0], pad=0.05), wide=True, height=170)
    chart.y_axis(lambda v: f"{abs(v):.0f}" if float(v).is_integer() else "")
    chart.bars(places, up, ["good"] * weeks, [f"week from {name}: {n:.0f} promoted" for name, n in zip(names, up, strict=True)])
    words = [f"week from {name}: {n:.0f} refused" for name, n in zip(names, down, strict=True)]
    chart.bars(places, np.where(down > 0, -down, np.nan), ["bad"] * weeks, words)
    chart.x_axis(places.tolist(), [short_date(start + week * WEEK) for week in range(weeks)])
    return figure(f"{kind[:1].upper()}{kind[1:]}: verdicts by week", chart.svg())


def _training_table(found: Sequence[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    rows = []
    for each in reversed(found):
        verdict = Cell("promoted", "good") if each["promoted"] else Cell("refused", "bad")
        row = [Cell(moment(int(each["time"]))), Cell(str(each["kind"]), "left"), Cell(str(each["batch"])), verdict]
        rows.append([*row, Cell(str(each.get("reason") or ""), "wrap"), *_evaluated(each.get("figures") or {})])
    heads = ["<time (UTC)", "<kind", "batch", "verdict", "<reason", "skill", "<against the best", "within 80 %"]
    return table(heads, rows, tall=True)


def _evaluated(figures: Mapping[str, Any]) -> list[Cell]:
    """Of the evaluation: the skill against the reference that did best, which that was, and how many outcomes the 80 % interval held."""
    known = {name: float(value) for name, value in figures.items() if isinstance(value, int | float)}
    references = {name.removeprefix("crps_"): value for name, value in known.items() if name.startswith("crps_") and name != "crps_model"}
    best = min(references, key=lambda name: references[name], default="")
    skill, held = known.get(f"skill_{best}", math.nan), known.get("coverage_80", math.nan) / 100
    return [Cell(percent(skill, 2, sign=True)), Cell(name_of(best) if best else UNKNOWN, "left"), Cell(percent(held))]


# ------------------------------------------------------------------------------------------------------------------ fans


def fans(summary: Summary) -> str:
    """Of each example coin the last days and the wildest ones: the fans of the forecasts, and the price that came."""
    charts = []
    for symbol, quantiles in summary.results.examples.items():
        closes = summary.results.closes[:, summary.results.symbols.index(symbol)]
        for label, rows in _spans(summary, closes):
            chart = _fan(summary, symbol, np.asarray(quantiles, np.float64), closes, rows)
            if chart is not None:
                charts.append(figure(f"{symbol}, {label}", chart.svg()))
    if not charts:
        return ""
    body = keys([("ink", "price"), ("fan", "50, 80 and 95 % intervals of a forecast, from its cutoff on")])
    body += f'<div class="grid wide">{"".join(charts)}</div>'
    reading = f"A fan every {max(summary.results.horizons)} hours, as it was issued, and the price that followed."
    return section("fans", "What was said, and what came", reading, body)


def _spans(summary: Summary, closes: Float64) -> list[tuple[str, slice]]:
    """The last days, and the days around the coin's largest daily move, unless they overlap."""
    length = max(FAN_HOURS // summary.step, 2)
    last = slice(max(len(closes) - length, 0), len(closes))
    if len(closes) <= 2 * length:
        return [("the last days", last)]
    day = max(24 // summary.step, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        moves = np.abs(np.log(closes[day:] / closes[:-day]))
    if not np.isfinite(moves).any():
        return [("the last days", last)]
    at = int(np.argmax(np.where(np.isfinite(moves), moves, -1.0)))
    first = min(max(at + day // 2 - length // 2, 0), len(closes) - length)
    if first + length > last.start:
        return [("the last days, its wildest among them", last)]
    return [("the last days", last), ("its wildest days", slice(first, first + length))]


def _fan(summary: Summary, symbol: str, quantiles: Float64, closes: Float64, rows: slice) -> Chart | None:
    cutoffs, horizons = summary.results.cutoffs[rows].astype(float), np.array(summary.results.horizons, np.float64)
    shown, said = closes[rows], quantiles[rows]
    reach = float(horizons[-1]) * HOUR.ms
    known = np.isfinite(said).all(axis=(1, 2)) & np.isfinite(shown)
    origins = np.flatnonzero(known & ((cutoffs - cutoffs[:1]) % reach == 0))
    if len(origins) == 0:
        return None
    edges = np.exp(said[origins][:, :, [0, -1]]) * shown[origins, None, None]
    left, right = float(cutoffs[0]), float(max(cutoffs[-1], cutoffs[origins[-1]] + reach))
    chart = Chart(f"{symbol}: forecasts and price", (left, right), bounds(shown, edges, pad=0.04), wide=True).y_axis(price)
    for i in origins:
        times = cutoffs[i] + np.concatenate([[0.0], horizons]) * HOUR.ms
        for nominal, kind in FANS.items():
            low, high = (shown[i] * np.exp(np.concatenate([[0.0], said[i][:, column]])) for column in INTERVALS[nominal])
            chart.band(times, low, high, kind)
    chart.line(cutoffs, shown, "ink", symbol)
    days = [float(day) for day in range(-(-int(left) // DAY) * DAY, int(right) + 1, DAY)] or [left]
    return chart.x_axis(days, [short_date(day) for day in days])
