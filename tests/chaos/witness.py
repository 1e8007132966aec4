"""A witness: a client in a thread that reads all the time, remembers every forecast that it saw, and notes when it got no answer.

Knows the client and what a forecast is made of; nothing of who is killed, or of what the ledger should hold.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cryptod.client import Client
from cryptod.errors import CryptodError, RequestError
from cryptod.replies import Forecast
from cryptod.store.ledger import Issue

PAUSE = 0.004
"""Seconds between two reads: some hundred forecasts a second, and the machine has other work."""
CLEARED = 0.02
"""Share of the reads before which a forecast is cleared away, so that it is computed anew when it is asked for."""


class Sight(NamedTuple):
    """Which forecast it was that a client saw."""

    symbol: str
    cutoff: int
    issued: int


def digest(columns: Sequence[object], model: str, close: float, flags: Sequence[str], score: float) -> bytes:
    """Sixteen bytes that stand for all figures of a forecast, to the last bit."""
    found = hashlib.blake2b(repr((model, close, tuple(flags), np.float32(score).tobytes())).encode(), digest_size=16)
    for column in columns:
        found.update(np.asarray(column, np.float32).tobytes())
    return found.digest()


def seen(forecast: Forecast) -> tuple[Sight, bytes]:
    """A forecast as a client has it."""
    columns = (forecast.quantiles, forecast.p_up, forecast.volatility)
    said = digest(columns, forecast.model, forecast.close, forecast.flags, forecast.score)
    return Sight(forecast.symbol, forecast.cutoff, forecast.issued), said


def kept(issue: Issue, row: int) -> tuple[Sight, bytes]:
    """A row of an issue as the ledger has it."""
    assert issue.score is not None
    columns = (issue.quantiles[row], issue.p_up[row], issue.volatility[row])
    said = digest(columns, issue.models[row], float(issue.close[row]), issue.flags[row], float(issue.score[row]))
    return Sight(issue.symbols[row], issue.cutoff, issue.issued), said


class Witness:
    """Reads from its making until `end`. Its lists may be read at any time.

    ``sights``: every forecast that was seen; ``changed``: those that were seen again with other figures; ``reads``: answered ones;
    ``silences``: (begin, end, why) of each read that nobody answered, in monotonic seconds; ``refusals``: what was refused, and why.
    """

    def __init__(self, socket: str, seed: int) -> None:
        self.sights: dict[Sight, bytes] = {}
        self.changed: list[Sight] = []
        self.silences: list[tuple[float, float, str]] = []
        self.refusals: dict[str, int] = {}
        self.reads = 0
        self._socket, self._random = socket, random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name=f"witness-{seed}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _live(self) -> None:
        # Without patience: what the client smooths over is to be seen here.
        with Client(self._socket, timeout=120.0, patience=0.0) as client:  # a machine may be slow
            while not self._stop.wait(PAUSE):
                began = time.monotonic()
                try:
                    self._read(client)
                except RequestError as error:
                    text = f"{error.code}: {error.message}"
                    self.refusals[text] = self.refusals.get(text, 0) + 1
                except CryptodError as error:
                    self.silences.append((began, time.monotonic(), error.message))
                else:
                    self.reads += 1

    def _read(self, client: Client) -> None:
        if self.sights and self._random.random() < 0.5:
            symbol = self._random.choice(tuple({sight.symbol for sight in list(self.sights)[-20:]}))
            if self._random.random() < CLEARED:
                client.cache_clear([symbol])
            self._remember(client.get(symbol))
        else:
            for forecast in client.get_many().values():
                self._remember(forecast)

    def _remember(self, forecast: Forecast) -> None:
        sight, said = seen(forecast)
        if self.sights.setdefault(sight, said) != said:
            self.changed.append(sight)
