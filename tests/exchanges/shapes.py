"""The exchanges that are tried, a description of each.

Paths, parameters, rows and bodies are those that ccxt's own parsers read, and of recorded answers where there are any. The
rules of the candle endpoints are the documented ones. Where a document is silent the rule is the one that ccxt relies on.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from tests.exchanges.server import H, Coin, Param, Route, Row, Shape, World


def iso(time: int) -> str:
    return f"{datetime.fromtimestamp(time / 1000, UTC):%Y-%m-%dT%H:%M:%S.000Z}"


def ohlcv(row: Row) -> list[str]:
    return [str(value) for value in (row.open, row.high, row.low, row.close, row.volume)]


def kline(row: Row) -> list[Any]:
    """Binance's row, which many others took over."""
    return [row.time, *ohlcv(row), row.time + H - 1, str(row.value), 40, "1.0", "1.0", "0"]


def day(coin: Coin) -> dict[str, Any]:
    """Binance's 24 hours."""
    return {
        "symbol": coin.id, "lastPrice": str(coin.last), "highPrice": str(coin.high), "lowPrice": str(coin.low),
        "openPrice": str(coin.open), "volume": str(coin.volume), "quoteVolume": str(coin.value), "closeTime": 1,
    }  # fmt: skip


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


def _bitbank_day(asked: Mapping[str, str]) -> tuple[int, int]:
    start = int(datetime.strptime(asked["day"], "%Y%m%d").replace(tzinfo=UTC).timestamp() * 1000)
    return start, start + 24 * H - 1


def _mexc_symbol(coin: Coin) -> dict[str, Any]:
    return {"symbol": coin.id, "status": "1", "baseAsset": coin.base, "baseAssetPrecision": "2", "quoteAsset": coin.quote,
            "quoteAssetPrecision": "4", "isSpotTradingAllowed": True, "baseSizePrecision": "0.01", "quoteAmountPrecision": "5",
            "makerCommission": "0.002", "takerCommission": "0.002", "maxQuoteAmount": "5000000"}  # fmt: skip


def _toko_symbol(coin: Coin) -> dict[str, Any]:
    return {"type": 1, "symbol": coin.id, "baseAsset": coin.base, "basePrecision": 8, "quoteAsset": coin.quote, "quotePrecision": 8,
            "spotTradingEnable": 1, "marginTradingEnable": 0, "permissions": ["SPOT"], "filters": []}  # fmt: skip


def _phemex(coin: Coin) -> dict[str, Any]:
    return {"symbol": coin.id, "code": 1001, "type": "Spot", "displaySymbol": f"{coin.base} / {coin.quote}", "quoteCurrency": coin.quote,
            "priceScale": 8, "ratioScale": 8, "pricePrecision": 2, "baseCurrency": coin.base, "baseTickSize": f"0.000001 {coin.base}",
            "quoteTickSize": f"0.01 {coin.quote}", "minOrderValue": f"10 {coin.quote}", "maxBaseOrderSize": f"1000 {coin.base}",
            "maxOrderValue": f"5,000,000 {coin.quote}", "defaultTakerFee": "0.001", "defaultMakerFee": "0.001", "status": "Listed",
            "listTime": 1589338800000}  # fmt: skip


def _phemex_limit(asked: Mapping[str, str], now: int) -> tuple[int, Any] | None:
    if asked["limit"] not in ("5", "10", "50", "100", "500", "1000"):
        return 200, {"code": 30000, "msg": "Please double check input arguments", "data": None}
    return None


def _ev(value: float) -> int:
    return round(value * 1e8)


def _upbit_row(pair: str, row: Any) -> dict[str, Any]:
    return {"market": pair, **row}


def _upbit_candle(r: Row) -> dict[str, Any]:
    return {"candle_date_time_utc": iso(r.time)[:19], "opening_price": r.open, "high_price": r.high, "low_price": r.low,
            "trade_price": r.close, "timestamp": r.time, "candle_acc_trade_price": r.value, "candle_acc_trade_volume": r.volume,
            "unit": 60}  # fmt: skip


def _upbit_ticker(c: Coin) -> dict[str, Any]:
    return {"market": c.id, "opening_price": c.open, "high_price": c.high, "low_price": c.low, "trade_price": c.last,
            "acc_trade_price_24h": c.value, "acc_trade_volume_24h": c.volume, "trade_timestamp": 1}  # fmt: skip


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


def _hyper_meta(w: World) -> list[Any]:
    tokens = [{"name": "USDC", "szDecimals": 8, "weiDecimals": 8, "index": 0, "tokenId": "0x0", "isCanonical": True}]
    tokens += [{"name": c.base, "szDecimals": 4, "weiDecimals": 8, "index": n, "tokenId": f"0x{n}", "isCanonical": True}
               for n, c in enumerate(w.coins, start=1)]  # fmt: skip
    universe = [{"name": c.id, "tokens": [n, 0], "index": n, "isCanonical": True} for n, c in enumerate(w.coins, start=1)]
    figures = [{"dayNtlVlm": str(c.value), "markPx": str(c.last), "midPx": str(c.last), "prevDayPx": str(c.open), "coin": c.id}
               for c in w.coins]  # fmt: skip
    return [{"tokens": tokens, "universe": universe}, figures]


SHAPES: Final = (
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
        id="coinbaseexchange", quote="USD", name="{B}-{Q}", symbol="pair", include=True,
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
        markets=[Route("/api/v3/exchangeInfo", lambda w: {"timezone": "CST", "symbols": [_mexc_symbol(c) for c in w.coins]})],
        tickers=[Route("/api/v3/ticker/24hr", lambda w: [day(c) | {"quoteVolume": None} for c in w.coins])],
        candles=[Route("/api/v3/klines", lambda w, pair, rows: rows)],
        row=lambda r: kline(r)[:8], since=Param("startTime"), until=Param("endTime", exclusive=True), page=500, default=500, fills=True,
    ),
    Shape(
        id="bitfinex", quote="USD", name="t{B}{Q}", symbol="pair",
        markets=[Route("/v2/conf/pub:info:pair,pub:info:pair:futures,pub:list:pair:securities,pub:list:pair:margin", lambda w: [
            [[c.id[1:], [None, None, None, "0.02", "5000.0", None, None, None, 0.2, 0.1, None, None]] for c in w.coins], [], [], []])],
        tickers=[Route("/v2/tickers", lambda w: [[c.id, c.last, 1, c.last, 1, 0.1, 0.01, c.last, c.volume, c.high, c.low] for c in w.coins])],
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
        id="gemini", quote="USD", name="{b}{q}", symbol="pair", include=True,
        markets=[Route("/v1/symbols", lambda w: [c.id for c in w.coins])],
        tickers=[Route("/v1/pricefeed", lambda w: [{"pair": c.id.upper(), "price": str(c.last), "percentChange24h": "0"} for c in w.coins])],
        candles=[Route("/v2/candles/{pair}/1hr", lambda w, pair, rows: rows)],
        row=lambda r: [r.time, r.open, r.high, r.low, r.close, r.volume], page=1440, default=1440, keeps=1440, newest_first=True, fills=True,
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
    Shape(
        id="phemex", name="s{B}{Q}",
        markets=[
            Route("/public/products", lambda w: {"code": 0, "msg": "", "data": {
                "currencies": [{"currency": name, "code": n, "valueScale": 8, "status": "Listed"}
                               for n, name in enumerate([w.quote, *(c.base for c in w.coins)])],
                "products": [_phemex(c) for c in w.coins], "perpProductsV2": [], "riskLimits": [], "riskLimitsV2": []}}),
            Route("/v1/exchange/public/products", lambda w: {"code": 0, "msg": "", "data": []}),
        ],
        tickers=[Route("/v1/md/spot/ticker/24hr/all", lambda w: {"error": None, "id": 0, "result": [
            {"symbol": c.id, "lastEp": _ev(c.last), "highEp": _ev(c.high), "lowEp": _ev(c.low), "openEp": _ev(c.open),
             "turnoverEv": _ev(c.value), "volumeEv": _ev(c.volume), "timestamp": w.now * 1_000_000} for c in w.coins]})],
        candles=[Route("/exchange/public/md/v2/kline", lambda w, pair, rows: {"code": 0, "msg": "OK", "data": {"total": -1, "rows": rows}})],
        row=lambda r: [r.time // 1000, 3600, _ev(r.open), _ev(r.open), _ev(r.high), _ev(r.low), _ev(r.close), _ev(r.volume), _ev(r.value)],
        page=1000, keeps=1000, fills=True, newest_first=True, refuses=_phemex_limit,
    ),
    Shape(
        id="woo", name="SPOT_{B}_{Q}", include=True,
        time=Route("/v3/public/systemInfo", lambda w: {"success": True, "data": {"status": 0}, "timestamp": w.now}),
        markets=[Route("/v3/public/instruments", lambda w: {"success": True, "data": {"rows": [
            {"symbol": c.id, "status": "TRADING", "baseAsset": c.base, "quoteAsset": c.quote, "quoteMin": "0", "quoteMax": "100000",
             "quoteTick": "0.01", "baseMin": "0.005", "baseMax": "5000", "baseTick": "0.0001", "minNotional": "1"} for c in w.coins]}})],
        tickers=[Route("/v3/public/futures", lambda w: {"success": True, "data": {"rows": [
            {"symbol": f"PERP_{c.base}_{c.quote}", "24hClose": str(c.last), "24hVolume": "1", "24hAmount": str(1 / c.value)}
            for c in w.coins]}, "timestamp": w.now})],
        candles=[Route("/v3/public/klineHistory", lambda w, pair, rows: {"success": True, "data": {"rows": rows}, "timestamp": w.now})],
        row=lambda r: {"open": str(r.open), "close": str(r.close), "high": str(r.high), "low": str(r.low), "volume": str(r.volume),
                       "amount": str(r.value), "type": "1h", "startTimestamp": r.time, "endTimestamp": r.time + H},
        since=Param("after", exclusive=True), until=Param("before"), page=1000, fills=True,
    ),
    Shape(
        id="whitebit", name="{B}_{Q}", symbol="market",
        time=Route("/api/v4/public/time", lambda w: {"time": w.now // 1000}),
        markets=[Route("/api/v4/public/markets", lambda w: [
            {"name": c.id, "stock": c.base, "money": c.quote, "stockPrec": "3", "moneyPrec": "2", "feePrec": "4", "makerFee": "0.1",
             "takerFee": "0.1", "minAmount": "0.001", "minTotal": "0.001", "tradesEnabled": True, "isCollateral": False, "type": "spot",
             "maxTotal": "1000"} for c in w.coins])],
        tickers=[Route("/api/v4/public/ticker", lambda w: {
            c.id: {"last_price": str(c.last), "quote_volume": str(c.value), "base_volume": str(c.volume), "isFrozen": False, "change": "2"}
            for c in w.coins})],
        candles=[Route("/api/v1/public/kline", lambda w, pair, rows: {"success": True, "message": "", "result": rows})],
        row=lambda r: [r.time // 1000, str(r.open), str(r.close), str(r.high), str(r.low), str(r.volume), str(r.value)],
        since=Param("start", "s"), until=Param("end", "s"), page=1440, fills=True,
    ),
    Shape(
        id="lbank", name="{b}_{q}",
        time=Route("/v2/timestamp.do", lambda w: {"result": "true", "data": w.now, "error_code": 0, "ts": w.now}),
        markets=[
            Route("/v2/accuracy.do", lambda w: {"result": "true", "error_code": 0, "ts": w.now, "data": [
                {"symbol": c.id, "quantityAccuracy": "4", "minTranQua": "0.0001", "priceAccuracy": "2"} for c in w.coins]}),
            Route("/cfd/openApi/v1/pub/instrument", lambda w: {"data": [], "error_code": 0, "result": "true", "success": True}),
        ],
        tickers=[Route("/v2/ticker/24hr.do", lambda w: {"result": "true", "error_code": 0, "ts": w.now, "data": [
            {"symbol": c.id, "ticker": {"high": str(c.high), "vol": str(c.volume), "low": str(c.low), "change": "0.5",
                                        "turnover": str(c.value), "latest": str(c.last)}, "timestamp": w.now} for c in w.coins]})],
        candles=[Route("/v2/kline.do", lambda w, pair, rows: {"result": "true", "error_code": 0, "ts": w.now, "data": rows})],
        row=lambda r: [r.time // 1000, r.open, r.high, r.low, r.close, r.volume], since=Param("time", "s"), limit="size", page=2000, fills=True,
    ),
    Shape(
        id="poloniex", name="{B}_{Q}", symbol="pair",
        time=Route("/timestamp", lambda w: {"serverTime": w.now}),
        markets=[
            Route("/markets", lambda w: [
                {"symbol": c.id, "baseCurrencyName": c.base, "quoteCurrencyName": c.quote, "displayName": f"{c.base}/{c.quote}",
                 "state": "NORMAL", "visibleStartTime": 1, "tradableStartTime": 1,
                 "symbolTradeLimit": {"symbol": c.id, "priceScale": 10, "quantityScale": 0, "amountScale": 8, "minQuantity": "100",
                                      "minAmount": "0.00001"}} for c in w.coins]),
            Route("/v3/market/allInstruments", lambda w: {"code": "200", "msg": "Success", "data": []}),
        ],
        tickers=[Route("/markets/ticker24h", lambda w: [
            {"symbol": c.id, "open": str(c.open), "low": str(c.low), "high": str(c.high), "close": str(c.last), "quantity": str(c.volume),
             "amount": str(c.value), "ts": w.now} for c in w.coins])],
        candles=[Route("/markets/{pair}/candles", lambda w, pair, rows: rows)],
        row=lambda r: [str(r.low), str(r.high), str(r.open), str(r.close), str(r.value), str(r.volume), "0", "0", 33, 0, str(r.close),
                       "HOUR_1", r.time, r.time + H - 1],
        since=Param("startTime"), until=Param("endTime"), page=500, fills=True,
    ),
    *(Shape(
        id=name, symbol="pair",
        markets=[Route("/api/3/public/symbol", lambda w: {
            c.id: {"type": "spot", "base_currency": c.base, "quote_currency": c.quote, "quantity_increment": "1", "tick_size": "0.0000001",
                   "take_rate": "0.0025", "make_rate": "0.001", "fee_currency": c.quote, "margin_trading": False} for c in w.coins})],
        tickers=[Route("/api/3/public/ticker", lambda w: {
            c.id: {"ask": str(c.last), "bid": str(c.last), "last": str(c.last), "low": str(c.low), "high": str(c.high),
                   "open": str(c.open), "volume": str(c.volume), "volume_quote": str(c.value), "timestamp": iso(w.now)} for c in w.coins})],
        candles=[Route("/api/3/public/candles/{pair}", lambda w, pair, rows: rows)],
        row=lambda r: {"timestamp": iso(r.time), "open": str(r.open), "close": str(r.close), "min": str(r.low), "max": str(r.high),
                       "volume": str(r.volume), "volume_quote": str(r.value)},
        since=Param("from", "iso"), until=Param("till", "iso"), page=1000, newest_first=True,
    ) for name in ("hitbtc", "bequant", "fmfwio")),
    Shape(
        id="bitvavo", quote="EUR", name="{B}-{Q}", symbol="pair",
        time=Route("/v2/time", lambda w: {"time": w.now}),
        markets=[Route("/v2/markets", lambda w: [
            {"market": c.id, "status": "trading", "base": c.base, "quote": c.quote, "tickSize": "1.00", "minOrderInBaseAsset": "0.001",
             "minOrderInQuoteAsset": "5.00", "quantityDecimals": "8", "notionalDecimals": "2", "orderTypes": ["market"]} for c in w.coins])],
        tickers=[Route("/v2/ticker/24h", lambda w: [
            {"market": c.id, "open": str(c.open), "high": str(c.high), "low": str(c.low), "last": str(c.last), "volume": str(c.volume),
             "volumeQuote": str(c.value), "timestamp": w.now} for c in w.coins])],
        candles=[Route("/v2/{pair}/candles", lambda w, pair, rows: rows)],
        row=lambda r: [r.time, *ohlcv(r)], since=Param("start"), until=Param("end"), page=1440, newest=True, newest_first=True,
    ),
    Shape(
        id="upbit", quote="KRW", name="{Q}-{B}", symbol="market",
        markets=[Route("/v1/market/all", lambda w: [{"market": c.id, "korean_name": "x", "english_name": c.base} for c in w.coins])],
        tickers=[Route("/v1/ticker/all", lambda w: [_upbit_ticker(c) for c in w.coins])],
        candles=[Route("/v1/candles/minutes/60", lambda w, pair, rows: [_upbit_row(pair, r) for r in rows])],
        row=_upbit_candle, until=Param("to", "iso", exclusive=True), limit="count", page=200, newest_first=True,
    ),
    Shape(
        id="bithumb", quote="KRW", name="{Q}-{B}", symbol="market",
        markets=[Route("/v1/market/all", lambda w: [
            {"market": c.id, "korean_name": "x", "english_name": c.base, "market_warning": "NONE"} for c in w.coins])],
        tickers=[Route("/v1/ticker", lambda w: [_upbit_ticker(c) for c in w.coins])],
        candles=[Route("/v1/candles/minutes/60", lambda w, pair, rows: [_upbit_row(pair, r) for r in rows])],
        row=_upbit_candle, limit="count", page=200, keeps=200, newest_first=True,
    ),
    Shape(
        id="bitbank", quote="JPY", name="{b}_{q}", symbol="pair", include=True, window=_bitbank_day,
        markets=[Route("/spot/pairs", lambda w: {"success": 1, "data": {"pairs": [
            {"name": c.id, "base_asset": c.base.lower(), "quote_asset": c.quote.lower(), "maker_fee_rate_quote": "0",
             "taker_fee_rate_quote": "0.001", "unit_amount": "0.0001", "limit_max_amount": "1000", "price_digits": 0, "amount_digits": 4,
             "is_enabled": True} for c in w.coins]}})],
        candles=[Route("/{pair}/candlestick/1hour/{day}", lambda w, pair, rows: {"success": 1, "data": {
            "candlestick": [{"type": "1hour", "ohlcv": rows}], "timestamp": w.now}})],
        row=lambda r: [*ohlcv(r), r.time], page=24, default=24, fills=True, months=1,
    ),
    Shape(
        id="bullish", quote="USDC", symbol="pair", include=True,
        time=Route("/trading-api/v1/time", lambda w: {"timestamp": str(w.now), "datetime": iso(w.now)}),
        markets=[Route("/trading-api/v1/markets", lambda w: [
            {"marketId": "1", "symbol": c.id, "quoteSymbol": c.quote, "baseSymbol": c.base, "quotePrecision": "4", "basePrecision": "8",
             "pricePrecision": "4", "quantityPrecision": "8", "costPrecision": "4", "minQuantityLimit": "0.0005", "makerFee": "0",
             "takerFee": "2", "spotTradingEnabled": True, "marginTradingEnabled": False, "marketEnabled": True, "marketType": "SPOT"}
            for c in w.coins])],
        candles=[Route("/trading-api/v1/markets/{pair}/candle", lambda w, pair, rows: rows)],
        row=lambda r: {"open": str(r.open), "high": str(r.high), "low": str(r.low), "close": str(r.close), "volume": str(r.volume),
                       "createdAtTimestamp": str(r.time), "createdAtDatetime": iso(r.time), "publishedAtTimestamp": str(r.time)},
        since=Param("createdAtDatetime[gte]", "iso"), until=Param("createdAtDatetime[lte]", "iso"), limit="_pageSize", page=100,
        newest=True, newest_first=True, fills=True,
    ),
    Shape(
        id="btcmarkets", quote="AUD", name="{B}-{Q}", symbol="pair", include=True,
        time=Route("/v3/time", lambda w: {"timestamp": iso(w.now)}),
        markets=[Route("/v3/markets", lambda w: [
            {"marketId": c.id, "baseAssetName": c.base, "quoteAssetName": c.quote, "minOrderAmount": "0.00006", "maxOrderAmount": "1000",
             "amountDecimals": "8", "priceDecimals": "2", "status": "Online"} for c in w.coins])],
        candles=[Route("/v3/markets/{pair}/candles", lambda w, pair, rows: rows)],
        row=lambda r: [iso(r.time), *ohlcv(r)], since=Param("from", "iso"), until=Param("to", "iso"), page=200, default=10,
        newest_first=True,
    ),
    Shape(
        id="tokocrypto", name="{B}_{Q}",
        time=Route("/open/v1/common/time", lambda w: {"code": 0, "msg": "Success", "timestamp": w.now}),
        markets=[Route("/open/v1/common/symbols", lambda w: {"code": 0, "data": {"list": [_toko_symbol(c) for c in w.coins]}})],
        tickers=[Route("/api/v3/ticker/24hr", lambda w: [day(c) | {"symbol": c.base + c.quote} for c in w.coins])],
        candles=[Route("/api/v3/klines", lambda w, pair, rows: rows), Route("/open/v1/market/klines", lambda w, pair, rows: {
            "code": 0, "msg": "Success", "data": rows, "timestamp": w.now})],
        row=kline, since=Param("startTime"), until=Param("endTime"), page=1000, default=500, fills=True,
    ),
    Shape(
        id="digifinex", name="{b}_{q}",
        time=Route("/v3/time", lambda w: {"server_time": w.now // 1000, "code": 0}),
        markets=[
            Route("/v3/trades/symbols", lambda w: {"code": 0, "symbol_list": [
                {"order_types": ["LIMIT"], "quote_asset": c.quote, "minimum_value": 2, "amount_precision": 4, "status": "TRADING",
                 "minimum_amount": 0.0001, "symbol": c.id.upper(), "is_allow": 1, "zone": "MAIN", "base_asset": c.base, "price_precision": 2}
                for c in w.coins]}),
            Route("/v3/markets", lambda w: {"code": 0, "date": 1, "data": [
                {"volume_precision": 4, "price_precision": 2, "market": c.id, "min_amount": 2, "min_volume": 0.0001} for c in w.coins]}),
            Route("/swap/v2/public/instruments", lambda w: {"code": 0, "data": []}),
        ],
        tickers=[Route("/v3/ticker", lambda w: {"code": 0, "date": w.now // 1000, "ticker": [
            {"symbol": c.id, "last": c.last, "high": c.high, "low": c.low, "vol": c.volume, "base_vol": c.value, "change": 1, "buy": c.last,
             "sell": c.last} for c in w.coins]})],
        candles=[Route("/v3/kline", lambda w, pair, rows: {"code": 0, "data": rows})],
        row=lambda r: [r.time // 1000, r.volume, r.close, r.high, r.low, r.open],
        since=Param("start_time", "s"), until=Param("end_time", "s", exclusive=True), page=500, default=200, fills=True,
    ),
    Shape(
        id="hyperliquid", quote="USDC", name="{B}/USDC", symbol="coin",
        time=Route("/info", lambda w: {"time": w.now}, {"type": "exchangeStatus"}),
        markets=[Route("/info", _hyper_meta, {"type": "spotMetaAndAssetCtxs"})],
        candles=[Route("/info", lambda w, pair, rows: rows, {"type": "candleSnapshot"})],
        row=lambda r: {"t": r.time, "T": r.time + H - 1, "s": "X", "i": "1h", "o": str(r.open), "c": str(r.close), "h": str(r.high),
                       "l": str(r.low), "v": str(r.volume), "n": 46},
        since=Param("startTime"), until=Param("endTime"), page=5000, default=5000, keeps=5000,
    ),
)  # fmt: skip
