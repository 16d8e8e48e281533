"""Ingest in a process of its own: the event loop of the recorder never waits for it.

The parent writes one JSON line a task to the child's stdin and reads one JSON line an outcome from its
stdout. The child ends at once when its stdin closes, mid-segment too: it does not outlive a recorder that
was killed. A child that is killed is started again, and what it was at is done again. A child that has
worked for some minutes is replaced between two tasks: what allocators keep of each segment does not add up
over a day.
``python -m mmdata.recorder.ingest_process`` is the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mmdata.datasets.errors import DiskError, MmdataError
from mmdata.recorder.capture import held_back

if TYPE_CHECKING:
    from mmdata.recorder.config import Job

_log = logging.getLogger(__name__)

_LONGEST_ANSWER = 1 << 24
_MOST_WARNINGS = 20  # of a recovery; more of the same help nobody
_NICE = 5  # where both want the same core, the recorder comes first
_LIFE_S = 600.0  # of a child; a new one costs about a second of one core
_ATTEMPTS = 3  # at one task: a child that dies over it each time would do so for ever


class Task(msgspec.Struct, omit_defaults=True):
    """What the child is to do: finish a segment; care for days (certify, compact, remove); else recover."""

    root: str
    exchange: str
    keep: bool
    path: str | None = None
    """The segment to finish."""
    symbols: list[str] = []
    """The symbols to compact."""
    before: str = ""
    """Their days before this UTC date; of a job whose old days are to be removed: today."""
    job: dict[str, Any] = {}
    """The job whose old days are to be removed, as plain values."""
    certify: bool = False
    """Certify what was ingested."""

    @property
    def where(self) -> str:
        """What the task is at, for sentences."""
        what = "days" if self.before else "certificates" if self.certify else "captures"
        return self.path or f"{what} of {self.exchange}"


class Outcome(msgspec.Struct, omit_defaults=True):
    """What came of a task."""

    segments: int = 0
    rows: dict[str, int] = {}
    quarantined: int = 0
    compacted: int = 0
    removed: list[str] = []
    """Folders of days that were older than the job keeps."""
    certified: int = 0
    warnings: list[str] = []
    error: str | None = None
    """The sentence of what went wrong; the segment stays for the next start."""
    exit_code: int = 0
    """Of the error: 4 the disk's, 70 a bug of ours."""


@dataclass
class Tally:
    """What ingest did for one exchange."""

    rows: dict[str, int] = field(default_factory=dict)
    quarantined: int = 0
    pending: int = 0


class IngestProcess:
    """The parent's side: tasks go in without waiting, `drain` waits for what is under way."""

    def __init__(self, root: Path, *, keep: bool, life_s: float = _LIFE_S) -> None:
        """``life_s``: how long a child works before another takes the next task."""
        self._root = str(root)
        self._keep = keep
        self._life_s = life_s
        self._tasks: asyncio.Queue[tuple[Task, asyncio.Future[Outcome]]] = asyncio.Queue()
        self._open: dict[asyncio.Future[Outcome], str] = {}
        self.tallies: dict[str, Tally] = {}
        self.warnings: list[str] = []
        self._busy = False
        self._failed: set[Path] = set()
        """Folders of sessions of which a segment could not be ingested."""
        self.error: MmdataError | None = None
        """The first error that ends the job with its exit code: of the disk, or a bug of ours."""

    async def __aenter__(self) -> IngestProcess:
        await self._start()
        self._worker = asyncio.create_task(self._work())
        return self

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._child.pid

    async def _start(self) -> None:
        self._child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "mmdata.recorder.ingest_process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal is the parent's to handle
            limit=_LONGEST_ANSWER,
        )
        self._started = time.monotonic()

    async def __aexit__(self, *error: object) -> None:
        self._worker.cancel()
        if self._child.returncode is None:
            if self._open or self._busy:
                self._child.kill()  # mid-segment is as good as a crash: the next start does it again
                await self._child.wait()
            else:
                await self._dismiss()

    async def _dismiss(self) -> None:
        """End the child, which has nothing to do."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        await self._child.wait()

    async def recover(self, exchange: str) -> Outcome:
        """Ingest what earlier runs left of ``exchange``. DiskError: the disk failed."""
        outcome = await self._submit(Task(self._root, exchange, self._keep))
        if outcome.exit_code == DiskError.exit_code:
            raise DiskError(outcome.error or "")
        self._remember(outcome)
        return outcome

    def submit(self, exchange: str, path: Path) -> None:
        """Have a closed segment ingested."""
        self.tallies.setdefault(exchange, Tally()).pending += 1
        future = self._submit(Task(self._root, exchange, self._keep, str(path)))
        self._open[future] = exchange
        future.add_done_callback(self._settle)

    async def compact(self, exchange: str, symbols: Sequence[str], before: str) -> Outcome:
        """Compact the days before ``before``, a UTC date, of symbols; what fails is told in the outcome."""
        return await self._submit(Task(self._root, exchange, self._keep, symbols=[*symbols], before=before))

    async def retain(self, job: Job, today: str) -> Outcome:
        """Remove what is older than ``job`` keeps on ``today``, a UTC date; what fails is in the outcome.

        Call it with the locks of the job's exchanges held.
        """
        exchanges = " and ".join(venue.exchange for venue in job.venues)
        plain = msgspec.to_builtins(job)
        return await self._submit(Task(self._root, exchanges, self._keep, before=today, job=plain))

    async def certify(self, exchange: str) -> Outcome:
        """Certify the days that something was ingested of; what fails is told in the outcome."""
        return await self._submit(Task(self._root, exchange, self._keep, certify=True))

    async def drain(self, limit_s: float | None) -> None:
        """Wait until everything is ingested, at most so long; the rest is done at the next start."""
        if self._open:
            await asyncio.wait([*self._open], timeout=limit_s)

    @property
    def is_drained(self) -> bool:
        """Whether no closed segment waits for its ingest."""
        return not self._open

    def _submit(self, task: Task) -> asyncio.Future[Outcome]:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._tasks.put_nowait((task, future))
        return future

    async def _work(self) -> None:
        while True:
            task, future = await self._tasks.get()
            self._busy = True
            outcome = await self._do(task)
            self._busy = False
            if not future.done():
                future.set_result(outcome)

    async def _do(self, task: Task) -> Outcome:
        """Have the child do a task, and a new one do it again when it dies over it."""
        session = None if task.path is None else Path(task.path).parent
        if session in self._failed:
            return Outcome(error=held_back(Path(task.where)))
        outcome = await self._attempt(task)
        if session is not None and outcome.error is not None:
            self._failed.add(session)
        return outcome

    async def _attempt(self, task: Task) -> Outcome:
        if time.monotonic() - self._started > self._life_s:
            await self._dismiss()
            await self._start()
        for attempt in range(1, _ATTEMPTS + 1):
            answer = await self._ask(task)
            if answer.endswith(b"\n"):
                return msgspec.json.decode(answer, type=Outcome)
            status = await self._child.wait()
            _log.warning(
                "%s: the ingest process died over it (status %d, attempt %d)", task.where, status, attempt
            )
            await self._start()  # what comes next is not held up
        died = f"{task.where}: the ingest process died over it {_ATTEMPTS} times; it stays, and the next"
        return Outcome(error=f"{died} start tries again", exit_code=MmdataError.exit_code)

    async def _ask(self, task: Task) -> bytes:
        """Return the child's answer to a task; nothing when it has died."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.stdin.write(msgspec.json.encode(task) + b"\n")
            await self._child.stdin.drain()
            return await self._child.stdout.readline()
        except (BrokenPipeError, ConnectionResetError):
            return b""

    def _settle(self, future: asyncio.Future[Outcome]) -> None:
        exchange = self._open.pop(future)
        if future.cancelled():
            return
        outcome, tally = future.result(), self.tallies[exchange]
        self.warnings += outcome.warnings
        if outcome.error is not None:
            _log.warning("%s", outcome.error)
            self.warnings.append(outcome.error)
            self._remember(outcome)
            return
        tally.pending -= 1
        tally.quarantined += outcome.quarantined
        for table, rows in outcome.rows.items():
            tally.rows[table] = tally.rows.get(table, 0) + rows

    def _remember(self, outcome: Outcome) -> None:
        """Keep an error that must end the job with its exit code; the disk's before any other."""
        kind = {DiskError.exit_code: DiskError, MmdataError.exit_code: MmdataError}.get(outcome.exit_code)
        if kind is not None and not isinstance(self.error, DiskError):
            self.error = kind(outcome.error or "")


def main() -> None:
    """Do the tasks on stdin, one a line, until it closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(_NICE)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints gets between the answers
    tasks: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read_tasks, args=(tasks,), daemon=True).start()
    while True:
        outcome = _do(msgspec.json.decode(tasks.get(), type=Task))
        answers.write(msgspec.json.encode(outcome) + b"\n")
        answers.flush()
        _give_back_memory()


def _give_back_memory() -> None:
    """Return to the system what a task took: this process lives as long as its recorder."""
    import pyarrow as pa

    gc.collect()
    pa.default_memory_pool().release_unused()
    with contextlib.suppress(OSError, AttributeError):  # another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def _read_tasks(tasks: queue.SimpleQueue[bytes]) -> None:
    """Pass on what stdin says; end the process when it closes: its parent is gone, or has no more to do.

    Mid-segment is as good as a crash: the next start does it again.
    """
    with os.fdopen(os.dup(0), "rb") as stdin:
        for line in stdin:
            tasks.put(line)
    os._exit(0)


def _do(task: Task) -> Outcome:
    """Do a task."""
    try:
        if task.job:
            return _retain(task)
        if task.symbols:
            return _compact(task)
        return _certify(task) if task.certify else _ingest(task)
    except MmdataError as error:
        return Outcome(error=str(error), exit_code=error.exit_code)
    except Exception:  # noqa: BLE001 one segment must not end the ingest of the others
        said = f"{task.where}: is not done, by a bug in mmdata; it stays. {traceback.format_exc()}"
        return Outcome(error=said, exit_code=MmdataError.exit_code)


def _ingest(task: Task) -> Outcome:
    from mmdata.recorder.segments import finish_segment, recover

    root = Path(task.root)
    if task.path is None:
        report, done = recover(root, task.exchange, keep=task.keep)
        segments = len(done)
    else:
        report, segments = finish_segment(root, Path(task.path), keep=task.keep), 1
    told = [*report.failures, *report.warnings]
    return Outcome(segments, dict(report.rows), report.quarantined, warnings=told[:_MOST_WARNINGS])


def _compact(task: Task) -> Outcome:
    from mmdata.datasets.compaction import compact

    outcome = Outcome()
    for symbol in task.symbols:
        report = compact(
            Path(task.root), exchange=task.exchange, symbol=symbol, before=task.before, wait=True
        )
        outcome.compacted += len(report.done)
        outcome.warnings += [*report.skipped, *report.failures]
    return outcome


def _retain(task: Task) -> Outcome:
    from mmdata.recorder.config import Job
    from mmdata.recorder.retention import carry_out, plan

    job = msgspec.convert(task.job, Job)
    found = plan(job, date.fromisoformat(task.before))
    outcome = Outcome()
    try:
        carry_out(job, found)
    except DiskError as error:
        outcome.error = str(error)
    outcome.removed = [str(path) for path in (*found.partitions, *found.captures) if not path.exists()]
    return outcome


def _certify(task: Task) -> Outcome:
    from mmdata.datasets.certificate import certify_ingested

    report = certify_ingested(Path(task.root), task.exchange)
    told = [*report.failures, *report.warnings, *report.skipped]
    return Outcome(certified=len(report.done), warnings=told[:_MOST_WARNINGS])


if __name__ == "__main__":
    main()
