"""The test build of the recorder at work on both venues, and what must hold of what it left."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mmdata.datasets.layout import list_parts
from mmdata.datasets.schema import TABLES
from mmdata.recorder.capture import FRAME, Segment, read_segment
from mmdata.recorder.ingest import Ingest, IngestReport
from mmdata.sandbox.truth import SentFrame
from tests.crash.board import VENUES, Board
from tests.integration.conftest import (
    ENVIRONMENT,
    REPOSITORY,
    RunningSandbox,
    mmdata_command,
    running_sandbox,
    write_job,
)
from tests.sent import kept_segments, numbered_lines, sent_frames

SYMBOLS = {"binance": ["BTCUSDT", "ETHUSDT"], "okx": ["BTC-USDT", "ETH-USDT"]}
PACE = 2.6
"""At which the made market has 2,000 messages a second."""
_BUILD = Path(__file__).parent / "build"
_PATIENCE_S = 30.0


@dataclass
class Recording:
    """A recorder that runs, and everything that is known of it from outside."""

    process: subprocess.Popen[str]
    board: Board
    root: Path
    sandbox: RunningSandbox
    waited: list[tuple[float, int]] = field(default_factory=list)

    @property
    def pid(self) -> int:
        """Process id of the recorder."""
        return self.process.pid

    @property
    def ingest_pid(self) -> int:
        """Process id of the recorder's ingest child."""
        [child] = self.children()
        return child

    def children(self) -> list[int]:
        """Return the recorder's child processes."""
        told = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii")
        return [int(pid) for pid in told.split()]

    def wait_until(self, holds: Callable[[], object], what: str) -> None:
        """Return as soon as something holds; AssertionError when the recorder ends before, or never does."""
        deadline = time.monotonic() + _PATIENCE_S
        while not holds():
            assert self.process.poll() is None, (
                f"the recorder ended before {what}: {self.process.communicate()}"
            )
            assert time.monotonic() < deadline, f"{what}: never, in {_PATIENCE_S:.0f} s"
            self.sleep(0.0005)

    def sleep(self, seconds: float) -> None:
        """Sleep, and note meanwhile how long the recorder has waited for a processor in all."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until or not self.waited:
            if not self.waited or now - self.waited[-1][0] > 0.1:
                self.waited.append((now, waited_for_processor_ns(self.pid)))
            time.sleep(min(0.05, max(0.0, until - now)))

    def starved_ns(self) -> int:
        """Return how long the recorder has waited for a processor in the last second: its host's fault."""
        now = time.monotonic()
        before = [waited for at, waited in self.waited if at < now - 1.0]
        return waited_for_processor_ns(self.pid) - (before[-1] if before else 0)

    def wait_for_frames(self, count: int = 1) -> None:
        """Wait until every venue has handed over so many frames."""
        self.wait_until(
            lambda: all(sum(self.board.handed_over(venue)) >= count for venue in VENUES), f"{count} frames"
        )


def waited_for_processor_ns(pid: int) -> int:
    """Return how long a process (a zombie, too) could have run and was not let; 0 where nobody tells."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text(encoding="ascii").split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0


@contextmanager
def recording(
    folder: Path, market: list[Path], *, wrap: tuple[str, ...] = (), **job: Any
) -> Iterator[Recording]:
    """Record both venues of a sandbox of its own that plays ``market``, until the block ends.

    ``wrap``: the words of a command that runs the recorder, such as strace's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    captures = [str(path) for path in market]
    root = Path(job.pop("root", folder / "data"))
    with running_sandbox(folder / "truth", captures=captures, pace=PACE) as sandbox:
        venues = [sandbox.venue(venue, symbols) for venue, symbols in SYMBOLS.items()]
        told = {"root": str(root), "venues": venues, "segment": {"seconds": "1s", "bytes": "64MiB"}} | job
        path = write_job(folder / "job.yaml", **told)
        board = Board(folder / "board")
        process = subprocess.Popen(
            [*wrap, *mmdata_command("record", path, "--json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=test_build(folder / "board"),
        )
        favour(sandbox.pid)
        favour(process.pid)
        try:
            yield Recording(process, board, root, sandbox)
        finally:
            if process.poll() is None:
                process.kill()
            process.communicate()
            board.close()


def favour(pid: int) -> None:
    """Let a process, but not its children, run before all others where one may.

    So that on a crowded machine, too, what is found is the recorder's doing.
    """
    with suppress(PermissionError):
        os.sched_setscheduler(pid, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))


def test_build(board: Path) -> dict[str, str]:
    """Return the environment in which Python runs the test build, with this board."""
    paths = (str(_BUILD), str(REPOSITORY), ENVIRONMENT["PYTHONPATH"])
    return ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(paths), "CRASH_BOARD": str(board)}


def has_ended(pid: int) -> bool:
    """Tell whether a process is gone, or only waits for somebody to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@dataclass
class Found:
    """What a recording holds, and how far it falls short of what was sent."""

    lines: int = 0
    recorded: int = 0
    missing: int = 0
    """Frames that were sent and are not there: the end of each connection."""
    oldest_missing_ns: int | None = None
    behind_counter: int = 0
    """The most by which a connection's recorded frames fall short of those handed over."""
    rows: dict[str, int] = field(default_factory=dict)


def check_recording(root: Path, truth: Path, board: Board, scratch: Path) -> Found:
    """Compare what was recorded with what was sent and with what was handed over, and the tables with both.

    AssertionError: a hole, a repeat, a frame that was never sent; a table that cannot be read, lacks a row
    or has one twice; lines that are not accounted for. ``scratch``: a folder for a second dataset.
    """
    found = Found()
    sent = sent_frames(truth)
    report = IngestReport()
    for venue in VENUES:
        segments = kept_segments(root, venue)
        recorded = recorded_frames(segments, found)
        counted = board.handed_over(venue)
        connections = sent.get(venue, [])
        assert len(recorded) <= len(counted) <= len(connections), (venue, len(recorded), len(counted))
        recorded += [[] for _ in range(len(connections) - len(recorded))]
        for frames, told in zip(recorded, connections, strict=True):
            check_prefix(frames, told, venue)
            found.recorded += len(frames)
            if len(frames) < len(told):
                found.missing += len(told) - len(frames)
                oldest = told[len(frames)].ts
                found.oldest_missing_ns = min(oldest, found.oldest_missing_ns or oldest)
        for frames, count in zip(recorded, counted, strict=False):
            found.behind_counter = max(found.behind_counter, count - len(frames))
        report.add(ingest_at_once(segments, scratch))
    report.check()
    assert report.lines == found.lines
    compare_tables(root, scratch, found)
    return found


def ingest_at_once(segments: list[Segment], scratch: Path) -> IngestReport:
    """Ingest the captures of a venue into an empty dataset, each session in one go."""
    report = IngestReport()
    for _, own in groupby(segments, key=lambda segment: segment.header.session):
        first, *others = own
        ingest = Ingest(scratch, first.header.exchange, first.header.session, {}, first.header.grid)
        for segment in (first, *others):
            for line in read_segment(segment.path).lines:
                ingest.take(line)
        ingest.flush()
        report.add(ingest.report)
    return report


def check_prefix(frames: list[bytes], told: list[SentFrame], venue: str) -> None:
    """Raise AssertionError unless the frames recorded are the first of those sent, in order."""
    assert len(frames) <= len(told), f"{venue}: {len(frames)} frames are recorded of {len(told)} sent"
    for at, (frame, line) in enumerate(zip(frames, told, strict=False)):
        assert frame == line.frame.encode(), f"{venue}: frame {at} is {frame!r}, sent was {line.frame!r}"


def recorded_frames(segments: list[Segment], found: Found) -> list[list[bytes]]:
    """Return the frames of each connection; AssertionError when a line is torn, or a number missing."""
    frames: dict[int, list[bytes]] = {}
    for line in numbered_lines(segments):
        found.lines += 1
        if line.kind == FRAME:
            assert line.conn is not None
            frames.setdefault(line.conn, []).append(line.payload)
    return [frames.get(conn, []) for conn in range(max(frames, default=-1) + 1)]


def compare_tables(root: Path, reference: Path, found: Found) -> None:
    """Raise AssertionError unless both datasets hold the same rows in the same order."""
    for table in TABLES:
        here, there = table_rows(root, table), table_rows(reference, table)
        assert here.keys() == there.keys(), (table, here.keys() ^ there.keys())
        for key, rows in here.items():
            assert rows.equals(there[key]), (
                f"{table} of {key}: {rows.num_rows} rows, {there[key].num_rows} in captures"
            )
            found.rows[table] = found.rows.get(table, 0) + rows.num_rows


def table_rows(root: Path, table: str) -> dict[tuple[str, str, bool], pa.Table]:
    """Return a table's rows by exchange, symbol and width, without what a file says of itself."""
    parts: dict[tuple[str, str, bool], list[pa.Table]] = {}
    for part in list_parts(root, table):
        key = (part.partition.exchange, part.partition.symbol, part.partition.wide)
        rows = pq.read_table(part.path, partitioning=None)
        parts.setdefault(key, []).append(rows.replace_schema_metadata(None))
    return {key: pa.concat_tables(own) for key, own in parts.items()}
