"""Perpetual futures of the exchanges that are known for them: paths, bodies and rules of their candles, and what a contract is.

Beside its perpetuals each lists what must not be taken for one: a dated future, an inverse contract, a future without a date.
"""

from __future__ import annotations

from typing import Any, Final

from tests.exchanges.large import bybit
from tests.exchanges.rows import day, iso, kline, ohlcv
from tests.exchanges.server import Coin, H, Param, Route, Row, Shape, World

OKX_CONTRACT: Final = 0.1
GATE_CONTRACT: Final = 0.01
KUCOIN_CONTRACT: Final = 0.001


def _contracts(volume: float, size: float) -> str:
    return f"{volume / size:.10g}"


def _binance_contract(coin: Coin, **changes: Any) -> dict[str, Any]:
    return {
        "symbol": coin.id, "pair": coin.id, "contractType": "PERPETUAL", "deliveryDate": 4133404800000, "onboardDate": 1569398400000,
        "status": "TRADING", "baseAsset": coin.base, "quoteAsset": coin.quote, "marginAsset": coin.quote, "pricePrecision": 2,
        "quantityPrecision": 3, "underlyingType": "COIN", "underlyingSubType": [],
        "filters": [{"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"}],
    } | changes  # fmt: skip


def _binance_info(w: World) -> dict[str, Any]:
    perpetuals = [_binance_contract(coin) for coin in w.coins]
    coin = w.coins[0]
    dated = _binance_contract(coin, symbol=f"{coin.id}_990326", contractType="CURRENT_QUARTER", deliveryDate=4078252800000)
    share = _binance_contract(coin, symbol="TSLAUSDT", pair="TSLAUSDT", baseAsset="TSLA", underlyingType="EQUITY")
    return {"symbols": [*perpetuals, dated, share]}


def _bybit(category: str, found: Any) -> dict[str, Any]:
    return bybit({"category": category, "list": found, "nextPageCursor": ""})


def _bybit_contract(coin: Coin, **changes: Any) -> dict[str, Any]:
    return {
        "symbol": coin.id, "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": coin.base, "quoteCoin": coin.quote,
        "settleCoin": coin.quote, "launchTime": "1585526400000", "deliveryTime": "0", "symbolType": "",
        "priceFilter": {"tickSize": "0.01"}, "lotSizeFilter": {"minOrderQty": "0.001", "maxOrderQty": "1000", "qtyStep": "0.001"},
    } | changes  # fmt: skip


def _bybit_list(w: World) -> dict[str, Any]:
    coin = w.coins[0]
    dated = _bybit_contract(coin, symbol=f"{coin.base}-25DEC99", contractType="LinearFutures", deliveryTime="4102272000000")
    return _bybit("linear", [*(_bybit_contract(coin) for coin in w.coins), dated])


def _okx(found: Any) -> dict[str, Any]:
    return {"code": "0", "msg": "", "data": found}


def _okx_contract(coin: Coin, **changes: Any) -> dict[str, Any]:
    return {
        "instId": coin.id, "instType": "SWAP", "instFamily": f"{coin.base}-{coin.quote}", "uly": f"{coin.base}-{coin.quote}", "baseCcy": "",
        "quoteCcy": "", "settleCcy": coin.quote, "ctVal": str(OKX_CONTRACT), "ctMult": "1", "ctValCcy": coin.base, "ctType": "linear",
        "state": "live", "lotSz": "1", "minSz": "1", "tickSz": "0.1", "lever": "100", "listTime": "1573557408000", "expTime": "",
        "instCategory": "1",
    } | changes  # fmt: skip


def _okx_list(w: World) -> dict[str, Any]:
    coin = w.coins[0]
    inverse = _okx_contract(
        coin, instId=f"{coin.base}-USD-SWAP", uly=f"{coin.base}-USD", settleCcy=coin.base, ctType="inverse", ctVal="100"
    )
    return _okx([*(_okx_contract(coin) for coin in w.coins), inverse])


def _okx_ticker(coin: Coin, world: World) -> dict[str, Any]:
    return {"instType": "SWAP", "instId": coin.id, "last": str(coin.last), "high24h": str(coin.high), "low24h": str(coin.low),
            "open24h": str(coin.open), "volCcy24h": str(coin.volume), "vol24h": _contracts(coin.volume, OKX_CONTRACT),
            "ts": str(world.now)}  # fmt: skip


def _okx_row(r: Row) -> list[str]:
    prices = ohlcv(r)[:4]
    return [str(r.time), *prices, _contracts(r.volume, OKX_CONTRACT), str(r.volume), str(r.value), "1"]


def _gate_contract(coin: Coin) -> dict[str, Any]:
    return {"name": coin.id, "type": "direct", "quanto_multiplier": str(GATE_CONTRACT), "order_price_round": "0.1",
            "mark_price_round": "0.01", "order_size_min": 1, "order_size_max": 1000000, "leverage_min": "1", "leverage_max": "100",
            "in_delisting": False,
            "order_price_deviate": "0.5", "mark_price": str(coin.last),
            "last_price": str(coin.last), "create_time": 1546905600}  # fmt: skip


def _gate_ticker(coin: Coin) -> dict[str, Any]:
    return {"contract": coin.id, "last": str(coin.last), "mark_price": str(coin.last), "high_24h": str(coin.high), "low_24h": str(coin.low),
            "volume_24h": _contracts(coin.volume, GATE_CONTRACT), "volume_24h_base": str(coin.volume),
            "volume_24h_quote": str(coin.value)}  # fmt: skip


def _kucoin_contract(coin: Coin) -> dict[str, Any]:
    return {
        "symbol": coin.id, "baseCurrency": coin.base, "quoteCurrency": coin.quote, "settleCurrency": coin.quote, "isInverse": False,
        "multiplier": KUCOIN_CONTRACT, "lotSize": 1, "tickSize": 0.1, "status": "Open", "expireDate": None, "nextFundingRateTime": 1000,
        "firstOpenDate": 1585555200000, "maxOrderQty": 1000000, "maxPrice": 1000000, "maxLeverage": 100, "lastTradePrice": coin.last,
        "lowPrice": coin.low, "highPrice": coin.high, "volumeOf24h": coin.volume, "turnoverOf24h": coin.value, "takerFeeRate": 0.0006,
        "makerFeeRate": 0.0002,
    }  # fmt: skip


def _kucoin_list(w: World) -> dict[str, Any]:
    coin = w.coins[0]
    dated = _kucoin_contract(coin) | {"symbol": f"{coin.base}MZ99", "expireDate": 4102272000000, "nextFundingRateTime": None}
    inverse = _kucoin_contract(coin) | {
        "symbol": f"{coin.base}USDM",
        "quoteCurrency": "USD",
        "settleCurrency": coin.base,
        "isInverse": True,
    }
    return {"code": "200000", "data": [*(_kucoin_contract(coin) for coin in w.coins), dated, inverse]}


def _hyper_list(w: World) -> list[Any]:
    universe = [{"name": c.id, "szDecimals": 3, "maxLeverage": 50} for c in w.coins]
    figures = [{"dayNtlVlm": str(c.value), "markPx": str(c.last), "midPx": str(c.last), "prevDayPx": str(c.open), "oraclePx": str(c.last),
                "openInterest": "1", "funding": "0", "premium": "0", "impactPxs": None} for c in w.coins]  # fmt: skip
    return [{"universe": universe}, figures]


SWAPS: Final = (
    Shape(
        id="binance", market="swap",
        time=Route("/fapi/v1/time", lambda w: {"serverTime": w.now}),
        markets=[Route("/fapi/v1/exchangeInfo", _binance_info)],
        tickers=[Route("/fapi/v1/ticker/24hr", lambda w: [day(c) for c in w.coins])],
        candles=[Route("/fapi/v1/klines", lambda w, pair, rows: rows)],
        row=kline, since=Param("startTime"), until=Param("endTime"), page=1000, default=500, fills=True,
    ),
    Shape(
        id="bybit", market="swap",
        time=Route("/v5/market/time", lambda w: _bybit("", []) | {"time": w.now}),
        markets=[Route("/v5/market/instruments-info", lambda w: _bybit("linear", []), {"category": "linear", "status": "PreLaunch"}),
                 Route("/v5/market/instruments-info", _bybit_list, {"category": "linear"})],
        tickers=[Route("/v5/market/tickers", lambda w: _bybit("linear", [
            {"symbol": c.id, "lastPrice": str(c.last), "highPrice24h": str(c.high), "lowPrice24h": str(c.low), "turnover24h": str(c.value),
             "volume24h": str(c.volume), "prevPrice24h": str(c.open)} for c in w.coins]), {"category": "linear"})],
        candles=[Route(
            "/v5/market/kline", lambda w, pair, rows: bybit({"symbol": pair, "category": "linear", "list": rows}), {"category": "linear"},
        )],
        row=lambda r: [str(r.time), *ohlcv(r), str(r.value)], since=Param("start"), until=Param("end"), page=1000, default=200,
        newest_first=True, fills=True,
    ),
    Shape(
        id="okx", market="swap", name="{B}-{Q}-SWAP", symbol="instId",
        time=Route("/api/v5/public/time", lambda w: _okx([{"ts": str(w.now)}])),
        markets=[Route("/api/v5/public/instruments", _okx_list, {"instType": "SWAP"})],
        tickers=[Route("/api/v5/market/tickers", lambda w: _okx([_okx_ticker(c, w) for c in w.coins]), {"instType": "SWAP"})],
        candles=[Route(path, lambda w, pair, rows: _okx(rows)) for path in ("/api/v5/market/candles", "/api/v5/market/history-candles")],
        row=_okx_row, since=Param("before", exclusive=True), until=Param("after", exclusive=True), page=300, newest_first=True, newest=True,
        fills=True,
    ),
    Shape(
        id="gate", market="swap", name="{B}_{Q}", symbol="contract",
        time=Route("/api/v4/spot/time", lambda w: {"server_time": w.now}),
        markets=[Route("/api/v4/futures/usdt/contracts", lambda w: [_gate_contract(c) for c in w.coins]),
                 Route("/api/v4/futures/btc/contracts", lambda w: [])],
        tickers=[Route("/api/v4/futures/usdt/tickers", lambda w: [_gate_ticker(c) for c in w.coins])],
        candles=[Route("/api/v4/futures/usdt/candlesticks", lambda w, pair, rows: rows)],
        row=lambda r: {"t": r.time // 1000, "o": str(r.open), "h": str(r.high), "l": str(r.low), "c": str(r.close),
                       "v": float(_contracts(r.volume, GATE_CONTRACT)), "sum": str(r.value)},
        since=Param("from", "s"), until=Param("to", "s"), page=2000, fills=True,
    ),
    Shape(
        id="kucoin", market="swap", name="{B}{Q}M",
        time=Route("/api/v1/timestamp", lambda w: {"code": "200000", "data": w.now}),
        markets=[Route("/api/v1/contracts/active", _kucoin_list)],
        candles=[Route("/api/v1/kline/query", lambda w, pair, rows: {"code": "200000", "data": rows})],
        row=lambda r: [r.time, r.open, r.high, r.low, r.close, float(_contracts(r.volume, KUCOIN_CONTRACT)), r.value],
        since=Param("from"), until=Param("to"), page=200, default=200, fills=True,
    ),
    Shape(
        id="hyperliquid", market="swap", quote="USDC", name="{B}", symbol="coin",
        time=Route("/info", lambda w: {"time": w.now}, {"type": "exchangeStatus"}),
        markets=[Route("/info", _hyper_list, {"type": "metaAndAssetCtxs"})],
        candles=[Route("/info", lambda w, pair, rows: rows, {"type": "candleSnapshot"})],
        row=lambda r: {"t": r.time, "T": r.time + H - 1, "s": "X", "i": "1h", "o": str(r.open), "c": str(r.close), "h": str(r.high),
                       "l": str(r.low), "v": str(r.volume), "n": 46},
        since=Param("startTime"), until=Param("endTime"), page=5000, default=5000, keeps=5000, fills=True,
        note="perpetuals that others deploy there (HIP-3) are not followed",
    ),
    Shape(
        id="dydx", market="swap", quote="USDC", name="{B}-USD", symbol="market",
        time=Route("/v4/time", lambda w: {"iso": iso(w.now), "epoch": w.now / 1000}),
        markets=[Route("/v4/perpetualMarkets", lambda w: {"markets": {c.id: {
            "ticker": c.id, "status": "ACTIVE", "oraclePrice": str(c.last), "volume24H": str(c.value), "stepSize": "0.001",
            "tickSize": "0.1", "clobPairId": "0", "marketType": "CROSS"} for c in w.coins}})],
        candles=[Route("/v4/candles/perpetualMarkets/{market}", lambda w, pair, rows: {"candles": rows})],
        row=lambda r: {"startedAt": iso(r.time), "ticker": "X", "resolution": "1HOUR", "open": str(r.open), "high": str(r.high),
                       "low": str(r.low), "close": str(r.close), "baseTokenVolume": str(r.volume), "usdVolume": str(r.value), "trades": 1},
        since=Param("fromIso", "iso"), until=Param("toIso", "iso", exclusive=True), page=1000, newest=True, newest_first=True,
        volumes=False,
    ),
)  # fmt: skip
