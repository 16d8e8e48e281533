"""The disk is watched: a warning while there is still time, a clean end before it is full.

`judge` and `fits` decide, without I/O; `free_space` asks the disk.
"""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path

from mmdata.datasets.errors import DiskError

WARN_EVERY_S = 60.0


class Space(Enum):
    """What the free space allows."""

    ENOUGH = "enough"
    LOW = "low"
    """Below ``min_free``: recording goes on, and the recorder warns."""
    GONE = "gone"
    """Below the floor: recording ends while segments can still be closed."""


def judge(free: int, *, min_free: int, floor: int) -> Space:
    """Return what ``free`` bytes allow.

    >>> judge(3 << 30, min_free=2 << 30, floor=1 << 28)
    <Space.ENOUGH: 'enough'>
    >>> judge(1 << 30, min_free=2 << 30, floor=1 << 28), judge(0, min_free=2 << 30, floor=1 << 28)
    (<Space.LOW: 'low'>, <Space.GONE: 'gone'>)
    """
    if free < floor:
        return Space.GONE
    return Space.LOW if free < min_free else Space.ENOUGH


def fits(pending: int, free: int) -> bool:
    """Tell whether ``pending`` bytes of captures can be ingested into ``free``.

    Tables and compressed captures together take less than the frames do as text (an eighth, measured on
    both venues' streams in one segment; many small files take more), and the text goes only when they are
    there: room for as much again is enough.
    """
    return pending <= free


def free_space(root: Path) -> int:
    """Return how many bytes this process may still write below ``root``. DiskError: the disk does not say."""
    try:
        told = os.statvfs(root)
    except OSError as error:
        raise DiskError(
            f"{root}: the free space cannot be read ({error.strerror}); recording ends"
        ) from error
    return told.f_bavail * told.f_frsize


class SpaceWatch:
    """Says when to warn: at once when space is low, then once a minute while it stays so."""

    def __init__(self, *, min_free: int, floor: int) -> None:
        self._limits = (min_free, floor)
        self._warned_s: float | None = None

    def look(self, free: int, now_s: float) -> tuple[Space, bool]:
        """Return what ``free`` bytes allow at ``now_s`` (monotonic), and whether to warn."""
        min_free, floor = self._limits
        space = judge(free, min_free=min_free, floor=floor)
        if space is Space.ENOUGH:
            return space, False
        due = self._warned_s is None or now_s - self._warned_s >= WARN_EVERY_S
        if due:
            self._warned_s = now_s
        return space, due
