"""What becomes of an instruction when it reaches the exchange: it rests, takes, or is turned down. Compiled.

The recording is not changed by what lanes do, so that each lane remembers what it took: liquidity is there
once. A lane's instructions that arrive together are one batch: an order that the batch takes off no longer
stands in the way of its others; one that it only makes smaller does.
"""

from __future__ import annotations

from mmdata.datasets import _kernel as book_kernel
from mmdata.datasets import chain
from mmdata.datasets._kernel import (
    ASK,
    BID,
    NO_PRICE,
    VALID,
    Levels,
    best,
    level_known,
    level_size,
    next_best,
)
from mmdata.datasets.jit import helper, inlined, kernel
from mmdata.replay import fills, queues
from mmdata.replay import state as s
from mmdata.replay.fills import fill, note_taken, report, set_clock, untaken
from mmdata.replay.state import (
    AMEND,
    BOOK_ALONE,
    BY_CLOCK,
    BY_QUEUE,
    CANCEL,
    FREE,
    GONE,
    LIMIT,
    MARKET,
    NEVER,
    NOT_TOLD,
    POST_ONLY,
    RESTING,
    Ints,
    Lanes,
)


@helper
def _shown(levels: Levels, book: Ints, engine: Ints, side: int, price: int) -> int:
    """Return the lots that stand at a price, NOT_TOLD where the feed does not speak of it."""
    if price == engine[s.TOUCH + side] and engine[s.TOUCH_LOTS + side] != NOT_TOLD:
        return int(engine[s.TOUCH_LOTS + side])  # a quote may be newer than the last message
    if not level_known(levels, book, side, price):
        return NOT_TOLD
    return int(level_size(levels, book, side, price))


@helper
def _opposite(lanes: Lanes, lane: int, side: int, levels: Levels, book: Ints, engine: Ints) -> int:
    """Return the best price that an order of ``side`` meets, as far as the lane's model knows of it."""
    if lanes.model[lane] & BOOK_ALONE == 0:
        return int(engine[s.TOUCH + 1 - side])
    key = best(levels, book, 1 - side)
    return int(-key if side == BID and key != NO_PRICE else key)


@helper
def _crosses(side: int, price: int, other: int) -> bool:
    """Return whether an order meets a price of the other side."""
    return bool(other != NO_PRICE and (other <= price if side == BID else other >= price))


@helper
def _wanted(order: Ints) -> int:
    """Return the lots that an order's instruction leaves open.

    What filled on the way counts against them, so that a lane never holds more than it meant to.
    """
    return int(order[s.NEW_SIZE] - (order[s.FILLED] - order[s.KNEW_FILLED]))


@helper
def _keeps_its_place(order: Ints) -> bool:
    """Return whether an order's instruction leaves it where it rests: only its size falls."""
    if order[s.ACTION] != AMEND or order[s.STATUS] != RESTING or order[s.NEW_PRICE] != order[s.PRICE]:
        return False
    return bool(0 < _wanted(order) <= order[s.LEAVES])


@helper
def _meets_own(lanes: Lanes, lane: int, slot: int, price: int, now: int) -> bool:
    """Return whether an order reaches a resting one of its own lane, which the batch leaves there.

    Whether others would be met first is not asked: an exchange that forbids it looks at the price alone.
    """
    order = lanes.order[lane, slot]
    for other in range(lanes.order.shape[1]):
        resting = lanes.order[lane, other]
        if resting[s.STATUS] != RESTING or resting[s.SIDE] == order[s.SIDE]:
            continue
        if resting[s.ARRIVES] == now and not _keeps_its_place(resting):
            continue
        if order[s.KIND] == MARKET or _crosses(order[s.SIDE], price, resting[s.PRICE]):
            return True
    return False


@helper
def _take(
    lanes: Lanes, lane: int, slot: int, levels: Levels, book: Ints, response: Ints, now: int, engine: Ints
) -> None:
    """Let an order take what it crosses, from the best price on, and nothing twice."""
    order = lanes.order[lane, slot]
    other = 1 - order[s.SIDE]
    price = engine[s.TOUCH + other]
    while order[s.LEAVES] > 0 and price != NO_PRICE:
        if order[s.KIND] != MARKET and not _crosses(order[s.SIDE], order[s.PRICE], price):
            break
        lots = min(
            order[s.LEAVES],
            untaken(lanes, lane, other, price, max(_shown(levels, book, engine, other, price), 0)),
        )
        if lots > 0:
            if not note_taken(lanes, lane, other, price, lots, engine):
                lanes.account[lane, s.CUT_SHORT] += 1
                break
            fill(lanes, lane, slot, lots, price, s.AS_TAKER, response, now, engine)
        key = next_best(levels, book, other, price if other == BID else -price)
        price = key if key == NO_PRICE or other == BID else -key


@helper
def _rest(lanes: Lanes, lane: int, slot: int, now: int, engine: Ints) -> None:
    """Put an order behind all that rests."""
    order = lanes.order[lane, slot]
    order[s.STATUS] = RESTING
    engine[s.TAGS] += 1
    order[s.TAG] = engine[s.TAGS]
    entry = lanes.active[engine[s.ACTIVE]]
    engine[s.ACTIVE] += 1
    entry[s.ACTIVE_LANE] = lane
    entry[s.ACTIVE_SLOT] = slot
    entry[s.ACTIVE_TAG] = order[s.TAG]
    entry[s.ACTIVE_SIDE] = order[s.SIDE]
    entry[s.ACTIVE_PRICE] = order[s.PRICE]
    entry[s.ACTIVE_SHOWN] = s.NO_QUEUE
    if lanes.model[lane] & BY_QUEUE != 0:
        shown = lanes.queue[lane, slot, s.SHOWN]
        entry[s.ACTIVE_SHOWN] = int(shown) if shown >= 0.0 else s.LOOK
    if order[s.SIDE] == BID:
        engine[s.OWN + BID] = max(engine[s.OWN + BID], order[s.PRICE])
    else:
        engine[s.OWN + ASK] = min(engine[s.OWN + ASK], order[s.PRICE])
    if lanes.model[lane] & BY_CLOCK != 0:
        set_clock(lanes, lane, slot, now, engine)


@inlined
def _put(
    lanes: Lanes,
    lane: int,
    slot: int,
    price: int,
    lots: int,
    levels: Levels,
    book: Ints,
    response: Ints,
    now: int,
    engine: Ints,
) -> int:
    """Let a new order of ``lots`` do what its kind says; return the outcome."""
    order, account = lanes.order[lane, slot], lanes.account[lane]
    order[s.PRICE] = price
    if book[VALID] == 0:
        account[s.UNPLACED] += 1
        return s.NO_BOOK
    if _meets_own(lanes, lane, slot, price, now):
        account[s.SELF_TRADES] += 1
        return s.OWN_ORDER
    order[s.LEAVES] = lots
    order[s.PLACED] = now
    opposite = _opposite(lanes, lane, order[s.SIDE], levels, book, engine)
    if order[s.KIND] == MARKET or _crosses(order[s.SIDE], price, opposite):
        if order[s.KIND] == POST_ONLY:
            order[s.LEAVES] = 0
            account[s.REJECTED] += 1
            return s.CROSSES
        _take(lanes, lane, slot, levels, book, response, now, engine)
        if order[s.LEAVES] == 0:
            return s.TAKES
    if order[s.KIND] > LIMIT:
        order[s.LEAVES] = 0
        account[s.EXPIRED] += 1
        return s.EXPIRES
    if lanes.model[lane] & BY_QUEUE != 0:
        queue = lanes.queue[lane, slot]
        if lanes.model[lane] & BOOK_ALONE != 0:
            queue[s.SHOWN] = float(level_size(levels, book, order[s.SIDE], price))
        else:
            queue[s.SHOWN] = float(_shown(levels, book, engine, order[s.SIDE], price))
        queue[s.FRONT] = max(queue[s.SHOWN], 0.0)
        queue[s.TRADED] = 0.0
    _rest(lanes, lane, slot, now, engine)
    return s.STANDS


@helper
def _take_off(lanes: Lanes, lane: int, slot: int, now: int, engine: Ints) -> None:
    """Take an order off the exchange, where it is there."""
    order = lanes.order[lane, slot]
    if order[s.STATUS] == RESTING:
        engine[s.STALE] = 1
    order[s.STATUS] = GONE
    order[s.LEAVES] = 0
    if lanes.model[lane] & BY_CLOCK != 0:
        set_clock(lanes, lane, slot, now, engine)


@inlined
def arrive(
    lanes: Lanes, lane: int, slot: int, levels: Levels, book: Ints, response: Ints, now: int, engine: Ints
) -> None:
    """Carry out the instruction that reaches the exchange, and answer it."""
    order, account = lanes.order[lane, slot], lanes.account[lane]
    order[s.ARRIVES] = NEVER
    action, resting = order[s.ACTION], order[s.STATUS] == RESTING
    lots, price = _wanted(order), order[s.NEW_PRICE]
    if _keeps_its_place(order):
        order[s.LEAVES] = lots
        outcome = s.STANDS
    elif not resting and action in (AMEND, CANCEL):
        account[s.TOO_LATE] += 1
        outcome = s.IS_GONE
    else:
        _take_off(lanes, lane, slot, now, engine)
        outcome = s.IS_OFF
        if action != CANCEL and lots > 0:
            outcome = _put(lanes, lane, slot, price, lots, levels, book, response, now, engine)
            if order[s.LEAVES] == 0:
                order[s.STATUS] = GONE
    if engine[s.LOGS] == 1:
        lanes.log[lane, order[s.LOG_ROW], s.LOG_OUTCOME] = outcome
    report(lanes, lane, slot, 1, order[s.LEAVES], order[s.PRICE], response, now, engine)


@kernel(book_kernel, chain, fills, queues, s)
def arrive_all(lanes: Lanes, levels: Levels, book: Ints, response: Ints, now: int, engine: Ints) -> None:
    """Carry out all instructions that reach the exchange at ``now``, as they were sent."""
    kept = 0
    engine[s.NEXT_ARRIVAL] = NEVER
    for i in range(engine[s.FLYING]):
        lane, slot = lanes.flying[i, 0], lanes.flying[i, 1]
        arrives = lanes.order[lane, slot, s.ARRIVES]
        if arrives == now:
            arrive(lanes, lane, slot, levels, book, response, now, engine)
        elif arrives != NEVER:
            lanes.flying[kept, 0] = lane
            lanes.flying[kept, 1] = slot
            kept += 1
            engine[s.NEXT_ARRIVAL] = min(engine[s.NEXT_ARRIVAL], arrives)
    engine[s.FLYING] = kept


@kernel(book_kernel, chain, fills, queues, s)
def withdraw(lanes: Lanes, now: int, engine: Ints) -> None:
    """Take every order off, and whatever is on its way: the book is unknown from here on.

    The lanes know it at once, and all that had filled before: what a recording lost says nothing of what a
    venue would have answered, and an order that is forgotten while its fills are on their way is risk that
    nobody counts. What lanes took of the book is forgotten with it.
    """
    for lane in range(len(lanes.model)):
        account = lanes.account[lane]
        for i in range(account[s.REPORTS]):
            lanes.report[lane, i, s.KNOWN_AT] = min(lanes.report[lane, i, s.KNOWN_AT], now)
        account[s.LAST_KNOWN] = now
        account[s.RESTS] = 0
        account[s.TAKEN_LEVELS + BID] = 0
        account[s.TAKEN_LEVELS + ASK] = 0
        for slot in range(lanes.order.shape[1]):
            order = lanes.order[lane, slot]
            if order[s.NUMBER] == 0:
                continue
            if order[s.STATUS] == RESTING:
                account[s.WITHDRAWN] += 1
            if order[s.ARRIVES] != NEVER and engine[s.LOGS] == 1:
                lanes.log[lane, order[s.LOG_ROW], s.LOG_OUTCOME] = s.AT_A_HOLE
            _take_off(lanes, lane, slot, now, engine)
            order[s.ARRIVES] = NEVER
            order[s.BUSY] = 0
            order[s.KNOWN_LEAVES] = 0
            order[s.NUMBER] = 0
            order[s.STATUS] = FREE
    engine[s.FLYING] = 0
    engine[s.TAKEN] = 0
    engine[s.NEXT_ARRIVAL] = NEVER
    engine[s.STALE] = 1
    engine[s.IDLE] = 0
