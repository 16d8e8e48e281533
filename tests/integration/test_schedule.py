"""`mmdata schedule` with real recorders of a sandbox exchange, in windows of some seconds around now."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mmdata.datasets.validation import validate
from mmdata.recorder.lock import holder
from tests.builders import flaws, rows
from tests.integration.conftest import ENVIRONMENT, RunningSandbox, mmdata, mmdata_command, write_job
from tests.integration.test_record_command import wait_for_frames

Start = Callable[..., RunningSandbox]


class Schedule:
    """A running schedule: what it tells, as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.told: list[dict[str, Any]] = []

    def wait_for(self, event: str, times: int = 1) -> dict[str, Any]:
        """Return the event of this name once it was told so many times, counted from now."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.told.append(json.loads(line))
            times -= self.told[-1]["event"] == event
            if times == 0:
                return self.told[-1]
        raise AssertionError(f"the schedule ended before {event}: {self.told}")

    def events(self) -> list[str]:
        """Return the names of what was told so far."""
        return [told["event"] for told in self.told]

    def stop(self) -> None:
        """End it by SIGTERM; it must end cleanly."""
        self.process.send_signal(signal.SIGTERM)
        self.wait_for("stopped")
        assert self.process.wait() == 0


@contextmanager
def scheduled(*configs: Path) -> Iterator[Schedule]:
    command = mmdata_command("schedule", *configs, "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        try:
            yield Schedule(process)
        finally:
            if process.poll() is None:
                process.terminate()
                process.communicate()


def window(opens_s: float, closes_s: float) -> dict[str, str]:
    """Return a window that opens and closes so many seconds from now."""
    now = datetime.now(UTC)
    start, end = (f"{now + timedelta(seconds=seconds):%H:%M:%S}" for seconds in (opens_s, closes_s))
    return {"zone": "UTC", "start": start, "end": end}


@pytest.mark.long
def test_two_jobs_are_recorded_in_their_windows_one_joined_late(tmp_path: Path, sandbox: Start) -> None:
    running, data = sandbox(), tmp_path / "data"
    late = write_job(
        tmp_path / "late.yaml",
        root=str(data),
        venues=[running.venue("okx", ["BTC-USDT"])],
        window=window(-3600, 20),
    )
    early = write_job(
        tmp_path / "early.yaml",
        root=str(data),
        venues=[running.venue("binance", ["BTCUSDT"])],
        window=window(10, 20),
    )
    with scheduled(late, early) as schedule:
        schedule.wait_for("ended", times=2)
        schedule.stop()
    ended = [told for told in schedule.told if told["event"] == "ended"]
    assert [told["exit"] for told in ended] == [0, 0]
    assert {told["config"] for told in ended} == {str(late), str(early)}
    assert all(told["report"]["venues"][0]["frames"] > 0 for told in ended)
    assert sorted(schedule.events()) == sorted(
        ["scheduled", "started", "ended"] * 2 + ["stopping", "stopped"]
    )
    kinds = [row["kind"] for row in rows(data, "events")]
    assert kinds.count("window_open") == kinds.count("window_close") == 2
    assert flaws(data) == []


def test_killed_recorder_is_started_again_and_sigterm_ends_it_cleanly(tmp_path: Path, sandbox: Start) -> None:
    data = tmp_path / "data"
    job = write_job(
        tmp_path / "job.yaml",
        root=str(data),
        venues=[sandbox().venue("okx", ["BTC-USDT"])],
        window=window(-60, 3600),
    )
    with scheduled(job) as schedule:
        first = schedule.wait_for("started")["pid"]
        first_capture = wait_for_frames(data, "okx")
        os.kill(first, signal.SIGKILL)
        assert schedule.wait_for("ended")["exit"] == -signal.SIGKILL
        second = schedule.wait_for("started")["pid"]
        assert second != first
        while wait_for_frames(data, "okx") == first_capture:
            pass  # the second has yet to recover what the first left
        schedule.stop()
    assert schedule.events()[-3:] == ["stopping", "ended", "stopped"]
    assert schedule.told[-2]["exit"] == 0
    assert schedule.told[-2]["report"]["venues"][0]["pending_segments"] == 0
    assert len({row["session"] for row in rows(data, "trades")}) == 2
    assert validate(data).count("error") == 0


@pytest.mark.long
def test_recorder_of_a_killed_schedule_goes_on_is_watched_and_replaced(
    tmp_path: Path, sandbox: Start
) -> None:
    data = tmp_path / "data"
    job = write_job(tmp_path / "job.yaml", root=str(data), venues=[sandbox().venue("binance", ["BTCUSDT"])])
    with scheduled(job) as schedule:
        orphan = schedule.wait_for("started")["pid"]
        path = wait_for_frames(data, "binance")
        schedule.process.kill()
        schedule.process.wait()
    try:
        size = path.stat().st_size
        with scheduled(job) as schedule:
            assert f'"pid": {orphan}' in schedule.wait_for("held")["text"]
            wait_for_frames(data, "binance", size + 20_000)  # it records on
            os.kill(orphan, signal.SIGKILL)
            assert schedule.wait_for("started")["pid"] != orphan
            while wait_for_frames(data, "binance") == path:
                pass  # the new recorder has yet to recover what the orphan left
            schedule.stop()
    finally:
        with suppress(ProcessLookupError):
            os.kill(orphan, signal.SIGKILL)
    assert holder(data / ".captures/binance") is None
    assert validate(data).count("error") == 0


def test_symbol_that_the_venue_does_not_have_is_told_and_not_tried_again(
    tmp_path: Path, sandbox: Start
) -> None:
    job = write_job(
        tmp_path / "job.yaml",
        root=str(tmp_path / "data"),
        venues=[sandbox().venue("okx", ["NO-SUCH"])],
        window=window(-60, 3600),
    )
    with scheduled(job) as schedule:
        ended = schedule.wait_for("ended")
        schedule.stop()
    assert ended["exit"] == 2
    assert "okx has no instrument NO-SUCH" in ended["error"]
    assert schedule.events() == ["scheduled", "started", "ended", "stopping", "stopped"]


def test_schedule_of_a_bad_configuration_is_exit_2_and_starts_nothing(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("venues: []", encoding="utf-8")
    run = mmdata("schedule", bad)
    assert (run.returncode, run.stdout) == (2, "")
    assert "bad.yaml: venues" in run.stderr


def test_what_happens_is_told_to_people_too(tmp_path: Path, sandbox: Start) -> None:
    job = write_job(
        tmp_path / "job.yaml",
        root=str(tmp_path / "data"),
        venues=[sandbox().venue("okx", ["BTC-USDT"])],
        window=window(3600, 7200),
    )
    command = mmdata_command("schedule", job)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert f"{job}: the window opens at " in first
    assert rest.endswith("every recorder has ended\n")
