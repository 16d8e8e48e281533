"""What becomes of a lane's orders, rule by rule: markets of a few events, instructions by hand.

The book is 100 to 102, five lots each. Instructions and answers are on their way for 1 ms; the lane
decides each 10 ms.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from mmdata.datasets._kernel import ASK, BID
from mmdata.replay import state as s
from mmdata.replay.clock import map_clock, timeline
from mmdata.replay.desk import Desk, amend, cancel, place
from mmdata.replay.engine import STREAMS, Delay, Engine, Lane, Rules, feed_of
from mmdata.replay.fills import MODELS
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.strategies import strategy
from mmdata.replay.view import View

MS = 1_000_000
Script = dict[int, Callable[[Desk], object]]
"""What is done at which decision, ms."""


def traded(sketch: Sketch, script: Script, model: str, until: float = 1000, intensity: float = 0.0) -> Engine:
    def play(view: View, desk: Desk) -> None:
        does = script.get((view.now - EPOCH) // MS)
        if does is not None:
            does(desk)

    market = sketch.market()
    engine = Engine(market.chain, strategy(slots=3)(play))
    engine.append(feed_of(market, timeline(market, map_clock(market))))
    lane = Lane(model, (), Rules(most_lots=1000), intensity=intensity, decay=0.0)
    delay = Delay.constant(MS)
    engine.seat([lane], interval=10 * MS, order=delay, response=delay, log=True)
    engine.decide_from(EPOCH + 10 * MS)
    assert engine.advance(EPOCH + round(until * MS))
    return engine


def fills(engine: Engine) -> list[tuple[float, int, int, int]]:
    """Return (ms, number of the order, ticks, lots) of each fill."""
    rows = engine.world.lanes.fill[0, : engine.world.lanes.account[0, s.FILLS]]
    return [
        (
            (int(row[s.FILL_TIME]) - EPOCH) / MS,
            int(row[s.FILL_NUMBER]),
            int(row[s.FILL_PRICE]),
            int(row[s.FILL_LOTS]),
        )
        for row in rows
    ]


def outcomes(engine: Engine) -> list[int]:
    """Return what became of each instruction, as they were sent."""
    log = engine.world.lanes.log[0, : engine.world.lanes.account[0, s.LOGGED]]
    return [int(outcome) for outcome in log[:, s.LOG_OUTCOME]]


def quiet() -> Sketch:
    sketch = Sketch()
    sketch.book(0, {100: 5, 99: 5}, {102: 5, 103: 5})
    return sketch


def first_wait(model: str) -> float:
    """Return the first draw of a model's stream: the wait of slot 0."""
    stream = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(STREAMS[model],)))
    return float(stream.standard_exponential())


def test_what_an_own_order_had_of_a_trade_does_not_move_the_next_one_in_its_queue() -> None:
    """Five stand before both. Eight trade: five of others, three of the first; the next the second's."""
    sketch = quiet()
    sketch.trade(50, "sell", 100, 8)
    sketch.trade(60, "sell", 100, 2)
    sketch.trade(70, "sell", 100, 2)

    def two(desk: Desk) -> None:
        place(desk, 0, BID, 100, 3)
        place(desk, 1, BID, 100, 3)

    engine = traded(sketch, {10: two}, "l2-queue")
    assert fills(engine) == [(50, 1, 100, 3), (60, 2, 100, 2), (70, 2, 100, 1)]


def test_an_own_order_that_the_batch_only_makes_smaller_is_in_the_way() -> None:
    """A bid at the own ask's price arrives with the ask's amendment, before it; or with its cancellation."""

    def first(desk: Desk) -> None:
        place(desk, 1, ASK, 102, 3)

    def smaller(desk: Desk) -> None:
        place(desk, 0, BID, 102, 9, s.LIMIT)
        amend(desk, 1, 102, 2)

    def off(desk: Desk) -> None:
        place(desk, 0, BID, 102, 9, s.LIMIT)
        cancel(desk, 1)

    engine = traded(quiet(), {10: first, 20: smaller}, "trade-through")
    assert outcomes(engine) == [s.STANDS, s.OWN_ORDER, s.STANDS]
    engine = traded(quiet(), {10: first, 20: off}, "trade-through")
    assert outcomes(engine) == [s.STANDS, s.STANDS, s.IS_OFF]
    assert fills(engine) == [(21, 2, 102, 5)]


def rests_with_three(desk: Desk) -> None:
    place(desk, 0, BID, 102, 8, s.LIMIT)


@pytest.mark.parametrize("model", ["price-cross", "l2-queue"])
def test_a_maker_that_the_lane_took_itself_does_not_meet_its_order_again(model: str) -> None:
    """Five of eight are taken at 102, three rest there. A taker buys 5 at 102: those were the lane's.

    The message then shows seven: two more than were taken. At 101 the lane took nothing.
    """
    sketch = quiet()
    sketch.trade(50, "buy", 102, 5)
    sketch.diff(60, {}, {102: 7})
    sketch.trade(70, "buy", 102, 5)
    sketch.trade(80, "buy", 101, 1)
    engine = traded(sketch, {10: rests_with_three}, model)
    assert fills(engine) == [(11, 1, 102, 5), (60, 1, 102, 2), (80, 1, 102, 1)]


def test_a_clock_stands_still_while_no_order_of_its_slot_rests() -> None:
    """A wait of ten seconds: one is used up when a trade fills the order, nine are left much later."""
    wait = first_wait("hybrid")
    sketch = quiet()
    sketch.trade(1011, "sell", 99, 1)
    sketch.diff(60_000, {98: 1})

    def again(desk: Desk) -> None:
        place(desk, 0, BID, 100, 3)

    engine = traded(sketch, {10: again, 30_000: again}, "hybrid", until=60_000, intensity=wait / 10)
    (first, second) = fills(engine)
    assert first == (1011, 1, 100, 3)
    assert second[0] == pytest.approx(30_001 + 9000, abs=1e-4)
    assert second[1:] == (2, 100, 3)


def test_a_clock_goes_on_when_only_a_part_fills() -> None:
    """The message at 60 ms fills two of three; the last one waits for what is left of ten seconds."""
    wait = first_wait("hybrid")
    sketch = quiet()
    sketch.diff(60, {}, {102: 7})
    sketch.diff(60_000, {98: 1})
    engine = traded(sketch, {10: rests_with_three}, "hybrid", until=60_000, intensity=wait / 10)
    assert fills(engine)[:2] == [(11, 1, 102, 5), (60, 1, 102, 2)]
    assert math.ceil(fills(engine)[2][0]) == 10_011


def test_an_order_takes_from_so_many_levels_as_a_lane_can_remember() -> None:
    """A hundred asks of one lot: a market order for all takes 64; one more takes nothing."""
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102 + i: 1 for i in range(100)})

    def all_(desk: Desk) -> None:
        place(desk, 0, BID, 0, 100, s.MARKET)

    engine = traded(sketch, {10: all_, 20: all_}, "price-cross")
    assert outcomes(engine) == [s.EXPIRES, s.EXPIRES]
    assert len(fills(engine)) == s.LEVELS_TAKEN
    assert engine.world.lanes.account[0, s.CUT_SHORT] == 2


def test_trades_beyond_an_order_fill_it_under_these_models() -> None:
    def bid(desk: Desk) -> None:
        place(desk, 0, BID, 100, 3)

    sketch = quiet()
    sketch.trade(50, "sell", 99, 1)
    filled = [model for model in MODELS if fills(traded(sketch, {10: bid}, model))]
    assert filled == ["trade-through", "at-or-through", "l2-queue", "hybrid"]
