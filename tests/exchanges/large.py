"""The largest exchanges, a description of each; see `shapes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.exchanges.rows import day, iso, kline, ohlcv
from tests.exchanges.server import Coin, H, Param, Route, Shape, World


def binance_symbol(coin: Coin) -> dict[str, Any]:
    return {
        "symbol": coin.id, "status": "TRADING", "baseAsset": coin.base, "quoteAsset": coin.quote, "baseAssetPrecision": 8,
        "quotePrecision": 8, "isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "permissions": [], "permissionSets": [["SPOT"]],
        "filters": [{"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01"}],
    }  # fmt: skip


def _binance(name: str) -> Shape:
    return Shape(
        id=name,
        time=Route("/api/v3/time", lambda w: {"serverTime": w.now}),
        markets=[Route("/api/v3/exchangeInfo", lambda w: {"symbols": [binance_symbol(c) for c in w.coins]})],
        tickers=[Route("/api/v3/ticker/24hr", lambda w: [day(c) for c in w.coins])],
        candles=[Route("/api/v3/klines", lambda w, pair, rows: rows)],
        row=kline, since=Param("startTime"), until=Param("endTime"), page=1000, default=500, fills=True,
    )  # fmt: skip


def bybit_symbol(coin: Coin) -> dict[str, Any]:
    return {
        "symbol": coin.id, "baseCoin": coin.base, "quoteCoin": coin.quote, "status": "Trading", "marginTrading": "none",
        "lotSizeFilter": {"basePrecision": "0.000001", "quotePrecision": "0.00000001", "minOrderQty": "0.1", "maxOrderQty": "63",
                          "minOrderAmt": "1", "maxOrderAmt": "100000"}, "priceFilter": {"tickSize": "0.01"},
    }  # fmt: skip


def bybit(result: Any) -> dict[str, Any]:
    return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": 1}


def _bybit(name: str) -> Shape:
    spot = {"category": "spot"}
    return Shape(
        id=name,
        time=Route("/v5/market/time", lambda w: bybit({}) | {"time": w.now}),
        markets=[Route("/v5/market/instruments-info", lambda w: bybit({"list": [bybit_symbol(c) for c in w.coins]}), spot)],
        tickers=[
            Route(
                "/v5/market/tickers",
                lambda w: bybit({"category": "spot", "list": [
                    {"symbol": c.id, "lastPrice": str(c.last), "highPrice24h": str(c.high), "lowPrice24h": str(c.low),
                     "turnover24h": str(c.value), "volume24h": str(c.volume), "prevPrice24h": str(c.open)} for c in w.coins]}),
                spot,
            ),
            Route(  # perpetuals, in another order of volume
                "/v5/market/tickers",
                lambda w: bybit({"category": "linear", "list": [
                    {"symbol": c.id, "lastPrice": str(c.last), "turnover24h": str(1 / c.value), "volume24h": "1"} for c in w.coins]}),
                {"category": "linear"},
            ),
        ],
        candles=[Route("/v5/market/kline", lambda w, pair, rows: bybit({"symbol": pair, "category": "spot", "list": rows}), spot)],
        row=lambda r: [str(r.time), *ohlcv(r), str(r.value)], since=Param("start"), until=Param("end"), page=1000, default=200,
        newest_first=True, fills=True,
    )  # fmt: skip


def _okx(name: str) -> Shape:
    def data(found: Any) -> dict[str, Any]:
        return {"code": "0", "msg": "", "data": found}

    def body(world: World, pair: str, rows: list[Any]) -> dict[str, Any]:
        return data(rows)

    return Shape(
        id=name, name="{B}-{Q}", symbol="instId",
        time=Route("/api/v5/public/time", lambda w: data([{"ts": str(w.now)}])),
        markets=[Route("/api/v5/public/instruments", lambda w: data([
            {"instId": c.id, "instType": "SPOT", "baseCcy": c.base, "quoteCcy": c.quote, "state": "live", "lotSz": "0.00000001",
             "minSz": "0.00001", "tickSz": "0.1", "lever": "10", "uly": "", "settleCcy": "", "listTime": "1"}
            for c in w.coins]), {"instType": "SPOT"})],
        tickers=[Route("/api/v5/market/tickers", lambda w: data([
            {"instType": "SPOT", "instId": c.id, "last": str(c.last), "high24h": str(c.high), "low24h": str(c.low), "open24h": str(c.open),
             "volCcy24h": str(c.value), "vol24h": str(c.volume), "ts": str(w.now)} for c in w.coins]), {"instType": "SPOT"})],
        candles=[Route("/api/v5/market/candles", body), Route("/api/v5/market/history-candles", body)],
        row=lambda r: [str(r.time), *ohlcv(r), str(r.value), str(r.value), "1"],
        since=Param("before", exclusive=True), until=Param("after", exclusive=True), page=300, newest_first=True, newest=True, fills=True,
    )  # fmt: skip


def _gate(name: str) -> Shape:
    def too_old(asked: Mapping[str, str], now: int) -> tuple[int, Any] | None:
        if int(asked["from"]) * 1000 < now - 10_000 * H:
            return 400, {"label": "INVALID_PARAM_VALUE", "message": "Candlestick too long ago. Maximum 10000 points ago are allowed"}
        if int(asked["to"]) - int(asked["from"]) > 1000 * H // 1000:
            return 400, {"label": "INVALID_PARAM_VALUE", "message": "Candlestick range too broad. Maximum 1000 points are allowed"}
        return None

    return Shape(
        id=name, name="{B}_{Q}", symbol="currency_pair",
        time=Route("/api/v4/spot/time", lambda w: {"server_time": w.now}),
        markets=[
            Route("/api/v4/spot/currency_pairs", lambda w: [
                {"id": c.id, "base": c.base, "quote": c.quote, "fee": "0.2", "min_base_amount": "0.01", "min_quote_amount": "0.001",
                 "amount_precision": 3, "precision": 6, "trade_status": "tradable", "sell_start": 0, "buy_start": 0} for c in w.coins]),
            Route("/api/v4/margin/currency_pairs", lambda w: []),
        ],
        tickers=[Route("/api/v4/spot/tickers", lambda w: [
            {"currency_pair": c.id, "last": str(c.last), "high_24h": str(c.high), "low_24h": str(c.low), "base_volume": str(c.volume),
             "quote_volume": str(c.value), "change_percentage": "0"} for c in w.coins])],
        candles=[Route("/api/v4/spot/candlesticks", lambda w, pair, rows: rows)],
        row=lambda r: [str(r.time // 1000), str(r.value), str(r.close), str(r.high), str(r.low), str(r.open), str(r.volume)],
        since=Param("from", "s"), until=Param("to", "s"), page=1000, keeps=10_000, months=14, refuses=too_old, fills=True,
    )  # fmt: skip


def _mexc_symbol(coin: Coin) -> dict[str, Any]:
    return {"symbol": coin.id, "status": "1", "baseAsset": coin.base, "baseAssetPrecision": "2", "quoteAsset": coin.quote,
            "quoteAssetPrecision": "4", "isSpotTradingAllowed": True, "baseSizePrecision": "0.01", "quoteAmountPrecision": "5",
            "makerCommission": "0.002", "takerCommission": "0.002", "maxQuoteAmount": "5000000"}  # fmt: skip


def _coinbase_range(asked: Mapping[str, str], now: int) -> tuple[int, Any] | None:
    if int(asked["end"]) - int(asked["start"]) > 350 * 3600:
        return 400, {"error": "INVALID_ARGUMENT", "error_details": "number of candles requested should be less than 350"}
    return None


def _coinbase_old_range(asked: Mapping[str, str], now: int) -> tuple[int, Any] | None:
    start, end = Param("start", "iso").read(asked), Param("end", "iso").read(asked)
    if start is not None and end is not None and end - start > 300 * H:
        return 400, {"message": "granularity too small for the requested time range. Count of aggregations requested exceeds 300"}
    return None


def _cryptocom(found: Any) -> dict[str, Any]:
    return {"id": -1, "method": "public", "code": 0, "result": found}


LARGE: Final = (
    _binance("binance"),
    _binance("binanceus"),
    _bybit("bybit"),
    _bybit("bybiteu"),
    _okx("okx"),
    _okx("myokx"),
    _gate("gate"),
    Shape(
        id="kraken", quote="USD", symbol="pair",
        time=Route("/0/public/Time", lambda w: {"error": [], "result": {"unixtime": w.now // 1000}}),
        markets=[Route("/0/public/AssetPairs", lambda w: {"error": [], "result": {
            c.id: {"altname": c.id, "wsname": f"{c.base}/{c.quote}", "base": c.base, "quote": "ZUSD", "pair_decimals": 1, "lot_decimals": 8,
                   "leverage_buy": [], "fees": [[0, 0.26]], "fees_maker": [[0, 0.16]], "ordermin": "1", "status": "online"}
            for c in w.coins}})],
        tickers=[Route("/0/public/Ticker", lambda w: {"error": [], "result": {
            c.id: {"a": [str(c.last), "1", "1"], "b": [str(c.last), "1", "1"], "c": [str(c.last), "1"], "v": ["1", str(c.volume)],
                   "p": ["1", str(c.last)], "t": [1, 1], "l": ["1", str(c.low)], "h": ["1", str(c.high)], "o": str(c.open)}
            for c in w.coins}})],
        candles=[Route("/0/public/OHLC", lambda w, pair, rows: {"error": [], "result": {pair: rows, "last": 1}})],
        row=lambda r: [r.time // 1000, *ohlcv(r)[:4], str(r.close), str(r.volume), 5], since=Param("since", "s", exclusive=True),
        page=720, default=720, newest=True, keeps=720, fills=True,
    ),
    Shape(
        id="coinbase", quote="USD", name="{B}-{Q}", symbol="pair",
        time=Route("/v2/time", lambda w: {"data": {"iso": iso(w.now), "epoch": w.now // 1000}}),
        markets=[Route("/api/v3/brokerage/market/products", lambda w: {"products": [], "num_products": 0}, {"product_type": "FUTURE"}),
                 Route("/api/v3/brokerage/market/products", lambda w: {"products": [
                     {"product_id": c.id, "price": str(c.last), "price_percentage_change_24h": "1", "volume_24h": str(c.volume),
                      "approximate_quote_24h_volume": str(c.value), "base_increment": "0.00000001", "quote_increment": "0.01",
                      "quote_min_size": "1", "quote_max_size": "1", "base_min_size": "1", "base_max_size": "1", "status": "online",
                      "is_disabled": False, "trading_disabled": False, "product_type": "SPOT", "quote_currency_id": c.quote,
                      "base_currency_id": c.base, "price_increment": "0.01", "alias": "", "alias_to": []}
                     for c in w.coins], "num_products": 6})],
        candles=[Route("/api/v3/brokerage/market/products/{pair}/candles", lambda w, pair, rows: {"candles": rows})],
        row=lambda r: {"start": str(r.time // 1000), "low": str(r.low), "high": str(r.high), "open": str(r.open), "close": str(r.close),
                       "volume": str(r.volume)},
        since=Param("start", "s"), until=Param("end", "s"), page=350, newest_first=True, newest=True, refuses=_coinbase_range,
    ),
    Shape(
        id="coinbaseexchange", quote="USD", name="{B}-{Q}", symbol="pair", volumes=False,
        time=Route("/time", lambda w: {"iso": iso(w.now), "epoch": w.now / 1000}),
        markets=[Route("/products", lambda w: [
            {"id": c.id, "base_currency": c.base, "quote_currency": c.quote, "quote_increment": "0.01", "base_increment": "0.00000001",
             "min_market_funds": "1", "margin_enabled": False, "status": "online"} for c in w.coins])],
        tickers=[Route("/products/spark-lines", lambda w: {
            c.id: [[w.now // H * H // 1000, c.low, c.high, c.open, c.last]] for c in w.coins})],
        candles=[Route("/products/{pair}/candles", lambda w, pair, rows: rows)],
        row=lambda r: [r.time // 1000, r.low, r.high, r.open, r.close, r.volume],
        since=Param("start", "iso"), until=Param("end", "iso"), page=300, newest_first=True, newest=True, refuses=_coinbase_old_range,
    ),
    Shape(
        id="kucoin", name="{B}-{Q}",
        time=Route("/api/v1/timestamp", lambda w: {"code": "200000", "data": w.now}),
        markets=[Route("/api/v2/symbols", lambda w: {"code": "200000", "data": [
            {"symbol": c.id, "name": c.id, "baseCurrency": c.base, "quoteCurrency": c.quote, "baseMinSize": "0.1", "quoteMinSize": "0.01",
             "baseMaxSize": "1000", "quoteMaxSize": "1000", "baseIncrement": "0.0001", "quoteIncrement": "0.000001",
             "priceIncrement": "0.000001", "isMarginEnabled": False, "enableTrading": True} for c in w.coins]})],
        tickers=[Route("/api/v1/market/allTickers", lambda w: {"code": "200000", "data": {"time": w.now, "ticker": [
            {"symbol": c.id, "symbolName": c.id, "buy": str(c.last), "sell": str(c.last), "last": str(c.last), "high": str(c.high),
             "low": str(c.low), "vol": str(c.volume), "volValue": str(c.value), "takerFeeRate": "0.001", "makerFeeRate": "0.001",
             "takerCoefficient": "1", "makerCoefficient": "1"} for c in w.coins]}})],
        candles=[Route("/api/v1/market/candles", lambda w, pair, rows: {"code": "200000", "data": rows})],
        row=lambda r: [str(r.time // 1000), str(r.open), str(r.close), str(r.high), str(r.low), str(r.volume), str(r.value)],
        since=Param("startAt", "s"), until=Param("endAt", "s", exclusive=True), page=1500, newest=True, newest_first=True,
    ),
    Shape(
        id="htx", name="{b}{q}",
        time=Route("/v1/common/timestamp", lambda w: {"status": "ok", "data": w.now}),
        markets=[Route("/v1/common/symbols", lambda w: {"status": "ok", "data": [
            {"base-currency": c.base.lower(), "quote-currency": c.quote.lower(), "price-precision": 2, "amount-precision": 6,
             "symbol": c.id, "state": "online", "value-precision": 8, "min-order-value": 10, "api-trading": "enabled"} for c in w.coins]})],
        tickers=[Route("/market/tickers", lambda w: {"status": "ok", "ts": w.now, "data": [
            {"symbol": c.id, "open": c.open, "high": c.high, "low": c.low, "close": c.last, "amount": c.volume, "vol": c.value, "count": 9,
             "bid": c.last, "bidSize": 1.0, "ask": c.last, "askSize": 1.0} for c in w.coins]})],
        candles=[Route("/market/history/candles", lambda w, pair, rows: {"status": "ok", "ch": "market", "ts": w.now, "data": rows})],
        row=lambda r: {"id": r.time // 1000, "open": r.open, "close": r.close, "low": r.low, "high": r.high, "amount": r.volume,
                       "vol": r.value, "count": 6},
        since=Param("from", "s"), until=Param("to", "s"), limit="size", page=1000, default=150, newest_first=True, fills=True,
    ),
    Shape(
        id="bitget",
        time=Route("/api/v2/public/time", lambda w: {"code": "00000", "msg": "success", "data": {"serverTime": str(w.now)}}),
        markets=[
            Route("/api/v2/spot/public/symbols", lambda w: {"code": "00000", "msg": "success", "data": [
                {"symbol": c.id, "baseCoin": c.base, "quoteCoin": c.quote, "minTradeAmount": "0", "maxTradeAmount": "10000",
                 "takerFeeRate": "0.002", "makerFeeRate": "0.002", "pricePrecision": "6", "quantityPrecision": "4", "quotePrecision": "6",
                 "status": "online", "minTradeUSDT": "5"} for c in w.coins]}),
            Route("/api/v2/margin/currencies", lambda w: {"code": "00000", "msg": "success", "data": []}),
        ],
        tickers=[Route("/api/v2/spot/market/tickers", lambda w: {"code": "00000", "msg": "success", "data": [
            {"symbol": c.id, "open": str(c.open), "high24h": str(c.high), "low24h": str(c.low), "lastPr": str(c.last),
             "quoteVolume": str(c.value), "baseVolume": str(c.volume), "ts": str(w.now)} for c in w.coins]})],
        candles=[Route(f"/api/v2/spot/market/{kind}", lambda w, pair, rows: {"code": "00000", "msg": "success", "data": rows})
                 for kind in ("candles", "history-candles")],
        row=lambda r: [str(r.time), *ohlcv(r), str(r.value), str(r.value)],
        since=Param("startTime"), until=Param("endTime", exclusive=True), page=200, newest=True, fills=True,
    ),
    Shape(
        id="mexc",
        time=Route("/api/v3/time", lambda w: {"serverTime": w.now}),
        markets=[
            Route("/api/v3/exchangeInfo", lambda w: {"timezone": "CST", "symbols": [_mexc_symbol(c) for c in w.coins]}),
            Route("/api/v1/contract/detail", lambda w: {"success": True, "code": 0, "data": []}),
        ],
        tickers=[Route("/api/v3/ticker/24hr", lambda w: [day(c) | {"quoteVolume": None} for c in w.coins])],
        candles=[Route("/api/v3/klines", lambda w, pair, rows: rows)],
        row=lambda r: kline(r)[:8], since=Param("startTime"), until=Param("endTime", exclusive=True), page=500, default=500, fills=True,
    ),
    Shape(
        id="bitfinex", quote="USD", name="t{B}{Q}", symbol="pair",
        markets=[Route("/v2/conf/pub:info:pair,pub:info:pair:futures,pub:list:pair:securities,pub:list:pair:margin", lambda w: [
            [[c.id[1:], [None, None, None, "0.02", "5000.0", None, None, None, 0.2, 0.1, None, None]] for c in w.coins], [], [], []])],
        tickers=[Route("/v2/tickers", lambda w: [
            [c.id, c.last, 1, c.last, 1, 0.1, 0.01, c.last, c.volume, c.high, c.low] for c in w.coins])],
        candles=[Route("/v2/candles/trade:1h:{pair}/hist", lambda w, pair, rows: rows)],
        row=lambda r: [r.time, r.open, r.close, r.high, r.low, r.volume], since=Param("start"), until=Param("end"), page=10_000,
    ),
    Shape(
        id="bitstamp", quote="USD", name="{b}{q}", symbol="pair",
        markets=[Route("/api/v2/markets/", lambda w: [
            {"name": f"{c.base}/{c.quote}", "market_symbol": c.id, "base_currency": c.base, "base_decimals": 8, "counter_currency": c.quote,
             "counter_decimals": 2, "minimum_order_value": "10", "trading": "Enabled", "market_type": "SPOT"} for c in w.coins])],
        tickers=[Route("/api/v2/ticker/", lambda w: [
            {"timestamp": "1", "high": str(c.high), "last": str(c.last), "low": str(c.low), "bid": str(c.last), "ask": str(c.last),
             "vwap": str(c.last), "volume": str(c.volume), "open": str(c.open), "pair": f"{c.base}/{c.quote}"} for c in w.coins])],
        candles=[Route("/api/v2/ohlc/{pair}/", lambda w, pair, rows: {"data": {"pair": pair, "ohlc": rows}})],
        row=lambda r: {"high": str(r.high), "timestamp": str(r.time // 1000), "volume": str(r.volume), "low": str(r.low),
                       "close": str(r.close), "open": str(r.open)},
        since=Param("start", "s"), until=Param("end", "s"), page=1000, fills=True,
    ),
    Shape(
        id="gemini", quote="USD", name="{b}{q}", symbol="pair", volumes=False,
        markets=[Route("/v1/symbols", lambda w: [c.id for c in w.coins])],
        tickers=[Route("/v1/pricefeed", lambda w: [
            {"pair": c.id.upper(), "price": str(c.last), "percentChange24h": "0"} for c in w.coins])],
        candles=[Route("/v2/candles/{pair}/1hr", lambda w, pair, rows: rows)],
        row=lambda r: [r.time, r.open, r.high, r.low, r.close, r.volume], page=1440, default=1440, keeps=1440,
        newest_first=True, fills=True,
    ),
    Shape(
        id="cryptocom", name="{B}_{Q}", symbol="instrument_name",
        markets=[Route("/exchange/v1/public/get-instruments", lambda w: _cryptocom({"data": [
            {"symbol": c.id, "inst_type": "CCY_PAIR", "base_ccy": c.base, "quote_ccy": c.quote, "quote_decimals": 2, "quantity_decimals": 5,
             "price_tick_size": "0.01", "qty_tick_size": "0.00001", "max_leverage": "50", "tradable": True, "expiry_timestamp_ms": 0}
            for c in w.coins]}))],
        tickers=[Route("/exchange/v1/public/get-tickers", lambda w: _cryptocom({"data": [
            {"i": c.id, "h": str(c.high), "l": str(c.low), "a": str(c.last), "v": str(c.volume), "vv": str(c.value), "t": w.now}
            for c in w.coins]}))],
        candles=[Route("/exchange/v1/public/get-candlestick", lambda w, pair, rows: _cryptocom({"instrument_name": pair, "data": rows}))],
        row=lambda r: {"o": str(r.open), "h": str(r.high), "l": str(r.low), "c": str(r.close), "v": str(r.volume), "t": r.time},
        since=Param("start_ts"), until=Param("end_ts", exclusive=True), limit="count", page=300, default=25, newest=True, fills=True,
    ),
    Shape(
        id="bingx", name="{B}-{Q}",
        time=Route("/openApi/swap/v2/server/time", lambda w: {"code": 0, "data": {"serverTime": w.now}}),
        markets=[
            Route("/openApi/spot/v1/common/symbols", lambda w: {"code": 0, "msg": "", "data": {"symbols": [
                {"symbol": c.id, "minNotional": 5, "maxNotional": 20000, "status": 1, "tickSize": 0.000001, "stepSize": 1,
                 "apiStateSell": True, "apiStateBuy": True, "timeOnline": 0} for c in w.coins]}}),
            Route("/openApi/swap/v2/quote/contracts", lambda w: {"code": 0, "msg": "", "data": []}),
            Route("/openApi/cswap/v1/market/contracts", lambda w: {"code": 0, "msg": "", "data": []}),
        ],
        tickers=[Route("/openApi/spot/v1/ticker/24hr", lambda w: {"code": 0, "data": [day(c) | {"closeTime": w.now} for c in w.coins]})],
        candles=[Route("/openApi/spot/v1/market/kline", lambda w, pair, rows: {"code": 0, "data": rows})],
        row=lambda r: [r.time, r.open, r.high, r.low, r.close, r.volume, r.time + H - 1, r.value],
        since=Param("startTime", exclusive=True), until=Param("endTime"), page=1440, default=500, newest_first=True, fills=True,
    ),
)  # fmt: skip
