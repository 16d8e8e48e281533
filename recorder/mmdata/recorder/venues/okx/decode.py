"""OKX v5 frames and REST answers as records. Pure: bytes in, records out.

Source: OKX API v5 docs as read in July and August 2026 ("Order book channel", "Trades channel", "Get
instruments"). ``checksum`` is a fixed 0 since 2026-06-23 and means "none"; ``seqId`` and ``count`` are
missing in older recordings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from mmdata.recorder.records import (
    Bbo,
    Depth,
    Id,
    Instrument,
    Level,
    Record,
    Small,
    Snapshot,
    Trade,
    Untabled,
    wire_time,
)

TIME_PATH = "/api/v5/public/time"
"""Asked for the venue's time: 10 requests in 2 s."""
_WireLevel = tuple[str, str, str, str]  # price, size, "0" (deprecated), number of orders
_BOOKS = ("books", "books-l2-tbt", "books50-l2-tbt")
_TRADES = ("trades", "trades-all")


class _Arg(msgspec.Struct):
    channel: str = ""
    instId: str | None = None  # noqa: N815 the venue's key


class _Frame(msgspec.Struct):
    arg: _Arg | None = None
    event: str | None = None
    action: str | None = None
    data: msgspec.Raw = msgspec.Raw()


class _Book(msgspec.Struct):
    asks: list[_WireLevel]
    bids: list[_WireLevel]
    ts: str
    checksum: Small | None = None
    seqId: Id | None = None  # noqa: N815
    prevSeqId: Id | None = None  # noqa: N815


class _Trade(msgspec.Struct):
    instId: str  # noqa: N815
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


_frame = msgspec.json.Decoder(_Frame).decode
_books = msgspec.json.Decoder(list[_Book]).decode
_book = msgspec.json.Decoder(_Book).decode
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
        return [_depth(symbol, book, is_snapshot=replaces) for book in _books(data)]
    if channel in _TRADES:
        return [_read_trade(trade) for trade in _trades(data)]
    if channel == "bbo-tbt" and symbol is not None:
        return [_bbo(symbol, book) for book in _books(data)]
    return (Untabled(channel, control=False),)


def _depth(symbol: str, book: _Book, *, is_snapshot: bool) -> Depth:
    return Depth(
        symbol=symbol,
        ts_event=wire_time(int(book.ts)),
        ts_sent=None,
        first_id=book.seqId,
        last_id=book.seqId,
        prev_id=book.prevSeqId,
        bids=_levels(book.bids),
        asks=_levels(book.asks),
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


def _bbo(symbol: str, book: _Book) -> Bbo:
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
    return Snapshot(
        symbol=symbol,
        ts_event=wire_time(int(book.ts)),
        last_id=book.seqId,
        bids=_levels(book.bids),
        asks=_levels(book.asks),
    )


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
