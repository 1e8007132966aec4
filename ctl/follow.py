"""`train --follow`: enqueue a job and watch it to its end.

Fed by the job's events; where none comes for a while the job itself is asked for, because an event may have been dropped.
A terminal gets a bar that is redrawn; everything gets a line for each batch that is through.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from cryptod.errors import RequestError
from cryptod.protocol import EVENT_LOST
from ctl import jobs
from ctl.session import Session
from ctl.terminal import wrap

PAUSE_S: Final = 2.0
"""Silence after which the job is asked for."""
FORECAST_S: Final = 60.0
"""A coin that was added is forecast within so many seconds of its candles, if there is a model that can."""
_ENDED: Final = ("done", "failed", "cancelled")
_CLEAR: Final = "\r\x1b[K"


class Progress:
    """What has been said of a job so far, and what there is to say now."""

    def __init__(self, session: Session) -> None:
        self._screen = session.screen
        self._silent = bool(session.options.json)
        self._live = session.screen.live and not self._silent
        self._said: set[tuple[int, int, str]] = set()
        self._state = ""
        self._began: tuple[float, float] | None = None

    def see(self, job: dict[str, Any]) -> None:
        """Say what is new."""
        if self._silent:
            return
        now = time.monotonic()
        lines = []
        if job["state"] != self._state and job["state"] not in _ENDED:
            self._state = job["state"]
            lines.append(f"{jobs.KIND_WORDS.get(job['kind'], job['kind'])} {job['id']} is {job['state']}")
        for batch in job["batches"]:
            mark = (batch["number"], batch["attempts"], batch["state"])
            if batch["state"] != "waiting" and mark not in self._said:
                self._said.add(mark)
                told = jobs.batch_line(batch, len(job["batches"]))
                lines += wrap(told, self._screen.width, "  ") if self._live else [told]
        share = jobs.job_share(job)
        if self._began is None and job["state"] == "running":
            self._began = (now, share)
        text = "".join(f"{line}\n" for line in lines)
        if self._live:
            text = _CLEAR + text
            if self._began is not None and job["state"] == "running":
                began, first = self._began
                elapsed = now - began
                rest = jobs.rest(elapsed, share, first) if elapsed > 1 else None
                text += jobs.progress_line(job, self._screen, elapsed, rest)
        if text:
            sys.stdout.write(text)
            sys.stdout.flush()

    def end(self, job: dict[str, Any]) -> list[str]:
        """The last line."""
        elapsed = time.monotonic() - self._began[0] if self._began is not None else None
        hint = [f"-> {job['hint']}"] if job["hint"] else []
        return [jobs.job_end(job, elapsed), *hint]

    def clear(self) -> None:
        """Take the bar away."""
        if self._live:
            sys.stdout.write(_CLEAR)
            sys.stdout.flush()


def follow(session: Session, kind: str) -> int:
    """Enqueue and watch; 0 if the job was done, 1 if it failed or was cancelled. Ctrl-C leaves the job running."""
    client, progress = session.client, Progress(session)
    client.subscribe(["jobs"])
    job = client.call("train", kind)
    number = job["id"]
    try:
        progress.see(job)
        while job["state"] not in _ENDED:
            event = client.next_event(PAUSE_S)
            if event is None or event.topic == EVENT_LOST:
                job = _asked(session, number)
            elif event.topic == "jobs" and event.payload["id"] == number:
                job = event.payload
            else:
                continue
            progress.see(job)
    except KeyboardInterrupt:
        progress.clear()
        session.say(f"job {number} goes on; `cryptoctl cancel {number}` ends it")
        raise
    session.show(job, lambda: progress.end(job))
    return 0 if job["state"] == "done" else 1


def _asked(session: Session, number: int) -> dict[str, Any]:
    latest: list[dict[str, Any]] = session.client.call("jobs", 100)
    for job in latest:
        if job["id"] == number:
            return job
    raise RequestError("not_found", f"job {number} is not known any more", hint="`cryptoctl jobs` lists the latest")


def follow_coin(session: Session, symbol: str) -> int:
    """`symbols add --follow`: add a coin and stay until there is a forecast of it, which is shown.

    Raises `RequestError` where the exchange does not have it, or, a minute after its candles came, why it cannot be forecast yet.
    """
    from ctl import render

    client = session.client
    client.subscribe(["forecasts"])
    added = client.symbols_add(symbol)
    name = added["symbol"]
    if not session.options.json:
        session.say(f"{name} is followed{' already' if added['followed'] else ' if the exchange has it'}; waiting for its forecast")
    end = None
    while True:
        left_out = client.symbols()["left_out"].get(name)
        if left_out:
            raise RequestError(
                "unknown_symbol", f"{name} is not followed: {left_out}", hint=f"`cryptoctl symbols remove {name}` forgets it"
            )
        try:
            reply = client.call("get", name)
        except RequestError as error:
            if error.code == "no_forecast" and end is None:
                end = time.monotonic() + FORECAST_S
            if error.code not in ("unknown_symbol", "no_forecast") or (end is not None and time.monotonic() > end):
                raise
            client.next_event(PAUSE_S)
        else:
            break
    session.show(reply, lambda: render.forecast(reply, session.screen))
    return 0
