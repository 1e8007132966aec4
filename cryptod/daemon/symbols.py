"""Finding a coin by what a person types.

Knows how symbols are spelt; the coins are given. Pure.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from cryptod.errors import DataError, RequestError
from cryptod.symbol import parse_symbol, shown, spelling, spellings


class SymbolIndex:
    """Finds a coin by any usual spelling: ``BTC/USDT``, ``btcusdt``, ``btc-usdt``, ``BTC``."""

    def __init__(self, followed: tuple[str, ...], left_out: Mapping[str, str]) -> None:
        self.followed = frozenset(followed)
        self._left_out = left_out
        self._spellings = _indexed(followed)

    def find(self, text: str) -> str:
        """The followed coin that is meant, or `RequestError` (unknown_symbol) with what is near."""
        if text in self.followed:
            return text
        plain = spelling(text)
        found = self._spellings.get(plain)
        if found is not None:
            return found
        for symbol, reason in self._left_out.items():
            if plain in spellings(symbol):
                raise RequestError(
                    "unknown_symbol", f"{symbol} is not followed: {reason}", hint=f"`cryptoctl symbols add {symbol}` follows it"
                )
        if not self.followed:
            raise RequestError("unknown_symbol", "no coin is followed yet", hint="the exchange is being asked: `cryptoctl status`")
        near = difflib.get_close_matches(plain, self._spellings, n=3, cutoff=0.6)
        names = list(dict.fromkeys(self._spellings[one] for one in near))
        hint = f"did you mean {' or '.join(names)}?" if names else "`cryptoctl symbols` lists the coins that are followed"
        raise RequestError("unknown_symbol", f"there is no coin {shown(text)}", hint=hint)


def spelt_out(text: str, quote: str, settle: str = "", known: Iterable[str] = ()) -> str:
    """The symbol that is meant by ``DOGE/USDT``, ``dogeusdt``, ``doge-usdt`` or ``doge`` where coins are followed against ``quote``.

    One of ``known`` if it fits. Else capitals are assumed, but for names like ``kBONK``; the exchange's own spelling is
    found out when it is asked. ``settle`` is the settle currency of perpetual futures. `RequestError` (bad_request) for
    what cannot be a symbol.
    """
    typed = text.strip()[:64]
    listed = tuple(known)
    if typed in listed:
        return typed
    found = _indexed(listed).get(spelling(typed))
    if found is not None:
        return found
    hint = f"coins are followed against {quote}: name it like DOGE/{quote}, or DOGE alone"
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
