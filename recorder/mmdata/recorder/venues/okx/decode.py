"""OKX v5 frames and REST answers as records. Pure: bytes in, records out.

Source: OKX API v5 docs as read in July and August 2026 ("Order book channel", "Trades channel", "Get
instruments"). ``checksum`` is a fixed 0 since 2026-06-23 and means "none"; ``seqId`` and ``count`` are
missing in older recordings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from mmdata.recorder.levels import wire_levels
from mmdata.recorder.records import (
    UNREADABLE,
    Bbo,
    Depth,
    Id,
    Instrument,
    Level,
    Levels,
    Record,
    Small,
    Snapshot,
    Symbol,
    Trade,
    Untabled,
    wire_time,
)

TIME_PATH = "/api/v5/public/time"
"""Asked for the venue's time: 10 requests in 2 s."""
_WireLevel = tuple[str, str, str, str]  # price, size, "0" (deprecated), number of orders
_NUMBERS = 4  # strings a level
_PREFIX = b'{"arg":{"channel":"'
_T = TypeVar("_T")
_BOOKS = ("books", "books-l2-tbt", "books50-l2-tbt")
_TRADES = ("trades", "trades-all")


class _Arg(msgspec.Struct):
    channel: str = ""
    instId: Symbol | None = None  # noqa: N815 the venue's key


class _Frame(msgspec.Struct):
    arg: _Arg | None = None
    event: str | None = None
    action: str | None = None
    data: msgspec.Raw = msgspec.Raw()


class _DataFrame(msgspec.Struct, Generic[_T]):
    """A frame of a channel that is known before it is read."""

    arg: _Arg
    data: list[_T]
    event: str | None = None
    action: str | None = None


class Book(msgspec.Struct, Generic[_T]):
    """A change of levels, or all of them."""

    asks: _T
    bids: _T
    ts: str
    checksum: Small | None = None
    seqId: Id | None = None  # noqa: N815
    prevSeqId: Id | None = None  # noqa: N815


class _Trade(msgspec.Struct):
    instId: Symbol  # noqa: N815
    tradeId: str  # noqa: N815
    px: str
    sz: str
    side: str
    ts: str
    count: str | None = None
    source: str | None = None
    seqId: Id | None = None  # noqa: N815


class _Answer(msgspec.Struct):
    code: str
    data: list[msgspec.Raw]
    msg: str = ""


class _Instrument(msgspec.Struct):
    instId: str  # noqa: N815
    tickSz: str  # noqa: N815
    lotSz: str  # noqa: N815
    minSz: str | None = None  # noqa: N815
    baseCcy: str | None = None  # noqa: N815
    quoteCcy: str | None = None  # noqa: N815
    ctVal: str | None = None  # noqa: N815
    state: str | None = None


class _Time(msgspec.Struct):
    ts: str


read_books = msgspec.json.Decoder(_DataFrame[Book[list[_WireLevel]]]).decode
_frame = msgspec.json.Decoder(_Frame).decode
_books = msgspec.json.Decoder(list[Book[list[_WireLevel]]]).decode
_book = msgspec.json.Decoder(Book[list[_WireLevel]]).decode
_raw_book = msgspec.json.Decoder(Book[msgspec.Raw]).decode
_trades = msgspec.json.Decoder(list[_Trade]).decode
_answer = msgspec.json.Decoder(_Answer).decode
_instrument = msgspec.json.Decoder(_Instrument).decode
_time = msgspec.json.Decoder(_Time).decode


def decode(frame: bytes) -> Sequence[Record]:
    """Return what a frame says. msgspec.MsgspecError: it cannot be decoded."""
    if frame == b"pong":
        return (Untabled("pong", control=True),)
    message = _frame(frame)
    if message.event is not None:
        return (Untabled(message.event, control=True),)
    if message.arg is None or not message.data:
        raise msgspec.ValidationError("neither an event nor a channel's data")
    channel, symbol, data = message.arg.channel, message.arg.instId, bytes(message.data)
    if channel in _BOOKS and symbol is not None:
        if message.action not in ("snapshot", "update"):
            raise msgspec.ValidationError(f"action is {message.action!r}, not snapshot or update")
        replaces = message.action == "snapshot"
        return [
            _depth(symbol, book, _levels(book.bids), _levels(book.asks), is_snapshot=replaces)
            for book in _books(data)
        ]
    if channel in _TRADES:
        return [_read_trade(trade) for trade in _trades(data)]
    if channel == "bbo-tbt" and symbol is not None:
        return [_bbo(symbol, book) for book in _books(data)]
    return (Untabled(channel, control=False),)


def skim(frame: bytes) -> Sequence[Record]:
    """Return what `decode` returns, in one pass; a book's levels are only counted where they are plain."""
    if frame.startswith(_PREFIX):
        channel = frame[len(_PREFIX) : frame.find(b'"', len(_PREFIX))]
        skimmer = _SKIMMERS.get(channel)
        if skimmer is not None:
            try:
                read, made = skimmer
                message = read(frame)
                # A key may come twice, and the last one counts.
                if message.event is None and message.arg.channel.encode() == channel:
                    records = made(message)
                    if records is not None:
                        return records
            except UNREADABLE:
                pass  # `decode` says what is wrong with it
    return decode(frame)


def _skim_books(message: _DataFrame[Book[msgspec.Raw]]) -> Sequence[Record] | None:
    symbol = message.arg.instId
    if symbol is None or message.action not in ("snapshot", "update"):
        return None
    replaces = message.action == "snapshot"
    records = []
    for book in message.data:
        sides = wire_levels(book.bids, book.asks, _NUMBERS)
        if sides is None:
            return None
        records.append(_depth(symbol, book, *sides, is_snapshot=replaces))
    return records


def _skim_trades(message: _DataFrame[_Trade]) -> Sequence[Record]:
    return [_read_trade(trade) for trade in message.data]


def _skim_bbo(message: _DataFrame[Book[list[_WireLevel]]]) -> Sequence[Record] | None:
    symbol = message.arg.instId
    return None if symbol is None else [_bbo(symbol, book) for book in message.data]


_Skimmer = tuple[Callable[[bytes], _DataFrame[Any]], Callable[[Any], Sequence[Record] | None]]
_SKIMMERS: dict[bytes, _Skimmer] = {
    **{
        name.encode(): (msgspec.json.Decoder(_DataFrame[Book[msgspec.Raw]]).decode, _skim_books)
        for name in _BOOKS
    },
    **{name.encode(): (msgspec.json.Decoder(_DataFrame[_Trade]).decode, _skim_trades) for name in _TRADES},
    b"bbo-tbt": (read_books, _skim_bbo),
}
"""How a frame of a channel is read in one pass, and made records."""


def _depth(symbol: str, book: Book[Any], bids: Levels, asks: Levels, *, is_snapshot: bool) -> Depth:
    return Depth(
        symbol=symbol,
        ts_event=wire_time(int(book.ts)),
        ts_sent=None,
        first_id=book.seqId,
        last_id=book.seqId,
        prev_id=book.prevSeqId,
        bids=bids,
        asks=asks,
        checksum=book.checksum or None,  # 0 means none
        is_snapshot=is_snapshot,
    )


def _read_trade(trade: _Trade) -> Trade:
    last = _whole(trade.tradeId, 63)
    if trade.side not in ("buy", "sell"):
        raise msgspec.ValidationError(f"side is {trade.side!r}, not buy or sell")
    return Trade(
        symbol=trade.instId,
        # All of an aggregated channel is one id chain, also where an aggregate holds one trade.
        kind="trade" if trade.count is None else "agg",
        ts_event=wire_time(int(trade.ts)),
        ts_sent=None,
        trade_id=last,
        # `tradeId` is the last of `count` consecutive ids.
        first_trade_id=last if trade.count is None else last - _whole(trade.count, 31) + 1,
        last_trade_id=last,
        side=trade.side,
        price=trade.px,
        size=trade.sz,
        seq=trade.seqId,
        flags=trade.source,
    )


def _whole(text: str, bits: int) -> int:
    """Return a number that the venue sends as text. ValueError: it is none, or does not fit ``bits``."""
    number = int(text)
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{text} does not fit {bits} bits")
    return number


def _bbo(symbol: str, book: Book[list[_WireLevel]]) -> Bbo:
    return Bbo(
        symbol=symbol,
        ts_event=wire_time(int(book.ts)),
        ts_sent=None,
        last_id=book.seqId,
        bid=_levels(book.bids[:1])[0] if book.bids else None,
        ask=_levels(book.asks[:1])[0] if book.asks else None,
    )


def _levels(levels: list[_WireLevel]) -> list[Level]:
    return [(price, size, _whole(orders, 31)) for price, size, _, orders in levels]


def decode_snapshot(body: bytes, symbol: str) -> Snapshot:
    """Return the book that ``GET /market/books`` answered; it does not name its symbol."""
    [raw] = _rows(body)
    book = _book(raw)
    return _snapshot(symbol, book, _levels(book.bids), _levels(book.asks))


def skim_snapshot(body: bytes, symbol: str) -> Snapshot:
    """Return what `decode_snapshot` returns; the levels are only counted where they are plain."""
    [raw] = _rows(body)
    try:
        book = _raw_book(raw)
        sides = wire_levels(book.bids, book.asks, _NUMBERS)
        if sides is not None:
            return _snapshot(symbol, book, *sides)
    except UNREADABLE:
        pass  # `decode_snapshot` says what is wrong with it
    return decode_snapshot(body, symbol)


def _snapshot(symbol: str, book: Book[Any], bids: Levels, asks: Levels) -> Snapshot:
    return Snapshot(symbol, wire_time(int(book.ts)), book.seqId, bids, asks)


def decode_instruments(body: bytes, symbols: Sequence[str]) -> list[Instrument]:
    """Return what ``GET /public/instruments`` says of ``symbols`` (all of them when empty)."""
    found = []
    for raw in _rows(body):
        info = _instrument(raw)
        if symbols and info.instId not in symbols:
            continue
        found.append(
            Instrument(
                symbol=info.instId,
                status=info.state,
                base=info.baseCcy or None,
                quote=info.quoteCcy or None,
                tick_size=info.tickSz,
                lot_size=info.lotSz,
                min_size=info.minSz or None,
                min_notional=None,
                contract_value=info.ctVal or None,
                raw=bytes(raw).decode(),
            )
        )
    return found


def decode_time(body: bytes) -> int:
    """Return the venue's clock as ``GET /public/time`` answered it, in ns since the epoch."""
    [raw] = _rows(body)
    return wire_time(int(_time(raw).ts))


def _rows(body: bytes) -> list[Any]:
    answer = _answer(body)
    if answer.code != "0":
        raise msgspec.ValidationError(f"code {answer.code}: {answer.msg}")
    return answer.data
