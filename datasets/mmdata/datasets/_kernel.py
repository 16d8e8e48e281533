"""The book kernel: message columns in, a book out. Compiled; runs uncompiled with NUMBA_DISABLE_JIT=1.

All prices are integer ticks (or whole multiples of a tick in a finer unit), all sizes integer lots. Both
sides ascend by *key*: the price of a bid, minus the price of an ask, so that the best level has the highest.

A book is held in one of two ways. One of the best levels only (OKX) is two sorted rows, best LAST, so that a
change near the touch moves a few numbers at the end. A whole book (Binance) is a *window* of so many ticks
around the touch, in which a level's place is its price, and the sorted rows for what is far below: a change
in the window is one write, wherever it is. The window moves when the touch leaves it. Changes below it
are put off in a hash table, which `settle` merges into the rows when it is full or when somebody wants to
see that deep. A price off the tick ends the window for good: all levels are in the
rows then.

What makes a book valid is said in ``docs/schema.md`` ("The chain, and when a book is valid"); ``step``
is that text as code. Callers keep every message since ``state[PENDING]`` readable: a book that waits
for its snapshot applies them late.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets import chain
from mmdata.datasets.chain import BREAKS, CONTINUES, NO_ID, REPEAT, UNCHAINED
from mmdata.datasets.jit import helper, kernel

Ints = NDArray[np.int64]

# Kinds of messages.
DIFF = 0  # changed levels
REPLACE = 1  # a whole book sent in the stream (OKX snapshot)
SPLICE = 2  # a whole book asked for over REST, to be spliced into the diffs
GAP = 3  # a recorded hole; the message that showed it starts the new buffer
GAP_OPEN = 4  # a recorded hole of which nothing received so far is the end (disconnect)
SESSION = 5  # another recording begins

BID, ASK = 0, 1
NO_PRICE = -(2**63)

# Fields of a book's state.
VALID = 0  # 1 when the book may be looked at
BOOK_ID = 1  # id of the last message in it
PENDING = 2  # first message that waits for a snapshot, or -1
SNAPSHOT = 3  # REST snapshot that waits for its first diff, or -1
SUSPENDED = 4  # 1 when a session ended with a valid book that the next message may continue
FULL = 5  # 1 when a level found no room: grow the arrays and step the same message again
BIDS = 6  # number of bids in the sorted rows; BIDS + ASK is that of asks
RULE = 8
MAX_DEPTH = 9
UNIT = 10  # keys are multiples of it, and there is a window; 0: all levels are in the sorted rows
BASE = 11  # BASE + side: key of the window's first place, in units
TOP = 13  # TOP + side: place of the best level in the window, or -1
PUT_OFF = 15  # PUT_OFF + side: number of changes that are put off
ROWS_SET = 17  # rows of the next message that are set already
STATE_SIZE = 18

WINDOW = 1 << 16  # places, of which a quarter is above the touch when it is drawn
NO_BASE = -(2**62)  # below all prices: the first level draws the window
_ABOVE = WINDOW // 4
_FAR_BITS = 12
_FAR = 1 << _FAR_BITS  # slots of the changes that are put off, a side
_MOST_PUT_OFF = _FAR // 4
_GAPS = (301, 132, 57, 23, 10, 4, 1)  # of Shell's sort, as Ciura measured them


class Columns(NamedTuple):
    """Messages of one symbol in order of arrival (n of them), and the levels they carry."""

    kind: NDArray[np.uint8]  # (n,)
    first_id: Ints  # (n,)
    last_id: Ints  # (n,)
    prev_id: Ints  # (n,)
    start: Ints  # (n + 1,): levels of message i are start[i]:start[i + 1]
    side: NDArray[np.int8]  # (levels,) BID or ASK
    price: Ints  # (levels,) ticks
    size: Ints  # (levels,) lots; 0 removes the level


class Levels(NamedTuple):
    """Where a book's levels are; lots, 0 for none."""

    keys: Ints  # (4, m), ascending: those of bids, of asks; room to sort those that were put off
    sizes: Ints  # (4, m)
    window: Ints  # (2, WINDOW)
    far: Ints  # (2, _FAR, 2): changes that are put off, key (NO_PRICE: a free slot) and size, hashed by key


def new_levels(capacity: int) -> Levels:
    """Return an empty book with room for so many levels a side outside the window."""
    return Levels(
        np.zeros((4, capacity), np.int64),
        np.zeros((4, capacity), np.int64),
        np.zeros((2, WINDOW), np.int64),
        np.full((2, _FAR, 2), NO_PRICE, np.int64),
    )


def grown(levels: Levels) -> Levels:
    """Return the same book with twice the room outside the window."""
    keys, sizes = (np.concatenate((row, np.zeros_like(row)), axis=1) for row in (levels.keys, levels.sizes))
    return levels._replace(keys=keys, sizes=sizes)


def new_state(rule: int, max_depth: int, unit: int) -> Ints:
    """Return the state of an empty book. ``unit``: what prices are multiples of; 0 where nobody knows."""
    state = np.zeros(STATE_SIZE, np.int64)
    state[[PENDING, SNAPSHOT]] = -1
    state[BOOK_ID] = NO_ID
    state[RULE] = rule
    state[MAX_DEPTH] = max_depth
    state[UNIT] = 0 if max_depth else unit
    state[BASE : BASE + 2] = NO_BASE
    state[TOP : TOP + 2] = -1
    return state


_classify = helper(chain.classify)
_bridges = helper(chain.bridges)


@helper
def find_level(keys: Ints, count: int, key: int) -> int:
    """Return the first position of ``keys[:count]`` (ascending) that is not below ``key``."""
    high = count
    low = count - 1
    stride = 1
    while low >= 0 and keys[low] >= key:  # gallop from the best level, where most changes are
        high = low
        low -= stride
        stride *= 2
    low = max(low, -1)
    while high - low > 1:
        middle = (low + high) // 2
        if keys[middle] >= key:
            high = middle
        else:
            low = middle
    return high


@helper
def _move_up(row: Ints, begin: int, end: int) -> None:
    """Move ``row[begin:end]`` one place towards the end."""
    # Two views, of which the compiler makes a block move. With row[i - 1] it asks of each index whether it
    # counts from the end.
    source, target = row[begin:end], row[begin + 1 : end + 1]
    for i in range(len(source) - 1, -1, -1):
        target[i] = source[i]


@helper
def _move_down(row: Ints, begin: int, end: int) -> None:
    """Move ``row[begin:end]`` one place towards the begin."""
    source, target = row[begin:end], row[begin - 1 : end - 1]
    for i in range(len(source)):
        target[i] = source[i]


@helper
def _insert(keys: Ints, sizes: Ints, count: int, at: int, key: int, size: int) -> None:
    """Put a level at ``at`` of ``count`` sorted ones, which have room for one more."""
    _move_up(keys, at, count)
    _move_up(sizes, at, count)
    keys[at] = key
    sizes[at] = size


@helper
def _highest(places: Ints, end: int) -> int:
    """Return the highest place below ``end`` that has a level, or -1; ``places`` (WINDOW,) of one side."""
    at = end - 1
    # Eight at a time: a thin book has thousands of empty places between its levels.
    while at >= 7:
        near = places[at] | places[at - 1] | places[at - 2] | places[at - 3]
        further = places[at - 4] | places[at - 5] | places[at - 6] | places[at - 7]
        if near | further != 0:
            break
        at -= 8
    while at >= 0 and places[at] == 0:
        at -= 1
    return at


@helper
def _count_inside(levels: Levels, state: Ints, side: int) -> int:
    """Return the number of levels in the window of ``side``."""
    count = 0
    for size in levels.window[side, : state[TOP + side] + 1]:
        count += 1 if size != 0 else 0
    return count


@helper
def best(levels: Levels, state: Ints, side: int) -> int:
    """Return the key of the best level of ``side``, NO_PRICE where there is none."""
    if state[UNIT] > 0:
        top = state[TOP + side]
        return (state[BASE + side] + top) * state[UNIT] if top >= 0 else NO_PRICE
    count = state[BIDS + side]
    return int(levels.keys[side, count - 1]) if count > 0 else NO_PRICE


@helper
def best_size(levels: Levels, state: Ints, side: int) -> int:
    """Return the lots of the best level of ``side``, 0 where there is none."""
    if state[UNIT] > 0:
        top = state[TOP + side]
        return int(levels.window[side, top]) if top >= 0 else 0
    count = state[BIDS + side]
    return int(levels.sizes[side, count - 1]) if count > 0 else 0


@helper
def next_best(levels: Levels, state: Ints, side: int, key: int) -> int:
    """Return the key of the best level of ``side`` that is worse than ``key``, NO_PRICE if there is none."""
    unit = state[UNIT]
    if unit > 0:
        at = -(-key // unit) - state[BASE + side]
        if at > 0:
            found = _highest(levels.window[side], min(at, WINDOW))
            if found >= 0:
                return int((state[BASE + side] + found) * unit)
        settle(levels, state, side)
    at = find_level(levels.keys[side], state[BIDS + side], key)
    return int(levels.keys[side, at - 1]) if at > 0 else NO_PRICE


@helper
def _find_far(levels: Levels, side: int, key: int) -> int:
    """Return the slot of a change that is put off, or the free one that it would take."""
    slot = (key ^ (key >> _FAR_BITS)) & (_FAR - 1)
    while levels.far[side, slot, 0] != key and levels.far[side, slot, 0] != NO_PRICE:
        slot = (slot + 1) & (_FAR - 1)
    return int(slot)


@helper
def size_at(levels: Levels, state: Ints, side: int, key: int) -> int:
    """Return the lots of the level with ``key``; 0 where there is none."""
    unit = state[UNIT]
    if unit > 0:
        place = key if unit == 1 else key // unit  # to divide takes longer than all the rest
        at = place - state[BASE + side]
        if at >= 0:
            return int(levels.window[side, at]) if at < WINDOW and place * unit == key else 0
    if state[PUT_OFF + side] > 0:
        slot = _find_far(levels, side, key)
        if levels.far[side, slot, 0] == key:
            return int(levels.far[side, slot, 1])
    count = state[BIDS + side]
    at = find_level(levels.keys[side], count, key)
    return int(levels.sizes[side, at]) if at < count and levels.keys[side, at] == key else 0


@helper
def level_size(levels: Levels, state: Ints, side: int, price: int) -> int:
    """Return the lots shown at ``price`` on ``side``; 0 where there is no level."""
    return size_at(levels, state, side, price if side == BID else -price)


@helper
def is_near_known(state: Ints) -> bool:
    """Return whether `near_size` knows of anything."""
    return bool(state[UNIT] == 1)


@helper
def near_size(levels: Levels, state: Ints, side: int, price: int) -> int:
    """Return what `level_size` does of a price near the touch, of others it may be -1."""
    at = (price if side == BID else -price) - state[BASE + side]
    return int(levels.window[side, at]) if 0 <= at < WINDOW else -1


@helper
def level_known(levels: Levels, state: Ints, side: int, price: int) -> bool:
    """Return whether the feed speaks of ``price`` at all: beyond a full number of levels it does not."""
    count = state[BIDS + side]
    key = price if side == BID else -price
    return bool(state[MAX_DEPTH] == 0 or count < state[MAX_DEPTH] or key >= levels.keys[side, 0])


@kernel(chain)
def count_levels(levels: Levels, state: Ints, side: int) -> int:
    """Return the number of levels of ``side``."""
    settle(levels, state, side)
    return int(state[BIDS + side] + _count_inside(levels, state, side))


@kernel(chain)
def list_levels(levels: Levels, state: Ints, side: int, found: Ints) -> None:
    """Write the n best levels of ``side``, best first, into ``found`` (n, 2): key and lots."""
    key = best(levels, state, side)
    for i in range(len(found)):
        found[i, 0] = key
        found[i, 1] = size_at(levels, state, side, key)
        key = next_best(levels, state, side, key)


@helper
def _gather_far(levels: Levels, side: int, keys: Ints, sizes: Ints) -> None:
    """Move the changes that are put off into ``keys`` and ``sizes``, in order of their keys."""
    count = 0
    for slot in range(_FAR):
        key, size = levels.far[side, slot, 0], levels.far[side, slot, 1]
        if key == NO_PRICE:
            continue
        levels.far[side, slot, 0] = NO_PRICE
        keys[count] = key
        sizes[count] = size
        count += 1
    for gap in _GAPS:
        for i in range(gap, count):
            key, size, at = keys[i], sizes[i], i
            while at >= gap and keys[at - gap] > key:
                keys[at] = keys[at - gap]
                sizes[at] = sizes[at - gap]
                at -= gap
            keys[at] = key
            sizes[at] = size


@helper
def settle(levels: Levels, state: Ints, side: int) -> None:
    """Merge the changes of ``side`` that are put off into its sorted row."""
    changes = state[PUT_OFF + side]
    if changes == 0:
        return
    keys, sizes = levels.keys[side], levels.sizes[side]
    new_keys, new_sizes = levels.keys[2 + side], levels.sizes[2 + side]
    _gather_far(levels, side, new_keys, new_sizes)
    count = state[BIDS + side]
    # Forward: known levels get their sizes, removed ones fall out, new ones gather at their list's begin.
    read = write = new = 0
    for i in range(changes):
        key, size = new_keys[i], new_sizes[i]
        while read < count and keys[read] < key:
            keys[write] = keys[read]
            sizes[write] = sizes[read]
            read += 1
            write += 1
        if read < count and keys[read] == key:
            if size != 0:
                keys[write] = key
                sizes[write] = size
                write += 1
            read += 1
        elif size != 0:
            new_keys[new] = key
            new_sizes[new] = size
            new += 1
    while read < count:
        keys[write] = keys[read]
        sizes[write] = sizes[read]
        read += 1
        write += 1
    # Backward: the new ones go between the known ones.
    state[BIDS + side] = write + new
    state[PUT_OFF + side] = 0
    known, at = write - 1, write + new - 1
    while new > 0:
        if known >= 0 and keys[known] > new_keys[new - 1]:
            keys[at] = keys[known]
            sizes[at] = sizes[known]
            known -= 1
        else:
            keys[at] = new_keys[new - 1]
            sizes[at] = new_sizes[new - 1]
            new -= 1
        at -= 1


@helper
def _put_off(levels: Levels, state: Ints, side: int, key: int, size: int) -> bool:
    """Keep a change below the window for later; False when there is no room."""
    slot = _find_far(levels, side, key)
    if levels.far[side, slot, 0] == NO_PRICE:
        count = state[PUT_OFF + side]
        if count == _MOST_PUT_OFF:
            settle(levels, state, side)
            slot = _find_far(levels, side, key)
            count = 0
        if state[BIDS + side] + count >= levels.keys.shape[1]:
            state[FULL] = 1
            return False
        levels.far[side, slot, 0] = key
        state[PUT_OFF + side] = count + 1
    levels.far[side, slot, 1] = size
    return True


@helper
def _clear_window(levels: Levels, state: Ints, side: int) -> None:
    """Take all levels out of the window of ``side``."""
    levels.window[side, : state[TOP + side] + 1] = 0
    state[TOP + side] = -1


@helper
def _has_room(levels: Levels, state: Ints, side: int) -> bool:
    """Tell whether the sorted row of ``side`` has room for all its levels; sets FULL where it has none."""
    outside = state[BIDS + side] + state[PUT_OFF + side]
    if outside + _count_inside(levels, state, side) > levels.keys.shape[1]:
        state[FULL] = 1
        return False
    return True


@helper
def _empty_window(levels: Levels, state: Ints, side: int) -> None:
    """Put the levels of the window behind those of the sorted row, which has room."""
    keys, sizes = levels.keys[side], levels.sizes[side]
    settle(levels, state, side)
    count = state[BIDS + side]
    end = count + _count_inside(levels, state, side)
    state[BIDS + side] = end
    at = state[TOP + side]
    while end > count:
        end -= 1
        keys[end] = (state[BASE + side] + at) * state[UNIT]
        sizes[end] = levels.window[side, at]
        at = _highest(levels.window[side], at)
    _clear_window(levels, state, side)


@helper
def _draw_window(levels: Levels, state: Ints, side: int, place: int) -> bool:
    """Move the window so that ``place`` (a key in units) is near its upper end; False without room."""
    if not _has_room(levels, state, side):
        return False
    _empty_window(levels, state, side)
    keys, sizes, unit = levels.keys[side], levels.sizes[side], state[UNIT]
    base = place - (WINDOW - _ABOVE)
    state[BASE + side] = base
    count = end = state[BIDS + side]
    while count > 0 and keys[count - 1] >= base * unit:
        count -= 1
        at = keys[count] // unit - base
        levels.window[side, at] = sizes[count]
    state[BIDS + side] = count
    if end > count:
        state[TOP + side] = keys[end - 1] // unit - base
    return True


@helper
def _set_sorted(levels: Levels, state: Ints, side: int, key: int, size: int) -> bool:
    """Set a level of the sorted row; False when there is no room."""
    keys, sizes = levels.keys[side], levels.sizes[side]
    count = state[BIDS + side]
    at = find_level(keys, count, key)
    if at < count and keys[at] == key:
        if size != 0:
            sizes[at] = size
        else:
            _move_down(keys, at + 1, count)
            _move_down(sizes, at + 1, count)
            state[BIDS + side] = count - 1
    elif size != 0:
        if count == len(keys):
            state[FULL] = 1
            return False
        _insert(keys, sizes, count, at, key, size)
        state[BIDS + side] = count + 1
    return True


@helper
def _reach_below(levels: Levels, state: Ints, side: int) -> None:
    """Move a window without levels down to the best level below it, where there is one."""
    settle(levels, state, side)
    count = state[BIDS + side]
    if count > 0:
        _draw_window(levels, state, side, levels.keys[side, count - 1] // state[UNIT])


@helper
def _set_outside(levels: Levels, state: Ints, side: int, key: int, size: int) -> bool:
    """Set a level that is not in the window, or of a book without one; False when there is no room."""
    unit = state[UNIT]
    if unit > 0 and key % unit == 0:
        place = key // unit
        if place < state[BASE + side]:
            if not _put_off(levels, state, side, key, size):
                return False
            if state[TOP + side] < 0:
                _reach_below(levels, state, side)
        elif size != 0:  # above the window there is nothing to remove
            if not _draw_window(levels, state, side, place):
                return False
            state[TOP + side] = place - state[BASE + side]
            levels.window[side, state[TOP + side]] = size
        return True
    if unit > 0:
        # Both or neither: a window emptied by half would be filled again above its own levels.
        if not (_has_room(levels, state, BID) and _has_room(levels, state, ASK)):
            return False
        _empty_window(levels, state, BID)
        _empty_window(levels, state, ASK)
        state[UNIT] = 0
    return bool(_set_sorted(levels, state, side, key, size))


@helper
def _clear(levels: Levels, state: Ints) -> None:
    """Empty the book."""
    for side in range(2):
        _clear_window(levels, state, side)
        state[BASE + side] = NO_BASE
        state[BIDS + side] = 0
        if state[PUT_OFF + side] > 0:
            levels.far[side, :, 0] = NO_PRICE
            state[PUT_OFF + side] = 0


@helper
def _set_near(
    sides: NDArray[np.int8],
    price: Ints,
    size: Ints,
    begin: int,
    end: int,
    window: Ints,
    far: Ints,
    state: Ints,
) -> int:
    """Set the levels of rows ``begin:end``, each in its place of the window or among those that are put off.

    Returns the first row that has neither, or ``end``. The best levels are found again; a window that was
    left without levels (TOP is -1) has to be moved by the caller.

    Nearly all rows end here, so that each instruction counts. It takes the arrays that it needs, not the
    tuples that they are in: to hand these over costs as much as a dozen levels.
    """
    unit = state[UNIT]
    # Without a sign: of an index with one it is asked each time whether it counts from the end.
    row, one, stop = np.uint64(begin), np.uint64(1), np.uint64(end)
    while row < stop:
        side = BID if sides[row] == BID else ASK
        sign = 1 if side == BID else -1
        base, top = state[BASE + side], state[TOP + side]
        places = window[side]
        while row < stop and sides[row] == side:
            key = sign * price[row]
            lots = size[row]
            if unit == 1:
                at = key - base
            elif key % unit == 0:
                at = key // unit - base
            else:
                at = -1
            if 0 <= at < WINDOW:
                places[at] = lots
                # Whether a level goes is as good as random: it is asked of the few that are at the touch.
                if at > top and lots != 0:
                    top = at
            else:
                slot = (key ^ (key >> _FAR_BITS)) & (_FAR - 1)  # as `_find_far`
                held = far[side, slot, 0]
                while held != key and held != NO_PRICE:
                    slot = (slot + 1) & (_FAR - 1)
                    held = far[side, slot, 0]
                if held != key:
                    break
                far[side, slot, 1] = lots
            row += one
        # No place above it has a level: what was the best before, or came since, may have gone again.
        if top >= 0 and places[top] == 0:
            top = _highest(places, top)
        state[TOP + side] = top
        if row < stop and sides[row] == side:
            break
    return int(np.int64(row))


@helper
def _cut(levels: Levels, state: Ints) -> None:
    """Cut the worst levels beyond the most that the feed speaks of."""
    for side in range(2):
        extra = state[BIDS + side] - state[MAX_DEPTH]
        if extra > 0:
            keys, sizes = levels.keys[side], levels.sizes[side]
            state[BIDS + side] -= extra
            for i in range(state[BIDS + side]):
                keys[i] = keys[i + extra]
                sizes[i] = sizes[i + extra]


@helper
def _apply(columns: Columns, message: int, levels: Levels, state: Ints) -> bool:
    """Set the levels of ``message`` in the book; False when the arrays are too small for one."""
    row, end = columns.start[message] + state[ROWS_SET], columns.start[message + 1]
    state[ROWS_SET] = 0
    while row < end:
        if state[UNIT] > 0:
            row = _set_near(
                columns.side, columns.price, columns.size, row, end, levels.window, levels.far, state
            )
            for side in range(2):
                if state[TOP + side] < 0:
                    _reach_below(levels, state, side)
        if row < end:
            side = BID if columns.side[row] == BID else ASK
            key = columns.price[row] if side == BID else -columns.price[row]
            if not _set_outside(levels, state, side, key, columns.size[row]):
                return False
            row += 1
    if state[MAX_DEPTH] > 0:
        _cut(levels, state)
    return True


@helper
def take_near(columns: Columns, i: int, levels: Levels, state: Ints) -> bool:
    """Take a diff that continues a valid book, as far as its levels are near; False: `step` has to go on.

    The compiler puts it where it is called, which spares `run` the handing over of all arrays to `step`.
    """
    # A side without a level in its window has none, or there is no window.
    if columns.kind[i] != DIFF or state[VALID] == 0 or state[TOP + BID] < 0 or state[TOP + ASK] < 0:
        return False
    first_id, last_id, prev_id = columns.first_id[i], columns.last_id[i], columns.prev_id[i]
    if _classify(state[RULE], state[BOOK_ID], first_id, last_id, prev_id) != CONTINUES:
        return False
    begin, end = columns.start[i] + state[ROWS_SET], columns.start[i + 1]
    row = _set_near(columns.side, columns.price, columns.size, begin, end, levels.window, levels.far, state)
    if row < end or state[TOP + BID] < 0 or state[TOP + ASK] < 0:
        state[ROWS_SET] = min(row, end - 1) - columns.start[i]  # a row is left, with which a window is moved
        return False
    state[BOOK_ID] = last_id
    return True


@helper
def _splice(columns: Columns, last: int, levels: Levels, state: Ints) -> None:
    """Start the book from the waiting snapshot, if a message up to ``last`` bridges it."""
    snapshot_id = columns.last_id[state[SNAPSHOT]]
    rule = state[RULE]
    book_id = snapshot_id
    started = False
    for j in range(state[PENDING], last + 1):
        if columns.kind[j] != DIFF:
            continue
        first_id, last_id, prev_id = columns.first_id[j], columns.last_id[j], columns.prev_id[j]
        if not started:
            verdict = _bridges(rule, snapshot_id, first_id, last_id, prev_id)
            if verdict == BREAKS:  # the snapshot is too old; the buffer stays
                state[SNAPSHOT] = -1
                return
            if verdict == REPEAT:
                # Never looked at again: a snapshot may be thousands of messages ahead of the stream.
                state[PENDING] = j + 1
                continue
            _clear(levels, state)
            if not _apply(columns, state[SNAPSHOT], levels, state):
                return
            started = True
        else:
            verdict = _classify(rule, book_id, first_id, last_id, prev_id)
            if verdict == BREAKS:
                state[PENDING] = j
                state[SNAPSHOT] = -1
                return
            if verdict == REPEAT:
                continue
        if not _apply(columns, j, levels, state):
            return
        book_id = last_id
    if state[PENDING] > last:
        state[PENDING] = -1
    if started:
        state[VALID] = 1
        state[BOOK_ID] = book_id
        state[PENDING] = -1
        state[SNAPSHOT] = -1


@kernel(chain)
def step(columns: Columns, i: int, levels: Levels, state: Ints) -> None:
    """Take message ``i`` into the book. When it sets ``state[FULL]``: grow, clear FULL, step again."""
    if take_near(columns, i, levels, state):
        return
    kind = columns.kind[i]
    if kind == DIFF:
        if state[SUSPENDED] == 1 and (
            state[RULE] == UNCHAINED or state[BOOK_ID] == NO_ID or columns.last_id[i] == NO_ID
        ):
            state[SUSPENDED] = 0  # no ids: nothing says that this message continues that book
        if state[VALID] == 1 or state[SUSPENDED] == 1:
            verdict = _classify(
                state[RULE],
                state[BOOK_ID],
                columns.first_id[i],
                columns.last_id[i],
                columns.prev_id[i],
            )
            if verdict == CONTINUES:
                if _apply(columns, i, levels, state):
                    state[BOOK_ID] = columns.last_id[i]
                    state[VALID] = 1
                    state[SUSPENDED] = 0
            elif verdict == BREAKS:
                state[VALID] = 0
                state[SUSPENDED] = 0
                state[PENDING] = i
                state[SNAPSHOT] = -1
            return
        if state[PENDING] < 0:
            state[PENDING] = i
        if state[SNAPSHOT] >= 0:
            _splice(columns, i, levels, state)
    elif kind == REPLACE:
        _clear(levels, state)
        if _apply(columns, i, levels, state):
            state[BOOK_ID] = columns.last_id[i]
            state[VALID] = 1
            state[SUSPENDED] = 0
            state[PENDING] = -1
            state[SNAPSHOT] = -1
    elif kind == SPLICE:
        if state[VALID] == 0:
            state[SUSPENDED] = 0  # who asks for a snapshot no longer trusts the book before it
            state[SNAPSHOT] = i
            if state[PENDING] >= 0:
                _splice(columns, i, levels, state)
    elif kind == SESSION:
        state[SUSPENDED] = state[VALID]
        state[VALID] = 0
        state[PENDING] = -1
        state[SNAPSHOT] = -1
    elif kind == GAP_OPEN:
        state[VALID] = 0
        state[SUSPENDED] = 0
        state[PENDING] = -1
        state[SNAPSHOT] = -1
    elif kind == GAP and state[VALID] == 1:
        state[VALID] = 0
        state[PENDING] = -1
        state[SNAPSHOT] = -1


@kernel(chain)
def run(
    columns: Columns,
    begin: int,
    end: int,
    levels: Levels,
    state: Ints,
    tops: NDArray[np.int64],
    applied: NDArray[np.bool_],
) -> int:
    """Step messages ``begin:end`` and note the book after each; return where to go on (``end``, or FULL).

    ``tops`` is (n, 5): valid, best bid, its size, best ask, its size; NO_PRICE and 0 for an empty side
    or an invalid book. ``applied`` (n,) is true where the message left a valid book at its own id.
    """
    for i in range(begin, end):
        if not take_near(columns, i, levels, state):
            step(columns, i, levels, state)
            if state[FULL] == 1:
                return i
        valid = state[VALID]
        bid, ask = best(levels, state, BID), best(levels, state, ASK)
        tops[i, 0] = valid
        tops[i, 1] = bid if valid == 1 else NO_PRICE
        tops[i, 2] = best_size(levels, state, BID) if valid == 1 else 0
        tops[i, 3] = -ask if valid == 1 and ask != NO_PRICE else NO_PRICE
        tops[i, 4] = best_size(levels, state, ASK) if valid == 1 else 0
        applied[i] = valid == 1 and columns.kind[i] <= REPLACE and columns.last_id[i] == state[BOOK_ID]
    return end


# Fields of a cursor: how far the frames of a book are told.
NEXT = 0  # the next moment of the grid, ns; of a list of moments, its position
LATEST = 1  # the latest receive time so far, or NO_PRICE
EVENT = 2  # the exchange's time of the last message, as its column has it
SHOWN = 3  # 1 when the last frame told shows a valid book
STARTED = 4  # 1 once frames are wanted
FRAMES = 5  # frames in the arrays
CURSOR_SIZE = 6


class Frames(NamedTuple):
    """Room for m frames of a book: its best levels at a moment."""

    time: Ints  # (m,) ns, by the recorder's clock
    event: Ints  # (m,) ns, by the exchange's: of the last message in the book
    book_id: Ints  # (m,)
    valid: NDArray[np.bool_]  # (m,)
    levels: NDArray[
        np.int64
    ]  # (m, 2, depth, 2): side, best first, price and size; NO_PRICE where there is none


@helper
def _tell(
    frames: Frames,
    time: int,
    levels: Levels,
    state: Ints,
    cursor: Ints,
) -> None:
    """Add a frame of the book as it stands."""
    at = cursor[FRAMES]
    cursor[FRAMES] = at + 1
    cursor[SHOWN] = state[VALID]
    frames.time[at] = time
    frames.event[at] = cursor[EVENT]
    frames.book_id[at] = state[BOOK_ID] if state[VALID] == 1 else NO_ID
    frames.valid[at] = state[VALID] == 1
    for side in range(2):
        key = best(levels, state, side) if state[VALID] == 1 else NO_PRICE
        for i in range(frames.levels.shape[2]):
            frames.levels[at, side, i, 0] = -key if key != NO_PRICE and side == ASK else key
            frames.levels[at, side, i, 1] = size_at(levels, state, side, key) if key != NO_PRICE else 0
            if key != NO_PRICE:
                key = next_best(levels, state, side, key)


@helper
def _same(last: NDArray[np.int64], levels: Levels, state: Ints) -> bool:
    """Return whether the best levels are those of a frame, ``last`` (2, depth, 2)."""
    for side in range(2):
        key = best(levels, state, side)
        for i in range(last.shape[1]):
            price = -key if key != NO_PRICE and side == ASK else key
            if last[side, i, 0] != price:
                return False
            if key == NO_PRICE:
                break
            if last[side, i, 1] != size_at(levels, state, side, key):
                return False
            key = next_best(levels, state, side, key)
    return True


@kernel(chain)
def run_frames(
    columns: Columns,
    ts_recv: Ints,
    ts_event: Ints,
    begin: int,
    start: int,
    every: int,
    levels: Levels,
    state: Ints,
    cursor: Ints,
    last: NDArray[np.int64],
    frames: Frames,
) -> int:
    """Step messages from ``begin`` on and tell frames; return where to go on: all are done, FULL, no room.

    ``every`` 0: a frame where the best levels changed. Else one at each multiple of ``every`` (ns) from
    ``start`` on, as the book was known then. ``start`` (ns; NO_PRICE for none) is the first time that
    frames are wanted of. A book that became invalid is told once, without levels. ``last`` is (2, depth, 2).
    """
    room = len(frames.time)
    for i in range(begin, len(columns.kind)):
        if cursor[FRAMES] == room:
            return i
        # The end of a session: what was told up to its last message can still be asked for.
        time = ts_recv[i] if ts_recv[i] != NO_PRICE else cursor[LATEST] + 1
        time = max(time, cursor[LATEST])
        if every > 0 and cursor[LATEST] != NO_PRICE:
            while cursor[NEXT] < time and (state[VALID] == 1 or cursor[SHOWN] == 1):
                if cursor[FRAMES] == room:
                    return i
                _tell(frames, cursor[NEXT], levels, state, cursor)
                cursor[NEXT] += every
        if cursor[STARTED] == 0 and ts_recv[i] >= start and ts_recv[i] != NO_PRICE:
            cursor[STARTED] = 1
        step(columns, i, levels, state)
        if state[FULL] == 1:
            return i
        if every > 0 and cursor[NEXT] < time:  # no book was there to tell of
            cursor[NEXT] = -(-time // every) * every
        if columns.kind[i] != SESSION:
            cursor[LATEST] = time
            cursor[EVENT] = ts_event[i]
        if every == 0 and cursor[STARTED] == 1:
            valid = state[VALID] == 1
            if (valid and (cursor[SHOWN] == 0 or not _same(last, levels, state))) or (
                not valid and cursor[SHOWN] == 1
            ):
                _tell(frames, cursor[LATEST], levels, state, cursor)
                told = frames.levels[cursor[FRAMES] - 1]
                for side in range(2):
                    for level in range(last.shape[1]):
                        last[side, level, 0] = told[side, level, 0]
                        last[side, level, 1] = told[side, level, 1]
    return len(columns.kind)


@kernel(chain)
def run_moments(
    columns: Columns,
    ts_recv: Ints,
    ts_event: Ints,
    begin: int,
    moments: Ints,
    levels: Levels,
    state: Ints,
    cursor: Ints,
    frames: Frames,
) -> int:
    """Step messages from ``begin`` on and tell the book at each of ``moments`` (m,), ns, ascending.

    A moment's book is that of all messages received up to it. ``cursor[NEXT]`` is the next moment's position.
    Returns where to go on: all are done, FULL, or no room. Moments behind the last message are not told.
    """
    for i in range(begin, len(columns.kind)):
        time = ts_recv[i] if ts_recv[i] != NO_PRICE else cursor[LATEST] + 1
        time = max(time, cursor[LATEST])
        while cursor[NEXT] < len(moments) and moments[cursor[NEXT]] < time:
            if cursor[FRAMES] == len(frames.time):
                return i
            _tell(frames, moments[cursor[NEXT]], levels, state, cursor)
            cursor[NEXT] += 1
        step(columns, i, levels, state)
        if state[FULL] == 1:
            return i
        if columns.kind[i] != SESSION:
            cursor[LATEST] = time
            cursor[EVENT] = ts_event[i]
    return len(columns.kind)


@kernel(chain)
def run_proof(
    columns: Columns,
    begin: int,
    levels: Levels,
    state: Ints,
    valid: NDArray[np.bool_],
    book_id: Ints,
) -> None:
    """Step the heads of messages from ``begin`` on; note whether the book is valid after each, and its id."""
    for i in range(begin, len(columns.kind)):
        step(columns, i, levels, state)
        valid[i] = state[VALID] == 1
        book_id[i] = state[BOOK_ID]
