"""A recording as a stream: the book and the trades, in the order in which they arrived."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import DIFF, GAP, GAP_OPEN, REPLACE, SESSION, SPLICE, run
from mmdata.datasets.book import NO_PRICE, Book
from mmdata.datasets.decimals import decimal_array
from mmdata.datasets.market import NO_TIME, Market, load_market, time_array
from mmdata.datasets.times import Moment, span
from mmdata.replay.fitness import refuse_overlap

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

Ints = NDArray[np.int64]

MessageKind = Literal["diff", "replace", "snapshot", "gap"]
_KINDS: dict[int, MessageKind] = {
    DIFF: "diff",
    REPLACE: "replace",
    SPLICE: "snapshot",
    GAP: "gap",
    GAP_OPEN: "gap",
}


@dataclass(frozen=True, slots=True)
class Level:
    """A price and what is shown at it: exact, and as whole ticks and lots."""

    price: Decimal
    size: Decimal
    ticks: int
    lots: int


class BookView:
    """The book as it stands now. Every event of a stream shows the same one: read it before the next."""

    def __init__(self, book: Book, tick_size: Decimal, lot_size: Decimal) -> None:
        self._book = book
        self._tick_size = tick_size
        self._lot_size = lot_size

    @property
    def valid(self) -> bool:
        """True while the book is proven to be the exchange's. An invalid book has no levels."""
        return self._book.valid

    @property
    def id(self) -> int | None:
        """The venue's id of the last message in the book; None where it is invalid."""
        return self._book.id if self.valid else None

    @property
    def best_bid(self) -> Level | None:
        """The highest bid; None where there is none or the book is invalid."""
        return next(iter(self.bids(1)), None)

    @property
    def best_ask(self) -> Level | None:
        """The lowest ask; None where there is none or the book is invalid."""
        return next(iter(self.asks(1)), None)

    def bids(self, depth: int | None = None) -> list[Level]:
        """Return the best ``depth`` bids (None: all), best first; none of an invalid book."""
        return self._levels(self._book.bids(depth)) if self.valid else []

    def asks(self, depth: int | None = None) -> list[Level]:
        """Return the best ``depth`` asks (None: all), best first; none of an invalid book."""
        return self._levels(self._book.asks(depth)) if self.valid else []

    def _levels(self, levels: list[tuple[int, int]]) -> list[Level]:
        return [Level(self._tick_size * ticks, self._lot_size * lots, ticks, lots) for ticks, lots in levels]


@dataclass(frozen=True, slots=True)
class BookEvent:
    """A book message was taken; or a hole, after which the book is invalid until a snapshot."""

    ts_recv: int
    """ns since the epoch, by the recorder's clock."""
    ts_event: int | None
    """ns since the epoch, by the exchange's; None where it sent none."""
    kind: MessageKind
    """``diff`` changed levels; ``replace`` a whole book in the stream; ``snapshot`` one asked for over
    REST; ``gap`` a recorded hole."""
    book: BookView


@dataclass(frozen=True, slots=True)
class TradeEvent:
    """A trade was reported, and the book as it was known then."""

    ts_recv: int
    """ns since the epoch, by the recorder's clock."""
    ts_event: int | None
    """ns since the epoch, by the exchange's; None where it sent none."""
    trade_id: int
    side: Literal["buy", "sell"]
    """What the taker did."""
    price: Decimal
    size: Decimal
    ticks: int
    lots: int
    book: BookView


Event = BookEvent | TradeEvent


def replay(
    root: str | os.PathLike[str],
    *,
    exchange: str,
    symbol: str,
    start: Moment | None = None,
    end: Moment | None = None,
) -> Iterator[Event]:
    """Stream one symbol's book and trades in the order of arrival.

    ``start`` and ``end`` are receive times, half-open: ISO 8601 text (no zone is UTC, a bare date the
    UTC day), ns since the epoch or datetimes. The book is built from before ``start``, so that it is
    right there. Trades that were asked for later over REST are left out: nobody saw them then.

    UsageError: a time cannot be read, the dataset holds nothing of the symbol, or two sessions ran at
    the same time. DatasetError: a file is damaged. Both are raised by the call, before the first event.
    """
    begin, until = span(start, end)
    market = load_market(root, exchange, symbol, end=until)
    refuse_overlap(market, begin, until, by_event=False)
    return events(market, begin)


def tops(
    root: str | os.PathLike[str],
    *,
    exchange: str,
    symbol: str,
    start: Moment | None = None,
    end: Moment | None = None,
) -> pl.DataFrame:
    """Return the best bid and ask after each book message, a row a message, in order of arrival.

    Columns: ``ts_recv``, ``ts_event``, ``valid``, ``bid_price``, ``bid_size``, ``ask_price``,
    ``ask_size``, exact decimals; null where a side is empty or the book invalid. Arguments and errors
    are those of `replay`. No Python loop runs over the messages.
    """
    begin, until = span(start, end)
    market = load_market(root, exchange, symbol, end=until)
    refuse_overlap(market, begin, until, by_event=False)
    return tops_of(market, begin)


def events(market: Market, begin: int | None = None) -> Iterator[Event]:
    """Stream a loaded market from the first event received at ``begin`` (ns; None: from the first)."""
    book = Book(market.columns, market.chain)
    view = BookView(book, market.tick_size, market.lot_size)
    trades = market.trades
    first = _first_at(market.ts_recv, begin)
    seen = np.flatnonzero(~trades.backfilled)
    seen = seen[_first_at(trades.ts_recv[seen], begin) :]
    _build(book, market, first)

    messages = np.arange(first, len(market.order))
    place = np.concatenate((market.order[messages], trades.order[seen]))
    is_trade = np.repeat((False, True), (len(messages), len(seen)))
    which = np.concatenate((messages, seen))
    rank = np.lexsort((is_trade, place))
    for i, trade in zip(which[rank].tolist(), is_trade[rank].tolist(), strict=True):
        if trade:
            yield _trade_event(market, i, view)
            continue
        book.step(i)
        kind = int(market.columns.kind[i])
        if kind != SESSION:  # nothing was received then: the next event shows what became of the book
            yield BookEvent(int(market.ts_recv[i]), _time(market.ts_event[i]), _KINDS[kind], view)


def tops_of(market: Market, begin: int | None = None) -> pl.DataFrame:
    """Return the tops of a loaded market, from the first message received at ``begin``; see `tops`."""
    import polars as pl
    import pyarrow as pa

    rows = build_tops(market)
    keep = np.arange(_first_at(market.ts_recv, begin), len(market.order))
    keep = keep[market.ts_recv[keep] != NO_TIME]  # the start of a session is no message
    rows = rows[keep]

    def decimals(column: int, unit: Decimal, empty: NDArray[np.bool_]) -> pa.Array:
        return decimal_array(np.where(empty, 0, rows[:, column]), unit, empty)

    no_bid, no_ask = rows[:, 1] == NO_PRICE, rows[:, 3] == NO_PRICE
    table = pa.table(
        {
            "ts_recv": time_array(market.ts_recv[keep]),
            "ts_event": time_array(market.ts_event[keep]),
            "valid": pa.array(rows[:, 0] == 1),
            "bid_price": decimals(1, market.tick_size, no_bid),
            "bid_size": decimals(2, market.lot_size, no_bid),
            "ask_price": decimals(3, market.tick_size, no_ask),
            "ask_size": decimals(4, market.lot_size, no_ask),
        }
    )
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


def build_tops(market: Market) -> Ints:
    """Rebuild the book over all messages: (n, 5) valid, best bid, its size, best ask, its size."""
    return _build(Book(market.columns, market.chain), market, len(market.order))


def _build(book: Book, market: Market, until: int) -> Ints:
    """Take the messages before ``until`` into ``book``; return the tops after each."""
    rows = np.empty((until, 5), np.int64)
    applied = np.empty(until, np.bool_)
    at = run(market.columns, 0, until, book.arrays, book.state, rows, applied)
    while at < until:
        book.grow()
        at = run(market.columns, at, until, book.arrays, book.state, rows, applied)
    return rows


def _first_at(ts_recv: Ints, begin: int | None) -> int:
    """Return the first position received at ``begin``; by place, since receive times may step back."""
    if begin is None:
        return 0
    late = np.flatnonzero(ts_recv >= begin)
    return int(late[0]) if late.size else len(ts_recv)


def _trade_event(market: Market, i: int, view: BookView) -> TradeEvent:
    trades = market.trades
    ticks, lots = int(trades.price[i]), int(trades.size[i])
    return TradeEvent(
        ts_recv=int(trades.ts_recv[i]),
        ts_event=_time(trades.ts_event[i]),
        trade_id=int(trades.trade_id[i]),
        side="buy" if trades.side[i] > 0 else "sell",
        price=market.tick_size * ticks,
        size=market.lot_size * lots,
        ticks=ticks,
        lots=lots,
        book=view,
    )


def _time(time: np.int64) -> int | None:
    return None if time == NO_TIME else int(time)
