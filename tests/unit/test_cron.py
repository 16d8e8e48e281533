"""The files in ``cron/``: each is what its scheduler reads, and runs the same job a minute early."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmdata.recorder.config import load_job
from mmdata.recorder.job import next_opening
from mmdata.recorder.window import Opening

REPOSITORY = Path(__file__).parents[2]
CRON = REPOSITORY / "cron"
JOB = ["record", "config/binance.yaml", "--wait"]
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")


def next_window(now: datetime) -> Opening:
    window = next_opening(load_job(REPOSITORY / "config/binance.yaml"), now)
    assert window is not None
    return window


def unit(name: str) -> dict[str, list[str]]:
    """Return the values of a unit file by key."""
    found: dict[str, list[str]] = {}
    for line in (CRON / name).read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_crontab_runs_the_job_a_minute_before_the_window_and_at_boot() -> None:
    lines = (CRON / "crontab").read_text(encoding="utf-8").splitlines()
    entries = [line for line in lines if line and not line.startswith("#") and "=" not in line.split()[0]]
    times = [re.fullmatch(r"(@reboot|(?:\S+ +){5}) *(\S.*)", entry) for entry in entries]
    assert [match[1].split() for match in times if match] == [["59", "7", "*", "*", "*"], ["@reboot"]]
    for match in times:
        assert match is not None
        command = match[2]
        assert "%" not in command  # cron's newline
        words = shlex.split(command.rpartition("&& ")[2])
        assert words[0].endswith("bin/mmdata")
        assert words[1:4] == JOB


def test_systemd_service_runs_the_job_and_leaves_the_children_to_it() -> None:
    service = unit("mmdata.service")
    words = shlex.split(service["ExecStart"][0])
    assert words[1:4] == JOB
    assert service["KillMode"] == ["mixed"]
    assert service["RestartPreventExitStatus"] == ["2 4"]
    assert (CRON.parent / words[2]).is_file()


@needs_systemd
def test_systemd_finds_nothing_to_say_of_the_units(tmp_path: Path) -> None:
    for name in ("mmdata.service", "mmdata.timer"):
        text = (CRON / name).read_text(encoding="utf-8")
        # Where mmdata is installed is the one thing that this machine does not have.
        text = text.replace("/opt/mmdata/.venv/bin/mmdata", sys.executable)
        (tmp_path / name).write_text(text, encoding="utf-8")
    run = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in run.stderr.splitlines() if "mmdata." in line]
    assert (run.returncode, ours) == (0, []), run.stderr


@needs_systemd
@pytest.mark.parametrize("day", ["2026-03-28", "2026-10-24", "2026-12-31"])
def test_systemd_timer_fires_a_minute_before_the_window_also_when_the_clock_changes(day: str) -> None:
    [when] = unit("mmdata.timer")["OnCalendar"]
    noon = f"{day} 12:00:00 UTC"
    run = subprocess.run(
        ["systemd-analyze", "calendar", f"--base-time={noon}", when],
        capture_output=True,
        text=True,
        check=True,
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin"},
    )
    match = re.search(r"Next elapse: \w+ (\S+ \S+) UTC", run.stdout)
    assert match is not None, run.stdout
    fires = datetime.fromisoformat(match[1]).replace(tzinfo=UTC)
    opens = next_window(datetime.fromisoformat(f"{day}T21:30").replace(tzinfo=UTC)).start
    assert fires == opens - timedelta(minutes=1)


def test_kubernetes_runs_the_job_in_berlin_one_at_a_time_with_time_to_end() -> None:
    cronjob: dict[str, Any] = yaml.safe_load((CRON / "cronjob.yaml").read_text(encoding="utf-8"))
    assert (cronjob["apiVersion"], cronjob["kind"]) == ("batch/v1", "CronJob")
    spec = cronjob["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("59 7 * * *", "Europe/Berlin")
    assert spec["concurrencyPolicy"] == "Forbid"
    window = next_window(datetime(2026, 1, 15, tzinfo=UTC))
    assert spec["startingDeadlineSeconds"] < (window.end - window.start).total_seconds() + 60
    job = spec["jobTemplate"]["spec"]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 4]
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] >= 10
    [container] = pod["containers"]
    assert container["args"][:3] == JOB
    assert container["name"] == job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_compose_runs_the_job_of_each_exchange_again_and_again_with_time_to_end() -> None:
    compose: dict[str, Any] = yaml.safe_load((CRON / "compose.yaml").read_text(encoding="utf-8"))
    assert compose["services"]["binance"]["command"][:3] == JOB
    for service in compose["services"].values():
        verb, config, wait, *_ = service["command"]
        assert (verb, wait) == ("record", "--wait")
        assert (REPOSITORY / config).is_file()
        assert service["restart"] == "unless-stopped"
        assert service["stop_grace_period"] == "30s"
        assert "../data:/data" in service["volumes"]


def test_readme_names_every_file() -> None:
    readme = (CRON / "README.md").read_text(encoding="utf-8")
    for path in CRON.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in readme
