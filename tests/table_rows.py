"""Recordings made row by row, as their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from mmdata.datasets.layout import Partition, date_name
from mmdata.datasets.publish import publish
from mmdata.datasets.schema import arrow_schema

Row = Mapping[str, Any]

_DEFAULTS: dict[str, Any] = {
    "conn": 0,
    "is_snapshot": False,
    "is_last": True,
    "origin": "stream",
    "kind": "trade",
    "reason": "start",
    "source": "venue",
}


def publish_rows(
    root: Path,
    table: str,
    rows: Iterable[Row],
    *,
    exchange: str,
    symbol: str = "BTCUSDT",
    n: int = 0,
    wide: bool = False,
) -> None:
    """Write the rows of one session and date as a part; what a row leaves out is null or a default."""
    given = list(rows)
    schema = arrow_schema(table, wide=wide)
    columns = [
        pa.array([row.get(name, _DEFAULTS.get(name)) for row in given], schema.field(name).type)
        for name in schema.names
    ]
    partition = Partition(table, wide, exchange, symbol, date_name(given[0]["ts_recv"]))
    publish(root, partition, given[0]["session"], n, pa.table(columns, schema=schema), {"version": "test"})
