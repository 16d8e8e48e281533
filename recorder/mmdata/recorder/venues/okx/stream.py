"""OKX v5 as it is spoken to: one subscription for all channels, a text ``ping`` against silence.

Source: OKX API v5 docs of July 2026: "Connect" (closed after 30 s without a push), "Subscribe" (all
arguments in one request), "Order book channel" (a new subscription brings a fresh snapshot).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from types import MappingProxyType
from urllib.parse import quote

import msgspec

from mmdata.datasets.chain import CHAINS, NO_ID
from mmdata.recorder.venues.stream import BBO, CLOSING, CONTROL, DEPTH, NOTICE, TRADES, Limits, Request, Seen

_BOOK_CHANNEL = "books"
_SNAPSHOT_LEVELS = 400
_CLOSING_SOON = "64008"
MOST_BOOKS = 25
"""A connection should have fewer than 30 of the deep book channels."""
# 3 connections a second; 480 requests an hour and connection; 20 REST requests in 2 s at the slowest
# endpoint we use. No lifetime is documented: a day does no harm.
_LIMITS = Limits((0.5, 3), (400 / 3600, 60), 600, 23 * 3600.0)


class _Arg(msgspec.Struct, gc=False):
    channel: str = ""
    instId: str = ""  # noqa: N815 the venue's key


class _Item(msgspec.Struct, gc=False):
    seqId: int | None = None  # noqa: N815
    prevSeqId: int | None = None  # noqa: N815
    tradeId: str | None = None  # noqa: N815
    count: str | None = None


class _Frame(msgspec.Struct):
    arg: _Arg | None = None
    event: str | None = None
    code: str | None = None
    action: str | None = None
    data: list[_Item] = []


_frame = msgspec.json.Decoder(_Frame).decode
_NOTHING: tuple[Seen, ...] = ()


class OkxStream:
    """OKX public channels of some instruments."""

    exchange: str = "okx"
    chain = CHAINS["okx"]
    time_unit: str = "ms"
    limits = _LIMITS
    keepalive: bytes | None = b"ping"
    rest_headers: Mapping[str, str] = MappingProxyType({})

    def __init__(self, symbols: Sequence[str], channels: Sequence[str], ws_url: str) -> None:
        self.symbols = tuple(symbols)
        self._channels = tuple(channels)
        self.has_books = _BOOK_CHANNEL in channels
        self._ids = count(1)
        self.url = f"{ws_url}/ws/v5/public"

    def opening(self) -> Sequence[bytes]:
        """Return one request with every channel of every instrument."""
        args = [{"channel": c, "instId": symbol} for symbol in self.symbols for c in self._channels]
        return (self._request("subscribe", args),)

    def resubscribe(self, symbol: str) -> Sequence[bytes]:
        """Return the two requests that bring a fresh snapshot of one book."""
        args = [{"channel": _BOOK_CHANNEL, "instId": symbol}]
        return (self._request("unsubscribe", args), self._request("subscribe", args))

    def _request(self, op: str, args: list[dict[str, str]]) -> bytes:
        return msgspec.json.encode({"id": str(next(self._ids)), "op": op, "args": args})

    def look(self, frame: bytes) -> Sequence[Seen]:
        """Return the ids in a frame; levels are skipped, not decoded."""
        if frame == b"pong":
            return (Seen(CONTROL, ""),)
        message = _frame(frame)
        arg = message.arg
        if message.event is not None:
            if message.event == "subscribe" and arg is not None:
                return (Seen(CONTROL, arg.instId, text=arg.channel),)
            if message.event == "unsubscribe":
                return (Seen(CONTROL, ""),)
            channel = CLOSING if message.code == _CLOSING_SOON else NOTICE
            return (Seen(channel, "", text=frame.decode(errors="replace")),)
        if arg is None:
            raise msgspec.ValidationError("neither an event nor a channel's data")
        if arg.channel == _BOOK_CHANNEL:
            replaces = message.action == "snapshot"
            return [_book_ids(arg.instId, item, is_snapshot=replaces) for item in message.data]
        if arg.channel == "trades":
            return [_trade_ids(arg.instId, item) for item in message.data if item.count is not None]
        if arg.channel == "bbo-tbt":
            return [_bbo_ids(arg.instId, item) for item in message.data]
        return _NOTHING

    def time_request(self) -> Request:
        """Return the request for the venue's clock."""
        return Request("time", "/api/v5/public/time", ())

    def snapshot_request(self, symbol: str) -> Request:
        """Return the request for the book that is kept to audit the stream's, never spliced."""
        path = f"/api/v5/market/books?instId={quote(symbol)}&sz={_SNAPSHOT_LEVELS}"
        return Request("snapshot", path, (symbol,))

    def instruments_requests(self) -> Sequence[Request]:
        """Return one request a type of instrument: tick and lot of all that are recorded."""
        kinds = dict.fromkeys(_listing(symbol) for symbol in self.symbols)
        return [
            Request(
                "instruments",
                f"/api/v5/public/instruments?{kind}",
                tuple(symbol for symbol in self.symbols if _listing(symbol) == kind),
            )
            for kind in kinds
        ]


def _listing(symbol: str) -> str:
    """Return the query that lists an instrument's type, which its name tells.

    >>> _listing("BTC-USDT"), _listing("BTC-USDT-SWAP"), _listing("BTC-USD-260925")
    ('instType=SPOT', 'instType=SWAP', 'instType=FUTURES')
    >>> _listing("BTC-USD-260925-60000-C")
    'instType=OPTION&instFamily=BTC-USD'
    """
    parts = symbol.split("-")
    if parts[-1] == "SWAP":
        return "instType=SWAP"
    if len(parts) == 5:
        return f"instType=OPTION&instFamily={quote('-'.join(parts[:2]))}"
    return "instType=FUTURES" if len(parts) == 3 else "instType=SPOT"


def _book_ids(symbol: str, item: _Item, *, is_snapshot: bool) -> Seen:
    if item.seqId is None or item.prevSeqId is None:
        return Seen(DEPTH, symbol, NO_ID, NO_ID, NO_ID, is_snapshot)
    return Seen(DEPTH, symbol, item.seqId, item.seqId, item.prevSeqId, is_snapshot)


def _bbo_ids(symbol: str, item: _Item) -> Seen:
    seq = NO_ID if item.seqId is None else item.seqId
    return Seen(BBO, symbol, seq, seq, NO_ID)


def _trade_ids(symbol: str, item: _Item) -> Seen:
    last = int(item.tradeId or 0)
    before = last - int(item.count or 1)
    return Seen(TRADES, symbol, before + 1, last, before, text="agg")
