"""One scrape over HTTP: `cryptoctl metrics --http` answers one client on its standard input, which systemd accepted.

Knows HTTP as far as a scraper speaks it. There is no server: the socket unit listens, and starts one of these for each connection
(``packaging/systemd/cryptod-metrics.socket``), so between two scrapes nothing runs and nothing is in memory.
"""

from __future__ import annotations

import socket
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from cryptod.client import Client
from ctl import metrics

SECONDS: Final = 10.0
"""A client that has not asked by then is hung up on."""


class Scrape(BaseHTTPRequestHandler):
    """Answers GET and HEAD of /metrics, in OpenMetrics for those who accept it."""

    timeout = SECONDS
    server_version = "cryptod"
    sys_version = ""

    def __init__(self, connection: socket.socket, client: Client) -> None:
        self._client = client
        super().__init__(connection, ("", 0), None)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, explain="there is /metrics, and nothing else")
            return
        form = "openmetrics" if "application/openmetrics-text" in self.headers.get("Accept", "") else "prometheus"
        data, _ = metrics.now(self._client, form)  # that nobody answers is a metric
        self.send_response(200)
        self.send_header("Content-Type", metrics.CONTENT_TYPES[form])
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        """Scrapes are no news."""


def serve(client: Client, descriptor: int = 0) -> None:
    """Answer on the socket that stands open as this descriptor."""
    with socket.socket(fileno=descriptor) as connection:
        try:
            Scrape(connection, client)
        except (ConnectionError, TimeoutError):
            pass  # the scraper went away
