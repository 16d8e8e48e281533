"""A small certified dataset, made as recovery makes it of captures."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec.structs

from mmdata.recorder.capture import CaptureWriter, Event, Header, RestAnswer, format_event, format_rest
from mmdata.recorder.segments import capture_folder, recover_all
from tests.builders import HEADER, NOON, depth, frame

LATER = "20261121T130000Z-bbbbbb"
LEVELS = ([["100.20", "2"], ["100.10", "1.5"]], [["100.30", "0.00000001"]])
Levels = list[list[str]]
FINE: tuple[Levels, Levels] = ([["0.000000000123", "1"]], [])


def trade(number: int) -> dict[str, object]:
    """Return a frame with one trade."""
    data = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": number, "p": "100.2", "q": "0.5", "T": 1, "m": True}
    return {"stream": "btcusdt@trade", "data": data | {"T": NOON // 1_000_000}}


def lines_of(number: int, at: int, ts: int, *, fine: bool) -> list[bytes]:
    """Return the lines of segment ``number`` of a session: books from id ``at`` on, trades, one riddle."""
    told = [
        format_event(ts, Event("session_start" if number == 0 else "subscribed", detail={"n": number})),
        *(
            b"%d 0 %s\n" % (ts + own, frame(own, message).payload)
            for own, message in (
                (1, depth(at, *LEVELS)),
                (2, trade(7 + 2 * number)),
                (4, depth(at + 5, *(FINE if fine else LEVELS))),
                (5, trade(8 + 2 * number)),
                (6, b"{what nobody understands"),
            )
        ),
    ]
    book = json.dumps({"lastUpdateId": at + 4, "bids": [["100.10", "2"]], "asks": [["100.30", "5.5"]]})
    answer = RestAnswer(
        ts, "/depth", 200, {}, book, "snapshot", "BTCUSDT", "start" if number == 0 else "audit"
    )
    told.insert(3, format_rest(ts + 3, 0, answer))
    return told


def write_capture(
    root: Path, *, session: str = HEADER.session, segments: int = 2, ts: int = NOON, fine: bool = False
) -> list[Path]:
    """Write the closed segments of a session, with ``fine`` the second is of numbers that make it wide."""
    paths, first_frame = [], 0
    for number in range(segments):
        lines = lines_of(number, 100 + 10 * number, ts + 1_000 * number, fine=fine and number == 1)
        header: Header = msgspec.structs.replace(
            HEADER, session=session, segment=number, first_frame=first_frame
        )
        writer = CaptureWriter(capture_folder(root, "binance") / session, header, seconds=60, size=1 << 20)
        for line in lines:
            writer.write(line)
        first_frame += len(lines)
        path = writer.close()
        assert path is not None
        paths.append(path)
    return paths


def certified(root: Path, *, fine: bool = False, keep: bool = True) -> Path:
    """Record two sessions of two segments, ingest and certify them."""
    write_capture(root, fine=fine)
    write_capture(root, session=LATER, ts=NOON + 10**9)
    report, _ = recover_all(root, keep=keep)
    assert report.failures == report.warnings == []
    assert report.certified == 2
    return root
