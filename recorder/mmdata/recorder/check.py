"""`mmdata record --check`: would this job record? Looks at everything that it needs, and records nothing.

Each part is one row of a table; a part that fails has the exit code that `record` would end with.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from mmdata.datasets.errors import DiskError, UsageError, VenueError
from mmdata.datasets.units import seconds, size_bytes
from mmdata.recorder.capture import RestAnswer
from mmdata.recorder.clock import Offset, offset
from mmdata.recorder.config import Job, Venue
from mmdata.recorder.embedded import addresses
from mmdata.recorder.job import next_opening
from mmdata.recorder.lock import holder
from mmdata.recorder.proxies import rest_proxy, stream_proxy
from mmdata.recorder.records import Instrument
from mmdata.recorder.regions import region_refusal
from mmdata.recorder.rest import RestClient
from mmdata.recorder.retention import describe, plan, today_utc
from mmdata.recorder.segments import capture_folder
from mmdata.recorder.venues import DECODERS, open_stream

OK, WARNING, FAILED = "ok", "warning", "failed"

_CLOCK_SAMPLES = 4  # the first also opens the connection; the quickest counts
_CLOCK_LIMIT_NS = 100_000_000
_TRADING = {"binance": "TRADING", "okx": "live"}
"""What a venue says of a symbol that is traded now."""
_SEGMENTS_FREE = 3
"""An exchange needs room for so many segments: the open one, one being ingested, and the tables of it."""
_UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)


@dataclass(frozen=True)
class Finding:
    """What was found of one part; ``exit_code`` is what `record` would end with, 0 unless it failed."""

    part: str
    status: str
    found: str
    exit_code: int = 0


def check(job: Job) -> list[Finding]:
    """Return what was found of every part that the job needs, in the order that it needs them."""
    return asyncio.run(_check(job))


def exit_code(findings: Sequence[Finding]) -> int:
    """Return the exit code of the first part that failed; 0: none did."""
    return next((finding.exit_code for finding in findings if finding.status == FAILED), 0)


async def _check(job: Job) -> list[Finding]:
    findings = [_window(job), *_disk(job), *_locks(job)]
    try:
        with addresses(job) as found:
            for venue in job.venues:
                rest_url, ws_url = found[venue.exchange]
                findings += await _venue(job, venue, rest_url, ws_url)
    except VenueError as error:  # the embedded sandbox
        findings.append(Finding("venue", FAILED, str(error), VenueError.exit_code))
    return findings


# --- here


def _window(job: Job) -> Finding:
    now = datetime.now(UTC)
    window = next_opening(job, now)
    if window is None:
        return Finding("window", OK, "none: records from its start on")
    if window.start <= now:
        return Finding("window", OK, f"open until {window.end.isoformat()}")
    return Finding("window", OK, f"opens at {window.start.isoformat()}")


def _disk(job: Job) -> list[Finding]:
    root = Path(job.root).absolute()
    place = next(path for path in (root, *root.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    except OSError as error:
        owner = f"we are uid {os.getuid()}, the owner is uid {place.stat().st_uid}"
        found = f"{place}: cannot be written ({error.strerror}); {owner}"
        return [Finding("disk", FAILED, found, DiskError.exit_code)]
    needed = _SEGMENTS_FREE * len(job.venues) * size_bytes(job.segment.bytes)
    found = f"{root}: writable, {_gib(free)} free"
    status, code = OK, 0
    if free < needed:
        found += f", expected at least {_gib(needed)}: {_SEGMENTS_FREE} segments a venue"
        status, code = FAILED, DiskError.exit_code
    findings = [Finding("disk", status, found, code)]
    if job.retain_days is not None:
        removable = describe(plan(job, today_utc()))
        findings.append(
            Finding("retention", OK, f"{job.retain_days} days; would be removed now: {removable}")
        )
    return findings


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"


def _locks(job: Job) -> list[Finding]:
    findings = []
    for venue in job.venues:
        who = holder(capture_folder(Path(job.root), venue.exchange))
        part = f"{venue.exchange} lock"
        if who is None:
            findings.append(Finding(part, OK, "free: nobody records here"))
        else:
            findings.append(Finding(part, FAILED, f"is held by {who}", UsageError.exit_code))
    return findings


# --- at the venue


async def _venue(job: Job, venue: Venue, rest_url: str, ws_url: str) -> list[Finding]:
    stream_url = open_stream(venue.exchange, venue.symbols, job.channels_of(venue), ws_url).url
    through = _proxies(rest_url, ws_url)
    async with _client(rest_url) as rest:
        findings = [Finding(f"{venue.exchange} proxy", OK, through)] if through else []
        limit_s = seconds(job.connect_timeout)
        for part, work in (
            ("REST and clock", lambda: _clock(job, venue, rest)),
            ("symbols", lambda: _symbols(job, venue, rest, ws_url)),
            ("stream", lambda: _stream(job, venue, stream_url)),
        ):
            findings.append(await _within(f"{venue.exchange} {part}", limit_s, work))
    return findings


@asynccontextmanager
async def _client(rest_url: str) -> AsyncIterator[RestClient]:
    client = RestClient(rest_url)
    try:
        yield client
    finally:
        client.close()


async def _within(part: str, limit_s: float, work: Callable[[], Awaitable[Finding]]) -> Finding:
    """Return what ``work`` found, under the name ``part``; what it raised is a failure."""
    try:
        async with asyncio.timeout(limit_s):
            found = await work()
    except TimeoutError:
        return Finding(
            part, FAILED, f"no answer within {limit_s:g} s (connect_timeout)", VenueError.exit_code
        )
    except VenueError as error:
        return Finding(part, FAILED, str(error), error.exit_code)
    return Finding(part, found.status, found.found, found.exit_code)


def _proxies(rest_url: str, ws_url: str) -> str:
    """Return which proxies the environment names; nothing when both ways are direct."""
    rest, stream = rest_proxy(rest_url), stream_proxy(ws_url)
    if rest is None and stream is None:
        return ""
    return f"REST {_way(rest)}, stream {_way(stream)}"


def _way(proxy: str | None) -> str:
    return "directly" if proxy is None else f"through {proxy}"


async def _clock(job: Job, venue: Venue, rest: RestClient) -> Finding:
    decoder = DECODERS[venue.exchange]
    best: Offset | None = None
    for _ in range(_CLOCK_SAMPLES):
        answer = await rest.get(decoder.TIME_PATH)
        t1 = time.time_ns()
        _refuse(job, venue, answer)
        try:
            sample = offset(answer.t0, t1, decoder.decode_time(answer.body.encode()))
        except _UNREADABLE as error:
            raise VenueError(f"{answer.url}: cannot be read ({error!r}): {answer.body[:200]}") from error
        if best is None or sample.uncertainty_ns < best.uncertainty_ns:
            best = sample
    assert best is not None
    ours = "behind" if best.offset_ns > 0 else "ahead of"
    away, doubt = abs(best.offset_ns) / 1e6, best.uncertainty_ns / 1e6
    region = job.region_of(venue)
    place = rest.address + ("" if region is None else f" (region {region})")
    found = f"{place}: our clock is {away:.1f} ms {ours} the venue's, give or take {doubt:.1f} ms"
    if abs(best.offset_ns) - best.uncertainty_ns <= _CLOCK_LIMIT_NS:
        return Finding("", OK, found)
    return Finding("", WARNING, f"{found}; more than 100 ms makes latencies worthless: is NTP running?")


async def _symbols(job: Job, venue: Venue, rest: RestClient, ws_url: str) -> Finding:
    decoder = DECODERS[venue.exchange]
    known: dict[str, Instrument] = {}
    stream = open_stream(venue.exchange, venue.symbols, job.channels_of(venue), ws_url)
    for request in stream.instruments_requests():
        answer = await rest.get(request.path)
        if answer.status == 400:  # how Binance says that it does not know one of them
            found = f"not all of {', '.join(request.symbols)} are known: {answer.body[:200]}"
            return Finding("", FAILED, found, UsageError.exit_code)
        _refuse(job, venue, answer)
        try:
            listed = decoder.decode_instruments(answer.body.encode(), request.symbols)
        except _UNREADABLE as error:
            raise VenueError(f"{answer.url}: cannot be read ({error!r}): {answer.body[:200]}") from error
        known |= {instrument.symbol: instrument for instrument in listed}
    missing = [symbol for symbol in venue.symbols if symbol not in known]
    if missing:
        return Finding("", FAILED, f"{', '.join(missing)}: no such instrument", UsageError.exit_code)
    halted = [
        f"{symbol} is {known[symbol].status}"
        for symbol in venue.symbols
        if known[symbol].status != _TRADING[venue.exchange]
    ]
    if halted:
        return Finding("", WARNING, f"{', '.join(halted)}: not traded now, so its streams are silent")
    return Finding("", OK, f"{', '.join(venue.symbols)}: traded")


async def _stream(job: Job, venue: Venue, url: str) -> Finding:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus, WebSocketException

    place = url.partition("?")[0]
    try:
        socket_ = await connect(url, open_timeout=None, close_timeout=1.0, compression=None)
    except InvalidStatus as error:
        body = bytes(error.response.body or b"").decode(errors="replace")
        refusal = region_refusal(venue.exchange, job.region_of(venue), error.response.status_code, body)
        raise VenueError(refusal or f"{place}: cannot connect ({error})") from error
    except (OSError, WebSocketException, ValueError, ImportError) as error:
        raise VenueError(f"{place}: cannot connect ({error or type(error).__name__})") from error
    with contextlib.suppress(WebSocketException):
        await socket_.close()
    return Finding("", OK, f"{place}: connected")


def _refuse(job: Job, venue: Venue, answer: RestAnswer) -> None:
    """Raise VenueError when the venue refuses us for where we are, or answers with an error."""
    refusal = region_refusal(venue.exchange, job.region_of(venue), answer.status, answer.body)
    if refusal is None and answer.status != 200:
        refusal = f"{answer.url}: status {answer.status}: {answer.body[:200]}"
    if refusal is not None:
        raise VenueError(refusal)
