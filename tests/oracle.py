"""A plain simulator of one lane: slow, of dictionaries, and independent of the engine's kernels.

It is handed the instructions that a lane sent (a log), carries them out by the exchange's rules, and says
what filled, what became of each instruction, what was decided when and what the lane knew then. The rules are
those that `mmdata.replay`'s docstrings and README tell; queue positions are ``theory.md`` 4.1 in exact
fractions. Of mmdata it uses the recording's types and the exchange's book alone.

Where the documents are silent, the rule taken is said where it is used, after "Silent:".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from mmdata.datasets._kernel import DIFF
from mmdata.datasets.book import NO_PRICE, Book
from mmdata.datasets.market import Market
from mmdata.replay.clock import Ints, Timeline

BID, ASK = 0, 1
NEVER = 2**62
MOST_LEVELS_TAKEN = 64

# Evidence that each fill model believes.
EVIDENCE = {
    "price-cross": {"touch", "maker"},
    "trade-through": {"through"},
    "at-or-through": {"through", "print"},
    "poisson": {"clock"},
    "l2-queue": {"touch", "maker", "through", "queue"},
    "hybrid": {"touch", "maker", "through", "queue", "clock"},
}


@dataclass(frozen=True)
class Terms:
    """What a lane is: its fill model and the model's numbers."""

    model: str
    queue: str = "power"
    power: float = 1.0
    intensity: float = 0.0  # 1/s
    decay: float = 1.0  # 1/tick
    explained_intensity: float = 0.0
    explained_decay: float = 1.0


@dataclass(frozen=True)
class Wire:
    """How long instructions, or answers, are on their way: ``constant``, ``sampled`` or ``by message``."""

    ns: Sequence[int]
    how: str = "constant"


@dataclass(eq=False)
class Instruction:
    """A row of a lane's log; what became of it is found anew."""

    sent: int
    arrives: int
    slot: int
    number: int
    action: str  # new, amend, replace, cancel
    kind: str  # post-only, limit, ioc, market
    side: int
    price: int
    lots: int
    outcome: str = "on its way"
    knew_filled: int = 0


@dataclass(frozen=True)
class Fill:
    """An execution."""

    time: int
    side: int  # 1 bought, -1 sold
    price: int
    lots: int
    mid2: int
    placed: int
    cause: str
    number: int


@dataclass
class Queue:
    """Where an order stands. ``ahead`` is below 0 by the fraction of a lot that has reached it."""

    ahead: Fraction
    shown: int | None  # None: the feed has not told the level yet
    traded: int = 0

    def trade(self, size: int, left: int) -> int:
        """Take a trade, of which own orders before left so much; return the whole lots that reach it."""
        self.traded += size
        self.ahead -= left
        whole = max(math.floor(-self.ahead), 0)
        self.ahead += whole  # the fraction is kept for the next trade
        return whole

    def tell(self, rule: str, n: float, shown: int, *, named: bool) -> None:
        """Take what the book shows at the price; a message that does not name it explains no trades."""
        if shown == self.shown and not named:
            return
        self.ahead = Fraction(shown) if self.shown is None else after_depth(rule, n, self, shown)
        self.shown, self.traded = shown, 0


@dataclass(eq=False)
class Order:
    """An order as the exchange has it; it rests where it is in `Oracle.resting`."""

    slot: int
    number: int
    side: int
    kind: str
    price: int = 0
    leaves: int = 0
    filled: int = 0
    placed: int = 0
    queue: Queue | None = None


@dataclass
class Waiting:
    """A slot's Poisson clock: what is left of its exponential wait, used up while an order of it stands.

    In floats, and in steps that end where the rate changes: the fill's ns depends on every rounding.
    """

    left: float
    rate: float = 0.0
    since: int = 0

    def run(self, now: int, rate: float) -> None:
        """Use up the wait until ``now``, and go on at another rate."""
        self.left = max(0.0, self.left - self.rate * (now - self.since))
        self.rate, self.since = rate, now

    @property
    def due(self) -> int:
        """When it rings."""
        # Silent: what lies beyond 2^60 ns never comes.
        if self.rate <= 0.0 or self.left / self.rate >= 2.0**60:
            return NEVER
        return self.since + math.ceil(self.left / self.rate)


@dataclass
class Known:
    """What a lane knows of a slot's order."""

    number: int
    side: int
    price: int
    size: int
    filled: int = 0
    busy: bool = True


@dataclass(frozen=True)
class Report:
    """Word that is on its way to the lane: of a fill, or an instruction's answer."""

    at: int
    slot: int
    number: int
    side: int
    answers: bool
    lots: int
    price: int


@dataclass(frozen=True)
class Decision:
    """A moment at which the lane decides, and what it knows then of its inventory and of each slot."""

    time: int
    seen: int  # the last message
    mid2: int
    quoted: bool
    inventory: int
    slots: tuple[tuple[bool, int, int, int] | None, ...]  # busy, side, price, size


def behind(rule: str, n: float, ahead: Fraction, back: Fraction) -> Fraction:
    """Return the chance that a decrease was behind an order; theory.md 4.1."""
    if ahead == 0:
        return Fraction(1)
    if back == 0:
        return Fraction(0)
    if rule in ("log", "log2"):
        # n is what a lot counts: the rule of the log depends on the unit.
        size = Fraction(n)
        b, whole = math.log1p(size * back), math.log1p(size * (back + ahead))
        return Fraction(b / (b + math.log1p(size * ahead)) if rule == "log" else b / whole)

    def f(x: Fraction) -> Fraction:
        return x ** int(n) if n == int(n) else Fraction(float(x) ** n)

    if rule == "power":
        return f(back) / (f(back) + f(ahead))
    if rule == "power2":
        return f(back) / f(back + ahead)
    assert rule == "power3"
    return 1 - f(ahead / (ahead + back))


def after_depth(rule: str, n: float, queue: Queue, shown: int) -> Fraction:
    """Return what stands ahead once the level shows ``shown``; theory.md 4.1 without its known defects."""
    assert queue.shown is not None
    ahead, after = queue.ahead, Fraction(shown)
    gone = queue.shown - shown - queue.traded
    if gone < 0 or rule == "risk-averse":
        return min(ahead, after)
    if ahead < 0:  # a fraction of a lot has reached the order: nothing stands before it
        return ahead
    back = max(queue.shown - queue.traded - ahead, Fraction(0))
    chance = behind(rule, n, ahead, back)
    moved = ahead - (1 - chance) * gone + min(back - chance * gone, Fraction(0))
    return min(max(moved, Fraction(0)), after)


@dataclass
class Oracle:
    """One lane on a recording."""

    market: Market
    times: Timeline
    terms: Terms
    slots: int
    log: list[Instruction]
    waits: Iterator[float]
    """Exponential draws: one a slot, then one for each fill by a clock."""
    interval: int
    order: Wire
    response: Wire
    random: int
    """State of the lane's own random numbers: Park and Miller's, x -> 48271 x mod 2^31 - 1."""

    fills: list[Fill] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    # The exchange.
    book: Book = field(init=False)
    valid: bool = False
    levels: list[dict[int, int]] = field(default_factory=lambda: [{}, {}])
    touch: list[int | None] = field(default_factory=lambda: [None, None])
    touch_lots: list[int | None] = field(default_factory=lambda: [None, None])
    mid2: int = 0
    two_sided: bool = False
    tops: list[bool] = field(default_factory=list)  # whether a strategy may decide on each message's book
    done: dict[str, int] = field(default_factory=lambda: {"trade": 0, "message": 0, "quote": 0})
    # The lane at the exchange.
    resting: list[Order] = field(default_factory=list)  # in order of placement
    orders: dict[int, Order] = field(default_factory=dict)  # by slot, those that are gone too
    flying: list[Instruction] = field(default_factory=list)  # in order of sending
    taken: list[dict[int, int]] = field(default_factory=lambda: [{}, {}])
    clocks: list[Waiting] = field(default_factory=list)
    # What it knows.
    known: dict[int, Known] = field(default_factory=dict)
    inventory: int = 0
    reports: list[Report] = field(default_factory=list)
    last_report: int = -NEVER
    seen: int = 0
    next_decision: int = NEVER
    next_sent: int = 0

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self.book = Book(self.market.columns, self.market.chain)
        self.clocks = [Waiting(next(self.waits)) for _ in range(self.slots)]

    def believes(self, evidence: str) -> bool:
        """Return whether the lane's fill model takes such evidence."""
        return evidence in EVIDENCE[self.terms.model]

    # What happens, one thing at a time.

    def run(self, begin: int, end: int) -> None:
        """Let everything happen before ``end``; the lane decides from ``begin`` on."""
        self.next_decision = begin
        while True:
            nexts = self._nexts()
            # Of what happens at one moment the kind that is listed first.
            (time, _), happens = min(nexts, key=lambda row: row[0])
            if time >= end:
                return
            happens(time)

    def _nexts(self) -> list[tuple[tuple[int, int], Callable[[int], None]]]:
        times, done = self.times, self.done

        def at(moments: Ints, i: int) -> int:
            return int(moments[i]) if i < len(moments) else NEVER

        due = min((self.clocks[order.slot].due for order in self.resting), default=NEVER)
        arrives = min((instruction.arrives for instruction in self.flying), default=NEVER)
        return [
            ((due, 1), self._ring),
            ((at(times.trade_acts, done["trade"]), 2), self._trade),
            ((at(times.acts, done["message"]), 3), self._message),
            ((at(times.quote_acts, done["quote"]), 4), self._quote),
            ((arrives, 5), self._arrivals),
            ((self.next_decision, 6), self._decide),
        ]

    def _ring(self, now: int) -> None:
        for order in [order for order in self.resting if self.clocks[order.slot].due == now]:
            self._fill(order, order.leaves, order.price, "clock", now)
            self.clocks[order.slot] = Waiting(next(self.waits), since=now)

    def _trade(self, now: int) -> None:
        i = int(self.times.trade[self.done["trade"]])
        self.done["trade"] += 1
        if not self.valid:
            return
        self.counts["trades"] += 1
        trades = self.market.trades
        price, size = int(trades.price[i]), int(trades.size[i])
        met = BID if trades.side[i] < 0 else ASK
        left = size  # what the lane's earlier orders at this price have not had
        for order in list(self.resting):
            inside = order.price - price if order.side == BID else price - order.price
            if inside < 0:
                continue
            if order.side != met:
                # What the lane took of this level is not there to meet it again.
                if self.believes("maker") and price not in self.taken[met]:
                    self._fill(order, order.leaves, order.price, "maker", now)
            elif inside > 0:
                if self.believes("through"):
                    self._fill(order, order.leaves, order.price, "through", now)
            elif self.believes("print"):
                lots = min(left, order.leaves)
                left -= lots
                self._fill(order, lots, order.price, "print", now)
            elif self.believes("queue"):
                left -= self._trade_in_queue(order, size, left, now)
        self._touch_by_trade(met, price)

    def _trade_in_queue(self, order: Order, size: int, left: int, now: int) -> int:
        """Let what is ``left`` of a trade at an order's price move and fill it; return the lots it had."""
        queue = order.queue
        assert queue is not None
        if queue.shown is None:
            return 0
        lots = min(queue.trade(size, left), order.leaves)
        self._fill(order, lots, order.price, "queue", now)
        return lots

    def _touch_by_trade(self, met: int, price: int) -> None:
        """Nothing better than ``price`` is left on the maker's side; the other side keeps its distance."""
        worse = -1 if met == BID else 1  # the way in which prices of the maker's side get worse
        before, other = self.touch[met], self.touch[1 - met]
        self.touch[met], self.touch_lots[met] = price, None
        if other is None:
            return
        moved = other
        if before is not None and (price - before) * worse > 0:
            moved = other + price - before
        if (moved - price) * worse >= 0:  # it would stand at or across the trade's price
            moved = price - worse
        if moved != other:
            self.touch[1 - met], self.touch_lots[1 - met] = moved, None

    def _message(self, now: int) -> None:
        i = self.done["message"]
        self.done["message"] += 1
        self.book.step(i)
        was, self.valid = self.valid, self.book.valid
        if not self.valid:
            self.tops.append(False)
            if was:
                self._hole(now)
            return
        self.levels = [dict(self.book.bids()), dict(self.book.asks())]
        best = [self._best(BID), self._best(ASK)]
        self.tops.append(None not in best)
        self._set_touch(best, [self.levels[side].get(_or_none(best[side])) for side in (BID, ASK)], now)
        if self.believes("queue"):
            for order in self.resting:
                self._move_in_queue(order, i)
        # A level that is gone is forgotten, and of another no more was taken than it shows.
        for side in (BID, ASK):
            shown = self.levels[side]
            self.taken[side] = {
                price: min(lots, shown[price]) for price, lots in self.taken[side].items() if price in shown
            }

    def _best(self, side: int) -> int | None:
        pick = max if side == BID else min
        return pick(self.levels[side], default=None)

    def _move_in_queue(self, order: Order, message: int) -> None:
        shown = self._level(order.side, order.price)
        assert order.queue is not None
        if shown is not None:
            named = self._names(message, order.side, order.price)
            order.queue.tell(self.terms.queue, self.terms.power, shown, named=named)

    def _names(self, message: int, side: int, price: int) -> bool:
        """Return whether a message speaks of a level: a whole book does of all, those that are gone too."""
        columns = self.market.columns
        rows = slice(columns.start[message], columns.start[message + 1])
        told = zip(columns.side[rows].tolist(), columns.price[rows].tolist(), strict=True)
        return columns.kind[message] != DIFF or (side, price) in told

    def _level(self, side: int, price: int) -> int | None:
        """Return the lots at a price; None beyond the last of a full number of levels."""
        levels, most = self.levels[side], self.market.chain.max_depth
        if most and len(levels) >= most:
            worst = min(levels) if side == BID else max(levels)
            if (price < worst) if side == BID else (price > worst):
                return None
        return levels.get(price, 0)

    def _quote(self, now: int) -> None:
        i = self.done["quote"]
        self.done["quote"] += 1
        quotes, last = self.market.quotes, self.done["message"] - 1
        # Of a message and a quote of one moment the ids say which is the newer.
        if last >= 0 and self.times.acts[last] == now and quotes.last_id[i] <= self.book.id:
            return
        if not self.valid:
            return
        self.counts["quotes"] += 1
        prices = [int(quotes.bid_price[i]), int(quotes.ask_price[i])]
        self._set_touch(
            [None if price == NO_PRICE else price for price in prices],
            [int(quotes.bid_size[i]), int(quotes.ask_size[i])],
            now,
        )

    def _set_touch(self, best: Sequence[int | None], lots: Sequence[int | None], now: int) -> None:
        self.touch, self.touch_lots = list(best), list(lots)
        bid, ask = best
        before = self.mid2, self.two_sided
        self.two_sided = bid is not None and ask is not None
        if bid is not None and ask is not None:
            self.mid2 = bid + ask
        if self.believes("touch"):
            for order in list(self.resting):
                self._meet_touch(order, now)
        if (self.mid2, self.two_sided) != before:
            for order in self.resting:
                self._run_clock(order, now)

    def _meet_touch(self, order: Order, now: int) -> None:
        """Fill an order that the opposite best price reaches: but for what the lane took there itself."""
        side = 1 - order.side
        price, shown = self.touch[side], self.touch_lots[side]
        if not _crosses(order.side, order.price, price):
            return
        assert price is not None
        lots = order.leaves
        if price in self.taken[side]:
            lots = max(min(lots, (shown or 0) - self.taken[side][price]), 0)
            self.taken[side][price] += lots
        self._fill(order, lots, order.price, "touch", now)

    def _hole(self, now: int) -> None:
        """Take everything off; the lane knows at once of this, and of all that had filled."""
        self.touch, self.two_sided = [None, None], False
        for instruction in self.flying:
            instruction.outcome = "lost at a hole"
        self.flying = []
        for order in list(self.resting):
            self.counts["withdrawn"] += 1
            self._take_off(order, now)
        self._hear(NEVER)
        self.last_report = now
        self.known = {}
        self.taken = [{}, {}]

    # Fills and clocks.

    def _fill(self, order: Order, lots: int, price: int, cause: str, now: int) -> None:
        if lots == 0:
            return
        side = 1 if order.side == BID else -1
        self.fills.append(Fill(now, side, price, lots, self.mid2, order.placed, cause, order.number))
        order.leaves -= lots
        order.filled += lots
        if order.leaves == 0 and order in self.resting:
            self._take_off(order, now)
        self._report(order, False, lots, price, now)

    def _run_clock(self, order: Order, now: int) -> None:
        """Let an order's clock run at the rate of where it stands; it stands still without a mid."""
        if not self.believes("clock"):
            return
        rate = 0.0
        if self.two_sided:
            distance = self.mid2 / 2 - order.price if order.side == BID else order.price - self.mid2 / 2
            terms = self.terms
            rate = 1e-9 * terms.intensity * math.exp(-terms.decay * distance)
            if self.believes("queue"):  # trades, which explain a part of the rate, fill it themselves
                rate -= 1e-9 * terms.explained_intensity * math.exp(-terms.explained_decay * distance)
        self.clocks[order.slot].run(now, max(rate, 0.0))

    # Instructions.

    def _arrivals(self, now: int) -> None:
        """Carry out what arrives at a moment, as it was sent."""
        batch = [instruction for instruction in self.flying if instruction.arrives == now]
        for instruction in batch:
            self.flying.remove(instruction)
            self._arrive(instruction, now)

    def _arrive(self, told: Instruction, now: int) -> None:
        if told.action == "new":
            self.orders[told.slot] = Order(told.slot, told.number, told.side, told.kind)
        order = self.orders[told.slot]
        assert order.number == told.number
        stands = order in self.resting
        lots = _still_wanted(told, order)
        if not stands and told.action in ("amend", "cancel"):
            self.counts["too late"] += 1
            told.outcome = "gone"
        elif stands and _keeps_its_place(told, order):
            order.leaves = lots
            told.outcome = "stands"
        else:
            if stands:
                self._take_off(order, now)
            told.outcome = "off"
            # Silent: of a replacement of which nothing is wanted any more, the order is off, even if it
            # was gone already.
            if told.action != "cancel" and lots > 0:
                told.outcome = self._put(order, told.price, lots, now)
                self.counts[told.outcome] += 1
        self._report(order, True, order.leaves, order.price, now)

    def _put(self, order: Order, price: int, lots: int, now: int) -> str:
        order.price = price
        if not self.valid:
            return "no book"
        # Silent: an order of one's own that is in reach counts, even where others would have been met first.
        if any(self._is_in_the_way(other, order, now) for other in self.resting):
            return "own order"
        order.leaves, order.placed = lots, now
        if order.kind == "market" or _crosses(order.side, price, self.touch[1 - order.side]):
            if order.kind == "post-only":
                order.leaves = 0
                return "crosses"
            self._take(order, now)
            if order.leaves == 0:
                return "takes"
        if order.kind in ("ioc", "market"):
            order.leaves = 0
            return "expires"
        if self.believes("queue"):
            shown = self._shown(order.side, price)
            order.queue = Queue(Fraction(shown or 0), shown)
        self.resting.append(order)
        self._run_clock(order, now)
        return "stands"

    def _is_in_the_way(self, other: Order, order: Order, now: int) -> bool:
        if other.side == order.side:
            return False
        coming = [told for told in self.flying if told.slot == other.slot and told.arrives == now]
        if coming and not _keeps_its_place(coming[0], other):  # this batch takes it off
            return False
        return order.kind == "market" or _crosses(order.side, order.price, other.price)

    def _take(self, order: Order, now: int) -> None:
        """Take what the order crosses, from the touch on; nothing twice."""
        side = 1 - order.side
        touch = self.touch[side]
        if touch is None:
            return
        worse = [price for price in self.levels[side] if (price < touch if side == BID else price > touch)]
        for price in [touch, *sorted(worse, reverse=side == BID)]:
            if order.leaves == 0 or (order.kind != "market" and not _crosses(order.side, order.price, price)):
                break
            taken = self.taken[side]
            lots = min(order.leaves, max((self._shown(side, price) or 0) - taken.get(price, 0), 0))
            if lots == 0:
                continue
            if price not in taken and len(taken) == MOST_LEVELS_TAKEN:
                self.counts["cut short"] += 1
                break
            taken[price] = taken.get(price, 0) + lots
            self._fill(order, lots, price, "taker", now)

    def _shown(self, side: int, price: int) -> int | None:
        """Return the lots at a price by the newest evidence; None where the feed does not speak of it."""
        if price == self.touch[side] and self.touch_lots[side] is not None:
            return self.touch_lots[side]
        return self._level(side, price)

    def _take_off(self, order: Order, now: int) -> None:
        self.resting = [other for other in self.resting if other is not order]
        order.leaves = 0
        self.clocks[order.slot].run(now, 0.0)

    # What the lane decides and knows.

    def _latency(self, wire: Wire) -> int:
        if wire.how == "sampled":
            self.random = self.random * 48271 % (2**31 - 1)
            return wire.ns[self.random % len(wire.ns)]
        if wire.how == "by message":
            return wire.ns[max(self.seen - 1, 0)]
        return wire.ns[0]

    def _report(self, order: Order, answers: bool, lots: int, price: int, now: int) -> None:
        """Send word; none overtakes another."""
        self.last_report = max(self.last_report, now + self._latency(self.response))
        told = Report(self.last_report, order.slot, order.number, order.side, answers, lots, price)
        self.reports.append(told)

    def _hear(self, now: int) -> None:
        while self.reports and self.reports[0].at <= now:
            told = self.reports.pop(0)
            known = self.known.get(told.slot)
            own = known is not None and known.number == told.number
            if not told.answers:
                self.inventory += told.lots if told.side == BID else -told.lots
            if known is None or not own:  # a hole has emptied the slot since
                continue
            if told.answers:
                known.size, known.price, known.busy = told.lots, told.price, False
            else:
                known.size -= told.lots
                known.filled += told.lots
            if known.size == 0 and not known.busy:
                del self.known[told.slot]

    def _decide(self, now: int) -> None:
        news = self.times.seen
        while self.seen < len(news) and news[self.seen] <= now:
            self.seen += 1
        quoted = self.seen > 0 and self.tops[self.seen - 1]
        self._plan(now, quoted)
        if quoted:
            self._hear(now)
        known = [self.known.get(slot) for slot in range(self.slots)]
        slots = tuple(None if own is None else (own.busy, own.side, own.price, own.size) for own in known)
        self.decisions.append(Decision(now, self.seen - 1, self.mid2, quoted, self.inventory, slots))
        while self.next_sent < len(self.log) and self.log[self.next_sent].sent <= now:
            told = self.log[self.next_sent]
            self.next_sent += 1
            assert quoted
            assert told.sent == now
            assert told.arrives == now + self._latency(self.order)
            self._send(told)

    def _plan(self, now: int, quoted: bool) -> None:
        """Find the next decision: while no valid book is seen it is the first of the grid with news."""
        news = int(self.times.seen[self.seen]) if self.seen < len(self.times.seen) else NEVER
        if self.interval == 0:
            self.next_decision = news
        elif quoted:
            self.next_decision = now + self.interval
        elif news == NEVER:
            self.next_decision = NEVER
        else:
            self.next_decision = now + self.interval * max(1, math.ceil(Fraction(news - now, self.interval)))

    def _send(self, told: Instruction) -> None:
        if told.action == "new":
            assert told.slot not in self.known
            self.known[told.slot] = Known(told.number, told.side, told.price, told.lots)
        known = self.known[told.slot]
        assert known.number == told.number
        known.busy = True
        told.knew_filled = known.filled
        self.flying.append(told)


def _still_wanted(told: Instruction, order: Order) -> int:
    """Return the lots that an instruction leaves open: what filled on the way counts against them."""
    return told.lots - (order.filled - told.knew_filled)


def _keeps_its_place(told: Instruction, order: Order) -> bool:
    """Return whether an instruction leaves a resting order where it is: only its size falls."""
    if told.action != "amend" or told.price != order.price:
        return False
    return 0 < _still_wanted(told, order) <= order.leaves


def _crosses(side: int, price: int, other: int | None) -> bool:
    return other is not None and (other <= price if side == BID else other >= price)


def _or_none(price: int | None) -> int:
    return NO_PRICE if price is None else price
