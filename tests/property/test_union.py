"""Two recordings united: what either has, once, in the order of the chain, whatever their clocks say."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mmdata.datasets.chain import LINKED, NO_ID, PREVIOUS, RANGE
from mmdata.datasets.union import Entry, Message, Union, messages_of

RULES = (RANGE, PREVIOUS, LINKED)


def chained(steps: list[int], first: int = 100) -> list[Message]:
    """Return messages that continue each other, of which each covers so many ids."""
    ids = [first]
    for step in steps:
        ids.append(ids[-1] + step)
    return [Message(prev + 1, last, prev, False, 0) for prev, last in pairwise(ids)]


def united(rule: int, one: list[Message], other: list[Message], seed: int) -> list[Entry]:
    """Return what enters where the two arrive mixed at random, each in its own order."""
    arrivals = [0] * len(one) + [1] * len(other)
    random.Random(seed).shuffle(arrivals)
    return [*Union(rule, [one, other]).entries(np.array(arrivals, np.int64))]


def told(entries: list[Entry], *recordings: list[Message]) -> list[Message]:
    return [recordings[entry.recording][entry.message] for entry in entries]


# Both lack the second; the third and the fourth are in one of them each.
@example(steps=[1] * 7, rule=LINKED, lost=({1, 3}, {1, 2, 4}), seed=0)
@given(
    steps=st.lists(st.integers(1, 5), min_size=1, max_size=30),
    rule=st.sampled_from(RULES),
    lost=st.tuples(st.sets(st.integers(1, 29)), st.sets(st.integers(1, 29))),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=400)
def test_what_either_has_enters_once_and_in_order(
    steps: list[int], rule: int, lost: tuple[set[int], set[int]], seed: int
) -> None:
    messages = chained(steps)
    one, other = ([m for at, m in enumerate(messages) if at not in gone] for gone in lost)
    entries = united(rule, one, other, seed)
    have = [m for m in messages if m in one or m in other]
    if (
        rule == LINKED
    ):  # ids without an order: where both lack something, some of the other side may be passed
        found = told(entries, one, other)
        assert [m for m in have if m in found] == found
        if not lost[0] & lost[1]:
            assert found == have
    else:
        assert told(entries, one, other) == have


@given(
    steps=st.lists(st.integers(1, 5), min_size=2, max_size=30),
    rule=st.sampled_from(RULES),
    cut=st.integers(1, 29),
    seed=st.integers(0, 2**32),
)
def test_a_recording_that_ends_is_gone_on_with_by_the_other(
    steps: list[int], rule: int, cut: int, seed: int
) -> None:
    messages = chained(steps)
    at = min(cut, len(messages) - 1)
    entries = united(rule, messages[: at + 1], messages[at:], seed)
    assert told(entries, messages[: at + 1], messages[at:]) == messages


def test_a_message_never_enters_before_it_arrived_and_moments_ascend() -> None:
    messages = chained([2] * 20)
    one, other = messages[:5] + messages[8:], messages[:12] + messages[13:]
    arrivals = [0] * len(one) + [1] * len(other)
    random.Random(3).shuffle(arrivals)
    arrived = {}
    seen = [0, 0]
    for moment, recording in enumerate(arrivals):
        arrived[recording, seen[recording]] = moment
        seen[recording] += 1
    entries = [*Union(RANGE, [one, other]).entries(np.array(arrivals))]
    assert all(entry.moment >= arrived[entry.recording, entry.message] for entry in entries)
    assert all(a.moment <= b.moment for a, b in pairwise(entries))
    assert told(entries, one, other) == messages


def test_what_waited_enters_as_soon_as_its_hole_is_filled() -> None:
    messages = chained([1] * 6)
    one, other = [messages[0], *messages[2:]], messages
    arrivals = np.array([0, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1])  # all of one before most of the other
    entries = [*Union(RANGE, [one, other]).entries(arrivals)]
    assert [(entry.recording, entry.moment) for entry in entries] == [
        (0, 0),
        (1, 6),
        (0, 6),
        (0, 6),
        (0, 6),
        (0, 6),
    ]


def test_a_stream_snapshot_of_one_more_connection_is_left_out_and_one_after_a_hole_enters() -> None:
    start = Message(NO_ID, 10, -1, True, 0)
    diffs = [Message(n, n, n - 1, False, 0) for n in range(11, 20)]
    again = Message(NO_ID, 15, -1, True, 0)
    one = [start, *diffs]
    other = [again, *diffs[5:]]
    entries = [*Union(LINKED, [one, other]).entries(np.array([0] * 7 + [1] * 5 + [0] * 3))]
    assert told(entries, one, other) == one
    lost = [start, *diffs[:2], *diffs[4:]]
    entries = [*Union(LINKED, [lost, other]).entries(np.array([0] * 4 + [1] * 5 + [0] * 4))]
    assert told(entries, lost, other) == [start, *diffs[:2], diffs[4], again, *diffs[5:]]


def test_heartbeats_of_both_are_counted_once_and_a_reset_goes_on_at_the_lower_id() -> None:
    start = Message(NO_ID, 10, -1, True, 0)
    beat = Message(10, 10, 10, False, 0)
    chain = [
        start,
        beat,
        Message(15, 15, 10, False, 0),
        Message(3, 3, 15, False, 0),
        Message(5, 5, 3, False, 0),
    ]
    entries = [*Union(LINKED, [chain, chain]).entries(np.array([0, 1] * 5))]
    assert told(entries, chain, chain) == chain


def test_a_count_that_begins_anew_goes_on_in_both() -> None:
    messages = [*chained([1] * 5), *chained([1] * 5, first=0)]
    ids = np.array([message[:3] for message in messages])
    own = messages_of(RANGE, ids[:, 0], ids[:, 1], ids[:, 2], np.zeros(10, np.bool_))
    assert [message.epoch for message in own] == [0] * 5 + [1] * 5
    lacking = own[:6] + own[7:]
    entries = [*Union(RANGE, [own[:8], lacking]).entries(np.array([0, 1] * 8 + [1]))]
    assert [message[:3] for message in told(entries, own[:8], lacking)] == [
        message[:3] for message in messages
    ]
