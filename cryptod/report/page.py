"""The page of a backtest: one HTML file that needs nothing else, from headline to settings.

    write_report(Path("report.html"), results)

Knows in which order things are said, and says the first of them itself; each other section is a function of the `Summary`.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np

from cryptod import __version__
from cryptod.errors import StoreError
from cryptod.forecast.judgement import BETTER, WORSE
from cryptod.market import HOUR
from cryptod.report import calibration, chronicle, skill
from cryptod.report.markup import date, fixed, moment, name_of, percent
from cryptod.report.results import BacktestResults
from cryptod.report.style import SCRIPT, STYLE
from cryptod.report.summary import Summary, mean, summarise

SECTIONS = (
    ("horizons", "Skill", skill.by_horizon),
    ("time", "Over time", skill.over_time),
    ("calibration", "Calibration", calibration.coverage),
    ("pit", "PIT", calibration.pit),
    ("sharpness", "Sharpness", calibration.sharpness),
    ("fans", "Examples", chronicle.fans),
    ("coins", "Coins", skill.by_coin),
    ("who", "Who served", chronicle.served_by),
    ("trainings", "Trainings", chronicle.trainings),
)
"""Anchor, name in the navigation, and what writes the section; one that has nothing to say is left out."""


def write_report(path: Path, results: BacktestResults) -> None:
    """Write the page. Raises `StoreError` where it cannot be written."""
    try:
        path.write_text(render(results), encoding="utf-8")
    except OSError as error:
        raise StoreError(
            f"the report cannot be written to {path}: {error.strerror}", hint="name a folder that exists and may be written to"
        ) from error


def render(results: BacktestResults) -> str:
    """The page as text."""
    summary = summarise(results)
    written = []
    if summary.cells and summary.references:
        written = [(anchor, name, text) for anchor, name, write in SECTIONS if (text := write(summary))]
    elif text := chronicle.trainings(summary):
        written = [("trainings", "Trainings", text)]
    navigation = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name, _ in written)
    period = f"{date(results.start)} to {date(results.end - HOUR.ms if results.end > results.start else results.end)}"
    return document(
        f"cryptod backtest, {period}",
        f"<header><h1>Backtest, {period}</h1>{_circumstances(summary)}{headline(summary)}"
        f"{f'<nav>{navigation}</nav>' if navigation else ''}</header>"
        f"{''.join(text for _, _, text in written)}{_settings(results)}",
        f"{method(summary)} Every forecast was made as it would have been issued, from what was known at its cutoff.",
    )


def document(title: str, body: str, foot: str, *, style: str = "", script: str = "") -> str:
    """A whole page around its body; ``style`` and ``script`` come after what all pages have."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style></head><body><main>{body}"
        f"<footer>Written by cryptod {escape(__version__)}. {escape(foot)}</footer></main><script>{SCRIPT}{script}</script></body></html>\n"
    )


def method(summary: Summary) -> str:
    """How the figures were worked out."""
    return (
        "CRPS is twice the mean pinball loss over nine quantiles; pooled: each horizon's over √h. Intervals: 95 %, circular "
        "block bootstrap over the hours with Student's t for the number of blocks. "
        "t: Diebold and Mariano (1995), variance of Newey and West (1987)."
    )


def _circumstances(summary: Summary) -> str:
    results = summary.results
    said = [f"{len(results.symbols):,} coin{'s' * (len(results.symbols) != 1)}"]
    if len(results.cutoffs):
        every = "hourly" if summary.step == 1 else f"every {summary.step} hours"
        said.append(
            f"{len(results.cutoffs):,} cutoffs, {every}, {moment(int(results.cutoffs[0]))} to {moment(int(results.cutoffs[-1]))} UTC"
        )
    said.append(f"horizons {_ranges(results.horizons)}")
    said.append(f"{summary.cells:,} forecasts scored")
    return f'<p class="soft">{escape(" · ".join(said))}</p>'


def _ranges(horizons: tuple[int, ...]) -> str:
    if len(horizons) > 2 and horizons == tuple(range(horizons[0], horizons[-1] + 1)):
        return f"{horizons[0]} to {horizons[-1]} h"
    return ", ".join(f"{horizon}" for horizon in horizons) + " h"


def headline(summary: Summary) -> str:
    """The verdict in a sentence, and the figures that it rests on."""
    if not summary.cells or not summary.references:
        why = "No forecast has an outcome yet" if not summary.cells else "No reference was run beside the forecasts"
        return f'<p class="lead">{why}: there is nothing to judge. Choose a longer period that ends a day before the last candle.</p>'
    strongest = summary.references[0]
    tiles = [_skill_tile(summary, strongest, "strongest reference")]
    if "random_walk" in summary.references and strongest != "random_walk":
        tiles.append(_skill_tile(summary, "random_walk", "simplest reference"))
    won = summary.skill_by_block(strongest) > 0
    if len(won) > 1:
        tiles.append(
            _tile(f"{int(won.sum())} of {len(won)}", f"{summary.results.block_hours // 24}-day blocks won", f"against {name_of(strongest)}")
        )
    for nominal in (80, 95):
        if nominal in summary.results.hits:
            observed = summary.coverage(nominal)[summary.scored]
            away = np.abs(observed - nominal / 100)
            worst = int(np.argmax(np.where(np.isfinite(away), away, -1.0)))
            said = f"furthest off: {percent(float(observed[worst]))} at {summary.results.horizons[summary.scored[worst]]} h; of the coins "
            said += f"{calibration.furthest(summary, summary.coverage_of_coins(nominal), nominal / 100)}\u202f%"
            tiles.append(_tile(percent(mean(observed)), f"of outcomes within the {nominal} % interval", said))
    return f'<p class="lead">{escape(_verdict(summary, strongest))}</p><div class="tiles">{"".join(tiles)}</div>'


def _verdict(summary: Summary, strongest: str) -> str:
    gain, verdict = summary.skill(strongest), summary.verdict(strongest)
    size = percent(abs(gain), 2)
    if verdict is None:
        return (
            f"What was served was {size} {'better' if gain > 0 else 'worse'} than {name_of(strongest)}, the strongest reference, in CRPS; "
            "the period is too short to tell skill from luck."
        )
    if verdict == BETTER:
        return f"What was served was better than every reference: by {size} in CRPS than {name_of(strongest)}, the strongest of them."
    if verdict == WORSE:
        return f"{name_of(strongest)} alone would have served better: what was served was {size} worse in CRPS."
    return f"What was served and {name_of(strongest)}, the strongest reference, cannot be told apart: the difference in CRPS is {size}."


def _skill_tile(summary: Summary, name: str, role: str) -> str:
    gain, interval = summary.skill(name), summary.interval(name)
    detail = f"t {fixed(summary.t_value(name), 1)}"
    if interval:
        detail = f"95 %: {fixed(100 * interval[0], 2, sign=True)} to {percent(interval[1], 2, sign=True)}; {detail}"
    sure = {BETTER: "good", WORSE: "bad"}.get(summary.verdict(name) or "", "")
    return _tile(percent(gain, 2, sign=True), f"skill against {name_of(name)}", f"the {role}; {detail}", sure)


def _tile(value: str, name: str, detail: str, kind: str = "") -> str:
    head = f'<span class="name">{escape(name)}</span>'
    return f'<div class="tile">{head}<b class="{kind}">{escape(value)}</b><span>{escape(detail)}</span></div>'


def _settings(results: BacktestResults) -> str:
    if not results.settings:
        return ""
    text = escape(results.settings)
    return f'<section id="settings"><details><summary>Settings of the backtest</summary><pre>{text}</pre></details></section>'
