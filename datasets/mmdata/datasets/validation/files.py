"""The files themselves: readable, of the schema, in their place; and what of them can be streamed.

Nothing is loaded here but footers. What a file's rows say is checked as they are streamed (`streams`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.datasets import stores
from mmdata.datasets.errors import DatasetError, ReplacedError
from mmdata.datasets.layout import Part, Partition, is_part_name, list_parts
from mmdata.datasets.schema import TABLES, arrow_schema
from mmdata.datasets.stretches import stretches_of
from mmdata.datasets.validation.findings import Findings, Place

LAST_FRAME = (1 << 40) - 1


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows of one file that can be streamed; of several sessions where they lie behind one another."""

    path: Path
    partition: Partition
    sessions: tuple[str, ...]
    offset: int
    rows: int
    first_frame: int
    """Of its first session."""
    last_frame: int
    """Of its last session."""
    after: int = -1
    """Rows of its (then only) session up to this frame are there already, and are left out."""
    broken_before: bool = False
    """What lay before it in its table is damaged and left out: nothing continues over that."""
    broken_after: bool = False
    """What lay behind it is."""


@dataclass(frozen=True, slots=True)
class Survey:
    """The parts of one table and symbol."""

    lanes: tuple[tuple[Piece, ...], ...]
    """Pieces in the order of everything; more than one lane where dates interleave."""
    rows: dict[str, int]
    """Rows by UTC date, as the footers say."""
    is_damaged: bool


def open_file(path: Path, words: Sequence[str] = ()) -> pq.ParquetFile:
    """Open a published file; ``words`` are columns to be read as dictionaries. The one place that does."""
    return pq.ParquetFile(**stores.source(path), read_dictionary=list(words), pre_buffer=True)


def foreign_files(root: stores.Place, exchange: str | None) -> Iterator[stores.Place]:
    """Yield the files below the tables that only somebody else can have put there."""
    for table in TABLES:
        for name in (table, f"{table}-wide"):
            below = root / name if exchange is None else root / name / f"exchange={exchange}"
            for path in stores.files_below(below):
                depth = len(path.relative_to(root / name).parts)
                if depth != 4 or not is_part_name(path.name):
                    yield path


def survey(
    root: stores.Place,
    table: str,
    exchange: str,
    symbol: str,
    findings: Findings,
    *,
    ranks: dict[str, int] | None = None,
    last_date: str | None = None,
    sessions: frozenset[str] | None = None,
) -> Survey:
    """Check names, footers and schemas of the parts of a table; return what can be streamed of them.

    ``ranks`` puts the sessions in order. ``last_date`` and ``sessions`` leave out others.
    """
    parts = [
        part
        for part in list_parts(root, table, exchange=exchange, symbol=symbol, foreign=[])
        if (last_date is None or part.partition.date <= last_date)
        and (sessions is None or part.session in sessions or part.session == "compacted")
    ]
    ranks = ranks or {}
    parts.sort(key=lambda part: ranks.get(part.session, 0))  # stable: list_parts put the rest in order
    problems: dict[Path, str | None] = {}
    lanes: list[list[Piece]] = []
    ends: list[dict[str, int]] = []
    days: dict[tuple[str, str], Piece] = {}
    rows: dict[str, int] = {}
    is_damaged = is_broken = False
    latest = 0
    for part in parts:
        if part.path not in problems:
            problems[part.path] = _problem(part, findings.of(part.partition.date))
        if problems[part.path] is not None:
            is_damaged = is_broken = True
            if lanes:  # what it carried on ends here
                lanes[latest][-1] = replace(lanes[latest][-1], broken_after=True)
            continue
        piece = _piece(part, broken_before=is_broken)
        is_broken = False
        rows[part.partition.date] = rows.get(part.partition.date, 0) + piece.rows
        if not piece.rows:
            continue
        piece = _without_known(piece, part, days, findings)
        if piece.after >= piece.last_frame:
            continue
        latest = _lane(piece, part, lanes, ends, findings)
        lanes[latest].append(piece)
        ends[latest][part.session] = piece.last_frame
    return Survey(tuple(tuple(_fused(lane)) for lane in lanes), rows, is_damaged)


def _piece(part: Part, *, broken_before: bool) -> Piece:
    stretches = stretches_of(part)
    return Piece(
        part.path,
        part.partition,
        (part.session,),
        part.offset,
        sum(stretch.rows for stretch in stretches),
        stretches[0].first_frame if stretches else 0,
        max((stretch.last_frame for stretch in stretches), default=LAST_FRAME),
        broken_before=broken_before,
    )


def _without_known(piece: Piece, part: Part, days: dict[tuple[str, str], Piece], findings: Findings) -> Piece:
    """Return a piece less the rows that stand in another already, with a finding where there are some.

    Parts of one session and date follow one another by frame; ``days`` holds the furthest of each.
    """
    key = (part.session, piece.partition.date)
    last = days.get(key)
    if last is not None and last.last_frame >= piece.first_frame and not _straddles(piece, last.last_frame):
        findings.of(piece.partition.date).add(
            "error",
            "order",
            f"{piece.path}: begins at frame {piece.first_frame} of its session, though {last.path.name} "
            f"before it ends at {last.last_frame}: rows stand twice; those up to there are left out",
            Place(session=part.session, frame=piece.first_frame, file=str(piece.path), row=piece.offset),
            table=part.partition.table,
        )
        piece = replace(piece, after=last.last_frame)
    if last is None or piece.last_frame > last.last_frame:
        days[key] = piece
    return piece


def _straddles(piece: Piece, end: int) -> bool:
    """Tell whether a piece begins within the message that another ends with."""
    return piece.first_frame == end < piece.last_frame


def _lane(
    piece: Piece, part: Part, lanes: list[list[Piece]], ends: list[dict[str, int]], findings: Findings
) -> int:
    """Return the lane that a piece continues, a new one where it continues none.

    Where a receive clock stepped back over midnight, parts of two dates interleave.
    """
    session = part.session
    for lane, own in enumerate(lanes):
        end = ends[lane].get(session, -1)
        if end < max(piece.first_frame, piece.after + 1):
            return lane
        if _straddles(piece, end):
            findings.of(piece.partition.date).add(
                "error",
                "message",
                f"{piece.path}: begins with frame {piece.first_frame}, which {own[-1].path.name} before it "
                "ends with: who reads file by file sees half a message",
                Place(session=session, frame=piece.first_frame, file=str(piece.path), row=piece.offset),
                table=part.partition.table,
            )
            return lane
    lanes.append([])
    ends.append({})
    return len(lanes) - 1


def _fused(lane: Sequence[Piece]) -> Iterator[Piece]:
    """Join the pieces that lie behind one another in one file: a compacted day is read in one go."""
    joined: Piece | None = None
    for piece in lane:
        if (
            joined is not None
            and joined.path == piece.path
            and joined.offset + joined.rows == piece.offset
            and not piece.broken_before
            and not joined.broken_after
            and piece.after == joined.after == -1
        ):
            joined = replace(
                joined,
                sessions=tuple(dict.fromkeys((*joined.sessions, *piece.sessions))),
                rows=joined.rows + piece.rows,
                last_frame=piece.last_frame,
                broken_after=piece.broken_after,
            )
            continue
        if joined is not None:
            yield joined
        joined = piece
    if joined is not None:
        yield joined


def _problem(part: Part, findings: Findings) -> str | None:
    """Tell what is wrong with a file; None: it can be streamed."""
    table = part.partition.table
    place = Place(session=None if part.session == "compacted" else part.session, file=str(part.path))
    size = stores.size_of(part.path)
    if size == 0:
        sentence = (
            "is empty (0 bytes), expected a Parquet file: its rows are lost unless its capture was kept"
        )
        findings.add("error", "file", f"{part.path}: {sentence}", place, table=table)
        return "file"
    try:
        with open_file(part.path) as file:
            found, facts = file.schema_arrow, file.metadata.metadata or {}
        expected = arrow_schema(table, wide=part.partition.wide)
        if not found.remove_metadata().equals(expected):
            wrong = "; ".join(_differences(expected, found))
            findings.add(
                "error", "schema", f"{part.path}: is not of schema version 1: {wrong}", place, table=table
            )
            if any(field not in [*found] for field in expected):
                return "schema"
        stretches_of(part)
    except FileNotFoundError as error:
        raise ReplacedError(f"{part.path}: was replaced since it was listed; read again") from error
    except (pa.ArrowException, OSError, DatasetError, ValueError, AttributeError) as error:
        findings.add(
            "error",
            "file",
            f"{part.path}: cannot be read as Parquet ({size} bytes: {_brief(error)}); its rows are left out, "
            f"and what they carried on is broken there",
            place,
            table=table,
        )
        return "file"
    return _stranger(part, facts, place, findings)


def _stranger(part: Part, facts: dict[bytes, bytes], place: Place, findings: Findings) -> str | None:
    """Tell a file that says of itself that it is of another exchange or symbol than its path."""
    own = part.partition
    for key, expected in (("exchange", own.exchange), ("symbol", own.symbol)):
        said = facts.get(f"mmdata.{key}".encode(), expected.encode()).decode(errors="replace")
        if said != expected:
            findings.add(
                "error",
                "partition",
                f"{part.path}: says that its {key} is {said}, its path says {expected}: its rows are left "
                "out",
                place,
                table=own.table,
            )
            return "partition"
    return None


def _differences(expected: pa.Schema, found: pa.Schema) -> list[str]:
    wrong = []
    for field in expected:
        at = found.get_field_index(field.name)
        if at < 0:
            wrong.append(f"column {field.name} is missing")
        elif not found.field(at).equals(field):
            wrong.append(f"{found.field(at)} in place of {field}")
    wrong += [f"a further column {name}" for name in found.names if name not in expected.names]
    return wrong or ["its columns stand in another order"]


def _brief(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
