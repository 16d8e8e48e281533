"""What a strategy may do: orders sent, amended and cancelled, and what it knows of them. Compiled.

A lane has so many slots, each for one order with at most one instruction on its way: while its answer is
not known, another is not sent (False). Prices are ticks, sizes lots of the recording's units. A number that
is none, a price off the exchange's tick, a size off its lot, or a bid at or above an ask of the same
decision ends the run: no result is made of quotes that no exchange would have taken.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from mmdata.datasets._kernel import ASK as ASK
from mmdata.datasets._kernel import BID as BID
from mmdata.datasets.jit import helper, kernel
from mmdata.replay import fills
from mmdata.replay import state as s
from mmdata.replay.fills import latency
from mmdata.replay.state import AMEND, CANCEL, Floats, Ints, Lanes
from mmdata.replay.state import IOC as IOC
from mmdata.replay.state import LIMIT as LIMIT
from mmdata.replay.state import MARKET as MARKET
from mmdata.replay.state import POST_ONLY as POST_ONLY

_WHOLE_FLOATS = 2.0**53


class Desk(NamedTuple):
    """A lane at the moment of its decision; it has no other's."""

    lane: int
    now: int
    order: Ints  # (s, ORDER_SIZE)
    account: Ints  # (ACCOUNT_SIZE,)
    whole: Ints  # (WHOLE_SIZE,)
    real: Floats  # (REAL_SIZE,)
    report: Ints  # (room, REPORT_SIZE)
    log: Ints  # (room, LOG_SIZE)
    flying: Ints
    wire: Ints  # latencies of orders
    engine: Ints


@helper
def desk_of(lanes: Lanes, lane: int, now: int, wire: Ints, engine: Ints) -> Desk:
    """Return the desk of a lane."""
    return Desk(
        lane,
        now,
        lanes.order[lane],
        lanes.account[lane],
        lanes.whole[lane],
        lanes.real[lane],
        lanes.report[lane],
        lanes.log[lane],
        lanes.flying,
        wire,
        engine,
    )


@helper
def inventory(desk: Desk) -> int:
    """Return the lots held, as far as the lane was told; below 0 short."""
    return int(desk.account[s.KNOWN_INVENTORY])


@helper
def most(desk: Desk) -> int:
    """Return the most lots that may be held, long or short."""
    return int(desk.whole[s.MOST_LOTS])


@helper
def tick(desk: Desk) -> int:
    """Return the exchange's tick, in units of the recording."""
    return int(desk.whole[s.TICK_STEP])


@helper
def lot(desk: Desk) -> int:
    """Return the exchange's lot, in units of the recording."""
    return int(desk.whole[s.LOT_STEP])


@helper
def is_free(desk: Desk, slot: int) -> bool:
    """Return whether a slot has no order, as far as the lane knows."""
    return bool(desk.order[slot, s.NUMBER] == 0)


@helper
def is_busy(desk: Desk, slot: int) -> bool:
    """Return whether the answer to a slot's last instruction is not known yet."""
    return bool(desk.order[slot, s.BUSY] == 1)


@helper
def free_slot(desk: Desk) -> int:
    """Return the first slot without an order, -1 where all have one."""
    for slot in range(desk.order.shape[0]):
        if desk.order[slot, s.NUMBER] == 0:
            return slot
    return -1


@helper
def order_side(desk: Desk, slot: int) -> int:
    """Return the side, BID or ASK, of a slot's order."""
    return int(desk.order[slot, s.SIDE])


@helper
def order_price(desk: Desk, slot: int) -> int:
    """Return the price of a slot's order, as last answered, ticks."""
    return int(desk.order[slot, s.KNOWN_PRICE])


@helper
def order_size(desk: Desk, slot: int) -> int:
    """Return the lots of a slot's order that are open, as far as the lane knows; 0 without an order."""
    return int(desk.order[slot, s.KNOWN_LEAVES])


@helper
def open_size(desk: Desk, side: int, but: int = -1) -> int:
    """Return the lots that may still fill on ``side``, those on their way too; of all slots ``but`` one."""
    total = 0
    for slot in range(desk.order.shape[0]):
        order = desk.order[slot]
        if slot != but and order[s.NUMBER] != 0 and order[s.SIDE] == side:
            waiting = order[s.NEW_SIZE] if order[s.BUSY] == 1 and order[s.ACTION] != CANCEL else 0
            total += max(order[s.KNOWN_LEAVES], waiting)
    return int(total)


@helper
def _wrong(desk: Desk, slot: int, what: int, price: float, lots: float) -> bool:
    """Note what a strategy may not do; the run ends after its decision."""
    account, real = desk.account, desk.real
    if account[s.WRONG] == 0:
        account[s.WRONG] = what
        account[s.WRONG_SLOT] = slot
        real[s.WRONG_PRICE] = price
        real[s.WRONG_LOTS] = lots
    return False


@helper
def _sound(desk: Desk, slot: int, price: float, lots: float) -> bool:
    """Return whether numbers may be sent: whole, on the exchange's grid."""
    if not (abs(price) < _WHOLE_FLOATS and 0 < lots < _WHOLE_FLOATS):
        return _wrong(desk, slot, s.NO_NUMBER, float(price), float(lots))
    if math.floor(price) != price or math.floor(lots) != lots:
        return _wrong(desk, slot, s.NO_NUMBER, float(price), float(lots))
    if tick(desk) != 1 and int(price) % tick(desk) != 0:
        return _wrong(desk, slot, s.OFF_TICK, float(price), float(lots))
    if lot(desk) != 1 and int(lots) % lot(desk) != 0:
        return _wrong(desk, slot, s.OFF_LOT, float(price), float(lots))
    return True


@helper
def _allowed(desk: Desk, slot: int, side: int, kind: int, price: int, lots: int) -> bool:
    """Return whether an order may be sent: within the position limit, not below the least that is taken.

    What a market order will be worth is not known before it is there.
    """
    whole = desk.whole
    held = inventory(desk) if side == BID else -inventory(desk)
    if (
        held + open_size(desk, side, slot) + lots > whole[s.MOST_LOTS]
        or lots < whole[s.LEAST_LOTS]
        or (kind != MARKET and price * lots < whole[s.LEAST_NOTIONAL])
    ):
        desk.account[s.REFUSED] += 1
        return False
    return True


@helper
def _send(desk: Desk, slot: int, action: int, price: int, lots: int) -> bool:
    """Put an instruction on its way."""
    account, order, engine = desk.account, desk.order[slot], desk.engine
    order[s.ACTION] = action
    order[s.NEW_PRICE] = price
    order[s.NEW_SIZE] = lots
    order[s.KNEW_FILLED] = order[s.KNOWN_FILLED]
    order[s.SENT_AT] = desk.now
    order[s.BUSY] = 1
    order[s.ARRIVES] = desk.now + latency(desk.wire, engine[s.ORDER_WIRE], account, engine)
    desk.flying[engine[s.FLYING], 0] = desk.lane
    desk.flying[engine[s.FLYING], 1] = slot
    engine[s.FLYING] += 1
    engine[s.NEXT_ARRIVAL] = min(engine[s.NEXT_ARRIVAL], order[s.ARRIVES])
    account[s.SENT_COUNT] += 1
    if engine[s.LOGS] == 1:
        order[s.LOG_ROW] = account[s.LOGGED]
        row = desk.log[account[s.LOGGED]]
        row[s.LOG_SENT] = desk.now
        row[s.LOG_ARRIVES] = order[s.ARRIVES]
        row[s.LOG_SLOT] = slot
        row[s.LOG_NUMBER] = order[s.NUMBER]
        row[s.LOG_ACTION] = action
        row[s.LOG_KIND] = order[s.KIND]
        row[s.LOG_SIDE] = order[s.SIDE]
        row[s.LOG_PRICE] = price
        row[s.LOG_LOTS] = lots
        row[s.LOG_OUTCOME] = s.ON_ITS_WAY
        account[s.LOGGED] += 1
        engine[s.MOST_LOGGED] = max(engine[s.MOST_LOGGED], account[s.LOGGED])
    return True


@helper
def _has_slot(desk: Desk, slot: int) -> bool:
    """Return whether there is such a slot: arrays are not asked for more than they have."""
    if 0 <= slot < desk.order.shape[0]:
        return True
    return _wrong(desk, slot, s.NO_SLOT, 0.0, 0.0)


@kernel(fills, s)
def place(desk: Desk, slot: int, side: int, price: float, lots: float, kind: int = POST_ONLY) -> bool:
    """Send an order in a free slot; False where it was not sent. A market order's price is not looked at."""
    if not _has_slot(desk, slot):
        return False
    if not (side in (BID, ASK) and POST_ONLY <= kind <= MARKET):
        return _wrong(desk, slot, s.NO_KIND, float(side), float(kind))
    if kind == MARKET:
        price = 0
    if not is_free(desk, slot) or not _sound(desk, slot, price, lots):
        return False
    if not _allowed(desk, slot, side, kind, int(price), int(lots)):
        return False
    account, order = desk.account, desk.order[slot]
    account[s.NUMBERS] += 1
    order[s.NUMBER] = account[s.NUMBERS]
    order[s.STATUS] = s.SENT
    order[s.SIDE] = side
    order[s.KIND] = kind
    order[s.LEAVES] = 0
    order[s.FILLED] = 0
    order[s.KNOWN_FILLED] = 0
    order[s.KNOWN_PRICE] = int(price)
    order[s.KNOWN_LEAVES] = int(lots)
    return _send(desk, slot, s.NEW, int(price), int(lots))


@helper
def _may_change(desk: Desk, slot: int) -> bool:
    """Return whether a slot has an order of which no answer is awaited."""
    return _has_slot(desk, slot) and not is_free(desk, slot) and not is_busy(desk, slot)


@helper
def _change(desk: Desk, slot: int, action: int, price: float, lots: float) -> bool:
    """Send a change of a slot's order; False where it was not sent."""
    if not _may_change(desk, slot) or not _sound(desk, slot, price, lots):
        return False
    kind = desk.order[slot, s.KIND]
    if not _allowed(desk, slot, order_side(desk, slot), kind, int(price), int(lots)):
        return False
    return _send(desk, slot, action, int(price), int(lots))


@kernel(fills, s)
def amend(desk: Desk, slot: int, price: float, lots: float) -> bool:
    """Change an order's price and open lots; it keeps its place where only the size falls.

    What fills on the way counts against the new size. An order that is gone by then is not amended.
    """
    return _change(desk, slot, s.AMEND, price, lots)


@kernel(fills, s)
def replace(desk: Desk, slot: int, price: float, lots: float) -> bool:
    """Cancel an order and place it anew in one instruction, which works where it is gone by then, too.

    What fills on the way counts against the new size, so that no more than meant is ever held.
    """
    return _change(desk, slot, s.REPLACE, price, lots)


@kernel(fills, s)
def cancel(desk: Desk, slot: int) -> bool:
    """Send a cancellation; False where it was not sent."""
    if not _may_change(desk, slot):
        return False
    return _send(desk, slot, CANCEL, desk.order[slot, s.KNOWN_PRICE], 0)


@helper
def keep(desk: Desk, slot: int, side: int, price: float, lots: int) -> bool:
    """Have a slot hold a post-only order of ``lots`` at ``price``; 0 lots: none. False: nothing was sent.

    An order keeps its place in the queue unless its price moves or something of it filled.
    """
    if not _has_slot(desk, slot) or is_busy(desk, slot):
        return False
    held = order_size(desk, slot)
    if lots == held and (lots == 0 or price == order_price(desk, slot)):
        return False
    return _have(desk, slot, side, price, lots)


@kernel(fills, s)
def _have(desk: Desk, slot: int, side: int, price: float, lots: int) -> bool:
    """Send what it takes to have an order in a slot: apart from `keep`, which mostly sends nothing."""
    if lots == 0:
        return cancel(desk, slot)
    if is_free(desk, slot):
        return place(desk, slot, side, price, lots, POST_ONLY)
    return replace(desk, slot, price, lots)


@helper
def quantise(bid: float, ask: float, best_bid: int, best_ask: int, step: int = 1) -> tuple[int, int]:
    """Put quotes on the tick grid, never tighter than asked for and never crossing the book seen.

    A bid may join the best bid or stand inside the spread, one tick short of the best ask. Prices are
    whole multiples of ``step``, the exchange's tick in units of the recording.
    """
    # What lies on the grid but for rounding stays there.
    low = min(math.floor(bid + 1e-9), best_ask - 1)
    high = max(math.ceil(ask - 1e-9), best_bid + 1)
    if step != 1:
        low -= low % step
        high += -high % step
    if low >= high:
        low = high - step
    return low, high


@kernel(fills, s)
def hear(desk: Desk) -> None:
    """Tell a lane what it may know by now of its orders."""
    account, reports, engine = desk.account, desk.report, desk.engine
    count = account[s.REPORTS]
    heard = 0
    while heard < count and reports[heard, s.KNOWN_AT] <= desk.now:
        row = reports[heard]
        heard += 1
        order = desk.order[row[s.REPORT_SLOT]]
        lots = row[s.REPORT_LOTS]
        # A slot may have been emptied by a hole since.
        own = order[s.NUMBER] == row[s.REPORT_NUMBER]
        if row[s.REPORT_ANSWER] == 0:
            account[s.KNOWN_INVENTORY] += lots if row[s.REPORT_SIDE] == BID else -lots
            if own:
                order[s.KNOWN_LEAVES] -= lots
                order[s.KNOWN_FILLED] += lots
        elif own:
            order[s.KNOWN_LEAVES] = lots
            order[s.KNOWN_PRICE] = row[s.REPORT_PRICE]
            order[s.BUSY] = 0
        if own and order[s.BUSY] == 0 and order[s.KNOWN_LEAVES] == 0:
            order[s.NUMBER] = 0
            order[s.STATUS] = s.FREE
    if heard > 0:
        for i in range(heard, count):
            for j in range(s.REPORT_SIZE):
                reports[i - heard, j] = reports[i, j]
        account[s.REPORTS] = count - heard
    engine[s.MOST_REPORTS] = max(engine[s.MOST_REPORTS], account[s.REPORTS])


@kernel(fills, s)
def check(desk: Desk) -> bool:
    """Return whether a lane's decision can stand; a bid of it at or above an ask of it cannot."""
    highest, lowest, slot_of = -(2**62), 2**62, 0
    for slot in range(desk.order.shape[0]):
        order = desk.order[slot]
        if order[s.SENT_AT] == desk.now and order[s.BUSY] == 1 and order[s.NEW_SIZE] > 0:
            stays = order[s.ACTION] == AMEND and order[s.NEW_PRICE] == order[s.KNOWN_PRICE]
            if stays or order[s.KIND] in (IOC, MARKET):
                continue
            if order[s.SIDE] == ASK:
                lowest = min(lowest, order[s.NEW_PRICE])
            elif order[s.NEW_PRICE] > highest:
                highest, slot_of = order[s.NEW_PRICE], slot
    if highest >= lowest:
        _wrong(desk, slot_of, s.CROSSED, float(highest), float(lowest))
    return bool(desk.account[s.WRONG] == 0)
