"""The proof figures of a day: chains, holes, latencies; streamed, pure, from the rows of that day alone.

A certificate must not change when an older day is removed, so nothing before the day is looked at: a session
that began on an earlier date is taken up where its first message is ("carried"), and whoever joins two days
compares the last id of one with the first `prev_id` of the other.

When a book is valid is told by ids alone, by the rules of `mmdata.datasets.chain`, as ``docs/schema.md`` says
and the book kernel does. Runs of messages that plainly continue one another are passed over as arrays; only
what is no such message is looked at by itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.chain import (
    BREAKS,
    CONTINUES,
    MOST_HOLES,
    NO_ID,
    RANGE,
    REPEAT,
    ChainRule,
    bridges,
    classify,
)
from mmdata.datasets.histogram import Histogram
from mmdata.datasets.times import NO_TIME

Ints = NDArray[np.int64]


class Messages(NamedTuple):
    """Book messages of one session in order; arrays of (n,), ids NO_ID where there is none."""

    frame: Ints
    ts_recv: Ints
    first_id: Ints
    last_id: Ints
    prev_id: Ints
    replaces: NDArray[np.bool_]
    """It is a whole book."""

    def cut(self, begin: int, end: int) -> Messages:
        """Return messages ``begin:end``."""
        cut = slice(begin, end)
        ids = self.first_id[cut], self.last_id[cut], self.prev_id[cut]
        return Messages(self.frame[cut], self.ts_recv[cut], *ids, self.replaces[cut])


class Mark(NamedTuple):
    """What stands between messages: a snapshot asked for (``cause`` None), or a recorded gap."""

    frame: int
    ts_recv: int
    last_id: int | None
    next_id: int | None
    cause: str | None


@dataclass
class Hole:
    """Time in which the book is not proven."""

    cause: str
    """Of the recorder's event; ``unrecorded``; ``start``: nothing was proven yet; ``session``: none ran."""
    session: str
    frame: int
    """Where it shows."""
    last_id: int | None
    next_id: int | None
    since: int
    """Ns since the epoch, receive time of the last message before it; of a start, of the first message."""
    until: int | None = None
    """Receive time at which the book is proven again; None: not on this day."""


@dataclass
class Chain:
    """The chain of one session's book messages."""

    session: str
    carried: bool
    """It began on an earlier date."""
    messages: int = 0
    prev_id: int | None = None
    """Of its first message: what the day before must end with where it is carried."""
    first_id: int | None = None
    last_id: int | None = None
    breaks: int = 0
    """Messages that do not continue the one before them."""
    unrecorded: int = 0


class ChainProof:
    """Walks the book messages of a symbol's day, session after session."""

    def __init__(self, rule: ChainRule) -> None:
        self._rule = rule
        self.chains: list[Chain] = []
        self.holes: list[Hole] = []
        self.spans: list[tuple[int, int]] = []
        """Receive times between which the book is proven."""
        self._valid = False
        self._suspended = False
        self._book_id = NO_ID
        self._runs: list[tuple[int, int, int]] = []
        """While a snapshot is waited for: (first_id, last_id, prev_id) of runs that hang together."""
        self._snapshot: int | None = None
        self._hole: Hole | None = None
        self._since = 0
        self._now = 0
        self._end: tuple[int, int] | None = None  # last id of the session's chain, and its time
        self._marks: list[Mark] = []
        self._known: dict[tuple[int | None, int | None], str] = {}

    def begin(self, session: str, marks: Iterable[Mark], *, carried: bool) -> None:
        """Begin the next session; ``marks`` are all that the day has of it, in order."""
        self._drain(None)
        self._marks = sorted(marks, key=lambda mark: mark.frame)  # stable
        gaps = [mark for mark in self._marks if mark.cause is not None]
        self._known = {(mark.last_id, mark.next_id): mark.cause or "" for mark in gaps}
        self.chains.append(Chain(session, carried))
        # Who asks for a snapshot no longer trusts the book before it.
        trusted = carried and not (self._marks and self._marks[0].cause is None)
        self._suspended = self._valid
        if self._valid:
            self._close()
        self._valid = False
        self._runs, self._snapshot = [], None
        self._carried = trusted and not self._suspended
        self._end = None
        self._fresh = True

    def take(self, messages: Messages) -> None:
        """Take the next messages of the session."""
        begin = 0
        while begin < len(messages.frame):
            end = len(messages.frame)
            if self._marks:
                # A snapshot comes in a frame of its own, a gap is noted after the message that showed it.
                end = int(np.searchsorted(messages.frame, self._marks[0].frame, side="right"))
            if end > begin:
                self._walk(messages.cut(begin, end))
                begin = end
            elif self._marks:
                self._mark(self._marks.pop(0))
        if len(messages.frame):
            self._drain(int(messages.frame[-1]))

    def finish(self) -> None:
        """End the day."""
        self._drain(None)
        if self._valid:
            self._close()
        self._valid = False

    def _drain(self, before: int | None) -> None:
        """Take the marks that stand before frame ``before``; None: all."""
        while self._marks and (before is None or self._marks[0].frame < before):
            self._mark(self._marks.pop(0))

    def _mark(self, mark: Mark) -> None:
        if mark.cause is None:
            if not self._valid and mark.last_id is not None:
                self._suspended = self._carried = False
                self._snapshot = mark.last_id
                self._splice(mark.ts_recv)
            return
        if mark.next_id is None:
            self._suspended = self._carried = False
            self._end = None
        elif not self._valid:
            return
        if self._valid:
            self._lose(mark.cause, mark.frame, mark.last_id, mark.next_id)
        self._runs, self._snapshot = [], None

    def _walk(self, messages: Messages) -> None:
        """Take messages with no mark between them."""
        chain = self.chains[-1]
        if self._fresh:
            self._fresh = False
            chain.first_id, chain.prev_id = _told(messages.first_id[0]), _told(messages.prev_id[0])
            if self._hole is None and not self._carried:
                since, cause = (self._now, "session") if self.spans else (int(messages.ts_recv[0]), "start")
                self._hole = Hole(cause, chain.session, int(messages.frame[0]), None, None, since)
        odd = np.flatnonzero(~self._plain(messages))
        n = len(messages.frame)
        at = 0
        while at < n:
            moved = self._step(messages, at)
            at += 1
            if not moved:
                continue
            next_odd = int(np.searchsorted(odd, at))
            end = int(odd[next_odd]) if next_odd < len(odd) else n
            if self._snapshot is not None and not self._valid:
                beyond = np.flatnonzero(messages.last_id[at:end] > self._snapshot)
                end = at + int(beyond[0]) if beyond.size else end
            if end > at:
                self._pass(messages, end)
                at = end
        chain.messages += n
        chain.last_id = _told(messages.last_id[n - 1])

    def _plain(self, messages: Messages) -> NDArray[np.bool_]:
        """Tell of each message whether it continues the one before it, whatever else the book's state is."""
        plain = np.zeros(len(messages.frame), np.bool_)
        before, prev_id, last_id = messages.last_id[:-1], messages.prev_id[1:], messages.last_id[1:]
        if self._rule.rule == RANGE:
            plain[1:] = (prev_id <= before) & (last_id > before)
        else:
            plain[1:] = prev_id == before
        plain[1:] |= last_id == NO_ID
        plain &= ~messages.replaces
        return plain

    def _pass(self, messages: Messages, end: int) -> None:
        """Take messages up to ``end`` that plainly continue the one taken last."""
        last_id, self._now = int(messages.last_id[end - 1]), int(messages.ts_recv[end - 1])
        self._end = (last_id, self._now)
        if self._valid:
            self._book_id = last_id
        elif self._snapshot is None and self._runs:
            first_id, _, prev_id = self._runs[-1]
            self._runs[-1] = (first_id, last_id, prev_id)

    def _step(self, messages: Messages, at: int) -> bool:
        """Take one message; tell whether the chain stands at it now."""
        first_id, last_id, prev_id = (int(ids[at]) for ids in messages[2:5])
        before, now = self._now, int(messages.ts_recv[at])
        frame, rule = int(messages.frame[at]), self._rule.rule
        broke = self._judge_chain(messages, at)
        self._now = now
        if messages.replaces[at]:
            self._book_id = last_id
            self._runs, self._snapshot, self._suspended, self._carried = [], None, False, False
            self._gain(now)
            return True
        if self._carried:
            self._carried = False
            self._book_id = last_id
            self._gain(now)
            return True
        if self._suspended and NO_ID in (self._book_id, last_id):
            self._suspended = False
        if self._valid or self._suspended:
            verdict = classify(rule, self._book_id, first_id, last_id, prev_id)
            if verdict == CONTINUES:
                self._book_id, self._suspended = last_id, False
                self._gain(now)
            elif verdict == BREAKS:
                if self._valid:
                    next_id = first_id if self._rule.spliced else prev_id
                    cause = self._known.get((_told(self._book_id), _told(next_id)), "unrecorded")
                    self._now = before
                    self._lose(cause, frame, _told(self._book_id), _told(next_id))
                    self._now = now
                self._suspended, self._snapshot = False, None
                self._runs = [(first_id, last_id, prev_id)]
            return verdict != REPEAT
        if self._runs and not broke:
            old_first, old_last, old_prev = self._runs[-1]
            if classify(rule, old_last, first_id, last_id, prev_id) == REPEAT:
                return False
            self._runs[-1] = (old_first, last_id, old_prev)
        else:
            self._runs.append((first_id, last_id, prev_id))
        if self._snapshot is not None:
            self._splice(now)
        return True

    def _judge_chain(self, messages: Messages, at: int) -> bool:
        """Compare a message with the one before it, whatever is known of the book; tell whether it breaks."""
        chain = self.chains[-1]
        first_id, last_id, prev_id = (int(ids[at]) for ids in messages[2:5])
        end, now = self._end, int(messages.ts_recv[at])
        if messages.replaces[at] or end is None:
            self._end = (last_id, now)
            return end is None
        verdict = classify(self._rule.rule, end[0], first_id, last_id, prev_id)
        if verdict != REPEAT:
            self._end = (last_id, now)
        if verdict == BREAKS:
            chain.breaks += 1
            next_id = first_id if self._rule.spliced else prev_id
            chain.unrecorded += (_told(end[0]), _told(next_id)) not in self._known
            if not self._rule.spliced:
                self._end = None  # nothing is built on it before the next snapshot
        return verdict == BREAKS

    def _splice(self, now: int) -> None:
        """Start the book from the snapshot that waits, if what was received bridges it."""
        assert self._snapshot is not None
        book_id, started = self._snapshot, False
        while self._runs:
            first_id, last_id, prev_id = self._runs[0]
            judge = classify if started else bridges
            verdict = judge(self._rule.rule, book_id, first_id, last_id, prev_id)
            if verdict == BREAKS:
                self._snapshot = None
                return
            self._runs.pop(0)
            if verdict == CONTINUES:
                book_id, started = last_id, True
        if started:
            self._book_id, self._snapshot = book_id, None
            self._gain(now)

    def _gain(self, now: int) -> None:
        if self._valid:
            return
        self._valid = True
        self._since = self._now = now
        self._runs, self._snapshot = [], None
        if self._hole is not None:
            self._hole.until = now
            self.holes.append(self._hole)
            self._hole = None

    def _lose(self, cause: str, frame: int, last_id: int | None, next_id: int | None) -> None:
        self._close()
        self._valid = False
        self._hole = Hole(cause, self.chains[-1].session, frame, last_id, next_id, self._now)

    def _close(self) -> None:
        self.spans.append((self._since, self._now))

    def open_holes(self) -> list[Hole]:
        """Return all holes of the day, one that nothing ended too."""
        return [*self.holes, *([] if self._hole is None else [self._hole])]


def _told(one: int | np.int64) -> int | None:
    return None if one == NO_ID else int(one)


def covered(spans: Iterable[tuple[int, int]], windows: Iterable[tuple[int, int]]) -> int:
    """Return for how many ns of ``windows`` (that do not overlap) the book is proven."""
    return sum(
        max(0, min(end, stop) - max(begin, start)) for start, stop in windows for begin, end in merged(spans)
    )


def merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order, those that touch joined; one that a clock turned round is empty."""
    joined: list[tuple[int, int]] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        elif end >= begin:
            joined.append((begin, end))
    return joined


@dataclass
class TradeChain:
    """The chain of one session's trade ids of one kind, over stream and backfill told apart by the caller."""

    session: str
    kind: str
    trades: int = 0
    first_id: int | None = None
    last_id: int | None = None
    """The last in order of arrival."""
    missing: int = 0
    """Ids that were passed over."""
    holes: list[tuple[int, int, str]] = field(default_factory=list)
    """(last id before, first after, cause)."""
    late: int = 0
    """Trades at or below ids that were there: late, again, or counted anew."""
    _top: int | None = None
    _low: tuple[int, int] | None = None
    _open: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=MOST_HOLES))
    """Holes that a trade may still come into: the last id before, the first after."""

    def take(self, first: Ints, last: Ints, known: Mapping[tuple[int | None, int | None], str]) -> None:
        """Take the next trades' ids, NO_ID where there is none; ``known`` are causes of recorded gaps."""
        self.trades += len(first)
        told = (first != NO_ID) & (last != NO_ID)
        first, last = first[told], last[told]
        if not len(first):
            return
        self.first_id = int(first[0]) if self.first_id is None else self.first_id
        self.last_id = int(last[-1])
        odd = np.flatnonzero(np.concatenate(([True], first[1:] != last[:-1] + 1)))
        for begin, end in zip(odd.tolist(), [*odd[1:].tolist(), len(first)], strict=True):
            self._take_run(first[begin:end], last[begin:end], known)

    def _take_run(self, first: Ints, last: Ints, known: Mapping[tuple[int | None, int | None], str]) -> None:
        """Take trades that follow one another."""
        at = 0
        while at < len(last) and self._top is not None and last[at] <= self._top:
            self._take_low(self._top, int(first[at]), int(last[at]), known)
            at += 1
        if at == len(last):
            return
        top, begin = self._top, int(first[at])
        if top is not None and begin > top + 1:
            self.missing += begin - top - 1
            self.holes.append((top, begin, known.get((top, begin), "unrecorded")))
            self._open.append((top, begin))
        self._top, self._low = int(last[-1]), None

    def _take_low(
        self, top: int, first: int, last: int, known: Mapping[tuple[int | None, int | None], str]
    ) -> None:
        """Take a trade at or below ids that were there, as the recorder does (`booksync.TradeChain`)."""
        late = any(after < first and last < until for after, until in self._open)
        if not late and self._low is not None and first == self._low[1] + 1:
            begun = self._low[0]
            self.holes.append((top, begun, known.get((top, begun), "reset")))
            self._top, self._low = last, None
            self._open.clear()
            return
        self.late += 1
        if not late:
            self._low = (first, last)


@dataclass
class Latency:
    """``ts_recv - ts_event`` of a channel in ns."""

    channel: str
    counted: Histogram = field(default_factory=Histogram)
    steps_back: int = 0
    """Rows or messages with a `ts_recv` before the one above them, in one session."""
    _last: int | None = None

    def begin(self) -> None:
        """Begin another session: its clock is compared with no other's."""
        self._last = None

    def take(self, ts_recv: Ints, ts_event: Ints) -> None:
        """Take times of the next messages; NO_TIME where the venue told none."""
        if not len(ts_recv):
            return
        first = 0 if self._last is None else int(ts_recv[0] < self._last)
        self.steps_back += first + int((ts_recv[1:] < ts_recv[:-1]).sum())
        self._last = int(ts_recv[-1])
        timed = ts_event != NO_TIME
        self.counted.add(ts_recv[timed] - ts_event[timed])
