"""What `mmdata record` does around a recording: monitor, ``on_end``, days that are too old."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from mmdata.datasets.layout import list_parts
from mmdata.recorder.lock import exchange_lock
from tests.integration.conftest import ENVIRONMENT, RunningSandbox, mmdata, mmdata_command, write_job
from tests.venue import http_server

Start = Callable[..., RunningSandbox]
KEEP = "import os, sys; open(sys.argv[1], 'w').write(os.environ['MMDATA_EXIT_CODE'] + ' ' + sys.stdin.read())"


def test_monitor_hears_of_start_and_success_and_the_command_gets_the_summary(
    tmp_path: Path, sandbox: Start
) -> None:
    kept = tmp_path / "kept"
    with http_server(lambda path: (200, "OK")) as monitor:
        job = write_job(
            tmp_path / "job.yaml",
            root=str(tmp_path / "data"),
            venues=[sandbox().venue("okx", ["BTC-USDT"])],
            duration="2s",
            ping_url=f"{monitor.url}/uuid",
            on_end=[sys.executable, "-c", KEEP, str(kept)],
        )
        run = mmdata("record", job, "--json")
        assert monitor.asked == ["GET /uuid/start", "GET /uuid"]
    assert run.returncode == 0, run.stderr
    exit_code, _, summary = kept.read_text(encoding="utf-8").partition(" ")
    assert exit_code == "0"
    assert json.loads(summary) == json.loads(run.stdout)


def test_failure_is_told_with_its_exit_code_and_hooks_that_fail_change_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    dead = {"exchange": "okx", "symbols": ["BTC-USDT"]}
    dead |= {"rest_url": "http://127.0.0.1:1", "ws_url": "ws://127.0.0.1:1"}
    with http_server(lambda path: (500, "broken")) as monitor:
        job = write_job(
            tmp_path / "job.yaml",
            root=str(tmp_path / "data"),
            venues=[dead],
            duration="1s",
            ping_url=f"{monitor.url}/uuid",
            on_end=[sys.executable, "-c", f"{KEEP}; sys.exit(5)", str(kept)],
        )
        run = mmdata("record", job)
        assert monitor.asked == ["GET /uuid/start", "GET /uuid/3"]
    assert run.returncode == 3
    exit_code, _, summary = kept.read_text(encoding="utf-8").partition(" ")
    assert exit_code == "3"
    assert "not one frame came from okx" in json.loads(summary)["error"]
    assert "ping_url: 127.0.0.1 answered with status 500" in run.stderr
    assert f"on_end: {sys.executable} ended with status 5" in run.stderr


def test_recorder_that_is_refused_by_the_lock_tells_nobody(tmp_path: Path) -> None:
    with http_server(lambda path: (200, "OK")) as monitor:
        job = write_job(
            tmp_path / "job.yaml",
            root=str(tmp_path / "data"),
            venues=[{"exchange": "okx", "symbols": ["BTC-USDT"]}],
            ping_url=f"{monitor.url}/uuid",
        )
        with exchange_lock(tmp_path / "data/.captures/okx", "okx"):
            assert mmdata("record", job).returncode == 2
        assert monitor.asked == []


def test_recorder_that_is_stopped_before_its_window_tells_nobody_and_has_recorded_nothing(
    tmp_path: Path,
) -> None:
    opens = datetime.now(UTC) + timedelta(hours=2)
    window = {"zone": "UTC", "start": f"{opens:%H:%M}", "end": f"{opens + timedelta(hours=1):%H:%M}"}
    with http_server(lambda path: (200, "OK")) as monitor:
        job = write_job(
            tmp_path / "job.yaml",
            root=str(tmp_path / "data"),
            venues=[{"exchange": "okx", "symbols": ["BTC-USDT"]}],
            window=window,
            ping_url=f"{monitor.url}/uuid",
        )
        command = mmdata_command("record", job, "--wait", "--json", "--verbose")
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        ) as child:
            assert child.stderr is not None
            for line in child.stderr:
                if "waiting" in line:
                    break
            child.send_signal(signal.SIGTERM)
            out, err = child.communicate()
        assert monitor.asked == []
    assert child.returncode == 0, err
    answer = json.loads(out)
    assert answer["venues"] == []
    assert answer["warnings"] == ["stopped before the recording began"]
    assert not [*tmp_path.glob("data/.captures/okx/*/*")]


def test_old_days_go_after_a_recording_and_are_named(tmp_path: Path, sandbox: Start) -> None:
    data = tmp_path / "data"
    old = data / "depth/exchange=okx/symbol=BTC-USDT/date=2020-01-01"
    old.mkdir(parents=True)
    (old / "20200101T000000.000000000Z-s-000000.parquet").touch()
    job = write_job(
        tmp_path / "job.yaml",
        root=str(data),
        venues=[sandbox().venue("okx", ["BTC-USDT"])],
        duration="2s",
        retain_days=1,
    )
    run = mmdata("record", job)
    assert run.returncode == 0, run.stderr
    assert f"removed, since older than retain_days: 1 folders\n  {old}\n" in run.stdout
    assert not old.exists()
    assert list_parts(data, "depth", exchange="okx")
