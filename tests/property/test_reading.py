"""Books, stretches and bars that Polars frames hold, against plain Python over the same recording."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.datasets import bars, books, books_at, messages, segments
from mmdata.datasets._kernel import DIFF, REPLACE, SESSION
from mmdata.datasets.book import Book, proven
from mmdata.datasets.loading import load_market
from mmdata.datasets.market import NO_TIME, Market
from mmdata.replay import replay
from tests.recordings import BEFORE_MIDNIGHT, LOT, STEPS, Recording

DEPTH = 2
MS = 1_000_000
EXCHANGES = st.sampled_from(["binance", "okx"])
RANGES = st.one_of(
    st.none(),
    st.tuples(st.integers(0, 20_000), st.integers(1, 20_000)).map(
        lambda pair: (BEFORE_MIDNIGHT + pair[0] * MS, BEFORE_MIDNIGHT + sum(pair) * MS)
    ),
)

Shown = tuple[int, bool, tuple[tuple[Decimal, Decimal], ...], tuple[tuple[Decimal, Decimal], ...]]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "BATCH_ROWS", 5)


def recorded(root: str, exchange: str, steps: list[Any]) -> Market:
    recording = Recording(Path(root), exchange)
    recording.diff([("bid", 1, 1)])
    recording.play(steps)
    return load_market(Path(root), exchange, "BTCUSDT")


def plain_books(market: Market, begin: int | None, end: int | None) -> Iterator[tuple[int | None, Shown]]:
    """Yield the time (None: a session's start) and the book after each message, from ``begin`` on."""
    book = Book(market.columns, market.chain)
    latest, started = NO_TIME, begin is None
    for at, when in enumerate(market.ts_recv.tolist()):
        book.step(at)
        if end is not None and when >= end:
            return
        started = started or (when != NO_TIME and begin is not None and when >= begin)
        latest = max(latest, when)
        sides = (book.bids(DEPTH), book.asks(DEPTH)) if book.valid else ([], [])
        bids, asks = (tuple((p * market.tick_size, s * market.lot_size) for p, s in own) for own in sides)
        if started:
            yield None if when == NO_TIME else when, (latest, book.valid, bids, asks)


def changes(market: Market, begin: int | None, end: int | None) -> list[Shown]:
    """Return the books at which the best levels were other than before; an invalid one only after a valid."""
    shown: list[Shown] = []
    for _, now in plain_books(market, begin, end):
        before = shown[-1][1:] if shown else (False, (), ())
        if now[1:] != before:
            shown.append(now)
    return shown


def sampled(market: Market, begin: int | None, end: int | None, every: int) -> list[Shown]:
    """Return the book at each multiple of ``every``, as known then; an invalid one only after a valid."""
    known = [*plain_books(market, None, None)]
    times = [when for when, _ in known if when is not None]
    first = times[0] if begin is None else begin
    last = times[-1] if end is None or end > times[-1] else end - 1
    shown: list[Shown] = []
    for moment in range(-(-first // every) * every, last + 1, every):
        taken: Shown | None = None
        for when, now in known:
            if when is not None and when > moment:
                break
            # A session ends with its last message: its book is known at that moment, and not later.
            if when is None and taken is not None and now[0] >= moment:
                break
            taken = now
        if taken is not None and (taken[1] or (shown and shown[-1][1])):
            shown.append((moment, *taken[1:]))
    return shown


def read(root: str, exchange: str, within: tuple[int, int] | None, **how: Any) -> list[Shown]:
    begin, end = within or (None, None)
    return shown_in(
        books(root, exchange=exchange, symbol="BTCUSDT", start=begin, end=end, depth=DEPTH, **how)
    )


def shown_in(frame: pl.DataFrame) -> list[Shown]:
    found: list[Shown] = []
    for row in frame.with_columns(frame["ts_recv"].dt.epoch("ns")).iter_rows(named=True):
        sides = (
            tuple(
                (row[f"{side}_price_{level}"], row[f"{side}_size_{level}"])
                for level in range(DEPTH)
                if row[f"{side}_price_{level}"] is not None
            )
            for side in ("bid", "ask")
        )
        found.append((row["ts_recv"], row["valid"], *sides))
    return found


def at(market: Market, moment: int) -> Shown:
    """Return the book as it was known at a moment; none but within a session's first and last message."""
    taken: Shown = (moment, False, (), ())
    times = [when for when, _ in plain_books(market, None, None) if when is not None]
    if moment > max(times):
        return taken
    for when, now in plain_books(market, None, None):
        if (when is not None and when > moment) or (when is None and now[0] >= moment):
            break
        taken = now
    return (moment, *taken[1:])


@given(STEPS, EXCHANGES, RANGES)
@settings(deadline=None, max_examples=60)
def test_books_at_each_change_are_those_of_the_book_stepped_message_by_message(
    steps: list[Any], exchange: str, within: tuple[int, int] | None
) -> None:
    with TemporaryDirectory() as root:
        market = recorded(root, exchange, steps)
        assert read(root, exchange, within) == changes(market, *(within or (None, None)))


@given(STEPS, EXCHANGES, RANGES, st.sampled_from([100, 700, 5000]))
@settings(deadline=None, max_examples=60)
def test_books_at_an_interval_are_those_known_at_each_multiple_of_it(
    steps: list[Any], exchange: str, within: tuple[int, int] | None, ms: int
) -> None:
    with TemporaryDirectory() as root:
        market = recorded(root, exchange, steps)
        begin, end = within or (None, None)
        expected = sampled(market, begin, end, ms * MS)
        assert read(root, exchange, within, every=f"{ms}ms") == expected


@given(STEPS, EXCHANGES)
@settings(deadline=None, max_examples=50)
def test_stretches_are_where_the_ids_prove_the_book(steps: list[Any], exchange: str) -> None:
    with TemporaryDirectory() as root:
        market = recorded(root, exchange, steps)
        found = segments(root, exchange=exchange, symbol="BTCUSDT")
    valid = proven(market.columns, market.chain)
    runs = [[*own] for ok, own in groupby(range(len(valid)), lambda at: valid[at]) if ok]
    spans = [(market.ts_recv[own[0]], market.ts_recv[own[-1]]) for own in runs]
    assert found.select(found["begin"].dt.epoch("ns"), found["end"].dt.epoch("ns")).rows() == spans
    kinds = market.columns.kind
    counted = [sum(kinds[i] <= REPLACE for i in own) for own in runs]
    assert found["messages"].to_list() == counted
    for cause, own in zip(found["ended_by"], runs, strict=True):
        after = own[-1] + 1
        if after == len(valid):
            assert cause == "range_end"
        elif kinds[after] == SESSION:
            assert cause == "session_end"
        elif kinds[after] == DIFF:
            assert cause in ("missing", "unrecorded")
        else:
            assert cause in ("missing", "disconnect")


TRADES = st.lists(
    st.tuples(st.integers(0, 3000), st.sampled_from(["buy", "sell"]), st.integers(1, 5), st.integers(0, 9)),
    min_size=1,
    max_size=30,
)


@given(TRADES, st.sampled_from(["0.01", "0.000000000001"]), st.sampled_from([LOT, Decimal("1E-15")]))
@settings(deadline=None, max_examples=40)
def test_bars_are_a_fold_over_decimals(
    trades: list[tuple[int, str, int, int]], tick: str, lot: Decimal
) -> None:
    with TemporaryDirectory() as root:
        recording = Recording(Path(root), tick=Decimal(tick), lot=lot)
        for number, (ms, side, ticks, lots) in enumerate(trades):
            recording.now += ms * MS
            recording.trade(number, side, ticks, lots)
        recording.part()
        frame = bars(root, exchange="binance", symbol="BTCUSDT", every="2s")
    expected: dict[int, dict[str, Any]] = {}
    now = BEFORE_MIDNIGHT
    for ms, side, ticks, lots in trades:
        now += ms * MS
        price, size = ticks * Decimal(tick), lots * lot
        bar = now // (2000 * MS) * 2000 * MS
        own = expected.setdefault(
            bar, {"prices": [], "buy": Decimal(0), "sell": Decimal(0), "paid": Decimal(0)}
        )
        own["prices"].append(price)
        own[side] += size
        own["paid"] += price * size
    assert frame["ts"].dt.epoch("ns").to_list() == [*expected]
    for row, own in zip(frame.iter_rows(named=True), expected.values(), strict=True):
        prices, volume = own["prices"], own["buy"] + own["sell"]
        assert (row["open"], row["high"]) == (prices[0], max(prices))
        assert (row["low"], row["close"], row["trades"]) == (min(prices), prices[-1], len(prices))
        assert (row["buy_volume"], row["sell_volume"], row["volume"]) == (own["buy"], own["sell"], volume)
        if not volume:
            assert row["vwap"] is None
            continue
        place = Decimal(1).scaleb(row["vwap"].as_tuple().exponent)
        assert abs(row["vwap"] - own["paid"] / volume) <= place / 2
        assert row["imbalance"] == pytest.approx(float((own["buy"] - own["sell"]) / volume))


@given(STEPS, EXCHANGES, RANGES, st.integers(1, 2_000))
@settings(deadline=None, max_examples=60)
def test_replay_at_an_interval_shows_the_books_of_the_frames_at_that_interval(
    steps: list[Any], exchange: str, within: tuple[int, int] | None, every: int
) -> None:
    begin, end = within or (None, None)
    with TemporaryDirectory() as root:
        market = recorded(root, exchange, steps)
        shown = []
        for event in replay(
            root, exchange=exchange, symbol="BTCUSDT", start=begin, end=end, every=every / 1e3, depth=DEPTH
        ):
            sides = (event.book.bids(), event.book.asks()) if event.book.valid else ([], [])
            bids, asks = (tuple((level.price, level.size) for level in own) for own in sides)
            shown.append((event.ts_recv, event.book.valid, bids, asks))
        assert shown == sampled(market, begin, end, every * MS)


@given(STEPS, EXCHANGES, st.lists(st.integers(-2_000, 30_000), max_size=30))
@settings(deadline=None, max_examples=60)
def test_books_at_moments_in_any_order_are_those_of_the_book_stepped_message_by_message(
    steps: list[Any], exchange: str, offsets: list[int]
) -> None:
    with TemporaryDirectory() as root:
        market = recorded(root, exchange, steps)
        moments = [BEFORE_MIDNIGHT + offset * MS for offset in offsets]
        frame = books_at(root, moments, exchange=exchange, symbol="BTCUSDT", depth=DEPTH)
        assert shown_in(frame) == [at(market, moment) for moment in moments]
