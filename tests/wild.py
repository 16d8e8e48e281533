"""Random markets, and a strategy that sends every kind of instruction at random: what must hold, always."""

from __future__ import annotations

from numba import njit

from mmdata.datasets._kernel import ASK, BID
from mmdata.replay import state as s
from mmdata.replay.desk import (
    Desk,
    amend,
    cancel,
    inventory,
    is_free,
    order_price,
    order_size,
    place,
    replace,
)
from mmdata.replay.sketch import Sketch
from mmdata.replay.state import Ints
from mmdata.replay.strategies import strategy
from mmdata.replay.view import (
    View,
    best_ask,
    best_bid,
    depth,
    depth_size,
    imbalance,
    microprice,
    signal,
    size,
    vamp,
    volume_to,
)

SLOTS = 5


def tell_around(sketch: Sketch, at: int, bid: int, draws: Ints, latency: float, *, quoted: bool) -> None:
    """Tell, as ``draws`` say, a trade at or beyond the touch and a quote, 4 and 6 ms after ``at``."""
    if draws[10] % 2:
        taker, price = ("buy", bid + 2) if draws[11] % 2 else ("sell", bid)
        beyond = int(draws[9] % 2) * (1 if taker == "buy" else -1)
        sketch.trade(at + 4, taker, price + beyond, 1 + int(draws[8] % 9), latency)
    if quoted and draws[7] % 3:
        moved = int(draws[6] % 3) - 1
        best_bid, best_ask = (bid + moved, 1 + int(draws[4] % 20)), (bid + 2 + moved, 1 + int(draws[3] % 20))
        sketch.quote(at + 6, best_bid, best_ask, latency)


def tell_diff(sketch: Sketch, at: int, bid: int, draws: Ints, latency: float) -> None:
    """Tell a bid near the best, which may go, and the best ask."""
    bids, asks = {bid - int(draws[4] % 3): int(draws[5] % 9)}, {bid + 2: 1 + int(draws[6] % 9)}
    sketch.diff(at, bids, asks, latency)


def tell_book(sketch: Sketch, at: int, bid: int, draws: Ints, latency: float) -> None:
    """Tell a whole book, four thin levels a side, two ticks apart."""
    sketch.book(at, _side(bid, -1, draws[4:8]), _side(bid + 2, 1, draws[8:12]), latency)


def _side(best: int, step: int, draws: Ints) -> dict[int, int]:
    return {best + step * i: 1 + int(draw % 6) for i, draw in enumerate(draws)}


def act(view: View, desk: Desk) -> None:
    """Do something with each slot, as its own random numbers say; note a sum of all that it sees.

    Its second parameter is 1 where the numbers go on from those before, 0 where the moment alone says them.
    """
    memory = view.memory
    before = memory[0] if view.parameter[1] == 1.0 else view.now // 1000 % 2147483647 * 1.0
    memory[0] = (before * 48271.0 + view.parameter[0]) % 2147483647.0
    draw = int(memory[0])
    memory[1] += best_bid(view) + best_ask(view) + microprice(view) + inventory(desk)
    memory[1] += vamp(view, 3) + imbalance(view, 2) + depth_size(view, BID, 2) - depth_size(view, ASK, 2)
    memory[1] += volume_to(view, ASK, best_ask(view) + 1.0) + size(view, BID, best_bid(view) - 1.0)
    second = depth(view, BID, 2)
    if second == second:
        memory[1] += second
    known = signal(view, 0)
    if known == known:
        memory[1] += known
    if best_bid(view) >= best_ask(view):  # a random book may be crossed
        return
    if draw % 11 == 0 and is_free(desk, 0):  # takes, and rests with what is left
        place(desk, 0, BID, best_ask(view) + 1, 9, s.LIMIT)
        return
    for slot in range(SLOTS):
        draw = (draw * 48271 + slot) % 2147483647
        side = slot % 2
        away = (draw // 7) % 4 - 1
        lots = 1 + (draw // 31) % 6
        price = best_bid(view) - away if side == BID else best_ask(view) + away
        if is_free(desk, slot) and away < 0:
            place(
                desk,
                slot,
                side,
                best_ask(view) + 1 if side == BID else best_bid(view) - 1,
                lots,
                2 + draw % 2,
            )
        elif is_free(desk, slot):
            place(desk, slot, side, price, lots, draw % 2)
        elif draw % 5 == 0:
            cancel(desk, slot)
        elif draw % 5 == 1 and away >= 0:
            replace(desk, slot, price, lots)
        elif draw % 5 == 2:
            amend(desk, slot, order_price(desk, slot), max(order_size(desk, slot) - 1, 1))


COMPILED = strategy(slots=SLOTS, memory=2, seed=1.0, carries=1.0)(njit()(act))
PLAIN = strategy(slots=SLOTS, memory=2, seed=1.0, carries=1.0)(act)
