"""The checks by themselves: chains, messages, audits, arrivals, minutes; each on a few numbers."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.datasets._kernel import ASK, BID, DIFF, GAP, NO_PRICE, REPLACE, SESSION, SPLICE
from mmdata.datasets.chain import CHAINS, NO_ID
from mmdata.datasets.errors import ConfigError
from mmdata.datasets.histogram import Histogram
from mmdata.datasets.market import NO_TIME
from mmdata.datasets.validation import Thresholds, read_thresholds
from mmdata.datasets.validation._kernels import copy_whole, find_nearest, is_orderly, read_only
from mmdata.datasets.validation.arrivals import MINUTE_NS, Channel, Limits, latency_of
from mmdata.datasets.validation.audits import Shown, compare, find_message
from mmdata.datasets.validation.books import marks, merged
from mmdata.datasets.validation.chains import AGAIN, BACK, HOLE, LATE, TWICE, BookChain, TradeChains, match
from mmdata.datasets.validation.events import Clock, Event, SessionFacts, contradictions
from mmdata.datasets.validation.messages import Messages, book_messages
from mmdata.datasets.validation.minutes import coverage
from mmdata.datasets.validation.rows import Units, no_rows
from mmdata.datasets.validation.streams import whole

REPOSITORY = Path(__file__).parents[2]


def ints(*values: int) -> Any:
    return np.array(values, np.int64)


# --- chains of books


def messages(*ids: tuple[int, int, int], kind: int = DIFF, begin: int = 0) -> Messages:
    """Return messages of (first, last, prev), at places 10, 20, ..."""
    places = [(begin + 10 * at + 10, kind, begin + at) for at in range(len(ids))]
    table = np.array(ids, np.int64).reshape(len(ids), 3)
    return marks(places)._replace(first_id=table[:, 0], last_id=table[:, 1], prev_id=table[:, 2])


def spot(*spans: tuple[int, int]) -> Messages:
    return messages(*((first, last, first - 1) for first, last in spans))


def linked(*links: tuple[int, int]) -> Messages:
    return messages(*((last, last, prev) for prev, last in links))


def broken(exchange: str, *chunks: Messages) -> list[tuple[int, int, int, int]]:
    chain = BookChain(CHAINS[exchange])
    return [(own.order, own.at, own.builds_on, own.id) for chunk in chunks for own in chain.take(chunk)]


def test_spot_overlap_and_repeat_continue_and_a_hole_is_a_break() -> None:
    assert broken("binance", spot((1, 5), (6, 9), (8, 12), (3, 4), (13, 14))) == []
    assert broken("binance", spot((1, 5), (7, 9), (10, 12))) == [(20, 5, 7, 9)]


def test_chain_goes_on_over_chunks() -> None:
    first, second = spot((1, 5), (6, 9)), spot((11, 12))
    assert broken("binance", first, second) == [(10, 9, 11, 12)]


def test_two_neighbours_in_the_wrong_order_are_one_break() -> None:
    assert [own[0] for own in broken("binance", spot((1, 5), (11, 15), (6, 10), (16, 20)))] == [20]
    swapped = messages((2, 5, 1), (12, 15, 10), (6, 10, 5), (17, 20, 15))
    assert [own[0] for own in broken("binance-usdm", swapped)] == [20]
    assert [own[0] for own in broken("okx", linked((1, 5), (10, 15), (5, 10), (15, 20)))] == [20]


def test_okx_heartbeat_maintenance_reset_and_repeat_continue() -> None:
    assert broken("okx", linked((1, 5), (5, 5), (5, 9), (9, 2), (2, 3), (2, 3), (3, 8))) == []


def test_okx_ids_that_begin_anew_without_the_rule_break_at_the_first() -> None:
    assert broken("okx", linked((900, 1000), (50, 60), (60, 70), (70, 80))) == [(20, 1000, 50, 60)]


def test_low_message_that_the_recorder_took_for_a_hole_is_a_break() -> None:
    low = linked((900, 1000), (50, 60))
    gap = marks([(21, GAP, 5)])._replace(first_id=ints(50))
    assert broken("okx", merged([(1, low), (2, gap)])) == [(20, 1000, 50, 60)]


def test_late_message_is_no_break_though_the_hole_that_it_left_is_put_on_record_behind_it() -> None:
    late = spot((1, 5), (10, 15), (6, 9), (16, 20))
    gap = marks([(31, GAP, 5)])._replace(first_id=ints(10))
    assert broken("binance", merged([(1, late), (2, gap)])) == [(20, 5, 10, 15)]


def test_stream_snapshot_and_session_begin_a_chain() -> None:
    snapshot = messages((50, 50, NO_ID), kind=REPLACE, begin=100)
    assert broken("okx", linked((1, 5)), snapshot, linked((50, 51))) == []
    assert broken("binance", spot((1, 5)), marks([(5, SESSION, 5)]), spot((90, 95), (97, 99))) == [
        (20, 95, 97, 99)
    ]


def test_hole_that_a_waiting_snapshot_covers_is_none() -> None:
    snapshot = marks([(15, SPLICE, 5)])._replace(last_id=ints(8))
    chunk = merged([(1, spot((1, 5), (7, 9))), (1, snapshot)])
    assert broken("binance", chunk) == []
    old = marks([(15, SPLICE, 5)])._replace(last_id=ints(5))
    assert broken("binance", merged([(1, spot((1, 5), (7, 9))), (1, old)])) == [(20, 5, 7, 9)]


# --- chains of trades


def stepped(first: Any, last: Any = None, order: Any = None, chunk: int = 100) -> list[tuple[int, int, int]]:
    last = first if last is None else last
    order = np.arange(len(first)) if order is None else order
    chains = TradeChains()
    kinds = np.zeros(len(first), np.int8)
    found = []
    for at in range(0, len(first), chunk):
        own = slice(at, at + chunk)
        found += chains.take(kinds[own], first[own], last[own], order[own], order[own])
    return [(step.what, step.order, step.top) for step in (*found, *chains.end())]


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_trade_steps_tell_holes_repeats_late_ones_and_a_new_count(chunk: int) -> None:
    assert stepped(ints(1, 4, 8, 8), ints(3, 6, 8, 9), chunk=chunk) == [(HOLE, 2, 6)]
    assert stepped(ints(1, 2, 2), chunk=chunk) == [(AGAIN, 2, 2)]
    assert stepped(ints(5, 7, 6, 8, 9), chunk=chunk) == [(HOLE, 1, 5), (LATE, 2, 7)]
    assert stepped(ints(50, 51, 3, 4, 6, 7), chunk=chunk) == [(BACK, 2, 51), (HOLE, 4, 4)]
    assert stepped(ints(5, 5, 6), chunk=chunk) == [(AGAIN, 1, 5)]
    assert stepped(ints(5, 9, 6, 7), chunk=chunk) == [(HOLE, 1, 5), (LATE, 2, 9), (LATE, 3, 9)]


def test_trade_that_stands_twice_in_one_frame_is_told_from_one_sent_again() -> None:
    assert stepped(ints(1, 2, 1, 2, 3), order=ints(0, 0, 0, 0, 1)) == [(TWICE, 0, 2), (TWICE, 0, 2)]


def test_each_session_has_a_chain_of_its_own() -> None:
    later = 1 << 40
    assert stepped(ints(1, 2, 90, 91), order=ints(0, 1, later, later + 1)) == []


# --- gap events


def gap(frame: int, last_id: int | None, next_id: int | None) -> Event:
    return Event("s", frame, 0, "gap", None, "depth", last_id, next_id, {}, "f", 0)


def test_gap_events_are_matched_by_ids_then_by_place() -> None:
    breaks = BookChain(CHAINS["binance"]).take(spot((1, 5), (7, 9), (12, 14), (20, 21)))
    found = match(breaks, [gap(21, 5, 7), gap(31, 9, 11), gap(900, 1, 2), gap(7, 1, None)], {"s": 0})
    assert [event.last_id for _, event in found.recorded] == [5]
    assert [(own.order, event.next_id) for own, event in found.misquoted] == [(30, 11), (40, 2)]
    assert (found.unrecorded, found.invented) == ([], [])
    found = match(breaks[:1], [gap(5000, 1, 2)], {"s": 0})
    assert (len(found.unrecorded), len(found.invented)) == (1, 1)


# --- rows and quotes


def test_rows_are_sound_where_order_date_and_values_are() -> None:
    order, times = ints(5, 5, 7), ints(10, 12, 11)
    assert is_orderly(5, 10, 13, order, times)
    assert not is_orderly(6, 10, 13, order, times)
    assert not is_orderly(5, 11, 13, order, times)
    assert not is_orderly(5, 10, 12, order, times)
    assert not is_orderly(5, 10, 13, order[::-1].copy(), times)


@pytest.mark.parametrize(
    ("values", "is_whole"),
    [
        ((20, 40, NO_PRICE), True),
        ((20, 30), False),
        ((0,), False),
        ((-20,), False),
        ((20 * 2**50 + 1,), False),
    ],
)
def test_values_are_copied_and_seen_to_be_whole(values: tuple[int, ...], is_whole: bool) -> None:
    every_second = np.repeat(ints(*values), 2)[::2]
    copy = np.empty(len(values), np.int64)
    assert copy_whole(every_second, 20, 1, NO_PRICE, copy) == is_whole
    assert copy.tolist() == [*values]


def test_ids_are_found_in_whatever_order_they_are_asked_for_and_the_nearest_of_equal_ones() -> None:
    ids, places = ints(2, 4, 4, 4, 7, 9), ints(20, 10, 30, 50, 70, 90)
    asked, asked_at = ints(1, 4, 4, 4, 9, 10, 3, 2, 7), ints(0, 12, 20, 60, 0, 0, 0, 99, 70)
    rows, nearest = np.empty((2, len(asked)), np.int64)
    ids, places, asked, asked_at = read_only(ids, places, asked, asked_at)
    found = find_nearest(ids, places, asked, asked_at, rows, nearest)
    assert rows[:found].tolist() == [1, 2, 3, 4, 7, 8]
    assert nearest[:found].tolist() == [1, 1, 3, 5, 0, 4]  # of 10 and 30 for 20 the first


# --- messages


def depth(*rows: tuple[int, int, int, int, int, bool]) -> dict[str, Any]:
    """Return rows of (order, last_id, side, price, size, is_last)."""
    table = np.array(rows, np.int64).reshape(len(rows), 6)
    n = len(rows)
    return no_rows("depth", Units()) | {
        "order": table[:, 0],
        "last_id": table[:, 1],
        "first_id": table[:, 1],
        "prev_id": table[:, 1] - 1,
        "ts_recv": table[:, 0],
        "ts_event": table[:, 0],
        "checksum": np.full(n, NO_ID),
        "conn": np.zeros(n, np.int64),
        "side": table[:, 2].astype(np.int8),
        "price": table[:, 3],
        "size": table[:, 4],
        "is_snapshot": np.zeros(n, np.bool_),
        "is_last": table[:, 5].astype(np.bool_),
    }


GOOD = ((1, 5, BID, 10, 1, False), (1, 5, ASK, 12, 1, True), (2, 6, BID, 10, 2, True))


def test_messages_end_at_their_last_row() -> None:
    found, faults = book_messages(depth(*GOOD))
    assert (found.last_id.tolist(), found.levels.tolist()) == ([5, 6], [2, 1])
    assert [places.size for places in faults] == [0] * 5


def test_message_without_levels_is_a_message() -> None:
    rows = depth(*GOOD, (3, 6, -1, NO_PRICE, 0, True))
    found, _ = book_messages(rows)
    assert (found.levels.tolist(), found.price.tolist()) == ([2, 1, 0], [10, 12, 10])


def test_pieces_behind_one_another_cut_no_frame() -> None:
    rows = depth(*GOOD, (3, 7, BID, 9, 1, False), (3, 7, ASK, 13, 1, True), (4, 8, BID, 9, 0, True))
    for cut in range(1, 6):
        before, behind = (
            {name: column[part] for name, column in rows.items()} for part in (slice(cut), slice(cut, None))
        )
        pieces = whole(before, behind)
        assert [row for piece in pieces for row in piece["order"].tolist()] == rows["order"].tolist()
        assert all(one["order"][-1] < other["order"][0] for one, other in pairwise(pieces))
        found = merged([(1, book_messages(piece)[0]) for piece in pieces])
        for own, expected in zip(found, book_messages(rows)[0], strict=True):
            np.testing.assert_array_equal(own, expected)


def test_each_fault_of_a_message_is_told_and_mended() -> None:
    unended = depth(GOOD[0], (1, 5, ASK, 12, 1, False), GOOD[2])
    twice = depth((1, 5, BID, 10, 1, True), GOOD[1], GOOD[2])
    unsorted = depth((1, 5, ASK, 12, 1, False), (1, 5, BID, 10, 1, True), GOOD[2])
    copied = depth(*GOOD[:2], *GOOD)
    for at, rows in ((0, unended), (1, twice), (3, unsorted), (4, copied)):
        found, faults = book_messages(rows)
        assert [places.tolist() for places in faults] == [[1] if own == at else [] for own in range(5)]
        assert (found.last_id.tolist(), found.levels.tolist(), len(found.price)) == ([5, 6], [2, 1], 3)


def test_most_rows_of_a_message_are_believed() -> None:
    found, faults = book_messages(
        depth((1, 5, BID, 10, 1, False), (1, 7, BID, 9, 1, False), (1, 5, ASK, 12, 1, True))
    )
    assert (faults.differing.tolist(), found.last_id.tolist()) == ([1], [5])


# --- audits


def side(*levels: tuple[int, int]) -> Any:
    return ints(*(price for price, _ in levels)), ints(*(size for _, size in levels))


def audit(bids: Any, asks: Any, audit_id: int = 7) -> Shown:
    return Shown(100, 0, audit_id, (bids[0], asks[0]), (bids[1], asks[1]))


NOTHING = [ints(), ints()]
ASKS = side((20, 1))


def test_audit_tells_stale_missing_and_unknown_levels_apart() -> None:
    book = [side((10, 1), (9, 2), (8, 3), (7, 9)), ASKS]
    shown = audit(side((10, 1), (9, 5), (6, 4), (5, 1), (3, 1)), ASKS)
    found = compare(shown, book, NOTHING, [5, 99])
    [band] = found.bands
    # 9 has another size, 8 and 7 are not there; 6 and 5 are missing, 3 lies beyond the book's snapshot.
    assert (band.levels, band.equal, band.stale, band.missing, band.beyond) == (6, 2, 3, 2, 1)
    assert found.wrong == {(BID, 9), (BID, 8), (BID, 7), (BID, 6), (BID, 5)}
    assert band.share == 2 / 7


def test_levels_that_the_message_across_the_audit_changes_are_not_judged() -> None:
    book = [side((10, 1), (8, 3)), ASKS]
    found = compare(audit(side((10, 2), (9, 1), (8, 3)), ASKS), book, [ints(10, 9), ints()], [None, None])
    assert (found.wrong, found.bands[0].unjudged, found.bands[0].equal) == (set(), 2, 2)


def test_book_beyond_the_audits_last_level_is_not_judged() -> None:
    book = [side((10, 1), (9, 1), (2, 1)), ASKS]
    assert compare(audit(side((10, 1), (9, 1)), ASKS), book, NOTHING, [None, None]).wrong == set()


def test_audit_is_compared_after_the_message_that_reaches_its_id() -> None:
    chunk = messages((1, 5, 0), (6, 9, 5), (10, 12, 9))
    assert [find_message(chunk, audit(ASKS, ASKS, number)) for number in (5, 6, 9, 10, 13)] == [
        0,
        1,
        1,
        2,
        None,
    ]


# --- arrivals

LIMITS = Limits(silence=5_000_000_000, late=1_000, late_share=0.01, event_back=0, early=0)


def test_latency_counts_what_is_negative_and_skips_what_has_no_time() -> None:
    channel = Channel("depth", LIMITS)
    channel.take(ints(1, 2, 3, 4), ints(10, 20, 30, 40), ints(5, 25, NO_TIME, 30), None, 0)
    [day] = channel.days.values()
    found = latency_of("depth", day.raw, corrected=False)
    assert (found.count, found.min, found.max, found.negative_share) == (3, -5, 10, 1 / 3)
    assert day.early == 1


def test_histogram_is_exact_below_a_thousand_and_close_above() -> None:
    values = np.concatenate((np.arange(-1000, 1000), np.geomspace(1e4, 1e15, 2001).astype(np.int64)))
    whole, halves = Histogram(), Histogram()
    whole.add(values)
    for part in (values[:700], values[700:]):
        own = Histogram()
        own.add(part)
        halves.join(own)
    found = latency_of("x", whole, corrected=False)
    assert found == latency_of("x", halves, corrected=False)
    assert (found.min, found.max) == (-1000, int(values.max()))
    exact = [int(np.sort(values)[int(share * len(values))]) for share in (0.5, 0.9, 0.99, 0.999)]
    got = [found.p50, found.p90, found.p99, found.p999]
    assert all(abs(own - true) <= abs(true) / 512 for own, true in zip(got, exact, strict=True))


def test_steps_of_both_clocks_and_pauses_are_found_over_chunks() -> None:
    channel = Channel("depth", LIMITS)
    second = 1_000_000_000
    channel.take(ints(1, 2), ints(10, 20) * second, ints(10, 20), None, 0)
    channel.take(ints(3, 4), ints(19, 30) * second, ints(19, 21), None, 0)
    assert [(step.before, step.order, step.by) for step in channel.recv_steps] == [(2, 3, second)]
    assert [(step.before, step.order, step.by) for step in channel.event_steps] == [(2, 3, 1)]
    assert [(pause.before, pause.order) for pause in channel.pauses] == [(1, 2), (3, 4)]
    channel.take(ints(1 << 40), ints(90) * second, ints(1), None, 0)  # another session
    assert len(channel.pauses) == 2


@pytest.mark.parametrize("cuts", [(), (1,), (2,), (1, 2)])
def test_rows_without_a_time_within_a_pause_say_that_it_was_none(cuts: tuple[int, ...]) -> None:
    channel = Channel("depth", LIMITS)
    order, ts_recv = ints(1, 2, 3, 4), ints(10, NO_TIME, 90, 190)
    ts_recv[ts_recv != NO_TIME] *= 1_000_000_000
    for begin, end in pairwise((0, *cuts, 4)):
        channel.take(order[begin:end], ts_recv[begin:end], ts_recv[begin:end], None, 0)
    assert [(pause.before, pause.order) for pause in channel.pauses] == [(3, 4)]


def test_late_minutes_that_follow_each_other_are_one_run() -> None:
    channel = Channel("depth", LIMITS)
    times = ints(*(at * MINUTE_NS for at in (1, 2, 3, 5)))
    channel.take(ints(1, 2, 3, 4), times, times - ints(2000, 3000, 10, 1500), None, 0)
    channel.end()
    [day] = channel.days.values()
    assert [(run.order, run.count, run.minutes, run.worst) for run in day.late] == [
        (1, 2, 2, 3000),
        (4, 1, 1, 1500),
    ]
    assert (day.p50, day.count) == ([2000, 3000, 10, 1500], [1, 1, 1, 1])


def test_latency_is_corrected_by_the_clock_between_two_measurements() -> None:
    clock = Clock(ints(0, 100), ints(50, 150), ints(1, 1))
    assert clock.at(ints(0, 50, 100, 500)).tolist() == [50, 100, 150, 150]
    channel = Channel("depth", LIMITS)
    channel.take(ints(1), ints(50), ints(140), clock.at(ints(50)), 1)
    [day] = channel.days.values()
    assert (day.corrected.least, day.raw.least, day.early) == (10, -90, 0)


# --- minutes, sessions, thresholds


def test_coverage_tells_data_holes_and_missing_minutes_apart() -> None:
    has_data, in_hole = np.zeros(1440, np.bool_), np.zeros(1440, np.bool_)
    has_data[[10, 11, 13, 20]] = True
    in_hole[[11, 12]] = True
    window = [(10 * MINUTE_NS, 16 * MINUTE_NS + 5)]
    found = coverage(0, window, has_data, in_hole, None, is_open=False)
    assert found.strip[8:18] == "..#oo#xx.."
    assert (found.expected, found.covered, found.in_hole, found.missing) == (6, 2, 2, 2)
    by_span = coverage(0, [], has_data, in_hole, None, is_open=False)
    assert (by_span.source, by_span.strip[9:22]) == ("span", ".#oo#xxxxxx#.")
    still_written = coverage(0, [(10 * MINUTE_NS, 90 * MINUTE_NS)], has_data, in_hole, None, is_open=True)
    assert still_written.strip[21:] == "." * (1440 - 21)


def test_events_of_a_session_that_contradict_each_other_are_named() -> None:
    def event(kind: str, conn: int | None = None) -> Event:
        return Event("s", 0, 0, kind, conn, None, None, None, {}, "f", 0)

    good = [event("connected", 0), event("connected", 1), event("disconnected", 0), event("session_end")]
    assert [*contradictions(SessionFacts(events=good))] == []
    bad = [event("connected", 0), event("connected", 0), event("disconnected", 3), *good[3:], *good[3:]]
    said = [what for _, what in contradictions(SessionFacts(events=bad))]
    assert said == [
        "connection 0 connects, though it is connected already",
        "connection 3 ends, though it is not connected",
        "the session ends twice",
    ]


def test_the_documented_thresholds_are_the_defaults() -> None:
    assert read_thresholds(REPOSITORY / "config/validation/thresholds.yaml") == Thresholds()


def test_threshold_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "thresholds.yaml"
    path.write_text("silence: {depth: 3}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"unknown field `depth` - at `\$\.silence`; nothing was validated"):
        read_thresholds(path)
    path.write_text("", encoding="utf-8")
    assert read_thresholds(path) == Thresholds()
    with pytest.raises(ConfigError, match="cannot be read"):
        read_thresholds(tmp_path / "none.yaml")
