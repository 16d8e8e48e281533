"""`segments`: the stretches of a recording in which the book is proven, and what ended each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mmdata.datasets._kernel import GAP, GAP_OPEN, REPLACE, SESSION
from mmdata.datasets.book import prove
from mmdata.datasets.chain import NO_ID
from mmdata.datasets.market import FRAME_BITS, NO_TIME, again_if_replaced, first_late
from mmdata.datasets.messages import Batch, Feed, Messages, open_messages
from mmdata.datasets.stores import Root, root_of
from mmdata.datasets.times import Moment, span

Ints = NDArray[np.int64]

SESSION_END = "session_end"
UNRECORDED = "unrecorded"
"""The chain broke, and no gap is on record: a defect, which `validate` reports."""
RANGE_END = "range_end"

SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    "session": pl.String,
    "begin": pl.Datetime("ns", "UTC"),
    "end": pl.Datetime("ns", "UTC"),
    "first_id": pl.Int64,
    "last_id": pl.Int64,
    "messages": pl.Int64,
    "ended_by": pl.String,
}


def segments(
    root: Root,
    *,
    exchange: str,
    symbol: str,
    start: Moment | None = None,
    end: Moment | None = None,
) -> pl.DataFrame:
    """Return the proven stretches of a symbol's book in ``[start, end)``, by ``ts_recv``, in order.

    Columns: ``session`` in which it began, ``begin`` and ``end`` (``ts_recv`` of its first and its last
    message; a book is proven up to its last message, and what is lost after it was lost at an unknown
    moment), ``first_id`` and ``last_id`` of the book then (null without ids), book ``messages``
    received in it, and ``ended_by``: the cause of a recorded gap (``missing``, ``disconnect`` ...),
    ``session_end``, ``unrecorded`` (a break that no gap tells: a defect), or ``range_end``, where the time
    or the recording ends.

    Reads ids alone, a batch at a time. UsageError: nothing of the symbol is there. DatasetError: a file is
    damaged.
    """
    begin, stop = span(start, end)

    def read() -> list[tuple[object, ...]]:
        messages = open_messages(root_of(root), exchange, symbol, start=begin, end=stop, levels=False)
        return [found.row() for found in _segments(messages, begin)]

    return pl.DataFrame(again_if_replaced(read), schema=SCHEMA, orient="row")


@dataclass(slots=True)
class _Segment:
    """A stretch that may go on in the next batch."""

    session: str
    begin: int
    end: int
    first_id: int
    last_id: int
    messages: int = 0
    ended_by: str = RANGE_END

    def row(self) -> tuple[object, ...]:
        ids = (None if own == NO_ID else own for own in (self.first_id, self.last_id))
        return self.session, self.begin, self.end, *ids, self.messages, self.ended_by


def _segments(messages: Messages, begin: int | None) -> Iterator[_Segment]:
    """Walk the batches; a stretch is yielded once it has ended."""
    feed = Feed(messages)
    causes = _Causes(messages)
    going: _Segment | None = None
    waiting = begin is not None
    for batch in messages:
        taken, fresh = feed.take(batch)
        assert feed.book is not None
        valid, book_id = prove(feed.book, taken.columns, fresh)
        if waiting:
            late = first_late(batch.ts_recv, NO_TIME if begin is None else begin)
            valid[:late] = False
            waiting = late == len(valid)
        edges = np.flatnonzero(np.diff(valid, prepend=going is not None))
        for low, high in pairwise((0, *edges.tolist(), len(valid))):
            if low == high:
                continue
            if not valid[low]:
                if going is not None:
                    going.ended_by = causes.of(batch, low)
                    yield going
                    going = None
                continue
            if going is None:
                session = messages.sessions[int(batch.order[low]) >> FRAME_BITS]
                when, told = int(batch.ts_recv[low]), int(book_id[low])
                going = _Segment(session, when, when, told, told)
            going.messages += int((batch.columns.kind[low:high] <= REPLACE).sum())
            going.end, going.last_id = int(batch.ts_recv[high - 1]), int(book_id[high - 1])
    if going is not None:
        yield going


class _Causes:
    """What the events say of the holes in a book."""

    def __init__(self, messages: Messages) -> None:
        gaps = messages.gaps
        told = [str(json.loads(text or "{}").get("cause", "gap")) for text in gaps["detail"].to_pylist()]
        self._by_place: dict[int, str] = dict(zip(gaps["place"].to_pylist(), told, strict=True))
        self._by_next_id: dict[int, str] = dict(zip(gaps["next_id"].to_pylist(), told, strict=True))
        self._names_first_id = messages.chain.spliced

    def of(self, batch: Batch, at: int) -> str:
        """Return why the book is no longer valid after message ``at``.

        A message that breaks the chain stands before the gap that tells of it, which names it by its id.
        """
        columns = batch.columns
        if columns.kind[at] == SESSION:
            return SESSION_END
        if columns.kind[at] in (GAP, GAP_OPEN):
            return self._by_place[int(batch.order[at])]
        next_id = int((columns.first_id if self._names_first_id else columns.prev_id)[at])
        return self._by_next_id.get(next_id, UNRECORDED)
