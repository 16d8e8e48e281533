"""Whatever parts there are, compacting some days now and all later changes no row and no order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdata.datasets import compact, scan
from mmdata.datasets.layout import Partition, date_name, list_parts
from mmdata.datasets.publish import publish
from mmdata.datasets.schema import arrow_schema
from mmdata.datasets.stretches import stretches_of
from tests.builders import DAY, NOON, rows

SESSIONS = ("20261121T080000Z-bbbbbb", "20261121T090000Z-aaaaaa", "import-0123456789ab")

Part = tuple[int, int, int, int, bool]
"""Session, day, rows of two frames, shift of the clock, wide."""


def publish_parts(root: Path, parts: list[Part]) -> None:
    """Publish parts in turn; each session's frames go on from one to the next."""
    frames, numbers = [0] * len(SESSIONS), [0] * len(SESSIONS)
    for at, day, count, shift, wide in parts:
        ts = NOON + day * DAY + shift
        content = [
            {
                "session": SESSIONS[at],
                "frame": frames[at] + row // 2,
                "ts_recv": ts + row,
                "kind": "trade",
                "origin": "stream",
                "trade_id": row,
                "side": "buy",
                "price": "0.5",
                "size": str(row + 1),
                "flags": None if row % 3 else "X,MARKET",
            }
            for row in range(count)
        ]
        schema = arrow_schema("trades", wide=wide)
        columns = {
            name: pa.array(
                [row.get(name) for row in content], pa.string() if name in ("price", "size") else None
            )
            for name in schema.names
        }
        table = pa.table(columns).cast(schema)
        partition = Partition("trades", wide, "okx", "BTC-USDT", date_name(ts))
        publish(root, partition, SESSIONS[at], numbers[at], table, {"part": str(numbers[at])})
        frames[at] += count
        numbers[at] += 1


def told(root: Path) -> tuple[list[Any], list[Any], list[str]]:
    """Return all rows by two readers, and what ingest can find out of what is there."""
    found = sorted(
        f"{part.partition.date} {stretch}"
        for part in list_parts(root, "trades")
        for stretch in stretches_of(part)
    )
    return rows(root, "trades"), scan(root, "trades").collect().rows(), found


@given(
    parts=st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(0, 1), st.integers(1, 9), st.integers(-99, 99), st.booleans()
        ),
        min_size=1,
        max_size=8,
    ),
    early=st.integers(0, 1),
    group=st.integers(1, 10),
)
@settings(max_examples=30, deadline=None)
def test_no_row_and_no_order_changes(parts: list[Part], early: int, group: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        # So that row groups and parts cross each other.
        patch.setattr("mmdata.datasets.compaction.ROW_GROUP", group)
        root = Path(folder, "data")
        root.mkdir()
        publish_parts(root, parts)
        before = told(root)
        compact(root, date=date_name(NOON + early * DAY))
        assert told(root) == before
        compact(root)
        assert told(root) == before
        days = {(part.partition.date, part.path) for part in list_parts(root, "trades")}
        assert len(days) == len({date for date, _ in days})
