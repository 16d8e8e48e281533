"""The files themselves: readable, of the schema, in their place, each row once and in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mmdata.datasets.layout import Part, date_name
from mmdata.datasets.market import read_part
from mmdata.datasets.schema import arrow_schema
from mmdata.datasets.validation.report import Finding


def rows_of(part: Part) -> int:
    """Return the number of rows of a part; 0 where it cannot be read, which `check_files` tells."""
    if part.rows is not None:
        return part.rows
    try:
        return int(pq.read_metadata(part.path).num_rows)
    except (pa.ArrowInvalid, OSError):
        return 0


def check_files(parts: Sequence[Part]) -> Iterator[Finding]:
    """Yield what is wrong with the parts of one table and symbol, given in the order they are read."""
    before: dict[str, tuple[int, Part]] = {}
    for part in parts:
        problem = _problem(part)
        if problem is not None:
            yield _finding(part, "file", problem)
            continue
        rows = read_part(part, ("frame", "ts_recv"))
        frames = rows["frame"].to_numpy()
        if not len(frames):
            continue
        yield from _check_rows(part, frames, rows["ts_recv"].cast(pa.int64()).to_numpy())
        last, other = before.get(part.session, (-1, part))
        if frames[0] <= last:
            yield _finding(
                part,
                "order",
                f"begins at frame {frames[0]} of its session, though {other.path.name} before it ends at "
                f"{last}: rows stand twice, or out of order",
            )
        before[part.session] = (max(last, int(frames.max())), part)


def _check_rows(
    part: Part,
    frames: NDArray[np.int64],
    times: NDArray[np.int64],
) -> Iterator[Finding]:
    back = np.flatnonzero(frames[1:] < frames[:-1])
    if back.size:
        yield _finding(
            part,
            "order",
            f"rows are not in the order of their frames (first at row {back[0] + 1}): the order of arrival "
            f"is lost",
            count=int(back.size),
        )
    days = {date_name(int(times.min())), date_name(int(times.max()))}
    if days != {part.partition.date}:
        found = ", ".join(sorted(days))
        yield _finding(part, "partition", f"holds rows of {found}, expected only {part.partition.date}")


def _finding(part: Part, check: str, what: str, *, count: int = 1) -> Finding:
    partition = part.partition
    sentence = f"{part.path}: {what}"
    return Finding(
        "error",
        check,
        partition.exchange,
        partition.symbol,
        count,
        sentence,
        part.session,
        file=str(part.path),
    )


def _problem(part: Part) -> str | None:
    """Return what is wrong with a file; None when it can be read and has the schema."""
    size = part.path.stat().st_size
    if size == 0:
        return "is empty (0 bytes), expected a Parquet file: its rows are lost unless its capture was kept"
    try:
        found = pq.read_schema(part.path)
        pq.read_table(part.path, columns=["session"], partitioning=None)
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        return f"cannot be read as Parquet ({size} bytes: {error}); its rows are left out"
    expected = arrow_schema(part.partition.table, wide=part.partition.wide)
    if not found.remove_metadata().equals(expected):
        wrong = [field.name for field in expected if field not in list(found)]
        return f"is not of schema version 1: {', '.join(wrong) or 'it has further columns'} differ"
    return None
