"""`scan`, `trades`, `bars`, `books`: the chosen rows, exact, from only the files that hold them."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from mmdata.datasets import bars, scan, trades
from mmdata.datasets.errors import DatasetError, UsageError
from mmdata.datasets.prices import Prices
from mmdata.recorder.ingest import Ingest
from tests.builders import DAY, LEVELS, NOON, SESSION, depth, frame, run
from tests.recordings import BEFORE_MIDNIGHT, Recording


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


def damage(root: Path, but: str) -> None:
    """Make every file unreadable whose path does not hold ``but``: whoever opens one fails."""
    others = [path for path in root.rglob("*.parquet") if but not in str(path)]
    assert others
    for path in others:
        path.write_bytes(b"no Parquet")


def test_only_files_of_what_is_asked_for_are_opened(root: Path) -> None:
    damage(root, "depth/exchange=binance/symbol=BTCUSDT")
    assert scan(root, "depth", symbol="BTCUSDT").collect().height == 6


def test_a_filter_on_the_partition_chooses_files_too_and_columns_are_read_alone(root: Path) -> None:
    damage(root, "symbol=123")
    chosen = scan(root, "depth").filter(pl.col("symbol") == "123").select("frame")
    assert chosen.collect()["frame"].to_list() == [9]
    plan = chosen.explain()
    scanned = [line for line in plan.splitlines() if "SCAN" in line]
    assert sum("symbol=123" in line for line in scanned) == 1
    assert not any("symbol=BTCUSDT" in line for line in scanned)
    assert plan.count("PROJECT 2/19 COLUMNS") == len(scanned)  # the frame, and the symbol


def test_days_outside_the_time_are_not_opened(tmp_path: Path) -> None:
    run(tmp_path, [frame(0, depth(100, *LEVELS)), frame(1, depth(105, *LEVELS), ts=NOON + DAY)])
    damage(tmp_path, "date=2026-11-22")
    assert scan(tmp_path, "depth", start="2026-11-22").collect()["frame"].unique().to_list() == [1]
    assert scan(tmp_path, "depth", start="2026-11-22", end="2026-11-22").collect().height == 3


def test_nothing_is_opened_before_the_frame_is_collected(root: Path) -> None:
    frame_ = scan(root, "depth")
    damage(root, "nowhere")
    assert "price" in frame_.collect_schema()
    with pytest.raises(pl.exceptions.ComputeError):
        frame_.collect()


def test_name_that_a_path_cannot_hold_comes_back_as_it_was(tmp_path: Path) -> None:
    Recording(tmp_path, "okx", "币安/USDT").play([(("snapshot", None), 1)])
    rows = scan(tmp_path, "depth", symbol="币安/USDT").collect()
    assert rows["symbol"].to_list() == ["币安/USDT"]
    assert scan(tmp_path, "depth").filter(pl.col("symbol") == "币安/USDT").collect().height == 1


def told(root: Path, tick: str = "0.25", lot: str = "0.001") -> Recording:
    recording = Recording(root)
    recording.instrument(Decimal(tick), Decimal(lot))
    recording.diff([("bid", 3, 2), ("ask", 1, 0)])
    recording.part()
    return recording


def test_prices_are_decimals_floats_or_counts_of_tick_and_lot(tmp_path: Path) -> None:
    told(tmp_path)

    def levels(prices: Prices) -> list[tuple[object, ...]]:
        return scan(tmp_path, "depth", prices=prices).select("price", "size").collect().rows()

    assert levels("decimal") == [(Decimal("0.75"), Decimal("0.002")), (Decimal("2.75"), Decimal(0))]
    assert levels("float") == [(0.75, 0.002), (2.75, 0.0)]
    assert levels("ticks") == [(3, 2), (11, 0)]
    assert scan(tmp_path, "depth", prices="ticks").collect_schema()["price"] == pl.Int64
    with pytest.raises(
        UsageError, match="prices='cents' is not known, expected one of decimal, float, ticks"
    ):
        scan(tmp_path, "depth", prices="cents")  # type: ignore[arg-type]


def test_message_without_levels_stays_null_in_ticks(tmp_path: Path) -> None:
    recording = told(tmp_path)
    recording.diff([])
    recording.part()
    assert scan(tmp_path, "depth", prices="ticks").collect()["price"].to_list() == [3, 11, None]


def test_tick_that_changes_within_the_time_is_refused_with_both_and_the_moment(tmp_path: Path) -> None:
    recording = told(tmp_path)
    recording.now += DAY
    recording.instrument(Decimal("0.05"), Decimal("0.001"))
    recording.diff([("bid", 3, 2)])
    recording.part()
    with pytest.raises(UsageError, match=r"tick changed from 0\.25 to 0\.05, told at 2026-11-22T23:59:50"):
        scan(tmp_path, "depth", prices="ticks")
    before = scan(tmp_path, "depth", prices="ticks", end="2026-11-21").collect()
    after = scan(tmp_path, "depth", prices="ticks", start=recording.now).collect()
    assert (before["price"].to_list(), after["price"].to_list()) == ([3, 11], [15])


def test_ticks_of_symbols_are_each_counted_in_their_own(tmp_path: Path) -> None:
    told(tmp_path)
    other = Recording(tmp_path, symbol="ETHUSDT", tick=Decimal("0.5"))
    other.instrument(Decimal("0.5"), Decimal("0.001"))
    other.diff([("bid", 7, 1)])
    other.part()
    rows = scan(tmp_path, "depth", prices="ticks").collect()
    assert dict(zip(rows["symbol"], rows["price"], strict=True)) == {"BTCUSDT": 11, "ETHUSDT": 7}


def test_tick_that_nothing_tells_is_refused_and_files_may_tell_it(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither the table instruments nor the files say what tick and lot"):
        scan(root, "depth", symbol="BTCUSDT", prices="ticks")
    ingest = Ingest(
        tmp_path / "told", "binance", SESSION, {"version": "0", "tick_size": "0.01", "lot_size": "1E-8"}
    )
    ingest.take(frame(0, depth(100, *LEVELS)))
    ingest.flush()
    prices = scan(tmp_path / "told", "depth", prices="ticks").collect()["price"]
    assert prices.to_list() == [6173763, 6173017, 6183764]


def test_value_off_the_tick_is_an_error_when_it_is_read(tmp_path: Path) -> None:
    told(tmp_path, tick="0.5")
    rows = scan(tmp_path, "depth", prices="ticks")
    assert rows.select("size").collect()["size"].to_list() == [2, 0]
    with pytest.raises(DatasetError, match=r"[02]\.75 is no whole multiple of the tick 0\.5"):
        rows.collect()


def tape(root: Path) -> Recording:
    recording = told(root)
    for number, (seconds, side, price, size) in enumerate(
        [(0, "buy", 4, 1), (1, "sell", 2, 3), (119, "buy", 3, 1)]
    ):
        recording.now += seconds * 1_000_000_000
        recording.trade(number, side, price, size)
    recording.part()
    return recording


def test_bars_are_left_closed_and_times_without_trades_stay_empty(tmp_path: Path) -> None:
    tape(tmp_path)
    rows = bars(tmp_path, exchange="binance", symbol="BTCUSDT", every="1m")
    assert rows.select(pl.col("ts").dt.to_string("%H:%M"), "open", "low", "trades").rows() == [
        ("23:59", Decimal(1), Decimal("0.5"), 2),
        ("00:01", Decimal("0.75"), Decimal("0.75"), 1),
    ]
    assert rows.row(0, named=True)["vwap"] == Decimal("0.625")
    assert rows.row(0, named=True)["imbalance"] == pytest.approx(-0.5)
    floats = bars(tmp_path, exchange="binance", symbol="BTCUSDT", every=60, prices="float")
    assert floats["volume"].to_list() == [0.004, 0.001]


def test_bars_by_the_exchanges_clock_hold_what_was_asked_for_later_and_those_by_ours_do_not(
    tmp_path: Path,
) -> None:
    recording = tape(tmp_path)
    recording.now += 3_600_000_000_000
    recording.trade(7, "buy", 8, 1, origin="backfill", ts_event=BEFORE_MIDNIGHT)
    recording.part()
    how: dict[str, Any] = {"exchange": "binance", "symbol": "BTCUSDT", "every": "1m"}
    assert bars(tmp_path, **how, end="2026-11-21")["high"].to_list() == [Decimal(2)]
    assert bars(tmp_path, **how, clock="ts_recv")["high"].to_list() == [Decimal(1), Decimal("0.75")]


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"every": "soon"}, "every='soon' is no interval"),
        ({"every": "1m", "clock": "mine"}, "clock='mine' is not known, expected one of ts_event, ts_recv"),
        ({"every": "1m", "prices": "ticks"}, "prices='ticks' is not known, expected decimal or float"),
    ],
)
def test_bars_that_cannot_be_are_refused(tmp_path: Path, wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        bars(tmp_path, exchange="binance", symbol="BTCUSDT", **wrong)


def test_sum_beyond_128_bits_is_an_error_not_a_wrong_number(tmp_path: Path) -> None:
    recording = Recording(tmp_path, tick=Decimal("9999999999.99999999"), lot=Decimal("9999999999.99999999"))
    for number in range(200):
        recording.trade(number, "buy", 1, 1)
    recording.part()
    with pytest.raises(DatasetError, match="beyond the 128 bits"):
        bars(tmp_path, exchange="binance", symbol="BTCUSDT", every="1m")


def trade_ids(root: Path, **how: Any) -> list[int]:
    rows = trades(root, exchange="binance", symbol="BTCUSDT", **how).collect()
    return rows["trade_id"].to_list()


def test_aggregates_count_where_a_session_has_no_single_trades_and_blocks_never(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.trade(1, "buy", 1, 1)
    recording.trade(1, "buy", 1, 1, kind="agg")
    recording.trade(2, "buy", 1, 1, kind="block")
    recording.session()
    recording.trade(3, "buy", 1, 1, kind="agg")
    recording.part()
    assert trade_ids(tmp_path) == [1, 3]


def test_trade_that_is_told_again_stands_where_it_came_first(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.trade(1, "buy", 1, 1)
    recording.trade(3, "buy", 1, 1)
    recording.trade(2, "sell", 1, 1, origin="backfill")
    recording.trade(3, "buy", 1, 1, origin="backfill")
    recording.part()
    assert trade_ids(tmp_path) == [1, 3, 2]


def test_times_and_ticks_are_those_of_scan(tmp_path: Path) -> None:
    recording = told(tmp_path)
    for number in range(3):
        recording.now += 1
        recording.trade(number, "buy", number + 1, 1)
    recording.part()
    assert trade_ids(tmp_path, start=BEFORE_MIDNIGHT + 2, end=BEFORE_MIDNIGHT + 3) == [1]
    rows = trades(tmp_path, exchange="binance", symbol="BTCUSDT", prices="ticks").collect()
    assert rows["price"].to_list() == [1, 2, 3]
