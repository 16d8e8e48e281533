"""What can go wrong: a frozen struct for each kind, whose fields are the keys that it may have.

Durations are ints of ns here and carry a unit in a script (``5s``). Every kind has a trigger: by time,
counted from when the venue is first spoken to, or by message, counted on each connection.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta, Struct, field

VenueName: TypeAlias = Literal["binance", "okx"]


class Span(int):
    """A duration of 0 ns or more."""


class Step(int):
    """A duration in ns that may be negative."""


class Size(int):
    """A number of bytes."""


_Positive = Annotated[int, Meta(ge=1)]

_UNSENDABLE = (1004, 1005, 1006, 1015)


class Fault(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all kinds share: at which venue, and when.

    venue                   one venue; without it each of the two on its own
    at, every, jitter       once at this time, and again so often; each later by up to ``jitter``
    at_message, every_messages    once at this message, and again so often
    count                   strikes in all; without it one, or no end if it repeats
    """

    venue: VenueName | None = None
    at: Span | None = None
    every: Span | None = None
    jitter: Span = Span(0)
    at_message: _Positive | None = None
    every_messages: _Positive | None = None
    count: _Positive | None = None

    def __post_init__(self) -> None:
        """Refuse a fault that never strikes, or of which nobody could say when."""
        timed = self.at is not None or self.every is not None
        counted = self.at_message is not None or self.every_messages is not None
        if timed == counted:
            found = "triggers of both sorts" if timed else "no trigger"
            raise ValueError(f"found {found}, expected at and every, or at_message and every_messages")
        if self.every is not None and not self.every:
            raise ValueError("every: found 0s, expected more than nothing")
        if self.jitter and counted:
            raise ValueError("jitter: found beside a trigger by message, expected at or every")
        served = self.venues()
        if self.venue is not None and self.venue not in served:
            raise ValueError(f"venue: found {self.venue}, expected {served[0]}: no other venue does this")

    @classmethod
    def venues(cls) -> tuple[VenueName, ...]:
        """Return the venues at which this can happen."""
        return ("binance", "okx")

    @property
    def kind(self) -> str:
        """The word that a script says."""
        return str(self.__struct_config__.tag)


class OnConnection(Fault, frozen=True, kw_only=True):
    """What befalls connections: one of them (a seeded choice, when by time), or ``all``.

    symbol, channel, stream    only what is subscribed so; ``stream`` is a whole name and may hold ``*``
    """

    symbol: str | None = None
    channel: str | None = None
    stream: str | None = None
    all: bool = False

    def concerns(self, key: str) -> bool:
        """Return whether a subscription's messages are meant.

        >>> Drop(at=Span(0), symbol="BTCUSDT", channel="depth").concerns("btcusdt@depth@100ms")
        True
        >>> Drop(at=Span(0), stream="books:*").concerns("trades:BTC-USDT")
        False
        """
        symbol, channel = names(key)
        return (
            self.symbol in (None, symbol)
            and self.channel in (None, channel, channel.partition("@")[0])
            and (self.stream is None or fnmatchcase(key, self.stream))
        )

    @property
    def unfiltered(self) -> bool:
        """Whether every connection is meant, whatever it subscribed to."""
        return self.symbol is None and self.channel is None and self.stream is None


def names(key: str) -> tuple[str, str]:
    """Return symbol and channel of a subscription, by either venue's way of writing one.

    >>> names("btcusdt@depth@100ms"), names("books:BTC-USDT")
    (('BTCUSDT', 'depth@100ms'), ('BTC-USDT', 'books'))
    """
    if ":" in key:
        channel, _, symbol = key.partition(":")
        return symbol, channel
    symbol, _, channel = key.partition("@")
    return symbol.upper(), channel


def is_book(key: str) -> bool:
    """Return whether a subscription is a chain of diffs.

    >>> is_book("btcusdt@depth@100ms"), is_book("books:BTC-USDT"), is_book("bbo-tbt:BTC-USDT")
    (True, True, False)
    """
    return names(key)[1] in ("depth", "depth@100ms", "depth@1000ms", "books")


class OnFrame(OnConnection, frozen=True, kw_only=True):
    """What befalls a frame; a strike hits ``burst`` matching frames in a row, or all of a time (``for``)."""

    burst: _Positive | None = None
    for_: Span | None = field(default=None, name="for")


class Drop(OnFrame, frozen=True, kw_only=True, tag="drop"):
    """The frame is never sent."""


class Duplicate(OnFrame, frozen=True, kw_only=True, tag="duplicate"):
    """The frame is sent twice."""


class Reorder(OnFrame, frozen=True, kw_only=True, tag="reorder"):
    """The frame changes places with the next one of its stream."""


class Delay(OnFrame, frozen=True, kw_only=True, tag="delay"):
    """The frame leaves later; what follows waits behind it, unless the order is not kept."""

    by: Span
    keep_order: bool = True


class Truncate(OnFrame, frozen=True, kw_only=True, tag="truncate"):
    """The text ends early: after so many bytes, or anywhere."""

    bytes: _Positive | None = None


class InvalidJson(OnFrame, frozen=True, kw_only=True, tag="invalid_json"):
    """One quotation mark is missing."""


class UnknownField(OnFrame, frozen=True, kw_only=True, tag="unknown_field"):
    """The payload begins with a field that no document names."""

    field: str = "xf"
    value: Any = "new"


class WrongType(OnFrame, frozen=True, kw_only=True, tag="wrong_type"):
    """A field of the payload, or any, has a value of another type."""

    field: str | None = None


class Oversize(OnFrame, frozen=True, kw_only=True, tag="oversize"):
    """The frame is padded to this size."""

    size: Size = Size((16 << 20) + 1)


class Stall(OnConnection, frozen=True, kw_only=True, tag="stall"):
    """Nothing is sent for a time while the socket stays open: then it all comes at once, or never."""

    for_: Span = field(name="for")
    lose: bool = False


class Close(OnConnection, frozen=True, kw_only=True, tag="close"):
    """The socket is closed, with a close frame."""

    code: Annotated[int, Meta(ge=1000, le=4999)] = 1012
    reason: str = ""

    def __post_init__(self) -> None:
        """Refuse a code that RFC 6455, section 7.4, keeps from close frames."""
        super().__post_init__()
        if self.code in _UNSENDABLE or 1016 <= self.code < 3000:
            raise ValueError(f"code: found {self.code}, expected one that may stand in a close frame")


class Abort(OnConnection, frozen=True, kw_only=True, tag="abort"):
    """The socket is gone without a close frame."""


class ServerShutdown(OnConnection, frozen=True, kw_only=True, tag="server_shutdown"):
    """Binance says that the connection will end, in one of three shapes; then perhaps closes it.

    ``auto`` is ``raw`` on /ws and ``combined`` on /stream; ``event`` is the WebSocket API's.
    """

    shape: Literal["auto", "raw", "combined", "event"] = "auto"
    close_after: Span | None = None

    @classmethod
    def venues(cls) -> tuple[VenueName, ...]:
        """Return Binance."""
        return ("binance",)


class Notice(OnConnection, frozen=True, kw_only=True, tag="notice"):
    """OKX says 64008, service upgrade, and closes the connection so much later."""

    close_after: Span = Span(60_000_000_000)

    @classmethod
    def venues(cls) -> tuple[VenueName, ...]:
        """Return OKX."""
        return ("okx",)


class IgnorePing(OnConnection, frozen=True, kw_only=True, tag="ignore_ping"):
    """OKX answers no text ping, for a time or as long as the connection lives."""

    for_: Span | None = field(default=None, name="for")

    @classmethod
    def venues(cls) -> tuple[VenueName, ...]:
        """Return OKX."""
        return ("okx",)


class StopPings(OnConnection, frozen=True, kw_only=True, tag="stop_pings"):
    """Binance sends no ping frame, for a time or as long as the connection lives."""

    for_: Span | None = field(default=None, name="for")

    @classmethod
    def venues(cls) -> tuple[VenueName, ...]:
        """Return Binance."""
        return ("binance",)


class ClockStep(Fault, frozen=True, kw_only=True, tag="clock_step"):
    """The venue's clock jumps: all stamps from now on, and the time endpoint. Messages are the published."""

    by: Step


class IdReset(Fault, frozen=True, kw_only=True, tag="id_reset"):
    """Ids go down by so much, of one symbol or of all. Messages count as published.

    OKX: ``seqId``, linked by ``prevSeqId``. Binance: update, trade and aggregate ids, and no history.
    """

    symbol: str | None = None
    by: Annotated[int, Meta(ge=1, le=10**9)] = 1_000_000


def _require_error(status: int) -> None:
    if status < 400 or status not in {known.value for known in HTTPStatus}:
        raise ValueError(f"status: found {status}, expected an HTTP error, such as 429 or 503")


class OnRequest(Fault, frozen=True, kw_only=True):
    """What befalls requests: a strike hits ``burst`` of them, or those of a time (``for``)."""

    burst: _Positive | None = None
    for_: Span | None = field(default=None, name="for")


class Refuse(OnRequest, frozen=True, kw_only=True, tag="refuse"):
    """No new socket: the handshake is answered with a status, or reset. Messages are handshakes."""

    how: Literal["http", "reset"] = "http"
    status: int = 503

    def __post_init__(self) -> None:
        """Refuse a status that is no error."""
        super().__post_init__()
        _require_error(self.status)


class OnRest(OnRequest, frozen=True, kw_only=True):
    """What befalls REST requests, of a path and of a symbol; messages are the requests that match."""

    path: str | None = None
    symbol: str | None = None


class RestError(OnRest, frozen=True, kw_only=True, tag="rest_error"):
    """An error instead of the answer: 429 or 418 (with ``Retry-After``), 403, 5xx."""

    status: int = 503
    retry_after: Span | None = None

    def __post_init__(self) -> None:
        """Refuse a status that is no error."""
        super().__post_init__()
        _require_error(self.status)


class RestSlow(OnRest, frozen=True, kw_only=True, tag="rest_slow"):
    """The answer, made at once, arrives later."""

    by: Span


class RestStale(OnRest, frozen=True, kw_only=True, tag="rest_stale"):
    """A book is answered as it was so long ago."""

    by: Span = Span(5_000_000_000)


class RestAhead(OnRest, frozen=True, kw_only=True, tag="rest_ahead"):
    """A book is answered that the streams reach later: its diffs are held back on every socket.

    The answer is made when half of the time has passed, so that it is ahead by the other half.
    """

    by: Span = Span(2_000_000_000)


KINDS: dict[str, type[Fault]] = {
    str(cls.__struct_config__.tag): cls
    for cls in (
        Drop, Duplicate, Reorder, Delay, Truncate, InvalidJson, UnknownField, WrongType, Oversize,
        Stall, Close, Abort, ServerShutdown, Notice, IgnorePing, StopPings,
        ClockStep, IdReset, Refuse, RestError, RestSlow, RestStale, RestAhead,
    )
}  # fmt: skip
