"""The checks of one symbol: its tables are streamed side by side, and each step is shown to every check."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.datasets import grid, stores
from mmdata.datasets._kernel import DIFF, GAP, GAP_OPEN, NO_PRICE, REPLACE, SESSION, SPLICE
from mmdata.datasets.book import Book
from mmdata.datasets.chain import CHAINS, NO_ID
from mmdata.datasets.decimals import common_divisor
from mmdata.datasets.grid import LOT, TICK, Instrument, find_unit
from mmdata.datasets.layout import list_parts
from mmdata.datasets.market import FRAME_BITS, NO_TIME
from mmdata.datasets.times import iso, to_ns
from mmdata.datasets.validation import audits
from mmdata.datasets.validation.arrivals import DAY_NS, Channel, Limits
from mmdata.datasets.validation.books import (
    AFTER,
    BEFORE,
    WITHIN,
    BookWalk,
    Walked,
    bounds,
    levels_of,
    marks,
    merged,
    picked,
)
from mmdata.datasets.validation.chains import BookChain, Break, Step, TradeChains
from mmdata.datasets.validation.checksum import okx_checksum
from mmdata.datasets.validation.events import Event, read_events, table_rows
from mmdata.datasets.validation.files import Survey, survey
from mmdata.datasets.validation.findings import Findings, Sessions
from mmdata.datasets.validation.messages import (
    Messages,
    Snapshots,
    book_messages,
    snapshots_of,
    tell_faults,
)
from mmdata.datasets.validation.minutes import BookMinutes
from mmdata.datasets.validation.report import Audit
from mmdata.datasets.validation.rows import READ, Decoder, Units, grid_of, no_rows
from mmdata.datasets.validation.streams import Columns, Source, batches, steps
from mmdata.datasets.validation.thresholds import Thresholds
from mmdata.datasets.validation.touch import Prices, QuoteChecks, Told, TradeChecks
from mmdata.datasets.validation.venue import VenueFacts

Ints = NDArray[np.int64]

TABLES = ("depth", "snapshots", "trades", "bbo", "events", "instruments")
BATCH = {"depth": 1 << 18, "snapshots": 1 << 16, "trades": 1 << 17, "bbo": 1 << 17}
_AUDITS_AHEAD = 2
_MS, _S = 1_000_000, 1_000_000_000
_STEPS: tuple[tuple[grid.Step, tuple[str, ...]], ...] = (
    (TICK, ("price", "bid_price", "ask_price")),
    (LOT, ("size", "bid_size", "ask_size")),
)
_BLOCK = 2  # kind of trades that are off the book


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


@dataclass
class Waiting:
    """A snapshot that a book is to start from, and that no diff has bridged yet."""

    order: int
    ts_recv: int
    id: int


@dataclass
class Seen:
    """What the stream of one symbol showed; `conclude` makes findings and figures of it."""

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


class SymbolStream:
    """Streams one symbol, up to the end of ``date`` or all of it, and gathers what is seen.

    Occurrences that need no other knowledge become findings at once; the rest is `Seen`.
    """

    def __init__(
        self,
        root: stores.Place,
        exchange: str,
        symbol: str,
        date: str | None,
        venue: VenueFacts,
        thresholds: Thresholds,
    ) -> None:
        self.exchange = exchange
        self.symbol = symbol
        self.date = date
        self.venue = venue
        self.thresholds = thresholds
        self.chain = CHAINS[exchange]
        self.findings = Findings(exchange, symbol, thresholds.most_findings, date)
        self.seen = Seen()
        self.damaged: set[str] = set()
        self.sessions = Sessions(_sessions(root, exchange, symbol, date))
        self.ranks = {name: rank for rank, name in enumerate(self.sessions.names)}
        self.surveys = {table: self._survey(root, table) for table in TABLES}
        self.events = self._events()
        self.units = Units()
        self.channels = {
            name: Channel(name, self._limits(silence))
            for name, silence in (
                ("depth", thresholds.silence.depth_s),
                ("trades", thresholds.silence.trades_s),
                ("bbo", thresholds.silence.bbo_s),
            )
        }
        self.minutes = BookMinutes()
        self._day = (to_ns(date), to_ns(date, end=True)) if date is not None else (NO_TIME, 2**63 - 1)
        self._walk = BookWalk(self.chain)
        self._chain = BookChain(self.chain)
        self._trade_chains = TradeChains()
        self._quote_checks = QuoteChecks()
        self._trade_checks = TradeChecks(round(thresholds.trade_lag_s * _S), thresholds.trade_outside_bp)
        self._marks = self._event_marks()
        self._audits: dict[int, audits.Shown] = {}
        self._audited = -1
        self._told_levels: set[tuple[int, int]] = set()
        self._is_tainted = False
        self._reach: tuple[int, int] | None = None
        self._reaches: list[tuple[int, tuple[int, int] | None, bool]] = []
        """From which place on the book's snapshot spoke of which prices, and is not to be trusted."""
        self._valid = False
        self._last: tuple[int, int, bool] | None = None  # arrival, session, validity of the last message
        self._episode: Episode | None = None
        self._wrong_sums: tuple[int, int, int, int] | None = None
        self._waiting: Waiting | None = None
        self._last_diff = 0
        self._last_range = np.array([[0, 0, -1]], np.int64)
        """Last trade, own id and place of the last aggregate."""

    # --- what is there

    def is_asked(self, ts_recv: int) -> bool:
        """Tell whether a moment is within the date that is asked for."""
        return self._day[0] <= ts_recv < self._day[1]

    def _survey(self, root: stores.Place, table: str) -> Survey:
        found = survey(
            root,
            table,
            self.exchange,
            self.symbol,
            self.findings,
            ranks=self.ranks,
            last_date=self.date,
            sessions=frozenset(self.ranks),
        )
        if found.is_damaged:
            self.damaged.add(table)
        return found

    def _events(self) -> list[Event]:
        pieces = [piece for lane in self.surveys["events"].lanes for piece in lane]
        events = read_events(pieces, self.findings)
        if self.findings.has("file"):
            self.damaged |= {"events"} if any(f.table == "events" for f in self.findings) else set()
        return sorted(
            (event for event in events if event.session in self.ranks),
            key=lambda event: event.order(self.ranks),
        )

    def _limits(self, silence_s: float) -> Limits:
        own = self.thresholds
        return Limits(
            silence=round(silence_s * _S),
            late=round(own.latency_ms * _MS),
            late_share=own.late_share,
            event_back=round(own.event_back_ms * _MS),
            early=round(own.negative_ms * _MS),
        )

    def _event_marks(self) -> list[tuple[int, int, int, int]]:
        """Return what stands between the messages: (order, within the frame, kind, ts_recv), in order."""
        found = [(rank << FRAME_BITS, BEFORE, SESSION, NO_TIME) for rank in self.ranks.values()]
        for event in self.events:
            if event.kind == "gap" and event.channel == "depth" and not event.is_covered:
                kind = GAP_OPEN if event.next_id is None else GAP
                found.append((event.order(self.ranks), AFTER, kind, event.ts_recv))
        return sorted(found)

    def instruments(self) -> list[Instrument]:
        """Return what was told of tick and lot."""
        pieces = [piece for lane in self.surveys["instruments"].lanes for piece in lane]
        found = []
        for row in table_rows(pieces, "instruments", self.findings):
            rank = self.ranks.get(row["session"])
            if rank is not None and row["tick_size"] > 0 and row["lot_size"] > 0:
                found.append(
                    Instrument(
                        rank << FRAME_BITS | row["frame"],
                        rank,
                        row["ts_recv"],
                        row["source"],
                        row["tick_size"],
                        row["lot_size"],
                        row["contract_value"],
                    )
                )
        return sorted(found, key=lambda row: row.order)

    # --- the stream

    def run(self) -> None:
        """Stream everything once. DatasetError: values that 64 bits cannot hold."""
        told = self.instruments()
        self.units = self._find_units(told)
        in_force = grid_of(told, self.units)
        decoders = {table: Decoder(table, self.ranks, self.units, in_force, self.findings) for table in BATCH}
        sources = {
            table: Source(
                self.surveys[table].lanes,
                READ[table],
                decoders[table],
                no_rows(table, self.units),
                BATCH[table],
                margin=_AUDITS_AHEAD if table == "snapshots" else 0,
            )
            for table in BATCH
        }
        for horizon, step in steps(sources, self.findings, self.damaged.add):
            self._take(horizon, step, decoders)
        self._end()

    def _find_units(self, told: list[Instrument]) -> Units:
        """Return the units in which all values are whole: of narrow tables, the last decimal place.

        What is wide is looked through once, for the greatest common divisor of what is there.
        """
        found = []
        for of, names in _STEPS:
            unit: Decimal | None = None
            for table in BATCH:
                for lane in self.surveys[table].lanes:
                    for piece in lane:
                        if not piece.partition.wide:
                            continue
                        own = [name for name in names if name in READ[table]]
                        for batch in batches(piece, own, BATCH[table]):
                            columns = [pa.chunked_array([batch.rows.column(name)]) for name in own]
                            here = find_unit(of, [], columns).size
                            unit = here if unit is None else common_divisor(unit, here)
            if unit is not None:
                for row in told:
                    unit = common_divisor(unit, row.step(of))
                is_mixed = any(
                    not piece.partition.wide
                    for table in BATCH
                    for lane in self.surveys[table].lanes
                    for piece in lane
                )
                unit = common_divisor(unit, Units().price) if is_mixed else unit
            found.append(Units().price if unit is None else unit)
        return Units(*found)

    def _take(self, horizon: int, step: dict[str, Columns], decoders: dict[str, Decoder]) -> None:
        rows, faults = book_messages(step["depth"])
        tell_faults(faults, step["depth"], self.findings, self.sessions, self.is_asked)
        snapshots = snapshots_of(step["snapshots"])
        self._check_snapshots(snapshots)
        self._note_audits(snapshots, snapshots_of(step["snapshots.ahead"]))
        spliced = np.flatnonzero((snapshots.reason < 2) & (snapshots.messages.last_id != NO_ID))
        own = snapshots.messages
        splices = picked(own, spliced)
        # Marks have no time of their own: the first wait for a message.
        is_begun = self._last is not None or len(rows.kind) > 0 or len(splices.kind) > 0
        before, after = self._marks_until(horizon if is_begun else -1, decoders["depth"])
        messages = _timed(
            merged([(WITHIN, rows), (WITHIN, splices), (BEFORE, before), (AFTER, after)]), self._last
        )
        # The time between two sessions is of neither.
        ranks = np.where(messages.kind == SESSION, -1, messages.order >> FRAME_BITS)
        targets = self._targets(messages)
        stops = sorted({*targets, *np.flatnonzero(messages.checksum != NO_ID).tolist()})
        self._reaches += [
            (int(own.order[at]), bounds(own, at), bool(snapshots.faulty[at])) for at in spliced.tolist()
        ]
        walked = self._walk.take(messages, stops, lambda book, at: self._look(book, at, messages, targets))
        self._reach_until(horizon)
        self.seen.breaks += self._chain.take(messages)
        self._count_sessions(walked, ranks)
        self._follow_validity(walked)
        self._follow_episodes(walked)
        self.minutes.take(walked, ranks)
        self._take_arrivals("depth", rows.order, rows.ts_recv, rows.ts_event)
        self._take_trades(step["trades"], walked, decoders["trades"], is_end=horizon == 2**63 - 1)
        self._take_quotes(step["bbo"], walked)
        if len(messages.kind):
            self._last = int(messages.ts_recv[-1]), int(ranks[-1]), bool(walked.tops[-1, 0])
            self._valid = bool(walked.tops[-1, 0])

    def _marks_until(self, horizon: int, decoder: Decoder) -> tuple[Messages, Messages]:
        until = next((at for at, mark in enumerate(self._marks) if mark[0] >= horizon), len(self._marks))
        due, self._marks = self._marks[:until], self._marks[until:]
        due += [(order, BEFORE, GAP_OPEN, NO_TIME) for order in decoder.breaks if order < horizon]
        decoder.breaks[:] = [order for order in decoder.breaks if order >= horizon]
        # A session's mark stands before the damage in it.
        due.sort(key=lambda mark: (mark[0], mark[2] != SESSION))
        before, after = (
            marks([(order, kind, ts) for order, within, kind, ts in due if within == which])
            for which in (BEFORE, AFTER)
        )
        return before, after

    def _take_arrivals(self, name: str, order: Ints, ts_recv: Ints, ts_event: Ints) -> None:
        clock = self.venue.clock
        offset = clock.at(ts_recv) if len(clock) and len(order) else None
        margin = int(clock.uncertainties.max()) if len(clock) else 0
        self.channels[name].take(order, ts_recv, ts_event, offset, margin)

    # --- snapshots and audits

    def _check_snapshots(self, snapshots: Snapshots) -> None:
        for at in np.flatnonzero(snapshots.faulty).tolist():
            own = snapshots.messages
            place = self.sessions.place(
                int(own.order[at]), id=int(own.last_id[at]), ts_recv=int(own.ts_recv[at])
            )
            if self.is_asked(int(own.ts_recv[at])):
                self.findings.add(
                    "error",
                    "snapshot",
                    f"{int(snapshots.faulty[at])} levels of the snapshot at id {place.id} are out of order, "
                    "wrongly numbered, or at a price that stands twice: a level is missing, or not the "
                    "venue's",
                    place,
                    count=int(snapshots.faulty[at]),
                    table="snapshots",
                )

    def _note_audits(self, *found: Snapshots) -> None:
        """Keep the audits that are read, before and after this step's end, until their message comes."""
        for snapshots in found:
            own = snapshots.messages
            usable = (snapshots.reason == 2) & (snapshots.faulty == 0) & (own.last_id != NO_ID)
            for at in np.flatnonzero(usable & (own.order > self._audited)).tolist():
                audit = audits.shown(own, at)
                self._audits[audit.order] = audit
                self._audited = audit.order

    def _targets(self, messages: Messages) -> dict[int, list[audits.Shown]]:
        """Return which audits are to be compared after which message."""
        found: dict[int, list[audits.Shown]] = {}
        for audit in list(self._audits.values()):
            at = audits.find_message(messages, audit)
            if at is not None:
                found.setdefault(at, []).append(audit)
                del self._audits[audit.order]
        return found

    def _reach_until(self, horizon: int) -> None:
        while self._reaches and self._reaches[0][0] < horizon:
            _, self._reach, self._is_tainted = self._reaches.pop(0)

    def _look(self, book: Book, at: int, messages: Messages, targets: dict[int, list[audits.Shown]]) -> None:
        """Look at the book right after a message: compare its checksum, and audits with it."""
        order, ts_recv = int(messages.order[at]), int(messages.ts_recv[at])
        self._reach_until(order + 1)
        if messages.checksum[at] != NO_ID:
            self._compare_sum(book, int(messages.checksum[at]), order, ts_recv)
        if not book.valid or book.id != int(messages.last_id[at]) or self._is_tainted:
            return
        first = int(messages.levels[:at].sum())
        rows = slice(first, first + int(messages.levels[at]))
        for audit in targets.get(at, ()):
            touched = [np.empty(0, np.int64)] * 2
            if audit.id != int(messages.last_id[at]):
                touched = [messages.price[rows][messages.side[rows] == side] for side in (0, 1)]
            self._compare_audit(book, audit, touched)

    def _compare_audit(self, book: Book, audit: audits.Shown, touched: list[Ints]) -> None:
        levels = [levels_of(book, side) for side in (0, 1)]
        depth = self.chain.max_depth
        reach: list[int | None]
        if self.chain.spliced:
            reach = [None, None] if self._reach is None else [*self._reach]
        else:
            reach = [
                int(prices[-1]) if len(prices) and 0 < depth <= len(prices) else None for prices, _ in levels
            ]
        compared = audits.compare(audit, levels, touched, reach)
        if not self.is_asked(audit.ts_recv):
            self._told_levels = compared.wrong
            return
        place = self.sessions.place(audit.order, id=audit.id, ts_recv=audit.ts_recv)
        session, frame = place.session or "", place.frame or 0
        figures = Audit(session, frame, audit.ts_recv, audit.id, compared.bands)
        self.seen.audits.setdefault(audit.ts_recv // DAY_NS, []).append(figures)
        new = compared.wrong - self._told_levels
        self._told_levels = compared.wrong
        if not new:
            return
        limits = {"10": self.thresholds.ghost.top_10, "100": self.thresholds.ghost.top_100}
        low = [band for band in compared.bands if band.share < limits.get(band.name, 0.0)]
        shares = ", ".join(f"{band.share:.1%} of band {band.name}" for band in compared.bands)
        self.findings.add(
            "error" if low else "warning",
            "ghost",
            f"{len(new)} levels of the rebuilt book are not those of the audit snapshot at id {audit.id} "
            f"({shares} match in price and size): what rests there is not what the venue has",
            place,
            count=len(new),
            table="snapshots",
        )

    def _compare_sum(self, book: Book, expected: int, order: int, ts_recv: int) -> None:
        day = ts_recv // DAY_NS
        self.seen.checksums[day] = self.seen.checksums.get(day, 0) + 1
        found = okx_checksum(book.bids(25), book.asks(25), self.units.price, self.units.size)
        if book.valid and found == expected:
            self._tell_wrong_sums()
            return
        self.seen.checksums_wrong[day] = self.seen.checksums_wrong.get(day, 0) + 1
        if book.valid:
            first = self._wrong_sums or (order, ts_recv, book.id, 0)
            self._wrong_sums = (*first[:3], first[3] + 1)

    def _tell_wrong_sums(self) -> None:
        if self._wrong_sums is None:
            return
        order, ts_recv, book_id, count = self._wrong_sums
        self._wrong_sums = None
        if self.is_asked(ts_recv):
            self.findings.add(
                "error",
                "checksum",
                f"the rebuilt book's checksum differs from the venue's after {count} messages in a row: the "
                f"book is not the exchange's",
                self.sessions.place(order, id=book_id, ts_recv=ts_recv),
                count=count,
                table="depth",
            )

    # --- the book

    def _count_sessions(self, walked: Walked, ranks: Ints) -> None:
        """Add up messages and time, by session and day; between two sessions nothing is recorded."""
        messages = walked.messages
        times, valid = messages.ts_recv, walked.tops[:, 0] == 1
        if not len(times):
            return
        own = messages.kind <= REPLACE
        days = times // DAY_NS
        for rank, day in np.unique(np.column_stack((ranks[own], days[own])), axis=0).tolist():
            chosen = np.flatnonzero(own & (ranks == rank) & (days == day))
            first, last = int(chosen[0]), int(chosen[-1])
            entry = self.seen.sessions.setdefault(
                (rank, day), SessionDay(int(times[first]), int(times[last]), 0, int(messages.first_id[first]))
            )
            entry.end = max(entry.end, int(times[last]))
            entry.messages += len(chosen)
            entry.last_id = int(messages.last_id[last])
        if self._last is not None:
            times = np.concatenate(([self._last[0]], times))
            ranks = np.concatenate(([self._last[1]], ranks))
            valid = np.concatenate(([self._last[2]], valid))
        spans = np.diff(times)
        spans[(ranks[1:] != ranks[:-1]) | (spans < 0)] = 0
        for rank, day in np.unique(np.column_stack((ranks[:-1], times[:-1] // DAY_NS)), axis=0).tolist():
            entry_or_none = self.seen.sessions.get((rank, day))
            if entry_or_none is None:
                continue
            chosen = (ranks[:-1] == rank) & (times[:-1] // DAY_NS == day)
            until = np.minimum(spans[chosen], (day + 1) * DAY_NS - times[:-1][chosen])
            entry_or_none.recorded_ns += int(until.sum())
            entry_or_none.valid_ns += int(until[valid[:-1][chosen]].sum())

    def _follow_validity(self, walked: Walked) -> None:
        messages = walked.messages
        if not len(messages.kind):
            return
        valid = walked.tops[:, 0] == 1
        before = np.concatenate(([self._valid], valid[:-1]))
        rises = np.flatnonzero(valid & ~before)
        self.seen.rises += zip(messages.order[rises].tolist(), messages.ts_recv[rises].tolist(), strict=True)
        self.seen.was_valid = self.seen.was_valid or bool(valid.any())
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
        if waited is not None and self._last_diff - waited.ts_recv > self.thresholds.bridge_s * _S:
            self.seen.unbridged.append(waited)
        self._waiting = None

    def _follow_episodes(self, walked: Walked) -> None:
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
                self._tell_episode(int(messages.ts_recv[begin]))
            if check and self._episode is None:
                self._episode = Episode(
                    check,
                    *(int(column[begin]) for column in (messages.order, messages.ts_recv, messages.last_id)),
                    *(int(tops[begin, at]) for at in (1, 3)),
                )
            if self._episode is not None:
                self._episode.count += int((messages.kind[begin:end] <= REPLACE).sum())
                self._episode.last = int(messages.ts_recv[end - 1])

    def _tell_episode(self, end: int) -> None:
        own = self._episode
        self._episode = None
        if own is None or self._is_tainted or not self.is_asked(own.ts_recv):
            return
        bid, ask = (f"{price * self.units.price:f}" for price in (own.bid, own.ask))
        means = "levels are stale or missing" if own.check == "crossed" else "its spread is zero there"
        self.findings.add(
            "error" if own.check == "crossed" else "warning",
            own.check,
            f"the rebuilt book is {own.check} after {own.count} messages, for "
            f"{max(0, end - own.ts_recv) / 1e9:.3f} s from {iso(own.ts_recv)} on (bid {bid}, ask {ask}): "
            f"{means}",
            self.sessions.place(own.order, id=own.id, ts_recv=own.ts_recv),
            count=own.count,
            table="depth",
        )

    # --- trades and quotes

    def _take_trades(self, rows: Columns, walked: Walked, decoder: Decoder, *, is_end: bool) -> None:
        streamed = ~rows["is_backfill"].astype(np.bool_)
        own = {name: column[streamed] for name, column in rows.items()} if not streamed.all() else rows
        order, times = own["order"].astype(np.int64), own["ts_recv"].astype(np.int64)
        kind = own["kind"].astype(np.int8)
        # Aggregates of Binance are counted in ids of their own; OKX's by the trades that they cover.
        counted = (kind == 1) & self.exchange.startswith("binance")
        impossible = self._check_ranges(own, kind, counted)
        by_id = counted | impossible
        first = np.where(by_id, own["trade_id"], own["first_trade_id"]).astype(np.int64)
        last = np.where(by_id, own["trade_id"], own["last_trade_id"]).astype(np.int64)
        known = (first != NO_ID) & (last != NO_ID)
        cuts = [] if not decoder.breaks else np.searchsorted(order[known], sorted(decoder.breaks)).tolist()
        parts = [np.split(column[known], cuts) for column in (kind, first, last, order, times)]
        for number, part in enumerate(zip(*parts, strict=True)):
            if number:
                self._trade_chains.restart()
            self.seen.trade_steps += self._trade_chains.take(*part)
        decoder.breaks[:] = [place for place in decoder.breaks if not len(order) or place > order[-1]]
        _count_days(self.seen.trades, times)
        self._take_arrivals("trades", order, times, own["ts_event"].astype(np.int64))
        on_book = (kind != _BLOCK) & (own["price"] > 0) & (times != NO_TIME)
        prices = Prices(order[on_book], times[on_book], last[on_book], own["price"].astype(np.int64)[on_book])
        found = self._trade_checks.take(walked, prices, is_end=is_end)
        if self._is_tainted:
            return
        for place, when, trade, price in zip(*(column.tolist() for column in found), strict=True):
            if self.is_asked(when):
                self.findings.add(
                    "warning",
                    "trade_price",
                    f"trade {trade} at {price * self.units.price:f} lies outside the book, more than "
                    f"{self.thresholds.trade_outside_bp:g} bp beyond every best bid and ask within "
                    f"{self.thresholds.trade_lag_s:g} s of it: book or trade is not the exchange's",
                    self.sessions.place(place, id=trade, ts_recv=when),
                    table="trades",
                )

    def _check_ranges(
        self, own: Columns, kind: NDArray[np.int8], counted: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Check what aggregates say of the trades that they cover; return which of them cannot be.

        First comes before last, and an aggregate's own id is the last where ids are those of trades. The
        ranges of two that follow each other do not overlap, and meet where the venue counts every trade (on
        USDⓈ-M ids of the insurance fund's trades belong to no aggregate).
        """
        first, last, number = own["first_trade_id"], own["last_trade_id"], own["trade_id"]
        told = (first != NO_ID) & (last != NO_ID)
        impossible = told & ((first > last) | (~counted & (number != last)))
        rows = np.flatnonzero(told & (kind == 1) & ~impossible)
        behind = np.column_stack((last[rows], number[rows], own["order"][rows])).astype(np.int64)
        since = np.vstack((self._last_range, behind))
        before = since[:-1]
        same = before[:, 2] >> FRAME_BITS == behind[:, 2] >> FRAME_BITS
        follows = before[:, 1] + 1 == behind[:, 1]
        gaps = np.where(
            counted[rows],
            follows & (first[rows] != before[:, 0] + 1) & (self.exchange == "binance"),
            (first[rows] <= before[:, 0]) & (last[rows] > before[:, 0]),
        )
        if len(rows):
            self._last_range = since[-1:]
        for at in sorted({*np.flatnonzero(impossible).tolist(), *rows[gaps & same].tolist()}):
            when = int(own["ts_recv"][at])
            if self.is_asked(when):
                self.findings.add(
                    "error",
                    "trade_ids",
                    f"trade {int(number[at])} says that it covers the trades {int(first[at])} to "
                    f"{int(last[at])}, which does not fit it, or the one before it: volume cannot be counted "
                    "by id there",
                    self.sessions.place(int(own["order"][at]), id=int(number[at]), ts_recv=when),
                    table="trades",
                )
        return np.asarray(impossible)

    def _take_quotes(self, rows: Columns, walked: Walked) -> None:
        order, times = rows["order"].astype(np.int64), rows["ts_recv"].astype(np.int64)
        _count_days(self.seen.quotes, times)
        self._take_arrivals("bbo", order, times, rows["ts_event"].astype(np.int64))
        touch = np.column_stack([rows[name] for name in ("bid_price", "bid_size", "ask_price", "ask_size")])
        quotes = Told(order, times, rows["last_id"].astype(np.int64), touch.astype(np.int64))
        crossed = (touch[:, 0] != NO_PRICE) & (touch[:, 2] != NO_PRICE) & (touch[:, 0] > touch[:, 2])
        for at in np.flatnonzero(crossed).tolist():
            self._tell_quote(quotes, at, "is crossed in itself: it cannot be the exchange's")
        compared, unequal = self._quote_checks.take(walked, quotes.at(~crossed))
        _count_days(self.seen.bbo_compared, compared.ts_recv)
        _count_days(self.seen.bbo_unequal, unequal.ts_recv)
        for at in range(len(unequal.order)) if not self._is_tainted else ():
            self._tell_quote(
                unequal,
                at,
                "differs from the rebuilt book's at the same id: one of the two is not the exchange's",
            )

    def _tell_quote(self, quotes: Told, at: int, what: str) -> None:
        order, when, own = int(quotes.order[at]), int(quotes.ts_recv[at]), int(quotes.ids[at])
        if self.is_asked(when):
            self.findings.add(
                "error",
                "bbo",
                f"the venue's own best bid and ask at id {own} {what}",
                self.sessions.place(order, id=own, ts_recv=when),
                table="bbo",
            )

    def _end(self) -> None:
        self._give_up()
        self._tell_episode(self._episode.last if self._episode is not None else 0)
        self._tell_wrong_sums()
        self.seen.trade_steps += self._trade_chains.end()
        for channel in self.channels.values():
            channel.end()


def _count_days(counts: dict[int, int], times: Ints) -> None:
    days, found = np.unique(times[times != NO_TIME] // DAY_NS, return_counts=True)
    for day, count in zip(days.tolist(), found.tolist(), strict=True):
        counts[day] = counts.get(day, 0) + count


def _timed(messages: Messages, last: tuple[int, int, bool] | None) -> Messages:
    """Give marks without a time that of what is before them, or of what follows at the very begin."""
    times = messages.ts_recv
    timed = np.flatnonzero(times != NO_TIME)
    if len(timed) == len(times):
        return messages
    before = np.maximum.accumulate(np.where(times != NO_TIME, np.arange(len(times)), -1))
    filled = times[np.maximum(before, 0)]
    first = last[0] if last is not None else int(times[timed[0]]) if timed.size else 0
    return messages._replace(ts_recv=np.where(before < 0, first, filled))


def _sessions(root: stores.Place, exchange: str, symbol: str, date: str | None) -> tuple[str, ...]:
    """Return the sessions to be streamed, in order: all, or those of a date and the one before them.

    A book of that one may go on into the first of the date.
    """
    begun: dict[str, str] = {}
    dated: set[str] = set()
    for table in TABLES:
        for part in list_parts(root, table, exchange=exchange, symbol=symbol, foreign=[]):
            begun[part.session] = min(begun.get(part.session, part.start), part.start)
            if part.partition.date == date:
                dated.add(part.session)
    begun.pop("compacted", None)
    names = sorted(begun, key=lambda name: (begun[name], name))
    if date is None:
        return tuple(names)
    first = next((at for at, name in enumerate(names) if name in dated), len(names))
    return tuple(name for at, name in enumerate(names) if name in dated or at == first - 1)
