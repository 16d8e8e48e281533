"""The matching engine: price, then time, exactly."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest

from mmdata.sandbox.engine import Action, Cancel, LevelView, Limit, Market, MatchingEngine, Outcome


@pytest.fixture
def engine() -> MatchingEngine:
    return MatchingEngine(first_update_id=100, first_trade_id=500)


def _fills(outcome: Outcome) -> list[tuple[int, int, int]]:
    return [(fill.maker_id, fill.px_ticks, fill.qty_lots) for fill in outcome.fills]


def test_market_order_takes_the_oldest_order_at_the_best_price_first(engine: MatchingEngine) -> None:
    worse = engine.apply(Limit("ask", 102, 5)).order_id
    older = engine.apply(Limit("ask", 101, 5)).order_id
    newer = engine.apply(Limit("ask", 101, 5)).order_id
    outcome = engine.apply(Market("bid", 12))
    assert _fills(outcome) == [(older, 101, 5), (newer, 101, 5), (worse, 102, 2)]
    engine.check_invariants()


def test_partly_filled_order_keeps_its_place_in_the_queue(engine: MatchingEngine) -> None:
    first = engine.apply(Limit("bid", 100, 10)).order_id
    second = engine.apply(Limit("bid", 100, 10)).order_id
    engine.apply(Market("ask", 4))
    assert [(o.order_id, o.left_lots) for o in engine.queue("bid", 100)] == [(first, 6), (second, 10)]
    assert _fills(engine.apply(Market("ask", 7))) == [(first, 100, 6), (second, 100, 1)]


def test_crossing_limit_matches_at_the_resting_prices_and_rests_what_is_left(engine: MatchingEngine) -> None:
    cheap = engine.apply(Limit("ask", 101, 2)).order_id
    dear = engine.apply(Limit("ask", 103, 2)).order_id
    engine.apply(Limit("ask", 104, 2))
    outcome = engine.apply(Limit("bid", 103, 7))
    assert _fills(outcome) == [(cheap, 101, 2), (dear, 103, 2)]
    assert outcome.rested_lots == 3
    assert engine.top("bid") == LevelView(103, 3, 1)
    assert engine.best_ask() == 104
    engine.check_invariants()


def test_what_a_market_order_cannot_fill_expires(engine: MatchingEngine) -> None:
    engine.apply(Limit("ask", 101, 2))
    outcome = engine.apply(Market("bid", 5))
    assert _fills(outcome) == [(1, 101, 2)]
    assert outcome.rested_lots == 0
    assert engine.best_ask() is None
    assert engine.best_bid() is None
    assert _fills(engine.apply(Market("bid", 5))) == []


def test_cancel_that_comes_too_late_is_refused_and_changes_nothing(engine: MatchingEngine) -> None:
    order = engine.apply(Limit("bid", 100, 3)).order_id
    engine.apply(Market("ask", 3))
    before = engine.update_id
    outcome = engine.apply(Cancel(order))
    assert not outcome.accepted
    assert outcome.changes == ()
    assert engine.update_id == before


def test_update_id_grows_by_one_for_each_level_that_an_action_changes(engine: MatchingEngine) -> None:
    for px in (101, 101, 102):
        engine.apply(Limit("ask", px, 1))
    assert engine.update_id == 103
    outcome = engine.apply(Limit("bid", 102, 4))
    # 101 (two orders) gone, 102 gone, 102 on the other side made
    assert [(c.update_id, c.side, c.px_ticks, c.qty_lots, c.orders) for c in outcome.changes] == [
        (104, "ask", 101, 0, 0),
        (105, "ask", 102, 0, 0),
        (106, "bid", 102, 1, 1),
    ]


def test_trade_ids_go_up_by_one_and_name_the_takers_side(engine: MatchingEngine) -> None:
    engine.apply(Limit("ask", 101, 1))
    engine.apply(Limit("ask", 101, 1))
    engine.apply(Limit("bid", 99, 1))
    bought, sold = engine.apply(Market("bid", 2)), engine.apply(Market("ask", 1))
    assert [fill.trade_id for fill in (*bought.fills, *sold.fills)] == [501, 502, 503]
    assert [fill.taker for fill in (*bought.fills, *sold.fills)] == ["buy", "buy", "sell"]


def test_levels_are_iterated_best_first_on_both_sides(engine: MatchingEngine) -> None:
    for px in (95, 99, 97):
        engine.apply(Limit("bid", px, 1))
        engine.apply(Limit("ask", px + 10, 1))
    assert [view.px_ticks for view in engine.bids()] == [99, 97, 95]
    assert [view.px_ticks for view in engine.asks()] == [105, 107, 109]


@pytest.mark.parametrize("action", [Limit("bid", 100, 0), Limit("bid", 0, 1), Market("ask", -1)])
def test_size_or_price_that_is_not_positive_is_the_callers_bug(
    engine: MatchingEngine, action: Action
) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        engine.apply(action)


@dataclass
class _Resting:
    order_id: int
    buy: bool
    px: int
    left: int


class _NaiveBook:
    """The same rules with nothing clever: one list in order of arrival, searched anew each time."""

    def __init__(self) -> None:
        self.resting: list[_Resting] = []
        self.orders = 0

    def enter(self, buy: bool, px: int | None, lots: int) -> list[tuple[int, int, int]]:
        self.orders += 1
        fills = []
        while lots:
            facing = [o for o in self.resting if o.buy != buy]
            if px is not None:
                facing = [o for o in facing if (o.px <= px if buy else o.px >= px)]
            if not facing:
                break
            best = min(facing, key=lambda o: (o.px if buy else -o.px, o.order_id))
            executed = min(lots, best.left)
            fills.append((best.order_id, best.px, executed))
            lots -= executed
            best.left -= executed
            if not best.left:
                self.resting.remove(best)
        if lots and px is not None:
            self.resting.append(_Resting(self.orders, buy, px, lots))
        return fills

    def cancel(self, order_id: int) -> bool:
        before = len(self.resting)
        self.resting = [o for o in self.resting if o.order_id != order_id]
        return len(self.resting) < before

    def levels(self, buy: bool) -> dict[int, tuple[int, int]]:
        prices = {o.px for o in self.resting if o.buy == buy}
        return {
            px: (
                sum(o.left for o in self.resting if o.buy == buy and o.px == px),
                sum(o.buy == buy and o.px == px for o in self.resting),
            )
            for px in prices
        }


@pytest.mark.parametrize("seed", range(6))
def test_random_orders_fill_as_in_a_book_searched_naively(seed: int) -> None:
    rng = random.Random(seed)
    engine, naive = MatchingEngine(), _NaiveBook()
    for _ in range(700):
        buy, lots, px = rng.random() < 0.5, rng.randint(1, 9), rng.randint(90, 110)
        kind = rng.random()
        if kind < 0.6:
            outcome = engine.apply(Limit("bid" if buy else "ask", px, lots))
            assert _fills(outcome) == naive.enter(buy, px, lots)
        elif kind < 0.8:
            outcome = engine.apply(Market("bid" if buy else "ask", lots))
            assert _fills(outcome) == naive.enter(buy, None, lots)
        else:
            order_id = rng.randint(1, max(1, naive.orders))
            assert engine.apply(Cancel(order_id)).accepted == naive.cancel(order_id)
        engine.check_invariants()
        assert {v.px_ticks: (v.qty_lots, v.orders) for v in engine.bids()} == naive.levels(True)
        assert {v.px_ticks: (v.qty_lots, v.orders) for v in engine.asks()} == naive.levels(False)


# n ahead, mu, theta, mean, std, P(T <= 1): fifo_fill_time.json, analytic (T = sum of exponentials).
_FILL_TIMES = [
    (1, 1.0, 0.5, 1.6666666666666665, 1.2018504251546631, 0.3426219967825327),
    (5, 1.0, 0.5, 3.1857142857142855, 1.4307998492510334, 0.017214998011638397),
    (3, 0.94, 0.71, 2.419352105876772, 1.3359233897836982, 0.10369790165127388),
]


@pytest.mark.parametrize(("ahead", "mu", "theta", "mean", "std", "within_1"), _FILL_TIMES)
def test_time_to_fill_in_a_queue_follows_the_analytic_law(
    ahead: int, mu: float, theta: float, mean: float, std: float, within_1: float
) -> None:
    rng = random.Random(7)
    runs = 4000
    times = [_time_to_fill(rng, ahead, mu, theta) for _ in range(runs)]
    z_mean = (sum(times) / runs - mean) / (std / math.sqrt(runs))
    share = sum(time <= 1 for time in times) / runs
    z_share = (share - within_1) / math.sqrt(within_1 * (1 - within_1) / runs)
    assert abs(z_mean) < 4
    assert abs(z_share) < 4


def _time_to_fill(rng: random.Random, ahead: int, mu: float, theta: float) -> float:
    """Return when the order behind ``ahead`` others is filled; each of those cancels at theta."""
    engine = MatchingEngine()
    others = [engine.apply(Limit("bid", 100, 1)).order_id for _ in range(ahead)]
    ours = engine.apply(Limit("bid", 100, 1)).order_id
    time = 0.0
    while ours in engine.orders:
        waiting = [order_id for order_id in others if order_id in engine.orders]
        rate = mu + theta * len(waiting)
        time += rng.expovariate(rate)
        if rng.random() * rate < mu:
            engine.apply(Market("ask", 1))
        else:
            engine.apply(Cancel(rng.choice(waiting)))
    return time
