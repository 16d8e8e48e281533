"""What a reader of a result must know before believing it: sentences, each about one doubtful thing."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.market import Market
from mmdata.datasets.times import iso
from mmdata.replay.clock import Clock, Timeline
from mmdata.replay.result import ModelResult
from mmdata.replay.state import LEVELS_TAKEN

Ints = NDArray[np.int64]


class Doubts:
    """Gathers, a part of a recording after the other, what is doubtful about a simulation of it.

    Of what happens in ``[begin, until)``, ns of the exchange's clock.
    """

    def __init__(self, clock: Clock, begin: int, until: int) -> None:
        self._clock = clock
        self._begin, self._until = begin, until
        self.trade_holes = 0
        """How many recorded holes in the tape were noticed then."""
        self._traded = False
        self._quoted: set[int] = set()
        self._booked: set[int] = set()

    def see(self, market: Market, times: Timeline) -> None:
        """Take a part into account."""
        holes = market.trade_holes
        noticed = self._clock.exchange_time(market, holes.order, holes.ts_recv)
        self.trade_holes += int(self._within(noticed).sum())
        self._traded |= bool(self._within(times.trade_acts).any())

        def sessions(order: Ints, acts: Ints) -> set[int]:
            return set(np.unique(market.session_of(order[self._within(acts)])).tolist())

        self._quoted |= sessions(market.quotes.order, times.quote_acts)
        self._booked |= sessions(market.order[times.valid], times.acts[times.valid])

    def _within(self, times: Ints) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (times >= self._begin) & (times < self._until)
        return found

    def told(self, market: Market) -> tuple[str, ...]:
        """Return what is doubtful, a sentence each."""
        return (
            *_of_clock(self._clock),
            *self._of_tape(),
            *self._of_quotes(market),
            *_of_contract(market),
        )

    def _of_tape(self) -> Iterator[str]:
        holes = self.trade_holes
        if holes:
            yield (
                f"{holes} hole{'s' if holes > 1 else ''} in the trades {'are' if holes > 1 else 'is'} on "
                f"record while trading: trade-through misses the fills, and the l2-queue reads lost trades "
                f"as cancellations"
            )
        if not self._traded:
            yield (
                f"no trade was recorded between {iso(self._begin)} and {iso(self._until)}: trade-through "
                f"cannot fill, and the l2-queue reads every trade as a cancellation"
            )

    def _of_quotes(self, market: Market) -> Iterator[str]:
        """Tell of sessions without quotes where others have some: the touch is not of one quality."""
        bare = self._booked - self._quoted
        if self._quoted and bare:
            names = ", ".join(market.sessions[session] for session in sorted(bare))
            yield (
                f"bbo was recorded in some sessions but not in {names}: there the touch is the last book "
                f"message's"
            )


def _of_clock(clock: Clock) -> Iterator[str]:
    for session in clock.sessions:
        found = session.latencies
        if found is not None and found.least_stands_alone:
            yield (
                f"the clock of session {session.session} was shifted by {session.shift_ns / 1e9:.3f} s to "
                f"suit one event time that is probably wrong: nearly all else is seen "
                f"{(found.low - found.least) / 1e9:.3f} s later than it would be without it (latencies: "
                f"least {found.least / 1e6:.3f} ms, lowest thousandth {found.low / 1e6:.3f} ms, median "
                f"{found.median / 1e6:.3f} ms)"
            )


def of_model(found: ModelResult) -> Iterator[str]:
    """Tell of fills that no trade explains, and of those that are missing."""
    if found.cut_short:
        yield (
            f"{found.cut_short} orders under {found.model} took less than they could: of no more than "
            f"{LEVELS_TAKEN} levels a side it is remembered that they were taken"
        )
    if found.by_clock and found.model == "hybrid":
        yield (
            f"{found.by_clock} of {found.fills} fills of hybrid are its clock's: they know nothing of the "
            f"price's next move, so no profit should rest on them"
        )


def _of_contract(market: Market) -> Iterator[str]:
    values = [row.contract_value for row in market.instruments if row.contract_value is not None]
    if values:
        yield (
            f"{market.symbol} is traded in contracts of {values[-1].normalize():f}: money is price times "
            f"size, not multiplied by it"
        )
