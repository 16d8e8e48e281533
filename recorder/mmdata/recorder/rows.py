"""Records gathered into table rows: one growing set of columns a table and symbol, exact to the digit.

Pure: nothing here touches a disk. Prices and sizes become decimals a batch at a time: the levels of books
by a kernel, all others by Arrow's cast of strings, which raises where it cannot be exact (Polars' casts
round silently). A value that does not fit `decimal(18, 8)` makes the batch wide, one that does not fit
`decimal(38, 18)` or is no number takes its whole frame into quarantine; a column with such a value stays
strings until that is decided.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.datasets.schema import NARROW, WIDE, arrow_schema, exact_columns
from mmdata.recorder.levels import WireLevels, parse
from mmdata.recorder.records import Bbo, Depth, Instrument, Levels, Snapshot, Trade

_DEPTH_HEAD = ("frame", "ts_recv", "conn")
_DEPTH_RECORD = (
    *("ts_event", "ts_sent", "first_id", "last_id", "prev_id"),
    *("checksum", "is_snapshot"),
)
_SNAPSHOT_HEAD = ("frame", "ts_recv", "ts_request", "reason")
_SNAPSHOT_RECORD = ("ts_event", "last_id")
_TRADE_HEAD = ("frame", "ts_recv", "conn", "origin")
_TRADE_RECORD = (
    *("ts_event", "ts_sent", "kind", "trade_id", "first_trade_id", "last_trade_id"),
    *("side", "price", "size", "seq", "flags"),
)
_BBO_HEAD = ("frame", "ts_recv", "conn")
_BBO_RECORD = ("ts_event", "ts_sent", "last_id")
_NO_LEVEL = (None, None, None)


class Rows(Protocol):
    """A growing set of rows of one table and symbol."""

    table: str

    def __len__(self) -> int:
        """Return the number of rows gathered."""

    def columns(self, session: str) -> dict[str, pa.Array]:
        """Return the rows as columns; prices and sizes as narrow decimals, or strings where one is none."""


class DepthRows:
    """Messages of the stream's book channel, one row a level."""

    table = "depth"

    def __init__(self) -> None:
        self._heads: list[tuple[Any, ...]] = []
        self._records: list[Depth] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, frame: int, ts_recv: int, conn: int, record: Depth) -> None:
        """Add a message; one without levels is one row of nulls."""
        self._heads.append((frame, ts_recv, conn))
        self._records.append(record)
        self._count += len(record.bids) + len(record.asks) or 1

    def columns(self, session: str) -> dict[str, pa.Array]:
        """Return the rows as columns; prices and sizes as narrow decimals, or strings where one is none."""
        books = _Books(self._records)
        last = np.zeros(self._count, np.bool_)
        last[books.ends - 1] = True
        heads = _heads("depth", _DEPTH_HEAD, self._heads) | _fields("depth", _DEPTH_RECORD, self._records)
        return (
            {name: values.take(books.message) for name, values in heads.items()}
            | books.columns()
            | {"session": _words(session, self._count), "is_last": pa.array(last)}
        )


class SnapshotRows:
    """Books asked for over REST, one row a level."""

    table = "snapshots"

    def __init__(self) -> None:
        self._heads: list[tuple[Any, ...]] = []
        self._records: list[Snapshot] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, frame: int, ts_recv: int, ts_request: int | None, record: Snapshot, reason: str) -> None:
        """Add a book; an empty one is one row of nulls."""
        self._heads.append((frame, ts_recv, ts_request, reason))
        self._records.append(record)
        self._count += len(record.bids) + len(record.asks) or 1

    def columns(self, session: str) -> dict[str, pa.Array]:
        """Return the rows as columns; prices and sizes as narrow decimals, or strings where one is none."""
        books = _Books(self._records)
        heads = _heads("snapshots", _SNAPSHOT_HEAD, self._heads) | _fields(
            "snapshots", _SNAPSHOT_RECORD, self._records
        )
        columns = {name: values.take(books.message) for name, values in heads.items()} | books.columns()
        del columns["orders"]  # no column of this table
        return columns | {"session": _words(session, self._count), "level": books.level()}


class _Books:
    """The levels of messages as rows: bids in the wire's order, then asks; a message without any is a row."""

    def __init__(self, records: Sequence[Depth] | Sequence[Snapshot]) -> None:
        self._sides = [side for record in records for side in (record.bids, record.asks)]
        counts = np.fromiter(map(len, self._sides), np.int64, len(self._sides)).reshape(-1, 2)
        levels = counts.sum(axis=1)
        rows = np.maximum(levels, 1)
        self._runs: NDArray[np.int64] = np.column_stack((counts, rows - levels)).ravel()
        """Rows of bids, of asks, of neither, a message after the other."""
        self._kinds = np.repeat(np.tile(np.arange(3, dtype=np.int8), len(rows)), self._runs)
        self.message = pa.array(np.repeat(np.arange(len(rows)), rows))
        """To which message a row belongs."""
        self.ends: NDArray[np.int64] = np.cumsum(rows)

    def columns(self) -> dict[str, pa.Array]:
        """Return side, price, size and orders."""
        values = dict(zip(("price", "size", "orders"), _read(self._sides), strict=True))
        none = self._kinds == 2
        if none.any():
            place = pa.array(np.cumsum(~none) - 1, mask=none)
            values = {name: array.take(place) for name, array in values.items()}
        return values | {"side": pa.array(["bid", "ask", None]).take(pa.array(self._kinds))}

    def level(self) -> pa.Array:
        """Return each row's place in its side, 0 the best."""
        begins = np.cumsum(self._runs) - self._runs
        place = np.arange(len(self._kinds)) - np.repeat(begins, self._runs)
        return pa.array(place, pa.int32(), mask=self._kinds == 2)


def _read(sides: Sequence[Levels]) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Return price, size and orders of all levels in order."""
    unparsed = [side for side in sides if isinstance(side, WireLevels)]
    wire = parse(unparsed)
    if len(unparsed) == len(sides):
        return wire
    read = [level for side in sides if not isinstance(side, WireLevels) for level in side]
    prices, sizes, orders = zip(*read, strict=True) if read else ((), (), ())
    strict = (exact(prices), exact(sizes), pa.array(orders, pa.int32()))
    is_wire = np.repeat([isinstance(side, WireLevels) for side in sides], [len(side) for side in sides])
    order = pa.array(np.where(is_wire, np.cumsum(is_wire), len(wire[0]) + np.cumsum(~is_wire)) - 1)
    price, size, orders = (_joined(*pair).take(order) for pair in zip(wire, strict, strict=True))
    return price, size, orders


def _joined(wire: pa.Array, strict: pa.Array) -> pa.Array:
    """Return both, one behind the other; as strings, exactly, where a strict value is no narrow decimal."""
    return pa.concat_arrays([wire if wire.type == strict.type else wire.cast(strict.type), strict])


def exact(values: Sequence[str | None]) -> pa.Array:
    """Return numbers as narrow decimals; as the strings that they are where one does not fit."""
    strings = pa.array(values, pa.string())
    try:
        return strings.cast(NARROW)
    except pa.ArrowInvalid:
        return strings


class TradeRows:
    """Trades, one row each."""

    table = "trades"

    def __init__(self) -> None:
        self._heads: list[tuple[Any, ...]] = []
        self._records: list[Trade] = []

    def __len__(self) -> int:
        return len(self._records)

    def add(self, frame: int, ts_recv: int, conn: int | None, record: Trade, origin: str = "stream") -> None:
        """Add a trade; ``origin`` is ``stream``, or ``backfill`` where it was asked for later."""
        self._heads.append((frame, ts_recv, conn, origin))
        self._records.append(record)

    def columns(self, session: str) -> dict[str, pa.Array]:
        """Return the rows as columns; prices and sizes as narrow decimals, or strings where one is none."""
        return (
            _heads("trades", _TRADE_HEAD, self._heads)
            | _fields("trades", _TRADE_RECORD, self._records)
            | {"session": _words(session, len(self))}
        )


class BboRows:
    """Best bids and asks, one row each."""

    table = "bbo"

    def __init__(self) -> None:
        self._heads: list[tuple[Any, ...]] = []
        self._records: list[Bbo] = []

    def __len__(self) -> int:
        return len(self._records)

    def add(self, frame: int, ts_recv: int, conn: int, record: Bbo) -> None:
        """Add a best bid and ask; an empty side is nulls."""
        self._heads.append((frame, ts_recv, conn))
        self._records.append(record)

    def columns(self, session: str) -> dict[str, pa.Array]:
        """Return the rows as columns; prices and sizes as narrow decimals, or strings where one is none."""
        columns = _heads("bbo", _BBO_HEAD, self._heads) | _fields("bbo", _BBO_RECORD, self._records)
        for side in ("bid", "ask"):
            levels = [level or _NO_LEVEL for level in map(attrgetter(side), self._records)]
            prices, sizes, orders = zip(*levels, strict=True)
            columns |= {f"{side}_price": exact(prices), f"{side}_size": exact(sizes)}
            columns[f"{side}_orders"] = pa.array(orders, pa.int32())
        return columns | {"session": _words(session, len(self))}


class PlainRows:
    """Rows of a table whose records are one row each."""

    def __init__(self, table: str) -> None:
        self.table = table
        schema = arrow_schema(table)
        self._names = [name for name in schema.names if name != "session"]
        self._rows: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, **values: Any) -> None:
        """Add a row; columns that are not named are null."""
        self._rows.append(tuple(values.get(name) for name in self._names))

    def columns(self, session: str) -> dict[str, pa.Array]:
        """Return the rows as columns; sizes and steps still as strings."""
        return _heads(self.table, self._names, self._rows) | {"session": _words(session, len(self))}


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


def to_table(table: str, columns: dict[str, pa.Array], *, wide: bool) -> pa.Table:
    """Return columns as a table of its exact schema. ArrowInvalid: a value does not fit."""
    schema = arrow_schema(table, wide=wide)
    arrays = []
    for field in schema:
        array = columns[field.name]
        arrays.append(array if array.type == field.type else array.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def fits(columns: dict[str, pa.Array], names: Sequence[str], *, wide: bool) -> bool:
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


def misfits(table: str, columns: dict[str, pa.Array], *, wide: bool) -> dict[int, str]:
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


def first_misfit(table: str, columns: dict[str, pa.Array], *, wide: bool) -> int | None:
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


def sorted_by_frame(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Return columns in the order of their frames; rows of one frame keep theirs."""
    order = pa.array(np.argsort(columns["frame"].to_numpy(), kind="stable"))
    return {name: array.take(order) for name, array in columns.items()}


def without_frames(columns: dict[str, pa.Array], frames: Sequence[int]) -> dict[str, pa.Array]:
    """Return columns without the rows of some frames."""
    keep = pc.invert(pc.is_in(columns["frame"], value_set=pa.array(frames, pa.int64())))
    return {name: array.filter(keep) for name, array in columns.items()}


def _heads(table: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> dict[str, pa.Array]:
    """Return rows of values as columns; numbers that a decimal is made of stay strings."""
    return {
        name: _array(table, name, values) for name, values in zip(names, zip(*rows, strict=True), strict=True)
    }


def _fields(table: str, names: Sequence[str], records: Sequence[object]) -> dict[str, pa.Array]:
    """Return fields of records as columns."""
    return {name: _array(table, name, list(map(attrgetter(name), records))) for name in names}


def _array(table: str, name: str, values: Sequence[Any]) -> pa.Array:
    if name in exact_columns(table):
        return exact(values)
    kind = arrow_schema(table).field(name).type
    return pa.array(values, pa.string() if pa.types.is_decimal(kind) else kind)


def _words(word: str, count: int) -> pa.Array:
    return pa.repeat(word, count)
