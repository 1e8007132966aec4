"""The daemon's replies as pages: one function a verb, plain figures in, lines of text out.

Knows the shapes of the replies, which its docstrings define (times: UTC ms, durations: seconds, sizes: bytes, shares:
of one; a key may be missing, then its row is), and no socket. ``now`` is the daemon's clock: the ages are its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctl.jobs import job_line
from ctl.terminal import Screen, columns, spark, wrap
from ctl.units import PriceScale, about_left, ago, counted, duration, names, number, percent, price, quote_of, size, stamp

if TYPE_CHECKING:
    from pathlib import Path

Map = dict[str, Any]
HORIZONS = (1, 2, 4, 8, 12, 24)
FAN = (0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975)
"""The levels that bound 95, 80 and 50 % of the outcomes, and the median."""
WIDE = 100
"""Columns from which on `top` also shows the last day."""
SEVERITY_PAINT = {"ok": "green", "warning": "yellow", "error": "red"}


def labelled(screen: Screen, rows: list[tuple[str, str]]) -> list[str]:
    """Names on the left, sentences on the right, wrapped under themselves."""
    wide = max((columns(name) for name, _ in rows), default=0) + 2
    lines = []
    for name, text in rows:
        first, *rest = wrap(text, screen.width - wide) or [""]
        lines.append(screen.paint(name, "bold") + " " * (wide - columns(name)) + first)
        lines += [" " * wide + line for line in rest]
    return lines


# --- status ---------------------------------------------------------------------------------------------------------


def status(reply: Map, screen: Screen, now: int) -> list[str]:
    """Everything at a glance.

    ``{now, process: {version, pid, started, uptime, ready, state, clock}, health: {severity, conditions: [condition]},
    candles: {symbols, candles, newest_close, stale: [symbol]}, models: {generation, promoted_at, checkpoints, coins,
    refused: {name: why}}, cache: (see `cache_stats`), training: {running: job | nil, queued: int, last_full, own_from,
    last_incremental}, schedule: (see `schedule`), ledger: {issues, first, last, bytes}, memory: {pss_total, pss_daemon,
    pss_children, peak_total, limit}, cpu: {percent}, disk: {path, used, free, market, others: [name]},
    exchange: {id, url, last_collect, new_candles, seconds, collecting: bool, progress: {stage, done, total, rest} | nil,
    error, retry_in}}``
    """
    process = reply.get("process", {})
    state = process.get("state") or ("ready" if process.get("ready") else "starting")
    facts = [f"up {duration(process['uptime'])}"] if "uptime" in process else []
    facts += [f"pid {process['pid']}"] if "pid" in process else []
    facts += [f"{stamp(now)}"]
    head = screen.paint(f"cryptod {process.get('version', '')}".rstrip(), "bold")
    lines = [f"{head}  {screen.paint(state, 'green' if state == 'ready' else 'yellow')}, {', '.join(facts)}", ""]
    rows = [(name, text) for name, key, row in _STATUS if reply.get(key) and (text := row(reply[key], now))]
    lines += labelled(screen, rows)
    found = reply.get("health", {}).get("conditions", [])
    return [*lines, "", *_conditions(found, screen, now)] if found else lines


def _status_clock(process: Map, now: int) -> str:
    if process.get("clock") in (None, "", "system"):
        return ""
    pace = process["clock"].rpartition("x")[2]
    return "simulated" + (f", {pace} times as fast" if pace != "1" else "")


def _status_health(health: Map, now: int) -> str:
    found = health.get("conditions", [])
    return f"{health['severity']}, {counted(len(found), 'condition')}:" if found else f"{health['severity']}, no conditions"


def _status_candles(candles: Map, now: int) -> str:
    stale = candles.get("stale", [])
    count = f", {number(candles['candles'])} candles" if candles.get("candles") else ""
    newest = candles.get("newest_close")
    closed = f"; the newest closed {stamp(newest)}, {ago(newest, now)}" if newest else "; none yet"
    return f"{counted(candles.get('symbols', 0), 'coin')}{count}{closed}" + (f"; {len(stale)} stale: {names(stale)}" if stale else "")


def _status_models(models: Map, now: int) -> str:
    if not models.get("checkpoints"):
        return "none yet"
    refused = models.get("refused") or {}
    return (
        f"{counted(models['checkpoints'], 'model')} for {counted(models.get('coins', 0), 'coin')}, generation {models['generation']},"
        f" promoted {ago(models['promoted_at'], now)}" + (f"; refused: {', '.join(refused)}" if refused else "")
    )


def _status_cache(cache: Map, now: int) -> str:
    refreshed = f"; refreshed {ago(cache.get('last_refresh'), now)}" if cache.get("last_refresh") else ""
    took = f" in {duration(cache['refresh_seconds'])}" if refreshed and cache.get("refresh_seconds") else ""
    return (
        f"{counted(cache.get('entries', 0), 'entry', 'entries')}, {counted(cache.get('hits', 0), 'hit')},"
        f" {counted(cache.get('misses', 0), 'miss', 'misses')}{refreshed}{took}"
    )


def _status_training(training: Map, now: int) -> str:
    running, queued = training.get("running"), training.get("queued", 0)
    what = job_line(running, now) if running else "idle"
    waits = f"; {counted(queued, 'job')} waiting" if queued else ""
    full, incremental = training.get("last_full"), training.get("last_incremental")
    own = f"; own models from {stamp(training['own_from'])}, until then the base model serves" if training.get("own_from") else ""
    return f"{what}{waits}; last full retrain {ago(full, now)}, last incremental update {ago(incremental, now)}{own}"


def _status_schedule(rows: list[Map], now: int) -> str:
    coming = sorted((row["next"], row["name"]) for row in rows if row.get("enabled") and row.get("next"))
    paused = [f"{row['name']} paused" for row in rows if row.get("enabled") and row.get("paused")]
    return ", ".join([*(f"{name} {ago(when, now)}" for when, name in coming), *paused])


def _status_ledger(ledger: Map, now: int) -> str:
    if not ledger.get("issues"):
        return "empty"
    return f"{counted(ledger['issues'], 'issue')} since {stamp(ledger['first'])}, {size(ledger['bytes'])}"


def _status_memory(memory: Map, now: int) -> str:
    if not memory["pss_total"]:
        return ""  # not measured yet
    limit = f" of {size(memory['limit'])}" if memory.get("limit") else ""
    parts = f"daemon {size(memory['pss_daemon'])}, children {size(memory['pss_children'])}"
    peak = f"; at most {size(memory['peak_total'])}" if memory.get("peak_total") else ""
    return f"{size(memory['pss_total'])}{limit} ({parts}){peak}"


def _status_cpu(cpu: Map, now: int) -> str:
    return f"{cpu['percent']:.0f} % of one core"


def _status_disk(disk: Map, now: int) -> str:
    if not disk["free"]:
        return ""
    others = f"; set aside there: {', '.join(disk['others'])}" if disk.get("others") else ""
    return f"{size(disk['used'])} in {disk['path']}, {size(disk['free'])} free{others}"


def collecting(progress: Map | None) -> str:
    """How far a collection is: `` (backfill, 34 of 100 coins, about 2 min left)``; nothing while that is not known."""
    if not progress or not progress["total"]:
        return ""
    rest = progress.get("rest") or 0.0
    return f" ({progress['stage']}, {progress['done']} of {counted(progress['total'], 'coin')}{about_left(rest if rest >= 1 else None)})"


def _status_exchange(exchange: Map, now: int) -> str:
    where = f" at {exchange['url']}" if exchange.get("url") else ""
    last = f", asked {ago(exchange['last_collect'], now)}" if exchange.get("last_collect") else ", not asked yet"
    news = f": {counted(exchange['new_candles'], 'new candle')} in {duration(exchange['seconds'])}" if "new_candles" in exchange else ""
    busy = ("; collecting now" + collecting(exchange["progress"])) if exchange.get("collecting") else ""
    again = f", asked again in {duration(exchange['retry_in'])}" if exchange.get("retry_in") else ""
    return f"{exchange['id']}{where}{last}{news}{busy}" + (f"; {exchange['error']}{again}" if exchange.get("error") else "")


_STATUS = (
    ("Clock", "process", _status_clock),
    ("Health", "health", _status_health),
    ("Exchange", "exchange", _status_exchange),
    ("Candles", "candles", _status_candles),
    ("Models", "models", _status_models),
    ("Forecasts", "cache", _status_cache),
    ("Training", "training", _status_training),
    ("Next", "schedule", _status_schedule),
    ("Ledger", "ledger", _status_ledger),
    ("Memory", "memory", _status_memory),
    ("CPU", "cpu", _status_cpu),
    ("Disk", "disk", _status_disk),
)


# --- health ---------------------------------------------------------------------------------------------------------


def health(reply: Map, screen: Screen, now: int) -> list[str]:
    """``{severity: ok | warning | error, conditions: [{name, severity, text, remedy, since}]}``"""
    severity, found = reply["severity"], reply["conditions"]
    head = screen.paint(severity, SEVERITY_PAINT.get(severity, ""))
    if not found:
        return [f"{head}: no conditions"]
    return [f"{head}: {counted(len(found), 'condition')}", "", *_conditions(found, screen, now)]


def _conditions(found: list[Map], screen: Screen, now: int) -> list[str]:
    lines = []
    for row in found:
        paint = SEVERITY_PAINT.get(row["severity"], "")
        lines.append(f"{screen.paint(row['severity'], paint)}  {screen.paint(row['name'], 'bold')}, since {ago(row['since'], now)}")
        lines += [f"  {line}" for line in wrap(row["text"], screen.width - 2)]
        lines += [f"  {line}" for line in wrap(f"-> {row['remedy']}", screen.width - 2, "   ")]
    return lines


# --- forecasts ------------------------------------------------------------------------------------------------------


def forecast(reply: Map, screen: Screen, *, all_horizons: bool = False) -> list[str]:
    """The fan of one coin, in price.

    ``{symbol, cutoff, issued, expires, model, close, horizons [H], levels [L], quantiles [H][L] (cumulative log return),
    prices [H][L], p_up [H], volatility [H] (of the log return), expected_return [H], score, strangeness,
    flags: [str], age, stale, reason: str | nil, coverage: {50, 80, 95: share inside, outcomes} | nil}``
    """
    now = int(reply["issued"] + 1000 * reply["age"])
    quote = quote_of(reply["symbol"])
    scale = PriceScale(reply["close"], quote)
    head = f"{screen.paint(reply['symbol'], 'bold')}  {price(reply['close'])} {quote} at {stamp(reply['cutoff'])}"
    lines = [f"{head}; forecast made {duration(reply['age'])} ago"]
    if reply["stale"]:
        lines += [screen.paint(line, "yellow") for line in wrap(f"stale: {reply['reason'] or 'no reason given'}", screen.width, "       ")]
    levels = reply["levels"]
    columns = [min(range(len(levels)), key=lambda i: abs(levels[i] - level)) for level in FAN]
    rows = []
    for i, horizon in enumerate(reply["horizons"]):
        if all_horizons or horizon in HORIZONS:
            fan: list[str | tuple[str, str]] = [scale(reply["prices"][i][column]) for column in columns]
            fan[3] = (str(fan[3]), "bold")
            rows.append([f"{horizon} h", *fan, percent(reply["p_up"][i]), percent(reply["volatility"][i], 2)])
    heads = ["In", "2.5 %", "10 %", "25 %", "Median", "75 %", "90 %", "97.5 %", "P(up)", "Volatility"]
    gap = 2 if sum(_widths(heads, rows)) + 2 * (len(heads) - 1) <= screen.width else 1
    lines += ["", *_brackets(screen, heads, rows, gap), *screen.table(rows, ">" * 10, heads, gap=gap), ""]
    lines.append(f"Prices in {scale.unit}. Volatility is that of the return up to then.")
    flags = f"; {', '.join(reply['flags'])}" if reply["flags"] else ""
    expiry = "expired" if reply["expires"] <= now else "expires"
    figures = f"score {reply['score']:+.3f}, strangeness {reply['strangeness']:.2f}"
    facts = f"Model {reply['model']}, {figures}, {expiry} {ago(reply['expires'], now)}{flags}"
    return lines + wrap(facts, screen.width) + wrap(_coverage(reply.get("coverage"), reply["symbol"]), screen.width)


def _coverage(coverage: Map | None, symbol: str) -> str:
    """How the coin's intervals have held lately."""
    if coverage is None:
        return f"How the forecasts of {symbol} have held is known after a day of them."
    held = ", ".join(f"{level} % held {percent(coverage[level])}" for level in ("50", "80", "95"))
    return f"Lately, of {symbol}: {held} of {number(coverage['outcomes'])} outcomes, all hours ahead."


def _brackets(screen: Screen, heads: list[str], rows: list[list[Any]], gap: int) -> list[str]:
    """Which columns hold 95, 80 and 50 % of the outcomes between them."""
    widths = _widths(heads, rows)
    ends = [sum(widths[: i + 1]) + gap * i for i in range(len(widths))]
    lines = []
    for first, last, text in ((1, 7, " 95 % of outcomes "), (2, 6, " 80 % "), (3, 5, " 50 % ")):
        start = ends[first] - widths[first]
        inner = text.center(ends[last] - start - 2, "─")
        lines.append(screen.paint(" " * start + "┌" + inner + "┐", "dim"))
    return lines


def _widths(heads: list[str], rows: list[list[Any]]) -> list[int]:
    return [max(len(head), *(columns(row[i] if isinstance(row[i], str) else row[i][0]) for row in rows)) for i, head in enumerate(heads)]


def top(rows: list[Map], screen: Screen, now: int, *, by: str, horizon: int) -> list[str]:
    """``[{symbol, close, cutoff, horizon, score, p_up, volatility, expected_return, path [H], stale: bool, change_1h, change_24h,
    recent [closes]}]``, best first.

    ``p_up``, ``volatility`` and ``expected_return`` are those at ``horizon``; ``path`` is the expected cumulative log return
    at each horizon, for the sparkline. ``recent``, the closes of the last day, is shown where the screen is wide enough.
    """
    if not rows:
        return ["no forecasts yet"]
    words = {"p_up": "P(up)", "expected_return": "expected return"}.get(by, by)
    lines = [f"Top {len(rows)} by {words}, {horizon} h ahead; candles up to {stamp(max(row['cutoff'] for row in rows))}", ""]
    keys = ("score", "p_up", "expected_return", "volatility")
    heads = ["#", "Coin", "Close", "Score", "P(up)", "Expected", "Volatility", "Path"]
    values = [value for row in rows for value in row["path"]]
    span = min(0.0, *values), max(0.0, *values)
    table: list[list[str | tuple[str, str]]] = []
    for i, row in enumerate(rows, start=1):
        figures = (
            f"{row['score']:+.3f}",
            percent(row["p_up"]),
            percent(row["expected_return"], 2, sign=True),
            percent(row["volatility"], 2),
        )
        paint = "green" if row["expected_return"] > 0 else "red"
        cells = [(text, "bold" if key == by else paint if key == "expected_return" else "") for text, key in zip(figures, keys)]
        path = (spark(row["path"], 8, span), paint)
        table.append([str(i), row["symbol"] + (" *" if row["stale"] else ""), price(row["close"]), *cells, path])
    align = "><>>>>><"
    if screen.width >= WIDE:
        heads[3:3] = ["24 h", "Last day"]
        for line, row in zip(table, rows):
            change = row.get("change_24h")
            paint = "green" if (change or 0.0) > 0 else "red"
            day: list[str | tuple[str, str]] = [(percent(change, 2, sign=True), paint), (spark(row.get("recent") or [], 12), paint)]
            line[3:3] = day
        align = "><>><>>>><"
    lines += screen.table(table, align, heads)
    quotes = sorted({quote_of(row["symbol"]) for row in rows})
    lines += ["", f"Close in {' or '.join(quotes)}; Path: the expected return over {len(rows[0]['path'])} h, all coins on one scale."]
    return [*lines, "* stale: `cryptoctl get` says why."] if any(row["stale"] for row in rows) else lines


# --- schedule, cache, models, coins ---------------------------------------------------------------------------------


def schedule(rows: list[Map], screen: Screen, now: int) -> list[str]:
    """``[{name, cron, lead (seconds earlier than cron says), enabled, paused, last, next}]``; no ``next`` for one that is off or paused."""
    table: list[list[str | tuple[str, str]]] = []
    for row in rows:
        cron = row["cron"] + (f" less {duration(row['lead'])}" if row.get("lead") else "")
        off = "off" if not row["enabled"] else "paused" if row.get("paused") else ""
        coming = (off, "") if off else (stamp(row["next"], zone=False), ago(row["next"], now))
        table.append([row["name"], cron, ago(row["last"], now), (coming[0], "dim" if off else ""), coming[1]])
    return screen.table(table, "<<<<<", ["Name", "Cron (UTC)", "Last run", "Next run (UTC)", ""])


def cache_stats(reply: Map, screen: Screen, now: int) -> list[str]:
    """``{entries, hits, misses, expired, ttl_hours, pregenerate_ttl_hours, last_refresh, refresh_seconds, bytes}``"""
    asked = reply["hits"] + reply["misses"] + reply.get("expired", 0)
    rows = [
        ("Entries", number(reply["entries"])),
        ("Hits", number(reply["hits"]) + (f" ({percent(reply['hits'] / asked)})" if asked else "")),
        ("Misses", number(reply["misses"])),
        ("Expired", f"{number(reply['expired'])} found too old when asked for") if "expired" in reply else ("", ""),
        ("Kept for", f"{reply['ttl_hours']} h, {reply['pregenerate_ttl_hours']} h when pre-generated")
        if "ttl_hours" in reply
        else ("", ""),
        ("Refreshed", _refreshed(reply, now)),
        ("Size", size(reply["bytes"])) if reply.get("bytes") else ("", ""),
    ]
    return labelled(screen, [row for row in rows if row[0]])


def _refreshed(reply: Map, now: int) -> str:
    took = f", in {duration(reply['refresh_seconds'])}" if reply.get("refresh_seconds") else ""
    return ago(reply.get("last_refresh"), now) + took


def cache_pregenerate(reply: Map, screen: Screen, now: int) -> list[str]:
    """``{forecasts, seconds}``"""
    return [f"{counted(reply['forecasts'], 'forecast')} computed in {duration(reply['seconds'])}"]


def cache_clear(reply: Map, screen: Screen, now: int) -> list[str]:
    """``{dropped}``"""
    return [f"{counted(reply['dropped'], 'forecast')} dropped; the next `get` of a coin computes it anew"]


def models(reply: Map, screen: Screen, now: int) -> list[str]:
    """``{generation, promoted_at, serve: who is to, current: [model], history: [{generation, promoted_at, checkpoints: [name], coins,
    steps}], refused: {name: why}}``

    model: ``{name, kind, cutoff, created, coins (trained), served (now served by it), figures: {crps_model, crps_REFERENCE,
    skill_REFERENCE, ...}}``; skill is the share by which the CRPS is below the reference's, and the reference with the
    smallest CRPS is shown; ``verdict``: why it serves. ``weights``: horizon -> forecaster -> weight in what is
    served. ``steps``: how many to roll back to get there, nil where no way leads.
    """
    if not reply["current"]:
        return ["no models yet; the first training starts by itself once candles are in: `cryptoctl jobs`"]
    lines = []
    if "generation" in reply:
        pinned = f"; pinned {ago(reply['pinned_at'], now)}" if reply.get("pinned_at") else ""
        lines += [f"Generation {reply['generation']}, promoted {ago(reply['promoted_at'], now)}{pinned}", ""]
    rows = []
    for model in reply["current"]:
        coins = f"{model['served']} of {model['coins']}" if "served" in model else str(model["coins"])
        skill, best = skill_of(model)
        rows.append([model["name"], coins, stamp(model["cutoff"], zone=False), percent(skill, 2, sign=True), best or "-"])
    lines += screen.table(rows, "<>>><", ["Model", "Serves", "Cutoff (UTC)", "Skill", "against"])
    lines += ["", "Skill: how far its CRPS lay below the best reference's in evaluation."]
    verdicts = [f"{model['name']}: {model['verdict']}" for model in reply["current"] if model.get("verdict")]
    if verdicts:
        lines += ["", screen.paint("Verdicts", "bold")]
        lines += [line for verdict in verdicts for line in wrap(verdict, screen.width, "  ")]
    if reply.get("serve", "model") != "model":
        text = (
            f"The configuration says (forecast.serve): all coins are served by the reference {reply['serve']}; the models are trained on."
        )
        lines += ["", *(screen.paint(line, "yellow") for line in wrap(text, screen.width))]
    elif reply.get("weights"):
        shares = ", ".join(f"{horizon.removesuffix('h')} h {percent(weights['model'])}" for horizon, weights in reply["weights"].items())
        lines += ["", *wrap(f"The model's weight in what is served, the rest being the references': {shares}", screen.width)]
    for name, why in (reply.get("refused") or {}).items():
        lines += [screen.paint(line, "yellow") for line in wrap(f"refused: {name}: {why}", screen.width, "  ")]
    history = [row for row in reply.get("history", []) if row["steps"]]
    if history:
        lines += ["", screen.paint("To go back", "bold")]
        for row in history:
            lines += wrap(
                f"`cryptoctl models rollback --steps {row['steps']}`: generation {row['generation']}, promoted {stamp(row['promoted_at'])},"
                f" {counted(len(row['checkpoints']), 'model')}",
                screen.width, "  ",
            )  # fmt: skip
    return lines


def skill_of(model: Map) -> tuple[float | None, str]:
    """A model's skill against the reference that did best in its evaluation, and which that was."""
    figures = model.get("figures") or {}
    references = {name.removeprefix("crps_"): value for name, value in figures.items() if name.startswith("crps_") and name != "crps_model"}
    best = min(references, key=lambda name: references[name], default="")
    return figures.get(f"skill_{best}"), best


def rolled_back(reply: Map, screen: Screen, now: int) -> list[str]:
    """The reply of ``models rollback``, as that of ``models``."""
    return ["rolled back", "", *models(reply, screen, now)]


def symbols(reply: Map, screen: Screen, now: int) -> list[str]:
    """``{followed: [{symbol, newest_close, stale: bool, reason, model: str | nil}], left_out: {symbol: why}, added: [symbol], removed}``

    ``followed`` stands in the order of quote volume; ``reason`` says why it is stale or has no model.
    """
    followed = reply["followed"]
    rows: list[list[str | tuple[str, str]]] = []
    for coin in followed:
        trouble = "stale" if coin["stale"] else "" if coin["model"] else "no model"
        text = ": ".join(filter(None, (trouble, coin["reason"] or ""))) or ("added" if coin["symbol"] in reply.get("added", ()) else "")
        rows.append([coin["symbol"], stamp(coin["newest_close"], zone=False), coin["model"] or "-", (text, "yellow")])
    lines = screen.table(rows, "<<<<", ["Coin", "Candles to (UTC)", "Model", ""], fold=True)
    lines += ["", f"{counted(len(followed), 'coin')} followed, {len(reply['left_out'])} left out"]
    wide = max((columns(symbol) for symbol in reply["left_out"]), default=0)
    for symbol, why in sorted(reply["left_out"].items()):
        first, *rest = wrap(why, screen.width - wide - 4) or [""]
        lines += [f"  {symbol}{' ' * (wide - columns(symbol))}  {first}", *(" " * (wide + 4) + line for line in rest)]
    return lines


def added(reply: Map, screen: Screen, now: int) -> list[str]:
    """``{symbol, changed, followed, reason}``, of `symbols add`"""
    symbol = reply["symbol"]
    if reply["followed"]:
        said = f"{symbol} is followed already" + ("; from now on whatever its volume" if reply["changed"] else "")
    elif reply["reason"]:
        said = f"{symbol} is not followed: {reply['reason']} (as before)"
    else:
        said = f"{symbol} was added: if the exchange has it, it is fetched and forecast within a minute; `cryptoctl get {symbol}`"
    return wrap(said, screen.width)


def removed(reply: Map, screen: Screen, now: int) -> list[str]:
    """The same of `symbols remove`; no ``reason`` where the coin was added and never followed."""
    why = f"is not followed: {reply['reason']}" if reply["reason"] else "is forgotten: it was added, and never followed"
    return wrap(f"{reply['symbol']} {why}" + ("" if reply["changed"] else " (as before)"), screen.width)


def log_level(reply: Map, screen: Screen, now: int) -> list[str]:
    """``{level, was}``"""
    return [f"the daemon logs from {reply['level']} on (it was {reply['was']}), until its next start or reload"]


def written(path: Path, screen: Screen) -> str:
    """A file that was written, and how large it is."""
    return f"{path}: {size(path.stat().st_size)}; it opens in any browser and needs no network"


def log_lines(rows: list[Map], screen: Screen, now: int) -> list[str]:
    """``[{time (the machine's), level, logger, text, fields: {name: text}}]``, oldest first."""
    lines = []
    for row in rows:
        head = f"{stamp(row['time'], zone=False)} {row['level']:<8}"
        said = f"{row['logger']}: {row['text']}  " + " ".join(f"{name}={value}" for name, value in row["fields"].items())
        first, *rest = wrap(said, screen.width - len(head) - 3) or [""]
        paint = {"warning": "yellow", "error": "red", "critical": "red", "debug": "dim"}.get(row["level"], "")
        lines.append(screen.paint(head, paint) + f" {first}")
        lines += [" " * (len(head) + 3) + line for line in rest]
    return lines or ["nothing was logged yet"]


def ping(reply: Map, screen: Screen, seconds: float) -> list[str]:
    """``{version, protocol, now, pid}``"""
    return [f"cryptod {reply['version']} (pid {reply['pid']}) answered in {duration(seconds)}"]
