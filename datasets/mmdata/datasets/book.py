"""Books rebuilt from a recording: the whole of it at once, or one message at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import (
    ASK,
    BID,
    BOOK_ID,
    FULL,
    NO_PRICE,
    VALID,
    Columns,
    count_levels,
    grown,
    list_levels,
    new_levels,
    new_state,
    run,
    run_proof,
    step,
)
from mmdata.datasets.chain import ChainRule

__all__ = ["NO_PRICE", "Book", "Tops", "next_part", "prove", "proven", "rebuild"]

Ints = NDArray[np.int64]
_FIRST_CAPACITY = 4096


@dataclass(frozen=True, slots=True)
class Tops:
    """The best bid and ask after each message; arrays of shape (n,), ticks and lots."""

    valid: NDArray[np.bool_]
    bid_price: Ints
    """NO_PRICE where the side is empty or the book is invalid."""
    bid_size: Ints
    ask_price: Ints
    ask_size: Ints
    applied: NDArray[np.bool_]
    """True where the book is valid and stands at this very message's id."""


class Book:
    """A book that takes messages one by one, in order; prices in ticks, sizes in lots.

    Feed every message: one that waits for a snapshot is applied late. ``unit`` is what prices are multiples
    of, where they are not in ticks; 0 where nobody knows (any prices work, more slowly).
    """

    def __init__(
        self, columns: Columns, chain: ChainRule, capacity: int = _FIRST_CAPACITY, unit: int = 1
    ) -> None:
        self.columns = columns
        """May be replaced by others that go on: what ``state`` points to are places in them."""
        self.arrays = new_levels(capacity)
        self.state = new_state(chain.rule, chain.max_depth, unit)

    @property
    def valid(self) -> bool:
        """True when the book is proven to be the exchange's, as far as it was sent."""
        return bool(self.state[VALID])

    @property
    def id(self) -> int:
        """Id of the last message in the book; NO_ID where the venue sends none."""
        return int(self.state[BOOK_ID])

    def step(self, message: int) -> None:
        """Take message number ``message`` of the columns into the book."""
        step(self.columns, message, self.arrays, self.state)
        while self.state[FULL]:
            self.grow()
            step(self.columns, message, self.arrays, self.state)

    def run(self, begin: int, end: int, tops: Ints, applied: NDArray[np.bool_]) -> None:
        """Take messages ``begin:end``, and note the book after each, as the kernel's ``run`` does."""
        while begin < end:
            begin = run(self.columns, begin, end, self.arrays, self.state, tops, applied)
            if self.state[FULL]:
                self.grow()

    def grow(self) -> None:
        """Double the room for levels, after a kernel said FULL."""
        self.arrays = grown(self.arrays)
        self.state[FULL] = 0

    def bids(self, depth: int | None = None) -> list[tuple[int, int]]:
        """Return (price in ticks, size in lots) of the bids, best first; the best ``depth`` of them."""
        return self._listed(BID, depth)

    def asks(self, depth: int | None = None) -> list[tuple[int, int]]:
        """Return (price in ticks, size in lots) of the asks, best first; the best ``depth`` of them."""
        return self._listed(ASK, depth)

    def _listed(self, side: int, depth: int | None) -> list[tuple[int, int]]:
        prices, sizes = self.levels(side, depth)
        return [*zip(prices.tolist(), sizes.tolist(), strict=True)]

    def levels(self, side: int, depth: int | None = None) -> tuple[Ints, Ints]:
        """Return prices (ticks) and sizes (lots) of ``side``, best first; the best ``depth`` of them."""
        count = count_levels(self.arrays, self.state, side)
        found = np.empty((count if depth is None else min(depth, count), 2), np.int64)
        list_levels(self.arrays, self.state, side, found)
        return found[:, 0] if side == BID else -found[:, 0], found[:, 1]


def next_part(book: Book | None, columns: Columns, chain: ChainRule) -> Book:
    """Return ``book`` with the columns of the next sessions; a new one where these are the first.

    A session's begin leaves no message waiting, so that nothing points into the columns before.
    """
    if book is None:
        return Book(columns, chain)
    book.columns = columns
    return book


def rebuild(columns: Columns, chain: ChainRule) -> Tops:
    """Rebuild the book over all messages and return its top after each."""
    n = len(columns.kind)
    tops = np.empty((n, 5), np.int64)
    applied = np.empty(n, np.bool_)
    Book(columns, chain).run(0, n, tops, applied)
    return Tops(
        valid=tops[:, 0] == 1,
        bid_price=tops[:, 1],
        bid_size=tops[:, 2],
        ask_price=tops[:, 3],
        ask_size=tops[:, 4],
        applied=applied,
    )


def proven(columns: Columns, chain: ChainRule) -> NDArray[np.bool_]:
    """Return whether the book is valid after each message, (n,); the ids alone say so, no book is built."""
    heads = columns._replace(start=np.zeros_like(columns.start))
    return prove(Book(heads, chain), heads)[0]


def prove(book: Book, heads: Columns, begin: int = 0) -> tuple[NDArray[np.bool_], Ints]:
    """Take messages without levels from ``begin`` on; return validity and id of the book after each."""
    n = len(heads.kind)
    valid, book_id = np.empty(n, np.bool_), np.empty(n, np.int64)
    run_proof(heads, begin, book.arrays, book.state, valid, book_id)
    return valid[begin:], book_id[begin:]
