"""The engine beside a plain simulator of one lane, `oracle`: the same fills and outcomes, whatever happens.

The market is one in which rare things happen often: much at the same moment, levels that vanish, trades
through, several own orders at a price, quotes, holes, books cut to a few levels, instructions without
latency. In units of a nanosecond even Poisson clocks ring when other things happen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from mmdata.datasets._kernel import ASK, BID
from mmdata.datasets.market import Market
from mmdata.replay import state as s
from mmdata.replay.clock import Timeline, map_clock, timeline
from mmdata.replay.desk import (
    Desk,
    amend,
    cancel,
    inventory,
    is_busy,
    is_free,
    order_price,
    order_side,
    order_size,
    place,
)
from mmdata.replay.desk import replace as put_anew
from mmdata.replay.engine import STREAMS, Delay, Engine, Lane, Rules, feed_of
from mmdata.replay.fills import MODELS
from mmdata.replay.queues import RULES, after_depth, reached
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.strategies import strategy
from mmdata.replay.view import View, best_ask, best_bid
from tests import oracle
from tests.oracle import Oracle, Terms

MS = 1_000_000
STEPS = 120
SLOTS = 6
PATIENT = 60

ACTIONS = {s.NEW: "new", s.AMEND: "amend", s.REPLACE: "replace", s.CANCEL: "cancel"}
KINDS = {s.POST_ONLY: "post-only", s.LIMIT: "limit", s.IOC: "ioc", s.MARKET: "market"}
CAUSES = {
    s.BY_TOUCH: "touch",
    s.BY_MAKER: "maker",
    s.BY_THROUGH: "through",
    s.BY_PRINT: "print",
    s.BY_QUEUE: "queue",
    s.BY_CLOCK: "clock",
    s.AS_TAKER: "taker",
}
OUTCOMES = {
    s.ON_ITS_WAY: "on its way",
    s.STANDS: "stands",
    s.CROSSES: "crosses",
    s.NO_BOOK: "no book",
    s.OWN_ORDER: "own order",
    s.TAKES: "takes",
    s.EXPIRES: "expires",
    s.IS_OFF: "off",
    s.IS_GONE: "gone",
    s.AT_A_HOLE: "lost at a hole",
}
COUNTS = {
    s.REJECTED: "crosses",
    s.UNPLACED: "no book",
    s.WITHDRAWN: "withdrawn",
    s.EXPIRED: "expires",
    s.SELF_TRADES: "own order",
    s.TOO_LATE: "too late",
    s.CUT_SHORT: "cut short",
}
HOWS = {s.CONSTANT: "constant", s.SAMPLED: "sampled", s.BY_MESSAGE: "by message"}


def stirred(digest: float, value: float) -> float:
    """Return a number that depends on all that were stirred in, in order."""
    return (digest * 31.0 + value + 7919.0) % 2147483647.0


stir: Any = njit()(stirred)


def act(view: View, desk: Desk) -> None:
    """Note what the lane knows, then do something with each slot, as its own random numbers say."""
    memory = view.memory
    memory[1] = stir(memory[1], float(inventory(desk)))
    for slot in range(SLOTS):
        if is_free(desk, slot):
            memory[1] = stir(memory[1], -1.0)
        else:
            memory[1] = stir(memory[1], 1.0 if is_busy(desk, slot) else 0.0)
            memory[1] = stir(memory[1], float(order_side(desk, slot)))
            memory[1] = stir(memory[1], float(order_price(desk, slot)))
            memory[1] = stir(memory[1], float(order_size(desk, slot)))
    memory[0] = (memory[0] * 48271.0 + view.parameter[0]) % 2147483647.0
    draw = int(memory[0])
    # Bids of one decision stay at or below this price, asks above it: it may lie across the touch.
    calm = int(view.parameter[1])
    middle = best_bid(view) + (draw % 4 - 1 if draw // 13 % calm < 8 else 0)
    for slot in range(SLOTS):
        draw = (draw * 48271 + slot + 1) % 2147483647
        # A calm lane leaves its orders for long, and puts some farther away; a patient one never goes.
        does, away, lots = draw // 7 % calm, draw // 61 % (3 + calm // 30), 1 + draw // 509 % 5
        if is_free(desk, slot):
            side = draw // 4099 % 2
            price = middle - away if side == BID else middle + 1 + away
            if does < 3 or calm == PATIENT:
                place(desk, slot, side, price, lots, s.POST_ONLY)
            elif does < 5:
                place(desk, slot, side, price, lots + 3, s.LIMIT)
            elif does == 5:
                across = best_ask(view) + away if side == BID else best_bid(view) - away
                place(desk, slot, side, across, lots + 2, s.IOC)
            elif does == 6 and draw // 31 % 3 == 0:
                place(desk, slot, side, 0, lots, s.MARKET)
            continue
        side = order_side(desk, slot)
        price = middle - away if side == BID else middle + 1 + away
        if does == 0:
            cancel(desk, slot)
        elif does == 1:
            put_anew(desk, slot, price, lots)
        elif does == 2:
            amend(desk, slot, price, lots)
        elif does == 3:
            amend(desk, slot, order_price(desk, slot), max(order_size(desk, slot) - 1, 1))


WILD = strategy(slots=SLOTS, memory=2, seed=1.0, calm=8.0)(njit()(act))


@dataclass(frozen=True)
class Case:
    """A random market, and how lanes are connected to it."""

    seed: int
    unit: int
    """ns between what happens, at least: all times are multiples of it."""
    depth: int
    """Levels that the feed speaks of."""
    quoted: bool
    hole_every: int
    interval: int
    order: tuple[int, tuple[int, ...]]
    response: tuple[int, tuple[int, ...]]
    limit: int
    rule: str = "power"
    power: float = 2.0
    calm: float = 8.0
    thick: bool = False
    """Many lots a level, which come and go by a few, while the price hardly moves: queues matter."""

    def market(self) -> Market:
        """Return the market."""
        rng = np.random.default_rng(self.seed)
        sketch, books = Sketch(), _Books(rng, self.thick)
        at, lost = 0, True
        for step in range(STEPS):
            at += int(rng.integers(0, 3))
            time, latency = at * self.unit / MS, int(rng.integers(0, 5)) * self.unit / MS
            if lost and step % 7 == 0:
                sketch.book(time, *books.whole(), latency)
                lost = False
            elif not lost and self.hole_every and step % self.hole_every == self.hole_every - 1:
                sketch.gap(time)
                lost = True
            # In any order: what counts at one moment is what each thing is, not when it was told.
            for what in rng.permutation(4)[: rng.integers(1, 4)]:
                if what == 0 and not lost:
                    if rng.integers(60 if self.thick else 12):
                        sketch.diff(time, *books.change(), latency)
                    else:
                        sketch.book(time, *books.whole(), latency)
                elif what == 1:
                    sketch.trade(time, *books.trade(), latency)
                elif what == 2 and self.quoted:
                    sketch.quote(time, *books.quote(), latency)
        market = sketch.market()
        return replace(market, chain=replace(market.chain, max_depth=self.depth))

    def times(self, market: Market) -> Timeline:
        """Return when everything happens; the least latency is a unit."""
        return timeline(market, map_clock(market, base_latency_ns=self.unit))

    def lanes(self) -> list[Lane]:
        """Return a lane a fill model; of the queue's one more, of another rule."""
        rates = {
            "intensity": 0.06e9 / self.unit,
            "decay": 0.5,
            "explained_intensity": 0.02e9 / self.unit,
            "explained_decay": 0.9,
        }
        plain, other = (Rules(most_lots=self.limit, queue_rule=RULES[rule]) for rule in ("power", self.rule))
        return [
            *(Lane(model, (11.0 + 2 * i, self.calm), plain, **rates) for i, model in enumerate(MODELS)),
            Lane("l2-queue", (97.0, self.calm), other, queue_power=self.power, **rates),
            Lane("hybrid", (99.0, self.calm), other, queue_power=self.power, **rates),
        ]


class _Books:
    """A book that walks; what is told of it is mostly true."""

    def __init__(self, rng: np.random.Generator, thick: bool) -> None:
        self.rng = rng
        self.thick = thick
        self.bid = 1000
        self.sides: list[dict[int, int]] = [{}, {}]

    def whole(self) -> tuple[dict[int, int], dict[int, int]]:
        """Draw a book anew; now and then a side is empty."""
        self._walk()
        spread = int(self.rng.integers(1, 4))
        for side, (best, step) in enumerate(((self.bid, -1), (self.bid + spread, 1))):
            prices = [best + step * i for i in range(8) if i == 0 or self.rng.integers(4)]
            self.sides[side] = {price: self._lots() for price in prices} if self.rng.integers(20) else {}
        return dict(self.sides[0]), dict(self.sides[1])

    def change(self) -> tuple[dict[int, int], dict[int, int]]:
        """Change some levels; where the price walks, all that it crosses vanishes."""
        self._walk()
        told: list[dict[int, int]] = [{}, {}]
        for _ in range(int(self.rng.integers(0, 5))):
            side = int(self.rng.integers(2))
            away = int(self.rng.integers(0, 2 if self.thick else 6))
            price = self.bid - away if side == BID else self.bid + 1 + away
            if self.thick:
                told[side][price] = max(self.sides[side].get(price, 0) + int(self.rng.integers(-9, 12)), 0)
            else:
                told[side][price] = self._lots() if self.rng.integers(4) else 0
        for side in (BID, ASK):
            for price in self.sides[side]:
                if (price > self.bid) if side == BID else (price <= self.bid):
                    told[side][price] = 0
            self.sides[side] |= told[side]
            self.sides[side] = {price: lots for price, lots in self.sides[side].items() if lots}
        return told[0], told[1]

    def trade(self) -> tuple[str, int, int]:
        """Draw a trade near the touch; of thick levels mostly a small one at it."""
        if self.thick and self.rng.integers(40):
            sells = bool(self.rng.integers(2))
            return (
                "sell" if sells else "buy",
                self.bid if sells else self.bid + 1,
                int(self.rng.integers(1, 5)),
            )
        price = self.bid + int(self.rng.integers(-2, 4))
        taker = "sell" if price <= self.bid + int(self.rng.integers(-1, 2)) else "buy"
        return taker, price, self._lots() + int(self.rng.integers(0, 3))

    def quote(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Draw the best prices, a little away from those of the book."""
        if self.thick:
            return (self.bid, 4 * self._lots()), (self.bid + 1, 4 * self._lots())
        bid = self.bid + int(self.rng.integers(-1, 2))
        return (bid, self._lots()), (bid + int(self.rng.integers(1, 4)), self._lots())

    def _walk(self) -> None:
        if not self.rng.integers(40 if self.thick else 3):
            self.bid += int(self.rng.integers(-2, 3))

    def _lots(self) -> int:
        return int(self.rng.integers(1, 9))


def _delays(most: int) -> st.SearchStrategy[tuple[int, tuple[int, ...]]]:
    several = st.lists(st.integers(0, most), min_size=2, max_size=5).map(tuple)
    return st.one_of(
        st.sampled_from([0, 0, 1, 2]).map(lambda units: (s.CONSTANT, (units,))),
        several.map(lambda units: (s.SAMPLED, units)),
        several.map(lambda units: (s.BY_MESSAGE, units)),
    )


cases = st.builds(
    Case,
    seed=st.integers(0, 2**32),
    unit=st.sampled_from([1, MS]),
    depth=st.sampled_from([0, 3, 6, 400]),
    quoted=st.booleans(),
    hole_every=st.sampled_from([0, 0, 23, 50]),
    interval=st.sampled_from([0, 1, 3]),
    order=_delays(4),
    response=_delays(6),
    limit=st.sampled_from([8, 30, 1000]),
    rule=st.sampled_from(sorted(RULES)),
    power=st.sampled_from([1.0, 2.0, 3.0]),
    calm=st.sampled_from([8.0, 30.0, PATIENT]),
    thick=st.booleans(),
)


def _delay(units: tuple[int, tuple[int, ...]], unit: int) -> Delay:
    how, several = units
    ns = np.array(several, np.int64) * unit
    return Delay(np.resize(ns, 10 * STEPS) if how == s.BY_MESSAGE else ns, how)


def _wire(delay: Delay) -> oracle.Wire:
    return oracle.Wire(delay.ns.tolist(), HOWS[delay.how])


def _draws(seed: int, model: str) -> Iterator[float]:
    stream = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS[model],)))
    while True:
        yield float(stream.standard_exponential())


def _ran(case: Case, market: Market, times: Timeline) -> tuple[Engine, list[Oracle], list[Lane]]:
    """Let the engine trade, and oracles of its lanes do what these sent."""
    lanes = case.lanes()
    begin, end = EPOCH, EPOCH + 3 * STEPS * case.unit
    order, response = _delay(case.order, case.unit), _delay(case.response, case.unit)
    interval = case.interval * case.unit
    engine = Engine(market.chain, WILD)
    engine.seat(lanes, seed=case.seed, interval=interval, order=order, response=response, log=True)
    randoms = engine.world.lanes.account[:, s.RANDOM].tolist()
    engine.append(feed_of(market, times))
    engine.decide_from(begin)
    assert engine.advance(end)
    oracles = []
    for i, (lane, random) in enumerate(zip(lanes, randoms, strict=True)):
        rule = next(name for name, number in RULES.items() if number == lane.rules.queue_rule)
        terms = Terms(
            *(lane.model, rule, lane.queue_power, lane.intensity, lane.decay),
            *(lane.explained_intensity, lane.explained_decay),
        )
        rows = engine.world.lanes.log[i, : engine.world.lanes.account[i, s.LOGGED]].tolist()
        log = [
            oracle.Instruction(sent, arrives, slot, number, ACTIONS[action], KINDS[kind], side, price, lots)
            for sent, arrives, slot, number, action, kind, side, price, lots, _ in rows
        ]
        one = Oracle(
            market,
            times,
            terms,
            SLOTS,
            log,
            _draws(case.seed, lane.model),
            interval,
            _wire(order),
            _wire(response),
            random,
        )
        one.run(begin, end)
        oracles.append(one)
    return engine, oracles, lanes


def _knew(decisions: list[oracle.Decision]) -> float:
    """Return what `act` makes of what a lane knew."""
    digest = 0.0
    for decision in decisions:
        if not decision.quoted:
            continue
        digest = stirred(digest, float(decision.inventory))
        for own in decision.slots:
            for value in (-1,) if own is None else own:
                digest = stirred(digest, float(value))
    return digest


@settings(max_examples=40, deadline=None)
@given(cases)
def test_the_engine_fills_what_the_rules_say(case: Case) -> None:
    market = case.market()
    engine, oracles, lanes = _ran(case, market, case.times(market))
    arrays = engine.world.lanes
    for i, (lane, one) in enumerate(zip(lanes, oracles, strict=True)):
        account = arrays.account[i]
        rows = arrays.fill[i, : account[s.FILLS]].tolist()
        fills = [
            oracle.Fill(time, side, price, lots, mid2, placed, CAUSES[cause], number)
            for time, side, price, lots, mid2, placed, cause, number in rows
        ]
        name = f"lane {i}, {lane.model}, {one.terms.queue}"
        for found, expected in zip(fills, one.fills, strict=False):
            assert found == expected, name
        assert len(fills) == len(one.fills), name
        outcomes = [OUTCOMES[outcome] for outcome in arrays.log[i, : account[s.LOGGED], s.LOG_OUTCOME]]
        assert outcomes == [told.outcome for told in one.log], name
        assert {at: account[at] for at in COUNTS} == {at: one.counts[what] for at, what in COUNTS.items()}
        assert arrays.memory[i, 1] == _knew(one.decisions), name
        decisions = [[own.time, own.seen, own.mid2, int(own.quoted)] for own in one.decisions]
        assert engine.decisions.tolist() == decisions
        met = (engine.state[s.TRADES], engine.state[s.QUOTES])
        assert met == (one.counts["trades"], one.counts["quotes"])


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(sorted(RULES)),
    st.sampled_from([0.5, 1.0, 2.0, 3.0]),
    st.integers(0, 30),
    st.lists(st.tuples(st.booleans(), st.integers(1, 30)), max_size=30),
)
def test_queue_steps_are_those_of_exact_fractions(
    rule: str, power: float, shown: int, events: list[tuple[bool, int]]
) -> None:
    """A trade takes up to six lots, a message leaves up to thirty."""
    queue = oracle.Queue(Fraction(shown), shown)
    front, traded, before = float(shown), 0.0, float(shown)
    for trades, number in events:
        if trades:
            size = 1 + number % 6
            front -= size
            traded += size
            lots = reached(front, 1)
            front += lots
            assert lots == queue.trade(size, size)
        else:
            if number != before:
                front = after_depth(RULES[rule], power, 1, front, traded, before, float(number))
                traded, before = 0.0, float(number)
            queue.tell(rule, power, number, named=False)
        assert front == pytest.approx(float(queue.ahead), abs=1e-9)


def test_what_is_rare_happens() -> None:
    """Of a few markets: each cause of a fill under each model, each outcome, and moments shared."""
    causes: Counter[tuple[str, str]] = Counter()
    outcomes: Counter[str] = Counter()
    for seed in range(16):
        case = Case(
            seed,
            unit=(1, MS)[seed % 2],
            depth=(0, 3, 6, 400)[seed % 4],
            quoted=seed % 3 == 0,
            hole_every=(0, 23)[seed // 2 % 2],
            interval=(0, 1, 3)[seed % 3],
            order=(s.CONSTANT, (seed // 4 % 3,)),
            response=(s.SAMPLED, (0, 1, 5)),
            limit=1000,
            calm=(8.0, PATIENT)[seed % 2],
            thick=seed // 4 % 2 == 1,
        )
        market = case.market()
        _, oracles, _ = _ran(case, market, case.times(market))
        for one in oracles:
            causes.update((one.terms.model, fill.cause) for fill in one.fills)
            outcomes.update(told.outcome for told in one.log)
    assert set(outcomes) == set(OUTCOMES.values())
    for model, evidence in oracle.EVIDENCE.items():
        assert {cause for name, cause in causes if name == model} == evidence | {"taker"}
    assert min(causes.values()) > 5
    assert min(outcomes.values()) > 5
