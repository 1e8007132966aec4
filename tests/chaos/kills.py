"""Kills: the daemon under load on an accelerated market, and SIGKILL for itself, its forkserver, its trainer and its collector.

    python -m tests.chaos.kills [--kills 1000] [--seed 1] [--minutes 60]

`make chaos` runs it. Who is killed, and when, is drawn from the seed. Witnesses read all the while; after each death of the daemon the
state directory is examined (`inquest`) before the next one starts on it. At the end the daemon must come to rest: candles complete, a
retrain done, nothing in the log that is a defect. Ends with a table of figures, whose last line is one JSON object; exits 1 if anything
was wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptod.client import Client
from cryptod.errors import CryptodError
from cryptod.simulator.generator import GeneratedMarket
from tests.bench.figures import Figure, percentile, report
from tests.chaos.inquest import CandleInquest, CheckpointInquest, LedgerInquest, family
from tests.chaos.witness import Witness
from tests.integration.house import START, Daemon, SimulatedExchange, short_folder, wait_for

COINS, SEED, MONTHS, HISTORY_DAYS = 8, 7, 3, 400
SPEED = 3600.0
"""A candle closes every second, an update of the models is due every six."""
SETTINGS: dict[str, Any] = {
    "CRYPTOD_UNIVERSE_SIZE": COINS, "CRYPTOD_TRAIN_MONTHS_BACK": MONTHS, "CRYPTOD_TRAIN_BATCH_SIZE": 4,
    "CRYPTOD_TRAIN_EPOCHS": 4, "CRYPTOD_INCREMENTAL_EPOCHS": 1, "CRYPTOD_FORECAST_BASE_MODEL": "true", "CRYPTOD_WORKER_THREADS": 1,
}  # fmt: skip
VICTIMS = {"daemon": (35, 1.0), "start": (10, 0.5), "forkserver": (15, 0.3), "cryptod-train": (20, 1.0), "cryptod-collect": (20, 0.6)}
"""Victim -> (weight, most seconds that are waited before). ``start`` is a daemon that has not said READY yet."""
PATIENCE = 300.0
SERVING_AGAIN = 2.0
CONTEXT = 20
"""Lines of the log that are shown from one with a defect on."""
ORPHANED = re.compile(
    r'Traceback \(most recent call last\):\n  File "<string>".*\n'
    r'  File ".*/multiprocessing/forkserver\.py".*\n(?:  .*\n)*EOFError\n'
)  # fmt: skip
"""What CPython's forkserver says whose daemon was killed after it had connected to it, and before it spoke."""
DEFECTS = ("Traceback", "a defect ended", "was damaged", "was refused")


@dataclass
class Toll:
    """What a run has come to. ``wrong`` is empty if all is well; durations in seconds."""

    killed: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    serving: list[float] = field(default_factory=list)
    """From the start of a daemon to its first answer."""
    orphaned: list[float] = field(default_factory=list)
    """From the death of a daemon to the end of the last of its processes."""
    reads: int = 0
    silences: int = 0
    """Reads without an answer while a daemon stood that nobody had killed."""
    sights: int = 0
    loads: int = 0
    compared: int = 0
    hours: float = 0.0
    """Of the market's time."""

    def figures(self) -> list[Figure]:
        killed = [Figure(f"killed: {name}", count, "times", None, "higher") for name, count in sorted(self.killed.items())]
        return [
            Figure("kills", self.killed.total(), "", None, "higher"), *killed,
            Figure("simulated", self.hours, "h", None, "higher"),
            Figure("forecasts seen and found in the ledger", self.sights, "", None, "higher"),
            Figure("checkpoints loaded", self.loads, "", None, "higher"),
            Figure("hours of candles compared", self.compared, "", None, "higher"),
            Figure("reads answered", self.reads, "", None, "higher"),
            Figure("reads without answer beside a living daemon", self.silences, "", 0, "lower"),
            Figure("things wrong", len(self.wrong), "", 0, "lower"),
            Figure("serving again, median", percentile(self.serving, 0.5), "s", None, "lower"),
            Figure("serving again, 99 %", percentile(self.serving, 0.99), "s", SERVING_AGAIN, "lower"),
            Figure("serving again, worst", max(self.serving), "s", None, "lower"),
            Figure("last process gone after the daemon, worst", max(self.orphaned), "s", None, "lower"),
        ]  # fmt: skip


class Chaos:
    """One run on one state directory."""

    def __init__(self, folder: Path, exchange: SimulatedExchange, seed: int) -> None:
        self.toll = Toll()
        self._random = random.Random(seed)
        self._daemon = Daemon(folder, exchange, **SETTINGS)
        self._exchange = exchange
        state = self._daemon.state
        market = GeneratedMarket(COINS, SEED, first=START - HISTORY_DAYS * 24 * 3_600_000)
        self._ledger, self._checkpoints = LedgerInquest(state), CheckpointInquest(state)
        self._candles = CandleInquest(state, market, MONTHS)
        self._down: list[tuple[float, float]] = []
        """When no daemon could answer: (death, first answer of the next), monotonic seconds."""

    def run(self, kills: int, seconds: float) -> Toll:
        end = time.monotonic() + seconds
        with self._daemon:
            self._first_answer()
            socket = str(self._daemon.socket)
            witnesses = [Witness(socket, number) for number in range(2)]
            try:
                while self.toll.killed.total() < kills and time.monotonic() < end:
                    self._kill_one(witnesses)
                    if self.toll.killed.total() % 50 == 0:
                        print(f"{self.toll.killed.total()} kills, {self._ledger.found} forecasts found", file=sys.stderr, flush=True)
                self._rest()
            finally:
                for witness in witnesses:
                    witness.end()
            followed, end = self._followed()
            self._daemon.stop()
        self._examine(witnesses, again=True)
        self._say(self._candles.complete(followed, end))
        self._sum_up(witnesses)
        return self.toll

    def _kill_one(self, witnesses: list[Witness]) -> None:
        names = list(VICTIMS)
        victim = self._random.choices(names, [VICTIMS[name][0] for name in names])[0]
        delay = self._random.uniform(0.0, VICTIMS[victim][1])
        if victim == "cryptod-train":
            self._train()
        if victim not in ("daemon", "start"):
            while not self._kill_child(victim, delay):
                delay = 0.0  # it ended by itself meanwhile: the next one then
            return
        if victim == "daemon":
            time.sleep(delay)
        died = self._bury(witnesses)
        self.toll.killed["daemon"] += 1
        if victim == "start":
            self._daemon.start()
            time.sleep(delay)
            self._bury(witnesses)
            self.toll.killed["start"] += 1
        self._daemon.start()
        self._first_answer()
        self._down.append((died, time.monotonic()))
        self.toll.serving.append(time.monotonic() - self._daemon.began)

    def _kill_child(self, name: str, delay: float) -> bool:
        def look() -> int | None:
            return next((pid for pid, found in family(self._daemon.process.pid).items() if found == name), None)

        try:
            handle = os.pidfd_open(wait_for(look, f"a process called {name}", seconds=PATIENCE))
        except ProcessLookupError:
            return False
        try:
            time.sleep(delay)
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        self.toll.killed[name] += 1
        return True

    def _bury(self, witnesses: list[Witness]) -> float:
        """Kill the daemon, wait for the end of all of its, and examine what it leaves. When it died."""
        daemon = self._daemon
        died = time.monotonic()
        daemon.process.kill()
        daemon.process.wait()
        try:
            wait_for(lambda: not family(daemon.process.pid), "no orphan", seconds=10)
        except AssertionError:
            self._say([f"processes outlive the daemon: {family(daemon.process.pid)}"])
        self.toll.orphaned.append(time.monotonic() - died)
        daemon.notify.close()
        self._examine(witnesses)
        return died

    def _examine(self, witnesses: list[Witness], *, again: bool = False) -> None:
        for witness in witnesses:
            self._say(self._ledger.look(dict(witness.sights), again=again))
        self._say(self._checkpoints.look())
        self._say(self._candles.look())

    def _say(self, sentences: list[str]) -> None:
        for sentence in sentences:
            print(f"WRONG after {self.toll.killed.total()} kills: {sentence}", file=sys.stderr, flush=True)
        self.toll.wrong += sentences

    def _first_answer(self) -> None:
        """Wait until the daemon answers with a forecast, or, while there has been none yet, until there is one."""
        with Client(str(self._daemon.socket), patience=0.0) as client:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    if client.get_many():
                        break
                except CryptodError:
                    pass
                assert time.monotonic() < end, f"no answer for {PATIENCE} s\n{self._daemon.log()[-4000:]}"
                assert self._daemon.process.poll() is None, f"it ended: {self._daemon.log()[-4000:]}"
                time.sleep(0.005)

    def _train(self) -> None:
        """Have a trainer that can be killed."""
        with self._daemon.client() as client:
            client.train("full" if self._random.random() < 0.4 else "incremental")

    def _followed(self) -> tuple[list[str], int]:
        with self._daemon.client() as client:
            return [row["symbol"] for row in client.symbols()["followed"]], int(client.status()["candles"]["newest_close"])

    def _rest(self) -> None:
        """Without kills everything comes to its end: a retrain, the candles, the conditions."""
        with self._daemon.client() as client:
            job = client.train("full")["id"]

            def done() -> str | None:
                found = next(row for row in client.jobs() if row["id"] == job)
                return str(found["state"]) if found["state"] in ("done", "failed", "cancelled") else None

            if (state := wait_for(done, "the last retrain", seconds=PATIENCE)) != "done":
                self._say([f"the last retrain: {state}"])
            wait_for(lambda: client.health()["severity"] != "error", "no error is left", seconds=PATIENCE)
            newest = client.status()["candles"]["newest_close"]
            wait_for(lambda: client.status()["candles"]["newest_close"] > newest, "another candle", seconds=PATIENCE)
        self._say(defects(self._daemon.log()))

    def _sum_up(self, witnesses: list[Witness]) -> None:
        toll = self.toll
        toll.reads = sum(witness.reads for witness in witnesses)
        for began, ended, why in (silence for witness in witnesses for silence in witness.silences):
            if not any(began <= back and died <= ended for died, back in self._down):
                toll.silences += 1
                print(f"no answer for {ended - began:.3f} s beside a living daemon: {why}", file=sys.stderr, flush=True)
        toll.sights, toll.loads, toll.compared = self._ledger.found, self._checkpoints.loads, self._candles.compared
        toll.hours = (self._exchange.now() - START) / 3_600_000
        self._say([f"{sight} was seen with other figures" for witness in witnesses for sight in witness.changed])
        self._say([f"refused: {text} ({count} times)" for witness in witnesses for text, count in witness.refusals.items()])


def rage(kills: int, seed: int, *, seconds: float = 86_400.0) -> Toll:
    """The whole of it, in a folder of its own: so many kills, or fewer if that takes longer."""
    market = SimulatedExchange("--coins", str(COINS), "--seed", str(SEED), "--history-days", str(HISTORY_DAYS), speed=SPEED)
    with short_folder() as folder, market as exchange:
        return Chaos(folder, exchange, seed).run(kills, seconds)


def defects(log: str) -> list[str]:
    """Of the daemon's log, what must not be in it, with the lines after it."""
    lines = ORPHANED.sub("", log).splitlines()
    return ["\n".join(lines[at : at + CONTEXT]) for at, line in enumerate(lines) if any(word in line for word in DEFECTS)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1440.0, help="stop killing after so long")
    arguments = parser.parse_args()
    toll = rage(arguments.kills, arguments.seed, seconds=60 * arguments.minutes)
    report(toll.figures())
    return 1 if toll.wrong or toll.silences else 0


if __name__ == "__main__":
    sys.exit(main())
