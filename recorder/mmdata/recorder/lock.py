"""One recorder an exchange and dataset: a second one is refused at once, and told who holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmdata.datasets import locks
from mmdata.datasets.errors import UsageError
from mmdata.datasets.locks import holder_of, open_lock, sign, try_lock


class HeldError(UsageError):
    """Somebody else holds the lock: a recording is under way, only not ours."""


def holder(folder: Path) -> str | None:
    """Return who holds the lock of the captures in ``folder``; None: nobody. Makes no file.

    Whoever starts in the instant of the look is refused.
    """
    return locks.holder(folder / locks.RECORDER_LOCK)


@contextmanager
def exchange_lock(folder: Path, exchange: str) -> Iterator[None]:
    """Hold the lock of ``exchange``'s captures in ``folder``; the system lets go when the process dies.

    HeldError: another process holds it; the sentence names it. DiskError: the folder cannot be made.
    """
    handle = open_lock(folder / locks.RECORDER_LOCK)
    try:
        if not try_lock(handle):
            raise HeldError(
                f"{folder}: {exchange} is being recorded or recovered here already, by {holder_of(handle)}; "
                f"two recorders of one exchange need two roots"
            )
        sign(handle)
        yield
    finally:
        os.close(handle)
