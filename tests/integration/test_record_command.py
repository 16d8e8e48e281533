"""`mmdata record` as cron and a container meet it: configurations, signals, refusals, exit codes."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmdata.datasets.layout import list_parts
from mmdata.datasets.validation import validate
from tests.builders import flaws, rows
from tests.integration.conftest import (
    ENVIRONMENT,
    REPOSITORY,
    RunningSandbox,
    mmdata,
    mmdata_command,
    running_sandbox,
    write_job,
)

Start = Callable[..., RunningSandbox]
DEAD_HTTP, DEAD_WS = "http://127.0.0.1:1", "ws://127.0.0.1:1"
CONFIGS = sorted((REPOSITORY / "config").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_records_from_the_sandbox(
    tmp_path: Path, sandbox: Start, path: Path
) -> None:
    job: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    if "sandbox" not in job:
        running = sandbox()
        for venue in job["venues"]:
            venue.pop("region", None)  # in place of which the sandbox's addresses stand
            venue |= {
                key: url for key, url in running.addresses[venue["exchange"]].items() if key.endswith("_url")
            }
    job |= {"window": "none", "root": str(tmp_path / "data"), "duration": "3s"}
    written = write_job(tmp_path / path.name, **job)
    run = mmdata("record", written, "--json")
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    for venue, wanted in zip(told["venues"], job["venues"], strict=True):
        assert venue["gaps"] == 0
        for table in ("depth", "snapshots", "trades", "bbo", "events", "instruments"):
            found = {
                part.partition.symbol
                for part in list_parts(tmp_path / "data", table, exchange=venue["exchange"])
            }
            assert {*wanted["symbols"]} <= found, table
    assert flaws(tmp_path / "data") == []


def recording(job: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        mmdata_command("record", job, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        **options,
    )


def wait_for_frames(root: Path, exchange: str, size: int = 20_000, holding: bytes = b"") -> Path:
    """Wait until the open capture of ``exchange`` holds so many bytes, and these; return it."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for path in (root / ".captures" / exchange).glob("*/*.open"):
            with suppress(FileNotFoundError):  # recovered meanwhile
                if path.stat().st_size > size and holding in path.read_bytes():
                    return path
        time.sleep(0.05)
    raise AssertionError("nothing was recorded within 20 s")


@pytest.fixture
def job(tmp_path: Path, sandbox: Start) -> Path:
    """Return a job that records one symbol of each venue until it is stopped."""
    running = sandbox()
    venues = [running.venue("binance", ["BTCUSDT"]), running.venue("okx", ["BTC-USDT"])]
    return write_job(tmp_path / "job.yaml", root=str(tmp_path / "data"), venues=venues)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_cleanly_with_everything_ingested(
    tmp_path: Path, job: Path, number: signal.Signals
) -> None:
    with recording(job) as child:
        for exchange in ("binance", "okx"):  # on a busy machine the first book may take its time
            wait_for_frames(tmp_path / "data", exchange, holding=b'"synced"')
        child.send_signal(number)
        out, err = child.communicate(timeout=10)
    assert child.returncode == 0, err
    for venue in json.loads(out)["venues"]:
        assert venue["pending_segments"] == 0
    kinds = [row["kind"] for row in rows(tmp_path / "data", "events")]
    assert kinds.count("session_end") == 2
    assert "gap" not in kinds
    assert flaws(tmp_path / "data") == []


def test_killed_recorder_loses_no_frame_that_was_captured_and_the_next_start_ingests_it(
    tmp_path: Path, job: Path
) -> None:
    with recording(job) as child:
        path = wait_for_frames(tmp_path / "data", "okx")
        child.kill()
        child.wait()
    lines = path.read_bytes().count(b"\n") - 1  # all but the header
    assert list_parts(tmp_path / "data", "depth", exchange="okx") == []
    run = mmdata("record", job, "--json", "--duration", "1s")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["recovered_segments"] == 2
    session = path.parent.name
    frames = {
        row["frame"]
        for table in ("depth", "trades", "bbo", "events")
        for row in rows(tmp_path / "data", table)
        if row["session"] == session
    }
    assert max(frames) < lines
    assert len(frames) > 0.9 * lines - 50
    assert validate(tmp_path / "data").exit_code() == 0


def test_recover_ingests_what_a_killed_recorder_left(tmp_path: Path, job: Path) -> None:
    with recording(job) as child:
        wait_for_frames(tmp_path / "data", "okx")
        child.kill()
        child.wait()
    run = mmdata("recover", tmp_path / "data", "--json")
    assert run.returncode == 0, run.stderr
    assert len(json.loads(run.stdout)["segments"]) == 2
    assert list_parts(tmp_path / "data", "depth", exchange="okx")


def test_embedded_exchange_follows_the_script_of_the_job(tmp_path: Path) -> None:
    script = tmp_path / "faults.yaml"
    script.write_text("- {kind: abort, at_message: 40}\n", encoding="utf-8")
    said: dict[str, Any] = {
        "root": str(tmp_path / "data"),
        "duration": "5s",
        "venues": [{"exchange": "okx", "symbols": ["BTC-USDT"]}],
        "sandbox": {"faults": str(script)},
    }
    run = mmdata("record", write_job(tmp_path / "job.yaml", **said), "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["venues"][0]["connections"] > 1
    assert "disconnected" in {event["kind"] for event in rows(tmp_path / "data", "events")}

    script.write_text("- {kind: earthquake, at: 1s}\n", encoding="utf-8")
    run = mmdata("record", write_job(tmp_path / "job.yaml", **said))
    assert run.returncode == 2, run.stderr
    assert "earthquake" in run.stderr
    assert f"sandbox: the exchange refuses what the job says of it (faults: {script})" in run.stderr


def test_second_recorder_of_an_exchange_is_refused_at_once(tmp_path: Path, job: Path) -> None:
    with recording(job) as child:
        wait_for_frames(tmp_path / "data", "binance")
        run = mmdata("record", job)
        assert run.returncode == 2
        assert f'"pid": {child.pid}' in run.stderr
        child.terminate()
        child.communicate(timeout=10)
    assert child.returncode == 0


def test_port_where_nothing_listens_is_exit_3_with_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    venue = {
        "exchange": "binance",
        "symbols": ["BTCUSDT"],
        "rest_url": f"http://127.0.0.1:{port}",
        "ws_url": f"ws://127.0.0.1:{port}",
    }
    job = write_job(tmp_path / "job.yaml", root=str(tmp_path / "data"), venues=[venue], connect_timeout="1s")
    run = mmdata("record", job)
    assert run.returncode == 3
    assert f"not one frame came from binance at ws://127.0.0.1:{port}" in run.stderr
    assert "connect_timeout is 1s" in run.stderr
    assert "Traceback" not in run.stderr


def test_not_one_frame_is_exit_3_also_when_the_duration_ends_first(tmp_path: Path) -> None:
    venue = {"exchange": "okx", "symbols": ["BTC-USDT"], "rest_url": DEAD_HTTP, "ws_url": DEAD_WS}
    job = write_job(tmp_path / "job.yaml", root=str(tmp_path / "data"), venues=[venue], duration="1s")
    run = mmdata("record", job)
    assert run.returncode == 3
    assert "not one frame came from okx" in run.stderr


def test_proxy_that_cannot_be_used_is_told_and_is_no_bug(tmp_path: Path) -> None:
    venue = {
        "exchange": "okx",
        "symbols": ["BTC-USDT"],
        "rest_url": "http://venue.invalid",
        "ws_url": "ws://venue.invalid",
    }
    job = write_job(tmp_path / "job.yaml", root=str(tmp_path / "data"), venues=[venue], connect_timeout="1s")
    for proxy in ("nonsense://:x", "socks5://127.0.0.1:1"):
        run = subprocess.run(
            mmdata_command("record", job),
            env=ENVIRONMENT | {"https_proxy": proxy, "http_proxy": proxy, "all_proxy": proxy},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 3, run.stderr
        assert "Traceback" not in run.stderr


def test_venue_that_stays_silent_does_not_end_the_recording_of_the_other(
    tmp_path: Path, sandbox: Start
) -> None:
    running = sandbox()
    dead = {"exchange": "okx", "symbols": ["BTC-USDT"], "rest_url": DEAD_HTTP, "ws_url": DEAD_WS}
    venues = [running.venue("binance", ["BTCUSDT"]), dead]
    job = write_job(
        tmp_path / "job.yaml",
        root=str(tmp_path / "data"),
        venues=venues,
        connect_timeout="1s",
        duration="4s",
    )
    run = mmdata("record", job)
    assert run.returncode == 3
    assert "not one frame came from okx" in run.stderr
    assert "the other venues are recorded" in run.stderr
    assert validate(tmp_path / "data", exchange="binance").count("error") == 0
    assert len(list_parts(tmp_path / "data", "trades", exchange="binance")) == 1


def test_symbol_that_the_venue_does_not_have_is_exit_2_naming_it(tmp_path: Path, sandbox: Start) -> None:
    running = sandbox()
    for exchange, symbol in (("binance", "NOSUCH"), ("okx", "NO-SUCH")):
        job = write_job(
            tmp_path / "job.yaml", root=str(tmp_path / "data"), venues=[running.venue(exchange, [symbol])]
        )
        run = mmdata("record", job)
        assert run.returncode == 2, run.stderr
        assert symbol in run.stderr.splitlines()[-1]


def test_before_the_window_it_says_when_it_opens_and_exits_0(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    window = {
        "zone": "UTC",
        "start": f"{now + timedelta(hours=2):%H:%M}",
        "end": f"{now + timedelta(hours=3):%H:%M}",
    }
    venues = [{"exchange": "binance", "symbols": ["BTCUSDT"]}]
    job = write_job(tmp_path / "job.yaml", root=str(tmp_path / "data"), venues=venues, window=window)
    run = mmdata("record", job)
    assert run.returncode == 0
    assert f"the window opens at {now + timedelta(hours=2):%Y-%m-%dT%H:%M}" in run.stdout
    assert not (tmp_path / "data").exists()


def test_recording_stops_when_the_window_closes(tmp_path: Path, sandbox: Start) -> None:
    running = sandbox()
    now = datetime.now(UTC)
    window = {
        "zone": "UTC",
        "start": f"{now - timedelta(hours=1):%H:%M:%S}",
        "end": f"{now + timedelta(seconds=15):%H:%M:%S}",
    }
    job = write_job(
        tmp_path / "job.yaml",
        root=str(tmp_path / "data"),
        venues=[running.venue("okx", ["BTC-USDT"])],
        window=window,
    )
    run = mmdata("record", job)
    assert run.returncode == 0, run.stderr
    kinds = [row["kind"] for row in rows(tmp_path / "data", "events")]
    assert kinds.count("window_open") == kinds.count("window_close") == 1


def test_configuration_comes_from_the_environment_and_an_argument_beats_it(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("venues: [{exchange: binance, symbls: [BTCUSDT]}]", encoding="utf-8")
    command = mmdata_command("record")
    for args, named in (([], "bad.yaml"), ([str(tmp_path / "other.yaml")], "other.yaml")):
        run = subprocess.run(
            [*command, *args],
            env=ENVIRONMENT | {"CONFIG_PATH": str(bad)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 2
        assert named in run.stderr


def test_frame_that_is_no_json_is_told_kept_and_quarantined(tmp_path: Path) -> None:
    # A capture with a broken frame in it, served over real sockets.
    data = b'{"e":"trade","E":1795262400000000,"s":"BTCUSDT","t":%d,"p":"1","q":"1","T":1,"m":true,"M":true}'
    good = b'{"stream":"btcusdt@trade","data":%s}' % data
    capture = tmp_path / "broken.gz"
    frames = [good % 1, good % 2, b'{"stream":"btcusdt@trade","data":{"e":"tra', good % 3]
    with gzip.open(capture, "wb") as file:
        for at, frame in enumerate(frames):
            file.write(b"%d %s\n" % (1_795_262_400_000_000_000 + at * 100_000_000, frame))
    with running_sandbox(tmp_path / "truth", captures=[str(capture)]) as running:
        venue = running.venue("binance", ["BTCUSDT"]) | {"channels": ["trade"]}
        job = write_job(tmp_path / "job.yaml", root=str(tmp_path / "data"), venues=[venue], duration="3s")
        run = mmdata("record", job, "--json")
    assert run.returncode == 0, run.stderr
    assert "sent a frame that cannot be read" in run.stderr
    [told] = json.loads(run.stdout)["venues"]
    assert told["quarantined"] == 1
    assert [row["trade_id"] for row in rows(tmp_path / "data", "trades")] == [1, 2, 3]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_full_disk_is_exit_4_and_what_was_recorded_stays_readable(tmp_path: Path, sandbox: Start) -> None:
    running = sandbox(speed=200.0)
    disk = tmp_path / "disk"
    disk.mkdir()
    venues = [running.venue("binance", ["BTCUSDT"]), running.venue("okx", ["BTC-USDT"])]
    space = {"min_free": "1B", "stop_free": "1B"}  # so that the disk is full before it is left alone
    job = write_job(tmp_path / "job.yaml", root=str(disk / "data"), venues=venues, duration="60s", **space)
    kept = tmp_path / "kept"
    # A mount of its own, so that the disk goes with the process.
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && shift && { "$@"; s=$?; cp -r "$0" "$KEPT"; exit $s; }'
    run = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, str(disk), str(disk), *mmdata_command("record", job)],
        env=ENVIRONMENT | {"KEPT": str(kept)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in run.stderr:
        pytest.skip("this kernel lets no one make a mount namespace")
    assert run.returncode == 4, run.stderr
    assert "the disk took only part of a line" in run.stderr.splitlines()[-1]
    found = (kept / "data/.captures").glob("*/*/*.*")
    captures = [path for path in found if path.suffix != ".part"]  # a copy that the disk did not take
    assert {path.suffix for path in captures} <= {".open", ".cap"}
    assert all(path.read_bytes().endswith(b"\n") for path in captures)
    # With space again, the next start makes tables of all of it.
    recovered = mmdata("recover", kept / "data", "--json")
    assert recovered.returncode == 0, recovered.stderr
    assert sum(json.loads(recovered.stdout)["rows"].values()) > 1_000
    assert validate(kept / "data").count("error") == 0
