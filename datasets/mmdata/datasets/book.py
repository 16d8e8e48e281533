"""Books rebuilt from a recording: the whole of it at once, or one message at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import (
    ASK,
    BID,
    BIDS,
    BOOK_ID,
    BOUNDARY,
    FULL,
    LEAST_NEAR,
    MAX_DEPTH,
    NO_PRICE,
    PENDING,
    RULE,
    SIDES,
    SNAPSHOT,
    STATE_SIZE,
    VALID,
    Columns,
    run,
    run_proof,
    settle,
    step,
)
from mmdata.datasets.chain import NO_ID, ChainRule

__all__ = ["NO_PRICE", "Book", "Tops", "prove", "proven", "rebuild"]

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

    Feed every message: one that waits for a snapshot is applied late.
    """

    def __init__(self, columns: Columns, chain: ChainRule, capacity: int = _FIRST_CAPACITY) -> None:
        self.columns = columns
        """May be replaced by others that go on: what ``state`` points to are places in them."""
        self.keys = np.zeros((SIDES, capacity), np.int64)
        self.sizes = np.zeros((SIDES, capacity), np.int64)
        self.state = np.zeros(STATE_SIZE, np.int64)
        self.state[BOUNDARY : BOUNDARY + 2] = NO_PRICE
        self.state[[PENDING, SNAPSHOT]] = -1
        self.state[BOOK_ID] = NO_ID
        self.state[RULE] = chain.rule
        self.state[MAX_DEPTH] = chain.max_depth

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
        step(self.columns, message, self.keys, self.sizes, self.state)
        while self.state[FULL]:
            self.grow()
            step(self.columns, message, self.keys, self.sizes, self.state)

    def run(self, begin: int, end: int, tops: Ints, applied: NDArray[np.bool_]) -> None:
        """Take messages ``begin:end``, and note the book after each, as the kernel's ``run`` does."""
        while begin < end:
            begin = run(self.columns, begin, end, self.keys, self.sizes, self.state, tops, applied)
            if self.state[FULL]:
                self.grow()

    def grow(self) -> None:
        """Double the room for levels, after a kernel said FULL."""
        self.keys = np.concatenate((self.keys, np.zeros_like(self.keys)), axis=1)
        self.sizes = np.concatenate((self.sizes, np.zeros_like(self.sizes)), axis=1)
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
        if depth is None or depth > LEAST_NEAR:
            settle(self.keys, self.sizes, self.state, side)
        count = int(self.state[BIDS + side])
        used = slice(0 if depth is None else max(0, count - depth), count)
        sign = 1 if side == BID else -1
        return sign * self.keys[side, used][::-1], self.sizes[side, used][::-1]


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
    run_proof(heads, begin, book.keys, book.sizes, book.state, valid, book_id)
    return valid[begin:], book_id[begin:]
