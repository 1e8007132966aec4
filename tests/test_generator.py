"""The generated market: the same candles every time, candles that hold together, statistics of a crypto market."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cryptod.errors import DataError
from cryptod.market import CANDLE, CLOSE, HIGH, HOUR, LOW, NOT_FETCHED, OPEN, VOLUME, Float64, Panel
from cryptod.simulator.folder import FolderMarket
from cryptod.simulator.generator import BLOCK, COMPANIONS, GROUP, GeneratedMarket
from cryptod.simulator.listing import unclosed

YEAR_2023 = 1_672_531_200_000
MONTH = 30 * 24 * HOUR.ms


@pytest.fixture(scope="module")
def market() -> GeneratedMarket:
    return GeneratedMarket(50, seed=1)


@pytest.fixture(scope="module")
def year(market: GeneratedMarket) -> Panel:
    return market.panel(market.coins, YEAR_2023, YEAR_2023 + 12 * MONTH)


def test_the_same_seed_gives_the_same_candles_and_another_seed_gives_others() -> None:
    first, again, other = (GeneratedMarket(3, seed=seed).candles("ETH/USDT", YEAR_2023, YEAR_2023 + MONTH)[1] for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_candle_depends_neither_on_what_was_asked_before_nor_on_how_many_coins_there_are() -> None:
    alone = GeneratedMarket(2).candles("ETH/USDT", YEAR_2023 + 5 * HOUR.ms, YEAR_2023 + 6 * HOUR.ms)[1]
    crowd = GeneratedMarket(60)
    crowd.panel(crowd.coins, YEAR_2023 - 3 * MONTH, YEAR_2023)
    crowd.candles("ETH/USDT", YEAR_2023 + 20 * MONTH, YEAR_2023 + 21 * MONTH)
    assert np.array_equal(alone, crowd.candles("ETH/USDT", YEAR_2023 - MONTH, YEAR_2023 + MONTH)[1][[24 * 30 + 5]])


def test_a_candle_does_not_depend_on_when_the_listing_began() -> None:
    late = GeneratedMarket(1, first=YEAR_2023)
    early = GeneratedMarket(1, first=YEAR_2023 - 20 * MONTH)
    window = (YEAR_2023 - 5 * HOUR.ms, YEAR_2023 + 5 * HOUR.ms)
    times, values = late.candles("BTC/USDT", *window)
    assert times[0] == YEAR_2023
    assert np.array_equal(values, early.candles("BTC/USDT", *window)[1][5:])


def test_candles_hold_together_and_join_also_across_blocks(market: GeneratedMarket) -> None:
    border = (YEAR_2023 // HOUR.ms // BLOCK + 1) * BLOCK * HOUR.ms
    panel = market.panel(market.coins, border - 500 * HOUR.ms, border + 500 * HOUR.ms)
    opens, highs, lows, closes, volumes = (panel.values[:, :, column] for column in (OPEN, HIGH, LOW, CLOSE, VOLUME))
    assert (panel.status == CANDLE).all()
    assert (highs >= np.maximum(opens, closes)).all()
    assert (lows <= np.minimum(opens, closes)).all()
    assert (lows > 0).all()
    assert (volumes > 0).all()
    jumps = np.abs(np.log(opens[1:] / closes[:-1]))
    assert np.median(jumps) == 0.0
    assert jumps.max() < 1e-2  # one price tick of the cheapest coins


def test_every_price_is_the_float_that_its_eight_decimals_read_as(market: GeneratedMarket) -> None:
    symbols = tuple(listing.symbol for listing in market.listings)
    values = market.panel(symbols, YEAR_2023, YEAR_2023 + 5 * HOUR.ms).values.ravel()
    values = values[np.isfinite(values)]
    assert [float(f"{value:.8f}") for value in values] == values.tolist()


def test_pages_of_any_size_give_what_one_page_gives(market: GeneratedMarket) -> None:
    whole = market.candles("SOL/USDT", YEAR_2023, YEAR_2023 + 4 * MONTH)[1]
    cuts = [*range(YEAR_2023, YEAR_2023 + 4 * MONTH, 777 * HOUR.ms), YEAR_2023 + 4 * MONTH]
    pages = [market.candles("SOL/USDT", begin, end)[1] for begin, end in pairwise(cuts)]
    assert np.array_equal(whole, np.concatenate(pages))


def test_before_its_listing_and_after_its_end_a_pair_has_no_candles() -> None:
    market = GeneratedMarket(2, first=YEAR_2023)
    panel = market.panel(("BTC/USDT",), YEAR_2023 - 3 * HOUR.ms, YEAR_2023 + 2 * HOUR.ms)
    assert panel.status[:, 0].tolist() == [NOT_FETCHED] * 3 + [CANDLE] * 2
    assert not market.trading("BTC/USDT", YEAR_2023 - 1)
    assert market.trading("BTC/USDT", YEAR_2023)
    delisted = GeneratedMarket(2)
    assert not delisted.trading("SRM/USDT", YEAR_2023)
    assert len(delisted.candles("SRM/USDT", YEAR_2023 - 3 * MONTH, YEAR_2023)[0]) > 24
    assert len(delisted.candles("SRM/USDT", YEAR_2023, YEAR_2023 + MONTH)[0]) == 0


def test_companions_are_what_they_are_called(market: GeneratedMarket) -> None:
    panel = market.panel(("BTC/USDT", "WBTC/USDT", "BTCDOWN/USDT", "USDC/USDT"), YEAR_2023, YEAR_2023 + MONTH)
    returns = np.diff(np.log(panel.values[:, :, CLOSE]), axis=0)
    assert np.corrcoef(returns[:, 0], returns[:, 1])[0, 1] > 0.999
    assert np.corrcoef(returns[:, 0], returns[:, 2])[0, 1] < -0.999
    assert returns[:, 3].std() < 5e-4
    assert (panel.values[:, :, HIGH] >= panel.values[:, :, LOW]).all()
    assert abs(np.log(panel.values[:, 3, CLOSE])).max() < 0.05
    assert len(market.listings) == 50 + len(COMPANIONS)


def test_ten_thousand_coins_need_no_more_memory_than_their_blocks_in_use() -> None:
    market = GeneratedMarket(10_000)
    some = market.coins[:: GROUP * 40]
    panel = market.panel(some, YEAR_2023, YEAR_2023 + 24 * HOUR.ms)
    assert (panel.status == CANDLE).all()
    assert sum(block.nbytes for block in market._blocks.values()) <= 64 << 20
    assert len(set(market.coins)) == 10_000


def test_a_market_without_coins_is_refused() -> None:
    with pytest.raises(DataError, match="0 coins"):
        GeneratedMarket(0)


def test_the_unclosed_candle_stays_within_the_closed_one_and_becomes_it() -> None:
    for candle in (np.array([10.0, 12.0, 9.0, 11.0, 60.0]), np.array([10.0, 12.0, 9.0, 9.5, 60.0])):
        earlier = unclosed(candle, 0.0)
        assert earlier.tolist() == [10.0, 10.0, 10.0, 10.0, 0.0]
        for fraction in np.linspace(0, 1, 50):
            now = unclosed(candle, float(fraction), 0.1, 1.0)
            assert earlier[HIGH] <= now[HIGH] <= candle[HIGH]
            assert candle[LOW] <= now[LOW] <= earlier[LOW]
            assert now[LOW] <= now[CLOSE] <= now[HIGH]
            assert now[VOLUME] >= earlier[VOLUME]
            earlier = now
        assert np.allclose(earlier, candle)


# -- statistics


def logs(panel: Panel) -> tuple[Float64, Float64, Float64]:
    """Returns, ln(Parkinson volatility) and ln(volume) of a panel, each [T, N]."""
    values = np.log(np.maximum(panel.values, 1e-12))
    span = np.maximum(values[:, :, HIGH] - values[:, :, LOW], 1e-6) / np.sqrt(4 * np.log(2))
    return values[:, :, CLOSE] - values[:, :, OPEN], np.log(span), values[:, :, VOLUME]


def memory(series: Float64, lag: int) -> float:
    """Median autocorrelation of the columns."""
    centred = series - series.mean(axis=0)
    return float(np.median((centred[lag:] * centred[:-lag]).mean(axis=0) / (centred**2).mean(axis=0)))


def portrait(panel: Panel) -> dict[str, float]:
    """The figures by which one knows a market of hourly candles; medians over coins."""
    returns, volatility, volume = logs(panel)
    deviation = returns.std(axis=0)
    hours = (panel.open_times // HOUR.ms) % 24
    opens, highs, lows, closes = (np.log(np.maximum(panel.values[:, :, column], 1e-12)) for column in (OPEN, HIGH, LOW, CLOSE))
    rogers_satchell = (highs - closes) * (highs - opens) + (lows - closes) * (lows - opens)
    pairs = [np.corrcoef(volume[:, coin], volatility[:, coin])[0, 1] for coin in range(volume.shape[1])]
    return {
        "hourly volatility": float(np.median(deviation)),
        "kurtosis": float(np.median(((returns / deviation) ** 4).mean(axis=0))),
        "memory of |r| at 1 h": memory(np.abs(returns), 1),
        "memory of |r| at 24 h": memory(np.abs(returns), 24),
        "memory of |r| at 168 h": memory(np.abs(returns), 168),
        "memory of ln range at 1 h": memory(volatility, 1),
        "memory of ln range at 24 h": memory(volatility, 24),
        "memory of ln range at 168 h": memory(volatility, 168),
        "memory of r at 1 h": memory(returns, 1),
        "deviation of ln range": float(np.median(volatility.std(axis=0))),
        "range to close variance": float(np.median(np.exp(2 * volatility).mean(axis=0) / deviation**2)),
        "Rogers-Satchell to close variance": float(np.median(rogers_satchell.mean(axis=0) / deviation**2)),
        "correlation of coins": float(np.median(np.corrcoef(returns.T))),
        "correlation of volume and range": float(np.median(pairs)),
        "14 h over 4 h": float(volatility[hours == 14].mean() - volatility[hours == 4].mean()),
    }


PLAUSIBLE = {
    "hourly volatility": (0.006, 0.018),
    "kurtosis": (9, 60),
    "memory of |r| at 1 h": (0.2, 0.4),
    "memory of |r| at 24 h": (0.08, 0.26),
    "memory of |r| at 168 h": (0.04, 0.2),
    "memory of ln range at 1 h": (0.5, 0.8),
    "memory of ln range at 24 h": (0.3, 0.6),
    "memory of ln range at 168 h": (0.15, 0.5),
    "memory of r at 1 h": (-0.06, 0.04),
    "deviation of ln range": (0.5, 0.85),
    "range to close variance": (0.9, 1.3),
    "Rogers-Satchell to close variance": (0.9, 1.35),
    "correlation of coins": (0.4, 0.75),
    "correlation of volume and range": (0.6, 0.92),
    "14 h over 4 h": (0.2, 0.5),
}
"""What 85 real pairs of 2022 and 2023 lie in (medians over coins), with room for other years."""


def test_the_generated_market_has_the_statistics_of_a_crypto_market(year: Panel) -> None:
    figures = portrait(year)
    assert {name: figure for name, figure in figures.items() if not PLAUSIBLE[name][0] <= figure <= PLAUSIBLE[name][1]} == {}


def test_no_coin_is_flat_or_wild(year: Panel) -> None:
    deviation = logs(year)[0].std(axis=0)
    assert deviation.min() > 0.004
    assert deviation.max() < 0.03


def test_falls_are_followed_by_more_volatility_than_rises(year: Panel) -> None:
    returns, volatility, _ = logs(year)
    market_return, market_volatility = returns.mean(axis=1), volatility.mean(axis=1)
    assert np.corrcoef(market_return[:-1], market_volatility[1:])[0, 1] < -0.03


@pytest.mark.skipif("CRYPTOD_CANDLES" not in os.environ, reason="CRYPTOD_CANDLES names no folder of real candles")
def test_real_candles_pass_for_a_crypto_market_by_the_same_figures() -> None:
    folder = Path(os.environ["CRYPTOD_CANDLES"])
    symbols = tuple(f"{base}/USDT" for base in ("BTC", "ETH", "BNB", "SOL", "XRP", "DOGE", "ADA", "LINK", "ATOM", "XLM", "NEAR", "ALGO"))
    real = FolderMarket(folder, symbols)
    panel = real.panel(symbols, real.first, real.end)
    whole = (panel.status == CANDLE).all(axis=1)
    figures = portrait(Panel(symbols, panel.start, panel.values[whole], panel.status[whole]))
    assert {name: figure for name, figure in figures.items() if not PLAUSIBLE[name][0] <= figure <= PLAUSIBLE[name][1]} == {}
