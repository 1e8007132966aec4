"""The page's sections on calibration and sharpness: coverage, calibration curves, PIT histograms, widths."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import numpy as np

from cryptod.forecast.scores import INTERVALS
from cryptod.market import QUANTILE_LEVELS, Float64
from cryptod.report.charts import Chart, bounds, ticks
from cryptod.report.markup import UNKNOWN, Cell, figure, fixed, keys, percent, section, table
from cryptod.report.skill import DAY, time_chart
from cryptod.report.summary import Summary, mean

TOLERANCE: Final = 0.01
"""Coverage within a point of nominal is what the forecasts are meant to have, pooled at each horizon."""
EDGES: Final = (0.0, *QUANTILE_LEVELS, 1.0)
LINES: Final = ("served", "r1", "r2", "r3", "r5", "r4")


def coverage(summary: Summary) -> str:
    """The table of coverage, the curves of every horizon, and coverage over time."""
    rows = []
    for nominal in sorted(summary.results.hits):
        row = [Cell(f"{nominal} %")]
        for observed in summary.coverage(nominal)[summary.scored]:
            kind = "near" if abs(observed - nominal / 100) <= TOLERANCE else "far"
            row.append(Cell(fixed(100 * observed, 1), kind if np.isfinite(observed) else ""))
        coins = summary.coverage_of_coins(nominal)
        rows.append([*row, Cell(furthest(summary, coins, nominal / 100)), Cell(_spread(coins))])
    heads = ["interval", *(f"{summary.results.horizons[c]} h" for c in summary.scored), "coin furthest off", "sd over coins"]
    body = table(heads, rows) + '<div class="grid wide">' + _curves(summary) + _weeks(summary) + "</div>"
    reading = "How often the outcome lay within each interval, in percent. Green: within a point of what the interval promises."
    return section("calibration", "Calibration", reading, body)


def furthest(summary: Summary, coins: Float64, nominal: float) -> str:
    """The coin whose coverage is furthest off, and its coverage in percent."""
    known = np.flatnonzero(np.isfinite(coins))
    if len(known) == 0:
        return UNKNOWN
    at = known[np.abs(coins[known] - nominal).argmax()]
    return f"{summary.results.symbols[at]} {fixed(100 * coins[at], 1)}"


def _spread(coins: Float64) -> str:
    known = coins[np.isfinite(coins)]
    return fixed(100 * float(known.std()), 1) if len(known) > 1 else UNKNOWN


def _curves(summary: Summary) -> str:
    """The share of outcomes below each quantile less the quantile's level, a line per horizon."""
    columns = [h for h in summary.scored if summary.pit[h].sum() > 0][: len(LINES)]
    levels = np.array(QUANTILE_LEVELS)
    misses = [summary.calibration_curve(h) - levels for h in columns]
    chart = Chart("Observed less nominal share below each quantile", (0.0, 1.0), bounds(*misses, include=[-0.02, 0.02]), wide=True)
    chart.band([0.0, 1.0], [-TOLERANCE] * 2, [TOLERANCE] * 2, "within").y_axis(lambda v: fixed(100 * v, 1, sign=True))
    for h, miss, kind in zip(columns, misses, LINES, strict=False):
        chart.line([0.0, *levels, 1.0], [0.0, *miss, 0.0], kind, f"{summary.results.horizons[h]} h").dots(levels, miss, kind, radius=1.8)
    chart.x_axis([0.05, 0.25, 0.5, 0.75, 0.95], ["5 %", "25 %", "50 %", "75 %", "95 %"])
    key = keys([(kind, f"{summary.results.horizons[h]} h") for h, kind in zip(columns, LINES, strict=False)])
    caption = "Across: a quantile's level. Up: how many points more outcomes than that lay below it. Shaded: within one point."
    return figure("Calibration curves: observed less nominal", key + chart.svg(), caption)


def _weeks(summary: Summary) -> str:
    """Coverage over time."""
    chosen = [(nominal, kind) for nominal, kind in ((50, "r3"), (80, "served"), (95, "r2")) if nominal in summary.results.hits]
    found = {nominal: summary.coverage_over_time(nominal) for nominal, _ in chosen}
    chart = time_chart(summary, "Coverage over time", bounds(*(y for _, y in found.values()), include=[n / 100 for n, _ in chosen]))
    chart.y_axis(lambda v: percent(v, 0))
    for nominal, kind in chosen:
        begins, observed = found[nominal]
        length = begins[1] - begins[0] if len(begins) > 1 else summary.results.end - summary.results.start
        middle = np.minimum(begins + length / 2, summary.results.end)
        chart.across(nominal / 100, f"dash {kind}").line(middle, observed, kind, f"{nominal} %").dots(middle, observed, kind, radius=1.8)
    key = keys([(kind, f"{nominal} %") for nominal, kind in chosen])
    caption = "All pooled horizons and coins together; dashed: nominal. Coins move together, so a wild week misses for all of them."
    return figure("Coverage over time", key + chart.svg(), caption)


def pit(summary: Summary) -> str:
    """A histogram for each horizon, of the gaps between the quantiles."""
    charts = []
    for h in summary.scored:
        if summary.pit[h].sum() == 0:
            continue
        density = summary.pit_density(h)
        top = max(1.4, float(density.max()) * 1.05)
        chart = Chart(f"PIT at {summary.results.horizons[h]} h", (0.0, 1.0), (0.0, top), height=150)
        chart.y_axis(lambda v: fixed(v, 1), at=ticks(0.0, top, 3))
        for i, (left, right) in enumerate(pairwise(EDGES)):
            words = [f"{left:g} to {right:g}: {density[i]:.3f} of what belongs there"]
            chart.bars([(left + right) / 2], [density[i]], ["served"], words, share=0.94, width=right - left)
        chart.across(1.0, "dash ink").x_axis([0.1, 0.25, 0.5, 0.75, 0.9], ["0.1", "0.25", "0.5", "0.75", "0.9"])
        charts.append(figure(f"{summary.results.horizons[h]} h", chart.svg()))
    reading = (
        "Where outcomes fell among the nine quantiles that were foretold, in parts of what belongs there. Flat: calibrated. A hump: too "
        "wide; a valley: too narrow; a slope: a bias. Dashed: what belongs there."
    )
    return section("pit", "PIT histograms", reading, f'<div class="grid">{"".join(charts)}</div>')


def sharpness(summary: Summary) -> str:
    """Widths by horizon and over time: of all coins where they are known, else of the example coins."""
    results = summary.results
    if results.widths:
        whose, hourly = "all coins", summary.width_by_hour
    elif results.examples:
        whose = ", ".join(results.examples)
        said = np.stack([np.asarray(quantiles, np.float64) for quantiles in results.examples.values()])
        hourly = {percent_: _mean_over_coins(said[..., high] - said[..., low]) for percent_, (low, high) in INTERVALS.items()}
    else:
        return ""
    kinds = dict(zip(sorted(hourly), ("r3", "served", "r1", "r2"), strict=False))
    horizons = np.array(results.horizons, np.float64)
    means = {nominal: np.array([mean(column) for column in hourly[nominal].T]) for nominal in kinds}
    chart = Chart("Mean width by horizon", (0.0, float(horizons.max()) + 0.5), bounds(*means.values(), include=[0.0]), wide=True)
    chart.y_axis(lambda v: percent(v, 0)).x_axis(horizons[summary.scored].tolist(), [f"{horizons[c]:.0f} h" for c in summary.scored])
    for nominal, kind in kinds.items():
        chart.line(horizons, means[nominal], kind, f"{nominal} %").dots(horizons[summary.scored], means[nominal][summary.scored], kind)
    longest = summary.scored[-1]
    spans = {n: summary.over_time(hourly[n][:, [longest]], np.ones((len(results.cutoffs), 1)), 24) for n in kinds}
    later = time_chart(summary, "Mean width over time", bounds(*(widths for _, widths in spans.values()), include=[0.0]))
    later.y_axis(lambda v: percent(v, 0))
    for nominal, kind in kinds.items():
        begins, widths = spans[nominal]
        later.line(np.minimum(begins + DAY / 2, results.end), widths, kind, f"{nominal} %")
    key = keys([(kind, f"{nominal} %") for nominal, kind in kinds.items()])
    drawn = figure("By horizon", chart.svg(), f"Mean width of the intervals of {whose}, in log return.")
    drawn += figure(f"Over time, at {results.horizons[longest]} h", later.svg(), "Mean of each day. Intervals breathe with the market.")
    reading = "How wide the intervals are: of two calibrated forecasters the sharper one knows more."
    return section("sharpness", "Sharpness", reading, f'{key}<div class="grid wide">{drawn}</div>')


def _mean_over_coins(values: Float64) -> Float64:
    """[T, H] of [coins, T, H]."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)
