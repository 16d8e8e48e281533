"""What a fault did, so that a test can explain every difference between sent and received."""

from __future__ import annotations

import re

from msgspec import Struct

_IDS = (
    re.compile(r'"U":(\d+),"u":(\d+)'),
    re.compile(r'"seqId":(?P<last>-?\d+),"prevSeqId":(?P<first>-?\d+)'),
    re.compile(r'"(?:t|a|u)":(\d+)'),
    re.compile(r'"tradeId":"(\d+)"'),
    re.compile(r'"seqId":(-?\d+)'),
)


class FaultRecord(Struct, frozen=True, omit_defaults=True):
    """One deed of one fault; ``ts`` in ns.

    fault      its place in the script, from 0
    kind       its kind; ``unsent``: a frame that it held was never sent, for the connection was gone
    conn       the connection, 0 when it concerns the venue
    key, ids   the subscription, and the frame's first and last id where it has some
    frame      the text as it would have been sent (withheld, held or altered)
    note       in words, what was done
    """

    ts: int
    venue: str
    fault: int
    kind: str
    conn: int = 0
    key: str = ""
    ids: tuple[int, int] | None = None
    frame: str = ""
    note: str = ""


def frame_ids(text: str) -> tuple[int, int] | None:
    """Return first and last id of a frame: of a diff ``U, u`` or ``prevSeqId, seqId``, else one id twice.

    >>> frame_ids('{"e":"depthUpdate","U":5,"u":8}'), frame_ids('{"tradeId":"7"}'), frame_ids("{}")
    ((5, 8), (7, 7), None)
    """
    for pattern in _IDS:
        if match := pattern.search(text):
            named = match.groupdict()
            if named:
                return int(named["first"]), int(named["last"])
            return int(match[1]), int(match[match.lastindex or 1])
    return None
