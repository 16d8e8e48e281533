"""How the rows of one channel arrived: latency, steps of either clock, pauses, minutes with data.

Resumable: rows come in order, chunk by chunk. Latencies are counted in a histogram of fixed size, and exactly
within each minute.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.histogram import Histogram
from mmdata.datasets.market import FRAME_BITS, NO_TIME
from mmdata.datasets.validation.report import Latency, LatencySeries

Ints = NDArray[np.int64]

MINUTE_NS = 60_000_000_000
DAY_NS = 1440 * MINUTE_NS


def by_day(times: Ints) -> list[tuple[int, slice | NDArray[np.bool_]]]:
    """Return the days (since the epoch) on which ``times`` lie, and which of them lie on each."""
    if not len(times):
        return []
    first, last = int(times.min()) // DAY_NS, int(times.max()) // DAY_NS
    if first == last:
        return [(first, slice(None))]
    days = times // DAY_NS
    return [(day, days == day) for day in np.unique(days).tolist()]


def latency_of(channel: str, counted: Histogram, *, corrected: bool) -> Latency:
    """Return the figures of a channel of which at least one latency was counted."""
    p50, p90, p99, p999 = (counted.quantile(per_mille) for per_mille in (500, 900, 990, 999))
    least, largest, share = counted.least, counted.largest, counted.negative / counted.count
    return Latency(channel, counted.count, least, p50, p90, p99, p999, largest, share, corrected)


class Step(NamedTuple):
    """A clock that is behind the row before, between two places."""

    before: int
    order: int
    ts_recv: int
    by: int
    """Ns."""


class Pause(NamedTuple):
    """A pause between two rows of one session."""

    before: int
    order: int
    begin: int
    end: int


@dataclass
class LateRun:
    """Minutes in a row in which too much came too late."""

    order: int
    ts_recv: int
    count: int
    minutes: int
    last: int
    worst: int


@dataclass
class DayOfChannel:
    """What one UTC date of a channel had."""

    minutes: Ints = field(default_factory=lambda: np.zeros(1440, np.int64))
    """Rows of each minute."""
    raw: Histogram = field(default_factory=Histogram)
    corrected: Histogram = field(default_factory=Histogram)
    begin: list[int] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    p50: list[int] = field(default_factory=list)
    p99: list[int] = field(default_factory=list)
    early: int = 0
    """Rows that arrived before they happened, by more than the clocks' difference explains."""
    first_early: tuple[int, int] | None = None
    """Place and arrival of the first."""
    late: list[LateRun] = field(default_factory=list)

    def series(self, channel: str) -> LatencySeries:
        """Return latency over time."""
        return LatencySeries(channel, self.begin, self.count, self.p50, self.p99)


@dataclass
class Limits:
    """What is too much, in ns; see `Thresholds`."""

    silence: int
    late: int
    late_share: float
    event_back: int
    early: int


class Channel:
    """The arrivals of one channel of one symbol."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.days: dict[int, DayOfChannel] = {}
        """By day since the epoch."""
        self.recv_steps: list[Step] = []
        self.event_steps: list[Step] = []
        self.pauses: list[Pause] = []
        self._limits = limits
        self._last: tuple[int, int] | None = None
        self._last_event: tuple[int, int] | None = None
        self._held = np.empty((0, 4), np.int64)
        """Of the minute that is not over: latency, arrival, place, and latency by the venue's clock."""

    def take(self, order: Ints, ts_recv: Ints, ts_event: Ints, offset: Ints | None, margin: int) -> None:
        """Take rows in order; ``offset`` is the venue's clock minus ours at each, wrong by ``margin``."""
        if len(ts_recv) and ts_recv.min() == NO_TIME:
            own = ts_recv != NO_TIME
            order, ts_recv, ts_event = order[own], ts_recv[own], ts_event[own]
            offset = None if offset is None else offset[own]
        if not len(order):
            return
        self._look_at_clocks(order, ts_recv, ts_event)
        for day, own in by_day(ts_recv):
            minutes = (ts_recv[own] - day * DAY_NS) // MINUTE_NS
            self._day(day).minutes += np.bincount(minutes, minlength=1440)
        if ts_event.min() == NO_TIME:
            timed = ts_event != NO_TIME
            if not timed.any():
                return
            order, ts_recv, ts_event = order[timed], ts_recv[timed], ts_event[timed]
            offset = None if offset is None else offset[timed]
        times, raw = ts_recv, ts_recv - ts_event
        true = raw if offset is None else raw + offset
        for day, own in by_day(times):
            found = self._day(day)
            found.raw.add(raw[own])
            if offset is not None:
                found.corrected.add(true[own])
            early = np.flatnonzero(true[own] < -(self._limits.early + margin))
            if early.size and found.first_early is None:
                found.first_early = int(order[own][early[0]]), int(times[own][early[0]])
            found.early += len(early)
        self._take_minutes(np.column_stack((raw, times, order, true)))

    def end(self) -> None:
        """Say that no row follows."""
        self._close(self._held)
        self._held = self._held[:0]

    def _day(self, day: int) -> DayOfChannel:
        return self.days.setdefault(day, DayOfChannel())

    def _look_at_clocks(self, order: Ints, ts_recv: Ints, ts_event: Ints) -> None:
        if self._last is not None:
            order = np.concatenate(([self._last[0]], order))
            ts_recv = np.concatenate(([self._last[1]], ts_recv))
        same = order[1:] >> FRAME_BITS == order[:-1] >> FRAME_BITS
        spans = np.diff(ts_recv)
        for at in np.flatnonzero(same & (spans < 0)).tolist():
            step = Step(int(order[at]), int(order[at + 1]), int(ts_recv[at + 1]), -int(spans[at]))
            self.recv_steps.append(step)
        for at in np.flatnonzero(same & (spans > self._limits.silence)).tolist():
            self.pauses.append(Pause(*map(int, (order[at], order[at + 1], ts_recv[at], ts_recv[at + 1]))))
        self._last = int(order[-1]), int(ts_recv[-1])
        new = len(ts_event)
        timed = np.flatnonzero(ts_event != NO_TIME)
        if not timed.size:
            return
        places, events = order[-new:][timed], ts_event[timed]
        arrivals = ts_recv[-new:][timed]
        if self._last_event is not None:
            places = np.concatenate(([self._last_event[0]], places))
            events = np.concatenate(([self._last_event[1]], events))
            arrivals = np.concatenate(([0], arrivals))
        back = (np.diff(events) < -self._limits.event_back) & (
            places[1:] >> FRAME_BITS == places[:-1] >> FRAME_BITS
        )
        for at in np.flatnonzero(back).tolist():
            by = int(events[at] - events[at + 1])
            self.event_steps.append(Step(int(places[at]), int(places[at + 1]), int(arrivals[at + 1]), by))
        self._last_event = int(places[-1]), int(events[-1])

    def _take_minutes(self, rows: Ints) -> None:
        rows = np.concatenate((self._held, rows))
        minute = rows[:, 1] // MINUTE_NS
        edges = np.flatnonzero(np.diff(minute)) + 1
        for part in np.split(rows[: edges[-1]], edges[:-1]) if edges.size else ():
            self._close(part)
        self._held = rows[edges[-1] :] if edges.size else rows

    def _close(self, rows: Ints) -> None:
        """Take the latencies of a minute that is over."""
        if not len(rows):
            return
        minute = int(rows[0, 1] // MINUTE_NS)
        day = self._day(int(rows[0, 1] // DAY_NS))
        latency = rows[:, 0]
        n = len(rows)
        places = sorted({min(n - 1, n // 2), min(n - 1, int(0.99 * n))})
        parted = np.partition(latency, places)
        day.begin.append(minute * MINUTE_NS)
        day.count.append(n)
        day.p50.append(int(parted[places[0]]))
        day.p99.append(int(parted[places[-1]]))
        true = rows[:, 3]
        late = np.flatnonzero(true > self._limits.late)
        if len(late) <= self._limits.late_share * n:
            return
        worst = int(true.max())
        if day.late and day.late[-1].last >= minute - 1:
            run = day.late[-1]
            run.count += len(late)
            run.minutes += minute - run.last
            run.last = minute
            run.worst = max(run.worst, worst)
            return
        first = rows[late[0]]
        day.late.append(LateRun(int(first[2]), int(first[1]), len(late), 1, minute, worst))
