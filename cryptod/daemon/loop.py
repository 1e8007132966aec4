"""The daemon's event loop: asyncio's own, with a short way for sockets on which a request is answered as soon as it is read.

Knows selectors, descriptors and Linux's timerfd; nothing of messages. asyncio needs some 5 us to carry an event from the kernel to a
protocol, a third of what two bare processes need to ask and answer over a Unix socket. A ``direct`` reader is called by the
selector itself, for as long as there is nothing else to do: asyncio gets its turn as soon as another descriptor is ready, a
timer is due or a callback waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import os
import select
import selectors
import time
from collections.abc import Callable
from typing import Any, Final

BATCH: Final = 32
"""Readers that are called before it is looked what else there is to do: some 0.2 ms."""

Readers = dict[int, Callable[[], bool]]
"""By descriptor. A reader says whether it has read anything; if not (the other side has hung up, say), asyncio sees to it."""

_libc = ctypes.CDLL(None, use_errno=True)


class Alarm:
    """A descriptor that becomes readable at a time (timerfd_create(2)), which Python has from 3.13 on."""

    def __init__(self) -> None:
        self.fd: int = _libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._times = (ctypes.c_long * 4)()
        """Seconds and nanoseconds of the interval between alarms, which is none, and of the time until the first one."""

    def set(self, seconds: float | None) -> None:
        """So long from now, or never; an alarm that has gone off is silent again."""
        self._times[2], self._times[3] = divmod(0 if seconds is None else max(1, int(seconds * 1e9)), 1_000_000_000)
        _libc.timerfd_settime(self.fd, 0, self._times, None)


class DirectSelector(selectors.EpollSelector):
    """As its parent, but a descriptor that is in ``direct``, and of which all that is asked for is to read it, is read at once.

    The timeout is an alarm beside the other descriptors: it is set once for asyncio's question, not for every request in between.
    """

    def __init__(self) -> None:
        super().__init__()
        self.direct: Readers = {}
        self.wanted = False
        """Whether asyncio wants to go on: it does not wait, or something was scheduled since it asked for events."""
        self._alarm = Alarm()
        self._ready = select.epoll.fromfd(os.dup(self.fileno()))
        """The parent's epoll, asked without its detour through keys."""
        self._ready.register(self._alarm.fd, select.EPOLLIN)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        direct, poll, readable = self.direct, self._ready.poll, select.EPOLLIN
        self.wanted = timeout is not None and timeout <= 0
        wait = 0 if self.wanted else None
        if not self.wanted:
            self._alarm.set(timeout)
        while True:
            others = False
            for fd, mask in poll(wait, BATCH):
                read = direct.get(fd)
                if read is None or mask != readable or not read():
                    others = True
            if others:
                return super().select(0)
            if self.wanted:
                return []

    def close(self) -> None:
        self._ready.close()
        os.close(self._alarm.fd)
        super().close()


class DirectLoop(asyncio.SelectorEventLoop):
    """Asyncio's loop on a `DirectSelector`."""

    def __init__(self) -> None:
        self.selector = DirectSelector()
        super().__init__(self.selector)

    def call_soon(  # type: ignore[override]  # typeshed ties args to the callback's own
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        self.selector.wanted = True
        return super().call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]  # as above
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        self.selector.wanted = True
        return super().call_at(when, callback, *args, context=context)


def direct_readers(loop: asyncio.AbstractEventLoop) -> Readers:
    """Where a `DirectLoop` looks for readers that are called the short way; other loops look nowhere."""
    return loop.selector.direct if isinstance(loop, DirectLoop) else {}
