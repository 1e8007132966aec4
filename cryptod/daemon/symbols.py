"""Finding a coin by what a person types.

Knows how symbols are spelt; the coins are given. Pure.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Final

from cryptod.daemon.nearest import Nearest
from cryptod.errors import DataError, RequestError
from cryptod.symbol import MAX_LENGTH, parse_symbol, shown, spelling, spellings, split

LONGEST: Final = MAX_LENGTH
"""Characters of what is typed for a symbol."""


class SymbolIndex:
    """Finds a coin by any usual spelling: ``BTC/USDT``, ``btcusdt``, ``btc-usdt``, ``BTC``. A name costs a few look-ups, known or not."""

    def __init__(self, followed: tuple[str, ...], left_out: Mapping[str, str]) -> None:
        self.followed = frozenset(followed)
        self._reasons = left_out
        self._left_out = _indexed(tuple(left_out))
        self._spellings = _indexed(followed)
        self._quotes = frozenset(spelling(split(symbol).quote) for symbol in followed)
        self._near = Nearest(spelling(split(symbol).base) for symbol in followed)

    def known(self, text: str) -> str | None:
        """The coin that is meant, be it followed or left out, or None."""
        if len(text) > LONGEST:
            return None
        if text in self.followed:
            return text
        plain = spelling(text)
        return self._spellings.get(plain) or self._left_out.get(plain)

    def find(self, text: str, *, suggest: bool = True) -> str:
        """The followed coin that is meant, or `RequestError` (unknown_symbol); with ``suggest``, it says what is near."""
        if len(text) > LONGEST:
            hint = f"a name has {LONGEST} characters at most"
            raise RequestError("unknown_symbol", f"there is no coin {shown(text)}... ({len(text)} characters)", hint=hint)
        if text in self.followed:
            return text
        plain = spelling(text)
        found = self._spellings.get(plain)
        if found is not None:
            return found
        symbol = self._left_out.get(plain)
        if symbol is not None:
            text, hint = f"{symbol} is not followed: {self._reasons[symbol]}", f"`cryptoctl symbols add {shlex.quote(symbol)}` follows it"
            raise RequestError("unknown_symbol", text, hint=hint)
        if not self.followed:
            raise RequestError("unknown_symbol", "no coin is followed yet", hint="the exchange is being asked: `cryptoctl status`")
        names = self._suggested(plain) if suggest else []
        hint = f"did you mean {' or '.join(names)}?" if names else "`cryptoctl symbols` lists the coins that are followed"
        raise RequestError("unknown_symbol", f"there is no coin {shown(text)}", hint=hint)

    def _suggested(self, plain: str) -> list[str]:
        base = next((plain.removesuffix(quote) for quote in self._quotes if plain.endswith(quote)), plain)
        return [self._spellings[word] for word in self._near.find(base, 3)]


def spelt_out(text: str, quote: str, settle: str = "") -> str:
    """The symbol that is meant by ``DOGE/USDT``, ``dogeusdt``, ``doge-usdt`` or ``doge`` where coins are followed against ``quote``.

    For coins that nobody follows yet (`SymbolIndex.known` has the others). Capitals are assumed, but for names like ``kBONK``;
    the exchange's own spelling is found out when it is asked. ``settle`` is the settle currency of perpetual futures.
    `RequestError` (bad_request) for what cannot be a symbol.
    """
    hint = f"coins are followed against {quote}: name it like DOGE/{quote}, or DOGE alone"
    if len(text) > LONGEST:
        raise RequestError("bad_request", f"{shown(text)!r}... ({len(text)} characters) cannot be a coin's name", hint=hint)
    typed = text.strip()
    base = re.sub(rf"(?:[\s/_:.-]*{re.escape(quote)}){{1,2}}$", "", typed, flags=re.IGNORECASE)
    other = re.fullmatch(r"([^\s/_:.-]+)[\s/_:.-]+([^\s/_:.-]+)", base) if base == typed else None
    if other is not None:
        raise RequestError("bad_request", f"{shown(f'{other[1]}/{other[2]}'.upper())} is not quoted in {quote}", hint=hint)
    base = base if base[:1].islower() and base != base.lower() else base.upper()
    try:
        return parse_symbol(f"{base}/{quote}" + (f":{settle}" if settle else ""))
    except DataError:
        raise RequestError("bad_request", f"{shown(text)!r} cannot be a coin's name", hint=hint) from None


def _indexed(symbols: tuple[str, ...]) -> dict[str, str]:
    """Spelling -> symbol. The larger coin, listed first, wins a spelling that fits two."""
    index: dict[str, str] = {}
    for symbol in reversed(symbols):
        for text in spellings(symbol):
            index[text] = symbol
    return index
