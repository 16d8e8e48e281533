"""A hash of rows by their values in order: the same however they lie in files, row groups, decimals' widths.

Each column is written as streams of little-endian numbers, and each stream has its sha256:

- Columns of integers, times, booleans and words as *runs* of equal values (most columns of `depth` change
  once a message): the row at which each run begins (int64, from 0), whether it has a value (one byte, 0 for
  null), and the values of the runs that have one (int64; words: lengths in bytes as int64, and the UTF-8).
- Prices and sizes row by row: the rows at which null and not null change places (int64; a column begins as
  not null), the values in units of 1e-8 (int64) of rows that are not null, with 0 for one that is finer or
  does not fit; for each of the latter its row (int64), and the value in units of 1e-18 (16 bytes).

The sha256 of a column is that of its streams' digests, that of the rows is of how many there
are (int64), and the columns' names and digests.
`docs/certificate.md` has the same in twenty lines of Python.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mmdata.datasets.schema import NARROW, WIDE


class ContentHash:
    """The hash of the rows of one session in one table; `take` them in order, then ask for `hexdigest`."""

    def __init__(self, schema: pa.Schema) -> None:
        self.rows = 0
        self._columns: dict[str, _Runs | _Words | _Exact] = {
            field.name: _column(field) for field in schema if field.name != "session"
        }

    def take(self, rows: pa.Table) -> None:
        """Take the next rows; other columns than the schema's are passed over."""
        if not rows.num_rows:
            return
        for name, column in self._columns.items():
            column.take(self.rows, rows[name])
        self.rows += rows.num_rows

    def hexdigest(self) -> str:
        """Return the sha256 of all rows so far."""
        whole = hashlib.sha256(self.rows.to_bytes(8, "little"))
        for name, column in self._columns.items():
            whole.update(name.encode() + b"\0" + column.digest())
        return whole.hexdigest()


def _column(field: pa.Field) -> _Runs | _Words | _Exact:
    if pa.types.is_decimal(field.type):
        return _Exact()
    return _Words() if pa.types.is_string(field.type) else _Runs()


class _Streams:
    """Streams of bytes, each with its own sha256."""

    def __init__(self, count: int) -> None:
        self._streams = [hashlib.sha256() for _ in range(count)]

    def _put(self, stream: int, values: NDArray[Any] | bytes) -> None:
        self._streams[stream].update(
            values if isinstance(values, bytes) else np.ascontiguousarray(values).reshape(-1).data
        )

    def digest(self) -> bytes:
        return hashlib.sha256(b"".join(stream.digest() for stream in self._streams)).digest()


class _Runs(_Streams):
    """A column of integers, times or booleans."""

    def __init__(self) -> None:
        super().__init__(3)
        self._last: tuple[bool, int] | None = None

    def take(self, row: int, column: pa.ChunkedArray) -> None:
        for chunk in column.chunks:
            if len(chunk):
                self._take(row, chunk)
                row += len(chunk)

    def _take(self, row: int, chunk: pa.Array) -> None:
        valid, values = _integers(chunk)
        change = np.empty(len(values), np.bool_)
        change[1:] = values[1:] != values[:-1]
        if valid is not None:
            change[1:] |= valid[1:] != valid[:-1]
        first = (valid is None or bool(valid[0]), int(values[0]))
        change[0] = first != self._last
        begins = np.flatnonzero(change)
        self._last = (valid is None or bool(valid[-1]), int(values[-1]))
        own = np.ones(len(begins), np.bool_) if valid is None else valid[begins]
        self._put(0, begins + row)
        self._put(1, own)
        self._put(2, values[begins[own]])


def _integers(chunk: pa.Array) -> tuple[NDArray[np.bool_] | None, NDArray[np.int64]]:
    """Return which rows are not null (None: all), and the values as int64, 0 for null."""
    valid = None
    if chunk.null_count:
        valid = pc.is_valid(chunk).to_numpy(zero_copy_only=False)
        chunk = chunk.fill_null(False if pa.types.is_boolean(chunk.type) else pa.scalar(0).cast(chunk.type))
    if pa.types.is_timestamp(chunk.type):
        chunk = chunk.view(pa.int64())
    values = chunk.to_numpy(zero_copy_only=False)
    return valid, values.astype(np.int64, copy=False)


class _Words(_Streams):
    """A column of strings."""

    def __init__(self) -> None:
        super().__init__(4)
        self._last: str | bool | None = False  # no word yet, not even null

    def take(self, row: int, column: pa.ChunkedArray) -> None:
        for chunk in column.chunks:
            if len(chunk):
                self._take(row, chunk)
                row += len(chunk)

    def _take(self, row: int, chunk: pa.Array) -> None:
        coded = chunk if pa.types.is_dictionary(chunk.type) else chunk.dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        words = coded.dictionary
        change = np.empty(len(codes), np.bool_)
        change[1:] = codes[1:] != codes[:-1]
        change[0] = coded[0].as_py() != self._last
        begins = np.flatnonzero(change)
        self._last = coded[len(coded) - 1].as_py()
        own = codes[begins] >= 0
        told = words.take(pa.array(codes[begins[own]]))
        self._put(0, begins + row)
        self._put(1, own)
        self._put(2, pc.binary_length(told).to_numpy(zero_copy_only=False).astype(np.int64))
        self._put(3, _joined(told))


def _joined(words: pa.Array) -> bytes:
    """Return strings one behind the other."""
    if not len(words):
        return b""
    _, offsets, data = words.buffers()
    bounds = np.frombuffer(offsets, np.int32)[words.offset : words.offset + len(words) + 1]
    return b"" if data is None else bytes(data[int(bounds[0]) : int(bounds[-1])])


class _Exact(_Streams):
    """A column of prices or sizes."""

    def __init__(self) -> None:
        super().__init__(4)
        self._valid = True

    def take(self, row: int, column: pa.ChunkedArray) -> None:
        for chunk in column.chunks:
            if len(chunk):
                self._take(row, chunk)
                row += len(chunk)

    def _take(self, row: int, chunk: pa.Array) -> None:
        rows = None  # of the values: all
        if chunk.null_count:
            valid = pc.is_valid(chunk).to_numpy(zero_copy_only=False)
            change = np.empty(len(valid), np.bool_)
            change[0] = valid[0] != self._valid
            change[1:] = valid[1:] != valid[:-1]
            self._put(0, np.flatnonzero(change) + row)
            self._valid = bool(valid[-1])
            rows = np.flatnonzero(valid)
            chunk = chunk.drop_null()
        elif not self._valid:
            self._put(0, np.array([row], np.int64))
            self._valid = True
        if not len(chunk):
            return
        if chunk.type == NARROW:
            # 64 bits hold each: the lower half of its 128 is the number itself.
            self._put(1, _halves(chunk)[:, 0])
            return
        units, rough = _in_units(chunk)
        self._put(1, units)
        if rough.size:
            at = rough if rows is None else rows[rough]
            self._put(2, at.astype(np.int64) + row)
            self._put(3, _halves(chunk)[rough])


def _halves(chunk: pa.Array) -> NDArray[np.int64]:
    """Return 128-bit decimals as (n, 2) int64, the lower half first."""
    values = np.frombuffer(chunk.buffers()[1], np.int64).reshape(-1, 2)
    return values[chunk.offset : chunk.offset + len(chunk)]


def _in_units(chunk: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return wide decimals in units of 1e-8, and the places of those that are finer or larger (as 0)."""
    try:
        return np.ascontiguousarray(_halves(chunk.cast(NARROW))[:, 0]), np.empty(0, np.int64)
    except pa.ArrowInvalid:
        pass
    unit = 10 ** (WIDE.scale - NARROW.scale)
    most = 10**NARROW.precision
    wide = [(int(high) << 64) | (int(low) & (2**64 - 1)) for low, high in _halves(chunk)]
    fits = [value % unit == 0 and abs(value // unit) < most for value in wide]
    units = [value // unit if ok else 0 for value, ok in zip(wide, fits, strict=True)]
    return np.array(units, np.int64), np.flatnonzero(~np.array(fits))
