"""Perpetual futures from the simulated exchange with Binance's USD-M face: followed, trained, served and found like coins."""

from __future__ import annotations

import json
from typing import Any

from cryptod.market import CANDLE, HOUR
from cryptod.simulator.generator import GeneratedMarket
from cryptod.store.candles import reading
from tests.integration.house import START, Daemon, SimulatedExchange, short_folder

COINS = 4
SEED = 7
SMALL: dict[str, Any] = {"cryptod_universe_size": COINS, "cryptod_exchange_market": "swap", "cryptod_incremental_enabled": "false"}


def test_perpetual_futures_are_collected_trained_and_found_by_what_is_typed() -> None:
    with short_folder() as folder, SimulatedExchange("--coins", str(COINS), "--seed", str(SEED), "--market", "swap") as exchange:
        with Daemon(folder, exchange, **SMALL) as daemon:
            daemon.wait_until_trained(COINS)
            with daemon.client() as client:
                followed = [coin["symbol"] for coin in client.call("symbols")["followed"]]
                assert len(followed) == COINS
                assert all(symbol.endswith("/USDT:USDT") for symbol in followed)
                assert client.status()["disk"]["market"] == "binance-swap-USDT-url"
                for typed in ("BTC", "btc", "BTCUSDT", "btc-usdt", "BTC/USDT", "BTC/USDT:USDT", "BTC-USDT-USDT"):
                    assert client.get(typed).symbol == "BTC/USDT:USDT", typed
                left_out = client.call("symbols")["left_out"]
                assert left_out["USDC/USDT:USDT"] == "a stablecoin"
            page = daemon.control("get", "BTC")
            assert page.returncode == 0
            assert " USDT at " in page.stdout
            assert ":USDT at" not in page.stdout.splitlines()[0].partition("  ")[2]
            rows = [json.loads(line) for line in daemon.control("export", "candles", "btc", "--json").stdout.splitlines()]
            assert {row["symbol"] for row in rows} == {"BTC/USDT:USDT"}
            added = daemon.control("symbols", "add", "nosuch")
            assert "NOSUCH/USDT:USDT was added" in " ".join(added.stdout.split())
        market = GeneratedMarket(COINS, SEED, first=START - 400 * 24 * HOUR.ms)
        end = HOUR.floor(START)
        truth = market.panel(("BTC/USDT",), end - 30 * 24 * HOUR.ms, end)
        with reading(daemon.state / "candles") as store:
            held = store.panel(("BTC/USDT:USDT",), end - 30 * 24 * HOUR.ms, end)
        assert (held.status == CANDLE).all()
        assert (held.values == truth.values).all()  # volumes too: they are in coins
        # A daemon for the spot market of the same exchange has nothing of the futures.
        with (
            SimulatedExchange("--coins", str(COINS), "--seed", str(SEED)) as spot_exchange,
            Daemon(folder, spot_exchange, **{**SMALL, "cryptod_exchange_market": "spot"}) as spot,
            spot.client() as client,
        ):
            disk = client.status()["disk"]
            assert (disk["market"], disk["others"]) == ("binance-spot-USDT-url", ["binance-swap-USDT-url"])
            assert client.status()["ledger"]["issues"] == 0
