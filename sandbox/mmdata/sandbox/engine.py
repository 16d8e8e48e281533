"""A matching engine: price, then time, exactly; orders in, fills and level changes out.

Everything is an integer: prices in ticks, sizes in lots. Nothing here knows a clock, a symbol or a
wire format, so that the same engine serves any market and any test. Time never enters: the
order in which the methods are called *is* the order of events.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Side: TypeAlias = Literal["bid", "ask"]
Taker: TypeAlias = Literal["buy", "sell"]


class Limit(NamedTuple):
    """An order with a price: what crosses is matched first, the rest goes to the end of its queue."""

    side: Side
    px_ticks: int
    qty_lots: int


class Market(NamedTuple):
    """An order without a price; what the book cannot fill expires."""

    side: Side
    qty_lots: int


class Cancel(NamedTuple):
    """Take a resting order off; refused (``Outcome.accepted`` false) when it no longer rests."""

    order_id: int


Action: TypeAlias = Limit | Market | Cancel


class Fill(NamedTuple):
    """One resting order met one incoming order; the price is the resting order's."""

    trade_id: int
    maker_id: int
    taker_id: int
    taker: Taker
    px_ticks: int
    qty_lots: int
    maker_left_lots: int


class LevelChange(NamedTuple):
    """A level as it is after a change; ``qty_lots`` 0 means that it is gone."""

    update_id: int
    side: Side
    px_ticks: int
    qty_lots: int
    orders: int


class Outcome(NamedTuple):
    """What one action did: fills in time order, then each level it changed, once."""

    order_id: int
    action: Action
    accepted: bool
    fills: tuple[Fill, ...]
    changes: tuple[LevelChange, ...]
    rested_lots: int
    cancelled_lots: int = 0


class LevelView(NamedTuple):
    """One price of one side: total size and number of orders."""

    px_ticks: int
    qty_lots: int
    orders: int


@dataclass(slots=True)
class Order:
    """A resting order; ``left_lots`` shrinks with partial fills, its place in the queue stays."""

    order_id: int
    side: Side
    px_ticks: int
    left_lots: int


@dataclass(slots=True)
class _Level:
    px_ticks: int
    qty_lots: int = 0
    # A linked map: oldest first, and a cancel in the middle costs as little as a fill at the front.
    queue: OrderedDict[int, Order] = field(default_factory=OrderedDict)


class _BookSide:
    """One side of the book; keys are prices times ``sign``, so that the best key is always first."""

    __slots__ = ("keys", "levels", "side", "sign")

    def __init__(self, side: Side) -> None:
        self.side: Side = side
        self.sign = -1 if side == "bid" else 1
        self.keys: list[int] = []
        self.levels: dict[int, _Level] = {}

    def level(self, px_ticks: int) -> _Level:
        """Return the level at a price, made when absent."""
        level = self.levels.get(px_ticks)
        if level is None:
            level = self.levels[px_ticks] = _Level(px_ticks)
            insort(self.keys, self.sign * px_ticks)
        return level

    def drop_if_empty(self, level: _Level) -> None:
        """Remove a level that holds no order."""
        if not level.queue:
            del self.levels[level.px_ticks]
            del self.keys[bisect_left(self.keys, self.sign * level.px_ticks)]

    def __iter__(self) -> Iterator[LevelView]:
        """Yield the levels, best first."""
        for key in self.keys:
            level = self.levels[self.sign * key]
            yield LevelView(level.px_ticks, level.qty_lots, len(level.queue))


class MatchingEngine:
    """A book of one instrument; counters for orders, trades and level changes are its own.

    ``update_id`` grows by one for each level that an action changes: a market order that eats two
    orders at one price is one change, one that eats two prices is two.
    """

    def __init__(self, first_update_id: int = 0, first_trade_id: int = 0) -> None:
        self.update_id = first_update_id
        self.last_trade_id = first_trade_id
        self.last_order_id = 0
        self.orders: dict[int, Order] = {}
        self._bids = _BookSide("bid")
        self._asks = _BookSide("ask")
        self._added_lots = 0
        self._executed_lots = 0
        self._cancelled_lots = 0

    def best_bid(self) -> int | None:
        """Return the highest bid in ticks, or None."""
        keys = self._bids.keys
        return -keys[0] if keys else None

    def best_ask(self) -> int | None:
        """Return the lowest ask in ticks, or None."""
        keys = self._asks.keys
        return keys[0] if keys else None

    def bids(self) -> Iterator[LevelView]:
        """Yield the bid levels, highest price first."""
        return iter(self._bids)

    def asks(self) -> Iterator[LevelView]:
        """Yield the ask levels, lowest price first."""
        return iter(self._asks)

    def top(self, side: Side) -> LevelView | None:
        """Return the best level of a side, or None when the side is empty."""
        return next(iter(self._side(side)), None)

    def at(self, side: Side, px_ticks: int) -> LevelView:
        """Return a level by its price; size 0 and no orders when it is not there."""
        level = self._side(side).levels.get(px_ticks)
        if level is None:
            return LevelView(px_ticks, 0, 0)
        return LevelView(px_ticks, level.qty_lots, len(level.queue))

    def queue(self, side: Side, px_ticks: int) -> list[Order]:
        """Return the orders at a price, oldest first; empty when the level is not there."""
        level = self._side(side).levels.get(px_ticks)
        return list(level.queue.values()) if level else []

    def apply(self, action: Action) -> Outcome:
        """Carry out one action and return what it did.

        Raises ValueError for a size or price that is not positive: that is the caller's bug, while
        a cancel that comes too late is a market's everyday life and is only refused.
        """
        if isinstance(action, Cancel):
            return self._cancel(action)
        if isinstance(action, Market):
            return self._enter(action, limit_ticks=None)
        if action.px_ticks <= 0:
            raise ValueError(f"limit price is {action.px_ticks} ticks, must be positive")
        return self._enter(action, limit_ticks=action.px_ticks)

    def _side(self, side: Side) -> _BookSide:
        return self._bids if side == "bid" else self._asks

    def _enter(self, action: Limit | Market, limit_ticks: int | None) -> Outcome:
        if action.qty_lots <= 0:
            raise ValueError(f"order size is {action.qty_lots} lots, must be positive")
        self.last_order_id += 1
        order_id = self.last_order_id
        fills: list[Fill] = []
        changes: list[LevelChange] = []
        left = self._match(order_id, action.side, action.qty_lots, limit_ticks, fills, changes)
        if left and limit_ticks is not None:
            changes.append(self._rest(Order(order_id, action.side, limit_ticks, left)))
        rested = left if limit_ticks is not None else 0
        return Outcome(order_id, action, True, tuple(fills), tuple(changes), rested)

    def _match(
        self,
        taker_id: int,
        side: Side,
        lots: int,
        limit_ticks: int | None,
        fills: list[Fill],
        changes: list[LevelChange],
    ) -> int:
        """Fill against the other side up to the limit; return the lots that are left."""
        book = self._asks if side == "bid" else self._bids
        limit_key = None if limit_ticks is None else book.sign * limit_ticks
        while lots and book.keys and (limit_key is None or book.keys[0] <= limit_key):
            level = book.levels[book.sign * book.keys[0]]
            while lots and level.queue:
                lots -= self._fill_front(taker_id, side, lots, level, fills)
            book.drop_if_empty(level)
            changes.append(self._changed(book.side, level))
        return lots

    def _fill_front(self, taker_id: int, side: Side, lots: int, level: _Level, fills: list[Fill]) -> int:
        """Fill the oldest order of a level, wholly or in part; return the lots executed."""
        maker = next(iter(level.queue.values()))
        executed = min(lots, maker.left_lots)
        maker.left_lots -= executed
        level.qty_lots -= executed
        self._executed_lots += executed
        if not maker.left_lots:
            del level.queue[maker.order_id]
            del self.orders[maker.order_id]
        self.last_trade_id += 1
        fills.append(
            Fill(
                self.last_trade_id,
                maker.order_id,
                taker_id,
                "buy" if side == "bid" else "sell",
                level.px_ticks,
                executed,
                maker.left_lots,
            )
        )
        return executed

    def _rest(self, order: Order) -> LevelChange:
        level = self._side(order.side).level(order.px_ticks)
        level.queue[order.order_id] = order
        level.qty_lots += order.left_lots
        self.orders[order.order_id] = order
        self._added_lots += order.left_lots
        return self._changed(order.side, level)

    def _cancel(self, action: Cancel) -> Outcome:
        order = self.orders.pop(action.order_id, None)
        if order is None:
            return Outcome(action.order_id, action, False, (), (), 0)
        book = self._side(order.side)
        level = book.levels[order.px_ticks]
        del level.queue[order.order_id]
        level.qty_lots -= order.left_lots
        self._cancelled_lots += order.left_lots
        book.drop_if_empty(level)
        change = self._changed(order.side, level)
        return Outcome(action.order_id, action, True, (), (change,), 0, order.left_lots)

    def _changed(self, side: Side, level: _Level) -> LevelChange:
        self.update_id += 1
        return LevelChange(self.update_id, side, level.px_ticks, level.qty_lots, len(level.queue))

    def rewind_ids(self, updates: int, trades: int) -> None:
        """Let both counters go down, as a venue's do when it starts anew."""
        self.update_id -= updates
        self.last_trade_id -= trades

    def check_invariants(self) -> None:
        """Raise AssertionError, naming what is wrong, unless the book is whole.

        Never crossed or locked; sizes of levels are the sums of their orders; queues are in order
        of arrival; lots that came to rest = executed + cancelled + resting.
        """
        bid, ask = self.best_bid(), self.best_ask()
        assert bid is None or ask is None or bid < ask, f"crossed: bid {bid}, ask {ask}"
        resting = 0
        seen: set[int] = set()
        for book in (self._bids, self._asks):
            assert book.keys == sorted(book.sign * px for px in book.levels), "keys out of step"
            for px, level in book.levels.items():
                ids = list(level.queue)
                assert ids, f"empty level at {px}"
                assert ids == sorted(ids), f"queue at {px} is not in order of arrival: {ids}"
                lots = sum(order.left_lots for order in level.queue.values())
                assert lots == level.qty_lots, f"level {px} says {level.qty_lots}, orders {lots}"
                resting += lots
                seen.update(ids)
        assert seen == set(self.orders), "orders at levels are not the orders known by id"
        assert self._added_lots == self._executed_lots + self._cancelled_lots + resting, (
            f"lots are lost: added {self._added_lots}, executed {self._executed_lots}, "
            f"cancelled {self._cancelled_lots}, resting {resting}"
        )
