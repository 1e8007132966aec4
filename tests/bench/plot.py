"""A chart with two logarithmic axes, as an SVG file of its own: for what grows with something. Knows nothing of what is drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 40, 48
COLOURS = ("#1f6feb", "#d1440c", "#1a7f37", "#8250df", "#9a6700", "#57606a")
LETTER = 12
"""Pixels between two names, at least."""


class LogLog:
    """Lines through points above zero; each is named at its right end."""

    def __init__(self, title: str, across: str, up: str) -> None:
        self._title, self._across, self._up = title, across, up
        self._lines: list[tuple[str, Sequence[float], Sequence[float]]] = []

    def line(self, name: str, x: Sequence[float], y: Sequence[float]) -> None:
        self._lines.append((name, x, y))

    def svg(self) -> str:
        """The document."""
        x = [math.log10(value) for _, values, _ in self._lines for value in values]
        y = [math.log10(value) for _, _, values in self._lines for value in values]
        low, high = math.floor(min(y)), math.ceil(max(y))
        left, right = min(x), max(max(x), min(x) + 1e-9)

        def px(value: float) -> float:
            return LEFT + (math.log10(value) - left) / (right - left) * (WIDTH - LEFT - RIGHT)

        def py(value: float) -> float:
            return HEIGHT - BOTTOM - (math.log10(value) - low) / max(high - low, 1) * (HEIGHT - TOP - BOTTOM)

        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
            f'<title>{escape(self._title)}</title><rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            f'<text x="{LEFT}" y="20" font-size="15">{escape(self._title)}</text>',
            f'<text x="{LEFT}" y="{TOP - 6}" fill="#57606a">{escape(self._up)}</text>',
            f'<text x="{LEFT + 200}" y="{HEIGHT - 8}" fill="#57606a">{escape(self._across)}</text>',
        ]
        for power in range(low, high + 1):
            at = py(10.0**power)
            parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#d0d7de"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end" fill="#57606a">{10.0**power:,g}</text>')
        parts += [
            f'<text x="{px(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#57606a">{value:,g}</text>'
            for value in sorted({value for _, values, _ in self._lines for value in values})
        ]
        lowest = float("inf")
        coloured = list(zip(self._lines, COLOURS * (1 + len(self._lines) // len(COLOURS))))
        for (name, xs, ys), colour in sorted(coloured, key=lambda row: row[0][2][-1]):
            points = [(px(a), py(b)) for a, b in zip(xs, ys, strict=True)]
            path = "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in points]
            lowest = min(points[-1][1] + 4, lowest - LETTER)
            parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{lowest:.1f}" fill="{colour}">{escape(name)}</text>')
        return "\n".join([*parts, "</svg>\n"])
