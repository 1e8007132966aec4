"""One forecast drawn in the terminal: the last candles, and the fan of the outcomes over the next hours, from the last close on.

Knows the shapes of a forecast (`render.forecast` has it) and of candles, and character cells. With colours a cell shows two dots, one above
the other; without, the bands are three shades. No plotting library: it would take longer to import than all else to run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ctl.terminal import Screen, wrap
from ctl.units import PriceScale, duration, percent, price, quote_of, stamp

Map = dict[str, Any]
BANDS = ((0.025, 0.975), (0.1, 0.9), (0.25, 0.75))
OUTSIDE, BAND_95, BAND_80, BAND_50, MEDIAN, WICK, ROSE, FELL = range(8)
_SHADES = " ░▒▓━│┃┃"
_COLOURS = ("", "24", "31", "38", "230", "245", "35", "167")
"""Of the 256-colour palette: blues that stand out more the likelier the outcome, and the green and red of candles; on light and on dark."""
HISTORY = 24
"""Hours of candles before the fan, as many as there are of the fan."""
HOUR_MS = 3_600_000
_MIN_HEIGHT, _MAX_HEIGHT = 8, 22


class Bar(NamedTuple):
    """A candle. ``hour``: that of its close, relative to the forecast's cutoff: 0 is the last one."""

    hour: int
    open: float
    high: float
    low: float
    close: float


def bars(candles: Map, cutoff: int, hours: int) -> list[Bar]:
    """The candles of the last ``hours`` before a cutoff, oldest first; hours without a trade are left out."""
    found = []
    for i, row in enumerate(zip(candles["open"], candles["high"], candles["low"], candles["close"])):
        hour = (candles["start"] - cutoff) // HOUR_MS + i + 1
        if -hours < hour <= 0 and None not in row:
            found.append(Bar(hour, *row))
    return found


class Fan:
    """Prices of the quantile levels at any moment up to the last horizon, drawn out straight between the hours; and candles before it."""

    def __init__(self, forecast: Map, history: Sequence[Bar] = ()) -> None:
        self.history = history
        self.back = -min((bar.hour for bar in history), default=1) + 1.0
        """Hours before the cutoff."""
        self.close = float(forecast["close"])
        self.hours = [0.0, *(float(hour) for hour in forecast["horizons"])]
        self._levels = [float(level) for level in forecast["levels"]]
        self._prices = [[self.close] * len(self._levels), *forecast["prices"]]

    def at(self, level: float, hour: float) -> float:
        """The price at quantile ``level``, ``hour`` hours ahead."""
        column = min(range(len(self._levels)), key=lambda i: abs(self._levels[i] - level))
        i = next((i for i in range(1, len(self.hours)) if self.hours[i] >= hour), len(self.hours) - 1)
        part = (hour - self.hours[i - 1]) / (self.hours[i] - self.hours[i - 1])
        return float(self._prices[i - 1][column] * (1 - part) + self._prices[i][column] * part)

    def raster(self, columns: int, dots: int) -> tuple[list[list[int]], float, float]:
        """Bands of a grid of dots [dots][columns], highest price first, and the prices of its upper and lower edge."""
        hours = [(self.back + self.hours[-1]) * x / (columns - 1) - self.back for x in range(columns)]
        bounds = [[(self.at(low, hour), self.at(high, hour)) for low, high in BANDS] if hour >= 0 else [] for hour in hours]
        top = max(*(column[0][1] for column in bounds if column), *(bar.high for bar in self.history))
        bottom = min(*(column[0][0] for column in bounds if column), *(bar.low for bar in self.history))
        margin = 0.03 * (top - bottom) or 0.01 * abs(top) or 1.0
        top, bottom = top + margin, bottom - margin
        step = (top - bottom) / dots
        grid = []
        for y in range(dots):
            value = top - (y + 0.5) * step
            grid.append([sum(low <= value <= high for low, high in column) for column in bounds])

        def row(value: float) -> int:
            return min(dots - 1, max(0, int((top - value) / step)))

        for x, hour in enumerate(hours):
            if hour >= 0:
                grid[row(self.at(0.5, hour))][x] = MEDIAN
        for bar in self.history:
            x = self.column(bar.hour - 0.5, columns)
            body = range(row(max(bar.open, bar.close)), row(min(bar.open, bar.close)) + 1)
            for y in range(row(bar.high), row(bar.low) + 1):
                grid[y][x] = WICK if y not in body else ROSE if bar.close >= bar.open else FELL
        return grid, top, bottom

    def column(self, hour: float, columns: int) -> int:
        """Where an hour lies, relative to the cutoff."""
        return round((hour + self.back) / (self.back + self.hours[-1]) * (columns - 1))


def plot(forecast: Map, screen: Screen, candles: Map | None = None) -> list[str]:
    """Candles and fan as lines of text, as wide as the screen (at most 120 columns) and as high as fits."""
    fan = Fan(forecast)
    quote = quote_of(forecast["symbol"])
    scale = PriceScale(forecast["close"], quote)
    height = max(_MIN_HEIGHT, min(_MAX_HEIGHT, screen.height - 11))
    labels = [scale(fan.at(level, fan.hours[-1])) for level in (0.025, 0.5, 0.975)]
    left = max(len(label) for label in labels) + 1
    right = max(len(label) for label in labels) + 8
    columns = max(24, min(120, screen.width) - left - right - 4)
    if candles is not None and columns >= 2 * int(fan.hours[-1]):  # a column an hour
        fan = Fan(forecast, bars(candles, forecast["cutoff"], HISTORY))
    grid, top, bottom = fan.raster(columns, 2 * height if screen.colour else height)
    ticks = {_row(value, top, bottom, height): scale(value) for value in round_prices(bottom, top, max(3, height // 3))}
    ends = _ends(fan, scale, top, bottom, height)
    lines = [_head(forecast, screen, quote), ""]
    for y in range(height):
        body = _coloured(grid[2 * y], grid[2 * y + 1]) if screen.colour else "".join(_SHADES[dot] for dot in grid[y])
        axis = "┤" if y in ticks else "│"
        lines.append(f"{ticks.get(y, ''):>{left}} {axis}{body} {ends.get(y, '')}".rstrip())
    lines += _hours(fan, forecast["cutoff"], left, columns)
    shown = [
        f"{_sample(band, screen)} {text}" for band, text in ((MEDIAN, "median"), (BAND_50, "50 %"), (BAND_80, "80 %"), (BAND_95, "95 %"))
    ]
    lines += ["", " " * (left + 2) + "   ".join(shown) + " of outcomes", ""]
    up = ", ".join(f"{percent(forecast['p_up'][i])} in {forecast['horizons'][i]} h" for i in (0, -1))
    return lines + wrap(f"Prices in {scale.unit}. P(up) {up}. Model {forecast['model']}.", screen.width)


def _head(forecast: Map, screen: Screen, quote: str) -> str:
    stale = screen.paint("; stale", "yellow") if forecast["stale"] else ""
    head = f"{screen.paint(forecast['symbol'], 'bold')}  {price(forecast['close'])} {quote} at {stamp(forecast['cutoff'])}"
    return f"{head}; forecast made {duration(forecast['age'])} ago{stale}"


def _row(value: float, top: float, bottom: float, height: int) -> int:
    return min(height - 1, max(0, int((top - value) / (top - bottom) * height)))


def round_prices(low: float, high: float, count: int) -> list[float]:
    """Round prices between ``low`` and ``high``, about ``count`` of them: steps of 1, 2, 2.5 or 5 times a power of ten."""
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _ends(fan: Fan, scale: PriceScale, top: float, bottom: float, height: int) -> dict[int, str]:
    """What stands at the right edge: the quantiles at the last horizon, those that matter most first, where there is room."""
    ends: dict[int, str] = {}
    for level in (0.5, 0.975, 0.025, 0.9, 0.1, 0.75, 0.25):
        value = fan.at(level, fan.hours[-1])
        name = "median" if level == 0.5 else f"{100 * level:g} %"
        ends.setdefault(_row(value, top, bottom, height), f"{scale(value)} {name}")
    return ends


def _hours(fan: Fan, cutoff: int, left: int, columns: int) -> list[str]:
    """The axis of time: hours ahead (and back), and below them the time of day (UTC)."""
    last, back = int(fan.hours[-1]), int(fan.back)
    step = next((step for step in (1, 2, 3, 4, 6, 12) if (last + back) / step * 8 <= columns), 24)
    axis, ahead, clock = ["─"] * columns, [" "] * (columns + 8), [" "] * (columns + 8)
    for hour in range(-(back // step) * step, last + 1, step):
        x = fan.column(hour, columns)
        axis[x] = "┴"
        for line, text in ((ahead, f"{hour:+} h" if hour else "close"), (clock, stamp(cutoff + hour * HOUR_MS, zone=False)[-5:])):
            start = max(0, x - len(text) // 2)
            line[start : start + len(text)] = text
    pad = " " * (left + 2)
    return [
        " " * (left + 1) + "└" + "".join(axis),
        pad + "".join(ahead).rstrip(),
        f"{'UTC':>{left}}  " + "".join(clock).rstrip(),
    ]


def _coloured(upper: list[int], lower: list[int]) -> str:
    """A line of cells, each with the dot of ``upper`` over that of ``lower``."""
    parts, before = [], ""
    for above, below in zip(upper, lower):
        if not above and not below:
            code, cell = "0", " "
        elif not above:
            code, cell = f"0;38;5;{_COLOURS[below]}", "▄"
        elif not below:
            code, cell = f"0;38;5;{_COLOURS[above]}", "▀"
        else:
            code, cell = f"0;38;5;{_COLOURS[above]};48;5;{_COLOURS[below]}", "▀"
        parts.append(cell if code == before else f"\x1b[{code}m{cell}")
        before = code
    return "".join(parts) + "\x1b[0m"


def _sample(band: int, screen: Screen) -> str:
    return f"\x1b[38;5;{_COLOURS[band]}m{'━━' if band == MEDIAN else '██'}\x1b[0m" if screen.colour else _SHADES[band] * 2
