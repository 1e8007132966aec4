"""How long it takes to learn: a full retrain, an incremental update, an hour's forecasts, and the candles that these need.

    python -m tests.bench.bench_training [--coins 100] [--runs 3] [--epochs 10]

A whole house runs: a simulated exchange, `cryptod run`, a hundred coins with half a year of hours. What is timed is what a client sees:

* full retrain: from the moment that the job runs (its child is not started yet) to the moment that forecasts of all promoted models are
  published. Features, regressions, training, evaluation, gate and checkpoints are in it; the candles are in the store before.
* incremental update: the daemon is stopped, comes back six hours later and finds an update overdue; from the moment that the candles
  are in to the moment that the new models' forecasts are published.
* collecting: the same six hours, from the daemon's READY until the collect child has reported: its start, ccxt's import and ccxt's own
  limiter, which spaces the requests as Binance's rules ask, are in it.
* the hour's refresh: from the candles to the cache and the ledger, as the daemon itself says it.

Beside the retrain, in the same run and on one thread as well: one LSTM for each coin (PyTorch, one layer, 64 units, batches of 32, 50
epochs, 60 hours of look-back), the network that such systems usually have. Some epochs of one coin are timed before the retrain and as many
after it; multiplied to 50 epochs and to all coins.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Iterator
from typing import Any

from cryptod.client import Client
from cryptod.market import CLOSE, HOUR
from cryptod.simulator.generator import GeneratedMarket
from tests.bench.figures import Figure, house, report
from tests.integration.house import START, Daemon, wait_for

PATIENCE = 600.0
MONTHS = 6
HOURS = MONTHS * 730
LATER = 6 * HOUR.ms
LSTM_EPOCHS = 50
LSTM_UNITS = 64
LSTM_BATCH = 32
LOOK_BACK = 60


class Watched:
    """What happens in a daemon, and when: events of jobs and forecasts, with the monotonic time at which they came."""

    def __init__(self, daemon: Daemon) -> None:
        self.client: Client = daemon.client()
        self.client.subscribe(["jobs", "forecasts"])

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def next(self) -> tuple[float, str, dict[str, Any]]:
        """(when, topic, payload) of the next event."""
        event = self.client.next_event(PATIENCE)
        if event is None:
            raise SystemExit(f"nothing happened for {PATIENCE:.0f} s")
        return time.monotonic(), event.topic, event.payload

    def job(self, kind: str) -> tuple[float, float, dict[str, Any]]:
        """(when it ran, when the forecasts of all its models were published, the job) of the next job of this kind.

        Where the gate has let none of its models through there is nothing to publish, and the job's end counts.
        """
        began = 0.0
        while True:
            when, topic, job = self.next()
            if topic == "jobs" and job["kind"] == kind:
                if job["state"] == "running":
                    began = began or when
                elif job["state"] != "queued":
                    break
        if job["state"] != "done" or job["error"]:
            raise SystemExit(f"{kind} training {job['id']} {job['state']}: {job['error']}")
        while topic != "forecasts" and any(batch["promoted"] for batch in job["batches"]):
            when, topic, _ = self.next()
        return began, when, job


def seconds_of_lstm(epochs: int) -> float:
    """Seconds that so many epochs of one coin take, in a process of its own: torch is not to stay in this one."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_lstm, (epochs,))


def _lstm(epochs: int) -> float:
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(1)
    market = GeneratedMarket(1, seed=7)
    _, candles = market.candles(market.coins[0], HOUR.floor(START) - HOURS * HOUR.ms, HOUR.floor(START))
    moves = torch.from_numpy(candles[:, CLOSE]).log().diff().float()
    moves = (moves - moves.mean()) / moves.std()
    inputs, target = moves.unfold(0, LOOK_BACK, 1)[:-1, :, None], moves[LOOK_BACK:, None]
    lstm, head = torch.nn.LSTM(1, LSTM_UNITS, batch_first=True), torch.nn.Linear(LSTM_UNITS, 1)
    optimizer = torch.optim.Adam([*lstm.parameters(), *head.parameters()], 1e-3)
    begin = time.perf_counter()
    for _ in range(epochs):
        for rows in torch.randperm(len(target)).split(LSTM_BATCH):  # type: ignore[no-untyped-call]
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(head(lstm(inputs[rows])[0][:, -1]), target[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return time.perf_counter() - begin


def full_retrains(daemon: Daemon, coins: int, runs: int, epochs: int) -> Iterator[Figure]:
    lstm = [seconds_of_lstm(epochs)]
    rows = []
    with daemon.client() as client:
        for _ in range(runs):
            with Watched(daemon) as watched:
                client.train("full")
                began, published, job = watched.job("full")
            batches = [batch["seconds"] for batch in job["batches"]]
            rows.append(published - began)
            print(f"full retrain: {rows[-1]:.2f} s, of these {sum(batches):.2f} s in {len(batches)} batches")
    lstm.append(seconds_of_lstm(epochs))
    a_coin = sum(lstm) * LSTM_EPOCHS / (2 * epochs)
    print(f"an LSTM for each coin: {epochs} epochs of one coin took {lstm[0]:.2f} s before and {lstm[1]:.2f} s after;")
    print(f"  {LSTM_EPOCHS} epochs are {a_coin:.1f} s a coin, {coins} coins {a_coin * coins / 60:.0f} min")
    took = statistics.median(rows)
    yield Figure("full_retrain", took, "s", 30.0, "lower")
    yield Figure("full_retrain_faster_than_lstm", took, "s", 100.0, "higher", a_coin * coins, a_coin * coins / took)


def updates(daemon: Daemon, coins: int, runs: int) -> Iterator[Figure]:
    """``daemon`` is stopped; others go on from its state, each six hours later."""
    rows = []
    for number in range(1, runs + 1):
        with house(coins, trained=False, after=daemon, ahead=number * LATER) as later, later.client() as client, Watched(later) as watched:
            wait_for(lambda: collected(client), "the candles are in", seconds=PATIENCE)
            candles_in = time.monotonic()
            refresh = wait_for(lambda: refreshed(client), "forecasts of these candles", seconds=PATIENCE)
            began, published, job = watched.job("incremental")
            found = client.status()["exchange"]
            ready = later.notify.times("READY=1")[0]
            rows.append((candles_in - ready, published - candles_in, refresh))
            batches = sum(batch["seconds"] for batch in job["batches"])
            print(
                f"{found['new_candles']} candles collected in {rows[-1][0]:.2f} s, refreshed in {refresh:.3f} s; incremental update"
                f" {rows[-1][1]:.2f} s, of these {began - candles_in:.2f} s until it ran and {batches:.2f} s in batches"
            )
    collecting, update, refresh = (statistics.median(column) for column in zip(*rows, strict=True))
    yield Figure("incremental_update", update, "s", 3.0, "lower")
    yield Figure("collecting_new_hours", collecting, "s", 5.0, "lower")
    yield Figure("hourly_refresh", refresh, "s", 0.3, "lower")


def collected(client: Client) -> bool:
    exchange = client.status()["exchange"]
    return not exchange["collecting"] and "new_candles" in exchange


def refreshed(client: Client) -> float | None:
    """Seconds of the refresh, once there was one since the daemon's start."""
    return float(client.cache_stats()["refresh_seconds"]) or None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--coins", type=int, default=100)
    parser.add_argument("--runs", type=int, default=3, help="of each kind; their median counts")
    parser.add_argument("--epochs", type=int, default=10, help="of one coin's LSTM, timed twice")
    options = parser.parse_args()
    figures: list[Figure] = []
    with house(options.coins) as daemon:
        figures += full_retrains(daemon, options.coins, options.runs, options.epochs)
        daemon.stop()
        figures += updates(daemon, options.coins, options.runs)
    report(figures)


if __name__ == "__main__":
    main()
