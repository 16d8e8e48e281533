"""Files of an export: whole under their names, or not there at all; never over another file."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmdata.datasets.disk import make_folder, refusal, sync_folder
from mmdata.datasets.errors import DiskError, UsageError
from mmdata.datasets.layout import STAGING


@dataclass(frozen=True, slots=True)
class Written:
    """A file of an export."""

    path: Path
    rows: int
    bytes: int


class Output:
    """Files that are being made in ``<out>/.staging/<a name of its own>``, and appear together at the end."""

    def __init__(self, out: Path, folder: Path) -> None:
        self._out = out
        self.folder = folder
        """Where to make them: a path below it is the path below ``out``."""
        self._rows: dict[Path, int] = {}

    def path(self, name: str | Path) -> Path:
        """Return where to write what will be ``<out>/<name>``. UsageError: there is such a file already."""
        self.refuse(Path(name))
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def count(self, name: str | Path, rows: int) -> None:
        """Note how many rows a file holds; files that are not counted hold none."""
        self._rows[Path(name)] = rows

    def refuse(self, name: Path) -> None:
        """Raise UsageError where ``<out>/<name>`` is there already."""
        if (self._out / name).exists():
            raise UsageError(
                f"{self._out / name}: is there already; nothing was overwritten and nothing written: move it "
                f"away, or export into another folder"
            )

    def _publish(self) -> list[Written]:
        names = sorted(path.relative_to(self.folder) for path in self.folder.rglob("*") if path.is_file())
        for name in names:
            self.refuse(name)
        written = []
        for name in names:
            staged, path = self.folder / name, self._out / name
            with staged.open("rb") as file:
                os.fsync(file.fileno())
            make_folder(path.parent)
            staged.rename(path)
            sync_folder(path.parent)
            written.append(Written(path, self._rows.get(name, 0), path.stat().st_size))
        return written


@contextmanager
def output(out: Path, written: list[Written]) -> Iterator[Output]:
    """Yield where to make files; when that went well they appear, and ``written`` is filled.

    UsageError: one is there already. DiskError: the disk is full or cannot be written. Nothing appears then.
    """
    folder = out / STAGING / uuid.uuid4().hex
    try:
        make_folder(folder)
        made = Output(out, folder)
        yield made
        written += made._publish()
    except OSError as error:
        raise DiskError(f"{out}: could not be written ({refusal(error)}); nothing was exported") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if folder.parent.is_dir() and not any(folder.parent.iterdir()):
            folder.parent.rmdir()
