"""Certificates: what one says, when another takes its place, and what a compaction makes of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmdata.datasets import certify, compact, verify
from mmdata.datasets.certificate import canonical, certify_ingested
from mmdata.datasets.certificate.accounts import ACCOUNTS, read_accounts
from mmdata.datasets.certificate.derive import Day, derive
from mmdata.datasets.certificate.store import certificate_path, read_certificate
from mmdata.datasets.errors import DatasetError, UsageError
from mmdata.recorder.lock import exchange_lock
from mmdata.recorder.segments import (
    capture_folder,
    finish_segment,
    ingest_segment,
    recount,
    recover,
    recover_all,
)
from tests.builders import HEADER, NOON
from tests.certified import LATER, certified, write_capture

BTC = Day("binance", "BTCUSDT", "2026-11-21")
ALL = Day("binance", "_", "2026-11-21")


def facts_of(root: Path, day: Day = BTC) -> dict[str, Any]:
    found = read_certificate(root, day)
    assert found is not None
    return found


def content_of(root: Path) -> dict[str, Any]:
    return {table: own["sessions"] for table, own in facts_of(root)["tables"].items()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return certified(tmp_path / "data")


def test_it_says_what_the_files_hold_and_what_they_prove(root: Path) -> None:
    facts = facts_of(root)
    assert {table: own["rows"] for table, own in facts["tables"].items()} == {
        "depth": 24,
        "trades": 8,
        "snapshots": 8,
    }
    for own in facts["tables"].values():
        for file in own["files"]:
            data = (root / file["path"]).read_bytes()
            assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
    chain = {"carried": False, "messages": 4, "prev_id": 99, "first_id": 100, "last_id": 119}
    assert facts["chains"] == [
        {"session": session, **chain, "breaks": 0, "unrecorded": 0} for session in (HEADER.session, LATER)
    ]
    # Valid from the first message beyond the snapshot on; the later session begins with ids that were there.
    assert [(hole["cause"], hole["session"]) for hole in facts["holes"]] == [
        ("start", HEADER.session),
        ("session", LATER),
    ]
    assert facts["holes"][0]["since"] == "2026-11-21T12:00:00.000000001Z"
    assert facts["holes"][0]["until"] == "2026-11-21T12:00:00.000000004Z"
    assert [(own["first_id"], own["last_id"], own["missing"]) for own in facts["trades"]] == [(7, 10, 0)] * 2
    assert [audit["last_id"] for audit in facts["audits"]] == [114, 114]
    assert [own["channel"] for own in facts["latency"]] == ["depth", "trades"]


def test_it_accounts_for_every_line_with_both_sums(root: Path) -> None:
    told = facts_of(root, ALL)["accounting"]
    assert [(own["session"], own["segment"]) for own in told] == [
        (session, segment) for session in (HEADER.session, LATER) for segment in (0, 1)
    ]
    assert told[0]["lines"] == {
        "lines": 7,
        "accounted": 7,
        "decoded": 4,
        "control": 0,
        "untabled": {},
        "quarantined": 1,
        "sent": 0,
        "rest": 1,
        "events": 1,
        "repeats": 0,
    }
    assert told[0]["rows"] == {"events": 2, "quarantine": 1}
    assert facts_of(root)["accounting"][0]["rows"] == {"depth": 6, "trades": 2, "snapshots": 2}
    assert not (root / ACCOUNTS / "binance").exists()


def test_it_is_canonical_json_sealed_by_its_own_sha256(root: Path) -> None:
    data = certificate_path(root, BTC).read_bytes()
    facts = json.loads(data)
    assert json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == data
    seal = facts.pop("sha256")
    rest = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(rest.encode()).hexdigest() == seal
    assert {*facts["made"]} == {"version", "host", "at"}
    with pytest.raises(TypeError, match="float"):
        canonical.canonical({"share": [0.5]})


def test_another_session_of_the_day_takes_its_place(root: Path) -> None:
    before = facts_of(root)
    write_capture(root, session="20261121T140000Z-cccccc", ts=NOON + 2 * 10**9)
    assert recover_all(root)[0].certified == 2
    after = facts_of(root)
    assert after["tables"]["depth"]["sessions"][:2] == before["tables"]["depth"]["sessions"]
    assert len(after["tables"]["depth"]["sessions"]) == 3
    assert verify(root, recount=recount).differences == []


def test_what_was_there_already_changes_no_certificate(root: Path) -> None:
    before = certificate_path(root, BTC).read_bytes()
    for path in sorted(capture_folder(root, "binance").glob("*/*.cap.zst")):
        ingest_segment(root, path)
    assert len([*read_accounts(root)]) == 4
    report = certify_ingested(root, "binance")
    assert (report.done, report.left) == ([], 2)
    assert certificate_path(root, BTC).read_bytes() == before
    assert [*read_accounts(root)] == []


def test_it_is_never_replaced_by_one_that_its_files_do_not_bear_out(root: Path) -> None:
    before = certificate_path(root, BTC).read_bytes()
    lost = root / facts_of(root)["tables"]["trades"]["files"][0]["path"]
    lost.unlink()
    write_capture(root, session="20261121T140000Z-cccccc", ts=NOON + 2 * 10**9)
    report, _ = recover_all(root)
    assert len(report.failures) == 1
    assert "is not there any more" in report.failures[0]
    assert certificate_path(root, BTC).read_bytes() == before
    assert len([*read_accounts(root)]) == 2  # they wait
    assert lost.name in {Path(found.field).name for found in verify(root).differences}


def test_days_without_one_are_certified_by_the_verb(root: Path) -> None:
    shutil.rmtree(root / "certificates")
    report = certify(root)
    assert report.done == [BTC, ALL]
    assert facts_of(root)["accounting"] == []  # what ingest said is gone with the old one
    assert verify(root, recount=recount).differences == []
    assert (certify(root).done, certify(root).left) == ([], 2)


def test_open_days_are_left(root: Path) -> None:
    shutil.rmtree(root / "certificates")
    folder = capture_folder(root, "binance")
    (folder / LATER / "000002.open").touch()
    with exchange_lock(folder, "binance"):
        report = certify(root)
    assert report.done == []
    assert len(report.skipped) == 2
    assert "is being recorded" in report.skipped[0]


def test_a_date_that_is_none_is_refused(root: Path) -> None:
    for refused in (lambda: certify(root, date="today"), lambda: verify(root, date="today")):
        with pytest.raises(UsageError, match="is none"):
            refused()


@pytest.mark.parametrize("fine", [False, True], ids=["narrow", "widened"])
def test_compaction_carries_it_over(tmp_path: Path, fine: bool) -> None:
    root = certified(tmp_path / "data", fine=fine)
    before, content = facts_of(root), content_of(root)
    assert ("depth-wide" in {Path(f["path"]).parts[0] for f in before["tables"]["depth"]["files"]}) == fine
    assert compact(root).failures == []
    after = facts_of(root)
    assert [len(own["files"]) for own in after["tables"].values()] == [1] * len(after["tables"])
    assert content_of(root) == content
    assert after["made"] == before["made"]
    assert verify(root, recount=recount).differences == []


def test_rows_other_than_certified_are_not_compacted(root: Path) -> None:
    before = facts_of(root)
    sessions = before["tables"]["trades"]["sessions"]
    sessions[0]["content"] = "0" * 64
    certificate_path(root, BTC).write_bytes(canonical.canonical(canonical.seal(before)))
    report = compact(root)
    assert [failure for failure in report.failures if "other rows than its certificate" in failure]
    assert len([*(root / "trades").rglob("*.parquet")]) == 4


def test_files_that_no_certificate_names_are_not_compacted_before_they_are_certified(root: Path) -> None:
    write_capture(root, session="20261121T140000Z-cccccc", ts=NOON + 2 * 10**9)
    for path in sorted(capture_folder(root, "binance").glob("*cccccc/*.cap")):
        ingest_segment(root, path)
    assert all("certify it first" in failure for failure in compact(root).failures)
    assert verify(root).notes == [
        "2 segments of binance are ingested and not certified yet: their recorder died; `mmdata recover` "
        "certifies them"
    ]
    recover_all(root)
    assert compact(root).failures == []
    assert verify(root, recount=recount).differences == []


def test_a_damaged_one_ends_nothing_but_itself(root: Path) -> None:
    path = certificate_path(root, BTC)
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":9'))
    with pytest.raises(DatasetError, match="its own sha256 is off"):
        read_certificate(root, BTC)
    write_capture(root, session="20261121T140000Z-cccccc", ts=NOON + 2 * 10**9)
    report, _ = recover_all(root)
    assert report.certified == 1
    assert "own sha256 is off" in report.failures[0]


def test_a_day_that_is_written_to_meanwhile_is_derived_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that appears, or a compaction, between reading and publishing must not be vouched for unseen."""
    write_capture(root, session="20261121T140000Z-cccccc", ts=NOON + 2 * 10**9)
    waiting: list[Callable[[Path], object]] = [compact, lambda root: recover(root, "binance")]

    def derive_and_interfere(*told: Any) -> Any:
        facts = derive(*told)
        if waiting:
            waiting.pop()(root)
        return facts

    for path in sorted(capture_folder(root, "binance").glob("*cccccc/000000.cap")):
        finish_segment(root, path, keep=True)
    monkeypatch.setattr("mmdata.datasets.certificate.certifying.derive", derive_and_interfere)
    report = certify_ingested(root, "binance")
    assert waiting == []
    assert report.failures == []
    monkeypatch.undo()
    assert recover_all(root)[0].failures == []
    assert verify(root, recount=recount).differences == []
