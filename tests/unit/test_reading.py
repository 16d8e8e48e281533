"""`scan`: the chosen rows, lazily, as exact decimals."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from mmdata.datasets import scan
from mmdata.datasets.errors import UsageError
from tests.builders import LEVELS, NOON, depth, frame, run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fine = depth(110, [["0.000000000123", "1"]], [], "123")
    run(tmp_path, [frame(0, depth(100, *LEVELS)), frame(5, depth(105, *LEVELS)), frame(9, fine)])
    return tmp_path


def test_rows_come_in_order_with_their_partition_as_columns(root: Path) -> None:
    rows = scan(root, "depth", exchange="binance", symbol="BTCUSDT").collect()
    assert rows["frame"].to_list() == [0, 0, 0, 5, 5, 5]
    assert rows["price"].dtype == pl.Decimal(18, 8)
    assert rows["date"].unique().to_list() == [date(2026, 11, 21)]


def test_narrow_and_wide_symbols_are_united_exactly_and_a_symbol_of_digits_stays_text(root: Path) -> None:
    rows = scan(root, "depth").collect()
    assert rows["price"].dtype == pl.Decimal(38, 18)
    assert set(rows["symbol"]) == {"BTCUSDT", "123"}
    assert Decimal("0.000000000123") in set(rows["price"])
    assert Decimal("61837.64") in set(rows["price"])


def test_time_range_is_half_open(root: Path) -> None:
    rows = scan(root, "depth", symbol="BTCUSDT", start=NOON, end=NOON + 5).collect()
    assert rows["frame"].unique().to_list() == [0]


def test_nothing_found_is_an_empty_frame_with_the_columns(root: Path) -> None:
    rows = scan(root, "depth", symbol="NONE").collect()
    assert rows.is_empty()
    assert {"price", "symbol", "date"} <= set(rows.columns)


def test_unknown_table_is_refused(root: Path) -> None:
    with pytest.raises(UsageError, match="table 'depths' is not known, expected one of depth, snapshots"):
        scan(root, "depths")
