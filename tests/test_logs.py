"""Logs against a real datagram socket that plays journald, real pipes and real terminals."""

from __future__ import annotations

import array
import io
import logging
import os
import pty
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cryptod import logs
from cryptod.errors import ConfigError


class Journald:
    """A datagram socket that decodes the native protocol, independently of the code under test."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.settimeout(2)
        self.files = 0

    def entry(self) -> dict[str, str]:
        descriptors = array.array("i")
        data, rights, _, _ = self.socket.recvmsg(1 << 20, socket.CMSG_SPACE(4))
        for kind, what, payload in rights:
            assert (kind, what) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
            descriptors.frombytes(payload[:4])
        if descriptors:
            self.files += 1
            assert data == b""
            with os.fdopen(descriptors[0], "rb") as file:
                file.seek(0)
                data = file.read()
                with pytest.raises(PermissionError):
                    os.ftruncate(file.fileno(), 0)
        fields = {}
        while data:
            head, _, data = data.partition(b"\n")
            key, equals, value = head.partition(b"=")
            if not equals:
                (length,) = struct.unpack_from("<Q", data)
                value, data = data[8 : 8 + length], data[9 + length :]
            fields[key.decode()] = value.decode()
        return fields

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    yield
    logs.configure("info", stream=sys.__stderr__, environ={})
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if type(handler).__module__ != logs.__name__]


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[Journald]:
    server = Journald(tmp_path / "journal")
    yield server
    server.close()


@pytest.fixture
def to_journal(journald: Journald, tmp_path: Path) -> Iterator[Journald]:
    with open(tmp_path / "stderr", "w") as stream:
        status = os.fstat(stream.fileno())
        logs.configure("info", stream=stream, environ={"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}, journal=journald.path)
        yield journald


def lines(level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, stream=stream, environ={}, now=lambda: 1_685_620_800_123)
    return stream


def test_the_journal_gets_native_fields_and_the_priority(to_journal: Journald) -> None:
    logs.get_logger("training", job=12).warning("batch failed", batch=2, symbol="BTC/USDT", model="full-7", duration=1.25)
    entry = to_journal.entry()
    assert entry["MESSAGE"] == "training: batch failed  job=12 batch=2 symbol=BTC/USDT model=full-7 duration=1.25"
    assert (entry["CRYPTOD_LOGGER"], entry["CRYPTOD_SENTENCE"]) == ("training", "batch failed")
    assert entry["PRIORITY"] == "4"
    assert entry["SYSLOG_IDENTIFIER"] == "cryptod"
    names = ("CRYPTOD_JOB", "CRYPTOD_BATCH", "CRYPTOD_SYMBOL", "CRYPTOD_MODEL", "CRYPTOD_DURATION")
    assert [entry[name] for name in names] == ["12", "2", "BTC/USDT", "full-7", "1.25"]


def test_a_value_with_newlines_reaches_the_journal_whole(to_journal: Journald) -> None:
    logs.get_logger().info("first\nsecond", text="a\nPRIORITY=0\nb")
    entry = to_journal.entry()
    assert entry["CRYPTOD_SENTENCE"] == "first\nsecond"
    assert entry["CRYPTOD_TEXT"] == "a\nPRIORITY=0\nb"
    assert entry["MESSAGE"].startswith("first\\nsecond")
    assert entry["PRIORITY"] == "6"


def test_a_traceback_is_a_field_of_its_own(to_journal: Journald) -> None:
    try:
        raise ValueError("no such thing")
    except ValueError:
        logs.get_logger().exception("turn failed")
    entry = to_journal.entry()
    assert entry["CRYPTOD_TRACEBACK"].endswith("ValueError: no such thing")
    assert entry["PRIORITY"] == "3"


def test_a_message_too_large_for_a_datagram_goes_as_a_sealed_file(to_journal: Journald) -> None:
    logs.get_logger().info("large", **{f"part{i}": "é" * 40_000 for i in range(6)})
    entry = to_journal.entry()
    assert to_journal.files == 1
    assert entry["CRYPTOD_PART5"] == "é" * 40_000


def test_an_enormous_field_is_cut_and_says_so(to_journal: Journald) -> None:
    logs.get_logger().info("large", text="x" * 10_000_000)
    assert to_journal.entry()["CRYPTOD_TEXT"].endswith("more characters]")


def test_a_full_journal_loses_lines_without_waiting_and_says_how_many(to_journal: Journald) -> None:
    log = logs.get_logger()
    before = logs.lost()
    for number in range(2000):
        log.info("line", number=number)
    assert logs.lost() > before
    received = []
    to_journal.socket.setblocking(False)
    while True:
        try:
            received.append(to_journal.entry())
        except BlockingIOError:
            break
    log.info("after")
    assert to_journal.entry()["CRYPTOD_LINES"] == str(2000 - len(received))
    assert to_journal.entry()["MESSAGE"] == "after"


def test_without_journald_the_lines_go_to_the_stream(to_journal: Journald, tmp_path: Path) -> None:
    to_journal.close()
    os.unlink(to_journal.path)
    logs.get_logger().info("still heard", job=1)
    assert "still heard  job=1" in (tmp_path / "stderr").read_text()


def test_a_stream_that_is_not_the_journals_gets_readable_lines(tmp_path: Path) -> None:
    with open(tmp_path / "other", "w") as stream:
        logs.configure(stream=stream, environ={"JOURNAL_STREAM": "1:2"}, journal=str(tmp_path / "absent"))
        logs.get_logger().info("batch trained", batch=2, coins=["BTC/USDT", "ETH/USDT"])
    assert (tmp_path / "other").read_text().endswith("info     batch trained  batch=2 coins=BTC/USDT,ETH/USDT\n")


def test_a_line_is_time_level_sentence_and_pairs() -> None:
    stream = lines()
    logs.get_logger(job=3).info("batch trained", duration=1.23456789, reason='two "words"', empty="")
    assert stream.getvalue() == (
        '2023-06-01 12:00:00.123 info     batch trained  job=3 duration=1.23457 reason="two \\"words\\"" empty=""\n'
    )


def test_control_characters_cannot_forge_a_line_or_move_the_cursor() -> None:
    stream = lines()
    logs.get_logger().info("from \x1b[31mthem", text="a\n2023-06-01 error forged")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


def test_the_level_is_kept_and_can_be_changed_at_run_time() -> None:
    stream = lines("warning")
    log = logs.get_logger()
    log.info("first")
    logs.set_level("debug")
    log.debug("second")
    assert [row.split()[3] for row in stream.getvalue().splitlines()] == ["second"]
    assert logs.level() == "debug"


def test_an_unknown_level_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="debug, info, warning"):
        logs.set_level("loud")


def test_library_warnings_are_let_in_and_their_chatter_is_not() -> None:
    stream = lines("debug")
    logging.getLogger("ccxt").warning("rate %s", "limit")
    logging.getLogger("aiohttp.access").info("GET /")
    assert "warning  ccxt: rate limit\n" in stream.getvalue()
    assert "GET" not in stream.getvalue()


def test_configuring_twice_does_not_double_library_lines() -> None:
    lines()
    stream = lines()
    logging.getLogger("asyncio").error("once")
    assert stream.getvalue().count("once") == 1


def test_the_fields_of_a_process_stand_on_every_line() -> None:
    stream = io.StringIO()
    logs.configure(stream=stream, environ={}, fields={"job": 7})
    logs.get_logger().bind(symbol="BTC/USDT").info("trained", batch=1)
    assert "job=7 symbol=BTC/USDT batch=1" in stream.getvalue()


def test_the_last_lines_are_kept_in_memory_and_no_more() -> None:
    lines()
    for number in range(logs.KEPT + 50):
        logs.get_logger().info("line", number=number)
    kept = logs.recent(1000)
    assert len(kept) == logs.KEPT
    fields = {"number": str(logs.KEPT + 49)}
    assert kept[-1] == {"time": 1_685_620_800_123, "level": "info", "logger": "", "text": "line", "fields": fields}
    assert [line["fields"]["number"] for line in logs.recent(2)] == [str(logs.KEPT + 48), str(logs.KEPT + 49)]
    assert logs.recent(0) == []


def test_a_pipe_that_nobody_reads_does_not_hold_up_the_writer() -> None:
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "w") as stream:
            logs.configure(stream=stream, environ={})
            before = logs.lost()
            for _ in range(3000):
                logs.get_logger().info("a line of some length, to fill the pipe", filler="x" * 80)
            assert logs.lost() > before
    finally:
        os.close(reader)


def test_a_reader_that_went_away_ends_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        logs.configure(stream=stream, environ={})
        logs.get_logger().info("unheard")
    logs.get_logger().info("the stream is closed now")


@pytest.mark.parametrize(
    ("environ", "coloured"), [({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_gets_colours_unless_it_declines(environ: dict[str, str], coloured: bool) -> None:
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave, "w") as stream:
            logs.configure(stream=stream, environ=environ)
            logs.get_logger().error("failed", job=1)
            seen = b""
            while b"failed" not in seen:
                seen += os.read(master, 4096)
            assert (b"\x1b[31m" in seen) is coloured
    finally:
        os.close(master)


def test_importing_logs_does_not_load_rich() -> None:
    code = "import sys, cryptod.logs; assert not [m for m in sys.modules if m.split('.')[0] == 'rich']; import rich"
    subprocess.run([sys.executable, "-c", code], check=True)
