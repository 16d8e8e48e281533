"""OKX v5 as it is spoken to: one subscription for all channels, a text ``ping`` against silence.

Source: OKX API v5 docs of July 2026: "Connect" (closed after 30 s without a push), "Subscribe" (all
arguments in one request), "Order book channel" (a new subscription brings a fresh snapshot).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import msgspec

from mmdata.datasets.chain import CHAINS, NO_ID
from mmdata.recorder.records import Bbo, Depth, Trade, Untabled
from mmdata.recorder.venues.okx.decode import TIME_PATH, Book, read_books, skim
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


class _Event(msgspec.Struct):
    arg: _Arg | None = None
    event: str | None = None
    code: str | None = None


_event = msgspec.json.Decoder(_Event).decode
_DATA_PREFIX = b'{"arg":{"channel":"'
_BOOK_PREFIX = b'{"arg":{"channel":"books"'
_SNAPSHOT = "snapshot"
_ACTIONS = (_SNAPSHOT, "update")
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
        """Return the ids in a frame, all of which is read: one that ingest could not decode is a hole."""
        if frame.startswith(_BOOK_PREFIX):
            message = read_books(frame)
            if message.arg.channel == _BOOK_CHANNEL and message.action in _ACTIONS:
                symbol, is_snapshot = message.arg.instId or "", message.action == _SNAPSHOT
                return [_book_ids(symbol, book, is_snapshot=is_snapshot) for book in message.data]
        if frame.startswith(_DATA_PREFIX):
            return [_ids(record) for record in skim(frame) if not isinstance(record, Untabled)]
        return self._look_at_event(frame)

    def _look_at_event(self, frame: bytes) -> Sequence[Seen]:
        if frame == b"pong":
            return (Seen(CONTROL, ""),)
        message = _event(frame)
        arg = message.arg
        if message.event is None:
            return [_ids(record) for record in skim(frame) if not isinstance(record, Untabled)]
        if message.event == "subscribe" and arg is not None:
            return (Seen(CONTROL, arg.instId, text=arg.channel),)
        if message.event == "unsubscribe":
            return (Seen(CONTROL, ""),)
        channel = CLOSING if message.code == _CLOSING_SOON else NOTICE
        return (Seen(channel, "", text=frame.decode(errors="replace")),)

    def time_request(self) -> Request:
        """Return the request for the venue's clock."""
        return Request("time", TIME_PATH, ())

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


def _book_ids(symbol: str, book: Book[Any], *, is_snapshot: bool) -> Seen:
    if book.seqId is None or book.prevSeqId is None:
        return Seen(DEPTH, symbol, NO_ID, NO_ID, NO_ID, is_snapshot)
    return Seen(DEPTH, symbol, book.seqId, book.seqId, book.prevSeqId, is_snapshot)


def _ids(record: Depth | Trade | Bbo) -> Seen:
    last_id = record.trade_id if isinstance(record, Trade) else record.last_id
    last_id = NO_ID if last_id is None else last_id
    if isinstance(record, Bbo):
        return Seen(BBO, record.symbol, last_id, last_id, NO_ID)
    if isinstance(record, Trade):
        first_id = last_id if record.first_trade_id is None else record.first_trade_id
        return Seen(TRADES, record.symbol, first_id, last_id, first_id - 1, text=record.kind)
    prev_id = NO_ID if record.prev_id is None else record.prev_id
    return Seen(DEPTH, record.symbol, last_id, last_id, prev_id, record.is_snapshot)
