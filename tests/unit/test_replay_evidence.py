"""What fills orders in their queues, event by event; and where hftbacktest's own rules do otherwise."""

from __future__ import annotations

import pytest

from mmdata.datasets._kernel import BID
from mmdata.replay import state as s
from mmdata.replay.clock import map_clock, timeline
from mmdata.replay.desk import Desk, free_slot, place
from mmdata.replay.engine import Delay, Engine, Lane, Rules, feed_of
from mmdata.replay.queues import POWER
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.strategies import TOP, strategy
from mmdata.replay.view import View

MS = 1_000_000


@pytest.fixture
def sketch() -> Sketch:
    """Return a market of 100 by 102, 10 lots each."""
    made = Sketch()
    made.book(0, {100: 10, 99: 10}, {102: 10, 103: 10})
    return made


def fills(
    sketch: Sketch, orders: list[tuple[int, int, int]], model: str = "l2-queue", corrected: int = 1
) -> list[tuple[int, ...]]:
    """Return (ms, number, price, lots) of the fills of bids: (ms at which they arrive, price, lots)."""

    def send(view: View, desk: Desk) -> None:
        for at, price, lots in orders:
            if view.now == EPOCH + at * MS:
                place(desk, free_slot(desk), BID, price, lots)

    market = sketch.market()
    engine = Engine(market.chain, strategy(slots=4, sees=TOP)(send))
    rules = Rules(most_lots=1 << 40, queue_rule=POWER, queue_corrected=corrected)
    none = Delay.constant(0)
    engine.seat([Lane(model, (), rules)], interval=MS, order=none, response=none)
    engine.append(feed_of(market, timeline(market, map_clock(market))))
    engine.decide_from(EPOCH)
    assert engine.advance(EPOCH + 100 * MS)
    lanes = engine.world.lanes
    rows = lanes.fill[0, : lanes.account[0, s.FILLS]]
    return [
        (
            (int(row[s.FILL_TIME]) - EPOCH) // MS,
            *(int(row[at]) for at in (s.FILL_NUMBER, s.FILL_PRICE, s.FILL_LOTS)),
        )
        for row in rows
    ]


def test_a_level_told_as_it_was_has_been_filled_up_again_and_the_trade_explains_nothing_later(
    sketch: Sketch,
) -> None:
    """4 of the 10 before us trade and 4 come behind; then 5 of the 10 are cancelled, 6 before and 4 behind.

    Three of the five were before us, so that three are left. Were the trade to explain four of them again,
    five would be left.
    """
    sketch.trade(10, "sell", 100, 4)
    sketch.diff(12, {100: 10}, {})
    sketch.diff(14, {100: 5}, {})
    sketch.trade(16, "sell", 100, 5)
    assert fills(sketch, [(5, 100, 9)]) == [(16, 1, 100, 2)]


def test_a_message_that_does_not_speak_of_a_level_leaves_its_trades_to_the_next_one(sketch: Sketch) -> None:
    sketch.trade(10, "sell", 100, 4)
    sketch.diff(12, {99: 8}, {})
    sketch.diff(14, {100: 6}, {})
    sketch.trade(16, "sell", 100, 7)
    assert fills(sketch, [(5, 100, 9)]) == [(16, 1, 100, 1)]


def test_what_filled_an_earlier_order_did_not_reach_the_one_behind_it(sketch: Sketch) -> None:
    """12 trade where 10 stood before: two lots are left, for one order, though both joined behind the ten."""
    sketch.trade(10, "sell", 100, 12)
    sketch.trade(12, "sell", 100, 4)
    assert fills(sketch, [(5, 100, 5), (6, 100, 5)]) == [(10, 1, 100, 2), (12, 1, 100, 3), (12, 2, 100, 1)]


def test_by_hftbacktest_s_rules_one_trade_fills_each_order_and_a_lot_all_of_it(sketch: Sketch) -> None:
    sketch.trade(10, "sell", 100, 12)
    orders = [(5, 100, 5), (6, 100, 5)]
    assert fills(sketch, orders, "hftbacktest-partial", 0) == [(10, 1, 100, 2), (10, 2, 100, 2)]
    assert fills(sketch, orders, "hftbacktest", 0) == [(10, 1, 100, 5), (10, 2, 100, 5)]


def test_by_hftbacktest_s_rules_neither_trades_nor_quotes_move_the_touch(sketch: Sketch) -> None:
    """A taker buys at 101, inside the spread: an ask stood there, and a bid at 101 would have met it."""
    sketch.trade(10, "buy", 101, 1)
    sketch.quote(14, (100, 9), (101, 2))
    sketch.quote(16, (100, 9), (102, 2))
    sketch.trade(20, "sell", 100, 1)
    orders = [(12, 101, 2)]
    assert fills(sketch, orders) == []
    assert fills(sketch, orders, "hftbacktest", 0) == [(20, 1, 101, 2)]
