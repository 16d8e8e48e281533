"""One symbol's recording read in pieces: as `mmdata.datasets.market` loads it, in bounded memory.

Each piece holds what stands in a run of frames, of every table, so that pieces in a row are the order of
everything. What must be known before the first piece is read (the units of prices and sizes, what
is added to the recorder's clock) is found by a pass of its own, `survey`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.datasets.clocks import DEFAULT_BASE_LATENCY_NS, shift_to
from mmdata.datasets.decimals import common_divisor, divisor_of
from mmdata.datasets.errors import DatasetError
from mmdata.datasets.grid import LOT, TICK, Instrument, Step, Unit, common_unit, told_unit
from mmdata.datasets.layout import Part, date_name, list_parts
from mmdata.datasets.market import (
    BBO,
    DEPTH,
    EVENTS,
    NO_TIME,
    SNAPSHOTS,
    TRADES,
    Grid,
    chain_of,
    is_gap,
    nothing_of,
    read_instruments,
    reading,
    session_order,
    times,
)
from mmdata.datasets.schema import arrow_schema
from mmdata.datasets.spans import Span
from mmdata.datasets.stretches import row_groups, stretches_of
from mmdata.datasets.times import NEVER

Ints = NDArray[np.int64]

ROWS = 1 << 18
"""Rows of a table that are looked at together."""
_TABLES = ("depth", "snapshots", "events", "trades", "bbo", "instruments")
_PRICES = ("price", "bid_price", "ask_price")
_SIZES = ("size", "bid_size", "ask_size")


@dataclass(frozen=True, slots=True)
class Shift:
    """What is added to one session's ``ts_recv`` to read the exchange's clock."""

    session: str
    ns: int
    source: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of a tape before it is played."""

    grid: Grid
    shifts: tuple[Shift, ...]
    """One a session, in their order."""
    spans: tuple[Span, ...]
    """When each session received anything within what was asked for."""
    has_single: NDArray[np.bool_]
    """(sessions,) which have single trades, not only aggregates."""
    backfilled: pa.Table
    """Trades asked for later over REST; columns TRADES."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What stands in a run of frames of one session."""

    begins: int | None
    """The session that begins with this piece, as a position in `Tape.sessions`."""
    depth: pa.Table
    snapshots: pa.Table
    """Those of which a book may be made: no audits."""
    gaps: pa.Table
    trades: pa.Table
    snapshots_left: bool
    """More of them follow in this session."""


class Tape:
    """Where one symbol's recording lies; ``end`` (ns, None: open) cuts what was received then or later.

    UsageError: nothing of the symbol is there, or the exchange is unknown.
    """

    def __init__(self, root: Path, exchange: str, symbol: str, end: int | None = None) -> None:
        self.chain = chain_of(exchange)
        """How this exchange's book messages hang together."""
        self.exchange = exchange
        self.symbol = symbol
        self._end = end
        last = date_name(end - 1) if end is not None else "9999"
        self._parts = {
            table: [
                part
                for part in list_parts(root, table, exchange=exchange, symbol=symbol)
                if part.partition.date <= last
            ]
            for table in _TABLES
        }
        if not self._parts["depth"] and not self._parts["trades"]:
            raise nothing_of(root, exchange, symbol, "no depth and no trades")
        self.sessions = tuple(session_order(self._parts))
        self.instruments: tuple[Instrument, ...] = read_instruments(self._parts["instruments"], self.sessions)

    def _of(self, table: str, session: str) -> list[Part]:
        return [part for part in self._parts[table] if part.session == session]

    def _tables(self, table: str, session: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield a session's rows of ``table`` in order, cut before the first that came at ``end``."""
        for rows in by_frame(self._of(table, session), columns):
            late = np.flatnonzero(times(rows["ts_recv"]) >= (NEVER if self._end is None else self._end))
            if late.size:
                yield rows.slice(0, int(late[0]))
                return
            yield rows

    def pieces(self) -> Iterator[Piece]:
        """Yield the tape, in the order of everything. DatasetError: a file is damaged, or was replaced."""
        for index, session in enumerate(self.sessions):
            cursors = [
                _Cursor(self._tables("depth", session, DEPTH), _empty("depth", DEPTH)),
                _Cursor(
                    (_of_books(rows) for rows in self._tables("snapshots", session, SNAPSHOTS)),
                    _empty("snapshots", SNAPSHOTS),
                ),
                _Cursor(
                    (_of_depth(rows) for rows in self._tables("events", session, EVENTS)),
                    _empty("events", EVENTS),
                ),
                _Cursor(self._tables("trades", session, TRADES), _empty("trades", TRADES)),
            ]
            begins: int | None = index
            while True:
                ends = [cursor.end for cursor in cursors if cursor.end is not None]
                if not ends and begins is None:
                    break
                found = [cursor.until(min(ends, default=-1)) for cursor in cursors]
                depth, snapshots, gaps, trades = found
                yield Piece(begins, depth, snapshots, gaps, trades, cursors[1].end is not None)
                begins = None

    def survey(self, start: int | None = None, base_latency_ns: int = DEFAULT_BASE_LATENCY_NS) -> Survey:
        """Read all of it once for what must be known beforehand; spans are of what came from ``start`` on."""
        units = {TICK: _Units(TICK, self.instruments), LOT: _Units(LOT, self.instruments)}
        shifts, spans, singles = [], [], []
        backfilled = [_empty("trades", TRADES)]
        for session in self.sessions:
            found = _Facts(start)
            for table, columns in (
                *(("depth", DEPTH), ("snapshots", SNAPSHOTS), ("trades", TRADES), ("bbo", BBO)),
            ):
                for rows in self._tables(table, session, columns):
                    units[TICK].take([rows[name] for name in _PRICES if name in columns])
                    units[LOT].take([rows[name] for name in _SIZES if name in columns])
                    found.take(table, rows)
                    if table == "trades":
                        backfilled.append(rows.filter(pc.equal(rows["origin"], "backfill")))
            shift = Shift(session, *shift_to(found.least, base_latency_ns))
            shifts.append(shift)
            singles.append(found.has_single)
            if found.first is not None and found.last is not None:
                first, last = found.first, found.last
                spans.append(Span(session, first + shift.ns, last + shift.ns, first, last))
        return Survey(
            Grid(units[TICK].unit, units[LOT].unit),
            tuple(shifts),
            tuple(spans),
            np.array(singles, np.bool_),
            pa.concat_tables(backfilled, promote_options="permissive"),
        )


def _empty(table: str, columns: Sequence[str]) -> pa.Table:
    return arrow_schema(table).empty_table().select(list(columns))


def _of_books(snapshots: pa.Table) -> pa.Table:
    return snapshots.filter(pc.not_equal(snapshots["reason"], "audit"))


def _of_depth(events: pa.Table) -> pa.Table:
    return events.filter(pc.and_(is_gap(events), pc.equal(events["channel"], "depth")))


class _Units:
    """The unit of prices or sizes, found over many tables."""

    def __init__(self, of: Step, told: Sequence[Instrument]) -> None:
        self._told = told_unit(of, told)
        self._divisor = Decimal(0)

    @property
    def unit(self) -> Unit:
        return common_unit(self._told, self._divisor)

    def take(self, columns: Sequence[pa.ChunkedArray]) -> None:
        self._divisor = reduce(common_divisor, map(divisor_of, columns), self._divisor)


class _Facts:
    """What the rows of one session say of its clock: latencies, and when anything was received."""

    def __init__(self, start: int | None) -> None:
        self._start = start
        self._least: dict[str, int] = {}
        self.has_single = False
        self.first: int | None = None
        self.last: int | None = None

    @property
    def least(self) -> int | None:
        """The least latency; that of aggregates counts only where no single trades are."""
        counted = [ns for kind, ns in self._least.items() if kind != "agg" or not self.has_single]
        return min(counted, default=None)

    def take(self, table: str, rows: pa.Table) -> None:
        received = times(rows["ts_recv"])
        within = received if self._start is None else received[received >= self._start]
        if within.size and table != "snapshots":
            lowest, highest = int(within.min()), int(within.max())
            self.first = lowest if self.first is None else min(self.first, lowest)
            self.last = highest if self.last is None else max(self.last, highest)
        if table == "trades":
            live = pc.equal(rows["origin"], "stream")
            for kind in ("trade", "agg"):
                chosen = rows.filter(pc.equal(rows["kind"], kind))
                self.has_single |= kind == "trade" and len(chosen) > 0
                self._measure(kind, rows.filter(pc.and_(live, pc.equal(rows["kind"], kind))))
        elif table != "snapshots":
            self._measure(table, rows)

    def _measure(self, kind: str, rows: pa.Table) -> None:
        received, happened = times(rows["ts_recv"]), times(rows["ts_event"])
        timed = happened != NO_TIME
        if timed.any():
            least = int((received[timed] - happened[timed]).min())
            self._least[kind] = min(self._least.get(kind, least), least)


class _Cursor:
    """Tables in order of frames, taken up to a frame at a time."""

    def __init__(self, tables: Iterator[pa.Table], empty: pa.Table) -> None:
        self._tables = tables
        self._empty = empty
        self._rows = empty
        self._load()

    @property
    def end(self) -> int | None:
        """The last frame that is loaded; None: nothing is left."""
        return self._rows["frame"][-1].as_py() if len(self._rows) else None

    def _load(self) -> None:
        self._rows = next((rows for rows in self._tables if len(rows)), self._empty)

    def until(self, frame: int) -> pa.Table:
        """Take what is loaded up to ``frame``, which is at most `end`."""
        count = int(np.searchsorted(self._rows["frame"].to_numpy(), frame, side="right"))
        found, self._rows = self._rows.slice(0, count), self._rows.slice(count)
        if not len(self._rows):
            self._load()
        return found


def by_frame(parts: Sequence[Part], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield one session's rows in order of their frames, some at a time; no frame straddles two tables.

    DatasetError: a file is damaged, or lacks a column. ReplacedError: one was replaced meanwhile.
    """
    held: pa.Table | None = None
    for rows in _rising(parts, columns):
        table = rows if held is None else pa.concat_tables([held, rows], promote_options="permissive")
        frames = table["frame"].to_numpy()
        if (frames[1:] < frames[:-1]).any():
            own = parts[0]
            raise DatasetError(
                f"{own.partition.folder}: the frames of session {own.session} do not ascend; run "
                f"mmdata validate"
            )
        whole = int(np.searchsorted(frames, frames[-1]))
        if whole:
            yield table.slice(0, whole).combine_chunks()
        held = table.slice(whole)
    if held is not None:
        yield held.combine_chunks()


def _rising(parts: Sequence[Part], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield rows as they rise; parts of two dates whose frames interleave are read together."""
    for group in _interleaved(parts):
        if len(group) > 1:
            rows = pa.concat_tables(
                [rows for part in group for rows in _groups(part, columns)], promote_options="permissive"
            )
            yield rows.take(pa.array(np.argsort(rows["frame"].to_numpy(), kind="stable")))
            continue
        for rows in _groups(group[0], columns):
            for first in range(0, len(rows), ROWS):
                yield rows.slice(first, ROWS)


def _groups(part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
    with reading(part):
        for rows in row_groups(part, columns):
            if len(rows):
                yield rows


def _interleaved(parts: Sequence[Part]) -> list[list[Part]]:
    """Return parts in order of their frames, together where those overlap: a clock stepped over midnight."""
    spans = []
    for part in parts:
        with reading(part):
            stretches = stretches_of(part)
        first = min(stretch.first_frame for stretch in stretches)
        spans.append((first, max(stretch.last_frame for stretch in stretches), part))
    spans.sort(key=lambda span: span[:2])
    groups: list[list[Part]] = []
    reached = -1
    for first, last, part in spans:
        if groups and first <= reached:
            groups[-1].append(part)
        else:
            groups.append([part])
        reached = max(reached, last)
    return groups
