"""The simulator's kernel: one pass over a recording, in which several lanes trade on one book.

A lane is a strategy with its parameters, and a fill model. Lanes never touch each other: what one does
is the same whoever runs beside it. Everything happens at a time of the exchange's clock, in this order
where times are equal:

1. fills that the Poisson model's clock has due: they happened in the interval that ends here;
2. trades, 3. book messages: the depth already holds the trade, and taken first it would shrink the
   queue before an order twice, once as a cancellation and once as the trade;
4. the venue's own quotes (best bid and ask);
5. what lanes have sent reaches the exchange: behind the market's own events of that moment;
6. lanes decide.

The touch is what stands at the exchange by the newest evidence: a book message, a quote, or a trade.

Inside, prices are integer ticks, sizes integer lots, and mids twice the mid (best bid plus best ask), so
that half ticks are whole. The state lies in arrays: the engine stops where its arrays are full, or at a
time, and goes on from there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    level_known,
    level_size,
    step,
)
from mmdata.datasets.jit import kernel
from mmdata.replay import queues
from mmdata.replay.queues import after_depth, reached

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NEVER = 2**62
"""A time that does not come."""

# Fill models.
PRICE_CROSS = 0
TRADE_THROUGH = 1
POISSON = 2
L2_QUEUE = 3

# What stopped `advance`.
DONE = 0
BOOK_FULL = 1  # grow the book's arrays and go on
FILLS_FULL = 2  # grow the lanes' fills and draws and go on
DECISIONS_FULL = 3  # grow the decisions and go on

# Fields of the engine's state.
NEXT_MESSAGE = 0
NEXT_TRADE = 1
NEXT_DECISION = 2  # time
DECISIONS = 3  # how many were made
SEEN = 4  # messages that the strategies may know of
MID2 = 5  # the last known mid at the exchange, twice
TWO_SIDED = 6  # 1 while the exchange's book is valid and has both sides
WAS_VALID = 7
INTERVAL = 8
ORDER_LATENCY = 9
RESPONSE_LATENCY = 10
NEXT_QUOTE = 11
QUOTES = 12  # quotes that set the touch
TOUCH = 13  # TOUCH + side: the best price at the exchange by the newest evidence, NO_PRICE for none
TOUCH_LOTS = 15  # TOUCH_LOTS + side: lots at it; NOT_TOLD where only a trade tells the price
ENGINE_SIZE = 17
NOT_TOLD = -1

# Whole-number parameters of a lane.
ORDER_LOTS, MOST_LOTS, QUEUE_RULE, QUEUE_CORRECTED, TICK_STEP = 0, 1, 2, 3, 4
WHOLE_SIZE = 5
# Real parameters of a lane.
HALF_SPREAD, SKEW, INTENSITY, DECAY, QUEUE_POWER = 0, 1, 2, 3, 4
REAL_SIZE = 5

# A lane's order on one side: it has at most one, and at most one instruction on its way.
PRICE = 0
LEAVES = 1  # lots still open at the exchange; 0 means no order
PLACED = 2  # when it reached the exchange
ARRIVES = 3  # when the instruction reaches the exchange; NEVER where none is on its way
NEW_PRICE = 4
NEW_SIZE = 5  # 0 cancels
KNEW_FILLED = 6  # lots of this side that the lane knew filled when it sent the instruction
ANSWERED = 7  # when the lane knows what became of its last instruction
DUE = 8  # when the Poisson clock fills the order
RATE_SINCE = 9
ORDER_SIZE = 10

# What a lane's fill model knows of the order of one side.
FRONT = 0  # lots before it in the queue; below 0 a fraction of a lot that has reached it
TRADED = 1  # lots traded at its price since the level was last told
SHOWN = 2  # lots shown at its price; below 0 where the feed has not told yet
WAIT = 3  # what is left of the Poisson clock's exponential wait, in units of its mean
RATE = 4  # of the Poisson clock, per ns
QUEUE_SIZE = 5

# A lane's account.
INVENTORY = 0  # lots
KNOWN_INVENTORY = 1  # as far as the lane was told
FILLED = 2  # lots; FILLED + side
KNOWN_FILLED = 4  # KNOWN_FILLED + side
FILLS = 6
KNOWN_FILLS = 7
MOST_HELD = 8
SENT = 9  # instructions
REJECTED = 10  # would have crossed on arrival
UNPLACED = 11  # reached the exchange while the book was invalid
WITHDRAWN = 12  # orders taken off at a hole
DRAWS = 13
ACCOUNT_SIZE = 14

# A fill.
FILL_TIME, FILL_SIDE, FILL_PRICE, FILL_LOTS, FILL_MID2, FILL_PLACED = 0, 1, 2, 3, 4, 5
FILL_SIZE = 6

# A decision: its time, the last message seen, the exchange's mid then (twice), 1 when lanes quoted.
DECISION_TIME, DECISION_SEEN, DECISION_MID2, DECISION_QUOTED = 0, 1, 2, 3
DECISION_SIZE = 4

# A top: what a strategy may see of the book after a message.
TOP_VALID, TOP_BID, TOP_ASK = 0, 1, 2
TOP_SIZE = 3


class Feed(NamedTuple):
    """A recording on the exchange's clock: n messages, k trades, q quotes."""

    columns: Columns
    acts: Ints  # (n,) ascending
    seen: Ints  # (n,) ascending, never before `acts`
    trade_acts: Ints  # (k,) ascending
    trade_side: NDArray[np.int8]  # (k,) 1 the taker bought, -1 sold
    trade_price: Ints  # (k,)
    trade_size: Ints  # (k,)
    quote_acts: Ints  # (q,) ascending
    quote_id: Ints  # (q,) comparable with those of messages
    quote_price: Ints  # (q, 2) best bid, best ask; NO_PRICE for an empty side
    quote_size: Ints  # (q, 2)


class Lanes(NamedTuple):
    """Lanes of a run: what they are, what they have at the exchange, what came of it."""

    model: Ints  # (lanes,)
    whole: Ints  # (lanes, WHOLE_SIZE)
    real: Floats  # (lanes, REAL_SIZE)
    order: Ints  # (lanes, 2, ORDER_SIZE)
    queue: Floats  # (lanes, 2, QUEUE_SIZE)
    account: Ints  # (lanes, ACCOUNT_SIZE)
    fill: Ints  # (lanes, room, FILL_SIZE)
    draw: Floats  # (lanes, room + 2) standard exponential, of the lane's own stream


@kernel()
def quote(mid: float, q: float, half_spread: float, skew: float) -> tuple[float, float]:
    """Return the bid and ask that a strategy wants, in ticks, holding ``q`` order sizes.

    Avellaneda-Stoikov's, when half spread and skew are theirs: with a horizon that rolls along, neither
    changes within a run.
    """
    centre = mid - q * skew
    return centre - half_spread, centre + half_spread


@kernel()
def quantise(bid: float, ask: float, best_bid: int, best_ask: int, step: int = 1) -> tuple[int, int]:
    """Put quotes on the tick grid, never tighter than asked for and never crossing the book seen.

    A bid may join the best bid or stand inside the spread, one tick short of the best ask. Prices are
    whole multiples of ``step``, the exchange's tick in units of the recording.
    """
    # What lies on the grid but for rounding stays there.
    low = min(math.floor(bid + 1e-9), best_ask - 1)
    low -= low % step
    high = max(math.ceil(ask - 1e-9), best_bid + 1)
    high += -high % step
    if low >= high:
        low = high - step
    return low, high


@kernel()
def poisson_rate(intensity: float, decay: float, side: int, price: int, mid2: int) -> float:
    """Return the fill rate A exp(-k d) per ns of an order ``d`` ticks from the mid."""
    distance = 0.5 * mid2 - price if side == BID else price - 0.5 * mid2
    return 1e-9 * intensity * math.exp(min(-decay * distance, 60.0))


@kernel()
def _fill(lanes: Lanes, lane: int, side: int, lots: int, now: int, mid2: int) -> None:
    """Fill ``lots`` of the lane's order at its price."""
    order = lanes.order[lane, side]
    account = lanes.account[lane]
    fill = lanes.fill[lane, account[FILLS]]
    fill[FILL_TIME] = now
    fill[FILL_SIDE] = 1 if side == BID else -1
    fill[FILL_PRICE] = order[PRICE]
    fill[FILL_LOTS] = lots
    fill[FILL_MID2] = mid2
    fill[FILL_PLACED] = order[PLACED]
    order[LEAVES] -= lots
    order[DUE] = NEVER
    account[FILLS] += 1
    account[FILLED + side] += lots
    account[INVENTORY] += fill[FILL_SIDE] * lots
    account[MOST_HELD] = max(account[MOST_HELD], abs(account[INVENTORY]))


@kernel()
def _set_poisson_clock(lanes: Lanes, lane: int, side: int, now: int, two_sided: int, mid2: int) -> None:
    """Let the clock of an order run at the rate of where it stands now; it stands still without a mid.

    The fill comes when the integral of the rate reaches an exponential wait: exactly the chance
    1 - exp(-rate dt) in each interval, whatever cuts time into intervals.
    """
    order = lanes.order[lane, side]
    queue = lanes.queue[lane, side]
    queue[WAIT] = max(0.0, queue[WAIT] - queue[RATE] * (now - order[RATE_SINCE]))
    order[RATE_SINCE] = now
    queue[RATE] = 0.0
    order[DUE] = NEVER
    if order[LEAVES] > 0 and two_sided == 1:
        real = lanes.real[lane]
        queue[RATE] = poisson_rate(real[INTENSITY], real[DECAY], side, order[PRICE], mid2)
        wait = queue[WAIT] / queue[RATE] if queue[RATE] > 1e-300 else 1e300
        if wait < 2.0**60:
            order[DUE] = now + math.ceil(wait)


@kernel()
def _poisson_fill(lanes: Lanes, now: int, mid2: int) -> None:
    """Fill the first order whose Poisson clock is due at ``now``."""
    for lane in range(len(lanes.model)):
        for side in range(2):
            if lanes.order[lane, side, DUE] == now:
                _fill(lanes, lane, side, lanes.order[lane, side, LEAVES], now, mid2)
                account = lanes.account[lane]
                queue = lanes.queue[lane, side]
                queue[WAIT] = lanes.draw[lane, account[DRAWS]]
                queue[RATE] = 0.0
                account[DRAWS] += 1
                return


@kernel()
def _touch_by_trade(met: int, price: int, engine: Ints) -> None:
    """Move the touch to where a trade met a maker, until a message or a quote tells it.

    Everything better than ``price`` is gone on the maker's side, and nothing can stand across it on the
    other. Where the trade went beyond the best price known, the other side is taken to follow: a touch
    that keeps its spread is nearer to the truth than one with a side left behind.
    """
    before, opposite = engine[TOUCH + met], engine[TOUCH + 1 - met]
    engine[TOUCH + met] = price
    engine[TOUCH_LOTS + met] = NOT_TOLD
    if opposite == NO_PRICE:
        return
    moved = opposite
    if before != NO_PRICE:
        moved += min(price - before, 0) if met == BID else max(price - before, 0)
    moved = max(moved, price + 1) if met == BID else min(moved, price - 1)
    if moved != opposite:
        engine[TOUCH + 1 - met] = moved
        engine[TOUCH_LOTS + 1 - met] = NOT_TOLD


@kernel(queues)
def _take_trade(lanes: Lanes, taker: int, price: int, size: int, now: int, engine: Ints) -> None:
    """Let a trade fill what stands in its way, and move the touch."""
    met = BID if taker < 0 else ASK  # the side that the taker met
    for lane in range(len(lanes.model)):
        model = lanes.model[lane]
        order = lanes.order[lane, met]
        if order[LEAVES] > 0:
            beyond = order[PRICE] - price if met == BID else price - order[PRICE]
            if beyond > 0 and model in (TRADE_THROUGH, L2_QUEUE):
                # Nothing trades at a worse price while our order stands, so it must have gone before.
                _fill(lanes, lane, met, order[LEAVES], now, engine[MID2])
            elif beyond == 0 and model == L2_QUEUE and lanes.queue[lane, met, SHOWN] >= 0.0:
                queue = lanes.queue[lane, met]
                queue[FRONT] -= size
                queue[TRADED] += size
                corrected = lanes.whole[lane, QUEUE_CORRECTED]
                lots = reached(queue[FRONT], corrected)
                if lots > 0:
                    queue[FRONT] = queue[FRONT] + lots if corrected == 1 else 0.0
                    _fill(lanes, lane, met, min(lots, order[LEAVES]), now, engine[MID2])
        # The maker that was met stood at this price: it would have met our order on the other side first.
        order = lanes.order[lane, 1 - met]
        if order[LEAVES] > 0 and model in (PRICE_CROSS, L2_QUEUE):
            crossed = order[PRICE] <= price if met == BID else order[PRICE] >= price
            if crossed:
                _fill(lanes, lane, 1 - met, order[LEAVES], now, engine[MID2])
    _touch_by_trade(met, price, engine)


@kernel()
def _withdraw(lanes: Lanes, now: int, mid2: int, two_sided: int) -> None:
    """Take every order off, and whatever is on its way: the book is unknown from here on."""
    for lane in range(len(lanes.model)):
        for side in range(2):
            order = lanes.order[lane, side]
            if order[LEAVES] > 0:
                lanes.account[lane, WITHDRAWN] += 1
            order[LEAVES] = 0
            order[ARRIVES] = NEVER
            order[ANSWERED] = 0
            if lanes.model[lane] == POISSON:
                _set_poisson_clock(lanes, lane, side, now, two_sided, mid2)


@kernel()
def _set_touch(
    lanes: Lanes, best_bid: int, bid_lots: int, best_ask: int, ask_lots: int, now: int, engine: Ints
) -> None:
    """Take the touch as a message or a quote tells it, and let it fill the orders that it crosses."""
    engine[TOUCH + BID] = best_bid
    engine[TOUCH_LOTS + BID] = bid_lots
    engine[TOUCH + ASK] = best_ask
    engine[TOUCH_LOTS + ASK] = ask_lots
    two_sided = 1 if best_bid != NO_PRICE and best_ask != NO_PRICE else 0
    mid2 = best_bid + best_ask if two_sided == 1 else engine[MID2]
    moved = mid2 != engine[MID2] or two_sided != engine[TWO_SIDED]
    engine[MID2] = mid2
    engine[TWO_SIDED] = two_sided
    for lane in range(len(lanes.model)):
        model = lanes.model[lane]
        for side in range(2):
            order = lanes.order[lane, side]
            if order[LEAVES] == 0 or model == TRADE_THROUGH:
                continue
            if model == POISSON:
                if moved:
                    _set_poisson_clock(lanes, lane, side, now, two_sided, mid2)
                continue
            if side == BID:
                crossed = best_ask != NO_PRICE and best_ask <= order[PRICE]
            else:
                crossed = best_bid != NO_PRICE and best_bid >= order[PRICE]
            if crossed:
                _fill(lanes, lane, side, order[LEAVES], now, mid2)


@kernel(book_kernel, chain, queues)
def _take_levels(lanes: Lanes, levels: Levels, book: Ints) -> None:
    """Let the levels, as a message left them, move orders in their queues."""
    for lane in range(len(lanes.model)):
        if lanes.model[lane] != L2_QUEUE:
            continue
        for side in range(2):
            order = lanes.order[lane, side]
            if order[LEAVES] == 0 or not level_known(levels, book, side, order[PRICE]):
                continue
            queue = lanes.queue[lane, side]
            shown = float(level_size(levels, book, side, order[PRICE]))
            if queue[SHOWN] < 0.0:  # told for the first time: of what is there, all may stand before us
                queue[FRONT] = shown
            # A level that the message did not change leaves the trades unexplained: the message
            # that tells their effect is still to come.
            elif shown != queue[SHOWN]:
                queue[FRONT] = after_depth(
                    lanes.whole[lane, QUEUE_RULE],
                    lanes.real[lane, QUEUE_POWER],
                    lanes.whole[lane, QUEUE_CORRECTED],
                    queue[FRONT],
                    queue[TRADED],
                    queue[SHOWN],
                    shown,
                )
            else:
                continue
            queue[SHOWN] = shown
            queue[TRADED] = 0.0


@kernel(book_kernel, chain)
def _shown_on_arrival(levels: Levels, book: Ints, engine: Ints, side: int, price: int) -> int:
    """Return the lots that an order finds at its price, NOT_TOLD where the feed does not speak of it."""
    if price == engine[TOUCH + side] and engine[TOUCH_LOTS + side] != NOT_TOLD:
        return int(engine[TOUCH_LOTS + side])  # a quote may be newer than the last message
    if not level_known(levels, book, side, price):
        return NOT_TOLD
    return int(level_size(levels, book, side, price))


@kernel(book_kernel, chain)
def _arrive(lanes: Lanes, lane: int, side: int, levels: Levels, book: Ints, now: int, engine: Ints) -> None:
    """Carry out the instruction that reaches the exchange: the old order off, the new one on.

    What filled on the way counts against the new one, so that a lane never holds more than it meant to.
    """
    order = lanes.order[lane, side]
    account = lanes.account[lane]
    order[ARRIVES] = NEVER
    order[LEAVES] = 0
    order[DUE] = NEVER
    lots = order[NEW_SIZE] - (account[FILLED + side] - order[KNEW_FILLED])
    price = order[NEW_PRICE]
    if order[NEW_SIZE] > 0 and lots > 0:
        opposite = engine[TOUCH + 1 - side]
        crosses = opposite != NO_PRICE and (opposite <= price if side == BID else opposite >= price)
        if book[VALID] == 0:
            account[UNPLACED] += 1
        elif crosses:
            account[REJECTED] += 1
        else:
            order[PRICE] = price
            order[LEAVES] = lots
            order[PLACED] = now
    if lanes.model[lane] == POISSON:
        _set_poisson_clock(lanes, lane, side, now, engine[TWO_SIDED], engine[MID2])
    elif lanes.model[lane] == L2_QUEUE and order[LEAVES] > 0:
        queue = lanes.queue[lane, side]
        queue[SHOWN] = float(_shown_on_arrival(levels, book, engine, side, price))
        queue[FRONT] = max(queue[SHOWN], 0.0)
        queue[TRADED] = 0.0


@kernel()
def _decide(lanes: Lanes, best_bid: int, best_ask: int, now: int, engine: Ints) -> None:
    """Let each lane quote on what it has seen and was told by ``now``."""
    mid = 0.5 * (best_bid + best_ask)
    for lane in range(len(lanes.model)):
        account = lanes.account[lane]
        while account[KNOWN_FILLS] < account[FILLS]:
            fill = lanes.fill[lane, account[KNOWN_FILLS]]
            if fill[FILL_TIME] + engine[RESPONSE_LATENCY] > now:
                break
            account[KNOWN_INVENTORY] += fill[FILL_SIDE] * fill[FILL_LOTS]
            account[KNOWN_FILLED + (BID if fill[FILL_SIDE] > 0 else ASK)] += fill[FILL_LOTS]
            account[KNOWN_FILLS] += 1
        order_lots, most = lanes.whole[lane, ORDER_LOTS], lanes.whole[lane, MOST_LOTS]
        held = account[KNOWN_INVENTORY]
        bid, ask = quote(mid, held / order_lots, lanes.real[lane, HALF_SPREAD], lanes.real[lane, SKEW])
        prices = quantise(bid, ask, best_bid, best_ask, lanes.whole[lane, TICK_STEP])
        for side in range(2):
            order = lanes.order[lane, side]
            if now < order[ANSWERED]:  # what became of the last instruction is not known yet
                continue
            price = prices[side]
            room = most - held if side == BID else most + held
            wanted = max(0, min(order_lots, room)) if price > 0 else 0
            believed = order[LEAVES] + account[FILLED + side] - account[KNOWN_FILLED + side]
            # An order keeps its place in the queue unless its price moves or something of it filled.
            if wanted == believed and (wanted == 0 or price == order[PRICE]):
                continue
            order[ARRIVES] = now + engine[ORDER_LATENCY]
            order[NEW_PRICE] = price
            order[NEW_SIZE] = wanted
            order[KNEW_FILLED] = account[KNOWN_FILLED + side]
            order[ANSWERED] = order[ARRIVES] + engine[RESPONSE_LATENCY]
            account[SENT] += 1


@kernel(book_kernel, chain, queues)
def advance(
    feed: Feed,
    lanes: Lanes,
    levels: Levels,
    book: Ints,
    tops: Ints,
    decisions: Ints,
    engine: Ints,
    until: int,
) -> int:
    """Let everything happen that happens before ``until``; return DONE, or what must grow first.

    ``tops`` (n, TOP_SIZE) is written message by message. While no valid book is seen nothing can be
    decided: one decision says so, the next is made when something new was seen.
    """
    messages, trades, quotes = len(feed.acts), len(feed.trade_acts), len(feed.quote_acts)
    while True:
        due = NEVER
        arrives = NEVER
        for lane in range(len(lanes.model)):
            if lanes.account[lane, FILLS] + 2 > lanes.fill.shape[1]:
                return FILLS_FULL
            for side in range(2):
                due = min(due, lanes.order[lane, side, DUE])
                arrives = min(arrives, lanes.order[lane, side, ARRIVES])
        message, trade, quoted = engine[NEXT_MESSAGE], engine[NEXT_TRADE], engine[NEXT_QUOTE]
        message_acts = feed.acts[message] if message < messages else NEVER
        trade_acts = feed.trade_acts[trade] if trade < trades else NEVER
        quote_acts = feed.quote_acts[quoted] if quoted < quotes else NEVER
        now = min(due, trade_acts, message_acts, quote_acts, arrives, engine[NEXT_DECISION])
        if now >= until:
            return DONE

        if now == due:
            _poisson_fill(lanes, now, engine[MID2])

        elif now == trade_acts:
            engine[NEXT_TRADE] += 1
            if engine[WAS_VALID] == 1:
                _take_trade(
                    lanes,
                    feed.trade_side[trade],
                    feed.trade_price[trade],
                    feed.trade_size[trade],
                    now,
                    engine,
                )

        elif now == message_acts:
            step(feed.columns, message, levels, book)
            if book[FULL] == 1:
                return BOOK_FULL
            engine[NEXT_MESSAGE] += 1
            valid = book[VALID] == 1
            best_bid = best(levels, book, BID) if valid else NO_PRICE
            ask_key = best(levels, book, ASK) if valid else NO_PRICE
            best_ask = -ask_key if ask_key != NO_PRICE else NO_PRICE
            tops[message, TOP_VALID] = book[VALID]
            tops[message, TOP_BID] = best_bid
            tops[message, TOP_ASK] = best_ask
            if valid:
                bid_lots, ask_lots = best_size(levels, book, BID), best_size(levels, book, ASK)
                _set_touch(lanes, best_bid, bid_lots, best_ask, ask_lots, now, engine)
                _take_levels(lanes, levels, book)
            elif engine[WAS_VALID] == 1:
                engine[TWO_SIDED] = 0
                engine[TOUCH + BID] = NO_PRICE
                engine[TOUCH + ASK] = NO_PRICE
                _withdraw(lanes, now, engine[MID2], 0)
            engine[WAS_VALID] = book[VALID]

        elif now == quote_acts:
            engine[NEXT_QUOTE] += 1
            # At one moment only the ids say which of message and quote is the newer.
            older = message > 0 and feed.acts[message - 1] == now and feed.quote_id[quoted] <= book[BOOK_ID]
            if engine[WAS_VALID] == 1 and not older:
                engine[QUOTES] += 1
                price, size = feed.quote_price[quoted], feed.quote_size[quoted]
                _set_touch(lanes, price[BID], size[BID], price[ASK], size[ASK], now, engine)

        elif now == arrives:
            for lane in range(len(lanes.model)):
                for side in range(2):
                    if lanes.order[lane, side, ARRIVES] == now:
                        _arrive(lanes, lane, side, levels, book, now, engine)

        else:
            if engine[DECISIONS] == len(decisions):
                return DECISIONS_FULL
            while engine[SEEN] < messages and feed.seen[engine[SEEN]] <= now:
                engine[SEEN] += 1
            decision = decisions[engine[DECISIONS]]
            decision[DECISION_TIME] = now
            decision[DECISION_SEEN] = engine[SEEN] - 1
            decision[DECISION_MID2] = engine[MID2]
            decision[DECISION_QUOTED] = 0
            if engine[SEEN] > 0:
                top = tops[engine[SEEN] - 1]
                if top[TOP_VALID] == 1 and top[TOP_BID] != NO_PRICE and top[TOP_ASK] != NO_PRICE:
                    decision[DECISION_QUOTED] = 1
                    _decide(lanes, top[TOP_BID], top[TOP_ASK], now, engine)
            engine[DECISIONS] += 1
            engine[NEXT_DECISION] += engine[INTERVAL]
            if decision[DECISION_QUOTED] == 0:
                news = feed.seen[engine[SEEN]] if engine[SEEN] < messages else NEVER
                if news == NEVER:
                    engine[NEXT_DECISION] = NEVER
                elif news > engine[NEXT_DECISION]:
                    steps = -((engine[NEXT_DECISION] - news) // engine[INTERVAL])
                    engine[NEXT_DECISION] += steps * engine[INTERVAL]
