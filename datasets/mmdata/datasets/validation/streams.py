"""The rows of a table as a stream of columns, in the order of everything; and several tables side by side.

Files are decoded batch by batch, ahead of who looks at them, so memory does not grow with the day. What can
be checked of each row by itself, with file and row as its place, is checked as it passes (`rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from threading import RLock
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.datasets.errors import ReplacedError
from mmdata.datasets.validation.files import Piece, open_file
from mmdata.datasets.validation.findings import Findings, Place

Columns = dict[str, NDArray[Any]]
"""Columns of equal length, one of which, ``order``, ascends."""

_WORDS = ("session", "side", "reason", "kind", "origin")
EVERYTHING = 2**63 - 1
AHEAD = 2
"""Batches of a table that are decoded before they are asked for."""


class Batch(NamedTuple):
    """Rows of one piece as they lie in the file."""

    rows: pa.RecordBatch
    piece: Piece
    first_row: int
    """In the file."""


Decode = Callable[[Batch], Columns]


class _Ahead:
    """Has batches decoded on a pool, one after the other, while fewer than ``AHEAD`` wait to be taken."""

    def __init__(self, pool: ThreadPoolExecutor, advance: Callable[[], Columns | None]) -> None:
        self._pool = pool
        self._advance = advance
        self._decoded: SimpleQueue[Future[Columns | None]] = SimpleQueue()
        self._lock = RLock()
        self._waiting = 0
        self._is_busy = self._is_over = False
        self._go_on()

    def take(self) -> Columns | None:
        """Return the next batch, None behind the last; raise what kept it from being decoded."""
        found = self._decoded.get().result()
        with self._lock:
            self._waiting -= 1
            self._go_on()
        return found

    def stop(self) -> None:
        """Have no more decoded."""
        with self._lock:
            self._is_over = True

    def _go_on(self) -> None:
        with self._lock:
            if not (self._is_busy or self._is_over) and self._waiting < AHEAD:
                self._is_busy = True
                self._pool.submit(self._advance).add_done_callback(self._note)

    def _note(self, decoded: Future[Columns | None]) -> None:
        with self._lock:
            self._is_busy = False
            self._waiting += 1
            if decoded.exception() is not None or decoded.result() is None:
                self._is_over = True
            self._decoded.put(decoded)  # before the next one may be
            self._go_on()


class _Lane:
    """Pieces one after the other, a batch at a time, the next ones decoded meanwhile."""

    def __init__(
        self,
        pieces: Sequence[Piece],
        columns: Sequence[str],
        decode: Decode,
        size: int,
        pool: ThreadPoolExecutor,
        damaged: Callable[[Piece, int, Exception], None],
        margin: int,
    ) -> None:
        self._pieces = pieces
        self._columns = columns
        self._decode = decode
        self._size = size
        self._damaged = damaged
        self._ends = [-1] * (margin + 1)
        self._batches = self._gathered()
        self._next = _Ahead(pool, self._advance)
        self.buffer: list[Columns] = []
        """Pieces behind one another that were not taken yet, none of them empty; only the last one can lack
        rows of its last frame."""
        self.is_done = False

    def load(self) -> None:
        """Put one more batch behind what is in the buffer."""
        found = self._next.take()
        if found is None:
            self.is_done = True
            return
        self._ends = [*self._ends[1:], int(found["order"][-1])]
        held = self.buffer.pop() if self.buffer else None
        self.buffer += [found] if held is None else whole(held, found)

    def stop(self) -> None:
        """Have no more batches decoded."""
        self._next.stop()

    @property
    def horizon(self) -> int:
        """Everything before this place is in the buffer, or was taken."""
        return EVERYTHING if self.is_done else self._ends[0]

    def take(self, horizon: int) -> list[Columns]:
        """Take what lies before ``horizon`` out of the buffer, in pieces."""
        taken: list[Columns] = []
        while self.buffer and self.buffer[0]["order"][0] < horizon:
            before, behind = _split(self.buffer.pop(0), horizon)
            taken.append(before)
            if len(behind["order"]):
                self.buffer.insert(0, behind)
        return taken

    def _advance(self) -> Columns | None:
        return next(self._batches, None)

    def _gathered(self) -> Iterator[Columns]:
        """Yield what is read; of small files several at once: each is a step of all tables."""
        small: list[Columns] = []
        for columns in self._read():
            small.append(columns)
            if 2 * sum(len(own["order"]) for own in small) >= self._size:
                yield joined(small)
                small = []
        if small:
            yield joined(small)

    def _read(self) -> Iterator[Columns]:
        last = -1
        is_broken = False
        for own in self._pieces:
            piece = replace(own, broken_before=True) if is_broken else own
            is_broken = False
            at = piece.offset
            try:
                for batch in batches(piece, self._columns, self._size):
                    at = batch.first_row + batch.rows.num_rows
                    columns = self._decode(batch)
                    if not len(columns["order"]):
                        continue
                    if columns["order"][0] < last:
                        # Rows that come too late are a finding already; here they follow what came before.
                        columns["order"] = np.maximum(columns["order"], last)
                    last = int(columns["order"][-1])
                    yield columns
            except FileNotFoundError as error:
                raise ReplacedError(f"{piece.path}: was replaced since it was listed; read again") from error
            except (pa.ArrowException, OSError) as error:
                self._damaged(piece, at, error)
                is_broken = True


def _split(rows: Columns, order: int) -> tuple[Columns, Columns]:
    """Return the rows before the place ``order``, and those from there on; views of them."""
    at = int(np.searchsorted(rows["order"], order))
    before = {name: column[:at] for name, column in rows.items()}
    return before, {name: column[at:] for name, column in rows.items()}


def whole(before: Columns, behind: Columns) -> list[Columns]:
    """Return two pieces as pieces that cut no frame; only rows of a frame that lies in both are copied."""
    cut = int(before["order"][-1])
    if behind["order"][0] != cut:
        return [before, behind]
    before, begun = _split(before, cut)
    ended, behind = _split(behind, cut + 1)
    return [rows for rows in (before, joined([begun, ended]), behind) if len(rows["order"])]


def joined(pieces: Sequence[Columns]) -> Columns:
    """Return pieces, of which there is at least one, as one."""
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([rows[name] for rows in pieces]) for name in pieces[0]}


def batches(piece: Piece, columns: Sequence[str], size: int) -> Iterator[Batch]:
    """Yield the rows of a piece, a batch at a time."""
    end = piece.offset + piece.rows
    with open_file(piece.path, [name for name in _WORDS if name in columns]) as file:
        starts = np.cumsum([0, *(file.metadata.row_group(at).num_rows for at in range(file.num_row_groups))])
        groups = np.flatnonzero((starts[:-1] < end) & (starts[1:] > piece.offset))
        at = int(starts[groups[0]]) if groups.size else end
        for batch in file.iter_batches(size, row_groups=groups.tolist(), columns=list(columns)):
            first, last = max(piece.offset - at, 0), min(end - at, batch.num_rows)
            if first < last:
                yield Batch(batch.slice(first, last - first), piece, at + first)
            at += batch.num_rows


class Stream:
    """A table's rows; a step's are taken at once."""

    def __init__(self, lanes: Sequence[_Lane], empty: Columns) -> None:
        self.lanes = lanes
        self._empty = empty
        self._shown = -1
        """Up to here rows were shown ahead of their step."""

    def take(self, horizon: int) -> list[Columns]:
        """Take the rows before ``horizon``: pieces of whole frames behind one another, at least one."""
        taken = [pieces for lane in self.lanes if (pieces := lane.take(horizon))]
        if len(taken) < 2:
            return taken[0] if taken else [self._empty]
        rows = joined([rows for pieces in taken for rows in pieces])
        rank = np.argsort(rows["order"], kind="stable")
        return [{name: column[rank] for name, column in rows.items()}]

    def ahead(self) -> Columns:
        """Return the rows that are read and belong to later steps, whole frames only, each once."""
        held = [lane.buffer for lane in self.lanes if lane.buffer]
        new = [rows for rows in held[0] if rows["order"][-1] > self._shown] if len(held) == 1 else []
        if not new:
            return self._empty
        _, rows = _split(joined(new), self._shown + 1)
        if not all(lane.is_done for lane in self.lanes):
            rows, _ = _split(rows, int(rows["order"][-1]))
        if len(rows["order"]):
            self._shown = int(rows["order"][-1])
        return rows


class Source(NamedTuple):
    """What is needed to stream a table."""

    lanes: Sequence[Sequence[Piece]]
    columns: Sequence[str]
    decode: Decode
    empty: Columns
    size: int
    """Rows of a batch."""
    margin: int = 0
    """Batches that are read further than a step needs: to look ahead."""


def steps(
    sources: Mapping[str, Source], findings: Findings, damaged: Callable[[str], None]
) -> Iterator[tuple[int, dict[str, list[Columns]], dict[str, Columns]]]:
    """Stream tables side by side: each step has a place, and all rows of all tables before it.

    A table's rows come in pieces behind one another, at least one; frames are never cut. Third are the rows
    that are read already, but belong to later steps, of the tables that have a margin; each comes once.
    ``damaged`` is called with the name of a table when a file of it turns out to be.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(sources))) as pool:
        streams = {}
        for table, source in sources.items():

            def report(piece: Piece, row: int, error: Exception, table: str = table) -> None:
                findings.add(
                    "error",
                    "file",
                    f"{piece.path}: cannot be read from row {row} on ({str(error).splitlines()[0][:200]}); "
                    "the rows from there are left out, and what they carried on is broken there",
                    Place(file=str(piece.path), row=row),
                    table=table,
                )
                damaged(table)

            lanes = [
                _Lane(pieces, source.columns, source.decode, source.size, pool, report, source.margin)
                for pieces in source.lanes
            ]
            streams[table] = Stream(lanes, source.empty)
        everyone = [lane for stream in streams.values() for lane in stream.lanes]
        horizon = -1
        try:
            while horizon < EVERYTHING:
                while behind := [lane for lane in everyone if lane.horizon <= horizon]:
                    for lane in behind:
                        lane.load()
                horizon = min((lane.horizon for lane in everyone), default=EVERYTHING)
                step = {table: stream.take(horizon) for table, stream in streams.items()}
                later = {table: streams[table].ahead() for table in sources if sources[table].margin}
                yield horizon, step, later
        finally:
            for lane in everyone:
                lane.stop()
