"""The recorder's clock read as the exchange's, by one constant a session; what carries no time of its own."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.market import NO_TIME

Ints = NDArray[np.int64]

DEFAULT_BASE_LATENCY_NS: Final = 1_000_000
NOTHING_TIMED: Final = "none: nothing in the session carries an event time"


def shift_to(least_latency_ns: int | None, base_latency_ns: int) -> tuple[int, str]:
    """Return the smallest constant that leaves no latency below ``base_latency_ns``, and how it is known.

    ``least_latency_ns`` is the least ``ts_recv - ts_event`` that a session measured; None: it measured none.

    >>> shift_to(-1_270_000_000, 1_000_000)
    (1271000000, 'least latency set to 1 ms')
    """
    if least_latency_ns is None:
        return 0, NOTHING_TIMED
    return base_latency_ns - least_latency_ns, f"least latency set to {base_latency_ns / 1e6:g} ms"


def happened(event: Ints, received: Ints, base_latency_ns: int) -> Ints:
    """Return when things happened, by the exchange's clock; NO_TIME where neither time is known.

    ``received`` is by that clock too. What carries no event time happened a base latency before it came.
    """
    supposed = np.where(received == NO_TIME, NO_TIME, received - base_latency_ns)
    return np.where(event == NO_TIME, supposed, event)
