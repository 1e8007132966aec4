"""The short form of `make fuzz`: a few hundred streams of the grammar against the daemon's own handlers, and what that has found."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from random import Random

import pytest

from cryptod.protocol import COMMANDS
from tests.fuzz import grammar
from tests.fuzz.__main__ import scratch
from tests.fuzz.inside import Inside, Wrong
from tests.fuzz.outside import Outside

STREAMS = 300

DEEP = {
    "by itself": b"\x94\x00\x05\xa3get" + b"\x91" * 9 + b"\xc0",
    "after another": b"\x94\x00\x01\xa4ping\x90\x94\x00\x05\xa3get" + b"\x81\xa1a" * 20 + b"\xc0",
    "as a message": b"\x91" * 300 + b"\xc0",
}
"""Nested deeper than was once allowed: that was noticed or not, depending on how the kernel had cut it."""


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    with Inside(tmp_path_factory.mktemp("inside")) as daemon:
        yield daemon


@pytest.mark.parametrize("data", DEEP.values(), ids=DEEP.keys())
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_deep_nesting_is_refused_the_same_however_it_is_cut_and_hangs_up_on_nobody(inside: Inside, data: bytes, parts: int) -> None:
    said = inside.judge(data, parts=parts, may_change=False)
    assert [code for _, code in said] == ["", "bad_request"][-len(said) :]


def test_valid_and_half_valid_streams_are_answered_as_the_protocol_says_however_they_are_cut_and_nothing_grows(inside: Inside) -> None:
    answered: set[str] = set()
    blocks = 0
    for seed in range(STREAMS):
        chance = Random(seed)
        data = grammar.stream(chance)
        may_change = seed % 20 == 0
        answered |= {code for _, code in inside.judge(data, parts=chance.choice((1, 2, 3, 9)), may_change=may_change)}
        if seed == STREAMS // 2:
            blocks = inside.blocks()
    # Not so much as a list of the streams: what is kept of the latest log lines, and of the jobs that were asked for.
    assert inside.blocks() < blocks + 20 * STREAMS
    assert answered >= {"", "bad_request", "forbidden", "too_large", "unknown_command", "unknown_symbol"}


def test_the_largest_requests_and_one_byte_more_are_told_from_each_other_however_they_are_cut(inside: Inside) -> None:
    for seed in range(12):
        chance = Random(seed)
        inside.judge(grammar.largest(chance), parts=chance.choice((1, 2, 100)), may_change=False)


def test_requests_that_mean_much_work_are_answered_as_the_protocol_says_however_they_are_cut_and_nothing_grows(inside: Inside) -> None:
    blocks = 0
    for seed in range(36):
        chance = Random(seed)
        inside.judge(grammar.large(chance), parts=chance.choice((1, 2, 9)), may_change=False)
        if seed == 18:
            blocks = inside.blocks()
    assert inside.blocks() < blocks + 2_000


@pytest.mark.parametrize("name", [command.name for command in COMMANDS.values() if command.changes])
def test_a_reader_is_refused_whatever_changes_something_with_whatever_parameters(inside: Inside, name: str) -> None:
    before = inside.service.training.recent(10), inside.service.publisher.generation, inside.service.publisher.stats()["entries"]
    for seed in range(30):
        chance = Random(seed)
        parameters = grammar.parameters(chance, name) if seed % 2 else grammar.anything(chance)
        assert inside.judge(grammar.pack([0, seed, name, parameters]), parts=1 + seed % 3, may_change=False) == [(seed, "forbidden")]
    assert before == (inside.service.training.recent(10), inside.service.publisher.generation, inside.service.publisher.stats()["entries"])


def test_a_handler_that_fails_is_noticed(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inside.service.scheduler, "describe", lambda now: 1 / 0)
    with pytest.raises(Wrong, match="ZeroDivisionError"):
        inside.judge(grammar.pack([0, 1, "schedule", []]), parts=1, may_change=False)


def test_a_daemon_in_the_fuzzers_own_folder_answers_its_reader_over_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with scratch() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with Outside(coins=2) as daemon:
            assert daemon.daemon.socket.is_relative_to(folder)
            daemon.tell_many(Random(1), STREAMS)
            assert daemon.read > 0
