"""Frames of Binance spot: key order, types and number format as in the captures of 2024.

Source: binance-spot-api-docs ``web-socket-streams.md`` (July 2026) and captured frames.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mmdata.sandbox.wire import NS_PER_MS, Style, rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmdata.sandbox.engine import LevelView
    from mmdata.sandbox.instruments import Instrument


def stamp(ts_ns: int, micro: bool) -> int:
    """Return a time in the unit that the connection asked for."""
    return ts_ns // 1000 if micro else ts_ns // NS_PER_MS


def levels(instrument: Instrument, views: Iterable[LevelView]) -> str:
    """Return levels as ``[["price","size"],...]``."""
    return rows(f'["{instrument.price(view.px_ticks)}","{instrument.size(view.qty_lots)}"]' for view in views)


def wrap(stream: str, payload: str, style: Style) -> str:
    """Return the payload as /stream sends it, or bare as /ws does."""
    return f'{{"stream":"{stream}","data":{payload}}}' if style.combined else payload


class DepthUpdate(NamedTuple):
    """Levels changed since the stream's last message; sizes absolute, 0 removes."""

    instrument: Instrument
    stream: str
    ts_sent: int
    first_id: int
    last_id: int
    bids: list[LevelView]
    asks: list[LevelView]

    @property
    def key(self) -> str:
        """The subscription that gets it."""
        return self.stream

    @property
    def book_ids(self) -> tuple[int, int]:
        """``U`` and ``u``."""
        return self.first_id, self.last_id

    def render(self, style: Style) -> str:
        """Return the text of the frame."""
        payload = (
            f'{{"e":"depthUpdate","E":{stamp(self.ts_sent, style.micro)},'
            f'"s":"{self.instrument.symbol}","U":{self.first_id},"u":{self.last_id},'
            f'"b":{levels(self.instrument, self.bids)},"a":{levels(self.instrument, self.asks)}}}'
        )
        return wrap(self.stream, payload, style)


class Trade(NamedTuple):
    """One fill."""

    instrument: Instrument
    ts_sent: int
    ts_event: int
    trade_id: int
    px_ticks: int
    qty_lots: int
    buyer_is_maker: bool

    @property
    def key(self) -> str:
        """The subscription that gets it."""
        return f"{self.instrument.symbol.lower()}@trade"

    @property
    def book_ids(self) -> None:
        """No book message."""
        return

    def render(self, style: Style) -> str:
        """Return the text of the frame."""
        payload = (
            f'{{"e":"trade","E":{stamp(self.ts_sent, style.micro)},"s":"{self.instrument.symbol}",'
            f'"t":{self.trade_id},"p":"{self.instrument.price(self.px_ticks)}",'
            f'"q":"{self.instrument.size(self.qty_lots)}","T":{stamp(self.ts_event, style.micro)},'
            f'"m":{_bool(self.buyer_is_maker)},"M":true}}'
        )
        return wrap(self.key, payload, style)


class AggTrade(NamedTuple):
    """The fills of one taker order at one price."""

    instrument: Instrument
    ts_sent: int
    ts_event: int
    agg_id: int
    first_trade_id: int
    last_trade_id: int
    px_ticks: int
    qty_lots: int
    buyer_is_maker: bool

    @property
    def key(self) -> str:
        """The subscription that gets it."""
        return f"{self.instrument.symbol.lower()}@aggTrade"

    @property
    def book_ids(self) -> None:
        """No book message."""
        return

    def render(self, style: Style) -> str:
        """Return the text of the frame."""
        payload = (
            f'{{"e":"aggTrade","E":{stamp(self.ts_sent, style.micro)},'
            f'"s":"{self.instrument.symbol}","a":{self.agg_id},'
            f'"p":"{self.instrument.price(self.px_ticks)}",'
            f'"q":"{self.instrument.size(self.qty_lots)}",'
            f'"f":{self.first_trade_id},"l":{self.last_trade_id},'
            f'"T":{stamp(self.ts_event, style.micro)},"m":{_bool(self.buyer_is_maker)},"M":true}}'
        )
        return wrap(self.key, payload, style)


class BookTicker(NamedTuple):
    """The best bid and ask after a change of either; it carries no time at all."""

    instrument: Instrument
    update_id: int
    bid: LevelView
    ask: LevelView

    @property
    def key(self) -> str:
        """The subscription that gets it."""
        return f"{self.instrument.symbol.lower()}@bookTicker"

    @property
    def book_ids(self) -> None:
        """No chain: nothing can be missed that the next one does not say."""
        return

    def render(self, style: Style) -> str:
        """Return the text of the frame."""
        price, size = self.instrument.price, self.instrument.size
        payload = (
            f'{{"u":{self.update_id},"s":"{self.instrument.symbol}",'
            f'"b":"{price(self.bid.px_ticks)}","B":"{size(self.bid.qty_lots)}",'
            f'"a":"{price(self.ask.px_ticks)}","A":"{size(self.ask.qty_lots)}"}}'
        )
        return wrap(self.key, payload, style)


def _bool(value: bool) -> str:
    return "true" if value else "false"
