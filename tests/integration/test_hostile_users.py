"""Users of one machine who mean harm, and a real daemon on its real socket: what they ask for costs them, and nobody else."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import msgpack
import psutil
import pytest

from cryptod.protocol import MAX_CONNECTIONS
from tests.fuzz.grammar import pack
from tests.fuzz.outside import ASK, HOSTILE, READER, STORMS, Outside
from tests.integration.house import wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users")

ROOM: Final = 30 << 20
"""Bytes by which the daemon may grow in a storm."""


@pytest.fixture(scope="module")
def house() -> Iterator[Outside]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with Outside(coins=3) as one:
        yield one
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(autouse=True)
def _quiet(house: Outside) -> None:
    """The clients of the test before are gone: a place that one of them still has may be refused to the next."""
    wait_for(lambda: house.connections() == 0, "the clients of the test before are gone")


@contextmanager
def clients(house: Outside, count: int, uid: int, said: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections of a user that have said this and wait."""
    with ExitStack() as stack:
        made = [stack.enter_context(house.connect(uid=uid)) for _ in range(count)]
        for one in made if said else ():
            one.sendall(said)
        yield made


def answer(one: socket.socket) -> list[Any]:
    """The next answer."""
    unpacker = msgpack.Unpacker(max_buffer_size=1 << 28, strict_map_key=False)
    while True:
        for message in unpacker:
            return list(message)
        data = one.recv(1 << 20)
        if not data:
            raise ConnectionError("hung up on")
        unpacker.feed(data)


def ask(house: Outside, method: str, *parameters: Any, uid: int = READER) -> Any:
    """What a user is answered; its error is raised."""
    with house.connect(uid=uid) as one:
        one.sendall(pack([0, 1, method, parameters]))
        _, _, error, result = answer(one)
    assert error is None, error
    return result


@pytest.mark.parametrize("name", [name for name in STORMS if name != "get of cached coins"])
def test_beside_a_thousand_connections_that_ask_for_what_costs_most_another_user_is_served_and_the_daemon_stays_small(
    house: Outside, name: str
) -> None:
    said, connections, users = STORMS[name]
    before = house.process.memory_info().rss
    with house.highest() as highest, house.storm(said, connections, users), house.connect() as one:
        for _ in range(200):
            one.sendall(ASK)
            assert answer(one)[2] is None
        assert ask(house, "get_many")["forecasts"]
        assert ask(house, "ping", uid=0)["pid"] == house.process.pid
    assert highest[0] < before + ROOM
    assert not house.daemon.lines("stands still")


def test_reports_for_those_who_are_gone_are_not_made_and_nobody_is_told_that_the_daemon_is_busy(house: Outside) -> None:
    made = len(house.daemon.lines("report made"))
    asked = 8 * 128
    with clients(house, 8, HOSTILE, pack([0, 1, "report", ["90d"]]) * 128):
        wait_for(lambda: house.daemon.child("cryptod-report"), "the report is begun")
        assert "<!doctype html>" in ask(house, "report", "7d", uid=0)["html"].lower(), "root has its turn beside them"
        assert "<!doctype html>" in ask(house, "report", "7d")["html"].lower(), "and so has another user"
    wait_for(lambda: house.connections() == 0, "they are gone")
    wait_for(lambda: house.daemon.child("cryptod-report") is None, "the child is ended")
    # A page of so small a ledger takes milliseconds, and who asks after it was begun and ended gets another.
    assert len(house.daemon.lines("report made")) <= made + asked // 16, "one page for all who asked for the same meanwhile"
    assert ask(house, "report")["html"]


def test_a_report_that_nobody_waits_for_any_more_is_given_up(house: Outside) -> None:
    made = len(house.daemon.lines("report made"))
    with clients(house, 3, HOSTILE, pack([0, 1, "report", ["30d"]])):
        wait_for(lambda: house.daemon.child("cryptod-report"), "the report is begun")
        child = house.daemon.child("cryptod-report")
        assert child is not None
        child.suspend()
    wait_for(lambda: not psutil.pid_exists(child.pid), "the child is ended", seconds=30)
    assert len(house.daemon.lines("report made")) == made


def test_two_users_who_take_all_places_keep_neither_root_nor_a_third_user_out(house: Outside) -> None:
    with clients(house, MAX_CONNECTIONS // 2, HOSTILE) as silent, clients(house, MAX_CONNECTIONS // 2, HOSTILE + 1):
        assert len(ask(house, "ping", uid=0)) == 4
        with ExitStack() as stack:
            for _ in range(20):  # more than are kept for it
                one = stack.enter_context(house.connect(uid=0))
                one.sendall(ASK)
                assert answer(one)[2] is None
            for _ in range(20):
                one = stack.enter_context(house.connect())
                one.sendall(ASK)
                assert answer(one)[2] is None
        assert silent[0].recv(10) == b"", "a silent one gave way"
    assert ask(house, "status")["control"]["dropped_clients"] > 0


def test_exports_of_one_user_hold_up_neither_the_forecasts_nor_another_users_export(house: Outside) -> None:
    with clients(house, 250, HOSTILE, pack([0, 1, "export", ["candles"]]) * 4) as crowd:
        assert answer(crowd[0])[2] is None
        assert ask(house, "cache_pregenerate", uid=0)["forecasts"] == house.coins
        began = time.monotonic()
        assert ask(house, "export", "candles")["columns"]["symbol"]
        assert ask(house, "candles", "BTC/USDT")["close"]
        crowd[-1].setblocking(False)
        with pytest.raises(BlockingIOError):
            crowd[-1].recv(1, socket.MSG_PEEK)
        assert time.monotonic() - began < 30


def test_who_did_what_is_told_to_those_only_who_may_change_things(house: Outside) -> None:
    ask(house, "subscribe", ["log"])
    with house.connect(uid=0) as root, house.connect() as reader:
        for one in (root, reader):
            one.sendall(pack([0, 1, "subscribe", [["log"]]]))
            answer(one)
        with clients(house, 1, HOSTILE, b"\xc1"):
            house.daemon.wait_for_line("a client was hung up on")
        line = "a client was hung up on"
        lines = {uid: [row for row in ask(house, "log_lines", uid=uid) if row["text"] == line] for uid in (0, READER)}
        assert lines[0][-1]["fields"]["uid"] == str(HOSTILE)
        assert lines[READER]
        assert not any({"uid", "pid"} & set(row["fields"]) for row in lines[READER])
        told = {}
        for name, one in (("root", root), ("reader", reader)):
            while not (found := [row for row in answer(one)[2][1]["lines"] if row["text"] == line]):
                pass
            told[name] = found[-1]["fields"]
        assert told["root"]["uid"] == str(HOSTILE)
        assert not {"uid", "pid"} & set(told["reader"])
