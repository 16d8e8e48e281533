"""Binance frames and REST answers as records. Pure: bytes in, records out.

Source: Binance spot API docs of 2026-07-21 ("WebSocket Streams", "Market Data endpoints"); USDⓈ-M docs
of 2026-10 ("Diff. Book Depth Streams"). Unknown keys are ignored: the venue appends some every year.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from mmdata.recorder.records import (
    Bbo,
    Depth,
    Id,
    Instrument,
    Level,
    Record,
    Snapshot,
    Trade,
    Untabled,
    wire_time,
)

TIME_PATH = "/api/v3/time"
"""Asked for the venue's time: weight 1."""
_WireLevel = tuple[str, str]


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


class _DepthUpdate(msgspec.Struct):
    E: int  # emission time
    s: str
    U: Id  # first id
    u: Id  # last id
    b: list[_WireLevel]
    a: list[_WireLevel]
    T: int | None = None  # matching-engine time, USDⓈ-M only
    pu: Id | None = None  # last id of the message before, USDⓈ-M only


class _Trade(msgspec.Struct):
    E: int
    s: str
    t: Id
    p: str
    q: str
    T: int
    m: bool  # the buyer is the maker: the taker sold
    X: str | None = None


class _AggTrade(msgspec.Struct):
    E: int
    s: str
    a: Id
    p: str
    q: str
    f: Id
    l: Id  # noqa: E741 the venue's key
    T: int
    m: bool


class _BookTicker(msgspec.Struct):
    u: Id
    s: str
    b: str
    B: str
    a: str
    A: str
    E: int | None = None
    T: int | None = None


class _RestDepth(msgspec.Struct):
    lastUpdateId: Id  # noqa: N815 the venue's key
    bids: list[_WireLevel]
    asks: list[_WireLevel]
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


_frame = msgspec.json.Decoder(_Frame).decode
_probe = msgspec.json.Decoder(_Probe).decode
_depth_update = msgspec.json.Decoder(_DepthUpdate).decode
_trade = msgspec.json.Decoder(_Trade).decode
_agg_trade = msgspec.json.Decoder(_AggTrade).decode
_book_ticker = msgspec.json.Decoder(_BookTicker).decode
_rest_depth = msgspec.json.Decoder(_RestDepth).decode
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
    _, _, channel = stream.partition("@")
    reader = _READERS.get(channel.partition("@")[0])
    return (Untabled(channel, control=False),) if reader is None else (reader(data),)


def _read_depth(data: bytes) -> Depth:
    message = _depth_update(data)
    sent = wire_time(message.E)
    return Depth(
        symbol=message.s,
        ts_event=sent if message.T is None else wire_time(message.T),
        ts_sent=None if message.T is None else sent,
        first_id=message.U,
        last_id=message.u,
        prev_id=message.U - 1 if message.pu is None else message.pu,
        bids=_levels(message.b),
        asks=_levels(message.a),
    )


def _read_trade(data: bytes) -> Trade:
    message = _trade(data)
    return Trade(
        symbol=message.s,
        kind="trade",
        ts_event=wire_time(message.T),
        ts_sent=wire_time(message.E),
        trade_id=message.t,
        first_trade_id=message.t,
        last_trade_id=message.t,
        side="sell" if message.m else "buy",
        price=message.p,
        size=message.q,
        flags=message.X,
    )


def _read_agg_trade(data: bytes) -> Trade:
    message = _agg_trade(data)
    return Trade(
        symbol=message.s,
        kind="agg",
        ts_event=wire_time(message.T),
        ts_sent=wire_time(message.E),
        trade_id=message.a,
        first_trade_id=message.f,
        last_trade_id=message.l,
        side="sell" if message.m else "buy",
        price=message.p,
        size=message.q,
    )


def _read_book_ticker(data: bytes) -> Bbo:
    message = _book_ticker(data)
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
    "trade": _read_trade,
    "aggTrade": _read_agg_trade,
    "bookTicker": _read_book_ticker,
}


def _levels(levels: list[_WireLevel]) -> list[Level]:
    return [(price, size, None) for price, size in levels]


def decode_snapshot(body: bytes, symbol: str) -> Snapshot:
    """Return the book that ``GET depth`` answered; spot's names neither its symbol nor a time."""
    answer = _rest_depth(body)
    return Snapshot(
        symbol=symbol,
        ts_event=None if answer.T is None else wire_time(answer.T),
        last_id=answer.lastUpdateId,
        bids=_levels(answer.bids),
        asks=_levels(answer.asks),
    )


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
