"""Loading one symbol's recording: decoded from its tables, or mapped where it was decoded before."""

from __future__ import annotations

import sys
from dataclasses import astuple, fields, replace
from decimal import Decimal
from typing import Any, TypeVar

import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.datasets._kernel import Columns
from mmdata.datasets.chain import ChainRule
from mmdata.datasets.column_cache import LEAST_BYTES, Entry, limit
from mmdata.datasets.grid import Instrument
from mmdata.datasets.layout import Part, date_name, list_parts
from mmdata.datasets.market import (
    BBO,
    DEPTH,
    EVENTS,
    TRADES,
    Holes,
    Market,
    Quotes,
    Trades,
    again_if_replaced,
    chain_of,
    cut_columns,
    find_grid,
    first_late,
    holes_of,
    is_gap,
    messages,
    nothing_of,
    quotes_of,
    read_instruments,
    read_rows,
    read_snapshots,
    session_order,
    single_trades,
    trades_of,
)
from mmdata.datasets.stores import ObjectPath, Place, Root, root_of, size_of


def load_market(root: Root, exchange: str, symbol: str, *, end: int | None = None) -> Market:
    """Load what was recorded of ``symbol`` before ``end`` (ns since the epoch; None: all of it).

    UsageError: nothing of it is in the dataset; the sentence names what is. DatasetError: a file is
    damaged, or tick and lot are unknown.
    """
    return again_if_replaced(lambda: _load_market(root_of(root), exchange, symbol, end))


def _load_market(root: Place, exchange: str, symbol: str, end: int | None) -> Market:
    chain = chain_of(exchange)
    last_date = date_name(end - 1) if end is not None else "9999"
    tables = {
        table: [
            part
            for part in list_parts(root, table, exchange=exchange, symbol=symbol)
            if part.partition.date <= last_date
        ]
        for table in ("depth", "snapshots", "events", "trades", "bbo", "instruments")
    }
    if not tables["depth"] and not tables["trades"]:
        raise nothing_of(root, exchange, symbol, "no depth and no trades")
    entry = _entry(root, exchange, symbol, tables)
    kept = None if entry is None else entry.find()
    if kept is not None:
        market = _from_kept(exchange, symbol, chain, *kept)
    else:
        market = _decode(exchange, symbol, chain, tables)
        if entry is not None:
            entry.keep(*_to_keep(market))
    return market if end is None else _before(market, end)


def _decode(exchange: str, symbol: str, chain: ChainRule, tables: dict[str, list[Part]]) -> Market:
    sessions = session_order(tables)
    depth = read_rows("depth", tables["depth"], DEPTH)
    snapshots = read_snapshots(tables["snapshots"])
    trades = read_rows("trades", tables["trades"], TRADES)
    bbo = read_rows("bbo", tables["bbo"], BBO)
    events = read_rows("events", tables["events"], EVENTS)
    gaps = events.filter(is_gap(events))
    instruments = read_instruments(tables["instruments"], sessions)
    grid = find_grid(instruments, depth, snapshots, trades, bbo)
    columns, order, ts_recv, ts_event = messages(
        depth,
        snapshots,
        gaps.filter(pc.equal(gaps["channel"], "depth")),
        sessions,
        range(len(sessions)),
        grid,
    )
    return Market(
        exchange=exchange,
        symbol=symbol,
        chain=chain,
        tick_size=grid.tick.size,
        lot_size=grid.lot.size,
        tick_source=grid.tick.source,
        sessions=tuple(sessions),
        columns=columns,
        order=order,
        ts_recv=ts_recv,
        ts_event=ts_event,
        trades=trades_of(trades, sessions, grid, single_trades(trades, sessions)),
        lot_source=grid.lot.source,
        quotes=quotes_of(bbo, sessions, grid),
        trade_holes=holes_of(gaps.filter(pc.equal(gaps["channel"], "trades")), sessions),
        instruments=instruments,
    )


def _entry(root: Place, exchange: str, symbol: str, tables: dict[str, list[Part]]) -> Entry | None:
    """Return where the columns of these parts are kept; None: in a bucket, too few, or not wanted."""
    if isinstance(root, ObjectPath):
        return None
    parts = [part for own in tables.values() for part in own]
    files = [*dict.fromkeys(part.path for part in parts)]
    if sum(map(size_of, files)) < LEAST_BYTES or not limit():
        return None
    # Of a compacted file, which rows are whose.
    told = [(part.partition.folder.as_posix(), part.session, part.offset, part.rows) for part in parts]
    code = [sys.modules[name] for name in _CODE]
    return Entry(root, exchange, symbol, files, told, code)


_CODE = (__name__, *(f"mmdata.datasets.{name}" for name in ("market", "decimals", "grid", "_kernel")))
"""Modules that make what is kept: an edit there makes another entry."""


def _to_keep(market: Market) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return a market's arrays by name, and what else there is to it."""
    arrays = {f"columns.{name}": getattr(market.columns, name) for name in Columns._fields}
    arrays |= {name: getattr(market, name) for name in _ARRAYS}
    for name, kind in _ARRIVALS.items():
        own = getattr(market, name)
        arrays |= {f"{name}.{column.name}": getattr(own, column.name) for column in fields(kind)}
    rest = {name: str(getattr(market, name)) for name in _WORDS}
    instruments = [[_plain(value) for value in astuple(told)] for told in market.instruments]
    return arrays, rest | {"sessions": list(market.sessions), "instruments": instruments}


def _from_kept(
    exchange: str, symbol: str, chain: ChainRule, arrays: dict[str, NDArray[Any]], rest: dict[str, Any]
) -> Market:
    instruments = []
    for told in rest["instruments"]:
        order, session, ts_recv, source, tick_size, lot_size, contract_value = told
        contract = None if contract_value is None else Decimal(contract_value)
        steps = Decimal(tick_size), Decimal(lot_size)
        instruments.append(Instrument(order, session, ts_recv, source, *steps, contract))

    def arrivals(name: str) -> Any:
        kind = _ARRIVALS[name]
        return kind(*(arrays[f"{name}.{column.name}"] for column in fields(kind)))

    return Market(
        exchange=exchange,
        symbol=symbol,
        chain=chain,
        tick_size=Decimal(rest["tick_size"]),
        lot_size=Decimal(rest["lot_size"]),
        tick_source=rest["tick_source"],
        lot_source=rest["lot_source"],
        sessions=tuple(rest["sessions"]),
        columns=Columns(*(arrays[f"columns.{name}"] for name in Columns._fields)),
        order=arrays["order"],
        ts_recv=arrays["ts_recv"],
        ts_event=arrays["ts_event"],
        trades=arrivals("trades"),
        quotes=arrivals("quotes"),
        trade_holes=arrivals("trade_holes"),
        instruments=tuple(instruments),
    )


_ARRAYS = ("order", "ts_recv", "ts_event")
_WORDS = ("tick_size", "lot_size", "tick_source", "lot_source")
_ARRIVALS: dict[str, Any] = {"trades": Trades, "quotes": Quotes, "trade_holes": Holes}


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Decimal) else value


def _before(market: Market, end: int) -> Market:
    """Cut everything that arrived at ``end`` or later, by place: ``ts_recv`` may step back."""
    n = first_late(market.ts_recv, end)
    columns, trades = market.columns, _cut(market.trades, end)
    return replace(
        market,
        columns=cut_columns(columns, 0, n),
        order=market.order[:n],
        ts_recv=market.ts_recv[:n],
        ts_event=market.ts_event[:n],
        trades=trades,
        quotes=_cut(market.quotes, end),
        trade_holes=_cut(market.trade_holes, end),
        instruments=tuple(row for row in market.instruments if row.ts_recv < end),
        more=n < len(market.order) or len(trades.order) < len(market.trades.order),
    )


_Arrivals = TypeVar("_Arrivals", Trades, Quotes, Holes)


def _cut(arrivals: _Arrivals, end: int) -> _Arrivals:
    n = first_late(arrivals.ts_recv, end)
    return type(arrivals)(**{column.name: getattr(arrivals, column.name)[:n] for column in fields(arrivals)})
