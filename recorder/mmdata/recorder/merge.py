"""Several connections that bring the same stream, merged by sequence id into one.

One machine a chain (the book of a symbol, its trades, its best bid and ask); ids in, a verdict out. No
clock, no socket: the recorder runs it while it records, ingest runs it again over the captured lines and
comes to the same verdicts. A segment's header carries the state at its beginning (`MergeState`).

The tables hold the first message to arrive that advances the chain. What another connection brings again
is a repeat; a message ahead of the chain is left to the connection that is behind, and will bring it and
what is missing before it, as long as there is one. Frames stay in the capture whatever the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mmdata.datasets.chain import LINKED, NO_ID, RANGE
from mmdata.recorder.records import Bbo, Depth, Record, Trade


class MergeState(msgspec.Struct, frozen=True, array_like=True):
    """What a merge knows between two messages."""

    head: int = NO_ID
    """Last id of the newest message that entered the tables."""
    leader: int = -1
    """Connection that brought it."""
    whole: bool = True
    """False after a hole in a chain that only a snapshot in the stream heals."""
    low: int = NO_ID
    """Last id of the newest message below the head: the start of a new count, or a repeat."""
    own: dict[int, int] = {}
    """By connection: the last id that it has brought."""


class Merge:
    """The chain of one stream over all the connections that bring it.

    ``rule`` is one of `mmdata.datasets.chain`. Every connection that ends must be taken out by `leave`.
    """

    __slots__ = ("_ahead", "_linked", "_low", "_own", "_whole", "head", "leader", "waiting_since")

    def __init__(self, rule: int, state: MergeState | None = None) -> None:
        state = state or MergeState()
        self._linked = rule == LINKED
        self.head = state.head
        self.leader = state.leader
        self._whole = state.whole
        self._low = state.low
        self._own = dict(state.own)
        self._ahead = NO_ID
        self.waiting_since: int | None = None
        """When the first message came (ns) that was left to a connection that is behind; see `is_owed`."""

    def state(self) -> MergeState:
        """Return what has to be known to go on from here."""
        return MergeState(self.head, self.leader, self._whole, self._low, dict(self._own))

    def enters(
        self, conn: int, last_id: int, prev_id: int, is_snapshot: bool = False, ts_recv: int = 0
    ) -> bool:
        """Take the ids of the next message of ``conn``; tell whether it enters the tables.

        ``prev_id`` is NO_ID where messages are not chained: each brings the whole truth, the newest counts.
        """
        if conn == self.leader and prev_id == self.head and last_id > prev_id:
            self._own[conn] = self.head = last_id  # by far the most frequent
            return True
        if last_id == NO_ID:
            return True  # nothing to go by
        before = self._own.get(conn, NO_ID)
        self._own[conn] = last_id
        alone = len(self._own) == 1
        if is_snapshot:
            return self._take_snapshot(conn, last_id, alone=alone)
        if self.head == NO_ID:
            return self._advance(conn, last_id)
        if self._linked and last_id <= prev_id == self.head:
            # A heartbeat (equal ids) or a maintenance reset, which goes on at the lower id.
            return self._advance(conn, last_id) if last_id < prev_id else alone or conn == self.leader
        if last_id <= self.head:
            return self._take_low(conn, last_id, prev_id, before, alone=alone)
        if prev_id == self.head or (prev_id < self.head and not self._linked):
            return self._advance(conn, last_id)
        if not alone and any(own <= self.head for other, own in self._own.items() if other != conn):
            self.waiting_since = self.waiting_since or ts_recv
            self._ahead = max(self._ahead, last_id)
            return False
        self._whole = not self._linked
        return self._advance(conn, last_id)

    def leave(self, conn: int) -> None:
        """Say that a connection has ended."""
        self._own.pop(conn, None)
        if conn == self.leader:
            self._low = NO_ID

    @property
    def is_owed(self) -> bool:
        """Whether a message was left to a connection that has not brought it yet."""
        return self._ahead > self.head

    @property
    def is_brought(self) -> bool:
        """Whether a connection that is still there has brought any of it."""
        return bool(self._own)

    def covers(self, conn: int) -> bool:
        """Tell whether ``conn`` alone would bring everything that comes after the head."""
        return self._own.get(conn, self.head + 1) <= self.head

    def laggards(self) -> list[int]:
        """Return the connections that owe what another has brought already."""
        return [conn for conn, own in self._own.items() if own <= self.head]

    def _advance(self, conn: int, last_id: int) -> bool:
        if last_id < self.head:  # a new count: what was owed is of the old one
            self._ahead = NO_ID
        self.head, self.leader, self._low = last_id, conn, NO_ID
        return True

    def _take_snapshot(self, conn: int, last_id: int, *, alone: bool) -> bool:
        if self._whole and self.head != NO_ID and not alone and conn != self.leader:
            return False  # the start of one more connection: the book goes on without it
        self._whole = True
        return self._advance(conn, last_id)

    def _take_low(self, conn: int, last_id: int, prev_id: int, before: int, *, alone: bool) -> bool:
        """Judge a message that brings nothing beyond the head; ``before`` is its connection's last one."""
        if conn != self.leader and self.leader in self._own:
            return False  # brought before, by the connection that is ahead
        # A repeat, or the count has begun anew: two that follow each other tell.
        follows = last_id > self._low if prev_id == NO_ID else prev_id == self._low
        if self._low != NO_ID and follows:
            return self._advance(conn, last_id)
        if conn == self.leader or before > last_id:
            self._low = last_id  # the venue's own repeat, if it is one
            return True
        if alone and before == NO_ID and 2 * last_id < self.head:
            return self._advance(conn, last_id)  # an id far below is none that comes late
        if before == self._low and (alone or before != NO_ID):  # NO_ID: it began after the leader's end
            self._low = last_id
        return False  # what the leader had brought before it ended


def chain_name(channel: str, symbol: str, kind: str = "") -> str:
    """Return the name of a chain in a segment's header.

    >>> chain_name("trades", "BTCUSDT", "agg")
    'trades BTCUSDT agg'
    """
    return f"{channel} {symbol} {kind}".rstrip()


class Merging:
    """The merges of all chains of one session, by the records that its frames hold.

    ``rule`` is the one of the exchange's books, ``states`` where the chains stood before the first record.
    """

    def __init__(self, rule: int, states: Mapping[str, MergeState]) -> None:
        self._rule = rule
        self._merges = {
            name: Merge(rule if name.startswith("depth ") else RANGE, state) for name, state in states.items()
        }

    def enters(self, conn: int, record: Record) -> bool:
        """Tell whether the next record of ``conn`` enters the tables."""
        rule, is_snapshot = RANGE, False
        last_id: int | None
        prev_id: int | None = None
        if isinstance(record, Depth):
            name, rule, is_snapshot = chain_name("depth", record.symbol), self._rule, record.is_snapshot
            last_id, prev_id = record.last_id, record.prev_id
        elif isinstance(record, Trade):
            name, last_id = chain_name("trades", record.symbol, record.kind), record.trade_id
            # An aggregate of OKX counts in the ids of its trades, one of Binance in ids of its own.
            spans = record.first_trade_id is not None and record.last_trade_id == last_id
            prev_id = (record.first_trade_id if spans and record.first_trade_id is not None else last_id) - 1
        elif isinstance(record, Bbo):
            name, last_id = chain_name("bbo", record.symbol), record.last_id
        else:
            return True
        merge = self._merges.get(name)
        if merge is None:
            merge = self._merges[name] = Merge(rule)
        return merge.enters(
            conn, NO_ID if last_id is None else last_id, NO_ID if prev_id is None else prev_id, is_snapshot
        )

    def leave(self, conn: int) -> None:
        """Say that a connection has ended."""
        for merge in self._merges.values():
            merge.leave(conn)
