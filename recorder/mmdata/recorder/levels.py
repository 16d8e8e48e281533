"""Level arrays left as the wire's own bytes, and parsed a batch at a time: some 15 times faster than strings.

Only the plain form of a number is taken here (see `mmdata.recorder._kernel`); whatever else a venue may
send goes through the venue's strict ``decode`` and Arrow's casts. Either way a value is the wire's, to the
digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import pyarrow as pa


class WireLevels(msgspec.Struct, frozen=True, gc=False):
    """One side's levels, known to be of the plain form."""

    text: msgspec.Raw
    """The JSON array as it came."""
    count: int

    def __len__(self) -> int:
        return self.count


def wire_levels(bids: msgspec.Raw, asks: msgspec.Raw, numbers: int) -> tuple[WireLevels, WireLevels] | None:
    """Return both sides of a message, unparsed; None: not all of it is of the plain form.

    ``numbers`` is how many strings the venue sends a level.
    """
    found = _compiled().count_levels(b"".join((bids, asks)), numbers)
    if found < 0:
        return None
    return WireLevels(bids, found >> 32), WireLevels(asks, found & 0xFFFFFFFF)


def parse(sides: Sequence[WireLevels]) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Return price, size and orders of all levels in order; prices and sizes as ``decimal(18, 8)``."""
    import numpy as np
    import pyarrow as pa

    from mmdata.datasets.decimals import from_units
    from mmdata.datasets.schema import NARROW

    total = sum(side.count for side in sides)
    price, size = np.zeros((total, 2), np.int64), np.zeros((total, 2), np.int64)
    orders = np.full(total, -1, np.int32)
    read = _compiled().parse_levels(b"".join([side.text for side in sides]), price, size, orders)
    assert read == total
    return from_units(price, NARROW), from_units(size, NARROW), pa.array(orders, mask=orders < 0)


def warm_up() -> None:
    """Compile the kernels, or load them: where they are cached ahead, the first ingest compiles nothing."""
    empty = wire_levels(msgspec.Raw(b"[]"), msgspec.Raw(b"[]"), 2)
    assert empty is not None
    parse(empty)
    from mmdata.recorder import plain

    plain.warm_up()


@cache
def _compiled() -> ModuleType:
    """Return the kernels; numba is loaded when the first level is read, not by importing a venue."""
    from mmdata.recorder import _kernel

    return _kernel
