"""Metrics as monitoring meets them: the formats, the file for node_exporter, a scrape, a daemon that is not there."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ctl import metrics
from tests.replies import CACHE, STATUS, top_row

CONTROL = {
    "connections": 2,
    "requests": 7,
    "errors": 1,
    "malformed": 0,
    "refused_connections": 0,
    "dropped_events": 3,
    "dropped_clients": 0,
}
SAID = metrics.Said({**STATUS, "control": CONTROL}, [{**top_row("BTC/USDT", 27_123.45), "age": 840.0}])
PROMTOOL = shutil.which("promtool")


def values(data: bytes) -> dict[str, float]:
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in data.decode().splitlines() if not line.startswith("#")}


def test_figures_are_those_of_the_status_in_base_units() -> None:
    found = values(metrics.exposition(SAID, "openmetrics"))
    assert found["cryptod_up"] == 1
    assert found['cryptod_cache_reads_total{result="hit"}'] == CACHE["hits"]
    assert found['cryptod_condition{condition="candles_stale",severity="warning"}'] == 1
    assert found["cryptod_health_severity"] == 1
    assert found["cryptod_time_seconds"] == STATUS["now"] / 1000
    assert found["cryptod_cpu_ratio"] == pytest.approx(0.021)
    assert found['cryptod_memory_bytes{part="daemon"}'] == 48e6
    assert found['cryptod_training_running{kind="full"}'] == 1
    assert found['cryptod_control_failures_total{kind="dropped_events"}'] == 3
    assert found['cryptod_forecast_up_ratio{symbol="BTC/USDT"}'] == 0.627
    assert found['cryptod_forecast_stale{symbol="BTC/USDT"}'] == 0


def test_openmetrics_ends_as_it_must_and_names_each_family_once() -> None:
    text = metrics.exposition(SAID, "openmetrics").decode()
    assert text.endswith("# EOF\n")
    families = re.findall(r"^# TYPE (\S+)", text, re.M)
    assert len(families) == len(set(families)) == len(metrics.METRICS) + 1


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: apt install prometheus)")
def test_promtool_finds_nothing_to_say_about_the_metrics() -> None:
    assert PROMTOOL is not None
    found = subprocess.run([PROMTOOL, "check", "metrics"], input=metrics.exposition(SAID, "prometheus"), capture_output=True)
    assert (found.returncode, found.stdout + found.stderr) == (0, b"")


def run(*arguments: str, stdin: int | None = None) -> subprocess.CompletedProcess[str]:
    code = "import sys; from ctl.main import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "metrics", "--socket", "/nowhere", *arguments]
    return subprocess.run(command, stdin=stdin, capture_output=True, text=True, timeout=60)


def test_a_daemon_that_is_not_there_is_a_metric_in_the_file_and_an_exit_code(tmp_path: Path) -> None:
    file = tmp_path / "cryptod.prom"
    file.write_text("old\n")
    found = run("--textfile", str(file))
    assert found.returncode == 3
    assert "no cryptod at /nowhere" in found.stderr
    assert values(file.read_bytes()) == {"cryptod_up": 0}
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["cryptod.prom"]
    refused = run("--textfile", str(tmp_path / "no" / "folder" / "x.prom"))
    assert refused.returncode == 1
    assert "the metrics cannot be written to" in refused.stderr


@pytest.mark.parametrize(
    ("request_line", "status", "part"),
    [
        ("GET /metrics HTTP/1.1", 200, b"cryptod_up 0"),
        ("HEAD /metrics HTTP/1.1", 200, b""),
        ("GET /else HTTP/1.1", 404, b"there is /metrics"),
        ("POST /metrics HTTP/1.1", 501, b"Unsupported"),
        ("nonsense", 400, b"Bad request"),
    ],
)
def test_one_scrape_over_http_on_a_socket_that_was_accepted(request_line: str, status: int, part: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(f"{request_line}\r\nHost: localhost:9477\r\nAccept: application/openmetrics-text\r\n\r\n".encode())
        found = run("--http", stdin=theirs.fileno())
        theirs.close()
        assert (found.returncode, found.stdout, found.stderr) == (0, "", "")
        answer = http.client.HTTPResponse(ours, method=request_line.split()[0])
        if request_line == "nonsense":  # HTTP/0.9 has no status line
            ours.settimeout(10)
            assert part in b"".join(iter(lambda: ours.recv(4096), b""))
            return
        answer.begin()
        body = answer.read()
        assert answer.status == status
        assert part in body
        if status == 200:
            assert answer.headers["Content-Type"] == metrics.CONTENT_TYPES["openmetrics"]


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:9477", 200), ("[::1]:9477", 200), ("LOCALHOST", 200), ("192.168.1.7:9477", 200), ("box.lan:9477", 200),
     ("evil.example", 421),
     ("localhost.evil.example:9477", 421), ("", 421), ("127.0.0.1.evil.example", 421), ("localhost\r\nHost: evil.example", 421)],
)  # fmt: skip
def test_a_scrape_under_another_machines_name_is_refused(host: str, status: int) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(f"GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        run("--http", "--host", "Box.lan", stdin=theirs.fileno())
        theirs.close()
        answer = http.client.HTTPResponse(ours, method="GET")
        answer.begin()
        assert answer.status == status
        assert (b"cryptod_up" in answer.read()) == (status == 200)


def test_a_scraper_that_says_nothing_and_goes_is_no_error() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        found = run("--http", stdin=theirs.fileno())
    assert (found.returncode, found.stderr) == (0, "")


def test_without_the_package_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "prometheus_client.py").write_text("raise ImportError('hidden')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from ctl.main import main; sys.exit(main(['metrics', '--socket', '/nowhere']))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=60)
    assert found.returncode == 1
    hint = f"python3 -m pip --python {sys.executable} install prometheus-client"
    assert found.stderr == f"cryptoctl: metrics need the package prometheus-client, which is not installed ({hint})\n"
