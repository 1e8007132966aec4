"""The table of what was tried, as docs/exchanges.md has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptod.ingest.tried import spacing
from tests.exchanges.server import Shape

COINS: Final = 100
HOURS: Final = 6 * 730
"""Six months, which `data.months_back` asks for."""


def table(shapes: Sequence[Shape]) -> str:
    lines = [
        "| exchange | market | history kept | rows in an answer | requests, seconds for 100 coins and six months | what does not work |",
        "|---|---|---|---:|---:|---|",
    ]
    for shape in sorted(shapes, key=lambda shape: (shape.market != "spot", shape.id)):
        hours = min(HOURS, shape.keeps or HOURS)
        requests = COINS * -(-hours // shape.page)
        seconds = requests * spacing(shape.id, shape.market)
        kept = "all" if shape.keeps is None else f"the newest {shape.keeps:,} hours"
        lines.append(f"| {shape.id} | {shape.market} | {kept} | {shape.page:,} | {requests:,}, {_rounded(seconds)} | {_flaws(shape)} |")
    return "\n".join(lines) + "\n"


def _flaws(shape: Shape) -> str:
    flaws = []
    if shape.since is None and shape.until is None and shape.window is None:
        flaws.append(f"gives its newest {shape.keeps:,} rows only: hours that a longer pause missed stay unknown")
    if not shape.volumes:
        flaws.append("tells no volumes: coins are chosen by a day of candles, a request for each pair")
    return "; ".join((*flaws, *((shape.note,) if shape.note else ()))) or "nothing known"


def _rounded(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
