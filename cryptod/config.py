"""The configuration as it is read: from TOML, then from the environment; checked whole, and able to say where each value came from.

Knows `cryptod.settings`, the file and the environment that it is given. Only the service and ``__main__`` read the
configuration; every class below them takes plain values.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from cryptod.errors import ConfigError
from cryptod.places import SYSTEM, Place
from cryptod.settings import PERPETUALS, SECTIONS, SETTINGS, VARIABLES, Config, Setting, toml
from cryptod.symbol import split

__all__ = ["DEFAULT_PATH", "Config", "Loaded", "check_config", "documented", "load", "reloaded", "restart_needed"]

DEFAULT_PATH: Final = Path(SYSTEM.config)
MAX_BYTES: Final = 256 * 1024
"""A configuration file larger than this is not one (the documented one has about 8 kB)."""
_DEEP: Final = re.compile(r"^[ \t\[]*(?:[^\s.=#]+[ \t]*\.[ \t]*){8}", re.MULTILINE)
"""A dotted key or table name of more than eight parts."""
NOT_SETTINGS: Final = {
    "CRYPTOD_CANDLES": "folder of recorded candles, for tests and benchmarks",
    "CRYPTOD_CLOCK": "specification of a sped clock, for simulations",
    "CRYPTOD_CONFIG": "path of the configuration file",
    "CRYPTOD_INSTANCE": "instance that the client connects to",
    "CRYPTOD_SOCKET": "socket that the client connects to",
}
"""Variables that begin like settings and are none."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration and where it came from."""

    config: Config
    file: Path | None
    """The file that was read, if there was one."""
    origins: dict[str, str]
    """Path of each key that was set -> where: ``FILE:LINE`` or ``environment NAME``."""
    warnings: tuple[str, ...] = ()
    usual: Path = DEFAULT_PATH
    """The file that is read where no other is named."""


@dataclass(slots=True)
class _Reading:
    """Values found so far, and all that is wrong with them: an operator mends a file once, not key by key."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def take(self, setting: Setting, given: Any, origin: str) -> None:
        try:
            self.values[setting.path] = setting.convert(given)
            self.origins[setting.path] = origin
        except ValueError as error:  # msgspec's own says what the type is, as `allowed` does
            problem = "" if isinstance(error, msgspec.ValidationError) or not str(error) else f"{error}; it "
            self.problems.append(f"{setting.path} = {_shown(given)} ({origin}): {problem}must be {setting.allowed}")


def _tree(values: Mapping[str, Any]) -> Config:
    """The tree of the values by path; what is not among them stands at its default."""
    return Config(
        **{
            name: section(**{s.name: values[s.path] for s in SETTINGS.values() if s.section == name and s.path in values})
            for name, section in SECTIONS.items()
        }
    )


def load(path: Path | None, environ: Mapping[str, str], place: Place | None = None) -> Loaded:
    """The configuration from ``path`` and the environment, checked; ``place``: whose daemon it is for, by default the system's.

    Without a path the file is ``$CRYPTOD_CONFIG``, or else the place's own, which may be missing unless it is an instance's. Variables
    ``CRYPTOD_<SECTION>_<KEY>`` come after the file; lists are comma separated. Raises `ConfigError`, which names every
    wrong or misspelt key, its origin and what is allowed.
    """
    if path is None and environ.get("CRYPTOD_CONFIG"):
        path = Path(environ["CRYPTOD_CONFIG"])
    usual = DEFAULT_PATH if place is None else Path(place.config)
    hint = "name another with --config, or leave it out"
    if path is None and place is not None and place.required:
        path, hint = usual, f"each instance has a file of its own: copy {DEFAULT_PATH}, and say in it what is different"
    text, warnings = _read(path or usual, required=path is not None, hint=hint)
    file = None if text is None else path or usual
    reading = _Reading()
    if text is not None and file is not None:
        _take_file(reading, file, text)
    if place is not None:
        _take_place(reading, place)
    _take_environment(reading, environ)
    config = _tree(reading.values)
    reading.problems += [f"{text}{_where(reading, paths)}" for paths, text in _contradictions(config)]
    if reading.problems:
        count = len(reading.problems)
        heading = "the configuration has a problem" if count == 1 else f"the configuration has {count} problems"
        raise ConfigError(
            "\n  ".join([f"{heading}:", *reading.problems]),
            hint="`cryptod check-config` shows the tree, /etc/cryptod/cryptod.toml documents it",
        )
    return Loaded(config, file, reading.origins, warnings, usual)


def _take_place(reading: _Reading, place: Place) -> None:
    """The folders of a daemon that is not the system's: the documented file names the system's, and so does every copy of it."""
    for path, own in (("storage.directory", place.state), ("socket.path", place.socket)):
        default = SETTINGS[path].default
        if own != default and reading.values.get(path, default) == default:
            reading.values[path], reading.origins[path] = own, f"the usual place of {place.whose}"


def _contradictions(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Keys that are sound each by itself and not together: (their paths, what is wrong)."""
    universe, cache = config.universe, config.prediction_cache
    if len(universe.include) > universe.size:
        yield (
            ("universe.include", "universe.size"),
            f"universe.include names {len(universe.include)} coins, universe.size is {universe.size}",
        )
    for both in sorted(set(universe.include) & set(universe.exclude)):
        yield ("universe.include", "universe.exclude"), f"universe.include and universe.exclude both name {both}"
    exchange = config.exchange
    if exchange.market == "swap" and exchange.id not in PERPETUALS:
        yield (
            ("exchange.market", "exchange.id"),
            f'exchange.market = "swap" is known of {", ".join(PERPETUALS)}, and not of exchange.id = {toml(exchange.id)}',
        )
    for symbol in universe.include:
        _, quote, settle = split(symbol)
        if quote != exchange.quote or (settle and settle != quote):
            yield (
                ("universe.include", "exchange.quote"),
                f"universe.include names {symbol}, but coins are followed against exchange.quote = {toml(exchange.quote)}",
            )
        elif settle and exchange.market == "spot":
            yield (
                ("universe.include", "exchange.market"),
                f'universe.include names {symbol}, a perpetual future, but exchange.market = "spot"',
            )
    if cache.pregenerate_ttl_hours < cache.ttl_hours:
        yield (
            ("prediction_cache.pregenerate_ttl_hours", "prediction_cache.ttl_hours"),
            f"prediction_cache.pregenerate_ttl_hours = {cache.pregenerate_ttl_hours} must not be below ttl_hours = {cache.ttl_hours}",
        )


def _where(reading: _Reading, paths: tuple[str, ...]) -> str:
    origins = dict.fromkeys(reading.origins[path] for path in paths if path in reading.origins)
    return f" ({', '.join(origins)})" if origins else ""


def _read(path: Path, *, required: bool, hint: str) -> tuple[str | None, tuple[str, ...]]:
    """The text of the file (None when it may be and is missing), and warnings about who could change it."""
    try:
        with open(path, "rb", opener=_open_at_once) as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise ConfigError(f"the configuration {path} is not a regular file")
            raw = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        if not required and not path.is_symlink():
            return None, ()
        raise ConfigError(f"there is no configuration file {path}", hint=hint) from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"cannot read the configuration {path}: {reason}", hint="the service's user must be able to read it") from None
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"the configuration {path} is larger than {MAX_BYTES // 1024} kB")
    try:
        return raw.decode("utf-8-sig"), tuple(_exposure(path, facts))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"the configuration {path} is not UTF-8 at line {line}") from None


def _open_at_once(path: str, flags: int) -> int:
    """A FIFO in the file's place must not hang the start."""
    return os.open(path, flags | os.O_NONBLOCK)


def _exposure(path: Path, facts: os.stat_result) -> Iterator[str]:
    """Who besides root and this user could change the file: whoever can, can point the daemon at an exchange of theirs."""
    if facts.st_mode & stat.S_IWOTH:
        yield f"{path} can be changed by every user (mode {stat.S_IMODE(facts.st_mode):04o})"
    if facts.st_uid not in (0, os.geteuid()):
        yield f"{path} belongs to user {facts.st_uid}, neither root nor the service's user"
    for folder in dict.fromkeys((path.absolute().parent, path.resolve().parent)):
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            yield f"the folder {folder} can be changed by every user, and {path} with it"


def _take_file(reading: _Reading, file: Path, text: str) -> None:
    if _DEEP.search(text):  # a tree of two levels needs none, and tomllib takes quadratic time for them
        raise ConfigError(f"the configuration {file} is nested too deeply")
    try:
        tree = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError names the line; an integer of thousands of digits is a plain ValueError
        raise ConfigError(f"the configuration {file} is not TOML: {str(error)[:200]}") from None
    except RecursionError:
        raise ConfigError(f"the configuration {file} is nested too deeply") from None
    lines = _lines(text)
    for name, table in tree.items():
        if name not in SECTIONS:
            origin = f"{file}:{lines.get(name, lines.get('.' + name, 1))}"
            reading.problems.append(f"{_plain(name)} ({origin}): there is no such section{_meant(name, [*SECTIONS, *SETTINGS])}")
            continue
        if not isinstance(table, dict):
            reading.problems.append(f"{name} ({file}:{lines.get('.' + name, 1)}): must be a table, [{name}]")
            continue
        for key, value in table.items():
            path = f"{name}.{key}"
            origin = f"{file}:{lines.get(path, lines.get(name, 1))}"
            if path in SETTINGS:
                reading.take(SETTINGS[path], value, origin)
            else:
                reading.problems.append(f"{_plain(path)} ({origin}): there is no such key{_meant(path, list(SETTINGS))}")


def _lines(text: str) -> dict[str, int]:
    """Line numbers of ``section`` and ``section.key`` in the file; only for messages, so no TOML parser of its own."""
    found: dict[str, int] = {}
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([\w.-]+)\s*\]", line):
            section = header[1]
            found.setdefault(section, number)
        elif key := re.match(r"\s*([\w.-]+)\s*=", line):
            found.setdefault(f"{section}.{key[1]}" if section or "." not in key[1] else key[1], number)
    return found


def _take_environment(reading: _Reading, environ: Mapping[str, str]) -> None:
    for name in sorted(environ):
        if not name.startswith("CRYPTOD_") or name in NOT_SETTINGS:
            continue
        origin = f"environment {_plain(name)}"
        setting = VARIABLES.get(name)
        if setting is None:
            reading.problems.append(f"{origin}: there is no such variable{_meant(name, [*VARIABLES, *NOT_SETTINGS])}")
        else:
            reading.take(setting, _from_text(setting.kind, environ[name]), origin)


def _from_text(kind: Any, text: str) -> Any:
    """The typed value that an environment variable spells; the text itself when it spells none, to be refused with it."""
    if kind is bool:
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if kind is int:
        return int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else text
    if kind is tuple:
        return [part.strip() for part in text.split(",") if part.strip()]
    return text


def _meant(given: str, known: list[str]) -> str:
    """`` (did you mean X?)``; a key that stands in another section is found too."""
    same_key = [name for name in known if name.rpartition(".")[2] == given.rpartition(".")[2]]
    close = same_key or difflib.get_close_matches(given[:64], known, n=1, cutoff=0.6)
    return f" (did you mean {close[0]}?)" if close else ""


def _shown(value: Any) -> str:
    return _plain(toml(value) if isinstance(value, bool | int | str | list) else str(value))


def _plain(text: str) -> str:
    """Short, and without what could break a line of the journal or of a terminal."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text[:64])
    return text if len(text) < 64 else f"{text[:61]}..."


def check_config(loaded: Loaded) -> str:
    """The effective tree as TOML that could be a configuration file, each non-default with where it came from."""
    lines = [f"# file: {loaded.file or f'none ({loaded.usual} is not there)'}"]
    lines += [f"# warning: {warning}" for warning in loaded.warnings]
    for name in SECTIONS:
        lines += ["", f"[{name}]"]
        for setting in SETTINGS.values():
            if setting.section != name:
                continue
            value = setting.value(loaded.config)
            line = f"{setting.name} = {toml(value)}"
            if value != setting.default:
                line = f"{line:<32} # {loaded.origins[setting.path]}; default {toml(setting.default)}"
            lines.append(line)
    return "\n".join(lines) + "\n"


def restart_needed(old: Config, new: Config) -> tuple[list[str], list[str]]:
    """Paths of the keys that differ: those that a running daemon takes, and those that wait for a restart."""
    changed = [setting for setting in SETTINGS.values() if setting.value(old) != setting.value(new)]
    return [setting.path for setting in changed if setting.key.live], [setting.path for setting in changed if not setting.key.live]


def reloaded(old: Config, new: Config) -> Config:
    """What a daemon that runs with ``old`` goes on with when the files say ``new``: the live keys of it."""
    return _tree({s.path: s.value(new if s.key.live else old) for s in SETTINGS.values()})


def documented() -> str:
    """The text of ``etc/cryptod.toml``: every key with its meaning, what is allowed, the reason, at its default."""
    lines = [
        "# The configuration of cryptod: every key, each at its default. Read from /etc/cryptod/cryptod.toml, then from the",
        "# environment (CRYPTOD_<SECTION>_<KEY>, lists comma separated). `cryptod check-config` prints what is in force and",
        "# where it came from. A misspelt key or a value out of range stops the start. Keys marked [reload] are taken by",
        "# `systemctl reload cryptod`, the others at the next start.",
    ]
    for name, section in SECTIONS.items():
        lines += ["", "", *_comment(section.__doc__ or ""), f"[{name}]"]
        for setting in SETTINGS.values():
            if setting.section == name:
                note = f"Allowed: {setting.allowed}. Default because: {setting.key.why}.{' [reload]' if setting.key.live else ''}"
                lines += ["", *_comment(setting.key.meaning), *_comment(note), f"{setting.name} = {toml(setting.default)}"]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> list[str]:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > 116:
            lines.append("")
        lines[-1] += f" {word}"
    return [f"#{line}" for line in lines]
