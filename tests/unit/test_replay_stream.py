"""The stream of books and trades, and the tops as a frame."""

from __future__ import annotations

import functools
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mmdata.datasets.decimals import decimal_array
from mmdata.datasets.errors import UsageError
from mmdata.datasets.market import Market
from mmdata.replay.sketch import EPOCH, Sketch
from mmdata.replay.stream import (
    BookEvent,
    Event,
    IntervalEvent,
    TradeEvent,
    events,
    replay,
    tops,
    tops_of,
)
from tests.recordings import Recording

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
    assert not isinstance(event, IntervalEvent)
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
    assert [line(event) for event in events([[sketched().market()]])] == [
        ("replace", True, bid, ask),
        ("sell", True, bid, ask),
        ("diff", True, after, ask),
        ("gap", False, None, None),
        ("replace", True, None, (Decimal("51.5"), Decimal("0.001"))),
    ]


def test_an_event_carries_both_clocks_and_whole_ticks_and_lots() -> None:
    book, trade, *_ = events([[sketched().market()]])
    assert isinstance(book, BookEvent)
    assert (book.ts_recv, book.ts_event) == (EPOCH + MS, EPOCH)
    assert isinstance(trade, TradeEvent)
    assert (trade.ts_recv, trade.ts_event) == (EPOCH + 11 * MS, EPOCH + 10 * MS)
    assert (trade.price, trade.size) == (Decimal("50.0"), Decimal("0.002"))
    assert (trade.ticks, trade.lots, trade.trade_id) == (100, 2, 0)


def test_depth_is_told_best_first() -> None:
    stream = events([[sketched().market()]])
    book = next(stream).book
    assert [(level.ticks, level.lots) for level in book.bids(5)] == [(100, 5), (99, 7)]
    assert [level.ticks for level in book.bids(1)] == [100]
    assert [level.ticks for level in book.asks()] == [102]
    assert book.id == 1
    list(stream)
    assert book.best_bid is None  # the view is live: it shows the last book now


def test_an_invalid_book_shows_no_levels() -> None:
    *_, gap, _last = (
        (event, event.book.bids(), event.book.asks(), event.book.id)
        for event in events([[sketched().market()]])
    )
    assert gap[1:] == ([], [], None)


def test_from_a_start_the_book_is_that_of_all_before_it() -> None:
    stream = list(events([[sketched().market()]], EPOCH + 15 * MS))
    assert isinstance(stream[0], BookEvent)
    assert stream[0].ts_recv == EPOCH + 21 * MS
    first = next(iter(events([[sketched().market()]], EPOCH + 15 * MS)))
    assert [(level.ticks, level.lots) for level in first.book.bids()] == [(100, 3), (99, 7)]


def test_what_was_asked_for_later_is_no_part_of_the_stream() -> None:
    market = sketched().market()
    market.trades.backfilled[:] = True
    assert all(isinstance(event, BookEvent) for event in events([[market]]))


def intervals(sketch: Sketch, every: int, **how: int) -> list[tuple[object, ...]]:
    """Return ms since the epoch, best bid and ask (ticks), and the lots of trades of each interval."""
    found: list[tuple[object, ...]] = []
    for event in events([[sketch.market()]], every=every * MS, **how):
        assert isinstance(event, IntervalEvent)
        touch = [level and level.ticks for level in (event.book.best_bid, event.book.best_ask)]
        found.append(((event.ts_recv - EPOCH) / MS, *touch, [trade.lots for trade in event.trades]))
    return found


def test_an_interval_shows_what_was_received_up_to_its_end_and_holes_are_not_bridged() -> None:
    assert intervals(sketched(), 10) == [
        (10, 100, 102, []),
        (20, 100, 102, [2]),  # the trade came at 11, the diff at 21
        (30, 100, 102, []),
        (40, None, None, []),  # the gap was noted at 31
    ]


def test_intervals_without_a_book_are_told_where_somebody_traded() -> None:
    sketch = sketched()
    sketch.gap(50)
    for at in (75, 76, 99):
        sketch.trade(at, "buy", 103, at)
    sketch.gap(125)
    assert intervals(sketch, 10)[4:] == [
        (50, None, 103, []),
        (60, None, None, []),
        (80, None, None, [75, 76]),
        (100, None, None, [99]),
    ]


def test_intervals_reach_to_the_end_that_was_asked_for_where_more_was_recorded(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.instrument(recording.tick, recording.lot)
    recording.play([(("diff", [("bid", 3, 2), ("ask", 1, 4)]), 1), (("snapshot", None), 1)])
    recording.play([(("diff", []), 1), (("diff", []), 100), (("diff", []), 1)])
    ask = functools.partial(replay, tmp_path, exchange="binance", symbol="BTCUSDT")
    *_, valid, _, last = (event.ts_recv for event in ask())
    whole = [event.ts_recv for event in ask(every="1ms")]
    assert whole == [*range(-(-valid // MS) * MS, last + 1, MS)]
    half = valid + 50 * MS
    assert [event.ts_recv for event in ask(every="1ms", end=half)] == [at for at in whole if at < half]
    assert [event.ts_recv for event in ask(every="1ms", start=half)] == [at for at in whole if at >= half]


def test_depth_is_how_many_levels_a_book_shows_unless_asked_for_more() -> None:
    book = next(events([[sketched().market()]], depth=1)).book
    assert len(book.bids()) == 1
    assert len(book.bids(2)) == 2


def two_markets() -> list[Market]:
    one, other = sketched(), sketched()
    one.book(60, {50: 1}, {55: 1})
    other.diff(45, {90: 1})
    return [one.market(), replace(other.market(), symbol="OTHER")]


def test_several_markets_are_one_stream_by_receive_time() -> None:
    markets = two_markets()
    merged = [
        (event.ts_recv, event.book.symbol, line(event)) for event in events([[market] for market in markets])
    ]
    assert [when for when, *_ in merged] == sorted(when for when, *_ in merged)
    for market in markets:
        alone = [(event.ts_recv, market.symbol, line(event)) for event in events([[market]])]
        assert [told for told in merged if told[1] == market.symbol] == alone
    # At equal times in the order of the list.
    assert [symbol for _, symbol, _ in merged[:4]] == [markets[0].symbol, "OTHER"] * 2


def test_no_book_is_ahead_of_an_event_of_another_market() -> None:
    late, early = Sketch(), Sketch()
    late.book(100, {1: 1}, {2: 1})
    early.book(0, {10: 1}, {20: 1})
    early.diff(50, {11: 1})
    early.diff(150, {12: 1})
    views = {}
    for event in events([[replace(early.market(), symbol="EARLY")], [late.market()]]):
        views[event.book.symbol] = event.book
        if event.book.symbol != "EARLY":
            best = views["EARLY"].best_bid
            assert best is not None
            assert best.ticks == 11


def test_markets_are_named_one_by_one_or_share_a_word(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.instrument(recording.tick, recording.lot)
    recording.play([(("diff", [("bid", 3, 2)]), 1), (("snapshot", None), 1), (("diff", []), 1)])
    alone = [line(event) for event in replay(tmp_path, exchange="binance", symbol="BTCUSDT")]
    assert alone
    assert [line(event) for event in replay(tmp_path, exchange=["binance"], symbol=["BTCUSDT"])] == alone
    assert [line(event) for event in replay(tmp_path, exchange="binance", symbol=["BTCUSDT"])] == alone
    for exchange, symbol, sentence in (
        (["binance", "okx"], ["BTCUSDT"], "2 exchanges and 1 symbols are named"),
        ("binance", [], "1 exchanges and 0 symbols are named"),
        ("binance", ["BTCUSDT", "BTCUSDT"], "named twice"),
        ("binance", ["BTCUSDT", "NONE"], "of binance NONE; it holds binance BTCUSDT"),
    ):
        with pytest.raises(UsageError, match=sentence):
            replay(tmp_path, exchange=exchange, symbol=symbol)
    for how, sentence in (({"every": "0s"}, "every='0s' is no interval"), ({"depth": 0}, "depth=0 is no")):
        with pytest.raises(UsageError, match=sentence):
            replay(tmp_path, exchange="binance", symbol="BTCUSDT", **how)


def test_tops_are_exact_decimals_a_row_a_message() -> None:
    frame = tops_of([sketched().market()])
    assert frame.schema["bid_price"] == pl.Decimal(38, 1)
    assert frame.schema["ts_recv"] == pl.Datetime("ns", "UTC")
    assert frame["valid"].to_list() == [True, True, False, True]
    assert frame["bid_price"].to_list() == [Decimal("50.0"), Decimal("50.0"), None, None]
    assert frame["bid_size"].to_list() == [Decimal("0.005"), Decimal("0.003"), None, None]
    assert frame["ask_price"].to_list() == [Decimal("51.0"), Decimal("51.0"), None, Decimal("51.5")]
    assert frame["ts_event"].is_null().to_list() == [False, False, True, False]
    assert len(tops_of([sketched().market()], EPOCH + 30 * MS)) == 2


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
