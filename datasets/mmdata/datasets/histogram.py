"""Counts of durations by size: of any length of stream, in memory that does not grow."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.jit import kernel

Ints = NDArray[np.int64]

_BITS = 10
_HALF = 1 << (_BITS - 1)
_BUCKETS = 55 * _HALF + _HALF


@kernel()
def _count(values: Ints, above: Ints, below: Ints) -> tuple[int, int]:
    """Count each value in its bucket; return the least and the largest.

    Buckets are exact below 1024, then of a width of 1/512 of the value.
    """
    least = largest = values[0]
    for value in values:
        least = min(least, value)
        largest = max(largest, value)
        size = abs(value)
        shift = max(math.frexp(float(size))[1] - _BITS, 0)
        (below if value < 0 else above)[shift * _HALF + (size >> shift)] += 1
    return least, largest


def lowest(bucket: int) -> int:
    """Return the least value of a bucket."""
    if bucket < 2 * _HALF:
        return bucket
    shift = bucket // _HALF - 1
    return (bucket - shift * _HALF) << shift


@dataclass
class Histogram:
    """Counts of int64 values by size, on either side of zero."""

    above: Ints = field(default_factory=lambda: np.zeros(_BUCKETS, np.int64))
    below: Ints = field(default_factory=lambda: np.zeros(_BUCKETS, np.int64))
    least: int = 2**63 - 1
    largest: int = -(2**63)
    count: int = 0

    def add(self, values: Ints) -> None:
        """Count values."""
        if not len(values):
            return
        least, largest = map(int, _count(values, self.above, self.below))  # uncompiled they are numpy's
        self.least = min(self.least, least)
        self.largest = max(self.largest, largest)
        self.count += len(values)

    def join(self, other: Histogram) -> None:
        """Count what another has counted."""
        self.above += other.above
        self.below += other.below
        self.least = min(self.least, other.least)
        self.largest = max(self.largest, other.largest)
        self.count += other.count

    @property
    def negative(self) -> int:
        """How many of the values are below zero."""
        return int(self.below.sum())

    def quantile(self, per_mille: int) -> int:
        """Return the least value of the bucket in which the quantile lies, within 0.2 % of it.

        AssertionError: nothing was counted.
        """
        assert self.count
        until = np.cumsum(np.concatenate((self.below[::-1], self.above)))
        at = int(np.searchsorted(until, min(self.count - 1, self.count * per_mille // 1000), side="right"))
        value = lowest(at - _BUCKETS) if at >= _BUCKETS else -lowest(_BUCKETS - 1 - at)
        return min(max(value, self.least), self.largest)
