"""Training orders from candles to checkpoints: what is trained, what is left out, what fails alone, and what repeats."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cryptod.errors import StoreError
from cryptod.forecast.predictor import Predictor
from cryptod.forecast.scores import pooled_crps
from cryptod.market import CANDLE, CLOSE, HIGH, HOUR, LOW, NOT_FETCHED, OPEN, Panel
from cryptod.simulator.folder import FolderMarket
from cryptod.store.candles import CandleStore
from cryptod.store.checkpoints import read_checkpoint
from cryptod.training import engine, window
from cryptod.worker.messages import Batch, Finished, Progress, Report, TrainOrder
from tests import markets
from tests.markets import AHEAD, COINS, CUTOFF, HOURS, Source, Trained, train

SOURCE, FIRST = markets.world()
SYMBOLS = SOURCE.held.symbols
SERVING = {symbol: done.checkpoint for done, model in zip(FIRST.done, FIRST.models, strict=True) for symbol in model.symbols}
LATER = CUTOFF + 6 * HOUR.ms


def changed(change: Callable[[Panel], None]) -> Source:
    return Source(markets.panel(COINS, HOURS, AHEAD), change)


def same(one: Trained, other: Trained) -> bool:
    return all(
        np.array_equal(value, model_b.arrays()[name], equal_nan=value.dtype.kind == "f")
        for model_a, model_b in zip(one.models, other.models, strict=True)
        for name, value in model_a.arrays().items()
    )


def test_every_batch_ends_in_a_checkpoint_with_a_verdict() -> None:
    assert [done.batch for done in FIRST.done] == [1, 2]
    assert not FIRST.failed
    for done, model in zip(FIRST.done, FIRST.models, strict=True):
        assert done.checkpoint == f"{CUTOFF}-full-{done.batch:03d}-1" == model.name
        assert done.promote
        assert done.reason
        assert done.seconds > 0
        assert not done.left_out
        assert {"crps_model", "skill_log_har", "t_log_har", "coverage_90", "steps"} <= set(done.figures)
        assert all(np.isfinite(value) for value in done.figures.values())
        assert model.cutoff == CUTOFF
        assert model.kind == "full"
        assert (model.state.at == CUTOFF).all()
        meta = read_checkpoint(FIRST.root, done.checkpoint)[1]
        assert meta["window"] == [CUTOFF - HOURS * HOUR.ms, CUTOFF]
        assert meta["figures"] == done.figures


def test_all_reports_cross_the_process_wall() -> None:
    for report in FIRST.reports:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=Report) == report


def test_progress_is_told_at_every_stage() -> None:
    stages = [report.stage for report in FIRST.reports if isinstance(report, Progress)]
    assert set(stages) == {"season", "market", "features", "fit", "train", "evaluate", "write", "written"}
    assert [report.done for report in FIRST.reports if isinstance(report, Progress)][-1] == COINS


def test_the_same_order_gives_the_same_models_to_the_last_bit(tmp_path: Path) -> None:
    assert same(FIRST, train(SOURCE, tmp_path, (SYMBOLS[:4], SYMBOLS[4:])))


def test_candles_after_the_cutoff_change_no_model(tmp_path: Path) -> None:
    def spoil(panel: Panel) -> None:
        panel.values[HOURS:] *= 7.0

    assert same(FIRST, train(changed(spoil), tmp_path, (SYMBOLS[:4], SYMBOLS[4:])))


def test_a_model_knows_the_last_candle(tmp_path: Path) -> None:
    def spoil(panel: Panel) -> None:
        panel.values[HOURS - 1, :, 1] *= 1.05

    assert not same(FIRST, train(changed(spoil), tmp_path, (SYMBOLS[:4], SYMBOLS[4:])))


def test_an_incremental_update_starts_from_the_champion(tmp_path: Path) -> None:
    os.symlink(FIRST.root / FIRST.done[0].checkpoint, tmp_path / "ignored")
    found = train(SOURCE, FIRST.root, (SYMBOLS[:4],), kind="incremental", cutoff=LATER, champions=SERVING, epochs=5, seed=7)
    champion, model = FIRST.models[0], found.models[0]
    assert model.kind == "incremental"
    assert model.cutoff == LATER
    assert found.done[0].figures["steps"] == 115
    assert np.array_equal(model.season.variance, champion.season.variance)
    assert np.array_equal(model.input_mean, champion.input_mean)
    assert np.array_equal(model.input_scale, champion.input_scale)
    assert not np.array_equal(model.harx, champion.harx)
    assert not np.array_equal(model.residuals, champion.residuals)
    moved = np.abs(model.weights["w1"] - champion.weights["w1"]).max()
    assert 0 < moved < 0.1
    assert "champion" in found.done[0].reason
    assert "skill_champion" in found.done[0].figures


def update(champions: Trained, hours: int, seed: int, symbols: tuple[str, ...] = SYMBOLS[:4]) -> Trained:
    serving = {symbol: done.checkpoint for done, model in zip(champions.done, champions.models, strict=True) for symbol in model.symbols}
    cutoff = CUTOFF + hours * HOUR.ms
    return train(SOURCE, FIRST.root, (symbols,), kind="incremental", cutoff=cutoff, champions=serving, epochs=1, seed=seed)


def test_references_are_kept_until_they_are_a_day_old() -> None:
    first = FIRST.models[0]
    for hours, seed, kept in ((6, 31, True), (23, 32, True), (24, 33, False), (30, 34, False)):
        found = update(FIRST, hours, seed)
        model = found.models[0]
        assert np.array_equal(model.har, first.har) == kept
        assert np.array_equal(model.tables, first.tables) == kept
        assert not np.array_equal(model.harx, first.harx)
        assert model.meta["references"] == CUTOFF + (0 if kept else hours * HOUR.ms)
    next_day = update(found, 36, 35).models[0]
    assert next_day.meta["references"] == CUTOFF + 30 * HOUR.ms
    assert np.array_equal(next_day.tables, found.models[0].tables)


def test_coins_of_two_champions_have_no_references_in_common_and_get_new_ones() -> None:
    found = update(FIRST, 6, 36, SYMBOLS[2:6])
    assert found.models[0].symbols == SYMBOLS[2:6]
    assert found.models[0].meta["references"] == LATER


def test_an_update_of_some_of_a_champion_s_coins_keeps_those_coins_references() -> None:
    found = update(FIRST, 6, 37, (SYMBOLS[3], SYMBOLS[1]))
    assert np.array_equal(found.models[0].tables, FIRST.models[0].tables[:, [3, 1]])


def test_whether_a_coin_s_recording_was_kept_or_made_again_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = train(SOURCE, FIRST.root, (SYMBOLS[4:], SYMBOLS[:4]), kind="incremental", cutoff=LATER, champions=SERVING, seed=38)
    monkeypatch.setattr(engine, "_KEPT", 0)
    again = train(SOURCE, FIRST.root, (SYMBOLS[4:], SYMBOLS[:4]), kind="incremental", cutoff=LATER, champions=SERVING, seed=39)
    for one, other in zip(kept.models, again.models, strict=True):
        assert one.residuals == pytest.approx(other.residuals, rel=1e-2)
        for name, value in one.state.arrays().items():
            assert value == pytest.approx(other.state.arrays()[name], rel=1e-6, nan_ok=True)
        assert one.harx == pytest.approx(other.harx, rel=1e-5, abs=1e-7)


def test_an_incremental_update_without_a_champion_trains_anew(tmp_path: Path) -> None:
    found = train(SOURCE, tmp_path, (SYMBOLS[:4],), kind="incremental", cutoff=LATER, champions={SYMBOLS[0]: "gone"}, seed=8)
    assert found.done[0].checkpoint == f"{LATER}-full-001-8"
    assert found.done[0].promote


def test_a_worse_challenger_is_written_but_not_promoted(tmp_path: Path) -> None:
    def spoil(panel: Panel) -> None:
        # Until two weeks ago prices went a third of the way for the same ranges: intervals learned from that are too narrow today.
        rows = HOURS - 15 * 24
        returns = np.diff(np.log(panel.values[: rows + 1, :, CLOSE]), axis=0) / 3
        close = panel.values[rows, :, OPEN] * np.exp(np.cumsum(returns[::-1], axis=0)[::-1] * -1)
        opened = np.concatenate([close[:1], close[:-1]])
        half = 0.5 * np.log(panel.values[:rows, :, HIGH] / panel.values[:rows, :, LOW])
        middle = np.sqrt(opened * close)
        panel.values[:rows, :, :4] = np.stack([opened, middle * np.exp(half), middle * np.exp(-half), close], axis=-1)

    found = train(changed(spoil), FIRST.root, (SYMBOLS[:4],), champions=SERVING, cutoff=CUTOFF, seed=9)
    assert not found.done[0].promote
    assert "champion" in found.done[0].reason
    assert found.models[0].symbols == SYMBOLS[:4]


def test_a_batch_of_garbage_fails_alone(tmp_path: Path) -> None:
    def spoil(panel: Panel) -> None:
        panel.values[:, 0] = np.nan
        panel.values[:, 1] = -1.0
        panel.status[:, 2] = NOT_FETCHED
        panel.values[:, 3] = np.inf

    found = train(changed(spoil), tmp_path, (SYMBOLS[:4], SYMBOLS[4:]))
    assert [failed.batch for failed in found.failed] == [1]
    assert [done.batch for done in found.done] == [2]
    assert "none of its 4 coins" in found.failed[0].error
    assert found.failed[0].hint


def test_odd_coins_are_left_out_with_a_reason_and_spoil_nothing(tmp_path: Path) -> None:
    def spoil(panel: Panel) -> None:
        panel.status[: HOURS - 30 * 24, 0] = NOT_FETCHED  # 30 days old
        panel.status[HOURS - 20 * 24 :, 1] = NOT_FETCHED  # delisted
        panel.status[:, 2] = NOT_FETCHED
        panel.values[1000:, 4, :4] *= np.exp(12.0)  # redenominated
        panel.values[:, 5, :4] = 1.0 + 1e-4 * np.sin(np.arange(HOURS + AHEAD))[:, None]  # flat
        panel.status[900:1100, 6] = NOT_FETCHED  # halted for a while

    found = train(changed(spoil), tmp_path, (SYMBOLS[:4], SYMBOLS[4:]))
    assert not found.failed
    left_out = found.done[0].left_out
    assert set(left_out) == set(SYMBOLS[:3])
    assert "too young" in left_out[SYMBOLS[0]]
    assert "delisted" in left_out[SYMBOLS[1]]
    assert "no candle" in left_out[SYMBOLS[2]]
    assert found.models[0].symbols == (SYMBOLS[3],)
    forecasts = Predictor(found.models).forecast(SYMBOLS[4:], CUTOFF)
    assert np.isfinite(forecasts.quantiles).all()
    assert (np.diff(forecasts.quantiles, axis=-1) >= 0).all()
    assert "pegged" in forecasts.flags[1]
    assert forecasts.sources[1] == "random_walk"
    clean = Predictor(FIRST.models).forecast(SYMBOLS[7:], CUTOFF)
    width = [found.quantiles[-1, -1, -1] - found.quantiles[-1, -1, 0] for found in (forecasts, clean)]
    assert width[0] == pytest.approx(width[1], rel=0.25)


def test_a_batch_of_pegged_coins_is_served_by_their_own_quantiles(tmp_path: Path) -> None:
    def spoil(panel: Panel) -> None:
        random = np.random.default_rng(0)
        panel.values[:, :4, :4] = 1.0 + 1e-4 * random.normal(size=(HOURS + AHEAD, 4, 1))

    found = train(changed(spoil), tmp_path, (SYMBOLS[:4], SYMBOLS[4:]))
    assert not found.failed
    forecasts = Predictor(found.models).forecast(SYMBOLS, CUTOFF)
    assert forecasts.sources[:4] == ("random_walk",) * 4
    assert forecasts.volatility[:4].max() < 0.01
    assert np.isfinite(forecasts.quantiles).all()


def test_the_market_s_means_take_all_coins_but_the_odd_ones() -> None:
    assert window.survey(SOURCE.panel((*SYMBOLS, "NEW/USDT"), CUTOFF - HOURS * HOUR.ms, CUTOFF)).left_out == {
        "NEW/USDT": "no candle in the training window"
    }


def test_run_reads_the_store_and_ends_with_finished(tmp_path: Path) -> None:
    store = CandleStore.open(tmp_path / "candles", writer=True)
    for column, symbol in enumerate(SYMBOLS[:4]):
        panel = SOURCE.held
        known = np.flatnonzero(panel.status[:, column] == CANDLE)
        store.write(symbol, panel.open_times[known], panel.values[known, column])
    store.close()
    order = TrainOrder(
        job=1, kind="full", cutoff=CUTOFF, candles=str(tmp_path / "candles"), checkpoints=str(tmp_path / "checkpoints"),
        batches=(Batch(number=1, symbols=SYMBOLS[:4]),), universe=SYMBOLS[:4], champions={}, timeframe="1h", months_back=3,
        epochs=1, threads=1, seed=1,
    )  # fmt: skip
    reports: list[Report] = []
    engine.run(order, reports.append)
    last = reports[-1]
    assert isinstance(last, Finished)
    assert last.seconds > 0
    assert last.peak_rss > 1 << 20
    assert (tmp_path / "checkpoints" / f"{CUTOFF}-full-001-1" / "weights.safetensors").exists()


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def test_no_byte_on_disk_depends_on_candles_after_the_cutoff_or_on_when_it_was_written(tmp_path: Path) -> None:
    def spoil(panel: Panel) -> None:
        panel.values[HOURS:] *= 7.0
        panel.status[HOURS:, ::2] = NOT_FETCHED

    train(SOURCE, tmp_path / "one", (SYMBOLS[:4], SYMBOLS[4:]))
    train(changed(spoil), tmp_path / "other", (SYMBOLS[:4], SYMBOLS[4:]))
    assert files(tmp_path / "one")
    assert files(tmp_path / "one") == files(tmp_path / "other")


def test_a_cutoff_within_an_hour_is_that_of_the_last_candle_closed(tmp_path: Path) -> None:
    found = train(SOURCE, tmp_path, (SYMBOLS[:4], SYMBOLS[4:]), cutoff=CUTOFF + 59 * 60_000)
    assert same(FIRST, found)


def test_its_forecasts_beat_the_random_walk_on_hours_that_nobody_had_seen() -> None:
    predictor, gains = Predictor(FIRST.models), []
    for cutoff in range(CUTOFF + HOUR.ms, CUTOFF + (AHEAD - 24) * HOUR.ms + 1, 3 * HOUR.ms):
        predictor.advance(SOURCE.panel(SYMBOLS, CUTOFF, cutoff))
        found = predictor.forecast(SYMBOLS, cutoff)
        outcomes = np.log(SOURCE.panel(SYMBOLS, cutoff, cutoff + 24 * HOUR.ms).values[:, :, CLOSE]).T - np.log(found.close)[:, None]
        assert np.isfinite(outcomes).all()
        usual, ours = pooled_crps(found.said["random_walk"], outcomes), pooled_crps(found.quantiles, outcomes)
        gains.append(1.0 - ours.mean() / usual.mean())
    assert len(gains) >= 4
    assert np.mean(gains) > -0.02


def test_prices_beyond_all_measure_spoil_neither_their_coin_nor_the_others(tmp_path: Path) -> None:
    def spoil(panel: Panel) -> None:
        panel.values[800, 0] = (1e-290, 1e290, 1e-290, 1e290, 1e290)
        panel.values[801, 0] = (1e-25, 1e25, 1e-25, 1e25, 1e300)
        panel.values[900:920, 1] = 0.0
        panel.values[950, 2, CLOSE] = np.nan

    found = train(changed(spoil), tmp_path, (SYMBOLS[:4], SYMBOLS[4:]))
    assert not found.failed
    forecasts = Predictor(found.models).forecast(SYMBOLS, CUTOFF)
    assert np.isfinite(forecasts.quantiles).all()
    assert np.abs(forecasts.quantiles).max() < 1.0


def test_a_batch_of_coins_that_stand_still_fails_alone(tmp_path: Path) -> None:
    def spoil(panel: Panel) -> None:
        panel.values[:, :4, :4] = 1.0

    found = train(changed(spoil), tmp_path, (SYMBOLS[:4], SYMBOLS[4:]))
    assert [failed.batch for failed in found.failed] == [1]
    assert [done.batch for done in found.done] == [2]


def test_a_batch_that_memory_runs_out_for_is_not_told_as_its_candles_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr("cryptod.training.trainer.train", fail)
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        train(SOURCE, tmp_path, (SYMBOLS[:4],))


def test_a_store_that_is_not_there_ends_the_order_at_once(tmp_path: Path) -> None:
    order = TrainOrder(
        job=1, kind="full", cutoff=CUTOFF, candles=str(tmp_path / "nowhere"), checkpoints=str(tmp_path / "checkpoints"),
        batches=(Batch(number=1, symbols=SYMBOLS[:4]),), universe=SYMBOLS[:4], champions={}, timeframe="1h", months_back=3,
        epochs=1, threads=1, seed=1,
    )  # fmt: skip
    with pytest.raises(StoreError):
        engine.run(order, lambda report: None)


@pytest.mark.skipif("CRYPTOD_CANDLES" not in os.environ, reason="CRYPTOD_CANDLES names no folder of real candles")
def test_real_candles_are_trained_on_and_the_model_beats_the_random_walk(tmp_path: Path) -> None:
    symbols = ("BTC/USDT", "ETH/USDT", "ADA/USDT", "XRP/USDT")
    market = FolderMarket(Path(os.environ["CRYPTOD_CANDLES"]), symbols)
    cutoff = 1_664_582_400_000  # 2022-10-01
    source = Source(market.panel(symbols, cutoff - 4 * engine.MONTH_HOURS * HOUR.ms, cutoff))
    found = train(source, tmp_path, (symbols,), cutoff=cutoff, months=4, epochs=50)
    assert found.done[0].promote
    assert found.done[0].figures["skill_random_walk"] > 0
    assert 82 < found.done[0].figures["coverage_90"] < 97
