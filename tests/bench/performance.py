"""From what the benchmarks found to the README's table and docs/performance.md: `make figures`.

    python -m tests.bench.performance [--found .bench]

Each benchmark that is run through `make` leaves its figures and its machine in a file of its own in ``.bench``. What stands between the
marks of a document is written anew from these; a benchmark that was not run keeps no rows there. Knows nothing of how anything is measured.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.bench.figures import ROOT

BEGIN: Final = "<!-- from `make bench` by `make figures`; do not edit by hand -->\n"
CHART: Final = "scaling.svg"
"""Drawn by the bench of growth, beside docs/performance.md."""
END: Final = "<!-- end -->\n"


class Row(NamedTuple):
    """``bench`` and ``name`` of a figure, and what it is in words; ``peer``: what it is compared with."""

    bench: str
    name: str
    words: str
    peer: str = ""


ROWS: Final = (
    Row("training", "full_retrain", "full retrain, 100 coins x 6 months x 1 h, until all forecasts are republished"),
    Row("training", "full_retrain_faster_than_lstm", "the same", "one LSTM per coin, 50 epochs, 1 thread"),
    Row("training", "incremental_update", "incremental update of 100 coins after the candles are in"),
    Row("training", "collecting_new_hours", "collecting six new hours of 100 coins over HTTP"),
    Row("training", "hourly_refresh", "hourly refresh, from the candles to cache and ledger"),
    Row(
        "serving",
        "get_client_p50_two_cores",
        "`Client.get`, decoded, p50, on two processors",
        "redis-py + hiredis + msgpack",
    ),
    Row("serving", "get_client_p99_two_cores", "`Client.get`, p99"),
    Row("serving", "get_client_p50_one_core", "`Client.get`, p50, on one processor", "redis-py + hiredis + msgpack"),
    Row("serving", "get_client_p99_training", "`Client.get`, p99 in a full retrain"),
    Row("serving", "get_raw_p50_one_core_beside_floor", "undecoded get, p50, one processor", "two bare processes playing ping-pong"),
    Row("serving", "get_raw_p50_two_cores_beside_floor", "undecoded get, p50, two processors", "two bare processes playing ping-pong"),
    Row("serving", "get_raw_p50_two_cores_beside_epoll", "the same", "a bare epoll server"),
    Row("serving", "get_rate_16_clients", "16 client processes", "a bare epoll server"),
    Row("serving", "top_20_p50", "`top 20`, p50"),
    Row("serving", "get_many_p50", "`get_many` of 100 coins in one reply, p50"),
    Row("serving", "miss_p50", "a miss: computed, in the ledger and sent, p50"),
    Row("serving", "miss_p50_beside_a_commit", "the same", "a bare LMDB commit, synced"),
    Row("serving", "refresh_get_p99", "`Client.get`, p99 while the hourly refresh runs"),
    Row("serving", "refresh_holds_up", "longest get during the hourly refresh, more than in as long a time without one"),
    Row("serving", "cryptoctl_get_p50", "`cryptoctl get` as a whole process"),
    Row("serving", "cryptoctl_get_p50_beside_python", "the same", "python -c 'import argparse, socket, msgpack'"),
    Row("serving", "start_to_ready", "from exec to READY with a warm store"),
    Row("memory", "idle", "memory at rest, 100 coins, all processes (PSS)"),
    Row("memory", "peak_full_retrain", "at the peak of a full retrain"),
    Row("memory", "peak_incremental_update", "at the peak of collecting and an incremental update"),
    Row("memory", "ended_by_kernel_under_512_mib", "the whole cycle in a control group of 512 MiB: ended by the kernel"),
    Row("scale", "refresh_10000", "hourly refresh of 10,000 coins"),
    Row("scale", "train_time_per_coin_growth", "training time per coin, 10,000 coins", "100 coins"),
    Row("scale", "peak_growth", "memory at a retrain's peak, 10,000 coins more than 100"),
    Row("scale", "get_p50_growth", "`Client.get` among 10,000 coins, p50", "100 coins"),
)
"""What the README shows, in this order; docs/performance.md shows all figures."""


def found_in(folder: Path) -> dict[str, dict[str, Any]]:
    """bench -> {machine, figures}, of every file that is there."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def short_table(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| what | measured | beside it | target | |"
    yield "|---|---|---|---|---|"
    for row in ROWS:
        figure = found.get(row.bench, {"figures": {}})["figures"].get(row.name)
        if figure is not None:
            beside = f"{figure['ratio']:g} x {row.peer} ({amount(figure['peer'], figure['unit'])})" if "ratio" in figure else ""
            yield f"| {row.words} | {amount(figure['value'], figure['unit'])} | {beside} | {wanted(figure)} | {verdict(figure)} |"


def long_table(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    yield "| figure | measured | peer | ratio | target | |"
    yield "|---|---|---|---|---|---|"
    for name, figure in figures.items():
        peer, ratio = (amount(figure["peer"], figure["unit"]), f"{figure['ratio']:g}") if "ratio" in figure else ("", "")
        yield f"| {name} | {amount(figure['value'], figure['unit'])} | {peer} | {ratio} | {wanted(figure)} | {verdict(figure)} |"


def amount(value: float, unit: str) -> str:
    return f"{value:,g} {unit}"


def wanted(figure: Mapping[str, Any]) -> str:
    if figure["target"] is None:
        return ""
    sign = "at most" if figure["better"] == "lower" else "at least"
    unit = "x" if "ratio" in figure else figure["unit"]
    return f"{sign} {figure['target']:g} {unit}"


def verdict(figure: Mapping[str, Any]) -> str:
    return {True: "met", False: "**not met**", None: ""}[figure["met"]]


def replaced(document: str, lines: list[str]) -> str:
    """The document with these lines between its marks."""
    before, mark, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise SystemExit(f"the document has no place for figures: {BEGIN.strip()} ... {END.strip()}")
    return "".join((before, BEGIN, "\n", *(f"{line}\n" for line in lines), "\n", END, after))


def write(path: Path, lines: list[str]) -> None:
    path.write_text(replaced(path.read_text(), lines))
    print(f"{path.relative_to(ROOT)} is written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--found", type=Path, default=ROOT / ".bench")
    found = found_in(parser.parse_args().found)
    if not found:
        raise SystemExit("there are no figures yet: `make bench`, or one of the benches, makes them")
    shown = {row.bench for row in ROWS}
    machines = list(dict.fromkeys(re.sub(r", load [0-9.]+", "", one["machine"]) for name, one in found.items() if name in shown))
    write(ROOT / "README.md", [*(f"{machine}." for machine in machines), "", *short_table(found)])
    chapters: list[str] = []
    for name, one in found.items():
        chapters += [f"### make bench-{name}", "", f"{one['machine']}.", "", *long_table(one["figures"]), ""]
        if name == "scale" and (ROOT / "docs" / CHART).exists():
            chapters += [f"![Cost against coins]({CHART})", ""]
    write(ROOT / "docs" / "performance.md", chapters[:-1])


if __name__ == "__main__":
    main()
