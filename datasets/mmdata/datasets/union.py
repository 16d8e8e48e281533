"""Which messages of two recordings of one stream make a chain: the earliest that advances it, each once.

Pure: ids in, the order of what enters out. The rule is the recorder's over two connections
(`mmdata.recorder.merge`): the first message to arrive that goes on with the chain enters, one that is ahead
of it waits for what is missing. But here both recordings are known to their ends. So what waits is never
lost, whatever the two clocks say, and waits only as long as the other recording really brings what is
missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.chain import CONTINUES, LINKED, NO_ID, classify

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Message(NamedTuple):
    """What counts of a message."""

    first_id: int
    last_id: int
    prev_id: int
    is_snapshot: bool
    epoch: int
    """How often its recording's count began anew before it."""


class Entry(NamedTuple):
    """A message that enters."""

    recording: int
    message: int
    """Which one of its recording."""
    moment: int
    """Which arrival let it enter: its own, or the one that it waited for."""


def messages_of(rule: int, first_id: Ints, last_id: Ints, prev_id: Ints, is_snapshot: Flags) -> list[Message]:
    """Return one recording's messages of one chain, in their order; arrays of shape (n,)."""
    epoch = np.zeros(len(last_id), np.int64)
    if rule != LINKED and len(last_id) > 2:
        # An id below the one before it is a repeat, unless the next follows it: then the count began anew.
        fell = last_id[1:-1] <= last_id[:-2]
        follows = (prev_id[2:] == last_id[1:-1]) & (last_id[2:] > last_id[1:-1])
        epoch[1:-1] = np.cumsum(fell & follows)
        epoch[-1] = epoch[-2]
    columns = (first_id, last_id, prev_id, is_snapshot, epoch)
    return list(map(Message._make, zip(*(column.tolist() for column in columns), strict=True)))


class Union:
    """The chain of two recordings. ``rule`` is one of `mmdata.datasets.chain`."""

    def __init__(self, rule: int, recordings: Sequence[Sequence[Message]]) -> None:
        self._rule = rule
        self._recordings = recordings
        self._head = NO_ID
        self._leader = -1
        self._epoch = 0
        self._begun = [0] * len(recordings)
        """By recording: the chain's epoch when its first message arrived."""
        self._whole = True
        """False after a hole in a chain that only a snapshot in the stream heals."""
        self._waiting: list[deque[tuple[int, int]]] = [deque() for _ in recordings]
        """By recording: messages that have not entered, and when they arrived."""
        self._arrived = [0] * len(recordings)
        self._passed: set[_Link] = set()
        """Of a linked chain, whose ids have no order: what has entered."""
        self._places = [
            {_link(message): at for at, message in enumerate(own)} if rule == LINKED else {}
            for own in recordings
        ]

    def entries(self, arrivals: Ints) -> Iterator[Entry]:
        """Yield what enters, in order; ``arrivals`` says which recording each message comes from, in time."""
        moment = 0
        for moment, recording in enumerate(arrivals.tolist()):
            at = self._arrived[recording]
            if at == 0:
                self._begun[recording] = self._epoch
            self._arrived[recording] += 1
            waiting = self._waiting[recording]
            if self._rule == LINKED and _link(self._recordings[recording][at]) in self._passed:
                waiting.clear()  # what its recording had before it is older still
            waiting.append((at, moment))
            yield from self._drain(moment)
        yield from self._drain(moment)

    def _drain(self, moment: int) -> Iterator[Entry]:
        """Let in what goes on with the chain; and what does not, once nobody brings anything before it."""
        while True:
            fronts = self._fronts()
            if not fronts:
                return
            able = [own for own in fronts if self._goes_on(own, self._front(own))]
            if able:
                chosen = min(able, key=lambda own: self._waiting[own][0][1])
            else:
                chosen = self._earliest(fronts)
                if self._is_owed(chosen):
                    return
            at, _ = self._waiting[chosen].popleft()
            self._enter(chosen, self._recordings[chosen][at])
            yield Entry(chosen, at, moment)

    def _front(self, recording: int) -> Message:
        return self._recordings[recording][self._waiting[recording][0][0]]

    def _fronts(self) -> list[int]:
        """Return the recordings of which a message waits, without what the chain has passed."""
        found = []
        for recording, waiting in enumerate(self._waiting):
            while waiting and self._is_passed(recording, self._front(recording)):
                waiting.popleft()
            if waiting:
                found.append(recording)
        return found

    def _is_passed(self, recording: int, message: Message) -> bool:
        if self._head == NO_ID:
            return False
        if message.is_snapshot:
            # The start of one more connection: a book that goes on without it does.
            return self._whole and self._can_follow(1 - recording)
        if self._rule == LINKED:
            if message.last_id == message.prev_id == self._head:  # a heartbeat
                return recording != self._leader and self._is_live(self._leader)
            return _link(message) in self._passed
        epoch = self._epoch_of(recording, message)
        return message.last_id <= self._head if epoch == self._epoch else epoch < self._epoch

    def _goes_on(self, recording: int, message: Message) -> bool:
        if message.is_snapshot or message.prev_id == NO_ID:
            return True  # it brings the whole truth
        if self._head == NO_ID or self._epoch_of(recording, message) != self._epoch:
            return False
        ids = (message.first_id, message.last_id, message.prev_id)
        return classify(self._rule, self._head, *ids) == CONTINUES

    def _earliest(self, fronts: Sequence[int]) -> int:
        """Return whose front comes first in the chain, of fronts of which none goes on with it."""
        if len(fronts) == 1:
            return fronts[0]
        one, other = fronts
        return other if self._comes_before(other, self._waiting[other][0][0], one) else one

    def _is_owed(self, recording: int) -> bool:
        """Tell whether the other recording will bring something that comes before this one's front."""
        other = 1 - recording
        at = self._next(other)
        if self._waiting[other] or at is None:
            return False
        message = self._recordings[other][at]
        if message.is_snapshot:
            return False
        return self._goes_on(other, message) or self._comes_before(other, at, recording)

    def _comes_before(self, recording: int, at: int, other: int) -> bool:
        """Tell whether a recording's message is before the other's front in the chain."""
        message, front = self._recordings[recording][at], self._front(other)
        if self._rule == LINKED:  # the same message further on in the other recording tells
            if _link(front) in self._places[recording]:
                return self._places[recording][_link(front)] > at
            if self._places[other].get(_link(message), -1) > self._waiting[other][0][0]:
                return False
            return message.last_id < front.last_id  # nothing does: ids rise, but for a maintenance
        own = (self._epoch_of(recording, message), message.first_id)
        return own < (self._epoch_of(other, front), front.first_id)

    def _next(self, recording: int) -> int | None:
        """Return a recording's next message beyond the chain, arrived or not."""
        own, waiting = self._recordings[recording], self._waiting[recording]
        begin = waiting[0][0] if waiting else self._arrived[recording]
        for at in range(begin, len(own)):
            if own[at].is_snapshot or not self._is_passed(recording, own[at]):
                return at
        return None

    def _can_follow(self, recording: int) -> bool:
        at = self._next(recording)
        if at is None or self._recordings[recording][at].is_snapshot:
            return False
        return self._goes_on(recording, self._recordings[recording][at])

    def _is_live(self, recording: int) -> bool:
        """Tell whether more of a recording will come before it begins anew."""
        own, at = self._recordings[recording], self._arrived[recording]
        return bool(self._waiting[recording]) or (at < len(own) and not own[at].is_snapshot)

    def _epoch_of(self, recording: int, message: Message) -> int:
        return self._begun[recording] + message.epoch

    def _enter(self, recording: int, message: Message) -> None:
        if message.is_snapshot:
            self._whole = True
        elif self._rule == LINKED and not self._goes_on(recording, message):
            self._whole = False
        self._epoch = self._epoch_of(recording, message)
        self._head, self._leader = message.last_id, recording
        if self._rule != LINKED or message.last_id == message.prev_id:
            return
        self._passed.add(_link(message))
        other = 1 - recording
        at = self._places[other].get(_link(message), -1)
        while self._waiting[other] and self._waiting[other][0][0] <= at:
            self._waiting[other].popleft()


_Link = tuple[int, int]


def _link(message: Message) -> _Link:
    return message.last_id, message.prev_id
