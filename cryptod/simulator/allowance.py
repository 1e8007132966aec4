"""How much a client may ask for in a minute, and the ban of those who do not stop.

Knows numbers and monotonic seconds only; what a request weighs is the `Face`'s.
"""

from __future__ import annotations

from typing import Final

PATIENCE: Final = 50
"""Requests that may be refused with 429 in a minute before the address is banned."""
BAN_SECONDS: Final = 120


class Allowance:
    """Request weight used in the current real minute, and the ban of those who do not stop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = self.refused = self.peak = 0
        self._minute = -1
        self._banned_until = 0.0

    def charge(self, weight: int, now: float) -> tuple[int, float]:
        """(HTTP status, Retry-After seconds) of a request of ``weight`` at ``now`` (monotonic seconds)."""
        if now < self._banned_until:
            return 418, self._banned_until - now
        if int(now // 60) != self._minute:
            self._minute, self.used, self.refused = int(now // 60), 0, 0
        self.used += weight
        self.peak = max(self.peak, self.used)
        if self.used <= self.limit:
            return 200, 0.0
        self.refused += 1
        if self.refused > PATIENCE:
            self._banned_until = now + BAN_SECONDS
            return 418, float(BAN_SECONDS)
        return 429, 60 - now % 60
