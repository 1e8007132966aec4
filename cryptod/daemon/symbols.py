"""Finding a coin by what a person types.

Knows how symbols are spelt; the coins are given. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

from cryptod.errors import RequestError

_SEPARATORS: Final = re.compile(r"[\s/_:.-]+")


class SymbolIndex:
    """Finds a coin by any usual spelling: ``BTC/USDT``, ``btcusdt``, ``btc-usdt``, ``BTC``."""

    def __init__(self, followed: tuple[str, ...], left_out: Mapping[str, str]) -> None:
        self.followed = frozenset(followed)
        self._left_out = left_out
        self._spellings: dict[str, str] = {}
        for symbol in reversed(followed):  # the larger coin, listed first, wins a spelling that fits two
            self._spellings[symbol.split("/")[0]] = symbol
            self._spellings[symbol.replace("/", "")] = symbol

    def find(self, text: str) -> str:
        """The followed coin that is meant, or `RequestError` (unknown_symbol) with what is near."""
        if text in self.followed:
            return text
        plain = _SEPARATORS.sub("", text.upper())
        found = self._spellings.get(plain)
        if found is not None:
            return found
        shown = "".join(letter if letter.isprintable() else "?" for letter in text[:32])
        for symbol, reason in self._left_out.items():
            if plain in (symbol.replace("/", ""), symbol.split("/")[0]):
                raise RequestError("unknown_symbol", f"{symbol} is not followed: {reason}", hint="name it in universe.include to follow it")
        near = difflib.get_close_matches(plain, self._spellings, n=3, cutoff=0.6)
        names = list(dict.fromkeys(self._spellings[spelling] for spelling in near))
        hint = f"did you mean {' or '.join(names)}?" if names else "`cryptoctl symbols` lists the coins that are followed"
        raise RequestError("unknown_symbol", f"there is no coin {shown}", hint=hint)
