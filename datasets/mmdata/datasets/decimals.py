"""Decimals as integers, exactly: of a column at once, and the steps that they lie on."""

from __future__ import annotations

import math
from decimal import Context, Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_DIGITS_OF_INT64 = 18
_EXACT = Context(prec=100)
"""Decimals of 38 digits, moved by their places: nothing is rounded, as the usual 28 digits would."""


def shortest(value: Decimal) -> Decimal:
    """Return ``value`` without trailing zeros and without an exponent.

    >>> shortest(Decimal("100.5000")), shortest(Decimal("1E+2"))
    (Decimal('100.5'), Decimal('100'))
    """
    return Decimal(f"{value.normalize(_EXACT):f}")


def common_divisor(a: Decimal, b: Decimal) -> Decimal:
    """Return the greatest decimal that divides both.

    >>> common_divisor(Decimal("0.25"), Decimal("0.1"))
    Decimal('0.05')
    """
    scale = -min(a.as_tuple().exponent, b.as_tuple().exponent, 0)  # type: ignore[operator]
    whole = (int(value.scaleb(scale, _EXACT)) for value in (a, b))
    return Decimal(math.gcd(*whole)).scaleb(-scale, _EXACT)


def divisor_of(column: pa.ChunkedArray | pa.Array) -> Decimal:
    """Return the greatest decimal that divides all of ``column``; 0 when there is none, or all are 0.

    >>> divisor_of(pa.array([Decimal("0.30"), None, Decimal("-0.45")]))
    Decimal('0.15')
    """
    return Decimal(greatest_divisor(scaled(column))).scaleb(-column.type.scale, _EXACT)


def in_units(
    column: pa.ChunkedArray, unit: Decimal
) -> tuple[NDArray[np.int64] | NDArray[np.object_], NDArray[np.bool_]]:
    """Return the non-null decimals of ``column`` in whole ``unit``s, rounded down, and where one was none.

    Exact at any scale: a unit may be finer than the column's last decimal place.

    >>> in_units(pa.chunked_array([pa.array([Decimal("0.30"), Decimal("0.25")])]), Decimal("0.1"))
    (array([3, 2]), array([False,  True]))
    """
    values = scaled(column)
    if unit == Decimal(1).scaleb(-column.type.scale):
        return values, np.zeros(len(values), np.bool_)
    digits = max(column.type.scale, -int(shortest(unit).as_tuple().exponent))
    finer = 10 ** (digits - column.type.scale)
    step = int(unit.scaleb(digits, _EXACT))
    largest = max(abs(int(values.min())), abs(int(values.max()))) if len(values) else 0
    if values.dtype != object and max(largest * finer, step) >= 2**63:
        values = values.astype(object)
    values = values * finer
    return values // step, np.asarray(values % step != 0, np.bool_)


def scaled(column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64] | NDArray[np.object_]:
    """Return the non-null decimals of ``column`` as integers of its last decimal place, exactly.

    int64 where every value fits it, else Python integers.
    """
    array = pc.drop_null(column)
    array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if isinstance(array, pa.ChunkedArray):  # an empty chunked array stays chunked
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], column.type)
    if len(array) == 0:
        return np.empty(0, np.int64)
    words = np.frombuffer(array.buffers()[1], np.int64)[2 * array.offset :][: 2 * len(array)]
    low, high = words[0::2], words[1::2]
    if column.type.precision <= _DIGITS_OF_INT64 or ((low >> 63) == high).all():
        return low.copy()
    wide = high.astype(object) * 2**64 + low.view(np.uint64).astype(object)
    return np.asarray(wide, dtype=object)


def greatest_divisor(values: NDArray[np.int64] | NDArray[np.object_]) -> int:
    """Return the greatest integer that divides all of ``values``; 0 when there is none, or all are 0.

    >>> greatest_divisor(np.array([30, 0, -45]))
    15
    """
    few = abs(int(np.gcd.reduce(values[:1024])))
    if few == 0:
        return abs(int(np.gcd.reduce(values)))
    # What divides the first ones divides nearly always the others: one division each, no greatest divisor.
    rest = values - values // few * few
    return math.gcd(few, abs(int(np.gcd.reduce(rest[rest != 0]))))


def from_units(words: NDArray[np.int64], kind: pa.DataType) -> pa.Array:
    """Return integers of the last decimal place of ``kind`` (a decimal128) as decimals, without a copy.

    ``words`` has a row a value: its lower 64 bits, then its upper ones, as Arrow keeps them.

    >>> from_units(np.array([[150, 0]]), pa.decimal128(18, 2)).to_pylist()
    [Decimal('1.50')]
    """
    return pa.Array.from_buffers(kind, len(words), [None, pa.py_buffer(words)])


def to_floats(multiples: NDArray[np.int64], unit: Decimal) -> NDArray[np.float64]:
    """Return whole multiples of ``unit`` as the floats nearest to them.

    (``multiples * float(unit)`` is often the float beside it.)

    >>> to_floats(np.array([3, 7]), Decimal("0.1")).tolist(), 3 * 0.1
    ([0.3, 0.7], 0.30000000000000004)
    """
    sign, digits, exponent = shortest(unit).as_tuple()
    assert not sign
    assert isinstance(exponent, int)
    factor, scale = int("".join(map(str, digits))), 10**-exponent
    largest = int(np.abs(multiples).max(initial=0))
    if largest * factor < 2**53 and scale <= 10**22:  # both operands exact, so one rounding
        return multiples * factor / float(scale)
    return np.array([int(value) * factor / scale for value in multiples], np.float64)


def decimal_array(
    multiples: NDArray[np.int64], unit: Decimal, null: NDArray[np.bool_] | None = None
) -> pa.Array:
    """Return ``multiples`` of ``unit`` as exact Arrow decimals, null where ``null`` is true."""
    # What `shortest` returns has no positive exponent; a tick of 100 is 100 at scale 0.
    scale = max(0, -int(unit.as_tuple().exponent))
    step = int(unit.scaleb(scale))
    largest = int(np.abs(multiples).max(initial=0)) * step
    if largest < 2**63:
        low = multiples * step
        high = low >> 63
    else:
        wide = multiples.astype(object) * step
        low = np.array([value & (2**64 - 1) for value in wide], np.uint64).view(np.int64)
        high = np.array([value >> 64 for value in wide], np.int64)
    words = np.column_stack((low, high)).astype(np.int64)
    validity = None if null is None else pa.array(~null).buffers()[1]
    return pa.Array.from_buffers(
        pa.decimal128(38, scale), len(multiples), [validity, pa.py_buffer(np.ascontiguousarray(words))]
    )
