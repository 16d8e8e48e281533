"""The books of a session, as connections come and go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

from mmdata.datasets.booksync import Note
from mmdata.recorder.books import Books
from mmdata.recorder.capture import Event
from mmdata.recorder.counts import Counts
from mmdata.recorder.venues import open_stream
from mmdata.recorder.venues.stream import DEPTH, Seen


class Journal:
    """Keeps what is noted."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.noted: list[tuple[str, int | None]] = []

    def note(self, event: Event) -> None:
        """Keep an event."""
        self.noted.append((event.kind, event.last_id))

    def note_gap(self, conn: int | None, channel: str, symbol: str, gap: Note) -> None:
        """Keep a hole."""
        self.noted.append((f"gap {gap.detail['cause']}", gap.last_id))

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Begin nothing."""
        work.close()


def test_book_ends_with_the_connection_that_brought_it_though_another_is_open_already() -> None:
    """The other one's snapshot replaced the book, and what was lost before it was on no record."""
    journal = Journal()
    old, new = SimpleNamespace(conn=7), SimpleNamespace(conn=8)

    async def replace() -> None:
        asker: Any = None
        books = Books(open_stream("okx", ["X"], ["books"], "ws://x"), journal, asker, random.Random(1))
        books.joined(old)  # type: ignore[arg-type]
        books.receive(7, Seen(DEPTH, "X", 10, 10, -1, True))
        books.joined(new)  # type: ignore[arg-type]
        books.left(old, lost=True, brought=())  # type: ignore[arg-type]
        books.receive(8, Seen(DEPTH, "X", 12, 12, -1, True))

    asyncio.run(replace())
    assert journal.noted == [("synced", 10), ("gap disconnect", 10), ("synced", 12)]


def test_a_book_that_is_not_whole_is_not_audited() -> None:
    """Its audit would take the turn of the snapshot that makes it whole, and compare nothing."""
    asked: list[str | None] = []

    class Asker:
        async def ask(self, *_: object, reason: str, **__: object) -> Any:
            asked.append(reason)
            return SimpleNamespace(last_id=15), None, 0

    async def audit() -> None:
        asker: Any = Asker()
        stream = open_stream("okx", ["X"], ["books"], "ws://x")
        books = Books(stream, Journal(), asker, random.Random(1))
        books.receive(7, Seen(DEPTH, "X", 10, 10, -1, True))
        await books.audit("X")
        books.receive(7, Seen(DEPTH, "X", 20, 20, 15, False))
        await books.audit("X")

    asyncio.run(audit())
    assert asked == ["audit"]
