"""The clients against a server that can go away: forecasts, refusals, restarts, events, silence."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from math import exp, log
from pathlib import Path
from typing import Any, Self

import msgpack
import pytest

from cryptod.client import AsyncClient, Client, ConnectionLost, DaemonUnreachable, Event, Forecast, RequestError
from cryptod.daemon.control import ControlServer, Handler, Ready
from cryptod.errors import CryptodError
from cryptod.protocol import COMMANDS
from cryptod.replies import read_forecast

LEVELS = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)
ROOT = Path(__file__).resolve().parents[1]


def forecast_map(symbol: str = "BTC/USDT") -> dict[str, Any]:
    quantiles = [[(level - 0.5) * horizon / 100 for level in LEVELS] for horizon in range(1, 25)]
    return {
        "symbol": symbol, "cutoff": 3_600_000, "issued": 3_605_000, "expires": 7_200_000, "model": "full-1-1", "close": 100.0,
        "horizons": list(range(1, 25)), "levels": list(LEVELS), "quantiles": quantiles,
        "prices": [[100 * exp(q) for q in row] for row in quantiles], "p_up": [0.5] * 24, "volatility": [0.01] * 24,
        "expected_return": [0.0] * 24, "score": 0.25, "strangeness": 0.5, "flags": ["short_history"], "age": 1.5,
        "stale": False, "reason": None, "coverage": {"50": 0.49, "80": 0.8, "95": 0.95, "outcomes": 504.0},
        "of_a_later_version": 1,
    }  # fmt: skip


class Daemon:
    """A control server in a thread of its own, that can be stopped, started and left without an answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.asked: list[str] = []
        self.silent = False
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.server: ControlServer | None = None

    def handlers(self) -> dict[str, Handler]:
        def answer(name: str, reply: Callable[[Any], Any]) -> Handler:
            def handle(request: Any, peer: Any) -> Any:
                self.asked.append(name)
                return asyncio.sleep(60) if self.silent else reply(request)

            return handle

        def many(request: Any) -> Any:
            wanted = ["A/USDT", "B/USDT"] if request.symbols is None else request.symbols
            refused = {
                name: {"code": "unknown_symbol", "message": f"{name} is not followed", "hint": "h"} for name in wanted if name == "X"
            }
            return {"forecasts": [forecast_map(name) for name in wanted if name != "X"], "refused": refused}

        table: dict[str, Handler] = {
            name: answer(name, lambda request: {"asked": list(request)}) for name in COMMANDS if name != "subscribe"
        }
        table["get"] = answer("get", lambda request: Ready(msgpack.packb(forecast_map(request.symbol))))
        table["get_many"] = answer("get_many", many)
        table["top"] = answer("top", lambda request: [{"symbol": "A/USDT"}] * request.count)
        return table

    def run(self, work: Any) -> Any:
        result: Future[Any] = asyncio.run_coroutine_threadsafe(work, self.loop)
        return result.result(10)

    def start(self) -> Self:
        self.server = ControlServer(self.handlers(), allowed=lambda peer: True)
        self.run(self.server.start(self.path))
        return self

    def stop(self) -> None:
        if self.server is not None:
            server, self.server = self.server, None
            self.run(server.close(0.1))

    def later(self, seconds: float, *works: Callable[[], Any]) -> threading.Timer:
        timer = threading.Timer(seconds, lambda: [work() for work in works])
        timer.start()
        return timer

    def notify(self, topic: str, payload: Any) -> None:
        server = self.server
        assert server is not None

        async def tell() -> None:
            server.notify(topic, msgpack.packb(payload))

        self.run(tell())

    def end(self) -> None:
        self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    one = Daemon(tmp_path / "d.sock").start()
    yield one
    one.end()


# -------------------------------------------------------------------------------------------------- a forecast


def test_a_forecast_has_the_wires_values_and_cannot_be_changed(daemon: Daemon) -> None:
    with Client(daemon.path) as client:
        forecast = client.get("BTC/USDT")
    wire = forecast_map()
    assert forecast.coverage == (504.0, 0.49, 0.8, 0.95)
    assert forecast.coverage is not None
    assert forecast.coverage.inside_80 == 0.8
    for name in Forecast._fields[:-1]:
        value = getattr(forecast, name)
        assert (list(map(list, value)) if name in ("quantiles", "prices") else list(value) if isinstance(value, tuple) else value) == wire[
            name
        ]
    with pytest.raises(AttributeError):
        forecast.close = 1.0  # type: ignore[misc]
    assert isinstance(hash(forecast), int)


def test_a_forecast_is_asked_by_horizon_and_level() -> None:
    forecast = read_forecast(forecast_map())
    assert forecast.quantile(24, 0.9) == pytest.approx(0.4 * 0.24)
    assert forecast.quantile(24, 0.3) == pytest.approx(-0.2 * 0.24)
    assert forecast.price(24) == 100.0
    assert forecast.price(12, 0.975) == pytest.approx(100 * exp(0.475 * 0.12))
    assert [log(price / 100) for price in forecast.interval(24, 0.9)] == pytest.approx([-0.45 * 0.24, 0.45 * 0.24])
    assert list(forecast.interval(1, 0.95)) == pytest.approx([100 * exp(-0.00475), 100 * exp(0.00475)])
    with pytest.raises(ValueError, match="horizon 25 is not among 1 to 24"):
        forecast.price(25)
    for level in (0.01, 0.99):
        with pytest.raises(ValueError, match=r"outside 0\.025 to 0\.975"):
            forecast.quantile(1, level)


def test_a_forecast_of_another_version_is_an_error_and_not_half_a_forecast() -> None:
    wire = forecast_map()
    del wire["p_up"]
    with pytest.raises(CryptodError, match=r"'p_up'.*different versions"):
        read_forecast(wire)


# -------------------------------------------------------------------------------------------------- commands


def test_every_command_has_a_method_in_both_clients_with_the_same_parameters() -> None:
    for command in COMMANDS.values():
        for kind in (Client, AsyncClient):
            method = getattr(kind, command.name)
            names = method.__code__.co_varnames[1 : method.__code__.co_argcount]
            assert names == command.request._fields, (kind, command.name)
            assert method.__doc__


def test_commands_arrive_with_their_parameters(daemon: Daemon) -> None:
    with Client(daemon.path) as client:
        assert client.train("full") == {"asked": ["full"]}
        assert client.cancel(7) == {"asked": [7]}
        assert client.call("jobs", 5) == {"asked": [5]}
        assert client.cache_clear(["A/USDT"]) == {"asked": [["A/USDT"]]}
        assert client.cache_clear() == {"asked": [None]}
        assert client.models_rollback(2) == {"asked": [2]}
        assert client.top(3) == [{"symbol": "A/USDT"}] * 3
        for name in ("ping", "status", "health", "symbols", "schedule", "cache_stats", "cache_pregenerate", "models"):
            assert getattr(client, name)() == {"asked": []}, name


def test_many_forecasts_come_with_the_reasons_of_those_that_do_not(daemon: Daemon) -> None:
    with Client(daemon.path) as client:
        found = client.get_many(["A/USDT", "X", "B/USDT"])
        assert list(found) == ["A/USDT", "B/USDT"]
        assert found.refused["X"].code == "unknown_symbol"
        assert list(client.get_many()) == ["A/USDT", "B/USDT"]
        assert client.get_many([]) == {}
        names = [f"COIN{i}/USDT" for i in range(4500)]  # more than fit in one request
        daemon.asked.clear()
        assert list(client.get_many(names)) == names
        assert len(daemon.asked) == 3


def test_a_refusal_is_raised_with_its_code_and_hint_and_the_connection_goes_on(daemon: Daemon) -> None:
    with Client(daemon.path) as client:
        with pytest.raises(RequestError, match="no command 'gett'") as caught:
            client.call("gett")
        assert (caught.value.code, caught.value.hint) == ("unknown_command", "did you mean 'get'?")
        with pytest.raises(RequestError, match="expected str, got int"):
            client.call("get", 5)
        with pytest.raises(RequestError, match="more than 65536"):
            client.call("get", "x" * 70_000)
        assert client.get("A/USDT").symbol == "A/USDT"


def test_a_pipeline_gives_results_and_refusals_in_order(daemon: Daemon) -> None:
    with Client(daemon.path) as client:
        results = client.pipeline([("get", f"C{i}/USDT") for i in range(500)] + [("nonsense",), ("top", 2)])
    assert [result["symbol"] for result in results[:500]] == [f"C{i}/USDT" for i in range(500)]
    assert isinstance(results[500], RequestError)
    assert len(results[501]) == 2


def test_a_pipeline_of_large_requests_and_replies_does_not_lock_up(daemon: Daemon) -> None:
    names = [f"COIN{i}/USDT" for i in range(3000)]
    with Client(daemon.path) as client:
        results = client.pipeline([("get_many", names)] * 3)
    assert [len(result["forecasts"]) for result in results] == [3000] * 3


# -------------------------------------------------------------------------------------------------- no daemon


def test_a_daemon_that_is_not_there_is_said_at_once_with_what_to_do(tmp_path: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(tmp_path / "dead"))
    dead.close()
    (tmp_path / "file").write_text("")
    begin = time.monotonic()
    for name, text in (
        ("none", "no such socket.*systemctl status"),
        ("dead", "nobody listens"),
        ("file", "nobody listens"),
        ("x" * 200, "too long"),
    ):
        with pytest.raises(DaemonUnreachable, match=text):
            Client(tmp_path / name).ping()
    assert time.monotonic() - begin < 0.5


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
def test_a_socket_without_rights_is_said_so(daemon: Daemon) -> None:
    daemon.path.chmod(0o600)
    daemon.path.parent.chmod(0o711)
    code = (
        "import os, sys; from cryptod.client import Client, DaemonUnreachable\n"
        "os.setuid(4322)\n"
        "try:\n    Client(sys.argv[1]).ping()\nexcept DaemonUnreachable as error:\n    print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code, str(daemon.path)], capture_output=True, text=True, check=True, cwd=ROOT)
    assert "permission denied (look at the rights of" in out.stdout


def test_the_path_comes_from_the_environment_where_none_is_given(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYPTOD_SOCKET", str(daemon.path))
    with Client() as client:
        assert client.ping() == {"asked": []}
    monkeypatch.delenv("CRYPTOD_SOCKET")
    assert Client().path == "/run/cryptod/cryptod.sock"


def test_reads_are_asked_again_across_a_restart(daemon: Daemon) -> None:
    with Client(daemon.path, patience=5) as client:
        client.get("A/USDT")
        daemon.stop()
        daemon.start()
        assert client.get("A/USDT").symbol == "A/USDT"  # at once, though its connection is dead
        daemon.stop()
        timer = daemon.later(0.3, daemon.start)
        assert client.get("B/USDT").symbol == "B/USDT"
        timer.join()
        daemon.stop()
        client.patience = 0.2
        begin = time.monotonic()
        with pytest.raises(ConnectionLost, match="no such socket"):
            client.get("A/USDT")
        assert 0.05 < time.monotonic() - begin < 1


def test_what_changes_something_is_never_asked_twice(daemon: Daemon) -> None:
    with Client(daemon.path) as client:
        client.ping()
        daemon.stop()
        daemon.start()
        assert client.train("full") == {"asked": ["full"]}  # the dead connection was noticed before it was sent
        daemon.silent = True
        daemon.asked.clear()
        timer = daemon.later(0.1, daemon.stop)
        with pytest.raises((ConnectionLost, RequestError), match=r"train was done is not known|stopped before"):
            client.train("full")
        timer.join()
        assert daemon.asked == ["train"]


def test_a_pipeline_of_reads_survives_a_restart(daemon: Daemon) -> None:
    with Client(daemon.path) as client:
        client.ping()
        daemon.stop()
        timer = daemon.later(0.2, daemon.start)
        results = client.pipeline([("get", "A/USDT"), ("get", 5)])
        timer.join()
    assert results[0]["symbol"] == "A/USDT"
    assert isinstance(results[1], RequestError)


def test_a_daemon_that_does_not_answer_is_given_up_and_the_next_answer_is_not_mistaken(daemon: Daemon) -> None:
    with Client(daemon.path, timeout=0.3) as client:
        daemon.silent = True
        begin = time.monotonic()
        with pytest.raises(DaemonUnreachable, match=r"has not answered for 0.3 s"):
            client.get("A/USDT")
        assert 0.2 < time.monotonic() - begin < 1.5
        daemon.silent = False
        assert client.get("B/USDT").symbol == "B/USDT"


def test_something_else_that_answers_is_not_understood(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()

    def serve() -> None:
        for answer in (b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xc1\xc1", b"\x94\x01", b"\xdd\xff\xff\xff\xff"):
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    for _ in range(4):
        with (
            Client(tmp_path / "s", timeout=2, patience=0) as client,
            pytest.raises(DaemonUnreachable, match=r"not understood|closed the connection"),
        ):
            client.ping()
    thread.join()
    listener.close()


def test_a_daemon_that_goes_away_before_its_first_answer_is_asked_again_for_a_read_and_not_for_a_change(tmp_path: Path) -> None:
    asked = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def serve() -> None:
            for answers in (False, True, False):
                connection, _ = listener.accept()
                with connection:
                    _, number, method, _ = msgpack.unpackb(connection.recv(1 << 16))
                    asked.append(method)
                    connection.sendall(msgpack.packb([1, number, None, {"pong": True}]) if answers else b"")

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(tmp_path / "s", timeout=5) as client:
            assert client.call("ping") == {"pong": True}
        with Client(tmp_path / "s", timeout=5) as client, pytest.raises(DaemonUnreachable, match="whether train was done is not known"):
            client.train("full")
        thread.join()
    assert asked == ["ping", "ping", "train"]


# -------------------------------------------------------------------------------------------------- events


def test_events_are_heard_also_those_that_come_between_answers(daemon: Daemon) -> None:
    with Client(daemon.path) as client:
        assert client.subscribe(["jobs"]) == {"topics": ["jobs"]}
        assert client.next_event(0.05) is None
        daemon.notify("jobs", {"id": 1})
        client.ping()
        daemon.notify("forecasts", {})
        daemon.notify("jobs", {"id": 2})
        assert list(client.events(0.2)) == [Event("jobs", {"id": 1}), Event("jobs", {"id": 2})]


def test_events_that_come_along_with_an_answer_are_heard_at_once(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                _, number, _, _ = msgpack.unpackb(connection.recv(1 << 16))
                events = [[2, "event", ["jobs", {"id": one}]] for one in (1, 2)]
                connection.sendall(b"".join(map(msgpack.packb, [[1, number, None, {"topics": ["jobs"]}], *events])))
                connection.recv(1)  # until the client goes

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(tmp_path / "s", timeout=5) as client:
            client.subscribe(["jobs"])
            assert [client.next_event(5), client.next_event(5)] == [Event("jobs", {"id": 1}), Event("jobs", {"id": 2})]
        thread.join()


def test_a_subscription_is_renewed_after_a_restart_and_says_that_something_may_be_lost(daemon: Daemon) -> None:
    with Client(daemon.path) as client:
        client.subscribe(["jobs"])
        daemon.stop()
        timer = daemon.later(0.2, daemon.start)
        assert client.next_event(5) == Event("lost", {"count": None})
        timer.join()
        daemon.notify("jobs", {"id": 3})
        assert client.next_event(1) == Event("jobs", {"id": 3})


# -------------------------------------------------------------------------------------------------- asyncio


async def test_the_async_client_does_the_same(daemon: Daemon) -> None:
    async with AsyncClient(daemon.path) as client:
        found = await asyncio.gather(*(client.get(f"C{i}/USDT") for i in range(300)))
        assert [forecast.symbol for forecast in found] == [f"C{i}/USDT" for i in range(300)]
        assert (await client.get_many(["A/USDT", "X"])).refused["X"].code == "unknown_symbol"
        assert await client.train("full") == {"asked": ["full"]}
        with pytest.raises(RequestError, match="no command"):
            await client.call("gett")
        with pytest.raises(RequestError, match="more than 65536"):
            await client.call("get", "x" * 70_000)


async def test_the_async_client_asks_reads_again_across_a_restart(daemon: Daemon) -> None:
    async with AsyncClient(daemon.path) as client:
        await client.ping()
        await asyncio.to_thread(daemon.stop)
        timer = daemon.later(0.2, daemon.start)
        found = await asyncio.gather(*(client.get("A/USDT") for _ in range(20)))
        timer.join()
        assert len(found) == 20
        await asyncio.to_thread(daemon.stop)
        with pytest.raises(DaemonUnreachable, match="no such socket"):
            await client.train("full")
        client.patience = 0.1
        with pytest.raises(DaemonUnreachable, match="no such socket"):
            await client.get("A/USDT")


async def test_the_async_client_hears_events_and_renews_its_subscription(daemon: Daemon) -> None:
    async with AsyncClient(daemon.path) as client:
        await client.subscribe(["jobs"])
        await asyncio.to_thread(daemon.notify, "jobs", {"id": 1})
        assert [event async for event in client.events(0.2)] == [Event("jobs", {"id": 1})]
        await asyncio.to_thread(daemon.stop)
        timer = daemon.later(0.2, daemon.start)
        assert await client.next_event(5) == Event("lost", {"count": None})
        timer.join()
        await asyncio.to_thread(daemon.notify, "jobs", {"id": 2})
        assert await client.next_event(1) == Event("jobs", {"id": 2})


async def test_the_async_client_gives_a_silent_daemon_up(daemon: Daemon) -> None:
    daemon.silent = True
    async with AsyncClient(daemon.path, timeout=0.2) as client:
        with pytest.raises(DaemonUnreachable, match=r"has not answered for 0.2 s"):
            await client.get("A/USDT")
    with pytest.raises(DaemonUnreachable, match="no such socket"):
        await AsyncClient(daemon.path.with_name("none")).ping()


# -------------------------------------------------------------------------------------------------- lightness


def test_the_blocking_client_imports_little() -> None:
    heavy = {"asyncio", "numpy", "msgspec", "structlog", "dataclasses", "inspect"}
    code = f"import sys, cryptod.client; print(*sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == ""
