"""Lines of a capture read byte by byte into columns: the plain frames of Binance, many in one call.

Compiled; runs uncompiled with NUMBA_DISABLE_JIT=1. What is not written as the venue writes it (white space,
an escape, a key that comes twice, a number of another form, a key or a value that is missing) is left to
the strict decoder, a line at a time; so is a message whose ids are not plainly the next ones, to the
machines that judge them (`mmdata.recorder.merge`, `mmdata.datasets.booksync`).

A frame is ``{"stream":"<name>","data":{<members>}}``. Its members may come in any order, bids before asks;
keys that no table needs are passed over where their value is a string, a whole number, true, false or null.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets import chain as _chain
from mmdata.datasets.chain import CONTINUES, NO_ID
from mmdata.datasets.jit import kernel

# What a call ended with.
DONE, ODD, WORD, FULL, JUDGE, WATCH, DATE = range(7)
"""All was read; the next line is one for the strict decoder; it has a word that is not known yet; a table
has no room for it; the machines must say whether the message that was read enters; or what it breaks; a line
is of another date."""

# Kinds of messages, which are also the chains of a symbol.
DEPTH, TRADE, AGG_TRADE, BOOK_TICKER = range(4)
KINDS = 4

# Classes of words.
STREAM, SYMBOL, FLAG = range(3)

# Places of `state`: where the reading stands, how much of each table is filled, what was found.
AT, NUMBER, STAMP, MESSAGES, ROWS, TRADES, TICKERS, FRAMES, REPEATS, ROOM = range(10)
CHAIN, NEW_ROWS, NEXT, WORD_CLASS, WORD_BEGIN, WORD_END, SINCE, UNTIL = range(10, 18)
PLACES = 18

# Columns of `depth`, one value a message; of `trades` and `tickers`, one a row.
FRAME, TS_RECV, CONN, TS_EVENT, TS_SENT, WHOSE = range(6)
FIRST_ID, LAST_ID, PREV_ID, BIDS, ASKS = range(6, 11)
DEPTH_COLUMNS = 11
TRADE_ID, FIRST_TRADE, LAST_TRADE, IS_AGG, IS_SELL, FLAGS = range(6, 12)
TRADE_COLUMNS = 12
TICKER_ID = 6
TICKER_COLUMNS = 7

# Columns of `chains`: what the machines know of a chain, while `READY`; see `Plain` in `plain.py`.
READY, HEAD, LEADER, IS_EVEN, TAIL, ADVANCED, WENT_ON = range(7)
CHAIN_COLUMNS = 7

# Columns of `words`: a word's class, where its letters are, what it means (-1: nothing that a table holds).
CLASS, BEGIN, LENGTH, MEANING = range(4)
NO_WORD = -1

NONE, TEXT, WHOLE, LEVELS, TRUE, FALSE, NULL = range(7)
KEYS = 53
"""One for each letter, upper case first, and ``pu``."""
_E, _T, _U, _A, _B, _X = (ord(letter) - ord("A") for letter in "ETUABX")
_a, _b, _f, _l, _m, _p, _q, _s, _t, _u = (ord(letter) - ord("a") + 26 for letter in "abflmpqstu")
_PU = 52

QUOTE, COMMA, DOT, COLON, SPACE, NEWLINE = (ord(sign) for sign in '",.: \n')
ZERO, NINE, OPEN, CLOSE, END_OBJECT = (ord(sign) for sign in "09[]}")
_HEAD = np.frombuffer(b'{"stream":"', np.uint8)
_MIDDLE = np.frombuffer(b'","data":{', np.uint8)
_LITERALS = np.frombuffer(b"true\0falsenull\0", np.uint8).reshape(3, 5)
_LITERAL_SIZES = (4, 5, 4)
WHOLE_DIGITS, DECIMALS, ID_DIGITS, STAMP_DIGITS, CONN_DIGITS = 10, 8, 18, 19, 9
_SCALES = np.array([10 ** (DECIMALS - places) for places in range(DECIMALS + 1)], np.int64)
_MOST_MS, _MOST_US, _FIRST_US = (2**63 - 1) // 10**6, (2**63 - 1) // 10**3, 10**14
NO_TIME = -1
_IS_PLAIN = np.array([0x20 <= sign <= 0x7E and sign not in b'"\\' for sign in range(256)])
"""What stands for itself in a string: ASCII without control characters, quote and backslash."""
_KEY_OF = np.full(256, -1, np.int64)
_KEY_OF[ord("A") : ord("Z") + 1], _KEY_OF[ord("a") : ord("z") + 1] = np.arange(26), np.arange(26, 52)

_FNV_START, _FNV_PRIME, _FNV_MASK = 0x811C9DC5, 0x01000193, 0xFFFFFFFF

classify = kernel()(_chain.classify)


def hash_word(word: bytes, kind: int) -> int:
    """Return the 32-bit FNV-1a hash of a word and its class, as `read_lines` comes to it."""
    found = _FNV_START ^ kind
    for letter in word:
        found = ((found ^ letter) * _FNV_PRIME) & _FNV_MASK
    return found


@kernel(_chain)
def read_lines(
    text: bytes,
    state: NDArray[np.int64],
    is_tagged: bool,
    rule: int,
    is_watched: bool,
    slots: NDArray[np.int32],
    words: NDArray[np.int32],
    letters: NDArray[np.uint8],
    conns: NDArray[np.int64],
    chains: NDArray[np.int64],
    own: NDArray[np.int64],
    depth: NDArray[np.int64],
    levels: NDArray[np.int64],
    trades: NDArray[np.int64],
    fills: NDArray[np.int64],
    tickers: NDArray[np.int64],
    quotes: NDArray[np.int64],
    kinds: NDArray[np.int8],
    values: NDArray[np.int64],
) -> int:
    """Read lines from ``state[AT]`` on, until one of the endings above; return which.

    ``text`` is whole lines, each with its end. ``is_tagged``: a line names its connection behind its stamp
    (our captures), else it is number 0 and a stamp has 19 digits. ``rule`` is the exchange's chain rule,
    which must not be LINKED. ``is_watched``: the chains are watched, too, not only merged. A stamp before
    ``state[SINCE]`` or from ``state[UNTIL]`` on is put into ``state[STAMP]``, for DATE.

    ``slots`` is a hash table of places in ``words``, whose letters lie in ``letters``. ``conns`` are the
    connections that ``own`` has a column of: a row a chain, the last id that each brought, or NO_ID.

    Columns go to ``depth``, ``trades`` and ``tickers``, a row of the array each. The decimals, as pairs of
    words of which the first is set, in units of 10^-8: ``levels`` price and size; ``fills`` the same of
    trades; ``quotes`` bid price, bid size, ask price, ask size. ``kinds`` and ``values`` are scratch.

    Nothing of a line stays when it ends the call, but for JUDGE (its row is behind the last one, not
    counted yet) and WATCH (its row is the last one).
    """
    end = len(text)
    # Every line ends in a newline, which no step below passes over before the line is whole: none reads on.
    while state[AT] < end:
        if state[ROWS] + state[TRADES] + state[TICKERS] >= state[ROOM]:
            return FULL
        at = state[AT]
        stamp = 0
        begin = at
        while ZERO <= text[at] <= NINE and at - begin <= STAMP_DIGITS:
            stamp = stamp * 10 + (text[at] - ZERO)
            at += 1
        digits = at - begin
        if digits == 0 or digits > STAMP_DIGITS or (not is_tagged and digits != STAMP_DIGITS):
            return ODD
        if digits == STAMP_DIGITS and text[begin] == NINE:
            return ODD  # it may be beyond 63 bits
        if stamp == 0 or text[at] != SPACE:
            return ODD
        if not state[SINCE] <= stamp < state[UNTIL]:
            state[STAMP] = stamp
            return DATE
        at += 1
        conn = 0
        if is_tagged:
            begin = at
            while ZERO <= text[at] <= NINE and at - begin <= CONN_DIGITS:
                conn = conn * 10 + (text[at] - ZERO)
                at += 1
            if at == begin or at - begin > CONN_DIGITS or text[at] != SPACE:
                return ODD
            at += 1

        for place in range(len(_HEAD)):
            if text[at + place] != _HEAD[place]:
                return ODD
        at += len(_HEAD)
        stream_begin = at
        stream_hash = _FNV_START ^ STREAM
        while _IS_PLAIN[text[at]]:
            stream_hash = ((stream_hash ^ text[at]) * _FNV_PRIME) & _FNV_MASK
            at += 1
        stream_end = at
        for place in range(len(_MIDDLE)):
            if text[at + place] != _MIDDLE[place]:
                return ODD
        at += len(_MIDDLE)

        kinds[:] = NONE
        bids = 0
        asks = 0
        base = state[ROWS]
        row = base
        symbol_begin = symbol_end = symbol_hash = flag_begin = flag_end = flag_hash = 0
        while True:  # one member a round
            if text[at] != QUOTE:
                return ODD
            at += 1
            begin = at
            while _IS_PLAIN[text[at]]:
                at += 1
            if text[at] != QUOTE or text[at + 1] != COLON:
                return ODD
            key = -1
            if at == begin + 1:
                key = _KEY_OF[text[begin]]
            elif at == begin + 2 and text[begin] == ord("p") and text[begin + 1] == ord("u"):
                key = _PU
            if key >= 0 and kinds[key] != NONE:
                return ODD  # it comes twice
            at += 2
            kind = NONE
            value = 0
            sign = text[at]
            if sign == QUOTE:
                at += 1
                begin = at
                kind = TEXT
                if key == _s:
                    symbol_hash = _FNV_START ^ SYMBOL
                    while _IS_PLAIN[text[at]]:
                        symbol_hash = ((symbol_hash ^ text[at]) * _FNV_PRIME) & _FNV_MASK
                        at += 1
                    symbol_begin, symbol_end = begin, at
                elif key == _X:
                    flag_hash = _FNV_START ^ FLAG
                    while _IS_PLAIN[text[at]]:
                        flag_hash = ((flag_hash ^ text[at]) * _FNV_PRIME) & _FNV_MASK
                        at += 1
                    flag_begin, flag_end = begin, at
                else:
                    while ZERO <= text[at] <= NINE:
                        value = value * 10 + (text[at] - ZERO)
                        at += 1
                    digits = at - begin
                    places = 0
                    if text[at] == DOT:
                        at += 1
                        begin = at
                        while ZERO <= text[at] <= NINE:
                            value = value * 10 + (text[at] - ZERO)
                            at += 1
                        places = at - begin
                        if places == 0:
                            digits = 0
                    if text[at] == QUOTE and 1 <= digits <= WHOLE_DIGITS and places <= DECIMALS:
                        value *= _SCALES[places]
                    else:
                        value = -1
                        while _IS_PLAIN[text[at]]:
                            at += 1
                if text[at] != QUOTE:
                    return ODD
                at += 1
            elif ZERO <= sign <= NINE:
                begin = at
                while ZERO <= text[at] <= NINE and at - begin <= ID_DIGITS:
                    value = value * 10 + (text[at] - ZERO)
                    at += 1
                if at - begin > ID_DIGITS or (text[begin] == ZERO and at > begin + 1):
                    return ODD
                kind = WHOLE
            elif sign == OPEN:
                if key == _b:
                    if kinds[_a] != NONE:
                        return ODD  # asks before bids
                elif key != _a:
                    return ODD
                at += 1
                first = row
                if text[at] == CLOSE:
                    at += 1
                else:
                    while True:  # one level a round
                        if text[at] != OPEN or text[at + 1] != QUOTE:
                            return ODD
                        at += 2
                        if row >= levels.shape[1]:
                            return FULL
                        for number in range(2):
                            value = 0
                            begin = at
                            while ZERO <= text[at] <= NINE:
                                value = value * 10 + (text[at] - ZERO)
                                at += 1
                            digits = at - begin
                            places = 0
                            if text[at] == DOT:
                                at += 1
                                begin = at
                                while ZERO <= text[at] <= NINE:
                                    value = value * 10 + (text[at] - ZERO)
                                    at += 1
                                places = at - begin
                                if places == 0 or places > DECIMALS:
                                    return ODD
                            if digits == 0 or digits > WHOLE_DIGITS or text[at] != QUOTE:
                                return ODD
                            levels[number, row, 0] = value * _SCALES[places]
                            at += 1
                            if number == 0:
                                if text[at] != COMMA or text[at + 1] != QUOTE:
                                    return ODD
                                at += 2
                        if text[at] != CLOSE:
                            return ODD
                        at += 1
                        row += 1
                        if text[at] == CLOSE:
                            at += 1
                            break
                        if text[at] != COMMA:
                            return ODD
                        at += 1
                kind = LEVELS
                if key == _b:
                    bids = row - first
                else:
                    asks = row - first
            else:
                which = 0 if sign == ord("t") else 1 if sign == ord("f") else 2
                for place in range(_LITERAL_SIZES[which]):
                    if text[at + place] != _LITERALS[which, place]:
                        return ODD
                at += _LITERAL_SIZES[which]
                kind = TRUE + which
            if key >= 0:
                kinds[key] = kind
                values[key] = value
            sign = text[at]
            at += 1
            if sign == END_OBJECT:
                break
            if sign != COMMA:
                return ODD
        if text[at] != END_OBJECT or text[at + 1] != NEWLINE:
            return ODD
        following = at + 2
        if kinds[_s] != TEXT or symbol_begin == symbol_end:
            return ODD

        # The stream's name, the symbol and the flag of a trade: what they mean was told before.
        kind = symbol = flag = -1
        for which in range(3):
            if which == STREAM:
                begin, stop, slot = stream_begin, stream_end, stream_hash
            elif which == SYMBOL:
                begin, stop, slot = symbol_begin, symbol_end, symbol_hash
            elif kind == TRADE and kinds[_X] == TEXT:
                begin, stop, slot = flag_begin, flag_end, flag_hash
            else:
                break
            slot %= len(slots)
            meaning = NO_WORD
            while True:
                word = slots[slot]
                if word == NO_WORD:
                    state[WORD_CLASS], state[WORD_BEGIN], state[WORD_END] = which, begin, stop
                    return WORD
                if words[word, CLASS] == which and words[word, LENGTH] == stop - begin:
                    letter = words[word, BEGIN]
                    same = 0
                    while same < stop - begin and letters[letter + same] == text[begin + same]:
                        same += 1
                    if same == stop - begin:
                        meaning = words[word, MEANING]
                        break
                slot = (slot + 1) % len(slots)
            if meaning == NO_WORD:
                return ODD
            if which == STREAM:
                kind = meaning
            elif which == SYMBOL:
                symbol = meaning
            else:
                flag = meaning

        ts_event = ts_sent = NO_TIME
        for key in (_E, _T):
            if kinds[key] == WHOLE:
                time = values[key]
                if time > (_MOST_MS if time < _FIRST_US else _MOST_US):
                    return ODD
                time *= 1_000_000 if time < _FIRST_US else 1_000
                if key == _E:
                    ts_sent = time
                else:
                    ts_event = time
            elif kinds[key] != NONE:
                return ODD

        new_rows = 1
        first_id = last_id = prev_id = NO_ID
        if kind == DEPTH:
            if kinds[_E] != WHOLE or kinds[_U] != WHOLE or kinds[_u] != WHOLE:
                return ODD
            if kinds[_b] != LEVELS or kinds[_a] != LEVELS:
                return ODD
            first_id, last_id, prev_id = values[_U], values[_u], values[_U] - 1
            if kinds[_PU] == WHOLE:
                prev_id = values[_PU]
            elif kinds[_PU] != NONE:
                return ODD
            if kinds[_T] == NONE:  # spot tells one time only
                ts_event, ts_sent = ts_sent, NO_TIME
            if row == base:
                if row >= levels.shape[1]:
                    return FULL
                levels[0, row, 0] = levels[1, row, 0] = 0
                row += 1
            new_rows = row - base
            column = state[MESSAGES]
            if column >= depth.shape[1]:
                return FULL
            table = depth
            table[FIRST_ID, column], table[LAST_ID, column], table[PREV_ID, column] = (
                first_id,
                last_id,
                prev_id,
            )
            table[BIDS, column], table[ASKS, column] = bids, asks
        elif kind == BOOK_TICKER:
            if kinds[_u] != WHOLE:
                return ODD
            last_id = values[_u]
            column = state[TICKERS]
            if column >= tickers.shape[1]:
                return FULL
            for place, key in enumerate((_b, _B, _a, _A)):
                if kinds[key] != TEXT or values[key] < 0:
                    return ODD
                quotes[place, column, 0] = values[key]
            table = tickers
            table[TICKER_ID, column] = last_id
        else:
            if kinds[_E] != WHOLE or kinds[_T] != WHOLE:
                return ODD
            if kinds[_m] != TRUE and kinds[_m] != FALSE:
                return ODD
            column = state[TRADES]
            if column >= trades.shape[1]:
                return FULL
            for place, key in enumerate((_p, _q)):
                if kinds[key] != TEXT or values[key] < 0:
                    return ODD
                fills[place, column, 0] = values[key]
            table = trades
            if kind == TRADE:
                if kinds[_t] != WHOLE or (kinds[_X] != TEXT and kinds[_X] != NONE):
                    return ODD
                last_id = first_id = values[_t]
                table[FIRST_TRADE, column] = table[LAST_TRADE, column] = last_id
                prev_id = last_id - 1
            else:
                if kinds[_a] != WHOLE or kinds[_f] != WHOLE or kinds[_l] != WHOLE:
                    return ODD
                last_id = first_id = values[_a]
                table[FIRST_TRADE, column], table[LAST_TRADE, column] = values[_f], values[_l]
                prev_id = (values[_f] if values[_l] == last_id else last_id) - 1
            table[TRADE_ID, column] = last_id
            table[IS_AGG, column] = kind == AGG_TRADE
            table[IS_SELL, column] = kinds[_m] == TRUE
            table[FLAGS, column] = flag
        table[FRAME, column], table[TS_RECV, column], table[CONN, column] = state[NUMBER], stamp, conn
        table[TS_EVENT, column], table[TS_SENT, column], table[WHOSE, column] = ts_event, ts_sent, symbol

        # Does it enter? The two verdicts that are nearly all, as `Merge.enters` comes to them.
        chain = symbol * KINDS + kind
        state[CHAIN], state[NEW_ROWS], state[NEXT] = chain, new_rows, following
        own_slot = 0
        while own_slot < len(conns) and conns[own_slot] != conn:
            own_slot += 1
        head = chains[chain, HEAD]
        if chains[chain, READY] == 0 or own_slot == len(conns) or head == NO_ID:
            return JUDGE
        leader = chains[chain, LEADER]
        before = own[chain, own_slot]
        # Nothing was skipped, nothing comes late or again, no connection is in another count of ids.
        is_plain = before != NO_ID and before < last_id and prev_id in (NO_ID, before)
        if own_slot == leader and prev_id == head and last_id > prev_id:
            enters = True
        elif not is_plain or chains[chain, IS_EVEN] == 0:
            return JUDGE
        elif last_id > head and prev_id <= head:
            enters = True
        elif last_id <= head and own_slot != leader and own[chain, leader] != NO_ID:
            enters = False
        else:
            return JUDGE
        own[chain, own_slot] = last_id
        chains[chain, ADVANCED] = 1
        state[AT] = following
        state[NUMBER] += 1
        state[STAMP] = stamp
        state[FRAMES] += 1
        if not enters:
            state[REPEATS] += 1
            continue
        chains[chain, HEAD], chains[chain, LEADER] = last_id, own_slot
        if kind == DEPTH:
            state[MESSAGES] += 1
            state[ROWS] += new_rows
        elif kind == BOOK_TICKER:
            state[TICKERS] += 1
            continue
        else:
            state[TRADES] += 1
        if not is_watched:
            continue
        tail = chains[chain, TAIL]
        if tail == NO_ID:
            return WATCH
        if kind == DEPTH:
            if classify(rule, tail, first_id, last_id, prev_id) != CONTINUES:
                return WATCH
        elif last_id <= tail or first_id > tail + 1:
            return WATCH
        chains[chain, TAIL] = last_id
        chains[chain, WENT_ON] = 1
    return DONE
