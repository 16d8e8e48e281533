"""Is the book still the exchange's? One machine a symbol: ids in, notes and requests out.

No clock, no socket, no logger: the recorder carries out what the machine says, the importers write down
what it notes, tests drive it by hand. The levels are not its business.

Binance (spliced): buffer diffs, ask for a REST snapshot, start at the first diff that bridges it, then
demand an unbroken chain. OKX: the stream's own snapshot starts the book; after a break subscribe again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from mmdata.datasets.chain import BREAKS, CONTINUES, MOST_HOLES, NO_ID, REPEAT, ChainRule, bridges, classify


class Ask(NamedTuple):
    """Get a fresh book: over REST where books are spliced, by a new subscription elsewhere."""

    reason: str
    """``start`` or ``gap``: kept with the snapshot that answers."""


class Note(NamedTuple):
    """Something to be written down as a row of the table `events`."""

    kind: str
    last_id: int | None
    next_id: int | None
    detail: dict[str, str]


Action = Ask | Note
_NOTHING: tuple[Note, ...] = ()
_PATIENCE = 300
"""Messages below a snapshot after which another is asked for. One that is ahead of its stream is reached much
sooner; one of the ids that were counted before they began anew (an old answer) never is."""
COVERED = {"book": "covered"}
"""In the detail of a gap: the snapshot that the book began with holds what is missing."""


class BookSync:
    """The chain of one symbol's book messages.

    ``synced`` is true while the book that these messages build is proven. Every hole is noted once, those too
    that come while the book waits for a fresh snapshot: what is buffered hangs together.
    """

    def __init__(self, chain: ChainRule) -> None:
        self._chain = chain
        self.synced = False
        self.book_id = NO_ID
        self._reason = "start"
        self._buffer: list[tuple[int, int, int]] = []
        self._snapshot: int | None = None
        self._below = 0
        """Messages that came since the snapshot, and that it holds."""
        self._tail = NO_ID
        """Last id of the stream's newest message, in the book or not."""
        self._low = NO_ID

    @property
    def reason(self) -> str:
        """Why a snapshot that came now was asked for: ``start``, ``gap``, or ``audit`` when synced."""
        return "audit" if self.synced or not self._chain.spliced else self._reason

    def connected(self) -> Sequence[Action]:
        """Say that the stream is live: a spliced book needs a snapshot."""
        return (Ask(self._reason),) if self._chain.spliced else _NOTHING

    def receive(
        self, first_id: int, last_id: int, prev_id: int, *, is_snapshot: bool = False
    ) -> Sequence[Action]:
        """Take the ids of the next book message (NO_ID where the venue sends none)."""
        if is_snapshot:
            return self._replaced(last_id)
        message = (first_id, last_id, prev_id)
        verdict = CONTINUES if self._tail == NO_ID else classify(self._chain.rule, self._tail, *message)
        if verdict == BREAKS:
            return self._broken(message, "missing")
        if verdict == REPEAT:
            if prev_id == self._low:  # two below the last that follow each other: the count began anew
                return self._broken(message, "reset")
            self._low = last_id
            return _NOTHING
        self._tail, self._low = last_id, NO_ID
        if self.synced:
            self.book_id = last_id
            return _NOTHING
        if not self._chain.spliced:
            return _NOTHING  # nothing can be built before the stream's snapshot
        self._buffer.append(message)
        return _NOTHING if self._snapshot is None else self._splice()

    def went_on(self, last_id: int) -> None:
        """Say that messages up to ``last_id`` continued a book that is `synced`, as `receive` would find."""
        self.book_id = self._tail = last_id
        self._low = NO_ID

    def receive_snapshot(self, last_id: int) -> Sequence[Action]:
        """Take the id of a REST snapshot that was asked for."""
        if self.synced or not self._chain.spliced:
            return _NOTHING
        self._snapshot, self._below = last_id, 0
        return self._splice()

    def disconnected(self) -> Sequence[Action]:
        """Say that the stream ended: what comes next cannot continue the book, nor what is buffered."""
        begun = self._tail != NO_ID or self._snapshot is not None
        noted = self._gap(None, "disconnect") if begun else _NOTHING
        self.synced = False
        self._buffer.clear()
        self._snapshot = None
        self._tail = self._low = NO_ID
        return noted

    def _replaced(self, last_id: int) -> Sequence[Action]:
        self.book_id = self._tail = last_id
        self.synced = True
        self._low = NO_ID
        self._reason = "gap"
        return (self._sync_note(),)

    def _broken(self, message: tuple[int, int, int], cause: str) -> Sequence[Action]:
        """Note a hole before a message, and go on from there."""
        first_id, last_id, prev_id = message
        # On a linked chain the message names what came before it; that is what was missed.
        noted = self._gap(first_id if self._chain.spliced else prev_id, cause)
        was_whole, self.synced = self.synced, False
        self._tail, self._low = last_id, NO_ID
        self._buffer = [message] if self._chain.spliced else []
        if was_whole or cause == "reset":  # a snapshot of the old count fits nothing
            self._snapshot = None
            return (*noted, Ask("gap"))
        if self._snapshot is None:
            return noted
        spliced = self._splice()
        if self.synced:  # its messages are missing in the table, and nobody who rebuilds the book misses them
            noted = [note._replace(detail={**note.detail, **COVERED}) for note in noted]
        return (*noted, *spliced)

    def _gap(self, next_id: int | None, cause: str) -> Sequence[Note]:
        self._reason = "gap"
        return (Note("gap", _or_none(self._tail), next_id, {"cause": cause}),)

    def _splice(self) -> Sequence[Action]:
        """Start at the first buffered message beyond the snapshot, if it bridges it."""
        assert self._snapshot is not None
        self._drop_covered()
        if not self._buffer:
            self._below += 1
            return _NOTHING if self._below % _PATIENCE else (Ask(self._reason),)
        if bridges(self._chain.rule, self._snapshot, *self._buffer[0]) == BREAKS:
            self._snapshot = None
            return (Ask(self._reason),)  # it is too old; the buffer stays
        self.book_id = self._tail
        self.synced = True
        self._buffer.clear()
        self._snapshot = None
        self._reason = "gap"
        return (self._sync_note(),)

    def _drop_covered(self) -> None:
        """Forget what the snapshot holds already, which may be thousands of messages ahead of the stream."""
        assert self._snapshot is not None
        covered = 0
        for message in self._buffer:
            if bridges(self._chain.rule, self._snapshot, *message) != REPEAT:
                break
            covered += 1
        del self._buffer[:covered]

    def _sync_note(self) -> Note:
        return Note("synced", _or_none(self.book_id), None, {})


class TradeChain:
    """The chain of one symbol's trade ids: notes the trades that are missing.

    The rule, which whoever derives holes from a dataset keeps, too: a trade beyond the one expected next
    leaves a hole. One that comes late, into one of the newest `MOST_HOLES` holes of this count of ids,
    changes nothing: its hole is on record already. Any other at or below the highest id comes again, and
    changes nothing either; but two of those that follow each other tell that the venue counts anew, and
    nobody knows what was traded in between.
    """

    def __init__(self) -> None:
        self._holes: deque[tuple[int, int]] = deque(maxlen=MOST_HOLES)
        """The last id before each, and the first after."""
        self._last: int | None = None
        self._low: tuple[int, int] | None = None
        self._cause = "missing"

    @property
    def last_id(self) -> int:
        """Id of the newest trade of the chain; NO_ID: there was none yet."""
        return NO_ID if self._last is None else self._last

    def receive(self, first_id: int, last_id: int) -> Sequence[Action]:
        """Take the ids of the next trade or aggregate."""
        before, low = self._last, self._low
        if before is not None and last_id <= before:
            if any(after < first_id and last_id < until for after, until in self._holes):
                return _NOTHING
            if low is None or first_id != low[1] + 1:
                self._low = (first_id, last_id)
                return _NOTHING
            self.went_on(last_id)
            self._holes.clear()
            return (Note("gap", before, low[0], {"cause": "reset"}),)
        cause = self._cause
        self.went_on(last_id)
        if before is None or first_id <= before + 1:
            return _NOTHING
        self._holes.append((before, first_id))
        return (Note("gap", before, first_id, {"cause": cause}),)

    def disconnected(self) -> None:
        """Say that the stream ended: the next hole is its doing."""
        self._cause = "disconnect"

    def went_on(self, last_id: int) -> None:
        """Say that trades up to ``last_id`` continued the chain, as `receive` would find."""
        self._last, self._low, self._cause = last_id, None, "missing"


def _or_none(book_id: int) -> int | None:
    return None if book_id == NO_ID else book_id
