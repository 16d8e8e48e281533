"""From rows of a file to columns of integers, and what can be said of each row by itself.

Prices and sizes are counted in the smallest unit that holds them (`Units`), not in ticks: a value off the
tick is something to be found here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.datasets._kernel import ASK, BID, NO_PRICE
from mmdata.datasets.chain import NO_ID
from mmdata.datasets.decimals import in_units
from mmdata.datasets.errors import DatasetError
from mmdata.datasets.grid import DERIVED, LOT, TICK, USER, Instrument, Step
from mmdata.datasets.layout import date_name
from mmdata.datasets.market import FRAME_BITS, NO_TIME
from mmdata.datasets.schema import NARROW
from mmdata.datasets.times import to_ns
from mmdata.datasets.validation._kernels import copy_whole, is_orderly, read_only
from mmdata.datasets.validation.findings import Findings, Place
from mmdata.datasets.validation.report import Severity
from mmdata.datasets.validation.streams import Batch, Columns

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

NARROW_UNIT = Decimal(1).scaleb(-8)
DAY_NS = 86_400_000_000_000
FRAME_MASK = (1 << FRAME_BITS) - 1

KEYS = ("session", "frame", "ts_recv")
READ = {
    "depth": (
        *(*KEYS, "ts_event", "ts_sent", "first_id", "last_id", "prev_id", "conn", "side", "price", "size"),
        *("orders", "checksum", "is_snapshot", "is_last"),
    ),
    "snapshots": (*(*KEYS, "ts_request", "ts_event", "last_id", "side", "level", "price", "size", "reason"),),
    "trades": (
        *(*KEYS, "ts_event", "ts_sent", "conn", "kind", "origin", "trade_id", "first_trade_id"),
        *("last_trade_id", "side", "price", "size", "seq", "flags"),
    ),
    "bbo": (
        *(*KEYS, "ts_event", "ts_sent", "conn", "last_id", "bid_price", "bid_size", "bid_orders"),
        *("ask_price", "ask_size", "ask_orders"),
    ),
}
"""All columns of each table: what nobody looks at is decoded too, so that a damaged page is found."""

KINDS = ("trade", "agg", "block")
REASONS = ("start", "gap", "audit")
_BOOK_SIDES = ("bid", "ask")
_KNOWN: dict[str, dict[str, tuple[str, ...]]] = {
    "depth": {"side": _BOOK_SIDES},
    "snapshots": {"side": _BOOK_SIDES, "reason": REASONS},
    "trades": {"side": ("buy", "sell"), "kind": KINDS, "origin": ("stream", "backfill")},
}


@dataclass(frozen=True, slots=True)
class Units:
    """The units in which prices and sizes are counted."""

    price: Decimal = NARROW_UNIT
    size: Decimal = NARROW_UNIT


@dataclass(frozen=True, slots=True)
class Grid:
    """Tick and lot in force, by place in the order of everything; in `Units`."""

    order: Ints
    """From where on; the first holds for what lies before it, too."""
    tick: Ints
    lot: Ints

    def at(self, order: Ints, of: Step) -> Ints | int:
        """Return tick or lot for each place; one number where it is the same for all. 0: not known."""
        if not len(self.order):
            return 0
        steps = self.tick if of == TICK else self.lot
        if (steps == steps[0]).all():
            return int(steps[0])
        return steps[np.maximum(np.searchsorted(self.order, order, side="right") - 1, 0)]


def grid_of(told: Sequence[Instrument], units: Units) -> Grid:
    """Return what is in force: in each session the user's word, else the venue's, else what was derived.

    A session's first word holds from its begin: an import knows tick and lot only at its end.
    """
    by_session: dict[int, list[Instrument]] = {}
    for row in told:
        by_session.setdefault(row.session, []).append(row)
    places, ticks, lots = [], [], []
    for session, rows in sorted(by_session.items()):
        best = min((USER, "venue", DERIVED).index(row.source) for row in rows)
        chosen = [row for row in rows if (USER, "venue", DERIVED).index(row.source) == best]
        for at, row in enumerate(chosen):
            places.append(session << FRAME_BITS if at == 0 else row.order)
            ticks.append(int(row.tick_size / units.price))
            lots.append(int(row.lot_size / units.size))
    return Grid(np.array(places, np.int64), np.array(ticks, np.int64), np.array(lots, np.int64))


def numbers(column: pa.Array, null: int) -> Ints:
    """Return integers or times as int64, ``null`` where there is none."""
    if column.null_count == len(column):
        return np.full(len(column), null)
    if not pa.types.is_int64(column.type):
        column = column.view(pa.int64()) if pa.types.is_timestamp(column.type) else column.cast(pa.int64())
    if column.null_count:
        column = pc.fill_null(column, null)
    return np.asarray(column.to_numpy(zero_copy_only=False), np.int64)


def codes(column: pa.Array, words: Sequence[str]) -> NDArray[np.int8]:
    """Return the place of each word in ``words``, -1 for null and for others."""
    if pa.types.is_dictionary(column.type):
        known = {word: at for at, word in enumerate(words)}
        mapped = np.array([*(known.get(word, -1) for word in column.dictionary.to_pylist()), -1], np.int8)
        indices = column.indices
        indices = pc.fill_null(indices, -1) if indices.null_count else indices
        return np.asarray(mapped[indices.to_numpy(zero_copy_only=False)])
    return codes(column.dictionary_encode(), words)


def exact(column: pa.Array, unit: Decimal, null: int) -> Ints:
    """Return decimals as whole multiples of ``unit``, ``null`` for null. DatasetError: one does not fit.

    Where there is nothing to compute they are a view of the column: every second word of it.
    """
    if column.type == NARROW and unit == NARROW_UNIT:
        words = np.frombuffer(column.buffers()[1], np.int64)
        values = words[2 * column.offset : 2 * (column.offset + len(column)) : 2]
        if not column.null_count:
            return values
        return np.where(np.asarray(column.is_valid()), values, null)
    whole = np.full(len(column), null, np.int64)
    found, _ = in_units(pa.chunked_array([column]), unit)
    try:
        whole[np.asarray(column.is_valid())] = found.astype(np.int64)
    except OverflowError as error:
        raise DatasetError(
            f"a value of {max(abs(value) for value in found)} units of {unit} does not fit 64 bits; the "
            f"validator counts in whole units"
        ) from error
    return whole


@dataclass
class Decoder:
    """Turns the batches of one table and symbol into columns; what is wrong with a row becomes a finding."""

    table: str
    ranks: dict[str, int]
    units: Units
    grid: Grid
    findings: Findings
    _noted: deque[int] = field(default_factory=deque)
    """Places at which something damaged was left out; a row may be decoded while they are asked for."""
    _breaks: list[int] = field(default_factory=list)
    """Those that were asked for too early."""
    _ends: dict[tuple[str, int], int] = field(default_factory=dict)

    def __call__(self, batch: Batch) -> Columns:
        """Decode a batch; its rows come back in the order of their frames."""
        columns = self._decoded(batch)
        if self._is_sound(columns, batch):
            self._ends[_key(batch)] = int(columns["order"][-1])
        else:
            columns = self._checked(columns, batch)
        del columns["session"], columns["strange"]
        if batch.piece.broken_before and batch.first_row == batch.piece.offset and len(columns["order"]):
            self._noted.append(int(columns["order"][0]))
        is_end = batch.first_row + batch.rows.num_rows == batch.piece.offset + batch.piece.rows
        if batch.piece.broken_after and is_end and len(columns["order"]):
            self._noted.append(int(columns["order"][-1]) + 1)
        return columns

    def breaks_before(self, horizon: int) -> list[int]:
        """Take the places, before ``horizon``, at which something damaged was left out; in order."""
        while self._noted:
            self._breaks.append(self._noted.popleft())
        due = sorted(place for place in self._breaks if place < horizon)
        self._breaks = [place for place in self._breaks if place >= horizon]
        return due

    def _decoded(self, batch: Batch) -> Columns:
        rows = batch.rows
        ranks = codes_of_sessions(rows.column("session"), self.ranks)
        order = (ranks << FRAME_BITS) | numbers(rows.column("frame"), 0)
        return {
            "session": np.broadcast_to(ranks, order.shape),
            "order": order,
            "ts_recv": numbers(rows.column("ts_recv"), NO_TIME),
            "ts_event": numbers(rows.column("ts_event"), NO_TIME),
            **_VALUES[self.table](rows, self.units),
            "strange": strange_words(rows, self.table),
        }

    def _is_sound(self, columns: Columns, batch: Batch) -> bool:
        """Put prices and sizes into arrays of their own; tell, at that, whether all checks find nothing.

        False may be said of sound rows, too: where the tick changes, a value is beyond 53 bits, or the
        sessions of a file do not follow one another.
        """
        order, begin = columns["order"], to_ns(batch.piece.partition.date)
        own = [self.ranks[name] for name in batch.piece.sessions]
        first = max(self._ends.get(_key(batch), -1), own[0] << FRAME_BITS | batch.piece.after + 1)
        is_sound = (
            is_orderly(first, begin, begin + DAY_NS, *read_only(order, columns["ts_recv"]))
            and own == [*range(own[0], own[0] + len(own))]
            and order[-1] >> FRAME_BITS <= own[-1]
            and not columns["strange"].any()
        )
        tick, lot = (self.grid.at(order, of) for of in (TICK, LOT))
        for price, size in self._pairs:
            for name, step, least, missing in ((price, tick, 1, NO_PRICE), (size, lot, 0, 0)):
                values = np.empty(len(order), np.int64)
                unit = step if isinstance(step, int) and step else 1
                is_fine = copy_whole(columns[name], unit, least, missing, values)
                columns[name] = values
                is_sound = is_sound and is_fine and isinstance(step, int)
        return is_sound

    @property
    def _pairs(self) -> tuple[tuple[str, str], ...]:
        """Names of columns of prices, and those of the sizes there."""
        return (
            (("bid_price", "bid_size"), ("ask_price", "ask_size"))
            if self.table == "bbo"
            else (("price", "size"),)
        )

    def _checked(self, columns: Columns, batch: Batch) -> Columns:
        """Make findings of what is wrong; return the rows that are left, in order."""
        columns["row"] = np.arange(batch.first_row, batch.first_row + batch.rows.num_rows)
        columns = self._own(columns, batch)
        columns = self._known(columns, batch)
        columns = self._in_order(columns, batch)
        self._check_date(columns, batch)
        self._check_values(columns, batch)
        del columns["row"]
        return columns

    def _tell(
        self,
        severity: Severity,
        check: str,
        what: str,
        columns: Columns,
        at: int,
        batch: Batch,
        count: int = 1,
    ) -> None:
        order = int(columns["order"][at])
        names = {rank: name for name, rank in self.ranks.items()}
        id_column = columns.get("last_id", columns.get("trade_id"))
        place = Place(
            names.get(order >> FRAME_BITS),
            order & FRAME_MASK,
            None if id_column is None else int(id_column[at]),
            int(columns["ts_recv"][at]),
            str(batch.piece.path),
            int(columns["row"][at]),
        )
        sentence = f"{batch.piece.path}, row {place.row}: {what}"
        self.findings.of(batch.piece.partition.date).add(
            severity, check, sentence, place, count=count, table=self.table
        )

    def _own(self, columns: Columns, batch: Batch) -> Columns:
        """Leave out rows of sessions that the file is not of, and rows that are there already."""
        session = columns["session"]
        expected = [self.ranks[name] for name in batch.piece.sessions]
        strange = (
            session != expected[0] if len(expected) == 1 else ~np.isin(session, np.array(expected, np.int64))
        )
        kept = np.ones(len(session), np.bool_)
        if strange.any():
            at = int(np.flatnonzero(strange)[0])
            columns["order"][strange] = expected[0] << FRAME_BITS
            self._tell(
                "error",
                "partition",
                f"{int(strange.sum())} rows are of a session that the file is not of, by its name; they are "
                f"left out",
                columns,
                at,
                batch,
                int(strange.sum()),
            )
            kept &= ~strange
            self._break_behind([at], kept, columns["order"], batch)
        if batch.piece.after >= 0:
            kept &= (columns["order"].astype(np.int64) & FRAME_MASK) > batch.piece.after
        return columns if kept.all() else {name: column[kept] for name, column in columns.items()}

    def _known(self, columns: Columns, batch: Batch) -> Columns:
        """Leave out rows with a word that the schema does not know."""
        strange = columns["strange"]
        if not strange.any():
            return columns
        left_out = np.flatnonzero(strange).tolist()
        for at in left_out:
            self._tell(
                "error",
                "schema",
                "has a word that the schema does not know, as its side, kind, origin or reason; it is left "
                "out",
                columns,
                at,
                batch,
            )
        if self.table == "trades":
            self._break_behind(left_out, ~strange, columns["order"], batch)
        return {name: column[~strange] for name, column in columns.items()}

    def _break_behind(self, left_out: Sequence[int], kept: Flags, order: Ints, batch: Batch) -> None:
        """Note that nothing goes on over rows that are left out: at the next kept row, or behind the last."""
        rows = np.flatnonzero(kept)
        end = int(order[rows[-1]]) if rows.size else self._ends.get(_key(batch), -1)
        places = [*order[rows].tolist(), end + 1]
        self._noted += [places[at] for at in np.searchsorted(rows, left_out).tolist()]

    def _in_order(self, columns: Columns, batch: Batch) -> Columns:
        order = columns["order"]
        if not len(order):
            return columns
        key = _key(batch)
        before = np.concatenate(([self._ends.get(key, -1)], order[:-1]))
        back = np.flatnonzero(order < before)
        self._ends[key] = int(order.max())
        for at in back.tolist():
            self._tell(
                "error",
                "order",
                f"its frame {int(order[at]) & FRAME_MASK} is below that of the row before it: the order of "
                f"arrival is lost there",
                columns,
                at,
                batch,
            )
        if back.size:
            rank = np.argsort(order, kind="stable")
            columns = {name: column[rank] for name, column in columns.items()}
        return columns

    def _check_date(self, columns: Columns, batch: Batch) -> None:
        """Tell rows of another date than their folder's; they lose their times, which would mislead."""
        times = columns["ts_recv"]
        begin = to_ns(batch.piece.partition.date)
        other = (times < begin) | (times >= begin + DAY_NS)
        if not other.any():
            return
        times, events = times.copy(), columns["ts_event"].copy()
        columns["ts_recv"], columns["ts_event"] = times, events
        edges = np.flatnonzero(np.diff(np.concatenate(([0], other.astype(np.int8), [0]))))
        for first, end in edges.reshape(-1, 2).tolist():
            self._tell(
                "error",
                "partition",
                f"{end - first} rows from here on are of {date_name(int(times[first]))}, expected "
                f"{batch.piece.partition.date}: who reads by date misses them",
                columns,
                first,
                batch,
                end - first,
            )
            times[first:end] = NO_TIME
            events[first:end] = NO_TIME

    def _check_values(self, columns: Columns, batch: Batch) -> None:
        tick, lot = (self.grid.at(columns["order"], of) for of in (TICK, LOT))
        for price_name, size_name in self._pairs:
            price, size = columns[price_name], columns[size_name]
            is_there = price != NO_PRICE
            wrong: tuple[tuple[Severity, str, str, str, Flags], ...] = (
                (
                    "error",
                    "price",
                    price_name,
                    "is not above zero: no order can have it",
                    is_there & (price <= 0),
                ),
                ("error", "size", size_name, "is below zero: no book or trade can have it", size < 0),
                ("error", "tick", price_name, "is off the tick", _off(price, tick) & is_there & (price > 0)),
                ("warning", "lot", size_name, "is off the lot", _off(size, lot)),
            )
            for severity, check, name, what, found in wrong:
                for at in np.flatnonzero(found).tolist() if found.any() else ():
                    unit = self.units.price if name.endswith("price") else self.units.size
                    step = tick if check == "tick" else lot if check == "lot" else 0
                    step = int(step[at]) if isinstance(step, np.ndarray) else step
                    of = f" of {step * unit:f}" if step else ""
                    value = f"{int(columns[name][at]) * unit:f}"
                    self._tell(severity, check, f"{name} {value} {what}{of}", columns, at, batch)
            if (size < 0).any():
                columns[size_name] = np.abs(size)


def _key(batch: Batch) -> tuple[str, int]:
    return str(batch.piece.path), batch.piece.offset


def _off(values: NDArray[np.generic], step: Ints | int) -> Flags:
    if isinstance(step, int) and step in (0, 1):
        return np.zeros(len(values), np.bool_)
    return np.asarray(values.astype(np.int64, copy=False) % step != 0)


def codes_of_sessions(column: pa.Array, ranks: dict[str, int]) -> Ints:
    """Return the rank of each row's session, or of all of them in an array of one.

    A session that is not known gets a rank beyond all.
    """
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    mapped = np.array([ranks.get(name, len(ranks)) for name in column.dictionary.to_pylist()], np.int64)
    if len(mapped) == 1 and not column.null_count:
        return mapped
    return np.asarray(mapped[column.indices.to_numpy(zero_copy_only=False)])


def strange_words(rows: pa.RecordBatch, table: str) -> Flags:
    """Return the rows with a word that none of the table's columns of words can have."""
    strange = np.zeros(rows.num_rows, np.bool_)
    for name, words in _KNOWN.get(table, {}).items():
        column = rows.column(name)
        if pa.types.is_dictionary(column.type) and {*column.dictionary.to_pylist()} <= {*words}:
            continue
        plain, known = column.cast(pa.string()), pa.array(words, pa.string())
        strange |= np.asarray(pc.and_(pc.invert(pc.is_in(plain, known)), pc.is_valid(plain)))
    return strange


def _depth(rows: pa.RecordBatch, units: Units) -> Columns:
    return {
        **{
            name: numbers(rows.column(name), NO_ID) for name in ("first_id", "last_id", "prev_id", "checksum")
        },
        "conn": numbers(rows.column("conn"), 0),
        "side": codes(rows.column("side"), ("bid", "ask")),
        "price": exact(rows.column("price"), units.price, NO_PRICE),
        "size": exact(rows.column("size"), units.size, 0),
        "is_snapshot": np.asarray(rows.column("is_snapshot")),
        "is_last": np.asarray(rows.column("is_last")),
    }


def _snapshots(rows: pa.RecordBatch, units: Units) -> Columns:
    return {
        "last_id": numbers(rows.column("last_id"), NO_ID),
        "level": numbers(rows.column("level"), -1),
        "side": codes(rows.column("side"), ("bid", "ask")),
        "price": exact(rows.column("price"), units.price, NO_PRICE),
        "size": exact(rows.column("size"), units.size, 0),
        "reason": codes(rows.column("reason"), REASONS),
    }


def _trades(rows: pa.RecordBatch, units: Units) -> Columns:
    return {
        **{
            name: numbers(rows.column(name), NO_ID)
            for name in ("trade_id", "first_trade_id", "last_trade_id")
        },
        "kind": codes(rows.column("kind"), KINDS),
        "is_backfill": codes(rows.column("origin"), ("stream", "backfill")) == 1,
        "price": exact(rows.column("price"), units.price, NO_PRICE),
        "size": exact(rows.column("size"), units.size, 0),
    }


def _bbo(rows: pa.RecordBatch, units: Units) -> Columns:
    return {
        "last_id": numbers(rows.column("last_id"), NO_ID),
        **{f"{side}_price": exact(rows.column(f"{side}_price"), units.price, NO_PRICE) for side in _SIDES},
        **{f"{side}_size": exact(rows.column(f"{side}_size"), units.size, 0) for side in _SIDES},
    }


_SIDES = {"bid": BID, "ask": ASK}
_VALUES: dict[str, Callable[[pa.RecordBatch, Units], Columns]] = {
    "depth": _depth,
    "snapshots": _snapshots,
    "trades": _trades,
    "bbo": _bbo,
}


def no_rows(table: str, units: Units) -> Columns:
    """Return the columns of a table without rows."""
    from mmdata.datasets.schema import arrow_schema

    empty = arrow_schema(table).empty_table().combine_chunks().to_batches()
    rows = empty[0] if empty else pa.RecordBatch.from_pylist([], arrow_schema(table))
    columns: Columns = {name: np.empty(0, np.int64) for name in ("order", "ts_recv", "ts_event")}
    return columns | _VALUES[table](rows, units)
