"""The simulator's kernel: one pass over a recording, in which several lanes trade on one book.

A lane is a strategy with its parameters, and a fill model. Lanes never touch each other: what one does
is the same whoever runs beside it. Everything happens at a time of the exchange's clock, in this order
where times are equal:

1. fills that Poisson clocks have due: they happened in the interval that ends here;
2. trades, 3. book messages: the depth already holds the trade, and taken first it would shrink the
   queue before an order twice, once as a cancellation and once as the trade;
4. the venue's own quotes (best bid and ask);
5. what lanes have sent reaches the exchange: behind the market's own events of that moment;
6. lanes decide.

The touch is what stands at the exchange by the newest evidence: a book message, a quote, or a trade.
`state` names the fields of all arrays.
"""

from __future__ import annotations

from mmdata.datasets import _kernel as book_kernel
from mmdata.datasets import chain
from mmdata.datasets._kernel import (
    ASK,
    BID,
    BOOK_ID,
    FULL,
    NO_PRICE,
    VALID,
    Columns,
    Levels,
    best,
    best_size,
    step,
    take_near,
)
from mmdata.datasets.jit import helper, kernel
from mmdata.replay import state as s
from mmdata.replay.desk import Desk, check, desk_of, hear
from mmdata.replay.fills import (
    fill_by_touch,
    fill_by_trade,
    forget_taken,
    move_clocks,
    move_queues,
    ring_clocks,
    sweep_active,
)
from mmdata.replay.matching import arrive_all, withdraw
from mmdata.replay.state import NEVER, NOT_TOLD, Ints, World
from mmdata.replay.view import View

_CROSSES, _MOVES = 1, 2


@helper
def _touch_by_trade(met: int, price: int, engine: Ints) -> None:
    """Move the touch to where a trade met a maker, until a message or a quote tells it.

    Everything better than ``price`` is gone on the maker's side, and nothing can stand across it on the
    other. Where the trade went beyond the best price known, the other side is taken to follow: a touch
    that keeps its spread is nearer to the truth than one with a side left behind.
    """
    before, opposite = engine[s.TOUCH + met], engine[s.TOUCH + 1 - met]
    engine[s.TOUCH + met] = price
    engine[s.TOUCH_LOTS + met] = NOT_TOLD
    if opposite == NO_PRICE:
        return
    moved = opposite
    if before != NO_PRICE:
        moved += min(price - before, 0) if met == BID else max(price - before, 0)
    moved = max(moved, price + 1) if met == BID else min(moved, price - 1)
    if moved != opposite:
        engine[s.TOUCH + 1 - met] = moved
        engine[s.TOUCH_LOTS + 1 - met] = NOT_TOLD


@helper
def _set_touch(best_bid: int, bid_lots: int, best_ask: int, ask_lots: int, engine: Ints) -> int:
    """Take the touch as a message or a quote tells it; return what it may do: _CROSSES and _MOVES, or 0."""
    engine[s.TOUCH + BID] = best_bid
    engine[s.TOUCH_LOTS + BID] = bid_lots
    engine[s.TOUCH + ASK] = best_ask
    engine[s.TOUCH_LOTS + ASK] = ask_lots
    two_sided = 1 if best_bid != NO_PRICE and best_ask != NO_PRICE else 0
    mid2 = best_bid + best_ask if two_sided == 1 else engine[s.MID2]
    does = 0
    if engine[s.CLOCKS] == 1 and (mid2 != engine[s.MID2] or two_sided != engine[s.TWO_SIDED]):
        does = _MOVES
    engine[s.MID2] = mid2
    engine[s.TWO_SIDED] = two_sided
    if (best_ask != NO_PRICE and best_ask <= engine[s.OWN + BID]) or best_bid >= engine[s.OWN + ASK]:
        does |= _CROSSES
    return does


@kernel(book_kernel, chain, s)
def _begin_decision(
    feed_seen: Ints, signal_seen: Ints, tops: Ints, decisions: Ints, now: int, engine: Ints
) -> bool:
    """Note a decision that is due at ``now``; return whether strategies are asked.

    They are where they see a valid book with two sides, and any of them may do something.
    """
    messages = len(feed_seen)
    seen = engine[s.SEEN]
    while seen < messages and feed_seen[seen] <= now:
        seen += 1
    engine[s.SEEN] = seen
    while engine[s.NEXT_SIGNAL] < len(signal_seen) and signal_seen[engine[s.NEXT_SIGNAL]] <= now:
        engine[s.NEXT_SIGNAL] += 1
    decision = decisions[engine[s.DECISIONS]]
    decision[s.DECISION_TIME] = now
    decision[s.DECISION_SEEN] = engine[s.FIRST_MESSAGE] + seen - 1
    decision[s.DECISION_MID2] = engine[s.MID2]
    decision[s.DECISION_QUOTED] = 0
    engine[s.DECISIONS] += 1
    if seen > 0:
        top = tops[seen - 1]
        if top[s.TOP_VALID] == 1 and top[s.TOP_BID] != NO_PRICE and top[s.TOP_ASK] != NO_PRICE:
            decision[s.DECISION_QUOTED] = 1
            engine[s.QUOTED] += 1
            unmoved = top[s.TOP_BID] == engine[s.ASKED + BID] and top[s.TOP_ASK] == engine[s.ASKED + ASK]
            engine[s.UNMOVED] = 1 if unmoved else 0
            engine[s.ASKED + BID] = top[s.TOP_BID]
            engine[s.ASKED + ASK] = top[s.TOP_ASK]
    # While no valid book is seen nothing can be decided: one decision says so, the next is made when
    # something new was seen.
    interval = engine[s.INTERVAL]
    news = feed_seen[seen] if seen < messages else NEVER
    if interval == 0:
        engine[s.NEXT_DECISION] = news
    else:
        engine[s.NEXT_DECISION] += interval
        if decision[s.DECISION_QUOTED] == 0:
            if news == NEVER:
                engine[s.NEXT_DECISION] = NEVER
            elif news > engine[s.NEXT_DECISION]:
                engine[s.NEXT_DECISION] += -((engine[s.NEXT_DECISION] - news) // interval) * interval
    if engine[s.UNMOVED] == 1 and engine[s.IDLE] == 1 and engine[s.MOST_REPORTS] == 0:
        return False
    return bool(decision[s.DECISION_QUOTED] == 1)


@kernel(book_kernel, chain, s)
def _look(columns: Columns, levels: Levels, book: Ints, engine: Ints) -> bool:
    """Bring the book that strategies see up to the last message seen; False: it must grow first."""
    while engine[s.LOOKED] < engine[s.SEEN]:
        if not take_near(columns, engine[s.LOOKED], levels, book):
            step(columns, engine[s.LOOKED], levels, book)
        if book[FULL] == 1:
            return False
        engine[s.LOOKED] += 1
    return True


@helper
def view_of(world: World, lane: int) -> View:
    """Return what a lane may know, where a decision is due."""
    engine, lanes = world.engine, world.lanes
    return View(
        world.decisions[engine[s.DECISIONS] - 1, s.DECISION_TIME],
        world.tops[engine[s.SEEN] - 1],
        world.seen_levels,
        world.seen_book,
        world.signal[engine[s.NEXT_SIGNAL]],
        lanes.parameter[lane],
        lanes.memory[lane],
        lanes.account[lane],
    )


@kernel()
def decide(view: View, desk: Desk) -> None:
    """Stand for the strategy, which takes this name's place in `advance`: see `deciding`."""


def advance(world: World, until: int) -> int:
    """Let everything happen that happens before ``until``; return DONE, or what must be done to go on.

    DECIDE, where the engine's state says that strategies are not called: a valid book is seen, and each
    lane may send what it wants before the next call.
    """
    feed, lanes, engine, response = world.feed, world.lanes, world.engine, world.wire.response
    levels, book = world.levels, world.book
    messages, trades, quotes = len(feed.acts), len(feed.trade_acts), len(feed.quote_acts)
    slots = lanes.order.shape[1]
    room = min(lanes.fill.shape[1], lanes.report.shape[1]) - slots * (s.LEVELS_TAKEN + 2)
    log_room = lanes.log.shape[1] - slots
    while True:
        if engine[s.UNDECIDED] == 1:
            if engine[s.DEEP] == 1 and not _look(feed.columns, world.seen_levels, world.seen_book, engine):
                return s.SEEN_FULL
            engine[s.UNDECIDED] = 0
            engine[s.MOST_REPORTS] = 0
            if engine[s.CALLS] == 0:
                return s.DECIDE
            seen_at = world.decisions[engine[s.DECISIONS] - 1, s.DECISION_TIME]
            idle = 1
            for lane in range(len(lanes.model)):
                account = lanes.account[lane]
                if engine[s.UNMOVED] == 1 and account[s.RESTS] == 1 and account[s.REPORTS] == 0:
                    continue
                own = desk_of(lanes, lane, seen_at, world.wire.order, engine)
                if account[s.REPORTS] > 0:
                    hear(own)
                sent, refused = account[s.SENT_COUNT], account[s.REFUSED]
                decide(view_of(world, lane), own)
                did = account[s.SENT_COUNT] != sent or account[s.WRONG] != 0
                if did and not check(own):
                    engine[s.WRONG_LANE] = lane
                    return s.FAULT
                account[s.RESTS] = 0 if did or account[s.REFUSED] != refused else engine[s.STEADY]
                idle &= account[s.RESTS]
            engine[s.IDLE] = idle

        message, trade, quote = engine[s.NEXT_MESSAGE], engine[s.NEXT_TRADE], engine[s.NEXT_QUOTE]
        message_acts = feed.acts[message] if message < messages else NEVER
        trade_acts = feed.trade_acts[trade] if trade < trades else NEVER
        quote_acts = feed.quote_acts[quote] if quote < quotes else NEVER
        due, arrives, decision = engine[s.NEXT_DUE], engine[s.NEXT_ARRIVAL], engine[s.NEXT_DECISION]
        now = min(due, trade_acts, message_acts, quote_acts, arrives, decision)
        if now >= until:
            return s.DONE
        if max(engine[s.MOST_FILLS], engine[s.MOST_REPORTS]) > room:
            return s.ROOM_FULL

        # What nearly all events are is done here: a function that is handed all arrays costs more than its
        # work.
        if now == due:
            ring_clocks(lanes, response, now, engine)

        elif now == trade_acts:
            engine[s.NEXT_TRADE] += 1
            if engine[s.WAS_VALID] == 0:
                continue
            engine[s.TRADES] += 1
            met = BID if feed.trade_side[trade] < 0 else ASK  # the side that the taker met
            price = feed.trade_price[trade]
            if engine[s.OWN + BID] >= price or engine[s.OWN + ASK] <= price:
                number = engine[s.TRADES]
                fill_by_trade(lanes, met, price, feed.trade_size[trade], number, response, now, engine)
            _touch_by_trade(met, price, engine)

        elif now == message_acts:
            if not take_near(feed.columns, message, levels, book):
                step(feed.columns, message, levels, book)
            if book[FULL] == 1:
                return s.BOOK_FULL
            engine[s.NEXT_MESSAGE] += 1
            top = world.tops[message]
            top[s.TOP_VALID] = book[VALID]
            if book[VALID] == 1:
                best_bid, ask_key = best(levels, book, BID), best(levels, book, ASK)
                best_ask = -ask_key if ask_key != NO_PRICE else NO_PRICE
                bid_lots, ask_lots = best_size(levels, book, BID), best_size(levels, book, ASK)
                top[s.TOP_BID] = best_bid
                top[s.TOP_BID_LOTS] = bid_lots
                top[s.TOP_ASK] = best_ask
                top[s.TOP_ASK_LOTS] = ask_lots
                does = _set_touch(best_bid, bid_lots, best_ask, ask_lots, engine)
                if does & _CROSSES:
                    fill_by_touch(lanes, best_bid, bid_lots, best_ask, ask_lots, True, response, now, engine)
                if does & _MOVES:
                    move_clocks(lanes, now, engine)
                if engine[s.ACTIVE] > 0:
                    move_queues(lanes, feed.columns, message, levels, book, engine)
                if engine[s.TAKEN] > 0:
                    forget_taken(lanes, levels, book, engine)
            else:
                top[s.TOP_BID] = NO_PRICE
                top[s.TOP_BID_LOTS] = 0
                top[s.TOP_ASK] = NO_PRICE
                top[s.TOP_ASK_LOTS] = 0
                if engine[s.WAS_VALID] == 1:
                    engine[s.TWO_SIDED] = 0
                    engine[s.TOUCH + BID] = NO_PRICE
                    engine[s.TOUCH + ASK] = NO_PRICE
                    withdraw(lanes, now, engine)
            engine[s.WAS_VALID] = book[VALID]

        elif now == quote_acts:
            engine[s.NEXT_QUOTE] += 1
            # At one moment only the ids say which of message and quote is the newer.
            older = message > 0 and feed.acts[message - 1] == now and feed.quote_id[quote] <= book[BOOK_ID]
            if engine[s.WAS_VALID] == 0 or older:
                continue
            engine[s.QUOTES] += 1
            best_bid, best_ask = feed.quote_price[quote, BID], feed.quote_price[quote, ASK]
            bid_lots, ask_lots = feed.quote_size[quote, BID], feed.quote_size[quote, ASK]
            does = _set_touch(best_bid, bid_lots, best_ask, ask_lots, engine)
            if does & _CROSSES:
                fill_by_touch(lanes, best_bid, bid_lots, best_ask, ask_lots, False, response, now, engine)
            if does & _MOVES:
                move_clocks(lanes, now, engine)

        elif now == arrives:
            arrive_all(lanes, levels, book, response, now, engine)

        else:
            if engine[s.DECISIONS] == len(world.decisions):
                return s.DECISIONS_FULL
            if engine[s.LOGS] == 1 and engine[s.MOST_LOGGED] > log_room:
                return s.ROOM_FULL
            if _begin_decision(feed.seen, world.signal_seen, world.tops, world.decisions, now, engine):
                engine[s.UNDECIDED] = 1
            continue

        if engine[s.STALE] == 1:
            sweep_active(lanes, engine)
