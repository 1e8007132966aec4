"""Numbers as text, and the pieces of HTML that the page is put together from. What is not known is a dash; every text is escaped here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final, NamedTuple

UNKNOWN: Final = "–"
MINUS: Final = "\u2212"
NAMES: Final = {"model": "the model alone", "log_har": "log-HAR", "ewma": "EWMA", "ewma_season": "EWMA × season"}
COLOURS: Final = {"log_har": "r1", "ewma_season": "r2", "ewma": "r3", "random_walk": "r4"}


def fixed(value: float, digits: int = 1, sign: bool = False) -> str:
    """A number with so many decimals and a true minus."""
    if not math.isfinite(value):
        return UNKNOWN
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")  # a rounded nothing has no sign
    return text.replace("-", MINUS)


def percent(share: float, digits: int = 1, sign: bool = False) -> str:
    """A share as a percentage: 0.8 -> 80.0 %."""
    text = fixed(100 * share, digits, sign)
    return text if text == UNKNOWN else f"{text}\u202f%"


def price(value: float) -> str:
    """A price, four significant figures, never with an exponent."""
    if not math.isfinite(value):
        return UNKNOWN
    places = max(0, 3 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{min(places, 12)}f}"


def date(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")


def moment(ms: float) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def short_date(ms: float) -> str:
    when = datetime.fromtimestamp(ms / 1000, UTC)
    return f"{when.day} {when:%b}"


def name_of(forecaster: str) -> str:
    """The forecaster's name for people."""
    return NAMES.get(forecaster, forecaster.replace("_", " "))


def colours(references: Sequence[str]) -> dict[str, str]:
    """A colour's class for each reference, the same on every page."""
    return {name: COLOURS.get(name, "r5") for name in references}


def keys(entries: Iterable[tuple[str, str]]) -> str:
    """The key of a chart: (class, text)."""
    return '<ul class="keys">' + "".join(f'<li class="{kind}"><i></i>{escape(text)}</li>' for kind, text in entries) + "</ul>"


def figure(title: str, svg: str, caption: str = "") -> str:
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure><h3>{escape(title)}</h3>{svg}{below}</figure>"


def section(anchor: str, title: str, reading: str, body: str) -> str:
    """``reading``: how it is to be read, in a sentence or two."""
    return f'<section id="{anchor}"><h2>{escape(title)}</h2><p class="soft">{escape(reading)}</p>{body}</section>'


class Cell(NamedTuple):
    """A table's cell: text, class, and the value that it is sorted by."""

    text: str
    kind: str = ""
    value: float | None = None


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell | str]], *, identity: str = "", tall: bool = False) -> str:
    """A table that scrolls in its own box; with an identity it can be sorted and searched. A head that begins with < stands at the left."""
    head = "".join(f'<th class="left">{escape(text[1:])}</th>' if text.startswith("<") else f"<th>{escape(text)}</th>" for text in heads)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    attributes = f' id="{identity}" class="sortable"' if identity else ""
    return (
        f'<div class="scroll{" tall" if tall else ""}" tabindex="0"><table{attributes}><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _cell(cell: Cell | str) -> str:
    if isinstance(cell, str):
        return f"<td>{escape(cell)}</td>"
    value = "" if cell.value is None else f' data-value="{cell.value:.6g}"' if math.isfinite(cell.value) else ' data-value=""'
    kind = f' class="{cell.kind}"' if cell.kind else ""
    return f"<td{kind}{value}>{escape(cell.text)}</td>"


def plain(figures: Mapping[str, Any]) -> str:
    """Named figures in a line: ``skill 0.0081, t 3.2``."""
    said = []
    for name, value in figures.items():
        if isinstance(value, float):
            said.append(f"{name} {value:.4g}" if math.isfinite(value) else f"{name} {UNKNOWN}")
        elif isinstance(value, Mapping):
            said.append(f"{name} ({plain(value)})")
        else:
            said.append(f"{name} {value}")
    return ", ".join(said)
