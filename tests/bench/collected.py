"""`cryptod run` whose collector finds that all candles are in the store already: for markets too large to come over HTTP in a minute.

    python -m tests.bench.collected cryptod run

The benchmark fills the candle store beforehand, with hours that are still to come; the daemon looks at none beyond its own time. All
else is the daemon as it is. The coins that are followed are those in the file that ``BENCH_COINS`` names, one a line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from cryptod.__main__ import main
from cryptod.market import HOUR
from cryptod.worker.child import RUNNERS
from cryptod.worker.messages import CollectDone, CollectOrder, Report

COINS = "BENCH_COINS"


def run(order: CollectOrder, report: Callable[[Report], None]) -> None:
    """What a collect child does with an order: report that all is there."""
    symbols = tuple(Path(os.environ[COINS]).read_text().split())
    report(
        CollectDone(
            job=order.job, symbols=symbols, left_out={}, failed={}, collected_to=HOUR.floor(order.now), skew_ms=0,
            new_candles=len(symbols), revised_candles=0, requests=0, seconds=0.0,
        )
    )  # fmt: skip


if __name__ == "__main__":
    RUNNERS["collect"] = "tests.bench.collected"
    sys.exit(main(sys.argv[2:]))
