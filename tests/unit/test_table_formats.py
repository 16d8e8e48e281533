"""Table formats of others: what a line becomes, what is told apart, and that nothing changes a digit."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mmdata.datasets import verify
from mmdata.datasets.book import Book
from mmdata.datasets.errors import UsageError
from mmdata.datasets.formats import sources
from mmdata.datasets.formats.importing import import_tables, read_grid
from mmdata.datasets.formats.session import TableReport
from mmdata.datasets.formats.tardis import book_columns
from mmdata.datasets.loading import load_market
from mmdata.datasets.validation import validate
from tests.builders import rows

T = 1_700_000_000_000_000  # µs
L2 = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount\n"
TRADES = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
QUOTES = "exchange,symbol,timestamp,local_timestamp,ask_amount,ask_price,bid_price,bid_amount\n"
BOOK = [
    f"binance,BTCUSDT,{T},{T},true,ask,100.2,1\n",
    f"binance,BTCUSDT,{T},{T},true,bid,100.1,2.50\n",
    f"binance,BTCUSDT,{T + 100_000},{T + 101_234},false,bid,100.1,0\n",
    f"binance,BTCUSDT,{T + 100_000},{T + 101_234},false,bid,100.0,1e-7\n",
    f"binance,BTCUSDT,{T + 200_000},{T + 201_234},false,ask,100.15,3\n",
]


def trade(number: int, at: int) -> str:
    return f"binance,BTCUSDT,{T + at},{T + at + 1_234},{number},buy,100.1,0.5\n"


def imported(folder: Path, files: dict[str, str | bytes], source_format: str, **asked: Any) -> TableReport:
    paths = []
    for name, content in files.items():
        paths.append(folder / name)
        paths[-1].write_bytes(content.encode() if isinstance(content, str) else content)
    report = import_tables(paths, folder / "data", source_format=source_format, **asked)
    assert verify(folder / "data").differences == []
    assert [told for told in report.warnings if " were " in told] == []  # sums that are not equal
    return report


def zipped(name: str, text: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return made.getvalue()


def taped(name: str, text: str) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as tape:
        info = tarfile.TarInfo(name)
        info.size = len(text)
        tape.addfile(info, io.BytesIO(text.encode()))
    return made.getvalue()


def kinds(root: Path) -> list[tuple[int, str]]:
    return sorted((row["frame"], row["kind"]) for row in rows(root, "events"))


# --- Tardis


def test_tardis_book_trades_and_quotes_are_one_stream_by_time_of_arrival(tmp_path: Path) -> None:
    quote = f"binance,BTCUSDT,{T + 50_000},{T + 51_234},1,100.2,100.1,2.5\n"
    report = imported(
        tmp_path,
        {
            "book.csv": L2 + "".join(BOOK),
            "trades.csv.gz": gzip.compress((TRADES + trade(1, 50_000) + trade(2, 200_000)).encode()),
            "quotes.csv": QUOTES + quote,
        },
        "tardis",
    )
    root = tmp_path / "data"
    assert (report.exchange, report.quarantined, report.gaps) == ("binance", 0, 0)
    depth = rows(root, "depth")
    # Bids stand before asks, and at equal times a trade stands before the book that it left.
    assert [(row["frame"], row["side"], row["is_last"]) for row in depth] == [
        *((0, "bid", False), (0, "ask", True)),
        *((3, "bid", False), (3, "bid", True)),
        (5, "ask", True),
    ]
    assert [row["frame"] for row in rows(root, "trades")] == [1, 4]
    assert [row["frame"] for row in rows(root, "bbo")] == [2]
    assert [row["ts_event"] for row in depth] == [
        None,
        None,
        *[(T + 100_000) * 1_000] * 2,
        (T + 200_000) * 1_000,
    ]
    assert depth[3]["size"] == Decimal("0.0000001")
    assert {row["last_id"] for row in depth} == {None}
    assert kinds(root) == [(0, "session_start"), (0, "synced"), (6, "session_end")]
    [start] = [row["detail"] for row in rows(root, "events") if row["kind"] == "session_start"]
    assert json.loads(start) == {"source": "import", "format": "tardis", "stamp": "foreign"}


def test_book_without_ids_is_rebuilt_as_it_came(tmp_path: Path) -> None:
    imported(tmp_path, {"book.csv": L2 + "".join(BOOK)}, "tardis")
    market = load_market(tmp_path / "data", "binance", "BTCUSDT")
    book = Book(market.columns, market.chain)
    for message in range(len(market.columns.kind)):
        book.step(message)
    assert book.valid
    assert [price * market.tick_size for price, _ in book.bids()] == [Decimal(100)]
    assert [price * market.tick_size for price, _ in book.asks()] == [Decimal("100.15"), Decimal("100.2")]
    assert validate(tmp_path / "data").exit_code() == 0


def test_lines_that_cannot_be_read_are_quarantined_each_with_its_reason(tmp_path: Path) -> None:
    bad = {
        f"binance,BTCUSDT,x,{T + 300_000},false,bid,100,1\n": "timestamp 'x' is no whole number",
        "binance,BTCUSDT,1\n": "the line has 3 columns, expected 8",
        f"okex,BTCUSDT,{T},{T + 300_000},false,bid,100,1\n": "exchange is 'okex', expected binance",
        f"binance,BTCUSDT,{T},{T + 300_000},maybe,bid,100,1\n": "is_snapshot is 'maybe', expected true",
        f"binance,BTCUSDT,{T},{T + 300_000},false,bid,1.0000000000000000001,1\n": "no number that decimal",
        f"binance,BTCUSDT,{T},{T + 300_000},false,bid,nan,1\n": "price 'nan' is no number",
        f"binance,BTCUSDT,{T},0,false,bid,100,1\n": "local_timestamp '0' is no time",
        f"binance,,{T},{T + 300_000},false,bid,100,1\n": "symbol is empty",
    }
    lines = [line for pair in zip(BOOK[3:], [*bad][:2], strict=True) for line in pair]
    report = imported(tmp_path, {"book.csv": L2 + "".join([*BOOK[:3], *lines, *[*bad][2:]])}, "tardis")
    assert report.quarantined == len(bad)
    found = rows(tmp_path / "data", "quarantine")
    assert [row["frame_text"] + "\n" for row in found] == [*bad]
    for row, sentence in zip(found, bad.values(), strict=True):
        assert sentence in row["error"]
    assert len(rows(tmp_path / "data", "depth")) == len(BOOK)
    assert [row["frame"] for row in found] == sorted(row["frame"] for row in found)


def test_missing_trades_are_on_record_and_one_that_comes_again_is_no_hole(tmp_path: Path) -> None:
    text = TRADES + "".join(trade(number, 1_000 * at) for at, number in enumerate((1, 2, 5, 2, 6)))
    report = imported(tmp_path, {"trades.csv": text}, "tardis")
    gaps = [row for row in rows(tmp_path / "data", "events") if row["kind"] == "gap"]
    assert [(row["channel"], row["last_id"], row["next_id"]) for row in gaps] == [("trades", 2, 5)]
    assert report.gaps == 1


def test_books_are_the_book_by_themselves_and_audits_beside_the_changes(tmp_path: Path) -> None:
    cells = [f"{100 + at},{at + 1},{99 - at},{at + 1}" if at < 2 else ",,," for at in range(5)]
    books = ",".join(book_columns(5)) + f"\nbinance,BTCUSDT,{T},{T + 5},{','.join(cells)}\n"
    imported(tmp_path, {"books.csv": books}, "tardis")
    depth = rows(tmp_path / "data", "depth")
    assert [(row["side"], int(row["price"]), row["is_snapshot"]) for row in depth] == [
        *(("bid", 99, True), ("bid", 98, True)),
        *(("ask", 100, True), ("ask", 101, True)),
    ]
    other = tmp_path / "other"
    other.mkdir()
    imported(other, {"books.csv": books, "book.csv": L2 + "".join(BOOK)}, "tardis")
    told = rows(other / "data", "snapshots")
    assert [(row["side"], row["level"], row["reason"]) for row in told] == [
        *(("bid", 0, "audit"), ("bid", 1, "audit")),
        *(("ask", 0, "audit"), ("ask", 1, "audit")),
    ]


def test_blocks_of_any_size_make_the_same_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files: dict[str, str | bytes] = {
        "book.csv": L2 + "".join([*BOOK, "binance,BTCUSDT,1\n", *BOOK[2:]]),
        "trades.csv": TRADES + "".join(trade(number, 40_000 * number) for number in range(9)),
    }
    imported(tmp_path, files, "tardis")
    small = tmp_path / "small"
    small.mkdir()
    monkeypatch.setattr(sources, "_BLOCK", 100)
    monkeypatch.setattr(sources, "_READ", 7)
    monkeypatch.setattr("mmdata.datasets.formats.session._FLUSH_ROWS", 4)
    imported(small, files, "tardis")
    for table in ("depth", "trades", "events", "quarantine", "instruments"):
        assert rows(small / "data", table) == rows(tmp_path / "data", table), table


def test_same_files_again_change_nothing_and_a_symbol_first_taken_alone_is_completed(tmp_path: Path) -> None:
    text = L2 + "".join(BOOK) + "".join(BOOK).replace("BTCUSDT", "ETHUSDT")
    alone = imported(tmp_path, {"book.csv": text}, "tardis", symbol="ETHUSDT")
    assert (alone.other_symbols, alone.rows["depth"]) == (5, 5)
    rest = imported(tmp_path, {"book.csv": text}, "tardis")
    assert (rest.rows["depth"], sorted(rest.derived)) == (5, ["BTCUSDT", "ETHUSDT"])
    again = imported(tmp_path, {"book.csv": text}, "tardis")
    assert sum(again.rows.values()) == 0
    assert again.skipped == 10 + len(rows(tmp_path / "data", "events")) + 2
    none = imported(tmp_path, {"book.csv": text}, "tardis", symbol="btcusdt")
    assert "no row of btcusdt is in" in none.warnings[0]


def test_file_that_is_cut_off_gives_its_whole_lines_and_says_so(tmp_path: Path) -> None:
    text = TRADES + "".join(trade(number, 1_000 * number) for number in range(5_000))
    report = imported(tmp_path, {"trades.csv.gz": gzip.compress(text.encode())[:-200]}, "tardis")
    assert "the file ends early or is damaged" in report.warnings[0]
    assert 0 < report.rows["trades"] < 5_000
    assert report.quarantined == 0
    assert "torn" in {kind for _, kind in kinds(tmp_path / "data")}


def test_values_beyond_eight_decimals_make_the_symbol_wide_from_there(tmp_path: Path) -> None:
    fine = BOOK[4].replace("100.15", "0.000000000123")
    imported(tmp_path, {"book.csv": L2 + "".join([*BOOK[:4], fine])}, "tardis")
    assert Decimal("0.000000000123") in {row["price"] for row in rows(tmp_path / "data", "depth")}
    assert (tmp_path / "data/depth-wide").is_dir()
    assert (2, "instrument") in kinds(tmp_path / "data")


def test_file_of_another_kind_or_of_two_exchanges_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"its first line is 'a,b', expected the columns of one of incremental"
    ):
        imported(tmp_path, {"x.csv": "a,b\n1,2\n"}, "tardis")
    with pytest.raises(UsageError, match="the files are of binance and okx, expected one exchange"):
        imported(
            tmp_path,
            {"a.csv": TRADES + trade(1, 0), "b.csv": TRADES + trade(1, 0).replace("binance", "okex")},
            "tardis",
        )
    assert not (tmp_path / "data").exists()


# --- Binance


SPOT_MS = (
    "1,100.10,2.50000000,250.25,1700000000123,True,True\n2,100.20,0.00000001,0.1,1700000000124,False,True\n"
)
SPOT_US = "3,100.20,1,100.2,1735689600123456,False,True\n"
FUTURES = "id,price,qty,quote_qty,time,is_buyer_maker\n1,100.1,2,200.2,1700000000123,true\n"
AGGREGATES = "7,100.1,2,11,13,1700000000123,True,True\n8,100.2,1,14,14,1700000000123,False,True\n"


def test_binance_trades_have_the_venues_time_in_ms_or_us_and_the_takers_side(tmp_path: Path) -> None:
    archive = zipped("BTCUSDT-trades-2024-12-31.csv", SPOT_MS + SPOT_US)
    report = imported(
        tmp_path, {"BTCUSDT-trades-2024-12-31.zip": archive}, "binance-public", exchange="binance"
    )
    assert (report.gaps, report.quarantined) == (0, 0)
    found = rows(tmp_path / "data", "trades")
    assert [(row["trade_id"], row["side"], row["ts_event"]) for row in found] == [
        (1, "sell", 1_700_000_000_123_000_000),
        (2, "buy", 1_700_000_000_124_000_000),
        (3, "buy", 1_735_689_600_123_456_000),
    ]
    assert all(row["ts_recv"] == row["ts_event"] for row in found)
    assert {(row["kind"], row["origin"], row["conn"]) for row in found} == {("trade", "stream", 0)}
    [start] = [row["detail"] for row in rows(tmp_path / "data", "events") if row["kind"] == "session_start"]
    assert json.loads(start)["stamp"] == "event"


def test_binance_futures_with_a_header_and_aggregates_of_spot_are_read(tmp_path: Path) -> None:
    imported(
        tmp_path,
        {"ETHUSDT-trades-2023-11.zip": zipped("x.csv", FUTURES)},
        "binance-public",
        exchange="binance-usdm",
    )
    [row] = rows(tmp_path / "data", "trades")
    assert (row["trade_id"], row["side"], row["price"]) == (1, "sell", Decimal("100.1"))
    spot = tmp_path / "spot"
    spot.mkdir()
    name = "BTCUSDT-aggTrades-2023-11-14.zip"
    imported(spot, {name: zipped("x.csv", AGGREGATES)}, "binance-public", exchange="binance")
    found = rows(spot / "data", "trades")
    assert [(r["kind"], r["trade_id"], r["first_trade_id"], r["last_trade_id"]) for r in found] == [
        ("agg", 7, 11, 13),
        ("agg", 8, 14, 14),
    ]


def test_checksum_beside_a_zip_is_compared(tmp_path: Path) -> None:
    name, archive = "BTCUSDT-trades-2023-11-14.zip", zipped("x.csv", SPOT_MS)
    beside = tmp_path / f"{name}.CHECKSUM"
    beside.write_text(f"{'0' * 64}  {name}\n")
    with pytest.raises(
        UsageError, match=r"its sha256 is \w+, and \S+CHECKSUM says 0+; .* nothing was imported"
    ):
        imported(tmp_path, {name: archive}, "binance-public", exchange="binance")
    assert not (tmp_path / "data").exists()
    beside.write_text(f"{hashlib.sha256(archive).hexdigest()}  {name}\n")
    assert imported(tmp_path, {name: archive}, "binance-public", exchange="binance").rows["trades"] == 2


def test_binance_asks_for_the_exchange_and_for_a_name_that_tells(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the files do not say which it is"):
        imported(tmp_path, {"BTCUSDT-trades-2023-11-14.zip": zipped("x", SPOT_MS)}, "binance-public")
    with pytest.raises(UsageError, match="the name does not say which symbol it holds"):
        imported(tmp_path, {"trades.zip": zipped("x", SPOT_MS)}, "binance-public", exchange="binance")


# --- OKX


def okx_line(action: str, ts: int, asks: list[list[str]], bids: list[list[str]]) -> str:
    told = {"instId": "BTC-USDT-SWAP", "action": action, "ts": str(ts), "asks": asks, "bids": bids}
    return json.dumps(told) + "\n"


OKX = [
    okx_line(
        "snapshot", 1_700_000_000_000, [["100.2", "1", "3"]], [["100.1", "2.5", "1"], ["100.0", "4", "2"]]
    ),
    okx_line("update", 1_700_000_000_010, [], [["100.1", "0", "0"]]),
    okx_line("update", 1_700_000_000_020, [["100.15", "7", "1"]], []),
]
OKX_BOOK = "BTC-USDT-SWAP-L2orderbook-400lv-2023-11-14.tar.gz"


def test_okx_books_and_trades_are_one_stream_by_the_venues_time(tmp_path: Path) -> None:
    trades = (
        "instrument_name,trade_id,side,price,size,created_time,source\n"
        "BTC-USDT-SWAP,41,buy,100.2,3,1700000000010,0\nBTC-USDT-SWAP,42,sell,100.1,1,1700000000030,1\n"
    )
    report = imported(
        tmp_path,
        {
            OKX_BOOK: taped("BTC-USDT-SWAP-L2orderbook-400lv-2023-11-14.data", "".join(OKX)),
            "BTC-USDT-SWAP-trades-2023-11-14.zip": zipped("x.csv", trades),
        },
        "okx-public",
    )
    assert (report.exchange, report.quarantined) == ("okx", 0)
    depth = rows(tmp_path / "data", "depth")
    assert [(row["frame"], row["side"], row["orders"], row["is_last"]) for row in depth] == [
        *((0, "bid", 1, False), (0, "bid", 2, False), (0, "ask", 3, True)),
        (2, "bid", 0, True),
        (3, "ask", 1, True),
    ]
    assert all(row["ts_recv"] == row["ts_event"] for row in depth)
    told = rows(tmp_path / "data", "trades")
    assert [(row["frame"], row["trade_id"], row["first_trade_id"], row["flags"]) for row in told] == [
        (1, 41, None, "0"),
        (4, 42, None, "1"),
    ]
    assert validate(tmp_path / "data").exit_code() == 0


def test_okx_trades_of_two_languages_take_the_symbol_from_the_name(tmp_path: Path) -> None:
    header = "trade_id/交易id,side/交易方向,size/数量,price/价格,created_time/成交时间"
    text = f"{header}\n7,BUY,0.5,84760.0,1682434103856\n"
    imported(tmp_path, {"BTC-USDT-trades-2023-04-25.zip": zipped("x.csv", text)}, "okx-public")
    [row] = rows(tmp_path / "data", "trades")
    assert (row["trade_id"], row["side"], row["size"], row["flags"]) == (7, "buy", Decimal("0.5"), None)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{nonsense\n", "cannot be decoded"),
        (OKX[1].replace("update", "replace"), "action is 'replace', expected snapshot or update"),
        (OKX[1].replace('"1700000000010"', '"0"'), "expected ms since the epoch"),
        (
            okx_line("update", 1_700_000_000_010, [["1.0000000000000000001", "1", "1"]], []),
            "cannot be decoded",
        ),
        (okx_line("update", 1_700_000_000_010, [["x", "1", "1"]], []), "is not a valid decimal"),
        (okx_line("update", 1_700_000_000_010, [["1", "1", "-1"]], []), "a level tells '-1' orders"),
    ],
)
def test_okx_line_that_is_no_message_is_quarantined(tmp_path: Path, line: str, sentence: str) -> None:
    text = "".join([*OKX[:2], line, OKX[2]])
    report = imported(tmp_path, {OKX_BOOK: taped("x.data", text)}, "okx-public")
    assert report.quarantined == 1
    [row] = rows(tmp_path / "data", "quarantine")
    assert sentence in row["error"]
    assert row["frame_text"] == line.strip()
    assert [row["frame"] for row in rows(tmp_path / "data", "depth")] == [0, 0, 0, 1, 3]


def test_okx_empty_message_is_one_row_of_nulls(tmp_path: Path) -> None:
    imported(
        tmp_path,
        {OKX_BOOK: taped("x.data", OKX[0] + okx_line("update", 1_700_000_000_005, [], []))},
        "okx-public",
    )
    assert [row["price"] is None for row in rows(tmp_path / "data", "depth")] == [False, False, False, True]


# --- tick and lot


def test_tick_and_lot_from_a_file_stand_in_the_instruments(tmp_path: Path) -> None:
    told = tmp_path / "instruments.yaml"
    told.write_text("BTCUSDT: ['0.01', '0.00001']\n")
    imported(tmp_path, {"book.csv": L2 + "".join(BOOK)}, "tardis", grid=read_grid(told))
    [row] = rows(tmp_path / "data", "instruments")
    assert (row["source"], row["tick_size"], row["lot_size"]) == ("user", Decimal("0.01"), Decimal("0.00001"))


@pytest.mark.parametrize("text", ["BTCUSDT: 0.01", "[1, 2]", "{", "BTCUSDT: ['0', '1']"])
def test_file_of_ticks_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    told = tmp_path / "instruments.yaml"
    told.write_text(text)
    with pytest.raises(UsageError, match="nothing was imported"):
        read_grid(told)
