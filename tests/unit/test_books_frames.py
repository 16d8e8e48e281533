"""`books`: what the property tests of its values do not show."""

from __future__ import annotations

from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mmdata.datasets import books, books_at, iter_books
from mmdata.datasets.errors import DatasetError, UsageError
from mmdata.datasets.times import iso
from tests.recordings import Recording


def read(root: Path, **how: Any) -> pl.DataFrame:
    return books(root, exchange="binance", symbol="BTCUSDT", depth=2, **how)


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    recording = Recording(tmp_path)
    recording.instrument(recording.tick, recording.lot)
    levels = [("bid", 3, 2), ("bid", 1, 1), ("ask", 1, 4)]
    recording.play(
        [(("diff", levels), 1), (("snapshot", None), 1), (("diff", []), 1), (("disconnect", []), 1)]
    )
    return tmp_path


def test_long_rows_are_levels_and_a_book_that_is_lost_is_one_row_without(recorded: Path) -> None:
    rows = read(recorded, layout="long").select("valid", "side", "level", "price", "size").rows()
    assert rows == [
        (True, "bid", 0, Decimal("0.75"), Decimal("0.002")),
        (True, "bid", 1, Decimal("0.25"), Decimal("0.001")),
        (True, "ask", 0, Decimal("2.75"), Decimal("0.004")),
        (False, None, None, None, None),
    ]


def test_wide_rows_are_books_in_floats_or_ticks(recorded: Path) -> None:
    columns = ["bid_price_0", "bid_size_0", "ask_price_0", "ask_size_0", "ask_price_1", "last_id"]
    ticks = read(recorded, prices="ticks").select(columns)
    assert ticks.rows() == [(3, 2, 11, 4, None, 102), (None, None, None, None, None, None)]
    floats = read(recorded, prices="float").select(columns)
    assert floats.row(0) == (0.75, 0.002, 2.75, 0.004, None, 102)


def test_time_of_the_exchange_is_that_of_the_last_message(recorded: Path) -> None:
    book = read(recorded).row(0, named=True)
    assert (book["ts_recv"] - book["ts_event"]).total_seconds() == pytest.approx(0.001)


def test_pieces_are_the_whole(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(recorded, every="1ms")
    monkeypatch.setattr("mmdata.datasets.frames._ROOM", 1)
    pieces = [*iter_books(recorded, exchange="binance", symbol="BTCUSDT", depth=2, every="1ms")]
    assert [len(piece) for piece in pieces][:2] == [0, 1]
    assert pl.concat(pieces).equals(whole)


def test_wide_symbols_have_wide_decimals(tmp_path: Path) -> None:
    recording = Recording(tmp_path, "okx", tick=Decimal("1E-12"), lot=Decimal("1E9"))
    recording.diff([("bid", 3, 2)])
    recording.snapshot()
    recording.part()
    rows = books(tmp_path, exchange="okx", symbol="BTCUSDT", depth=1)
    assert rows.schema["bid_price_0"] == pl.Decimal(38, 18)
    assert rows.row(0, named=True)["bid_price_0"] == Decimal("3E-12")
    assert rows.row(0, named=True)["bid_size_0"] == Decimal("2E9")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"every": "0s"}, "every='0s' is no interval"),
        ({"layout": "tall"}, "layout='tall' is not known, expected one of long, wide"),
        ({"symbol": "NONE"}, "no depth of binance NONE; it holds binance BTCUSDT"),
        ({"exchange": "nyse"}, "exchange 'nyse' is not known"),
        ({"depth": 0}, "depth=0 is no number of levels"),
        ({"start": "2026-11-22", "end": "2026-11-20"}, "end comes first"),
    ],
)
def test_books_that_cannot_be_are_refused_by_the_call(
    recorded: Path, wrong: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence):
        iter_books(recorded, **({"exchange": "binance", "symbol": "BTCUSDT"} | wrong))


def test_time_in_which_nothing_was_recorded_has_no_books(recorded: Path) -> None:
    whole = read(recorded)
    early, late = "2020-01-01", "2030-01-01"
    for start, end in ((None, early), (early, early), (late, None)):
        frame = read(recorded, start=start, end=end)
        assert frame.is_empty()
        assert frame.schema == whole.schema


def test_damaged_file_is_named(recorded: Path) -> None:
    for path in recorded.glob("depth/**/*.parquet"):
        path.write_bytes(b"no Parquet")
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        read(recorded)


def test_moments_may_be_text_datetimes_arrays_or_a_series(recorded: Path) -> None:
    read_at = partial(books_at, recorded, exchange="binance", symbol="BTCUSDT", depth=2)
    when = read(recorded)["ts_recv"]
    expected = read_at([*when.dt.epoch("ns")])
    assert expected["valid"].to_list() == [True, False]
    assert expected["bid_size_0"].to_list() == [Decimal("0.002"), None]
    for same in (
        when,
        when.dt.replace_time_zone(None),
        when.to_numpy(),
        when.dt.epoch("ns").to_numpy(),
        [iso(ns) for ns in when.dt.epoch("ns")],
    ):
        assert read_at(same).equals(expected)
    assert read_at([]).schema == expected.schema
    with pytest.raises(UsageError, match="'noon' is not a moment"):
        read_at(["noon"])
    with pytest.raises(UsageError, match="1 of 2 are null"):
        read_at(pl.Series([1, None]))
    with pytest.raises(UsageError, match="an array of float64"):
        read_at(np.array([1.5]))
    with pytest.raises(UsageError, match="1 of 1 are no time"):
        read_at(np.array(["NaT"], "datetime64[ns]"))


def test_levels_at_a_moment_are_rows_of_it_in_the_order_that_was_asked_for(recorded: Path) -> None:
    first, last = read(recorded)["ts_recv"].dt.epoch("ns")
    rows = books_at(
        recorded, [last, first, first], exchange="binance", symbol="BTCUSDT", depth=2, layout="long"
    )
    assert rows["ts_recv"].dt.epoch("ns").to_list() == [last, *[first] * 6]
    assert rows["side"].to_list() == [None, *["bid", "bid", "ask"] * 2]
    assert rows["level"].to_list() == [None, *[0, 1, 0] * 2]


def test_many_moments_are_told_in_pieces(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = read(recorded)["ts_recv"].dt.epoch("ns")
    moments = np.arange(first - 5, last + 10**7, 10**5)
    whole = books_at(recorded, moments, exchange="binance", symbol="BTCUSDT", depth=2)
    monkeypatch.setattr("mmdata.datasets.frames._ROOM", 1)
    assert books_at(recorded, moments, exchange="binance", symbol="BTCUSDT", depth=2).equals(whole)
    assert whole["valid"].sum() == len([at for at in moments if first <= at < last])
