"""The settings: every key of the configuration, once, with its meaning, the reason for its default and what is allowed.

The documented ``etc/cryptod.toml``, the error texts, ``cryptod check-config`` and what a reload may change are all made
from this table. Knows the vocabulary and the errors; where values come from is the business of `cryptod.config`.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from cronsim import CronSim, CronSimError

from cryptod.errors import DataError
from cryptod.market import MAX_HORIZON, parse_symbol
from cryptod.protocol import DEFAULT_SOCKET

Check = Callable[[Any], str]
"""Says what is wrong with a value of the right type; an empty string when nothing is."""


def _matching(pattern: str) -> Check:
    return lambda value: "" if re.fullmatch(pattern, value, re.ASCII) else "is not of that form"


def _exchange(value: str) -> str:
    """ccxt is not imported: its exchanges are the files of a folder. Without ccxt nothing can be said."""
    if not re.fullmatch("[a-z0-9_]{2,32}", value, re.ASCII):
        return "is not of that form"
    found = find_spec("ccxt")
    folders = (found.submodule_search_locations or []) if found else []
    known = [file.stem for folder in folders for file in Path(folder, "async_support").glob("[!_]*.py")]
    if not known or value in known:
        return ""
    close = difflib.get_close_matches(value, known, n=1, cutoff=0.6)
    return "ccxt has no exchange of that name" + (f" (did you mean {close[0]}?)" if close else "")


def _cron(value: str) -> str:
    if len(value.split()) != 5:
        return "has not the five fields minute, hour, day, month, weekday"
    try:
        next(CronSim(value, datetime(2024, 1, 1, tzinfo=UTC)))
    except CronSimError as error:
        return f"is no cron expression ({error})"
    except StopIteration:
        return "never comes due"
    return ""


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return "is no URL"
    if not value or (sound and value.isprintable() and " " not in value and not parts.username and not parts.query and not parts.fragment):
        return ""
    return "is no http or https URL of a host"


def _proxy(value: str) -> str:
    return "is no http URL, without user and password," if value.startswith("https:") or _url(value) else ""


def _path(value: str) -> str:
    if not value.startswith("/") or not value.isprintable():
        return "is no absolute path"
    return "must not contain '..'" if ".." in value.split("/") else ""


def _socket_path(value: str) -> str:
    return _path(value) or ("is longer than the 107 bytes that the kernel takes" if len(os.fsencode(value)) > 107 else "")


def _symbols(value: tuple[str, ...]) -> str:
    for symbol in value:
        try:
            parse_symbol(symbol)
        except DataError as error:
            return str(error)
    twice = sorted({symbol for symbol in value if value.count(symbol) > 1})
    return f"names {twice[0]} twice" if twice else ""


@dataclass(frozen=True, slots=True)
class Key:
    """What is said once about a key: its meaning, why the default is what it is, and what is allowed."""

    meaning: str
    why: str
    least: int = 0
    most: int = 0
    allowed: str = ""
    """In words; of numbers, booleans and choices the type says it."""
    check: Check | None = None
    live: bool = False
    """A running daemon takes a change of it on SIGHUP, without a restart."""


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


PERPETUALS: Final = ("binance", "bybit", "dydx", "gate", "hyperliquid", "kucoin", "okx")
"""Exchanges whose perpetual futures can be followed: the unit of their candles' volumes is known."""


class Exchange(_Section, frozen=True):
    """Where the candles come from. Public data only: no key, no account."""

    id: Annotated[
        str,
        Key(
            "ccxt's name of the exchange.",
            "most pairs, most volume",
            check=_exchange,
            allowed="an id of ccxt, as in binance",
        ),
    ] = "binance"
    market: Annotated[
        Literal["spot", "swap"],
        Key(
            "Spot pairs, or perpetual futures settled in the quote currency (BTC/USDT:USDT). Funding is not forecast.",
            "most exchanges, most history",
        ),
    ] = "spot"
    quote: Annotated[
        str,
        Key(
            "Quote currency: coins are followed against it.",
            "deepest markets",
            check=_matching("[A-Z0-9]{2,10}"),
            allowed="2 to 10 capitals or digits",
        ),
    ] = "USDT"
    url: Annotated[
        str,
        Key(
            "Another address for the exchange's API: a proxy, or `cryptod simulate`. Empty: the exchange's own.",
            "the real exchange",
            allowed='an http or https URL, or ""',
            check=_url,
        ),
    ] = ""
    proxy: Annotated[
        str,
        Key(
            "An HTTP proxy that the exchange is asked through. Empty: the one that HTTPS_PROXY, HTTP_PROXY and NO_PROXY of the"
            " environment name, if any, unless exchange.url is on this machine. Under systemd the environment names none.",
            "most machines have none",
            allowed='an http URL, or ""',
            check=_proxy,
            live=True,
        ),
    ] = ""


class Universe(_Section, frozen=True):
    """Which coins are followed: the largest by quote volume; stablecoins, leveraged, wrapped and pegged tokens never."""

    size: Annotated[
        int, Key("Coins to follow.", "100 train in minutes and fit in 1 GB; below them volumes are thin", least=1, most=10_000, live=True)
    ] = 100
    include: Annotated[
        tuple[str, ...],
        Key(
            "Coins that are followed whatever their volume.",
            "volume alone decides",
            allowed='a list as in ["BTC/USDT"]',
            check=_symbols,
            live=True,
        ),
    ] = ()
    exclude: Annotated[
        tuple[str, ...],
        Key("Coins that are never followed.", "volume alone decides", allowed='a list as in ["LUNA/USDT"]', check=_symbols, live=True),
    ] = ()


class Market(_Section, frozen=True):
    """The grid of time."""

    timeframe: Annotated[Literal["1h"], Key("Length of a candle.", "what the features are made for")] = "1h"
    horizons: Annotated[
        int, Key("Forecasts reach 1, 2, ... this many hours ahead.", "a day; beyond it skill is hard to show", least=1, most=MAX_HORIZON)
    ] = MAX_HORIZON


class Train(_Section, frozen=True):
    """Training from scratch: what the full retrain does."""

    batch_size: Annotated[
        int,
        Key(
            "Coins that share one network and are trained together.",
            "4 batches of the 100 coins; memory stays small",
            least=1,
            most=200,
            live=True,
        ),
    ] = 25
    months_back: Annotated[
        int,
        Key(
            "Months of candles that are kept and trained on; a coin younger than 45 days is not trained.",
            "a half year holds calm and storm, and is soon fetched",
            least=2,
            most=24,
            live=True,
        ),
    ] = 6
    epochs: Annotated[
        int,
        Key(
            "Passes over the data; training stops earlier when nothing is gained.",
            "later passes gain nothing",
            least=1,
            most=1000,
            live=True,
        ),
    ] = 50


class Forecast(_Section, frozen=True):
    """What forecasts are made with."""

    serve: Annotated[
        Literal["model", "random_walk", "ewma", "ewma_season", "log_har"],
        Key(
            "Who serves: the model, but for coins on which a reference is clearly better; or everywhere one of the references, which are "
            "simpler and go on being trained and judged beside it.",
            "it was better than each of them in every month that it was tried on",
        ),
    ] = "model"
    base_model: Annotated[
        bool,
        Key(
            "Whether coins that have no model of their own yet are served by the one that came with the program.",
            "a new coin is forecast with a week of candles instead of 45 days and a retrain",
        ),
    ] = True


class Incremental(_Section, frozen=True):
    """The update in between: from the current weights, timid steps over the rolled window."""

    enabled: Annotated[bool, Key("Whether it runs by itself.", "models age within a day", live=True)] = True
    epochs: Annotated[int, Key("Passes over the data.", "follows the market without forgetting", least=1, most=100, live=True)] = 5
    schedule: Annotated[
        str,
        Key(
            "When, as a cron expression in UTC.",
            "every six hours",
            allowed='five cron fields, as in "0 */6 * * *"',
            check=_cron,
            live=True,
        ),
    ] = "0 */6 * * *"


class FullRetrain(_Section, frozen=True):
    """The retrain of everything. Forecasts are generated before it for the time that it takes, and anew after it."""

    enabled: Annotated[bool, Key("Whether it runs by itself.", "scalers and seasons drift", live=True)] = True
    schedule: Annotated[
        str,
        Key(
            "When, as a cron expression in UTC.",
            "the quietest hours of the week",
            allowed='five cron fields, as in "0 2 * * 0"',
            check=_cron,
            live=True,
        ),
    ] = "0 2 * * 0"


class PredictionCache(_Section, frozen=True):
    """Rendered forecasts, in memory and on disk: a cached answer takes microseconds and survives a restart."""

    enabled: Annotated[bool, Key("Whether answers come from the cache; otherwise each is computed.", "ten times faster")] = True
    ttl_hours: Annotated[
        int, Key("Hours after which a cached forecast is computed anew.", "a new candle closes every hour", least=1, most=24, live=True)
    ] = 1
    pregenerate_ttl_hours: Annotated[
        int, Key("The same for forecasts generated before a full retrain.", "outlasts the slowest retrain", least=1, most=48, live=True)
    ] = 24


class Storage(_Section, frozen=True):
    """What is kept, and where."""

    directory: Annotated[
        str,
        Key(
            "Folder of candles, forecasts, ledger and checkpoints. At its default a user's own daemon and an instance have theirs instead.",
            "systemd's StateDirectory",
            allowed="an absolute path",
            check=_path,
        ),
    ] = "/var/lib/cryptod"
    ledger_days: Annotated[
        int, Key("Days for which issued forecasts are kept.", "a year of 100 coins is below 1 GB", least=1, most=3650, live=True)
    ] = 365


class Socket(_Section, frozen=True):
    """The Unix socket. Whoever may connect may read; root, the service's user and the group below may change things."""

    path: Annotated[
        str,
        Key(
            "Where the daemon listens when systemd does not hand it a socket. At its default a user's own daemon and an instance"
            " have theirs instead.",
            "what cryptod.socket says too",
            allowed="an absolute path of at most 107 bytes",
            check=_socket_path,
        ),
    ] = DEFAULT_SOCKET
    group: Annotated[
        str,
        Key(
            "Members of this group may train, cancel, clear and roll back. Empty: only root and the service's user.",
            "no one else",
            check=_matching("([a-z_][a-z0-9_-]{0,31})?"),
            allowed='the name of a group, or ""',
        ),
    ] = ""


class Worker(_Section, frozen=True):
    """The children that collect and train. A change holds from the next child on."""

    nice: Annotated[
        int, Key("Their nice level; their disk access is of the idle class in any case.", "answers come first", least=0, most=19, live=True)
    ] = 19
    memory_mb: Annotated[
        int,
        Key(
            "Megabytes of memory (PSS) that a child may hold; one that holds more is ended.",
            "leaves a 1 GB machine room; a full retrain takes about 320, with the CUDA build of torch 640",
            least=400,
            most=65_536,
            live=True,
        ),
    ] = 700
    threads: Annotated[
        int,
        Key(
            "Threads that training uses; 0 is one for each core.",
            "the networks are too small to gain from more, and threads that wait for each other on a busy machine lose much",
            least=0,
            most=256,
            live=True,
        ),
    ] = 1
    deadline_minutes: Annotated[
        int, Key("Minutes after which a child that still runs is ended.", "a full retrain takes minutes", least=1, most=1440, live=True)
    ] = 120


class Log(_Section, frozen=True):
    """What is said in the journal."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Key("The least severe messages that are kept.", "a few lines an hour", live=True)
    ] = "info"


class Config(_Section, frozen=True):
    """The whole tree; the names of its sections are the tables of the file."""

    exchange: Exchange = Exchange()
    universe: Universe = Universe()
    market: Market = Market()
    forecast: Forecast = Forecast()
    train: Train = Train()
    incremental: Incremental = Incremental()
    full_retrain: FullRetrain = FullRetrain()
    prediction_cache: PredictionCache = PredictionCache()
    storage: Storage = Storage()
    socket: Socket = Socket()
    worker: Worker = Worker()
    log: Log = Log()


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the tree and all that is known about it."""

    section: str
    name: str
    type: Any
    default: Any
    key: Key

    @property
    def path(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def variable(self) -> str:
        return f"CRYPTOD_{self.section}_{self.name}".upper()

    @property
    def kind(self) -> Any:
        """bool, int, str, tuple or Literal."""
        return get_origin(self.type) or self.type

    @property
    def allowed(self) -> str:
        if self.kind is Literal:
            return "one of " + ", ".join(map(toml, get_args(self.type)))
        if self.kind is bool:
            return "true or false"
        return f"{self.key.least} to {self.key.most}" if self.kind is int else self.key.allowed

    def value(self, config: Config) -> Any:
        return getattr(getattr(config, self.section), self.name)

    def convert(self, given: Any) -> Any:
        """The value, strictly typed. Raises ValueError with what is wrong with it beyond `allowed`."""
        value = msgspec.convert(given, self.type)
        if self.kind is int and not self.key.least <= value <= self.key.most:
            raise ValueError
        if self.key.check and (problem := self.key.check(value)):
            raise ValueError(problem)
        return value


def _settings() -> Iterator[Setting]:
    for section, kind in SECTIONS.items():
        hints = get_type_hints(kind, include_extras=True)
        for field_ in msgspec.structs.fields(kind):
            bare, key = get_args(hints[field_.name])
            yield Setting(section, field_.name, bare, field_.default, key)


def toml(value: Any) -> str:
    """A value in TOML's spelling."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return '"' + re.sub(r'["\\\x00-\x1f\x7f]', lambda hit: f"\\u{ord(hit[0]):04x}", value) + '"'
    return str(value)


SECTIONS: Final[dict[str, Any]] = {section.name: section.type for section in msgspec.structs.fields(Config)}
SETTINGS: Final = {setting.path: setting for setting in _settings()}
VARIABLES: Final = {setting.variable: setting for setting in SETTINGS.values()}
