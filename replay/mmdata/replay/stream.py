"""Recordings as a stream: books and trades of one market or many, in the order in which they arrived."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import DIFF, GAP, GAP_OPEN, REPLACE, SESSION, SPLICE
from mmdata.datasets.book import NO_PRICE, Book, next_part
from mmdata.datasets.decimals import decimal_array
from mmdata.datasets.errors import UsageError
from mmdata.datasets.loading import Recording
from mmdata.datasets.market import NO_TIME, Market, time_array
from mmdata.datasets.times import Moment, interval_ns, span
from mmdata.replay.state import NEVER
from mmdata.replay.survey import Held, refuse_overlaps

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
_BLOCK = 1 << 16  # arrivals that are Python numbers at a time


@dataclass(frozen=True, slots=True)
class Level:
    """A price and what is shown at it: exact, and as whole ticks and lots."""

    price: Decimal
    size: Decimal
    ticks: int
    lots: int


class BookView:
    """The book as it stands now. Every event of a market shows the same one: read it before the next."""

    def __init__(self, book: Book, market: Market, depth: int | None = None) -> None:
        self._book = book
        self._tick_size = market.tick_size
        self._lot_size = market.lot_size
        self._depth = depth
        self.exchange = market.exchange
        self.symbol = market.symbol

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
        """Return the best ``depth`` bids, best first; none of an invalid book.

        None: as many as were asked of the stream, else all.
        """
        return self._levels(self._book.bids(depth or self._depth)) if self.valid else []

    def asks(self, depth: int | None = None) -> list[Level]:
        """Return the best ``depth`` asks, best first; as `bids`."""
        return self._levels(self._book.asks(depth or self._depth)) if self.valid else []

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


@dataclass(frozen=True, slots=True)
class IntervalEvent:
    """An interval is over: the book as it was known then, and what was traded since the one before."""

    ts_recv: int
    """ns since the epoch, by the recorder's clock: a whole multiple of the interval."""
    trades: tuple[TradeEvent, ...]
    """In order of arrival, all after the interval before and up to this moment."""
    book: BookView


Event = BookEvent | TradeEvent | IntervalEvent


def replay(
    root: str | os.PathLike[str],
    *,
    exchange: str | Sequence[str],
    symbol: str | Sequence[str],
    start: Moment | None = None,
    end: Moment | None = None,
    every: str | float | None = None,
    depth: int | None = None,
) -> Iterator[Event]:
    """Stream books and trades in the order of arrival (``ts_recv``), of one market or of several.

    Several: ``exchange`` and ``symbol`` are lists, one of each a market (or one of them a word that all
    share). Their events are merged by receive time, at equal times in the order of the lists;
    ``event.book`` says whose it is.

    Without ``every`` an event for each book message and each trade. With it (``"100ms"``, or seconds) one at
    each whole multiple of it, an `IntervalEvent`: the book holds the messages received up to then, none
    later. Where the book is not proven there is none, but for the first after it ceased to be, and those
    with trades; nothing is told across a hole. ``depth`` is how many levels the books show unless asked for
    more.

    ``start`` and ``end`` are receive times, half-open: ISO 8601 text (no zone is UTC, a bare date the
    UTC day), ns since the epoch or datetimes. The book is built from before ``start``, so that it is
    right there. Trades that were asked for later over REST are left out: nobody saw them then.

    UsageError: a time or an argument cannot be read, the dataset holds nothing of a symbol, or two sessions
    ran at the same time. DatasetError: a file is damaged. Both are raised by the call, before the first
    event: it goes through the recording once, and its events once more, a session at a time.
    """
    begin, until = span(start, end)
    step = 0 if every is None else interval_ns(every)
    if depth is not None and depth < 1:
        raise UsageError(f"depth={depth} is no number of levels, expected at least 1")
    recordings = []
    for own_exchange, own_symbol in _markets(exchange, symbol):
        parts = Held(Recording(root, own_exchange, own_symbol, end=until))
        refuse_overlaps(parts, begin, until)
        recordings.append(parts)
    return events(recordings, begin, until, step, depth)


def _markets(exchange: str | Sequence[str], symbol: str | Sequence[str]) -> list[tuple[str, str]]:
    exchanges, symbols = ([own] if isinstance(own, str) else [*own] for own in (exchange, symbol))
    count = max(len(exchanges), len(symbols))
    if isinstance(exchange, str):
        exchanges *= count
    if isinstance(symbol, str):
        symbols *= count
    if not count or len(exchanges) != len(symbols):
        raise UsageError(
            f"{len(exchanges)} exchanges and {len(symbols)} symbols are named, expected one of each for "
            f"every market"
        )
    markets = [*zip(exchanges, symbols, strict=True)]
    if len({*markets}) < count:
        raise UsageError(f"a market is named twice in {markets}, expected each once")
    return markets


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
    parts = Held(Recording(root, exchange, symbol, end=until))
    refuse_overlaps(parts, begin, until)
    return tops_of(parts, begin)


def events(
    recordings: Sequence[Iterable[Market]],
    begin: int | None = None,
    end: int | None = None,
    every: int = 0,
    depth: int | None = None,
) -> Iterator[Event]:
    """Stream recordings, each in parts, from the first event received at ``begin`` (ns; None: the first).

    ``every`` (ns; 0: an event for each arrival) and ``depth`` are as in `replay`; ``end`` (ns) is where the
    recordings were cut.
    """
    players = [_Player(parts, begin, end, every, depth) for parts in recordings]
    coming = [(player.time, at) for at, player in enumerate(players) if player.time is not None]
    heapq.heapify(coming)
    while coming:
        _, at = coming[0]
        event = players[at].take()
        if event is not None:
            yield event
        time = players[at].time
        if time is None:
            heapq.heappop(coming)
        else:
            heapq.heapreplace(coming, (time, at))


class _Player:
    """Plays a recording; what comes next is known before it is taken: no book is ahead of another's event."""

    def __init__(
        self, parts: Iterable[Market], begin: int | None, end: int | None, every: int, depth: int | None
    ) -> None:
        self._every = every
        self._moment = NO_TIME if begin is None or not every else -(-begin // every) * every
        self._shown = False
        """The interval before showed a valid book."""
        self._traded: list[TradeEvent] = []
        self._market: Market
        self._book: Book
        self._view: BookView
        self._arrivals = self._arriving(parts, begin, depth)
        self._arrival = next(self._arrivals, None)
        self._cut_at = end
        self._latest = NO_TIME
        self.time: int | None = None
        """When what comes next comes, ns; None: nothing does."""
        self._interval_is_next = False
        self._look_ahead()

    def take(self) -> Event | None:
        """Take what comes next into the book; return what is to be told of it."""
        event: Event | None
        if self._interval_is_next:
            event = IntervalEvent(self._moment, tuple(self._traded), self._view)
            self._traded, self._shown = [], self._book.valid
            self._moment += self._every
        else:
            assert self._arrival is not None
            self._latest, is_trade, i = self._arrival
            event = self._trade(i) if is_trade else self._message(i)
            if self._every:
                self._traded += [event] if isinstance(event, TradeEvent) else []
                event = None
            self._arrival = next(self._arrivals, None)
        self._look_ahead()
        return event

    def _look_ahead(self) -> None:
        self.time = None if self._arrival is None else self._arrival[0]
        self._interval_is_next = False
        if not self._every:
            return
        until = self.time
        if until is None:
            until = self._latest + 1 if self._cut_at is None or not self._market.more else self._cut_at
        if not (self._book.valid or self._shown or self._traded):
            self._moment = max(self._moment, -(-until // self._every) * self._every)
        if self._moment < until:
            self.time, self._interval_is_next = self._moment, True

    def _trade(self, i: int) -> TradeEvent:
        market, trades = self._market, self._market.trades
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
            book=self._view,
        )

    def _message(self, i: int) -> BookEvent | None:
        self._book.step(i)
        market = self._market
        kind = int(market.columns.kind[i])
        if kind == SESSION:  # nothing was received then: the next event shows what became of the book
            return None
        return BookEvent(int(market.ts_recv[i]), _time(market.ts_event[i]), _KINDS[kind], self._view)

    def _arriving(
        self, parts: Iterable[Market], begin: int | None, depth: int | None
    ) -> Iterator[tuple[int, bool, int]]:
        """Yield time, whether it is a trade, and which, from what was received at ``begin`` on.

        Times never fall. It is of the part that ``self._market`` then is. A session ends just after what came
        last: its book is no longer known then.
        """
        latest_before, reached = NO_TIME, begin is None
        book: Book | None = None
        for market in parts:
            is_first = book is None
            book = next_part(book, market.columns, market.chain)
            self._market, self._book = market, book
            if is_first:
                self._view = BookView(book, market, depth)
            messages, trades = np.arange(len(market.order)), market.trades
            seen = np.flatnonzero(~trades.backfilled)
            if not reached:
                first = [
                    own.order[which][at]
                    for own, which in ((market, messages), (trades, seen))
                    if (at := _first_at(own.ts_recv[which], begin)) < len(which)
                ]
                reached = bool(first)
                place = min(first, default=NEVER)
                messages = messages[market.order >= place]
                seen = seen[trades.order[seen] >= place]
                _build(book, len(market.order) - len(messages))
            is_trade = np.repeat((False, True), (len(messages), len(seen)))
            which = np.concatenate((messages, seen))
            rank = np.lexsort((is_trade, np.concatenate((market.order[messages], trades.order[seen]))))
            is_trade, which = is_trade[rank], which[rank]
            times = np.concatenate((market.ts_recv[messages], trades.ts_recv[seen]))[rank]
            latest = np.maximum.accumulate(np.maximum(times, latest_before))
            latest_before = int(latest[-1]) if len(latest) else latest_before
            latest[times == NO_TIME] += 1
            for at in range(0, len(which), _BLOCK):
                block = slice(at, at + _BLOCK)
                yield from zip(
                    latest[block].tolist(), is_trade[block].tolist(), which[block].tolist(), strict=True
                )


def tops_of(parts: Iterable[Market], begin: int | None = None) -> pl.DataFrame:
    """Return the tops of a recording in parts, from the first message received at ``begin``; see `tops`."""
    import polars as pl

    rebuild, frames, reached = Rebuild(), [], begin is None
    for market in parts:
        rows = rebuild.tops(market)
        first = 0 if reached else _first_at(market.ts_recv, begin)
        reached |= first < len(rows)
        frames.append(_tops_frame(market, rows, first))
    return pl.concat(frames)


def _tops_frame(market: Market, rows: Ints, first: int) -> pl.DataFrame:
    import polars as pl
    import pyarrow as pa

    keep = np.arange(first, len(market.order))
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


class Rebuild:
    """Rebuilds the book of a recording part by part."""

    def __init__(self) -> None:
        self._book: Book | None = None

    def tops(self, market: Market) -> Ints:
        """Return the tops after each message of the next part.

        (n, 5) valid, best bid, its size, best ask, its size; ticks and lots.
        """
        self._book = next_part(self._book, market.columns, market.chain)
        return _build(self._book, len(market.order))


def _build(book: Book, until: int) -> Ints:
    """Take the messages before ``until`` into ``book``; return the tops after each."""
    rows = np.empty((until, 5), np.int64)
    book.run(0, until, rows, np.empty(until, np.bool_))
    return rows


def _first_at(ts_recv: Ints, begin: int | None) -> int:
    """Return the first position received at ``begin``; by place, since receive times may step back."""
    if begin is None:
        return 0
    late = np.flatnonzero(ts_recv >= begin)
    return int(late[0]) if late.size else len(ts_recv)


def _time(time: np.int64) -> int | None:
    return None if time == NO_TIME else int(time)
