"""Finding a coin by what a person types.

Knows how symbols are spelt; the coins are given. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Final

from cryptod.errors import DataError, RequestError
from cryptod.market import parse_symbol

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
                raise RequestError(
                    "unknown_symbol", f"{symbol} is not followed: {reason}", hint=f"`cryptoctl symbols add {symbol}` follows it"
                )
        if not self.followed:
            raise RequestError("unknown_symbol", "no coin is followed yet", hint="the exchange is being asked: `cryptoctl status`")
        near = difflib.get_close_matches(plain, self._spellings, n=3, cutoff=0.6)
        names = list(dict.fromkeys(self._spellings[spelling] for spelling in near))
        hint = f"did you mean {' or '.join(names)}?" if names else "`cryptoctl symbols` lists the coins that are followed"
        raise RequestError("unknown_symbol", f"there is no coin {shown}", hint=hint)


def spelt_out(text: str, quote: str) -> str:
    """The symbol that is meant by ``DOGE/USDT``, ``dogeusdt``, ``doge-usdt`` or ``doge`` where coins are followed against ``quote``.

    For coins that nobody follows yet. `RequestError` (bad_request) for what cannot be one.
    """
    parts = [part for part in _SEPARATORS.split(text.strip().upper()[:64]) if part]
    hint = f"coins are followed against {quote}: name it like DOGE/{quote}, or DOGE alone"
    if len(parts) == 2 and parts[1] != quote:
        raise RequestError("bad_request", f"{'/'.join(parts)} is not quoted in {quote}", hint=hint)
    base = parts[0] if len(parts) == 2 else "".join(parts).removesuffix(quote)
    try:
        return parse_symbol(f"{base}/{quote}")
    except DataError:
        shown = "".join(letter if letter.isprintable() else "?" for letter in text[:32])
        raise RequestError("bad_request", f"{shown!r} cannot be a coin's name", hint=hint) from None
