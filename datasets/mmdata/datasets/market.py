"""One symbol's recording as columns: what the book kernel and the simulator read.

Reads the tables `depth`, `snapshots`, `events`, `trades` and `bbo`, puts book messages into the one order
that counts, (session, frame, row), and turns decimals into integer ticks and lots, exactly.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmdata.datasets._kernel import (
    ASK,
    BID,
    DIFF,
    GAP,
    GAP_OPEN,
    NO_PRICE,
    REPLACE,
    SESSION,
    SPLICE,
    Columns,
)
from mmdata.datasets.chain import CHAINS, NO_ID, ChainRule
from mmdata.datasets.decimals import in_units
from mmdata.datasets.errors import DatasetError, ReplacedError, UsageError
from mmdata.datasets.grid import Instrument, Unit
from mmdata.datasets.layout import Part, list_symbols
from mmdata.datasets.schema import arrow_schema
from mmdata.datasets.stores import Place, size_of, source
from mmdata.datasets.stretches import row_groups
from mmdata.datasets.times import NO_TIME as NO_TIME

Ints = NDArray[np.int64]

FRAME_BITS = 40
"""A place in the order of everything is ``session << FRAME_BITS | frame``."""
OFF_GRID = -(2**63) + 1
"""Stands for a value that is no whole multiple of the unit asked for; see `multiples`."""
_BUY, _SELL = 1, -1
_ATTEMPTS = 5  # at reading what is being compacted
Read = TypeVar("Read")
# Order within one frame: a session's start, its messages, what was noted about them.
_AT_START, _AT_MESSAGE, _AT_EVENT = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Trades:
    """Trades in order of arrival; every array has shape (n,)."""

    order: Ints
    """Place in the order of everything: session and frame in one number, comparable with messages'."""
    ts_recv: Ints
    ts_event: Ints
    trade_id: Ints
    side: NDArray[np.int8]
    """The taker's: 1 bought, -1 sold."""
    price: Ints
    """Ticks."""
    size: Ints
    """Lots."""
    backfilled: NDArray[np.bool_]
    """Asked for later, over REST: no strategy may see it."""


@dataclass(frozen=True, slots=True)
class Quotes:
    """Best bid and ask as the venue itself told them (table `bbo`), in order of arrival; arrays of (n,)."""

    order: Ints
    """Place in the order of everything."""
    ts_recv: Ints
    ts_event: Ints
    """NO_TIME where the venue sends none: all of Binance spot."""
    last_id: Ints
    """Comparable with those of book messages."""
    bid_price: Ints
    """Ticks; NO_PRICE where the side is empty."""
    bid_size: Ints
    """Lots; 0 where the side is empty."""
    ask_price: Ints
    ask_size: Ints

    @staticmethod
    def none() -> Quotes:
        """Return the quotes of a recording without any."""
        return Quotes(*(np.empty(0, np.int64) for _ in fields(Quotes)))


@dataclass(frozen=True, slots=True)
class Holes:
    """Recorded holes in the tape, each where it was noticed; arrays of shape (n,)."""

    order: Ints
    """Place in the order of everything."""
    ts_recv: Ints

    @staticmethod
    def none() -> Holes:
        """Return the holes of a whole tape."""
        return Holes(np.empty(0, np.int64), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class Market:
    """One symbol's book messages, trades and quotes, as integers; times are ns since the epoch, UTC."""

    exchange: str
    symbol: str
    chain: ChainRule
    tick_size: Decimal
    """Unit of all prices: the tick, or what divides it and every price where one lies off it."""
    lot_size: Decimal
    """Unit of all sizes."""
    tick_source: str
    """Where the unit of prices comes from: ``venue``, ``user``, ``derived``."""
    sessions: tuple[str, ...]
    columns: Columns
    order: Ints
    """(n,) place of each message in the order of everything, as in `Trades.order`."""
    ts_recv: Ints
    ts_event: Ints
    trades: Trades
    lot_source: str = "derived"
    quotes: Quotes = field(default_factory=Quotes.none)
    trade_holes: Holes = field(default_factory=Holes.none)
    instruments: tuple[Instrument, ...] = ()
    """What was told of tick, lot and contract, in order: steps that orders have to keep."""
    more: bool = False
    """It was cut: a book message, or a trade, came after it."""
    alone: int | None = None
    """Which of `sessions` it is, where it is one of a recording's; None: it is all of them."""

    @property
    def own_sessions(self) -> range:
        """Which of `sessions` its rows may be of."""
        return range(len(self.sessions)) if self.alone is None else range(self.alone, self.alone + 1)

    def session_of(self, order: Ints) -> Ints:
        """Return which of `sessions` each place in the order of everything belongs to."""
        return order >> FRAME_BITS


def without_levels(market: Market) -> Market:
    """Return a market with the heads of its messages alone."""
    none = np.empty(0, np.int64)
    columns = market.columns._replace(
        start=np.zeros(len(market.order) + 1, np.int64), side=np.empty(0, np.int8), price=none, size=none
    )
    return replace(market, columns=columns)


def no_columns() -> Columns:
    """Return the columns of no message."""
    none = np.empty(0, np.int64)
    return Columns(
        kind=np.empty(0, np.uint8),
        first_id=none,
        last_id=none,
        prev_id=none,
        start=np.zeros(1, np.int64),
        side=np.empty(0, np.int8),
        price=none,
        size=none,
    )


def without_rows(market: Market) -> Market:
    """Return what is known of a market, without its rows."""
    none = np.empty(0, np.int64)
    trades = Trades(none, none, none, none, np.empty(0, np.int8), none, none, np.empty(0, np.bool_))
    return replace(
        market,
        columns=no_columns(),
        order=none,
        ts_recv=none,
        ts_event=none,
        trades=trades,
        quotes=Quotes.none(),
        trade_holes=Holes.none(),
    )


def again_if_replaced(read: Callable[[], Read]) -> Read:
    """Return what ``read`` does; it is called again when a day was compacted meanwhile, a few times."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(ReplacedError):
            return read()
    return read()


def chain_of(exchange: str) -> ChainRule:
    """Return the chain rule of an exchange. UsageError: it is not known."""
    if exchange not in CHAINS:
        raise UsageError(f"exchange {exchange!r} is not known, expected one of {', '.join(CHAINS)}")
    return CHAINS[exchange]


def nothing_of(root: Place, exchange: str, symbol: str, what: str) -> UsageError:
    """Return the error that says that the dataset has nothing of a symbol, and what it has."""
    have = ", ".join(f"{e} {s}" for e, s in list_symbols(root)) or "nothing"
    return UsageError(f"{root}: {what} of {exchange} {symbol}; it holds {have}")


# The columns that a market is made of.
DEPTH = [
    *("session", "frame", "ts_recv", "ts_event", "first_id", "last_id", "prev_id"),
    *("side", "price", "size", "is_snapshot", "is_last"),
]
SNAPSHOTS = ["session", "frame", "ts_recv", "last_id", "side", "price", "size", "reason"]
_TOUCH = ["bid_price", "bid_size", "ask_price", "ask_size"]
TRADES = [
    *("session", "frame", "ts_recv", "ts_event", "trade_id"),
    *("side", "price", "size", "origin", "kind"),
]
BBO = ["session", "frame", "ts_recv", "ts_event", "last_id", *_TOUCH]
EVENTS = ["session", "frame", "ts_recv", "kind", "channel", "next_id", "detail"]
_COVERED = '"book":"covered"'  # in the detail of a gap whose messages a snapshot holds: the book is whole
_INSTRUMENTS = ["session", "frame", "ts_recv", "source", "tick_size", "lot_size", "contract_value"]


def is_gap(events: pa.Table) -> pa.ChunkedArray:
    """Tell which rows of `events` are holes; a gap whose messages a snapshot holds is none."""
    covered = pc.fill_null(pc.match_substring(events["detail"], _COVERED), False)
    return pc.and_not(pc.equal(events["kind"], "gap"), covered)


def read_part(part: Part, columns: Sequence[str] | None = None) -> pa.Table:
    """Read ``columns`` of one published part. DatasetError: it is damaged, lacks a column, was replaced."""
    with reading(part):
        if part.rows is not None:
            return pa.concat_tables(row_groups(part, columns))
        wanted = None if columns is None else list(columns)
        return pq.read_table(columns=wanted, partitioning=None, **source(part.path))


@contextlib.contextmanager
def reading(part: Part) -> Iterator[None]:
    """Say of whatever keeps ``part`` from being read what it means. DatasetError: as `read_part` does."""
    try:
        yield
    except FileNotFoundError as error:
        raise ReplacedError(
            f"{part.path}: is no longer there: its day was compacted, or removed, since it was listed; "
            f"read again"
        ) from error
    except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
        raise DatasetError(
            f"{part.path}: cannot be read as Parquet ({size_of(part.path)} bytes: {error}); nothing was "
            f"changed; the rows of session {part.session} can be ingested again from its capture once it is "
            f"moved away"
        ) from error
    except KeyError as error:
        raise DatasetError(f"{part.path}: lacks a column of schema version 1: {error}") from error


def read_rows(table: str, parts: Sequence[Part], columns: Sequence[str]) -> pa.Table:
    """Read and join parts of ``table``; decimals of narrow and wide parts are united as wide."""
    if not parts:
        return arrow_schema(table).empty_table().select(list(columns))
    tables = [read_part(part, columns) for part in parts]
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def read_snapshots(parts: Sequence[Part], columns: Sequence[str] = SNAPSHOTS) -> pa.Table:
    """Return the snapshots that a book may start from: those of audits (``reason``) are left out."""
    snapshots = read_rows("snapshots", parts, columns)
    return snapshots.filter(pc.not_equal(snapshots["reason"], "audit"))


def session_order(tables: dict[str, list[Part]]) -> list[str]:
    """Return the sessions of the parts of several tables, by the earliest start among their parts."""
    begun: dict[str, str] = {}
    for parts in tables.values():
        for part in parts:
            begun[part.session] = min(begun.get(part.session, part.start), part.start)
    return sorted(begun, key=lambda session: (begun[session], session))


@dataclass(frozen=True, slots=True)
class Grid:
    """The units in which prices and sizes are counted."""

    tick: Unit
    lot: Unit

    def ticks(self, prices: pa.ChunkedArray) -> Ints:
        """Return prices as whole units. DatasetError: one is none."""
        return _whole(prices, self.tick.size)

    def lots(self, sizes: pa.ChunkedArray) -> Ints:
        """Return sizes as whole units. DatasetError: one is none."""
        return _whole(sizes, self.lot.size)


def read_instruments(parts: Sequence[Part], sessions: Sequence[str] | None = None) -> tuple[Instrument, ...]:
    """Return what parts of the table `instruments` tell, in order; None: their own sessions count."""
    sessions = session_order({"instruments": [*parts]}) if sessions is None else sessions
    table = read_rows("instruments", parts, _INSTRUMENTS)
    orders = places(table, sessions)
    rows = zip(
        orders.tolist(),
        (orders >> FRAME_BITS).tolist(),
        times(table["ts_recv"]).tolist(),
        *(table[name].to_pylist() for name in ("source", "tick_size", "lot_size", "contract_value")),
        strict=True,
    )
    return tuple(sorted((Instrument(*row) for row in rows), key=lambda row: row.order))


def _whole(column: pa.ChunkedArray, unit: Decimal) -> Ints:
    """Return the decimals of ``column`` (no nulls) as whole multiples of ``unit``."""
    found, off = in_units(column, unit)
    if off.any():
        value = pc.drop_null(column)[int(np.flatnonzero(off)[0])]
        raise DatasetError(
            f"{value} is no whole multiple of {unit}, nor are {int(off.sum()) - 1} other values; the book "
            f"kernel counts whole ticks and lots"
        )
    return in_64_bits(found, unit)


def in_64_bits(multiples: NDArray[np.int64] | NDArray[np.object_], unit: Decimal) -> Ints:
    """Return multiples of ``unit`` as the kernel counts them. DatasetError: one does not fit."""
    try:
        return multiples.astype(np.int64)
    except OverflowError as error:
        raise DatasetError(
            f"a value of {max(abs(v) for v in multiples)} units of {unit} does not fit 64 bits; the book "
            f"kernel counts whole ticks and lots"
        ) from error


def times(column: pa.ChunkedArray) -> Ints:
    """Return times as ns since the epoch, NO_TIME for null."""
    filled = pc.fill_null(column.cast(pa.int64()), NO_TIME)
    return np.asarray(filled.to_numpy(), dtype=np.int64)


def time_array(times: Ints) -> pa.Array:
    """Return ns as Arrow timestamps, UTC; NO_TIME becomes null."""
    return pa.array(times, pa.timestamp("ns", tz="UTC"), mask=times == NO_TIME)


def ids(column: pa.ChunkedArray) -> Ints:
    """Return ids, NO_ID for null."""
    return np.asarray(pc.fill_null(column, NO_ID).to_numpy(), dtype=np.int64)


def multiples(column: pa.ChunkedArray, unit: Decimal, null: int) -> Ints:
    """Return decimals as whole multiples of ``unit``, ``null`` for null, OFF_GRID for what is none."""
    whole = np.full(len(column), null, np.int64)
    found, off = in_units(column, unit)
    whole[pc.is_valid(column).to_numpy()] = np.where(off, OFF_GRID, in_64_bits(found, unit))
    return whole


def places(table: pa.Table, sessions: Sequence[str]) -> Ints:
    """Return the place of each row in the order of everything."""
    index = pc.index_in(table["session"], value_set=pa.array(sessions, pa.string()))
    session = np.asarray(index.to_numpy(), dtype=np.int64)
    return (session << FRAME_BITS) | np.asarray(table["frame"].to_numpy(), dtype=np.int64)


def _sides(table: pa.Table) -> NDArray[np.int8]:
    return np.where(pc.equal(table["side"], "bid").to_numpy(), BID, ASK).astype(np.int8)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Messages from one table: (n,) arrays, with levels where the table has them."""

    at: int
    order: Ints
    kind: NDArray[np.uint8]
    first_id: Ints
    last_id: Ints
    prev_id: Ints
    ts_recv: Ints
    ts_event: Ints
    count: Ints
    side: NDArray[np.int8]
    price: Ints
    size: Ints


def messages(
    depth: pa.Table,
    snapshots: pa.Table,
    gaps: pa.Table,
    sessions: Sequence[str],
    begin: Sequence[int],
    grid: Grid | None,
) -> tuple[Columns, Ints, Ints, Ints]:
    """Put rows into the one order that counts: kernel columns, places, ts_recv and ts_event of messages.

    ``begin`` are the positions in ``sessions`` of those that begin here. Without a ``grid`` messages have
    no levels, and ``depth`` and ``snapshots`` need no columns of them.
    """
    pieces = [
        _depth_piece(depth, sessions, grid),
        _snapshot_piece(snapshots, sessions, grid),
        _gap_piece(gaps, sessions),
        _session_piece(begin),
    ]
    order = np.concatenate([piece.order for piece in pieces])
    at = np.concatenate([np.full(len(piece.order), piece.at) for piece in pieces])
    rank = np.lexsort((at, order))  # stable: messages of one frame keep their order
    counts = np.concatenate([piece.count for piece in pieces])
    starts = np.concatenate(([0], np.cumsum(counts)))[:-1]
    start = np.concatenate(([0], np.cumsum(counts[rank])))
    rows = np.repeat(starts[rank] - start[:-1], counts[rank]) + np.arange(start[-1])

    def joined(name: str) -> Ints:
        return np.concatenate([getattr(piece, name) for piece in pieces])

    columns = Columns(
        kind=joined("kind")[rank].astype(np.uint8),
        first_id=joined("first_id")[rank],
        last_id=joined("last_id")[rank],
        prev_id=joined("prev_id")[rank],
        start=start.astype(np.int64),
        side=joined("side")[rows].astype(np.int8),
        price=joined("price")[rows],
        size=joined("size")[rows],
    )
    return columns, order[rank], joined("ts_recv")[rank], joined("ts_event")[rank]


def _depth_piece(table: pa.Table, sessions: Sequence[str], grid: Grid | None) -> _Piece:
    """Messages end at the rows marked ``is_last``; a message without levels has one row of nulls."""
    ends = np.flatnonzero(table["is_last"].to_numpy())
    begins = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
    heads = table.take(pa.array(ends))
    replaces = heads["is_snapshot"].to_numpy()
    return _Piece(
        at=_AT_MESSAGE,
        order=places(heads, sessions),
        kind=np.where(replaces, REPLACE, DIFF).astype(np.uint8),
        first_id=ids(heads["first_id"]),
        last_id=ids(heads["last_id"]),
        prev_id=ids(heads["prev_id"]),
        ts_recv=times(heads["ts_recv"]),
        ts_event=times(heads["ts_event"]),
        **_levels(table, begins, ends + 1, grid),
    )


def _snapshot_piece(table: pa.Table, sessions: Sequence[str], grid: Grid | None) -> _Piece:
    """Each snapshot is the rows of one frame."""
    place = places(table, sessions)
    begins = np.flatnonzero(np.concatenate(([True], place[1:] != place[:-1]))) if len(place) else place
    heads = table.take(pa.array(begins))
    ends = np.concatenate((begins[1:], [len(place)])).astype(np.int64) if len(place) else begins
    n = len(begins)
    return _Piece(
        at=_AT_MESSAGE,
        order=place[begins],
        kind=np.full(n, SPLICE, np.uint8),
        first_id=np.full(n, NO_ID),
        last_id=ids(heads["last_id"]),
        prev_id=np.full(n, NO_ID),
        ts_recv=times(heads["ts_recv"]),
        ts_event=np.full(n, NO_TIME),
        **_levels(table, begins, ends, grid),
    )


def _levels(table: pa.Table, begins: Ints, ends: Ints, grid: Grid | None) -> dict[str, NDArray[Any]]:
    """Return the levels of the messages whose rows are ``begins:ends``, and how many each has."""
    if grid is None:
        none = np.empty(0, np.int64)
        return {"count": np.zeros(len(ends), np.int64), "side": none, "price": none, "size": none}
    levels = pc.is_valid(table["price"])
    until = np.concatenate(([0], np.cumsum(levels.to_numpy())))
    rows = table.select(["side", "price", "size"]).filter(levels)
    return {
        "count": (until[ends] - until[begins]).astype(np.int64),
        "side": _sides(rows),
        "price": grid.ticks(rows["price"]),
        "size": grid.lots(rows["size"]),
    }


def _gap_piece(table: pa.Table, sessions: Sequence[str]) -> _Piece:
    kind = np.where(pc.is_valid(table["next_id"]).to_numpy(), GAP, GAP_OPEN)
    return _marks(_AT_EVENT, places(table, sessions), kind, times(table["ts_recv"]))


def _session_piece(begin: Sequence[int]) -> _Piece:
    place = np.array(begin, np.int64) << FRAME_BITS
    return _marks(_AT_START, place, np.full(len(place), SESSION), np.full(len(place), NO_TIME))


def _marks(at: int, order: Ints, kind: NDArray[np.int64], ts_recv: Ints) -> _Piece:
    """Messages that carry neither ids nor levels."""
    n = len(order)
    none = np.empty(0, np.int64)
    return _Piece(
        at=at,
        order=order,
        kind=kind.astype(np.uint8),
        first_id=np.full(n, NO_ID),
        last_id=np.full(n, NO_ID),
        prev_id=np.full(n, NO_ID),
        ts_recv=ts_recv,
        ts_event=np.full(n, NO_TIME),
        count=np.zeros(n, np.int64),
        side=none.astype(np.int8),
        price=none,
        size=none,
    )


def single_trades(table: pa.Table, sessions: Sequence[str]) -> NDArray[np.bool_]:
    """Return which of ``sessions`` have single trades in ``table``, not only aggregates."""
    has_single = np.zeros(len(sessions), np.bool_)
    has_single[places(table, sessions)[pc.equal(table["kind"], "trade").to_numpy()] >> FRAME_BITS] = True
    return has_single


def trades_of(table: pa.Table, sessions: Sequence[str], grid: Grid, has_single: NDArray[np.bool_]) -> Trades:
    """Return the tape of each session, one row a trade, by arrival.

    Block trades are off the book and are left out; so are aggregates where the session has single trades
    (which channel a recorder took, and what a venue calls it, may change from one session to the next).
    """
    place = places(table, sessions)
    single = pc.equal(table["kind"], "trade").to_numpy()
    aggregate = pc.equal(table["kind"], "agg").to_numpy() & ~has_single[place >> FRAME_BITS]
    chosen = np.flatnonzero(single | aggregate)
    # Parts of two dates may interleave: a receive clock stepped back over midnight.
    chosen = chosen[np.argsort(place[chosen], kind="stable")]
    table = table.take(pa.array(chosen))
    first = told_first(
        ids(table["trade_id"]), times(table["ts_event"]), pc.equal(table["kind"], "trade").to_numpy()
    )
    chosen, table = chosen[first], table.take(pa.array(first))
    return Trades(
        order=place[chosen],
        ts_recv=times(table["ts_recv"]),
        ts_event=times(table["ts_event"]),
        trade_id=ids(table["trade_id"]),
        side=np.where(pc.equal(table["side"], "buy").to_numpy(), _BUY, _SELL).astype(np.int8),
        price=grid.ticks(table["price"]),
        size=grid.lots(table["size"]),
        backfilled=np.asarray(pc.equal(table["origin"], "backfill").to_numpy(), dtype=np.bool_),
    )


def told_first(number: Ints, when: Ints, single: NDArray[np.bool_]) -> Ints:
    """Return the positions of trades that were not told before, in order.

    Two recordings, or a venue asked again, tell a trade twice: same id, time and kind. Arrays of shape (n,).
    """
    if (number[1:] > number[:-1]).all():
        return np.arange(len(number))
    rank = np.lexsort((np.arange(len(number)), when, number, single))
    again = np.zeros(len(number), np.bool_)
    again[rank[1:]] = (
        (np.diff(number[rank]) == 0) & (np.diff(when[rank]) == 0) & (single[rank[1:]] == single[rank[:-1]])
    )
    return np.flatnonzero(~again)


def quotes_of(table: pa.Table, sessions: Sequence[str], grid: Grid) -> Quotes:
    """Return the rows of `bbo` in order of arrival."""
    place = places(table, sessions)
    rank = np.argsort(place, kind="stable")
    return Quotes(
        order=place[rank],
        ts_recv=times(table["ts_recv"])[rank],
        ts_event=times(table["ts_event"])[rank],
        last_id=ids(table["last_id"])[rank],
        bid_price=multiples(table["bid_price"], grid.tick.size, NO_PRICE)[rank],
        bid_size=multiples(table["bid_size"], grid.lot.size, 0)[rank],
        ask_price=multiples(table["ask_price"], grid.tick.size, NO_PRICE)[rank],
        ask_size=multiples(table["ask_size"], grid.lot.size, 0)[rank],
    )


def holes_of(gaps: pa.Table, sessions: Sequence[str]) -> Holes:
    """Return gaps in order of where they were noticed."""
    place = places(gaps, sessions)
    rank = np.argsort(place, kind="stable")
    return Holes(place[rank], times(gaps["ts_recv"])[rank])


def cut_columns(columns: Columns, begin: int, end: int) -> Columns:
    """Return the messages ``begin:end``, with their levels."""
    low, high = int(columns.start[begin]), int(columns.start[end])
    return Columns(
        kind=columns.kind[begin:end],
        first_id=columns.first_id[begin:end],
        last_id=columns.last_id[begin:end],
        prev_id=columns.prev_id[begin:end],
        start=columns.start[begin : end + 1] - low,
        side=columns.side[low:high],
        price=columns.price[low:high],
        size=columns.size[low:high],
    )


def first_late(ts_recv: Ints, end: int) -> int:
    """Return the first position received at ``end`` or later: by place, since times may step back."""
    late = np.flatnonzero(ts_recv >= end)
    return int(late[0]) if late.size else len(ts_recv)
