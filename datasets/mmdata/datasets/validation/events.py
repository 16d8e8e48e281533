"""What the recorder noted: sessions, windows, holes, clocks; as plain objects in order."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmdata.datasets.chain import NO_ID
from mmdata.datasets.errors import UsageError
from mmdata.datasets.market import FRAME_BITS
from mmdata.datasets.times import to_ns
from mmdata.datasets.validation.files import Piece
from mmdata.datasets.validation.findings import Findings, Place
from mmdata.datasets.validation.streams import batches

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Event:
    """A row of the table `events`."""

    session: str
    frame: int
    ts_recv: int
    kind: str
    conn: int | None
    channel: str | None
    last_id: int | None
    next_id: int | None
    detail: dict[str, Any]
    file: str
    row: int

    @property
    def is_covered(self) -> bool:
        """Messages are missing, but the snapshot that the book began with holds them: it stays valid."""
        return self.detail.get("book") == "covered"

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.session, self.frame, self.last_id, self.ts_recv, self.file, self.row)

    def order(self, ranks: dict[str, int]) -> int:
        """Return its place in the order of everything."""
        return ranks[self.session] << FRAME_BITS | self.frame


def table_rows(pieces: Sequence[Piece], table: str, findings: Findings) -> Iterator[dict[str, Any]]:
    """Yield the rows of a small table as dictionaries, with ``file`` and ``row``; times as ns."""
    from mmdata.datasets.schema import arrow_schema

    names = arrow_schema(table).names
    for piece in pieces:
        row = piece.offset
        try:
            for batch in batches(piece, names, 1 << 16):
                columns = [
                    batch.rows.column(name).cast(pa.int64()) if name == "ts_recv" else batch.rows.column(name)
                    for name in names
                ]
                for values in zip(*(column.to_pylist() for column in columns), strict=True):
                    yield dict(zip(names, values, strict=True)) | {"file": str(piece.path), "row": row}
                    row += 1
        except (pa.ArrowException, OSError) as error:
            findings.add(
                "error",
                "file",
                f"{piece.path}: cannot be read from row {row} on ({str(error)[:200]}); the rows from there "
                "are left out",
                Place(file=str(piece.path), row=row),
                table=table,
            )


def read_events(pieces: Sequence[Piece], findings: Findings) -> list[Event]:
    """Return the events of some pieces, in their order; a detail that is no JSON object is empty."""
    found = []
    for row in table_rows(pieces, "events", findings):
        try:
            detail = json.loads(row.pop("detail") or "{}")
        except ValueError:
            detail = {}
        found.append(Event(**row, detail=detail if isinstance(detail, dict) else {}))
    return found


@dataclass
class Clock:
    """The venue's clock minus ours as it was measured, by place in time; ns."""

    times: Ints
    offsets: Ints
    uncertainties: Ints

    @staticmethod
    def of(events: Sequence[Event]) -> Clock:
        """Return what `clock` events measured, in order of time."""
        rows = sorted(
            (event.ts_recv, int(event.detail["offset_ns"]), int(event.detail.get("uncertainty_ns", 0)))
            for event in events
            if event.kind == "clock" and "offset_ns" in event.detail
        )
        table = np.array(rows, np.int64).reshape(len(rows), 3)
        return Clock(table[:, 0], table[:, 1], table[:, 2])

    def __len__(self) -> int:
        return len(self.times)

    def at(self, times: Ints) -> Ints:
        """Return the offset at each time: between two measurements on the line through both."""
        base = int(self.times[0])
        line = np.interp((times - base).astype(float), (self.times - base).astype(float), self.offsets)
        return np.asarray(line, np.int64)

    def between(self, begin: int, end: int) -> Clock:
        """Return what was measured in ``begin:end``."""
        own = (self.times >= begin) & (self.times < end)
        return Clock(self.times[own], self.offsets[own], self.uncertainties[own])


@dataclass
class SessionFacts:
    """What the events of an exchange say of one session."""

    ended: bool = False
    torn: bool = False
    began: bool = False
    events: list[Event] = field(default_factory=list)


def sessions_of(events: Sequence[Event]) -> dict[str, SessionFacts]:
    """Return the events by session, and how each began and ended."""
    found: dict[str, SessionFacts] = {}
    for event in events:
        facts = found.setdefault(event.session, SessionFacts())
        facts.events.append(event)
        facts.ended = facts.ended or event.kind == "session_end"
        facts.began = facts.began or event.kind == "session_start"
        facts.torn = facts.torn or event.kind == "torn"
    return found


def contradictions(facts: SessionFacts) -> Iterator[tuple[Event, str]]:
    """Yield the events of a session that cannot follow those before them."""
    live: set[int] = set()
    ended = False
    for event in facts.events:
        if ended and event.kind in ("connected", "disconnected", "session_start"):
            yield event, f"{event.kind} after the session's end"
        if event.kind == "connected" and event.conn is not None:
            if event.conn in live:
                yield event, f"connection {event.conn} connects, though it is connected already"
            live.add(event.conn)
        elif event.kind == "disconnected" and event.conn is not None:
            if event.conn not in live:
                yield event, f"connection {event.conn} ends, though it is not connected"
            live.discard(event.conn)
        elif event.kind == "session_end":
            if ended:
                yield event, "the session ends twice"
            ended = True


def windows(events: Sequence[Event]) -> list[tuple[int, int]]:
    """Return the trading windows on record, begin and end in ns, each once."""
    found = set()
    for event in events:
        if event.kind == "window_open":
            try:
                found.add((to_ns(event.detail["start"]), to_ns(event.detail["end"])))
            except (KeyError, UsageError, AttributeError):
                continue
    return sorted(found)


def id_or_none(value: int) -> int | None:
    """Return an id, None for NO_ID."""
    return None if value == NO_ID else value
