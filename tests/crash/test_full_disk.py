"""A disk that fills up while both venues are recorded: exit 4, and everything until then is there."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmdata.datasets.layout import list_symbols
from mmdata.datasets.validation import validate
from mmdata.recorder.segments import recover_all
from tests.builders import rows
from tests.crash.board import Board
from tests.crash.recording import check_recording, recording

_SIZE = 32 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a folder that holds 32 MiB and no more."""
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "none", str(folder)]
        mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no tmpfs can be mounted here (there is no mount)")
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here (not root)")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, *, leave: int) -> Path:
    """Write zeros until only so many bytes are free, after those of earlier times; return the file."""
    told = os.statvfs(folder)
    ballast = folder / "ballast"
    # Full is what it is to be; the recorder may have filled it, and then not even a file can be made.
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        left = told.f_bavail * told.f_frsize - leave
        while left > 0:
            left -= file.write(bytes(min(left, 1 << 16)))
    return ballast


def recorded_until_full(
    tmp_path: Path, small_disk: Path, market: list[Path], *, leave: int, min_free: str, stop_free: str
) -> str:
    """Fill the disk during a recording, check what is left of it; return what the recorder said."""
    data = small_disk / "data"
    with recording(tmp_path, market, root=str(data), min_free=min_free, stop_free=stop_free) as running:
        running.wait_until(lambda: len(list_symbols(data)) == 4, "tables of every symbol")
        deadline = time.monotonic() + 60
        while running.process.poll() is None and time.monotonic() < deadline:
            ballast = fill(small_disk, leave=leave)  # again, as ingest makes room by removing captures
            running.sleep(0.3)
        _, said = running.process.communicate(timeout=1)
        assert running.process.returncode == 4, said
    validate(data)  # readable as it is
    ballast.unlink(missing_ok=True)
    report, _ = recover_all(data)
    assert report.failures == []
    board = Board(tmp_path / "board")
    found = check_recording(data, tmp_path / "truth", board, tmp_path / "again")
    assert found.behind_counter <= 1
    assert validate(data).count("error") == 0
    board.close()
    return said


def test_below_the_floor_captures_are_closed_and_ingested(
    tmp_path: Path, small_disk: Path, market: list[Path]
) -> None:
    said = recorded_until_full(
        tmp_path, small_disk, market, leave=6 << 20, min_free="32MiB", stop_free="8MiB"
    )
    assert "less than stop_free (8MiB); recording ended and its captures are closed" in said
    notices = [row["detail"] for row in rows(small_disk / "data", "events") if row["kind"] == "notice"]
    assert len(notices) == 2  # one a venue, not one a second
    assert all("less than min_free (32MiB)" in detail for detail in notices)
    events = [row["kind"] for row in rows(small_disk / "data", "events")]
    assert events.count("session_end") == 2


def test_disk_that_is_full_at_once_cuts_no_line_in_two(
    tmp_path: Path, small_disk: Path, market: list[Path]
) -> None:
    said = recorded_until_full(tmp_path, small_disk, market, leave=0, min_free="0B", stop_free="0B")
    assert "everything recorded before is kept" in said or "could not be written" in said


def test_nothing_is_recorded_below_the_floor(tmp_path: Path, small_disk: Path, market: list[Path]) -> None:
    with recording(tmp_path, market, root=str(small_disk / "data"), stop_free="1GiB") as running:
        _, said = running.process.communicate(timeout=30)
    assert running.process.returncode == 4
    assert "expected at least stop_free (1GiB); nothing is recorded" in said
    assert [*(small_disk / "data" / ".captures").glob("*/*/*")] == []
