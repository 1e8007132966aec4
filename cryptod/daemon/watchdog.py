"""What the daemon tells systemd: READY, STATUS, RELOADING, STOPPING, and WATCHDOG=1 while it is earned.

A beat is sent only while every watched part has itself reported progress within its own limit. The beats are sent from
the daemon's one loop, so a hung loop sends none; and a part that has stopped turning is not covered up by a loop that
still turns. Children are watched by the pool, which ends a silent one; the pool's own turn is one of the parts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Protocol


class Notifier(Protocol):
    """sdnotify.SystemdNotifier, or a fake."""

    def notify(self, state: str) -> None: ...


class Watchdog:
    """Parts beat; ``late`` names those that have not done so in time.

    ``limits``: part -> seconds within which it must beat. ``monotonic`` gives seconds.
    """

    def __init__(self, notifier: Notifier, limits: Mapping[str, float], monotonic: Callable[[], float]) -> None:
        self._notifier = notifier
        self._limits = dict(limits)
        self._monotonic = monotonic
        self._beats = dict.fromkeys(limits, monotonic())
        self._status = ""

    def beat(self, part: str) -> None:
        self._beats[part] = self._monotonic()

    def late(self) -> list[str]:
        now = self._monotonic()
        return [part for part, limit in self._limits.items() if now - self._beats[part] > limit]

    def ping(self) -> bool:
        """Send WATCHDOG=1 if it is earned."""
        if self.late():
            return False
        self._notifier.notify("WATCHDOG=1")
        return True

    def ready(self, status: str) -> None:
        self._status = status
        self._notifier.notify(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        if text != self._status:
            self._status = text
            self._notifier.notify(f"STATUS={text}")

    def reloading(self) -> None:
        """Announce a reload; MONOTONIC_USEC is what Type=notify-reload (systemd 253) asks for, 252 ignores it."""
        self._notifier.notify(f"RELOADING=1\nMONOTONIC_USEC={int(self._monotonic() * 1_000_000)}")

    def reloaded(self) -> None:
        self._notifier.notify("READY=1")

    def stopping(self) -> None:
        self._notifier.notify("STOPPING=1\nSTATUS=stopping")


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Seconds between beats that systemd's WATCHDOG_USEC asks for (half of it), or None where there is no watchdog."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    try:
        usec = int(environ["WATCHDOG_USEC"])
    except (KeyError, ValueError):
        return None
    return usec / 2_000_000


async def keep_pinging(watchdog: Watchdog, interval: float, on_late: Callable[[list[str]], None]) -> None:
    """Ping for ever; say once when the beats stop being earned. systemd does the rest."""
    said = False
    while True:
        if watchdog.ping():
            said = False
        elif not said:
            said = True
            on_late(watchdog.late())
        await asyncio.sleep(interval)
