"""A recorder seen from outside: its metrics over HTTP, `mmdata status` before, meanwhile and after."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.integration.conftest import (
    ENVIRONMENT,
    RunningSandbox,
    mmdata,
    mmdata_command,
    write_job,
)

Start = Callable[..., RunningSandbox]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def job(tmp_path: Path, sandbox: Start) -> Callable[..., Path]:
    """Return a function that writes a job for both venues of a sandbox."""
    running = sandbox()
    venues = [running.venue("binance", ["BTCUSDT"]), running.venue("okx", ["BTC-USDT"])]
    root = str(tmp_path / "data")
    return lambda **more: write_job(tmp_path / "job.yaml", root=root, venues=venues, **more)


def recording(job: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        mmdata_command("record", job, *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )


def status(root: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return the exit code of `mmdata status`, and what it says of each exchange."""
    run = mmdata("status", root, "--json")
    return run.returncode, {told["exchange"]: told for told in json.loads(run.stdout)["recorders"]}


def wait_until(root: Path, happened: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until the status files of both venues tell that it happened; they are written once a second."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        files = [*root.glob(".captures/*/status.json")]
        if len(files) == 2 and all(happened(json.loads(file.read_bytes())) for file in files):
            return
        time.sleep(0.1)
    raise AssertionError("it did not happen within 30 s")


def scrape(port: int) -> dict[tuple[str, str], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        (sample.name.removeprefix("mmdata_recorder_"), sample.labels.get("exchange", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_served_while_it_records_and_agree_with_its_report(
    tmp_path: Path, job: Callable[..., Path]
) -> None:
    port = free_port()
    with recording(job(metrics_port=port, segment={"seconds": "1s"}), "--json") as child:
        wait_until(tmp_path / "data", lambda told: told["frames"] > 100 and told["rows"] != {})
        first = scrape(port)
        wait_until(tmp_path / "data", lambda told: told["frames"] > first["frames_total", told["exchange"]])
        second = scrape(port)
        child.terminate()
        out, err = child.communicate(timeout=20)
    assert child.returncode == 0, err
    for venue in json.loads(out)["venues"]:
        exchange = venue["exchange"]
        frames = first["frames_total", exchange], second["frames_total", exchange], venue["frames"]
        assert 100 < frames[0] < frames[1] <= frames[2]
        assert 0 < first["received_bytes_total", exchange] < venue["bytes"]
        assert first["connections_total", exchange] == 1
        assert first["book_whole", exchange] == 1
        assert first["rows_total", exchange] > 0
    assert first["disk_free_bytes", ""] > 0
    # The defaults of min_free and stop_free.
    assert (first["disk_min_free_bytes", ""], first["disk_stop_free_bytes", ""]) == (2 << 30, 256 << 20)
    with pytest.raises(OSError, match="refused"):
        scrape(port)


def test_port_that_is_taken_is_exit_2_and_nothing_is_recorded(
    tmp_path: Path, job: Callable[..., Path]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = mmdata("record", job(metrics_port=port))
    assert run.returncode == 2
    assert f"metrics_port: 127.0.0.1:{port} cannot be listened on (Address already in use)" in run.stderr
    assert not [*(tmp_path / "data").rglob("*.open")]


def test_status_is_1_before_0_meanwhile_and_0_after_a_clean_end(
    tmp_path: Path, job: Callable[..., Path]
) -> None:
    root = tmp_path / "data"
    assert status(root) == (1, {})
    with recording(job()) as child:
        wait_until(root, lambda told: told["state"] == "recording" and told["frames"] > 0)
        code, meanwhile = status(root)
        child.terminate()
        child.communicate(timeout=20)
    assert code == 0
    assert {told["status"]["state"] for told in meanwhile.values()} == {"recording"}
    assert {told["status"]["pid"] for told in meanwhile.values()} == {child.pid}
    code, after = status(root)
    assert code == 0
    assert [after[exchange]["sentence"] for exchange in ("binance", "okx")] == [
        "binance: ended: a signal",
        "okx: ended: a signal",
    ]


def test_status_is_1_after_a_kill_until_the_next_start_ends_cleanly(
    tmp_path: Path, job: Callable[..., Path]
) -> None:
    root = tmp_path / "data"
    with recording(job()) as child:
        wait_until(root, lambda told: told["state"] == "recording" and told["frames"] > 0)
        child.kill()
        child.communicate()
    code, told = status(root)
    assert code == 1
    assert f"(pid {child.pid} on {socket.gethostname()}) is gone" in told["okx"]["sentence"]
    said = mmdata("status", root)
    assert said.returncode == 1
    assert "stale" in said.stdout
    assert mmdata("record", job(duration="1s")).returncode == 0
    assert status(root)[0] == 0


def test_status_is_1_while_a_recorder_hangs(tmp_path: Path, job: Callable[..., Path]) -> None:
    root = tmp_path / "data"
    with recording(job()) as child:
        wait_until(root, lambda told: told["state"] == "recording" and told["frames"] > 0)
        child.send_signal(signal.SIGSTOP)
        for file in root.glob(".captures/*/status.json"):  # what it wrote last, as if 11 s had passed
            told = json.loads(file.read_bytes())
            file.write_text(json.dumps(told | {"written_at": told["written_at"] - 11_000_000_000}))
        code, stopped = status(root)
        child.send_signal(signal.SIGCONT)
        child.terminate()
        child.communicate(timeout=20)
    assert code == 1
    assert "expected once a second; it hangs, or is gone" in stopped["okx"]["sentence"]


def test_status_that_ended_with_an_error_is_stale_and_says_which(tmp_path: Path) -> None:
    venue = {
        "exchange": "okx",
        "symbols": ["BTC-USDT"],
        "rest_url": "http://127.0.0.1:1",
        "ws_url": "ws://127.0.0.1:1",
    }
    path = write_job(tmp_path / "job.yaml", root=str(tmp_path / "data"), venues=[venue], connect_timeout="1s")
    assert mmdata("record", path).returncode == 3
    code, told = status(tmp_path / "data")
    assert code == 1
    assert "okx: ended with exit 3: not one frame came from okx" in told["okx"]["sentence"]


def test_status_loads_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from mmdata.cli.main import main\n"
        f"try: main(['status', {str(tmp_path)!r}])\n"
        "except SystemExit as done: assert done.code == 1\n"
        "heavy = ('polars', 'numba', 'numpy', 'pyarrow', 'websockets', 'requests', 'prometheus_client')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines()[-1] == "[]"


def test_status_with_a_wrong_duration_is_exit_2(tmp_path: Path) -> None:
    run = mmdata("status", tmp_path, "--stale-after", "60")
    assert run.returncode == 2
    assert "--stale-after: '60' is not a duration" in run.stderr


def logged(job: Path, *options: str, **environment: str) -> list[str]:
    run = subprocess.run(
        mmdata_command("record", job, *options),
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stderr.splitlines()


def test_log_is_json_where_nobody_watches_and_says_what_each_line_is_about(job: Callable[..., Path]) -> None:
    lines = [json.loads(line) for line in logged(job(duration="2s"), "-v")]
    begun = {line["exchange"]: line for line in lines if "recording begins" in line["message"]}
    assert begun.keys() == {"binance", "okx"}
    assert begun["okx"]["session"] in begun["okx"]["message"]
    assert begun["okx"]["level"] == "info"
    assert all({"ts", "level", "logger", "message"} <= line.keys() for line in lines)


def test_log_is_text_where_that_is_asked_for_and_quiet_is_quiet(job: Callable[..., Path]) -> None:
    text = "\n".join(logged(job(duration="1s"), "-v", MMDATA_LOG="text"))
    assert re.search(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO okx: recording begins", text, re.MULTILINE)
    assert logged(job(duration="1s"), "--quiet") == []


@pytest.mark.parametrize(("columns", "shown"), [(80, "queue"), (120, "MB")])
def test_table_on_a_terminal_has_a_row_an_exchange_and_fits(
    job: Callable[..., Path], columns: int, shown: str
) -> None:
    screen = in_a_terminal(mmdata_command("record", job(duration="3s")), columns)
    headings = {line for line in screen if "per s" in line}  # wider when the figures are
    assert headings
    assert all(shown in line for line in headings)
    tables = [line for line in screen if re.match(r" (binance|okx) +[\d,]+ +[\d,]+ ", line)]
    assert {line.split()[0] for line in tables} == {"binance", "okx"}
    assert any("1/1" in line for line in tables)
    assert max(map(len, screen)) <= columns
    assert any("recording (" in line and "GB free) into" in line for line in screen)


def in_a_terminal(command: list[str], columns: int) -> list[str]:
    """Run a command in a terminal so wide; return every line that was ever drawn, without its colours."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {**ENVIRONMENT, "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    drawn = b""
    with subprocess.Popen(command, stdin=child, stdout=child, stderr=child, env=environment) as process:
        os.close(child)
        while True:
            try:
                piece = os.read(parent, 1 << 16)
            except OSError:  # the last process that held the terminal is gone
                break
            drawn += piece
    os.close(parent)
    assert process.returncode == 0, drawn.decode()
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode()).replace("\r", "\n").split("\n")
