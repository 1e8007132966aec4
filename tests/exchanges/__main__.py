"""Write the table of docs/exchanges.md anew: ``python -m tests.exchanges``."""

from __future__ import annotations

import re
from pathlib import Path

from cryptod.errors import ConfigError
from cryptod.ingest.tried import TRIED, check
from tests.exchanges.shapes import SHAPES
from tests.exchanges.table import table

PAGE = Path(__file__).parent.parent.parent / "docs" / "exchanges.md"


def main() -> None:
    import ccxt.async_support as client

    refused, untried = [], []
    for name in sorted(file.stem for file in Path(client.__file__).parent.glob("*.py") if file.stem != "__init__"):
        if name not in TRIED["spot"]:
            try:
                check(name, "spot")
            except ConfigError:
                refused.append(name)
            else:
                untried.append(name)
    page = PAGE.read_text()
    text = re.sub(r"(<!-- table -->\n).*?(<!-- end -->)", lambda found: found[1] + table(SHAPES) + found[2], page, flags=re.DOTALL)
    text = re.sub(r"(?m)^\*\*Refused\*\*: .*$", f"**Refused**: {', '.join(refused)}.", text)
    text = re.sub(r"(?m)^\*\*Not tried\*\*: .*$", f"**Not tried**: {', '.join(untried)}.", text)
    PAGE.write_text(text)


main()
