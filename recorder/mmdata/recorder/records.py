"""What a venue's frame says, in the field's words: the step between wire message and table row.

Prices and sizes are the wire's own strings; times are ns since the epoch, UTC; an id that the venue
did not send is None. Frozen: what was recorded is what was true. Not watched by the garbage collector: a
record holds no other, and hundreds of thousands wait for the next part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from mmdata.recorder.levels import WireLevels

Id = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
"""An id as a table holds it; one beyond 64 bits is refused where the frame is decoded."""
Small = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1)]
"""A number that a table holds in 32 bits."""
Symbol = Annotated[str, Meta(min_length=1)]
"""A symbol that has a name: an empty one would be no partition's."""
_LATEST = 2**63

Level = tuple[str, str, int | None]
"""Price, size, and the number of orders where the venue tells it."""
Levels = Sequence[Level] | WireLevels
"""One side of a book: read, or still the wire's bytes and only counted."""

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding may raise for a frame that nobody understands (deep nesting included)."""


class Depth(msgspec.Struct, frozen=True, gc=False):
    """A change of levels, or with ``is_snapshot`` a whole book, sent in the stream."""

    symbol: str
    ts_event: int | None
    ts_sent: int | None
    first_id: int | None
    last_id: int | None
    prev_id: int | None
    bids: Levels
    asks: Levels
    checksum: int | None = None
    is_snapshot: bool = False


class Snapshot(msgspec.Struct, frozen=True, gc=False):
    """A whole book asked for over REST."""

    symbol: str
    ts_event: int | None
    last_id: int | None
    bids: Levels
    asks: Levels


class Trade(msgspec.Struct, frozen=True, gc=False):
    """A trade or an aggregate of trades; ``side`` is the taker's."""

    symbol: str
    kind: str
    ts_event: int | None
    ts_sent: int | None
    trade_id: int
    first_trade_id: int | None
    last_trade_id: int | None
    side: str
    price: str
    size: str
    seq: int | None = None
    flags: str | None = None


class Bbo(msgspec.Struct, frozen=True, gc=False):
    """The best bid and ask; None for an empty side."""

    symbol: str
    ts_event: int | None
    ts_sent: int | None
    last_id: int | None
    bid: Level | None
    ask: Level | None


class Instrument(msgspec.Struct, frozen=True, gc=False):
    """What the venue says of a symbol; ``raw`` is its own JSON."""

    symbol: str
    status: str | None
    base: str | None
    quote: str | None
    tick_size: str
    lot_size: str
    min_size: str | None
    min_notional: str | None
    contract_value: str | None
    raw: str


class Untabled(msgspec.Struct, frozen=True, gc=False):
    """A sound frame that no table holds: a control reply, or a channel that is not recorded."""

    channel: str
    control: bool


Record = Depth | Trade | Bbo | Untabled


def wire_time(value: int) -> int:
    """Return a venue's time, ms or µs since the epoch, in ns: 13 digits are ms, 16 are µs.

    ValueError: it is no time that 64 bits of ns hold.

    >>> wire_time(1723161255208), wire_time(1723161255208123)
    (1723161255208000000, 1723161255208123000)
    """
    ns = value * 1_000_000 if value < 100_000_000_000_000 else value * 1_000
    if not 0 <= ns < _LATEST:
        raise ValueError(f"{value} is no time in ms or µs since the epoch")
    return ns
