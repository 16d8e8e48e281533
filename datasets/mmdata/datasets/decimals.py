"""Decimals as integers, exactly: of a column at once, and the steps that they lie on."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def shortest(value: Decimal) -> Decimal:
    """Return ``value`` without trailing zeros and without an exponent.

    >>> shortest(Decimal("100.5000")), shortest(Decimal("1E+2"))
    (Decimal('100.5'), Decimal('100'))
    """
    return Decimal(f"{value.normalize():f}")


def common_divisor(a: Decimal, b: Decimal) -> Decimal:
    """Return the greatest decimal that divides both.

    >>> common_divisor(Decimal("0.25"), Decimal("0.1"))
    Decimal('0.05')
    """
    scale = -min(a.as_tuple().exponent, b.as_tuple().exponent, 0)  # type: ignore[operator]
    return Decimal(math.gcd(int(a.scaleb(scale)), int(b.scaleb(scale)))).scaleb(-scale)


def scaled(column: pa.ChunkedArray) -> NDArray[np.int64] | NDArray[np.object_]:
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
    if ((low >> 63) == high).all():
        return low.copy()
    wide = high.astype(object) * 2**64 + low.view(np.uint64).astype(object)
    return np.asarray(wide, dtype=object)
