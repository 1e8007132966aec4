"""What clients may say: streams of valid and half-valid messages, made from a source of chance.

Knows the protocol's table and MessagePack; nothing of the daemon. The same chance gives the same stream. Half-valid means that a
message is right but for one thing: a parameter of another type, one too many, a length that lies, a byte that was turned, an end that
is missing. Such messages get further into the daemon than noise does.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Final

import msgpack

from cryptod.protocol import COMMANDS, EVENT_TOPICS, JOB_KINDS, MAX_REQUEST, NOTIFICATION, REQUEST, RESPONSE, TOP_KEYS, WINDOWS

SYMBOLS: Final = (
    "BTC/USDT", "btcusdt", "btc-usdt", "ETH", "eth/usdt", "SOL/USDT", "NO/PE", "BTC/USDT\n", "BTC/USDT\0", "../../etc/passwd", "/", "",
    "BTC/USDT/..", "%s", "\u212aelvin", "ſ/ß", "\ud7ff", "b t c", "A" * 64, "🪙/USDT", "BTC\u202e/USDT", "-", "__class__", "BTC:USDT",
    "\x1b]0;owned\x07", "\x9b2J", "\x1b[31mBTC\x1b[0m", "\u202eTDSU/CTB", "\u2066BTC\u2069/USDT", "\ufeffBTC/USDT", "B\u200bTC/USDT",
    "\u5e01\u5b89\u4eba\u751f/USDT", "\u043a\u043e\u0442/USDT", "\ufdfa", "\ufdfa" * 32, "e\u0301" * 16, "x" * 32, "x" * 33,
    "\x7f", "\udb40\udc01", "kBONK/USDT:USDT",
    "BTC/USDT:USDT", "b-t-c", "BTC//USDT", " btc ", "<script>", "${jndi:x}", "'; --", "%0a%0d", "\r\nHost: x",
)  # fmt: skip
"""Coins that are followed, in several spellings; coins that are not; texts that have been more than texts elsewhere; and what moves a
cursor, turns the direction of writing, shows nothing or grows when it is normalised."""
NUMBERS: Final = (
    0,
    1,
    2,
    20,
    24,
    25,
    -1,
    127,
    128,
    255,
    256,
    500,
    501,
    20_000,
    20_001,
    2**31,
    2**32 - 1,
    2**32,
    2**63 - 1,
    2**64 - 1,
    -(2**63),
)
NAMES: Final = (*COMMANDS, "gte", "", "GET", "table", "express", "_compute", "__init__", "ping\0", "x" * 300)

pack: Final = msgpack.Packer(use_bin_type=True, unicode_errors="surrogatepass").pack

Maker = Callable[[Random], Any]


def symbol(chance: Random) -> Any:
    return chance.choice(SYMBOLS)


def symbols(chance: Random) -> Any:
    return chance.choice((None, [symbol(chance) for _ in range(chance.randrange(12))]))


FITTING: Final[dict[str, Maker]] = {
    "symbol": symbol,
    "symbols": symbols,
    "by": lambda chance: chance.choice(TOP_KEYS),
    "window": lambda chance: chance.choice(tuple(WINDOWS)),
    "kind": lambda chance: chance.choice(JOB_KINDS),
    "name": lambda chance: chance.choice(("incremental", "full", "pregenerate", "")),
    "level": lambda chance: chance.choice(("error", "critical", "")),
    "topics": lambda chance: chance.choice((None, [], list(EVENT_TOPICS), [chance.choice(EVENT_TOPICS)], ["weather"])),
} | dict.fromkeys(("count", "horizon", "hours", "job", "limit", "steps", "since", "until"), lambda chance: chance.choice(NUMBERS))
"""What fits a parameter of that name; for one that is not here, anything is tried."""


def parameters(chance: Random, name: str) -> list[Any]:
    """What a command wants, or less where it has defaults."""
    kind = COMMANDS[name].request
    made = [FITTING.get(field, anything)(chance) for field in kind._fields]
    required = len(made) - len(kind._field_defaults)
    return made if chance.randrange(4) else made[: required + chance.randrange(len(kind._field_defaults) + 1)]


def anything(chance: Random, depth: int = 0) -> Any:
    """A value of any type."""
    kind = chance.randrange(10 if depth <= 8 else 7)
    if kind < 2:
        return chance.choice((None, True, False))
    if kind < 4:
        return chance.choice(NUMBERS)
    if kind == 4:
        return chance.choice((0.0, -0.0, 1.5, float("nan"), float("inf"), 1e308, 5e-324))
    if kind == 5:
        return chance.choice((*SYMBOLS, *NAMES))
    if kind == 6:
        size = chance.choice((0, 1, 31, 32, 255, 256))
        return chance.choice((bytes(size), msgpack.ExtType(chance.randrange(128), bytes(size))))
    inner = [anything(chance, depth + 1) for _ in range(chance.choice((0, 1, 1, 2, 3, 15, 16)) if depth < 3 else 1)]
    return inner if kind < 9 else {f"k{i}": value for i, value in enumerate(inner)}


def request(chance: Random) -> list[Any]:
    """A valid request."""
    name = chance.choice(tuple(COMMANDS))
    return [REQUEST, chance.randrange(1 << chance.choice((6, 8, 16, 32))), name, parameters(chance, name)]


def _bent(chance: Random) -> bytes:
    """A request with one thing wrong, still MessagePack."""
    message = request(chance)
    what = chance.randrange(7)
    if what == 0:
        message[0] = chance.choice((RESPONSE, NOTIFICATION, 3, -1, None, "0", 0.0, 256))
    elif what == 1:
        message[1] = anything(chance)
    elif what == 2:
        message[2] = chance.choice((*NAMES, anything(chance)))
    elif what == 3:
        message[3] = anything(chance)
    elif what == 4:
        message[3].append(anything(chance))
    elif what == 5 and message[3]:
        message[3][chance.randrange(len(message[3]))] = anything(chance)
    else:
        message = message[: chance.randrange(4)] if chance.randrange(2) else [*message, anything(chance)]
    return bytes(pack(message))


def _broken(chance: Random) -> bytes:
    """A request of which some bytes are not what they were."""
    data = bytearray(pack(request(chance)))
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        what, at = chance.randrange(4), chance.randrange(len(data))
        if what == 0:
            data[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            data[at] = chance.choice((0xC1, 0xDB, 0xDD, 0xDF, 0xC6, 0xC9, 0xDC, 0x9F, 0x8F, 0xFF, 0x00))
        elif what == 2:
            del data[at : at + chance.randrange(1, 4)]
        else:
            data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 5)))
        if not data:
            break
    return bytes(data)


def _nested(chance: Random) -> bytes:
    """Deep, and absurdly deep; sometimes in the place of a parameter."""
    depth = chance.choice((5, 10, 200))
    deep = chance.choice((b"\x91", b"\x81\xa1a", b"\xdc\x00\x01")) * depth + b"\xc0"
    return deep if chance.randrange(2) else b"\x94\x00\x05\xa3get" + deep


def _lying(chance: Random) -> bytes:
    """A header that announces more than comes."""
    size = chance.choice((1, 255, 1000, MAX_REQUEST - 10, MAX_REQUEST, MAX_REQUEST + 1, 2**31, 2**32 - 1))
    header = chance.choice((b"\xdb", b"\xdd", b"\xdf", b"\xc6", b"\xc9")) + size.to_bytes(4, "big")
    return chance.choice((b"", b"\x94\x00\x05\xa3get\x91", b"\x94\x00")) + header + bytes(chance.randrange(20))


def largest(chance: Random) -> bytes:
    """A request of the largest size, or of one byte more or less."""
    empty = len(pack([REQUEST, 7, "get", ["x" * 40_000]])) - 40_000
    return bytes(pack([REQUEST, 7, "get", ["x" * (MAX_REQUEST - empty + chance.randrange(-1, 2))]]))


def names(count: int, length: int = 3, first: int = 0) -> list[str]:
    """So many different names of capitals."""
    found = []
    for number in range(first, first + count):
        letters = []
        for _ in range(length):
            number, letter = divmod(number, 26)
            letters.append(chr(65 + letter))
        found.append("".join(letters))
    return found


LETTERS: Final = ("x", "\u202e", "\x1b[2J", "\u5e01", "\ufdfa", "/", "BTC/USDT")


def _long(chance: Random) -> str:
    """A text of nearly the largest size, of one kind of letter."""
    letter = chance.choice(LETTERS)
    return letter * (60_000 // len(letter.encode()))


def costly(chance: Random) -> list[Any]:
    """A valid request of nearly the largest size that means much work, or would mean it if it were believed."""
    what = chance.randrange(9)
    many = chance.choice((names(16_000), names(9_000, 5), ["BTC/USDT"] * 6_000, [symbol(chance) for _ in range(3_000)], [_long(chance)]))
    if what < 3:
        return ["get_many", [many]]
    if what < 5:
        return ["export", [chance.choice(("forecasts", "ledger", "candles", "scores")), many]]
    if what == 5:
        return ["export", ["candles", None, 0, 0, chance.choice((_long(chance), "9" * 50_000, ":" * 60_000))]]
    if what == 6:
        return [chance.choice(("get", "scores", "candles", "symbols_add", "symbols_remove")), [_long(chance)]]
    if what == 7:
        return ["subscribe", [["jobs"] * 12_000]]
    return [_long(chance), []]


def large(chance: Random) -> bytes:
    """One such request; sometimes it is cut, or bent in one byte, or small ones of all kinds stand around it."""
    method, given = costly(chance)
    data = bytes(pack([REQUEST, chance.randrange(1 << 32), method, given]))[:MAX_REQUEST]
    what = chance.randrange(6)
    if what == 0:
        return data[: chance.randrange(len(data))]
    if what == 1:
        at = chance.randrange(len(data))
        return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
    return stream(chance) + data + stream(chance) if what == 2 else data


def message(chance: Random) -> bytes:
    """One message, or what is meant to be none; a few hundred bytes at most."""
    what = chance.randrange(20)
    if what < 9:
        return bytes(pack(request(chance)))
    if what < 13:
        return _bent(chance)
    if what < 16:
        return _broken(chance)
    if what == 16:
        return bytes(pack(anything(chance)))
    if what == 17:
        return _nested(chance)
    return _lying(chance) if what == 18 else bytes(chance.randrange(256) for _ in range(chance.randrange(1, 12)))


def stream(chance: Random) -> bytes:
    """What one client sends; now and then it stops in the middle of a message."""
    said = b"".join(message(chance) for _ in range(chance.choice((1,) * 12 + (2,) * 8 + (3, 4, 8, 30))))
    return said if chance.randrange(4) else said[: chance.randrange(len(said) + 1)]
