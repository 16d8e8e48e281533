"""The proven book as rows for formats without ids. Compiled; runs uncompiled with NUMBA_DISABLE_JIT=1.

What a consumer who cannot judge chains has to be told: a whole book where the book becomes valid, the
changed levels while it is, and that it is gone where it becomes invalid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets import _kernel as book
from mmdata.datasets import chain
from mmdata.datasets._kernel import (
    BID,
    BIDS,
    BOOK_ID,
    DIFF,
    FULL,
    MAX_DEPTH,
    NO_PRICE,
    REPLACE,
    VALID,
    WINDOW,
    Columns,
    Levels,
    best,
    next_best,
    size_at,
    step,
)
from mmdata.datasets.jit import kernel

Ints = NDArray[np.int64]

CLEAR = 0  # the book is empty
SNAPSHOT = 1  # a level of a whole book; follows a CLEAR
LEVEL = 2  # a level's new size; 0 removes it
TRADE = 3


@kernel(chain, book, allocates=True)
def emit(
    columns: Columns,
    begin: int,
    end: int,
    levels: Levels,
    state: Ints,
    valid: NDArray[np.bool_],
    rows: NDArray[np.int64],
) -> tuple[int, int]:
    """Step messages ``begin:end`` and write what they do to the proven book into ``rows``.

    ``rows`` is (m, 5): message, one of CLEAR, SNAPSHOT, LEVEL, side, ticks, lots. ``valid[i]`` is whether the
    book is valid after message i. Returns where to go on and how many rows were written. It stops before
    ``end`` where ``state[FULL]`` is set (grow, clear FULL, go on) or when a message might not find room in
    ``rows``: it does find room in empty ones that are twice as long as there is room for levels on a side,
    plus twice its own levels.
    """
    n = 0
    before = np.empty((2, state[MAX_DEPTH] + 1), np.int64)
    counts = np.zeros(2, np.int64)
    for i in range(begin, end):
        carried = columns.start[i + 1] - columns.start[i]
        if n + 2 * (levels.keys.shape[1] + WINDOW) + 2 * carried + 1 > rows.shape[0]:
            return i, n
        was_valid = state[VALID]
        for side in range(2):  # levels that fall out of a window of the best ones are told as removed
            counts[side] = min(state[BIDS + side], state[MAX_DEPTH])
            for at in range(counts[side]):
                before[side, at] = levels.keys[side, at]
        step(columns, i, levels, state)
        if state[FULL] == 1:
            return i, n
        valid[i] = state[VALID] == 1
        if state[VALID] == 0:
            if was_valid == 1:
                rows[n, 0] = i
                rows[n, 1] = CLEAR
                rows[n, 2:] = 0
                n += 1
        elif was_valid == 0 or columns.kind[i] == REPLACE:
            rows[n, 0] = i
            rows[n, 1] = CLEAR
            rows[n, 2:] = 0
            n += 1
            for side in range(2):
                key = best(levels, state, side)
                while key != NO_PRICE:
                    rows[n, 0] = i
                    rows[n, 1] = SNAPSHOT
                    rows[n, 2] = side
                    rows[n, 3] = key if side == BID else -key
                    rows[n, 4] = size_at(levels, state, side, key)
                    n += 1
                    key = next_best(levels, state, side, key)
        elif columns.kind[i] == DIFF and columns.last_id[i] == state[BOOK_ID]:
            for row in range(columns.start[i], columns.start[i + 1]):
                rows[n, 0] = i
                rows[n, 1] = LEVEL
                rows[n, 2] = columns.side[row]
                rows[n, 3] = columns.price[row]
                rows[n, 4] = columns.size[row]
                n += 1
            for side in range(2):
                if state[MAX_DEPTH] == 0 or state[BIDS + side] < state[MAX_DEPTH]:
                    continue
                worst = levels.keys[side, 0]
                for at in range(counts[side]):
                    if before[side, at] >= worst:
                        break
                    rows[n, 0] = i
                    rows[n, 1] = LEVEL
                    rows[n, 2] = side
                    rows[n, 3] = before[side, at] if side == BID else -before[side, at]
                    rows[n, 4] = 0
                    n += 1
                for row in range(columns.start[i], columns.start[i + 1]):
                    key = columns.price[row] if side == BID else -columns.price[row]
                    if columns.side[row] == side and columns.size[row] != 0 and key < worst:
                        rows[n, 0] = i
                        rows[n, 1] = LEVEL
                        rows[n, 2] = side
                        rows[n, 3] = columns.price[row]
                        rows[n, 4] = 0
                        n += 1
    return end, n
