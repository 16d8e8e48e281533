"""Two clocks made one: when the exchange acts, and when the strategy sees it.

The exchange acts at ``ts_event``. The strategy sees at ``ts_recv``, which the recorder's clock measured;
that clock may be wrong (in the real Binance captures it is 1.27 s behind: taken as it is, every message
would be seen before it happened). Here it is mapped to the exchange's clock by one constant a session.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import SPLICE
from mmdata.datasets.book import proven
from mmdata.datasets.chain import RANGE
from mmdata.datasets.clocks import DEFAULT_BASE_LATENCY_NS, happened, shift_to
from mmdata.datasets.errors import UsageError
from mmdata.datasets.market import NO_TIME, Market, Trades
from mmdata.datasets.times import iso

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

MAPPED = "mapped"
RAW = "raw"
_ALONE_NS = 100_000_000


@dataclass(frozen=True, slots=True)
class Latencies:
    """How long what a session received was on its way, by the exchange's clock, ns."""

    least: int
    low: int
    """The lowest thousandth ends here: the second least, where there are less than a thousand."""
    median: int

    @property
    def least_stands_alone(self) -> bool:
        """True when one event time decided the shift that no other supports: it was probably wrong."""
        return self.low - self.least > max(_ALONE_NS, self.median - self.low)


@dataclass(frozen=True, slots=True)
class SessionClock:
    """What is added to one session's ``ts_recv`` to read the exchange's clock."""

    session: str
    shift_ns: int
    source: str
    """How the shift is known."""
    timed: int
    """Messages, trades and quotes that carry both times."""
    negative: int
    """How many of them were received before their event, by the recorder's own clock."""
    latencies: Latencies | None = None
    """What the map makes of them; None where nothing is timed."""


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
    """(n,) when the exchange's book took each message; in the order of the chain. What shows a hole acts
    from the message before it on: only as long was the book proven."""
    seen: Ints
    """(n,) from when on the strategy may know of each message; never before it acted."""
    trade: Ints
    """(k,) the trades in the exchange's order, as positions in ``market.trades``."""
    trade_acts: Ints
    """(k,) when each of those happened."""
    trade_seen: Ints
    """(k,) when each of those arrived. Not ascending: trades asked for later come late."""
    quote_acts: Ints
    """(q,) when the touch was what each of ``market.quotes`` says."""
    quote_seen: Ints
    """(q,) when each of those arrived."""
    valid: Flags
    """(n,) whether the book is proven after each message."""


def map_clock(market: Market, mode: str = MAPPED, base_latency_ns: int = DEFAULT_BASE_LATENCY_NS) -> Clock:
    """Find how the recorder's clock of each session reads on the exchange's.

    ``mapped``: the smallest constant at which no message, trade or quote was received less than
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
            f"clock raw is refused for {market.exchange} {market.symbol}: {negative} of {timed} messages, "
            f"trades and quotes were received before their event, the worst by {-worst / 1e6:.3f} ms, so a "
            f"strategy would see the future; use clock {MAPPED}"
        )
    raw = tuple(
        replace(
            session,
            shift_ns=0,
            source="raw: the recorder's own clock",
            latencies=_summary(_latencies(market, i)),
        )
        for i, session in enumerate(sessions)
    )
    return Clock(mode, base_latency_ns, raw)


def _fallback(market: Market, index: int, base_latency_ns: int) -> SessionClock:
    latencies = _latencies(market, index)
    name = market.sessions[index]
    shift, source = shift_to(int(latencies.min()) if latencies.size else None, base_latency_ns)
    return SessionClock(
        session=name,
        shift_ns=shift,
        source=source,
        timed=len(latencies),
        negative=int((latencies < 0).sum()),
        latencies=_summary(latencies + shift),
    )


def _summary(latencies: Ints) -> Latencies | None:
    if not latencies.size:
        return None
    low, median = np.quantile(latencies, (0.001, 0.5), method="higher")
    return Latencies(int(latencies.min()), int(low), int(median))


def _latencies(market: Market, index: int) -> Ints:
    """Return ``ts_recv - ts_event`` of whatever in a session has both, as the recorder measured it."""
    found = []
    for told in (market, market.trades, market.quotes):
        both = (told.ts_recv != NO_TIME) & (told.ts_event != NO_TIME)
        both &= market.session_of(told.order) == index
        if isinstance(told, Trades):
            both &= ~told.backfilled
        found.append(told.ts_recv[both] - told.ts_event[both])
    return np.concatenate(found)


def timeline(market: Market, clock: Clock) -> Timeline:
    """Put messages, trades and quotes on the exchange's clock."""
    received = clock.exchange_time(market, market.order, market.ts_recv)
    acts = happened(market.ts_event, received, clock.base_latency_ns)
    # A book asked for over REST describes a moment long before it came. It acts where it stands among
    # the messages, and must not hold up those behind it.
    acts[market.columns.kind == SPLICE] = NO_TIME
    # Nor is known when a hole began: a connection may have been silent long before it was found dead.
    valid = proven(market.columns, market.chain)
    acts[np.flatnonzero(valid[:-1] & ~valid[1:]) + 1] = NO_TIME
    # The chain's order counts, so nothing acts before what precedes it.
    acts = _filled_from_front(_running_maximum(acts))
    seen = _running_maximum(np.maximum(received, acts))

    trades = market.trades
    trade_received = clock.exchange_time(market, trades.order, trades.ts_recv)
    trade_acts = happened(trades.ts_event, trade_received, clock.base_latency_ns)
    # By their event: trades asked for after a hole stand behind others that happened later.
    trade = np.argsort(trade_acts, kind="stable")
    quote_received = clock.exchange_time(market, market.quotes.order, market.quotes.ts_recv)
    quote_acts = _quoted(market, clock, quote_received, acts)
    return Timeline(
        acts=acts,
        seen=seen,
        trade=trade.astype(np.int64),
        trade_acts=trade_acts[trade],
        trade_seen=np.maximum(trade_received, trade_acts)[trade],
        quote_acts=quote_acts,
        quote_seen=_running_maximum(np.maximum(quote_received, quote_acts)),
        valid=valid,
    )


def _quoted(market: Market, clock: Clock, received: Ints, acts: Ints) -> Ints:
    """Return when the touch was what each quote says, ascending.

    Binance spot sends no time with it. Its id does say between which book messages the quote belongs,
    and between their times it is put, at a base latency before it came.
    """
    quotes, columns = market.quotes, market.columns
    moments = happened(quotes.ts_event, received, clock.base_latency_ns)
    for session in np.unique(market.session_of(quotes.order[quotes.ts_event == NO_TIME])):
        if market.chain.rule != RANGE:
            break
        messages = np.flatnonzero((market.session_of(market.order) == session) & (market.ts_event != NO_TIME))
        own = np.flatnonzero(market.session_of(quotes.order) == session)
        if not messages.size:
            continue
        holder = np.searchsorted(_running_maximum(columns.last_id[messages]), quotes.last_id[own])
        before = acts[messages[np.maximum(holder - 1, 0)]]
        holds = acts[messages[np.minimum(holder, len(messages) - 1)]]
        moments[own] = _running_maximum(moments[own])
        inside = holder < len(messages)
        moments[own[inside]] = np.minimum(moments[own], holds)[inside]
        inside = holder > 0
        moments[own[inside]] = np.maximum(moments[own], before)[inside]
    return _running_maximum(moments)


def recorded(market: Market, times: Timeline, start: int | None, end: int | None) -> tuple[int, int]:
    """Return that part of ``[start, end)`` in which anything was recorded. UsageError: nothing was.

    A recording begins with the first thing seen at or after ``start``, not with the first that happened:
    OKX, when asked for trades, begins with one that may be old.
    """
    name = f"{market.exchange} {market.symbol}"
    happened = np.concatenate((times.acts, times.trade_acts))
    seen = np.concatenate((times.seen, times.trade_seen))
    happened, seen = happened[happened != NO_TIME], seen[seen != NO_TIME]
    if not happened.size:
        raise UsageError(f"{name}: the recording holds neither book messages nor trades")
    first, last = int(seen.min()), int(happened.max()) + 1
    if first >= last:
        raise UsageError(
            f"{name}: the recording is too short to be traded on: the first thing in it was seen at "
            f"{iso(first)}, when the last had happened already, at {iso(last - 1)}, by the exchange's clock"
        )
    asked_from, until = first if start is None else start, last if end is None else min(end, last)
    begin = int(seen[seen >= asked_from].min(initial=last))
    if begin >= until:
        asked = f"{iso(asked_from)} and {iso(last if end is None else end)}"
        raise UsageError(
            f"{name}: nothing was recorded between {asked}; the recording holds {iso(first)} to "
            f"{iso(last)}, by the exchange's clock"
        )
    return begin, until


@dataclass(frozen=True, slots=True)
class Proof:
    """The stretches of a time in which the book was proven at the exchange, and known to the strategy."""

    edges: Ints
    """(m + 1,) ascending, ns."""
    holds: Flags
    """(m,) for the stretch from each edge to the next."""

    @property
    def length(self) -> int:
        """How long it holds in all, ns."""
        return int(np.diff(self.edges)[self.holds].sum())

    def after(self, length: int) -> int:
        """Return the moment at which it has held for ``length`` ns."""
        held = np.cumsum(np.where(self.holds, np.diff(self.edges), 0))
        at = int(np.searchsorted(held, length))
        return int(self.edges[at + 1] - (held[at] - length))


def proof(times: Timeline, begin: int, until: int) -> Proof:
    """Return where in ``[begin, until)`` the book was proven and the last message seen left a valid one."""
    edges = np.unique(np.clip(np.concatenate((times.acts, times.seen, [begin, until])), begin, until))
    starts = edges[:-1]
    # What acted last at or before an edge, and what was seen last.
    acted = np.searchsorted(times.acts, starts, side="right") - 1
    seen = np.searchsorted(times.seen, starts, side="right") - 1
    known = (acted >= 0) & (seen >= 0)
    return Proof(edges, known & times.valid[np.maximum(acted, 0)] & times.valid[np.maximum(seen, 0)])


_running_maximum: Callable[[Ints], Ints] = np.maximum.accumulate


def _filled_from_front(times: Ints) -> Ints:
    known = np.flatnonzero(times != NO_TIME)
    if known.size:
        times[: known[0]] = times[known[0]]
    return times
