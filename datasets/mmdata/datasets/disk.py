"""Names that outlive a power cut: folders made and synced; and why the disk refused one."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
import time
from pathlib import Path

from mmdata.datasets.layout import STAGING

_STALE_S = 3600.0
COMPACTION = "compaction-"
"""How names in the staging folder begin that are a compaction's: what lies there lies elsewhere too."""
_HERE = -100  # AT_FDCWD, and RENAME_EXCHANGE, of Linux
_EXCHANGE = 2


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


def swap(one: Path, other: Path) -> None:
    """Let two folders take each other's name in one step: whoever looks finds either, whole.

    OSError: the system refuses; ENOSYS, EINVAL or ENOTSUP where the file system cannot do it at all.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), str(one))
    if rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))


def clear_staging(root: Path) -> None:
    """Remove what killed writers left in ``<root>/.staging``: what nobody touched for an hour.

    Younger files may be another process's, which is about to publish them; another user's stay.
    """
    for path in (*(root / STAGING).glob("*.parquet"), *(root / STAGING).glob("*.json")):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if _is_stale(path):
                path.unlink()
    for folder in (root / STAGING).glob(f"{COMPACTION}*"):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            if all(map(_is_stale, (folder, *folder.rglob("*")))):
                shutil.rmtree(folder)


def _is_stale(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _STALE_S
