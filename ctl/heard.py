"""What the daemon says, fit to be printed: the one place where foreign text is cleaned.

Names of coins and texts of errors may come from an exchange. Whatever a verb prints of a reply, an event or an error has come through
here, so that no control character, escape sequence or mark of direction in it reaches a terminal. Knows the client and no verb.
"""

from __future__ import annotations

from typing import Any

from cryptod.client import Client
from cryptod.errors import CryptodError
from cryptod.replies import Event
from ctl.terminal import clean

UNTOUCHED = frozenset({"report", "backup"})
"""What these bring is for a file; the daemon has made it so that it can be shown."""


def cleaned(value: Any) -> Any:
    """A reply with all of its texts, keys too, clean."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {cleaned(key): cleaned(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [inner if type(inner) is float else cleaned(inner) for inner in value]
    return value


def clean_error(error: CryptodError) -> CryptodError:
    """The same error, fit to be printed."""
    error.message, error.hint = clean(error.message), clean(error.hint)
    error.args = (error.message,)
    return error


def document(value: Any, indent: int | None = None) -> str:
    """A value as JSON that says exactly what it is and moves no cursor: what cannot be printed is written as an escape."""
    import json  # by those alone who want it: cryptoctl has to start quickly

    text = json.dumps(value, ensure_ascii=False, indent=indent)
    if text.replace("\n", "").isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in text)


class Heard(Client):
    """The client; with ``exact`` replies and events stay as they are, for `document`."""

    exact = False

    def call(self, method: str, *parameters: Any) -> Any:
        try:
            reply = super().call(method, *parameters)
        except CryptodError as error:
            raise clean_error(error) from None
        return reply if self.exact or method in UNTOUCHED else cleaned(reply)

    def next_event(self, timeout: float | None = None) -> Event | None:
        event = super().next_event(timeout)
        return event if event is None or self.exact else Event(event.topic, cleaned(event.payload))
