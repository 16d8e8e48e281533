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


def trade_holes(market: Market, clock: Clock, begin: int, until: int) -> int:
    """Return how many recorded holes in the tape were noticed in ``[begin, until)``."""
    noticed = clock.exchange_time(market, market.trade_holes.order, market.trade_holes.ts_recv)
    return int(((noticed >= begin) & (noticed < until)).sum())


def caveats(market: Market, clock: Clock, times: Timeline, begin: int, until: int) -> tuple[str, ...]:
    """Return what is doubtful about a simulation of ``[begin, until)``, ns of the exchange's clock."""
    return (
        *_of_clock(clock),
        *_of_tape(market, clock, times, begin, until),
        *_of_quotes(market, times, begin, until),
        *_of_contract(market),
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


def _of_tape(market: Market, clock: Clock, times: Timeline, begin: int, until: int) -> Iterator[str]:
    holes = trade_holes(market, clock, begin, until)
    if holes:
        yield (
            f"{holes} hole{'s' if holes > 1 else ''} in the trades {'are' if holes > 1 else 'is'} on record "
            f"while trading: trade-through misses the fills, and the l2-queue reads lost trades as "
            f"cancellations"
        )
    if not ((times.trade_acts >= begin) & (times.trade_acts < until)).any():
        yield (
            f"no trade was recorded between {iso(begin)} and {iso(until)}: trade-through cannot fill, and "
            f"the l2-queue reads every trade as a cancellation"
        )


def _of_quotes(market: Market, times: Timeline, begin: int, until: int) -> Iterator[str]:
    """Tell of sessions without quotes where others have some: the touch is not of one quality."""

    def sessions(order: Ints, acts: Ints) -> set[int]:
        return set(market.session_of(order[(acts >= begin) & (acts < until)]).tolist())

    quoted = sessions(market.quotes.order, times.quote_acts)
    bare = sessions(market.order[times.valid], times.acts[times.valid]) - quoted
    if quoted and bare:
        names = ", ".join(market.sessions[session] for session in sorted(bare))
        yield (
            f"bbo was recorded in some sessions but not in {names}: there the touch is the last book "
            f"message's"
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
