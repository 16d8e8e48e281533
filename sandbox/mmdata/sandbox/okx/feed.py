"""From what happens in a market to the frames of OKX.

Trades leave at once, the top of the book every 10 ms, diffs every 100 ms, each only if changed. The
book that the channel ``books`` speaks of is the best 400 levels a side *as of the last push*: a
snapshot for a newcomer is that book with that push's id, so that the next diff continues it.
"""

from __future__ import annotations

from itertools import groupby, islice
from typing import TYPE_CHECKING

from mmdata.sandbox.engine import LevelView
from mmdata.sandbox.okx.messages import BestBidOffer, Books, Trades, levels
from mmdata.sandbox.tape import Tape, TapeTrade
from mmdata.sandbox.wire import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmdata.sandbox.engine import Fill
    from mmdata.sandbox.market import Event, LiveMarket
    from mmdata.sandbox.wire import Message

WINDOW = 400
"""Levels a side that the channel ``books`` shows."""

_BOOKS_NS = 100 * NS_PER_MS
_BBO_NS = 10 * NS_PER_MS


class OkxFeed:
    """The channels of one instrument, and its trades as REST tells them.

    ``clock_ns``: by how much the venue's clock is wrong; it is in every stamp.
    """

    def __init__(self, market: LiveMarket, start_ns: int, heartbeat_s: float) -> None:
        self.market = market
        self.instrument = market.instrument
        self._bids = _Window(market.engine.bids())
        self._asks = _Window(market.engine.asks())
        self.last_id = market.engine.update_id
        self.clock_ns = 0
        self._books_due_ns = start_ns + _BOOKS_NS
        self._bbo_due_ns = start_ns + _BBO_NS
        self._heartbeat_ns = int(heartbeat_s * NS_PER_S)
        self._pushed_ns = start_ns
        self._bbo = self._best(start_ns)
        self.trades: Tape[TapeTrade] = Tape()

    def observe(self, event: Event, now_ns: int) -> list[Message]:
        """Return what leaves at once for one event: its trades."""
        ts_event, outcome = event
        for change in outcome.changes:
            (self._bids if change.side == "bid" else self._asks).touched.add(change.px_ticks)
        messages: list[Message] = []
        if not outcome.fills:  # of ten events nine
            return messages
        for px_ticks, group in groupby(outcome.fills, key=lambda fill: fill.px_ticks):
            fills = list(group)
            told_ns = ts_event + self.clock_ns
            self._remember(fills, told_ns)
            messages.append(
                Trades(
                    self.instrument,
                    told_ns,
                    fills[-1].trade_id,
                    px_ticks,
                    sum(fill.qty_lots for fill in fills),
                    fills[0].taker,
                    len(fills),
                    outcome.changes[-1].update_id,
                )
            )
        return messages

    def flush(self, now_ns: int) -> Iterator[Message]:
        """Yield what is due, in the order that the venue promises: bbo-tbt before books."""
        if now_ns >= self._bbo_due_ns:
            self._bbo_due_ns = _next_due(self._bbo_due_ns, _BBO_NS, now_ns)
            best = self._best(self.market.ts_last_event)
            if (best.ask, best.bid) != (self._bbo.ask, self._bbo.bid):
                self._bbo = best
                yield best
        if now_ns >= self._books_due_ns:
            self._books_due_ns = _next_due(self._books_due_ns, _BOOKS_NS, now_ns)
            books = self._push(now_ns)
            if books is not None:
                yield books

    def greet(self, channel: str, now_ns: int) -> list[Message]:
        """Return what a connection gets that has just subscribed to a channel."""
        if channel == "books":
            bids, asks = self._bids.published(reverse=True), self._asks.published()
            told_ns = now_ns + self.clock_ns
            return [Books(self.instrument, "snapshot", told_ns, asks, bids, self.last_id, -1)]
        if channel == "bbo-tbt":
            return [self._best(self.market.ts_last_event)]
        return []

    def depth(self, limit: int, now_ns: int) -> str:
        """Return the data of a REST answer: the book of the last push, so that ids can be compared.

        The venue's REST nodes answer from a cache too (some 50 ms old, by the documents).
        """
        bids = levels(self.instrument, self._bids.published(reverse=True)[:limit])
        asks = levels(self.instrument, self._asks.published()[:limit])
        ts = f'"ts":"{(now_ns + self.clock_ns) // NS_PER_MS}","seqId":{self.last_id}'
        return f'[{{"asks":{asks},"bids":{bids},{ts}}}]'

    def reset_ids(self, by: int) -> None:
        """Let ``seqId`` go down as in maintenance: the next diff still names the last one before."""
        self.market.engine.rewind_ids(by, 0)

    def _remember(self, fills: list[Fill], ts_event: int) -> None:
        price, size = self.instrument.price(fills[0].px_ticks), self.instrument.size
        for fill in fills:
            self.trades.add(TapeTrade(fill.trade_id, ts_event, price, size(fill.qty_lots), fill.taker))

    def _push(self, now_ns: int) -> Books | None:
        engine = self.market.engine
        bids = self._bids.publish(engine.bids(), descending=True)
        asks = self._asks.publish(engine.asks())
        previous = self.last_id
        if bids or asks:
            self.last_id = engine.update_id
        elif now_ns - self._pushed_ns < self._heartbeat_ns:
            return None
        self._pushed_ns = now_ns
        told_ns = now_ns + self.clock_ns
        return Books(self.instrument, "update", told_ns, asks, bids, self.last_id, previous)

    def _best(self, ts_event: int) -> BestBidOffer:
        engine = self.market.engine
        ask, bid = list(islice(engine.asks(), 1)), list(islice(engine.bids(), 1))
        return BestBidOffer(self.instrument, ts_event + self.clock_ns, ask, bid, engine.update_id)


class _Window:
    """One side of the book as last pushed, and which prices were ``touched`` since."""

    def __init__(self, views: Iterator[LevelView]) -> None:
        self._published = {view.px_ticks: view for view in islice(views, WINDOW)}
        self.touched: set[int] = set()

    def published(self, *, reverse: bool = False) -> list[LevelView]:
        """Return the levels as last pushed, sorted by price."""
        return [self._published[px] for px in sorted(self._published, reverse=reverse)]

    def publish(self, views: Iterator[LevelView], *, descending: bool = False) -> list[LevelView]:
        """Take the book as it is for pushed, and return the levels that say what is new.

        A level that changed and changed back is said again; one that came and went within the
        interval is deleted though nobody has it, as the venue does (953 times in 10.8 s of 2022).
        A level that left the best 400 is deleted, one that entered is told whole.
        """
        if not self.touched:  # half the pushes of a calm market
            return []
        window = {view.px_ticks: view for view in islice(views, WINDOW)}
        before = self._published
        told = {px for px in self.touched if px in window or px in before}
        told |= window.keys() ^ before.keys()
        if len(window) < WINDOW:  # nothing is hidden: every touched price lies inside
            told |= self.touched
        self._published = window
        self.touched.clear()
        gone = LevelView(0, 0, 0)
        return [window.get(px, gone._replace(px_ticks=px)) for px in sorted(told, reverse=descending)]


def _next_due(due_ns: int, interval_ns: int, now_ns: int) -> int:
    """Return the next end of an interval after now; a late pass skips those that it missed."""
    return due_ns + interval_ns * (1 + (now_ns - due_ns) // interval_ns)
