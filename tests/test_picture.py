"""Pictures of a forecast: the shapes, the SVG and the PNG, and what is said when one cannot be drawn."""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cryptod.errors import CryptodError
from ctl import picture
from ctl.plot import HISTORY, ROSE, WICK, Fan, bars, plot
from ctl.terminal import Screen
from tests.replies import CLOSED, candles, forecast


def test_candles_stand_left_of_the_close_and_the_fan_right_of_it() -> None:
    shapes = picture.draw(forecast(), candles(hours=48))
    bands = [shape for shape in shapes if shape.colour in picture.FAN]
    bodies = [shape for shape in shapes if shape.kind == "area" and shape.colour in (picture.UP, picture.DOWN)]
    begin = min(x for x, _ in bands[0].points)
    assert len(bands) == 3
    assert len(bodies) == 47, "the hour without a trade has no candle"
    assert max(x for shape in bodies for x, _ in shape.points) < begin
    assert all(picture.LEFT - 1e-9 <= x <= picture.WIDTH - picture.RIGHT + 1e-9 for shape in (*bands, *bodies) for x, _ in shape.points)
    assert all(picture.TOP <= y <= picture.HEIGHT - picture.BOTTOM for shape in (*bands, *bodies) for _, y in shape.points)
    heights = [max(y for _, y in band.points) - min(y for _, y in band.points) for band in bands]
    assert heights == sorted(heights, reverse=True)


def test_an_svg_is_sound_xml_that_names_the_coin_and_escapes_what_it_is_told(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    picture.write(path, forecast(model="<b1>"), candles())
    words = [element.text or "" for element in ElementTree.parse(path).iter("{http://www.w3.org/2000/svg}text")]
    assert any(text.startswith("BTC/USDT") for text in words)
    assert any("<b1>" in text for text in words)


def test_a_png_has_the_colours_of_the_fan(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    path = tmp_path / "plot.PNG"
    picture.write(path, forecast(), candles())
    with image.open(path) as drawn:
        assert drawn.size == (picture.WIDTH * picture.FINE, picture.HEIGHT * picture.FINE)
        colours = {"#{:02x}{:02x}{:02x}".format(*colour) for _, colour in drawn.convert("RGB").getcolors(1 << 24)}
    assert {*picture.FAN, picture.UP, picture.DOWN, picture.PAPER} <= colours


def test_without_pillow_a_png_is_refused_and_the_svg_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(CryptodError, match=r"not installed.*plot\.svg"):
        picture.write(tmp_path / "plot.png", forecast(), candles())
    with pytest.raises(CryptodError, match="cannot be written"):
        picture.write(tmp_path / "no" / "plot.svg", forecast(), candles())


def test_in_the_terminal_candles_have_bodies_and_wicks_as_far_as_their_prices_reach() -> None:
    made, told = forecast(), candles()
    history = bars(told, CLOSED, HISTORY)
    assert [bar.hour for bar in history] == [*range(-23, -21), *range(-20, 1)]
    fan = Fan(made, history)
    grid, top, bottom = fan.raster(columns=97, dots=60)
    step = (top - bottom) / 60
    last = fan.column(-0.5, 97)
    drawn = [y for y in range(60) if grid[y][last] in (WICK, ROSE, ROSE + 1)]
    assert top - step * drawn[0] == pytest.approx(history[-1].high, abs=step)
    assert top - step * (drawn[-1] + 1) == pytest.approx(history[-1].low, abs=step)
    assert "┃" in "\n".join(plot(made, Screen(), told))
    assert "-24 h" in "\n".join(plot(made, Screen(), told))
    assert "┃" not in "\n".join(plot(made, Screen(width=60), told)), "no room for a column an hour"
