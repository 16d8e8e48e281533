"""Names that outlive a power cut: folders made and synced."""

from __future__ import annotations

import contextlib
import os
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


def clear_staging(root: Path) -> None:
    """Remove what killed writers left in ``<root>/.staging``: files that nobody touched for an hour.

    Younger ones may be another process's, which is about to publish them.
    """
    for path in (root / STAGING).glob("*.parquet"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_S:
                path.unlink()
