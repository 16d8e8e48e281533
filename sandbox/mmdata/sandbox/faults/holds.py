"""What is held back on one connection, and until when."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from mmdata.sandbox.faults.deeds import Deed, Deliver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmdata.sandbox.faults.kinds import Fault
    from mmdata.sandbox.faults.trigger import Armed


class Held(NamedTuple):
    """A frame that waits; ``by`` is the fault that holds it."""

    due_ns: int
    key: str
    text: str
    by: Armed[Fault]


class BookHold(NamedTuple):
    """Until when the diffs of a book are held back, and by which fault."""

    due_ns: int
    by: Armed[Fault]


class Holds:
    """One connection: what waits, and what it does not do for a while."""

    def __init__(self) -> None:
        # Everything waits in line until then, or is lost.
        self.until_ns = 0
        self.line: deque[Held] = deque()
        self.holder: Armed[Fault] | None = None
        self.loses = False
        # Single frames that others overtake; by stream, the one that waits for the next; held books.
        self.loose: list[Held] = []
        self.swapped: dict[str, Held] = {}
        self.books: dict[str, deque[Held]] = {}
        self.deaf: tuple[int, Armed[Fault]] | None = None
        self.no_pings_until_ns = 0

    def held(self) -> Iterator[Held]:
        """Yield everything that waits."""
        yield from self.line
        yield from self.loose
        yield from self.swapped.values()
        for queue in self.books.values():
            yield from queue

    def released(self, conn: int, now_ns: int) -> Iterator[Deed]:
        """Take out and yield what has waited long enough; nothing while all wait in line."""
        if now_ns < self.until_ns:
            return
        self.holder, self.loses = None, False
        freed = [*self.line, *(held for held in self.loose if held.due_ns <= now_ns)]
        self.line.clear()
        self.loose = [held for held in self.loose if held.due_ns > now_ns]
        for key, queue in list(self.books.items()):
            if queue[0].due_ns <= now_ns:
                freed += self.books.pop(key)
        for held in freed:
            yield Deliver(conn, held.text)
