"""What the recorder asks of a venue: how it is spoken to, and which ids a frame carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from mmdata.datasets.chain import ChainRule

DEPTH, TRADES, NOTICE, CONTROL = "depth", "trades", "notice", "control"


class Seen(NamedTuple):
    """The few fields of a frame that the recorder looks at while recording."""

    channel: str
    """DEPTH, TRADES; NOTICE for what a person should read; CONTROL for the rest."""
    symbol: str
    first_id: int = 0
    last_id: int = 0
    prev_id: int = 0
    is_snapshot: bool = False
    text: str = ""
    """Of trades: their kind. Of a notice: what the venue said. Of a confirmed subscription: its channel."""


class Request(NamedTuple):
    """A REST request: path with query below the venue's address."""

    purpose: str
    """``snapshot`` or ``instruments``."""
    path: str
    symbols: tuple[str, ...]


class Stream(Protocol):
    """One venue's stream of some symbols and channels."""

    exchange: str
    chain: ChainRule
    url: str
    """Address of the WebSocket, streams included where the venue takes them there."""
    time_unit: str
    has_books: bool
    """Is a book channel among the channels?"""
    keepalive: bytes | None
    """Text to send when nothing was received for a while; None where the library's pongs do."""

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
