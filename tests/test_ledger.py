"""The ledger: what was shown is what is kept, for good and in little room."""

from __future__ import annotations

import os
import signal
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgpack
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cryptod.errors import StoreError
from cryptod.market import QUANTILE_LEVELS, Float32
from cryptod.store import columns
from cryptod.store.columns import Column, pack, rounded, unpack
from cryptod.store.environment import Environment, open_environment
from cryptod.store.ledger import DATABASES, ISSUE_BITS, Issue, Ledger, Score, round_issue
from cryptod.store.record import DamagedRecord, framed
from tests.cuts import every_cut
from tests.disks import small_disk
from tests.test_environment import mapped

HOUR = 3_600_000
START = 472_000 * HOUR
LEVELS = np.array(QUANTILE_LEVELS)
SHAPE = np.array([-2.3, -1.75, -1.2, -0.52, 0.003, 0.53, 1.2, 1.76, 2.35])
"""Quantiles of the standardised residuals, fat-tailed as they are on the market."""


def symbols(count: int) -> tuple[str, ...]:
    return tuple(f"{'ABCDEFGHIJ'[i % 10]}C{i}/USDT" for i in range(count))


def make(hour: int = 0, coins: int = 5, seed: int = 0) -> Issue:
    """As a model issues them: volatility by coin and horizon, a little of its own at each level."""
    rng = np.random.default_rng([seed, hour])
    own = np.random.default_rng(seed).normal(0, 0.01, (coins, 24, 9))
    width = (
        0.006
        * np.exp(rng.normal(0, 0.5, (coins, 1)))
        * np.arange(1, 25) ** rng.normal(0.5, 0.03, (coins, 1))
        * np.exp(rng.normal(0, 0.02, (coins, 24)))
    )
    quantiles = np.sort(width[:, :, None] * SHAPE * np.exp(own), axis=-1)
    return Issue(
        issued=START + hour * HOUR + 2_345,
        cutoff=START + hour * HOUR,
        symbols=symbols(coins),
        models=tuple(f"full-{START}-b{i // 25}" for i in range(coins)),
        close=np.round(10 ** rng.uniform(-4, 4.5, coins), 6),
        quantiles=round_issue(quantiles),
        p_up=round_issue(0.5 + rng.normal(0, 0.01, (coins, 24))),
        volatility=round_issue(width),
        flags=tuple(("flat", "young") if i == 2 else () for i in range(coins)),
        score=round_issue(rng.normal(size=coins)),
    )


def same(one: Issue, other: Issue) -> bool:
    """To the last bit; ``seq`` apart."""
    plain = all(getattr(one, name) == getattr(other, name) for name in ("issued", "cutoff", "symbols", "models", "flags"))
    arrays = ("close", "quantiles", "p_up", "volatility", "score")
    return plain and all(
        getattr(one, n).tobytes() == getattr(other, n).tobytes() and getattr(one, n).dtype == getattr(other, n).dtype for n in arrays
    )


@contextmanager
def opened(path: Path) -> Iterator[tuple[Environment, Ledger]]:
    with open_environment(path, databases=DATABASES, writer=True) as environment:
        yield environment, Ledger(environment)


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[Environment]:
    with open_environment(tmp_path / "serving", databases=DATABASES, writer=True) as environment:
        yield environment


@pytest.fixture
def ledger(environment: Environment) -> Ledger:
    return Ledger(environment)


# Rounding and columns

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=st.floats(width=32)))
@example(np.array([0x7FFFFFFF, 0x7F800001, 0xFFFFFFFF, 0x7F7FFFFF], np.uint32).view(np.float32))
def test_rounding_is_idempotent_and_near_and_leaves_what_is_not_finite(values: Float32) -> None:
    once = round_issue(values)
    assert once.tobytes() == round_issue(once).tobytes()
    assert once.dtype == np.float32
    assert np.array_equal(np.isnan(once), np.isnan(values))
    ordinary = np.isfinite(values) & (np.abs(values) > 1e-30) & (np.abs(values) < 1e38)
    assert np.all(
        np.abs(once[ordinary].astype(float) - values[ordinary]) <= np.abs(values[ordinary].astype(float)) * 2.0 ** -(ISSUE_BITS + 1)
    )


@given(hnp.arrays(np.float32, 9, elements=finite))
@example(np.full(9, 3.4024083e38, np.float32))
def test_rounding_keeps_quantiles_in_order(values: Float32) -> None:
    assert np.all(np.diff(round_issue(np.sort(values)).astype(float)) >= 0)


def test_rounding_does_not_change_its_argument_and_takes_double_precision() -> None:
    values = np.array([0.1, 0.2])
    assert round_issue(values) is not values
    assert values.tolist() == [0.1, 0.2]
    single = np.array([0.1], np.float32)
    round_issue(single)
    assert single[0] == np.float32(0.1)
    assert round_issue(np.array([0.5, 0.0, -0.0, 1.0])).tobytes() == np.array([0.5, 0.0, -0.0, 1.0], np.float32).tobytes()


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=3, min_side=0, max_side=6), elements=st.floats(width=32)),
    st.integers(1, 23),
    st.sampled_from([(), (0,), (1,), (0, 1), (1, 0)]),
)
def test_columns_come_back_to_the_last_bit(values: Float32, bits: int, axes: tuple[int, ...]) -> None:
    kept = rounded(values, bits) if bits < 23 else values
    kept = np.where(np.isnan(kept), np.float32(np.nan), kept)  # hypothesis makes NaNs with payloads that no figure has
    record = pack({"a": 1}, {"x": Column(kept, bits, axes)}, b"key")
    head, back = unpack(record, b"key")
    assert head == {"a": 1}
    assert back["x"].shape == values.shape
    assert back["x"].tobytes() == kept.tobytes()


@pytest.mark.parametrize("dtype", [np.float64, np.int64, np.uint8, np.float32])
def test_plain_columns_come_back_too(dtype: type[np.generic]) -> None:
    values = np.arange(12).reshape(3, 4).T.astype(dtype)
    assert np.array_equal(unpack(pack({}, {"x": Column(values)}, b""), b"")[1]["x"], values)


def test_columns_that_were_not_rounded_or_are_of_no_known_type_are_refused() -> None:
    with pytest.raises(ValueError, match="not rounded"):
        pack({}, {"x": Column(np.array([0.1], np.float32), 11)}, b"")
    for array in (np.array([1j]), np.array(["a"]), np.array([object()])):
        with pytest.raises(ValueError, match="not kept"):
            pack({}, {"x": Column(array)}, b"")


@settings(deadline=None)
@given(st.data())
def test_any_change_to_a_record_is_noticed(data: st.DataObject) -> None:
    record = bytearray(pack({"a": 1}, {"x": Column(round_issue(np.linspace(0, 1, 50)), ISSUE_BITS, (0,))}, b"key"))
    if data.draw(st.booleans()):
        record = record[: data.draw(st.integers(0, len(record) - 1))]
    else:
        record[data.draw(st.integers(0, len(record) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamagedRecord):
        unpack(bytes(record), b"key")


def test_a_record_under_anothers_key_is_noticed() -> None:
    with pytest.raises(DamagedRecord, match="checksum"):
        unpack(pack({}, {}, b"one"), b"two")


HOSTILE: Final[list[list[Any]]] = [
    ["|O", [1], None, [], [b"x"]],
    ["<f8", [1 << 40, 1 << 40], None, [], [b"x"]],
    ["<f8", [-1], None, [], [b"x"]],
    ["<f4", [1 << 20], 11, [7], [zlib.compress(bytes(1 << 20))]],
    ["<f4", [10], 11, [0], [zlib.compress(bytes(1 << 24))]],
    ["<f4", [10], 99, [0], []],
    ["<f8", "no", None, [], []],
    [1, 2],
]


@pytest.mark.parametrize(
    "body",
    [b"\xc1", msgpack.packb(1), msgpack.packb([b"junk", {}])]
    + [msgpack.packb([zlib.compress(msgpack.packb({})), {"x": column}]) for column in HOSTILE],
)
def test_a_hostile_record_with_a_right_checksum_is_refused_too(body: bytes) -> None:
    record = framed(columns.VERSION, body, b"")
    tracemalloc.start()
    with pytest.raises(DamagedRecord):
        unpack(record, b"")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


# Issues


def test_what_was_issued_is_read_back_to_the_last_bit(ledger: Ledger) -> None:
    issues = [make(hour) for hour in range(40)]
    assert [ledger.append(issue) for issue in issues] == list(range(1, 41))
    back = list(ledger.read(0, START + 100 * HOUR))
    assert [issue.seq for issue in back] == list(range(1, 41))
    assert all(same(one, other) for one, other in zip(issues, back))
    last = ledger.last()
    assert last is not None
    assert same(last, issues[-1])


def test_without_scores_and_flags_it_is_read_back_without(ledger: Ledger) -> None:
    ledger.append(replace(make(), score=None, flags=()))
    (back,) = ledger.read(0, 1 << 60)
    assert back.score is None
    assert back.flags == ((),) * 5


def test_reading_takes_a_range_of_cutoffs_and_some_coins(ledger: Ledger) -> None:
    for hour in range(50):
        ledger.append(make(hour, coins=3 + hour % 2))
    middle = [issue.cutoff for issue in ledger.read(START + 10 * HOUR, START + 20 * HOUR)]
    assert middle == [START + hour * HOUR for hour in range(10, 20)]
    fourth = symbols(4)[3]
    rows = list(ledger.read(0, 1 << 60, [fourth, symbols(4)[0], "NONE/USDT"]))
    assert [issue.symbols for issue in rows[:2]] == [(symbols(4)[0],), (symbols(4)[0], fourth)]
    assert rows[1].quantiles.tobytes() == make(1, coins=4).quantiles[[0, 3]].tobytes()
    assert len(list(ledger.read(0, 1 << 60, [fourth]))) == 25
    assert list(ledger.read(START, START)) == list(ledger.read(-5, -1)) == list(ledger.read(0, 1 << 60, [])) == []


def test_the_coins_of_an_issue_are_known_without_its_figures(ledger: Ledger) -> None:
    issue = make()
    seq = ledger.append(issue)
    assert ledger.coins(issue.cutoff, seq) == issue.symbols
    assert ledger.coins(issue.cutoff, seq + 1) == ()


def test_issues_of_one_cutoff_do_not_replace_each_other(ledger: Ledger) -> None:
    for seed in range(3):
        ledger.append(make(0, seed=seed))
    assert [same(issue, make(0, seed=seed)) for seed, issue in enumerate(ledger.read(START, START + 1))] == [True] * 3


def test_no_transaction_stays_open_between_two_issues(ledger: Ledger) -> None:
    for hour in range(20):
        ledger.append(make(hour))
    reading = ledger.read(0, 1 << 60)
    next(reading)
    ledger.append(make(20))
    assert len(list(reading)) == 20


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantiles": np.full((5, 24, 9), 0.1, np.float32)}, "not rounded"),
        ({"p_up": np.full((5, 24), np.nan, np.float32)}, "not finite"),
        ({"quantiles": np.full((5, 24, 9), np.inf, np.float32)}, "not finite"),
        ({"close": np.full(5, np.inf)}, "not finite"),
        ({"close": np.ones(4)}, "shape"),
        ({"symbols": ("BTC/USDT",)}, "shape"),
        ({"models": ()}, "shape"),
        ({"volatility": np.ones((5, 23), np.float32)}, "shape"),
        ({"quantiles": np.ones((5, 24), np.float32)}, "shape"),
        ({"flags": ((),)}, "shape"),
    ],
)
def test_what_must_not_be_issued_is_refused_and_not_kept(ledger: Ledger, change: dict[str, object], said: str) -> None:
    with pytest.raises(StoreError, match=said):
        ledger.append(replace(make(), **change))  # type: ignore[arg-type]
    assert ledger.stats()["issues"] == 0
    assert ledger.append(make()) == 1


def test_a_damaged_record_is_left_out_and_counted(environment: Environment, ledger: Ledger) -> None:
    for hour in range(3):
        ledger.append(make(hour))

    with environment.read() as txn:
        _, (key, record), _ = txn.scan("issues")
    environment.write(lambda txn: txn.put("issues", key, record[:100] + bytes((record[100] ^ 1,)) + record[101:]))
    assert [issue.seq for issue in ledger.read(0, 1 << 60)] == [1, 3]
    assert [issue.seq for issue in ledger.read(0, 1 << 60, symbols(1))] == [1, 3]
    assert ledger.get(START + HOUR, 2) is None
    assert ledger.damaged == 3
    assert ledger.stats()["damaged"] == 3


# References, scores, pruning


def test_references_stand_beside_the_issue_until_they_are_pruned(ledger: Ledger) -> None:
    issues = [make(hour) for hour in range(5)]
    for issue in issues:
        ledger.append(issue, {"random_walk": issue.quantiles, "har": round_issue(issue.quantiles * 1.1)})
    found = ledger.references(START, 1)
    assert list(found) == ["random_walk", "har"]
    assert found["random_walk"].tobytes() == issues[0].quantiles.tobytes()
    assert ledger.references(START, 2) == {}
    assert ledger.prune(0, references_before=START + 3 * HOUR) == 0
    assert [bool(ledger.references(issue.cutoff, i + 1)) for i, issue in enumerate(issues)] == [False, False, False, True, True]
    assert ledger.stats()["issues"] == 5


def make_score(issue: Issue, seq: int, forecasters: int = 5) -> Score:
    rng = np.random.default_rng(seq)
    outcome = (rng.standard_t(4, issue.p_up.shape) * issue.volatility * 0.8).astype(np.float32)
    error = outcome[..., None] - issue.quantiles
    loss = np.maximum(LEVELS * error, (LEVELS - 1) * error).mean(-1)
    return Score(
        issue.cutoff,
        seq,
        issue.symbols,
        ("model", "random_walk", "ewma", "ewma_season", "log_har")[:forecasters],
        np.stack([loss * np.exp(rng.normal(0, 0.05, loss.shape)) for _ in range(forecasters)]).astype(np.float32),
        (issue.quantiles < outcome[..., None]).sum(-1).astype(np.uint8),
        outcome,
    )


def test_scores_come_back_as_near_as_promised(ledger: Ledger) -> None:
    score = make_score(make(), ledger.append(make()))
    score.outcome[1, 3] = np.nan
    score.loss[:, 1, 3] = np.nan
    score.level[1, 3] = 255
    ledger.put_score(score)
    (back,) = ledger.scores(0, 1 << 60)
    assert (back.cutoff, back.seq, back.symbols, back.forecasters) == (START, 1, score.symbols, score.forecasters)
    assert np.array_equal(back.level, score.level)
    assert np.allclose(back.loss, score.loss, rtol=5e-4, atol=0, equal_nan=True)
    assert np.allclose(back.outcome, score.outcome, rtol=6.2e-5, atol=0, equal_nan=True)
    (one,) = ledger.scores(0, 1 << 60, [score.symbols[1]])
    assert (one.loss.shape, one.level.shape, one.outcome.shape) == ((5, 1, 24), (1, 24), (1, 24))
    with pytest.raises(StoreError, match="shape"):
        ledger.put_score(replace(score, forecasters=("model",)))


def test_what_is_not_scored_is_known_without_anybody_remembering(ledger: Ledger) -> None:
    issues = [make(hour) for hour in range(4)]
    for issue in issues:
        ledger.append(issue)
    assert ledger.unscored(0, START + 2 * HOUR) == [(START, 1), (START + HOUR, 2)]
    ledger.put_score(make_score(issues[0], 1))
    assert ledger.unscored(0, START + 3 * HOUR) == [(START + HOUR, 2), (START + 2 * HOUR, 3)]
    ledger.put_score(make_score(issues[0], 1))
    assert ledger.stats() == {
        "issues": 4,
        "scores": 1,
        "references": 0,
        "first_cutoff": START,
        "last_cutoff": START + 3 * HOUR,
        "damaged": 0,
    }


def test_looking_for_what_is_not_scored_does_not_read_the_ledger(environment: Environment, ledger: Ledger) -> None:
    for hour in range(60):
        seq = ledger.append(make(hour, coins=100))
        if hour < 58:
            ledger.put_score(make_score(make(hour, coins=100), seq))
    environment.release()
    assert ledger.unscored(0, 1 << 60) == [(START + 58 * HOUR, 59), (START + 59 * HOUR, 60)]
    assert mapped(environment.path) < 200_000, "of 3 MB"
    assert ledger.prune(START + 59 * HOUR) == 59
    assert ledger.unscored(0, 1 << 60) == [(START + 59 * HOUR, 60)]


def test_pruning_drops_the_old_and_never_gives_a_number_twice(ledger: Ledger) -> None:
    for hour in range(40):
        seq = ledger.append(make(hour, coins=2), {"har": make(hour, coins=2).quantiles})
        ledger.put_score(make_score(make(hour, coins=2), seq))
    assert ledger.prune(START + 35 * HOUR) == 35
    stats = ledger.stats()
    assert (stats["issues"], stats["scores"], stats["references"], stats["first_cutoff"]) == (5, 5, 5, START + 35 * HOUR)
    assert ledger.prune(START + 100 * HOUR) == 5
    assert ledger.last() is None
    assert ledger.stats()["first_cutoff"] == 0
    assert ledger.append(make(200)) == 41


def test_a_store_that_is_pruned_does_not_grow(environment: Environment, ledger: Ledger) -> None:
    sizes = []
    for hour in range(150):
        ledger.append(make(hour, coins=20), {"har": make(hour, coins=20).quantiles})
        ledger.prune(START + (hour - 30) * HOUR, references_before=START + (hour - 26) * HOUR)
        sizes.append(environment.used_bytes())
    assert sizes[-1] <= 1.1 * sizes[60]


def test_a_year_of_hourly_issues_of_100_coins_with_scores_fits_in_a_gigabyte(environment: Environment, ledger: Ledger) -> None:
    issues = [make(hour, coins=100) for hour in range(48)]
    start = environment.used_bytes()
    for issue in issues:
        ledger.put_score(make_score(issue, ledger.append(issue)))
    a_year = (environment.used_bytes() - start) / len(issues) * 24 * 365
    assert a_year < 600e6, f"{a_year / 1e6:.0f} MB"


# Cuts and full disks


def test_cut_before_any_change_to_a_file_no_acknowledged_issue_is_missing(tmp_path: Path) -> None:
    said = tmp_path / "said"
    issues = [make(hour, coins=2) for hour in range(6)]

    def work() -> None:
        with opened(path) as (_, ledger):
            for number, issue in enumerate(issues):
                seq = ledger.append(issue, {"har": issue.quantiles})
                if number == 3:
                    ledger.prune(START + HOUR)
                descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.write(descriptor, bytes((seq,)))
                os.close(descriptor)

    path = tmp_path / "0"
    for at in every_cut(work):
        acknowledged = list(said.read_bytes()) if said.exists() else []
        with opened(path) as (_, ledger):
            kept = {issue.seq: issue for issue in ledger.read(0, 1 << 60)}
            pruned = {1} if 4 in acknowledged or 1 not in kept else set()
            assert set(acknowledged) - pruned <= kept.keys()
            assert len(kept.keys() - set(acknowledged)) <= 1, "at most the one that was under way"
            for seq, issue in kept.items():
                assert same(issue, issues[seq - 1])
                # Pruning takes an old issue's references before the issue itself.
                assert ledger.references(issue.cutoff, seq) or (seq == 1 and 4 in kept)
            assert ledger.damaged == 0
            following = ledger.append(make(99, coins=2))
            assert following == max([0, *kept, *acknowledged]) + 1
        said.unlink(missing_ok=True)
        path = tmp_path / str(at)
    assert at > 25


def test_killed_at_any_moment_no_acknowledged_issue_is_missing(tmp_path: Path) -> None:
    """As above, at moments that are not between two calls."""
    path = tmp_path / "serving"
    rng = np.random.default_rng(7)
    total = 0
    for _ in range(12):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                with opened(path) as (_, ledger):
                    while True:
                        os.write(writing, ledger.append(make(1, coins=4)).to_bytes(4, "big"))
            finally:
                os._exit(1)
        os.close(writing)
        first = os.read(reading, 4)
        assert first
        signal.sigtimedwait([], rng.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        rest = b""
        while data := os.read(reading, 65536):
            rest += data
        os.close(reading)
        acknowledged = np.frombuffer(first + rest, ">u4").tolist()
        with opened(path) as (_, ledger):
            kept = [issue.seq for issue in ledger.read(0, 1 << 60)]
            assert set(acknowledged) <= set(kept)
            assert len(kept) - total <= len(acknowledged) + 1
            assert ledger.damaged == 0
            total = len(kept)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "512k") as place:
        yield place


def test_a_full_disk_loses_nothing_and_goes_on_by_itself_when_there_is_room(disk: Path) -> None:
    filler = disk / "filler"
    filler.write_bytes(bytes(200 << 10))
    with opened(disk / "serving") as (_, ledger):
        kept = 0
        while os.statvfs(disk).f_bavail > 40:
            assert ledger.append(make(kept, coins=20)) == kept + 1
            kept += 1
        assert kept >= 3
        for _ in range(2):
            with pytest.raises(StoreError, match="full disk") as caught:
                ledger.append(make(kept, coins=500))
            assert "free some space" in caught.value.hint
        assert [same(issue, make(hour, coins=20)) for hour, issue in enumerate(ledger.read(0, 1 << 60))] == [True] * kept
        filler.unlink()
        assert ledger.append(make(kept, coins=20)) == kept + 1
    with opened(disk / "serving") as (_, ledger):
        assert [issue.seq for issue in ledger.read(0, 1 << 60)] == list(range(1, kept + 2))
        assert ledger.damaged == 0


def test_issues_of_a_time_that_has_not_come_are_kept_and_shown_to_nobody(tmp_path: Path) -> None:
    with opened(tmp_path / "serving") as (environment, ledger):
        sequences = [ledger.append(make(hour)) for hour in (0, 30, 72)]
        key = START + 72 * HOUR
        assert ledger.set_aside(START + 40 * HOUR, 24 * HOUR) == 1
        assert ledger.set_aside(START + 40 * HOUR, 24 * HOUR) == 0
        again = ledger.append(make(72, seed=9))
        later = Ledger(environment)  # as another process, or after a restart, reads it
        for found in (ledger, later):
            assert found.keys(0, key + 1) == [(START, sequences[0]), (START + 30 * HOUR, sequences[1]), (key, again)]
            assert found.unscored(0, key + 1) == found.keys(0, key + 1)
            assert [issue.cutoff for issue in found.read(0, key + 1)] == [START, START + 30 * HOUR, key]
            assert found.last() is not None
            assert found.note_unscored() == 0
        kept = ledger.get(key, sequences[2])
        assert kept is not None
        assert same(kept, make(72)), "it stands as it was issued"
        assert later.prune(key + 1) == 4
        assert Ledger(environment).append(make(0)) == again + 1
        with environment.read() as txn:
            assert txn.count("counters") == 1


def test_scores_of_outcomes_that_have_not_come_are_made_anew(ledger: Ledger) -> None:
    for hour in (0, 30):
        issue = make(hour)
        seq = ledger.append(issue)
        shape = issue.p_up.shape
        ledger.put_score(
            Score(issue.cutoff, seq, issue.symbols, ("served",), np.ones((1, *shape), np.float32), np.ones(shape, np.uint8), issue.p_up)
        )
    ledger.set_aside(START + 40 * HOUR, 24 * HOUR)
    assert [score.cutoff for score in ledger.scores(0, 1 << 60)] == [START], "its last outcome was known at hour 24"
    assert [cutoff for cutoff, _ in ledger.unscored(0, 1 << 60)] == [START + 30 * HOUR]
