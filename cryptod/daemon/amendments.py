"""What the operator has changed of the universe at run time: coins added and removed, on top of what the configuration names.

Knows the records, where the changes outlive a restart, and nothing of exchanges. The last word about a coin holds, against
the configuration too: who removes a coin that ``universe.include`` names does not want it now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from cryptod.daemon.records import Records

_RECORD: Final = "amendments"


class Amendments:
    """``added`` and ``removed``: symbols, in the order in which they were named; none is in both."""

    def __init__(self, records: Records) -> None:
        self._records = records
        saved: dict[str, Any] = records.get(_RECORD) or {}
        self.added: tuple[str, ...] = tuple(saved.get("added", ()))
        self.removed: tuple[str, ...] = tuple(saved.get("removed", ()))

    def add(self, symbol: str) -> bool:
        """The coin is to be followed, whatever its volume; whether that is new."""
        return self._change((*_without(self.added, symbol), symbol), _without(self.removed, symbol))

    def remove(self, symbol: str, *, was_followed: bool) -> bool:
        """The coin is not to be followed; whether that is new. One that was added and never followed is forgotten altogether."""
        forgotten = symbol in self.added and not was_followed
        removed = _without(self.removed, symbol) if forgotten else (*_without(self.removed, symbol), symbol)
        return self._change(_without(self.added, symbol), removed)

    def include(self, configured: Iterable[str]) -> tuple[str, ...]:
        """The coins that are followed whatever their volume."""
        return tuple(symbol for symbol in dict.fromkeys((*configured, *self.added)) if symbol not in self.removed)

    def exclude(self, configured: Iterable[str]) -> tuple[str, ...]:
        """The coins that are not followed whatever their volume."""
        return tuple(symbol for symbol in dict.fromkeys((*configured, *self.removed)) if symbol not in self.added)

    def rename(self, spelt: Mapping[str, str]) -> None:
        """Take over the exchange's own spelling of names."""
        added, removed = (tuple(dict.fromkeys(spelt.get(name, name) for name in names)) for names in (self.added, self.removed))
        self._change(added, _without_all(removed, added))

    def _change(self, added: tuple[str, ...], removed: tuple[str, ...]) -> bool:
        if (set(added), set(removed)) == (set(self.added), set(self.removed)):
            return False
        self.added, self.removed = added, removed
        self._records.set(_RECORD, {"added": list(added), "removed": list(removed)})
        return True


def _without_all(symbols: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(symbol for symbol in symbols if symbol not in others)


def _without(symbols: tuple[str, ...], symbol: str) -> tuple[str, ...]:
    return tuple(other for other in symbols if other != symbol)
