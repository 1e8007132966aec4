"""Figures in words: durations, ages, times, sizes, prices, percentages; always with their unit.

Pure text; knows no terminal and no reply. Durations come in seconds, times in UTC epoch milliseconds.
"""

from __future__ import annotations

import math
import time

_STEPS = ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s"))


def duration(seconds: float) -> str:
    """``340 us``, ``12 ms``, ``1.3 s``, ``42 s``, ``3 min 20 s``, ``14 min``, ``2 h 14 min``, ``3 d 4 h``, ``45 d``."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 0.0005:
        return f"{seconds * 1e6:.0f} us" if seconds else "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    whole = round(seconds)
    for size, name, part, part_name in _STEPS:
        if whole >= size:
            count, rest = divmod(whole, size)
            rest //= part
            return f"{count} {name} {rest} {part_name}" if rest and count < 10 else f"{count} {name}"
    return f"{whole} s"


def quote_of(symbol: str) -> str:
    """The currency in which a coin's prices are: USDT of BTC/USDT, and of the perpetual future BTC/USDT:USDT."""
    return symbol.partition("/")[2].partition(":")[0]


def about_left(seconds: float | None) -> str:
    """``, about 2 min 5 s left``, to stand behind how far something is; nothing where that is not known."""
    return "" if seconds is None else f", about {duration(seconds)} left"


def ago(then: int | None, now: int) -> str:
    """``14 min ago``, ``in 3 h``, ``now``, ``never`` (for 0 or nothing)."""
    if not then:
        return "never"
    seconds = (now - then) / 1000
    if abs(seconds) < 1:
        return "now"
    return f"{duration(seconds)} ago" if seconds > 0 else f"in {duration(-seconds)}"


def stamp(when: int | None, *, zone: bool = True) -> str:
    """``2023-06-01 12:00 UTC``, or a dash."""
    if not when:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime(when // 1000)) + (" UTC" if zone else "")


def clock(when: int) -> str:
    """The time of the day, UTC: ``12:00:05``."""
    return time.strftime("%H:%M:%S", time.gmtime(when // 1000))


def size(count: float) -> str:
    """Bytes: ``512 B``, ``4.2 MB``, ``380 MB``, ``1.4 GB`` (powers of 1,000)."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB"):
        count /= 1000
        if count < 999.5 or unit == "TB":
            break
    return f"{count:.1f} {unit}" if count < 9.95 else f"{count:,.0f} {unit}"


def number(count: float) -> str:
    """``4,380``."""
    return f"{count:,.0f}"


def counted(count: int, one: str, many: str = "") -> str:
    """``1 coin``, ``2 coins``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def names(symbols: list[str], most: int = 6) -> str:
    """``BTC/USDT, ETH/USDT and 3 more``."""
    return ", ".join(symbols[:most]) + (f" and {len(symbols) - most} more" if len(symbols) > most else "")


def percent(share: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """A share of one: ``52.1 %``; with ``sign``: ``+1.20 %``; a dash where there is no figure."""
    if share is None or not math.isfinite(share):
        return "-"
    value = round(100 * share, digits) + 0.0  # no -0.0 %
    return f"{value:{'+' if sign and value else ''}.{digits}f} %"


def price(value: float) -> str:
    """A price as it was traded: up to ten significant digits, no trailing zeros, no exponent."""
    if not value or not math.isfinite(value):
        return "-"
    decimals = max(0, 9 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class PriceScale:
    """How the prices of one coin are written in a table: five significant digits, all with the same decimals.

    Very small prices are written in thousandths, millionths, ... of the quote currency, very large ones in thousands, ...;
    ``unit`` says so.
    """

    def __init__(self, close: float, quote: str) -> None:
        power = 0
        self._decimals = 2
        if close > 0 and math.isfinite(close):
            while close * 10.0**power < 0.01 and power < 18:
                power += 3
            while close >= 5e5 and close * 10.0**power >= 100:
                power -= 3
            self._decimals = min(9, max(0, 4 - math.floor(math.log10(close * 10.0**power))))
        self._factor = 10.0**power
        self.unit = f"{10.0**-power:,.{max(0, power)}f} {quote}" if power else quote

    def __call__(self, value: float) -> str:
        return f"{value * self._factor:,.{self._decimals}f}" if math.isfinite(value) else "-"
