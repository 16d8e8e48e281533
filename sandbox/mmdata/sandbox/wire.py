"""The words between the venues' rules (pure) and the sockets: reactions, messages, REST answers."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


class Send(NamedTuple):
    """Send this text to the connection that asked."""

    text: str


class Join(NamedTuple):
    """From now on the connection gets the messages of this subscription."""

    key: str


class Leave(NamedTuple):
    """From now on it does not."""

    key: str


class Close(NamedTuple):
    """Close the connection."""

    code: int
    reason: str


Reaction: TypeAlias = Send | Join | Leave | Close


class Style(NamedTuple):
    """How a connection wants its frames; OKX knows one style only."""

    combined: bool = True
    micro: bool = False


class Message(Protocol):
    """Something to publish to everyone who joined ``key``."""

    @property
    def key(self) -> str:
        """The subscription that gets it."""

    @property
    def book_ids(self) -> tuple[int, int] | None:
        """First and last id of a book message that chains, which ``drop`` may withhold; else None."""

    def render(self, style: Style) -> str:
        """Return the text of the frame."""


class Session(Protocol):
    """One connection's side of a venue's control protocol: text in, reactions out; no clock."""

    style: Style

    def opened(self) -> list[Reaction]:
        """Return what the address asked for."""

    def receive(self, text: str, now_ns: int) -> list[Reaction]:
        """Return what a message from the client leads to."""


class Answer(NamedTuple):
    """A REST answer; the body is JSON."""

    status: int
    body: str
    headers: Mapping[str, str] = {}


class Window:
    """Counts what happened in the last seconds: a venue's rate limit."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self._span_ns = int(seconds * NS_PER_S)
        self._times: deque[int] = deque()

    def exceeded(self, now_ns: int) -> bool:
        """Count one more, and return whether that is one too many."""
        self._times.append(now_ns)
        while self._times[0] <= now_ns - self._span_ns:
            self._times.popleft()
        return len(self._times) > self.limit


_LEAST_MICRO = 10**14
"""A Binance time from here on is in microseconds: milliseconds get there in the year 5138."""


def whole_ns(time: int) -> tuple[int, int]:
    """Return first and last ns of a Binance time, whose size tells milliseconds from microseconds."""
    unit_ns = 1000 if time >= _LEAST_MICRO else NS_PER_MS
    return time * unit_ns, (time + 1) * unit_ns - 1


def rows(levels: Iterable[str]) -> str:
    """Return encoded levels as one JSON array."""
    return f"[{','.join(levels)}]"


def compact(value: object) -> str:
    """Return a value as JSON without spaces; what UTF-8 cannot say (a lone surrogate) as ``?``."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.encode("utf-8", "replace").decode()
