"""One scrape over HTTP: `cryptoctl metrics --http` answers one client on its standard input, which systemd accepted.

Knows HTTP as far as a scraper speaks it. There is no server: the socket unit listens, and starts one of these for each connection
(``packaging/systemd/cryptod-metrics.socket``), so between two scrapes nothing runs and nothing is in memory.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Collection
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from cryptod.client import Client
from ctl import metrics

SECONDS: Final = 10.0
"""A client that has not asked by then is hung up on."""


_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:]*)(?::\d+)?")


def ours(host: str, names: Collection[str]) -> bool:
    """Whether a Host header names this machine as it may be named: by an address, as localhost, or as one of ``names``.

    A web page can have a browser ask here under the page's own name, once that name leads to this address; it cannot under any of these.
    """
    found = _HOST.fullmatch(host.strip())
    if found is None:
        return False
    name = found[1].strip("[]").lower()
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost" or name in names
    return True


class Scrape(BaseHTTPRequestHandler):
    """Answers GET and HEAD of /metrics, in OpenMetrics for those who accept it."""

    timeout = SECONDS
    server_version = "cryptod"
    sys_version = ""

    def __init__(self, connection: socket.socket, client: Client, names: Collection[str] = ()) -> None:
        self._client, self._names = client, names
        super().__init__(connection, ("", 0), None)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) > 1 or not all(ours(host, self._names) for host in hosts):
            self.send_error(421, explain="ask by an address, as localhost, or by a name that `cryptoctl metrics --http --host NAME` allows")
            return
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


def serve(client: Client, names: Collection[str] = (), descriptor: int = 0) -> None:
    """Answer on the socket that stands open as this descriptor, to those who ask for an address, for localhost or for one of the names."""
    with socket.socket(fileno=descriptor) as connection:
        try:
            Scrape(connection, client, names)
        except (ConnectionError, TimeoutError):
            pass  # the scraper went away
