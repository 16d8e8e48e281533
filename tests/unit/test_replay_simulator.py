"""The simulator on toy markets: under twenty events each, with fills worked out by hand.

Unless a test says otherwise the strategy quotes one tick from the mid (k = 1, gamma = 0: half spread
1 / k, no skew), three lots a side, each 100 ms from 0; a message is seen 1 ms after it happened and an
order needs 1 ms to the exchange. So the first quotes are decided at 100 ms and rest from 101 ms on.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.datasets.errors import UsageError
from mmdata.replay import state as kernel
from mmdata.replay.desk import quantise
from mmdata.replay.engine import STREAMS
from mmdata.replay.result import Result
from mmdata.replay.settings import parse_settings
from mmdata.replay.simulator import MODELS, run, run_sets, simulate
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.strategies import find_strategy

MS = 1_000_000
SET = {"A": 1, "k": 1, "sigma": 1, "gamma": 0, "order_size": 3, "max_inventory": 10}


def simulated(sketch: Sketch, *models: str, seed: int = 0, **settings: Any) -> Result:
    return run(
        sketch.market(),
        models=models or tuple(MODELS),
        settings=parse_settings({**SET, **settings}),
        seed=seed,
    )


def fills(result: Result, model: str) -> list[tuple[float, str, int, int]]:
    """Return (ms, side, ticks, lots) of each fill."""
    rows = result.model(model).columns.fill
    return [
        (
            (int(row[kernel.FILL_TIME]) - EPOCH) / MS,
            "buy" if row[kernel.FILL_SIDE] > 0 else "sell",
            int(row[kernel.FILL_PRICE]),
            int(row[kernel.FILL_LOTS]),
        )
        for row in rows
    ]


def quiet() -> Sketch:
    """100 to 102, five lots each; quotes join both sides behind them."""
    sketch = Sketch()
    sketch.book(0, {100: 5, 99: 5}, {102: 5, 103: 5})
    return sketch


# The L2 queue.


def test_trades_at_the_price_eat_the_queue_before_the_order_then_the_order() -> None:
    """5 before us. 4 trade: 1 before us. 2 trade: the second is ours. Then 5 more: the two left."""
    sketch = quiet()
    sketch.trade(150, "sell", 100, 4)
    sketch.trade(160, "sell", 100, 2)
    sketch.trade(170, "sell", 100, 5)
    sketch.diff(1000, {98: 1})
    assert fills(simulated(sketch, "l2-queue"), "l2-queue") == [
        (160, "buy", 100, 1),
        (170, "buy", 100, 2),
    ]


def test_the_depth_that_tells_a_trade_does_not_shrink_the_queue_again() -> None:
    """The level falls from 5 to 1 by the trade at the same moment, told after it in either order."""
    sketch = quiet()
    sketch.diff(150, {100: 1})
    sketch.trade(150, "sell", 100, 4)
    sketch.trade(160, "sell", 100, 2)
    sketch.diff(180, {98: 1})
    assert fills(simulated(sketch, "l2-queue"), "l2-queue") == [(160, "buy", 100, 1)]


def test_a_cancellation_is_shared_between_before_and_behind() -> None:
    """5 before us, then 5 behind; 4 of the 10 go: 2 were before us. 4 trade: one is ours."""
    sketch = quiet()
    sketch.diff(110, {100: 10})
    sketch.diff(120, {100: 6})
    sketch.trade(150, "sell", 100, 4)
    sketch.diff(180, {98: 1})
    assert fills(simulated(sketch, "l2-queue"), "l2-queue") == [(150, "buy", 100, 1)]
    assert fills(simulated(sketch, "l2-queue", queue="risk-averse"), "l2-queue") == []


def test_all_is_filled_when_a_trade_prints_beyond_or_the_ask_comes_to_the_price() -> None:
    sketch = quiet()
    sketch.trade(150, "sell", 99, 1)
    sketch.diff(180, {98: 1})
    assert fills(simulated(sketch, "l2-queue"), "l2-queue") == [(150, "buy", 100, 3)]
    sketch = quiet()
    sketch.diff(160, {100: 0}, {100: 1})
    sketch.diff(180, {98: 1})
    assert fills(simulated(sketch, "l2-queue"), "l2-queue") == [(160, "buy", 100, 3)]


def test_an_order_keeps_its_place_until_something_of_it_fills() -> None:
    """Decisions at 200 and 300 leave it. One lot fills at 310: at 401 a whole order stands last again."""
    sketch = quiet()
    sketch.trade(150, "sell", 100, 4)
    sketch.trade(310, "sell", 100, 2)
    sketch.diff(320, {100: 2})
    sketch.trade(450, "sell", 100, 3)
    sketch.diff(480, {98: 1})
    result = simulated(sketch, "l2-queue")
    assert fills(result, "l2-queue") == [(310, "buy", 100, 1), (450, "buy", 100, 1)]
    placed = result.model("l2-queue").columns.fill[:, kernel.FILL_PLACED]
    assert ((placed - EPOCH) / MS).tolist() == [101, 401]


# The other fill models.


def test_price_cross_fills_when_the_opposite_best_price_comes() -> None:
    """Trades do nothing, however far beyond; the ask at 100 fills the bid, the bid at 102 the ask."""
    sketch = quiet()
    sketch.trade(110, "sell", 90, 50)
    sketch.diff(120, {100: 0}, {101: 2})
    sketch.diff(130, {}, {100: 1})
    sketch.diff(150, {102: 1}, {100: 0, 101: 0, 102: 0})
    assert fills(simulated(sketch, "price-cross"), "price-cross") == [
        (130, "buy", 100, 3),
        (150, "sell", 102, 3),
    ]


def test_trade_through_fills_strictly_beyond_the_price_by_takers_of_the_other_side() -> None:
    sketch = quiet()
    sketch.trade(110, "sell", 100, 50)
    sketch.trade(120, "buy", 99, 50)  # a taker that bought met asks, not our bid
    sketch.trade(130, "sell", 99, 1)
    sketch.trade(140, "buy", 102, 50)
    sketch.trade(150, "buy", 103, 1)
    sketch.diff(180, {98: 1})
    assert fills(simulated(sketch, "trade-through"), "trade-through") == [
        (130, "buy", 100, 3),
        (150, "sell", 102, 3),
    ]


def test_poisson_fills_when_its_seeded_wait_is_over_at_the_rate_of_the_distance() -> None:
    """The bid one tick from the mid waits at A exp(-k); when the mid falls by half, at A exp(-k/2)."""
    sketch = quiet()
    sketch.diff(300, {}, {101: 1})  # mid 100.5: bids 100 -> 99, asks 102 -> 102 anew at 401
    sketch.diff(60_000, {98: 1})
    seed, a = 5, 0.05
    found = fills(simulated(sketch, "poisson", seed=seed, A=a, interval="50s"), "poisson")
    # One decision matters: at 0 nothing is seen, at 50 s orders 99.5 -> 99 and 101.5 -> 102.
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS["poisson"],)))
    waits = stream.standard_exponential(2)
    rate = a * math.exp(-1.5) / 1e9
    due = [50_001 * MS + math.ceil(wait / rate) for wait in waits]
    expected = [
        (at / MS, side, price, 3)
        for at, side, price in zip(due, ("buy", "sell"), (99, 102), strict=True)
        if at < 60_000 * MS
    ]
    assert found == sorted(expected)


def test_poisson_fills_as_often_as_its_rate_says() -> None:
    """Rate 2 exp(-1) a side; after a fill it takes until the decision and 1 ms to stand again."""
    sketch = quiet()
    sketch.diff(2_000_000, {98: 1})
    result = simulated(sketch, "poisson", A=2, interval="1ms", max_inventory=10_000).model("poisson")
    rate = 2 * math.exp(-1)
    expected = 2 * 2000 / (1 / rate + 0.0025)
    assert abs(result.fills - expected) < 4 * math.sqrt(expected)


def test_poisson_moves_its_rate_with_the_mid_without_starting_anew() -> None:
    """Half the wait at A exp(-k), the rest at A exp(-k/2), to the nanosecond."""
    stream = np.random.default_rng(np.random.SeedSequence(0, spawn_key=(STREAMS["poisson"],)))
    wait = stream.standard_exponential(2)[0]
    slow, fast = math.exp(-1) / 1e9, math.exp(-0.5) / 1e9
    moves = 101 * MS + math.ceil(wait / slow / 2)
    sketch = quiet()
    sketch.diff(moves / MS, {}, {101: 1})
    sketch.diff(90_000, {98: 1})
    found = fills(simulated(sketch, "poisson", interval="100ms", A=1, horizon="1s"), "poisson")
    (first,) = [fill for fill in found if fill[1] == "buy"][:1]
    due = moves + (wait - slow * (moves - 101 * MS)) / fast
    # Unless it is quoted anew before: the next decision moves the bid to 99.
    if due < (moves // (100 * MS) + 1) * 100 * MS:
        assert first[0] * MS == pytest.approx(due, abs=2)


# Orders and what their owner knows.


def test_nothing_fills_before_the_order_is_there() -> None:
    """Decided at 100 ms, there at 130: the trade at 129 finds nothing, that at 131 does."""
    sketch = quiet()
    sketch.trade(129, "sell", 99, 1)
    sketch.trade(131, "sell", 99, 1)
    sketch.diff(180, {98: 1})
    result = simulated(sketch, "trade-through", order_latency="30ms")
    assert fills(result, "trade-through") == [(131, "buy", 100, 3)]


def test_an_order_that_would_cross_on_arrival_is_rejected() -> None:
    """The bid falls to 97 and the ask to 98 while the orders are on their way: the bid at 100 crosses."""
    sketch = quiet()
    sketch.book(100.5, {97: 5}, {98: 5})
    sketch.diff(150, {90: 1})
    result = simulated(sketch, "price-cross").model("price-cross")
    assert (result.orders, result.rejected, result.fills) == (2, 1, 0)


def test_quotes_never_cross_the_book_that_was_seen() -> None:
    """A half spread of 1/100 tick: floored, ceiled, and kept a tick from the other side."""
    bid, ask = quantise(100.99, 101.01, 100, 102)
    assert (bid, ask) == (100, 102)
    assert quantise(104.0, 105.0, 100, 102) == (101, 105)
    assert quantise(95.0, 96.5, 100, 102) == (95, 101)
    assert quantise(100.0, 102.0, 100, 102) == (100, 102)
    assert quantise(100.9999999999, 101.0, 90, 110) == (100, 101)  # on the grid but for rounding


def test_no_more_is_held_than_allowed() -> None:
    """Two orders of three lots may be held: the third trade through finds no bid."""
    sketch = quiet()
    for at in (150, 250, 350, 450):
        sketch.trade(at, "sell", 99, 1)
    sketch.diff(480, {98: 1})
    result = simulated(sketch, "trade-through", max_inventory=2).model("trade-through")
    assert result.fills == 2
    assert result.final_inventory == result.max_inventory == Decimal(6)


def test_what_fills_on_the_way_counts_against_the_new_order() -> None:
    """One order may be held. The bid fills at 205 while its replacement is on the way to 99."""
    sketch = quiet()
    sketch.diff(195, {100: 0}, {101: 5})
    sketch.trade(205, "sell", 99, 1)
    sketch.trade(215, "sell", 98, 1)
    sketch.diff(280, {90: 1})
    result = simulated(sketch, "trade-through", max_inventory=1, order_latency="10ms")
    assert fills(result, "trade-through") == [(205, "buy", 100, 3)]


def test_a_fill_is_known_after_the_response_latency() -> None:
    """Filled at 150, known at 270: decisions at 200 believe the order still stands."""
    sketch = quiet()
    sketch.trade(150, "sell", 99, 1)
    sketch.trade(250, "sell", 99, 1)
    sketch.trade(350, "sell", 99, 1)
    sketch.diff(380, {98: 1})
    result = simulated(sketch, "trade-through", response_latency="120ms")
    assert fills(result, "trade-through") == [(150, "buy", 100, 3), (350, "buy", 100, 3)]


def test_inventory_shifts_both_quotes_down() -> None:
    """Gamma sigma² horizon = 1 tick an order held, half spread 1.99: long three lots, 100 becomes 99."""
    sketch = Sketch()
    sketch.book(0, {100: 5}, {104: 5})
    sketch.trade(150, "sell", 99, 1)
    sketch.trade(250, "sell", 99, 1)
    sketch.trade(260, "sell", 98, 1)
    sketch.diff(280, {90: 1})
    result = simulated(sketch, "trade-through", gamma=0.01, sigma=10, horizon="1s", A=1e-4, k=1 / 1.5)
    assert result.parameter("skew").value == pytest.approx(1.0)
    half = result.parameter("half_spread").value
    assert isinstance(half, float)
    assert half == pytest.approx(0.5 + math.log1p(0.015) / 0.01)
    assert fills(result, "trade-through") == [(150, "buy", 100, 3), (260, "buy", 99, 3)]


# The touch between book messages.


def rejected(sketch: Sketch, **settings: Any) -> dict[str, int]:
    return {model.model: model.rejected for model in simulated(sketch, **settings).models}


def test_an_order_that_would_cross_the_quote_of_that_moment_is_rejected() -> None:
    """The last message says 100 to 102; a quote says that the ask has come to 100: the bid crosses it."""
    sketch = quiet()
    sketch.quote(100.5, (98, 5), (100, 5))
    sketch.diff(150, {100: 0}, {100: 5})
    result = simulated(sketch)
    assert {model.rejected for model in result.models} == {1}
    assert result.touch == "bbo"
    without = quiet()
    without.diff(150, {100: 0}, {100: 5})
    assert set(rejected(without).values()) == {0}
    assert simulated(without).touch == "depth"


def test_a_quote_fills_what_the_opposite_best_price_reaches() -> None:
    sketch = quiet()
    sketch.quote(150, (98, 5), (100, 5))
    sketch.diff(180, {97: 1})
    result = simulated(sketch, A=1e-9)
    assert fills(result, "price-cross") == fills(result, "l2-queue") == [(150, "buy", 100, 3)]
    assert fills(result, "trade-through") == fills(result, "poisson") == []


def test_quotes_move_the_mid_at_the_exchange() -> None:
    sketch = quiet()
    sketch.quote(150, (101, 5), (103, 5))
    sketch.trade(160, "sell", 99, 1)
    sketch.quote(170, (103, 5), (105, 5))
    result = simulated(sketch, "trade-through")
    row = result.models[0].columns.fill[0]
    assert (row[kernel.FILL_PRICE], row[kernel.FILL_MID2]) == (100, 204)


def test_at_one_moment_the_ids_say_which_of_message_and_quote_is_newer() -> None:
    """A quote told before the message, of the same moment, is in it already."""
    sketch = quiet()
    sketch.quote(100.5, (98, 5), (100, 5))
    sketch.diff(100.5, {99: 6})
    sketch.diff(150, {99: 7})
    assert set(rejected(sketch).values()) == {0}
    sketch = quiet()
    sketch.diff(100.5, {99: 6})
    sketch.quote(100.5, (98, 5), (100, 5))
    sketch.diff(150, {99: 7})
    assert set(rejected(sketch).values()) == {1}


def test_quotes_tell_nothing_while_the_book_is_not_proven() -> None:
    sketch = quiet()
    sketch.diff(100, {99: 6})
    sketch.gap(140)
    sketch.quote(150, (97, 5), (98, 5))
    sketch.book(190, {100: 5}, {102: 5})
    sketch.diff(280, {98: 1})
    result = simulated(sketch, "price-cross")
    assert fills(result, "price-cross") == []
    assert result.last_mid2 == 202


def test_an_order_finds_in_its_queue_what_the_quote_of_that_moment_shows() -> None:
    """The message shows 5 at 100, the quote after it 2: the third lot that trades is ours."""
    sketch = quiet()
    sketch.quote(100.5, (100, 2), (102, 5))
    sketch.trade(150, "sell", 100, 3)
    sketch.diff(180, {98: 1})
    assert fills(simulated(sketch, "l2-queue"), "l2-queue") == [(150, "buy", 100, 1)]


def test_without_quotes_trades_tell_where_the_touch_went() -> None:
    """A taker sold at 98 where the last message has the bid at 100: the ask follows to 100."""
    sketch = quiet()
    sketch.trade(100.5, "sell", 98, 1)
    sketch.diff(150, {100: 0, 98: 5}, {100: 5})
    assert set(rejected(sketch).values()) == {1}
    sketch = quiet()
    sketch.trade(100.5, "buy", 100, 1)  # an ask stood at 100: our bid there would have met it
    sketch.diff(150, {100: 0, 98: 5}, {100: 5})
    assert set(rejected(sketch).values()) == {1}
    sketch = quiet()
    sketch.trade(100.5, "sell", 100, 1)  # at the best bid: nothing moved
    sketch.diff(150, {98: 5})
    assert set(rejected(sketch).values()) == {0}


def test_a_maker_met_at_or_beyond_the_order_would_have_met_the_order_first() -> None:
    """A taker bought at 100 while our bid stood at 100: the ask that it met came to our bid before."""
    sketch = quiet()
    sketch.trade(150, "buy", 100, 1)
    sketch.diff(180, {97: 1})
    result = simulated(sketch, A=1e-9)
    assert fills(result, "price-cross") == fills(result, "l2-queue") == [(150, "buy", 100, 3)]
    assert fills(result, "trade-through") == []


def test_beyond_a_full_window_the_size_shown_is_unknown_and_the_queue_is_left_alone() -> None:
    """50 before the order at 900; the level leaves the window of 400 and comes back: 50 still are."""
    sketch = Sketch()
    sketch.book(0, {100: 5}, {**{102 + 2 * i: 5 for i in range(399)}, 900: 50})
    sketch.diff(300, asks={103 + 2 * i: 5 for i in range(10)})
    sketch.diff(400, asks={**{103 + 2 * i: 0 for i in range(10)}, 900: 50})
    sketch.trade(500, "buy", 900, 1)
    sketch.diff(550, {100: 6})
    assert fills(simulated(sketch, "l2-queue", k=1 / 799), "l2-queue") == []


def test_an_order_beyond_the_window_stands_last_once_its_level_is_told() -> None:
    """Placed while 900 is out of the window; when the level is told, all 7 shown are before the order."""
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102 + i: 5 for i in range(400)})
    sketch.diff(150, asks={**{102 + i: 0 for i in range(1, 300)}, 900: 7})
    sketch.trade(160, "buy", 900, 8)
    sketch.diff(250, {100: 6})
    assert fills(simulated(sketch, "l2-queue", k=1 / 799), "l2-queue") == [(160, "sell", 900, 1)]


# Holes.


def test_orders_are_taken_off_and_stand_again_once_the_book_is_valid() -> None:
    sketch = quiet()
    sketch.diff(144, {98: 1})
    sketch.gap(145)
    sketch.trade(150, "sell", 90, 9)
    sketch.book(310, {100: 5}, {102: 5})
    sketch.trade(320, "sell", 99, 9)
    sketch.trade(450, "sell", 99, 1)
    sketch.diff(501, {98: 1})
    result = simulated(sketch)
    assert fills(result, "trade-through") == [(450, "buy", 100, 3)]
    assert result.model("trade-through").withdrawn == 2
    # Proven and seen from 1 to 144, and from 311 to 501 (+ 1 ns), of 501 ms.
    assert result.covered == pytest.approx((143 + 190) / 501, abs=1e-6)


def test_one_decision_says_that_the_book_is_invalid_and_the_next_is_made_on_news() -> None:
    sketch = quiet()
    sketch.gap(145)
    sketch.book(810, {100: 5}, {102: 5})
    sketch.diff(1001, {98: 1})
    decisions = simulated(sketch).models[0].columns.decision
    assert decisions[:, kernel.DECISION_QUOTED].tolist() == [0, 1, 0, 1, 1]
    times = (decisions[:, kernel.DECISION_TIME] - EPOCH) / MS
    assert times.tolist() == [0, 100, 200, 900, 1000]


def test_a_hole_of_a_year_takes_no_room() -> None:
    sketch = quiet()
    sketch.gap(145)
    year = 365 * 86_400_000
    sketch.book(year, {100: 5}, {102: 5})
    sketch.diff(year + 250, {98: 1})
    assert len(simulated(sketch, interval="1ms").models[0].columns.decision) < 1000


def test_a_hole_begins_when_the_book_was_last_proven_not_when_it_was_found() -> None:
    """Silent from 100 ms on, noticed at 30 s: what the orders met in between nobody knows."""
    sketch = quiet()
    sketch.diff(100, {98: 1})
    sketch.gap(30_000)
    sketch.trade(20_000, "sell", 99, 1)
    sketch.book(30_100, {100: 5}, {102: 5})
    sketch.diff(30_201, {98: 2})
    result = simulated(sketch, A=50)
    # The strategy goes on quoting, as it would have: into a book that is not proven.
    assert {model.fills for model in result.models} == {0}
    assert result.model("poisson").unplaced > 0
    assert result.covered == pytest.approx((99 + 100) / 30_201, abs=1e-6)


def test_the_message_that_breaks_the_chain_ends_the_proof_at_the_message_before_it() -> None:
    sketch = quiet()
    sketch.diff(100, {98: 1})
    sketch.diff(5000, {98: 2})
    sketch.diff(5100, {98: 1})
    market = sketch.market()
    market.columns.prev_id[3] = 77
    result = run(market, settings=parse_settings({**SET, "A": 50}))
    assert {model.fills for model in result.models} == {0}
    assert result.covered == pytest.approx(99 / 5100, abs=1e-6)


def test_an_order_that_reaches_an_invalid_book_is_not_placed() -> None:
    sketch = quiet()
    sketch.diff(100.4, {98: 1})
    sketch.gap(100.5)
    sketch.book(310, {100: 5}, {102: 5})
    result = simulated(sketch)
    assert {model.fills for model in result.models} == {0}
    sketch = quiet()
    sketch.book(200, {}, {})  # valid and empty: the mid is unknown, nothing is quoted anew
    sketch.diff(400, {98: 1})
    assert simulated(sketch).model("price-cross").orders == 2


def test_a_recording_without_a_valid_book_is_refused() -> None:
    sketch = Sketch()
    sketch.diff(0, {100: 1}, {102: 1})
    sketch.diff(500, {100: 2})
    with pytest.raises(UsageError, match="never saw a valid book"):
        run(sketch.market())
    with pytest.raises(UsageError) as caught:
        simulated(sketch)
    assert "never saw a valid book" in str(caught.value)
    assert "3 book messages and 0 snapshots" in str(caught.value)


# Money.


def test_profit_is_spread_and_inventory_less_fees_by_hand() -> None:
    """Bought 3 at 100 with the mid at 101, which ends at 99: 3 captured, 6 lost; a fee of 1/1000."""
    sketch = quiet()
    sketch.trade(150, "sell", 99, 1)
    sketch.book(160, {98: 5}, {100: 5})
    result = simulated(sketch, "trade-through", maker_fee="0.001").model("trade-through")
    assert result.pnl.spread == Decimal(3)
    assert result.pnl.inventory == Decimal(-6)
    assert result.pnl.fees == Decimal("0.3")
    assert result.pnl.total == Decimal("-3.3")
    frame = result.fill_frame()
    assert frame["side"].to_list() == ["buy"]
    assert frame["mid"].to_list() == [Decimal("101.0")]
    assert frame["price"].to_list() == [Decimal(100)]


def test_profit_over_time_ends_at_the_total_before_fees() -> None:
    sketch = quiet()
    sketch.trade(150, "sell", 99, 1)
    sketch.book(160, {98: 5}, {100: 5})
    sketch.diff(300.5, {90: 1})
    result = simulated(sketch, "trade-through").model("trade-through")
    frame = result.pnl_frame()
    assert frame["pnl"].to_list() == [0.0, 0.0, -3.0, -3.0]
    assert frame["inventory"].to_list() == [0, 0, 3, 3]
    assert frame["quoted"].to_list() == [False, True, True, True]


def test_without_its_curve_a_run_is_the_same_and_says_that_it_has_none() -> None:
    sketch = quiet()
    for at in range(100, 6000, 70):
        sketch.trade(at, "sell" if at % 2 else "buy", 99 if at % 2 else 103, 1)
        sketch.book(at + 3, {98: 5}, {100: 5})
    how: dict[str, Any] = {"settings": parse_settings({**SET, "interval": "1ms"}), "seed": 3}
    kept, bare = (run(sketch.market(), **how, curve=curve) for curve in (True, False))
    assert len(kept.models[0].pnl_frame()) > 5000  # more than there is room for at first
    assert bare.to_json_dict() == kept.to_json_dict()
    with pytest.raises(UsageError, match="the run kept no decisions, so it has no curve"):
        bare.models[0].pnl_frame()


# The result.


def test_when_everything_is_set_nothing_is_cut_off() -> None:
    sketch = quiet()
    sketch.diff(1000, {98: 1})
    result = simulated(sketch)
    assert result.calibration is None
    assert result.traded_from == result.start == EPOCH
    assert {p.source for p in result.parameters if p.name in SET} == {"set"}


def test_what_is_not_set_comes_from_the_first_tenth_which_is_not_traded() -> None:
    sketch = quiet()
    for at in range(10, 1000, 10):
        sketch.trade(at, "buy", 103, 2)
    sketch.diff(1000, {98: 1})
    settings = parse_settings({"A": 1, "k": 1, "sigma": 1})
    result = run(sketch.market(), settings=settings)
    size = result.parameter("order_size")
    assert (size.value, size.n) == (2, 9)
    assert "first tenth" in size.source
    # Of the time from 1 ms on, when the book was first seen.
    assert result.traded_from == EPOCH + 100 * MS + 900_000
    assert result.calibration is not None
    assert result.calibration.end == result.traded_from
    for model in result.models:
        assert (model.columns.fill[:, kernel.FILL_TIME] > result.traded_from).all()
    assert result.parameter("gamma").source.startswith("derived")
    assert result.parameter("queue").source == "default"


def test_no_more_than_a_day_is_used_to_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = quiet()
    for at in range(10, 1000, 10):
        sketch.trade(at, "buy", 103, 2)
    sketch.diff(1000, {98: 1})
    monkeypatch.setattr("mmdata.replay.simulator._CALIBRATION_MOST_NS", 50 * MS)
    result = run(sketch.market(), settings=parse_settings({"A": 1, "k": 1, "sigma": 1}))
    assert result.traded_from == EPOCH + 51 * MS
    assert result.parameter("order_size").source == "estimated from the first day: the median trade"


def test_it_is_plain_json_and_text() -> None:
    sketch = quiet()
    sketch.trade(150, "sell", 99, 1)
    sketch.diff(1000, {98: 1})
    result = simulated(sketch, seed=7)
    found = json.loads(json.dumps(result.to_json_dict(), allow_nan=False))
    assert found["schema"] == 1
    assert found["seed"] == 7
    assert [model["model"] for model in found["models"]] == list(MODELS)
    assert found["from"] == "2023-11-14T22:13:20.000000000Z"
    rows = result.rows()
    assert [row["model"] for row in rows] == list(MODELS)
    assert all(isinstance(text, str) for row in rows + result.parameter_rows() for text in row.values())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"strategy": "avelaneda"},
            "'avelaneda' is not known; did you mean avellaneda-stoikov?",
        ),
        ({"fills": ["l2-que"]}, "fill model 'l2-que' is not known; did you mean l2-queue?"),
        ({"fills": "poisson,l2"}, "fill model 'l2' is not known, expected one of price-cross, trade-through"),
        ({"fills": []}, "fill models were none, expected at least one"),
        ({"fills": ["poisson", "poisson"]}, "each once"),
        ({"settings": {"gama": 1}}, "did you mean gamma?"),
    ],
)
def test_wrong_names_are_refused_before_anything_is_read(
    tmp_path: Path, change: dict[str, object], sentence: str
) -> None:
    with pytest.raises(UsageError) as caught:
        simulate(tmp_path, exchange="binance", symbol="BTCUSDT", **change)  # type: ignore[arg-type]
    assert sentence in str(caught.value)


def test_an_empty_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it holds nothing"):
        simulate(tmp_path, exchange="binance", symbol="BTCUSDT")


def test_tick_and_lot_that_orders_keep_may_be_coarser_than_the_recording_s_units() -> None:
    """The exchange's tick is 4 units: the bid from 100 down to 100, the ask from 102 up to 104."""
    sketch = quiet()
    sketch.instrument(0, Decimal(4), Decimal(3))
    sketch.trade(150, "sell", 99, 1)
    sketch.trade(160, "buy", 105, 1)
    sketch.diff(180, {98: 1})
    assert fills(simulated(sketch, "trade-through"), "trade-through") == [
        (150, "buy", 100, 3),
        (160, "sell", 104, 3),
    ]
    with pytest.raises(UsageError, match=r"order_size was 2, expected a multiple of SKETCH's lot 3 \(venue"):
        simulated(sketch, order_size=2)
    assert quantise(100.5, 101.5, 100, 102, 5) == (100, 105)
    assert quantise(100.5, 101.5, 96, 99, 5) == (95, 105)


def test_an_estimated_order_keeps_the_lot_that_was_told() -> None:
    sketch = quiet()
    sketch.instrument(0, Decimal(1), Decimal(3))
    for at in range(10, 1000, 10):
        sketch.trade(at, "buy", 103, 5)
    sketch.diff(1000, {98: 1})
    result = run(sketch.market(), settings=parse_settings({"A": 1, "k": 1, "sigma": 1}))
    assert result.parameter("order_size").value == 3


def test_what_is_doubtful_is_said() -> None:
    sketch = quiet()
    sketch.instrument(0, Decimal(1), Decimal(1), contract_value=Decimal("0.0100"))
    sketch.trade(120, "sell", 100, 1)
    sketch.trade_hole(150)
    sketch.diff(1000, {98: 1})
    result = simulated(sketch)
    assert result.trade_holes == 1
    hole, contract = result.warnings
    assert "1 hole in the trades is on record while trading" in hole
    assert "SKETCH is traded in contracts of 0.01: money is price times size, not multiplied" in contract
    assert result.to_json_dict()["warnings"] == [hole, contract]
    assert simulated(quiet_for(1000)).warnings == (
        "no trade was recorded between 2023-11-14T22:13:20.000000000Z and 2023-11-14T22:13:21.000000001Z: "
        "trade-through cannot fill, and the l2-queue reads every trade as a cancellation",
    )


def quiet_for(ms: float) -> Sketch:
    sketch = quiet()
    sketch.diff(ms, {98: 1})
    return sketch


def test_one_wrong_event_time_is_told_with_the_shift_that_it_caused() -> None:
    sketch = quiet()
    for at in range(100, 8000, 100):
        sketch.diff(at, {100: 5 + at // 100 % 2})
        sketch.trade(at + 50, "sell", 99, 1)
    clean = simulated(sketch)
    assert clean.warnings == ()
    (session,) = clean.clock.sessions
    assert session.latencies is not None
    assert (session.latencies.least, session.latencies.median) == (MS, MS)
    sketch.trade(5000, "sell", 99, 1, latency=-3000)  # received three seconds before it happened
    (warning,) = simulated(sketch).warnings
    assert "the clock of session sketch was shifted by 3.001 s to suit one event time" in warning
    assert "nearly all else is seen 3.001 s later" in warning
    sketch.trade(5000, "sell", 99, 1, latency=-3_600_000)
    with pytest.raises(UsageError, match=r"never saw a valid book.*shifted by 3600\.001 s to the exchange's"):
        simulated(sketch)


def test_a_recording_in_which_all_happened_before_anything_was_seen_is_too_short() -> None:
    sketch = Sketch()
    sketch.trade(0, "buy", 100, 1)
    with pytest.raises(UsageError, match="too short to be traded on: the first thing in it was seen at"):
        simulated(sketch)
    with pytest.raises(UsageError, match="holds neither book messages nor trades"):
        simulated(Sketch())


def test_a_simulation_begins_with_the_first_thing_seen_after_its_start() -> None:
    """The recorder came back an hour later: the hour before is not traded, nor counted as time."""
    hour = 3_600_000
    sketch = quiet()
    sketch.diff(100, {98: 1})
    sketch.session()
    sketch.book(hour, {100: 5}, {102: 5})
    sketch.diff(hour + 1000, {98: 1})
    result = run(sketch.market(), start=EPOCH + 500 * MS, settings=parse_settings(SET))
    assert result.start == EPOCH + (hour + 1) * MS
    assert result.covered == pytest.approx(1.0)


def test_the_first_tenth_is_of_the_time_with_a_valid_book() -> None:
    """Ten seconds, a day's hole, ten seconds: two seconds calibrate."""
    day = 86_400_000
    sketch = quiet()
    for begin in (0, day):
        sketch.book(begin, {100: 5}, {102: 5})
        for at in range(begin + 100, begin + 10_001, 100):
            sketch.diff(at, {100: 5 + at // 100 % 2})
            sketch.trade(at, "buy", 102, 1)
        sketch.session()
    market = sketch.market()
    result = run(market, settings=parse_settings({"A": 1, "k": 1, "sigma": 1}))
    assert (result.traded_from - EPOCH) / MS == pytest.approx(2001, abs=2)
    assert result.parameter("order_size").n == 19


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"order_size": "1e14", "max_inventory": "1e6"},
            r"max_inventory was 1000000\.0 orders of 1\.?0?E\+14",
        ),
        ({"k": "1e-9", "gamma": "1e6", "sigma": "1e9", "A": "1e-9"}, "out of any range"),
    ],
)
def test_what_no_whole_number_holds_is_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        simulated(quiet_for(1000), **settings)


@pytest.mark.parametrize("gamma", ["1e-300", "1e-15", "0"])
def test_the_least_risk_aversion_is_as_good_as_none(gamma: str) -> None:
    sketch = quiet_for(1000)
    found = simulated(sketch, gamma=gamma)
    assert found.parameter("half_spread").value == pytest.approx(1.0)
    assert found.parameter("skew").value == pytest.approx(0.0, abs=1e-6)


def test_an_order_size_off_the_lot_a_seed_below_zero_and_an_empty_time_are_refused() -> None:
    with pytest.raises(UsageError, match=r"order_size was 1.5, expected a multiple of SKETCH's lot 1"):
        simulated(quiet(), order_size="1.5")
    with pytest.raises(UsageError, match="seed was -1"):
        simulated(quiet(), seed=-1)
    with pytest.raises(UsageError, match="nothing was recorded between"):
        run(quiet().market(), start=EPOCH + 10**12, settings=parse_settings(SET))


def test_many_sets_in_one_pass_are_what_each_is_alone() -> None:
    rng = np.random.default_rng(3)
    sketch = quiet()
    for at in range(20, 5000, 20):
        price = int(rng.integers(99, 104))
        sketch.trade(at + 5, "sell" if price < 101 else "buy", price, int(rng.integers(1, 9)))
        sketch.diff(at + 7, {100: int(rng.integers(1, 9))}, {102: int(rng.integers(1, 9))})
    market, models = sketch.market(), ("poisson", "l2-queue")
    rates = ((1, 0), (2, 0.01), (0.7, 0.1))
    sets = [parse_settings({**SET, "A": 90, "k": k, "gamma": gamma}) for k, gamma in rates]
    together = run_sets(
        [market],
        strategy=find_strategy("avellaneda-stoikov"),
        models=models,
        sets=[(own, {}) for own in sets],
        seed=5,
    )
    assert len({result.hash for result in together}) == len(sets)
    for own, result in zip(sets, together, strict=True):
        alone = run(market, models=models, settings=own, seed=5)
        assert alone.to_json_dict() == result.to_json_dict()
        for mine, other in zip(alone.models, result.models, strict=True):
            assert mine.fills > 20
            assert mine.columns.fill.tolist() == other.columns.fill.tolist()


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({**SET, "interval": "50ms"}, "setting interval was None in one set and 50000000 in another"),
        (
            {key: own for key, own in SET.items() if key != "k"},
            "setting k is set in one set and estimated",
        ),
    ],
)
def test_sets_that_one_pass_cannot_trade_are_refused(other: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_sets(
            [quiet().market()],
            strategy=find_strategy("avellaneda-stoikov"),
            models=("poisson",),
            sets=[(parse_settings(own), {}) for own in (SET, other)],
        )
    assert sentence in str(caught.value)


COMPARE = """
import json, sys
import numpy as np
from mmdata.replay import _kernel
from mmdata.replay.settings import parse_settings
from mmdata.replay.simulator import run
from mmdata.replay.sketch import Sketch

rng = np.random.default_rng(4)
sketch, bid = Sketch(), 1000
sketch.book(0, {bid: 9, bid - 1: 9}, {bid + 2: 9, bid + 3: 9})
for at in range(20, 6000, 20):
    if at == 3000:
        sketch.gap(at)
    sketch.trade(at + 5, *(("sell", bid - int(rng.integers(2))) if rng.integers(2) else
                           ("buy", bid + 2 + int(rng.integers(2)))), int(rng.integers(1, 9)))
    bid += 3 * int(rng.integers(-1, 2)) if at % 60 == 0 else 0
    sketch.quote(at + 7, (bid - 1, int(rng.integers(1, 20))), (bid + 2, int(rng.integers(1, 20))))
    sketch.book(at + 9, {bid - 1 + i: int(rng.integers(1, 20)) for i in range(2)},
                {bid + 2 + i: int(rng.integers(1, 20)) for i in range(2)})
settings = parse_settings({"A": 5, "k": 2, "sigma": 1, "order_size": 3})
result = run(sketch.market(), settings=settings)
print(json.dumps({
    "compiled": hasattr(_kernel.decide, "signatures"),
    "fills": [model.columns.fill.tolist() for model in result.models],
    "decisions": result.models[0].columns.decision.tolist(),
}))
"""


def test_compiled_and_interpreted_agree_to_the_bit(tmp_path: Path) -> None:
    found = []
    for disable in ("0", "1"):
        path = os.pathsep.join(str(Path(__file__).parents[2] / wing) for wing in ("datasets", "replay"))
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disable, "PYTHONPATH": path}
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", COMPARE],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        found.append(json.loads(ran.stdout))
    compiled, interpreted = found
    assert (compiled.pop("compiled"), interpreted.pop("compiled")) == (True, False)
    assert all(len(rows) > 20 for rows in compiled["fills"])
    assert compiled == interpreted
