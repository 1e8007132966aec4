"""Backups: one file of the whole state at a time, made in a child and handed out piece by piece.

Knows the pool, and where the file lies until it was fetched; what is in it is `cryptod.store.backup`'s business.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from cryptod.errors import RequestError, StoreError
from cryptod.logs import get_logger
from cryptod.protocol import ERROR_CODES
from cryptod.worker.messages import BackedUp, BackupOrder, Failed, Report
from cryptod.worker.pool import Pool

FOLDER: Final = "backup"
PIECE: Final = 512 << 10
"""Bytes of one reply."""
DEADLINE: Final = 3600.0
SILENCE: Final = 600.0
"""LMDB copies a store in one call, which reports nothing meanwhile."""
KEPT_S: Final = 600.0
"""A file that nobody fetches is removed after so many seconds."""
ROOM: Final = 2
"""Free space that is asked for, as a multiple of what the stores take: the copy of a store and the file itself."""

log = get_logger("backups")


class Backups:
    """``state``: the state directory; ``market``: what its candles belong to; ``now()``: UTC ms."""

    def __init__(self, pool: Pool, state: Path, market: Mapping[str, Any], now: Callable[[], int]) -> None:
        self._pool, self._state, self._market, self._now = pool, state, market, now
        self._folder = state / FOLDER
        self._making = False
        self._token = ""
        self._size = 0
        self._removal: asyncio.TimerHandle | None = None
        shutil.rmtree(self._folder, ignore_errors=True)  # what a daemon left that was killed

    async def piece(self, token: str, offset: int) -> dict[str, Any]:
        """``{token, size, offset, data}``: the bytes at ``offset`` of the backup ``token``; with an empty token, of a new one.

        Raises `RequestError`, `StoreError` or `WorkerError`. The file is removed when its last byte was read.
        """
        if not token:
            token = await self._make()
        if token != self._token:
            raise RequestError("not_found", "there is no such backup any more", hint="begin again: `cryptoctl backup FILE`")
        if not 0 <= offset <= self._size:
            raise RequestError("bad_request", f"offset is {offset}", hint=f"0 to {self._size}")
        size = self._size
        data = await asyncio.to_thread(self._read, token, offset)
        self._keep(0.0 if offset + len(data) >= size else KEPT_S)
        return {"token": token, "size": size, "offset": offset, "data": data}

    def close(self) -> None:
        """Remove the file. Idempotent."""
        if self._removal is not None:
            self._removal.cancel()
            self._removal = None
        self._token = ""
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _make(self) -> str:
        if self._making or self._token:
            raise RequestError("conflict", "another backup is being taken", hint="wait until it is done")
        self._making = True
        try:
            await asyncio.to_thread(self._look_for_room)
            token = secrets.token_hex(8)
            order = BackupOrder(now=self._now(), state=str(self._state), path=str(self._path(token)), market=dict(self._market))
            found = await self._pool.run(order, on_report=_heard, deadline_s=DEADLINE, silence_s=SILENCE)
            if isinstance(found, Failed):
                raise RequestError(found.code if found.code in ERROR_CODES else "internal", found.error, hint=found.hint)
            assert isinstance(found, BackedUp)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        finally:
            self._making = False
        self._token, self._size = token, found.bytes
        self._keep(KEPT_S)
        log.info("backup made", bytes=found.bytes, files=found.files, duration=round(found.seconds, 3))
        return token

    def _look_for_room(self) -> None:
        needed = ROOM * sum(file.stat().st_size for file in self._state.glob("*/data.mdb"))
        free = shutil.disk_usage(self._state).free
        if free < needed:
            raise StoreError(
                f"a backup needs up to {needed >> 20} MB free in {self._state} for a moment, and {free >> 20} MB are",
                hint="free some space",
            )
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def _path(self, token: str) -> Path:
        return self._folder / f"{token}.tar.gz"

    def _read(self, token: str, offset: int) -> bytes:
        try:
            handle = os.open(self._path(token), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                return os.pread(handle, PIECE, offset)
            finally:
                os.close(handle)
        except OSError as error:
            raise StoreError(f"the backup cannot be read: {error.strerror}", hint="begin again: `cryptoctl backup FILE`") from error

    def _keep(self, seconds: float) -> None:
        if self._removal is not None:
            self._removal.cancel()
        self._removal = asyncio.get_running_loop().call_later(seconds, self.close)


def _heard(report: Report) -> None:
    """Progress says to the pool that the child is alive; nobody else asks for it."""
