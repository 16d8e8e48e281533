"""Several connections that bring the same stream, merged by sequence id into one.

One machine a chain (the book of a symbol, its trades, its best bid and ask); ids in, a verdict out. No
clock, no socket: the recorder runs it while it records, ingest runs it again over the captured lines and
comes to the same verdicts. A segment's header carries the state at its beginning (`MergeState`).

The tables hold the first message to arrive that advances the chain. What another connection brings again
is a repeat; a message ahead of the chain is left to the connection that is behind, and will bring it and
what is missing before it, as long as there is one. A message that its own connection brings late enters
if nobody has brought it meanwhile. Frames stay in the capture whatever the verdict.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mmdata.datasets.chain import LINKED, NO_ID, RANGE
from mmdata.recorder.holes import Holes, Span
from mmdata.recorder.records import Bbo, Depth, Record, Trade

_BEFORE_THE_FIRST = 64
"""So many ids before the first message of a connection may still come, late."""


class MergeState(msgspec.Struct, frozen=True, array_like=True):
    """What a merge knows between two messages."""

    head: int = NO_ID
    """Last id of the newest message that entered the tables."""
    leader: int = -1
    """Connection that brought it."""
    whole: bool = True
    """False after a hole in a chain that only a snapshot in the stream heals."""
    old: int = NO_ID
    """The head before the ids began anew; connections that are behind still bring ids up to it, or more."""
    own: dict[int, int] = {}
    """By connection: the last id that it has brought."""
    missing: list[Span] = []
    """Ids below the head that have not entered the tables."""
    skipped: dict[int, list[Span]] = {}
    """By connection: ids below its last that it has not brought."""
    fallen: dict[int, int] = {}
    """By connection whose newest messages are a new count, or repeats: the last id that it fell from."""


class Merge:
    """The chain of one stream over all the connections that bring it.

    ``rule`` is one of `mmdata.datasets.chain`. Every connection that ends must be taken out by `leave`.
    """

    __slots__ = (
        *("_ahead", "_fallen", "_linked", "_missing", "_old", "_own", "_skipped", "_whole"),
        *("head", "leader", "waiting_since"),
    )

    def __init__(self, rule: int, state: MergeState | None = None) -> None:
        state = state or MergeState()
        self._linked = rule == LINKED
        self.head = state.head
        self.leader = state.leader
        self._whole = state.whole
        self._old = state.old
        self._own = dict(state.own)
        self._missing = Holes(state.missing)
        self._skipped = {conn: Holes(spans) for conn, spans in state.skipped.items()}
        self._fallen = dict(state.fallen)
        self._ahead = NO_ID
        self.waiting_since: int | None = None
        """When the first message came (ns) that was left to a connection that is behind; see `is_owed`."""

    def state(self) -> MergeState:
        """Return what has to be known to go on from here."""
        skipped = {conn: [*holes.spans] for conn, holes in self._skipped.items() if holes.spans}
        return MergeState(
            *(self.head, self.leader, self._whole, self._old, dict(self._own)),
            *([*self._missing.spans], skipped, dict(self._fallen)),
        )

    def went_on(self, head: int, leader: int, own: Mapping[int, int]) -> None:
        """Take over what a kernel, that judges as `enters` does, came to; see `MergeState` for the rest."""
        self.head, self.leader = head, leader
        self._own = dict(own)

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
        if not is_snapshot and self._is_late(conn, last_id, prev_id, before):
            if last_id <= self.head:
                return self._missing.take(prev_id, last_id)
        else:
            self._own[conn] = last_id
        alone = len(self._own) == 1
        if is_snapshot:
            return self._take_snapshot(conn, last_id, alone=alone)
        if self.head == NO_ID:
            if prev_id != NO_ID:
                self._missing.add(prev_id - _BEFORE_THE_FIRST, prev_id)
            return self._advance(conn, last_id)
        if self.head < self._old and self._is_of_the_old_count(conn, last_id, before):
            return False
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
        self._missing.add(self.head, prev_id)
        return self._advance(conn, last_id)

    def leave(self, conn: int) -> None:
        """Say that a connection has ended."""
        self._own.pop(conn, None)
        self._skipped.pop(conn, None)
        self._fallen.pop(conn, None)

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
        if last_id < self.head:  # a new count: what was owed or missing is of the old one
            self._ahead = NO_ID
            self._missing = Holes()
            self._skipped.clear()
            self._fallen.clear()
            self._old = self.head
        self._fallen.pop(conn, None)
        self.head, self.leader = last_id, conn
        return True

    def _is_of_the_old_count(self, conn: int, last_id: int, before: int) -> bool:
        """Tell whether a connection brings what came before the ids began anew, or the beginning once more.

        Its ids are ahead of the chain, and yet nothing that another connection owes.
        """
        middle = (self._old + self.head) // 2
        if NO_ID < before <= middle:  # it counts anew already
            if max(self._own.values()) <= middle:
                self._old = NO_ID  # and so do all others
            return False
        if last_id <= middle:
            return before != NO_ID and last_id <= self.head
        # Beyond everything that was brought, and nobody else counts anew: they did not begin anew at all.
        return last_id <= self._old or any(own <= middle for other, own in self._own.items() if other != conn)

    def _is_late(self, conn: int, last_id: int, prev_id: int, before: int) -> bool:
        """Tell whether a connection brings now what it skipped; else note what it skips now."""
        if prev_id == NO_ID:
            return False
        skipped = self._skipped.get(conn)
        if before == NO_ID:
            self._skipped[conn] = Holes([(prev_id - _BEFORE_THE_FIRST, prev_id)])
            return False
        if prev_id > before:
            if skipped is None:
                skipped = self._skipped[conn] = Holes()
            skipped.add(before, prev_id)
            return False
        return skipped is not None and skipped.take(prev_id, last_id)

    def _take_snapshot(self, conn: int, last_id: int, *, alone: bool) -> bool:
        if self._whole and self.head != NO_ID and not alone and conn != self.leader:
            return False  # the start of one more connection: the book goes on without it
        self._whole = True
        return self._advance(conn, last_id)

    def _take_low(self, conn: int, last_id: int, prev_id: int, before: int, *, alone: bool) -> bool:
        """Judge a message that brings nothing beyond the head; ``before`` is its connection's last one."""
        # A repeat, or the count has begun anew: two that follow each other tell.
        follows = conn in self._fallen and (last_id > before if prev_id == NO_ID else prev_id == before)
        falls = before > last_id
        if falls:
            self._fallen[conn] = max(before, self._fallen.get(conn, NO_ID))
        elif last_id > self._fallen.get(conn, last_id):
            del self._fallen[conn]  # it is where it was: those were repeats
        if conn != self.leader and self.leader in self._own:
            return False  # brought before, by the connection that is ahead
        if follows:
            return self._advance(conn, last_id)
        if conn == self.leader or falls:
            return True  # the venue's own repeat, if it is one
        if alone and before == NO_ID:  # it began after the leader's end
            if 2 * last_id < self.head:
                return self._advance(conn, last_id)  # an id far below is none that comes late
            self._fallen[conn] = self.head
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

    def of(self, name: str) -> Merge | None:
        """Return the merge of a chain, by its `chain_name`; None: it has had no message yet."""
        return self._merges.get(name)

    def leave(self, conn: int) -> None:
        """Say that a connection has ended."""
        for merge in self._merges.values():
            merge.leave(conn)
