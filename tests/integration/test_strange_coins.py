"""Strange coins through the real engine and predictor: what they are served, what is said about it, and that their batch does not suffer.

Twelve of them in one batch with eight ordinary coins, trained and then lived with for two days; the same without them is what "suffers" is
measured by. Real ones (Binance, 2022 and 2023) where ``CRYPTOD_CANDLES`` names a folder of candle files.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import pytest

from cryptod.forecast import scores
from cryptod.forecast.model import Model
from cryptod.forecast.predictor import Forecasts, Predictor
from cryptod.market import CLOSE, HIGH, HOUR, LOW, MAX_HORIZON, NO_TRADE, NOT_FETCHED, OPEN, VOLUME, Float64, Panel
from cryptod.simulator.folder import FolderMarket
from cryptod.training import engine
from tests import markets
from tests.markets import CUTOFF, Source, Trained, train

ORDINARY: Final = 8
NOW: Final = 3 * engine.MONTH_HOURS
"""The first row after the training window."""
LIVED: Final = 48
DAY: Final = 24
EVERYTHING: Final = slice(None)


class Coin:
    """One column of a panel, to be made strange."""

    def __init__(self, panel: Panel, column: int) -> None:
        self.values, self.status = panel.values[:, column], panel.status[:, column]

    def still(self, rows: slice, price: float) -> None:
        """No movement at all, though volume."""
        self.values[rows, :VOLUME] = price

    def blank(self, rows: slice, status: int) -> None:
        self.values[rows], self.status[rows] = np.nan, status

    def scale(self, rows: slice, factor: float) -> None:
        """Another unit."""
        self.values[rows, :VOLUME] *= factor
        self.values[rows, VOLUME] /= factor

    def walk(self, first: int, steps: Float64) -> None:
        """From row ``first`` on the log price goes by ``steps``, with wicks a third as long; after them as it did before."""
        rows, end = slice(first, first + len(steps)), first + len(steps)
        close = self.values[first - 1, CLOSE] * np.exp(np.cumsum(steps))
        self.values[end:, :VOLUME] *= close[-1] / self.values[end - 1, CLOSE]
        opened = np.concatenate([self.values[first - 1 : first, CLOSE], close[:-1]])
        self.values[rows, OPEN], self.values[rows, CLOSE] = opened, close
        wick = np.exp(np.abs(steps) / 3)
        self.values[rows, HIGH], self.values[rows, LOW] = np.maximum(opened, close) * wick, np.minimum(opened, close) / wick

    def ticks(self) -> None:
        """A stablecoin: a tick up or down about 1."""
        close = 1.0 + 1e-4 * np.random.default_rng(1).integers(-1, 2, len(self.values))
        self.values[:, OPEN], self.values[:, CLOSE] = 1.0, close
        self.values[:, HIGH], self.values[:, LOW] = np.maximum(close, 1.0), np.minimum(close, 1.0)

    def leap(self, row: int, factor: float) -> None:
        """An absurd print: up within an hour, and back at once."""
        self.values[row, HIGH] *= factor
        self.values[row, CLOSE] = self.values[row + 1, OPEN] = self.values[row + 1, HIGH] = self.values[row, HIGH]


def flat(coin: Coin) -> None:
    coin.still(EVERYTHING, 1.0)


def stable(coin: Coin) -> None:
    coin.ticks()


def unpegged(coin: Coin) -> None:
    coin.ticks()
    coin.walk(NOW + 12, np.random.default_rng(2).normal(-0.01, 0.04, LIVED + MAX_HORIZON - 12))


def redenominated(coin: Coin) -> None:
    coin.scale(slice(800, None), 1000.0)
    coin.scale(slice(NOW + 20, None), 1e-3)


def relisted(coin: Coin) -> None:
    coin.scale(slice(300), 1e-4)
    coin.blank(slice(300, NOW - 50 * DAY), NO_TRADE)


def halted(coin: Coin) -> None:
    coin.blank(slice(900, 980), NO_TRADE)
    coin.blank(slice(NOW - 60, NOW + 24), NO_TRADE)
    coin.scale(slice(NOW + 24, None), 1.1)


def gappy(coin: Coin) -> None:
    lost = np.flatnonzero(np.random.default_rng(4).random(NOW + LIVED) < 0.35)
    coin.values[lost], coin.status[lost] = np.nan, NOT_FETCHED


def sixty_days(coin: Coin) -> None:
    coin.blank(slice(NOW - 60 * DAY), NOT_FETCHED)


def forty_six_days(coin: Coin) -> None:
    coin.blank(slice(NOW - 46 * DAY), NOT_FETCHED)


def misprinted(coin: Coin) -> None:
    coin.leap(1500, 4.0)
    coin.leap(NOW + 10, 4.0)


def without_volume(coin: Coin) -> None:
    for rows in (slice(300, 700), slice(NOW - 100, NOW + 30)):
        coin.still(rows, coin.values[rows.start - 1, CLOSE])
        coin.values[rows, VOLUME] = 0.0


def fallen(coin: Coin) -> None:
    """By a tenth an hour, on and on, some days before the end of the training; and a second time now."""
    for first in (NOW - 90, NOW):
        coin.walk(first, np.random.default_rng(first).normal(-0.1, 0.12, 40))


def six_weeks(coin: Coin) -> None:
    coin.blank(slice(NOW - 44 * DAY), NOT_FETCHED)


STRANGE: Final[tuple[Callable[[Coin], None], ...]] = (
    flat, stable, unpegged, redenominated, relisted, halted, gappy, sixty_days, forty_six_days, misprinted, without_volume, fallen,
    six_weeks,
)  # fmt: skip
TWINS: Final = (redenominated, misprinted, sixty_days, forty_six_days)
"""What they would be served if they were not strange is what the first ordinary coins are served."""


@dataclass(frozen=True)
class Life:
    """What was served hour by hour. ``quantiles`` [T, n, 24, 9], ``outcomes`` [T, n, 24] of ``symbols``."""

    symbols: tuple[str, ...]
    trained: Trained
    forecasts: list[Forecasts]
    outcomes: Float64

    @property
    def quantiles(self) -> Float64:
        return np.stack([found.quantiles for found in self.forecasts]).astype(np.float64)

    def loss(self, symbols: Sequence[str]) -> float:
        """Pooled CRPS of some coins."""
        columns = [self.symbols.index(symbol) for symbol in symbols]
        return float(np.nanmean(scores.pooled_crps(self.quantiles[:, columns], self.outcomes[:, columns])))

    def coin(self, symbol: str) -> Served:
        column = self.symbols.index(symbol)
        return Served(
            self.quantiles[:, column], self.outcomes[:, column], [set(found.flags[column]) for found in self.forecasts],
            np.array([found.close[column] for found in self.forecasts]),
        )  # fmt: skip


@dataclass(frozen=True)
class Served:
    """One coin's forecasts: ``quantiles`` [T, 24, 9], ``outcomes`` [T, 24]."""

    quantiles: Float64
    outcomes: Float64
    flags: list[set[str]]
    close: Float64

    def covered(self, horizon: int, percent: int, hours: slice = EVERYTHING) -> float:
        """Share of the intervals that held."""
        quantiles, outcomes = self.quantiles[hours, horizon - 1], self.outcomes[hours, horizon - 1]
        return float(scores.covered(quantiles, outcomes, percent)[np.isfinite(outcomes)].mean())

    def width(self, horizon: int) -> Float64:
        """Of the 80 % intervals."""
        return self.quantiles[:, horizon - 1, 6] - self.quantiles[:, horizon - 1, 2]

    def said(self, word: str) -> list[bool]:
        return [word in flags for flags in self.flags]


def live(source: Source, symbols: Sequence[str], trained: Trained, models: Sequence[Model], cutoff: int, hours: int) -> Life:
    predictor = Predictor(models)
    symbols = tuple(symbol for symbol in symbols if symbol in predictor)
    forecasts = []
    for hour in range(hours):
        now = cutoff + hour * HOUR.ms
        predictor.advance(source.panel(symbols, now - HOUR.ms, now))
        forecasts.append(predictor.forecast(symbols, now))
    closes = np.log(source.panel(symbols, cutoff - HOUR.ms, cutoff + (hours + MAX_HORIZON) * HOUR.ms).values[:, :, CLOSE])
    closes[0] = np.log(forecasts[0].close)
    for row in range(1, len(closes)):
        closes[row] = np.where(np.isfinite(closes[row]), closes[row], closes[row - 1])
    ahead = np.stack([closes[h : h + hours] for h in range(1, MAX_HORIZON + 1)], axis=-1)
    return Life(symbols, trained, forecasts, ahead - np.log(np.stack([found.close for found in forecasts]))[:, :, None])


@lru_cache(maxsize=1)
def market() -> Source:
    """Eight ordinary coins, then the strange ones, of which `TWINS` are ordinary ones in disguise."""
    held = markets.panel(ORDINARY + len(STRANGE), NOW, LIVED + MAX_HORIZON)
    for place, change in enumerate(STRANGE):
        if change in TWINS:
            held.values[:, ORDINARY + place] = held.values[:, TWINS.index(change)]
        change(Coin(held, ORDINARY + place))
    return Source(held)


@lru_cache(maxsize=2)
def lived(coins: int = ORDINARY + len(STRANGE)) -> Life:
    """The life of the first so many coins of the market."""
    source = market()
    symbols = source.held.symbols[:coins]
    with tempfile.TemporaryDirectory(prefix="cryptod-test-") as folder:
        trained = train(source, Path(folder), (symbols,), epochs=2)
        return live(source, symbols, trained, trained.models, CUTOFF, LIVED)


def name(change: Callable[[Coin], None]) -> str:
    return market().held.symbols[ORDINARY + STRANGE.index(change)]


def served(change: Callable[[Coin], None]) -> Served:
    return lived().coin(name(change))


def twin(change: Callable[[Coin], None]) -> Served:
    return lived().coin(market().held.symbols[TWINS.index(change)])


def assert_sound(life: Life) -> None:
    """What holds for every forecast of every coin."""
    assert len(life.trained.done) == 1
    assert life.trained.done[0].promote
    assert np.isfinite(life.quantiles).all()
    assert (np.diff(life.quantiles, axis=-1) >= 0).all()
    for found in life.forecasts:
        for values in (found.p_up, found.volatility, found.expected_return, found.score, found.strangeness, *found.said.values()):
            assert np.isfinite(values).all()
        assert ((found.p_up >= 0) & (found.p_up <= 1)).all()
        assert (found.volatility > 0).all()


def test_everybody_is_served_finite_quantiles_that_do_not_cross_or_is_left_out_with_the_reason() -> None:
    life = lived()
    assert_sound(life)
    assert life.trained.done[0].left_out == {name(six_weeks): "too young: 44 days of candles, 45 are needed"}
    assert len(life.symbols) == ORDINARY + len(STRANGE) - 1


def test_the_ordinary_coins_of_the_batch_are_forecast_as_well_as_without_the_strange_ones() -> None:
    symbols = market().held.symbols[:ORDINARY]
    assert lived().loss(symbols) < 1.02 * lived(ORDINARY).loss(symbols), "twelve strange coins beside eight"
    ratio = np.log(lived().coin(symbols[4]).width(24) / lived(ORDINARY).coin(symbols[4]).width(24))
    assert np.abs(ratio).max() < 0.25
    assert not any({"pegged", "young", "gaps", "halted", "late"} & flags for symbol in symbols for flags in lived().coin(symbol).flags)


def test_a_flat_coin_is_flagged_and_still_has_a_width() -> None:
    found = served(flat)
    assert all(found.said("pegged"))
    assert not any(found.said("unusual"))
    assert (np.diff(found.quantiles, axis=-1) > 0).all()
    assert 1e-5 < found.width(1).min() < found.width(24).max() < 0.01


def test_a_stablecoin_s_ticks_lie_within_its_intervals() -> None:
    found = served(stable)
    assert all(found.said("pegged"))
    assert not any(found.said("unpegged"))
    assert found.covered(1, 80) > 0.75
    assert found.covered(24, 95) > 0.9
    assert found.width(24).max() < 0.01


def test_a_stablecoin_that_leaves_its_peg_is_wide_within_hours_and_says_so() -> None:
    found, after = served(unpegged), slice(18, None)
    assert not any(found.said("unpegged")[:12])
    assert all(found.said("unpegged")[14:])
    assert found.covered(1, 95, after) > 0.8
    assert found.covered(24, 95, after) > 0.8
    assert np.median(found.width(24)[after]) > 0.15
    assert found.width(24)[:12].max() < 0.01


def test_a_redenomination_overnight_is_no_move() -> None:
    found, plain = served(redenominated), twin(redenominated)
    assert np.abs(np.log(found.width(24) / plain.width(24))).max() < 0.1
    assert found.close[0] == pytest.approx(1000 * plain.close[0])
    assert found.close[-1] == pytest.approx(plain.close[-1])


def test_a_coin_relisted_under_an_old_name_is_young_and_its_intervals_hold() -> None:
    found = served(relisted)
    assert all(found.said("young"))
    assert not any(found.said("halted"))
    assert found.covered(1, 95) > 0.85
    assert found.covered(24, 95) > 0.8


def test_nothing_is_learned_from_what_went_under_a_name_before_a_relisting(tmp_path: Path) -> None:
    before, after = markets.panel(5, NOW), markets.panel(5, NOW)
    for panel, factor in ((before, 1e-4), (after, 7.0)):
        coin = Coin(panel, 4)
        coin.scale(slice(300), factor)
        coin.blank(slice(300, NOW - 50 * DAY), NO_TRADE)
    after.values[10:300, 4, HIGH] *= 1.5
    one, other = (train(Source(panel), tmp_path / str(i), (panel.symbols,), epochs=1).models[0] for i, panel in enumerate((before, after)))
    assert before.symbols[4] in one.symbols
    assert all(np.array_equal(value, other.arrays()[key], equal_nan=True) for key, value in one.arrays().items())


def test_a_halt_of_days_is_said_while_it_lasts_and_its_end_surprises_nobody() -> None:
    found = served(halted)
    assert all(found.said("halted")[:25])
    assert not any(found.said("halted")[26:])
    low, high = found.quantiles[24, 0, [0, 8]]
    assert low < found.outcomes[24, 0] < high
    assert found.outcomes[24, 0] > 0.1
    assert found.covered(24, 95) > 0.85


def test_hours_that_were_not_fetched_make_a_coin_late_and_many_of_them_are_said() -> None:
    found = served(gappy)
    assert all(found.said("gaps"))
    assert 0.2 < np.mean(found.said("late")) < 0.5
    assert found.covered(4, 95) > 0.85


@pytest.mark.parametrize("change", [sixty_days, forty_six_days])
def test_a_young_coin_is_called_young_and_its_intervals_hold(change: Callable[[Coin], None]) -> None:
    found, old = served(change), twin(change)
    assert all(found.said("young"))
    assert not any(old.said("young"))
    assert found.covered(1, 95) > 0.85
    assert np.abs(np.log(found.width(24) / old.width(24))).max() < 0.25


def test_an_absurd_print_passes_within_a_day() -> None:
    found, plain = served(misprinted), twin(misprinted)
    ratio = found.width(24) / plain.width(24)
    assert found.said("unusual")[11]
    assert np.abs(np.log(ratio[:10])).max() < 0.2, "one of them in three months of training is not believed"
    assert 1.0 < ratio[12] < 6.0
    assert 1.0 < ratio[40] < 0.7 * ratio[12]


def test_weeks_without_volume_are_a_halt() -> None:
    found = served(without_volume)
    assert all(found.said("halted")[:30])
    assert not any(found.said("halted")[31:])
    assert all(found.said("young")), "what was before two weeks of silence is not its history"


def test_a_coin_that_falls_to_almost_nothing_is_unusual_and_wide() -> None:
    found = served(fallen)
    assert found.close[40] < 0.05 * found.close[0]
    assert all(found.said("unusual")[3:40])
    assert found.width(1)[40] > 4 * found.width(1)[0]
    assert found.covered(1, 95, slice(3, None)) > 0.55


def test_a_coin_relisted_while_an_old_model_serves_it_begins_anew(tmp_path: Path) -> None:
    held = markets.panel(5, NOW, 500)
    coin = Coin(held, 4)
    coin.walk(NOW - 60, np.random.default_rng(3).normal(0, 0.2, 54))  # wild, and then halted
    coin.blank(slice(NOW - 6, NOW + 300), NO_TRADE)
    coin.scale(slice(NOW + 300, None), 1e4)
    source, symbols = Source(held), held.symbols
    trained = train(source, tmp_path, (symbols,), epochs=1)
    life = live(source, symbols, trained, trained.models, CUTOFF, 470)
    assert_sound(life)
    found, after = life.coin(symbols[4]), slice(330, None)
    assert all(found.said("halted")[30:300])
    assert not any(found.said("halted")[after])
    assert all(found.said("young")[after])
    usual = life.forecasts[299].said["random_walk"][4, 23]
    assert found.width(24)[299] > 3 * (usual[6] - usual[2]), "the longer the halt, the less is known"
    assert np.median(found.width(24)[after]) < 0.5, "how wild the old coin was says nothing about the new one"
    assert found.covered(24, 95, after) > 0.8


# Real ones

FOLDER = os.environ.get("CRYPTOD_CANDLES", "")
real = pytest.mark.skipif(not FOLDER, reason="CRYPTOD_CANDLES names no folder of real candles")
COMPANY: Final = ("ADA/USDT", "BTC/USDT", "CHZ/USDT", "ETH/USDT", "LINK/USDT", "LTC/USDT", "XRP/USDT", "ZIL/USDT")


def candles(symbol: str, cutoff: str, days: int) -> tuple[Source, int]:
    """Six months of the coin and its company before ``cutoff``, and the days after it."""
    at = int(np.datetime64(cutoff, "ms").astype(np.int64))
    symbols = (*COMPANY, symbol)
    market = FolderMarket(Path(FOLDER), symbols)
    start = at - 6 * engine.MONTH_HOURS * HOUR.ms
    panel = market.panel(symbols, start, at + (days * DAY + MAX_HORIZON) * HOUR.ms)
    return Source(Panel(panel.symbols, panel.start, panel.values.copy(), panel.status.copy())), at


def really_lived(symbol: str, cutoff: str, days: int) -> tuple[Served, float]:
    """The coin's life, and by what part of themselves the losses of its company are up because of it."""
    source, at = candles(symbol, cutoff, days)
    lives = []
    for symbols in (source.held.symbols, COMPANY):
        with tempfile.TemporaryDirectory(prefix="cryptod-test-") as folder:
            trained = train(source, Path(folder), (symbols,), cutoff=at, months=6, epochs=50)
            lives.append(live(source, symbols, trained, trained.models, at, days * DAY))
    assert_sound(lives[0])
    return lives[0].coin(symbol), lives[0].loss(COMPANY) / lives[1].loss(COMPANY) - 1.0


@real
def test_luna_s_collapse_is_unusual_wide_and_its_own() -> None:
    found, harm = really_lived("LUNA/USDT", "2022-05-08T00", 5)
    assert all(found.said("unusual")[70:]), "from 2022-05-10 22:00 on, at a quarter of the price of two days before"
    assert found.covered(1, 95, slice(40, None)) > 0.6
    assert found.width(1)[110] > 8 * found.width(1)[0]
    assert harm < 0.01


@real
def test_luna_s_namesake_is_too_young_three_days_after_its_listing() -> None:
    source, at = candles("LUNA/USDT", "2022-06-03T00", 1)
    with tempfile.TemporaryDirectory(prefix="cryptod-test-") as folder:
        trained = train(source, Path(folder), (source.held.symbols,), cutoff=at, months=6)
    assert trained.done[0].left_out == {"LUNA/USDT": "too young: 3 days of candles, 45 are needed"}


@real
def test_ust_s_peg_is_given_up_within_hours_of_its_break() -> None:
    found, harm = really_lived("UST/USDT", "2022-05-07T00", 5)
    broken = slice(60 + 12, None)  # from 2022-05-09 12:00 the price fell, to 0.75 by midnight
    assert all(found.said("unpegged")[broken])
    assert found.covered(1, 95) > 0.6
    assert np.median(found.width(24)[broken]) > 0.1
    assert harm < 0.01


@real
def test_a_real_stablecoin_stands_within_its_ticks() -> None:
    found, harm = really_lived("BUSD/USDT", "2022-07-01T00", 7)
    assert all(found.said("pegged"))
    assert found.covered(1, 80) > 0.75
    assert found.width(24).max() < 0.01
    assert harm < 0.01


@real
@pytest.mark.parametrize(
    ("symbol", "cutoff"), [("OP/USDT", "2022-08-01T00"), ("ARB/USDT", "2023-05-24T00"), ("PEPE/USDT", "2023-07-06T00")]
)
def test_a_real_coin_of_two_months_is_young_and_its_intervals_hold(symbol: str, cutoff: str) -> None:
    found, harm = really_lived(symbol, cutoff, 7)
    assert all(found.said("young"))
    assert 0.7 < found.covered(1, 80) < 0.95
    assert found.covered(24, 95) > 0.8
    assert harm < 0.01
