"""The heads of a recording's parts put together, without their levels: what is estimated from."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.clocks import DEFAULT_BASE_LATENCY_NS
from mmdata.datasets.loading import Recording, join_parts
from mmdata.datasets.market import Market, without_levels
from mmdata.datasets.times import Moment, span
from mmdata.replay import state as s
from mmdata.replay.calibration import Calibration, Touches, estimate
from mmdata.replay.clock import MAPPED, Timekeeper, Timeline
from mmdata.replay.engine import Engine
from mmdata.replay.stream import Rebuild
from mmdata.replay.survey import Held, survey

Ints = NDArray[np.int64]


class Gathered:
    """Parts of a recording without their levels, and the tops after their messages."""

    def __init__(self) -> None:
        self._parts: list[tuple[Market, Timeline]] = []
        self._tops: list[Ints] = []

    def see(self, market: Market, times: Timeline) -> None:
        """Take the next part."""
        self._parts.append((without_levels(market), times))

    def see_tops(self, rows: Ints) -> None:
        """Take the tops after the next messages; fields as in `mmdata.replay.state`."""
        self._tops.append(rows)

    def joined(self) -> tuple[Market, Timeline, Touches]:
        """Return the parts as one, and the touches in it as far as there are tops."""
        markets, times = [part for part, _ in self._parts], [own for _, own in self._parts]
        market = join_parts(markets)
        whole = Timeline.joined(times, [len(part.trades.order) for part in markets])
        tops = np.concatenate(self._tops)
        valid, bid, ask = tops[:, s.TOP_VALID] == 1, tops[:, s.TOP_BID], tops[:, s.TOP_ASK]
        return market, whole, Touches.of(market, whole, valid, bid, ask)


class EngineGathered(Gathered):
    """Those that an engine is handed, with the tops that it finds."""

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        self._engine = engine
        self._counted = 0

    def see(self, market: Market, times: Timeline) -> None:
        """Take a part before it is handed to the engine."""
        self._look()
        super().see(market, times)

    def joined(self) -> tuple[Market, Timeline, Touches]:
        """Return the parts as one, and the touches in it as far as the engine has come."""
        self._look()
        return super().joined()

    def _look(self) -> None:
        """Take the tops found since the last look; what has happened is forgotten with the next part."""
        state = self._engine.state
        first, reached = int(state[s.FIRST_MESSAGE]), int(state[s.NEXT_MESSAGE])
        self.see_tops(self._engine.world.tops[self._counted - first : reached].copy())
        self._counted = first + reached


def calibrate(
    root: str | os.PathLike[str],
    *,
    exchange: str,
    symbol: str,
    start: Moment | None = None,
    end: Moment | None = None,
) -> Calibration:
    """Estimate A, k, sigma and the order size from a stretch of a recording.

    ``start`` and ``end`` are those of `mmdata.replay.simulate`: half-open, of the exchange's clock.
    UsageError: there is too little to estimate from; the sentence says of what.
    """
    begin, until = span(start, end)
    parts = Held(Recording(root, exchange, symbol))
    found = survey(parts, begin, until, clock=MAPPED, base_latency_ns=DEFAULT_BASE_LATENCY_NS)
    keeper, rebuild, gathered = Timekeeper(), Rebuild(), Gathered()
    for part, known in zip(parts, found.known, strict=True):
        gathered.see(part, keeper.timeline(part, found.clock))
        gathered.see_tops(rebuild.tops(part))
        if known >= found.until:
            break
    return estimate(*gathered.joined(), found.begin, found.until)
