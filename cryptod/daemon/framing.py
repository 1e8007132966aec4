"""Where a MessagePack message ends: a scanner that builds nothing.

Knows the sizes that MessagePack's type bytes announce and nothing of sockets or commands. A decoder that builds
objects while the bytes come in lets a few bytes claim much memory (an array header of three bytes allocates half a
megabyte, and headers nest); this one keeps the bytes of one message and the number of elements that are still to come,
however deep they lie, refuses what is too large as soon as headers claim it, and can stop and go on anywhere, so that no
client holds the loop for long.

Format: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from typing import Final

from cryptod.protocol import MAX_REQUEST


class Malformed(ValueError):
    """These bytes are no MessagePack; what follows them cannot be understood either."""


class TooLarge(ValueError):
    """The message is, or announces that it will be, larger than the limit."""


_PLAIN, _ARRAY, _MAP = range(3)


def _announced() -> tuple[tuple[int, int, int, int] | None, ...]:
    """For each type byte: (kind, bytes of the size field, bytes besides, count if it stands in the type byte)."""
    table: list[tuple[int, int, int, int] | None] = [(_PLAIN, 0, 0, 0)] * 256
    for byte in range(16):
        table[0x80 + byte] = (_MAP, 0, 0, byte)
        table[0x90 + byte] = (_ARRAY, 0, 0, byte)
    for byte in range(32):
        table[0xA0 + byte] = (_PLAIN, 0, byte, 0)
    table[0xC1] = None
    for first, extra in ((0xC4, 0), (0xC7, 1), (0xD9, 0)):  # bin, ext, str: 8, 16, 32 bits of size
        for i in range(3):
            table[first + i] = (_PLAIN, 1 << i, extra, 0)
    table[0xCA], table[0xCB] = (_PLAIN, 0, 4, 0), (_PLAIN, 0, 8, 0)
    for i in range(4):
        table[0xCC + i] = table[0xD0 + i] = (_PLAIN, 0, 1 << i, 0)
    for i in range(5):
        table[0xD4 + i] = (_PLAIN, 0, 1 + (1 << i), 0)
    table[0xDC], table[0xDD] = (_ARRAY, 2, 0, 0), (_ARRAY, 4, 0, 0)
    table[0xDE], table[0xDF] = (_MAP, 2, 0, 0), (_MAP, 4, 0, 0)
    return tuple(table)


_ANNOUNCED: Final = _announced()


class Frames:
    """The bytes of one connection, cut into whole messages.

    ``feed`` adds bytes; ``next`` gives the next whole message or None, and ``starved`` then says whether it wants more
    bytes (or only more steps). `Malformed` and `TooLarge` are final: the connection has to be closed.
    """

    __slots__ = ("_at", "_begin", "_bytes", "_limit", "_missing", "starved")

    def __init__(self, limit: int = MAX_REQUEST) -> None:
        self._limit = limit
        self._bytes = bytearray()
        self._begin = 0
        """Where the message that is being scanned begins."""
        self._at = 0
        """Up to where it has been scanned."""
        self._missing = 1
        """How many elements are still to come: the message itself, and what the containers that are open in it lack together."""
        self.starved = True

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        if self._begin:
            del self._bytes[: self._begin]
            self._at -= self._begin
            self._begin = 0
        self._bytes += data

    def __len__(self) -> int:
        """Bytes that are kept and not yet handed out."""
        return len(self._bytes) - self._begin

    def next(self, steps: int = 1 << 30) -> bytes | None:
        """The next whole message; None when ``steps`` elements were looked at, or when bytes are missing."""
        data, at, missing, last = self._bytes, self._at, self._missing, self._begin + self._limit
        end = len(data)
        while steps > 0:
            steps -= 1
            if at >= end:
                if at >= last:
                    raise TooLarge
                break
            row = _ANNOUNCED[data[at]]
            if row is None:
                raise Malformed("the byte 0xc1 is never used")
            kind, width, length, count = row
            here = at + 1 + width
            if width:
                if here > end:
                    break
                size = int.from_bytes(data[at + 1 : here], "big")
                if kind == _PLAIN:
                    length += size
                else:
                    count = size
            if kind == _MAP:
                count *= 2
            here += length
            count += missing - 1
            if here + count > last:
                raise TooLarge
            if here > end:
                break
            at, missing = here, count
            if not missing:
                message = bytes(data[self._begin : at])
                self._begin = self._at = at
                self._missing = 1
                return message
        else:
            self._at, self._missing, self.starved = at, missing, False
            return None
        self._at, self._missing, self.starved = at, missing, True
        return None
