"""The command ``cryptod``: run the daemon, check its configuration, restore a backup, live through past candles, simulate an exchange.

Nothing heavy is imported before it is known what is asked for. Exit codes: 0 done, 1 failed, 2 usage, 78 (EX_CONFIG) a wrong configuration.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptod import __version__, streams
from cryptod.errors import ConfigError, CryptodError
from cryptod.places import SYSTEM, Place, instance, of_daemon

SWITCH_S: Final = 0.00005
"""Seconds after which a thread that computes lets the one go on that answers: it may have to wait so three times for one request."""

RETRY_S: Final = 5.0
"""A daemon that cannot start ends only then: the unit starts it again at once, as often as it takes."""


def parser(verb: str) -> argparse.ArgumentParser:
    """The command line; what only ``verb`` takes is there for that verb alone, because it has to be imported."""
    made = argparse.ArgumentParser(prog="cryptod", description="Calibrated crypto price forecasts, always fresh, on a small machine.")
    made.add_argument("--version", action="version", version=f"cryptod {__version__}")
    verbs = made.add_subparsers(dest="verb", metavar="VERB", required=True)

    run = verbs.add_parser("run", help="run the daemon in the foreground (systemd does this)")
    _add_place(run)
    clock = os.environ.get("CRYPTOD_CLOCK", "system")
    run.add_argument("--clock", default=clock, metavar="SPEC", help="a simulated clock, as `cryptod simulate` prints it")
    run.add_argument("--base-model", type=Path, metavar="DIR", help="another base model than the one that came with the program")
    run.set_defaults(call=_run)

    check = verbs.add_parser("check-config", help="print the effective configuration and where each part of it came from")
    _add_place(check)
    check.set_defaults(call=_check_config)

    restore = verbs.add_parser("restore", help="put a backup back while the daemon is stopped; what was there is kept aside")
    restore.add_argument("file", type=Path, metavar="FILE", help="a file that `cryptoctl backup` made")
    restore.add_argument("--config", type=Path, metavar="PATH", help="configuration file (default: /etc/cryptod/cryptod.toml)")
    restore.set_defaults(call=_restore)

    simulate = verbs.add_parser("simulate", help="serve a simulated exchange on loopback")
    if verb == "simulate":
        from cryptod.simulator import command

        command.add_arguments(simulate)
        simulate.set_defaults(call=command.run)

    backtest = verbs.add_parser("backtest", help="live through past candles with the daemon's code, and score what it issues")
    if verb == "backtest":
        from cryptod.backtest import command as backtest_command

        backtest_command.add_arguments(backtest)
    return made


def _add_place(verb: argparse.ArgumentParser) -> None:
    usual = "/etc/cryptod/cryptod.toml; without root: ~/.config/cryptod/cryptod.toml"
    verb.add_argument("--config", type=Path, metavar="PATH", help=f"configuration file (default: {usual})")
    verb.add_argument("--instance", metavar="INSTANCE", help="the instance of this name: its configuration, its state, its socket")


def _place(arguments: argparse.Namespace) -> Place:
    """Whose folders the daemon uses where the configuration names no others."""
    named: str | None = arguments.instance
    return instance(named) if named is not None else of_daemon(os.environ, os.geteuid(), os.getpid())


def _config_path(arguments: argparse.Namespace) -> Path | None:
    named = arguments.config or os.environ.get("CRYPTOD_CONFIG")
    return Path(named) if named else None


def _check_config(arguments: argparse.Namespace) -> int:
    from cryptod.config import check_config, load
    from cryptod.ingest import tried  # loads ccxt, which the daemon does not

    place = _place(arguments)
    if place.whose != SYSTEM.whose:
        print(f"# of {place.whose}; `sudo cryptod check-config` shows the system's")
    loaded = load(_config_path(arguments), os.environ, place)
    exchange = loaded.config.exchange
    warnings = (*loaded.warnings, *tried.check(exchange.id, exchange.market))
    print(check_config(replace(loaded, warnings=warnings)), end="")
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    from cryptod.clock import SystemClock
    from cryptod.config import load
    from cryptod.daemon import statedir

    root = Path(load(_config_path(arguments), os.environ).config.storage.directory)
    head, aside = statedir.restore(arguments.file, root, SystemClock().now())
    made = datetime.fromtimestamp(head["made"] / 1000, UTC)
    print(f"{arguments.file} of {made:%Y-%m-%d %H:%M} UTC is restored in {root}; what was there before is in {aside}")
    print("start the daemon: systemctl start cryptod")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    gc.disable()
    if os.getpid() == 1:  # a container's first process: until the loop has its own handler the kernel would drop the signal
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    from sdnotify import SystemdNotifier

    from cryptod import logs
    from cryptod.clock import parse_clock
    from cryptod.config import load
    from cryptod.daemon.handlers import Handlers
    from cryptod.daemon.loop import DirectLoop
    from cryptod.daemon.service import Service

    # `schedule` reckons in naive local time: in UTC no hour comes twice and none is left out.
    os.environ["TZ"] = "UTC"
    time.tzset()
    path, place = _config_path(arguments), _place(arguments)
    loaded = load(path, os.environ, place)
    logs.configure(loaded.config.log.level)
    for warning in loaded.warnings:
        logs.get_logger("config").warning(warning)
    service = Service(
        loaded, parse_clock(arguments.clock), Handlers, notifier=SystemdNotifier(), environ=os.environ, config_path=path,
        base=arguments.base_model, place=place,
    )  # fmt: skip
    # What is there now stays: a look through all of it would hold up the readers by ten milliseconds, each time for nothing.
    gc.freeze()
    gc.enable()
    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=DirectLoop) as runner:
        try:
            runner.run(service.run())
        except ConfigError as error:  # its files are sound: what is in the way may go by itself, and systemd is to try again
            raise CryptodError(error.message, hint=error.hint) from error
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script."""
    streams.ensure()
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = parser(given[0] if given else "").parse_args(given)
    try:
        code: int = parsed.call(parsed)
    except ConfigError as error:
        print(f"cryptod: {error.message}" + (f"\n  {error.hint}" if error.hint else ""), file=sys.stderr)
        return 78  # EX_CONFIG: the unit does not start it again
    except CryptodError as error:
        print(f"cryptod: {error.message}" + (f"\n  {error.hint}" if error.hint else ""), file=sys.stderr)
        if "NOTIFY_SOCKET" in os.environ:
            time.sleep(RETRY_S)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


if __name__ == "__main__":
    sys.exit(main())
