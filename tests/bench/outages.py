"""What an outage does to the forecasts: hours are cut out of real candles, and the forecasts made in and after the gap are compared with
those of the same hours uncut.

    python -m tests.bench.outages --candles DIR [--coins 12] [--cutoffs 2023-03-18,...] [--hours 1,3,6,12,30] [--halted 1]

By default the hours before each cutoff are cut out of all coins; with ``--halted N`` out of N of them only, the others trade on. The
forecasts are the shipped base model's, through the daemon's `Predictor`, hour by hour, without calibration. Per row: the mean 24 h
volatility over that of the uncut run, at the cutoff (in the gap, where the last price known is as old as the gap) and one hour after the
coins are back; and how many of the outcomes of the day that follows lay within the intervals, in percent, uncut run behind the slash.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from cryptod.backtest.history import History
from cryptod.forecast.predictor import Predictor
from cryptod.market import CANDLE, CLOSE, HOUR, MAX_HORIZON, NO_TRADE, Bool, Float64, Panel
from cryptod.training import base_model, window

CALM_AND_WILD = ("2022-09-04", "2022-11-09", "2023-03-18", "2023-06-03", "2023-08-18", "2023-10-14")
"""Calm: 2022-09-04, 2023-06-03, 2023-10-14, weekends. Wild: FTX, the rise after Silicon Valley Bank, the fall of 2023-08-17."""
BEFORE = 48
AFTER = 48
_INNER = {50: (3, 5), 80: (2, 6), 95: (0, 8)}


@dataclass(frozen=True, slots=True)
class Run:
    """``volatility``: float64 [25, n], of 24 h, at the cutoff and each hour of the day after. ``inside``: percent -> share of the outcomes
    of the forecasts made in that day. ``flagged``: how many of the coins carried the flag at the cutoff and the hour after.
    """

    volatility: Float64
    inside: dict[int, float]
    flagged: tuple[int, int]


def cut(panel: Panel, cutoff: int, hours: int, columns: Sequence[int]) -> Panel:
    """The panel with the ``hours`` before the cutoff without a trade in some of the coins."""
    values, status = panel.values.copy(), panel.status.copy()
    last = (cutoff - panel.start) // HOUR.ms
    for column in columns:
        values[last - hours : last, column], status[last - hours : last, column] = np.nan, NO_TRADE
    return Panel(panel.symbols, panel.start, values, status)


def live(panel: Panel, cutoff: int, columns: Sequence[int]) -> Run:
    """Live through the day after the cutoff; forecasts and outcomes of the coins in ``columns``."""
    begin = cutoff - BEFORE * HOUR.ms
    model, _ = base_model.adopt(base_model.load(base_model.shipped()), panel.rows(begin - base_model.HOURS * HOUR.ms, begin))
    assert model is not None
    predictor = Predictor((model,))
    symbols = tuple(panel.symbols[column] for column in columns)
    closes = np.log(panel.coins(symbols).values[:, :, CLOSE])
    volatility: list[Float64] = []
    flagged: list[int] = []
    held: dict[int, list[Bool]] = {percent: [] for percent in _INNER}
    for time in range(begin + HOUR.ms, cutoff + (MAX_HORIZON + 1) * HOUR.ms, HOUR.ms):
        predictor.advance(panel.rows(time - HOUR.ms, time))
        if time < cutoff:
            continue
        made = predictor.forecast(symbols, time)
        row = (time - panel.start) // HOUR.ms
        outcome = closes[row : row + MAX_HORIZON].T - np.log(made.close)[:, None]
        volatility.append(made.volatility[:, -1].astype(np.float64))
        flagged.append(sum("outage" in words for words in made.flags))
        for percent, (low, high) in _INNER.items():
            held[percent].append((made.quantiles[:, :, low] <= outcome) & (outcome <= made.quantiles[:, :, high]))
    return Run(np.array(volatility), {percent: float(np.mean(rows)) for percent, rows in held.items()}, (flagged[0], flagged[1]))


def panel_of(folder: Path, coins: int, cutoff: int) -> Panel:
    """The largest coins that move and traded in every hour, from what a base model is adopted with before it until two days after."""
    history = History(folder)
    start, end = cutoff - (BEFORE + base_model.HOURS) * HOUR.ms, cutoff + AFTER * HOUR.ms
    found = history.panel(history.followed(cutoff), start, end)
    whole = (found.status == CANDLE).mean(axis=0) > 0.999
    ordinary = whole & ~window.survey(found).pegged
    return found.coins(tuple(symbol for symbol, chosen in zip(found.symbols, ordinary, strict=True) if chosen)[:coins])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candles", type=Path, required=True)
    parser.add_argument("--coins", type=int, default=12)
    parser.add_argument("--cutoffs", default=",".join(CALM_AND_WILD))
    parser.add_argument("--hours", default="1,3,6,12,30")
    parser.add_argument("--halted", type=int, default=0)
    parser.add_argument("--only", default="", help="the one coin that is halted, like XRP/USDT")
    given = parser.parse_args()
    print("| cutoff | hours | volatility | in the gap | after 1 h | flagged | 50 % | 80 % | 95 % |\n|---|---|---|---|---|---|---|---|---|")
    for day in given.cutoffs.split(","):
        cutoff = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1000
        panel = panel_of(given.candles, given.coins, cutoff)
        columns = list(range(given.halted or len(panel.symbols)))
        if given.only:
            columns = [panel.symbols.index(given.only)]
        whole = live(panel, cutoff, columns)
        for hours in map(int, given.hours.split(",")):
            run = live(cut(panel, cutoff, hours, columns), cutoff, columns)
            ratio = run.volatility.mean(axis=1) / whole.volatility.mean(axis=1)
            inside = " | ".join(f"{100 * run.inside[p]:.0f} / {100 * whole.inside[p]:.0f}" for p in _INNER)
            shown = f"{whole.volatility[0].mean():.4f} | {ratio[0]:.2f} | {ratio[1]:.2f} | {run.flagged[0]}, {run.flagged[1]}"
            print(f"| {day} | {hours} | {shown} | {inside} |", flush=True)


if __name__ == "__main__":
    main()
