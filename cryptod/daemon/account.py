"""What the daemon says of itself: the status, the facts that its conditions look at, the coins, and a line for systemd.

Reads the parts of the service and changes nothing; the handlers hand these on, and ``ctl.render`` documents their shapes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptod import __version__, logs
from cryptod.clock import SystemClock
from cryptod.daemon.monitor import HOUR_MS, Facts

if TYPE_CHECKING:
    from cryptod.daemon.service import Service


def summary(service: Service) -> str:
    """One line for `systemctl status`."""
    running = service.training.queue.running
    doing = f"; {running.kind} training {running.done}/{running.total} {running.stage}" if running else ""
    if service.collection.running:
        doing += "; collecting candles"
    coins = f"{len(service.publisher.predictor.symbols)} of {len(service.collection.followed)} coins forecast"
    return f"{coins}, health {service.health.severity}{doing}"


def facts(service: Service) -> Facts:
    """The snapshot that the conditions look at."""
    now, collection, publisher = service.clock.now(), service.collection, service.publisher
    boundary = collection.boundary(now - 5 * 60_000)
    followed = collection.followed
    trained = sum(symbol in publisher.predictor for symbol in followed)
    stale = {}
    if publisher.published_to >= boundary - HOUR_MS:
        behind, known = publisher.predictor.behind(publisher.published_to), service.symbols.followed
        stale = {symbol: lag // HOUR_MS for symbol, lag in behind.items() if symbol in known}
    latest = next((job for job in service.training.recent(10) if job["ended"] and job["state"] != "cancelled"), None)
    batches = latest["batches"] if latest else []
    unloadable = service.pool.unloadable
    failed = latest is not None and latest["state"] == "failed" and "train" not in unloadable
    return Facts(
        now=now, monotonic=service.monotonic(), boundary=boundary, started=service.first_start,
        followed=len(followed), models=len(publisher.models), trained=trained, stale=stale, collected_to=collection.collected_to,
        exchange_error=collection.exchange_error, exchange_banned=collection.banned,
        full_enabled=service.config.full_retrain.enabled and not service.own_from, full_last_done=service.training.last_full_done,
        last_job_error="{kind} training {id} failed: {error}".format(**latest) if latest and failed else "",
        unloadable={kind: known.text for kind, known in unloadable.items()},
        collect_error="" if "collect" in unloadable else collection.child_error,
        failed_batches=tuple(f"batch {b['number']}: {b['reason']}" for b in batches if b["state"] == "failed"),
        gate_refused=tuple(f"batch {b['number']}: {b['reason']}" for b in batches if b["state"] == "done" and not b["promoted"]),
        refused_checkpoints=publisher.refused, fallback=publisher.fallback(), refresh_error=publisher.error,
        store_error=service.store_error or collection.store_error, store_damaged=service.damaged_store,
        clock_step=service.steps.step, clock_error=collection.clock_error, drift=service.drift.text,
        coverage=service.drift.coverage, outage=publisher.outage(), taken_back=publisher.taken_back(),
        resources=service.resources, universe_warnings=_unmet_settings(service),
    )  # fmt: skip


def _unmet_settings(service: Service) -> tuple[str, ...]:
    """What universe.include or the operator asks for and the exchange does not give."""
    left_out = service.collection.left_out
    amendments = service.collection.amendments
    named = {name: "universe.include names" for name in service.config.universe.include if name not in amendments.removed}
    named |= dict.fromkeys(amendments.added, "`cryptoctl symbols add` named")
    return tuple(f"{who} {name}: {left_out[name]}" for name, who in named.items() if name in left_out)


def status(service: Service) -> dict[str, Any]:
    """Everything at a glance; ``ctl.render.status`` documents the shape."""
    now, collection, publisher, resources = service.clock.now(), service.collection, service.publisher, service.resources
    running = service.training.queue.running
    last = collection.last
    jobs = service.training.recent(50)
    return {
        "now": now,
        "process": {
            "version": __version__, "pid": service.pid, "started": now - int(1000 * (service.monotonic() - service.born)),
            "uptime": service.monotonic() - service.born, "ready": True, "state": "ready",
            "log_level": logs.level(), "clock": "system" if isinstance(service.clock, SystemClock) else str(service.clock),
        },
        "health": {"severity": service.health.severity, "conditions": service.health.findings},
        "exchange": {
            "id": service.config.exchange.id, "url": service.config.exchange.url, "last_collect": collection.last_at,
            "error": collection.exchange_error, "retry_in": collection.retry_in, "collecting": collection.running,
            "progress": None if collection.progress is None else {
                "stage": collection.progress.stage, "done": collection.progress.done, "total": collection.progress.total,
                "rest": collection.rest,
            },
            **({"new_candles": last.new_candles, "seconds": last.seconds, "requests": last.requests} if last else {}),
        },
        "candles": {
            "symbols": len(collection.followed), "newest_close": collection.collected_to, "stale": sorted(facts(service).stale),
            "left_out": len(collection.left_out),
        },
        "models": {
            "generation": publisher.generation, "promoted_at": publisher.promoted_at, "pinned_at": publisher.pinned_at,
            "checkpoints": len(publisher.models),
            "coins": sum(symbol in publisher.predictor for symbol in collection.followed), "refused": publisher.refused,
        },
        "cache": publisher.stats(),
        "training": {
            "running": running.describe() if running else None, "queued": len(service.training.queue) - (running is not None),
            "last_full": service.training.last_full_done, "own_from": service.own_from,
            "last_incremental": max((j["ended"] for j in jobs if j["kind"] == "incremental" and j["state"] == "done"), default=0),
        },
        "schedule": service.scheduler.describe(now),
        "ledger": _describe_ledger(service),
        "control": {"connections": len(service.control.connections), "requests": service.control.requests, **{
            kind: service.control.counts[kind]
            for kind in ("errors", "malformed", "refused_connections", "dropped_events", "dropped_clients")
        }},
        "memory": {
            "pss_total": resources.pss_total, "pss_daemon": resources.pss_daemon, "pss_children": resources.pss_children,
            "peak_total": service.peak_pss, "limit": resources.memory_limit, "processes": resources.processes,
            "family": [process._asdict() for process in resources.family],
        },
        "cpu": {"percent": resources.cpu_percent},
        "disk": {
            "path": str(service.state), "used": resources.disk_used, "free": resources.disk_free,
            "market": service.settled.market, "others": list(service.settled.others),
        },
    }  # fmt: skip


def _describe_ledger(service: Service) -> dict[str, Any]:
    stats = service.ledger.stats()
    return {
        "issues": stats["issues"], "first": stats["first_cutoff"], "last": stats["last_cutoff"], "damaged": stats["damaged"],
        "bytes": service.environment.used_bytes(),
    }  # fmt: skip


def symbols(service: Service) -> dict[str, Any]:
    """The coins that are followed, by quote volume, and those left out, each with why."""
    publisher, collection = service.publisher, service.collection
    serves = {symbol: name for name, symbols in publisher.serving().items() for symbol in symbols}
    stale = facts(service).stale
    rows = []
    for symbol in collection.followed:
        model = serves.get(symbol)
        reason = service.trouble(symbol) if model is None or symbol in stale else ""
        newest = publisher.predictor.needs(symbol) if model else collection.collected_to
        rows.append({"symbol": symbol, "newest_close": newest, "stale": symbol in stale, "reason": reason, "model": model})
    amendments = collection.amendments
    return {"followed": rows, "left_out": collection.left_out, "added": list(amendments.added), "removed": list(amendments.removed)}
