"""What crosses the process wall: orders to a child, and what it says back.

msgspec structures, sent as MessagePack over the child's pipe. Knows no process and no store: paths are strings,
times are UTC epoch milliseconds. A child hands back small verdicts; arrays go through files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote as escaped

import msgspec


def market(exchange: str, url: str, quote: str, kind: str = "spot") -> dict[str, Any]:
    """The identity of a market: coins, candles, models and the ledger belong to one. ``kind``: ``spot`` or ``swap``."""
    return {"exchange": exchange, "simulated": bool(url), "quote": quote, "market": kind}


def known_market(record: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The market that a stored record names; None if it names none. Older records have no kind: they are of the spot market."""
    try:
        found = market(record["exchange"], "url" if record["simulated"] else "", record["quote"], record.get("market", "spot"))  # type: ignore[index, union-attr]
    except (TypeError, KeyError, AttributeError):
        return None
    return found if all(isinstance(found[key], str) and 0 < len(found[key]) <= 64 for key in ("exchange", "quote", "market")) else None


def market_name(market: Mapping[str, Any]) -> str:
    """The market as the name of a folder: ``binance-spot-USDT``, and ``binance-spot-USDT-url`` where `exchange.url` is set."""
    return escaped("-".join([market["exchange"], market["market"], market["quote"], *(["url"] if market["simulated"] else [])]), safe="")


class CollectOrder(msgspec.Struct, tag="collect", frozen=True, kw_only=True):
    """Bring the candle store up to ``now``: choose the universe if asked, backfill, fetch what is new."""

    job: int
    now: int
    candles: str
    exchange: str
    url: str
    quote: str
    market: str = "spot"
    """``spot`` or ``swap``."""
    proxy: str = ""
    timeframe: str
    months_back: int
    size: int
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    select_universe: bool
    """Ask the exchange which coins to follow; otherwise ``symbols`` are followed."""
    symbols: tuple[str, ...] = ()
    held_to: int = 0
    """Close time of the newest hour that the store may hold: if that lies in the future, a clock was ahead, and the hours are dropped."""
    pace: float = 1.0
    """How many times faster than life the clock runs, which the exchange shares if it is a simulated one."""


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    symbols: tuple[str, ...]


class TrainOrder(msgspec.Struct, tag="train", frozen=True, kw_only=True):
    """Train the batches on the candles closed by ``cutoff``, one after the other, a checkpoint each."""

    job: int
    kind: str
    """``full`` or ``incremental``."""
    cutoff: int
    candles: str
    checkpoints: str
    batches: tuple[Batch, ...]
    universe: tuple[str, ...]
    """All coins, for the market averages; every batch's coins are among them."""
    champions: dict[str, str]
    """symbol -> name of the checkpoint that serves it now (empty at first)."""
    timeframe: str
    months_back: int
    epochs: int
    threads: int
    seed: int


class ScoreOrder(msgspec.Struct, tag="score", frozen=True, kw_only=True):
    """Say how the forecasts have done whose outcome became known in the ``hours`` before ``now``."""

    job: int = 0
    now: int
    ledger: str
    """The folder of the environment that holds the ledger."""
    hours: int
    symbol: str = ""
    """One coin; empty for all of them."""


class ReportOrder(msgspec.Struct, tag="report", frozen=True, kw_only=True):
    """Write the live report: what is forecast now, and how the forecasts of the ``hours`` before ``now`` have done."""

    job: int = 0
    now: int
    ledger: str
    candles: str
    hours: int
    told: bytes
    """What the daemon says of itself, MessagePack: ``{status, jobs, followed}``."""


class Loaded(msgspec.Struct, tag="loaded", frozen=True, kw_only=True):
    """The child has loaded what it runs, be there an order or not: what ends it now is not its libraries' fault."""


class BackupOrder(msgspec.Struct, tag="backup", frozen=True, kw_only=True):
    """Write the state directory ``state`` to the new file ``path``."""

    job: int = 0
    now: int
    state: str
    path: str
    market: dict[str, Any]
    """What its candles belong to, see `market`; it stands in the backup's head."""


class Progress(msgspec.Struct, tag="progress", frozen=True, kw_only=True):
    """A beat with news; a child that has sent nothing for a while is taken for hung."""

    job: int
    stage: str
    done: int
    total: int
    text: str = ""
    figures: dict[str, float] = {}


class CollectDone(msgspec.Struct, tag="collected", frozen=True, kw_only=True):
    job: int
    symbols: tuple[str, ...]
    """The coins that are followed, by quote volume, largest first."""
    left_out: dict[str, str]
    """symbol -> why it is not followed, or why it could not be brought up to date."""
    failed: dict[str, str]
    """symbol -> why its candles could not be fetched this time (it is tried again)."""
    collected_to: int
    """Close time of the newest candle that was asked for: the newest that is closed by this machine's clock and by the exchange's."""
    spelt: dict[str, str] = {}
    """Name that was asked for -> the exchange's own spelling of it."""
    renewed: tuple[str, ...] = ()
    """Symbols behind which another coin stands than before: their candles begin anew."""
    skew_ms: int
    """How far the exchange's clock is ahead of this machine's."""
    dropped: bool = False
    """Whether candles of hours that have not come were found and dropped."""
    new_candles: int
    revised_candles: int
    requests: int
    seconds: float


class BatchDone(msgspec.Struct, tag="batch_done", frozen=True, kw_only=True):
    """A batch's checkpoint stands in the checkpoints folder, complete and synced; the daemon may promote it."""

    job: int
    batch: int
    checkpoint: str
    promote: bool
    reason: str
    figures: dict[str, float]
    left_out: dict[str, str]
    """symbol -> why it was not trained."""
    seconds: float


class BatchFailed(msgspec.Struct, tag="batch_failed", frozen=True, kw_only=True):
    job: int
    batch: int
    error: str
    hint: str = ""


class Scored(msgspec.Struct, tag="scored", frozen=True, kw_only=True):
    job: int
    forecasts: int
    """How many were counted; 0 while no outcome is known."""
    issued: bool
    """Whether any forecast of what was asked stands in the ledger."""
    card: bytes
    """The scorecard as it goes over the wire: MessagePack, a map (see `cryptod.scorecard`)."""
    seconds: float
    peak_rss: int


class Paged(msgspec.Struct, tag="paged", frozen=True, kw_only=True):
    """The page of a `ReportOrder`: one HTML document."""

    job: int
    html: str
    seconds: float
    peak_rss: int


class BackedUp(msgspec.Struct, tag="backed_up", frozen=True, kw_only=True):
    """The file of a `BackupOrder` is complete and on disk."""

    job: int
    bytes: int
    files: int
    seconds: float


class Finished(msgspec.Struct, tag="finished", frozen=True, kw_only=True):
    """The whole training order is through; each batch has had its own message."""

    job: int
    seconds: float
    peak_rss: int


class Failed(msgspec.Struct, tag="failed", frozen=True, kw_only=True):
    """The order could not be carried out at all."""

    job: int
    error: str
    hint: str = ""
    retry_after: float | None = None
    code: str = ""
    """The error's machine-readable name, see `cryptod.errors`: a full disk is not the exchange's fault."""
    loading: bool = False
    """The child could not load what it runs, so no order of this kind can be carried out."""


Order = CollectOrder | TrainOrder | ScoreOrder | ReportOrder | BackupOrder
Report = Loaded | Progress | CollectDone | BatchDone | BatchFailed | Finished | Scored | Paged | BackedUp | Failed
