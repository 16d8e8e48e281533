"""From what happens in a market to the frames of Binance spot.

Trades, aggregated trades and the best bid-offer leave at once; diffs are conflated per interval,
100 ms and 1000 ms, each a chain of its own: ``U`` is always the stream's last ``u`` + 1.
"""

from __future__ import annotations

from itertools import groupby, islice
from typing import TYPE_CHECKING

from mmdata.sandbox.binance.messages import AggTrade, BookTicker, DepthUpdate, Trade, levels
from mmdata.sandbox.engine import LevelView
from mmdata.sandbox.tape import Tape, TapeAggregate, TapeTrade
from mmdata.sandbox.wire import NS_PER_MS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mmdata.sandbox.engine import Fill
    from mmdata.sandbox.market import Event, LiveMarket
    from mmdata.sandbox.wire import Message

_EMPTY = LevelView(0, 0, 0)

# Suffix of the stream's name, and the interval.
_INTERVALS = (("depth@100ms", 100 * NS_PER_MS), ("depth", 1000 * NS_PER_MS))


class BinanceFeed:
    """The streams of one symbol, and its trades as REST tells them.

    ``clock_ns``: by how much the venue's clock is wrong; it is in every stamp.
    """

    def __init__(self, market: LiveMarket, start_ns: int) -> None:
        self.market = market
        self.instrument = market.instrument
        engine = market.engine
        self._touch = (engine.top("bid") or _EMPTY, engine.top("ask") or _EMPTY)
        self.clock_ns = 0
        self._last_agg_id = self.instrument.first_trade_id // 2
        self.trades: Tape[TapeTrade] = Tape()
        self.aggregates: Tape[TapeAggregate] = Tape()
        prefix = self.instrument.symbol.lower()
        self._diffs = [
            _Conflation(market, f"{prefix}@{suffix}", interval_ns, start_ns)
            for suffix, interval_ns in _INTERVALS
        ]

    @property
    def last_id(self) -> int:
        """The id of the book as it is now."""
        return self.market.engine.update_id

    def observe(self, event: Event, now_ns: int) -> list[Message]:
        """Return what leaves at once for one event: trades, then the new best bid-offer."""
        ts_event, outcome = event
        messages: list[Message] = []
        if outcome.fills:  # of ten events nine have none
            told_ns, sent_ns = ts_event + self.clock_ns, now_ns + self.clock_ns
            for px_ticks, fills in groupby(outcome.fills, key=lambda fill: fill.px_ticks):
                messages += self._trades(list(fills), px_ticks, told_ns, sent_ns)
        bid, ask = self._touch
        at_touch = False
        for change in outcome.changes:
            px_ticks = change.px_ticks
            if change.side == "bid":
                at_touch = at_touch or px_ticks >= bid.px_ticks
                for diff in self._diffs:
                    diff.bids.add(px_ticks)
            else:
                at_touch = at_touch or px_ticks <= ask.px_ticks or not ask.px_ticks
                for diff in self._diffs:
                    diff.asks.add(px_ticks)
        if at_touch:
            messages += self._ticker()
        return messages

    def flush(self, now_ns: int) -> Iterator[Message]:
        """Yield the diffs whose interval has ended, if anything changed in it."""
        for diff in self._diffs:
            message = diff.flush(now_ns)
            if message is not None:
                yield message._replace(ts_sent=now_ns + self.clock_ns) if self.clock_ns else message

    def reset_ids(self, by: int) -> None:
        """Let all ids go down and history be forgotten, as on the testnet: no diff continues the last."""
        self.market.engine.rewind_ids(by, by)
        self._last_agg_id -= by
        for diff in self._diffs:
            diff.rewind(by)
        self.trades.clear()
        self.aggregates.clear()

    def depth(self, limit: int) -> str:
        """Return the body of a REST answer: the book as it is now, best ``limit`` levels a side."""
        engine = self.market.engine
        bids = levels(self.instrument, islice(engine.bids(), limit))
        asks = levels(self.instrument, islice(engine.asks(), limit))
        return f'{{"lastUpdateId":{engine.update_id},"bids":{bids},"asks":{asks}}}'

    def _trades(self, fills: list[Fill], px_ticks: int, ts_event: int, now_ns: int) -> list[Message]:
        buyer_is_maker = fills[0].taker == "sell"
        messages: list[Message] = [
            Trade(
                self.instrument,
                now_ns,
                ts_event,
                fill.trade_id,
                px_ticks,
                fill.qty_lots,
                buyer_is_maker,
            )
            for fill in fills
        ]
        self._last_agg_id += 1
        aggregate = AggTrade(
            self.instrument,
            now_ns,
            ts_event,
            self._last_agg_id,
            fills[0].trade_id,
            fills[-1].trade_id,
            px_ticks,
            sum(fill.qty_lots for fill in fills),
            buyer_is_maker,
        )
        self._remember(fills, aggregate)
        return [*messages, aggregate]

    def _remember(self, fills: list[Fill], aggregate: AggTrade) -> None:
        taker, ts_event = fills[0].taker, aggregate.ts_event
        price, size = self.instrument.price(aggregate.px_ticks), self.instrument.size
        for fill in fills:
            self.trades.add(TapeTrade(fill.trade_id, ts_event, price, size(fill.qty_lots), taker))
        self.aggregates.add(
            TapeAggregate(
                aggregate.agg_id,
                ts_event,
                price,
                size(aggregate.qty_lots),
                taker,
                aggregate.first_trade_id,
                aggregate.last_trade_id,
            )
        )

    def _ticker(self) -> list[Message]:
        engine = self.market.engine
        touch = (engine.top("bid") or _EMPTY, engine.top("ask") or _EMPTY)
        if touch == self._touch:
            return []
        self._touch = touch
        return [BookTicker(self.instrument, engine.update_id, *touch)]


class _Conflation:
    """Which levels changed since the last message of one diff stream: ``bids`` and ``asks``, in ticks."""

    def __init__(self, market: LiveMarket, stream: str, interval_ns: int, start_ns: int) -> None:
        self._market = market
        self._stream = stream
        self._interval_ns = interval_ns
        self._due_ns = start_ns + interval_ns
        self._sent_id = market.engine.update_id
        self.bids: set[int] = set()
        self.asks: set[int] = set()

    def rewind(self, by: int) -> None:
        self._sent_id -= by

    def flush(self, now_ns: int) -> DepthUpdate | None:
        if now_ns < self._due_ns:
            return None
        # A late pass sends one message for all the intervals that it missed.
        self._due_ns += self._interval_ns * (1 + (now_ns - self._due_ns) // self._interval_ns)
        engine = self._market.engine
        if engine.update_id == self._sent_id:
            return None
        update = DepthUpdate(
            self._market.instrument,
            self._stream,
            now_ns,
            self._sent_id + 1,
            engine.update_id,
            [engine.at("bid", px) for px in sorted(self.bids, reverse=True)],
            [engine.at("ask", px) for px in sorted(self.asks)],
        )
        self._sent_id = engine.update_id
        self.bids.clear()
        self.asks.clear()
        return update
