"""The one place that reads the time.

Time is an argument everywhere below the service: functions take ``now`` in UTC epoch milliseconds. The service
and ``__main__`` own a clock and pass its readings down. A sped-up clock lets a simulated month pass in minutes
through the same code, and two processes that are given the same specification agree on the time.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Final, Protocol

from cryptod.errors import ConfigError

STEP_SHOWN: Final = 3600.0
"""Seconds for which a step of the clock is shown."""

_SPEC = re.compile(r"^(?P<start>\d+)@(?P<anchor>\d+)x(?P<speed>\d+(?:\.\d+)?)$")


class Clock(Protocol):
    """What the service needs of a clock."""

    def now(self) -> int:
        """UTC epoch milliseconds."""
        ...

    def real_seconds(self, seconds: float) -> float:
        """How many real seconds ``seconds`` of this clock's time last."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> int:
        return time.time_ns() // 1_000_000

    def real_seconds(self, seconds: float) -> float:
        return seconds


class SpedClock:
    """A clock that stood at ``start`` when the machine's stood at ``anchor`` and runs ``speed`` times as fast.

    ``start`` and ``anchor`` are UTC epoch milliseconds.
    """

    def __init__(self, start: int, anchor: int, speed: float) -> None:
        if not speed > 0:
            raise ConfigError(f"clock speed must be above 0, not {speed}")
        self.start, self.anchor, self.speed = start, anchor, speed
        self._rate, self._zero = speed / 1_000_000, start - anchor * speed

    def now(self) -> int:
        return int(time.time_ns() * self._rate + self._zero)

    def real_seconds(self, seconds: float) -> float:
        return seconds / self.speed

    def __str__(self) -> str:
        return f"{self.start}@{self.anchor}x{self.speed:g}"


class StepWatch:
    """Whether somebody stepped the machine's clock: its distance from the monotonic one, which nobody can step.

    ``wall`` and ``monotonic`` give seconds.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._offset = wall() - monotonic()
        self._at = -STEP_SHOWN
        self.step = 0.0
        """Seconds of the latest step, for as long as it is worth showing; 0 without one."""

    def stepped(self) -> bool:
        """Look now: whether there was a step since the last look. Less than a second is the slewing of a time daemon."""
        now = self._monotonic()
        offset = self._wall() - now
        step, self._offset = offset - self._offset, offset
        if abs(step) < 1.0:
            if now - self._at > STEP_SHOWN:
                self.step = 0.0
            return False
        self.step, self._at = step, now
        return True


def parse_clock(spec: str) -> Clock:
    """``""`` or ``system`` is the machine's clock; ``START@ANCHORxSPEED`` a sped one (see `SpedClock`)."""
    if spec in ("", "system"):
        return SystemClock()
    match = _SPEC.match(spec)
    if match is None:
        raise ConfigError(f"clock {spec!r} is not understood", hint="use START@ANCHORxSPEED as `cryptod simulate` prints it, or 'system'")
    return SpedClock(int(match["start"]), int(match["anchor"]), float(match["speed"]))
