"""What a sandbox sent and what a recorder kept of it, as both wrote it down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from mmdata.recorder.capture import Line, Segment, read_segment
from mmdata.sandbox.truth import SentFrame

_Record = TypeVar("_Record", bound=msgspec.Struct)


def told(truth: Path, name: str, kind: type[_Record]) -> Iterator[_Record]:
    """Yield the records of one file of a truth, which may be larger than memory."""
    decode = msgspec.json.Decoder(kind).decode
    with (truth / f"{name}.jsonl").open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decode(line)


def sent_frames(truth: Path) -> dict[str, list[list[SentFrame]]]:
    """Return what was sent: by venue, of each connection in the order of their numbers."""
    by_number: dict[tuple[str, int], list[SentFrame]] = {}
    for frame in told(truth, "frames", SentFrame):
        by_number.setdefault((frame.venue, frame.conn), []).append(frame)
    sent: dict[str, list[list[SentFrame]]] = {}
    for (venue, _), frames in sorted(by_number.items()):
        sent.setdefault(venue, []).append(frames)
    return sent


def kept_segments(root: Path, venue: str) -> list[Segment]:
    """Return a venue's ingested captures in order; AssertionError when one is not ingested."""
    paths = sorted((root / ".captures" / venue).glob("*/*.cap*"))
    assert all(path.name.endswith(".cap.zst") for path in paths), paths
    return [read_segment(path) for path in paths]


def numbered_lines(segments: list[Segment]) -> Iterator[Line]:
    """Yield the lines of segments in order; AssertionError when one is torn, or a number missing."""
    number = 0
    for segment in segments:
        for line in segment.lines:
            assert line.number == number, f"{segment.path}: line {line.number}, expected {number}"
            number += 1
            yield line
        assert segment.torn == 0, segment.path
