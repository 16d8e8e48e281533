"""The status file: what is written, what is made of it, and that a dead or hanging recorder is found out."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from mmdata.datasets.errors import VenueError
from mmdata.recorder.counts import Counts
from mmdata.recorder.status import (
    SCHEMA,
    Status,
    check,
    judge,
    read_status,
    status_of,
    write_status,
    writing_status,
)
from mmdata.recorder.watch import RecentLag, Watch
from tests.watched import NOW, SECOND, full_watch

PAGE = (Path(__file__).parents[2] / "docs/monitoring.md").read_text(encoding="utf-8")


def told(watch: Watch) -> Status:
    return status_of(watch, "okx", NOW, RecentLag())


def path_of(root: Path) -> Path:
    folder = root / ".captures/okx"
    folder.mkdir(parents=True)
    return folder / "status.json"


@pytest.mark.parametrize(
    ("change", "alive", "later_s", "stale", "words"),
    [
        ({}, True, 0.0, False, "okx: recording"),
        ({}, True, 9.0, False, "okx: recording"),
        ({}, True, 11.0, True, "wrote its status 11 s ago, expected once a second"),
        ({}, True, -3600.0, False, "okx: recording"),  # our clock stepped back
        ({}, False, 0.0, True, "is gone and did not end its recording"),
        ({"last_frame": NOW - 61 * SECOND}, True, 0.0, True, "no frame for 61 s since the newest one"),
        ({"last_frame": None, "started": NOW - 61 * SECOND}, True, 0.0, True, "for 61 s since its start"),
        ({"last_frame": None, "started": NOW - 59 * SECOND}, True, 0.0, False, "okx: recording"),
        ({"state": "recovering"}, True, 0.0, False, "ingests what an earlier run left"),
        ({"state": "waiting", "last_frame": None}, True, 0.0, False, "waits for its window to open"),
        ({"state": "waiting"}, False, 0.0, True, "is gone"),
        ({"state": "ending", "last_frame": NOW - 61 * SECOND}, True, 0.0, False, "ingests the last"),
        ({"state": "ended", "exit_code": 0, "reason": "a signal"}, False, 1e6, False, "ended: a signal"),
        ({"state": "ended", "exit_code": 4, "reason": "full"}, False, 0.0, True, "ended with exit 4: full"),
    ],
)
def test_judgement(change: dict[str, object], alive: bool, later_s: float, stale: bool, words: str) -> None:
    status = msgspec.structs.replace(told(full_watch()), **change)
    now_ns = NOW + int(later_s * SECOND)
    verdict = judge(status, now_ns, alive=alive, stale_after_s=60.0)
    assert (verdict.stale, verdict.exchange) == (stale, "okx")
    assert words in verdict.sentence


def test_frames_may_be_rare_where_it_is_said_so() -> None:
    status = msgspec.structs.replace(told(full_watch()), last_frame=NOW - 61 * SECOND)
    assert not judge(status, NOW, alive=True, stale_after_s=120.0).stale


def test_status_holds_the_counts_and_survives_the_file(tmp_path: Path) -> None:
    path = path_of(tmp_path)
    status = told(full_watch(tmp_path))
    write_status(tmp_path, status)
    assert read_status(path) == status
    assert (status.frames, status.gaps, status.reconnects, status.pending_segments) == (101, 3, 5, 1)
    assert (status.synced, status.rows) == (
        {"BTC-USDT": True, "ETH-USDT": False},
        {"depth": 900, "trades": 80},
    )
    assert status.last_frame == NOW - SECOND // 2
    assert status.pid == os.getpid()
    assert [entry.name for entry in path.parent.iterdir()] == ["status.json"]


def test_lag_is_that_of_the_last_looks() -> None:
    lag, counts = RecentLag(), Counts()
    counts.add_lag(3.0)
    assert lag.p99_s(counts.lags) == float("inf")
    for _ in range(60):
        counts.add_lag(0.00005)
        lag.p99_s(counts.lags)
    assert lag.p99_s(counts.lags) == 0.0001


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 1}', b'{"schema": 999}'])
def test_file_that_cannot_be_read_is_stale(tmp_path: Path, content: bytes) -> None:
    path_of(tmp_path).write_bytes(content)
    [verdict] = check(tmp_path, stale_after_s=60.0)
    assert verdict.stale
    assert "cannot be read" in verdict.sentence


def test_process_that_is_gone_is_found_out_on_its_own_host_only(tmp_path: Path) -> None:
    path_of(tmp_path)
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    status = msgspec.structs.replace(told(full_watch()), pid=child.pid)
    for host, stale in ((socket.gethostname(), True), ("elsewhere", False)):
        write_status(tmp_path, msgspec.structs.replace(status, host=host))
        [verdict] = check(tmp_path, stale_after_s=60.0, now_ns=NOW)
        assert verdict.stale is stale


def test_only_the_exchange_that_was_asked_for_is_checked(tmp_path: Path) -> None:
    path_of(tmp_path)
    write_status(tmp_path, told(full_watch()))
    assert check(tmp_path, exchange="binance", stale_after_s=60.0) == []
    assert check(tmp_path / "nowhere", stale_after_s=60.0) == []


def test_end_is_written_with_its_reason(tmp_path: Path) -> None:
    path = path_of(tmp_path)
    watch = full_watch(tmp_path)
    with writing_status(watch):
        assert read_status(path).state == "recording"
        watch.reason = "a signal"
    assert (status := read_status(path)).state == "ended"
    assert (status.exit_code, status.reason) == (0, "a signal")


@pytest.mark.parametrize(("error", "code"), [(VenueError("nothing came"), 3), (ZeroDivisionError("bug"), 70)])
def test_end_by_an_error_is_written_with_its_sentence_and_status(
    tmp_path: Path, error: Exception, code: int
) -> None:
    path = path_of(tmp_path)
    with pytest.raises(type(error)), writing_status(full_watch(tmp_path)):
        raise error
    assert (read_status(path).exit_code, read_status(path).reason) == (code, str(error))


def test_status_that_cannot_be_written_is_told_once_and_recording_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with writing_status(full_watch(tmp_path / "nowhere")):
        pass
    [record] = caplog.records
    assert "the status of okx cannot be written (" in record.message


def test_page_lists_every_field_of_the_status_file() -> None:
    section = PAGE.split("## The status file")[1].split("\n## ")[0]
    listed = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert listed == [*json.loads(msgspec.json.encode(told(full_watch())))]
    assert f"`schema` {SCHEMA}" in section
