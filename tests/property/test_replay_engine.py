"""What holds of the engine, whatever strategies do: wild ones send every kind of instruction at random."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.datasets._kernel import ASK, BID
from mmdata.datasets.book import Book
from mmdata.datasets.market import Market
from mmdata.replay import state as s
from mmdata.replay.clock import Timeline, map_clock, timeline
from mmdata.replay.engine import Delay, Engine, Lane, Rules, Signals, cut_feed, feed_of
from mmdata.replay.fills import MODELS
from mmdata.replay.quoting import AVELLANEDA_STOIKOV
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.strategies import Strategy
from tests.wild import COMPILED, PLAIN, tell_around, tell_book, tell_diff

MS = 1_000_000
SPAN_MS = 2000


@dataclass(frozen=True)
class Case:
    """A random market, and how lanes are connected to it."""

    seed: int
    holes: tuple[int, ...]
    order: Delay
    response: Delay
    limit: int
    quoted: bool
    interval: int

    def market(self) -> Market:
        """Return the market: a walk with trades at and beyond the touch, thin levels, now and then a hole."""
        rng = np.random.default_rng(self.seed)
        sketch, bid = Sketch(), 1000
        lost = False
        for at in range(0, SPAN_MS, 10):
            draws = rng.integers(0, 1 << 30, 14)
            latency = 1 + draws[0] % 7
            if at // 10 in self.holes:
                sketch.gap(at)
                lost = True
            if draws[1] % 4 == 0:
                bid += int(draws[2] % 5) - 2
            if at == 0 or draws[3] % 6 == 0:
                tell_book(sketch, at, bid, draws, latency)
                lost = False
            elif not lost:
                tell_diff(sketch, at, bid, draws, latency)
            tell_around(sketch, at, bid, draws, latency, quoted=self.quoted)
        return sketch.market()

    def engine(self, acts: Strategy, lanes: list[Lane], market: Market, **options: Any) -> Engine:
        """Return an engine whose lanes decide from the market's first moment on."""
        engine = Engine(market.chain, acts, **options)
        known = np.arange(0, SPAN_MS, 170) * MS + EPOCH
        engine.seat(
            lanes,
            seed=self.seed % 1000,
            interval=self.interval,
            order=self.order,
            response=self.response,
            signals=Signals(known, np.arange(len(known), dtype=np.float64)[:, None]),
            log=True,
        )
        return engine

    def lanes(self) -> list[Lane]:
        """Return a lane a fill model, and one of the first with other parameters."""
        rules = Rules(most_lots=self.limit)
        rates = {"intensity": 9.0, "decay": 0.7, "explained_intensity": 2.0, "explained_decay": 0.7}
        return [
            *(Lane(name, (7.0 + i, 1.0), rules, **rates) for i, name in enumerate(MODELS)),
            Lane("price-cross", (99.0, 1.0), rules),
        ]


def _random_ns(most_ms: int) -> st.SearchStrategy[Delay]:
    several = st.lists(st.integers(0, most_ms * MS), min_size=2, max_size=6)
    return st.one_of(
        st.sampled_from([0, MS, 60 * MS]).map(Delay.constant),
        several.map(lambda ns: Delay(np.array(ns, np.int64), s.SAMPLED)),
        several.map(lambda ns: Delay(np.resize(np.array(ns, np.int64), 10_000), s.BY_MESSAGE)),
    )


cases = st.builds(
    Case,
    seed=st.integers(0, 2**32),
    holes=st.lists(st.integers(6, 190), max_size=2).map(tuple),
    order=_random_ns(40),
    response=_random_ns(80),
    limit=st.sampled_from([6, 20, 1000]),
    quoted=st.booleans(),
    interval=st.sampled_from([0, 10 * MS, 70 * MS]),
)
END = EPOCH + SPAN_MS * MS


def _timed(market: Market) -> Timeline:
    return timeline(market, map_clock(market))


def _whole(case: Case, market: Market, acts: Strategy, lanes: list[Lane]) -> Engine:
    engine = case.engine(acts, lanes, market)
    engine.append(feed_of(market, _timed(market)))
    engine.decide_from(EPOCH)
    assert engine.advance(END)
    return engine


def _told(engine: Engine, lane: int) -> list[object]:
    """Return all that a lane did, and all that came of it."""
    arrays = engine.world.lanes
    account = arrays.account[lane].copy()
    # How far reports were heard depends on when one looks; which lane's number is which does not matter.
    return [
        arrays.fill[lane, : account[s.FILLS]].tolist(),
        arrays.log[lane, : account[s.LOGGED]].tolist(),
        np.delete(account, [s.MET]).tolist(),
        arrays.memory[lane].tolist(),
    ]


@settings(max_examples=40, deadline=None)
@given(cases, st.lists(st.integers(1, SPAN_MS * MS - 1), max_size=9))
def test_in_pieces_it_is_the_same_as_whole(case: Case, cuts: list[int]) -> None:
    market = case.market()
    whole = _whole(case, market, COMPILED, case.lanes())
    feed = feed_of(market, _timed(market))
    kept = case.seed % 2 == 0  # else only the newest decisions
    pieces = case.engine(COMPILED, case.lanes(), market, book_capacity=1, keeps_decisions=kept)
    pieces.decide_from(EPOCH, room=1 if kept else 8)
    begin = 0
    for end in [*sorted(EPOCH + cut for cut in cuts), END]:
        pieces.append(cut_feed(feed, begin, end))
        assert pieces.advance(end)
        begin = end
    since = 0 if kept else -1
    assert pieces.decisions[since:].tolist() == whole.decisions[since:].tolist()
    assert pieces.state[s.QUOTED] == whole.state[s.QUOTED]
    for lane in range(len(case.lanes())):
        assert _told(pieces, lane) == _told(whole, lane)


@settings(max_examples=15, deadline=None)
@given(cases)
def test_a_plain_function_does_what_a_compiled_one_does(case: Case) -> None:
    market = case.market()
    compiled, plain = (_whole(case, market, acts, case.lanes()[:4]) for acts in (COMPILED, PLAIN))
    for lane in range(4):
        assert _told(plain, lane) == _told(compiled, lane)


@settings(max_examples=40, deadline=None)
@given(cases, st.sampled_from([0, 7]))
def test_a_steady_strategy_does_the_same_whether_it_is_asked_at_each_decision_or_not(
    case: Case, least_lots: int
) -> None:
    """Also where each order that it wants is refused, and counted, anew."""
    market, rules = case.market(), Rules(most_lots=case.limit, least_lots=least_lots)
    lanes = [Lane(name, (0.5 + i, 1.0, 3 + i), rules) for i, name in enumerate(MODELS)]
    steady, asked = (
        _whole(case, market, dataclasses.replace(AVELLANEDA_STOIKOV, steady=told), lanes)
        for told in (True, False)
    )
    for engine in (steady, asked):
        engine.world.lanes.account[:, s.RESTS] = 0
    for lane in range(len(lanes)):
        assert _told(steady, lane) == _told(asked, lane)


@settings(max_examples=40, deadline=None)
@given(cases, st.permutations(range(len(MODELS) + 1)))
def test_a_lane_does_the_same_alone_and_among_others_in_any_order(case: Case, order: list[int]) -> None:
    market, lanes = case.market(), case.lanes()
    together = _whole(case, market, COMPILED, [lanes[i] for i in order])
    for place_, i in enumerate(order):
        assert _told(_whole(case, market, COMPILED, [lanes[i]]), 0) == _told(together, place_)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_no_lane_holds_more_than_it_may_and_no_order_fills_beyond_its_size_or_price(case: Case) -> None:
    market, lanes = case.market(), case.lanes()
    engine = _whole(case, market, COMPILED, lanes)
    filled = 0
    for lane in range(len(lanes)):
        arrays, account = engine.world.lanes, engine.world.lanes.account[lane]
        fills = arrays.fill[lane, : account[s.FILLS]]
        log = arrays.log[lane, : account[s.LOGGED]]
        filled += len(fills)
        held = np.cumsum(fills[:, s.FILL_SIDE] * fills[:, s.FILL_LOTS])
        assert abs(held).max(initial=0) <= case.limit
        assert account[s.INVENTORY] == (held[-1] if len(held) else 0)
        assert account[s.MOST_HELD] == abs(held).max(initial=0)
        assert (np.diff(fills[:, s.FILL_TIME]) >= 0).all()
        sent: dict[int, list[np.ndarray]] = defaultdict(list)
        for row in log:
            sent[int(row[s.LOG_NUMBER])].append(row)
        lots: dict[int, int] = defaultdict(int)
        for fill in fills:
            number, time = int(fill[s.FILL_NUMBER]), fill[s.FILL_TIME]
            lots[number] += int(fill[s.FILL_LOTS])
            first = sent[number][0]
            assert fill[s.FILL_SIDE] == (1 if first[s.LOG_SIDE] == BID else -1)
            # What stood when it filled: the last instruction that had arrived and that carried a price.
            stood = [row for row in sent[number] if row[s.LOG_ARRIVES] <= time and row[s.LOG_LOTS] > 0]
            assert stood
            prices = {int(row[s.LOG_PRICE]) for row in stood}
            if fill[s.FILL_CAUSE] != s.AS_TAKER:
                assert int(fill[s.FILL_PRICE]) in prices
            elif first[s.LOG_KIND] != s.MARKET:
                better = int(fill[s.FILL_PRICE]) * fill[s.FILL_SIDE]
                assert better <= max(price * int(fill[s.FILL_SIDE]) for price in prices)
        for number, total in lots.items():
            # Each change counts what filled before it against its size.
            assert total <= sum(int(row[s.LOG_LOTS]) for row in sent[number])
    assert filled or case.limit == 6


@settings(max_examples=60, deadline=None)
@given(cases.filter(lambda case: not case.quoted))
def test_what_a_lane_takes_is_there_only_once(case: Case) -> None:
    """Between two messages nobody can take more at a price than the book shows there."""
    market, lanes = case.market(), case.lanes()
    times = _timed(market)
    engine = _whole(case, market, COMPILED, lanes)
    book, shown = Book(market.columns, market.chain), []
    for message in range(len(market.order)):
        book.step(message)
        shown.append((dict(book.bids()), dict(book.asks())))
    for lane in range(len(lanes)):
        rows = engine.world.lanes.fill[lane, : engine.world.lanes.account[lane, s.FILLS]]
        taken: dict[tuple[int, int, int], int] = defaultdict(int)
        for row in rows[rows[:, s.FILL_CAUSE] == s.AS_TAKER]:
            at = int(np.searchsorted(times.acts, row[s.FILL_TIME], side="right")) - 1
            other = ASK if row[s.FILL_SIDE] > 0 else BID
            taken[at, other, int(row[s.FILL_PRICE])] += int(row[s.FILL_LOTS])
        for (at, other, price), lots in taken.items():
            assert lots <= shown[at][other].get(price, 0)
