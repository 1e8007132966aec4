"""Which coins are followed, and why the others are not.

Pure rules over what an exchange says of its spot pairs. The largest by traded value of the last day are followed, but
for those whose price is not their own: a pegged coin's forecast is its peg's, a wrapped coin's is the other coin's.
What the operator includes or excludes by name wins over every rule.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptod.errors import DataError, ExchangeError
from cryptod.ingest.exchange import Day
from cryptod.market import parse_symbol

STAY: Final = 1.2
"""A coin that is followed stays while its rank is within so many times the size: else two coins of about the same volume
would take turns, and each turn costs a backfill and a model."""

_NAMES: Final = {
    "a stablecoin": (
        "USDT USDC BUSD TUSD USDP PAX DAI FDUSD USDD GUSD SUSD LUSD FRAX UST USTC USDN USDJ USDX USDE USDS SUSDE SUSDS PYUSD USD0 USD1 "
        "USDB USDBC USDY CUSD MUSD HUSD USDK USDG USDQ USDR RLUSD CRVUSD GHO DOLA MIM FEI VAI ALUSD XUSD BFUSD RUSD USDTB ZUSD AXLUSDC "
        "EURT EURC EURS EURI EUROC AEUR EURQ EURR EURCV IDRT BIDR BVND BKRW XSGD TRYB BRZ GYEN"
    ),
    "a fiat currency": (
        "USD EUR GBP AUD JPY TRY BRL RUB UAH NGN ZAR IDR VND PLN RON ARS CHF CAD CZK HUF SEK NOK DKK MXN COP CLP PEN INR KRW CNY CNH HKD "
        "SGD THB MYR PHP TWD AED SAR ILS KZT GEL NZD EGP PKR BDT LKR KES GHS UGX MAD QAR KWD BHD"
    ),
    "a wrapped or staked coin": (
        "WBTC CBBTC TBTC RENBTC HBTC BBTC BTCB SBTC LBTC SOLVBTC FBTC KBTC WBETH CBETH BETH STETH WSTETH RETH WEETH EETH EZETH RSETH "
        "SFRXETH FRXETH METH ANKRETH OSETH LSETH SWETH BNSOL JITOSOL MSOL STSOL JUPSOL BSOL INF CBSOL BBSOL STMATIC WBNB SLISBNB WAVAX "
        "SAVAX WSOL CBXRP CBDOGE CBADA CBLTC STKSOL"
    ),
    "pegged to metal": "PAXG XAUT XAUM KAU KAG DGX PMGT CGO XAG XAU",
    "a leveraged token": "UP DOWN BULL BEAR HEDGE",
}
REASONS: Final = {name: reason for reason, names in _NAMES.items() for name in names.split()}
"""Base currency -> why its price is not its own. What no list knows yet, the rules below catch by how it is named or priced."""

_MULTIPLE: Final = re.compile(r"^(?P<coin>[A-Z0-9]+?)(?:UP|DOWN|BULL|BEAR|[2-9]L|[2-9]S|HEDGE|HALF)$")
_PEG_RANGE: Final = 0.01
"""A day's high and low within 1 % of each other and of 1.00: pegged to the quote currency, whatever its name. The
quietest days of coins that float are wider; a coin that is caught by mistake can be included by name."""
_WRAP_RANGE: Final = 0.02


@dataclass(frozen=True, slots=True)
class Universe:
    """``symbols`` by quote volume, largest first; ``left_out``: symbol -> why, for coins that volume or a name spoke for."""

    symbols: tuple[str, ...]
    left_out: dict[str, str] = field(default_factory=dict)


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
) -> Universe:
    """Choose ``size`` coins against ``quote``. ``trading``: all spot pairs, and whether they trade; ``days``: their last day.

    ``include`` is followed whatever the rules and the size say, as long as it trades; ``followed`` is followed now.
    `ExchangeError` if there is nothing to follow.
    """
    pairs = [symbol for symbol in trading if symbol.partition("/")[2] == quote]
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
            or _not_its_own(symbol, days, trading)
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
    return Universe(tuple(chosen), reasons)


def _excluded(symbol: str, exclude: Collection[str]) -> str:
    return "excluded by the configuration" if symbol in exclude else ""


def _not_its_own(symbol: str, days: Mapping[str, Day], trading: Mapping[str, bool]) -> str:
    """Why a pair's price is not its own, or empty."""
    base, _, quote = symbol.partition("/")
    day = days.get(symbol)
    try:
        parse_symbol(symbol)
    except DataError:
        return "its name is not one of capital letters and digits"
    if base in REASONS:
        return REASONS[base]
    match = _MULTIPLE.match(base)
    if match is not None and f"{match['coin']}/{quote}" in trading:
        return "a leveraged token"
    if day is None or not day.last > 0:
        return ""
    if 0 < day.low <= day.high <= day.low * (1 + _PEG_RANGE) and abs(day.last - 1) < _PEG_RANGE:
        return f"pegged to {quote}: within {_PEG_RANGE:.0%} of 1.00 all day"
    for inner in (base[1:], base[2:], base[:-1]):
        other = days.get(f"{inner}/{quote}")
        if inner and _wraps(base, inner) and other is not None and abs(day.last - other.last) <= _WRAP_RANGE * other.last:
            return f"wrapped {inner}: the same price"
    return ""


def _wraps(base: str, inner: str) -> bool:
    """WETH, STETH, CBBTC, BTCB: letters that say 'wrapped' or 'staked' around another coin's name."""
    return base in (f"W{inner}", f"B{inner}", f"ST{inner}", f"CB{inner}", f"{inner}B")


def _meant(symbol: str, trading: Iterable[str]) -> str:
    close = difflib.get_close_matches(symbol, list(trading), n=1, cutoff=0.75)
    return f"; did you mean {close[0]}?" if close else ""


def _quotes(trading: Mapping[str, bool]) -> list[str]:
    counts: dict[str, int] = {}
    for symbol in trading:
        quote = symbol.partition("/")[2].partition(":")[0]
        counts[quote] = counts.get(quote, 0) + 1
    return sorted(counts, key=lambda quote: (-counts[quote], quote))[:5]
