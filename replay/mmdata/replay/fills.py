"""Fill models: what evidence fills a resting order. Compiled; a model is a set of kinds of evidence.

Each function tells the resting orders of all lanes one thing that happened, and fills those whose model
takes it as evidence. Orders of one lane at one price share what trades there, the earliest placed first:
what one of them has had neither fills the next nor moves it in its queue.
"""

from __future__ import annotations

import math

from mmdata.datasets import _kernel as book_kernel
from mmdata.datasets import chain
from mmdata.datasets._kernel import (
    ASK,
    BID,
    DIFF,
    NO_PRICE,
    Columns,
    Levels,
    is_near_known,
    level_known,
    level_size,
    near_size,
)
from mmdata.datasets.jit import helper, inlined, kernel
from mmdata.replay import queues
from mmdata.replay import state as s
from mmdata.replay.queues import after_depth, reached
from mmdata.replay.state import Ints, Lanes

MODELS = {
    "price-cross": s.BY_TOUCH | s.BY_MAKER,
    "trade-through": s.BY_THROUGH,
    "at-or-through": s.BY_THROUGH | s.BY_PRINT,
    "poisson": s.BY_CLOCK,
    "l2-queue": s.BY_TOUCH | s.BY_MAKER | s.BY_THROUGH | s.BY_QUEUE,
    "hybrid": s.BY_TOUCH | s.BY_MAKER | s.BY_THROUGH | s.BY_QUEUE | s.BY_CLOCK,
}
"""The opposite best price reaches the order; a trade prints beyond it; at it or beyond; at a rate that falls
with its distance from the mid, seeded; it is first in its queue, or the price is gone; the same, and at the
part of that rate which trades do not explain."""

_HFTBACKTEST = s.BY_TOUCH | s.BY_THROUGH | s.BY_QUEUE | s.BOOK_ALONE
PEERS = {"hftbacktest": _HFTBACKTEST | s.AT_ONCE, "hftbacktest-partial": _HFTBACKTEST}
"""The rules of hftbacktest 2.4.2 as they are (its exchange without partial fills, and the one with them), so
that its fills can be compared with ours one by one; no run asks for them, and with ``queue_corrected`` 0 the
queue moves by its own steps. Ours differ on purpose. Between two book messages a trade tells where the touch
is: who ignores it lets a post-only order rest across a price that has just traded, and fills nobody when a
taker meets the other side beyond the order. A trade is there once: its lots fill no more than it has. And
what fills in the queue is what reached the order, however much more of it there is.
"""

# Park and Miller's generator, as revised: small enough for any integers.
_RANDOM_FACTOR = 48271
RANDOM_MODULUS = 2**31 - 1


@helper
def latency(wire: Ints, how: int, account: Ints, engine: Ints) -> int:
    """Return how long the next instruction, or answer, of a lane is on its way, ns."""
    if how == s.CONSTANT:
        return int(wire[0])
    if how == s.SAMPLED:
        account[s.RANDOM] = account[s.RANDOM] * _RANDOM_FACTOR % RANDOM_MODULUS
        return int(wire[account[s.RANDOM] % len(wire)])
    return int(wire[engine[s.FIRST_MESSAGE] + max(engine[s.SEEN] - 1, 0)])


@helper
def report(
    lanes: Lanes,
    lane: int,
    slot: int,
    answer: int,
    lots: int,
    price: int,
    response: Ints,
    now: int,
    engine: Ints,
) -> None:
    """Send word to a lane: an instruction's answer (its lots open, and price), or a fill. None overtakes."""
    account = lanes.account[lane]
    order = lanes.order[lane, slot]
    at = now + latency(response, engine[s.RESPONSE_WIRE], account, engine)
    account[s.LAST_KNOWN] = max(account[s.LAST_KNOWN], at)
    row = lanes.report[lane, account[s.REPORTS]]
    row[s.KNOWN_AT] = account[s.LAST_KNOWN]
    row[s.REPORT_SLOT] = slot
    row[s.REPORT_NUMBER] = order[s.NUMBER]
    row[s.REPORT_ANSWER] = answer
    row[s.REPORT_SIDE] = order[s.SIDE]
    row[s.REPORT_LOTS] = lots
    row[s.REPORT_PRICE] = price
    account[s.REPORTS] += 1
    engine[s.MOST_REPORTS] = max(engine[s.MOST_REPORTS], account[s.REPORTS])


@helper
def fill(
    lanes: Lanes,
    lane: int,
    slot: int,
    lots: int,
    price: int,
    cause: int,
    response: Ints,
    now: int,
    engine: Ints,
) -> None:
    """Fill ``lots`` of an order at ``price``, and send word of it."""
    order = lanes.order[lane, slot]
    account = lanes.account[lane]
    row = lanes.fill[lane, account[s.FILLS]]
    row[s.FILL_TIME] = now
    row[s.FILL_SIDE] = 1 if order[s.SIDE] == BID else -1
    row[s.FILL_PRICE] = price
    row[s.FILL_LOTS] = lots
    row[s.FILL_MID2] = engine[s.MID2]
    row[s.FILL_PLACED] = order[s.PLACED]
    row[s.FILL_CAUSE] = cause
    row[s.FILL_NUMBER] = order[s.NUMBER]
    order[s.LEAVES] -= lots
    order[s.FILLED] += lots
    if order[s.LEAVES] == 0:
        order[s.STATUS] = s.GONE
        engine[s.STALE] = 1
        if lanes.model[lane] & s.BY_CLOCK != 0:
            set_clock(lanes, lane, slot, now, engine)
    account[s.FILLS] += 1
    account[s.INVENTORY] += row[s.FILL_SIDE] * lots
    account[s.MOST_HELD] = max(account[s.MOST_HELD], abs(account[s.INVENTORY]))
    engine[s.MOST_FILLS] = max(engine[s.MOST_FILLS], account[s.FILLS])
    report(lanes, lane, slot, 0, lots, price, response, now, engine)


@kernel(book_kernel, chain, queues, s)
def sweep_active(lanes: Lanes, engine: Ints) -> None:
    """Drop what no longer rests from the list of resting orders, and find the best prices in it anew."""
    engine[s.STALE] = 0
    own_bid, own_ask = NO_PRICE, -NO_PRICE - 1
    kept = 0
    for i in range(engine[s.ACTIVE]):
        entry = lanes.active[i]
        order = lanes.order[entry[s.ACTIVE_LANE], entry[s.ACTIVE_SLOT]]
        if order[s.TAG] == entry[s.ACTIVE_TAG] and order[s.STATUS] == s.RESTING:
            if kept < i:
                for field in range(s.ACTIVE_SIZE):
                    lanes.active[kept, field] = entry[field]
            kept += 1
            if entry[s.ACTIVE_SIDE] == BID:
                own_bid = max(own_bid, entry[s.ACTIVE_PRICE])
            else:
                own_ask = min(own_ask, entry[s.ACTIVE_PRICE])
    engine[s.ACTIVE] = kept
    engine[s.OWN + BID] = own_bid
    engine[s.OWN + ASK] = own_ask


@helper
def poisson_rate(intensity: float, decay: float, side: int, price: int, mid2: int) -> float:
    """Return the fill rate A exp(-k d) per ns of an order ``d`` ticks from the mid."""
    distance = 0.5 * mid2 - price if side == BID else price - 0.5 * mid2
    return 1e-9 * intensity * math.exp(min(-decay * distance, 60.0))


@helper
def set_clock(lanes: Lanes, lane: int, slot: int, now: int, engine: Ints) -> None:
    """Let the clock of an order run at the rate of where it stands now; it stands still without a mid.

    The fill comes when the integral of the rate reaches an exponential wait: exactly the chance
    1 - exp(-rate dt) in each interval, whatever cuts time into intervals. What is left of the wait when an
    order is gone stays for the slot's next. Of a hybrid's rate the part that trades explain is left out:
    they fill the order themselves.
    """
    order = lanes.order[lane, slot]
    queue = lanes.queue[lane, slot]
    queue[s.WAIT] = max(0.0, queue[s.WAIT] - queue[s.RATE] * (now - order[s.RATE_SINCE]))
    order[s.RATE_SINCE] = now
    queue[s.RATE] = 0.0
    order[s.DUE] = s.NEVER
    if order[s.STATUS] == s.RESTING and engine[s.TWO_SIDED] == 1:
        real = lanes.real[lane]
        side, price, mid2 = order[s.SIDE], order[s.PRICE], engine[s.MID2]
        rate = poisson_rate(real[s.INTENSITY], real[s.DECAY], side, price, mid2)
        if lanes.model[lane] & s.BY_QUEUE != 0:
            rate -= poisson_rate(real[s.EXPLAINED_INTENSITY], real[s.EXPLAINED_DECAY], side, price, mid2)
        queue[s.RATE] = max(rate, 0.0)
        wait = queue[s.WAIT] / queue[s.RATE] if queue[s.RATE] > 1e-300 else 1e300
        if wait < 2.0**60:
            order[s.DUE] = now + math.ceil(wait)
            engine[s.NEXT_DUE] = min(engine[s.NEXT_DUE], order[s.DUE])


@kernel(book_kernel, chain, queues, s)
def ring_clocks(lanes: Lanes, response: Ints, now: int, engine: Ints) -> None:
    """Fill the orders whose Poisson clock is due at ``now``, and find when the next one is."""
    engine[s.NEXT_DUE] = s.NEVER
    for i in range(engine[s.ACTIVE]):
        lane, slot = lanes.active[i, s.ACTIVE_LANE], lanes.active[i, s.ACTIVE_SLOT]
        order = lanes.order[lane, slot]
        if order[s.DUE] == now:
            fill(lanes, lane, slot, order[s.LEAVES], order[s.PRICE], s.BY_CLOCK, response, now, engine)
            account = lanes.account[lane]
            queue = lanes.queue[lane, slot]
            queue[s.WAIT] = lanes.draw[lane, account[s.DRAWS]]
            account[s.DRAWS] += 1
        else:
            engine[s.NEXT_DUE] = min(engine[s.NEXT_DUE], order[s.DUE])


@kernel(book_kernel, chain, queues, s)
def move_clocks(lanes: Lanes, now: int, engine: Ints) -> None:
    """Let all clocks run at the rates of a new mid."""
    for i in range(engine[s.ACTIVE]):
        lane, slot = lanes.active[i, s.ACTIVE_LANE], lanes.active[i, s.ACTIVE_SLOT]
        if lanes.model[lane] & s.BY_CLOCK != 0:
            set_clock(lanes, lane, slot, now, engine)


@helper
def _left_of_trade(account: Ints, trade: int, size: int) -> int:
    """Return the lots of a trade at an order's price that no earlier order of the lane has had."""
    if account[s.MET] != trade:
        account[s.MET] = trade
        account[s.MET_LOTS] = 0
    return int(size - account[s.MET_LOTS])


@helper
def _lots_of_queue(lanes: Lanes, lane: int, slot: int, trade: int, size: int) -> int:
    """Let a trade at an order's price move its queue; return the lots of the order that it fills."""
    model, account, queue = lanes.model[lane], lanes.account[lane], lanes.queue[lane, slot]
    # What filled orders of the lane that came earlier did not come as far as this one.
    left = size if model & s.BOOK_ALONE != 0 else _left_of_trade(account, trade, size)
    queue[s.FRONT] -= left
    queue[s.TRADED] += size
    corrected = lanes.whole[lane, s.QUEUE_CORRECTED]
    lots = reached(queue[s.FRONT], corrected)
    if lots == 0:
        return 0
    queue[s.FRONT] = queue[s.FRONT] + lots if corrected == 1 else 0.0
    leaves = int(lanes.order[lane, slot, s.LEAVES])
    if model & s.AT_ONCE != 0:
        return leaves
    if model & s.BOOK_ALONE != 0:
        return min(lots, leaves)
    lots = min(lots, left, leaves)
    account[s.MET_LOTS] += lots
    return lots


@kernel(book_kernel, chain, queues, s)
def fill_by_trade(
    lanes: Lanes,
    met: int,
    price: int,
    size: int,
    trade: int,
    response: Ints,
    now: int,
    engine: Ints,
) -> None:
    """Let a trade of number ``trade``, whose taker met a maker of side ``met``, fill what is in its way."""
    for i in range(engine[s.ACTIVE]):
        entry = lanes.active[i]
        side, own = entry[s.ACTIVE_SIDE], entry[s.ACTIVE_PRICE]
        if own < price if side == BID else own > price:
            continue
        lane, slot = entry[s.ACTIVE_LANE], entry[s.ACTIVE_SLOT]
        model, leaves = lanes.model[lane], lanes.order[lane, slot, s.LEAVES]
        lots, cause = 0, 0
        if side != met:
            # The maker that was met stood at this price: it would have met our order on its way there.
            # A lane that took of that level does not know whom the taker met: the next message tells.
            if model & s.BY_MAKER != 0 and not (engine[s.TAKEN] > 0 and _took(lanes, lane, met, price)):
                lots, cause = leaves, s.BY_MAKER
        elif own != price:
            if model & s.BY_THROUGH != 0:
                lots, cause = leaves, s.BY_THROUGH
        elif model & s.BY_PRINT != 0:
            account = lanes.account[lane]
            lots, cause = min(_left_of_trade(account, trade, size), leaves), s.BY_PRINT
            account[s.MET_LOTS] += lots
        elif model & s.BY_QUEUE != 0 and lanes.queue[lane, slot, s.SHOWN] >= 0.0:
            entry[s.ACTIVE_SHOWN] = s.LOOK
            lots, cause = _lots_of_queue(lanes, lane, slot, trade, size), s.BY_QUEUE
        if lots > 0:
            fill(lanes, lane, slot, lots, own, cause, response, now, engine)


@helper
def find_taken(lanes: Lanes, lane: int, side: int, price: int) -> int:
    """Return where a lane remembers what it took at a price of ``side``, or how many it remembers."""
    count = lanes.account[lane, s.TAKEN_LEVELS + side]
    for i in range(count):
        if lanes.taken[lane, side, i, 0] == price:
            return i
    return int(count)


@helper
def _took(lanes: Lanes, lane: int, side: int, price: int) -> bool:
    """Return whether a lane remembers that it took at a price of ``side``."""
    return bool(find_taken(lanes, lane, side, price) < lanes.account[lane, s.TAKEN_LEVELS + side])


@helper
def untaken(lanes: Lanes, lane: int, side: int, price: int, shown: int) -> int:
    """Return the lots shown at a price that a lane has not taken already."""
    at = find_taken(lanes, lane, side, price)
    if at == lanes.account[lane, s.TAKEN_LEVELS + side]:
        return shown
    return int(max(shown - lanes.taken[lane, side, at, 1], 0))


@helper
def note_taken(lanes: Lanes, lane: int, side: int, price: int, lots: int, engine: Ints) -> bool:
    """Remember what a lane took: it is there only once. False where no more levels can be remembered."""
    at = find_taken(lanes, lane, side, price)
    if at == s.LEVELS_TAKEN:
        return False
    taken = lanes.taken[lane, side, at]
    if at == lanes.account[lane, s.TAKEN_LEVELS + side]:
        taken[0] = price
        taken[1] = 0
        lanes.account[lane, s.TAKEN_LEVELS + side] += 1
        engine[s.TAKEN] += 1
    taken[1] += lots
    return True


@kernel(book_kernel, chain, queues, s)
def forget_taken(lanes: Lanes, levels: Levels, book: Ints, engine: Ints) -> None:
    """Forget what was taken of levels that are gone; no more is taken of a level than it shows."""
    for lane in range(len(lanes.model)):
        for side in range(2):
            kept = 0
            count = lanes.account[lane, s.TAKEN_LEVELS + side]
            for i in range(count):
                price, lots = lanes.taken[lane, side, i, 0], lanes.taken[lane, side, i, 1]
                shown = level_size(levels, book, side, price)
                if shown > 0:
                    lanes.taken[lane, side, kept, 0] = price
                    lanes.taken[lane, side, kept, 1] = min(lots, shown)
                    kept += 1
            lanes.account[lane, s.TAKEN_LEVELS + side] = kept
            engine[s.TAKEN] -= count - kept


@kernel(book_kernel, chain, queues, s)
def fill_by_touch(
    lanes: Lanes,
    best_bid: int,
    bid_lots: int,
    best_ask: int,
    ask_lots: int,
    by_book: bool,
    response: Ints,
    now: int,
    engine: Ints,
) -> None:
    """Let the touch, as a book message or a quote tells it, fill the orders that it crosses.

    All of them, but for what the lane took itself.
    """
    for i in range(engine[s.ACTIVE]):
        entry = lanes.active[i]
        if entry[s.ACTIVE_SIDE] == BID:
            crossed = best_ask != NO_PRICE and best_ask <= entry[s.ACTIVE_PRICE]
        else:
            crossed = best_bid != NO_PRICE and best_bid >= entry[s.ACTIVE_PRICE]
        if not crossed:
            continue
        lane, slot = entry[s.ACTIVE_LANE], entry[s.ACTIVE_SLOT]
        model = lanes.model[lane]
        if model & s.BY_TOUCH == 0 or (model & s.BOOK_ALONE != 0 and not by_book):
            continue
        order = lanes.order[lane, slot]
        lots = order[s.LEAVES]
        if engine[s.TAKEN] > 0:
            other = 1 - order[s.SIDE]
            price, shown = (best_ask, ask_lots) if other == ASK else (best_bid, bid_lots)
            if _took(lanes, lane, other, price):
                lots = min(lots, untaken(lanes, lane, other, price, shown))
                if lots == 0:
                    continue
                note_taken(lanes, lane, other, price, lots, engine)
        fill(lanes, lane, slot, lots, order[s.PRICE], s.BY_TOUCH, response, now, engine)


@helper
def _names(columns: Columns, message: int, side: int, price: int) -> bool:
    """Return whether a message speaks of a level."""
    if columns.kind[message] != DIFF:
        return True
    for row in range(columns.start[message], columns.start[message + 1]):
        if columns.price[row] == price and columns.side[row] == side:
            return True
    return False


@helper
def _next_moved(active: Ints, first: int, levels: Levels, book: Ints, end: int) -> int:
    """Return the first entry of ``active[first:end]`` whose level may be another than its queue has."""
    if not is_near_known(book):
        return first
    for i in range(first, end):
        side = BID if active[i, s.ACTIVE_SIDE] == BID else ASK
        told = active[i, s.ACTIVE_SHOWN]
        if near_size(levels, book, side, active[i, s.ACTIVE_PRICE]) != told and told != s.NO_QUEUE:
            return i
    return end


@kernel(book_kernel, chain, queues, s)
def move_queues(
    lanes: Lanes, columns: Columns, message: int, levels: Levels, book: Ints, engine: Ints
) -> None:
    """Let the levels, as a message left them, move orders in their queues."""
    end = engine[s.ACTIVE]
    i = _next_moved(lanes.active, 0, levels, book, end)
    while i < end:
        entry = lanes.active[i]
        if entry[s.ACTIVE_SHOWN] != s.NO_QUEUE:
            _move_queue(lanes, entry, columns, message, levels, book)
        i = _next_moved(lanes.active, i + 1, levels, book, end)


@inlined
def _move_queue(
    lanes: Lanes, entry: Ints, columns: Columns, message: int, levels: Levels, book: Ints
) -> None:
    """Let its level, as a message left it, move a resting order in its queue."""
    lane, slot = entry[s.ACTIVE_LANE], entry[s.ACTIVE_SLOT]
    side, price = entry[s.ACTIVE_SIDE], entry[s.ACTIVE_PRICE]
    if lanes.order[lane, slot, s.STATUS] != s.RESTING or not level_known(levels, book, side, price):
        return
    queue = lanes.queue[lane, slot]
    lots = level_size(levels, book, side, price)
    shown = float(lots)
    if queue[s.SHOWN] < 0.0:  # told for the first time: of what is there, all may stand before us
        queue[s.FRONT] = shown
    # A level of which the message does not speak leaves the trades unexplained: the message that
    # tells their effect is still to come. One that is told as it was has been filled up again.
    elif shown != queue[s.SHOWN] or (queue[s.TRADED] > 0.0 and _names(columns, message, side, price)):
        queue[s.FRONT] = after_depth(
            lanes.whole[lane, s.QUEUE_RULE],
            lanes.real[lane, s.QUEUE_POWER],
            lanes.whole[lane, s.QUEUE_CORRECTED],
            queue[s.FRONT],
            queue[s.TRADED],
            queue[s.SHOWN],
            shown,
        )
    else:
        return
    queue[s.SHOWN] = shown
    queue[s.TRADED] = 0.0
    entry[s.ACTIVE_SHOWN] = lots
