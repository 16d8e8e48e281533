"""Several connections merged: nothing twice, nothing out of order, nothing missing that one brought."""

from __future__ import annotations

import random
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mmdata.datasets.chain import LINKED, NO_ID, RANGE
from mmdata.recorder.merge import Merge, MergeState

Message = tuple[int, int]
"""Last id, and that of the message before."""


def chained(steps: list[int]) -> list[Message]:
    """Return messages that continue each other, of which each covers so many ids."""
    ids = [100]
    for step in steps:
        ids.append(ids[-1] + step)
    return [(last, prev) for prev, last in pairwise(ids)]


def interleaved(draw: random.Random, legs: dict[int, list[Message]]) -> list[tuple[int, Message]]:
    """Mix what the legs bring; each keeps its own order."""
    waiting = {conn: iter(messages) for conn, messages in legs.items()}
    order = [conn for conn, messages in legs.items() for _ in messages]
    draw.shuffle(order)
    return [(conn, next(waiting[conn])) for conn in order]


@given(
    steps=st.lists(st.integers(1, 5), min_size=1, max_size=40),
    rule=st.sampled_from([RANGE, LINKED]),
    lost=st.lists(st.sets(st.integers(0, 39)), min_size=0, max_size=2),
    seed=st.integers(0, 2**32),
)
def test_one_whole_leg_is_enough(steps: list[int], rule: int, lost: list[set[int]], seed: int) -> None:
    messages = chained(steps)
    legs = {0: messages}
    for conn, dropped in enumerate(lost, 1):
        legs[conn] = [message for at, message in enumerate(messages) if at not in dropped]
    merge = Merge(rule, MergeState(head=100, leader=0, own=dict.fromkeys(legs, 100)))
    entered = [
        message for conn, message in interleaved(random.Random(seed), legs) if merge.enters(conn, *message)
    ]
    assert entered == messages


@given(
    steps=st.lists(st.integers(1, 5), min_size=4, max_size=40),
    rule=st.sampled_from([RANGE, LINKED]),
    seed=st.integers(0, 2**32),
)
def test_legs_that_die_in_turn_leave_no_hole(steps: list[int], rule: int, seed: int) -> None:
    """One leg ends at a time, and only when another covers what comes, as the recorder sees to."""
    draw = random.Random(seed)
    messages = chained(steps)
    merge = Merge(rule)
    at = {0: 0, 1: 0}
    entered = []
    next_conn = 2
    while any(position < len(messages) for position in at.values()):
        conn = draw.choice([c for c, position in at.items() if position < len(messages)])
        if draw.random() < 0.2 and any(merge.covers(other) for other in at if other != conn):
            merge.leave(conn)
            del at[conn]
            # A new one joins at or after what has been sent to anybody so far.
            at[next_conn] = draw.randint(max(at.values()), len(messages))
            next_conn += 1
            continue
        message = messages[at[conn]]
        at[conn] += 1
        if merge.enters(conn, *message):
            entered.append(message)
    assert entered == messages


@given(
    steps=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    lost=st.lists(st.sets(st.integers(0, 29)), min_size=1, max_size=3),
    rule=st.sampled_from([RANGE, LINKED]),
    seed=st.integers(0, 2**32),
)
def test_whatever_is_lost_nothing_enters_twice_and_what_all_lost_is_a_break(
    steps: list[int], lost: list[set[int]], rule: int, seed: int
) -> None:
    messages = chained(steps)
    legs = {
        conn: [message for at, message in enumerate(messages) if at not in dropped]
        for conn, dropped in enumerate(lost)
    }
    merge = Merge(rule, MergeState(head=100, leader=0, own=dict.fromkeys(legs, 100)))
    entered = [
        message for conn, message in interleaved(random.Random(seed), legs) if merge.enters(conn, *message)
    ]
    assert len({*entered}) == len(entered)
    assert entered == sorted(entered)
    lost_by_all = set.intersection(*lost) & {*range(len(messages))}
    assert not {messages[at] for at in lost_by_all} & {*entered}


@given(
    steps=st.lists(st.integers(1, 5), min_size=2, max_size=30),
    cut=st.integers(0, 30),
    rule=st.sampled_from([RANGE, LINKED]),
    seed=st.integers(0, 2**32),
)
def test_going_on_from_a_state_is_going_on(steps: list[int], cut: int, rule: int, seed: int) -> None:
    messages = chained(steps)
    order = interleaved(random.Random(seed), {0: messages, 1: messages[1:]})
    whole, first = Merge(rule), Merge(rule)
    expected = [whole.enters(conn, *message) for conn, message in order]
    begun = [first.enters(conn, *message) for conn, message in order[:cut]]
    second = Merge(rule, first.state())
    assert begun + [second.enters(conn, *message) for conn, message in order[cut:]] == expected


def out_of_order(draw: random.Random, messages: list[Message], reach: int) -> list[Message]:
    """Return messages of which each comes at most so many places late."""
    places = [(at + draw.randint(0, reach), at) for at in range(len(messages))]
    return [messages[at] for _, at in sorted(places)]


@given(
    steps=st.lists(st.integers(1, 5), min_size=1, max_size=40),
    lost=st.lists(st.sets(st.integers(0, 39), max_size=5), min_size=1, max_size=3),
    reach=st.integers(0, 6),
    rule=st.sampled_from([RANGE, LINKED]),
    seed=st.integers(0, 2**32),
)
def test_nothing_enters_twice_in_whatever_order_the_legs_bring_it(
    steps: list[int], lost: list[set[int]], reach: int, rule: int, seed: int
) -> None:
    draw = random.Random(seed)
    messages = chained(steps)
    legs = {
        conn: out_of_order(draw, [m for at, m in enumerate(messages) if at not in dropped], reach)
        for conn, dropped in enumerate(lost)
    }
    merge = Merge(rule)
    entered = []
    for conn, message in interleaved(draw, legs):
        if merge.enters(conn, *message):
            entered.append(message)
        if draw.random() < 0.1:  # a new segment begins
            merge = Merge(rule, msgspec.json.decode(msgspec.json.encode(merge.state()), type=MergeState))
    assert len({*entered}) == len(entered)


@given(
    before=st.lists(st.integers(1, 5), min_size=1, max_size=20),
    after=st.lists(st.integers(1, 5), min_size=3, max_size=20),
    down=st.integers(200, 1_000_000),
    rule=st.sampled_from([RANGE, LINKED]),
    legs=st.integers(2, 3),
    seed=st.integers(0, 2**32),
)
def test_a_new_count_of_ids_is_followed_whoever_is_behind(
    before: list[int], after: list[int], down: int, rule: int, legs: int, seed: int
) -> None:
    """Legs that are behind bring the end of the old count when another has begun the new one."""
    draw = random.Random(seed)
    old = chained(before)
    head = old[-1][0] - down
    messages = [*old, *((last - 100 + head, prev - 100 + head) for last, prev in chained(after))]
    if rule == LINKED:  # a maintenance reset, which the venue links to what came before
        messages[len(old)] = (messages[len(old)][0], old[-1][0])
    merge = ingest = Merge(rule, MergeState(head=100, leader=0, own=dict.fromkeys(range(legs), 100)))
    entered = []
    for conn, message in interleaved(draw, dict.fromkeys(range(legs), messages)):
        if draw.random() < 0.1:  # a new segment begins: ingest knows no more than its header says
            ingest = Merge(rule, msgspec.json.decode(msgspec.json.encode(merge.state()), type=MergeState))
        enters = merge.enters(conn, *message)
        assert ingest is merge or ingest.enters(conn, *message) == enters
        if enters:
            entered.append(message)
    assert entered == messages
    assert not merge.is_owed


def test_trade_that_comes_late_on_the_leading_leg_was_brought_by_the_other() -> None:
    merge = Merge(RANGE)
    assert [merge.enters(0, 4, 3), merge.enters(1, 4, 3)] == [True, False]
    assert [merge.enters(0, 5, 4), merge.enters(1, 6, 5)] == [True, True]  # conn 1 skips 5, and leads
    assert [merge.enters(1, 5, 4), merge.enters(0, 6, 5)] == [False, False]
    assert merge.enters(1, 7, 6)


def test_trade_that_comes_late_enters_when_nobody_has_brought_it() -> None:
    merge = Merge(RANGE)
    assert [merge.enters(0, 4, 3), merge.enters(1, 4, 3)] == [True, False]
    assert [merge.enters(0, 6, 5), merge.enters(1, 6, 5), merge.enters(0, 7, 6)] == [False, True, True]
    assert [merge.enters(1, 5, 4), merge.enters(0, 5, 4)] == [True, False]


def test_two_late_trades_that_follow_each_other_are_no_new_count() -> None:
    merge = Merge(RANGE)
    assert [merge.enters(0, last_id, last_id - 1) for last_id in (5, 8, 6, 7, 9)] == [True] * 5
    assert merge.head == 9


def test_what_is_missing_is_bounded() -> None:
    merge = Merge(RANGE)
    for last_id in range(0, 2_000, 2):
        assert merge.enters(0, last_id, last_id - 1)
    state = merge.state()
    assert len(state.missing) == len(state.skipped[0]) == 64
    assert merge.enters(0, 1_997, 1_996)
    assert not merge.enters(1, 1_997, 1_996)


def test_a_new_count_of_ids_is_followed_on_the_leading_leg() -> None:
    merge = Merge(RANGE)
    assert [merge.enters(0, 500, 490), merge.enters(0, 510, 500)] == [True, True]
    assert [merge.enters(0, 5, 1), merge.enters(0, 9, 5), merge.enters(0, 12, 9)] == [True, True, True]
    assert merge.head == 12


def test_a_new_count_of_ids_is_followed_on_a_new_connection() -> None:
    merge = Merge(RANGE)
    assert merge.enters(0, 500, 490)
    merge.leave(0)
    assert not merge.enters(1, 495, 490)
    assert merge.enters(1, 9, 5)
    assert merge.enters(1, 12, 9)


def test_a_new_count_that_began_while_nobody_listened_is_followed_however_near_it_is() -> None:
    merge = Merge(RANGE)
    assert merge.enters(0, 500, 490)
    merge.leave(0)
    assert not merge.enters(1, 400, 395)  # it may be one that comes late
    assert merge.enters(1, 410, 400)
    assert merge.enters(1, 415, 410)


def test_a_new_count_is_followed_when_a_message_is_missing_at_its_beginning() -> None:
    merge = Merge(RANGE)
    assert merge.enters(0, 500, 490)
    merge.leave(0)
    assert [merge.enters(1, 400, 395), merge.enters(1, 420, 410), merge.enters(1, 425, 420)] == [
        False,
        False,
        True,
    ]


def test_what_a_leg_behind_brings_of_the_old_count_is_no_message_ahead_of_the_new_one() -> None:
    """Seen in a fault run: a leg had stalled when the ids began anew, and seemed to be owed them for ever."""
    merge = Merge(RANGE)
    assert [merge.enters(0, 500, 490), merge.enters(1, 500, 490)] == [True, False]
    assert [merge.enters(0, 510, 500), merge.enters(0, 520, 510)] == [True, True]
    assert [merge.enters(0, 5, 1), merge.enters(0, 9, 5)] == [True, True]
    assert [merge.enters(1, *ids) for ids in ((510, 500), (520, 510), (5, 1), (9, 5))] == [False] * 4
    assert not merge.is_owed
    assert [merge.enters(1, 12, 9), merge.enters(0, 12, 9), merge.enters(0, 15, 12)] == [True, False, True]


def test_quotes_of_the_old_count_do_not_replace_those_of_the_new_one() -> None:
    merge = Merge(RANGE)
    quotes = [(0, 500), (1, 500), (0, 510), (0, 300), (0, 305), (1, 510), (1, 300), (1, 305), (1, 306)]
    entered = [(conn, last_id) for conn, last_id in quotes if merge.enters(conn, last_id, NO_ID)]
    assert entered == [(0, 500), (0, 510), (0, 300), (0, 305), (1, 306)]


def test_a_new_count_is_followed_on_the_leg_that_had_begun_it_before_the_leader_ended() -> None:
    merge = Merge(RANGE)
    assert [merge.enters(0, 500, 490), merge.enters(1, 500, 490)] == [True, False]
    assert [merge.enters(1, 5, 1), merge.enters(1, 9, 5)] == [False, False]  # left to the leader
    merge.leave(0)
    assert [merge.enters(1, 12, 9), merge.enters(1, 15, 12)] == [True, True]


def test_count_that_only_seemed_to_begin_anew_goes_on_where_it_was() -> None:
    """The venue repeats two messages on the leading leg, which ends then."""
    merge = Merge(RANGE)
    assert [merge.enters(0, 500, 490), merge.enters(1, 500, 490)] == [True, False]
    assert [merge.enters(0, 510, 500), merge.enters(1, 510, 500)] == [True, False]
    assert [merge.enters(0, 490, 480), merge.enters(0, 500, 490)] == [True, True]
    merge.leave(0)
    assert merge.enters(1, 520, 510)


def test_a_new_count_of_quotes_is_followed_though_nothing_links_them() -> None:
    """Seen with a reset of Binance's testnet: no quote was kept any more, for the rest of the session."""
    merge = Merge(RANGE)
    quotes = [(0, 500), (0, 510), (0, 300), (0, 301), (0, 305)]
    assert [merge.enters(conn, last_id, NO_ID) for conn, last_id in quotes] == [True] * 5
    merge.leave(0)
    assert [merge.enters(1, last_id, NO_ID) for last_id in (200, 203, 204)] == [False, True, True]


def test_first_message_of_a_new_connection_may_be_the_last_of_the_old() -> None:
    """OKX sends the last trade when trades are subscribed to."""
    merge = Merge(RANGE)
    assert merge.enters(0, 7, 6)
    merge.leave(0)
    assert not merge.enters(1, 7, 6)
    assert merge.enters(1, 8, 7)


def test_snapshot_of_a_second_connection_does_not_replace_a_book_that_is_whole() -> None:
    merge = Merge(LINKED)
    assert merge.enters(0, 10, -1, is_snapshot=True)
    assert merge.enters(0, 11, 10)
    assert not merge.enters(1, 10, -1, is_snapshot=True)
    assert not merge.enters(1, 11, 10)
    assert merge.enters(1, 12, 11)
    merge.leave(0)
    assert merge.enters(1, 15, 14)  # a hole that no other leg fills
    assert merge.enters(1, 20, -1, is_snapshot=True)


def test_what_is_left_to_a_connection_behind_is_owed_until_it_brings_it() -> None:
    merge = Merge(RANGE)
    assert [merge.enters(0, 5, 4), merge.enters(1, 5, 4)] == [True, False]
    assert not merge.enters(1, 7, 6, ts_recv=1)  # it missed 6
    assert (merge.is_owed, merge.waiting_since, merge.laggards()) == (True, 1, [0])
    assert merge.enters(0, 6, 5)
    assert merge.is_owed
    assert merge.enters(0, 7, 6)
    assert not merge.is_owed


def test_heartbeat_enters_once() -> None:
    merge = Merge(LINKED)
    assert merge.enters(0, 10, -1, is_snapshot=True)
    assert not merge.enters(1, 10, -1, is_snapshot=True)
    assert [merge.enters(0, 10, 10), merge.enters(1, 10, 10)] == [True, False]


def test_unchained_messages_enter_when_they_are_newer() -> None:
    merge = Merge(RANGE)
    assert merge.enters(0, 5, NO_ID)
    assert not merge.enters(1, 5, NO_ID)
    assert merge.enters(1, 9, NO_ID)
    assert not merge.enters(0, 8, NO_ID)
