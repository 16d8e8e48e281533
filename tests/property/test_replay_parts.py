"""A recording handed on a session at a time is the same as the whole, whatever its sessions are like."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any
from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.datasets._kernel import SESSION, SPLICE
from mmdata.datasets.chain import CHAINS
from mmdata.datasets.errors import UsageError
from mmdata.datasets.market import NO_TIME, Market, cut_columns
from mmdata.replay import simulator
from mmdata.replay.fills import MODELS
from mmdata.replay.result import Result
from mmdata.replay.settings import parse_settings
from mmdata.replay.simulator import run_sets
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.strategies import find_strategy
from mmdata.replay.stream import BookEvent, Event, IntervalEvent, TradeEvent, events, tops_of

MS = 1_000_000
SESSION_MS = 700
STRATEGY = find_strategy("avellaneda-stoikov")
SETTINGS: dict[str, object] = {"gamma": 0.01, "order_latency": "3ms", "interval": "20ms"}
ESTIMATED = {"A": 5, "k": 0.7, "sigma": 2, "order_size": 2}


@dataclass(frozen=True)
class Case:
    """A random recording of some sessions."""

    seed: int
    sessions: int
    goes_on: bool
    """The book of a session continues that of the one before."""
    lag: int
    """How far trades told when a session begins reach back, ms."""
    quoted: bool
    untimed: bool
    """Quotes carry no time, as those of Binance spot."""
    bare: tuple[int, ...]
    """Sessions that hold a book asked for over REST and no more."""

    def market(self) -> Market:
        """Return the recording, whole."""
        rng = np.random.default_rng(self.seed)
        sketch, bid = Sketch(), 1000
        for session in range(self.sessions):
            if session:
                sketch.session()
            shift = int(rng.integers(-300, 300))
            begin = session * (SESSION_MS + int(rng.integers(0, 60)))
            for back in sorted(rng.integers(0, self.lag + 1, 3).tolist(), reverse=True):
                sketch.trade(begin - back, "buy", bid + 2, 2, shift + back + 2)
            if session in self.bare:
                sketch.book(begin + 10, {bid: 3}, {bid + 2: 3}, shift)
                continue
            for at in range(begin, begin + SESSION_MS, 10):
                draws = rng.integers(0, 1 << 30, 12)
                latency = shift + 1 + int(draws[0] % 7)
                if draws[1] % 4 == 0:
                    bid += int(draws[2] % 5) - 2
                if at == 0 or draws[3] % 20 == 0 or (at == begin and not self.goes_on):
                    sketch.book(
                        at, {bid - i: 1 + i for i in range(3)}, {bid + 2 + i: 2 for i in range(3)}, latency
                    )
                elif draws[3] % 40 == 1:
                    sketch.gap(at)
                else:
                    sketch.diff(at, {bid - int(draws[4] % 3): int(draws[5] % 9)}, {bid + 2: 3}, latency)
                if draws[10] % 2:
                    taker, price = ("buy", bid + 2) if draws[11] % 2 else ("sell", bid)
                    beyond = int(draws[9] % 3) * (1 if taker == "buy" else -1)
                    sketch.trade(at + 4, taker, price + beyond, 1 + int(draws[8] % 9), latency)
                if self.quoted and draws[7] % 3:
                    sketch.quote(at + 6, (bid, 1 + int(draws[4] % 20)), (bid + 2, 3), latency)
        return self._finished(sketch.market())

    def _finished(self, market: Market) -> Market:
        columns = market.columns
        if self.goes_on:  # a session's mark takes no id of the venue's
            after = np.flatnonzero(columns.kind[:-1] == SESSION) + 1
            columns.prev_id[after] -= 1
        session = market.session_of(market.order)
        columns.kind[np.isin(session, self.bare) & (columns.kind != SESSION)] = SPLICE
        market.ts_event[columns.kind == SPLICE] = NO_TIME
        market.trades.backfilled[:] = market.trades.ts_recv - market.trades.ts_event > 400 * MS
        if self.untimed:
            market.quotes.ts_event[:] = NO_TIME
            market = replace(market, chain=CHAINS["binance"])
            columns.first_id[:] = columns.last_id
        return market


cases = st.builds(
    Case,
    seed=st.integers(0, 2**32),
    sessions=st.integers(1, 5),
    goes_on=st.booleans(),
    lag=st.sampled_from([0, 30, 900, 5000]),
    quoted=st.booleans(),
    untimed=st.booleans(),
    bare=st.lists(st.integers(0, 4), max_size=2).map(tuple),
)


def in_parts(market: Market) -> list[Market]:
    """Return a recording's sessions, each as it is loaded alone."""
    parts = []
    for session in range(len(market.sessions)):
        first, last = np.searchsorted(market.session_of(market.order), (session, session + 1)).tolist()
        arrivals: dict[str, Any] = {}
        for name in ("trades", "quotes", "trade_holes"):
            own = getattr(market, name)
            kept = market.session_of(own.order) == session
            arrivals[name] = type(own)(**{f.name: getattr(own, f.name)[kept] for f in fields(own)})
        parts.append(
            replace(
                market,
                alone=session,
                columns=cut_columns(market.columns, first, last),
                order=market.order[first:last],
                ts_recv=market.ts_recv[first:last],
                ts_event=market.ts_event[first:last],
                **arrivals,
            )
        )
    return parts


def told(parts: list[Market], **how: Any) -> list[object] | str:
    """Return all that is known of a simulation, or why there is none."""
    try:
        results: tuple[Result, ...] = run_sets(
            parts, strategy=STRATEGY, models=tuple(MODELS), seed=3, log=True, **how
        )
    except UsageError as error:
        return str(error)
    return [
        [result.to_json_dict(), [[m.columns.fill.tolist(), m.columns.log.tolist()] for m in result.models]]
        for result in results
    ] + [results[0].models[0].columns.decision.tolist()]


@settings(max_examples=60, deadline=None)
@given(
    cases, st.booleans(), st.none() | st.integers(0, 2000), st.none() | st.integers(500, 3500), st.booleans()
)
def test_simulated_in_parts_it_is_the_same_as_whole(
    case: Case, estimates: bool, start: int | None, end: int | None, feeds: bool
) -> None:
    market = case.market()
    chosen = SETTINGS | ({} if estimates else ESTIMATED) | ({"response_latency": "feed"} if feeds else {})
    how: dict[str, Any] = {
        "sets": [(parse_settings(chosen), {}), (parse_settings(chosen | {"gamma": 0.1}), {})],
        "start": None if start is None else EPOCH + start * MS,
        "end": None if end is None else EPOCH + end * MS,
        "signals": (EPOCH + np.arange(0, 3000, 50) * MS, np.arange(60.0)),
    }
    # Half of the time, so that it takes more than a session.
    with patch.object(simulator, "_CALIBRATION_SHARE", 2):
        assert told(in_parts(market), **how) == told([market], **how)


def plain(event: Event) -> list[object]:
    """Return what an event says, and the book it shows."""
    book = event.book
    seen: list[object] = [event.ts_recv, book.valid, book.id, book.bids(3), book.asks(3)]
    if isinstance(event, IntervalEvent):
        return [*seen, [(t.ts_recv, t.trade_id, t.price, t.size) for t in event.trades]]
    if isinstance(event, TradeEvent):
        return [*seen, event.trade_id, event.side, event.price, event.size]
    assert isinstance(event, BookEvent)
    return [*seen, event.kind, event.ts_event]


@settings(max_examples=60, deadline=None)
@given(cases, st.none() | st.integers(0, 2000), st.sampled_from([0, 37]))
def test_streamed_in_parts_it_is_the_same_as_whole(case: Case, begin: int | None, every: int) -> None:
    market, first = case.market(), None if begin is None else EPOCH + begin * MS
    streams = [events([parts], first, every=every * MS) for parts in (in_parts(market), [market])]
    one, other = ([plain(event) for event in stream] for stream in streams)
    assert one == other
    assert tops_of(in_parts(market), first).equals(tops_of([market], first))
