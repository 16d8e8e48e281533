"""A day by the minute: what was expected, what is there, and how the top of the book was."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.validation._kernels import (
    ASK_SIZE,
    BID_SIZE,
    MINUTE_WIDTH,
    PROVEN,
    QUOTED,
    RECORDED,
    SPREAD,
    add_minutes,
)
from mmdata.datasets.validation.arrivals import DAY_NS, MINUTE_NS
from mmdata.datasets.validation.books import Walked
from mmdata.datasets.validation.report import BookSeries, Coverage
from mmdata.datasets.validation.rows import Units

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class BookMinutes:
    """The time between book messages, spread over the minutes of each day; chunk by chunk."""

    def __init__(self) -> None:
        self.days: dict[int, NDArray[np.float64]] = {}
        self._last: tuple[int, int, Ints] | None = None

    def take(self, walked: Walked, sessions: Ints) -> None:
        """Take a chunk; ``sessions`` (n,) are those of its messages."""
        times, tops = walked.messages.ts_recv, walked.tops
        if not len(times):
            return
        if self._last is not None:
            times = np.concatenate(([self._last[0]], times))
            sessions = np.concatenate(([self._last[1]], sessions))
            tops = np.concatenate((self._last[2], tops))
        same = np.concatenate(([False], sessions[1:] == sessions[:-1]))
        first, last = int(times.min()) // DAY_NS, int(times.max()) // DAY_NS
        days = range(first, last + 1) if last - first < 7 else np.unique(times // DAY_NS).tolist()
        for day in days:
            minutes = self.days.setdefault(day, np.zeros((1440, MINUTE_WIDTH)))
            add_minutes(times, same, np.ascontiguousarray(tops), day * DAY_NS, minutes)
        self._last = int(times[-1]), int(sessions[-1]), tops[-1:].copy()


def book_series(day: int, minutes: NDArray[np.float64], units: Units) -> BookSeries:
    """Return spread and sizes at the touch over time, weighted by time."""
    own = np.flatnonzero(minutes[:, QUOTED] > 0)
    span = minutes[own, QUOTED]
    price, size = float(units.price), float(units.size)
    return BookSeries(
        [day * DAY_NS + int(minute) * MINUTE_NS for minute in own],
        (minutes[own, SPREAD] / span * price).tolist(),
        (minutes[own, BID_SIZE] / span * size).tolist(),
        (minutes[own, ASK_SIZE] / span * size).tolist(),
    )


def spans_to_minutes(day: int, spans: Iterable[tuple[int, int]]) -> Flags:
    """Return which minutes of a day any of some spans (ns, begin and end) overlaps."""
    found = np.zeros(1440, np.bool_)
    begin_of_day = day * DAY_NS
    for begin, end in spans:
        first = max(begin - begin_of_day, 0) // MINUTE_NS
        last = min(end - begin_of_day, DAY_NS - 1) // MINUTE_NS
        if end >= begin_of_day and first < 1440:
            found[first : last + 1] = True
    return found


def expected_minutes(
    day: int, windows: Sequence[tuple[int, int]], has_data: Flags, *, is_open: bool
) -> Flags:
    """Return the minutes of a day in which there should be data.

    Those wholly within a window, and those within one that have some; without a window, all from the first
    with data to the last. Of a day that is still written nothing is expected after its last data.
    """
    found = np.zeros(1440, np.bool_)
    there = np.flatnonzero(has_data)
    if not windows:
        if there.size:
            found[there[0] : there[-1] + 1] = True
        return found
    for begin, end in windows:
        first = -(-(begin - day * DAY_NS) // MINUTE_NS)
        last = (end - day * DAY_NS) // MINUTE_NS
        found[max(first, 0) : max(last, 0)] = True
        found |= has_data & spans_to_minutes(day, [(begin, end - 1)])
    if is_open:
        found[(int(there[-1]) + 1) if there.size else 0 :] = False
    return found


def coverage(
    day: int,
    windows: Sequence[tuple[int, int]],
    has_data: Flags,
    in_hole: Flags,
    minutes: NDArray[np.float64] | None,
    *,
    is_open: bool,
) -> Coverage:
    """Return the window of a day, and how it is covered."""
    own = [(begin, end) for begin, end in windows if end > day * DAY_NS and begin < (day + 1) * DAY_NS]
    expected = expected_minutes(day, own, has_data, is_open=is_open)
    if minutes is not None:
        # A book that was not valid for a whole minute is a hole, too.
        in_hole = in_hole | ((minutes[:, RECORDED] > 0) & (minutes[:, PROVEN] == 0))
    strip = np.full(1440, ".")
    strip[expected] = "x"
    strip[expected & has_data] = "#"
    strip[expected & in_hole] = "o"
    there = np.flatnonzero(expected)
    return Coverage(
        begin=day * DAY_NS + int(there[0]) * MINUTE_NS if there.size else None,
        end=day * DAY_NS + (int(there[-1]) + 1) * MINUTE_NS if there.size else None,
        source="window" if own else "span",
        expected=int(expected.sum()),
        covered=int((strip == "#").sum()),
        in_hole=int((strip == "o").sum()),
        missing=int((strip == "x").sum()),
        strip="".join(strip),
    )
