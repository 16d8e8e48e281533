"""The zero-intelligence flow: its law against the reference numbers, its seed, its invariants."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pytest

from mmdata.sandbox.engine import Action, Cancel, Limit, Market, MatchingEngine
from mmdata.sandbox.flow import BURN_IN_UNITS, FlowRates, ZeroIntelligenceFlow
from mmdata.sandbox.instruments import MARKETS
from mmdata.sandbox.market import LiveMarket

# Means of l3_zero_intelligence.json (world CST2010_SkyPerfect_L30: 12 runs of 100,000 units each).
_REFERENCE = {
    "mean_spread": 1.3558999016501037,
    "P(spread=1)": 0.7418388360360776,
    "P(spread=2)": 0.18790615639314026,
    "P(spread=3)": 0.050320613353121345,
    "mean_best_bid_size": 2.098641981725275,
    "mean_best_ask_size": 2.098641981725275,  # the model is a mirror
    "depth_at_1_from_opposite_best": 1.5765916247516414,
    "depth_at_2_from_opposite_best": 1.6369015738486137,
    "depth_at_3_from_opposite_best": 1.5767145931233164,
    "depth_at_5_from_opposite_best": 1.5913244440271583,
    "depth_at_7_from_opposite_best": 1.4791686744122714,
    "limit_rate": 35.321780855269935,
    "cancel_rate": 33.443128575694594,
    "market_order_rate": 1.8787556128923653,
    "mid_change_rate": 2.5415631641931733,
}
_BATCHES = 30
_BATCH_UNITS = 60.0


def _market(seed: int, rates: FlowRates | None = None) -> tuple[MatchingEngine, ZeroIntelligenceFlow]:
    engine = MatchingEngine()
    flow = ZeroIntelligenceFlow(engine, np.random.default_rng(seed), 1, 1_000_000, rates)
    for order in flow.opening():
        flow.observe(engine.apply(order))
    return engine, flow


@cache
def _batches() -> list[dict[str, float]]:
    """Return the statistics of consecutive stretches of one market after burn-in."""
    engine, flow = _market(20100601)
    time = 0.0
    while time < BURN_IN_UNITS:
        time, action = flow.next_event()
        flow.observe(engine.apply(action))
    return [_batch(engine, flow) for _ in range(_BATCHES)]


def _batch(engine: MatchingEngine, flow: ZeroIntelligenceFlow) -> dict[str, float]:
    sums: defaultdict[str, float] = defaultdict(float)
    counts: Counter[type[Action]] = Counter()
    last = flow.time
    end = last + _BATCH_UNITS
    while last < end:
        bid, ask = engine.top("bid"), engine.top("ask")
        assert bid is not None
        assert ask is not None
        time, action = flow.next_event()
        lasted, last = time - last, time
        spread = ask.px_ticks - bid.px_ticks
        sums["mean_spread"] += lasted * spread
        sums[f"P(spread={spread})"] += lasted
        sums["mean_best_bid_size"] += lasted * bid.qty_lots
        sums["mean_best_ask_size"] += lasted * ask.qty_lots
        for distance in (1, 2, 3, 5, 7):
            depth = engine.at("bid", ask.px_ticks - distance).qty_lots
            depth += engine.at("ask", bid.px_ticks + distance).qty_lots
            sums[f"depth_at_{distance}_from_opposite_best"] += lasted * depth / 2
        counts[type(action)] += 1
        flow.observe(engine.apply(action))
        bid_after, ask_after = engine.best_bid(), engine.best_ask()
        assert bid_after is not None
        assert ask_after is not None
        sums["mid_change_rate"] += bid_after + ask_after != bid.px_ticks + ask.px_ticks
    sums["limit_rate"] += counts[Limit]
    sums["cancel_rate"] += counts[Cancel]
    sums["market_order_rate"] += counts[Market]
    engine.check_invariants()
    lasted = last - (end - _BATCH_UNITS)
    return {name: sums[name] / lasted for name in _REFERENCE}


@pytest.mark.parametrize("name", _REFERENCE)
def test_flow_has_the_statistics_of_the_reference_world(name: str) -> None:
    values = np.array([batch[name] for batch in _batches()])
    standard_error = values.std(ddof=1) / math.sqrt(len(values))
    assert abs(values.mean() - _REFERENCE[name]) < 4 * standard_error
    # A run so short or so wild that any mean would pass proves nothing.
    assert standard_error < 0.03 * _REFERENCE[name] + 0.005


def test_orders_come_and_go_at_the_same_rate() -> None:
    balance = np.array([b["limit_rate"] - b["cancel_rate"] - b["market_order_rate"] for b in _batches()])
    assert abs(balance.mean()) < 4 * balance.std(ddof=1) / math.sqrt(len(balance))


# lambda(1..5), theta(1..5) and mu of Cont, Stoikov, Talreja (2010), as printed, and the power law beyond.
_LAMBDA = [1.85, 1.51, 1.09, 0.88, 0.77] + [1.92 * i**-0.52 for i in range(6, 31)]
_THETA = [0.71, 0.81, 0.68, 0.56, 0.47]
_MU = 0.94


def test_in_a_book_that_stands_still_each_kind_of_order_comes_at_its_rate() -> None:
    engine, flow = _market(1)
    for order in [*flow.opening(), *flow.opening()]:  # three orders at each distance from 1 to 30
        flow.observe(engine.apply(order))
    bid, ask = engine.best_bid(), engine.best_ask()
    assert bid is not None
    assert ask is not None
    rates: defaultdict[object, float] = defaultdict(float)
    for distance, rate in enumerate(_LAMBDA, 1):
        rates["bid", distance] = rates["ask", distance] = rate
    rates["buy"] = rates["sell"] = _MU
    for resting in engine.orders.values():
        distance = ask - resting.px_ticks if resting.side == "bid" else resting.px_ticks - bid
        rates["cancel", min(distance, 8)] += _THETA[min(distance, 5) - 1]
    counts: Counter[object] = Counter()
    start, draws = flow.time, 100_000
    for _ in range(draws):
        match flow.next_event()[1]:  # never applied: the book stays as it is
            case Limit(side="bid", px_ticks=px):
                counts["bid", ask - px] += 1
            case Limit(px_ticks=px):
                counts["ask", px - bid] += 1
            case Market(side=side):
                counts["buy" if side == "bid" else "sell"] += 1
            case Cancel(order_id):
                resting = engine.orders[order_id]
                distance = ask - resting.px_ticks if resting.side == "bid" else resting.px_ticks - bid
                counts["cancel", min(distance, 8)] += 1
    total = sum(rates.values())
    assert set(counts) == set(rates)
    for kind, rate in rates.items():
        share = rate / total
        z = (counts[kind] - draws * share) / math.sqrt(draws * share * (1 - share))
        assert abs(z) < 4.5, (kind, z)
    assert abs((flow.time - start) * total / draws - 1) < 4.5 / math.sqrt(draws)


def _first_actions(seed: int, count: int) -> list[tuple[float, Action]]:
    engine, flow = _market(seed)
    actions = []
    for _ in range(count):
        time, action = flow.next_event()
        flow.observe(engine.apply(action))
        actions.append((time, action))
    return actions


def test_same_seed_gives_the_same_orders_at_the_same_times_and_another_seed_others() -> None:
    assert _first_actions(3, 2000) == _first_actions(3, 2000)
    assert _first_actions(3, 2000) != _first_actions(4, 2000)


def test_book_is_never_crossed_and_loses_no_lot_at_any_event() -> None:
    engine, flow = _market(11)
    for _ in range(4000):
        flow.observe(engine.apply(flow.next_event()[1]))
        engine.check_invariants()


def test_far_orders_are_cancelled_too_so_that_the_book_does_not_grow() -> None:
    engine, flow = _market(5)
    sizes = []
    for event in range(40_000):
        flow.observe(engine.apply(flow.next_event()[1]))
        if event % 2000 == 1999:
            sizes.append(len(engine.orders))
    # 2 * sum lambda(i)/theta(i) would rest if no order ever traded: about 72.
    assert 45 < np.mean(sizes[:10]) < 80
    assert abs(np.mean(sizes[10:]) - np.mean(sizes[:10])) < 10


def test_flow_survives_a_side_that_is_empty() -> None:
    engine, flow = _market(1)
    for order_id in list(engine.orders):
        flow.observe(engine.apply(Cancel(order_id)))
    assert engine.best_bid() is None
    for _ in range(500):
        flow.observe(engine.apply(flow.next_event()[1]))
    engine.check_invariants()
    assert engine.best_bid() is not None


def test_sweep_puts_several_fills_into_one_market_order() -> None:
    engine, flow = _market(2, FlowRates(sweep=1.0))
    most = 0
    for _ in range(3000):
        outcome = engine.apply(flow.next_event()[1])
        flow.observe(outcome)
        most = max(most, len(outcome.fills))
    assert most > 1


def _live_market(speed: float, seed: int = 1) -> LiveMarket:
    return LiveMarket(MARKETS[0], np.random.SeedSequence(seed), speed, 10**18)


def test_advance_yields_each_due_event_once_in_order_of_time() -> None:
    market = _live_market(20)
    first = list(market.advance(10**18 + 10**9))
    again = list(market.advance(10**18 + 10**9))
    later = list(market.advance(10**18 + 2 * 10**9))
    times = [event.ts_event for event in first + later]
    assert again == []
    assert times == sorted(times)
    assert times[0] >= 10**18
    assert times[-1] <= 10**18 + 2 * 10**9
    assert first[-1].ts_event <= 10**18 + 10**9 < later[0].ts_event


def test_speed_scales_time_and_nothing_else() -> None:
    slow, fast = _live_market(10), _live_market(20)
    of_slow = list(slow.advance(10**18 + 2 * 10**9))
    of_fast = list(fast.advance(10**18 + 10**9))
    assert [event.outcome for event in of_slow] == [event.outcome for event in of_fast]
    # 71 events per unit, 20 units; Poisson-like: 4 sigma.
    assert abs(len(of_fast) - 1413) < 4 * math.sqrt(1413) * 1.5


def test_postponed_market_has_the_same_events_later() -> None:
    plain, late = _live_market(20), _live_market(20)
    list(plain.advance(10**18 + 10**8))
    list(late.advance(10**18 + 10**8))
    late.postpone(7 * 10**9)
    assert list(late.advance(10**18 + 7 * 10**9)) == []
    expected = [(ts + 7 * 10**9, outcome) for ts, outcome in plain.advance(10**18 + 10**9)]
    assert list(late.advance(10**18 + 8 * 10**9)) == expected != []


def test_speed_zero_leaves_a_full_book_still() -> None:
    market = _live_market(0)
    assert list(market.advance(10**19)) == []
    assert market.engine.best_bid() is not None
    market.engine.check_invariants()


def test_ids_start_where_the_instrument_says() -> None:
    engine = _live_market(20).engine
    assert engine.update_id > MARKETS[0].first_update_id
    assert engine.last_trade_id > MARKETS[0].first_trade_id
