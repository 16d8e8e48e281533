"""The recorder's machine: what is asked for, what is noted."""

from __future__ import annotations

from mmdata.datasets.booksync import Ask, BookSync, Note, TradeChain
from mmdata.datasets.chain import CHAINS

SPOT, OKX = CHAINS["binance"], CHAINS["okx"]


def spot(book: BookSync, first: int, last: int) -> list[Ask | Note]:
    return list(book.receive(first, last, first - 1))


def test_spliced_book_asks_for_a_snapshot_when_it_is_connected() -> None:
    assert list(BookSync(SPOT).connected()) == [Ask("start")]


def test_snapshot_older_than_the_buffer_is_asked_for_again_and_the_buffer_kept() -> None:
    book = BookSync(SPOT)
    spot(book, 100, 104)
    spot(book, 105, 109)
    assert list(book.receive_snapshot(90)) == [Ask("start")]
    assert list(book.receive_snapshot(104)) == [Note("synced", 109, None, {})]
    assert book.synced


def test_snapshot_ahead_of_the_stream_waits_for_the_message_beyond_it() -> None:
    book = BookSync(SPOT)
    spot(book, 100, 104)
    assert list(book.receive_snapshot(120)) == []
    assert spot(book, 105, 118) == []
    assert spot(book, 119, 125) == [Note("synced", 125, None, {})]


def test_gap_asks_for_one_snapshot_and_keeps_the_message_that_showed_it() -> None:
    book = BookSync(SPOT)
    spot(book, 100, 104)
    book.receive_snapshot(103)
    assert spot(book, 110, 114) == [Note("gap", 104, 110, {"cause": "missing"}), Ask("gap")]
    assert spot(book, 115, 117) == []
    assert list(book.receive_snapshot(112)) == [Note("synced", 117, None, {})]


def test_every_hole_is_noted_while_the_book_waits_for_a_snapshot_too() -> None:
    """Seen with a ban of ten seconds: what was lost meanwhile was on no record, and `validate` said so."""
    book = BookSync(SPOT)
    spot(book, 100, 104)
    book.receive_snapshot(103)
    spot(book, 110, 114)
    assert spot(book, 120, 124) == [Note("gap", 114, 120, {"cause": "missing"})]
    assert not book.synced
    assert list(book.receive_snapshot(112)) == [Ask("gap")]
    assert list(book.receive_snapshot(121)) == [Note("synced", 124, None, {})]
    okx = BookSync(OKX)
    okx.receive(5, 5, 4)
    assert list(okx.receive(9, 9, 7)) == [Note("gap", 5, 7, {"cause": "missing"})]
    assert list(okx.disconnected()) == [Note("gap", 9, None, {"cause": "disconnect"})]


def test_snapshot_of_the_old_count_is_not_waited_for_after_a_new_one_began() -> None:
    book = BookSync(SPOT)
    spot(book, 500, 504)
    assert list(book.receive_snapshot(520)) == []
    assert spot(book, 10, 14) == []
    assert spot(book, 15, 19) == [Note("gap", 504, 15, {"cause": "reset"}), Ask("gap")]
    assert list(book.receive_snapshot(17)) == [Note("synced", 19, None, {})]


def test_snapshot_that_the_stream_does_not_reach_is_asked_for_again() -> None:
    """Seen: ids began anew, and the venue answered with a book of some seconds ago."""
    book = BookSync(SPOT)
    spot(book, 500, 504)
    spot(book, 10, 14)
    spot(book, 15, 19)
    assert list(book.receive_snapshot(490)) == []
    asked = [list(book.receive(first, first, first - 1)) for first in range(20, 320)]
    assert asked == [[]] * 298 + [[Ask("gap")], []]
    assert list(book.receive_snapshot(319)) == []
    assert spot(book, 320, 330) == [Note("synced", 330, None, {})]


def test_repeats_and_overlaps_are_no_gaps() -> None:
    book = BookSync(SPOT)
    spot(book, 100, 104)
    book.receive_snapshot(103)
    assert spot(book, 100, 104) == []
    assert spot(book, 103, 107) == []
    assert book.book_id == 107


def test_disconnect_of_a_whole_book_is_a_gap_whose_end_is_not_known() -> None:
    book = BookSync(SPOT)
    spot(book, 100, 104)
    book.receive_snapshot(103)
    assert list(book.disconnected()) == [Note("gap", 104, None, {"cause": "disconnect"})]
    assert list(book.disconnected()) == []
    assert book.reason == "gap"


def test_okx_starts_at_the_snapshot_of_the_stream_and_never_splices() -> None:
    book = BookSync(OKX)
    assert list(book.connected()) == []
    assert list(book.receive(5, 5, 4)) == []
    assert list(book.receive(10, 10, -1, is_snapshot=True)) == [Note("synced", 10, None, {})]
    assert book.reason == "audit"
    assert list(book.receive_snapshot(11)) == []


def test_okx_gap_names_what_the_breaking_message_builds_on_and_waits_for_a_new_snapshot() -> None:
    book = BookSync(OKX)
    book.receive(10, 10, -1, is_snapshot=True)
    book.receive(15, 15, 10)
    assert list(book.receive(30, 30, 20)) == [Note("gap", 15, 20, {"cause": "missing"}), Ask("gap")]
    assert list(book.receive(40, 40, 30)) == []
    assert list(book.receive(50, 50, -1, is_snapshot=True)) == [Note("synced", 50, None, {})]


def test_hole_that_a_waiting_snapshot_covers_is_noted_and_leaves_the_book_whole() -> None:
    book = BookSync(SPOT)
    book.connected()
    book.receive(96, 100, 95)
    book.receive_snapshot(200)  # ahead of the stream
    assert list(book.receive(111, 220, 110)) == [
        Note("gap", 100, 111, {"cause": "missing", "book": "covered"}),
        Note("synced", 220, None, {}),
    ]
    assert book.synced


def test_missing_trades_are_noted_with_the_ids_around_them() -> None:
    trades = TradeChain()
    assert list(trades.receive(7, 7)) == []
    assert list(trades.receive(8, 10)) == []
    assert list(trades.receive(13, 13)) == [Note("gap", 10, 13, {"cause": "missing"})]
    trades.disconnected()
    assert list(trades.receive(20, 20)) == [Note("gap", 13, 20, {"cause": "disconnect"})]


def test_trade_that_comes_late_or_again_leaves_the_chain_where_it_is() -> None:
    trades = TradeChain()
    trades.receive(7, 9)
    assert list(trades.receive(8, 8)) == []
    assert list(trades.receive(10, 10)) == []
    assert list(trades.receive(12, 12)) == [Note("gap", 10, 12, {"cause": "missing"})]
    assert list(trades.receive(11, 11)) == []  # it was overtaken
    assert list(trades.receive(13, 13)) == []


def test_late_trades_that_follow_each_other_into_a_hole_begin_no_new_count() -> None:
    trades = TradeChain()
    trades.receive(7, 9)
    assert list(trades.receive(13, 13)) == [Note("gap", 9, 13, {"cause": "missing"})]
    assert [*trades.receive(10, 10), *trades.receive(11, 11), *trades.receive(12, 12)] == []
    assert list(trades.receive(14, 14)) == []
    assert list(trades.receive(3, 3)) == []
    assert list(trades.receive(4, 4)) == [Note("gap", 14, 3, {"cause": "reset"})]
    # The old count's hole does not reach into the new one.
    assert list(trades.receive(10, 10)) == [Note("gap", 4, 10, {"cause": "missing"})]


def test_two_trades_below_the_last_that_follow_each_other_begin_a_new_count() -> None:
    trades = TradeChain()
    trades.receive(7, 9)
    assert list(trades.receive(1, 1)) == []
    assert list(trades.receive(2, 2)) == [Note("gap", 9, 1, {"cause": "reset"})]
    assert list(trades.receive(3, 3)) == []
