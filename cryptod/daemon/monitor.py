"""What the machine gives and what is wrong: resources of all processes, and named conditions with remedies.

Resources are read through psutil from /proc, in a thread, never in the loop. Conditions are a table: each row looks at
one snapshot of plain facts and says what is wrong, or nothing. Level-triggered: a condition shows when its row has
spoken for ``after`` seconds and clears when it falls silent; nothing has to be remembered to be right.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import psutil

HOUR_MS: Final = 3_600_000
MIB: Final = 1024 * 1024
SHORTEST_S: Final = 1.0
"""Seconds between two readings of the processes' shares of the processor."""


class Process(NamedTuple):
    """One of the daemon's processes. ``cpu``: percent of one core since the reading before, 0 in the first."""

    pid: int
    name: str
    pss: int
    cpu: float


@dataclass(frozen=True, slots=True)
class Resources:
    """One reading. Memory is the proportional set size (PSS) in bytes: shared pages are counted once over all processes."""

    pss_daemon: int = 0
    pss_children: int = 0
    processes: int = 1
    cpu_percent: float = 0.0
    disk_used: int = 0
    disk_free: int = 0
    disk_total: int = 0
    memory_limit: int = 0
    descriptors: int = 0
    family: tuple[Process, ...] = ()
    """Each of the processes: the daemon first."""

    @property
    def pss_total(self) -> int:
        return self.pss_daemon + self.pss_children


def cgroup_limit(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Bytes that the service's control group may use (v2, then v1), 0 where there is no limit."""
    try:
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            name = "memory.max" if not controllers else "memory.limit_in_bytes"
            base = root if not controllers else root / "memory"
            if controllers in ("", "memory"):
                text = (base / path.lstrip("/") / name).read_text().strip()
                if text.isdigit() and int(text) < 1 << 60:
                    return int(text)
    except (OSError, ValueError):
        pass
    return 0


def disk_used(folder: Path) -> int:
    """Bytes on disk of all files below a folder, of which some may come and go meanwhile."""
    total = 0
    for path, _, names in os.walk(folder):  # which looks past folders that are gone
        for name in names:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                total += os.lstat(os.path.join(path, name)).st_blocks * 512
    return total


class ResourceMeter:
    """Reads the resources of this process and all its descendants. Made in a thread too: it imports psutil, for 10 ms."""

    def __init__(self, state: Path, monotonic: Callable[[], float]) -> None:
        import psutil

        self._state, self._monotonic = state, monotonic
        self._shares: dict[int, float] = {}
        self._shares_at = -math.inf
        self._own = psutil.Process()
        self._gone = psutil.NoSuchProcess, psutil.AccessDenied, FileNotFoundError
        self._children: dict[int, psutil.Process] = {}
        self._limit = cgroup_limit()

    def read(self) -> Resources:
        """About 2 ms a process: the kernel walks the page tables for the PSS. Call it in a thread."""
        now = self._monotonic()
        lately = now - self._shares_at < SHORTEST_S
        self._shares_at = self._shares_at if lately else now
        try:
            children = self._own.children(recursive=True)
        except self._gone:
            children = []
        # The same objects as before: each knows how much its process had run then.
        self._children = {child.pid: known if (known := self._children.get(child.pid)) == child else child for child in children}
        if not lately:  # what a process runs in a few milliseconds says nothing of its load
            self._shares = {process.pid: self._share(process) for process in (self._own, *self._children.values())}
        own = Process(self._own.pid, "cryptod", self._pss(self._own), self._shares.get(self._own.pid, 0.0))
        others = [self._look(child) for child in self._children.values()]
        usage = shutil.disk_usage(self._state)
        return Resources(
            pss_daemon=own.pss,
            pss_children=sum(child.pss for child in others if child is not None),
            processes=1 + len(children),
            cpu_percent=own.cpu,
            family=(own, *(child for child in others if child is not None)),
            disk_used=disk_used(self._state),
            disk_free=usage.free,
            disk_total=usage.total,
            memory_limit=self._limit,
            descriptors=self._own.num_fds(),
        )

    def _look(self, child: psutil.Process) -> Process | None:
        """A child's row; None if it is gone. The forkserver and its helper keep the interpreter's name."""
        try:
            name = child.name()
            return Process(
                child.pid, name if name.startswith("cryptod-") else "forkserver", self._pss(child), self._shares.get(child.pid, 0.0)
            )
        except self._gone:
            return None

    def _share(self, process: psutil.Process) -> float:
        try:
            return float(process.cpu_percent())
        except self._gone:
            return 0.0

    def _pss(self, process: psutil.Process) -> int:
        try:
            return int(process.memory_full_info().pss)
        except self._gone:
            return 0


@dataclass(slots=True)
class Facts:
    """What the conditions look at. Times are UTC ms, 0 for never; ``monotonic`` is in seconds."""

    now: int
    monotonic: float
    boundary: int = 0
    """Close time of the newest candle that can exist."""
    started: int = 0
    followed: int = 0
    models: int = 0
    """Models that serve, whatever coins they know."""
    trained: int = 0
    stale: dict[str, int] = field(default_factory=dict)
    """symbol -> hours since its newest candle closed, for coins that lag."""
    collected_to: int = 0
    exchange_error: str = ""
    exchange_banned: bool = False
    """Whether that is because the exchange told us to stay away for a while."""
    collect_error: str = ""
    """Why the collect child could not do its work, where that is not the exchange's fault."""
    unloadable: dict[str, str] = field(default_factory=dict)
    """Kind of child -> why it cannot load what it runs."""
    universe_warnings: tuple[str, ...] = ()
    full_enabled: bool = True
    full_last_done: int = 0
    full_period: int = 7 * 24 * HOUR_MS
    last_job_error: str = ""
    failed_batches: tuple[str, ...] = ()
    gate_refused: tuple[str, ...] = ()
    refused_checkpoints: dict[str, str] = field(default_factory=dict)
    fallback: int = 0
    """Coins served by a reference forecaster because the model lost to it."""
    drift: str = ""
    """In which way the forecasts do not fit the market any more, from an alarm of the drift watch until they do again."""
    outage: str = ""
    """Which coins do not trade, while nearly none does."""
    coverage: str = ""
    """In which way the intervals of the last weeks were too narrow or too wide."""
    refresh_error: str = ""
    store_error: str = ""
    store_damaged: str = ""
    taken_back: str = ""
    """What was set aside lately because it was of a time that had not come."""
    clock_step: float = 0.0
    """Seconds by which the machine's clock was stepped against the monotonic one, lately."""
    clock_error: str = ""
    """How far this machine's clock and the exchange's are apart, if that is worth a word."""
    resources: Resources = field(default_factory=Resources)


class Condition(NamedTuple):
    """One row: ``check`` returns the sentence that describes what is wrong, or None."""

    name: str
    severity: str
    after: float
    remedy: str
    check: Callable[[Facts], str | None]


def _names(symbols: Iterable[str], most: int = 5) -> str:
    listed = sorted(symbols)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")


def _exchange_unreachable(f: Facts) -> str | None:
    return f"the exchange cannot be asked: {f.exchange_error}" if f.exchange_error and not f.exchange_banned else None


def _exchange_banned(f: Facts) -> str | None:
    return f"the exchange keeps us away: {f.exchange_error}" if f.exchange_error and f.exchange_banned else None


def _candles_stale(f: Facts) -> str | None:
    if not f.stale:
        return None
    worst = max(f.stale, key=lambda symbol: f.stale[symbol])
    return f"{len(f.stale)} of {f.followed} coins have no candle of the last hour: {_names(f.stale)}; longest {worst}, {f.stale[worst]} h"


def _market_stale(f: Facts) -> str | None:
    if not f.collected_to or f.boundary - f.collected_to <= HOUR_MS:
        return None
    return f"no coin has candles newer than {(f.boundary - f.collected_to) // HOUR_MS} h"


def _models_missing(f: Facts) -> str | None:
    if not f.followed or f.trained or "train" in f.unloadable:  # of which library_broken tells, with another remedy
        return None
    return "no model has been trained yet"


def _coins_missing(f: Facts) -> str | None:
    return f"no coin is followed, and {f.models} models have nothing to forecast" if f.models and not f.followed else None


def _coins_untrained(f: Facts) -> str | None:
    missing = f.followed - f.trained
    return f"{missing} of {f.followed} coins have no model" if f.trained and missing > 0 else None


def _training_overdue(f: Facts) -> str | None:
    since = f.full_last_done or f.started
    if not f.full_enabled or not since or f.now - since <= f.full_period + 24 * HOUR_MS:
        return None
    return f"the last full retrain ended {(f.now - since) // (24 * HOUR_MS)} days ago"


def _disk_low(f: Facts) -> str | None:
    free, total = f.resources.disk_free, f.resources.disk_total
    if not total or (free > 200 * MIB and free > 0.02 * total) or free > 1024 * MIB:
        return None
    return f"{free // MIB} MiB are free on the disk of the state directory"


def _memory_near_limit(f: Facts) -> str | None:
    limit = f.resources.memory_limit
    if not limit or f.resources.pss_total < 0.9 * limit:
        return None
    return f"all processes use {f.resources.pss_total // MIB} of {limit // MIB} MiB"


def _clock_stepped(f: Facts) -> str | None:
    return f"the machine's clock was stepped by {f.clock_step:+.0f} s" if abs(f.clock_step) > 60 else None


CONDITIONS: Final = (
    Condition(
        "exchange_unreachable", "warning", 60,
        "check the network and exchange.url; the daemon asks again by itself, and serves what it has with its age", _exchange_unreachable,
    ),
    Condition(
        "exchange_banned", "warning", 0,
        "it is asked again when it said so; if it comes back, look for other programs that ask it from this address", _exchange_banned,
    ),
    Condition(
        "collect_failed", "warning", 60,
        "the sentence names the cause, the log the details; it is tried again by itself, and what there is is served with its age",
        lambda f: f"the candles could not be collected: {f.collect_error}" if f.collect_error else None,
    ),
    Condition(
        "library_broken", "error", 0,
        "mend that, then `systemctl reload cryptod`; forecasts are served on; it is tried again when packages change, and each hour",
        lambda f: "; ".join(dict.fromkeys(f.unloadable.values())) or None,
    ),
    Condition("market_stale", "error", 0, "see exchange_unreachable; answers are marked stale until candles come in", _market_stale),
    Condition(
        "candles_stale", "warning", 300,
        "if the coin is halted or delisted, add it to universe.exclude; otherwise wait for the exchange", _candles_stale,
    ),
    Condition(
        "market_outage", "warning", 0,
        "look at the exchange's status page; until it trades again forecasts are wider, made from the last prices known, flagged `outage`",
        lambda f: f.outage or None,
    ),
    Condition("models_missing", "error", 0, "the first training starts by itself once candles are in: `cryptoctl jobs`", _models_missing),
    Condition(
        "coins_missing", "error", 0,
        "the next collection chooses the coins; `cryptoctl status` says whether the exchange could be asked", _coins_missing,
    ),
    Condition(
        "coins_untrained", "warning", 600,
        "too short a history, or a failed batch: `cryptoctl symbols` and `cryptoctl jobs` name the reason", _coins_untrained,
    ),
    Condition("training_overdue", "warning", 0, "see `cryptoctl jobs` for why it failed, then `cryptoctl train full`", _training_overdue),
    Condition(
        "training_failed", "warning", 0, "the previous models serve on; see `cryptoctl jobs` and `journalctl -u cryptod`",
        lambda f: f.last_job_error or None,
    ),
    Condition(
        "batches_failed", "warning", 0, "the previous model of the batch serves on; it is tried again at the next run",
        lambda f: f"failed in the last training: {'; '.join(f.failed_batches)}" if f.failed_batches else None,
    ),
    Condition(
        "gate_refused", "warning", 0, "nothing to do: the better model serves; `cryptoctl models list` shows the figures",
        lambda f: f"not promoted by the last training: {'; '.join(f.gate_refused)}" if f.gate_refused else None,
    ),
    Condition(
        "model_fallback", "warning", 0, "nothing to do: these coins are served by the better reference forecaster",
        lambda f: f"{f.fallback} of {f.trained} coins are served by a reference forecaster" if 2 * f.fallback > f.trained > 0 else None,
    ),
    Condition(
        "drift", "warning", 0,
        "an incremental update has been started, unless incremental.enabled is off; it clears by itself within a day or two of better"
        " forecasts, and if it does not: `cryptoctl train full`",
        lambda f: f.drift or None,
    ),
    Condition(
        "coverage_off", "warning", 0,
        "the calibration follows by itself, slowly; if it does not within weeks: `cryptoctl train full`, and read intervals accordingly",
        lambda f: f.coverage or None,
    ),
    Condition(
        "checkpoint_damaged", "error", 0, "an earlier one serves; `cryptoctl train full` makes new ones; check the disk",
        lambda f: "; ".join(f"{name} was refused: {why}" for name, why in f.refused_checkpoints.items()) or None,
    ),
    Condition(
        "universe_setting", "warning", 0, "correct universe.include and reload, or `cryptoctl symbols remove` what was added",
        lambda f: "; ".join(f.universe_warnings) or None,
    ),
    Condition(
        "refresh_failed", "error", 0, "the last forecasts are served with their age; see the log",
        lambda f: f"forecasts could not be refreshed: {f.refresh_error}" if f.refresh_error else None,
    ),
    Condition(
        "store_failed", "error", 0, "make room on the disk or check its rights; the daemon tries again by itself",
        lambda f: f"the store cannot be written: {f.store_error}" if f.store_error else None,
    ),
    Condition(
        "store_damaged", "error", 0, "check the disk; the ledger in the old store can be looked at later; it clears at the next start",
        lambda f: f.store_damaged or None,
    ),
    Condition("disk_low", "warning", 0, "make room, or lower storage.ledger_days", _disk_low),
    Condition("memory_near_limit", "warning", 60, "raise MemoryMax=, or lower universe.size or train.batch_size", _memory_near_limit),
    Condition(
        "clock_wrong", "error", 0,
        "set the clock and keep it (timedatectl set-ntp true); until then candles are taken as of whichever clock is behind",
        lambda f: f.clock_error or None,
    ),
    Condition(
        "clock_was_ahead", "warning", 0,
        "nothing to do: all of it is made anew; keep the clock right (timedatectl set-ntp true); it clears after an hour",
        lambda f: f.taken_back or None,
    ),
    Condition("clock_stepped", "warning", 0, "check time synchronisation (timedatectl); it clears after an hour", _clock_stepped),
)  # fmt: skip

SEVERITIES: Final = ("ok", "warning", "error")


class Health:
    """Applies the table, and remembers only since when each row has been speaking."""

    def __init__(self, table: Iterable[Condition] = CONDITIONS) -> None:
        self._table = tuple(table)
        self._since: dict[str, tuple[float, int]] = {}
        self.findings: list[dict[str, Any]] = []

    def evaluate(self, facts: Facts) -> list[tuple[str, dict[str, Any]]]:
        """Bring `findings` up to date; returns what changed: ("raised" or "cleared", finding)."""
        before = {finding["name"]: finding for finding in self.findings}
        findings = []
        for row in self._table:
            text = row.check(facts)
            if text is None:
                self._since.pop(row.name, None)
                continue
            first, since = self._since.setdefault(row.name, (facts.monotonic, facts.now))
            if facts.monotonic - first >= row.after:
                findings.append({"name": row.name, "severity": row.severity, "text": text, "remedy": row.remedy, "since": since})
        self.findings = findings
        after = {finding["name"]: finding for finding in findings}
        changes = [("raised", finding) for name, finding in after.items() if name not in before]
        changes += [("cleared", finding) for name, finding in before.items() if name not in after]
        return changes

    @property
    def severity(self) -> str:
        """The worst of the findings."""
        return max((finding["severity"] for finding in self.findings), key=SEVERITIES.index, default="ok")
