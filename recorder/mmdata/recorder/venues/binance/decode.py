"""Binance frames and REST answers as records. Pure: bytes in, records out.

Source: Binance spot API docs of 2026-07-21 ("WebSocket Streams", "Market Data endpoints"); USDⓈ-M docs
of 2026-10 ("Diff. Book Depth Streams"). Unknown keys are ignored: the venue appends some every year.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
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
    Snapshot,
    Symbol,
    Trade,
    Untabled,
    wire_time,
)

TIME_PATH = "/api/v3/time"
"""Asked for the venue's time: weight 1."""
_WireLevel = tuple[str, str]
_NUMBERS = 2  # strings a level
_WRAPPER = b'{"stream":"'
_T = TypeVar("_T")


class _Frame(msgspec.Struct):
    stream: str
    data: msgspec.Raw


class _Probe(msgspec.Struct):
    """What tells a bare frame apart: an event name, or a control reply's keys."""

    e: str | None = None
    u: int | None = None
    result: Any = msgspec.UNSET
    code: int | None = None
    event: Any = msgspec.UNSET


class _Wrapped(msgspec.Struct, Generic[_T], gc=False):
    """A frame whose channel is known before it is read."""

    stream: str
    data: _T


class _DepthUpdate(msgspec.Struct, Generic[_T], gc=False):
    E: int  # emission time
    s: Symbol
    U: Id  # first id
    u: Id  # last id
    b: _T
    a: _T
    T: int | None = None  # matching-engine time, USDⓈ-M only
    pu: Id | None = None  # last id of the message before, USDⓈ-M only


class _Trade(msgspec.Struct, gc=False):
    E: int
    s: Symbol
    t: Id
    p: str
    q: str
    T: int
    m: bool  # the buyer is the maker: the taker sold
    X: str | None = None


class _AggTrade(msgspec.Struct, gc=False):
    E: int
    s: Symbol
    a: Id
    p: str
    q: str
    f: Id
    l: Id  # noqa: E741 the venue's key
    T: int
    m: bool


class _BookTicker(msgspec.Struct, gc=False):
    u: Id
    s: Symbol
    b: str
    B: str
    a: str
    A: str
    E: int | None = None
    T: int | None = None


class _RestDepth(msgspec.Struct, Generic[_T]):
    lastUpdateId: Id  # noqa: N815 the venue's key
    bids: _T
    asks: _T
    T: int | None = None


class _Filter(msgspec.Struct):
    filterType: str  # noqa: N815 the venue's key, as those below
    tickSize: str = ""  # noqa: N815
    stepSize: str = ""  # noqa: N815
    minQty: str | None = None  # noqa: N815
    minNotional: str | None = None  # noqa: N815
    notional: str | None = None


class _Symbol(msgspec.Struct):
    symbol: str
    filters: list[_Filter]
    status: str | None = None
    baseAsset: str | None = None  # noqa: N815
    quoteAsset: str | None = None  # noqa: N815


class _ExchangeInfo(msgspec.Struct):
    symbols: list[msgspec.Raw]


class _Time(msgspec.Struct):
    serverTime: int  # noqa: N815


read_depth = msgspec.json.Decoder(_Wrapped[_DepthUpdate[list[_WireLevel]]]).decode
skim_depth = msgspec.json.Decoder(_Wrapped[_DepthUpdate[msgspec.Raw]]).decode
"""The same, its levels as the wire's bytes, unread."""
read_trade = msgspec.json.Decoder(_Wrapped[_Trade]).decode
read_agg_trade = msgspec.json.Decoder(_Wrapped[_AggTrade]).decode
read_book_ticker = msgspec.json.Decoder(_Wrapped[_BookTicker]).decode
_frame = msgspec.json.Decoder(_Frame).decode
_probe = msgspec.json.Decoder(_Probe).decode
_depth_update = msgspec.json.Decoder(_DepthUpdate[list[_WireLevel]]).decode
_trade = msgspec.json.Decoder(_Trade).decode
_agg_trade = msgspec.json.Decoder(_AggTrade).decode
_book_ticker = msgspec.json.Decoder(_BookTicker).decode
_rest_depth = msgspec.json.Decoder(_RestDepth[list[_WireLevel]]).decode
_raw_rest_depth = msgspec.json.Decoder(_RestDepth[msgspec.Raw]).decode
_symbol = msgspec.json.Decoder(_Symbol).decode
_exchange_info = msgspec.json.Decoder(_ExchangeInfo).decode
_time = msgspec.json.Decoder(_Time).decode


def decode(frame: bytes) -> Sequence[Record]:
    """Return what a stream frame says. msgspec.MsgspecError: it cannot be decoded."""
    if frame.startswith(b'{"stream":'):
        wrapped = _frame(frame)
        stream, data = wrapped.stream, bytes(wrapped.data)
    else:
        probe = _probe(frame)
        if probe.result is not msgspec.UNSET or probe.code is not None:
            return (Untabled("reply", control=True),)
        if probe.event is not msgspec.UNSET:
            return (Untabled("serverShutdown", control=True),)
        if probe.e is None and probe.u is None:
            raise msgspec.ValidationError("neither a stream's frame nor a control reply")
        stream, data = f"@{probe.e or 'bookTicker'}", frame
    if stream == "!serverShutdown":
        return (Untabled(stream, control=True),)
    channel = _channel(stream)
    reader = _READERS.get(channel.partition("@")[0])
    return (Untabled(channel, control=False),) if reader is None else (reader(data),)


def _depth(message: _DepthUpdate[Any], bids: Levels, asks: Levels) -> Depth:
    sent = wire_time(message.E)
    return Depth(
        message.s,
        sent if message.T is None else wire_time(message.T),
        None if message.T is None else sent,
        message.U,
        message.u,
        message.U - 1 if message.pu is None else message.pu,
        bids,
        asks,
    )


def _read_depth(data: bytes) -> Depth:
    message = _depth_update(data)
    return _depth(message, _levels(message.b), _levels(message.a))


def _skim_depth(message: _DepthUpdate[msgspec.Raw]) -> Depth | None:
    sides = wire_levels(message.b, message.a, _NUMBERS)
    return None if sides is None else _depth(message, *sides)


def _of_trade(message: _Trade) -> Trade:
    side = "sell" if message.m else "buy"
    event, sent = wire_time(message.T), wire_time(message.E)
    ids = (message.t, message.t, message.t)
    return Trade(message.s, "trade", event, sent, *ids, side, message.p, message.q, flags=message.X)


def _of_agg_trade(message: _AggTrade) -> Trade:
    side = "sell" if message.m else "buy"
    event, sent = wire_time(message.T), wire_time(message.E)
    ids = (message.a, message.f, message.l)
    return Trade(message.s, "agg", event, sent, *ids, side, message.p, message.q)


def _of_book_ticker(message: _BookTicker) -> Bbo:
    return Bbo(
        symbol=message.s,
        ts_event=None if message.T is None else wire_time(message.T),
        ts_sent=None if message.E is None else wire_time(message.E),
        last_id=message.u,
        bid=(message.b, message.B, None),
        ask=(message.a, message.A, None),
    )


_READERS: dict[str, Callable[[bytes], Record]] = {
    "depth": _read_depth,
    "depthUpdate": _read_depth,  # a bare frame names its event, not its stream
    "trade": lambda data: _of_trade(_trade(data)),
    "aggTrade": lambda data: _of_agg_trade(_agg_trade(data)),
    "bookTicker": lambda data: _of_book_ticker(_book_ticker(data)),
}

_Skimmer = tuple[Callable[[bytes], _Wrapped[Any]], Callable[[Any], Record | None]]
_SKIMMERS: dict[str, _Skimmer] = {
    "depth": (skim_depth, _skim_depth),
    "trade": (read_trade, _of_trade),
    "aggTrade": (read_agg_trade, _of_agg_trade),
    "bookTicker": (read_book_ticker, _of_book_ticker),
}
"""How a frame of a channel is read in one pass, and made a record."""


def skim(frame: bytes) -> Sequence[Record]:
    """Return what `decode` returns, in one pass; a book's levels are only counted where they are plain."""
    if frame.startswith(_WRAPPER):
        try:
            stream, skimmer = _skimmer(frame[len(_WRAPPER) : frame.index(b'"', len(_WRAPPER))])
            if skimmer is not None:
                read, made = skimmer
                message = read(frame)
                # A key may come twice, and the last one counts.
                record = made(message.data) if message.stream == stream else None
                if record is not None:
                    return (record,)
        except UNREADABLE:
            pass  # `decode` says what is wrong with it
    return decode(frame)


@lru_cache(1024)
def _skimmer(name: bytes) -> tuple[str, _Skimmer | None]:
    stream = name.decode()
    return stream, _SKIMMERS.get(_channel(stream).partition("@")[0])


def _channel(stream: str) -> str:
    """Return a stream's channel.

    >>> _channel("btcusdt@depth@100ms")
    'depth@100ms'
    """
    return stream.partition("@")[2]


def _levels(levels: list[_WireLevel]) -> list[Level]:
    return [(price, size, None) for price, size in levels]


def decode_snapshot(body: bytes, symbol: str) -> Snapshot:
    """Return the book that ``GET depth`` answered; spot's names neither its symbol nor a time."""
    answer = _rest_depth(body)
    return _snapshot(answer, symbol, _levels(answer.bids), _levels(answer.asks))


def skim_snapshot(body: bytes, symbol: str) -> Snapshot:
    """Return what `decode_snapshot` returns; the levels are only counted where they are plain."""
    try:
        answer = _raw_rest_depth(body)
        sides = wire_levels(answer.bids, answer.asks, _NUMBERS)
        if sides is not None:
            return _snapshot(answer, symbol, *sides)
    except UNREADABLE:
        pass  # `decode_snapshot` says what is wrong with it
    return decode_snapshot(body, symbol)


def _snapshot(answer: _RestDepth[Any], symbol: str, bids: Levels, asks: Levels) -> Snapshot:
    event = None if answer.T is None else wire_time(answer.T)
    return Snapshot(symbol, event, answer.lastUpdateId, bids, asks)


def decode_instruments(body: bytes, symbols: Sequence[str]) -> list[Instrument]:
    """Return what ``GET exchangeInfo`` says of ``symbols`` (all of them when empty)."""
    found = []
    for raw in _exchange_info(body).symbols:
        info = _symbol(raw)
        if symbols and info.symbol not in symbols:
            continue
        rules = {rule.filterType: rule for rule in info.filters}
        price, lot = (rules.get(name) for name in ("PRICE_FILTER", "LOT_SIZE"))
        if price is None or lot is None:
            raise msgspec.ValidationError(f"{info.symbol} has no PRICE_FILTER or no LOT_SIZE")
        notional = rules.get("NOTIONAL") or rules.get("MIN_NOTIONAL")
        found.append(
            Instrument(
                symbol=info.symbol,
                status=info.status,
                base=info.baseAsset,
                quote=info.quoteAsset,
                tick_size=price.tickSize,
                lot_size=lot.stepSize,
                min_size=lot.minQty,
                min_notional=None if notional is None else notional.minNotional or notional.notional,
                contract_value=None,
                raw=bytes(raw).decode(),
            )
        )
    return found


def decode_time(body: bytes) -> int:
    """Return the venue's clock as ``GET time`` answered it, in ns since the epoch."""
    return wire_time(_time(body).serverTime)
