"""When periodic work is due: cron expressions in UTC, each missed turn caught up once.

Pure: knows no clock, no store and no job. The service passes ``now`` in, and keeps ``last_runs`` where a restart finds it.
cronsim gives the turns (UTC has no daylight saving, so every expression means one instant); `schedule`, which knows
neither UTC nor missed turns, dispatches the housekeeping inside the service instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cronsim import CronSim

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Periodic:
    """One row of the table of periodic work.

    ``lead`` (ms) moves every turn that much earlier than the expression says: forecasts are generated anew
    five minutes before the retrain that ``cron`` names.
    """

    name: str
    cron: str
    enabled: bool = True
    lead: int = 0


def next_turn(cron: str, after: int) -> int:
    """The first turn of ``cron`` strictly after ``after`` (both UTC ms)."""
    turn: datetime = next(CronSim(cron, _EPOCH + timedelta(milliseconds=after)))
    return int((turn - _EPOCH) / timedelta(milliseconds=1))


class Scheduler:
    """Says what is due, level-triggered: a row is due while a turn has passed since its last run, however many did.

    ``last_runs`` (name -> UTC ms) comes from the store. A row that never ran starts counting at ``born``, so that a fresh
    install does not catch up with turns from before it existed.
    """

    def __init__(self, rows: Iterable[Periodic], last_runs: Mapping[str, int], born: int, paused: Iterable[str] = ()) -> None:
        self.rows = {row.name: row for row in rows}
        self.paused = set(paused)
        """Rows whose turns do not come until they are resumed; what was missed is caught up then, as after a stop."""
        self._last = dict(last_runs)
        self._next: dict[str, int] = {}
        for name in self.rows:
            self._last.setdefault(name, born)

    @property
    def last_runs(self) -> dict[str, int]:
        return dict(self._last)

    def next_run(self, name: str) -> int:
        """The next turn after the last run; it lies in the past while the row is due."""
        if name not in self._next:
            row = self.rows[name]
            self._next[name] = next_turn(row.cron, self._last[name] + row.lead) - row.lead
        return self._next[name]

    def due(self, now: int) -> list[str]:
        """Names of the enabled rows of which a turn has passed since their last run."""
        for name, last in self._last.items():
            if last > now:  # the clock was stepped back: a last run in the future would silence the row until then
                self._last[name] = now
                self._next.pop(name, None)
        return [row.name for row in self.rows.values() if self.comes(row.name) and self.next_run(row.name) <= now]

    def comes(self, name: str) -> bool:
        """Whether the row has turns at all: it is neither disabled nor paused."""
        return self.rows[name].enabled and name not in self.paused

    def ran(self, name: str, now: int) -> None:
        """The row's work was started at ``now``; every turn up to now counts as done."""
        self._last[name] = now
        self._next.pop(name, None)

    def replace(self, rows: Iterable[Periodic], now: int) -> None:
        """Take other expressions (a reload); last runs stay."""
        self.rows = {row.name: row for row in rows}
        self._next.clear()
        for name in self.rows:
            self._last.setdefault(name, now)

    def describe(self, now: int) -> list[dict[str, Any]]:
        """Rows for `cryptoctl schedule`."""
        return [
            {
                "name": row.name,
                "cron": row.cron,
                "lead": row.lead // 1000,
                "enabled": row.enabled,
                "paused": row.name in self.paused,
                "last": self._last[row.name],
                "next": max(self.next_run(row.name), now) if self.comes(row.name) else None,
            }
            for row in self.rows.values()
        ]
