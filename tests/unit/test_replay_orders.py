"""Orders of every kind on toy markets: under twenty events each, with fills worked out by hand.

A scripted strategy acts at the decisions that a test names, each 10 ms from 0; a message is seen 1 ms after
it happened, and an order needs 1 ms to the exchange, its answer 1 ms back: what is sent at 20 arrives at 21
and is known at 22.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from mmdata.datasets._kernel import ASK, BID
from mmdata.datasets.errors import UsageError
from mmdata.replay import state as s
from mmdata.replay.caveats import of_model
from mmdata.replay.clock import MAPPED
from mmdata.replay.desk import (
    Desk,
    amend,
    cancel,
    free_slot,
    inventory,
    is_busy,
    is_free,
    open_size,
    order_price,
    order_size,
    place,
    replace,
)
from mmdata.replay.result import ModelResult
from mmdata.replay.settings import parse_settings
from mmdata.replay.signals import map_signals
from mmdata.replay.simulator import run
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.state import IOC, LIMIT, MARKET, POST_ONLY
from mmdata.replay.strategies import strategy
from mmdata.replay.survey import survey
from mmdata.replay.view import View, best_bid, signal

MS = 1_000_000
CLOCK = {"A": 1, "k": 1}
Act = Callable[[View, Desk], object]
Script = Mapping[int, Act]


def acted(
    sketch: Sketch,
    script: Script,
    model: str = "l2-queue",
    signals: tuple[object, object] | None = None,
    **settings: Any,
) -> ModelResult:
    """Return what came of a script: what to do at which ms."""

    def decide(view: View, desk: Desk) -> None:
        act = script.get((view.now - EPOCH) // MS)
        if act is not None:
            act(view, desk)

    result = run(
        sketch.market(),
        strategy=strategy(slots=4)(decide),
        models=[model],
        start=EPOCH,
        settings=parse_settings({"interval": "10ms", **(CLOCK if model == "hybrid" else {}), **settings}),
        signals=signals,
        log=True,
    )
    return result.models[0]


def fills(found: ModelResult) -> list[tuple[float, str, int, int, str]]:
    """Return (ms, side, ticks, lots, cause) of each fill."""
    frame = found.fill_frame()
    times = ((found.columns.fill[:, s.FILL_TIME] - EPOCH) / MS).tolist()
    prices = found.columns.fill[:, s.FILL_PRICE].tolist()
    lots = found.columns.fill[:, s.FILL_LOTS].tolist()
    return [*zip(times, frame["side"].to_list(), prices, lots, frame["cause"].to_list(), strict=True)]


def outcomes(found: ModelResult) -> list[tuple[str, str]]:
    """Return (action, outcome) of each instruction."""
    return found.order_frame().select("action", "outcome").rows()


def quiet(until: float = 200) -> Sketch:
    """100 to 102, five lots each and more behind; nothing happens but a far level at the end."""
    sketch = Sketch()
    sketch.book(0, {100: 5, 99: 5, 98: 5}, {102: 5, 103: 5, 104: 5})
    sketch.diff(until, {90: 1})
    return sketch


def send(slot: int, side: int, price: int, lots: int, kind: int = POST_ONLY) -> Act:
    return lambda _, desk: place(desk, slot, side, price, lots, kind)


# Kinds of orders.


def test_a_market_order_takes_from_the_best_price_on() -> None:
    found = acted(quiet(), {20: send(0, BID, 0, 12, MARKET)})
    assert fills(found) == [
        (21, "buy", 102, 5, "taker"),
        (21, "buy", 103, 5, "taker"),
        (21, "buy", 104, 2, "taker"),
    ]
    assert outcomes(found) == [("new", "taken in full")]
    assert found.taken == 3


def test_what_a_market_order_cannot_take_expires() -> None:
    found = acted(quiet(), {20: send(0, ASK, 0, 100, MARKET)})
    assert sum(lots for *_, lots, _ in fills(found)) == 15
    assert outcomes(found) == [("new", "expired")]
    assert found.expired == 1


def test_an_immediate_order_takes_up_to_its_price() -> None:
    found = acted(quiet(), {20: send(0, BID, 103, 12, IOC)})
    assert fills(found) == [(21, "buy", 102, 5, "taker"), (21, "buy", 103, 5, "taker")]
    assert outcomes(found) == [("new", "expired")]


def test_a_limit_order_rests_with_what_it_could_not_take_and_does_not_take_it_again() -> None:
    """Five are taken at 102; two rest there, and the ask that the recording goes on showing was ours."""
    sketch = quiet(100)
    sketch.diff(120, {}, {102: 4})  # fewer shown: no more is there for us
    sketch.diff(140, {}, {102: 6})  # two more than there ever were: those fill
    sketch.diff(200, {90: 2})
    found = acted(sketch, {20: send(0, BID, 102, 7, LIMIT)})
    assert fills(found) == [(21, "buy", 102, 5, "taker"), (140, "buy", 102, 2, "touch")]


def test_liquidity_is_taken_once_until_its_level_is_gone() -> None:
    sketch = quiet(10)
    sketch.diff(60, {}, {102: 0})
    sketch.diff(70, {}, {102: 3})
    sketch.diff(200, {90: 2})
    take = send(0, BID, 102, 5, IOC)
    found = acted(sketch, {20: take, 40: take, 80: take})
    assert fills(found) == [(21, "buy", 102, 5, "taker"), (81, "buy", 102, 3, "taker")]


def test_an_order_takes_what_the_newest_quote_shows() -> None:
    sketch = quiet()
    sketch.quote(15, (100, 5), (101, 2))
    found = acted(sketch, {20: send(0, BID, 102, 4, IOC)})
    assert fills(found) == [(21, "buy", 101, 2, "taker"), (21, "buy", 102, 2, "taker")]


def test_a_post_only_order_is_rejected_where_it_would_cross() -> None:
    found = acted(quiet(), {20: send(0, BID, 102, 1)})
    assert (fills(found), outcomes(found), found.rejected) == ([], [("new", "would have crossed")], 1)


def test_an_order_that_would_meet_its_own_is_turned_down() -> None:
    script = {20: send(0, ASK, 101, 2), 40: send(1, BID, 101, 2, LIMIT)}
    found = acted(quiet(), script)
    assert outcomes(found) == [("new", "rests"), ("new", "would have met its own")]
    assert (found.self_trades, fills(found)) == (1, [])


def test_what_the_same_batch_takes_off_does_not_stand_in_the_way() -> None:
    def move(_: View, desk: Desk) -> None:
        cancel(desk, 0)
        place(desk, 1, BID, 101, 2)

    found = acted(quiet(), {20: send(0, ASK, 101, 2), 40: move})
    assert outcomes(found) == [("new", "rests"), ("cancel", "cancelled"), ("new", "rests")]


def test_an_order_that_takes_from_more_levels_than_are_remembered_is_cut_short_and_told() -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102 + i: 1 for i in range(70)})
    sketch.diff(200, {90: 1})
    found = acted(sketch, {20: send(0, BID, 0, 70, MARKET)})
    assert len(fills(found)) == s.LEVELS_TAKEN
    assert found.cut_short == 1
    (said,) = of_model(found)
    assert said.startswith("1 orders under l2-queue took less than they could: of no more than 64 levels")


# Changes.


def test_an_order_made_smaller_keeps_its_place_and_one_moved_or_made_larger_does_not() -> None:
    """Five stand before it at 100; four trade. Kept: one is left before it. Anew: the level shows five."""
    for change, first in (
        (lambda _, desk: amend(desk, 0, 100, 2), [(61, "buy", 100, 1, "queue")]),
        (lambda _, desk: amend(desk, 0, 100, 4), []),
        (lambda _, desk: replace(desk, 0, 100, 2), []),
    ):
        sketch = quiet()
        sketch.trade(30, "sell", 100, 4)
        sketch.trade(61, "sell", 100, 2)
        assert fills(acted(sketch, {20: send(0, BID, 100, 3), 50: change})) == first


def test_what_fills_on_the_way_counts_against_an_amendment() -> None:
    """Two of three fill at 50.5, before the amendment to three arrives at 51: one is left."""
    sketch = quiet()
    sketch.trade(50.5, "sell", 100, 7)
    sketch.trade(80, "sell", 99, 1)
    found = acted(sketch, {20: send(0, BID, 100, 3), 50: lambda _, desk: amend(desk, 0, 99, 3)})
    assert fills(found)[0] == (50.5, "buy", 100, 2, "queue")
    assert found.final_inventory == Decimal(2)  # one lot rests at 99, behind five


def test_amending_or_cancelling_what_is_gone_comes_too_late_and_replacing_does_not() -> None:
    for change, expected in (
        (lambda _, desk: amend(desk, 0, 99, 9), ("amend", "too late")),
        (lambda _, desk: cancel(desk, 0), ("cancel", "too late")),
        (lambda _, desk: replace(desk, 0, 99, 9), ("replace", "rests")),
    ):
        sketch = quiet()
        sketch.trade(50.5, "sell", 99, 7)
        found = acted(sketch, {20: send(0, BID, 100, 3), 50: change})
        assert outcomes(found)[1] == expected


def test_nothing_is_sent_for_a_slot_whose_answer_is_not_known() -> None:
    told: list[object] = []

    def look(_: View, desk: Desk) -> None:
        told.append(
            (is_busy(desk, 0), is_free(desk, 0), cancel(desk, 0), order_size(desk, 0), free_slot(desk))
        )

    acted(
        quiet(),
        {20: send(0, BID, 100, 3), 30: look, 60: look, 90: look},
        order_latency="25ms",
        response_latency="10ms",
    )
    assert told == [
        (True, False, False, 3, 1),
        (False, False, True, 3, 1),  # known at 55
        (True, False, False, 3, 1),
    ]


def test_a_strategy_knows_of_its_orders_what_it_was_told() -> None:
    told: list[object] = []

    def look(_: View, desk: Desk) -> None:
        told.append((inventory(desk), order_size(desk, 0), order_price(desk, 0), open_size(desk, BID)))

    sketch = quiet()
    sketch.trade(48, "sell", 100, 7)
    acted(
        sketch,
        {20: send(0, BID, 100, 3), 50: look, 60: look},
        response_latency="5ms",
    )
    assert told == [(0, 3, 100, 3), (2, 1, 100, 1)]


# Limits.


def test_no_order_is_sent_that_could_exceed_the_position_limit() -> None:
    sent: list[bool] = []

    def several(_: View, desk: Desk) -> None:
        sent.extend(place(desk, slot, BID, 100 - slot, 2) for slot in range(3))
        sent.append(place(desk, 3, ASK, 103, 5))

    found = acted(quiet(), {20: several}, max_position="5")
    assert sent == [True, True, False, True]
    assert found.refused == 1


def test_orders_below_the_least_size_or_notional_are_not_sent() -> None:
    assert acted(quiet(), {20: send(0, BID, 100, 2)}, min_size="3").refused == 1
    assert acted(quiet(), {20: send(0, BID, 100, 2)}, min_notional="201").refused == 1
    assert acted(quiet(), {20: send(0, BID, 100, 2)}, min_notional="200").refused == 0
    assert acted(quiet(), {20: send(0, BID, 0, 2, MARKET)}, min_size="3").refused == 1
    assert acted(quiet(), {20: send(0, BID, 0, 2, MARKET)}, min_notional="999").refused == 0


def test_takers_pay_the_takers_fee() -> None:
    found = acted(quiet(), {20: send(0, BID, 0, 5, MARKET)}, taker_fee="0.001", maker_fee="0.1")
    assert found.pnl.fees == Decimal("0.001") * 102 * 5


def test_several_orders_at_one_price_share_what_trades() -> None:
    """Five stand before both; nine trade: the four beyond go to the first three and one of the second."""
    sketch = quiet()
    sketch.trade(60, "sell", 100, 9)
    found = acted(sketch, {20: send(0, BID, 100, 3), 30: send(1, BID, 100, 3)})
    assert fills(found) == [(60, "buy", 100, 3, "queue"), (60, "buy", 100, 1, "queue")]


# Fill models.


def test_at_or_through_fills_with_what_prints_at_the_price_and_wholly_beyond_it() -> None:
    sketch = quiet()
    sketch.trade(60, "sell", 100, 2)
    sketch.trade(70, "sell", 99, 1)
    found = acted(sketch, {20: send(0, BID, 100, 3)}, "at-or-through")
    assert fills(found) == [(60, "buy", 100, 2, "trade at"), (70, "buy", 100, 1, "trade through")]


def test_a_hybrid_is_the_queue_where_trades_explain_its_rate_and_a_clock_where_there_are_none() -> None:
    sketch = quiet()
    sketch.trade(60, "sell", 100, 7)
    script = {20: send(0, BID, 100, 3)}
    assert fills(acted(sketch, script, "hybrid", A=1000)) == fills(acted(sketch, script))
    bare = acted(quiet(), script, "hybrid", A=1000)
    assert [(side, cause) for _, side, _, _, cause in fills(bare)] == [("buy", "clock")]
    assert bare.by_clock == 1
    assert "1 of 1 fills of hybrid are its clock's" in "".join(of_model(bare))
    assert not [*of_model(acted(sketch, script, "hybrid", A=1000))]
    assert fills(bare) != fills(acted(quiet(), script, "hybrid", A=1000, A_explained=990))


# Latencies, signals, intervals.


def test_sampled_latencies_are_those_of_the_feed() -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5}, latency=1)
    for at in range(10, 200, 10):
        sketch.diff(at, {90: 1 + at}, latency=3 if at % 20 else 8)

    def again(_: View, desk: Desk) -> None:
        for slot in range(4):
            place(desk, slot, BID, 100 - slot, 1)
            replace(desk, slot, 99 - slot, 1)

    found = acted(sketch, dict.fromkeys(range(20, 180, 20), again), order_latency="feed")
    rows = found.columns.log
    own = {int(ns) // MS for ns in (rows[:, s.LOG_ARRIVES] - rows[:, s.LOG_SENT])}
    assert own <= {1, 3, 8}
    assert len(own) > 1


def test_signals_are_known_from_their_time_on() -> None:
    told: list[float] = []

    def look(view: View, _: Desk) -> None:
        told.append(float(view.signal[0]))

    signals = (np.array([15, 30, 31]) * MS + EPOCH, np.array([1.0, 2.0, 3.0]))
    acted(quiet(), dict.fromkeys((10, 20, 30, 40), look), signals=signals)
    assert str(told) == "[nan, 1.0, 2.0, 3.0]"


@pytest.mark.parametrize(
    ("signals", "sentence"),
    [
        (([2, 1], [0.0, 0.0]), "signal 1 is of 1, before 2 of the one before it; expected times that ascend"),
        (([1, 2], [0.0]), "the signals have 2 times and values of shape (1, 1), expected a value or a row"),
        (([0.5], [0.0]), "the times of the signals were float64 of shape (1,), expected whole ns"),
        (([1], ["up"]), "the signals are no arrays of numbers: could not convert string to float: 'up'"),
        (([1, 2], [[0.0], [0.0, 1.0]]), "the signals are no arrays of numbers: setting an array element"),
    ],
)
def test_signals_that_cannot_be_are_refused(signals: tuple[object, object], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        acted(quiet(), {}, signals=signals)
    assert sentence in str(caught.value)


def test_signals_are_shifted_as_what_the_session_recorded_then() -> None:
    """Latencies of 1 ms and 5 ms: by the exchange's clock the second session is 4 ms late."""
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5}, latency=1)
    sketch.session()  # in which nothing came
    sketch.session()
    sketch.book(100, {100: 5}, {102: 5}, latency=5)
    times = np.array([-1, 50, 200]) * MS + EPOCH
    looked = survey([sketch.market()], None, None, clock=MAPPED, base_latency_ns=MS)
    found = map_signals((times, np.zeros(3)), looked.begun, looked.shifts)
    assert ((found.seen - EPOCH) / MS).tolist() == [-1, 50, 196]


def test_an_interval_may_be_each_message_seen() -> None:
    sketch = Sketch()
    sketch.book(0, {100: 5}, {102: 5})
    for at in (13, 13.5, 70):
        sketch.diff(at, {90: int(at)})
    found = acted(sketch, {}, interval="message")
    times = (found.columns.decision[:, s.DECISION_TIME] - EPOCH) / MS
    assert times.tolist() == [0, 1, 14, 14.5]  # the last is seen when the recording has ended


# What no strategy may do.


@pytest.mark.parametrize(
    ("act", "sentence"),
    [
        (
            lambda _, desk: place(desk, 0, BID, float("nan"), 1),
            "asked for 1 lots at nan ticks in slot 0, expected",
        ),
        (
            lambda _, desk: place(desk, 0, BID, 100.5, 1),
            "lots at 100.5 ticks in slot 0, expected whole ticks",
        ),
        (lambda _, desk: place(desk, 0, BID, 100, 0), "asked for 0 lots at 100 ticks in slot 0, expected"),
        (lambda _, desk: place(desk, 4, BID, 100, 1), "used slot 4, expected 0 to 3"),
        (lambda _, desk: place(desk, 0, 2, 100, 1), "sent side 2 of kind 0, expected BID or ASK"),
        (
            lambda _, desk: (place(desk, 0, BID, 101, 1), place(desk, 1, ASK, 101, 1)),
            "sent a bid at 101 ticks with an ask at 101, expected the bid below the ask",
        ),
        (lambda view, _: signal(view, 0), "looked up signal 0, but none were given"),
        (lambda view, _: 1 / (best_bid(view) - 100), "fails with ZeroDivisionError"),
    ],
)
def test_a_strategy_that_does_what_none_may_ends_the_run_with_a_sentence(act: Act, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        acted(quiet(), {20: act})
    assert sentence in str(caught.value)
    assert "strategy decide" in str(caught.value)
    assert "without a result" in str(caught.value)
