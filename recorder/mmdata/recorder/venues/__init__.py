"""The venues: one folder each, with the same files in it.

``decode.py`` turns frames into records (pure, used by ingest and import); ``stream.py`` says how a venue
is spoken to and reads the few fields that the recorder looks at while recording.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, cast

from mmdata.recorder.records import Instrument, Record, Snapshot
from mmdata.recorder.venues.binance import decode as _binance
from mmdata.recorder.venues.binance.stream import BinanceStream
from mmdata.recorder.venues.okx import decode as _okx
from mmdata.recorder.venues.okx.stream import OkxStream
from mmdata.recorder.venues.stream import Stream


class Decoder(Protocol):
    """What a venue's ``decode`` module offers; each raises one of UNREADABLE on what it cannot read."""

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


DECODERS: dict[str, Decoder] = {
    "binance": cast(Decoder, _binance),
    "binance-usdm": cast(Decoder, _binance),
    "okx": cast(Decoder, _okx),
}
"""By exchange id."""
_STREAMS: dict[str, Callable[[Sequence[str], Sequence[str], str], Stream]] = {
    "binance": BinanceStream,
    "okx": OkxStream,
}


def open_stream(exchange: str, symbols: Sequence[str], channels: Sequence[str], ws_url: str) -> Stream:
    """Return the stream of ``channels`` of ``symbols`` at ``ws_url``. KeyError: not a venue we record."""
    return _STREAMS[exchange](symbols, channels, ws_url)
