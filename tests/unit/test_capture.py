"""The capture file: one line a frame, whatever the frame is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmdata.datasets.errors import DiskError, UsageError
from mmdata.recorder.capture import (
    DAMAGED,
    EVENT,
    FRAME,
    REST,
    SENT,
    CaptureWriter,
    Event,
    RestAnswer,
    cut_torn_line,
    format_event,
    format_frame,
    format_rest,
    format_sent,
    parse_line,
    read_segment,
)
from tests.builders import HEADER


@given(st.binary(max_size=200), st.integers(0, 2**62), st.integers(0, 99))
def test_any_frame_comes_back_byte_for_byte_from_one_line(frame: bytes, ts: int, conn: int) -> None:
    line = format_frame(ts, conn, frame, is_text=True)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    line.decode()  # the file is UTF-8
    parsed = parse_line(3, line[:-1])
    assert parsed == (3, FRAME, ts, conn, frame)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"12",
        b"12 0",
        b"x 0 {}",
        b"12 q {}",
        b"12 0b not base64",
        b"-3 0 {}",
        b"12  {}",
        b"9" * 30 + b" 0 {}",
    ],
)
def test_line_outside_the_grammar_is_damaged_and_keeps_its_bytes(text: bytes) -> None:
    parsed = parse_line(3, text)
    assert (parsed.kind, parsed.payload) == (DAMAGED, text)


def test_each_kind_of_line_is_told_apart() -> None:
    answer = RestAnswer(t0=1, url="u", status=200, headers={}, body="{}")
    lines = [
        format_frame(1, 0, b"{}", is_text=True),
        format_frame(1, 0, b"{}", is_text=False),
        format_sent(2, 4, b"ping"),
        format_rest(3, 1, answer),
        format_event(4, Event("gap", last_id=3)),
    ]
    kinds = [parse_line(0, line[:-1]).kind for line in lines]
    assert kinds == [FRAME, FRAME, SENT, REST, EVENT]


def writer(folder: Path, *, size: int = 1 << 20) -> CaptureWriter:
    return CaptureWriter(folder, HEADER, seconds=60, size=size)


def test_segment_reads_back_what_was_written_with_running_numbers(tmp_path: Path) -> None:
    capture = writer(tmp_path)
    capture.write(format_frame(10, 0, b'{"a":1}', is_text=True))
    first = capture.rotate().close()
    capture.write(format_sent(11, 0, b"ping"))
    second = capture.close()
    assert second is not None
    assert [first.name, second.name] == ["000000.cap", "000001.cap"]
    read = [read_segment(path) for path in (first, second)]
    assert [[line.number for line in segment.lines] for segment in read] == [[0], [1]]
    assert [segment.header.first_frame for segment in read] == [0, 1]


def test_segment_is_due_by_size_and_by_age(tmp_path: Path) -> None:
    capture = CaptureWriter(tmp_path, HEADER, seconds=60, size=2_000)
    assert not capture.is_due(100.0)
    assert capture.is_due(160.0)
    capture.write(b"x" * 2_000 + b"\n")
    assert capture.is_due(100.0)
    capture.close()


def test_torn_last_line_is_not_read_and_is_cut_off_on_recovery(tmp_path: Path) -> None:
    capture = writer(tmp_path)
    capture.write(format_frame(10, 0, b'{"a":1}', is_text=True))
    whole = capture.path.stat().st_size
    os.write(capture.handle, b'11 0 {"a":')
    assert [line.number for line in read_segment(capture.path).lines] == [0]
    assert cut_torn_line(capture.path) == 10
    assert capture.path.stat().st_size == whole
    assert cut_torn_line(capture.path) == 0
    capture.close()


@pytest.mark.parametrize("block", [1, 7, 300, 1 << 20])
def test_lines_are_the_same_whatever_the_size_of_the_blocks_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    capture = writer(tmp_path)
    frames = [b'{"a":%d}' % i * i for i in range(40)]
    for at, frame in enumerate(frames):
        capture.write(format_frame(at, 0, frame, is_text=True))
    os.write(capture.handle, b"99 0 torn")
    monkeypatch.setattr("mmdata.recorder.capture.SIZE", block)
    segment = read_segment(capture.path)
    assert [(line.number, line.payload) for line in segment.lines] == [*enumerate(frames)]
    assert segment.torn == len(b"99 0 torn")
    capture.close()


def test_segment_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"x\.cap: cannot be read"):
        read_segment(tmp_path / "x.cap")


def test_short_write_is_cut_back_to_the_last_whole_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = writer(tmp_path)
    capture.write(b"1 0 {}\n")
    before = capture.path.read_bytes()
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: write(handle, line[:4]))
    with pytest.raises(DiskError, match="only part of a line"):
        capture.write(b"2 0 {}\n")
    assert capture.path.read_bytes() == before
    monkeypatch.undo()
    capture.write(b"3 0 {}\n")  # space has come back: appending goes on behind the last whole line
    closed = capture.close()
    assert closed is not None
    assert [line.ts_recv for line in read_segment(closed).lines] == [1, 3]


def test_file_that_is_no_capture_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "x.cap"
    path.write_text("1723161253937085768 {}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"x\.cap: does not begin with '# mmdata-capture'"):
        read_segment(path)


def test_capture_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.cap"
    path.write_text("# mmdata-capture 9 {}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="version 9, this mmdata reads 1"):
        read_segment(path)


def test_segment_whose_header_finds_no_room_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda handle, line: 0)
    with pytest.raises(DiskError, match="only part of a line"):
        writer(tmp_path)
    assert [*tmp_path.iterdir()] == []


def test_next_segment_that_cannot_be_made_is_told_and_the_closed_one_is_not_closed_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = writer(tmp_path)
    capture.write(b"1 0 {}\n")

    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(DiskError, match=r"cannot be closed|000001\.open: cannot be made"):
        capture.rotate().close()
    assert capture.close() is None
