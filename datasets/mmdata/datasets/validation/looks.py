"""Looks at the rebuilt book as it is streamed: audits beside it, and the venue's checksums."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.book import Book
from mmdata.datasets.chain import NO_ID, ChainRule
from mmdata.datasets.validation import audits
from mmdata.datasets.validation.arrivals import DAY_NS
from mmdata.datasets.validation.books import bounds
from mmdata.datasets.validation.checksum import okx_checksum
from mmdata.datasets.validation.findings import Teller
from mmdata.datasets.validation.messages import Messages, Snapshots
from mmdata.datasets.validation.report import Audit
from mmdata.datasets.validation.rows import Units
from mmdata.datasets.validation.seen import Seen
from mmdata.datasets.validation.thresholds import Thresholds

Ints = NDArray[np.int64]


class BookLooks:
    """Compares the rebuilt book with what the venue says of it, each at its message."""

    def __init__(
        self, teller: Teller, seen: Seen, chain: ChainRule, units: Units, thresholds: Thresholds
    ) -> None:
        self._teller = teller
        self._seen = seen
        self._chain = chain
        self._units = units
        self._thresholds = thresholds
        self._audits: dict[int, audits.Shown] = {}
        self._audited = -1
        self._told_levels: set[tuple[int, int]] = set()
        self.is_tainted = False
        """The book began with a snapshot that is not to be trusted."""
        self._reach: tuple[int, int] | None = None
        self._reaches: list[tuple[int, tuple[int, int] | None, bool]] = []
        """From which place on the book's snapshot spoke of which prices, and is not to be trusted."""
        self._wrong_sums: tuple[int, int, int, int] | None = None

    def will_start_from(self, snapshots: Snapshots, places: Ints) -> None:
        """Note how far the snapshots at ``places`` reach: books start from them."""
        own = snapshots.messages
        self._reaches += [
            (int(own.order[at]), bounds(own, at), bool(snapshots.faulty[at])) for at in places.tolist()
        ]

    def note_audits(self, *found: Snapshots) -> None:
        """Keep the audits that are read, before and after this step's end, until their message comes."""
        for snapshots in found:
            own = snapshots.messages
            usable = (snapshots.reason == 2) & (snapshots.faulty == 0) & (own.last_id != NO_ID)
            for at in np.flatnonzero(usable & (own.order > self._audited)).tolist():
                audit = audits.shown(own, at)
                self._audits[audit.order] = audit
                self._audited = audit.order

    def targets(self, messages: Messages) -> dict[int, list[audits.Shown]]:
        """Return which audits are to be compared after which message."""
        found: dict[int, list[audits.Shown]] = {}
        for audit in list(self._audits.values()):
            at = audits.find_message(messages, audit)
            if at is not None:
                found.setdefault(at, []).append(audit)
                del self._audits[audit.order]
        return found

    def reach_until(self, horizon: int) -> None:
        """Take over what is known of the snapshots before the place ``horizon``: the book is theirs now."""
        while self._reaches and self._reaches[0][0] < horizon:
            _, self._reach, self.is_tainted = self._reaches.pop(0)

    def look(self, book: Book, at: int, messages: Messages, targets: dict[int, list[audits.Shown]]) -> None:
        """Look at the book right after a message: compare its checksum, and audits with it."""
        order, ts_recv = int(messages.order[at]), int(messages.ts_recv[at])
        self.reach_until(order + 1)
        if messages.checksum[at] != NO_ID:
            self._compare_sum(book, int(messages.checksum[at]), order, ts_recv)
        if not book.valid or book.id != int(messages.last_id[at]) or self.is_tainted:
            return
        first = int(messages.levels[:at].sum())
        rows = slice(first, first + int(messages.levels[at]))
        for audit in targets.get(at, ()):
            touched = [np.empty(0, np.int64)] * 2
            if audit.id != int(messages.last_id[at]):
                touched = [messages.price[rows][messages.side[rows] == side] for side in (0, 1)]
            self._compare_audit(book, audit, touched)

    def _compare_audit(self, book: Book, audit: audits.Shown, touched: list[Ints]) -> None:
        levels = [book.levels(side) for side in (0, 1)]
        depth = self._chain.max_depth
        reach: list[int | None]
        if self._chain.spliced:
            reach = [None, None] if self._reach is None else [*self._reach]
        else:
            reach = [
                int(prices[-1]) if len(prices) and 0 < depth <= len(prices) else None for prices, _ in levels
            ]
        compared = audits.compare(audit, levels, touched, reach)
        if not self._teller.is_asked(audit.ts_recv):
            self._told_levels = compared.wrong
            return
        place = self._teller.sessions.place(audit.order)
        session, frame = place.session or "", place.frame or 0
        figures = Audit(session, frame, audit.ts_recv, audit.id, compared.bands)
        self._seen.audits.setdefault(audit.ts_recv // DAY_NS, []).append(figures)
        new = compared.wrong - self._told_levels
        self._told_levels = compared.wrong
        if not new:
            return
        limits = {"10": self._thresholds.ghost.top_10, "100": self._thresholds.ghost.top_100}
        low = [band for band in compared.bands if band.share < limits.get(band.name, 0.0)]
        shares = ", ".join(f"{band.share:.1%} of band {band.name}" for band in compared.bands)
        self._teller.tell(
            "error" if low else "warning",
            "ghost",
            f"{len(new)} levels of the rebuilt book are not those of the audit snapshot at id {audit.id} "
            f"({shares} match in price and size): what rests there is not what the venue has",
            audit.order,
            id=audit.id,
            ts_recv=audit.ts_recv,
            count=len(new),
            table="snapshots",
        )

    def _compare_sum(self, book: Book, expected: int, order: int, ts_recv: int) -> None:
        day = ts_recv // DAY_NS
        self._seen.checksums[day] = self._seen.checksums.get(day, 0) + 1
        found = okx_checksum(book.bids(25), book.asks(25), self._units.price, self._units.size)
        if book.valid and found == expected:
            self._tell_wrong_sums()
            return
        self._seen.checksums_wrong[day] = self._seen.checksums_wrong.get(day, 0) + 1
        if book.valid:
            first = self._wrong_sums or (order, ts_recv, book.id, 0)
            self._wrong_sums = (*first[:3], first[3] + 1)

    def end(self) -> None:
        """Say that no message follows."""
        self._tell_wrong_sums()

    def _tell_wrong_sums(self) -> None:
        if self._wrong_sums is None:
            return
        order, ts_recv, book_id, count = self._wrong_sums
        self._wrong_sums = None
        self._teller.tell(
            "error",
            "checksum",
            f"the rebuilt book's checksum differs from the venue's after {count} messages in a row: the book "
            f"is not the exchange's",
            order,
            id=book_id,
            ts_recv=ts_recv,
            count=count,
            table="depth",
        )
