"""The drift watch: the sums of `forecast.drift` as the daemon keeps them, and the one update that each alarm asks for.

Knows the records and the detector; starts nothing itself: the service looks at `unanswered`. Taught in the disk thread, hour by
hour, with what scoring finds to have matured; read by the loop, to which an alarm is one value that is there or not.
"""

from __future__ import annotations

from typing import Any

from cryptod.daemon.records import Records
from cryptod.errors import StoreError
from cryptod.forecast.drift import WATCHES, Alarm, Drift, said
from cryptod.logs import get_logger
from cryptod.market import Float32, Float64

log = get_logger("driftwatch")


class DriftWatch:
    """Kept under the name ``drift`` in the records, so that a restart neither forgets an alarm nor answers it again."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._drift, self._answered = Drift(), 0
        saved: dict[str, Any] | None = records.get("drift")
        if saved is not None:
            try:
                self._drift, self._answered = Drift.restore(saved), int(saved.get("answered", 0))
            except (StoreError, AttributeError, TypeError, ValueError) as error:
                log.warning("the drift watch could not be read; its sums begin anew", error=str(error))

    def mature(self, at: int, quantiles: Float32, outcomes: Float64) -> None:
        """See `Drift.update`."""
        self._drift.update(at, quantiles, outcomes)

    def keep(self) -> None:
        """Write the state down, once all that matured is taken in."""
        self._records.set("drift", self._drift.export() | {"answered": self._answered})

    @property
    def unanswered(self) -> Alarm | None:
        """An alarm that nothing has been done about yet."""
        alarm = self._drift.alarm
        return alarm if alarm is not None and alarm.at > self._answered else None

    def answer(self, alarm: Alarm) -> None:
        """Something is being done about it."""
        self._answered = alarm.at
        self.keep()

    @property
    def coverage(self) -> str:
        """In which way the intervals of the last weeks were too narrow or too wide, in a sentence; or nothing."""
        off = self._drift.off
        if off is None:
            return ""
        wrong = "narrow" if off < 0.8 else "wide"
        return f"the 80 % intervals 1 h ahead held in {100 * off:.0f} % of the last weeks' cases: they are too {wrong}"

    @property
    def text(self) -> str:
        """What is wrong, in a sentence, from an alarm until its figure is back in band; or nothing."""
        alarm = self._drift.alarm
        return f"{alarm.text}; lately it is {said(WATCHES[alarm.watch], self._drift.recent)}" if alarm is not None else ""
