"""The ledger: every forecast as it was issued, for good; and, when its outcome is known, how it did.

Knows the environment and the columns' format; nothing of how forecasts are made or scored. Nothing in it is ever
changed, a score no more than an issue: the first word stands. Records stand under ``(cutoff, seq)``, both big-endian,
so that they are in the order of their time:

    issues      what was issued: quantiles, P(up), volatility and so on of all the coins issued together
    references  the quantiles of the reference forecasters at that moment, until the issue is scored
    scores      the losses of all the forecasters, and where the outcomes fell
    unscored    nothing but the keys of the issues that have no score yet: LMDB touches the pages of a record, 30 kB
                of them, whenever its key is passed, so who looks for something must have less to look through
    counters    the last ``seq``: one more with every issue, also after old ones were pruned; and a mark for each issue that was set
                aside, because it was made at a time that had not come: it stays as it was issued, and nobody is shown it

Figures are rounded (`round_issue`) *before* they are shown to anybody, so what is kept is what was shown, to the last
bit. What `append` has acknowledged is on disk.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from cryptod.errors import StoreError
from cryptod.market import Float32, Float64, UInt8
from cryptod.store.columns import Column, header, pack, rounded, unpack
from cryptod.store.environment import Environment, Transaction
from cryptod.store.record import DamagedRecord

T = TypeVar("T")

DATABASES: Final = ("issues", "references", "scores", "unscored", "counters")

ISSUE_BITS: Final = 11
"""A relative error of at most 2^-12 = 0.024 %: a quantile of 2 % is off by half a hundredth of a basis point."""
LOSS_BITS: Final = 10
OUTCOME_BITS: Final = 13


_KEY: Final = struct.Struct(">QQ")
_SEQ: Final = b"seq"
_ASIDE: Final = b"aside"
"""Opens the key of a mark; the issue's own key follows."""
_CHUNK: Final = 16
"""Records read or deleted in one transaction."""


def round_issue(values: npt.NDArray[np.floating[Any]]) -> Float32:
    """Figures as the ledger keeps them. Issue these: they come back from it bit for bit."""
    return rounded(values, ISSUE_BITS)


@dataclass(frozen=True, slots=True, eq=False)
class Issue:
    """Forecasts of N coins made at one cutoff and issued together.

    ``cutoff``, ``issued``: UTC epoch ms. ``close``: float64 [N]. ``quantiles``: float32 [N, H, 9] of the cumulative
    log return; ``p_up`` and ``volatility``: float32 [N, H]; ``score``: float32 [N], if there is one. Row ``n`` is of
    ``symbols[n]``, made by ``models[n]``, with ``flags[n]``. ``seq`` is given by `Ledger.append`.
    """

    issued: int
    cutoff: int
    symbols: tuple[str, ...]
    models: tuple[str, ...]
    close: Float64
    quantiles: Float32
    p_up: Float32
    volatility: Float32
    flags: tuple[tuple[str, ...], ...] = ()
    score: Float32 | None = None
    seq: int = 0

    def coins(self, symbols: Collection[str]) -> Issue:
        """The rows of some of the coins, in the issue's order."""
        rows = [row for row, symbol in enumerate(self.symbols) if symbol in symbols]
        return replace(
            self,
            symbols=_picked(self.symbols, rows),
            models=_picked(self.models, rows),
            close=self.close[rows],
            quantiles=self.quantiles[rows],
            p_up=self.p_up[rows],
            volatility=self.volatility[rows],
            flags=_picked(self.flags, rows),
            score=None if self.score is None else self.score[rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Score:
    """How an issue did, and how the references would have done. NaN, and a level of 255, where no outcome is known.

    ``loss``: float32 [F, N, H], mean pinball loss over the levels, of each of ``forecasters``. ``level``: uint8
    [N, H], how many of the issued quantiles lie below the outcome (0 to 9). ``outcome``: float32 [N, H], the
    cumulative log return. Losses are kept to 0.05 %, outcomes to 0.006 %. P(up), volatility and the like stand in the
    issue of the same cutoff and seq.
    """

    cutoff: int
    seq: int
    symbols: tuple[str, ...]
    forecasters: tuple[str, ...]
    loss: Float32
    level: UInt8
    outcome: Float32

    def coins(self, symbols: Collection[str]) -> Score:
        """The rows of some of the coins, in the score's order."""
        rows = [row for row, symbol in enumerate(self.symbols) if symbol in symbols]
        return replace(
            self, symbols=_picked(self.symbols, rows), loss=self.loss[:, rows], level=self.level[rows], outcome=self.outcome[rows]
        )


class Ledger:
    """``environment`` needs the `DATABASES`. ``damaged`` counts records that could not be read and were left out."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.damaged = 0
        self._aside = self._marks()

    def _marks(self) -> frozenset[bytes]:
        with self._environment.read(lend=True) as txn:
            return frozenset(bytes(key[len(_ASIDE) :]) for key, _ in txn.scan("counters", _ASIDE, _ASIDE + b"\xff"))

    def set_aside(self, after: int, horizon: int) -> int:
        """Mark the issues with a cutoff later than ``after``: they are kept, but neither read nor scored any more. Returns how many.

        Scores that took in outcomes of a later time (an issue's last outcome is known ``horizon`` ms on) are deleted, and their
        issues wait to be scored again.
        """

        def change(txn: Transaction) -> int:
            first = _KEY.pack(max(0, after + 1), 0)
            marked = [key for key, _ in txn.scan("issues", first) if key not in self._aside]
            for key in marked:
                txn.put("counters", _ASIDE + key, b"")
                txn.delete("unscored", key)
            for key in [key for key, _ in txn.scan("scores", _KEY.pack(max(0, after + 1 - horizon), 0))]:
                txn.delete("scores", key)
                if key < first and txn.get("issues", key) is not None:
                    txn.put("unscored", key, b"")
            return len(marked)

        count = self._environment.write(change)
        self._aside = self._marks()
        return count

    def append(self, issue: Issue, references: Mapping[str, Float32] | None = None) -> int:
        """Keep an issue, and what the references said (name -> float32 [N, H, 9]), in one step.

        On disk when it returns the issue's seq. Raises `StoreError`: the disk, figures that are not finite or were
        not rounded, shapes that do not agree; then nothing is kept, and nothing may be shown.
        """

        def change(txn: Transaction) -> int:
            seq = int.from_bytes(txn.get("counters", _SEQ) or b"", "big") + 1
            key = _KEY.pack(issue.cutoff, seq)
            txn.put("counters", _SEQ, seq.to_bytes(8, "big"))
            txn.put("issues", key, _issue_record(issue, key))
            txn.put("unscored", key, b"")
            if references:
                txn.put("references", key, _reference_record(references, key))
            return seq

        return self._environment.write(change)

    def read(self, start: int, end: int, symbols: Collection[str] | None = None) -> Iterator[Issue]:
        """Issues with ``start <= cutoff < end``, oldest first; if ``symbols`` are given, their rows only.

        An issue without any of them is passed over unread. No transaction is open while the caller has its turn.
        """
        return self._read("issues", start, end, symbols, _issue)

    def get(self, cutoff: int, seq: int) -> Issue | None:
        return self._get("issues", cutoff, seq, _issue)

    def coins(self, cutoff: int, seq: int) -> tuple[str, ...]:
        """The coins of an issue, without its figures; none where it cannot be read."""
        return self._get("issues", cutoff, seq, lambda key, record: tuple(header(record, key)["symbols"])) or ()

    def last(self) -> Issue | None:
        """The issue with the latest cutoff that can be read."""
        before: bytes | None = None
        while True:
            with self._environment.read() as txn:
                found = txn.last("issues", before)
            if found is None:
                return None
            before = found[0]
            if before not in self._aside and (issue := self._decoded(*found, _issue)) is not None:
                return issue

    def references(self, cutoff: int, seq: int) -> dict[str, Float32]:
        """What the references said when the issue was made; empty if that was not kept, or is not any more."""
        return self._get("references", cutoff, seq, lambda key, record: unpack(record, key)[1]) or {}

    def put_score(self, score: Score) -> bool:
        """Keep how an issue did, unless that is known already: False then, and the earlier score stays. Raises `StoreError`."""
        coins, horizons = score.outcome.shape
        if (score.loss.shape, score.level.shape, len(score.symbols)) != (
            (len(score.forecasters), coins, horizons),
            (coins, horizons),
            coins,
        ):
            raise StoreError("a score's columns do not agree in shape", hint="this is a defect")
        key = _KEY.pack(score.cutoff, score.seq)
        record = pack(
            {"symbols": score.symbols, "forecasters": score.forecasters},
            {
                # Losses of one outcome are alike whoever made the forecast.
                "loss": Column(rounded(score.loss, LOSS_BITS), LOSS_BITS, (0,)),
                "level": Column(score.level),
                "outcome": Column(rounded(score.outcome, OUTCOME_BITS), OUTCOME_BITS, (1,)),
            },
            key,
        )

        def change(txn: Transaction) -> bool:
            new = txn.get("scores", key) is None
            if new:
                txn.put("scores", key, record)
            txn.delete("unscored", key)
            return new

        return self._environment.write(change)

    def scores(self, start: int, end: int, symbols: Collection[str] | None = None) -> Iterator[Score]:
        """Scores of issues with ``start <= cutoff < end``, oldest first; as `read`."""
        return self._read("scores", start, end, symbols, _score)

    def keys(self, start: int, end: int) -> list[tuple[int, int]]:
        """(cutoff, seq) of the issues with ``start <= cutoff < end``, oldest first."""
        with self._environment.read(lend=True) as txn:
            keys = [key for key, _ in txn.scan("issues", _KEY.pack(max(0, start), 0), _KEY.pack(max(0, end), 0))]
        return [_pair(key) for key in keys if key not in self._aside]

    def scored(self, start: int, end: int, symbols: Collection[str] | None = None) -> Iterator[tuple[Issue, Score]]:
        """As `scores`, each with its issue: the same coins in the same order."""
        for score in self.scores(start, end, symbols):
            issue = self.get(score.cutoff, score.seq)
            if issue is not None and symbols is not None:
                issue = issue.coins(frozenset(symbols))
            if issue is not None and issue.symbols == score.symbols:
                yield issue, score

    def scores_mark(self) -> tuple[int, int, int]:
        """(number of scores, cutoff and seq of the newest): another one as soon as there is a newer score. Zeros while there is none."""
        with self._environment.read(lend=True) as txn:
            last = txn.last("scores")
            return (txn.count("scores"), *_pair(last[0])) if last else (0, 0, 0)

    def unscored(self, start: int, end: int) -> list[tuple[int, int]]:
        """(cutoff, seq) of the issues with ``start <= cutoff < end`` that have no score, oldest first."""
        with self._environment.read(lend=True) as txn:
            return [_pair(key) for key, _ in txn.scan("unscored", _KEY.pack(max(0, start), 0), _KEY.pack(max(0, end), 0))]

    def note_unscored(self) -> int:
        """Note the issues without a score that are not noted, as in a ledger of before there were notes; how many. Cheap if none is."""

        def change(txn: Transaction) -> int:
            keys = [key for key, _ in txn.scan("issues") if key not in self._aside]
            missing = [key for key in keys if txn.get("scores", key) is None and txn.get("unscored", key) is None]
            for key in missing:
                txn.put("unscored", key, b"")
            return len(missing)

        with self._environment.read(lend=True) as txn:
            if txn.count("unscored") + txn.count("scores") + len(self._aside) >= txn.count("issues"):
                return 0
        return self._environment.write(change)

    def prune(self, before: int, *, references_before: int | None = None) -> int:
        """Delete what was issued at a cutoff below ``before``; and references alone already below another time.

        In small transactions, so that nothing else waits. Returns the number of issues that were deleted.
        """
        self._delete("references", max(before, references_before or 0))
        self._delete("unscored", before)
        self._delete("scores", before)
        self._delete("counters", before, _ASIDE)
        return self._delete("issues", before)

    def stats(self) -> dict[str, int]:
        """Counts, and first and last cutoff (0: empty). ``damaged``: records that could not be read since the start."""
        with self._environment.read(lend=True) as txn:
            first = next((key for key, _ in txn.scan("issues")), None)
            last = txn.last("issues")
            return {
                "issues": txn.count("issues"),
                "scores": txn.count("scores"),
                "references": txn.count("references"),
                "first_cutoff": _pair(first)[0] if first else 0,
                "last_cutoff": _pair(last[0])[0] if last else 0,
                "damaged": self.damaged,
            }

    def _read(
        self, database: str, start: int, end: int, symbols: Collection[str] | None, decode: Callable[[bytes, bytes], Any]
    ) -> Iterator[Any]:
        wanted = None if symbols is None else frozenset(symbols)
        key, stop = _KEY.pack(max(0, start), 0), _KEY.pack(max(0, end), 0)
        while True:
            with self._environment.read() as txn:
                found = list(islice(txn.scan(database, key, stop), _CHUNK))
            for key, record in found:
                if key in self._aside:
                    continue
                if (
                    wanted is not None
                    and self._decoded(key, record, lambda at, data: wanted.isdisjoint(header(data, at)["symbols"])) is not False
                ):
                    continue
                if (row := self._decoded(key, record, decode)) is not None:
                    yield row if wanted is None else row.coins(wanted)
            if len(found) < _CHUNK:
                return
            key += b"\0"  # the smallest key that is larger

    def _get(self, database: str, cutoff: int, seq: int, decode: Callable[[bytes, bytes], T]) -> T | None:
        key = _KEY.pack(cutoff, seq)
        with self._environment.read() as txn:
            record = txn.get(database, key)
        return None if record is None else self._decoded(key, record, decode)

    def _decoded(self, key: bytes, record: bytes, decode: Callable[[bytes, bytes], T]) -> T | None:
        try:
            return decode(key, record)
        except (DamagedRecord, LookupError, TypeError):
            self.damaged += 1
            return None

    def _delete(self, database: str, before: int, prefix: bytes = b"") -> int:
        deleted = 0
        stop = prefix + _KEY.pack(max(0, before), 0)

        def change(txn: Transaction) -> int:
            keys = [key for key, _ in islice(txn.scan(database, prefix, stop), _CHUNK)]
            return sum(txn.delete(database, key) for key in keys)

        while count := self._environment.write(change):
            deleted += count
        return deleted


def _issue_record(issue: Issue, key: bytes) -> bytes:
    coins, horizons = issue.p_up.shape
    flags = issue.flags or ((),) * coins
    shapes = (issue.close.shape, issue.quantiles.shape[:2], issue.volatility.shape, len(issue.symbols), len(issue.models), len(flags))
    if shapes != ((coins,), (coins, horizons), (coins, horizons), coins, coins, coins) or issue.quantiles.ndim != 3:
        raise StoreError("an issue's columns do not agree in shape", hint="this is a defect")
    columns = {
        "close": Column(np.asarray(issue.close, np.float64)),
        "quantiles": Column(issue.quantiles, ISSUE_BITS, (1, 0)),
        "p_up": Column(issue.p_up, ISSUE_BITS, (1, 0)),
        "volatility": Column(issue.volatility, ISSUE_BITS, (1, 0)),
    }
    if issue.score is not None:
        columns["score"] = Column(issue.score, ISSUE_BITS)
    for name, column in columns.items():
        if not np.isfinite(column.values).all():
            raise StoreError(f"{name} of an issue is not finite", hint="this is a defect: such a forecast must not be issued")
    models, rows = _numbered(issue.models)
    flagged = {row: list(names) for row, names in enumerate(flags) if names}
    head = {"issued": issue.issued, "symbols": issue.symbols, "models": models, "model_of": rows, "flags": list(flagged.items())}
    try:
        return pack(head, columns, key)
    except ValueError as error:
        raise StoreError(f"an issue cannot be kept: {error}", hint="round_issue() comes before anything is shown") from error


def _issue(key: bytes, record: bytes) -> Issue:
    cutoff, seq = _pair(key)
    head, columns = unpack(record, key)
    flags: list[tuple[str, ...]] = [()] * len(head["symbols"])
    for row, names in head["flags"]:
        flags[row] = tuple(names)
    return Issue(
        issued=head["issued"],
        cutoff=cutoff,
        symbols=tuple(head["symbols"]),
        models=tuple(head["models"][number] for number in head["model_of"]),
        close=columns["close"],
        quantiles=columns["quantiles"],
        p_up=columns["p_up"],
        volatility=columns["volatility"],
        flags=tuple(flags),
        score=columns.get("score"),
        seq=seq,
    )


def _score(key: bytes, record: bytes) -> Score:
    cutoff, seq = _pair(key)
    head, columns = unpack(record, key)
    return Score(cutoff, seq, tuple(head["symbols"]), tuple(head["forecasters"]), columns["loss"], columns["level"], columns["outcome"])


def _reference_record(references: Mapping[str, Float32], key: bytes) -> bytes:
    return pack({}, {name: Column(round_issue(quantiles), ISSUE_BITS, (1, 0)) for name, quantiles in references.items()}, key)


def _numbered(names: Sequence[str]) -> tuple[list[str], list[int]]:
    """The different names, and which of them each is."""
    numbers: dict[str, int] = {}
    rows = [numbers.setdefault(name, len(numbers)) for name in names]
    return list(numbers), rows


def _picked(values: tuple[T, ...], rows: Sequence[int]) -> tuple[T, ...]:
    return tuple(values[row] for row in rows) if values else ()


def _pair(key: bytes) -> tuple[int, int]:
    cutoff, seq = _KEY.unpack(key)
    return int(cutoff), int(seq)
