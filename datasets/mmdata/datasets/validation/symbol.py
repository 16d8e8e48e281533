"""The checks of one symbol: its tables are streamed side by side, and each step is shown to every check."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from decimal import Decimal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.datasets import grid, stores
from mmdata.datasets._kernel import GAP, GAP_OPEN, SESSION
from mmdata.datasets.chain import CHAINS, NO_ID
from mmdata.datasets.decimals import common_divisor
from mmdata.datasets.grid import LOT, TICK, Instrument, find_unit
from mmdata.datasets.layout import list_parts
from mmdata.datasets.market import FRAME_BITS, NO_TIME
from mmdata.datasets.validation.arrivals import Channel, Limits
from mmdata.datasets.validation.books import (
    AFTER,
    BEFORE,
    WITHIN,
    BookWalk,
    Walked,
    marks,
    picked,
)
from mmdata.datasets.validation.chains import BookChain
from mmdata.datasets.validation.events import Event, read_events, table_rows
from mmdata.datasets.validation.files import Survey, survey
from mmdata.datasets.validation.findings import Findings, Sessions, Teller
from mmdata.datasets.validation.looks import BookLooks
from mmdata.datasets.validation.messages import (
    Messages,
    Snapshots,
    book_messages,
    snapshots_of,
    tell_faults,
)
from mmdata.datasets.validation.minutes import BookMinutes
from mmdata.datasets.validation.rows import READ, Decoder, Units, grid_of, no_rows
from mmdata.datasets.validation.seen import Seen
from mmdata.datasets.validation.streams import EVERYTHING, Columns, Source, batches, joined, steps
from mmdata.datasets.validation.thresholds import Thresholds
from mmdata.datasets.validation.trades_quotes import TradesAndQuotes
from mmdata.datasets.validation.validity import BookTimes
from mmdata.datasets.validation.venue import VenueFacts

Ints = NDArray[np.int64]

TABLES = ("depth", "snapshots", "trades", "bbo", "events", "instruments")
BATCH = {"depth": 1 << 18, "snapshots": 1 << 16, "trades": 1 << 17, "bbo": 1 << 17}
_AUDITS_AHEAD = 2
_STEPS_BEHIND = 4
_MS, _S = 1_000_000, 1_000_000_000
_STEPS: tuple[tuple[grid.Step, tuple[str, ...]], ...] = (
    (TICK, ("price", "bid_price", "ask_price")),
    (LOT, ("size", "bid_size", "ask_size")),
)


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
        self.teller = Teller(self.findings, self.sessions, date)
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
        self._chain = BookChain(self.chain)
        self._marks = self._event_marks()
        self._next_ids = {
            event.order(self.ranks): event.next_id for event in self.events if event.next_id is not None
        }
        self._since: int | None = None
        """Arrival of the last message; None: there was none yet."""

    # --- what is there

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
        if any(found.check == "file" and found.table == "events" for found in self.findings):
            self.damaged.add("events")
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
        self._walk = BookWalk(self.chain, math.gcd(*in_force.tick.tolist()))
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
        shared = (self.teller, self.seen)
        looks = BookLooks(*shared, self.chain, self.units, self.thresholds)
        times = BookTimes(*shared, self.units, self.thresholds.bridge_s)
        rest = TradesAndQuotes(self.exchange, *shared, self.units, self.thresholds, self._take_arrivals)
        # What follows the book step by step does so on another thread, a few steps behind.
        with ThreadPoolExecutor(1) as pool:
            behind: deque[Future[None]] = deque()
            for horizon, step, ahead in steps(sources, self.findings, self.damaged.add):
                pieces, walked = self._walk_step(horizon, step, ahead["snapshots"], decoders["depth"], looks)
                while len(behind) >= _STEPS_BEHIND:
                    behind.popleft().result()
                follow = (pieces, walked, step, decoders["trades"], times, rest)
                is_end = horizon == EVERYTHING
                behind.append(pool.submit(self._follow, *follow, is_tainted=looks.is_tainted, is_end=is_end))
            for own in behind:
                own.result()
        times.end(is_tainted=looks.is_tainted)
        looks.end()
        rest.end()
        for channel in self.channels.values():
            channel.end()

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

    def _walk_step(
        self,
        horizon: int,
        step: dict[str, list[Columns]],
        snapshots_ahead: Columns,
        decoder: Decoder,
        looks: BookLooks,
    ) -> tuple[Sequence[Messages], Walked]:
        """Take book messages and snapshots up to the place ``horizon``; return them, and the book at each."""
        pieces, faults = zip(*map(book_messages, step["depth"]), strict=True)
        tell_faults(faults, step["depth"], self.teller)
        snapshots = snapshots_of(joined(step["snapshots"]))
        self._check_snapshots(snapshots)
        looks.note_audits(snapshots, snapshots_of(snapshots_ahead))
        spliced = np.flatnonzero((snapshots.reason < 2) & (snapshots.messages.last_id != NO_ID))
        splices = picked(snapshots.messages, spliced)
        # Marks have no time of their own: the first wait for a message.
        is_begun = self._since is not None or any(len(own.kind) for own in (*pieces, splices))
        before, after = self._marks_until(horizon if is_begun else -1, decoder)
        parts = [*((WITHIN, own) for own in (*pieces, splices)), (BEFORE, before), (AFTER, after)]
        messages = _timed(self._walk.join(parts), self._since)
        if len(messages.kind):
            self._since = int(messages.ts_recv[-1])
        targets = looks.targets(messages)
        stops = sorted({*targets, *np.flatnonzero(messages.checksum != NO_ID).tolist()})
        looks.will_start_from(snapshots, spliced)
        walked = self._walk.take(messages, stops, lambda book, at: looks.look(book, at, messages, targets))
        looks.reach_until(horizon)
        self.seen.breaks += self._chain.take(messages)
        return pieces, walked

    def _follow(
        self,
        pieces: Sequence[Messages],
        walked: Walked,
        step: dict[str, list[Columns]],
        trades: Decoder,
        times: BookTimes,
        rest: TradesAndQuotes,
        *,
        is_tainted: bool,
        is_end: bool,
    ) -> None:
        """Show a step, and the book at each of its messages, to the checks that only follow it."""
        messages = walked.messages
        # The time between two sessions is of neither.
        ranks = np.where(messages.kind == SESSION, -1, messages.order >> FRAME_BITS)
        self.minutes.take(walked, ranks)
        arrivals = ([own.order, own.ts_recv, own.ts_event] for own in pieces)
        self._take_arrivals("depth", *map(np.concatenate, zip(*arrivals, strict=True)))
        times.take(walked, ranks, is_tainted=is_tainted)
        rest.take_trades(joined(step["trades"]), walked, trades, is_tainted=is_tainted, is_end=is_end)
        rest.take_quotes(joined(step["bbo"]), walked, is_tainted=is_tainted)

    def _marks_until(self, horizon: int, decoder: Decoder) -> tuple[Messages, Messages]:
        until = next((at for at, mark in enumerate(self._marks) if mark[0] >= horizon), len(self._marks))
        due, self._marks = self._marks[:until], self._marks[until:]
        due += [(order, BEFORE, GAP_OPEN, NO_TIME) for order in decoder.breaks_before(horizon)]
        # A session's mark stands before the damage in it.
        due.sort(key=lambda mark: (mark[0], mark[2] != SESSION))
        before, after = (
            marks([(order, kind, ts) for order, within, kind, ts in due if within == which])
            for which in (BEFORE, AFTER)
        )
        next_ids = [self._next_ids.get(order, NO_ID) for order in after.order.tolist()]
        return before, after._replace(first_id=np.array(next_ids, np.int64))

    def _take_arrivals(self, name: str, order: Ints, ts_recv: Ints, ts_event: Ints) -> None:
        clock = self.venue.clock
        offset = clock.at(ts_recv) if len(clock) and len(order) else None
        margin = int(clock.uncertainties.max()) if len(clock) else 0
        self.channels[name].take(order, ts_recv, ts_event, offset, margin)

    def _check_snapshots(self, snapshots: Snapshots) -> None:
        own = snapshots.messages
        for at in np.flatnonzero(snapshots.faulty).tolist():
            wrong, last_id = int(snapshots.faulty[at]), int(own.last_id[at])
            self.teller.tell(
                "error",
                "snapshot",
                f"{wrong} levels of the snapshot at id {last_id} are out of order, wrongly numbered, or at a "
                "price that stands twice: a level is missing, or not the venue's",
                int(own.order[at]),
                id=last_id,
                ts_recv=int(own.ts_recv[at]),
                count=wrong,
                table="snapshots",
            )


def _timed(messages: Messages, last: int | None) -> Messages:
    """Give marks without a time that of what is before them, or of what follows at the very begin."""
    times = messages.ts_recv
    timed = np.flatnonzero(times != NO_TIME)
    if len(timed) == len(times):
        return messages
    before = np.maximum.accumulate(np.where(times != NO_TIME, np.arange(len(times)), -1))
    filled = times[np.maximum(before, 0)]
    first = last if last is not None else int(times[timed[0]]) if timed.size else 0
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
