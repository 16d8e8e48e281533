"""What a strategy sees of a book: each measure by hand, below the top and beyond the last level."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from mmdata.replay.desk import ASK, BID, Desk
from mmdata.replay.simulator import run
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.strategies import strategy
from mmdata.replay.view import (
    View,
    best_ask,
    best_ask_size,
    best_bid,
    best_bid_size,
    depth,
    depth_size,
    imbalance,
    microprice,
    mid,
    price_for,
    size,
    top_imbalance,
    vamp,
    volume_to,
)

MEASURES: dict[str, tuple[Callable[[View], float], float]] = {
    "best_bid": (lambda view: best_bid(view), 100),
    "best_ask": (lambda view: best_ask(view), 102),
    "best_bid_size": (lambda view: best_bid_size(view), 6),
    "best_ask_size": (lambda view: best_ask_size(view), 2),
    "mid": (mid, 101.0),
    # The ask is thin: the price is nearer to it.
    "microprice": (microprice, (100 * 2 + 102 * 6) / 8),
    "top_imbalance": (top_imbalance, 0.5),
    "imbalance of one": (lambda view: imbalance(view, 1), 0.5),
    "imbalance of two": (lambda view: imbalance(view, 2), (6 + 4 - 2 - 8) / 20),
    "imbalance of more than there are": (lambda view: imbalance(view, 9), (11 - 10) / 21),
    "first bid": (lambda view: depth(view, BID, 1), 100.0),
    "second bid": (lambda view: depth(view, BID, 2), 98.0),
    "second ask": (lambda view: depth(view, ASK, 2), 103.0),
    "no fourth bid": (lambda view: depth(view, BID, 4), math.nan),
    "size at a bid": (lambda view: size(view, BID, 98), 4),
    "size between levels": (lambda view: size(view, BID, 99), 0),
    "size off the tick": (lambda view: size(view, BID, 98.5), 0),
    "size at no number": (lambda view: size(view, BID, math.nan), 0),
    "two bids": (lambda view: depth_size(view, BID, 2), 10),
    "all asks": (lambda view: depth_size(view, ASK, 9), 10),
    "volume to a bid": (lambda view: volume_to(view, BID, 98), 10),
    "volume to between bids": (lambda view: volume_to(view, BID, 99.5), 6),
    "volume to an ask": (lambda view: volume_to(view, ASK, 103), 10),
    "volume before the best": (lambda view: volume_to(view, ASK, 101), 0),
    "price of five asks": (lambda view: price_for(view, ASK, 5), (2 * 102 + 3 * 103) / 5),
    "price of seven bids": (lambda view: price_for(view, BID, 7), (6 * 100 + 98) / 7),
    "price of more than there are": (lambda view: price_for(view, ASK, 11), math.nan),
    "price of nothing": (lambda view: price_for(view, ASK, 0), math.nan),
    "vamp of one is the microprice": (lambda view: vamp(view, 1), (100 * 2 + 102 * 6) / 8),
    # Bids of 10 lots at 99.2 on average, asks of 10 at 102.8.
    "vamp of two": (lambda view: vamp(view, 2), (99.2 * 10 + 102.8 * 10) / 20),
}


@pytest.mark.parametrize("measure", MEASURES)
def test_measures_of_a_book(measure: str) -> None:
    look, expected = MEASURES[measure]
    told: list[float] = []

    def decide(view: View, desk: Desk) -> None:
        told.append(look(view))

    sketch = Sketch()
    sketch.book(0, {100: 6, 98: 4, 95: 1}, {102: 2, 103: 8})
    sketch.diff(150, {90: 1})
    run(sketch.market(), strategy=strategy()(decide), models=["price-cross"], start=EPOCH)
    assert told
    assert told[0] == pytest.approx(expected, nan_ok=True, rel=1e-15)


def test_a_strategy_sees_the_book_as_it_was_known_not_as_it_stands() -> None:
    """At 100 the message of 99 is on its way still."""
    told: list[tuple[int, float, int]] = []

    def decide(view: View, desk: Desk) -> None:
        told.append((best_bid(view), depth(view, BID, 2), size(view, BID, 98)))

    sketch = Sketch()
    sketch.book(0, {100: 6, 98: 4}, {102: 2})
    sketch.diff(99, {101: 3, 98: 0}, latency=5)
    sketch.diff(250, {90: 1})
    run(sketch.market(), strategy=strategy()(decide), models=["price-cross"], start=EPOCH)
    assert told == [(100, 98.0, 4), (101, 100.0, 0)]
