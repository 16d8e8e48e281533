"""What a fault plan decides; somebody with sockets carries it out."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias


class Deliver(NamedTuple):
    """Send this text now, as it stands."""

    conn: int
    text: str


class Hangup(NamedTuple):
    """Close the connection with a close frame."""

    conn: int
    code: int
    reason: str


class Cut(NamedTuple):
    """Let the connection vanish without a close frame."""

    conn: int


class Announce(NamedTuple):
    """Send Binance's ``serverShutdown`` in this shape."""

    conn: int
    shape: str


class Notify(NamedTuple):
    """Send OKX's notice 64008."""

    conn: int


class StepClock(NamedTuple):
    """Let the venue's clock jump."""

    by_ns: int


class ResetIds(NamedTuple):
    """Let the ids of a symbol (None: of all) go down."""

    symbol: str | None
    by: int


Deed: TypeAlias = Deliver | Hangup | Cut | Announce | Notify | StepClock | ResetIds


class Refusal(NamedTuple):
    """How a handshake is refused; status 0 resets the connection without an answer."""

    status: int


class RestVerdict(NamedTuple):
    """What is done to a REST answer: an error instead, an older book, made later, arriving later."""

    status: int = 0
    retry_after_ns: int | None = None
    older_ns: int = 0
    made_after_ns: int = 0
    delay_ns: int = 0
