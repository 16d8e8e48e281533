"""OKX's trades asked for over REST, by id: what fills a hole in the stream.

Source: OKX API v5 docs of July 2026, "Get trades history": ``type=1`` pages by trade id, ``after`` asks
for older ones (exclusive), newest first, at most 100. The rows are single trades, where the stream's
channel ``trades`` aggregates; both count in the same ids.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from mmdata.recorder.records import Id, Trade, wire_time
from mmdata.recorder.venues.stream import Request

OLDEST_FIRST = False
_PAGE = 100


class _Trade(msgspec.Struct):
    tradeId: str  # noqa: N815 the venue's key
    px: str
    sz: str
    side: str
    ts: str
    source: str | None = None


class _Answer(msgspec.Struct):
    code: str
    data: list[_Trade]
    msg: str = ""


_answer = msgspec.json.Decoder(_Answer).decode


def request(symbol: str, kind: str, first_id: int, last_id: int) -> Request:
    """Return the request for the page of trades that ends at ``last_id``."""
    limit = min(_PAGE, last_id - first_id + 1)
    query = f"instId={quote(symbol)}&type=1&after={last_id + 1}&limit={limit}"
    return Request("backfill", f"/api/v5/market/history-trades?{query}", (symbol,))


def decode(body: bytes, symbol: str, kind: str) -> list[Trade]:
    """Return the trades of an answer. msgspec.MsgspecError, ValueError: it cannot be decoded."""
    answer = _answer(body)
    if answer.code != "0":
        raise msgspec.ValidationError(f"code {answer.code}: {answer.msg}")
    return [
        Trade(
            symbol=symbol,
            kind="trade",
            ts_event=wire_time(int(trade.ts)),
            ts_sent=None,
            trade_id=_id(trade.tradeId),
            first_trade_id=_id(trade.tradeId),
            last_trade_id=_id(trade.tradeId),
            side=trade.side,
            price=trade.px,
            size=trade.sz,
            flags=trade.source,
        )
        for trade in answer.data
    ]


def _id(text: str) -> Id:
    return msgspec.convert(int(text), Id)
