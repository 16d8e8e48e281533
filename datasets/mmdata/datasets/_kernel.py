"""The book kernel: message columns in, a book out. Compiled; runs uncompiled with NUMBA_DISABLE_JIT=1.

A book is two sorted lists of levels, worst first and best LAST, so that a change near the touch moves a
few numbers at the end whatever the depth, the tick or the price. Both sides ascend by *key*: the price
of a bid, minus the price of an ask. All prices are integer ticks, all sizes integer lots.

A change far from the touch would move thousands. It is put off: a short sorted list of its own (row
``FAR + side`` of the arrays, 0 for a level to be removed) keeps the newest size of each such price, and
`settle` merges it when it is full, or when somebody wants to see that deep. The best ``LEAST_NEAR`` levels
are right at all times. Books of the best levels only (MAX_DEPTH) put nothing off.

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
from mmdata.datasets.jit import kernel

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
BIDS = 6  # number of bid levels; BIDS + ASK is the number of asks
ASKS = 7
RULE = 8
MAX_DEPTH = 9
BOUNDARY = 10  # BOUNDARY + side: changes below this key are put off; NO_PRICE: none are
NEAR = 12  # NEAR + side: number of levels from the boundary on
PUT_OFF = 14  # PUT_OFF + side: number of changes that are put off
STATE_SIZE = 16

FAR = 2  # FAR + side: the row of keys and sizes that holds the changes that are put off
SIDES = 4  # rows of keys and sizes
LEAST_NEAR = 64
_NEAR = 256
_MOST_NEAR = 768
_MOST_PUT_OFF = 256


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


_classify = kernel()(chain.classify)
_bridges = kernel()(chain.bridges)


@kernel(chain)
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


@kernel(chain)
def _move_up(row: Ints, begin: int, end: int) -> None:
    """Move ``row[begin:end]`` one place towards the end."""
    # Two views, of which the compiler makes a block move. With row[i - 1] it asks of each index whether it
    # counts from the end.
    source, target = row[begin:end], row[begin + 1 : end + 1]
    for i in range(len(source) - 1, -1, -1):
        target[i] = source[i]


@kernel(chain)
def _move_down(row: Ints, begin: int, end: int) -> None:
    """Move ``row[begin:end]`` one place towards the begin."""
    source, target = row[begin:end], row[begin - 1 : end - 1]
    for i in range(len(source)):
        target[i] = source[i]


@kernel(chain)
def level_size(keys: NDArray[np.int64], sizes: NDArray[np.int64], state: Ints, side: int, price: int) -> int:
    """Return the lots shown at ``price`` (ticks) on ``side``; 0 where there is no level."""
    key = price if side == BID else -price
    if key < state[BOUNDARY + side]:
        count = state[PUT_OFF + side]
        at = find_level(keys[FAR + side], count, key)
        if at < count and keys[FAR + side, at] == key:
            return int(sizes[FAR + side, at])
    count = state[BIDS + side]
    at = find_level(keys[side], count, key)
    return sizes[side, at] if at < count and keys[side, at] == key else 0


@kernel(chain)
def level_known(keys: NDArray[np.int64], state: Ints, side: int, price: int) -> bool:
    """Return whether the feed speaks of ``price`` at all: beyond a full window of levels it does not."""
    count = state[BIDS + side]
    key = price if side == BID else -price
    return bool(state[MAX_DEPTH] == 0 or count < state[MAX_DEPTH] or key >= keys[side, 0])


@kernel(chain)
def settle(keys: NDArray[np.int64], sizes: NDArray[np.int64], state: Ints, side: int) -> None:
    """Merge the changes of ``side`` that are put off into its levels."""
    changes = state[PUT_OFF + side]
    if changes == 0:
        return
    count = state[BIDS + side]
    split = count - state[NEAR + side]
    far = FAR + side
    # Forward: known levels get their sizes, removed ones fall out, new ones gather at the list's begin.
    read = write = new = 0
    for i in range(changes):
        key, size = keys[far, i], sizes[far, i]
        while read < split and keys[side, read] < key:
            keys[side, write] = keys[side, read]
            sizes[side, write] = sizes[side, read]
            read += 1
            write += 1
        if read < split and keys[side, read] == key:
            if size != 0:
                keys[side, write] = key
                sizes[side, write] = size
                write += 1
            read += 1
        elif size != 0:
            keys[far, new] = key
            sizes[far, new] = size
            new += 1
    while read < split:
        keys[side, write] = keys[side, read]
        sizes[side, write] = sizes[side, read]
        read += 1
        write += 1
    moved = write + new - split
    if moved > 0:
        for i in range(count - 1, split - 1, -1):
            keys[side, i + moved] = keys[side, i]
        for i in range(count - 1, split - 1, -1):
            sizes[side, i + moved] = sizes[side, i]
    elif moved < 0:
        for i in range(split, count):
            keys[side, i + moved] = keys[side, i]
        for i in range(split, count):
            sizes[side, i + moved] = sizes[side, i]
    # Backward: the new ones go between the known ones.
    known, at = write - 1, write + new - 1
    while new > 0:
        if known >= 0 and keys[side, known] > keys[far, new - 1]:
            keys[side, at] = keys[side, known]
            sizes[side, at] = sizes[side, known]
            known -= 1
        else:
            keys[side, at] = keys[far, new - 1]
            sizes[side, at] = sizes[far, new - 1]
            new -= 1
        at -= 1
    state[BIDS + side] = count + moved
    state[PUT_OFF + side] = 0


@kernel(chain)
def _put_off(
    keys: NDArray[np.int64], sizes: NDArray[np.int64], state: Ints, side: int, key: int, size: int
) -> None:
    """Keep a change far from the touch for later."""
    far = FAR + side
    count = state[PUT_OFF + side]
    at = find_level(keys[far], count, key)
    if at < count and keys[far, at] == key:
        sizes[far, at] = size
        return
    _move_up(keys[far], at, count)
    _move_up(sizes[far], at, count)
    keys[far, at] = key
    sizes[far, at] = size
    state[PUT_OFF + side] = count + 1
    if count + 1 == _MOST_PUT_OFF:
        settle(keys, sizes, state, side)


@kernel(chain)
def _bound(keys: NDArray[np.int64], sizes: NDArray[np.int64], state: Ints, side: int) -> None:
    """Draw the boundary anew between levels that are kept up to date and those that wait."""
    settle(keys, sizes, state, side)
    count = state[BIDS + side]
    if count > _MOST_NEAR:
        state[BOUNDARY + side] = keys[side, count - _NEAR]
        state[NEAR + side] = _NEAR
    else:
        state[BOUNDARY + side] = NO_PRICE
        state[NEAR + side] = count


@kernel(chain)
def _clear(state: Ints) -> None:
    """Empty the book."""
    for side in range(2):
        state[BIDS + side] = 0
        state[BOUNDARY + side] = NO_PRICE
        state[NEAR + side] = 0
        state[PUT_OFF + side] = 0


@kernel(chain)
def _apply(
    columns: Columns, message: int, keys: NDArray[np.int64], sizes: NDArray[np.int64], state: Ints
) -> bool:
    """Set the levels of ``message`` in the book; False when the arrays are too small for one."""
    for row in range(columns.start[message], columns.start[message + 1]):
        side = columns.side[row]
        key = columns.price[row] if side == BID else -columns.price[row]
        size = columns.size[row]
        count = state[BIDS + side]
        has_room = count + state[PUT_OFF + side] < keys.shape[1]
        if key < state[BOUNDARY + side]:
            if not has_room:
                state[FULL] = 1
                return False
            _put_off(keys, sizes, state, side, key, size)
            continue
        at = find_level(keys[side], count, key)
        if at < count and keys[side, at] == key:
            if size != 0:
                sizes[side, at] = size
                continue
            _move_down(keys[side], at + 1, count)
            _move_down(sizes[side], at + 1, count)
            state[BIDS + side] = count - 1
            state[NEAR + side] -= 1
            if state[NEAR + side] < LEAST_NEAR and state[BOUNDARY + side] != NO_PRICE:
                _bound(keys, sizes, state, side)
        elif size != 0:
            if not has_room:
                state[FULL] = 1
                return False
            _move_up(keys[side], at, count)
            _move_up(sizes[side], at, count)
            keys[side, at] = key
            sizes[side, at] = size
            state[BIDS + side] = count + 1
            state[NEAR + side] += 1
            if state[NEAR + side] > _MOST_NEAR and state[MAX_DEPTH] == 0:
                _bound(keys, sizes, state, side)
    if state[MAX_DEPTH] > 0:
        for side in range(2):
            extra = state[BIDS + side] - state[MAX_DEPTH]
            if extra > 0:  # cut the worst levels
                state[BIDS + side] -= extra
                state[NEAR + side] -= extra
                for i in range(state[BIDS + side]):
                    keys[side, i] = keys[side, i + extra]
                    sizes[side, i] = sizes[side, i + extra]
    return True


@kernel(chain)
def _splice(
    columns: Columns, last: int, keys: NDArray[np.int64], sizes: NDArray[np.int64], state: Ints
) -> None:
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
            _clear(state)
            if not _apply(columns, state[SNAPSHOT], keys, sizes, state):
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
        if not _apply(columns, j, keys, sizes, state):
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
def step(columns: Columns, i: int, keys: NDArray[np.int64], sizes: NDArray[np.int64], state: Ints) -> None:
    """Take message ``i`` into the book. When it sets ``state[FULL]``: grow, clear FULL, step again."""
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
                if _apply(columns, i, keys, sizes, state):
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
            _splice(columns, i, keys, sizes, state)
    elif kind == REPLACE:
        _clear(state)
        if _apply(columns, i, keys, sizes, state):
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
                _splice(columns, i, keys, sizes, state)
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
    keys: NDArray[np.int64],
    sizes: NDArray[np.int64],
    state: Ints,
    tops: NDArray[np.int64],
    applied: NDArray[np.bool_],
) -> int:
    """Step messages ``begin:end`` and note the book after each; return where to go on (``end``, or FULL).

    ``tops`` is (n, 5): valid, best bid, its size, best ask, its size; NO_PRICE and 0 for an empty side
    or an invalid book. ``applied`` (n,) is true where the message left a valid book at its own id.
    """
    for i in range(begin, end):
        step(columns, i, keys, sizes, state)
        if state[FULL] == 1:
            return i
        bids, asks = state[BIDS], state[ASKS]
        valid = state[VALID]
        tops[i, 0] = valid
        tops[i, 1] = keys[BID, bids - 1] if valid == 1 and bids > 0 else NO_PRICE
        tops[i, 2] = sizes[BID, bids - 1] if valid == 1 and bids > 0 else 0
        tops[i, 3] = -keys[ASK, asks - 1] if valid == 1 and asks > 0 else NO_PRICE
        tops[i, 4] = sizes[ASK, asks - 1] if valid == 1 and asks > 0 else 0
        applied[i] = valid == 1 and columns.kind[i] <= REPLACE and columns.last_id[i] == state[BOOK_ID]
    return end


# Fields of a cursor: how far the frames of a book are told.
NEXT = 0  # the next moment of the grid, ns
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


@kernel(chain)
def _tell(
    frames: Frames,
    time: int,
    keys: NDArray[np.int64],
    sizes: NDArray[np.int64],
    state: Ints,
    cursor: Ints,
) -> None:
    """Add a frame of the book as it stands."""
    at = cursor[FRAMES]
    cursor[FRAMES] = at + 1
    cursor[SHOWN] = state[VALID]
    if frames.levels.shape[2] > LEAST_NEAR:
        settle(keys, sizes, state, BID)
        settle(keys, sizes, state, ASK)
    frames.time[at] = time
    frames.event[at] = cursor[EVENT]
    frames.book_id[at] = state[BOOK_ID] if state[VALID] == 1 else NO_ID
    frames.valid[at] = state[VALID] == 1
    for side in range(2):
        count = state[BIDS + side] if state[VALID] == 1 else 0
        for i in range(frames.levels.shape[2]):
            known = i < count
            key = keys[side, count - 1 - i] if known else NO_PRICE
            frames.levels[at, side, i, 0] = -key if known and side == ASK else key
            frames.levels[at, side, i, 1] = sizes[side, count - 1 - i] if known else 0


@kernel(chain)
def _same(last: NDArray[np.int64], keys: NDArray[np.int64], sizes: NDArray[np.int64], state: Ints) -> bool:
    """Return whether the best levels are those of a frame, ``last`` (2, depth, 2)."""
    for side in range(2):
        if last.shape[1] > LEAST_NEAR:
            settle(keys, sizes, state, side)
        count = state[BIDS + side]
        for i in range(last.shape[1]):
            if i >= count:
                if last[side, i, 0] != NO_PRICE:
                    return False
                break
            key = keys[side, count - 1 - i]
            if last[side, i, 0] != (-key if side == ASK else key):
                return False
            if last[side, i, 1] != sizes[side, count - 1 - i]:
                return False
    return True


@kernel(chain)
def run_frames(
    columns: Columns,
    ts_recv: Ints,
    ts_event: Ints,
    begin: int,
    start: int,
    every: int,
    keys: NDArray[np.int64],
    sizes: NDArray[np.int64],
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
                _tell(frames, cursor[NEXT], keys, sizes, state, cursor)
                cursor[NEXT] += every
        if cursor[STARTED] == 0 and ts_recv[i] >= start and ts_recv[i] != NO_PRICE:
            cursor[STARTED] = 1
        step(columns, i, keys, sizes, state)
        if state[FULL] == 1:
            return i
        if every > 0 and cursor[NEXT] < time:  # no book was there to tell of
            cursor[NEXT] = -(-time // every) * every
        if columns.kind[i] != SESSION:
            cursor[LATEST] = time
            cursor[EVENT] = ts_event[i]
        if every == 0 and cursor[STARTED] == 1:
            valid = state[VALID] == 1
            if (valid and (cursor[SHOWN] == 0 or not _same(last, keys, sizes, state))) or (
                not valid and cursor[SHOWN] == 1
            ):
                _tell(frames, cursor[LATEST], keys, sizes, state, cursor)
                last[:] = frames.levels[cursor[FRAMES] - 1]
    return len(columns.kind)


@kernel(chain)
def run_proof(
    columns: Columns,
    begin: int,
    keys: NDArray[np.int64],
    sizes: NDArray[np.int64],
    state: Ints,
    valid: NDArray[np.bool_],
    book_id: Ints,
) -> None:
    """Step the heads of messages from ``begin`` on; note whether the book is valid after each, and its id."""
    for i in range(begin, len(columns.kind)):
        step(columns, i, keys, sizes, state)
        valid[i] = state[VALID] == 1
        book_id[i] = state[BOOK_ID]
