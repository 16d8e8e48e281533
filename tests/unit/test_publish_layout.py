"""Publishing and naming: a file is there whole or not at all."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmdata.datasets.errors import DatasetError, DiskError
from mmdata.datasets.layout import Partition, encode_symbol, list_parts, list_symbols, part_name
from mmdata.datasets.publish import ROW_GROUP, encoding, facts_of, publish
from mmdata.datasets.schema import arrow_schema
from tests.builders import NOON

PARTITION = Partition("quarantine", wide=False, exchange="okx", symbol="币安/USDT", date="2026-11-21")


def table() -> pa.Table:
    row = {
        "session": "s-1",
        "frame": 1,
        "ts_recv": 1_795_248_000_123_456_789,
        "error": "e",
        "frame_text": "f",
    }
    return pa.Table.from_pylist([row], schema=arrow_schema("quarantine"))


def test_symbol_that_a_path_cannot_hold_comes_back_from_its_folder(tmp_path: Path) -> None:
    path = publish(tmp_path, PARTITION, "s-1", 0, table(), {})
    assert path.name == "20261121T080000.123456789Z-s-1-000000.parquet"
    [part] = list_parts(tmp_path, "quarantine")
    assert (part.partition, part.session, part.n) == (PARTITION, "s-1", 0)
    assert list_symbols(tmp_path) == [("okx", "币安/USDT")]
    assert "/" not in encode_symbol("币安/USDT")


def test_parts_are_read_by_session_start_then_number_not_by_the_name_of_the_session(tmp_path: Path) -> None:
    folder = tmp_path / PARTITION.folder
    folder.mkdir(parents=True)
    names = [
        part_name(300, "import-aaaa", 0),
        part_name(100, "z-session", 0),
        part_name(90, "z-session", 1),  # the clock stepped back
    ]
    for name in names:
        (folder / name).touch()
    found = [(part.session, part.n) for part in list_parts(tmp_path, "quarantine")]
    assert found == [("z-session", 0), ("z-session", 1), ("import-aaaa", 0)]


def test_stray_file_in_a_table_is_named(tmp_path: Path) -> None:
    folder = tmp_path / PARTITION.folder
    folder.mkdir(parents=True)
    (folder / "mine.parquet").touch()
    with pytest.raises(DatasetError, match=r"mine\.parquet: the name is not"):
        list_parts(tmp_path, "quarantine")


def test_full_disk_publishes_nothing_and_leaves_nothing_staged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskError, match="No space left on device"):
        publish(tmp_path, PARTITION, "s-1", 0, table(), {})
    assert list_parts(tmp_path, "quarantine") == []
    assert [*(tmp_path / ".staging").iterdir()] == []


def test_file_that_cannot_be_read_back_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(rows: pa.Table, file: object) -> None:
        pq.write_table(rows, file)
        file.seek(-8, os.SEEK_END)  # type: ignore[attr-defined]
        file.truncate()  # type: ignore[attr-defined]

    monkeypatch.setattr("mmdata.datasets.publish._write", short)
    with pytest.raises(DiskError, match="cannot be read back"):
        publish(tmp_path, PARTITION, "s-1", 0, table(), {})
    assert list_parts(tmp_path, "quarantine") == []


def test_file_is_to_the_byte_what_arrow_writes_of_the_rows_as_they_are(tmp_path: Path) -> None:
    schema = arrow_schema("trades")
    row = {
        "session": "s-1",
        "ts_recv": NOON,
        "kind": "agg",
        "origin": "stream",
        "trade_id": 1,
        "price": Decimal("1.5"),
        "size": Decimal(2),
    }
    rows = pa.concat_tables(
        pa.Table.from_pylist([row | {"frame": at, "side": side, "flags": flags}], schema=schema)
        for at, (side, flags) in enumerate([("buy", None), ("sell", "MARKET"), ("buy", "MARKET")])
    )
    partition = Partition("trades", wide=False, exchange="binance", symbol="X", date="2026-11-21")
    path = publish(tmp_path, partition, "s-1", 0, rows, {"version": "0"})
    facts = {**facts_of(partition), "mmdata.session": "s-1", "mmdata.version": "0"}
    expected = pa.BufferOutputStream()
    pq.write_table(
        rows.replace_schema_metadata(facts), expected, row_group_size=ROW_GROUP, **encoding(rows.column_names)
    )
    assert path.read_bytes() == expected.getvalue().to_pybytes()
