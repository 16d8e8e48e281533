"""Defects of what surrounds the rows: quarantine, torn ends, captures that wait, sessions without an end."""

from __future__ import annotations

import numpy as np

from mmdata.datasets.layout import CAPTURES
from mmdata.sandbox.defects.ground import Site
from mmdata.sandbox.defects.kinds import Where, kind

_SESSION = frozenset({"session"})


def _line(site: Site) -> tuple[str, int, int]:
    """Return session, ordinal and time of a line amid the session that made no row."""
    events = site.filled("events", 1)
    last = int(events.ints("frame")[-1])
    frame, ts_recv = site.free_line(last // 4, last - 2)
    return events.value("session", 0), frame, ts_recv


@kind("quarantine", severity="warning", touches=_SESSION, session_wide=True)
def frame_quarantined(site: Site) -> Where:
    """A frame could not be decoded and lies in quarantine."""
    session, frame, ts_recv = _line(site)
    base = {"session": session, "frame": frame, "ts_recv": ts_recv, "conn": 1}
    error = "cannot be decoded: Input data was truncated"
    site.add_rows("quarantine", site.symbol, [{**base, "error": error, "frame_text": '{"stream":"btcus'}])
    detail = f'{{"error":"{error}"}}'
    site.add_rows("events", site.symbol, [{**base, "kind": "quarantine", "detail": detail}])
    return {"session": session, "frame": frame}


@kind("torn", severity="warning", touches=_SESSION, session_wide=True)
def torn_event(site: Site) -> Where:
    """A capture ended in the middle of a line."""
    events = site.filled("events", 1)
    row = events.row(len(events) - 1)
    base = {name: row[name] for name in ("session", "frame", "ts_recv")}
    detail = f'{{"bytes":{site.rng.randrange(1, 500)}}}'
    site.add_rows("events", site.symbol, [{**base, "kind": "torn", "detail": detail}])
    return {"session": row["session"], "frame": row["frame"]}


@kind("pending", severity="info", touches=_SESSION, session_wide=True)
def capture_pending(site: Site) -> Where:
    """A capture is not ingested yet: its rows are missing."""
    folder = site.root / CAPTURES / site.exchange / "20200101T080000Z-abcdef"
    folder.mkdir(parents=True)
    path = folder / f"000000.{site.rng.choice(['cap', 'open'])}"
    path.write_bytes(b"# mmdata-capture 1 {}\n")
    return {"file": str(path.relative_to(site.root))}


@kind("session", severity="warning", touches=_SESSION, session_wide=True)
def session_end_lost(site: Site) -> Where:
    """A session has no end, though nobody writes it."""
    events = site.filled("events", 1)
    row = int(site.pick(np.flatnonzero(events.words("kind") == "session_end")))
    session = events.value("session", row)
    events.drop([row])
    events.save()
    return {"session": session}


@kind("session", severity="warning", touches=_SESSION, session_wide=True)
def connected_twice(site: Site) -> Where:
    """A connection is said to have been opened twice."""
    events = site.filled("events", 1)
    opened = events.row(int(site.pick(np.flatnonzero(events.words("kind") == "connected"))))
    session, frame, ts_recv = _line(site)
    site.add_rows("events", site.symbol, [opened | {"frame": frame, "ts_recv": ts_recv}])
    return {"session": session, "frame": frame}
