"""Book messages out of rows: where each begins and ends, and whether its rows agree with one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import ASK, BID, DIFF, NO_PRICE, REPLACE, SPLICE
from mmdata.datasets.chain import NO_ID
from mmdata.datasets.market import NO_TIME
from mmdata.datasets.validation._kernels import find_messages, read_only
from mmdata.datasets.validation.findings import Teller
from mmdata.datasets.validation.streams import Columns

Ints = NDArray[np.int64]
_AGREE = ("first_id", "last_id", "prev_id", "ts_recv", "ts_event", "conn", "is_snapshot")
_SEEN = ("order", "is_last", "side", "price", *_AGREE)


class Messages(NamedTuple):
    """Messages in order of arrival (n of them), and the levels they carry."""

    kind: NDArray[np.uint8]  # (n,)
    order: Ints
    ts_recv: Ints
    ts_event: Ints
    first_id: Ints
    last_id: Ints
    prev_id: Ints
    checksum: Ints  # NO_ID where the venue sent none
    levels: Ints  # how many each carries
    side: NDArray[np.int8]  # (levels,)
    price: Ints
    size: Ints


class Faults(NamedTuple):
    """Messages (their places in order) whose rows contradict one another."""

    unended: Ints
    """The frame ends without a row that is last."""
    ended_twice: Ints
    """A row before the last one is marked as last."""
    differing: Ints
    """Ids, times or other fields of the message differ between its rows."""
    unsorted: Ints
    """A bid comes after an ask."""
    copies: Ints
    """The message stands twice, row for row, in one frame."""


def book_messages(rows: Columns) -> tuple[Messages, Faults]:
    """Return the messages of `depth` rows (whole frames), and what is wrong with them.

    A message ends at its row marked ``is_last``, or with its frame. What is marked as last too early is
    joined again, a copy is left out, and where rows disagree most of them are believed.
    """
    order, is_last = rows["order"], rows["is_last"]
    none = np.empty(0, np.int64)
    ends, levels = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    count = find_messages(ends, levels, *read_only(*(rows[name] for name in _SEEN)))
    if count >= 0:
        return _messages(rows, ends[:count], levels[:count].copy()), Faults(none, none, none, none, none)
    ends_frame = np.concatenate((order[1:] != order[:-1], [True]))
    ends = np.flatnonzero(is_last | ends_frame)
    begins = np.concatenate(([0], ends[:-1] + 1))
    unended = order[ends[~is_last[ends]]]
    rows, begins, ends, twice, copies = _rejoined(rows, begins, ends)
    differing = _differing(rows, begins, ends)
    if differing.size:
        rows = _by_majority(rows, begins[differing], ends[differing])
    side = rows["side"]
    inside = np.ones(len(side), np.bool_)
    inside[begins] = False
    falls = inside[1:] & (side[1:] == BID) & (side[:-1] == ASK)
    at = np.unique(np.searchsorted(ends, np.flatnonzero(falls) + 1)) if falls.any() else np.empty(0, np.int64)
    faults = Faults(unended, twice, order[ends[differing]], order[ends[at]], copies)
    until = np.concatenate(([0], np.cumsum(rows["price"] != NO_PRICE)))
    return _messages(rows, ends, until[ends + 1] - until[begins]), faults


def _rejoined(rows: Columns, begins: Ints, ends: Ints) -> tuple[Columns, Ints, Ints, Ints, Ints]:
    """Join what was ended too early with its rest, and drop copies: ids tell, or checksums without ids."""
    order, last = rows["order"][ends], rows["last_id"][ends]
    last = np.where(last == NO_ID, rows["checksum"][ends], last)
    alike = (order[1:] == order[:-1]) & (last[1:] == last[:-1]) & (last[1:] != NO_ID)
    alike &= (rows["first_id"][ends][1:] == rows["first_id"][ends][:-1]) & (
        rows["prev_id"][ends][1:] == rows["prev_id"][ends][:-1]
    )
    later = np.flatnonzero(alike) + 1
    later = np.union1d(later, _scattered(order, last))
    none = np.empty(0, np.int64)
    if not later.size:
        return rows, begins, ends, none, none
    kept = np.ones(len(ends), np.bool_)
    own = np.ones(len(rows["order"]), np.bool_)
    begins, ends = begins.copy(), ends.copy()
    twice, copies = [], []
    for at in later.tolist():
        same = np.flatnonzero((order[:at] == order[at]) & (last[:at] == last[at]) & kept[:at])
        if any(_is_copy(rows, begins, ends, int(other), at) for other in same):
            copies.append(int(order[at]))
            own[begins[at] : ends[at] + 1] = False
            kept[at] = False
        elif same.size and int(same[-1]) == at - 1:
            twice.append(int(order[at]))
            begins[at] = begins[at - 1]
            kept[at - 1] = False
    if copies:
        rows = {name: column[own] for name, column in rows.items()}
        places = np.cumsum(own) - 1
        begins, ends = places[begins], places[ends]
    return rows, begins[kept], ends[kept], np.array(twice, np.int64), np.array(copies, np.int64)


def _scattered(order: Ints, last: Ints) -> Ints:
    """Return the messages whose id came before in the same frame, with others in between."""
    crowded = np.flatnonzero(np.concatenate(([False], order[1:] == order[:-1])))
    found = []
    for at in crowded.tolist():
        other = at - 2
        while other >= 0 and order[other] == order[at]:
            if last[other] == last[at] != NO_ID:
                found.append(at)
                break
            other -= 1
    return np.array(found, np.int64)


def _is_copy(rows: Columns, begins: Ints, ends: Ints, one: int, other: int) -> bool:
    first, second = slice(begins[one], ends[one] + 1), slice(begins[other], ends[other] + 1)
    return all(
        np.array_equal(rows[name][first], rows[name][second])
        for name in ("side", "price", "size", "first_id", "last_id", "prev_id")
    )


def _differing(rows: Columns, begins: Ints, ends: Ints) -> Ints:
    """Return the messages whose rows do not agree in every field that they share."""
    inside = np.ones(len(rows["order"]), np.bool_)
    inside[begins] = False
    inside = inside[1:]
    wrong = np.zeros(len(inside), np.bool_)
    for name in _AGREE:
        column = rows[name]
        wrong |= column[1:] != column[:-1]
    wrong &= inside
    if not wrong.any():
        return np.empty(0, np.int64)
    return np.unique(np.searchsorted(ends, np.flatnonzero(wrong) + 1))


def _by_majority(rows: Columns, begins: Ints, ends: Ints) -> Columns:
    rows = {**rows, **{name: rows[name].copy() for name in _AGREE}}
    for first, last in zip(begins.tolist(), ends.tolist(), strict=True):
        for name in _AGREE:
            values, counts = np.unique(rows[name][first : last + 1], return_counts=True)
            rows[name][first : last + 1] = values[counts.argmax()]
    return rows


def _messages(rows: Columns, ends: Ints, counts: Ints) -> Messages:
    """Return the messages that end at the rows ``ends``, of as many levels as ``counts`` say."""
    side, price, size = rows["side"], rows["price"], rows["size"]
    if counts.sum() < len(price):
        levels = price != NO_PRICE
        side, price, size = side[levels], price[levels], size[levels]
    replaces = rows["is_snapshot"][ends].astype(np.bool_)
    return Messages(
        np.where(replaces, REPLACE, DIFF).astype(np.uint8),
        rows["order"][ends],
        rows["ts_recv"][ends],
        rows["ts_event"][ends],
        rows["first_id"][ends],
        rows["last_id"][ends],
        rows["prev_id"][ends],
        rows["checksum"][ends],
        counts,
        side,
        price,
        size,
    )


_WRONG = (
    ("message", "has no row marked is_last: who reads by is_last joins it with the next"),
    ("message", "has more than one row marked is_last: who reads by is_last sees a book half changed"),
    ("message", "has rows that differ in ids, times or other fields of the message"),
    ("message", "has a bid after an ask: its rows are not in the order of the table"),
    ("duplicate", "stands twice: counts of changes are wrong"),
)
"""Check and sentence of each of the `Faults`."""


def tell_faults(faults: Sequence[Faults], pieces: Sequence[Columns], teller: Teller) -> None:
    """Put a sentence to each message that is wrong; ``pieces`` are the rows that the faults are of."""
    for which, (check, what) in enumerate(_WRONG):
        for own, rows in zip(faults, pieces, strict=True):
            for order in own[which].tolist():
                at = int(np.searchsorted(rows["order"], order))
                when, last_id = int(rows["ts_recv"][at]), int(rows["last_id"][at])
                teller.tell(
                    "error", check, f"a book message {what}", order, id=last_id, ts_recv=when, table="depth"
                )


class Snapshots(NamedTuple):
    """Books asked for over REST, each the rows of one frame."""

    messages: Messages
    """Of kind SPLICE, audits too."""
    reason: NDArray[np.int8]
    faulty: Ints
    """How many levels of each are out of order, wrongly numbered, or at a price that stands twice."""


def snapshots_of(rows: Columns) -> Snapshots:
    """Return the snapshots in whole frames of rows."""
    order = rows["order"]
    edges = np.flatnonzero(np.concatenate(([True], order[1:] != order[:-1]))) if len(order) else order
    ends = np.concatenate((edges[1:], [len(order)])).astype(np.int64) if len(order) else edges
    n = len(edges)
    no_ids = np.full(n, NO_ID)
    levels = rows["price"] != NO_PRICE
    until = np.concatenate(([0], np.cumsum(levels)))
    messages = Messages(
        np.full(n, SPLICE, np.uint8),
        order[edges],
        rows["ts_recv"][edges],
        np.full(n, NO_TIME),
        no_ids,
        rows["last_id"][edges],
        no_ids,
        no_ids,
        (until[ends] - until[edges]).astype(np.int64),
        *(rows[name][levels] for name in ("side", "price", "size")),
    )
    faulty = [
        _faulty_levels(*(rows[name][first:end] for name in ("side", "level", "price")))
        for first, end in zip(edges.tolist(), ends.tolist(), strict=True)
    ]
    return Snapshots(messages, rows["reason"][edges].astype(np.int8), np.array(faulty, np.int64))


def _faulty_levels(side: NDArray[np.int8], level: Ints, price: Ints) -> int:
    """Count levels that are not one worse, and numbered one higher, than the one before on their side."""
    wrong = 0
    for own, sign in ((BID, -1), (ASK, 1)):
        chosen = side == own
        numbers, prices = level[chosen], sign * price[chosen]
        if len(numbers):
            bad = (np.diff(numbers) != 1) | (np.diff(prices) <= 0)
            wrong += int(bad.sum()) + int(numbers[0] != 0)
    return wrong
