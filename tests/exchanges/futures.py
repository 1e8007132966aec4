"""Perpetual futures, a description of each exchange's; see `shapes`. Some count contracts, of `SIZE` coins each."""

from __future__ import annotations

from typing import Any, Final

from tests.exchanges.rows import day, iso, kline, ohlcv
from tests.exchanges.server import Coin, H, Param, Route, Row, Shape, World

SIZE: Final = 0.01


def _bybit(result: Any) -> dict[str, Any]:
    return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": 1}


def _linear(c: Coin) -> dict[str, Any]:
    return {"symbol": c.id, "contractType": "LinearPerpetual", "status": "Trading", "baseCoin": c.base, "quoteCoin": c.quote,
            "settleCoin": c.quote, "launchTime": "1585526400000", "deliveryTime": "0", "priceFilter": {"tickSize": "0.1"},
            "leverageFilter": {}, "lotSizeFilter": {"qtyStep": "0.001"}}  # fmt: skip


def _okx(data: Any) -> dict[str, Any]:
    return {"code": "0", "msg": "", "data": data}


def _okx_rows(world: World, pair: str, rows: list[Any]) -> dict[str, Any]:
    return _okx(rows)


def _contract(c: Coin) -> dict[str, Any]:
    return {"name": c.id, "type": "direct", "quanto_multiplier": str(SIZE), "order_size_min": 1, "order_size_max": 1000000,
            "mark_price": str(c.last), "order_price_round": "0.1", "order_price_deviate": "0.5", "leverage_min": "1", "leverage_max": "100",
            "maker_fee_rate": "0", "taker_fee_rate": "0.0005", "in_delisting": False, "status": "trading", "create_time": 1}  # fmt: skip


def _meta(w: World) -> list[Any]:
    universe = [{"name": c.base, "szDecimals": 4, "maxLeverage": 50} for c in w.coins]
    figures = [{"dayNtlVlm": str(c.value), "dayBaseVlm": str(c.volume), "markPx": str(c.last), "midPx": str(c.last),
                "oraclePx": str(c.last),
                "prevDayPx": str(c.open), "funding": "0", "openInterest": "1"} for c in w.coins]  # fmt: skip
    return [{"universe": universe, "collateralToken": 0}, figures]


def _contracts(r: Row) -> float:
    return round(r.volume / SIZE, 4)


def _dydx(c: Coin) -> dict[str, Any]:
    return {"clobPairId": "0", "ticker": c.id, "status": "ACTIVE", "oraclePrice": str(c.last), "priceChange24H": "0",
            "volume24H": str(c.value), "initialMarginFraction": "0.05", "maintenanceMarginFraction": "0.03", "openInterest": "1",
            "atomicResolution": -10, "tickSize": "1", "stepSize": "0.0001", "marketType": "CROSS"}  # fmt: skip


FUTURES: Final = (
    Shape(
        id="binance", market="swap",
        time=Route("/fapi/v1/time", lambda w: {"serverTime": w.now}),
        markets=[Route("/fapi/v1/exchangeInfo", lambda w: {"symbols": [
            {"symbol": c.id, "pair": c.id, "contractType": "PERPETUAL", "deliveryDate": 4133404800000, "onboardDate": 1569398400000,
             "status": "TRADING", "baseAsset": c.base, "quoteAsset": c.quote, "marginAsset": c.quote, "pricePrecision": 2,
             "quantityPrecision": 3, "baseAssetPrecision": 8, "quotePrecision": 8, "underlyingType": "COIN", "filters": []}
            for c in w.coins]})],
        tickers=[Route("/fapi/v1/ticker/24hr", lambda w: [day(c) for c in w.coins])],
        candles=[Route("/fapi/v1/klines", lambda w, pair, rows: rows)],
        row=kline, since=Param("startTime"), until=Param("endTime"), page=1000, default=500, fills=True,
    ),
    Shape(
        id="bybit", market="swap",
        time=Route("/v5/market/time", lambda w: _bybit({}) | {"time": w.now}),
        markets=[Route("/v5/market/instruments-info", lambda w: _bybit({"category": "linear", "list": []}), {"status": "PreLaunch"}),
                 Route("/v5/market/instruments-info", lambda w: _bybit({"category": "linear", "list": [_linear(c) for c in w.coins]}),
                       {"category": "linear"})],
        tickers=[Route("/v5/market/tickers", lambda w: _bybit({"category": "linear", "list": [
            {"symbol": c.id, "lastPrice": str(c.last), "highPrice24h": str(c.high), "lowPrice24h": str(c.low), "prevPrice24h": str(c.open),
             "turnover24h": str(c.value), "volume24h": str(c.volume)} for c in w.coins]}), {"category": "linear"})],
        candles=[Route("/v5/market/kline", lambda w, pair, rows: _bybit({"symbol": pair, "category": "linear", "list": rows}),
                       {"category": "linear"})],
        row=lambda r: [str(r.time), *ohlcv(r), str(r.value)], since=Param("start"), until=Param("end"), page=1000, default=200,
        newest_first=True, fills=True,
    ),
    Shape(
        id="okx", market="swap", name="{B}-{Q}-SWAP", symbol="instId",
        time=Route("/api/v5/public/time", lambda w: _okx([{"ts": str(w.now)}])),
        markets=[Route("/api/v5/public/instruments", lambda w: _okx([
            {"instId": c.id, "instType": "SWAP", "baseCcy": "", "quoteCcy": "", "settleCcy": c.quote, "ctVal": str(SIZE), "ctMult": "1",
             "ctValCcy": c.base, "ctType": "linear", "uly": f"{c.base}-{c.quote}", "instFamily": f"{c.base}-{c.quote}", "state": "live",
             "lotSz": "1", "minSz": "1", "tickSz": "0.1", "lever": "10", "listTime": "1", "expTime": ""} for c in w.coins]),
            {"instType": "SWAP"})],
        tickers=[Route("/api/v5/market/tickers", lambda w: _okx([
            {"instType": "SWAP", "instId": c.id, "last": str(c.last), "high24h": str(c.high), "low24h": str(c.low), "open24h": str(c.open),
             "volCcy24h": str(c.volume), "vol24h": str(c.volume / SIZE), "ts": str(w.now)} for c in w.coins]), {"instType": "SWAP"})],
        candles=[Route("/api/v5/market/candles", _okx_rows), Route("/api/v5/market/history-candles", _okx_rows)],
        row=lambda r: [str(r.time), *ohlcv(r)[:4], str(_contracts(r)), str(r.volume), str(r.value), "1"],
        since=Param("before", exclusive=True), until=Param("after", exclusive=True), page=300, newest_first=True, newest=True, fills=True,
    ),
    Shape(
        id="gate", market="swap", name="{B}_{Q}", symbol="contract",
        time=Route("/api/v4/spot/time", lambda w: {"server_time": w.now}),
        markets=[Route("/api/v4/futures/usdt/contracts", lambda w: [_contract(c) for c in w.coins]),
                 Route("/api/v4/futures/btc/contracts", lambda w: [])],
        tickers=[Route("/api/v4/futures/usdt/tickers", lambda w: [
            {"contract": c.id, "last": str(c.last), "high_24h": str(c.high), "low_24h": str(c.low), "volume_24h": str(c.volume / SIZE),
             "volume_24h_base": str(c.volume), "volume_24h_quote": str(c.value), "change_percentage": "0"} for c in w.coins])],
        candles=[Route("/api/v4/futures/usdt/candlesticks", lambda w, pair, rows: rows)],
        row=lambda r: {"t": r.time // 1000, "o": str(r.open), "h": str(r.high), "l": str(r.low), "c": str(r.close), "v": _contracts(r),
                       "sum": str(r.value)},
        since=Param("from", "s"), until=Param("to", "s"), page=2000, fills=True,
    ),
    Shape(
        id="hyperliquid", market="swap", quote="USDC", name="{B}", symbol="coin",
        time=Route("/info", lambda w: {"time": w.now}, {"type": "exchangeStatus"}),
        markets=[Route("/info", _meta, {"type": "metaAndAssetCtxs"}),
                 Route("/info", lambda w: {"tokens": [{"name": "USDC", "index": 0}], "universe": []}, {"type": "spotMeta"})],
        candles=[Route("/info", lambda w, pair, rows: rows, {"type": "candleSnapshot"})],
        row=lambda r: {"t": r.time, "T": r.time + H - 1, "s": "X", "i": "1h", "o": str(r.open), "c": str(r.close), "h": str(r.high),
                       "l": str(r.low), "v": str(r.volume), "n": 46},
        since=Param("startTime"), until=Param("endTime"), page=5000, default=5000, keeps=5000,
    ),
    Shape(
        id="kucoin", market="swap", name="{B}{Q}M", volumes=False,
        time=Route("/api/v1/timestamp", lambda w: {"code": "200000", "data": w.now}),
        markets=[Route("/api/v1/contracts/active", lambda w: {"code": "200000", "data": [
            {"symbol": c.id, "rootSymbol": c.quote, "type": "FFWCSX", "firstOpenDate": 1585555200000, "expireDate": None,
             "baseCurrency": c.base, "quoteCurrency": c.quote, "settleCurrency": c.quote, "maxOrderQty": 1000000, "lotSize": 1,
             "tickSize": 1.0, "multiplier": SIZE, "isInverse": False, "isQuanto": True, "makerFeeRate": 0.0002, "takerFeeRate": 0.0006,
             "status": "Open", "maxLeverage": 100, "nextFundingRateTime": 17752000} for c in w.coins]})],
        tickers=[Route("/api/v1/market/allTickers", lambda w: {"code": "200000", "data": {"time": w.now, "ticker": []}})],
        candles=[Route("/api/v1/kline/query", lambda w, pair, rows: {"code": "200000", "data": rows})],
        row=lambda r: [r.time, r.open, r.high, r.low, r.close, _contracts(r)],
        since=Param("from"), until=Param("to", exclusive=True), page=200, fills=True,
    ),
    Shape(
        id="dydx", market="swap", quote="USDC", name="{B}-USD", symbol="pair", volumes=False,
        time=Route("/v4/time", lambda w: {"iso": iso(w.now), "epoch": w.now / 1000}),
        markets=[Route("/v4/perpetualMarkets", lambda w: {"markets": {c.id: _dydx(c) for c in w.coins}})],
        candles=[Route("/v4/candles/perpetualMarkets/{pair}", lambda w, pair, rows: {"candles": rows})],
        row=lambda r: {"startedAt": iso(r.time), "ticker": "X", "resolution": "1HOUR", "low": str(r.low), "high": str(r.high),
                       "open": str(r.open), "close": str(r.close), "baseTokenVolume": str(r.volume), "usdVolume": str(r.value),
                       "trades": 1},
        since=Param("fromIso", "iso"), until=Param("toIso", "iso", exclusive=True), page=1000, newest_first=True,
    ),
)  # fmt: skip
