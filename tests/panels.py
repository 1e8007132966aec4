"""Candles made up for tests of the forecasters: random walks with ranges and volumes, and the ways in which real ones are odd."""

from __future__ import annotations

import numpy as np

from cryptod.market import CANDLE, CLOSE, HIGH, HOUR, LOW, NO_TRADE, NOT_FETCHED, OPEN, VOLUME, Panel

START = 1_640_995_200_000
"""2022-01-01 00:00 UTC, a Saturday."""


def names(coins: int) -> tuple[str, ...]:
    return tuple(f"C{i}/USDT" for i in range(coins))


def walk(hours: int, coins: int, seed: int = 1, start: int = START) -> Panel:
    """Coins that never miss an hour: volatility comes in waves of a few days and differs from coin to coin."""
    random = np.random.default_rng(seed)
    waves = np.cumsum(random.normal(0, 0.05, (hours, coins)), axis=0)
    scale = 0.006 * np.exp(waves - waves.mean(axis=0)) * np.exp(random.normal(0, 0.2, coins))
    steps = random.normal(0, 1, (hours, coins)) * scale
    close = 4.0 + np.cumsum(steps, axis=0)
    opened = close - steps
    values = np.empty((hours, coins, 5))
    values[:, :, OPEN], values[:, :, CLOSE] = opened, close
    values[:, :, HIGH] = np.maximum(opened, close) + np.abs(random.normal(0, 0.5, (hours, coins))) * scale
    values[:, :, LOW] = np.minimum(opened, close) - np.abs(random.normal(0, 0.5, (hours, coins))) * scale
    values[:, :, :VOLUME] = np.exp(values[:, :, :VOLUME])
    values[:, :, VOLUME] = np.exp(random.normal(8, 0.5, (hours, coins))) * scale / 0.006
    return Panel(names(coins), start, values, np.full((hours, coins), CANDLE, np.uint8))


def blank(panel: Panel, column: int, rows: slice, status: int = NO_TRADE) -> None:
    """Take a coin's candles away: NO_TRADE is a halt, NOT_FETCHED a gap."""
    panel.values[rows, column] = np.nan
    panel.status[rows, column] = status


def odd(hours: int = 900, seed: int = 5) -> Panel:
    """Nine coins with everything that real candles come with."""
    panel = walk(hours, 9, seed)
    values = panel.values
    blank(panel, 1, slice(300, 420))  # a halt of five days
    blank(panel, 2, slice(250, 256), NOT_FETCHED)
    values[500:, 3, :VOLUME] *= np.e**12  # a new unit
    values[100, 4, CLOSE] = np.nan
    values[200, 4, :VOLUME] = 0.0
    values[210, 4, LOW] = -1.0
    values[220, 4, HIGH] = np.inf
    values[230, 4, VOLUME] = np.nan
    values[231, 4, VOLUME] = -5.0
    values[240, 4, :VOLUME] = 1e-300
    values[241, 4, :VOLUME] = 1e300
    values[242, 4] = (1e-25, 1e25, 1e-25, 1e25, 1e300)
    blank(panel, 5, slice(0, 700), NOT_FETCHED)  # listed late
    values[:, 6, :VOLUME] = 1.0  # stands still
    blank(panel, 7, slice(0, hours))  # never trades
    values[::2, 8, VOLUME] = 0.0  # thin: every second hour neither volume
    values[::2, 8, HIGH] = values[::2, 8, LOW] = values[::2, 8, OPEN] = values[::2, 8, CLOSE]  # nor range
    return panel


def later(panel: Panel, hours: int) -> int:
    """Open time of the panel's row ``hours``."""
    return panel.start + hours * HOUR.ms
