"""`export`: which rows each format gets, and what it refuses."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmdata.datasets import export
from mmdata.datasets.decimals import to_floats
from mmdata.datasets.errors import DatasetError, DiskError, UsageError
from mmdata.datasets.formats import hftbacktest, nautilus
from mmdata.datasets.formats.hftbacktest import (
    BUY_EVENT,
    DEPTH_CLEAR_EVENT,
    DEPTH_EVENT,
    DEPTH_SNAPSHOT_EVENT,
    EXCH_EVENT,
    LOCAL_EVENT,
    SELL_EVENT,
    TRADE_EVENT,
)
from mmdata.datasets.formats.plain_csv import import_csv, named
from tests.builders import DAY, NOON
from tests.table_rows import publish_rows

MS = 1_000_000
SESSION = "20261121T080000Z-aaaaaa"
BOTH = EXCH_EVENT | LOCAL_EVENT


def key(frame: int, late_ms: int = -5, day: int = 0) -> dict[str, Any]:
    """Return the key of a row received at ``frame`` tenths of a second; its event is ``late_ms`` after it."""
    at = NOON + frame * 100 * MS + day * DAY
    return {"session": SESSION, "frame": frame, "ts_recv": at, "ts_event": at + late_ms * MS}


def diff(frame: int, number: int, side: str, price: str, size: str, day: int = 0, **more: Any) -> Any:
    level = {"side": side, "price": Decimal(price), "size": Decimal(size)}
    ids = {"first_id": number, "last_id": number, "prev_id": number - 1}
    return key(frame, day=day) | ids | level | more


def book(frame: int, number: int, reason: str = "start") -> list[dict[str, Any]]:
    levels = (("bid", "0.3"), ("bid", "0.1"), ("ask", "0.7"))
    told = {"last_id": number, "size": Decimal(2), "reason": reason}
    return [key(frame) | told | {"side": side, "price": Decimal(price)} for side, price in levels]


def trade(frame: int, number: int, late_ms: int = -5, **more: Any) -> dict[str, Any]:
    told = {"trade_id": number, "side": "sell", "price": Decimal("0.3"), "size": Decimal("0.5")}
    return key(frame, late_ms) | told | more


def record(root: Path, **tables: list[dict[str, Any]]) -> Path:
    for n, (table, rows) in enumerate(tables.items()):
        days = sorted({row["ts_recv"] // DAY for row in rows})
        for at, day in enumerate(days):
            own = [row for row in rows if row["ts_recv"] // DAY == day]
            publish_rows(root, table, own, exchange="binance", n=10 * n + at)
    return root


def events(out: Path) -> list[tuple[int, float, float, int, int]]:
    """Return (flags, price, size, exchange's and local time in ms after noon) of all files."""
    arrays = [hftbacktest.read(path) for path in sorted(out.glob("*.npz"))]
    return [
        (int(row["ev"]), float(row["px"]), float(row["qty"]), _ms(row["exch_ts"]), _ms(row["local_ts"]))
        for array in arrays
        for row in array
    ]


def _ms(ns: int) -> int:
    return int((ns - NOON) // MS)


def test_a_book_is_told_whole_then_its_changes_and_at_a_hole_that_it_is_gone(tmp_path: Path) -> None:
    root = record(
        tmp_path / "data",
        depth=[
            diff(0, 11, "bid", "0.2", "1"),
            diff(2, 12, "ask", "0.7", "0"),
            diff(3, 20, "bid", "0.3", "9"),
            diff(5, 21, "bid", "0.3", "8"),
        ],
        snapshots=[*book(1, 10), *book(4, 19, "gap")],
        trades=[trade(2, 1), trade(3, 2)],
    )
    report = export(root, "hftbacktest", tmp_path / "npz")
    # All latencies are 5 ms; the map leaves 1.
    whole = [
        (DEPTH_CLEAR_EVENT, 0.0, 0.0),
        (DEPTH_SNAPSHOT_EVENT | BUY_EVENT, 0.3, 2.0),
        (DEPTH_SNAPSHOT_EVENT | BUY_EVENT, 0.2, 1.0),
        (DEPTH_SNAPSHOT_EVENT | BUY_EVENT, 0.1, 2.0),
        (DEPTH_SNAPSHOT_EVENT | SELL_EVENT, 0.7, 2.0),
    ]
    again = [whole[0], (whole[1][0], 0.3, 9.0), *whole[3:]]
    assert events(tmp_path / "npz") == [
        *((flags | BOTH, price, size, -5, 96) for flags, price, size in whole),
        # The exchange has the trades of a moment before its book.
        (DEPTH_EVENT | SELL_EVENT | LOCAL_EVENT, 0.7, 0.0, 195, 196),
        (TRADE_EVENT | SELL_EVENT | BOTH, 0.3, 0.5, 195, 196),
        (DEPTH_EVENT | SELL_EVENT | EXCH_EVENT, 0.7, 0.0, 195, 196),
        # The old book was proven only until its last message, and there the exchange has the next one.
        (DEPTH_CLEAR_EVENT | BOTH, 0.0, 0.0, 195, 296),
        *((flags | EXCH_EVENT, price, size, 195, 396) for flags, price, size in again),
        (TRADE_EVENT | SELL_EVENT | BOTH, 0.3, 0.5, 295, 296),
        *((flags | LOCAL_EVENT, price, size, 195, 396) for flags, price, size in again),
        (DEPTH_EVENT | BUY_EVENT | BOTH, 0.3, 8.0, 495, 496),
    ]
    [facts] = report.symbols
    assert (facts["tick_size"], facts["lot_size"]) == ("0.1", "0.5")
    assert facts["sessions"] == [
        {"session": SESSION, "shift_ns": -4 * MS, "source": "least latency set to 1 ms"}
    ]
    assert json.loads((tmp_path / "npz/binance_BTCUSDT_20261121.json").read_text()) == facts


def test_what_comes_late_stands_twice_and_what_was_asked_for_later_is_the_exchanges_alone(
    tmp_path: Path,
) -> None:
    root = record(
        tmp_path / "data",
        depth=[diff(0, 11, "bid", "0.2", "1"), diff(2, 12, "bid", "0.2", "3")],
        snapshots=book(1, 10),
        trades=[trade(3, 7, late_ms=-250), trade(4, 5, late_ms=-350, origin="backfill"), trade(5, 8)],
    )
    export(root, "hftbacktest", tmp_path / "npz")
    found = [event for event in events(tmp_path / "npz") if event[0] & 0xFF in (TRADE_EVENT, DEPTH_EVENT)]
    sold = TRADE_EVENT | SELL_EVENT
    assert found == [
        (sold | EXCH_EVENT, 0.3, 0.5, 50, 396),  # asked for later
        (sold | EXCH_EVENT, 0.3, 0.5, 50, 296),
        (DEPTH_EVENT | BUY_EVENT | BOTH, 0.2, 3.0, 195, 196),
        (sold | LOCAL_EVENT, 0.3, 0.5, 50, 296),
        (sold | BOTH, 0.3, 0.5, 495, 496),
    ]


def test_each_day_is_a_file_that_begins_with_the_whole_book(tmp_path: Path) -> None:
    root = record(
        tmp_path / "data",
        depth=[
            diff(0, 11, "bid", "0.2", "1"),
            diff(2, 12, "bid", "0.2", "3", day=1),
            diff(3, 13, "bid", "0.2", "4", day=1),
        ],
        snapshots=book(1, 10),
    )
    export(root, "hftbacktest", tmp_path / "npz")
    second = hftbacktest.read(tmp_path / "npz/binance_BTCUSDT_20261122.npz")
    assert (second["ev"] & 0xFF).tolist() == [
        DEPTH_CLEAR_EVENT,
        *[DEPTH_SNAPSHOT_EVENT] * 4,
        *[DEPTH_EVENT] * 2,
    ]
    assert second["qty"].tolist() == [0, 2, 1, 2, 2, 3, 4]
    assert len(np.unique(second["local_ts"][:6])) == 1


def test_from_a_start_the_book_is_told_whole_and_to_an_end(tmp_path: Path) -> None:
    root = record(
        tmp_path / "data",
        depth=[
            diff(0, 11, "bid", "0.2", "1"),
            *(diff(frame, 10 + frame, "bid", "0.2", str(frame)) for frame in (2, 3, 4)),
        ],
        snapshots=book(1, 10),
        trades=[trade(frame, frame) for frame in (2, 3, 4)],
    )
    start, end = NOON + 300 * MS, NOON + 400 * MS
    export(root, "hftbacktest", tmp_path / "npz", start=start, end=end)
    found = hftbacktest.read(tmp_path / "npz/binance_BTCUSDT_20261121.npz")
    kinds = found["ev"] & 0xFF
    book_of = [DEPTH_CLEAR_EVENT, *[DEPTH_SNAPSHOT_EVENT] * 4, DEPTH_EVENT]
    assert kinds[found["ev"] & LOCAL_EVENT != 0].tolist() == [*book_of, TRADE_EVENT]
    assert kinds[found["ev"] & EXCH_EVENT != 0].tolist() == [TRADE_EVENT, *book_of]
    assert found["qty"][found["ev"] & LOCAL_EVENT != 0].tolist() == [0, 2, 2, 2, 2, 3, 0.5]
    report = export(root, "csv", tmp_path / "csv", start=start, end=end)
    assert [(file.path.name, file.rows) for file in report.files] == [
        ("orderbook_ws_depth_BTCUSDT_20261121.csv", 1),
        ("trades_ws_BTCUSDT_20261121.csv", 1),
    ]


def test_nothing_is_overwritten_and_what_fails_leaves_nothing(tmp_path: Path) -> None:
    root, out = record(tmp_path / "data", trades=[trade(0, 1)]), tmp_path / "out"
    [file] = export(root, "csv", out).files
    before = file.path.read_bytes()
    with pytest.raises(UsageError, match=r"is there already; nothing was overwritten"):
        export(root, "csv", out)
    assert file.path.read_bytes() == before
    assert [path.name for path in out.iterdir()] == ["binance"]
    path = next((root / "trades").rglob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        export(root, "hftbacktest", out)
    assert [path.name for path in out.iterdir()] == ["binance"]


def test_the_same_export_is_the_same_bytes(tmp_path: Path) -> None:
    root = record(tmp_path / "data", trades=[trade(frame, frame) for frame in range(5)])
    one, other = (export(root, "hftbacktest", tmp_path / name).files for name in ("one", "other"))
    assert [file.path.read_bytes() for file in one] == [file.path.read_bytes() for file in other]
    assert [file.rows for file in one] == [0, 5]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"format": "tape"},
            "format 'tape' is not known, expected one of csv, hftbacktest",
        ),
        ({"symbol": "ETHUSDT"}, "holds nothing of ETHUSDT"),
        ({"start": 2, "end": 1}, "end comes first"),
        (
            {"start": NOON + DAY},
            "csv holds was received between 2026-11-22T12:00:00.000000000Z and its end",
        ),
    ],
)
def test_what_cannot_be_exported_is_said(tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    root = record(tmp_path / "data", trades=[trade(0, 1)])
    given: dict[str, Any] = {"out": tmp_path / "out", "format": "csv"} | options
    with pytest.raises(UsageError, match=sentence):
        export(root, **given)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_two_sessions_at_once_are_refused(tmp_path: Path) -> None:
    root = record(tmp_path / "data", trades=[trade(0, 1), trade(9, 2)])
    other = [row | {"session": "20261121T090000Z-bbbbbb"} for row in (trade(1, 1), trade(8, 2))]
    publish_rows(root, "trades", other, exchange="binance")
    with pytest.raises(UsageError, match=r"both recorded .* and an export can follow only one"):
        export(root, "hftbacktest", tmp_path / "npz")
    assert export(root, "csv", tmp_path / "csv").files[0].rows == 4


def test_a_folder_that_cannot_be_made_is_a_disk_error(tmp_path: Path) -> None:
    root = record(tmp_path / "data", trades=[trade(0, 1)])
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="nothing was exported"):
        export(root, "csv", tmp_path / "file" / "out")


def test_nautilus_without_the_library_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nautilus_trader.persistence.catalog", None)
    root = record(tmp_path / "data", trades=[trade(0, 1)])
    with pytest.raises(UsageError, match=r"pip install 'mmdata-toolkit\[nautilus\]'"):
        export(root, "nautilus", tmp_path / "out")


def test_instruments_are_called_as_its_own_adapters_call_them() -> None:
    names = [("binance-usdm", "BTCUSDT_260327"), ("okx", "BTC-USDT-SWAP")]
    assert [nautilus.instrument_name(*name) for name in names] == [
        "BTCUSDT_260327.BINANCE",
        "BTC-USDT-SWAP.OKX",
    ]


def test_csv_says_what_it_cannot_read(tmp_path: Path) -> None:
    foreign = tmp_path / "trades.csv"
    foreign.write_text("a\n1\n")
    with pytest.raises(UsageError, match="the name does not tell table, symbol and day"):
        named(foreign)
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    lacking = folder / "trades_ws_BTCUSDT_20261121.csv"
    lacking.write_text("session,frame\nA,1\n")
    with pytest.raises(UsageError, match="name it by --exchange"):
        import_csv([lacking], tmp_path / "data", exchange=None)
    with pytest.raises(DatasetError, match="is no trades of schema version 1"):
        import_csv([lacking], tmp_path / "data", exchange="binance")
    root = record(tmp_path / "data", trades=[trade(0, 1), trade(1, 2, size=Decimal("0.7"))])
    [file] = export(root, "csv", tmp_path / "csv").files
    text = file.path.read_text()
    file.path.write_text(text.replace("0.70000000", "0.700000001"))  # finer than those before it
    with pytest.raises(DatasetError, match="Rescaling"):
        import_csv([file.path], tmp_path / "back", exchange=None)
    file.path.write_text(text.replace(",sell,", ",,"))
    with pytest.raises(DatasetError, match="side is empty"):
        import_csv([file.path], tmp_path / "back", exchange=None)


def test_floats_are_the_nearest_whatever_the_unit() -> None:
    units = [Decimal(1).scaleb(exponent) for exponent in range(-18, 4)] + [Decimal("0.25"), Decimal("2.5")]
    counts = np.array([0, 1, 3, 7, 123_456_789, 2**53 + 1, 10**15], np.int64)
    for unit in units:
        assert to_floats(counts, unit).tolist() == [float(Decimal(int(n)) * unit) for n in counts]
