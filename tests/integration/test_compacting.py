"""`mmdata compact`, and what `mmdata record` compacts at its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mmdata.datasets.errors import ReplacedError
from mmdata.datasets.layout import list_parts
from mmdata.datasets.market import read_part
from mmdata.recorder import job as job_module
from mmdata.recorder.config import parse_job
from mmdata.recorder.ingest import Ingest
from mmdata.recorder.job import RecordReport, record
from tests.builders import DAY, LEVELS, TS, depth, frame
from tests.integration.conftest import ENVIRONMENT, RunningSandbox, answered, mmdata, write_job

Start = Callable[..., RunningSandbox]


def finished_day(root: Path, symbol: str = "BTCUSDT") -> None:
    """Publish two parts of a day long over, and one of the next."""
    for number, ts in enumerate((TS, TS, TS + DAY)):
        session = f"import-{symbol.lower():0>12}"
        ingest = Ingest(root, "binance", session, {"version": "0.1.0"})
        ingest.take(frame(number, depth(100 + 5 * number, *LEVELS, symbol), ts=ts))
        ingest.flush()


def files(root: Path, symbol: str = "BTCUSDT") -> list[tuple[str, int]]:
    """Return dates and rows of the files of depth; look again when they are replaced meanwhile."""
    while True:
        old = [part for part in list_parts(root, "depth", symbol=symbol) if part.partition.date < "2025"]
        with contextlib.suppress(ReplacedError):
            return [(part.partition.date, read_part(part, ["frame"]).num_rows) for part in old]


def test_command_says_what_was_compacted(tmp_path: Path) -> None:
    finished_day(tmp_path)
    run = answered("compact", tmp_path, "--exchange", "binance", "--date", "2024-08-08", "--json")
    assert run.returncode == 0, run.stderr
    answer = json.loads(run.stdout)
    assert (answer["schema"], answer["exit"], answer["skipped"], answer["failures"]) == (1, 0, [], [])
    [done] = answer["compacted"]
    assert (done["table"], done["date"], done["files"], done["rows"]) == ("depth", "2024-08-08", 2, 6)
    again = answered("compact", tmp_path)
    assert "0 compacted, 2 were one file already, 0 skipped, 0 failed" in again.stdout
    assert answered("compact", tmp_path, "--quiet").stdout == ""


def test_table_names_each_day_and_a_damaged_file_is_exit_1(tmp_path: Path) -> None:
    finished_day(tmp_path)
    finished_day(tmp_path, "ETHUSDT")
    broken = list_parts(tmp_path, "depth", symbol="ETHUSDT")[0].path
    broken.write_bytes(broken.read_bytes()[:-9])
    run = answered("compact", tmp_path)
    assert run.returncode == 1
    assert "BTCUSDT" in run.stdout
    assert str(broken) in run.stdout.replace("\n", "")
    assert "1 compacted, 2 were one file already, 0 skipped, 1 failed" in run.stdout


def test_wrong_usage_is_exit_2(tmp_path: Path) -> None:
    assert answered("compact", tmp_path / "none").returncode == 2
    assert answered("compact", tmp_path, "--date", "tomorrow").returncode == 2


@pytest.mark.parametrize("keys", [{}, {"compact": False}], ids=["by default", "switched off"])
def test_recording_compacts_the_finished_days_of_its_symbols_at_its_end(
    tmp_path: Path, sandbox: Start, keys: dict[str, Any]
) -> None:
    root = tmp_path / "data"
    finished_day(root)
    finished_day(root, "ETHUSDT")
    job = write_job(
        tmp_path / "job.yaml",
        root=str(root),
        venues=[sandbox().venue("binance", ["BTCUSDT"])],
        duration="3s",
        segment={"seconds": "1s", "bytes": "64MiB"},
        **keys,
    )
    run = mmdata("record", job, "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["compacted"] == (0 if keys else 1)
    assert files(root) == ([("2024-08-08", 3)] * 2 if keys else [("2024-08-08", 6)]) + [("2024-08-09", 3)]
    assert files(root, "ETHUSDT") == [("2024-08-08", 3)] * 2 + [("2024-08-09", 3)]  # not of this job
    today = [part for part in list_parts(root, "depth", symbol="BTCUSDT") if part.partition.date > "2025"]
    assert len({part.path for part in today}) > 1  # not over yet


@pytest.mark.parametrize(
    ("retain_days", "left"),
    [(None, [("2024-08-08", 6), ("2024-08-09", 3)]), (30, [])],
    ids=["compacted", "removed"],
)
def test_job_without_end_cares_for_its_days_while_it_records(
    tmp_path: Path,
    sandbox: Start,
    monkeypatch: pytest.MonkeyPatch,
    retain_days: int | None,
    left: list[tuple[str, int]],
) -> None:
    root = tmp_path / "data"
    finished_day(root)
    job: dict[str, Any] = {
        "root": str(root),
        "window": "none",
        "duration": "60s",  # so that a test that fails ends
        "segment": {"seconds": "1s"},
        "venues": [sandbox().venue("binance", ["BTCUSDT"])],
    }
    # Its first midnight comes in two seconds.
    midnights = iter([datetime.now(UTC) + timedelta(seconds=2), datetime.now(UTC) + timedelta(days=1)])
    monkeypatch.setattr(job_module, "next_care", lambda now, segment_s: next(midnights))
    monkeypatch.setenv("PYTHONPATH", ENVIRONMENT["PYTHONPATH"])
    stopped = threading.Event()

    def segments() -> int:
        return len([*root.glob(".captures/binance/*/*")])

    def stop_when_recording_went_on() -> None:
        pause = threading.Event()
        while files(root) != left:
            pause.wait(0.1)
        before = segments()
        while segments() < before + 2:
            pause.wait(0.1)
        stopped.set()
        os.kill(os.getpid(), signal.SIGTERM)  # which ends it without caring for any day

    watcher = threading.Thread(target=stop_when_recording_went_on, daemon=True)
    watcher.start()
    report = record(parse_job({**job, "retain_days": retain_days} if retain_days else job, "test"))
    assert stopped.is_set()
    assert isinstance(report, RecordReport)
    assert report.warnings == []
    assert report.compacted == (0 if retain_days else 1)
    assert {path.parent.parent.parent.name for path in report.removed} == (
        {"depth"} if retain_days else set()
    )
