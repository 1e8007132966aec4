"""A folder of candle files as a market: lives, holes, damage, and writing one."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from cryptod.errors import DataError
from cryptod.market import CANDLE, HOUR, NO_TRADE, NOT_FETCHED
from cryptod.simulator.folder import HEADER, FolderMarket, write_folder
from cryptod.simulator.generator import GeneratedMarket

START = 1_672_531_200_000


def write(folder: Path, name: str, hours: list[int], first_line: str = HEADER) -> None:
    rows = [f"{START + hour * HOUR.ms},1.5,2,1.25,1.75,{10 + hour}" for hour in hours]
    with gzip.open(folder / f"{name}.csv.gz", "wt") as file:
        file.write("\n".join([first_line, *rows]) + "\n")


def at(hour: float) -> int:
    return START + int(hour * HOUR.ms)


def test_a_pair_lives_from_its_first_candle_to_its_last_and_holes_stay_holes(tmp_path: Path) -> None:
    write(tmp_path, "AAA-USDT", [0, 1, 2, 5, 6])
    write(tmp_path, "BBB-USDT", [4, 5])
    market = FolderMarket(tmp_path)
    assert [listing.symbol for listing in market.listings] == ["AAA/USDT", "BBB/USDT"]
    panel = market.panel(("AAA/USDT", "BBB/USDT"), at(-1), at(8))
    assert panel.status[:, 0].tolist() == [NOT_FETCHED] + [CANDLE] * 3 + [NO_TRADE] * 2 + [CANDLE] * 2 + [NOT_FETCHED]
    assert panel.status[:, 1].tolist() == [NOT_FETCHED] * 5 + [CANDLE] * 2 + [NOT_FETCHED] * 2
    assert panel.values[1, 0].tolist() == [1.5, 2.0, 1.25, 1.75, 10.0]
    assert np.isnan(panel.values[panel.status != CANDLE]).all()
    assert (market.first, market.end) == (at(0), at(7))


def test_a_pair_trades_while_it_has_candles_through_outages_but_not_through_halts(tmp_path: Path) -> None:
    write(tmp_path, "AAA-USDT", [0, 1, 5, 40])
    market = FolderMarket(tmp_path)
    trading = {hour: market.trading("AAA/USDT", at(hour)) for hour in (-0.1, 0, 1.9, 3, 5.5, 6.5, 39.9, 40, 40.9, 41)}
    assert trading == {-0.1: False, 0: True, 1.9: True, 3: True, 5.5: True, 6.5: False, 39.9: False, 40: True, 40.9: True, 41: False}


def test_price_tick_and_lot_are_read_off_the_numbers(tmp_path: Path) -> None:
    write(tmp_path, "AAA-USDT", [0, 1])
    (listing,) = FolderMarket(tmp_path).listings
    assert (listing.price_tick, listing.lot) == (0.01, 1.0)


def test_what_is_written_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    market = GeneratedMarket(4)
    end = START + 100 * HOUR.ms
    assert write_folder(market, tmp_path / "candles", START, end, market.coins) == 4
    copy = FolderMarket(tmp_path / "candles")
    assert np.array_equal(market.panel(market.coins, START, end).values, copy.panel(market.coins, START, end).values)


@pytest.mark.parametrize(
    ("name", "hours", "first_line", "complaint"),
    [
        ("AAA-USDT", [0, 2, 1], HEADER, "not sorted"),
        ("AAA-USDT", [0, 0], HEADER, "not unique"),
        ("AAA-USDT", [0], "time,o,h,l,c,v", "does not begin"),
        ("-usdt", [0], HEADER, "is not a symbol"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str, hours: list[int], first_line: str, complaint: str) -> None:
    write(tmp_path, name, hours, first_line)
    with pytest.raises(DataError, match=complaint):
        FolderMarket(tmp_path)


def test_a_truncated_file_an_empty_folder_and_an_unknown_pair_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no candles in"):
        FolderMarket(tmp_path)
    write(tmp_path, "AAA-USDT", list(range(500)))
    with pytest.raises(DataError, match="BBB/USDT"):
        FolderMarket(tmp_path, ("BBB/USDT",))
    path = tmp_path / "AAA-USDT.csv.gz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="cannot be read"):
        FolderMarket(tmp_path)


@pytest.mark.skipif("CRYPTOD_CANDLES" not in os.environ, reason="CRYPTOD_CANDLES names no folder of real candles")
def test_real_candles_show_their_delistings_halts_and_late_listings() -> None:
    market = FolderMarket(Path(os.environ["CRYPTOD_CANDLES"]), ("BTC/USDT", "UST/USDT", "FTT/USDT", "ARB/USDT"))
    mid_2023 = 1_688_169_600_000
    assert {symbol: market.trading(symbol, mid_2023) for symbol in ("BTC/USDT", "UST/USDT", "FTT/USDT", "ARB/USDT")} == {
        "BTC/USDT": True,
        "UST/USDT": False,
        "FTT/USDT": False,
        "ARB/USDT": True,
    }
    outage = 1_679_662_800_000  # 2023-03-24 13:00, the exchange was down for an hour
    assert len(market.candles("BTC/USDT", outage, outage + HOUR.ms)[0]) == 0
    assert market.trading("BTC/USDT", outage)


def plain(folder: Path, name: str, *lines: str) -> None:
    with gzip.open(folder / f"{name}.csv.gz", "wt") as file:
        file.write("\n".join([HEADER, *lines]) + "\n")


@pytest.mark.parametrize(
    ("factor", "unit"), [(1000, "microseconds"), (0.001, "seconds"), (1_000_000, "nanoseconds"), (0.1, "nothing that is known")]
)
def test_times_that_are_no_milliseconds_are_refused_with_file_line_and_a_guess(tmp_path: Path, factor: float, unit: str) -> None:
    plain(tmp_path, "AAA-USDT", *(f"{int((START + hour * HOUR.ms) * factor)},1.5,2,1.25,1.75,1" for hour in range(3)))
    with pytest.raises(DataError, match=rf"AAA-USDT.csv.gz, line 2: times look like {unit}; expected UTC milliseconds"):
        FolderMarket(tmp_path)


def test_a_file_that_changes_its_unit_is_refused_at_the_line_where_it_does(tmp_path: Path) -> None:
    plain(tmp_path, "AAA-USDT", f"{at(0)},1,2,1,2,1", f"{at(1)},1,2,1,2,1", f"{at(2) * 1000},1,2,1,2,1")
    with pytest.raises(DataError, match="line 4: times look like microseconds"):
        FolderMarket(tmp_path)


def test_a_bad_file_and_an_odd_name_leave_the_rest_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, "AAA-USDT", [0, 1, 2])
    plain(tmp_path, "BBB-USDT", f"{at(0) * 1000},1,2,1,2,1")
    write(tmp_path, "-usdt", [0, 1])
    write(tmp_path, "CCC-USDT", [2, 1])
    (tmp_path / "DDD-USDT.csv.gz").write_bytes(b"no gzip")
    market = FolderMarket(tmp_path)
    assert [listing.symbol for listing in market.listings] == ["AAA/USDT"]
    assert list(market.left_out) == ["-usdt.csv.gz", "BBB-USDT.csv.gz", "CCC-USDT.csv.gz", "DDD-USDT.csv.gz"]
    assert all(why.startswith("the whole file: ") for why in market.left_out.values())
    assert "microseconds" in market.left_out["BBB-USDT.csv.gz"]
    with pytest.raises(DataError, match="not sorted"):  # a bad file that is asked for is an error
        FolderMarket(tmp_path, ("AAA/USDT", "CCC/USDT"))


@pytest.mark.parametrize("name", ["kBONK-USDT", "币安人生-USDT"])
def test_names_of_any_script_refuse_no_folder(tmp_path: Path, name: str) -> None:
    write(tmp_path, "AAA-USDT", [0, 1, 2])
    write(tmp_path, name, [0, 1])
    market = FolderMarket(tmp_path)
    assert "AAA/USDT" in [listing.symbol for listing in market.listings]


def test_rows_that_cannot_be_are_left_out_with_the_first_line_and_its_flaw(tmp_path: Path) -> None:
    sound = [f"{at(hour)},1.5,2,1.25,1.75,1" for hour in range(6)]
    plain(tmp_path, "AAA-USDT", sound[0], f"{at(1)},-1,2,1,2,1", f"{at(2) + 1_695_000},1,2,1,2,1", sound[3], f"{at(4)},soon,,1,2", sound[5])
    plain(tmp_path, "BBB-USDT", sound[0], f"{at(1)},,,,,0", f"{at(2)},0,0,0,0,0", f"{at(3)},null,null,null,null,0", sound[4])
    market = FolderMarket(tmp_path)
    assert market.candles("AAA/USDT", at(0), at(9))[0].tolist() == [at(0), at(3), at(5)]
    assert market.left_out == {"AAA-USDT.csv.gz": "3 of 6 rows, the first in line 3: a price that is not above 0"}
    assert market.candles("BBB/USDT", at(0), at(9))[0].tolist() == [at(0), at(4)], "no price and no volume: no trade"
