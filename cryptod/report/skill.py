"""The page's sections on skill: by horizon, over time, by coin."""

from __future__ import annotations

from typing import Final

import numpy as np

from cryptod.market import HOUR, SERVED, Float64
from cryptod.report.charts import Chart, bounds
from cryptod.report.markup import Cell, colours, date, figure, fixed, keys, name_of, percent, section, short_date, table
from cryptod.report.results import MODEL
from cryptod.report.summary import Summary

LEAST_SKILL: Final = 0.01
"""Charts of skill span at least this much, so that noise does not look like news."""
SHOWN: Final = 80
"""The interval, in percent, that stands for the others in charts of coins."""
COIN_TOLERANCE: Final = 0.04
"""A single coin's coverage is expected within 4 points of nominal."""
TABLE_COLUMNS: Final = 8
LINE_POINTS: Final = 350
DAY: Final = 24 * HOUR.ms


def by_horizon(summary: Summary) -> str:
    """Lines of skill with their intervals, and the table of CRPS."""
    names = summary.references
    body = _keys(names) + '<div class="grid wide">' + figure("Against every reference", _horizon_chart(summary, names))
    if len(names) > 1:
        body += figure(f"Against {name_of(names[0])}, the strongest", _horizon_chart(summary, names[:1]))
    reading = "How much lower the CRPS of what was served is than that of each reference, on the same hours and coins. Above 0: better."
    if summary.interval(names[0]):
        reading += " Upright lines: 95 % intervals."
    return section("horizons", "Skill by horizon", reading, body + "</div>" + _crps_table(summary))


def _keys(references: list[str]) -> str:
    return keys([(kind, f"against {name_of(name)}") for name, kind in colours(references).items()])


def _horizon_chart(summary: Summary, references: list[str]) -> str:
    horizons, kinds = summary.results.horizons, colours(summary.references)
    places = np.arange(len(horizons), dtype=float)
    skills = {name: summary.skill_by_horizon(name) for name in references}
    intervals = {name: [summary.interval(name, column) for column in range(len(horizons))] for name in references}
    ends = [end for each in intervals.values() for interval in each if interval for end in interval]
    y = bounds(*skills.values(), include=[0.0, *ends], least=LEAST_SKILL)
    chart = Chart("Skill by horizon", (-0.5, len(horizons) - 0.5), y, wide=True).y_axis(skill_tick)
    chart.x_axis(places.tolist(), [f"{h} h" for h in horizons])
    for number, name in enumerate(references):
        x = places + (number - (len(references) - 1) / 2) * 0.08
        words = [
            f"against {name_of(name)} at {h} h: {percent(s, 2, sign=True)}" + (f" ({_between(i)})" if i else "")
            for h, s, i in zip(horizons, skills[name], intervals[name], strict=True)
        ]
        chart.line(x, skills[name], kinds[name])
        for place, interval in zip(x, intervals[name], strict=True):
            if interval:
                chart.whisker(float(place), *interval, kinds[name])
        chart.dots(x, skills[name], kinds[name], words)
    return chart.svg()


def skill_tick(value: float) -> str:
    return percent(value, 1 if abs(1000 * value - round(1000 * value)) < 1e-6 else 2, sign=True)


def _crps_table(summary: Summary) -> str:
    columns = summary.scored[:TABLE_COLUMNS]
    everyone = [name for name in (SERVED, MODEL, *summary.references) if name in summary.by_hour]
    losses = {name: summary.by_horizon(name) for name in everyone}
    lowest = np.min([losses[name] for name in everyone], axis=0)
    rows = []
    for name in everyone:
        row = [Cell(name_of(name))]
        row += [Cell(fixed(1e4 * losses[name][c], 2), "best" if losses[name][c] <= lowest[c] else "") for c in columns]
        row.append(Cell(fixed(1e4 * summary.pooled(name), 3)))
        if name == SERVED:
            row += [Cell("")] * 3
        else:
            interval = summary.interval(name)
            row += [
                Cell(percent(summary.skill(name), 2, sign=True)),
                Cell(_between(interval) if interval else "too short"),
                Cell(fixed(summary.t_value(name), 1)),
            ]
        rows.append(row)
    heads = ["CRPS × 10⁴", *(f"{summary.results.horizons[c]} h" for c in columns), "pooled", "skill of served", "95 % interval", "t"]
    return table(heads, rows)


def _between(interval: tuple[float, float]) -> str:
    return f"{fixed(100 * interval[0], 2, sign=True)} to {percent(interval[1], 2, sign=True)}"


def over_time(summary: Summary) -> str:
    """The running gain, and the skill of each block (28 days, or 7 of a short period) with its interval against each reference."""
    names = summary.references
    body = _keys(names) + '<div class="grid wide">' + figure("Running gain", _running(summary, names))
    if len(names) > 1:
        body += figure(f"Running gain on {name_of(names[0])}", _running(summary, names[:1]))
    body += '</div><div class="grid four">' + "".join(_blocks(summary, name) for name in names) + "</div>"
    reading = (
        "Whether the gain is steady. Running: the loss saved so far, in parts of the reference's whole loss, so that it ends at the "
        "skill; a steady slope is a steady gain, one step is one lucky week. Bars: the skill of each block of "
        f"{summary.results.block_hours // 24} days; upright lines: its 95 % interval."
    )
    return section("time", "Skill over time", reading, body)


def _running(summary: Summary, references: list[str]) -> str:
    kinds, times = colours(summary.references), summary.results.cutoffs.astype(float)
    thin = max(len(times) // LINE_POINTS, 1)
    shown = np.append(times[::thin], times[-1:])
    gains = {name: np.append((whole := summary.running_gain(name))[::thin], whole[-1:]) for name in references}
    chart = time_chart(summary, "Running gain", bounds(*gains.values(), include=[0.0], least=LEAST_SKILL)).y_axis(skill_tick)
    for name in reversed(references):
        chart.line(shown, gains[name], kinds[name], f"against {name_of(name)}")
    return chart.svg()


def _blocks(summary: Summary, name: str) -> str:
    skills, begins = summary.skill_by_block(name), [begin for begin, _ in summary.blocks]
    places = np.arange(len(skills), dtype=float)
    intervals = summary.interval_by_block(name)
    ends = [end for interval in intervals if interval for end in interval]
    y = bounds(skills, include=[0.0, *ends], least=LEAST_SKILL)
    chart = Chart(f"Skill against {name_of(name)} by block", (-0.6, len(skills) - 0.4), y)
    words = [f"from {date(begin)}: {percent(skill, 2, sign=True)}" for begin, skill in zip(begins, skills, strict=True)]
    chart.y_axis(skill_tick).bars(places, skills, ["good" if skill > 0 else "bad" for skill in skills], words)
    for place, interval in zip(places, intervals, strict=True):
        if interval:
            chart.whisker(float(place), *interval, "ink")
    chart.x_axis(places.tolist(), [short_date(begin) for begin in begins])
    won = int((skills > 0).sum())
    return figure(f"Against {name_of(name)}", chart.svg(), f"Better in {won} of {len(skills)} block{'s' * (len(skills) != 1)}.")


def time_chart(summary: Summary, title: str, y: tuple[float, float]) -> Chart:
    """A wide chart over the period, with its time axis."""
    start, end = summary.results.start, max(summary.results.end, summary.results.start + HOUR.ms)
    every = DAY * max(round((end - start) / DAY / 6), 1)
    at = [float(when) for when in range(-(-start // DAY) * DAY, end + 1, every)] or [float(start)]
    return Chart(title, (float(start), float(end)), y, wide=True).x_axis(at, [short_date(when) for when in at])


def by_coin(summary: Summary) -> str:
    """The coins ranked, as dots, and as a table that can be sorted and searched."""
    symbols, references = summary.results.symbols, summary.references
    skills = {name: summary.skill_by_coin(name) for name in references}
    coverage = {p: summary.coverage_of_coins(p) for p in sorted(summary.results.hits)}
    width = summary.width_by_coin[SHOWN][:, summary.scored[-1]] if SHOWN in summary.width_by_coin else None
    cells = summary.weights_by_coin[:, summary.scored].max(axis=1)
    rows = []
    for i, symbol in enumerate(symbols):
        row = [Cell(symbol), Cell(f"{int(cells[i]):,}", value=float(cells[i]))]
        row += [Cell(percent(skills[name][i], 2, sign=True), _sign(skills[name][i]), float(skills[name][i])) for name in references]
        row += [Cell(fixed(100 * each[i], 1), _off(each[i], p / 100), float(each[i])) for p, each in coverage.items()]
        if width is not None:
            row.append(Cell(percent(width[i], 2), value=float(width[i])))
        rows.append(row)
    heads = ["<coin", "hours", *(f"vs {name_of(name)}" for name in references), *(f"{p} %" for p in coverage)]
    if width is not None:
        heads.append(f"width at {summary.results.horizons[summary.scored[-1]]} h")
    body = '<div class="grid wide">' + _ranking(summary, skills[references[0]])
    body += (_scatter(summary, skills[references[0]], coverage[SHOWN]) if SHOWN in coverage else "") + "</div>"
    body += '<p><input type="search" data-search="coin-table" placeholder="Search a coin" aria-label="Search a coin"></p>'
    body += table(heads, rows, identity="coin-table", tall=True)
    reading = (
        "Skill pooled over the horizons, coverage of the intervals in percent (marked where it is more than "
        f"{100 * COIN_TOLERANCE:.0f} points off){f', and mean width of the {SHOWN} % interval' if width is not None else ''}. A coin's "
        "figures are noisier than the market's: of a hundred a few look odd by chance. A click on a heading sorts."
    )
    return section("coins", "By coin", reading, body)


def _ranking(summary: Summary, skills: Float64) -> str:
    """The coins' skill against the strongest reference, from the lowest to the highest."""
    order = np.argsort(np.where(np.isfinite(skills), skills, np.inf))
    order = order[np.isfinite(skills[order])]
    ranked = skills[order]
    words = [f"{summary.results.symbols[i]}: {percent(skills[i], 2, sign=True)}" for i in order]
    chart = Chart(
        "Skill of each coin, ranked", (-0.8, max(len(order), 1) - 0.2), bounds(ranked, include=[0.0], least=LEAST_SKILL), wide=True
    )
    chart.y_axis(skill_tick).bars(np.arange(len(order), dtype=float), ranked, ["good" if v > 0 else "bad" for v in ranked], words)
    better = int((ranked > 0).sum())
    ends = f" Lowest: {words[0]}; highest: {words[-1]}." if len(words) > 1 else ""
    title = f"Skill against {name_of(summary.references[0])}, coin by coin"
    return figure(title, chart.svg(), f"Better on {better} of {len(ranked)} coins.{ends}")


def _scatter(summary: Summary, skills: Float64, coverage: Float64) -> str:
    """The coins as dots: coverage across, skill up."""
    low, high = SHOWN / 100 - COIN_TOLERANCE, SHOWN / 100 + COIN_TOLERANCE
    y = bounds(skills, include=[0.0], least=LEAST_SKILL)
    chart = Chart("Coverage and skill of each coin", bounds(coverage, include=[low, high]), y, wide=True)
    chart.band([low, high], [y[0]] * 2, [y[1]] * 2, "within").y_axis(skill_tick)
    words = [
        f"{symbol}: covered {percent(covered)}, skill {percent(skill, 2, sign=True)}"
        for symbol, covered, skill in zip(summary.results.symbols, coverage, skills, strict=True)
    ]
    fine = (np.abs(coverage - SHOWN / 100) <= COIN_TOLERANCE) & (skills > 0)
    for kind, chosen in (("coin", np.flatnonzero(fine)), ("off", np.flatnonzero(~fine))):
        chart.dots(coverage[chosen], skills[chosen], kind, [words[i] for i in chosen], radius=3.2)
    marks = [low, SHOWN / 100, high]
    chart.x_axis(marks, [percent(mark, 0) for mark in marks])
    points = f"{100 * COIN_TOLERANCE:.0f} points"
    caption = f"One dot a coin. Shaded: coverage within {points} of nominal. Orange: outside of that, or worse than the reference."
    return figure(f"Coverage of the {SHOWN} % interval, and skill", chart.svg(), caption)


def _sign(skill: float) -> str:
    return "bad" if skill < 0 else ""


def _off(value: float, nominal: float) -> str:
    return "far" if abs(value - nominal) > COIN_TOLERANCE else ""
