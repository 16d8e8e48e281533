"""The sandbox's own markets of one venue: time goes in, messages come out, the truth is told."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Protocol

from mmdata.sandbox.binance.feed import BinanceFeed
from mmdata.sandbox.binance.rest import symbol_row
from mmdata.sandbox.okx.feed import WINDOW, OkxFeed
from mmdata.sandbox.okx.rest import instrument_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mmdata.sandbox.instruments import Instrument
    from mmdata.sandbox.market import Event, LiveMarket
    from mmdata.sandbox.tape import Tape, TapeAggregate, TapeTrade
    from mmdata.sandbox.truth import TruthWriter
    from mmdata.sandbox.wire import Message


_ARREARS_NS = 1_000_000_000
"""Market time that is made up for at most. What an overloaded machine loses beyond is lost to the
market, which then runs slower: one that tried to catch up would leave its readers no time at all."""

_SLICE_NS = 100_000_000
"""Market time that one pass plays at most, so that arrears are made up for in bites and the sockets
have their turn in between."""


class _Feed(Protocol):
    market: LiveMarket
    instrument: Instrument

    clock_ns: int

    @property
    def last_id(self) -> int: ...
    def reset_ids(self, by: int) -> None: ...
    def observe(self, event: Event, now_ns: int) -> list[Message]: ...
    def flush(self, now_ns: int) -> Iterator[Message]: ...


class _LiveMarkets:
    """The markets of a venue; ``levels`` is how much of the book its feed speaks of, None for all."""

    def __init__(
        self,
        feeds: Sequence[_Feed],
        truth: TruthWriter | None,
        start_ns: int,
        levels: int | None = None,
    ) -> None:
        self._feeds = feeds
        self._truth = truth
        self._levels = levels
        self._reached_ns = start_ns
        if truth is not None:
            for feed in feeds:
                # By id is by age: the oldest order at each price comes first.
                truth.opening(feed.instrument, feed.market.engine.orders.values(), start_ns)
                self._tell_book(truth, feed, start_ns)

    def due(self, now_ns: int) -> Iterator[Message]:
        """Play what is due, and yield its messages in the order in which they leave.

        A venue that is behind says the time that its markets have reached, not the wall's.
        """
        late_ns = max(now_ns - self._reached_ns - _ARREARS_NS, 0)
        now_ns = self._reached_ns = min(now_ns, self._reached_ns + late_ns + _SLICE_NS)
        for feed in self._feeds:
            if late_ns > 0:
                feed.market.postpone(late_ns)
            events: list[Event] = []
            messages: list[Message] = []
            for event in feed.market.advance(now_ns):
                events.append(event)
                messages += feed.observe(event, now_ns)
            if self._truth is not None:
                self._truth.orders(feed.instrument, events)
            yield from messages
            for message in feed.flush(now_ns):
                if self._truth is not None and message.book_ids is not None:
                    self._tell_book(self._truth, feed, now_ns)
                yield message

    def step_clock(self, by_ns: int) -> None:
        """Let the venue's clock jump; the markets themselves go on as they did."""
        for feed in self._feeds:
            feed.clock_ns += by_ns

    def reset_ids(self, symbol: str | None, by: int) -> None:
        """Let the ids of a symbol (None: of all) go down; of none when there is no such symbol."""
        for feed in self._feeds:
            if symbol in (None, feed.instrument.symbol):
                feed.reset_ids(by)

    def _tell_book(self, truth: TruthWriter, feed: _Feed, now_ns: int) -> None:
        engine = feed.market.engine
        bids = islice(engine.bids(), self._levels)
        asks = islice(engine.asks(), self._levels)
        truth.book(feed.instrument, feed.last_id, bids, asks, now_ns)


class LiveBinance(_LiveMarkets):
    """Binance spot on own markets."""

    def __init__(self, markets: Sequence[LiveMarket], truth: TruthWriter | None, start_ns: int) -> None:
        feeds = [BinanceFeed(market, start_ns) for market in markets]
        super().__init__(feeds, truth, start_ns)
        self._by_symbol = {feed.instrument.symbol: feed for feed in feeds}
        self._rows = {feed.instrument.symbol: symbol_row(feed.instrument) for feed in feeds}

    @property
    def offered(self) -> frozenset[str]:
        """Not asked for: Binance takes any name of a stream."""
        return frozenset()

    def greet(self, key: str, now_ns: int) -> list[Message]:
        """Return nothing: the book's start comes from REST."""
        return []

    def symbol_rows(self) -> Mapping[str, str]:
        """Return symbol -> its JSON object in exchangeInfo."""
        return self._rows

    def depth(self, symbol: str, limit: int) -> str | None:
        """Return the body of a depth answer."""
        return self._by_symbol[symbol].depth(limit)

    def trades(self, symbol: str) -> Tape[TapeTrade]:
        """Return what the symbol traded."""
        return self._by_symbol[symbol].trades

    def aggregates(self, symbol: str) -> Tape[TapeAggregate]:
        """Return what the symbol traded, aggregated."""
        return self._by_symbol[symbol].aggregates


class LiveOkx(_LiveMarkets):
    """OKX on own markets."""

    def __init__(
        self,
        markets: Sequence[LiveMarket],
        truth: TruthWriter | None,
        start_ns: int,
        heartbeat_s: float,
    ) -> None:
        feeds = [OkxFeed(market, start_ns, heartbeat_s) for market in markets]
        super().__init__(feeds, truth, start_ns, WINDOW)
        self._by_id = {feed.instrument.symbol: feed for feed in feeds}
        self._rows = {
            feed.instrument.symbol: instrument_row(feed.instrument, code)
            for code, feed in enumerate(feeds, 10458)
        }

    @property
    def offered(self) -> frozenset[str]:
        """The subscriptions that there are."""
        channels = ("books", "trades", "bbo-tbt")
        return frozenset(f"{channel}:{inst_id}" for channel in channels for inst_id in self._by_id)

    def greet(self, key: str, now_ns: int) -> list[Message]:
        """Return what a connection gets that has just subscribed."""
        channel, _, inst_id = key.partition(":")
        return self._by_id[inst_id].greet(channel, self._reached_ns)

    def instrument_rows(self) -> Mapping[str, str]:
        """Return instrument id -> its JSON object in the instruments answer."""
        return self._rows

    def depth_data(self, inst_id: str, size: int, now_ns: int) -> str | None:
        """Return the ``data`` array of a books answer."""
        return self._by_id[inst_id].depth(size, self._reached_ns)

    def trades(self, inst_id: str) -> Tape[TapeTrade]:
        """Return what the instrument traded."""
        return self._by_id[inst_id].trades
