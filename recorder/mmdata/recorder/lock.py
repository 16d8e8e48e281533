"""One recorder an exchange and dataset: a second one is refused at once, and told who holds it."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmdata.datasets.disk import refusal
from mmdata.datasets.errors import DiskError, UsageError

_NAME = ".lock"
_NAMELESS = "a process that did not say who it is"


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
        return os.read(handle, 1000).decode(errors="replace") or _NAMELESS
    finally:
        os.close(handle)
    return None


@contextmanager
def exchange_lock(folder: Path, exchange: str) -> Iterator[None]:
    """Hold the lock of ``exchange``'s captures in ``folder``; the system lets go when the process dies.

    HeldError: another process holds it; the sentence names it. DiskError: the folder cannot be made.
    """
    path = folder / _NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise DiskError(f"{path}: cannot be made ({refusal(error)}); nothing is recorded") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 1000).decode(errors="replace") or _NAMELESS
            raise HeldError(
                f"{folder}: {exchange} is being recorded or recovered here already, by {holder}; two "
                f"recorders of one exchange need two roots"
            ) from None
        who = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%FT%TZ", time.gmtime()),
        }
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(who).encode(), 0)
        yield
    finally:
        os.close(handle)
