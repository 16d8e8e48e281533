"""A job as it is seen from outside: plain numbers that metrics, status file and live table read.

Whoever watches reads in a thread of its own, whenever it likes; the recorder only adds to its counts and
never waits for a watcher.
"""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmdata.recorder.counts import LAG_BOUNDS_S, Counts

if TYPE_CHECKING:
    from mmdata.recorder.ingest_process import Tally

State = Literal["recovering", "waiting", "recording", "ending", "ended"]
"""Ingesting what an earlier run left, waiting for the window, recording, ingesting the rest, done."""

_LAG_WINDOW = 60


@dataclass(frozen=True)
class Watched:
    """One exchange of a running job; ``counts`` and ``tally`` are the recorder's own and go on changing."""

    exchange: str
    session: str
    started_ns: int
    counts: Counts
    tally: Tally

    def silence_s(self, now_ns: int) -> float:
        """Return the seconds since the newest frame of any stream; since the start when none came yet."""
        newest = max([*self.counts.last_frame.copy().values()], default=self.started_ns)
        return max(0.0, (now_ns - newest) / 1e9)


@dataclass
class Watch:
    """A running job: its state, and what it records."""

    root: Path
    exchanges: Sequence[str]
    window_end_ns: int | None = None
    """When the window closes; None: it records until its duration is over or it is stopped."""
    min_free_bytes: int | None = None
    """With less free space the job warns; None: nobody said."""
    stop_free_bytes: int | None = None
    """With less free space the job ends; None: nobody said."""
    state: State = "recovering"
    reason: str | None = None
    """Why it ends or ended, a few words or the sentence of an error."""
    exit_code: int | None = None
    """The exit status of a job that has ended."""
    begun_ns: int = field(default_factory=time.time_ns)
    look: Callable[[], Sequence[Watched]] = tuple
    """Returns what is recorded now; nothing before the recording begins."""

    def of(self, exchange: str) -> Watched | None:
        """Return what is recorded of ``exchange`` now; None: its recording has not begun."""
        return next((watched for watched in self.look() if watched.exchange == exchange), None)

    def disk_free_bytes(self) -> int | None:
        """Return what the file system of the dataset still takes; None: it cannot be asked."""
        try:
            return shutil.disk_usage(self.root).free
        except OSError:
            return None


class RecentLag:
    """Receive-to-disk lag over the last looks (a minute of them, when there is one a second)."""

    def __init__(self) -> None:
        self._seen: deque[list[int]] = deque(maxlen=_LAG_WINDOW)

    def p99_s(self, lags: Sequence[int]) -> float | None:
        """Return the bound that 99 % of the socket reads since the oldest look stayed below.

        ``lags`` is `Counts.lags` as it is now. Infinite beyond the last bound; None: nothing was read.
        """
        before = self._seen[0] if self._seen else [0] * len(lags)
        self._seen.append(list(lags))
        return quantile_s([now - then for now, then in zip(lags, before, strict=True)], 0.99)


def quantile_s(lags: Sequence[int], q: float) -> float | None:
    """Return the upper bound, in seconds, of the bucket that holds the quantile ``q``; None: no lags.

    >>> quantile_s([98, 1, 1, 0, 0, 0, 0, 0, 0, 0], 0.99)
    0.0005
    """
    total = sum(lags)
    if not total:
        return None
    reached = 0
    for bound, count in zip([*LAG_BOUNDS_S, float("inf")], lags, strict=True):
        reached += count
        if reached >= q * total:
            return bound
    raise AssertionError("all lags lie below infinity")
