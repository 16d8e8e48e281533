"""Which ids of a chain are missing, so that a message that comes late is told from one that comes again."""

from __future__ import annotations

from collections.abc import Iterable

Span = tuple[int, int]
"""The ids after the first up to the second."""
_MOST = 64  # spans: what has been missing for longer comes no more


class Holes:
    """The newest spans of missing ids; a message covers the ids after ``prev_id`` up to ``last_id``.

    >>> holes = Holes()
    >>> holes.add(10, 20)
    >>> holes.take(12, 15), holes.take(12, 15), holes.spans
    (True, False, [(10, 12), (15, 20)])
    """

    __slots__ = ("spans",)

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self.spans = [*spans]

    def add(self, after: int, until: int) -> None:
        """Say that ids are missing; beyond so many spans the oldest are forgotten."""
        self.spans.append((after, until))
        del self.spans[:-_MOST]

    def take(self, prev_id: int, last_id: int) -> bool:
        """Tell whether a message was missing as a whole; from then on it is not."""
        for at, (after, until) in enumerate(self.spans):
            if after <= prev_id < last_id <= until:
                left = ((after, prev_id), (last_id, until))
                self.spans[at : at + 1] = [span for span in left if span[0] < span[1]]
                del self.spans[:-_MOST]
                return True
        return False
