"""Jobs as text: the table of them, the line of one that runs, the fate of a batch, the end.

Knows the shape of a job (`jobs` has it) and no socket.
"""

from __future__ import annotations

from typing import Any

from ctl.terminal import Screen, bar, clean, wrap
from ctl.units import about_left, ago, counted, duration, names, percent, size

Map = dict[str, Any]
STATE_PAINT = {"running": "cyan", "done": "green", "failed": "red", "cancelled": "dim", "queued": "yellow"}
STAGE_WORDS = {
    "features": "features",
    "fit": "fitting the reference",
    "train": "training",
    "evaluate": "evaluating",
    "write": "writing",
    "written": "waiting for the daemon",
}
KIND_WORDS = {"incremental": "incremental update", "full": "full retrain"}


def jobs(rows: list[Map], screen: Screen, now: int) -> list[str]:
    """``[job]``, newest first.

    job: ``{id, kind, state: queued | running | done | failed | cancelled, reason, created, started, ended, seconds,
    cutoff, progress: {stage, done, total, text}, batches: [{number, coins, state: waiting | done | failed, attempts,
    checkpoint, promoted, reason, figures: {name: figure}, left_out: {symbol: why}, seconds}], error, hint, peak_rss}``
    """
    if not rows:
        return ["no jobs yet"]
    table: list[list[str | tuple[str, str]]] = []
    for job in rows:
        batches = job["batches"]
        through = f"{sum(batch['state'] == 'done' for batch in batches)}/{len(batches)}" if batches else "-"
        state = (job["state"], STATE_PAINT.get(job["state"], ""))
        took = duration(_seconds(job, now)) if job["started"] else "-"
        table.append([str(job["id"]), job["kind"], state, ago(job["started"] or job["created"], now), took, through, clean(job["reason"])])
    lines = screen.table(table, "><<>>><", ["ID", "Kind", "State", "Started", "Took", "Batches", "Why"], fold=True)
    for job in rows:
        if job["state"] == "running":
            share = job_share(job)
            left = about_left(rest(_seconds(job, now), share))
            lines += ["", *wrap(job_line(job, now), screen.width, "  "), f"{bar(share, 30)} {percent(share, 0)}{left}"]
        if job["error"]:
            hint = f" ({job['hint']})" if job["hint"] else ""
            lines += ["", *wrap(f"{job['id']}: {job['error']}{hint}", screen.width, "  ")]
    return lines


def _seconds(job: Map, now: int) -> float:
    return float(job["seconds"] if job["ended"] else max(0, now - job["started"]) / 1000)


def job_text(job: Map) -> str:
    """What there is to say of a job in a few words: what it is doing, or why it was started."""
    progress = job["progress"]
    if job["state"] != "running":
        return clean(str(job["reason"]))
    if not progress["stage"]:
        return "starting"
    batch, _, rest = str(progress["text"]).partition(": ")
    detail = rest or ("" if batch.startswith("batch ") else batch)
    return clean(detail or STAGE_WORDS.get(progress["stage"], progress["stage"]))


def job_line(job: Map, now: int) -> str:
    """One line of a running or waiting job: ``full retrain 12, batch 2 of 4: fitting, 62 %, since 20 s``."""
    name = f"{KIND_WORDS.get(job['kind'], job['kind'])} {job['id']}"
    if job["state"] != "running":
        return f"{name} {job['state']}"
    batches = job["batches"]
    done = sum(batch["state"] != "waiting" for batch in batches)
    where = f", batch {min(done + 1, len(batches))} of {len(batches)}" if batches else ""
    return f"{name}{where}: {job_text(job)}, for {duration(_seconds(job, now))}"


def progress_line(job: Map, screen: Screen, elapsed: float, rest: float | None) -> str:
    """The line that `train --follow` redraws: a bar over all batches, what is being done, and an estimate of the rest."""
    share = job_share(job)
    batches = job["batches"]
    done = sum(batch["state"] != "waiting" for batch in batches)
    where = f"batch {min(done + 1, len(batches))} of {len(batches)}" if batches else job["state"]
    what = f"  {job_text(job)}" if job["state"] == "running" else ""
    line = f"{bar(share, max(8, min(30, screen.width - 60)))} {percent(share, 0):>5}  {where}  {duration(elapsed)}{about_left(rest)}{what}"
    return line if len(line) < screen.width else line[: screen.width - 2] + "…"


def collecting(exchange: Map, width: int) -> str:
    """How far a collection is, from the status: ``collecting candles: backfill ███····· 34 %, about 2 min left``; empty where none runs."""
    progress = exchange.get("progress")
    if not exchange.get("collecting") or not progress or not progress["total"]:
        return ""
    share = progress["done"] / progress["total"]
    return f"collecting candles: {progress['stage']} {bar(share, width)} {percent(share, 0)}{about_left(progress.get('rest') or None)}"


def rest(elapsed: float, share: float, first: float = 0.0) -> float | None:
    """Seconds that are left if all goes on as it went since ``share`` was ``first``; None where that is not known yet."""
    return elapsed * (1 - share) / (share - first) if share - first > 0.02 and share < 1 else None


def job_share(job: Map) -> float:
    """How much of a job is through, 0 to 1, in coins.

    ``progress`` counts those of the order that the child has now; what was through before it was given is not among them.
    """
    batches, progress = job["batches"], job["progress"]
    if job["state"] == "done":
        return 1.0
    coins = float(sum(batch["coins"] for batch in batches))
    if not coins:
        return 0.0
    if progress["total"]:
        through = coins - float(progress["total"]) + float(progress["done"])
    else:
        through = sum(float(batch["coins"]) for batch in batches if batch["state"] != "waiting")
    return max(0.0, min(1.0, through / coins))


def batch_line(batch: Map, total: int) -> str:
    """``batch 2 of 4: 25 coins in 4.1 s, promoted as full-7-b2``"""
    head = f"batch {batch['number']} of {total}: {counted(batch['coins'], 'coin')}"
    if batch["state"] == "failed":
        return f"{head} failed: {clean(batch['reason'])}"
    fate = f"promoted as {batch['checkpoint']}" if batch["promoted"] else "not promoted"
    why = f" ({clean(batch['reason'])})" if batch["reason"] else ""
    left = f"; left out: {names(sorted(batch['left_out']))}" if batch.get("left_out") else ""
    return f"{head} in {duration(batch['seconds'])}, {fate}{why}{left}"


def job_end(job: Map, elapsed: float | None = None) -> str:
    """The last line of a job: ``full retrain 12 done in 18 s, 4 of 4 batches promoted, peak memory 310 MB``."""
    name = f"{KIND_WORDS.get(job['kind'], job['kind'])} {job['id']}"
    text = f"{name} {job['state']}"
    if job["started"]:
        text += f" in {duration(job['seconds'] if elapsed is None else elapsed)}"
    if job["batches"]:
        text += f", {sum(batch['promoted'] for batch in job['batches'])} of {counted(len(job['batches']), 'batch', 'batches')} promoted"
    if job["peak_rss"]:
        text += f", peak memory {size(job['peak_rss'])}"
    return text + (f": {clean(job['error'])}" if job["error"] else "")


def enqueued(job: Map, screen: Screen, now: int) -> list[str]:
    """The reply of ``train``: a job."""
    return [f"{KIND_WORDS.get(job['kind'], job['kind'])} {job['id']} is {job['state']}; `cryptoctl jobs` shows how it goes"]


def cancelled(job: Map, screen: Screen, now: int) -> list[str]:
    """The reply of ``cancel``: a job."""
    return [f"{KIND_WORDS.get(job['kind'], job['kind'])} {job['id']} is {job['state']}"]
