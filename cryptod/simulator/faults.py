"""What can go wrong with an exchange: a table of named faults, whom and when they hit, and what they do to an answer.

Knows faults as data and how to spoil rows and bytes. Knows no sockets: `server` does to the connection what a fault's stage says.
Faults that change the market itself (halts, renamings) are events of the truth and live in `events`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from cryptod.errors import ConfigError
from cryptod.market import HOUR, parse_symbol

Row = list[Any]
Stage = Literal["listener", "connection", "answer", "rows", "clock", "body", "market"]
FOREVER: Final = 2**62


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fault and whom it hits: requests of these symbols and endpoints (all if empty), in [start, end).

    ``start`` and ``end`` are UTC ms of the exchange's clock; ``times`` is how often it hits at most (0: no end). ``value`` is
    what the kind's row in `KINDS` says. ``to`` is the new name of a renamed coin.
    """

    kind: str
    probability: float = 1.0
    symbols: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    start: int = 0
    end: int = FOREVER
    times: int = 0
    value: float | None = None
    to: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"there is no fault {self.kind!r}", hint=f"one of {', '.join(KINDS)}")
        if not 0.0 <= self.probability <= 1.0:
            raise ConfigError(f"probability of {self.kind} must lie in 0 to 1, not {self.probability}")
        if KINDS[self.kind].stage == "market" and not self.symbols:
            raise ConfigError(f"{self.kind} happens to a coin", hint="name it: symbols=BTC/USDT")
        if self.kind == "renamed":
            parse_symbol(self.to)

    @property
    def amount(self) -> float:
        """``value``, or the kind's own."""
        return KINDS[self.kind].value if self.value is None else self.value


@dataclass(frozen=True, slots=True)
class Kind:
    """One row of the table. ``value`` is the default of `Fault.value`; ``meaning`` says what it is."""

    stage: Stage
    value: float
    meaning: str


KINDS: Final[dict[str, Kind]] = {
    "refused": Kind("listener", 0, "nobody listens on the port while the window lasts"),
    "timeout": Kind("connection", 3600, "no answer for VALUE real seconds, then a reset"),
    "reset": Kind("connection", 0, "the connection is reset before the answer"),
    "cut": Kind("body", 0.5, "the connection is reset after the part VALUE of the body"),
    "drip": Kind("body", 20, "the body trickles in over VALUE real seconds"),
    "rate_limited": Kind("answer", 1, "429, come back after VALUE seconds"),
    "banned": Kind("answer", 2, "418, come back after VALUE seconds"),
    "server_error": Kind("answer", 503, "HTTP status VALUE"),
    "html": Kind("answer", 200, "a web page with HTTP status VALUE"),
    "truncated": Kind("body", 0.5, "only the part VALUE of the JSON, in a well-formed response"),
    "wrong_types": Kind("rows", 0, "a row with words and lists for numbers"),
    "nan": Kind("rows", 0, "a row with NaN for its prices"),
    "negative": Kind("rows", 0, "a row with negative prices"),
    "inverted": Kind("rows", 0, "a row with its high below its low"),
    "missing": Kind("rows", 0, "a row left out"),
    "doubled": Kind("rows", 0, "a row given twice"),
    "disordered": Kind("rows", 0, "rows out of order"),
    "future": Kind("rows", 3, "VALUE candles of hours to come"),
    "revised": Kind("rows", 3600, "for VALUE seconds after its close a candle has another close and volume than later"),
    "unaligned": Kind("rows", 1000, "a row whose open time is VALUE ms off the hour"),
    "skewed": Kind("clock", 60_000, "the exchange's clock is VALUE ms ahead"),
    "halted": Kind("market", 0, "the coin does not trade in the window"),
    "delisted": Kind("market", 0, "the coin trades no more from the start on; its history stays"),
    "removed": Kind("market", 0, "the coin is unknown from the start on"),
    "renamed": Kind("market", 0, "from the start on the coin's candles appear under the name TO"),
    "redenominated": Kind("market", 1000, "prices are divided, volumes multiplied by VALUE from the start on"),
    "flat": Kind("market", 0, "the price stands still and nothing is traded in the window"),
}


class FaultTable:
    """The faults in force and how often each kind has hit. Draws are seeded, so that a run can be repeated."""

    def __init__(self, faults: Iterable[Fault] = (), seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.hits: Counter[str] = Counter()
        self.replace(faults)

    def replace(self, faults: Iterable[Fault]) -> None:
        """Put these in force instead of what was."""
        self.faults = tuple(faults)
        self._left = [fault.times or FOREVER for fault in self.faults]

    def of_stage(self, stage: Stage) -> tuple[Fault, ...]:
        return tuple(fault for fault in self.faults if KINDS[fault.kind].stage == stage)

    def active(self, kind: str, now: int) -> bool:
        """Whether a fault of the kind is in its window, whatever its probability."""
        return any(fault.kind == kind and fault.start <= now < fault.end for fault in self.faults)

    def strike(self, endpoint: str, symbol: str, now: int) -> dict[Stage, Fault]:
        """The faults that hit this request, at most one of each stage. ``symbol`` is empty for requests about all coins."""
        struck: dict[Stage, Fault] = {}
        for number, fault in enumerate(self.faults):
            stage = KINDS[fault.kind].stage
            if stage in struck or stage in ("listener", "market") or not self._left[number]:
                continue
            if stage == "rows" and endpoint != "klines":
                continue
            if (fault.endpoints and endpoint not in fault.endpoints) or (fault.symbols and symbol not in fault.symbols):
                continue
            if not fault.start <= now < fault.end or self.random.random() >= fault.probability:
                continue
            self._left[number] -= 1
            self.hits[fault.kind] += 1
            struck[stage] = fault
        return struck

    def spoil(self, fault: Fault, body: bytes, now: int) -> bytes:
        """The klines ``body`` with the fault in its rows."""
        rows: list[Row] = msgspec.json.decode(body)
        if rows:
            _SPOILERS[fault.kind](rows, fault.amount, now, self.random)
        return msgspec.json.encode(rows)


def _wrong_types(rows: list[Row], _: float, __: int, chance: random.Random) -> None:
    row = chance.choice(rows)
    row[1:6] = ["soon", None, [row[3]], {"close": row[4]}, True]


def _nan(rows: list[Row], _: float, __: int, chance: random.Random) -> None:
    chance.choice(rows)[1:5] = ["NaN"] * 4


def _negative(rows: list[Row], _: float, __: int, chance: random.Random) -> None:
    row = chance.choice(rows)
    row[1:5] = [f"-{price}" for price in row[1:5]]


def _inverted(rows: list[Row], _: float, __: int, chance: random.Random) -> None:
    row = chance.choice(rows)
    row[2], row[3] = f"{float(row[3]) * 0.99:.8f}", f"{float(row[2]) * 1.01:.8f}"


def _missing(rows: list[Row], _: float, __: int, chance: random.Random) -> None:
    del rows[chance.randrange(len(rows))]


def _doubled(rows: list[Row], _: float, __: int, chance: random.Random) -> None:
    place = chance.randrange(len(rows))
    rows.insert(place, list(rows[place]))


def _disordered(rows: list[Row], _: float, __: int, chance: random.Random) -> None:
    order = list(rows)
    while len(rows) > 1 and rows == order:
        chance.shuffle(rows)


def _future(rows: list[Row], count: float, now: int, _: random.Random) -> None:
    last = rows[-1]
    for ahead in range(1, int(count) + 1):
        opened = HOUR.floor(now) + ahead * HOUR.ms
        rows.append([opened, *last[1:6], opened + HOUR.ms - 1, *last[7:]])


def _revised(rows: list[Row], seconds: float, now: int, _: random.Random) -> None:
    for row in rows:
        closed = row[0] + HOUR.ms
        if closed <= now < closed + seconds * 1000:
            close = float(row[4]) * 1.002
            row[2], row[4] = f"{max(float(row[2]), close):.8f}", f"{close:.8f}"
            row[5] = f"{float(row[5]) * 0.9:.8f}"


def _unaligned(rows: list[Row], offset: float, __: int, chance: random.Random) -> None:
    chance.choice(rows)[0] += int(offset)


_SPOILERS: Final[dict[str, Callable[[list[Row], float, int, random.Random], None]]] = {
    "wrong_types": _wrong_types,
    "nan": _nan,
    "negative": _negative,
    "inverted": _inverted,
    "missing": _missing,
    "doubled": _doubled,
    "disordered": _disordered,
    "future": _future,
    "revised": _revised,
    "unaligned": _unaligned,
}


def parse_fault(text: str) -> Fault:
    """``KIND[,field=value...]`` as the command line has it; symbols and endpoints are joined by ``+``."""
    kind, _, rest = text.partition(",")
    fields: dict[str, Any] = {"kind": kind}
    for pair in filter(None, rest.split(",")):
        name, _, value = pair.partition("=")
        fields[name] = tuple(value.split("+")) if name in ("symbols", "endpoints") else value
    try:
        return msgspec.convert(fields, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"fault {text!r} is not understood: {error}", hint="KIND[,probability=0.1][,symbols=BTC/USDT+ETH/USDT]"
        ) from error
