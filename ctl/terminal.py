"""What is drawn with: paint, aligned tables, bars, sparklines; plain text where there is no terminal.

Knows widths and escape sequences, and nothing of what is shown. Built by hand because cryptoctl has to start, ask and
print in some 50 ms; a table library alone takes longer to import.
"""

from __future__ import annotations

import os
import re
from itertools import pairwise

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import TextIO

    Cell = str | tuple[str, str]
    """Text, or text and the name of its paint."""

PAINTS = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_SPARKS = "▁▂▃▄▅▆▇█"
_PARTS = " ▏▎▍▌▋▊▉"
_TOGETHER = re.compile(r"`[^`]+`|\d (?:%|us|ms|s|min|h|d|B|[kMGT]B)(?!\w)")
"""What a line does not end within: a command, and a figure and its unit."""


class Screen:
    """Where a page is drawn: its width in columns, whether it is a terminal, and whether it has colours."""

    def __init__(self, *, width: int = 80, height: int = 24, colour: bool = False, live: bool = False) -> None:
        self.width, self.height, self.colour, self.live = width, height, colour, live

    def paint(self, text: str, name: str) -> str:
        return f"\x1b[{PAINTS[name]}m{text}\x1b[0m" if self.colour and name and text else text

    def table(
        self, rows: Iterable[Sequence[Cell]], align: str, heads: Sequence[str] = (), *, fold: bool = False, gap: int = 2
    ) -> list[str]:
        """Lines of columns, ``gap`` spaces apart; ``align`` has ``<`` or ``>`` for each.

        They are closer where there is no room. With ``fold`` the last column is wrapped where it would leave the screen.
        """
        grid: list[list[tuple[str, str]]] = [[(head, "bold") for head in heads]] if heads else []
        grid += [[(clean(cell), "") if isinstance(cell, str) else (clean(cell[0]), cell[1]) for cell in row] for row in rows]
        widths = [max((columns(row[i][0]) for row in grid if i < len(row)), default=0) for i in range(len(align))]
        gap = gap if fold or sum(widths) + gap * (len(widths) - 1) <= self.width else 1
        before = sum(widths[:-1]) + gap * (len(widths) - 1)
        lines = []
        for row in grid:
            cells = []
            *first, (text, paint) = row
            for i, (cell, name) in enumerate(first):
                pad = " " * (widths[i] - columns(cell))
                cells.append(pad + self.paint(cell, name) if align[i] == ">" else self.paint(cell, name) + pad)
            head, *more = (wrap(text, max(16, self.width - before)) if fold else [text]) or [""]
            pad = " " * (widths[-1] - columns(head)) if align[-1] == ">" else ""
            lines.append((" " * gap).join([*cells, pad + self.paint(head, paint)]).rstrip())
            lines += [" " * before + self.paint(line, paint) for line in more]
        return lines


def screen(stream: TextIO, environ: Mapping[str, str]) -> Screen:
    """The screen behind ``stream``: a terminal's own size and colours (unless NO_COLOR or TERM=dumb), else 80 plain columns."""
    if not stream.isatty():
        return Screen(width=_figure(environ.get("COLUMNS"), 80))
    try:
        width, height = os.get_terminal_size(stream.fileno())
    except OSError:
        width, height = 80, 24
    dumb = environ.get("TERM", "dumb") == "dumb"
    return Screen(width=width or 80, height=height or 24, colour=not dumb and not environ.get("NO_COLOR"), live=not dumb)


def _figure(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isdigit() and 20 <= int(text) <= 1000 else otherwise


def clean(text: str) -> str:
    """Text that may come from an exchange, without anything that moves a cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " if c in "\n\t" else "?" for c in text)


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: 2 for a Chinese sign or a picture, none for a mark on a letter."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(0 if category(letter) in ("Mn", "Me") else 2 if east_asian_width(letter) in "WF" else 1 for letter in text)


def wrap(text: str, width: int, indent: str = "") -> list[str]:
    """Words in lines of at most ``width`` columns; the lines after the first begin with ``indent``."""
    lines, line = [], ""
    for joined in _TOGETHER.sub(lambda found: found[0].replace(" ", "\0"), clean(text)).split():
        word = joined.replace("\0", " ")
        if line.strip() and columns(line) + 1 + columns(word) > width:
            lines.append(line)
            line = indent + word
        else:
            line = f"{line} {word}" if line.strip() else line + word
    return [*lines, line] if line.strip() else lines


def spark(values: Sequence[float], width: int, span: tuple[float, float] | None = None) -> str:
    """A sparkline of ``width`` characters from the low to the high of ``span``, by default of the values; each counts once."""
    if not values:
        return ""
    width = min(width, len(values))
    edges = [round(i * len(values) / width) for i in range(width + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = span or (min(means), max(means))
    if not high > low:
        return _SPARKS[0] * width
    return "".join(_SPARKS[max(0, min(7, int(8 * (mean - low) / (high - low))))] for mean in means)


def bar(share: float, width: int) -> str:
    """A bar of ``width`` characters, drawn to an eighth of one."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + (_PARTS[part] if part else "")).ljust(width, "·")
