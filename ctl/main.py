"""cryptoctl: asks the daemon on its socket, and shows what it says.

The verbs are a table; what each of them takes on the command line comes from the protocol's own table of commands. Knows
the client, the pages of `ctl.render` and the exit codes: 0 done, 1 refused, 2 wrong usage, 3 no daemon (`health`: 0 ok,
1 warning, 2 error). It has to start, ask and print in some 50 ms, so what one verb alone needs is imported by that verb.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, NoReturn, get_type_hints

from cryptod import streams
from cryptod.errors import ConfigError, CryptodError, DaemonUnreachable, MissingPackage
from cryptod.places import socket_of
from cryptod.protocol import (
    COMMANDS,
    DEFAULT_SOCKET,
    EVENT_TOPICS,
    EXPORTS,
    JOB_KINDS,
    LOG_LEVELS,
    NEWS,
    PERIODIC_JOBS,
    TOP_KEYS,
    WINDOWS,
)
from ctl import jobs, render
from ctl.heard import Heard
from ctl.session import Session
from ctl.terminal import Screen, clean, screen, wrap

DONE, REFUSED, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
HEALTH_CODES: Final = {"ok": 0, "warning": 1, "error": 2}


class Usage(Exception):
    """The command line is wrong: the sentence, and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)


class Verb(NamedTuple):
    """One row: the words, the command of the protocol, what is done with its parameters, and more options."""

    words: str
    command: str
    run: Callable[[Session, tuple[Any, ...]], int]
    doc: str = ""
    options: tuple[tuple[str, dict[str, Any]], ...] = ()
    least: int = 0
    """How many symbols have to be named."""
    timeout: float = 10.0
    """Seconds after which an answer is given up."""


def _page(command: str, draw: Callable[[Any, Screen, int], list[str]]) -> Callable[[Session, tuple[Any, ...]], int]:
    """Ask one command and show its reply."""

    def run(session: Session, parameters: tuple[Any, ...]) -> int:
        reply = session.client.call(command, *parameters)
        session.show(reply, lambda: draw(reply, session.screen, session.now()))
        return DONE

    return run


def _ping(session: Session, parameters: tuple[Any, ...]) -> int:
    session.client.call("ping")  # the first includes connecting
    start = time.perf_counter()
    reply = session.client.call("ping")
    seconds = time.perf_counter() - start
    session.show(reply, lambda: render.ping(reply, session.screen, seconds))
    return DONE


def _health(session: Session, parameters: tuple[Any, ...]) -> int:
    reply = session.client.call("health")
    session.show(reply, lambda: render.health(reply, session.screen, session.now()))
    return HEALTH_CODES.get(reply["severity"], 2)


def _get(session: Session, parameters: tuple[Any, ...]) -> int:
    from ctl.render import forecast

    return _forecasts(session, parameters[0], lambda reply: forecast(reply, session.screen, all_horizons=session.options.all))


def _plot(session: Session, parameters: tuple[Any, ...]) -> int:
    from ctl.plot import HISTORY, plot

    symbols = parameters[0]
    if session.options.out is not None:
        return _picture(session, symbols)

    def draw(reply: Any) -> list[str]:
        return plot(reply, session.screen, session.client.call("candles", reply["symbol"], HISTORY))

    return _forecasts(session, symbols, draw)


def _picture(session: Session, symbols: list[str]) -> int:
    from pathlib import Path

    from ctl import picture

    path = Path(session.options.out)
    if path.suffix.lower() not in picture.KINDS:
        raise Usage(f"--out {path} ends neither in .svg nor in .png", "the ending says what is drawn")
    if len(symbols) != 1:
        raise Usage("--out takes one coin", f"{len(symbols)} are named")
    reply = session.client.call("get", symbols[0])
    picture.write(path, reply, session.client.call("candles", reply["symbol"], picture.HISTORY))
    session.show(reply, lambda: [f"{reply['symbol']} is drawn in {path}"])
    return DONE


def _forecasts(session: Session, symbols: list[str], draw: Callable[[Any], list[str]]) -> int:
    """One coin: its forecast. Several: a block each, and on standard error those that were refused."""
    if len(symbols) == 1:
        reply = session.client.call("get", symbols[0])
        session.show(reply, lambda: draw(reply))
        return DONE
    reply = session.client.call("get_many", symbols)
    if reply["forecasts"] or session.options.json:
        session.show(reply, lambda: ["\n\n".join("\n".join(draw(forecast)) for forecast in reply["forecasts"])])
    for error in reply["refused"].values():
        session.say(f"{error['message']} ({error['hint']})" if error.get("hint") else error["message"])
    return REFUSED if reply["refused"] else DONE


def _watch(session: Session, parameters: tuple[Any, ...]) -> int:
    if session.options.json or not (session.screen.live and sys.stdin.isatty()):
        raise Usage("watch draws on a terminal", "`cryptoctl status` prints the same, and `--json` makes one document of it")
    session.client.call("status")  # a daemon that is not there is said at once, and not waited for
    session.client.close()
    try:
        from ctl.watch import watch
    except ImportError:
        raise MissingPackage("watch needs", "rich") from None
    watch(session.client.path)
    return DONE


def _top(session: Session, parameters: tuple[Any, ...]) -> int:
    _, by, horizon = parameters
    reply = session.client.call("top", *parameters)
    session.show(reply, lambda: render.top(reply, session.screen, session.now(), by=by, horizon=horizon))
    return DONE


def _symbols(session: Session, parameters: tuple[Any, ...]) -> int:
    reply = session.client.call("symbols")
    names = [coin["symbol"] for coin in reply["followed"]]
    session.show(reply, lambda: names if session.options.names else render.symbols(reply, session.screen, session.now()))
    return DONE


def _scores(session: Session, parameters: tuple[Any, ...]) -> int:
    from ctl.scores import scores

    reply = session.client.call("scores", *parameters)
    options = session.options
    session.show(reply, lambda: scores(reply, session.screen, session.now(), all_horizons=options.all, coins=options.coins))
    return DONE


def _report(session: Session, parameters: tuple[Any, ...]) -> int:
    from pathlib import Path

    from ctl import files

    reply = session.client.call("report", *parameters)
    if session.options.out == "-":
        sys.stdout.write(reply["html"])
        return DONE
    path = Path(session.options.out)
    with files.written(path) as stream:
        stream.write(reply["html"].encode())
    session.show({"path": str(path), "bytes": path.stat().st_size}, lambda: [render.written(path, session.screen)])
    return DONE


def _jobs(session: Session, parameters: tuple[Any, ...]) -> int:
    reply = session.client.call("jobs", *parameters)

    def draw() -> list[str]:
        collecting = jobs.collecting(session.client.call("status")["exchange"], 20)  # what the first training waits for
        return [*jobs.jobs(reply, session.screen, session.now()), *(["", collecting] if collecting else [])]

    session.show(reply, draw)
    return DONE


def _train(session: Session, parameters: tuple[Any, ...]) -> int:
    if session.options.follow:
        from ctl.follow import follow

        return follow(session, parameters[0])
    return _page("train", jobs.enqueued)(session, parameters)


def _events(session: Session, parameters: tuple[Any, ...]) -> int:
    from ctl.events import follow

    return follow(session, *parameters)


def _export(session: Session, parameters: tuple[Any, ...]) -> int:
    from ctl.export import export

    what, symbols, since, until, _ = parameters
    return export(session, what, symbols, since, until)


def _backup(session: Session, parameters: tuple[Any, ...]) -> int:
    from ctl.backup import backup

    return backup(session, session.options.file)


def _restore(session: Session, parameters: tuple[Any, ...]) -> int:
    from ctl.backup import restore

    return restore(session, session.options.file)


def _metrics(session: Session, parameters: tuple[Any, ...]) -> int:
    from ctl import files, metrics

    options = session.options
    if options.http:
        from ctl import scrape

        scrape.serve(session.client, [name.lower() for name in options.host])
        return DONE
    data, error = metrics.now(session.client, "prometheus" if options.textfile else options.format)
    if options.textfile:
        with files.written(options.textfile, "the metrics", 0o644) as stream:
            stream.write(data)
    if error is not None:
        raise error
    if not options.textfile:
        sys.stdout.write(data.decode())
    return DONE


def _row(command: str) -> Callable[[Session, tuple[Any, ...]], int]:
    return _page(command, lambda reply, screen, now: render.schedule([reply], screen, now))


def _add(session: Session, parameters: tuple[Any, ...]) -> int:
    if session.options.follow:
        from ctl.follow import follow_coin

        return follow_coin(session, parameters[0])
    return _page("symbols_add", render.added)(session, parameters)


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


VERBS: Final = {
    verb.words: verb
    for verb in (
        Verb("status", "status", _page("status", render.status)),
        Verb("health", "health", _health),
        Verb(
            "get", "get_many", _get, "The forecast of a coin, or of several: the ranges of its price over the next hours.",
            (("--all", {"action": "store_true", "help": "every hour ahead, not only 1, 2, 4, 8, 12 and 24"}),), least=1,
        ),
        Verb(
            "plot", "get_many", _plot, "The last candles of a coin and its forecast, drawn.",
            (("--out", {"metavar": "FILE", "help": "a picture instead: FILE.svg, or FILE.png (with Pillow)"}),), least=1,
        ),
        Verb("top", "top", _top),
        Verb("watch", "status", _watch, "Everything on the whole screen, live: coins, training, processes, conditions, log."),
        Verb(
            "scores", "scores", _scores,
            options=(
                ("--all", {"action": "store_true", "help": "every hour ahead, not only 1, 2, 4, 8, 12 and 24"}),
                ("--coins", {"action": "store_true", "help": "a line for each coin, the least skill first"}),
            ),
            timeout=300.0,
        ),
        Verb(
            "report", "report", _report,
            options=(
                ("--out", {"metavar": "FILE", "default": "cryptod.html", "help": "- for standard output (default: %(default)s)"}),
            ),
            timeout=300.0,
        ),
        Verb(
            "symbols", "symbols", _symbols,
            options=(("--names", {"action": "store_true", "help": "only the names of the coins that are followed, one a line"}),),
        ),
        Verb(
            "symbols add", "symbols_add", _add,
            options=(("--follow", {"action": "store_true", "help": "stay until it is forecast, and exit with 1 if it cannot be"}),),
        ),
        Verb("symbols remove", "symbols_remove", _page("symbols_remove", render.removed)),
        Verb(
            "train", "train", _train,
            options=(("--follow", {"action": "store_true", "help": "stay, show the progress, and exit with 1 if it fails"}),),
        ),
        Verb("log lines", "log_lines", _page("log_lines", render.log_lines)),
        Verb("jobs", "jobs", _jobs),
        Verb("cancel", "cancel", _page("cancel", jobs.cancelled)),
        Verb("schedule", "schedule", _page("schedule", render.schedule)),
        Verb("schedule pause", "schedule_pause", _row("schedule_pause")),
        Verb("schedule resume", "schedule_resume", _row("schedule_resume")),
        Verb("schedule run", "schedule_run", _row("schedule_run")),
        Verb("models list", "models", _page("models", render.models)),
        Verb("models rollback", "models_rollback", _page("models_rollback", render.rolled_back)),
        Verb("models pin", "models_pin", _page("models_pin", render.models)),
        Verb("models unpin", "models_unpin", _page("models_unpin", render.models)),
        Verb("cache stats", "cache_stats", _page("cache_stats", render.cache_stats)),
        Verb("cache pregenerate", "cache_pregenerate", _page("cache_pregenerate", render.cache_pregenerate), timeout=300.0),
        Verb("cache clear", "cache_clear", _page("cache_clear", render.cache_clear)),
        Verb(
            "export", "export", _export, "A table, of all coins or of some: the forecasts, the ledger, the candles or the scores.",
            (
                ("--format", {"choices": ("csv", "json", "parquet"), "default": "csv", "help": "json: a document a line (default: csv)"}),
                ("--output", {"metavar": "FILE", "help": "write this file, whole or not at all, instead of standard output"}),
            ),
            timeout=60.0,
        ),
        Verb(
            "backup", "backup", _backup, "The whole state of the daemon in one file, taken while it runs.",
            (("file", {"metavar": "FILE", "help": "a new file, or - for standard output; readable by you alone"}),),
            timeout=3600.0,
        ),
        Verb(
            "restore", "ping", _restore, "Put a backup back, while the daemon is stopped; what was there is kept aside.",
            (("file", {"metavar": "FILE", "help": "a file that `cryptoctl backup` made"}),),
        ),
        Verb(
            "metrics", "status", _metrics, "What monitoring wants to know, as OpenMetrics.",
            (
                ("--format", {"choices": ("openmetrics", "prometheus"), "default": "openmetrics",
                              "help": "prometheus: the older text, which `promtool check metrics` reads (default: openmetrics)"}),
                ("--textfile", {"metavar": "PATH", "help": "replace this file instead, for node_exporter's textfile collector"}),
                ("--http", {"action": "store_true", "help": "answer one scrape on standard input, a socket (cryptod-metrics.socket)"}),
                ("--host", {"metavar": "NAME", "action": "append", "default": [],
                            "help": "with --http: a name, besides localhost, by which this machine may be asked"}),
            ),
        ),
        Verb(
            "events", "subscribe", _events, "What happens, as it happens: forecasts, jobs, conditions.",
            (("--count", {"metavar": "N", "type": _whole, "help": "end after so many"}),),
        ),
        Verb("log level", "log_level", _page("log_level", render.log_level)),
        Verb("ping", "ping", _ping),
    )
}  # fmt: skip
GROUPS: Final = {verb.split()[0] for verb in VERBS if " " in verb}


def _name(text: str) -> str:
    """A coin's name as it was typed, in capitals but for names like kBONK."""
    return text if text[:1].islower() and text != text.lower() else text.upper()


FIELDS: Final[dict[str, dict[str, Any]]] = {
    "symbols": {"metavar": "SYMBOL", "type": _name, "help": "a coin: BTC/USDT, btcusdt, btc-usdt or BTC"},
    "symbol": {"metavar": "SYMBOL", "type": _name, "help": "one coin: BTC/USDT, btcusdt, btc-usdt or BTC"},
    "window": {"choices": tuple(WINDOWS), "help": "the last 7, 30 or 90 days (default: %(default)s)"},
    "kind": {"choices": JOB_KINDS, "help": "incremental: a timid update of the current models; full: new ones from months of candles"},
    "count": {"metavar": "N", "help": "how many (default: %(default)s)"},
    "by": {"choices": TOP_KEYS, "help": "what to rank by (default: %(default)s)"},
    "horizon": {"metavar": "HOURS", "help": "for how many hours ahead (default: %(default)s)"},
    "limit": {"metavar": "N", "help": "how many (default: %(default)s)"},
    "job": {"metavar": "ID", "help": "the number that `cryptoctl jobs` shows"},
    "name": {"metavar": "NAME", "help": f"a periodic job: {', '.join(PERIODIC_JOBS[:-1])} or {PERIODIC_JOBS[-1]}"},
    "what": {"choices": EXPORTS, "help": "forecasts: what is served now; ledger: all that was issued; scores: how each issue did; candles"},
    "since": {"metavar": "WHEN", "type": str, "help": "from then on: 2026-03-01, 2026-03-01T12:00 (UTC), 7d or 36h ago"},
    "until": {"metavar": "WHEN", "type": str, "help": "up to then, and without it"},
    "after": {"help": argparse.SUPPRESS},
    "token": {"help": argparse.SUPPRESS},
    "offset": {"help": argparse.SUPPRESS},
    "topics": {"metavar": "TOPIC", "help": f"{', '.join(EVENT_TOPICS)} (default: {', '.join(NEWS)}; coins: each forecast itself)"},
    "level": {"choices": LOG_LEVELS, "help": "from which level on"},
    "steps": {"metavar": "N", "help": "how many promotions (default: %(default)s)"},
}
"""How the parameters of the protocol look on the command line; their types and defaults are the protocol's."""
POSITIONAL: Final = {"count", "symbol"}
"""Parameters with a default that are written without an option's name all the same: `top 5`."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Usage(message.removeprefix("argument "), f"`{self.prog} --help` shows what it takes")


def parser(verb: Verb) -> argparse.ArgumentParser:
    """The arguments of one verb, from the parameters of its command."""
    command = COMMANDS[verb.command]
    width = screen(sys.stdout, os.environ).width - 2  # argparse would find it out with a module that takes as long to load as all of this
    made = _Parser(
        prog=f"cryptoctl {verb.words}", description=verb.doc or command.doc, allow_abbrev=False,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=width),
    )  # fmt: skip
    hints = get_type_hints(command.request)
    for field in command.request._fields:
        words = {"type": _whole if hints[field] is int else str, **FIELDS[field]}
        if hints[field] not in (int, str, str | None):
            made.add_argument(field, **({"nargs": "+"} if verb.least else {"nargs": "*", "default": None}), **words)
        elif field not in command.request._field_defaults:
            made.add_argument(field, **words)
        elif field in POSITIONAL:
            made.add_argument(field, nargs="?", default=command.request._field_defaults[field], **words)
        else:
            made.add_argument(f"--{field}", default=command.request._field_defaults[field], **words)
    for name, words in verb.options:
        made.add_argument(name, **words)
    made.add_argument("--json", action="store_true", help="the daemon's reply as one JSON document")
    made.add_argument("--instance", metavar="INSTANCE", help="the daemon of this name: `cryptod@INSTANCE.service`")
    made.add_argument("--socket", metavar="PATH", help="the daemon's socket")
    return made


def usage() -> str:
    """The page of `cryptoctl --help`."""
    wide = max(len(words) for words in VERBS) + 2
    lines = ["usage: cryptoctl [--json] [--instance INSTANCE | --socket PATH] VERB ...", "", "Asks the cryptod daemon on its socket.", ""]
    for verb in VERBS.values():
        first, *rest = wrap(verb.doc or COMMANDS[verb.command].doc, 78 - wide)
        lines += [f"  {verb.words:<{wide}}{first}", *(" " * (wide + 2) + line for line in rest)]
    lines += [
        "",
        "`cryptoctl VERB --help` shows what a verb takes.",
        "`--json` gives the daemon's reply as it is, as one JSON document.",
        "The daemon: --socket or --instance, or $CRYPTOD_SOCKET, or $CRYPTOD_INSTANCE,",
        f"else your own if it runs, else the system's, {DEFAULT_SOCKET}.",
        "Exit codes: 0 done, 1 refused, 2 wrong usage, 3 no daemon;",
        "those of `health`: 0 ok, 1 warning, 2 error.",
    ]
    return "\n".join(lines)


def split(arguments: Sequence[str]) -> tuple[Verb, list[str]]:
    """The verb of a command line, and what remains for its parser; options for all verbs may stand before it."""
    rest = list(arguments)
    before: list[str] = []
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("--socket", "--instance"):
            if not rest:
                raise Usage(f"{option} wants a {'path' if option == '--socket' else 'name'}")
            before += [option, rest.pop(0)]
        elif option == "--json" or option.startswith(("--socket=", "--instance=")):
            before.append(option)
        else:
            raise Usage(f"there is no option {option}", "`cryptoctl --help` lists the verbs, and `cryptoctl VERB --help` their options")
    if not rest:
        raise Usage("which verb?", "`cryptoctl --help` lists them")
    words = rest.pop(0)
    if words in GROUPS:
        parts = [verb.split()[1] for verb in VERBS if verb.startswith(f"{words} ")]
        if rest and not rest[0].startswith("-"):
            words = f"{words} {rest.pop(0)}"
        elif words not in VERBS:
            raise Usage(f"{words} what?", f"one of {', '.join(parts)}")
    if words not in VERBS:
        raise Usage(f"there is no verb {words!r}", _meant(*words.rpartition(" ")))
    return VERBS[words], before + rest


def _meant(group: str, gap: str, last: str) -> str:
    """What a verb that there is not may have been, among those that begin with the same word, or among the first words."""
    from difflib import get_close_matches

    found = (
        [verb.removeprefix(group + gap) for verb in VERBS if verb.startswith(group + gap)] if group else {verb.split()[0] for verb in VERBS}
    )
    if near := get_close_matches(last.lower(), found, n=1, cutoff=0.6):
        return f"did you mean {group}{gap}{near[0]}?"
    return f"{group} what? one of {', '.join(found)}" if group else "`cryptoctl --help` lists them"


def run(arguments: Sequence[str]) -> int:
    """Carry out one command line; errors are raised."""
    if arguments and arguments[0] in ("-h", "--help", "help"):
        sys.stdout.write(parser(split(arguments[1:])[0]).format_help() if len(arguments) > 1 else usage() + "\n")
        return DONE
    if list(arguments) == ["--version"]:
        from cryptod import __version__

        sys.stdout.write(f"cryptoctl {__version__}\n")
        return DONE
    verb, rest = split(arguments)
    options = parser(verb).parse_args(rest)
    given = (getattr(options, field) for field in COMMANDS[verb.command].request._fields)
    parameters = tuple(None if value == [] else value for value in given)  # no coin named: all of them
    if options.socket and options.instance:
        raise Usage("--socket and --instance both say which daemon", "give one of them")
    try:
        path = socket_of(options.socket or None, options.instance, os.environ, os.geteuid())
    except ConfigError as error:
        raise Usage(error.message, error.hint) from None
    with Heard(path, timeout=verb.timeout) as client:
        client.exact = options.json
        return verb.run(Session(client, options, screen(sys.stdout, os.environ)), parameters)


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line and say what went wrong; returns the exit code."""
    streams.ensure()
    for stream in (sys.stdout, sys.stderr):
        if (stream.encoding or "").lower().replace("-", "") != "utf8" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        try:
            code = run(sys.argv[1:] if arguments is None else arguments)
        except Usage as error:
            sys.stderr.write(f"cryptoctl: {clean(str(error))}\n")
            code = USAGE
        except DaemonUnreachable as error:
            sys.stderr.write(f"cryptoctl: {clean(str(error))}\n")
            code = UNREACHABLE
        except CryptodError as error:
            sys.stderr.write(f"cryptoctl: {clean(str(error))}\n")
            code = REFUSED
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has seen enough; the interpreter would complain when it flushes
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return INTERRUPTED
