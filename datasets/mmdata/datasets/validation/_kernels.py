"""The loops of the checks that go message by message; each keeps its state between chunks of a stream.

Compiled; run uncompiled with NUMBA_DISABLE_JIT=1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets import chain
from mmdata.datasets._kernel import ASK, BID, DIFF, GAP, GAP_OPEN, NO_PRICE, REPLACE, SESSION, SPLICE
from mmdata.datasets.chain import BREAKS, CONTINUES, NO_ID, REPEAT, UNCHAINED
from mmdata.datasets.jit import kernel
from mmdata.datasets.market import FRAME_BITS, NO_TIME

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

# State of a chain of book messages.
AT = 0  # id of the chain, or NO_ID before its first message
ANEW = 1  # 1 after a session began: its first message need not continue anything
WAITING = 2  # id of a REST snapshot that may cover a hole, or NO_ID
LOW = 3  # last_id of a message below the chain that came last, or NO_ID
LOW_ORDER, LOW_TIME, LOW_NEXT = 4, 5, 6  # its place, arrival, and what it builds on
CHAIN_STATE = 7

# Columns of a break: place, arrival, id before it, what it builds on (twice, where two tell), its last_id,
# arrival before it.
BREAK_ORDER, BREAK_TIME, BREAK_AT, BREAK_NEXT, BREAK_OTHER, BREAK_ID, BREAK_SINCE = range(7)
BREAK_WIDTH = 7

# State of a chain of trade ids.
TOP = 0  # highest id so far, or NO_ID
LOW_FIRST, LOW_LAST, LOW_PLACE, LOW_ARRIVAL = 1, 2, 3, 4  # the trade below the top that came last
SINCE = 5  # arrival of the trade before
OPEN = 6  # next place in the ring of open holes, which follows
RING = 64
NO_HOLE = 2**63 - 1  # where a hole would begin
TRADE_STATE = OPEN + 1 + 2 * RING

# Columns of a step: what it is, place, arrival, first and last id, the id before, arrival before it.
STEP_WHAT, STEP_ORDER, STEP_TIME, STEP_FIRST, STEP_LAST, STEP_TOP, STEP_SINCE = range(7)
STEP_WIDTH = 7
HOLE, AGAIN, LATE, BACK, TWICE = range(5)

# Columns of the minutes of a day: ns recorded, ns valid, ns with both sides, and sums weighted by ns.
RECORDED, PROVEN, QUOTED, SPREAD, BID_SIZE, ASK_SIZE = range(6)
MINUTE_WIDTH = 6
_MINUTE = 60_000_000_000

_classify = kernel()(chain.classify)
_bridges = kernel()(chain.bridges)


def read_only(*columns: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Return views that cannot be written.

    Columns of Arrow cannot, those that were copied can; for each mixture of the two a kernel that takes many
    would be compiled anew.
    """
    views = tuple(column.view() for column in columns)
    for view in views:
        view.flags.writeable = False
    return views


@kernel(chain)
def is_orderly(first: int, begin: int, end: int, order: Ints, ts_recv: Ints) -> bool:
    """Tell whether places (n,) ascend from ``first`` on, and arrivals lie within ``begin`` and ``end``."""
    for i in range(len(order)):
        if order[i] < first or ts_recv[i] < begin or ts_recv[i] >= end:
            return False
        first = order[i]
    return True


def warm_up() -> None:
    """Have the first kernel loaded: that starts the compiler's machine, for half a second."""
    nothing = read_only(np.empty(0, np.int64))[0]
    is_orderly(0, 0, 0, nothing, nothing)


@kernel(chain)
def copy_whole(values: Ints, step: int, least: int, missing: int, copy: Ints) -> bool:
    """Copy ``values`` (n,); tell whether each is a multiple of ``step`` from ``least`` on, or ``missing``.

    False may be said of values beyond 53 bits that are.
    """
    # The nearest multiple by a product: a division of integers costs more than all the rest.
    inverse = 1.0 / step
    is_whole = True
    for i in range(len(values)):
        value = values[i]
        copy[i] = value
        nearest = int(value * inverse + 0.5) * step
        is_whole &= (value >= least and nearest == value) or value == missing
    return is_whole


@kernel(chain)
def find_messages(
    ends: Ints,
    levels: Ints,
    order: Ints,
    is_last: Flags,
    side: NDArray[np.int8],
    price: Ints,
    first_id: Ints,
    last_id: Ints,
    prev_id: Ints,
    ts_recv: Ints,
    ts_event: Ints,
    conn: Ints,
    is_snapshot: Flags,
) -> int:
    """Write the last row of each message, and how many levels it has; return how many, or -1 for a fault.

    All are (n,), the rows of whole frames. A fault: a message whose frame ends without a row that is last,
    whose rows disagree, that has a bid after an ask, or whose id (none, too) comes twice in its frame.
    """
    n = len(order)
    count = begin = own_levels = 0
    for i in range(n):
        if i > begin and (
            first_id[i] != first_id[i - 1]
            or last_id[i] != last_id[i - 1]
            or prev_id[i] != prev_id[i - 1]
            or ts_recv[i] != ts_recv[i - 1]
            or ts_event[i] != ts_event[i - 1]
            or conn[i] != conn[i - 1]
            or is_snapshot[i] != is_snapshot[i - 1]
            or (side[i] == BID and side[i - 1] == ASK)
        ):
            return -1
        if price[i] != NO_PRICE:
            own_levels += 1
        if not is_last[i]:
            if i + 1 == n or order[i + 1] != order[i]:
                return -1
            continue
        other = count - 1
        while other >= 0 and order[ends[other]] == order[i]:
            if last_id[ends[other]] == last_id[i]:
                return -1
            other -= 1
        ends[count] = i
        levels[count] = own_levels
        count += 1
        begin, own_levels = i + 1, 0
    return count


@kernel(chain)
def walk_chain(  # noqa: C901 one loop: a helper that takes arrays would cost more than all of it
    rule: int,
    spliced: bool,
    kind: NDArray[np.uint8],
    first: Ints,
    last: Ints,
    prev: Ints,
    order: Ints,
    times: Ints,
    since: int,
    state: Ints,
    found: Ints,
) -> int:
    """Follow the ids of messages; write what does not continue into ``found`` (n, 7), return how many.

    A hole that a waiting snapshot covers is none. A message below the chain is late, and leaves the chain
    where it is; two that follow each other tell that the count began anew: the break is at the first.
    ``since`` is the arrival of the message before these. ``first`` of a GAP: the id on record behind it.
    """
    count = 0
    for i in range(len(kind)):
        if kind[i] == SESSION:
            state[ANEW] = 1
            state[WAITING] = NO_ID
            state[LOW] = NO_ID
        elif kind[i] == GAP_OPEN:
            state[AT] = NO_ID
            state[WAITING] = NO_ID
            state[LOW] = NO_ID
        elif kind[i] == SPLICE:
            state[WAITING] = last[i]
        elif kind[i] == REPLACE:
            state[AT] = last[i]
            state[ANEW] = 0
            state[LOW] = NO_ID
        elif kind[i] == GAP:
            # The hole on record is the low message's: the recorder took it for a new count.
            if state[LOW] != NO_ID and first[i] == state[LOW_NEXT]:
                _note(found, count, state, state[LOW_NEXT], since)
                count += 1
        elif kind[i] == DIFF and rule != UNCHAINED and last[i] != NO_ID:
            if state[AT] == NO_ID or state[ANEW] == 1:
                state[AT] = last[i]
                state[ANEW] = 0
                state[LOW] = NO_ID
                since = times[i]
                continue
            verdict = _classify(rule, state[AT], first[i], last[i], prev[i])
            builds_on = first[i] if spliced else prev[i]
            if verdict == CONTINUES:
                state[AT] = last[i]
                state[LOW] = NO_ID
            elif verdict == REPEAT or last[i] <= state[AT]:
                if state[LOW] != NO_ID and prev[i] == state[LOW]:
                    _note(found, count, state, builds_on, since)
                    count += 1
                    state[AT] = last[i]
                else:
                    state[LOW] = last[i]
                    state[LOW_ORDER] = order[i]
                    state[LOW_TIME] = times[i]
                    state[LOW_NEXT] = builds_on
            else:
                covered = (
                    state[WAITING] != NO_ID
                    and state[AT] <= state[WAITING]
                    and _bridges(rule, state[WAITING], first[i], last[i], prev[i]) != BREAKS
                )
                if not covered:
                    found[count, BREAK_ORDER] = order[i]
                    found[count, BREAK_TIME] = times[i]
                    found[count, BREAK_AT] = state[AT]
                    found[count, BREAK_NEXT] = builds_on
                    found[count, BREAK_OTHER] = builds_on
                    found[count, BREAK_ID] = last[i]
                    found[count, BREAK_SINCE] = since
                    count += 1
                state[AT] = last[i]
                state[LOW] = NO_ID
            if verdict == CONTINUES and state[WAITING] != NO_ID and last[i] > state[WAITING]:
                state[WAITING] = NO_ID
        if kind[i] <= REPLACE:
            since = times[i]
    return count


@kernel(chain)
def _note(found: Ints, count: int, state: Ints, other: int, since: int) -> None:
    """Write the low message of a chain as a break, and go on from it."""
    found[count, BREAK_ORDER] = state[LOW_ORDER]
    found[count, BREAK_TIME] = state[LOW_TIME]
    found[count, BREAK_AT] = state[AT]
    found[count, BREAK_NEXT] = state[LOW_NEXT]
    found[count, BREAK_OTHER] = other
    found[count, BREAK_ID] = state[LOW]
    found[count, BREAK_SINCE] = since
    state[AT] = state[LOW]
    state[LOW] = NO_ID


@kernel(chain)
def walk_trades(first: Ints, last: Ints, order: Ints, times: Ints, state: Ints, found: Ints) -> int:
    """Follow the ids of trades of one kind and session; write steps into ``found`` (2n + 1, 7).

    By the rule of the recorder (`mmdata.datasets.booksync.TradeChain`): what comes late, into a hole, or
    again leaves the chain where it is, and two that were told before and follow each other begin a new count.
    """
    count = 0
    for i in range(len(last)):
        is_copy = False
        j = i - 1
        while j >= 0 and order[j] == order[i]:
            is_copy = is_copy or last[j] == last[i]
            j -= 1
        if is_copy:
            count = _step(found, count, TWICE, order[i], times[i], first[i], last[i], state)
            continue
        top = state[TOP]
        is_low = top != NO_ID and last[i] <= top
        if is_low and _is_late(state, first[i], last[i]):
            count = _step(found, count, LATE, order[i], times[i], first[i], last[i], state)
            continue
        if state[LOW_LAST] != NO_ID:
            if is_low and first[i] == state[LOW_LAST] + 1:
                count = _settle(found, count, BACK, state)
                for at in range(OPEN + 1, TRADE_STATE, 2):
                    state[at] = NO_HOLE
                state[TOP] = last[i]
                state[SINCE] = times[i]
                continue
            count = _settle(found, count, AGAIN, state)
        if is_low:
            state[LOW_FIRST], state[LOW_LAST] = first[i], last[i]
            state[LOW_PLACE], state[LOW_ARRIVAL] = order[i], times[i]
            continue
        if top != NO_ID and first[i] > top + 1:
            count = _step(found, count, HOLE, order[i], times[i], first[i], last[i], state)
            at = OPEN + 1 + 2 * state[OPEN]
            state[at], state[at + 1] = top + 1, first[i] - 1
            state[OPEN] = (state[OPEN] + 1) % RING
        state[TOP] = last[i]
        state[SINCE] = times[i]
    return count


@kernel(chain)
def end_trades(state: Ints, found: Ints) -> int:
    """Write the trade below the top that came last, if there is one, as nothing can follow it any more."""
    if state[LOW_LAST] == NO_ID:
        return 0
    return _settle(found, 0, AGAIN, state)


@kernel(chain)
def _is_late(state: Ints, first: int, last: int) -> bool:
    """Tell a trade that lies in a hole of this count from one that was told before."""
    for at in range(OPEN + 1, TRADE_STATE, 2):  # noqa: SIM110 numba knows no any() of a generator
        if state[at] <= first and last <= state[at + 1]:
            return True
    return False


@kernel(chain)
def _settle(found: Ints, count: int, what: int, state: Ints) -> int:
    """Write the trade below the top as ``what``, and forget it."""
    count = _step(
        found,
        count,
        what,
        state[LOW_PLACE],
        state[LOW_ARRIVAL],
        state[LOW_FIRST],
        state[LOW_LAST],
        state,
    )
    state[LOW_LAST] = NO_ID
    return count


@kernel(chain)
def _step(
    found: Ints, count: int, what: int, order: int, time: int, first: int, last: int, state: Ints
) -> int:
    found[count, STEP_WHAT] = what
    found[count, STEP_ORDER] = order
    found[count, STEP_TIME] = time
    found[count, STEP_FIRST] = first
    found[count, STEP_LAST] = last
    found[count, STEP_TOP] = state[TOP]
    found[count, STEP_SINCE] = state[SINCE]
    return count + 1


def new_clocks() -> Ints:
    """Return the state of a channel's clocks before its first row."""
    return np.array([NO_ROW, 0, NO_ROW, 0], np.int64)


def new_chain() -> Ints:
    """Return the state of a chain of book messages before its first."""
    state = np.full(CHAIN_STATE, NO_ID)
    state[ANEW] = 0
    return state


def new_trades() -> Ints:
    """Return the state of a chain of trades before its first."""
    state = np.full(TRADE_STATE, NO_ID)
    state[OPEN + 1 :: 2] = NO_HOLE
    state[OPEN] = 0
    return state


@kernel(chain)
def add_minutes(
    times: Ints, same: NDArray[np.bool_], tops: Ints, day: int, minutes: NDArray[np.float64]
) -> None:
    """Add the time between neighbours to the minutes of the day that begins at ``day`` (ns).

    ``times`` (n,) are arrivals, ``tops`` (n, 5) the book after each message (valid, bid, size, ask, size),
    ``same`` (n,) tells whether a message is of the session of the one before it. ``minutes`` is (1440, 6).
    """
    for i in range(1, len(times)):
        begin = max(times[i - 1], day)
        end = min(times[i], day + 1440 * _MINUTE)
        if not same[i]:
            continue
        quoted = tops[i - 1, 0] == 1 and tops[i - 1, 2] > 0 and tops[i - 1, 4] > 0
        while begin < end:
            minute = (begin - day) // _MINUTE
            until = min(end, day + (minute + 1) * _MINUTE)
            span = until - begin
            minutes[minute, RECORDED] += span
            if tops[i - 1, 0] == 1:
                minutes[minute, PROVEN] += span
            if quoted:
                minutes[minute, QUOTED] += span
                minutes[minute, SPREAD] += span * (tops[i - 1, 3] - tops[i - 1, 1])
                minutes[minute, BID_SIZE] += span * tops[i - 1, 2]
                minutes[minute, ASK_SIZE] += span * tops[i - 1, 4]
            begin = until


# State of a channel's clocks: place and receive time of its last row, and place and event time of the last
# row that has one. NO_ROW: there was none.
LAST_ORDER, LAST_RECV, LAST_EVENT_ORDER, LAST_EVENT = range(4)
CLOCK_STATE = 4
NO_ROW = -1

# Columns of a notable row: what is notable, the place before it, its own place, receive time before, its own
# receive time, by how much a clock is behind the one before.
NOTE_WHAT, NOTE_BEFORE, NOTE_ORDER, NOTE_SINCE, NOTE_RECV, NOTE_BY = range(6)
NOTE_WIDTH = 6
RECV_BACK, PAUSED, EVENT_BACK = range(3)


@kernel(chain)
def watch_clocks(
    silence: int, back: int, state: Ints, found: Ints, order: Ints, ts_recv: Ints, ts_event: Ints
) -> int:
    """Write the rows whose clocks are behind those before, or that follow a pause, into ``found``.

    Rows are (n,), ``found`` is (2n, 6); return how many are written. Rows of two sessions are not compared;
    the receive clock steps back at all, that of the events by more than ``back`` ns.
    """
    count = 0
    for i in range(len(order)):
        rank = order[i] >> FRAME_BITS
        if state[LAST_ORDER] != NO_ROW and state[LAST_ORDER] >> FRAME_BITS == rank:
            span = ts_recv[i] - state[LAST_RECV]
            if span < 0 or span > silence:
                found[count, NOTE_WHAT] = RECV_BACK if span < 0 else PAUSED
                found[count, NOTE_BEFORE] = state[LAST_ORDER]
                found[count, NOTE_ORDER] = order[i]
                found[count, NOTE_SINCE] = state[LAST_RECV]
                found[count, NOTE_RECV] = ts_recv[i]
                found[count, NOTE_BY] = -span
                count += 1
        state[LAST_ORDER] = order[i]
        state[LAST_RECV] = ts_recv[i]
        if ts_event[i] == NO_TIME:
            continue
        by = state[LAST_EVENT] - ts_event[i]
        if state[LAST_EVENT_ORDER] != NO_ROW and state[LAST_EVENT_ORDER] >> FRAME_BITS == rank and by > back:
            found[count, NOTE_WHAT] = EVENT_BACK
            found[count, NOTE_BEFORE] = state[LAST_EVENT_ORDER]
            found[count, NOTE_ORDER] = order[i]
            found[count, NOTE_SINCE] = state[LAST_EVENT]
            found[count, NOTE_RECV] = ts_recv[i]
            found[count, NOTE_BY] = by
            count += 1
        state[LAST_EVENT_ORDER] = order[i]
        state[LAST_EVENT] = ts_event[i]
    return count


@kernel(chain)
def find_nearest(ids: Ints, places: Ints, asked: Ints, asked_at: Ints, rows: Ints, nearest: Ints) -> int:
    """Write which of ``asked`` (m,) stand in ``ids`` (ascending), and which of those; return how many.

    Of equal ids (n,) it is the one whose place is nearest to that of who asks, the first of two as near. Room
    for the answer is m in each of the last two.
    """
    n = len(ids)
    found = begin = end = 0
    for i in range(len(asked)):
        if i > 0 and asked[i] < asked[i - 1]:
            end = np.searchsorted(ids, asked[i])
        if i == 0 or asked[i] != asked[i - 1]:
            begin = end
            while begin < n and ids[begin] < asked[i]:
                begin += 1
            end = begin
            while end < n and ids[end] == asked[i]:
                end += 1
        if end > begin:
            best = begin
            for at in range(begin + 1, end):
                if abs(places[at] - asked_at[i]) < abs(places[best] - asked_at[i]):
                    best = at
            rows[found] = i
            nearest[found] = best
            found += 1
    return found


@kernel(chain, allocates=True)
def outside(
    times: Ints,
    order: Ints,
    tops: Ints,
    trade_times: Ints,
    trade_order: Ints,
    price: Ints,
    lag: int,
    bp: float,
) -> Ints:
    """Return the trades whose price no book within ``lag`` ns of them explains.

    ``times``, ``order`` (n,) and ``tops`` (n, 5) are of book messages. A trade is judged only where the book
    is valid throughout, and not when the book's messages have ended; a price beyond the worst touch there by
    at most ``bp`` basis points is explained.
    """
    n = len(times)
    found = np.empty(len(price), np.int64)
    count = 0
    at = 0
    for i in range(len(price)):
        while at < n and order[at] <= trade_order[i]:
            at += 1
        if at == 0 or tops[at - 1, 0] != 1 or tops[at - 1, 2] == 0 or tops[at - 1, 4] == 0:
            continue
        if at == n and trade_times[i] - times[n - 1] > lag:
            continue
        slack = price[i] * bp / 10_000.0
        low, high = tops[at - 1, 1], tops[at - 1, 3]
        is_explained = False
        for direction in (-1, 1):
            j = at - 1 if direction == -1 else at
            while not is_explained and 0 <= j < n and abs(times[j] - trade_times[i]) <= lag:
                if tops[j, 0] != 1 or tops[j, 2] == 0 or tops[j, 4] == 0:
                    is_explained = True
                    break
                # Between two books the price may have been anywhere between their touches.
                low = min(low, tops[j, 1])
                high = max(high, tops[j, 3])
                is_explained = low - slack <= price[i] <= high + slack
                j += direction
        if not (is_explained or low - slack <= price[i] <= high + slack):
            found[count] = i
            count += 1
    return found[:count]
