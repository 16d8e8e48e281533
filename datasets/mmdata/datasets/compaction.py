"""`mmdata compact`: the parts of a day become one file, and the day's folder is swapped for it in one step.

Order and values stay as they were; what the parts were is kept in the file's metadata (`stretches`). A day
is built aside, compared row by row with its parts, and takes their folder's place while the symbol's lock is
held: a kill at any moment leaves the day as it was, or compacted, and never anything in the staging folder
that does not lie elsewhere too.

Narrow and wide parts of a day become one wide file. Two folders cannot be swapped at once: the wide one
is swapped first, and `list_parts` leaves narrow parts out that a wide compacted file holds, until they go.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.datasets.certificate.carry import Carried, carry, settle_all
from mmdata.datasets.disk import COMPACTION, make_folder, refusal, swap, sync_folder
from mmdata.datasets.errors import DatasetError, DiskError, MmdataError, ReplacedError, UsageError
from mmdata.datasets.layout import (
    STAGING,
    Part,
    Partition,
    is_compacted,
    list_partitions,
    list_parts,
)
from mmdata.datasets.locks import compaction_lock, symbol_lock
from mmdata.datasets.publish import ROW_GROUP, encoding, facts_of, verify_rows
from mmdata.datasets.schema import TABLES, arrow_schema
from mmdata.datasets.stores import Root, local_root
from mmdata.datasets.stretches import COMPACTED, PARTS_KEY, Stretch, encode, row_groups, stretches_of
from mmdata.datasets.writing import written_from

_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


@dataclass(frozen=True)
class Day:
    """A UTC date of one table and symbol: narrow folder, wide folder, or both."""

    table: str
    exchange: str
    symbol: str
    date: str

    def __str__(self) -> str:
        return f"{self.table} of {self.exchange} {self.symbol} on {self.date}"

    def partition(self, *, wide: bool) -> Partition:
        """Return its narrow or its wide partition."""
        return Partition(self.table, wide, self.exchange, self.symbol, self.date)


@dataclass(frozen=True)
class Compacted:
    """A day that is one file now."""

    day: Day
    wide: bool
    files: int
    """How many files it was."""
    rows: int
    bytes_before: int
    bytes_after: int


@dataclass
class CompactionReport:
    """What a compaction did."""

    root: Path
    done: list[Compacted] = field(default_factory=list)
    left: int = 0
    """Days that are one file already."""
    skipped: list[str] = field(default_factory=list)
    """Days that are being written, a sentence each; a later run compacts them."""
    failures: list[str] = field(default_factory=list)
    """Days with a file that is damaged, a sentence each; they are left as they are."""

    def to_json_dict(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {
            "schema": 1,
            "root": str(self.root),
            "compacted": [
                {**asdict(found.day), **{key: value for key, value in asdict(found).items() if key != "day"}}
                for found in self.done
            ],
            "left": self.left,
            "skipped": self.skipped,
            "failures": self.failures,
        }

    def exit_code(self) -> int:
        """Return 1 where a day could not be compacted since a file is damaged, else 0."""
        return DatasetError.exit_code if self.failures else 0


def compact(
    root: Root,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    date: str | None = None,
    before: str | None = None,
    wait: bool = False,
    progress: Callable[[str], None] | None = None,
) -> CompactionReport:
    """Make one file of each day of each table and symbol in the dataset at ``root``, or of some of them.

    ``date`` takes one UTC date, ``before`` all earlier ones. Days that a recorder still writes are left.
    ``wait`` says whether to wait for another compaction of the dataset. ``progress`` is called with each
    day's name when its turn comes.

    UsageError: no such dataset, or one in an object store, a date that is none, another compaction is under
    way. DiskError: the disk is full or cannot be written, or its file system cannot swap two folders; every
    day is whole then.
    """
    folder = local_root(root, "a compaction")
    if not folder.is_dir():
        raise UsageError(f"{root}: there is no such folder; name the dataset's")
    for day in (date, before):
        if day is not None and not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
            raise UsageError(f"date {day!r} is none, expected YYYY-MM-DD, a UTC date; nothing was changed")
    report = CompactionReport(folder)
    with compaction_lock(folder, wait=wait):
        try:
            _clear(folder / STAGING)
            report.failures += settle_all(folder, exchange)
            for found in _due(_find(folder, exchange, symbol, date, before), report):
                if progress is not None:
                    progress(str(found))
                _try(folder, found, report)
        except OSError as error:
            raise DiskError(
                f"{error.filename or folder}: compaction ended here ({refusal(error)}); every day is whole, "
                f"as it was or compacted"
            ) from error
    return report


def _find(
    root: Path, exchange: str | None, symbol: str | None, date: str | None, before: str | None
) -> list[Day]:
    """Return the days that are asked for, the oldest first."""
    found = {
        Day(table, own.exchange, own.symbol, own.date)
        for table in TABLES
        for own in list_partitions(root, table, exchange=exchange, symbol=symbol, date=date)
        if before is None or own.date < before
    }
    return sorted(found, key=lambda day: (day.date, day.exchange, day.symbol, day.table))


def _due(days: Iterable[Day], report: CompactionReport) -> Iterator[Day]:
    """Yield the days of more than one file that nobody writes; tell the others in the report."""
    written: dict[str, tuple[str, str] | None] = {}
    able = False
    for day in days:
        if len(_files(report.root, day)) < 2:
            report.left += 1
            continue
        if day.exchange not in written:
            written[day.exchange] = written_from(report.root, day.exchange)
        recorder = written[day.exchange]
        if recorder is not None and day.date >= recorder[0]:
            report.skipped.append(
                f"{day}: is being recorded, by {recorder[1]}; it is compacted once it is over"
            )
            continue
        if not able:
            _require_swap(report.root / STAGING)
            able = True
        yield day


def _require_swap(staging: Path) -> None:
    """Raise DiskError where the file system cannot swap two folders in one step: then nothing is safe."""
    pair = [staging / f"{COMPACTION}{secrets.token_hex(8)}" for _ in range(2)]
    make_folder(staging)
    try:
        for folder in pair:
            folder.mkdir()
        swap(*pair)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        raise DiskError(
            f"{staging.parent}: its file system cannot swap two folders in one step (renameat2: "
            f"{error.strerror}), so a reader could meet rows twice or not at all; nothing was compacted"
        ) from error
    finally:
        for folder in pair:
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()


def _clear(staging: Path) -> None:
    """Remove what a killed compaction left; with the lock held, nobody else's can be there."""
    for leftover in staging.glob(f"{COMPACTION}*"):
        shutil.rmtree(leftover)


def _try(root: Path, day: Day, report: CompactionReport) -> None:
    try:
        report.done.append(_compact(root, day))
    except ReplacedError as error:
        report.skipped.append(str(error))
    except DatasetError as error:
        report.failures.append(str(error))


def _compact(root: Path, day: Day) -> Compacted:
    """Compact a day of at least two files.

    ReplacedError: it changed meanwhile. DatasetError: a file of it is damaged. Nothing was changed then.
    """
    before = _files(root, day)
    foreign = sorted(path for path in before if path.suffix != ".parquet")
    if foreign:
        raise DatasetError(f"{foreign[0]}: is no Parquet file, so not ours; its day is left as it is")
    parts = list_parts(root, day.table, exchange=day.exchange, symbol=day.symbol, date=day.date)
    try:
        stretches = [stretch for part in parts for stretch in stretches_of(part)]
    except FileNotFoundError as error:
        raise _changed(day) from error
    wide = any(part.partition.wide for part in parts)
    aside = root / STAGING / f"{COMPACTION}{secrets.token_hex(8)}"
    built = aside / "day"
    carried: Carried | None = None
    built.mkdir(parents=True)
    try:
        # One file that others duplicate: a kill came between the two steps of a widening.
        if len({part.path for part in parts}) > 1:
            name = f"{stretches[0].start}-{COMPACTED}-{_next_number(before):06d}.parquet"
            _write(built / name, day.partition(wide=wide), parts, stretches)
            carried = carry(root, day.partition(wide=wide), built / name, {part.path for part in parts})
    except (MmdataError, OSError):
        shutil.rmtree(aside, ignore_errors=True)
        raise
    with symbol_lock(root, day.exchange, day.symbol):
        unchanged = _files(root, day) == before
        if unchanged and (carried is None or carried.announce()):
            _put_in_place(root, day, wide, aside)
            if carried is not None:
                carried.settle()
        else:
            unchanged = False
    shutil.rmtree(aside)
    if not unchanged:
        raise _changed(day)
    rows = sum(stretch.rows for stretch in stretches)
    return Compacted(day, wide, len(before), rows, _size(before), _size(_files(root, day)))


def _changed(day: Day) -> ReplacedError:
    return ReplacedError(f"{day}: was written to meanwhile; it is left as it is, for the next run")


_Stamps = dict[Path, tuple[int, int, int]]
"""Files, with what changes when they do."""


def _files(root: Path, day: Day) -> _Stamps:
    """Return what lies in the folders of a day, narrow and wide."""
    found: _Stamps = {}
    for wide in (False, True):
        with contextlib.suppress(FileNotFoundError):
            for path in (root / day.partition(wide=wide).folder).iterdir():
                told = path.stat()
                found[path] = (told.st_ino, told.st_size, told.st_mtime_ns)
    return found


def _size(files: _Stamps) -> int:
    return sum(size for _, size, _ in files.values())


def _next_number(files: Iterable[Path]) -> int:
    """Return a number that no compacted file of the day has: an old name never leads to new rows."""
    return max((int(path.stem[-6:]) + 1 for path in files if is_compacted(path)), default=0)


def _write(path: Path, partition: Partition, parts: Sequence[Part], stretches: Sequence[Stretch]) -> None:
    """Write the rows of ``parts``, compare them with what can be read back, and sync.

    DatasetError: a part cannot be read, or is not of the schema. OSError: the disk.
    """
    schema = arrow_schema(partition.table, wide=partition.wide)
    with path.open("xb") as file:
        with pq.ParquetWriter(file, schema, **encoding(schema.names)) as writer:
            for rows in _regrouped(_rows(parts, schema)):
                writer.write_table(rows, row_group_size=ROW_GROUP)
            writer.add_key_value_metadata({**facts_of(partition), PARTS_KEY: encode(stretches)})
        file.flush()
        os.fsync(file.fileno())
    verify_rows(path, sum(stretch.rows for stretch in stretches))
    _compare(path, _regrouped(_rows(parts, schema)))
    sync_folder(path.parent)
    sync_folder(path.parent.parent)


def _rows(parts: Sequence[Part], schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of ``parts`` in order, a row group at a time, widened where ``schema`` is wide."""
    for part in parts:
        expected = arrow_schema(part.partition.table, wide=part.partition.wide)
        try:
            for rows in row_groups(part):
                if not rows.schema.remove_metadata().equals(expected):
                    raise DatasetError(f"{part.path}: is not of schema version 1; its day is left as it is")
                yield rows.cast(schema)
        except FileNotFoundError as error:
            raise ReplacedError(f"{part.path}: was replaced meanwhile; its day is left as it is") from error
        except (pa.ArrowInvalid, OSError) as error:
            raise DatasetError(
                f"{part.path}: cannot be read as Parquet ({error}); its day is left as it is"
            ) from error


def _regrouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the same rows in tables of ROW_GROUP rows, the last one shorter."""
    gathered: list[pa.Table] = []
    missing = ROW_GROUP
    for table in tables:
        rest = table
        while rest.num_rows >= missing:
            yield pa.concat_tables([*gathered, rest.slice(0, missing)])
            rest = rest.slice(missing)
            gathered, missing = [], ROW_GROUP
        if rest.num_rows:
            gathered.append(rest)
            missing -= rest.num_rows
    if gathered:
        yield pa.concat_tables(gathered)


def _compare(path: Path, groups: Iterator[pa.Table]) -> None:
    """Raise OSError unless the row groups of a file are ``groups``, value for value."""
    with pq.ParquetFile(path) as file:
        for at in range(file.num_row_groups):
            if not file.read_row_group(at).equals(next(groups, None)):
                raise OSError(errno.EIO, f"row group {at} reads back other than it was written", str(path))
    if next(groups, None) is not None:
        raise OSError(errno.EIO, "fewer rows can be read back than were written", str(path))


def _put_in_place(root: Path, day: Day, wide: bool, aside: Path) -> None:
    """Swap the day's folder for the one built ``aside``; if it was widened, take the narrow one away."""
    if any((aside / "day").iterdir()):
        folder = root / day.partition(wide=wide).folder
        swap(aside / "day", folder)
        sync_folder(folder.parent)
        sync_folder(aside)
    narrow = root / day.partition(wide=False).folder
    if wide and narrow.is_dir():
        narrow.rename(aside / "narrow")
        sync_folder(narrow.parent)
        with contextlib.suppress(OSError):  # the symbol has other narrow days
            narrow.parent.rmdir()
