"""The live page: what is forecast now, how what was forecast has held, what was trained, how the service does; one file, no network.

Says what is new here (the coins' cards, the top lists, the service) and leaves the rest to the sections of a backtest's page, which judge
the live forecasts by the same rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Final

import numpy as np

from cryptod.forecast.scores import INTERVALS
from cryptod.market import HOUR, Float64, Int64
from cryptod.report import calibration, chronicle, page, skill
from cryptod.report.charts import Chart, bounds
from cryptod.report.chronicle import FANS
from cryptod.report.markup import Cell, fixed, keys, moment, percent, price, section, short_date, table
from cryptod.report.results import BacktestResults
from cryptod.report.style import CARDS_SCRIPT, CARDS_STYLE
from cryptod.report.summary import Summary, summarise
from cryptod.symbol import split

DAY: Final = 24 * HOUR.ms
TOP: Final = 10
MEDIAN: Final = 4
ORDERS: Final = {
    "volume": "volume", "name": "name", "change": "move in 24 h", "score": "score", "up": "P(up)", "volatility": "volatility",
}  # fmt: skip
"""What the cards can be sorted by: name of the attribute -> words."""
PILLS: Final = {"error": "pill bad"}


@dataclass(frozen=True, slots=True)
class Fan:
    """What was said at one cutoff. ``hours``: float64 [K], 0 first. ``quantiles``: float64 [K, 9] of the log return from ``close``."""

    cutoff: int
    hours: Float64
    close: float
    quantiles: Float64

    def prices(self, column: int) -> Float64:
        """float64 [K]: the price at a quantile's column."""
        return np.asarray(self.close * np.exp(self.quantiles[:, column]))


@dataclass(frozen=True, slots=True)
class Coin:
    """One coin: its prices lately and its forecasts, the latest last. ``p_up`` and ``volatility`` are those at the last horizon."""

    symbol: str
    times: Int64
    """int64 [T], close times (UTC ms) of ``closes``."""
    closes: Float64
    fans: Sequence[Fan]
    p_up: float
    volatility: float
    score: float
    flags: Sequence[str]

    @property
    def now(self) -> Fan:
        return self.fans[-1]

    @property
    def change(self) -> float:
        """Share by which the price has moved in the last day; NaN where it is not known."""
        then = self.closes[self.times == self.now.cutoff - DAY]
        return self.now.close / float(then[0]) - 1.0 if len(then) else float("nan")


@dataclass(frozen=True, slots=True)
class LiveResults:
    """``now``: UTC ms. ``status``: as the daemon says it. ``coins``: by quote volume. ``past``: what was issued and is scored."""

    now: int
    status: Mapping[str, Any]
    coins: Sequence[Coin]
    past: BacktestResults


TOPS: Final[tuple[tuple[str, str, Callable[[Coin], float], Callable[[Coin], str]], ...]] = (
    ("By score", "score", lambda coin: coin.score, lambda coin: fixed(coin.score, 3, sign=True)),
    ("By P(up)", "P(up)", lambda coin: coin.p_up, lambda coin: percent(coin.p_up)),
    ("By volatility", "volatility", lambda coin: coin.volatility, lambda coin: percent(coin.volatility, 2)),
    ("Movers, 24 h", "change", lambda coin: abs(coin.change), lambda coin: percent(coin.change, 2, sign=True)),
)
"""Title, head of the last column, what is ranked by (the largest first), and how it is said."""
SECTIONS: Final = (
    ("horizons", "Skill", skill.by_horizon),
    ("time", "Over time", skill.over_time),
    ("calibration", "Calibration", calibration.coverage),
    ("pit", "PIT", calibration.pit),
    ("sharpness", "Sharpness", calibration.sharpness),
    ("coins", "By coin", skill.by_coin),
)
"""Of a backtest's page, those that judge."""


def render(results: LiveResults) -> str:
    """The page as text."""
    summary = summarise(results.past)
    written = [("forecasts", "Forecasts", _forecasts(results, summary)), ("top", "Top lists", _top_lists(results))]
    if summary.cells and summary.references:
        written += [(anchor, name, write(summary)) for anchor, name, write in SECTIONS]
    written += [("trainings", "Trainings", chronicle.trainings(summary)), ("service", "Service", _service(results))]
    written = [each for each in written if each[2]]
    navigation = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name, _ in written)
    head = f"<h1>Forecasts of {len(results.coins)} coins, and how they have held</h1>{_circumstances(results, summary)}"
    return page.document(
        f"cryptod, {moment(results.now)} UTC",
        f"<header>{head}{_headline(summary)}<nav>{navigation}</nav></header>" + "".join(text for _, _, text in written),
        f"{page.method(summary)} Every forecast is judged as it was issued; of a coin's forecasts of one hour the first counts.",
        style=CARDS_STYLE,
        script=CARDS_SCRIPT,
    )


def _circumstances(results: LiveResults, summary: Summary) -> str:
    said = [f"{moment(results.now)} UTC"]
    if results.coins:
        said.append(f"candles up to {moment(max(coin.now.cutoff for coin in results.coins))}")
    if summary.cells:
        said.append(f"{summary.cells:,} forecasts judged, {short_date(summary.results.start)} to {short_date(summary.results.end)}")
    return f'<p class="soft">{escape(" · ".join(said))}</p>'


def _headline(summary: Summary) -> str:
    if not summary.cells or not summary.references:
        return '<p class="lead">No forecast is a day old yet: how they hold will stand here when the first outcomes are known.</p>'
    return page.headline(summary)


# ------------------------------------------------------------------------------------------------------------------ the coins


def _forecasts(results: LiveResults, summary: Summary) -> str:
    """A card for each coin, searched by name and sorted by figures."""
    if not results.coins:
        return ""
    held = {}
    if 80 in summary.results.hits:
        held = dict(zip(summary.results.symbols, summary.coverage_of_coins(80), strict=True))
    choices = "".join(f'<option value="{value}">{escape(name)}</option>' for value, name in ORDERS.items())
    tools = (
        '<p class="tools"><input type="search" id="card-search" placeholder="Search a coin" aria-label="Search a coin">'
        f' <label>Sort by <select id="card-sort">{choices}</select></label> <span class="soft" id="card-count"></span></p>'
    )
    cards = "".join(_card(coin, place, held.get(coin.symbol, float("nan"))) for place, coin in enumerate(results.coins))
    key = keys([("ink", "price"), ("fan", "50, 80 and 95 % of outcomes, as they were foretold at the left end of each fan")])
    reading = (
        "The price of the last days, the fans that were issued a day, two and three ago, and the one that holds now. Ranges are those of "
        "the price in 24 hours. A P(up) near 50 % is honest: direction is all but unpredictable, how far prices may move is not."
    )
    return section("forecasts", "Forecasts", reading, f'{tools}{key}<div class="cards" id="cards">{cards}</div>')


def _card(coin: Coin, place: int, held: float) -> str:
    now, change = coin.now, coin.change
    ranges = []
    for nominal in (50, 80, 95):
        low, high = (float(now.prices(column)[-1]) for column in INTERVALS[nominal])
        ranges.append(f"<tr><th>{nominal}\u202f%</th><td>{price(low)}</td><td>{price(high)}</td></tr>")
    quote = split(coin.symbol).quote
    kind = "" if not np.isfinite(change) or change == 0 else "good" if change > 0 else "bad"
    facts = [f"P(up) {percent(coin.p_up)}", f"volatility {percent(coin.volatility, 2)}"]
    facts += [f"80\u202f% held {percent(held)}"] if np.isfinite(held) else []
    pills = "".join(f' <span class="pill">{escape(flag)}</span>' for flag in coin.flags)
    values = {"volume": -place, "change": abs(change), "score": coin.score, "up": coin.p_up, "volatility": coin.volatility}
    data = "".join(f' data-{name}="{value:.6g}"' for name, value in values.items() if np.isfinite(value))
    return (
        f'<article class="card" data-name="{escape(coin.symbol)}"{data}><h3>{escape(coin.symbol)}{pills}</h3>'
        f'<p class="quote"><b>{price(now.close)}</b> {escape(quote)} <span class="{kind}">{percent(change, 2, sign=True)}</span></p>'
        f"{_drawn(coin)}<table>{''.join(ranges)}</table><p>{escape(' · '.join(facts))}</p></article>"
    )


def _drawn(coin: Coin) -> str:
    """The fans over the price."""
    reach = float(coin.now.hours[-1]) * HOUR.ms
    left, right = float(coin.times[0]) if len(coin.times) else float(coin.now.cutoff) - DAY, float(coin.now.cutoff) + reach
    fans = [fan for fan in coin.fans if fan.cutoff >= left]
    edges = [fan.prices(column) for fan in fans for column in INTERVALS[95]]
    y = bounds(coin.closes, *edges, pad=0.04)
    chart = Chart(f"{coin.symbol}: price and forecasts", (left, right), y, height=170)
    power = max(0, 3 * math.ceil(-math.log10(max(y[1], 1e-300)) / 3)) if y[1] < 0.01 else 0
    chart.y_axis(lambda value: price(value * 10.0**power))  # tiny prices in thousandths, millionths, ...: the table has them whole
    for fan in fans:
        times = fan.cutoff + fan.hours * HOUR.ms
        for nominal, kind in FANS.items():
            low, high = INTERVALS[nominal]
            chart.band(times, fan.prices(low), fan.prices(high), kind)
    chart.line(coin.times.astype(float), coin.closes, "ink")
    chart.line(coin.now.cutoff + coin.now.hours * HOUR.ms, coin.now.prices(MEDIAN), "served thin")
    days = [float(day) for day in range(-(-int(left) // DAY) * DAY, int(right) + 1, DAY)]
    return chart.x_axis(days, [short_date(day) for day in days]).svg()


def _top_lists(results: LiveResults) -> str:
    """The first coins by score, by volatility and by how far they have moved."""
    if not results.coins:
        return ""
    drawn = []
    for title, head, value, text in TOPS:
        known = [(value(coin), coin) for coin in results.coins if np.isfinite(value(coin))]
        ranked = sorted(known, key=lambda each: -each[0])[:TOP]
        rows = [[Cell(coin.symbol), Cell(price(coin.now.close)), Cell(text(coin))] for _, coin in ranked]
        drawn.append(f"<div><h3>{escape(title)}</h3>{table(['<coin', 'close', head], rows)}</div>")
    reading = "24 hours ahead. The score, expected return over volatility, ranks and recommends nothing: in most hours it is chance."
    return section("top", "Top lists", reading, f'<div class="grid wide">{"".join(drawn)}</div>')


# ------------------------------------------------------------------------------------------------------------------ the service


def _service(results: LiveResults) -> str:
    """Conditions, and what the process, the cache, the ledger and the schedule say of themselves."""
    status, now = results.status, results.now
    process, cache, memory = status.get("process", {}), status.get("cache", {}), status.get("memory", {})
    ledger, disk, models = status.get("ledger", {}), status.get("disk", {}), status.get("models", {})
    exchange, candles = status.get("exchange", {}), status.get("candles", {})
    asked = cache.get("hits", 0) + cache.get("misses", 0) + cache.get("expired", 0)
    rows = [
        ("version", f"cryptod {process.get('version', '')}, up {_duration(process.get('uptime', 0))}"),
        ("exchange", f"{exchange.get('id', '')}, asked {_ago(exchange.get('last_collect'), now)}"),
        ("candles", f"{candles.get('symbols', 0):,} coins followed, {candles.get('left_out', 0):,} left out"),
        ("models", f"{models.get('checkpoints', 0)} for {models.get('coins', 0):,} coins, promoted {_ago(models.get('promoted_at'), now)}"),
        ("cache", f"{cache.get('entries', 0):,} entries, {cache.get('hits', 0):,} hits of {asked:,} answers"),
        ("refresh", _ago(cache.get("last_refresh"), now) + (f", in {_duration(took)}" if (took := cache.get("refresh_seconds")) else "")),
        ("ledger", f"{ledger.get('issues', 0):,} issues, {_size(ledger.get('bytes', 0))}"),
        ("memory", f"{_size(memory.get('pss_total', 0))} in all processes, at most {_size(memory.get('peak_total', 0))}"),
        ("processor", f"{status.get('cpu', {}).get('percent', 0):.0f} % of one core"),
        ("disk", f"{_size(disk.get('used', 0))} used, {_size(disk.get('free', 0))} free"),
        *((f"next {row['name']}", _ago(row["next"], now) if row.get("next") else "off") for row in status.get("schedule", [])),
    ]
    conditions = "".join(map(_condition, status.get("health", {}).get("conditions", [])))
    health = f'<ul class="conditions">{conditions}</ul>' if conditions else '<p><span class="pill good">ok</span> no conditions</p>'
    facts = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows)
    reading = "What the daemon said of itself when this page was written."
    return section("service", "Service", reading, f'{health}<div class="scroll"><table class="facts">{facts}</table></div>')


def _condition(found: Mapping[str, str]) -> str:
    severity, name, text, remedy = (escape(found[key]) for key in ("severity", "name", "text", "remedy"))
    pill = PILLS.get(found["severity"], "pill")
    return f'<li><span class="{pill}">{severity}</span> <b>{name}</b> {text} <span class="soft">{remedy}</span></li>'


def _duration(seconds: float) -> str:
    for length, name, digits in ((86_400.0, "d", 1), (3_600.0, "h", 1), (60.0, "min", 0), (1.0, "s", 1)):
        if seconds >= length:
            return f"{seconds / length:.{digits}f} {name}"
    return f"{1000 * seconds:.0f} ms"


def _ago(when: int | None, now: int) -> str:
    if not when:
        return "never"
    return f"{_duration((now - when) / 1000)} ago" if when <= now else f"in {_duration((when - now) / 1000)}"


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"
