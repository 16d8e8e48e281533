"""A recording read as columns: whole ticks and lots, one tape a session, everything in order of arrival."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.datasets import market as columns_of
from mmdata.datasets.book import Book
from mmdata.datasets.decimals import in_units
from mmdata.datasets.errors import DatasetError
from mmdata.datasets.grid import LOT, TICK, Instrument, find_unit, in_force
from mmdata.datasets.layout import Partition, date_name, part_name
from mmdata.datasets.loading import load_market
from mmdata.datasets.market import FRAME_BITS, NO_TIME, OFF_GRID, Market
from mmdata.datasets.schema import arrow_schema

NOON = 1_795_262_400_000_000_000  # 2026-11-21T12:00:00Z
S = 1_000_000_000
A, B = "20261121T120000Z-aaaaaa", "20261121T130000Z-bbbbbb"
Row = Mapping[str, Any]

_DEFAULTS: dict[str, Any] = {
    "conn": 0,
    "is_snapshot": False,
    "is_last": True,
    "origin": "stream",
    "reason": "start",
    "source": "venue",
    "size": Decimal(1),
    "side": "bid",
}


def publish(
    root: Path,
    table: str,
    session: str,
    rows: Iterable[Row],
    *,
    n: int = 0,
    wide: bool = False,
    exchange: str = "okx",
) -> None:
    """Write one part; what a row leaves out is null or a default."""
    schema = arrow_schema(table, wide=wide)
    given = [
        {**{name: _DEFAULTS.get(name) for name in schema.names}, "session": session, **row} for row in rows
    ]
    first = given[0]["ts_recv"]
    folder = root / Partition(table, wide, exchange, "X", date_name(first)).folder
    folder.mkdir(parents=True, exist_ok=True)
    columns = [pa.array([row.get(f.name) for row in given], f.type) for f in schema]
    pq.write_table(pa.table(columns, schema=schema), folder / part_name(first, session, n))


def level(frame: int, price: str, at: int | None = None, **more: object) -> Row:
    return {
        "frame": frame,
        "ts_recv": NOON + frame * S if at is None else at,
        "ts_event": NOON + frame * S,
        "first_id": frame,
        "last_id": frame,
        "prev_id": frame - 1,
        "price": Decimal(price),
        **more,
    }


def trade(frame: int, number: int, kind: str = "trade", at: int | None = None, **more: object) -> Row:
    return {
        "frame": frame,
        "ts_recv": NOON + frame * S if at is None else at,
        "ts_event": NOON + number * S,
        "kind": kind,
        "trade_id": number,
        "side": "buy",
        "price": Decimal(100),
        **more,
    }


def instrument(frame: int, tick: str, lot: str, source: str = "venue") -> Row:
    return {
        "frame": frame,
        "ts_recv": NOON + frame * S,
        "source": source,
        "tick_size": Decimal(tick),
        "lot_size": Decimal(lot),
    }


def loaded(root: Path) -> Market:
    return load_market(root, "okx", "X")


def narrow(*values: str | None) -> pa.ChunkedArray:
    decimals = [None if value is None else Decimal(value) for value in values]
    return pa.chunked_array([pa.array(decimals, pa.decimal128(18, 8))])


# Units.


def test_decimals_are_counted_exactly_in_units_finer_than_their_last_place() -> None:
    whole, off = in_units(narrow("1.00000001", "0.5"), Decimal("1E-12"))
    assert whole.tolist() == [1_000_000_010_000, 500_000_000_000]
    assert not off.any()
    whole, off = in_units(narrow("999999999", "0.00000001"), Decimal("1E-18"))  # beyond 64 bits
    assert whole.tolist() == [999_999_999 * 10**18, 10**10]
    whole, off = in_units(narrow("0.3", "0.25", None), Decimal("0.1"))
    assert (whole.tolist(), off.tolist()) == ([3, 2], [False, True])
    assert in_units(narrow("1e9"), Decimal("3e20"))[0].tolist() == [0]


def test_what_lies_off_the_unit_is_told_apart_never_floored() -> None:
    found = columns_of.multiples(narrow("0.3", None, "0.25"), Decimal("0.1"), -7)
    assert found.tolist() == [3, -7, OFF_GRID]


def test_a_narrow_snapshot_keeps_its_prices_when_a_later_part_is_much_finer(tmp_path: Path) -> None:
    publish(tmp_path, "depth", A, [level(1, "1.00000001", is_snapshot=True)])
    publish(tmp_path, "depth", A, [level(2, "0.000000000123")], n=1, wide=True)
    publish(tmp_path, "trades", A, [trade(3, 1, price=Decimal("1.00000001"))])
    market = loaded(tmp_path)
    assert market.tick_size == Decimal("1E-12")
    assert market.trades.price.tolist() == [1_000_000_010_000]
    book = Book(market.columns, market.chain)
    for message in range(len(market.order)):
        book.step(message)
    assert [ticks * market.tick_size for ticks, _ in book.bids()] == [
        Decimal("1.00000001"),
        Decimal("0.000000000123"),
    ]


def test_a_value_that_is_no_whole_multiple_is_an_error_not_a_rounded_number() -> None:
    with pytest.raises(DatasetError, match=r"0.25000000 is no whole multiple of 0.1, nor are 1 other values"):
        columns_of._whole(narrow("0.3", "0.25", "0.15"), Decimal("0.1"))


def test_a_size_off_the_lot_leaves_the_tick_as_the_venue_told_it(tmp_path: Path) -> None:
    publish(tmp_path, "instruments", A, [instrument(0, "0.5", "0.01")])
    publish(tmp_path, "depth", A, [level(1, "100.5", size=Decimal("0.025"))])
    market = loaded(tmp_path)
    assert (market.tick_size, market.tick_source) == (Decimal("0.5"), "venue")
    assert (market.lot_size, market.lot_source) == (Decimal("0.005"), "derived")
    publish(tmp_path, "depth", A, [level(2, "100.7", size=Decimal("0.01"))], n=1)
    market = loaded(tmp_path)
    assert (market.tick_size, market.tick_source) == (Decimal("0.1"), "derived")


def test_of_two_ticks_the_finest_grid_holds_all(tmp_path: Path) -> None:
    publish(tmp_path, "instruments", A, [instrument(0, "0.2", "1"), instrument(5, "0.5", "1")])
    publish(tmp_path, "depth", A, [level(1, "100.4"), level(6, "100.5")])
    market = loaded(tmp_path)
    assert (market.tick_size, market.tick_source) == (Decimal("0.1"), "venue")
    assert [row.tick_size for row in market.instruments] == [Decimal("0.2"), Decimal("0.5")]


def told(order: int, source: str, tick: str) -> Instrument:
    return Instrument(order, order >> FRAME_BITS, order, source, Decimal(tick), Decimal(1), None)


def test_the_user_s_word_counts_in_its_session_else_the_venue_s_and_derived_only_alone() -> None:
    second = 1 << FRAME_BITS
    rows = [told(1, "venue", "1"), told(2, "user", "5"), told(3, "derived", "7"), told(second, "venue", "2")]
    assert [row.tick_size for row in in_force(rows)] == [Decimal(5), Decimal(2)]
    assert find_unit(TICK, rows, []).size == Decimal(1)
    assert find_unit(TICK, [told(3, "derived", "7")], [narrow("14")]).size == Decimal(7)
    assert find_unit(LOT, [], [narrow("14", "21")]).size == Decimal(7)
    assert find_unit(LOT, [], [narrow()]).size == Decimal(1)


# Order.


def test_everything_comes_in_order_of_arrival_though_the_clock_steps_back_over_midnight(
    tmp_path: Path,
) -> None:
    """Frame 3 comes after midnight, 4 before it again: 4 lies in a second part of the first date."""
    midnight = NOON + 12 * 3600 * S
    times = {1: midnight - 3 * S, 2: midnight - S, 3: midnight, 4: midnight - 2 * S, 5: midnight + S}
    # Frame 4 was published as part 1 or 2: neither numbering may matter.
    for n, frames in enumerate(((1, 2), (4,), (3, 5))):
        snapshot = [i == 1 for i in frames]
        rows = [
            level(i, f"{100 + i}", times[i], is_snapshot=s) for i, s in zip(frames, snapshot, strict=True)
        ]
        publish(tmp_path, "depth", A, rows, n=n)
        publish(tmp_path, "trades", A, [trade(i, i, at=times[i]) for i in frames], n=n)
        quotes = [
            {"frame": i, "ts_recv": times[i], "last_id": i, "bid_price": Decimal(90), "bid_size": Decimal(1)}
            for i in frames
        ]
        publish(tmp_path, "bbo", A, quotes, n=n)
    market = loaded(tmp_path)
    assert market.order.tolist() == [0, 1, 2, 3, 4, 5]
    assert market.columns.price.tolist() == [101, 102, 103, 104, 105]
    assert market.trades.order.tolist() == market.quotes.order.tolist() == [1, 2, 3, 4, 5]
    assert market.trades.trade_id.tolist() == market.quotes.last_id.tolist() == [1, 2, 3, 4, 5]
    book = Book(market.columns, market.chain)
    for message in range(6):
        book.step(message)
    assert book.valid
    assert len(book.bids()) == 5


def test_cut_at_an_end_everything_is_cut(tmp_path: Path) -> None:
    publish(tmp_path, "depth", A, [level(i, "100") for i in range(1, 6)])
    publish(tmp_path, "trades", A, [trade(i, i) for i in range(1, 6)])
    publish(tmp_path, "bbo", A, [{"frame": i, "ts_recv": NOON + i * S} for i in range(1, 6)])
    publish(tmp_path, "instruments", A, [instrument(0, "1", "1"), instrument(4, "1", "1")])
    gaps = [{"frame": i, "ts_recv": NOON + i * S, "kind": "gap", "channel": "trades"} for i in (2, 4)]
    publish(tmp_path, "events", A, gaps)
    market = load_market(tmp_path, "okx", "X", end=NOON + 4 * S)
    assert [len(x.order) for x in (market, market.trades, market.quotes, market.trade_holes)] == [4, 3, 3, 1]
    assert len(market.instruments) == 1


# The tape.


def test_each_session_has_its_own_tape_and_none_is_lost(tmp_path: Path) -> None:
    """OKX's channel was `trade` in old logs and is `agg` now; a session with both has the single trades."""
    publish(tmp_path, "trades", A, [trade(1, 1), trade(2, 2), trade(2, 2, "agg"), trade(3, 3, "block")])
    later = [trade(i, 10 + i, "agg", NOON + 3600 * S + i) for i in (1, 2)]
    publish(tmp_path, "trades", B, [*later, trade(3, 13, "block", NOON + 3600 * S + 3)])
    publish(tmp_path, "depth", A, [level(1, "100")])
    assert loaded(tmp_path).trades.trade_id.tolist() == [1, 2, 11, 12]


def test_a_trade_told_twice_is_one_as_it_first_arrived(tmp_path: Path) -> None:
    publish(tmp_path, "trades", A, [trade(1, 1), trade(2, 2), trade(3, 1)])
    again = [trade(i, i, at=NOON + 3600 * S + i) for i in (1, 2, 3)]
    publish(tmp_path, "trades", B, again)
    publish(tmp_path, "depth", A, [level(1, "100")])
    trades = loaded(tmp_path).trades
    assert trades.trade_id.tolist() == [1, 2, 3]
    assert (trades.ts_recv[:2] - NOON).tolist() == [S, 2 * S]


def test_an_id_that_a_venue_uses_again_is_another_trade(tmp_path: Path) -> None:
    publish(tmp_path, "trades", A, [trade(1, 1), trade(2, 1, ts_event=NOON + 99 * S)])
    publish(tmp_path, "depth", A, [level(1, "100")])
    assert loaded(tmp_path).trades.trade_id.tolist() == [1, 1]


# Quotes.


def test_quotes_are_ticks_and_lots_and_an_empty_side_has_no_price(tmp_path: Path) -> None:
    publish(tmp_path, "depth", A, [level(1, "100.5")])
    quote = {"frame": 2, "ts_recv": NOON, "bid_price": Decimal("100.5"), "bid_size": Decimal(3)}
    publish(tmp_path, "bbo", A, [{**quote, "last_id": 7}])
    quotes = loaded(tmp_path).quotes
    assert [int(column[0]) for column in (quotes.last_id, quotes.bid_price, quotes.bid_size)] == [7, 1, 3]
    assert (quotes.ts_event[0], quotes.ask_price[0], quotes.ask_size[0]) == (NO_TIME, NO_TIME, 0)
    assert quotes.order.dtype == np.int64
