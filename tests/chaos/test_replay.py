"""Replayable chaos: seeds that pass, a seed that gives the same trace twice, and an auditor who notices what is done wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cryptod.market import HOUR
from cryptod.store import ledger
from cryptod.store.candles import CandleStore, Fetched
from cryptod.store.environment import open_environment
from tests.chaos.replay import World, play

STEPS = 60


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_whatever_a_seed_does_nothing_seen_is_lost_and_the_daemon_comes_to_rest(seed: int, tmp_path: Path) -> None:
    found = play(seed, STEPS, tmp_path)
    again = f"python -m tests.chaos.replay --seed {seed} --steps {STEPS} --trace"
    assert found.wrong == [], f"play it again: {again}"
    assert found.reads > 10
    assert found.kills > 0


def test_a_seed_gives_the_same_trace_each_time_and_another_seed_another(tmp_path: Path) -> None:
    traces = []
    for number, seed in enumerate((7, 7, 8)):
        (tmp_path / str(number)).mkdir()
        traces.append(play(seed, STEPS, tmp_path / str(number)).trace)
    assert traces[0] == traces[1]
    assert len(traces[0]) > STEPS
    assert traces[0] != traces[2]


# The auditor is audited: each mutation does one thing wrong that a defect might do, and must be found out.


def drop_a_row(world: World) -> None:
    """A forecast that a client saw is taken out of the ledger."""
    with open_environment(world.state / "serving", databases=ledger.DATABASES, writer=True) as environment:
        symbol, cutoff, issued = next(iter(world.sights))
        issues = ledger.Ledger(environment).read(cutoff, cutoff + 1)
        seq = next(issue.seq for issue in issues if symbol in issue.symbols and issue.issued == issued)
        (key,) = environment.write(lambda txn: [key for key, _ in txn.scan("issues") if key.endswith(seq.to_bytes(4, "big"))])
        environment.write(lambda txn: txn.delete("issues", key))


def change_a_candle(world: World) -> None:
    """A close is another than the exchange's."""
    with CandleStore.open(world.state / "candles", writer=True) as store:
        symbol = store.symbols()[0]
        span = store.span(symbol)
        assert span is not None
        panel = store.panel((symbol,), span[1] - HOUR.ms, span[1])
        store.apply([Fetched(symbol, panel.open_times, panel.values[:, 0] * 1.001)])


def lose_candles(world: World) -> None:
    """All candles of a coin are gone."""
    with CandleStore.open(world.state / "candles", writer=True) as store:
        store.drop(store.symbols()[0])


def forget_a_model(world: World) -> None:
    """A weight of a checkpoint is changed."""
    path = next((world.state / "checkpoints").glob("*/weights.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("mutation", "sentence"),
    [
        (drop_a_row, "a client saw a forecast that the ledger does not have"),
        (change_a_candle, "is not what the exchange has"),
        (lose_candles, "all candles of"),
        (forget_a_model, "does not load"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_a_defect_does_to_the_state_is_found_out(mutation: Callable[[World], None], sentence: str, tmp_path: Path) -> None:
    def at_the_end(world: World) -> None:
        world.at_the_end = mutation

    found = play(1, 20, tmp_path, mutate=at_the_end)
    assert any(sentence in said for said in found.wrong), found.wrong
    assert all(sentence in said for said in found.wrong) or mutation is forget_a_model


def test_an_age_that_is_wrong_by_a_minute_is_found_out(tmp_path: Path) -> None:
    def late(world: World) -> None:
        world.late = 60_000

    found = play(1, 20, tmp_path, mutate=late)
    assert any("s old, issued" in said for said in found.wrong)
