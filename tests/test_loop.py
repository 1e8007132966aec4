"""The daemon's loop: direct readers come first, and nothing else waits for them."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable

import pytest

from cryptod.daemon.loop import BATCH, DirectLoop, direct_readers

LOOPS = {"direct": DirectLoop}


class Echo:
    """A direct reader that sends back what it reads, and its client's end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.client, self.socket = socket.socketpair()
        self.socket.setblocking(False)
        self.client.setblocking(False)
        self.loop = loop
        self.direct = self.by_asyncio = 0
        self.then: Callable[[], object] = lambda: None
        direct_readers(loop)[self.socket.fileno()] = self.read
        loop.add_reader(self.socket, self.fallback)

    def read(self) -> bool:
        self.direct += 1
        data = self.socket.recv(1024)
        if data:
            self.socket.send(data)
            self.then()
        return bool(data)

    def fallback(self) -> None:
        self.by_asyncio += 1
        if not self.socket.recv(1024):
            self.loop.remove_reader(self.socket)

    def close(self) -> None:
        self.loop.remove_reader(self.socket)
        direct_readers(self.loop).pop(self.socket.fileno(), None)
        self.client.close()
        self.socket.close()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    made = Echo(asyncio.get_running_loop())
    yield made
    made.close()


def again_and_again(echo: Echo) -> None:
    """As soon as it is answered, the client asks again: there is always something to read."""

    def ask() -> None:
        echo.client.recv(1024)
        echo.client.send(b"x")

    echo.then = ask
    echo.client.send(b"x")


async def test_a_direct_reader_is_called_without_asyncio(echo: Echo) -> None:
    for _ in range(3):
        echo.client.send(b"ping")
        await asyncio.sleep(0.001)
        assert echo.client.recv(16) == b"ping"
    assert (echo.direct, echo.by_asyncio) == (3, 0)


async def test_what_a_reader_does_not_find_is_left_to_asyncio(echo: Echo) -> None:
    echo.client.close()
    await asyncio.sleep(0.01)
    assert echo.by_asyncio == 1


async def test_a_reader_that_asyncio_does_not_watch_is_not_called(echo: Echo) -> None:
    asyncio.get_running_loop().remove_reader(echo.socket)
    echo.client.send(b"ping")
    await asyncio.sleep(0.01)
    assert echo.direct == 0
    asyncio.get_running_loop().add_reader(echo.socket, echo.fallback)
    await asyncio.sleep(0.01)
    assert echo.direct == 1


async def test_timers_callbacks_and_threads_get_their_turn_while_a_client_asks_without_end(echo: Echo) -> None:
    loop = asyncio.get_running_loop()
    again_and_again(echo)
    begin = time.monotonic()
    await asyncio.sleep(0.05)
    assert 0.05 <= time.monotonic() - begin < 1
    at = echo.direct
    for _ in range(50):
        await asyncio.sleep(0)
    assert echo.direct - at <= 50 * (BATCH + 1)
    heard = asyncio.Event()
    threading.Timer(0.01, loop.call_soon_threadsafe, (heard.set,)).start()
    await asyncio.wait_for(heard.wait(), 5)
    while echo.direct <= 100:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0)


@pytest.mark.parametrize("schedule", ["call_soon", "call_later", "create_task"])
async def test_what_a_reader_schedules_is_not_left_until_something_else_happens(echo: Echo, schedule: str) -> None:
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    async def work() -> None:
        done.set()

    tasks = []
    ways = {
        "call_soon": lambda: loop.call_soon(done.set),
        "call_later": lambda: loop.call_later(0.01, done.set),
        "create_task": lambda: tasks.append(loop.create_task(work())),
    }
    echo.then = ways[schedule]
    echo.client.send(b"x")
    end = loop.call_later(5, lambda: pytest.fail("never done"))
    begin = time.monotonic()
    await done.wait()
    end.cancel()
    assert time.monotonic() - begin < 4


async def test_other_descriptors_are_served_beside_a_client_that_asks_without_end(echo: Echo) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=(pair := socket.socketpair())[0])
    again_and_again(echo)
    for i in range(20):
        pair[1].send(bytes([i]))
        assert await asyncio.wait_for(reader.readexactly(1), 5) == bytes([i])
    writer.close()
    pair[1].close()


async def test_waiting_costs_no_time_of_the_processor(echo: Echo) -> None:
    echo.client.send(b"x")  # also after it has been asked something
    await asyncio.sleep(0.01)
    before = time.process_time()
    await asyncio.sleep(0.5)
    assert time.process_time() - before < 0.05


def test_another_loop_has_no_direct_readers_and_says_nothing_against_it() -> None:
    loop = asyncio.SelectorEventLoop()
    direct_readers(loop)[5] = lambda: True
    assert direct_readers(loop) == {}
    loop.close()
