"""The publisher with real stores and small models: what it publishes in pieces, and what a promotion leaves as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cryptod.config import Config
from cryptod.daemon import publisher as module
from cryptod.daemon.publisher import Publisher
from cryptod.daemon.records import Records
from cryptod.daemon.scoring import Scoring
from cryptod.market import HOUR
from cryptod.store import forecasts, jobs, ledger
from cryptod.store.checkpoints import CheckpointStore, write_checkpoint
from cryptod.store.environment import open_environment
from cryptod.store.forecasts import ForecastCache
from cryptod.store.jobs import JobStore
from cryptod.store.ledger import Ledger
from tests import markets
from tests.markets import CUTOFF

SOURCE, TRAINED = markets.world()
MODELS = TRAINED.models
SYMBOLS = SOURCE.held.symbols
TTL = HOUR.ms


class House:
    """A publisher and its stores, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.environment = open_environment(
            folder / "serving", databases=(*forecasts.DATABASES, *jobs.DATABASES, *ledger.DATABASES), writer=True
        )
        self.disk = ThreadPoolExecutor(1)
        self.ledger, self.checkpoints = Ledger(self.environment), CheckpointStore(folder / "checkpoints")
        records = Records(JobStore(self.environment), self.disk, lambda error: None)
        scoring = Scoring(self.ledger, records, SOURCE.panel)
        stores = ForecastCache(self.environment), self.ledger, self.checkpoints, records
        self.publisher = Publisher(
            Config(), SOURCE.panel, stores, self.disk, lambda: 0.0, lambda symbol: "", lambda error: None, scoring
        )  # fmt: skip

    async def promote(self, *numbers: int) -> None:
        for number in numbers:
            model = replace(MODELS[number], name=f"m{number}")
            write_checkpoint(self.checkpoints.root, model.name, model.arrays(), model.document(), created=CUTOFF)
            await self.publisher.promote(model.name, CUTOFF, "full 1", SYMBOLS)

    def close(self) -> None:
        self.disk.shutdown()
        self.environment.close()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


async def test_many_coins_are_published_in_pieces_that_say_what_one_piece_says(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = House(tmp_path / "other")
    for one, at_once in ((house, 3), (other, 500)):
        monkeypatch.setattr(module, "AT_ONCE", at_once)
        await one.promote(*range(len(MODELS)))
        assert (await one.publisher.refresh(SYMBOLS, CUTOFF, CUTOFF, TTL))["forecasts"] == len(SYMBOLS)
    pieces, (whole,) = list(house.ledger.read(0, CUTOFF + 1)), other.ledger.read(0, CUTOFF + 1)
    assert [len(piece.symbols) for piece in pieces] == [3, 3, 2]
    assert sum((piece.symbols for piece in pieces), ()) == whole.symbols
    assert np.array_equal(np.concatenate([piece.quantiles for piece in pieces]), whole.quantiles)
    assert {symbol for symbol in SYMBOLS if house.publisher.fresh(symbol, CUTOFF) is not None} == set(SYMBOLS)
    other.close()


async def test_a_promotion_leaves_the_models_of_the_other_batches_as_they_are(house: House) -> None:
    await house.promote(0)
    (first,) = house.publisher.models
    (house.checkpoints.root / "m0" / "weights.safetensors").unlink()  # read again, it would be refused
    await house.promote(1)
    assert house.publisher.models[0] is first
    assert house.publisher.refused == {}
