"""`mmdata record`: one job, from its window's opening to the tables on disk."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mmdata.datasets.disk import clear_staging
from mmdata.datasets.errors import DiskError, MmdataError, VenueError
from mmdata.datasets.layout import CAPTURES, NO_SYMBOL
from mmdata.datasets.units import seconds, size_bytes
from mmdata.datasets.version import version
from mmdata.recorder.capture import CLOSED, CaptureWriter, Event, Header
from mmdata.recorder.config import Job, Venue, Window
from mmdata.recorder.counts import Counts
from mmdata.recorder.disk_budget import Space, SpaceWatch, fits, free_space
from mmdata.recorder.embedded import addresses
from mmdata.recorder.hooks import ping_end, ping_start, run_on_end
from mmdata.recorder.ingest_process import IngestProcess, Outcome, Tally
from mmdata.recorder.lock import HeldError, exchange_lock
from mmdata.recorder.logfields import log_fields
from mmdata.recorder.ntp import clock_state
from mmdata.recorder.regions import region_refusal
from mmdata.recorder.rest import RestClient
from mmdata.recorder.retention import today_utc
from mmdata.recorder.session import Intervals, VenueSession
from mmdata.recorder.status import writing_status
from mmdata.recorder.venues import open_streams
from mmdata.recorder.watch import Watch, Watched
from mmdata.recorder.window import Opening, opening

_log = logging.getLogger(__name__)

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_PROGRESS_INTERVAL_S = 0.5
_SPACE_INTERVAL_S = 1.0
_HANDED_OVER_S = 30.0  # a segment that is due is closed, synced and with the ingest process by then

Progress = Callable[[Watch], None]
"""Called now and then with the job as it is seen from outside."""


@dataclass
class VenueReport:
    """What was recorded of one venue."""

    exchange: str
    session: str
    counts: Counts
    ingest: Tally


@dataclass
class RecordReport:
    """What a job did."""

    root: Path
    started: datetime
    ended: datetime
    venues: list[VenueReport]
    recovered: int
    """Segments of earlier runs that were ingested first."""
    warnings: list[str] = field(default_factory=list)
    removed: list[Path] = field(default_factory=list)
    """Folders of days that were older than the job keeps."""
    certified: int = 0
    """Days of a symbol that got a certificate, or another."""
    compacted: int = 0
    """Finished days of a table that are one file now."""


def describe(report: RecordReport) -> dict[str, Any]:
    """Return what a job did as plain values."""
    return {
        "schema": 1,
        "recorded": True,
        "root": str(report.root),
        "started": report.started.isoformat(),
        "ended": report.ended.isoformat(),
        "recovered_segments": report.recovered,
        "warnings": report.warnings,
        "removed": [str(path) for path in report.removed],
        "certified": report.certified,
        "compacted": report.compacted,
        "venues": [
            {
                "exchange": venue.exchange,
                "session": venue.session,
                "frames": venue.counts.frames,
                "bytes": venue.counts.bytes,
                "gaps": venue.counts.gaps,
                "connections": venue.counts.connections,
                "rows": venue.ingest.rows,
                "quarantined": venue.ingest.quarantined,
                "pending_segments": venue.ingest.pending,
            }
            for venue in report.venues
        ],
    }


def next_opening(job: Job, now: datetime) -> Opening | None:
    """Return the opening of the job's window that ``now`` lies in, else the next; None: no window."""
    if not isinstance(job.window, Window):
        return None
    return opening(job.window.zone, job.window.start, job.window.end, now, job.window.weekdays)


def record(job: Job, *, wait: bool = False, progress: Progress | None = None) -> RecordReport | Opening:
    """Record until the window closes, the duration is over or a signal comes; then ingest.

    Before the window: waits for it with ``wait``, else returns its opening and has done nothing. At the
    end, days that are too old are removed, the monitor is told and the ``on_end`` command is run.

    UsageError: another process records here; a symbol that the venue does not have. VenueError: nothing
    came. DiskError: the disk is full, nearly so, or cannot be written. What was recorded before stays.
    """
    now = datetime.now(UTC)
    window = next_opening(job, now)
    if window is not None and now < window.start and not wait:
        return window
    try:
        report = asyncio.run(_record(job, window, progress))
    except HeldError:
        raise  # the recording that is under way tells of itself
    except Exception as error:
        exit_code = error.exit_code if isinstance(error, MmdataError) else MmdataError.exit_code
        _tell_end(job, exit_code, {"schema": 1, "recorded": False, "root": job.root, "error": str(error)})
        raise
    if report.venues:
        report.warnings += _tell_end(job, 0, describe(report))
    return report


def _tell_end(job: Job, exit_code: int, summary: dict[str, Any]) -> list[str]:
    """Tell monitor and ``on_end`` command of an ended recording; return the warnings of what failed."""
    warnings = [
        None if job.ping_url is None else ping_end(job.ping_url, exit_code),
        None if job.on_end is None else run_on_end(job.on_end, job.root, exit_code, summary),
    ]
    told = [warning for warning in warnings if warning is not None]
    for warning in told:
        _log.warning("%s", warning)
    return told


async def _record(job: Job, window: Opening | None, progress: Progress | None) -> RecordReport:
    root = Path(job.root)
    stop = asyncio.Event()
    signalled = _listen_for_signals(stop)
    exchanges = [venue.exchange for venue in job.venues]
    watch = Watch(
        root,
        exchanges,
        None if window is None else int(window.end.timestamp() * 1e9),
        min_free_bytes=size_bytes(job.min_free),
        stop_free_bytes=size_bytes(job.stop_free),
    )
    async with contextlib.AsyncExitStack() as stack:
        for exchange in exchanges:
            stack.enter_context(exchange_lock(_captures(root, exchange), exchange))
        stack.enter_context(writing_status(watch))
        stack.enter_context(_metrics(job, watch))
        ingest = await stack.enter_async_context(IngestProcess(root, keep=job.keep_captures))
        clear_staging(root)
        if progress is not None:
            stack.callback(asyncio.create_task(_tell(watch, progress)).cancel)
        recovery = asyncio.create_task(_recover(ingest, exchanges))
        await _first_of(recovery, asyncio.create_task(stop.wait()))
        if not recovery.done():  # a signal: what is left to recover is for the next start
            recovery.cancel()
            watch.reason = "a signal"
            return _nothing(root, 0, ["stopped while ingesting what an earlier run left"])
        recovered, warnings = recovery.result()
        days = _Days()
        stack.callback(asyncio.create_task(_certify(job, ingest, days)).cancel)  # what earlier runs left
        _require_space(job, root)
        if window is not None and datetime.now(UTC) < window.start:
            watch.state = "waiting"
            _log.info("waiting until the window opens at %s", window.start.isoformat())
            await _sleep_until(window.start, stop)
        if stop.is_set():
            return _nothing(root, recovered, [*warnings, "stopped before the recording began"])
        if job.ping_url is not None:
            pinging = asyncio.create_task(asyncio.to_thread(ping_start, job.ping_url))
            stack.callback(pinging.cancel)
        found = stack.enter_context(addresses(job))
        started = datetime.now(UTC)
        recordings = [_Recording(job, venue, root, found[venue.exchange], ingest) for venue in job.venues]
        begun_s = time.monotonic()
        watch.look = lambda: [recording.watched() for recording in recordings]
        watch.state = "recording"
        if window is None:
            caring = asyncio.create_task(_care_each_day(job, ingest, days))
            stack.callback(caring.cancel)
        failure = await _run(job, window, stop, recordings)
        if window is None:
            caring.cancel()
        tried_s = time.monotonic() - begun_s
        watch.reason = _why_it_ends(window, signalled=bool(signalled))
        watch.state = "ending"
        _log.info("recording ends: %s", watch.reason)
        if not isinstance(failure, DiskError) or fits(_pending_bytes(root, exchanges), free_space(root)):
            await ingest.drain(signalled.left_s(seconds(job.stop_timeout)))
        failure = failure or ingest.error
        if failure is None and not signalled:
            failure = _silence(job, recordings, tried_s)
        if failure is not None:
            raise failure
        venues = [recording.report() for recording in recordings]
        ended = datetime.now(UTC)
        if ingest.is_drained:
            await _certify_in_time(job, ingest, signalled, days)
        if not signalled:  # whoever stops us does not wait for this; the next recording does it
            # A signal ends it: a day half compacted is as it was.
            caring = asyncio.create_task(_care_for_days(job, ingest, days))
            await _first_of(caring, asyncio.create_task(signalled.came.wait()))
        said = [*warnings, *ingest.warnings, *days.warnings]
        return RecordReport(
            *(root, started, ended, venues, recovered, said),
            *(days.removed, days.certified, days.compacted),
        )


def _nothing(root: Path, recovered: int, warnings: list[str]) -> RecordReport:
    """Return the report of a job that was stopped before it recorded."""
    now = datetime.now(UTC)
    return RecordReport(root, now, now, [], recovered, warnings)


@dataclass
class _Days:
    """What was done for days that are over."""

    removed: list[Path] = field(default_factory=list)
    certified: int = 0
    compacted: int = 0
    warnings: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.removed += map(Path, outcome.removed)
        self.compacted += outcome.compacted
        self.certified += outcome.certified
        for warning in (*outcome.warnings, *([] if outcome.error is None else [outcome.error])):
            _log.warning("%s", warning)
            self.warnings.append(warning)


async def _certify(job: Job, ingest: IngestProcess, days: _Days) -> None:
    """Certify the days that something was ingested of; what fails is a warning."""
    before = days.certified
    for venue in job.venues:
        days.add(await ingest.certify(venue.exchange))
    if days.certified > before:
        _log.info("certified %d days of a symbol", days.certified - before)


async def _certify_in_time(job: Job, ingest: IngestProcess, signalled: _Signalled, days: _Days) -> None:
    """Certify what was recorded; after a signal only until ``stop_timeout``: the next start does the rest."""
    task = asyncio.create_task(_certify(job, ingest, days))
    await _first_of(task, asyncio.create_task(signalled.came.wait()))
    if signalled:
        await asyncio.wait([task], timeout=signalled.left_s(seconds(job.stop_timeout)))
    if task.done():
        task.result()


async def _care_for_days(job: Job, ingest: IngestProcess, days: _Days) -> None:
    """Remove days that are older than the job keeps, compact the finished ones; what fails is a warning."""
    today = str(today_utc())
    if job.retain_days is not None:
        days.add(await ingest.retain(job, today))
    if job.compact:
        for venue in job.venues:
            days.add(await ingest.compact(venue.exchange, [*venue.symbols, NO_SYMBOL], today))


def next_care(now: datetime, segment_s: float) -> datetime:
    """Return when a job without end cares for its days next: the day before is ingested by then.

    A segment that goes on over midnight (UTC) is closed at the latest ``segment_s`` after it.

    >>> next_care(datetime(2026, 11, 21, 23, 59, tzinfo=UTC), 300.0).isoformat()
    '2026-11-22T00:05:30+00:00'
    >>> next_care(datetime(2026, 11, 22, 0, 5, 30, tzinfo=UTC), 300.0).isoformat()
    '2026-11-23T00:05:30+00:00'
    """
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    due = midnight + timedelta(seconds=(segment_s + _HANDED_OVER_S) % 86_400)
    return due if due > now else due + timedelta(days=1)


async def _care_each_day(job: Job, ingest: IngestProcess, days: _Days) -> None:
    """Care for the days of a job that may never end, once after each midnight, while it records."""
    never = asyncio.Event()
    while True:
        await _sleep_until(next_care(datetime.now(UTC), seconds(job.segment.seconds)), never)
        await _certify(job, ingest, days)
        await _care_for_days(job, ingest, days)


async def _first_of(*tasks: asyncio.Task[Any]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def _recover(ingest: IngestProcess, exchanges: Sequence[str]) -> tuple[int, list[str]]:
    segments, warnings = 0, []
    for exchange in exchanges:
        outcome = await ingest.recover(exchange)
        segments += outcome.segments
        warnings += outcome.warnings
        if outcome.error is not None:
            warnings.append(outcome.error)
    for warning in warnings:
        _log.warning("%s", warning)
    return segments, warnings


async def _run(
    job: Job,
    window: Opening | None,
    stop: asyncio.Event,
    recordings: Sequence[_Recording],
) -> Exception | None:
    """Record all venues until ``stop``; return what failed, if anything did."""
    space = asyncio.create_task(_watch_space(job, recordings, stop))
    watchers: list[asyncio.Task[Any]] = [
        space,
        asyncio.create_task(_end(job, window, stop)),
        asyncio.create_task(_give_up_without_a_frame(job, recordings, stop)),
    ]
    try:
        async with asyncio.TaskGroup() as tasks:
            for recording in recordings:
                with log_fields(exchange=recording.exchange, session=recording.session):
                    _log.info("%s: recording begins, session %s", recording.exchange, recording.session)
                    tasks.create_task(recording.run(stop, window))
    except ExceptionGroup as group:
        # The disk's failure is told before any other: it fells the other venues with it.
        return min(group.exceptions, key=lambda error: not isinstance(error, DiskError))
    finally:
        for watcher in watchers:
            watcher.cancel()
    return space.result() if space.done() and not space.cancelled() else None


def _why_it_ends(window: Opening | None, *, signalled: bool) -> str:
    if signalled:
        return "a signal"
    if window is not None and datetime.now(UTC) >= window.end:
        return "the window closed"
    return "its duration is over"


@dataclass
class _Signalled:
    """Whether a signal ended the recording, and when."""

    at_s: float | None = None
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def __bool__(self) -> bool:
        return self.at_s is not None

    def left_s(self, limit_s: float) -> float | None:
        """Return what is left of the time that a signal leaves; None: there was none."""
        return None if self.at_s is None else max(0.0, self.at_s + limit_s - time.monotonic())


def _listen_for_signals(stop: asyncio.Event) -> _Signalled:
    """Let SIGTERM and SIGINT end the recording cleanly; a second one ends the process at once."""
    signalled = _Signalled()

    def on_signal(number: int) -> None:
        if signalled:
            os._exit(128 + number)  # the captures are whole: every line is with the system already
        _log.warning("%s: recording ends; once more ends it at once", signal.Signals(number).name)
        signalled.at_s = time.monotonic()
        signalled.came.set()
        stop.set()

    loop = asyncio.get_running_loop()
    with contextlib.suppress(RuntimeError, ValueError):  # not the main thread: its owner handles signals
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, on_signal, number)
    return signalled


async def _sleep_until(moment: datetime, stop: asyncio.Event) -> None:
    """Sleep in short steps: the wall clock may be set meanwhile."""
    while (left := (moment - datetime.now(UTC)).total_seconds()) > 0 and not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(left, 30.0)):
                await stop.wait()


async def _end(job: Job, window: Opening | None, stop: asyncio.Event) -> None:
    """Stop at the end of the duration or of the window, whichever comes first."""
    limits = []
    if job.duration is not None:
        limits.append(asyncio.create_task(asyncio.sleep(seconds(job.duration))))
    if window is not None:
        limits.append(asyncio.create_task(_sleep_until(window.end, stop)))
    if limits:
        await asyncio.wait(limits, return_when=asyncio.FIRST_COMPLETED)
        stop.set()


def _require_space(job: Job, root: Path) -> None:
    """Raise DiskError when there is too little free space to begin with."""
    free = free_space(root)
    if free < size_bytes(job.stop_free):
        raise DiskError(
            f"{root}: {free:,} bytes are free, expected at least stop_free ({job.stop_free}); nothing is "
            f"recorded"
        )


async def _watch_space(job: Job, recordings: Sequence[_Recording], stop: asyncio.Event) -> DiskError:
    """Warn when space is low; when it is gone, stop the recording and return what to say."""
    root, loop = Path(job.root), asyncio.get_running_loop()
    watch = SpaceWatch(min_free=size_bytes(job.min_free), floor=size_bytes(job.stop_free))
    try:
        while True:
            await asyncio.sleep(_SPACE_INTERVAL_S)
            free = free_space(root)
            space, warn = watch.look(free, loop.time())
            if space is Space.GONE:
                raise DiskError(
                    f"{root}: {free:,} bytes are free, less than stop_free ({job.stop_free}); recording "
                    f"ended and its captures are closed; those for whose tables there is no room wait for "
                    f"the next start"
                )
            if warn and not stop.is_set():
                said = f"{free:,} bytes are free below {root}, less than min_free ({job.min_free})"
                _log.warning("%s; recording ends below stop_free (%s)", said, job.stop_free)
                for recording in recordings:
                    recording.note(Event("notice", detail={"text": said}))
    except DiskError as error:
        stop.set()
        return error


def _pending_bytes(root: Path, exchanges: Sequence[str]) -> int:
    """Return the size of the closed segments that are not ingested yet."""
    total = 0
    for exchange in exchanges:
        for path in _captures(root, exchange).glob(f"*/*{CLOSED}"):
            with contextlib.suppress(FileNotFoundError):  # ingest has just finished it
                total += path.stat().st_size
    return total


async def _give_up_without_a_frame(job: Job, recordings: Sequence[_Recording], stop: asyncio.Event) -> None:
    """Stop when no venue has sent a frame in time; once one has, the others are tried to the end."""
    waiting = [asyncio.create_task(recording.first_frame.wait()) for recording in recordings]
    done, _ = await asyncio.wait(
        waiting, timeout=seconds(job.connect_timeout), return_when=asyncio.FIRST_COMPLETED
    )
    if not done:
        stop.set()


def _silence(job: Job, recordings: Sequence[_Recording], tried_s: float) -> VenueError | None:
    """Return the error of the venues that never sent a frame, if they had their time to, or if all are."""
    silent = [recording for recording in recordings if not recording.counts.frames]
    in_time = tried_s < seconds(job.connect_timeout) and len(silent) < len(recordings)
    if not silent or in_time:
        return None
    places = ", ".join(f"{recording.exchange} at {recording.url}" for recording in silent)
    others = "" if len(silent) == len(recordings) else "; the other venues are recorded"
    return VenueError(
        f"not one frame came from {places} (connect_timeout is {job.connect_timeout}); the captures hold "
        f"what was tried{others}"
    )


async def _tell(watch: Watch, progress: Progress) -> None:
    while True:
        progress(watch)
        await asyncio.sleep(_PROGRESS_INTERVAL_S)


def _metrics(job: Job, watch: Watch) -> contextlib.AbstractContextManager[None]:
    if job.metrics_port is None:
        return contextlib.nullcontext()
    from mmdata.recorder.metrics import serving_metrics  # its HTTP server is loaded by whoever asks for it

    return serving_metrics(watch, job.metrics_host, job.metrics_port)


def _captures(root: Path, exchange: str) -> Path:
    return root / CAPTURES / exchange


class _Recording:
    """One venue of the job: its session, its capture, its report."""

    def __init__(
        self, job: Job, venue: Venue, root: Path, addresses: tuple[str, str], ingest: IngestProcess
    ) -> None:
        self.exchange = venue.exchange
        self._venue = venue
        self._region = job.region_of(venue)
        self._ingest = ingest
        rest_url, ws_url = addresses
        streams = open_streams(venue.exchange, venue.symbols, job.channels_of(venue), ws_url)
        first = streams[0]
        self._rest = RestClient(rest_url, first.rest_headers)
        self.url = first.url
        started = time.time_ns()
        name = datetime.fromtimestamp(started / 1e9, UTC).strftime("%Y%m%dT%H%M%SZ")
        self._started = started
        self._session_id = f"{name}-{''.join(secrets.choice(_BASE32) for _ in range(6))}"
        header = Header(
            session=self._session_id,
            exchange=venue.exchange,
            segment=0,
            first_frame=0,
            started=started,
            monotonic=time.monotonic_ns(),
            version=version(),
            host=socket.gethostname(),
            config=job.fingerprint(),
            urls={"rest": rest_url, "ws": first.url},
            time_unit=first.time_unit,
        )
        self._writer = CaptureWriter(
            _captures(root, venue.exchange) / self._session_id,
            header,
            seconds=seconds(job.segment.seconds),
            size=size_bytes(job.segment.bytes),
        )
        self._session = VenueSession(
            streams,
            self._rest,
            self._writer,
            on_segment=lambda closed: ingest.submit(venue.exchange, closed),
            connections=job.connections,
            intervals=Intervals(audit_s=job.audit_s()),
            explain=functools.partial(region_refusal, venue.exchange, self._region),
        )

    @property
    def counts(self) -> Counts:
        return self._session.counts

    @property
    def session(self) -> str:
        return self._session_id

    def watched(self) -> Watched:
        tally = self._ingest.tallies.get(self.exchange, Tally())
        return Watched(self.exchange, self._session_id, self._started, self.counts, tally)

    @property
    def first_frame(self) -> asyncio.Event:
        return self._session.first_frame

    def note(self, event: Event) -> None:
        """Write an event into the capture, while it is being written."""
        self._session.note(event)

    async def run(self, stop: asyncio.Event, window: Opening | None) -> None:
        """Record until ``stop``, then close the capture and hand it to ingest, whatever happened."""
        note = self._session.note
        try:
            note(Event("session_start", detail=self._beginning()))
            if window is not None:
                note(Event("window_open", detail={"start": str(window.start), "end": str(window.end)}))
            await self._session.run(stop)
            if window is not None and datetime.now(UTC) >= window.end:
                note(Event("window_close", detail={"end": str(window.end)}))
            note(Event("session_end", detail=self._ending()))
        finally:
            self._rest.close()
            closed = self._writer.close()
            if closed is not None:
                self._ingest.submit(self.exchange, closed)

    def _beginning(self) -> dict[str, Any]:
        return {
            "stamp": "data_received",
            "symbols": self._venue.symbols,
            "host": socket.gethostname(),
            "region": self._region,
            "clock": clock_state()._asdict(),
        }

    def _ending(self) -> dict[str, int]:
        counts = self.counts
        return {"frames": counts.frames, "gaps": counts.gaps, "connections": counts.connections}

    def report(self) -> VenueReport:
        tally = self._ingest.tallies.get(self.exchange, Tally())
        return VenueReport(self.exchange, self._session_id, self.counts, tally)
