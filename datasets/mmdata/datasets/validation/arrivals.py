"""How the rows of one channel arrived: latency, steps of either clock, pauses, minutes with data.

Resumable: rows come in order, chunk by chunk. Latencies are counted in a histogram of fixed size, and exactly
within each minute.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.histogram import Histogram
from mmdata.datasets.market import NO_TIME
from mmdata.datasets.validation._kernels import (
    NOTE_WIDTH,
    PAUSED,
    RECV_BACK,
    new_clocks,
    read_only,
    watch_clocks,
)
from mmdata.datasets.validation.report import Latency, LatencySeries

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

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


class Arrived(NamedTuple):
    """Rows in order; (n,) arrays."""

    order: Ints
    ts_recv: Ints
    latency: Ints
    true: Ints
    """Latency by the venue's clock."""

    def at(self, rows: slice | Flags) -> Arrived:
        """Return some of them."""
        return Arrived(*(column[rows] for column in self))


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
        self._clocks = new_clocks()
        self._untimed: list[int] = []
        """Places at which rows without a receive time begin."""
        self._held: list[Arrived] = []
        """Rows of the minute that is not over."""

    def take(self, order: Ints, ts_recv: Ints, ts_event: Ints, offset: Ints | None, margin: int) -> None:
        """Take rows in order; ``offset`` is the venue's clock minus ours at each, wrong by ``margin``."""
        if len(ts_recv) and ts_recv.min() == NO_TIME:
            own = ts_recv != NO_TIME
            self._untimed += order[~own & np.append(True, own[:-1])].tolist()
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
        latency = ts_recv - ts_event
        rows = Arrived(order, ts_recv, latency, latency if offset is None else latency + offset)
        earliest = -(self._limits.early + margin)
        for day, which in by_day(ts_recv):
            found, own = self._day(day), rows.at(which)
            found.raw.add(own.latency)
            if offset is not None:
                found.corrected.add(own.true)
            early = np.flatnonzero(own.true < earliest)
            if early.size and found.first_early is None:
                found.first_early = int(own.order[early[0]]), int(own.ts_recv[early[0]])
            found.early += len(early)
        self._take_minutes(rows)

    def end(self) -> None:
        """Say that no row follows."""
        self._close(self._held)
        self._held = []

    def _day(self, day: int) -> DayOfChannel:
        if day not in self.days:
            self.days[day] = DayOfChannel()
        return self.days[day]

    def _look_at_clocks(self, order: Ints, ts_recv: Ints, ts_event: Ints) -> None:
        found = np.empty((2 * len(order), NOTE_WIDTH), np.int64)
        limits = (self._limits.silence, self._limits.event_back)
        seen = read_only(order, ts_recv, ts_event)
        count = watch_clocks(*limits, self._clocks, found, *seen)
        for what, before, own, since, when, by in found[:count].tolist():
            if what == PAUSED:
                at = bisect_right(self._untimed, before)
                if at == len(self._untimed) or self._untimed[at] > own:  # else something came meanwhile
                    self.pauses.append(Pause(before, own, since, when))
            else:
                steps = self.recv_steps if what == RECV_BACK else self.event_steps
                steps.append(Step(before, own, when, by))

    def _take_minutes(self, rows: Arrived) -> None:
        minutes = rows.ts_recv // MINUTE_NS
        if self._held and self._held[0].ts_recv[0] // MINUTE_NS != minutes[0]:
            self._close(self._held)
            self._held = []
        edges = [0, *(np.flatnonzero(np.diff(minutes)) + 1).tolist(), len(minutes)]
        for begin, end in pairwise(edges):
            part = rows.at(slice(begin, end))
            if end < len(minutes):
                self._close([*self._held, part])
                self._held = []
            else:
                # A copy: what is kept must not keep the whole chunk.
                self._held.append(Arrived(*(column.copy() for column in part)))

    def _close(self, parts: list[Arrived]) -> None:
        """Take the latencies of a minute that is over."""
        if not parts:
            return
        rows = Arrived(*map(np.concatenate, zip(*parts, strict=True)))
        minute = int(rows.ts_recv[0] // MINUTE_NS)
        day = self._day(int(rows.ts_recv[0] // DAY_NS))
        latency = rows.latency
        n = len(latency)
        places = sorted({min(n - 1, n // 2), min(n - 1, int(0.99 * n))})
        parted = np.partition(latency, places)
        day.begin.append(minute * MINUTE_NS)
        day.count.append(n)
        day.p50.append(int(parted[places[0]]))
        day.p99.append(int(parted[places[-1]]))
        true = rows.true
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
        order, ts_recv = int(rows.order[late[0]]), int(rows.ts_recv[late[0]])
        day.late.append(LateRun(order, ts_recv, len(late), 1, minute, worst))
