"""The trades of one symbol as REST tells them: a bounded history, found again by id or by time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from sys import intern
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from mmdata.sandbox.engine import Taker

KEPT = 200_000
"""Trades that are kept of a symbol: an hour and a half of the default market."""


class TapeTrade(NamedTuple):
    """One trade; ``ts_event`` in ns, price and size as the venue writes them."""

    trade_id: int
    ts_event: int
    price: str
    size: str
    taker: Taker


class TapeAggregate(NamedTuple):
    """The fills of one taker order at one price (Binance); ``trade_id`` is the aggregate's own."""

    trade_id: int
    ts_event: int
    price: str
    size: str
    taker: Taker
    first_trade_id: int
    last_trade_id: int


_Entry = TypeVar("_Entry", TapeTrade, TapeAggregate)


class Tape(Generic[_Entry]):
    """Entries in order of id and of time, the newest ``kept`` of them.

    What does not go up in id is a repetition and is passed over; ids may be missing (a capture that
    lost some is played back).
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._entries: list[_Entry] = []

    def add(self, entry: _Entry) -> None:
        """Append the newest entry."""
        entries = self._entries
        if entries and entry.trade_id <= entries[-1].trade_id:
            return
        # Of hundreds of thousands of prices and sizes few differ: kept once, they are half the memory.
        entries.append(entry._replace(price=intern(entry.price), size=intern(entry.size)))
        # Cut rarely: moving the rest costs as much as the tape is long.
        if len(entries) > self._kept + self._kept // 8:
            del entries[: -self._kept]

    def clear(self) -> None:
        """Forget everything: the venue's ids begin anew."""
        self._entries.clear()

    def newest(self, limit: int) -> list[_Entry]:
        """Return the last ``limit`` entries, oldest first."""
        return self._entries[-limit:]

    def from_id(self, first_id: int, limit: int) -> list[_Entry]:
        """Return up to ``limit`` entries from this id on, oldest first."""
        at = bisect_left(self._entries, first_id, key=_id)
        return self._entries[at : at + limit]

    def before_id(self, end_id: int, limit: int) -> list[_Entry]:
        """Return the last ``limit`` entries older than this id, oldest first."""
        at = bisect_left(self._entries, end_id, key=_id)
        return self._entries[max(at - limit, 0) : at]

    def between(self, start_ns: int, end_ns: int, limit: int) -> list[_Entry]:
        """Return up to ``limit`` entries with ``start_ns <= ts_event <= end_ns``, oldest first."""
        at = bisect_left(self._entries, start_ns, key=_time)
        return self._entries[at : min(at + limit, bisect_right(self._entries, end_ns, key=_time))]

    def until(self, end_ns: int, limit: int) -> list[_Entry]:
        """Return the last ``limit`` entries with ``ts_event <= end_ns``, oldest first."""
        at = bisect_right(self._entries, end_ns, key=_time)
        return self._entries[max(at - limit, 0) : at]


def _id(entry: TapeTrade | TapeAggregate) -> int:
    return entry.trade_id


def _time(entry: TapeTrade | TapeAggregate) -> int:
    return entry.ts_event
