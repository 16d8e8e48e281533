"""What a strategy sees: the book as it was known, signals, and measures of both. Compiled.

Prices are ticks, sizes lots, both as the recording's units; NaN stands for what is not there. Depth,
volumes and averages look deeper than the best prices: a strategy declared to see these alone must not ask
for them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from mmdata.datasets._kernel import ASK, BID, NO_PRICE, Levels, best, next_best, size_at
from mmdata.datasets.jit import helper
from mmdata.replay import state as s
from mmdata.replay.state import Floats, Ints


class View(NamedTuple):
    """What may be known at a decision; the book is valid and has both sides."""

    now: int  # ns of the exchange's clock
    top: Ints  # (TOP_SIZE,)
    levels: Levels
    book: Ints
    signal: Floats  # (c,) the last row known
    parameter: Floats  # (p,)
    memory: Floats  # (m,) the strategy's own, 0 at first: what it writes here it finds at its next decision
    account: Ints  # the lane's


@helper
def best_bid(view: View) -> int:
    """Return the highest bid, ticks."""
    return int(view.top[s.TOP_BID])


@helper
def best_ask(view: View) -> int:
    """Return the lowest ask, ticks."""
    return int(view.top[s.TOP_ASK])


@helper
def best_bid_size(view: View) -> int:
    """Return the lots of the best bid."""
    return int(view.top[s.TOP_BID_LOTS])


@helper
def best_ask_size(view: View) -> int:
    """Return the lots of the best ask."""
    return int(view.top[s.TOP_ASK_LOTS])


@helper
def mid(view: View) -> float:
    """Return the mean of the best prices, ticks."""
    return float(0.5 * (view.top[s.TOP_BID] + view.top[s.TOP_ASK]))


@helper
def microprice(view: View) -> float:
    """Return the mid weighted by the sizes against it, ticks: near the ask where bids are the larger.

    (bid · ask size + ask · bid size) / (bid size + ask size); Gatheral and Oomen (2010).
    """
    bids, asks = view.top[s.TOP_BID_LOTS], view.top[s.TOP_ASK_LOTS]
    return float((view.top[s.TOP_BID] * asks + view.top[s.TOP_ASK] * bids) / (bids + asks))


@helper
def top_imbalance(view: View) -> float:
    """Return (bid size - ask size) / (bid size + ask size) of the best prices, -1 to 1."""
    bids, asks = view.top[s.TOP_BID_LOTS], view.top[s.TOP_ASK_LOTS]
    return float((bids - asks) / (bids + asks))


@helper
def _may_look(view: View) -> bool:
    """Return whether the book below its top is there; what is asked for without it ends the run."""
    if len(view.book) == 0:
        view.account[s.WRONG] = s.TOO_DEEP
        return False
    return True


@helper
def depth(view: View, side: int, n: int) -> float:
    """Return the price of the ``n``-th best level of ``side`` (1: the best), ticks; NaN beyond the last."""
    if n == 1:
        return float(view.top[s.TOP_BID] if side == BID else view.top[s.TOP_ASK])
    if not _may_look(view):
        return math.nan
    key = best(view.levels, view.book, side)
    for _ in range(n - 1):
        if key == NO_PRICE:
            break
        key = next_best(view.levels, view.book, side, key)
    if key == NO_PRICE:
        return math.nan
    return float(key if side == BID else -key)


@helper
def size(view: View, side: int, price: float) -> int:
    """Return the lots at a price (ticks) of ``side``; 0 where there is no level."""
    if not _may_look(view) or price % 1.0 != 0.0:
        return 0
    tick = int(price)
    return int(size_at(view.levels, view.book, side, tick if side == BID else -tick))


@helper
def depth_size(view: View, side: int, n: int) -> int:
    """Return the lots of the ``n`` best levels of ``side`` together."""
    if not _may_look(view):
        return 0
    key = best(view.levels, view.book, side)
    total = 0
    for _ in range(n):
        if key == NO_PRICE:
            break
        total += size_at(view.levels, view.book, side, key)
        key = next_best(view.levels, view.book, side, key)
    return int(total)


@helper
def volume_to(view: View, side: int, price: float) -> int:
    """Return the lots of ``side`` from its best price to ``price`` (ticks), itself included."""
    if not _may_look(view):
        return 0
    key = best(view.levels, view.book, side)
    total = 0
    while key != NO_PRICE and key >= (price if side == BID else -price):
        total += size_at(view.levels, view.book, side, key)
        key = next_best(view.levels, view.book, side, key)
    return int(total)


@helper
def price_for(view: View, side: int, lots: int) -> float:
    """Return the average price, ticks, of taking ``lots`` from ``side``; NaN where there are not as many."""
    if not _may_look(view):
        return math.nan
    key = best(view.levels, view.book, side)
    left = lots
    paid = 0.0
    while left > 0 and key != NO_PRICE:
        taken = min(left, size_at(view.levels, view.book, side, key))
        paid += float(taken) * (key if side == BID else -key)
        left -= taken
        key = next_best(view.levels, view.book, side, key)
    return paid / lots if left == 0 and lots > 0 else math.nan


@helper
def vamp(view: View, n: int) -> float:
    """Return the volume-adjusted mid price over the ``n`` best levels of each side, ticks.

    Each side's average price P, weighted by the volume V of the other: (Pb·Va + Pa·Vb) / (Vb + Va); of one
    level it is the microprice.
    """
    if not _may_look(view):
        return math.nan
    bids, bid_paid = _average(view, BID, n)
    asks, ask_paid = _average(view, ASK, n)
    return (bid_paid / bids * asks + ask_paid / asks * bids) / (bids + asks)


@helper
def _average(view: View, side: int, n: int) -> tuple[float, float]:
    """Return the lots of the ``n`` best levels, and the sum of price times lots."""
    key = best(view.levels, view.book, side)
    total = 0.0
    paid = 0.0
    for _ in range(n):
        if key == NO_PRICE:
            break
        lots = float(size_at(view.levels, view.book, side, key))
        total += lots
        paid += lots * (key if side == BID else -key)
        key = next_best(view.levels, view.book, side, key)
    return total, paid


@helper
def imbalance(view: View, n: int) -> float:
    """Return (bid lots - ask lots) / (bid lots + ask lots) over the ``n`` best levels, -1 to 1."""
    if n == 1:
        return top_imbalance(view)
    bids, asks = depth_size(view, BID, n), depth_size(view, ASK, n)
    return (bids - asks) / (bids + asks) if bids + asks > 0 else math.nan


@helper
def signal(view: View, column: int) -> float:
    """Return a signal as it was last known; NaN before the first. One that was not given ends the run."""
    if not 0 <= column < len(view.signal):
        view.account[s.WRONG] = s.NO_SIGNAL
        view.account[s.WRONG_SLOT] = column
        return math.nan
    return float(view.signal[column])
