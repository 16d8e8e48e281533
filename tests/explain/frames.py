"""Connection by connection: what was recorded is what was sent, byte for byte and in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mmdata.recorder.capture import EVENT, FRAME, REST, Event, Line, RestAnswer
from mmdata.sandbox.faults import FaultRecord
from mmdata.sandbox.truth import SentFrame
from tests.sent import kept_segments, numbered_lines, sent_frames

_LARGEST = 16 << 20
"""Bytes of a message that the recorder takes."""
_IN_FLIGHT_NS = 2_000_000_000
"""What was sent so long before a connection's end may have been on its way still."""
_HELD = ("stall", "delay", "rest_ahead")


@dataclass(frozen=True)
class Captured:
    """Everything that one venue's capture holds."""

    frames: dict[int, list[Line]]
    """By connection, in order."""
    events: list[tuple[Line, Event]]
    answers: list[tuple[Line, RestAnswer]]
    lines: int


@dataclass
class Matched:
    """What came of comparing the connections of a venue."""

    sent: int = 0
    recorded: int = 0
    tails: Counter[str] = field(default_factory=Counter)
    """Frames that were under way when their connection ended, by why it ended."""
    conns: dict[int, int] = field(default_factory=dict)
    """Number of a connection as recorded -> as the sandbox counts."""
    unexplained: list[str] = field(default_factory=list)


def read_capture(root: Path, venue: str) -> Captured:
    """Read all segments of a venue, which must be ingested."""
    frames: dict[int, list[Line]] = {}
    events: list[tuple[Line, Event]] = []
    answers: list[tuple[Line, RestAnswer]] = []
    count = 0
    for line in numbered_lines(kept_segments(root, venue)):
        count += 1
        if line.kind == FRAME:
            assert line.conn is not None
            frames.setdefault(line.conn, []).append(line)
        elif line.kind == EVENT:
            events.append((line, msgspec.json.decode(line.payload, type=Event)))
        elif line.kind == REST:
            answers.append((line, msgspec.json.decode(line.payload, type=RestAnswer)))
    return Captured(frames, events, answers, count)


def match_connections(captured: Captured, truth: Path, venue: str, faults: Iterable[FaultRecord]) -> Matched:
    """Compare every connection of a venue: in order of opening, and by content where two opened at once."""
    matched = Matched()
    left = sent_frames(truth).get(venue, [])
    ended = {
        event.conn: (line.ts_recv, str(event.detail["reason"]))
        for line, event in captured.events
        if event.kind == "disconnected" and event.conn is not None
    }
    aborted = {record.conn for record in faults if record.kind == "abort"}
    matched.sent = sum(map(len, left))
    for conn, lines in sorted(captured.frames.items()):
        matched.recorded += len(lines)
        told = next((told for told in left if _is_prefix(lines, told)), None)
        if told is None:
            matched.unexplained.append(f"{venue}: what connection {conn} recorded is not what any was sent")
            continue
        left.remove(told)
        matched.conns[conn] = told[0].conn
        if tail := told[len(lines) :]:
            ended_ns, reason = ended.get(conn, (0, "its end is not on record"))
            why = _why(tail, ended_ns, reason, was_cut=told[0].conn in aborted)
            if why is None:
                matched.unexplained.append(
                    f"{venue}: connection {conn} lacks its last {len(tail)} frames ({reason}), the oldest "
                    f"sent {(ended_ns - tail[0].ts) / 1e9:.1f} s before its end"
                )
            else:
                matched.tails[why] += len(tail)
    for told in left:
        # Its handshake was under way when it ended: nothing came of it here.
        if told[0].conn in aborted or told[-1].ts - told[0].ts < _IN_FLIGHT_NS:
            matched.tails["never opened here"] += len(told)
        else:
            matched.unexplained.append(
                f"{venue}: connection {told[0].conn} was sent {len(told)} frames, none is here"
            )
    return matched


def _is_prefix(lines: list[Line], told: list[SentFrame]) -> bool:
    return len(lines) <= len(told) and all(
        line.payload == frame.frame.encode() for line, frame in zip(lines, told, strict=False)
    )


def _why(tail: list[SentFrame], ended_ns: int, reason: str, *, was_cut: bool) -> str | None:
    """Return why the end of what was sent is not recorded; None: nothing explains it."""
    if len(tail[0].frame) > _LARGEST:
        return "an oversized frame, and what came behind it"
    if was_cut:
        return "the venue cut the connection"
    if ended_ns and tail[0].ts > ended_ns - _IN_FLIGHT_NS:
        return "the recorder hung up" if _by_us(reason) else "the connection was closed"
    return None


def _by_us(reason: str) -> bool:
    return reason.startswith(("replaced", "the recording ends", "it does not bring", "nothing came"))
