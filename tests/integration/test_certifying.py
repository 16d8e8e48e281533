"""`mmdata verify` and `certify`, and the certificates that `record`, `recover` and `import` make."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from mmdata.datasets import verify
from mmdata.datasets.certificate.store import CERTIFICATES
from mmdata.recorder.segments import recount, recover
from tests.builders import spot_lines
from tests.certified import certified, write_capture
from tests.integration.conftest import RunningSandbox, answered, mmdata, write_job

Start = Callable[..., RunningSandbox]


def test_recording_ends_with_certificates_that_verify_bears_out(tmp_path: Path, sandbox: Start) -> None:
    root = tmp_path / "data"
    exchange = sandbox()
    job = write_job(
        tmp_path / "job.yaml",
        root=str(root),
        venues=[exchange.venue("binance", ["BTCUSDT", "ETHUSDT"]), exchange.venue("okx", ["BTC-USDT"])],
        duration="4s",
        segment={"seconds": "1s", "bytes": "64MiB"},
    )
    run = mmdata("record", job, "--json")
    assert run.returncode == 0, run.stderr
    recorded = json.loads(run.stdout)
    assert recorded["warnings"] == []
    assert recorded["certified"] >= 5  # three symbols and `_` of both; more where midnight comes in between
    verified = answered("verify", root, "--json")
    assert verified.returncode == 0, verified.stdout
    answer = json.loads(verified.stdout)
    assert (answer["schema"], answer["exit"], answer["differences"], answer["notes"]) == (1, 0, [], [])
    assert len(answer["verified"]) == recorded["certified"]
    assert answer["recounted_segments"] >= 2
    certificates = [json.loads(path.read_bytes()) for path in (root / CERTIFICATES).rglob("*.json")]
    books = [facts for facts in certificates if facts["chains"]]
    assert {facts["symbol"] for facts in books} == {"BTCUSDT", "ETHUSDT", "BTC-USDT"}
    for facts in books:
        assert sum(chain["messages"] for chain in facts["chains"]) > 10
        assert 0 < facts["coverage"]["proven_ns"] <= facts["coverage"]["window_ns"]
        assert {hole["cause"] for hole in facts["holes"]} <= {"start", "missing", "disconnect"}
        assert all(chain["unrecorded"] == 0 for chain in facts["chains"])


def test_recovery_certifies_and_says_so(tmp_path: Path) -> None:
    write_capture(tmp_path)
    run = mmdata("recover", tmp_path)
    assert run.returncode == 0, run.stderr
    assert "2 segments ingested, 26 rows; 2 days of a symbol certified" in run.stdout
    told = answered("verify", tmp_path)
    assert told.returncode == 0
    assert (
        "2 days of a symbol are as certified (26 rows, 2 captures counted again), 0 differences"
        in told.stdout
    )
    assert answered("verify", tmp_path, "--quiet").stdout == ""


def test_import_certifies_and_importing_again_changes_nothing(tmp_path: Path) -> None:
    source = tmp_path / "btcusdt.txt"
    source.write_bytes(b"".join(spot_lines()))
    command = ("import", source, "-f", "hftbacktest", "--exchange", "binance", "--symbol", "BTCUSDT")
    answers = []
    for _ in range(2):
        run = answered(*command, "--out", tmp_path / "data", "--json")
        assert run.returncode == 0, run.stderr
        answers.append(json.loads(run.stdout)["certified"])
    assert answers == [2, 0]
    verified = json.loads(answered("verify", tmp_path / "data", "--json").stdout)
    assert (verified["exit"], len(verified["verified"]), verified["recounted_segments"]) == (0, 2, 0)
    assert "captures of 1 segments were not kept" in verified["notes"][0]


def test_differences_are_exit_1_by_name_and_certify_does_not_hide_them(tmp_path: Path) -> None:
    root = certified(tmp_path / "data")
    lost = min((root / "trades").rglob("*.parquet"))
    lost.unlink()
    run = answered("verify", root)
    assert run.returncode == 1
    assert f"{lost.relative_to(root)} is missing".replace(" ", "") in "".join(run.stdout.split())
    assert "1 differences" in run.stdout
    assert answered("certify", root).returncode == 0
    assert answered("verify", root).returncode == 1


def test_days_without_a_certificate_are_certified_on_demand(tmp_path: Path) -> None:
    root = certified(tmp_path / "data")
    shutil.rmtree(root / CERTIFICATES)
    verified = json.loads(answered("verify", root, "--json").stdout)
    assert verified["exit"] == 1
    assert all("no certificate" in found["sentence"] for found in verified["differences"])
    answer = json.loads(answered("certify", root, "--json").stdout)
    assert (answer["schema"], answer["exit"], len(answer["certified"]), answer["left"]) == (1, 0, 2, 0)
    assert answered("verify", root).returncode == 0
    assert "0 certified, 2 had their certificate" in answered("certify", root).stdout


def test_wrong_usage_is_exit_2(tmp_path: Path) -> None:
    for verb in ("verify", "certify"):
        assert answered(verb, tmp_path / "none").returncode == 2
        assert answered(verb, tmp_path, "--date", "tomorrow").returncode == 2


def test_what_an_earlier_run_ingested_and_could_not_certify_the_next_one_does(
    tmp_path: Path, sandbox: Start
) -> None:
    root = tmp_path / "data"
    write_capture(root)
    recover(root, "binance")
    assert "2 segments of binance are ingested and not certified yet" in verify(root).notes[0]
    job = write_job(
        tmp_path / "job.yaml",
        root=str(root),
        venues=[sandbox().venue("binance", ["ETHUSDT"])],
        duration="2s",
    )
    run = mmdata("record", job, "--json", "--verbose")
    assert run.returncode == 0, run.stderr
    assert "certified 2 days of a symbol" in run.stderr
    report = verify(root, recount=recount)
    assert (report.differences, report.notes) == ([], [])
    assert ("binance", "BTCUSDT", "2026-11-21") in report.verified
