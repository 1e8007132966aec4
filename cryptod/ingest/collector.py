"""Bring the candle store up to date: the work of a collect child, from its order to its report.

Knows the exchange, the rules of the universe, and the store, which it alone writes. Level-triggered: each run looks at
what the store lacks and asks for that, so a run that was killed, failed or skipped is made good by the next one.

A coin that fails leaves the others alone and is tried again at the next run; an exchange that bans, or that nobody
reaches, ends the run.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from cryptod.errors import CryptodError, DamagedError, ExchangeError
from cryptod.examination import examine, named
from cryptod.ingest.exchange import IN_FLIGHT, Day, Exchange, Refused, UnknownSymbol
from cryptod.ingest.history import AMPLE, RECHECKED, History
from cryptod.ingest.metadata import others
from cryptod.ingest.paging import Paging
from cryptod.ingest.universe import Universe, select, unclear
from cryptod.logs import get_logger
from cryptod.market import CLOSE, HIGH, LOW, OPEN, TIMEFRAMES, Float64, Int64, parse_symbol
from cryptod.store.candles import CandleStore, Fetched
from cryptod.store.environment import put_aside
from cryptod.worker.messages import CollectDone, CollectOrder, Failed, Progress, Report, known_market, market

ROUNDS: Final = 5
"""How often a coin's doubtful hours are asked for in one run; two settle them unless answers keep changing."""
PATIENCE_HOURS: Final = 7 * 24
"""Hours that stay unknown are asked for again after an hour, then two, four and so on, up to this."""
RULES: Final = 2
"""Of what makes an hour without trades. What a store holds by older ones is found out anew."""
BEAT: Final = 0.5
"""Seconds between reports of progress, and between writes of what came in."""
MONTH_HOURS: Final = 730
KEPT_DAYS: Final = 30
"""Candles are kept so many days longer than they are needed, so that a longer look back need not fetch all anew."""
SILENT_DAYS: Final = 7
"""A coin without a candle for so long is halted or delisted and is not followed; the next choice of the universe sees it again."""
LOOK_HOURS: Final = 72
"""Hours of candles that say whether a price is pegged where the exchange gives no range of the day."""
LOOKS: Final = 40
"""Coins of which that is asked in one choice of the universe."""
SKEW_MS: Final = 60_000
JUMP: Final = 3.0
"""Log return from one candle's close to the next one's open that no market makes: the coin was redenominated, or is another one."""

log = get_logger("collector")


def run(order: CollectOrder, report: Callable[[Report], None]) -> None:
    """Carry out the order; the last thing reported is `CollectDone` or `Failed`."""
    try:
        with _opened(Path(order.candles)) as store:
            done = asyncio.run(_Run(order, store, report).collect())
    except CryptodError as error:
        retry_after = error.retry_after if isinstance(error, ExchangeError) else None
        report(Failed(job=order.job, error=error.message, hint=error.hint, retry_after=retry_after, code=error.code))
    else:
        report(done)


def _opened(path: Path) -> CandleStore:
    """The store; a damaged one is set aside and begun anew, for the exchange still has what was in it."""
    try:
        return CandleStore.open(path, writer=True)
    except DamagedError as error:
        aside = path / "damaged"  # the child may change nothing beside the store's own folder
        put_aside(path / "data.mdb", aside / "data.mdb", error)
        log.error("the candle store was damaged and is fetched anew", error=error.message, set_aside=str(aside))
        return CandleStore.open(path, writer=True)


class _AnotherCoin(Exception):
    """While a coin was asked for, another one turned out to stand behind its symbol."""


class _Run:
    """One order's state."""

    def __init__(self, order: CollectOrder, store: CandleStore, report: Callable[[Report], None]) -> None:
        self._order, self._store, self._report = order, store, report
        self._timeframe = TIMEFRAMES[order.timeframe]
        self._began = time.monotonic()
        self._exchange = Exchange(order.exchange, order.url, order.market, proxy=order.proxy, pace=order.pace, on_wait=self._say)
        self._listed: dict[str, list[int]] = store.facts("listed") or {}
        """symbol -> [asked from, open time of the exchange's first candle]"""
        self._unknown: dict[str, list[int]] = store.facts("unknown") or {}
        """symbol -> [runs that left hours unknown, time of the next attempt, end of the hours that it is about]"""
        self._paging = Paging(self._exchange.page, store.facts("paging"))
        self._pending: list[Fetched] = []
        self._left_out: dict[str, str] = {}
        self._absent: dict[str, str] = {}
        """Coins that were chosen and then had no candles -> why: they are looked at again each time until the next choice."""
        self._kept: dict[str, dict[str, Any]] = {}
        """What earlier runs kept of the markets."""
        self._renewed: set[str] = set()
        self._spelt: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._new = self._revised = 0
        self._skew = 0.0
        self._stage, self._done, self._total, self._text = "markets", 0, 0, ""
        self._markets_asked: asyncio.Task[dict[str, bool]] | None = None
        self._now = self._start = self._end = 0

    async def collect(self) -> CollectDone:
        async with self._exchange:
            work, beat = asyncio.create_task(self._collect()), asyncio.create_task(self._beat())
            await asyncio.wait((work, beat), return_when=asyncio.FIRST_COMPLETED)
            if beat.done():  # what came in cannot be written: no use in asking on
                work.cancel()
                await asyncio.wait((work,))
                beat.result()
            beat.cancel()
            return await work

    async def _collect(self) -> CollectDone:
        order = self._order
        self._set_clock(await self._exchange.time())
        self._doubt_older_rules()
        latest = max(self._now, order.now) + int(SKEW_MS * order.pace)
        dropped = order.held_to > latest and self._store.drop_after(self._timeframe.floor(latest)) > 0
        if dropped:
            log.warning("candles of hours that have not come were dropped: a clock was ahead", held_to=order.held_to, latest=latest)
        symbols = await self._choose()
        missing = max((int(self._history(symbol).wanted().sum()) for symbol in symbols), default=0)
        self._stage = "backfill" if missing > 2 * RECHECKED else "update"
        self._done, self._total = 0, len(symbols)
        self._tell()
        places = asyncio.Semaphore(IN_FLIGHT)
        alone = symbols[:1] if not self._paging.rows else ()  # what its answers show of the exchange saves the others questions
        for symbol in alone:
            await self._bring_up_to_date(symbol, places)
        async with asyncio.TaskGroup() as group:
            for symbol in symbols[len(alone) :]:
                group.create_task(self._bring_up_to_date(symbol, places))
        self._flush()
        self._store.drop_before(self._start - KEPT_DAYS * 24 * self._timeframe.ms)
        blocked = self._exchange.blocked
        if blocked is not None and (blocked.retry_after is not None or len(self._failed) == len(symbols)):
            raise blocked  # what was fetched before stands in the store; the next run goes on from there
        if symbols and self._left_out.keys() >= set(symbols):  # a clock that stands in another year sees no candle of any coin
            raise ExchangeError(
                f"{order.exchange} has no candle of any coin in the {SILENT_DAYS} days before {_date(self._end)} UTC",
                hint="is this machine's clock right (timedatectl)?",
            )
        self._tell()
        self._store.set_facts("absent", {symbol: self._left_out[symbol] for symbol in symbols if symbol in self._left_out})
        return CollectDone(
            job=order.job,
            symbols=tuple(symbol for symbol in symbols if symbol not in self._left_out),
            left_out=self._left_out,
            failed=self._failed,
            spelt=self._spelt,
            renewed=tuple(sorted(self._renewed)),
            collected_to=self._end,
            skew_ms=self._now - order.now,
            new_candles=self._new,
            revised_candles=self._revised,
            requests=self._exchange.requests,
            dropped=dropped,
            seconds=time.monotonic() - self._began,
        )

    def _set_clock(self, told: int | None) -> None:
        """Closed is what is closed by the exchange's clock, and by the order's: a clock that is off must not age a candle."""
        self._now = self._order.now if told is None else told
        skew = self._now - self._order.now
        self._end = self._timeframe.floor(min(self._now, self._order.now))
        self._start = max(0, self._end - self._order.months_back * MONTH_HOURS * self._timeframe.ms)
        # A simulated exchange's clock may run faster than life, and is then ahead by the time that the order took.
        if abs(skew) > SKEW_MS and not self._order.url:
            log.warning("this machine's clock and the exchange's do not agree", ahead_s=-skew / 1000, exchange=self._order.exchange)
        self._skew = skew / 1000

    # Which coins

    async def _choose(self) -> tuple[str, ...]:
        """The coins to follow, with the markets that the exchange needs to be asked for them."""
        saved = self._store.facts("universe") or {}
        mine = market(self._order.exchange, self._order.url, self._order.quote, self._order.market)
        if saved and known_market(saved) != mine:
            log.info("candles of another market are dropped", was=saved.get("exchange"), now=self._order.exchange)
            for symbol in self._store.symbols():
                self._store.drop(symbol)
            saved, self._listed, self._unknown, self._paging = {}, {}, {}, Paging(self._exchange.page)
            self._store.set_facts("absent", {})
        self._kept = saved.get("markets", {})
        symbols = self._order.symbols or tuple(saved.get("symbols", ()))
        if self._order.select_universe or not symbols:
            try:
                universe = await self._selected(symbols)
            except ExchangeError as error:
                if not symbols or self._exchange.blocked is not None:
                    raise
                log.warning("the universe stays as it is: it could not be chosen anew", error=error.message, hint=error.hint)
                universe = Universe(symbols, saved.get("left_out", {}))
        else:
            left_out = {symbol: reason for symbol, reason in saved.get("left_out", {}).items() if symbol not in symbols}
            absent: dict[str, str] = self._store.facts("absent") or {}
            self._absent = {symbol: why for symbol, why in absent.items() if symbol not in symbols and symbol not in self._order.exclude}
            universe = Universe(symbols, left_out)
            if set(self._kept) >= set(symbols):
                self._exchange.use_markets(self._kept)
            else:
                await self._load_markets()
        self._left_out, self._spelt = universe.left_out | self._absent, universe.spelt
        wanted = (*universe.symbols, *self._absent)
        records = {symbol: self._kept[symbol] for symbol in wanted if symbol in self._kept} | self._exchange.records(wanted)
        if not self._exchange.records(wanted):
            self._exchange.use_markets(records)
        self._store.set_facts("universe", {**mine, "symbols": list(universe.symbols), "left_out": universe.left_out, "markets": records})
        return wanted

    async def _selected(self, followed: tuple[str, ...]) -> Universe:
        order = self._order
        trading = await self._load_markets()
        days = await self._exchange.last_day(trading, order.quote, self._end) if order.size > len(order.include) else {}
        if not days and order.size > len(order.include):
            raise ExchangeError(f"{order.exchange} gave no volumes to choose coins by", hint="it is tried again")
        said = self._exchange.said()
        for symbol in unclear(trading, days, quote=order.quote, size=order.size, said=said)[:LOOKS]:
            days[symbol] = await self._looked_at(symbol, days[symbol])
        return select(
            trading, days, quote=order.quote, size=order.size, include=order.include, exclude=order.exclude,
            followed=followed, exchange=order.exchange, said=said,
        )  # fmt: skip

    async def _looked_at(self, symbol: str, day: Day) -> Day:
        """The day with the high and low of a few days of candles, of a pair whose exchange gives none."""
        start = self._end - LOOK_HOURS * self._timeframe.ms
        try:
            answer = examine(await self._exchange.candles(symbol, self._timeframe, start, LOOK_HOURS), self._end, self._timeframe)
        except ExchangeError:
            return day
        recent = answer.values[answer.open_times >= start]
        return replace(day, high=float(recent[:, HIGH].max()), low=float(recent[:, LOW].min())) if len(recent) else day

    async def _load_markets(self) -> dict[str, bool]:
        """All pairs, asked for at most once in a run. Behind some symbols another coin may stand now: their candles go."""
        if self._markets_asked is None:
            self._markets_asked = asyncio.create_task(self._loaded())
        return await asyncio.shield(self._markets_asked)

    async def _loaded(self) -> dict[str, bool]:
        trading = await self._exchange.load_markets()
        records = self._exchange.records(self._kept)
        for symbol in others(self._kept, records):
            log.warning("another coin stands behind a symbol: its history begins anew", symbol=symbol, id=records[symbol].get("id"))
            self._store.drop(symbol)
            self._listed.pop(symbol, None)
            listed = records[symbol].get("created")
            if isinstance(listed, int) and listed > (self._kept[symbol].get("created") or 0):
                self._listed[symbol] = [0, self._timeframe.floor(listed)]
            self._renewed.add(symbol)
        return trading

    # One coin

    def _history(self, symbol: str) -> History:
        asked, first = self._listed.get(symbol, (self._end, 0))
        start = min(self._end, max(self._start, first)) if asked <= self._start else self._start
        _, attempt, until = self._unknown.get(symbol, (0, 0, 0))
        patient = min(until, self._end - RECHECKED * self._timeframe.ms) if self._now < attempt else 0
        return History(self._store.status(symbol, start, self._end), start, self._now, self._timeframe, self._paging, patient)

    def _doubt_older_rules(self) -> None:
        """Hours without trades, and beginnings, by earlier rules may be false: they are found out anew, once."""
        if (self._store.facts("rules") or {}).get("version", 1) < RULES:
            hours = self._store.forget_no_trade()
            if hours or self._listed:
                log.info("hours without trades are checked once more, by stricter rules", hours=hours)
            self._listed = {}
            self._store.set_facts("listed", {})
            self._store.set_facts("rules", {"version": RULES})

    async def _bring_up_to_date(self, symbol: str, places: asyncio.Semaphore) -> None:
        async with places:
            if symbol in self._absent and not await self._is_back(symbol):
                self._done += 1
                return
            history = self._history(symbol)
            try:
                try:
                    await self._ask(parse_symbol(symbol), history)
                except _AnotherCoin:
                    history = self._history(symbol)
                    await self._ask(symbol, history)
            except UnknownSymbol as error:
                self._left_out[symbol] = f"{self._order.exchange} does not have it any more"
                log.info("a coin is gone from the exchange", symbol=symbol, error=error.message)
            except CryptodError as error:
                self._failed[symbol] = str(error)
            else:
                self._judge(symbol, history)
            self._keep(symbol, history)
            self._done += 1

    async def _is_back(self, symbol: str) -> bool:
        """Whether a coin that had no candles has one again."""
        start = self._end - RECHECKED * self._timeframe.ms
        try:
            answer = examine(await self._candles(symbol, start, RECHECKED), self._end, self._timeframe)
        except _AnotherCoin:
            return True
        except CryptodError:
            return False  # the reason that is known stays
        return bool((answer.open_times >= start).any())

    async def _ask(self, symbol: str, history: History) -> None:
        """Ask for what is wanted, then for what is doubtful until nothing is."""
        wanted = history.wanted()
        if not self._paging.rows:
            wanted[-AMPLE:] = True  # nothing is known yet of how much an answer can hold
        for _ in range(ROUNDS):
            for since, count in history.windows(wanted):
                await self._ask_for(symbol, history, since, since + count * self._timeframe.ms)
            wanted = history.doubtful()
            if not wanted.any():
                return

    async def _ask_for(self, symbol: str, history: History, since: int, end: int) -> None:
        """Ask for the hours from ``since`` to ``end``, and go on from where an answer ends.

        Once a question was refused, halve the way to the oldest hour that is not: other coins then begin there.
        """
        older: int | None = None
        while since < end and not history.answered(since, count := (end - since) // self._timeframe.ms):
            limit = self._exchange.newest or history.limit(since, count)
            try:
                rows = await self._candles(symbol, since, limit)
            except Refused as error:
                younger = history.too_old(since, count)
                if younger is None:
                    raise
                log.info("the exchange refuses hours that are too old, perhaps", symbol=symbol, since=_date(since), error=error.message)
                since = older = younger
            else:
                answer = examine(rows, self._end, self._timeframe)
                if answer.unit and not len(answer.open_times):
                    raise ExchangeError(
                        f"{self._order.exchange} gave candles of {symbol} whose times look like {answer.unit}; expected UTC milliseconds"
                    )
                since = history.take(answer, since, count, limit)
                if older is not None and (older := history.oldest()) is not None:
                    since = older

    async def _candles(self, symbol: str, since: int, count: int) -> list[list[Any]]:
        try:
            return await self._exchange.candles(symbol, self._timeframe, since, count)
        except UnknownSymbol:
            # The markets that were kept may be out of date: look once, and believe the exchange then.
            if self._markets_asked is not None and self._markets_asked.done():
                raise
            await self._load_markets()
            if symbol in self._renewed:
                raise _AnotherCoin from None
            return await self._exchange.candles(symbol, self._timeframe, since, count)

    def _judge(self, symbol: str, history: History) -> None:
        """What is to be said of a coin whose questions were all answered."""
        if symbol in self._absent:
            log.info("a coin has candles again", symbol=symbol)
            self._left_out.pop(symbol, None)
        begins = history.begins()
        if begins is not None and begins > self._start:
            self._listed[symbol] = [self._start, begins]
        self._put_off(symbol, history)
        recent = {time: flaw for time, flaw in history.refused.items() if time >= self._end - RECHECKED * self._timeframe.ms}
        late, last = history.late(), history.last()
        if history.refused:
            log.warning("candles were refused", symbol=symbol, what=named(history.refused))
        if last is None or last < self._end - SILENT_DAYS * 24 * self._timeframe.ms:
            since = "at all" if last is None else f"since {_date(last)}"
            why = "just listed, halted or delisted" if last is None else "halted or delisted"
            self._left_out[symbol] = f"{self._order.exchange} has no candle of it {since}: {why}"
        elif recent:
            self._failed[symbol] = named(recent)
        elif late is not None:
            self._failed[symbol] = f"its candle of {_date(late)} is not there yet"

    def _put_off(self, symbol: str, history: History) -> None:
        """Ask ever more rarely for hours that answers leave unknown, again and again."""
        runs, attempt, _ = self._unknown.pop(symbol, (0, 0, 0))
        if not history.unknown():
            return
        if self._now >= attempt:
            pause = min(2**runs, PATIENCE_HOURS) * self._timeframe.ms
            runs, attempt = min(runs + 1, 16), self._now + pause - self._timeframe.ms // 2
        self._unknown[symbol] = [runs, attempt, self._end]

    def _keep(self, symbol: str, history: History) -> None:
        times, values = history.candles()
        quiet = history.no_trade()
        if len(times) or len(quiet):
            self._pending.append(Fetched(symbol, times, values, quiet))
        for time_, size in _jumps(times, values, self._timeframe.ms):
            log.warning("the price jumped: redenominated, or another coin under its name?", symbol=symbol, at=_date(time_), log_return=size)

    # What is written and told

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        new, revised = self._store.apply(pending)
        self._new, self._revised = self._new + new, self._revised + revised
        self._store.set_facts("listed", self._listed)
        self._store.set_facts("unknown", self._unknown)
        self._store.set_facts("paging", self._paging.facts())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT)
            self._flush()
            self._tell()

    def _say(self, text: str) -> None:
        self._text = text
        log.info(text)
        self._tell()

    def _tell(self) -> None:
        figures = {"requests": float(self._exchange.requests), "new_candles": float(self._new), "clock_skew_s": self._skew}
        self._report(Progress(job=self._order.job, stage=self._stage, done=self._done, total=self._total, text=self._text, figures=figures))


def _jumps(times: Int64, values: Float64, hour: int) -> list[tuple[int, float]]:
    """(open time, log return) where a candle opens far from where the one before it closed."""
    if len(times) < 2:
        return []
    returns = np.log(values[1:, OPEN] / values[:-1, CLOSE])
    return [(int(times[place + 1]), round(float(returns[place]), 2)) for place in np.flatnonzero(np.abs(returns) > JUMP)]


def _date(time_: int) -> str:
    return f"{datetime.fromtimestamp(time_ / 1000, UTC):%Y-%m-%d %H:%M}"
