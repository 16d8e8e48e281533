"""The chain rules: which message continues which book, by the ids that the venue sends.

One rule an exchange, as data (``CHAINS``), and one pure function that judges a message (``classify``).
Recorder, validator and replay all use these; the book kernel compiles this very function. Ids are
plain integers; ``NO_ID`` stands where the venue sent none. Never order messages by the size of an id.

Source: the venues' documentation as read in 2026 (Binance ``web-socket-streams.md`` "How to manage a
local order book correctly", USDⓈ-M "How to manage a local order book correctly", OKX v5 "Order book
channel"); worked cases stand in ``tests/unit/test_chain.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_ID = -(2**63)
"""Stands for an id that the venue did not send (null in the tables)."""
MOST_HOLES = 64
"""So many holes in a chain of trades are known; what has been missing for longer comes no more."""

# Rules. Plain integers, since the compiled book kernel takes them as arguments.
RANGE = 0
"""Binance spot: a message covers ids ``first..last``; it continues a book inside or just before it."""
PREVIOUS = 1
"""Binance USDⓈ-M: a message names the ``last_id`` of the message before it (``pu``)."""
LINKED = 2
"""OKX: as PREVIOUS, with heartbeats (``last == prev``) and maintenance resets (``last < prev``)."""
UNCHAINED = 3
"""No ids at all: every message is taken in order of arrival; only a checksum can prove the book."""

# Verdicts on a message, given the id that the book is at.
CONTINUES = 0
REPEAT = 1
BREAKS = 2


@dataclass(frozen=True, slots=True)
class ChainRule:
    """How the book messages of one exchange hang together."""

    rule: int
    """One of RANGE, PREVIOUS, LINKED."""
    spliced: bool
    """True when a book starts from a REST snapshot that is spliced into the stream of diffs."""
    max_depth: int
    """Most levels a side that the feed speaks of; the book is cut to it. 0 means no limit."""


CHAINS: dict[str, ChainRule] = {
    "binance": ChainRule(RANGE, spliced=True, max_depth=0),
    "binance-usdm": ChainRule(PREVIOUS, spliced=True, max_depth=0),
    # OKX sends the best 400 a side; whether a level that leaves the window is always sent as size 0 is
    # not documented, so the book is cut to 400 and a level that comes back is sent anew.
    "okx": ChainRule(LINKED, spliced=False, max_depth=400),
}


def classify(rule: int, book_id: int, first_id: int, last_id: int, prev_id: int) -> int:
    """Judge a message against a book at ``book_id``: CONTINUES, REPEAT (ignore it) or BREAKS.

    Takes and returns plain integers so that the book kernel can compile it.

    >>> classify(RANGE, 104, 105, 109, 104) == CONTINUES
    True
    >>> classify(RANGE, 121, 125, 130, 124) == BREAKS
    True
    """
    if rule == UNCHAINED or last_id == NO_ID:
        return CONTINUES  # nothing to go by: a recording without ids is taken as it came
    if rule == RANGE:
        if last_id <= book_id:
            return REPEAT
        return CONTINUES if prev_id <= book_id else BREAKS
    if prev_id == book_id:
        return CONTINUES  # on OKX this takes in heartbeats and maintenance resets
    if rule == LINKED and last_id == book_id:
        return REPEAT  # the same link once more, after a reset from a higher id, too: O3 in the notes saw it
    return BREAKS


def bridges(rule: int, snapshot_id: int, first_id: int, last_id: int, prev_id: int) -> int:
    """Judge a message against a REST snapshot that waits for its first diff.

    REPEAT: at or below the snapshot, stays unapplied. CONTINUES: the book may start with it. BREAKS:
    the snapshot is older than what this message builds on; a fresh one is needed.

    >>> bridges(PREVIOUS, 500, 491, 505, 490) == CONTINUES
    True
    >>> bridges(PREVIOUS, 510, 520, 530, 505) == CONTINUES  # the ids between belong to nothing
    True
    """
    if last_id <= snapshot_id:
        return REPEAT
    if prev_id <= snapshot_id or (rule == PREVIOUS and first_id <= snapshot_id):
        return CONTINUES
    return BREAKS
