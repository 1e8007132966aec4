"""The backtest: past candles lived through as the daemon would have, with what it could have known and nothing more."""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from cryptod.__main__ import main
from cryptod.backtest.command import hours, left_out, moment
from cryptod.backtest.history import History
from cryptod.backtest.replay import Cadence, Replay
from cryptod.backtest.results import Results
from cryptod.errors import DataError
from cryptod.forecast.predictor import Forecasts
from cryptod.forecast.scores import crps
from cryptod.market import CANDLE, HOUR, NO_TRADE, NOT_FETCHED
from cryptod.simulator.folder import HEADER
from tests.panels import walk

DAY = 24
START = 1_682_899_200_000  # 2023-05-01
DAYS = 52
FIRST = START + 50 * DAY * HOUR.ms
LENGTH = 14
BREAK = FIRST + 8 * HOUR.ms
"""Candles that close after this one are other ones in the second telling of the same past."""


def write(folder: Path, change_after: int | None = None) -> Path:
    """Seven coins, one of them with an outage and one that is listed late; the future of ``change_after`` may be another one."""
    folder.mkdir(parents=True, exist_ok=True)
    panel = walk(DAYS * DAY, 7, 11, START)
    other = walk(DAYS * DAY, 7, 12, START)
    for column, symbol in enumerate(panel.symbols):
        with gzip.open(folder / f"{symbol.replace('/', '-')}.csv.gz", "wt", encoding="ascii") as file:
            file.write(HEADER + "\n")
            for row, opened in enumerate(panel.open_times.tolist()):
                future = change_after is not None and opened + HOUR.ms > change_after
                outage = column == 1 and 1150 <= row < 1160
                if outage or (column == 2 and row < 4 * DAY) or (future and column == 3):  # and one is delisted in the other future
                    continue
                values = (other if future else panel).values[row, column]
                file.write(f"{opened},{','.join(repr(float(value)) for value in values)}\n")
    return folder


def write_break(folder: Path) -> Path:
    """Eight coins that move eight times as far from `FIRST` on."""
    folder.mkdir(parents=True, exist_ok=True)
    panel = walk(DAYS * DAY, 8, 13, START)
    logs = np.log(panel.values[:, :, :4])
    opened = logs[:, :, :1].copy()
    logs -= opened
    logs[panel.open_times >= FIRST] *= 8.0
    logs += np.concatenate([opened[:1], opened[:1] + np.cumsum(logs[:-1, :, 3:], axis=0)])
    panel.values[:, :, :4] = np.exp(logs)
    for column, symbol in enumerate(panel.symbols):
        rows = zip(panel.open_times.tolist(), panel.values[:, column].tolist(), strict=True)
        text = "".join(f"{opened},{','.join(map(repr, values))}\n" for opened, values in rows)
        with gzip.open(folder / f"{symbol.replace('/', '-')}.csv.gz", "wt", encoding="ascii") as file:
            file.write(f"{HEADER}\n{text}")
    return folder


def live(folder: Path, cadence: Cadence) -> tuple[list[Forecasts], Replay]:
    issued: list[Forecasts] = []
    history = History(folder)
    replay = Replay(history, FIRST, FIRST + LENGTH * HOUR.ms, cadence, issued.append)
    asyncio.run(replay.run())
    return issued, replay


CADENCE = Cadence(full_every=9, incremental_every=3, batch_size=4, lanes=1)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Forecasts], Replay, Path]:
    folder = write(tmp_path_factory.mktemp("past") / "candles")
    return *live(folder, CADENCE), folder


def test_changing_any_candle_after_a_cutoff_changes_nothing_issued_at_or_before_it(
    told: tuple[list[Forecasts], Replay, Path], tmp_path: Path
) -> None:
    issued, _, _ = told
    other, _ = live(write(tmp_path / "candles", change_after=BREAK), CADENCE)
    assert [made.cutoff for made in issued] == [made.cutoff for made in other] == list(range(FIRST, FIRST + LENGTH * HOUR.ms, HOUR.ms))
    for one, two in zip(issued, other, strict=True):
        if one.cutoff <= BREAK:
            assert (one.symbols, one.models, one.flags, one.sources) == (two.symbols, two.models, two.flags, two.sources)
            for name in ("cutoffs", "close", "quantiles", "p_up", "volatility", "expected_return", "score", "strangeness"):
                assert getattr(one, name).tobytes() == getattr(two, name).tobytes(), (name, one.cutoff)
            assert all(one.said[name].tobytes() == two.said[name].tobytes() for name in one.said)
    after = [(one, two) for one, two in zip(issued, other, strict=True) if one.cutoff > BREAK]
    assert after
    assert all(not np.array_equal(one.quantiles[0], two.quantiles[0]) for one, two in after)


def test_it_trains_at_its_cadence_and_promotes_by_verdict(told: tuple[list[Forecasts], Replay, Path]) -> None:
    _, replay, _ = told
    times = {
        kind: sorted({(row.time - FIRST) // HOUR.ms for row in replay.trainings if row.kind == kind}) for kind in ("full", "incremental")
    }
    assert times == {"full": [0, 9], "incremental": [3, 6, 12]}
    assert all(row.reason for row in replay.trainings)
    assert any(row.promoted for row in replay.trainings)
    assert replay.summary()["batches"]["full"]["promoted"] >= 2


def test_models_trained_at_a_cutoff_serve_from_the_next_hour_on(told: tuple[list[Forecasts], Replay, Path]) -> None:
    issued, replay, _ = told
    for made in issued:
        trained = [int(name.split("-")[0]) for name in made.models]
        assert all(time < made.cutoff or time == FIRST for time in trained)
    assert {int(name.split("-")[0]) for name in issued[-1].models} & {
        row.time for row in replay.trainings if row.promoted and row.time > FIRST
    }


def test_an_alarm_of_the_drift_watch_is_answered_by_an_update_out_of_turn_as_the_daemon_would(tmp_path: Path) -> None:
    folder = write_break(tmp_path / "candles")
    answered, silent = (live(folder, Cadence(full_every=0, incremental_every=every, lanes=1))[1] for every in (24, 0))
    (alarm,) = answered.alarms
    assert silent.alarms == [alarm], "the same forecasts up to it, and the sums rest for a day after it"
    assert FIRST < alarm.at < FIRST + LENGTH * HOUR.ms
    assert [row.time for row in answered.trainings if row.kind == "incremental"] == [alarm.at]
    assert not any(row.kind == "incremental" for row in silent.trainings)
    assert alarm.text in answered.summary()["drift"][0]


def test_every_coin_and_hour_is_answered_finite_and_in_order(told: tuple[list[Forecasts], Replay, Path]) -> None:
    issued, replay, _ = told
    assert all(len(made.symbols) == 7 for made in issued)
    assert replay.refused == {}
    for made in issued:
        assert np.isfinite(made.quantiles).all()
        assert (np.diff(made.quantiles, axis=-1) >= 0).all()
        assert ((made.p_up > 0) & (made.p_up < 1)).all()


def test_what_has_matured_is_learned_from_as_it_matures(told: tuple[list[Forecasts], Replay, Path]) -> None:
    _, replay, _ = told
    theta = np.log(replay.learning.calibration.factors(replay.history.symbols))
    assert (theta[:, : LENGTH - 1] != 0).all()
    assert (theta[:, LENGTH - 1 :] == 0).all()


def test_a_hole_is_no_trade_whatever_comes_after_it_and_nothing_is_known_before_the_first_candle(tmp_path: Path) -> None:
    history = History(write(tmp_path / "candles", change_after=BREAK))
    panel = history.panel(history.symbols, history.start, history.end)
    assert (panel.status[1150:1160, 1] == NO_TRADE).all()
    assert (panel.status[: 4 * DAY, 2] == NOT_FETCHED).all()
    assert (panel.status[4 * DAY :, 2] == CANDLE).all()
    gone = (BREAK - START) // HOUR.ms
    assert (panel.status[gone:, 3] == NO_TRADE).all()
    assert (history.panel(history.symbols, history.end, history.end + 3 * HOUR.ms).status == NOT_FETCHED).all()


def test_coins_are_followed_by_volume_and_those_that_fell_silent_no_more(tmp_path: Path) -> None:
    history = History(write(tmp_path / "candles", change_after=START + 40 * DAY * HOUR.ms))
    before, after = history.followed(START + 40 * DAY * HOUR.ms), history.followed(START + 48 * DAY * HOUR.ms)
    assert len(before) == 7
    assert set(before) - set(after) == {history.symbols[3]}
    day = history.panel(before, START + 39 * DAY * HOUR.ms, START + 40 * DAY * HOUR.ms).values
    volume = (day[:, :, 4] * day[:, :, 3]).sum(axis=0)
    assert (np.diff(volume) <= 0).all()


def test_the_file_holds_what_was_issued_and_the_figures_are_those_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = write(tmp_path / "candles"), tmp_path / "issued.csv.gz"
    first = str(np.datetime64(FIRST, "ms"))[:13]
    arguments = [
        "backtest",
        "--candles",
        str(folder),
        "--start",
        first,
        "--end",
        str(np.datetime64(FIRST + 8 * HOUR.ms, "ms"))[:13],
        "--lanes",
        "1",
    ]
    assert main([*arguments, "--step", "2h", "--incremental-every", "never", "--out", str(out), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    with gzip.open(out, "rt", encoding="ascii") as file:
        rows = list(csv.DictReader(file))
    levels = [f"q{level}" for level in (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975)]
    assert list(rows[0]) == ["symbol", "cutoff", "horizon", "model", *levels, "p_up"]
    assert len(rows) == 4 * 7 * 6
    assert {int(row["cutoff"]) for row in rows} == {FIRST + h * HOUR.ms for h in (0, 2, 4, 6)}
    history = History(folder)
    closes = history.panel(history.symbols, START, START + DAYS * DAY * HOUR.ms).values[:, :, 3]
    for row in rows[::17]:
        quantiles = [float(row[name]) for name in list(row)[4:13]]
        assert quantiles == sorted(quantiles)
        hour = (int(row["cutoff"]) - START) // HOUR.ms - 1
        column = history.symbols.index(row["symbol"])
        move = np.log(closes[hour + int(row["horizon"]), column] / closes[hour, column])
        assert abs(move) < 20 * (quantiles[-1] - quantiles[0])
    assert figures["forecasts"] == 8 * 7
    assert figures["crossings"] == figures["not_finite"] == 0
    assert figures["crps_e4"]["served"][0] > 0


def test_scores_are_those_of_a_plain_computation(told: tuple[list[Forecasts], Replay, Path]) -> None:
    issued, replay, _ = told
    history = replay.history
    results = Results.empty(history, FIRST, FIRST + LENGTH * HOUR.ms, history.symbols[:1])
    for made in issued:
        results.add(made, replay.learning.combination.weights)
    made = issued[3]
    closes = history.panel(made.symbols, made.cutoff, made.cutoff + 12 * HOUR.ms).values[:, :, 3]
    for k, h in ((0, 1), (4, 12)):
        outcome = np.log(closes[h - 1] / made.close)
        columns = [history.symbols.index(symbol) for symbol in made.symbols]
        assert results.losses["served"][3, columns, k] == pytest.approx(crps(made.quantiles[:, h - 1], outcome), rel=1e-5)
        held = (made.quantiles[:, h - 1, 2] <= outcome) & (outcome <= made.quantiles[:, h - 1, 6])
        assert (results.hits[80][3, columns, k] == held).all()
    assert results.skill("served") == 0.0
    skills = results.summary()["skill"]
    assert {name: results.skill(name) for name in skills} == pytest.approx(skills, abs=1e-5), "on the way and at the end"
    assert np.isfinite(results.examples[history.symbols[0]]).all()


def test_a_period_that_the_candles_do_not_allow_is_refused_with_what_they_allow(tmp_path: Path) -> None:
    history = History(write(tmp_path / "candles"))
    for start, end in ((START, FIRST), (FIRST, FIRST), (FIRST, START + (DAYS + 1) * DAY * HOUR.ms)):
        with pytest.raises(DataError, match="2023-06-15 00:00 and 2023-06-22 00:00"):
            Replay(history, start, end, CADENCE, lambda made: None)
    with pytest.raises(DataError, match="no folder"):
        History(tmp_path / "nowhere")
    with pytest.raises(DataError, match="XYZ/USDT"):
        History(tmp_path / "candles", ["XYZ/USDT"])


def test_what_the_candles_leave_out_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "candles")
    with gzip.open(folder / "ODD-USDT.csv.gz", "wt", encoding="ascii") as file:
        file.write(f"{HEADER}\n{START * 1000},1,2,1,2,5\n")
    history = History(folder)
    assert "ODD/USDT" not in history.symbols
    (why,) = history.left_out.values()
    assert why.endswith("ODD-USDT.csv.gz, line 2: times look like microseconds; expected UTC milliseconds")
    assert f"Left out of ODD-USDT.csv.gz: {why}" in left_out(history.left_out)


def test_durations_and_moments_are_strict() -> None:
    assert [hours(text) for text in ("6h", "7d", "2w", "never")] == [6, 168, 336, 0]
    assert moment("2023-05-01") == START
    for call, text in ((hours, "0h"), (hours, "6"), (hours, "six"), (moment, "yesterday"), (moment, "2023-05-01T00:30")):
        with pytest.raises(Exception, match=text):
            call(text)
