"""Where messages end, held against msgpack's own reader."""

from __future__ import annotations

import itertools
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptod.daemon.framing import Frames, Malformed, TooLarge
from cryptod.protocol import MAX_REQUEST

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20))
)
objects = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=20), max_leaves=30
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[first:last] for first, last in itertools.pairwise(bounds)]


@given(st.lists(objects, max_size=6), st.lists(st.integers(0, 1 << 20), max_size=6), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_whole_messages_come_out_as_they_were_packed_however_they_are_cut(values: list[Any], places: list[int], steps: int) -> None:
    wanted = [msgpack.packb(value) for value in values]
    frames, found = Frames(), []
    for piece in cut(b"".join(wanted), places):
        frames.feed(piece)
        while (message := frames.next(steps)) is not None or not frames.starved:
            if message is not None:
                found.append(message)
    assert found == wanted
    assert len(frames) == 0


@given(st.binary(max_size=200), st.lists(st.integers(0, 300), max_size=4))
@settings(max_examples=300, deadline=None)
def test_any_bytes_give_messages_that_msgpack_reads_to_the_same_end_or_a_refusal(data: bytes, places: list[int]) -> None:
    frames = Frames(limit=150)
    at = 0
    try:
        for piece in cut(data, places):
            frames.feed(piece)
            while (message := frames.next()) is not None:
                assert data[at : at + len(message)] == message
                at += len(message)
                reader = msgpack.Unpacker(strict_map_key=False)
                reader.feed(message)
                reader.skip()
                assert reader.tell() == len(message)
    except (Malformed, TooLarge):
        return
    assert len(frames) == len(data) - at <= 150


@pytest.mark.parametrize(
    "claim", [b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff" * 3, b"\xdf\x00\x01\x00\x00", b"\xdb\x00\x01\x00\x00", b"\xc6\xff\xff\xff\xff"]
)
def test_what_claims_to_be_too_large_is_refused_at_its_header(claim: bytes) -> None:
    frames = Frames()
    frames.feed(claim)
    with pytest.raises(TooLarge):
        frames.next()


def test_the_largest_message_passes_and_one_byte_more_does_not() -> None:
    largest = b"\xc5" + (MAX_REQUEST - 3).to_bytes(2, "big") + bytes(MAX_REQUEST - 3)
    frames = Frames()
    for i in range(0, MAX_REQUEST, 1000):
        assert frames.next() is None
        assert frames.starved
        frames.feed(largest[i : i + 1000])
    assert frames.next() == largest
    frames.feed(b"\xc5" + (MAX_REQUEST - 2).to_bytes(2, "big"))
    with pytest.raises(TooLarge):
        frames.next()


@pytest.mark.parametrize("deep", [b"\x91" * 60_000 + b"\x01", b"\x81\x01" * 30_000 + b"\x01", b"\xdc\x00\x01" * 20_000 + b"\x01"])
def test_a_message_ends_where_its_innermost_element_does_however_deep_that_lies(deep: bytes) -> None:
    frames = Frames()
    frames.feed(deep[:-1])
    assert frames.next() is None
    frames.feed(deep[-1:] + b"\x05")
    assert [frames.next(), frames.next()] == [deep, b"\x05"]


def test_an_element_that_does_not_exist_is_malformed() -> None:
    frames = Frames()
    frames.feed(b"\x92\x01\xc1")
    with pytest.raises(Malformed, match="0xc1"):
        frames.next()


def test_the_scan_stops_after_the_steps_it_was_given_and_goes_on() -> None:
    frames = Frames()
    message = b"\xdc\x27\x10" + b"\x01" * 10_000
    frames.feed(message)
    assert frames.next(5000) is None
    assert not frames.starved
    assert frames.next(5000) is None
    assert frames.next(5000) == message
