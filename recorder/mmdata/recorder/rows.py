"""Records gathered into table rows: one growing set of columns a table and symbol, exact to the digit.

Pure: nothing here touches a disk. Prices and sizes become decimals a batch at a time: the levels of books
by a kernel, all others by Arrow's cast of strings, which raises where it cannot be exact (Polars' casts
round silently). A value that does not fit `decimal(18, 8)` makes the batch wide, one that does not fit
`decimal(38, 18)` or is no number takes its whole frame into quarantine; a column with such a value stays
strings until that is decided.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.datasets.schema import NARROW, WIDE, arrow_schema, exact_columns
from mmdata.recorder.capture import REST, Line
from mmdata.recorder.levels import WireLevels, parse
from mmdata.recorder.records import Bbo, Depth, Instrument, Levels, Snapshot, Trade

Columns = dict[str, pa.Array]
_NO_LEVEL = (None, None, None)
_SIDES = pa.array(["bid", "ask"])


class Rows(ABC):
    """A growing set of rows of one table and symbol.

    What gathers is settled now and then, that is turned into columns: neither records nor the frames that
    they came from pile up until the rows are published.
    """

    table: ClassVar[str]

    def __init__(self) -> None:
        self._count = 0
        self._settled: list[Columns] = []
        self.lines: dict[int, Line] = {}
        """By frame: the settled lines of which some may have a number that no table holds."""

    def __len__(self) -> int:
        return self._count

    def settle(self, plain: Columns | None = None) -> None:
        """Turn what has gathered since the last time into columns; ``plain`` are those of other frames."""
        columns, lines = self._take()
        if columns is not None and not fits(columns, exact_columns(self.table), wide=False):
            self.lines.update((line.number, line) for line in lines)
        if plain is not None:
            self._count += len(plain["frame"])
            if columns is not None:
                columns = sorted_by_frame({name: _joined(plain[name], own) for name, own in columns.items()})
            else:
                columns = plain
        if columns is not None:
            self._settled.append(columns)

    def columns(self, session: str) -> dict[str, pa.ChunkedArray]:
        """Return all rows as columns; prices and sizes as narrow decimals, or strings where one is none."""
        self.settle()
        columns = {name: _united([own[name] for own in self._settled]) for name in self._settled[0]}
        return columns | {"session": _words(session, [len(own["frame"]) for own in self._settled])}

    @abstractmethod
    def _take(self) -> tuple[Columns | None, Sequence[Line]]:
        """Return what has gathered, without the session, and its lines; and gather anew."""


class _RecordRows(Rows):
    """Rows made of records, each with the line that it came from."""

    _fields: ClassVar[tuple[str, ...]]
    """Columns that are fields of the record."""
    _told: ClassVar[tuple[str, ...]] = ()
    """Columns that are told beside it."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[Line] = []
        self._records: list[Any] = []
        self._besides: list[tuple[Any, ...]] = []

    def _add(self, line: Line, record: object, rows: int, *told: Any) -> None:
        self._lines.append(line)
        self._records.append(record)
        if told:
            self._besides.append(told)
        self._count += rows

    def _take(self) -> tuple[Columns | None, Sequence[Line]]:
        lines = self._lines
        if not lines:
            return None, lines
        columns: dict[str, list[Any]] = {
            "frame": [line.number for line in lines],
            "ts_recv": [line.ts_recv for line in lines],
            # An answer over REST came on no connection; captures of other recorders name none.
            "conn": [None if line.kind == REST else line.conn or 0 for line in lines],
            **{name: list(map(attrgetter(name), self._records)) for name in self._fields},
            **{name: list(map(itemgetter(at), self._besides)) for at, name in enumerate(self._told)},
        }
        taken = self._spread(arrays(self.table, columns), self._records)
        self._lines, self._records, self._besides = [], [], []
        return taken, lines

    def _spread(self, columns: Columns, records: Sequence[Any]) -> Columns:
        """Return the columns of the table from those with one value a record."""
        return columns


class DepthRows(_RecordRows):
    """Messages of the stream's book channel, one row a level."""

    table = "depth"
    _fields = (
        *("ts_event", "ts_sent", "first_id", "last_id", "prev_id"),
        *("checksum", "is_snapshot"),
    )

    def add(self, line: Line, record: Depth) -> None:
        """Add a message; one without levels is one row of nulls."""
        self._add(line, record, len(record.bids) + len(record.asks) or 1)

    def _spread(self, columns: Columns, records: Sequence[Depth]) -> Columns:
        books = _Books(records)
        return books.spread(columns) | books.columns() | {"is_last": books.is_last()}


class SnapshotRows(_RecordRows):
    """Books asked for over REST, one row a level."""

    table = "snapshots"
    _fields = ("ts_event", "last_id")
    _told = ("ts_request", "reason")

    def add(self, line: Line, record: Snapshot, ts_request: int | None, reason: str) -> None:
        """Add a book; an empty one is one row of nulls."""
        self._add(line, record, len(record.bids) + len(record.asks) or 1, ts_request, reason)

    def _spread(self, columns: Columns, records: Sequence[Snapshot]) -> Columns:
        books = _Books(records)
        return books.spread(columns) | books.columns() | {"level": books.level()}


class TradeRows(_RecordRows):
    """Trades, one row each."""

    table = "trades"
    _fields = (
        *("ts_event", "ts_sent", "kind", "trade_id", "first_trade_id", "last_trade_id"),
        *("side", "price", "size", "seq", "flags"),
    )
    _told = ("origin",)

    def add(self, line: Line, record: Trade, origin: str = "stream") -> None:
        """Add a trade; ``origin`` is ``stream``, or ``backfill`` where it was asked for later."""
        self._add(line, record, 1, origin)


class BboRows(_RecordRows):
    """Best bids and asks, one row each."""

    table = "bbo"
    _fields = ("ts_event", "ts_sent", "last_id")

    def add(self, line: Line, record: Bbo) -> None:
        """Add a best bid and ask; an empty side is nulls."""
        self._add(line, record, 1)

    def _spread(self, columns: Columns, records: Sequence[Bbo]) -> Columns:
        values = {}
        for side in ("bid", "ask"):
            levels = [level or _NO_LEVEL for level in map(attrgetter(side), records)]
            for at, name in enumerate(("price", "size", "orders")):
                values[f"{side}_{name}"] = [level[at] for level in levels]
        return columns | arrays(self.table, values)


class PlainRows(Rows):
    """Rows of a table that are told column by column."""

    def __init__(self, table: str) -> None:
        super().__init__()
        self.table = table  # type: ignore[misc]
        self._names = [name for name in arrow_schema(table).names if name != "session"]
        self._rows: list[tuple[Any, ...]] = []

    def add(self, **values: Any) -> None:
        """Add a row; columns that are not named are null."""
        self._rows.append(tuple(values.get(name) for name in self._names))
        self._count += 1

    def _take(self) -> tuple[Columns | None, Sequence[Line]]:
        if not self._rows:
            return None, ()
        values = {name: [row[at] for row in self._rows] for at, name in enumerate(self._names)}
        self._rows = []
        return arrays(self.table, values), ()


class Layout:
    """The levels of messages as rows: bids in the wire's order, then asks; a message without any is a row.

    ``counts`` is how many bids and asks each message has, shape (n, 2).
    """

    def __init__(self, counts: NDArray[np.int64]) -> None:
        levels = counts.sum(axis=1)
        rows = np.maximum(levels, 1)
        self._runs: NDArray[np.int64] = np.column_stack((counts, rows - levels)).ravel()
        """Rows of bids, of asks, of neither, a message after the other."""
        self.rows: NDArray[np.int64] = rows
        """Rows of each message."""
        self._kinds = np.repeat(np.tile(np.arange(3, dtype=np.int8), len(rows)), self._runs)

    def spread(self, columns: Columns) -> Columns:
        """Return columns of one value a message with one a row."""
        message = pa.array(np.repeat(np.arange(len(self.rows)), self.rows))
        return {name: values.take(message) for name, values in columns.items()}

    def is_last(self) -> pa.Array:
        """Tell of each row whether it is the last of its message."""
        last = np.zeros(len(self._kinds), np.bool_)
        last[np.cumsum(self.rows) - 1] = True
        return pa.array(last)

    def side(self) -> pa.Array:
        """Return each row's side as numbers of two words, null where it is no level."""
        numbers = pa.array(self._kinds, pa.int32(), mask=self._kinds == 2)
        return pa.DictionaryArray.from_arrays(numbers, _SIDES)

    def level(self) -> pa.Array:
        """Return each row's place in its side, 0 the best."""
        begins = np.cumsum(self._runs) - self._runs
        place = np.arange(len(self._kinds)) - np.repeat(begins, self._runs)
        return pa.array(place, pa.int32(), mask=self._kinds == 2)

    def blanked(self, values: pa.Array) -> pa.Array:
        """Return one value a row with null for those that are no level."""
        none = self._kinds == 2
        return values.take(pa.array(np.arange(len(none)), mask=none)) if none.any() else values

    def filled(self, values: pa.Array) -> pa.Array:
        """Return one value a level with one a row: null for those that are no level."""
        none = self._kinds == 2
        return values.take(pa.array(np.cumsum(~none) - 1, mask=none)) if none.any() else values


class _Books(Layout):
    """The layout of records, with their levels."""

    def __init__(self, records: Sequence[Depth] | Sequence[Snapshot]) -> None:
        self._sides = [side for record in records for side in (record.bids, record.asks)]
        super().__init__(np.fromiter(map(len, self._sides), np.int64, len(self._sides)).reshape(-1, 2))

    def columns(self) -> Columns:
        """Return side, price, size and orders."""
        values = dict(zip(("price", "size", "orders"), _read(self._sides), strict=True))
        return {name: self.filled(array) for name, array in values.items()} | {"side": self.side()}


def _read(sides: Sequence[Levels]) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Return price, size and orders of all levels in order."""
    unparsed = [side for side in sides if isinstance(side, WireLevels)]
    wire = parse(unparsed)
    if len(unparsed) == len(sides):
        return wire
    read = [level for side in sides if not isinstance(side, WireLevels) for level in side]
    orders = pa.array([orders for _, _, orders in read], pa.int32())
    strict = (exact([price for price, _, _ in read]), exact([size for _, size, _ in read]), orders)
    is_wire = np.repeat([isinstance(side, WireLevels) for side in sides], [len(side) for side in sides])
    order = pa.array(np.where(is_wire, np.cumsum(is_wire), len(wire[0]) + np.cumsum(~is_wire)) - 1)
    price, size, orders = (_joined(*pair).take(order) for pair in zip(wire, strict, strict=True))
    return price, size, orders


def _joined(plain: pa.Array, strict: pa.Array) -> pa.Array:
    """Return both, one behind the other; as strings, exactly, where a strict value is no narrow decimal."""
    return pa.concat_arrays([plain if plain.type == strict.type else plain.cast(strict.type), strict])


def exact(values: Sequence[str | None]) -> pa.Array:
    """Return numbers as narrow decimals; as the strings that they are where one does not fit."""
    strings = pa.array(values, pa.string())
    try:
        return strings.cast(NARROW)
    except pa.ArrowInvalid:
        return strings


def instrument_row(record: Instrument, source: str) -> dict[str, Any]:
    """Return the columns of an instrument; ``source`` says who told its tick and lot."""
    return {
        "source": source,
        "status": record.status,
        "base": record.base,
        "quote": record.quote,
        "tick_size": record.tick_size,
        "lot_size": record.lot_size,
        "min_size": record.min_size,
        "min_notional": record.min_notional,
        "contract_value": record.contract_value,
        "raw": record.raw,
    }


def to_table(table: str, columns: Columns, *, wide: bool) -> pa.Table:
    """Return columns as a table of its exact schema, but for words that are numbers of words.

    ArrowInvalid: a value does not fit.
    """
    arrays, fields = [], []
    for field in arrow_schema(table, wide=wide):
        array = columns[field.name]
        is_coded = pa.types.is_dictionary(array.type) and array.type.value_type == field.type
        arrays.append(array if is_coded or array.type == field.type else array.cast(field.type))
        fields.append(field.with_type(arrays[-1].type))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def fits(columns: Columns, names: Sequence[str], *, wide: bool) -> bool:
    """Tell whether every value of the named columns is a decimal of that width."""
    return all(_fits(columns[name], WIDE if wide else NARROW) for name in names)


def _fits(values: pa.Array, kind: pa.DataType) -> bool:
    if values.type == NARROW:
        return True  # a narrow decimal is a wide one, too
    try:
        values.cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def misfits(table: str, columns: Columns, *, wide: bool) -> dict[int, str]:
    """Return the frames with a value that no decimal of that width holds, a sentence on the first each."""
    found: dict[int, str] = {}
    kind = WIDE if wide else NARROW
    for name in exact_columns(table):
        values = columns[name]
        for row in _misfits(values, kind):
            try:
                values.slice(row, 1).cast(kind)
            except pa.ArrowInvalid as error:
                frame = columns["frame"][row].as_py()
                value = values[row].as_py()
                found.setdefault(frame, f"{name} {value!r} of {table} does not fit {kind}: {error}")
    return found


def first_misfit(table: str, columns: Columns, *, wide: bool) -> int | None:
    """Return the first frame with a value that no decimal of that width holds; None: all fit."""
    kind = WIDE if wide else NARROW
    rows = (next(_misfits(columns[name], kind), None) for name in exact_columns(table))
    return min((int(columns["frame"][row].as_py()) for row in rows if row is not None), default=None)


def _misfits(values: pa.Array, kind: pa.DataType, begin: int = 0) -> Iterator[int]:
    """Yield the rows whose value does not fit, by halving: few of them are found in a few casts."""
    if _fits(values, kind):
        return
    if len(values) == 1:
        yield begin
        return
    half = len(values) // 2
    yield from _misfits(values.slice(0, half), kind, begin)
    yield from _misfits(values.slice(half), kind, begin + half)


def sorted_by_frame(columns: Columns) -> Columns:
    """Return columns in the order of their frames; rows of one frame keep theirs."""
    order = pa.array(np.argsort(columns["frame"].to_numpy(), kind="stable"))
    return {name: array.take(order) for name, array in columns.items()}


def without_frames(columns: Columns, frames: Sequence[int]) -> Columns:
    """Return columns without the rows of some frames."""
    keep = pc.invert(pc.is_in(columns["frame"], value_set=pa.array(frames, pa.int64())))
    return {name: array.filter(keep) for name, array in columns.items()}


def arrays(table: str, values: dict[str, list[Any]]) -> Columns:
    """Return columns of values as the table has them; a column of always wide decimals stays strings."""
    schema = arrow_schema(table)
    found = {}
    for name, own in values.items():
        if name in exact_columns(table):
            found[name] = exact(own)
        elif name in schema.names:
            kind = schema.field(name).type
            found[name] = pa.array(own, pa.string() if pa.types.is_decimal(kind) else kind)
    return found


def _united(arrays: Sequence[pa.Array]) -> pa.ChunkedArray:
    """Return arrays one behind the other: as strings, exactly, where one of them has no narrow decimals."""
    kinds = {array.type for array in arrays}
    if len(kinds) > 1:
        return pa.chunked_array([array.cast(pa.string()) for array in arrays])
    return pa.chunked_array(arrays)


def _words(word: str, counts: Sequence[int]) -> pa.ChunkedArray:
    """Return a word over and over, the same memory for each chunk."""
    words = pa.repeat(word, max(counts))
    return pa.chunked_array([words.slice(0, count) for count in counts])
