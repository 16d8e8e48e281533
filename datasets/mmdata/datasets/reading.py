"""Tables as Polars frames: lazily, exactly, with only the files that can hold what is asked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import polars as pl

from mmdata.datasets.errors import UsageError
from mmdata.datasets.layout import date_name, fused, list_parts
from mmdata.datasets.schema import TABLES, arrow_schema, exact_columns
from mmdata.datasets.times import Moment, to_ns

_HIVE = {"exchange": pl.String, "symbol": pl.String, "date": pl.Date}


def scan(
    root: str | Path,
    table: str,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
) -> pl.LazyFrame:
    """Return the rows of ``table`` in their order, as a lazy frame; ``start <= ts_recv < end``.

    Columns are the table's, then ``exchange``, ``symbol`` and ``date``. Prices and sizes are decimals:
    ``(18, 8)``, or ``(38, 18)`` where one of the chosen symbols needs it. Where nothing fits, the frame is
    empty and has the columns. UsageError: there is no such table.
    """
    if table not in TABLES:
        raise UsageError(f"table {table!r} is not known, expected one of {', '.join(TABLES)}")
    begin = None if start is None else to_ns(start)
    stop = None if end is None else to_ns(end, end=True)
    parts = [
        part
        for part in list_parts(Path(root), table, exchange=exchange, symbol=symbol)
        if (begin is None or part.partition.date >= date_name(begin))
        and (stop is None or part.partition.date <= date_name(stop))
    ]
    wide = any(part.partition.wide for part in parts)
    if not parts:
        empty = pl.from_arrow(arrow_schema(table).empty_table())
        assert isinstance(empty, pl.DataFrame)
        return empty.lazy().with_columns(pl.lit(None, kind).alias(name) for name, kind in _HIVE.items())
    exact = pl.Decimal(38, 18) if wide else pl.Decimal(18, 8)
    parts = fused(parts, sessions=True)
    stretches = Counter(part.path for part in parts)
    frames = []
    for part in parts:
        frame = pl.scan_parquet(part.path, hive_partitioning=True, hive_schema=_HIVE)
        if stretches[part.path] > 1:  # sessions that overlap in time: their days are read alternately
            frame = frame.slice(part.offset, part.rows)
        frames.append(frame.with_columns(pl.col(exact_columns(table)).cast(exact)))
    rows = pl.concat(frames)
    if begin is not None:
        rows = rows.filter(pl.col("ts_recv") >= _moment(begin))
    if stop is not None:
        rows = rows.filter(pl.col("ts_recv") < _moment(stop))
    return rows


def _moment(ns: int) -> pl.Expr:
    return pl.lit(ns).cast(pl.Datetime("ns", "UTC"))
