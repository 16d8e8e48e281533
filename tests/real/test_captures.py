"""The real captures: what is known of them holds of the tables made from them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.datasets.book import rebuild
from mmdata.datasets.chain import NO_ID
from mmdata.datasets.layout import list_parts
from mmdata.datasets.loading import load_market
from mmdata.datasets.validation import SymbolReport, ValidationReport, validate
from mmdata.recorder.importing import ImportReport, import_sources
from mmdata.recorder.records import Depth
from mmdata.recorder.venues.okx import decode as okx

pytestmark = pytest.mark.real

Row = tuple[str, str, str]
"""What, price, size; or what, and its two numbers."""


@pytest.fixture(scope="module")
def report(real_dataset: Path) -> ValidationReport:
    return validate(real_dataset)


def figures(report: ValidationReport, exchange: str, symbol: str) -> SymbolReport:
    [found] = [own for own in report.symbols if (own.exchange, own.symbol) == (exchange, symbol)]
    return found


def test_binance_spot_holds_every_diff_and_trade_and_no_gap(report: ValidationReport) -> None:
    found = figures(report, "binance", "BTCUSDT")
    assert (found.messages, found.trades) == (6495, 19904)
    assert (found.chain_breaks, found.trade_holes) == (0, 0)


def test_binance_spot_book_is_the_exchanges_own_at_every_equal_id(report: ValidationReport) -> None:
    found = figures(report, "binance", "BTCUSDT")
    assert (found.bbo_equal, found.bbo_compared) == (1072, 1072)


def test_usdm_book_is_the_exchanges_own_at_every_equal_id(report: ValidationReport) -> None:
    found = figures(report, "binance-usdm", "BTCUSDT")
    assert (found.messages, found.trades, found.chain_breaks) == (6551, 21313, 0)
    assert (found.bbo_equal, found.bbo_compared) == (629, 629)


def test_okx_checksums_of_all_instruments_hold(report: ValidationReport) -> None:
    okx_reports = [own for own in report.symbols if own.exchange == "okx"]
    assert {own.symbol for own in okx_reports} == {"BTC-USDT", "UNI-USD-SWAP", "BTC-USD-220527"}
    assert sum(own.checksums for own in okx_reports) == 290
    assert sum(own.checksums_equal for own in okx_reports) == 290


def test_clock_that_is_behind_is_told_and_is_no_error(report: ValidationReport) -> None:
    told = [finding for finding in report.findings if finding.check == "latency" and finding.count > 1]
    assert {(finding.exchange, finding.severity) for finding in told} == {
        ("binance", "warning"),
        ("binance-usdm", "warning"),
    }
    assert any("1.276 s" in finding.sentence for finding in told if finding.exchange == "binance")
    assert report.exit_code() == 0
    latency = {line.channel: line for line in figures(report, "binance", "BTCUSDT").latencies}
    assert latency["depth"].negative_share == 1.0


def test_okx_books_never_hold_more_levels_than_the_feed_speaks_of(real_dataset: Path) -> None:
    from mmdata.datasets.book import Book

    for symbol in ("BTC-USDT", "UNI-USD-SWAP", "BTC-USD-220527"):
        market = load_market(real_dataset, "okx", symbol)
        book = Book(market.columns, market.chain)
        for message in range(len(market.columns.kind)):
            book.step(message)
            assert max(len(book.bids()), len(book.asks())) <= 400


def test_rebuilt_books_are_never_crossed(real_dataset: Path) -> None:
    for exchange in ("binance", "binance-usdm"):
        market = load_market(real_dataset, exchange, "BTCUSDT")
        tops = rebuild(market.columns, market.chain)
        assert (tops.ask_price[tops.valid] > tops.bid_price[tops.valid]).all()


# --- exact to the digit: the wire read again by the standard library, row by row


def hftbacktest_rows(paths: list[Path]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for path in paths:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                stamp, _, text = line.partition(" ")
                message = json.loads(text)
                data = message.get("data", message)
                ts = int(stamp)
                if "lastUpdateId" in data:
                    for side in ("bids", "asks"):
                        for level, (price, size) in enumerate(data[side]):
                            yield "snapshots", (ts, side[:-1], level, price, size)
                elif data.get("e") == "depthUpdate":
                    for side, key in (("bid", "b"), ("ask", "a")):
                        for price, size in data[key]:
                            yield "depth", (ts, data["U"], data["u"], side, price, size)
                elif data.get("e") == "trade":
                    side = "sell" if data["m"] else "buy"
                    yield "trades", (ts, data["t"], data["T"] * 1_000_000, side, data["p"], data["q"])
                else:
                    yield "bbo", (ts, data["u"], data["b"], data["B"], data["a"], data["A"])


def okx_rows(path: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            stamp, _, text = line.rstrip("\n").partition(": ")
            if not stamp.replace(".", "").isdigit():
                continue
            message = json.loads(text)
            channel = message.get("arg", {}).get("channel")
            seconds, _, fraction = stamp.partition(".")
            ts = int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0"))
            for data in message.get("data", ()):
                if channel == "books":
                    for side in ("bids", "asks"):
                        for price, size, _, orders in data[side]:
                            yield "depth", (message["arg"]["instId"], ts, side[:-1], price, size, int(orders))
                elif channel == "trades":
                    yield (
                        "trades",
                        (data["instId"], ts, int(data["tradeId"]), data["side"], data["px"], data["sz"]),
                    )


def table_rows(root: Path, table: str, exchange: str, columns: list[str]) -> list[tuple[Any, ...]]:
    rows: list[tuple[int, tuple[Any, ...]]] = []
    for part in list_parts(root, table, exchange=exchange):
        read = pq.read_table(part.path, columns=["frame", *columns], partitioning=None)
        values = [
            read[name].cast(pa.int64()).to_pylist()
            if pa.types.is_timestamp(read[name].type)
            else read[name].to_pylist()
            for name in ["frame", *columns]
        ]
        symbol = () if exchange != "okx" else (part.partition.symbol,)
        rows += [(frame, (*symbol, *row)) for frame, *row in zip(*values, strict=True)]
    rows.sort(key=lambda row: row[0])  # symbols lie apart; frames put them together again
    return [row for _, row in rows]


def same(wire: tuple[Any, ...], stored: tuple[Any, ...], exact: tuple[int, ...]) -> bool:
    return all(
        Decimal(ours) == Decimal(theirs) if at in exact else ours == theirs
        for at, (theirs, ours) in enumerate(zip(wire, stored, strict=True))
    )


WANTED = {
    "snapshots": (["ts_recv", "side", "level", "price", "size"], (3, 4)),
    "depth": (["ts_recv", "first_id", "last_id", "side", "price", "size"], (4, 5)),
    "trades": (["ts_recv", "trade_id", "ts_event", "side", "price", "size"], (4, 5)),
    "bbo": (["ts_recv", "last_id", "bid_price", "bid_size", "ask_price", "ask_size"], (2, 3, 4, 5)),
}


@pytest.mark.parametrize(
    ("exchange", "files", "counts"),
    [
        ("binance", ["btcusdt_20240808.gz", "btcusdt_20240809.gz"], (2000, 298111, 19904, 73174)),
        ("binance-usdm", ["btcusdt_20240808.gz"], (2000, 443521, 21313, 66089)),
    ],
)
def test_every_binance_value_is_the_wires_row_by_row(
    shared_data: Path, real_dataset: Path, exchange: str, files: list[str], counts: tuple[int, ...]
) -> None:
    wire: dict[str, list[tuple[Any, ...]]] = {table: [] for table in WANTED}
    for table, row in hftbacktest_rows([shared_data / exchange / name for name in files]):
        wire[table].append(row)
    assert tuple(len(rows) for rows in wire.values()) == counts
    for table, (columns, exact) in WANTED.items():
        stored = table_rows(real_dataset, table, exchange, columns)
        assert len(stored) == len(wire[table])
        differing = [pair for pair in zip(wire[table], stored, strict=True) if not same(*pair, exact)]
        assert differing == [], table


def test_every_okx_value_is_the_wires_row_by_row(shared_data: Path, real_dataset: Path) -> None:
    wire: dict[str, list[tuple[Any, ...]]] = {"depth": [], "trades": []}
    for table, row in okx_rows(shared_data / "okx/books_20220513.log.gz"):
        wire[table].append(row)
    assert [len(rows) for rows in wire.values()] == [8264, 74]
    columns = {
        "depth": ["ts_recv", "side", "price", "size", "orders"],
        "trades": ["ts_recv", "trade_id", "side", "price", "size"],
    }
    exact = {"depth": (3, 4), "trades": (4, 5)}
    for table, rows in wire.items():
        stored = table_rows(real_dataset, table, "okx", columns[table])
        assert len(stored) == len(rows)
        differing = [pair for pair in zip(rows, stored, strict=True) if not same(*pair, exact[table])]
        assert differing == [], table


def test_each_table_is_read_by_polars_alone(real_dataset: Path) -> None:
    counts = {
        table: pl.scan_parquet(f"{real_dataset}/{table}/**/*.parquet", hive_partitioning=True)
        .select(pl.len())
        .collect()
        .item()
        for table in ("depth", "trades", "bbo", "snapshots", "events", "instruments")
    }
    assert counts["depth"] == 298111 + 443521 + 8264
    assert counts["trades"] == 19904 + 21313 + 74
    assert counts["bbo"] == 73174 + 66089


# --- import


@pytest.fixture
def again(shared_data: Path, tmp_path: Path) -> tuple[Path, list[ImportReport]]:
    source = [shared_data / "okx/books_20220513.log.gz"]
    reports = [import_sources(source, tmp_path, source_format="cryptofeed", exchange="okx") for _ in range(2)]
    return tmp_path, reports


def test_importing_the_same_bytes_again_is_a_no_op(again: tuple[Path, list[ImportReport]]) -> None:
    _, (first, second) = again
    assert first.session == second.session
    assert sum(first.ingest.rows.values()) == second.ingest.skipped
    assert not second.ingest.rows


def test_accounting_of_an_import_closes(again: tuple[Path, list[ImportReport]]) -> None:
    report = again[1][0].ingest
    report.check()
    assert (report.lines, report.sent, report.events, report.control) == (414, 3, 1, 18)
    assert dict(report.untabled) == {"tickers": 28}
    assert report.quarantined == 0


def test_derived_tick_and_lot_are_the_finest_that_hold_all_values(
    again: tuple[Path, list[ImportReport]],
) -> None:
    derived = again[1][0].derived
    assert {symbol: (str(tick), f"{lot:f}") for symbol, (tick, lot) in derived.items()} == {
        "BTC-USDT": ("0.1", "0.00000001"),
        "UNI-USD-SWAP": ("0.001", "1"),
        "BTC-USD-220527": ("0.1", "1"),
    }


# --- OKX of 2026


def test_okx_updates_of_2026_chain_and_their_checksum_of_zero_means_none(shared_data: Path) -> None:
    lines = (shared_data / "okx/books_updates_20260824.jsonl").read_bytes().splitlines()
    updates = [record for line in lines for record in okx.decode(line) if isinstance(record, Depth)]
    ids = [(record.prev_id, record.last_id) for record in updates]
    assert [last for _, last in ids[:-1]] == [prev for prev, _ in ids[1:]]
    assert (ids[0][0], ids[-1][1]) == (80274874800, 80274875033)
    assert {record.checksum for record in updates} == {None}
    assert NO_ID not in np.array(ids)
