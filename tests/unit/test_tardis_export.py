"""Tardis CSV of a recording: its reader, who knows no ids, builds the very book that ours is."""

from __future__ import annotations

import csv
import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from mmdata.datasets.book import Book
from mmdata.datasets.errors import UsageError
from mmdata.datasets.formats import tardis
from mmdata.datasets.formats.output import Written, output
from mmdata.datasets.loading import load_market
from mmdata.recorder.importing import import_sources
from tests.builders import TS, spot_lines

Levels = dict[Decimal, Decimal]


def recorded(folder: Path, lines: list[bytes]) -> Path:
    path = folder / "source"
    path.write_bytes(b"".join(lines))
    root = folder / "data"
    import_sources([path], root, source_format="hftbacktest", exchange="binance", symbol="BTCUSDT")
    return root


def exported(root: Path, start: int | None = None, end: int | None = None) -> dict[str, list[dict[str, str]]]:
    written: list[Written] = []
    with output(root.parent / f"out-{start}-{end}", written) as out:
        tardis.write(root, out, "binance", "BTCUSDT", start, end)
    told = {}
    for file in written:
        with gzip.open(file.path, "rt") as text:
            told[file.path.name.split("_2024")[0].removeprefix("binance_")] = [*csv.DictReader(text)]
    return told


def last_book(told: list[dict[str, str]]) -> tuple[Levels, Levels]:
    """Read the book as whoever reads the format does."""
    sides: dict[str, Levels] = {"bid": {}, "ask": {}}
    before: tuple[str, str] | None = None
    for row in told:
        key = (row["is_snapshot"], row["local_timestamp"])
        if row["is_snapshot"] == "true" and key != before:
            sides = {"bid": {}, "ask": {}}
        before = key
        own, price, amount = sides[row["side"]], Decimal(row["price"]), Decimal(row["amount"])
        own[price] = amount
        if not amount:
            del own[price]
    return sides["bid"], sides["ask"]


def our_book(root: Path) -> tuple[Levels, Levels]:
    market = load_market(root, "binance", "BTCUSDT")
    book = Book(market.columns, market.chain)
    for message in range(len(market.columns.kind)):
        book.step(message)
    tick, lot = market.tick_size, market.lot_size
    bids, asks = ({price * tick: size * lot for price, size in side} for side in (book.bids(), book.asks()))
    return bids, asks


def test_snapshot_stands_where_it_became_the_book_and_what_waited_follows(tmp_path: Path) -> None:
    lines = spot_lines(count=6)
    late = [*lines[1:6], TS_LATE + lines[0].partition(b" ")[2], *lines[6:]]
    root = recorded(tmp_path, late)
    told = exported(root)["incremental_book_L2"]
    assert last_book(told) == our_book(root)
    assert [row["is_snapshot"] for row in told[:2]] == ["true", "true"]
    stamps = [int(row["local_timestamp"]) for row in told]
    assert stamps == sorted(stamps)
    assert len({row["local_timestamp"] for row in told[:5]}) == 1  # the snapshot, and three that waited


TS_LATE = b"%d " % (TS + 5_500_000)


def test_what_belongs_to_no_proven_book_is_left_out_and_trades_are_kept(tmp_path: Path) -> None:
    root = recorded(tmp_path, spot_lines(skip=(4,)))
    told = exported(root)
    assert [row["amount"] for row in told["incremental_book_L2"]] == [
        "2",
        "5.5",
        "1.25",
        "2.25",
        "3.25",
        "4.25",
    ]
    assert [row["id"] for row in told["trades"]] == ["0", "1", "2", "3", "5", "6", "7", "8", "9"]
    assert {row["side"] for row in told["trades"]} == {"sell"}


def test_a_stretch_begins_with_the_book_as_it_stood(tmp_path: Path) -> None:
    root = recorded(tmp_path, spot_lines())
    start, end = TS + 9_500_000, TS + 16_500_000
    told = exported(root, start, end)["incremental_book_L2"]
    assert [(row["is_snapshot"], row["side"], row["price"], row["amount"]) for row in told[:3]] == [
        ("true", "bid", "100.2", "5.25"),
        ("true", "bid", "100.1", "2"),
        ("true", "ask", "100.3", "5.5"),
    ]
    assert {row["local_timestamp"] for row in told[:3]} == {str(start // 1_000)}
    assert [row["amount"] for row in told[3:]] == ["6.25", "7.25", "8.25"]


def test_exchange_without_a_name_at_tardis_is_refused(tmp_path: Path) -> None:
    root = recorded(tmp_path, spot_lines())
    written: list[Any] = []
    with (
        pytest.raises(UsageError, match="exchange 'kraken' has no name at Tardis"),
        output(tmp_path / "out", written) as out,
    ):
        tardis.write(root, out, "kraken", "BTCUSDT", None, None)
    assert not (tmp_path / "out").exists() or [*(tmp_path / "out").iterdir()] == []
