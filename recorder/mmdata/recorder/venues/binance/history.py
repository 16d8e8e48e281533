"""Binance's trades asked for over REST, by id: what fills a hole in the stream.

Source: binance-spot-api-docs ``rest-api.md`` (July 2026): ``aggTrades`` and ``historicalTrades`` begin
at ``fromId``, inclusive, oldest first, at most 1000; neither wants a key.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from mmdata.recorder.records import Id, Trade, wire_time
from mmdata.recorder.venues.stream import Request

OLDEST_FIRST = True
_PAGE = 1000
_AGG_WEIGHT, _TRADE_WEIGHT = 4, 25


class _Agg(msgspec.Struct):
    a: Id
    p: str
    q: str
    f: Id
    l: Id  # noqa: E741 the venue's key
    T: int
    m: bool


class _Trade(msgspec.Struct):
    id: Id
    price: str
    qty: str
    time: int
    isBuyerMaker: bool  # noqa: N815 the venue's key


_aggs = msgspec.json.Decoder(list[_Agg]).decode
_trades = msgspec.json.Decoder(list[_Trade]).decode


def request(symbol: str, kind: str, first_id: int, last_id: int) -> Request:
    """Return the request for the page of trades that begins at ``first_id``."""
    limit = min(_PAGE, last_id - first_id + 1)
    call, weight = ("aggTrades", _AGG_WEIGHT) if kind == "agg" else ("historicalTrades", _TRADE_WEIGHT)
    path = f"/api/v3/{call}?symbol={quote(symbol)}&fromId={first_id}&limit={limit}"
    return Request("backfill", path, (symbol,), weight)


def decode(body: bytes, symbol: str, kind: str) -> list[Trade]:
    """Return the trades of an answer. msgspec.MsgspecError: it cannot be decoded."""
    if kind == "agg":
        return [
            _trade(symbol, kind, agg.T, (agg.a, agg.f, agg.l), agg.p, agg.q, buyer_is_maker=agg.m)
            for agg in _aggs(body)
        ]
    return [
        _trade(
            *(symbol, kind, trade.time, (trade.id, trade.id, trade.id), trade.price, trade.qty),
            buyer_is_maker=trade.isBuyerMaker,
        )
        for trade in _trades(body)
    ]


def _trade(
    symbol: str,
    kind: str,
    time: int,
    ids: tuple[int, int, int],
    price: str,
    size: str,
    *,
    buyer_is_maker: bool,
) -> Trade:
    """Return a trade; ``ids`` are its own, and those of its first and last fill."""
    trade_id, first, last = ids
    side = "sell" if buyer_is_maker else "buy"
    return Trade(symbol, kind, wire_time(time), None, trade_id, first, last, side, price, size)
