"""One use of cryptoctl: a connection, a screen, a command line; how a reply is shown on them.

Knows the client and the screen, and no verb.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from typing import Any

from cryptod.client import Client
from cryptod.errors import CryptodError
from ctl.heard import document
from ctl.terminal import Screen, clean


class Session:
    """One connection, one screen, one command line."""

    def __init__(self, client: Client, options: argparse.Namespace, screen: Screen) -> None:
        self.client, self.options, self.screen = client, options, screen

    def now(self) -> int:
        """The daemon's clock: a simulated one need not agree with this machine's."""
        return int(self.client.call("ping")["now"])

    def show(self, reply: Any, page: Callable[[], Iterable[str]]) -> None:
        """The reply itself with ``--json``, else the page made of it."""
        if self.options.json:
            sys.stdout.write(document(reply, 2 if self.screen.live else None) + "\n")
        else:
            try:
                text = "\n".join(page())
            except (KeyError, IndexError, TypeError, ValueError) as error:
                what = f"the daemon's reply is not understood ({type(error).__name__}: {error})"
                raise CryptodError(what, hint="are cryptoctl and cryptod of one version? --json shows the reply") from error
            sys.stdout.write(text + "\n")

    def say(self, text: str) -> None:
        """A line on standard error that is no part of the answer."""
        sys.stdout.flush()
        sys.stderr.write(f"cryptoctl: {clean(text)}\n")
