"""The frame of a record: version (1 byte), CRC-32 of key and body (4 bytes, big-endian), body.

Knows bytes only. LMDB checks nothing of what it holds, so each record can tell by itself that it was damaged, or that it
stands under another's key.
"""

from __future__ import annotations

import zlib


class DamagedRecord(ValueError):
    """The bytes are not a record of this version, or have changed since they were one."""


def framed(version: int, body: bytes, key: bytes = b"") -> bytes:
    return bytes((version,)) + zlib.crc32(body, zlib.crc32(key)).to_bytes(4, "big") + body


def opened(version: int, record: bytes, key: bytes = b"") -> bytes:
    """The body. Raises `DamagedRecord`."""
    body = record[5:]
    if not body:
        raise DamagedRecord("it is cut short")
    if record[0] != version:
        raise DamagedRecord(f"its version is {record[0]}, and {version} is known")
    if zlib.crc32(body, zlib.crc32(key)) != int.from_bytes(record[1:5], "big"):
        raise DamagedRecord("its checksum is wrong")
    return body
