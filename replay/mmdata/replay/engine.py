"""The engine: a simulation's arrays, which grow as needed; it takes a recording in pieces of any size.

Events are appended as they come and let happen up to a time: a backtest appends a whole recording, or one
session after another, a live run what just arrived. Results are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets import _kernel as book_kernel
from mmdata.datasets._kernel import NO_PRICE, Columns, grown, new_levels, new_state
from mmdata.datasets.chain import ChainRule
from mmdata.datasets.market import Market, cut_columns, no_columns
from mmdata.replay import state as s
from mmdata.replay.clock import Timeline
from mmdata.replay.deciding import Advance, compiled_with, interpreted_with, is_compiled
from mmdata.replay.fills import MODELS, PEERS, RANDOM_MODULUS
from mmdata.replay.state import Feed, Floats, Ints, Lanes, Wire, World
from mmdata.replay.strategies import BOOK, Strategy

_FIRST_CAPACITY = 4096
STREAMS = {name: i for i, name in enumerate(("price-cross", "trade-through", "poisson", "l2-queue"))}
"""The random stream of each fill model: the same whichever run beside it."""
STREAMS |= {name: len(STREAMS) + i for i, name in enumerate(name for name in MODELS if name not in STREAMS)}
_WIRES = len(STREAMS)
"""The stream of random latencies."""
STREAMS |= {name: _WIRES + 1 + i for i, name in enumerate(PEERS)}
_EVIDENCE = MODELS | PEERS


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all orders of a lane, in units of the recording."""

    most_lots: int
    """Most held, long or short."""
    tick_step: int = 1
    lot_step: int = 1
    least_lots: int = 0
    least_notional: int = 0
    """Ticks times lots."""
    queue_rule: int = 0
    """One of `mmdata.replay.queues.RULES`."""
    queue_corrected: int = 1
    """0: hftbacktest's own steps, with their known defects."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A strategy's parameters, and the fill model that its orders meet."""

    model: str
    """Of `mmdata.replay.fills.MODELS`, or `PEERS`."""
    parameters: tuple[float, ...]
    """In the order of `Strategy.parameters`."""
    rules: Rules
    intensity: float = 0.0
    """Of the Poisson clock, A in 1 / s."""
    decay: float = 1.0
    """k in 1 / tick."""
    explained_intensity: float = 0.0
    """What trades explain of the rate of a hybrid's clock; units as above."""
    explained_decay: float = 1.0
    queue_power: float = 1.0
    """n of the queue's rule."""


@dataclass(frozen=True, slots=True)
class Delay:
    """How long instructions, or answers, are on their way: ns, never negative."""

    ns: Ints
    how: int = s.CONSTANT
    """CONSTANT: the first; SAMPLED: any at random; BY_MESSAGE: that of the last book message seen when
    lanes last decided."""

    @staticmethod
    def constant(ns: int) -> Delay:
        """Return a delay that is always the same."""
        return Delay(np.array([ns], np.int64))


@dataclass(frozen=True, slots=True)
class Signals:
    """What strategies may look up, rows (n, c), each from ``seen`` (n,) on, ns of the exchange's clock."""

    seen: Ints
    rows: Floats

    @staticmethod
    def none() -> Signals:
        """Return no signals."""
        return Signals(np.empty(0, np.int64), np.empty((0, 0), np.float64))


@dataclass(slots=True)
class Engine:
    """A strategy on a recording, in progress."""

    chain: ChainRule
    strategy: Strategy
    book_capacity: int = _FIRST_CAPACITY
    keeps_decisions: bool = True
    """False: only the newest are kept, so that a long run takes no room for them."""
    world: World = field(init=False)
    _advance: Advance = field(init=False)
    _streams: list[np.random.Generator] = field(default_factory=list)
    _begin: int = s.NEVER
    _reached: int = -s.NEVER

    def __post_init__(self) -> None:
        """Begin with an empty book, no events and no lanes."""
        state = np.zeros(s.ENGINE_SIZE, np.int64)
        state[[s.NEXT_DECISION, s.NEXT_ARRIVAL, s.NEXT_DUE]] = s.NEVER
        state[[s.TOUCH, s.TOUCH + 1, s.OWN]] = NO_PRICE
        state[s.OWN + 1] = -NO_PRICE - 1
        state[[s.TOUCH_LOTS, s.TOUCH_LOTS + 1]] = s.NOT_TOLD
        compiled = is_compiled(self.strategy.decide)
        state[s.CALLS] = int(compiled)
        state[s.STEADY] = int(self.strategy.steady)
        self._advance = (compiled_with if compiled else interpreted_with)(self.strategy.decide)
        self.world = World(
            feed=_no_feed(),
            lanes=_lanes((), 0, 0),
            levels=new_levels(self.book_capacity),
            book=new_state(self.chain.rule, self.chain.max_depth, 1),
            seen_levels=new_levels(0),
            seen_book=np.empty(0, np.int64),
            tops=np.zeros((0, s.TOP_SIZE), np.int64),
            decisions=np.zeros((0, s.DECISION_SIZE), np.int64),
            engine=state,
            wire=Wire(np.zeros(1, np.int64), np.zeros(1, np.int64)),
            signal_seen=np.empty(0, np.int64),
            signal=np.full((1, 0), np.nan),
        )

    @property
    def state(self) -> Ints:
        """The engine's own state; see `mmdata.replay.state`."""
        return self.world.engine

    @property
    def decisions(self) -> Ints:
        """The decisions that were made; (m, DECISION_SIZE)."""
        return self.world.decisions[: self.state[s.DECISIONS]]

    @property
    def quoted(self) -> bool:
        """True when the lanes saw a valid book at least once."""
        return bool(self.state[s.QUOTED] > 0)

    def append(self, feed: Feed) -> None:
        """Take events none of which acts before what has happened; what was done with is forgotten.

        Messages and quotes act after all before them, trades may lie among those that have not happened yet.
        """
        world, state = self.world, self.state
        first, untaken = self._first_needed()
        left = (slice(first, None), slice(state[s.NEXT_TRADE], None), slice(state[s.NEXT_QUOTE], None))
        before = _cut(world.feed, *left)
        before = before._replace(columns=_without_levels(before.columns, untaken - first))
        tops = np.zeros((len(feed.acts), s.TOP_SIZE), np.int64)
        self.world = world._replace(feed=_joined(before, feed), tops=_behind(world.tops[first:], tops))
        state[[s.NEXT_MESSAGE, s.SEEN, s.LOOKED]] -= first
        state[s.LOOKED] = max(state[s.LOOKED], 0)
        state[s.FIRST_MESSAGE] += first
        state[[s.NEXT_TRADE, s.NEXT_QUOTE]] = 0
        for book in (world.book, world.seen_book):
            if len(book):
                waits = [at for at in (book_kernel.PENDING, book_kernel.SNAPSHOT) if book[at] >= 0]
                book[waits] -= first
        self._resume_decisions()

    def _first_needed(self) -> tuple[int, int]:
        """Return the first message that something still points to, and the first whose levels are needed."""
        world, state = self.world, self.state
        if not len(world.lanes.model):  # nobody looks
            state[s.SEEN] = max(
                int(state[s.SEEN]),
                int(np.searchsorted(world.feed.seen[: state[s.NEXT_MESSAGE]], self._reached)),
            )
        needed = [int(state[s.NEXT_MESSAGE])]
        if state[s.DEEP]:
            needed.append(int(state[s.LOOKED]))
        for book in (world.book, world.seen_book):
            if len(book):
                needed += [int(at) for at in book[[book_kernel.PENDING, book_kernel.SNAPSHOT]] if at >= 0]
        untaken = min(needed)
        return max(min(untaken, int(state[s.NEXT_MESSAGE]) - 1, int(state[s.SEEN]) - 1), 0), untaken

    def _resume_decisions(self) -> None:
        """Decide again where decisions had stopped for want of messages."""
        state, seen = self.state, self.world.feed.seen
        if self._begin == s.NEVER or state[s.NEXT_DECISION] != s.NEVER or state[s.SEEN] == len(seen):
            return
        news, interval = int(seen[state[s.SEEN]]), int(state[s.INTERVAL])
        if interval == 0:
            state[s.NEXT_DECISION] = max(news, self._begin)
            return
        last = int(self.decisions[-1, s.DECISION_TIME]) if state[s.DECISIONS] else self._begin - interval
        earliest = max(news, last + interval)
        state[s.NEXT_DECISION] = self._begin - (self._begin - earliest) // interval * interval

    def seat(
        self,
        lanes: Sequence[Lane],
        *,
        seed: int = 0,
        interval: int,
        order: Delay,
        response: Delay,
        signals: Signals | None = None,
        log: bool = False,
        room: int = 1024,
    ) -> None:
        """Set the lanes, and how they are connected to the exchange; they trade from `decide_from` on."""
        state, strategy = self.state, self.strategy
        self._streams = [
            np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(STREAMS[lane.model],)))
            for lane in lanes
        ]
        seated = _lanes(lanes, strategy.slots, strategy.memory)
        drawn = np.random.SeedSequence(seed, spawn_key=(_WIRES,)).generate_state(1)
        seated.account[:, s.RANDOM] = 1 + int(drawn[0]) % (RANDOM_MODULUS - 1)
        state[s.INTERVAL] = interval
        state[s.CLOCKS] = int(any(_EVIDENCE[lane.model] & s.BY_CLOCK for lane in lanes))
        state[s.LOGS] = int(log)
        state[s.DEEP] = int(strategy.sees == BOOK)
        state[s.ORDER_WIRE], state[s.RESPONSE_WIRE] = order.how, response.how
        told = signals or Signals.none()
        self.world = self.world._replace(
            lanes=seated,
            wire=Wire(order.ns, response.ns),
            signal_seen=told.seen,
            signal=np.concatenate((np.full((1, told.rows.shape[1]), np.nan), told.rows)),
        )
        if strategy.sees == BOOK:
            self.world = self.world._replace(
                seen_levels=new_levels(self.book_capacity),
                seen_book=new_state(self.chain.rule, self.chain.max_depth, 1),
            )
        self._make_room(room)
        seated = self.world.lanes  # with room
        seated.queue[:, :, s.WAIT] = seated.draw[:, : strategy.slots]
        seated.account[:, s.DRAWS] = strategy.slots

    def decide_from(self, begin: int, room: int = _FIRST_CAPACITY) -> None:
        """Let the lanes decide at ``begin`` and then at each interval, while a valid book is seen."""
        self.world = self.world._replace(decisions=np.zeros((room, s.DECISION_SIZE), np.int64))
        self._begin = begin
        self.state[s.NEXT_DECISION] = begin

    def advance(self, until: int) -> bool:
        """Let everything happen that happens before ``until``; False: a strategy did what none may do."""
        self._reached = until
        while True:
            stopped = self._advance(self.world, until)
            if stopped == s.DONE:
                return True
            if stopped == s.FAULT:
                return False
            self._grow(stopped)

    def _grow(self, stopped: int) -> None:
        world = self.world
        if stopped == s.BOOK_FULL:
            self.world = world._replace(levels=grown(world.levels))
            world.book[book_kernel.FULL] = 0
        elif stopped == s.SEEN_FULL:
            self.world = world._replace(seen_levels=grown(world.seen_levels))
            world.seen_book[book_kernel.FULL] = 0
        elif stopped == s.ROOM_FULL:
            self._make_room(world.lanes.fill.shape[1])
        elif self.keeps_decisions:
            self.world = world._replace(
                decisions=np.concatenate((world.decisions, np.zeros_like(world.decisions)))
            )
        else:
            # The last one says where the grid of decisions goes on.
            world.decisions[0] = world.decisions[-1]
            world.engine[s.DECISIONS] = 1

    def _make_room(self, extra: int) -> None:
        """Add room for ``extra`` fills and reports a lane, a draw for each fill, and log rows where kept."""
        lanes = self.world.lanes
        slots = lanes.order.shape[1]
        if not lanes.fill.shape[1]:
            extra = max(extra, 2 * slots * (s.LEVELS_TAKEN + 2))
            draws = extra + slots
        else:
            draws = extra

        def more(rows: NDArray[np.int64]) -> NDArray[np.int64]:
            count, _, fields = rows.shape
            return np.concatenate((rows, np.zeros((count, extra, fields), np.int64)), axis=1)

        fresh = [stream.standard_exponential(draws) for stream in self._streams]
        self.world = self.world._replace(
            lanes=lanes._replace(
                fill=more(lanes.fill),
                report=more(lanes.report),
                log=more(lanes.log) if self.state[s.LOGS] else lanes.log,
                draw=np.concatenate((lanes.draw, np.array(fresh).reshape(len(fresh), -1)), axis=1),
            )
        )


def feed_of(market: Market, times: Timeline) -> Feed:
    """Return a recording's events as the engine takes them."""
    trades, quotes = market.trades, market.quotes
    return Feed(
        columns=market.columns,
        acts=times.acts,
        seen=times.seen,
        trade_acts=times.trade_acts,
        trade_side=trades.side[times.trade],
        trade_price=trades.price[times.trade],
        trade_size=trades.size[times.trade],
        quote_acts=times.quote_acts,
        quote_id=quotes.last_id,
        quote_price=np.column_stack((quotes.bid_price, quotes.ask_price)),
        quote_size=np.column_stack((quotes.bid_size, quotes.ask_size)),
    )


def cut_feed(feed: Feed, begin: int, end: int) -> Feed:
    """Return what acts in ``[begin, end)``, ns."""
    times = (feed.acts, feed.trade_acts, feed.quote_acts)
    return _cut(feed, *(slice(*map(int, np.searchsorted(own, (begin, end)))) for own in times))


def _cut(feed: Feed, messages: slice, trades: slice, quotes: slice) -> Feed:
    first, last, _ = messages.indices(len(feed.acts))
    kept: dict[str, Any] = {"columns": cut_columns(feed.columns, first, last)}
    for name in Feed._fields[1:]:
        of = trades if name.startswith("trade_") else quotes if name.startswith("quote_") else messages
        kept[name] = getattr(feed, name)[of]
    return Feed(**kept)


def _without_levels(columns: Columns, count: int) -> Columns:
    """Return columns without the levels of the first ``count`` messages."""
    begin = columns.start[count]
    levels = {name: getattr(columns, name)[begin:] for name in ("side", "price", "size")}
    return columns._replace(start=np.maximum(columns.start - begin, 0), **levels)


def _no_feed() -> Feed:
    none = np.empty(0, np.int64)
    pairs = np.empty((0, 2), np.int64)
    return Feed(no_columns(), none, none, none, np.empty(0, np.int8), none, none, none, none, pairs, pairs)


def _joined(before: Feed, after: Feed) -> Feed:
    columns = after.columns
    if len(before.acts):
        first = before.columns
        pairs: Any = zip(first, columns, strict=True)
        start = np.concatenate((first.start, columns.start[1:] + first.start[-1]))
        columns = Columns(*(_behind(*pair) for pair in pairs))._replace(start=start)
    rest: Any = zip(before[1:], after[1:], strict=True)
    return _in_time(Feed(columns, *(_behind(*pair) for pair in rest)), len(before.trade_acts))


def _in_time(feed: Feed, first: int) -> Feed:
    """Return a feed with its trades in time; ``first`` are so already, and so are all after them."""
    acts = feed.trade_acts
    if not 0 < first < len(acts) or acts[first - 1] <= acts[first]:
        return feed
    rank = np.argsort(acts, kind="stable")
    return feed._replace(
        **{name: getattr(feed, name)[rank] for name in Feed._fields if name.startswith("trade_")}
    )


def _behind(before: NDArray[Any], after: NDArray[Any]) -> NDArray[Any]:
    """Return ``after`` behind ``before``; what nothing is before is not copied."""
    return np.concatenate((before, after)) if len(before) else after


def _lanes(lanes: Sequence[Lane], slots: int, memory: int) -> Lanes:
    count = len(lanes)
    order = np.zeros((count, slots, s.ORDER_SIZE), np.int64)
    order[:, :, [s.ARRIVES, s.DUE]] = s.NEVER
    order[:, :, s.SENT_AT] = -s.NEVER
    whole = np.zeros((count, s.WHOLE_SIZE), np.int64)
    real = np.zeros((count, s.REAL_SIZE), np.float64)
    for i, lane in enumerate(lanes):
        rules = lane.rules
        whole[i, [s.QUEUE_RULE, s.QUEUE_CORRECTED]] = rules.queue_rule, rules.queue_corrected
        whole[i, [s.MOST_LOTS, s.TICK_STEP, s.LOT_STEP]] = rules.most_lots, rules.tick_step, rules.lot_step
        whole[i, [s.LEAST_LOTS, s.LEAST_NOTIONAL]] = rules.least_lots, rules.least_notional
        real[i, [s.INTENSITY, s.DECAY]] = lane.intensity, lane.decay
        real[i, [s.EXPLAINED_INTENSITY, s.EXPLAINED_DECAY]] = lane.explained_intensity, lane.explained_decay
        real[i, s.QUEUE_POWER] = lane.queue_power
    return Lanes(
        model=np.array([_EVIDENCE[lane.model] for lane in lanes], np.int64),
        whole=whole,
        real=real,
        parameter=np.array([lane.parameters for lane in lanes], np.float64).reshape(
            count, len(lanes[0].parameters) if lanes else 0
        ),
        memory=np.zeros((count, memory), np.float64),
        order=order,
        queue=np.zeros((count, slots, s.QUEUE_SIZE), np.float64),
        account=np.zeros((count, s.ACCOUNT_SIZE), np.int64),
        report=np.zeros((count, 0, s.REPORT_SIZE), np.int64),
        fill=np.zeros((count, 0, s.FILL_SIZE), np.int64),
        log=np.zeros((count, 0, s.LOG_SIZE), np.int64),
        draw=np.zeros((count, 0), np.float64),
        active=np.zeros((2 * count * slots, s.ACTIVE_SIZE), np.int64),
        flying=np.zeros((count * slots, 2), np.int64),
        taken=np.zeros((count, 2, s.LEVELS_TAKEN, 2), np.int64),
    )
