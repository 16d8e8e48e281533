"""What a recording must be to be replayed as one: sessions that follow each other, one tick and one lot."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.errors import UsageError
from mmdata.datasets.grid import LOT, TICK, Instrument, Step, in_force
from mmdata.datasets.market import NO_TIME, Market
from mmdata.datasets.spans import Span, refuse_two_at_once
from mmdata.datasets.times import iso
from mmdata.replay.clock import Clock

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Steps:
    """The tick and lot that orders have to keep, which may be coarser than the units of a recording."""

    tick_size: Decimal
    tick_source: str
    lot_size: Decimal
    lot_source: str


@dataclass(frozen=True, slots=True)
class Received:
    """When a session received; None: it received nothing then."""

    session: int
    whole: Span | None
    asked: Span | None
    """Within what is asked for."""


def received(
    market: Market, clock: Clock, start: int | None, end: int | None, *, by_event: bool
) -> tuple[Received, ...]:
    """Return when a market's own sessions received, all in all and within ``[start, end)``.

    ``start`` and ``end`` are of the exchange's clock with ``by_event``, of the recorder's without.
    """
    found = []
    for session in market.own_sessions:
        raw = np.concatenate(
            [
                told.ts_recv[(market.session_of(told.order) == session) & (told.ts_recv != NO_TIME)]
                for told in (market, market.trades, market.quotes)
            ]
        )
        shift = clock.sessions[session].shift_ns
        within = raw + shift if by_event else raw
        asked = np.ones(len(raw), np.bool_) if start is None else within >= start
        asked &= True if end is None else within < end
        name = market.sessions[session]
        found.append(Received(session, _span(name, raw, shift), _span(name, raw[asked], shift)))
    return tuple(found)


def _span(session: str, raw: Ints, shift_ns: int) -> Span | None:
    if not raw.size:
        return None
    first, last = int(raw.min()), int(raw.max())
    return Span(session, first + shift_ns, last + shift_ns, first, last)


def refuse_overlap(market: Market, sessions: Sequence[Received]) -> None:
    """Raise UsageError when two sessions ran at the same time within what is asked for."""
    refuse_two_at_once(
        f"{market.exchange} {market.symbol}",
        [own.asked for own in sessions if own.asked is not None],
        "a replay",
        "choose a time in which one ran alone by --from and --to, or import all sources as one stream into "
        "a dataset of its own",
    )


def order_steps(market: Market, clock: Clock, sessions: Sequence[Received], begin: int, until: int) -> Steps:
    """Return tick and lot in force in ``[begin, until)``, by the exchange's clock.

    UsageError: one of them changed in between; orders can keep only one.
    """
    told = _in_force(market, clock, sessions, begin, until)
    tick, lot = (_only(market, of, told) for of in (TICK, LOT))
    return Steps(
        tick.tick_size if tick else market.tick_size,
        tick.source if tick else market.tick_source,
        lot.lot_size if lot else market.lot_size,
        lot.source if lot else market.lot_source,
    )


def _in_force(
    market: Market, clock: Clock, sessions: Sequence[Received], begin: int, until: int
) -> list[tuple[int, Instrument]]:
    """Return what was in force, with the moment from which it was known.

    What a session was told first holds from its beginning; one that was told nothing goes on with what
    was known before it.
    """
    found: list[tuple[int, Instrument]] = []
    rows = [(row.ts_recv + clock.sessions[row.session].shift_ns, row) for row in in_force(market.instruments)]
    for session in sessions:
        if session.whole is None or session.whole.last < begin or session.whole.first >= until:
            continue
        own = [(at, row) for at, row in rows if row.session == session.session]
        own = own or [(at, row) for at, row in rows if row.session < session.session][-1:]
        known = [at <= begin for at, _ in own]
        found += [pair for pair in own[max(sum(known) - 1, 0) :] if pair[0] < until or pair is own[0]]
    return found


def _only(market: Market, of: Step, told: list[tuple[int, Instrument]]) -> Instrument | None:
    for (_, before), (at, after) in itertools.pairwise(told):
        if before.step(of) != after.step(of):
            was, now = (f"{row.step(of).normalize():f} ({row.source})" for row in (before, after))
            raise UsageError(
                f"{market.exchange} {market.symbol}: the {of} changed from {was} to {now}, told at {iso(at)} "
                f"by the exchange's clock, and orders keep one grid: end the simulation before it by --to, "
                f"or begin it after by --from"
            )
    return told[-1][1] if told else None
