"""One forecast as a picture: the last candles and the fan, in an SVG of our own, or in a PNG drawn by Pillow.

Knows the shapes of a forecast and of candles, and pixels. A picture is a list of plain shapes; SVG and PNG are two ways to write it down.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from cryptod.errors import MissingPackage
from ctl import files
from ctl.plot import BANDS, HOUR_MS, Fan, bars, round_prices
from ctl.units import PriceScale, percent, price, quote_of, stamp

Map = dict[str, Any]
WIDTH, HEIGHT = 960, 520
LEFT, RIGHT, TOP, BOTTOM = 84, 128, 58, 60
HISTORY: Final = 48
"""Hours of candles before the fan."""
KINDS: Final = (".svg", ".png")
FINE: Final = 2
"""Pixels of a PNG for each unit of the picture, and as many again before it is made smaller, which smoothes its edges."""
PAPER, INK, SOFT, RULE = "#ffffff", "#1c2430", "#647084", "#e3e8ee"
FAN: Final = ("#d3e6f5", "#a3cbe9", "#6aa9d8")
MEDIAN, UP, DOWN = "#0b4f85", "#1d9a6c", "#d5504a"

Point = tuple[float, float]


class Shape(NamedTuple):
    """``kind``: area, line or text. Text stands at its one point: before it, around it or after it (``anchor``)."""

    kind: str
    points: tuple[Point, ...]
    colour: str
    width: float = 0.0
    text: str = ""
    anchor: str = "start"


def draw(forecast: Map, candles: Map) -> list[Shape]:
    """Candles, fan, axes and words."""
    fan = Fan(forecast, bars(candles, forecast["cutoff"], HISTORY))
    quote = quote_of(forecast["symbol"])
    scale = PriceScale(forecast["close"], quote)
    last, hours = fan.hours[-1], [hour / 4 for hour in range(int(4 * fan.hours[-1]) + 1)]
    prices = [fan.at(level, last) for level in BANDS[0]] + [end for bar in fan.history for end in (bar.low, bar.high)]
    prices += [fan.at(level, hour) for level in BANDS[0] for hour in fan.hours]
    air = 0.05 * (max(prices) - min(prices)) or 0.01 * abs(fan.close) or 1.0
    low, high = min(prices) - air, max(prices) + air

    def x(hour: float) -> float:
        return LEFT + (hour + fan.back) / (fan.back + last) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    shapes = [Shape("area", ((0, 0), (WIDTH, 0), (WIDTH, HEIGHT), (0, HEIGHT)), PAPER)]
    for value in round_prices(low, high, 6):
        shapes.append(Shape("line", ((LEFT, y(value)), (WIDTH - RIGHT, y(value))), RULE, 1.0))
        shapes.append(Shape("text", ((LEFT - 8, y(value) + 4),), SOFT, 12, scale(value), "end"))
    for (below, above), colour in zip(BANDS, FAN):
        edge = [(x(hour), y(fan.at(above, hour))) for hour in hours] + [(x(hour), y(fan.at(below, hour))) for hour in reversed(hours)]
        shapes.append(Shape("area", tuple(edge), colour))
    shapes.append(Shape("line", tuple((x(hour), y(fan.at(0.5, hour))) for hour in hours), MEDIAN, 2.0))
    half = 0.32 * (x(1) - x(0))
    for bar in fan.history:
        colour, middle = UP if bar.close >= bar.open else DOWN, x(bar.hour - 0.5)
        shapes.append(Shape("line", ((middle, y(bar.high)), (middle, y(bar.low))), colour, 1.0))
        top, foot = y(max(bar.open, bar.close)), y(min(bar.open, bar.close))
        foot = max(foot, top + 1.0)  # a candle that went nowhere is seen too
        shapes.append(Shape("area", ((middle - half, top), (middle + half, top), (middle + half, foot), (middle - half, foot)), colour))
    shapes.append(Shape("line", ((x(0), TOP), (x(0), HEIGHT - BOTTOM)), SOFT, 1.0))
    return shapes + _words(forecast, fan, scale, quote, x, y)


def _words(forecast: Map, fan: Fan, scale: PriceScale, quote: str, x: Any, y: Any) -> list[Shape]:
    last, foot = int(fan.hours[-1]), HEIGHT - BOTTOM
    shapes = []
    for hour in range(-int(fan.back) // 12 * 12, last + 1, 12):
        if hour >= -fan.back:
            clock = stamp(forecast["cutoff"] + hour * HOUR_MS, zone=False)
            shapes.append(Shape("text", ((x(hour), foot + 18),), SOFT, 12, f"{hour:+} h" if hour else "close", "middle"))
            shapes.append(Shape("text", ((x(hour), foot + 34),), SOFT, 12, clock[-5:], "middle"))
    free: list[float] = []
    for level in (0.5, 0.975, 0.025, 0.9, 0.1, 0.75, 0.25):
        at = y(fan.at(level, last))
        if all(abs(at - other) >= 14 for other in free):
            free.append(at)
            name = "median" if level == 0.5 else f"{100 * level:g} %"
            shapes.append(Shape("text", ((WIDTH - RIGHT + 8, at + 4),), INK, 12, f"{scale(fan.at(level, last))} {name}"))
    head = f"{forecast['symbol']}  {price(forecast['close'])} {quote}"
    up = "P(up) " + ", ".join(f"{percent(forecast['p_up'][i])} in {forecast['horizons'][i]} h" for i in (0, -1))
    stale = "; stale" if forecast["stale"] else ""
    shapes.append(Shape("text", ((LEFT, 24),), INK, 18, head))
    shapes.append(Shape("text", ((LEFT, 44),), SOFT, 12, f"{stamp(forecast['cutoff'])}{stale}; {up}; model {forecast['model']}"))
    words = f"Bands: 50, 80 and 95 % of outcomes. Prices in {scale.unit}. Times in UTC."
    shapes.append(Shape("text", ((LEFT, HEIGHT - 8),), SOFT, 12, words))
    return shapes


def svg(shapes: list[Shape]) -> str:
    """The picture as one SVG document."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
        ' font-family="system-ui, Helvetica, Arial, sans-serif">'
    ]
    for kind, points, colour, width, text, anchor in shapes:
        places = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
        if kind == "area":
            parts.append(f'<polygon points="{places}" fill="{colour}"/>')
        elif kind == "line":
            parts.append(f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="{width:g}"/>')
        else:
            (a, b), *_ = points
            parts.append(
                f'<text x="{a:.1f}" y="{b:.1f}" fill="{colour}" font-size="{width:g}" text-anchor="{anchor}">{escape(text)}</text>'
            )
    return "".join([*parts, "</svg>\n"])


def _png(shapes: list[Shape], path: Path, stream: BinaryIO) -> None:
    try:
        from PIL import Image, ImageDraw, ImageFont
    except ImportError:
        raise MissingPackage("a PNG needs", "pillow", instead=f"name {path.with_suffix('.svg').name}") from None
    fine = FINE * 2
    image = Image.new("RGB", (WIDTH * fine, HEIGHT * fine), PAPER)
    pen = ImageDraw.Draw(image)
    for kind, points, colour, width, text, anchor in shapes:
        places = [(a * fine, b * fine) for a, b in points]
        if kind == "area":
            pen.polygon(places, fill=colour)
        elif kind == "line":
            pen.line(places, fill=colour, width=max(1, round(width * fine)))
        else:
            side = {"start": "l", "middle": "m", "end": "r"}[anchor]
            pen.text(places[0], text, fill=colour, font=ImageFont.load_default(width * fine), anchor=f"{side}s")
    image.resize((WIDTH * FINE, HEIGHT * FINE), Image.Resampling.LANCZOS).save(stream, "PNG", optimize=True)


def write(path: Path, forecast: Map, candles: Map) -> None:
    """Write the picture to ``path``, in the kind that its ending names. Raises `MissingPackage` where it cannot be drawn."""
    shapes = draw(forecast, candles)
    with files.written(path) as stream:
        if path.suffix.lower() == ".png":
            _png(shapes, path, stream)
        else:
            stream.write(svg(shapes).encode())
