"""The page of `cryptoctl scores`: how the forecasts have done, said so that a stranger can tell good from lucky.

Knows the scorecard as it comes over the wire (`cryptod.scorecard` and `cryptod.forecast.judgement` document it), and no socket. A figure
whose interval leaves it open is called chance, however good it looks.
"""

from __future__ import annotations

from typing import Any

from ctl.render import HORIZONS, labelled
from ctl.terminal import Screen, spark, wrap
from ctl.units import ago, counted, number, percent, stamp

Map = dict[str, Any]
COVERAGES = ("50", "80", "90", "95")
VERDICT_PAINT = {"better": "green", "worse": "red", "narrow": "yellow", "wide": "yellow"}
SURE = ("better", "worse", "narrow", "wide")
"""Verdicts that are not chance: their figure gets a mark."""
NEAR = 0.01
STILL = "~"
NAMES = {"model": "model alone"}
POINTS = 1e4
"""CRPS are shown in hundredths of a percent of the price."""


def scores(reply: Map, screen: Screen, now: int, *, all_horizons: bool = False, coins: bool = False) -> list[str]:
    """The scorecard of all coins, or of one; with ``coins`` also a line for each."""
    if not reply["forecasts"]:
        return wrap(_nothing_yet(reply, now), screen.width)
    lines = _head(reply, screen)
    lines += ["", *_references(reply, screen), "", *_horizons(reply, screen, all_horizons), "", *labelled(screen, _sentences(reply))]
    if coins and reply["symbol"] is None:
        lines += ["", *_coins(reply, screen)]
    return [*lines, "", *_foot(reply, screen)]


def _days(reply: Map) -> str:
    return f"the last {reply['window_hours'] // 24} days"


def _nothing_yet(reply: Map, now: int) -> str:
    whose = f" of {reply['symbol']}" if reply["symbol"] else ""
    due = reply["first_due"]
    if due is None:
        return f"no forecast{whose} was issued in {_days(reply)}; `cryptoctl symbols` says why a coin has none"
    if due > now:
        return f"no forecast{whose} is 24 h old yet: the first scores will be there {ago(due, now)}, at {stamp(due)}"
    return f"no forecast{whose} has been scored yet: the first has been due since {stamp(due)} and waits for the candles of that hour"


def _head(reply: Map, screen: Screen) -> list[str]:
    whose = reply["symbol"] or counted(reply["coins"], "coin")
    period = f"made from {stamp(reply['from'], zone=False)} to {stamp(reply['to'])}"
    text = f"{counted(reply['forecasts'], 'forecast')} of {whose}, {period}, beside what came"
    lines = wrap(text, screen.width)
    left = [
        (reply["again"], "issued again in the same hour"),
        (reply["after"], "known when it was issued"),
        (reply["unknown"], "that never became known"),
    ]
    said = [f"{number(left[0][0])} {left[0][1]}"] if left[0][0] else []
    said += [f"{counted(count, 'outcome')} {what}" for count, what in left[1:] if count]
    return lines + (wrap(f"Not counted: {', '.join(said)}.", screen.width) if said else [])


def _references(reply: Map, screen: Screen) -> list[str]:
    """Each reference with what was gained on it, the hardest to beat first."""
    pooled = reply["pooled"]
    rows: list[list[Any]] = [[("as served", "bold"), _points(pooled["crps"]), "", "", "", ""]]
    for name, row in sorted(pooled["references"].items(), key=lambda item: float(item[1]["skill"]["value"])):
        skill = row["skill"]
        test = "-" if row["t_needed"] is None else f"{row['t']:.1f}"
        verdict = _verdict(row["verdict"], {"better": "better", "worse": "worse", "even": "may be chance"})
        rows.append([NAMES.get(name, name), _points(row["crps"]), percent(skill["value"], 2, sign=True), _range(skill, 2), test, verdict])
    return screen.table(rows, "<>>>><", ["Forecaster", "CRPS", "Skill", "95 % interval", "t", "The forecasts are"])


def _horizons(reply: Map, screen: Screen, all_horizons: bool) -> list[str]:
    best = reply["best_reference"]
    rows: list[list[Any]] = []
    for row in reply["by_horizon"]:
        if (all_horizons or row["horizon"] in HORIZONS) and row["outcomes"]:
            against = row["references"].get(best)
            skill = _marked(percent(against["skill"]["value"], 2, sign=True), against["verdict"]) if against else "- "
            covered = [_marked(percent(row["coverage"][p]["value"]), row["coverage"][p]["verdict"]) for p in COVERAGES]
            direction = row["direction"]
            ranks = direction["rank_correlation"]
            hits = _marked(percent(direction["hit_rate"]["value"]), direction["hit_rate"]["verdict"])
            rank = [_marked(f"{ranks['value']:+.3f}", ranks["verdict"]) if ranks else "- "] if reply["symbol"] is None else []
            rows.append([f"{row['horizon']} h", _points(row["crps"]), skill, *covered, hits, *rank])
    heads = ["In", "CRPS", "Skill ", *(f"{p} % " for p in COVERAGES), *(["Right ", "Rank"] if reply["symbol"] is None else ["Right"])]
    lines = screen.table(rows, ">" * len(heads), heads, gap=1)
    against = f"Skill against {best}. " if best else ""
    ranks = "Rank: correlation with the score. " if reply["symbol"] is None else ""
    text = f"{against}50 to 95 %: outcomes inside that interval. Right: P(up) on the right side. {ranks}"
    text += "* is not chance, but for one in twenty."
    return [*lines, *wrap(text, screen.width)]


def _sentences(reply: Map) -> list[tuple[str, str]]:
    pooled = reply["pooled"]
    rows = [
        ("Skill", _skill_sentence(reply)),
        ("Coverage", _coverage_sentence(pooled["coverage"])),
        ("Shape", _shape_sentence(pooled["pit"])),
        ("Volatility", _volatility_sentence(pooled["volatility"])),
        ("Direction", _direction_sentence(pooled["direction"])),
    ]
    worst = reply["worst"]
    if "skill" in worst:
        row = worst["skill"]
        end = {"worse": "", "even": ", which may be chance", "better": ", and still better"}.get(row["verdict"], "")
        skill = f"{percent(row['skill']['value'], 2, sign=True)} against {row['reference']}{_within(row['skill'], 2)}"
        rows.append(("Worst coin", f"{row['symbol']}: {skill}{end}"))
    if "coverage" in worst:
        row = worst["coverage"]
        inside = f"{percent(row['value'])} of outcomes inside its 80 % interval{_within(row, 1)}"
        rows.append(("" if "skill" in worst else "Worst coin", f"{row['symbol']}: {inside}"))
    return rows


def _skill_sentence(reply: Map) -> str:
    best = reply["best_reference"]
    if best is None:
        return "there is no reference to compare with"
    row = reply["pooled"]["references"][best]
    figure = f"{percent(row['skill']['value'], 2, sign=True)} against {best}, the best reference"
    if row["verdict"] is None:
        return f"{figure}; too few days to tell it from chance"
    test = f"(t {row['t']:.1f}, {row['t_needed']:.1f} needed)" if row["t_needed"] else ""
    words = {"better": "better, and not by chance", "worse": "worse, and not by chance", "even": "no difference that could not be chance"}
    return f"{figure}: {words[row['verdict']]} {test}"


def _coverage_sentence(coverage: Map) -> str:
    inside = ", ".join(f"{percent(coverage[p]['value'])} inside {p} %" for p in COVERAGES)
    verdicts = {coverage[p]["verdict"] for p in COVERAGES}
    if None in verdicts:
        return f"{inside}; too few days to judge"
    off = []
    for verdict in ("narrow", "wide"):
        if found := [p for p in COVERAGES if coverage[p]["verdict"] == verdict]:
            which = f"{', '.join(found[:-1])} and {found[-1]} % intervals are" if len(found) > 1 else f"{found[0]} % interval is"
            off.append(f"the {which} too {verdict}")
    near = all(abs(coverage[p]["value"] - int(p) / 100) <= NEAR for p in COVERAGES)
    fit = "as promised" if near else "no farther off than chance may put it in these days"
    return f"{inside}: {' and '.join(off) if off else fit}"


def _shape_sentence(pit: Map) -> str:
    chance = "" if pit["p"] is None else ", as chance may have it" if pit["p"] >= 0.05 else ": more than chance"
    p = "" if pit["p"] is None else f" (p {pit['p']:.2g})"
    bars = spark(pit["bins"], len(pit["bins"]), (0.0, max(0.2, *pit["bins"])))
    return f"PIT {bars}, {percent(pit['distance'])} from flat{chance}{p}"


def _volatility_sentence(volatility: Map) -> str:
    if volatility["qlike"]["value"] is None:
        return "of coins that stand still there is none to judge"
    relative = volatility["relative"]
    text = f"squared moves were {relative['value']:.2f} times the variance foretold"
    if relative["low"] is not None:
        text += f" ({relative['low']:.2f} to {relative['high']:.2f})"
    return f"{text}; QLIKE {volatility['qlike']['value']:.2f}, that of a constant that knew the period {volatility['constant']:.2f}"


def _direction_sentence(direction: Map) -> str:
    hits, brier, ranks = direction["hit_rate"], direction["brier"], direction["rank_correlation"]
    if hits["value"] is None:
        return "no price moved"
    parts = [f"right in {percent(hits['value'])}{_within(hits, 1)}{_chance(hits['verdict'], 'a coin toss')}"]
    parts.append(f"Brier {brier['value']:.5f} against 0.25{_chance(brier['verdict'], 'always saying 50 %')}")
    if ranks:
        p = "" if ranks["p"] is None else f" (p {ranks['p']:.2g})"
        parts.append(f"rank correlation of the score at 24 h {ranks['value']:+.3f}{p}{_chance(ranks['verdict'], 'chance')}")
    return "; ".join(parts)


def _chance(verdict: str | None, chance: str) -> str:
    words = {"better": f", better than {chance}", "worse": f", worse than {chance}", "even": f", not to be told from {chance}"}
    return words.get(verdict or "", ", too few days to tell")


def _coins(reply: Map, screen: Screen) -> list[str]:
    """A line for each coin, the least skill first."""
    best = reply["best_reference"]

    def skill(coin: Map) -> float:
        row = coin["references"].get(best)
        return float(row["skill"]["value"]) if row else 0.0

    rows: list[list[Any]] = []
    for coin in sorted(reply["by_coin"], key=skill):
        against = coin["references"].get(best)
        gained = _marked(percent(against["skill"]["value"], 2, sign=True), against["verdict"]) if against else "- "
        covered = [_marked(percent(coin["coverage"][p]["value"]), coin["coverage"][p]["verdict"]) for p in COVERAGES]
        name = coin["symbol"] + ("" if coin["ordinary"] else f" {STILL}")
        rows.append([name, str(coin["hours"]), _points(coin["crps"]), gained, *covered, percent(coin["hit_rate"])])
    heads = ["Coin", "Hours", "CRPS", "Skill ", *(f"{p} % " for p in COVERAGES), "Right"]
    lines = screen.table(rows, "<" + ">" * 8, heads, gap=1)
    still = any(not coin["ordinary"] for coin in reply["by_coin"])
    return [*lines, f"{STILL} stood still most of the time: pegged or halted"] if still else lines


def _foot(reply: Map, screen: Screen) -> list[str]:
    text = (
        "CRPS in hundredths of a percent, for all horizons together each over the root of its hours; less is better. "
        "Skill: how far it lies below the reference's. "
    )
    if reply["hours"] < reply["least_hours"]:
        text += f"Intervals need {number(reply['least_hours'])} h of forecasts; there are {number(reply['hours'])}."
    else:
        blocks = f"in blocks of {reply['block_hours']} h, as coins move together and horizons overlap"
        text += f"Intervals come from drawing the hours again {blocks}."
    return wrap(text, screen.width)


def _points(crps: float | None) -> str:
    return "-" if crps is None else f"{crps * POINTS:.2f}"


def _range(found: Map, digits: int) -> str:
    if found["low"] is None:
        return "-"
    low, high = (percent(found[end], digits, sign=found["low"] < 0 or digits > 1) for end in ("low", "high"))
    return f"{low.removesuffix(' %')} to {high}"


def _within(found: Map, digits: int) -> str:
    return f" ({_range(found, digits)})" if found["low"] is not None else ""


def _verdict(verdict: str | None, words: dict[str, str]) -> tuple[str, str]:
    return words.get(verdict or "", "not to be told yet"), VERDICT_PAINT.get(verdict or "", "")


def _marked(text: str, verdict: str | None) -> tuple[str, str]:
    """A figure with its mark, or with room for one."""
    return text + ("*" if verdict in SURE else " "), VERDICT_PAINT.get(verdict or "", "")
