"""Two clocks made one: when the exchange acts, and when the strategy sees it.

The exchange acts at ``ts_event``. The strategy sees at ``ts_recv``, which the recorder's clock measured;
that clock may be wrong (in the real Binance captures it is 1.27 s behind: taken as it is, every message
would be seen before it happened). Here it is mapped to the exchange's clock by one constant a session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import SPLICE
from mmdata.datasets.book import Book, next_part, prove
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

    @staticmethod
    def joined(parts: Sequence[Timeline], trades: Sequence[int]) -> Timeline:
        """Return the timeline of parts that follow one another, with as many ``trades`` each."""
        if len(parts) == 1:
            return parts[0]
        before = np.cumsum([0, *trades[:-1]])
        whole = {
            column.name: np.concatenate([getattr(part, column.name) for part in parts])
            for column in fields(Timeline)
        }
        whole["trade"] = np.concatenate([part.trade + n for part, n in zip(parts, before, strict=True)])
        rank = np.argsort(whole["trade_acts"], kind="stable")
        for name in ("trade", "trade_acts", "trade_seen"):
            whole[name] = whole[name][rank]
        return Timeline(**whole)


def map_clock(market: Market, mode: str = MAPPED, base_latency_ns: int = DEFAULT_BASE_LATENCY_NS) -> Clock:
    """Find how the recorder's clock of each session reads on the exchange's.

    ``mapped``: the smallest constant at which no message, trade or quote was received less than
    ``base_latency_ns`` after its event. ``raw``: none; UsageError when anything was received before its
    event, since a strategy would then see the future.
    """
    clock = Clock(mode, base_latency_ns, session_clocks(market, mode, base_latency_ns))
    refuse_future(market, clock)
    return clock


def session_clocks(market: Market, mode: str, base_latency_ns: int) -> tuple[SessionClock, ...]:
    """Return the clocks of a market's own sessions. UsageError: the mode is not known."""
    if mode not in (MAPPED, RAW):
        raise UsageError(f"clock {mode!r} is not known, expected {MAPPED} or {RAW}")
    return tuple(_session_clock(market, i, mode, base_latency_ns) for i in market.own_sessions)


def _session_clock(market: Market, index: int, mode: str, base_latency_ns: int) -> SessionClock:
    latencies = _latencies(market, index)
    # Measured `clock` events (a venue's time asked for over REST) will serve here, before the fallback.
    shift, source = shift_to(int(latencies.min()) if latencies.size else None, base_latency_ns)
    if mode == RAW:
        shift, source = 0, "raw: the recorder's own clock"
    return SessionClock(
        session=market.sessions[index],
        shift_ns=shift,
        source=source,
        timed=len(latencies),
        negative=int((latencies < 0).sum()),
        latencies=_summary(latencies + shift),
    )


def refuse_future(market: Market, clock: Clock) -> None:
    """Raise UsageError when, by a clock taken as it is, anything was received before its event."""
    negative = sum(session.negative for session in clock.sessions)
    if clock.mode == RAW and negative:
        timed = sum(session.timed for session in clock.sessions)
        worst = min(own.latencies.least for own in clock.sessions if own.latencies is not None)
        raise UsageError(
            f"clock raw is refused for {market.exchange} {market.symbol}: {negative} of {timed} messages, "
            f"trades and quotes were received before their event, the worst by {-worst / 1e6:.3f} ms, so a "
            f"strategy would see the future; use clock {MAPPED}"
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
    return Timekeeper().timeline(market, clock)


class Timekeeper:
    """Puts a recording on the exchange's clock some sessions at a time, as if it were put there whole."""

    def __init__(self) -> None:
        self._book: Book | None = None
        self._valid = False
        # The latest so far of what only ascends.
        self._acts = self._seen = self._quote_acts = self._quote_seen = NO_TIME

    def timeline(self, market: Market, clock: Clock) -> Timeline:
        """Put what follows on the clock; it acts no earlier than what came before. Trades stand alone."""
        received = clock.exchange_time(market, market.order, market.ts_recv)
        valid = self._proven(market)
        acts = self._acting(market, clock, received, valid)
        seen = _running_maximum(np.maximum(np.maximum(received, acts), self._seen))

        trades = market.trades
        trade_received = clock.exchange_time(market, trades.order, trades.ts_recv)
        trade_acts = happened(trades.ts_event, trade_received, clock.base_latency_ns)
        # By their event: trades asked for after a hole stand behind others that happened later.
        trade = np.argsort(trade_acts, kind="stable")
        quote_received = clock.exchange_time(market, market.quotes.order, market.quotes.ts_recv)
        quote_acts = _quoted(market, clock, quote_received, acts)
        quote_acts = np.maximum(quote_acts, self._quote_acts)
        quote_seen = _running_maximum(np.maximum(np.maximum(quote_received, quote_acts), self._quote_seen))
        self._acts, self._seen = _last(acts, self._acts), _last(seen, self._seen)
        self._quote_acts = _last(quote_acts, self._quote_acts)
        self._quote_seen = _last(quote_seen, self._quote_seen)
        return Timeline(
            acts=acts,
            seen=seen,
            trade=trade.astype(np.int64),
            trade_acts=trade_acts[trade],
            trade_seen=np.maximum(trade_received, trade_acts)[trade],
            quote_acts=quote_acts,
            quote_seen=quote_seen,
            valid=valid,
        )

    def _proven(self, market: Market) -> Flags:
        """Return whether the book is valid after each message; the ids alone say so, no book is built."""
        heads = market.columns._replace(start=np.zeros_like(market.columns.start))
        self._book = next_part(self._book, heads, market.chain)
        return prove(self._book, heads)[0]

    def _acting(self, market: Market, clock: Clock, received: Ints, valid: Flags) -> Ints:
        acts = happened(market.ts_event, received, clock.base_latency_ns)
        # A book asked for over REST describes a moment long before it came. It acts where it stands among
        # the messages, and must not hold up those behind it.
        acts[market.columns.kind == SPLICE] = NO_TIME
        # Nor is known when a hole began: a connection may have been silent long before it was found dead.
        before = np.concatenate(([self._valid], valid[:-1]))[: len(valid)]
        acts[before & ~valid] = NO_TIME
        self._valid = bool(_last(valid, self._valid))
        # The chain's order counts, so nothing acts before what precedes it.
        acts = _running_maximum(np.maximum(acts, self._acts))
        # What comes first in its session, when nothing is known yet, is as old as what follows it.
        known = np.flatnonzero(acts != NO_TIME)
        if known.size:
            session = market.session_of(market.order[: known[0] + 1])
            acts[: known[0]][session[:-1] == session[-1]] = acts[known[0]]
        return acts


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


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a recording lies on the exchange's clock, ns; None: nothing was recorded."""

    first: int | None = None
    """The first thing in it was seen."""
    last: int | None = None
    """The last thing in it happened."""
    begin: int | None = None
    """The first thing from where it is asked for on was seen."""

    @staticmethod
    def of(times: Timeline, start: int | None) -> Extent:
        """Return where events lie, of which those from ``start`` on are asked for."""
        happened = np.concatenate((times.acts, times.trade_acts))
        seen = np.concatenate((times.seen, times.trade_seen))
        happened, seen = happened[happened != NO_TIME], seen[seen != NO_TIME]
        asked = seen if start is None else seen[seen >= start]
        return Extent(
            int(seen.min()) if seen.size else None,
            int(happened.max()) if happened.size else None,
            int(asked.min()) if asked.size else None,
        )

    def joined(self, other: Extent) -> Extent:
        """Return where both lie."""
        return Extent(
            _of_both(min, self.first, other.first),
            _of_both(max, self.last, other.last),
            _of_both(min, self.begin, other.begin),
        )

    def within(self, market: Market, start: int | None, end: int | None) -> tuple[int, int]:
        """Return that part of ``[start, end)`` in which anything was recorded. UsageError: nothing was.

        A recording begins with the first thing seen at or after ``start``, not with the first that happened:
        OKX, when asked for trades, begins with one that may be old.
        """
        name = f"{market.exchange} {market.symbol}"
        if self.first is None or self.last is None:
            raise UsageError(f"{name}: the recording holds neither book messages nor trades")
        first, last = self.first, self.last + 1
        if first >= last:
            raise UsageError(
                f"{name}: the recording is too short to be traded on: the first thing in it was seen at "
                f"{iso(first)}, when the last had happened already, at {iso(self.last)}, by the exchange's "
                f"clock"
            )
        asked_from, until = first if start is None else start, last if end is None else min(end, last)
        begin = last if self.begin is None else self.begin
        if begin >= until:
            asked = f"{iso(asked_from)} and {iso(last if end is None else end)}"
            raise UsageError(
                f"{name}: nothing was recorded between {asked}; the recording holds {iso(first)} to "
                f"{iso(last)}, by the exchange's clock"
            )
        return begin, until


def _of_both(which: Callable[[int, int], int], one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else which(one, other)


@dataclass(frozen=True, slots=True)
class Validity:
    """When the book becomes valid and ceases to be: its first message, and each that changes it; (m,)."""

    acts: Ints
    """ns of the exchange's clock, ascending, as in `Timeline`."""
    seen: Ints
    valid: Flags

    @staticmethod
    def of(times: Timeline) -> Validity:
        """Return how the book's validity changes."""
        return Validity(times.acts, times.seen, times.valid)._changes()

    @staticmethod
    def joined(parts: Sequence[Validity]) -> Validity:
        """Return how it changes over parts that follow one another."""
        return Validity(
            np.concatenate([part.acts for part in parts]),
            np.concatenate([part.seen for part in parts]),
            np.concatenate([part.valid for part in parts]),
        )._changes()

    def _changes(self) -> Validity:
        changes = np.ones(len(self.valid), np.bool_)
        changes[1:] = self.valid[1:] != self.valid[:-1]
        return Validity(self.acts[changes], self.seen[changes], self.valid[changes])


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


def proof(times: Validity, begin: int, until: int) -> Proof:
    """Return where in ``[begin, until)`` the book was proven and the last message seen left a valid one."""
    edges = np.unique(np.clip(np.concatenate((times.acts, times.seen, [begin, until])), begin, until))
    starts = edges[:-1]
    # What acted last at or before an edge, and what was seen last.
    acted = np.searchsorted(times.acts, starts, side="right") - 1
    seen = np.searchsorted(times.seen, starts, side="right") - 1
    known = (acted >= 0) & (seen >= 0)
    return Proof(edges, known & times.valid[np.maximum(acted, 0)] & times.valid[np.maximum(seen, 0)])


_running_maximum: Callable[[Ints], Ints] = np.maximum.accumulate


def _last(values: NDArray[Any], before: Any) -> Any:
    return values[-1] if len(values) else before
