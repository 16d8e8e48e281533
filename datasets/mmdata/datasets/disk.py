"""Names that outlive a power cut: folders made and synced; and why the disk refused one."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from pathlib import Path

from mmdata.datasets.layout import STAGING

_STALE_S = 3600.0


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its missing parents so that they outlive a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Flush the names in ``folder`` to the disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refusal(error: OSError) -> str:
    """Return why the system refused; of a missing permission also who owns what, who asked, what helps."""
    reason = error.strerror or str(error)
    if error.errno not in (errno.EACCES, errno.EPERM) or error.filename is None:
        return reason
    path, found = _nearest(Path(os.fsdecode(error.filename)).absolute())
    return (
        f"{reason}: {path} belongs to uid {found.st_uid}, gid {found.st_gid} and has mode "
        f"{stat.filemode(found.st_mode)}, this process is uid {os.geteuid()}, gid {os.getegid()}; let this "
        f'uid write there, or run as the owner, in a container by --user "$(id -u):$(id -g)"'
    )


def _nearest(path: Path) -> tuple[Path, os.stat_result]:
    """Return ``path``, or the nearest folder above it that can be looked at: the one that refuses."""
    while True:
        try:
            return path.resolve(), path.stat()
        except OSError:
            path = path.parent  # the root folder can always be looked at


def clear_staging(root: Path) -> None:
    """Remove what killed writers left in ``<root>/.staging``: files that nobody touched for an hour.

    Younger ones may be another process's, which is about to publish them; another user's stay.
    """
    for path in (root / STAGING).glob("*.parquet"):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink()
