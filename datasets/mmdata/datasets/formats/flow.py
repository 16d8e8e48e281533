"""The proven book and the trades as one flow of rows, for formats without ids and without holes.

The other formats know neither sequence ids nor a book that is invalid. So the judging is done here, by the
book kernel: a whole book where it becomes valid, changes while it is, and that it is gone at a hole.
Times are the exchange's clock: the recorder's, mapped as for a replay, so that no row is seen before it
happened.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.datasets._kernel import (
    ASK,
    BID,
    DIFF,
    FULL,
    PENDING,
    REPLACE,
    SNAPSHOT,
    VALID,
    WINDOW,
    Columns,
)
from mmdata.datasets.book import Book
from mmdata.datasets.clocks import DEFAULT_BASE_LATENCY_NS, happened
from mmdata.datasets.formats import _kernel as rows_kernel
from mmdata.datasets.formats._kernel import CLEAR, LEVEL, TRADE
from mmdata.datasets.market import FRAME_BITS, NO_TIME, Grid, Trades, messages, trades_of
from mmdata.datasets.spans import refuse_two_at_once
from mmdata.datasets.tape import Piece, Survey, Tape
from mmdata.datasets.times import DAY_NS
from mmdata.datasets.version import version

__all__ = ["CLEAR", "LEVEL", "TRADE", "WHOLE", "Flow", "Rows", "open_flow"]

Ints = NDArray[np.int64]

WHOLE: Final = rows_kernel.SNAPSHOT
"""A row of a whole book; see `Rows.kind`."""
_ROOM = 1 << 18  # rows that the kernel writes at once, at least
_REMEMBERED = 1 << 20  # trades, for telling one that is told again


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of the flow in order of arrival; arrays of shape (n,)."""

    kind: NDArray[np.uint8]
    """CLEAR: the book is empty. WHOLE: a level of a whole book. LEVEL: its new size, 0 removes it. TRADE."""
    side: NDArray[np.int8]
    """BID or ASK; of a trade, BID where the taker bought."""
    price: Ints
    """Ticks; 0 of a CLEAR."""
    size: Ints
    """Lots."""
    acts: Ints
    """When it happened, ns of the exchange's clock. Rows of the book ascend; trades may come late."""
    seen: Ints
    """When it was received, mapped to that clock. Ascends, and is never before it happened."""
    number: Ints
    """The trade's id; of the book's rows, the message's (NO_ID where the venue sends none)."""
    day: Ints
    """Days since the epoch of the receive time, ascending: a day's rows are one file."""
    is_last: NDArray[np.bool_]
    """The last row of its message."""

    def __len__(self) -> int:
        return len(self.kind)

    def take(self, chosen: Ints | NDArray[np.bool_] | slice) -> Rows:
        """Return the chosen rows."""
        return Rows(*(getattr(self, column.name)[chosen] for column in fields(self)))

    @staticmethod
    def joined(blocks: list[Rows]) -> Rows:
        """Return blocks, at least one, as one."""
        return Rows(*(np.concatenate([getattr(b, f.name) for b in blocks]) for f in fields(Rows)))


def open_flow(
    root: Path,
    exchange: str,
    symbol: str,
    start: int | None,
    end: int | None,
    base_latency_ns: int = DEFAULT_BASE_LATENCY_NS,
) -> Flow:
    """Return the flow of what was received of one symbol in ``[start, end)`` (ns, None: open).

    UsageError: nothing of the symbol is there, or two sessions recorded it at the same time. DatasetError: a
    file is damaged.
    """
    tape = Tape(root, exchange, symbol, end)
    survey = tape.survey(start, base_latency_ns)
    refuse_two_at_once(
        f"{exchange} {symbol}",
        survey.spans,
        "an export",
        "choose a time in which one ran alone by --from and --to, or unite them first",
    )
    return Flow(tape, survey, start, base_latency_ns)


class Flow:
    """Plays a tape as rows, in bounded memory: a piece of the tape, and what waits for a snapshot.

    Only what was received from ``start`` (ns, None: all) on is told; the book is built from before, and
    told whole there. It is told whole at the first message of each day too, so that a day's rows stand
    for themselves.
    """

    def __init__(
        self,
        tape: Tape,
        survey: Survey,
        start: int | None = None,
        base_latency_ns: int = DEFAULT_BASE_LATENCY_NS,
    ) -> None:
        self._tape = tape
        self._survey = survey
        self._base = base_latency_ns
        self._shifts = np.array([shift.ns for shift in survey.shifts], np.int64)
        self._start = start
        self._open = start is None  # for messages; trades are cut by their own time
        self._trades_open = start is None
        self._day = NO_TIME  # of the last message
        self._columns = _no_columns()
        self._book = Book(self._columns, tape.chain)
        self._acts = NO_TIME
        self._seen = NO_TIME
        self._row_seen = NO_TIME
        self._row_day = NO_TIME
        self._told = _Told()
        self.again = 0
        """Trades left out since they were told before."""

    @property
    def grid(self) -> Grid:
        """The units of prices and sizes."""
        return self._survey.grid

    def facts(self) -> dict[str, Any]:
        """Return what whoever uses the rows has to know; trades told again are counted so far."""
        tick, lot = self.grid.tick, self.grid.lot
        return {
            "exchange": self._tape.exchange,
            "symbol": self._tape.symbol,
            "tick_size": f"{tick.size:f}",
            "tick_source": tick.source,
            "lot_size": f"{lot.size:f}",
            "lot_source": lot.source,
            "clock": "the exchange's: shift_ns was added to the receive times of each session",
            "sessions": [
                {"session": shift.session, "shift_ns": shift.ns, "source": shift.source}
                for shift in self._survey.shifts
            ],
            "trades_told_again": self.again,
            "version": version(),
        }

    def rows(self) -> Iterator[Rows]:
        """Yield what was received, piece by piece; trades that were asked for later are left out."""
        for piece in self._tape.pieces():
            columns, order, ts_recv, ts_event = messages(
                piece.depth,
                piece.snapshots,
                piece.gaps,
                self._tape.sessions,
                () if piece.begins is None else (piece.begins,),
                self._survey.grid,
            )
            book, places = self._book_rows(piece, columns, order, ts_recv, ts_event)
            trades, trade_places = self._trade_rows(piece)
            place = np.concatenate((places, trade_places))
            is_trade = np.repeat((False, True), (len(places), len(trade_places)))
            rows = Rows.joined([book, trades]).take(np.lexsort((is_trade, place)))
            if len(rows):
                yield self._in_order(rows)

    def backfilled(self) -> Rows:
        """Return the trades that were asked for later: nobody saw them, yet they happened; by that time."""
        trades = self._trades_from(self._survey.backfilled)
        rows = self._of_trades(trades)
        kept = np.ones(len(rows), np.bool_)
        if self._start is not None:
            kept &= rows.acts >= self._start
        chosen = np.flatnonzero(kept)
        return rows.take(chosen[np.argsort(rows.acts[chosen], kind="stable")])

    def _in_order(self, rows: Rows) -> Rows:
        """Let times of arrival and days ascend over all that was told."""
        rows.seen[:] = np.maximum(np.maximum.accumulate(rows.seen), self._row_seen)
        rows.day[:] = np.maximum(np.maximum.accumulate(rows.day), self._row_day)
        self._row_seen, self._row_day = int(rows.seen[-1]), int(rows.day[-1])
        return rows

    def _book_rows(
        self, piece: Piece, columns: Columns, order: Ints, ts_recv: Ints, ts_event: Ints
    ) -> tuple[Rows, Ints]:
        carried = len(self._columns.kind)
        self._columns = _joined(self._columns, columns)
        days = np.where(ts_recv == NO_TIME, NO_TIME, ts_recv // DAY_NS)
        days = np.maximum(np.maximum.accumulate(days), self._day) if len(days) else days
        valid = np.zeros(carried + len(order), np.bool_)
        was_valid = self._book.valid
        found = self._emitted(ts_recv, days, carried, valid)
        acts, seen = self._times(order, ts_recv, ts_event, columns, valid[carried:], was_valid)
        if len(days):
            self._day = int(days[-1])
        message = found[:, 0] - carried
        self._forget(piece)
        last = np.ones(len(message), np.bool_)
        last[:-1] = message[1:] != message[:-1]
        rows = Rows(
            kind=found[:, 1].astype(np.uint8),
            side=found[:, 2].astype(np.int8),
            price=found[:, 3],
            size=found[:, 4],
            acts=acts[message],
            seen=seen[message],
            number=columns.last_id[message],
            day=days[message],
            is_last=last,
        )
        return rows, order[message]

    def _emitted(self, ts_recv: Ints, days: Ints, carried: int, valid: NDArray[np.bool_]) -> Ints:
        """Return the kernel's rows of the messages behind the carried ones; whole books where one is due."""
        found = [np.empty((0, 5), np.int64)]
        begin, end = carried, carried + len(ts_recv)
        if not self._open:
            reached = np.flatnonzero(ts_recv >= (self._start or 0))
            first = carried + int(reached[0]) if reached.size else end
            self._run(begin, first, valid)
            begin = first
            if reached.size:
                self._open = True
                found.append(self._whole(first))
        before = np.concatenate(([self._day], days[:-1])) if len(days) else days
        for at in np.flatnonzero((days > before) & (before != NO_TIME)) + carried:
            if at < begin:
                continue
            found += [self._run(begin, int(at), valid), self._whole(int(at))]
            begin = int(at)
        found.append(self._run(begin, end, valid))
        return np.concatenate(found)

    def _run(self, begin: int, end: int, valid: NDArray[np.bool_]) -> Ints:
        book, found = self._book, []
        while begin < end:
            levels = int(np.diff(self._columns.start[begin : end + 1]).max())
            room = np.empty((max(_ROOM, 2 * (book.arrays.keys.shape[1] + WINDOW + levels) + 1), 5), np.int64)
            begin, count = rows_kernel.emit(self._columns, begin, end, book.arrays, book.state, valid, room)
            found.append(room[:count])
            if book.state[FULL]:
                book.grow()
        return np.concatenate(found) if found else np.empty((0, 5), np.int64)

    def _whole(self, message: int) -> Ints:
        """Return the book before ``message`` as rows of that message; none where it is invalid."""
        book = self._book
        if not book.valid:
            return np.empty((0, 5), np.int64)
        sides = [book.levels(side) for side in (BID, ASK)]
        counts = [len(prices) for prices, _ in sides]
        rows = np.empty((1 + sum(counts), 5), np.int64)
        rows[:, 0] = message
        rows[0, 1:] = (CLEAR, 0, 0, 0)
        rows[1:, 1] = WHOLE
        rows[1:, 2] = np.repeat((BID, ASK), counts)
        rows[1:, 3] = np.concatenate([prices for prices, _ in sides])
        rows[1:, 4] = np.concatenate([sizes for _, sizes in sides])
        return rows

    def _times(
        self,
        order: Ints,
        ts_recv: Ints,
        ts_event: Ints,
        columns: Columns,
        valid: NDArray[np.bool_],
        was_valid: bool,
    ) -> tuple[Ints, Ints]:
        """Return when each message acts and is seen; both ascend. As the replay's `timeline` has it."""
        received = self._mapped(order, ts_recv)
        acts = happened(ts_event, received, self._base)
        # A book asked for over REST describes a moment long before it came, and what shows a hole acts from
        # the message before it on: only as long was the book proven.
        acts[(columns.kind != DIFF) & (columns.kind != REPLACE)] = NO_TIME
        before = np.concatenate(([was_valid], valid[:-1])) if len(valid) else valid
        acts[before & ~valid] = NO_TIME
        if len(acts):
            acts = np.maximum(np.maximum.accumulate(acts), self._acts)
            seen = np.maximum(np.maximum.accumulate(np.maximum(received, acts)), self._seen)
            self._acts, self._seen = int(acts[-1]), int(seen[-1])
            return acts, seen
        return acts, acts

    def _mapped(self, order: Ints, ts_recv: Ints) -> Ints:
        shifted = ts_recv + self._shifts[order >> FRAME_BITS]
        return np.where(ts_recv == NO_TIME, NO_TIME, shifted)

    def _forget(self, piece: Piece) -> None:
        """Let go of messages that no snapshot can ask for any more."""
        state, n = self._book.state, len(self._columns.kind)
        if not piece.snapshots_left and state[SNAPSHOT] < 0:
            state[PENDING] = -1
        waiting = [int(at) for at in (state[PENDING], state[SNAPSHOT]) if at >= 0 and state[VALID] == 0]
        first = min(waiting, default=n)
        state[PENDING] -= first if state[PENDING] >= 0 else 0
        state[SNAPSHOT] -= first if state[SNAPSHOT] >= 0 else 0
        self._columns = _from(self._columns, first)

    def _trade_rows(self, piece: Piece) -> tuple[Rows, Ints]:
        trades = self._trades_from(piece.trades)
        live = ~trades.backfilled & self._told.fresh(trades, self._survey)
        self.again += int((~trades.backfilled).sum() - live.sum())
        chosen = np.flatnonzero(live)
        if not self._trades_open:
            reached = np.flatnonzero(trades.ts_recv[chosen] >= (self._start or 0))
            self._trades_open = bool(reached.size)
            chosen = chosen[reached[0] :] if reached.size else chosen[:0]
        return self._of_trades(trades).take(chosen), trades.order[chosen]

    def _trades_from(self, table: pa.Table) -> Trades:
        survey = self._survey
        return trades_of(table, self._tape.sessions, survey.grid, survey.has_single)

    def _of_trades(self, trades: Trades) -> Rows:
        received = self._mapped(trades.order, trades.ts_recv)
        acts = happened(trades.ts_event, received, self._base)
        n = len(acts)
        return Rows(
            kind=np.full(n, TRADE, np.uint8),
            side=np.where(trades.side > 0, BID, ASK).astype(np.int8),
            price=trades.price,
            size=trades.size,
            acts=acts,
            seen=np.maximum(received, acts),
            number=trades.trade_id,
            day=trades.ts_recv // DAY_NS,
            is_last=np.ones(n, np.bool_),
        )


class _Told:
    """The latest trades, so that one told again (by a second recording, or asked for again) is told once."""

    def __init__(self) -> None:
        self._highest = {False: NO_TIME, True: NO_TIME}  # by whether single
        self._recent: deque[Ints] = deque()

    def fresh(self, trades: Trades, survey: Survey) -> NDArray[np.bool_]:
        """Return which trades were not told before: same kind, id and time, among the latest million."""
        single = survey.has_single[trades.order >> FRAME_BITS]
        fresh = np.ones(len(single), np.bool_)
        keys = np.stack((single, trades.trade_id, trades.ts_event), axis=1)
        known: set[tuple[int, ...]] | None = None
        for kind in (False, True):
            own = np.flatnonzero(single == kind)
            if not own.size:
                continue
            for at in own[trades.trade_id[own] <= self._highest[kind]]:
                if known is None:
                    known = {tuple(key) for block in self._recent for key in block.tolist()}
                fresh[at] = tuple(keys[at].tolist()) not in known
            self._highest[kind] = max(self._highest[kind], int(trades.trade_id[own].max()))
        self._recent.append(keys)
        while sum(map(len, self._recent)) - len(self._recent[0]) > _REMEMBERED:
            self._recent.popleft()
        return fresh


def _no_columns() -> Columns:
    none = np.empty(0, np.int64)
    return Columns(
        none.astype(np.uint8), none, none, none, np.zeros(1, np.int64), none.astype(np.int8), none, none
    )


def _joined(one: Columns, other: Columns) -> Columns:
    start = np.concatenate((one.start, other.start[1:] + one.start[-1]))
    pairs = {
        name: np.concatenate((getattr(one, name), getattr(other, name)))
        for name in Columns._fields
        if name != "start"
    }
    return Columns(start=start, **pairs)


def _from(columns: Columns, first: int) -> Columns:
    """Return the messages from ``first`` on."""
    level = int(columns.start[first])
    return Columns(
        kind=columns.kind[first:].copy(),
        first_id=columns.first_id[first:].copy(),
        last_id=columns.last_id[first:].copy(),
        prev_id=columns.prev_id[first:].copy(),
        start=columns.start[first:] - level,
        side=columns.side[level:].copy(),
        price=columns.price[level:].copy(),
        size=columns.size[level:].copy(),
    )
