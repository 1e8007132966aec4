"""From candles to published forecasts: the models that serve, the refresh at each candle close, the miss.

Owns the predictor, the forecast cache, the ledger and what is current among the checkpoints. The order is fixed: a
forecast is in the ledger, synced, before any client can see it. All that takes long, computing as well as writing, happens in one
thread of its own (``disk``), one thing after the other; the loop only looks at what came of it, so readers are not held up.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import Executor, Future
from typing import Any, Final, TypeVar

import msgpack
import numpy as np

from cryptod.clock import STEP_SHOWN
from cryptod.config import Config
from cryptod.daemon.pace import unhurried
from cryptod.daemon.records import Records
from cryptod.daemon.scoring import Candles, Scoring
from cryptod.errors import CheckpointError, RequestError, StoreError
from cryptod.forecast import combination
from cryptod.forecast.model import SOURCES
from cryptod.forecast.predictor import BASE, Forecasts, Model, Predictor
from cryptod.forecast.scores import SCORED_HORIZONS
from cryptod.logs import get_logger
from cryptod.market import MAX_HORIZON, QUANTILE_LEVELS, TIMEFRAMES
from cryptod.store.checkpoints import CheckpointStore, Current, write_checkpoint
from cryptod.store.forecasts import SKEW_MS, Entry, ForecastCache
from cryptod.store.ledger import Issue, Ledger, round_issue
from cryptod.training import base_model
from cryptod.training.window import MIN_DAYS

T = TypeVar("T")

GRACE_MS: Final = 5 * 60_000
"""A forecast is called stale when a candle has been closed for this long that it does not know."""

AT_ONCE: Final = 500
"""Coins that are forecast and issued together, 15 kB each until they are written: memory does not grow with their number."""

NEARLY_ALL: Final = 0.9
"""Of the coins: the market is called down when so many do not trade that always do."""
_WITNESSES: Final = 25
"""Coins whose hours are read again beside those of coins that came in late."""

log = get_logger("publisher")
_PACKER = msgpack.Packer(use_single_float=True)
_EXACT = msgpack.Packer()


def _pair(key: str, value: Any, packer: msgpack.Packer = _PACKER) -> bytes:
    packed: bytes = _EXACT.pack(key) + packer.pack(value)
    return packed


def render(forecasts: Forecasts, i: int, issued: int, horizons: int, coverage: Mapping[str, float] | None) -> bytes:
    """Coin ``i`` of the forecasts as key/value pairs of the wire's map; what changes with time is added when it is asked for (`HEADER`).

    ``coverage``: how the coin's forecasts have held lately, see `daemon.coverage`.
    """
    close = float(forecasts.close[i])
    quantiles = forecasts.quantiles[i, :horizons]
    return b"".join(
        (
            _pair("symbol", forecasts.symbols[i]),
            _pair("cutoff", int(forecasts.cutoffs[i])),
            _pair("issued", issued),
            _pair("model", forecasts.models[i]),
            _pair("close", close, _EXACT),
            _pair("horizons", list(range(1, horizons + 1))),
            _pair("levels", QUANTILE_LEVELS, _EXACT),
            _pair("quantiles", quantiles.tolist()),
            _pair("prices", (close * np.exp(quantiles.astype(np.float64))).tolist()),
            _pair("p_up", forecasts.p_up[i, :horizons].tolist()),
            _pair("volatility", forecasts.volatility[i, :horizons].tolist()),
            _pair("expected_return", forecasts.expected_return[i, :horizons].tolist()),
            _pair("score", float(forecasts.score[i])),
            _pair("strangeness", float(forecasts.strangeness[i])),
            _pair("flags", list(forecasts.flags[i])),
            _pair("coverage", coverage),
        )
    )


HEADER: Final = b"\xde" + (16 + 4).to_bytes(2, "big")
"""Opens the map of a forecast: its rendered pairs, and the four that are added at the moment of the answer. Who changes the pairs raises
`cryptod.store.forecasts.VERSION`: bodies that were kept by an older daemon have others."""


class Publisher:
    """Holds what serves.

    ``published_to`` is the cutoff (UTC ms) of the last refresh, ``generation`` that of the checkpoints.
    """

    def __init__(
        self,
        config: Config,
        candles: Candles,
        stores: tuple[ForecastCache, Ledger, CheckpointStore, Records],
        disk: Executor,
        monotonic: Callable[[], float],
        trouble: Callable[[str], str],
        failed: Callable[[StoreError], None],
        scoring: Scoring,
        base: Model | None = None,
    ) -> None:
        self.config = config
        self.trouble, self._failed, self._scoring = trouble, failed, scoring
        self._candles = candles
        self._cache, self._ledger, self._checkpoints, self._records = stores
        self._disk = disk
        self._base = base
        self.unready: dict[str, str] = {}
        """Coins that have no model and cannot be served by the base model either -> why."""
        self._monotonic = monotonic
        self._timeframe = TIMEFRAMES[config.market.timeframe]
        self._lock = asyncio.Lock()
        self._misses: dict[str, asyncio.Task[Entry]] = {}
        self.predictor = Predictor(())
        self.models: tuple[Model, ...] = ()
        self._model_of: dict[str, str] = {}
        self.refused: dict[str, str] = {}
        self.generation = 0
        self.promoted_at = 0
        self.latest: Callable[[int], int] = lambda now: now + SKEW_MS
        """What is later than this (UTC ms) has not come yet, whatever some clock said."""
        self.set_aside_at = -math.inf
        """Monotonic seconds at which something of such a time was found and set aside, and what it was."""
        self.set_aside_text = ""
        self.announce: Callable[[list[Entry], int], Awaitable[None]] | None = None
        """Told of each forecast that is new, once it can be had."""
        self.pinned_at = int(self._records.get("pinned") or 0)
        """Since when (UTC ms) nothing may be promoted in the place of what serves; 0 if that is the gate's business."""
        saved: dict[str, Any] = self._records.get("published") or {}
        self.published_to: int = saved.get("cutoff", 0)
        self._published_generation: int = saved.get("generation", 0)
        self._published_by: str = saved.get("serve", SOURCES[0])
        self.refresh_seconds = 0.0
        self.published_coins = 0
        self.late: frozenset[str] = frozenset()
        """Coins whose candles had not come in at the last refresh."""
        self.refreshed_at: int = saved.get("at", 0)
        self.error = ""

    @property
    def horizons(self) -> int:
        return self.config.market.horizons

    async def on_disk(self, work: Callable[..., T], *arguments: Any) -> T:
        """Run in the one thread that writes the serving stores, and computes."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *arguments)

    async def in_slices(self, work: Callable[..., T], *arguments: Any) -> T:
        """The same for what is much and has time: others are answered meanwhile."""
        return await self.on_disk(functools.partial(unhurried, work, *arguments))

    # What serves

    async def load(self) -> None:
        """Take what is current among the checkpoints; one that is damaged is refused, named, and the one before it serves."""
        await self._take(self._checkpoints.load_current)

    async def _take(self, read: Callable[[], Current]) -> None:
        """What is current from now on is what ``read`` gives."""
        current, models, refused, predictor = await self.in_slices(self._built, read)
        self.models, self.refused, self.predictor = models, refused, predictor
        self._model_of = {symbol: models[predictor.model_of(symbol)].name for symbol in predictor.symbols}
        self.generation, self.promoted_at = current.generation, current.promoted_at

    def _built(self, read: Callable[[], Current]) -> tuple[Current, tuple[Model, ...], dict[str, str], Predictor]:
        current = read()
        refused = dict(current.refused)
        known = {model.name: model for model in self.models}  # a model does not change, and a retrain promotes hundreds one by one
        models = []
        for checkpoint in current.checkpoints:
            try:
                models.append(known.get(checkpoint.name) or Model.from_checkpoint(checkpoint.name, checkpoint.arrays, checkpoint.meta))
            except CheckpointError as error:
                refused[checkpoint.name] = str(error)
                log.error("a checkpoint was refused", model=checkpoint.name, error=error.message, hint=error.hint)
        serving = [model.served_by(self.config.forecast.serve) for model in models]
        return current, tuple(models), refused, Predictor(serving, self._scoring.learning, self._scoring.renewed)

    def serving(self) -> dict[str, tuple[str, ...]]:
        """Current checkpoints -> the coins that each serves: a coin is served by the newest one that knows it."""
        return {model.name: tuple(s for s in model.symbols if self._model_of.get(s) == model.name) for model in self.models}

    async def renew(self, renewed: Mapping[str, int]) -> None:
        """Behind some symbols other coins stand since the close times given: what is known of the old ones is not about them."""
        if renewed == self._scoring.renewed:
            return
        new = [symbol for symbol, since in renewed.items() if self._scoring.renewed.get(symbol) != since]
        async with self._lock:
            self._scoring.renewed = dict(renewed)
            await self.on_disk(self._cache.clear, new)
            await self._take(self._checkpoints.load_current)

    async def promote(self, name: str, now: int, run: str, followed: Collection[str]) -> None:
        """Make a checkpoint current, after it has been read back and found sound. Those of one ``run`` are rolled back as one."""
        async with self._lock:
            await self._take(functools.partial(self._checkpoints.promote, [name], now, run=run, followed=followed))

    def pin(self, now: int) -> None:
        """Let what serves now serve until `unpin`, whatever the gate says. `RequestError` while nothing serves."""
        if not self.models:
            raise RequestError("conflict", "there is no model to pin yet", hint="`cryptoctl models list` shows what serves")
        self._set_pin(self.pinned_at or now)

    def unpin(self) -> None:
        self._set_pin(0)

    def _set_pin(self, at: int) -> None:
        if at != self.pinned_at:
            self.pinned_at = at
            self._records.set("pinned", at)

    async def roll_back(self, steps: int, now: int) -> None:
        """Go back to the models before the last promotion(s)."""
        async with self._lock:
            await self._take(functools.partial(self._checkpoints.rollback, steps, now))

    async def set_aside(self, now: int) -> bool:
        """Take back what is of a time that has not come, after a clock was ahead: forecasts, what was learned, models. Whether a model was.

        The ledger keeps the issues and marks them; what remains is built anew from what is true, and published at the next refresh.
        """
        latest, scoring = self.latest(now), self._scoring
        async with self._lock:
            cutoffs = [self.predictor.needs(symbol) for symbol in self.predictor.symbols]
            late = [model.name for model in self.models if model.cutoff > latest]
            stale = any(max(entry.cutoff, entry.issued) > latest for entry in self._cache.entries())
            if max(self.published_to, scoring.learned_to, *cutoffs) <= latest and not late and not stale:
                return False
            issues = await self.in_slices(self._ledger.set_aside, latest, MAX_HORIZON * self._timeframe.ms)
            entries = await self.in_slices(self._cache.set_aside, latest)
            await self.on_disk(scoring.set_aside, latest)
            if late:
                await self._take(functools.partial(self._checkpoints.retreat, latest, now))
            else:
                await self._take(self._checkpoints.load_current)
            self.published_to = self._published_generation = 0
            self.refreshed_at = min(self.refreshed_at, now)
            self._records.set("published", {"cutoff": 0, "generation": 0, "serve": self._published_by, "at": self.refreshed_at})
        self.set_aside_at = self._monotonic()
        self.set_aside_text = (
            f"a clock was ahead: {issues} issues of forecasts and {len(late)} models of a time that had not come are set aside"
        )
        log.warning("what is of a time that has not come is set aside", issues=issues, entries=entries, models=late, latest=latest)
        return bool(late)

    def taken_back(self) -> str:
        """What was set aside within the last hour, in a sentence, or nothing."""
        return self.set_aside_text if self._monotonic() - self.set_aside_at < STEP_SHOWN else ""

    async def prune(self, protect: Iterable[str]) -> None:
        """Remove the checkpoints that no kept generation names."""
        await self.on_disk(self._checkpoints.prune, frozenset(protect))

    def lacks(self, followed: Iterable[str]) -> bool:
        """Whether the base model can be asked for coins that have no model and that it has not been asked for in vain."""
        return self._base is not None and any(symbol not in self.predictor and symbol not in self.unready for symbol in followed)

    def trained(self) -> bool:
        """Whether any model serves that was trained here."""
        return any(model.kind != BASE for model in self.models)

    def updatable(self) -> dict[str, tuple[str, ...]]:
        """`serving`, without the coins of base models that are too young to be trained on."""
        kinds = {model.name: model.kind for model in self.models}
        old = {
            name: tuple(s for s in symbols if kinds[name] != BASE or self.predictor.lived(s) >= MIN_DAYS * 24)
            for name, symbols in self.serving().items()
        }
        return {name: symbols for name, symbols in old.items() if symbols}

    def own_from(self, followed: Iterable[str], cutoff: int) -> int:
        """When the first coin will be old enough to be trained on (UTC ms), while base models alone serve; else 0."""
        if self.trained() or not self.models:
            return 0
        lived = max((self.predictor.lived(symbol) for symbol in followed if symbol in self.predictor), default=0)
        return cutoff + (MIN_DAYS * 24 - lived) * self._timeframe.ms if 0 < lived < MIN_DAYS * 24 else 0

    async def _adopt(self, followed: tuple[str, ...], cutoff: int, now: int) -> None:
        """Let the base model serve the followed coins that have no model, as a checkpoint of their own."""
        orphans = tuple(symbol for symbol in followed if symbol not in self.predictor)
        if self._base is None or not orphans:
            self.unready = {}
            return
        start = cutoff - base_model.HOURS * self._timeframe.ms
        panel = await asyncio.to_thread(self._candles, orphans, start, cutoff)
        model, self.unready = await self.on_disk(base_model.adopt, self._base, panel)
        if model is not None:
            root, name = self._checkpoints.root, f"{cutoff}-{BASE}"
            written = await self.on_disk(lambda: write_checkpoint(root, name, model.arrays(), model.document(), created=cutoff))
            await self._take(functools.partial(self._checkpoints.promote, [written.name], now, followed=followed))
            log.info("coins without a model are served by the base model", coins=len(model.symbols), model=written.name)

    # The refresh

    def due(self, collected_to: int) -> bool:
        """Whether the published forecasts are behind the candles or the models, or of another forecaster than is asked for."""
        if not self.models and self._base is None:
            return False
        published = self._published_generation, self._published_by
        return collected_to > self.published_to or (self.generation, self.config.forecast.serve) != published

    async def refresh(self, followed: tuple[str, ...], cutoff: int, now: int, ttl_ms: int, *, anew: bool = True) -> dict[str, Any]:
        """Publish forecasts made at ``cutoff`` of all followed coins that a model knows; returns {forecasts, seconds}.

        A coin whose candles have not come in is left with its last forecast, which goes stale and says so. Without
        ``anew``, only what is not published yet: the coins whose candles came in late.
        """
        started = self._monotonic()
        async with self._lock:
            await self._adopt(followed, cutoff, now)
            known = tuple(symbol for symbol in followed if symbol in self.predictor)
            generation = self.generation
            await self._advance(known, cutoff)
            await self.in_slices(self._scoring.mature, cutoff)
            current = tuple(symbol for symbol in known if self.predictor.needs(symbol) == cutoff)
            self.late = frozenset(known) - frozenset(current)
            if not anew:
                current = tuple(symbol for symbol in current if self._unchanged(symbol) is None)
            await self._issue(current, cutoff, now, ttl_ms)
            self.published_to, self._published_generation = max(cutoff, self.published_to), generation
            self._published_by = self.config.forecast.serve
            self.published_coins, self.refreshed_at, self.error = len(current), now, ""
            self.refresh_seconds = self._monotonic() - started
            published = {"cutoff": self.published_to, "generation": generation, "serve": self._published_by, "at": now}
            self._records.set("published", published)
        log.info(
            "forecasts published", coins=len(current), late=len(self.late), cutoff=cutoff, generation=generation,
            duration=round(self.refresh_seconds, 4),
        )  # fmt: skip
        return {"forecasts": len(current), "seconds": self.refresh_seconds}

    async def _advance(self, symbols: tuple[str, ...], cutoff: int) -> None:
        """Bring the state of these coins up to the candles closed by ``cutoff``."""
        behind = [symbol for symbol in symbols if self.predictor.needs(symbol) < cutoff]
        if not behind:
            return
        start = min(self.predictor.needs(symbol) for symbol in behind)
        late = frozenset(behind)
        others = [symbol for symbol in symbols if symbol not in late][:_WITNESSES]  # they say whether the market traded
        await self.in_slices(lambda: self.predictor.advance(self._candles((*behind, *others), start, cutoff)))

    async def _issue(self, symbols: tuple[str, ...], cutoff: int, now: int, ttl_ms: int) -> None:
        """Forecast, write the ledger, render, cache: in this order, `AT_ONCE` coins after the other."""
        for first in range(0, len(symbols), AT_ONCE):
            forecasts = await self.in_slices(self._forecast, symbols[first : first + AT_ONCE], cutoff)
            await self.in_slices(self._record, forecasts, now)
            entries = await self.in_slices(self._entries, forecasts, now, now + ttl_ms)
            await self._keep(entries)
            if self.announce is not None:
                await self.announce(entries, now)

    def _kept(self, future: Future[None]) -> None:
        if isinstance(error := future.exception(), StoreError):
            self._failed(error)
        elif error is not None:
            raise error

    async def _keep(self, entries: list[Entry]) -> None:
        """Into the cache, from where they are answered; in memory alone if the disk does not take them, or is not to."""
        try:
            await self.in_slices(functools.partial(self._cache.put, entries, durable=self.config.prediction_cache.enabled))
        except StoreError as error:  # the ledger has them: it is only after a restart that they are made again
            self._failed(error)
            self._cache.put(entries, durable=False)

    def _forecast(self, symbols: tuple[str, ...], cutoff: int) -> Forecasts:
        """The forecasts, their figures rounded to what the ledger keeps: what is stored is bit for bit what was shown."""
        made = self.predictor.forecast(symbols, cutoff)
        return dataclasses.replace(
            made, quantiles=round_issue(made.quantiles), p_up=round_issue(made.p_up), volatility=round_issue(made.volatility),
            expected_return=round_issue(made.expected_return), score=round_issue(made.score),
        )  # fmt: skip

    def _record(self, forecasts: Forecasts, now: int) -> None:
        self._ledger.append(
            Issue(
                issued=now, cutoff=forecasts.cutoff, symbols=forecasts.symbols, models=forecasts.models, close=forecasts.close,
                quantiles=forecasts.quantiles, p_up=forecasts.p_up, volatility=forecasts.volatility, flags=forecasts.flags,
                score=forecasts.score,
            ),
            forecasts.said,
        )  # fmt: skip

    def _entries(self, forecasts: Forecasts, issued: int, expires: int) -> list[Entry]:
        return [
            Entry(
                symbol=symbol, cutoff=int(forecasts.cutoffs[i]), issued=issued, expires=expires, model=forecasts.models[i],
                body=render(forecasts, i, issued, self.horizons, self._scoring.coverage.of(symbol)), close=float(forecasts.close[i]),
                score=float(forecasts.score[i]),
                p_up=forecasts.p_up[i], volatility=forecasts.volatility[i], expected_return=forecasts.expected_return[i],
            )
            for i, symbol in enumerate(forecasts.symbols)
        ]  # fmt: skip

    # Answers

    def cached(self, symbol: str, now: int) -> Entry | None:
        """The entry of exactly this symbol, if there is one that has not expired."""
        entry = self._cache.get(symbol, now) if self.config.prediction_cache.enabled else None
        return entry if entry is not None and entry.cutoff <= self.latest(now) else None

    def fresh(self, symbol: str, now: int) -> Entry | None:
        """The entry of exactly this symbol, if it has neither expired nor gone stale. Counts a hit, and nothing otherwise."""
        if not self.config.prediction_cache.enabled:
            return None
        return self._cache.fresh(symbol, now, now - GRACE_MS - self._timeframe.ms)

    def _unchanged(self, symbol: str) -> Entry | None:
        """The coin's last forecast, if one made now would say the same: no newer candle, no other model."""
        last = self._cache.last(symbol)
        same = last is not None and (last.cutoff, last.model) == (self.predictor.needs(symbol), self._model_of[symbol])
        return last if same and self._published_by == self.config.forecast.serve else None

    def stale_reason(self, entry: Entry, now: int) -> str | None:
        """Why the forecast does not know the newest closed candle or could not be made anew, or None if all is well."""
        behind = now - GRACE_MS - entry.cutoff
        if entry.cutoff > now + SKEW_MS:
            return f"its last candle closes {-(-(entry.cutoff - now) // self._timeframe.ms)} h after the time of this machine's clock"
        if behind < self._timeframe.ms and now < entry.expires:
            return None
        why = self.trouble(entry.symbol)
        if behind < self._timeframe.ms:
            return f"it could not be made anew: {why}" if why else None
        hours = behind // self._timeframe.ms
        return f"its last candle closed {hours} h before the newest that should be there" + (f": {why}" if why else "")

    async def on_demand(self, symbol: str, now: int) -> Entry:
        """A miss: the forecast of one coin, made now. Many clients that miss the same coin wait for one computation."""
        task = self._misses.get(symbol)
        if task is None:
            task = self._misses[symbol] = asyncio.create_task(self._compute(symbol, now))
            task.add_done_callback(lambda _: self._misses.pop(symbol, None))
        return await asyncio.shield(task)

    async def _compute(self, symbol: str, now: int) -> Entry:
        if symbol not in self.predictor:
            raise RequestError("no_forecast", f"there is no forecast of {symbol} yet", hint=self.trouble(symbol) or "it has no model yet")
        expires = now + self.config.prediction_cache.ttl_hours * self._timeframe.ms
        async with self._lock:
            if self.predictor.needs(symbol) > self.latest(now):
                raise RequestError(
                    "no_forecast", f"what is known of {symbol} is of a time that has not come: a clock was ahead",
                    hint="it is made anew as soon as the exchange has said what time it is",
                )  # fmt: skip
            unchanged = self._unchanged(symbol)
            if unchanged is not None and self.config.prediction_cache.enabled:
                # Nothing has changed since it was issued: it is issued on, and its age says how old it is.
                entry = dataclasses.replace(unchanged, expires=expires)
                await self.on_disk(functools.partial(self._cache.put, [entry], durable=False))
            else:
                try:
                    entry = await self.on_disk(self._one, symbol, now, expires, unchanged)
                except StoreError as error:
                    self._failed(error)
                    if (last := self._cache.last(symbol)) is None:
                        raise
                    return last  # what is not in the ledger is shown to nobody
            if self.config.prediction_cache.enabled:  # who waits for it need not wait for that: it is only for the next start
                self._disk.submit(self._cache.put, [entry]).add_done_callback(self._kept)
            if unchanged is None and self.announce is not None:
                await self.announce([entry], now)
        return entry

    def _one(self, symbol: str, now: int, expires: int, unchanged: Entry | None) -> Entry:
        """One coin's forecast: made, in the ledger (which has these very figures if ``unchanged``), rendered, in the cache's memory."""
        forecasts = self._forecast((symbol,), self.predictor.needs(symbol))
        if unchanged is None:
            self._record(forecasts, now)
        [entry] = self._entries(forecasts, unchanged.issued if unchanged else now, expires)
        self._cache.put([entry], durable=False)
        return entry

    async def fill(self, symbols: Iterable[str], now: int) -> None:
        """Make in one go what `on_demand` would make of these coins one by one; what cannot be written is left to it."""
        expires = now + self.config.prediction_cache.ttl_hours * self._timeframe.ms
        async with self._lock:
            wanted = [symbol for symbol in symbols if symbol in self.predictor and self._is_open(symbol, now)]
            unchanged = {symbol: last for symbol in wanted if (last := self._unchanged(symbol)) is not None}
            if unchanged:
                await self._keep([dataclasses.replace(last, expires=expires) for last in unchanged.values()])
            by_cutoff: dict[int, list[str]] = {}
            for symbol in wanted:
                if symbol not in unchanged:
                    by_cutoff.setdefault(self.predictor.needs(symbol), []).append(symbol)
            try:
                for cutoff, group in by_cutoff.items():
                    await self._issue(tuple(group), cutoff, now, expires - now)
            except StoreError as error:
                self._failed(error)

    def has_all(self, symbols: Iterable[str], now: int) -> bool:
        """Whether there is nothing to `fill`."""
        return not any(symbol in self.predictor and self._is_open(symbol, now) for symbol in symbols)

    def _is_open(self, symbol: str, now: int) -> bool:
        last = self._cache.last(symbol)
        return (last is None or now >= last.expires) and self.predictor.needs(symbol) <= self.latest(now)

    def top(self, count: int, by: str, horizon: int, followed: Collection[str], now: int) -> list[Entry]:
        """The first ``count`` followed coins by a key at a horizon, best first; entries that have expired count too."""
        latest = self.latest(now)
        return [entry for entry in self._cache.top(count, by, horizon, followed) if entry.cutoff <= latest]

    def ranked(self, entry: Entry, horizon: int, now: int) -> dict[str, Any]:
        """The row of one of them; marked stale if it is."""
        return {
            "symbol": entry.symbol, "close": entry.close, "cutoff": entry.cutoff, "horizon": horizon, "score": entry.score,
            "p_up": float(entry.p_up[horizon - 1]), "volatility": float(entry.volatility[horizon - 1]),
            "expected_return": float(entry.expected_return[horizon - 1]),
            "path": entry.expected_return[: self.horizons].tolist(), "model": entry.model,
            "age": max(0, now - entry.issued) / 1000, "stale": self.stale_reason(entry, now) is not None,
        }  # fmt: skip

    async def clear(self, symbols: list[str] | None) -> int:
        """Drop cached forecasts; the next `get` computes them anew."""
        async with self._lock:
            return await self.on_disk(self._cache.clear, symbols)

    async def expire(self, now: int) -> int:
        return await self.on_disk(self._cache.expire, now)

    # Descriptions

    def outage(self) -> str:
        """What to say while nearly none of the coins that are served trades; empty otherwise."""
        silent, served = self.predictor.interrupted(), len(self.predictor.symbols)
        if not silent or len(silent) < NEARLY_ALL * served:
            return ""
        hours = min(silent.values())
        who = f"none of the {served} coins has" if len(silent) == served else f"{len(silent)} of {served} coins have not"
        return f"{who} traded for {hours} h: their prices are not known"

    def fallback(self) -> int:
        """How many coins are served by a reference forecaster because the model lost to it (pegged coins are meant to be)."""
        if self.config.forecast.serve != SOURCES[0]:
            return 0
        lost = ((model.name, model.symbols[row]) for model in self.models for row in np.flatnonzero((model.source > 0) & ~model.pegged))
        return sum(self._model_of.get(symbol) == name for name, symbol in lost)

    def stats(self) -> dict[str, Any]:
        cache = self.config.prediction_cache
        return self._cache.stats() | {
            "enabled": cache.enabled, "ttl_hours": cache.ttl_hours, "pregenerate_ttl_hours": cache.pregenerate_ttl_hours,
            "last_refresh": self.refreshed_at, "refresh_seconds": self.refresh_seconds,
        }  # fmt: skip

    def describe_models(self) -> dict[str, Any]:
        serving = self.serving()
        return {
            "generation": self.generation, "promoted_at": self.promoted_at, "pinned_at": self.pinned_at, "refused": self.refused,
            "serve": self.config.forecast.serve,
            "weights": combination.describe(self._scoring.learning.combination.weights, SCORED_HORIZONS),
            "current": [
                {
                    "name": model.name, "kind": model.kind, "cutoff": model.cutoff, "created": model.meta.get("created", 0),
                    "coins": len(model.symbols), "served": len(serving[model.name]), "figures": model.meta.get("figures", {}),
                    "verdict": model.meta.get("verdict", ""),
                }
                for model in self.models
            ],
            "history": [row for row in self._checkpoints.history() if row["generation"] != self.generation],
        }  # fmt: skip
