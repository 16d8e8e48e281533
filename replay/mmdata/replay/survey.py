"""A recording looked at once before any of it is simulated, for what depends on the whole of it.

The clock's shift is that of a whole session, the stretch to calibrate on a share of all, and no two sessions
may overlap. Of what is looked at only this is kept, so that a month needs the memory of a session.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import REPLACE, SPLICE
from mmdata.datasets.clocks import DEFAULT_BASE_LATENCY_NS
from mmdata.datasets.market import NO_TIME, Market, without_rows
from mmdata.replay.clock import (
    MAPPED,
    Clock,
    Extent,
    SessionClock,
    Timekeeper,
    Timeline,
    Validity,
    refuse_future,
    session_clocks,
)
from mmdata.replay.fitness import Received, received, refuse_overlap
from mmdata.replay.state import NEVER

Ints = NDArray[np.int64]

_HELD_BYTES = 2**28


class Held:
    """A recording's parts, to be gone through again and again; few and small ones stay in memory."""

    def __init__(self, parts: Iterable[Market]) -> None:
        self._parts = parts
        self._held: list[Market] | None = None

    def __iter__(self) -> Iterator[Market]:
        """Yield the parts, one after the other."""
        if self._held is not None:
            yield from self._held
            return
        held: list[Market] | None = []
        size = 0
        for part in self._parts:
            size += _bytes(part)
            if held is not None:
                held.append(part)
            if size > _HELD_BYTES:
                held = None
            yield part
        self._held = held


def _bytes(market: Market) -> int:
    arrays: list[NDArray[Any]] = [*market.columns, market.order, market.ts_recv, market.ts_event]
    for own in (market.trades, market.quotes):
        arrays += [getattr(own, column.name) for column in fields(own)]
    return sum(array.nbytes for array in arrays)


@dataclass(frozen=True, slots=True)
class Survey:
    """What must be known of a whole recording before any of it is simulated; ns of the exchange's clock."""

    market: Market
    """Without its rows."""
    clock: Clock
    sessions: tuple[Received, ...]
    begin: int
    """Where the recording, as far as it is asked for, begins."""
    until: int
    validity: Validity
    known: tuple[int, ...]
    """Of each part: before when everything is at hand, once it and those before it are."""
    latencies: Ints
    """How long book messages of that time were on their way; none where nobody asked."""
    begun: Ints
    """When sessions with a timed message begin, by the recorder's clock."""
    shifts: Ints
    """What is added to it in each of those."""
    messages: int
    """Book messages, all in all."""
    snapshots: int
    traded: bool
    """A trade was recorded."""


def survey(
    parts: Iterable[Market],
    start: int | None,
    end: int | None,
    *,
    clock: str,
    base_latency_ns: int,
    latencies: bool = False,
) -> Survey:
    """Look at a recording part by part; ``start`` and ``end`` (ns) are of the exchange's clock.

    ``latencies``: those of book messages are wanted. UsageError: a clock that is not known or would show the
    future, sessions that ran at the same time, nothing recorded between ``start`` and ``end``.
    """
    about: Market | None = None
    mapped: Clock | None = None
    spans: list[Received] = []
    extent = Extent()
    validity: list[Validity] = []
    first: list[int] = []
    delays: list[tuple[Ints, Ints]] = []
    begun: list[tuple[int, int]] = []
    messages = snapshots = trades = 0
    keeper = Timekeeper()
    for part, mapped in _clocked(parts, clock, base_latency_ns):
        times = keeper.timeline(part, mapped)
        spans += received(part, mapped, start, end, by_event=True)
        extent = extent.joined(Extent.of(times, start))
        validity.append(Validity.of(times))
        first.append(_first(times))
        if latencies:
            delays.append((times.acts, times.seen - times.acts))
        begun += _begun(part)
        messages += len(part.order)
        snapshots += int(np.isin(part.columns.kind, (REPLACE, SPLICE)).sum())
        trades += len(part.trades.order)
        about = about or without_rows(part)
    assert about is not None
    assert mapped is not None
    refuse_future(about, mapped)
    refuse_overlap(about, spans)
    begin, until = extent.within(about, start, end)
    return Survey(
        market=about,
        clock=mapped,
        sessions=tuple(spans),
        begin=begin,
        until=until,
        validity=Validity.joined(validity),
        known=tuple(min(first[at + 1 :], default=NEVER) for at in range(len(first))),
        latencies=np.concatenate(
            [
                np.empty(0, np.int64),
                *(own[(acts >= begin) & (acts < until)] for acts, own in delays),
            ]
        ),
        begun=np.array([at for _, at in begun], np.int64),
        shifts=np.array([mapped.sessions[session].shift_ns for session, _ in begun], np.int64),
        messages=messages,
        snapshots=snapshots,
        traded=trades > 0,
    )


def refuse_overlaps(parts: Iterable[Market], start: int | None, end: int | None) -> None:
    """Raise UsageError when two sessions ran at the same time within ``[start, end)``, receive times, ns."""
    spans: list[Received] = []
    about: Market | None = None
    for part, clock in _clocked(parts, MAPPED, DEFAULT_BASE_LATENCY_NS):
        spans += received(part, clock, start, end, by_event=False)
        about = about or without_rows(part)
    assert about is not None
    refuse_overlap(about, spans)


def _clocked(parts: Iterable[Market], mode: str, base_latency_ns: int) -> Iterator[tuple[Market, Clock]]:
    """Yield each part with the clock of its sessions and of all before."""
    sessions: list[SessionClock] = []
    for part in parts:
        sessions += session_clocks(part, mode, base_latency_ns)
        yield part, Clock(mode, base_latency_ns, tuple(sessions))


def _first(times: Timeline) -> int:
    """Return when the first thing in a part happened."""
    return min(
        (int(own[0]) for own in (times.acts, times.trade_acts, times.quote_acts) if len(own)), default=NEVER
    )


def _begun(market: Market) -> list[tuple[int, int]]:
    """Return each session with a timed message, and when its first one came."""
    timed = market.ts_recv != NO_TIME
    session, first = np.unique(market.session_of(market.order[timed]), return_index=True)
    return [*zip(session.tolist(), market.ts_recv[timed][first].tolist(), strict=True)]
