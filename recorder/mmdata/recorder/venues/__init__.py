"""The venues: one folder each, with the same files in it.

``decode.py`` turns frames into records (pure, used by ingest and import); ``stream.py`` says how a venue
is spoken to and reads the few fields that the recorder looks at while recording; ``history.py`` asks for
trades that were missed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from mmdata.recorder.records import Instrument, Record, Snapshot, Trade
from mmdata.recorder.venues.binance import decode as _binance
from mmdata.recorder.venues.binance import history as _binance_history
from mmdata.recorder.venues.binance.stream import MOST_STREAMS, BinanceStream
from mmdata.recorder.venues.okx import decode as _okx
from mmdata.recorder.venues.okx import history as _okx_history
from mmdata.recorder.venues.okx.stream import MOST_BOOKS, OkxStream
from mmdata.recorder.venues.stream import Request, Stream


class Decoder(Protocol):
    """What a venue's ``decode`` module offers; each raises one of UNREADABLE on what it cannot read."""

    TIME_PATH: str
    """Path, below the REST address, that answers the venue's time."""

    def decode(self, frame: bytes) -> Sequence[Record]:
        """Return what a stream's frame says: slow, strict, obviously right."""

    def skim(self, frame: bytes) -> Sequence[Record]:
        """Return the same, or raise the same; the levels of a book may be left as the wire's bytes."""

    def decode_snapshot(self, body: bytes, symbol: str) -> Snapshot:
        """Return the book that REST answered."""

    def skim_snapshot(self, body: bytes, symbol: str) -> Snapshot:
        """Return the same, or raise the same; the levels may be left as the wire's bytes."""

    def decode_instruments(self, body: bytes, symbols: Sequence[str]) -> list[Instrument]:
        """Return what REST says of instruments; all of them when ``symbols`` is empty."""

    def decode_time(self, body: bytes) -> int:
        """Return the venue's clock as REST answered ``TIME_PATH``, in ns since the epoch."""


class History(Protocol):
    """What a venue's ``history`` module offers: its trades over REST, by id."""

    OLDEST_FIRST: bool
    """Does a page begin at the oldest id asked for, or end at the newest?"""

    def request(self, symbol: str, kind: str, first_id: int, last_id: int) -> Request:
        """Return the request for one page of the trades from ``first_id`` to ``last_id``."""

    def decode(self, body: bytes, symbol: str, kind: str) -> list[Trade]:
        """Return the trades of an answer."""


DECODERS: dict[str, Decoder] = {
    "binance": cast(Decoder, _binance),
    "binance-usdm": cast(Decoder, _binance),
    "okx": cast(Decoder, _okx),
}
"""By exchange id."""
HISTORIES: dict[str, History] = {
    "binance": cast(History, _binance_history),
    "okx": cast(History, _okx_history),
}
"""By exchange id, of the venues that we record."""
_STREAMS: dict[str, Callable[[Sequence[str], Sequence[str], str], Stream]] = {
    "binance": BinanceStream,
    "okx": OkxStream,
}


_MOST: dict[str, Callable[[Sequence[str]], int]] = {
    "binance": lambda channels: max(1, MOST_STREAMS // len(channels)),
    "okx": lambda channels: MOST_BOOKS,
}
"""Symbols that one connection takes, by exchange and channels."""


def open_streams(exchange: str, symbols: Sequence[str], channels: Sequence[str], ws_url: str) -> list[Stream]:
    """Deal ``symbols`` out to as many streams as the venue's limits of one connection ask for."""
    most = _MOST[exchange](channels)
    parts = [symbols[at : at + most] for at in range(0, len(symbols), most)]
    return [open_stream(exchange, part, channels, ws_url) for part in parts]


def open_stream(exchange: str, symbols: Sequence[str], channels: Sequence[str], ws_url: str) -> Stream:
    """Return the stream of ``channels`` of ``symbols`` at ``ws_url``. KeyError: not a venue we record."""
    return _STREAMS[exchange](symbols, channels, ws_url)
