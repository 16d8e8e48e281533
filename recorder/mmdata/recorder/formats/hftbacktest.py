"""Captures of hftbacktest's collector: gzip, ``<local ns> <json>``; a bare REST book has no stream.

Source: nkaz001/hftbacktest, ``collector/`` and its example files of August 2024.
"""

from __future__ import annotations

from mmdata.recorder.capture import DAMAGED, FRAME, REST, Line


def parse(number: int, text: bytes) -> Line:
    """Return what a line holds; one outside the format is DAMAGED. The one connection is number 0."""
    stamp, space, payload = text.partition(b" ")
    if not space or not stamp.isdigit() or len(stamp) != 19 or int(stamp) >= 2**63:
        return Line(number, DAMAGED, 0, None, text)
    kind = REST if payload.startswith(b'{"lastUpdateId":') else FRAME
    return Line(number, kind, int(stamp), 0, payload)
