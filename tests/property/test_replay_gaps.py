"""A hole changes nothing outside of the stretch that it is in: books, decisions, orders and fills."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.datasets._kernel import DIFF, GAP, GAP_OPEN
from mmdata.datasets.book import NO_PRICE, Book
from mmdata.datasets.market import NO_TIME, Market
from mmdata.replay import state as s
from mmdata.replay.clock import Timeline, map_clock, timeline
from mmdata.replay.engine import Delay, Engine, Lane, Rules, Signals, feed_of
from mmdata.replay.fills import MODELS
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.state import Ints
from mmdata.replay.stream import Rebuild
from tests.wild import COMPILED, tell_around, tell_book, tell_diff

MS = 1_000_000
STRETCH_MS = 400
QUIET_MS = 200
"""From the end of a stretch to the next: nothing that was sent in one is still on its way in the next."""
STRETCHES = 3
SPAN_MS = STRETCHES * (STRETCH_MS + QUIET_MS)
WITHOUT_CLOCKS = [model for model, evidence in MODELS.items() if not evidence & s.BY_CLOCK]


@dataclass(frozen=True)
class Hole:
    """A loss while a recording goes on."""

    at: int
    """ms; a multiple of 10."""
    lost: int
    """Messages that are not there."""
    told: str
    """How it shows: a connection ``cut``, a loss ``noted`` with its ids, or ids alone (``unnoted``)."""


@dataclass(frozen=True)
class Case:
    """A random market of several stretches, and how lanes are connected to it."""

    seed: int
    hole: Hole
    order: Delay
    response: Delay
    quoted: bool
    interval: int

    def market(self, hole: Hole | None = None) -> Market:
        """Return the market: stretches with proven books, in which whole books come now and then."""
        rng = np.random.default_rng(self.seed)
        sketch, bid = Sketch(), 1000
        for at in range(0, SPAN_MS, 10):
            draws = rng.integers(0, 1 << 30, 14)
            into = at % (STRETCH_MS + QUIET_MS)
            # The least latency maps the clocks: the first message has it, which no hole takes away.
            latency = 1 + draws[0] % 7 if at else 0.5
            lost = hole is not None and 0 <= at - hole.at < 10 * hole.lost
            if into == STRETCH_MS or (hole is not None and at == hole.at and hole.told != "unnoted"):
                sketch.gap(at)
            if draws[1] % 4 == 0:
                bid += int(draws[2] % 5) - 2
            told = not lost and into < STRETCH_MS
            if told and (into == 0 or draws[3] % 12 == 0):
                tell_book(sketch, at, bid, draws, latency)
            elif told:
                tell_diff(sketch, at, bid, draws, latency)
            tell_around(sketch, at, bid, draws, latency, quoted=self.quoted)
        market = sketch.market()
        if hole is not None:
            _show(market, hole)
        return market

    def ran(self, market: Market, models: list[str], *, carries: bool) -> Engine:
        """Let a wild strategy trade; ``carries``: what it does depends on what it did before."""
        engine = Engine(market.chain, COMPILED)
        rates = {"intensity": 9.0, "decay": 0.7, "explained_intensity": 2.0, "explained_decay": 0.7}
        seeds = [float(self.seed % 1000 + i) for i in range(len(models))]
        engine.seat(
            [
                Lane(model, (seed, float(carries)), Rules(most_lots=10**6), **rates)
                for model, seed in zip(models, seeds, strict=True)
            ],
            seed=self.seed % 1000,
            interval=self.interval,
            order=self.order,
            response=self.response,
            signals=Signals(np.array([EPOCH]), np.zeros((1, 1))),
            log=True,
        )
        engine.append(feed_of(market, _timed(market)))
        engine.decide_from(EPOCH)
        assert engine.advance(EPOCH + SPAN_MS * MS)
        return engine


def _show(market: Market, hole: Hole) -> None:
    """Let a recording that lacks messages say so by their ids, or note the loss with them."""
    columns, begin = market.columns, EPOCH + hole.at * MS
    first = np.flatnonzero(market.ts_event >= begin)[:1]
    columns.prev_id[first[columns.kind[first] == DIFF]] = -7
    if hole.told == "noted":
        columns.kind[(columns.kind == GAP_OPEN) & (market.ts_recv == begin + MS)] = GAP


def _timed(market: Market) -> Timeline:
    return timeline(market, map_clock(market))


def _delays(most_ms: int) -> st.SearchStrategy[int]:
    return st.sampled_from([0, MS, most_ms * MS])


def _random_delays(most_ms: int) -> st.SearchStrategy[Delay]:
    several = st.lists(st.integers(0, most_ms * MS), min_size=2, max_size=5)
    return several.map(lambda ns: Delay(np.array(ns, np.int64), s.SAMPLED))


cases = st.builds(
    Case,
    seed=st.integers(0, 2**32),
    hole=st.builds(
        Hole,
        at=st.integers(1, SPAN_MS // 10 - 1).map(lambda tens: 10 * tens),
        lost=st.integers(1, 6),
        told=st.sampled_from(["cut", "noted", "unnoted"]),
    ),
    order=_delays(40).map(Delay.constant),
    response=_delays(80).map(Delay.constant),
    quoted=st.booleans(),
    interval=st.sampled_from([0, 10 * MS, 70 * MS]),
)


@dataclass(frozen=True)
class Torn:
    """A recording without and with its hole, and where that has to be the same."""

    whole: Market
    torn: Market
    ends: int
    """What is before is the same: the last message before the hole; only as long was the book proven."""
    begins: int
    """From here on it is the same: the stretch after that with the hole."""

    @staticmethod
    def of(case: Case) -> Torn:
        """Return the market of a case, and what its hole leaves of it."""
        whole, hole = case.market(), case.hole
        told = whole.ts_event[whole.ts_event != NO_TIME]
        whole_ms = STRETCH_MS + QUIET_MS
        last = hole.at + 10 * (hole.lost - 1)
        return Torn(
            whole,
            case.market(hole),
            ends=int(told[told < EPOCH + hole.at * MS].max()),
            begins=EPOCH + (last // whole_ms + 1) * whole_ms * MS,
        )


@settings(max_examples=100, deadline=None)
@given(cases)
def test_outside_of_a_holes_stretch_books_are_the_same_and_in_it_right_or_invalid(case: Case) -> None:
    found = Torn.of(case)
    whole, torn = (dict(_books(market)) for market in (found.whole, found.torn))
    for time, book in whole.items():
        if time <= found.ends or time >= found.begins:
            assert torn[time] == book
    # What is lost since a whole book came is not in the book; an invalid one says so.
    for time, book in torn.items():
        if time > EPOCH + case.hole.at * MS:
            assert book in (whole[time], None)


def _books(market: Market) -> Iterator[tuple[int, object]]:
    """Yield the exchange's time of each message, and all levels after it; None where the book is invalid."""
    book = Book(market.columns, market.chain)
    tops = Rebuild().tops(market)
    for at, time in enumerate(market.ts_event.tolist()):
        book.step(at)
        assert book.valid == bool(tops[at, 0])
        if book.valid:
            best = [next(iter(side), (NO_PRICE, 0)) for side in (book.bids(), book.asks())]
            assert tops[at, 1:].tolist() == [*best[0], *best[1]]
        if time != NO_TIME:
            yield time, (book.bids(), book.asks()) if book.valid else None


@settings(max_examples=60, deadline=None)
@given(cases, _random_delays(40), _random_delays(80))
def test_before_a_hole_everything_is_the_same_to_the_bit(case: Case, order: Delay, response: Delay) -> None:
    found = Torn.of(case)
    wired = replace(case, order=order, response=response)
    whole, torn = (wired.ran(market, [*MODELS], carries=True) for market in (found.whole, found.torn))
    ends = found.ends
    assert _before(torn.decisions, s.DECISION_TIME, ends) == _before(whole.decisions, s.DECISION_TIME, ends)
    for lane in range(len(MODELS)):
        (fills, log), (torn_fills, torn_log) = _did(whole, lane), _did(torn, lane)
        assert _before(torn_fills, s.FILL_TIME, ends) == _before(fills, s.FILL_TIME, ends)
        arrived = [rows[rows[:, s.LOG_ARRIVES] < ends] for rows in (torn_log, log)]
        assert _before(arrived[0], s.LOG_SENT, ends) == _before(arrived[1], s.LOG_SENT, ends)
        # What is still on its way gets another outcome.
        sent = [rows[:, : s.LOG_OUTCOME] for rows in (torn_log, log)]
        assert _before(sent[0], s.LOG_SENT, ends) == _before(sent[1], s.LOG_SENT, ends)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_after_a_holes_stretch_fills_and_orders_are_the_same(case: Case) -> None:
    """Of a strategy that remembers nothing; Poisson clocks and random latencies remember, with any strategy.

    A clock goes on with what is left of its wait, and so do the numbers that latencies are drawn from. The
    numbers of orders go on, too.
    """
    found = Torn.of(case)
    whole, torn = (case.ran(market, WITHOUT_CLOCKS, carries=False) for market in (found.whole, found.torn))
    begins = found.begins
    quoted = [own.decisions[own.decisions[:, s.DECISION_QUOTED] == 1] for own in (torn, whole)]
    made = [rows[rows[:, s.DECISION_TIME] >= begins] for rows in quoted]
    columns = [s.DECISION_TIME, s.DECISION_MID2]  # messages that are not there are not counted
    assert made[0][:, columns].tolist() == made[1][:, columns].tolist()
    for lane in range(len(WITHOUT_CLOCKS)):
        assert _since(torn, lane, begins) == _since(whole, lane, begins)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_in_a_hole_nobody_quotes_by_it_nothing_rests_and_nothing_fills(case: Case) -> None:
    market = case.market(case.hole)
    times = _timed(market)
    engine = case.ran(market, [*MODELS], carries=True)
    for row in engine.decisions:
        assert row[s.DECISION_QUOTED] == 0 or times.valid[row[s.DECISION_SEEN]]
    invalid = np.cumsum(~times.valid)
    for lane in range(len(MODELS)):
        fills, log = _did(engine, lane)
        # What reaches the exchange comes behind the messages of that moment.
        met = times.valid[np.searchsorted(times.acts, log[:, s.LOG_ARRIVES], side="right") - 1]
        assert not np.isin(log[~met, s.LOG_OUTCOME], [s.STANDS, s.CROSSES, s.TAKES, s.EXPIRES]).any()
        # A fill may come of a message of its very moment, or stand before one that makes the hole.
        before = np.searchsorted(times.acts, fills[:, s.FILL_TIME], side="left") - 1
        at = np.searchsorted(times.acts, fills[:, s.FILL_TIME], side="right") - 1
        assert (times.valid[before] | times.valid[at]).all()
        placed = np.searchsorted(times.acts, fills[:, s.FILL_PLACED], side="right") - 1
        assert (invalid[np.maximum(before, placed)] == invalid[placed]).all()


def _before(rows: Ints, column: int, time: int) -> list[list[int]]:
    kept: list[list[int]] = rows[rows[:, column] < time].tolist()
    return kept


def _did(engine: Engine, lane: int) -> tuple[Ints, Ints]:
    """Return a lane's fills and instructions."""
    arrays, account = engine.world.lanes, engine.world.lanes.account[lane]
    return arrays.fill[lane, : account[s.FILLS]], arrays.log[lane, : account[s.LOGGED]]


def _since(engine: Engine, lane: int, time: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return a lane's fills and instructions from ``time`` on, orders numbered anew."""
    fills, log = _did(engine, lane)
    fills, log = fills[fills[:, s.FILL_TIME] >= time].copy(), log[log[:, s.LOG_SENT] >= time].copy()
    if len(log):
        first = log[0, s.LOG_NUMBER]
        fills[:, s.FILL_NUMBER] -= first
        log[:, s.LOG_NUMBER] -= first
    return fills.tolist(), log.tolist()
