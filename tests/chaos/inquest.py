"""What must hold of a state directory whose daemon is dead: the ledger, the checkpoints, the candles; and that nobody outlived it.

Each look gives a list of sentences, empty where all is well, and remembers what it saw for the next one. Knows the stores and the truth
(the generated market); nothing of how the daemon died.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from cryptod.errors import CheckpointError
from cryptod.market import CANDLE, NOT_FETCHED, UInt8
from cryptod.simulator.listing import Market
from cryptod.store import ledger
from cryptod.store.candles import CandleStore
from cryptod.store.checkpoints import CURRENT, MANIFESTS, CheckpointStore, load_checkpoint
from cryptod.store.environment import open_environment
from cryptod.store.files import TEMPORARY
from cryptod.store.ledger import Ledger
from tests.chaos.witness import Sight, kept

HOUR_MS = 3_600_000


def family(session: int) -> dict[int, str]:
    """Process id -> name of all that live in a session, which the daemon's descendants never leave."""
    found = {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            if os.getsid(pid) != session:
                continue
            before, _, after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
            if after.split()[0] in "ZX":
                continue
            name = before.partition("(")[2]
            if not name.startswith("cryptod-") and b"forkserver" in Path(f"/proc/{pid}/cmdline").read_bytes():
                name = "forkserver"
        except OSError:
            continue  # gone in this moment
        found[pid] = name
    return found


class LedgerInquest:
    """Every forecast that was seen stands in the ledger as it was seen, for good."""

    def __init__(self, state: Path) -> None:
        self._path = state / "serving"
        self._found: set[Sight] = set()

    @property
    def found(self) -> int:
        return len(self._found)

    def look(self, sights: Mapping[Sight, bytes], *, again: bool = False) -> list[str]:
        """``again``: look also for what was found before."""
        wanted = {sight: said for sight, said in sights.items() if again or sight not in self._found}
        if not wanted:
            return []
        cutoffs = [sight.cutoff for sight in wanted]
        wrong = []
        environment = open_environment(self._path, databases=ledger.DATABASES, writer=False)
        with environment:
            opened = Ledger(environment)
            for issue in opened.read(min(cutoffs), max(cutoffs) + 1):
                for row in range(len(issue.symbols)):
                    sight, said = kept(issue, row)
                    if sight in wanted:
                        if wanted.pop(sight) != said:
                            wrong.append(f"the ledger has other figures than a client saw: {sight}")
                        self._found.add(sight)
            if opened.damaged:
                wrong.append(f"{opened.damaged} records of the ledger are damaged")
        return wrong + [f"a client saw a forecast that the ledger does not have: {sight}" for sight in wanted]


class CheckpointInquest:
    """Whatever bears a checkpoint's name loads, and loads as it always did; what serves never goes back by itself."""

    def __init__(self, state: Path) -> None:
        self._root = state / "checkpoints"
        self._digests: dict[str, str] = {}
        self._generation = 0
        self.loads = 0

    def look(self) -> list[str]:
        wrong = []
        names = {path.name for path in self._root.iterdir()} if self._root.is_dir() else set()
        for name in sorted(names - {CURRENT, MANIFESTS}):
            if name.startswith(TEMPORARY):
                continue
            try:
                arrays = load_checkpoint(self._root, name).arrays
            except CheckpointError as error:
                wrong.append(f"checkpoint {name} does not load: {error}")
                continue
            self.loads += 1
            found = hashlib.sha256(b"".join(key.encode() + arrays[key].tobytes() for key in sorted(arrays))).hexdigest()
            if self._digests.setdefault(name, found) != found:
                wrong.append(f"checkpoint {name} holds other weights than it did")
        current = CheckpointStore(self._root).load_current()
        wrong += [f"{name} was refused: {why}" for name, why in current.refused.items()]
        if current.generation < self._generation:
            wrong.append(f"generation {current.generation} serves after {self._generation}")
        self._generation = current.generation
        return wrong


class CandleInquest:
    """Every candle is the exchange's; an hour that was known once stays known for as long as it is needed."""

    def __init__(self, state: Path, market: Market, months: int) -> None:
        self._path, self._market, self._hours = state / "candles", market, months * 730
        self._known: dict[str, tuple[int, UInt8]] = {}
        self.compared = 0

    def look(self) -> list[str]:
        if not (self._path / "data.mdb").exists():
            return []
        wrong = []
        with CandleStore.open(self._path, writer=True) as store:  # as a writer: it walks all pages
            for symbol in store.symbols():
                span = store.span(symbol)
                if span is None:
                    continue
                panel, truth = store.panel((symbol,), *span), self._market.panel((symbol,), *span)
                known = panel.status[:, 0] != NOT_FETCHED
                self.compared += int(known.sum())
                bad = known & (panel.status[:, 0] != truth.status[:, 0])
                candle = panel.status[:, 0] == CANDLE
                bad |= candle & ~(panel.values[:, 0] == truth.values[:, 0]).all(axis=1)
                wrong += [f"{symbol} at {span[0] + int(row) * HOUR_MS} is not what the exchange has" for row in np.flatnonzero(bad)[:3]]
                wrong += self._lost(symbol, span, panel.status[:, 0])
                self._known[symbol] = span[0], panel.status[:, 0]
        gone = self._known.keys() - self._symbols()
        return wrong + [f"all candles of {symbol} are gone" for symbol in gone]

    def complete(self, symbols: Collection[str], end: int) -> list[str]:
        """Nothing of these coins' candles up to ``end`` is missing."""
        wrong = []
        with CandleStore.open(self._path) as store:
            for symbol in symbols:
                start = end - self._hours * HOUR_MS
                panel, truth = store.panel((symbol,), start, end), self._market.panel((symbol,), start, end)
                self.compared += len(panel.status)
                if not (np.array_equal(panel.status, truth.status) and np.array_equal(panel.values, truth.values, equal_nan=True)):
                    missing = int((panel.status != truth.status).sum())
                    wrong.append(f"{symbol}: {missing} of {len(panel.status)} hours differ from what the exchange has")
        return wrong

    def _symbols(self) -> set[str]:
        with CandleStore.open(self._path) as store:
            return set(store.symbols())

    def _lost(self, symbol: str, span: tuple[int, int], status: UInt8) -> list[str]:
        """What was known at the last look, is still needed, and is not known any more."""
        start, before = self._known.get(symbol, (span[0], status))
        needed = max(span[0], span[1] - self._hours * HOUR_MS, start)
        old = before[(needed - start) // HOUR_MS :]
        new = status[(needed - span[0]) // HOUR_MS :][: len(old)]
        lost = int(((old != NOT_FETCHED)[: len(new)] & (new == NOT_FETCHED)).sum()) + len(old) - len(new)
        return [f"{symbol}: {lost} hours that were known are lost"] if lost else []
