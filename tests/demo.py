"""`make demo`: a simulated exchange and the daemon, from nothing to forecasts, then everything stopped and removed.

Runs what a user runs (`cryptod simulate`, `cryptod run`, `cryptoctl`) as processes and watches them through the public
client. Leaves no process and no file behind, whether it ends by itself or by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from cryptod.client import Client
from cryptod.errors import CryptodError

COINS = int(os.environ.get("DEMO_COINS", "100"))
SPEED = 60
"""A simulated hour lasts a minute: one closes while the demo runs, and the forecasts follow."""
LIMIT = 300.0
HOPELESS = ("library_broken", "training_failed")
"""Conditions that waiting does not mend."""
ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


class Demo:
    """The processes that the demo has started, and what it measures of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[subprocess.Popen[str]] = []
        self.log = (folder / "log").open("w+")
        self.peak = 0
        self.began = time.monotonic()
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("CRYPTOD_")}

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        # A session of its own: Ctrl-C reaches only the demo, which then stops the others in order.
        process = subprocess.Popen(command, text=True, stderr=self.log, env=self.environ, start_new_session=True, **options)
        self.processes.append(process)
        return process

    def measure(self) -> None:
        """Keep the largest sum of the proportional set sizes of the daemon and its children (the exchange is not counted)."""
        total = 0
        with contextlib.suppress(psutil.Error):
            daemon = psutil.Process(self.processes[1].pid)
            for process in (daemon, *daemon.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_full_info().pss
        self.peak = max(self.peak, total)

    def control(self, *arguments: str) -> None:
        print(f"\n$ cryptoctl {' '.join(arguments)}", flush=True)
        subprocess.run([str(BIN / "cryptoctl"), *arguments], env=self.environ, check=False)

    def stop(self) -> None:
        """The daemon first, then the exchange; each within its own promise, or killed."""
        for process in reversed(self.processes):
            family = []
            with contextlib.suppress(psutil.Error):
                family = psutil.Process(process.pid).children(recursive=True)
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    print(f"process {process.pid} did not stop and is killed", file=sys.stderr)
                    process.kill()
                    process.wait()
            _, left = psutil.wait_procs(family, timeout=3)
            for child in left:
                with contextlib.suppress(psutil.Error):
                    child.kill()
        self.log.close()


def step(demo: Demo, text: str) -> None:
    print(f"[{time.monotonic() - demo.began:5.1f} s] {text}", flush=True)


def read_line(process: subprocess.Popen[str], prefix: str) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(prefix):
            return line.removeprefix(prefix).strip()
    raise SystemExit(f"the simulated exchange ended before it printed {prefix!r}")


def watch(demo: Demo, client: Client) -> Iterator[dict[str, Any]]:
    """The daemon's status, a few times a second, until the caller has seen enough."""
    last_measured = 0.0
    while time.monotonic() - demo.began < LIMIT:
        if demo.processes[1].poll() is not None:
            raise SystemExit("the daemon ended; its log:\n" + Path(demo.log.name).read_text())
        if time.monotonic() - last_measured > 0.5:
            demo.measure()
            last_measured = time.monotonic()
        with contextlib.suppress(CryptodError):
            yield client.status()
        time.sleep(0.2)
    raise SystemExit(f"not done after {LIMIT:.0f} s; the daemon's log:\n" + Path(demo.log.name).read_text())


def follow(demo: Demo, client: Client) -> None:
    """Print what goes on, until every coin has a forecast."""
    said = ""
    marks: dict[str, float] = {}
    candles: dict[int, int] = {}
    for status in watch(demo, client):
        exchange, training, models, cache = status["exchange"], status["training"], status["models"], status["cache"]
        progress, job = exchange["progress"], training["running"]
        for condition in status["health"]["conditions"]:
            if condition["name"] in HOPELESS:
                raise SystemExit(f"the demo cannot go on: {condition['text']}\nwhat to do: {condition['remedy']}")
        candles[exchange["last_collect"]] = exchange.get("new_candles", 0)
        if job is not None:
            marks.setdefault("training", time.monotonic())
            done = sum(batch["state"] == "done" for batch in job["batches"])
            text = f"training: {done} of {len(job['batches'])} batches done"
        elif training["last_full"] and cache["entries"] >= models["coins"] > 0:
            break
        elif progress is not None and progress["total"]:
            marks.setdefault("collecting", time.monotonic())
            text = f"collecting candles: {10 * (10 * progress['done'] // progress['total'])} % of {progress['total']} {progress['stage']}"
        else:
            text = "waiting for the exchange" if not models["checkpoints"] else "publishing"
        if text != said:
            step(demo, text)
            said = text
    end = time.monotonic()
    jobs = [job for job in client.jobs() if job["kind"] == "full" and job["state"] == "done"]
    batches = jobs[0]["batches"]
    step(demo, f"trained: {models['coins']}/{status['candles']['symbols']} coins in {len(batches)} batches")
    print(
        f"\n  collecting {COINS} coins   {marks['training'] - marks['collecting']:6.1f} s   ({sum(candles.values()):,} candles over HTTP)"
    )
    print(f"  full retrain           {jobs[0]['seconds'] / SPEED:6.1f} s   (4 checkpoints, evaluated and promoted one by one)")
    print(f"  publishing forecasts   {cache['refresh_seconds']:6.2f} s   ({cache['entries']} coins, in the ledger first)")
    print(f"  from exec to here      {end - demo.began:6.1f} s")
    print(f"  peak memory            {demo.peak / 2**20:6.0f} MiB (PSS of the daemon and all its children)")


def run(folder: Path) -> None:
    demo = Demo(folder)
    try:
        step(demo, f"a simulated exchange with {COINS} coins; an hour there lasts a minute here")
        exchange = demo.start(
            str(BIN / "cryptod"), "simulate", "--coins", str(COINS), "--seed", "7", "--speed", str(SPEED), stdout=subprocess.PIPE
        )
        demo.environ |= {
            "CRYPTOD_EXCHANGE_URL": read_line(exchange, "listening on "),
            "CRYPTOD_CLOCK": read_line(exchange, "clock "),
            "CRYPTOD_STORAGE_DIRECTORY": str(folder / "state"),
            "CRYPTOD_SOCKET_PATH": str(folder / "cryptod.sock"),
            "CRYPTOD_SOCKET": str(folder / "cryptod.sock"),
        }
        step(demo, "cryptod run")
        demo.start(str(BIN / "cryptod"), "run")
        with Client(str(folder / "cryptod.sock")) as client:
            follow(demo, client)
        demo.control("status")
        demo.control("health")
        demo.control("top")
        demo.control("get", "BTC/USDT")
        demo.control("plot", "BTC/USDT")
        print()
        begun = time.monotonic()
    finally:
        demo.stop()
    step(demo, f"stopped cleanly in {time.monotonic() - begun:.1f} s; nothing is left behind")


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    base = ROOT / ".demo"
    base.mkdir(exist_ok=True)
    # A Unix socket's path holds 107 bytes: a checkout that lies deep needs its folder elsewhere.
    deep = len(os.fsencode(base)) > 70
    folder = Path(tempfile.mkdtemp(dir=None if deep else base))
    try:
        run(folder)
    except KeyboardInterrupt:
        print("\ninterrupted; everything is stopped", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            base.rmdir()
    return 0


if __name__ == "__main__":
    sys.exit(main())
