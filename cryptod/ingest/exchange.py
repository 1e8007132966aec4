"""An exchange's public market data: its clock, its markets, the last day's figures, its candles.

The one file that knows ccxt. It asks politely (ccxt's rate limiter is on, Retry-After is honoured, a ban ends the
run) and tries temporary trouble again a few times; whatever remains leaves here as an `ExchangeError` that says what
was asked. It believes nothing of what rows say: `answer` examines them.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from cryptod.errors import ExchangeError
from cryptod.ingest import listing, metadata, transport
from cryptod.ingest.listing import Day as Day
from cryptod.ingest.perpetuals import PERPETUALS, linear
from cryptod.market import HOUR, Timeframe
from cryptod.symbol import split

T = TypeVar("T")

IN_FLIGHT: Final = 8
"""Coins that are asked for at once; ccxt's limiter spaces the requests."""
ATTEMPTS: Final = 4
FIRST_PAUSE: Final = 0.5
"""Seconds before the second attempt; doubled, with jitter, before each further one."""
PATIENCE: Final = 30.0
"""Seconds that a run waits when it is told to (429); asked to wait longer, it gives up and says when to come back."""
UNSAID_WAIT: Final = 10.0
"""Seconds to wait after a 429 that does not say how long."""
UNSAID_BAN: Final = 300.0
"""Seconds to stay away after a ban that does not say how long."""
UNSAID_BLOCK: Final = 3600.0
"""Seconds to stay away where this country is not served."""
GIVE_UP_AFTER: Final = 3
"""So many questions in a row without an answer, each tried `ATTEMPTS` times: nobody is there."""
TIMEOUT_MS: Final = 10_000
LOOK_S: Final = 0.004
"""Between looks at the limiter's bucket (ccxt: 1 ms); it saves a quarter of the processor time of a waiting run."""
DEFAULT_PAGE: Final = 300
"""Rows of candles per request, for an exchange of which ccxt does not say."""

_SECONDS: Final = range(1_000_000_000, 100_000_000_000)
"""A time between these is one in seconds: ccxt passes on dydx's as it is."""
_NEWEST: Final = {
    "bithumb": 200, "bitrue": 1440, "bitteam": 1000, "bittrade": 2000, "deepcoin": 300, "gemini": 1440, "p2b": 500, "phemex": 1000,
    "weex": 300,
}  # fmt: skip
"""ccxt's id -> rows in one answer of an exchange that gives its newest ones, from whenever they are asked for. phemex also refuses
most other numbers of rows."""
_FIRST_MISSING: Final = frozenset({"bullish"})
"""ccxt's window has a row more than the answers hold, and these leave out the first: they are asked from an hour earlier."""
RANKED: Final = 600
"""Pairs whose last day is asked for one by one where an exchange gives no volumes."""
_HERE: Final = ("localhost", "127.0.0.1", "::1")
"""Hosts that no proxy of the environment is asked for."""
_ELSEWHERE: Final = ("country", "countries", "region", "location", "jurisdiction", "territor")
"""Words of a refusal that is about the place that is asked from."""


class UnknownSymbol(ExchangeError):
    """The exchange does not know this pair (any more)."""


class Refused(ExchangeError):
    """The exchange understood the question and does not answer it: it asks for hours that are too old, perhaps."""


class _Limited(Exception):
    """Told to slow down (429) or to stay away (418, 403, 451). ``elsewhere``: because of the place that is asked from."""

    def __init__(self, status: int, seconds: float | None, elsewhere: bool = False) -> None:
        super().__init__(f"status {status}")
        self.status, self.seconds, self.elsewhere = status, seconds, elsewhere or status == 451


class Exchange:
    """One exchange through ccxt, for one run. An async context manager.

    ``market`` is ``spot``, or ``swap`` for perpetual futures, which not every exchange has. ``url`` redirects all requests
    to another host (a simulated exchange); paths stay. All go through ``proxy``, or else the one that the environment
    names. ``on_wait`` hears why nothing happens for a while. ``pace``: how
    many times faster than life the clock of an exchange at ``url`` runs; it allows as much in a minute of its own as the
    real one in a real minute. ``requests`` counts what was sent, ``page`` is how many candles come with one answer.
    ``blocked`` is set once there is no point in asking any more; from then on nothing is sent.
    """

    def __init__(
        self,
        name: str,
        url: str = "",
        market: str = "spot",
        *,
        proxy: str = "",
        pace: float = 1.0,
        on_wait: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.name, self.market = name, market
        if market != "spot" and name not in PERPETUALS:
            raise ExchangeError(
                f"perpetual futures of {name} are not known", hint=f'exchange.market = "swap" goes with {", ".join(PERPETUALS)}'
            )
        self._perpetuals = PERPETUALS[name] if market != "spot" else None
        self.requests = 0
        self._naming = False  # while markets are asked for
        self.blocked: ExchangeError | None = None
        self._on_wait = on_wait
        self._resume_at = 0.0
        self._waited = 0.0
        self._unanswered = 0
        self._client = _client_class(self._perpetuals.client if self._perpetuals else name)(
            {"enableRateLimit": True, "timeout": TIMEOUT_MS, "tokenBucket": {"delay": LOOK_S}}
        )
        self._ccxt = sys.modules["ccxt.base.errors"]
        self._must_have(market)
        self._client.aiohttp_proxy = proxy or None
        self._client.aiohttp_trust_env = not proxy and urlsplit(url).hostname not in _HERE
        self._prepare(url, pace)

    def _must_have(self, market: str) -> None:
        """What ccxt says that the exchange has: markets of the kind that is meant, and their candles of an hour."""
        has = self._client.has
        if market == "spot" and not has.get("spot"):
            raise ExchangeError(f"{self.name} has no spot markets", hint="choose another exchange (exchange.id)")
        if not has.get("fetchOHLCV") or "1h" not in (self._client.timeframes or {}):
            raise ExchangeError(f"{self.name} gives no candles of an hour", hint="choose another exchange (exchange.id)")

    def _prepare(self, url: str, pace: float) -> None:
        client = self._client
        client.has["fetchCurrencies"] = False  # an endpoint that needs a key, and nothing that we need
        kinds = client.options.get("fetchMarkets")
        if isinstance(kinds, dict) and "types" in kinds:
            client.options["fetchMarkets"] = {
                **kinds,
                "types": list(self._perpetuals.types) if self._perpetuals else listing.spot(kinds["types"]),
            }
        client.options["defaultType"] = (
            "swap" if self._perpetuals else "spot"
        )  # of the volumes too: some are otherwise those of perpetual futures
        client.enableLastHttpResponse = False  # nobody reads it, and it may have 32 MB
        if url:
            client.urls["api"] = _redirected(client.urls["api"], url)
            if urlsplit(url).scheme == "http":  # no certificates to load, no TLS connection to wait for at the end
                client.ssl_context, client.timeout_on_exit = False, 0
            client.rateLimit /= pace
            client.tokenBucket = {"delay": LOOK_S}
            client.init_rest_rate_limiter()
        self._limit = client.throttle
        client.throttle = self._throttle
        client.on_rest_response = self._on_response
        client.parse_json = self._parse_json
        candles = (client.features.get("spot") or client.features.get("default") or {}).get("fetchOHLCV") or {}
        self.newest = 0 if self._perpetuals else _NEWEST.get(self.name, 0)
        self.page = self.newest or int(candles.get("limit") or DEFAULT_PAGE)
        if self._perpetuals:
            client.options |= self._perpetuals.options
            self.page = self._perpetuals.page

    async def __aenter__(self) -> Exchange:
        client = self._client
        client.open()  # with its certificates and its connector, in a session of ours
        client.session.detach()
        client.session = transport.session(client.tcp_connector, client.aiohttp_trust_env)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.close()

    # Questions

    async def time(self) -> int | None:
        """The exchange's clock, UTC ms; None if it does not tell."""
        if not self._client.has.get("fetchTime"):
            return None
        now = await self._ask("its time", self._client.fetch_time)
        if not isinstance(now, int) or now <= 0:
            raise ExchangeError(f"{self.name} gave {transport.cleaned(repr(now))} for its time")
        return now * 1000 if now in _SECONDS else now

    async def load_markets(self) -> dict[str, bool]:
        """Ask for all markets, spot or swap. Returns symbol -> whether it trades; `records` has what to keep of them."""
        self._naming = True
        try:
            markets: Mapping[str, Any] = await self._ask("its markets", lambda: self._client.load_markets(True))
        finally:
            self._naming = False
        wanted = linear if self._perpetuals else _spot
        meant = {symbol: market for symbol, market in markets.items() if wanted(market)}
        found = {symbol: market.get("active") is not False for symbol, market in meant.items() if listing.sound(symbol)}
        if not found:
            kind = "perpetual futures" if self._perpetuals else "spot markets"
            raise ExchangeError(f"{self.name} named no {kind}", hint="is it the right exchange?")
        return found

    def said(self) -> dict[str, str]:
        """The loaded markets that the exchange itself calls something else than a coin, and what (see `metadata`)."""
        markets: Mapping[str, Any] = self._client.markets or {}
        return {symbol: reason for symbol, market in markets.items() if (reason := metadata.said(market))}

    def records(self, symbols: Iterable[str]) -> dict[str, dict[str, Any]]:
        """What must be kept of the loaded markets so that the next run need not load them.

        ccxt's modules read fields of their own in a market (a scale of prices, a type in ``info``), so all of it is kept
        that is plain: of what the exchange itself said (``info``), the values that are no lists, unless they are long.
        """
        markets = self._client.markets or {}
        return {symbol: listing.record(markets[symbol]) for symbol in symbols if symbol in markets}

    def use_markets(self, records: Mapping[str, dict[str, Any]]) -> None:
        """Take markets from `records` of an earlier run."""
        self._client.set_markets([dict(record) for record in records.values()])

    async def last_day(self, trading: Mapping[str, bool], quote: str, end: int) -> dict[str, Day]:
        """The last 24 hours of all pairs, of which those of ``trading`` against ``quote`` are meant. Markets must be loaded.

        Where the exchange gives no volumes, they are those of the 24 candles before ``end``, a request for each pair.
        """
        pairs = [symbol for symbol, active in trading.items() if active and split(symbol).quote == quote]
        days: dict[str, Day] = {}
        if self._client.has.get("fetchTickers"):
            tickers: Mapping[str, Any] = await self._ask("the last day's volumes", self._client.fetch_tickers)
            contracts = self._perpetuals is not None and self._perpetuals.day_contracts
            days = {
                symbol: listing.day(ticker, (self._contract_size(symbol) or 0.0) if contracts else 1.0)
                for symbol, ticker in tickers.items()
                if isinstance(ticker, dict)
            }
        if not pairs or any(days[pair].quote_volume for pair in pairs if pair in days):
            return days
        if len(pairs) > RANKED:
            raise ExchangeError(
                f"{self.name} tells no volumes of its {len(pairs)} pairs", hint="name the coins in universe.include and set universe.size"
            )
        self._on_wait(f"{self.name} tells no volumes: {len(pairs)} pairs are asked for a day of candles each")
        places = asyncio.Semaphore(IN_FLIGHT)

        async def by_candles(pair: str) -> tuple[str, Day]:
            async with places:
                try:
                    rows = await self.candles(pair, HOUR, end - 24 * HOUR.ms, self.newest or 25)
                except ExchangeError:
                    if self.blocked is not None:
                        raise
                    rows = []  # one pair that cannot be asked for is not chosen
            return pair, listing.day_of(rows, end - 24 * HOUR.ms, end)

        return dict(await asyncio.gather(*(by_candles(pair) for pair in pairs)))

    async def candles(self, symbol: str, timeframe: Timeframe, since: int, limit: int) -> list[list[Any]]:
        """Rows (open time, open, high, low, close, volume) from ``since`` on, at most ``limit``, as the exchange gives them."""
        begin = since - timeframe.ms if self.name in _FIRST_MISSING else since
        params = {"until": begin + limit * timeframe.ms} if self._perpetuals and self._perpetuals.until else {}
        rows = await self._ask(f"candles of {symbol}", lambda: self._client.fetch_ohlcv(symbol, timeframe.name, begin, limit, params))
        if not isinstance(rows, list):
            raise ExchangeError(f"{self.name} gave no list of candles for {symbol}")
        if self._perpetuals and self._perpetuals.contracts:
            size = self._contract_size(symbol)
            if size is None:
                raise ExchangeError(f"{self.name} does not say how many coins a contract of {symbol} is: its volumes mean nothing")
            rows = [[*row[:5], row[5] * size] if len(row) == 6 and isinstance(row[5], int | float) else row for row in rows]
        return rows

    def _contract_size(self, symbol: str) -> float | None:
        """Coins of one contract, if the exchange says it."""
        market = (self._client.markets or {}).get(symbol) or {}
        size = market.get("contractSize")
        return float(size) if isinstance(size, int | float) and 0 < size < 1e15 else None

    async def rehearse(self) -> float:
        """Ask for everything, with nothing sent: `ExchangeError` where ccxt wants a key or an argument.

        Returns how many seconds ccxt's limiter puts between two questions for candles.
        """
        client, costs = self._client, [1.0]
        pair = {"symbol": "BTC/USDT", "base": "BTC", "quote": "USDT", "baseId": "BTC", "quoteId": "USDT", "active": True, "info": {}}
        kind = {"spot": True, "type": "spot", "contract": False}
        if self._perpetuals:
            kind = {"swap": True, "type": "swap", "contract": True, "linear": True, "settle": "USDT", "settleId": "USDT"}

        async def sent(*_: object) -> dict[str, Any]:
            return {}

        async def spaced(cost: float | None = None) -> None:
            costs[-1] += cost or 1.0

        client.fetch, client.throttle = sent, spaced
        questions = {"its time": client.fetch_time} if client.has.get("fetchTime") else {}
        questions |= {"its markets": client.fetch_markets, "candles": lambda: client.fetch_ohlcv("BTC/USDT", "1h", 1_700_000_000_000, 24)}
        for what, ask in questions.items():
            if what == "candles":
                client.set_markets([client.safe_market_structure({"id": "1", **pair, **kind})])
            costs[-1] = 0.0
            try:
                await ask()
            except (self._ccxt.AuthenticationError, self._ccxt.ArgumentsRequired) as error:
                raise self._translated(what, error)[0] from error
            except (self._ccxt.BaseError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
                continue  # no answer is what it expects
        return float(client.rateLimit) / 1000 * (costs[-1] or 1.0)

    # How it is asked

    async def _ask(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                answer = await call()
            except _Limited as error:
                self._slow_down(error)
                attempt -= 1  # waiting as told is not a failure; `PATIENCE` bounds it
                continue
            except (self._ccxt.RateLimitExceeded, self._ccxt.DDoSProtection):  # said in the answer's text, not by its status
                self._slow_down(_Limited(429, None))
                attempt -= 1
                continue
            except transport.Unwelcome as error:
                raise ExchangeError(f"{self.name} was asked for {what} and sent {error}", hint=error.hint) from error
            except (self._ccxt.BaseError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                # The builtin ones are what ccxt's parsers raise when an answer is not of the shape that they expect.
                if self.blocked is not None:
                    raise self.blocked from error
                problem, temporary = self._translated(what, error)
                if not temporary:
                    self._unanswered = 0
                    raise problem from error
                if attempt == ATTEMPTS:
                    self._unanswered += 1
                    if self._unanswered == GIVE_UP_AFTER:
                        self.blocked = problem
                    raise problem from error
                await asyncio.sleep(FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
            else:
                self._unanswered = 0
                return answer

    async def _throttle(self, cost: float | None = None) -> None:
        """ccxt calls this before each request, and sends it when it returns."""
        await self._limit(cost)
        while (wait := self._resume_at - time.monotonic()) > 0 and self.blocked is None:  # noqa: ASYNC110  # it may be put off while we sleep
            await asyncio.sleep(wait)
        if self.blocked is not None:
            raise self._ccxt.ExchangeNotAvailable("blocked")
        self.requests += 1

    def _on_response(self, status: int, reason: str, url: str, method: str, headers: Mapping[str, str], body: str, *_: object) -> str:
        """ccxt calls this with each response, before it looks at it."""
        body = body.strip()
        if status in (418, 429, 403, 451):
            raise _Limited(status, transport.retry_after(headers), any(word in body[:4000].lower() for word in _ELSEWHERE))
        if status >= 500 or (status >= 400 and not body.startswith("{")):
            raise self._ccxt.ExchangeNotAvailable(f"HTTP status {status}")
        return body

    def _parse_json(self, body: str) -> Any:
        """Strict, where ccxt takes what cannot be parsed for text."""
        try:
            answer = transport.decoded(body)
        except msgspec.DecodeError as error:
            raise self._ccxt.BadResponse(f"not JSON: {error}") from error
        if self._naming and (count := listing.longest(answer)) > listing.MOST_MARKETS:
            raise transport.Unwelcome(f"{count:,} of them; at most {listing.MOST_MARKETS:,} are taken")
        return answer

    def _slow_down(self, limited: _Limited) -> None:
        """Wait as told, or give up for this run when that is long or a ban."""
        if self.blocked is not None:
            raise self.blocked
        if limited.elsewhere:
            self.blocked = ExchangeError(
                f"{self.name} does not serve this country or network (status {limited.status})",
                hint="choose an exchange that does (exchange.id), or another network", retry_after=limited.seconds or UNSAID_BLOCK,
            )  # fmt: skip
            raise self.blocked
        banned = limited.status != 429
        seconds = max(1.0, limited.seconds if limited.seconds is not None else UNSAID_BAN if banned else UNSAID_WAIT)
        now = time.monotonic()
        longer = max(0.0, now + seconds - max(self._resume_at, now))
        if banned or self._waited + longer > PATIENCE:
            told = "has banned this address" if banned else "asks for fewer requests"
            hint = f"come back in {seconds:.0f} s"
            if limited.status == 403:
                told, hint = (
                    "refuses this address: a ban, or it does not serve this country",
                    f"{hint}; if it lasts, choose another exchange",
                )
            self.blocked = ExchangeError(f"{self.name} {told} (status {limited.status})", hint=hint, retry_after=seconds)
            raise self.blocked
        if longer:
            self._waited += longer
            self._resume_at = now + seconds
            self._on_wait(f"{self.name} asks to wait for {seconds:.0f} s")

    def _translated(self, what: str, error: Exception) -> tuple[ExchangeError, bool]:
        """Our error, and whether it may pass by itself."""
        ccxt, asked = self._ccxt, f"{self.name} was asked for {what}"
        text = transport.cleaned(str(error))
        if isinstance(error, ccxt.BadSymbol):
            return UnknownSymbol(f"{asked} and does not know it"), False
        if isinstance(error, ccxt.RequestTimeout):
            return ExchangeError(f"{asked} and did not answer in {TIMEOUT_MS // 1000} s", hint="it is tried again"), True
        if isinstance(error, ccxt.NullResponse | ccxt.BadResponse) or not isinstance(error, ccxt.BaseError):
            return ExchangeError(f"{asked} and answered nonsense: {text}", hint="it is tried again"), True
        if isinstance(error.__cause__, aiohttp.ClientProxyConnectionError | aiohttp.ClientHttpProxyError):
            hint = "check exchange.proxy, or HTTPS_PROXY and HTTP_PROXY of the environment"
            return ExchangeError(f"{self.name} cannot be reached through the proxy: {error.__cause__}", hint=hint), True
        if isinstance(error.__cause__, aiohttp.ClientConnectorError):
            return ExchangeError(
                f"{self.name} cannot be reached: {error.__cause__}", hint="check the network and the exchange's status"
            ), True
        if isinstance(error, ccxt.OperationFailed) or isinstance(error.__cause__, aiohttp.ClientError):
            return ExchangeError(f"{asked} and failed: {text or error.__cause__}", hint="it is tried again"), True
        if isinstance(error, ccxt.NotSupported):
            return ExchangeError(f"{self.name} does not offer {what}", hint="choose another exchange"), False
        if isinstance(error, ccxt.AuthenticationError):
            return ExchangeError(
                f"{self.name} wants a key before it gives {what}", hint="choose another exchange: cryptod uses no keys"
            ), False
        if isinstance(error, ccxt.ArgumentsRequired):
            return ExchangeError(f"{self.name} cannot be asked for {what}: {text}", hint="choose another exchange"), False
        return Refused(f"{asked} and refused: {text}"), False


def _client_class(name: str) -> Any:
    """ccxt's class for an exchange.

    ccxt's packages load the code of a hundred exchanges when they are imported, 50 MB and half a second of which one
    exchange needs little. So its module is imported while empty packages stand in their place; should a later ccxt
    not bear that, the packages are imported as usual.
    """
    packages = ("ccxt", "ccxt.async_support")
    try:
        if "ccxt" in sys.modules or not _lean_import(name, packages):
            importlib.import_module("ccxt.async_support")
        return getattr(importlib.import_module(f"ccxt.async_support.{name}"), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ExchangeError(
            f"there is no exchange {name!r} in ccxt", hint="exchange.id is one of ccxt's ids, such as binance or kraken"
        ) from error


def _lean_import(name: str, packages: tuple[str, str]) -> bool:
    try:
        for package in packages:
            spec = importlib.util.find_spec(package)
            if spec is None:
                return False
            sys.modules[package] = importlib.util.module_from_spec(spec)
        for module in ("ccxt.base.errors", "ccxt.base.exchange"):  # what modules within ccxt import from its top
            names = vars(importlib.import_module(module))
            vars(sys.modules["ccxt"]).update({key: value for key, value in names.items() if isinstance(value, type)})
        importlib.import_module(f"ccxt.async_support.{name}")
    except ImportError:
        return False
    finally:
        for package in packages:
            sys.modules.pop(package, None)
    return True


def _redirected(urls: Any, url: str) -> Any:
    """The same tree of addresses with another scheme and host."""
    if isinstance(urls, dict):
        return {key: _redirected(value, url) for key, value in urls.items()}
    return url.rstrip("/") + urlsplit(urls).path if isinstance(urls, str) else urls


def _spot(market: Mapping[str, Any]) -> bool:
    return bool(market.get("spot"))
