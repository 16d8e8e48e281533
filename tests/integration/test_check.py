"""`mmdata record --check`: what a job needs, and the exit code of what is missing."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmdata.recorder.check import FAILED, OK, WARNING, check, exit_code
from mmdata.recorder.config import parse_job
from mmdata.recorder.lock import exchange_lock
from tests.integration.conftest import (
    ENVIRONMENT,
    REPOSITORY,
    RunningSandbox,
    answered,
    mmdata,
    mmdata_command,
    write_job,
)
from tests.venue import Answer, http_server, proxy_server

Start = Callable[..., RunningSandbox]


@pytest.fixture
def job(tmp_path: Path, sandbox: Start) -> dict[str, Any]:
    """Return a job that would record one symbol of each venue."""
    running = sandbox()
    venues = [running.venue("binance", ["BTCUSDT"]), running.venue("okx", ["BTC-USDT"])]
    return {"root": str(tmp_path / "data"), "venues": venues}


def checked(path: Path, exit_status: int) -> dict[str, dict[str, Any]]:
    """Return the findings of ``--check`` by part; the command must end with ``exit_status``."""
    run = answered("record", path, "--check", "--json")
    assert run.returncode == exit_status, run.stdout + run.stderr
    answer = json.loads(run.stdout)
    assert answer["exit"] == exit_status
    return {finding["part"]: finding for finding in answer["checks"]}


def test_everything_there_is_exit_0_and_nothing_is_made(tmp_path: Path, job: dict[str, Any]) -> None:
    found = checked(write_job(tmp_path / "job.yaml", **job), 0)
    assert {finding["status"] for finding in found.values()} == {OK}
    assert [*found] == [
        *("window", "disk", "binance lock", "okx lock"),
        *(f"{exchange} {part}" for exchange in ("binance", "okx") for part in PARTS),
    ]
    assert found["okx symbols"]["found"] == "BTC-USDT: traded"
    assert not (tmp_path / "data").exists()


PARTS = ("REST and clock", "symbols", "stream")


def test_table_for_people_and_an_embedded_sandbox() -> None:
    run = mmdata("record", REPOSITORY / "config/demo.yaml", "--check")
    assert run.returncode == 0, run.stderr
    for word in ("would it record?", "window", "disk", "lock", "clock", "symbols", "traded"):
        assert word in run.stdout


def test_unknown_symbol_is_exit_2_naming_it(tmp_path: Path, job: dict[str, Any]) -> None:
    job["venues"][0]["symbols"] = ["NOSUCH"]
    job["venues"][1]["symbols"] = ["BTC-USDT", "NO-SUCH"]
    found = checked(write_job(tmp_path / "job.yaml", **job), 2)
    assert "NOSUCH" in found["binance symbols"]["found"]
    assert found["okx symbols"]["found"] == "NO-SUCH: no such instrument"


def test_lock_that_is_held_is_exit_2_naming_the_holder(tmp_path: Path, job: dict[str, Any]) -> None:
    path = write_job(tmp_path / "job.yaml", **job)
    with exchange_lock(tmp_path / "data/.captures/okx", "okx"):
        found = checked(path, 2)
    assert '"pid":' in found["okx lock"]["found"]
    assert found["binance lock"]["status"] == OK


def test_place_that_cannot_be_written_is_exit_4_naming_who_we_are(
    tmp_path: Path, job: dict[str, Any]
) -> None:
    (tmp_path / "file").touch()
    found = checked(write_job(tmp_path / "job.yaml", **job | {"root": str(tmp_path / "file/data")}), 4)
    assert "cannot be written" in found["disk"]["found"]
    assert "we are uid" in found["disk"]["found"]


def test_too_little_space_is_exit_4(tmp_path: Path, job: dict[str, Any]) -> None:
    found = checked(write_job(tmp_path / "job.yaml", **job, segment={"bytes": "1024TiB"}), 4)
    assert "3 segments a venue" in found["disk"]["found"]


def test_venue_that_cannot_be_reached_is_exit_3_in_every_part(tmp_path: Path, job: dict[str, Any]) -> None:
    job["venues"][1] |= {"rest_url": "http://127.0.0.1:1", "ws_url": "ws://127.0.0.1:1"}
    found = checked(write_job(tmp_path / "job.yaml", **job), 3)
    assert [found[f"okx {part}"]["status"] for part in PARTS] == [FAILED] * 3
    assert [found[f"binance {part}"]["status"] for part in PARTS] == [OK] * 3


def test_what_retention_would_remove_is_said(tmp_path: Path, job: dict[str, Any]) -> None:
    (tmp_path / "data/depth/exchange=okx/symbol=BTC-USDT/date=2020-01-01").mkdir(parents=True)
    found = checked(write_job(tmp_path / "job.yaml", **job, retain_days=30), 0)
    assert found["retention"]["found"] == (
        "30 days; would be removed now: 1 partitions of 2020-01-01 to 2020-01-01, 0 sessions' captures"
    )


def part(answer: Answer, name: str, **venue: Any) -> Any:
    """Return what is found of one part of a Binance that answers by ``answer``."""
    with http_server(answer) as server:
        entry = {"exchange": "binance", "symbols": ["BTCUSDT"], "rest_url": server.url, **venue}
        entry["ws_url"] = server.url.replace("http", "ws")
        job = parse_job({"venues": [entry], "window": "none", "connect_timeout": "5s"}, "job")
        findings = check(job)
    [found] = [finding for finding in findings if finding.part.endswith(name)]
    return found, exit_code(findings)


def test_clock_that_is_far_off_is_a_warning() -> None:
    def late(path: str) -> tuple[int, str]:
        return 200, f'{{"serverTime":{time.time_ns() // 1_000_000 + 60_000}}}'

    found, _ = part(late, "clock")
    assert found.status == WARNING
    assert "our clock is 59" in found.found or "our clock is 60" in found.found
    assert "ms behind the venue's" in found.found


def test_symbol_that_is_halted_is_a_warning() -> None:
    filters = '[{"filterType":"PRICE_FILTER","tickSize":"0.01"},{"filterType":"LOT_SIZE","stepSize":"0.1"}]'
    body = f'{{"symbols":[{{"symbol":"BTCUSDT","status":"BREAK","filters":{filters}}}]}}'
    found, _ = part(lambda path: (200, body), "symbols")
    assert (found.status, found.found) == (
        WARNING,
        "BTCUSDT is BREAK: not traded now, so its streams are silent",
    )


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (500, "broken", "status 500: broken"),
        (200, "<html>", "cannot be read"),
    ],
)
def test_answer_that_cannot_be_used_is_exit_3(status: int, body: str, sentence: str) -> None:
    found, code = part(lambda path: (status, body), "clock")
    assert (found.status, code) == (FAILED, 3)
    assert sentence in found.found


def test_venue_that_does_not_answer_in_time_is_exit_3(tmp_path: Path) -> None:
    def silent(path: str) -> tuple[int, str]:
        time.sleep(2.0)
        return 200, "{}"

    with http_server(silent) as server:
        entry = {"exchange": "okx", "symbols": ["BTC-USDT"], "rest_url": server.url}
        entry["ws_url"] = server.url.replace("http", "ws")
        job = parse_job({"venues": [entry], "window": "none", "connect_timeout": "200ms"}, "job")
        findings = check(job)
    assert exit_code(findings) == 3
    assert findings[-1].found == "no answer within 0.2 s (connect_timeout)"


def test_okx_that_refuses_the_region_names_the_others() -> None:
    with http_server(lambda path: (451, '{"code":"1","msg":"Service unavailable here"}')) as server:
        entry = {"exchange": "okx", "symbols": ["BTC-USDT"], "rest_url": server.url}
        entry["ws_url"] = server.url.replace("http", "ws")
        findings = check(parse_job({"venues": [entry], "window": "none"}, "job"))
    by_part = {finding.part: finding for finding in findings}
    for name in PARTS:
        assert "`region: eea` or `region: us`" in by_part[f"okx {name}"].found
        assert "a Berlin user may need region: eea" in by_part[f"okx {name}"].found
    assert exit_code(findings) == 3


def through_proxy(command: list[str], proxy: str, without: str = "") -> subprocess.CompletedProcess[str]:
    named = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": without, "no_proxy": without}
    return subprocess.run(command, env=ENVIRONMENT | named, capture_output=True, text=True, check=False)


def test_proxy_of_the_environment_is_used_for_rest_and_stream_and_said(
    tmp_path: Path, job: dict[str, Any]
) -> None:
    path = write_job(tmp_path / "job.yaml", **job)
    host = job["venues"][0]["rest_url"].removeprefix("http://")
    with proxy_server() as proxy:
        secret = proxy.url.replace("http://", "http://user:secret@")
        run = through_proxy(mmdata_command("record", path, "--check", "--json"), secret)
        assert run.returncode == 0, run.stdout + run.stderr
        found = {finding["part"]: finding["found"] for finding in json.loads(run.stdout)["checks"]}
        assert found["binance proxy"] == f"REST through {proxy.url}, stream through {proxy.url}"
        assert "secret" not in run.stdout
        assert f"CONNECT {host}" in proxy.asked
        assert f"GET http://{host}/api/v3/time" in proxy.asked


def test_recording_goes_through_the_proxy_and_around_it_for_hosts_that_are_excepted(
    tmp_path: Path, job: dict[str, Any]
) -> None:
    path = write_job(tmp_path / "job.yaml", **job, duration="2s")
    with proxy_server() as proxy:
        run = through_proxy(mmdata_command("record", path, "--json"), proxy.url)
        assert run.returncode == 0, run.stderr
        assert all(venue["frames"] > 0 for venue in json.loads(run.stdout)["venues"])
        assert sum(asked.startswith("CONNECT") for asked in proxy.asked) >= 2
        assert any("/api/v3/depth" in asked for asked in proxy.asked)
        del proxy.asked[:]
        run = through_proxy(mmdata_command("record", path, "--json"), proxy.url, without="127.0.0.1")
        assert run.returncode == 0, run.stderr
        assert proxy.asked == []
