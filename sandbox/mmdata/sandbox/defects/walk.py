"""The book as the tables tell it, message by message, so that a defect's footprint is known beforehand.

Written anew from ``docs/schema.md``, not with the library's kernel: a validator is scored on what is found
with it. Prices and sizes are integers of the tables' last decimal place.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np

from mmdata.datasets.chain import CHAINS
from mmdata.datasets.decimals import scaled
from mmdata.sandbox.defects.ground import Ints, NoPlaceError, Sheet, Site

Side = Literal["bid", "ask"]
Level = tuple[str, int, int]
"""Side, price, size."""


@dataclass
class BookSide:
    """One side: sizes by price, and the prices best first (bids negated, so that ascending is best first)."""

    sign: int
    sizes: dict[int, int] = field(default_factory=dict)
    keys: list[int] = field(default_factory=list)

    def put(self, price: int, size: int) -> None:
        """Set a level; size 0 removes it."""
        there = price in self.sizes
        if size:
            self.sizes[price] = size
            if not there:
                insort(self.keys, self.sign * price)
        elif there:
            del self.sizes[price]
            del self.keys[bisect_left(self.keys, self.sign * price)]

    def best(self, level: int = 0) -> int | None:
        """Return the price of the best level, or of one behind it."""
        return self.sign * self.keys[level] if level < len(self.keys) else None

    def rank(self, price: int) -> int:
        """Return how many levels are better than ``price``."""
        return bisect_left(self.keys, self.sign * price)

    def cut(self, depth: int) -> None:
        """Keep the best ``depth`` levels."""
        for key in self.keys[depth:]:
            del self.sizes[self.sign * key]
        del self.keys[depth:]


class Book:
    """Both sides."""

    def __init__(self) -> None:
        self.sides: dict[str, BookSide] = {"bid": BookSide(-1), "ask": BookSide(1)}

    def put(self, levels: Sequence[Level]) -> None:
        """Apply levels in order."""
        for side, price, size in levels:
            self.sides[side].put(price, size)

    def levels(self) -> list[Level]:
        """Return all levels, bids then asks, best first."""
        return [
            (side, own.sign * key, own.sizes[own.sign * key])
            for side, own in self.sides.items()
            for key in own.keys
        ]


def units(sheet: Sheet, name: str) -> list[int]:
    """Return prices or sizes in units of the last decimal place; 0 for null."""
    values = iter(scaled(sheet.rows[name]).tolist())
    return [next(values) if valid else 0 for valid in sheet.rows[name].is_valid().to_pylist()]


def sides(sheet: Sheet) -> list[str]:
    """Return the sides; an empty word for null."""
    return [word or "" for word in sheet.rows["side"].to_pylist()]


class Walk:
    """The messages of one market beside its REST snapshots; see `books`."""

    def __init__(self, site: Site) -> None:
        self.messages = site.messages
        chain = CHAINS[site.exchange]
        self._spliced, self._max_depth = chain.spliced, chain.max_depth
        depth = site.depth
        self.side = sides(depth)
        self.price, self.size = units(depth, "price"), units(depth, "size")
        self.snapshots = site.sheet("snapshots")
        self.audits = self._frames("audit")
        self.first = self._first_valid()

    def levels(self, message: int) -> list[Level]:
        """Return the levels of a message; of one without any, none."""
        return [
            (self.side[row], self.price[row], self.size[row])
            for row in self.messages.rows(message)
            if self.side[row]
        ]

    def books(self) -> Iterator[tuple[int, Book]]:
        """Yield each message at which the book is valid, and the book after it; the same object each time."""
        book = Book()
        begin = self.first
        if self._spliced:
            book.put(self._start()[1])
            begin = int(np.flatnonzero(self.messages.last_id > self._start()[0])[0])
        for message in range(begin, len(self.messages)):
            if self.messages.is_snapshot[message]:
                book = Book()
            book.put(self.levels(message))
            if self._max_depth:
                for side in book.sides.values():
                    side.cut(self._max_depth)
            if message >= self.first:
                yield message, book

    def rest(self) -> tuple[list[str], list[int], list[int]]:
        """Return side, price and size of the rows of `snapshots`."""
        sheet = self.snapshots
        return sides(sheet), units(sheet, "price"), units(sheet, "size")

    def until(self, message: int, side: str, price: int) -> int:
        """Return the next message that says something of a level; as many as there are when none does."""
        later = self._said.get((side, price), [])
        at = bisect_left(later, message + 1)
        return later[at] if at < len(later) else len(self.messages)

    def frame(self, message: int) -> int:
        """Return the frame of a message, or one beyond all for what is beyond the last."""
        messages = self.messages
        return int(messages.frame[message]) if message < len(messages) else int(messages.frame[-1]) + 10**9

    def audited(self, begin: int, end: int) -> int:
        """Return how many audits lie in the messages ``begin:end`` or just beside, where ids may overlap."""
        low, high = self.frame(max(begin - 2, 0)), self.frame(min(end + 2, len(self.messages)))
        return int(((self.audits >= low) & (self.audits <= high)).sum())

    @cached_property
    def _said(self) -> dict[tuple[str, int], list[int]]:
        """Which messages speak of a level."""
        said: dict[tuple[str, int], list[int]] = {}
        for message in range(len(self.messages)):
            for side, price, _ in self.levels(message):
                at = said.setdefault((side, price), [])
                if not at or at[-1] != message:
                    at.append(message)
        return said

    def _frames(self, reason: str) -> Ints:
        rows = self.snapshots.words("reason") == reason
        return np.unique(self.snapshots.ints("frame")[rows]) if len(rows) else np.empty(0, np.int64)

    def _start(self) -> tuple[int, list[Level]]:
        """Return id and levels of the only snapshot that starts the book. NoPlaceError: there are others."""
        if len(self._frames("start")) != 1 or len(self._frames("gap")):
            raise NoPlaceError
        rows = np.flatnonzero(self.snapshots.words("reason") == "start").tolist()
        side, price, size = self.rest()
        levels = [(side[row], price[row], size[row]) for row in rows if side[row]]
        return int(self.snapshots.ints("last_id")[rows[0]]), levels

    def _first_valid(self) -> int:
        """Return the message with which the book becomes valid. NoPlaceError: it never does."""
        messages = self.messages
        begins = messages.is_snapshot
        if self._spliced:
            frame = self._frames("start")
            if not len(frame):
                raise NoPlaceError
            begins = (messages.frame > frame[0]) & (messages.last_id > self._start()[0])
        if not begins.any():
            raise NoPlaceError
        return int(np.flatnonzero(begins)[0])
