"""Tables as Polars frames: lazily, exactly, with only the files that can hold what is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import groupby

import polars as pl

from mmdata.datasets.errors import UsageError
from mmdata.datasets.grid import Step
from mmdata.datasets.layout import Part, date_name, fused, list_parts
from mmdata.datasets.prices import Prices, require_known, step_of, steps_in_force, whole_steps
from mmdata.datasets.schema import TABLES, arrow_schema, exact_columns
from mmdata.datasets.stores import Place, Root, polars_options, root_of
from mmdata.datasets.times import Moment, span

HIVE = {"exchange": pl.String, "symbol": pl.String, "date": pl.Date}
_NARROW, _WIDE = pl.Decimal(18, 8), pl.Decimal(38, 18)


def scan(
    root: Root,
    table: str,
    *,
    exchange: str | None = None,
    symbol: str | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    prices: Prices = "decimal",
) -> pl.LazyFrame:
    """Return the rows of ``table`` in their order, as a lazy frame; ``start <= ts_recv < end``.

    Columns are the table's, then ``exchange``, ``symbol`` and ``date``. Prices and sizes are decimals:
    ``(18, 8)``, or ``(38, 18)`` where one of the chosen symbols needs it; ``prices="float"`` makes them
    float64, ``"ticks"`` int64 counts of the tick and the lot in force. (The table `instruments` stays as
    it is: it says what they are.) Files are opened when the frame is collected, and only those, and of
    them only the columns, that are needed. Where nothing fits, the frame is empty and has the columns.

    ``root`` is a folder or ``s3://bucket/prefix``. A file that is replaced by a compaction between this call
    and the collecting is one that Polars does not find: scan again. UsageError: there is no such
    table; with ``"ticks"``, tick or lot is unknown or changes within the time. DatasetError, when collected:
    a value lies off them.
    """
    if table not in TABLES:
        raise UsageError(f"table {table!r} is not known, expected one of {', '.join(TABLES)}")
    require_known(prices)
    place = root_of(root)
    begin, stop = span(start, end)
    parts = chosen_parts(place, table, exchange, symbol, begin, stop)
    if not parts:
        return _handed_out(_empty(table), table, prices, _NARROW, {})
    exact = _WIDE if any(part.partition.wide for part in parts) else _NARROW
    steps = _steps(place, parts, begin, stop) if prices == "ticks" and exact_columns(table) else {}
    frames = []
    for frame, pair in _scans(place, table, parts, by_symbol=bool(steps)):
        frames.append(_handed_out(frame, table, prices, exact, steps.get(pair, {})))
    rows = frames[0] if len(frames) == 1 else pl.concat(frames)
    if begin is not None:
        rows = rows.filter(pl.col("ts_recv") >= moment(begin))
    if stop is not None:
        rows = rows.filter(pl.col("ts_recv") < moment(stop))
    return rows


def trades(
    root: Root,
    *,
    exchange: str,
    symbol: str,
    start: Moment | None = None,
    end: Moment | None = None,
    prices: Prices = "decimal",
) -> pl.LazyFrame:
    """Return the tape of one symbol: each trade once, in order of arrival; arguments are those of `scan`.

    Single trades where a session has them, else aggregates; block trades are off the book and left out. What
    two recordings tell, or a venue that was asked again, stands once, as it came first. Trades that were
    asked for later over REST are there and say so: ``origin`` is ``backfill``.
    """
    place = root_of(root)
    begin, stop = span(start, end)
    parts = chosen_parts(place, "trades", exchange, symbol, begin, stop)
    rows = scan(place, "trades", exchange=exchange, symbol=symbol, start=begin, end=stop, prices=prices)
    single = _sessions_with_single(parts)
    aggregated = (pl.col("kind") == "agg") & ~pl.col("session").is_in(single)
    told = rows.filter((pl.col("kind") == "trade") | aggregated)
    return told.unique(["kind", "trade_id", "ts_event"], keep="first", maintain_order=True)


def chosen_parts(
    root: Place, table: str, exchange: str | None, symbol: str | None, begin: int | None, stop: int | None
) -> list[Part]:
    """Return the parts whose date can hold rows received in ``[begin, stop)`` (ns)."""
    return [
        part
        for part in list_parts(root, table, exchange=exchange, symbol=symbol)
        if (begin is None or part.partition.date >= date_name(begin))
        and (stop is None or part.partition.date <= date_name(stop - 1))
    ]


def moment(ns: int) -> pl.Expr:
    """Return a moment as the tables have it."""
    return pl.lit(ns).cast(pl.Datetime("ns", "UTC"))


def _scans(
    root: Place, table: str, parts: Sequence[Part], *, by_symbol: bool
) -> Iterator[tuple[pl.LazyFrame, tuple[str, str]]]:
    """Yield lazy frames whose rows, one frame after the other, are those of ``parts``; and a symbol each.

    Neighbours that are whole files of one type are one scan: Polars then chooses among them by their
    folders. The schema is told, so that nothing is opened to find it.
    """
    joined = fused(parts, sessions=True)
    stretches = Counter(part.path for part in joined)

    def alike(part: Part) -> tuple[bool, tuple[str, str], object]:
        own = part.partition
        # Sessions that overlap in time: their compacted days are read alternately, a stretch at a time.
        stretch = (part.path, part.offset) if stretches[part.path] > 1 else None
        return own.wide, (own.exchange, own.symbol) if by_symbol else ("", ""), stretch

    for (wide, pair, stretch), group in groupby(joined, alike):
        own = [*group]
        frame = pl.scan_parquet(
            [str(part.path) for part in own],
            glob=False,
            schema=_schema(table, wide=wide),
            hive_partitioning=True,
            hive_schema=HIVE,
            storage_options=polars_options(root),
        )
        if stretch is not None:
            frame = frame.slice(own[0].offset, own[0].rows)
        yield frame, pair


def _schema(table: str, *, wide: bool) -> pl.Schema:
    frame = pl.from_arrow(arrow_schema(table, wide=wide).empty_table())
    assert isinstance(frame, pl.DataFrame)
    return frame.schema


def _empty(table: str) -> pl.LazyFrame:
    return pl.LazyFrame(schema={**_schema(table, wide=False), **HIVE})


def _handed_out(
    frame: pl.LazyFrame, table: str, prices: Prices, exact: pl.Decimal, steps: dict[Step, Decimal]
) -> pl.LazyFrame:
    """Cast the exact columns of ``table`` to what is asked for."""
    columns = exact_columns(table)
    if prices == "float":
        return frame.with_columns(pl.col(columns).cast(pl.Float64))
    if prices == "ticks":
        return frame.with_columns(_counted(name, steps) for name in columns)
    return frame.with_columns(pl.col(columns).cast(exact))


def _counted(name: str, steps: dict[Step, Decimal]) -> pl.Expr:
    of = step_of(name)

    def count(column: pl.Series) -> pl.Series:
        counted = pl.from_arrow(whole_steps(column.to_arrow(), of, steps[of]))
        assert isinstance(counted, pl.Series)
        return counted

    if not steps:  # of no rows
        return pl.col(name).cast(pl.Int64)
    return pl.col(name).map_batches(count, return_dtype=pl.Int64, is_elementwise=True)


def _steps(
    root: Place, parts: Sequence[Part], begin: int | None, stop: int | None
) -> dict[tuple[str, str], dict[Step, Decimal]]:
    own: dict[tuple[str, str], list[Part]] = {}
    for part in parts:
        own.setdefault((part.partition.exchange, part.partition.symbol), []).append(part)
    return {pair: steps_in_force(root, *pair, begin, stop, found) for pair, found in own.items()}


def _sessions_with_single(parts: Sequence[Part]) -> list[str]:
    """Return the sessions that hold single trades; only a column of words is read."""
    from mmdata.datasets.market import read_part

    found: dict[str, bool] = {}
    for part in parts:
        if not found.get(part.session):
            found[part.session] = "trade" in read_part(part, ["kind"])["kind"].unique().to_pylist()
    return [session for session, single in found.items() if single]
