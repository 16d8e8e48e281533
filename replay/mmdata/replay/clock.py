"""Two clocks made one: when the exchange acts, and when the strategy sees it.

The exchange acts at ``ts_event``. The strategy sees at ``ts_recv``, which the recorder's clock measured;
that clock may be wrong (in the real Binance captures it is 1.27 s behind: taken as it is, every message
would be seen before it happened). Here it is mapped to the exchange's clock by one constant a session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import SPLICE
from mmdata.datasets.errors import UsageError
from mmdata.datasets.market import NO_TIME, Market
from mmdata.datasets.times import iso

Ints = NDArray[np.int64]

MAPPED = "mapped"
RAW = "raw"
DEFAULT_BASE_LATENCY_NS = 1_000_000


@dataclass(frozen=True, slots=True)
class SessionClock:
    """What is added to one session's ``ts_recv`` to read the exchange's clock."""

    session: str
    shift_ns: int
    source: str
    """How the shift is known."""
    timed: int
    """Messages and trades that carry both times."""
    negative: int
    """How many of them were received before their event, by the recorder's own clock."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The map from the recorder's clock to the exchange's, a constant a session."""

    mode: str
    base_latency_ns: int
    """The least latency that the map leaves, and what is supposed of marks without an event time."""
    sessions: tuple[SessionClock, ...]

    def exchange_time(self, market: Market, order: Ints, ts_recv: Ints) -> Ints:
        """Return receive times by the exchange's clock; NO_TIME stays."""
        shifts = np.array([session.shift_ns for session in self.sessions], np.int64)
        shifted = ts_recv + shifts[market.session_of(order)]
        return np.where(ts_recv == NO_TIME, NO_TIME, shifted)


@dataclass(frozen=True, slots=True)
class Timeline:
    """When everything acts and is seen: ns of the exchange's clock, each array ascending."""

    acts: Ints
    """(n,) when the exchange's book took each message; in the order of the chain."""
    seen: Ints
    """(n,) from when on the strategy may know of each message; never before it acted."""
    trade: Ints
    """(k,) the trades in the exchange's order, as positions in ``market.trades``."""
    trade_acts: Ints
    """(k,) when each of those happened."""
    trade_seen: Ints
    """(k,) when each of those arrived. Not ascending: trades asked for later come late."""


def map_clock(market: Market, mode: str = MAPPED, base_latency_ns: int = DEFAULT_BASE_LATENCY_NS) -> Clock:
    """Find how the recorder's clock of each session reads on the exchange's.

    ``mapped``: the smallest constant at which no message or trade was received less than
    ``base_latency_ns`` after its event. ``raw``: none; UsageError when anything was received before its
    event, since a strategy would then see the future.
    """
    if mode not in (MAPPED, RAW):
        raise UsageError(f"clock {mode!r} is not known, expected {MAPPED} or {RAW}")
    # Measured `clock` events (a venue's time asked for over REST) will serve here, before the fallback.
    sessions = tuple(_fallback(market, i, base_latency_ns) for i in range(len(market.sessions)))
    if mode == MAPPED:
        return Clock(mode, base_latency_ns, sessions)
    negative = sum(session.negative for session in sessions)
    if negative:
        timed = sum(session.timed for session in sessions)
        worst = min(_latencies(market, i).min(initial=0) for i in range(len(sessions)))
        raise UsageError(
            f"clock raw is refused for {market.exchange} {market.symbol}: {negative} of {timed} messages "
            f"and trades were received before their event, the worst by {-worst / 1e6:.3f} ms, so a "
            f"strategy would see the future; use clock {MAPPED}"
        )
    raw = tuple(
        SessionClock(session.session, 0, "raw: the recorder's own clock", session.timed, 0)
        for session in sessions
    )
    return Clock(mode, base_latency_ns, raw)


def _fallback(market: Market, index: int, base_latency_ns: int) -> SessionClock:
    latencies = _latencies(market, index)
    name = market.sessions[index]
    if not latencies.size:
        return SessionClock(name, 0, "none: nothing in the session carries an event time", 0, 0)
    return SessionClock(
        session=name,
        shift_ns=base_latency_ns - int(latencies.min()),
        source=f"least latency set to {base_latency_ns / 1e6:g} ms",
        timed=len(latencies),
        negative=int((latencies < 0).sum()),
    )


def _latencies(market: Market, index: int) -> Ints:
    """Return ``ts_recv - ts_event`` of whatever in a session has both, as the recorder measured it."""
    trades = market.trades
    columns: list[tuple[Ints, Ints, Ints, NDArray[np.bool_]]] = [
        (market.order, market.ts_recv, market.ts_event, np.zeros(len(market.order), np.bool_)),
        (trades.order, trades.ts_recv, trades.ts_event, trades.backfilled),
    ]
    found = [
        (recv - event)[(market.session_of(order) == index) & (recv != NO_TIME) & (event != NO_TIME) & ~late]
        for order, recv, event, late in columns
    ]
    return np.concatenate(found)


def timeline(market: Market, clock: Clock) -> Timeline:
    """Put messages and trades on the exchange's clock."""
    received = clock.exchange_time(market, market.order, market.ts_recv)

    def happened(event: Ints, received: Ints) -> Ints:
        # What carries no time of its own left the exchange at the latest a base latency before it came.
        supposed = np.where(received == NO_TIME, NO_TIME, received - clock.base_latency_ns)
        return np.where(event == NO_TIME, supposed, event)

    acts = happened(market.ts_event, received)
    # A book asked for over REST describes a moment long before it came. It acts where it stands among
    # the messages, and must not hold up those behind it.
    acts[market.columns.kind == SPLICE] = NO_TIME
    # The chain's order counts, so nothing acts before what precedes it.
    acts = _filled_from_front(_running_maximum(acts))
    seen = _running_maximum(np.maximum(received, acts))

    trades = market.trades
    trade_received = clock.exchange_time(market, trades.order, trades.ts_recv)
    trade_acts = happened(trades.ts_event, trade_received)
    # By their event: trades asked for after a hole stand behind others that happened later.
    trade = np.argsort(trade_acts, kind="stable")
    return Timeline(
        acts=acts,
        seen=seen,
        trade=trade.astype(np.int64),
        trade_acts=trade_acts[trade],
        trade_seen=np.maximum(trade_received, trade_acts)[trade],
    )


def recorded(market: Market, times: Timeline, start: int | None, end: int | None) -> tuple[int, int]:
    """Return that part of ``[start, end)`` in which anything was recorded. UsageError: nothing was.

    A recording begins with the first thing seen, not with the first that happened: OKX, when asked for
    trades, begins with one that may be old.
    """
    happened, seen = (
        np.concatenate(pair) for pair in ((times.acts, times.trade_acts), (times.seen, times.trade_seen))
    )
    happened, seen = happened[happened != NO_TIME], seen[seen != NO_TIME]
    first, last = (int(seen.min()), int(happened.max()) + 1) if happened.size else (0, 0)
    begin = first if start is None else max(start, first)
    until = last if end is None else min(end, last)
    if begin >= until:
        asked = f"{iso(first if start is None else start)} and {iso(last if end is None else end)}"
        raise UsageError(
            f"{market.exchange} {market.symbol}: nothing was recorded between {asked}; the recording holds "
            f"{iso(first)} to {iso(last)}, by the exchange's clock"
        )
    return begin, until


_running_maximum: Callable[[Ints], Ints] = np.maximum.accumulate


def _filled_from_front(times: Ints) -> Ints:
    known = np.flatnonzero(times != NO_TIME)
    if known.size:
        times[: known[0]] = times[known[0]]
    return times
