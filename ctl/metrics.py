"""`cryptoctl metrics`: what the daemon says of itself, as OpenMetrics.

Knows the daemon's replies and the names that dashboards and alerts rely on (`packaging/prometheus`, `packaging/grafana`; a test compares
them). prometheus-client writes the formats; it comes with an installation and with the extra ``metrics``, and only this verb imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, NamedTuple

from cryptod.client import Client
from cryptod.errors import DaemonUnreachable, MissingPackage

Map = dict[str, Any]
Samples = Iterator[tuple[tuple[str, ...], float]]
SEVERITIES: Final = ("ok", "warning", "error")
ALL_COINS: Final = 20_000
CONTENT_TYPES: Final = {
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
    "prometheus": "text/plain; version=0.0.4; charset=utf-8",
}


class Said(NamedTuple):
    """The replies that the metrics are made of."""

    status: Map
    coins: list[Map]


class Metric(NamedTuple):
    """One row: a family of samples. ``labels`` name what tells its samples apart; ``samples`` takes them from the replies."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: Callable[[Said], Samples]
    labels: tuple[str, ...] = ()


def _one(section: str, key: str, scale: float = 1.0) -> Callable[[Said], Samples]:
    """A figure of the status, if it is there."""

    def samples(said: Said) -> Samples:
        value = said.status.get(section, {}).get(key)
        if isinstance(value, int | float):
            yield (), value * scale

    return samples


def _rows(section: str, rows: dict[str, str], scale: float = 1.0) -> Callable[[Said], Samples]:
    """Several figures of one section: label -> key."""

    def samples(said: Said) -> Samples:
        for label, key in rows.items():
            value = said.status.get(section, {}).get(key)
            if isinstance(value, int | float):
                yield (label,), value * scale

    return samples


def _coin(key: str) -> Callable[[Said], Samples]:
    return lambda said: (((row["symbol"],), float(row[key])) for row in said.coins)


def _schedule(key: str, scale: float = 1.0) -> Callable[[Said], Samples]:
    return lambda said: (((row["name"],), row[key] * scale) for row in said.status["schedule"] if row.get(key) is not None)


def _count(section: str, key: str) -> Callable[[Said], Samples]:
    return lambda said: iter([((), float(len(said.status[section][key])))])


def _running(said: Said) -> Samples:
    running = said.status["training"]["running"]
    for kind in ("incremental", "full"):
        yield (kind,), float(running is not None and running["kind"] == kind)


METRICS: Final = (
    Metric(
        "cryptod_info", "gauge", "The daemon's version and the exchange that it asks; always 1.",
        lambda said: iter([((said.status["process"]["version"], said.status["exchange"]["id"]), 1.0)]), ("version", "exchange"),
    ),
    Metric("cryptod_start_time_seconds", "gauge", "When the daemon was started, seconds since 1970.", _one("process", "started", 1e-3)),
    Metric("cryptod_time_seconds", "gauge", "The daemon's clock, in seconds.", lambda said: iter([((), said.status["now"] / 1000)])),
    Metric(
        "cryptod_health_severity", "gauge", "The worst condition: 0 ok, 1 warning, 2 error.",
        lambda said: iter([((), float(SEVERITIES.index(said.status["health"]["severity"])))]),
    ),
    Metric(
        "cryptod_condition", "gauge", "1 for each condition that holds; `cryptoctl health` has its text and remedy.",
        lambda said: (((row["name"], row["severity"]), 1.0) for row in said.status["health"]["conditions"]), ("condition", "severity"),
    ),
    Metric(
        "cryptod_coins", "gauge", "Coins: followed, those that a model serves, left out.",
        lambda said: iter([
            (("followed",), said.status["candles"]["symbols"]), (("forecast",), said.status["models"]["coins"]),
            (("left_out",), said.status["candles"].get("left_out", 0)),
        ]),
        ("state",),
    ),
    Metric("cryptod_coins_stale", "gauge", "Followed coins that lack the newest candle.", _count("candles", "stale")),
    Metric(
        "cryptod_candles_newest_close_timestamp_seconds", "gauge", "Close of the newest candle.", _one("candles", "newest_close", 1e-3)
    ),
    Metric(
        "cryptod_exchange_last_collect_timestamp_seconds", "gauge", "When the exchange was last asked with success.",
        _one("exchange", "last_collect", 1e-3),
    ),
    Metric(
        "cryptod_exchange_failing", "gauge", "Whether the exchange could not be asked the last time.",
        lambda said: iter([((), float(bool(said.status["exchange"]["error"])))]),
    ),
    Metric("cryptod_models_generation", "gauge", "Number of the promotion that serves.", _one("models", "generation")),
    Metric("cryptod_models_promoted_timestamp_seconds", "gauge", "When it was promoted.", _one("models", "promoted_at", 1e-3)),
    Metric(
        "cryptod_models_pinned", "gauge", "Whether nothing may be promoted (`cryptoctl models pin`).",
        lambda said: iter([((), float(bool(said.status["models"].get("pinned_at"))))]),
    ),
    Metric("cryptod_models_checkpoints", "gauge", "Checkpoints that serve.", _one("models", "checkpoints")),
    Metric("cryptod_models_refused", "gauge", "Checkpoints that were found damaged.", _count("models", "refused")),
    Metric("cryptod_cache_entries", "gauge", "Forecasts in the cache.", _one("cache", "entries")),
    Metric("cryptod_cache_bytes", "gauge", "Size of the rendered forecasts in the cache.", _one("cache", "bytes")),
    Metric(
        "cryptod_cache_reads", "counter", "Reads of the cache by what they found.",
        _rows("cache", {"hit": "hits", "miss": "misses", "expired": "expired"}), ("result",),
    ),
    Metric("cryptod_refresh_timestamp_seconds", "gauge", "When forecasts were last published.", _one("cache", "last_refresh", 1e-3)),
    Metric("cryptod_refresh_duration_seconds", "gauge", "How long that took.", _one("cache", "refresh_seconds")),
    Metric("cryptod_training_running", "gauge", "Whether a training of this kind runs.", _running, ("kind",)),
    Metric("cryptod_training_queued", "gauge", "Trainings that wait.", _one("training", "queued")),
    Metric(
        "cryptod_training_success_timestamp_seconds", "gauge", "When a training of this kind last ended well; 0 for never.",
        _rows("training", {"incremental": "last_incremental", "full": "last_full"}, 1e-3), ("kind",),
    ),
    Metric(
        "cryptod_schedule_next_timestamp_seconds", "gauge", "Next turn of each periodic job that is neither off nor paused.",
        _schedule("next", 1e-3), ("name",),
    ),
    Metric("cryptod_schedule_paused", "gauge", "Whether a periodic job is paused.", _schedule("paused"), ("name",)),
    Metric("cryptod_ledger_issues", "gauge", "Issues kept in the ledger.", _one("ledger", "issues")),
    Metric("cryptod_ledger_bytes", "gauge", "Size of the serving store, ledger included.", _one("ledger", "bytes")),
    Metric("cryptod_ledger_damaged", "gauge", "Records that could not be read since the start.", _one("ledger", "damaged")),
    Metric(
        "cryptod_control_connections", "gauge", "Clients that are connected to the control socket.", _one("control", "connections")
    ),
    Metric("cryptod_control_requests", "counter", "Requests beside plain reads of cached forecasts.", _one("control", "requests")),
    Metric(
        "cryptod_control_failures", "counter", "What went wrong with clients, by kind.",
        _rows("control", {key: key for key in ("errors", "malformed", "refused_connections", "dropped_events", "dropped_clients")}),
        ("kind",),
    ),
    Metric(
        "cryptod_memory_bytes", "gauge", "Memory (PSS) of the daemon and of its children.",
        _rows("memory", {"daemon": "pss_daemon", "children": "pss_children"}), ("part",),
    ),
    Metric("cryptod_memory_peak_bytes", "gauge", "The most memory that they took together.", _one("memory", "peak_total")),
    Metric("cryptod_memory_limit_bytes", "gauge", "What they may use together.", _one("memory", "limit")),
    Metric("cryptod_cpu_ratio", "gauge", "Share of one core.", _one("cpu", "percent", 0.01)),
    Metric("cryptod_disk_used_bytes", "gauge", "Size of the state directory.", _one("disk", "used")),
    Metric("cryptod_disk_free_bytes", "gauge", "Room on its disk.", _one("disk", "free")),
    Metric("cryptod_forecast_age_seconds", "gauge", "Age of the coin's forecast.", _coin("age"), ("symbol",)),
    Metric("cryptod_forecast_stale", "gauge", "Whether a newer one should exist.", _coin("stale"), ("symbol",)),
    Metric("cryptod_forecast_up_ratio", "gauge", "Probability that the price is higher in 24 hours.", _coin("p_up"), ("symbol",)),
    Metric("cryptod_forecast_volatility_ratio", "gauge", "Volatility of the log return over 24 hours.", _coin("volatility"), ("symbol",)),
    Metric("cryptod_forecast_expected_ratio", "gauge", "Expected log return over 24 hours.", _coin("expected_return"), ("symbol",)),
)  # fmt: skip
UP: Final = "cryptod_up"


class _Collector:
    """What prometheus-client asks for its families."""

    def __init__(self, said: Said | None) -> None:
        self._said = said

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        up = GaugeMetricFamily(UP, "Whether the daemon answers.")
        up.add_metric([], float(self._said is not None))
        yield up
        if self._said is None:
            return
        for metric in METRICS:
            make = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = make(metric.name, metric.help, labels=metric.labels)
            for labels, value in metric.samples(self._said):
                family.add_metric(labels, value)
            yield family


def ask(client: Client) -> Said:
    """What there is to know. Raises `DaemonUnreachable`."""
    horizon = 24
    return Said(client.status(), client.top(ALL_COINS, "volatility", horizon))


def exposition(said: Said | None, form: str) -> bytes:
    """The metrics in one of the two formats; without replies nothing but that the daemon is not up."""
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import generate_latest as as_text
        from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
    except ImportError as error:
        raise MissingPackage("metrics need", "prometheus-client") from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(said))
    return bytes((as_openmetrics if form == "openmetrics" else as_text)(registry))


def now(client: Client, form: str) -> tuple[bytes, DaemonUnreachable | None]:
    """The metrics as they are now; where nobody answers, those that say so, and why."""
    try:
        return exposition(ask(client), form), None
    except DaemonUnreachable as error:
        return exposition(None, form), error
