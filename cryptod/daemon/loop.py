"""The daemon's event loop: asyncio's own, with a short way for sockets on which a request is answered as soon as it is read.

Knows selectors, descriptors, Linux's epoll and timerfd; nothing of messages. asyncio needs some 5 us to carry an event from the kernel to a
protocol, a third of what two bare processes need to ask and answer over a Unix socket. A ``direct`` reader is called by the
selector itself, for as long as there is nothing else to do: asyncio gets its turn as soon as another descriptor is ready, a
timer is due or a callback waits.

Descriptors can be put into groups. A group has an epoll of its own, which is one descriptor to the loop: however many of a group are
ready, some of them are looked at, and then the others have their turn.
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
from typing import Any, Final, Protocol

BATCH: Final = 32
"""Readers that are called before it is looked what else there is to do: some 0.2 ms."""

PART: Final = 8
"""Descriptors of one group that are looked at before the others."""

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


class _Group:
    """Descriptors that are ready for a part of the time together."""

    def __init__(self, direct: Readers) -> None:
        self._direct = direct
        self.epoll = select.epoll()
        self.members: set[int] = set()
        self.others: list[tuple[int, int]] = []
        """(descriptor, mask) of those that asyncio sees to."""

    def read(self) -> bool:
        direct, others = self._direct, self.others
        others.clear()
        for fd, mask in self.epoll.poll(0, PART):
            read = direct.get(fd)
            if read is None or mask != select.EPOLLIN or not read():
                others.append((fd, mask))
        return not others


class _Epolls:
    """The epoll that a selector has, and those of the groups: each descriptor's own is asked for."""

    def __init__(self, first: select.epoll, groups: dict[int, _Group]) -> None:
        self._first, self._groups = first, groups
        self.fileno, self.poll, self.close = first.fileno, first.poll, first.close

    def _of(self, fd: int) -> select.epoll:
        return self._groups[fd].epoll if fd in self._groups else self._first

    def register(self, fd: int, mask: int) -> None:
        self._of(fd).register(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        self._of(fd).modify(fd, mask)

    def unregister(self, fd: int) -> None:
        self._of(fd).unregister(fd)


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
        # Where `selectors` keeps its epoll, since Python 3.4.
        self._first: select.epoll = self._selector  # type: ignore[has-type]
        self._group_of: dict[int, _Group] = {}
        self._groups: dict[object, _Group] = {}
        self._selector = _Epolls(self._first, self._group_of)

    def join(self, name: object, fd: int) -> None:
        """Put a descriptor, which is not registered yet, into the group of that name."""
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group(self.direct)
            self.direct[group.epoll.fileno()] = group.read
            self._ready.register(group.epoll.fileno(), select.EPOLLIN)
        group.members.add(fd)
        self._group_of[fd] = group

    def part(self, name: object, fd: int) -> None:
        """Take it out again, once it is not registered any more."""
        group = self._group_of.pop(fd, None)
        if group is None:
            return
        group.members.discard(fd)
        if not group.members:
            del self._groups[name], self.direct[group.epoll.fileno()]
            group.epoll.close()

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
                return super().select(0) + self._others()
            if self.wanted:
                return []

    def _others(self) -> list[tuple[selectors.SelectorKey, int]]:
        """What asyncio sees to among the groups' descriptors."""
        found, known = [], self.get_map()
        for group in self._groups.values():
            for fd, mask in group.others:
                if (key := known.get(fd)) is not None:
                    events = (mask & ~select.EPOLLIN and selectors.EVENT_WRITE) | (mask & ~select.EPOLLOUT and selectors.EVENT_READ)
                    found.append((key, events & key.events))
            group.others.clear()
        return found

    def close(self) -> None:
        for group in self._groups.values():
            group.epoll.close()
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


class Groups(Protocol):
    """Where descriptors are put into groups."""

    def join(self, name: object, fd: int) -> None: ...

    def part(self, name: object, fd: int) -> None: ...


class _NoGroups:
    """Loops that know of none treat all alike."""

    def join(self, name: object, fd: int) -> None:
        """As above."""

    def part(self, name: object, fd: int) -> None:
        """As above."""


def groups(loop: asyncio.AbstractEventLoop | None) -> Groups:
    """Those of a `DirectLoop`; other loops have none."""
    return loop.selector if isinstance(loop, DirectLoop) else _NoGroups()


def direct_readers(loop: asyncio.AbstractEventLoop) -> Readers:
    """Where a `DirectLoop` looks for readers that are called the short way; other loops look nowhere."""
    return loop.selector.direct if isinstance(loop, DirectLoop) else {}
