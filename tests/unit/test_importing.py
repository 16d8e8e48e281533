"""Import of foreign captures: what is torn, missing or undecodable is told, and nothing else is lost."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from mmdata.datasets._kernel import GAP, GAP_OPEN
from mmdata.datasets.book import rebuild
from mmdata.datasets.errors import UsageError
from mmdata.datasets.loading import load_market
from mmdata.datasets.validation import validate
from mmdata.recorder.importing import ImportReport, import_sources
from tests.builders import rows, spot_lines


def imported(tmp_path: Path, content: bytes, *, symbol: str | None = "BTCUSDT") -> ImportReport:
    path = tmp_path / "source.gz"
    path.write_bytes(content)
    return import_sources(
        [path], tmp_path / "data", source_format="hftbacktest", exchange="binance", symbol=symbol
    )


def test_snapshot_and_diffs_become_a_valid_book_with_derived_tick_and_lot(tmp_path: Path) -> None:
    report = imported(tmp_path, gzip.compress(b"".join(spot_lines())))
    assert report.derived == {"BTCUSDT": (Decimal("0.1"), Decimal("0.25"))}
    assert [row["reason"] for row in rows(tmp_path / "data", "snapshots")] == ["start", "start"]
    events = [row["kind"] for row in rows(tmp_path / "data", "events")]
    assert sorted(events) == ["session_end", "session_start", "synced"]
    assert report.gaps == 0
    assert validate(tmp_path / "data").exit_code(strict=False) == 0


def test_uncompressed_source_is_read_as_well(tmp_path: Path) -> None:
    assert imported(tmp_path, b"".join(spot_lines())).ingest.decoded == 20


def test_hole_that_the_snapshot_covers_is_on_record_and_the_book_whole(tmp_path: Path) -> None:
    """Ids 110 to 114 are missing; the snapshot, which came first, holds all up to 117."""
    lines = [line.replace(b'"lastUpdateId":104', b'"lastUpdateId":117') for line in spot_lines(skip=(1,))]
    imported(tmp_path, b"".join(lines))
    [gap] = [
        row for row in rows(tmp_path / "data", "events") if row["kind"] == "gap" and row["channel"] == "depth"
    ]
    assert (gap["last_id"], gap["next_id"]) == (109, 115)
    assert json.loads(gap["detail"]) == {"cause": "missing", "book": "covered"}
    market = load_market(tmp_path / "data", "binance", "BTCUSDT")
    assert not {GAP, GAP_OPEN} & {*market.columns.kind.tolist()}
    [own] = validate(tmp_path / "data").symbols
    assert own.unrecorded_breaks == 0
    valid = rebuild(market.columns, market.chain).valid.tolist()
    assert valid == [False, False, False, *[True] * 8]  # the start, the snapshot, what is before it; all else


def test_missing_message_becomes_a_recorded_gap_with_its_ids(tmp_path: Path) -> None:
    report = imported(tmp_path, b"".join(spot_lines(skip=(4,))))
    gaps = [row for row in rows(tmp_path / "data", "events") if row["kind"] == "gap"]
    assert [(row["channel"], row["last_id"], row["next_id"]) for row in gaps] == [
        ("depth", 124, 130),
        ("trades", 3, 5),
    ]
    assert report.gaps == 2
    found = validate(tmp_path / "data")
    assert [own.unrecorded_breaks for own in found.symbols] == [0]
    assert found.exit_code() == 0
    assert found.exit_code(strict=True) == 1


def test_torn_last_line_is_a_warning_and_an_event_and_all_before_it_is_kept(tmp_path: Path) -> None:
    content = b"".join(spot_lines())[:-7]
    report = imported(tmp_path, content)
    assert "the last line has no end" in report.ingest.warnings[0]
    assert report.ingest.decoded == 19
    assert report.ingest.quarantined == 0
    assert "torn" in {row["kind"] for row in rows(tmp_path / "data", "events")}


def test_compressed_file_that_ends_early_gives_what_could_be_unpacked(tmp_path: Path) -> None:
    content = gzip.compress(b"".join(spot_lines(count=400)))[:-200]
    report = imported(tmp_path, content)
    assert "the compressed file ends early or is damaged" in report.ingest.warnings[0]
    assert 0 < report.ingest.decoded < 800


def test_truncated_line_in_the_middle_is_quarantined_and_the_rest_imported(tmp_path: Path) -> None:
    lines = spot_lines()
    lines[3] = lines[3][:60] + b"\n"
    report = imported(tmp_path, b"".join(lines))
    assert report.ingest.quarantined == 1
    assert report.ingest.decoded == 19
    [row] = rows(tmp_path / "data", "quarantine")
    assert row["frame"] == 3
    report.ingest.check()


def test_rest_book_without_a_symbol_asks_for_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"line 1 is a REST book that does not name its symbol: .* --symbol"):
        imported(tmp_path, b"".join(spot_lines()), symbol=None)


def test_symbol_filters_where_the_source_names_it(tmp_path: Path) -> None:
    report = imported(tmp_path, b"".join(spot_lines()), symbol="ETHUSDT")
    assert report.ingest.untabled["other symbols"] == 20
    report.ingest.check()


@pytest.mark.parametrize(
    ("source_format", "exchange", "sentence"),
    [
        (
            "tardis",
            "binance",
            "format 'tardis' is not known, expected one of mmdata, hftbacktest, cryptofeed",
        ),
        ("hftbacktest", "okx", "exchange 'okx': format hftbacktest is read for binance and binance-usdm"),
        ("cryptofeed", None, "exchange None: format cryptofeed is read for okx"),
    ],
)
def test_unknown_format_or_exchange_is_refused(
    tmp_path: Path, source_format: str, exchange: str | None, sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        import_sources([tmp_path / "x"], tmp_path, source_format=source_format, exchange=exchange)


def test_source_that_is_not_there_is_named_and_nothing_is_imported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.gz: cannot be read .*; nothing was imported"):
        import_sources(
            [tmp_path / "none.gz"], tmp_path / "data", source_format="hftbacktest", exchange="binance"
        )
    assert not (tmp_path / "data").exists()


def test_tick_and_lot_of_the_user_stand_in_the_instruments(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"".join(spot_lines()))
    import_sources(
        [path],
        tmp_path / "data",
        source_format="hftbacktest",
        exchange="binance",
        symbol="BTCUSDT",
        grid={"BTCUSDT": ("0.01", "0.00001")},
    )
    [row] = rows(tmp_path / "data", "instruments")
    assert (row["source"], row["tick_size"], row["lot_size"]) == ("user", Decimal("0.01"), Decimal("0.00001"))


@pytest.mark.parametrize("damage", [lambda gz: gz + b"trailing garbage", lambda gz: gz[:-8] + b"\0" * 8])
def test_compressed_file_that_is_damaged_gives_what_could_be_unpacked(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    report = imported(tmp_path, damage(gzip.compress(b"".join(spot_lines()))))
    assert report.ingest.decoded == 20
    assert "is damaged" in report.ingest.warnings[0]


@pytest.mark.parametrize("grid", [("0", "1"), ("-0.01", "1"), ("0.01", "abc"), ("inf", "1")])
def test_tick_or_lot_that_is_no_positive_number_is_refused_before_anything(
    tmp_path: Path, grid: tuple[str, str]
) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"".join(spot_lines()))
    with pytest.raises(UsageError, match="expected a positive number"):
        import_sources(
            [path],
            tmp_path / "data",
            source_format="hftbacktest",
            exchange="binance",
            symbol="BTCUSDT",
            grid={"BTCUSDT": grid},
        )
    assert not (tmp_path / "data").exists()


def test_symbol_that_no_frame_has_is_warned_of(tmp_path: Path) -> None:
    report = imported(tmp_path, b"".join(spot_lines()), symbol="btcusdt")
    assert "no frame of btcusdt is in" in report.ingest.warnings[0]


def test_symbol_beside_our_own_captures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave them out"):
        import_sources([tmp_path / "x.cap"], tmp_path, source_format="mmdata", symbol="BTCUSDT")


def test_very_long_line_takes_time_in_proportion(tmp_path: Path) -> None:
    report = imported(tmp_path, b"x" * 50_000_000 + b"\n" + b"".join(spot_lines()))
    assert (report.ingest.quarantined, report.ingest.decoded) == (1, 20)
