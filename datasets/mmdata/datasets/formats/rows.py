"""Rows of a source as columns, exactly: what every reader of a table format yields.

Text becomes numbers by Arrow's casts, which raise where they cannot be exact; only then is each value
looked at, and lines with one that is no number, or that no table holds, are told apart.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from mmdata.datasets.schema import NARROW, WIDE

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

_LATEST_US = 2**63 // 1_000
_MS_BELOW = 100_000_000_000_000


class Bad(NamedTuple):
    """A line that cannot be read."""

    row: int
    """How many readable rows of its batch stand before it."""
    text: str
    error: str


@dataclass(frozen=True)
class Batch:
    """Some consecutive lines of a source: readable rows, and lines that are none."""

    rows: pa.Table
    """Columns of a table of the dataset (those that the format knows), and ``symbol``."""
    bad: list[Bad] = field(default_factory=list)


@dataclass(frozen=True)
class Channel:
    """One kind of data of an import: batches in order, which go into one table."""

    table: str
    batches: Iterable[Batch]
    begins: Callable[[pa.Table], Flags]
    """Tells of each row whether a message begins with it."""
    chained: str | None = None
    """Column of ids that leave out none, where the venue counts so."""
    spans: tuple[str, str] | None = None


class Cells:
    """The cells of some lines of CSV, as text; columns are made of them by the methods.

    A column that cannot be made marks the rows that it cannot be made for; `batch` leaves those out.
    """

    def __init__(self, block: bytes, names: Sequence[str], wanted: Sequence[str]) -> None:
        self._uneven: list[pacsv.InvalidRow] = []
        self._table = pacsv.read_csv(
            io.BytesIO(block),
            # One thread: only then does Arrow say which line is uneven. A block is one of Arrow's blocks.
            read_options=pacsv.ReadOptions(
                column_names=list(names), use_threads=False, block_size=len(block) + 1
            ),
            parse_options=pacsv.ParseOptions(
                quote_char=False, ignore_empty_lines=True, invalid_row_handler=self._take_uneven
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                include_columns=None if {*wanted} == {*names} else list(wanted),
                strings_can_be_null=False,
                check_utf8=False,
            ),
        ).combine_chunks()
        self._errors: dict[int, str] = {}

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def _take_uneven(self, row: pacsv.InvalidRow) -> str:
        self._uneven.append(row)
        return "skip"

    def text(self, name: str) -> pa.Array:
        """Return a column as it stands."""
        column = self._table[name]
        return column.chunk(0) if column.num_chunks else pa.array([], pa.string())

    def numbers(self, name: str, *, empty: bool = False) -> pa.Array:
        """Return a column of decimals: narrow where all of it fits, else wide. ``empty``: a cell may be."""
        text = self.text(name)
        if empty:
            text = pc.if_else(pc.equal(text, ""), None, text)
        for kind in (NARROW, WIDE):
            try:
                return text.cast(kind)
            except pa.ArrowInvalid:
                continue
        return self._each(text, WIDE, f"{name} {{value!r}} is no number that decimal(38, 18) holds")

    def ids(self, name: str, *, empty: bool = False) -> pa.Array:
        """Return a column of whole numbers."""
        text = self.text(name)
        if empty:
            text = pc.if_else(pc.equal(text, ""), None, text)
        try:
            return text.cast(pa.int64())
        except pa.ArrowInvalid:
            return self._each(text, pa.int64(), f"{name} {{value!r}} is no whole number of 64 bits")

    def times(self, name: str) -> Ints:
        """Return a column of microseconds, or milliseconds (13 digits), as ns since the epoch."""
        told = pc.fill_null(self.ids(name), 0)
        values = np.asarray(told.to_numpy(zero_copy_only=False), np.int64)
        odd = (values <= 0) | (values >= _LATEST_US)
        for row in np.flatnonzero(odd).tolist():
            self._errors.setdefault(row, f"{name} {self.text(name)[row].as_py()!r} is no time in ms or µs")
        return np.where(odd, 0, values) * np.where(values < _MS_BELOW, 1_000_000, 1_000)

    def words(self, name: str, meanings: dict[str, str | bool]) -> pa.Array:
        """Return a column of words as what they mean; any other is an error."""
        text = self.text(name)
        place = pc.index_in(text, value_set=pa.array(list(meanings)))
        for row in np.flatnonzero(pc.is_null(place).to_numpy(zero_copy_only=False)).tolist():
            self._errors.setdefault(row, f"{name} is {text[row].as_py()!r}, expected {' or '.join(meanings)}")
        return pa.array(list(meanings.values())).take(place)

    def refuse(self, rows: Flags, error: str) -> None:
        """Mark rows that cannot be read."""
        for row in np.flatnonzero(rows).tolist():
            self._errors.setdefault(row, error)

    def batch(self, columns: dict[str, pa.Array | Ints]) -> Batch:
        """Return the columns without the rows that could not be read, and those."""
        rows = pa.table(columns)
        # Arrow counts an uneven row among all lines: those before it that are even are rows.
        told = [
            (
                row.number - 1 - before,
                row.text,
                f"the line has {row.actual_columns} columns, expected {row.expected_columns}",
            )
            for before, row in enumerate(self._uneven)
        ]
        gone = np.zeros(len(self) + 1, np.bool_)
        if self._errors:
            gone[[*self._errors]] = True
            rows = rows.filter(pa.array(~gone[:-1]))
            told += [(row, self._line(row), error) for row, error in self._errors.items()]
        lost: Ints = np.cumsum(gone) - gone
        told.sort(key=lambda line: line[0])
        return Batch(rows, [Bad(row - int(lost[row]), text, error) for row, text, error in told])

    def _line(self, row: int) -> str:
        return ",".join(str(column[row].as_py()) for column in self._table.columns)

    def _each(self, text: pa.Array, kind: pa.DataType, error: str) -> pa.Array:
        """Cast what can be, mark the rest."""
        values = []
        for row, value in enumerate(text):
            try:
                values.append(value.cast(kind))
            except pa.ArrowInvalid:
                values.append(pa.scalar(None, kind))
                self._errors.setdefault(row, error.format(value=value.as_py()))
        return pa.array([value.as_py() for value in values], kind)


def every_row(rows: pa.Table) -> Flags:
    """Tell that each row is a message."""
    return np.ones(rows.num_rows, np.bool_)


def runs_of(*names: str) -> Callable[[pa.Table], Flags]:
    """Return a function that tells where the values of some columns change: a message is a run."""

    def begins(rows: pa.Table) -> Flags:
        found = np.ones(rows.num_rows, np.bool_)
        found[1:] = False
        for name in names:
            column = rows[name].combine_chunks()
            column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
            if pa.types.is_string(column.type):
                column = column.dictionary_encode().indices
            values = pc.fill_null(column.cast(pa.int64()), -1).to_numpy(zero_copy_only=False)
            found[1:] |= values[1:] != values[:-1]
        return found

    return begins


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """Join tables whose decimals may be narrow or wide."""
    if len(tables) == 1:
        return tables[0]
    return pa.concat_tables(tables, promote_options="permissive")


@dataclass(frozen=True)
class Piece:
    """Rows of a channel that no other piece shares a moment with, and the time by which they are ordered."""

    rows: pa.Table
    bad: list[Bad]
    time: Ints
    """(rows,) the highest ``ts_recv`` so far: ascending, whatever the clock did."""


def pieces(batches: Iterable[Batch]) -> Iterator[Piece]:
    """Cut batches anew so that no moment, hence no message, straddles two."""
    held = Batch(pa.table({}))
    last = 0
    for batch in batches:
        if held.rows.num_rows or held.bad:
            shift = held.rows.num_rows
            bad = [*held.bad, *(line._replace(row=line.row + shift) for line in batch.bad)]
            rows = joined([held.rows, batch.rows]) if shift else batch.rows
            batch = Batch(rows, bad)
        if not batch.rows.num_rows:
            held = batch
            continue
        time = np.maximum(np.maximum.accumulate(_ts_recv(batch.rows)), last)
        cut = int(np.searchsorted(time, time[-1], side="left"))
        if cut:
            yield Piece(batch.rows.slice(0, cut), [line for line in batch.bad if line.row < cut], time[:cut])
            last = int(time[cut - 1])
        held = Batch(
            batch.rows.slice(cut),
            [line._replace(row=line.row - cut) for line in batch.bad if line.row >= cut],
        )
    if held.rows.num_rows or held.bad:
        rows = held.rows
        time = (
            np.maximum(np.maximum.accumulate(_ts_recv(rows)), last)
            if rows.num_rows
            else np.empty(0, np.int64)
        )
        yield Piece(rows, held.bad, time)


def _ts_recv(rows: pa.Table) -> Ints:
    return np.asarray(rows["ts_recv"].cast(pa.int64()).to_numpy(), np.int64)
