"""Pairs whose price is not their own: pegged, wrapped, staked, leveraged, tokenised. Judged by name and by price.

Pure. A name alone convicts only where it can mean nothing else: it is on a list, or a number and a side behind the name of
a listed coin. Where a name could be a coin's own (J + UP), the exchange has to list the other half, or the price has to
move as such a token's does. A price speaks for itself, and against a name too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Final

from cryptod.errors import DataError
from cryptod.ingest.listing import Day
from cryptod.ingest.metadata import FIAT, LEVERAGED, SHARE
from cryptod.symbol import parse_symbol, split

STABLE: Final = "a stablecoin"
WRAPPED: Final = "a wrapped or staked coin"
METAL: Final = "pegged to metal"

_LISTS: Final = {
    "dollars": (
        "USDT USDC BUSD TUSD USDP PAX DAI FDUSD USDD GUSD SUSD LUSD FRAX FRXUSD UST USTC USDN USDJ USDX USDE USDS SUSDE SUSDS SUSDD "
        "SFRXUSD SFRAX SDAI SUSDX SUSDF USDF PYUSD USD0 USD1 USDB USDBC USDY CUSD MUSD HUSD USDK USDG USDQ USDR RLUSD CRVUSD SCRVUSD GHO "
        "DOLA MIM FEI VAI ALUSD XUSD BFUSD RUSD USDTB ZUSD AXLUSDC USDH USDM USDL USDA USDO USDU YUSD DEUSD SDEUSD SYRUPUSDC SYRUPUSDT "
        "LVLUSD AUSD EUSD BUIDL USYC OUSG OUSD WUSD WUSDM USDZ USDTZ NUSD FXUSD PUSD VUSD USDCE USDT0 STUSD USR RLP AVUSD SAVUSD REUSD "
        "BOLD HONEY"
    ),
    "euros": ("EURT EURC EURS EURI EUROC EUROP AEUR EURQ EURR EURCV EURA EURE EUROE SEUR CEUR"),
    "other money": ("IDRT BIDR BVND BKRW XSGD TRYB BRZ BRLA GYEN JPYC MXNT MXNB CADC QCAD XCHF CHFAU GBPT TGBP NZDS AUDD ZARP"),
    "fiat": (
        "USD EUR GBP AUD JPY TRY BRL RUB UAH NGN ZAR IDR VND PLN RON ARS CHF CAD CZK HUF SEK NOK DKK MXN COP CLP PEN INR KRW CNY CNH HKD "
        "SGD THB MYR PHP TWD AED SAR ILS KZT GEL NZD EGP PKR BDT LKR KES GHS UGX MAD QAR KWD BHD"
    ),
    "metal": ("PAXG XAUT XAUT0 XAUM KAU KAG DGX PMGT CGO XAG XAU"),
    "tickers": (
        "AAPL ABBV ABNB ABT ACN ADBE AMAT AMBR AMD AMZN ASML AVGO AZN BABA BAC BIDU BMNR BRK.B BRKB CMCSA COIN COST CRCL CRM CRWD CRWV "
        "CSCO CVX DFDV DIS FUTU GLD GME GOOG GOOGL GRAB HIMS HOOD IBM IEMG INTC INTU IONQ ISRG ITOT IVV IWM JNJ JPM LLY LMT LRCX MARA MCD "
        "META MRK MRNA MRVL MSFT MSTR NFLX NIO NKE NVDA NVO ORCL OSCR PANW PEP PFE PLTR PYPL QCOM QQQ RBLX RDDT RIOT RKLB RIVN SBET SBUX "
        "SHOP SMCI SNAP SNOW SOFI SPCX SPGI SPY STRC STRF STRK TBLL TLT TMO TMUS TQQQ TSLA TSM TXN UBER UNH VOO VTI VTV WFC XOM"
    ),
    "bare": ("AAPL AMZN AVGO BABA CRCL GOOG GOOGL INTC JPM MSFT MSTR NFLX NVDA PLTR PYPL QQQ SPY TQQQ TSLA TSM"),
    "levered": (
        "BTC ETH BNB XRP ADA LINK DOT LTC TRX EOS XTZ UNI SXP FIL YFI BCH AAVE SUSHI XLM 1INCH SOL DOGE MATIC AVAX ATOM BSV ETC ALGO VET "
        "THETA"
    ),
}
_DOLLARS, _EUROS, _OTHER_MONEY, _FIAT, _METAL, _TICKERS, _BARE, _LEVERED = (frozenset(names.split()) for names in _LISTS.values())
"""``tickers`` are shares that say nothing alone (META and GME are coins too) and do with an issuer's letters behind them; those
of ``bare`` no coin bears. What could be a coin's name even with an issuer's letters, as LINX and MUX, is not among them: an
exchange that lists these as shares says so itself. ``levered``: coins that exchanges have sold tokens of by the words below,
as BTCUP and ETHBEAR; numbers stand behind any coin's name."""
_WRAPPED: Final = {
    "BTC": "WBTC CBBTC TBTC RENBTC HBTC BBTC BTCB SBTC LBTC SOLVBTC XSOLVBTC FBTC KBTC UBTC ZBTC EBTC PUMPBTC UNIBTC STBTC RBTC DLCBTC",
    "ETH": "WETH WBETH CBETH BETH STETH WSTETH RETH WEETH EETH EZETH RSETH SFRXETH FRXETH METH CMETH ANKRETH OSETH LSETH SWETH UNIETH "
    "PUFETH SETH2 ETHX UETH",
    "SOL": "WSOL BNSOL JITOSOL MSOL STSOL JUPSOL BSOL INF CBSOL BBSOL STKSOL HSOL DSOL VSOL JSOL SCNSOL USOL",
    "MATIC": "STMATIC", "POL": "STPOL", "BNB": "WBNB SLISBNB ANKRBNB STKBNB ASBNB", "AVAX": "WAVAX SAVAX GGAVAX", "XRP": "CBXRP WXRP",
    "DOGE": "CBDOGE", "ADA": "CBADA", "LTC": "CBLTC", "TRX": "WTRX STRX STKTRX", "HYPE": "WHYPE STHYPE KHYPE BEHYPE LHYPE",
    "TON": "TSTON STTON", "ATOM": "STATOM STKATOM QATOM", "TIA": "STTIA", "SUI": "HASUI AFSUI VSUI", "APT": "AMAPT STAPT", "SEI": "ISEI",
    "DOT": "LDOT VDOT", "NEAR": "STNEAR LINEAR", "FIL": "STFIL", "FTM": "WFTM SFTMX", "S": "STS WS",
}  # fmt: skip
WRAPPED_NAMES: Final = {name: coin for coin, names in _WRAPPED.items() for name in names.split()}
"""Wrapped or staked coin -> the coin inside."""
_ISSUERS: Final = ("X", "ON", "B", "XSTOCK")
_MULTIPLE: Final = re.compile(r"(?P<coin>.*?)(?P<side>UP|DOWN|BULL|BEAR|HEDGE|HALF|[1-9][LS])")
_OPPOSITE: Final = {"UP": ("DOWN",), "DOWN": ("UP",), "BULL": ("BEAR", "HEDGE"), "BEAR": ("BULL", "HEDGE"), "HEDGE": ("BULL", "BEAR"),
                    "HALF": ("BULL", "BEAR")}  # fmt: skip
_TIMES: Final = {
    "UP": (1.2, 6.0),
    "BULL": (1.5, 5.0),
    "DOWN": (-6.0, -0.8),
    "BEAR": (-5.0, -0.6),
    "HEDGE": (-1.5, -0.6),
    "HALF": (0.3, 0.7),
}

PEG_RANGE: Final = 0.01
"""A day's high and low within 1 % of each other and of 1.00: pegged to the quote currency, whatever its name. The
quietest days of coins that float are wider; a coin that is caught by mistake can be included by name."""
_MONEY_RANGE: Final = 0.015
"""The same of what is pegged to another currency, which moves against the quote currency."""
_WRAP_RANGE: Final = 0.02
_STAKED_MOST: Final = 1.7
"""A staked coin has gained so much on the coin inside at most."""
_ALIKE: Final = 0.005
_DOLLAR_IN: Final = {"EUR": (0.75, 1.1), "GBP": (0.6, 0.95), "CHF": (0.7, 1.1)}
"""Fiat currency -> what a dollar is worth in it, where the exchange has no pair that would say it."""


class Kinds:
    """Judges the pairs against one quote currency. ``pairs``: those the exchange has; ``said``: what it says of them itself.

    ``days`` are the figures of the last day by symbol, of pairs against other quote currencies too.
    """

    def __init__(self, pairs: Collection[str], days: Mapping[str, Day], said: Mapping[str, str], quote: str) -> None:
        self._days, self._said, self._quote = days, said, quote
        self._symbols = {split(symbol).base.upper(): symbol for symbol in pairs}
        self._anchors = tuple(self._money())

    def reason(self, symbol: str) -> str:
        """Why the price is not the pair's own; nothing if it is."""
        try:
            parse_symbol(symbol)
        except DataError:
            return "its name cannot be used (see docs/exchanges.md)"
        base = split(symbol).base.upper()
        return self._said.get(symbol, "") or self._by_name(base, self._days.get(symbol)) or self._by_price(base, self._days.get(symbol))

    def unclear(self, symbol: str) -> bool:
        """Whether the price stands where a peg would be, and the exchange does not give the range that would show it."""
        day = self._days.get(symbol)
        if day is None or not day.last > 0 or (day.high > 0 and day.low > 0) or self.reason(symbol):
            return False
        low, high = _DOLLAR_IN.get(self._quote, (1 - PEG_RANGE, 1 + PEG_RANGE))
        return (
            low <= day.last <= high
            or _near(day.last, 1.0, PEG_RANGE)
            or any(_near(day.last, anchor.last, PEG_RANGE) for _, anchor in self._anchors)
        )

    # By name

    def _by_name(self, base: str, day: Day | None) -> str:
        if base in _DOLLARS and not self._far(day, self._dollar):
            return STABLE
        if base in _EUROS or base in _OTHER_MONEY:
            return STABLE
        if base in _FIAT and not (day is not None and _range(day) > 0.1):
            return FIAT
        if base in _METAL:
            return METAL
        inside = WRAPPED_NAMES.get(base)
        if inside is not None and not self._far(day, self._last(inside)):
            return WRAPPED
        if _share(base):
            return SHARE
        return LEVERAGED if self._leveraged(base, day) else ""

    def _leveraged(self, base: str, day: Day | None) -> bool:
        match = _MULTIPLE.fullmatch(base)
        if match is None:
            return False
        coin, side = match["coin"] or "BTC", match["side"]
        if coin not in self._symbols and coin not in ("BTC", "ETH"):
            return False
        moved = _times(day, self._day(coin))
        if side in _OPPOSITE:
            low, high = _TIMES[side]
            if any(f"{match['coin']}{other}" in self._symbols for other in _OPPOSITE[side]):
                return True
            return low <= moved <= high if moved is not None else bool(match["coin"]) and coin in _LEVERED
        times = int(side[0]) * (1 if side[1] == "L" else -1)
        other = f"{coin}{side[0]}{'S' if side[1] == 'L' else 'L'}"
        if not match["coin"]:
            return False
        return other in self._symbols or (moved is None and len(coin) > 1) or (moved is not None and abs(moved / times - 1) < 0.5)

    # By price

    def _by_price(self, base: str, day: Day | None) -> str:
        if day is None or not day.last > 0:
            return ""
        if 0 < day.low <= day.high <= day.low * (1 + PEG_RANGE) and abs(day.last - 1) < PEG_RANGE:
            return f"pegged to {self._quote}: within {PEG_RANGE:.0%} of 1.00 all day"
        quiet = 0 < day.low <= day.high <= day.low * (1 + _MONEY_RANGE)
        for name, anchor in self._anchors:
            steady = quiet or _alike(day, anchor, day.last / anchor.last)
            if name != base and steady and all(_near(a, b, PEG_RANGE) for a, b in zip(_prices(day), _prices(anchor), strict=True)):
                return f"pegged to {name}: the same price all day"
        low, high = _DOLLAR_IN.get(self._quote, (math.inf, 0.0))
        if quiet and self._dollar is None and low <= day.last <= high:
            return f"pegged to the dollar: it stood still all day where a dollar stands in {self._quote}"
        return self._wrapped(base, day)

    def _wrapped(self, base: str, day: Day) -> str:
        for cut in range(1, max(1, len(base) - 1)):
            for inner, behind in ((base[cut:], True), (base[:-cut], False)):
                other = self._day(inner)
                if other is None or not other.last > 0 or inner == base:
                    continue
                ratio = day.last / other.last
                if _wraps(base, inner) and abs(ratio - 1) <= _WRAP_RANGE:
                    return f"wrapped {inner}: the same price"
                if behind and len(inner) > 2 and 1 - _WRAP_RANGE <= ratio <= _STAKED_MOST and _alike(day, other, ratio):
                    return f"wrapped or staked {inner}: the same moves all day"
        return ""

    # What is known

    def _day(self, base: str) -> Day | None:
        symbol = self._symbols.get(base)
        return self._days.get(symbol) if symbol is not None else None

    def _last(self, base: str) -> float | None:
        day = self._day(base)
        return day.last if day is not None and day.last > 0 else None

    @property
    def _dollar(self) -> float | None:
        """What a dollar is worth in the quote currency; None if no pair says it."""
        if self._quote == "USD" or self._quote in _DOLLARS:
            return 1.0
        return next((anchor.last for name, anchor in self._anchors if name == "USD" or name in ("USDT", "USDC", "FDUSD")), None)

    def _far(self, day: Day | None, price: float | None) -> bool:
        """Whether the price is another by far than what the name promises: a tenth of it, or ten times."""
        return day is not None and day.last > 0 and price is not None and not 0.1 < day.last / price < 10

    def _money(self) -> list[tuple[str, Day]]:
        """Currencies and what they are worth in the quote currency over the day, from the pairs that say it."""
        found: dict[str, Day] = {}
        for symbol, day in self._days.items():
            base, quote, _ = split(symbol)
            if not day.last > 0:
                continue
            if quote == self._quote and (base in _FIAT or base in _EUROS or base in ("USDT", "USDC", "FDUSD")) and not _range(day) > 0.1:
                found.setdefault(base, day)
            elif base == self._quote and (quote in _FIAT or quote in ("USDT", "USDC", "FDUSD")):
                turned = [1 / price if price > 0 else 0.0 for price in (day.last, day.low, day.high)]
                found.setdefault(quote, Day(0.0, *turned))
        return list(found.items())


def _share(base: str) -> bool:
    """AAPL, AAPLX, AAPLON, AAPLB: a share's ticker, and what issuers put behind it."""
    return base in _BARE or any(base.endswith(end) and base[: -len(end)] in _TICKERS for end in _ISSUERS)


def _wraps(base: str, inner: str) -> bool:
    """WETH, STETH, CBBTC, BTCB: letters that say 'wrapped' or 'staked' around another coin's name."""
    return base in (f"W{inner}", f"B{inner}", f"ST{inner}", f"CB{inner}", f"{inner}B")


def _alike(day: Day, other: Day, ratio: float) -> bool:
    """Whether two coins went through a day, and one that moved, at the same ratio throughout."""
    if not _range(other) > 3 * _ALIKE:
        return False
    pairs = [(day.high, other.high), (day.low, other.low), *([(day.open, other.open)] if day.open > 0 and other.open > 0 else [])]
    return all(mine > 0 and theirs > 0 and abs(mine / theirs / ratio - 1) < _ALIKE for mine, theirs in pairs)


def _times(day: Day | None, other: Day | None) -> float | None:
    """How many times as far as the other a coin has moved in the day; None where that is not known or says nothing."""
    if day is None or other is None or not min(day.open, day.last, other.open, other.last) > 0:
        return None
    theirs = math.log(other.last / other.open)
    return math.log(day.last / day.open) / theirs if abs(theirs) > 0.01 else None


def _prices(day: Day) -> tuple[float, float, float]:
    return day.last, day.high or day.last, day.low or day.last


def _near(price: float, other: float, share: float) -> bool:
    return price > 0 and other > 0 and abs(price / other - 1) < share


def _range(day: Day) -> float:
    """High over low, less one; 0 where the exchange does not say."""
    return day.high / day.low - 1 if day.high >= day.low > 0 else 0.0
