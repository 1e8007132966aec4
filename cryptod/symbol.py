"""Symbols: what may be one, what its parts are, and what a person may type for it.

The one place that says what a symbol is. Knows the standard library only, so that `cryptoctl` can use it too. A symbol
is in ccxt's spelling: ``BTC/USDT`` for a spot pair, ``BTC/USDT:USDT`` for a perpetual future and the currency in which
it is settled.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final, NamedTuple

from cryptod.errors import DataError

MAX_LENGTH: Final = 32
"""Characters of a whole symbol, settle currency included. The longest known (``1000000BABYDOGE/USDT:USDT``) has 25."""

_USUAL: Final = re.compile(r"[A-Z0-9]+/[A-Z0-9]+(?::[A-Z0-9]+)?")
_FIRST: Final = ("L", "N", "Sc", "So")
_LATER: Final = (*_FIRST, "M")
_INSIDE: Final = ".-_+!&@' "
"""What a base may have besides letters, marks, digits and signs, but not first. ccxt names coins ``XYZ-TSLA`` and ``FTX Users' Debt``."""
_BLANK: Final = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
"""Letters, marks and pictures that show nothing."""
_SEPARATORS: Final = re.compile(r"[\s/_:.-]+")


class Parts(NamedTuple):
    """``settle`` is empty for a spot pair."""

    base: str
    quote: str
    settle: str


def parse_symbol(text: str) -> str:
    """The symbol as it is, or `DataError` if it is none.

    Letters of any script and either case, their marks, digits, currency signs and pictures; in a base also
    ``.-_+!&@'`` and single spaces. Never controls, invisible characters, marks of direction, slashes or backslashes,
    quotation marks, or anything that HTML, a terminal, a path, CSV or an address would take for its own.
    """
    parts = split(text)
    usual = _USUAL.fullmatch(text) is not None
    if len(text) > MAX_LENGTH or not (usual or (_name(parts.base, _INSIDE) and _name(parts.quote, "._") and _settle(text, parts))):
        raise DataError(
            f"{shown(text)!r} is not a symbol", hint=f"symbols look like BTC/USDT or BTC/USDT:USDT and have at most {MAX_LENGTH} characters"
        )
    return text


def split(symbol: str) -> Parts:
    """The parts of a symbol."""
    base, _, rest = symbol.partition("/")
    quote, _, settle = rest.partition(":")
    return Parts(base, quote, settle)


def of_market(symbol: str, market: str) -> str:
    """The symbol as it is in a market, ``spot`` or ``swap``: a perpetual future of ``BTC/USDT`` is ``BTC/USDT:USDT``."""
    base, quote, settle = split(symbol)
    return symbol if settle or market == "spot" else f"{base}/{quote}:{quote}"


def spelling(text: str) -> str:
    """What two ways to type a coin have in common: no separators, no difference of case or of width."""
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", text).casefold())


def spellings(symbol: str) -> tuple[str, ...]:
    """What may be typed for a symbol, as `spelling` has it: ``btc``, ``btcusdt`` and, of a future, ``btcusdtusdt``."""
    base, quote, settle = split(symbol)
    return tuple(dict.fromkeys(spelling(text) for text in (base, base + quote, base + quote + settle)))


def file_stem(symbol: str) -> str:
    """The symbol as part of a file's name: ``BTC-USDT``, ``BTC-USDT-USDT``."""
    return symbol.replace("/", "-").replace(":", "-")


def from_stem(stem: str) -> str:
    """What `file_stem` was made of; of another file's name no symbol. A linear future's settle currency is its quote currency."""
    rest, _, last = stem.rpartition("-")
    base, _, quote = rest.rpartition("-")
    return f"{base}/{quote}:{last}" if base and quote == last else f"{rest}/{last}"


def shown(text: str) -> str:
    """Text that is no symbol, cut short and without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:MAX_LENGTH])


def _name(text: str, inside: str) -> bool:
    if not text or text[-1] == " " or "  " in text or not _is(text[0], _FIRST):
        return False
    return all(letter in inside or _is(letter, _LATER) for letter in text[1:])


def _is(letter: str, categories: tuple[str, ...]) -> bool:
    return letter.isprintable() and not _BLANK.match(letter) and unicodedata.category(letter).startswith(categories)


def _settle(text: str, parts: Parts) -> bool:
    return _name(parts.settle, "._") if ":" in text else True
