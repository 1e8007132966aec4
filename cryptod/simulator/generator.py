"""A market made up from a seed: any number of coins, any hour of any year, the same candles every time.

Knows numpy and the vocabulary. Knows neither HTTP nor clocks.

Time is cut into blocks of `BLOCK` hours and the coins into groups of `GROUP`. A group's block is a pure function of (seed, group,
block): nothing is carried over from earlier hours, so the first candle asked for may be any, what was generated before does not
matter, and ten thousand coins need no more memory than the blocks in use.

The model, per coin and hour (all logs natural):

    return       r = beta * sM * zM + sI * zI + jumps           sM: the market's volatility, sI: the coin's own
    volatility   ln s = level + season(hour of week) + sum of four AR(1) with half-lives of hours to weeks + an hour's own noise
                 the fast ones answer to the last hour's shock, more to a fall than to a rise (EGARCH, Nelson 1991) and to jumps
    the hour     a Brownian bridge of `STEPS` steps to r; each step's extremes are drawn from the exact law of a bridge's maximum
                 (Karatzas & Shreve, Brownian Motion, 4.3.40), so that ranges agree with the volatility
    volume       grows with volatility and with the hour's range, and has a memory of its own
    the level    a block runs between two levels that belong to its borders (a slow AR(1): prices stay in bounds for any number of
                 years); what the path misses of the next level is spread over the hours in proportion to their variance, which
                 for a random walk is no distortion at all: it is Levy's construction
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from cryptod.errors import DataError
from cryptod.market import CLOSE, HIGH, HOUR, LOW, OPEN, VOLUME, Float32, Float64, Int64, Panel
from cryptod.simulator.listing import Listing, panel_of

BLOCK: Final = 2048
GROUP: Final = 25
STEPS: Final = 6
CACHE_BYTES: Final = 64 << 20

HALF_LIVES: Final = np.array([2.0, 24.0, 168.0, 1000.0])  # hours
MARKET_VOLATILITY: Final = np.array([0.26, 0.20, 0.25, 0.40])  # standard deviations of ln(volatility), one per half-life
COIN_VOLATILITY: Final = np.array([0.25, 0.14, 0.16, 0.24])
FACTOR: Final = 0.0038  # typical hourly volatility of the common factor
LEVEL_PACE: Final = 1.3  # mean volatility over typical volatility
HOUR_NOISE: Final = 0.24  # standard deviation of an hour's own ln(volatility)
SHOCK_ANSWER: Final = np.array([0.5, 0.3, 0.0, 0.0])  # part of an AR(1)'s innovation that is the last shock's size
FALL_ANSWER: Final = np.array([0.3, 0.3, 0.0, 0.0])  # part that is its sign: falls add volatility
JUMP_ANSWER: Final = np.array([3.0, 2.0, 1.0, 0.0])  # innovation after a jump, in standard deviations
MARKET_SHARE: Final = 0.8  # how far a coin's own volatility goes along with the market's
MARKET_JUMPS: Final = 0.0006  # per hour
COIN_JUMPS: Final = 0.0009
JUMP_SIZE: Final = 9.0  # scale of a jump, in hourly standard deviations; Laplace
LEVEL_MEMORY: Final = 0.85  # AR(1) of the level from block to block
LEVEL_TERMS: Final = 40
WICK: Final = 0.05  # mean excess of high and low over the bridge's, in hourly standard deviations: trades at bid and ask

# Mean of ln(volatility) by hour of day (UTC) and by day: the shape of spot crypto markets of 2022 and 2023, rounded.
HOURS: Final = np.array([26, 10, -2, -14, -15, -14, -9, -8, -2, -7, -10, -8, 6, 16, 22, 17, 16, 5, 1, -1, -4, -7, -6, -7])
DAYS: Final = np.array([5, 3, -15, -13, 7, 6, 7])  # from Thursday, the epoch's day of the week
SEASON: Final = ((DAYS[:, None] + HOURS[None, :]) / 100.0).ravel().astype(np.float32)  # [168]

# fmt: off
NAMES: Final = (
    "BTC", "ETH", "BNB", "SOL", "XRP", "DOGE", "ADA", "AVAX", "MATIC", "DOT", "LTC", "LINK",
    "TRX", "SHIB", "UNI", "ATOM", "ETC", "XLM", "BCH", "NEAR", "APT", "ARB", "OP", "FIL",
    "ICP", "AAVE", "ALGO", "VET", "HBAR", "QNT", "EGLD", "SAND", "MANA", "AXS", "THETA", "EOS",
    "FTM", "GRT", "CHZ", "CRV", "SNX", "MKR", "RUNE", "LDO", "INJ", "FLOW", "KAVA", "NEO",
    "IOTA", "ZEC", "DASH", "XTZ", "MINA", "GALA", "ENJ", "BAT", "ZIL", "COMP", "1INCH", "LRC",
    "ONE", "HOT", "CELO", "ANKR", "IOTX", "ICX", "ONT", "QTUM", "WAVES", "KSM", "SUSHI", "YFI",
    "BAND", "SKL", "STORJ", "OCEAN", "RVN", "ZRX", "AUDIO", "MASK", "API3", "DYDX", "IMX", "GMT",
    "APE", "JASMY", "ROSE", "PEPE", "SUI", "STX", "CFX", "MAGIC", "BLUR", "HOOK", "AGIX", "FET",
    "RNDR", "WOO", "PEOPLE",
)
# fmt: on
PRICES: Final = {"BTC": 42_000.0, "ETH": 2_600.0, "BNB": 310.0, "SOL": 60.0, "XRP": 0.55, "DOGE": 0.08, "SHIB": 1.1e-5, "PEPE": 1.4e-6}


@dataclass(frozen=True, slots=True)
class Companion:
    """A pair that a forecaster should leave alone: ``power`` times the moves of ``follows``, or its own at ``scale`` of a coin's."""

    symbol: str
    price: float
    hourly_quote_volume: float
    scale: float = 1.0
    follows: str = ""
    power: float = 1.0
    last: int | None = None


COMPANIONS: Final = (
    Companion("USDC/USDT", 1.0, 3e7, scale=0.01),
    Companion("FDUSD/USDT", 1.0, 2e7, scale=0.01),
    Companion("TUSD/USDT", 1.0, 5e6, scale=0.02),
    Companion("DAI/USDT", 1.0, 1e6, scale=0.015),
    Companion("EUR/USDT", 1.08, 4e6, scale=0.1),
    Companion("PAXG/USDT", 2_000.0, 2e6, scale=0.2),
    Companion("WBTC/USDT", 42_000.0, 1e6, follows="BTC"),
    Companion("WBETH/USDT", 2_700.0, 8e5, follows="ETH"),
    Companion("BTCUP/USDT", 12.0, 3e6, follows="BTC", power=2.0),
    Companion("BTCDOWN/USDT", 0.8, 2e6, follows="BTC", power=-2.0),
    Companion("ETH/BTC", 0.06, 5e2, scale=0.5),
    Companion("BTC/EUR", 39_000.0, 2e6, follows="BTC"),
    Companion("SRM/USDT", 0.25, 4e5, last=1_669_604_400_000),  # delisted 2022-11-28 03:00
)
"""What else a real exchange lists: stable and fiat coins, gold, wrapped and leveraged tokens, other quotes, a delisted coin."""

MARKET_GROUP: Final = 1_000_000  # the stream of the common factor
COMPANION_GROUP: Final = 1_000_001


@dataclass(frozen=True, slots=True)
class Draws:
    """The independent draws of one group's block, hour by hour, all [BLOCK, coins]; ``innovations`` is [4, BLOCK, coins]."""

    shocks: Float32
    innovations: Float32
    noise: Float32
    jumps: Float32  # in hourly standard deviations, mostly 0


@dataclass(frozen=True, slots=True)
class Traits:
    """What never changes of a group's coins, each [coins]."""

    beta: Float64
    own: Float64  # hourly standard deviation of the coin's own part
    price: Float64
    quote_volume: Float64
    tick: Float64
    lot: Float64


class GeneratedMarket:
    """``coins`` ordinary coins against USDT and `COMPANIONS`. The candle of a coin at an hour depends on the seed alone.

    ``first`` (UTC ms, aligned down to an hour): nothing was listed before it.
    """

    def __init__(self, coins: int = 100, seed: int = 1, first: int = 1_577_836_800_000, companions: bool = True) -> None:
        if coins < 1:
            raise DataError(f"a market of {coins} coins cannot be generated", hint="ask for at least one coin")
        self.seed = seed
        first = HOUR.floor(first)
        names = [NAMES[i] if i < len(NAMES) else f"COIN{i + 1}" for i in range(coins)]
        self._places = {f"{name}/USDT": (i // GROUP, i % GROUP) for i, name in enumerate(names)}
        self._follows: dict[str, Companion] = {}
        self._traits: dict[int, Traits] = {}
        self._blocks: OrderedDict[tuple[int, int], Float64] = OrderedDict()
        self._capacity = max(4, CACHE_BYTES // (BLOCK * GROUP * 5 * 8))
        self._market: OrderedDict[int, tuple[Float64, Float64]] = OrderedDict()
        listings = []
        for symbol, (group, place) in self._places.items():
            traits = self._traits_of(group)
            listings.append(Listing(symbol, first, None, float(traits.tick[place]), float(traits.lot[place])))
        for place, companion in enumerate(COMPANIONS if companions else ()):
            if companion.follows and f"{companion.follows}/USDT" not in self._places:
                continue
            if companion.last is not None and companion.last <= first:
                listings.append(Listing(companion.symbol, companion.last - HOUR.ms, companion.last))
            else:
                listings.append(Listing(companion.symbol, first, companion.last))
            tick, lot = _steps(companion.price, companion.hourly_quote_volume)
            listings[-1] = replace(listings[-1], price_tick=tick, lot=lot)
            self._places[companion.symbol] = (COMPANION_GROUP, place)
            if companion.follows:
                self._follows[companion.symbol] = companion
        self.listings: tuple[Listing, ...] = tuple(listings)
        self._lives = {listing.symbol: listing for listing in listings}
        self.coins: tuple[str, ...] = tuple(listing.symbol for listing in listings[:coins])

    def candles(self, symbol: str, start: int, end: int) -> tuple[Int64, Float64]:
        """See `Market.candles`."""
        life = self._lives[symbol]
        first = -(-max(start, life.first) // HOUR.ms)
        last = -(-(end if life.last is None else min(end, life.last)) // HOUR.ms)
        if last <= first:
            return np.empty(0, dtype=np.int64), np.empty((0, 5))
        parts = [
            self._column(symbol, block)[max(0, first - block * BLOCK) : last - block * BLOCK]
            for block in range(first // BLOCK, (last - 1) // BLOCK + 1)
        ]
        return np.arange(first, last, dtype=np.int64) * HOUR.ms, np.concatenate(parts)

    def panel(self, symbols: tuple[str, ...], start: int, end: int) -> Panel:
        """See `Market.panel`."""
        return panel_of(self, symbols, start, end)

    def trading(self, symbol: str, now: int) -> bool:
        """See `Market.trading`."""
        life = self._lives[symbol]
        return life.first <= now and (life.last is None or now < life.last)

    def _column(self, symbol: str, block: int) -> Float64:
        """The pair's candles in the block, [BLOCK, 5]."""
        group, place = self._places[symbol]
        companion = self._follows.get(symbol)
        if companion is None:
            column: Float64 = self._block(group, block)[:, place]
            return column
        leader = f"{companion.follows}/USDT"
        group, place = self._places[leader]
        life = self._lives[symbol]
        moved: Float64 = companion.price * (self._column(leader, block) / self._traits_of(group).price[place]) ** companion.power
        moved[:, :VOLUME] = _in_steps(moved[:, :VOLUME], life.price_tick)
        if companion.power < 0:
            moved[:, [HIGH, LOW]] = moved[:, [LOW, HIGH]]
        turnover = companion.hourly_quote_volume / self._traits_of(group).quote_volume[place]
        led = self._column(leader, block)
        moved[:, VOLUME] = _in_steps(led[:, VOLUME] * led[:, CLOSE] * turnover / moved[:, CLOSE], life.lot)
        return moved

    def _block(self, group: int, block: int) -> Float64:
        """[BLOCK, GROUP, 5] from the cache of recent blocks, or generated."""
        key = (group, block)
        if key in self._blocks:
            self._blocks.move_to_end(key)
        else:
            while len(self._blocks) >= self._capacity:
                self._blocks.popitem(last=False)
            self._blocks[key] = self._generate(group, block)
        return self._blocks[key]

    def _random(self, group: int, block: int, stream: int) -> np.random.Generator:
        """The group's random numbers for the block. Streams: 0 hourly draws, 1 within the hour, 2 levels, 3 traits."""
        return np.random.Generator(np.random.SFC64([self.seed & (2**64 - 1), group, block + 2**40, stream]))

    def _traits_of(self, group: int) -> Traits:
        if group not in self._traits:
            random = self._random(group, 0, 3)
            rank = group * GROUP + np.arange(GROUP)
            beta = np.clip(random.normal(1.4, 0.22, GROUP), 0.7, 2.2)
            own = np.exp(random.normal(np.log(0.0041), 0.3, GROUP))
            price = 10 ** random.uniform(-1.5, 1.5, GROUP)
            quote_volume = np.exp(random.normal(np.log(4e7) - 1.1 * np.log(1 + rank), 0.2))
            if group == 0:
                beta[:3], own[:3] = (1.0, 1.2, 1.0), (0.0018, 0.0030, 0.0035)
            if group == COMPANION_GROUP:
                scale = np.ones(GROUP)
                for place, companion in enumerate(COMPANIONS):
                    scale[place], price[place], quote_volume[place] = companion.scale, companion.price, companion.hourly_quote_volume
                beta, own = beta * scale, own * scale
            elif group * GROUP < len(NAMES):
                for place, name in enumerate(NAMES[group * GROUP : (group + 1) * GROUP]):
                    price[place] = PRICES.get(name, price[place])
            steps = np.array([_steps(float(p), float(v)) for p, v in zip(price, quote_volume, strict=True)])
            self._traits[group] = Traits(beta, own, price, quote_volume, steps[:, 0], steps[:, 1])
        return self._traits[group]

    def _draws(self, group: int, block: int, coins: int, jump_rate: float) -> Draws:
        random = self._random(group, block, 0)
        normal = random.standard_normal((6, BLOCK, coins), dtype=np.float32)
        chance = random.random((BLOCK, coins), dtype=np.float32)
        size = random.laplace(0.0, JUMP_SIZE, (BLOCK, coins)).astype(np.float32)
        return Draws(normal[4], normal[:4], normal[5], np.where(chance < jump_rate, size, np.float32(0)))

    def _log_volatility(self, earlier: Draws, now: Draws, deviations: Float64) -> Float32:
        """The sum of the AR(1) processes and the hour's noise over the block, [BLOCK, coins].

        Warmed up over the block before: the slowest of them forgets all but a tenth of what came before that.
        """
        shocks = np.concatenate([earlier.shocks, now.shocks])
        jumped = np.concatenate([earlier.jumps, now.jumps]) != 0
        total = np.zeros_like(shocks)
        size = (np.abs(shocks) - 0.798) / 0.603  # mean and standard deviation of |z|
        for k, half_life in enumerate(HALF_LIVES):
            phi = 0.5 ** (1 / half_life)
            rest = np.sqrt(1 - SHOCK_ANSWER[k] ** 2 - FALL_ANSWER[k] ** 2)
            x = np.zeros_like(shocks)
            own = np.concatenate([earlier.innovations[k], now.innovations[k]])
            x[1:] = SHOCK_ANSWER[k] * size[:-1] - FALL_ANSWER[k] * shocks[:-1] + rest * own[:-1] + JUMP_ANSWER[k] * jumped[:-1]
            x *= np.float32(deviations[k] * np.sqrt(1 - phi * phi))
            total += _filtered(x, phi)
        return np.asarray(total[BLOCK:] + HOUR_NOISE * now.noise, dtype=np.float32)

    def _market_block(self, block: int) -> tuple[Float64, Float64]:
        """The common factor's returns and ln(volatility), each [BLOCK, 1]."""
        if block not in self._market:
            while len(self._market) >= 16:
                self._market.popitem(last=False)
            earlier, now = (self._draws(MARKET_GROUP, b, 1, MARKET_JUMPS) for b in (block - 1, block))
            log_volatility = self._log_volatility(earlier, now, MARKET_VOLATILITY).astype(np.float64)
            scale = FACTOR * np.exp(log_volatility + _season(block))
            self._market[block] = (scale * (now.shocks + now.jumps), log_volatility)
        return self._market[block]

    def _level(self, group: int, block: int, traits: Traits) -> Float64:
        """ln(price) at the block's first hour, [coins]: a slow AR(1) of the market's and the coin's own moves from block to block."""
        level = np.log(traits.price)
        hours = np.sqrt(BLOCK)
        for lag in range(LEVEL_TERMS):
            weight = LEVEL_MEMORY**lag * hours
            level = level + weight * traits.beta * FACTOR * LEVEL_PACE * self._random(MARKET_GROUP, block - lag, 2).standard_normal()
            level = level + weight * traits.own * LEVEL_PACE * self._random(group, block - lag, 2).standard_normal(GROUP)
        return level

    def _generate(self, group: int, block: int) -> Float64:
        traits = self._traits_of(group)
        market_return, market_log = self._market_block(block)
        earlier, now = (self._draws(group, b, GROUP, COIN_JUMPS) for b in (block - 1, block))
        season = _season(block)
        own_log = MARKET_SHARE * market_log + self._log_volatility(earlier, now, COIN_VOLATILITY) + season
        own_scale = traits.own * np.exp(own_log)
        variance = own_scale**2 + (traits.beta * FACTOR * np.exp(market_log + season)) ** 2
        returns = traits.beta * market_return + own_scale * now.shocks
        jumps = own_scale * now.jumps
        missing = self._level(group, block + 1, traits) - self._level(group, block, traits) - (returns + jumps).sum(axis=0)
        returns = returns + missing * variance / variance.sum(axis=0)
        scale = np.sqrt(variance)
        high, low = self._extremes(group, block, returns, jumps, scale)
        close = self._level(group, block, traits) + np.cumsum(returns + jumps, axis=0)
        open_ = close - returns - jumps
        values = np.empty((BLOCK, GROUP, 5))
        logs = (open_, open_ + high, open_ + low, close)
        for column, log_price in zip((OPEN, HIGH, LOW, CLOSE), logs, strict=True):
            values[:, :, column] = _in_steps(np.exp(log_price), traits.tick)
        values[:, :, VOLUME] = self._volume(
            group, block, np.log(scale) - np.log(traits.own), high - low, scale, values[:, :, CLOSE], traits
        )
        values.flags.writeable = False
        return values

    def _extremes(self, group: int, block: int, returns: Float64, jumps: Float64, scale: Float64) -> tuple[Float64, Float64]:
        """Highest and lowest ln(price) of each hour relative to its open, [BLOCK, coins]."""
        random = self._random(group, block, 1)
        path = np.zeros((STEPS + 1, BLOCK, GROUP), dtype=np.float32)
        np.cumsum(random.standard_normal((STEPS, BLOCK, GROUP), dtype=np.float32), axis=0, out=path[1:])
        path *= scale.astype(np.float32) / np.float32(np.sqrt(STEPS))
        portion = (np.arange(STEPS + 1, dtype=np.float32) / STEPS)[:, None, None]
        path += portion * (returns.astype(np.float32) - path[-1])
        for hour, coin in zip(*np.nonzero(jumps), strict=True):
            path[1 + (hour + coin) % STEPS :, hour, coin] += np.float32(jumps[hour, coin])
        twice_variance = (2 * scale**2 / STEPS).astype(np.float32)
        middle, move = path[1:] + path[:-1], path[1:] - path[:-1]
        chance = random.random((2, STEPS, BLOCK, GROUP), dtype=np.float32)
        # log1p(-u): u lies in [0, 1), so that the logarithm is finite
        up = (middle + np.sqrt(move**2 - twice_variance * np.log1p(-chance[0]))).max(axis=0) / 2
        down = (middle - np.sqrt(move**2 - twice_variance * np.log1p(-chance[1]))).min(axis=0) / 2
        wicks = random.standard_exponential((2, BLOCK, GROUP), dtype=np.float32) * np.float32(WICK) * scale
        return up + wicks[0], down - wicks[1]

    def _volume(
        self, group: int, block: int, log_volatility: Float64, span: Float64, scale: Float64, close: Float64, traits: Traits
    ) -> Float64:
        """Base volume [BLOCK, coins], in whole lots."""
        slow = [self._random(group, b, 4).standard_normal((BLOCK, GROUP), dtype=np.float32) for b in (block - 1, block)]
        phi = 0.5 ** (1 / 48)
        memory = _filtered(np.concatenate(slow) * np.float32(np.sqrt(1 - phi * phi)), phi)[BLOCK:]
        noise = self._random(group, block, 5).standard_normal((BLOCK, GROUP), dtype=np.float32)
        surprise = np.log(span / scale) - 0.45
        log_quote = np.log(traits.quote_volume) + 1.2 * log_volatility - 0.5 + 0.8 * surprise + 0.3 * memory + 0.25 * noise
        return _in_steps(np.exp(log_quote) / close, traits.lot)


def _filtered(innovations: Float32, phi: float) -> Float32:
    """x[t] = phi x[t-1] + innovations[t] along the first axis, in place, by doubling: log2(memory) passes, no loop over hours."""
    reach, weight = 1, phi
    while reach < len(innovations) and weight > 1e-4:
        innovations[reach:] += np.float32(weight) * innovations[:-reach]
        reach, weight = 2 * reach, weight * weight
    return innovations


def _in_steps(numbers: Float64, step: Float64 | float) -> Float64:
    """Rounded to multiples of ``step`` (a power of ten, at most 1), one at least.

    Divided by the inverse, a whole number, so that each is the very float that its decimal text reads as: what comes over HTTP is equal
    to what the market holds.
    """
    inverse = np.round(1 / np.asarray(step))
    return np.asarray(np.maximum(np.round(numbers * inverse), 1.0) / inverse, dtype=np.float64)


def _season(block: int) -> Float32:
    """ln(volatility) by hour of the week over the block, [BLOCK, 1]."""
    hours = (block * BLOCK + np.arange(BLOCK)) % len(SEASON)
    return np.take(SEASON, hours)[:, None]


def _steps(price: float, quote_volume: float) -> tuple[float, float]:
    """Price tick (about a hundred-thousandth of the price) and lot, powers of ten down to 1e-8 as on Binance."""
    tick = int(np.clip(np.floor(np.log10(price)) - 5, -8, 0))
    lot = int(np.clip(np.floor(np.log10(quote_volume / price)) - 4, -8, 0))
    return float(10.0**tick), float(10.0**lot)
