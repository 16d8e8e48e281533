"""Binance spot as it is spoken to: all streams in the address, microseconds, no subscription needed.

Source: Binance spot API docs of 2026-07-21, "WebSocket Streams": combined form, ``timeUnit``, up to 1024
streams a connection; ping frames every 20 s are answered by the WebSocket library.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import msgspec

from mmdata.datasets.chain import CHAINS
from mmdata.recorder.venues.stream import CONTROL, DEPTH, NOTICE, TRADES, Request, Seen

_WRAPPER = b'{"stream":"'
_SNAPSHOT_LEVELS = 5000  # the most there is; weight 250 of 6000 a minute


class _DepthIds(msgspec.Struct):
    s: str
    U: int
    u: int


class _TradeIds(msgspec.Struct):
    s: str
    t: int


class _AggIds(msgspec.Struct):
    s: str
    a: int


class _Depth(msgspec.Struct):
    data: _DepthIds


class _Trade(msgspec.Struct):
    data: _TradeIds


class _Agg(msgspec.Struct):
    data: _AggIds


_depth = msgspec.json.Decoder(_Depth).decode
_trade = msgspec.json.Decoder(_Trade).decode
_agg = msgspec.json.Decoder(_Agg).decode
_any = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NOTHING: tuple[Seen, ...] = ()


class BinanceStream:
    """Binance spot streams of some symbols."""

    exchange: str = "binance"
    chain = CHAINS["binance"]
    time_unit: str = "us"
    keepalive: bytes | None = None

    def __init__(self, symbols: Sequence[str], channels: Sequence[str], ws_url: str) -> None:
        self._symbols = tuple(symbols)
        self.has_books = any(channel.startswith("depth") for channel in channels)
        streams = [f"{symbol.lower()}@{channel}" for symbol in symbols for channel in channels]
        names = "/".join(quote(stream, safe="@") for stream in streams)
        self.url = f"{ws_url}/stream?streams={names}&timeUnit=MICROSECOND"

    def opening(self) -> Sequence[bytes]:
        """Return nothing: the address subscribes."""
        return ()

    def resubscribe(self, symbol: str) -> Sequence[bytes]:
        """Return nothing: books start from REST here."""
        return ()

    def look(self, frame: bytes) -> Sequence[Seen]:
        """Return the ids in a frame; levels are skipped, not decoded."""
        if not frame.startswith(_WRAPPER):
            return self._look_bare(frame)
        name = frame[len(_WRAPPER) : frame.index(b'"', len(_WRAPPER))]
        channel = name[name.find(b"@") :]
        if channel.startswith(b"@depth"):
            ids = _depth(frame).data
            return (Seen(DEPTH, ids.s, ids.U, ids.u, ids.U - 1),)
        if channel == b"@trade":
            trade = _trade(frame).data
            return (Seen(TRADES, trade.s, trade.t, trade.t, text="trade"),)
        if channel == b"@aggTrade":
            agg = _agg(frame).data
            return (Seen(TRADES, agg.s, agg.a, agg.a, text="agg"),)
        if name == b"!serverShutdown":
            return (Seen(NOTICE, "", text="serverShutdown"),)
        return _NOTHING

    def _look_bare(self, frame: bytes) -> Sequence[Seen]:
        keys = _any(frame)
        if "code" in keys or "error" in keys or b"serverShutdown" in frame:
            return (Seen(NOTICE, "", text=frame.decode(errors="replace")),)
        return (Seen(CONTROL, ""),)

    def snapshot_request(self, symbol: str) -> Request:
        """Return the request for the deepest book there is."""
        path = f"/api/v3/depth?symbol={quote(symbol)}&limit={_SNAPSHOT_LEVELS}"
        return Request("snapshot", path, (symbol,))

    def instruments_requests(self) -> Sequence[Request]:
        """Return the one request for the filters of all symbols."""
        listed = ",".join(f'"{symbol}"' for symbol in self._symbols)
        path = f"/api/v3/exchangeInfo?symbols={quote(f'[{listed}]')}"
        return (Request("instruments", path, self._symbols),)
