"""The chain rules, by the worked cases of the protocol sheets."""

from __future__ import annotations

import pytest

from mmdata.datasets.chain import (
    BREAKS,
    CONTINUES,
    LINKED,
    NO_ID,
    PREVIOUS,
    RANGE,
    REPEAT,
    UNCHAINED,
    bridges,
    classify,
)


@pytest.mark.parametrize(
    ("book", "first", "last", "verdict"),
    [
        (115, 116, 118, CONTINUES),
        (118, 118, 121, CONTINUES),  # overlap: sizes are absolute
        (121, 125, 130, BREAKS),
        (130, 125, 130, REPEAT),
        (130, 100, 129, REPEAT),
    ],
)
def test_binance_spot_continues_from_any_id_that_the_message_reaches(
    book: int, first: int, last: int, verdict: int
) -> None:
    assert classify(RANGE, book, first, last, first - 1) == verdict


@pytest.mark.parametrize(
    ("snapshot", "first", "last", "verdict"),
    [
        (104, 100, 104, REPEAT),
        (104, 105, 109, CONTINUES),  # the literal "id within [U, u]" would refuse it
        (107, 105, 109, CONTINUES),
        (99, 101, 104, BREAKS),  # the snapshot is too old
        (99, 100, 104, CONTINUES),
    ],
)
def test_binance_spot_snapshot_is_bridged_by_the_message_after_its_id(
    snapshot: int, first: int, last: int, verdict: int
) -> None:
    assert bridges(RANGE, snapshot, first, last, first - 1) == verdict


@pytest.mark.parametrize(
    ("snapshot", "first", "last", "prev", "verdict"),
    [
        (500, 480, 490, 470, REPEAT),
        (500, 491, 505, 490, CONTINUES),
        (510, 491, 505, 490, REPEAT),
        (510, 520, 530, 505, CONTINUES),  # ids between belong to nothing in this stream
        (510, 520, 530, 515, BREAKS),
    ],
)
def test_usdm_snapshot_is_bridged_by_range_or_by_the_previous_id(
    snapshot: int, first: int, last: int, prev: int, verdict: int
) -> None:
    assert bridges(PREVIOUS, snapshot, first, last, prev) == verdict


def test_usdm_chains_by_the_previous_id_alone() -> None:
    assert classify(PREVIOUS, 505, 520, 530, 505) == CONTINUES
    assert classify(PREVIOUS, 530, 540, 550, 535) == BREAKS


def test_okx_worked_chain_of_the_documentation_holds() -> None:
    book = 10
    for prev, seq in ((10, 15), (15, 15), (15, 3), (3, 5)):  # normal, heartbeat, reset, normal
        assert classify(LINKED, book, seq, seq, prev) == CONTINUES
        book = seq


def test_okx_message_that_builds_on_another_id_breaks_and_a_repeat_is_ignored() -> None:
    assert classify(LINKED, 15, 30, 30, 20) == BREAKS
    assert classify(LINKED, 15, 15, 15, 10) == REPEAT
    assert classify(LINKED, 3, 3, 3, 15) == REPEAT  # of a maintenance reset


def test_messages_without_ids_are_taken_as_they_come() -> None:
    assert classify(LINKED, NO_ID, NO_ID, NO_ID, NO_ID) == CONTINUES
    assert classify(UNCHAINED, 5, 9, 9, 8) == CONTINUES
