"""Further exchanges, a description of each; see `shapes`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from tests.exchanges.rows import day, iso, kline, ohlcv
from tests.exchanges.server import Coin, H, Param, Route, Row, Shape, World


def _bitbank_day(asked: Mapping[str, str]) -> tuple[int, int]:
    start = int(datetime.strptime(asked["day"], "%Y%m%d").replace(tzinfo=UTC).timestamp() * 1000)
    return start, start + 24 * H - 1


def _toko_symbol(coin: Coin) -> dict[str, Any]:
    return {"type": 1, "symbol": f"{coin.base}_{coin.quote}", "baseAsset": coin.base, "basePrecision": 8,
            "quoteAsset": coin.quote, "quotePrecision": 8,
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


def _hyper_meta(w: World) -> list[Any]:
    tokens = [{"name": "USDC", "szDecimals": 8, "weiDecimals": 8, "index": 0, "tokenId": "0x0", "isCanonical": True}]
    tokens += [{"name": c.base, "szDecimals": 4, "weiDecimals": 8, "index": n, "tokenId": f"0x{n}", "isCanonical": True}
               for n, c in enumerate(w.coins, start=1)]  # fmt: skip
    universe = [{"name": c.id, "tokens": [n, 0], "index": n - 1, "isCanonical": True} for n, c in enumerate(w.coins, start=1)]
    figures = [{"dayNtlVlm": str(c.value), "markPx": str(c.last), "midPx": str(c.last), "prevDayPx": str(c.open), "coin": c.id}
               for c in w.coins]  # fmt: skip
    return [{"tokens": tokens, "universe": universe}, figures]


OTHERS: Final = (
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
        candles=[Route("/exchange/public/md/v2/kline", lambda w, pair, rows: {
            "code": 0, "msg": "OK", "data": {"total": -1, "rows": rows}})],
        row=lambda r: [r.time // 1000, 3600, _ev(r.open), _ev(r.open), _ev(r.high), _ev(r.low), _ev(r.close), _ev(r.volume), _ev(r.value)],
        page=1000, keeps=1000, fills=True, newest_first=True, refuses=_phemex_limit,
    ),
    Shape(
        id="woo", name="SPOT_{B}_{Q}", volumes=False,
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
        row=lambda r: [r.time // 1000, r.open, r.high, r.low, r.close, r.volume], since=Param("time", "s"), limit="size", page=2000,
        fills=True,
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
             "minOrderInQuoteAsset": "5.00", "quantityDecimals": "8", "notionalDecimals": "2",
             "orderTypes": ["market"]} for c in w.coins])],
        tickers=[Route("/v2/ticker/24h", lambda w: [
            {"market": c.id, "open": str(c.open), "high": str(c.high), "low": str(c.low), "last": str(c.last), "volume": str(c.volume),
             "volumeQuote": str(c.value), "timestamp": w.now} for c in w.coins])],
        candles=[Route("/v2/{pair}/candles", lambda w, pair, rows: rows)],
        row=lambda r: [r.time, *ohlcv(r)], since=Param("start"), until=Param("end", exclusive=True), page=1440,
        newest=True, newest_first=True,
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
        id="bitbank", quote="JPY", name="{b}_{q}", symbol="pair", volumes=False, window=_bitbank_day,
        markets=[Route("/spot/pairs", lambda w: {"success": 1, "data": {"pairs": [
            {"name": c.id, "base_asset": c.base.lower(), "quote_asset": c.quote.lower(), "maker_fee_rate_quote": "0",
             "taker_fee_rate_quote": "0.001", "unit_amount": "0.0001", "limit_max_amount": "1000", "price_digits": 0, "amount_digits": 4,
             "is_enabled": True} for c in w.coins]}})],
        candles=[Route("/{pair}/candlestick/1hour/{day}", lambda w, pair, rows: {"success": 1, "data": {
            "candlestick": [{"type": "1hour", "ohlcv": rows}], "timestamp": w.now}})],
        row=lambda r: [*ohlcv(r), r.time], page=24, default=24, fills=True, months=1,
    ),
    Shape(
        id="bullish", quote="USDC", symbol="pair", volumes=False,
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
        id="btcmarkets", quote="AUD", name="{B}-{Q}", symbol="pair", volumes=False,
        time=Route("/v3/time", lambda w: {"timestamp": iso(w.now)}),
        markets=[Route("/v3/markets", lambda w: [
            {"marketId": c.id, "baseAssetName": c.base, "quoteAssetName": c.quote, "minOrderAmount": "0.00006", "maxOrderAmount": "1000",
             "amountDecimals": "8", "priceDecimals": "2", "status": "Online"} for c in w.coins])],
        candles=[Route("/v3/markets/{pair}/candles", lambda w, pair, rows: rows)],
        row=lambda r: [iso(r.time), *ohlcv(r)], since=Param("from", "iso"), until=Param("to", "iso"), page=200, default=10,
        newest_first=True,
    ),
    Shape(
        id="tokocrypto", name="{B}{Q}", volumes=False,
        time=Route("/open/v1/common/time", lambda w: {"code": 0, "msg": "Success", "timestamp": w.now}),
        markets=[Route("/open/v1/common/symbols", lambda w: {"code": 0, "data": {"list": [_toko_symbol(c) for c in w.coins]}})],
        tickers=[Route("/api/v3/ticker/24hr", lambda w: [day(c) for c in w.coins])],
        candles=[Route("/api/v3/klines", lambda w, pair, rows: rows), Route("/open/v1/market/klines", lambda w, pair, rows: {
            "code": 0, "msg": "Success", "data": rows, "timestamp": w.now})],
        row=kline, since=Param("startTime"), until=Param("endTime"), page=1000, default=500, fills=True,
    ),
    Shape(
        id="digifinex", name="{B}_{Q}",
        time=Route("/v3/time", lambda w: {"server_time": w.now // 1000, "code": 0}),
        markets=[
            Route("/v3/trades/symbols", lambda w: {"code": 0, "symbol_list": [
                {"order_types": ["LIMIT"], "quote_asset": c.quote, "minimum_value": 2, "amount_precision": 4, "status": "TRADING",
                 "minimum_amount": 0.0001, "symbol": c.id, "is_allow": 1, "zone": "MAIN", "base_asset": c.base, "price_precision": 2}
                for c in w.coins]}),
            Route("/v3/markets", lambda w: {"code": 0, "date": 1, "data": [
                {"volume_precision": 4, "price_precision": 2, "market": c.id, "min_amount": 2, "min_volume": 0.0001} for c in w.coins]}),
            Route("/swap/v2/public/instruments", lambda w: {"code": 0, "data": []}),
        ],
        tickers=[Route("/v3/ticker", lambda w: {"code": 0, "date": w.now // 1000, "ticker": [
            {"symbol": c.id.lower(), "last": c.last, "high": c.high, "low": c.low, "vol": c.volume, "base_vol": c.value, "change": 1,
             "buy": c.last,
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
