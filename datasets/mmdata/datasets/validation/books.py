"""The book rebuilt chunk by chunk: what is around it goes into the kernel, what the kernel saw comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import BID, PENDING, SNAPSHOT, SPLICE
from mmdata.datasets._kernel import Columns as Kernel
from mmdata.datasets.book import Book
from mmdata.datasets.chain import NO_ID, ChainRule
from mmdata.datasets.market import NO_TIME
from mmdata.datasets.validation.messages import Messages

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

# Order within one frame: what begins there, its messages, what was noted about them.
BEFORE, WITHIN, AFTER = 0, 1, 2

_HEADS = 9
"""Fields of a message that are one value; the others are its levels'."""
_MOST_PENDING = 1 << 20
"""Levels that are kept for a snapshot to come: it answers within seconds, so minutes of a market do."""


class Walked(NamedTuple):
    """Messages of a chunk in the order that counts, marks among them, and the book after each; (n,)."""

    messages: Messages
    """Without their levels."""
    tops: Ints
    """(n, 5): valid, best bid, its size, best ask, its size."""
    applied: Flags
    """The book is valid and stands at this very message's id."""


Look = Callable[[Book, int], None]
"""Called with the book right after a message, and the message's place in the chunk."""


class BookWalk:
    """A book that takes chunk after chunk; its messages that wait for a snapshot are carried over."""

    def __init__(self, chain: ChainRule, unit: int) -> None:
        """Start without a book; ``unit``: what prices are multiples of, 0 where nobody knows."""
        self._joined = self._carry = no_messages()
        self._book = Book(kernel_columns(self._carry), chain, unit=unit)
        self._room = no_messages()
        """Of levels: room is made once, not with each chunk."""

    def join(self, pieces: Sequence[tuple[int, Messages]]) -> Messages:
        """Return the messages of a chunk as `merged` does; their levels last until the next is joined."""
        blocks = [self._carry, *_blocks(pieces)]
        held, n = len(self._carry.kind), sum(len(block.price) for block in blocks)
        if n > len(self._room.price):
            self._room = Messages(*(np.empty(2 * n, column.dtype) for column in self._room))
        heads = (np.concatenate([block[at] for block in blocks]) for at in range(_HEADS))
        levels = (
            np.concatenate([block[at] for block in blocks], out=self._room[at][:n])
            for at in range(_HEADS, len(self._room))
        )
        self._joined = Messages(*heads, *levels)
        until = np.concatenate(([0], np.cumsum(self._joined.levels)))
        return _block(self._joined, until, held, len(self._joined.kind))

    def take(self, messages: Messages, stops: Sequence[int], look: Look) -> Walked:
        """Apply the messages that were joined last; after each of ``stops`` (ascending) call ``look``."""
        book, joined = self._book, self._joined
        book.columns = kernel_columns(joined)
        n = len(joined.kind)
        held = n - len(messages.kind)
        tops, applied = np.empty((n, 5), np.int64), np.empty(n, np.bool_)
        begin = held
        for stop in stops:
            book.run(begin, held + stop + 1, tops, applied)
            begin = held + stop + 1
            look(book, stop)
        book.run(begin, n, tops, applied)
        self._keep(joined)
        none = no_messages()
        heads = messages._replace(side=none.side, price=none.price, size=none.size)
        return Walked(heads, tops[held:], applied[held:])

    def _keep(self, joined: Messages) -> None:
        """Carry over what the book may still need, and let its state point there."""
        state = self._book.state
        pending, snapshot = int(state[PENDING]), int(state[SNAPSHOT])
        chosen: list[int] = [snapshot] if snapshot >= 0 else []
        if pending >= 0:
            until = np.cumsum(joined.levels)
            too_many = int(until[-1]) - _MOST_PENDING
            pending = max(pending, int(np.searchsorted(until, too_many)) + 1) if too_many > 0 else pending
            state[PENDING] = len(chosen)
            chosen += [at for at in range(pending, len(joined.kind)) if at != snapshot]
        if snapshot >= 0:
            state[SNAPSHOT] = 0
        self._carry = picked(joined, np.array(chosen, np.int64))
        self._book.columns = kernel_columns(self._carry)
        self._joined = no_messages()


def no_messages() -> Messages:
    """Return no messages."""
    none = np.empty(0, np.int64)
    return Messages(
        none.astype(np.uint8),
        none,
        none,
        none,
        none,
        none,
        none,
        none,
        none,
        none.astype(np.int8),
        none,
        none,
    )


def marks(places: Sequence[tuple[int, int, int]]) -> Messages:
    """Return messages that carry neither ids nor levels, from (order, kind, ts_recv)."""
    n = len(places)
    table = np.array(places, np.int64).reshape(n, 3)
    no_ids = np.full(n, NO_ID)
    empty = no_messages()
    return empty._replace(
        kind=table[:, 1].astype(np.uint8),
        order=table[:, 0].copy(),
        ts_recv=table[:, 2].copy(),
        ts_event=np.full(n, NO_TIME),
        first_id=no_ids,
        last_id=no_ids,
        prev_id=no_ids,
        checksum=no_ids,
        levels=np.zeros(n, np.int64),
    )


def merged(pieces: Sequence[tuple[int, Messages]]) -> Messages:
    """Return the messages of several pieces in order; each piece has its place within a frame."""
    return Messages(*map(np.concatenate, zip(no_messages(), *_blocks(pieces), strict=True)))


def _blocks(pieces: Sequence[tuple[int, Messages]]) -> list[Messages]:
    """Return the messages of several pieces in order, as views of those that stay together.

    Levels are many, and few messages stand between those of another piece.
    """
    pieces = [(at, piece) for at, piece in pieces if len(piece.kind)]
    if len(pieces) < 2:
        return [piece for _, piece in pieces]
    counts = [len(piece.kind) for _, piece in pieces]
    within = np.repeat([at for at, _ in pieces], counts)
    rank = np.lexsort((within, np.concatenate([piece.order for _, piece in pieces])))
    of, begins = np.repeat(np.arange(len(pieces)), counts)[rank], np.cumsum([0, *counts])
    edges = np.flatnonzero((np.diff(rank) != 1) | (np.diff(of) != 0)) + 1
    until = [np.concatenate(([0], np.cumsum(piece.levels))) for _, piece in pieces]
    blocks = []
    for first, end in pairwise([0, *edges.tolist(), len(rank)]):
        which = int(of[first])
        begin = int(rank[first] - begins[which])
        blocks.append(_block(pieces[which][1], until[which], begin, begin + end - first))
    return blocks


def _block(messages: Messages, until: Ints, begin: int, end: int) -> Messages:
    """Return the messages ``begin:end``, views; ``until`` (n + 1,) is how many levels are before each."""
    columns: list[NDArray[Any]] = [column[begin:end] for column in messages[:_HEADS]]
    columns += [column[until[begin] : until[end]] for column in messages[_HEADS:]]
    return Messages(*columns)


def picked(messages: Messages, rank: Ints) -> Messages:
    """Return the messages at ``rank``, in that order, with their levels behind one another."""
    counts = messages.levels[rank]
    starts = (np.cumsum(messages.levels) - messages.levels)[rank]
    offsets = np.cumsum(counts) - counts
    rows = np.repeat(starts - offsets, counts) + np.arange(int(counts.sum()))
    columns: list[NDArray[Any]] = [column[rank] for column in messages[:_HEADS]]
    columns += [column[rows] for column in messages[_HEADS:]]
    return Messages(*columns)


def kernel_columns(messages: Messages) -> Kernel:
    """Return messages as the book kernel reads them."""
    return Kernel(
        messages.kind,
        messages.first_id,
        messages.last_id,
        messages.prev_id,
        np.concatenate(([0], np.cumsum(messages.levels))).astype(np.int64),
        np.ascontiguousarray(messages.side),
        np.ascontiguousarray(messages.price),
        np.ascontiguousarray(messages.size),
    )


def bounds(messages: Messages, at: int) -> tuple[int, int] | None:
    """Return the worst bid and ask of message ``at``; None where a side is empty."""
    first = int(messages.levels[:at].sum())
    rows = slice(first, first + int(messages.levels[at]))
    side, price = messages.side[rows], messages.price[rows]
    bids, asks = price[side == BID], price[side != BID]
    return (int(bids.min()), int(asks.max())) if len(bids) and len(asks) else None


def splices(messages: Messages) -> Ints:
    """Return the places of REST snapshots."""
    return np.flatnonzero(messages.kind == SPLICE)
