"""Ends and disturbances that are no crash: a signal, a second recorder, a clock that is set back."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from mmdata.datasets.validation import validate
from mmdata.recorder.segments import recover_all
from tests.builders import rows
from tests.crash.board import CLOCK_OFFSET_NS, ROTATIONS
from tests.crash.recording import Found, Recording, check_recording, recording
from tests.integration.conftest import mmdata

pytestmark = pytest.mark.long

_END_WITHIN_S = 5.0
_HOUR_NS = 3_600_000_000_000


def end(running: Recording) -> Found:
    """End a recording by SIGTERM, finish what it left, and compare it with what it was given."""
    begun = time.monotonic()
    running.process.terminate()
    _, said = running.process.communicate(timeout=30)
    took_s = time.monotonic() - begun
    assert running.process.returncode == 0, said
    assert took_s < _END_WITHIN_S
    recover_all(running.root)
    folder = running.root.parent
    found = check_recording(running.root, running.sandbox.truth, running.board, folder / "again")
    assert found.behind_counter == 0
    return found


def terminate(seed: int, base: Path, market: list[Path]) -> None:
    """Record, and end it at a moment that the seed draws."""
    with recording(base / str(seed), market) as running:
        running.wait_for_frames()
        running.sleep(random.Random(seed).uniform(0.0, 3.0))
        end(running)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("moments", [3, pytest.param(20, marks=pytest.mark.long)])
def test_signal_at_drawn_moments_loses_nothing_and_is_obeyed_in_time(
    tmp_path: Path, market: list[Path], moments: int
) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        [*pool.map(partial(terminate, base=tmp_path, market=market), range(moments))]


def test_signal_is_obeyed_in_time_though_nothing_is_ingested(tmp_path: Path, market: list[Path]) -> None:
    with recording(tmp_path, market) as running:
        running.wait_for_frames()
        os.kill(running.ingest_pid, signal.SIGSTOP)
        cells = running.board.cells
        running.wait_until(lambda: cells[ROTATIONS] >= 6, "three rotations of each venue")
        end(running)


def test_second_recorder_is_refused_by_name_and_the_first_records_on(
    tmp_path: Path, market: list[Path]
) -> None:
    with recording(tmp_path, market) as running:
        running.wait_for_frames()
        second = mmdata("record", tmp_path / "job.yaml", "--json")
        assert second.returncode == 2
        said = json.loads(second.stderr.splitlines()[-1])["error"]
        assert "is being recorded or recovered here already" in said
        assert f'"pid": {running.pid}, "host": "{os.uname().nodename}"' in said
        recovering = mmdata("recover", running.root)
        assert recovering.returncode == 2
        end(running)


def test_clock_set_back_an_hour_loses_nothing_and_keeps_the_order(tmp_path: Path, market: list[Path]) -> None:
    with recording(tmp_path, market) as running:
        running.wait_for_frames(500)
        running.board.cells[CLOCK_OFFSET_NS] = -_HOUR_NS
        cells = running.board.cells
        before = cells[ROTATIONS]
        running.wait_until(lambda: cells[ROTATIONS] >= before + 2, "a rotation of each venue")
        end(running)
    received = [row["ts_recv"] for row in rows(running.root, "trades")]
    assert max(received) - min(received) > 0.9 * _HOUR_NS
    report = validate(running.root)
    assert report.count("error") == 0
    said = [finding.sentence for finding in report.findings if finding.check == "arrival"]
    assert any("steps back" in sentence for sentence in said)
