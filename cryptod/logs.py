"""Logs: one unit of work, one line, one sentence, with fields.

Under systemd they go to journald by its native protocol, so that ``journalctl CRYPTOD_SYMBOL=BTC/USDT`` works;
elsewhere they are readable lines on standard error. Children use the same file and the same destination. Knows
structlog, the journal's datagram format and nothing of the daemon.

A log call never waits: the journal's socket is non-blocking and a stream is written only as far as it takes the
bytes at once. What could not be written is counted, and said with the next line that gets through.

    log = get_logger("training", job=12)
    log.info("batch trained", batch=2, duration=1.31)  # training: batch trained  job=12 batch=2 duration=1.31

Fields that begin a journal query (`journalctl CRYPTOD_JOB=12`) are those of the caller in capitals, with the prefix:
``symbol``, ``batch``, ``job``, ``model`` and ``duration`` (seconds) are the usual ones.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import stat
import struct
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn, Protocol, TextIO

from cryptod.clock import SystemClock
from cryptod.errors import ConfigError

# structlog's console renderer imports rich wherever it finds it: 60 ms and 5 MB in every process of the daemon, for a
# renderer that is not used here. The import sees no rich, everyone else does.
_rich_is_loaded = "rich" in sys.modules
if not _rich_is_loaded:
    sys.modules["rich"] = None  # type: ignore[assignment]
try:
    import structlog
finally:
    if not _rich_is_loaded:
        del sys.modules["rich"]

LEVELS: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""Our levels and the journal's priorities (syslog's: a smaller number is graver)."""
PERSONAL: Final = ("uid", "pid")
"""Fields that say which user's process did something."""
KEPT: Final = 200
"""Lines kept in memory for `recent`."""
JOURNAL: Final = "/run/systemd/journal/socket"
IDENTIFIER: Final = "cryptod"
_MAX_DATAGRAM: Final = 128 * 1024
"""Above this a message goes as a sealed memory file at once; the socket's buffer may force it earlier."""
_MAX_VALUE: Final = 48 * 1024
"""Characters of one field; a longer one is cut, and says so."""
_PIPE: Final = select.PIPE_BUF
_COLOURS: Final = {"debug": "2", "info": "", "warning": "33", "error": "31", "critical": "1;31"}
_STDLIB: Final = ((logging.CRITICAL, "critical"), (logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))


class Line(NamedTuple):
    """One log line. ``time``: UTC epoch milliseconds; ``logger``: the part that speaks; ``trace``: a traceback or nothing."""

    time: int
    level: str
    logger: str
    text: str
    fields: dict[str, Any]
    trace: str

    @property
    def sentence(self) -> str:
        """What is said and by which part, without control characters."""
        return escape(f"{self.logger}: {self.text}" if self.logger else self.text)


class Destination(Protocol):
    """Where lines go. ``write`` says whether the line was taken (False: there was no room) and never waits."""

    def write(self, line: Line) -> bool: ...


class Lines:
    """Readable lines on a text stream: time, level, sentence, key=value. Colours if it is a terminal."""

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        self._stream = stream
        self._colour = colour
        try:
            self._fd: int | None = stream.fileno()
        except (OSError, ValueError):  # a stream that is no file (a StringIO), or is closed
            self._fd = None

    def write(self, line: Line) -> bool:
        text = self.render(line)
        if self._fd is None:
            self._stream.write(text)
            return True
        data = text.encode("utf-8", "backslashreplace")
        if stat.S_ISREG(os.fstat(self._fd).st_mode):
            return os.write(self._fd, data) == len(data)
        return self._write_some(self._fd, memoryview(data))

    def _write_some(self, fd: int, data: memoryview) -> bool:
        """A pipe or terminal that polls as writable takes PIPE_BUF bytes without waiting; so it is asked for each."""
        poll = select.poll()
        poll.register(fd, select.POLLOUT)
        while data:
            if not any(event & select.POLLOUT for _, event in poll.poll(0)):
                return False
            data = data[os.write(fd, data[:_PIPE]) :]
        return True

    def render(self, line: Line) -> str:
        """The line as text, its newlines and control characters escaped; a traceback follows, indented."""
        seconds, millis = divmod(line.time, 1000)
        when = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(seconds))}.{millis:03d}"
        tail = pairs(line.fields)
        trace = "".join(f"    {escape(row)}\n" for row in line.trace.splitlines())
        if not self._colour:
            return f"{when} {line.level:<8} {line.sentence}{'  ' + tail if tail else ''}\n{trace}"
        paint = _COLOURS[line.level]
        level = f"\x1b[{paint}m{line.level:<8}\x1b[0m" if paint else f"{line.level:<8}"
        faint = f"  \x1b[2m{tail}\x1b[0m" if tail else ""
        return f"\x1b[2m{when}\x1b[0m {level} {line.sentence}{faint}\n{trace}"


class Journal:
    """journald's native protocol: a datagram of fields (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    A datagram that is too large for the socket goes as a sealed memory file whose descriptor is sent instead. When
    journald's socket is gone, lines go to ``otherwise``; when it is full, they are refused.
    """

    def __init__(self, path: str = JOURNAL, *, otherwise: Destination) -> None:
        self._path = path
        self._otherwise = otherwise
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def write(self, line: Line) -> bool:
        data = journal_entry(line)
        try:
            if len(data) <= _MAX_DATAGRAM:
                try:
                    self._socket.sendto(data, self._path)
                    return True
                except OSError as error:
                    if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                        raise
            self._send_file(data)
            return True
        except BlockingIOError:
            return False
        except OSError:
            return self._otherwise.write(line)

    def _send_file(self, data: bytes) -> None:
        """journald takes the descriptor of a memory file if it is sealed against all change."""
        import fcntl

        file = os.memfd_create("cryptod-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(file, view) :]
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(file, fcntl.F_ADD_SEALS, seals)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", file))]
            self._socket.sendmsg([], rights, 0, self._path)
        finally:
            os.close(file)

    def close(self) -> None:
        self._socket.close()


def journal_entry(line: Line) -> bytes:
    """The datagram: ``KEY=value\\n``, or for values with newlines ``KEY\\n``, a 64-bit little-endian length, the value, ``\\n``."""
    tail = pairs(line.fields)
    fields = {
        "MESSAGE": f"{line.sentence}  {tail}" if tail else line.sentence,
        "PRIORITY": str(LEVELS[line.level]),
        "SYSLOG_IDENTIFIER": IDENTIFIER,
        "SYSLOG_PID": str(os.getpid()),
        "CRYPTOD_SENTENCE": legible(line.text),
        "CRYPTOD_LOGGER": line.logger,
    }
    for name, value in line.fields.items():
        key = "CRYPTOD_" + "".join(c if c.isascii() and c.isalnum() else "_" for c in name).upper()
        fields[key[:64]] = legible(plain(value))
    if line.trace:
        fields["CRYPTOD_TRACEBACK"] = legible(line.trace)
    parts = []
    for key, text in fields.items():
        data = _cut(text).encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts.append(key.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n")
        else:
            parts.append(key.encode() + b"=" + data + b"\n")
    return b"".join(parts)


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_VALUE else f"{text[:_MAX_VALUE]} [cut: {len(text) - _MAX_VALUE} more characters]"


def plain(value: object) -> str:
    """A field's value as text: six figures of a float, a list with commas, anything else as it calls itself."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ",".join(plain(item) for item in value)
    return str(value)


def escape(text: str) -> str:
    """Newlines, escape sequences and other control characters made visible, so that a field cannot forge a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def legible(text: str) -> str:
    """The same of text whose lines may stay lines."""
    return text if text.isprintable() else "\n".join(map(escape, text.split("\n")))


def pairs(fields: Mapping[str, Any]) -> str:
    """``key=value key="two words"``."""
    parts = []
    for name, value in fields.items():
        text = escape(_cut(plain(value)))
        if not text or any(c in ' "=' for c in text):
            text = '"' + text.replace('"', '\\"') + '"'
        parts.append(f"{name}={text}")
    return " ".join(parts)


class Outlet:
    """Where every logger of this process ends: the threshold, the destination, the lines kept, the lines lost."""

    def __init__(self, destination: Destination, now: Callable[[], int]) -> None:
        self.destination = destination
        self.now = now
        self.threshold = LEVELS["info"]
        self.fields: dict[str, Any] = {}
        self.lost = 0
        self._unsaid = 0
        self.taken = 0
        self._kept: deque[Line] = deque(maxlen=KEPT)

    def take(self, level: str, logger: str, text: str, fields: Mapping[str, Any], trace: str) -> None:
        line = Line(self.now(), level, logger, text, {**self.fields, **fields}, trace)
        self._kept.append(line)
        self.taken += 1
        if self._unsaid and self._put(
            Line(line.time, "warning", "logs", "lines were lost, there was no room", {"lines": self._unsaid}, "")
        ):
            self._unsaid = 0
        if not self._put(line):
            self.lost += 1
            self._unsaid += 1

    def _put(self, line: Line) -> bool:
        try:
            return self.destination.write(line)
        except (OSError, ValueError):  # the terminal is gone, the pipe's reader is, or the stream was closed
            return False

    def recent(self, count: int) -> list[Line]:
        return list(self._kept)[-count:] if count > 0 else []


# A log line carries the machine's time, also where the service's own clock is sped up.
_machine_time = SystemClock().now
_outlet = Outlet(Lines(sys.stderr, colour=False), _machine_time)


def _threshold(_: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if LEVELS[level] > _outlet.threshold:
        raise structlog.DropEvent
    return event


def _hand_over(_: Any, level: str, event: MutableMapping[str, Any]) -> NoReturn:
    """The end of the chain: the line goes out, and nothing is left for a logger underneath to do."""
    text = str(event.pop("event", ""))
    logger = str(event.pop("logger", ""))
    _outlet.take(level, logger, text, event, _trace(event.pop("exc_info", None)))
    raise structlog.DropEvent


def _trace(exc_info: Any) -> str:
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    elif exc_info and not isinstance(exc_info, BaseException):
        exc_info = sys.exc_info()[1]
    return "".join(traceback.format_exception(exc_info)).rstrip() if isinstance(exc_info, BaseException) else ""


class Logger(structlog.BoundLoggerBase):
    """A logger with fields of its own; ``bind(symbol=...)`` gives one with more of them."""

    def debug(self, sentence: str, **fields: Any) -> None:
        self._proxy_to_logger("debug", sentence, **fields)

    def info(self, sentence: str, **fields: Any) -> None:
        self._proxy_to_logger("info", sentence, **fields)

    def warning(self, sentence: str, **fields: Any) -> None:
        self._proxy_to_logger("warning", sentence, **fields)

    def error(self, sentence: str, **fields: Any) -> None:
        self._proxy_to_logger("error", sentence, **fields)

    def critical(self, sentence: str, **fields: Any) -> None:
        self._proxy_to_logger("critical", sentence, **fields)

    def exception(self, sentence: str, **fields: Any) -> None:
        """An error with the traceback of the exception that is being handled."""
        self._proxy_to_logger("error", sentence, exc_info=True, **fields)


_PROCESSORS: Final = [structlog.contextvars.merge_contextvars, _threshold, _hand_over]


class _Stdlib(logging.Handler):
    """What libraries log through the standard library, in the same form, with the library's name."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for floor, name in _STDLIB if record.levelno >= floor), "debug")
        if LEVELS[level] <= _outlet.threshold:
            try:
                text = record.getMessage()
            except (TypeError, ValueError):  # a library's format string that does not fit its arguments
                text = str(record.msg)
            _outlet.take(level, record.name, text, {}, _trace(record.exc_info))


def get_logger(name: str = "", **fields: Any) -> Logger:
    """A logger for the part called ``name``, with fields that stand on each of its lines.

    Usable before `configure` (plain lines on standard error) and after, also if made at import.
    """
    return Logger(None, _PROCESSORS, {"logger": name, **fields})


def configure(
    level: str = "info",
    *,
    environ: Mapping[str, str] = os.environ,
    stream: TextIO | None = None,
    journal: str = JOURNAL,
    fields: Mapping[str, Any] | None = None,
    now: Callable[[], int] = _machine_time,
) -> None:
    """Send this process's logs to journald if ``stream`` (standard error) is connected to it, else to the stream.

    ``fields`` stand on every line of this process (a child's ``job``). Library logs are let in from WARNING on.
    """
    stream = sys.stderr if stream is None else stream
    lines = Lines(stream, colour=stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb")
    if isinstance(_outlet.destination, Journal):
        _outlet.destination.close()
    _outlet.destination = Journal(journal, otherwise=lines) if is_journal(stream, environ) else lines
    _outlet.now = now
    _outlet.fields = dict(fields or {})
    set_level(level)
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, _Stdlib)]
    root.addHandler(_Stdlib(logging.WARNING))
    structlog.configure(processors=_PROCESSORS, wrapper_class=Logger, logger_factory=lambda *_: None, cache_logger_on_first_use=False)


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether ``stream`` is the journal's: systemd puts device and inode of what it connected into ``JOURNAL_STREAM``."""
    device, _, inode = environ.get("JOURNAL_STREAM", "").partition(":")
    if not (device.isdigit() and inode.isdigit()):
        return False
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return (status.st_dev, status.st_ino) == (int(device), int(inode))


def set_level(level: str) -> None:
    """Change the threshold at run time; an unknown level is a `ConfigError`."""
    if level not in LEVELS:
        raise ConfigError(f"log level {level!r} is not known", hint=f"one of {', '.join(LEVELS)}")
    _outlet.threshold = LEVELS[level]


def level() -> str:
    """The threshold in force."""
    return next(name for name, priority in LEVELS.items() if priority == _outlet.threshold)


def recent(count: int = 50) -> list[dict[str, Any]]:
    """The last lines of this process, oldest first: maps of time (UTC ms), level, logger, text and fields (as text)."""
    return [
        {
            "time": line.time,
            "level": line.level,
            "logger": line.logger,
            "text": legible(line.text),
            "fields": {name: legible(plain(value)) for name, value in line.fields.items()},
        }
        for line in _outlet.recent(count)
    ]


def impersonal(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same lines without who did it: users and processes."""
    return [{**line, "fields": {name: text for name, text in line["fields"].items() if name not in PERSONAL}} for line in lines]


def taken() -> int:
    """Lines since the start: what came since an earlier figure is ``recent(taken() - earlier)``, as far as it is kept."""
    return _outlet.taken


def lost() -> int:
    """Lines that no destination took since the start."""
    return _outlet.lost
