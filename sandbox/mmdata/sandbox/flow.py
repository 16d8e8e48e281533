"""Zero-intelligence order flow: who sends which order when, if nobody thinks.

The Markov market of Cont, Stoikov and Talreja, "A stochastic model for order book dynamics",
Operations Research 58(3), 549-563 (2010), with their estimates for Sky Perfect Communications and
widened from 5 to 30 ticks by their power law, so that no side runs empty. Limit orders arrive
``i`` ticks from the opposite best at rate lambda(i), market orders at rate mu a side, each resting
order is cancelled at rate theta(distance). Unit sizes. Only the random draws live here: the flow
reads the book, says what happens next and when, and never touches the book itself.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from mmdata.sandbox.engine import Action, Cancel, Limit, Market, MatchingEngine, Outcome, Side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

_DRAWS = 4096
"""Random numbers made at once: numpy's price per call is a hundred times its price per number."""

BURN_IN_UNITS = 200.0
"""Time units after which the start of the book is forgotten."""


@dataclass(frozen=True)
class FlowRates:
    """Rates per time unit; the defaults are the world ``CST2010_SkyPerfect_L30``.

    ``limit[i - 1]`` is lambda(i) per side; ``cancel[i - 1]`` is theta(i) per order, the last one
    holds for every greater distance; ``market`` is mu per side. ``sweep`` is the share of market
    orders that take a geometric number of units (mean 2) instead of the front order: 0 in the
    model, more to put fills of one taker at several orders on the wire.
    """

    limit: tuple[float, ...] = (1.85, 1.51, 1.09, 0.88, 0.77, *(1.92 * i**-0.52 for i in range(6, 31)))
    cancel: tuple[float, ...] = (0.71, 0.81, 0.68, 0.56, 0.47)
    market: float = 0.94
    sweep: float = 0.0


class ZeroIntelligenceFlow:
    """Orders for one engine, from one seed.

    ``next_event()`` returns the next ``(time, action)``, time in units since the start. The caller
    applies the action to the engine and hands the outcome to ``observe()``: then the flow
    knows which of its orders rest.

    Cancels are drawn by thinning: every resting order is offered a cancel at the greatest theta and
    takes it with probability theta(distance) / greatest. The law is exactly the model's, and
    nothing has to be summed over the book.
    """

    def __init__(
        self,
        engine: MatchingEngine,
        rng: np.random.Generator,
        unit_lots: int,
        start_ticks: int,
        rates: FlowRates | None = None,
    ) -> None:
        self.rates = FlowRates() if rates is None else rates
        self.time = 0.0
        self._engine = engine
        self._unit_lots = unit_lots
        self._rng = rng
        self._uniform = _stream(rng.random)
        self._exponential = _stream(rng.standard_exponential)
        self._limit_cumulated = list(accumulate(self.rates.limit))
        self._side_rate = self._limit_cumulated[-1] + self.rates.market
        self._cancel = self.rates.cancel
        self._cancel_max = max(self._cancel)
        self._ids: list[int] = []
        self._place: dict[int, int] = {}
        # What an empty side is measured from: the last best price that was seen there.
        self._last_bid = start_ticks
        self._last_ask = start_ticks + 1

    def opening(self) -> Iterator[Limit]:
        """Yield one unit order at each distance and side: the book from which burn-in starts."""
        for distance in range(len(self.rates.limit)):
            yield Limit("bid", self._last_bid - distance, self._unit_lots)
            yield Limit("ask", self._last_ask + distance, self._unit_lots)

    def next_event(self) -> tuple[float, Action]:
        """Return the time (in units) of the next event, and the event."""
        self._note_touch()
        # Local names: this loop is a third of what a busy sandbox costs.
        side_rate, cancel_max, ids = self._side_rate, self._cancel_max, self._ids
        exponential, uniform = self._exponential, self._uniform
        total = 2 * side_rate + cancel_max * len(ids)
        while True:
            self.time += next(exponential) / total
            draw = next(uniform) * total
            if draw < side_rate:
                return self.time, self._arrival("bid", draw)
            draw -= side_rate
            if draw < side_rate:
                return self.time, self._arrival("ask", draw)
            offer = (draw - side_rate) / cancel_max
            place = int(offer)
            # Rounding may put the draw on the very end of the interval.
            order_id = ids[place] if place < len(ids) else ids[-1]
            if (offer - place) * cancel_max < self._theta(order_id):
                return self.time, Cancel(order_id)

    def observe(self, outcome: Outcome) -> None:
        """Learn which orders came to rest and which are gone."""
        for fill in outcome.fills:
            if not fill.maker_left_lots:
                self._forget(fill.maker_id)
        if outcome.rested_lots:
            self._place[outcome.order_id] = len(self._ids)
            self._ids.append(outcome.order_id)
        elif isinstance(outcome.action, Cancel):
            self._forget(outcome.order_id)

    def _note_touch(self) -> None:
        bid, ask = self._engine.best_bid(), self._engine.best_ask()
        if bid is not None:
            self._last_bid = bid
        if ask is not None:
            self._last_ask = ask

    def _arrival(self, side: Side, draw: float) -> Limit | Market:
        """Return the order that a draw from [0, sum of lambda + mu) stands for."""
        distance = bisect_right(self._limit_cumulated, draw) + 1
        if distance <= len(self._limit_cumulated):
            px = self._last_ask - distance if side == "bid" else self._last_bid + distance
            return Limit(side, px, self._unit_lots)
        units = 1
        if self.rates.sweep and next(self._uniform) < self.rates.sweep:
            units = int(self._rng.geometric(0.5))
        return Market(side, units * self._unit_lots)

    def _theta(self, order_id: int) -> float:
        order = self._engine.orders[order_id]
        px = order.px_ticks
        distance = self._last_ask - px if order.side == "bid" else px - self._last_bid
        cancel = self._cancel
        return cancel[distance - 1] if distance < len(cancel) else cancel[-1]

    def _forget(self, order_id: int) -> None:
        place = self._place.pop(order_id, None)
        if place is None:  # somebody else's order
            return
        last = self._ids.pop()
        if last != order_id:
            self._ids[place] = last
            self._place[last] = place


def _stream(draw: Callable[[int], NDArray[np.float64]]) -> Iterator[float]:
    while True:
        yield from draw(_DRAWS).tolist()
