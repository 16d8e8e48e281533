"""What the chains of ids say, beside what is on record: breaks, gap events, holes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.chain import NO_ID, ChainRule
from mmdata.datasets.market import FRAME_BITS
from mmdata.datasets.validation._kernels import (
    AGAIN,
    BACK,
    BREAK_WIDTH,
    HOLE,
    LATE,
    STEP_WIDTH,
    TWICE,
    end_trades,
    new_chain,
    new_trades,
    walk_chain,
    walk_trades,
)
from mmdata.datasets.validation.events import Event
from mmdata.datasets.validation.messages import Messages

Ints = NDArray[np.int64]

__all__ = ["AGAIN", "BACK", "HOLE", "LATE", "TWICE", "BookChain", "Break", "Matched", "Step", "TradeChains"]

_NEAR = 1000
"""Frames after a break within which its gap event was written; those of one read are written first."""


class Break(NamedTuple):
    """A message that does not continue the chain before it."""

    order: int
    ts_recv: int
    at: int
    """Id of the chain before it."""
    builds_on: int
    """What it says comes before it, as a gap event's ``next_id``."""
    or_on: int
    """The same of the message after it, where it took two to tell."""
    id: int
    since: int
    """Arrival of the message before it."""


class Step(NamedTuple):
    """Where a chain of trades is not +1."""

    what: int
    """HOLE, AGAIN, LATE, BACK or TWICE."""
    order: int
    ts_recv: int
    first: int
    last: int
    top: int
    """Highest id before it."""
    since: int


class BookChain:
    """The chain of one symbol's book messages, chunk by chunk."""

    def __init__(self, chain: ChainRule) -> None:
        self._chain = chain
        self._state = new_chain()
        self._since = 0

    def take(self, messages: Messages) -> list[Break]:
        """Follow messages, marks among them; return what does not continue."""
        n = len(messages.kind)
        found = np.empty((n, BREAK_WIDTH), np.int64)
        count = walk_chain(
            self._chain.rule,
            self._chain.spliced,
            *(messages.kind, messages.first_id, messages.last_id, messages.prev_id),
            *(messages.order, messages.ts_recv),
            self._since,
            self._state,
            found,
        )
        if n:
            self._since = int(messages.ts_recv[-1])
        return [Break(*row) for row in found[:count].tolist()]


class TradeChains:
    """The chains of one symbol's trade ids, one a kind and session, chunk by chunk."""

    def __init__(self) -> None:
        self._states: dict[int, Ints] = {}
        self._session = -1

    def take(self, kinds: NDArray[np.int8], first: Ints, last: Ints, order: Ints, times: Ints) -> list[Step]:
        """Follow trades, of whole frames and in order."""
        steps: list[Step] = []
        ranks = order >> FRAME_BITS
        for begin, end in _runs(ranks):
            if int(ranks[begin]) != self._session:
                steps += self.end()
                self._session = int(ranks[begin])
            here = kinds[begin:end]
            for kind in (np.flatnonzero(np.bincount(here.astype(np.int64) + 1)) - 1).tolist():
                own = begin + np.flatnonzero(here == kind)
                state = self._states.setdefault(kind, new_trades())
                found = np.empty((2 * len(own) + 1, STEP_WIDTH), np.int64)
                count = walk_trades(first[own], last[own], order[own], times[own], state, found)
                steps += [Step(*row) for row in found[:count].tolist()]
        return steps

    def restart(self) -> None:
        """Say that rows were lost with a damaged file: nothing continues over that."""
        self._states.clear()

    def end(self) -> list[Step]:
        """Say that the session is over; return what could still have been a new count."""
        found = np.empty((1, STEP_WIDTH), np.int64)
        steps = [
            Step(*row)
            for state in self._states.values()
            for row in found[: end_trades(state, found)].tolist()
        ]
        self._states.clear()
        return steps


def _runs(values: Ints) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(values[1:] != values[:-1]) + 1
    bounds = [0, *edges.tolist(), len(values)] if len(values) else [0]
    yield from pairwise(bounds)


@dataclass
class Matched:
    """Breaks beside the gap events that record them."""

    recorded: list[tuple[Break | Step, Event]]
    misquoted: list[tuple[Break | Step, Event]]
    """The event stands where the break is, with other ids."""
    unrecorded: list[Break | Step]
    invented: list[Event]
    """No break bears them out."""


def match(breaks: Sequence[Break | Step], gaps: Iterable[Event], ranks: dict[str, int]) -> Matched:
    """Find the gap event of each break: by its ids, else by its place; only events with a ``next_id``."""
    by_ids: dict[tuple[int, int, int], list[Event]] = {}
    told = [gap for gap in gaps if gap.next_id is not None]
    for gap in told:
        key = (ranks[gap.session], NO_ID if gap.last_id is None else gap.last_id, gap.next_id or 0)
        by_ids.setdefault(key, []).append(gap)
    result = Matched([], [], [], [])
    left: list[Break | Step] = []
    used: set[int] = set()
    for found in breaks:
        rank = found.order >> FRAME_BITS
        for next_id in _next_ids(found):
            candidates = [
                gap for gap in by_ids.get((rank, _before(found), next_id), ()) if id(gap) not in used
            ]
            if candidates:
                gap = min(candidates, key=lambda gap: abs(gap.order(ranks) - found.order))
                used.add(id(gap))
                result.recorded.append((found, gap))
                break
        else:
            left.append(found)
    spare = [gap for gap in told if id(gap) not in used]
    for found in left:
        near = [gap for gap in spare if 0 <= gap.order(ranks) - found.order <= _NEAR]
        if near:
            spare.remove(near[0])
            result.misquoted.append((found, near[0]))
        else:
            result.unrecorded.append(found)
    result.invented = [gap for gap in spare if not gap.is_covered]
    return result


def _before(found: Break | Step) -> int:
    return found.at if isinstance(found, Break) else found.top


def _next_ids(found: Break | Step) -> tuple[int, ...]:
    return (found.builds_on, found.or_on) if isinstance(found, Break) else (found.first,)
