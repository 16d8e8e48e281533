"""`catalog`: what a dataset holds, by names and footers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mmdata.datasets import catalog
from mmdata.datasets.certificate.canonical import seal
from mmdata.datasets.certificate.derive import Day
from mmdata.datasets.certificate.store import (
    CERTIFICATES,
    certificate_path,
    read_certificate,
    write_certificate,
)
from mmdata.datasets.compaction import compact
from mmdata.datasets.errors import UsageError
from mmdata.datasets.layout import CAPTURES
from mmdata.recorder.importing import import_sources
from mmdata.recorder.lock import exchange_lock
from tests.builders import LEVELS, NOON, TS, depth, frame, run, spot_lines
from tests.recordings import Recording


@pytest.fixture
def imported(tmp_path: Path) -> Path:
    source = tmp_path / "capture.txt"
    source.write_bytes(b"".join(spot_lines()))
    import_sources(
        [source], tmp_path / "data", source_format="hftbacktest", exchange="binance", symbol="BTCUSDT"
    )
    return tmp_path / "data"


def test_rows_bytes_sessions_and_times_of_each_symbol(imported: Path) -> None:
    [held, rest] = catalog(imported).symbols
    assert (held.exchange, held.symbol, len(held.sessions)) == ("binance", "BTCUSDT", 1)
    assert (held.rows["depth"], held.rows["trades"], held.rows["snapshots"]) == (10, 10, 2)
    files = [*imported.rglob("*.parquet")]
    assert held.files + rest.files == len(files)
    assert held.bytes + rest.bytes == sum(path.stat().st_size for path in files)
    assert (held.begin, held.end) == (TS, TS + 20_000_000)
    assert [(day.date, day.certified, day.open) for day in held.days] == [("2024-08-08", True, False)]


def test_book_is_covered_from_synced_to_the_end(imported: Path) -> None:
    shutil.rmtree(imported / CERTIFICATES)
    [held, _] = catalog(imported).symbols
    assert not held.days[0].certified
    assert (held.coverage, held.coverage_from) == (1.0, "events")


def test_hole_is_not_covered_until_the_book_is_synced_again(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    for ms, kind in ((0, "synced"), (600, "gap"), (300, "synced"), (100, None)):
        recording.now += ms * 1_000_000
        recording.diff([("bid", 1, 1)])
        if kind:
            recording.event(kind)
    recording.part()
    [held] = catalog(tmp_path).symbols
    assert held.coverage == pytest.approx(0.7)


def test_compaction_changes_files_and_bytes_and_nothing_else(tmp_path: Path) -> None:
    recording = Recording(tmp_path, now=TS)
    recording.play([(("diff", [("bid", 1, 1)]), 1), (("session", None), 1), (("diff", []), 1)])
    before = catalog(tmp_path).to_json_dict()["symbols"][0]
    compact(tmp_path)
    after = catalog(tmp_path).to_json_dict()["symbols"][0]
    assert (before["files"], after["files"]) == (2, 1)
    for name in ("rows", "sessions", "begin", "end", "coverage"):
        assert before[name] == after[name]


def test_certificates_tell_coverage_where_each_day_has_one(imported: Path) -> None:
    day = Day("binance", "BTCUSDT", "2024-08-08")
    facts = read_certificate(imported, day)
    assert facts is not None
    facts["coverage"] |= {"window_ns": 1000, "proven_ns": 990}
    write_certificate(imported, day, seal(facts))
    [held, _] = catalog(imported).symbols
    assert (held.coverage, held.coverage_from, held.days[0].certified) == (0.99, "certificates", True)
    certificate_path(imported, day).write_text("{", encoding="utf-8")
    [held, _] = catalog(imported).symbols
    assert (held.coverage_from, held.days[0].certified) == ("events", True)


def test_day_that_a_recorder_still_writes_is_open(tmp_path: Path) -> None:
    year_2100 = 4_102_444_800_000_000_000
    run(tmp_path, [frame(0, depth(100, *LEVELS)), frame(1, depth(105, *LEVELS), ts=year_2100)])
    with exchange_lock(tmp_path / CAPTURES / "binance", "binance"):
        [held] = catalog(tmp_path).symbols
    assert [day.open for day in held.days] == [held.begin < NOON, True]  # type: ignore[operator]


def test_filters_and_rows_of_no_single_symbol(tmp_path: Path) -> None:
    run(tmp_path, [frame(0, depth(100, *LEVELS)), frame(1, b"what is this?")])
    Recording(tmp_path, "okx", "123").play([(("diff", [("bid", 1, 1)]), 1)])
    found = [(held.exchange, held.symbol) for held in catalog(tmp_path).symbols]
    assert found == [("binance", "BTCUSDT"), ("binance", "_"), ("okx", "123")]
    assert [held.symbol for held in catalog(tmp_path, exchange="okx").symbols] == ["123"]
    assert [held.symbol for held in catalog(tmp_path, symbol="BTCUSDT").symbols] == ["BTCUSDT"]
    assert catalog(tmp_path, exchange="binance").symbols[1].coverage is None


def test_damaged_file_is_told_and_not_counted(imported: Path) -> None:
    [path] = imported.glob("trades/**/*.parquet")
    path.write_bytes(path.read_bytes()[:-5])
    found = catalog(imported)
    assert "trades" not in found.symbols[0].rows
    [sentence] = found.unreadable
    assert sentence.startswith(f"{path}: its footer cannot be read")


def test_folder_that_is_not_there_is_refused_and_an_empty_one_holds_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such folder"):
        catalog(tmp_path / "none")
    assert catalog(tmp_path).to_json_dict() == {
        "schema": 1,
        "root": str(tmp_path),
        "symbols": [],
        "unreadable": [],
    }
