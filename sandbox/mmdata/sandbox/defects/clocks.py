"""Defects of time: clocks that are wrong or step, what came too late, and what did not come for too long."""

from __future__ import annotations

import json

import numpy as np
from numpy.typing import NDArray

from mmdata.datasets.market import NO_TIME
from mmdata.sandbox.defects.ground import Ints, NoPlaceError, Sheet, Site
from mmdata.sandbox.defects.kinds import BOOK, TRADES, Where, at_row, kind

_MS = 1_000_000
_S = 1_000_000_000
_MINUTE = 60 * _S
_CHANNELS = ("depth", "trades", "bbo")
_CLOCK = frozenset({"clock"})
_ALL_TIMES = BOOK | TRADES | _CLOCK
_LATE_NS = 1_000 * _MS
_LATE_SHARE = 0.01


def _heads(sheet: Sheet) -> Ints:
    """Return a row a message: of `depth` the last one, else each."""
    rows: Ints = np.arange(len(sheet))
    if sheet.table == "depth":
        rows = rows[sheet.flags("is_last")]
    return rows


def _latencies(sheet: Sheet, rows: Ints) -> Ints:
    """Return ``ts_recv - ts_event`` of rows, those left out whose venue sends no time."""
    event = sheet.ints("ts_event")[rows]
    latencies: Ints = sheet.ints("ts_recv")[rows][event != NO_TIME] - event[event != NO_TIME]
    return latencies


def _first(sheet: Sheet, row: int, **more: object) -> Where:
    where = at_row(sheet.at(row), sheet.row(row), table=sheet.table, **more)
    del where["row"], where["file"]
    return where


@kind("latency", severity="warning", touches=_ALL_TIMES)
def clock_behind(site: Site) -> list[Where]:
    """The venue's clock is ahead of ours, and no measurement says so: rows arrive before they are."""
    by = site.rng.randrange(500, 3000) * _MS
    sheets = [sheet for table in (*_CHANNELS, "snapshots") if len(sheet := site.sheet(table))]
    found = [where for sheet in sheets if sheet.table in _CHANNELS for where in _early(sheet, by)]
    if not found:
        raise NoPlaceError
    for sheet in sheets:
        for name in ("ts_event", "ts_sent"):
            if name in sheet.rows.column_names:
                values = sheet.ints(name)
                sheet.set(
                    name, {row: int(values[row]) + by for row in np.flatnonzero(values != NO_TIME).tolist()}
                )
        sheet.save()
    return found


def _early(sheet: Sheet, by: int) -> list[Where]:
    """Return the places of a channel once its venue's clock is ahead, one a day.

    NoPlaceError: some of it is early already, or is so late that it would not be early then.
    """
    rows = _heads(sheet)
    timed = rows[sheet.ints("ts_event")[rows] != NO_TIME]
    latencies = _latencies(sheet, timed)
    if len(latencies) and (latencies.min() < 0 or latencies.max() > by - 10 * _MS):
        raise NoPlaceError
    _, counts = np.unique(sheet.ints("ts_recv")[timed] // (86_400 * _S), return_counts=True)
    return [{"table": sheet.table, "count": int(n)} for n in counts]


@kind("latency", severity="warning", touches=_ALL_TIMES)
def latency_spike(site: Site) -> list[Where]:
    """For some seconds nothing arrived, then everything at once."""
    times = site.depth.ints("ts_recv")
    first, last = int(times[len(times) // 20]), int(times[-1])
    minutes = range(first // _MINUTE + 1, last // _MINUTE)
    begin = int(site.pick(minutes)) * _MINUTE + site.rng.randrange(5 * _S, 40 * _S)
    end = begin + site.rng.randrange(4 * _S, 8 * _S)
    found = []
    for table in (*_CHANNELS, "snapshots", "events"):
        sheet = site.sheet(table)
        times, frames = sheet.ints("ts_recv"), sheet.ints("frame")
        held = np.flatnonzero((times >= begin) & (times < end))
        if not len(held):
            continue
        # They come at once, and still in their order.
        sheet.set("ts_recv", {row: end + int(frames[row] - frames[held[0]]) for row in held.tolist()})
        where = _late(sheet, end // _MINUTE) if table in _CHANNELS else None
        if where is not None:
            found.append(where)
        sheet.save()
    return found


def _late(sheet: Sheet, minute: int) -> Where | None:
    """Return the place of the late messages of a minute, where they are more than a hundredth of all."""
    rows = _heads(sheet)
    rows = rows[
        (sheet.ints("ts_event")[rows] != NO_TIME) & (sheet.ints("ts_recv")[rows] // _MINUTE == minute)
    ]
    late = rows[_latencies(sheet, rows) > _LATE_NS]
    if len(late) <= _LATE_SHARE * len(rows):
        return None
    return _first(sheet, int(late[0]), count=len(late))


@kind("clock", severity="warning", touches=_ALL_TIMES)
def recv_steps_back(site: Site) -> Where:
    """Our clock was lower at a row than at the one before."""
    sheet = site.filled(site.pick(["trades", "bbo"]))
    times, event = sheet.ints("ts_recv"), sheet.ints("ts_event")
    step = np.diff(times)
    by = site.rng.randrange(5, 12) * _MS
    close = np.flatnonzero(step < 2 * _MS) + 1
    known: NDArray[np.bool_] = event[close] != NO_TIME
    # Where it was positive the latency stays so: this is to be one defect, not two.
    fine = ~known | ((times - event)[close] < 0) | ((times - event)[close] - step[close - 1] > by + 2 * _MS)
    inside = sheet.part[close] == sheet.part[close - 1]
    row = int(site.pick(close[fine & inside]))
    where = _first(sheet, row)
    sheet.set("ts_recv", {row: int(times[row - 1]) - by})
    sheet.save()
    return where


@kind("clock", severity="warning", touches=_ALL_TIMES)
def event_steps_back(site: Site) -> Where:
    """The venue's clock was seconds lower at a message than at the one before."""
    sheet, messages = site.depth, site.messages
    event = sheet.ints("ts_event")
    # It is late then, too: one among so many of its minute that this is no defect of its own.
    _, minute = np.unique(messages.ts_recv // _MINUTE, return_inverse=True)
    is_late = messages.ts_recv - event[messages.start] > _LATE_NS
    late = np.bincount(minute, is_late) + 1
    hides = (late <= _LATE_SHARE * np.bincount(minute))[minute]
    rows = messages.rows(int(site.pick(np.flatnonzero(hides)[20:-2])))
    where = _first(sheet, rows[0])
    by = site.rng.randrange(1_500, 3_000) * _MS
    sheet.set("ts_event", {row: int(event[row]) - by for row in rows})
    sheet.save()
    return where


def _journal_place(site: Site) -> tuple[Sheet, int, int]:
    """Return the events that concern no symbol, and an ordinal and time amid the session for one more."""
    events = site.filled("events", 1)
    frames = events.ints("frame")
    frame, ts_recv = site.free_line(int(frames[-1]) // 4, int(frames[-1]) - 2)
    return events, frame, ts_recv


@kind("clock", severity="warning", touches=_CLOCK, session_wide=True)
def clock_event_step(site: Site) -> Where:
    """The recorder noted that the system's clock was set."""
    events, frame, ts_recv = _journal_place(site)
    session = events.value("session", 0)
    step = site.rng.choice([-1, 1]) * site.rng.randrange(200, 5000) * _MS
    row = {"kind": "clock", "detail": json.dumps({"step_ns": step}, separators=(",", ":"))}
    site.add_rows("events", site.symbol, [{"session": session, "frame": frame, "ts_recv": ts_recv, **row}])
    return {"session": session, "frame": frame}


@kind("silence", severity="warning", touches=_ALL_TIMES)  # any gap on record within it would explain it
def silence(site: Site) -> Where:
    """Best bids and asks stopped for more than a minute, though connected."""
    sheet = site.filled("bbo")
    times = sheet.ints("ts_recv")
    length = site.rng.randrange(75 * _S, 130 * _S)
    room = int(times[-1] - times[0]) - length - 20 * _S
    if room <= 0:
        raise NoPlaceError
    begin = int(times[0]) + 10 * _S + site.rng.randrange(room)
    gone = np.flatnonzero((times >= begin) & (times < begin + length))
    if np.diff(times).max() > 30 * _S or not len(gone):
        raise NoPlaceError
    where = _first(sheet, int(gone[-1]) + 1)
    sheet.drop(gone.tolist())
    sheet.save()
    return where


@kind("coverage", severity="warning", touches=_CLOCK, session_wide=True)
def minutes_missing(site: Site) -> list[Where]:
    """The recording began minutes after the window had opened."""
    events = site.filled("events", 1)
    at = np.flatnonzero(events.words("kind") == "window_open")
    row = int(site.pick(at))
    detail = json.loads(events.value("detail", row))
    minutes = site.rng.randrange(2, 20)
    begun = events.value("ts_recv", row) // _MINUTE
    opened = np.datetime64((begun - minutes) * _MINUTE, "ns").astype("datetime64[s]")
    detail["start"] = str(opened).replace("T", " ") + "+00:00"
    events.set("detail", {row: json.dumps(detail, separators=(",", ":"))})
    events.save()
    return [{"symbol": symbol, "count": minutes} for symbol in site.symbols()]
