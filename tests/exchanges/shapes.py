"""The exchanges that are tried.

Paths, parameters, rows and bodies are those that ccxt's own parsers read, and of recorded answers where there are any. The
rules of the candle endpoints are the documented ones. Where a document is silent, the rule is the one that ccxt relies on.
"""

from __future__ import annotations

from typing import Final

from tests.exchanges.large import LARGE
from tests.exchanges.others import OTHERS
from tests.exchanges.server import Shape
from tests.exchanges.swaps import SWAPS

SHAPES: Final[tuple[Shape, ...]] = (*LARGE, *OTHERS, *SWAPS)
