"""What the recorder asks of a venue: how it is spoken to, and which ids a frame carries.

A `Stream` is what one connection brings; `split` deals the symbols out to as many as the venue wants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from mmdata.datasets.chain import ChainRule

DEPTH, TRADES, BBO = "depth", "trades", "bbo"
NOTICE, CLOSING, CONTROL = "notice", "closing", "control"


class Seen(msgspec.Struct, gc=False):
    """The few fields of a frame that the recorder looks at while recording."""

    channel: str
    """DEPTH, TRADES, BBO; NOTICE for what a person should read; CLOSING where the venue says that it will
    close the connection soon; CONTROL for the rest."""
    symbol: str
    first_id: int = 0
    last_id: int = 0
    prev_id: int = 0
    """Last id of the message before, as the chain counts; NO_ID where messages are not chained."""
    is_snapshot: bool = False
    text: str = ""
    """Of trades: their kind. Of a notice: what the venue said. Of a confirmed subscription: its channel."""


class Request(NamedTuple):
    """A REST request: path with query below the venue's address."""

    purpose: str
    """``snapshot``, ``instruments``, ``time`` or ``backfill``."""
    path: str
    symbols: tuple[str, ...]
    weight: float = 1.0
    """Of `Limits.rest_per_minute`."""
    span: tuple[str, int, int] | None = None
    """Of a backfill: kind of trades, first and last id that are missing."""


class Limits(NamedTuple):
    """How often the venue may be spoken to."""

    connects: tuple[float, float]
    """Attempts to connect: a second in the long run, and at once."""
    messages: tuple[float, float]
    """Messages that we send on one connection: a second in the long run, and at once."""
    rest_per_minute: float
    """Weight of REST requests, all that the venue allows an address."""
    lifetime_s: float
    """A connection is replaced at this age, before the venue cuts it."""


class Stream(Protocol):
    """One venue's stream of some symbols and channels."""

    exchange: str
    chain: ChainRule
    limits: Limits
    symbols: tuple[str, ...]
    url: str
    """Address of the WebSocket, streams included where the venue takes them there."""
    time_unit: str
    has_books: bool
    """Is a book channel among the channels?"""
    keepalive: bytes | None
    """Text to send when nothing was received for a while; None where the venue pings us."""
    rest_headers: Mapping[str, str]
    """Sent with every REST request."""

    def opening(self) -> Sequence[bytes]:
        """Return what is sent when the connection is open."""

    def resubscribe(self, symbol: str) -> Sequence[bytes]:
        """Return what is sent to get a fresh book in the stream."""

    def look(self, frame: bytes) -> Sequence[Seen]:
        """Return the ids in a frame. msgspec.MsgspecError: it cannot be read."""

    def snapshot_request(self, symbol: str) -> Request:
        """Return the request for the whole book."""

    def instruments_requests(self) -> Sequence[Request]:
        """Return the requests for tick and lot of all symbols."""

    def time_request(self) -> Request:
        """Return the request for the venue's clock."""
