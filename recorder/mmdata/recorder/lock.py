"""One recorder an exchange and dataset: a second one is refused at once, and told who holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmdata.datasets.errors import UsageError
from mmdata.datasets.locks import holder_of, open_lock, sign, try_lock

_NAME = ".lock"


class HeldError(UsageError):
    """Somebody else holds the lock: a recording is under way, only not ours."""


def holder(folder: Path) -> str | None:
    """Return who holds the lock of the captures in ``folder``; None: nobody. Makes no file.

    Looks by taking a shared lock for an instant: a recorder that starts in just that instant is refused.
    """
    try:
        handle = os.open(folder / _NAME, os.O_RDONLY)
    except OSError:
        return None  # never locked, or nothing that we may read: whoever records will say so
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder_of(handle)
    finally:
        os.close(handle)
    return None


@contextmanager
def exchange_lock(folder: Path, exchange: str) -> Iterator[None]:
    """Hold the lock of ``exchange``'s captures in ``folder``; the system lets go when the process dies.

    HeldError: another process holds it; the sentence names it. DiskError: the folder cannot be made.
    """
    handle = open_lock(folder / _NAME)
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
