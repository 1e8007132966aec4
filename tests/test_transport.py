"""Answers that are too large, and redirects: neither takes memory nor leads elsewhere."""

from __future__ import annotations

import asyncio
import gzip
import os
import subprocess
import sys
import zlib
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from cryptod.errors import ExchangeError
from cryptod.ingest import exchange as module
from cryptod.ingest.exchange import Exchange
from cryptod.ingest.transport import MOST_BYTES, Unwelcome, _stay, decoded
from tests.test_exchange import serving

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def refusal(caught: pytest.ExceptionInfo[ExchangeError]) -> str:
    assert "exchange.id" in caught.value.hint
    return caught.value.message


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_small_answer_that_unpacks_to_gigabytes_is_refused(coding: str) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if coding == "gzip" else zlib.MAX_WBITS)
    megabyte = bytes(1 << 20)
    bomb = b"".join(packer.compress(megabyte) for _ in range(2048)) + packer.flush()

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Type": "application/json", "Content-Encoding": coding})

    async with serving(handle) as url, Exchange("binance", url) as exchange:
        with pytest.raises(ExchangeError) as caught:
            await exchange.time()
    assert refusal(caught) == "binance was asked for its time and sent an answer of more than 32 MB"


async def test_an_answer_without_an_end_is_refused() -> None:
    sent = 0

    async def handle(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 40 * MOST_BYTES:
            await response.write(b" " * 65_536)
            sent += 65_536
        return response

    async with serving(handle) as url, Exchange("binance", url) as exchange:
        with pytest.raises(ExchangeError) as caught:
            await exchange.time()
    assert "more than 32 MB" in refusal(caught)
    assert sent < 2 * MOST_BYTES


async def test_an_answer_in_gzip_is_read() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b'{"serverTime": 1607277316000}'), headers={"Content-Encoding": "gzip"})

    async with serving(handle) as url, Exchange("binance", url) as exchange:
        assert await exchange.time() == 1_607_277_316_000


async def test_gzip_that_is_broken_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    asked = 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(body=b"no gzip" if asked == 1 else gzip.compress(b'{"serverTime": 5}'), headers={"Content-Encoding": "gzip"})

    async with serving(handle) as url, Exchange("binance", url) as exchange:
        assert await exchange.time() == 5


@pytest.mark.parametrize(
    "where", ["http://127.0.0.1:{other}/api/v3/time", "https://localhost:{other}/", "//10.0.0.1/x", "file:///etc/passwd", "{same}/"]
)
async def test_a_redirect_elsewhere_is_not_followed(where: str) -> None:
    reached = []

    async def target(request: web.Request) -> web.Response:
        reached.append(request.path)
        return web.Response(body=b'{"serverTime": 5}')

    async with serving(target) as other:

        async def handle(request: web.Request) -> web.Response:
            reached.append("first")
            place = where.format(other=other.rpartition(":")[2], same=f"http://{request.host}")
            return web.Response(status=302, headers={"Location": place})

        async with serving(handle) as url, Exchange("binance", url) as exchange:
            with pytest.raises(ExchangeError, match="sent a redirect to"):
                await exchange.time()
    assert reached == ["first"]


def test_an_answer_of_many_small_values_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(Unwelcome, match="MB of memory"):
        decoded("[" + "[]," * 3_000_000 + "[]]")
    assert decoded('{"a": [1, 2]}') == {"a": [1, 2]}


async def test_more_markets_than_any_exchange_has_are_refused() -> None:
    symbols = [{"symbol": f"A{n}USDT", "status": "TRADING", "baseAsset": f"A{n}", "quoteAsset": "USDT"} for n in range(10_001)]
    body = b'{"symbols":' + str(symbols).replace("'", '"').encode() + b"}"

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body)

    async with serving(handle) as url, Exchange("binance", url) as exchange:
        with pytest.raises(ExchangeError, match="sent 10,001 of them; at most 10,000 are taken"):
            await exchange.load_markets()


MEMORY = """
import asyncio, sys
from cryptod.errors import ExchangeError
from cryptod.ingest.exchange import Exchange

async def main():
    async with Exchange("binance", sys.argv[1]) as exchange:
        try:
            await exchange.load_markets()
        except ExchangeError as error:
            print(error.message)
asyncio.run(main())
print(next(int(line.split()[1]) // 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize("count", [9_900, 120_000])
async def test_a_child_that_loads_markets_stays_below_200_mb(count: int) -> None:
    rows = ",".join(
        f'{{"symbol":"A{n}USDT","status":"TRADING","baseAsset":"A{n}","quoteAsset":"USDT","isSpotTradingAllowed":true,"permissions":[],'
        f'"permissionSets":[["SPOT"]],"filters":[]}}'
        for n in range(count)
    )

    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=f'{{"symbols":[{rows}]}}'.encode())

    async with serving(handle) as url:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", MEMORY, url, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()}
        )
        output, _ = await process.communicate()
    *said, peak = output.decode().splitlines()
    assert int(peak) < 200
    assert bool(said) == (count > 10_000)


@pytest.mark.parametrize(
    ("asked", "target", "stays"),
    [
        ("https://api.example.com/v1", "https://api.example.com/v2", True),
        ("https://api.example.com/v1", "/v2", True),
        ("http://api.example.com/v1", "https://api.example.com/v1", True),
        ("https://api.example.com/v1", "http://api.example.com/v1", False),
        ("https://api.example.com/v1", "https://api.example.com:8443/v1", False),
        ("https://api.example.com/v1", "https://www.example.com/v1", False),
        ("https://api.example.com/v1", "https://192.168.1.1/", False),
        ("https://api.example.com/v1", "https://[::1/", False),
    ],
)
async def test_a_redirect_stays_with_its_host_and_https(asked: str, target: str, stays: bool) -> None:
    params: Any = SimpleNamespace(url=URL(asked), response=SimpleNamespace(headers={"Location": target}))
    async with aiohttp.ClientSession() as session:
        if stays:
            await _stay(session, SimpleNamespace(), params)
        else:
            with pytest.raises(Unwelcome, match="a redirect to"):
                await _stay(session, SimpleNamespace(), params)
