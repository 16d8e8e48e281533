"""Frames of OKX v5 public channels: key order, types and number format as in the captures.

Source: okx.com/docs-v5 (July 2026), frames of ``books`` captured in August 2026, of ``trades`` in
May 2022 (``count``, ``source`` and ``seqId`` were added since, in the order of the documents).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from mmdata.sandbox.wire import NS_PER_MS, Style, rows

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mmdata.sandbox.engine import LevelView, Taker
    from mmdata.sandbox.instruments import Instrument


def levels(instrument: Instrument, views: Iterable[LevelView]) -> str:
    """Return levels as ``[["price","size","0","orders"],...]``; the third column is always 0."""
    return rows(
        f'["{instrument.price(view.px_ticks)}","{instrument.size(view.qty_lots)}","0","{view.orders}"]'
        for view in views
    )


def subscription(channel: str, inst_id: str) -> str:
    """Return the key under which a channel's messages are published."""
    return f"{channel}:{inst_id}"


class Books(NamedTuple):
    """A snapshot (``prev_id`` -1), a diff, or a heartbeat (no levels, both ids equal)."""

    instrument: Instrument
    action: Literal["snapshot", "update"]
    ts_sent: int
    asks: list[LevelView]
    bids: list[LevelView]
    seq_id: int
    prev_id: int

    @property
    def key(self) -> str:
        """The subscription that gets it."""
        return subscription("books", self.instrument.symbol)

    @property
    def book_ids(self) -> tuple[int, int] | None:
        """``prevSeqId`` and ``seqId`` of a diff; None for what a loss would not show in."""
        if self.action == "snapshot" or self.prev_id == self.seq_id:
            return None
        return self.prev_id, self.seq_id

    def render(self, style: Style) -> str:
        """Return the text of the frame."""
        return (
            f'{{"arg":{_arg("books", self.instrument)},"action":"{self.action}",'
            f'"data":[{{"asks":{levels(self.instrument, self.asks)},'
            f'"bids":{levels(self.instrument, self.bids)},"ts":"{self.ts_sent // NS_PER_MS}",'
            f'"checksum":0,"seqId":{self.seq_id},"prevSeqId":{self.prev_id}}}]}}'
        )


class Trades(NamedTuple):
    """The fills of one taker order at one price; ``last_trade_id`` is the last of ``fills`` ids."""

    instrument: Instrument
    ts_event: int
    last_trade_id: int
    px_ticks: int
    qty_lots: int
    taker: Taker
    fills: int
    seq_id: int

    @property
    def key(self) -> str:
        """The subscription that gets it."""
        return subscription("trades", self.instrument.symbol)

    @property
    def book_ids(self) -> None:
        """No book message."""
        return

    def render(self, style: Style) -> str:
        """Return the text of the frame."""
        return (
            f'{{"arg":{_arg("trades", self.instrument)},'
            f'"data":[{{"instId":"{self.instrument.symbol}","tradeId":"{self.last_trade_id}",'
            f'"px":"{self.instrument.price(self.px_ticks)}",'
            f'"sz":"{self.instrument.size(self.qty_lots)}","side":"{self.taker}",'
            f'"ts":"{self.ts_event // NS_PER_MS}","count":"{self.fills}","source":"0",'
            f'"seqId":{self.seq_id}}}]}}'
        )


class BestBidOffer(NamedTuple):
    """The top of the book; ``ts_event`` is the time of the engine's last change."""

    instrument: Instrument
    ts_event: int
    ask: list[LevelView]
    bid: list[LevelView]
    seq_id: int

    @property
    def key(self) -> str:
        """The subscription that gets it."""
        return subscription("bbo-tbt", self.instrument.symbol)

    @property
    def book_ids(self) -> None:
        """No chain: the channel has no ``prevSeqId``."""
        return

    def render(self, style: Style) -> str:
        """Return the text of the frame."""
        return (
            f'{{"arg":{_arg("bbo-tbt", self.instrument)},'
            f'"data":[{{"asks":{levels(self.instrument, self.ask)},'
            f'"bids":{levels(self.instrument, self.bid)},'
            f'"ts":"{self.ts_event // NS_PER_MS}","seqId":{self.seq_id}}}]}}'
        )


def _arg(channel: str, instrument: Instrument) -> str:
    return f'{{"channel":"{channel}","instId":"{instrument.symbol}"}}'
