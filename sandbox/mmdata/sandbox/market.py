"""One live market: an engine, the flow that feeds it, and wall-clock time for both.

Pure: ``advance(now_ns)`` plays every event that is due and returns it with its own time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mmdata.sandbox.engine import Action, MatchingEngine, Outcome
from mmdata.sandbox.flow import BURN_IN_UNITS, FlowRates, ZeroIntelligenceFlow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmdata.sandbox.instruments import Instrument


class Event(NamedTuple):
    """One action at the time (ns since the epoch) for which the flow scheduled it."""

    ts_event: int
    outcome: Outcome


class LiveMarket:
    """A market that has been running for ``burn_in`` units when it is made, and goes on at ``start_ns``.

    ``speed`` is units per second; at 0 nothing happens any more.
    """

    def __init__(
        self,
        instrument: Instrument,
        seed: np.random.SeedSequence,
        speed: float,
        start_ns: int,
        sweep: float = 0.0,
        burn_in: float = BURN_IN_UNITS,
    ) -> None:
        self.instrument = instrument
        self.engine = MatchingEngine(instrument.first_update_id, instrument.first_trade_id)
        self.ts_last_event = start_ns
        self._start_ns = start_ns
        self._ns_per_unit = 1e9 / speed if speed else 0.0
        self._flow = ZeroIntelligenceFlow(
            self.engine,
            np.random.default_rng(seed),
            instrument.unit_lots,
            instrument.start_ticks,
            FlowRates(sweep=sweep),
        )
        self._burn_in(burn_in)
        self._next: tuple[int, Action] | None = self._schedule() if speed else None

    def advance(self, now_ns: int) -> Iterator[Event]:
        """Play and yield, in order, the events that are due at ``now_ns``."""
        while self._next is not None and self._next[0] <= now_ns:
            ts_event, action = self._next
            outcome = self.engine.apply(action)
            self._flow.observe(outcome)
            self.ts_last_event = ts_event
            yield Event(ts_event, outcome)
            self._next = self._schedule()

    def postpone(self, by_ns: int) -> None:
        """Let everything that has not happened yet happen so much later."""
        self._start_ns += by_ns
        if self._next is not None:
            self._next = (self._next[0] + by_ns, self._next[1])

    def _play(self, action: Action) -> Outcome:
        outcome = self.engine.apply(action)
        self._flow.observe(outcome)
        return outcome

    def _burn_in(self, units: float) -> None:
        for order in self._flow.opening():
            self._play(order)
        while True:
            time, action = self._flow.next_event()
            self._play(action)
            if time > units:
                break
        self._origin = time

    def _schedule(self) -> tuple[int, Action]:
        time, action = self._flow.next_event()
        return self._start_ns + int((time - self._origin) * self._ns_per_unit), action
