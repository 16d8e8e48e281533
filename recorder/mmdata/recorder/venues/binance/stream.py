"""Binance spot as it is spoken to: all streams in the address, microseconds, no subscription needed.

Source: Binance spot API docs of 2026-07-21, "WebSocket Streams": combined form, ``timeUnit``, up to 1024
streams a connection; ping frames every 20 s are answered by the WebSocket library.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from urllib.parse import quote

import msgspec

from mmdata.datasets.chain import CHAINS, NO_ID
from mmdata.recorder.venues.binance.decode import (
    TIME_PATH,
    read_agg_trade,
    read_book_ticker,
    read_depth,
    read_trade,
    skim_depth,
)
from mmdata.recorder.venues.stream import BBO, CLOSING, CONTROL, DEPTH, NOTICE, TRADES, Limits, Request, Seen

_WRAPPER = b'{"stream":"'
_SNAPSHOT_LEVELS = 5000  # the most there is
_SNAPSHOT_WEIGHT, _INSTRUMENTS_WEIGHT, _TIME_WEIGHT = 250, 20, 1
MOST_STREAMS = 200
"""A connection may have 1024; their names must fit the first line of the request."""
# 300 attempts in 5 minutes an address, of which we stay under 60; connections live 24 h; 5 messages/s.
_LIMITS = Limits((0.2, 10), (3.0, 3), 6000, 23 * 3600.0)


_any = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_PLAIN = b'["",""],'
_NOTHING: tuple[Seen, ...] = ()


def _read_depth(frame: bytes) -> Seen:
    diff = skim_depth(frame).data
    if not (_is_plain(diff.b) and _is_plain(diff.a)):
        read_depth(frame)  # raises where ingest would: a level that is none is a hole
    return Seen(DEPTH, diff.s, diff.U, diff.u, diff.U - 1)


def _is_plain(levels: msgspec.Raw) -> bool:
    """Tell whether levels are pairs of strings of digits and points: then they need not be decoded."""
    shape = bytes(levels).translate(None, b"0123456789.")
    return shape == b"[" + (_PLAIN * (len(shape) // len(_PLAIN)))[:-1] + b"]"


def _read_trade(frame: bytes) -> Seen:
    trade = read_trade(frame).data
    return Seen(TRADES, trade.s, trade.t, trade.t, trade.t - 1, False, "trade")


def _read_agg(frame: bytes) -> Seen:
    trade = read_agg_trade(frame).data
    return Seen(TRADES, trade.s, trade.a, trade.a, trade.a - 1, False, "agg")


def _read_ticker(frame: bytes) -> Seen:
    best = read_book_ticker(frame).data
    return Seen(BBO, best.s, best.u, best.u, NO_ID)


_READERS: dict[str, Callable[[bytes], Seen]] = {
    "depth": _read_depth,
    "depth@100ms": _read_depth,
    "trade": _read_trade,
    "aggTrade": _read_agg,
    "bookTicker": _read_ticker,
}
"""By channel."""


class BinanceStream:
    """Binance spot streams of some symbols."""

    exchange: str = "binance"
    chain = CHAINS["binance"]
    time_unit: str = "us"
    limits = _LIMITS
    keepalive: bytes | None = None
    rest_headers: Mapping[str, str] = MappingProxyType({"X-MBX-TIME-UNIT": "MICROSECOND"})

    def __init__(self, symbols: Sequence[str], channels: Sequence[str], ws_url: str) -> None:
        self.symbols = tuple(symbols)
        self.has_books = any(channel.startswith("depth") for channel in channels)
        streams = [f"{symbol.lower()}@{channel}" for symbol in symbols for channel in channels]
        self._readers = {
            f"{symbol.lower()}@{channel}".encode(): _READERS[channel]
            for symbol in symbols
            for channel in channels
        }
        names = "/".join(quote(stream, safe="@") for stream in streams)
        self.url = f"{ws_url}/stream?streams={names}&timeUnit=MICROSECOND"

    def opening(self) -> Sequence[bytes]:
        """Return nothing: the address subscribes."""
        return ()

    def resubscribe(self, symbol: str) -> Sequence[bytes]:
        """Return nothing: books start from REST here."""
        return ()

    def look(self, frame: bytes) -> Sequence[Seen]:
        """Return the ids in a frame, all of which is read: one that ingest could not decode is a hole."""
        if not frame.startswith(_WRAPPER):
            return self._look_bare(frame)
        name = frame[len(_WRAPPER) : frame.index(b'"', len(_WRAPPER))]
        read = self._readers.get(name)
        if read is not None:
            return (read(frame),)
        if name == b"!serverShutdown":
            return (Seen(CLOSING, "", text="serverShutdown"),)
        return _NOTHING

    def _look_bare(self, frame: bytes) -> Sequence[Seen]:
        keys = _any(frame)
        if b'"serverShutdown"' in frame:  # bare, or wrapped in an "event"
            return (Seen(CLOSING, "", text="serverShutdown"),)
        if "code" in keys or "error" in keys:
            return (Seen(NOTICE, "", text=frame.decode(errors="replace")),)
        return (Seen(CONTROL, ""),)

    def snapshot_request(self, symbol: str) -> Request:
        """Return the request for the deepest book there is."""
        path = f"/api/v3/depth?symbol={quote(symbol)}&limit={_SNAPSHOT_LEVELS}"
        return Request("snapshot", path, (symbol,), _SNAPSHOT_WEIGHT)

    def instruments_requests(self) -> Sequence[Request]:
        """Return the one request for the filters of all symbols."""
        listed = ",".join(f'"{symbol}"' for symbol in self.symbols)
        path = f"/api/v3/exchangeInfo?symbols={quote(f'[{listed}]')}"
        return (Request("instruments", path, self.symbols, _INSTRUMENTS_WEIGHT),)

    def time_request(self) -> Request:
        """Return the request for the venue's clock."""
        return Request("time", TIME_PATH, (), _TIME_WEIGHT)
