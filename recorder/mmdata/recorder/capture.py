"""The capture file: one line per frame as it came. Grammar in ``docs/capture.md``.

Pure parts (`format_*`, `parse_line`) and two thin shells: `CaptureWriter` appends to segments,
`read_segment` reads one. Nothing is decoded here, so a frame that nobody understands is never lost.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import msgspec.structs

from mmdata.datasets.disk import sync_folder
from mmdata.datasets.errors import DiskError, UsageError
from mmdata.recorder.blocks import SIZE, WholeLines
from mmdata.recorder.merge import MergeState
from mmdata.recorder.records import Id, Small

VERSION = 1
OPEN, CLOSED, KEPT = ".open", ".cap", ".cap.zst"
_MAGIC = b"# mmdata-capture "
_LONGEST_TAG = 10  # a connection's number fits 32 bits

# What a line holds.
FRAME, SENT, REST, EVENT, DAMAGED = "frame", "sent", "rest", "event", "damaged"


class Line(NamedTuple):
    """One line of a capture; ``number`` is its ordinal in the session, header lines not counted."""

    number: int
    kind: str
    ts_recv: int
    conn: int | None
    payload: bytes
    """The frame's own bytes, or the JSON of a REST answer or an event; of a damaged line, all of it."""


class Header(msgspec.Struct, frozen=True, omit_defaults=True):
    """First line of every segment: enough to ingest the segment alone."""

    session: str
    exchange: str
    segment: int
    first_frame: int
    """Number of the segment's first line in its session."""
    started: int
    """Wall clock at the session's start, ns since the epoch."""
    monotonic: int
    """The monotonic clock at the same moment, ns."""
    version: str
    """Of mmdata."""
    host: str
    config: str
    """First 12 hex digits of the sha256 of the effective configuration."""
    urls: dict[str, str] = {}
    time_unit: str = "ms"
    grid: dict[str, tuple[str, str]] = {}
    """Tick and lot size by symbol, as far as they were known when the segment began."""
    merges: dict[str, MergeState] = {}
    """By chain (`merge.chain_name`): where the merge of the connections stood when the segment began."""


class RestAnswer(msgspec.Struct):
    """A REST answer, errors too; ``purpose`` and ``reason`` say what was asked for and why."""

    t0: Id
    url: str
    status: int
    headers: dict[str, str]
    body: str
    purpose: str | None = None
    symbol: str | None = None
    reason: str | None = None
    kind: str | None = None
    """Of a backfill: kind of trades, and the first and last id that were missing."""
    first_id: Id | None = None
    last_id: Id | None = None


class Event(msgspec.Struct, omit_defaults=True):
    """What the recorder did or noticed: a row of the table `events`."""

    kind: str
    conn: Small | None = None
    channel: str | None = None
    symbol: str | None = None
    last_id: Id | None = None
    next_id: Id | None = None
    detail: dict[str, Any] = {}


def format_frame(ts_recv: int, conn: int, frame: bytes, *, is_text: bool) -> bytes:
    r"""Return a received frame as a line; base64 for what would not stand as one line of UTF-8.

    >>> format_frame(1, 0, b'{"a":1}', is_text=True)
    b'1 0 {"a":1}\n'
    """
    if is_text and not _needs_base64(frame):
        return b"%d %d %s\n" % (ts_recv, conn, frame)
    return b"%d %db %s\n" % (ts_recv, conn, base64.b64encode(frame))


def format_frames(ts_recv: int, conn: int, frames: list[bytes], *, is_text: bool) -> bytes:
    r"""Return frames that came at once as lines, one each.

    >>> format_frames(1, 0, [b"[]", b"{}"], is_text=True)
    b'1 0 []\n1 0 {}\n'
    """
    head = b"%d %d " % (ts_recv, conn)
    lines = head + (b"\n" + head).join(frames) + b"\n"
    if is_text and lines.isascii() and lines.count(b"\n") == len(frames):
        return lines
    return b"".join([format_frame(ts_recv, conn, frame, is_text=is_text) for frame in frames])


def _needs_base64(frame: bytes) -> bool:
    if b"\n" in frame:
        return True
    if frame.isascii():
        return False
    try:
        frame.decode()
    except UnicodeDecodeError:
        return True
    return False


def format_sent(ts: int, conn: int, frame: bytes) -> bytes:
    """Return a frame that we sent as a line."""
    return b"%d s%d %s\n" % (ts, conn, frame)


def format_rest(ts_recv: int, number: int, answer: RestAnswer) -> bytes:
    """Return REST answer ``number`` as a line."""
    return b"%d r%d %s\n" % (ts_recv, number, msgspec.json.encode(answer))


def format_event(ts: int, event: Event) -> bytes:
    """Return an event as a line."""
    return b"%d e %s\n" % (ts, msgspec.json.encode(event))


def parse_line(number: int, text: bytes) -> Line:
    """Return what a line (without its end) holds; a line outside the grammar is DAMAGED, never an error.

    >>> parse_line(7, b'12 s3 ping')
    Line(number=7, kind='sent', ts_recv=12, conn=3, payload=b'ping')
    """
    parts = text.split(b" ", 2)
    if len(parts) == 3:
        stamp, tag, payload = parts
        told = _read_tag(tag) if len(tag) <= _LONGEST_TAG else None
        if told is not None and stamp.isdigit() and len(stamp) <= 19 and int(stamp) < 2**63:
            kind, conn, is_packed = told
            if not is_packed:
                return Line(number, kind, int(stamp), conn, payload)
            with suppress(binascii.Error):
                return Line(number, kind, int(stamp), conn, base64.b64decode(payload, validate=True))
    return Line(number, DAMAGED, 0, None, text)


@lru_cache(64)
def _read_tag(tag: bytes) -> tuple[str, int | None, bool] | None:
    """Return what a line's second word says: its kind, its connection, whether base64 follows."""
    if tag.isdigit():
        return FRAME, int(tag), False
    if tag == b"e":
        return EVENT, None, False
    if tag[:1] == b"s" and tag[1:].isdigit():
        return SENT, int(tag[1:]), False
    if tag[:1] == b"r" and tag[1:].isdigit():
        return REST, None, False
    if tag[-1:] == b"b" and tag[:-1].isdigit():
        return FRAME, int(tag[:-1]), True
    return None


@dataclass(slots=True)
class Segment:
    """A segment on disk, being read: its header, its lines, and what is left out as torn."""

    path: Path
    header: Header
    torn: int = 0
    """Bytes behind the last whole line; known once the lines have been read."""

    @property
    def lines(self) -> Iterator[Line]:
        """Yield the whole lines, read a block at a time, however large the file. DiskError: it cannot be."""
        number = self.header.first_frame
        for text in self.texts():
            lines = text.split(b"\n")[:-1]
            yield from map(parse_line, range(number, number + len(lines)), lines)
            number += len(lines)

    def texts(self) -> Iterator[bytes]:
        """Yield the whole lines behind the header with their ends, many at once. DiskError: as above."""
        lines = WholeLines(_blocks(self.path))
        begin = True
        for text in lines:
            rest = text[text.index(b"\n") + 1 :] if begin else text
            begin = False
            if rest:
                yield rest
        self.torn = lines.rest


def read_segment(path: Path) -> Segment:
    """Read a segment, open, closed or compressed. A torn last line is not among the lines.

    UsageError: it is no capture of ours. DiskError: it cannot be read.
    """
    first = b""
    with closing(_blocks(path)) as blocks:
        for block in blocks:
            first += block
            if b"\n" in block:
                break
    return Segment(path, _header(path, first.partition(b"\n")[0]))


def _blocks(path: Path) -> Generator[bytes]:
    try:
        with _open_packed(path) if path.name.endswith(KEPT) else path.open("rb") as file:
            while block := file.read(SIZE):
                yield block
    except OSError as error:
        raise DiskError(f"{path}: cannot be read ({error}); it stays as it is") from error


def _open_packed(path: Path) -> Any:
    import pyarrow as pa

    return pa.input_stream(str(path), compression="zstd")


def _header(path: Path, first: bytes) -> Header:
    if not first.startswith(_MAGIC):
        raise UsageError(
            f"{path}: does not begin with '# mmdata-capture', so it is no capture of ours; another "
            f"recorder's files are read by naming their --format"
        )
    version, _, facts = first.removeprefix(_MAGIC).partition(b" ")
    if version != b"%d" % VERSION:
        raise UsageError(
            f"{path}: capture version {version.decode(errors='replace')}, this mmdata reads {VERSION}"
        )
    try:
        return msgspec.json.decode(facts, type=Header)
    except msgspec.MsgspecError as error:
        raise UsageError(f"{path}: the header line cannot be read: {error}") from error


def cut_torn_line(path: Path) -> int:
    """Cut an unfinished last line off an open segment; return how many bytes that were (0: none)."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        end = _end_of_last_line(file.fileno(), size)
        if end < size:
            file.truncate(end)
            os.fsync(file.fileno())
    return size - end


def _end_of_last_line(handle: int, size: int) -> int:
    block = 1 << 16
    at = size
    while at > 0:
        begin = max(0, at - block)
        found = os.pread(handle, at - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        at = begin
    return 0


def held_back(path: Path) -> str:
    """Return the sentence on a segment that must wait for an earlier one of its session."""
    return (
        f"{path}: is not ingested, since an earlier segment of its session could not be: its rows would "
        f"stand out of order; move the earlier one away to go on without it"
    )


@dataclass(frozen=True, slots=True)
class FinishedSegment:
    """A segment that nothing more is written to, still open."""

    path: Path
    handle: int

    def close(self) -> Path:
        """Sync, close and rename it to ``.cap``; return that path. DiskError: that failed; it stays."""
        try:
            try:
                os.fsync(self.handle)
            finally:
                os.close(self.handle)
            closed = self.path.with_suffix(CLOSED)
            self.path.rename(closed)
            sync_folder(self.path.parent)
        except OSError as error:
            raise DiskError(f"{self.path}: cannot be closed ({error}); it stays as it is") from error
        return closed


class CaptureWriter:
    """Appends lines to the segments of one session; every line is with the system when `write` returns.

    A line that does not fit on the disk is cut off again, so that a segment never holds half a line,
    and DiskError is raised. Segments are renamed from ``.open`` to ``.cap`` when they are closed.
    """

    def __init__(self, folder: Path, header: Header, *, seconds: float, size: int) -> None:
        self._folder = folder
        self._header = header
        self._limit = (seconds, size)
        self.next_frame = header.first_frame
        """Number that the next line gets."""
        self.grid: dict[str, tuple[str, str]] = dict(header.grid)
        self._begun_s: float | None = None
        self._size = 0
        self._handle = -1
        self._open()

    @property
    def path(self) -> Path:
        """The open segment."""
        return self._path

    @property
    def handle(self) -> int:
        """File descriptor of the open segment, for syncing it."""
        return self._handle

    def write(self, lines: bytes, count: int = 1) -> None:
        """Append whole lines, ``count`` of them. DiskError: not all of them found room; the others stand."""
        self._append(lines)
        self.next_frame += count

    def is_due(self, now_s: float) -> bool:
        """Tell whether the segment has reached its age or size; ``now_s`` is the monotonic clock."""
        if self._begun_s is None:
            self._begun_s = now_s
        seconds, size = self._limit
        return self._size >= size or now_s - self._begun_s >= seconds

    def rotate(self, merges: dict[str, MergeState] | None = None) -> FinishedSegment:
        """Go on in the next segment; what is returned must be closed, and may be in another thread."""
        finished = FinishedSegment(self._path, self._handle)
        self._handle = -1
        self._header = msgspec.structs.replace(
            self._header,
            segment=self._header.segment + 1,
            first_frame=self.next_frame,
            grid=self.grid,
            merges=merges or {},
        )
        try:
            self._open()
        except DiskError:
            finished.close()
            raise
        return finished

    def close(self) -> Path | None:
        """Sync and close the segment; return its path, now ``.cap``. None: it is closed already."""
        if self._handle < 0:
            return None
        handle, self._handle = self._handle, -1
        return FinishedSegment(self._path, handle).close()

    def _open(self) -> None:
        self._path = self._folder / f"{self._header.segment:06d}{OPEN}"
        self._begun_s = None
        self._size = 0
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
            self._handle = os.open(self._path, flags, 0o644)
            if self._header.segment == 0:  # a later one's name is synced when the one before is closed
                sync_folder(self._folder)
        except OSError as error:
            raise DiskError(f"{self._path}: cannot be made ({error}); nothing more is recorded") from error
        try:
            self._append(_MAGIC + b"%d %s\n" % (VERSION, msgspec.json.encode(self._header)))
        except DiskError:
            # A segment without its header says nothing, and would be asked about at every start.
            os.close(self._handle)
            self._handle = -1
            self._path.unlink(missing_ok=True)
            raise

    def _append(self, lines: bytes) -> None:
        written = 0
        try:
            written = os.write(self._handle, lines)
            if written == len(lines):
                self._size += written
                return
            problem: OSError | None = None
        except OSError as error:
            problem = error
        # A short write: what lies behind the last whole line would join the next line to itself.
        whole = lines[:written]
        self.next_frame += whole.count(b"\n")
        self._size += whole.rfind(b"\n") + 1
        os.ftruncate(self._handle, self._size)
        raise DiskError(
            f"{self._path}: the disk took only part of a line ({problem or 'no space left'}); it was cut "
            f"back to its last whole line, and recording ends; everything recorded before is kept"
        ) from problem
