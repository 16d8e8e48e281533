"""The simulator's kernel: one pass over a recording, in which several lanes trade on one book.

A lane is a strategy with its parameters, and a fill model. Lanes never touch each other: what one does
is the same whoever runs beside it. Everything happens at a time of the exchange's clock, in this order
where times are equal:

1. fills that the Poisson model's clock has due: they happened in the interval that ends here;
2. trades, 3. book messages: the depth already holds the trade, and taken first it would shrink the
   queue before an order twice, once as a cancellation and once as the trade;
4. what lanes have sent reaches the exchange: behind the market's own events of that moment;
5. lanes decide.

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
    ASKS,
    BID,
    BIDS,
    FULL,
    NO_PRICE,
    VALID,
    Columns,
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

# Fields of the engine's state.
NEXT_MESSAGE = 0
NEXT_TRADE = 1
NEXT_DECISION = 2  # time
DECISIONS = 3  # how many were due
SEEN = 4  # messages that the strategies may know of
MID2 = 5  # the last known mid at the exchange, twice
TWO_SIDED = 6  # 1 while the exchange's book is valid and has both sides
WAS_VALID = 7
INTERVAL = 8
ORDER_LATENCY = 9
RESPONSE_LATENCY = 10
ENGINE_SIZE = 11

# Whole-number parameters of a lane.
ORDER_LOTS, MOST_LOTS, QUEUE_RULE, QUEUE_CORRECTED = 0, 1, 2, 3
WHOLE_SIZE = 4
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
SHOWN = 2  # lots shown at its price
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
    """A recording on the exchange's clock: n messages, k trades."""

    columns: Columns
    acts: Ints  # (n,) ascending
    seen: Ints  # (n,) ascending, never before `acts`
    trade_acts: Ints  # (k,) ascending
    trade_side: NDArray[np.int8]  # (k,) 1 the taker bought, -1 sold
    trade_price: Ints  # (k,)
    trade_size: Ints  # (k,)


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
def quantise(bid: float, ask: float, best_bid: int, best_ask: int) -> tuple[int, int]:
    """Put quotes on the tick grid, never tighter than asked for and never crossing the book seen.

    A bid may join the best bid or stand inside the spread, one tick short of the best ask.
    """
    # What lies on the grid but for rounding stays there.
    low = min(math.floor(bid + 1e-9), best_ask - 1)
    high = max(math.ceil(ask - 1e-9), best_bid + 1)
    if low >= high:
        low = high - 1
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


@kernel(queues)
def _take_trade(lanes: Lanes, taker: int, price: int, size: int, now: int, mid2: int) -> None:
    """Let a trade fill what stands in its way."""
    side = BID if taker < 0 else ASK  # the side that the taker met
    for lane in range(len(lanes.model)):
        order = lanes.order[lane, side]
        if order[LEAVES] == 0:
            continue
        beyond = order[PRICE] - price if side == BID else price - order[PRICE]
        model = lanes.model[lane]
        if beyond > 0 and model in (TRADE_THROUGH, L2_QUEUE):
            # Nothing trades at a worse price while our order stands, so it must have gone before.
            _fill(lanes, lane, side, order[LEAVES], now, mid2)
        elif beyond == 0 and model == L2_QUEUE:
            queue = lanes.queue[lane, side]
            queue[FRONT] -= size
            queue[TRADED] += size
            corrected = lanes.whole[lane, QUEUE_CORRECTED]
            lots = reached(queue[FRONT], corrected)
            if lots > 0:
                queue[FRONT] = queue[FRONT] + lots if corrected == 1 else 0.0
                _fill(lanes, lane, side, min(lots, order[LEAVES]), now, mid2)


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


@kernel(book_kernel, chain, queues)
def _take_book(
    lanes: Lanes,
    keys: Ints,
    sizes: Ints,
    book: Ints,
    best_bid: int,
    best_ask: int,
    now: int,
    mid2: int,
    two_sided: int,
    moved: bool,
) -> None:
    """Let the book, as a message left it, fill orders or move them in their queues."""
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
            price = order[PRICE]
            crossed = best_ask <= price if side == BID else best_bid >= price
            there = best_ask != NO_PRICE if side == BID else best_bid != NO_PRICE
            if there and crossed:
                _fill(lanes, lane, side, order[LEAVES], now, mid2)
            elif model == L2_QUEUE:
                queue = lanes.queue[lane, side]
                shown = float(level_size(keys, sizes, book, side, price))
                # A level that the message did not change leaves the trades unexplained: the message
                # that tells their effect is still to come.
                if shown != queue[SHOWN]:
                    queue[FRONT] = after_depth(
                        lanes.whole[lane, QUEUE_RULE],
                        lanes.real[lane, QUEUE_POWER],
                        lanes.whole[lane, QUEUE_CORRECTED],
                        queue[FRONT],
                        queue[TRADED],
                        queue[SHOWN],
                        shown,
                    )
                    queue[SHOWN] = shown
                    queue[TRADED] = 0.0


@kernel(book_kernel, chain)
def _arrive(
    lanes: Lanes,
    lane: int,
    side: int,
    keys: Ints,
    sizes: Ints,
    book: Ints,
    now: int,
    mid2: int,
    two_sided: int,
) -> None:
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
        opposite = ASK if side == BID else BID
        count = book[BIDS + opposite]
        crosses = count > 0 and keys[opposite, count - 1] >= (-price if side == BID else price)
        if book[VALID] == 0:
            account[UNPLACED] += 1
        elif crosses:
            account[REJECTED] += 1
        else:
            order[PRICE] = price
            order[LEAVES] = lots
            order[PLACED] = now
    if lanes.model[lane] == POISSON:
        _set_poisson_clock(lanes, lane, side, now, two_sided, mid2)
    elif lanes.model[lane] == L2_QUEUE and order[LEAVES] > 0:
        queue = lanes.queue[lane, side]
        queue[SHOWN] = float(level_size(keys, sizes, book, side, price))
        queue[FRONT] = queue[SHOWN]
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
        prices = quantise(bid, ask, best_bid, best_ask)
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
    keys: Ints,
    sizes: Ints,
    book: Ints,
    tops: Ints,
    decisions: Ints,
    engine: Ints,
    until: int,
) -> int:
    """Let everything happen that happens before ``until``; return DONE, or what must grow first.

    ``tops`` (n, TOP_SIZE) is written message by message; ``decisions`` (m, DECISION_SIZE) must have room
    for every decision before ``until``.
    """
    messages, trades = len(feed.acts), len(feed.trade_acts)
    while True:
        due = NEVER
        arrives = NEVER
        for lane in range(len(lanes.model)):
            if lanes.account[lane, FILLS] + 2 > lanes.fill.shape[1]:
                return FILLS_FULL
            for side in range(2):
                due = min(due, lanes.order[lane, side, DUE])
                arrives = min(arrives, lanes.order[lane, side, ARRIVES])
        message, trade = engine[NEXT_MESSAGE], engine[NEXT_TRADE]
        message_acts = feed.acts[message] if message < messages else NEVER
        trade_acts = feed.trade_acts[trade] if trade < trades else NEVER
        now = min(due, trade_acts, message_acts, arrives, engine[NEXT_DECISION])
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
                    engine[MID2],
                )

        elif now == message_acts:
            step(feed.columns, message, keys, sizes, book)
            if book[FULL] == 1:
                return BOOK_FULL
            engine[NEXT_MESSAGE] += 1
            valid = book[VALID] == 1
            bids, asks = book[BIDS], book[ASKS]
            best_bid = keys[BID, bids - 1] if valid and bids > 0 else NO_PRICE
            best_ask = -keys[ASK, asks - 1] if valid and asks > 0 else NO_PRICE
            tops[message, TOP_VALID] = book[VALID]
            tops[message, TOP_BID] = best_bid
            tops[message, TOP_ASK] = best_ask
            two_sided = 1 if best_bid != NO_PRICE and best_ask != NO_PRICE else 0
            mid2 = best_bid + best_ask if two_sided == 1 else engine[MID2]
            moved = mid2 != engine[MID2] or two_sided != engine[TWO_SIDED]
            engine[MID2] = mid2
            engine[TWO_SIDED] = two_sided
            if valid:
                _take_book(lanes, keys, sizes, book, best_bid, best_ask, now, mid2, two_sided, moved)
            elif engine[WAS_VALID] == 1:
                _withdraw(lanes, now, mid2, two_sided)
            engine[WAS_VALID] = book[VALID]

        elif now == arrives:
            for lane in range(len(lanes.model)):
                for side in range(2):
                    if lanes.order[lane, side, ARRIVES] == now:
                        _arrive(lanes, lane, side, keys, sizes, book, now, engine[MID2], engine[TWO_SIDED])

        else:
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
