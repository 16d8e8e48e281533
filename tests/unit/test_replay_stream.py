"""The stream of books and trades, and the tops as a frame."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmdata.datasets.decimals import decimal_array
from mmdata.datasets.errors import UsageError
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.stream import BookEvent, Event, TradeEvent, events, replay, tops, tops_of

MS = 1_000_000


def sketched() -> Sketch:
    sketch = Sketch(tick_size=Decimal("0.5"), lot_size=Decimal("0.001"))
    sketch.book(0, {100: 5, 99: 7}, {102: 6})
    sketch.trade(10, "sell", 100, 2)
    sketch.diff(20, {100: 3})
    sketch.gap(30)
    sketch.book(40, {}, {103: 1})
    return sketch


def line(event: Event) -> tuple[object, ...]:
    bid, ask = event.book.best_bid, event.book.best_ask
    what = event.kind if isinstance(event, BookEvent) else event.side
    return (
        what,
        event.book.valid,
        None if bid is None else (bid.price, bid.size),
        None if ask is None else (ask.price, ask.size),
    )


def test_books_and_trades_come_in_order_of_arrival_with_the_book_of_that_moment() -> None:
    bid, after = (Decimal("50.0"), Decimal("0.005")), (Decimal("50.0"), Decimal("0.003"))
    ask = (Decimal("51.0"), Decimal("0.006"))
    assert [line(event) for event in events(sketched().market())] == [
        ("replace", True, bid, ask),
        ("sell", True, bid, ask),
        ("diff", True, after, ask),
        ("gap", False, None, None),
        ("replace", True, None, (Decimal("51.5"), Decimal("0.001"))),
    ]


def test_an_event_carries_both_clocks_and_whole_ticks_and_lots() -> None:
    book, trade, *_ = events(sketched().market())
    assert isinstance(book, BookEvent)
    assert (book.ts_recv, book.ts_event) == (EPOCH + MS, EPOCH)
    assert isinstance(trade, TradeEvent)
    assert (trade.ts_recv, trade.ts_event) == (EPOCH + 11 * MS, EPOCH + 10 * MS)
    assert (trade.price, trade.size) == (Decimal("50.0"), Decimal("0.002"))
    assert (trade.ticks, trade.lots, trade.trade_id) == (100, 2, 0)


def test_depth_is_told_best_first() -> None:
    stream = events(sketched().market())
    book = next(stream).book
    assert [(level.ticks, level.lots) for level in book.bids(5)] == [(100, 5), (99, 7)]
    assert [level.ticks for level in book.bids(1)] == [100]
    assert [level.ticks for level in book.asks()] == [102]
    assert book.id == 1
    list(stream)
    assert book.best_bid is None  # the view is live: it shows the last book now


def test_an_invalid_book_shows_no_levels() -> None:
    *_, gap, _last = (
        (event, event.book.bids(), event.book.asks(), event.book.id) for event in events(sketched().market())
    )
    assert gap[1:] == ([], [], None)


def test_from_a_start_the_book_is_that_of_all_before_it() -> None:
    stream = list(events(sketched().market(), EPOCH + 15 * MS))
    assert isinstance(stream[0], BookEvent)
    assert stream[0].ts_recv == EPOCH + 21 * MS
    first = next(iter(events(sketched().market(), EPOCH + 15 * MS)))
    assert [(level.ticks, level.lots) for level in first.book.bids()] == [(100, 3), (99, 7)]


def test_what_was_asked_for_later_is_no_part_of_the_stream() -> None:
    market = sketched().market()
    market.trades.backfilled[:] = True
    assert all(isinstance(event, BookEvent) for event in events(market))


def test_tops_are_exact_decimals_a_row_a_message() -> None:
    frame = tops_of(sketched().market())
    assert frame.schema["bid_price"] == pl.Decimal(38, 1)
    assert frame.schema["ts_recv"] == pl.Datetime("ns", "UTC")
    assert frame["valid"].to_list() == [True, True, False, True]
    assert frame["bid_price"].to_list() == [Decimal("50.0"), Decimal("50.0"), None, None]
    assert frame["bid_size"].to_list() == [Decimal("0.005"), Decimal("0.003"), None, None]
    assert frame["ask_price"].to_list() == [Decimal("51.0"), Decimal("51.0"), None, Decimal("51.5")]
    assert frame["ts_event"].is_null().to_list() == [False, False, True, False]
    assert len(tops_of(sketched().market(), EPOCH + 30 * MS)) == 2


def test_what_is_wrong_is_said_by_the_call_not_by_the_first_event(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it holds nothing"):
        replay(tmp_path, exchange="binance", symbol="BTCUSDT")
    with pytest.raises(UsageError, match="is not a moment"):
        tops(tmp_path, exchange="binance", symbol="BTCUSDT", start="noon")


@pytest.mark.parametrize("unit", ["1", "100", "0.25", "0.00000001", "0.000000000000000001"])
def test_decimals_are_exact_at_any_step(unit: str) -> None:
    step = Decimal(unit)
    multiples = np.array([0, 1, -3, 10**15, -(10**15) - 7], np.int64)
    found = decimal_array(multiples, step).to_pylist()
    assert found == [Decimal(int(multiple)) * step for multiple in multiples]
