"""One symbol's book messages as a stream of batches: what `load_market` holds at once, in bounded memory.

A range of time is read from the last moment before it from which the book follows: a recorded gap, else
the start of a session whose messages do not continue the book of the session before it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.datasets._kernel import PENDING, SNAPSHOT, Columns
from mmdata.datasets.book import Book
from mmdata.datasets.chain import BREAKS, NO_ID, ChainRule, classify
from mmdata.datasets.decimals import common_divisor
from mmdata.datasets.errors import DatasetError, ReplacedError
from mmdata.datasets.grid import LOT, TICK, Instrument, Step, Unit, find_unit
from mmdata.datasets.layout import Part, date_name, list_parts
from mmdata.datasets.market import (
    DEPTH,
    EVENTS,
    FRAME_BITS,
    Grid,
    chain_of,
    cut_columns,
    first_late,
    ids,
    is_gap,
    messages,
    nothing_of,
    places,
    read_instruments,
    read_part,
    read_rows,
    read_snapshots,
    session_order,
    times,
)
from mmdata.datasets.schema import NARROW
from mmdata.datasets.stores import Place
from mmdata.datasets.stretches import row_groups, stretches_of

Ints = NDArray[np.int64]
BATCH_ROWS = 1 << 18
"""Rows of the table depth that are taken at once; a frame is never cut."""
_HEADS = [name for name in DEPTH if name not in ("side", "price", "size")]
_GAPS = [*EVENTS, "last_id"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one session, in order; as in `Market`."""

    columns: Columns
    order: Ints
    ts_recv: Ints
    ts_event: Ints
    more: bool = False
    """The message after its last one was received at the end that was asked for."""


@dataclass(frozen=True, slots=True)
class Messages:
    """The book messages of a symbol, to be streamed."""

    chain: ChainRule
    sessions: tuple[str, ...]
    grid: Grid | None
    """The units of prices and sizes; None: heads alone."""
    step: int
    """What was told that prices are multiples of, in the unit of prices; 0 where nothing was."""
    wide: bool
    gaps: pa.Table
    """Recorded holes in the book: columns of `events`, in order, with `place`."""
    snapshots: pa.Table
    parts: dict[str, list[Part]]
    """Of the table depth, by session."""
    origin: int
    """Frame of the first session from which its rows are read."""
    end: int | None

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches up to the first message that was received at ``end``.

        DatasetError: a file is damaged. ReplacedError: its day was compacted meanwhile; begin again.
        """
        for at, session in enumerate(self.sessions):
            done = (at << FRAME_BITS) | (self.origin if at == 0 else 0)
            begins: Sequence[int] = (at,)
            columns = _HEADS if self.grid is None else DEPTH
            for depth, until in _whole_frames(self.parts.get(session, []), columns, at, self.origin):
                yielded = self._batch(depth, begins, done, until)
                done, begins = until, ()
                if self.end is not None:
                    late = first_late(yielded.ts_recv, self.end)
                    if late < len(yielded.ts_recv):
                        yield _slice(yielded, 0, late, more=True)
                        return
                yield yielded

    def _batch(self, depth: pa.Table, begins: Sequence[int], since: int, until: int) -> Batch:
        snapshots, gaps = (_between(table, since, until) for table in (self.snapshots, self.gaps))
        return Batch(*messages(depth, snapshots, gaps, self.sessions, begins, self.grid))


def open_messages(
    root: Place,
    exchange: str,
    symbol: str,
    *,
    start: int | None = None,
    end: int | None = None,
    levels: bool = True,
) -> Messages:
    """Find the book messages of ``symbol`` received in ``[start, end)`` (ns), and those that lead there.

    Without ``levels`` messages are heads: what chains need. UsageError: the dataset has nothing of the
    symbol. DatasetError: a file is damaged.
    """
    chain = chain_of(exchange)
    last_date = "9999" if end is None else date_name(end - 1)
    tables = {
        table: [
            part
            for part in list_parts(root, table, exchange=exchange, symbol=symbol)
            if part.partition.date <= last_date
        ]
        for table in ("depth", "snapshots", "events")
    }
    if not tables["depth"] and not list_parts(root, "depth", exchange=exchange, symbol=symbol):
        raise nothing_of(root, exchange, symbol, "no depth")
    sessions = session_order(tables)
    depth = {name: [part for part in tables["depth"] if part.session == name] for name in sessions}
    first, frame = (0, 0) if start is None else _origin(sessions, tables, depth, chain, start)
    sessions = sessions[first:]
    kept = {table: [part for part in parts if part.session in sessions] for table, parts in tables.items()}
    wide = any(part.partition.wide for table in ("depth", "snapshots") for part in kept[table])
    grid, step = None, 0
    if levels:
        told = read_instruments(list_parts(root, "instruments", exchange=exchange, symbol=symbol))
        grid = common_grid(kept["depth"] + kept["snapshots"], told) if wide else _NARROW_GRID
        step = _step(told, grid)
    return Messages(
        chain=chain,
        sessions=tuple(sessions),
        grid=grid,
        step=step,
        wide=wide,
        gaps=_placed(_depth_gaps(kept["events"]), sessions),
        snapshots=_placed(read_snapshots(kept["snapshots"]), sessions),
        parts={name: depth[name] for name in sessions},
        origin=frame,
        end=end,
    )


class Feed:
    """A book that takes batches: messages that wait for a snapshot are carried from one to the next."""

    def __init__(self, messages: Messages) -> None:
        self._carried: Batch | None = None
        self._chain, self._step = messages.chain, messages.step
        self.book: Book | None = None

    def take(self, batch: Batch) -> tuple[Batch, int]:
        """Return the messages that the book needs, and the first of them that is new."""
        before, kept = self._carried, 0
        if before is not None and self.book is not None:
            waiting = [int(self.book.state[at]) for at in (PENDING, SNAPSHOT) if self.book.state[at] >= 0]
            begin = min(waiting, default=len(before.order))
            for at in (PENDING, SNAPSHOT):
                if self.book.state[at] >= 0:
                    self.book.state[at] -= begin
            kept = len(before.order) - begin
            tail = _slice(before, begin, len(before.order), more=False)
            batch = _joined(tail, batch) if kept else batch
        self._carried = batch
        if self.book is None:
            self.book = Book(batch.columns, self._chain, unit=self._step)
        return batch, kept


def _origin(
    sessions: Sequence[str],
    tables: dict[str, list[Part]],
    depth: dict[str, list[Part]],
    chain: ChainRule,
    start: int,
) -> tuple[int, int]:
    """Return the position of a session and the place in it, counted from it as the first, to read from."""
    if not sessions:
        return 0, 0
    date = date_name(start)
    reaching = {part.session for part in tables["depth"] if part.partition.date >= date}
    at = next((at for at, name in enumerate(sessions) if name in reaching), len(sessions) - 1)
    before: int | None = start
    while at > 0 or before is not None:
        own = [part for part in tables["events"] if part.session == sessions[at]]
        gaps = _depth_gaps(own)
        frames, when = gaps["frame"].to_numpy(), times(gaps["ts_recv"])
        frames = frames if before is None else frames[when < before]
        if len(frames):
            return at, int(frames.max())
        if at == 0 or not _may_continue(tables, depth, chain, sessions[at - 1], sessions[at]):
            break
        at, before = at - 1, None
    return at, 0


def _may_continue(
    tables: dict[str, list[Part]], depth: dict[str, list[Part]], chain: ChainRule, before: str, session: str
) -> bool:
    """Tell whether the first message of ``session`` can continue the book that ``before`` ended with."""
    if not depth[before] or not depth[session]:
        return False
    head = next(row_groups(depth[session][0], _HEADS)).slice(0, 1)
    snapshots = read_snapshots([part for part in tables["snapshots"] if part.session == session])
    if head["is_snapshot"][0].as_py() or (
        len(snapshots) and pc.min(snapshots["frame"]).as_py() < head["frame"][0].as_py()
    ):
        return False
    *_, tail = row_groups(depth[before][-1], ["last_id"])
    book_id = int(ids(tail["last_id"])[-1])
    first, last, prev = (int(ids(head[name])[0]) for name in ("first_id", "last_id", "prev_id"))
    if NO_ID in (book_id, last):
        return False
    return classify(chain.rule, book_id, first, last, prev) != BREAKS


def _depth_gaps(parts: Sequence[Part]) -> pa.Table:
    events = read_rows("events", parts, _GAPS)
    return events.filter(pc.and_(is_gap(events), pc.equal(events["channel"], "depth")))


def _placed(table: pa.Table, sessions: Sequence[str]) -> pa.Table:
    """Add the place of each row, and put rows in its order."""
    place = places(table, sessions)
    rank = np.argsort(place, kind="stable")
    return table.take(pa.array(rank)).append_column("place", pa.array(place[rank], pa.int64()))


def _between(table: pa.Table, since: int, until: int) -> pa.Table:
    low, high = np.searchsorted(table["place"].to_numpy(), (since, until))
    return table.slice(int(low), int(high - low))


def _whole_frames(
    parts: Sequence[Part], columns: Sequence[str], session: int, origin: int
) -> Iterator[tuple[pa.Table, int]]:
    """Yield the rows of a session in order, in batches, each with the place before which it ends.

    The last one has all that is left, and may be empty: snapshots and holes come with it.
    """
    end = (session + 1) << FRAME_BITS
    gathered: list[pa.Table] = []
    for rows in _ordered_rows(parts, columns, origin if session == 0 else 0):
        gathered.append(rows)
        if sum(table.num_rows for table in gathered) < BATCH_ROWS:
            continue
        table = pa.concat_tables(gathered, promote_options="permissive").combine_chunks()
        frames = table["frame"].to_numpy()
        cut = int(np.searchsorted(frames, frames[-1]))
        if cut:
            yield table.slice(0, cut), (session << FRAME_BITS) | int(frames[-1])
        gathered = [table.slice(cut)]
    if gathered:
        yield pa.concat_tables(gathered, promote_options="permissive").combine_chunks(), end
    else:
        yield read_rows("depth", [], columns), end


def _ordered_rows(parts: Sequence[Part], columns: Sequence[str], first_frame: int) -> Iterator[pa.Table]:
    """Yield the rows of a session from a frame on, at most BATCH_ROWS at once.

    Lines that were ingested late are parts of their own, of frames between those of others: such parts
    are read together.
    """
    for cluster in _clusters(parts, first_frame):
        if len(cluster) == 1:
            for rows in _row_groups(cluster[0], columns):
                for at in range(0, rows.num_rows, BATCH_ROWS):
                    yield _from_frame(rows.slice(at, BATCH_ROWS), first_frame)
            continue
        table = read_rows("depth", cluster, columns)
        rank = np.argsort(table["frame"].to_numpy(), kind="stable")
        yield _from_frame(table.take(pa.array(rank)), first_frame)


def _clusters(parts: Sequence[Part], first_frame: int) -> list[list[Part]]:
    if len(parts) == 1:
        return [[*parts]]
    spans = []
    for part in parts:
        try:
            known = stretches_of(part)
        except FileNotFoundError as error:
            raise ReplacedError(f"{part.path}: was replaced since it was listed; read again") from error
        first, last = min(own.first_frame for own in known), max(own.last_frame for own in known)
        if last >= first_frame:
            spans.append((first, last, part))
    spans.sort(key=lambda span: span[:2])
    clusters: list[list[Part]] = []
    reached = -1
    for first, last, part in spans:
        if clusters and first <= reached:
            clusters[-1].append(part)
        else:
            clusters.append([part])
        reached = max(reached, last)
    return clusters


def _row_groups(part: Part, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield a part's rows, with the errors of `read_part`."""
    try:
        yield from row_groups(part, columns)
    except (FileNotFoundError, KeyError, pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        read_part(part, columns)  # says what is wrong
        raise DatasetError(f"{part.path}: could not be read ({error}), and now it can: read again") from error


def _from_frame(rows: pa.Table, first: int) -> pa.Table:
    return rows if first == 0 else rows.filter(pc.greater_equal(rows["frame"], first))


def _step(told: Sequence[Instrument], grid: Grid) -> int:
    """Return the tick in units of ``grid``, of several their common one; 0: nothing was told, or it is finer.

    Decimal places are no ticks: a book that knows the tick finds its levels by their price.
    """
    ticks = [row.tick_size for row in told]
    if not ticks:
        return 0
    steps, rest = divmod(functools.reduce(common_divisor, ticks), grid.tick.size)
    return 0 if rest else int(steps)


_NARROW_GRID = Grid(*[Unit(Decimal(1).scaleb(-NARROW.scale), "schema")] * 2)


def common_grid(parts: Sequence[Part], told: Sequence[Instrument]) -> Grid:
    """Return units in which all prices and sizes of ``parts`` are whole; what was told of them, if it holds.

    For wide parts: counts of their last decimal place would not fit 64 bits.
    """
    units: dict[Step, Decimal] = {}
    of: Step
    for part in parts:
        for rows in _row_groups(part, ["price", "size"]):
            for of, column in ((TICK, rows["price"]), (LOT, rows["size"])):
                if column.null_count < len(column):
                    unit = find_unit(of, told, [column]).size
                    units[of] = common_divisor(units[of], unit) if of in units else unit
    return Grid(*(Unit(units.get(of, Decimal(1)), "derived") for of in (TICK, LOT)))


def _slice(batch: Batch, begin: int, end: int, *, more: bool) -> Batch:
    own = slice(begin, end)
    columns = cut_columns(batch.columns, begin, end)
    return Batch(columns, batch.order[own], batch.ts_recv[own], batch.ts_event[own], more)


def _joined(before: Batch, after: Batch) -> Batch:
    start = np.concatenate((before.columns.start, after.columns.start[1:] + before.columns.start[-1]))
    joined = {
        name: np.concatenate((getattr(before.columns, name), getattr(after.columns, name)))
        for name in Columns._fields
        if name != "start"
    }
    return Batch(
        Columns(start=start, **joined),
        np.concatenate((before.order, after.order)),
        np.concatenate((before.ts_recv, after.ts_recv)),
        np.concatenate((before.ts_event, after.ts_event)),
        after.more,
    )
