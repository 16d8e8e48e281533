"""What the stream of one symbol showed; `conclude` makes findings and figures of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.chain import NO_ID
from mmdata.datasets.market import NO_TIME
from mmdata.datasets.validation.arrivals import by_day
from mmdata.datasets.validation.chains import Break, Step
from mmdata.datasets.validation.report import Audit

Ints = NDArray[np.int64]


@dataclass
class SessionDay:
    """The chain of one session on one day, as it is counted."""

    begin: int
    end: int
    messages: int = 0
    first_id: int = NO_ID
    last_id: int = NO_ID
    recorded_ns: int = 0
    valid_ns: int = 0


@dataclass
class Waiting:
    """A snapshot that a book is to start from, and that no diff has bridged yet."""

    order: int
    ts_recv: int
    id: int


@dataclass
class Seen:
    """Everything that needs more knowledge than one step of the stream has."""

    breaks: list[Break] = field(default_factory=list)
    trade_steps: list[Step] = field(default_factory=list)
    rises: list[tuple[int, int]] = field(default_factory=list)
    """Where the book became valid: place and arrival."""
    was_valid: bool = False
    unbridged: list[Waiting] = field(default_factory=list)
    sessions: dict[tuple[int, int], SessionDay] = field(default_factory=dict)
    """By rank of the session, and day."""
    audits: dict[int, list[Audit]] = field(default_factory=dict)
    """These and the counts below by day since the epoch."""
    trades: dict[int, int] = field(default_factory=dict)
    quotes: dict[int, int] = field(default_factory=dict)
    bbo_compared: dict[int, int] = field(default_factory=dict)
    bbo_unequal: dict[int, int] = field(default_factory=dict)
    checksums: dict[int, int] = field(default_factory=dict)
    checksums_wrong: dict[int, int] = field(default_factory=dict)


def count_days(counts: dict[int, int], times: Ints) -> None:
    """Add times to counts by day since the epoch; NO_TIME is passed over."""
    if len(times) and times.min() == NO_TIME:
        times = times[times != NO_TIME]
    for day, own in by_day(times):
        counts[day] = counts.get(day, 0) + len(times[own])
