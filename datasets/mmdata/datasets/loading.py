"""Loading one symbol's recording, whole or a session at a time: decoded once, and mapped from then on.

A session hangs on the others in four ways: prices and sizes are counted in units that hold those of all,
places go on from one session to the next, a trade that was told before is left out, and so is what comes
after the first that was received at the end. So every session is looked at (`Seen`) before one is told.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from decimal import Decimal
from fractions import Fraction
from functools import partial, reduce
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.datasets import column_cache
from mmdata.datasets._kernel import NO_PRICE, Columns
from mmdata.datasets.ahead import ahead
from mmdata.datasets.column_cache import Entry, Shelf, limit
from mmdata.datasets.decimals import common_divisor
from mmdata.datasets.errors import ReplacedError
from mmdata.datasets.grid import LOT, TICK, Instrument, common_unit, told_unit
from mmdata.datasets.layout import Part, date_name, list_parts
from mmdata.datasets.market import (
    FRAME_BITS,
    Grid,
    Holes,
    Ints,
    Market,
    Quotes,
    Trades,
    again_if_replaced,
    chain_of,
    cut_columns,
    first_late,
    in_64_bits,
    nothing_of,
    read_instruments,
    reading,
    session_order,
    told_first,
)
from mmdata.datasets.session_columns import Seen, SeenTrades, Session, Told, where
from mmdata.datasets.stores import ObjectPath, Place, Root, root_of, size_of
from mmdata.datasets.stretches import read_stretches

_TABLES = ("depth", "snapshots", "events", "trades", "bbo", "instruments")


def load_market(root: Root, exchange: str, symbol: str, *, end: int | None = None) -> Market:
    """Load what was recorded of ``symbol`` before ``end`` (ns since the epoch; None: all of it).

    UsageError: nothing of it is in the dataset; the sentence names what is. DatasetError: a file is
    damaged, or a value does not fit 64 bits.
    """
    return again_if_replaced(lambda: _load_market(root_of(root), exchange, symbol, end))


def load_sessions(root: Root, exchange: str, symbol: str, *, end: int | None = None) -> Iterator[Market]:
    """Yield a recording a session at a time: one after the other, their arrays are those of `load_market`.

    Places (`Market.order`), ``sessions``, units and ``instruments`` are those of the whole recording;
    ``columns.start`` begins at 0 in each. ``more`` is told by the last one. No more is held than a session,
    and the next one, which is loaded meanwhile. Of what is not kept, prices and sizes are read twice: of all
    sessions before the first is yielded, for the units.

    Errors are those of `load_market`, from the first `next` on. A day may be compacted meanwhile;
    ReplacedError: it was not only that.
    """
    yield from Recording(root, exchange, symbol, end=end)


class Recording:
    """What was recorded of ``symbol`` before ``end``, when it was looked at.

    It can be gone through again and again: each pass yields the same, as `load_sessions` does; errors are
    those of `load_market`.
    """

    def __init__(self, root: Root, exchange: str, symbol: str, *, end: int | None = None) -> None:
        self._root = root_of(root)
        self._end = end
        self._sessions, self._instruments, self._seen = again_if_replaced(
            lambda: _surveyed(self._root, exchange, symbol, end)
        )

    def __iter__(self) -> Iterator[Market]:
        """Yield its sessions, one after the other."""
        whole = _Whole(self._sessions, self._instruments, self._seen, self._end)
        return ahead(whole.part(at, self._load(at)) for at in range(len(self._sessions)))

    def _load(self, at: int) -> Market:
        try:
            return self._sessions[at].load()[0]
        except ReplacedError:
            return again_if_replaced(
                lambda: _found_again(self._root, self._sessions[at], self._seen[at], self._end)
            )


def _load_market(root: Place, exchange: str, symbol: str, end: int | None) -> Market:
    sessions, instruments = _listed(root, exchange, symbol, end)
    markets, seen = zip(*(session.load() for session in sessions), strict=True)
    whole = _Whole(sessions, instruments, seen, end)
    return join_parts([whole.part(at, market) for at, market in enumerate(markets)])


def _surveyed(
    root: Place, exchange: str, symbol: str, end: int | None
) -> tuple[list[Session], tuple[Instrument, ...], list[Seen]]:
    sessions, instruments = _listed(root, exchange, symbol, end)
    return sessions, instruments, [session.seen() for session in sessions]


def _found_again(root: Place, lost: Session, seen: Seen, end: int | None) -> Market:
    """Return a session whose files were replaced since it was listed: compacted, they have the same rows."""
    sessions, _ = _listed(root, lost.exchange, lost.symbol, end)
    for session in sessions:
        if session.name == lost.name:
            market, now = replace(session, told=lost.told, entry=None).load()
            if now == seen:
                return market
    raise ReplacedError(
        f"{root}: session {lost.name} of {lost.exchange} {lost.symbol} is no longer what it was when the "
        f"units of all sessions were found; begin again"
    )


def _listed(
    root: Place, exchange: str, symbol: str, end: int | None
) -> tuple[list[Session], tuple[Instrument, ...]]:
    """Return the sessions in order, and what was told of the instrument, after ``end`` as well."""
    chain = chain_of(exchange)
    last_date = date_name(end - 1) if end is not None else "9999"
    tables = {
        table: [
            part
            for part in list_parts(root, table, exchange=exchange, symbol=symbol)
            if part.partition.date <= last_date
        ]
        for table in _TABLES
    }
    if not tables["depth"] and not tables["trades"]:
        raise nothing_of(root, exchange, symbol, "no depth and no trades")
    names = session_order(tables)
    instruments = read_instruments(tables["instruments"], names)
    told = told_unit(TICK, instruments), told_unit(LOT, instruments)
    by_session: dict[str, dict[str, list[Part]]] = {name: {table: [] for table in _TABLES} for name in names}
    for table, parts in tables.items():
        for part in parts:
            by_session[part.session][table].append(part)
    entries = _entries(root, exchange, symbol, by_session, told)
    sessions = [
        Session(name, exchange, symbol, chain, parts, told, entries.get(name))
        for name, parts in by_session.items()
    ]
    return sessions, instruments


def _entries(
    root: Place, exchange: str, symbol: str, by_session: dict[str, dict[str, list[Part]]], told: Told
) -> dict[str, Entry]:
    """Return where the columns of sessions are kept: none in a bucket, of small ones, or where not wanted."""
    if isinstance(root, ObjectPath) or not limit():
        return {}
    units = [None if unit is None else str(unit.size) for unit in told]
    wanted = {}
    for name, tables in by_session.items():
        parts = [part for own in tables.values() for part in own if part.partition.table != "instruments"]
        if sum(map(_size, parts)) >= column_cache.LEAST_BYTES:
            # Of a compacted file, which rows are this session's.
            rows = [(str(part.path.relative_to(root)), part.offset, part.rows) for part in parts]
            wanted[name] = [part.path for part in parts], [name, rows, units, pa.__version__]
    if not wanted:
        return {}
    shelf = Shelf(root, exchange, symbol, [sys.modules[f"mmdata.datasets.{name}"] for name in _CODE])
    return dict(zip(wanted, shelf.entries([*wanted.values()]), strict=True))


_CODE = (
    *("session_columns", "market", "decimals", "grid", "_kernel"),
    *("stretches", "schema", "stores", "chain", "times"),
)
"""Modules that make what is kept: an edit there makes another entry."""


def _size(part: Part) -> int:
    """Return about how many bytes of its file a part has."""
    size = size_of(part.path)
    if part.rows is None:
        return size
    with reading(part):
        return size * part.rows // max(1, sum(stretch.rows for stretch in read_stretches(part.path)))


class _Whole:
    """What the sessions of a recording have in common, and what has been told of it so far."""

    def __init__(
        self,
        sessions: Sequence[Session],
        instruments: Sequence[Instrument],
        seen: Sequence[Seen],
        end: int | None,
    ) -> None:
        self._sessions = tuple(session.name for session in sessions)
        self._instruments = tuple(row for row in instruments if end is None or row.ts_recv < end)
        tick, lot = sessions[0].told
        self._grid = Grid(
            common_unit(tick, reduce(common_divisor, (own.tick for own in seen))),
            common_unit(lot, reduce(common_divisor, (own.lot for own in seen))),
        )
        self._told = _ToldBefore(seen)
        self._cut = _Cut(end)

    def part(self, at: int, market: Market) -> Market:
        """Return the market of session ``at`` alone as a part of the whole; sessions come in order.

        DatasetError: a value does not fit 64 bits in the units of all.
        """
        market = _counted(market, self._grid)
        market = replace(
            market,
            tick_source=self._grid.tick.source,
            lot_source=self._grid.lot.source,
            sessions=self._sessions,
            instruments=self._instruments,
            trades=self._told.without(at, market.trades),
        )
        market = self._cut.before_end(_placed(market, at))
        return replace(market, more=self._cut.more and at == len(self._sessions) - 1, alone=at)


def _placed(market: Market, at: int) -> Market:
    """Return a session's market with places in the order of everything; the first one's are mapped still."""
    if at == 0:
        return market
    first = at << FRAME_BITS
    arrivals = {
        name: replace(getattr(market, name), order=getattr(market, name).order + first) for name in _ARRIVALS
    }
    return replace(market, order=market.order + first, **arrivals)


_ARRIVALS = ("trades", "quotes", "trade_holes")


def _counted(market: Market, grid: Grid) -> Market:
    """Return a session's market in units that divide its own."""
    tick, lot = grid.tick.size, grid.lot.size
    if (tick, lot) == (market.tick_size, market.lot_size):
        return market
    price = partial(_in_finer, unit=market.tick_size, finer=tick)
    size = partial(_in_finer, unit=market.lot_size, finer=lot)
    columns, trades, quotes = market.columns, market.trades, market.quotes
    return replace(
        market,
        tick_size=tick,
        lot_size=lot,
        columns=columns._replace(price=price(columns.price), size=size(columns.size)),
        trades=replace(trades, price=price(trades.price), size=size(trades.size)),
        quotes=replace(
            quotes,
            bid_price=price(quotes.bid_price),
            bid_size=size(quotes.bid_size),
            ask_price=price(quotes.ask_price),
            ask_size=size(quotes.ask_size),
        ),
    )


def _in_finer(multiples: Ints, unit: Decimal, finer: Decimal) -> Ints:
    """Return multiples of ``unit`` as those of a finer one; NO_PRICE stays. DatasetError: beyond 64 bits."""
    if unit == finer:
        return multiples
    # Where no value told a unit it is 1, and may be coarser or finer than the others': all values are 0.
    factor = int(Fraction(unit) / Fraction(finer))
    known = multiples != NO_PRICE
    values: NDArray[Any] = multiples[known]
    if factor * max(abs(int(values.min(initial=0))), int(values.max(initial=0))) >= 2**63:
        values = values.astype(object)
    found = np.full(len(multiples), NO_PRICE, np.int64)
    found[known] = in_64_bits(values * factor, finer)
    return found


class _ToldBefore:
    """Trades of earlier sessions that a later one may tell again: only what lies in its ranges is held."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        self._seen = [own.trades for own in seen]
        none = np.empty(0, np.int64)
        self._held = dict.fromkeys((True, False), (none, none))

    def without(self, at: int, trades: Trades) -> Trades:
        """Return the trades of session ``at`` that no session before it told."""
        own = self._seen[at]
        if own is None:
            return trades
        held = self._held[own.single]
        number, when = trades.trade_id, trades.ts_event
        if len(held[0]):
            number, when = np.concatenate((held[0], number)), np.concatenate((held[1], when))
            first = told_first(number, when, np.full(len(number), own.single))
            number, when = number[first], when[first]
            trades = _taken(trades, first[len(held[0]) :] - len(held[0]))  # those that are held all differ
            own = where(own.single, number, when)
        self._held[own.single] = self._again_after(at, own, number, when)
        return trades

    def _again_after(self, at: int, own: SeenTrades, number: Ints, when: Ints) -> tuple[Ints, Ints]:
        """Return those that a session after ``at`` may tell again."""
        again = np.zeros(len(number), np.bool_)
        for later in self._seen[at + 1 :]:
            if later is not None and later.meets(own):
                again |= later.ids.holds(number) & later.ts_event.holds(when)
        return number[again], when[again]


_Arrivals = TypeVar("_Arrivals", Trades, Quotes, Holes)


def _taken(arrivals: _Arrivals, which: Ints | slice) -> _Arrivals:
    return type(arrivals)(
        **{column.name: getattr(arrivals, column.name)[which] for column in fields(arrivals)}
    )


class _Cut:
    """Cuts sessions, one after the other, from the first thing of each kind that came at ``end`` or later.

    By place: ``ts_recv`` may step back, and what follows is cut all the same.
    """

    def __init__(self, end: int | None) -> None:
        self._end = end
        self._reached: set[str] = set()

    @property
    def more(self) -> bool:
        """A book message, or a trade, was cut."""
        return bool({"messages", "trades"} & self._reached)

    def before_end(self, market: Market) -> Market:
        """Return what of a session is left."""
        if self._end is None:
            return market
        n = self._until("messages", market.ts_recv)
        return replace(
            market,
            columns=cut_columns(market.columns, 0, n),
            order=market.order[:n],
            ts_recv=market.ts_recv[:n],
            ts_event=market.ts_event[:n],
            **{
                name: _taken(own, slice(self._until(name, own.ts_recv)))
                for name, own in ((name, getattr(market, name)) for name in _ARRIVALS)
            },
        )

    def _until(self, kind: str, ts_recv: Ints) -> int:
        assert self._end is not None
        n = 0 if kind in self._reached else first_late(ts_recv, self._end)
        if n < len(ts_recv):
            self._reached.add(kind)
        return n


def join_parts(parts: Sequence[Market]) -> Market:
    """Return parts of a recording that follow one another as one market; a single one is not copied."""
    if len(parts) == 1:
        return replace(parts[0], alone=None)

    def joined(*names: str) -> NDArray[Any]:
        return np.concatenate([reduce(getattr, names, part) for part in parts])

    levels = np.cumsum([0, *(len(part.columns.side) for part in parts[:-1])])
    starts = [part.columns.start[1:] + first for part, first in zip(parts, levels, strict=True)]
    columns = {name: joined("columns", name) for name in Columns._fields if name != "start"}
    arrivals: dict[str, Any] = {
        name: type(getattr(parts[0], name))(
            **{column.name: joined(name, column.name) for column in fields(getattr(parts[0], name))}
        )
        for name in _ARRIVALS
    }
    return replace(
        parts[-1],
        alone=None,
        columns=Columns(start=np.concatenate(([0], *starts)), **columns),
        order=joined("order"),
        ts_recv=joined("ts_recv"),
        ts_event=joined("ts_event"),
        **arrivals,
    )
