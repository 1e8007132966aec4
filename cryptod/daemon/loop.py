"""The daemon's event loop: asyncio's own, with a short way for sockets on which a request is answered as soon as it is read.

Knows selectors and descriptors; nothing of messages. asyncio needs some 5 us to carry an event from the kernel to a protocol, a
third of what two bare processes need to ask and answer over a Unix socket. A ``direct`` reader is called by the selector itself,
for as long as there is nothing else to do: asyncio gets its turn as soon as another descriptor is ready, a timer is due or a
callback waits.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import select
import selectors
from collections.abc import Callable
from time import monotonic
from typing import Any, Final

BATCH: Final = 32
"""Readers that are called before it is looked what else there is to do: some 0.2 ms."""

Readers = dict[int, Callable[[], bool]]
"""By descriptor. A reader says whether it has read anything; if not (the other side has hung up, say), asyncio sees to it."""


class DirectSelector(selectors.EpollSelector):
    """As its parent, but a descriptor that is in ``direct``, and of which all that is asked for is to read it, is read at once."""

    def __init__(self) -> None:
        super().__init__()
        self.direct: Readers = {}
        self.wanted = False
        """Whether something was scheduled since asyncio asked for events."""
        self._ready = select.epoll.fromfd(os.dup(self.fileno()))
        """The parent's epoll, asked without its detour through keys."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        direct, poll, readable = self.direct, self._ready.poll, select.EPOLLIN
        end = None if timeout is None else monotonic() + timeout
        self.wanted = False
        while True:
            others = False
            for fd, mask in poll(timeout, BATCH):
                read = direct.get(fd)
                if read is None or mask != readable or not read():
                    others = True
            if others:
                return super().select(0)
            if self.wanted or (end is not None and (timeout := end - monotonic()) <= 0):
                return []

    def close(self) -> None:
        self._ready.close()
        super().close()


class DirectLoop(asyncio.SelectorEventLoop):
    """Asyncio's loop on a `DirectSelector`."""

    def __init__(self) -> None:
        self.selector = DirectSelector()
        super().__init__(self.selector)

    def call_soon(self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None) -> asyncio.Handle:
        self.selector.wanted = True
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        self.selector.wanted = True
        return super().call_at(when, callback, *args, context=context)


def direct_readers(loop: asyncio.AbstractEventLoop) -> Readers:
    """Where a `DirectLoop` looks for readers that are called the short way; other loops look nowhere."""
    return loop.selector.direct if isinstance(loop, DirectLoop) else {}
