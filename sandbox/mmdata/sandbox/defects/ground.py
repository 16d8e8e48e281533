"""A dataset as something to plant in: the rows of a table out, changed rows back in, part by part.

Rows are edited as Arrow tables, and a part that changed is written anew with the library's own encoding and
under its own metadata: nothing but the defect tells it from what was there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmdata.datasets.chain import NO_ID
from mmdata.datasets.errors import DatasetError, UsageError
from mmdata.datasets.layout import NO_SYMBOL, Part, Partition, date_name, list_parts, part_name
from mmdata.datasets.market import NO_TIME
from mmdata.datasets.publish import ROW_GROUP, encoding, publish
from mmdata.datasets.schema import TABLES, arrow_schema

Ints = NDArray[np.int64]

FEW = 6
"""A table or day of fewer rows has no place for a defect of rows."""


class NoPlaceError(Exception):
    """There is no place here for a defect of this kind; another market may have one."""


class Sheet:
    """The rows of one table and symbol, in their order, and the parts that they lie in."""

    def __init__(self, root: Path, table: str, parts: Sequence[Part], renamed: dict[str, str]) -> None:
        for part in parts:
            if part.rows is not None:
                raise UsageError(
                    f"{part.path}: is compacted; defects are planted in parts as they are published: record "
                    f"with `compact: false`, or import; nothing was planted"
                )
        self.root = root
        self.table = table
        self._renamed = renamed
        self.parts = list(parts)
        self._files = [pq.read_table(part.path, partitioning=None) for part in parts]
        plain = [rows.replace_schema_metadata(None) for rows in self._files]
        self.rows: pa.Table = (
            pa.concat_tables(plain, promote_options="permissive").combine_chunks()
            if plain
            else arrow_schema(table).empty_table()
        )
        self.part = np.repeat(np.arange(len(parts)), [rows.num_rows for rows in plain])

    def __len__(self) -> int:
        return int(self.rows.num_rows)

    def ints(self, name: str) -> Ints:
        """Return ids, times, numbers as integers; NO_ID (as NO_TIME) for null."""
        assert NO_ID == NO_TIME
        values = pc.fill_null(self.rows[name].cast(pa.int64()), NO_ID)
        return np.asarray(values.to_numpy(), dtype=np.int64)

    def flags(self, name: str) -> NDArray[np.bool_]:
        """Return a column of truth values."""
        return np.asarray(self.rows[name].to_numpy(), dtype=np.bool_)

    def words(self, name: str) -> NDArray[np.object_]:
        """Return a column of words; None for null."""
        return np.array(self.rows[name].to_pylist(), dtype=object)

    def value(self, name: str, row: int) -> Any:
        """Return one value, a time as ns."""
        scalar = self.rows[name][row]
        return scalar.value if pa.types.is_timestamp(scalar.type) else scalar.as_py()

    def set(self, name: str, values: Mapping[int, Any]) -> None:
        """Put values in their rows; times are ns."""
        at = self.rows.column_names.index(name)
        field = self.rows.schema.field(at)
        mask = np.zeros(len(self), np.bool_)
        mask[list(values)] = True
        fresh = pa.array([values[row] for row in sorted(values)], field.type)
        column = self.rows[name].combine_chunks()
        column = pc.replace_with_mask(column, pa.array(mask), fresh)
        self.rows = self.rows.set_column(at, field, column)

    def take(self, order: Ints | Sequence[int]) -> None:
        """Keep the rows that are named, in that order; one may be named twice."""
        self.rows = self.rows.take(pa.array(np.asarray(order, np.int64)))
        self.part = self.part[np.asarray(order, np.int64)]

    def drop(self, rows: Iterable[int]) -> None:
        """Take rows out."""
        self.take(np.setdiff1d(np.arange(len(self)), np.fromiter(rows, np.int64)))

    def insert(self, at: int, rows: Sequence[Mapping[str, Any]], *, part: int | None = None) -> None:
        """Put rows before row ``at``: into the part named, or one of the two around that is of their date.

        NoPlaceError: neither is.
        """
        values = [{name: row.get(name) for name in self.rows.column_names} for row in rows]
        columns = {
            field.name: pa.array([row[field.name] for row in values], field.type)
            for field in self.rows.schema
        }
        fresh = pa.Table.from_pydict(columns, schema=self.rows.schema)
        into = part if part is not None else self._part_for(at, int(rows[0]["ts_recv"]))
        self.rows = pa.concat_tables([self.rows.slice(0, at), fresh, self.rows.slice(at)]).combine_chunks()
        self.part = np.insert(self.part, at, np.full(len(rows), into))

    def put(self, row: Mapping[str, Any]) -> None:
        """Put a row where its frame says, behind those of the same one. NoPlaceError as `insert`."""
        self.insert(int(np.searchsorted(self.ints("frame"), row["frame"], side="right")), [row])

    def _part_for(self, at: int, ts_recv: int) -> int:
        around = [int(self.part[row]) for row in (at - 1, at) if 0 <= row < len(self)]
        for part in around:
            if self.parts[part].partition.date == date_name(ts_recv):
                return part
        raise NoPlaceError

    def row(self, at: int) -> dict[str, Any]:
        """Return a row, as `insert` takes it."""
        return {name: self.value(name, at) for name in self.rows.column_names}

    def at(self, row: int) -> tuple[str, int]:
        """Return the file of a row below the root, and its number there. Ask before `save`."""
        part = int(self.part[row])
        return self.file(part), row - int(np.flatnonzero(self.part == part)[0])

    def file(self, part: int) -> str:
        """Return the name of a part below the root."""
        return str(self.parts[part].path.relative_to(self.root))

    def save(self) -> None:
        """Write the parts whose rows changed; one without rows is removed.

        A part's name tells its first ``ts_recv``: where that row is another now, the part is renamed.
        """
        for number, (part, before) in enumerate(zip(self.parts, self._files, strict=True)):
            rows = self.rows.filter(pa.array(self.part == number))
            if before.equals(rows):
                continue
            if not rows.num_rows:
                part.path.unlink()
                continue
            write(part.path, rows.replace_schema_metadata(before.schema.metadata))
            first = rows["ts_recv"][0].value
            if first != before["ts_recv"][0].value:
                name = part_name(first, part.session, part.n)
                self._renamed[self.file(number)] = str(part.path.with_name(name).relative_to(self.root))
                self.parts[number] = Part(
                    part.partition,
                    name[:26],
                    part.session,
                    part.n,
                    part.path.rename(part.path.with_name(name)),
                )
        self._files = [
            pq.read_table(part.path, partitioning=None) if part.path.exists() else before
            for part, before in zip(self.parts, self._files, strict=True)
        ]


def write(path: Path, rows: pa.Table) -> None:
    """Write a file anew as the library encodes it."""
    aside = path.with_name(f".{path.name}")
    pq.write_table(rows, aside, row_group_size=ROW_GROUP, **encoding(rows.column_names))
    aside.replace(path)


@dataclass(frozen=True)
class Messages:
    """The book messages of a sheet of ``depth``: (n,) arrays."""

    start: Ints
    """First row."""
    stop: Ints
    frame: Ints
    ts_recv: Ints
    first_id: Ints
    last_id: Ints
    prev_id: Ints
    is_snapshot: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.start)

    def rows(self, message: int) -> range:
        """Return the rows of a message."""
        return range(int(self.start[message]), int(self.stop[message]))


@dataclass
class Site:
    """One market of a dataset, or with symbol ``_`` one exchange: where a defect is to be planted."""

    root: Path
    exchange: str
    symbol: str
    rng: Random
    renamed: dict[str, str] = field(default_factory=dict)
    """Parts that have another name since their first row is another, by the name that they had."""
    _gave_way: list[int] = field(default_factory=list)

    def sheet(self, table: str, symbol: str | None = None) -> Sheet:
        """Return the rows of a table as they are now."""
        symbol = self.symbol if symbol is None else symbol
        parts = list_parts(self.root, table, exchange=self.exchange, symbol=symbol)
        return Sheet(self.root, table, parts, self.renamed)

    @cached_property
    def depth(self) -> Sheet:
        """The table `depth`. NoPlaceError: it has no rows."""
        return self.filled("depth")

    def filled(self, table: str, least: int = FEW) -> Sheet:
        """Return the rows of a table. NoPlaceError: they are fewer than ``least``, too few to choose from."""
        sheet = self.sheet(table)
        if len(sheet) < least:
            raise NoPlaceError
        return sheet

    @cached_property
    def messages(self) -> Messages:
        """The messages of `depth`, as they were before anything was planted."""
        stop = np.flatnonzero(self.depth.flags("is_last")) + 1
        start = np.concatenate(([0], stop[:-1]))
        ints = {name: self.depth.ints(name)[start] for name in
                ("frame", "ts_recv", "first_id", "last_id", "prev_id")}  # fmt: skip
        return Messages(start=start, stop=stop, is_snapshot=self.depth.flags("is_snapshot")[start], **ints)

    def part_of(self, tables: Sequence[str] = ("depth", "trades", "bbo")) -> Part:
        """Return one of the market's parts in some tables."""
        parts = [
            part
            for table in tables
            for part in list_parts(self.root, table, exchange=self.exchange, symbol=self.symbol)
        ]
        part: Part = self.pick(parts)
        return part

    def pick(self, candidates: Sequence[Any] | NDArray[Any]) -> Any:
        """Return one of the candidates. NoPlaceError: there are none."""
        if not len(candidates):
            raise NoPlaceError
        return candidates[self.rng.randrange(len(candidates))]

    def shuffled(self, candidates: Iterable[int]) -> list[int]:
        """Return the candidates in random order."""
        found = list(candidates)
        self.rng.shuffle(found)
        return found

    def symbols(self) -> list[str]:
        """Return the symbols of the exchange that have book messages or trades."""
        found = {
            part.partition.symbol
            for table in ("depth", "trades")
            for part in list_parts(self.root, table, exchange=self.exchange)
        }
        return sorted(found - {NO_SYMBOL})

    def free_line(self, after: int, before: int) -> tuple[int, int]:
        """Return an ordinal between two that no row of the exchange has, and when that line arrived.

        Where every line made a row, one of `bbo` gives way: no chain tells that it was there. NoPlaceError:
        there is none either.
        """
        free = [frame for frame in range(after + 1, before) if frame not in self._used]
        frame = int(self.pick(free)) if free else self._way_given(after, before)
        last = frame
        while last not in self._used:
            last -= 1
        ts_recv = self._used[last]
        self._used[frame] = ts_recv
        return frame, ts_recv

    def _way_given(self, after: int, before: int) -> int:
        bbo = self.filled("bbo")
        frames = bbo.ints("frame")
        compared = np.isin(bbo.ints("last_id"), self.messages.last_id)
        frame = int(frames[self.pick(np.flatnonzero((frames > after) & (frames < before) & ~compared))])
        self._gave_way.append(frame)
        return frame

    def finish(self) -> None:
        """Take out the rows of `bbo` that gave way, now that the defect is planted."""
        if self._gave_way:
            bbo = self.filled("bbo")
            bbo.drop(np.flatnonzero(np.isin(bbo.ints("frame"), self._gave_way)).tolist())
            bbo.save()

    @cached_property
    def _used(self) -> dict[int, int]:
        """When the line of each ordinal arrived, of those with rows.

        NoPlaceError: a file of the exchange was damaged before, or given another name.
        """
        used: dict[int, int] = {}
        try:
            for table in TABLES:
                for part in list_parts(self.root, table, exchange=self.exchange):
                    rows = pq.read_table(part.path, columns=["frame", "ts_recv"], partitioning=None)
                    times = rows["ts_recv"].cast(pa.int64()).to_pylist()
                    used.update(zip(rows["frame"].to_pylist(), times, strict=True))
        except (DatasetError, pa.ArrowException, OSError) as error:
            raise NoPlaceError from error
        return used

    def add_rows(self, table: str, symbol: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put rows where their frame says, in the table's parts; a table without any gets a part."""
        sheet = self.sheet(table, symbol)
        if not len(sheet):
            self._publish(table, symbol, rows)
            return
        for row in rows:
            sheet.put(row)
        sheet.save()

    def _publish(self, table: str, symbol: str, rows: Sequence[Mapping[str, Any]]) -> None:
        schema = arrow_schema(table)
        columns = {
            field.name: pa.array([row.get(field.name) for row in rows], field.type) for field in schema
        }
        day = date_name(int(rows[0]["ts_recv"]))
        parts = list_parts(self.root, table, exchange=self.exchange, session=rows[0]["session"])
        n = max((part.n for part in parts), default=-1) + 1
        partition = Partition(table, False, self.exchange, symbol, day)
        publish(self.root, partition, rows[0]["session"], n, pa.Table.from_pydict(columns, schema=schema), {})
