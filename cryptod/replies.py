"""What the daemon answers, as a program wants it: forecasts, refusals, events.

Knows the wire's maps and nothing of sockets; both clients use it. Imports the standard library, the protocol's names
and the errors only: a program that asks for a forecast needs no numpy.
"""

from __future__ import annotations

from bisect import bisect_left
from math import exp
from operator import itemgetter
from typing import Any, Final, NamedTuple

from cryptod.errors import CryptodError, RequestError


class Coverage(NamedTuple):
    """Shares of a coin's outcomes, at all horizons, that lay inside its 50, 80 and 95 % intervals; older ones count less."""

    outcomes: float
    """How many it rests on."""
    inside_50: float
    inside_80: float
    inside_95: float


class Forecast(NamedTuple):
    """The forecast of one coin for each of the next hours. Immutable.

    Times are UTC epoch milliseconds, returns natural-log returns from ``close``. ``horizons`` [H] and ``levels`` [Q] say
    what the rows and columns of the tables are; the methods look them up.
    """

    symbol: str
    cutoff: int
    """Close time of the last candle used."""
    issued: int
    expires: int
    """From then on it is not served any more unless it is said to be stale."""
    model: str
    """The checkpoint that made it."""
    close: float
    """Price at the cutoff."""
    horizons: tuple[int, ...]
    """Candles ahead: 1 to 24."""
    levels: tuple[float, ...]
    """Quantile levels, rising."""
    quantiles: tuple[tuple[float, ...], ...]
    """[H][Q] quantiles of the cumulative log return."""
    prices: tuple[tuple[float, ...], ...]
    """[H][Q] the same as prices."""
    p_up: tuple[float, ...]
    """[H] probability that the price will be higher."""
    volatility: tuple[float, ...]
    """[H] standard deviation of the cumulative log return."""
    expected_return: tuple[float, ...]
    """[H] mean of the cumulative log return."""
    score: float
    """What `top` ranks by."""
    strangeness: float
    """How far today's features are from those trained on: above 1 lay 1 % of the training hours."""
    flags: tuple[str, ...]
    """What to know before relying on it."""
    age: float
    """Seconds between its issue and this reply."""
    stale: bool
    """Whether a newer one should exist by now; ``reason`` says why it does not."""
    reason: str | None
    coverage: Coverage | None = None
    """How the coin's intervals have held lately; None while too few outcomes are known."""

    def quantile(self, horizon: int, level: float) -> float:
        """Quantile of the cumulative log return ``horizon`` candles ahead; between two levels, the straight line.

        `ValueError` for a horizon or a level outside those that were forecast.
        """
        row, levels = self.quantiles[self._row(horizon)], self.levels
        if not levels[0] - _CLOSE <= level <= levels[-1] + _CLOSE:
            raise ValueError(f"level {level} is outside {levels[0]} to {levels[-1]}")
        i = min(bisect_left(levels, level - _CLOSE), len(levels) - 1)
        if i == 0 or abs(level - levels[i]) <= _CLOSE:
            return row[i]
        share = (level - levels[i - 1]) / (levels[i] - levels[i - 1])
        return row[i - 1] + share * (row[i] - row[i - 1])

    def price(self, horizon: int, level: float = 0.5) -> float:
        """Quantile of the price ``horizon`` candles ahead; the median unless told."""
        return self.close * exp(self.quantile(horizon, level))

    def interval(self, horizon: int, coverage: float = 0.9) -> tuple[float, float]:
        """The prices between which the central ``coverage`` of the distribution lies."""
        tail = (1 - coverage) / 2
        return self.price(horizon, tail), self.price(horizon, 1 - tail)

    def _row(self, horizon: int) -> int:
        try:
            return self.horizons.index(horizon)
        except ValueError:
            raise ValueError(f"horizon {horizon} is not among {self.horizons[0]} to {self.horizons[-1]}") from None


class Forecasts(dict[str, Forecast]):
    """symbol -> forecast. ``refused``: symbol -> why there is none."""

    refused: dict[str, RequestError]

    def __init__(self) -> None:
        super().__init__()
        self.refused = {}


class Event(NamedTuple):
    """What a subscriber is told. Topic ``lost`` says that ``payload["count"]`` events (None: unknown) were missed."""

    topic: str
    payload: Any


_CLOSE: Final = 1e-9
"""Two levels nearer than this are the same one: (1 - 0.9) / 2 is not 0.05 in binary."""
_values: Final = itemgetter(*Forecast._fields[:-1])


def read_forecast(reply: dict[str, Any]) -> Forecast:
    """The forecast in a reply of ``get``. Keys that this version does not know are passed over."""
    try:
        (symbol, cutoff, issued, expires, model, close, horizons, levels, quantiles, prices, p_up, volatility, expected, score,
         strangeness, flags, age, stale, reason) = _values(reply)  # fmt: skip
    except (KeyError, TypeError) as error:
        raise CryptodError(
            f"the daemon's forecast is not understood: {error}", hint="client and daemon are of different versions"
        ) from error
    return Forecast(
        symbol, cutoff, issued, expires, model, close, tuple(horizons), tuple(levels), tuple(map(tuple, quantiles)),
        tuple(map(tuple, prices)), tuple(p_up), tuple(volatility), tuple(expected), score, strangeness, tuple(flags), age, stale, reason,
        read_coverage(reply.get("coverage")),
    )  # fmt: skip


def read_coverage(held: dict[str, float] | None) -> Coverage | None:
    """The coverage in a forecast's map."""
    return None if held is None else Coverage(held["outcomes"], held["50"], held["80"], held["95"])


def read_forecasts(reply: dict[str, Any], into: Forecasts) -> Forecasts:
    """The forecasts and refusals in a reply of ``get_many``."""
    for entry in reply["forecasts"]:
        forecast = read_forecast(entry)
        into[forecast.symbol] = forecast
    for symbol, error in reply["refused"].items():
        into.refused[symbol] = read_error(error)
    return into


def read_error(error: Any) -> RequestError:
    """The daemon's refusal as the exception that is raised for it."""
    if isinstance(error, dict):
        return RequestError(str(error.get("code", "internal")), str(error.get("message", "")), hint=str(error.get("hint", "")))
    return RequestError("internal", str(error))
