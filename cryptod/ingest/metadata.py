"""What an exchange itself says of a pair: that it is a tokenised share, a leveraged token, an index; and which coin it is.

Pure: reads what ccxt passes through of a market (its ``info``), asks nothing. Each exchange has words of its own for it;
those of the large ones are here. A pair of which an exchange says nothing is judged in `kinds` by its name and its price.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

SHARE: Final = "a tokenised share"
LEVERAGED: Final = "a leveraged token"
INDEX: Final = "an index"
COMMODITY: Final = "a commodity"
FIAT: Final = "a fiat currency"

_SAID: Final = {
    "aclass_base": {"tokenized_asset": SHARE},  # Kraken
    "symbolType": {"xstocks": SHARE, "mstocks": SHARE, "stock": SHARE, "etf": SHARE, "commodity": COMMODITY, "forex": FIAT},  # Bybit
    "instCategory": {"3": SHARE, "4": COMMODITY, "5": FIAT, "6": SHARE},  # OKX
    "underlyingType": {"equity": SHARE, "stock": SHARE, "commodity": COMMODITY, "index": INDEX, "forex": FIAT},  # Binance's futures
    "contractType": {"tradifi_perpetual": SHARE},  # the same
    "market": {"etf": LEVERAGED},  # KuCoin
    "isRwa": {"yes": SHARE, "true": SHARE},  # Bitget
    "permissions": {"leveraged": LEVERAGED},  # Binance
    "permissionSets": {"leveraged": LEVERAGED},  # the same
    "tags": {"etp": LEVERAGED, "xstock": SHARE, "xstocks": SHARE, "leveraged": LEVERAGED},  # HTX and others
}
"""Key of ``info`` -> its value in small letters -> what that says."""
_TELLING: Final = {"mfr": LEVERAGED, "mgmt-fee-rate": LEVERAGED}
"""Keys that only such pairs have, with any number but 0: HTX's management fee."""
_NAMES: Final = ("base_name", "baseName", "fullName", "full_name", "displayName", "display_name", "base_display_name")
_SHARE_NAME: Final = re.compile(
    r"\bx ?stocks?\b|\btokeni[sz]ed (?:stock|share|etf|equity)|\(ondo tokeni[sz]ed\)|\bondo tokeni[sz]ed\b", re.I
)
_LEVERAGED_NAME: Final = re.compile(r"\b[1-9]x (?:long|short)\b|\bleveraged\b|\b(?:long|short) token\b", re.I)
DAY_MS: Final = 86_400_000


def said(market: Mapping[str, Any]) -> str:
    """Why the exchange's own words keep a market of ccxt's out of the universe, or nothing."""
    if market.get("stock"):
        return SHARE
    info = market.get("info")
    if not isinstance(info, dict):
        return ""
    for key, values in _SAID.items():
        for word in _words(info.get(key)):
            if word in values:
                return values[word]
    for key, reason in _TELLING.items():
        if any(re.fullmatch(r"-?[0-9.]+", word) and float(word.strip(".-") or 0) for word in _words(info.get(key))):
            return reason
    for key in _NAMES:
        name = info.get(key)
        if isinstance(name, str):
            if _SHARE_NAME.search(name):
                return SHARE
            if _LEVERAGED_NAME.search(name):
                return LEVERAGED
    return ""


def _words(value: Any, depth: int = 0) -> Iterator[str]:
    """The words of a value: a text, a list of texts separated by commas, or a list (of lists) of texts."""
    if isinstance(value, list | tuple) and depth < 3:
        for part in value[:100]:
            yield from _words(part, depth + 1)
    elif isinstance(value, bool | int | float | str):
        yield from (word.strip() for word in str(value)[:200].lower().split(","))


def others(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The symbols behind which another coin stands now, from what was kept of the markets and what they are now.

    The exchange's id of the pair or of the coin is another, or the listing date has moved by more than a day. Where that
    is so for more than half of several coins, the exchange spells its ids anew, and they are the same coins.
    """
    both = [symbol for symbol in before if symbol in now]
    changed = tuple(symbol for symbol in both if _another(before[symbol], now[symbol]))
    return () if len(both) > 2 and len(changed) * 2 > len(both) else changed


def _another(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    for key in ("id", "baseId"):
        if before.get(key) is not None and now.get(key) is not None and str(before[key]) != str(now[key]):
            return True
    was, is_ = before.get("created"), now.get("created")
    return isinstance(was, int) and isinstance(is_, int) and min(was, is_) > DAY_MS and abs(was - is_) > DAY_MS
