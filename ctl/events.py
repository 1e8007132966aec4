"""`cryptoctl events`: what happens, as it happens, a line for each event.

Knows what the topics bring. The client renews the subscription after a restart of the daemon, and says when something was missed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Final

from cryptod.protocol import EVENT_LOST
from cryptod.replies import Event
from ctl.heard import document
from ctl.jobs import job_end, job_line
from ctl.session import Session
from ctl.units import counted, percent, price, stamp


def _forecasts(payload: dict[str, Any], now: int) -> str:
    return f"{counted(payload['coins'], 'coin')} forecast, candles up to {stamp(payload['cutoff'])}"


def _job(payload: dict[str, Any], now: int) -> str:
    return job_end(payload) if payload["ended"] else job_line(payload, now)


def _condition(payload: dict[str, Any], now: int) -> str:
    return f"{payload['what']}, {payload['severity']}: {payload['text']}; {payload['remedy']}"


def _coin(payload: dict[str, Any], now: int) -> str:
    return (
        f"{payload['symbol']} {price(payload['close'])}: in {payload['horizons'][-1]} h P(up) {percent(payload['p_up'][-1])},"
        f" volatility {percent(payload['volatility'][-1], 2)}"
    )


def _lost(payload: dict[str, Any], now: int) -> str:
    count = payload["count"]
    return "the connection was lost; some events may be missing" if count is None else f"{counted(count, 'event')} dropped: read too slowly"


SENTENCES: Final[dict[str, Callable[[dict[str, Any], int], str]]] = {
    "forecasts": _forecasts, "jobs": _job, "conditions": _condition, "coins": _coin, EVENT_LOST: _lost,
}  # fmt: skip


def line(event: Event, now: int) -> str:
    """Topic and sentence."""
    return f"{event.topic:<11} {SENTENCES[event.topic](event.payload, now)}"


def follow(session: Session, topics: list[str] | None) -> int:
    """Write events until Ctrl-C, or ``--count`` of them: with ``--json`` one document a line, ``{topic, payload}``."""
    client, options = session.client, session.options
    client.subscribe(topics)
    left = options.count
    while left is None or left > 0:
        event = client.next_event()
        assert event is not None, "without a time-out there is always one"
        if options.json:
            text = document({"topic": event.topic, "payload": event.payload})
        else:
            now = session.now()
            text = f"{stamp(now, zone=False)}  {line(event, now)}"
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        left = None if left is None else left - 1
    return 0
