"""The venue's own best bid and offer beside the rebuilt book's, and trades beside it; chunk by chunk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.chain import NO_ID
from mmdata.datasets.validation._kernels import find_nearest, outside, read_only
from mmdata.datasets.validation.books import Walked

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_HELD = 20_000
"""Messages, and quotes whose id no message had yet, that are kept: a ticker and its diff arrive together."""


class Told(NamedTuple):
    """Best bids and asks as the venue told them; (n,) arrays. NO_PRICE and 0 for an empty side."""

    order: Ints
    ts_recv: Ints
    ids: Ints
    bid_price: Ints
    bid_size: Ints
    ask_price: Ints
    ask_size: Ints

    def at(self, rows: Ints | Flags | slice) -> Told:
        """Return some of them."""
        return Told(*(column[rows] for column in self))

    def with_more(self, more: Told) -> Told:
        """Return these and ``more`` behind them."""
        return Told(*(np.concatenate(pair) for pair in zip(self, more, strict=True)))


_NONE = Told(*([np.empty(0, np.int64)] * len(Told._fields)))


class QuoteChecks:
    """Compares quotes with the book at equal ids, not at equal times: the ticker arrives before its diff.

    An id that comes again after a reset is compared with the nearest message.
    """

    def __init__(self) -> None:
        self._quotes = self._books = _NONE

    def take(self, walked: Walked, quotes: Told) -> tuple[Told, Told]:
        """Take a chunk; return the quotes that were compared, and those of them that differ."""
        messages = walked.messages
        chosen = np.flatnonzero(walked.applied & (messages.last_id != NO_ID))
        new = Told(messages.order, messages.ts_recv, messages.last_id, *walked.tops[:, 1:].T).at(chosen)
        waited, books = self._quotes, self._books.with_more(new)
        late, late_unequal = _compare(new, waited)  # with those before it was compared already
        rows, unequal = _compare(books, quotes)
        waits = quotes.at(_others(rows, len(quotes.ids)))
        still = waited.at(_others(late, len(waited.ids))) if late.size else waited
        too_many = max(0, len(still.ids) + len(waits.ids) - _HELD)
        self._quotes = still.at(slice(too_many, None)).with_more(waits)
        self._books = books.at(slice(-_HELD, None))
        return (
            waited.at(late).with_more(quotes.at(rows)),
            waited.at(late[late_unequal]).with_more(quotes.at(rows[unequal])),
        )


def _compare(books: Told, quotes: Told) -> tuple[Ints, Flags]:
    """Return which of the quotes (their places) have the id of a book, and whether they differ from it."""
    ids, places = books.ids, books.order
    rank = None if (ids[1:] >= ids[:-1]).all() else np.argsort(ids, kind="stable")
    if rank is not None:
        ids, places = ids[rank], places[rank]
    rows, books_of = np.empty((2, len(quotes.ids)), np.int64)
    ids, places, asked, asked_at = read_only(ids, places, quotes.ids, quotes.order)
    found = find_nearest(ids, places, asked, asked_at, rows, books_of)
    rows, books_of = rows[:found].copy(), books_of[:found].copy()
    books_of = books_of if rank is None else rank[books_of]
    unequal = np.zeros(len(rows), np.bool_)
    for ours, theirs in zip(books[3:], quotes[3:], strict=True):
        unequal |= ours[books_of] != theirs[rows]
    return rows, unequal


def _others(rows: Ints, n: int) -> Ints:
    """Return the last of ``n`` rows that are not among ``rows`` (ascending), at most ``_HELD``."""
    begin = max(0, n - len(rows) - _HELD)
    is_other = np.ones(n - begin, np.bool_)
    is_other[rows[rows >= begin] - begin] = False
    return begin + np.flatnonzero(is_other)[-_HELD:]


class Prices(NamedTuple):
    """Trades to be compared with the book; (n,) arrays."""

    order: Ints
    ts_recv: Ints
    ids: Ints
    price: Ints


class TradeChecks:
    """Finds trades that no book within the allowed lag explains: before or after, the streams are two."""

    def __init__(self, lag_ns: int, outside_bp: float) -> None:
        none = np.empty(0, np.int64)
        self._lag_ns = lag_ns
        self._outside_bp = outside_bp
        self._trades = Prices(none, none, none, none)
        self._books = (none, none, np.empty((0, 5), np.int64))

    def take(self, walked: Walked, trades: Prices, *, is_end: bool) -> Prices:
        """Take a chunk; return the trades of it, and of those that waited, that are outside."""
        new = (walked.messages.order, walked.messages.ts_recv, walked.tops)
        order, times, tops = (np.concatenate(pair) for pair in zip(self._books, new, strict=True))
        trades = Prices(*(np.concatenate(pair) for pair in zip(self._trades, trades, strict=True)))
        ready = len(trades.order)
        if not is_end:
            last = int(times[-1]) if len(times) else 0
            waits = np.flatnonzero(trades.ts_recv > last - self._lag_ns)
            ready = int(waits[0]) if waits.size else ready
        judged = Prices(*(column[:ready] for column in trades))
        self._trades = Prices(*(column[ready:] for column in trades))
        found = outside(
            times,
            order,
            np.ascontiguousarray(tops),
            judged.ts_recv,
            judged.order,
            judged.price,
            self._lag_ns,
            self._outside_bp,
        )
        # What may still be looked at: from the lag before the first trade that waits.
        since = (
            int(self._trades.ts_recv[0]) if len(self._trades.order) else int(times[-1]) if len(times) else 0
        )
        late = np.flatnonzero(times >= since - 2 * self._lag_ns)
        keep = max(0, int(late[0]) - 1) if late.size else max(0, len(times) - 1)
        self._books = (order[keep:], times[keep:], tops[keep:])
        return Prices(*(column[found] for column in judged))
