"""How an exchange's HTTP answers come in: bounded in size, and from the host that was asked.

Knows aiohttp, no exchange. A body may have 32 MB once it is decompressed; it is decompressed piece by piece, so that one
that grows without end takes no more memory than that. What a body becomes as Python objects is estimated before it is
decoded. A redirect is followed to the same host over https only.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import msgspec
from yarl import URL

MOST_BYTES: Final = 32 << 20
"""Of a decompressed body. The largest known, Binance's list of markets, has 20 MB."""
MOST_MEMORY: Final = 96 << 20
"""Of the objects that a body becomes, by the estimate of `decoded`."""
_WIDE: Final = 8 << 20
"""A larger body with characters of four bytes is refused: as text, it would take four times its size."""
_OBJECT, _LIST, _VALUE = 240, 64, 60
"""Bytes of memory that a JSON object, list and value take."""


class Unwelcome(Exception):
    """An answer that is not taken. The text says why; ``hint`` what to do."""

    hint = "check exchange.id and exchange.url, and what stands between this machine and the exchange (a proxy?)"


class _Bounded(aiohttp.ClientResponse):
    """A response whose text has at most `MOST_BYTES`. Its session must not decompress."""

    async def text(self, encoding: str | None = None, errors: str = "strict") -> str:
        body = await self._decompressed()
        if len(body) > _WIDE and max(body) >= 0xF0:
            raise Unwelcome(f"an answer of {len(body) >> 20} MB in unusual characters")
        return body.decode(encoding or "utf-8", errors)

    async def _decompressed(self) -> bytes:
        coding = self.headers.get("Content-Encoding", "identity").strip().lower()
        if coding not in ("identity", "gzip", "deflate", ""):
            raise Unwelcome("an answer in a compression that was not asked for")
        unpack = zlib.decompressobj(zlib.MAX_WBITS | 32) if coding in ("gzip", "deflate") else None
        body = bytearray()
        async for piece in self.content.iter_any():
            if unpack is not None:
                try:
                    body += unpack.decompress(piece, MOST_BYTES + 1 - len(body))
                except zlib.error as error:
                    raise aiohttp.ClientPayloadError(f"a compressed answer that is broken: {error}") from error
            else:
                body += piece
            if len(body) > MOST_BYTES:
                raise Unwelcome(f"an answer of more than {MOST_BYTES >> 20} MB")
        return bytes(body)


def session(connector: aiohttp.BaseConnector, trust_env: bool) -> aiohttp.ClientSession:
    """A session whose responses are bounded and that does not leave the host that it was sent to."""
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_stay)
    return aiohttp.ClientSession(
        connector=connector, trust_env=trust_env, response_class=_Bounded, auto_decompress=False, trace_configs=[trace]
    )


async def _stay(session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams) -> None:
    headers = params.response.headers
    try:
        target = params.url.join(URL(headers.get("Location") or headers.get("URI") or ""))
        same = target.scheme == "https" and (target.host, target.port) == (params.url.host, params.url.with_scheme("https").port)
        where = f"{target.scheme}://{target.host or ''}:{target.port or ''}"
    except ValueError:
        same, where = False, "no address"
    if not same:
        raise Unwelcome(f"a redirect to {where}")


def decoded(body: str) -> Any:
    """The body's JSON. `Unwelcome` if it would take too much memory, `msgspec.DecodeError` if it is none."""
    if len(body) > _WIDE // 8:
        memory = _OBJECT * body.count("{") + _LIST * body.count("[") + _VALUE * body.count(",")
        if memory > MOST_MEMORY:
            raise Unwelcome(f"an answer that would take {memory >> 20} MB of memory")
    return msgspec.json.decode(body)


def cleaned(text: str) -> str:
    """An exchange's own words, on one line, cut short, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text[:1000].split()))[:200]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the exchange asks to wait, if it says a number."""
    for key, value in headers.items():
        if key.lower() == "retry-after":
            try:
                return max(0.0, float(value))
            except ValueError:
                return None
    return None
