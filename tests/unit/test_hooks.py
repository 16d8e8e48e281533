"""The command at a recording's end, and the monitor that is told of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mmdata.recorder.hooks import ping, ping_end, run_on_end
from tests.venue import http_server

COPY = (
    "import os, sys; open(sys.argv[1], 'w').write("
    "os.environ['MMDATA_EXIT_CODE'] + ' ' + os.environ['MMDATA_ROOT'] + ' ' + sys.stdin.read())"
)


def test_command_gets_the_summary_and_its_environment_without_a_shell(tmp_path: Path) -> None:
    out = tmp_path / "a name; with $(everything)"
    assert run_on_end([sys.executable, "-c", COPY, str(out)], "data", 3, {"error": "no frame"}) is None
    exit_code, root, summary = out.read_text(encoding="utf-8").split(" ", 2)
    assert (exit_code, root, json.loads(summary)) == ("3", "data", {"error": "no frame"})


def test_command_that_reads_no_stdin_is_no_failure() -> None:
    assert run_on_end(["true"], "data", 0, {"long": "x" * 1_000_000}) is None


def test_what_the_command_prints_is_no_part_of_our_answer(capfd: pytest.CaptureFixture[str]) -> None:
    run_on_end(["echo", "copied"], "data", 0, {})
    assert capfd.readouterr() == ("", "copied\n")


def test_command_that_fails_or_is_missing_is_a_warning() -> None:
    assert run_on_end(["false"], "data", 0, {}) == "on_end: false ended with status 1"
    missing = run_on_end(["/nowhere/to/be/found"], "data", 0, {})
    assert missing == "on_end: /nowhere/to/be/found cannot be run (No such file or directory)"


def test_monitor_is_told_of_success_and_of_the_exit_code() -> None:
    with http_server(lambda path: (200, "OK")) as monitor:
        assert ping_end(f"{monitor.url}/uuid", 0) is None
        assert ping_end(f"{monitor.url}/uuid", 3) is None
        assert monitor.asked == ["GET /uuid", "GET /uuid/3"]


def test_monitor_that_cannot_be_told_is_a_warning_without_the_secret_in_its_path() -> None:
    with http_server(lambda path: (404, "not found")) as monitor:
        assert ping(f"{monitor.url}/secret") == "ping_url: 127.0.0.1 answered with status 404"
    warning = ping("http://127.0.0.1:1/secret")
    assert warning == "ping_url: 127.0.0.1 was not told (ConnectionError)"
