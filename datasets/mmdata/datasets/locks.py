"""Locks between processes: who writes a session or a symbol's partitions holds its lock meanwhile.

``<root>/.locks/``: a file a lock, held by `flock`, so that the system lets go when its holder dies. The
file says who holds it. It goes with its holder; one that a killed process left holds nobody up.

A session is written by one process at a time (what is there of it already decides what is added), and a
symbol's partitions by one at a time, so that files can be replaced under their readers' names. Whoever
needs both takes the session's first; nobody holds two symbols' at once: so nobody waits in a circle.
One process at a time compacts a dataset; while it does, it takes symbols' locks, no session's.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from mmdata.datasets.disk import refusal
from mmdata.datasets.errors import DiskError, UsageError

LOCKS = ".locks"
RECORDER_LOCK = ".lock"
"""In the folder of an exchange's captures: held by its recorder as long as that lives."""


def session_lock(root: Path, session: str, *, wait: bool) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of what is published of ``session``; another holder is waited for, or refused.

    UsageError: another process holds it, and ``wait`` is False. DiskError: the lock cannot be made.
    """
    return _held(root / LOCKS / f"session-{quote(session, safe='')}", f"session {session}", wait=wait)


def symbol_lock(root: Path, exchange: str, symbol: str) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of all partitions of a symbol, in every table; another holder is waited for.

    Held while files appear, are replaced or go; not while they are being prepared. DiskError: the lock
    cannot be made.
    """
    name = f"symbol-{exchange}-{quote(symbol, safe='')}"
    return _held(root / LOCKS / name, f"{symbol} of {exchange}", wait=True)


def compaction_lock(root: Path, *, wait: bool) -> contextlib.AbstractContextManager[None]:
    """Hold the lock of compacting the dataset; another holder is waited for, or refused.

    UsageError: another process holds it, and ``wait`` is False. DiskError: the lock cannot be made.
    """
    return _held(root / LOCKS / "compaction", "a compacted file", wait=wait)


@contextmanager
def _held(path: Path, what: str, *, wait: bool) -> Iterator[None]:
    handle = _acquire(path, what, wait=wait)
    try:
        yield
    finally:
        try:
            path.unlink(missing_ok=True)  # while it is ours: whoever waits for it looks again
        finally:
            os.close(handle)


def _acquire(path: Path, what: str, *, wait: bool) -> int:
    while True:
        handle = open_lock(path)
        try:
            if not try_lock(handle):
                if not wait:
                    raise UsageError(
                        f"{path.parent.parent}: {what} is being written already, by {holder_of(handle)}; "
                        f"nothing was changed: try again when it is done"
                    )
                fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(path, handle):
                sign(handle)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder took the file away: the lock that counts is a new one


def _is_at(path: Path, handle: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(handle))


def open_lock(path: Path) -> int:
    """Open the file of a lock, and make it if need be. DiskError: it cannot be made."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise DiskError(f"{path}: cannot be made ({refusal(error)}); nothing is written") from error


def try_lock(handle: int) -> bool:
    """Take the lock if nobody holds it."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def holder(path: Path) -> str | None:
    """Return who holds the lock at ``path``; None: nobody. Makes no file.

    Looks by taking a shared lock for an instant: whoever wants it in just that instant is refused.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None  # never locked, or nothing that we may read
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return holder_of(handle)
    finally:
        os.close(handle)
    return None


def sign(handle: int) -> None:
    """Write into the lock's file who holds it; a full disk leaves it unsigned, and held all the same."""
    who = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%FT%TZ", time.gmtime()),
    }
    with contextlib.suppress(OSError):
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(who).encode(), 0)


def holder_of(handle: int) -> str:
    """Return what the holder of a lock wrote about itself."""
    return os.pread(handle, 1000, 0).decode(errors="replace") or "a process that did not say who it is"
