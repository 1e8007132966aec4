"""A forecast as it goes over the wire: the pairs that were rendered when it was made, and the four that are known when it is sent.

Knows the shape of the map; nothing of sockets, caches or commands.
"""

from __future__ import annotations

import struct
from typing import Final

import msgpack

from cryptod.daemon.publisher import HEADER
from cryptod.store.forecasts import Entry

FRESH: Final = HEADER + b"\xa5stale\xc2\xa6reason\xc0"
_STALE: Final = HEADER + b"\xa5stale\xc3\xa6reason"
_AGE: Final = struct.Struct(">9sq5sd").pack


def answer(entry: Entry, now: int, reason: str | None) -> tuple[bytes, bytes]:
    """The map in two parts: why it is stale if it is, until when it is cached, how old it is now; and the rendered pairs."""
    state = FRESH if reason is None else _STALE + msgpack.packb(reason)
    return state + _AGE(b"\xa7expires\xd3", entry.expires, b"\xa3age\xcb", max(0, now - entry.issued) / 1000), entry.body
