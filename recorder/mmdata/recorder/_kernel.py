"""Level arrays of the wire, read byte by byte. Compiled; runs uncompiled with NUMBA_DISABLE_JIT=1.

An array is ``[["61737.63","1.5"],...]``, two strings a level on Binance, four on OKX (the third deprecated,
the fourth the number of orders). Only the plain form is known here: no white space, no sign, no exponent,
1 to 10 digits, then at most 8 decimals. That is what a ``decimal(18, 8)`` holds, exactly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.jit import kernel

QUOTE, COMMA, DOT, ZERO, NINE, OPEN, CLOSE = (ord(sign) for sign in '",.09[]')
WHOLE_DIGITS, DECIMALS, COUNT_DIGITS = 10, 8, 9
_SCALES = np.array([10 ** (DECIMALS - places) for places in range(DECIMALS + 1)], np.int64)
PRICE, SIZE, ORDERS = 0, 1, 3  # a level's strings, by place


@kernel()
def count_levels(text: bytes, numbers: int) -> int:
    """Return how many levels two arrays hold: the first's times 2^32, plus the second's.

    ``text`` is the two arrays, one behind the other, of levels of ``numbers`` strings. -1: something in it
    is not of the plain form.
    """
    end = len(text)
    # Every loop below stops at this bracket at the latest, so none reads past the end.
    if end == 0 or text[end - 1] != CLOSE:
        return -1
    found = 0
    at = 0
    for _ in range(2):
        if at >= end or text[at] != OPEN:
            return -1
        at += 1
        count = 0
        if at < end and text[at] == CLOSE:
            at += 1
        else:
            while True:  # one level a round
                if at >= end or text[at] != OPEN:
                    return -1
                for number in range(numbers):
                    # Before each string stands the level's bracket or a comma; it was looked at already.
                    at += 1
                    if at >= end or text[at] != QUOTE:
                        return -1
                    at += 1
                    begin = at
                    while at < end and ZERO <= text[at] <= NINE:
                        at += 1
                    digits = at - begin
                    if digits == 0 or digits > (COUNT_DIGITS if number == ORDERS else WHOLE_DIGITS):
                        return -1
                    if at < end and text[at] == DOT and number != ORDERS:
                        at += 1
                        begin = at
                        while at < end and ZERO <= text[at] <= NINE:
                            at += 1
                        digits = at - begin
                        if digits == 0 or digits > DECIMALS:
                            return -1
                    if at + 1 >= end or text[at] != QUOTE:
                        return -1
                    at += 1
                    if text[at] != (CLOSE if number == numbers - 1 else COMMA):
                        return -1
                count += 1
                at += 1
                if at >= end:
                    return -1
                if text[at] == CLOSE:
                    at += 1
                    break
                if text[at] != COMMA:
                    return -1
                at += 1
        found = (found << 32) + count
    return found if at == end else -1


@kernel()
def parse_levels(
    text: bytes, price: NDArray[np.int64], size: NDArray[np.int64], orders: NDArray[np.int32]
) -> int:
    """Read arrays of the plain form, one behind the other; return the number of levels.

    ``price`` and ``size`` have a row a level, whose first number is set, in units of 10^-8; ``orders`` are
    set where the venue tells them. Call it only with what `count_levels` has counted: nothing is checked.
    """
    end = len(text)
    row = 0
    place = 0
    at = 0
    while at < end:
        if text[at] != QUOTE:
            # Of a level's end and an array's end, the one behind a string ends a level.
            if text[at] == CLOSE and place > 0:
                row += 1
                place = 0
            at += 1
            continue
        at += 1
        value = 0
        while text[at] != QUOTE and text[at] != DOT:
            value = value * 10 + (text[at] - ZERO)
            at += 1
        if place == ORDERS:
            orders[row] = value
        else:
            places = 0
            if text[at] == DOT:
                at += 1
                while text[at] != QUOTE:
                    value = value * 10 + (text[at] - ZERO)
                    places += 1
                    at += 1
            value *= _SCALES[places]
            if place == PRICE:
                price[row, 0] = value
            elif place == SIZE:
                size[row, 0] = value
        at += 1
        place += 1
    return row
