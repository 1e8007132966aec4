"""Keeping the candles up to date: when a collect child is due, what it is asked, and what its report changes.

Knows the pool and the job store. Level-triggered: a collection is due while a candle has closed that nobody has asked
for, or while a coming retrain wants the universe chosen anew. Failures are tried again at growing intervals of *real*
time, so that a sped-up market causes no storm of requests; they do not grow beyond what ten minutes of its own clock are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from cryptod.config import Config
from cryptod.daemon.amendments import Amendments
from cryptod.daemon.records import Records
from cryptod.daemon.symbols import spelt_out
from cryptod.errors import CryptodError, LoadError, RequestError, StoreError, WorkerError
from cryptod.logs import get_logger
from cryptod.market import TIMEFRAMES
from cryptod.symbol import of_market
from cryptod.worker.messages import CollectDone, CollectOrder, Failed, Progress, Report, known_market, market
from cryptod.worker.pool import Pool

SETTLE_MS: Final = 3_000
"""An exchange needs a moment to publish a candle that has just closed."""
SKEW_MS: Final = 60_000
"""The exchange's clock and this machine's may differ by so much, at the clock's pace, before it is said."""
RETRY_FIRST: Final = 5.0
RETRY_MOST: Final = 600.0
SILENCE: Final = 120.0
REMOVED: Final = "removed with `cryptoctl symbols remove`"

log = get_logger("collection")


def universe_market(saved: Mapping[str, Any]) -> dict[str, Any] | None:
    """The market that the record ``universe`` of the job store is of; None if it does not say."""
    return known_market(dict(zip(market("", "", ""), saved.get("market") or (), strict=False)))


class Collection:
    """The collect lane: at most one collect child at a time.

    ``followed`` are the coins of the universe, by quote volume; ``collected_to`` is the close time (UTC ms) up to which
    the exchange has been asked for all of them. ``pace``: how many times faster than life the clock runs.
    """

    def __init__(self, config: Config, candles: str, pool: Pool, jobs: Records, monotonic: Callable[[], float], pace: float = 1.0) -> None:
        self.config = config
        self._candles = candles
        self._pool = pool
        self._jobs = jobs
        self._monotonic = monotonic
        self._pace = pace
        self._timeframe = TIMEFRAMES[config.market.timeframe]
        self.amendments = Amendments(jobs)
        saved: dict[str, Any] = jobs.get("universe") or {}
        self._market = market(config.exchange.id, config.exchange.url, config.exchange.quote, config.exchange.market)
        if "market" in saved and universe_market(saved) != self._market:
            log.info("another market is followed from now on: its coins are chosen anew", was=saved["market"], now=self._market)
            saved = {}
        self.followed: tuple[str, ...] = tuple(saved.get("followed", ()))
        self.left_out: dict[str, str] = saved.get("left_out", {})
        self.selected_at: int = saved.get("selected_at", 0)
        self.collected_to: int = saved.get("collected_to", 0)
        self.held_to: int = max(saved.get("held_to", 0), self.collected_to)
        """Close time of the newest hour that the candle store may hold: later than ``collected_to`` once a clock was set back."""
        self.skew_ms = 0
        """How far the exchange's clock was ahead of this machine's when it was last asked."""
        self.attempted_to = 0
        """The boundary that the last attempt, successful or not, was made for: training does not wait for longer than that."""
        self.renewed: dict[str, int] = saved.get("renewed", {})
        """Symbols behind which another coin stands since a close time (UTC ms)."""
        self.failed: dict[str, str] = {}
        self.error = ""
        self.store_failed = False
        """Whether ``error`` is about the candle store, not about the exchange."""
        self.child_failed = False
        """Whether ``error`` is about the collect child, which did not get as far as the exchange."""
        self.banned = False
        """Whether the exchange itself said, the last time, when to come back and not before."""
        self.running = False
        self.progress: Progress | None = None
        self._stage_began = 0.0
        self.last: CollectDone | None = None
        self.last_at = 0
        self._failures = 0
        self._retry_at = 0.0
        self._select_again = False
        self._included: tuple[str, ...] = ()
        """What the order that was given last asked to include."""

    def boundary(self, now: int) -> int:
        """Close time of the newest candle that the exchange can have published at ``now``, by the clock that is behind of the two."""
        return self._timeframe.floor(now + min(self.skew_ms, 0) - SETTLE_MS)

    def latest(self, now: int) -> int:
        """What is later than this (UTC ms) has not come, by this machine's clock or by the exchange's, whichever is ahead."""
        return now + max(self.skew_ms, 0) + int(SKEW_MS * self._pace)

    def clock_stepped(self) -> None:
        """What is known of the two clocks is not so any more."""
        self.skew_ms = 0

    def ask_for_selection(self) -> None:
        """The next collection chooses the universe anew (before a full retrain, after a reload)."""
        self._select_again = True

    def add(self, symbol: str) -> bool:
        """Follow a coin from the next collection on, which is due now; whether that changes anything."""
        if not self.amendments.add(symbol) and (symbol in self.followed or symbol in self.unmet):
            return False
        self.left_out = {other: why for other, why in self.left_out.items() if other != symbol}
        if not self.error:
            self._retry_at = 0.0  # others that failed need not be waited for
        return True

    def remove(self, symbol: str) -> bool:
        """Follow a coin no more, from now on; whether that changes anything. `RequestError` if it is the last."""
        if self.followed == (symbol,):
            raise RequestError("conflict", f"{symbol} is the only coin that is followed", hint="add another one first")
        if not self.amendments.remove(symbol, was_followed=symbol in self.followed):
            return False
        self.followed = tuple(other for other in self.followed if other != symbol)
        self.failed.pop(symbol, None)
        self.left_out = {other: why for other, why in self.left_out.items() if other != symbol} | self._removed()
        self._save()
        return True

    def meant(self, text: str) -> str:
        """The symbol that is meant by what a person types, of a coin that nobody follows yet. `RequestError` if it cannot be one."""
        quote = self.config.exchange.quote
        settle = quote if self.config.exchange.market == "swap" else ""
        return spelt_out(text, quote, settle)

    def _removed(self) -> dict[str, str]:
        return dict.fromkeys(self.amendments.removed, REMOVED)

    @property
    def unmet(self) -> tuple[str, ...]:
        """Coins that were added, and of which the exchange has not said yet whether it has them."""
        return tuple(symbol for symbol in self.amendments.added if symbol not in self.followed and symbol not in self.left_out)

    @property
    def wants_selection(self) -> bool:
        return self._select_again or not self.followed or bool(self.unmet)

    def due(self, now: int) -> bool:
        """Whether a collect child should be started now.

        That is so also when what was collected lies in the future, which is then not the future: the clock was set back.
        Some coins that failed wait for their next attempt, and hold nothing else up; an exchange that could not be asked
        at all is left alone until then.
        """
        waiting = self._monotonic() < self._retry_at
        if self.running or (waiting and self.error):
            return False
        up_to_date = 0 <= self.collected_to - self.boundary(now) <= self._timeframe.ms
        if self._select_again or not self.followed or not up_to_date:
            return True
        return bool(self.failed or self.unmet) and not waiting

    @property
    def exchange_error(self) -> str:
        """Why the exchange could not be asked the last time, or nothing."""
        return "" if self.store_failed or self.child_failed else self.error

    @property
    def clock_error(self) -> str:
        """How far this machine's clock and the exchange's are apart, or nothing if that is nothing to speak of."""
        if abs(self.skew_ms) <= SKEW_MS * self._pace:
            return ""
        seconds = abs(self.skew_ms) // 1000
        span = f"{seconds / 86_400:.1f} days" if seconds >= 86_400 else f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds} s"
        return f"this machine's clock is {span} {'behind' if self.skew_ms > 0 else 'ahead of'} the exchange's"

    @property
    def store_error(self) -> str:
        """Why the candles could not be written the last time, or nothing."""
        return self.error if self.store_failed else ""

    @property
    def child_error(self) -> str:
        """Why the collect child could not do its work the last time, or nothing."""
        return self.error if self.child_failed else ""

    @property
    def rest(self) -> float | None:
        """Real seconds that the rest of a collection takes if the coins that are to come take as long as those that are through."""
        progress = self.progress
        if progress is None or not progress.done:
            return None
        return (self._monotonic() - self._stage_began) * (progress.total - progress.done) / progress.done

    @property
    def retry_in(self) -> float:
        """Real seconds until a failed collection is tried again, 0 when nothing failed."""
        return max(0.0, self._retry_at - self._monotonic()) if self._failures else 0.0

    async def run(self, now: int) -> bool:
        """One collection. Returns whether the candles or the universe changed; never raises for what the exchange does."""
        select, boundary = self.wants_selection, self.boundary(now)
        universe, amendments, kind = self.config.universe, self.amendments, self.config.exchange.market
        include, exclude = ([of_market(symbol, kind) for symbol in named] for named in (universe.include, universe.exclude))
        self._included = amendments.include(include)
        order = CollectOrder(
            job=0, now=now, candles=self._candles, exchange=self.config.exchange.id, url=self.config.exchange.url,
            proxy=self.config.exchange.proxy,
            quote=self.config.exchange.quote, market=kind, timeframe=self._timeframe.name, months_back=self.config.train.months_back,
            size=universe.size + len(set(amendments.added).difference(include)), include=self._included,
            exclude=amendments.exclude(exclude),
            select_universe=select, symbols=self.followed, pace=self._pace, held_to=self.held_to,
        )  # fmt: skip
        self.running, started = True, self._monotonic()
        try:
            report = await self._pool.run(
                order, on_report=self._on_report, deadline_s=60.0 * self.config.worker.deadline_minutes, silence_s=SILENCE
            )
        except WorkerError as error:
            loading = isinstance(error, LoadError)
            report = Failed(job=0, error=error.message, hint=error.hint, code=error.code, loading=loading)
        finally:
            self.running, self.progress = False, None
            self.attempted_to = boundary
        if isinstance(report, CollectDone):
            self._take(report, now, boundary, select)
            return True
        assert isinstance(report, Failed), report
        self._select_again = False if self.followed else self._select_again
        self.error, self.store_failed = report.error or "the collection failed", report.code == StoreError.code
        self.child_failed = report.code in (WorkerError.code, CryptodError.code)
        self.banned = report.retry_after is not None
        if not report.loading:  # the pool says when that is worth another attempt
            self._back_off(report.retry_after)
        log.warning(
            "the candles could not be collected", error=report.error, hint=report.hint, duration=self._monotonic() - started,
            retry_in=round(self.retry_in, 1),
        )  # fmt: skip
        return False

    def _on_report(self, report: Report) -> None:
        if isinstance(report, Progress):
            if self.progress is None or self.progress.stage != report.stage:
                self._stage_began = self._monotonic()
            self.progress = report

    def _take(self, report: CollectDone, now: int, boundary: int, selected: bool) -> None:
        self.failed, self.last, self.last_at, self.banned = dict(report.failed), report, now, False
        self.collected_to, self.skew_ms = min(boundary, report.collected_to), report.skew_ms
        self.held_to = self.collected_to if self.held_to > self.latest(now) else max(self.held_to, self.collected_to)
        self.selected_at = min(self.selected_at, now)
        if selected:
            self.selected_at, self._select_again = now, False
        self.amendments.rename(report.spelt)
        self._included = tuple(report.spelt.get(symbol, symbol) for symbol in self._included)
        self.renewed |= dict.fromkeys(report.renewed, report.collected_to)
        # What was added or removed meanwhile, the child did not know of.
        self.followed = tuple(symbol for symbol in report.symbols if symbol not in self.amendments.removed)
        late = set(self.amendments.added).difference(self._included)
        self.left_out = {symbol: why for symbol, why in report.left_out.items() if symbol not in late} | self._removed()
        if report.failed and len(report.failed) >= len(report.symbols):
            self.error, self.store_failed, self.child_failed = next(iter(report.failed.values())), False, False
        else:
            self.error, self.store_failed, self.child_failed = "", False, False
        if report.failed or (selected and any(symbol in self._included for symbol in self.unmet)):
            self._back_off(None)
        else:
            self._failures, self._retry_at = 0, 0.0
        self._save()
        log.info(
            "collected candles", coins=len(report.symbols), new=report.new_candles, revised=report.revised_candles,
            failed=len(report.failed), requests=report.requests, duration=report.seconds,
        )  # fmt: skip

    def _save(self) -> None:
        self._jobs.set(
            "universe",
            {
                "market": list(self._market.values()), "followed": list(self.followed), "left_out": self.left_out,
                "selected_at": self.selected_at, "collected_to": self.collected_to,
                "held_to": self.held_to,
                "renewed": self.renewed,
            },
        )  # fmt: skip

    def _back_off(self, retry_after: float | None) -> None:
        self._failures += 1
        most = max(RETRY_FIRST, RETRY_MOST / self._pace)
        growing = min(most, RETRY_FIRST * math.pow(2, min(self._failures - 1, 20)))
        self._retry_at = self._monotonic() + max(growing, retry_after or 0.0)
