"""The book over time: how long it is recorded and valid, where it is crossed, what waits in vain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import DIFF, GAP, GAP_OPEN, REPLACE, SESSION, SPLICE
from mmdata.datasets.times import iso
from mmdata.datasets.validation.arrivals import DAY_NS
from mmdata.datasets.validation.books import Walked
from mmdata.datasets.validation.findings import Teller
from mmdata.datasets.validation.rows import Units
from mmdata.datasets.validation.seen import Seen, SessionDay, Waiting

Ints = NDArray[np.int64]

_S = 1_000_000_000


@dataclass
class Episode:
    """Messages in a row after which the valid book is crossed, or locked."""

    check: str
    order: int
    ts_recv: int
    id: int
    bid: int
    ask: int
    count: int = 0
    last: int = 0


class BookTimes:
    """Follows the valid book from message to message."""

    def __init__(self, teller: Teller, seen: Seen, units: Units, bridge_s: float) -> None:
        self._teller = teller
        self._seen = seen
        self._units = units
        self._bridge_ns = bridge_s * _S
        self._valid = False
        self._last: tuple[int, int, bool] | None = None
        """Arrival, session and validity of the last message; None: there was none yet."""
        self._episode: Episode | None = None
        self._waiting: Waiting | None = None
        self._last_diff = 0

    def take(self, walked: Walked, ranks: Ints, *, is_tainted: bool) -> None:
        """Take messages and the book after each; ``ranks``: their session, -1 between two."""
        self._count_sessions(walked, ranks)
        self._follow_validity(walked)
        self._follow_episodes(walked, is_tainted=is_tainted)
        messages = walked.messages
        if len(messages.kind):
            self._valid = bool(walked.tops[-1, 0])
            self._last = int(messages.ts_recv[-1]), int(ranks[-1]), self._valid

    def end(self, *, is_tainted: bool) -> None:
        """Say that no message follows."""
        self._give_up()
        self._tell_episode(self._episode.last if self._episode is not None else 0, is_tainted=is_tainted)

    def _count_sessions(self, walked: Walked, ranks: Ints) -> None:
        """Add up messages and time, by session and day; between two sessions nothing is recorded."""
        messages = walked.messages
        times, valid = messages.ts_recv, walked.tops[:, 0] == 1
        if not len(times):
            return
        own = np.flatnonzero(messages.kind <= REPLACE)
        for (rank, day), rows in _stretches(ranks[own], times[own] // DAY_NS):
            first, last = int(own[rows.start]), int(own[rows.stop - 1])
            entry = self._seen.sessions.setdefault(
                (rank, day), SessionDay(int(times[first]), int(times[last]), 0, int(messages.first_id[first]))
            )
            entry.end = max(entry.end, int(times[last]))
            entry.messages += rows.stop - rows.start
            entry.last_id = int(messages.last_id[last])
        if self._last is not None:
            times = np.concatenate(([self._last[0]], times))
            ranks = np.concatenate(([self._last[1]], ranks))
            valid = np.concatenate(([self._last[2]], valid))
        spans = np.diff(times)
        spans[(ranks[1:] != ranks[:-1]) | (spans < 0)] = 0
        for (rank, day), rows in _stretches(ranks[:-1], times[:-1] // DAY_NS):
            entry_or_none = self._seen.sessions.get((rank, day))
            if entry_or_none is None:
                continue
            until = np.minimum(spans[rows], (day + 1) * DAY_NS - times[rows])
            entry_or_none.recorded_ns += int(until.sum())
            entry_or_none.valid_ns += int(until[valid[rows]].sum())

    def _follow_validity(self, walked: Walked) -> None:
        messages = walked.messages
        if not len(messages.kind):
            return
        valid = walked.tops[:, 0] == 1
        before = np.concatenate(([self._valid], valid[:-1]))
        rises = np.flatnonzero(valid & ~before)
        self._seen.rises += zip(messages.order[rises].tolist(), messages.ts_recv[rises].tolist(), strict=True)
        self._seen.was_valid = self._seen.was_valid or bool(valid.any())
        kind = messages.kind
        waits = (kind == SPLICE) & ~before
        notable = np.flatnonzero(
            waits | (kind == SESSION) | (kind == GAP_OPEN) | (kind == GAP) | (valid & ~before)
        )
        last_diff = np.maximum.accumulate(np.where(kind == DIFF, np.arange(len(kind)), -1))
        for at in notable.tolist():
            if last_diff[at] >= 0:
                self._last_diff = int(messages.ts_recv[last_diff[at]])
            if kind[at] == SESSION:
                self._give_up()
            elif waits[at]:
                place = (int(messages.order[at]), int(messages.ts_recv[at]), int(messages.last_id[at]))
                self._waiting = Waiting(*place)
            if valid[at] or kind[at] in (GAP, GAP_OPEN):
                self._waiting = None
        if last_diff[-1] >= 0:
            self._last_diff = int(messages.ts_recv[last_diff[-1]])

    def _give_up(self) -> None:
        """Say that a session is over: what waits for a diff waits in vain."""
        waited = self._waiting
        if waited is not None and self._last_diff - waited.ts_recv > self._bridge_ns:
            self._seen.unbridged.append(waited)
        self._waiting = None

    def _follow_episodes(self, walked: Walked, *, is_tainted: bool) -> None:
        tops, messages = walked.tops, walked.messages
        both = (tops[:, 0] == 1) & (tops[:, 2] > 0) & (tops[:, 4] > 0)
        state = np.where(
            both & (tops[:, 1] > tops[:, 3]), 2, np.where(both & (tops[:, 1] == tops[:, 3]), 1, 0)
        )
        if self._episode is None and not state.any():
            return
        edges = [0, *(np.flatnonzero(np.diff(state)) + 1).tolist(), len(state)] if len(state) else [0]
        for begin, end in pairwise(edges):
            check = ("", "locked", "crossed")[int(state[begin])]
            if self._episode is not None and self._episode.check != check:
                self._tell_episode(int(messages.ts_recv[begin]), is_tainted=is_tainted)
            if check and self._episode is None:
                self._episode = Episode(
                    check,
                    *(int(column[begin]) for column in (messages.order, messages.ts_recv, messages.last_id)),
                    *(int(tops[begin, at]) for at in (1, 3)),
                )
            if self._episode is not None:
                self._episode.count += int((messages.kind[begin:end] <= REPLACE).sum())
                self._episode.last = int(messages.ts_recv[end - 1])

    def _tell_episode(self, end: int, *, is_tainted: bool) -> None:
        own = self._episode
        self._episode = None
        if own is None or is_tainted:
            return
        bid, ask = (f"{price * self._units.price:f}" for price in (own.bid, own.ask))
        means = "levels are stale or missing" if own.check == "crossed" else "its spread is zero there"
        self._teller.tell(
            "error" if own.check == "crossed" else "warning",
            own.check,
            f"the rebuilt book is {own.check} after {own.count} messages, for "
            f"{max(0, end - own.ts_recv) / 1e9:.3f} s from {iso(own.ts_recv)} on (bid {bid}, ask {ask}): "
            f"{means}",
            own.order,
            id=own.id,
            ts_recv=own.ts_recv,
            count=own.count,
            table="depth",
        )


def _stretches(ranks: Ints, days: Ints) -> Iterator[tuple[tuple[int, int], slice]]:
    """Yield session and day of rows, for each stretch of rows that have both in common."""
    if not len(ranks):
        return
    edges = np.flatnonzero((np.diff(ranks) != 0) | (np.diff(days) != 0)) + 1
    for begin, end in pairwise([0, *edges.tolist(), len(ranks)]):
        yield (int(ranks[begin]), int(days[begin])), slice(begin, end)
