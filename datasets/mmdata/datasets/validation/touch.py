"""The venue's own best bid and offer beside the rebuilt book's, and trades beside it; chunk by chunk."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.chain import NO_ID
from mmdata.datasets.validation._kernels import outside
from mmdata.datasets.validation.books import Walked

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_HELD = 4_000
"""Messages, and quotes whose id no message had yet, that are kept: a ticker and its diff arrive together."""


class Told(NamedTuple):
    """Best bids and asks as the venue told them; (n,) arrays and (n, 4) touches."""

    order: Ints
    ts_recv: Ints
    ids: Ints
    touch: Ints
    """Bid price and size, ask price and size; NO_PRICE and 0 for an empty side."""

    def at(self, rows: Ints | Flags | slice) -> Told:
        """Return some of them."""
        return Told(*(column[rows] for column in self))

    def with_more(self, more: Told) -> Told:
        """Return these and ``more`` behind them."""
        return Told(*(np.concatenate(pair) for pair in zip(self, more, strict=True)))


class QuoteChecks:
    """Compares quotes with the book at equal ids, not at equal times: the ticker arrives before its diff.

    An id that comes again after a reset is compared with the nearest message.
    """

    def __init__(self) -> None:
        none = np.empty(0, np.int64)
        self._quotes = Told(none, none, none, np.empty((0, 4), np.int64))
        self._books = Told(none, none, none, np.empty((0, 4), np.int64))

    def take(self, walked: Walked, quotes: Told) -> tuple[Told, Told]:
        """Take a chunk; return the quotes that were compared, and those of them that differ."""
        chosen = walked.applied & (walked.messages.last_id != NO_ID)
        messages = walked.messages
        more = Told(messages.order, messages.ts_recv, messages.last_id, walked.tops[:, 1:]).at(chosen)
        books = self._books.with_more(more)
        quotes = self._quotes.with_more(quotes)
        ascends = bool((books.ids[1:] >= books.ids[:-1]).all())
        rank = np.arange(len(books.ids)) if ascends else np.argsort(books.ids, kind="stable")
        ids = books.ids if ascends else books.ids[rank]
        begins = np.searchsorted(ids, quotes.ids, side="left")
        ends = np.searchsorted(ids, quotes.ids, side="right")
        rows = np.flatnonzero(ends > begins)
        messages_of = rank[begins[rows]]
        for at in np.flatnonzero(ends[rows] - begins[rows] > 1).tolist():
            candidates = rank[begins[rows[at]] : ends[rows[at]]]
            messages_of[at] = candidates[np.abs(books.order[candidates] - quotes.order[rows[at]]).argmin()]
        unequal = (books.touch[messages_of] != quotes.touch[rows]).any(axis=1)
        waiting = np.ones(len(quotes.ids), np.bool_)
        waiting[rows] = False
        self._quotes = quotes.at(waiting).at(slice(-_HELD, None))
        self._books = books.at(slice(-_HELD, None))
        return quotes.at(rows), quotes.at(rows[unequal])


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
