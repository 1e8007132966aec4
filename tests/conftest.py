"""What holds for every test: Ctrl-C works, also in the processes that tests start; a module says which event loops its tests run in.

A shell that runs the tests in the background leaves SIGINT ignored, and every child would inherit that.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping

import pytest

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The module's ``LOOPS``, name -> factory: its asyncio tests run in each of them."""
    module = item.getparent(pytest.Module)
    return getattr(module and module.obj, "LOOPS", {"asyncio": asyncio.new_event_loop})
