"""What a dead recorder left: closed, ingested, put away; nothing twice, nothing lost."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec.structs
import pyarrow as pa
import pytest

from mmdata.datasets.errors import DatasetError, DiskError, UsageError
from mmdata.datasets.layout import list_parts
from mmdata.recorder.capture import CaptureWriter, Event, Header, format_event, read_segment
from mmdata.recorder.importing import import_sources
from mmdata.recorder.lock import exchange_lock
from mmdata.recorder.segments import capture_folder, finish_segment, pending, recover, recover_all
from tests.builders import HEADER, LEVELS, depth, frame, rows


def recorded(root: Path, count: int = 2, header: Header = HEADER) -> CaptureWriter:
    writer = CaptureWriter(
        capture_folder(root, header.exchange) / header.session, header, seconds=60, size=1 << 20
    )
    for number in range(count):
        line = frame(number, depth(100 + 5 * number, *LEVELS))
        writer.write(b"%d 0 %s\n" % (line.ts_recv, line.payload))
    return writer


def test_segment_of_a_killed_recorder_is_recovered_and_its_torn_line_said(tmp_path: Path) -> None:
    writer = recorded(tmp_path)
    os.write(writer.handle, b'1795262400000000009 0 {"stream":"btcus')
    report, done = recover(tmp_path, "binance")
    assert len(done) == 1
    assert "the last line was torn; 38 bytes were cut off" in report.warnings[0]
    assert len(rows(tmp_path, "depth")) == 6
    assert [row["kind"] for row in rows(tmp_path, "events")] == ["torn"]
    assert pending(tmp_path, "binance") == []


def test_recovering_twice_is_recovering_once(tmp_path: Path) -> None:
    recorded(tmp_path)
    recover(tmp_path, "binance")
    assert recover(tmp_path, "binance")[1] == []
    assert len(rows(tmp_path, "depth")) == 6


def test_kept_capture_is_the_same_bytes_compressed(tmp_path: Path) -> None:
    path = recorded(tmp_path).close()
    assert path is not None
    original = path.read_bytes()
    finish_segment(tmp_path, path, keep=True)
    kept = path.with_name("000000.cap.zst")
    with pa.input_stream(str(kept), compression="zstd") as stream:
        assert bytes(stream.read()) == original
    assert not path.exists()
    assert [line.number for line in read_segment(kept).lines] == [0, 1]


def test_capture_is_removed_only_after_its_rows_are_there(tmp_path: Path) -> None:
    path = recorded(tmp_path).close()
    assert path is not None
    finish_segment(tmp_path, path, keep=False)
    assert [*path.parent.iterdir()] == []
    assert len(rows(tmp_path, "depth")) == 6


def test_crash_after_publishing_and_before_putting_the_capture_away_gives_no_row_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recorded(tmp_path).close()
    assert path is not None

    def killed(source: Path, missing_ok: bool = False) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        finish_segment(tmp_path, path, keep=True)
    monkeypatch.undo()
    recover(tmp_path, "binance")
    assert len(rows(tmp_path, "depth")) == 6
    assert pending(tmp_path, "binance") == []


def test_kill_between_the_copys_name_and_the_removal_of_the_capture_gives_no_row_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recorded(tmp_path).close()
    assert path is not None
    original = path.read_bytes()
    unlink = Path.unlink

    def killed(source: Path, missing_ok: bool = False) -> None:
        if source == path:
            raise KeyboardInterrupt
        unlink(source, missing_ok)

    monkeypatch.setattr(Path, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        finish_segment(tmp_path, path, keep=True)
    monkeypatch.undo()
    kept = path.with_name("000000.cap.zst")
    assert sorted(path.parent.iterdir()) == [path, kept]
    recover(tmp_path, "binance")
    assert [*path.parent.iterdir()] == [kept]
    with pa.input_stream(str(kept), compression="zstd") as stream:
        assert bytes(stream.read()) == original
    assert len(rows(tmp_path, "depth")) == 6


@pytest.mark.parametrize("keep", [True, False])
def test_copy_that_a_kill_left_unfinished_is_cleared_away(tmp_path: Path, keep: bool) -> None:
    path = recorded(tmp_path).close()
    assert path is not None
    path.with_suffix(".part").write_bytes(b"half a cop")
    recover(tmp_path, "binance", keep=keep)
    assert [found.name for found in path.parent.iterdir()] == ["000000.cap.zst"] * keep
    assert len(rows(tmp_path, "depth")) == 6


def test_copy_of_a_segment_that_cannot_be_ingested_is_not_left_behind(tmp_path: Path) -> None:
    path = recorded(tmp_path, header=msgspec.structs.replace(HEADER, exchange="kraken")).close()
    assert path is not None
    with pytest.raises(UsageError):
        finish_segment(tmp_path, path, keep=True)
    assert [*path.parent.iterdir()] == [path]


def test_copy_that_finds_no_room_leaves_the_capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recorded(tmp_path).close()
    assert path is not None

    def full(*args: object) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmdata.recorder.segments._compress", full)
    with pytest.raises(DiskError, match="is ingested but cannot be put away"):
        finish_segment(tmp_path, path, keep=True)
    assert [*path.parent.iterdir()] == [path]


def test_segment_that_cannot_be_ingested_stays_and_does_not_hold_up_the_others(tmp_path: Path) -> None:
    folder = capture_folder(tmp_path, "binance") / "20250101T000000Z-aaaaaa"
    folder.mkdir(parents=True)
    (folder / "000000.cap").write_bytes(b"# mmdata-capture 9 {}\n")
    recorded(tmp_path).close()
    report, done = recover(tmp_path, "binance")
    assert len(done) == 1
    assert "version 9" in report.failures[0]
    assert pending(tmp_path, "binance") == [folder / "000000.cap"]


def test_later_segments_of_a_session_wait_for_one_that_cannot_be_ingested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published out of order, the earlier one's rows would be taken for there, and its capture removed."""
    writer = recorded(tmp_path)
    first = writer.rotate().close()
    line = frame(2, depth(110, *LEVELS))
    writer.write(b"%d 0 %s\n" % (line.ts_recv, line.payload))
    second = writer.close()
    content = first.read_bytes()
    first.write_bytes(content.replace(b"# mmdata-capture 1", b"# mmdata-capture 9"))
    report, done = recover(tmp_path, "binance", keep=False)
    assert done == []
    assert "version 9" in report.failures[0]
    assert f"{second}: is not ingested, since an earlier segment" in report.failures[1]
    first.write_bytes(content)
    _, done = recover(tmp_path, "binance", keep=False)
    assert done == [first, second]
    assert [row["frame"] for row in rows(tmp_path, "depth")] == [0] * 3 + [1] * 3 + [2] * 3


def test_segment_that_comes_after_a_later_one_is_refused_and_its_capture_stays(tmp_path: Path) -> None:
    writer = recorded(tmp_path)
    first = writer.rotate().close()
    line = frame(2, depth(110, *LEVELS))
    writer.write(b"%d 0 %s\n" % (line.ts_recv, line.payload))
    second = writer.close()
    assert second is not None
    finish_segment(tmp_path, second, keep=False)
    with pytest.raises(DatasetError, match="frames from 0 on of BTCUSDT come after frame 2 was published"):
        finish_segment(tmp_path, first, keep=False)
    assert first.exists()
    assert {row["frame"] for row in rows(tmp_path, "depth")} == {2}


def test_capture_of_an_unknown_exchange_is_refused_and_stays(tmp_path: Path) -> None:
    path = recorded(tmp_path, header=msgspec.structs.replace(HEADER, exchange="kraken")).close()
    report, done = recover(tmp_path, "kraken")
    assert done == []
    assert "is a capture of 'kraken', this mmdata knows binance" in report.failures[0]
    assert path is not None
    assert path.exists()


def test_our_own_captures_are_imported_in_the_order_of_their_segments(tmp_path: Path) -> None:
    writer = recorded(tmp_path)
    first = writer.rotate().close()
    line = frame(2, depth(110, *LEVELS))
    writer.write(b"%d 0 %s\n" % (line.ts_recv, line.payload))
    second = writer.close()
    assert second is not None
    import_sources([second, first], tmp_path / "data", source_format="mmdata")
    assert [row["frame"] for row in rows(tmp_path / "data", "depth")] == [0] * 3 + [1] * 3 + [2] * 3


def test_empty_segment_of_a_recorder_killed_at_its_start_is_cleared_away(tmp_path: Path) -> None:
    folder = capture_folder(tmp_path, "binance") / "20250101T000000Z-aaaaaa"
    folder.mkdir(parents=True)
    (folder / "000000.open").write_bytes(b"# mmdata-cap")
    assert recover(tmp_path, "binance")[1] == []
    assert pending(tmp_path, "binance") == []


def test_segments_of_one_session_number_their_parts_on(tmp_path: Path) -> None:
    writer = recorded(tmp_path)
    first = writer.rotate().close()
    writer.write(format_event(1_795_262_400_000_000_100, Event("session_end")))
    line = frame(3, depth(110, *LEVELS))
    writer.write(b"%d 0 %s\n" % (line.ts_recv, line.payload))
    second = writer.close()
    assert second is not None
    for path in (first, second):
        finish_segment(tmp_path, path, keep=True)
    assert [part.n for part in list_parts(tmp_path, "depth")] == [0, 1]
    assert [row["frame"] for row in rows(tmp_path, "depth")] == [0] * 3 + [1] * 3 + [3] * 3


def test_all_exchanges_are_recovered_but_not_beside_a_living_recorder(tmp_path: Path) -> None:
    recorded(tmp_path)
    with (
        exchange_lock(capture_folder(tmp_path, "binance"), "binance"),
        pytest.raises(UsageError, match="is being recorded"),
    ):
        recover_all(tmp_path)
    assert len(recover_all(tmp_path)[1]) == 1
