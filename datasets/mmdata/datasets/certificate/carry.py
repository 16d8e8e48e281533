"""A certificate goes on through a compaction: other files, the same rows, proven by their hash."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mmdata.datasets.certificate.canonical import Facts, seal
from mmdata.datasets.certificate.derive import Day, file_entry, table_content
from mmdata.datasets.certificate.store import (
    read_certificate,
    settle,
    settle_all,
    write_next,
)
from mmdata.datasets.errors import DatasetError
from mmdata.datasets.layout import Partition, list_stretches

__all__ = ["Carried", "carry", "settle_all"]


@dataclass(frozen=True)
class Carried:
    """The certificate of a day whose files of one table are about to be swapped."""

    root: Path
    day: Day
    before: Facts | None
    """The certificate of the files that are there; None: the day has none."""
    after: Facts | None

    def announce(self) -> bool:
        """Lay the next certificate beside the other; False: that was replaced meanwhile. Lock held.

        From here to `settle` both the old files and the new have a certificate, wherever a kill comes.
        """
        if read_certificate(self.root, self.day) != self.before:
            return False
        if self.after is not None:
            write_next(self.root, self.day, self.after)
        return True

    def settle(self) -> None:
        """Let the next certificate take the other's place, now that its files are there. Lock held."""
        settle(self.root, self.day)


def carry(root: Path, partition: Partition, built: Path, old: Collection[Path]) -> Carried:
    """Return how the certificate of a day changes when ``built`` takes the place of the files ``old``.

    DatasetError: the rows of ``built`` are not those that the certificate tells of, or the certificate is of
    other files than ``old``: the day is to be left as it is.
    """
    day = Day(partition.exchange, partition.symbol, partition.date)
    before = read_certificate(root, day)
    if before is None:
        return Carried(root, day, None, None)
    told = before["tables"].get(partition.table)
    names = {str(path.relative_to(root)) for path in old}
    if told is None or {file["path"] for file in told["files"]} != names:
        raise DatasetError(
            f"{partition.table} of {day} has other files than its certificate names; it is left as it is: "
            f"certify it first, or see `mmdata verify`"
        )
    content = table_content(list_stretches(partition, built))
    if content != told["sessions"]:
        raise DatasetError(
            f"{partition.table} of {day} has other rows than its certificate tells of; it is left as it is: "
            f"see `mmdata verify`"
        )
    entry = file_entry(str(partition.folder / built.name), built)
    tables = {**before["tables"], partition.table: {**told, "files": [entry]}}
    return Carried(root, day, before, seal({**before, "tables": tables}))
