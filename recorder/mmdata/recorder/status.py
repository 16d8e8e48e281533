"""The status file: what a recorder says of itself once a second, and what is to be made of it.

``<root>/.captures/<exchange>/status.json`` (`docs/monitoring.md` lists its fields). It is replaced whole,
and not synced: after a power cut the recorder is dead whatever the file says. Reading and judging load
nothing heavy, for a container asks every few seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mmdata.datasets.layout import CAPTURES
from mmdata.recorder.watch import RecentLag, State, Watch

_log = logging.getLogger(__name__)

SCHEMA = 1
STATUS_FILE = "status.json"
WRITTEN_WITHIN_S = 10.0
"""A recorder writes once a second; an older file means that it hangs or is gone."""

_INTERVAL_S = 1.0
_AT_WORK = {
    "recovering": "ingests what an earlier run left, then records",
    "waiting": "waits for its window to open",
    "ending": "ingests the last of what it recorded",
}
_JOIN_S = 1.0  # a disk that hangs must not hang the end of the process


class StreamStatus(msgspec.Struct, frozen=True):
    """When the newest frame of one stream was received, in ns since the epoch."""

    channel: str
    symbol: str
    last_frame: int


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What a recorder says of one exchange; times are ns since the epoch, by the recorder's clock."""

    schema: int = SCHEMA
    exchange: str
    state: State
    reason: str | None = None
    """Why it ends or ended."""
    exit_code: int | None = None
    """The exit status of a recorder that has ended."""
    pid: int
    host: str
    written_at: int
    begun: int
    """When the process began with the job."""
    session: str | None = None
    """None until the recording begins, and so for what follows."""
    started: int | None = None
    """When the recording began."""
    last_frame: int | None = None
    """When the newest frame of any stream was received."""
    window_end: int | None = None
    """When the window closes; None: it records until it is stopped."""
    frames: int = 0
    bytes: int = 0
    gaps: int = 0
    resyncs: int = 0
    reconnects: int = 0
    live_connections: int = 0
    pending_segments: int = 0
    quarantined: int = 0
    rows: dict[str, int] = {}
    """By table."""
    synced: dict[str, bool] = {}
    """By symbol: is its book whole?"""
    streams: list[StreamStatus] = []
    lag_p99_s: float | None = None
    """99 % of the last minute's socket reads were written within this; None: unknown, or above 1 s."""
    lag_max_s: float = 0.0
    """The longest so far."""
    disk_free_bytes: int | None = None
    clock_offset_ns: int | None = None
    """The venue's clock minus ours."""
    clock_uncertainty_ns: int | None = None


@dataclass(frozen=True)
class Verdict:
    """What is to be made of a status."""

    exchange: str
    stale: bool
    sentence: str
    status: Status | None = None
    """None: the file cannot be read."""


def status_of(watch: Watch, exchange: str, now_ns: int, lag: RecentLag) -> Status:
    """Return the status of one exchange of a job as it is now."""
    told = Status(
        exchange=exchange,
        state=watch.state,
        reason=watch.reason,
        exit_code=watch.exit_code,
        pid=os.getpid(),
        host=socket.gethostname(),
        written_at=now_ns,
        begun=watch.begun_ns,
        window_end=watch.window_end_ns,
        disk_free_bytes=watch.disk_free_bytes(),
    )
    seen = watch.of(exchange)
    if seen is None:
        return told
    counts, tally = seen.counts, seen.tally
    streams = [StreamStatus(*stream, at) for stream, at in sorted(counts.last_frame.copy().items())]
    p99_s = lag.p99_s(counts.lags)
    return msgspec.structs.replace(
        told,
        session=seen.session,
        started=seen.started_ns,
        last_frame=max((stream.last_frame for stream in streams), default=None),
        frames=counts.frames,
        bytes=counts.bytes,
        gaps=counts.gaps,
        resyncs=counts.resyncs,
        reconnects=counts.reconnects,
        live_connections=counts.live,
        pending_segments=tally.pending,
        quarantined=tally.quarantined,
        rows=tally.rows.copy(),
        synced=counts.synced.copy(),
        streams=streams,
        lag_p99_s=None if p99_s == float("inf") else p99_s,
        lag_max_s=counts.lag_max_s,
        clock_offset_ns=counts.clock_offset_ns,
        clock_uncertainty_ns=counts.clock_uncertainty_ns,
    )


def judge(status: Status, now_ns: int, *, alive: bool, stale_after_s: float) -> Verdict:
    """Tell whether the recorder does what it should; ``alive`` says that its process is there."""

    def verdict(sentence: str, *, stale: bool) -> Verdict:
        return Verdict(status.exchange, stale, f"{status.exchange}: {sentence}", status)

    if status.state == "ended":
        if status.exit_code == 0:
            return verdict(f"ended: {status.reason}", stale=False)
        return verdict(f"ended with exit {status.exit_code}: {status.reason}", stale=True)
    who = f"the recorder (pid {status.pid} on {status.host})"
    if not alive:
        return verdict(
            f"{who} is gone and did not end its recording; the next start recovers what it left", stale=True
        )
    written_s = _since_s(status.written_at, now_ns)
    if written_s > WRITTEN_WITHIN_S:
        return verdict(
            f"{who} wrote its status {written_s:.0f} s ago, expected once a second; it hangs, or is gone",
            stale=True,
        )
    if status.state != "recording":
        return verdict(_AT_WORK[status.state], stale=False)
    silence_s = _silence_s(status, now_ns)
    if silence_s > stale_after_s:
        since = "its start" if status.last_frame is None else "the newest one"
        return verdict(
            f"no frame for {silence_s:.0f} s since {since}, expected one within {stale_after_s:g} s; {who} "
            f"goes on trying",
            stale=True,
        )
    return verdict("recording", stale=False)


def _silence_s(status: Status, now_ns: int) -> float:
    newest = status.last_frame if status.last_frame is not None else status.started or status.begun
    return _since_s(newest, now_ns)


def _since_s(then_ns: int, now_ns: int) -> float:
    return (now_ns - then_ns) / 1e9


def check(
    root: Path, *, exchange: str | None = None, stale_after_s: float, now_ns: int | None = None
) -> list[Verdict]:
    """Return the verdict on each exchange that was ever recorded into ``root``; on ``exchange`` alone."""
    now_ns = time.time_ns() if now_ns is None else now_ns
    return [
        _check_file(path, now_ns, stale_after_s)
        for path in sorted((root / CAPTURES).glob(f"*/{STATUS_FILE}"))
        if exchange in (None, path.parent.name)
    ]


def _check_file(path: Path, now_ns: int, stale_after_s: float) -> Verdict:
    try:
        status = read_status(path)
    except (OSError, msgspec.MsgspecError) as error:
        name = path.parent.name
        return Verdict(name, True, f"{name}: {path} cannot be read ({error}), so nothing is known")
    return judge(status, now_ns, alive=_is_alive(status), stale_after_s=stale_after_s)


def read_status(path: Path) -> Status:
    """Read a status file. OSError: it cannot be read. MsgspecError: it is none, or another schema's."""
    content = path.read_bytes()
    schema = msgspec.json.decode(content, type=_Versioned).schema
    if schema != SCHEMA:
        raise msgspec.ValidationError(f"its schema is {schema}, this mmdata reads {SCHEMA}")
    return msgspec.json.decode(content, type=Status)


class _Versioned(msgspec.Struct):
    schema: int


def _is_alive(status: Status) -> bool:
    """Tell whether the recorder's process is there, as far as it can be seen from this host.

    The lock is left alone: whoever tries it holds it, and a recorder that starts just then is refused. A
    process id that was given to another process is caught by the age of the file.
    """
    if status.host != socket.gethostname():
        return True
    try:
        os.kill(status.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def write_status(root: Path, status: Status) -> None:
    """Replace the status file of an exchange. OSError: it cannot be written."""
    path = root / CAPTURES / status.exchange / STATUS_FILE
    partial = path.with_suffix(".part")
    partial.write_bytes(msgspec.json.encode(status) + b"\n")
    partial.rename(path)


@contextlib.contextmanager
def writing_status(watch: Watch) -> Iterator[None]:
    """Write the status of a job once a second, in a thread; its end is written when the block ends.

    An error that leaves the block with an ``exit_code`` is the reason; any other is a bug of ours.
    """
    lags = {exchange: RecentLag() for exchange in watch.exchanges}
    stop, told = threading.Event(), threading.Event()

    def write() -> None:
        for exchange, lag in lags.items():
            try:
                write_status(watch.root, status_of(watch, exchange, time.time_ns(), lag))
            except OSError as error:  # the recording matters more than what is told of it
                if not told.is_set():
                    told.set()
                    _log.warning(
                        "the status of %s cannot be written (%s); recording goes on", exchange, error
                    )

    def work() -> None:
        while not stop.wait(_INTERVAL_S):
            write()
        write()

    write()
    thread = threading.Thread(target=work, daemon=True, name="mmdata-status")
    thread.start()
    try:
        yield
        watch.exit_code = 0
    except BaseException as error:
        watch.exit_code, watch.reason = getattr(error, "exit_code", 70), str(error) or repr(error)
        raise
    finally:
        watch.state = "ended"
        stop.set()
        thread.join(_JOIN_S)
