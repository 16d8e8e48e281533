"""Ingest: every line accounted for, every value exact, doing it again changes nothing."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from mmdata.datasets.errors import DatasetError, DiskError
from mmdata.datasets.layout import list_parts
from mmdata.datasets.publish import publish
from mmdata.datasets.schema import NARROW, WIDE
from mmdata.recorder.capture import (
    Event,
    RestAnswer,
    format_event,
    format_rest,
    parse_line,
)
from mmdata.recorder.ingest import Ingest
from tests.builders import DAY, LEVELS, NOON, SESSION, depth, frame, rows, run


def files(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*.parquet")}


def test_message_is_one_row_a_level_bids_then_asks_exact_to_the_digit(tmp_path: Path) -> None:
    run(tmp_path, [frame(0, depth(100, *LEVELS))])
    found = rows(tmp_path, "depth")
    assert [(row["side"], row["price"], row["size"], row["is_last"]) for row in found] == [
        ("bid", Decimal("61737.63"), Decimal(0), False),
        ("bid", Decimal("61730.17"), Decimal("1.5"), False),
        ("ask", Decimal("61837.64"), Decimal("0.00000001"), True),
    ]
    assert {(row["first_id"], row["last_id"], row["prev_id"], row["frame"]) for row in found} == {
        (100, 104, 99, 0)
    }


def test_message_without_levels_is_one_row_of_nulls(tmp_path: Path) -> None:
    run(tmp_path, [frame(0, depth(100, [], [])), frame(1, depth(105, *LEVELS))])
    found = rows(tmp_path, "depth")
    assert [(row["side"], row["price"], row["is_last"]) for row in found[:2]] == [
        (None, None, True),
        ("bid", Decimal("61737.63"), False),
    ]


def test_values_are_stored_as_64_bit_integers_and_read_by_polars(tmp_path: Path) -> None:
    run(tmp_path, [frame(0, depth(100, *LEVELS))])
    [part] = list_parts(tmp_path, "depth")
    column = pq.read_metadata(part.path).row_group(0).column(10)
    assert (column.path_in_schema, column.physical_type) == ("price", "INT64")
    frame_ = pl.scan_parquet(str(tmp_path / "depth/**/*.parquet"), hive_partitioning=True).collect()
    assert frame_["price"].dtype == pl.Decimal(18, 8)
    assert frame_["symbol"].to_list() == ["BTCUSDT"] * 3


def test_frame_that_cannot_be_decoded_is_quarantined_with_its_text_and_noted(tmp_path: Path) -> None:
    lines = [frame(0, b'{"stream":"btcusdt@depth'), frame(1, b"not json"), frame(2, depth(100, *LEVELS))]
    report = run(tmp_path, lines)
    assert (report.quarantined, report.decoded) == (2, 1)
    assert [row["frame_text"] for row in rows(tmp_path, "quarantine")] == [
        '{"stream":"btcusdt@depth',
        "not json",
    ]
    assert [row["kind"] for row in rows(tmp_path, "events")] == ["quarantine", "quarantine"]
    assert len(rows(tmp_path, "depth")) == 3


def test_line_outside_the_grammar_is_quarantined(tmp_path: Path) -> None:
    report = run(tmp_path, [parse_line(0, b"garbage"), frame(1, depth(100, *LEVELS))])
    assert report.quarantined == 1
    assert rows(tmp_path, "quarantine")[0]["frame_text"] == "garbage"


def test_number_that_no_decimal_holds_takes_its_whole_frame_into_quarantine(tmp_path: Path) -> None:
    bad = depth(105, [["61737.63", "1"], ["1." + "1" * 19, "1"]], [])
    report = run(tmp_path, [frame(0, depth(100, *LEVELS)), frame(1, bad), frame(2, depth(110, *LEVELS))])
    assert (report.quarantined, report.decoded) == (1, 2)
    assert [row["frame"] for row in rows(tmp_path, "quarantine")] == [1]
    assert {row["frame"] for row in rows(tmp_path, "depth")} == {0, 2}


def test_number_that_is_none_takes_its_frame_into_quarantine(tmp_path: Path) -> None:
    report = run(tmp_path, [frame(0, depth(100, [["abc", "1"]], [])), frame(1, depth(105, *LEVELS))])
    assert report.quarantined == 1


def test_symbol_with_finer_values_is_wide_from_there_on_and_that_is_an_event(tmp_path: Path) -> None:
    fine = depth(105, [["0.000000000123", "12345678901.5"]], [], "SHIBBTC")
    run(tmp_path, [frame(0, depth(100, *LEVELS, "SHIBBTC")), frame(1, fine), frame(2, depth(100, *LEVELS))])
    by_symbol = {
        (part.partition.symbol, part.partition.wide): pq.read_schema(part.path).field("price").type
        for part in list_parts(tmp_path, "depth")
    }
    assert by_symbol == {("SHIBBTC", True): WIDE, ("BTCUSDT", False): NARROW}
    [event] = rows(tmp_path, "events")
    assert (event["kind"], event["frame"]) == ("instrument", 1)
    wide = [row for row in rows(tmp_path, "depth") if row["price"] == Decimal("0.000000000123")]
    assert [row["size"] for row in wide] == [Decimal("12345678901.5")]


def test_wide_symbol_stays_wide_for_the_rest_of_its_session(tmp_path: Path) -> None:
    fine = depth(100, [["0.000000000123", "1"]], [], "SHIBBTC")
    run(tmp_path, [frame(0, fine)])
    run(tmp_path, [frame(1, depth(105, *LEVELS, "SHIBBTC"))])
    assert {part.partition.wide for part in list_parts(tmp_path, "depth")} == {True}


def test_part_splits_at_utc_midnight_of_the_receive_time(tmp_path: Path) -> None:
    late = NOON + DAY // 2 - 1
    lines = [frame(0, depth(100, *LEVELS), ts=late), frame(1, depth(105, *LEVELS), ts=late)]
    run(tmp_path, lines)
    assert [part.partition.date for part in list_parts(tmp_path, "depth")] == ["2026-11-21", "2026-11-22"]
    assert [row["frame"] for row in rows(tmp_path, "depth")] == [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(("settle", "publish", "parts"), [(1, 1, 5), (4, 8, 2), (1, 1000, 1)])
def test_rows_are_the_same_however_often_they_are_settled_and_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settle: int, publish: int, parts: int
) -> None:
    lines = [frame(i, depth(100 + 5 * i, *LEVELS)) for i in range(5)]
    run(tmp_path / "once", lines)
    monkeypatch.setattr("mmdata.recorder.ingest._SETTLE_ROWS", settle)
    monkeypatch.setattr("mmdata.recorder.ingest._FLUSH_ROWS", publish)
    run(tmp_path / "often", lines)
    assert len(list_parts(tmp_path / "often", "depth")) == parts
    assert rows(tmp_path / "often", "depth") == rows(tmp_path / "once", "depth")


def test_clock_that_steps_back_over_midnight_keeps_the_order_of_arrival(tmp_path: Path) -> None:
    late = NOON + DAY // 2
    stamps = [late - 5, late + 1, late - 4, late - 3, late + 2]
    run(tmp_path, [frame(i, depth(100 + 5 * i, *LEVELS), ts=ts - i) for i, ts in enumerate(stamps)])
    parts = list_parts(tmp_path, "depth")
    assert [part.partition.date[-2:] for part in parts] == ["21", "22", "21", "22"]
    assert [row["frame"] for row in rows(tmp_path, "depth")] == [f for f in range(5) for _ in range(3)]


@pytest.mark.parametrize(
    "message",
    [
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1,"s":"BTCUSDT","t":9223372036854775808,'
        b'"p":"1","q":"2","T":1,"m":true}}',
        b'{"stream":"btcusdt@trade","data":{"e":"trade","E":1723161255208000000,"s":"BTCUSDT","t":1,'
        b'"p":"1","q":"2","T":1723161255208000000,"m":true}}',
        b'{"result":' + b"[" * 100_000,
        b'{"e":"depthUpdate","E":-1,"s":"X","U":1,"u":1,"b":[],"a":[]}',
        b'{"e":"depthUpdate","E":1,"s":"","U":1,"u":1,"b":[],"a":[]}',
    ],
    ids=["id beyond 64 bits", "time in ns", "nested too deep", "time below zero", "symbol without a name"],
)
def test_frame_with_a_value_that_no_table_holds_is_quarantined(tmp_path: Path, message: bytes) -> None:
    report = run(tmp_path, [frame(0, message), frame(1, depth(100, *LEVELS))])
    assert (report.quarantined, report.decoded) == (1, 1)


def test_okx_numbers_beyond_their_columns_are_quarantined(tmp_path: Path) -> None:
    texts = [
        b'{"arg":{"channel":"books","instId":"X-Y"},"action":"update","data":[{"asks":[["1","1","0","9999999999"]],'
        b'"bids":[],"ts":"1","seqId":2,"prevSeqId":1}]}',
        b'{"arg":{"channel":"books","instId":"X-Y"},"action":"update","data":[{"asks":[],"bids":[],"ts":"1",'
        b'"checksum":99999999999,"seqId":2,"prevSeqId":1}]}',
        b'{"arg":{"channel":"trades","instId":"X-Y"},"data":[{"instId":"X-Y","tradeId":"9223372036854775808",'
        b'"px":"1","sz":"1","side":"buy","ts":"1"}]}',
    ]
    ingest = Ingest(tmp_path, "okx", SESSION, {})
    for number, text in enumerate(texts):
        ingest.take(frame(number, text))
    ingest.flush()
    assert ingest.report.quarantined == 3


def test_instrument_whose_tick_is_no_text_is_quarantined(tmp_path: Path) -> None:
    body = {"symbols": [{"symbol": "X", "filters": [{"filterType": "PRICE_FILTER", "tickSize": 0.01}]}]}
    answer = RestAnswer(1, "u", 200, {}, json.dumps(body), "instruments", "X")
    report = run(tmp_path, [parse_line(0, format_rest(NOON, 0, answer)[:-1])])
    assert (report.quarantined, report.rest) == (1, 0)


def test_wide_symbol_ingested_again_changes_nothing(tmp_path: Path) -> None:
    fine = depth(105, [["0.000000000123", "1"]], [], "SHIBBTC")
    first = [frame(0, depth(100, *LEVELS, "SHIBBTC"))]
    second = [frame(1, fine)]
    for lines in (first, second):
        run(tmp_path, lines)
    before = files(tmp_path)
    for lines in (first, second):
        assert not run(tmp_path, lines).rows
    assert files(tmp_path) == before


def test_symbol_that_turned_wide_is_told_also_when_ingest_was_killed_before_it_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        frame(0, depth(100, *LEVELS, "SHIBBTC")),
        frame(1, depth(105, [["0.000000000123", "1"]], [], "SHIBBTC")),
    ]

    def killed(*args: Any) -> Path:
        if args[1].table == "events":
            raise DiskError("the disk is full")
        return publish(*args)

    monkeypatch.setattr("mmdata.datasets.published.publish", killed)
    with pytest.raises(DiskError):
        run(tmp_path, lines)
    monkeypatch.undo()
    run(tmp_path, lines)
    assert [(row["kind"], row["frame"]) for row in rows(tmp_path, "events")] == [("instrument", 1)]
    assert len(rows(tmp_path, "depth")) == 4


def test_same_lines_again_change_nothing(tmp_path: Path) -> None:
    lines = [
        frame(0, depth(100, *LEVELS)),
        parse_line(1, format_event(NOON, Event("gap", channel="depth", symbol="BTCUSDT", last_id=3))[:-1]),
        frame(2, b"not json"),
    ]
    run(tmp_path, lines)
    before = files(tmp_path)
    report = run(tmp_path, lines)
    assert files(tmp_path) == before
    assert (report.skipped, sum(report.rows.values())) == (3 + 1 + 1 + 1, 0)


def test_crash_between_two_files_is_mended_by_ingesting_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trade = {"e": "trade", "E": 1, "s": "BTCUSDT", "t": 7, "p": "1", "q": "2", "T": 1, "m": True, "M": True}
    lines = [frame(0, depth(100, *LEVELS)), frame(1, {"stream": "btcusdt@trade", "data": trade})]
    run(tmp_path / "whole", lines)

    def fail_second(*args: Any) -> Path:
        if args[1].table == "trades":
            raise DiskError("the disk is full")
        return publish(*args)

    monkeypatch.setattr("mmdata.datasets.published.publish", fail_second)
    with pytest.raises(DiskError):
        run(tmp_path / "torn", lines)
    assert [len(rows(tmp_path / "torn", table)) for table in ("depth", "trades")] == [3, 0]
    monkeypatch.undo()
    run(tmp_path / "torn", lines)
    for table in ("depth", "trades"):
        assert rows(tmp_path / "torn", table) == rows(tmp_path / "whole", table)


def test_rest_answers_become_snapshots_and_instruments_and_errors_stay_in_the_capture(tmp_path: Path) -> None:
    book = {"lastUpdateId": 9, "bids": [["2.0", "1"], ["1.0", "3"]], "asks": [["3.0", "4"]]}
    info = {
        "symbols": [
            {
                "symbol": "BTCUSDT",
                "status": "TRADING",
                "baseAsset": "BTC",
                "quoteAsset": "USDT",
                "filters": [
                    {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"},
                    {"filterType": "LOT_SIZE", "stepSize": "0.00001000", "minQty": "0.00002"},
                    {"filterType": "NOTIONAL", "minNotional": "5.0"},
                ],
            }
        ]
    }
    answers = [
        RestAnswer(1, "u", 200, {}, json.dumps(book), "snapshot", "BTCUSDT", "start"),
        RestAnswer(2, "u", 200, {}, json.dumps(info), "instruments", "BTCUSDT"),
        RestAnswer(3, "u", 429, {"Retry-After": "1"}, "{}", "snapshot", "BTCUSDT", "gap"),
    ]
    lines = [parse_line(i, format_rest(NOON + i, i, answer)[:-1]) for i, answer in enumerate(answers)]
    report = run(tmp_path, lines)
    assert report.rest == 3
    snapshot = rows(tmp_path, "snapshots")
    assert [(row["side"], row["level"], row["price"], row["reason"]) for row in snapshot] == [
        ("bid", 0, Decimal(2), "start"),
        ("bid", 1, Decimal(1), "start"),
        ("ask", 0, Decimal(3), "start"),
    ]
    [instrument] = rows(tmp_path, "instruments")
    assert (instrument["source"], instrument["tick_size"], instrument["min_notional"]) == (
        "venue",
        Decimal("0.01"),
        Decimal(5),
    )
    [part] = list_parts(tmp_path, "instruments")
    assert pq.read_metadata(part.path).metadata[b"mmdata.tick_size"] == b"0.01000000"


def test_damaged_part_of_the_session_is_named_before_anything_is_written(tmp_path: Path) -> None:
    run(tmp_path, [frame(0, depth(100, *LEVELS))])
    [part] = list_parts(tmp_path, "depth")
    part.path.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"cannot be read as Parquet .* move it away"):
        run(tmp_path, [frame(1, depth(105, *LEVELS))])


def test_nothing_but_whole_parquet_lies_under_a_table(tmp_path: Path) -> None:
    run(tmp_path, [frame(0, depth(100, *LEVELS))])
    below = [path for path in (tmp_path / "depth").rglob("*") if path.is_file()]
    assert [path.suffix for path in below] == [".parquet"]
    assert [*(tmp_path / ".staging").iterdir()] == []
