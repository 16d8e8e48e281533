"""Compaction: a day is one file, and nothing else has changed, for any reader and for ingest."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from mmdata.datasets import compact, scan, validate
from mmdata.datasets.disk import clear_staging, swap
from mmdata.datasets.errors import DatasetError, DiskError, ReplacedError, UsageError
from mmdata.datasets.layout import list_parts
from mmdata.datasets.locks import compaction_lock
from mmdata.datasets.market import read_part
from mmdata.datasets.schema import NARROW, TABLES, WIDE
from mmdata.datasets.stretches import read_stretches
from mmdata.recorder import ingest as ingesting
from mmdata.recorder.capture import Line
from mmdata.recorder.config import parse_job
from mmdata.recorder.importing import import_sources
from mmdata.recorder.ingest import Ingest, IngestReport
from mmdata.recorder.lock import exchange_lock
from mmdata.recorder.retention import plan
from mmdata.replay.stream import replay
from tests.builders import DAY, LEVELS, NOON, SESSION, TS, depth, frame, rows, spot_lines

LATER = "20261121T130000Z-bbbbbb"
COMPACT = "mmdata.datasets.compaction"


def take(root: Path, *lines: Line, session: str = SESSION, **metadata: str) -> IngestReport:
    """Ingest lines of a session as one part a table and day."""
    ingest = Ingest(root, "binance", session, {"version": "0.1.0", **metadata})
    for line in lines:
        ingest.take(line)
    ingest.flush()
    return ingest.report


def two_sessions(root: Path) -> Path:
    """Publish three parts of two sessions of a day, and a fourth of the next."""
    take(root, frame(0, depth(100, *LEVELS)), frame(1, b"{nobody understands"), config="aaaa")
    take(root, frame(2, depth(105, *LEVELS)), config="aaaa")
    take(root, frame(0, depth(110, *LEVELS), ts=NOON + 10**9), session=LATER, config="bbbb")
    take(root, frame(1, depth(115, *LEVELS), ts=NOON + DAY), session=LATER, config="bbbb")
    return root


def told(root: Path) -> dict[str, Any]:
    """Return all rows, by our own readers."""
    return {table: rows(root, table) for table in TABLES} | {
        f"scan {table}": scan(root, table).collect().rows() for table in TABLES
    }


def by_polars(root: Path, table: str) -> pl.DataFrame:
    """Return a table as somebody reads it who does not know mmdata."""
    return pl.scan_parquet(str(root / table / "**/*.parquet"), hive_partitioning=True).collect()


def files(root: Path, table: str = "depth") -> list[str]:
    return sorted(path.name for path in root.glob(f"{table}/**/*.parquet"))


def everything(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*.parquet")}


def test_ingest_reads_the_footer_of_a_file_once_and_that_of_a_compacted_day_when_it_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Counter[Path]()
    read_metadata = pq.read_metadata

    def counted(path: Path, **told: object) -> pq.FileMetaData:
        read[path] += 1
        return read_metadata(path, **told)

    monkeypatch.setattr(pq, "read_metadata", counted)

    def footers() -> dict[Path, int]:
        return {path: count for path, count in read.items() if tmp_path / "depth" in path.parents}

    for number in range(6):
        take(tmp_path, frame(number, depth(100 + 5 * number, *LEVELS)))
    assert [*footers().values()] == [1] * 5  # nobody has asked for the sixth yet
    compact(tmp_path, before="2026-11-22")
    read.clear()
    # The same frames once more, and one more: what the new file holds is known, without asking twice.
    for number in (5, 6, 6):
        take(tmp_path, frame(number, depth(100 + 5 * number, *LEVELS)))
    assert [*footers().values()] == [1, 1]
    assert [row["frame"] for row in rows(tmp_path, "depth")][::3] == [*range(7)]


def test_day_is_one_file_with_the_same_rows_in_the_same_order(tmp_path: Path) -> None:
    root = two_sessions(tmp_path)
    before, foreign = told(root), by_polars(root, "depth")
    report = compact(root)
    assert told(root) == before
    assert by_polars(root, "depth").equals(foreign)
    assert files(root) == [
        "20261121T120000.000000000Z-compacted-000000.parquet",
        f"20261122T120000.000000001Z-{LATER}-000001.parquet",
    ]
    [done] = report.done
    assert (done.day.table, done.day.date, done.files, done.rows) == ("depth", "2026-11-21", 3, 9)
    assert done.bytes_after == next(root.glob("depth/**/*compacted*")).stat().st_size
    assert report.left == 3  # depth of the next day, events, quarantine
    assert [*(root / ".staging").iterdir()] == []


def test_compacted_file_is_encoded_as_parts_are_and_says_what_they_were(tmp_path: Path) -> None:
    root = two_sessions(tmp_path)
    old = {part.session: pq.read_metadata(part.path) for part in list_parts(root, "depth")}
    compact(root)
    [path] = root.glob("depth/**/*compacted*")
    footer = pq.read_metadata(path)
    for at in range(footer.num_columns):
        new, was = (found.row_group(0).column(at) for found in (footer, old[LATER]))
        assert (new.physical_type, new.compression, new.encodings) == (
            *(was.physical_type, was.compression),
            was.encodings,
        )
    assert footer.metadata[b"mmdata.symbol"] == b"BTCUSDT"
    assert [
        (found.session, found.n, found.rows, found.first_frame, found.last_frame)
        for found in read_stretches(path)
    ] == [(SESSION, 0, 3, 0, 0), (SESSION, 1, 3, 2, 2), (LATER, 0, 3, 0, 0)]
    assert [found.facts and found.facts["config"] for found in read_stretches(path)] == [
        *("aaaa", "aaaa"),
        "bbbb",
    ]


def test_what_is_one_file_already_is_left_alone(tmp_path: Path) -> None:
    root = two_sessions(tmp_path)
    compact(root)
    before = {path: path.stat().st_ino for path in root.rglob("*.parquet")}
    report = compact(root)
    assert (report.done, report.left) == ([], 4)
    assert {path: path.stat().st_ino for path in root.rglob("*.parquet")} == before


def test_only_what_is_asked_for_is_compacted(tmp_path: Path) -> None:
    root = tmp_path
    for day in (0, 1):
        for number, symbol in enumerate(("BTCUSDT", "ETHUSDT", "BTCUSDT", "ETHUSDT")):
            line = frame(4 * day + number, depth(100, *LEVELS, symbol), ts=NOON + day * DAY)
            take(root, line)
    reports = [
        compact(root, symbol="ETHUSDT", before="2026-11-22"),
        compact(root, symbol="ETHUSDT", date="2026-11-22"),
        compact(root, exchange="okx"),
    ]
    assert [[(found.day.symbol, found.day.date) for found in report.done] for report in reports] == [
        [("ETHUSDT", "2026-11-21")],
        [("ETHUSDT", "2026-11-22")],
        [],
    ]
    assert len(compact(root).done) == 2


def test_sessions_that_overlap_over_two_days_are_read_as_before(tmp_path: Path) -> None:
    """The first session is the later one of the second day."""
    for number in range(4):
        day = number // 2
        ts = NOON + day * DAY
        take(tmp_path, frame(number, depth(100, *LEVELS), ts=ts))
        take(tmp_path, frame(number, depth(200, *LEVELS), ts=ts + (-5 if day else 5)), session=LATER)
    before = told(tmp_path)
    assert len(compact(tmp_path).done) == 2
    assert told(tmp_path) == before
    parts = list_parts(tmp_path, "depth")
    assert [part.session for part in parts] == [SESSION, SESSION, LATER, LATER]
    assert parts[3].offset == 0


def test_clock_that_stepped_back_over_midnight_leaves_the_order_of_arrival(tmp_path: Path) -> None:
    midnight = NOON + DAY // 2
    for number, ts in enumerate((midnight - 9, midnight - 9, midnight + 9, midnight + 8, midnight - 7)):
        take(tmp_path, frame(number, depth(100 + 5 * number, *LEVELS), ts=ts - number))
    before = told(tmp_path)
    assert len(compact(tmp_path).done) == 2
    assert told(tmp_path) == before
    assert [row["frame"] for row in rows(tmp_path, "depth")][::3] == [0, 1, 2, 3, 4]
    assert list_parts(tmp_path, "depth", session=SESSION) == list_parts(tmp_path, "depth")


def wide_day(root: Path) -> None:
    """Publish a day of a symbol that becomes wide in its second of three parts."""
    fine = depth(105, [["0.000000000123", "12345678901.5"]], [])
    take(root, frame(0, depth(100, *LEVELS)))
    take(root, frame(1, fine))
    take(root, frame(2, depth(110, *LEVELS)))


def test_day_of_narrow_and_wide_parts_is_widened(tmp_path: Path) -> None:
    wide_day(tmp_path)
    before = told(tmp_path)
    [done] = compact(tmp_path).done
    assert (done.wide, done.files, done.rows) == (True, 3, 7)
    assert told(tmp_path) == before
    assert files(tmp_path) == []
    [path] = (tmp_path / "depth-wide").rglob("*.parquet")
    assert pq.read_schema(path).field("price").type == WIDE
    assert Decimal("0.000000000123") in {row["price"] for row in rows(tmp_path, "depth")}
    assert [found.wide for found in read_stretches(path)] == [False, True, True]


def test_widening_that_was_killed_between_its_two_steps_shows_no_row_twice_and_is_finished(
    tmp_path: Path,
) -> None:
    wide_day(tmp_path)
    before = told(tmp_path)
    [narrow] = (tmp_path / "depth").rglob("*.parquet")
    kept = narrow.read_bytes()
    compact(tmp_path)
    narrow.parent.mkdir(parents=True)
    narrow.write_bytes(kept)
    assert told(tmp_path) == before
    late = frame(3, depth(115, *LEVELS))
    assert take(tmp_path, frame(0, depth(100, *LEVELS)), late).rows["depth"] == 3
    both = told(tmp_path)
    assert len(compact(tmp_path).done) == 1
    assert told(tmp_path) == both
    assert files(tmp_path) == []


def test_leftover_of_a_widening_goes_even_when_nothing_is_new(tmp_path: Path) -> None:
    wide_day(tmp_path)
    [narrow] = (tmp_path / "depth").rglob("*.parquet")
    kept = narrow.read_bytes()
    compact(tmp_path)
    [wide] = (tmp_path / "depth-wide").rglob("*.parquet")
    narrow.parent.mkdir(parents=True)
    narrow.write_bytes(kept)
    [done] = compact(tmp_path).done
    assert (done.files, done.rows) == (2, 7)
    assert files(tmp_path) == []
    assert [*(tmp_path / "depth-wide").rglob("*.parquet")] == [wide]


def test_ingesting_the_same_lines_after_compaction_changes_nothing(tmp_path: Path) -> None:
    wide_day(tmp_path)
    compact(tmp_path)
    before = everything(tmp_path)
    wide_day(tmp_path)
    assert everything(tmp_path) == before


def test_event_of_a_change_to_wide_is_made_after_compaction_too(tmp_path: Path) -> None:
    """A kill came between depth and events, and the day was compacted before the recovery."""
    wide_day(tmp_path)
    told_events = rows(tmp_path, "events")
    [events] = (tmp_path / "events").rglob("*.parquet")
    events.unlink()
    compact(tmp_path)
    wide_day(tmp_path)
    assert rows(tmp_path, "events") == told_events


def test_late_lines_of_a_compacted_session_are_added_once_and_compacted_in_turn(tmp_path: Path) -> None:
    lines = [frame(number, depth(100 + 5 * number, *LEVELS)) for number in range(6)]
    take(tmp_path, *lines[:2])
    take(tmp_path, *lines[2:4])
    compact(tmp_path)
    report = take(tmp_path, *lines)
    assert (report.rows["depth"], report.skipped) == (6, 12)
    assert [row["frame"] for row in rows(tmp_path, "depth")][::3] == [*range(6)]
    before = told(tmp_path)
    compact(tmp_path)
    assert told(tmp_path) == before
    assert files(tmp_path) == ["20261121T120000.000000000Z-compacted-000001.parquet"]
    [path] = tmp_path.glob("depth/**/*.parquet")
    assert [found.n for found in read_stretches(path)] == [0, 1, 2]


def test_lines_before_what_is_there_are_still_refused(tmp_path: Path) -> None:
    """Frames between two compacted parts were never there: they must not pass as such."""
    take(tmp_path, frame(0, depth(100, *LEVELS)))
    take(tmp_path, frame(5, depth(110, *LEVELS)))
    compact(tmp_path)
    with pytest.raises(DatasetError, match="rows would stand out of order"):
        take(tmp_path, frame(3, depth(105, *LEVELS)))


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a dataset of two imports, each in many parts; the second has a hole."""
    monkeypatch.setattr(ingesting, "_SETTLE_ROWS", 3)
    monkeypatch.setattr(ingesting, "_FLUSH_ROWS", 3)
    root = tmp_path / "data"
    for name, lines in (("b", spot_lines()), ("a", spot_lines(skip=(3,)))):
        source = tmp_path / name
        shift = 10**9 if name == "a" else 0
        moved = [b"%d %s" % (int(line[:19]) + shift, line[20:]) for line in lines]
        source.write_bytes(b"".join(moved))
        import_sources([source], root, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT")
    return root


def test_validation_and_replay_say_the_same_before_and_after(imported: Path) -> None:
    def said() -> tuple[dict[str, Any], list[str]]:
        events = [
            f"{repr(event).partition('book=')[0]} {event.book.id} {event.book.bids()} {event.book.asks()}"
            for event in replay(imported, exchange="binance", symbol="BTCUSDT")
        ]
        report = validate(imported).to_json_dict()
        for finding in report["findings"]:
            del finding["file"], finding["row"]  # which are others
        return report, events

    before = said()
    assert any(finding["check"] == "chain" for finding in before[0]["findings"])
    assert len(before[1]) > 20
    assert {found.day.table for found in compact(imported).done} >= {"depth", "trades", "events"}
    assert said() == before


def test_importing_the_same_bytes_again_is_a_no_op(imported: Path, tmp_path: Path) -> None:
    compact(imported)
    before = everything(imported)
    for name in ("a", "b"):
        import_sources(
            [tmp_path / name], imported, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT"
        )
    assert everything(imported) == before


def test_day_that_is_written_to_meanwhile_is_left_for_the_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mmdata.datasets.compaction import _write

    root = two_sessions(tmp_path)

    def write_and_ingest(*args: Any) -> None:
        _write(*args)
        take(root, frame(9, depth(130, *LEVELS), ts=NOON + 2 * 10**9), session=LATER)

    with monkeypatch.context() as patch:
        patch.setattr(f"{COMPACT}._write", write_and_ingest)
        report = compact(root)
    assert report.done == []
    [sentence] = report.skipped
    assert "depth of binance BTCUSDT on 2026-11-21: was written to meanwhile" in sentence
    assert report.exit_code() == 0
    assert len(rows(root, "depth")) == 15
    assert [*(root / ".staging").iterdir()] == []
    assert len(compact(root).done) == 1


@pytest.mark.parametrize("harm", ["cut", "page", "schema"])
def test_damaged_part_leaves_its_day_as_it_is_and_is_told(tmp_path: Path, harm: str) -> None:
    root = two_sessions(tmp_path)
    path = list_parts(root, "depth")[0].path
    content = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(content[:-10])
    elif harm == "page":
        content[20:200] = bytes(180)
        path.write_bytes(content)
    else:
        table = pq.read_table(path, partitioning=None)
        pq.write_table(table.rename_columns([*table.column_names[:-1], "last"]), path)
    before = everything(root)
    report = compact(root)
    assert (report.done, report.exit_code()) == ([], 1)
    assert str(path) in report.failures[0]
    assert everything(root) == before
    assert [*(root / ".staging").iterdir()] == []


def test_file_that_is_not_ours_is_not_taken_away(tmp_path: Path) -> None:
    root = two_sessions(tmp_path)
    note = list_parts(root, "depth")[0].path.with_name("note.txt")
    note.write_text("mine", encoding="utf-8")
    assert str(note) in compact(root).failures[0]
    assert note.read_text(encoding="utf-8") == "mine"
    assert len(list_parts(root, "depth")) == 4


def test_damaged_compacted_file_is_a_finding_and_refuses_ingest(tmp_path: Path) -> None:
    root = two_sessions(tmp_path)
    compact(root)
    [path] = root.glob("depth/**/*compacted*")
    path.write_bytes(path.read_bytes()[:-10])
    finding = next(found for found in validate(root).findings if found.check == "file")
    assert str(path) in finding.sentence
    with pytest.raises(DatasetError, match="does not say which parts it was made of"):
        take(root, frame(2, depth(105, *LEVELS)))


def test_values_that_read_back_otherwise_are_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = two_sessions(tmp_path)
    before = everything(root)
    write = pq.ParquetWriter.write_table
    monkeypatch.setattr(
        pq.ParquetWriter,
        "write_table",
        lambda self, rows, **keys: write(self, rows.take([*range(rows.num_rows)][::-1]), **keys),
    )
    with pytest.raises(DiskError, match="reads back other than it was written"):
        compact(root)
    assert everything(root) == before
    assert [*(root / ".staging").iterdir()] == []


def test_file_system_that_cannot_swap_folders_is_told_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(one: Path, other: Path) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(other))

    root = two_sessions(tmp_path)
    before = everything(root)
    monkeypatch.setattr(f"{COMPACT}.swap", refuse)
    with pytest.raises(DiskError, match="cannot swap two folders in one step"):
        compact(root)
    assert everything(root) == before
    assert [*(root / ".staging").iterdir()] == []


def test_swap_takes_both_names_in_one_step(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"was-{name}").touch()
    swap(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a/was-b").exists()
    assert (tmp_path / "b/was-a").exists()
    with pytest.raises(FileNotFoundError):
        swap(tmp_path / "a", tmp_path / "none")


def test_days_that_a_recorder_still_writes_are_skipped(tmp_path: Path) -> None:
    """Today, and from the last date of a session of which a capture is not ingested yet."""
    now = time.time_ns()
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    start = datetime.fromtimestamp((now - 3 * DAY) // 10**9, UTC)
    session = f"{start:%Y%m%dT%H%M%SZ}-cccccc"
    number = 0
    for age in (3, 2, 1, 0):
        for _ in range(2):
            take(tmp_path, frame(number, depth(100, *LEVELS), ts=now - age * DAY), session=session)
            number += 1
    captures = tmp_path / ".captures/binance"
    (captures / session).mkdir(parents=True)
    with exchange_lock(captures, "binance"):
        report = compact(tmp_path, before=today)
        assert len(report.done) == 3
        take(tmp_path, frame(90, depth(100, *LEVELS), ts=now - DAY), session="import-eeeeeeeeeeee")
        assert len(compact(tmp_path).done) == 1  # all is ingested: only today is being written
        (captures / session / "000000.open").touch()
        for age in (2, 1):
            take(tmp_path, frame(99, depth(1, *LEVELS), ts=now - age * DAY), session=f"import-{age:012}")
        report = compact(tmp_path)
    assert len(report.done) == 2
    [sentence] = report.skipped
    assert f"on {today}: is being recorded, by" in sentence
    assert f'"pid": {os.getpid()}' in sentence


def test_last_date_of_a_session_with_captures_to_come_is_skipped(tmp_path: Path) -> None:
    for number, day in enumerate((0, 0, 1, 1)):
        take(
            tmp_path, frame(number, depth(100, *LEVELS), ts=TS + day * DAY), session="20240808T235400Z-aaaaaa"
        )
    captures = tmp_path / ".captures/binance"
    (captures / "20240808T235400Z-aaaaaa").mkdir(parents=True)
    (captures / "20240808T235400Z-aaaaaa/000003.cap").touch()
    with exchange_lock(captures, "binance"):
        report = compact(tmp_path)
        assert [found.day.date for found in report.done] == ["2024-08-08"]
        assert "on 2024-08-09: is being recorded" in report.skipped[0]
    assert [found.day.date for found in compact(tmp_path).done] == ["2024-08-09"]


def test_second_compaction_is_refused_naming_the_first(tmp_path: Path) -> None:
    root = two_sessions(tmp_path)
    with compaction_lock(root, wait=False), pytest.raises(UsageError, match=r"by .*\"pid\""):
        compact(root)
    assert len(compact(root).done) == 1


def test_unknown_folder_and_date_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such folder"):
        compact(tmp_path / "none")
    with pytest.raises(UsageError, match="expected YYYY-MM-DD"):
        compact(tmp_path, date="yesterday")


def test_part_that_was_replaced_since_it_was_listed_says_read_again(tmp_path: Path) -> None:
    root = two_sessions(tmp_path)
    old = list_parts(root, "depth")[0]
    compact(root)
    with pytest.raises(ReplacedError, match="read again"):
        read_part(old)


def test_listing_begins_anew_when_a_folder_is_replaced_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = two_sessions(tmp_path)
    take(root, frame(9, depth(130, *LEVELS), ts=NOON + 2 * 10**9), session=LATER)
    compact(root)
    before = told(root)
    missing = [FileNotFoundError(None, "replaced", "here"), FileNotFoundError(None, "replaced", "here")]

    def vanish(path: Path) -> Any:
        if missing:
            raise missing.pop()
        return read_stretches(path)

    monkeypatch.setattr("mmdata.datasets.layout.read_stretches", vanish)
    assert told(root) == before
    assert missing == []


def test_leftovers_of_killed_compactions_are_cleared(tmp_path: Path) -> None:
    root = two_sessions(tmp_path)
    stale, young = (root / ".staging" / f"compaction-{name}" for name in ("stale", "young"))
    for folder in (stale, young):
        (folder / "day").mkdir(parents=True)
        (folder / "day/x.parquet").touch()
    long_ago = time.time() - 7_200
    for path in (stale / "day/x.parquet", stale / "day", stale):
        os.utime(path, (long_ago, long_ago))
    clear_staging(root)
    assert [*(root / ".staging").iterdir()] == [young]
    compact(root)  # nobody else compacts: what is there is dead
    assert [*(root / ".staging").iterdir()] == []


def test_captures_whose_rows_lie_in_a_compacted_file_are_kept(tmp_path: Path) -> None:
    old = "20240101T000000Z-aaaaaa"
    for number in (0, 1):
        take(tmp_path, frame(number, depth(100, *LEVELS)), session=old)
    compact(tmp_path)
    (tmp_path / ".captures/binance" / old).mkdir(parents=True)
    venues = [{"exchange": "binance", "symbols": ["BTCUSDT"]}]
    job = parse_job({"root": str(tmp_path), "venues": venues, "retain_days": 7}, "job")
    assert plan(job, date(2026, 11, 25)).captures == []
    later = plan(job, date(2026, 12, 25))
    assert [path.name for path in later.captures] == [old]
    [path] = tmp_path.glob("depth/**/*compacted*")
    path.write_bytes(b"PAR1")
    assert plan(job, date(2026, 11, 25)).captures == []


def test_file_with_narrow_prices_stays_narrow(tmp_path: Path) -> None:
    root = two_sessions(tmp_path)
    compact(root)
    [path] = root.glob("depth/**/*compacted*")
    assert pq.read_schema(path).field("price").type == NARROW


def test_part_of_a_compacted_file_has_its_own_rows_only(tmp_path: Path) -> None:
    root = two_sessions(tmp_path)
    compact(root)
    first, second, _ = list_parts(root, "depth")
    assert (first.rows, second.rows) == (6, 3)
    assert set(read_part(second)["session"].to_pylist()) == {LATER}
    with pytest.raises(DatasetError, match="lacks a column"):
        read_part(second, ("no such",))
