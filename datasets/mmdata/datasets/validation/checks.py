"""The checks: each a small function over columns, without I/O.

Each returns what it found as plain indices and numbers; `run` puts sentences to them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import DIFF, GAP_OPEN, REPLACE, SESSION
from mmdata.datasets.book import Book, Tops
from mmdata.datasets.chain import BREAKS, CONTINUES, NO_ID, classify
from mmdata.datasets.decimals import shortest
from mmdata.datasets.market import NO_TIME, Market
from mmdata.datasets.validation.report import Latency

Ints = NDArray[np.int64]


class Break(NamedTuple):
    """A message that does not continue the book before it."""

    message: int
    book_id: int
    next_id: int
    recorded: bool


def chain_breaks(market: Market, recorded: Iterable[tuple[int | None, int | None]]) -> list[Break]:
    """Walk the stream's messages by the exchange's rule; return each break.

    ``recorded`` are the (last_id, next_id) of the dataset's gap events. A gap that the recorder noted
    between two messages (a lost connection) starts a new chain, and so does a new session unless its
    first message continues the chain.
    """
    known = set(recorded)
    columns, chain = market.columns, market.chain
    broken: list[Break] = []
    book_id: int | None = None
    tentative = False
    ids = zip(
        columns.kind.tolist(),
        columns.first_id.tolist(),
        columns.last_id.tolist(),
        columns.prev_id.tolist(),
        strict=True,
    )
    for message, (kind, first_id, last_id, prev_id) in enumerate(ids):
        if kind == REPLACE:
            book_id, tentative = last_id, False
        elif kind == SESSION:
            tentative = True
        elif kind == GAP_OPEN:
            book_id = None
        elif kind == DIFF:
            if book_id is None:
                book_id, tentative = last_id, False
                continue
            verdict = classify(chain.rule, book_id, first_id, last_id, prev_id)
            if verdict == BREAKS and not tentative:
                next_id = first_id if chain.spliced else prev_id
                broken.append(Break(message, book_id, next_id, (book_id, next_id) in known))
            if verdict in (CONTINUES, BREAKS):
                book_id, tentative = last_id, False
                if verdict == BREAKS and not chain.spliced:
                    book_id = None  # nothing is built on it before the next snapshot
    return broken


def steps_back(order: Ints, ts_recv: Ints) -> Ints:
    """Return the places where the receive clock is behind the row before it (rows in order)."""
    if len(ts_recv) < 2:
        return np.empty(0, np.int64)
    back = (ts_recv[1:] < ts_recv[:-1]) & (order[1:] >= order[:-1])
    return np.flatnonzero(back) + 1


class IdSteps(NamedTuple):
    """Where a chain of trade ids is not +1; places in the rows."""

    holes: Ints
    """Ids begin beyond the next one expected."""
    before: Ints
    """The last id before each hole."""
    again: Ints
    """An id comes again: a venue sends its last trade anew to a new subscription."""
    late: Ints
    """A trade comes after younger ones: it lies in a hole that it leaves smaller."""
    back: Ints
    """Ids go back, and on from there: the venue counts anew."""


def trade_steps(first_id: Ints, last_id: Ints) -> IdSteps:
    """Compare each trade's ids with the highest before it, in order of arrival; NO_ID is passed over.

    The recorder notes holes by the same rule (`mmdata.datasets.booksync.TradeChain`): what comes late or
    again leaves the chain where it is, and two that follow each other below it begin a new count.
    """
    known = np.flatnonzero(first_id != NO_ID)
    first, last = first_id[known], last_id[known]
    _, first_seen = np.unique(last, return_index=True)
    again = np.ones(len(known), np.bool_)
    again[first_seen] = False
    holes, before, late, back = [], [], [], []
    # Within a run each trade continues the one before it.
    begins = np.flatnonzero(first[1:] != last[:-1] + 1) + 1
    top = int(last[begins[0] - 1]) if begins.size else 0
    for begin, end in pairwise([*begins.tolist(), len(known)]):
        if last[begin] <= top:
            if begin + 1 == end or last[begin + 1] > top:
                late += [] if again[begin] else [begin]
                if begin + 1 == end:
                    continue
            else:
                back.append(begin)
        elif first[begin] > top + 1:
            holes.append(begin)
            before.append(top)
        top = int(last[end - 1])
    places = [known[np.array(chosen, np.int64)] for chosen in (holes, late, back)]
    return IdSteps(places[0], np.array(before, np.int64), known[again], places[1], places[2])


def doubled(session: Ints, frame: Ints, last_id: Ints) -> Ints:
    """Return the places of messages or trades that stand twice: the same id in the same frame."""
    keys = np.column_stack((session, frame, last_id))
    _, first_seen = np.unique(keys, axis=0, return_index=True)
    again = np.ones(len(keys), np.bool_)
    again[first_seen] = False
    return np.flatnonzero(again)


def latency(channel: str, ts_recv: Ints, ts_event: Ints) -> Latency | None:
    """Return the latency of a channel; None where the venue sends no time."""
    timed = ts_event != NO_TIME
    values = np.sort(ts_recv[timed] - ts_event[timed])
    if not values.size:
        return None

    def quantile(share: float) -> int:
        return int(values[min(len(values) - 1, int(share * len(values)))])

    return Latency(
        channel=channel,
        count=len(values),
        min=int(values[0]),
        p50=quantile(0.5),
        p90=quantile(0.9),
        p99=quantile(0.99),
        p999=quantile(0.999),
        max=int(values[-1]),
        negative_share=float((values < 0).mean()),
    )


class Touches(NamedTuple):
    """Best bid and offers of the venue beside the rebuilt book's, at equal ids."""

    compared: int
    unequal: list[int]
    """Rows of the bbo table that differ."""


def compare_touches(market: Market, tops: Tops, order: Ints, ids: Ints, touch: NDArray[np.int64]) -> Touches:
    """Compare bbo rows with the rebuilt top after the message of the same id.

    ``order`` and ``ids`` are (n,); ``touch`` (n, 4): bid price and size, ask price and size in ticks and
    lots, NO_PRICE and 0 for an empty side. At equal ids, not at equal times: the ticker arrives before
    its diff. An id that comes again after a reset is compared with the nearest message.
    """
    messages = np.flatnonzero(tops.applied & (market.columns.last_id != NO_ID))
    by_id = messages[np.lexsort((messages, market.columns.last_id[messages]))]
    sorted_ids = market.columns.last_id[by_id]
    begins = np.searchsorted(sorted_ids, ids, side="left")
    ends = np.searchsorted(sorted_ids, ids, side="right")
    rebuilt = np.column_stack((tops.bid_price, tops.bid_size, tops.ask_price, tops.ask_size))
    rows = np.flatnonzero(ends > begins)
    chosen = by_id[begins[rows]]
    for at in np.flatnonzero(ends[rows] - begins[rows] > 1).tolist():
        row = rows[at]
        candidates = by_id[begins[row] : ends[row]]
        chosen[at] = candidates[np.abs(market.order[candidates] - order[row]).argmin()]
    unequal = rows[(rebuilt[chosen] != touch[rows]).any(axis=1)]
    return Touches(len(rows), unequal.tolist())


def valid_share(market: Market, tops: Tops, begin: int, end: int) -> float:
    """Return the share of the recorded time in ``begin:end`` (ns) in which the book is valid.

    Time between two sessions is not recorded, and counts for neither; nor does a clock that steps back.
    """
    timed = np.flatnonzero(market.ts_recv != NO_TIME)
    times = np.clip(market.ts_recv[timed], begin, end)
    session = market.session_of(market.order[timed])
    spans = np.maximum(np.diff(times), 0)
    spans[session[1:] != session[:-1]] = 0
    total = int(spans.sum())
    if total == 0:
        return float(tops.valid[timed].any()) if len(timed) else 0.0
    return float(spans[tops.valid[timed][:-1]].sum() / total)


def crossed(tops: Tops) -> Ints:
    """Return the messages after which the valid book's best bid is above its best ask."""
    both = tops.valid & (tops.bid_size > 0) & (tops.ask_size > 0)
    return np.flatnonzero(both & (tops.bid_price > tops.ask_price))


def okx_checksum(
    bids: Sequence[tuple[int, int]], asks: Sequence[tuple[int, int]], tick: Decimal, lot: Decimal
) -> int:
    """Return OKX's checksum of a book: CRC-32 over its best 25 levels a side, as a signed 32-bit number.

    Levels alternate bid, ask; of a longer side the rest is appended. Numbers in their shortest form.

    Source: OKX v5 docs before 2026-06-23, "Checksum"; vectors in the tests.
    """
    words: list[str] = []
    for level in range(25):
        for side in (bids, asks):
            if level < len(side):
                price, size = side[level]
                words += (f"{shortest(price * tick):f}", f"{shortest(size * lot):f}")
    value = zlib.crc32(":".join(words).encode())
    return value - (1 << 32) if value >= 1 << 31 else value


def verify_checksums(market: Market, expected: dict[int, int]) -> list[int]:
    """Return the messages (keys of ``expected``) after which the rebuilt book has another checksum."""
    book = Book(market.columns, market.chain)
    wrong = []
    for message in range(len(market.columns.kind)):
        book.step(message)
        if message in expected:
            found = okx_checksum(book.bids(25), book.asks(25), market.tick_size, market.lot_size)
            if not book.valid or found != expected[message]:
                wrong.append(message)
    return wrong
