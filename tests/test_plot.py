"""The fan in the terminal, read back from its characters."""

from __future__ import annotations

import re

import pytest

from ctl.plot import BAND_50, BAND_95, MEDIAN, OUTSIDE, Fan, plot
from ctl.terminal import Screen
from tests.replies import forecast


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize(("symbol", "close"), [("BTC/USDT", 27_123.45), ("PEPE/USDT", 0.00000142), ("BTC/IDR", 987_654_321.0)])
def test_the_plot_fits_the_screen(width: int, colour: bool, symbol: str, close: float) -> None:
    lines = plot(forecast(symbol, close), Screen(width=width, height=24, colour=colour))
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in lines]
    body = [line for line in plain if "│" in line or "┤" in line or "└" in line]
    assert max(len(line) for line in body) <= width
    assert len(lines) <= 24
    assert colour or plain == lines


def test_the_fan_starts_at_the_close_and_ends_at_the_last_quantiles() -> None:
    made = forecast()
    fan = Fan(made)
    assert fan.at(0.025, 0) == made["close"]
    assert fan.at(0.975, 24) == pytest.approx(made["prices"][23][8])
    assert fan.at(0.5, 1.5) == pytest.approx((made["prices"][0][4] + made["prices"][1][4]) / 2)


def test_bands_lie_within_one_another() -> None:
    grid, top, bottom = Fan(forecast()).raster(columns=49, dots=40)
    assert top > bottom
    for x in (12, 24, 48):
        column = [row[x] for row in grid]
        counts = [sum(dot >= band for dot in column) for band in range(OUTSIDE, MEDIAN + 1)]
        assert counts == sorted(counts, reverse=True)
        assert counts[MEDIAN] == 1
        assert column[0] == column[-1] == OUTSIDE
    wide = [sum(row[x] >= BAND_95 for row in grid) for x in range(49)]
    assert wide == sorted(wide)
    assert sum(row[48] >= BAND_50 for row in grid) == pytest.approx(40 * 0.674 / 1.96 / 1.06, abs=2)


def test_the_axes_name_prices_hours_and_the_time_of_day() -> None:
    page = plot(forecast(), Screen(width=80, height=30))
    text = "\n".join(page)
    assert page[0] == "BTC/USDT  27,123.45 USDT at 2023-06-01 12:00 UTC; forecast made 14 min ago"
    for label in ("27,000 ┤", "28,000 ┤", "+24 h", "close", "16:00", "29,009 97.5 %", "27,385 median", "▒▒ 80 %"):
        assert label in text


def test_a_flat_forecast_is_drawn_too() -> None:
    flat = forecast("FLAT/USDT", 1.0, prices=[[1.0] * 9] * 24)
    assert "━" in "\n".join(plot(flat, Screen()))


def test_a_stale_forecast_says_so() -> None:
    assert plot(forecast(stale=True, reason="exchange down"), Screen())[0].endswith("; stale")
