"""`mmdata schedule`: many jobs, day after day, from one process; each recorder is a child of its own.

APScheduler says when a window opens; a `Supervisor` sees one job's recorder through it. A recorder that
dies is started again, and takes nothing with it. One recorder a job, whatever happens:

- The process was asleep or down when a window opened: the recorder starts as soon as it is back, if the
  window is still open.
- A recorder is still busy when its next window opens (a long ``on_end`` command): the opening waits for it.
- Somebody else holds the dataset's lock (a recorder whose scheduler was killed goes on): it is watched,
  and replaced when it ends inside the window.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import os
import random
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_MAX_INSTANCES, JobExecutionEvent, JobSubmissionEvent
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger

from mmdata.datasets.errors import ConfigError, DiskError, UsageError
from mmdata.recorder.backoff import backoff
from mmdata.recorder.config import Job, load_job
from mmdata.recorder.job import next_opening
from mmdata.recorder.lock import holder
from mmdata.recorder.segments import capture_folder
from mmdata.recorder.window import Opening

AHEAD = timedelta(seconds=60)
"""A recorder is started so long before its window opens: it has recovered and is ready by then."""

_FOREVER = datetime.max.replace(tzinfo=UTC)
_STEADY_S = 60.0  # a recorder that lived so long is started again without delay, should it die
_HELD_LOOK_S = 5.0  # between looks at a lock that somebody else holds
_LATER_S = 3600.0  # a job without a window that was given up is tried again
_WAKE_S = 30.0  # between looks at the wall clock: a machine may sleep, its timers with it
_LAST_WORDS_S = 2.0  # for what a dead recorder's own children still hold open
_TAIL = 4096
_SPAWN_FAILED = 70

Command = Callable[[Path], Sequence[str]]
"""Returns the command line that records a configuration: waits for its window, answers by JSON."""


@dataclass(frozen=True)
class Happening:
    """One thing that happened; ``text`` says it to a person, ``facts`` to a machine."""

    event: str
    config: str | None
    text: str
    facts: dict[str, Any] = field(default_factory=dict)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def to_json_dict(self) -> dict[str, Any]:
        """Return it as plain values."""
        named = {"config": self.config} if self.config is not None else {}
        return {"schema": 1, "at": self.at.isoformat(), "event": self.event, **named, "text": self.text} | (
            self.facts
        )


Tell = Callable[[Happening], None]


class Verdict(enum.Enum):
    """What follows the end of a recorder."""

    DONE = "done"
    AGAIN = "again"
    GIVEN_UP = "given up"


def verdict(exit_code: int) -> Verdict:
    """Return what follows a recorder's end; negative: the signal that killed it.

    Configuration, lock and disk are a person's to mend; venue, bug and kill may be over in a moment.

    >>> verdict(0), verdict(2), verdict(-9)
    (<Verdict.DONE: 'done'>, <Verdict.GIVEN_UP: 'given up'>, <Verdict.AGAIN: 'again'>)
    """
    if exit_code == 0:
        return Verdict.DONE
    if exit_code in (UsageError.exit_code, DiskError.exit_code):
        return Verdict.GIVEN_UP
    return Verdict.AGAIN


class WindowTrigger(BaseTrigger):  # type: ignore[misc]  # the library has no types
    """Fires shortly before each opening of a job's window, at once if it is open; without a window once."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime | None:
        """Return when to fire next, later than ``previous``; None: never again."""
        window = next_opening(self._job, now)
        if window is None:
            return now if previous is None else None
        if previous is None:
            return max(window.start - AHEAD, now)
        while window.start - AHEAD <= previous:
            following = next_opening(self._job, window.end)
            assert following is not None
            window = following
        return window.start - AHEAD


def schedule(configs: Sequence[Path], command: Command, tell: Tell) -> None:
    """Record every configuration in its window, day after day, until SIGTERM or SIGINT; then end cleanly.

    The signal goes on to the recorders, which sync, ingest and end; a second one ends them at once. What
    happens is told to ``tell``. ConfigError: a configuration cannot be used. UsageError: two would record
    one exchange into one dataset. Nothing has started then.
    """
    jobs = {config: load_job(config) for config in configs}
    _refuse_doubles(configs, jobs)
    asyncio.run(_serve(jobs, command, tell))


def _refuse_doubles(configs: Sequence[Path], jobs: dict[Path, Job]) -> None:
    taken: dict[Path, Path] = {}
    for config in configs:
        for venue in jobs[config].venues:
            folder = capture_folder(Path(jobs[config].root).resolve(), venue.exchange)
            if folder in taken:
                raise UsageError(
                    f"{config} and {taken[folder]} both record {venue.exchange} into {jobs[config].root}, "
                    f"and two recorders of one exchange need two roots; nothing was started"
                )
            taken[folder] = config


async def _serve(jobs: dict[Path, Job], command: Command, tell: Tell) -> None:
    halt = _Halt()
    failures: list[BaseException] = []
    scheduler = AsyncIOScheduler(
        timezone=UTC,
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
    )

    def add(supervisor: Supervisor) -> None:
        name = str(supervisor.config)
        trigger = WindowTrigger(supervisor.job)
        scheduler.add_job(supervisor.run, trigger, id=name, name=name, replace_existing=True)

    def on_error(event: JobExecutionEvent) -> None:
        failures.append(event.exception)
        halt.soft.set()

    def on_busy(event: JobSubmissionEvent) -> None:
        text = "the window opens, and the last recorder is still busy; the next one starts when it has ended"
        tell(Happening("busy", event.job_id, text))

    scheduler.add_listener(on_error, EVENT_JOB_ERROR)
    scheduler.add_listener(on_busy, EVENT_JOB_MAX_INSTANCES)
    supervisors = [Supervisor(config, job, command, tell, halt, add) for config, job in jobs.items()]
    for supervisor in supervisors:
        supervisor.announce()
        add(supervisor)
    scheduler.start()
    waker = asyncio.create_task(_wake(scheduler))
    await halt.soft.wait()
    tell(Happening("stopping", None, "the recorders are told to end; once more ends them at once"))
    for supervisor in supervisors:
        await supervisor.idle.wait()
    waker.cancel()
    scheduler.shutdown()
    tell(Happening("stopped", None, "every recorder has ended"))
    if failures:
        raise failures[0]


async def _wake(scheduler: AsyncIOScheduler) -> None:
    """Let the scheduler look at the wall clock: its timers stand still while the machine sleeps."""
    while True:
        await asyncio.sleep(_WAKE_S)
        scheduler.wakeup()


class _Halt:
    """Set by the first and by the second signal."""

    def __init__(self) -> None:
        self.soft, self.hard = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        with contextlib.suppress(RuntimeError, ValueError):  # not the main thread: its owner handles signals
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_signal)

    def _on_signal(self) -> None:
        (self.hard if self.soft.is_set() else self.soft).set()


class Supervisor:
    """Sees the recorder of one configuration through its windows."""

    def __init__(
        self,
        config: Path,
        job: Job,
        command: Command,
        tell: Tell,
        halt: _Halt,
        on_new_window: Callable[[Supervisor], None],
    ) -> None:
        self.config = config
        self.job = job
        """As it was read last and was sound."""
        self.idle = asyncio.Event()
        self.idle.set()
        self._command = command
        self._tell_all = tell
        self._halt = halt
        self._on_new_window = on_new_window
        self._seen: Opening | None = None
        self._draw = random.Random()  # noqa: S311 jitter

    def announce(self) -> None:
        """Tell when the window opens."""
        window = next_opening(self.job, _now())
        if window is None:
            self._tell("scheduled", "records always")
        else:
            facts = {"window_opens": window.start.isoformat(), "window_closes": window.end.isoformat()}
            self._tell("scheduled", f"the window opens at {window.start.isoformat()}", **facts)

    async def run(self) -> None:
        """Record through the opening that is due, and through those that follow without a pause."""
        self.idle.clear()
        try:
            while not self._halt.soft.is_set() and self._due() is not None:
                ended = await self._next_opening()
                if next_opening(self.job, _now()) is None:
                    await self._pause(_LATER_S if ended is Verdict.GIVEN_UP else 1.0)
        finally:
            self.idle.set()

    def _due(self) -> Opening | None:
        """Return the opening to record now; None: it is not time, or it was seen to already."""
        now = _now()
        window = next_opening(self.job, now)
        if window is None:
            return Opening(now, _FOREVER)
        return window if window.start - AHEAD <= now and window != self._seen else None

    async def _next_opening(self) -> Verdict:
        """Read the configuration again, and record through the opening that is due by it."""
        self._seen = self._due()
        try:
            job = load_job(self.config)
        except ConfigError as error:
            self._tell("invalid", f"{error}; nothing is recorded in this window", error=str(error))
            return Verdict.GIVEN_UP
        is_moved = job.window != self.job.window
        self.job = job
        if is_moved:
            self._seen = None
            self._on_new_window(self)
            self.announce()
        window = self._due()
        if is_moved and window is None:
            return Verdict.DONE  # it opens at another time now
        self._seen = window or self._seen
        assert self._seen is not None
        return await self._through(self._seen)

    async def _through(self, window: Opening) -> Verdict:
        """Keep a recorder running until it is done, given up, or the window closes."""
        waits = backoff(self._draw)
        loop = asyncio.get_running_loop()
        while await self._is_free(window):
            begun_s = loop.time()
            found = verdict(await self._record_once())
            if found is not Verdict.AGAIN or self._halt.soft.is_set():
                return found
            if loop.time() - begun_s >= _STEADY_S:
                waits = backoff(self._draw)
            wait_s = next(waits)
            if _now() + timedelta(seconds=wait_s) >= window.end:
                self._tell("closed", "the window closes; the recorder is not started again")
                return Verdict.DONE
            self._tell("restarting", f"the recorder is started again in {wait_s:.1f} s", seconds=wait_s)
            await self._pause(wait_s)
        return Verdict.DONE

    async def _is_free(self, window: Opening) -> bool:
        """Wait until nobody else records what this job does; False: the window closed, or we are to end."""
        is_told = False
        while not self._halt.soft.is_set() and _now() < window.end:
            who = self._holder()
            if who is None:
                return True
            if not is_told:
                text = f"is being recorded already, by {who}; it is replaced if it ends in this window"
                self._tell("held", text, holder=who)
                is_told = True
            await self._pause(_HELD_LOOK_S)
        return False

    def _holder(self) -> str | None:
        root = Path(self.job.root)
        who = [holder(capture_folder(root, venue.exchange)) for venue in self.job.venues]
        return next((name for name in who if name is not None), None)

    async def _record_once(self) -> int:
        """Run one recorder to its end and tell how it ended; return its exit code, negative for a signal."""
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command(self.config),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C in a terminal is ours to hand on, once
            )
        except OSError as error:
            text = f"no recorder can be started ({error.strerror or error})"
            self._tell("ended", text, exit=_SPAWN_FAILED, error=text)
            return _SPAWN_FAILED
        assert child.stdout is not None
        assert child.stderr is not None
        self._tell("started", f"the recorder is process {child.pid}", pid=child.pid)
        answer, said = bytearray(), bytearray()
        readers = [
            asyncio.create_task(_keep(child.stdout, answer)),
            asyncio.create_task(_pass_on(child.stderr, said)),
        ]
        stopper = asyncio.create_task(self._stop(child))
        exit_code = await child.wait()
        stopper.cancel()
        await asyncio.wait(readers, timeout=_LAST_WORDS_S)
        for reader in readers:
            reader.cancel()
        self._tell_end(child.pid, exit_code, bytes(answer), bytes(said))
        return exit_code

    async def _stop(self, child: asyncio.subprocess.Process) -> None:
        for signalled in (self._halt.soft, self._halt.hard):
            await signalled.wait()
            with contextlib.suppress(ProcessLookupError):
                child.terminate()

    def _tell_end(self, pid: int, exit_code: int, answer: bytes, said: bytes) -> None:
        facts: dict[str, Any] = {"pid": pid, "exit": exit_code}
        if exit_code == 0:
            report = _last_object(answer)
            frames = sum(venue.get("frames", 0) for venue in report.get("venues", []))
            self._tell("ended", f"the recorder has ended: {frames:,} frames", **facts, report=report)
            return
        how = f"signal {-exit_code}" if exit_code < 0 else f"exit {exit_code}"
        error = str(_last_object(said).get("error", ""))
        because = f": {error}" if error else ""
        end = "; not again in this window" if verdict(exit_code) is Verdict.GIVEN_UP else ""
        self._tell("ended", f"the recorder has ended by {how}{because}{end}", **facts, error=error)

    async def _pause(self, wait_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._halt.soft.wait()

    def _tell(self, event: str, text: str, **facts: Any) -> None:
        self._tell_all(Happening(event, str(self.config), text, facts))


def _now() -> datetime:
    return datetime.now(UTC)


async def _keep(stream: asyncio.StreamReader, into: bytearray) -> None:
    while chunk := await stream.read(1 << 16):
        into += chunk


async def _pass_on(stream: asyncio.StreamReader, tail: bytearray) -> None:
    """Write a recorder's log to our stderr as it comes, and keep its end."""
    while chunk := await stream.read(1 << 16):
        os.write(sys.stderr.fileno(), chunk)
        tail += chunk
        del tail[:-_TAIL]


def _last_object(lines: bytes) -> dict[str, Any]:
    """Return the JSON object in the last line; an empty one when there is none."""
    last = lines.strip().rpartition(b"\n")[2]
    with contextlib.suppress(ValueError):
        found = json.loads(last)
        if isinstance(found, dict):
            return found
    return {}
