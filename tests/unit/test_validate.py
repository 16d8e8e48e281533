"""The validator: each planted flaw is found, in its place, and a clean dataset has none."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from mmdata.datasets.certificate.store import CERTIFICATES
from mmdata.datasets.errors import UsageError
from mmdata.datasets.layout import Part, list_parts
from mmdata.datasets.validation import Finding, Thresholds, derive_day, symbol, validate
from mmdata.datasets.validation.checksum import okx_checksum
from mmdata.recorder.importing import import_sources
from tests.builders import TS, spot_lines

Dataset = Callable[..., Path]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(b"".join(spot_lines()))
    root = tmp_path / "data"
    import_sources([path], root, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT")
    shutil.rmtree(
        root / CERTIFICATES
    )  # or every flaw that is planted here were told by its count of rows, too
    return root


def only(root: Path, table: str) -> Part:
    [part] = list_parts(root, table, symbol="BTCUSDT")
    return part


def rewrite(root: Path, table: str, change: Callable[[pa.Table], pa.Table]) -> None:
    path = only(root, table).path
    rows = pq.read_table(path, partitioning=None)
    changed = change(rows)
    if changed.column_names == rows.column_names:
        changed = changed.cast(rows.schema)  # a changed column is as nullable as it was
    pq.write_table(changed, path, store_decimal_as_integer=True)


def findings(root: Path, severity: str = "error") -> list[Finding]:
    return [finding for finding in validate(root).findings if finding.severity == severity]


def test_clean_dataset_has_no_finding_of_severity_error(dataset: Path) -> None:
    report = validate(dataset)
    assert report.count("error") == 0
    [figures] = report.symbols
    assert (figures.messages, figures.chain_breaks, figures.trades) == (10, 0, 10)


def test_message_that_was_lost_without_a_record_is_an_error_at_its_place(dataset: Path) -> None:
    rewrite(dataset, "depth", lambda rows: rows.filter(pc.not_equal(rows["first_id"], 120)))
    [found] = findings(dataset)
    assert (found.check, found.frame) == ("chain", 9)
    assert "does not continue the book at 119 (it builds on 125)" in found.sentence


def test_trade_that_was_lost_without_a_record_is_an_error(dataset: Path) -> None:
    rewrite(dataset, "trades", lambda rows: rows.filter(pc.not_equal(rows["trade_id"], 3)))
    [found] = findings(dataset)
    assert found.check == "trade_ids"
    assert "1 trades are missing between ids 2 and 4, not on record" in found.sentence
    assert (found.id, found.count, found.table) == (4, 1, "trades")


def test_trade_whose_row_stands_twice_is_an_error(dataset: Path) -> None:
    rewrite(dataset, "trades", lambda rows: pa.concat_tables([rows, rows.slice(rows.num_rows - 1)]))
    assert [finding.check for finding in findings(dataset)] == ["duplicate"]


def test_every_row_twice_is_an_error_in_each_table(dataset: Path) -> None:
    for table in ("depth", "trades"):
        rewrite(dataset, table, lambda rows: pa.concat_tables([rows, rows]).sort_by("frame"))
    found = [(finding.check, finding.table) for finding in findings(dataset)]
    assert found == [("duplicate", "depth")] * 10 + [("duplicate", "trades")] * 10


def test_trade_that_the_venue_sent_again_is_a_warning(dataset: Path) -> None:
    def again(rows: pa.Table) -> pa.Table:
        last = rows.slice(rows.num_rows - 1)
        frame = pa.array([last["frame"][0].as_py() + 1], pa.int64())
        return pa.concat_tables([rows, last.set_column(1, "frame", frame).cast(rows.schema)])

    rewrite(dataset, "trades", again)
    assert findings(dataset) == []
    assert "trade 9 was sent again" in next(
        finding.sentence for finding in findings(dataset, "warning") if finding.check == "trade_ids"
    )


def test_part_that_is_published_again_is_an_error(dataset: Path) -> None:
    part = only(dataset, "trades")
    (part.path.with_name(part.path.name.replace("-000000.", "-000001."))).write_bytes(part.path.read_bytes())
    [found] = findings(dataset)
    assert (found.check, found.row) == ("order", 0)
    assert "rows stand twice; those up to there are left out" in found.sentence


def test_rows_out_of_order_are_an_error(dataset: Path) -> None:
    rewrite(dataset, "trades", lambda rows: rows.take(pa.array([1, 0, *range(2, rows.num_rows)])))
    [found] = findings(dataset)
    assert (found.check, found.row, found.frame) == ("order", 1, 2)


def test_clock_that_steps_back_is_a_warning(dataset: Path) -> None:
    def step(rows: pa.Table) -> pa.Table:
        times = rows["ts_recv"].cast(pa.int64()).to_pylist()
        times[-1] -= 10_000_000_000
        at = rows.column_names.index("ts_recv")
        return rows.set_column(at, "ts_recv", pa.array(times, rows["ts_recv"].type))

    rewrite(dataset, "trades", step)
    [found] = [finding for finding in findings(dataset, "warning") if finding.check == "clock"]
    assert "steps back by 9998.000 ms" in found.sentence
    assert found.count == 1


def test_book_that_is_crossed_is_an_error(dataset: Path) -> None:
    def cross(rows: pa.Table) -> pa.Table:
        price = pc.if_else(
            pc.equal(rows["first_id"], 150), pa.scalar("100.30").cast(rows["price"].type), rows["price"]
        )
        return rows.set_column(rows.column_names.index("price"), "price", price)

    rewrite(dataset, "depth", cross)
    assert findings(dataset) == []  # locked: bid equals ask
    rewrite(dataset, "depth", lambda rows: _set_price(rows, 150, "100.40"))
    assert [finding.check for finding in findings(dataset)] == ["crossed"]


def _set_price(rows: pa.Table, first_id: int, price: str) -> pa.Table:
    kind = rows["price"].type
    changed = pc.if_else(pc.equal(rows["first_id"], first_id), pa.scalar(price).cast(kind), rows["price"])
    return rows.set_column(rows.column_names.index("price"), "price", changed)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all"])
def test_damaged_file_is_named_and_the_others_are_still_read(dataset: Path, content: bytes) -> None:
    path = only(dataset, "trades").path
    path.write_bytes(content)
    [found] = findings(dataset)
    assert found.check == "file"
    assert found.file == str(path)
    assert validate(dataset).exit_code() == 1


def test_file_of_another_schema_is_named(dataset: Path) -> None:
    rewrite(dataset, "trades", lambda rows: rows.drop_columns(["flags"]))
    [found] = findings(dataset)
    assert "is not of schema version 1: column flags is missing" in found.sentence


def test_rows_of_another_date_are_an_error(dataset: Path) -> None:
    part = only(dataset, "trades")
    other = part.path.parents[1] / "date=2024-08-07"
    other.mkdir()
    part.path.rename(other / part.path.name)
    assert [finding.check for finding in findings(dataset)] == ["partition"]


def test_recorded_hole_in_binance_aggregates_is_a_warning(tmp_path: Path) -> None:
    lines = []
    for i in (1, 2, 5):
        data = (
            f'{{"e":"aggTrade","E":1,"s":"BTCUSDT","a":{i},"p":"1","q":"1","f":{10 * i},"l":{10 * i + 9},'
            f'"T":1,"m":true,"M":true}}'
        )
        stamp = 1_723_161_253_000_000_000 + i
        lines.append(f'{stamp} {{"stream":"btcusdt@aggTrade","data":{data}}}\n'.encode())
    path = tmp_path / "source"
    path.write_bytes(b"".join(lines))
    root = tmp_path / "data"
    import_sources([path], root, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT")
    report = validate(root)
    assert report.count("error") == 0
    [found] = [finding for finding in report.findings if finding.check == "trade_ids"]
    assert "2 trades are missing between ids 2 and 5, on record" in found.sentence


def test_symbol_with_only_a_ticker_is_no_error(tmp_path: Path) -> None:
    text = b'{"stream":"btcusdt@bookTicker","data":{"u":1,"s":"BTCUSDT","b":"1","B":"1","a":"2","A":"1"}}'
    path = tmp_path / "source"
    path.write_bytes(b"1723161253000000000 " + text + b"\n")
    root = tmp_path / "data"
    import_sources([path], root, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT")
    assert validate(root).findings == []


def test_damaged_file_of_no_single_symbol_is_named(dataset: Path) -> None:
    [path, *_] = (dataset / "events").glob("*/symbol=_/*/*.parquet")
    path.write_bytes(b"")
    [found] = findings(dataset)
    assert (found.check, found.file) == ("file", str(path))


def test_torn_end_is_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "source"
    path.write_bytes(b"".join(spot_lines())[:-5])
    root = tmp_path / "data"
    import_sources([path], root, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT")
    assert "torn" in {finding.check for finding in findings(root, "warning")}


def test_time_between_two_sessions_counts_for_no_share(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for at, lines in enumerate((spot_lines(), spot_lines(count=40, skip=tuple(range(13)))[1:])):
        path = tmp_path / f"source{at}"
        later = [
            b"%d %s" % (int(line.split(b" ", 1)[0]) + at * 36 * 10**12, line.split(b" ", 1)[1])
            for line in lines
        ]
        path.write_bytes(b"".join(later))
        import_sources([path], root, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT")
    [figures] = validate(root).symbols
    assert 0.2 < figures.valid_share < 0.5  # the second session has no snapshot, and does not continue


def test_only_the_date_that_is_asked_for_is_checked(tmp_path: Path) -> None:
    root = tmp_path / "data"
    crossing = [line.replace(b"100.20", b"100.40") if b'"U":150' in line else line for line in spot_lines()]
    late = [b"%d %s" % (int(x.split(b" ", 1)[0]) + 86_400 * 10**9, x.split(b" ", 1)[1]) for x in spot_lines()]
    for at, lines in enumerate((crossing, late)):
        path = tmp_path / f"source{at}"
        path.write_bytes(b"".join(lines))
        import_sources([path], root, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT")
    days = ["2024-08-08", "2024-08-09"]
    reports = [validate(root, date=day) for day in days]
    assert ["crossed" in {finding.check for finding in report.findings} for report in reports] == [
        True,
        False,
    ]
    assert [report.symbols[0].messages for report in reports] == [10, 10]
    assert validate(root, date="2024-08-10").symbols == []
    with pytest.raises(UsageError, match="date 'garbage' is none, expected YYYY-MM-DD"):
        validate(root, date="garbage")


def test_venue_price_off_the_books_grid_is_unequal(tmp_path: Path) -> None:
    data = b'{"u":109,"s":"BTCUSDT","b":"100.2%s","B":"1.25","a":"100.3","A":"5.5"}'
    ticker = b'{"stream":"btcusdt@bookTicker","data":%s}' % data
    reports = []
    for name, more in (("right", b"0"), ("wrong", b"099")):
        lines = spot_lines()
        stamp = lines[1].split(b" ", 1)[0]
        path = tmp_path / name
        path.write_bytes(b"".join([*lines, stamp + b" " + ticker % more + b"\n"]))
        root = tmp_path / f"data-{name}"
        import_sources(
            [path],
            root,
            source_format="hftbacktest",
            exchange="binance",
            symbol="BTCUSDT",
            grid={"BTCUSDT": ("0.1", "0.25")},
        )
        reports.append(validate(root))
    assert [report.symbols[0].bbo_compared for report in reports] == [1, 1]
    assert [report.symbols[0].bbo_equal for report in reports] == [1, 0]


def test_book_without_a_snapshot_is_an_error(dataset: Path) -> None:
    only(dataset, "snapshots").path.unlink()
    assert [finding.check for finding in findings(dataset)] == ["book"]


def test_nothing_to_validate_is_wrong_usage(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it holds binance BTCUSDT"):
        validate(dataset, symbol="ETHUSDT")
    with pytest.raises(UsageError, match="it holds nothing"):
        validate(tmp_path / "none")


def test_captures_that_wait_for_ingest_are_named(dataset: Path) -> None:
    folder = dataset / ".captures" / "okx" / "s"
    folder.mkdir(parents=True)
    (folder / "000000.cap").touch()
    [found] = findings(dataset, "info")
    assert found.check == "pending"
    assert "mmdata recover" in found.sentence


def test_report_is_plain_json(dataset: Path) -> None:
    import json

    plain: dict[str, Any] = json.loads(json.dumps(validate(dataset).to_json_dict()))
    assert plain["schema"] == 2
    assert plain["symbols"][0]["trades"] == 10


def test_okx_checksum_reproduces_the_published_vectors() -> None:
    from decimal import Decimal

    tick, lot = Decimal("0.1"), Decimal(1)
    bids, asks = [(33661, 7)], [(33668, 9), (33680, 8), (33720, 8)]
    assert okx_checksum(bids, asks, tick, lot) == 831078360
    assert okx_checksum([(33661, 7), (33660, 6)], [(33668, 9), (33680, 8)], tick, lot) == -1881014294


# --- each defect is one finding, in its place


def altered(name: str, at: dict[int, Any]) -> Callable[[pa.Table], pa.Table]:
    """Return what sets some rows of a column."""

    def change(rows: pa.Table) -> pa.Table:
        kind = rows[name].type
        own = rows[name].cast(pa.int64()) if pa.types.is_timestamp(kind) else rows[name]
        values = own.to_pylist()
        for row, value in at.items():
            values[row] = value(values[row]) if callable(value) else value
        column = pa.array(values, own.type).cast(kind)
        return rows.set_column(rows.column_names.index(name), name, column)

    return change


def added(old: Decimal) -> Decimal:
    return old + Decimal("0.05")


DEFECTS: list[tuple[str, Callable[[pa.Table], pa.Table], tuple[str, str, dict[str, Any]]]] = [
    ("depth", lambda rows: rows.append_column("x", rows["frame"]), ("error", "schema", {})),
    ("depth", altered("price", {3: Decimal("-0.1")}), ("error", "price", {"row": 3, "frame": 7})),
    ("depth", altered("size", {3: Decimal("-4.25")}), ("error", "size", {"row": 3, "id": 124})),
    ("trades", altered("price", {4: added}), ("error", "tick", {"row": 4, "id": 4})),
    ("trades", altered("size", {4: added}), ("warning", "lot", {"row": 4, "frame": 10})),
    ("trades", altered("ts_recv", {4: TS + 86_400 * 10**9}), ("error", "partition", {"row": 4, "count": 1})),
    ("trades", altered("session", {4: "another"}), ("error", "partition", {"row": 4, "count": 1})),
    ("trades", altered("last_trade_id", {5: 3}), ("error", "trade_ids", {"id": 5})),
    ("depth", altered("is_last", {4: False}), ("error", "message", {"frame": 9, "id": 129})),
    ("snapshots", altered("level", {1: 1}), ("error", "snapshot", {"id": 104, "count": 1})),
    ("trades", altered("ts_event", {4: lambda old: old - 10**10}), ("warning", "clock", {"frame": 10})),
]


@pytest.mark.parametrize(("table", "change", "expected"), DEFECTS)
def test_defect_is_named_in_its_place_and_nothing_else(
    dataset: Path,
    table: str,
    change: Callable[[pa.Table], pa.Table],
    expected: tuple[str, str, dict[str, Any]],
) -> None:
    before = {(found.check, found.table) for found in validate(dataset).findings}
    rewrite(dataset, table, change)
    [found] = [own for own in validate(dataset).findings if (own.check, own.table) not in before]
    severity, check, place = expected
    assert (found.severity, found.check) == (severity, check)
    assert {name: getattr(found, name) for name in place} == place


def test_occurrences_beyond_the_most_are_one_finding_with_their_number(dataset: Path) -> None:
    rewrite(dataset, "trades", altered("price", dict.fromkeys(range(10), Decimal("0.05"))))
    report = validate(dataset, thresholds=Thresholds(most_findings=3))
    found = [finding for finding in report.findings if finding.check == "tick"]
    assert [finding.count for finding in found] == [1, 1, 1, 7]
    assert found[-1].row == 3
    assert found[-1].sentence.startswith("and 7 more of this check; the next: ")


def test_file_below_a_table_that_is_not_ours_is_named(dataset: Path) -> None:
    strangers = [only(dataset, "depth").path.with_name("notes.txt"), dataset / "trades" / "x.parquet"]
    for path in strangers:
        path.touch()
    assert {(found.check, found.file) for found in findings(dataset)} == {
        ("name", str(path)) for path in strangers
    }


def test_file_of_another_symbol_is_left_out(dataset: Path) -> None:
    part = only(dataset, "trades")
    rows = pq.read_table(part.path, partitioning=None)
    facts = {**(rows.schema.metadata or {}), b"mmdata.symbol": b"ETHUSDT"}
    pq.write_table(rows.replace_schema_metadata(facts), part.path, store_decimal_as_integer=True)
    [found] = findings(dataset)
    assert (found.check, found.file) == ("partition", str(part.path))
    assert validate(dataset).symbols[0].trades == 0


def test_damaged_page_ends_a_file_where_it_is(dataset: Path) -> None:
    path = only(dataset, "depth").path
    content = bytearray(path.read_bytes())
    footer = pq.read_metadata(path)
    column = footer.row_group(0).column(footer.schema.names.index("price"))
    begin = column.dictionary_page_offset or column.data_page_offset
    content[begin : begin + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(content)
    [found] = findings(dataset)
    assert (found.check, found.file, found.row) == ("file", str(path), 0)


@pytest.mark.parametrize("batch", [1, 7])
def test_report_does_not_depend_on_the_size_of_a_batch(
    dataset: Path, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(dataset, "depth", lambda rows: rows.filter(pc.not_equal(rows["first_id"], 120)))
    rewrite(dataset, "trades", lambda rows: rows.filter(pc.not_equal(rows["trade_id"], 3)))
    # Rows that are left out, and whose ids are missing only because they are.
    rewrite(dataset, "trades", altered("side", {6: "BUY"}))
    rewrite(dataset, "trades", altered("session", {8: "another"}))
    whole = validate(dataset).to_json_dict()
    monkeypatch.setattr(symbol, "BATCH", dict.fromkeys(symbol.BATCH, batch))
    assert validate(dataset).to_json_dict() == whole


def test_one_day_is_derived_as_the_whole_says(dataset: Path) -> None:
    [figures] = validate(dataset).symbols
    day, found = derive_day(dataset, "binance", "BTCUSDT", "2024-08-08")
    assert [day] == figures.days
    assert {finding.check for finding in found} == {"latency"}
    with pytest.raises(UsageError, match="nothing of binance BTCUSDT on 2024-08-09"):
        derive_day(dataset, "binance", "BTCUSDT", "2024-08-09")
