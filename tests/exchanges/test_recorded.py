"""The shapes beside recorded answers of the exchanges themselves: the same rows, the same bodies around them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.exchanges.server import Row, Shape, World
from tests.exchanges.shapes import SHAPES

ROW = Row(1_700_000_000_000 // 3_600_000 * 3_600_000, 10.0, 12.0, 9.0, 11.0, 5.0)


def recorded(name: str) -> Any:
    candles = os.environ.get("CRYPTOD_CANDLES")
    if not candles:
        pytest.skip("CRYPTOD_CANDLES is not set: recorded answers of exchanges lie beside it")
    return json.loads((Path(candles).resolve().parent.parent / "exchange-responses" / name).read_text())


def served(shape: Shape) -> Any:
    """The body of an answer with one row, as the exchange would send it."""
    world = World(ROW.time, 1000, shape.quote, shape.name)
    pair = "XXBTZUSD" if shape.id == "kraken" else world.pair("BTC")
    return json.loads(json.dumps(shape.candles[0].body(world, pair, [shape.row(ROW)])))


def form(value: Any) -> Any:
    """Types in the place of values, the first of a list for all of it. A whole number is a number."""
    if isinstance(value, dict):
        return {key: form(part) for key, part in sorted(value.items()) if key not in ("last", "retExtInfo")}
    if isinstance(value, list):
        return [form(value[0])] if value and isinstance(value[0], list | dict) else [form(part) for part in value]
    return "number" if isinstance(value, int | float) else type(value).__name__


@pytest.mark.parametrize(
    ("name", "market", "file"),
    [
        ("binance", "spot", "binance_ohlc.json"),
        ("binance", "spot", "nautilus_binance_klines_response.json"),
        ("kraken", "spot", "kraken_ohlc.json"),
        ("kraken", "spot", "davinsonr_kraken_ohlc.json"),
        ("bybit", "swap", "nautilus_bybit_http_get_klines_linear.json"),
        ("coinbase", "spot", "nautilus_coinbase_http_candles.json"),
        ("coinbaseexchange", "spot", "davinsonr_coinbase_candles.json"),
    ],
)
def test_a_served_answer_has_the_form_of_a_recorded_one(name: str, market: str, file: str) -> None:
    shape = next(shape for shape in SHAPES if (shape.id, shape.market) == (name, market))
    assert form(served(shape)) == form(recorded(file))
