"""The ingest process that dies or is stopped: nothing is lost, and what follows is not held up."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec.structs
import pytest

from mmdata.datasets.layout import list_parts
from mmdata.recorder.capture import CaptureWriter, Header
from mmdata.recorder.ingest_process import IngestProcess, Outcome, Task
from mmdata.recorder.segments import capture_folder, pending, recover
from tests.builders import HEADER, LEVELS, depth, frame, rows
from tests.integration.conftest import ENVIRONMENT, mmdata_command, write_job


@pytest.fixture(autouse=True)
def _children_find_the_wings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])


def closed_segment(root: Path, header: Header = HEADER, count: int = 1) -> Path:
    folder = capture_folder(root, "binance") / header.session
    writer = CaptureWriter(folder, header, seconds=60, size=1 << 30)
    for number in range(count):
        line = frame(number, depth(100 + 5 * number, *LEVELS))
        writer.write(b"%d 0 %s\n" % (line.ts_recv, line.payload))
    path = writer.close()
    assert path is not None
    return path


SECOND = msgspec.structs.replace(HEADER, session="20261121T090000Z-bbbbbb")


def test_child_that_dies_is_started_again_and_does_its_task_again(tmp_path: Path) -> None:
    first, second = closed_segment(tmp_path), closed_segment(tmp_path, SECOND)

    async def run() -> IngestProcess:
        async with IngestProcess(tmp_path, keep=True) as ingest:
            os.kill(ingest.pid, signal.SIGKILL)
            ingest.submit("binance", first)
            ingest.submit("binance", second)
            await ingest.drain(20)
            return ingest

    ingest = asyncio.run(run())
    assert ingest.tallies["binance"].pending == 0
    assert ingest.error is None
    assert pending(tmp_path, "binance") == []
    assert len(rows(tmp_path, "depth")) == 6


def test_segment_that_kills_every_child_stays_and_holds_back_the_later_ones_of_its_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = closed_segment(tmp_path)
    later = closed_segment(tmp_path, msgspec.structs.replace(HEADER, segment=1, first_frame=5))
    other = closed_segment(tmp_path, SECOND)

    async def run() -> IngestProcess:
        ask = IngestProcess._ask

        async def ask_after_a_kill(self: IngestProcess, task: Task) -> bytes:
            if task.path == str(first):
                os.kill(self.pid, signal.SIGKILL)
            return await ask(self, task)

        monkeypatch.setattr(IngestProcess, "_ask", ask_after_a_kill)
        async with IngestProcess(tmp_path, keep=True) as ingest:
            for path in (first, later, other):
                ingest.submit("binance", path)
            await ingest.drain(60)
            return ingest

    ingest = asyncio.run(run())
    assert ingest.tallies["binance"].pending == 2
    assert "the ingest process died over it 3 times; it stays" in ingest.warnings[0]
    assert "its rows would stand out of order" in ingest.warnings[1]
    assert ingest.error is not None
    assert ingest.error.exit_code == 70
    assert pending(tmp_path, "binance") == [first, later]
    assert len(rows(tmp_path, "depth")) == 3


def test_child_ends_mid_segment_when_its_parent_goes(tmp_path: Path) -> None:
    path = closed_segment(tmp_path, count=100_000)
    with subprocess.Popen(
        [sys.executable, "-m", "mmdata.recorder.ingest_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=ENVIRONMENT,
    ) as child:
        assert child.stdin is not None
        child.stdin.write(
            msgspec.json.encode(Task(str(tmp_path), "binance", keep=True, path=str(path))) + b"\n"
        )
        child.stdin.flush()
        lock = tmp_path / ".locks" / f"session-{HEADER.session}"
        while not lock.exists():  # it is at the segment from here on
            time.sleep(0.01)
        child.stdin.close()
        assert child.wait(timeout=2) == 0
    assert path.exists()
    assert recover(tmp_path, "binance")[1] == [path]
    assert len(rows(tmp_path, "depth")) == 300_000


@pytest.mark.parametrize("life_s", [60.0, 0.0], ids=["one child", "a child a segment"])
def test_segment_that_cannot_be_ingested_holds_back_the_later_ones_of_its_session(
    tmp_path: Path, life_s: float
) -> None:
    folder = capture_folder(tmp_path, "binance") / HEADER.session
    folder.mkdir(parents=True)
    bad = folder / "000000.cap"
    bad.write_bytes(b"# mmdata-capture 9 {}\n")
    later = closed_segment(tmp_path, msgspec.structs.replace(HEADER, segment=1, first_frame=5))
    other = closed_segment(tmp_path, msgspec.structs.replace(HEADER, session="20261121T090000Z-bbbbbb"))

    async def run() -> IngestProcess:
        async with IngestProcess(tmp_path, keep=True, life_s=life_s) as ingest:
            for path in (bad, later, other):
                ingest.submit("binance", path)
            await ingest.drain(20)
            return ingest

    ingest = asyncio.run(run())
    assert ingest.tallies["binance"].pending == 2
    assert ingest.error is None
    assert pending(tmp_path, "binance") == [bad, later]


@pytest.mark.parametrize(("life_s", "children"), [(60.0, 1), (0.0, 2)])
def test_child_is_replaced_between_two_tasks_when_it_has_worked_long_enough(
    tmp_path: Path, life_s: float, children: int
) -> None:
    async def run() -> set[int]:
        pids = set()
        async with IngestProcess(tmp_path, keep=True, life_s=life_s) as ingest:
            for path in (closed_segment(tmp_path), closed_segment(tmp_path, SECOND)):
                ingest.submit("binance", path)
                await ingest.drain(20)
                pids.add(ingest.pid)
        assert ingest.warnings == []
        return pids

    assert len(asyncio.run(run())) == children
    assert pending(tmp_path, "binance") == []
    assert len(rows(tmp_path, "depth")) == 6


def test_signal_while_recovering_ends_at_once_and_leaves_the_rest_for_the_next_start(tmp_path: Path) -> None:
    folder = capture_folder(tmp_path / "data", "binance") / HEADER.session
    folder.mkdir(parents=True)
    path = folder / "000000.cap"
    os.mkfifo(path)  # a segment that never ends
    venue = {
        "exchange": "binance",
        "symbols": ["BTCUSDT"],
        "rest_url": "http://127.0.0.1:1",
        "ws_url": "ws://127.0.0.1:1",
    }
    job = write_job(tmp_path / "job.yaml", root=str(tmp_path / "data"), venues=[venue])
    with (
        subprocess.Popen(
            mmdata_command("record", job, "--json"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        ) as child,
        path.open("wb"),
    ):  # opened as soon as the ingest process reads it
        begun = time.monotonic()
        child.terminate()
        out, err = child.communicate(timeout=20)
    assert child.returncode == 0, err
    assert time.monotonic() - begun < 4.0
    assert json.loads(out)["venues"] == []
    assert "stopped while ingesting" in json.loads(out)["warnings"][0]
    assert path.exists()


def test_child_that_is_killed_over_a_compaction_does_it_again(tmp_path: Path) -> None:
    recover_two_parts(tmp_path)
    told = rows(tmp_path, "depth")

    async def run() -> Outcome:
        async with IngestProcess(tmp_path, keep=True) as ingest:
            os.kill(ingest.pid, signal.SIGKILL)
            return await ingest.compact("binance", ["BTCUSDT", "_"], "2026-11-22")

    outcome = asyncio.run(run())
    assert (outcome.error, outcome.compacted, outcome.warnings) == (None, 1, [])
    assert rows(tmp_path, "depth") == told
    assert len({part.path for part in list_parts(tmp_path, "depth")}) == 1


def recover_two_parts(root: Path) -> None:
    """Publish two parts of a day, each of a segment of its own."""
    closed_segment(root)
    closed_segment(root, msgspec.structs.replace(HEADER, segment=1, first_frame=5))
    assert len(recover(root, "binance")[1]) == 2
    assert len(list_parts(root, "depth")) == 2
