"""Ghost levels: an audit snapshot against the rebuilt book, by band of depth.

An audit with id S shows the exchange's book at S. The rebuilt book is looked at after the message M that
brings it to S or beyond (``prev_id < S <= last_id``). Where M ends beyond S, nobody knows which of M's own
levels the audit shows before and which after, so the levels that M changes are not judged; all others
are the same on both sides of M.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets._kernel import ASK, BID, DIFF, REPLACE
from mmdata.datasets.validation.messages import Messages
from mmdata.datasets.validation.report import Band

Ints = NDArray[np.int64]

BANDS = (("10", 10), ("100", 100), ("1000", 1000), ("rest", 2**62))


@dataclass(frozen=True, slots=True)
class Shown:
    """An audit snapshot; levels best first."""

    order: int
    ts_recv: int
    id: int
    prices: tuple[Ints, Ints]
    """Of bids, of asks."""
    sizes: tuple[Ints, Ints]


class Compared(NamedTuple):
    """What the comparison of an audit gave."""

    bands: list[Band]
    wrong: set[tuple[int, int]]
    """Side and price of the levels that differ, or that only one of the two has."""


def shown(snapshots: Messages, at: int) -> Shown:
    """Return snapshot number ``at`` as an audit."""
    first = int(snapshots.levels[:at].sum())
    rows = slice(first, first + int(snapshots.levels[at]))
    side, price, size = snapshots.side[rows], snapshots.price[rows], snapshots.size[rows]
    ranks = [
        np.flatnonzero(side == own)[np.argsort(sign * price[side == own], kind="stable")]
        for own, sign in ((BID, -1), (ASK, 1))
    ]
    return Shown(
        int(snapshots.order[at]),
        int(snapshots.ts_recv[at]),
        int(snapshots.last_id[at]),
        (price[ranks[0]], price[ranks[1]]),
        (size[ranks[0]], size[ranks[1]]),
    )


def find_message(messages: Messages, audit: Shown) -> int | None:
    """Return the message after which the book is to be compared; None: it is not among these."""
    reaches = (messages.kind == DIFF) & (messages.prev_id < audit.id) & (messages.last_id >= audit.id)
    reaches |= (messages.kind == REPLACE) & (messages.last_id == audit.id)
    found = np.flatnonzero(reaches)
    if not found.size:
        return None
    return int(found[np.abs(messages.order[found] - audit.order).argmin()])  # ids may come again


def compare(
    audit: Shown,
    book: Sequence[tuple[Ints, Ints]],
    touched: Sequence[Ints],
    reach: Sequence[int | None],
) -> Compared:
    """Compare an audit with a book: ``book`` has prices and sizes of bids and of asks, best first.

    ``touched`` are the prices of each side that must not be judged, ``reach`` the worst price of each side
    of which the book's own snapshot spoke (None: of all).
    """
    counts = np.zeros((len(BANDS), 6), np.int64)
    limits = np.array([limit for _, limit in BANDS])
    wrong: set[tuple[int, int]] = set()
    for side, sign in ((BID, -1), (ASK, 1)):
        theirs, their_sizes = sign * audit.prices[side], audit.sizes[side]
        ours, our_sizes = sign * book[side][0], book[side][1]
        if not len(theirs):
            continue
        within = int(np.searchsorted(ours, theirs[-1], side="right"))  # beyond it the audit says nothing
        ours, our_sizes = ours[:within], our_sizes[:within]
        places = np.searchsorted(ours, theirs)
        have = np.zeros(len(theirs), np.bool_)
        have[places < len(ours)] = ours[places[places < len(ours)]] == theirs[places < len(ours)]
        equal = have.copy()
        equal[have] = our_sizes[places[have]] == their_sizes[have]
        unjudged = np.isin(theirs, sign * touched[side])
        worst = reach[side]
        beyond = ~have & (theirs > sign * worst) if worst is not None else np.zeros(len(theirs), np.bool_)
        band = np.searchsorted(limits, np.arange(len(theirs)), side="right")
        only_ours = ours[~np.isin(ours, theirs) & ~np.isin(ours, sign * touched[side])]
        ghost_band = np.searchsorted(limits, np.searchsorted(theirs, only_ours), side="right")
        sets = (
            np.ones(len(theirs), np.bool_),
            equal & ~unjudged,
            have & ~equal & ~unjudged,
            ~have & ~beyond & ~unjudged,
            beyond & ~unjudged,
            unjudged,
        )
        for column, chosen in enumerate(sets):
            counts[:, column] += np.bincount(band[chosen], minlength=len(BANDS))
        counts[:, 2] += np.bincount(ghost_band, minlength=len(BANDS))
        for price in (*theirs[sets[2] | sets[3]].tolist(), *only_ours.tolist()):
            wrong.add((side, sign * price))
    bands = [Band(name, *map(int, row)) for (name, _), row in zip(BANDS, counts, strict=True)]
    return Compared([band for band in bands if band.levels or band.stale], wrong)
