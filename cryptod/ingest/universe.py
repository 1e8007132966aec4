"""Which coins are followed, and why the others are not.

Pure rules over what an exchange says of its pairs. The largest by traded value of the last day are followed, but
for those whose price is not their own: a pegged coin's forecast is its peg's, a wrapped coin's is the other coin's.
What the operator includes or excludes by name wins over every rule.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptod.errors import ExchangeError
from cryptod.ingest.kinds import Kinds
from cryptod.ingest.listing import Day
from cryptod.symbol import spelling, split

STAY: Final = 1.2
"""A coin that is followed stays while its rank is within so many times the size: else two coins of about the same volume
would take turns, and each turn costs a backfill and a model."""


@dataclass(frozen=True, slots=True)
class Universe:
    """``symbols`` by quote volume, largest first; ``left_out``: symbol -> why, for coins that volume or a name spoke for."""

    symbols: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    spelt: dict[str, str] = field(default_factory=dict)
    """Name that was asked for -> the exchange's own spelling of it, where they differ (KBONK -> kBONK)."""


def select(
    trading: Mapping[str, bool],
    days: Mapping[str, Day],
    *,
    quote: str,
    size: int,
    include: Sequence[str] = (),
    exclude: Collection[str] = (),
    followed: Collection[str] = (),
    exchange: str = "the exchange",
    said: Mapping[str, str] | None = None,
) -> Universe:
    """Choose ``size`` coins against ``quote``. ``trading``: all pairs, and whether they trade; ``days``: their last day.

    ``said``: pairs that the exchange itself calls something else than a coin, and what. ``include`` is followed whatever
    the rules and the size say, as long as it trades; ``followed`` is followed now.
    `ExchangeError` if there is nothing to follow.
    """
    pairs = against(trading, quote)
    kinds = Kinds(pairs, days, said or {}, quote)
    spelt = {name: own for name in (*include, *exclude) if (own := _own_spelling(name, trading)) != name}
    include, exclude = ([spelt.get(name, name) for name in names] for names in (include, exclude))
    volume = {symbol: days[symbol].quote_volume if symbol in days else 0.0 for symbol in pairs}
    ranked = sorted(pairs, key=lambda symbol: (-volume[symbol], symbol))
    left_out: dict[str, str] = {}

    named = []
    for symbol in dict.fromkeys(include):
        if symbol not in trading:
            left_out[symbol] = f"{exchange} does not have it{_meant(symbol, trading)}"
        elif not trading[symbol]:
            left_out[symbol] = f"it is not trading on {exchange} (halted or delisted)"
        elif symbol not in exclude:
            named.append(symbol)
    left_out |= {
        symbol: f"excluded by the configuration, but {exchange} does not have it{_meant(symbol, trading)}"
        for symbol in exclude
        if symbol not in trading
    }

    sound = []
    for symbol in ranked:
        if symbol in named:
            continue
        reason = (
            _excluded(symbol, exclude)
            or ("" if trading[symbol] else f"it is not trading on {exchange} (halted or delisted)")
            or kinds.reason(symbol)
        )
        if reason:
            left_out.setdefault(symbol, reason)
        elif volume[symbol] > 0:
            sound.append(symbol)
        else:
            left_out[symbol] = "nothing was traded in the last day"

    places = max(0, size - len(named))
    held = [symbol for symbol in sound[: int(STAY * places)] if symbol in followed][:places]
    rest = [symbol for symbol in sound if symbol not in set(held)][: places - len(held)]
    chosen = sorted((*named, *held, *rest), key=lambda symbol: (-volume.get(symbol, 0.0), symbol))
    if not chosen:
        raise ExchangeError(
            f"{exchange} has no coin to follow against {quote}", hint=f"exchange.quote is one of {', '.join(_quotes(trading)) or 'nothing'}"
        )
    for symbol in set(followed) - set(chosen) - set(left_out):
        known = symbol in trading
        left_out[symbol] = f"its volume is no longer among the {size} largest" if known else f"{exchange} does not have it any more"
    # Hundreds of pairs that nobody would have chosen need no reason each; where places stayed free, all of them do.
    smallest = min(volume[symbol] for symbol in (*held, *rest)) if 0 < places == len(held) + len(rest) else 0.0 if places else math.inf
    concern = {*include, *exclude, *followed}
    reasons = {symbol: reason for symbol, reason in left_out.items() if symbol in concern or volume.get(symbol, 0.0) >= smallest}
    return Universe(tuple(chosen), reasons, spelt)


def against(trading: Iterable[str], quote: str) -> list[str]:
    """The pairs that are quoted in ``quote``."""
    return [symbol for symbol in trading if split(symbol).quote == quote]


def unclear(
    trading: Mapping[str, bool], days: Mapping[str, Day], *, quote: str, size: int, said: Mapping[str, str] | None = None
) -> list[str]:
    """Pairs that could be chosen, and of which a few days of candles have to say whether they are pegged: largest first.

    Their price stands where a peg would be, and the exchange gives no high and low of the day.
    """
    pairs = sorted((s for s in against(trading, quote) if trading[s] and s in days), key=lambda s: (-days[s].quote_volume, s))
    kinds = Kinds(pairs, days, said or {}, quote)
    return [symbol for symbol in pairs[: int(2 * STAY * size)] if kinds.unclear(symbol)]


def _own_spelling(name: str, trading: Mapping[str, bool]) -> str:
    """The exchange's spelling of a name: the same letters in other cases, where just one pair has them."""
    if name in trading:
        return name
    plain = spelling(name)
    found = [symbol for symbol in trading if spelling(symbol) == plain]
    return found[0] if len(found) == 1 else name


def _excluded(symbol: str, exclude: Collection[str]) -> str:
    return "excluded by the configuration" if symbol in exclude else ""


def _meant(symbol: str, trading: Iterable[str]) -> str:
    close = difflib.get_close_matches(symbol, list(trading), n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""


def _quotes(trading: Mapping[str, bool]) -> list[str]:
    counts: dict[str, int] = {}
    for symbol in trading:
        quote = split(symbol).quote
        counts[quote] = counts.get(quote, 0) + 1
    return sorted(counts, key=lambda quote: (-counts[quote], quote))[:5]
