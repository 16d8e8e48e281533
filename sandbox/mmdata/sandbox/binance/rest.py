"""REST of Binance spot, as far as a recorder of public data asks: ping, time, exchangeInfo, depth, trades.

Source: binance-spot-api-docs ``rest-api.md``, ``errors.md``, ``filters.md`` (July 2026).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import ROUND_DOWN, Decimal
from typing import Protocol
from urllib.parse import parse_qs, urlsplit

from mmdata.sandbox.binance.messages import stamp
from mmdata.sandbox.instruments import Instrument, fixed8
from mmdata.sandbox.tape import Tape, TapeAggregate, TapeTrade
from mmdata.sandbox.wire import NS_PER_MS, NS_PER_S, Answer, rows, whole_ns

WEIGHT_PER_MINUTE = 6000

# Largest limit that costs this weight.
_DEPTH_WEIGHTS = ((100, 5), (500, 25), (1000, 50), (5000, 250))
MAX_DEPTH = 5000

_MAX_TRADES = 1000
_TRADES_WEIGHT = 25
_AGGREGATES_WEIGHT = 4

_FOREVER_NS = 2**63 - 1
_E8 = Decimal("0.00000001")

_RATE_LIMITS = (
    '[{"rateLimitType":"REQUEST_WEIGHT","interval":"MINUTE","intervalNum":1,"limit":6000},'
    '{"rateLimitType":"ORDERS","interval":"SECOND","intervalNum":10,"limit":50},'
    '{"rateLimitType":"ORDERS","interval":"DAY","intervalNum":1,"limit":160000},'
    '{"rateLimitType":"RAW_REQUESTS","interval":"MINUTE","intervalNum":5,"limit":300000}]'
)

_ORDER_TYPES = (
    '["LIMIT","LIMIT_MAKER","MARKET","STOP_LOSS","STOP_LOSS_LIMIT","TAKE_PROFIT","TAKE_PROFIT_LIMIT"]'
)


class BinanceBooks(Protocol):
    """What REST tells about: live markets, or a capture."""

    def symbol_rows(self) -> Mapping[str, str]:
        """Return symbol -> its JSON object in exchangeInfo."""

    def depth(self, symbol: str, limit: int) -> str | None:
        """Return the body of a depth answer, None when there is none to give."""

    def trades(self, symbol: str) -> Tape[TapeTrade]:
        """Return what the symbol traded."""

    def aggregates(self, symbol: str) -> Tape[TapeAggregate]:
        """Return what the symbol traded, aggregated."""


class _RefusalError(Exception):
    """Not an error of ours: a venue's answer on its way out."""

    def __init__(self, code: int, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.answer = Answer(status, json.dumps({"code": code, "msg": text}, separators=(",", ":")))


class BinanceRest:
    """Answers for one client address, whose weight it counts per minute of the clock."""

    def __init__(self, books: BinanceBooks) -> None:
        self._books = books
        self._minute = 0
        self._used = 0
        self._calls: dict[str, Callable[[dict[str, str], int, bool], str]] = {
            "/api/v3/ping": self._ping,
            "/api/v3/time": self._time,
            "/api/v3/exchangeInfo": self._exchange_info,
            "/api/v3/depth": self._depth,
            "/api/v3/trades": self._trades,
            "/api/v3/historicalTrades": self._historical_trades,
            "/api/v3/aggTrades": self._aggregates,
        }

    def answer(self, target: str, headers: Mapping[str, str], now_ns: int) -> Answer:
        """Return the answer to ``GET target``; weight used so far is in its headers."""
        parts = urlsplit(target)
        call = self._calls.get(parts.path)
        if call is None:
            return Answer(404, '{"code":-1000,"msg":"No such path."}')
        self._count(0, now_ns)
        query = {name: values[-1] for name, values in parse_qs(parts.query, True).items()}
        micro = headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"
        try:
            answer = Answer(200, call(query, now_ns, micro))
        except _RefusalError as refused:
            answer = refused.answer
        if self._used > WEIGHT_PER_MINUTE:
            answer = self._too_many(now_ns)
        used = {"X-MBX-USED-WEIGHT": str(self._used), "X-MBX-USED-WEIGHT-1M": str(self._used)}
        return answer._replace(headers={**answer.headers, **used})

    def _count(self, weight: int, now_ns: int) -> None:
        minute = now_ns // (60 * NS_PER_S)
        if minute != self._minute:
            self._minute, self._used = minute, 0
        self._used += weight

    def _too_many(self, now_ns: int) -> Answer:
        text = (
            f"Too much request weight used; current limit is {WEIGHT_PER_MINUTE} request weight per "
            "1 MINUTE. Please use WebSocket Streams for live updates to avoid polling the API."
        )
        wait_s = 60 - now_ns // NS_PER_S % 60
        return _RefusalError(-1003, text, 429).answer._replace(headers={"Retry-After": str(wait_s)})

    def _ping(self, query: dict[str, str], now_ns: int, micro: bool) -> str:
        self._count(1, now_ns)
        return "{}"

    def _time(self, query: dict[str, str], now_ns: int, micro: bool) -> str:
        self._count(1, now_ns)
        return f'{{"serverTime":{stamp(now_ns, micro)}}}'

    def _exchange_info(self, query: dict[str, str], now_ns: int, micro: bool) -> str:
        self._count(20, now_ns)
        known = self._books.symbol_rows()
        wanted = _wanted_symbols(query)
        for symbol in wanted or ():
            if symbol not in known:
                raise _RefusalError(-1121, "Invalid symbol.")
        chosen = [row for symbol, row in known.items() if wanted is None or symbol in wanted]
        return (
            f'{{"timezone":"UTC","serverTime":{stamp(now_ns, micro)},"rateLimits":{_RATE_LIMITS},'
            f'"exchangeFilters":[],"symbols":{rows(chosen)}}}'
        )

    def _depth(self, query: dict[str, str], now_ns: int, micro: bool) -> str:
        symbol, limit = _symbol(query), _limit(query, 100, MAX_DEPTH)
        self._count(next(weight for most, weight in _DEPTH_WEIGHTS if limit <= most), now_ns)
        self._require_known(symbol)
        body = self._books.depth(symbol, limit)
        if body is None:
            raise _RefusalError(-1000, f"the capture holds no snapshot of {symbol}", 500)
        return body

    def _trades(self, query: dict[str, str], now_ns: int, micro: bool) -> str:
        symbol, limit = _symbol(query), _limit(query, 500, _MAX_TRADES)
        self._count(_TRADES_WEIGHT, now_ns)
        self._require_known(symbol)
        return rows(_trade(trade, micro) for trade in self._books.trades(symbol).newest(limit))

    def _historical_trades(self, query: dict[str, str], now_ns: int, micro: bool) -> str:
        symbol, limit = _symbol(query), _limit(query, 500, _MAX_TRADES)
        first_id = _number(query, "fromId")
        self._count(_TRADES_WEIGHT, now_ns)
        self._require_known(symbol)
        tape = self._books.trades(symbol)
        found = tape.newest(limit) if first_id is None else tape.from_id(first_id, limit)
        return rows(_trade(trade, micro) for trade in found)

    def _aggregates(self, query: dict[str, str], now_ns: int, micro: bool) -> str:
        symbol, limit = _symbol(query), _limit(query, 500, _MAX_TRADES)
        first_id, start, end = (_number(query, name) for name in ("fromId", "startTime", "endTime"))
        self._count(_AGGREGATES_WEIGHT, now_ns)
        self._require_known(symbol)
        tape = self._books.aggregates(symbol)
        if first_id is not None:
            if start is not None or end is not None:
                raise _RefusalError(-1128, "Combination of optional parameters invalid.")
            found = tape.from_id(first_id, limit)
        elif start is not None:
            end_ns = _FOREVER_NS if end is None else whole_ns(end)[1]
            found = tape.between(whole_ns(start)[0], end_ns, limit)
        else:
            found = tape.newest(limit) if end is None else tape.until(whole_ns(end)[1], limit)
        return rows(_aggregate(entry, micro) for entry in found)

    def _require_known(self, symbol: str) -> None:
        if symbol not in self._books.symbol_rows():
            raise _RefusalError(-1121, "Invalid symbol.")


def _trade(trade: TapeTrade, micro: bool) -> str:
    quote = (Decimal(trade.price) * Decimal(trade.size)).quantize(_E8, ROUND_DOWN)
    return (
        f'{{"id":{trade.trade_id},"price":"{trade.price}","qty":"{trade.size}","quoteQty":"{quote:f}",'
        f'"time":{stamp(trade.ts_event, micro)},"isBuyerMaker":{_bool(trade.taker == "sell")},'
        f'"isBestMatch":true}}'
    )


def _aggregate(entry: TapeAggregate, micro: bool) -> str:
    return (
        f'{{"a":{entry.trade_id},"p":"{entry.price}","q":"{entry.size}","f":{entry.first_trade_id},'
        f'"l":{entry.last_trade_id},"T":{stamp(entry.ts_event, micro)},'
        f'"m":{_bool(entry.taker == "sell")},"M":true}}'
    )


def _bool(value: bool) -> str:
    return "true" if value else "false"


def failure(status: int, retry_after_s: int | None, now_ns: int) -> Answer:
    """Return an error of the server's: 429 and 418 (banned) with ``Retry-After``, 403, 5xx."""
    match status:
        case 418:
            until_ms = now_ns // NS_PER_MS + 1000 * (retry_after_s or 120)
            text = (
                f"Way too much request weight used; IP banned until {until_ms}. Please use WebSocket Streams."
            )
            code = -1003
        case 429:
            code, text = -1003, "Too much request weight used; please use WebSocket Streams."
        case 504:
            code, text = -1007, "Timeout waiting for response from backend server."
        case _:
            code, text = -1001, "Internal error; unable to process your request. Please try again."
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return _RefusalError(code, text, status).answer._replace(headers=headers)


def symbol_row(instrument: Instrument) -> str:
    """Return the JSON object that exchangeInfo holds for an instrument."""
    tick = fixed8(1, instrument.tick_e8)
    lot = fixed8(1, instrument.lot_e8)
    most = fixed8(1, 9_000 * 10**8)
    filters = (
        f'[{{"filterType":"PRICE_FILTER","minPrice":"{tick}","maxPrice":"1000000.00000000",'
        f'"tickSize":"{tick}"}},'
        f'{{"filterType":"LOT_SIZE","minQty":"{lot}","maxQty":"{most}","stepSize":"{lot}"}},'
        f'{{"filterType":"ICEBERG_PARTS","limit":10}},'
        f'{{"filterType":"MARKET_LOT_SIZE","minQty":"0.00000000","maxQty":"{most}",'
        f'"stepSize":"0.00000000"}},'
        f'{{"filterType":"TRAILING_DELTA","minTrailingAboveDelta":10,"maxTrailingAboveDelta":2000,'
        f'"minTrailingBelowDelta":10,"maxTrailingBelowDelta":2000}},'
        f'{{"filterType":"PERCENT_PRICE_BY_SIDE","bidMultiplierUp":"5","bidMultiplierDown":"0.2",'
        f'"askMultiplierUp":"5","askMultiplierDown":"0.2","avgPriceMins":5}},'
        f'{{"filterType":"NOTIONAL","minNotional":"5.00000000","applyMinToMarket":true,'
        f'"maxNotional":"9000000.00000000","applyMaxToMarket":false,"avgPriceMins":5}},'
        f'{{"filterType":"MAX_NUM_ORDERS","maxNumOrders":200}},'
        f'{{"filterType":"MAX_NUM_ALGO_ORDERS","maxNumAlgoOrders":5}}]'
    )
    return (
        f'{{"symbol":"{instrument.symbol}","status":"TRADING","baseAsset":"{instrument.base}",'
        f'"baseAssetPrecision":8,"quoteAsset":"{instrument.quote}","quotePrecision":8,'
        f'"quoteAssetPrecision":8,"baseCommissionPrecision":8,"quoteCommissionPrecision":8,'
        f'"orderTypes":{_ORDER_TYPES},"icebergAllowed":true,"ocoAllowed":true,"otoAllowed":true,'
        f'"quoteOrderQtyMarketAllowed":true,"allowTrailingStop":true,"cancelReplaceAllowed":true,'
        f'"amendAllowed":true,"isSpotTradingAllowed":true,"isMarginTradingAllowed":true,'
        f'"filters":{filters},"permissions":[],"permissionSets":[["SPOT"]],'
        f'"defaultSelfTradePreventionMode":"EXPIRE_MAKER",'
        f'"allowedSelfTradePreventionModes":["EXPIRE_TAKER","EXPIRE_MAKER","EXPIRE_BOTH"]}}'
    )


def _symbol(query: Mapping[str, str]) -> str:
    """Return the symbol of a request that must name one."""
    symbol = query.get("symbol", "")
    if not symbol:
        text = "Mandatory parameter 'symbol' was not sent, was empty/null, or malformed."
        raise _RefusalError(-1102, text)
    _require_legal("symbol", symbol, "^[A-Z0-9-_.]{1,20}$")
    return symbol


def _limit(query: Mapping[str, str], default: int, most: int) -> int:
    """Return the limit of a request; a larger one than there may be is cut down, as on the venue."""
    text = query.get("limit", str(default))
    _require_legal("limit", text, "^[0-9]{1,20}$")
    limit = min(int(text), most)
    if limit == 0:
        raise _RefusalError(-1130, "Data sent for parameter 'limit' is not valid.")
    return limit


def _number(query: Mapping[str, str], name: str) -> int | None:
    if name not in query:
        return None
    _require_legal(name, query[name], "^[0-9]{1,20}$")
    return int(query[name])


def _wanted_symbols(query: dict[str, str]) -> list[str] | None:
    """Return the symbols that exchangeInfo is asked for, None for all."""
    if "symbol" in query and "symbols" in query:
        raise _RefusalError(-1128, "Combination of optional parameters invalid.")
    if "symbol" in query:
        _require_legal("symbol", query["symbol"], "^[A-Z0-9-_.]{1,20}$")
        return [query["symbol"]]
    if "symbols" not in query:
        return None
    try:
        wanted = json.loads(query["symbols"])
    except json.JSONDecodeError:
        wanted = None
    if not isinstance(wanted, list) or not all(isinstance(symbol, str) for symbol in wanted):
        text = "Illegal characters found in parameter 'symbols'; legal range is a JSON array of symbols."
        raise _RefusalError(-1100, text)
    return wanted


def _require_legal(name: str, value: str, pattern: str) -> None:
    if not re.fullmatch(pattern, value):
        text = f"Illegal characters found in parameter '{name}'; legal range is '{pattern}'."
        raise _RefusalError(-1100, text)
