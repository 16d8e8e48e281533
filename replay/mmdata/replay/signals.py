"""Signals of the user's own, put on the exchange's clock."""

from __future__ import annotations

import numpy as np

from mmdata.datasets.errors import UsageError
from mmdata.replay.engine import Signals
from mmdata.replay.state import Ints


def map_signals(given: tuple[object, object] | None, begun: Ints, shifts: Ints) -> Signals:
    """Return signals as the engine takes them: ns of the recorder's clock (n,), and rows (n,) or (n, c).

    Each is known from its time on, mapped as what the session recorded then: those that ``begun`` (s,), ns of
    the recorder's clock, are shifted by ``shifts`` (s,) ns. UsageError: lengths differ, a time is before the
    one before it, a shape or type that is none.
    """
    if given is None:
        return Signals.none()
    try:
        times, rows = np.asarray(given[0]), np.asarray(given[1], dtype=np.float64)
    except (TypeError, ValueError) as error:  # text, or rows of different lengths
        raise UsageError(f"the signals are no arrays of numbers: {error}") from None
    if times.dtype.kind not in "iuM" or times.ndim != 1:
        raise UsageError(
            f"the times of the signals were {times.dtype} of shape {times.shape}, expected whole ns since "
            f"the epoch, one a row"
        )
    if times.dtype.kind == "M":
        times = times.astype("datetime64[ns]")
    times = times.astype(np.int64)
    if rows.ndim == 1:
        rows = rows[:, None]
    if rows.ndim != 2 or len(rows) != len(times):
        raise UsageError(
            f"the signals have {len(times)} times and values of shape {rows.shape}, expected a value or a "
            f"row of values a time"
        )
    back = np.flatnonzero(np.diff(times) < 0)
    if back.size:
        at = int(back[0])
        raise UsageError(
            f"signal {at + 1} is of {times[at + 1]}, before {times[at]} of the one before it; expected times "
            f"that ascend"
        )
    return Signals(np.maximum.accumulate(times + _shift_at(times, begun, shifts)), np.ascontiguousarray(rows))


def _shift_at(times: Ints, begun: Ints, shifts: Ints) -> Ints:
    """Return the shift, ns, of the last session begun at each of ``times``; before all, the first one's."""
    if not len(begun):
        return np.zeros(len(times), np.int64)
    begins = np.maximum.accumulate(begun)
    own: Ints = shifts[np.maximum(np.searchsorted(begins, times, side="right") - 1, 0)]
    return own
