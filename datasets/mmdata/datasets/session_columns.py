"""One session of a symbol's recording as columns, by itself: decoded from its tables, or mapped.

It is a recording of one session, in the units that its own values and what was told of the whole recording
give, so that it can be kept whatever is recorded before or after it; `mmdata.datasets.loading` puts it in
its place among the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.datasets._kernel import Columns
from mmdata.datasets.chain import ChainRule
from mmdata.datasets.column_cache import Entry
from mmdata.datasets.grid import Divisors, Unit, common_unit
from mmdata.datasets.layout import Part
from mmdata.datasets.market import (
    BBO,
    DEPTH,
    EVENTS,
    SNAPSHOTS,
    TRADES,
    Grid,
    Holes,
    Market,
    Quotes,
    Trades,
    holes_of,
    ids,
    is_gap,
    messages,
    quotes_of,
    read_rows,
    read_snapshots,
    single_trades,
    times,
    trades_of,
)

Told = tuple[Unit | None, Unit | None]
"""The units of prices and of sizes that were told, of all sessions together."""


class Range(msgspec.Struct, frozen=True):
    """Two numbers, and all between them."""

    first: int
    last: int

    def meets(self, other: Range) -> bool:
        """Tell whether a number lies in both."""
        return self.first <= other.last and other.first <= self.last

    def holds(self, values: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which values lie in it."""
        return (self.first <= values) & (values <= self.last)


class SeenTrades(msgspec.Struct, frozen=True):
    """Where a session's trades lie: one that another session tells, too, lies in the ranges of both."""

    single: bool
    """Single trades, not aggregates."""
    ids: Range
    ts_event: Range

    def meets(self, other: SeenTrades) -> bool:
        """Tell whether both may tell the same trade."""
        return (
            self.single == other.single and self.ids.meets(other.ids) and self.ts_event.meets(other.ts_event)
        )


class Seen(msgspec.Struct, frozen=True):
    """What must be known of every session before one of them can be told as part of the whole."""

    tick: Decimal
    """Greatest common divisor of its prices; 0: there are none, or all are 0."""
    lot: Decimal
    """That of its sizes."""
    trades: SeenTrades | None
    """None: it has no trades."""


@dataclass(frozen=True, slots=True)
class Session:
    """Where one session's rows lie, and where its columns are kept once they were decoded.

    What it returns raises DatasetError: a file is damaged; ReplacedError: one is no longer there.
    """

    name: str
    exchange: str
    symbol: str
    chain: ChainRule
    parts: Mapping[str, Sequence[Part]]
    """By table."""
    told: Told
    entry: Entry | None
    """None: it is not to be kept."""

    def seen(self) -> Seen:
        """Return what is known of it. It is decoded only if it can be kept, so that it was not in vain."""
        if self.entry is not None:
            rest = self.entry.rest()
            if rest is not None:
                return msgspec.convert(rest["seen"], Seen)
            if not self.entry.refused:
                return self.load()[1]
        depth = read_rows("depth", self.parts["depth"], _VALUES)
        trades = read_rows("trades", self.parts["trades"], [*_VALUES, "kind", "trade_id", "ts_event"])
        bbo = read_rows("bbo", self.parts["bbo"], [name for name in BBO if name.startswith(("bid", "ask"))])
        snapshots = read_snapshots(self.parts["snapshots"], [*_VALUES, "reason"])
        return _seen(depth, snapshots, trades, bbo)

    def load(self) -> tuple[Market, Seen]:
        """Return it as the market of a recording that has no other session, and what is known of it."""
        kept = None if self.entry is None else self.entry.find()
        if kept is not None:
            arrays, rest = kept
            seen = msgspec.convert(rest["seen"], Seen)
            return self._market(self._grid(seen), arrays), seen
        arrays, seen = self._decode()
        if self.entry is not None:
            self.entry.keep(arrays, {"seen": msgspec.to_builtins(seen)})
        return self._market(self._grid(seen), arrays), seen

    def _grid(self, seen: Seen) -> Grid:
        tick, lot = self.told
        return Grid(common_unit(tick, seen.tick), common_unit(lot, seen.lot))

    def _decode(self) -> tuple[dict[str, NDArray[Any]], Seen]:
        own = [self.name]
        depth = read_rows("depth", self.parts["depth"], DEPTH)
        snapshots = read_snapshots(self.parts["snapshots"], SNAPSHOTS)
        trades = read_rows("trades", self.parts["trades"], TRADES)
        bbo = read_rows("bbo", self.parts["bbo"], BBO)
        events = read_rows("events", self.parts["events"], EVENTS)
        gaps = events.filter(is_gap(events))
        seen = _seen(depth, snapshots, trades, bbo)
        grid = self._grid(seen)
        of_depth, of_trades = (gaps.filter(pc.equal(gaps["channel"], name)) for name in ("depth", "trades"))
        columns, order, ts_recv, ts_event = messages(depth, snapshots, of_depth, own, (0,), grid)
        arrays = _arrays("columns", columns._asdict())
        arrays |= {"order": order, "ts_recv": ts_recv, "ts_event": ts_event}
        for name, found in (
            ("trades", trades_of(trades, own, grid, single_trades(trades, own))),
            ("quotes", quotes_of(bbo, own, grid)),
            ("trade_holes", holes_of(of_trades, own)),
        ):
            arrays |= _arrays(name, {column.name: getattr(found, column.name) for column in fields(found)})
        return arrays, seen

    def _market(self, grid: Grid, arrays: Mapping[str, NDArray[Any]]) -> Market:
        def arrivals(kind: Any, name: str) -> Any:
            return kind(*(arrays[f"{name}.{column.name}"] for column in fields(kind)))

        return Market(
            exchange=self.exchange,
            symbol=self.symbol,
            chain=self.chain,
            tick_size=grid.tick.size,
            lot_size=grid.lot.size,
            tick_source=grid.tick.source,
            sessions=(self.name,),
            columns=Columns(*(arrays[f"columns.{name}"] for name in Columns._fields)),
            order=arrays["order"],
            ts_recv=arrays["ts_recv"],
            ts_event=arrays["ts_event"],
            trades=arrivals(Trades, "trades"),
            lot_source=grid.lot.source,
            quotes=arrivals(Quotes, "quotes"),
            trade_holes=arrivals(Holes, "trade_holes"),
        )


_VALUES = ["price", "size"]


def _arrays(name: str, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {f"{name}.{column}": array for column, array in columns.items()}


def _seen(depth: pa.Table, snapshots: pa.Table, trades: pa.Table, bbo: pa.Table) -> Seen:
    divisors = Divisors()
    for rows in (depth, snapshots, trades, bbo):
        divisors.see(rows)
    return Seen(divisors.tick or Decimal(0), divisors.lot or Decimal(0), _seen_trades(trades))


def _seen_trades(trades: pa.Table) -> SeenTrades | None:
    """Return where the trades lie that `trades_of` chooses of a session's."""
    of_kind = {kind: pc.equal(trades["kind"], kind) for kind in ("trade", "agg")}
    single = bool(pc.any(of_kind["trade"]).as_py())
    chosen = trades.filter(of_kind["trade" if single else "agg"])
    if not len(chosen):
        return None
    return where(single, ids(chosen["trade_id"]), times(chosen["ts_event"]))


def where(single: bool, number: NDArray[np.int64], when: NDArray[np.int64]) -> SeenTrades:
    """Return where some trades lie, at least one."""
    return SeenTrades(single, *(Range(int(own.min()), int(own.max())) for own in (number, when)))
