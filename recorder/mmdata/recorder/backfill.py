"""Trades that the stream did not bring, asked for over REST by id and marked as such."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from mmdata.datasets.errors import VenueError
from mmdata.recorder.ask import Asker
from mmdata.recorder.capture import Event
from mmdata.recorder.records import Trade
from mmdata.recorder.venues import HISTORIES, History
from mmdata.recorder.venues.stream import TRADES

_log = logging.getLogger(__name__)

_LARGEST = 100_000
"""Trades of one hole that are asked for; what is larger stays a hole."""
_TRIES = 5
_MOST_PAGES_WITHOUT = 3
"""A page that brings nothing new is asked for again so often: the venue's history lags its stream."""
_AGAIN_AFTER_S = 2.0


class Hole(NamedTuple):
    """Trades that are missing: their ids, first and last."""

    symbol: str
    kind: str
    first_id: int
    last_id: int

    def without(self, page: Sequence[Trade], *, oldest_first: bool) -> Hole | None:
        """Return what is missing still after a page of the history; None: nothing that there is.

        >>> Hole("BTCUSDT", "agg", 5, 9).without([], oldest_first=True)
        Hole(symbol='BTCUSDT', kind='agg', first_id=5, last_id=9)
        """
        ids = [trade.trade_id for trade in page]
        if not ids:
            return self
        if oldest_first:
            rest = self._replace(first_id=max(max(ids) + 1, self.first_id))
        else:
            rest = self._replace(last_id=min(min(ids) - 1, self.last_id))
        return rest if rest.first_id <= rest.last_id else None


async def fill(hole: Hole, exchange: str, asker: Asker) -> tuple[int, Event]:
    """Ask for the trades of a hole; return how many came, and the event that says so.

    The answers are captured by ``asker``, and ingest makes rows of them. A hole that is too large, or
    that the venue does not fill, stays on record as it is.
    """
    history = HISTORIES[exchange]
    found: set[int] = set()
    size = hole.last_id - hole.first_id + 1
    problem = f"more than {_LARGEST} trades are not asked for" if size > _LARGEST else ""
    rest: Hole | None = None if problem else hole
    barren = 0
    while rest is not None:
        try:
            page = await _page(rest, hole, history, asker)
        except VenueError as error:
            problem = str(error)
            break
        fresh = {trade.trade_id for trade in page if hole.first_id <= trade.trade_id <= hole.last_id} - found
        found |= fresh
        barren = 0 if fresh else barren + 1
        if barren == _MOST_PAGES_WITHOUT:
            problem = "the venue has no more of them"
            break
        if not fresh:
            await asyncio.sleep(_AGAIN_AFTER_S)
            continue
        rest = rest.without(page, oldest_first=history.OLDEST_FIRST)
    detail = {"by": "rest", "kind": hole.kind, "missing": size, "filled": len(found)}
    if problem:
        _log.warning("%s: %d of %d missing trades stay so: %s", hole.symbol, size - len(found), size, problem)
        detail["problem"] = problem
    event = Event("backfill", channel=TRADES, symbol=hole.symbol, detail=detail)
    event.last_id, event.next_id = hole.first_id - 1, hole.last_id + 1
    return len(found), event


async def _page(rest: Hole, hole: Hole, history: History, asker: Asker) -> list[Trade]:
    request = history.request(*rest)._replace(span=(hole.kind, hole.first_id, hole.last_id))
    page, _, _ = await asker.ask(
        request,
        lambda body: history.decode(body, hole.symbol, hole.kind),
        symbol=hole.symbol,
        reason="gap",
        tries=_TRIES,
    )
    return page
