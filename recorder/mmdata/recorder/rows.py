"""Records gathered into table rows: one growing set of columns a table and symbol, exact to the digit.

Pure: nothing here touches a disk. Strings of prices and sizes become decimals a batch at a time; a value
that does not fit `decimal(18, 8)` makes the batch wide, one that does not fit `decimal(38, 18)` or is no
number takes its whole frame into quarantine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmdata.datasets.schema import NARROW, WIDE, arrow_schema, exact_columns
from mmdata.recorder.records import Bbo, Depth, Instrument, Level, Snapshot, Trade

_DEPTH_HEAD = (
    *("frame", "ts_recv", "ts_event", "ts_sent", "first_id", "last_id", "prev_id"),
    *("conn", "checksum", "is_snapshot"),
)
_SNAPSHOT_ROW = (
    *("frame", "ts_recv", "ts_request", "ts_event", "last_id", "reason"),
    *("side", "level", "price", "size"),
)


class Rows(Protocol):
    """A growing set of rows of one table and symbol."""

    table: str

    def __len__(self) -> int:
        """Return the number of rows gathered."""

    def columns(self, session: str) -> dict[str, pa.Array]:
        """Return the rows as columns; prices and sizes still as strings."""


class DepthRows:
    """Messages of the stream's book channel, one row a level."""

    table = "depth"

    def __init__(self) -> None:
        self._messages: list[tuple[Any, ...]] = []
        self._counts: list[tuple[int, int]] = []
        self._levels: list[Level | tuple[None, None, None]] = []

    def __len__(self) -> int:
        return len(self._levels)

    def add(self, frame: int, ts_recv: int, conn: int, record: Depth) -> None:
        """Add a message; one without levels is one row of nulls."""
        self._messages.append(
            (
                *(frame, ts_recv, record.ts_event, record.ts_sent),
                *(record.first_id, record.last_id, record.prev_id),
                *(conn, record.checksum, record.is_snapshot),
            )
        )
        if record.bids or record.asks:
            self._counts.append((len(record.bids), len(record.asks)))
            self._levels.extend(record.bids)
            self._levels.extend(record.asks)
        else:
            self._counts.append((0, 0))
            self._levels.append((None, None, None))

    def columns(self, session: str) -> dict[str, pa.Array]:
        """Return the rows as columns; prices and sizes still as strings."""
        schema = arrow_schema("depth")
        counts = np.array(self._counts, np.int64).reshape(-1, 2)
        rows = np.maximum(counts.sum(axis=1), 1)
        repeat = pa.array(np.repeat(np.arange(len(rows)), rows))
        columns = {
            name: pa.array(values, schema.field(name).type).take(repeat)
            for name, values in zip(_DEPTH_HEAD, zip(*self._messages, strict=True), strict=True)
        }
        # 0 bid, 1 ask, 2 neither
        kinds = np.tile(np.array([0, 1, 2]), len(rows))
        spread = np.column_stack((counts, rows - counts.sum(axis=1))).ravel()
        side = pa.array(["bid", "ask", None]).take(pa.array(np.repeat(kinds, spread)))
        last = np.zeros(len(self._levels), np.bool_)
        last[np.cumsum(rows) - 1] = True
        price, size, orders = zip(*self._levels, strict=True)
        return columns | {
            "session": _words(session, len(self)),
            "side": side,
            "price": pa.array(price, pa.string()),
            "size": pa.array(size, pa.string()),
            "orders": pa.array(orders, pa.int32()),
            "is_last": pa.array(last),
        }


class SnapshotRows:
    """Books asked for over REST, one row a level."""

    table = "snapshots"

    def __init__(self) -> None:
        self._rows: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, frame: int, ts_recv: int, ts_request: int | None, record: Snapshot, reason: str) -> None:
        """Add a book; an empty one is one row of nulls."""
        head = (frame, ts_recv, ts_request, record.ts_event, record.last_id, reason)
        for side, levels in (("bid", record.bids), ("ask", record.asks)):
            for level, (price, size, _) in enumerate(levels):
                self._rows.append((*head, side, level, price, size))
        if not record.bids and not record.asks:
            self._rows.append((*head, None, None, None, None))

    def columns(self, session: str) -> dict[str, pa.Array]:
        """Return the rows as columns; prices and sizes still as strings."""
        return _columns("snapshots", _SNAPSHOT_ROW, self._rows, session)


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
        """Return the rows as columns; prices and sizes still as strings."""
        return _columns(self.table, self._names, self._rows, session)


def trade_row(record: Trade, *, origin: str = "stream") -> dict[str, Any]:
    """Return the columns of a trade; ``origin`` is ``stream`` or ``backfill``."""
    return {
        "ts_event": record.ts_event,
        "ts_sent": record.ts_sent,
        "kind": record.kind,
        "origin": origin,
        "trade_id": record.trade_id,
        "first_trade_id": record.first_trade_id,
        "last_trade_id": record.last_trade_id,
        "side": record.side,
        "price": record.price,
        "size": record.size,
        "seq": record.seq,
        "flags": record.flags,
    }


def bbo_row(record: Bbo) -> dict[str, Any]:
    """Return the columns of a best bid and ask."""
    bid_price, bid_size, bid_orders = record.bid or (None, None, None)
    ask_price, ask_size, ask_orders = record.ask or (None, None, None)
    return {
        "ts_event": record.ts_event,
        "ts_sent": record.ts_sent,
        "last_id": record.last_id,
        "bid_price": bid_price,
        "bid_size": bid_size,
        "bid_orders": bid_orders,
        "ask_price": ask_price,
        "ask_size": ask_size,
        "ask_orders": ask_orders,
    }


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
    try:
        for name in names:
            columns[name].cast(WIDE if wide else NARROW)
    except pa.ArrowInvalid:
        return False
    return True


def misfits(table: str, columns: dict[str, pa.Array], *, wide: bool) -> dict[int, str]:
    """Return the frames with a value that no decimal of that width holds, a sentence on the first each."""
    found: dict[int, str] = {}
    kind = WIDE if wide else NARROW
    for name in exact_columns(table):
        for row, value in enumerate(columns[name].to_pylist()):
            try:
                pa.array([value], pa.string()).cast(kind)
            except pa.ArrowInvalid as error:
                frame = columns["frame"][row].as_py()
                found.setdefault(frame, f"{name} {value!r} of {table} does not fit {kind}: {error}")
    return found


def sorted_by_frame(columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
    """Return columns in the order of their frames; rows of one frame keep theirs."""
    order = pa.array(np.argsort(columns["frame"].to_numpy(), kind="stable"))
    return {name: array.take(order) for name, array in columns.items()}


def without_frames(columns: dict[str, pa.Array], frames: Sequence[int]) -> dict[str, pa.Array]:
    """Return columns without the rows of some frames."""
    keep = pc.invert(pc.is_in(columns["frame"], value_set=pa.array(frames, pa.int64())))
    return {name: array.filter(keep) for name, array in columns.items()}


def _columns(
    table: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]], session: str
) -> dict[str, pa.Array]:
    schema = arrow_schema(table)
    texts = {*exact_columns(table)} | {
        field.name for field in schema if pa.types.is_decimal(field.type)
    }  # read as strings, cast later, a batch at a time
    return {
        name: pa.array(values, pa.string() if name in texts else schema.field(name).type)
        for name, values in zip(names, zip(*rows, strict=True), strict=True)
    } | {"session": _words(session, len(rows))}


def _words(word: str, count: int) -> pa.Array:
    return pa.repeat(word, count)
