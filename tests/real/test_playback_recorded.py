"""The real Binance capture played over real sockets, recorded again: the same tables as by import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from mmdata.datasets.layout import list_parts
from mmdata.datasets.validation import validate
from mmdata.recorder.capture import format_frame, parse_line
from mmdata.recorder.ingest import Ingest
from tests.integration.conftest import mmdata, running_sandbox, write_job

pytestmark = pytest.mark.real

_PACE = 60.0


def values(root: Path, table: str, columns: list[str]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    for part in list_parts(root, table, exchange="binance"):
        read = pq.read_table(part.path, columns=columns, partitioning=None)
        rows += zip(*(read[name].to_pylist() for name in columns), strict=True)
    return rows


def test_capture_played_over_sockets_is_recorded_as_it_is_imported(
    shared_data: Path, real_dataset: Path, tmp_path: Path
) -> None:
    captures = [str(shared_data / f"binance/btcusdt_{day}.gz") for day in ("20240808", "20240809")]
    with running_sandbox(tmp_path / "truth", captures=captures, pace=_PACE) as sandbox:
        job = write_job(
            tmp_path / "job.yaml",
            root=str(tmp_path / "data"),
            venues=[sandbox.venue("binance", ["BTCUSDT"])],
            duration="30s",  # of which it takes half, unless the machine is busy
        )
        run = mmdata("record", job, "--json")
    assert run.returncode == 0, run.stderr
    [venue] = json.loads(run.stdout)["venues"]
    assert (venue["gaps"], venue["quarantined"], venue["rows"]["trades"]) == (0, 0, 19904)
    for table, columns in (
        ("depth", ["first_id", "last_id", "prev_id", "side", "price", "size", "is_last"]),
        ("trades", ["trade_id", "side", "price", "size"]),
        ("bbo", ["last_id", "bid_price", "bid_size", "ask_price", "ask_size"]),
    ):
        assert values(tmp_path / "data", table, columns) == values(real_dataset, table, columns), table
    [figures] = validate(tmp_path / "data").symbols
    assert (figures.messages, figures.chain_breaks) == (6495, 0)
    # Every one from the snapshot on; each second until it is there is a minute of the capture.
    [(snapshot, frame)] = {*values(tmp_path / "data", "snapshots", ["last_id", "frame"])}
    messages = values(tmp_path / "data", "depth", ["last_id", "frame"])
    ids = {last for last, own in messages if last > snapshot and own > frame}
    told = sum(last in ids for (last,) in values(tmp_path / "data", "bbo", ["last_id"]))
    assert figures.bbo_equal == figures.bbo_compared == told
    assert told >= 500  # of 1,072


def test_okx_updates_of_2026_come_back_exact_from_the_tables(shared_data: Path, tmp_path: Path) -> None:
    from decimal import Decimal

    texts = (shared_data / "okx/books_updates_20260824.jsonl").read_bytes().splitlines()
    ingest = Ingest(tmp_path, "okx", "20260824T000000Z-aaaaaa", {})
    for number, text in enumerate(texts):
        stamp = 1_787_612_486_000_000_000 + number
        ingest.take(parse_line(number, format_frame(stamp, 0, text, is_text=True)[:-1]))
    ingest.flush()
    wire = [
        (side, Decimal(price), Decimal(size), int(orders))
        for text in texts
        for data in json.loads(text).get("data", ())
        for side, key in (("bid", "bids"), ("ask", "asks"))
        for price, size, _, orders in data[key]
    ]
    [part] = list_parts(tmp_path, "depth")
    read = pq.read_table(part.path, partitioning=None)
    stored = [
        row
        for row in zip(*(read[name].to_pylist() for name in ("side", "price", "size", "orders")), strict=True)
        if row[1] is not None
    ]
    assert stored == wire
    assert read["checksum"].null_count == read.num_rows
