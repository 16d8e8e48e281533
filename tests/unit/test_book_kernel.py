"""The book kernel: when a book is valid, and what is in it."""

from __future__ import annotations

import numpy as np

from mmdata.datasets._kernel import (
    ASK,
    BID,
    DIFF,
    GAP,
    GAP_OPEN,
    PENDING,
    REPLACE,
    SESSION,
    SPLICE,
    WINDOW,
    Columns,
    level_known,
)
from mmdata.datasets.book import NO_PRICE, Book, proven, rebuild
from mmdata.datasets.chain import CHAINS, NO_ID, UNCHAINED, ChainRule

SPOT, USDM, OKX = CHAINS["binance"], CHAINS["binance-usdm"], CHAINS["okx"]
Levels = list[tuple[str, int, int]]


def columns(*messages: tuple[int, int, int, int, Levels]) -> Columns:
    """Messages as (kind, first_id, last_id, prev_id, [(side, ticks, lots)])."""
    kinds, firsts, lasts, prevs, levels = zip(*messages, strict=True)
    flat = [level for own in levels for level in own]
    return Columns(
        kind=np.array(kinds, np.uint8),
        first_id=np.array(firsts, np.int64),
        last_id=np.array(lasts, np.int64),
        prev_id=np.array(prevs, np.int64),
        start=np.cumsum([0, *map(len, levels)]).astype(np.int64),
        side=np.array([side == "ask" for side, _, _ in flat], np.int8),
        price=np.array([price for _, price, _ in flat], np.int64),
        size=np.array([size for _, _, size in flat], np.int64),
    )


def diff(first: int, last: int, levels: Levels, prev: int | None = None) -> tuple[int, int, int, int, Levels]:
    return (DIFF, first, last, first - 1 if prev is None else prev, levels)


def splice(book_id: int, levels: Levels) -> tuple[int, int, int, int, Levels]:
    return (SPLICE, NO_ID, book_id, NO_ID, levels)


def mark(kind: int) -> tuple[int, int, int, int, Levels]:
    return (kind, NO_ID, NO_ID, NO_ID, [])


TWO_SIDES: Levels = [("bid", 100, 5), ("bid", 99, 7), ("ask", 101, 3), ("ask", 103, 9)]


def valid_after(made: Columns, chain: ChainRule) -> list[bool]:
    valid: list[bool] = rebuild(made, chain).valid.tolist()
    return valid


def test_book_is_valid_only_after_the_later_of_snapshot_and_first_message_beyond_it() -> None:
    snapshot_first = columns(mark(SESSION), splice(104, TWO_SIDES), diff(100, 104, []), diff(105, 109, []))
    assert valid_after(snapshot_first, SPOT) == [False, False, False, True]
    diffs_first = columns(mark(SESSION), diff(100, 104, []), diff(105, 109, []), splice(104, TWO_SIDES))
    assert valid_after(diffs_first, SPOT) == [False, False, False, True]


def test_messages_received_before_the_snapshot_are_applied_when_it_arrives() -> None:
    made = columns(
        diff(100, 104, [("bid", 100, 1)]),  # at or below the snapshot: already in it
        diff(105, 109, [("bid", 100, 6)]),
        diff(110, 115, [("ask", 101, 0), ("ask", 102, 4)]),
        splice(104, TWO_SIDES),
    )
    book = Book(made, SPOT)
    for message in range(4):
        book.step(message)
    assert book.valid
    assert book.id == 115
    assert book.bids() == [(100, 6), (99, 7)]
    assert book.asks() == [(102, 4), (103, 9)]


def test_snapshot_older_than_the_first_message_is_dropped_and_the_buffer_kept() -> None:
    made = columns(
        diff(100, 104, [("bid", 98, 1)]),
        diff(105, 109, []),
        splice(90, TWO_SIDES),  # nothing reaches back to 90
        splice(104, TWO_SIDES),
    )
    assert valid_after(made, SPOT) == [False, False, False, True]


def test_break_makes_the_book_invalid_until_a_snapshot_bridged_by_the_message_that_broke() -> None:
    made = columns(
        diff(100, 104, []),
        splice(103, TWO_SIDES),
        diff(105, 109, []),
        diff(115, 119, [("bid", 100, 8)]),  # 110..114 are missing
        mark(GAP),
        splice(112, TWO_SIDES),  # before the message that broke: it does not bridge
        splice(116, TWO_SIDES),
    )
    assert valid_after(made, SPOT) == [False, True, True, False, False, False, True]
    book = Book(made, SPOT)
    for message in range(7):
        book.step(message)
    assert book.bids(1) == [(100, 8)]


def test_recorded_disconnect_makes_a_valid_book_invalid_and_forgets_the_buffer() -> None:
    made = columns(
        diff(100, 104, []), splice(103, TWO_SIDES), mark(GAP_OPEN), diff(110, 114, []), splice(109, TWO_SIDES)
    )
    assert valid_after(made, SPOT) == [False, True, False, False, True]


def test_new_session_continues_the_book_only_if_its_first_message_continues_the_chain() -> None:
    head = (diff(100, 104, []), splice(103, TWO_SIDES), mark(SESSION))
    assert valid_after(columns(*head, diff(105, 106, [])), SPOT) == [False, True, False, True]
    assert valid_after(columns(*head, diff(107, 108, [])), SPOT) == [False, True, False, False]


def test_new_session_without_ids_waits_for_a_whole_book() -> None:
    """Nothing says that its first message continues a book of an hour ago."""
    made = columns(
        mark(SESSION),
        (REPLACE, NO_ID, NO_ID, NO_ID, TWO_SIDES),
        (DIFF, NO_ID, NO_ID, NO_ID, [("bid", 100, 6)]),
        mark(SESSION),
        (DIFF, NO_ID, NO_ID, NO_ID, [("bid", 100, 7)]),
        (REPLACE, NO_ID, NO_ID, NO_ID, TWO_SIDES),
    )
    for chain in (OKX, ChainRule(UNCHAINED, spliced=False, max_depth=0)):
        assert valid_after(made, chain) == [False, True, True, False, False, True]


def test_new_session_with_ids_does_not_continue_a_book_without() -> None:
    head = (mark(SESSION), (REPLACE, NO_ID, NO_ID, NO_ID, TWO_SIDES), mark(SESSION))
    assert valid_after(columns(*head, diff(105, 106, [], prev=NO_ID)), OKX)[-1] is False
    assert valid_after(columns(*head, diff(105, 106, [], prev=NO_ID)), SPOT)[-1] is False


def test_messages_that_a_waiting_snapshot_holds_are_looked_at_once() -> None:
    """The snapshot is far ahead of the stream: nothing below it may pile up, or each message costs all."""
    made = columns(
        diff(90, 94, []), splice(120, TWO_SIDES), *(diff(i, i, [("bid", 100, i)]) for i in range(95, 123))
    )
    book = Book(made, SPOT)
    for message in range(len(made.kind)):
        assert book.state[PENDING] in (-1, message - 1)
        book.step(message)
    assert book.valid
    assert book.id == 122
    assert book.bids(1) == [(100, 122)]


def test_an_older_snapshot_than_the_one_that_dropped_messages_does_not_bridge() -> None:
    made = columns(
        diff(90, 94, []), diff(95, 99, []), splice(99, TWO_SIDES), splice(92, TWO_SIDES), diff(100, 104, [])
    )
    assert valid_after(made, SPOT) == [False] * 5
    assert valid_after(columns(*rows_of(made), splice(99, TWO_SIDES)), SPOT)[-1]


def rows_of(made: Columns) -> list[tuple[int, int, int, int, Levels]]:
    return [
        (int(kind), int(first), int(last), int(prev), TWO_SIDES if kind == SPLICE else [])
        for kind, first, last, prev in zip(made.kind, made.first_id, made.last_id, made.prev_id, strict=True)
    ]


def test_ids_alone_say_where_the_book_is_proven() -> None:
    made = columns(
        mark(SESSION),
        diff(100, 104, [("bid", 98, 1)]),
        splice(103, TWO_SIDES),
        diff(105, 109, []),
        diff(115, 119, []),
        splice(116, TWO_SIDES),
        mark(GAP_OPEN),
    )
    assert proven(made, SPOT).tolist() == valid_after(made, SPOT)
    assert proven(made, SPOT).tolist() == [False, False, True, True, False, True, False]


def test_beyond_a_full_window_a_price_is_unknown() -> None:
    full: Levels = [("bid", 1000 - i, 1) for i in range(400)] + [("ask", 1001 + i, 1) for i in range(399)]
    book = Book(columns((REPLACE, 1, 1, -1, full)), OKX)
    book.step(0)
    assert level_known(book.arrays, book.state, BID, 601)
    assert not level_known(book.arrays, book.state, BID, 600)
    assert level_known(book.arrays, book.state, ASK, 5000)  # 399 of 400: all that there are
    whole = Book(columns((REPLACE, 1, 1, -1, full)), SPOT)
    whole.step(0)
    assert level_known(whole.arrays, whole.state, BID, 1)


def test_audit_of_a_valid_book_changes_nothing() -> None:
    made = columns(diff(100, 104, []), splice(103, TWO_SIDES), splice(104, [("bid", 1, 1)]))
    book = Book(made, SPOT)
    for message in range(3):
        book.step(message)
    assert book.bids(1) == [(100, 5)]


def test_usdm_message_must_name_the_one_before() -> None:
    made = columns(
        splice(500, TWO_SIDES),
        diff(480, 490, [], prev=470),
        diff(491, 505, [], prev=490),
        diff(520, 530, [], prev=505),
        diff(540, 550, [], prev=535),
    )
    assert valid_after(made, USDM) == [False, False, True, True, False]


def test_okx_snapshot_replaces_both_sides_at_any_time() -> None:
    made = columns(
        diff(9, 9, [("bid", 50, 1)], prev=8),  # before any snapshot: nothing to build on
        (REPLACE, 10, 10, -1, TWO_SIDES),
        diff(15, 15, [("bid", 100, 0)], prev=10),
        (REPLACE, 40, 40, -1, [("ask", 105, 1)]),
    )
    book = Book(made, OKX)
    seen = []
    for message in range(4):
        book.step(message)
        seen.append((book.valid, book.bids(1), book.asks(1)))
    assert seen == [
        (False, [], []),
        (True, [(100, 5)], [(101, 3)]),
        (True, [(99, 7)], [(101, 3)]),
        (True, [], [(105, 1)]),
    ]


def test_okx_book_is_cut_to_the_400_levels_that_the_feed_speaks_of() -> None:
    bids: Levels = [("bid", 1000 - i, 1) for i in range(400)]
    made = columns((REPLACE, 1, 1, -1, bids), diff(2, 2, [("bid", 2000, 1)], prev=1))
    book = Book(made, OKX)
    book.step(0)
    book.step(1)
    assert len(book.bids()) == 400
    assert book.bids(1) == [(2000, 1)]
    assert book.bids()[-1] == (602, 1)


def test_deleting_a_level_that_is_not_there_is_harmless() -> None:
    made = columns((REPLACE, 1, 1, -1, TWO_SIDES), diff(2, 2, [("bid", 98, 0), ("ask", 102, 0)], prev=1))
    tops = rebuild(made, OKX)
    assert tops.bid_price.tolist() == [100, 100]


def test_of_a_price_twice_in_one_message_the_later_wins() -> None:
    made = columns((REPLACE, 1, 1, -1, TWO_SIDES), diff(2, 2, [("bid", 100, 1), ("bid", 100, 2)], prev=1))
    assert rebuild(made, OKX).bid_size.tolist() == [5, 2]


def test_empty_side_and_invalid_book_show_no_price() -> None:
    made = columns(diff(1, 1, [], prev=0), (REPLACE, 2, 2, -1, [("ask", 101, 3)]))
    tops = rebuild(made, OKX)
    assert tops.bid_price.tolist() == [NO_PRICE, NO_PRICE]
    assert tops.ask_price.tolist() == [NO_PRICE, 101]


def test_book_grows_beyond_its_first_capacity() -> None:
    levels: Levels = [("bid", price, 1) for price in range(1, 10_000)]
    made = columns((REPLACE, 1, 1, -1, levels))
    unlimited = ChainRule(OKX.rule, spliced=False, max_depth=0)
    book = Book(made, unlimited, capacity=16)
    book.step(0)
    assert len(book.bids()) == 9_999
    assert rebuild(made, unlimited).bid_price.tolist() == [9_999]


def test_level_far_below_a_window_that_is_empty_is_the_best() -> None:
    made = columns(
        (REPLACE, 1, 1, -1, [("bid", 1_000_000, 5)]),
        diff(2, 2, [("bid", 1_000_000, 0)], prev=1),
        diff(3, 3, [("bid", 10, 4), ("bid", 7, 2)], prev=2),
        diff(4, 4, [("bid", 10, 0)], prev=3),
    )
    unlimited = ChainRule(OKX.rule, spliced=False, max_depth=0)
    tops = rebuild(made, unlimited)
    assert tops.bid_price.tolist() == [1_000_000, NO_PRICE, 10, 7]
    assert tops.bid_size.tolist() == [5, 0, 4, 2]


def test_message_that_is_near_in_parts_is_taken_whole() -> None:
    """The window is left without levels by the last row, or a level far below stands between near ones."""
    far = 100 - 3 * WINDOW
    made = columns(
        mark(SESSION),
        splice(104, [("bid", 100, 5), ("ask", 101, 3)]),
        diff(105, 109, [("bid", 99, 7), ("bid", far, 4), ("bid", 98, 2), ("ask", 102, 6)]),
        diff(110, 112, [("ask", 101, 0), ("bid", 98, 0), ("bid", 99, 0), ("bid", 100, 0)]),
        diff(113, 115, [("bid", far, 8), ("bid", 90, 1), ("ask", 104, 9)]),
    )
    tops = rebuild(made, SPOT)
    assert tops.valid.tolist() == [False, False, True, True, True]
    assert tops.bid_price[2:].tolist() == [100, far, 90]
    assert tops.bid_size[2:].tolist() == [5, 4, 1]
    assert tops.ask_price[2:].tolist() == [101, 102, 102]
    book = Book(made, SPOT)
    for message in range(5):
        book.step(message)
    assert book.bids() == [(90, 1), (far, 8)]
    assert book.asks() == [(102, 6), (104, 9)]
