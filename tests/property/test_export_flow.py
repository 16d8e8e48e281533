"""Whatever a recording holds, who only applies the rows of an export has the kernel's book, every level."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.datasets import tape
from mmdata.datasets._kernel import ASK, BID
from mmdata.datasets.book import Book
from mmdata.datasets.chain import CHAINS, LINKED, ChainRule
from mmdata.datasets.formats import flow
from mmdata.datasets.formats.flow import CLEAR, TRADE, Rows, open_flow
from mmdata.datasets.formats.hftbacktest import (
    DEPTH_CLEAR_EVENT,
    EXCH_EVENT,
    LOCAL_EVENT,
    SELL_EVENT,
    TRADE_EVENT,
    BothOrders,
)
from mmdata.datasets.loading import load_market
from mmdata.datasets.market import NO_TIME, Market
from mmdata.replay.clock import Timeline, map_clock, timeline
from tests.builders import DAY, NOON
from tests.table_rows import publish_rows

MS = 1_000_000
A, B = "20261121T080000Z-aaaaaa", "20261121T090000Z-bbbbbb"
LEVELS = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 12), st.integers(0, 3)), max_size=6)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("diff"), LEVELS),
        st.tuples(st.just("diff"), LEVELS),
        st.tuples(st.just("lost"), LEVELS),
        st.tuples(st.just("whole"), LEVELS),
        st.tuples(st.just("trade"), st.integers(-30, 2)),
        st.tuples(st.just("backfill"), st.integers(-90, 0)),
        st.tuples(st.just("gap"), st.booleans()),
        st.tuples(st.just("session"), st.just(0)),
        st.tuples(st.just("midnight"), st.just(0)),
    ),
    min_size=1,
    max_size=40,
)


class Recording:
    """Turns steps into the rows of tables: of a venue with snapshots over REST, or in the stream."""

    def __init__(self, exchange: str) -> None:
        self.exchange = exchange
        self.tables: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        self.session, self.frame, self.id, self.trade, self.day = A, 0, 100, 0, 0

    def add(self, table: str, rows: list[dict[str, Any]], late_ms: int = -3) -> None:
        """Add the rows of a frame, which happened ``late_ms`` after it was received."""
        at = NOON + self.day * DAY + self.frame * 10 * MS + (3_600_000 * MS if self.session == B else 0)
        key = {"session": self.session, "frame": self.frame, "ts_recv": at, "ts_event": at + late_ms * MS}
        self.tables.setdefault((table, self.session, self.day), []).extend(key | row for row in rows)
        self.frame += 1

    def take(self, what: str, value: Any) -> None:
        """Record a step."""
        if what in ("diff", "lost"):
            self.id += 5 if what == "lost" else 0
            ids = {"first_id": self.id + 1, "last_id": self.id + 1, "prev_id": self.id}
            self.id += 1
            self.add("depth", self._levels(value, ids))
        elif what == "whole" and CHAINS[self.exchange].spliced:
            self.add("snapshots", self._levels(value, {"last_id": self.id - 1}))
        elif what == "whole":
            self.add("depth", self._levels(value, {"last_id": self.id, "prev_id": -1, "is_snapshot": True}))
        elif what in ("trade", "backfill"):
            self.trade += 1
            told = {"trade_id": self.trade, "side": "buy", "price": Decimal(5), "size": Decimal(2)}
            origin = "stream" if what == "trade" else "backfill"
            self.add("trades", [told | {"origin": origin}], late_ms=value)
        elif what == "gap":
            self.add("events", [{"kind": "gap", "channel": "depth", "next_id": self.id if value else None}])
        elif what == "session" and self.session == A:
            self.session, self.frame = B, 0
        elif what == "midnight" and self.day == 0:
            self.day = 1

    def _levels(self, levels: list[tuple[int, int, int]], ids: dict[str, Any]) -> list[dict[str, Any]]:
        # Bids below 20, asks above, so that the book never crosses.
        rows = [
            ids
            | {
                "side": "ask" if side else "bid",
                "price": Decimal(20 + price if side else 20 - price),
                "size": Decimal(size),
                "is_last": False,
            }
            for side, price, size in sorted(levels, key=lambda level: level[0])
        ]
        rows = rows or [ids | {"side": None, "price": None, "size": None}]
        rows[-1]["is_last"] = True
        return rows

    def write(self, root: Path) -> None:
        """Publish what was recorded."""
        for n, ((table, _, _), rows) in enumerate(sorted(self.tables.items(), key=lambda kv: kv[0][1:])):
            publish_rows(root, table, rows, exchange=self.exchange, n=n)


@contextmanager
def in_small_pieces() -> Iterator[Path]:
    """Yield a folder; read a few rows at a time there, and let a venue's window be four levels deep."""
    okx = ChainRule(LINKED, spliced=False, max_depth=4)
    with (
        mock.patch.object(tape, "ROWS", 3),
        mock.patch.object(flow, "_ROOM", 64),
        mock.patch.dict(CHAINS, {"okx": okx}),
        tempfile.TemporaryDirectory() as folder,
    ):
        yield Path(folder)


def books(rows: Rows) -> dict[int, tuple[dict[int, int], dict[int, int]]]:
    """Apply rows as one who knows nothing of chains; return the book by the time of arrival."""
    book: tuple[dict[int, int], dict[int, int]] = ({}, {})
    after = {}
    for i in range(len(rows)):
        if rows.kind[i] == CLEAR:
            book[BID].clear()
            book[ASK].clear()
        elif rows.kind[i] != TRADE:
            side = book[rows.side[i]]
            side.pop(int(rows.price[i]), None)
            if rows.size[i]:
                side[int(rows.price[i])] = int(rows.size[i])
        after[int(rows.seen[i])] = (dict(book[BID]), dict(book[ASK]))
    return after


def kernel_books(market: Market, times: Timeline) -> dict[int, tuple[dict[int, int], dict[int, int]]]:
    """Return the kernel's book by the time at which it is seen; an invalid one is empty.

    What comes behind a trade is told no earlier than it: a session ends just after what came last in it.
    """
    book = Book(market.columns, market.chain)
    live = ~market.trades.backfilled[times.trade]
    order, trade_seen = market.trades.order[times.trade][live], times.trade_seen[live]
    rank = np.argsort(order, kind="stable")
    latest = np.concatenate(([NO_TIME], np.maximum.accumulate(trade_seen[rank])))
    before = np.searchsorted(order[rank], market.order)
    after = {}
    for i, seen in enumerate(np.maximum(times.seen, latest[before]).tolist()):
        book.step(i)
        after[seen] = (dict(book.bids()), dict(book.asks())) if book.valid else ({}, {})
    return after


@given(STEPS, st.sampled_from(["binance", "binance-usdm", "okx"]))
@settings(deadline=None, max_examples=40)
def test_the_rows_alone_make_the_kernels_book(steps: list[tuple[str, Any]], exchange: str) -> None:
    recording = Recording(exchange)
    for what, value in steps:
        recording.take(what, value)
    if not {"depth", "trades"} & {table for table, _, _ in recording.tables}:
        return
    with in_small_pieces() as root:
        recording.write(root)
        market = load_market(root, exchange, "BTCUSDT")
        times = timeline(market, map_clock(market))
        told = open_flow(root, exchange, "BTCUSDT", None, None)
        assert [shift["shift_ns"] for shift in told.facts()["sessions"]] == [
            session.shift_ns for session in map_clock(market).sessions
        ]
        blocks = list(told.rows())
        if not blocks:
            return
        rows = Rows.joined(blocks)
        expected = kernel_books(market, times)
        moments = sorted(expected)
        for seen, book in books(rows).items():
            at = int(np.searchsorted(moments, seen, side="right")) - 1
            assert book == (expected[moments[at]] if at >= 0 else ({}, {}))
        assert (np.diff(rows.seen) >= 0).all()
        assert (np.diff(rows.acts[rows.kind != TRADE]) >= 0).all()
        assert (rows.acts <= rows.seen).all()
        live = ~market.trades.backfilled
        assert rows.number[rows.kind == TRADE].tolist() == market.trades.trade_id[live].tolist()


@given(STEPS, st.sampled_from(["binance", "okx"]))
@settings(deadline=None, max_examples=40)
def test_exchange_and_strategy_each_get_every_row_in_their_order(
    steps: list[tuple[str, Any]], exchange: str
) -> None:
    recording = Recording(exchange)
    for what, value in steps:
        recording.take(what, value)
    if not {"depth", "trades"} & {table for table, _, _ in recording.tables}:
        return
    horizon = mock.patch("mmdata.datasets.formats.hftbacktest.HORIZON_NS", 100 * MS)
    with in_small_pieces() as root, horizon:
        recording.write(root)
        told = open_flow(root, exchange, "BTCUSDT", None, None)
        orders = BothOrders(told.backfilled(), told.grid)
        blocks = list(told.rows())
        if not blocks:
            return
        found = [*(orders.take(rows) for rows in blocks), orders.rest()]
        events = np.concatenate([events for events, _ in found])
        rows = Rows.joined(blocks)
        local = events[events["ev"] & LOCAL_EVENT > 0]
        exchange_side = events[events["ev"] & EXCH_EVENT > 0]
        assert local["local_ts"].tolist() == rows.seen.tolist()
        assert local["px"].tolist() == (rows.price * float(told.grid.tick.size)).tolist()
        assert (np.diff(exchange_side["exch_ts"]) >= 0).all()
        assert (np.diff(np.concatenate([days for _, days in found])) >= 0).all()
        assert (events["ev"] & (LOCAL_EVENT | EXCH_EVENT) > 0).all()
        of_book = exchange_side["ev"] & 0xFF != TRADE_EVENT
        kept = rows.kind != TRADE
        if kept.any() and (rows.acts[: kept.argmax()] > rows.acts[kept][0] + 100 * MS).any():
            return  # trades came before any book said where the exchange's clock is, far ahead of it
        # No row of the book is ever left out on the exchange's side, nor put before another.
        assert exchange_side[of_book]["px"].tolist() == local[kept]["px"].tolist()
        assert exchange_side[of_book]["qty"].tolist() == local[kept]["qty"].tolist()
        clears = events["ev"] & 0xFF == DEPTH_CLEAR_EVENT
        assert not (events["ev"][clears] & SELL_EVENT).any()
