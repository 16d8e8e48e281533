"""The kernel against a book that is a dictionary, and the recorder's machine against the kernel."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.datasets._kernel import (
    DIFF,
    GAP,
    GAP_OPEN,
    NO_PRICE,
    PENDING,
    REPLACE,
    SPLICE,
    Columns,
    level_size,
)
from mmdata.datasets.book import Book, proven, rebuild
from mmdata.datasets.booksync import BookSync, Note
from mmdata.datasets.chain import CHAINS, NO_ID, ChainRule

UNCOMPILED = os.environ.get("NUMBA_DISABLE_JIT") == "1"
LEVELS = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 40), st.integers(0, 5)), max_size=12)


def columns(
    kinds: list[int], ids: list[tuple[int, int, int]], levels: list[list[tuple[int, int, int]]]
) -> Columns:
    flat = np.array([row for own in levels for row in own], np.int64).reshape(-1, 3)
    firsts, lasts, prevs = np.array(ids, np.int64).reshape(-1, 3).T
    return Columns(
        kind=np.array(kinds, np.uint8),
        first_id=np.ascontiguousarray(firsts),
        last_id=np.ascontiguousarray(lasts),
        prev_id=np.ascontiguousarray(prevs),
        start=np.cumsum([0, *map(len, levels)]).astype(np.int64),
        side=flat[:, 0].astype(np.int8),
        price=np.ascontiguousarray(flat[:, 1]),
        size=np.ascontiguousarray(flat[:, 2]),
    )


def take(book: tuple[dict[int, int], dict[int, int]], levels: list[tuple[int, int, int]]) -> None:
    """Set levels, 0 removes one, in a book that is two dictionaries."""
    for side, price, size in levels:
        if size:
            book[side][price] = size
        else:
            book[side].pop(price, None)


@given(st.lists(LEVELS, min_size=1, max_size=20), st.integers(2, 8), st.sampled_from([1, 7_000, 40_000]))
@settings(deadline=None)
def test_levels_are_those_of_a_dictionary(
    messages: list[list[tuple[int, int, int]]], capacity: int, apart: int
) -> None:
    """Close together, and so far apart that a window holds a few levels or one."""
    messages = [[(side, price * apart, size) for side, price, size in levels] for levels in messages]
    ids = [(i, i, i - 1) for i in range(1, len(messages) + 1)]
    kinds = [REPLACE, *[DIFF] * (len(messages) - 1)]
    book = Book(columns(kinds, ids, messages), ChainRule(2, spliced=False, max_depth=0), capacity)
    expected: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for at, levels in enumerate(messages):
        book.step(at)
        take(expected, levels)
        assert book.bids() == sorted(expected[0].items(), reverse=True)
        assert book.asks() == sorted(expected[1].items())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("diff"), st.integers(1, 4), st.integers(0, 2)),  # width, ids skipped before it
        # Id relative to the stream: behind it, or so far ahead that many messages lie below it.
        st.tuples(st.just("snapshot"), st.one_of(st.integers(-6, 3), st.integers(-60, 60)), st.just(0)),
        st.tuples(st.just("disconnect"), st.just(0), st.just(0)),
    ),
    min_size=1,
    max_size=40,
)


@given(STEPS, st.sampled_from(["binance", "binance-usdm"]))
@settings(deadline=None, max_examples=400)
def test_recorder_and_kernel_agree_on_when_a_spliced_book_is_valid(
    steps: list[tuple[str, int, int]], exchange: str
) -> None:
    chain = CHAINS[exchange]
    sync = BookSync(chain)
    sync.connected()
    last = 100
    kinds: list[int] = []
    ids: list[tuple[int, int, int]] = []
    synced: list[bool] = []
    for what, number, skipped in steps:
        if what == "diff":
            prev = last
            first = last + 1 + 10 * skipped
            if skipped:
                prev = first - 1
            last = first + number - 1
            kinds.append(DIFF)
            ids.append((first, last, prev))
            actions = sync.receive(first, last, prev)
            synced.append(sync.synced)
        elif what == "disconnect":
            actions = sync.disconnected()
        else:
            kinds.append(SPLICE)
            ids.append((NO_ID, last + number, NO_ID))
            actions = sync.receive_snapshot(last + number)
            synced.append(sync.synced)
        for action in actions:
            # What a snapshot covers is no hole of the book: `load_market` leaves it out.
            if isinstance(action, Note) and action.kind == "gap" and "book" not in action.detail:
                kinds.append(GAP if action.next_id is not None else GAP_OPEN)
                ids.append((NO_ID, NO_ID, NO_ID))
                synced.append(sync.synced)
    made = columns(kinds, ids, [[] for _ in kinds])
    assert rebuild(made, chain).valid.tolist() == synced
    assert proven(made, chain).tolist() == synced


@given(st.sampled_from(["binance", "binance-usdm"]), st.integers(1, 200))
@settings(deadline=None, max_examples=50)
def test_recorder_and_kernel_keep_nothing_that_a_snapshot_ahead_of_the_stream_holds(
    exchange: str, ahead: int
) -> None:
    sync = BookSync(CHAINS[exchange])
    sync.connected()
    sync.receive_snapshot(ahead)
    made = columns(
        [SPLICE, *[DIFF] * 300],
        [(NO_ID, ahead, NO_ID), *((i, i, i - 1) for i in range(1, 301))],
        [[] for _ in range(301)],
    )
    book = Book(made, CHAINS[exchange])
    book.step(0)
    for i in range(1, 301):
        sync.receive(i, i, i - 1)
        book.step(i)
        assert sync.synced == book.valid == (i > ahead)
        assert not sync._buffer
        assert book.state[PENDING] == -1


@settings(deadline=None, max_examples=5 if UNCOMPILED else 100)
@given(
    seed=st.integers(0, 2**32 - 1),
    depth=st.sampled_from([0, 10, 500 if UNCOMPILED else 5_000]),
    capacity=st.sampled_from([1, 600, 4_096]),
    spread=st.sampled_from([20, 6_000, 40_000]),
    stride=st.sampled_from([20, 3_000, 30_000]),
    unit=st.sampled_from([0, 1, 100]),
    odd=st.sampled_from([None, 0, 150]),
)
def test_whole_book_holds_what_a_dictionary_holds(
    seed: int, depth: int, capacity: int, spread: int, stride: int, unit: int, odd: int | None
) -> None:
    """The touch walks through the window and out of it, with changes near it and far below the window.

    ``odd``: a message with a price off the unit.
    """
    draw = np.random.default_rng(seed)
    touch = 1_000_000
    whole = [(side, touch + (1 if side else -1) * (1 + 2 * at), 1) for side in (0, 1) for at in range(depth)]
    diffs: list[list[tuple[int, int, int]]] = []
    for _ in range(200):
        touch += int(draw.integers(-stride, stride + 1))
        away = draw.geometric(1 / spread, 30)
        sides = draw.integers(0, 2, 30)
        sizes = draw.integers(0, 3, 30)
        diffs.append(
            [
                (side, touch + (1 if side else -1) * far, size)
                for side, far, size in zip(sides.tolist(), away.tolist(), sizes.tolist(), strict=True)
            ]
        )
    told = [[(side, price * max(unit, 1), size) for side, price, size in own] for own in (whole, *diffs)]
    if odd is not None:
        told[odd].append((0, touch * max(unit, 1) - unit // 2, 7))
    n = len(told)
    made = columns([REPLACE] + [DIFF] * len(diffs), [(i, i, i - 1) for i in range(n)], told)
    unlimited = ChainRule(CHAINS["okx"].rule, spliced=False, max_depth=0)
    book, other = (Book(made, unlimited, capacity, unit) for _ in range(2))
    tops, applied = np.empty((n, 5), np.int64), np.empty(n, np.bool_)
    other.run(0, n, tops, applied)
    held: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for message, levels in enumerate(told):
        book.step(message)
        take(held, levels)
        bid, ask = max(held[0], default=NO_PRICE), min(held[1], default=NO_PRICE)
        assert tops[message].tolist() == [1, bid, held[0].get(bid, 0), ask, held[1].get(ask, 0)]
        for side, price, _ in levels:
            assert level_size(book.arrays, book.state, side, price) == held[side].get(price, 0)
        if message % 50 in (0, 49):
            bids, asks = _ranked(held)
            assert (book.bids(30), book.asks(30)) == (bids[:30], asks[:30])
        if message % 100 == 60:
            assert (book.bids(), book.asks()) == _ranked(held)
    bids, asks = _ranked(held)
    assert (book.bids(), book.asks()) == (bids, asks)
    assert (other.bids(), other.asks()) == (bids, asks)


def _ranked(
    held: tuple[dict[int, int], dict[int, int]],
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    return sorted(held[0].items(), reverse=True), sorted(held[1].items())
