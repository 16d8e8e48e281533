"""Days that are older than a job keeps: what goes, and what must not."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from mmdata.recorder.config import Job, parse_job
from mmdata.recorder.retention import carry_out, describe, plan

TODAY = date(2026, 3, 10)


def job(root: Path, **keys: Any) -> Job:
    venues = [{"exchange": "okx", "symbols": ["BTC-USDT"]}]
    return parse_job({"root": str(root), "venues": venues, "retain_days": 7, **keys}, "job")


def part(root: Path, table: str, exchange: str, symbol: str, day: str, session: str = "s") -> Path:
    """Make a partition with a part of ``session`` in it; return its folder."""
    folder = root / table / f"exchange={exchange}" / f"symbol={symbol}" / f"date={day}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"20260101T000000.000000000Z-{session}-000000.parquet").touch()
    return folder


def capture(root: Path, session: str, *names: str) -> Path:
    folder = root / ".captures/okx" / session
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_partitions_older_than_so_many_days_go_in_every_table_of_the_job(tmp_path: Path) -> None:
    old = [
        part(tmp_path, table, "okx", "BTC-USDT", day)
        for table in ("depth", "depth-wide", "events", "trades")
        for day in ("2025-12-31", "2026-03-02")
    ]
    kept = [
        part(tmp_path, "depth", "okx", "BTC-USDT", "2026-03-03"),  # seven days old: not more
        part(tmp_path, "depth", "okx", "BTC-USDT", "2026-03-10"),
        part(tmp_path, "depth", "okx", "ETH-USDT", "2026-03-02"),  # another symbol
        part(tmp_path, "depth", "binance", "BTC-USDT", "2026-03-02"),  # another exchange
    ]
    found = plan(job(tmp_path), TODAY)
    assert sorted(found.partitions) == sorted(old)
    assert describe(found) == "8 partitions of 2025-12-31 to 2026-03-02, 0 sessions' captures"
    carry_out(job(tmp_path), found)
    assert not any(folder.exists() for folder in old)
    assert all(len([*folder.glob("*.parquet")]) == 1 for folder in kept)
    assert [*(tmp_path / ".staging").iterdir()] == []
    assert not (tmp_path / "trades/exchange=okx/symbol=BTC-USDT").exists()  # no day is left


def test_without_retain_days_nothing_goes(tmp_path: Path) -> None:
    part(tmp_path, "depth", "okx", "BTC-USDT", "2020-01-01")
    assert plan(job(tmp_path, retain_days=None), TODAY) == ([], [])


def test_rows_of_no_single_symbol_go_with_the_last_symbol_of_their_day(tmp_path: Path) -> None:
    for day in ("2026-01-01", "2026-01-02"):
        part(tmp_path, "events", "okx", "_", day)
        part(tmp_path, "trades", "okx", "BTC-USDT", day)
    part(tmp_path, "trades", "okx", "ETH-USDT", "2026-01-02")
    gone = {(path.parent.name, path.name) for path in plan(job(tmp_path), TODAY).partitions}
    assert gone == {
        ("symbol=BTC-USDT", "date=2026-01-01"),
        ("symbol=BTC-USDT", "date=2026-01-02"),
        ("symbol=_", "date=2026-01-01"),
    }


def test_symbol_whose_name_needs_escapes_is_found(tmp_path: Path) -> None:
    part(tmp_path, "trades", "okx", "%E5%B8%81-USDT", "2026-01-01")
    venues = [{"exchange": "okx", "symbols": ["币-USDT"]}]
    assert len(plan(job(tmp_path, venues=venues), TODAY).partitions) == 1


def test_captures_go_when_no_row_of_their_session_is_left(tmp_path: Path) -> None:
    whole, spanning, pending, young = (
        f"{day}T080000Z-abcdef" for day in ("20260101", "20260102", "20260103", "20260309")
    )
    for session, day in ((whole, "2026-01-01"), (spanning, "2026-01-02"), (spanning, "2026-03-09")):
        part(tmp_path, "trades", "okx", "BTC-USDT", day, session)
    gone = capture(tmp_path, whole, "000000.cap.zst")
    capture(tmp_path, spanning, "000000.cap.zst")
    capture(tmp_path, pending, "000000.cap.zst", "000001.cap")  # not ingested
    capture(tmp_path, young, "000000.cap.zst")
    (tmp_path / ".captures/okx/.lock").touch()
    found = plan(job(tmp_path), TODAY)
    assert found.captures == [gone]
    carry_out(job(tmp_path), found)
    assert {path.name for path in (tmp_path / ".captures/okx").iterdir()} == {
        *(spanning, pending, young, ".lock")
    }


def test_what_a_kill_left_half_removed_goes_the_next_time(tmp_path: Path) -> None:
    leftover = tmp_path / ".staging/removed-0123"
    leftover.mkdir(parents=True)
    (leftover / "some.parquet").touch()
    other = tmp_path / ".staging/being-written.parquet"
    other.touch()
    carry_out(job(tmp_path), plan(job(tmp_path), TODAY))
    assert not leftover.exists()
    assert other.exists()


@pytest.mark.parametrize("days", [1, 30])
def test_today_is_never_removed(tmp_path: Path, days: int) -> None:
    part(tmp_path, "trades", "okx", "BTC-USDT", str(TODAY))
    assert plan(job(tmp_path, retain_days=days), TODAY).partitions == []
