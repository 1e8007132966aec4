"""Charts as inline SVG: axes, lines, bands, bars, dots and stacks, in plain numbers and CSS classes.

Knows nothing of forecasts. Colours are classes of `style.py`, so that the page's light and dark shades reach into the charts. A value that
is not finite is left out: a line breaks, a bar is not there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

Numbers = Sequence[float] | npt.NDArray[np.float64]
Text = Callable[[float], str]
SMALL: Final = (340, 200, 44)
WIDE: Final = (520, 270, 54)
"""Width, height and the left margin for the numbers of the y axis: three charts or two side by side on a wide screen."""
RIGHT, TOP, BOTTOM = 10, 12, 26
STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers from ``low`` to ``high``, about as many as wanted."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low] if math.isfinite(low) else []
    power = 10.0 ** math.floor(math.log10(span / max(wanted, 1)))
    step = min((s * power for s in STEPS), key=lambda step: abs(math.floor(high / step + 1e-9) - math.ceil(low / step - 1e-9) + 1 - wanted))
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def bounds(*series: Numbers, include: Iterable[float] = (), pad: float = 0.08, least: float = 0.0) -> tuple[float, float]:
    """Lowest and highest finite value of all series, with air around them and at least ``least`` between them."""
    values = np.concatenate([np.asarray([*include], np.float64), *(np.asarray(each, np.float64).ravel() for each in series)])
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    air = max((high - low) * pad, (least - (high - low)) / 2, abs(high) * 1e-6, 1e-9)
    return low - air, high + air


class Chart:
    """One pair of axes. ``x`` and ``y``: (lowest, highest). Draw, then `svg`."""

    def __init__(self, title: str, x: tuple[float, float], y: tuple[float, float], wide: bool = False, height: int = 0) -> None:
        self.title, self.wide = title, wide
        self.width, usual, self.left = WIDE if wide else SMALL
        self.height = height or usual
        self._x, self._y = x, y
        self._parts: list[str] = []

    def px(self, x: float) -> float:
        low, high = self._x
        return self.left + (x - low) / (high - low) * (self.width - self.left - RIGHT)

    def py(self, y: float) -> float:
        low, high = self._y
        return self.height - BOTTOM - (y - low) / (high - low) * (self.height - TOP - BOTTOM)

    def y_axis(self, text: Text, at: Sequence[float] | None = None) -> Chart:
        """Lines across with their numbers at the left."""
        for value in ticks(*self._y, 5 if self.wide else 4) if at is None else at:
            y = self.py(value)
            kind = "zero" if abs(value) < 1e-12 else "rule"
            self._parts.append(f'<path class="{kind}" d="M{self.left} {y:.1f}H{self.width - RIGHT}"/>')
            self._parts.append(f'<text class="tick" x="{self.left - 6}" y="{y + 3.5:.1f}" text-anchor="end">{escape(text(value))}</text>')
        return self

    def x_axis(self, at: Sequence[float], names: Sequence[str]) -> Chart:
        """Names below: all of them, or every so manyth, so that they do not touch."""
        letter = 4.1 if self.wide else 3.4  # half a letter's width; on a phone those of wide charts are drawn larger
        spans = [(self.px(value), letter * len(name)) for value, name in zip(at, names, strict=True)]
        for every in range(1, len(spans) + 1):
            if all(right - left >= half + other + 5 for (left, half), (right, other) in pairwise(spans[::every])):
                break
        else:
            return self
        for (x, half), name in zip(spans[::every], names[::every], strict=True):
            if x + half <= self.width + 8:
                self._parts.append(f'<text class="tick" x="{x:.1f}" y="{self.height - 9}" text-anchor="middle">{escape(name)}</text>')
        return self

    def line(self, x: Numbers, y: Numbers, kind: str, name: str = "") -> Chart:
        path, drawing = [], False
        for a, b in zip(x, y, strict=True):
            if math.isfinite(a) and math.isfinite(b):
                path.append(f"{'L' if drawing else 'M'}{self.px(a):.1f} {self.py(b):.1f}")
                drawing = True
            else:
                drawing = False
        if path:
            self._parts.append(f'<path class="line {kind}" d="{"".join(path)}">{_title(name)}</path>')
        return self

    def band(self, x: Numbers, low: Numbers, high: Numbers, kind: str) -> Chart:
        corners = [(a, b) for a, b in [*zip(x, high, strict=True), *reversed(list(zip(x, low, strict=True)))]]
        if corners and all(math.isfinite(a) and math.isfinite(b) for a, b in corners):
            path = "L".join(f"{self.px(a):.1f} {self.py(b):.1f}" for a, b in corners)
            self._parts.append(f'<path class="area {kind}" d="M{path}Z"/>')
        return self

    def dots(self, x: Numbers, y: Numbers, kind: str, names: Sequence[str] = (), radius: float = 2.6) -> Chart:
        for i, (a, b) in enumerate(zip(x, y, strict=True)):
            if math.isfinite(a) and math.isfinite(b):
                name = _title(names[i]) if names else ""
                self._parts.append(f'<circle class="dot {kind}" cx="{self.px(a):.1f}" cy="{self.py(b):.1f}" r="{radius}">{name}</circle>')
        return self

    def whisker(self, x: float, low: float, high: float, kind: str) -> Chart:
        if math.isfinite(low) and math.isfinite(high):
            self._parts.append(f'<path class="line thin {kind}" d="M{self.px(x):.1f} {self.py(low):.1f}V{self.py(high):.1f}"/>')
        return self

    def bars(
        self, x: Numbers, y: Numbers, kinds: Sequence[str], names: Sequence[str] = (), share: float = 0.8, width: float = 1.0
    ) -> Chart:
        """Bars from 0, ``share`` of ``width`` (in units of x) wide."""
        half = share * width / 2
        for i, (a, b) in enumerate(zip(x, y, strict=True)):
            if math.isfinite(b):
                top, foot = self.py(max(b, 0.0)), self.py(min(b, 0.0))
                left, right = self.px(a - half), self.px(a + half)
                self._parts.append(
                    f'<rect class="bar {kinds[i]}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
                    f'height="{max(foot - top, 0.6):.1f}">{_title(names[i]) if names else ""}</rect>'
                )
        return self

    def across(self, y: float, kind: str) -> Chart:
        """A line through the whole width."""
        self._parts.append(f'<path class="line {kind}" d="M{self.left} {self.py(y):.1f}H{self.width - RIGHT}"/>')
        return self

    def svg(self) -> str:
        kind = ' class="wide"' if self.wide else ""
        start = f'<svg{kind} viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.title)}">'
        return f"{start}{''.join(self._parts)}</svg>"


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""
